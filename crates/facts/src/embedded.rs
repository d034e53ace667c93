//! The fact log in one folder of one process: log, indexes and quarantine together.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use headwater_env::{Durations, Env, Histogram};
use headwater_schema::{Micros, Position, Problem, Sequence, SequencedBatch};

use crate::archive::{Archive, ArchiveOptions};
use crate::dropped::Dropped;
use crate::found::{self, Newest};
use crate::frame::Frame;
use crate::index::Index;
use crate::log::{LogReader, LogWriter};
use crate::segment::ContractSummary;
use crate::unknown::UnknownFields;
use crate::{
    AppendRequest, Appended, FactLog, FoundFacts, IndexSpec, Lookup, QuarantineQuery,
    QuarantinedRow, Scan, Wanted,
};

mod append;
mod counters;
mod open;
mod sync;

use counters::Counters;

use append::Group;
use open::{open_archive, open_index};

/// Facts read from the log at a time while indexes are brought up to date.
const REPLAY_FACTS_MAX: usize = 65_536;

/// When the log is forced to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncPolicy {
    /// Before each append returns.
    Always,
    /// Within this many milliseconds, where somebody calls [`FactLog::tend`].
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
    /// Where sealed segments go; without it they stay.
    pub archive: Option<ArchiveOptions>,
}

impl Default for FactLogOptions {
    fn default() -> Self {
        Self {
            sync: SyncPolicy::Always,
            segment_bytes_max: 64 << 20,
            archive: None,
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
    /// Durable writes, checks for duplicates and the sync included.
    pub append: Durations,
    pub append_nanos_max: u64,
    /// The syncs of those writes alone.
    pub sync: Durations,
    /// The newest arrival of any fact or row; none before the first.
    pub newest_arrival: Option<Micros>,
    /// What is kept of each contract.
    pub contracts: BTreeMap<String, ContractStats>,
    /// Rows that were rejected, by contract.
    pub rejected: BTreeMap<String, u64>,
    /// Those of them that have become facts.
    pub resolved: BTreeMap<String, u64>,
    /// Fields that contracts don't know, by contract.
    pub unknown: BTreeMap<Arc<str>, UnknownFields>,
}

/// What the log keeps of one contract.
#[derive(Debug, Clone, Copy)]
pub struct ContractStats {
    /// Every fact, live or not.
    pub facts: u64,
    /// Facts that were revised or retracted.
    pub removed: u64,
    /// The newest event time, capped at its arrival.
    pub newest: Micros,
}

/// The fact log in one folder.
pub struct EmbeddedFactLog {
    pub(crate) env: Env,
    options: FactLogOptions,
    writer: Mutex<Writer>,
    pub(crate) reader: LogReader,
    pub(crate) index: Arc<Index>,
    dropped: Dropped,
    counters: Counters,
    /// The writer's syncs.
    sync: Arc<Histogram>,
}

pub(crate) struct Writer {
    pub(crate) log: LogWriter,
    last_ingest_time: Micros,
    synced_at_nanos: u64,
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
        let archive = open_archive(env, folder, options.archive.as_ref())?;
        let (log, reader, mut repairs) =
            crate::log::open(env, &log_folder, options.segment_bytes_max, archive)?;
        let (index, message) = open_index(env, &folder.join("index"), &reader)?;
        repairs.extend(message);
        let sync = log.sync_durations();
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
            dropped: Dropped::open(env, folder)?,
            counters: Counters::default(),
            sync,
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
        self.each_frame(from, last, |frame, batch| {
            self.index.add(batch, append::id_changes(self, frame)?);
            self.index.settle()
        })?;
        Ok((last + 1).saturating_sub(from))
    }

    pub(crate) fn each_frame(
        &self,
        from: Sequence,
        until: Sequence,
        mut visit: impl FnMut(&Frame, &SequencedBatch) -> Result<(), Problem>,
    ) -> Result<(), Problem> {
        let mut next = from;
        while next <= until {
            let frames = self.reader.read_frames(next, REPLAY_FACTS_MAX)?;
            let mut end = None;
            for frame in &frames {
                if let Some(batch) = frame.batch().filter(|b| b.first_sequence <= until) {
                    visit(frame, batch)?;
                    end = Some(batch.last_sequence());
                }
            }
            match end {
                Some(end) => next = end + 1,
                None => return Ok(()),
            }
        }
        Ok(())
    }

    /// The end of the log; appends wait while it is held.
    pub(crate) fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The frame that holds a sequence, if it is kept.
    fn frame_of(&self, sequence: Sequence) -> Result<Option<Frame>, Problem> {
        let frames = self.reader.frames_of(sequence)?;
        let mut frames = frames.iter().flat_map(|frames| frames.iter());
        Ok(frames.find(|frame| append::holds(frame, sequence)).cloned())
    }

    /// The facts at positions that are in ascending order.
    fn fetch(&self, positions: &[Position]) -> Result<FoundFacts, Problem> {
        found::fetch(positions, |sequence| {
            let frame = self.frame_of(sequence)?;
            let batch = frame.and_then(|frame| frame.batch().cloned());
            batch.ok_or_else(|| expired(sequence, self.reader.first_sequence()))
        })
    }

    /// Removes the oldest segments in which every fact is older than its contract's cutoff.
    pub fn enforce_retention(&self, cutoffs: &BTreeMap<String, Micros>) -> Result<usize, Problem> {
        let expired = |(name, summary): (&String, &ContractSummary)| {
            cutoffs
                .get(name)
                .is_some_and(|cutoff| summary.time_max < *cutoff)
        };
        // Ids of facts that are gone can't be read from the log again.
        self.flush_index(&mut self.writer())?;
        self.index.sync()?;
        let going = self.reader.oldest(|segment| {
            // A quarantine is never let go, nor what became of its rows.
            let kept = !segment.rejected.is_empty() || segment.verdicts;
            !kept && segment.contracts.iter().all(expired)
        });
        // First, so that no read takes what is left for all there was.
        self.dropped.note(&going)?;
        self.reader.drop_all(&going)?;
        Ok(going.len())
    }

    /// Writes the indexes out, so that the next start has nothing to read again.
    pub fn checkpoint(&self) -> Result<(), Problem> {
        let mut writer = self.writer();
        self.flush_index(&mut writer)?;
        writer.log.save(&self.reader)
    }

    /// Reads every byte of the log and checks it; how many bytes are whole.
    pub fn verify(&self) -> Result<u64, Problem> {
        self.reader.verify()
    }

    /// What facts of a contract brought that it doesn't know, since the log was opened.
    pub fn unknown_fields(&self, contract: &str) -> UnknownFields {
        self.counters.unknown.of(contract)
    }

    pub fn stats(&self) -> FactLogStats {
        let segments = self.reader.segments();
        let local = || segments.iter().filter(|s| !s.archived);
        let mut stats = FactLogStats {
            first_sequence: self.reader.first_sequence(),
            last_sequence: self.reader.last_sequence(),
            segments: local().count() as u64,
            bytes: local().map(|s| s.bytes).sum(),
            index_bytes: self.index.size_bytes(),
            duplicates: self.counters.duplicates.load(Ordering::Relaxed),
            conflicts: self.counters.conflicts.load(Ordering::Relaxed),
            unknown: self.counters.unknown.read(),
            newest_arrival: Some(self.reader.newest_arrival()).filter(|t| *t > Micros::MIN),
            append: self.counters.append.read(),
            append_nanos_max: self.counters.append_nanos_max.load(Ordering::Relaxed),
            sync: self.sync.read(),
            ..FactLogStats::default()
        };
        for segment in &segments {
            for (name, summary) in &segment.contracts {
                let none = ContractStats {
                    facts: 0,
                    removed: 0,
                    newest: Micros::MIN,
                };
                let entry = stats.contracts.entry(name.clone()).or_insert(none);
                entry.facts += summary.facts;
                entry.removed += summary.removed;
                entry.newest = entry.newest.max(summary.newest);
            }
            for (name, count) in &segment.rejected {
                *stats.rejected.entry(name.clone()).or_default() += count;
            }
            for (name, rows) in &segment.resolved {
                *stats.resolved.entry(name.clone()).or_default() += rows.len() as u64;
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

impl FactLog for EmbeddedFactLog {
    fn append(&self, group: Vec<AppendRequest>) -> Result<Vec<Appended>, Problem> {
        self.index.ready()?;
        let mut writer = self.writer();
        let start = self.env.clock.monotonic_nanos();
        let now = self.env.clock.now().max(writer.last_ingest_time);
        let mut planned = Group::new(self, now);
        for request in &group {
            planned.take(request)?;
        }
        let Group {
            mut bytes,
            frames,
            indexed,
            answers,
            ..
        } = planned;
        for answer in &answers {
            self.counters.count(answer);
        }
        if !frames.is_empty() {
            let sync = self.sync_now(&writer);
            writer.log.append(&self.reader, &mut bytes, &frames, sync)?;
            if sync {
                writer.synced_at_nanos = self.env.clock.monotonic_nanos();
            }
            writer.last_ingest_time = now;
            for (batch, ids) in indexed {
                self.index.add(&batch, ids);
            }
            // The facts are in the log and have to be answered for, whatever becomes of the index.
            if let Err(problem) = self.settle_index(&mut writer) {
                tracing::error!(%problem, "the index of facts can't be written; its entries stay in memory");
            }
        }
        let nanos = self.env.clock.monotonic_nanos().saturating_sub(start);
        self.counters.append.observe_nanos(nanos);
        self.counters
            .append_nanos_max
            .fetch_max(nanos, Ordering::Relaxed);
        Ok(answers)
    }

    fn read(&self, from: Sequence, facts_max: usize) -> Result<Vec<Arc<SequencedBatch>>, Problem> {
        if from < self.reader.first_sequence() {
            return Err(expired(from, self.reader.first_sequence()));
        }
        self.reader.read(from, facts_max)
    }

    fn sync(&self) -> Result<(), Problem> {
        self.sync_all()
    }

    fn tend(&self) -> Result<Option<Duration>, Problem> {
        self.sync_due()
    }

    fn sequences(&self) -> (Sequence, Sequence) {
        (self.reader.first_sequence(), self.reader.last_sequence())
    }

    fn newest(&self, contract: &str) -> Option<Micros> {
        self.reader.newest(contract)
    }

    fn newest_dropped(&self, contract: &str) -> Option<Micros> {
        self.dropped.newest(contract)
    }

    fn is_indexed(&self, index: &IndexSpec) -> bool {
        self.index.is_complete(index)
    }

    fn lookup(&self, lookup: &Lookup) -> Result<FoundFacts, Problem> {
        // The index goes on naming facts that retention let go.
        let first = self.reader.first_sequence();
        self.fetch(&self.index.positions(lookup, first)?)
    }

    fn scan(&self, scan: &Scan) -> Result<FoundFacts, Problem> {
        let mut newest = Newest::new(scan);
        let corrected = self.reader.any_removed(&scan.contract);
        let lives = |sequence| match corrected {
            false => Ok(true),
            true => {
                let removed = self.index.removed_at(sequence)?;
                Ok(removed.is_none_or(|at| scan.known_at < at))
            }
        };
        let mut offered = Ok(());
        // Once there are enough facts, only what has one of a later time is read: at the same time what was
        // met first is newer.
        let (from, until) = (scan.from.event_time, scan.until.event_time);
        let after = Cell::new(None);
        let may_have = |newest: Micros| {
            newest >= from
                && after
                    .get()
                    .is_none_or(|after: Position| newest > after.event_time)
        };
        self.reader.visit_newest(
            |segment| {
                let summary = segment.contracts.get(scan.contract.as_ref());
                summary.is_some_and(|s| s.facts > 0 && may_have(s.time_max))
            },
            |span| {
                let known = span.first_sequence <= scan.known_at;
                known && may_have(span.time_max) && span.time_min <= until
            },
            |frame| {
                if let Some(batch) = frame.batch() {
                    offered = newest.offer(batch, lives);
                    after.set(newest.least());
                }
                offered.is_ok()
            },
        )?;
        offered?;
        self.fetch(&newest.into_positions())
    }

    fn read_of(
        &self,
        wanted: &Wanted,
        from: Sequence,
        facts_max: usize,
    ) -> Result<(Vec<Arc<SequencedBatch>>, Sequence), Problem> {
        let from = from.max(self.reader.first_sequence());
        self.reader.read_of(wanted, from, facts_max)
    }

    fn removed(
        &self,
        contract: &str,
        from: Sequence,
        until: Sequence,
    ) -> Result<Vec<(Sequence, Sequence)>, Problem> {
        match self.reader.any_removed(contract) {
            // The index has no contracts: it tells of all.
            true => self.index.removed_among(from, until),
            false => Ok(Vec::new()),
        }
    }

    fn archive(&self) -> Option<&Archive> {
        self.reader.archive()
    }

    fn quarantined(&self, query: &QuarantineQuery) -> Result<Vec<QuarantinedRow>, Problem> {
        self.reader.quarantined(query)
    }
}

#[cfg(test)]
mod tests;
