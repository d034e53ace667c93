//! What a view knows of one entity: its facts in time-ordered blocks that carry partial aggregates.
//!
//! Any window at any cursor is answered by merging the partials of the blocks inside it, or of runs of
//! them, and adding the facts at its two edges one by one. Facts older than the view's retention are folded into a
//! base that keeps only what `lifetime` needs; a read that would have to look inside the base is
//! answered [`Aged`], and the caller reads the facts again from the fact store.

use std::ops::Range;

use headwater_schema::{Micros, Position, Sequence, Value};

use crate::block::{Block, InputBatch};
use crate::partial::Partial;
use crate::without::Doubt;
use crate::{Layout, WindowRange};

mod codec;
mod levels;
mod removed;

pub use codec::Corrupt;
use levels::{Levels, WholeBlocks};
use removed::{Forgotten, Removed, add_removed};

/// Facts in a block before it is sealed with its partials.
/// Unit tests use small blocks, so that short streams seal, split and fold.
pub const BLOCK_ROWS: usize = if cfg!(test) { 4 } else { 128 };
/// Late facts may grow a sealed block to this many before it is split.
const BLOCK_ROWS_MAX: usize = 2 * BLOCK_ROWS;

/// The answer needs facts that the state has folded away or forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aged;

/// The state of one entity in one view.
#[derive(Debug, Clone)]
pub struct EntityState {
    /// What facts contributed that have been folded away.
    base: Option<Box<Base>>,
    sealed: Vec<Sealed>,
    levels: Levels,
    /// The newest facts, not yet aggregated. Every fact here stands after every sealed one.
    tail: Block,
    /// Facts that were retracted, for reads as of before their retraction.
    /// In the order of their retraction, at most [`REMOVED_MAX`].
    removed: Vec<Removed>,
    forgotten: Forgotten,
    /// The sequence of the last fact that the state has seen; a replay skips what it has.
    applied: Sequence,
    /// The sequence of the last retraction that it has seen.
    retracted: Sequence,
}

#[derive(Debug, Clone)]
struct Sealed {
    block: Block,
    partials: Box<[Partial]>,
}

#[derive(Debug, Clone)]
struct Base {
    /// One per slot; empty where no feature reaches back over all time.
    partials: Box<[Partial]>,
    /// The greatest position folded away.
    newest: Position,
    /// A read as of an earlier sequence than this can't use the base.
    sequence_max: Sequence,
    /// How many facts there are in it, where that is known: states that were stored before this was counted don't say. None
    /// that is known of may still be some that are no longer kept.
    facts: Option<u64>,
    /// What can't be told of slots any more; empty but after corrections of facts that were folded with others which
    /// are no longer kept.
    doubts: Vec<(usize, Doubt)>,
}

impl EntityState {
    pub fn new(layout: &Layout) -> Self {
        Self {
            base: None,
            sealed: Vec::new(),
            levels: Levels::default(),
            tail: Block::new(&layout.inputs),
            removed: Vec::new(),
            forgotten: Forgotten::NOTHING,
            applied: 0,
            retracted: 0,
        }
    }

    /// A state of facts that come in the order of their positions.
    pub fn of_sorted<'a>(
        layout: &Layout,
        facts: impl Iterator<Item = (&'a InputBatch, usize)>,
    ) -> Self {
        let mut state = Self::new(layout);
        for (batch, row) in facts {
            state.applied = state.applied.max(batch.sequences[row]);
            state.tail.insert(batch, row);
            if state.tail.len() >= BLOCK_ROWS {
                state.seal(layout);
            }
        }
        state
    }

    /// The last sequence that changed the state.
    pub fn applied(&self) -> Sequence {
        self.applied.max(self.retracted)
    }

    /// How many facts are held one by one.
    pub fn len(&self) -> usize {
        self.sealed.iter().map(|s| s.block.len()).sum::<usize>() + self.tail.len()
    }

    pub fn is_empty(&self) -> bool {
        self.base.is_none() && self.sealed.is_empty() && self.tail.is_empty()
    }

    /// Takes one fact. A sequence that the state has seen changes nothing.
    pub fn insert(&mut self, layout: &Layout, batch: &InputBatch, row: usize) {
        let position = batch.position(row);
        if position.sequence <= self.applied {
            return;
        }
        self.applied = position.sequence;
        let late = self
            .sealed
            .last()
            .and_then(|s| s.block.last())
            .is_some_and(|last| position < last);
        if late {
            let values = batch.columns.iter().map(|c| c.get(row)).collect();
            self.insert_late(layout, position, values);
        } else {
            self.tail.insert(batch, row);
            if self.tail.len() >= BLOCK_ROWS {
                self.seal(layout);
            }
        }
    }

    fn seal(&mut self, layout: &Layout) {
        let block = std::mem::replace(&mut self.tail, Block::new(&layout.inputs));
        let partials = block.partials(layout);
        self.sealed.push(Sealed { block, partials });
        self.levels.moved(self.sealed.len() - 1, self.sealed.len());
    }

    fn insert_late(&mut self, layout: &Layout, position: Position, values: Vec<Value>) {
        let at = self
            .sealed
            .partition_point(|s| s.block.last().is_some_and(|last| last < position));
        let Some(sealed) = self.sealed.get_mut(at) else {
            return;
        };
        let row = sealed.block.rows_before(position);
        sealed
            .block
            .insert_values(row, position, values.into_iter());
        if sealed.block.len() < BLOCK_ROWS_MAX {
            for (slot, partial) in layout.slots.iter().zip(&mut sealed.partials) {
                sealed.block.add_row(slot, row, partial);
            }
            self.levels.changed(at);
            return;
        }
        let block = sealed.block.split_off(BLOCK_ROWS);
        sealed.partials = sealed.block.partials(layout);
        let partials = block.partials(layout);
        self.sealed.insert(at + 1, Sealed { block, partials });
        self.levels.moved(at, self.sealed.len());
    }

    /// Folds whole blocks of facts at or before `floor` into the base, keeping the newest that
    /// `rows` windows need.
    pub fn fold(&mut self, layout: &Layout, floor: Micros) {
        self.forget(|removed| removed.position.event_time <= floor);
        let mut left = self.len();
        let mut folded = 0;
        for sealed in &self.sealed {
            let old = sealed.block.last().is_some_and(|p| p.event_time <= floor);
            left -= sealed.block.len();
            if !old || left < layout.rows_max {
                break;
            }
            folded += 1;
        }
        if folded == 0 {
            return;
        }
        let unsure = self.base.as_ref().is_some_and(|b| b.facts == Some(0));
        let base = self.base.get_or_insert_with(|| {
            let slots = if layout.lifetime {
                layout.slots.as_slice()
            } else {
                &[]
            };
            Box::new(Base {
                partials: slots.iter().map(Partial::empty).collect(),
                newest: Position::MIN,
                sequence_max: 0,
                facts: Some(0),
                doubts: Vec::new(),
            })
        });
        if unsure {
            base.facts = None;
        }
        for sealed in self.sealed.drain(..folded) {
            base.newest = base
                .newest
                .max(sealed.block.last().unwrap_or(Position::MIN));
            base.sequence_max = base.sequence_max.max(sealed.block.sequence_max());
            base.facts = base.facts.map(|facts| facts + sealed.block.len() as u64);
            for ((slot, total), partial) in layout
                .slots
                .iter()
                .zip(&mut base.partials)
                .zip(&sealed.partials)
            {
                total.merge(slot, partial);
            }
        }
        let newest = base.newest;
        self.levels.moved(0, self.sealed.len());
        self.forget(|removed| removed.position <= newest);
    }

    /// Whether the entity had any fact before `until`, as of `known_at`.
    pub fn any_before(&self, until: Position, known_at: Sequence) -> Result<bool, Aged> {
        if self.forgotten.matter(Position::MIN, known_at) {
            return Err(Aged);
        }
        if let Some(base) = &self.base {
            let told = base.newest < until && base.sequence_max <= known_at;
            if !told {
                return Err(Aged);
            }
            // With none counted there may be some that are no longer kept, or none.
            if base.facts != Some(0) {
                return Ok(true);
            }
        }
        let unsure = self.base.is_some();
        let range = WindowRange::between(Position::MIN, until);
        if self.removed.iter().any(|r| r.visible(&range, known_at)) {
            return Ok(true);
        }
        let any = self.blocks().any(|block| {
            let rows = block.rows_before(until);
            if block.sequence_max() <= known_at {
                rows > 0
            } else {
                (0..rows).any(|row| block.position(row).sequence <= known_at)
            }
        });
        match any || !unsure {
            true => Ok(any),
            false => Err(Aged),
        }
    }

    fn blocks(&self) -> impl DoubleEndedIterator<Item = &Block> {
        self.sealed
            .iter()
            .map(|s| &s.block)
            .chain(std::iter::once(&self.tail))
    }

    /// Adds the facts of `range` that were known by `known_at` to `partials`, which belong to
    /// `slots`, in the same order.
    pub fn query(
        &self,
        layout: &Layout,
        range: &WindowRange,
        known_at: Sequence,
        slots: &[usize],
        partials: &mut [Partial],
    ) -> Result<(), Aged> {
        if self.forgotten.matter(range.from, known_at) {
            return Err(Aged);
        }
        let picks = range.newest.is_some() || range.session.is_some();
        let range = match picks {
            true => match self.narrow(range, known_at)? {
                Some(range) => range,
                None => return Ok(()),
            },
            false => *range,
        };
        let with_base = self.add_base(layout, &range, known_at, slots, partials)?;
        let mut blocks = self.sealed_within(&range);
        let edge = |block: usize, partials: &mut [Partial]| {
            let block = &self.sealed[block].block;
            let rows = rows_within(block, &range);
            let part = rows.len() < block.len();
            if part {
                add_known(block, layout, rows, known_at, slots, partials);
            }
            part
        };
        if !blocks.is_empty() && edge(blocks.start, partials) {
            blocks.start += 1;
        }
        if !blocks.is_empty() && edge(blocks.end - 1, partials) {
            blocks.end -= 1;
        }
        let whole = WholeBlocks {
            levels: &self.levels,
            sealed: &self.sealed,
            layout,
            known_at,
            slots,
        };
        whole.add(blocks, partials);
        let rows = rows_within(&self.tail, &range);
        add_known(&self.tail, layout, rows, known_at, slots, partials);
        for removed in self.removed.iter().filter(|r| r.visible(&range, known_at)) {
            add_removed(removed, layout, slots, partials);
        }
        match with_base {
            Some(base) => base.settle(layout, slots, partials),
            None => Ok(()),
        }
    }

    /// The sealed blocks that a range touches.
    fn sealed_within(&self, range: &WindowRange) -> Range<usize> {
        let start = self
            .sealed
            .partition_point(|s| s.block.last().is_some_and(|last| last < range.from));
        let end = self
            .sealed
            .partition_point(|s| s.block.first().is_some_and(|first| first < range.until));
        start..end.max(start)
    }

    /// Adds the base where the range takes it in; the base, where it does.
    fn add_base(
        &self,
        layout: &Layout,
        range: &WindowRange,
        known_at: Sequence,
        slots: &[usize],
        partials: &mut [Partial],
    ) -> Result<Option<&Base>, Aged> {
        let Some(base) = &self.base else {
            return Ok(None);
        };
        if range.from > base.newest {
            return Ok(None);
        }
        let whole = range.from == Position::MIN
            && range.until > base.newest
            && base.sequence_max <= known_at
            && !base.partials.is_empty();
        if !whole {
            return Err(Aged);
        }
        for (slot, partial) in slots.iter().zip(partials) {
            partial.merge(&layout.slots[*slot], &base.partials[*slot]);
        }
        Ok(Some(base))
    }

    /// The range that starts at the oldest fact that a session or the newest facts of `range` reach
    /// back to; none where the range has no visible fact.
    fn narrow(&self, range: &WindowRange, known_at: Sequence) -> Result<Option<WindowRange>, Aged> {
        let apart = |newer: Position, older: Position| {
            let gap = newer.event_time.saturating_sub(older.event_time);
            range.session.is_some_and(|session| gap > session)
        };
        let (mut oldest, mut found) = (None, 0);
        for position in self.newest_first(range, known_at) {
            if range.newest == Some(found) || oldest.is_some_and(|newer| apart(newer, position)) {
                break;
            }
            oldest = Some(position);
            found += 1;
        }
        if let Some(base) = &self.base {
            let ends = |oldest: Position| {
                oldest > base.newest && (range.newest == Some(found) || apart(oldest, base.newest))
            };
            if range.from <= base.newest && !oldest.is_some_and(ends) {
                return Err(Aged);
            }
        }
        Ok(oldest.map(|from| WindowRange::between(from, range.until)))
    }

    /// The visible facts of a range that windows pick from, newest first.
    fn newest_first<'a>(
        &'a self,
        range: &'a WindowRange,
        known_at: Sequence,
    ) -> impl Iterator<Item = Position> + 'a {
        let counts = |value: Option<Value>| value.is_none_or(|v| v == Value::Bool(true));
        let rows = move |block: &'a Block| {
            rows_within(block, range)
                .rev()
                .filter(move |row| counts(range.among.map(|input| block.value(input, *row))))
                .map(move |row| block.position(row))
                .filter(move |position| position.sequence <= known_at)
        };
        let mut held = self.blocks().rev().flat_map(rows).peekable();
        let removed = self.removed.iter().filter(|r| r.visible(range, known_at));
        let mut removed: Vec<Position> = removed
            .filter(|r| counts(range.among.map(|input| r.values[input].clone())))
            .map(|r| r.position)
            .collect();
        removed.sort_unstable();
        std::iter::from_fn(move || {
            let newer = match (held.peek(), removed.last()) {
                (Some(held), Some(removed)) => removed > held,
                (held, _) => held.is_none(),
            };
            if newer { removed.pop() } else { held.next() }
        })
    }

    /// About how many bytes of memory the state takes.
    pub fn size_bytes(&self) -> usize {
        let partials = |p: &[Partial]| Partial::sizes_bytes(p);
        let sealed: usize = self
            .sealed
            .iter()
            .map(|s| s.block.size_bytes() + partials(&s.partials))
            .sum();
        let base = self
            .base
            .as_ref()
            .map_or(0, |b| size_of::<Base>() + partials(&b.partials));
        let removed = self.removed.len() * 96;
        let blocks = sealed + self.tail.size_bytes() + self.levels.size_bytes();
        size_of::<Self>() + blocks + base + removed
    }
}

impl Base {
    /// Whether the partials that it was added to are right, whatever can't be told of it.
    fn settle(&self, layout: &Layout, slots: &[usize], partials: &[Partial]) -> Result<(), Aged> {
        let settled = self.doubts.iter().all(|(slot, doubt)| {
            let mut places = slots.iter().zip(partials).filter(|(s, _)| *s == slot);
            places.all(|(_, partial)| doubt.is_settled(&layout.slots[*slot], partial))
        });
        match settled {
            true => Ok(()),
            false => Err(Aged),
        }
    }
}

fn rows_within(block: &Block, range: &WindowRange) -> Range<usize> {
    let start = block.rows_before(range.from);
    let end = block.rows_before(range.until);
    start..end.max(start)
}

fn add_known(
    block: &Block,
    layout: &Layout,
    rows: Range<usize>,
    known_at: Sequence,
    slots: &[usize],
    partials: &mut [Partial],
) {
    if rows.is_empty() {
        return;
    }
    for (slot, partial) in slots.iter().zip(partials) {
        let slot = &layout.slots[*slot];
        if block.sequence_max() <= known_at {
            block.add_rows(slot, rows.clone(), partial);
            continue;
        }
        for row in rows.clone() {
            if block.position(row).sequence <= known_at {
                block.add_row(slot, row, partial);
            }
        }
    }
}

#[cfg(test)]
mod tests;
