//! The log itself: segments in order, appended to at the end, read anywhere.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use hashbrown::HashMap;
use headwater_env::{AppendFile, Env, Histogram};
use headwater_schema::{Micros, Problem, Sequence, SequencedBatch};

use crate::archive::Archive;
use crate::frame::Frame;
use crate::segment::{Opened, Segment, Span, file_problem};

mod frames;
mod pruned;
mod quarantine;
mod writer;

/// Decoded spans that are kept for the next lookup.
const CACHED_SPANS_MAX: usize = 64;

/// The end of the log, where it grows.
pub struct LogWriter {
    env: Env,
    folder: PathBuf,
    file: Box<dyn AppendFile>,
    segment_bytes_max: u64,
    /// How long syncs of facts took.
    sync: Arc<Histogram>,
    /// How many bytes of the file are sure to be on the disk.
    synced: u64,
    /// A write or sync failed in a way that leaves the file's state unknown.
    poisoned: Option<Problem>,
}

/// The segments, for readers.
pub struct LogReader {
    env: Env,
    segments: RwLock<Vec<Arc<Segment>>>,
    /// Has the segments that have left the folder.
    archive: Option<Archive>,
    cache: Mutex<CachedSpans>,
}

/// Frames by the first sequence of their segment and the number of their span.
type CachedSpans = HashMap<(Sequence, usize), Arc<Vec<Frame>>>;

/// Opens the log in `folder`, cutting off a torn end; says what it cut.
pub fn open(
    env: &Env,
    folder: &Path,
    segment_bytes_max: u64,
    archive: Option<Archive>,
) -> Result<(LogWriter, LogReader, Vec<String>), Problem> {
    env.files
        .create_dir_all(folder)
        .map_err(|e| file_problem(&e))?;
    let mut messages = Vec::new();
    let (local, mut next_sequence) = open_segments(env, folder, &mut messages)?;
    let mut segments = before(&local, archive.as_ref());
    if let (true, Some(last)) = (local.is_empty(), segments.last()) {
        next_sequence = last.next_sequence;
    }
    let none = local.is_empty();
    segments.extend(local);
    unbroken(&segments)?;
    if none {
        segments.push(create(env, folder, next_sequence)?);
    }
    let last = &segments[segments.len() - 1];
    let mut file = env
        .files
        .open_append(&last.path)
        .map_err(|e| file_problem(&e))?;
    // A process that was killed may have left bytes in the system's memory alone, and a name.
    file.sync()
        .and_then(|()| env.files.sync_dir(folder))
        .map_err(|e| file_problem(&e))?;
    let writer = LogWriter {
        env: env.clone(),
        folder: folder.to_owned(),
        file,
        segment_bytes_max,
        sync: Arc::default(),
        synced: last.bytes,
        poisoned: None,
    };
    let reader = LogReader {
        env: env.clone(),
        segments: RwLock::new(segments.into_iter().map(Arc::new).collect()),
        archive,
        cache: Mutex::default(),
    };
    Ok((writer, reader, messages))
}

pub fn segment_paths(env: &Env, folder: &Path) -> Result<Vec<PathBuf>, Problem> {
    let mut paths = env.files.list(folder).map_err(|e| file_problem(&e))?;
    paths.retain(|p| p.extension().is_some_and(|e| e == "seg"));
    paths.sort();
    Ok(paths)
}

/// The first sequence of the oldest segment in a folder.
pub fn first_named(env: &Env, folder: &Path) -> Result<Option<Sequence>, Problem> {
    if !env.files.exists(folder) {
        return Ok(None);
    }
    let paths = segment_paths(env, folder)?;
    Ok(paths.first().and_then(|path| Segment::named(path)))
}

/// The segments, and the sequence to begin with where there are none.
fn open_segments(
    env: &Env,
    folder: &Path,
    messages: &mut Vec<String>,
) -> Result<(Vec<Segment>, Sequence), Problem> {
    let paths = segment_paths(env, folder)?;
    let mut next_sequence = 1;
    let mut segments: Vec<Segment> = Vec::with_capacity(paths.len());
    for (index, path) in paths.iter().enumerate() {
        let last = index + 1 == paths.len();
        let segment = match Segment::open(env, path, last, false)? {
            Opened::Whole(segment) => segment,
            Opened::Torn {
                segment,
                lost_bytes,
            } => {
                let mut file = env.files.open_append(path).map_err(|e| file_problem(&e))?;
                file.truncate(segment.bytes).map_err(|e| file_problem(&e))?;
                file.sync().map_err(|e| file_problem(&e))?;
                messages.push(format!(
                    "{}: cut off {lost_bytes} bytes of a write that never came to its end, at byte {}",
                    path.display(),
                    segment.bytes
                ));
                segment
            }
            Opened::Empty => {
                next_sequence = Segment::named(path).unwrap_or(1);
                env.files.remove_file(path).map_err(|e| file_problem(&e))?;
                messages.push(format!("{}: removed, it was never begun", path.display()));
                continue;
            }
        };
        segments.push(segment);
    }
    Ok((segments, next_sequence))
}

/// The segments that only the archive has.
fn before(local: &[Segment], archive: Option<&Archive>) -> Vec<Segment> {
    let first = local.first().map_or(Sequence::MAX, |s| s.first_sequence);
    let archived = archive.map(Archive::segments).unwrap_or_default();
    let before = archived.into_iter().filter(|s| s.first_sequence < first);
    before.collect()
}

/// Whether each segment begins where the one before it ends.
fn unbroken(segments: &[Segment]) -> Result<(), Problem> {
    for pair in segments.windows(2) {
        let (before, after) = (&pair[0], &pair[1]);
        if before.next_sequence != after.first_sequence {
            return Err(
                Problem::external("log-corrupt", "a segment of the log is missing")
                    .detail(format!(
                        "{} ends before sequence {}, {} begins with {}",
                        before.place(),
                        before.next_sequence,
                        after.place(),
                        after.first_sequence
                    ))
                    .hint("restore the missing file from a copy"),
            );
        }
    }
    Ok(())
}

fn create(env: &Env, folder: &Path, first_sequence: Sequence) -> Result<Segment, Problem> {
    let path = folder.join(Segment::file_name(first_sequence));
    let mut file = env.files.open_append(&path).map_err(|e| file_problem(&e))?;
    // An earlier attempt may have failed half-way and left its bytes.
    let made = file
        .truncate(0)
        .and_then(|()| file.append(&Segment::header(first_sequence)))
        .and_then(|()| file.sync())
        .and_then(|()| env.files.sync_dir(folder));
    if let Err(error) = made {
        drop(file);
        let _ = env.files.remove_file(&path);
        return Err(file_problem(&error));
    }
    Ok(Segment::new(path, first_sequence))
}

impl LogReader {
    pub fn segments(&self) -> Vec<Arc<Segment>> {
        self.segments
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub fn first_sequence(&self) -> Sequence {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        segments.first().map_or(1, |s| s.first_sequence)
    }

    pub fn last_sequence(&self) -> Sequence {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        segments.last().map_or(0, |s| s.next_sequence - 1)
    }

    fn last(&self) -> Arc<Segment> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        match segments.last() {
            Some(last) => last.clone(),
            None => Arc::new(Segment::new(PathBuf::new(), 1)),
        }
    }

    fn replace_last(&self, segment: Arc<Segment>) {
        let mut segments = self
            .segments
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        segments.pop();
        segments.push(segment);
    }

    fn push(&self, segment: Arc<Segment>) {
        self.segments
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .push(segment);
    }

    /// Batches from a sequence on, at least one where there is any, about `facts_max` facts.
    pub fn read(
        &self,
        from: Sequence,
        facts_max: usize,
    ) -> Result<Vec<Arc<SequencedBatch>>, Problem> {
        let frames = self.read_frames(from, facts_max)?;
        Ok(frames.iter().filter_map(|f| f.batch().cloned()).collect())
    }

    /// The frames of [`LogReader::read`].
    pub fn read_frames(&self, from: Sequence, facts_max: usize) -> Result<Vec<Frame>, Problem> {
        let mut found = Vec::new();
        let mut facts = 0;
        for segment in self.segments().iter().filter(|s| s.next_sequence > from) {
            let segment = self.opened(segment)?;
            let first = segment.span_of(from).unwrap_or(0);
            for span in first..segment.spans.len() {
                for frame in self.passing(&segment, span)?.iter() {
                    if let Some(batch) = frame.batch()
                        && batch.last_sequence() >= from
                        && !batch.is_empty()
                    {
                        facts += batch.len();
                        found.push(frame.clone());
                    }
                }
                if facts >= facts_max {
                    return Ok(found);
                }
            }
        }
        Ok(found)
    }

    /// Whether any fact of a contract was revised or retracted.
    pub fn any_removed(&self, contract: &str) -> bool {
        let segments = self.segments();
        let mut summaries = segments.iter().filter_map(|s| s.contracts.get(contract));
        summaries.any(|summary| summary.removed > 0)
    }

    /// The frames among which is the one that holds a sequence.
    pub fn frames_of(&self, sequence: Sequence) -> Result<Option<Arc<Vec<Frame>>>, Problem> {
        let segments = self.segments();
        let after = segments.partition_point(|s| s.first_sequence <= sequence);
        let Some(segment) = after.checked_sub(1).map(|i| &segments[i]) else {
            return Ok(None);
        };
        let segment = self.opened(segment)?;
        match segment.span_of(sequence) {
            Some(span) => self.frames(&segment, span).map(Some),
            None => Ok(None),
        }
    }

    /// Every frame from the newest span to the oldest, of the segments and spans that are wanted when their turn comes,
    /// until `visit` says stop.
    pub fn visit_newest(
        &self,
        segment_wanted: impl Fn(&Segment) -> bool,
        wanted: impl Fn(&Span) -> bool,
        mut visit: impl FnMut(&Frame) -> bool,
    ) -> Result<(), Problem> {
        for segment in self.segments().iter().rev() {
            if !segment_wanted(segment) || !segment.spans.iter().any(&wanted) {
                continue;
            }
            let segment = self.opened(segment)?;
            for span in (0..segment.spans.len()).rev() {
                if wanted(&segment.spans[span]) {
                    let frames = self.frames(&segment, span)?;
                    if !frames.iter().rev().all(&mut visit) {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// Reads every byte of every segment; how many frames' bytes are whole.
    pub fn verify(&self) -> Result<u64, Problem> {
        let segments = self.segments();
        let mut bytes = 0;
        for segment in segments.iter().filter(|s| !s.archived) {
            match Segment::open(&self.env, &segment.path, false, true)? {
                Opened::Whole(found) => bytes += found.bytes,
                Opened::Torn { .. } | Opened::Empty => {}
            }
        }
        Ok(bytes)
    }

    /// The oldest segments, as far as `expired` holds of them; never the last.
    pub fn oldest(&self, expired: impl Fn(&Segment) -> bool) -> Vec<Arc<Segment>> {
        let mut segments = self.segments();
        segments.pop();
        let ends = segments.iter().position(|segment| !expired(segment));
        segments.truncate(ends.unwrap_or(segments.len()));
        segments
    }

    /// Removes segments that are the oldest.
    pub fn drop_all(&self, oldest: &[Arc<Segment>]) -> Result<(), Problem> {
        for segment in oldest {
            self.segments
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(0);
            if let Some(archive) = &self.archive {
                archive.forget(segment.first_sequence)?;
            }
            if !segment.archived {
                self.remove_file(segment)?;
            }
        }
        Ok(())
    }

    /// The newest event time of a contract's facts, capped at their arrival.
    pub fn newest(&self, contract: &str) -> Option<Micros> {
        let segments = self.segments();
        let newest = segments
            .iter()
            .filter_map(|s| s.contracts.get(contract))
            .map(|c| c.newest)
            // A record may tell of rows in quarantine alone, and bring no fact.
            .filter(|newest| *newest > Micros::MIN);
        newest.max()
    }

    /// The newest arrival time of any fact or row.
    pub fn newest_arrival(&self) -> Micros {
        self.segments()
            .iter()
            .map(|s| s.ingest_time)
            .max()
            .unwrap_or(Micros::MIN)
    }
}
