//! Facts that were retracted: taken out of a state's blocks, and kept for a while beside them for reads
//! as of before their retraction.

use headwater_schema::{Position, Sequence, Value};

use super::{Aged, EntityState};
use crate::partial::Partial;
use crate::{Layout, WindowRange};

/// Retracted facts that are kept for reads as of before their retraction; older ones are forgotten,
/// and those reads are answered [`Aged`].
const REMOVED_MAX: usize = if cfg!(test) { 6 } else { 256 };

#[derive(Debug, Clone)]
pub(super) struct Removed {
    pub(super) position: Position,
    pub(super) removed_at: Sequence,
    pub(super) values: Vec<Value>,
}

/// Retracted facts that are no longer kept, as bounds of their places and retractions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Forgotten {
    pub(super) newest: Position,
    pub(super) removed_at: Sequence,
}

impl Forgotten {
    pub(super) const NOTHING: Self = Self {
        newest: Position::MIN,
        removed_at: 0,
    };

    /// Whether a read from `from` on might have seen one of them.
    pub(super) fn matter(&self, from: Position, known_at: Sequence) -> bool {
        from <= self.newest && known_at < self.removed_at
    }
}

impl Removed {
    pub(super) fn visible(&self, range: &WindowRange, known_at: Sequence) -> bool {
        range.from <= self.position
            && self.position < range.until
            && self.position.sequence <= known_at
            && known_at < self.removed_at
    }
}

impl EntityState {
    /// Says that the state was made from the facts that live as of `at`: it has seen everything up to
    /// there and knows nothing of what was retracted before.
    pub fn made_at(&mut self, at: Sequence) {
        self.applied = self.applied.max(at);
        self.retracted = self.retracted.max(at);
        self.forgotten = Forgotten {
            newest: Position::MAX,
            removed_at: at,
        };
    }

    /// Takes a fact out again, from sequence `at` on; earlier cursors still see it. Retractions come in
    /// the order of `at`, each after its fact; one that the state has seen changes nothing, nor does
    /// one of a fact that it never had.
    /// [`Aged`] where the fact has been folded away: the state has to be made again.
    pub fn retract(
        &mut self,
        layout: &Layout,
        position: Position,
        at: Sequence,
    ) -> Result<(), Aged> {
        if at <= self.retracted {
            return Ok(());
        }
        let index = self
            .sealed
            .partition_point(|s| s.block.last().is_some_and(|last| last < position));
        let values = match self.sealed.get_mut(index) {
            Some(sealed) => {
                let values = sealed.block.remove(position);
                if values.is_some() {
                    sealed.partials = sealed.block.partials(layout);
                }
                values
            }
            None => self.tail.remove(position),
        };
        let blocks = self.sealed.len();
        self.sealed.retain(|s| !s.block.is_empty());
        if self.sealed.len() < blocks {
            self.levels.moved(index, self.sealed.len());
        } else {
            self.levels.changed(index);
        }
        match (values, &self.base) {
            (Some(values), _) => self.removed.push(Removed {
                position,
                removed_at: at,
                values,
            }),
            (None, Some(base)) if position <= base.newest => return Err(Aged),
            (None, _) => {}
        }
        self.retracted = at;
        if self.removed.len() > REMOVED_MAX {
            let latest = self.removed[REMOVED_MAX / 2].removed_at;
            self.forget(|removed| removed.removed_at < latest);
        }
        Ok(())
    }

    /// Says that what was folded away can't be told any more: a fact of it was retracted at `at`, and
    /// not all of it can be read again. Reads that need it are answered [`Aged`] from now on.
    pub fn lose_base(&mut self, at: Sequence) {
        self.retracted = self.retracted.max(at);
        if let Some(base) = &mut self.base {
            base.partials = Box::default();
            base.sequence_max = Sequence::MAX;
        }
    }

    pub(super) fn forget(&mut self, which: impl Fn(&Removed) -> bool) {
        let forgotten = &mut self.forgotten;
        self.removed.retain(|removed| {
            if which(removed) {
                forgotten.newest = forgotten.newest.max(removed.position);
                forgotten.removed_at = forgotten.removed_at.max(removed.removed_at);
                return false;
            }
            true
        });
    }
}

pub(super) fn add_removed(
    removed: &Removed,
    layout: &Layout,
    slots: &[usize],
    partials: &mut [Partial],
) {
    for (slot, partial) in slots.iter().zip(partials) {
        let slot = &layout.slots[*slot];
        let fact = slot.contribution(removed.position, |input| removed.values[input].clone());
        if let Some(fact) = fact {
            partial.add(slot, &fact);
        }
    }
}
