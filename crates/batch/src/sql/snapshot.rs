//! What a query sees: the facts, the definitions and the cursor, all as they were when it began.

use std::fmt;
use std::sync::Arc;

use headwater_env::Env;
use headwater_facts::FactLog;
use headwater_features::Catalog;
use headwater_schema::{Micros, Sequence};

use crate::SweepOptions;

/// Everything that the tables of one query are made of.
#[derive(Clone)]
pub struct Snapshot {
    pub env: Env,
    pub facts: Arc<dyn FactLog>,
    pub catalog: Arc<Catalog>,
    /// The last sequence that is known of.
    pub known_at: Sequence,
    /// The newest event time that is seen; none: all.
    pub as_of: Option<Micros>,
    /// What one sweep over features may use.
    pub sweep: SweepOptions,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "known at {}", self.known_at)
    }
}
