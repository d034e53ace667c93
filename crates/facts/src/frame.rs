//! Frames: the records of a segment, each with its length and a checksum over all of it.
//!
//! ```text
//! u32 mark "HWF1" | u32 length of what follows the checksum | u32 CRC-32 | u8 kind | payload
//! ```
//!
//! The mark lets a reader that met damage find out whether whole frames follow it: if they do, the
//! damage isn't a torn end, and nothing may be cut off.

use std::sync::Arc;

use headwater_schema::codec::{decode_batch, encode_batch};
use headwater_schema::{FactBatch, Micros, Problem, Sequence, SequencedBatch};

use crate::QuarantinedRow;

const MARK: [u8; 4] = *b"HWF1";
/// Bytes before the kind.
pub const HEADER_BYTES: usize = 12;
/// The longest frame; a greater length is damage.
pub const FRAME_BYTES_MAX: usize = 1 << 30;
/// No byte of lz4 stands for more bytes than this.
const COMPRESSION_MAX: usize = 256;
/// Payloads below this aren't worth compressing.
const COMPRESS_BYTES_MIN: usize = 256;

const FACTS: u8 = 1;
const FACTS_COMPRESSED: u8 = 2;
const QUARANTINE: u8 = 3;

/// What a frame holds.
#[derive(Debug, Clone)]
pub enum Frame {
    Facts(Arc<SequencedBatch>),
    Quarantine(Vec<QuarantinedRow>),
}

impl Frame {
    /// The first sequence that the frame takes; none where it takes none.
    pub fn first_sequence(&self) -> Option<Sequence> {
        match self {
            Self::Facts(batch) => Some(batch.first_sequence),
            Self::Quarantine(_) => None,
        }
    }
}

/// Why bytes are no frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damage {
    /// The bytes end before the frame does.
    Short,
    NoMark,
    Length(usize),
    Checksum {
        stored: u32,
        actual: u32,
    },
    /// A segment begins with another sequence than its name says.
    FirstSequence(Sequence),
    /// A whole record that doesn't belong where it stands.
    Sequence {
        expected: Sequence,
        found: Sequence,
    },
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Short => f.write_str("the file ends inside a record"),
            Self::NoMark => f.write_str("no record begins here"),
            Self::Length(length) => write!(f, "a record of {length} bytes is impossible"),
            Self::FirstSequence(found) => {
                write!(f, "the file begins with sequence {found}, unlike its name")
            }
            Self::Sequence { expected, found } => {
                write!(
                    f,
                    "the record of sequence {found} stands where {expected} is due"
                )
            }
            Self::Checksum { stored, actual } => {
                write!(f, "the checksum is {actual:08x}, stored is {stored:08x}")
            }
        }
    }
}

/// The first frame of `bytes` as (kind and payload, whole length).
pub fn split(bytes: &[u8]) -> Result<(&[u8], usize), Damage> {
    let (header, rest) = bytes
        .split_first_chunk::<HEADER_BYTES>()
        .ok_or(Damage::Short)?;
    let [a, b, c, d, l0, l1, l2, l3, c0, c1, c2, c3] = *header;
    if [a, b, c, d] != MARK {
        return Err(Damage::NoMark);
    }
    let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    if length == 0 || length > FRAME_BYTES_MAX {
        return Err(Damage::Length(length));
    }
    let body = rest.get(..length).ok_or(Damage::Short)?;
    let stored = u32::from_le_bytes([c0, c1, c2, c3]);
    let actual = checksum(length, body);
    if stored != actual {
        return Err(Damage::Checksum { stored, actual });
    }
    Ok((body, HEADER_BYTES + length))
}

/// Whether a whole frame begins anywhere in `bytes`.
pub fn any_within(bytes: &[u8]) -> bool {
    bytes
        .windows(MARK.len())
        .enumerate()
        .filter(|(_, window)| *window == MARK)
        .any(|(at, _)| split(&bytes[at..]).is_ok())
}

fn checksum(length: usize, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&(length as u32).to_le_bytes());
    hasher.update(body);
    hasher.finalize()
}

fn put(out: &mut Vec<u8>, kind: u8, parts: &[&[u8]]) {
    let length = 1 + parts.iter().map(|p| p.len()).sum::<usize>();
    out.extend(MARK);
    out.extend((length as u32).to_le_bytes());
    let checksum_at = out.len();
    out.extend([0; 4]);
    out.push(kind);
    parts.iter().for_each(|part| out.extend_from_slice(part));
    let checksum = checksum(length, &out[checksum_at + 4..]);
    out[checksum_at..checksum_at + 4].copy_from_slice(&checksum.to_le_bytes());
}

/// Appends a frame of facts.
pub fn put_facts(
    out: &mut Vec<u8>,
    first_sequence: Sequence,
    ingest_time: Micros,
    batch: &FactBatch,
) {
    let encoded = encode_batch(batch);
    let header = [first_sequence.to_le_bytes(), ingest_time.to_le_bytes()].concat();
    if encoded.len() >= COMPRESS_BYTES_MIN {
        let compressed = lz4_flex::compress_prepend_size(&encoded);
        if compressed.len() < encoded.len() - encoded.len() / 8 {
            return put(out, FACTS_COMPRESSED, &[&header, &compressed]);
        }
    }
    put(out, FACTS, &[&header, &encoded]);
}

/// Appends a frame of rejected rows.
pub fn put_quarantine(out: &mut Vec<u8>, rows: &[QuarantinedRow]) -> Result<(), Problem> {
    let payload = serde_json::to_vec(rows)
        .map_err(|e| Problem::internal("quarantine", "rows can't be written down").detail(e))?;
    put(out, QUARANTINE, &[&payload]);
    Ok(())
}

/// The content of a frame from its kind and payload.
pub fn decode(body: &[u8]) -> Result<Frame, Problem> {
    let unreadable = |detail: &dyn std::fmt::Display| {
        Problem::external("log-corrupt", "a record of the log can't be read").detail(detail)
    };
    let (kind, payload) = body
        .split_first()
        .ok_or_else(|| unreadable(&"it is empty"))?;
    if *kind == QUARANTINE {
        let rows = serde_json::from_slice(payload).map_err(|e| unreadable(&e))?;
        return Ok(Frame::Quarantine(rows));
    }
    let (header, encoded) = payload
        .split_first_chunk::<16>()
        .ok_or_else(|| unreadable(&"it is too short"))?;
    let (first, time) = header.split_at(8);
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |n, b| n << 8 | u64::from(*b));
    let decompressed;
    let encoded = match *kind {
        FACTS => encoded,
        FACTS_COMPRESSED => {
            let size = encoded
                .first_chunk::<4>()
                .map_or(0, |b| u32::from_le_bytes(*b) as usize);
            if size > FRAME_BYTES_MAX.min(encoded.len().saturating_mul(COMPRESSION_MAX)) {
                return Err(unreadable(&format!("it would unpack to {size} bytes")));
            }
            decompressed =
                lz4_flex::decompress_size_prepended(encoded).map_err(|e| unreadable(&e))?;
            &decompressed
        }
        other => {
            return Err(unreadable(&format!(
                "its kind {other} is unknown to this version"
            )));
        }
    };
    Ok(Frame::Facts(Arc::new(SequencedBatch {
        first_sequence: number(first),
        ingest_time: number(time) as i64,
        batch: decode_batch(encoded)?,
    })))
}
