//! Features as tables: `views.NAME` has a view's features as they were at each of its facts, and
//! `features_as_of('NAME', TIMESTAMP '…')` those of every entity at one moment.

use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{
    Expr, LogicalPlan, LogicalPlanBuilder, TableProviderFilterPushDown, TableType, ident, lit,
};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::streaming::StreamingTableExec;
use headwater_facts::archived_name;
use headwater_features::{CompiledView, Entity, FeatureRef, Resolved};
use headwater_schema::time::parse_timestamp;
use headwater_schema::{Contract, Cursor, Micros, Position, Problem};

use super::Snapshot;
use super::bounds::Bounds;
use super::facts_table::{EVENT_TIME, FactsTable, Kept, SEQUENCE};
use super::feature_columns::FeatureColumns;
use super::feature_stream::{FeatureStream, Of};
use super::problem::through;

/// A contract whose facts name entities, and its columns in the order of the keys.
type NamedBy = (Arc<Contract>, Vec<Arc<str>>);

/// The table function of features at one moment.
pub const AS_OF: &str = "features_as_of";

fn scan(
    snapshot: &Arc<Snapshot>,
    columns: &FeatureColumns,
    projection: Option<&Vec<usize>>,
    limit: Option<usize>,
    of: Of,
) -> Result<Arc<dyn ExecutionPlan>> {
    let all = || (0..columns.schema.fields().len()).collect();
    let projection = projection.cloned().unwrap_or_else(all);
    let schema = Arc::new(columns.schema.project(&projection)?);
    let stream = FeatureStream {
        snapshot: snapshot.clone(),
        columns: columns.clone(),
        projection,
        schema: schema.clone(),
        of,
    };
    let exec = StreamingTableExec::try_new(schema, vec![Arc::new(stream)], None, [], false, limit);
    Ok(Arc::new(exec?))
}

/// Whether a filter is about these columns alone and says the same whenever it is asked.
fn is_about(filter: &Expr, names: &[&str]) -> bool {
    let columns = filter.column_refs();
    !columns.is_empty()
        && columns
            .iter()
            .all(|column| names.contains(&column.name.as_str()))
        && !filter.is_volatile()
}

fn push_down(filters: &[&Expr], names: &[&str]) -> Vec<TableProviderFilterPushDown> {
    let judge = |filter: &&Expr| match is_about(filter, names) {
        true => TableProviderFilterPushDown::Inexact,
        false => TableProviderFilterPushDown::Unsupported,
    };
    filters.iter().map(judge).collect()
}

/// A view's features as they were at each of its facts.
#[derive(Debug)]
pub struct ViewTable {
    snapshot: Arc<Snapshot>,
    view: Arc<CompiledView>,
    columns: FeatureColumns,
}

impl ViewTable {
    pub fn new(
        snapshot: Arc<Snapshot>,
        view: &Arc<CompiledView>,
    ) -> std::result::Result<Self, Problem> {
        Ok(Self {
            snapshot,
            columns: FeatureColumns::new(features_of(view), None, true)?,
            view: view.clone(),
        })
    }

    /// The columns that say which fact of which entity.
    fn places(&self) -> Vec<&str> {
        let keys = self.columns.keys.iter().map(|key| key.name.as_ref());
        keys.chain([EVENT_TIME, SEQUENCE]).collect()
    }
}

fn features_of(view: &Arc<CompiledView>) -> Vec<FeatureRef> {
    let feature = |index| FeatureRef {
        view: view.clone(),
        index,
    };
    (0..view.features.len()).map(feature).collect()
}

#[async_trait]
impl TableProvider for ViewTable {
    fn schema(&self) -> SchemaRef {
        self.columns.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(push_down(filters, &self.places()))
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let mut bounds = Bounds::of(filters, &[EVENT_TIME], SEQUENCE);
        bounds.sequence_max = bounds.sequence_max.min(self.snapshot.known_at);
        if let Some(as_of) = self.snapshot.as_of {
            bounds.time_max = bounds.time_max.min(as_of);
        }
        let schema = DFSchema::try_from(self.columns.schema.clone())?;
        let filter = conjunction(filters.iter().cloned());
        let filter = filter.map(|filter| state.create_physical_expr(filter, &schema));
        let of = Of::Facts {
            view: self.view.clone(),
            bounds,
            filter: filter.transpose()?,
        };
        scan(&self.snapshot, &self.columns, projection, limit, of)
    }
}

/// Makes tables of features at one moment.
#[derive(Debug)]
pub struct FeaturesAsOf(pub Arc<Snapshot>);

fn usage(detail: impl std::fmt::Display) -> Problem {
    Problem::user("invalid-query", format!("`{AS_OF}` is called wrongly"))
        .field("sql")
        .detail(detail)
        .hint("write features_as_of('flight_context', TIMESTAMP '2013-06-01T10:00:00Z'): a feature set or a view, and a moment; the contract whose facts name the entities may follow")
}

fn text(argument: &Expr) -> Option<&str> {
    match argument {
        Expr::Literal(value, _) => value.try_as_str().flatten(),
        _ => None,
    }
}

fn moment(argument: &Expr) -> std::result::Result<Micros, Problem> {
    if let Some(text) = text(argument) {
        return parse_timestamp(text, None).map_err(usage);
    }
    let Expr::Literal(value, _) = argument else {
        return Err(usage("the moment is no constant"));
    };
    let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let time = match value.data_type() {
        DataType::Timestamp(..) | DataType::Date32 => value.cast_to(&utc),
        other => return Err(usage(format!("the moment is {other}"))),
    };
    match time {
        Ok(ScalarValue::TimestampMicrosecond(Some(time), _)) => Ok(time),
        _ => Err(usage("the moment is null")),
    }
}

impl TableFunctionImpl for FeaturesAsOf {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        let table = AsOfTable::new(&self.0, args.exprs());
        Ok(Arc::new(table.map_err(through)?))
    }
}

/// Features of every entity at one moment.
#[derive(Debug)]
struct AsOfTable {
    snapshot: Arc<Snapshot>,
    columns: FeatureColumns,
    cursor: Cursor,
    named_by: Vec<NamedBy>,
}

impl AsOfTable {
    fn new(snapshot: &Arc<Snapshot>, arguments: &[Expr]) -> std::result::Result<Self, Problem> {
        let (name, at, contract) = match arguments {
            [name, at] => (name, at, None),
            [name, at, contract] => (name, at, Some(contract)),
            _ => return Err(usage(format!("it has {} arguments", arguments.len()))),
        };
        let name = text(name).ok_or_else(|| usage("the name is no text"))?;
        let contract = contract.map(|c| text(c).ok_or_else(|| usage("the contract is no text")));
        let resolved = resolve(snapshot, name)?;
        let as_of = moment(at)?;
        let seen = snapshot.as_of.map_or(as_of, |seen| seen.min(as_of));
        let columns = FeatureColumns::new(resolved.features.clone(), resolved.set.as_ref(), false)?;
        let named_by = match contract.transpose()? {
            Some(contract) => vec![by_contract(snapshot, &resolved, &columns, contract)?],
            None => by_default(snapshot, &resolved, &columns)?,
        };
        Ok(Self {
            snapshot: snapshot.clone(),
            columns,
            cursor: Cursor {
                until: Position::after(seen),
                ..Cursor::inclusive(as_of).known_at(snapshot.known_at)
            },
            named_by,
        })
    }

    /// Finds the entities that facts name by then.
    fn entities(&self, filters: &[Expr]) -> Result<LogicalPlan> {
        let mut all: Option<LogicalPlanBuilder> = None;
        for (contract, columns) in &self.named_by {
            let table = FactsTable::new(self.snapshot.clone(), contract.clone(), Kept::Live);
            let source = provider_as_source(Arc::new(table));
            let until = self.cursor.until.event_time;
            let until = ScalarValue::TimestampMicrosecond(Some(until), Some("UTC".into()));
            let mut passes = ident(EVENT_TIME).lt_eq(lit(until));
            let mut keys = Vec::new();
            for (column, key) in columns.iter().zip(&self.columns.keys) {
                let column = ident(archived_name(column));
                passes = passes.and(column.clone().is_not_null());
                keys.push(column.alias(key.name.as_ref()));
            }
            let mut found = LogicalPlanBuilder::scan(contract.name.as_ref(), source, None)?
                .filter(passes)?
                .project(keys)?;
            if let Some(filter) = conjunction(filters.iter().cloned()) {
                found = found.filter(filter)?;
            }
            all = Some(match all {
                None => found,
                Some(all) => all.union(found.build()?)?,
            });
        }
        let none = || through(usage("no contract names its entities"));
        all.ok_or_else(none)?.distinct()?.build()
    }
}

#[async_trait]
impl TableProvider for AsOfTable {
    fn schema(&self) -> SchemaRef {
        self.columns.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        let keys = self.columns.keys.iter().map(|key| key.name.as_ref());
        Ok(push_down(filters, &keys.collect::<Vec<_>>()))
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let entities = self.entities(filters)?;
        let entities = state.create_physical_plan(&entities).await?;
        let of = Of::Entities(entities, self.cursor);
        scan(&self.snapshot, &self.columns, projection, limit, of)
    }
}

/// A set, or a view.
fn resolve(snapshot: &Snapshot, name: &str) -> std::result::Result<Resolved, Problem> {
    let catalog = &snapshot.catalog;
    match catalog.view(name) {
        Some(view) => Ok(Resolved {
            features: features_of(view),
            set: None,
        }),
        None => catalog.resolve_set(name).map_err(|p| p.field("sql")),
    }
}

fn entities(resolved: &Resolved) -> Vec<&Arc<Entity>> {
    let mut entities: Vec<&Arc<Entity>> = Vec::new();
    for feature in &resolved.features {
        if !entities.iter().any(|e| e.name == feature.view.entity.name) {
            entities.push(&feature.view.entity);
        }
    }
    entities
}

/// The columns by which facts of a contract name all the entities of some features.
fn key_columns(
    resolved: &Resolved,
    columns: &FeatureColumns,
    contract: &Contract,
) -> Option<Vec<Arc<str>>> {
    let of_view = |key: &str| {
        resolved.features.iter().find_map(|feature| {
            let sources = feature.view.sources.iter();
            let source = sources.into_iter().find(|s| s.contract == contract.name)?;
            let keys = &feature.view.entity.keys;
            let place = keys.iter().position(|k| *k.name == *key)?;
            source.key_columns.get(place).cloned()
        })
    };
    let keys = columns.keys.iter();
    let column = |key: &headwater_schema::Field| {
        of_view(&key.name).or_else(|| {
            let place = contract.field_index(&key.name)?;
            let same = contract.fields[place].data_type == key.data_type;
            same.then(|| key.name.clone())
        })
    };
    keys.map(column).collect()
}

fn by_contract(
    snapshot: &Snapshot,
    resolved: &Resolved,
    columns: &FeatureColumns,
    name: &str,
) -> std::result::Result<NamedBy, Problem> {
    let contract = snapshot.catalog.contract(name);
    let contract = contract.ok_or_else(|| usage(format!("there is no contract `{name}`")))?;
    match key_columns(resolved, columns, contract) {
        Some(keys) => Ok((contract.clone(), keys)),
        None => Err(usage(format!(
            "facts of `{name}` don't name all its entities"
        ))),
    }
}

/// Where all features are of one entity: every source of their views. Else the first source whose facts name all of
/// the entities together.
fn by_default(
    snapshot: &Snapshot,
    resolved: &Resolved,
    columns: &FeatureColumns,
) -> std::result::Result<Vec<NamedBy>, Problem> {
    let entities = entities(resolved);
    let mut named_by: Vec<NamedBy> = Vec::new();
    for feature in &resolved.features {
        for source in &feature.view.sources {
            let Some(contract) = snapshot.catalog.contract(&source.contract) else {
                continue;
            };
            let keys = match entities.len() {
                1 => Some(source.key_columns.clone()),
                _ => key_columns(resolved, columns, contract),
            };
            let known = |keys: &Vec<Arc<str>>| {
                let mut all = named_by.iter();
                all.any(|(c, k)| c.name == contract.name && k == keys)
            };
            if let Some(keys) = keys.filter(|keys| !known(keys)) {
                named_by.push((contract.clone(), keys));
            }
        }
    }
    if entities.len() > 1 {
        named_by.truncate(1);
    }
    match named_by.is_empty() {
        false => Ok(named_by),
        true => {
            let names: Vec<&str> = entities.iter().map(|e| e.name.as_ref()).collect();
            Err(usage(format!(
                "no contract's facts name {} together",
                names.join(", ")
            )))
        }
    }
}
