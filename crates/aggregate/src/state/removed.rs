//! Facts that were retracted: taken out of a state's blocks, and kept for a while beside them for reads
//! as of before their retraction.

use headwater_schema::{Position, Sequence, Value};

use super::{Aged, Base, EntityState};
use crate::block::{Block, InputBatch};
use crate::partial::Partial;
use crate::without::{Doubt, Known, without};
use crate::{Layout, WindowRange};

/// Retracted facts that are kept for reads as of before their retraction; older ones are forgotten,
/// and those reads are answered [`Aged`].
const REMOVED_MAX: usize = if cfg!(test) { 6 } else { 256 };

/// Doubts that are kept of one slot; with more of them nothing of it counts as known.
const DOUBTS_MAX: usize = if cfg!(test) { 3 } else { 64 };

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
            (Some(values), _) => self.note_removed(position, at, values),
            (None, Some(base)) if position <= base.newest => return Err(Aged),
            (None, _) => self.retracted = at,
        }
        Ok(())
    }

    fn note_removed(&mut self, position: Position, removed_at: Sequence, values: Vec<Value>) {
        self.retracted = removed_at;
        self.removed.push(Removed {
            position,
            removed_at,
            values,
        });
        if self.removed.len() > REMOVED_MAX {
            let latest = self.removed[REMOVED_MAX / 2].removed_at;
            self.forget(|removed| removed.removed_at < latest);
        }
    }

    /// Takes out a fact that has been folded away, where not all the facts that were folded can be read again.
    /// `kept` is made of those that can, as of `at`; they have sequences from `kept_from` on. What nothing can tell any more is
    /// [`Aged`] to reads from now on.
    pub fn retract_folded(
        &mut self,
        layout: &Layout,
        (batch, row): (&InputBatch, usize),
        at: Sequence,
        kept: &Self,
        kept_from: Sequence,
    ) {
        let position = batch.position(row);
        let Some(newest) = self.base.as_ref().map(|base| base.newest) else {
            self.retracted = self.retracted.max(at);
            return;
        };
        let folded: Vec<(&Block, usize)> = kept
            .blocks()
            .flat_map(|block| (0..block.rows_before(after(newest))).map(move |row| (block, row)))
            .filter(|(block, row)| !self.holds(block.position(*row)))
            .collect();
        let values: Vec<Value> = batch.columns.iter().map(|c| c.get(row)).collect();
        let removed = Removed {
            position,
            removed_at: at,
            values,
        };
        if let Some(base) = &mut self.base {
            let empty = base.take_out(layout, &removed, &folded, kept_from);
            if empty {
                self.base = None;
            }
        }
        self.note_removed(position, at, removed.values);
    }

    pub(super) fn holds(&self, position: Position) -> bool {
        self.blocks().any(|block| {
            let row = block.rows_before(position);
            row < block.len() && block.position(row) == position
        })
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

fn after(position: Position) -> Position {
    Position::new(position.event_time, position.sequence.saturating_add(1))
}

impl Base {
    /// Takes out a fact. `folded` are the others of the base that can be read again. Whether nothing is left.
    fn take_out(
        &mut self,
        layout: &Layout,
        removed: &Removed,
        folded: &[(&Block, usize)],
        kept_from: Sequence,
    ) -> bool {
        let left = folded.len() as u64;
        if self.facts == Some(left) && left > 0 {
            // It never was among them.
            return false;
        }
        let only = self.facts == Some(1);
        // One that is gone itself may have been taken out before it went.
        let certain = removed.position.sequence >= kept_from;
        for index in 0..self.partials.len() {
            let slot = &layout.slots[index];
            let mut fact = [Partial::empty(slot)];
            add_removed(removed, layout, &[index], &mut fact);
            let [fact] = fact;
            let mut rest = Partial::empty(slot);
            for (block, row) in folded {
                block.add_row(slot, *row, &mut rest);
            }
            let mut all = rest.clone();
            all.merge(slot, &fact);
            let known = Known {
                kept: &all,
                left: &rest,
                fact: &fact,
                position: removed.position,
                kept_from,
            };
            if fact.count > 0 && all.count == self.partials[index].count {
                self.doubts.retain(|(s, _)| *s != index);
            }
            let (partial, mut doubts) = without(slot, &self.partials[index], &known);
            if !certain && fact.count > 0 {
                doubts = vec![Doubt::ALL];
            }
            self.partials[index] = partial;
            self.doubts.extend(doubts.into_iter().map(|d| (index, d)));
            self.bound_doubts(index);
        }
        self.facts = match self.facts {
            Some(facts) if certain => Some(facts.saturating_sub(1)),
            // How many are gone isn't known, but whether any is left may be.
            _ => (left == 0).then_some(0),
        };
        only && certain
    }

    /// Joins what can't be told of a slot where it has become much.
    fn bound_doubts(&mut self, slot: usize) {
        let of_slot = |doubt: &(usize, Doubt)| doubt.0 == slot;
        let many = self.doubts.iter().filter(|d| of_slot(d)).count() > DOUBTS_MAX;
        if many || self.doubts.contains(&(slot, Doubt::ALL)) {
            self.doubts.retain(|doubt| !of_slot(doubt));
            self.doubts.push((slot, Doubt::ALL));
        }
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
