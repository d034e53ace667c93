//! The documents of a project, as they are applied and stored, and the definitions in them.

use std::collections::{BTreeMap, BTreeSet};

use headwater_schema::Problem;
use headwater_schema::yaml::YamlDocument;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::Catalog;

/// Everything a project defines, as its files say.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Documents {
    documents: Vec<StoredDocument>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct StoredDocument {
    file: String,
    document: Json,
}

/// What can be defined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DefinitionKind {
    Contract,
    Entity,
    View,
    FeatureSet,
    Label,
    Model,
}

impl DefinitionKind {
    pub const ALL: [Self; 6] = [
        Self::Contract,
        Self::Entity,
        Self::View,
        Self::FeatureSet,
        Self::Label,
        Self::Model,
    ];

    /// How people speak of one.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Contract => "contract",
            Self::Entity => "entity",
            Self::View => "view",
            Self::FeatureSet => "feature set",
            Self::Label => "label",
            Self::Model => "model",
        }
    }

    /// How paths and replies speak of many.
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Contract => "contracts",
            Self::Entity => "entities",
            Self::View => "views",
            Self::FeatureSet => "feature_sets",
            Self::Label => "labels",
            Self::Model => "models",
        }
    }

    /// A kind by either name; feature sets are `sets` too.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let named = |kind: &Self| kind.plural() == text || kind.as_str().replace(' ', "_") == text;
        let found = Self::ALL.into_iter().find(named);
        let sets = || matches!(text, "set" | "sets").then_some(Self::FeatureSet);
        found.or_else(sets).ok_or_else(|| {
            Problem::user("not-found", format!("the registry has no `{text}`"))
                .hint("it has contracts, entities, views, feature_sets, labels and models")
        })
    }
}

/// One definition, and what it says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct DefinitionDocument {
    pub kind: DefinitionKind,
    pub name: String,
    pub file: String,
    /// Which of the documents it is in, counted from 0; several contracts may share one.
    pub place: usize,
    pub owner: Option<String>,
    pub description: Option<String>,
    pub tags: Vec<String>,
    /// The document; of a contract's, only the schema object that is this contract.
    pub document: Json,
}

impl DefinitionDocument {
    /// A hash of what the document says, however it is written.
    pub fn hash(&self) -> String {
        definition_hash(&self.document)
    }

    /// A hash of what it says besides its version.
    fn hash_but_version(&self) -> String {
        let mut document = self.document.clone();
        if let Some(members) = document.as_object_mut() {
            members.remove("version");
        }
        definition_hash(&document)
    }
}

/// Whether each of the definitions `now` differs from those `before`. A version that was raised for another
/// contract of the document is no difference of those that stay as they are.
pub(crate) fn differences(before: &[DefinitionDocument], now: &[DefinitionDocument]) -> Vec<bool> {
    let known: BTreeMap<(DefinitionKind, &str), &DefinitionDocument> = before
        .iter()
        .map(|d| ((d.kind, d.name.as_str()), d))
        .collect();
    let before = |d: &DefinitionDocument| known.get(&(d.kind, d.name.as_str())).copied();
    let other = |d: &DefinitionDocument| {
        before(d).is_none_or(|b| b.hash_but_version() != d.hash_but_version())
    };
    // The documents in which more than a version differs; of each, how many definitions it has, and where
    // they stood before.
    let mut changed: BTreeSet<usize> = BTreeSet::new();
    let mut counted: BTreeMap<usize, (usize, BTreeSet<usize>)> = BTreeMap::new();
    for definition in now {
        let (count, from) = counted.entry(definition.place).or_default();
        *count += 1;
        from.extend(before(definition).map(|b| b.place));
        if other(definition) {
            changed.insert(definition.place);
        }
    }
    for (place, (count, from)) in counted {
        let were = known.values().filter(|b| from.contains(&b.place)).count();
        if were != count {
            changed.insert(place);
        }
    }
    let differs = |d: &DefinitionDocument| match before(d) {
        Some(b) if b.hash() == d.hash() => false,
        _ => other(d) || !changed.contains(&d.place),
    };
    now.iter().map(differs).collect()
}

/// A hash of a document that doesn't depend on the order of its keys, its formatting or its comments:
/// 16 hexadecimal digits of XXH3.
pub fn definition_hash(document: &Json) -> String {
    let mut text = String::new();
    write_canonical(document, &mut text);
    crate::catalog::hash(&text)
}

fn write_canonical(json: &Json, out: &mut String) {
    match json {
        Json::Object(members) => {
            let mut keys: Vec<&String> = members.keys().collect();
            keys.sort();
            out.push('{');
            for (index, key) in keys.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                out.push_str(&Json::String(key.clone()).to_string());
                out.push(':');
                write_canonical(&members[key], out);
            }
            out.push('}');
        }
        Json::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_canonical(item, out);
            }
            out.push(']');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}

impl Documents {
    pub fn from_yaml(documents: &[YamlDocument]) -> Self {
        let stored = |document: &YamlDocument| StoredDocument {
            file: document.file.clone(),
            document: document.value.clone(),
        };
        Self {
            documents: documents.iter().map(stored).collect(),
        }
    }

    /// Documents that define these and nothing else.
    pub fn of(definitions: &[DefinitionDocument]) -> Self {
        let stored = |definition: &DefinitionDocument| StoredDocument {
            file: definition.file.clone(),
            document: definition.document.clone(),
        };
        Self {
            documents: definitions.iter().map(stored).collect(),
        }
    }

    /// Compiles the documents.
    pub fn compile(&self) -> Result<Catalog, Vec<Problem>> {
        let mut documents = Vec::with_capacity(self.documents.len());
        for stored in &self.documents {
            // JSON is YAML, so the stored document reads as it was.
            let text = stored.document.to_string();
            let parsed = YamlDocument::parse_all(&stored.file, &text).map_err(|p| vec![p])?;
            documents.extend(parsed);
        }
        Catalog::compile(&documents)
    }

    /// The definitions in the documents.
    pub fn definitions(&self) -> Vec<DefinitionDocument> {
        let mut definitions = Vec::new();
        for (place, stored) in self.documents.iter().enumerate() {
            let document = &stored.document;
            let kind = match document["kind"].as_str() {
                Some("DataContract") => {
                    definitions.extend(contracts(stored, place));
                    continue;
                }
                Some("Entity") => DefinitionKind::Entity,
                Some("FeatureView") => DefinitionKind::View,
                Some("FeatureSet") => DefinitionKind::FeatureSet,
                Some("Label") => DefinitionKind::Label,
                Some("Model") => DefinitionKind::Model,
                _ => continue,
            };
            definitions.push(DefinitionDocument {
                kind,
                name: text(&document["name"]).unwrap_or_default(),
                file: stored.file.clone(),
                place,
                owner: text(&document["owner"]),
                description: text(&document["description"]),
                tags: texts(&document["tags"]),
                document: document.clone(),
            });
        }
        definitions
    }
}

/// A contract per schema object of the document.
fn contracts(stored: &StoredDocument, place: usize) -> Vec<DefinitionDocument> {
    let document = &stored.document;
    let objects = document["schema"].as_array().map_or(&[][..], Vec::as_slice);
    let contract = |object: &Json| {
        let mut own = document.clone();
        own["schema"] = Json::Array(vec![object.clone()]);
        let mut tags = texts(&document["tags"]);
        tags.extend(texts(&object["tags"]));
        DefinitionDocument {
            kind: DefinitionKind::Contract,
            name: text(&object["name"]).unwrap_or_default(),
            file: stored.file.clone(),
            place,
            owner: text(&document["team"]["name"]),
            description: text(&object["description"])
                .or_else(|| text(&document["description"]["purpose"])),
            tags,
            document: own,
        }
    };
    objects.iter().map(contract).collect()
}

fn text(json: &Json) -> Option<String> {
    json.as_str().map(str::to_owned)
}

fn texts(json: &Json) -> Vec<String> {
    let items = json.as_array().into_iter().flatten();
    items.filter_map(text).collect()
}
