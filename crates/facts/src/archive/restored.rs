//! Segments that were read back from the archive, kept as files for the next read. All of it can be
//! deleted. Where no file can be written, the last one is held in memory: a full disk stops no reader.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use headwater_env::Env;
use headwater_schema::{Problem, Sequence};

use crate::frame::{self, Frame};
use crate::segment::{Segment, file_problem};

/// Bytes written at a time.
const PART_BYTES: usize = 1 << 20;

/// Segments read back, as many as fit.
pub struct Restored {
    env: Env,
    folder: PathBuf,
    bytes_max: u64,
    kept: Mutex<Vec<Arc<Segment>>>,
    /// The last that no file could be written of, with its bytes.
    held: Mutex<Option<Arc<Segment>>>,
    /// Whether it was told that no file can be written.
    told: AtomicBool,
    /// Held while one is being made: one at a time bounds the memory.
    making: Mutex<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Restored {
    /// Nothing yet; what an earlier process left is removed.
    pub fn open(env: &Env, folder: PathBuf, bytes_max: u64) -> Result<Self, Problem> {
        if let Err(error) = env.files.remove_dir_all(&folder) {
            tracing::warn!(%error, "what was read back from the archive can't be removed");
        }
        Ok(Self {
            env: env.clone(),
            folder,
            bytes_max,
            kept: Mutex::default(),
            held: Mutex::default(),
            told: AtomicBool::new(false),
            making: Mutex::default(),
        })
    }

    /// The segment that begins with a sequence, if it is here; it is then the last to be let go.
    pub fn get(&self, first_sequence: Sequence) -> Option<Arc<Segment>> {
        let mut kept = lock(&self.kept);
        let same = |s: &Arc<Segment>| s.first_sequence == first_sequence;
        let Some(at) = kept.iter().position(same) else {
            return lock(&self.held).clone().filter(same);
        };
        let segment = kept.remove(at);
        kept.push(segment.clone());
        Some(segment)
    }

    /// The segment that begins with a sequence; `read` gives its records where it isn't here.
    pub fn get_or(
        &self,
        first_sequence: Sequence,
        read: impl FnOnce() -> Result<Vec<Frame>, Problem>,
    ) -> Result<Arc<Segment>, Problem> {
        if let Some(segment) = self.get(first_sequence) {
            return Ok(segment);
        }
        let _making = lock(&self.making);
        if let Some(segment) = self.get(first_sequence) {
            return Ok(segment);
        }
        let frames = read()?;
        let path = self.folder.join(Segment::file_name(first_sequence));
        let mut segment = Segment::new(path, first_sequence);
        if let Err(problem) = self.write(&mut segment, &frames) {
            return self.hold(segment, &frames, &problem);
        }
        let segment = Arc::new(segment);
        lock(&self.kept).push(segment.clone());
        *lock(&self.held) = None;
        self.told.store(false, Ordering::Relaxed);
        self.make_room();
        Ok(segment)
    }

    /// Reads past the files, where one can't be written.
    fn hold(
        &self,
        failed: Segment,
        frames: &[Frame],
        problem: &Problem,
    ) -> Result<Arc<Segment>, Problem> {
        // What there is of the file would keep the disk full.
        let _ = self.env.files.remove_file(&failed.path);
        if !self.told.swap(true, Ordering::Relaxed) {
            tracing::warn!(%problem, "what is read back from the archive can't be kept for the next read");
        }
        let mut segment = Segment::new(failed.path, failed.first_sequence);
        let mut held = Vec::new();
        encode(&mut segment, frames, |bytes| {
            held.extend_from_slice(bytes);
            Ok(())
        })?;
        segment.held = Some(held.into());
        let segment = Arc::new(segment);
        *lock(&self.held) = Some(segment.clone());
        Ok(segment)
    }

    fn write(&self, segment: &mut Segment, frames: &[Frame]) -> Result<(), Problem> {
        let files = &self.env.files;
        files
            .create_dir_all(&self.folder)
            .map_err(|e| file_problem(&e))?;
        let file = files.open_append(&segment.path);
        let mut file = file.map_err(|e| file_problem(&e))?;
        file.truncate(0).map_err(|e| file_problem(&e))?;
        encode(segment, frames, |bytes| {
            file.append(bytes).map_err(|e| file_problem(&e))
        })
    }

    /// Lets the longest unused go while there is too much; never the newest.
    fn make_room(&self) {
        let mut kept = lock(&self.kept);
        while kept.len() > 1 && kept.iter().map(|s| s.bytes).sum::<u64>() > self.bytes_max {
            let oldest = kept.remove(0);
            // Whoever was about to read it has it read back again.
            if let Err(error) = self.env.files.remove_file(&oldest.path) {
                tracing::warn!(%error, "a segment read back from the archive can't be removed");
            }
        }
    }

    /// Lets a segment go whose facts are no longer kept.
    pub fn forget(&self, first_sequence: Sequence) {
        let mut kept = lock(&self.kept);
        if let Some(at) = kept.iter().position(|s| s.first_sequence == first_sequence) {
            let segment = kept.remove(at);
            let _ = self.env.files.remove_file(&segment.path);
        }
        let mut held = lock(&self.held);
        if held
            .as_ref()
            .is_some_and(|s| s.first_sequence == first_sequence)
        {
            *held = None;
        }
    }

    pub fn bytes(&self) -> u64 {
        lock(&self.kept).iter().map(|s| s.bytes).sum()
    }
}

/// A segment's bytes, part by part, and its index.
fn encode(
    segment: &mut Segment,
    frames: &[Frame],
    mut put: impl FnMut(&[u8]) -> Result<(), Problem>,
) -> Result<(), Problem> {
    let mut bytes = Segment::header(segment.first_sequence);
    for frame in frames {
        let before = bytes.len();
        frame::put_frame(&mut bytes, frame)?;
        segment.note(frame, (bytes.len() - before) as u64);
        if bytes.len() >= PART_BYTES {
            put(&bytes)?;
            bytes.clear();
        }
    }
    put(&bytes)
}
