//! Answers as bytes: JSON, lines of JSON, CSV, an Arrow stream or a Parquet file, written as rows come.
//!
//! An answer that failed on its way never looks whole: JSON ends with the problem in the place of the count of
//! rows, and whoever sends the bytes breaks off. Tables are written by [`TableWriter`].

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use headwater_schema::decode::value_to_json;
use headwater_schema::{DataType, Problem, Value};
use serde_json::{Value as Json, json};

use crate::{OutputFormat, TableWriter};

/// Under this name the metadata of an Arrow stream say how much of the log the answer knows.
pub const SEQUENCE_METADATA: &str = "headwater.sequence";

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `{"columns":[{"name","type"}],"rows":[[…]],"row_count":n,"sequence":s}`.
    Json,
    /// An object per row.
    Ndjson,
    Table(OutputFormat),
}

/// Writes one answer.
pub struct Encoder {
    schema: SchemaRef,
    rows: usize,
    out: Buffer,
    writer: Writer,
}

enum Writer {
    Json { sequence: String },
    Ndjson,
    Table(Option<TableWriter<'static>>),
}

/// Bytes that are written and not yet taken.
#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Buffer {
    fn with<T>(&self, use_it: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        use_it(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn push(&self, text: &str) {
        self.with(|bytes| bytes.extend_from_slice(text.as_bytes()));
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.with(|own| own.extend_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Encoder {
    /// Begins an answer with these columns; `sequence` is how much of the log it knows.
    pub fn new(format: Format, schema: &SchemaRef, sequence: u64) -> Result<Self, Problem> {
        let out = Buffer::default();
        let writer = match format {
            Format::Json => {
                let column = |f: &Arc<arrow::datatypes::Field>| {
                    let named = DataType::from_arrow(f.data_type());
                    let named = named.map_or_else(|e| e.to_string(), |t| t.to_string());
                    json!({"name": f.name(), "type": named})
                };
                let columns: Vec<Json> = schema.fields().iter().map(column).collect();
                out.push(&format!("{{\"columns\":{},\"rows\":[", Json::from(columns)));
                let sequence = sequence.to_string();
                Writer::Json { sequence }
            }
            Format::Ndjson => Writer::Ndjson,
            Format::Table(table) => {
                let mut told = schema.as_ref().clone();
                told.metadata
                    .insert(SEQUENCE_METADATA.into(), sequence.to_string());
                let writer = TableWriter::new(table, &Arc::new(told), Box::new(out.clone()))?;
                Writer::Table(Some(writer))
            }
        };
        Ok(Self {
            schema: schema.clone(),
            rows: 0,
            out,
            writer,
        })
    }

    /// Takes rows in.
    pub fn write(&mut self, rows: &RecordBatch) -> Result<(), Problem> {
        match &mut self.writer {
            Writer::Table(writer) => {
                if let Some(writer) = writer {
                    writer.write(rows)?;
                }
            }
            Writer::Json { .. } => {
                for row in 0..rows.num_rows() {
                    let values: Vec<Json> = row_of(rows, row).map(|v| value_to_json(&v)).collect();
                    let comma = if self.rows + row == 0 { "" } else { "," };
                    self.out.push(&format!("{comma}{}", Json::from(values)));
                }
            }
            Writer::Ndjson => {
                for row in 0..rows.num_rows() {
                    let names = self.schema.fields().iter().map(|f| f.name().clone());
                    let members = names.zip(row_of(rows, row).map(|v| value_to_json(&v)));
                    self.out
                        .push(&format!("{}\n", Json::Object(members.collect())));
                }
            }
        }
        self.rows += rows.num_rows();
        Ok(())
    }

    /// Ends the answer.
    pub fn finish(&mut self) -> Result<(), Problem> {
        match &mut self.writer {
            Writer::Json { sequence } => {
                let end = json!({"row_count": self.rows, "sequence": sequence}).to_string();
                self.out.push(&format!("],{}", end.trim_start_matches('{')));
                Ok(())
            }
            Writer::Ndjson => Ok(()),
            Writer::Table(writer) => match writer.take() {
                Some(writer) => writer.finish(),
                None => Ok(()),
            },
        }
    }

    /// Says why the answer doesn't go on, where its format has words for that: in the place of what ends it.
    /// `document` is the problem.
    pub fn break_off(&mut self, document: &Json) {
        let problem = json!({ "problem": document }).to_string();
        match &mut self.writer {
            Writer::Json { .. } => self.out.push(&format!("],{}", &problem[1..])),
            Writer::Ndjson => self.out.push(&format!("{problem}\n")),
            // Dropped without its end.
            Writer::Table(writer) => drop(writer.take()),
        }
    }

    /// The bytes that have been written since they were last taken.
    pub fn take(&mut self) -> Vec<u8> {
        self.out.with(std::mem::take)
    }
}

fn row_of(rows: &RecordBatch, row: usize) -> impl Iterator<Item = Value> {
    rows.columns()
        .iter()
        .map(move |c| Value::from_array(c, row))
}
