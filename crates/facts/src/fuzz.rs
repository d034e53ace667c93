//! The log's readers, for fuzzing: bytes in, what was understood out. Behind the feature `fuzz`.

use std::path::Path;
use std::sync::Arc;

use headwater_env::Env;
use headwater_schema::decode::RejectedRow;
use headwater_schema::{FactBatch, Problem, RemovedFacts, SequencedBatch};

use crate::frame::{self, Correction, Frame, HEADER_BYTES, Verdict};
use crate::group::MARK_BYTES;
use crate::{Fault, QuarantineQuery, QuarantinedRow};

const FOLDER: &str = "/log";
const SEGMENT_BYTES_MAX: u64 = u64::MAX;

/// A small log with frames of every kind.
pub struct SampleLog {
    pub segment: Vec<u8>,
    pub sidecar: Vec<u8>,
    /// The kind and payload of each frame.
    pub bodies: Vec<Vec<u8>>,
}

/// Writes a log that holds `batch`, whole and row by row.
pub fn sample_log(batch: &FactBatch) -> SampleLog {
    let (env, _, _) = Env::simulated(0);
    write_sample(&env, batch).unwrap_or_else(|_| SampleLog {
        segment: Vec::new(),
        sidecar: Vec::new(),
        bodies: Vec::new(),
    })
}

fn write_sample(env: &Env, batch: &FactBatch) -> Result<SampleLog, Problem> {
    let folder = Path::new(FOLDER);
    let (mut writer, reader, _) = crate::log::open(env, folder, SEGMENT_BYTES_MAX, None)?;
    let rejected = RejectedRow {
        row: 3,
        field: Some("amount".into()),
        rule: "type".into(),
        reason: "it is no number".into(),
        raw: "{\"amount\":\"x\"}".into(),
    };
    let rejected = QuarantinedRow::new(&batch.contract, &rejected, 7);
    let mut parts = vec![batch.clone()];
    parts.extend((0..batch.len()).map(|row| FactBatch {
        contract: batch.contract.clone(),
        columns: batch.columns.slice(row, 1),
        event_times: vec![batch.event_times[row]],
        fact_ids: batch.fact_ids.as_ref().map(|ids| ids.slice(row, 1)),
        unknown_fields: batch.unknown_fields.as_ref().map(|u| u.slice(row, 1)),
    }));
    let mut bodies = Vec::new();
    let mut next = 1;
    for (index, part) in parts.into_iter().enumerate() {
        let sequenced = SequencedBatch {
            first_sequence: next,
            ingest_time: 10 + index as i64,
            batch: part,
            removed: Vec::new(),
        };
        let kinds = kinds(index, &sequenced, &rejected);
        next = sequenced.last_sequence() + 1;
        let (mut bytes, mut frames) = (vec![0; MARK_BYTES], Vec::new());
        for frame in kinds {
            let before = bytes.len();
            frame::put_frame(&mut bytes, &frame)?;
            frames.push((frame, bytes.len() - before));
        }
        let mut at = MARK_BYTES;
        for (_, length) in &frames {
            if let Ok((body, _)) = frame::split(&bytes[at..]) {
                bodies.push(body.to_vec());
            }
            at += length;
        }
        writer.append(&reader, &mut bytes, &frames, true)?;
        bodies.push(bytes[HEADER_BYTES..MARK_BYTES].to_vec());
    }
    writer.save(&reader)?;
    let read = |name: &str| {
        let read = env.files.read(&folder.join(name));
        read.map_err(|e| Problem::internal("fuzz", "a file isn't there").detail(e))
    };
    Ok(SampleLog {
        segment: read("00000000000000000001.seg")?,
        sidecar: read("00000000000000000001.idx")?,
        bodies,
    })
}

/// The frames of one part: its facts and a rejected row, or a revision of the first fact.
fn kinds(index: usize, sequenced: &SequencedBatch, rejected: &QuarantinedRow) -> Vec<Frame> {
    let next = sequenced.first_sequence;
    let mut kinds = vec![Frame::Facts(Arc::new(sequenced.clone()))];
    if index.is_multiple_of(2) {
        kinds.push(Frame::Quarantine(vec![rejected.clone()]));
    } else {
        let removed = RemovedFacts {
            facts: sequenced.batch.clone(),
            sequences: vec![1],
            removed_at: vec![next],
        };
        let removed = vec![removed];
        kinds[0] = Frame::Correction(Arc::new(Correction {
            batch: Arc::new(SequencedBatch {
                removed,
                ..sequenced.clone()
            }),
            older: vec![(next, 1)],
            verdicts: vec![Verdict {
                row: 1,
                fault: Some(Fault::conflict()),
            }],
        }));
    }
    kinds
}

/// Reads a frame from its kind and payload.
pub fn read_frame(body: &[u8]) -> Result<(), Problem> {
    frame::decode(body).map(drop)
}

/// Opens a log of one segment, as a start after a crash would, and reads everything in it.
pub fn read_log(
    segment: &[u8],
    sidecar: Option<&[u8]>,
) -> Result<Vec<Arc<SequencedBatch>>, Problem> {
    let (env, _, _) = Env::simulated(0);
    let folder = Path::new(FOLDER);
    let write = |name: &str, bytes: &[u8]| {
        let written = env.files.write_atomic(&folder.join(name), bytes);
        written.map_err(|e| Problem::internal("fuzz", "a file can't be written").detail(e))
    };
    write("00000000000000000001.seg", segment)?;
    if let Some(sidecar) = sidecar {
        write("00000000000000000001.idx", sidecar)?;
    }
    let (_, reader, _) = crate::log::open(&env, folder, SEGMENT_BYTES_MAX, None)?;
    reader.quarantined(&QuarantineQuery::waiting("every".into(), usize::MAX))?;
    reader.read(1, usize::MAX)
}
