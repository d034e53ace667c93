//! The fact log as everything above sees it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use headwater_schema::decode::RejectedRow;
use headwater_schema::{EntityKey, FactBatch, Micros, Position, Problem, Sequence, SequencedBatch};
use serde::{Deserialize, Serialize};

#[cfg(feature = "disk")]
use crate::Archive;

/// What a request changes.
#[derive(Debug, Clone)]
pub enum Change {
    /// New facts. One whose id is known within the dedup window is a duplicate or a conflict.
    Append(FactBatch),
    /// Facts that replace the newest live fact with their id, whatever its age. One with the payload
    /// of that fact is a duplicate; one whose id nothing lives under is a new fact.
    Revise(FactBatch),
    /// Takes back the newest live fact with each of these ids. Where facts have no id of their own
    /// the id is their sequence.
    Retract {
        contract: Arc<str>,
        fact_ids: Vec<String>,
    },
}

impl Change {
    /// The contract's name.
    pub fn contract(&self) -> &Arc<str> {
        match self {
            Self::Append(batch) | Self::Revise(batch) => &batch.contract,
            Self::Retract { contract, .. } => contract,
        }
    }

    /// How many facts it is about.
    pub fn len(&self) -> usize {
        match self {
            Self::Append(batch) | Self::Revise(batch) => batch.len(),
            Self::Retract { fact_ids, .. } => fact_ids.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A change, and rows of the same request that broke their contract.
#[derive(Debug, Clone)]
pub struct AppendRequest {
    pub change: Change,
    pub rejected: Vec<RejectedRow>,
    /// One conflict refuses the whole batch.
    pub all_or_nothing: bool,
    /// For how long, in microseconds of arrival time, an id is remembered; none: for ever.
    pub dedup_window: Option<Micros>,
    pub mends: Mends,
}

/// What a request makes of rows that are in quarantine.
///
/// A row whose fact is appended, or is known already, is resolved; one whose fact is in conflict stays
/// with that reason. A fact whose row is resolved already, or isn't in quarantine, is a duplicate: so a
/// row becomes a fact once, however often it is replayed.
#[derive(Debug, Clone, Default)]
pub struct Mends {
    /// For each fact of the change, the row that it comes from; empty where they come from none.
    pub rows: Vec<u64>,
    /// Rows that broke their contract again, and how.
    pub again: Vec<(u64, Fault)>,
}

/// How a row broke its contract.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    pub field: Option<String>,
    pub rule: String,
    pub reason: String,
}

impl Fault {
    /// A row that keeps its contract and can't be a fact because its id is taken.
    pub fn conflict() -> Self {
        Self {
            field: None,
            rule: "conflict".into(),
            reason: "a fact with this id and another payload is known".into(),
        }
    }
}

impl AppendRequest {
    /// A change without more.
    pub fn new(change: Change) -> Self {
        Self {
            change,
            rejected: Vec::new(),
            all_or_nothing: false,
            dedup_window: None,
            mends: Mends::default(),
        }
    }
}

/// What became of an [`AppendRequest`].
#[derive(Debug, Clone, Default)]
pub struct Appended {
    /// What is new, with its sequences; none where all was known or refused.
    pub batch: Option<Arc<SequencedBatch>>,
    /// Rows that were known already, with the same payload.
    pub duplicates: Vec<usize>,
    /// Rows whose id is known with another payload.
    pub conflicts: Vec<usize>,
    /// Places, in the retraction, of ids that no live fact has.
    pub unknown: Vec<usize>,
    /// The log's last sequence after the append.
    pub last_sequence: Sequence,
}

/// Which facts of one entity to find.
#[derive(Debug, Clone)]
pub struct Lookup {
    pub contract: Arc<str>,
    /// The columns of the contract that make the key.
    pub key_columns: Vec<Arc<str>>,
    pub key: EntityKey,
    pub from: Position,
    /// The first place of the total order that is left out.
    pub until: Position,
    pub known_at: Sequence,
    /// Only the newest of them, this many.
    pub newest: Option<usize>,
}

/// Which facts of a contract to find, whatever their entity.
#[derive(Debug, Clone)]
pub struct Scan {
    pub contract: Arc<str>,
    pub from: Position,
    /// The first place of the total order that is left out.
    pub until: Position,
    pub known_at: Sequence,
    /// Only the newest of them, this many.
    pub newest: usize,
}

/// Facts found: runs of rows with the same columns, and their order.
#[derive(Debug, Clone, Default)]
pub struct FoundFacts {
    pub runs: Vec<FoundRun>,
    /// (run, row) in ascending order of the facts' positions.
    pub order: Vec<(usize, usize)>,
}

/// Facts found in one piece, with the columns that their contract has now.
#[derive(Debug, Clone)]
pub struct FoundColumns {
    pub columns: RecordBatch,
    pub event_times: Vec<Micros>,
    pub sequences: Vec<Sequence>,
}

/// Facts that were stored together, with the columns they were stored with.
#[derive(Debug, Clone)]
pub struct FoundRun {
    pub columns: RecordBatch,
    pub event_times: Vec<Micros>,
    pub sequences: Vec<Sequence>,
    pub ingest_time: Micros,
    /// Each fact's id as text; none where the sequence is the id.
    pub fact_ids: Option<Vec<String>>,
}

/// Facts that somebody goes through the log for.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub contract: Arc<str>,
    /// The oldest event time.
    pub time_min: Micros,
    /// The newest event time.
    pub time_max: Micros,
    /// The last sequence.
    pub until: Sequence,
}

/// The columns that facts of a contract are found by.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IndexSpec {
    pub contract: Arc<str>,
    pub key_columns: Vec<Arc<str>>,
}

/// A row that broke its contract.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantinedRow {
    /// Its number among the rejected rows of its contract; the first is 1.
    #[serde(skip)]
    pub id: u64,
    pub contract: String,
    pub ingest_time: Micros,
    /// The row's number in its request.
    pub row: usize,
    /// How it broke its contract when it was last tried.
    #[serde(flatten)]
    pub fault: Fault,
    /// The row as it came.
    pub raw: String,
    /// When it became a fact; none while it waits.
    #[serde(skip)]
    pub resolved: Option<Micros>,
}

impl QuarantinedRow {
    /// A row that arrives at `now`; its id comes from its place.
    pub fn new(contract: &str, rejected: &RejectedRow, now: Micros) -> Self {
        Self {
            id: 0,
            contract: contract.to_owned(),
            ingest_time: now,
            row: rejected.row,
            fault: Fault {
                field: rejected.field.clone(),
                rule: rejected.rule.clone(),
                reason: rejected.reason.clone(),
            },
            raw: rejected.raw.clone(),
            resolved: None,
        }
    }
}

/// Which rejected rows to find.
#[derive(Debug, Clone)]
pub struct QuarantineQuery {
    pub contract: Arc<str>,
    /// These only; none: all.
    pub ids: Option<BTreeSet<u64>>,
    /// Whether rows that have become facts are among them.
    pub resolved: bool,
    pub limit: usize,
}

impl QuarantineQuery {
    /// The newest rows that wait.
    pub fn waiting(contract: Arc<str>, limit: usize) -> Self {
        Self {
            contract,
            ids: None,
            resolved: false,
            limit,
        }
    }
}

/// The log of all facts of all contracts. Every implementation passes one suite
/// (`testkit::conformance`).
///
/// - **Order**: every new fact and every retraction takes the next sequence, in the order of requests
///   and rows.
/// - **Durability**: when `append` returns, what it took survives as the sync policy says; rejected
///   rows too. A failed append leaves the log as it was.
/// - **Idempotence**: a fact whose id is known takes no sequence; appending a request twice changes
///   nothing, nor does retracting twice.
/// - **Corrections**: nothing leaves the log. A fact that was revised or retracted at sequence `s` is
///   found by a `known_at` before `s`, and by none from `s` on.
/// - **Visibility**: what `append` took is seen by every later `read`, `lookup` and `scan`.
pub trait FactLog: Send + Sync {
    /// Appends a group of requests with one durable write.
    fn append(&self, group: Vec<AppendRequest>) -> Result<Vec<Appended>, Problem>;

    /// What was appended from sequence `from` on, in order: whole batches, at least one where there is
    /// any, about `facts_max` facts. The first batch may begin before `from`.
    fn read(&self, from: Sequence, facts_max: usize) -> Result<Vec<Arc<SequencedBatch>>, Problem>;

    /// The oldest sequence that is kept (one more than the last where none is) and the newest (0
    /// before the first fact).
    fn sequences(&self) -> (Sequence, Sequence);

    /// The newest event time of a contract's facts, each capped at its arrival; none before the first.
    fn newest(&self, contract: &str) -> Option<Micros>;

    /// The newest event time among a contract's facts that the log let go; none where it let none go, or only
    /// before it kept note of that.
    fn newest_dropped(&self, contract: &str) -> Option<Micros>;

    /// Whether [`FactLog::lookup`] finds by these columns every fact that is kept.
    fn is_indexed(&self, _: &IndexSpec) -> bool {
        false
    }

    /// Facts of one entity.
    fn lookup(&self, lookup: &Lookup) -> Result<FoundFacts, Problem>;

    /// Rejected rows of a contract, newest first.
    fn quarantined(&self, query: &QuarantineQuery) -> Result<Vec<QuarantinedRow>, Problem>;

    /// Returns once everything appended survives a power cut. Nothing to do for a log whose appends
    /// always do.
    fn sync(&self) -> Result<(), Problem> {
        Ok(())
    }

    /// Makes durable what should be by now. How long until something else should; none while nothing
    /// waits. Whoever appends calls it when that time is over.
    fn tend(&self) -> Result<Option<Duration>, Problem> {
        Ok(None)
    }

    /// Facts of a contract, whatever their entity. Reads the whole log unless a log knows better.
    fn scan(&self, scan: &Scan) -> Result<FoundFacts, Problem> {
        crate::found::scan_all(self, scan)
    }

    /// As [`FactLog::read`], for the facts that are wanted; and the sequence to go on from, which is later than
    /// `from`. Batches that hold none of them may be left out, and facts that aren't wanted may be among them: the
    /// first batch may begin before `from`.
    fn read_of(
        &self,
        wanted: &Wanted,
        from: Sequence,
        facts_max: usize,
    ) -> Result<(Vec<Arc<SequencedBatch>>, Sequence), Problem> {
        let batches = self.read(from, facts_max)?;
        let next = batches.last().map_or(wanted.until, |b| b.last_sequence()) + 1;
        Ok((batches, next))
    }

    /// Which facts of a contract, of the sequences `from..=until`, were revised or retracted, ascending; each
    /// with the sequence from which it isn't seen. Facts of other contracts may be among them: a sequence is one
    /// fact's, so whoever has the contract's facts tells them apart.
    fn removed(
        &self,
        contract: &str,
        from: Sequence,
        until: Sequence,
    ) -> Result<Vec<(Sequence, Sequence)>, Problem> {
        crate::found::removed_among(self, contract, from, until)
    }

    /// Where the oldest facts lie as Parquet files, if anywhere.
    #[cfg(feature = "disk")]
    fn archive(&self) -> Option<&Archive> {
        None
    }

    /// The last sequence that had arrived at an instant; the one before the oldest kept where none had.
    fn known_by(&self, instant: Micros) -> Result<Sequence, Problem> {
        let (first, last) = self.sequences();
        let (mut known, mut after) = (first.saturating_sub(1), last + 1);
        while after - known > 1 {
            let middle = known + (after - known) / 2;
            let Some(batch) = self.read(middle, 1)?.into_iter().next() else {
                break;
            };
            if batch.ingest_time <= instant {
                known = batch.last_sequence();
            } else {
                after = batch.first_sequence.max(known + 1);
            }
        }
        Ok(known)
    }

    /// The oldest sequence that is kept.
    fn first_sequence(&self) -> Sequence {
        self.sequences().0
    }

    /// The newest sequence.
    fn last_sequence(&self) -> Sequence {
        self.sequences().1
    }
}
