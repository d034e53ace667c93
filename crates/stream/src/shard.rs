//! One shard: the states in memory of the entities whose keys hash to it, view by view.

use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use headwater_aggregate::EntityState;
use headwater_features::{CompiledView, FeatureStore, PreparedFacts};
use headwater_schema::{EntityKey, Problem, Sequence};

mod counters;
mod settle;

pub(crate) use counters::ViewCounters;

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
    counters: Arc<ViewCounters>,
    /// The entities that changed since their states were stored. Some may have been stored or have
    /// left memory since.
    changed: Vec<EntityKey>,
    /// Whether the view is gone and its slot waits for another.
    dropped: bool,
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
    /// A slot that waits for a view; it holds nothing of `view`.
    fn vacant(view: &Arc<CompiledView>) -> Self {
        Self {
            view: view.clone(),
            entities: HashMap::with_hasher(FixedState::default()),
            counters: Arc::default(),
            changed: Vec::new(),
            dropped: true,
        }
    }

    fn bytes(&self) -> usize {
        self.counters.bytes.get() as usize
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
        self.entities
            .insert(EntityKey::from_bytes(key), Box::new(entry));
        self.counters.entities.set(self.entities.len() as u64);
        self.counters.bytes.add(bytes as u64);
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

    /// Puts a view in its slot: a new one, or another definition over the same state, with its own
    /// counters. Slots are filled in any order.
    pub(crate) fn put(
        &mut self,
        slot: usize,
        view: &Arc<CompiledView>,
        counters: &Arc<ViewCounters>,
    ) {
        while self.views.len() <= slot {
            self.views.push(ViewShard::vacant(view));
        }
        let shard = &mut self.views[slot];
        shard.view = view.clone();
        shard.counters = counters.clone();
        shard.dropped = false;
    }

    /// Lets a view's states go; its slot takes no more facts.
    pub(crate) fn remove(&mut self, slot: usize) {
        let shard = &mut self.views[slot];
        self.bytes = self.bytes.saturating_sub(shard.bytes());
        *shard = ViewShard::vacant(&shard.view);
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
            let counters = &self.views[view].counters;
            counters.bytes.add(row_bytes as u64);
            counters.facts.add(1);
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
            shard.counters.loads.add(u64::from(loaded.is_some()));
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
                shard.counters.loads.add(1);
                let answer = read(Some(&state));
                self.bytes += shard.admit(key, state);
                Ok(Some(answer))
            }
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
