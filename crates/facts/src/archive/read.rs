//! Records of the log put together again from files of the archive.

use arrow::array::{Array, RecordBatch};
use bytes::Bytes;
use headwater_schema::Problem;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::columns::{from_archive, interleave};
use super::entry::{ArchivedObject, Entry, checksum, unreadable};
use super::rest::{self, read_rest};
use super::store::ArchiveStore;
use crate::frame::Frame;

/// Rows of a file that are unpacked at a time.
const BATCH_ROWS: usize = 8192;
/// A row that isn't there.
const ABSENT: (u32, u32) = (u32::MAX, u32::MAX);

/// An object as it was written.
pub fn whole(store: &dyn ArchiveStore, object: &ArchivedObject) -> Result<Bytes, Problem> {
    let damaged = |what: &str| unreadable(format!("{}, {}: {what}", store.url(), object.path));
    let bytes = store.get(&object.path)?;
    let bytes = bytes.ok_or_else(|| damaged("it isn't there"))?;
    match checksum(&bytes) == object.checksum {
        true => Ok(bytes),
        false => Err(damaged("its bytes aren't those that were written")),
    }
}

/// The rows of one layout of a segment, found by sequence.
struct Rows {
    batches: Vec<RecordBatch>,
    /// (batch, row) by sequence, from the segment's first on.
    places: Vec<(u32, u32)>,
}

/// The records of a segment, as the log had them.
pub fn read_segment(store: &dyn ArchiveStore, entry: &Entry) -> Result<Vec<Frame>, Problem> {
    let records = read_rest(&whole(store, &entry.rest)?)?;
    let first = entry.segment.first_sequence;
    let count = (entry.segment.next_sequence - first) as usize;
    let layouts = entry.facts.iter().map(|f| f.layout + 1).max().unwrap_or(0);
    let mut rows: Vec<Rows> = (0..layouts)
        .map(|_| Rows {
            batches: Vec::new(),
            places: vec![ABSENT; count],
        })
        .collect();
    for file in &entry.facts {
        let damaged = |e: &dyn std::fmt::Display| unreadable(format!("{}: {e}", file.object.path));
        let bytes = whole(store, &file.object)?;
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes);
        let reader = reader.and_then(|r| r.with_batch_size(BATCH_ROWS).build());
        let layout = &mut rows[file.layout];
        for batch in reader.map_err(|e| damaged(&e))? {
            let batch = batch.map_err(|e| damaged(&e))?;
            let number = layout.batches.len() as u32;
            for (row, sequence) in super::columns::sequences(&batch)?.into_iter().enumerate() {
                let place = (sequence as u64).checked_sub(first);
                let place = place.and_then(|at| layout.places.get_mut(at as usize));
                *place.ok_or_else(|| damaged(&"a fact of another segment"))? = (number, row as u32);
            }
            layout.batches.push(batch);
        }
    }
    let mut frames = Vec::with_capacity(records.len());
    for (note, record) in records {
        frames.push(match note.layout {
            None => record,
            Some(layout) => {
                let rows = rows
                    .get(layout)
                    .ok_or_else(|| unreadable("no such layout"))?;
                filled(&record, &note, rows, first)?
            }
        });
    }
    Ok(frames)
}

/// A record with its facts.
fn filled(record: &Frame, note: &rest::Note, rows: &Rows, first: u64) -> Result<Frame, Problem> {
    let lacking = || unreadable("facts of a record aren't in the files");
    let batch = record.batch().ok_or_else(lacking)?;
    let from = batch
        .first_sequence
        .checked_sub(first)
        .ok_or_else(lacking)? as usize;
    let places = rows
        .places
        .get(from..from + note.rows)
        .ok_or_else(lacking)?;
    if places.contains(&ABSENT) {
        return Err(lacking());
    }
    // Only the batches that are needed: a record has rows of few.
    let (mut used, mut numbers): (Vec<&RecordBatch>, Vec<u32>) = (Vec::new(), Vec::new());
    let mut picked = Vec::with_capacity(places.len());
    for (number, row) in places {
        let at = numbers
            .iter()
            .rposition(|n| n == number)
            .unwrap_or_else(|| {
                numbers.push(*number);
                used.push(&rows.batches[*number as usize]);
                numbers.len() - 1
            });
        picked.push((at, *row as usize));
    }
    let (columns, added) = from_archive(&interleave(&used, &picked)?)?;
    if added.ingest_times.iter().any(|t| *t != batch.ingest_time) {
        return Err(unreadable("a fact arrived at another time than its record"));
    }
    if note.fact_ids && added.fact_ids.null_count() == added.fact_ids.len() && note.rows > 0 {
        return Err(unreadable("facts have lost their ids"));
    }
    rest::facts(record, note, columns, added).ok_or_else(lacking)
}
