//! Files for what sweeps and spines can't hold in memory: records in the order they were written, or bytes as they came.
//!
//! ```text
//! file:   u8 format | record ...   or   u8 format | bytes
//! record: u32 length | bytes
//! ```
//!
//! Each user has a folder of its own within the spill folder and holds a lock in it. The folder goes with its user; one that a
//! process left behind when it was killed goes when the next user begins to write.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use headwater_env::{AppendFile, Env, FileError, FileErrorKind, FileLock, ReadFile};
use headwater_schema::Problem;

/// The format of the files. They never outlive their user; a reader checks it all the same.
const FORMAT: u8 = 1;
const LOCK: &str = "lock";
/// Bytes that wait to be written to one file, and bytes that are read at a time.
const BUFFER_BYTES: usize = 32 * 1024;

/// How many bytes may lie on the disk at once, for all who share it.
#[derive(Debug, Clone)]
pub struct SpillLimit(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    bytes_max: u64,
    setting: &'static str,
    used: AtomicU64,
}

impl SpillLimit {
    /// `setting` is the name by which a person knows the limit.
    pub fn new(bytes_max: u64, setting: &'static str) -> Self {
        Self(Arc::new(Shared {
            bytes_max,
            setting,
            used: AtomicU64::new(0),
        }))
    }

    fn share(&self) -> Share {
        Share {
            limit: self.clone(),
            bytes: 0,
        }
    }
}

impl Default for SpillLimit {
    /// As much as the disk has.
    fn default() -> Self {
        Self::new(u64::MAX, "the disk")
    }
}

/// What one file takes of the limit, until it goes.
struct Share {
    limit: SpillLimit,
    bytes: u64,
}

impl Share {
    fn take(&mut self, bytes: u64) -> Result<(), Problem> {
        let limit = &self.limit.0;
        self.bytes += bytes;
        let before = limit.used.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) <= limit.bytes_max {
            return Ok(());
        }
        Err(Problem::user(
            "spill-too-large",
            "more would have to be written to the disk meanwhile than may be",
        )
        .detail(format!(
            "more than {} bytes (`{}`)",
            limit.bytes_max, limit.setting
        ))
        .hint("ask for fewer rows at once, or allow more memory or disk"))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.limit.0.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Where somebody writes what doesn't fit in memory.
pub struct Spill {
    env: Env,
    folder: PathBuf,
    limit: SpillLimit,
    own: Mutex<Option<Own>>,
}

/// The folder of one user.
struct Own {
    folder: PathBuf,
    files: u64,
    _lock: Box<dyn FileLock>,
}

impl Spill {
    /// Nothing is made before something is written.
    pub fn new(env: &Env, folder: &Path, limit: &SpillLimit) -> Arc<Self> {
        Arc::new(Self {
            env: env.clone(),
            folder: folder.to_owned(),
            limit: limit.clone(),
            own: Mutex::default(),
        })
    }

    /// A new file.
    pub(crate) fn file(self: &Arc<Self>) -> Result<SpillFile, Problem> {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if own.is_none() {
            self.sweep_up()?;
            *own = Some(self.make()?);
        }
        let Some(own) = own.as_mut() else {
            return Err(Problem::internal("spill", "there is no folder to spill to"));
        };
        own.files += 1;
        let path = own.folder.join(own.files.to_string());
        let file = self.env.files.open_append(&path).map_err(problem)?;
        Ok(SpillFile {
            share: self.limit.share(),
            spill: self.clone(),
            path,
            file,
            waiting: vec![FORMAT],
            bytes: 1,
        })
    }

    fn make(&self) -> Result<Own, Problem> {
        loop {
            let name = format!("{:016x}", self.env.random.next_u64());
            let folder = self.folder.join(name);
            if self.env.files.exists(&folder) {
                continue;
            }
            self.env.files.create_dir_all(&folder).map_err(problem)?;
            // Another user that found the folder without a lock may be about to remove it.
            if let Ok(lock) = self.env.files.lock(&folder.join(LOCK)) {
                return Ok(Own {
                    folder,
                    files: 0,
                    _lock: lock,
                });
            }
        }
    }

    /// Removes what users left that were killed.
    fn sweep_up(&self) -> Result<(), Problem> {
        let files = &self.env.files;
        files.create_dir_all(&self.folder).map_err(problem)?;
        for left in files.list(&self.folder).map_err(problem)? {
            let lock = left.join(LOCK);
            if files.is_dir(&left) && files.exists(&lock) && files.lock(&lock).is_ok() {
                files.remove_dir_all(&left).map_err(problem)?;
            }
        }
        Ok(())
    }
}

impl Drop for Spill {
    fn drop(&mut self) {
        let own = self.own.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = own.take() {
            // Nobody is left to hear of a failure; the next user tries again.
            let _ = self.env.files.remove_dir_all(&own.folder);
        }
    }
}

/// A file that is being written.
pub(crate) struct SpillFile {
    share: Share,
    spill: Arc<Spill>,
    path: PathBuf,
    file: Box<dyn AppendFile>,
    waiting: Vec<u8>,
    bytes: u64,
}

impl SpillFile {
    /// Appends a record that `write` makes.
    pub(crate) fn record(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), Problem> {
        let start = self.waiting.len();
        self.waiting.extend([0; 4]);
        write(&mut self.waiting);
        let length = u32::try_from(self.waiting.len() - start - 4).map_err(|_| too_long())?;
        self.waiting[start..start + 4].copy_from_slice(&length.to_le_bytes());
        self.bytes += u64::from(length) + 4;
        match self.waiting.len() >= BUFFER_BYTES {
            true => self.flush(),
            false => Ok(()),
        }
    }

    /// Appends bytes that are no record.
    pub(crate) fn bytes_as_they_are(&mut self, bytes: &[u8]) -> Result<(), Problem> {
        self.waiting.extend_from_slice(bytes);
        self.bytes += bytes.len() as u64;
        match self.waiting.len() >= BUFFER_BYTES {
            true => self.flush(),
            false => Ok(()),
        }
    }

    /// Where the next record begins.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn flush(&mut self) -> Result<(), Problem> {
        let waiting = std::mem::take(&mut self.waiting);
        self.share.take(waiting.len() as u64)?;
        self.file.append(&waiting).map_err(problem)
    }

    /// What was written, to be read.
    pub(crate) fn finish(mut self) -> Result<Arc<SpilledFile>, Problem> {
        self.flush()?;
        let file = self.spill.env.files.open_read(&self.path);
        let file = SpilledFile {
            file: file.map_err(problem)?,
            _share: self.share,
            spill: self.spill,
            path: self.path,
            bytes: self.bytes,
        };
        let mut format = [0];
        file.file.read_at(0, &mut format).map_err(problem)?;
        match format == [FORMAT] {
            true => Ok(Arc::new(file)),
            false => Err(torn()),
        }
    }
}

/// A file that was written. It goes when nobody reads it any more.
pub(crate) struct SpilledFile {
    _share: Share,
    spill: Arc<Spill>,
    path: PathBuf,
    file: Box<dyn ReadFile>,
    bytes: u64,
}

impl Drop for SpilledFile {
    fn drop(&mut self) {
        // The folder goes as a whole in the end.
        let _ = self.spill.env.files.remove_file(&self.path);
    }
}

/// Bytes that are no records, after the format.
impl ReadFile for SpilledFile {
    fn length(&self) -> Result<u64, FileError> {
        Ok(self.bytes - 1)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), FileError> {
        self.file.read_at(offset + 1, buffer)
    }
}

/// Reads records one after another.
pub(crate) struct Records {
    file: Arc<SpilledFile>,
    /// The bytes that are still to be read.
    next: u64,
    end: u64,
    buffer: Vec<u8>,
    at: usize,
}

impl Records {
    /// All records.
    pub(crate) fn all(file: Arc<SpilledFile>) -> Self {
        let end = file.bytes;
        Self::between(file, 1, end)
    }

    /// The records from byte `start` to byte `end`.
    pub(crate) fn between(file: Arc<SpilledFile>, start: u64, end: u64) -> Self {
        Self {
            file,
            next: start,
            end,
            buffer: Vec::new(),
            at: 0,
        }
    }

    /// The next record; none at the end.
    pub(crate) fn next(&mut self) -> Result<Option<&[u8]>, Problem> {
        if self.at == self.buffer.len() && self.next == self.end {
            return Ok(None);
        }
        self.have(4)?;
        let length = read_u32(&self.buffer[self.at..]) as usize;
        self.have(4 + length)?;
        let start = self.at + 4;
        self.at = start + length;
        Ok(Some(&self.buffer[start..self.at]))
    }

    /// Sees to it that so many bytes are there.
    fn have(&mut self, bytes: usize) -> Result<(), Problem> {
        let held = self.buffer.len() - self.at;
        if held >= bytes {
            return Ok(());
        }
        self.buffer.drain(..self.at);
        self.at = 0;
        let left = self.end - self.next;
        let wanted = ((bytes - held).max(BUFFER_BYTES) as u64).min(left) as usize;
        self.buffer.resize(held + wanted, 0);
        let read = self.file.file.read_at(self.next, &mut self.buffer[held..]);
        read.map_err(problem)?;
        self.next += wanted as u64;
        match self.buffer.len() >= bytes {
            true => Ok(()),
            false => Err(torn()),
        }
    }
}

/// The number at the front of some bytes; zero where there are too few.
pub(crate) fn read_u32(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |b| u32::from_le_bytes(*b))
}

fn too_long() -> Problem {
    Problem::user(
        "row-too-large",
        "rows are too large to be written to the disk",
    )
    .detail("some of them take more than 4 GiB together")
}

fn torn() -> Problem {
    Problem::external("spill", "a file that was spilled can't be read back")
}

fn problem(error: FileError) -> Problem {
    match error.kind {
        FileErrorKind::DiskFull => {
            Problem::external("disk-full", "the disk is full of what didn't fit in memory")
                .detail(error)
                .hint("make room, allow more memory, or ask for fewer rows at once")
        }
        _ => {
            Problem::external("file", "a file for what doesn't fit in memory failed").detail(error)
        }
    }
}
