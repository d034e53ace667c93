//! The models that are served, and the threads that answer requests for them.
//!
//! A request waits in one bounded queue. Whoever is first answers it: the thread that has scored it, or whoever
//! waited for it and gives up at its deadline. So a store that doesn't answer delays nobody beyond that.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use headwater_env::Env;
use headwater_env::queue::{self, Receiver, Sender};
use headwater_features::Model;
use headwater_models::repository::ModelRepository;
use headwater_schema::{Blame, Micros, Problem};

use crate::cache::PredictionCache;
use crate::fallback::{StandIn, fallback};
use crate::last_good::row_keys;
use crate::loaded::{Served, nothing_live};
use crate::log::{Entry, PredictionLog, PredictionSink};
use crate::predict::Scored;
use crate::rows::count;
use crate::shadow::Shadows;
use crate::stats::VersionCounts;
use crate::streams::Streams;
use crate::trigger::Trigger;
use crate::{
    Degraded, FeatureSource, OutputRow, Pending, PredictReply, PredictRequest, ServingSettings,
    ServingStats,
};

/// Hears the answer to a request.
pub type PredictDone = Box<dyn FnOnce(Result<Arc<PredictReply>, Problem>) + Send>;

/// The longest deadline of a request.
pub(crate) const DEADLINE_MAX: Micros = 30_000_000;

/// Serves models.
pub struct Serving {
    pub(crate) core: Arc<Core>,
    pub(crate) streams: Arc<Streams>,
    requests: Mutex<Option<Sender<Arc<Request>>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What every thread works with.
pub(crate) struct Core {
    pub env: Env,
    pub settings: ServingSettings,
    pub source: Arc<dyn FeatureSource>,
    pub repository: ModelRepository,
    /// Replaced one by one, each as a whole.
    pub models: RwLock<BTreeMap<String, Arc<Served>>>,
    /// Held while versions are loaded and aliases moved.
    pub changing: Mutex<()>,
    pub log: PredictionLog,
    pub cache: PredictionCache,
    pub shadows: Shadows,
    next_version: AtomicU64,
    /// Tells the ids of this process's predictions from others'.
    instance: u64,
    next: AtomicU64,
}

/// A request on its way.
pub(crate) struct Request {
    pub core: Arc<Core>,
    pub asked: PredictRequest,
    /// As it was declared when the request came.
    pub model: Arc<Model>,
    pub number: u64,
    pub arrived_nanos: u64,
    pub arrived: Micros,
    pub deadline_nanos: u64,
    pub done: Mutex<Option<PredictDone>>,
    /// The fact whose arrival it is made for.
    pub trigger: Option<Trigger>,
}

impl Core {
    pub fn served(&self, model: &str) -> Result<Arc<Served>, Problem> {
        let models = self.models.read().unwrap_or_else(PoisonError::into_inner);
        models.get(model).cloned().ok_or_else(nothing_live)
    }

    /// A number that no other version has.
    pub fn version_number(&self) -> u64 {
        self.next_version.fetch_add(1, Ordering::Relaxed)
    }

    fn prediction_ids(&self, number: u64, rows: usize) -> Vec<String> {
        let id = |row| format!("{:016x}-{number:x}-{row}", self.instance);
        (0..rows).map(id).collect()
    }
}

impl Serving {
    /// Loads what aliases point at and starts the threads. A version that can't be loaded is told of and keeps
    /// nothing else from being served.
    pub fn start(
        env: &Env,
        settings: ServingSettings,
        repository: ModelRepository,
        source: Arc<dyn FeatureSource>,
        sink: Arc<dyn PredictionSink>,
    ) -> Result<Self, Problem> {
        let core = Arc::new(Core {
            log: PredictionLog::start(&settings, sink.clone())?,
            cache: PredictionCache::new(env, &settings)?,
            shadows: Shadows::start(&settings)?,
            next_version: AtomicU64::new(0),
            instance: env.random.next_u64(),
            env: env.clone(),
            source,
            repository,
            models: RwLock::default(),
            changing: Mutex::default(),
            next: AtomicU64::new(0),
            settings,
        });
        let settings = &core.settings;
        let (requests, waiting) =
            queue::bounded("serving.queue_requests_max", settings.queue_requests_max);
        let waiting = Arc::new(Mutex::new(waiting));
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let threads = match settings.threads {
            0 => cores(),
            threads => threads,
        };
        let threads = (0..threads).map(|_| {
            let waiting = waiting.clone();
            std::thread::Builder::new()
                .name("headwater-predict".into())
                .spawn(move || work(&waiting))
                .map_err(|e| Problem::external("thread", "a thread can't be started").detail(e))
        });
        let serving = Self {
            threads: Mutex::new(threads.collect::<Result<_, _>>()?),
            requests: Mutex::new(Some(requests)),
            streams: Arc::new(Streams::new(sink)),
            core,
        };
        serving.refresh();
        Ok(serving)
    }

    /// Hands a request over; `done` hears the answer once. Whoever waits gives up at the deadline.
    pub fn submit(
        &self,
        asked: PredictRequest,
        done: PredictDone,
    ) -> Result<Arc<dyn Pending>, Problem> {
        let core = &self.core;
        let model = core.source.catalog().model(&asked.model)?.clone();
        self.check(&asked)?;
        let clock = &core.env.clock;
        let deadline = asked.deadline.unwrap_or(model.deadline);
        let request = Arc::new(Request {
            core: core.clone(),
            number: core.next.fetch_add(1, Ordering::Relaxed),
            arrived_nanos: clock.monotonic_nanos(),
            arrived: clock.now(),
            deadline_nanos: u64::try_from(deadline).unwrap_or(0).saturating_mul(1000),
            done: Mutex::new(Some(done)),
            model,
            asked,
            trigger: None,
        });
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = match requests.as_ref() {
            Some(requests) => requests.try_send(request.clone()).is_ok(),
            None => return Err(stopping()),
        };
        drop(requests);
        if !taken {
            request.stand_in(&overloaded(), false);
        }
        Ok(request)
    }

    fn check(&self, asked: &PredictRequest) -> Result<(), Problem> {
        let (rows, most) = (count(&asked.rows), self.core.settings.rows_max);
        if rows == 0 {
            return Err(Problem::user("no-rows", "the request has no rows")
                .field("entities")
                .hint("send `entities`, or the model's own inputs as `vectors`"));
        }
        if rows > most {
            return Err(Problem::user("limit", "too many rows in one request")
                .detail(format!("{rows} of at most {most}"))
                .hint("ask in parts, or raise `serving.rows_max`"));
        }
        if asked
            .deadline
            .is_some_and(|d| !(1..=DEADLINE_MAX).contains(&d))
        {
            return Err(
                Problem::user("invalid-duration", "the deadline is out of range")
                    .field("deadline_ms")
                    .hint("it is between 1 and 30000 milliseconds"),
            );
        }
        Ok(())
    }

    /// As [`Serving::submit`], and waits.
    pub fn predict(&self, asked: PredictRequest) -> Result<Arc<PredictReply>, Problem> {
        let (answer, answered) = queue::bounded("serving.answer", 1);
        let done: PredictDone = Box::new(move |result| drop(answer.try_send(result)));
        let pending = self.submit(asked, done)?;
        match answered.recv_timeout(pending.wait()) {
            Ok(result) => result,
            Err(_) => {
                pending.give_up();
                answered.recv().map_err(|_| stopping())?
            }
        }
    }

    /// What it was started with.
    pub fn settings(&self) -> &ServingSettings {
        &self.core.settings
    }

    pub fn stats(&self) -> ServingStats {
        let models = self
            .core
            .models
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let stats = models.iter().map(|(name, m)| m.counters.stats(name));
        let (cache_entries, cache_bytes) = self.core.cache.held();
        ServingStats {
            cache_entries,
            cache_bytes,
            streams: self.streams.stats(&self.core),
            streams_refused: self.streams.refused(),
            models: stats.collect(),
            waiting: requests.as_ref().map_or(0, |r| r.waiting() as u64),
            loaded_bytes: models.values().map(|m| m.bytes() as u64).sum(),
            log: self.core.log.stats(),
        }
    }

    /// Answers what waits, writes the predictions down that were answered, and ends.
    pub fn stop(&self) {
        self.streams.stop();
        *self.requests.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        for thread in threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread that predicts panicked");
            }
        }
        self.core.shadows.stop();
        self.core.log.stop();
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stop();
    }
}

fn work(waiting: &Mutex<Receiver<Arc<Request>>>) {
    loop {
        let next = waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .recv();
        let Ok(request) = next else { return };
        let run = std::panic::AssertUnwindSafe(|| request.run());
        if std::panic::catch_unwind(run).is_err() {
            request.stand_in(&Problem::internal("panic", "a prediction failed"), false);
        }
    }
}

impl Request {
    fn run(self: &Arc<Self>) {
        if let Some(problem) = self.hopeless() {
            return self.stand_in(&problem, false);
        }
        match self.predict() {
            Ok(scored) => {
                self.remember(&scored);
                let read = scored.read.clone();
                let answered = self.answer(Ok(StandIn::Scored(Box::new(scored))), None);
                if let Some(reply) = answered {
                    self.core.shadows.ask(self, read, reply);
                }
            }
            // What is wrong with the request stays wrong with another version.
            Err(problem) if problem.blame == Blame::User => {
                self.answer(Err(problem), None);
            }
            Err(problem) => self.stand_in(&problem, !self.late()),
        }
    }

    /// Keeps a good answer for when there is none, even one that came too late.
    pub fn remember(&self, scored: &Scored) {
        use headwater_features::Fallback;
        let kept = |f: &Fallback| matches!(f, Fallback::LastGood { .. });
        if !self.model.fallbacks.iter().any(kept) {
            return;
        }
        let (Some(read), Ok(served)) = (&scored.read, self.core.served(&self.model.name)) else {
            return;
        };
        let now = self.core.env.clock.now();
        for (key, outputs) in row_keys(&read.entities, &read.context).zip(&scored.outputs) {
            served.last_good.keep(key, now, outputs);
        }
    }

    /// Answers with a fallback.
    fn stand_in(&self, problem: &Problem, time: bool) {
        if self.is_answered() {
            return;
        }
        match fallback(&self.core, self, problem, time) {
            Ok((stand_in, degraded)) => self.answer(Ok(stand_in), Some(degraded)),
            Err(problem) => self.answer(Err(problem), None),
        };
    }

    fn is_answered(&self) -> bool {
        self.done
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_none()
    }

    /// Answers, unless that has been done; what was answered.
    fn answer(
        &self,
        result: Result<StandIn, Problem>,
        degraded: Option<Degraded>,
    ) -> Option<Arc<PredictReply>> {
        let done = self
            .done
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let done = done?;
        let rows = count(&self.asked.rows);
        let served = self.core.served(&self.model.name);
        let served = served.ok();
        let counters = served.as_ref().map(|s| s.counters.clone());
        if let Some(counters) = &counters {
            counters.took.observe_nanos(self.spent_nanos());
            counters.rows.fetch_add(rows as u64, Ordering::Relaxed);
        }
        let stand_in = match result {
            Ok(stand_in) => stand_in,
            Err(problem) => {
                if let Some(served) = &served {
                    self.count_failure(served);
                }
                done(Err(problem));
                return None;
            }
        };
        let (scored, outputs) = match stand_in {
            StandIn::Scored(scored) => (Some(scored), Vec::new()),
            StandIn::Outputs(outputs) => (None, outputs),
        };
        if let Some(counters) = &counters {
            match (&degraded, &scored) {
                (Some(degraded), _) => counters.degraded(&degraded.reason),
                (None, Some(scored)) => {
                    for (place, part) in scored.parts.iter().enumerate() {
                        let rows = scored.by_row.iter().filter(|row| **row == place);
                        let more = VersionCounts {
                            requests: 1,
                            rows: rows.count() as u64,
                            took_nanos: self.spent_nanos(),
                            features_nanos: scored.features_nanos,
                            scoring_nanos: scored.scoring_nanos,
                            last: self.core.env.clock.now(),
                            ..VersionCounts::default()
                        };
                        counters.version(&part.version.name, more);
                    }
                }
                (None, None) => {}
            }
        }
        let ids = self.core.prediction_ids(self.number, rows);
        let (reply, entry) = self.reply(ids, scored, outputs, degraded);
        done(Ok(reply.clone()));
        self.core.log.write(entry);
        Some(reply)
    }

    fn count_failure(&self, served: &Served) {
        served.counters.failed.fetch_add(1, Ordering::Relaxed);
        if let Ok(version) = served.version(self.asked.version.as_deref()) {
            let more = VersionCounts {
                failed: 1,
                failed_nanos: self.spent_nanos(),
                ..VersionCounts::default()
            };
            served.counters.version(&version.name, more);
        }
    }

    /// What tells its requests apart from those of other processes too; of a fact the same whenever it is scored.
    pub fn identity(&self) -> u64 {
        if let Some(trigger) = &self.trigger {
            return trigger.sequence;
        }
        self.core.instance.wrapping_add(self.number)
    }

    pub fn reply(
        &self,
        prediction_ids: Vec<String>,
        scored: Option<Box<Scored>>,
        outputs: Vec<OutputRow>,
        degraded: Option<Degraded>,
    ) -> (Arc<PredictReply>, Entry) {
        let mut reply = PredictReply {
            prediction_ids,
            model: self.model.name.clone(),
            version: None,
            answered_by: Vec::new(),
            outputs,
            explanations: Vec::new(),
            degraded,
            warnings: Vec::new(),
            cursor: None,
        };
        let mut entry = Entry::of(self);
        if let Some(scored) = scored {
            reply.answered_by = scored.answered_by();
            if let [part] = scored.parts.as_slice() {
                reply.version = Some(part.version.name.clone());
            }
            reply.outputs = scored.outputs;
            reply.explanations = scored.explanations;
            let warnings = scored.parts.iter().flat_map(|p| &p.binding.warnings);
            reply.warnings = warnings.cloned().collect();
            let cursor = scored.read.as_ref();
            reply.cursor = cursor.map(|r| (r.features.as_of, r.features.sequence));
            entry.read = scored.read;
            entry.parts = scored.parts;
            entry.by_row = scored.by_row;
            entry.cached = scored.cached;
        }
        entry.latency_us = self.spent_nanos() / 1000;
        let reply = Arc::new(reply);
        entry.reply = Some(reply.clone());
        (reply, entry)
    }
}

impl Pending for Request {
    fn wait(&self) -> Duration {
        Duration::from_nanos(self.deadline_nanos.saturating_sub(self.spent_nanos()))
    }

    fn give_up(&self) {
        self.stand_in(&self.too_late(), false);
    }
}

fn overloaded() -> Problem {
    Problem::external("busy", "too many predictions wait")
        .hint("ask again a little later; the limit is `serving.queue_requests_max`")
        .retryable()
}

fn stopping() -> Problem {
    Problem::external("stopping", "the engine is stopping")
        .hint("ask the next one")
        .retryable()
}
