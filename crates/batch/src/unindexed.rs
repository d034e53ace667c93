//! A fact log that finds nothing by entity, for tests that go through all facts.

use std::ops::Deref;
use std::sync::Arc;

use headwater_facts::{
    AppendRequest, Appended, FactLog, FoundFacts, Lookup, MemoryFactLog, QuarantineQuery,
    QuarantinedRow,
};
use headwater_schema::{Micros, Problem, Sequence, SequencedBatch};

/// Another log, without its indexes.
pub struct Unindexed<L>(pub L);

impl<L: Deref<Target = MemoryFactLog> + Send + Sync> FactLog for Unindexed<L> {
    fn append(&self, group: Vec<AppendRequest>) -> Result<Vec<Appended>, Problem> {
        self.0.append(group)
    }

    fn read(&self, from: Sequence, facts_max: usize) -> Result<Vec<Arc<SequencedBatch>>, Problem> {
        self.0.read(from, facts_max)
    }

    fn sequences(&self) -> (Sequence, Sequence) {
        self.0.sequences()
    }

    fn newest(&self, contract: &str) -> Option<Micros> {
        self.0.newest(contract)
    }

    fn newest_dropped(&self, contract: &str) -> Option<Micros> {
        self.0.newest_dropped(contract)
    }

    fn lookup(&self, _: &Lookup) -> Result<FoundFacts, Problem> {
        Err(Problem::internal("unindexed", "there is no index"))
    }

    fn quarantined(&self, query: &QuarantineQuery) -> Result<Vec<QuarantinedRow>, Problem> {
        self.0.quarantined(query)
    }
}
