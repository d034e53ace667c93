//! Answers as bytes: JSON, lines of JSON, CSV, an Arrow stream or a Parquet file, written as rows come.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::ipc::writer::StreamWriter;
use headwater_schema::decode::value_to_json;
use headwater_schema::{DataType, Problem, Value};
use parquet::arrow::ArrowWriter;
use serde_json::{Value as Json, json};

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `{"columns":[{"name","type"}],"rows":[[…]],"row_count":n}`.
    Json,
    /// An object per row.
    Ndjson,
    /// A line of names, then a line per row; null is an empty field, the empty text `""`.
    Csv,
    /// An Arrow IPC stream.
    Arrow,
    Parquet,
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
    Csv,
    Arrow(Box<StreamWriter<Buffer>>),
    Parquet(Box<ArrowWriter<Buffer>>),
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

fn failed(error: impl std::fmt::Display) -> Problem {
    Problem::internal("answer", "an answer can't be written").detail(error)
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
            Format::Csv => {
                let names = schema.fields().iter().map(|f| csv_text(f.name()));
                out.push(&names.collect::<Vec<_>>().join(","));
                out.push("\n");
                Writer::Csv
            }
            Format::Arrow => {
                let writer = StreamWriter::try_new(out.clone(), schema).map_err(failed)?;
                Writer::Arrow(Box::new(writer))
            }
            Format::Parquet => {
                let writer = ArrowWriter::try_new(out.clone(), schema.clone(), None);
                Writer::Parquet(Box::new(writer.map_err(failed)?))
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
            Writer::Arrow(writer) => writer.write(rows).map_err(failed)?,
            Writer::Parquet(writer) => writer.write(rows).map_err(failed)?,
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
            Writer::Csv => {
                for row in 0..rows.num_rows() {
                    let cells: Vec<String> = row_of(rows, row).map(|v| csv_cell(&v)).collect();
                    self.out.push(&format!("{}\n", cells.join(",")));
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
                let end = format!(
                    "],\"row_count\":{},\"sequence\":\"{sequence}\"}}",
                    self.rows
                );
                self.out.push(&end);
                Ok(())
            }
            Writer::Ndjson | Writer::Csv => Ok(()),
            Writer::Arrow(writer) => writer.finish().map_err(failed),
            Writer::Parquet(writer) => writer.finish().map(drop).map_err(failed),
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

fn csv_cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        value => match value_to_json(value) {
            Json::String(text) => csv_text(&text),
            other => csv_text(&other.to_string()),
        },
    }
}

/// A text as a field: quoted where it is empty or holds what parts fields.
fn csv_text(text: &str) -> String {
    let plain = !text.is_empty() && !text.contains(['"', ',', '\n', '\r']);
    match plain && text.trim() == text {
        true => text.to_owned(),
        false => format!("\"{}\"", text.replace('"', "\"\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::csv_text;

    #[test]
    fn a_field_is_quoted_where_it_must_be() {
        for (text, want) in [
            ("a", "a"),
            ("", "\"\""),
            ("a,b", "\"a,b\""),
            ("a\"b", "\"a\"\"b\""),
        ] {
            assert_eq!(csv_text(text), want);
        }
    }
}
