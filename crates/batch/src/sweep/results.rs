//! Rows of features' values, which come entity by entity and leave in the order of the moments, as columns.
//!
//! Those that don't fit in memory are written as runs, each in the order of the rows, and merged.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use arrow::array::ArrayRef;
use headwater_features::Said;
use headwater_schema::codec::{decode_value, encode_value};
use headwater_schema::{DataType, Problem, Value};

use super::Stop;
use super::values::Values;
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
    held: Values,
    /// The number of each row held.
    rows: Vec<u64>,
    file: Option<SpillFile>,
    /// Where the runs start in the file.
    runs: Vec<u64>,
}

impl Results {
    /// Holds about `bytes_max` bytes of columns of some types.
    pub(super) fn new(
        spill: Arc<Spill>,
        bytes_max: usize,
        types: Arc<[DataType]>,
        stop: &Stop,
    ) -> Self {
        Self {
            spill,
            bytes_max: bytes_max.max(RUN_BYTES_MIN),
            stop: stop.clone(),
            held: Values::new(types),
            rows: Vec::new(),
            file: None,
            runs: Vec::new(),
        }
    }

    /// A problem once nobody waits for them any more.
    pub(super) fn check(&self) -> Result<(), Problem> {
        self.stop.check()
    }

    /// Begins row `row`, which must get a value in every column.
    pub(super) fn begin_row(&mut self, row: u64) -> Result<(), Problem> {
        self.stop.check()?;
        if self.held.bytes() + self.rows.len() * size_of::<u64>() >= self.bytes_max {
            self.write_run()?;
        }
        self.held.begin_row();
        self.rows.push(row);
        Ok(())
    }

    /// Gives the row that was begun last its value in a column, and whether any fact counted.
    pub(super) fn say(&mut self, column: usize, said: Said<'_>, counted: bool) {
        match said {
            Said::Value(value) => self.held.push(column, value, counted),
            Said::Input(input, row) => self.held.push_input(column, input, row),
        }
    }

    fn write_run(&mut self) -> Result<(), Problem> {
        let types = self.held.types().clone();
        let held = std::mem::replace(&mut self.held, Values::new(types.clone()));
        let places = sorted(&self.rows);
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(self.spill.file()?),
        };
        self.runs.push(file.bytes());
        for place in places {
            let row = self.rows[place];
            file.record(|out| {
                out.extend_from_slice(&row.to_le_bytes());
                for column in 0..types.len() {
                    let (value, counted) = held.get(place, column);
                    encode(out, &value, counted);
                }
            })?;
        }
        self.rows.clear();
        Ok(())
    }

    /// The rows in their order.
    pub(super) fn finish(mut self) -> Result<SortedRows, Problem> {
        if self.file.is_some() && !self.rows.is_empty() {
            self.write_run()?;
        }
        let Some(mut file) = self.file else {
            return Ok(SortedRows::Held {
                places: sorted(&self.rows),
                held: self.held,
                given: 0,
            });
        };
        let types = self.held.types().clone();
        loop {
            let mut starts = std::mem::take(&mut self.runs);
            starts.push(file.bytes());
            let read = file.finish()?;
            let runs = starts.windows(2);
            let runs = runs.map(|run| Records::between(read.clone(), run[0], run[1]));
            let mut runs: Vec<Records> = runs.collect();
            if runs.len() <= RUNS_MAX {
                let merged = Merged::new(runs)?;
                return Ok(SortedRows::Merged { types, merged });
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

/// The places of rows in the order of their numbers.
fn sorted(rows: &[u64]) -> Vec<usize> {
    let first = rows.iter().min().copied().unwrap_or(0);
    let last = rows.iter().max().copied().unwrap_or(0);
    if last - first != (rows.len() as u64).saturating_sub(1) {
        let mut places: Vec<usize> = (0..rows.len()).collect();
        places.sort_unstable_by_key(|place| rows[*place]);
        return places;
    }
    // None is missing: each says where it stands.
    let mut places = vec![0; rows.len()];
    for (place, row) in rows.iter().enumerate() {
        places[(row - first) as usize] = place;
    }
    places
}

/// Rows in their order.
pub(super) enum SortedRows {
    Held {
        held: Values,
        places: Vec<usize>,
        given: usize,
    },
    Merged {
        types: Arc<[DataType]>,
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
            Self::Merged { types, merged } => {
                let mut values = Values::new(types.clone());
                for _ in 0..rows {
                    let record = merged.next()?.ok_or_else(too_few)?;
                    let mut rest = record.get(8..).unwrap_or_default();
                    values.begin_row();
                    for column in 0..types.len() {
                        let (value, counted) = decode(&mut rest)?;
                        values.push(column, &value, counted);
                    }
                }
                let places: Vec<usize> = (0..rows).collect();
                values.take(&places)
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
