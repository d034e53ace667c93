//! The entries of the index as bytes.

use headwater_schema::Position;

use super::KnownId;
use super::gathered::Removal;

pub(crate) fn encode_known(known: &KnownId) -> Vec<u8> {
    let parts = [
        known.sequence,
        known.payload,
        known.ingest_time as u64,
        known.older,
    ];
    parts.iter().flat_map(|part| part.to_be_bytes()).collect()
}

pub(crate) fn decode_known(bytes: &[u8]) -> Option<KnownId> {
    let number = |at: usize| {
        let part = bytes.get(at..at + 8)?;
        Some(u64::from_be_bytes(part.try_into().ok()?))
    };
    Some(KnownId {
        sequence: number(0)?,
        payload: number(8)?,
        ingest_time: number(16)? as i64,
        // Entries of older versions end here.
        older: number(24).unwrap_or(0),
    })
}

pub(crate) fn encode_positions(positions: &[Position]) -> Vec<u8> {
    let mut out = Vec::with_capacity(positions.len() * 6);
    let (mut time, mut sequence) = (0i64, 0u64);
    for position in positions {
        put(&mut out, zigzag(position.event_time.wrapping_sub(time)));
        put(
            &mut out,
            zigzag(position.sequence.wrapping_sub(sequence) as i64),
        );
        (time, sequence) = (position.event_time, position.sequence);
    }
    out
}

pub(crate) fn decode_positions(mut bytes: &[u8], found: &mut Vec<Position>) {
    let (mut time, mut sequence) = (0i64, 0u64);
    while let (Some(a), Some(b)) = (get(&mut bytes), get(&mut bytes)) {
        time = time.wrapping_add(unzigzag(a));
        sequence = sequence.wrapping_add(unzigzag(b) as u64);
        found.push(Position::new(time, sequence));
    }
}

pub(crate) fn encode_removals(removals: &[Removal]) -> Vec<u8> {
    let mut out = Vec::with_capacity(removals.len() * 6);
    for (sequence, at) in removals {
        put(&mut out, *sequence);
        put(&mut out, at.saturating_sub(*sequence));
    }
    out
}

pub(crate) fn decode_removals(mut bytes: &[u8], found: &mut Vec<Removal>) {
    while let (Some(sequence), Some(after)) = (get(&mut bytes), get(&mut bytes)) {
        found.push((sequence, sequence.saturating_add(after)));
    }
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn get(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (part, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(part & 0x7F) << shift;
        if part & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
