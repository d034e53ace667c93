//! `features_as_of('NAME', TIMESTAMP '…')`: features of every entity at one moment. What is called, and whose facts name the
//! entities.

use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::catalog::{TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::Expr;
use headwater_features::{Entity, Resolved};
use headwater_schema::time::parse_timestamp;
use headwater_schema::{Contract, Cursor, Micros, Position, Problem};

use super::Snapshot;
use super::feature_columns::FeatureColumns;
use super::feature_tables::{FeatureTable, NamedBy, features_of};
use super::problem::through;

/// The table function of features at one moment.
pub const AS_OF: &str = "features_as_of";

/// Makes tables of features at one moment.
#[derive(Debug)]
pub struct FeaturesAsOf(pub Arc<Snapshot>);

impl TableFunctionImpl for FeaturesAsOf {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        let table = table(&self.0, args.exprs());
        Ok(Arc::new(table.map_err(through)?))
    }
}

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

fn table(
    snapshot: &Arc<Snapshot>,
    arguments: &[Expr],
) -> std::result::Result<FeatureTable, Problem> {
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
    let cursor = Cursor {
        until: Position::after(seen),
        ..Cursor::inclusive(as_of).known_at(snapshot.known_at)
    };
    Ok(FeatureTable::as_of(snapshot, columns, cursor, named_by))
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
        Some(columns) => Ok(NamedBy {
            contract: contract.clone(),
            columns,
        }),
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
                all.any(|by| by.contract.name == contract.name && by.columns == *keys)
            };
            if let Some(columns) = keys.filter(|keys| !known(keys)) {
                named_by.push(NamedBy {
                    contract: contract.clone(),
                    columns,
                });
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
