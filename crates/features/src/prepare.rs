//! Facts of one source as rows of a view's inputs: which of them count, whom they are about, what is
//! kept of them.

use arrow::array::RecordBatch;
use headwater_aggregate::{InputBatch, InputColumn};
use headwater_schema::{FactBatch, Micros, Position, Problem, Sequence, Value};

use crate::CompiledSource;

/// Facts of one source that passed its `where` and name an entity, as rows of the view's inputs.
pub struct PreparedFacts {
    keys: Keys,
    pub rows: InputBatch,
    /// Facts that passed the `where` but have a null in a key column.
    pub null_keys: u64,
    /// Input values that count as null because they are NaN or infinite.
    pub non_finite: u64,
}

impl PreparedFacts {
    pub fn len(&self) -> usize {
        self.keys.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.keys.ends.is_empty()
    }

    /// The bytes of the key of the entity that row `row` belongs to.
    pub fn key(&self, row: usize) -> &[u8] {
        self.keys.get(row)
    }

    /// The keys of the entities that rows belong to, and the rows.
    pub fn into_parts(self) -> (Keys, InputBatch) {
        (self.keys, self.rows)
    }
}

/// Entity keys of rows.
pub struct Keys {
    /// The bytes of each, one after another.
    bytes: Vec<u8>,
    /// Where each row's key ends in `bytes`.
    ends: Vec<usize>,
}

impl Keys {
    /// The bytes of the key of row `row`.
    pub fn get(&self, row: usize) -> &[u8] {
        let start = if row == 0 { 0 } else { self.ends[row - 1] };
        &self.bytes[start..self.ends[row]]
    }
}

/// Rows of a source: the columns that it has under whatever names, and each row's place in the order.
pub struct SourceRows {
    pub columns: RecordBatch,
    pub event_times: Vec<Micros>,
    pub sequences: Vec<Sequence>,
}

/// Rows of a source that passed its `where` and name an entity.
pub struct KeptRows {
    pub columns: RecordBatch,
    pub event_times: Vec<Micros>,
    pub sequences: Vec<Sequence>,
    keys: Keys,
    null_keys: u64,
}

impl KeptRows {
    pub fn len(&self) -> usize {
        self.sequences.len()
    }

    pub fn is_empty(&self) -> bool {
        self.sequences.is_empty()
    }

    /// The bytes of the key of the entity that row `row` belongs to.
    pub fn key(&self, row: usize) -> &[u8] {
        self.keys.get(row)
    }

    pub fn position(&self, row: usize) -> Position {
        Position::new(self.event_times[row], self.sequences[row])
    }
}

/// Evaluates a source's `where`, keys and inputs over facts. `batch` has the contract's present
/// columns; `sequences` has one per row.
pub fn prepare(
    source: &CompiledSource,
    batch: &FactBatch,
    sequences: &[Sequence],
) -> Result<PreparedFacts, Problem> {
    let rows = SourceRows {
        columns: batch.columns.clone(),
        event_times: batch.event_times.clone(),
        sequences: sequences.to_vec(),
    };
    prepare_rows(source, rows)
}

/// The same over rows of whatever kind of source.
pub fn prepare_rows(source: &CompiledSource, rows: SourceRows) -> Result<PreparedFacts, Problem> {
    let kept = keep(source, rows)?;
    let mut inputs = Vec::with_capacity(source.inputs.len());
    for input in &source.inputs {
        inputs.push(match input {
            None => InputColumn::Missing,
            Some(expression) => InputColumn::new(&expression.evaluate(&kept.columns)?),
        });
    }
    Ok(PreparedFacts {
        keys: kept.keys,
        null_keys: kept.null_keys,
        non_finite: inputs.iter().map(InputColumn::non_finite).sum(),
        rows: InputBatch {
            event_times: kept.event_times,
            sequences: kept.sequences,
            columns: inputs,
        },
    })
}

/// The rows that pass a source's `where` and name an entity.
pub fn keep(source: &CompiledSource, rows: SourceRows) -> Result<KeptRows, Problem> {
    let passing = source.passing_rows(&rows.columns)?;
    let rows = take(rows, passing)?;
    let count = rows.sequences.len();
    let (keys, with_key) = entity_keys(source, &rows.columns);
    let null_keys = (count - keys.ends.len()) as u64;
    let rows = take(rows, with_key)?;
    Ok(KeptRows {
        columns: rows.columns,
        event_times: rows.event_times,
        sequences: rows.sequences,
        keys,
        null_keys,
    })
}

/// Some of the rows; all of them where it isn't said which.
fn take(rows: SourceRows, which: Option<Vec<u32>>) -> Result<SourceRows, Problem> {
    let Some(which) = which else {
        return Ok(rows);
    };
    let pick = |row: &u32| *row as usize;
    let event_times = which.iter().map(|row| rows.event_times[pick(row)]);
    let sequences = which.iter().map(|row| rows.sequences[pick(row)]);
    let (event_times, sequences) = (event_times.collect(), sequences.collect());
    let which = arrow::array::UInt32Array::from(which);
    let columns = arrow::compute::take_record_batch(&rows.columns, &which)
        .map_err(|e| Problem::internal("take-rows", "facts can't be filtered").detail(e))?;
    Ok(SourceRows {
        columns,
        event_times,
        sequences,
    })
}

impl CompiledSource {
    /// The rows that pass the source's `where`; none where all do.
    fn passing_rows(&self, columns: &RecordBatch) -> Result<Option<Vec<u32>>, Problem> {
        let Some(filter) = &self.filter else {
            return Ok(None);
        };
        let passes = InputColumn::new(&filter.evaluate(columns)?);
        let rows = 0..columns.num_rows();
        let kept: Vec<u32> = rows
            .filter(|row| passes.get(*row) == Value::Bool(true))
            .map(|row| row as u32)
            .collect();
        Ok((kept.len() < columns.num_rows()).then_some(kept))
    }
}

/// The key of each row that has no null among its key columns, and those rows where they aren't all.
fn entity_keys(source: &CompiledSource, columns: &RecordBatch) -> (Keys, Option<Vec<u32>>) {
    let arrays = source.keys.iter().map(|key| columns.column(*key));
    let arrays: Vec<InputColumn> = arrays.map(InputColumn::new).collect();
    let rows = columns.num_rows();
    let (mut bytes, mut ends, mut kept) = (Vec::with_capacity(rows * 12), Vec::new(), Vec::new());
    for row in 0..rows {
        let start = bytes.len();
        if arrays.iter().all(|array| push_key(&mut bytes, array, row)) {
            ends.push(bytes.len());
            kept.push(row as u32);
        } else {
            bytes.truncate(start);
        }
    }
    let all = kept.len() == rows;
    (Keys { bytes, ends }, (!all).then_some(kept))
}

/// Appends the bytes of one key value; false where it is null.
fn push_key(keys: &mut Vec<u8>, array: &InputColumn, row: usize) -> bool {
    use arrow::array::Array;
    match array {
        InputColumn::String(a) if a.is_valid(row) => {
            headwater_schema::push_str(keys, a.value(row));
            true
        }
        InputColumn::Int(a) if a.is_valid(row) => {
            headwater_schema::push_int_value(keys, a.value(row));
            true
        }
        other => headwater_schema::push_value(keys, &other.get(row)).is_some(),
    }
}
