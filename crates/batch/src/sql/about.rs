//! What the definitions say of the tables and their columns: `about.tables` and `about.columns`.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use datafusion::catalog::TableProvider;
use datafusion::common::Result;
use datafusion::datasource::MemTable;
use headwater_schema::DataType;

use super::Snapshot;
use super::facts_table::{EVENT_TIME, FACT_ID, INGEST_TIME, REMOVED_AT, SEQUENCE, UNKNOWN_FIELDS};
use super::tables::{Kind, names};

/// The tables of the schema.
pub const NAMES: [&str; 2] = ["tables", "columns"];

/// A table of the schema by its name.
pub fn table(snapshot: &Arc<Snapshot>, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
    let rows = match name {
        "tables" => tables(snapshot)?,
        "columns" => columns(snapshot)?,
        _ => return Ok(None),
    };
    let table = MemTable::try_new(rows.schema(), vec![vec![rows]])?;
    Ok(Some(Arc::new(table)))
}

fn texts(values: impl Iterator<Item = Option<String>>) -> ArrayRef {
    Arc::new(values.collect::<StringArray>())
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> Result<RecordBatch> {
    let columns = columns.into_iter().map(|(name, array)| (name, array, true));
    Ok(RecordBatch::try_from_iter_with_nullable(columns)?)
}

fn each_table(snapshot: &Snapshot) -> impl Iterator<Item = (Kind, String)> {
    let defined = Kind::ALL.into_iter().filter(|kind| *kind != Kind::About);
    let named = defined.map(|kind| (kind, names(snapshot, kind)));
    let named: Vec<_> = named.collect();
    named
        .into_iter()
        .flat_map(|(kind, names)| names.into_iter().map(move |name| (kind, name)))
}

fn tables(snapshot: &Snapshot) -> Result<RecordBatch> {
    let catalog = &snapshot.catalog;
    let (mut schemas, mut called, mut owners, mut said) = (vec![], vec![], vec![], vec![]);
    for (kind, name) in each_table(snapshot) {
        let (owner, description) = match kind {
            Kind::Views => {
                let view = catalog.view(&name);
                view.map_or((None, None), |v| (v.owner.clone(), v.description.clone()))
            }
            _ => (
                None,
                catalog.contract(&name).and_then(|c| c.description.clone()),
            ),
        };
        schemas.push(Some(kind.as_str().to_owned()));
        called.push(Some(name));
        owners.push(owner);
        said.push(description);
    }
    batch(vec![
        ("table_schema", texts(schemas.into_iter())),
        ("table_name", texts(called.into_iter())),
        ("owner", texts(owners.into_iter())),
        ("description", texts(said.into_iter())),
    ])
}

fn columns(snapshot: &Arc<Snapshot>) -> Result<RecordBatch> {
    let (mut schemas, mut tables, mut called) = (vec![], vec![], vec![]);
    let (mut places, mut types, mut said) = (vec![], vec![], vec![]);
    for (kind, name) in each_table(snapshot) {
        let Some(table) = kind.table(snapshot, &name)? else {
            continue;
        };
        for (place, field) in table.schema().fields().iter().enumerate() {
            let data_type = DataType::from_arrow(field.data_type()).ok();
            schemas.push(Some(kind.as_str().to_owned()));
            tables.push(Some(name.clone()));
            called.push(Some(field.name().clone()));
            places.push(place as i64 + 1);
            types.push(data_type.map(|t| t.to_string()));
            said.push(described(snapshot, kind, &name, place, field.name()));
        }
    }
    batch(vec![
        ("table_schema", texts(schemas.into_iter())),
        ("table_name", texts(tables.into_iter())),
        ("column_name", texts(called.into_iter())),
        ("ordinal_position", Arc::new(Int64Array::from(places))),
        ("data_type", texts(types.into_iter())),
        ("description", texts(said.into_iter())),
    ])
}

/// What is said of the column at a place of a table.
fn described(
    snapshot: &Snapshot,
    kind: Kind,
    table: &str,
    place: usize,
    column: &str,
) -> Option<String> {
    let catalog = &snapshot.catalog;
    let own = match kind {
        Kind::Facts | Kind::History => {
            let field = catalog.contract(table)?.fields.get(place);
            field.map(|field| field.description.clone())
        }
        Kind::Views => {
            let mut features = catalog.view(table)?.features.iter();
            let feature = features.find(|f| [&*f.name, &*f.full_name].contains(&column));
            feature.map(|feature| feature.description.clone())
        }
        Kind::Quarantine | Kind::About => None,
    };
    own.unwrap_or_else(|| added(column).map(str::to_owned))
}

/// What a column is that every table of its kind has.
fn added(name: &str) -> Option<&'static str> {
    Some(match name {
        EVENT_TIME => "when it happened",
        INGEST_TIME => "when it arrived",
        SEQUENCE => "its place in the log",
        FACT_ID => "its id as text",
        UNKNOWN_FIELDS => "fields that the contract doesn't know, as JSON",
        REMOVED_AT => "the sequence from which it doesn't count: it was revised or retracted there",
        _ => return None,
    })
}
