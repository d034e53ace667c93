//! Definitions that are wrong, so that what reads them isn't told that they aren't there.

use std::collections::BTreeSet;

use headwater_schema::yaml::YamlDocument;
use serde_json::Value as Json;

use super::Catalog;

/// The names of definitions that aren't in the catalog because something is wrong with them.
#[derive(Default)]
pub(super) struct Failed(BTreeSet<(&'static str, String)>);

/// The keys by which definitions name others, and what kind of them.
const READS: [(&str, &str); 4] = [
    ("entity", "entity"),
    ("contract", "contract"),
    ("view", "view"),
    // A label's, where it isn't columns.
    ("match", "entity"),
];

impl Failed {
    pub fn note(&mut self, kind: &'static str, document: &YamlDocument) {
        if let Some(name) = document.value["name"].as_str() {
            self.0.insert((kind, name.to_owned()));
        }
    }

    /// The contracts of a document that something is wrong with, which may be all.
    pub fn note_contracts(&mut self, catalog: &Catalog, document: &YamlDocument) {
        let objects = document.value["schema"].as_array();
        for object in objects.into_iter().flatten() {
            if let Some(name) = object["name"].as_str()
                && catalog.contract(name).is_none()
            {
                self.0.insert(("contract", name.to_owned()));
            }
        }
    }

    /// Whether a document names one of them.
    pub fn is_read_by(&self, document: &YamlDocument) -> bool {
        let spec = &document.value["spec"];
        let sources = spec["sources"].as_array().into_iter().flatten();
        std::iter::once(spec)
            .chain(sources)
            .any(|part| self.is_in(part))
    }

    fn is_in(&self, part: &Json) -> bool {
        let failed = |(key, kind): &(&str, &'static str)| {
            let name = part[key].as_str();
            name.is_some_and(|name| self.0.contains(&(*kind, name.to_owned())))
        };
        READS.iter().any(failed)
    }
}
