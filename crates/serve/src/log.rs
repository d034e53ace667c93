//! Predictions on their way to the log of facts: a bounded queue and one thread that writes them together. Nobody
//! who predicts waits for it; what doesn't fit or can't be written is counted.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use headwater_env::queue::{self, Receiver, Sender};
use headwater_schema::{FactBatch, Micros, Problem};

use crate::facts::{PredictionFact, batch, rows_of};
use crate::predict::{Part, Read};
use crate::serving::Request;
use crate::trigger::Trigger;
use crate::{InputRows, PredictReply, ServingSettings};

/// Takes predictions as facts; returns once they are as durable as the project's settings say.
pub trait PredictionSink: Send + Sync {
    /// How many of them are new: the others' ids were known.
    fn append(&self, batch: FactBatch) -> Result<usize, Problem>;

    /// Returns once everything appended survives a power cut.
    fn sync(&self) -> Result<(), Problem>;
}

/// What became of predictions as facts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogStats {
    pub waiting: u64,
    pub written: u64,
    /// Let go because too many waited.
    pub dropped: u64,
    /// Refused by the log.
    pub failed: u64,
}

/// One answered request, and what its facts are made of.
pub(crate) struct Entry {
    pub model: Arc<headwater_features::Model>,
    pub rows: InputRows,
    pub request_id: String,
    pub number: u64,
    pub arrived: Micros,
    pub latency_us: u64,
    pub reply: Option<Arc<PredictReply>>,
    pub read: Option<Arc<Read>>,
    /// Who answered: see [`crate::predict::Scored`].
    pub parts: Vec<Part>,
    pub by_row: Vec<usize>,
    pub cached: Vec<bool>,
    /// The answer that was heard instead of this one.
    pub shadow_of: Option<Arc<PredictReply>>,
    /// The fact whose arrival it was made for.
    pub trigger: Option<Trigger>,
}

impl Entry {
    pub fn of(request: &Request) -> Self {
        Self {
            model: request.model.clone(),
            rows: request.asked.rows.clone(),
            request_id: request.asked.request_id.clone(),
            number: request.number,
            arrived: request.arrived,
            latency_us: 0,
            reply: None,
            read: None,
            parts: Vec::new(),
            by_row: Vec::new(),
            cached: Vec::new(),
            shadow_of: None,
            trigger: request.trigger.clone(),
        }
    }

    /// Whether it is among those that the model's `share` keeps: spread evenly over requests, and the same
    /// whenever it is asked.
    fn is_kept(&self) -> bool {
        self.trigger.is_some() || is_kept(self.number, self.model.logged)
    }

    pub fn len(&self) -> usize {
        self.reply.as_ref().map_or(0, |r| r.prediction_ids.len())
    }
}

/// The queue and its thread.
pub(crate) struct PredictionLog {
    entries: Mutex<Option<Sender<Entry>>>,
    /// Dropped to end a pause.
    running: Mutex<Option<Sender<()>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    waiting_max: usize,
    counters: Arc<Counters>,
}

#[derive(Default)]
struct Counters {
    waiting: AtomicUsize,
    written: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
}

impl PredictionLog {
    pub fn start(
        settings: &ServingSettings,
        sink: Arc<dyn PredictionSink>,
    ) -> Result<Self, Problem> {
        let waiting_max = settings.log_queue_predictions_max;
        let (entries, waiting) = queue::bounded("serving.log_queue_predictions_max", waiting_max);
        let (running, stopped) = queue::bounded("the end of the prediction log", 1);
        let counters = Arc::new(Counters::default());
        let writer = Writer {
            waiting,
            stopped,
            sink,
            together: settings.log_batch_predictions_max,
            gather: Duration::from_millis(settings.log_gather_ms),
            counters: counters.clone(),
        };
        let thread = std::thread::Builder::new()
            .name("headwater-prediction-log".into())
            .spawn(move || writer.run())
            .map_err(|e| Problem::external("thread", "a thread can't be started").detail(e))?;
        Ok(Self {
            entries: Mutex::new(Some(entries)),
            running: Mutex::new(Some(running)),
            thread: Mutex::new(Some(thread)),
            waiting_max,
            counters,
        })
    }

    /// Hands an answered request over, or counts that there was no room.
    pub fn write(&self, entry: Entry) {
        if !entry.is_kept() {
            return;
        }
        let rows = entry.len();
        let counters = &self.counters;
        let waiting = counters.waiting.fetch_add(rows, Ordering::Relaxed);
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = waiting == 0 || waiting + rows <= self.waiting_max;
        let sent = fits && entries.as_ref().is_some_and(|e| e.try_send(entry).is_ok());
        if !sent {
            counters.waiting.fetch_sub(rows, Ordering::Relaxed);
            counters.dropped.fetch_add(rows as u64, Ordering::Relaxed);
        }
    }

    pub fn stats(&self) -> LogStats {
        let counters = &self.counters;
        LogStats {
            waiting: counters.waiting.load(Ordering::Relaxed) as u64,
            written: counters.written.load(Ordering::Relaxed),
            dropped: counters.dropped.load(Ordering::Relaxed),
            failed: counters.failed.load(Ordering::Relaxed),
        }
    }

    /// Writes what waits, and ends.
    pub fn stop(&self) {
        *self.entries.lock().unwrap_or_else(PoisonError::into_inner) = None;
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that writes predictions down panicked");
        }
    }
}

/// What the thread has.
struct Writer {
    waiting: Receiver<Entry>,
    stopped: Receiver<()>,
    sink: Arc<dyn PredictionSink>,
    together: usize,
    gather: Duration,
    counters: Arc<Counters>,
}

impl Writer {
    fn run(self) {
        let mut full = false;
        while let Ok(first) = self.waiting.recv() {
            // Asleep, rather than woken by each: those who predict mustn't pay for waking a thread. After
            // a full batch more wait already.
            if !full && !self.gather.is_zero() {
                let _ = self.stopped.recv_timeout(self.gather);
            }
            let mut rows = rows_of(&first);
            while rows.len() < self.together {
                let Ok(next) = self.waiting.try_recv() else {
                    break;
                };
                rows.extend(rows_of(&next));
            }
            full = rows.len() >= self.together;
            self.write(&rows);
        }
    }

    fn write(&self, rows: &[PredictionFact]) {
        let count = rows.len();
        let written = batch(rows).and_then(|batch| self.sink.append(batch));
        let counters = &self.counters;
        counters.waiting.fetch_sub(count, Ordering::Relaxed);
        match written {
            Ok(_) => counters.written.fetch_add(count as u64, Ordering::Relaxed),
            Err(problem) => {
                tracing::warn!(%problem, count, "predictions can't be written down");
                counters.failed.fetch_add(count as u64, Ordering::Relaxed)
            }
        };
    }
}

/// Of the first `n` requests `share × n` are kept, rounded down.
fn is_kept(number: u64, share: f64) -> bool {
    let until = |number: u64| (number as f64 * share).floor();
    until(number.saturating_add(1)) > until(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_what_it_says() {
        let kept = |share| (0..1000).filter(|n| is_kept(*n, share)).count();
        assert_eq!((kept(0.0), kept(0.1), kept(0.25)), (0, 100, 250));
        assert_eq!((kept(0.5), kept(0.9), kept(1.0)), (500, 900, 1000));
    }
}
