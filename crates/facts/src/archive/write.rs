//! A segment of the log as files of the archive.
//!
//! The same segment makes files of the same names and content, so that archiving it again, after a
//! crash, writes over what an earlier attempt left.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use headwater_schema::{Micros, Problem, SequencedBatch};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use super::columns::{SEQUENCE, archived_name, archived_schema, corrections, to_archive};
use super::entry::{
    ArchivedFile, ArchivedObject, Entry, FORMAT, checksum, corrections_path, day_of, facts_path,
    rest_path,
};
use super::rest::RestWriter;
use super::store::ArchiveStore;
use crate::IndexSpec;
use crate::frame::Frame;
use crate::segment::Segment;

/// Rows that are put together at a time.
const CHUNK_ROWS: usize = 16_384;
/// Rows of a row group, and of a page: what a reader of one fact has to unpack.
const GROUP_ROWS_MAX: usize = 131_072;
const PAGE_ROWS_MAX: usize = 4096;
const ZSTD_LEVEL: i32 = 3;

/// Facts of one contract that are stored with the same columns.
struct Layout {
    contract: String,
    columns: SchemaRef,
    /// (frame, row) by day, ascending.
    days: BTreeMap<i32, Vec<(usize, usize)>>,
}

/// Writes every file of a segment and gives the entry that names them; nothing counts before the
/// entry is written.
pub fn write_segment(
    store: &dyn ArchiveStore,
    segment: &Segment,
    frames: &[Frame],
    indexes: &[IndexSpec],
) -> Result<Entry, Problem> {
    let first = segment.first_sequence;
    let mut rest = RestWriter::default();
    let mut layouts: Vec<Layout> = Vec::new();
    let mut removals: BTreeMap<String, Vec<(u64, u64, Micros)>> = BTreeMap::new();
    for (at, frame) in frames.iter().enumerate() {
        let batch = frame.batch().filter(|batch| !batch.batch.is_empty());
        let layout = batch.map(|batch| note_rows(&mut layouts, batch, at));
        rest.push(frame, layout)?;
        for removed in frame.batch().iter().flat_map(|batch| &batch.removed) {
            let contract = removed.facts.contract.to_string();
            let list = removals.entry(contract).or_default();
            let pairs = removed.sequences.iter().zip(&removed.removed_at);
            let arrived = frame.batch().map_or(0, |batch| batch.ingest_time);
            list.extend(pairs.map(|(sequence, at)| (*sequence, *at, arrived)));
        }
    }
    let mut entry = Entry {
        format: FORMAT,
        segment: segment.summary(),
        rest: put(store, rest_path(first), rest.into_bytes())?,
        facts: Vec::new(),
        corrections: Vec::new(),
    };
    for (number, layout) in layouts.iter().enumerate() {
        let keys = key_columns(indexes, &layout.contract);
        for (day, rows) in &layout.days {
            let path = facts_path(&layout.contract, *day, first, number);
            let (bytes, (time_min, time_max)) = write_facts(layout, frames, rows, &keys)?;
            let object = put(store, path, bytes)?;
            let sequence = |at: Option<&(usize, usize)>| {
                let batch = at.and_then(|(frame, row)| Some((frames[*frame].batch()?, *row)));
                batch.map_or(0, |(batch, row)| batch.first_sequence + row as u64)
            };
            entry.facts.push(ArchivedFile {
                contract: layout.contract.clone(),
                day: Some(*day),
                layout: number,
                object,
                rows: rows.len() as u64,
                first_sequence: sequence(rows.first()),
                last_sequence: sequence(rows.last()),
                time_min,
                time_max,
            });
        }
    }
    for (contract, mut list) in removals {
        list.sort_unstable();
        let path = corrections_path(&contract, first);
        entry
            .corrections
            .push(write_corrections(store, contract, path, &list)?);
    }
    Ok(entry)
}

/// Notes the rows of a batch under their layout and days; the layout's number.
fn note_rows(layouts: &mut Vec<Layout>, batch: &SequencedBatch, frame: usize) -> usize {
    let facts = &batch.batch;
    let same = |layout: &Layout| {
        layout.contract == *facts.contract
            && layout.columns.fields() == facts.columns.schema_ref().fields()
    };
    let number = layouts.iter().position(same).unwrap_or_else(|| {
        layouts.push(Layout {
            contract: facts.contract.to_string(),
            columns: facts.columns.schema(),
            days: BTreeMap::new(),
        });
        layouts.len() - 1
    });
    for (row, time) in facts.event_times.iter().enumerate() {
        let rows = layouts[number].days.entry(day_of(*time)).or_default();
        rows.push((frame, row));
    }
    number
}

/// The columns that a contract's facts are looked up by.
fn key_columns(indexes: &[IndexSpec], contract: &str) -> Vec<String> {
    let own = indexes.iter().filter(|i| i.contract.as_ref() == contract);
    let mut columns: Vec<String> = own
        .flat_map(|i| i.key_columns.iter().map(|c| archived_name(c)))
        .collect();
    columns.sort_unstable();
    columns.dedup();
    columns
}

/// A file of facts, and its least and greatest event time.
fn write_facts(
    layout: &Layout,
    frames: &[Frame],
    rows: &[(usize, usize)],
    keys: &[String],
) -> Result<(Vec<u8>, (Micros, Micros)), Problem> {
    let schema = archived_schema(&layout.columns);
    let (mut time_min, mut time_max) = (Micros::MAX, Micros::MIN);
    let chunks = rows.chunks(CHUNK_ROWS).map(|chunk| {
        let (mut batches, mut at, mut picked) = (Vec::new(), usize::MAX, Vec::new());
        for (frame, row) in chunk {
            let Some(batch) = frames[*frame].batch() else {
                continue;
            };
            if at != *frame {
                batches.push(batch.as_ref());
                at = *frame;
            }
            let time = batch.batch.event_times[*row];
            (time_min, time_max) = (time_min.min(time), time_max.max(time));
            picked.push((batches.len() - 1, *row));
        }
        to_archive(&schema, &batches, &picked)
    });
    let bytes = parquet_file(&schema, chunks, rows.len(), keys)?;
    Ok((bytes, (time_min, time_max)))
}

/// Batches as a Parquet file.
fn parquet_file(
    schema: &SchemaRef,
    batches: impl Iterator<Item = Result<RecordBatch, Problem>>,
    rows: usize,
    keys: &[String],
) -> Result<Vec<u8>, Problem> {
    let failed = |e: parquet::errors::ParquetError| {
        Problem::external("archive-columns", "facts can't be written as Parquet").detail(e)
    };
    let sequence = ColumnPath::from(vec![SEQUENCE.to_owned()]);
    let level = ZstdLevel::try_new(ZSTD_LEVEL).map_err(failed)?;
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_created_by(concat!("headwater ", env!("CARGO_PKG_VERSION")).into())
        .set_max_row_group_row_count(Some(GROUP_ROWS_MAX))
        .set_data_page_row_count_limit(PAGE_ROWS_MAX)
        .set_write_batch_size(1024)
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_column_dictionary_enabled(sequence.clone(), false)
        .set_column_encoding(sequence, Encoding::DELTA_BINARY_PACKED);
    let exist = keys.iter().filter(|k| schema.field_with_name(k).is_ok());
    for key in exist {
        let path = ColumnPath::from(vec![key.clone()]);
        properties = properties
            .set_column_bloom_filter_enabled(path.clone(), true)
            .set_column_bloom_filter_max_ndv(path, rows.min(GROUP_ROWS_MAX) as u64);
    }
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, schema.clone(), Some(properties.build()))
        .map_err(failed)?;
    for batch in batches {
        writer.write(&batch?).map_err(failed)?;
    }
    writer.close().map_err(failed)?;
    Ok(bytes)
}

fn write_corrections(
    store: &dyn ArchiveStore,
    contract: String,
    path: String,
    removals: &[(u64, u64, Micros)],
) -> Result<ArchivedFile, Problem> {
    let batch = corrections(removals)?;
    let bytes = parquet_file(
        &batch.schema(),
        [Ok(batch)].into_iter(),
        removals.len(),
        &[],
    )?;
    let times = || removals.iter().map(|removal| removal.2);
    Ok(ArchivedFile {
        contract,
        day: None,
        layout: 0,
        object: put(store, path, bytes)?,
        rows: removals.len() as u64,
        first_sequence: removals.first().map_or(0, |removal| removal.0),
        last_sequence: removals.last().map_or(0, |removal| removal.0),
        time_min: times().min().unwrap_or(0),
        time_max: times().max().unwrap_or(0),
    })
}

fn put(store: &dyn ArchiveStore, path: String, bytes: Vec<u8>) -> Result<ArchivedObject, Problem> {
    let object = ArchivedObject {
        bytes: bytes.len() as u64,
        checksum: checksum(&bytes),
        path,
    };
    store.put(&object.path, bytes)?;
    Ok(object)
}
