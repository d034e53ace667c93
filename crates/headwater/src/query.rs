//! Queries in SQL over what an engine holds, as of one cursor.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use headwater_api::backend::QueryRequest;
use headwater_batch::sql::{Answer, Queries, Query, QueryOptions, Snapshot};
use headwater_batch::{SpillLimit, SweepOptions};
use headwater_env::Env;
use headwater_schema::Problem;

use crate::Engine;

/// What answers queries; its threads start with the first.
pub(crate) struct Querying {
    options: QueryOptions,
    /// Where queries write what doesn't fit into their memory.
    spill_folder: PathBuf,
    /// What sweeps of all queries may write.
    spill_limit: SpillLimit,
    queries: Mutex<Option<Arc<Queries>>>,
}

impl Querying {
    pub fn new(options: QueryOptions, spill_folder: PathBuf) -> Self {
        Self {
            spill_limit: SpillLimit::new(options.spill_bytes_max, "query.spill_bytes_max"),
            options,
            spill_folder,
            queries: Mutex::default(),
        }
    }

    /// Starts the threads before the first query. The folder is this process's own, so what one that was killed has
    /// left there goes then.
    fn queries(&self, env: &Env) -> Result<Arc<Queries>, Problem> {
        let mut queries = self.queries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queries) = queries.as_ref() {
            return Ok(queries.clone());
        }
        if env.files.exists(&self.spill_folder) {
            let removed = env.files.remove_dir_all(&self.spill_folder);
            removed.map_err(|e| {
                Problem::external("file", "what queries have spilled can't be removed").detail(e)
            })?;
        }
        let started = Arc::new(Queries::start(self.options.clone(), &self.spill_folder)?);
        *queries = Some(started.clone());
        Ok(started)
    }

    /// How many queries run now.
    pub fn running(&self) -> usize {
        let queries = self.queries.lock().unwrap_or_else(PoisonError::into_inner);
        queries.as_ref().map_or(0, |queries| queries.running())
    }
}

impl Engine {
    /// Begins a query; waits until its columns are known. It sees what was visible when it began, whatever is
    /// appended meanwhile.
    pub fn query(&self, request: &QueryRequest) -> Result<Answer, Problem> {
        let queries = self.querying.queries(&self.env)?;
        let place = queries.place()?;
        let snapshot = Snapshot {
            env: self.env.clone(),
            facts: self.facts.clone(),
            catalog: self.catalog(),
            known_at: self.known_at(request.known_at)?,
            as_of: request.as_of,
            sweep: SweepOptions {
                memory_bytes_max: self.querying.options.memory_bytes_max / 4,
                spill_folder: self.data.spill(),
                spill_limit: self.querying.spill_limit.clone(),
            },
        };
        let query = Query {
            sql: request.sql.clone(),
            limit: request.limit,
        };
        queries.run_and_wait(place, snapshot, query)
    }
}
