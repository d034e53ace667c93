//! Tables on their way out, batch by batch: Parquet, an Arrow stream, or CSV. The same rows give the same
//! bytes.

use std::io::Write;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, StringArray, new_empty_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType as ArrowType, SchemaRef, TimeUnit};
use arrow::ipc::writer::StreamWriter;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use headwater_schema::decode::value_to_json;
use headwater_schema::{DataType, Problem, Value};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

/// How a table is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputFormat {
    Parquet,
    ArrowStream,
    /// A header, then rows: an empty field is null, `""` the empty string; nested values are JSON.
    Csv,
}

impl OutputFormat {
    /// The format that a file's name ends in.
    pub fn from_extension(extension: &str) -> Option<Self> {
        Some(match extension.to_ascii_lowercase().as_str() {
            "parquet" | "pq" => Self::Parquet,
            "arrow" | "arrows" | "ipc" => Self::ArrowStream,
            "csv" => Self::Csv,
            _ => return None,
        })
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::ArrowStream => "arrow",
            Self::Csv => "csv",
        }
    }
}

/// About how many bytes of a row group are put together before they are written; until then they are in memory.
const ROW_GROUP_BYTES: usize = 32 << 20;

type Out<'a> = Box<dyn Write + Send + 'a>;

/// Writes one table.
pub enum TableWriter<'a> {
    Parquet(Box<ArrowWriter<Out<'a>>>),
    ArrowStream(Box<StreamWriter<Out<'a>>>),
    Csv(Out<'a>),
}

fn failed(error: impl std::fmt::Display) -> Problem {
    Problem::external("unwritable", "the table can't be written").detail(error)
}

impl<'a> TableWriter<'a> {
    /// Begins a table of columns of `schema`.
    pub fn new(
        format: OutputFormat,
        schema: &SchemaRef,
        mut out: Out<'a>,
    ) -> Result<Self, Problem> {
        Ok(match format {
            OutputFormat::Parquet => {
                let properties = WriterProperties::builder()
                    .set_compression(Compression::SNAPPY)
                    .set_max_row_group_bytes(Some(ROW_GROUP_BYTES))
                    .build();
                let writer = ArrowWriter::try_new(out, schema.clone(), Some(properties));
                Self::Parquet(Box::new(writer.map_err(failed)?))
            }
            OutputFormat::ArrowStream => {
                let writer = StreamWriter::try_new(out, schema);
                Self::ArrowStream(Box::new(writer.map_err(failed)?))
            }
            OutputFormat::Csv => {
                for field in schema.fields() {
                    readable(field.name(), field.data_type())?;
                }
                let names = schema.fields().iter().map(|f| quoted(f.name()));
                let line = names.collect::<Vec<_>>().join(",");
                out.write_all(format!("{line}\n").as_bytes())
                    .map_err(failed)?;
                Self::Csv(out)
            }
        })
    }

    pub fn write(&mut self, rows: &RecordBatch) -> Result<(), Problem> {
        match self {
            Self::Parquet(writer) => writer.write(rows).map_err(failed),
            Self::ArrowStream(writer) => writer.write(rows).map_err(failed),
            Self::Csv(out) => out.write_all(csv(rows)?.as_bytes()).map_err(failed),
        }
    }

    /// Ends the table; everything has been handed on once this returns.
    pub fn finish(self) -> Result<(), Problem> {
        match self {
            Self::Parquet(writer) => writer.close().map(drop).map_err(failed),
            Self::ArrowStream(mut writer) => writer.finish().map_err(failed),
            Self::Csv(mut out) => out.flush().map_err(failed),
        }
    }
}

/// Writes values of a type that the project has none for, of which it would lose something: text that stands for itself.
fn shown(column: &ArrayRef) -> Result<Option<ArrayRef>, Problem> {
    let nanos = |zone: &str| ArrowType::Timestamp(TimeUnit::Nanosecond, Some(zone.into()));
    let column = match column.data_type() {
        ArrowType::Timestamp(TimeUnit::Nanosecond, Some(_)) => {
            cast(column, &nanos("UTC")).map_err(failed)?
        }
        ArrowType::Timestamp(_, None)
        | ArrowType::UInt64
        | ArrowType::Decimal256(..)
        | ArrowType::Time32(_)
        | ArrowType::Time64(_)
        | ArrowType::Null => column.clone(),
        _ => return Ok(None),
    };
    let options = FormatOptions::default();
    let formatter = ArrayFormatter::try_new(&column, &options).map_err(failed)?;
    let cell = |row: usize| -> Result<Option<String>, Problem> {
        let value = column.is_valid(row) && *column.data_type() != ArrowType::Null;
        let text = value.then(|| formatter.value(row).try_to_string());
        text.transpose().map_err(failed)
    };
    let texts = (0..column.len()).map(cell);
    Ok(Some(Arc::new(texts.collect::<Result<StringArray, _>>()?)))
}

fn readable(name: &str, arrow: &ArrowType) -> Result<DataType, Problem> {
    let shown_type = shown(&new_empty_array(arrow))?;
    let arrow = shown_type.as_ref().map_or(arrow, |s| s.data_type());
    DataType::from_arrow(arrow).map_err(|e| {
        Problem::user(
            "unsupported-column",
            format!("the column `{name}` can't be written as CSV"),
        )
        .detail(e)
        .hint("write Parquet or Arrow")
    })
}

fn csv(rows: &RecordBatch) -> Result<String, Problem> {
    let mut columns = Vec::with_capacity(rows.num_columns());
    for (field, column) in rows.schema().fields().iter().zip(rows.columns()) {
        let plain = readable(field.name(), field.data_type())?.to_arrow();
        columns.push(match shown(column)? {
            Some(shown) => shown,
            None if *column.data_type() == plain => Arc::clone(column),
            None => cast(column, &plain).map_err(failed)?,
        });
    }
    let mut text = String::new();
    for row in 0..rows.num_rows() {
        for (index, column) in columns.iter().enumerate() {
            if index > 0 {
                text.push(',');
            }
            match Value::from_array(column, row) {
                Value::Null => {}
                Value::String(value) => text.push_str(&quoted(&value)),
                value => match value_to_json(&value) {
                    serde_json::Value::String(value) => text.push_str(&quoted(&value)),
                    nested @ (serde_json::Value::Array(_) | serde_json::Value::Object(_)) => {
                        text.push_str(&quoted(&nested.to_string()));
                    }
                    plain => text.push_str(&plain.to_string()),
                },
            }
        }
        text.push('\n');
    }
    Ok(text)
}

/// A text as a field of CSV, in quotes where it needs them.
fn quoted(text: &str) -> String {
    match text.is_empty() || text.contains([',', '"', '\n', '\r']) || text.trim() != text {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}
