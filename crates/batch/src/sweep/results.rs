//! Rows of features' values, which come entity by entity and leave in the order of the moments, as columns.
//!
//! Those that don't fit in memory are written as runs, each in the order of the rows, and merged.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use arrow::array::ArrayRef;
use headwater_aggregate::{InputBatch, Outcome};
use headwater_features::Picked;
use headwater_schema::codec::{decode_value, encode_value};
use headwater_schema::{Problem, Value};

use super::Stop;
use super::values::{Shape, Values};
use crate::SweepProgress;
use crate::spill::{Records, Spill, SpillFile};

/// The least that a run is worth. Unit tests have short ones, so that few rows make several.
const RUN_BYTES_MIN: usize = if cfg!(test) { 256 } else { 1 << 20 };
/// Runs that are merged at once: each has a buffer. Where there are more, some are merged into one first.
const RUNS_MAX: usize = if cfg!(test) { 3 } else { 256 };

/// Takes rows.
pub(super) struct Results {
    spill: Arc<Spill>,
    bytes_max: usize,
    stop: Stop,
    progress: SweepProgress,
    /// Rows that were begun.
    begun: u64,
    held: Values,
    file: Option<SpillFile>,
    /// Where the runs start in the file.
    runs: Vec<u64>,
}

impl Results {
    /// Holds about `bytes_max` bytes of columns.
    pub(super) fn new(
        spill: Arc<Spill>,
        bytes_max: usize,
        shape: Shape,
        stop: &Stop,
        progress: &SweepProgress,
    ) -> Self {
        Self {
            spill,
            bytes_max: bytes_max.max(RUN_BYTES_MIN),
            stop: stop.clone(),
            progress: progress.clone(),
            begun: 0,
            held: Values::new(Arc::new(shape)),
            file: None,
            runs: Vec::new(),
        }
    }

    /// From now on latest values are read from these facts, which are held until the rows have left, or [`Results::settle`] is called.
    pub(super) fn read_from(&mut self, facts: &Arc<[InputBatch]>) {
        self.held.read_from(facts);
    }

    /// Lets facts go that latest values are read from.
    pub(super) fn settle(&mut self) -> Result<(), Problem> {
        if !self.held.is_settled() && self.held.bytes_settled() >= self.bytes_max {
            self.write_run()?;
        }
        self.held.settle();
        Ok(())
    }

    /// Begins row `row`, which must get a value in every column.
    pub(super) fn begin_row(&mut self, row: u64) -> Result<(), Problem> {
        self.stop.check()?;
        if self.held.bytes() >= self.bytes_max {
            self.write_run()?;
        }
        self.held.begin_row(row);
        self.begun += 1;
        self.progress.rows(self.begun);
        Ok(())
    }

    /// Gives the row that was begun last its value in a column that isn't one of latest values, and whether any fact counted.
    pub(super) fn say(&mut self, column: usize, value: &Value, counted: bool) {
        self.held.say(column, value, counted);
    }

    /// Says what a group of latest values is read from in the row that was begun last.
    pub(super) fn pick(&mut self, group: usize, picked: Picked) {
        self.held.pick(group, picked);
    }

    /// Gives the row that was begun last the values of all columns.
    pub(super) fn say_all<'o>(&mut self, outcomes: impl Iterator<Item = &'o Outcome>) {
        let values = outcomes.map(|outcome| (&outcome.value, outcome.event_time.is_some()));
        self.held.say_all(values);
    }

    fn write_run(&mut self) -> Result<(), Problem> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(self.spill.file()?),
        };
        self.runs.push(file.bytes());
        let held = &self.held;
        for place in held.places() {
            file.record(|out| {
                out.extend_from_slice(&held.number(place).to_le_bytes());
                for column in 0..held.shape().columns() {
                    let counted = column == 0 && held.counted(place);
                    encode(out, &held.get(place, column), counted);
                }
            })?;
        }
        self.held.clear();
        Ok(())
    }

    /// The rows in their order.
    pub(super) fn finish(mut self) -> Result<SortedRows, Problem> {
        if self.held.is_part_settled() || self.held.bytes_with_facts() > self.bytes_max {
            self.settle()?;
        }
        if self.file.is_some() && self.held.rows() > 0 {
            self.write_run()?;
        }
        let Some(mut file) = self.file else {
            return Ok(SortedRows::Held {
                places: self.held.places(),
                held: self.held,
                given: 0,
            });
        };
        let shape = self.held.shape().clone();
        loop {
            let mut starts = std::mem::take(&mut self.runs);
            starts.push(file.bytes());
            let read = file.finish()?;
            let runs = starts.windows(2);
            let runs = runs.map(|run| Records::between(read.clone(), run[0], run[1]));
            let mut runs: Vec<Records> = runs.collect();
            if runs.len() <= RUNS_MAX {
                let merged = Merged::new(runs)?;
                return Ok(SortedRows::Merged { shape, merged });
            }
            file = self.spill.file()?;
            while !runs.is_empty() {
                let some = runs.drain(..RUNS_MAX.min(runs.len()));
                let mut merged = Merged::new(some.collect())?;
                self.runs.push(file.bytes());
                while let Some(record) = merged.next()? {
                    file.record(|out| out.extend_from_slice(record))?;
                }
            }
        }
    }
}

/// Rows in their order.
pub(super) enum SortedRows {
    Held {
        held: Values,
        places: Vec<usize>,
        given: usize,
    },
    Merged {
        shape: Arc<Shape>,
        merged: Merged,
    },
}

/// Runs that are merged.
pub(super) struct Merged {
    runs: Vec<Records>,
    /// (row, run, the row's record)
    next: BinaryHeap<Reverse<(u64, usize, Vec<u8>)>>,
    current: Vec<u8>,
}

impl Merged {
    fn new(runs: Vec<Records>) -> Result<Self, Problem> {
        let mut merged = Self {
            runs,
            next: BinaryHeap::new(),
            current: Vec::new(),
        };
        for run in 0..merged.runs.len() {
            merged.advance(run)?;
        }
        Ok(merged)
    }

    fn advance(&mut self, run: usize) -> Result<(), Problem> {
        if let Some(record) = self.runs[run].next()? {
            let row = record.first_chunk().map_or(0, |b| u64::from_le_bytes(*b));
            self.next.push(Reverse((row, run, record.to_vec())));
        }
        Ok(())
    }

    fn next(&mut self) -> Result<Option<&[u8]>, Problem> {
        let Some(Reverse((_, run, record))) = self.next.pop() else {
            return Ok(None);
        };
        self.current = record;
        self.advance(run)?;
        Ok(Some(&self.current))
    }
}

/// Rows that were taken.
pub(super) struct Taken {
    pub columns: Vec<ArrayRef>,
    /// Whether any fact counted, of the first column.
    pub counted: Vec<bool>,
}

impl SortedRows {
    /// The next rows, this many.
    pub(super) fn take(&mut self, rows: usize) -> Result<Taken, Problem> {
        let too_few = || Problem::internal("sweep", "a sweep gave too few rows");
        match self {
            Self::Held {
                held,
                places,
                given,
            } => {
                let next = places.get(*given..*given + rows).ok_or_else(too_few)?;
                *given += rows;
                held.take(next)
            }
            Self::Merged { shape, merged } => {
                let mut values = Values::new(shape.clone());
                for number in 0..rows as u64 {
                    let record = merged.next()?.ok_or_else(too_few)?;
                    let mut rest = record.get(8..).unwrap_or_default();
                    let row = (0..shape.columns()).map(|_| decode(&mut rest));
                    let row = row.collect::<Result<Vec<_>, _>>()?;
                    values.begin_row(number);
                    values.say_all(row.iter().map(|(value, counted)| (value, *counted)));
                }
                values.take(&values.places())
            }
        }
    }
}

const NULL: u8 = 0;
const INT: u8 = 1;
const FLOAT: u8 = 2;
const ENCODED: u8 = 3;
const COUNTED: u8 = 1 << 7;

fn encode(out: &mut Vec<u8>, value: &Value, counted: bool) {
    let kind = |kind: u8| if counted { kind | COUNTED } else { kind };
    let mut number = |own: u8, eight: [u8; 8]| {
        out.push(kind(own));
        out.extend_from_slice(&eight);
    };
    match value {
        Value::Null => out.push(kind(NULL)),
        Value::Int(v) => number(INT, v.to_le_bytes()),
        Value::Float(v) => number(FLOAT, v.to_le_bytes()),
        other => {
            out.push(kind(ENCODED));
            encode_value(out, other);
        }
    }
}

fn decode(bytes: &mut &[u8]) -> Result<(Value, bool), Problem> {
    let torn = || Problem::internal("sweep", "a row can't be read back");
    let (first, rest) = bytes.split_first().ok_or_else(torn)?;
    *bytes = rest;
    let mut eight = || {
        let (eight, rest) = bytes.split_first_chunk::<8>().ok_or_else(torn)?;
        *bytes = rest;
        Ok::<[u8; 8], Problem>(*eight)
    };
    let value = match first & !COUNTED {
        NULL => Value::Null,
        INT => Value::Int(i64::from_le_bytes(eight()?)),
        FLOAT => Value::Float(f64::from_le_bytes(eight()?)),
        ENCODED => decode_value(bytes)?,
        _ => return Err(torn()),
    };
    Ok((value, first & COUNTED != 0))
}
