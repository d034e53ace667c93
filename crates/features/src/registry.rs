//! The registry: the definitions in force, and which versions of each there have been.
//!
//! Each apply that changes a definition makes its next version, kept with its content and its time.
//! Stored as JSON with the version of its format; nothing is ever changed in place.

use std::collections::BTreeMap;

use headwater_schema::{Micros, Problem};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::documents::{DefinitionDocument, DefinitionKind, Documents, differences};
use crate::{Catalog, catalog};

const FORMAT: u32 = 2;
/// Versions of one definition whose content is kept; the oldest go first.
pub const VERSIONS_MAX: usize = 100;
/// Definitions that are remembered after they have been dropped; the oldest go first.
pub const DROPPED_MAX: usize = 1000;

/// The definitions in force and their history.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Registry {
    format: u32,
    /// How many applies have changed something.
    version: u64,
    /// When the last one did, in microseconds; unknown where another version of the program did it.
    applied_at: Option<Micros>,
    documents: Documents,
    /// The versions of each definition, oldest first, by kind and name.
    history: BTreeMap<String, Vec<DefinitionVersion>>,
}

/// One version of a definition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DefinitionVersion {
    /// Counts from 1.
    pub version: u64,
    pub hash: String,
    pub applied_at: Option<Micros>,
    /// The registry's version that made it.
    pub registry: u64,
    /// What it said; none where the definition was dropped.
    pub document: Option<Json>,
}

/// The first format: documents alone.
#[derive(Deserialize)]
struct FirstFormat {
    documents: Documents,
}

#[derive(Deserialize)]
struct AnyFormat {
    format: u32,
}

fn key(kind: DefinitionKind, name: &str) -> String {
    format!("{}/{name}", kind.plural())
}

impl Registry {
    pub fn version(&self) -> u64 {
        self.version
    }

    pub fn applied_at(&self) -> Option<Micros> {
        self.applied_at
    }

    /// The documents in force.
    pub fn documents(&self) -> &Documents {
        &self.documents
    }

    /// The registry once other documents are in force. Where they define the same it has the same
    /// version.
    pub fn next(&self, documents: Documents, now: Option<Micros>) -> Self {
        let mut next = Self {
            format: FORMAT,
            version: self.version.saturating_add(1),
            applied_at: now,
            documents,
            history: self.history.clone(),
        };
        let definitions = next.documents.definitions();
        let mut changed = false;
        let differ = differences(&self.documents.definitions(), &definitions);
        for (definition, _) in definitions
            .iter()
            .zip(differ)
            .filter(|(_, differs)| *differs)
        {
            let versions = next
                .history
                .entry(key(definition.kind, &definition.name))
                .or_default();
            let (hash, document) = (definition.hash(), Some(&definition.document));
            push(versions, hash, now, next.version, document);
            changed = true;
        }
        let kept: Vec<String> = definitions.iter().map(|d| key(d.kind, &d.name)).collect();
        for (key, versions) in &mut next.history {
            let live = versions.last().is_some_and(|last| last.document.is_some());
            if live && !kept.contains(key) {
                push(versions, String::new(), now, next.version, None);
                changed = true;
            }
        }
        next.forget_dropped();
        if !changed {
            (next.version, next.applied_at) = (self.version, self.applied_at);
        }
        next
    }

    fn forget_dropped(&mut self) {
        let dropped = |(key, versions): (&String, &Vec<DefinitionVersion>)| {
            let last = versions.last()?;
            let gone = last.document.is_none();
            gone.then(|| (last.registry, key.clone()))
        };
        let mut dropped: Vec<(u64, String)> = self.history.iter().filter_map(dropped).collect();
        dropped.sort();
        let surplus = dropped.len().saturating_sub(DROPPED_MAX);
        for (_, key) in dropped.into_iter().take(surplus) {
            self.history.remove(&key);
        }
    }

    /// The versions of a definition, oldest first; none where nobody remembers it.
    pub fn versions(&self, kind: DefinitionKind, name: &str) -> &[DefinitionVersion] {
        let versions = self.history.get(&key(kind, name));
        versions.map_or(&[], Vec::as_slice)
    }

    /// The version of a definition that is in force.
    pub fn current(&self, kind: DefinitionKind, name: &str) -> Option<&DefinitionVersion> {
        let last = self.versions(kind, name).last()?;
        last.document.is_some().then_some(last)
    }

    /// The definitions in force.
    pub fn definitions(&self) -> Vec<DefinitionDocument> {
        self.documents.definitions()
    }

    /// Compiles the documents in force.
    pub fn compile(&self) -> Result<Catalog, Vec<Problem>> {
        self.documents.compile()
    }

    /// A definition in force.
    pub fn definition(
        &self,
        kind: DefinitionKind,
        name: &str,
    ) -> Result<DefinitionDocument, Problem> {
        let definitions = self.definitions();
        let found = definitions
            .iter()
            .find(|d| d.kind == kind && d.name == name);
        found.cloned().ok_or_else(|| {
            let same_kind = definitions.iter().filter(|d| d.kind == kind);
            let names = same_kind.map(|d| d.name.as_str());
            let code = match kind {
                DefinitionKind::Contract => "contract",
                DefinitionKind::Entity => "entity",
                DefinitionKind::View => "view",
                DefinitionKind::FeatureSet => "feature-set",
                DefinitionKind::Label => "label",
                DefinitionKind::Model => "model",
            };
            catalog::unknown(code, kind.as_str(), name, names)
        })
    }

    pub fn to_bytes(&self) -> Result<Vec<u8>, Problem> {
        serde_json::to_vec_pretty(self)
            .map_err(|e| Problem::internal("registry", "the registry can't be written").detail(e))
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Problem> {
        let corrupt = |e: serde_json::Error| {
            Problem::external("registry-corrupt", "the registry can't be read")
                .detail(e)
                .hint("apply the project again")
        };
        let any: AnyFormat = serde_json::from_slice(bytes).map_err(corrupt)?;
        match any.format {
            1 => {
                let first: FirstFormat = serde_json::from_slice(bytes).map_err(corrupt)?;
                Ok(Self::default().next(first.documents, None))
            }
            FORMAT => serde_json::from_slice(bytes).map_err(corrupt),
            other => Err(
                Problem::external("registry-format", "the registry has another format")
                    .detail(format!("it is {other}, this version reads 1 and {FORMAT}"))
                    .hint(
                        "open the data with the version of Headwater that wrote it, or apply again",
                    ),
            ),
        }
    }
}

fn push(
    versions: &mut Vec<DefinitionVersion>,
    hash: String,
    now: Option<Micros>,
    registry: u64,
    document: Option<&Json>,
) {
    let last = versions.last().map_or(0, |v| v.version);
    versions.push(DefinitionVersion {
        version: last.saturating_add(1),
        hash,
        applied_at: now,
        registry,
        document: document.cloned(),
    });
    let surplus = versions.len().saturating_sub(VERSIONS_MAX);
    versions.drain(..surplus);
}

#[cfg(test)]
mod tests;
