//! Segments that were read back from the archive, kept as files for the next read. All of it can be
//! deleted.

use std::path::PathBuf;
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
    /// Held while one is being made: one at a time bounds the memory.
    making: Mutex<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Restored {
    /// Nothing yet; what an earlier process left is removed.
    pub fn open(env: &Env, folder: PathBuf, bytes_max: u64) -> Result<Self, Problem> {
        env.files
            .remove_dir_all(&folder)
            .map_err(|e| file_problem(&e))?;
        Ok(Self {
            env: env.clone(),
            folder,
            bytes_max,
            kept: Mutex::default(),
            making: Mutex::default(),
        })
    }

    /// The segment that begins with a sequence, if it is here; it is then the last to be let go.
    pub fn get(&self, first_sequence: Sequence) -> Option<Arc<Segment>> {
        let mut kept = lock(&self.kept);
        let at = kept
            .iter()
            .position(|s| s.first_sequence == first_sequence)?;
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
        let segment = Arc::new(self.write(first_sequence, &read()?)?);
        lock(&self.kept).push(segment.clone());
        self.make_room();
        Ok(segment)
    }

    fn write(&self, first_sequence: Sequence, frames: &[Frame]) -> Result<Segment, Problem> {
        let files = &self.env.files;
        files
            .create_dir_all(&self.folder)
            .map_err(|e| file_problem(&e))?;
        let path = self.folder.join(Segment::file_name(first_sequence));
        let mut file = files.open_append(&path).map_err(|e| file_problem(&e))?;
        file.truncate(0).map_err(|e| file_problem(&e))?;
        let mut segment = Segment::new(path, first_sequence);
        let mut bytes = Segment::header(first_sequence);
        for frame in frames {
            let before = bytes.len();
            frame::put_frame(&mut bytes, frame)?;
            segment.note(frame, (bytes.len() - before) as u64);
            if bytes.len() >= PART_BYTES {
                file.append(&bytes).map_err(|e| file_problem(&e))?;
                bytes.clear();
            }
        }
        file.append(&bytes).map_err(|e| file_problem(&e))?;
        Ok(segment)
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
    }

    pub fn bytes(&self) -> u64 {
        lock(&self.kept).iter().map(|s| s.bytes).sum()
    }
}
