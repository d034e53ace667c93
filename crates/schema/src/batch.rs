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
#[derive(Debug, Clone)]
pub struct SequencedBatch {
    /// The sequence of row 0; row `i` has `first_sequence + i`.
    pub first_sequence: Sequence,
    /// When the log took them; never falls as sequences grow.
    pub ingest_time: Micros,
    pub batch: FactBatch,
}

impl SequencedBatch {
    /// The sequence of the last row, or of the place before the batch where it is empty.
    pub fn last_sequence(&self) -> Sequence {
        self.first_sequence + self.batch.len() as Sequence - 1
    }
}
