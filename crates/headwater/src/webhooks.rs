//! Predictions posted to servers that their models name: each model with a thread that reads them from the log, from
//! where the last delivery was taken. Nobody else waits for it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use headwater_env::Env;
use headwater_env::queue::{self, Receiver, RecvTimeoutError, Sender};
use headwater_facts::FactLog;
use headwater_features::{Catalog, Webhook};
use headwater_schema::{Problem, Sequence};
use headwater_serve::Positions;
use headwater_stream::Processor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::predictions::read_predictions;
use crate::reader::Reader;

mod delivery;

use delivery::{body, post};

/// How webhooks are called; `webhooks` in `headwater.yaml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WebhookSettings {
    /// Models with a webhook, each with a thread; more are refused when definitions are applied.
    pub models_max: usize,
    /// Predictions that are posted together, about.
    pub batch_predictions_max: usize,
    /// Milliseconds until a delivery that failed is tried again; each time twice as long.
    pub retry_ms_min: u64,
    /// Milliseconds between two tries at most.
    pub retry_ms_max: u64,
}

impl Default for WebhookSettings {
    fn default() -> Self {
        Self {
            models_max: 16,
            batch_predictions_max: 256,
            retry_ms_min: 500,
            retry_ms_max: 60_000,
        }
    }
}

/// What is counted of a webhook.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WebhookStats {
    pub model: String,
    /// Predictions that were taken.
    pub delivered: u64,
    /// Deliveries that failed, each try.
    pub failures: u64,
    /// Facts of the log, of whatever contract, that it hasn't come to.
    pub backlog: u64,
}

/// What webhooks stand on.
#[derive(Clone)]
pub(crate) struct Source {
    pub env: Env,
    pub settings: WebhookSettings,
    pub facts: Arc<dyn FactLog>,
    pub processor: Arc<Processor>,
    pub reader: Arc<Reader>,
    pub positions: Positions,
}

/// The webhooks of all models.
pub(crate) struct Webhooks {
    source: Source,
    running: Mutex<BTreeMap<String, Running>>,
    /// Held while they are begun and ended.
    changing: Mutex<()>,
}

struct Running {
    wake: Sender<()>,
    thread: JoinHandle<()>,
    counters: Arc<Counters>,
}

#[derive(Default)]
struct Counters {
    stop: AtomicBool,
    position: AtomicU64,
    delivered: AtomicU64,
    failures: AtomicU64,
}

fn noted_as(model: &str) -> String {
    format!("webhook-{model}")
}

impl Webhooks {
    pub fn new(source: Source) -> Self {
        let webhooks = Self {
            source,
            running: Mutex::default(),
            changing: Mutex::default(),
        };
        webhooks.refresh();
        webhooks
    }

    pub fn settings(&self) -> &WebhookSettings {
        &self.source.settings
    }

    /// Brings them in line with the definitions in force.
    pub fn refresh(&self) {
        let catalog = self.source.catalog();
        let declared = catalog.models().filter(|m| m.webhook.is_some());
        let declared: Vec<String> = declared.map(|m| m.name.to_string()).collect();
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever says that facts have been applied takes this lock, so nobody waits for anything while holding it.
        let running = || self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let over: Vec<String> = running().keys().cloned().collect();
        for name in over.iter().filter(|name| !declared.contains(*name)) {
            let webhook = running().remove(name);
            if let Some(webhook) = webhook {
                webhook.stop();
            }
        }
        let noted = self.source.positions.names().into_iter();
        for model in noted.filter_map(|name| Some(name.strip_prefix("webhook-")?.to_owned())) {
            if !declared.contains(&model)
                && let Err(problem) = self.source.positions.remove(&noted_as(&model))
            {
                tracing::warn!(model, %problem, "a webhook that is gone leaves its position");
            }
        }
        for model in declared {
            if running().contains_key(&model) {
                continue;
            }
            let most = self.source.settings.models_max;
            let count = running().len();
            let started = match count < most {
                true => self.start(&model),
                false => Err(Problem::user("limit", "too many models have a webhook")
                    .detail(format!("{most} are sent already"))
                    .hint("raise `webhooks.models_max`")),
            };
            match started {
                Ok(webhook) => drop(running().insert(model, webhook)),
                Err(problem) => tracing::error!(model, %problem, "a webhook can't be called"),
            }
        }
    }

    fn start(&self, model: &str) -> Result<Running, Problem> {
        let noted = noted_as(model);
        let positions = &self.source.positions;
        let position = match positions.read(&noted)? {
            Some(position) => position.min(self.source.facts.last_sequence()),
            None => {
                let last = self.source.facts.last_sequence();
                positions.write(&noted, last)?;
                last
            }
        };
        let counters = Arc::new(Counters::default());
        counters.position.store(position, Ordering::Relaxed);
        let (wake, woken) = queue::bounded("webhooks.wakes_max", 1);
        let work = Work {
            source: self.source.clone(),
            model: model.to_owned(),
            counters: counters.clone(),
            woken,
        };
        let thread = std::thread::Builder::new()
            .name("headwater-webhook".into())
            .spawn(move || work.run(position))
            .map_err(|e| Problem::external("thread", "a thread can't be started").detail(e))?;
        Ok(Running {
            wake,
            thread,
            counters,
        })
    }

    /// Says that facts have been applied.
    pub fn wake(&self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        for webhook in running.values() {
            let _ = webhook.wake.try_send(());
        }
    }

    pub fn stats(&self) -> Vec<WebhookStats> {
        let applied = self.source.processor.applied();
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let stats = running.iter().map(|(model, webhook)| {
            let counters = &webhook.counters;
            WebhookStats {
                model: model.clone(),
                delivered: counters.delivered.load(Ordering::Relaxed),
                failures: counters.failures.load(Ordering::Relaxed),
                backlog: applied.saturating_sub(counters.position.load(Ordering::Relaxed)),
            }
        });
        stats.collect()
    }

    /// Ends them, each after the delivery that it is at.
    pub fn stop(&self) {
        let running = {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *running)
        };
        for webhook in running.values() {
            webhook.counters.stop.store(true, Ordering::Release);
        }
        running.into_values().for_each(Running::stop);
    }
}

impl Running {
    fn stop(self) {
        self.counters.stop.store(true, Ordering::Release);
        drop(self.wake);
        if self.thread.join().is_err() {
            tracing::error!("a thread that calls a webhook panicked");
        }
    }
}

impl Source {
    fn catalog(&self) -> Arc<Catalog> {
        self.reader.in_force().catalog().clone()
    }
}

/// What a thread works with.
struct Work {
    source: Source,
    model: String,
    counters: Arc<Counters>,
    woken: Receiver<()>,
}

/// How long it looks after predictions by itself, where nobody says that there are any.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Facts of others after which it is noted how far it has come.
const NOTE_EVERY: u64 = 10_000;

impl Work {
    fn run(&self, position: Sequence) {
        let mut position = position;
        let mut noted = position;
        while let Ok(next) = self.deliver(position, &mut noted) {
            self.counters.position.store(next, Ordering::Relaxed);
            let caught_up = next == position;
            position = next;
            if !caught_up {
                continue;
            }
            match self.woken.recv_timeout(LOOK_EVERY) {
                Err(RecvTimeoutError::Disconnected) => break,
                _ => continue,
            }
        }
        if noted != position {
            self.note(position, &mut noted);
        }
    }

    fn note(&self, position: Sequence, noted: &mut Sequence) {
        let written = self
            .source
            .positions
            .write(&noted_as(&self.model), position);
        match written {
            Ok(()) => *noted = position,
            Err(problem) => {
                tracing::warn!(model = self.model, %problem, "a webhook's position can't be noted");
            }
        }
    }

    /// Delivers some of what was written after `position`; where to go on. An error: it is to end.
    fn deliver(&self, position: Sequence, noted: &mut Sequence) -> Result<Sequence, ()> {
        let mut pause = Duration::from_millis(self.source.settings.retry_ms_min.max(1));
        let pause_max = Duration::from_millis(self.source.settings.retry_ms_max.max(1));
        loop {
            if self.counters.stop.load(Ordering::Acquire) {
                return Err(());
            }
            match self.try_deliver(position) {
                Ok((next, delivered)) => {
                    self.counters
                        .delivered
                        .fetch_add(delivered, Ordering::Relaxed);
                    if delivered > 0 || next.saturating_sub(*noted) >= NOTE_EVERY {
                        self.note(next, noted);
                    }
                    return Ok(next);
                }
                Err(problem) => {
                    self.counters.failures.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(model = self.model, %problem, "a delivery failed; it is tried again");
                }
            }
            self.wait(pause)?;
            pause = (pause * 2).min(pause_max);
        }
    }

    fn try_deliver(&self, position: Sequence) -> Result<(Sequence, u64), Problem> {
        let Source {
            facts,
            processor,
            settings,
            env,
            ..
        } = &self.source;
        let catalog = self.source.catalog();
        let webhook: Option<Webhook> = catalog.model(&self.model)?.webhook.clone();
        // What was dropped can't be sent any more.
        let first = facts.first_sequence().saturating_sub(1);
        let from = position.max(first);
        let until = processor.applied().max(from);
        let most = settings.batch_predictions_max.max(1);
        let page = read_predictions(facts.as_ref(), &catalog, &self.model, (from, until), most)?;
        if let (Some(webhook), false) = (&webhook, page.rows.is_empty()) {
            let body = body(&self.model, &page.rows);
            post(webhook, &self.model, &body, env.clock.now())?;
        }
        Ok((page.next, page.rows.len() as u64))
    }

    /// Waits, whatever else happens; an error where it is to end.
    fn wait(&self, pause: Duration) -> Result<(), ()> {
        let clock = &self.source.env.clock;
        let until = clock.monotonic_nanos() + pause.as_nanos() as u64;
        loop {
            let left = until.saturating_sub(clock.monotonic_nanos());
            if left == 0 {
                return Ok(());
            }
            let woken = self.woken.recv_timeout(Duration::from_nanos(left));
            if let Err(RecvTimeoutError::Disconnected) = woken {
                return Err(());
            }
        }
    }
}
