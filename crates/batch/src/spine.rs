//! A spine: rows that say which entities are read and as of when, with whatever else they carry.
//!
//! Arrow and Parquet keep their columns as they are. Text is read by the decoder of facts, with the types
//! of the columns that are asked for and, for the others, those that fit their first rows.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use headwater_schema::decode::{BodyFormat, DecodeLimits, decode_each, read_record_batches};
use headwater_schema::infer::infer_columns;
use headwater_schema::{Contract, DataType, Field, Problem};
use serde_json::{Value as Json, json};

/// Rows of text that are decoded together.
const TEXT_ROWS: usize = 8192;
/// Columns of a spine.
const COLUMNS_MAX: usize = 10_000;

/// A spine, in batches of its rows.
#[derive(Debug, Clone)]
pub struct Spine {
    pub schema: SchemaRef,
    pub batches: Vec<RecordBatch>,
}

impl Spine {
    /// Reads a spine. `wanted` are the columns that have a type of their own; a time among them is RFC 3339
    /// with an offset, or integer microseconds.
    pub fn read(
        format: BodyFormat,
        body: &[u8],
        time: &str,
        wanted: &[Field],
    ) -> Result<Self, Problem> {
        let batches = match format {
            BodyFormat::ArrowStream | BodyFormat::Parquet => {
                read_record_batches(format, body)?.collect::<Result<Vec<_>, _>>()?
            }
            _ => read_text(format, body, time, wanted)?,
        };
        let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
        let Some(first) = batches.first().filter(|_| rows > 0) else {
            return Err(empty());
        };
        let fields = first.schema().fields().clone();
        if fields.len() > COLUMNS_MAX {
            return Err(Problem::user("limit", "the spine has too many columns")
                .detail(format!("{} of at most {COLUMNS_MAX}", fields.len())));
        }
        Ok(Self {
            schema: Arc::new(Schema::new(fields)),
            batches,
        })
    }

    pub fn rows(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }
}

fn empty() -> Problem {
    Problem::user("empty-spine", "the spine has no rows")
        .hint("give at least one row of keys with a time")
}

fn read_text(
    format: BodyFormat,
    body: &[u8],
    time: &str,
    wanted: &[Field],
) -> Result<Vec<RecordBatch>, Problem> {
    let mut columns = infer_columns(format, body)?;
    if columns.is_empty() {
        return Err(empty());
    }
    for column in &mut columns {
        if let Some(own) = wanted.iter().find(|w| w.name == column.name) {
            column.data_type = own.data_type.clone();
        }
    }
    let by_time = columns.iter().any(|c| *c.name == *time);
    let contract = contract_of(&columns, by_time.then_some(time))?;
    let keep = columns.len();
    let mut batches = Vec::new();
    let limits = DecodeLimits::files();
    decode_each(
        &contract,
        format,
        body,
        &limits,
        TEXT_ROWS,
        &mut |decoded| {
            if let Some(wrong) = decoded.rejected.first() {
                let problem = Problem::user("wrong-spine-row", "a row of the spine is wrong")
                    .detail(format!("row {}: {}", wrong.row, wrong.reason))
                    .hint("times are RFC 3339 with an offset, or integer microseconds since 1970");
                return Err(match &wrong.field {
                    Some(field) => problem.field(field.clone()),
                    None => problem,
                });
            }
            if decoded.unknown_fields > 0 {
                return Err(Problem::user(
                    "wrong-spine-row",
                    "a row of the spine has a column that its first rows don't have",
                )
                .hint("give every row the same columns"));
            }
            let own: Vec<usize> = (0..keep).collect();
            batches.push(
                decoded
                    .batch
                    .columns
                    .project(&own)
                    .map_err(|e| Problem::internal("spine", "columns can't be picked").detail(e))?,
            );
            Ok(())
        },
    )?;
    Ok(batches)
}

/// The spine's columns as a contract; where none is its time, one that no row has stands in for it.
fn contract_of(columns: &[Field], time: Option<&str>) -> Result<Contract, Problem> {
    let property = |column: &Field| -> Json {
        let logical = match column.data_type {
            DataType::Bool => "boolean",
            DataType::Int64 => "integer",
            DataType::Float64 => "number",
            DataType::Timestamp => "timestamp",
            DataType::Date => "date",
            _ => "string",
        };
        json!({"name": column.name, "logicalType": logical, "required": time == Some(column.name.as_ref())})
    };
    let Some(time) = time else {
        return Err(missing_time(columns));
    };
    let document = json!({
        "kind": "DataContract", "apiVersion": "v3.1.0", "id": "spine", "version": "1.0.0", "status": "active",
        "schema": [{
            "name": "spine",
            "properties": columns.iter().map(property).collect::<Vec<_>>(),
            "customProperties": [
                {"property": "headwater.eventTime", "value": time},
                {"property": "headwater.timeUnit", "value": "us"},
            ],
        }],
    });
    let parsed = Contract::parse_documents(&document, &|_| None);
    let wrong = |detail: String| {
        Problem::user("wrong-spine", "the spine's columns can't be read").detail(detail)
    };
    match parsed {
        Ok(contracts) => contracts
            .into_iter()
            .next()
            .ok_or_else(|| wrong("there are none".into())),
        Err(problems) => Err(wrong(
            problems.first().map(Problem::to_string).unwrap_or_default(),
        )),
    }
}

fn missing_time(columns: &[Field]) -> Problem {
    let names: Vec<&str> = columns.iter().map(|c| c.name.as_ref()).collect();
    Problem::user("missing-time", "the spine has no time column")
        .detail(format!("it has: {}", names.join(", ")))
        .hint("name the column of the moments to read at `as_of`, or say which it is with `--time`")
}
