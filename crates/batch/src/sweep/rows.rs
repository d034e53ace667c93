//! The rows of a view's sources, from the log: new facts, and facts that count no longer.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use arrow::array::ArrayRef;
use headwater_facts::FactLog;
use headwater_features::{
    CompiledSource, CompiledView, KeptRows, PreparedFacts, ReadPlan, SourceRows, Upstream, keep,
    prepare_rows,
};
use headwater_schema::{
    Contract, Cursor, EntityKey, Position, Problem, Sequence, SequencedBatch, evolve,
};

use super::{Moment, Stop, Sweep};
use crate::SweepProgress;

/// Facts read from the log at a time.
const READ_FACTS: usize = 8192;

/// Rows of one source from one batch of the log.
pub(super) enum Rows {
    /// New facts that pass the source's `where` and name an entity.
    Facts(PreparedFacts),
    /// Facts that count no longer, whether they passed the `where` or not, and since when, one by one.
    Removed(KeptRows, Vec<Sequence>),
}

/// Rows of a source before its `where`, keys and inputs are evaluated.
enum Raw {
    Facts(SourceRows),
    Removed(SourceRows, Vec<Sequence>),
}

type Stream<'a, T> = Box<dyn Iterator<Item = Result<T, Problem>> + 'a>;

/// Every row of a view's source up to a sequence, and what was removed by then.
pub(super) fn rows_of<'a>(
    sweep: &'a Sweep<'a>,
    view: &'a CompiledView,
    index: usize,
    end: Sequence,
    stop: &Stop,
) -> Result<Stream<'a, Rows>, Problem> {
    let source = &view.sources[index];
    let any = keys_only(source);
    let raw = raw_rows(sweep, source, source.needed(), end, stop)?;
    Ok(Box::new(raw.map(move |raw| match raw? {
        Raw::Facts(rows) => Ok(Rows::Facts(prepare_rows(source, rows)?)),
        Raw::Removed(rows, removed_at) => removed(&any, rows, removed_at),
    })))
}

/// The source without its `where`: the entity that a fact was of can be told whatever became of the rest.
fn keys_only(source: &CompiledSource) -> CompiledSource {
    CompiledSource {
        filter: None,
        ..source.clone()
    }
}

fn removed(
    source: &CompiledSource,
    rows: SourceRows,
    removed_at: Vec<Sequence>,
) -> Result<Rows, Problem> {
    let ends: hashbrown::HashMap<Sequence, Sequence> =
        rows.sequences.iter().copied().zip(removed_at).collect();
    let kept = keep(source, rows)?;
    let removed_at = kept.sequences.iter().map(|s| ends[s]).collect();
    Ok(Rows::Removed(kept, removed_at))
}

fn raw_rows<'a>(
    sweep: &'a Sweep<'a>,
    source: &'a CompiledSource,
    needed: BTreeSet<usize>,
    end: Sequence,
    stop: &Stop,
) -> Result<Stream<'a, Raw>, Problem> {
    match &source.upstream {
        None => {
            let contract = sweep.contract(&source.contract)?;
            Ok(Box::new(LogRows::new(sweep.facts, contract, end, stop)))
        }
        Some(upstream) => chained_rows(sweep, upstream, needed, end, stop),
    }
}

/// What the view upstream makes of facts: the facts are gone through twice, once for the moments that the upstream is
/// read at, and once more beside what it says there.
fn chained_rows<'a>(
    sweep: &'a Sweep<'a>,
    upstream: &'a Upstream,
    needed: BTreeSet<usize>,
    end: Sequence,
    stop: &Stop,
) -> Result<Stream<'a, Raw>, Problem> {
    let above = &upstream.view.sources[upstream.source];
    let needed_above = upstream.needed_above(&needed);
    let any = keys_only(above);
    let raw = |needed: BTreeSet<usize>| raw_rows(sweep, above, needed, end, stop);
    let plan = ReadPlan::new(upstream.view.clone(), upstream.features(&needed));
    let kept = raw(needed_above.clone())?.filter_map(|raw| match raw {
        Ok(Raw::Facts(rows)) => Some(keep(above, rows)),
        Ok(Raw::Removed(..)) => None,
        Err(problem) => Some(Err(problem)),
    });
    let moments = kept.flat_map(move |kept| moments_at(kept, end));
    let mut swept = sweep.swept(&plan, Box::new(moments), stop, &SweepProgress::default())?;
    Ok(Box::new(raw(needed_above)?.map(move |raw| match raw? {
        Raw::Facts(rows) => {
            let kept = keep(above, rows)?;
            let said = swept.take_all(kept.len())?;
            Ok(Raw::Facts(below(upstream, kept, &said, &needed)?))
        }
        Raw::Removed(rows, removed_at) => match removed(&any, rows, removed_at)? {
            Rows::Removed(kept, removed_at) => {
                let rows = below(upstream, kept, &[], &needed)?;
                Ok(Raw::Removed(rows, removed_at))
            }
            Rows::Facts(_) => Err(Problem::internal("sweep", "removed facts are none")),
        },
    })))
}

/// The moments of rows at themselves.
fn moments_at(
    kept: Result<KeptRows, Problem>,
    end: Sequence,
) -> Box<dyn Iterator<Item = Result<Moment, Problem>>> {
    match kept {
        Ok(kept) => Box::new((0..kept.len()).map(move |row| Ok(moment_at(&kept, row, end)))),
        Err(problem) => Box::new(std::iter::once(Err(problem))),
    }
}

fn moment_at(rows: &KeptRows, row: usize, end: Sequence) -> Moment {
    let position = rows.position(row);
    let after = Position::new(position.event_time, position.sequence + 1);
    Moment {
        key: Some(EntityKey::from_bytes(rows.key(row))),
        cursor: Cursor::before_fact(after).known_at(end),
    }
}

fn below(
    upstream: &Upstream,
    kept: KeptRows,
    said: &[Option<ArrayRef>],
    needed: &BTreeSet<usize>,
) -> Result<SourceRows, Problem> {
    Ok(SourceRows {
        columns: upstream.rows_of_columns(&kept, said, needed)?,
        event_times: kept.event_times,
        sequences: kept.sequences,
    })
}

/// The facts of a contract from the log, with the columns that the contract has now.
struct LogRows<'a> {
    facts: &'a dyn FactLog,
    contract: Arc<Contract>,
    next: Sequence,
    end: Sequence,
    stop: Stop,
    read: VecDeque<Arc<SequencedBatch>>,
    waiting: VecDeque<Raw>,
}

impl<'a> LogRows<'a> {
    fn new(facts: &'a dyn FactLog, contract: Arc<Contract>, end: Sequence, stop: &Stop) -> Self {
        Self {
            next: facts.first_sequence(),
            facts,
            contract,
            end,
            stop: stop.clone(),
            read: VecDeque::new(),
            waiting: VecDeque::new(),
        }
    }

    /// The next rows, or none at the end of the log.
    fn advance(&mut self) -> Result<Option<Raw>, Problem> {
        loop {
            if let Some(raw) = self.waiting.pop_front() {
                return Ok(Some(raw));
            }
            if let Some(batch) = self.read.pop_front() {
                if batch.batch.contract == self.contract.name {
                    self.take(&batch)?;
                }
                continue;
            }
            if self.next > self.end {
                return Ok(None);
            }
            self.stop.check()?;
            self.read = self.facts.read(self.next, READ_FACTS)?.into();
            match self.read.back() {
                Some(last) => self.next = last.last_sequence() + 1,
                None => return Ok(None),
            }
        }
    }

    fn take(&mut self, batch: &SequencedBatch) -> Result<(), Problem> {
        let facts = &batch.batch;
        let known = (self.end + 1).saturating_sub(batch.first_sequence) as usize;
        let rows = facts.len().min(known);
        if rows > 0 {
            let columns = facts.columns.slice(0, rows);
            self.waiting.push_back(Raw::Facts(SourceRows {
                columns: evolve::project(&columns, &self.contract)?,
                event_times: facts.event_times[..rows].to_vec(),
                sequences: (batch.first_sequence..).take(rows).collect(),
            }));
        }
        for run in &batch.removed {
            let facts = &run.facts;
            let rows = SourceRows {
                columns: evolve::project(&facts.columns, &self.contract)?,
                event_times: facts.event_times.clone(),
                sequences: run.sequences.clone(),
            };
            self.waiting
                .push_back(Raw::Removed(rows, run.removed_at.clone()));
        }
        Ok(())
    }
}

impl Iterator for LogRows<'_> {
    type Item = Result<Raw, Problem>;

    fn next(&mut self) -> Option<Self::Item> {
        self.advance().transpose()
    }
}

impl Sweep<'_> {
    pub(super) fn contract(&self, name: &str) -> Result<Arc<Contract>, Problem> {
        self.catalog.contract(name).cloned().ok_or_else(|| {
            Problem::internal("unknown-contract", "a view's contract is gone").detail(name)
        })
    }
}
