//! Aggregates of runs of sealed blocks, of runs of runs, and so on: a window merges a number of partials
//! that grows with the logarithm of what it holds.
//!
//! A run is made when a window first spans it and dropped when one of its blocks changes, so states
//! that no wide window reads pay nothing.

use std::ops::Range;
use std::sync::OnceLock;

use headwater_schema::Sequence;

use super::{Sealed, add_known};
use crate::Layout;
use crate::partial::Partial;

/// Blocks of a run, and runs of a run of the next level. Unit tests use short ones, so that short
/// streams have several levels.
const FAN_OUT: usize = if cfg!(test) { 2 } else { 8 };

/// The runs of each level; a run of level 0 spans [`FAN_OUT`] blocks. Only runs that are complete have
/// a place.
#[derive(Debug, Clone, Default)]
pub struct Levels(Vec<Vec<OnceLock<Run>>>);

#[derive(Debug, Clone)]
struct Run {
    partials: Box<[Partial]>,
    sequence_max: Sequence,
}

impl Run {
    fn of<'a>(layout: &Layout, parts: impl Iterator<Item = (&'a [Partial], Sequence)>) -> Self {
        let empty = layout.slots.iter().map(Partial::empty);
        let mut run = Self {
            partials: empty.collect(),
            sequence_max: 0,
        };
        for (partials, sequence_max) in parts {
            for ((slot, total), partial) in layout.slots.iter().zip(&mut run.partials).zip(partials)
            {
                total.merge(slot, partial);
            }
            run.sequence_max = run.sequence_max.max(sequence_max);
        }
        run
    }
}

impl Levels {
    /// Says that the blocks from `first` on are new or have moved, and that there are `blocks` now.
    pub fn moved(&mut self, first: usize, blocks: usize) {
        let (mut kept, mut runs) = (first / FAN_OUT, blocks / FAN_OUT);
        for level in 0.. {
            if runs == 0 {
                self.0.truncate(level);
                return;
            }
            if self.0.len() == level {
                self.0.push(Vec::new());
            }
            self.0[level].truncate(kept);
            self.0[level].resize_with(runs, OnceLock::new);
            (kept, runs) = (kept / FAN_OUT, runs / FAN_OUT);
        }
    }

    /// Says that a block has changed where it stands.
    pub fn changed(&mut self, block: usize) {
        let mut run = block;
        for level in &mut self.0 {
            run /= FAN_OUT;
            if let Some(run) = level.get_mut(run) {
                *run = OnceLock::new();
            }
        }
    }

    /// About how many bytes of memory the runs take.
    pub fn size_bytes(&self) -> usize {
        let runs = self.0.iter().flatten().filter_map(OnceLock::get);
        let made: usize = runs.map(|run| Partial::sizes_bytes(&run.partials)).sum();
        let places: usize = self.0.iter().map(Vec::capacity).sum();
        made + places * size_of::<OnceLock<Run>>()
    }

    /// What a run aggregates.
    fn run(&self, layout: &Layout, sealed: &[Sealed], level: usize, index: usize) -> &Run {
        self.0[level][index].get_or_init(|| {
            let parts = index * FAN_OUT..(index + 1) * FAN_OUT;
            match level.checked_sub(1) {
                None => Run::of(
                    layout,
                    sealed[parts]
                        .iter()
                        .map(|s| (&*s.partials, s.block.sequence_max())),
                ),
                Some(below) => Run::of(
                    layout,
                    parts.map(|part| {
                        let run = self.run(layout, sealed, below, part);
                        (&*run.partials, run.sequence_max)
                    }),
                ),
            }
        })
    }
}

/// A query over whole blocks.
pub struct WholeBlocks<'a> {
    pub levels: &'a Levels,
    pub sealed: &'a [Sealed],
    pub layout: &'a Layout,
    pub known_at: Sequence,
    pub slots: &'a [usize],
}

impl WholeBlocks<'_> {
    /// Adds the facts of some blocks that were known to `partials`.
    pub fn add(&self, blocks: Range<usize>, partials: &mut [Partial]) {
        self.add_level(0, blocks, partials);
    }

    /// Adds blocks (level 0) or runs of level `level - 1`, as many as possible by the runs above.
    fn add_level(&self, level: usize, items: Range<usize>, partials: &mut [Partial]) {
        let (first, last) = (items.start.div_ceil(FAN_OUT), items.end / FAN_OUT);
        if first >= last || level >= self.levels.0.len() {
            return items.for_each(|item| self.add_item(level, item, partials));
        }
        (items.start..first * FAN_OUT).for_each(|item| self.add_item(level, item, partials));
        self.add_level(level + 1, first..last, partials);
        (last * FAN_OUT..items.end).for_each(|item| self.add_item(level, item, partials));
    }

    fn add_item(&self, level: usize, item: usize, partials: &mut [Partial]) {
        let Some(run_level) = level.checked_sub(1) else {
            return self.add_block(&self.sealed[item], partials);
        };
        let run = self.levels.run(self.layout, self.sealed, run_level, item);
        if run.sequence_max <= self.known_at {
            return self.merge(&run.partials, partials);
        }
        for part in item * FAN_OUT..(item + 1) * FAN_OUT {
            self.add_item(level - 1, part, partials);
        }
    }

    fn add_block(&self, sealed: &Sealed, partials: &mut [Partial]) {
        let block = &sealed.block;
        if block.sequence_max() <= self.known_at {
            self.merge(&sealed.partials, partials);
        } else {
            let rows = 0..block.len();
            add_known(
                block,
                self.layout,
                rows,
                self.known_at,
                self.slots,
                partials,
            );
        }
    }

    fn merge(&self, others: &[Partial], partials: &mut [Partial]) {
        for (slot, partial) in self.slots.iter().zip(partials) {
            partial.merge(&self.layout.slots[*slot], &others[*slot]);
        }
    }
}
