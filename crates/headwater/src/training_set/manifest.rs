//! What a training set's manifest says, and what is compared when it is made again.

use std::collections::BTreeMap;

use headwater_api::backend::{Names, TrainingKnownAt, TrainingSetRequest};
use headwater_batch::{KnownRule, Manifest, OutputFormat, SpineRead};
use headwater_features::{CompiledView, DefinitionKind, Registry};
use headwater_schema::{Problem, Sequence};

use super::Made;
use crate::reader::Plan;

impl Made<'_> {
    /// The hashes of what the features stand on, and of the labels.
    fn definitions(&self) -> BTreeMap<String, String> {
        let mut hashes = feature_definitions(&self.registry, &self.plan, &self.request.names);
        let mut add = |kind: DefinitionKind, name: &str| {
            if let Some(current) = self.registry.current(kind, name) {
                hashes.insert(format!("{}/{name}", kind.plural()), current.hash.clone());
            }
        };
        for label in &self.labels {
            add(DefinitionKind::Label, &label.name);
            add(DefinitionKind::Contract, &label.contract);
            if let Some(entity) = &label.entity {
                add(DefinitionKind::Entity, entity);
            }
        }
        hashes
    }

    /// What is known before the first row is read; [`Manifest::finish`] adds the rest.
    pub fn manifest(&self, first: Sequence, output: OutputFormat) -> Manifest {
        let names = self.plan.names.iter().map(|n| n.to_string());
        let labels = self.labels.iter().map(|l| l.name.to_string());
        let columns = self.spine.schema.fields().iter();
        Manifest {
            format: Manifest::FORMAT,
            feature_set: match &self.request.names {
                Names::Set(set) => Some(set.clone()),
                Names::List(_) => None,
            },
            features: names.collect(),
            labels: labels.collect(),
            labels_as_of: (!self.labels.is_empty()).then_some(self.labels_as_of),
            definitions: self.definitions(),
            inclusive: self.spine.inclusive,
            known_at: self.spine.rule,
            facts: (first, self.spine.end),
            spine: SpineRead {
                rows: self.spine.count,
                columns: columns.map(|f| f.name().clone()).collect(),
                sha256: self.spine.sha256.clone(),
                time: self.request.time.clone(),
            },
            nulls: BTreeMap::new(),
            output: output.as_str().to_owned(),
            sha256: String::new(),
        }
    }
}

/// The hashes of what features stand on, by `kind/name`.
pub(crate) fn feature_definitions(
    registry: &Registry,
    plan: &Plan,
    names: &Names,
) -> BTreeMap<String, String> {
    let mut hashes = BTreeMap::new();
    let mut add = |kind: DefinitionKind, name: &str| {
        if let Some(current) = registry.current(kind, name) {
            hashes.insert(format!("{}/{name}", kind.plural()), current.hash.clone());
        }
    };
    let mut views: Vec<&CompiledView> = Vec::new();
    views.extend(plan.views.iter().map(|r| r.plan.view().as_ref()));
    while let Some(view) = views.pop() {
        add(DefinitionKind::View, &view.name);
        add(DefinitionKind::Entity, &view.entity.name);
        for source in &view.sources {
            add(DefinitionKind::Contract, &source.contract);
            views.extend(source.upstream.iter().map(|u| u.view.as_ref()));
        }
    }
    if let Names::Set(set) = names {
        add(DefinitionKind::FeatureSet, set);
    }
    hashes
}

/// Refuses what would be made by `own` of other definitions or of another spine than `again` was.
pub fn refuse_changes(own: &Manifest, again: &Manifest) -> Result<(), Problem> {
    let (is, was) = (&own.definitions, &again.definitions);
    let mut names = is.keys().chain(was.keys());
    if let Some(name) = names.find(|name| is.get(*name) != was.get(*name)) {
        return Err(Problem::user(
            "definitions-changed",
            "what the training set was made with is defined otherwise now",
        )
        .field("definitions")
        .detail(format!("`{name}` has another hash than in the manifest"))
        .hint("apply the definitions of then, or make a new training set without `--manifest`"));
    }
    if again.spine.sha256 != own.spine.sha256 {
        return Err(Problem::user(
            "spine-changed",
            "the spine isn't the one that the manifest names",
        )
        .field("spine")
        .detail(format!(
            "its SHA-256 is {}, was {}",
            own.spine.sha256, again.spine.sha256
        ))
        .hint("give the same file"));
    }
    Ok(())
}

/// Refuses a table that isn't the one whose manifest was given, where it is written in the same format.
pub fn refuse_other_bytes(made: &Manifest, again: &Manifest) -> Result<(), Problem> {
    if again.output != made.output || again.sha256 == made.sha256 {
        return Ok(());
    }
    let title = "the training set isn't, byte for byte, what it was";
    Err(Problem::external("not-the-same", title)
        .detail(format!("its SHA-256 is {}, was {}", made.sha256, again.sha256))
        .hint("facts may have gone by retention, or another version wrote the first; without `--manifest` a new one is made"))
}

/// The request that a manifest's training set was made by.
pub fn request_of(manifest: &Manifest) -> TrainingSetRequest {
    TrainingSetRequest {
        names: match &manifest.feature_set {
            Some(set) => Names::Set(set.clone()),
            None => Names::List(manifest.features.clone()),
        },
        inclusive: manifest.inclusive,
        known_at: match manifest.known_at {
            KnownRule::AsOfArrival => Some(TrainingKnownAt::Arrival),
            KnownRule::Everything | KnownRule::Column => None,
        },
        facts_until: Some(manifest.facts.1),
        time: manifest.spine.time.clone(),
        labels: manifest.labels.clone(),
        labels_as_of: manifest.labels_as_of,
    }
}
