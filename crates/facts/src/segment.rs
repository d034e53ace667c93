//! Segments: the files of the log, and the sparse index by which frames are found in them.
//!
//! A segment begins with a magic text, a format version and its first sequence, and holds groups of frames
//! (format 1: frames, of which the last may be in groups). Its
//! sidecar (`.idx`) remembers the spans of the segment up to some length, so that opening a log
//! needn't read what has been read before; without it the segment is read whole.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use headwater_env::{Env, FileErrorKind};
use headwater_schema::{Micros, Problem, Sequence, SequencedBatch};
use serde::{Deserialize, Serialize};

use crate::frame::{self, Damage, Frame, Verdict};
use crate::group::{Broken, Groups, Piece};

const MAGIC: &[u8; 7] = b"HWFACTS";
/// The format of new segments.
pub const FORMAT: u8 = 2;
/// Before there were groups.
const FORMAT_ALONE: u8 = 1;
/// Bytes before the first frame.
pub const SEGMENT_HEADER_BYTES: u64 = 16;
/// Frames are grouped into spans of about this many bytes.
const SPAN_BYTES: u64 = 64 * 1024;

/// Consecutive frames of a segment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Span {
    pub offset: u64,
    pub bytes: u64,
    /// The first sequence in the span, or the next one where it has no facts.
    pub first_sequence: Sequence,
    /// How many sequences it takes: of facts and of retractions.
    pub facts: u64,
    pub time_min: Micros,
    pub time_max: Micros,
    /// Whether rejected rows are among the frames, or what became of some.
    pub quarantine: bool,
}

/// What a segment knows of one contract.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct ContractSummary {
    pub facts: u64,
    /// Facts, here or in earlier segments, that are revised or retracted here.
    #[serde(default)]
    pub removed: u64,
    /// The newest event time, capped at its arrival.
    pub newest: Micros,
    pub time_max: Micros,
}

/// The index of one segment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Segment {
    #[serde(skip)]
    pub path: PathBuf,
    /// Whether the log has no file of it any more: the archive has.
    #[serde(skip)]
    pub archived: bool,
    /// Its bytes, where there is no file of them because there was no room for one.
    #[serde(skip)]
    pub held: Option<Arc<[u8]>>,
    /// The version of its format, as its first bytes say.
    #[serde(skip)]
    pub format: u8,
    pub first_sequence: Sequence,
    /// One more than the last sequence.
    pub next_sequence: Sequence,
    /// How many bytes of the file hold whole frames.
    pub bytes: u64,
    pub ingest_time: Micros,
    pub spans: Vec<Span>,
    pub contracts: BTreeMap<String, ContractSummary>,
    /// Rejected rows by contract.
    pub rejected: BTreeMap<String, u64>,
    /// Rows in quarantine, here or in earlier segments, that are said here to have become facts.
    #[serde(default)]
    pub resolved: BTreeMap<String, BTreeSet<u64>>,
    /// Whether anything is said here of rows in quarantine.
    #[serde(default)]
    pub verdicts: bool,
}

impl Segment {
    /// The bytes that a segment begins with.
    pub fn header(first_sequence: Sequence) -> Vec<u8> {
        let mut header = MAGIC.to_vec();
        header.push(FORMAT);
        header.extend(first_sequence.to_le_bytes());
        header
    }

    pub fn file_name(first_sequence: Sequence) -> String {
        format!("{first_sequence:020}.seg")
    }

    /// Where it is, to speak of it.
    pub fn place(&self) -> String {
        match self.archived {
            true => format!("the archived segment {}", self.first_sequence),
            false => self.path.display().to_string(),
        }
    }

    /// The first sequence that a segment's name says.
    pub fn named(path: &Path) -> Option<Sequence> {
        path.file_stem()?.to_str()?.parse().ok()
    }

    pub fn new(path: PathBuf, first_sequence: Sequence) -> Self {
        Self {
            path,
            archived: false,
            held: None,
            format: FORMAT,
            first_sequence,
            next_sequence: first_sequence,
            bytes: SEGMENT_HEADER_BYTES,
            ingest_time: Micros::MIN,
            spans: Vec::new(),
            contracts: BTreeMap::new(),
            rejected: BTreeMap::new(),
            resolved: BTreeMap::new(),
            verdicts: false,
        }
    }

    /// Notes a frame that stands at the segment's end.
    pub fn note(&mut self, frame: &Frame, bytes: u64) {
        let full = self
            .spans
            .last()
            .is_none_or(|span| span.bytes >= SPAN_BYTES);
        if full {
            self.spans.push(Span {
                offset: self.bytes,
                bytes: 0,
                first_sequence: self.next_sequence,
                facts: 0,
                time_min: Micros::MAX,
                time_max: Micros::MIN,
                quarantine: false,
            });
        }
        self.bytes += bytes;
        let Some(span) = self.spans.last_mut() else {
            return;
        };
        span.bytes += bytes;
        match frame {
            Frame::Facts(_) | Frame::Correction(_) => {
                if let Some(batch) = frame.batch() {
                    span.quarantine |= !frame.verdicts().is_empty();
                    self.note_verdicts(&batch.batch.contract, frame.verdicts());
                    self.note_batch(batch);
                }
            }
            Frame::Quarantine(rows) => {
                span.quarantine = true;
                for row in rows {
                    *self.rejected.entry(row.contract.clone()).or_default() += 1;
                    self.ingest_time = self.ingest_time.max(row.ingest_time);
                }
            }
            Frame::Group(_) => {}
        }
    }

    fn note_verdicts(&mut self, contract: &str, verdicts: &[Verdict]) {
        self.verdicts |= !verdicts.is_empty();
        let facts = verdicts.iter().filter(|v| v.fault.is_none());
        let rows: Vec<u64> = facts.map(|v| v.row).collect();
        if !rows.is_empty() {
            let resolved = self.resolved.entry(contract.to_owned()).or_default();
            resolved.extend(rows);
        }
    }

    fn note_batch(&mut self, batch: &SequencedBatch) {
        self.next_sequence = batch.last_sequence() + 1;
        self.ingest_time = self.ingest_time.max(batch.ingest_time);
        let name = batch.batch.contract.to_string();
        let summary = self.contracts.entry(name).or_insert(ContractSummary {
            facts: 0,
            removed: 0,
            newest: Micros::MIN,
            time_max: Micros::MIN,
        });
        if let Some(span) = self.spans.last_mut() {
            span.facts += batch.len() as u64;
            for time in &batch.batch.event_times {
                span.time_min = span.time_min.min(*time);
                span.time_max = span.time_max.max(*time);
            }
        }
        summary.facts += batch.batch.len() as u64;
        for time in &batch.batch.event_times {
            summary.newest = summary.newest.max((*time).min(batch.ingest_time));
            summary.time_max = summary.time_max.max(*time);
        }
        for removed in &batch.removed {
            summary.removed += removed.facts.len() as u64;
            let times = removed.facts.event_times.iter().copied();
            summary.time_max = summary.time_max.max(times.max().unwrap_or(Micros::MIN));
        }
    }

    /// What is known of the segment, without where its records are: one span stands for all.
    pub fn summary(&self) -> Self {
        let spans = || self.spans.iter();
        let whole = Span {
            offset: 0,
            bytes: 0,
            first_sequence: self.first_sequence,
            facts: spans().map(|span| span.facts).sum(),
            time_min: spans().map(|s| s.time_min).min().unwrap_or(Micros::MAX),
            time_max: spans().map(|s| s.time_max).max().unwrap_or(Micros::MIN),
            quarantine: spans().any(|span| span.quarantine),
        };
        Self {
            path: PathBuf::new(),
            spans: vec![whole],
            ..self.clone()
        }
    }

    fn sidecar(&self) -> PathBuf {
        self.path.with_extension("idx")
    }

    /// Writes the sidecar.
    pub fn save(&self, env: &Env) -> Result<(), Problem> {
        let text = serde_json::to_vec(self).map_err(|e| {
            Problem::internal("log-index", "a segment's index can't be written").detail(e)
        })?;
        let mut bytes = crc32fast::hash(&text).to_le_bytes().to_vec();
        bytes.extend(text);
        env.files
            .write_atomic(&self.sidecar(), &bytes)
            .map_err(|e| file_problem(&e))
    }

    fn load(env: &Env, path: &Path) -> Option<Self> {
        let bytes = env.files.read(&path.with_extension("idx")).ok()?;
        let (checksum, text) = bytes.split_first_chunk::<4>()?;
        if u32::from_le_bytes(*checksum) != crc32fast::hash(text) {
            return None;
        }
        let mut segment: Self = serde_json::from_slice(text).ok()?;
        path.clone_into(&mut segment.path);
        Some(segment)
    }

    /// Opens a segment. `last` is whether it is the log's last, whose end may be torn: what follows
    /// the last whole frame is then reported, to be cut off.
    pub fn open(env: &Env, path: &Path, last: bool, check_all: bool) -> Result<Opened, Problem> {
        let file = env.files.open_read(path).map_err(|e| file_problem(&e))?;
        let length = file.length().map_err(|e| file_problem(&e))?;
        let known = Self::load(env, path);
        // A header is synced before the first frame is written: without frames nothing is lost.
        let was_begun = known
            .as_ref()
            .is_some_and(|s| s.bytes > SEGMENT_HEADER_BYTES);
        if last && !was_begun && length <= SEGMENT_HEADER_BYTES {
            let header = env.files.read(path).map_err(|e| file_problem(&e))?;
            if Self::named(path).is_none_or(|first| header != Self::header(first)) {
                return Ok(Opened::Empty);
            }
        }
        let (format, first_sequence) = read_header(env, path, length)?;
        if Self::named(path) != Some(first_sequence) {
            return Err(damaged(path, 8, &Damage::FirstSequence(first_sequence)));
        }
        let known = known.filter(|s| s.first_sequence == first_sequence);
        if let Some(known) = &known
            && known.bytes > length
        {
            return Err(damaged(path, length, &Damage::Short));
        }
        let sealed = !last && known.as_ref().is_some_and(|known| known.bytes == length);
        let trusted = known
            .as_ref()
            .map_or(SEGMENT_HEADER_BYTES, |known| known.bytes);
        let mut segment = Self {
            format,
            ..Self::new(path.to_owned(), first_sequence)
        };
        if let (true, false, Some(known)) = (sealed, check_all, known) {
            return Ok(Opened::Whole(Self { format, ..known }));
        }
        let bytes = env.files.read(path).map_err(|e| file_problem(&e))?;
        let start = SEGMENT_HEADER_BYTES as usize;
        let mut groups = Groups::new(&bytes, start, format == FORMAT_ALONE);
        while let Some(group) = groups.next() {
            match group {
                Ok(frames) => segment.note_group(&frames)?,
                Err(Broken { at, damage }) => {
                    let torn = last && groups.at() as u64 >= trusted && !groups.is_damaged(&damage);
                    if !torn {
                        return Err(damaged(path, at as u64, &damage));
                    }
                    let lost_bytes = bytes.len() as u64 - segment.bytes;
                    return Ok(Opened::Torn {
                        segment,
                        lost_bytes,
                    });
                }
            }
        }
        Ok(Opened::Whole(segment))
    }

    /// Notes the frames of a group as they were read.
    fn note_group(&mut self, frames: &[Piece<'_>]) -> Result<(), Problem> {
        for (body, length) in frames {
            let at = self.bytes;
            let frame = frame::decode(body).map_err(|p| at_offset(p, &self.path, at))?;
            let expected = self.next_sequence;
            if let Some(found) = frame.first_sequence().filter(|f| *f != expected) {
                let damage = Damage::Sequence { expected, found };
                return Err(damaged(&self.path, at, &damage));
            }
            self.note(&frame, *length as u64);
        }
        Ok(())
    }

    /// The span that holds a sequence.
    pub fn span_of(&self, sequence: Sequence) -> Option<usize> {
        let after = self.spans.partition_point(|s| s.first_sequence <= sequence);
        // A span without facts begins with the same sequence as the one after it.
        (0..after).rev().find(|i| self.spans[*i].facts > 0)
    }
}

/// What opening a segment found.
pub enum Opened {
    Whole(Segment),
    /// The file ends in bytes that are no group, and were never known to be on the disk.
    Torn {
        segment: Segment,
        lost_bytes: u64,
    },
    /// The file has no more than a part of its header: it was being made.
    Empty,
}

/// The format of a segment and its first sequence.
fn read_header(env: &Env, path: &Path, length: u64) -> Result<(u8, Sequence), Problem> {
    if length < SEGMENT_HEADER_BYTES {
        return Err(damaged(path, length, &Damage::Short));
    }
    let mut header = [0; SEGMENT_HEADER_BYTES as usize];
    let file = env.files.open_read(path).map_err(|e| file_problem(&e))?;
    file.read_at(0, &mut header).map_err(|e| file_problem(&e))?;
    let (magic, rest) = header.split_at(MAGIC.len());
    if magic != MAGIC {
        return Err(Problem::external(
            "log-corrupt",
            format!("{} is no segment of a log", path.display()),
        )
        .detail("its first bytes are others")
        .hint("restore the file from a copy"));
    }
    if !(FORMAT_ALONE..=FORMAT).contains(&rest[0]) {
        return Err(Problem::external(
            "log-format",
            format!("{} has format {}", path.display(), rest[0]),
        )
        .detail(format!("this version reads formats up to {FORMAT}"))
        .hint("open the data with the version of Headwater that wrote it"));
    }
    let mut number = [0; 8];
    number.copy_from_slice(&rest[1..9]);
    Ok((rest[0], Sequence::from_le_bytes(number)))
}

fn at_offset(problem: Problem, path: &Path, offset: u64) -> Problem {
    let detail = format!("{}, byte {offset}: {}", path.display(), problem.detail);
    problem.detail(detail)
}

fn damaged(path: &Path, offset: u64, damage: &Damage) -> Problem {
    Problem::external("log-corrupt", "the log is damaged")
        .detail(format!("{}, byte {offset}: {damage}", path.display()))
        .hint("nothing was changed. Restore the file from a copy; facts behind the damage are whole, so it must not be cut off")
}

/// A failed file operation as a problem: a full disk says so.
pub fn file_problem(error: &headwater_env::FileError) -> Problem {
    match error.kind {
        FileErrorKind::DiskFull => Problem::external("disk-full", "the disk is full")
            .detail(error)
            .hint("make room and send the facts again; nothing that was acknowledged is lost")
            .retryable(),
        _ => Problem::external("file", "a file operation failed").detail(error),
    }
}
