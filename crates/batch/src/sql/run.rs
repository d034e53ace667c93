//! Queries on their way: a place among those that run, a plan, and rows as they come, until the answer is
//! whole, its reader has gone or its time is over.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::physical_plan::execute_stream;
use datafusion::prelude::SessionContext;
use futures_util::StreamExt;
use headwater_schema::{Problem, Sequence};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::interruptible::{StopWhenDropped, interruptible};
use super::planned::{plan, session};
use super::problem::query_problem;
use super::result::{answer_rows, answer_schema};
use super::{QueryOptions, Snapshot, guard};
use crate::Stop;

/// Batches of an answer that wait for its reader.
const WAITING_BATCHES_MAX: usize = 2;
/// Plans are walked recursively; memory that isn't touched costs nothing.
const STACK_BYTES: usize = 64 << 20;

/// What is asked.
#[derive(Debug, Clone)]
pub struct Query {
    pub sql: String,
    /// Rows after which the answer ends; none: all.
    pub limit: Option<usize>,
}

/// Runs queries on threads of its own.
pub struct Queries {
    options: QueryOptions,
    runtime: Option<Runtime>,
    /// Tells time to those who wait: the threads of a query that computes don't come to it.
    clock: Option<Runtime>,
    environment: Arc<RuntimeEnv>,
    places: Arc<Semaphore>,
}

impl Drop for Queries {
    fn drop(&mut self) {
        let runtimes = [self.runtime.take(), self.clock.take()];
        for runtime in runtimes.into_iter().flatten() {
            runtime.shutdown_background();
        }
    }
}

/// Room for one query.
pub struct Place(#[expect(dead_code, reason = "it is held")] OwnedSemaphorePermit);

/// What a query says on its way.
enum Event {
    Columns(SchemaRef),
    Rows(RecordBatch),
    Failed(Problem),
    End,
}

/// The rows of an answer. Letting it go stops the query.
pub struct Answer {
    schema: SchemaRef,
    /// How much of the log it knows.
    pub sequence: Sequence,
    events: mpsc::Receiver<Event>,
    clock: Handle,
    _working: Working,
    deadline: Instant,
    options: QueryOptions,
    ended: bool,
}

/// A query at work, as long as somebody waits for it: what sees the word ends, and so does its task.
struct Working {
    task: AbortHandle,
    _stop: StopWhenDropped,
}

impl Drop for Working {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Answer {
    /// The columns, in the project's own types.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// As [`Answer::next`], for a thread that may wait.
    pub fn next_and_wait(&mut self) -> Result<Option<RecordBatch>, Problem> {
        let clock = self.clock.clone();
        clock.block_on(self.next())
    }

    /// The next rows; none once the answer is whole.
    pub async fn next(&mut self) -> Result<Option<RecordBatch>, Problem> {
        if self.ended {
            return Ok(None);
        }
        let event = tokio::time::timeout_at(self.deadline, self.events.recv()).await;
        match event {
            Err(_) => Err(timed_out(&self.options)),
            Ok(Some(Event::Rows(rows))) => Ok(Some(rows)),
            Ok(Some(Event::End)) => {
                self.ended = true;
                Ok(None)
            }
            Ok(Some(Event::Failed(problem))) => Err(problem),
            Ok(Some(Event::Columns(_)) | None) => Err(broke_off()),
        }
    }
}

fn no_thread(error: std::io::Error) -> Problem {
    Problem::external("thread", "a thread can't be started").detail(error)
}

fn broke_off() -> Problem {
    Problem::internal("query", "a query broke off without a word")
}

fn timed_out(options: &QueryOptions) -> Problem {
    Problem::user("timeout", "the query took too long")
        .detail(format!("more than {} ms", options.timeout_ms))
        .hint("read less, by `_event_time` for one; or raise `query.timeout_ms`")
}

impl Queries {
    /// Starts the threads. What doesn't fit into memory goes to `spill_folder`.
    pub fn start(options: QueryOptions, spill_folder: &Path) -> Result<Self, Problem> {
        let disk = DiskManagerBuilder::default()
            .with_mode(DiskManagerMode::Directories(vec![spill_folder.to_owned()]))
            .with_max_temp_directory_size(options.spill_bytes_max);
        let environment = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(FairSpillPool::new(options.memory_bytes_max)))
            .with_disk_manager_builder(disk)
            .with_object_store_registry(Arc::new(guard::OnlyArchive(None)))
            .build_arc()
            .map_err(|e| Problem::internal("query", "queries can't be run").detail(e))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(options.threads())
            .max_blocking_threads(options.threads().max(2))
            .thread_name("headwater-query")
            .thread_stack_size(STACK_BYTES)
            .enable_all()
            .build()
            .map_err(no_thread)?;
        let clock = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("headwater-query-clock")
            .enable_time()
            .build()
            .map_err(no_thread)?;
        Ok(Self {
            clock: Some(clock),
            places: Arc::new(Semaphore::new(options.concurrent_max.max(1))),
            options,
            runtime: Some(runtime),
            environment,
        })
    }

    /// A place among the queries that run.
    pub fn place(&self) -> Result<Place, Problem> {
        let place = self.places.clone().try_acquire_owned();
        place.map(Place).map_err(|_| busy(&self.options))
    }

    /// How many queries run now.
    pub fn running(&self) -> usize {
        self.options.concurrent_max.max(1) - self.places.available_permits()
    }

    fn handle(of: &Option<Runtime>) -> Result<&Handle, Problem> {
        let runtime = of.as_ref().map(Runtime::handle);
        runtime.ok_or_else(|| Problem::internal("query", "queries aren't run any more"))
    }

    /// As [`Queries::run`], for a thread that may wait.
    pub fn run_and_wait(
        &self,
        place: Place,
        snapshot: Snapshot,
        query: Query,
    ) -> Result<Answer, Problem> {
        Self::handle(&self.clock)?.block_on(self.run(place, snapshot, query))
    }

    /// Begins a query; returns once its columns are known.
    pub async fn run(
        &self,
        place: Place,
        snapshot: Snapshot,
        query: Query,
    ) -> Result<Answer, Problem> {
        guard::check_text(&query.sql, &self.options)?;
        let deadline = Instant::now() + Duration::from_millis(self.options.timeout_ms);
        let (events, mut said) = mpsc::channel(WAITING_BATCHES_MAX);
        let sequence = snapshot.known_at;
        let stop = Stop::default();
        let run = Run {
            stop: stop.clone(),
            options: self.options.clone(),
            environment: self.environment.clone(),
            snapshot: Arc::new(snapshot),
            events,
            _place: place,
        };
        let (handle, clock) = (Self::handle(&self.runtime)?, Self::handle(&self.clock)?);
        let working = Working {
            task: handle.spawn(run.finish(query, deadline)).abort_handle(),
            _stop: StopWhenDropped(stop),
        };
        let first = tokio::time::timeout_at(deadline, said.recv()).await;
        match first.map_err(|_| timed_out(&self.options))? {
            Some(Event::Columns(schema)) => Ok(Answer {
                schema,
                sequence,
                events: said,
                clock: clock.clone(),
                _working: working,
                deadline,
                options: self.options.clone(),
                ended: false,
            }),
            Some(Event::Failed(problem)) => Err(problem),
            _ => Err(broke_off()),
        }
    }
}

fn busy(options: &QueryOptions) -> Problem {
    Problem::external("busy", "too many queries at once")
        .detail(format!("{} run already", options.concurrent_max))
        .hint("try again a little later; the limit is `query.concurrent_max`")
        .retryable()
}

/// One query on the queries' threads.
struct Run {
    options: QueryOptions,
    environment: Arc<RuntimeEnv>,
    snapshot: Arc<Snapshot>,
    events: mpsc::Sender<Event>,
    stop: Stop,
    _place: Place,
}

impl Run {
    async fn finish(self, query: Query, deadline: Instant) {
        let done = tokio::time::timeout_at(deadline, self.answer(query)).await;
        let last = match done {
            Ok(Ok(())) => Event::End,
            Ok(Err(problem)) => Event::Failed(problem),
            Err(_) => Event::Failed(timed_out(&self.options)),
        };
        // Nobody hears it where the reader has gone.
        let _ = self.events.send(last).await;
    }

    async fn answer(&self, query: Query) -> Result<(), Problem> {
        let state = session(&self.options, &self.environment, &self.snapshot)?;
        let plan = plan(&state, &self.snapshot, &query).await?;
        let context = SessionContext::new_with_state(state);
        let frame = context
            .execute_logical_plan(plan)
            .await
            .map_err(|e| query_problem(&e))?;
        let tasks = Arc::new(frame.task_ctx());
        let planned = frame
            .create_physical_plan()
            .await
            .map_err(|e| query_problem(&e))?;
        let schema = answer_schema(&planned.schema());
        if self
            .events
            .send(Event::Columns(schema.clone()))
            .await
            .is_err()
        {
            return Ok(());
        }
        let planned = interruptible(planned, &self.stop).map_err(|e| query_problem(&e))?;
        let mut stream = execute_stream(planned, tasks).map_err(|e| query_problem(&e))?;
        let mut left = query.limit.unwrap_or(usize::MAX);
        let mut told = 0;
        while left > 0
            && let Some(rows) = stream.next().await
        {
            let mut rows = rows.map_err(|e| query_problem(&e))?;
            if rows.num_rows() > left {
                rows = rows.slice(0, left);
            }
            left -= rows.num_rows();
            told += rows.num_rows();
            if told > self.options.rows_max {
                return Err(too_many_rows(&self.options));
            }
            let rows = answer_rows(&schema, &rows).map_err(|e| query_problem(&e.into()))?;
            if rows.num_rows() > 0 && self.events.send(Event::Rows(rows)).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }
}

fn too_many_rows(options: &QueryOptions) -> Problem {
    Problem::user("too-many-rows", "the answer has too many rows")
        .detail(format!("more than {}", options.rows_max))
        .hint("add LIMIT or a filter, aggregate, or raise `query.rows_max`")
}
