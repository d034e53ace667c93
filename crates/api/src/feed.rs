//! Facts that keep coming: batches taken in order as they come, acknowledged in order as they become
//! durable, whatever they are carried by.
//!
//! A sender waits while too many of its batches are on their way ([`Feed::ready`]). Acknowledgements
//! never wait for whoever reads them: they are merged until they are read, so that a client may send
//! everything before it reads anything.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use headwater_schema::decode::BodyFormat;
use headwater_schema::{Problem, Sequence};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use crate::backend::{Backend, IngestOptions, IngestReply, RejectedFact};
use crate::limits::Limits;

/// Bodies up to this size are decoded where they are; larger ones on a thread for such work.
const SMALL_BYTES: usize = 16 * 1024;
/// The wait before a batch that found the queue full is offered again.
const BUSY_WAIT: Duration = Duration::from_millis(10);

/// The least time between two acknowledgements; what comes about meanwhile is told at once.
const PACE: Duration = Duration::from_millis(10);

/// What a backend answers, some time.
pub type Answered = oneshot::Receiver<Result<IngestReply, Problem>>;

/// Hands facts to the backend; what comes back hears when they are durable and visible.
pub async fn submit(
    backend: &Arc<dyn Backend>,
    contract: &str,
    format: BodyFormat,
    body: Bytes,
    options: IngestOptions,
) -> Result<Answered, Problem> {
    let (answer, answered) = oneshot::channel();
    let done = Box::new(move |reply| drop(answer.send(reply)));
    if body.len() <= SMALL_BYTES {
        backend.submit(contract, format, &body, options, done);
        return Ok(answered);
    }
    let (backend, contract) = (backend.clone(), contract.to_owned());
    let asker = tracing::Span::current();
    let submitted = tokio::task::spawn_blocking(move || {
        asker.in_scope(|| backend.submit(&contract, format, &body, options, done));
    });
    submitted
        .await
        .map_err(|e| Problem::internal("decode", "decoding panicked").detail(e))?;
    Ok(answered)
}

/// What has become of a feed so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Batches that are answered, from the first on without a gap.
    pub batches: u64,
    /// Rows of them, blank lines aside.
    pub rows: u64,
    pub accepted: u64,
    pub duplicates: u64,
    /// Rows that weren't taken.
    pub rejected_rows: u64,
    /// Those since the last acknowledgement, as far as `feed_rejected_max` goes. They count through the
    /// whole feed.
    pub rejected: Vec<RejectedFact>,
    /// A read at this `known_at` sees what was accepted.
    pub sequence: Option<Sequence>,
}

/// What one acknowledgement says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledgement {
    pub progress: Progress,
    /// Whether it is the last: all is answered, or something went wrong.
    pub end: Option<Result<(), Problem>>,
}

#[derive(Default)]
struct State {
    progress: Progress,
    changed: bool,
    end: Option<Result<(), Problem>>,
}

#[derive(Default)]
struct Ledger {
    state: Mutex<State>,
    news: Notify,
}

impl Ledger {
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        state.changed = true;
        self.news.notify_one();
    }

    fn count(&self, reply: IngestReply, rejected_max: usize) {
        self.change(|state| {
            let progress = &mut state.progress;
            let (first, rejected) = (progress.rows, reply.rejected.len());
            progress.batches += 1;
            progress.rows += (reply.accepted + reply.duplicates + rejected) as u64;
            progress.accepted += reply.accepted as u64;
            progress.duplicates += reply.duplicates as u64;
            progress.rejected_rows += rejected as u64;
            progress.sequence = Some(reply.sequence);
            let room = rejected_max.saturating_sub(progress.rejected.len());
            let first = usize::try_from(first).unwrap_or(usize::MAX);
            let listed = reply.rejected.into_iter().take(room);
            progress.rejected.extend(listed.map(|r| RejectedFact {
                row: first.saturating_add(r.row),
                ..r
            }));
        });
    }

    fn end(&self, end: Result<(), Problem>) {
        self.change(|state| {
            state.end.get_or_insert(end);
        });
    }

    fn has_ended(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.end.is_some()
    }
}

/// The side that facts come in by. Dropped without [`Feed::finish`], the feed ends where it is.
pub struct Feed {
    backend: Arc<dyn Backend>,
    ledger: Arc<Ledger>,
    on_their_way: mpsc::Sender<OnItsWay>,
    room: Arc<Semaphore>,
    /// Why nothing more comes.
    verdict: oneshot::Sender<Result<(), Problem>>,
}

/// A batch that isn't answered yet, and the room it takes.
type OnItsWay = (Answered, OwnedSemaphorePermit);

/// The side that acknowledgements are read from.
pub struct Acknowledgements {
    ledger: Arc<Ledger>,
    ended: bool,
    /// When there may be another.
    next: Instant,
}

/// Room for one more batch.
pub struct Ready<'a> {
    feed: &'a Feed,
    room: OwnedSemaphorePermit,
}

/// A new feed.
pub fn open(backend: Arc<dyn Backend>, limits: &Limits) -> (Feed, Acknowledgements) {
    let ledger = Arc::new(Ledger::default());
    let in_flight = limits.feed_batches_in_flight_max.max(1);
    let (on_their_way, answers) = mpsc::channel(in_flight);
    let (verdict, told) = oneshot::channel();
    tokio::spawn(keep(
        ledger.clone(),
        answers,
        told,
        limits.feed_rejected_max,
    ));
    let feed = Feed {
        backend,
        ledger: ledger.clone(),
        on_their_way,
        room: Arc::new(Semaphore::new(in_flight)),
        verdict,
    };
    let acknowledgements = Acknowledgements {
        ledger,
        ended: false,
        next: Instant::now(),
    };
    (feed, acknowledgements)
}

/// Counts answers in the order of their batches, up to the first that is an error.
async fn keep(
    ledger: Arc<Ledger>,
    mut answers: mpsc::Receiver<OnItsWay>,
    told: oneshot::Receiver<Result<(), Problem>>,
    rejected_max: usize,
) {
    while let Some((answered, _room)) = answers.recv().await {
        let unanswered = || Problem::internal("ingest", "nobody answered");
        match answered.await.unwrap_or_else(|_| Err(unanswered())) {
            Ok(reply) => ledger.count(reply, rejected_max),
            Err(problem) => return ledger.end(Err(problem)),
        }
    }
    let cut = || Problem::user("feed-cut", "the feed ended in the middle");
    ledger.end(told.await.unwrap_or_else(|_| Err(cut())));
}

impl Feed {
    /// Waits until there is room for another batch; none once the feed has ended by an error.
    pub async fn ready(&self) -> Option<Ready<'_>> {
        let room = self.room.clone().acquire_owned().await.ok()?;
        (!self.ledger.has_ended()).then_some(Ready { feed: self, room })
    }

    /// Waits until the feed has ended by itself.
    pub async fn ended(&self) {
        self.on_their_way.closed().await;
    }

    /// Says that nothing more comes, and why, if something went wrong.
    pub fn finish(self, verdict: Result<(), Problem>) {
        // A feed that has ended already knows better.
        let _ = self.verdict.send(verdict);
    }
}

impl Ready<'_> {
    /// Takes a batch. One that finds the queue full waits for room, so that batches keep their order.
    pub async fn take(
        self,
        contract: &str,
        format: BodyFormat,
        body: Bytes,
        options: IngestOptions,
    ) -> Result<(), Problem> {
        let backend = &self.feed.backend;
        let answered = loop {
            let mut answered = submit(backend, contract, format, body.clone(), options).await?;
            match answered.try_recv() {
                Ok(Err(problem)) if problem.code == "busy" => {
                    tokio::time::sleep(BUSY_WAIT).await;
                }
                Ok(reply) => {
                    let (answer, answered) = oneshot::channel();
                    let _ = answer.send(reply);
                    break answered;
                }
                Err(_) => break answered,
            }
        };
        // There is room for as many as have a permit; a feed that has ended has said why.
        let _ = self.feed.on_their_way.try_send((answered, self.room));
        Ok(())
    }
}

impl Acknowledgements {
    /// What has come about since the last; none after the end.
    pub async fn next(&mut self) -> Option<Acknowledgement> {
        if self.ended {
            return None;
        }
        tokio::time::sleep_until(self.next).await;
        loop {
            {
                let state = &self.ledger.state;
                let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                if std::mem::take(&mut state.changed) {
                    let rejected = std::mem::take(&mut state.progress.rejected);
                    let progress = Progress {
                        rejected,
                        ..state.progress.clone()
                    };
                    let end = state.end.clone();
                    self.ended = end.is_some();
                    self.next = Instant::now() + PACE;
                    return Some(Acknowledgement { progress, end });
                }
            }
            self.ledger.news.notified().await;
        }
    }
}

#[cfg(test)]
mod tests;
