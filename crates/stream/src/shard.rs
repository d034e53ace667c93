//! One shard: the states in memory of the entities whose keys hash to it, view by view.

use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use headwater_aggregate::{EntityState, Layout};
use headwater_features::{CompiledView, FeatureStore, PreparedFacts, Storage, StoredState};
use headwater_schema::{DataType, EntityKey, Micros, Problem, Sequence};

/// How many states of views that live on disk stay in memory between two batches.
const DISK_CACHE_ENTITIES_MAX: usize = 1024;
/// The share of the budget that an eviction frees, as a divisor.
const EVICTION_SHARE: usize = 8;

/// The states in memory of one shard.
pub(crate) struct Shard {
    views: Vec<ViewShard>,
    /// About how many bytes the states take.
    bytes: usize,
    bytes_max: usize,
}

struct ViewShard {
    view: Arc<CompiledView>,
    entities: HashMap<EntityKey, Entry, FixedState>,
    counters: ViewCounters,
    /// Whether the view is gone and its slot waits for another.
    dropped: bool,
}

/// What a shard counts of one view.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ViewCounters {
    pub facts: u64,
    pub evictions: u64,
    pub loads: u64,
    pub entities: u64,
    pub bytes: u64,
}

struct Entry {
    state: EntityState,
    bytes: usize,
    dirty: bool,
    /// Used since the last sweep for states to evict.
    used: bool,
}

impl Shard {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            views: Vec::new(),
            bytes: 0,
            bytes_max,
        }
    }

    /// Puts a view in its slot: a new one, or another definition over the same state.
    pub(crate) fn put(&mut self, slot: usize, view: &Arc<CompiledView>) {
        match self.views.get_mut(slot) {
            Some(shard) => {
                shard.view = view.clone();
                shard.dropped = false;
            }
            None => self.views.push(ViewShard {
                view: view.clone(),
                entities: HashMap::with_hasher(FixedState::default()),
                counters: ViewCounters::default(),
                dropped: false,
            }),
        }
    }

    /// Lets a view's states go; its slot takes no more facts.
    pub(crate) fn remove(&mut self, slot: usize) {
        let shard = &mut self.views[slot];
        let bytes: usize = shard.entities.values().map(|e| e.bytes).sum();
        self.bytes = self.bytes.saturating_sub(bytes);
        shard.entities = HashMap::with_hasher(FixedState::default());
        shard.counters = ViewCounters::default();
        shard.dropped = true;
    }

    /// Applies the rows of prepared facts that belong to this shard.
    pub(crate) fn apply(
        &mut self,
        view: usize,
        facts: &PreparedFacts,
        rows: impl Iterator<Item = usize>,
        store: &dyn FeatureStore,
    ) -> Result<(), Problem> {
        if self.views[view].dropped {
            return Ok(());
        }
        let layout = &self.views[view].view.clone().layout;
        let row_bytes = row_bytes(layout);
        for row in rows {
            let entry = self.entry(view, facts.key(row), store)?;
            entry.state.insert(layout, &facts.rows, row);
            entry.dirty = true;
            entry.bytes += row_bytes;
            self.bytes += row_bytes;
            self.views[view].counters.facts += 1;
        }
        Ok(())
    }

    /// Takes a fact out of the state that has it, from sequence `at` on. A state that has folded the
    /// fact away is replaced by what `remake` makes of its key, where it can.
    pub(crate) fn retract(
        &mut self,
        view: usize,
        facts: &PreparedFacts,
        row: usize,
        at: Sequence,
        store: &dyn FeatureStore,
        remake: impl FnOnce(&[u8]) -> Result<Option<EntityState>, Problem>,
    ) -> Result<(), Problem> {
        let compiled = self.views[view].view.clone();
        let key = facts.key(row);
        let entry = self.entry(view, key, store)?;
        entry.dirty = true;
        let position = facts.rows.position(row);
        if entry.state.retract(&compiled.layout, position, at).is_ok() {
            return Ok(());
        }
        match remake(key)? {
            Some(state) => entry.state = state,
            None => entry.state.lose_base(at),
        }
        Ok(())
    }

    /// The entry of a key, loaded from the store or new.
    fn entry(
        &mut self,
        view: usize,
        key: &[u8],
        store: &dyn FeatureStore,
    ) -> Result<&mut Entry, Problem> {
        let shard = &mut self.views[view];
        if !shard.entities.contains_key(key) {
            let loaded = load(&shard.view, key, store)?;
            shard.counters.loads += u64::from(loaded.is_some());
            let state = loaded.unwrap_or_else(|| EntityState::new(&shard.view.layout));
            let bytes = state.size_bytes();
            self.bytes += bytes;
            let entry = Entry {
                state,
                bytes,
                dirty: false,
                used: true,
            };
            shard.entities.insert(EntityKey::from_bytes(key), entry);
        }
        let entry = shard.entities.get_mut(key);
        let entry = entry.ok_or_else(|| Problem::internal("shard-entry", "an entry vanished"))?;
        entry.used = true;
        Ok(entry)
    }

    /// Shows the state of an entity to `read`, where it knows one; none where the view was dropped.
    pub(crate) fn read<T>(
        &mut self,
        view: usize,
        key: &[u8],
        store: &dyn FeatureStore,
        read: impl FnOnce(Option<&EntityState>) -> T,
    ) -> Result<Option<T>, Problem> {
        let shard = &mut self.views[view];
        if shard.dropped {
            return Ok(None);
        }
        if let Some(entry) = shard.entities.get_mut(key) {
            entry.used = true;
            return Ok(Some(read(Some(&entry.state))));
        }
        match load(&shard.view, key, store)? {
            None => Ok(Some(read(None))),
            Some(state) => {
                shard.counters.loads += 1;
                let bytes = state.size_bytes();
                self.bytes += bytes;
                let entry = Entry {
                    state,
                    bytes,
                    dirty: false,
                    used: true,
                };
                let answer = read(Some(&entry.state));
                shard.entities.insert(EntityKey::from_bytes(key), entry);
                Ok(Some(answer))
            }
        }
    }

    /// Folds facts older than each view's floor.
    pub(crate) fn fold(&mut self, floors: &[Option<Micros>]) {
        for (shard, floor) in self.views.iter_mut().zip(floors) {
            let Some(floor) = floor else { continue };
            let layout: &Layout = &shard.view.layout;
            for entry in shard.entities.values_mut().filter(|e| e.dirty) {
                entry.state.fold(layout, *floor);
            }
        }
    }

    /// The states that changed since they were last stored, as bytes; they count as stored then.
    pub(crate) fn take_dirty(&mut self) -> Vec<StoredState> {
        let mut states = Vec::new();
        for shard in &mut self.views {
            for (key, entry) in shard.entities.iter_mut().filter(|(_, e)| e.dirty) {
                entry.dirty = false;
                states.push(stored(&shard.view, key, &entry.state));
            }
        }
        states
    }

    /// Whether states should leave memory. An estimate until [`Shard::evict`] measures.
    pub(crate) fn over_budget(&self) -> bool {
        let crowded = |v: &ViewShard| {
            v.view.storage == Storage::Disk && v.entities.len() > DISK_CACHE_ENTITIES_MAX
        };
        self.bytes > self.bytes_max || self.views.iter().any(crowded)
    }

    /// Drops states from memory until the shard is within its budget; returns those that have to be
    /// stored first. The caller stores them before it lets go of the shard.
    pub(crate) fn evict(&mut self) -> Vec<StoredState> {
        self.measure();
        let mut states = Vec::new();
        for index in 0..self.views.len() {
            let shard = &self.views[index];
            let on_disk = shard.view.storage == Storage::Disk;
            if on_disk && shard.entities.len() > DISK_CACHE_ENTITIES_MAX {
                self.evict_view(index, usize::MAX, &mut states);
            }
        }
        if self.bytes > self.bytes_max {
            let target = self.bytes_max - self.bytes_max / EVICTION_SHARE;
            // The first sweep spares what was used since the last one; the second spares nothing.
            for _ in 0..2 {
                for index in 0..self.views.len() {
                    if self.views[index].view.storage != Storage::Memory {
                        let surplus = self.bytes.saturating_sub(target);
                        self.evict_view(index, surplus, &mut states);
                    }
                }
            }
        }
        states
    }

    fn evict_view(&mut self, index: usize, surplus: usize, states: &mut Vec<StoredState>) {
        let shard = &mut self.views[index];
        let view = shard.view.clone();
        let all = surplus == usize::MAX;
        let (mut freed, mut evicted) = (0, 0);
        shard.entities.retain(|key, entry| {
            if freed >= surplus {
                return true;
            }
            if std::mem::take(&mut entry.used) && !all {
                return true;
            }
            if entry.dirty {
                states.push(stored(&view, key, &entry.state));
            }
            freed += entry.bytes;
            evicted += 1;
            false
        });
        shard.counters.evictions += evicted;
        self.bytes = self.bytes.saturating_sub(freed);
    }

    /// Measures the states that changed since they were last measured.
    fn measure(&mut self) {
        let mut bytes = 0;
        for shard in &mut self.views {
            for entry in shard.entities.values_mut() {
                if entry.dirty {
                    entry.bytes = entry.state.size_bytes();
                }
                bytes += entry.bytes;
            }
        }
        self.bytes = bytes;
    }

    pub(crate) fn counters(&self, view: usize) -> ViewCounters {
        let shard = &self.views[view];
        ViewCounters {
            entities: shard.entities.len() as u64,
            bytes: shard.entities.values().map(|e| e.bytes as u64).sum(),
            ..shard.counters
        }
    }
}

/// About how many bytes of memory one more fact takes.
fn row_bytes(layout: &Layout) -> usize {
    let input = |data_type: &DataType| match data_type {
        DataType::Bool => 1,
        DataType::Date => 4,
        DataType::Int64 | DataType::Float64 | DataType::Timestamp => 8,
        DataType::String => 40,
        _ => 64,
    };
    16 + layout.inputs.iter().map(input).sum::<usize>()
}

fn stored(view: &CompiledView, key: &EntityKey, state: &EntityState) -> StoredState {
    let mut bytes = Vec::new();
    state.encode(&mut bytes);
    StoredState {
        view: view.state_id.clone(),
        key: key.as_bytes().to_vec(),
        state: bytes,
    }
}

fn load(
    view: &CompiledView,
    key: &[u8],
    store: &dyn FeatureStore,
) -> Result<Option<EntityState>, Problem> {
    let Some(bytes) = store.get(&view.state_id, &[key])?.pop().flatten() else {
        return Ok(None);
    };
    let state = EntityState::decode(&view.layout, &bytes).map_err(|corrupt| {
        Problem::external("feature-store-corrupt", "a stored state can't be read")
            .detail(format!("{} in view `{}`", corrupt.0, view.name))
            .hint("stop, delete the folder `features` of the data folder, and start: it is made again from the fact log")
    })?;
    Ok(Some(state))
}
