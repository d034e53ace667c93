//! One shard: the states in memory of the entities whose keys hash to it, view by view.

use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use headwater_aggregate::EntityState;
use headwater_features::{CompiledView, FeatureStore, PreparedFacts};
use headwater_schema::{EntityKey, Problem, Sequence};

mod settle;

/// The states in memory of one shard.
pub(crate) struct Shard {
    views: Vec<ViewShard>,
    /// About how many bytes the states take.
    bytes: usize,
    bytes_max: usize,
}

struct ViewShard {
    view: Arc<CompiledView>,
    /// Boxed: a table has free places, and they should be small.
    entities: HashMap<EntityKey, Box<Entry>, FixedState>,
    counters: ViewCounters,
    /// About how many bytes the states take.
    bytes: usize,
    /// The entities that changed since their states were stored. Some may have been stored or have
    /// left memory since.
    changed: Vec<EntityKey>,
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

/// The state of an entity, made from its facts again.
pub(crate) enum Remade {
    /// Of all of them.
    Whole(EntityState),
    /// Of those that are kept, which have sequences from this on.
    Kept(EntityState, Sequence),
}

struct Entry {
    state: EntityState,
    bytes: usize,
    dirty: bool,
    /// Used since the last sweep for states to evict.
    used: bool,
}

impl ViewShard {
    fn new(view: &Arc<CompiledView>) -> Self {
        Self {
            view: view.clone(),
            entities: HashMap::with_hasher(FixedState::default()),
            counters: ViewCounters::default(),
            bytes: 0,
            changed: Vec::new(),
            dropped: false,
        }
    }

    /// Takes a state into memory.
    fn admit(&mut self, key: &[u8], state: EntityState) -> usize {
        let entry = Entry {
            bytes: state.size_bytes(),
            state,
            dirty: false,
            used: true,
        };
        let bytes = entry.bytes;
        self.bytes += bytes;
        self.entities
            .insert(EntityKey::from_bytes(key), Box::new(entry));
        bytes
    }
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
            None => self.views.push(ViewShard::new(view)),
        }
    }

    /// Lets a view's states go; its slot takes no more facts.
    pub(crate) fn remove(&mut self, slot: usize) {
        let shard = &mut self.views[slot];
        self.bytes = self.bytes.saturating_sub(shard.bytes);
        *shard = ViewShard {
            dropped: true,
            ..ViewShard::new(&shard.view)
        };
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
        let row_bytes = layout.row_bytes();
        for row in rows {
            let entry = self.entry(view, facts.key(row), store)?;
            entry.state.insert(layout, &facts.rows, row);
            entry.bytes += row_bytes;
            self.bytes += row_bytes;
            self.views[view].bytes += row_bytes;
            self.views[view].counters.facts += 1;
        }
        Ok(())
    }

    /// Takes a fact out of the state that has it, from sequence `at` on. For a state that has folded the
    /// fact away `remake` reads the facts of its key again.
    pub(crate) fn retract(
        &mut self,
        view: usize,
        facts: &PreparedFacts,
        row: usize,
        at: Sequence,
        store: &dyn FeatureStore,
        remake: impl FnOnce(&[u8]) -> Result<Remade, Problem>,
    ) -> Result<(), Problem> {
        if self.views[view].dropped {
            return Ok(());
        }
        let compiled = self.views[view].view.clone();
        let key = facts.key(row);
        let entry = self.entry(view, key, store)?;
        let position = facts.rows.position(row);
        if entry.state.retract(&compiled.layout, position, at).is_ok() {
            return Ok(());
        }
        match remake(key)? {
            Remade::Whole(state) => entry.state = state,
            Remade::Kept(kept, from) => {
                let fact = (&facts.rows, row);
                entry
                    .state
                    .retract_folded(&compiled.layout, fact, at, &kept, from);
            }
        }
        Ok(())
    }

    /// The entry of a key, loaded from the store or new, to be changed.
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
            self.bytes += shard.admit(key, state);
        }
        let entry = shard.entities.get_key_value_mut(key);
        let (key, entry) =
            entry.ok_or_else(|| Problem::internal("shard-entry", "an entry vanished"))?;
        entry.used = true;
        if !entry.dirty {
            entry.dirty = true;
            shard.changed.push(key.clone());
        }
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
                let answer = read(Some(&state));
                self.bytes += shard.admit(key, state);
                Ok(Some(answer))
            }
        }
    }

    pub(crate) fn counters(&self, view: usize) -> ViewCounters {
        let shard = &self.views[view];
        ViewCounters {
            entities: shard.entities.len() as u64,
            bytes: shard.bytes as u64,
            ..shard.counters
        }
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
