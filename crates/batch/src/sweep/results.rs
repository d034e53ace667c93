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
use super::{Stop, nothing};

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
/// Bytes that are taken from memory at a time; rows never move once they are written.
const ARENA_BYTES: usize = 1 << 20;

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
    stop: Stop,
    held: Arenas,
    rows: Vec<(u64, Place)>,
    file: Option<SpillFile>,
    /// Where the runs start in the file.
    runs: Vec<u64>,
}

impl Results {
    /// Holds about `bytes_max` bytes.
    /// A problem once nobody waits for them any more.
    pub(super) fn check(&self) -> Result<(), Problem> {
        self.stop.check()
    }

    pub(super) fn new(spill: Arc<Spill>, bytes_max: usize, stop: &Stop) -> Self {
        Self {
            spill,
            bytes_max: bytes_max.max(RUN_BYTES_MIN),
            stop: stop.clone(),
            held: Arenas::default(),
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
        self.stop.check()?;
        let place = self.held.record(|bytes| {
            bytes.extend_from_slice(&row.to_le_bytes());
            for outcome in outcomes {
                encode(bytes, outcome);
            }
        });
        self.rows.push((row, place));
        match self.held.bytes + self.rows.len() * size_of::<(u64, Place)>() >= self.bytes_max {
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
        for (_, place) in self.rows.drain(..) {
            let record = self.held.get(place);
            file.record(|out| out.extend_from_slice(record))?;
        }
        self.held = Arenas::default();
        Ok(())
    }

    /// The rows in their order.
    pub(super) fn finish(mut self) -> Result<SortedRows, Problem> {
        if self.file.is_some() && !self.rows.is_empty() {
            self.write_run()?;
        }
        let Some(file) = self.file else {
            return Ok(SortedRows::Held {
                held: self.held,
                places: sorted(self.rows).into_iter(),
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

/// The places of rows in the order of the rows.
fn sorted(mut rows: Vec<(u64, Place)>) -> Vec<Place> {
    let first = rows.iter().map(|(row, _)| *row).min().unwrap_or(0);
    let last = rows.iter().map(|(row, _)| *row).max().unwrap_or(0);
    if last - first != (rows.len() as u64).saturating_sub(1) {
        rows.sort_unstable_by_key(|(row, _)| *row);
        return rows.into_iter().map(|(_, place)| place).collect();
    }
    // None is missing: each says where it stands.
    let mut places = vec![Place::default(); rows.len()];
    for (row, place) in rows {
        places[(row - first) as usize] = place;
    }
    places
}

/// Where a record is held.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    arena: u32,
    start: u32,
}

/// Records, each with its length before it.
#[derive(Default)]
pub(super) struct Arenas {
    arenas: Vec<Vec<u8>>,
    bytes: usize,
}

impl Arenas {
    /// Takes a record that `write` makes.
    fn record(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Place {
        if self.arenas.last().is_none_or(|a| a.len() >= ARENA_BYTES) {
            // The last record of an arena may reach over its end.
            self.arenas
                .push(Vec::with_capacity(ARENA_BYTES + ARENA_BYTES / 16));
        }
        let arena = self.arenas.len() - 1;
        let bytes = &mut self.arenas[arena];
        let start = bytes.len();
        bytes.extend_from_slice(&[0; 4]);
        write(bytes);
        let length = bytes.len() - start - 4;
        bytes[start..start + 4].copy_from_slice(&(length as u32).to_le_bytes());
        self.bytes += length + 4;
        Place {
            arena: arena as u32,
            start: start as u32,
        }
    }

    fn get(&self, place: Place) -> &[u8] {
        let bytes = &self.arenas[place.arena as usize][place.start as usize..];
        let length = read_u32(bytes) as usize;
        &bytes[4..4 + length]
    }
}

/// Rows in their order.
pub(super) enum SortedRows {
    Held {
        held: Arenas,
        places: std::vec::IntoIter<Place>,
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
    /// The next row: `width` outcomes, of which those at `places`, in ascending order, were taken; none at the end.
    pub(super) fn next(
        &mut self,
        places: &[usize],
        width: usize,
    ) -> Result<Option<Vec<Outcome>>, Problem> {
        let record = match self {
            Self::Held { held, places } => places.next().map(|place| held.get(place)),
            Self::Merged(merged) => merged.next()?,
        };
        let Some(record) = record else {
            return Ok(None);
        };
        let mut rest = record.get(8..).unwrap_or_default();
        let mut outcomes = Vec::with_capacity(width);
        for place in places {
            outcomes.resize(*place, nothing());
            outcomes.push(decode(&mut rest)?);
        }
        outcomes.resize(width, nothing());
        Ok(Some(outcomes))
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
    let mut bytes = [0; 17];
    let mut length = 1;
    bytes[0] = status.unwrap_or(0) as u8 | (kind as u8) << 4;
    if let Some(eight) = eight {
        bytes[1..9].copy_from_slice(&eight);
        length = 9;
    }
    if let Some(time) = outcome.event_time {
        bytes[0] |= TIMED;
        bytes[length..length + 8].copy_from_slice(&time.to_le_bytes());
        length += 8;
    }
    out.extend_from_slice(&bytes[..length]);
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
