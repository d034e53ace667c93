//! The sweep: the features of many entities, each at moments of its own, in one pass over the facts.
//!
//! Facts and moments are brought together entity by entity, and each entity's facts are walked once, by the same
//! plans and the same `aggregate` as live reads. Training sets and backfill are read here; where moments come from
//! and where features go is theirs to say.
//!
//! ```text
//! Sweep { env, facts, catalog, options }.features(&plan, moments) -> iterator of chunks of rows, in the moments' order
//! ```

use std::collections::BTreeMap;
use std::path::PathBuf;

use headwater_aggregate::Outcome;
use headwater_env::Env;
use headwater_facts::FactLog;
use headwater_features::{Catalog, ReadPlan};
use headwater_schema::{Cursor, EntityKey, Problem, Sequence};

mod entities;
mod rows;

use entities::Entities;

/// Rows of a chunk of the answer.
const CHUNK_ROWS: usize = 4096;

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
    /// Bytes of facts, moments and features held in memory at once; more is to be written to `spill_folder`. Not heeded
    /// yet: all are held in memory.
    pub memory_bytes_max: usize,
    /// Made where it isn't there. What is written goes when the sweep ends, however it ends.
    pub spill_folder: PathBuf,
}

/// A sweep over everything that a log holds when it begins.
#[derive(Clone)]
pub struct Sweep<'a> {
    pub env: &'a Env,
    pub facts: &'a dyn FactLog,
    pub catalog: &'a Catalog,
    pub options: SweepOptions,
}

/// Chunks of rows of outcomes: see [`Sweep::features`].
pub struct SweptRows {
    chunks: Box<dyn Iterator<Item = Result<Vec<Vec<Outcome>>, Problem>>>,
}

impl Iterator for SweptRows {
    type Item = Result<Vec<Vec<Outcome>>, Problem>;

    fn next(&mut self) -> Option<Self::Item> {
        self.chunks.next()
    }
}

impl Sweep<'_> {
    /// The features of a plan at each moment, in the order of the moments: chunks of rows, each with an outcome per
    /// feature asked for. All moments are taken before the first row is given.
    ///
    /// A moment that needs facts which are no longer kept is refused, as a live read is.
    pub fn features(
        &self,
        plan: &ReadPlan,
        moments: impl Iterator<Item = Result<Moment, Problem>>,
    ) -> Result<SweptRows, Problem> {
        let swept = self.outcomes(plan, moments.collect::<Result<_, _>>()?)?;
        let plan = plan.clone();
        let picked = swept.map(move |chunk| {
            let chunk = chunk?;
            Ok(chunk.iter().map(|row| plan.pick(row)).collect())
        });
        Ok(SweptRows {
            chunks: Box::new(picked),
        })
    }

    /// The same with an outcome per feature of the view; those that the plan doesn't need are null.
    fn outcomes(&self, plan: &ReadPlan, moments: Vec<Moment>) -> Result<Outcomes, Problem> {
        let mut rows = vec![Vec::new(); moments.len()];
        let end = self.facts.last_sequence();
        let mut groups: BTreeMap<Sequence, Vec<(usize, Moment)>> = BTreeMap::new();
        for (row, moment) in moments.into_iter().enumerate() {
            // A chained view's rows are others as of other states of knowledge.
            let known_at = match plan.view().is_chained() {
                true => moment.cursor.known_at.min(end),
                false => end,
            };
            groups.entry(known_at).or_default().push((row, moment));
        }
        for (known_at, moments) in groups {
            Entities::new(self, plan, &moments, known_at)?.read_into(&mut rows)?;
        }
        Ok(Outcomes {
            plan: plan.clone(),
            rows: rows.into_iter(),
        })
    }
}

/// Chunks of rows of every feature of a view.
struct Outcomes {
    plan: ReadPlan,
    rows: std::vec::IntoIter<Vec<Outcome>>,
}

impl Iterator for Outcomes {
    type Item = Result<Vec<Vec<Outcome>>, Problem>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut chunk: Vec<Vec<Outcome>> = self.rows.by_ref().take(CHUNK_ROWS).collect();
        if chunk.is_empty() {
            return None;
        }
        Some(self.plan.derive(&mut chunk).map(|()| chunk))
    }
}
