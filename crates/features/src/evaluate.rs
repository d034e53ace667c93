//! Point-in-time evaluation: from an entity's state to the values of a view's features at a cursor.
//!
//! Serving, cold reads and (through the same functions) training sets read features here and
//! nowhere else.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::Schema;
use headwater_aggregate::{
    Aged, Aggregate, EntityState, InputBatch, InputColumn, Outcome, Partial, Reading, Status,
    Window, WindowKind, WindowRange,
};
use headwater_schema::{
    Cursor, FactBatch, Field, Micros, Problem, Sequence, Value, array_from_values,
};

use crate::{CompiledFeature, CompiledSource, CompiledView, FeatureKind};

/// Which features of a view to read, worked out once and used for every read.
#[derive(Debug, Clone)]
pub struct ReadPlan {
    view: Arc<CompiledView>,
    /// The features asked for, by index, in the order asked for.
    wanted: Vec<usize>,
    /// Features that share a window share one walk over the state.
    windows: Vec<WindowReads>,
    /// Derived features, each after those it reads.
    expressions: Vec<usize>,
}

#[derive(Debug, Clone)]
struct WindowReads {
    window: Window,
    /// The bool input that says which facts the window is formed of; none: all.
    among: Option<usize>,
    slots: Vec<usize>,
    /// (feature, place of its slot in `slots`)
    features: Vec<(usize, usize)>,
}

const LIFETIME: Window = Window::new(WindowKind::Lifetime);
/// What a latest value is read as.
const LATEST: Aggregate = Aggregate::Last { keep_nulls: true };

impl ReadPlan {
    /// A plan for some features of a view, by index.
    pub fn new(view: Arc<CompiledView>, wanted: Vec<usize>) -> Self {
        let needed = needed_features(&view, &wanted);
        let mut windows: Vec<WindowReads> = Vec::new();
        for feature in (0..view.features.len()).filter(|i| needed[*i]) {
            let (window, among, slot) = match &view.features[feature].kind {
                FeatureKind::Aggregate {
                    slot,
                    window,
                    among,
                    ..
                } => (*window, *among, *slot),
                FeatureKind::Latest { slot } => (LIFETIME, None, *slot),
                FeatureKind::Expression { .. } => continue,
            };
            let same = |reads: &WindowReads| reads.window == window && reads.among == among;
            let index = windows.iter().position(same);
            let index = index.unwrap_or_else(|| {
                windows.push(WindowReads {
                    window,
                    among,
                    slots: Vec::new(),
                    features: Vec::new(),
                });
                windows.len() - 1
            });
            let reads = &mut windows[index];
            let place = reads.slots.iter().position(|s| *s == slot);
            let place = place.unwrap_or_else(|| {
                reads.slots.push(slot);
                reads.slots.len() - 1
            });
            reads.features.push((feature, place));
        }
        let expressions = view.evaluation_order.iter().copied();
        let expressions = expressions
            .filter(|i| needed[*i])
            .filter(|i| matches!(view.features[*i].kind, FeatureKind::Expression { .. }))
            .collect();
        Self {
            view,
            wanted,
            windows,
            expressions,
        }
    }

    pub fn view(&self) -> &Arc<CompiledView> {
        &self.view
    }

    /// The features asked for, in that order.
    pub fn features(&self) -> impl Iterator<Item = &CompiledFeature> {
        self.wanted.iter().map(|i| &self.view.features[*i])
    }

    /// What one entity's state says at a cursor: an outcome per feature of the view, in the view's
    /// order; those that aren't needed, and derived ones until [`ReadPlan::derive`], are null.
    pub fn read(&self, state: Option<&EntityState>, cursor: &Cursor) -> Result<Vec<Outcome>, Aged> {
        let absent = Outcome {
            value: Value::Null,
            status: Status::NotFound,
            event_time: None,
        };
        let mut outcomes = vec![absent; self.view.features.len()];
        let found = match state {
            Some(state) => state.any_before(cursor.until, cursor.known_at)?,
            None => false,
        };
        for reads in &self.windows {
            self.read_window(reads, state, cursor, found, &mut outcomes)?;
        }
        Ok(outcomes)
    }

    /// What a view that is still being filled says: nothing yet, whatever the entity.
    pub fn backfilling(&self) -> Vec<Outcome> {
        let outcome = |feature: &CompiledFeature| Outcome {
            value: feature.default.clone().unwrap_or(Value::Null),
            status: Status::Backfilling,
            event_time: None,
        };
        self.view.features.iter().map(outcome).collect()
    }

    fn read_window(
        &self,
        reads: &WindowReads,
        state: Option<&EntityState>,
        cursor: &Cursor,
        found: bool,
        outcomes: &mut [Outcome],
    ) -> Result<(), Aged> {
        let layout = &self.view.layout;
        let mut partials: Vec<Partial> = reads
            .slots
            .iter()
            .map(|slot| Partial::empty(&layout.slots[*slot]))
            .collect();
        if let Some(state) = state {
            let range = WindowRange {
                among: reads.among,
                ..reads.window.range(cursor)
            };
            state.query(layout, &range, cursor.known_at, &reads.slots, &mut partials)?;
        }
        let as_of = cursor.as_of.saturating_sub(reads.window.offset);
        for (index, place) in &reads.features {
            let feature = &self.view.features[*index];
            let slot = &layout.slots[reads.slots[*place]];
            let (function, largest) = match &feature.kind {
                FeatureKind::Aggregate {
                    function, largest, ..
                } => (function, *largest),
                _ => (&LATEST, None),
            };
            let reading = Reading {
                slot,
                input: slot.input.map(|i| &layout.inputs[i]),
                as_of,
                width: reads.window.width(),
                largest,
            };
            let outcome = function.finalize(&partials[*place], &reading);
            let outcome = apply_ttl(feature, outcome, cursor);
            outcomes[*index] = finish(feature, outcome, found);
        }
        Ok(())
    }

    /// Computes the derived features of many entities at once. Each row is what
    /// [`ReadPlan::read`] gave.
    pub fn derive(&self, rows: &mut [Vec<Outcome>]) -> Result<(), Problem> {
        if rows.is_empty() {
            return Ok(());
        }
        for index in &self.expressions {
            let feature = &self.view.features[*index];
            let FeatureKind::Expression { expression, inputs } = &feature.kind else {
                continue;
            };
            let columns = self.columns(inputs, rows)?;
            let (values, failed) = expression.evaluate_counting(&columns)?;
            let read =
                |row: &(usize, &mut Vec<Outcome>)| row.1[*index].status != Status::Backfilling;
            for (row, outcomes) in rows.iter_mut().enumerate().filter(read) {
                let value = match Value::from_array(&values, row) {
                    Value::Float(f) if !f.is_finite() => None,
                    value => Some(value),
                };
                let event_time = inputs.iter().filter_map(|i| outcomes[*i].event_time).max();
                let found = inputs
                    .iter()
                    .any(|i| outcomes[*i].status != Status::NotFound);
                let undefined = value.is_none() || failed.contains(&row);
                let mut outcome = Outcome::present(value.unwrap_or(Value::Null), event_time);
                if undefined {
                    outcome.status = Status::Undefined;
                }
                outcomes[*index] = finish(feature, outcome, found || inputs.is_empty());
            }
        }
        Ok(())
    }

    fn columns(&self, inputs: &[usize], rows: &[Vec<Outcome>]) -> Result<RecordBatch, Problem> {
        let fields = inputs.iter().map(|i| {
            let feature = &self.view.features[*i];
            Field::new(feature.name.clone(), feature.data_type.clone())
        });
        let fields: Vec<Field> = fields.collect();
        let arrays: Vec<ArrayRef> = fields
            .iter()
            .zip(inputs)
            .map(|(field, input)| {
                let values = rows.iter().map(|row| &row[*input].value);
                array_from_values(&field.data_type, values)
            })
            .collect::<Result<_, _>>()?;
        let schema = Schema::new(fields.iter().map(Field::to_arrow).collect::<Vec<_>>());
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        RecordBatch::try_new_with_options(Arc::new(schema), arrays, &options)
            .map_err(|e| Problem::internal("derived-features", "columns don't fit").detail(e))
    }

    /// The first event time that any window of the plan can reach at a cursor; none where one of
    /// them reaches back over all time.
    pub fn oldest(&self, cursor: &Cursor) -> Option<Micros> {
        let reaches = self.windows.iter().map(|reads| reads.window.reach());
        let widest = reaches.collect::<Option<Vec<_>>>()?.into_iter().max()?;
        Some(cursor.as_of.saturating_sub(widest))
    }

    /// The outcomes of the features asked for, in the order asked for.
    pub fn pick(&self, outcomes: &[Outcome]) -> Vec<Outcome> {
        self.wanted.iter().map(|i| outcomes[*i].clone()).collect()
    }
}

/// The features that are wanted, and those that they are derived from.
fn needed_features(view: &CompiledView, wanted: &[usize]) -> Vec<bool> {
    let mut needed = vec![false; view.features.len()];
    let mut stack = wanted.to_vec();
    while let Some(index) = stack.pop() {
        if std::mem::replace(&mut needed[index], true) {
            continue;
        }
        if let FeatureKind::Expression { inputs, .. } = &view.features[index].kind {
            stack.extend(inputs);
        }
    }
    needed
}

fn apply_ttl(feature: &CompiledFeature, mut outcome: Outcome, cursor: &Cursor) -> Outcome {
    if let (Some(ttl), Some(time)) = (feature.ttl, outcome.event_time)
        && time < cursor.as_of.saturating_sub(ttl)
    {
        outcome.status = Status::OutsideMaxAge;
        if !feature.stale_keep {
            outcome.value = Value::Null;
        }
    }
    outcome
}

fn finish(feature: &CompiledFeature, mut outcome: Outcome, found: bool) -> Outcome {
    if !found {
        outcome.status = Status::NotFound;
    }
    if let (Value::Null, Some(default)) = (&outcome.value, &feature.default) {
        outcome.value = default.clone();
    }
    outcome
}

/// Facts of one source that passed its `where` and name an entity, as rows of the view's inputs.
pub struct PreparedFacts {
    /// The entity key bytes of each row, one after another.
    keys: Vec<u8>,
    /// Where each row's key ends in `keys`.
    key_ends: Vec<usize>,
    pub rows: InputBatch,
    /// Facts that passed the `where` but have a null in a key column.
    pub null_keys: u64,
    /// Input values that count as null because they are NaN or infinite.
    pub non_finite: u64,
}

impl PreparedFacts {
    pub fn len(&self) -> usize {
        self.key_ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.key_ends.is_empty()
    }

    /// The bytes of the key of the entity that row `row` belongs to.
    pub fn key(&self, row: usize) -> &[u8] {
        let start = if row == 0 { 0 } else { self.key_ends[row - 1] };
        &self.keys[start..self.key_ends[row]]
    }
}

/// Evaluates a source's `where`, keys and inputs over facts. `batch` has the contract's present
/// columns; `sequences` has one per row.
pub fn prepare(
    source: &CompiledSource,
    batch: &FactBatch,
    sequences: &[Sequence],
) -> Result<PreparedFacts, Problem> {
    let kept = source.kept_rows(&batch.columns)?;
    let (columns, event_times, sequences) = match kept {
        None => (
            batch.columns.clone(),
            batch.event_times.clone(),
            sequences.to_vec(),
        ),
        Some(rows) => (
            take_rows(&batch.columns, &rows)?,
            rows.iter()
                .map(|r| batch.event_times[*r as usize])
                .collect(),
            rows.iter().map(|r| sequences[*r as usize]).collect(),
        ),
    };
    let (keys, key_ends, with_key) = entity_keys(source, &columns)?;
    let null_keys = (columns.num_rows() - key_ends.len()) as u64;
    let (columns, event_times, sequences) = match with_key {
        None => (columns, event_times, sequences),
        Some(rows) => (
            take_rows(&columns, &rows)?,
            rows.iter().map(|r| event_times[*r as usize]).collect(),
            rows.iter().map(|r| sequences[*r as usize]).collect(),
        ),
    };
    let mut inputs = Vec::with_capacity(source.inputs.len());
    for input in &source.inputs {
        inputs.push(match input {
            None => InputColumn::Missing,
            Some(expression) => InputColumn::new(&expression.evaluate(&columns)?),
        });
    }
    Ok(PreparedFacts {
        keys,
        key_ends,
        null_keys,
        non_finite: inputs.iter().map(InputColumn::non_finite).sum(),
        rows: InputBatch {
            event_times,
            sequences,
            columns: inputs,
        },
    })
}

fn take_rows(columns: &RecordBatch, rows: &[u32]) -> Result<RecordBatch, Problem> {
    let rows = arrow::array::UInt32Array::from(rows.to_vec());
    arrow::compute::take_record_batch(columns, &rows)
        .map_err(|e| Problem::internal("take-rows", "facts can't be filtered").detail(e))
}

impl CompiledSource {
    /// The rows that pass the source's `where`; none where all do.
    fn kept_rows(&self, columns: &RecordBatch) -> Result<Option<Vec<u32>>, Problem> {
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

type EntityKeys = (Vec<u8>, Vec<usize>, Option<Vec<u32>>);

/// The key bytes of each row that has no null among its key columns, and those rows where they
/// aren't all.
fn entity_keys(source: &CompiledSource, columns: &RecordBatch) -> Result<EntityKeys, Problem> {
    let arrays = source.key_columns.iter().map(|name| {
        let array = columns.column_by_name(name).ok_or_else(|| {
            Problem::internal("key-column", "a key column is missing").detail(name)
        })?;
        Ok(InputColumn::new(array))
    });
    let arrays: Vec<InputColumn> = arrays.collect::<Result<_, Problem>>()?;
    let rows = columns.num_rows();
    let (mut keys, mut ends, mut kept) = (Vec::with_capacity(rows * 12), Vec::new(), Vec::new());
    for row in 0..rows {
        let start = keys.len();
        if arrays.iter().all(|array| push_key(&mut keys, array, row)) {
            ends.push(keys.len());
            kept.push(row as u32);
        } else {
            keys.truncate(start);
        }
    }
    let all = kept.len() == rows;
    Ok((keys, ends, (!all).then_some(kept)))
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
