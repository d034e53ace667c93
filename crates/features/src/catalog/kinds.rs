//! Documents by their kind: which kinds there are, and in which order they are compiled.

use headwater_schema::Problem;
use headwater_schema::yaml::YamlDocument;

use super::{not_available, unknown};

/// Documents sorted by kind.
#[derive(Default)]
pub(super) struct Sorted<'a> {
    pub contracts: Vec<&'a YamlDocument>,
    pub entities: Vec<&'a YamlDocument>,
    pub views: Vec<&'a YamlDocument>,
    pub sets: Vec<&'a YamlDocument>,
    pub labels: Vec<&'a YamlDocument>,
    pub models: Vec<&'a YamlDocument>,
}

const KINDS: [&str; 8] = [
    "DataContract",
    "Entity",
    "FeatureView",
    "FeatureSet",
    "Label",
    "Model",
    "Project",
    "Test",
];
/// Kinds that are known, and not available in this version.
const LATER_KINDS: [&str; 1] = ["Monitor"];

pub(super) fn sort<'a>(documents: &'a [YamlDocument], problems: &mut Vec<Problem>) -> Sorted<'a> {
    let mut sorted = Sorted::default();
    for document in documents {
        match document.value.get("kind").and_then(|k| k.as_str()) {
            Some("DataContract") => sorted.contracts.push(document),
            Some("Entity") => sorted.entities.push(document),
            Some("FeatureView") => sorted.views.push(document),
            Some("FeatureSet") => sorted.sets.push(document),
            Some("Label") => sorted.labels.push(document),
            Some("Model") => sorted.models.push(document),
            // Settings, and tests of the definitions, are none of them.
            Some("Project" | "Test") => {}
            Some(kind) if LATER_KINDS.contains(&kind) => {
                problems.push(not_available("kind", kind).at(document.locate("/kind")));
            }
            Some(kind) => problems.push(
                unknown("kind", "kind", kind, KINDS.into_iter()).at(document.locate("/kind")),
            ),
            None => problems.push(
                Problem::user("invalid-definition", "the document has no `kind`")
                    .hint(format!("it is one of {}", KINDS.join(", ")))
                    .at(document.locate("")),
            ),
        }
    }
    sorted
}
