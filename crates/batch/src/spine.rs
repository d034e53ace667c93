//! A spine: rows that say which entities are read and as of when, with whatever else they carry.
//!
//! It comes in parts and leaves in chunks of rows, whose bounds don't depend on the parts, so that a spine of any size takes
//! little memory. Arrow and Parquet keep their columns as they are. Text is read by the decoder of facts, with the types
//! of the columns that are asked for and, for the others, those that fit all their rows, which are looked at first.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::{Schema, SchemaRef};
use headwater_schema::decode::{
    BodyFormat, DecodeLimits, Decoded, decode_each, read_record_batches,
};
use headwater_schema::infer::SeenColumns;
use headwater_schema::{Contract, DataType, Field, Problem};

use crate::columns::hint_of;
use crate::compact::{batch_bytes, compact};

/// Rows of a chunk, unless they are very wide.
const CHUNK_ROWS: usize = 4096;
/// About the most bytes of a chunk.
const CHUNK_BYTES: usize = 32 << 20;
/// Columns of a spine.
const COLUMNS_MAX: usize = 10_000;

type Sink<'a> = dyn FnMut(RecordBatch) -> Result<(), Problem> + 'a;

/// Reads a spine, part by part.
pub struct SpineReader {
    wanted: Vec<Field>,
    /// Columns of numbers of any type.
    numbers: Vec<String>,
    seen: SeenColumns,
    text: Option<Text>,
    schema: Option<SchemaRef>,
    /// Rows of the next chunk.
    waiting: Vec<RecordBatch>,
    waiting_rows: usize,
    waiting_bytes: usize,
}

/// How text is read.
struct Text {
    contract: Contract,
    columns: usize,
    /// Rows that were decoded.
    rows: usize,
}

impl SpineReader {
    /// `wanted` are the columns that have a type of their own. A time among them is RFC 3339 with an offset, or integer
    /// microseconds.
    pub fn new(wanted: Vec<Field>) -> Self {
        Self {
            wanted,
            numbers: Vec::new(),
            seen: SeenColumns::default(),
            text: None,
            schema: None,
            waiting: Vec::new(),
            waiting_rows: 0,
            waiting_bytes: 0,
        }
    }

    /// The same where these columns hold numbers or nothing: in text that has anything else in one of them, the row is
    /// refused.
    pub fn with_numbers(mut self, numbers: Vec<String>) -> Self {
        self.numbers = numbers;
        self
    }

    /// Looks at a part of text: all are looked at before the first is taken.
    pub fn see(&mut self, format: BodyFormat, part: &[u8]) -> Result<(), Problem> {
        self.seen.see(format, part)
    }

    /// Takes the next part; gives the chunks that are whole by then.
    pub fn take(
        &mut self,
        format: BodyFormat,
        part: &[u8],
        sink: &mut Sink<'_>,
    ) -> Result<(), Problem> {
        if !format.is_text() {
            for batch in read_record_batches(format, part)? {
                self.push(batch?, sink)?;
            }
            return Ok(());
        }
        if self.text.is_none() {
            self.text = Some(self.text_columns()?);
        }
        self.decode(format, part, sink)
    }

    /// Gives the last chunk. A spine without rows is refused.
    pub fn finish(mut self, sink: &mut Sink<'_>) -> Result<(), Problem> {
        self.give(sink)?;
        match self.schema {
            Some(_) => Ok(()),
            None => Err(empty()),
        }
    }

    /// The columns of text, as its rows have them.
    fn text_columns(&self) -> Result<Text, Problem> {
        let mut columns = self.seen.fields();
        if columns.is_empty() {
            return Err(empty());
        }
        for column in &mut columns {
            if let Some(own) = self.wanted.iter().find(|w| w.name == column.name) {
                column.data_type = own.data_type.clone();
            }
            let is_number = matches!(
                column.data_type,
                DataType::Bool | DataType::Int64 | DataType::Float64
            );
            if !is_number && self.numbers.iter().any(|name| **name == *column.name) {
                column.data_type = DataType::Float64;
            }
        }
        Ok(Text {
            columns: columns.len(),
            contract: Contract::of_rows(columns),
            rows: 0,
        })
    }

    fn decode(
        &mut self,
        format: BodyFormat,
        part: &[u8],
        sink: &mut Sink<'_>,
    ) -> Result<(), Problem> {
        let Some(mut text) = self.text.take() else {
            return Err(Problem::internal("spine", "a part came before its columns"));
        };
        let limits = DecodeLimits::files();
        let wanted = std::mem::take(&mut self.wanted);
        let (first, mut rows) = (text.rows, 0);
        let mut take = |decoded: Decoded| {
            let batch = text_rows(decoded, first, &text, &wanted)?;
            rows += batch.num_rows();
            self.push(batch, sink)
        };
        decode_each(&text.contract, format, part, &limits, CHUNK_ROWS, &mut take)?;
        self.wanted = wanted;
        text.rows += rows;
        self.text = Some(text);
        Ok(())
    }

    /// Takes rows, and gives the chunks that they fill.
    fn push(&mut self, batch: RecordBatch, sink: &mut Sink<'_>) -> Result<(), Problem> {
        let mut batch = self.as_spine(batch)?;
        while batch.num_rows() > 0 {
            let rows = batch.num_rows().min(CHUNK_ROWS - self.waiting_rows);
            let taken = batch.slice(0, rows);
            batch = batch.slice(rows, batch.num_rows() - rows);
            self.waiting_rows += rows;
            self.waiting_bytes += batch_bytes(&taken);
            self.waiting.push(taken);
            if self.waiting_rows == CHUNK_ROWS || self.waiting_bytes > CHUNK_BYTES {
                self.give(sink)?;
            }
        }
        Ok(())
    }

    fn give(&mut self, sink: &mut Sink<'_>) -> Result<(), Problem> {
        let waiting = std::mem::take(&mut self.waiting);
        (self.waiting_rows, self.waiting_bytes) = (0, 0);
        match (waiting.as_slice(), &self.schema) {
            ([], _) | (_, None) => Ok(()),
            ([one], _) => sink(compact(one)?),
            (several, Some(schema)) => {
                let rows = concat_batches(schema, several).map_err(|e| {
                    Problem::user("wrong-spine", "the spine's rows can't be put together").detail(e)
                })?;
                sink(compact(&rows)?)
            }
        }
    }

    /// The batch under the spine's own schema, which is that of its first rows.
    fn as_spine(&mut self, batch: RecordBatch) -> Result<RecordBatch, Problem> {
        if batch.num_rows() == 0 {
            return Ok(batch);
        }
        let schema = match &self.schema {
            Some(schema) => schema.clone(),
            None => {
                let fields = batch.schema().fields().clone();
                if fields.len() > COLUMNS_MAX {
                    return Err(Problem::user("limit", "the spine has too many columns")
                        .detail(format!("{} of at most {COLUMNS_MAX}", fields.len())));
                }
                self.schema.insert(Arc::new(Schema::new(fields))).clone()
            }
        };
        RecordBatch::try_new(schema, batch.columns().to_vec()).map_err(|e| {
            Problem::user(
                "wrong-spine",
                "the spine's rows don't have the same columns",
            )
            .detail(e)
        })
    }
}

fn empty() -> Problem {
    Problem::user("empty-spine", "the spine has no rows").hint("give at least one row")
}

/// The rows of a part of text, whose first is the spine's row `first`; one that is wrong is refused.
fn text_rows(
    decoded: Decoded,
    first: usize,
    text: &Text,
    wanted: &[Field],
) -> Result<RecordBatch, Problem> {
    if let Some(wrong) = decoded.rejected.first() {
        let problem = Problem::user("wrong-spine-row", "a row of the spine is wrong")
            .detail(format!("row {}: {}", first + wrong.row, wrong.reason));
        let field = wrong.field.as_ref();
        // Of a value within another, the column's name comes first.
        let columns = &text.contract.fields[..text.columns];
        let column = field.and_then(|field| {
            let inside = |name: &str| {
                let rest = field.strip_prefix(name)?;
                (rest.is_empty() || rest.starts_with(['.', '['])).then_some(())
            };
            columns.iter().find(|c| inside(&c.name).is_some())
        });
        let is_wanted = |name: &str| wanted.iter().any(|w| *w.name == *name);
        let hint = match column {
            Some(column) if is_wanted(&column.name) => hint_of(&column.data_type),
            Some(column) => format!(
                "all its rows together are read as {}: write the column as text in every row, mend the row, or leave the column out",
                column.data_type
            ),
            None => "mend the row, or leave it out".into(),
        };
        let problem = problem.hint(hint);
        return Err(match field {
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
    let own: Vec<usize> = (0..text.columns).collect();
    let rows = decoded.batch.columns.project(&own);
    rows.map_err(|e| Problem::internal("spine", "columns can't be picked").detail(e))
}
