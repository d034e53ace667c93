//! Facts picked out of stored batches: by sequence, by a scan of everything, and as removed facts.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch, StringArray, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use hashbrown::HashSet;
use headwater_schema::{
    Contract, FactBatch, Position, Problem, RemovedFacts, Sequence, SequencedBatch, evolve,
};

use crate::{FactLog, FoundColumns, FoundFacts, FoundRun, Scan};

/// Facts read at a time by a scan of everything.
const SCAN_FACTS_MAX: usize = 65_536;

/// Some rows of a batch.
pub fn take(batch: &FactBatch, rows: &[u32]) -> Result<FactBatch, Problem> {
    let indices = UInt32Array::from(rows.to_vec());
    let texts = |array: &Option<StringArray>| {
        let text = |array: &StringArray, row: usize| {
            array.is_valid(row).then(|| array.value(row).to_owned())
        };
        let pick = |array: &StringArray| rows.iter().map(|r| text(array, *r as usize)).collect();
        array.as_ref().map(pick)
    };
    Ok(FactBatch {
        contract: batch.contract.clone(),
        columns: take_record_batch(&batch.columns, &indices).map_err(|e| failed(&e))?,
        event_times: rows
            .iter()
            .map(|r| batch.event_times[*r as usize])
            .collect(),
        fact_ids: texts(&batch.fact_ids),
        unknown_fields: texts(&batch.unknown_fields),
    })
}

fn failed(error: &arrow::error::ArrowError) -> Problem {
    Problem::internal("take-rows", "rows can't be picked").detail(error)
}

impl FoundFacts {
    /// The facts in one piece, run by run, under their contract as it is now.
    pub fn under(self, contract: &Contract) -> Result<FoundColumns, Problem> {
        let (mut columns, mut event_times, mut sequences) = (Vec::new(), Vec::new(), Vec::new());
        for run in self.runs {
            columns.push(evolve::project(&run.columns, contract)?);
            event_times.extend(run.event_times);
            sequences.extend(run.sequences);
        }
        let schema = columns
            .first()
            .map_or(contract.arrow_schema(), RecordBatch::schema);
        let columns = concat_batches(&schema, &columns).map_err(|e| failed(&e))?;
        Ok(FoundColumns {
            columns,
            event_times,
            sequences,
        })
    }
}

/// Rows of one batch, with their places among the sequences that were asked for.
struct Picked {
    batch: Arc<SequencedBatch>,
    rows: Vec<u32>,
    places: Vec<usize>,
}

/// The facts of sequences, batch by batch. `batch_of` gives the batch that holds a sequence.
fn pick(
    sequences: impl Iterator<Item = Sequence>,
    batch_of: impl Fn(Sequence) -> Result<Arc<SequencedBatch>, Problem>,
) -> Result<Vec<Picked>, Problem> {
    let mut wanted: Vec<(Sequence, usize)> = sequences.zip(0..).collect();
    wanted.sort_unstable();
    let mut picked = Vec::new();
    let mut rest = wanted.as_slice();
    while let Some((sequence, _)) = rest.first() {
        let batch = batch_of(*sequence)?;
        let end = rest.partition_point(|(s, _)| *s <= batch.last_sequence());
        let (here, after) = rest.split_at(end.max(1));
        picked.push(Picked {
            rows: here
                .iter()
                .map(|(s, _)| (s - batch.first_sequence) as u32)
                .collect(),
            places: here.iter().map(|(_, place)| *place).collect(),
            batch,
        });
        rest = after;
    }
    Ok(picked)
}

/// The facts at positions that are in ascending order.
pub fn fetch(
    positions: &[Position],
    batch_of: impl Fn(Sequence) -> Result<Arc<SequencedBatch>, Problem>,
) -> Result<FoundFacts, Problem> {
    let mut found = FoundFacts {
        runs: Vec::new(),
        order: vec![(0, 0); positions.len()],
    };
    for picked in pick(positions.iter().map(|p| p.sequence), batch_of)? {
        for (row, place) in picked.places.iter().enumerate() {
            found.order[*place] = (found.runs.len(), row);
        }
        let facts = take(&picked.batch.batch, &picked.rows)?;
        let first = picked.batch.first_sequence;
        found.runs.push(FoundRun {
            sequences: picked.rows.iter().map(|r| first + u64::from(*r)).collect(),
            ingest_time: picked.batch.ingest_time,
            event_times: facts.event_times,
            fact_ids: facts.fact_ids.map(|ids| {
                let texts = ids.iter().map(|id| id.unwrap_or_default().to_owned());
                texts.collect()
            }),
            columns: facts.columns,
        });
    }
    Ok(found)
}

/// Facts as they are written down when they count no longer: (sequence, removed at) of each.
pub fn removed_facts(
    removals: &[(Sequence, Sequence)],
    batch_of: impl Fn(Sequence) -> Result<Arc<SequencedBatch>, Problem>,
) -> Result<Vec<RemovedFacts>, Problem> {
    let mut runs: Vec<RemovedFacts> = Vec::new();
    for picked in pick(removals.iter().map(|(sequence, _)| *sequence), batch_of)? {
        let run = RemovedFacts {
            facts: take(&picked.batch.batch, &picked.rows)?,
            sequences: picked.places.iter().map(|p| removals[*p].0).collect(),
            removed_at: picked.places.iter().map(|p| removals[*p].1).collect(),
        };
        match runs.last_mut() {
            Some(last) if alike(&last.facts, &run.facts) => append_run(last, run)?,
            _ => runs.push(run),
        }
    }
    Ok(runs)
}

/// Whether two batches can be one.
fn alike(a: &FactBatch, b: &FactBatch) -> bool {
    a.columns.schema_ref().fields() == b.columns.schema_ref().fields()
        && a.fact_ids.is_some() == b.fact_ids.is_some()
        && a.unknown_fields.is_some() == b.unknown_fields.is_some()
}

fn append_run(run: &mut RemovedFacts, more: RemovedFacts) -> Result<(), Problem> {
    let facts = &mut run.facts;
    let schema = facts.columns.schema();
    facts.columns =
        concat_batches(&schema, [&facts.columns, &more.facts.columns]).map_err(|e| failed(&e))?;
    facts.event_times.extend(more.facts.event_times);
    let joined = |a: &Option<StringArray>, b: &Option<StringArray>| {
        let pair = a.as_ref().zip(b.as_ref());
        pair.map(|(a, b)| a.iter().chain(b.iter()).collect())
    };
    facts.fact_ids = joined(&facts.fact_ids, &more.facts.fact_ids);
    facts.unknown_fields = joined(&facts.unknown_fields, &more.facts.unknown_fields);
    run.sequences.extend(more.sequences);
    run.removed_at.extend(more.removed_at);
    Ok(())
}

/// The newest positions of a scan, of which no more are kept than it asks for.
pub struct Newest<'a> {
    scan: &'a Scan,
    positions: BTreeSet<Position>,
}

impl<'a> Newest<'a> {
    pub fn new(scan: &'a Scan) -> Self {
        Self {
            scan,
            positions: BTreeSet::new(),
        }
    }

    /// Offers the facts of a batch; `lives` says which the scan's `known_at` sees.
    pub fn offer(
        &mut self,
        batch: &SequencedBatch,
        lives: impl Fn(Sequence) -> Result<bool, Problem>,
    ) -> Result<(), Problem> {
        if batch.batch.contract != self.scan.contract {
            return Ok(());
        }
        let positions = (batch.first_sequence..).zip(&batch.batch.event_times);
        let positions = positions.map(|(sequence, time)| Position::new(*time, sequence));
        let least = self.least();
        let mut wanted: Vec<Position> = positions
            .filter(|p| self.scan.from <= *p && *p < self.scan.until)
            .filter(|p| p.sequence <= self.scan.known_at && least.is_none_or(|least| least < *p))
            .collect();
        // The newest first: once there are enough of them, nobody asks whether the others live.
        wanted.sort_unstable_by(|a, b| b.cmp(a));
        for position in wanted {
            if self.least().is_some_and(|least| position < least) {
                break;
            }
            if lives(position.sequence)? {
                self.positions.insert(position);
                if self.positions.len() > self.scan.newest {
                    self.positions.pop_first();
                }
            }
        }
        Ok(())
    }

    /// What a fact has to come after, once there are enough, to be among the newest.
    pub fn least(&self) -> Option<Position> {
        let first = self.positions.first().copied();
        let full = self.positions.len() >= self.scan.newest;
        full.then(|| first.unwrap_or(Position::MAX))
    }

    /// The newest of all that were offered, ascending.
    pub fn into_positions(self) -> Vec<Position> {
        self.positions.into_iter().collect()
    }
}

/// Visits every batch of a log.
fn each_batch<L: FactLog + ?Sized>(
    log: &L,
    mut visit: impl FnMut(&SequencedBatch) -> Result<(), Problem>,
) -> Result<(), Problem> {
    let (mut next, last) = log.sequences();
    while next <= last {
        let batches = log.read(next, SCAN_FACTS_MAX)?;
        let Some(end) = batches.last().map(|b| b.last_sequence()) else {
            return Ok(());
        };
        batches.iter().try_for_each(|batch| visit(batch))?;
        next = end + 1;
    }
    Ok(())
}

/// A scan that reads the whole log: what [`FactLog::scan`] does unless a log knows better.
pub fn scan_all<L: FactLog + ?Sized>(log: &L, scan: &Scan) -> Result<FoundFacts, Problem> {
    let mut removed = HashSet::new();
    each_batch(log, |batch| {
        for run in &batch.removed {
            let pairs = run.sequences.iter().zip(&run.removed_at);
            removed.extend(pairs.filter(|(_, at)| **at <= scan.known_at).map(|p| *p.0));
        }
        Ok(())
    })?;
    let mut newest = Newest::new(scan);
    each_batch(log, |batch| {
        newest.offer(batch, |sequence| Ok(!removed.contains(&sequence)))
    })?;
    fetch(&newest.into_positions(), |sequence| {
        let mut batches = log.read(sequence, 1)?.into_iter();
        let holds = |b: &Arc<SequencedBatch>| b.first_sequence <= sequence;
        batches.find(holds).ok_or_else(|| missing(sequence))
    })
}

/// Facts of a contract that were revised or retracted, found in all that came after them.
pub fn removed_among<L: FactLog + ?Sized>(
    log: &L,
    contract: &str,
    from: Sequence,
    until: Sequence,
) -> Result<Vec<(Sequence, Sequence)>, Problem> {
    let mut removed = Vec::new();
    each_batch(log, |batch| {
        let runs = batch.removed.iter();
        for run in runs.filter(|run| run.facts.contract.as_ref() == contract) {
            let pairs = run.sequences.iter().zip(&run.removed_at);
            let pairs = pairs.filter(|(s, _)| (from..=until).contains(*s));
            removed.extend(pairs.map(|(s, at)| (*s, *at)));
        }
        Ok(())
    })?;
    removed.sort_unstable();
    Ok(removed)
}

/// A sequence that should be in the log and isn't.
pub fn missing(sequence: Sequence) -> Problem {
    Problem::internal("missing-fact", "a fact that is known isn't in the log")
        .detail(format!("sequence {sequence}"))
}
