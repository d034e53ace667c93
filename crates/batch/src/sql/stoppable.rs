//! A fact log that is read until somebody says stop: how a sweep ends whose query was given up.

use std::sync::Arc;

use headwater_env::Env;
use headwater_facts::{
    AppendRequest, Appended, FactLog, FoundFacts, IndexSpec, Lookup, QuarantineQuery,
    QuarantinedRow,
};
use headwater_schema::{Micros, Problem, Sequence, SequencedBatch};

use crate::Stop;

/// The facts of a query.
pub struct Stoppable {
    pub env: Env,
    pub facts: Arc<dyn FactLog>,
    pub stop: Stop,
}

impl FactLog for Stoppable {
    fn append(&self, _: Vec<AppendRequest>) -> Result<Vec<Appended>, Problem> {
        Err(Problem::internal("read-only", "queries only read"))
    }

    fn read(&self, from: Sequence, facts_max: usize) -> Result<Vec<Arc<SequencedBatch>>, Problem> {
        self.stop.check()?;
        self.facts.read(from, facts_max)
    }

    fn sequences(&self) -> (Sequence, Sequence) {
        self.facts.sequences()
    }

    fn newest(&self, contract: &str) -> Option<Micros> {
        self.facts.newest(contract)
    }

    fn newest_dropped(&self, contract: &str) -> Option<Micros> {
        self.facts.newest_dropped(contract)
    }

    fn is_indexed(&self, index: &IndexSpec) -> bool {
        self.facts.is_indexed(index)
    }

    fn lookup(&self, lookup: &Lookup) -> Result<FoundFacts, Problem> {
        self.stop.check()?;
        self.facts.lookup(lookup)
    }

    fn quarantined(&self, query: &QuarantineQuery) -> Result<Vec<QuarantinedRow>, Problem> {
        self.facts.quarantined(query)
    }

    fn removed(
        &self,
        contract: &str,
        from: Sequence,
        until: Sequence,
    ) -> Result<Vec<(Sequence, Sequence)>, Problem> {
        self.facts.removed(contract, from, until)
    }
}
