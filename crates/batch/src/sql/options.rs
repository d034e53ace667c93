//! The limits of queries.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What queries may take; `query` in `headwater.yaml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct QueryOptions {
    /// Memory of all queries together, for what they sort, join and group.
    pub memory_bytes_max: usize,
    /// Bytes of disk, in the data folder, for what doesn't fit into that memory.
    pub spill_bytes_max: u64,
    /// Rows of one answer.
    pub rows_max: usize,
    /// Milliseconds until a query is given up, its answer included.
    pub timeout_ms: u64,
    /// Queries that run at once; more are refused as busy.
    pub concurrent_max: usize,
    /// Bytes of a query's text.
    pub sql_bytes_max: usize,
    /// Threads that all queries share; 0 is one for every two cores.
    pub threads: usize,
}

impl Default for QueryOptions {
    fn default() -> Self {
        Self {
            memory_bytes_max: 256 << 20,
            spill_bytes_max: 1 << 30,
            rows_max: 1_000_000,
            timeout_ms: 25_000,
            concurrent_max: 4,
            sql_bytes_max: 64 << 10,
            threads: 0,
        }
    }
}

impl QueryOptions {
    /// How many threads that is on this machine.
    pub(crate) fn threads(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        match self.threads {
            0 => cores.div_ceil(2),
            threads => threads,
        }
    }
}
