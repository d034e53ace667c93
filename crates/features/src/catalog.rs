//! The catalog: everything a project defines, checked against each other and compiled.

use std::collections::BTreeMap;
use std::sync::Arc;

use globset::Glob;
use headwater_aggregate::{Aggregate, Layout, Window};
use headwater_schema::contract::suggest;
use headwater_schema::yaml::YamlDocument;
use headwater_schema::{Contract, DataType, Field, Micros, Problem, Value};

use crate::Expression;
use crate::chain::{Upstream, upstream_first};
use crate::compile::compile_view;
use crate::definition::{
    self, Definition, EntitySpec, KeyType, LabelSpec, SetSpec, Storage, ViewSpec,
};
use crate::label::{Label, compile_label};
use crate::model::Model;
use crate::set::{FeatureSet, compile_set};

mod failed;
mod kinds;
mod models;

use failed::Failed;
use kinds::sort;

/// Features of one view, over all windows.
pub const VIEW_FEATURES_MAX: usize = 2000;

/// A thing that facts are about.
#[derive(Debug, Clone)]
pub struct Entity {
    pub name: Arc<str>,
    pub keys: Vec<Field>,
    pub owner: Option<String>,
    pub description: Option<String>,
}

/// A feature view, ready to run.
#[derive(Debug, Clone)]
pub struct CompiledView {
    pub name: Arc<str>,
    /// The name and a hash of everything that shapes the stored state.
    pub state_id: String,
    /// A hash of the whole definition.
    pub definition_hash: String,
    pub entity: Arc<Entity>,
    pub sources: Vec<CompiledSource>,
    pub layout: Layout,
    pub features: Vec<CompiledFeature>,
    /// Indexes of `features`, each after those it is derived from.
    pub evaluation_order: Vec<usize>,
    /// How many views are upstream of it, one behind the other.
    pub depth: usize,
    pub retention: Micros,
    pub storage: Storage,
    pub owner: Option<String>,
    pub description: Option<String>,
}

impl CompiledView {
    /// Whether it takes its rows, or some of them, from another view; it then keeps no state.
    pub fn is_chained(&self) -> bool {
        self.depth > 0
    }
}

/// One source of a view.
#[derive(Debug, Clone)]
pub struct CompiledSource {
    /// The contract of its facts.
    pub contract: Arc<str>,
    /// The columns of its rows, as the view names them.
    pub columns: Vec<Field>,
    /// The contract's column that each of them is, where it is one.
    pub stored: Vec<Option<Arc<str>>>,
    /// The places of the entity's keys among the columns.
    pub keys: Vec<usize>,
    /// The view that makes rows of the facts; none where they are rows themselves.
    pub upstream: Option<Upstream>,
    pub filter: Option<Expression>,
    /// The contract's columns, in the order of the entity's keys.
    pub key_columns: Vec<Arc<str>>,
    /// One per input of the layout; none where the source doesn't feed it.
    pub inputs: Vec<Option<Expression>>,
}

/// One feature of a view.
#[derive(Debug, Clone)]
pub struct CompiledFeature {
    pub name: Arc<str>,
    /// `VIEW.NAME`.
    pub full_name: Arc<str>,
    pub data_type: DataType,
    pub kind: FeatureKind,
    pub default: Option<Value>,
    pub ttl: Option<Micros>,
    /// A value older than `ttl` is returned all the same.
    pub stale_keep: bool,
    /// The largest relative error of a value that is estimated; none where all are exact.
    pub error_bound: Option<f64>,
    pub description: Option<String>,
}

/// How a feature is computed.
#[derive(Debug, Clone)]
pub enum FeatureKind {
    Aggregate {
        function: Aggregate,
        slot: usize,
        window: Window,
        /// How many of the categories with the largest results are kept.
        largest: Option<usize>,
        /// The bool input that says which facts the window is formed of; none: all of the view.
        among: Option<usize>,
    },
    /// The newest value, null or not.
    Latest { slot: usize },
    /// Derived from other features of the view, by index.
    Expression {
        expression: Expression,
        inputs: Vec<usize>,
    },
}

/// A feature of a view.
#[derive(Debug, Clone)]
pub struct FeatureRef {
    pub view: Arc<CompiledView>,
    pub index: usize,
}

/// Names that were looked up.
#[derive(Debug, Clone, Default)]
pub struct Resolved {
    pub features: Vec<FeatureRef>,
    /// The set that was asked for, where it has more than features.
    pub set: Option<Arc<FeatureSet>>,
}

/// Everything a project defines.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    contracts: BTreeMap<String, Arc<Contract>>,
    entities: BTreeMap<String, Arc<Entity>>,
    views: BTreeMap<String, Arc<CompiledView>>,
    sets: BTreeMap<String, Arc<FeatureSet>>,
    labels: BTreeMap<String, Arc<Label>>,
    models: BTreeMap<String, Arc<Model>>,
}

impl Catalog {
    /// Checks and compiles documents; all mistakes at once.
    pub fn compile(documents: &[YamlDocument]) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let sorted = sort(documents, &mut problems);
        let mut catalog = Self::default();
        if !sorted.models.is_empty() {
            catalog.add_built_in();
        }
        // What is made of a definition that is wrong would only repeat that it isn't there.
        let mut failed = Failed::default();
        for document in sorted.contracts {
            let before = problems.len();
            catalog.add_contracts(document, &mut problems);
            if problems.len() > before {
                failed.note_contracts(&catalog, document);
            }
        }
        for document in sorted.entities {
            if let Err(problem) = catalog.add_entity(document) {
                problems.push(problem);
                failed.note("entity", document);
            }
        }
        let ordered = upstream_first(&sorted.views, &mut problems);
        let in_circle = sorted.views.iter().filter(|v| !holds(&ordered, v));
        in_circle.for_each(|document| failed.note("view", document));
        for document in ordered {
            if failed.is_read_by(document) {
                failed.note("view", document);
            } else if let Err(found) = catalog.add_view(document) {
                problems.extend(found);
                failed.note("view", document);
            }
        }
        let whole = problems.is_empty();
        for document in sorted.sets {
            // A set over a view that is wrong would only repeat the view's problems.
            if let (Err(problem), true) = (catalog.add_set(document), whole) {
                problems.push(problem);
            }
        }
        for document in sorted.labels {
            if !failed.is_read_by(document) {
                problems.extend(catalog.add_label(document).err().into_iter().flatten());
            }
        }
        let whole = whole && problems.is_empty();
        for document in sorted.models {
            if let (Err(problem), true) = (catalog.add_model(document), whole) {
                problems.push(problem);
            }
        }
        if problems.is_empty() {
            Ok(catalog)
        } else {
            Err(problems)
        }
    }

    fn add_contracts(&mut self, document: &YamlDocument, problems: &mut Vec<Problem>) {
        let locate = |pointer: &str| Some(document.locate(pointer));
        match Contract::parse_documents(&document.value, &locate) {
            Err(found) => problems.extend(found),
            Ok(contracts) => {
                for contract in contracts {
                    let name = contract.name.to_string();
                    if self.contracts.contains_key(&name) {
                        problems.push(clash("contract", &name, document));
                    }
                    self.contracts.insert(name, Arc::new(contract));
                }
            }
        }
    }

    fn add_entity(&mut self, document: &YamlDocument) -> Result<(), Problem> {
        let definition: Definition<EntitySpec> = definition::read(document)?;
        if definition.spec.keys.is_empty() {
            return Err(Problem::user("invalid-definition", "the entity has no key")
                .field("spec.keys")
                .hint("name at least one key column: `keys: [{name: user_id, type: string}]`")
                .at(document.locate("/spec/keys")));
        }
        let mut keys: Vec<Field> = Vec::new();
        for (index, key) in definition.spec.keys.iter().enumerate() {
            if keys.iter().any(|k| *k.name == *key.name) {
                return Err(Problem::user(
                    "name-clash",
                    format!("the key `{}` is named twice", key.name),
                )
                .at(document.locate(&format!("/spec/keys/{index}/name"))));
            }
            keys.push(Field::new(key.name.as_str(), key_type(key.key_type)));
        }
        if self.entities.contains_key(&definition.name) {
            return Err(clash("entity", &definition.name, document));
        }
        let entity = Entity {
            name: definition.name.as_str().into(),
            keys,
            owner: definition.owner,
            description: definition.description,
        };
        self.entities.insert(definition.name, Arc::new(entity));
        Ok(())
    }

    fn add_view(&mut self, document: &YamlDocument) -> Result<(), Vec<Problem>> {
        let definition: Definition<ViewSpec> = definition::read(document).map_err(|p| vec![p])?;
        if self.views.contains_key(&definition.name) {
            return Err(vec![clash("feature view", &definition.name, document)]);
        }
        let view = compile_view(self, document, &definition)?;
        self.views.insert(definition.name, Arc::new(view));
        Ok(())
    }

    fn add_set(&mut self, document: &YamlDocument) -> Result<(), Problem> {
        let definition: Definition<SetSpec> = definition::read(document)?;
        if self.sets.contains_key(&definition.name) {
            return Err(clash("feature set", &definition.name, document));
        }
        let set = compile_set(self, document, &definition)?;
        self.sets.insert(definition.name, Arc::new(set));
        Ok(())
    }

    fn add_label(&mut self, document: &YamlDocument) -> Result<(), Vec<Problem>> {
        let definition: Definition<LabelSpec> = definition::read(document).map_err(|p| vec![p])?;
        if self.labels.contains_key(&definition.name) {
            return Err(vec![clash("label", &definition.name, document)]);
        }
        let label = compile_label(self, document, &definition)?;
        self.labels.insert(definition.name, Arc::new(label));
        Ok(())
    }

    pub fn contract(&self, name: &str) -> Option<&Arc<Contract>> {
        self.contracts.get(name)
    }

    pub fn contracts(&self) -> impl Iterator<Item = &Arc<Contract>> {
        self.contracts.values()
    }

    pub fn entity(&self, name: &str) -> Option<&Arc<Entity>> {
        self.entities.get(name)
    }

    pub fn entities(&self) -> impl Iterator<Item = &Arc<Entity>> {
        self.entities.values()
    }

    pub fn view(&self, name: &str) -> Option<&Arc<CompiledView>> {
        self.views.get(name)
    }

    pub fn views(&self) -> impl Iterator<Item = &Arc<CompiledView>> {
        self.views.values()
    }

    pub fn set(&self, name: &str) -> Option<&Arc<FeatureSet>> {
        self.sets.get(name)
    }

    pub fn sets(&self) -> impl Iterator<Item = &Arc<FeatureSet>> {
        self.sets.values()
    }

    pub fn labels(&self) -> impl Iterator<Item = &Arc<Label>> {
        self.labels.values()
    }

    /// A label, or the problem that there is none.
    pub fn label(&self, name: &str) -> Result<&Arc<Label>, Problem> {
        let names = self.labels.keys().map(String::as_str);
        self.labels
            .get(name)
            .ok_or_else(|| unknown("label", "label", name, names))
    }

    /// The features of a set.
    pub fn resolve_set(&self, name: &str) -> Result<Resolved, Problem> {
        let set = self.sets.get(name).ok_or_else(|| {
            unknown(
                "feature-set",
                "feature set",
                name,
                self.sets.keys().map(String::as_str),
            )
        })?;
        Ok(Resolved {
            features: set.features.clone(),
            set: set.asks_more().then(|| set.clone()),
        })
    }

    /// Features by their full names.
    pub fn resolve(&self, names: &[String]) -> Result<Resolved, Problem> {
        let mut features = Vec::with_capacity(names.len());
        for name in names {
            features.push(self.feature(name)?);
        }
        Ok(Resolved {
            features,
            set: None,
        })
    }

    /// A view, or the problem that there is none.
    pub fn known_view(&self, name: &str) -> Result<&Arc<CompiledView>, Problem> {
        let names = self.views.keys().map(String::as_str);
        self.view(name)
            .ok_or_else(|| unknown("view", "feature view", name, names))
    }

    fn feature(&self, name: &str) -> Result<FeatureRef, Problem> {
        let found = name.split_once('.').and_then(|(view, feature)| {
            let view = self.views.get(view)?;
            let index = view.features.iter().position(|f| *f.name == *feature)?;
            Some(FeatureRef {
                view: view.clone(),
                index,
            })
        });
        found.ok_or_else(|| {
            let problem = unknown("feature", "feature", name, self.feature_names());
            let mut sets = self.sets.values();
            match sets.find(|s| s.on_demand.iter().any(|d| *d.full_name == *name)) {
                Some(set) => problem.hint(format!(
                    "it is worked out on demand: ask for the feature set `{}`",
                    set.name
                )),
                None => problem,
            }
        })
    }

    fn feature_names(&self) -> impl Iterator<Item = &str> {
        self.views
            .values()
            .flat_map(|v| v.features.iter().map(|f| f.full_name.as_ref()))
    }

    /// The features that a full name or a glob stands for, in the order of their views.
    pub(crate) fn matching(&self, pattern: &str) -> Result<Vec<FeatureRef>, Problem> {
        if !pattern.contains(['*', '?', '[', '{']) {
            return self.feature(pattern).map(|f| vec![f]);
        }
        let glob = Glob::new(pattern)
            .map_err(|e| {
                Problem::user("invalid-definition", format!("`{pattern}` is no pattern")).detail(e)
            })?
            .compile_matcher();
        let mut found = Vec::new();
        for view in self.views.values() {
            for (index, feature) in view.features.iter().enumerate() {
                if glob.is_match(feature.full_name.as_ref()) {
                    found.push(FeatureRef {
                        view: view.clone(),
                        index,
                    });
                }
            }
        }
        if found.is_empty() {
            return Err(unknown(
                "feature",
                "feature that matches",
                pattern,
                self.feature_names(),
            ));
        }
        Ok(found)
    }
}

/// Whether a document, itself, is among some.
fn holds(documents: &[&YamlDocument], document: &YamlDocument) -> bool {
    documents.iter().any(|d| std::ptr::eq(*d, document))
}

fn key_type(key_type: KeyType) -> DataType {
    match key_type {
        KeyType::String => DataType::String,
        KeyType::Integer => DataType::Int64,
        KeyType::Bool => DataType::Bool,
        KeyType::Date => DataType::Date,
        KeyType::Timestamp => DataType::Timestamp,
    }
}

fn clash(what: &str, name: &str, document: &YamlDocument) -> Problem {
    Problem::user(
        "name-clash",
        format!("there are two definitions of the {what} `{name}`"),
    )
    .hint("rename one of them")
    .at(document.locate("/name"))
}

/// A key or kind that is planned and not there yet.
pub(crate) fn not_available(field: &str, what: &str) -> Problem {
    Problem::user(
        "not-available",
        format!("`{what}` isn't available in this version"),
    )
    .field(field)
    .hint("leave it out; docs/features.md lists what there is")
}

/// A name that nothing has, with the nearest one that something has.
pub(crate) fn unknown<'a>(
    kind: &str,
    what: &str,
    name: &str,
    known: impl Iterator<Item = &'a str>,
) -> Problem {
    let code = match kind {
        "contract" => "unknown-contract",
        "entity" => "unknown-entity",
        "view" => "unknown-view",
        "feature-set" => "unknown-feature-set",
        "feature" => "unknown-feature",
        "label" => "unknown-label",
        "model" => "unknown-model",
        "kind" => "unknown-kind",
        _ => "unknown-column",
    };
    Problem::user(code, format!("there is no {what} `{name}`")).hint(suggest(name, known))
}

/// A stable hash as 16 hexadecimal digits.
pub(crate) fn hash(text: &str) -> String {
    format!("{:016x}", xxhash_rust::xxh3::xxh3_64(text.as_bytes()))
}

#[cfg(test)]
mod tests;
