//! A state as bytes, for checkpoints and for states that live on disk. The first byte is the
//! version of the format. Partials of sealed blocks aren't stored: they are made again from the facts.

use headwater_schema::codec::{decode_value, encode_value};
use headwater_schema::{Position, Value};

use self::partial::{get_partial, put_partial};
use super::removed::{Forgotten, Removed};
use super::{BLOCK_ROWS, Base, EntityState};
use crate::Layout;
use crate::block::Block;
use crate::without::Doubt;

mod partial;

/// Version 1 knew fewer kinds of partial aggregates, version 2 no retractions, and version 3 didn't count the facts of
/// the base; they wrote the rest the same way.
const FORMAT: u8 = 4;
const FORMAT_LEAST: u8 = 1;
const FORMAT_WITH_RETRACTIONS: u8 = 3;
const FORMAT_WITH_DOUBTS: u8 = 4;
/// No list in a state is longer than this; a greater length in stored bytes is corruption.
const LIST_MAX: u64 = 1 << 32;

/// Stored bytes that are no state of the layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Corrupt(pub &'static str);

impl EntityState {
    /// Appends the state's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(FORMAT);
        put(out, self.applied);
        put(out, self.retracted);
        put_position(out, self.forgotten.newest);
        put(out, self.forgotten.removed_at);
        match &self.base {
            None => out.push(0),
            Some(base) => {
                out.push(1);
                put_position(out, base.newest);
                put(out, base.sequence_max);
                put(out, base.partials.len() as u64);
                base.partials.iter().for_each(|p| put_partial(out, p));
                put(out, base.facts.map_or(0, |facts| facts.saturating_add(1)));
                put(out, base.doubts.len() as u64);
                for (slot, doubt) in &base.doubts {
                    put(out, *slot as u64);
                    put_position(out, doubt.position);
                    encode_value(out, doubt.category.as_ref().unwrap_or(&Value::Null));
                }
            }
        }
        put(out, self.len() as u64);
        let (mut time, mut sequence) = (0i64, 0u64);
        for block in self.blocks() {
            for row in 0..block.len() {
                let position = block.position(row);
                put_signed(out, position.event_time.wrapping_sub(time));
                put_signed(out, position.sequence.wrapping_sub(sequence) as i64);
                (time, sequence) = (position.event_time, position.sequence);
            }
        }
        for block in self.blocks() {
            for row in 0..block.len() {
                block
                    .values(row)
                    .for_each(|value| encode_value(out, &value));
            }
        }
        put(out, self.removed.len() as u64);
        for removed in &self.removed {
            put_position(out, removed.position);
            put(out, removed.removed_at);
            removed.values.iter().for_each(|v| encode_value(out, v));
        }
    }

    /// The state of bytes that [`EntityState::encode`] gave for the same layout.
    pub fn decode(layout: &Layout, bytes: &[u8]) -> Result<Self, Corrupt> {
        let input = &mut &bytes[..];
        let format = byte(input)?;
        if !(FORMAT_LEAST..=FORMAT).contains(&format) {
            return Err(Corrupt("the format's version is unknown"));
        }
        let applied = get(input)?;
        let (retracted, forgotten) = match format {
            ..FORMAT_WITH_RETRACTIONS => (applied, Forgotten::NOTHING),
            _ => {
                let retracted = get(input)?;
                let newest = get_position(input)?;
                let removed_at = get(input)?;
                (retracted, Forgotten { newest, removed_at })
            }
        };
        let base = match byte(input)? {
            0 => None,
            _ => Some(Box::new(get_base(layout, format, input)?)),
        };
        let rows = get_length(input)?;
        let mut positions = Vec::with_capacity(rows.min(input.len()));
        let (mut time, mut sequence) = (0i64, 0u64);
        for _ in 0..rows {
            time = time.wrapping_add(get_signed(input)?);
            sequence = sequence.wrapping_add(get_signed(input)? as u64);
            positions.push(Position::new(time, sequence));
        }
        if !positions.is_sorted() {
            return Err(Corrupt("the facts are out of order"));
        }
        let mut state = Self {
            base,
            applied,
            retracted,
            forgotten,
            ..Self::new(layout)
        };
        for position in positions {
            let values = get_values(layout, input)?;
            let at = state.tail.len();
            state.tail.insert_values(at, position, values.into_iter());
            if state.tail.len() >= BLOCK_ROWS {
                state.seal(layout);
            }
        }
        for _ in 0..get_length(input)? {
            state.removed.push(Removed {
                position: get_position(input)?,
                removed_at: get(input)?,
                values: get_values(layout, input)?,
            });
        }
        if !input.is_empty() {
            return Err(Corrupt("bytes are left over"));
        }
        Ok(state)
    }
}

impl Block {
    fn values(&self, row: usize) -> impl Iterator<Item = Value> {
        (0..self.columns_len()).map(move |column| self.value(column, row))
    }
}

fn get_base(layout: &Layout, format: u8, input: &mut &[u8]) -> Result<Base, Corrupt> {
    let newest = get_position(input)?;
    let sequence_max = get(input)?;
    let count = get_length(input)?;
    if count != 0 && count != layout.slots.len() {
        return Err(Corrupt("the base has another number of slots"));
    }
    let slots = layout.slots.iter().take(count);
    let partials = slots
        .map(|slot| get_partial(slot, input))
        .collect::<Result<_, _>>()?;
    let (facts, doubts) = match format {
        ..FORMAT_WITH_DOUBTS => (None, Vec::new()),
        _ => (get(input)?.checked_sub(1), get_doubts(count, input)?),
    };
    Ok(Base {
        newest,
        sequence_max,
        partials,
        facts,
        doubts,
    })
}

fn get_doubts(slots: usize, input: &mut &[u8]) -> Result<Vec<(usize, Doubt)>, Corrupt> {
    let count = get_length(input)?;
    let doubt = |_| {
        let slot = get_length(input)?;
        if slot >= slots {
            return Err(Corrupt("a doubt is about a slot that isn't there"));
        }
        let position = get_position(input)?;
        let category = Some(get_value(input)?).filter(|category| !category.is_null());
        Ok((slot, Doubt { category, position }))
    };
    (0..count).map(doubt).collect()
}

fn get_values(layout: &Layout, input: &mut &[u8]) -> Result<Vec<Value>, Corrupt> {
    layout.inputs.iter().map(|_| get_value(input)).collect()
}

fn get_value(input: &mut &[u8]) -> Result<Value, Corrupt> {
    decode_value(input).map_err(|_| Corrupt("a value can't be read"))
}

fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_signed(out: &mut Vec<u8>, value: i64) {
    put(out, ((value << 1) ^ (value >> 63)) as u64);
}

fn put_position(out: &mut Vec<u8>, position: Position) {
    put_signed(out, position.event_time);
    put(out, position.sequence);
}

fn byte(input: &mut &[u8]) -> Result<u8, Corrupt> {
    let (first, rest) = input.split_first().ok_or(Corrupt("the bytes end early"))?;
    *input = rest;
    Ok(*first)
}

fn take<'a>(input: &mut &'a [u8], length: usize) -> Result<&'a [u8], Corrupt> {
    let (taken, rest) = input
        .split_at_checked(length)
        .ok_or(Corrupt("the bytes end early"))?;
    *input = rest;
    Ok(taken)
}

fn get(input: &mut &[u8]) -> Result<u64, Corrupt> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let part = byte(input)?;
        value |= u64::from(part & 0x7F) << shift;
        if part & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Corrupt("a number is too long"))
}

fn get_length(input: &mut &[u8]) -> Result<usize, Corrupt> {
    let length = get(input)?;
    if length > LIST_MAX {
        return Err(Corrupt("a list is too long"));
    }
    Ok(length as usize)
}

fn get_signed(input: &mut &[u8]) -> Result<i64, Corrupt> {
    let value = get(input)?;
    Ok((value >> 1) as i64 ^ -((value & 1) as i64))
}

fn get_position(input: &mut &[u8]) -> Result<Position, Corrupt> {
    Ok(Position::new(get_signed(input)?, get(input)?))
}
