//! Feature sets: features that are read together, and what is worked out of them and of a request's
//! own fields once they are read.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::ArrayRef;
use headwater_aggregate::{Outcome, Status};
use headwater_schema::contract::nearest;
use headwater_schema::yaml::YamlDocument;
use headwater_schema::{DataType, Field, Problem, Value};

use crate::Expression;
use crate::catalog::{Catalog, CompiledFeature, FeatureRef};
use crate::default::{default_value, typed_value};
use crate::definition::{ContextType, Definition, OnDemandSpec, SetSpec, check_name};
use crate::derive::evaluation_order;
use crate::derived::{Derivation, work_out, work_out_column};
use crate::documents::definition_hash;

mod place;

pub use place::Place;

/// Features of one set or request.
pub const SET_FEATURES_MAX: usize = 10_000;
/// On-demand features of one set, and fields of a request's own.
pub const ON_DEMAND_MAX: usize = 1000;
/// The scope of a request's own fields in expressions.
const CONTEXT: &str = "context";

/// A request's own fields of one row, by name.
pub type ContextRow = BTreeMap<String, serde_json::Value>;

/// A feature set: its features, in order.
#[derive(Debug, Clone)]
pub struct FeatureSet {
    pub name: Arc<str>,
    pub features: Vec<FeatureRef>,
    /// The fields that a request brings itself.
    pub context: Vec<Field>,
    /// What is worked out when the set is read; they follow the features in every row.
    pub on_demand: Vec<OnDemand>,
    /// Indexes of `on_demand`, each after those it reads.
    order: Vec<usize>,
    pub owner: Option<String>,
    pub description: Option<String>,
    pub definition_hash: String,
}

/// One of the values that a row of a set is made of.
#[derive(Debug, Clone, Copy)]
pub enum SetInput<'a> {
    Feature(&'a CompiledFeature),
    Context(&'a Field),
    OnDemand(&'a OnDemand),
}

/// A feature that is worked out when its set is read.
#[derive(Debug, Clone)]
pub struct OnDemand {
    pub name: Arc<str>,
    /// `SET.NAME`.
    pub full_name: Arc<str>,
    pub data_type: DataType,
    expression: Expression,
    /// What the expression reads, by the places of [`FeatureSet::inputs`].
    inputs: Vec<usize>,
    default: Option<Value>,
    pub description: Option<String>,
}

impl FeatureSet {
    /// Whether reading it takes more than its features.
    pub fn asks_more(&self) -> bool {
        !self.context.is_empty() || !self.on_demand.is_empty()
    }

    /// The full names of everything in a row.
    pub fn full_names(&self) -> impl Iterator<Item = &Arc<str>> {
        let features = self.features.iter().map(|f| &f.feature().full_name);
        features.chain(self.on_demand.iter().map(|d| &d.full_name))
    }

    /// The request's own fields of every row, checked against what the set declares.
    pub fn read_context(
        &self,
        rows: usize,
        given: &[ContextRow],
    ) -> Result<Vec<Vec<Value>>, Problem> {
        if given.is_empty() && self.context.is_empty() {
            return Ok(vec![Vec::new(); rows]);
        }
        if given.len() != rows {
            let names: Vec<&str> = self.context.iter().map(|f| f.name.as_ref()).collect();
            return Err(Problem::user(
                "missing-context",
                "the request's `context` doesn't go with its `entities`",
            )
            .field("context")
            .detail(format!("it has {} rows of {rows}", given.len()))
            .hint(format!(
                "send one object per entity row, with: {}",
                names.join(", ")
            )));
        }
        let rows = given.iter().enumerate();
        rows.map(|(index, row)| self.read_context_row(index, row))
            .collect()
    }

    fn read_context_row(&self, index: usize, row: &ContextRow) -> Result<Vec<Value>, Problem> {
        let place = |name: &str| format!("context[{index}].{name}");
        let names = || self.context.iter().map(|f| f.name.as_ref());
        if let Some(stray) = row.keys().find(|k| !names().any(|name| name == k.as_str())) {
            let hint = match nearest(stray, names()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "leave it out".to_owned(),
            };
            return Err(Problem::user(
                "unknown-context",
                format!("the set `{}` has no context field `{stray}`", self.name),
            )
            .field(place(stray))
            .hint(hint));
        }
        let read = |field: &Field| {
            let given = row.get(field.name.as_ref()).ok_or_else(|| {
                Problem::user(
                    "missing-context",
                    format!("the context field `{}` is missing", field.name),
                )
                .field(place(&field.name))
                .hint(format!(
                    "it is {}; send null where there is none",
                    field.data_type
                ))
            })?;
            if given.is_null() {
                return Ok(Value::Null);
            }
            typed_value(given, &field.data_type).ok_or_else(|| {
                Problem::user(
                    "wrong-context-type",
                    format!("the context field `{}` has a wrong type", field.name),
                )
                .field(place(&field.name))
                .detail(format!("it is {}; given is {given}", field.data_type))
                .hint("numbers are written without quotes, strings with them, times as RFC 3339 or integer microseconds")
            })
        };
        self.context.iter().map(read).collect()
    }

    /// Appends to rows of the set's features what is worked out of them and of `context`.
    pub fn derive(
        &self,
        rows: &mut [Vec<Outcome>],
        context: Vec<Vec<Value>>,
    ) -> Result<(), Problem> {
        let own = self.features.len()..self.features.len() + self.context.len();
        for (row, context) in rows.iter_mut().zip(context) {
            let given = context.into_iter().map(|v| Outcome::present(v, None));
            row.extend(given);
            let waiting = Outcome {
                value: Value::Null,
                status: Status::NotFound,
                event_time: None,
            };
            row.resize(own.end + self.on_demand.len(), waiting);
        }
        for index in &self.order {
            let feature = &self.on_demand[*index];
            let outcomes = work_out(&self.derivation(feature), rows)?;
            for (row, outcome) in rows.iter_mut().zip(outcomes) {
                row[own.end + index] = outcome;
            }
        }
        for row in rows {
            row.drain(own.clone());
        }
        Ok(())
    }

    /// The same of values, column by column: the set's features, then what is worked out of them and of `context`.
    pub fn derive_columns(
        &self,
        features: Vec<ArrayRef>,
        context: Vec<ArrayRef>,
        rows: usize,
    ) -> Result<Vec<ArrayRef>, Problem> {
        let given = features.into_iter().chain(context);
        let mut columns: Vec<Option<ArrayRef>> = given.map(Some).collect();
        let first = columns.len();
        columns.resize(first + self.on_demand.len(), None);
        for index in &self.order {
            let derivation = self.derivation(&self.on_demand[*index]);
            columns[first + index] = Some(work_out_column(&derivation, &columns, rows)?);
        }
        columns.drain(self.features.len()..first);
        Ok(columns.into_iter().flatten().collect())
    }

    fn derivation<'a>(&'a self, feature: &'a OnDemand) -> Derivation<'a> {
        let own = self.features.len()..self.features.len() + self.context.len();
        let about = feature.inputs.iter().filter(|i| !own.contains(i));
        Derivation {
            expression: &feature.expression,
            inputs: &feature.inputs,
            types: self.read_by(feature).map(SetInput::data_type).collect(),
            about: about.copied().collect(),
            default: feature.default.as_ref(),
        }
    }

    /// What rows are made of while on-demand features are worked out: features, context, on-demand features.
    pub fn inputs(&self) -> impl Iterator<Item = SetInput<'_>> {
        let features = self.features.iter();
        let features = features.map(|f| SetInput::Feature(f.feature()));
        let context = self.context.iter().map(SetInput::Context);
        let on_demand = self.on_demand.iter().map(SetInput::OnDemand);
        features.chain(context).chain(on_demand)
    }

    /// What an on-demand feature's expression reads.
    pub fn read_by<'a>(&'a self, feature: &'a OnDemand) -> impl Iterator<Item = SetInput<'a>> {
        feature.inputs.iter().map(|place| self.input(*place))
    }

    fn input(&self, place: usize) -> SetInput<'_> {
        let (features, context) = (self.features.len(), self.context.len());
        if let Some(feature) = self.features.get(place) {
            SetInput::Feature(feature.feature())
        } else if let Some(field) = self.context.get(place - features) {
            SetInput::Context(field)
        } else {
            SetInput::OnDemand(&self.on_demand[place - features - context])
        }
    }
}

impl<'a> SetInput<'a> {
    fn data_type(self) -> &'a DataType {
        match self {
            Self::Feature(feature) => &feature.data_type,
            Self::Context(field) => &field.data_type,
            Self::OnDemand(feature) => &feature.data_type,
        }
    }
}

impl FeatureRef {
    pub fn feature(&self) -> &CompiledFeature {
        &self.view.features[self.index]
    }
}

/// Checks and compiles one set.
pub(crate) fn compile_set(
    catalog: &Catalog,
    document: &YamlDocument,
    definition: &Definition<SetSpec>,
) -> Result<FeatureSet, Problem> {
    let spec = &definition.spec;
    let mut set = FeatureSet {
        name: definition.name.as_str().into(),
        features: set_features(catalog, document, spec)?,
        context: context_fields(document, spec)?,
        on_demand: Vec::new(),
        order: Vec::new(),
        owner: definition.owner.clone(),
        description: definition.description.clone(),
        definition_hash: definition_hash(&document.value),
    };
    add_on_demand(&mut set, document, &spec.on_demand)?;
    Ok(set)
}

fn limit(
    what: &str,
    count: usize,
    max: usize,
    at: &str,
    document: &YamlDocument,
) -> Result<(), Problem> {
    if count <= max {
        return Ok(());
    }
    Err(
        Problem::user("limit", format!("the set has more than {max} {what}"))
            .detail(format!("it has {count}"))
            .at(document.locate(at)),
    )
}

fn set_features(
    catalog: &Catalog,
    document: &YamlDocument,
    spec: &SetSpec,
) -> Result<Vec<FeatureRef>, Problem> {
    let mut features: Vec<FeatureRef> = Vec::new();
    for (index, name) in spec.features.iter().enumerate() {
        let pointer = format!("/spec/features/{index}");
        let found = catalog
            .matching(name)
            .map_err(|p| p.at(document.locate(&pointer)))?;
        for feature in found {
            let full = &feature.feature().full_name;
            if !features.iter().any(|f| f.feature().full_name == *full) {
                features.push(feature);
            }
        }
    }
    limit(
        "features",
        features.len(),
        SET_FEATURES_MAX,
        "/spec/features",
        document,
    )?;
    Ok(features)
}

fn context_fields(document: &YamlDocument, spec: &SetSpec) -> Result<Vec<Field>, Problem> {
    limit(
        "context fields",
        spec.context.len(),
        ON_DEMAND_MAX,
        "/spec/context",
        document,
    )?;
    let mut fields: Vec<Field> = Vec::new();
    for (index, field) in spec.context.iter().enumerate() {
        let at = || document.locate(&format!("/spec/context/{index}/name"));
        check_name(&field.name).map_err(|p| p.at(at()))?;
        if fields.iter().any(|f| *f.name == *field.name) {
            return Err(twice("context fields", &field.name).at(at()));
        }
        fields.push(Field::new(
            field.name.as_str(),
            context_type(field.field_type),
        ));
    }
    Ok(fields)
}

fn twice(what: &str, name: &str) -> Problem {
    Problem::user("name-clash", format!("the set has two {what} `{name}`"))
        .hint("rename one of them")
}

fn context_type(written: ContextType) -> DataType {
    match written {
        ContextType::String => DataType::String,
        ContextType::Integer => DataType::Int64,
        ContextType::Number => DataType::Float64,
        ContextType::Bool => DataType::Bool,
        ContextType::Date => DataType::Date,
        ContextType::Timestamp => DataType::Timestamp,
    }
}

/// Compiles the set's on-demand features, each after those that it reads.
fn add_on_demand(
    set: &mut FeatureSet,
    document: &YamlDocument,
    specs: &[OnDemandSpec],
) -> Result<(), Problem> {
    let at = |index: usize, key: &str| document.locate(&format!("/spec/on_demand/{index}/{key}"));
    limit(
        "on-demand features",
        specs.len(),
        ON_DEMAND_MAX,
        "/spec/on_demand",
        document,
    )?;
    let first = set.features.len() + set.context.len();
    let scopes: Vec<Arc<str>> = scopes(set, specs.len());
    let mut columns: Vec<Field> = set
        .features
        .iter()
        .map(|f| Field::new(f.feature().name.clone(), f.feature().data_type.clone()))
        .chain(set.context.iter().cloned())
        .collect();
    for (index, spec) in specs.iter().enumerate() {
        check_name(&spec.name).map_err(|p| p.at(at(index, "name")))?;
        let full_name = format!("{}.{}", set.name, spec.name);
        let own = specs[..index].iter().any(|s| s.name == spec.name);
        if own
            || set
                .features
                .iter()
                .any(|f| *f.feature().full_name == *full_name)
        {
            return Err(twice("features", &full_name).at(at(index, "name")));
        }
        // The type is known once the expression is compiled.
        columns.push(Field::new(spec.name.as_str(), DataType::Bool));
    }
    let names: Vec<Arc<str>> = columns.iter().map(|c| c.name.clone()).collect();
    let derived: BTreeMap<usize, &str> = specs
        .iter()
        .enumerate()
        .map(|(index, spec)| (first + index, spec.expression.as_str()))
        .collect();
    let order = evaluation_order(&names, Some(&set.name), &derived)
        .map_err(|(index, problem)| problem.at(at(index - first, "expression")))?;
    let mut compiled: BTreeMap<usize, OnDemand> = BTreeMap::new();
    for place in first..order.len() {
        let index = order[place] - first;
        let feature = on_demand(set, &specs[index], &order[..place], &columns, &scopes)
            .map_err(|problem| problem.at(at(index, "expression")))?;
        columns[order[place]].data_type = feature.data_type.clone();
        set.order.push(index);
        compiled.insert(index, feature);
    }
    for (index, feature) in &mut compiled {
        if let Some(default) = &specs[*index].default {
            let value = default_value(default, &feature.data_type);
            feature.default = Some(value.map_err(|p| p.at(at(*index, "default")))?);
        }
    }
    set.on_demand = compiled.into_values().collect();
    Ok(())
}

/// The scope of every name in an expression: a feature's view, the context, the set itself.
fn scopes(set: &FeatureSet, on_demand: usize) -> Vec<Arc<str>> {
    let views = set.features.iter().map(|f| f.view.name.clone());
    let context = set.context.iter().map(|_| Arc::from(CONTEXT));
    let own = (0..on_demand).map(|_| set.name.clone());
    views.chain(context).chain(own).collect()
}

fn on_demand(
    set: &FeatureSet,
    spec: &OnDemandSpec,
    known: &[usize],
    columns: &[Field],
    scopes: &[Arc<str>],
) -> Result<OnDemand, Problem> {
    let compile = |indexes: &[usize]| {
        let fields: Vec<Field> = indexes.iter().map(|i| columns[*i].clone()).collect();
        let scopes: Vec<&str> = indexes.iter().map(|i| scopes[*i].as_ref()).collect();
        Expression::compile_within(&spec.expression, &fields, &scopes)
    };
    let used = compile(known)?;
    // Compiled again over what it reads alone, so that reading it needs nothing else.
    let inputs: Vec<usize> = used.columns().iter().map(|u| known[*u]).collect();
    let expression = compile(&inputs)?;
    Ok(OnDemand {
        name: spec.name.as_str().into(),
        full_name: format!("{}.{}", set.name, spec.name).into(),
        data_type: expression.data_type().clone(),
        expression,
        inputs,
        default: None,
        description: spec.description.clone(),
    })
}

#[cfg(test)]
mod tests;
