//! A disk in memory that fails as it is told: full, unsynced bytes lost or torn by a crash, failing syncs.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{AppendFile, FileError, FileLock, Files, Random, ReadFile, SeededRandom};

/// What goes wrong, until it is set otherwise.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// Bytes that may still be written before the disk is full; none: no bound.
    pub bytes_left: Option<u64>,
    /// Every sync fails.
    pub sync_fails: bool,
    /// Nothing can be cut off or removed either: the machine is going down.
    pub mend_fails: bool,
}

/// Files in memory.
pub struct SimulatedFiles {
    disk: Arc<Mutex<Disk>>,
    random: SeededRandom,
}

#[derive(Default)]
struct Disk {
    files: BTreeMap<PathBuf, Content>,
    folders: BTreeSet<PathBuf>,
    locks: BTreeSet<PathBuf>,
    /// Files whose names have been synced with their folder.
    named: BTreeSet<PathBuf>,
    /// Files that were removed since their folder was synced.
    removed: BTreeMap<PathBuf, Content>,
    faults: Faults,
}

impl Disk {
    /// Puts a whole file in the place of another, on the disk.
    fn replace(&mut self, path: &Path, bytes: &[u8]) -> Result<(), FileError> {
        if self.faults.sync_fails {
            let error = io::Error::other("told to fail");
            return Err(FileError::new("writing", path, error));
        }
        if self
            .faults
            .bytes_left
            .is_some_and(|left| left < bytes.len() as u64)
        {
            return Err(FileError::new(
                "writing",
                path,
                io::ErrorKind::StorageFull.into(),
            ));
        }
        if let Some(left) = &mut self.faults.bytes_left {
            *left -= bytes.len() as u64;
        }
        let content = Content {
            bytes: bytes.to_vec(),
            synced: bytes.len(),
        };
        self.files.insert(path.to_owned(), content);
        self.named.insert(path.to_owned());
        Ok(())
    }
}

#[derive(Default, Clone)]
struct Content {
    bytes: Vec<u8>,
    /// How many of them have been synced.
    synced: usize,
}

impl SimulatedFiles {
    pub fn new(seed: u64) -> Self {
        Self {
            disk: Arc::default(),
            random: SeededRandom::new(seed),
        }
    }

    pub fn set_faults(&self, faults: Faults) {
        lock(&self.disk).faults = faults;
    }

    /// A power cut: each file keeps what was synced and a random part of the rest, whose last bytes
    /// may be damaged. A file that is new or removed since its folder was synced may be gone or back.
    /// Locks are gone.
    pub fn crash(&self) {
        let mut guard = lock(&self.disk);
        let disk = &mut *guard;
        disk.locks.clear();
        let lost = || self.random.next_u64().is_multiple_of(2);
        disk.files
            .retain(|path, _| disk.named.contains(path) || !lost());
        for (path, content) in std::mem::take(&mut disk.removed) {
            if lost() {
                disk.files.entry(path).or_insert(content);
            }
        }
        disk.named = disk.files.keys().cloned().collect();
        for content in disk.files.values_mut() {
            let unsynced = content.bytes.len() - content.synced;
            if unsynced == 0 {
                continue;
            }
            let kept = (self.random.next_u64() % (unsynced as u64 + 1)) as usize;
            content.bytes.truncate(content.synced + kept);
            if kept > 0 && self.random.next_u64().is_multiple_of(2) {
                let last = content.bytes.len() - 1;
                content.bytes[last] ^= 0x55;
            }
            content.synced = content.bytes.len();
        }
    }

    /// Flips one bit of a file.
    pub fn flip(&self, path: &Path, byte: usize, bit: u8) {
        if let Some(content) = lock(&self.disk).files.get_mut(path)
            && let Some(byte) = content.bytes.get_mut(byte)
        {
            *byte ^= 1 << (bit % 8);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn not_found(doing: &'static str, path: &Path) -> FileError {
    FileError::new(doing, path, io::ErrorKind::NotFound.into())
}

struct SimulatedFile {
    disk: Arc<Mutex<Disk>>,
    path: PathBuf,
}

impl AppendFile for SimulatedFile {
    fn append(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        let mut disk = lock(&self.disk);
        let room = disk.faults.bytes_left.unwrap_or(u64::MAX);
        let written = usize::try_from(room).unwrap_or(usize::MAX).min(bytes.len());
        if let Some(left) = &mut disk.faults.bytes_left {
            *left -= written as u64;
        }
        let content = disk
            .files
            .get_mut(&self.path)
            .ok_or_else(|| not_found("writing", &self.path))?;
        content.bytes.extend(&bytes[..written]);
        if written < bytes.len() {
            return Err(FileError::new(
                "writing",
                &self.path,
                io::ErrorKind::StorageFull.into(),
            ));
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), FileError> {
        let mut disk = lock(&self.disk);
        if disk.faults.sync_fails {
            return Err(FileError::new(
                "syncing",
                &self.path,
                io::Error::other("told to fail"),
            ));
        }
        let content = disk
            .files
            .get_mut(&self.path)
            .ok_or_else(|| not_found("syncing", &self.path))?;
        content.synced = content.bytes.len();
        Ok(())
    }

    fn truncate(&mut self, length: u64) -> Result<(), FileError> {
        let mut disk = lock(&self.disk);
        if disk.faults.mend_fails {
            let error = io::Error::other("told to fail");
            return Err(FileError::new("truncating", &self.path, error));
        }
        let content = disk
            .files
            .get_mut(&self.path)
            .ok_or_else(|| not_found("truncating", &self.path))?;
        content
            .bytes
            .truncate(usize::try_from(length).unwrap_or(usize::MAX));
        content.synced = content.synced.min(content.bytes.len());
        Ok(())
    }
}

impl ReadFile for SimulatedFile {
    fn length(&self) -> Result<u64, FileError> {
        let disk = lock(&self.disk);
        let content = disk
            .files
            .get(&self.path)
            .ok_or_else(|| not_found("reading", &self.path))?;
        Ok(content.bytes.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), FileError> {
        let disk = lock(&self.disk);
        let content = disk
            .files
            .get(&self.path)
            .ok_or_else(|| not_found("reading", &self.path))?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = start.saturating_add(buffer.len());
        let bytes = content.bytes.get(start..end).ok_or_else(|| {
            FileError::new("reading", &self.path, io::ErrorKind::UnexpectedEof.into())
        })?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }
}

struct SimulatedLock {
    disk: Arc<Mutex<Disk>>,
    path: PathBuf,
}

impl FileLock for SimulatedLock {}

impl Drop for SimulatedLock {
    fn drop(&mut self) {
        lock(&self.disk).locks.remove(&self.path);
    }
}

impl SimulatedFiles {
    fn handle(&self, path: &Path) -> SimulatedFile {
        SimulatedFile {
            disk: self.disk.clone(),
            path: path.to_owned(),
        }
    }
}

impl Files for SimulatedFiles {
    fn create_dir_all(&self, folder: &Path) -> Result<(), FileError> {
        let mut disk = lock(&self.disk);
        disk.folders.extend(folder.ancestors().map(Path::to_owned));
        Ok(())
    }

    fn open_append(&self, path: &Path) -> Result<Box<dyn AppendFile>, FileError> {
        lock(&self.disk).files.entry(path.to_owned()).or_default();
        Ok(Box::new(self.handle(path)))
    }

    fn open_read(&self, path: &Path) -> Result<Box<dyn ReadFile>, FileError> {
        if !lock(&self.disk).files.contains_key(path) {
            return Err(not_found("opening", path));
        }
        Ok(Box::new(self.handle(path)))
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>, FileError> {
        let disk = lock(&self.disk);
        let content = disk
            .files
            .get(path)
            .ok_or_else(|| not_found("reading", path))?;
        Ok(content.bytes.clone())
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), FileError> {
        let mut disk = lock(&self.disk);
        let missing = || FileError::new("renaming", from, io::ErrorKind::NotFound.into());
        let content = disk.files.remove(from).ok_or_else(missing)?;
        disk.named.remove(from);
        disk.files.insert(to.to_owned(), content);
        disk.named.insert(to.to_owned());
        Ok(())
    }

    fn write_atomic(&self, path: &Path, bytes: &[u8]) -> Result<(), FileError> {
        lock(&self.disk).replace(path, bytes)
    }

    fn write_new(&self, path: &Path, bytes: &[u8]) -> Result<bool, FileError> {
        let mut disk = lock(&self.disk);
        if disk.files.contains_key(path) {
            return Ok(false);
        }
        disk.replace(path, bytes).map(|()| true)
    }

    fn list(&self, folder: &Path) -> Result<Vec<PathBuf>, FileError> {
        let disk = lock(&self.disk);
        if !disk.folders.contains(folder) {
            return Err(not_found("listing", folder));
        }
        let paths = disk.files.keys().chain(&disk.folders);
        Ok(paths
            .filter(|p| p.parent() == Some(folder))
            .cloned()
            .collect())
    }

    fn exists(&self, path: &Path) -> bool {
        let disk = lock(&self.disk);
        disk.files.contains_key(path) || disk.folders.contains(path)
    }

    fn is_dir(&self, path: &Path) -> bool {
        lock(&self.disk).folders.contains(path)
    }

    fn remove_file(&self, path: &Path) -> Result<(), FileError> {
        if lock(&self.disk).faults.mend_fails {
            let error = io::Error::other("told to fail");
            return Err(FileError::new("removing", path, error));
        }
        let mut disk = lock(&self.disk);
        let removed = disk.files.remove(path);
        let content = removed.ok_or_else(|| not_found("removing", path))?;
        if disk.named.remove(path) {
            disk.removed.insert(path.to_owned(), content);
        }
        Ok(())
    }

    fn remove_dir_all(&self, folder: &Path) -> Result<(), FileError> {
        let mut disk = lock(&self.disk);
        disk.files.retain(|path, _| !path.starts_with(folder));
        disk.folders.retain(|path| !path.starts_with(folder));
        Ok(())
    }

    fn sync_dir(&self, folder: &Path) -> Result<(), FileError> {
        let mut guard = lock(&self.disk);
        let disk = &mut *guard;
        if disk.faults.sync_fails {
            let error = io::Error::other("told to fail");
            return Err(FileError::new("syncing", folder, error));
        }
        let within = |path: &Path| path.parent() == Some(folder);
        let present = disk.files.keys().filter(|p| within(p)).cloned();
        disk.named.extend(present);
        disk.removed.retain(|path, _| !within(path));
        Ok(())
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn FileLock>, FileError> {
        if !lock(&self.disk).locks.insert(path.to_owned()) {
            return Err(FileError::new(
                "locking",
                path,
                io::ErrorKind::WouldBlock.into(),
            ));
        }
        Ok(Box::new(SimulatedLock {
            disk: self.disk.clone(),
            path: path.to_owned(),
        }))
    }

    fn canonical(&self, path: &Path) -> Result<PathBuf, FileError> {
        Ok(path.to_owned())
    }

    fn free_bytes(&self, _folder: &Path) -> Result<u64, FileError> {
        Ok(lock(&self.disk).faults.bytes_left.unwrap_or(u64::MAX))
    }
}
