//! Labels: what became of a thing within a horizon, told by facts that came after.
//!
//! A label is a feature looked at from its horizon: one aggregate of the contract's facts over the exact
//! window `(t, t + horizon]`, in a view of its own that nobody serves. So it is compiled and evaluated by what
//! compiles and evaluates features; what is said here is when it is looked at, and what absence means.

use std::collections::BTreeMap;
use std::sync::Arc;

use headwater_schema::contract::nearest;
use headwater_schema::time::Duration;
use headwater_schema::yaml::YamlDocument;
use headwater_schema::{Contract, Cursor, DataType, Field, Micros, Position, Problem, Value};

use crate::catalog::{Catalog, CompiledView, Entity, unknown};
use crate::compile::compile_view_of;
use crate::default::typed_value;
use crate::definition::{
    Definition, FeatureSpec, LabelSpec, MatchSpec, Nulls, SourceSpec, Storage, ViewSpec, WindowMap,
    WindowSpec, check_name,
};
use crate::documents::definition_hash;
use crate::evaluate::ReadPlan;
use crate::window::duration;

/// The aggregates that a label may be: those that take nothing but its `value`.
const AGGREGATES: [&str; 8] = [
    "first",
    "last",
    "count",
    "sum",
    "avg",
    "min",
    "max",
    "distinct_count",
];

/// A label, ready to be read.
#[derive(Debug, Clone)]
pub struct Label {
    pub name: Arc<str>,
    /// The contract of the facts that tell it.
    pub contract: Arc<str>,
    /// Over those facts, with one feature: the label at its horizon.
    pub view: Arc<CompiledView>,
    /// The entity by which facts find their rows, where one is named.
    pub entity: Option<Arc<str>>,
    pub horizon: Micros,
    pub otherwise: Option<Value>,
    pub early_negative: bool,
    pub owner: Option<String>,
    pub description: Option<String>,
    pub definition_hash: String,
}

impl Label {
    pub fn data_type(&self) -> &DataType {
        &self.view.features[0].data_type
    }

    /// By what a row's key is known: the entity's name or the label's own, and the rows' columns.
    pub fn keys(&self) -> (&Arc<str>, &[Field]) {
        (&self.view.entity.name, &self.view.entity.keys)
    }

    /// The plan that reads it at [`Label::cursor`].
    pub fn plan(&self) -> ReadPlan {
        ReadPlan::new(self.view.clone(), vec![0])
    }

    /// Where the label of a row at `time` is read by somebody who looks at labels as of `labels_as_of`; none while
    /// it is unknown.
    pub fn cursor(&self, time: Micros, labels_as_of: Micros) -> Option<Cursor> {
        let horizon = Cursor::inclusive(time.saturating_add(self.horizon));
        let early = labels_as_of < horizon.as_of;
        if early && (!self.early_negative || labels_as_of < time) {
            return None;
        }
        let until = horizon.until.min(Position::after(labels_as_of));
        Some(Cursor { until, ..horizon })
    }

    /// The label that its feature's value at [`Label::cursor`] is, and where no fact counted.
    pub fn value(&self, value: Value, counted: bool) -> Value {
        match (&self.otherwise, counted) {
            (Some(otherwise), false) => otherwise.clone(),
            _ => value,
        }
    }

    /// In a few words, for plans.
    pub(crate) fn told(&self) -> String {
        let horizon = Duration(self.horizon);
        format!(
            "{} of `{}` within {horizon}",
            self.data_type(),
            self.contract
        )
    }
}

/// Checks and compiles one label; all its mistakes at once.
pub(crate) fn compile_label(
    catalog: &Catalog,
    document: &YamlDocument,
    definition: &Definition<LabelSpec>,
) -> Result<Label, Vec<Problem>> {
    let compiler = Compiler {
        document,
        definition,
    };
    let horizon = compiler.horizon().map_err(|p| vec![p])?;
    let (entity, keys) = compiler.matched(catalog).map_err(|p| vec![p])?;
    let view = ViewSpec {
        entity: entity.name.to_string(),
        sources: vec![compiler.source(keys)],
        features: vec![compiler.feature().map_err(|p| vec![p])?],
        retention: None,
        allowed_lateness: None,
        storage: Storage::default(),
    };
    let view = Definition {
        api_version: definition.api_version.clone(),
        kind: "FeatureView".to_owned(),
        name: definition.name.clone(),
        owner: definition.owner.clone(),
        description: None,
        tags: Vec::new(),
        spec: view,
    };
    let places = document.with_places(&PLACES);
    let view = compile_view_of(catalog, &places, &view, entity).map_err(|problems| {
        let own = |mut problem: Problem| {
            problem.field = problem.field.map(|_| definition.name.clone());
            problem
        };
        problems.into_iter().map(own).collect::<Vec<_>>()
    })?;
    let otherwise = compiler.otherwise(&view).map_err(|p| vec![p])?;
    Ok(Label {
        name: definition.name.as_str().into(),
        contract: definition.spec.contract.as_str().into(),
        view: Arc::new(view),
        entity: match &definition.spec.matching {
            MatchSpec::Entity(entity) => Some(entity.as_str().into()),
            _ => None,
        },
        horizon,
        otherwise,
        early_negative: definition.spec.early_negative,
        owner: definition.owner.clone(),
        description: definition.description.clone(),
        definition_hash: definition_hash(&document.value),
    })
}

/// Where the parts of the view stand that a label is compiled as.
const PLACES: [(&str, &str); 10] = [
    ("/spec/entity", "/spec/match"),
    ("/spec/sources", "/spec"),
    ("/spec/sources/0", "/spec"),
    ("/spec/sources/0/contract", "/spec/contract"),
    ("/spec/sources/0/where", "/spec/condition"),
    ("/spec/sources/0/keys", "/spec/match"),
    ("/spec/features/0", "/spec"),
    ("/spec/features/0/of", "/spec/value"),
    ("/spec/features/0/aggregate", "/spec/aggregate"),
    ("/spec/features/0/windows/0", "/spec/horizon"),
];

/// Key of the view → column of the contract, where the names differ.
type Renamed = BTreeMap<String, String>;

struct Compiler<'a> {
    document: &'a YamlDocument,
    definition: &'a Definition<LabelSpec>,
}

impl Compiler<'_> {
    fn at(&self, problem: Problem, key: &str) -> Problem {
        problem
            .field(format!("spec.{key}"))
            .at(self.document.locate(&format!("/spec/{key}")))
    }

    fn horizon(&self) -> Result<Micros, Problem> {
        let horizon = duration(&self.definition.spec.horizon).map_err(|p| self.at(p, "horizon"))?;
        match horizon {
            0 => {
                let problem = Problem::user("invalid-duration", "the label has no horizon").hint(
                    "write how long after a row's time an outcome counts, as in `horizon: 24h`",
                );
                Err(self.at(problem, "horizon"))
            }
            horizon => Ok(horizon),
        }
    }

    /// What facts and rows are matched by.
    fn matched(&self, catalog: &Catalog) -> Result<(Arc<Entity>, Renamed), Problem> {
        let spec = &self.definition.spec;
        let pairs: Vec<(&String, &String)> = match &spec.matching {
            MatchSpec::Entity(name) => {
                let entity = catalog.entity(name).cloned().ok_or_else(|| {
                    let names = catalog.entities().map(|e| e.name.as_ref());
                    let problem = unknown("entity", "entity", name, names);
                    let hint = format!(
                        "{}; columns are a list, as in `match: [{name}]`",
                        problem.hint
                    );
                    self.at(problem.hint(hint), "match")
                })?;
                return Ok((entity, Renamed::new()));
            }
            MatchSpec::Columns(columns) => columns.iter().map(|c| (c, c)).collect(),
            MatchSpec::Renamed(columns) => columns.iter().collect(),
        };
        if pairs.is_empty() {
            let problem = Problem::user("invalid-definition", "the label's `match` is empty").hint(
                "name the columns that the contract and training sets' rows share, or an entity",
            );
            return Err(self.at(problem, "match"));
        }
        let contract = catalog.contract(&spec.contract).ok_or_else(|| {
            let names = catalog.contracts().map(|c| c.name.as_ref());
            self.at(
                unknown("contract", "contract", &spec.contract, names),
                "contract",
            )
        })?;
        let (mut keys, mut renamed) = (Vec::<Field>::new(), Renamed::new());
        for (column, row) in pairs {
            let key = self.key(contract, column, row)?;
            if keys.iter().any(|k| k.name == key.name) {
                let problem = Problem::user(
                    "name-clash",
                    format!("two columns are matched with the rows' `{row}`"),
                );
                return Err(self.at(problem, "match"));
            }
            keys.push(key);
            renamed.insert(row.clone(), column.clone());
        }
        let entity = Entity {
            name: self.definition.name.as_str().into(),
            keys,
            owner: None,
            description: None,
        };
        Ok((Arc::new(entity), renamed))
    }

    fn key(&self, contract: &Contract, column: &str, row: &str) -> Result<Field, Problem> {
        check_name(row).map_err(|p| self.at(p, "match"))?;
        let fields = contract.fields_as();
        let names = || fields.iter().map(|f| f.name.as_ref());
        let field = fields.iter().find(|f| *f.name == *column).ok_or_else(|| {
            let problem = unknown("column", "column", column, names())
                .detail(format!("the contract is `{}`", contract.name));
            let problem = match nearest(column, names()) {
                None => problem
                    .hint("write the contract's column first, as in `match: {flight_id: flight}`"),
                Some(_) => problem,
            };
            self.at(problem, "match")
        })?;
        let is_key = matches!(
            field.data_type,
            DataType::String
                | DataType::Int64
                | DataType::Bool
                | DataType::Date
                | DataType::Timestamp
        );
        if !is_key {
            let problem = Problem::user("wrong-type", format!("nothing is matched by `{column}`"))
                .detail(format!("it is {}", field.data_type))
                .hint("match by strings, integers, bools, dates or timestamps");
            return Err(self.at(problem, "match"));
        }
        Ok(Field::new(row, field.data_type.clone()))
    }

    fn source(&self, keys: Renamed) -> SourceSpec {
        SourceSpec {
            contract: Some(self.definition.spec.contract.clone()),
            view: None,
            filter: self.definition.spec.condition.clone(),
            keys,
            columns: BTreeMap::new(),
        }
    }

    fn feature(&self) -> Result<FeatureSpec, Problem> {
        let spec = &self.definition.spec;
        let aggregate = spec.aggregate.as_deref().unwrap_or("first");
        if !AGGREGATES.contains(&aggregate) {
            let problem = unknown(
                "function",
                "aggregate of labels",
                aggregate,
                AGGREGATES.into_iter(),
            );
            return Err(self.at(problem, "aggregate"));
        }
        let ordered = matches!(aggregate, "first" | "last");
        if spec.value.is_none() && !ordered && aggregate != "count" {
            let problem =
                Problem::user("invalid-definition", format!("`{aggregate}` needs `value`"))
                    .hint("write the column or SQL expression to aggregate");
            return Err(self.at(problem, "aggregate"));
        }
        let happened = ordered.then(|| "true".to_owned());
        Ok(FeatureSpec {
            name: self.definition.name.clone(),
            aggregate: Some(aggregate.to_owned()),
            of: spec.value.clone().or(happened),
            // A fact that came and says null is no absence.
            nulls: ordered.then_some(Nulls::Keep),
            windows: Some(vec![WindowSpec::Mode(Box::new(WindowMap {
                exact: Some(spec.horizon.clone()),
                name: Some(self.definition.name.clone()),
                ..WindowMap::default()
            }))]),
            ..FeatureSpec::default()
        })
    }

    fn otherwise(&self, view: &CompiledView) -> Result<Option<Value>, Problem> {
        let data_type = &view.features[0].data_type;
        let Some(given) = &self.definition.spec.otherwise else {
            return Ok(None);
        };
        match typed_value(given, data_type) {
            Some(value) => Ok(Some(value)),
            None => {
                let problem =
                    Problem::user("wrong-type", "`otherwise` has another type than the label")
                        .detail(format!("it is `{given}`, the label is {data_type}"));
                Err(self.at(problem, "otherwise"))
            }
        }
    }
}

#[cfg(test)]
mod tests;
