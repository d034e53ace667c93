//! The sweep: the features of many entities, each at moments of its own, in one pass over the facts.
//!
//! Facts and moments are brought together entity by entity, and each entity's facts are walked once, by the same
//! plans and the same `aggregate` as live reads. Training sets are read here; where moments come from and
//! where features go is theirs to say.
//!
//! ```text
//! Sweep { env, facts, catalog, options }.features(&plan, moments) -> columns of values, row by row in the moments' order
//! ```

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::ArrayRef;
use headwater_env::Env;
use headwater_facts::{FactLog, refuse_expired};
use headwater_features::{Catalog, CompiledView, PreparedFacts, ReadPlan};
use headwater_schema::time::format_timestamp;
use headwater_schema::{Cursor, EntityKey, Micros, Position, Problem, Sequence};

mod column;
mod entities;
mod few;
mod gathering;
mod held;
#[cfg(test)]
mod progress;
mod results;
mod rows;
mod stop;
#[cfg(test)]
mod stopped;
mod values;

pub(crate) use few::{ENTITIES_MAX, Few};
use gathering::Gathering;
use results::{Results, SortedRows};
use rows::{Rows, rows_of};
pub use stop::Stop;
use values::Shape;

use crate::SweepProgress;
use crate::spill::{Spill, SpillLimit};

/// Moments of a chained view that are grouped by what was known: each group goes through the facts again.
const GROUPED_MOMENTS: usize = 65_536;

/// One entity at one cursor.
#[derive(Debug, Clone)]
pub struct Moment {
    /// None where the spine has a null in a key column: there is no such entity.
    pub key: Option<EntityKey>,
    pub cursor: Cursor,
}

/// What a sweep may use.
#[derive(Debug, Clone)]
pub struct SweepOptions {
    /// Bytes of facts, moments and features held in memory at once; more is written to `spill_folder`. What is known of one
    /// entity is held as a whole, whatever this says, and so are a few megabytes of buffers.
    pub memory_bytes_max: usize,
    /// Made where it isn't there. What is written goes when the sweep ends, however it ends: what a killed process leaves
    /// goes when the next sweep there begins to write.
    pub spill_folder: PathBuf,
    /// What may lie there at once.
    pub spill_limit: SpillLimit,
}

/// A sweep over everything that a log holds when it begins.
#[derive(Clone)]
pub struct Sweep<'a> {
    pub env: &'a Env,
    pub facts: &'a dyn FactLog,
    pub catalog: &'a Catalog,
    pub options: SweepOptions,
}

/// Rows of values: see [`Sweep::features`].
pub struct SweptRows {
    plan: ReadPlan,
    rows: SortedRows,
}

impl SweptRows {
    /// The next rows, this many: a column per feature asked for, in that order.
    pub fn take(&mut self, rows: usize) -> Result<Vec<ArrayRef>, Problem> {
        let columns = self.take_all(rows)?;
        Ok(self.plan.pick_columns(&columns))
    }

    /// The same with a column per feature of the view; none where one isn't needed.
    fn take_all(&mut self, rows: usize) -> Result<Vec<Option<ArrayRef>>, Problem> {
        let windowed = self.rows.take(rows)?.columns;
        self.plan.derive_columns(windowed, rows)
    }

    /// The next rows, this many, of a plan that has one feature, which isn't derived: its values, and whether any fact
    /// counted.
    pub fn take_counted(&mut self, rows: usize) -> Result<(ArrayRef, Vec<bool>), Problem> {
        let mut taken = self.rows.take(rows)?;
        match (taken.columns.pop(), taken.columns.is_empty()) {
            (Some(column), true) => Ok((column, taken.counted)),
            _ => Err(Problem::internal("sweep", "a plan has not one feature")),
        }
    }
}

impl Sweep<'_> {
    /// The values of a plan's features at each moment, in the order of the moments. All moments are taken before the first row is
    /// given.
    ///
    /// A moment that needs facts which are no longer kept is refused, as a live read is.
    pub fn features(
        &self,
        plan: &ReadPlan,
        moments: impl Iterator<Item = Result<Moment, Problem>>,
    ) -> Result<SweptRows, Problem> {
        self.features_until(plan, moments, &Stop::default())
    }

    /// As [`Sweep::features`], unless it is told to stop before the first row is given.
    pub fn features_until(
        &self,
        plan: &ReadPlan,
        moments: impl Iterator<Item = Result<Moment, Problem>>,
        stop: &Stop,
    ) -> Result<SweptRows, Problem> {
        self.features_with_progress(plan, moments, stop, &SweepProgress::default())
    }

    /// As [`Sweep::features_until`]; `progress` hears how far it is. Of a chained view the view upstream isn't told of.
    pub fn features_with_progress(
        &self,
        plan: &ReadPlan,
        moments: impl Iterator<Item = Result<Moment, Problem>>,
        stop: &Stop,
        progress: &SweepProgress,
    ) -> Result<SweptRows, Problem> {
        self.swept(plan, Box::new(moments), stop, progress)
    }

    /// Refuses moments, the earliest of which is given, that need facts which are no longer kept.
    pub fn refuse_expired(&self, plan: &ReadPlan, earliest: Micros) -> Result<(), Problem> {
        let oldest = plan.oldest(&Cursor::inclusive(earliest));
        for source in &plan.view().sources {
            let contract = self.contract(&source.contract)?;
            let refused = refuse_expired(self.facts, &contract, &plan.view().name, oldest);
            refused.map_err(|mut problem| {
                let features = plan.reaching_back_most().join(", ");
                let moment = format_timestamp(earliest);
                problem.detail = format!("{features} at {moment}: {}", problem.detail);
                problem
            })?;
        }
        Ok(())
    }

    /// The facts of a view's source up to a sequence that pass its `where` and name an entity, whatever became of them
    /// since.
    pub(crate) fn facts_of<'a>(
        &'a self,
        view: &'a CompiledView,
        source: usize,
        end: Sequence,
    ) -> Result<impl Iterator<Item = Result<PreparedFacts, Problem>> + 'a, Problem> {
        // The log that is read here hears a word to stop itself.
        let rows = rows_of(self, view, source, end, &Stop::default())?;
        Ok(rows.filter_map(|rows| match rows {
            Ok(Rows::Facts(facts)) => Some(Ok(facts)),
            Ok(Rows::Removed(..)) => None,
            Err(problem) => Some(Err(problem)),
        }))
    }

    /// A chained view's sweep is within another's: iterators have no types of their own here.
    fn swept(
        &self,
        plan: &ReadPlan,
        moments: Box<dyn Iterator<Item = Result<Moment, Problem>> + '_>,
        stop: &Stop,
        progress: &SweepProgress,
    ) -> Result<SweptRows, Problem> {
        let options = &self.options;
        let spill = Spill::new(self.env, &options.spill_folder, &options.spill_limit);
        let results_bytes_max = options.memory_bytes_max / 4;
        let shape = Shape::of(plan);
        let mut results = Results::new(spill.clone(), results_bytes_max, shape, stop, progress);
        let end = self.facts.last_sequence();
        let pass = Pass {
            // A quarter is left for what a chunk and a state take.
            sweep: &self.with_memory(self.options.memory_bytes_max / 2),
            plan,
            spill,
            stop,
            progress,
        };
        let mut moments = (0u64..).zip(moments);
        if plan.view().is_chained() {
            pass.read_by_known(moments, end, &mut results)?;
        } else {
            pass.read(&mut moments, end, &mut results)?;
        }
        Ok(SweptRows {
            plan: plan.clone(),
            rows: results.finish()?,
        })
    }

    fn with_memory(&self, memory_bytes_max: usize) -> Self {
        let mut sweep = self.clone();
        sweep.options.memory_bytes_max = memory_bytes_max;
        sweep
    }
}

type Numbered = (u64, Result<Moment, Problem>);

/// Passes over the facts for one plan.
struct Pass<'a> {
    sweep: &'a Sweep<'a>,
    plan: &'a ReadPlan,
    spill: Arc<Spill>,
    stop: &'a Stop,
    progress: &'a SweepProgress,
}

impl Pass<'_> {
    /// Reads moments of a chained view, whose rows are others as of other states of knowledge: a pass for each of
    /// those that follow each other, and where they take turns, for each among many moments.
    fn read_by_known(
        &self,
        moments: impl Iterator<Item = Numbered>,
        end: Sequence,
        results: &mut Results,
    ) -> Result<(), Problem> {
        let known = |(_, moment): &Numbered| match moment {
            Ok(moment) => moment.cursor.known_at.min(end),
            Err(_) => end,
        };
        let mut moments = moments.peekable();
        let Some(first) = moments.peek().map(known) else {
            return Ok(());
        };
        let mut alike = std::iter::from_fn(|| moments.next_if(|moment| known(moment) == first));
        self.read(&mut alike, first, results)?;
        loop {
            let mut groups: BTreeMap<Sequence, Vec<Numbered>> = BTreeMap::new();
            for moment in moments.by_ref().take(GROUPED_MOMENTS) {
                groups.entry(known(&moment)).or_default().push(moment);
            }
            if groups.is_empty() {
                return Ok(());
            }
            for (known_at, moments) in groups {
                self.read(&mut moments.into_iter(), known_at, results)?;
            }
        }
    }

    /// Reads moments in one pass over the facts up to `end`.
    fn read(
        &self,
        moments: &mut dyn Iterator<Item = Numbered>,
        end: Sequence,
        results: &mut Results,
    ) -> Result<(), Problem> {
        let (sweep, view) = (self.sweep, self.plan.view());
        results.settle()?;
        let bytes_max = match view.is_chained() {
            // The other half is the upstream's.
            true => sweep.options.memory_bytes_max / 2,
            false => sweep.options.memory_bytes_max,
        };
        let mut gathering = Gathering::new(self.plan, self.spill.clone(), bytes_max);
        let mut earliest: Option<Micros> = None;
        let mut until = Position::MIN;
        let (mut known_first, mut known_last) = (end, 0);
        for (row, moment) in moments {
            self.stop.check()?;
            let Moment { key, cursor } = moment?;
            earliest = Some(earliest.map_or(cursor.as_of, |at| at.min(cursor.as_of)));
            until = until.max(cursor.until);
            let known_at = cursor.known_at.min(end);
            known_first = known_first.min(known_at);
            known_last = known_last.max(known_at);
            gathering.moment(row, key.as_ref().map(EntityKey::as_bytes), &cursor)?;
        }
        if let Some(earliest) = earliest {
            sweep.refuse_expired(self.plan, earliest)?;
        }
        // A lookup finds what counts at one state of knowledge.
        let keys = gathering.few(ENTITIES_MAX);
        let keys = keys.filter(|_| known_first >= known_last);
        let known_at = known_last;
        let oldest = earliest.and_then(|at| self.plan.oldest(&Cursor::inclusive(at)));
        let few = keys.map(|keys| Few {
            keys,
            from: oldest.map_or(Position::MIN, Position::before),
            until,
            known_at,
        });
        let found = few.map(|few| sweep.facts_of_few(view, &few)).transpose()?;
        if let Some(found) = found.flatten() {
            for facts in found {
                self.stop.check()?;
                gathering.facts(facts)?;
            }
            return gathering.read(results);
        }
        self.gather_all(end, &mut gathering)?;
        gathering.read(results)
    }

    /// Gathers all facts up to `end`: each source goes through the log by itself.
    fn gather_all(&self, end: Sequence, gathering: &mut Gathering<'_>) -> Result<(), Problem> {
        let (sweep, view) = (self.sweep, self.plan.view());
        let first = sweep.facts.first_sequence();
        let each = (end + 1).saturating_sub(first);
        let total = each * view.sources.len() as u64;
        self.progress.facts(0, total);
        let mut before = 0;
        for index in 0..view.sources.len() {
            for rows in rows_of(sweep, view, index, end, self.stop)? {
                self.stop.check()?;
                match rows? {
                    Rows::Facts(facts) => {
                        let last = facts.rows.sequences.last().copied();
                        gathering.facts(facts)?;
                        if let Some(last) = last {
                            let read = (last + 1).saturating_sub(first);
                            self.progress.facts(before + read, total);
                        }
                    }
                    Rows::Removed(kept, since) => gathering.removed(&kept, &since)?,
                }
            }
            before += each;
            self.progress.facts(before, total);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
