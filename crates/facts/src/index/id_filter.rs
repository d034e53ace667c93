//! Tells ids that were never seen from those that may have been, without asking the store: nearly every
//! fact that comes in is new, and a look into the store would find nothing.
//!
//! Bloom filters in memory, each twice as large as the one before, so that their number stays small.
//! They aren't stored: after a start a thread reads the known ids again, and until it is done every id
//! may be known.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};

use fastbloom::AtomicBloomFilter;
use foldhash::fast::FixedState;

/// Ids of the first filter.
const FIRST_IDS: usize = 1 << 20;
/// The share of new ids that look known to one filter; the store is asked about them.
const FALSE_POSITIVES: f64 = 0.001;
/// Ids that filters are kept for, about 1.8 bytes each; beyond, the store is always asked.
const IDS_MAX: usize = 128 << 20;

/// The ids that have been seen.
pub struct IdFilter {
    layers: RwLock<Vec<Layer>>,
    /// Whether every known id is in a layer.
    complete: AtomicBool,
}

struct Layer {
    filter: AtomicBloomFilter<FixedState>,
    ids: AtomicUsize,
    ids_max: usize,
}

impl Layer {
    fn new(ids_max: usize) -> Self {
        Self {
            filter: AtomicBloomFilter::with_false_pos(FALSE_POSITIVES)
                .hasher(FixedState::default())
                .expected_items(ids_max),
            ids: AtomicUsize::new(0),
            ids_max,
        }
    }
}

impl IdFilter {
    /// A filter of no ids.
    pub fn new() -> Self {
        Self {
            layers: RwLock::new(vec![Layer::new(FIRST_IDS)]),
            complete: AtomicBool::new(false),
        }
    }

    /// Says that every id that was known before has been inserted.
    pub fn completed(&self) {
        let kept = !self
            .layers
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .is_empty();
        self.complete.store(kept, Ordering::Release);
    }

    /// Whether the id may have been seen; it hasn't where this is false.
    pub fn may_contain(&self, id: u128) -> bool {
        if !self.complete.load(Ordering::Acquire) {
            return true;
        }
        let layers = self.layers.read().unwrap_or_else(PoisonError::into_inner);
        layers.is_empty() || layers.iter().any(|l| l.filter.contains_hash(short(id)))
    }

    /// Remembers an id.
    pub fn insert(&self, id: u128) {
        let layers = self.layers.read().unwrap_or_else(PoisonError::into_inner);
        let Some(last) = layers.last() else { return };
        last.filter.insert_hash(short(id));
        let ids_max = last.ids_max;
        let full = last.ids.fetch_add(1, Ordering::Relaxed) + 1 == ids_max;
        drop(layers);
        if full {
            self.grow(ids_max * 2);
        }
    }

    fn grow(&self, ids_max: usize) {
        let layer = (ids_max <= IDS_MAX).then(|| Layer::new(ids_max));
        let mut layers = self.layers.write().unwrap_or_else(PoisonError::into_inner);
        match layer {
            Some(layer) => layers.push(layer),
            None => {
                self.complete.store(false, Ordering::Release);
                layers.clear();
            }
        }
    }
}

/// Ids are hashes already.
fn short(id: u128) -> u64 {
    (id >> 64) as u64 ^ id as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(i: usize) -> u128 {
        xxhash_rust::xxh3::xxh3_128(&i.to_le_bytes())
    }

    #[test]
    fn no_seen_id_is_missed_and_few_new_ones_look_seen() {
        let filter = IdFilter::new();
        let seen = 3 * FIRST_IDS / 2;
        (0..seen / 2).for_each(|i| filter.insert(id(i)));
        assert!(filter.may_contain(id(seen)), "not before it is complete");
        filter.completed();
        (seen / 2..seen).for_each(|i| filter.insert(id(i)));
        assert!((0..seen).all(|i| filter.may_contain(id(i))));
        let wrong = (seen..seen + 100_000).filter(|i| filter.may_contain(id(*i)));
        let wrong = wrong.count();
        assert!((1..1000).contains(&wrong), "{wrong} of 100,000 look seen");
    }
}
