//! What Parquet files can't hold of a segment: its records in order, each with its facts taken out and
//! a note of where they went, so that records can be put together again as they were.
//!
//! ```text
//! "HWREST" | u8 format | compressed: (u32 length, JSON of a Note | u32 length, record)*
//! ```

use std::sync::Arc;

use arrow::array::RecordBatch;
use headwater_schema::{FactBatch, Problem, SequencedBatch};
use serde::{Deserialize, Serialize};

use super::entry::unreadable;
use crate::frame::{self, Correction, Frame};
use crate::memory::nothing;

const MAGIC: &[u8; 6] = b"HWREST";
const FORMAT: u8 = 1;
/// No byte of lz4 stands for more bytes than this.
const COMPRESSION_MAX: usize = 256;
const UNPACKED_BYTES_MAX: usize = 1 << 31;

/// Where the facts of a record are.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Note {
    /// The columns they have, by number; none where the record holds its facts itself, or has none.
    #[serde(rename = "l", skip_serializing_if = "Option::is_none", default)]
    pub layout: Option<usize>,
    #[serde(rename = "n")]
    pub rows: usize,
    /// Whether they have ids of their own.
    #[serde(rename = "i")]
    pub fact_ids: bool,
    /// Whether some had fields that their contract doesn't know.
    #[serde(rename = "u")]
    pub unknown_fields: bool,
}

/// Records with their facts taken out.
#[derive(Default)]
pub struct RestWriter {
    bytes: Vec<u8>,
}

impl RestWriter {
    /// Takes a record whose facts go where `layout` says.
    pub fn push(&mut self, frame: &Frame, layout: Option<usize>) -> Result<(), Problem> {
        let facts = frame.batch().map(|batch| &batch.batch);
        let note = Note {
            layout,
            rows: facts.map_or(0, FactBatch::len),
            fact_ids: facts.is_some_and(|f| f.fact_ids.is_some()),
            unknown_fields: facts.is_some_and(|f| f.unknown_fields.is_some()),
        };
        let note = serde_json::to_vec(&note).map_err(|e| {
            Problem::internal("archive-entry", "an archive's record can't be written").detail(e)
        })?;
        self.part(&note);
        let mut record = Vec::new();
        match (layout, frame.batch()) {
            (Some(_), Some(batch)) => {
                let empty = nothing(batch.batch.contract.clone());
                frame::put_frame(&mut record, &with_facts(frame, empty))?;
            }
            _ => frame::put_frame(&mut record, frame)?,
        }
        self.part(&record);
        Ok(())
    }

    fn part(&mut self, part: &[u8]) {
        self.bytes.extend((part.len() as u32).to_le_bytes());
        self.bytes.extend(part);
    }

    pub fn into_bytes(self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.push(FORMAT);
        out.extend(lz4_flex::compress_prepend_size(&self.bytes));
        out
    }
}

/// The records that [`RestWriter`] wrote, with notes of where their facts are.
pub fn read_rest(bytes: &[u8]) -> Result<Vec<(Note, Frame)>, Problem> {
    let body = bytes
        .strip_prefix(MAGIC)
        .ok_or_else(|| unreadable("its first bytes are others"))?;
    let (format, packed) = body
        .split_first()
        .ok_or_else(|| unreadable("it is too short"))?;
    if *format != FORMAT {
        return Err(Problem::external(
            "archive-format",
            format!("records of the archive have format {format}"),
        )
        .detail(format!("this version reads format {FORMAT}"))
        .hint("open it with the version of Headwater that wrote it"));
    }
    let size = packed
        .first_chunk::<4>()
        .map_or(0, |b| u32::from_le_bytes(*b) as usize);
    if size > UNPACKED_BYTES_MAX.min(packed.len().saturating_mul(COMPRESSION_MAX)) {
        return Err(unreadable(format!("it would unpack to {size} bytes")));
    }
    let unpacked = lz4_flex::decompress_size_prepended(packed).map_err(unreadable)?;
    let mut rest = unpacked.as_slice();
    let mut records = Vec::new();
    while !rest.is_empty() {
        let note: Note = serde_json::from_slice(part(&mut rest)?).map_err(unreadable)?;
        let (body, _) =
            frame::split(part(&mut rest)?).map_err(|damage| unreadable(damage.to_string()))?;
        records.push((note, frame::decode(body)?));
    }
    Ok(records)
}

fn part<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Problem> {
    let short = || unreadable("it is too short");
    let (length, after) = rest.split_first_chunk::<4>().ok_or_else(short)?;
    let length = u32::from_le_bytes(*length) as usize;
    let (part, after) = after.split_at_checked(length).ok_or_else(short)?;
    *rest = after;
    Ok(part)
}

/// A record with other facts.
pub fn with_facts(frame: &Frame, facts: FactBatch) -> Frame {
    let with = |batch: &SequencedBatch, facts| {
        Arc::new(SequencedBatch {
            batch: facts,
            ..batch.clone()
        })
    };
    match frame {
        Frame::Facts(batch) => Frame::Facts(with(batch, facts)),
        Frame::Correction(correction) => Frame::Correction(Arc::new(Correction {
            batch: with(&correction.batch, facts),
            ..correction.as_ref().clone()
        })),
        Frame::Quarantine(_) | Frame::Group(_) => frame.clone(),
    }
}

/// The facts of a record, as they are read from Parquet: `columns` without those that the archive adds.
pub fn facts(
    frame: &Frame,
    note: &Note,
    columns: RecordBatch,
    added: super::columns::Added,
) -> Option<Frame> {
    let contract = frame.batch()?.batch.contract.clone();
    let facts = FactBatch {
        contract,
        columns,
        event_times: added.event_times,
        fact_ids: note.fact_ids.then_some(added.fact_ids),
        unknown_fields: note.unknown_fields.then_some(added.unknown_fields),
    };
    Some(with_facts(frame, facts))
}
