//! Frames: the records of a segment, each with its length and a checksum over all of it.
//!
//! ```text
//! u32 mark "HWF1" | u32 length of what follows the checksum | u32 CRC-32 | u8 kind | payload
//! ```
//!
//! A kind that a version doesn't know is an error that says so: new kinds need no new format of
//! segments, and logs without them are read by every version.
//!
//! The mark lets a reader that met damage find the frames behind it, which tell whether it is a torn end
//! (see [`crate::group`]).

use std::sync::Arc;

use headwater_schema::codec::{decode_batch, encode_batch};
use headwater_schema::{FactBatch, Micros, Problem, RemovedFacts, Sequence, SequencedBatch};
use serde::{Deserialize, Serialize};

use crate::group::{self, GroupMark};
use crate::{Fault, QuarantinedRow};

pub const MARK: [u8; 4] = *b"HWF1";
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
/// Compressed: `u32` length and JSON of a [`CorrectionHeader`], then `u32` length and batch of the new
/// facts and of every run of removed ones.
const CORRECTION: u8 = 4;

/// What a frame holds.
#[derive(Debug, Clone)]
pub enum Frame {
    /// New facts under ids of their own.
    Facts(Arc<SequencedBatch>),
    /// Facts that replace others, facts taken back, or facts under an id that lives already.
    Correction(Arc<Correction>),
    Quarantine(Vec<QuarantinedRow>),
    /// Others belong together with it.
    Group(GroupMark),
}

/// A batch that does more than add facts; it may take no sequence at all.
#[derive(Debug, Clone)]
pub struct Correction {
    pub batch: Arc<SequencedBatch>,
    /// New and removed facts, by ascending sequence, with the live fact of the same id that was newest
    /// before them, where there was one.
    pub older: Vec<(Sequence, Sequence)>,
    /// What became of rows of the contract that were in quarantine.
    pub verdicts: Vec<Verdict>,
}

/// What became of a row in quarantine when it was tried again.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Verdict {
    pub row: u64,
    /// How it broke its contract again; none: it is a fact.
    pub fault: Option<Fault>,
}

#[derive(Serialize, Deserialize)]
struct CorrectionHeader {
    first_sequence: Sequence,
    ingest_time: Micros,
    older: Vec<(Sequence, Sequence)>,
    /// (sequences, removed at) of each run.
    removed: Vec<(Vec<Sequence>, Vec<Sequence>)>,
    #[serde(default)]
    verdicts: Vec<Verdict>,
}

impl Frame {
    /// Its facts, where it has any.
    pub fn batch(&self) -> Option<&Arc<SequencedBatch>> {
        match self {
            Self::Facts(batch) => Some(batch),
            Self::Correction(correction) => Some(&correction.batch),
            Self::Quarantine(_) | Self::Group(_) => None,
        }
    }

    /// The first sequence that the frame takes; none where it takes none.
    pub fn first_sequence(&self) -> Option<Sequence> {
        let batch = self.batch().filter(|batch| !batch.is_empty());
        batch.map(|batch| batch.first_sequence)
    }

    /// What it says of rows in quarantine.
    pub fn verdicts(&self) -> &[Verdict] {
        match self {
            Self::Correction(correction) => &correction.verdicts,
            _ => &[],
        }
    }

    /// The live fact that had the same id before a fact of this frame; 0 for none.
    pub fn older(&self, sequence: Sequence) -> Sequence {
        match self {
            Self::Correction(correction) => {
                let pairs = &correction.older;
                let found = pairs.binary_search_by_key(&sequence, |(newer, _)| *newer);
                found.map_or(0, |at| pairs[at].1)
            }
            _ => 0,
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
    /// A record without the group that it belongs to, or a group within another.
    Alone,
    /// A group that says it stands elsewhere.
    Place(u64),
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
            Self::Alone => f.write_str("a record stands apart from its group"),
            Self::Place(place) => write!(f, "the group of byte {place} stands here"),
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

fn checksum(length: usize, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&(length as u32).to_le_bytes());
    hasher.update(body);
    hasher.finalize()
}

/// Appends a frame of a kind.
pub fn put(out: &mut Vec<u8>, kind: u8, parts: &[&[u8]]) {
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

/// Appends a frame.
pub fn put_frame(out: &mut Vec<u8>, frame: &Frame) -> Result<(), Problem> {
    match frame {
        Frame::Facts(batch) => put_facts(out, batch),
        Frame::Correction(correction) => put_correction(out, correction)?,
        Frame::Quarantine(rows) => {
            put(out, QUARANTINE, &[&json(rows)?]);
        }
        Frame::Group(mark) => out.extend(mark.to_frame()),
    }
    Ok(())
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, Problem> {
    serde_json::to_vec(value)
        .map_err(|e| Problem::internal("log-record", "a record can't be written down").detail(e))
}

fn put_facts(out: &mut Vec<u8>, batch: &SequencedBatch) {
    let encoded = encode_batch(&batch.batch);
    let header = [
        batch.first_sequence.to_le_bytes(),
        batch.ingest_time.to_le_bytes(),
    ];
    let header = header.concat();
    if encoded.len() >= COMPRESS_BYTES_MIN {
        let compressed = lz4_flex::compress_prepend_size(&encoded);
        if compressed.len() < encoded.len() - encoded.len() / 8 {
            return put(out, FACTS_COMPRESSED, &[&header, &compressed]);
        }
    }
    put(out, FACTS, &[&header, &encoded]);
}

fn put_correction(out: &mut Vec<u8>, correction: &Correction) -> Result<(), Problem> {
    let batch = &correction.batch;
    let removed = batch.removed.iter();
    let header = CorrectionHeader {
        first_sequence: batch.first_sequence,
        ingest_time: batch.ingest_time,
        older: correction.older.clone(),
        removed: removed
            .map(|r| (r.sequences.clone(), r.removed_at.clone()))
            .collect(),
        verdicts: correction.verdicts.clone(),
    };
    let mut parts = vec![json(&header)?, encode_batch(&batch.batch)];
    parts.extend(batch.removed.iter().map(|r| encode_batch(&r.facts)));
    let mut payload = Vec::new();
    for part in parts {
        payload.extend((part.len() as u32).to_le_bytes());
        payload.extend(part);
    }
    put(
        out,
        CORRECTION,
        &[&lz4_flex::compress_prepend_size(&payload)],
    );
    Ok(())
}

fn unreadable(detail: impl std::fmt::Display) -> Problem {
    Problem::external("log-corrupt", "a record of the log can't be read").detail(detail)
}

/// The content of a frame from its kind and payload.
pub fn decode(body: &[u8]) -> Result<Frame, Problem> {
    let (kind, payload) = body
        .split_first()
        .ok_or_else(|| unreadable("it is empty"))?;
    match *kind {
        QUARANTINE => {
            let rows = serde_json::from_slice(payload).map_err(unreadable)?;
            Ok(Frame::Quarantine(rows))
        }
        CORRECTION => decode_correction(&decompress(payload)?),
        group::KIND => GroupMark::read(body)
            .map(Frame::Group)
            .ok_or_else(|| unreadable("it is no group")),
        FACTS | FACTS_COMPRESSED => {
            let (header, encoded) = payload
                .split_first_chunk::<16>()
                .ok_or_else(|| unreadable("it is too short"))?;
            let (first, time) = header.split_at(8);
            let batch = match *kind {
                FACTS => decode_batch(encoded)?,
                _ => decode_batch(&decompress(encoded)?)?,
            };
            Ok(Frame::Facts(Arc::new(SequencedBatch {
                first_sequence: number(first),
                ingest_time: number(time) as i64,
                batch,
                removed: Vec::new(),
            })))
        }
        other => Err(unreadable(format!(
            "its kind {other} is unknown to this version"
        ))),
    }
}

/// A little-endian number.
pub fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b))
}

fn decompress(compressed: &[u8]) -> Result<Vec<u8>, Problem> {
    let size = compressed
        .first_chunk::<4>()
        .map_or(0, |b| u32::from_le_bytes(*b) as usize);
    if size > FRAME_BYTES_MAX.min(compressed.len().saturating_mul(COMPRESSION_MAX)) {
        return Err(unreadable(format!("it would unpack to {size} bytes")));
    }
    lz4_flex::decompress_size_prepended(compressed).map_err(unreadable)
}

fn decode_correction(mut payload: &[u8]) -> Result<Frame, Problem> {
    let mut part = || {
        let short = || unreadable("it is too short");
        let (length, rest) = payload.split_first_chunk::<4>().ok_or_else(short)?;
        let length = u32::from_le_bytes(*length) as usize;
        let (part, rest) = rest.split_at_checked(length).ok_or_else(short)?;
        payload = rest;
        Ok::<&[u8], Problem>(part)
    };
    let header: CorrectionHeader = serde_json::from_slice(part()?).map_err(unreadable)?;
    let batch: FactBatch = decode_batch(part()?)?;
    let mut removed = Vec::with_capacity(header.removed.len());
    for (sequences, removed_at) in header.removed {
        let facts = decode_batch(part()?)?;
        if facts.len() != sequences.len() || facts.len() != removed_at.len() {
            return Err(unreadable("its removed facts don't have a sequence each"));
        }
        removed.push(RemovedFacts {
            facts,
            sequences,
            removed_at,
        });
    }
    Ok(Frame::Correction(Arc::new(Correction {
        batch: Arc::new(SequencedBatch {
            first_sequence: header.first_sequence,
            ingest_time: header.ingest_time,
            batch,
            removed,
        }),
        older: header.older,
        verdicts: header.verdicts,
    })))
}
