//! Moments and facts, brought together by entity: in memory while they fit; where they don't, in files, each with the entities
//! of one part of the hashes of all keys, which are then gathered by themselves.

use std::sync::Arc;

use headwater_aggregate::{InputBatch, InputColumn};
use headwater_features::{KeptRows, PreparedFacts, ReadPlan};
use headwater_schema::codec::{decode_value, encode_value};
use headwater_schema::{
    Cursor, DataType, EntityKey, Position, Problem, Sequence, Value, array_from_values,
};
use xxhash_rust::xxh3::xxh3_64;

use super::held::Held;
use super::results::Results;
use crate::spill::{Records, Spill, SpillFile, read_u32};

/// Files that are written side by side. Unit tests have few, so that few entities share one.
const PARTS: usize = if cfg!(test) { 2 } else { 16 };
const PART_BITS: u32 = PARTS.ilog2();
/// How often a part is parted again. The facts of one entity are always held together.
const LEVELS_MAX: u32 = 8;
/// Bits that say which hashes keys have that were asked for; others' facts are left out.
const ASKED_BITS: usize = 1 << 23;
/// Facts that are read back at a time.
const BACK_FACTS: usize = 4096;

const MOMENT: u8 = 1;
const NOBODY: u8 = 2;
const FACT: u8 = 3;
const REMOVED: u8 = 4;

/// Takes moments, then facts; then reads.
pub(super) struct Gathering<'p> {
    plan: &'p ReadPlan,
    spill: Arc<Spill>,
    bytes_max: usize,
    level: u32,
    held: Held,
    parts: Option<Parts>,
}

struct Parts {
    files: Vec<SpillFile>,
    asked: Vec<u64>,
}

impl<'p> Gathering<'p> {
    /// Holds about `bytes_max` bytes.
    pub(super) fn new(plan: &'p ReadPlan, spill: Arc<Spill>, bytes_max: usize) -> Self {
        Self {
            plan,
            spill,
            bytes_max,
            level: 0,
            held: Held::default(),
            parts: None,
        }
    }

    /// Takes the moment that row `row` asks for.
    pub(super) fn moment(
        &mut self,
        row: u64,
        key: Option<&[u8]>,
        cursor: &Cursor,
    ) -> Result<(), Problem> {
        match &mut self.parts {
            Some(parts) => parts.moment(self.level, row, key, cursor)?,
            None => self.held.moment(row, key, cursor),
        }
        self.part_when_full()
    }

    /// The entities that moments ask for, where there are no more than `most`.
    pub(super) fn few(&self, most: usize) -> Option<Vec<EntityKey>> {
        let few = self.parts.is_none() && self.held.entities() <= most;
        few.then(|| {
            let keys = self.held.keys().into_iter();
            keys.map(EntityKey::from_bytes).collect()
        })
    }

    /// Takes facts of the view's next source, or more of the same.
    pub(super) fn facts(&mut self, facts: PreparedFacts) -> Result<(), Problem> {
        let (keys, facts) = facts.into_parts();
        self.facts_with(|row| keys.get(row), facts)
    }

    fn facts_with<'k>(
        &mut self,
        key: impl Fn(usize) -> &'k [u8],
        facts: InputBatch,
    ) -> Result<(), Problem> {
        match &mut self.parts {
            Some(parts) => {
                for row in 0..facts.sequences.len() {
                    parts.fact(self.level, key(row), &facts, row)?;
                }
            }
            None => self.held.facts(key, facts)?,
        }
        self.part_when_full()
    }

    /// Takes facts that count no longer, and since when.
    pub(super) fn removed(&mut self, kept: &KeptRows, since: &[Sequence]) -> Result<(), Problem> {
        for (row, since) in since.iter().enumerate() {
            let (key, position) = (kept.key(row), kept.position(row));
            match &mut self.parts {
                Some(parts) => parts.removed(self.level, key, position, *since)?,
                None => self.held.removed(key, position, *since),
            }
        }
        self.part_when_full()
    }

    fn part_when_full(&mut self) -> Result<(), Problem> {
        let splits = self.level < LEVELS_MAX && self.held.entities() > 1;
        if self.parts.is_some() || self.held.bytes() <= self.bytes_max || !splits {
            return Ok(());
        }
        let files = (0..PARTS).map(|_| self.spill.file());
        let mut parts = Parts {
            files: files.collect::<Result<_, _>>()?,
            asked: vec![0; ASKED_BITS / 64],
        };
        let (held, level) = (std::mem::take(&mut self.held), self.level);
        for (row, key, cursor) in held.each_moment() {
            parts.moment(level, row, key, cursor)?;
        }
        for (key, facts, row) in held.each_fact() {
            parts.fact(level, key, facts, row)?;
        }
        for (key, position, since) in held.each_removed() {
            parts.removed(level, key, position, since)?;
        }
        self.parts = Some(parts);
        Ok(())
    }

    /// Reads the plan's features at every moment.
    pub(super) fn read(self, results: &mut Results) -> Result<(), Problem> {
        let Some(parts) = self.parts else {
            return self.held.read(self.plan, results);
        };
        // All are closed before the first is read, which may be parted again.
        let files = parts.files.into_iter().map(SpillFile::finish);
        let files = files.collect::<Result<Vec<_>, _>>()?;
        for file in files {
            results.settle()?;
            let mut part = Self {
                level: self.level + 1,
                ..Self::new(self.plan, self.spill.clone(), self.bytes_max)
            };
            part.take_back(Records::all(file))?;
            part.read(results)?;
        }
        Ok(())
    }

    /// Takes the records of a part.
    fn take_back(&mut self, mut records: Records) -> Result<(), Problem> {
        let mut back = Back::default();
        while let Some(record) = records.next()? {
            let torn = || Problem::internal("sweep", "a record can't be read back");
            let (kind, mut rest) = record.split_first().ok_or_else(torn)?;
            let rest = &mut rest;
            match *kind {
                MOMENT | NOBODY => {
                    let (row, cursor) = take_moment(rest).ok_or_else(torn)?;
                    let key = (*kind == MOMENT).then_some(*rest);
                    self.moment(row, key, &cursor)?;
                }
                FACT => {
                    back.push(rest).ok_or_else(torn)??;
                    if back.len() >= BACK_FACTS {
                        self.give_back(&mut back)?;
                    }
                }
                REMOVED => {
                    let position = take_position(rest).ok_or_else(torn)?;
                    let since = take_u64(rest).ok_or_else(torn)?;
                    match &mut self.parts {
                        Some(parts) => parts.removed(self.level, rest, position, since)?,
                        None => self.held.removed(rest, position, since),
                    }
                    self.part_when_full()?;
                }
                _ => return Err(torn()),
            }
        }
        self.give_back(&mut back)
    }

    fn give_back(&mut self, back: &mut Back) -> Result<(), Problem> {
        let (keys, facts) = std::mem::take(back).finish(&self.plan.view().layout.inputs)?;
        self.facts_with(|row| &keys[row], facts)
    }
}

impl Parts {
    fn file(&mut self, level: u32, hash: u64) -> &mut SpillFile {
        let part = (hash >> (PART_BITS * level)) as usize % PARTS;
        &mut self.files[part]
    }

    fn moment(
        &mut self,
        level: u32,
        row: u64,
        key: Option<&[u8]>,
        cursor: &Cursor,
    ) -> Result<(), Problem> {
        let hash = xxh3_64(key.unwrap_or_default());
        let (word, bit) = asked(hash);
        self.asked[word] |= bit;
        self.file(level, hash).record(|out| {
            out.push(if key.is_some() { MOMENT } else { NOBODY });
            out.extend(row.to_le_bytes());
            out.extend(cursor.as_of.to_le_bytes());
            put_position(out, cursor.until);
            out.extend(cursor.known_at.to_le_bytes());
            out.extend_from_slice(key.unwrap_or_default());
        })
    }

    fn fact(
        &mut self,
        level: u32,
        key: &[u8],
        facts: &InputBatch,
        row: usize,
    ) -> Result<(), Problem> {
        let hash = xxh3_64(key);
        let (word, bit) = asked(hash);
        if self.asked[word] & bit == 0 {
            return Ok(());
        }
        self.file(level, hash).record(|out| {
            out.push(FACT);
            put_position(out, facts.position(row));
            out.extend((key.len() as u32).to_le_bytes());
            out.extend_from_slice(key);
            for column in &facts.columns {
                encode_value(out, &column.get(row));
            }
        })
    }

    fn removed(
        &mut self,
        level: u32,
        key: &[u8],
        position: Position,
        since: Sequence,
    ) -> Result<(), Problem> {
        self.file(level, xxh3_64(key)).record(|out| {
            out.push(REMOVED);
            put_position(out, position);
            out.extend(since.to_le_bytes());
            out.extend_from_slice(key);
        })
    }
}

/// The word and the bit in it that stand for a hash.
fn asked(hash: u64) -> (usize, u64) {
    let bit = (hash >> 32) as usize % ASKED_BITS;
    (bit / 64, 1 << (bit % 64))
}

type Keys = Vec<Box<[u8]>>;

/// Facts that come back from a file.
#[derive(Default)]
struct Back {
    keys: Keys,
    positions: Vec<Position>,
    values: Vec<Value>,
}

impl Back {
    fn len(&self) -> usize {
        self.keys.len()
    }

    fn push(&mut self, rest: &mut &[u8]) -> Option<Result<(), Problem>> {
        let position = take_position(rest)?;
        let length = read_u32(rest) as usize;
        let (key, values) = rest.get(4..)?.split_at_checked(length)?;
        self.keys.push(key.into());
        self.positions.push(position);
        *rest = values;
        while !rest.is_empty() {
            match decode_value(rest) {
                Ok(value) => self.values.push(value),
                Err(problem) => return Some(Err(problem)),
            }
        }
        Some(Ok(()))
    }

    /// The facts, with the keys of their entities beside them.
    fn finish(mut self, inputs: &[DataType]) -> Result<(Keys, InputBatch), Problem> {
        let column = |(index, data_type)| {
            let values = self.values.iter().skip(index).step_by(inputs.len());
            Ok(InputColumn::new(&array_from_values(data_type, values)?))
        };
        let columns = inputs.iter().enumerate().map(column);
        let columns = columns.collect::<Result<_, Problem>>()?;
        let facts = InputBatch {
            event_times: self.positions.iter().map(|p| p.event_time).collect(),
            sequences: self.positions.iter().map(|p| p.sequence).collect(),
            columns,
        };
        Ok((std::mem::take(&mut self.keys), facts))
    }
}

fn put_position(out: &mut Vec<u8>, position: Position) {
    out.extend(position.event_time.to_le_bytes());
    out.extend(position.sequence.to_le_bytes());
}

fn take_u64(bytes: &mut &[u8]) -> Option<u64> {
    let (eight, rest) = bytes.split_first_chunk::<8>()?;
    *bytes = rest;
    Some(u64::from_le_bytes(*eight))
}

fn take_position(bytes: &mut &[u8]) -> Option<Position> {
    let event_time = take_u64(bytes)?.cast_signed();
    Some(Position::new(event_time, take_u64(bytes)?))
}

fn take_moment(bytes: &mut &[u8]) -> Option<(u64, Cursor)> {
    let row = take_u64(bytes)?;
    let cursor = Cursor {
        as_of: take_u64(bytes)?.cast_signed(),
        until: take_position(bytes)?,
        known_at: take_u64(bytes)?,
    };
    Some((row, cursor))
}
