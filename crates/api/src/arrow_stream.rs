//! Replies as Arrow IPC streams: one record batch, typed as the definitions are.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, RecordBatch, RecordBatchOptions, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{Field, Schema};
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Response, header};
use headwater_schema::time::format_timestamp;
use headwater_schema::{Contract, Micros, Problem, Value, array_from_values};

use crate::backend::{FactRow, FeaturesReply};
use crate::error::ApiError;

/// The media type of Arrow IPC streams.
pub const ARROW_STREAM: &str = "application/vnd.apache.arrow.stream";

/// Whether a request asks for an Arrow stream.
pub fn is_wanted(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).into_iter();
    let mut types = accepted
        .filter_map(|a| a.to_str().ok())
        .flat_map(|a| a.split(','));
    types.any(|t| {
        let essence = t.split(';').next().unwrap_or_default().trim();
        essence.eq_ignore_ascii_case(ARROW_STREAM)
    })
}

/// Columns on their way into a record batch.
#[derive(Default)]
struct Columns {
    fields: Vec<Field>,
    arrays: Vec<ArrayRef>,
}

impl Columns {
    fn push(&mut self, name: &str, array: ArrayRef) {
        self.fields
            .push(Field::new(name, array.data_type().clone(), true));
        self.arrays.push(array);
    }

    fn push_times(&mut self, name: &str, times: impl Iterator<Item = Option<Micros>>) {
        let array: TimestampMicrosecondArray = times.collect();
        self.push(name, Arc::new(array.with_timezone("UTC")));
    }

    fn push_texts<'a>(&mut self, name: &str, texts: impl Iterator<Item = &'a str>) {
        let array: StringArray = texts.map(Some).collect();
        self.push(name, Arc::new(array));
    }

    fn into_reply(
        self,
        rows: usize,
        metadata: HashMap<String, String>,
    ) -> Result<Response<Body>, ApiError> {
        let bytes = self
            .into_stream(rows, metadata)
            .map_err(|e| Problem::internal("reply", "an Arrow reply can't be written").detail(e))?;
        let mut response = Response::new(Body::from(bytes));
        let media_type = HeaderValue::from_static(ARROW_STREAM);
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, media_type);
        Ok(response)
    }

    fn into_stream(
        self,
        rows: usize,
        metadata: HashMap<String, String>,
    ) -> Result<Vec<u8>, ArrowError> {
        let schema = Arc::new(Schema::new_with_metadata(self.fields, metadata));
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(schema.clone(), self.arrays, &options)?;
        let mut writer = StreamWriter::try_new(Vec::new(), &schema)?;
        writer.write(&batch)?;
        writer.into_inner()
    }
}

/// Features as columns: their values under their full names, then `NAME:status` and
/// `NAME:event_time` of each. The cursor is in the schema's metadata.
pub fn features(reply: &FeaturesReply) -> Result<Response<Body>, ApiError> {
    let mut columns = Columns::default();
    for (index, (name, data_type)) in reply.names.iter().zip(&reply.shape.types).enumerate() {
        let values = reply.rows.iter().map(|r| &r.values[index]);
        columns.push(name, array_from_values(data_type, values)?);
    }
    for (index, name) in reply.names.iter().enumerate() {
        let statuses = reply.rows.iter().map(|r| r.statuses[index].as_str());
        columns.push_texts(&format!("{name}:status"), statuses);
    }
    for (index, name) in reply.names.iter().enumerate() {
        let times = reply.rows.iter().map(|r| r.event_times[index]);
        columns.push_times(&format!("{name}:event_time"), times);
    }
    let mut metadata = HashMap::from([
        ("headwater.as_of".into(), format_timestamp(reply.as_of)),
        ("headwater.sequence".into(), reply.sequence.to_string()),
    ]);
    if !reply.stale_sources.is_empty() {
        let contracts = reply.stale_sources.iter().map(|s| s.contract.as_ref());
        let contracts = contracts.collect::<Vec<&str>>().join(",");
        metadata.insert("headwater.stale_sources".into(), contracts);
    }
    columns.into_reply(reply.rows.len(), metadata)
}

/// Facts as columns: the contract's own, then what Headwater knows of each.
pub fn facts(contract: &Contract, rows: &[FactRow]) -> Result<Response<Body>, ApiError> {
    let null = Value::Null;
    let mut columns = Columns::default();
    for (index, field) in contract.fields.iter().enumerate() {
        let values = rows
            .iter()
            .map(|row| value_of(row, index, &field.name).unwrap_or(&null));
        columns.push(&field.name, array_from_values(&field.data_type, values)?);
    }
    columns.push_texts("headwater.fact_id", rows.iter().map(|r| r.fact_id.as_str()));
    columns.push_times(
        "headwater.event_time",
        rows.iter().map(|r| Some(r.event_time)),
    );
    columns.push_times(
        "headwater.ingest_time",
        rows.iter().map(|r| Some(r.ingest_time)),
    );
    let sequences: Vec<String> = rows.iter().map(|r| r.sequence.to_string()).collect();
    columns.push_texts("headwater.sequence", sequences.iter().map(String::as_str));
    columns.into_reply(rows.len(), HashMap::new())
}

/// A fact's value of a column, which is at `index` unless the contract was replaced meanwhile.
fn value_of<'a>(row: &'a FactRow, index: usize, name: &str) -> Option<&'a Value> {
    match row.values.get(index) {
        Some((found, value)) if **found == *name => Some(value),
        _ => row
            .values
            .iter()
            .find(|(n, _)| **n == *name)
            .map(|(_, v)| v),
    }
}
