//! Rows of outcomes, which come entity by entity and leave in the order of the moments.
//!
//! Rows are kept as bytes. Those that don't fit in memory are written as runs, each in the order of the rows, and merged.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use headwater_aggregate::{Outcome, Status};
use headwater_schema::codec::{decode_value, encode_value};
use headwater_schema::{Problem, Value};

use super::spill::{Records, Spill, SpillFile, read_u32};

/// The least that a run is worth. Unit tests have short ones, so that few rows make several.
const RUN_BYTES_MIN: usize = if cfg!(test) { 256 } else { 1 << 20 };

const STATUSES: [Status; 7] = [
    Status::Present,
    Status::NullValue,
    Status::NotFound,
    Status::OutsideMaxAge,
    Status::Undefined,
    Status::Overflow,
    Status::Backfilling,
];
const TIMED: u8 = 1 << 3;

/// What comes behind a row's first byte of a value.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Kind {
    Null,
    Int,
    Float,
    Encoded,
}

/// Takes rows.
pub(super) struct Results {
    spill: Arc<Spill>,
    bytes_max: usize,
    /// Records: u64 row, outcomes; each with its length before it.
    bytes: Vec<u8>,
    /// (row, where its record starts)
    rows: Vec<(u64, usize)>,
    file: Option<SpillFile>,
    /// Where the runs start in the file.
    runs: Vec<u64>,
}

impl Results {
    /// Holds about `bytes_max` bytes.
    pub(super) fn new(spill: Arc<Spill>, bytes_max: usize) -> Self {
        Self {
            spill,
            bytes_max: bytes_max.max(RUN_BYTES_MIN),
            bytes: Vec::new(),
            rows: Vec::new(),
            file: None,
            runs: Vec::new(),
        }
    }

    /// Takes the outcomes of one row.
    pub(super) fn push<'o>(
        &mut self,
        row: u64,
        outcomes: impl Iterator<Item = &'o Outcome>,
    ) -> Result<(), Problem> {
        let start = self.bytes.len();
        self.bytes.extend([0; 4]);
        self.bytes.extend(row.to_le_bytes());
        for outcome in outcomes {
            encode(&mut self.bytes, outcome);
        }
        let length = (self.bytes.len() - start - 4) as u32;
        self.bytes[start..start + 4].copy_from_slice(&length.to_le_bytes());
        self.rows.push((row, start));
        match self.bytes.len() + self.rows.len() * 16 >= self.bytes_max {
            true => self.write_run(),
            false => Ok(()),
        }
    }

    fn write_run(&mut self) -> Result<(), Problem> {
        self.rows.sort_unstable();
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(self.spill.file()?),
        };
        self.runs.push(file.bytes());
        for (_, start) in self.rows.drain(..) {
            let record = record_at(&self.bytes, start);
            file.record(|out| out.extend_from_slice(record))?;
        }
        self.bytes.clear();
        Ok(())
    }

    /// The rows in their order.
    pub(super) fn finish(mut self) -> Result<SortedRows, Problem> {
        if self.file.is_some() && !self.rows.is_empty() {
            self.write_run()?;
        }
        let Some(file) = self.file else {
            self.rows.sort_unstable();
            return Ok(SortedRows::Held {
                bytes: self.bytes,
                rows: self.rows.into_iter(),
            });
        };
        let mut ends = self.runs.split_off(1.min(self.runs.len()));
        let first = self.runs.first().copied().unwrap_or(file.bytes());
        ends.push(file.bytes());
        let starts = std::iter::once(first).chain(ends.clone());
        let file = file.finish()?;
        let runs = starts.zip(&ends);
        let runs = runs.map(|(start, end)| Records::between(file.clone(), start, *end));
        let mut merged = Merged {
            runs: runs.collect(),
            next: BinaryHeap::new(),
            current: Vec::new(),
        };
        for run in 0..merged.runs.len() {
            merged.advance(run)?;
        }
        Ok(SortedRows::Merged(merged))
    }
}

fn record_at(bytes: &[u8], start: usize) -> &[u8] {
    let length = read_u32(&bytes[start..]) as usize;
    &bytes[start + 4..start + 4 + length]
}

/// Rows in their order.
pub(super) enum SortedRows {
    Held {
        bytes: Vec<u8>,
        rows: std::vec::IntoIter<(u64, usize)>,
    },
    Merged(Merged),
}

/// Runs that are merged.
pub(super) struct Merged {
    runs: Vec<Records>,
    /// (row, run, the row's record)
    next: BinaryHeap<Reverse<(u64, usize, Vec<u8>)>>,
    current: Vec<u8>,
}

impl Merged {
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

impl SortedRows {
    /// Puts the next row's outcomes into `outcomes`, at these places; false at the end.
    pub(super) fn read_into(
        &mut self,
        places: &[usize],
        outcomes: &mut [Outcome],
    ) -> Result<bool, Problem> {
        let record = match self {
            Self::Held { bytes, rows } => rows.next().map(|(_, start)| record_at(bytes, start)),
            Self::Merged(merged) => merged.next()?,
        };
        let Some(record) = record else {
            return Ok(false);
        };
        let mut rest = record.get(8..).unwrap_or_default();
        for place in places {
            outcomes[*place] = decode(&mut rest)?;
        }
        Ok(true)
    }
}

fn encode(out: &mut Vec<u8>, outcome: &Outcome) {
    let (kind, eight) = match &outcome.value {
        Value::Null => (Kind::Null, None),
        Value::Int(v) => (Kind::Int, Some(v.to_le_bytes())),
        Value::Float(v) => (Kind::Float, Some(v.to_le_bytes())),
        _ => (Kind::Encoded, None),
    };
    let status = STATUSES.iter().position(|s| *s == outcome.status);
    let timed = if outcome.event_time.is_some() {
        TIMED
    } else {
        0
    };
    out.push(status.unwrap_or(0) as u8 | timed | (kind as u8) << 4);
    out.extend(eight.iter().flatten());
    out.extend(outcome.event_time.iter().flat_map(|t| t.to_le_bytes()));
    if matches!(kind, Kind::Encoded) {
        encode_value(out, &outcome.value);
    }
}

fn decode(bytes: &mut &[u8]) -> Result<Outcome, Problem> {
    let torn = || Problem::internal("sweep", "a row can't be read back");
    let (first, rest) = bytes.split_first().ok_or_else(torn)?;
    *bytes = rest;
    let mut eight = || {
        let (eight, rest) = bytes.split_first_chunk::<8>()?;
        *bytes = rest;
        Some(*eight)
    };
    const INT: u8 = Kind::Int as u8;
    const FLOAT: u8 = Kind::Float as u8;
    let kind = first >> 4;
    let value = match kind {
        INT => Value::Int(i64::from_le_bytes(eight().ok_or_else(torn)?)),
        FLOAT => Value::Float(f64::from_le_bytes(eight().ok_or_else(torn)?)),
        _ => Value::Null,
    };
    let event_time = match first & TIMED {
        0 => None,
        _ => Some(i64::from_le_bytes(eight().ok_or_else(torn)?)),
    };
    let value = match kind == Kind::Encoded as u8 {
        true => decode_value(bytes)?,
        false => value,
    };
    let status = STATUSES.get(usize::from(first & 7));
    Ok(Outcome {
        value,
        status: *status.ok_or_else(torn)?,
        event_time,
    })
}
