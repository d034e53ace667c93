//! Reads of one entity after another, each at cursors whose windows mostly move forward: facts enter a window and leave it, and what
//! it aggregates is mended instead of being made again.
//!
//! Counts and exact sums are subtracted from; least and greatest values wait in a queue; ranks, histograms and distinct values are counted. What
//! nothing can be taken out of is merged again from an [`EntityState`]'s blocks. Any range is answered, also one that goes back; what it costs is all
//! that depends on the order. A test holds it to the oracle.

use std::cell::OnceCell;
use std::ops::Range;

use headwater_schema::{Position, Sequence};

use crate::block::{Block, InputBatch};
use crate::partial::Partial;
use crate::slide::Slide;
use crate::{EntityState, Layout, WindowRange};

/// Facts of a window that are added one by one where nothing can be taken out of an aggregate; more are merged by blocks.
const ADDED_ROWS_MAX: usize = if cfg!(test) { 3 } else { 64 };

/// What is read of a window.
#[derive(Debug, Clone)]
pub struct ForwardWindow {
    pub slots: Vec<usize>,
    /// Whether its start never moves.
    pub grows: bool,
    /// The bool input that says which facts it is formed of; none: all.
    pub among: Option<usize>,
}

/// Facts of one entity, all of them known at every cursor, and windows over them.
pub struct ForwardReads<'f> {
    layout: &'f Layout,
    /// The inputs that the windows need.
    inputs: Vec<usize>,
    windows: Vec<MovingWindow>,
    facts: Vec<(&'f InputBatch, usize)>,
    block: Block,
    /// Made when it is first needed.
    state: OnceCell<EntityState>,
}

struct MovingWindow {
    rows: Range<usize>,
    /// Whether anything was read of this entity.
    read: bool,
    slots: Vec<usize>,
    slides: Vec<Slide>,
    partials: Vec<Partial>,
}

impl<'f> ForwardReads<'f> {
    pub fn new(layout: &'f Layout, windows: &[ForwardWindow]) -> Self {
        let slots = windows.iter().flat_map(|w| &w.slots);
        let inputs = slots.flat_map(|slot| layout.slots[*slot].inputs());
        let mut inputs: Vec<usize> = inputs
            .chain(windows.iter().filter_map(|w| w.among))
            .collect();
        inputs.sort_unstable();
        inputs.dedup();
        Self {
            inputs,
            windows: windows
                .iter()
                .map(|window| MovingWindow::new(layout, window))
                .collect(),
            facts: Vec::new(),
            block: Block::new(&layout.inputs),
            state: OnceCell::new(),
            layout,
        }
    }

    /// Goes over to another entity, whose facts come in the order of their positions.
    pub fn begin(&mut self, facts: impl Iterator<Item = (&'f InputBatch, usize)>) {
        self.facts.clear();
        self.facts.extend(facts);
        self.block.gather(&self.facts, &self.inputs);
        self.state.take();
        for window in &mut self.windows {
            window.begin(self.layout);
        }
    }

    /// Whether the entity had any fact before `until`.
    pub fn any_before(&self, until: Position) -> bool {
        self.block.first().is_some_and(|first| first < until)
    }

    /// The partial aggregates of a window's slots over a range, and whether they may be others than at the window's last read.
    pub fn read(&mut self, window: usize, range: &WindowRange) -> (&[Partial], bool) {
        let (block, window) = (&self.block, &mut self.windows[window]);
        let rows = rows_of(block, range, &window.rows);
        let (facts, layout) = (&self.facts, self.layout);
        let state = &self.state;
        let made = || state.get_or_init(|| EntityState::of_sorted(layout, facts.iter().copied()));
        let changed = window.move_to(block, layout, rows, made);
        (&window.partials, changed)
    }
}

impl MovingWindow {
    fn new(layout: &Layout, window: &ForwardWindow) -> Self {
        let slots = window.slots.iter().map(|slot| &layout.slots[*slot]);
        Self {
            rows: 0..0,
            read: false,
            slides: slots
                .clone()
                .map(|slot| Slide::new(slot, window.grows))
                .collect(),
            partials: slots.map(Partial::empty).collect(),
            slots: window.slots.clone(),
        }
    }

    fn begin(&mut self, layout: &Layout) {
        self.read = false;
        if !self.rows.is_empty() {
            for ((slot, slide), partial) in self
                .slots
                .iter()
                .zip(&mut self.slides)
                .zip(&mut self.partials)
            {
                slide.clear();
                *partial = Partial::empty(&layout.slots[*slot]);
            }
        }
        self.rows = 0..0;
    }

    /// Moves to some rows of the block; whether anything may have changed.
    fn move_to<'s>(
        &mut self,
        block: &Block,
        layout: &Layout,
        rows: Range<usize>,
        state: impl Fn() -> &'s EntityState,
    ) -> bool {
        let first = !std::mem::replace(&mut self.read, true);
        let old = std::mem::replace(&mut self.rows, rows.clone());
        if old == rows || (old.is_empty() && rows.is_empty()) {
            return first;
        }
        let forward = old.start <= rows.start && rows.start < old.end && old.end <= rows.end;
        // Where most have left it is less to begin again.
        let slides = forward && rows.start - old.start <= rows.len();
        let slots = self.slots.iter().map(|slot| (*slot, &layout.slots[*slot]));
        for ((slot, slide), partial) in slots.zip(&mut self.slides).zip(&mut self.partials) {
            let (index, slot) = slot;
            if slides && (old.start == rows.start || slide.lets_leave()) {
                slide.leave(block, slot, old.start..rows.start, partial);
                slide.enter(block, slot, old.end..rows.end, partial);
            } else {
                slide.clear();
                *partial = Partial::empty(slot);
                if slide.lets_leave() || rows.len() <= ADDED_ROWS_MAX {
                    slide.enter(block, slot, rows.clone(), partial);
                } else {
                    merge(state(), block, layout, &rows, index, partial);
                }
            }
            slide.show(block, slot, partial);
        }
        true
    }
}

/// Adds rows of the block by the blocks of a state of the same facts.
fn merge(
    state: &EntityState,
    block: &Block,
    layout: &Layout,
    rows: &Range<usize>,
    slot: usize,
    partial: &mut Partial,
) {
    let until = match rows.end < block.len() {
        true => block.position(rows.end),
        false => Position::MAX,
    };
    let range = WindowRange::between(block.position(rows.start), until);
    let partials = std::slice::from_mut(partial);
    // Nothing was folded away.
    let _ = state.query(layout, &range, Sequence::MAX, &[slot], partials);
}

/// The rows of a range, found from those of the last one.
fn rows_of(block: &Block, range: &WindowRange, last: &Range<usize>) -> Range<usize> {
    let end = block.rows_before_near(range.until, last.end);
    let start = block.rows_before_near(range.from, last.start).min(end);
    match (range.session, range.newest, range.among) {
        (None, None, _) => start..end,
        (None, Some(newest), None) => start.max(end.saturating_sub(newest))..end,
        _ => narrow(block, range, start..end),
    }
}

/// The rows from the oldest on that a session or the newest facts reach back to.
fn narrow(block: &Block, range: &WindowRange, rows: Range<usize>) -> Range<usize> {
    let time = |row: usize| block.position(row).event_time;
    let (mut start, mut found) = (rows.end, 0);
    for row in rows.clone().rev() {
        if range.among.is_some_and(|among| !block.holds(among, row)) {
            continue;
        }
        let gap = |session| start < rows.end && time(start).saturating_sub(time(row)) > session;
        if range.newest == Some(found) || range.session.is_some_and(gap) {
            break;
        }
        start = row;
        found += 1;
    }
    start..rows.end
}
