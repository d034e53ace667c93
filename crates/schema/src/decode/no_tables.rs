//! Stands for `arrow_body.rs` where the feature `tables` is off.

use arrow::array::RecordBatch;

use super::BodyFormat;
use super::rows::Rows;
use crate::Problem;

/// Batches of a body: there are none.
pub type Batches<'a> = std::iter::Empty<Result<RecordBatch, Problem>>;

/// Refuses an Arrow stream or a Parquet file.
pub fn read_record_batches(format: BodyFormat, _: &[u8]) -> Result<Batches<'_>, Problem> {
    Err(Problem::user("unsupported-format", "Tables aren't read here")
        .detail(format!("It is {}", format.media_type()))
        .hint("Write JSON, NDJSON or CSV; or build with the feature `tables` of `headwater-schema`"))
}

/// Refuses it.
pub fn read_body(format: BodyFormat, body: &[u8], _: &mut Rows<'_>) -> Result<(), Problem> {
    read_record_batches(format, body).map(drop)
}
