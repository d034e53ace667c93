//! The fact log in one folder of one process: log, indexes and quarantine together.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, UInt32Array};
use arrow::compute::take_record_batch;
use headwater_env::Env;
use headwater_schema::{FactBatch, Micros, Position, Problem, Sequence, SequencedBatch};

use crate::frame::{self, Frame};
use crate::index::Index;
use crate::log::{LogReader, LogWriter};
use crate::row_hash::{id_hash, payload_hashes};
use crate::segment::{ContractSummary, file_problem};
use crate::{
    AppendRequest, Appended, FactLog, FoundFacts, FoundRun, IndexSpec, Lookup, QuarantinedRow,
};

/// Facts read from the log at a time while indexes are brought up to date.
const REPLAY_FACTS_MAX: usize = 65_536;

/// When the log is forced to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncPolicy {
    /// Before each append returns.
    Always,
    /// At the first append after this many milliseconds.
    Interval(u64),
    /// Whenever the system likes.
    Never,
}

/// Settings of the log.
#[derive(Debug, Clone)]
pub struct FactLogOptions {
    pub sync: SyncPolicy,
    /// A segment that has reached this size is sealed.
    pub segment_bytes_max: u64,
}

impl Default for FactLogOptions {
    fn default() -> Self {
        Self {
            sync: SyncPolicy::Always,
            segment_bytes_max: 64 << 20,
        }
    }
}

/// What opening had to mend.
#[derive(Debug, Clone, Default)]
pub struct RecoveryReport {
    /// What was cut off or made again, in sentences.
    pub repairs: Vec<String>,
    /// Facts whose ids and postings were read again from the log.
    pub indexed_again: u64,
}

/// What an operator wants to know of the log.
#[derive(Debug, Clone, Default)]
pub struct FactLogStats {
    pub first_sequence: Sequence,
    pub last_sequence: Sequence,
    pub segments: u64,
    pub bytes: u64,
    pub index_bytes: u64,
    pub duplicates: u64,
    pub conflicts: u64,
    pub appends: u64,
    pub append_nanos_total: u64,
    pub append_nanos_max: u64,
    /// Facts, and the newest event time capped at its arrival, by contract.
    pub contracts: BTreeMap<String, (u64, Micros)>,
    /// Rejected rows by contract.
    pub rejected: BTreeMap<String, u64>,
}

/// The fact log in one folder.
pub struct EmbeddedFactLog {
    env: Env,
    options: FactLogOptions,
    writer: Mutex<Writer>,
    pub(crate) reader: LogReader,
    pub(crate) index: Arc<Index>,
    counters: Counters,
}

struct Writer {
    log: LogWriter,
    last_ingest_time: Micros,
    synced_at_nanos: u64,
}

#[derive(Default)]
struct Counters {
    duplicates: AtomicU64,
    conflicts: AtomicU64,
    appends: AtomicU64,
    nanos_total: AtomicU64,
    nanos_max: AtomicU64,
}

/// One request, told apart row by row.
struct Sorted {
    batch: FactBatch,
    ids: Vec<(u128, u64)>,
    duplicates: Vec<usize>,
    conflicts: Vec<usize>,
}

impl EmbeddedFactLog {
    /// Opens or creates the log in `folder`, mends a torn end, and brings the indexes up to date.
    pub fn open(
        env: &Env,
        folder: &Path,
        options: FactLogOptions,
        indexes: Vec<IndexSpec>,
    ) -> Result<(Self, RecoveryReport), Problem> {
        let log_folder = folder.join("log");
        let (log, reader, mut repairs) =
            crate::log::open(env, &log_folder, options.segment_bytes_max)?;
        let (index, message) = open_index(env, &folder.join("index"), &reader)?;
        repairs.extend(message);
        let writer = Writer {
            log,
            last_ingest_time: reader.newest_arrival(),
            synced_at_nanos: env.clock.monotonic_nanos(),
        };
        let facts = Self {
            env: env.clone(),
            options,
            writer: Mutex::new(writer),
            reader,
            index: Arc::new(index),
            counters: Counters::default(),
        };
        let mut fresh = Vec::new();
        let reached = facts.index.reached();
        for spec in indexes {
            if facts.index.add_spec(spec.clone())? < reached {
                fresh.push(spec);
            }
        }
        facts.index.forget_other_specs()?;
        facts.fill_indexes(&fresh, reached, &AtomicBool::new(false))?;
        facts.index.specs_complete()?;
        let indexed_again = facts.replay_index()?;
        let report = RecoveryReport {
            repairs,
            indexed_again,
        };
        Ok((facts, report))
    }

    fn replay_index(&self) -> Result<u64, Problem> {
        let from = self.index.reached().max(self.reader.first_sequence() - 1) + 1;
        let last = self.reader.last_sequence();
        self.each_batch(from, last, |batch| {
            self.index.replay(batch);
            self.index.settle()
        })?;
        Ok((last + 1).saturating_sub(from))
    }

    pub(crate) fn each_batch(
        &self,
        from: Sequence,
        until: Sequence,
        mut visit: impl FnMut(&SequencedBatch) -> Result<(), Problem>,
    ) -> Result<(), Problem> {
        let mut next = from;
        while next <= until {
            let batches = self.reader.read(next, REPLAY_FACTS_MAX)?;
            let Some(end) = batches.last().map(|b| b.last_sequence()) else {
                return Ok(());
            };
            for batch in batches.iter().filter(|b| b.first_sequence <= until) {
                visit(batch)?;
            }
            next = end + 1;
        }
        Ok(())
    }

    /// Tells new rows from known ones. `earlier` are the ids of requests in the same group.
    fn sort(
        &self,
        request: &AppendRequest,
        now: Micros,
        earlier: &mut hashbrown::HashMap<u128, u64>,
    ) -> Result<Sorted, Problem> {
        let batch = &request.batch;
        let mut sorted = Sorted {
            batch: batch.clone(),
            ids: Vec::new(),
            duplicates: Vec::new(),
            conflicts: Vec::new(),
        };
        let Some(fact_ids) = &batch.fact_ids else {
            return Ok(sorted);
        };
        let payloads = payload_hashes(&batch.columns, batch.unknown_fields.as_ref());
        let mut fresh: Vec<u32> = Vec::with_capacity(batch.len());
        let mut added = Vec::new();
        for (row, payload) in payloads.into_iter().enumerate() {
            let id = id_hash(&batch.contract, fact_ids.value(row));
            let known = match earlier.get(&id) {
                Some(payload) => Some(*payload),
                None => self
                    .index
                    .known(id)?
                    .filter(|k| {
                        let window = request.dedup_window.unwrap_or(Micros::MAX);
                        now.saturating_sub(k.ingest_time) <= window
                    })
                    .map(|k| k.payload),
            };
            match known {
                Some(known) if known == payload => sorted.duplicates.push(row),
                Some(_) => sorted.conflicts.push(row),
                None => {
                    earlier.insert(id, payload);
                    added.push(id);
                    sorted.ids.push((id, payload));
                    fresh.push(row as u32);
                }
            }
        }
        if request.all_or_nothing && !sorted.conflicts.is_empty() {
            for id in added {
                earlier.remove(&id);
            }
            sorted.ids.clear();
            sorted.duplicates.clear();
            fresh.clear();
        }
        if fresh.len() < batch.len() {
            sorted.batch = take(batch, &fresh)?;
        }
        Ok(sorted)
    }

    /// Holds appends back.
    pub(crate) fn hold_appends(&self) -> impl Drop + '_ {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sync_now(&self, writer: &Writer) -> bool {
        match self.options.sync {
            SyncPolicy::Always => true,
            SyncPolicy::Never => false,
            SyncPolicy::Interval(ms) => {
                let since = self
                    .env
                    .clock
                    .monotonic_nanos()
                    .saturating_sub(writer.synced_at_nanos);
                since >= ms.saturating_mul(1_000_000)
            }
        }
    }

    /// The batch that holds a sequence, if it is kept.
    fn batch_of(&self, sequence: Sequence) -> Result<Option<Arc<SequencedBatch>>, Problem> {
        let Some(frames) = self.reader.batch_of(sequence)? else {
            return Ok(None);
        };
        Ok(frames.iter().find_map(|frame| match frame {
            Frame::Facts(batch)
                if batch.first_sequence <= sequence && sequence <= batch.last_sequence() =>
            {
                Some(batch.clone())
            }
            _ => None,
        }))
    }

    /// Facts of a contract in a range of time, whatever their entity: the newest `limit` of them.
    pub fn scan(
        &self,
        contract: &str,
        from: Position,
        until: Position,
        limit: usize,
    ) -> Result<FoundFacts, Problem> {
        let mut newest = std::collections::BTreeSet::new();
        self.reader.visit_newest(
            |span| span.time_max >= from.event_time && span.time_min <= until.event_time,
            |frame| {
                if let Frame::Facts(batch) = frame
                    && batch.batch.contract.as_ref() == contract
                {
                    for (row, time) in batch.batch.event_times.iter().enumerate() {
                        let position = Position::new(*time, batch.first_sequence + row as u64);
                        if from <= position && position < until {
                            newest.insert(position);
                            if newest.len() > limit {
                                newest.pop_first();
                            }
                        }
                    }
                }
                true
            },
        )?;
        self.fetch(newest.into_iter().collect())
    }

    /// The facts at positions that are in ascending order.
    fn fetch(&self, positions: Vec<Position>) -> Result<FoundFacts, Problem> {
        let mut by_sequence: Vec<(Sequence, usize)> = positions
            .iter()
            .enumerate()
            .map(|(i, p)| (p.sequence, i))
            .collect();
        by_sequence.sort_unstable();
        let mut found = FoundFacts {
            runs: Vec::new(),
            order: vec![(0, 0); positions.len()],
        };
        let mut at = 0;
        while let Some((sequence, _)) = by_sequence.get(at) {
            let Some(batch) = self.batch_of(*sequence)? else {
                return Err(expired(*sequence, self.reader.first_sequence()));
            };
            let end = by_sequence.partition_point(|(s, _)| *s <= batch.last_sequence());
            let wanted = &by_sequence[at..end];
            for (row, (_, place)) in wanted.iter().enumerate() {
                found.order[*place] = (found.runs.len(), row);
            }
            let rows: Vec<u32> = wanted
                .iter()
                .map(|(s, _)| (s - batch.first_sequence) as u32)
                .collect();
            let facts = take(&batch.batch, &rows)?;
            found.runs.push(FoundRun {
                sequences: wanted.iter().map(|(s, _)| *s).collect(),
                ingest_time: batch.ingest_time,
                event_times: facts.event_times,
                fact_ids: facts.fact_ids.map(|ids| {
                    ids.iter()
                        .map(|id| id.unwrap_or_default().to_owned())
                        .collect()
                }),
                columns: facts.columns,
            });
            at = end;
        }
        Ok(found)
    }

    /// Removes the oldest segments in which every fact is older than its contract's cutoff.
    pub fn enforce_retention(&self, cutoffs: &BTreeMap<String, Micros>) -> Result<usize, Problem> {
        let expired = |(name, summary): (&String, &ContractSummary)| {
            cutoffs
                .get(name)
                .is_some_and(|cutoff| summary.time_max < *cutoff)
        };
        let dropped = self.reader.drop_oldest(|segment| {
            segment.rejected.is_empty() && segment.contracts.iter().all(expired)
        })?;
        Ok(dropped.len())
    }

    /// Writes the indexes out, so that the next start has nothing to read again.
    pub fn checkpoint(&self) -> Result<(), Problem> {
        self.index.flush()?;
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.log.sync()?;
        writer.log.save(&self.reader)
    }

    /// Reads every byte of the log and checks it; how many bytes are whole.
    pub fn verify(&self) -> Result<u64, Problem> {
        self.reader.verify()
    }

    pub fn stats(&self) -> FactLogStats {
        let segments = self.reader.segments();
        let mut stats = FactLogStats {
            first_sequence: self.reader.first_sequence(),
            last_sequence: self.reader.last_sequence(),
            segments: segments.len() as u64,
            bytes: segments.iter().map(|s| s.bytes).sum(),
            index_bytes: self.index.size_bytes(),
            duplicates: self.counters.duplicates.load(Ordering::Relaxed),
            conflicts: self.counters.conflicts.load(Ordering::Relaxed),
            appends: self.counters.appends.load(Ordering::Relaxed),
            append_nanos_total: self.counters.nanos_total.load(Ordering::Relaxed),
            append_nanos_max: self.counters.nanos_max.load(Ordering::Relaxed),
            ..FactLogStats::default()
        };
        for segment in &segments {
            for (name, summary) in &segment.contracts {
                let entry = stats
                    .contracts
                    .entry(name.clone())
                    .or_insert((0, Micros::MIN));
                entry.0 += summary.facts;
                entry.1 = entry.1.max(summary.newest);
            }
            for (name, count) in &segment.rejected {
                *stats.rejected.entry(name.clone()).or_default() += count;
            }
        }
        stats
    }
}

fn expired(sequence: Sequence, first: Sequence) -> Problem {
    Problem::user("past-retention", "facts that old are no longer kept")
        .detail(format!(
            "sequence {sequence} is asked for, the oldest kept is {first}"
        ))
        .hint("raise `headwater.retention` of the contract before the facts expire")
}

/// Some rows of a batch.
fn take(batch: &FactBatch, rows: &[u32]) -> Result<FactBatch, Problem> {
    let failed = |e: arrow::error::ArrowError| {
        Problem::internal("take-rows", "rows can't be picked").detail(e)
    };
    let indices = UInt32Array::from(rows.to_vec());
    let texts = |array: &Option<arrow::array::StringArray>| {
        let pick = |array: &arrow::array::StringArray| {
            rows.iter()
                .map(|r| {
                    array
                        .is_valid(*r as usize)
                        .then(|| array.value(*r as usize))
                })
                .collect()
        };
        array.as_ref().map(pick)
    };
    Ok(FactBatch {
        contract: batch.contract.clone(),
        columns: take_record_batch(&batch.columns, &indices).map_err(failed)?,
        event_times: rows
            .iter()
            .map(|r| batch.event_times[*r as usize])
            .collect(),
        fact_ids: texts(&batch.fact_ids),
        unknown_fields: texts(&batch.unknown_fields),
    })
}

/// Opens the index; one that can't be opened, or is ahead of the log, is made again from the log.
fn open_index(
    env: &Env,
    folder: &Path,
    reader: &LogReader,
) -> Result<(Index, Option<String>), Problem> {
    let why = match Index::open(folder) {
        Ok(index) if index.reached() <= reader.last_sequence() => return Ok((index, None)),
        Ok(index) => format!(
            "it reaches sequence {}, the log ends at {}",
            index.reached(),
            reader.last_sequence()
        ),
        Err(problem) => problem.detail,
    };
    env.files
        .remove_dir_all(folder)
        .map_err(|e| file_problem(&e))?;
    let message = format!("the index of facts is made again from the log: {why}");
    Ok((Index::open(folder)?, Some(message)))
}

impl FactLog for EmbeddedFactLog {
    fn append(&self, group: Vec<AppendRequest>) -> Result<Vec<Appended>, Problem> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let start = self.env.clock.monotonic_nanos();
        let now = self.env.clock.now().max(writer.last_ingest_time);
        let mut next = self.reader.last_sequence() + 1;
        let (mut bytes, mut frames) = (Vec::new(), Vec::new());
        let (mut answers, mut indexed) = (Vec::new(), Vec::new());
        let mut earlier = hashbrown::HashMap::new();
        for request in &group {
            let sorted = self.sort(request, now, &mut earlier)?;
            let mut batch = None;
            if !sorted.batch.is_empty() {
                let before = bytes.len();
                frame::put_facts(&mut bytes, next, now, &sorted.batch);
                let sequenced = Arc::new(SequencedBatch {
                    first_sequence: next,
                    ingest_time: now,
                    batch: sorted.batch,
                });
                next = sequenced.last_sequence() + 1;
                frames.push((Frame::Facts(sequenced.clone()), bytes.len() - before));
                indexed.push((sequenced.clone(), sorted.ids));
                batch = Some(sequenced);
            }
            if !request.rejected.is_empty() {
                let rows = quarantined_rows(request, now);
                let before = bytes.len();
                frame::put_quarantine(&mut bytes, &rows)?;
                frames.push((Frame::Quarantine(rows), bytes.len() - before));
            }
            self.counters
                .duplicates
                .fetch_add(sorted.duplicates.len() as u64, Ordering::Relaxed);
            self.counters
                .conflicts
                .fetch_add(sorted.conflicts.len() as u64, Ordering::Relaxed);
            answers.push(Appended {
                batch,
                duplicates: sorted.duplicates,
                conflicts: sorted.conflicts,
                last_sequence: next - 1,
            });
        }
        if !bytes.is_empty() {
            let sync = self.sync_now(&writer);
            writer.log.append(&self.reader, &bytes, &frames, sync)?;
            if sync {
                writer.synced_at_nanos = self.env.clock.monotonic_nanos();
            }
            writer.last_ingest_time = now;
            for (batch, ids) in &indexed {
                self.index.add(batch, ids);
            }
            self.index.settle()?;
        }
        let nanos = self.env.clock.monotonic_nanos().saturating_sub(start);
        self.counters.appends.fetch_add(1, Ordering::Relaxed);
        self.counters
            .nanos_total
            .fetch_add(nanos, Ordering::Relaxed);
        self.counters.nanos_max.fetch_max(nanos, Ordering::Relaxed);
        Ok(answers)
    }

    fn read(&self, from: Sequence, facts_max: usize) -> Result<Vec<Arc<SequencedBatch>>, Problem> {
        if from < self.reader.first_sequence() {
            return Err(expired(from, self.reader.first_sequence()));
        }
        self.reader.read(from, facts_max)
    }

    fn sequences(&self) -> (Sequence, Sequence) {
        (self.reader.first_sequence(), self.reader.last_sequence())
    }

    fn newest(&self, contract: &str) -> Option<Micros> {
        self.reader.newest(contract)
    }

    fn lookup(&self, lookup: &Lookup) -> Result<FoundFacts, Problem> {
        self.fetch(self.index.positions(lookup)?)
    }

    fn quarantined(&self, contract: &str, limit: usize) -> Result<Vec<QuarantinedRow>, Problem> {
        self.reader.quarantined(contract, limit)
    }
}

fn quarantined_rows(request: &AppendRequest, now: Micros) -> Vec<QuarantinedRow> {
    let row = |rejected: &headwater_schema::decode::RejectedRow| QuarantinedRow {
        contract: request.batch.contract.to_string(),
        ingest_time: now,
        row: rejected.row,
        field: rejected.field.clone(),
        rule: rejected.rule.clone(),
        reason: rejected.reason.clone(),
        raw: rejected.raw.clone(),
    };
    request.rejected.iter().map(row).collect()
}

#[cfg(test)]
mod tests;
