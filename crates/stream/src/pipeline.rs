//! The pipeline: one durable append for everything that waits, then visible, then acknowledged.
//!
//! Three threads. The committer takes what waits in the queue as one group and makes it durable; the
//! applier makes it visible and answers. So the disk works on the next group while the last one is
//! applied, and many small writers share one sync. The third writes checkpoints and measures the
//! store, so that nobody waits for them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use headwater_env::queue::{self, Receiver, RecvTimeoutError, Sender};
use headwater_facts::{AppendRequest, Appended, FactLog};
use headwater_schema::Problem;
use tracing::Span;

use crate::Processor;

/// How often the store is measured while no checkpoint is due.
const STORE_MEASURED_EVERY: Duration = Duration::from_secs(10);

/// What a caller hears of its request, once its facts are durable and visible.
pub type Done = Box<dyn FnOnce(Result<Appended, Problem>) + Send>;

/// Hears that facts have been applied; it must return at once.
pub type Applied = Box<dyn Fn() + Send + Sync>;

/// Settings of the pipeline.
#[derive(Debug, Clone)]
pub struct PipelineOptions {
    /// Requests that may wait; more are refused as busy.
    pub queue_requests_max: usize,
    /// Requests in one durable append.
    pub group_requests_max: usize,
    /// Facts in one durable append, as soon as one more request would pass it.
    pub group_facts_max: usize,
    /// Groups that are durable and wait to be applied.
    pub groups_in_flight_max: usize,
}

impl Default for PipelineOptions {
    fn default() -> Self {
        Self {
            queue_requests_max: 4096,
            group_requests_max: 1024,
            group_facts_max: 32_768,
            groups_in_flight_max: 4,
        }
    }
}

/// What an operator wants to know of the pipeline.
#[derive(Debug, Clone, Copy, Default)]
pub struct PipelineStats {
    pub waiting: u64,
    pub groups: u64,
    pub requests: u64,
    pub refused: u64,
}

struct Request {
    append: AppendRequest,
    done: Done,
    /// Who asked, for traces.
    asker: Span,
}

/// A request that has been made durable, or has failed.
struct Committed {
    done: Done,
    answer: Result<Appended, Problem>,
    asker: Span,
}

type Group = Vec<Committed>;

/// Takes facts to the log and to the views.
pub struct Pipeline {
    requests: Option<Sender<Request>>,
    threads: Vec<JoinHandle<()>>,
    counters: Arc<Counters>,
    listener: Arc<OnceLock<Applied>>,
}

#[derive(Default)]
struct Counters {
    groups: AtomicU64,
    requests: AtomicU64,
    refused: AtomicU64,
}

impl Pipeline {
    /// Starts the threads.
    pub fn start(
        facts: Arc<dyn FactLog>,
        processor: Arc<Processor>,
        options: &PipelineOptions,
    ) -> Result<Self, Problem> {
        let counters = Arc::new(Counters::default());
        let (requests, waiting) =
            queue::bounded("ingest.queue_requests_max", options.queue_requests_max);
        let (groups, durable) =
            queue::bounded("ingest.groups_in_flight_max", options.groups_in_flight_max);
        let limits = options.clone();
        let counted = counters.clone();
        let committer = spawn("headwater-committer", move || {
            commit(facts.as_ref(), &waiting, &groups, &limits, &counted);
        })?;
        let (due, asked) = queue::bounded("checkpoint", 1);
        let applied = processor.clone();
        let listener = Arc::new(OnceLock::new());
        let told = listener.clone();
        let applier = spawn("headwater-applier", move || {
            apply(&applied, &durable, &due, &told);
        })?;
        let checkpointer = spawn("headwater-checkpoint", move || {
            write_checkpoints(&processor, &asked);
        })?;
        Ok(Self {
            requests: Some(requests),
            threads: vec![committer, applier, checkpointer],
            counters,
            listener,
        })
    }

    /// Calls `listener` whenever facts have been applied, before those are answered who sent them. There is one
    /// listener at most; a later one isn't taken.
    pub fn listen(&self, listener: Applied) {
        let _ = self.listener.set(listener);
    }

    /// Hands facts over; `done` hears when they are durable and visible, or why not. Refused at once
    /// where too many requests wait.
    pub fn submit(&self, append: AppendRequest, done: Done) {
        let request = Request {
            append,
            done,
            asker: Span::current(),
        };
        let Some(requests) = &self.requests else {
            return (request.done)(Err(stopping()));
        };
        if let Err(request) = requests.try_send(request) {
            self.counters.refused.fetch_add(1, Ordering::Relaxed);
            (request.into_inner().done)(Err(busy()));
        }
    }

    /// Hands facts over and waits until they are durable and visible; waits for room too.
    pub fn append(&self, append: AppendRequest) -> Result<Appended, Problem> {
        let (answer, answered) = queue::bounded("ingest.answer", 1);
        let done: Done = Box::new(move |result| drop(answer.try_send(result)));
        let requests = self.requests.as_ref().ok_or_else(stopping)?;
        requests
            .send(Request {
                append,
                done,
                asker: Span::current(),
            })
            .map_err(|_| stopping())?;
        answered.recv().map_err(|_| stopping())?
    }

    pub fn stats(&self) -> PipelineStats {
        PipelineStats {
            waiting: self.requests.as_ref().map_or(0, |r| r.waiting() as u64),
            groups: self.counters.groups.load(Ordering::Relaxed),
            requests: self.counters.requests.load(Ordering::Relaxed),
            refused: self.counters.refused.load(Ordering::Relaxed),
        }
    }

    /// Stops once everything handed over has been answered.
    pub fn stop(&mut self) {
        self.requests = None;
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a pipeline thread panicked");
            }
        }
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.stop();
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Problem> {
    std::thread::Builder::new()
        .name(name.into())
        .spawn(run)
        .map_err(|e| Problem::external("thread", "a thread can't be started").detail(e))
}

fn stopping() -> Problem {
    Problem::external("stopping", "the engine is stopping")
        .hint("send the facts again to the next process; facts with an id are never counted twice")
        .retryable()
}

fn busy() -> Problem {
    Problem::external("busy", "too many requests wait to be written")
        .hint("send them again a little later, or in larger batches; the limit is `ingest.queue_requests_max`")
        .retryable()
}

fn commit(
    facts: &dyn FactLog,
    waiting: &Receiver<Request>,
    groups: &Sender<Group>,
    limits: &PipelineOptions,
    counters: &Counters,
) {
    let mut first = next_request(facts, waiting);
    while let Some(request) = first.take() {
        let mut rows = request.append.change.len();
        let (mut appends, mut askers) = (vec![request.append], vec![(request.done, request.asker)]);
        while appends.len() < limits.group_requests_max {
            let Ok(next) = waiting.try_recv() else { break };
            if rows + next.append.change.len() > limits.group_facts_max {
                first = Some(next);
                break;
            }
            rows += next.append.change.len();
            appends.push(next.append);
            askers.push((next.done, next.asker));
        }
        counters.groups.fetch_add(1, Ordering::Relaxed);
        counters
            .requests
            .fetch_add(askers.len() as u64, Ordering::Relaxed);
        let spans: Vec<Span> = askers
            .iter()
            .map(|(_, asker)| tracing::info_span!(parent: asker, "append", requests = askers.len(), rows))
            .collect();
        let answers = match facts.append(appends) {
            Ok(appended) => appended.into_iter().map(Ok).collect(),
            Err(problem) => vec![Err(problem); askers.len()],
        };
        drop(spans);
        let committed = |((done, asker), answer)| Committed {
            done,
            answer,
            asker,
        };
        let group: Group = askers.into_iter().zip(answers).map(committed).collect();
        if groups.send(group).is_err() {
            return;
        }
        if first.is_none() {
            first = next_request(facts, waiting);
        }
    }
}

/// Waits for a request; meanwhile what has been appended is made durable in time. None once nobody sends
/// any more.
fn next_request(facts: &dyn FactLog, waiting: &Receiver<Request>) -> Option<Request> {
    loop {
        let due = facts.tend().unwrap_or_else(|problem| {
            tracing::error!(%problem, "the log can't be synced");
            None
        });
        let Some(due) = due else {
            return waiting.recv().ok();
        };
        match waiting.recv_timeout(due) {
            Ok(request) => return Some(request),
            Err(RecvTimeoutError::Disconnected) => return None,
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

/// Once a batch can't be applied, later ones can't either: the views would miss facts in between.
/// The facts are safe in the log, and the next process applies them.
fn apply(
    processor: &Processor,
    durable: &Receiver<Group>,
    due: &Sender<()>,
    listener: &OnceLock<Applied>,
) {
    let mut applied = Ok(());
    while let Ok(group) = durable.recv() {
        applied = applied.and_then(|()| {
            group.iter().try_for_each(|committed| {
                let answer = committed.answer.as_ref().ok();
                let Some(batch) = answer.and_then(|a| a.batch.as_deref()) else {
                    return Ok(());
                };
                let span = tracing::info_span!(parent: &committed.asker, "apply", rows = batch.batch.len());
                span.in_scope(|| processor.apply(batch))
            })
        });
        if let Some(listener) = listener.get() {
            listener();
        }
        for Committed { done, answer, .. } in group {
            done(match &applied {
                Ok(()) => answer,
                Err(problem) => answer.and(Err(problem.clone())),
            });
        }
        if processor.checkpoint_due() {
            // One that is being written already counts.
            let _ = due.try_send(());
        }
    }
}

/// A checkpoint that fails costs a longer replay, not a fact; the next one is tried in its turn.
fn write_checkpoints(processor: &Processor, asked: &Receiver<()>) {
    loop {
        match asked.recv_timeout(STORE_MEASURED_EVERY) {
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => processor.measure_store(),
            Ok(()) if !processor.checkpoint_due() => {}
            Ok(()) => {
                if let Err(problem) = processor.checkpoint() {
                    tracing::error!(%problem, "a checkpoint can't be written");
                    processor.measure_store();
                }
            }
        }
    }
}
