//! Facts in columns, as they travel from the edge to the log and to the feature views.

use std::sync::Arc;

use arrow::array::{RecordBatch, StringArray};

use crate::{Micros, Sequence};

/// Facts of one contract that passed its checks and have no sequence yet.
#[derive(Debug, Clone)]
pub struct FactBatch {
    /// The contract's name.
    pub contract: Arc<str>,
    /// One column per field of the contract, in its order and of its types.
    pub columns: RecordBatch,
    /// When each fact happened; as long as `columns`.
    pub event_times: Vec<Micros>,
    /// Each fact's id as text, or none where the contract names no id and the sequence is the id.
    pub fact_ids: Option<StringArray>,
    /// Fields that the contract doesn't know, as one JSON object per fact that had any.
    pub unknown_fields: Option<StringArray>,
}

impl FactBatch {
    pub fn len(&self) -> usize {
        self.event_times.len()
    }

    pub fn is_empty(&self) -> bool {
        self.event_times.is_empty()
    }
}

/// Facts as the log holds them: consecutive sequences, one moment of arrival.
///
/// Every new fact takes a sequence, and so does every retraction. A revision is a new fact that comes
/// with the removal of the one it replaces.
#[derive(Debug, Clone)]
pub struct SequencedBatch {
    /// The sequence of row 0; row `i` has `first_sequence + i`.
    pub first_sequence: Sequence,
    /// When the log took them; never falls as sequences grow.
    pub ingest_time: Micros,
    /// The new facts; none where the batch retracts.
    pub batch: FactBatch,
    /// Earlier facts that count no longer: those that the new ones revise or, where there are no new
    /// ones, those that are retracted, one per sequence.
    pub removed: Vec<RemovedFacts>,
}

/// Facts that count no longer, with the columns they were stored with.
#[derive(Debug, Clone)]
pub struct RemovedFacts {
    pub facts: FactBatch,
    /// The sequence that each of them has.
    pub sequences: Vec<Sequence>,
    /// The sequence from which each is no longer seen.
    pub removed_at: Vec<Sequence>,
}

impl SequencedBatch {
    /// How many sequences it takes.
    pub fn len(&self) -> usize {
        let removed: usize = self.removed.iter().map(|r| r.facts.len()).sum();
        self.batch.len().max(removed)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The last sequence it takes, or the place before it where it takes none.
    pub fn last_sequence(&self) -> Sequence {
        self.first_sequence + self.len() as Sequence - 1
    }
}
