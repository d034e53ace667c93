//! Finding definitions, features and columns by a word or two of what they are called or say.

use serde::Serialize;

use crate::{Catalog, Registry};

/// Things that one search finds.
pub const FOUND_MAX: usize = 100;

/// Something found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Found {
    /// `contract`, `column`, `entity`, `view`, `feature`, `feature_set` or `on_demand`.
    pub kind: &'static str,
    pub name: String,
    pub owner: Option<String>,
    pub description: Option<String>,
    pub tags: Vec<String>,
    #[serde(skip)]
    score: u32,
}

/// Everything that has each word of `text` in its name, description, owner or tags, the best first.
/// Case doesn't matter.
pub fn search(registry: &Registry, catalog: &Catalog, text: &str, limit: usize) -> Vec<Found> {
    let words: Vec<String> = text.split_whitespace().map(str::to_lowercase).collect();
    if words.is_empty() {
        return Vec::new();
    }
    let mut found: Vec<Found> = candidates(registry, catalog)
        .into_iter()
        .filter_map(|candidate| {
            let scores = words.iter().map(|word| score(&candidate, word));
            let scores: Option<Vec<u32>> = scores.collect();
            let score = scores?.iter().sum();
            Some(Found { score, ..candidate })
        })
        .collect();
    found.sort_by(|a, b| (b.score, a.kind, &a.name).cmp(&(a.score, b.kind, &b.name)));
    found.truncate(limit.min(FOUND_MAX));
    found
}

fn candidates(registry: &Registry, catalog: &Catalog) -> Vec<Found> {
    let mut all = Vec::new();
    for definition in registry.definitions() {
        all.push(Found {
            kind: match definition.kind {
                crate::DefinitionKind::FeatureSet => "feature_set",
                kind => kind.as_str(),
            },
            name: definition.name,
            owner: definition.owner,
            description: definition.description,
            tags: definition.tags,
            score: 0,
        });
    }
    for contract in catalog.contracts() {
        all.extend(contract.fields.iter().map(|field| Found {
            kind: "column",
            name: format!("{}.{}", contract.name, field.name),
            owner: contract.owner.clone(),
            description: field.description.clone(),
            tags: field.tags.clone(),
            score: 0,
        }));
    }
    for view in catalog.views() {
        all.extend(view.features.iter().map(|feature| Found {
            kind: "feature",
            name: feature.full_name.to_string(),
            owner: view.owner.clone(),
            description: feature.description.clone(),
            tags: Vec::new(),
            score: 0,
        }));
    }
    for set in catalog.sets() {
        all.extend(set.on_demand.iter().map(|feature| Found {
            kind: "on_demand",
            name: feature.full_name.to_string(),
            owner: set.owner.clone(),
            description: feature.description.clone(),
            tags: Vec::new(),
            score: 0,
        }));
    }
    all
}

/// How well a word fits; none where it doesn't. A name says more than a description.
fn score(candidate: &Found, word: &str) -> Option<u32> {
    let name = candidate.name.to_lowercase();
    let last = name.rsplit('.').next().unwrap_or_default();
    let has = |text: &Option<String>| {
        text.as_ref()
            .is_some_and(|t| t.to_lowercase().contains(word))
    };
    if name == word || last == word {
        Some(8)
    } else if name.starts_with(word) || last.starts_with(word) {
        Some(4)
    } else if name.contains(word) {
        Some(3)
    } else if candidate.tags.iter().any(|t| t.to_lowercase() == word) {
        Some(2)
    } else if has(&candidate.description) || has(&candidate.owner) {
        Some(1)
    } else {
        None
    }
}
