//! The archive: sealed segments of the log as Parquet files, partitioned by contract and day, in a
//! folder or an object store. Other programs read them as they are; the log reads them back, so that
//! facts which have left its own files are found as before.
//!
//! A segment is archived as a whole: first its files, then the entry that names them, in the archive
//! and in the data folder. Only then may the log let its own file go. A copy of every entry lies in
//! the data folder, so that starting needs no archive within reach.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use headwater_env::Env;
use headwater_schema::{Micros, Problem, Sequence};

use crate::segment::{Segment, file_problem};

pub(crate) mod columns;
pub(crate) mod entry;
mod read;
mod remote;
pub(crate) mod rest;
mod restored;
mod run;
mod store;
mod write;

pub use columns::archived_name;
pub use entry::{ArchivedFile, ArchivedObject, unreadable as damaged};
pub use remote::RemoteStore;
pub use run::ArchiveRun;
pub use store::{ArchiveStore, FolderStore, failed as unreachable};

use entry::{Entry, FORMAT, Identity, entry_path, identity_path};
use restored::Restored;

/// Where an archive lies and how it is used.
#[derive(Clone)]
pub struct ArchiveOptions {
    pub store: Arc<dyn ArchiveStore>,
    /// How long facts that are archived stay in the log too, in microseconds since they arrived.
    pub after: Micros,
    /// Bytes of segments that were read back, kept as files for the next read.
    pub cache_bytes_max: u64,
}

impl std::fmt::Debug for ArchiveOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "archive at {}", self.store.url())
    }
}

/// The store that a URL names: a folder (`file:///…`) or an object store. `options` are
/// object_store's own names and may be secret.
pub fn open_archive_store(
    env: &Env,
    url: &str,
    options: Vec<(String, String)>,
) -> Result<Arc<dyn ArchiveStore>, Problem> {
    match url.strip_prefix("file://") {
        Some(folder) if !folder.starts_with('/') => Err(Problem::user(
            "archive-url",
            "the archive's folder isn't absolute",
        )
        .field("archive.url")
        .detail(format!("it is `{url}`"))
        .hint("write `file:///srv/facts`; without `url` it lies in the data folder")),
        Some(folder) => Ok(Arc::new(FolderStore::new(env.clone(), Path::new(folder)))),
        None => Ok(Arc::new(RemoteStore::open(url, options)?)),
    }
}

/// What an operator wants to know of the archive.
#[derive(Debug, Clone, Default)]
pub struct ArchiveStats {
    /// Every kept fact up to this sequence is in the archive; 0 where none is.
    pub through: Sequence,
    pub segments: u64,
    /// Segments that the log itself has no more.
    pub segments_only_here: u64,
    pub files: u64,
    pub facts: u64,
    pub bytes: u64,
    /// Bytes of segments that were read back and are kept as files.
    pub cache_bytes: u64,
    /// What the last try failed with; none where it went well, or there was none.
    pub failure: Option<Problem>,
}

/// The facts of a contract in the archive, for readers of Parquet.
#[derive(Debug, Clone, Default)]
pub struct ArchiveListing {
    /// Every kept fact up to this sequence is in the files, and none after it; the log has the rest.
    pub through: Sequence,
    pub facts: Vec<ArchivedFile>,
    /// Which facts, here or in earlier files, were revised or retracted, and at which sequence.
    pub corrections: Vec<ArchivedFile>,
}

/// Sealed segments of one log in an archive.
pub struct Archive {
    env: Env,
    options: ArchiveOptions,
    /// Copies of the entries.
    folder: PathBuf,
    /// The log's own files.
    log: PathBuf,
    entries: RwLock<BTreeMap<Sequence, Arc<Entry>>>,
    restored: Restored,
    /// Held while segments are archived or let go.
    running: Mutex<()>,
    failure: Mutex<Option<Problem>>,
}

impl Archive {
    /// The archive of the log in `folder`.
    pub(crate) fn open(env: &Env, folder: &Path, options: ArchiveOptions) -> Result<Self, Problem> {
        let (restored, log) = (folder.join("restored"), folder.join("log"));
        let folder = folder.join("archive");
        let entries = read_entries(env, &folder)?;
        Ok(Self {
            restored: Restored::open(env, restored, options.cache_bytes_max)?,
            env: env.clone(),
            options,
            folder,
            log,
            entries: RwLock::new(entries),
            running: Mutex::default(),
            failure: Mutex::default(),
        })
    }

    fn entries(&self) -> Vec<Arc<Entry>> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries.values().cloned().collect()
    }

    fn entry(&self, first_sequence: Sequence) -> Option<Arc<Entry>> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries.get(&first_sequence).cloned()
    }

    /// The segments of the archive, oldest first.
    pub(crate) fn segments(&self) -> Vec<Segment> {
        let archived = |entry: &Arc<Entry>| Segment {
            archived: true,
            ..entry.segment.clone()
        };
        self.entries().iter().map(archived).collect()
    }

    /// Whether the log has no file of a segment any more.
    fn has_left(&self, first_sequence: Sequence) -> bool {
        let path = self.log.join(Segment::file_name(first_sequence));
        !self.env.files.exists(&path)
    }

    pub(crate) fn has(&self, first_sequence: Sequence) -> bool {
        self.entry(first_sequence).is_some()
    }

    /// A segment with its records, read back as a file.
    pub(crate) fn restored(&self, first_sequence: Sequence) -> Result<Arc<Segment>, Problem> {
        let entry = self.entry(first_sequence).ok_or_else(|| {
            Problem::internal("archive-entry", "a segment isn't in the archive")
                .detail(format!("it begins with sequence {first_sequence}"))
        })?;
        let read = || read::read_segment(self.options.store.as_ref(), &entry);
        self.restored.get_or(first_sequence, read)
    }

    /// The files of a contract. What they hold ends where the log is to be read from.
    pub fn listing(&self, contract: &str) -> ArchiveListing {
        let entries = self.entries();
        let own = |files: &[ArchivedFile]| {
            let own = files.iter().filter(|file| file.contract == contract);
            own.cloned().collect::<Vec<_>>()
        };
        ArchiveListing {
            through: entries.last().map_or(0, |entry| entry.last_sequence()),
            facts: entries.iter().flat_map(|e| own(&e.facts)).collect(),
            corrections: entries.iter().flat_map(|e| own(&e.corrections)).collect(),
        }
    }

    /// Where the objects are; their paths are those of [`ArchivedObject::path`].
    pub fn store(&self) -> &Arc<dyn ArchiveStore> {
        &self.options.store
    }

    pub fn stats(&self) -> ArchiveStats {
        let mut stats = ArchiveStats {
            cache_bytes: self.restored.bytes(),
            ..ArchiveStats::default()
        };
        let entries = self.entries();
        // The oldest leave first.
        let left = entries.partition_point(|entry| self.has_left(entry.first_sequence()));
        stats.segments_only_here = left as u64;
        for entry in entries {
            stats.through = entry.last_sequence();
            stats.segments += 1;
            stats.files += (entry.facts.len() + entry.corrections.len()) as u64;
            stats.facts += entry.facts.iter().map(|f| f.rows).sum::<u64>();
            stats.bytes += entry.objects().map(|o| o.bytes).sum::<u64>();
        }
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        stats.failure = failure.clone();
        stats
    }

    /// Reads every object and checks that it is what was written; how many bytes are.
    pub fn verify(&self) -> Result<u64, Problem> {
        let mut bytes = 0;
        for entry in self.entries() {
            for object in entry.objects() {
                bytes += read::whole(self.options.store.as_ref(), object)?.len() as u64;
            }
        }
        Ok(bytes)
    }

    fn local(&self, first_sequence: Sequence, extension: &str) -> PathBuf {
        self.folder
            .join(format!("{first_sequence:020}.{extension}"))
    }

    fn write_local(&self, path: &Path, bytes: &[u8]) -> Result<(), Problem> {
        let files = &self.env.files;
        files
            .create_dir_all(&self.folder)
            .and_then(|()| files.write_atomic(path, bytes))
            .map_err(|e| file_problem(&e))
    }

    /// Makes sure that the archive is this log's own, before anything is written to it.
    fn identify(&self) -> Result<(), Problem> {
        let path = self.folder.join("identity.json");
        let own = match self.env.files.exists(&path) {
            true => {
                let bytes = self.env.files.read(&path).map_err(|e| file_problem(&e))?;
                Identity::from_bytes(&bytes)?
            }
            false => {
                let parts = [self.env.random.next_u64(), self.env.random.next_u64()];
                let id = parts.map(|part| format!("{part:016x}")).concat();
                let own = Identity { format: FORMAT, id };
                self.write_local(&path, &own.to_bytes()?)?;
                own
            }
        };
        let store = &self.options.store;
        if store.put_new(&identity_path(), own.to_bytes()?)? {
            return Ok(());
        }
        let found = store.get(&identity_path())?.unwrap_or_default();
        if Identity::from_bytes(&found)? == own {
            return Ok(());
        }
        Err(
            Problem::user("archive-of-another", "the archive is another log's")
                .field("archive.url")
                .detail(format!("{} holds facts of another data folder", store.url()))
                .hint("give every data folder an archive of its own: another bucket, prefix or folder"),
        )
    }

    /// Puts the entry of a segment whose files are there: from now on it counts.
    fn commit(&self, entry: Entry) -> Result<(), Problem> {
        let (first, bytes) = (entry.first_sequence(), entry.to_bytes()?);
        self.options.store.put(&entry_path(first), bytes.clone())?;
        self.write_local(&self.local(first, "json"), &bytes)?;
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        entries.insert(first, Arc::new(entry));
        Ok(())
    }

    /// Lets a segment go whose facts are past their retention. Its objects are removed later.
    pub(crate) fn forget(&self, first_sequence: Sequence) -> Result<(), Problem> {
        let Some(entry) = self.entry(first_sequence) else {
            return Ok(());
        };
        self.write_local(&self.local(first_sequence, "expired"), &entry.to_bytes()?)?;
        let files = &self.env.files;
        files
            .remove_file(&self.local(first_sequence, "json"))
            .and_then(|()| files.sync_dir(&self.folder))
            .map_err(|e| file_problem(&e))?;
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        entries.remove(&first_sequence);
        drop(entries);
        self.restored.forget(first_sequence);
        Ok(())
    }

    /// Removes the objects of segments that were let go.
    fn remove_expired(&self) -> Result<(), Problem> {
        if !self.env.files.exists(&self.folder) {
            return Ok(());
        }
        let mut paths = self
            .env
            .files
            .list(&self.folder)
            .map_err(|e| file_problem(&e))?;
        paths.retain(|path| path.extension().is_some_and(|e| e == "expired"));
        for path in paths {
            let bytes = self.env.files.read(&path).map_err(|e| file_problem(&e))?;
            let entry = Entry::from_bytes(&bytes)?;
            let store = &self.options.store;
            store.delete(&entry_path(entry.first_sequence()))?;
            for object in entry.objects() {
                store.delete(&object.path)?;
            }
            self.env
                .files
                .remove_file(&path)
                .map_err(|e| file_problem(&e))?;
        }
        Ok(())
    }
}

/// The entries that the data folder has copies of.
fn read_entries(env: &Env, folder: &Path) -> Result<BTreeMap<Sequence, Arc<Entry>>, Problem> {
    let mut entries = BTreeMap::new();
    if !env.files.exists(folder) {
        return Ok(entries);
    }
    let paths = env.files.list(folder).map_err(|e| file_problem(&e))?;
    let named = |extension: &str| {
        let of = paths
            .iter()
            .filter(|p| p.extension().is_some_and(|e| e == extension));
        let of = of.filter_map(|path| Some((Segment::named(path)?, path.clone())));
        of.collect::<BTreeMap<Sequence, PathBuf>>()
    };
    let expired = named("expired");
    for (first, path) in named("json") {
        if !expired.contains_key(&first) {
            let bytes = env.files.read(&path).map_err(|e| file_problem(&e))?;
            entries.insert(first, Arc::new(Entry::from_bytes(&bytes)?));
        }
    }
    Ok(entries)
}

/// The segments of a log that have left it, found without opening it: those that begin before
/// `first_local`.
pub(crate) fn archived_segments(
    env: &Env,
    folder: &Path,
    first_local: Sequence,
) -> Result<Vec<Segment>, Problem> {
    let entries = read_entries(env, &folder.join("archive"))?;
    let before = entries.range(..first_local);
    Ok(before.map(|(_, entry)| entry.segment.clone()).collect())
}

#[cfg(test)]
mod tests;
