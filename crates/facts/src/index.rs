//! What is derived from the log to find facts again: the newest live fact of each id, postings by
//! entity, and which facts have been revised or retracted.
//!
//! New entries gather in memory; once there are many, a thread writes them to the LSM store in the
//! order of their keys, together with the sequence they reach. After a crash the log is read again
//! from that sequence.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use fjall::{Database, Keyspace, KeyspaceCreateOptions};
use hashbrown::HashSet;
use headwater_schema::{Micros, Position, Problem, Sequence, SequencedBatch};
use xxhash_rust::xxh3::xxh3_64;

use crate::{IndexSpec, Lookup};

pub(crate) mod entries;
mod gathered;
mod id_filter;
mod write;

use entries::{
    decode_known, decode_positions, decode_removals, encode_known, encode_positions,
    encode_removals,
};
pub use gathered::IdChange;
use gathered::{EntityKeyBytes, Gathered};
use id_filter::IdFilter;

/// Facts gathered in memory before they are written to the store.
const GATHERED_FACTS_MAX: u64 = 131_072;
/// Facts gathered in memory before who brings more has to wait for the store.
const WAITING_FACTS_MAX: u64 = 2 * GATHERED_FACTS_MAX;
/// Entries in one write to the store.
const WRITE_ENTRIES: usize = 4096;
/// Facts gathered in memory, because the store fails, before no more are taken.
const OVERFLOW_FACTS_MAX: u64 = 2 * WAITING_FACTS_MAX;
/// Bytes of the store's journal before what is in it is written in order. A start reads the journal and holds it
/// in memory; small tables fill too slowly to be written for their own sake, and would keep ten times as much.
const JOURNAL_BYTES_MAX: u64 = 64 << 20;
/// How often a lock that is held is asked for, a fifth of a second each: a process that has just ended may take that long to let go.
const LOCK_TRIES: usize = 50;
/// Every fact up to here is in the store.
const REACHED: &str = "reached";
/// No entry of the store is of a later fact.
const WRITING: &str = "writing";

/// The newest live fact with an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownId {
    pub sequence: Sequence,
    pub payload: u64,
    pub ingest_time: Micros,
    /// The live fact with the same id that is newest after it; 0 for none.
    pub older: Sequence,
}

/// Ids and postings of one log.
pub struct Index {
    database: Database,
    ids: Keyspace,
    postings: Keyspace,
    removed: Keyspace,
    removals: Keyspace,
    meta: Keyspace,
    specs: Mutex<Vec<IndexSpec>>,
    /// Indexes that lack earlier facts, with the sequence up to which they do.
    building: Mutex<Vec<(IndexSpec, Sequence)>>,
    gathered: Mutex<Gathered>,
    /// What a thread is writing to the store; still looked at until it is done.
    writing: Mutex<Option<Arc<Gathered>>>,
    /// What has been written, emptied, for the next facts to gather in: its memory is there already.
    spare: Mutex<Gathered>,
    writer: Mutex<Option<JoinHandle<Result<(), Problem>>>>,
    filter: Arc<IdFilter>,
    /// Reads the known ids into the filter.
    loader: Mutex<Option<JoinHandle<()>>>,
    closing: Arc<AtomicBool>,
    /// How many bytes the store took when that was last asked.
    bytes: AtomicU64,
}

impl Drop for Index {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Relaxed);
        if let Some(loader) = lock(&self.loader).take()
            && loader.join().is_err()
        {
            tracing::error!("the thread that reads known ids panicked");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failed(error: &fjall::Error) -> Problem {
    Problem::external("fact-index-failed", "the index of facts failed")
        .detail(error)
        .hint("it can be made again from the log: stop, delete the folder `index` of the data folder, and start")
        .retryable()
}

fn in_use() -> Problem {
    Problem::external(Index::IN_USE, "the index of facts is in use")
        .detail("another process holds the lock of the folder `index` of the data folder")
        .hint("wait until it has ended, or stop it, and start again")
        .retryable()
}

/// The number under which an index is stored.
fn spec_hash(spec: &IndexSpec) -> u64 {
    let mut name = spec.contract.to_string();
    for column in &spec.key_columns {
        name.push('\n');
        name.push_str(column);
    }
    xxh3_64(name.as_bytes())
}

/// The key that says an index is complete.
fn marker(spec: &IndexSpec) -> String {
    format!("spec-{:016x}", spec_hash(spec))
}

impl Index {
    /// The code of the problem that another holds the index.
    pub const IN_USE: &str = "fact-index-in-use";

    /// Opens or creates the index in `folder`; `fact-index-in-use` where another holds it for long: what it
    /// holds is whole, and must not be made again.
    pub fn open(folder: &Path) -> Result<Self, Problem> {
        let open = || {
            Database::builder(folder)
                .cache_size(32 << 20)
                .worker_threads(1)
                .max_journaling_size(JOURNAL_BYTES_MAX)
                .manual_journal_persist(true)
                .open()
        };
        let opened = std::iter::repeat_with(open)
            .take(LOCK_TRIES)
            .find(|opened| !matches!(opened, Err(fjall::Error::Locked)));
        let database = opened.ok_or_else(in_use)?.map_err(|e| failed(&e))?;
        let keyspace = |name| {
            database
                .keyspace(name, KeyspaceCreateOptions::default)
                .map_err(|e| failed(&e))
        };
        let index = Self {
            ids: keyspace("ids")?,
            postings: keyspace("postings")?,
            removed: keyspace("removed")?,
            removals: keyspace("removals")?,
            meta: keyspace("meta")?,
            database,
            specs: Mutex::default(),
            building: Mutex::default(),
            gathered: Mutex::default(),
            writing: Mutex::default(),
            spare: Mutex::default(),
            writer: Mutex::default(),
            filter: Arc::new(IdFilter::new()),
            loader: Mutex::default(),
            closing: Arc::default(),
            bytes: AtomicU64::default(),
        };
        index.measure();
        lock(&index.gathered).reached = index.stored_reach(REACHED)?;
        index.load_filter()?;
        Ok(index)
    }

    /// Starts reading the known ids into the filter.
    fn load_filter(&self) -> Result<(), Problem> {
        if self.ids.is_empty().map_err(|e| failed(&e))? {
            self.filter.completed();
            return Ok(());
        }
        let (ids, filter) = (self.ids.clone(), self.filter.clone());
        let closing = self.closing.clone();
        let load = move || {
            for entry in ids.iter() {
                let id = entry.key().ok();
                let id = id.and_then(|id| <[u8; 16]>::try_from(id.as_ref()).ok());
                match id {
                    Some(id) if !closing.load(Ordering::Relaxed) => {
                        filter.insert(u128::from_be_bytes(id));
                    }
                    // The filter stays incomplete: every id is looked up in the store.
                    _ => return,
                }
            }
            filter.completed();
        };
        let thread = std::thread::Builder::new()
            .name("headwater-known-ids".into())
            .spawn(load);
        let thread = thread
            .map_err(|e| Problem::external("thread", "a thread can't be started").detail(e))?;
        *lock(&self.loader) = Some(thread);
        Ok(())
    }

    fn stored_reach(&self, name: &str) -> Result<Sequence, Problem> {
        let stored = self.meta.get(name).map_err(|e| failed(&e))?;
        let bytes = stored.and_then(|b| <[u8; 8]>::try_from(b.as_ref()).ok());
        Ok(bytes.map_or(0, Sequence::from_be_bytes))
    }

    /// Every fact up to this sequence is indexed.
    pub fn reached(&self) -> Sequence {
        lock(&self.gathered).reached
    }

    /// Adds an index; the sequence that it has been brought to, where that is before the others'.
    pub fn add_spec(&self, spec: IndexSpec) -> Result<Sequence, Problem> {
        let known = self
            .meta
            .get(marker(&spec))
            .map_err(|e| failed(&e))?
            .is_some();
        let mut specs = lock(&self.specs);
        if !specs.contains(&spec) {
            specs.push(spec);
        }
        Ok(if known { self.reached() } else { 0 })
    }

    pub fn specs(&self) -> Vec<IndexSpec> {
        lock(&self.specs).clone()
    }

    pub fn has_spec(&self, spec: &IndexSpec) -> bool {
        lock(&self.specs).contains(spec)
    }

    /// Whether an index has all facts.
    pub fn is_complete(&self, spec: &IndexSpec) -> bool {
        self.has_spec(spec) && !lock(&self.building).iter().any(|(b, _)| b == spec)
    }

    /// Adds an index to a log in use; what is in the log already is still to be put into it, unless
    /// there is nothing.
    pub fn begin(&self, spec: IndexSpec, nothing_behind: bool) -> Result<(), Problem> {
        let reached = self.reached();
        if !nothing_behind {
            lock(&self.building).push((spec.clone(), reached));
        }
        self.add_spec(spec).map(drop)
    }

    /// The indexes that lack earlier facts.
    pub fn building(&self) -> Vec<(IndexSpec, Sequence)> {
        lock(&self.building).clone()
    }

    /// Says that indexes lack nothing any more.
    pub fn built(&self, specs: &[IndexSpec]) {
        lock(&self.building).retain(|(spec, _)| !specs.contains(spec));
    }

    /// Says that every index but those that are being built has been brought to the same sequence.
    pub fn specs_complete(&self) -> Result<(), Problem> {
        let building = self.building();
        for spec in lock(&self.specs).iter() {
            if building.iter().any(|(b, _)| b == spec) {
                continue;
            }
            self.meta
                .insert(marker(spec).as_str(), [1])
                .map_err(|e| failed(&e))?;
        }
        Ok(())
    }

    /// Forgets that indexes which aren't kept up any more were once complete.
    pub fn forget_other_specs(&self) -> Result<(), Problem> {
        let kept: Vec<String> = lock(&self.specs).iter().map(marker).collect();
        for entry in self.meta.prefix("spec-") {
            let name = entry.key().map_err(|e| failed(&e))?;
            if !kept.iter().any(|kept| kept.as_bytes() == name.as_ref()) {
                self.meta.remove(name).map_err(|e| failed(&e))?;
            }
        }
        Ok(())
    }

    /// The newest live fact with an id.
    pub fn known(&self, id: u128) -> Result<Option<KnownId>, Problem> {
        if let Some(known) = lock(&self.gathered).ids.get(&id) {
            return Ok(*known);
        }
        let writing = lock(&self.writing).clone();
        if let Some(known) = writing.as_ref().and_then(|w| w.ids.get(&id)) {
            return Ok(*known);
        }
        if !self.filter.may_contain(id) {
            return Ok(None);
        }
        let stored = self.ids.get(id.to_be_bytes()).map_err(|e| failed(&e))?;
        Ok(stored.and_then(|bytes| decode_known(&bytes)))
    }

    /// The sequence from which a fact isn't seen any more; none where it lives.
    pub fn removed_at(&self, sequence: Sequence) -> Result<Option<Sequence>, Problem> {
        if let Some(at) = lock(&self.gathered).removed.get(&sequence) {
            return Ok(Some(*at));
        }
        let writing = lock(&self.writing).clone();
        if let Some(at) = writing.as_ref().and_then(|w| w.removed.get(&sequence)) {
            return Ok(Some(*at));
        }
        let stored = self.removed.get(sequence.to_be_bytes());
        let stored = stored.map_err(|e| failed(&e))?;
        let bytes = stored.and_then(|bytes| <[u8; 8]>::try_from(bytes.as_ref()).ok());
        Ok(bytes.map(Sequence::from_be_bytes))
    }

    /// The facts of the sequences `from..=until` that aren't seen any more, each with the sequence from
    /// which it isn't; ascending.
    pub fn removed_among(
        &self,
        from: Sequence,
        until: Sequence,
    ) -> Result<Vec<(Sequence, Sequence)>, Problem> {
        let mut removed = BTreeMap::new();
        let mut gather = |gathered: &Gathered| {
            let pairs = gathered.removed.iter();
            let pairs = pairs.filter(|(s, _)| (from..=until).contains(*s));
            removed.extend(pairs.map(|(s, at)| (*s, *at)));
        };
        // In the order in which entries move, so that none is missed on its way.
        gather(&lock(&self.gathered));
        if let Some(writing) = lock(&self.writing).clone() {
            gather(&writing);
        }
        for entry in self.removed.range(from.to_be_bytes()..=until.to_be_bytes()) {
            let (key, at) = entry.into_inner().map_err(|e| failed(&e))?;
            let key = <[u8; 8]>::try_from(key.as_ref()).ok();
            let at = <[u8; 8]>::try_from(at.as_ref()).ok();
            if let Some((key, at)) = key.zip(at) {
                removed.insert(Sequence::from_be_bytes(key), Sequence::from_be_bytes(at));
            }
        }
        Ok(removed.into_iter().collect())
    }

    /// Takes a batch in. `ids` are what it changes of ids, in order.
    pub fn add(&self, batch: &SequencedBatch, ids: Vec<IdChange>) {
        let specs = self.specs_of(&batch.batch.contract);
        let mut gathered = lock(&self.gathered);
        for (id, known) in ids {
            self.filter.insert(id);
            gathered.ids.insert(id, known);
        }
        for removed in &batch.removed {
            let pairs = removed.sequences.iter().zip(&removed.removed_at);
            gathered.removed.extend(pairs.map(|(s, at)| (*s, *at)));
        }
        for spec in &specs {
            gathered.add_batch(spec, batch);
        }
        gathered.facts += batch.len() as u64;
        gathered.reached = gathered.reached.max(batch.last_sequence());
    }

    /// Adds the postings of one index from a batch that the others have.
    pub fn backfill(&self, spec: &IndexSpec, batch: &SequencedBatch) {
        let mut gathered = lock(&self.gathered);
        gathered.add_batch(spec, batch);
        gathered.facts += batch.len() as u64;
    }

    fn specs_of(&self, contract: &str) -> Vec<IndexSpec> {
        let specs = lock(&self.specs);
        specs
            .iter()
            .filter(|s| s.contract.as_ref() == contract)
            .cloned()
            .collect()
    }

    /// Which of an entity's facts aren't seen at `known_at`, though they were appended by then.
    fn removed_by(
        &self,
        key: &EntityKeyBytes,
        known_at: Sequence,
    ) -> Result<HashSet<Sequence>, Problem> {
        let mut found = Vec::new();
        found.extend(lock(&self.gathered).removals.get(key).into_iter().flatten());
        let writing = lock(&self.writing).clone();
        found.extend(writing.iter().filter_map(|w| w.removals.get(key)).flatten());
        for entry in self.removals.prefix(postings_key(key.0, &key.1)) {
            decode_removals(&entry.value().map_err(|e| failed(&e))?, &mut found);
        }
        let seen = found.into_iter().filter(|(_, at)| *at <= known_at);
        Ok(seen.map(|(sequence, _)| sequence).collect())
    }

    /// The positions of an entity's live facts from sequence `first` on, ascending, without repeats.
    pub fn positions(&self, lookup: &Lookup, first: Sequence) -> Result<Vec<Position>, Problem> {
        let spec = IndexSpec {
            contract: lookup.contract.clone(),
            key_columns: lookup.key_columns.clone(),
        };
        if self.has_spec(&spec) && !self.is_complete(&spec) {
            return Err(
                Problem::external("index-building", "facts can't be looked up yet")
                    .detail(format!(
                        "the index of `{}` by {} is being built",
                        spec.contract,
                        spec.key_columns.join(", ")
                    ))
                    .hint("definitions were applied a moment ago: try again a little later")
                    .retryable(),
            );
        }
        let spec = spec_hash(&spec);
        let key = (spec, lookup.key.as_bytes().to_vec());
        let mut found = Vec::new();
        found.extend(
            lock(&self.gathered)
                .postings
                .get(&key)
                .into_iter()
                .flatten(),
        );
        let writing = lock(&self.writing).clone();
        found.extend(
            writing
                .iter()
                .filter_map(|w| w.postings.get(&key))
                .flatten(),
        );
        for entry in self.postings.prefix(postings_key(spec, &key.1)) {
            let value = entry.value().map_err(|e| failed(&e))?;
            decode_positions(&value, &mut found);
        }
        let removed = self.removed_by(&key, lookup.known_at)?;
        found.retain(|p| {
            let within = lookup.from <= *p && *p < lookup.until;
            let known = (first..=lookup.known_at).contains(&p.sequence);
            within && known && !removed.contains(&p.sequence)
        });
        found.sort_unstable();
        found.dedup();
        if let Some(newest) = lookup.newest {
            found.drain(..found.len().saturating_sub(newest));
        }
        Ok(found)
    }

    /// How many bytes the store takes, as of the last write to it. It doesn't ask the store, which waits for
    /// whoever writes.
    pub fn size_bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn measure(&self) {
        let bytes = self.database.disk_space().unwrap_or(0);
        self.bytes.store(bytes, Ordering::Relaxed);
    }
}

fn join(writer: Option<JoinHandle<Result<(), Problem>>>) -> Result<(), Problem> {
    let crashed = || Problem::internal("fact-index-failed", "the index's thread panicked");
    writer.map_or(Ok(()), |w| w.join().unwrap_or_else(|_| Err(crashed())))
}

fn postings_key(spec: u64, key: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(16 + key.len());
    bytes.extend(spec.to_be_bytes());
    bytes.extend(key);
    bytes
}
