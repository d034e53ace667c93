//! A disk for the log whose faults are told, beside real folders for the embedded index; and a feature
//! store that fails and forgets as it is told.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use headwater_env::{AppendFile, FileError, FileLock, Files, ReadFile, RealFiles, SimulatedFiles};
use headwater_features::{FeatureStore, MemoryFeatureStore, StoreWrite};
use headwater_schema::{Problem, Sequence};

/// Holds up whoever has written to the log, until it is opened: what is sent meanwhile waits, and is
/// written together.
#[derive(Default)]
pub struct Gate {
    /// Whether it is closed, and whether somebody waits.
    state: Mutex<(bool, bool)>,
    changed: Condvar,
}

impl Gate {
    pub fn close(&self) {
        *self.state.lock().unwrap() = (true, false);
    }

    pub fn open(&self) {
        *self.state.lock().unwrap() = (false, false);
        self.changed.notify_all();
    }

    /// Whether somebody waits, or comes to within some time.
    pub fn is_met(&self, within: Duration) -> bool {
        let state = self.state.lock().unwrap();
        let met = self
            .changed
            .wait_timeout_while(state, within, |(_, met)| !*met);
        met.unwrap().0.1
    }

    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.1 |= state.0;
        self.changed.notify_all();
        let passed = self.changed.wait_while(state, |(closed, _)| *closed);
        drop(passed.unwrap());
    }
}

/// A file of the log.
struct GatedFile(Box<dyn AppendFile>, Arc<Gate>);

impl AppendFile for GatedFile {
    fn append(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        self.0.append(bytes)?;
        self.1.pass();
        Ok(())
    }

    fn sync(&mut self) -> Result<(), FileError> {
        self.0.sync()
    }

    fn truncate(&mut self, length: u64) -> Result<(), FileError> {
        self.0.truncate(length)
    }
}

/// The simulated disk, except that folders are removed from the real one too: the embedded index
/// lies there.
pub struct MixedFiles(pub Arc<SimulatedFiles>, pub Arc<Gate>);

impl Files for MixedFiles {
    fn create_dir_all(&self, folder: &Path) -> Result<(), FileError> {
        self.0.create_dir_all(folder)
    }

    fn open_append(&self, path: &Path) -> Result<Box<dyn AppendFile>, FileError> {
        let file = self.0.open_append(path)?;
        match path.extension().is_some_and(|e| e == "seg") {
            true => Ok(Box::new(GatedFile(file, self.1.clone()))),
            false => Ok(file),
        }
    }

    fn open_read(&self, path: &Path) -> Result<Box<dyn ReadFile>, FileError> {
        self.0.open_read(path)
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>, FileError> {
        self.0.read(path)
    }

    fn write_atomic(&self, path: &Path, bytes: &[u8]) -> Result<(), FileError> {
        self.0.write_atomic(path, bytes)
    }

    fn write_new(&self, path: &Path, bytes: &[u8]) -> Result<bool, FileError> {
        self.0.write_new(path, bytes)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), FileError> {
        self.0.rename(from, to)
    }

    fn list(&self, folder: &Path) -> Result<Vec<PathBuf>, FileError> {
        self.0.list(folder)
    }

    fn exists(&self, path: &Path) -> bool {
        self.0.exists(path)
    }

    fn is_dir(&self, path: &Path) -> bool {
        self.0.is_dir(path)
    }

    fn remove_file(&self, path: &Path) -> Result<(), FileError> {
        self.0.remove_file(path)
    }

    fn remove_dir_all(&self, folder: &Path) -> Result<(), FileError> {
        RealFiles.remove_dir_all(folder)?;
        self.0.remove_dir_all(folder)
    }

    fn sync_dir(&self, folder: &Path) -> Result<(), FileError> {
        self.0.sync_dir(folder)
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn FileLock>, FileError> {
        self.0.lock(path)
    }

    fn canonical(&self, path: &Path) -> Result<PathBuf, FileError> {
        self.0.canonical(path)
    }

    fn free_bytes(&self, folder: &Path) -> Result<u64, FileError> {
        self.0.free_bytes(folder)
    }
}

/// One change of the store.
#[derive(Clone)]
enum Change {
    Write(StoreWrite),
    Retain(Vec<String>),
}

/// Keeps states as the trait promises and no better: a crash takes it back to an earlier write.
#[derive(Default)]
pub struct SimulatedStore {
    now: MemoryFeatureStore,
    /// Everything that made it what it is, in order.
    changes: Mutex<Vec<Change>>,
    /// How many of the changes are sure.
    synced: Mutex<usize>,
    pub fails: AtomicBool,
}

impl SimulatedStore {
    /// The store as a crash leaves it: `kept` of 255 parts of what wasn't synced.
    pub fn crashed(&self, kept: u8) -> Self {
        let changes = self.changes.lock().unwrap();
        let synced = *self.synced.lock().unwrap();
        let rest = changes.len() - synced;
        Self::with_first(&changes, synced + rest * usize::from(kept) / 255)
    }

    /// The store as it was after so many parts of 255 of all that was written.
    pub fn older(&self, part: u8) -> Self {
        let changes = self.changes.lock().unwrap();
        Self::with_first(&changes, changes.len() * usize::from(part) / 255)
    }

    fn with_first(changes: &[Change], length: usize) -> Self {
        let store = Self::default();
        for change in &changes[..length] {
            match change {
                Change::Write(write) => store.now.write(write).unwrap(),
                Change::Retain(views) => store.now.retain(views).unwrap(),
            }
        }
        *store.changes.lock().unwrap() = changes[..length].to_vec();
        *store.synced.lock().unwrap() = length;
        store
    }

    fn change(&self, change: Change) -> Result<(), Problem> {
        if self.fails.load(Ordering::Relaxed) {
            return Err(Problem::external("feature-store-failed", "told to fail").retryable());
        }
        match &change {
            Change::Write(write) => self.now.write(write)?,
            Change::Retain(views) => self.now.retain(views)?,
        }
        self.changes.lock().unwrap().push(change);
        Ok(())
    }
}

impl FeatureStore for SimulatedStore {
    fn get(&self, view: &str, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, Problem> {
        self.now.get(view, keys)
    }

    fn write(&self, write: &StoreWrite) -> Result<(), Problem> {
        self.change(Change::Write(write.clone()))
    }

    fn positions(&self) -> Result<BTreeMap<String, Sequence>, Problem> {
        self.now.positions()
    }

    fn retain(&self, views: &[String]) -> Result<(), Problem> {
        self.change(Change::Retain(views.to_vec()))
    }

    fn sync(&self) -> Result<(), Problem> {
        *self.synced.lock().unwrap() = self.changes.lock().unwrap().len();
        Ok(())
    }

    fn size_bytes(&self) -> u64 {
        self.now.size_bytes()
    }
}
