//! The log's readers, for fuzzing: bytes in, what was understood out. Behind the feature `fuzz`.

use std::path::Path;
use std::sync::Arc;

use headwater_env::Env;
use headwater_schema::decode::RejectedRow;
use headwater_schema::{FactBatch, Position, Problem, RemovedFacts, SequencedBatch};

use crate::archive::entry::{ArchivedFile, ArchivedObject, Entry, FORMAT, Identity};
use crate::archive::rest::{RestWriter, read_rest};
use crate::frame::{self, Correction, Frame, HEADER_BYTES, Verdict};
use crate::group::MARK_BYTES;
use crate::index::KnownId;
use crate::index::entries;
use crate::segment::Segment;
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

/// What an archive keeps of a segment beside its Parquet files: its entry, and its records without their facts.
pub fn sample_archive(batch: &FactBatch) -> Result<(Vec<u8>, Vec<u8>), Problem> {
    let mut rest = RestWriter::default();
    for body in sample_log(batch).bodies {
        let frame = frame::decode(&body)?;
        let layout = matches!(&frame, Frame::Facts(_)).then_some(0);
        rest.push(&frame, layout)?;
    }
    let rest = rest.into_bytes();
    let object = |path: &str| ArchivedObject {
        path: path.to_owned(),
        bytes: rest.len() as u64,
        checksum: 7,
    };
    let file = |day| ArchivedFile {
        contract: batch.contract.to_string(),
        day,
        layout: 0,
        object: object("contract=every/day=2026-01-31/1-0.parquet"),
        rows: batch.len() as u64,
        first_sequence: 1,
        last_sequence: batch.len() as u64,
        time_min: 0,
        time_max: 1,
    };
    let mut segment = Segment::new(Path::new(FOLDER).into(), 1);
    segment.next_sequence = 1 + batch.len() as u64;
    let entry = Entry {
        format: FORMAT,
        segment,
        rest: object("_headwater/segments/1.rest"),
        facts: vec![file(Some(20_484))],
        corrections: vec![file(None)],
    };
    Ok((entry.to_bytes()?, rest))
}

/// Reads an archive's entry; how many objects it names.
pub fn read_archive_entry(bytes: &[u8]) -> Result<usize, Problem> {
    let entry = Entry::from_bytes(bytes)?;
    let again = Entry::from_bytes(&entry.to_bytes()?)?;
    let named = |entry: &Entry| (entry.first_sequence(), entry.last_sequence());
    match named(&entry) == named(&again) {
        true => Ok(again.objects().count()),
        false => Err(Problem::internal("fuzz", "an entry reads otherwise")),
    }
}

/// What an archive keeps of the log that it belongs to.
pub fn sample_archive_identity() -> Result<Vec<u8>, Problem> {
    let identity = Identity {
        format: FORMAT,
        id: "0123456789abcdef".into(),
    };
    identity.to_bytes()
}

/// Reads whose archive it is. Whatever is read can be written and reads the same.
pub fn read_archive_identity(bytes: &[u8]) -> Result<(), Problem> {
    let identity = Identity::from_bytes(bytes)?;
    match Identity::from_bytes(&identity.to_bytes()?)? == identity {
        true => Ok(()),
        false => Err(Problem::internal("fuzz", "an identity reads otherwise")),
    }
}

/// Reads an archive's records; how many there are.
pub fn read_archive_rest(bytes: &[u8]) -> Result<usize, Problem> {
    read_rest(bytes).map(|records| records.len())
}

/// Reads what is kept of facts that retention let go; of how many contracts.
pub fn read_dropped(bytes: &[u8]) -> Result<usize, Problem> {
    crate::dropped::read_newest(bytes).map(|newest| newest.len())
}

/// Entries of the index: of an id, of an entity's facts, of removals.
pub fn sample_index() -> Vec<Vec<u8>> {
    let known = KnownId {
        sequence: 7,
        payload: u64::MAX,
        ingest_time: -1,
        older: 3,
    };
    let positions = [(i64::MIN, 1), (-1, 9), (-1, 3), (i64::MAX, u64::MAX)];
    let positions = positions.map(|(time, sequence)| Position::new(time, sequence));
    vec![
        entries::encode_known(&known),
        entries::encode_positions(&positions),
        entries::encode_removals(&[(1, 2), (7, 7), (9, u64::MAX)]),
    ]
}

/// Reads bytes as entries of the index of each kind. Whatever is read can be written and reads the same.
pub fn read_index(bytes: &[u8]) -> bool {
    let positions = |bytes: &[u8]| {
        let mut found = Vec::new();
        entries::decode_positions(bytes, &mut found);
        found
    };
    let removals = |bytes: &[u8]| {
        let mut found = Vec::new();
        entries::decode_removals(bytes, &mut found);
        found
    };
    let (placed, removed) = (positions(bytes), removals(bytes));
    let known = entries::decode_known(bytes);
    let known_again = known.map(|known| entries::decode_known(&entries::encode_known(&known)));
    positions(&entries::encode_positions(&placed)) == placed
        && removals(&entries::encode_removals(&removed)) == removed
        && known_again.is_none_or(|again| again == known)
}
