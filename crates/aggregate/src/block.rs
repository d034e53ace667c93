//! A run of facts of one entity in the total order, column by column.

use std::ops::Range;

use headwater_schema::{DataType, Micros, Position, Problem, Sequence, Value};

use crate::column::{Column, InputColumn, Nulls};
use crate::exact_sum::ExactSum;
use crate::ordered::{Placed, insert_newest};
use crate::partial::{Partial, PartialData};
use crate::{Layout, Slot, SlotKind};

/// Facts in ascending order of their positions.
#[derive(Debug, Clone)]
pub struct Block {
    event_times: Vec<Micros>,
    sequences: Vec<Sequence>,
    columns: Box<[Column]>,
    /// The greatest sequence among them; 0 where there are none.
    sequence_max: Sequence,
}

/// A batch of facts as rows of a layout's inputs.
#[derive(Clone)]
pub struct InputBatch {
    pub event_times: Vec<Micros>,
    pub sequences: Vec<Sequence>,
    /// One per input of the layout.
    pub columns: Vec<InputColumn>,
}

impl InputBatch {
    pub fn position(&self, row: usize) -> Position {
        Position::new(self.event_times[row], self.sequences[row])
    }

    /// A copy of some rows.
    pub fn take(&self, rows: &[u32]) -> Result<Self, Problem> {
        let pick = |row: &u32| *row as usize;
        let columns = self.columns.iter().map(|column| column.take(rows));
        Ok(Self {
            event_times: rows.iter().map(|r| self.event_times[pick(r)]).collect(),
            sequences: rows.iter().map(|r| self.sequences[pick(r)]).collect(),
            columns: columns.collect::<Result<_, _>>()?,
        })
    }

    /// About how many bytes of memory it takes.
    pub fn size_bytes(&self) -> usize {
        let columns: usize = self.columns.iter().map(InputColumn::size_bytes).sum();
        size_of::<Self>() + self.event_times.capacity() * 16 + columns
    }
}

impl Block {
    pub fn new(inputs: &[DataType]) -> Self {
        Self {
            event_times: Vec::new(),
            sequences: Vec::new(),
            columns: inputs.iter().map(Column::new).collect(),
            sequence_max: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.event_times.len()
    }

    pub fn is_empty(&self) -> bool {
        self.event_times.is_empty()
    }

    pub fn position(&self, row: usize) -> Position {
        Position::new(self.event_times[row], self.sequences[row])
    }

    pub fn first(&self) -> Option<Position> {
        (!self.is_empty()).then(|| self.position(0))
    }

    pub fn last(&self) -> Option<Position> {
        (!self.is_empty()).then(|| self.position(self.len() - 1))
    }

    pub fn sequence_max(&self) -> Sequence {
        self.sequence_max
    }

    pub fn columns_len(&self) -> usize {
        self.columns.len()
    }

    pub fn value(&self, column: usize, row: usize) -> Value {
        self.columns[column].get(row)
    }

    /// How many facts stand before `position`.
    pub fn rows_before(&self, position: Position) -> usize {
        match self.last() {
            Some(last) if last < position => self.len(),
            _ => {
                let start = self
                    .event_times
                    .partition_point(|t| *t < position.event_time);
                let ties = self.event_times[start..]
                    .iter()
                    .zip(&self.sequences[start..])
                    .take_while(|(t, s)| **t == position.event_time && **s < position.sequence)
                    .count();
                start + ties
            }
        }
    }

    /// Takes one fact of a batch to its place in the order.
    pub fn insert(&mut self, batch: &InputBatch, row: usize) {
        let position = batch.position(row);
        self.sequence_max = self.sequence_max.max(position.sequence);
        if self.last().is_none_or(|last| last < position) {
            self.event_times.push(position.event_time);
            self.sequences.push(position.sequence);
            for (column, input) in self.columns.iter_mut().zip(&batch.columns) {
                input.push_to(column, row);
            }
            return;
        }
        let at = self.rows_before(position);
        let values = batch.columns.iter().map(|c| c.get(row));
        self.insert_values(at, position, values);
    }

    /// Puts a fact at row `at`, which must be its place in the order.
    pub fn insert_values(
        &mut self,
        at: usize,
        position: Position,
        values: impl Iterator<Item = Value>,
    ) {
        self.sequence_max = self.sequence_max.max(position.sequence);
        self.event_times.insert(at, position.event_time);
        self.sequences.insert(at, position.sequence);
        for (column, value) in self.columns.iter_mut().zip(values) {
            column.insert(at, value);
        }
    }

    /// Takes a fact out; whether it was there.
    pub fn remove(&mut self, position: Position) -> Option<Vec<Value>> {
        let at = self.rows_before(position);
        if at >= self.len() || self.position(at) != position {
            return None;
        }
        let values = self.columns.iter().map(|c| c.get(at)).collect();
        self.event_times.remove(at);
        self.sequences.remove(at);
        for column in &mut self.columns {
            column.remove(at);
        }
        self.sequence_max = self.sequences.iter().copied().max().unwrap_or(0);
        Some(values)
    }

    /// Splits the facts from row `at` on into another block.
    pub fn split_off(&mut self, at: usize) -> Self {
        let greatest = |sequences: &[Sequence]| sequences.iter().copied().max().unwrap_or(0);
        let sequences = self.sequences.split_off(at);
        self.sequence_max = greatest(&self.sequences);
        Self {
            event_times: self.event_times.split_off(at),
            sequence_max: greatest(&sequences),
            sequences,
            columns: self.columns.iter_mut().map(|c| c.split_off(at)).collect(),
        }
    }

    /// Adds row `row` to a slot's aggregate.
    pub fn add_row(&self, slot: &Slot, row: usize, partial: &mut Partial) {
        let fact = slot.contribution(self.position(row), |input| self.value(input, row));
        if let Some(fact) = fact {
            partial.add(slot, &fact);
        }
    }

    /// Adds the facts of `rows` to a slot's aggregate: the same as [`Block::add_row`] for each,
    /// in loops over one type where the slot allows it.
    pub fn add_rows(&self, slot: &Slot, rows: Range<usize>, partial: &mut Partial) {
        if rows.is_empty() {
            return;
        }
        let plain = slot.filter.is_none() && slot.is_plain();
        let done = plain && self.add_rows_typed(slot, rows.clone(), partial);
        if !done {
            for row in rows {
                self.add_row(slot, row, partial);
            }
        }
    }

    fn add_rows_typed(&self, slot: &Slot, rows: Range<usize>, partial: &mut Partial) -> bool {
        let Some(input) = slot.input else {
            let counts = matches!(partial.data, PartialData::Count);
            if counts {
                partial.count(rows.len() as u64, self.position(rows.end - 1));
            }
            return counts;
        };
        let (count, last) = match (&mut partial.data, &self.columns[input]) {
            (PartialData::Moments(sums), Column::Float(values)) if sums.len() == 1 => {
                sum_floats(&values[rows.clone()], &mut sums[0])
            }
            (PartialData::Moments(sums), Column::Int(values, nulls))
                if sums.len() == 1 && nulls.none() =>
            {
                let sum = values[rows.clone()].iter().map(|v| i128::from(*v)).sum();
                sums[0].add_int(sum);
                (rows.len(), rows.len() - 1)
            }
            (PartialData::Max(kept), Column::Float(values)) => {
                keep_best(kept, &values[rows.clone()], |new, old| new > old)
            }
            (PartialData::Min(kept), Column::Float(values)) => {
                keep_best(kept, &values[rows.clone()], |new, old| new < old)
            }
            (PartialData::Count, column) => count_valid(column, rows.clone()),
            (PartialData::Last(list), column) => {
                let SlotKind::Last { n, keep_nulls } = slot.kind else {
                    return false;
                };
                let counts = |row: &usize| keep_nulls || !is_null(column, *row);
                let newest = rows.clone().rev().filter(counts).take(n);
                for row in newest {
                    insert_newest(list, n, self.position(row), &column.get(row));
                }
                match keep_nulls {
                    true => (rows.len(), rows.len() - 1),
                    false => count_valid(column, rows.clone()),
                }
            }
            _ => return false,
        };
        self.count_rows(partial, rows.start, count, last);
        true
    }

    /// Takes the first rows out of a slot's count or sums again; it must be plain.
    pub(crate) fn take_rows(&self, slot: &Slot, rows: Range<usize>, partial: &mut Partial) {
        let unfiltered = slot.filter.is_none();
        match (&mut partial.data, slot.input.map(|i| &self.columns[i])) {
            (PartialData::Count, None) if unfiltered => partial.uncount(rows.len() as u64),
            (PartialData::Moments(sums), Some(Column::Float(values)))
                if unfiltered && sums.len() == 1 =>
            {
                let gone = values[rows].iter().filter(|v| !v.is_nan());
                let mut count = 0;
                for value in gone {
                    sums[0].add_float(-value);
                    count += 1;
                }
                partial.uncount(count);
            }
            _ => {
                for row in rows {
                    if let Some(value) = self.counted(slot, row) {
                        partial.uncount(1);
                        partial.subtract(&value);
                    }
                }
            }
        }
        if partial.count == 0 {
            *partial = Partial::empty(slot);
        }
    }

    /// What a row brings to a plain slot; none where it doesn't count.
    pub(crate) fn counted(&self, slot: &Slot, row: usize) -> Option<Value> {
        if slot.filter.is_some_and(|filter| !self.holds(filter, row)) {
            return None;
        }
        let Some(input) = slot.input else {
            return Some(Value::Null);
        };
        let value = self.value(input, row);
        (slot.kind.keeps_nulls() || !value.is_null()).then_some(value)
    }

    /// A row's place and what it brings to a plain slot.
    pub(crate) fn placed(&self, slot: &Slot, row: usize) -> Placed {
        let value = slot.input.map_or(Value::Null, |i| self.value(i, row));
        (self.position(row), value)
    }

    /// Whether a bool input is true.
    pub(crate) fn holds(&self, input: usize, row: usize) -> bool {
        self.value(input, row) == Value::Bool(true)
    }

    /// Becomes the block of some facts, which come in the order of their positions, as far as some inputs go; the others
    /// must not be read.
    pub(crate) fn gather(&mut self, facts: &[(&InputBatch, usize)], inputs: &[usize]) {
        self.event_times.clear();
        self.sequences.clear();
        let times = facts.iter().map(|(batch, row)| batch.event_times[*row]);
        self.event_times.extend(times);
        let sequences = facts.iter().map(|(batch, row)| batch.sequences[*row]);
        self.sequences.extend(sequences);
        self.sequence_max = self.sequences.iter().copied().max().unwrap_or(0);
        for input in inputs {
            let column = &mut self.columns[*input];
            column.clear();
            for (batch, row) in facts {
                batch.columns[*input].push_to(column, *row);
            }
        }
    }

    /// [`Block::rows_before`], found from a number that is likely near to it.
    pub(crate) fn rows_before_near(&self, position: Position, near: usize) -> usize {
        let before = |row: usize| self.position(row) < position;
        let near = near.min(self.len());
        if near > 0 && !before(near - 1) {
            return partition_point(0, near - 1, before);
        }
        let (mut low, mut step) = (near, 1);
        while low + step <= self.len() && before(low + step - 1) {
            low += step;
            step *= 2;
        }
        partition_point(low, (low + step - 1).min(self.len()), before)
    }

    fn count_rows(&self, partial: &mut Partial, start: usize, count: usize, last: usize) {
        if count > 0 {
            partial.count(count as u64, self.position(start + last));
        }
    }

    /// The partial aggregates of all facts, slot by slot.
    pub fn partials(&self, layout: &Layout) -> Box<[Partial]> {
        let of = |slot: &Slot| {
            let mut partial = Partial::empty(slot);
            self.add_rows(slot, 0..self.len(), &mut partial);
            partial
        };
        layout.slots.iter().map(of).collect()
    }

    /// About how many bytes of memory the block takes.
    pub fn size_bytes(&self) -> usize {
        let columns: usize = self.columns.iter().map(Column::size_bytes).sum();
        let headers = self.columns.len() * size_of::<Column>() + size_of::<Self>();
        self.event_times.capacity() * 16 + columns + headers
    }
}

/// The first number from `low` to `high` that doesn't hold, where those that do come first.
fn partition_point(mut low: usize, mut high: usize, holds: impl Fn(usize) -> bool) -> usize {
    while low < high {
        let middle = low + (high - low) / 2;
        match holds(middle) {
            true => low = middle + 1,
            false => high = middle,
        }
    }
    low
}

fn is_null(column: &Column, row: usize) -> bool {
    match column {
        Column::Float(v) => v[row].is_nan(),
        Column::Int(_, nulls) | Column::Timestamp(_, nulls) | Column::Date(_, nulls) => {
            Nulls::is_null(nulls, row)
        }
        other => other.get(row).is_null(),
    }
}

/// Adds the floats that aren't null; how many there were, and the place of the last.
fn sum_floats(values: &[f64], sum: &mut ExactSum) -> (usize, usize) {
    let (mut count, mut last, mut whole) = (0, 0, 0i128);
    for (i, value) in values.iter().enumerate() {
        if value.is_nan() {
            continue;
        }
        count += 1;
        last = i;
        let truncated = *value as i64;
        if truncated as f64 == *value && truncated.unsigned_abs() < 1 << 62 {
            whole += i128::from(truncated);
        } else {
            sum.add_float(*value);
        }
    }
    sum.add_int(whole);
    (count, last)
}

/// Keeps the best of the floats that aren't null; how many there were, and the place of the last.
fn keep_best(
    kept: &mut Option<Value>,
    values: &[f64],
    better: fn(f64, f64) -> bool,
) -> (usize, usize) {
    let (mut count, mut last) = (0, 0);
    let mut best = match kept {
        Some(Value::Float(best)) => *best,
        _ => f64::NAN,
    };
    for (i, value) in values.iter().enumerate() {
        if value.is_nan() {
            continue;
        }
        count += 1;
        last = i;
        if best.is_nan() || better(*value, best) {
            best = *value;
        }
    }
    if !best.is_nan() {
        *kept = Some(Value::Float(best));
    }
    (count, last)
}

/// How many rows have a value, and the place of the last of them, counted from the start of `rows`.
fn count_valid(column: &Column, rows: Range<usize>) -> (usize, usize) {
    let (mut count, mut last) = (0, 0);
    for (i, row) in rows.enumerate() {
        if !is_null(column, row) {
            count += 1;
            last = i;
        }
    }
    (count, last)
}
