//! What a query sees: the facts, the definitions and the cursor, all as they were when it began.

use std::fmt;
use std::sync::Arc;

use datafusion::common::Result;
use headwater_env::Env;
use headwater_facts::{FactLog, refuse_before_kept};
use headwater_features::Catalog;
use headwater_schema::{Micros, Sequence};

use super::problem::through;
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

impl Snapshot {
    /// Refuses to read a contract's facts up to event time `as_of` and the snapshot's cursor where they are gone.
    pub fn refuse_gone(&self, contract: &str, as_of: Option<Micros>) -> Result<()> {
        let seen = as_of.into_iter().chain(self.as_of).min();
        refuse_before_kept(self.facts.as_ref(), contract, seen, self.known_at).map_err(through)
    }
}
