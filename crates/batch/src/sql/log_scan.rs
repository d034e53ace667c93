//! Facts of one contract streamed from the log, a piece at a time.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, StringArray,
    TimestampMicrosecondArray, new_null_array,
};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures_util::stream::try_unfold;
use headwater_facts::{FactLog, Wanted};
use headwater_schema::{Contract, Sequence, SequencedBatch, evolve};

use super::bounds::Bounds;
use super::facts_table::Kept;
use super::problem::through;

/// Facts read at a time.
const PIECE_FACTS_MAX: usize = 16_384;
/// Sequences that are worth a partition of their own.
const PARTITION_SEQUENCES_MIN: u64 = 65_536;

/// What to read of every fact, and which facts count.
pub struct LogScan {
    pub facts: Arc<dyn FactLog>,
    pub contract: Arc<Contract>,
    pub kept: Kept,
    pub known_at: Sequence,
    /// Places in the table's columns: first the contract's own, then what is known of each fact.
    pub projection: Vec<usize>,
    /// The columns that are asked for.
    pub schema: SchemaRef,
    /// Rows of a batch.
    pub rows_max: usize,
}

/// The facts of some sequences.
pub struct LogPartition {
    scan: Arc<LogScan>,
    bounds: Bounds,
}

impl std::fmt::Debug for LogPartition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (name, bounds) = (&self.scan.contract.name, &self.bounds);
        write!(
            f,
            "log of {name}, {}..={}",
            bounds.sequence_min, bounds.sequence_max
        )
    }
}

impl LogPartition {
    /// Parts of about the same number of sequences, at most `parts`.
    pub fn split(scan: &Arc<LogScan>, bounds: Bounds, parts: usize) -> Vec<Self> {
        let (first, last) = (bounds.sequence_min, bounds.sequence_max);
        let count = (last + 1).saturating_sub(first);
        let parts = (count / PARTITION_SEQUENCES_MIN).clamp(1, parts.max(1) as u64);
        let at =
            |part: u64| first + (u128::from(count) * u128::from(part) / u128::from(parts)) as u64;
        let part = |part: u64| Self {
            scan: scan.clone(),
            bounds: Bounds {
                sequence_min: at(part),
                sequence_max: match part + 1 == parts {
                    true => last,
                    false => at(part + 1) - 1,
                },
                ..bounds
            },
        };
        (0..parts).map(part).collect()
    }
}

impl PartitionStream for LogPartition {
    fn schema(&self) -> &SchemaRef {
        &self.scan.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let piece = Piece {
            scan: self.scan.clone(),
            bounds: self.bounds,
            next: self.bounds.sequence_min,
            ready: VecDeque::new(),
        };
        let stream = try_unfold(piece, |mut piece| async move {
            loop {
                if let Some(batch) = piece.ready.pop_front() {
                    return Ok(Some((batch, piece)));
                }
                if piece.next > piece.bounds.sequence_max {
                    return Ok(None);
                }
                // Reading waits for a disk, so other threads do it; a query that is given up ends between two pieces.
                piece = blocking(move || piece.read().map(|()| piece)).await?;
            }
        });
        let schema = self.scan.schema.clone();
        Box::pin(RecordBatchStreamAdapter::new(schema, stream))
    }
}

/// Does on a thread for such work what waits for a disk.
pub async fn blocking<T: Send + 'static>(
    act: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(act).await;
    done.map_err(|e| DataFusionError::External(Box::new(e)))?
}

/// Where a partition's reader is.
struct Piece {
    scan: Arc<LogScan>,
    bounds: Bounds,
    next: Sequence,
    ready: VecDeque<RecordBatch>,
}

impl Piece {
    /// Reads on.
    fn read(&mut self) -> Result<()> {
        let wanted = Wanted {
            contract: self.scan.contract.name.clone(),
            time_min: self.bounds.time_min,
            time_max: self.bounds.time_max,
            until: self.bounds.sequence_max,
        };
        let facts = &self.scan.facts;
        let (batches, next) = facts
            .read_of(&wanted, self.next, PIECE_FACTS_MAX)
            .map_err(through)?;
        let ends = batches.first().zip(batches.last());
        let removed = match ends {
            Some((first, last)) => {
                let (first, last) = (first.first_sequence, last.last_sequence());
                let removed = facts.removed(&self.scan.contract.name, first, last);
                removed.map_err(through)?
            }
            None => Vec::new(),
        };
        for batch in &batches {
            if let Some(rows) = self.rows(batch, &removed)? {
                self.slice(&rows);
            }
        }
        self.next = next.max(self.next + 1);
        Ok(())
    }

    fn slice(&mut self, rows: &RecordBatch) {
        let mut at = 0;
        while at < rows.num_rows() {
            let length = self.scan.rows_max.min(rows.num_rows() - at);
            self.ready.push_back(rows.slice(at, length));
            at += length;
        }
    }

    /// The rows of a batch that count, as the table's columns; none where no row does.
    fn rows(
        &self,
        batch: &SequencedBatch,
        removed: &[(Sequence, Sequence)],
    ) -> Result<Option<RecordBatch>> {
        let facts = &batch.batch;
        if facts.is_empty() || facts.contract != self.scan.contract.name {
            return Ok(None);
        }
        let last = batch.first_sequence + facts.len() as u64 - 1;
        let (low, high) = (self.bounds.sequence_min, self.bounds.sequence_max);
        if last < low || batch.first_sequence > high {
            return Ok(None);
        }
        let mut removed_at = vec![None; facts.len()];
        let after = removed.partition_point(|(sequence, _)| *sequence < batch.first_sequence);
        for (sequence, at) in removed[after..].iter().take_while(|(s, _)| *s <= last) {
            if *at <= self.scan.known_at {
                removed_at[(sequence - batch.first_sequence) as usize] = Some(*at as i64);
            }
        }
        let counts = |row: usize| {
            let sequence = batch.first_sequence + row as u64;
            let time = facts.event_times[row];
            let within = low <= sequence && sequence <= high;
            within
                && self.bounds.time_min <= time
                && time <= self.bounds.time_max
                && (self.scan.kept == Kept::All || removed_at[row].is_none())
        };
        let mask: BooleanArray = (0..facts.len()).map(|row| Some(counts(row))).collect();
        if mask.true_count() == 0 {
            return Ok(None);
        }
        let columns = self.columns(batch, removed_at)?;
        let options = RecordBatchOptions::new().with_row_count(Some(facts.len()));
        let schema = self.scan.schema.clone();
        let rows = RecordBatch::try_new_with_options(schema, columns, &options)?;
        match mask.true_count() == facts.len() {
            true => Ok(Some(rows)),
            false => Ok(Some(filter_record_batch(&rows, &mask)?)),
        }
    }

    fn columns(
        &self,
        batch: &SequencedBatch,
        removed_at: Vec<Option<i64>>,
    ) -> Result<Vec<ArrayRef>> {
        let (facts, contract) = (&batch.batch, &self.scan.contract);
        let own = contract.fields.len();
        let needed = self.scan.projection.iter().any(|place| *place < own);
        let projected = match needed {
            true => Some(evolve::project(&facts.columns, contract).map_err(through)?),
            false => None,
        };
        let instants = |times: Vec<i64>| {
            Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC")) as ArrayRef
        };
        let sequences = batch.first_sequence..batch.first_sequence + facts.len() as u64;
        let mut columns = Vec::with_capacity(self.scan.projection.len());
        for (place, field) in self.scan.projection.iter().zip(self.scan.schema.fields()) {
            let column: ArrayRef = match (place.checked_sub(own), &projected) {
                (None, Some(projected)) => projected.column(*place).clone(),
                (Some(0), _) => instants(facts.event_times.clone()),
                (Some(1), _) => instants(vec![batch.ingest_time; facts.len()]),
                (Some(2), _) => {
                    let sequences = sequences.clone().map(|s| s as i64);
                    Arc::new(Int64Array::from_iter_values(sequences))
                }
                (Some(3), _) => match &facts.fact_ids {
                    Some(ids) => Arc::new(ids.clone()),
                    None => {
                        let texts = sequences.clone().map(|s| s.to_string());
                        Arc::new(StringArray::from_iter_values(texts))
                    }
                },
                (Some(4), _) => match &facts.unknown_fields {
                    Some(fields) => Arc::new(fields.clone()),
                    None => new_null_array(&DataType::Utf8, facts.len()),
                },
                (Some(5), _) => Arc::new(Int64Array::from(removed_at.clone())),
                _ => return Err(DataFusionError::Internal("no such column".into())),
            };
            columns.push(match column.data_type() == field.data_type() {
                true => column,
                false => cast(&column, field.data_type())?,
            });
        }
        Ok(columns)
    }
}
