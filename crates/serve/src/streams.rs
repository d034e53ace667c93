//! Models that score facts as they arrive: each with a thread that reads the log, as long as its declaration says so.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use headwater_env::queue::{self, Sender};
use headwater_facts::FactLog;
use headwater_schema::Problem;

use crate::log::PredictionSink;
use crate::serving::Core;
use crate::stream::{Counters, Stream};
use crate::{Positions, Serving, StreamStats};

/// The streams of all models.
pub(crate) struct Streams {
    /// Where predictions go; none once they have ended.
    sink: Mutex<Option<Arc<dyn PredictionSink>>>,
    /// What they read, once it is known.
    from: Mutex<Option<From>>,
    running: Mutex<BTreeMap<String, Running>>,
    /// Why the others that are declared score nothing.
    refused: Mutex<BTreeMap<String, Problem>>,
}

/// How a model stands that scores facts as they arrive.
pub(crate) enum StreamState {
    Scoring,
    /// It scores nothing, and facts aren't waited for.
    Refused(Problem),
    /// Streams haven't begun, or have ended.
    Stopped,
}

/// The log, and where it is noted how far each has come in it.
#[derive(Clone)]
struct From {
    facts: Arc<dyn FactLog>,
    positions: Positions,
}

struct Running {
    /// Says that facts have arrived; dropped, that it should end.
    wake: Sender<()>,
    thread: JoinHandle<()>,
    counters: Arc<Counters>,
}

impl Streams {
    pub fn new(sink: Arc<dyn PredictionSink>) -> Self {
        Self {
            sink: Mutex::new(Some(sink)),
            from: Mutex::default(),
            running: Mutex::default(),
            refused: Mutex::default(),
        }
    }

    /// Brings the streams in line with the definitions in force.
    fn refresh(&self, core: &Arc<Core>) {
        let from = self.from.lock().unwrap_or_else(PoisonError::into_inner);
        let sink = self.sink.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(from), Some(sink)) = (from.as_ref(), sink.as_ref()) else {
            return;
        };
        let catalog = core.source.catalog();
        let declared = catalog.models().filter(|m| m.on.is_some());
        let declared: Vec<String> = declared.map(|m| m.name.to_string()).collect();
        // Whoever says that facts have been applied takes this lock, so nobody waits for anything while holding it.
        let running = || self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let over: Vec<String> = running().keys().cloned().collect();
        for name in over.iter().filter(|name| !declared.contains(*name)) {
            let stream = running().remove(name);
            if let Some(stream) = stream {
                stream.stop();
            }
        }
        // One that is declared again later begins with the facts of then.
        let noted = from.positions.names().into_iter();
        for model in noted.filter_map(|name| Some(name.strip_prefix("stream-")?.to_owned())) {
            if !declared.contains(&model)
                && let Err(problem) = from.positions.remove(&noted_as(&model))
            {
                tracing::warn!(model, %problem, "a model that scores facts no more leaves its position");
            }
        }
        let mut refused = BTreeMap::new();
        for model in declared {
            if running().contains_key(&model) {
                continue;
            }
            let most = core.settings.stream_models_max;
            let count = running().len();
            let started = match count < most {
                true => start(core, from, sink, &model),
                false => Err(
                    Problem::user("limit", "too many models score facts as they arrive")
                        .detail(format!("{most} do already"))
                        .hint("raise `serving.stream_models_max`"),
                ),
            };
            match started {
                Ok(stream) => drop(running().insert(model, stream)),
                Err(problem) => {
                    tracing::error!(model, %problem, "a model can't score facts");
                    refused.insert(model, problem);
                }
            }
        }
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = refused;
    }

    /// How a model stands that is declared to score facts.
    pub fn state(&self, model: &str) -> StreamState {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.contains_key(model) {
            return StreamState::Scoring;
        }
        drop(running);
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        match refused.get(model) {
            Some(problem) => StreamState::Refused(problem.clone()),
            None => StreamState::Stopped,
        }
    }

    /// Models that are declared to score facts and score nothing.
    pub fn refused(&self) -> Vec<String> {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.keys().cloned().collect()
    }

    /// Says that facts have been applied.
    pub fn wake(&self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        for stream in running.values() {
            // One call that waits stands for all later ones.
            let _ = stream.wake.try_send(());
        }
    }

    pub fn stats(&self, core: &Core) -> Vec<StreamStats> {
        let applied = core.source.applied();
        let now = core.env.clock.now();
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let stats = running.iter();
        stats
            .map(|(model, stream)| stream.counters.stats(model, applied, now))
            .collect()
    }

    /// Ends them; each has noted how far it has come.
    pub fn stop(&self) {
        *self.from.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let running = {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *running)
        };
        for stream in running.values() {
            stream.counters.stop.store(true, Ordering::Release);
        }
        running.into_values().for_each(Running::stop);
        *self.sink.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Running {
    fn stop(self) {
        self.counters.stop.store(true, Ordering::Release);
        drop(self.wake);
        if self.thread.join().is_err() {
            tracing::error!("a thread that scores facts panicked");
        }
    }
}

/// What a model's position is called.
fn noted_as(model: &str) -> String {
    format!("stream-{model}")
}

fn start(
    core: &Arc<Core>,
    from: &From,
    sink: &Arc<dyn PredictionSink>,
    model: &str,
) -> Result<Running, Problem> {
    let noted = noted_as(model);
    let position = match from.positions.read(&noted)? {
        // A log that was put back from an older copy has less than was noted.
        Some(position) => position.min(from.facts.last_sequence()),
        None => {
            // It begins with what arrives from now on, also where this process ends before anything does.
            let last = from.facts.last_sequence();
            from.positions.write(&noted, last)?;
            last
        }
    };
    let counters = Arc::new(Counters::new(position));
    let (wake, woken) = queue::bounded("serving.stream_wakes_max", 1);
    let stream = Stream {
        core: core.clone(),
        facts: from.facts.clone(),
        positions: from.positions.clone(),
        noted,
        sink: sink.clone(),
        model: model.to_owned(),
        counters: counters.clone(),
        woken,
    };
    let thread = std::thread::Builder::new()
        .name("headwater-stream".into())
        .spawn(move || stream.run(position))
        .map_err(|e| Problem::external("thread", "a thread can't be started").detail(e))?;
    Ok(Running {
        wake,
        thread,
        counters,
    })
}

impl Serving {
    /// Lets models score what arrives in `facts`, from where each had come.
    pub fn stream(&self, facts: Arc<dyn FactLog>, positions: Positions) {
        let from = From { facts, positions };
        let mut known = self
            .streams
            .from
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *known = Some(from);
        drop(known);
        self.refresh_streams();
    }

    pub(crate) fn refresh_streams(&self) {
        self.streams.refresh(&self.core);
    }

    /// What to call whenever facts have been applied; it returns at once, and may be called when this is gone.
    pub fn waker(&self) -> impl Fn() + Send + Sync + 'static {
        let streams = Arc::downgrade(&self.streams);
        move || {
            if let Some(streams) = streams.upgrade() {
                streams.wake();
            }
        }
    }
}
