//! Point-in-time evaluation: from an entity's state to the values of a view's features at a cursor.
//!
//! Serving, cold reads and (through the same functions) training sets read features here and
//! nowhere else.

use std::sync::Arc;

use arrow::array::ArrayRef;

use headwater_aggregate::{
    Aged, Aggregate, EntityState, Outcome, Partial, Reading, Status, Window, WindowKind,
    WindowRange,
};
use headwater_schema::{Cursor, Micros, Problem, Value};

use crate::derived::{Derivation, work_out, work_out_column};
use crate::{CompiledFeature, CompiledView, FeatureKind};

mod forward;
mod latest;

pub use forward::{ForwardPlan, Said};
pub use latest::{LatestFeature, Picked, PlacedFact};

/// Which features of a view to read, worked out once and used for every read.
#[derive(Debug, Clone)]
pub struct ReadPlan {
    view: Arc<CompiledView>,
    /// The features asked for, by index, in the order asked for.
    wanted: Vec<usize>,
    /// Features that share a window share one walk over the state.
    windows: Vec<WindowReads>,
    /// Derived features, each after those it reads.
    expressions: Vec<usize>,
}

/// What a state says of the features of a plan.
#[derive(Debug, Clone)]
pub struct Read {
    /// An outcome per feature of the view, in the view's order; those that aren't needed, and derived ones until
    /// [`ReadPlan::derive`], are null.
    pub outcomes: Vec<Outcome>,
    /// Features that the state can't tell; they are to be read from the facts.
    pub aged: Vec<usize>,
    /// Whether the entity had any fact, where the state can tell.
    pub found: Option<bool>,
}

impl Read {
    /// The outcomes, where the state tells all of them.
    pub fn whole(self) -> Option<Vec<Outcome>> {
        self.aged.is_empty().then_some(self.outcomes)
    }
}

#[derive(Debug, Clone)]
struct WindowReads {
    window: Window,
    /// The bool input that says which facts the window is formed of; none: all.
    among: Option<usize>,
    slots: Vec<usize>,
    /// (feature, place of its slot in `slots`)
    features: Vec<(usize, usize)>,
}

impl WindowReads {
    fn range(&self, cursor: &Cursor) -> WindowRange {
        WindowRange {
            among: self.among,
            ..self.window.range(cursor)
        }
    }
}

const LIFETIME: Window = Window::new(WindowKind::Lifetime);
/// What a latest value is read as.
const LATEST: Aggregate = Aggregate::Last { keep_nulls: true };

impl ReadPlan {
    /// A plan for some features of a view, by index.
    pub fn new(view: Arc<CompiledView>, wanted: Vec<usize>) -> Self {
        let needed = needed_features(&view, &wanted);
        let mut windows: Vec<WindowReads> = Vec::new();
        for feature in (0..view.features.len()).filter(|i| needed[*i]) {
            let (window, among, slot) = match &view.features[feature].kind {
                FeatureKind::Aggregate {
                    slot,
                    window,
                    among,
                    ..
                } => (*window, *among, *slot),
                FeatureKind::Latest { slot } => (LIFETIME, None, *slot),
                FeatureKind::Expression { .. } => continue,
            };
            let same = |reads: &WindowReads| reads.window == window && reads.among == among;
            let index = windows.iter().position(same);
            let index = index.unwrap_or_else(|| {
                windows.push(WindowReads {
                    window,
                    among,
                    slots: Vec::new(),
                    features: Vec::new(),
                });
                windows.len() - 1
            });
            let reads = &mut windows[index];
            let place = reads.slots.iter().position(|s| *s == slot);
            let place = place.unwrap_or_else(|| {
                reads.slots.push(slot);
                reads.slots.len() - 1
            });
            reads.features.push((feature, place));
        }
        let expressions = view.evaluation_order.iter().copied();
        let expressions = expressions
            .filter(|i| needed[*i])
            .filter(|i| matches!(view.features[*i].kind, FeatureKind::Expression { .. }))
            .collect();
        Self {
            view,
            wanted,
            windows,
            expressions,
        }
    }

    pub fn view(&self) -> &Arc<CompiledView> {
        &self.view
    }

    /// The features asked for, in that order.
    pub fn features(&self) -> impl Iterator<Item = &CompiledFeature> {
        self.wanted.iter().map(|i| &self.view.features[*i])
    }

    /// The features that [`ReadPlan::read`] finds, by ascending index; [`ReadPlan::derive`] works out the others that are
    /// needed.
    pub fn windowed(&self) -> Vec<usize> {
        let features = self.windows.iter().flat_map(|reads| &reads.features);
        let mut features: Vec<usize> = features.map(|(feature, _)| *feature).collect();
        features.sort_unstable();
        features
    }

    /// What one entity's state says at a cursor. `found`: whether the entity had any fact, where the caller knows.
    pub fn read(&self, state: Option<&EntityState>, cursor: &Cursor, found: Option<bool>) -> Read {
        let found = found.or_else(|| match state {
            Some(state) => state.any_before(cursor.until, cursor.known_at).ok(),
            None => Some(false),
        });
        let mut read = Read {
            outcomes: vec![absent(); self.view.features.len()],
            aged: Vec::new(),
            found,
        };
        let Some(found) = found else {
            read.aged = self.windowed();
            return read;
        };
        for reads in &self.windows {
            let told = self.read_window(reads, state, cursor, found, &mut read.outcomes);
            if told.is_err() {
                self.read_apart(reads, state, cursor, found, &mut read);
            }
        }
        read
    }

    /// Reads the aggregates of a window one by one, where the state can't tell them all.
    fn read_apart(
        &self,
        reads: &WindowReads,
        state: Option<&EntityState>,
        cursor: &Cursor,
        found: bool,
        read: &mut Read,
    ) {
        for place in 0..reads.slots.len() {
            let features = reads.features.iter().filter(|(_, p)| *p == place);
            let one = WindowReads {
                slots: vec![reads.slots[place]],
                features: features.map(|(feature, _)| (*feature, 0)).collect(),
                ..reads.clone()
            };
            let told = self.read_window(&one, state, cursor, found, &mut read.outcomes);
            if told.is_err() {
                read.aged
                    .extend(one.features.iter().map(|(feature, _)| *feature));
            }
        }
    }

    /// What a view that is still being filled says: nothing yet, whatever the entity.
    pub fn backfilling(&self) -> Vec<Outcome> {
        let outcome = |feature: &CompiledFeature| Outcome {
            value: feature.default.clone().unwrap_or(Value::Null),
            status: Status::Backfilling,
            event_time: None,
        };
        self.view.features.iter().map(outcome).collect()
    }

    fn read_window(
        &self,
        reads: &WindowReads,
        state: Option<&EntityState>,
        cursor: &Cursor,
        found: bool,
        outcomes: &mut [Outcome],
    ) -> Result<(), Aged> {
        let layout = &self.view.layout;
        let mut partials: Vec<Partial> = reads
            .slots
            .iter()
            .map(|slot| Partial::empty(&layout.slots[*slot]))
            .collect();
        if let Some(state) = state {
            let range = reads.range(cursor);
            state.query(layout, &range, cursor.known_at, &reads.slots, &mut partials)?;
        }
        for (index, place) in &reads.features {
            let feature = &self.view.features[*index];
            let outcome = self.outcome(reads, *index, *place, &partials[*place], cursor);
            let outcome = apply_ttl(feature, outcome, cursor);
            outcomes[*index] = finish(feature, outcome, found);
        }
        Ok(())
    }

    /// What a feature says of its window's partial aggregate, whatever its age.
    fn outcome(
        &self,
        reads: &WindowReads,
        index: usize,
        place: usize,
        partial: &Partial,
        cursor: &Cursor,
    ) -> Outcome {
        let layout = &self.view.layout;
        let slot = &layout.slots[reads.slots[place]];
        let (function, largest) = match &self.view.features[index].kind {
            FeatureKind::Aggregate {
                function, largest, ..
            } => (function, *largest),
            _ => (&LATEST, None),
        };
        let reading = Reading {
            slot,
            input: slot.input.map(|i| &layout.inputs[i]),
            as_of: cursor.as_of.saturating_sub(reads.window.offset),
            width: reads.window.width(),
            largest,
        };
        function.finalize(partial, &reading)
    }

    /// Computes the derived features of many entities at once. Each row is what
    /// [`ReadPlan::read`] gave.
    pub fn derive(&self, rows: &mut [Vec<Outcome>]) -> Result<(), Problem> {
        if rows.is_empty() {
            return Ok(());
        }
        for index in &self.expressions {
            let feature = &self.view.features[*index];
            let Some(derivation) = self.derivation(feature) else {
                continue;
            };
            let outcomes = work_out(&derivation, rows)?;
            let read = |row: &Vec<Outcome>| row[*index].status != Status::Backfilling;
            for (row, outcome) in rows.iter_mut().zip(outcomes) {
                if read(row) {
                    row[*index] = outcome;
                }
            }
        }
        Ok(())
    }

    fn derivation<'a>(&'a self, feature: &'a CompiledFeature) -> Option<Derivation<'a>> {
        let FeatureKind::Expression { expression, inputs } = &feature.kind else {
            return None;
        };
        let types = inputs.iter().map(|i| &self.view.features[*i].data_type);
        Some(Derivation {
            expression,
            inputs,
            types: types.collect(),
            about: inputs.clone(),
            default: feature.default.as_ref(),
        })
    }

    /// The values of the view's features in many rows, column by column, from those of [`ReadPlan::windowed`]; none where one
    /// isn't needed.
    pub fn derive_columns(
        &self,
        windowed: Vec<ArrayRef>,
        rows: usize,
    ) -> Result<Vec<Option<ArrayRef>>, Problem> {
        let mut columns = vec![None; self.view.features.len()];
        for (feature, column) in self.windowed().into_iter().zip(windowed) {
            columns[feature] = Some(column);
        }
        for index in &self.expressions {
            if let Some(derivation) = self.derivation(&self.view.features[*index]) {
                columns[*index] = Some(work_out_column(&derivation, &columns, rows)?);
            }
        }
        Ok(columns)
    }

    /// The columns of the features asked for, in the order asked for.
    pub fn pick_columns(&self, columns: &[Option<ArrayRef>]) -> Vec<ArrayRef> {
        let picked = self.wanted.iter().map(|i| columns[*i].clone());
        picked.flatten().collect()
    }

    /// The first event time that any window of the plan can reach at a cursor; none where one of
    /// them reaches back over all time.
    pub fn oldest(&self, cursor: &Cursor) -> Option<Micros> {
        let reaches = self.windows.iter().map(|reads| reads.window.reach());
        let widest = reaches.collect::<Option<Vec<_>>>()?.into_iter().max()?;
        Some(cursor.as_of.saturating_sub(widest))
    }

    /// Whether the newest fact of each source tells all that is read: latest values, of whatever facts.
    pub fn is_of_newest(&self) -> bool {
        let plain = self.view.sources.iter();
        let mut plain = plain.map(|s| s.filter.is_none() && s.upstream.is_none());
        let newest = |feature: usize| match &self.view.features[feature].kind {
            FeatureKind::Latest { slot } => {
                let slot = &self.view.layout.slots[*slot];
                slot.filter.is_none() && slot.kind.keeps_nulls()
            }
            _ => false,
        };
        plain.all(|plain| plain) && self.windowed().into_iter().all(newest)
    }

    /// The full names of the features whose windows reach back furthest: those over all time, where there are some.
    pub fn reaching_back_most(&self) -> Vec<&str> {
        let reach = |reads: &WindowReads| reads.window.reach().unwrap_or(Micros::MAX);
        let most = self.windows.iter().map(reach).max();
        let furthest = self
            .windows
            .iter()
            .filter(|reads| Some(reach(reads)) == most);
        let features = furthest.flat_map(|reads| reads.features.iter());
        let mut features: Vec<usize> = features.map(|(feature, _)| *feature).collect();
        features.sort_unstable();
        let name = |index: usize| self.view.features[index].full_name.as_ref();
        features.into_iter().map(name).collect()
    }

    /// The outcomes of the features asked for, in the order asked for.
    pub fn pick(&self, outcomes: &[Outcome]) -> Vec<Outcome> {
        self.wanted.iter().map(|i| outcomes[*i].clone()).collect()
    }
}

/// The features that are wanted, and those that they are derived from.
fn needed_features(view: &CompiledView, wanted: &[usize]) -> Vec<bool> {
    let mut needed = vec![false; view.features.len()];
    let mut stack = wanted.to_vec();
    while let Some(index) = stack.pop() {
        if std::mem::replace(&mut needed[index], true) {
            continue;
        }
        if let FeatureKind::Expression { inputs, .. } = &view.features[index].kind {
            stack.extend(inputs);
        }
    }
    needed
}

fn absent() -> Outcome {
    Outcome {
        value: Value::Null,
        status: Status::NotFound,
        event_time: None,
    }
}

fn apply_ttl(feature: &CompiledFeature, mut outcome: Outcome, cursor: &Cursor) -> Outcome {
    if let (Some(ttl), Some(time)) = (feature.ttl, outcome.event_time)
        && time < cursor.as_of.saturating_sub(ttl)
    {
        outcome.status = Status::OutsideMaxAge;
        if !feature.stale_keep {
            outcome.value = Value::Null;
        }
    }
    outcome
}

fn finish(feature: &CompiledFeature, mut outcome: Outcome, found: bool) -> Outcome {
    if !found {
        outcome.status = Status::NotFound;
    }
    if let (Value::Null, Some(default)) = (&outcome.value, &feature.default) {
        outcome.value = default.clone();
    }
    outcome
}
