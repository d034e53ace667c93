//! The embedded feature store: one LSM keyspace per view, and one for the positions.
//!
//! Each stored state is a format byte, a checksum and lz4-compressed bytes. Nothing is forced to the
//! disk: after a power cut the store is at some earlier write, and the log is replayed from there.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{PoisonError, RwLock};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use headwater_schema::{Problem, Sequence};

use super::{FeatureStore, StoreWrite};

const FORMAT: u8 = 1;
const POSITIONS: &str = "positions";
const HEADER_BYTES: usize = 5;
/// Bytes of the journal before what is in it is written in order: a start reads it and holds it in memory.
const JOURNAL_BYTES_MAX: u64 = 64 << 20;
/// How often a lock that is held is asked for, a fifth of a second each: a process that has just ended may take that long to let go.
const LOCK_TRIES: usize = 50;
/// No byte of lz4 stands for more bytes than this.
const COMPRESSION_MAX: usize = 256;

/// Keeps states under one folder. One process at a time.
pub struct EmbeddedFeatureStore {
    database: Database,
    positions: Keyspace,
    views: RwLock<HashMap<String, Keyspace>>,
}

impl EmbeddedFeatureStore {
    /// The code of the problem that another holds the store.
    pub const IN_USE: &str = "feature-store-in-use";

    /// Opens or creates the store in `folder`, with `cache_bytes` of memory for blocks read from disk.
    ///
    /// # Errors
    ///
    /// `feature-store-in-use` where another holds it for long: what it holds is whole, and must not be made again.
    pub fn open(folder: &Path, cache_bytes: u64) -> Result<Self, Problem> {
        Self::open_within(folder, cache_bytes, LOCK_TRIES)
    }

    fn open_within(folder: &Path, cache_bytes: u64, tries: usize) -> Result<Self, Problem> {
        let open = || {
            Database::builder(folder)
                .cache_size(cache_bytes)
                .worker_threads(1)
                .max_journaling_size(JOURNAL_BYTES_MAX)
                .manual_journal_persist(true)
                .open()
        };
        let opened = std::iter::repeat_with(open)
            .take(tries)
            .find(|opened| !matches!(opened, Err(fjall::Error::Locked)));
        let database = opened
            .ok_or_else(in_use)?
            .map_err(|e| failed("opening", &e))?;
        let positions = database
            .keyspace(POSITIONS, KeyspaceCreateOptions::default)
            .map_err(|e| failed("opening", &e))?;
        Ok(Self {
            database,
            positions,
            views: RwLock::default(),
        })
    }

    fn view(&self, name: &str) -> Result<Keyspace, Problem> {
        let views = self.views.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(view) = views.get(name) {
            return Ok(view.clone());
        }
        drop(views);
        let view = self
            .database
            .keyspace(&keyspace_name(name), KeyspaceCreateOptions::default)
            .map_err(|e| failed("opening a view of", &e))?;
        let mut views = self.views.write().unwrap_or_else(PoisonError::into_inner);
        views.insert(name.to_owned(), view.clone());
        Ok(view)
    }
}

/// Keyspace names allow few characters; a view's state id has an `@` in it.
fn keyspace_name(view: &str) -> String {
    format!("view-{}", view.replace('@', "-"))
}

fn failed(doing: &str, error: &fjall::Error) -> Problem {
    Problem::external("feature-store-failed", format!("{doing} the feature store failed"))
        .detail(error)
        .hint("the store can be made again from the fact log: stop, delete the folder `features` of the data folder, and start")
        .retryable()
}

fn in_use() -> Problem {
    Problem::external(EmbeddedFeatureStore::IN_USE, "the feature store is in use")
        .detail("another process holds the lock of the folder `features` of the data folder")
        .hint("wait until it has ended, or stop it, and start again")
        .retryable()
}

fn corrupt(view: &str) -> Problem {
    Problem::external("feature-store-corrupt", "a stored state fails its checksum")
        .detail(format!("in view `{view}`"))
        .hint("stop, delete the folder `features` of the data folder, and start: it is made again from the fact log")
}

fn pack(state: &[u8]) -> Vec<u8> {
    let compressed = lz4_flex::compress_prepend_size(state);
    let mut bytes = Vec::with_capacity(HEADER_BYTES + compressed.len());
    bytes.push(FORMAT);
    bytes.extend(crc32fast::hash(&compressed).to_le_bytes());
    bytes.extend(compressed);
    bytes
}

fn unpack(view: &str, bytes: &[u8]) -> Result<Vec<u8>, Problem> {
    let (header, compressed) = bytes
        .split_first_chunk::<HEADER_BYTES>()
        .ok_or_else(|| corrupt(view))?;
    let [format, checksum @ ..] = *header;
    if format != FORMAT || u32::from_le_bytes(checksum) != crc32fast::hash(compressed) {
        return Err(corrupt(view));
    }
    let size = compressed
        .first_chunk::<4>()
        .map_or(0, |b| u32::from_le_bytes(*b) as usize);
    if size > compressed.len().saturating_mul(COMPRESSION_MAX) {
        return Err(corrupt(view));
    }
    lz4_flex::decompress_size_prepended(compressed).map_err(|_| corrupt(view))
}

impl FeatureStore for EmbeddedFeatureStore {
    fn get(&self, view: &str, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, Problem> {
        let keyspace = self.view(view)?;
        let get = |key: &&[u8]| match keyspace.get(key) {
            Ok(Some(bytes)) => unpack(view, &bytes).map(Some),
            Ok(None) => Ok(None),
            Err(error) => Err(failed("reading", &error)),
        };
        keys.iter().map(get).collect()
    }

    fn write(&self, write: &StoreWrite) -> Result<(), Problem> {
        let mut batch = self.database.batch();
        for state in &write.states {
            let view = self.view(&state.view)?;
            batch.insert(&view, state.key.as_slice(), pack(&state.state));
        }
        for (view, position) in &write.positions {
            batch.insert(&self.positions, view.as_str(), position.to_be_bytes());
        }
        batch.commit().map_err(|e| failed("writing", &e))
    }

    fn positions(&self) -> Result<BTreeMap<String, Sequence>, Problem> {
        let mut positions = BTreeMap::new();
        for entry in self.positions.iter() {
            let (view, position) = entry.into_inner().map_err(|e| failed("reading", &e))?;
            let view = String::from_utf8_lossy(&view).into_owned();
            let bytes: [u8; 8] = position.as_ref().try_into().map_err(|_| corrupt(&view))?;
            positions.insert(view, Sequence::from_be_bytes(bytes));
        }
        Ok(positions)
    }

    fn retain(&self, views: &[String]) -> Result<(), Problem> {
        let kept: Vec<String> = views.iter().map(|v| keyspace_name(v)).collect();
        let mut open = self.views.write().unwrap_or_else(PoisonError::into_inner);
        open.retain(|view, _| views.contains(view));
        let mut positions = self.positions()?;
        positions.retain(|view, _| !views.contains(view));
        for view in positions.keys() {
            self.positions
                .remove(view.as_str())
                .map_err(|e| failed("writing", &e))?;
        }
        // Keyspaces are gone at once: no position may come back that speaks of theirs.
        if !positions.is_empty() {
            self.sync()?;
        }
        for name in self.database.list_keyspace_names() {
            if name.starts_with("view-") && !kept.iter().any(|kept| kept.as_str() == &*name) {
                let keyspace = self
                    .database
                    .keyspace(&name, KeyspaceCreateOptions::default)
                    .map_err(|e| failed("opening a view of", &e))?;
                self.database
                    .delete_keyspace(keyspace)
                    .map_err(|e| failed("dropping a view of", &e))?;
            }
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), Problem> {
        let synced = self.database.persist(PersistMode::SyncAll);
        synced.map_err(|e| failed("syncing", &e))
    }

    fn size_bytes(&self) -> u64 {
        self.database.disk_space().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::StoredState;
    use super::*;

    fn put(store: &EmbeddedFeatureStore) {
        let state = StoredState {
            view: "v@1".to_owned(),
            key: b"k".to_vec(),
            state: b"state".to_vec(),
        };
        let write = StoreWrite {
            states: vec![state],
            positions: [("v@1".to_owned(), 7)].into(),
        };
        store.write(&write).expect("written");
    }

    #[test]
    #[allow(
        clippy::disallowed_methods,
        reason = "the lock is the system's, and so is the time it is held"
    )]
    fn a_store_that_is_held_is_waited_for_and_never_taken() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = EmbeddedFeatureStore::open(folder.path(), 1 << 20).expect("opens");
        put(&store);
        let held = EmbeddedFeatureStore::open_within(folder.path(), 1 << 20, 1);
        assert_eq!(held.err().expect("held").code, EmbeddedFeatureStore::IN_USE);
        let letting_go = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(900));
            drop(store);
        });
        let next = EmbeddedFeatureStore::open(folder.path(), 1 << 20).expect("let go");
        letting_go.join().expect("joins");
        assert_eq!(
            next.get("v@1", &[b"k"]).expect("read"),
            [Some(b"state".to_vec())]
        );
        assert_eq!(next.positions().expect("read")["v@1"], 7);
    }
}
