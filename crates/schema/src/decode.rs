//! Decoding: bytes from outside become columns of a contract, row by row, strictly.
//!
//! A row that breaks the contract never stops the others: it comes back as a [`RejectedRow`] with
//! field, rule, reason and its own text. Only a body that can't be read at all is a [`Problem`].
//! JSON goes straight from the text into columns (`scanner.rs`, `json.rs`); CSV, Arrow and Parquet
//! go through the same columns and the same checks (`rows.rs`).

#[cfg(feature = "tables")]
mod arrow_body;
#[cfg(feature = "tables")]
mod arrow_file;
mod columns;
mod csv;
mod identity;
mod json;
#[cfg(not(feature = "tables"))]
mod no_tables;
mod rows;
mod scanner;
mod write;

use crate::{Contract, FactBatch, Problem};

pub use identity::{id_text, join_id_parts, split_id};
pub use write::value_to_json;

#[cfg(feature = "tables")]
use arrow_body as tables;
#[cfg(not(feature = "tables"))]
use no_tables as tables;

#[cfg(feature = "tables")]
pub use arrow_body::{parquet_batches, stream_batches};
#[cfg(feature = "tables")]
pub use arrow_file::{file_batches, is_arrow_file};
pub(crate) use csv::{CsvCell, CsvReader, csv_text};
pub(crate) use scanner::{Kind, Scanner, Syntax};
pub use tables::{Batches, read_record_batches};

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFormat {
    /// An array of objects, or one object.
    Json,
    /// One object per line.
    Ndjson,
    /// With a header line.
    Csv,
    /// An Arrow IPC stream, or an Arrow IPC file.
    ArrowStream,
    /// A Parquet file.
    Parquet,
}

impl BodyFormat {
    /// Whether values come as text, whose types nothing declares.
    pub fn is_text(self) -> bool {
        matches!(self, Self::Json | Self::Ndjson | Self::Csv)
    }

    /// The format that a file's name ends in.
    pub fn from_extension(extension: &str) -> Option<Self> {
        Some(match extension.to_ascii_lowercase().as_str() {
            "json" => Self::Json,
            "ndjson" | "jsonl" => Self::Ndjson,
            "csv" => Self::Csv,
            "arrow" | "arrows" | "ipc" | "feather" => Self::ArrowStream,
            "parquet" | "pq" => Self::Parquet,
            _ => return None,
        })
    }

    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv",
            Self::ArrowStream => "application/vnd.apache.arrow.stream",
            Self::Parquet => "application/vnd.apache.parquet",
        }
    }

    /// The format that a media type names.
    pub fn from_media_type(media_type: &str) -> Option<Self> {
        let essence = media_type.split(';').next().unwrap_or_default().trim();
        Some(match essence.to_ascii_lowercase().as_str() {
            "application/json" => Self::Json,
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Self::Ndjson,
            "text/csv" => Self::Csv,
            "application/vnd.apache.arrow.stream" => Self::ArrowStream,
            "application/vnd.apache.parquet" => Self::Parquet,
            _ => return None,
        })
    }
}

/// What a decoder refuses to go beyond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeLimits {
    pub body_bytes_max: usize,
    pub rows_max: usize,
    /// The text of one row.
    pub row_bytes_max: usize,
    /// Objects and lists within one row.
    pub nesting_max: usize,
}

impl Default for DecodeLimits {
    fn default() -> Self {
        Self {
            body_bytes_max: 64 << 20,
            rows_max: 1_000_000,
            row_bytes_max: 1 << 20,
            nesting_max: 64,
        }
    }
}

impl DecodeLimits {
    /// For files that their owner chose to read: only single rows are bounded.
    pub fn files() -> Self {
        Self {
            body_bytes_max: usize::MAX,
            rows_max: usize::MAX,
            ..Self::default()
        }
    }
}

/// A row that broke its contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedRow {
    /// Its place in the body; the first row is 0.
    pub row: usize,
    /// The field as a path (`address.zip`), where one is to blame.
    pub field: Option<String>,
    /// The rule it broke: `type`, `required`, `minimum`, `pattern`, …
    pub rule: String,
    pub reason: String,
    /// The row as JSON text, or as it came where it is no JSON; at most
    /// [`DecodeLimits::row_bytes_max`] bytes of it.
    pub raw: String,
}

/// What became of a body.
#[derive(Debug, Clone)]
pub struct Decoded {
    /// The rows that keep the contract.
    pub batch: FactBatch,
    /// For each of them its place in the body.
    pub row_numbers: Vec<usize>,
    pub rejected: Vec<RejectedRow>,
    /// Fields that the contract doesn't know, in accepted rows.
    pub unknown_fields: u64,
}

/// Decodes a whole body.
pub fn decode(
    contract: &Contract,
    format: BodyFormat,
    body: &[u8],
    limits: &DecodeLimits,
) -> Result<Decoded, Problem> {
    let mut whole = None;
    decode_each(contract, format, body, limits, usize::MAX, &mut |decoded| {
        whole = Some(decoded);
        Ok(())
    })?;
    whole.ok_or_else(|| Problem::internal("decode", "A body was decoded into nothing"))
}

/// Decodes a body in batches of at most `rows_per_batch` rows, accepted or not; what `sink` refuses
/// ends it. Calls `sink` at least once. Row numbers count through the whole body.
pub fn decode_each(
    contract: &Contract,
    format: BodyFormat,
    body: &[u8],
    limits: &DecodeLimits,
    rows_per_batch: usize,
    sink: &mut dyn FnMut(Decoded) -> Result<(), Problem>,
) -> Result<(), Problem> {
    if body.len() > limits.body_bytes_max {
        return Err(Problem::user("body-too-large", "The body is too large")
            .detail(format!(
                "It has {} bytes; `body_bytes_max` is {}",
                body.len(),
                limits.body_bytes_max
            ))
            .hint("Send it in several parts"));
    }
    let mut rows = rows::Rows::new(contract, limits, rows_per_batch.max(1), sink);
    match format {
        BodyFormat::Json => json::read_body(body, &mut rows)?,
        BodyFormat::Ndjson => json::read_lines(body, &mut rows)?,
        BodyFormat::Csv => csv::read_body(body, &mut rows)?,
        BodyFormat::ArrowStream | BodyFormat::Parquet => {
            tables::read_body(format, body, &mut rows)?;
        }
    }
    rows.finish()
}

#[cfg(test)]
mod tests;
