//! How states get to the store: changed ones at a checkpoint, some at a time, and cold ones when the
//! shard has outgrown its memory. A state leaves memory, and counts as stored, only once the store
//! has it.

use std::collections::BTreeMap;

use headwater_features::{CompiledView, FeatureStore, Storage, StoreWrite, StoredState};
use headwater_schema::{EntityKey, Micros, Problem};

use super::{Shard, ViewShard};

/// How many states of views that live on disk stay in memory between two batches.
const DISK_CACHE_ENTITIES_MAX: usize = 1024;
/// The share of the budget that an eviction frees, as a divisor.
const EVICTION_SHARE: usize = 8;
/// States that can't be stored may take this much memory, or as much again as the budget.
const OVERFLOW_BYTES_MIN: usize = 64 << 20;
/// Stored states in one write to the store.
const WRITE_STATES_MAX: usize = 1024;

/// An entity of the view in a slot.
pub(crate) type Changed = (usize, EntityKey);

impl Shard {
    /// The entities that have changed since this was last called.
    pub(crate) fn take_changed(&mut self) -> Vec<Changed> {
        let views = self.views.iter_mut().enumerate();
        views
            .flat_map(|(slot, v)| {
                std::mem::take(&mut v.changed)
                    .into_iter()
                    .map(move |k| (slot, k))
            })
            .collect()
    }

    /// Gives back what [`Shard::take_changed`] gave and the store couldn't take.
    pub(crate) fn put_back_changed(&mut self, changed: Vec<Changed>) {
        for (slot, key) in changed {
            self.views[slot].changed.push(key);
        }
    }

    /// Stores the states of changed entities, their facts folded up to each view's floor.
    pub(crate) fn store_changed(
        &mut self,
        changed: &[Changed],
        floors: &[Option<Micros>],
        store: &dyn FeatureStore,
    ) -> Result<(), Problem> {
        let mut states = Vec::with_capacity(changed.len());
        for (slot, key) in changed {
            let ViewShard { view, entities, .. } = &mut self.views[*slot];
            if let Some(entry) = entities.get_mut(key).filter(|e| e.dirty) {
                if let Some(floor) = floors.get(*slot).copied().flatten() {
                    entry.state.fold(&view.layout, floor);
                }
                states.push(stored(view, key, &entry.state));
            }
        }
        write(store, states)?;
        for (slot, key) in changed {
            if let Some(entry) = self.views[*slot].entities.get_mut(key) {
                entry.dirty = false;
            }
        }
        Ok(())
    }

    /// Whether states should leave memory. An estimate until [`Shard::evict`] measures.
    pub(crate) fn over_budget(&self) -> bool {
        self.bytes > self.bytes_max || self.views.iter().any(ViewShard::is_crowded)
    }

    /// Whether there are so many states that no more facts may come in until some can be stored.
    pub(crate) fn overflows(&self) -> bool {
        self.bytes > self.bytes_max + self.bytes_max.max(OVERFLOW_BYTES_MIN)
    }

    /// Drops states from memory until the shard is within its budget. Facts up to each view's floor
    /// are folded first.
    pub(crate) fn evict(
        &mut self,
        floors: &[Option<Micros>],
        store: &dyn FeatureStore,
    ) -> Result<(), Problem> {
        self.fold(floors);
        self.measure();
        for index in 0..self.views.len() {
            if self.views[index].is_crowded() {
                self.evict_view(index, usize::MAX, store)?;
            }
        }
        if self.bytes > self.bytes_max {
            let target = self.bytes_max - self.bytes_max / EVICTION_SHARE;
            // The first sweep spares what was used since the last one; the second spares nothing.
            for _ in 0..2 {
                for index in 0..self.views.len() {
                    if self.views[index].view.storage != Storage::Memory {
                        let surplus = self.bytes.saturating_sub(target);
                        self.evict_view(index, surplus, store)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn evict_view(
        &mut self,
        index: usize,
        surplus: usize,
        store: &dyn FeatureStore,
    ) -> Result<(), Problem> {
        let shard = &mut self.views[index];
        let all = surplus == usize::MAX;
        let (mut freed, mut victims, mut states) = (0, Vec::new(), Vec::new());
        for (key, entry) in &mut shard.entities {
            if freed >= surplus {
                break;
            }
            if std::mem::take(&mut entry.used) && !all {
                continue;
            }
            if entry.dirty {
                states.push(stored(&shard.view, key, &entry.state));
            }
            freed += entry.bytes;
            victims.push(key.clone());
        }
        write(store, states)?;
        for key in &victims {
            shard.entities.remove(key);
        }
        let (counters, bytes) = (&shard.counters, shard.bytes().saturating_sub(freed));
        counters.evictions.add(victims.len() as u64);
        counters.entities.set(shard.entities.len() as u64);
        counters.bytes.set(bytes as u64);
        self.bytes = self.bytes.saturating_sub(freed);
        Ok(())
    }

    /// Folds facts older than each view's floor in the states that changed.
    fn fold(&mut self, floors: &[Option<Micros>]) {
        for (shard, floor) in self.views.iter_mut().zip(floors) {
            let Some(floor) = floor else { continue };
            for entry in shard.entities.values_mut().filter(|e| e.dirty) {
                entry.state.fold(&shard.view.layout, *floor);
            }
        }
    }

    /// Measures the states that changed since they were last stored.
    fn measure(&mut self) {
        for shard in &mut self.views {
            let mut bytes = 0;
            for entry in shard.entities.values_mut() {
                if entry.dirty {
                    entry.bytes = entry.state.size_bytes();
                }
                bytes += entry.bytes;
            }
            shard.counters.bytes.set(bytes as u64);
        }
        self.bytes = self.views.iter().map(ViewShard::bytes).sum();
    }
}

impl ViewShard {
    /// Whether a view that lives on disk has many states in memory.
    fn is_crowded(&self) -> bool {
        self.view.storage == Storage::Disk && self.entities.len() > DISK_CACHE_ENTITIES_MAX
    }
}

fn stored(
    view: &CompiledView,
    key: &EntityKey,
    state: &headwater_aggregate::EntityState,
) -> StoredState {
    let mut bytes = Vec::new();
    state.encode(&mut bytes);
    StoredState {
        view: view.state_id.clone(),
        key: key.as_bytes().to_vec(),
        state: bytes,
    }
}

fn write(store: &dyn FeatureStore, mut states: Vec<StoredState>) -> Result<(), Problem> {
    while !states.is_empty() {
        let rest = states.split_off(states.len().min(WRITE_STATES_MAX));
        store.write(&StoreWrite {
            states: std::mem::replace(&mut states, rest),
            positions: BTreeMap::new(),
        })?;
    }
    Ok(())
}
