//! Other definitions for a running engine: planned, made durable, put in force as a whole, and filled
//! beside the stream of facts.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use headwater_env::Env;
use headwater_env::queue::{self, Receiver, RecvTimeoutError, Sender};
use headwater_facts::EmbeddedFactLog;
use headwater_features::{Catalog, Documents, LogFacts, Plan, plan};
use headwater_schema::{Problem, Sequence};
use headwater_stream::{Filled, Processor};

use crate::Engine;
use crate::data::{check_planned_on, write_registry};
use crate::indexes::indexes;
use crate::models::too_many;

impl Engine {
    /// What applying definitions would change.
    pub fn plan(&self, wanted: &Catalog) -> Plan {
        let counts = self.facts.stats().contracts.into_iter();
        let log = LogFacts {
            contracts: counts.map(|(name, stats)| (name, stats.facts)).collect(),
            facts_per_second: self.filler.rate.facts_per_second(),
        };
        let mut plan = plan(&self.catalog(), wanted, &log);
        let (serving, webhooks) = (self.serving.settings(), self.webhooks.settings());
        plan.problems.extend(too_many(wanted, serving, webhooks));
        plan
    }

    /// Puts definitions in force, given as documents and what they compile to: all of them or, where
    /// the plan has problems, none. `planned_on` is the registry's version that the caller has seen,
    /// where it insists that nobody applied anything since.
    ///
    /// Reads and facts under way end with the definitions they began with. Views that are new or
    /// computed again answer with the status `BACKFILLING` until they have been filled, which goes on
    /// after this returns. After a crash at any point the old definitions are in force or the new
    /// ones are.
    pub fn apply(
        &self,
        documents: &Documents,
        catalog: &Arc<Catalog>,
        planned_on: Option<u64>,
    ) -> Result<Plan, Vec<Problem>> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, registry) = self.reader.definitions();
        check_planned_on(planned_on, registry.version()).map_err(|p| vec![p])?;
        let plan = self.plan(catalog);
        if !plan.problems.is_empty() {
            return Err(plan.problems);
        }
        let next = registry.next(documents.clone(), Some(self.env.clock.now()));
        if next == *registry {
            return Ok(plan);
        }
        let put = || {
            self.facts.begin_indexes(indexes(catalog))?;
            let commit = || write_registry(&self.env, &self.data, &next);
            self.processor.replace(catalog.clone(), commit)
        };
        let put = put();
        // Indexes may have been begun even where nothing else was.
        self.filler.wake();
        self.reader.replace(put.map_err(|p| vec![p])?, next);
        self.serving.refresh();
        self.webhooks.refresh();
        Ok(plan)
    }

    /// The views that are still being filled.
    pub fn filling(&self) -> Vec<String> {
        let in_force = self.processor.in_force();
        let filling = in_force.views().filter(|v| v.is_filling());
        filling.map(|v| v.view().name.to_string()).collect()
    }

    /// Makes views again from the facts, though their definitions are what they were: their states are
    /// forgotten, reads answer `BACKFILLING` until they have been filled, which goes on after this returns.
    /// What is being filled then.
    pub fn backfill(&self, names: &[String]) -> Result<Vec<String>, Problem> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let catalog = self.catalog();
        let mut again = BTreeSet::new();
        for name in names {
            let view = catalog.known_view(name)?;
            if view.is_chained() {
                let upstream = view.sources.iter().filter_map(|s| s.upstream.as_ref());
                let upstream: Vec<&str> = upstream.map(|u| u.view.name.as_ref()).collect();
                let title = format!("the view `{name}` keeps nothing that could be filled");
                return Err(Problem::user("nothing-to-fill", title)
                    .field("views")
                    .detail("it is worked out at each read, from the views that it reads")
                    .hint(format!("name those: {}", upstream.join(", "))));
            }
            again.insert(view.state_id.clone());
        }
        if !again.is_empty() {
            let (_, registry) = self.reader.definitions();
            let in_force = self.processor.refill(&again)?;
            self.reader.replace(in_force, (*registry).clone());
            self.filler.wake();
        }
        Ok(self.filling())
    }

    /// How far a view has been filled, while it is being filled.
    pub(crate) fn fill_progress(&self, filled: Filled) -> FillProgress {
        let facts_total = self.processor.applied().saturating_sub(filled.from);
        let facts_done = filled.reached.saturating_sub(filled.from).min(facts_total);
        let facts_per_second = self.filler.rate.facts_per_second();
        let left = (facts_total - facts_done) as f64;
        FillProgress {
            filled_to: filled.reached,
            facts_done,
            facts_total,
            facts_per_second,
            seconds_left: facts_per_second.map(|rate| left / rate),
            problem: self.filler.problem(),
        }
    }

    /// Returns once nothing is being filled; `progress` hears how much is, every now and then. An error where
    /// the facts can't be read.
    pub fn wait_until_filled(&self, mut progress: impl FnMut(&Self)) -> Result<(), Problem> {
        while !self.filling().is_empty() {
            progress(self);
            if let Some(problem) = self.filler.problem() {
                return Err(problem);
            }
            self.env.clock.sleep(LOOK_EVERY);
        }
        Ok(())
    }
}

/// How often somebody who waits looks whether views are filled.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// After this long filling is tried again where it failed.
const RETRY: Duration = Duration::from_secs(10);

/// How far a view has been filled.
#[derive(Debug, Clone, PartialEq)]
pub struct FillProgress {
    /// The last sequence that it has.
    pub filled_to: Sequence,
    /// Facts of the log, of whatever contract, that it has been brought past, and that it has to be.
    pub facts_done: u64,
    pub facts_total: u64,
    /// None: not measured yet.
    pub facts_per_second: Option<f64>,
    pub seconds_left: Option<f64>,
    /// Why it doesn't go on at the moment.
    pub problem: Option<Problem>,
}

/// How fast this process was seen to read facts again.
#[derive(Debug, Default)]
pub(crate) struct ReplayRate {
    /// 0: not measured yet.
    facts_per_second: AtomicU64,
}

impl ReplayRate {
    /// Times `replay`, which tells how many facts it has read again, as it goes on; few say nothing.
    pub fn measure<T>(&self, env: &Env, replay: impl FnOnce(&mut dyn FnMut(u64)) -> T) -> T {
        const FACTS_MIN: u64 = 20_000;
        let start = env.clock.monotonic_nanos();
        replay(&mut |facts| {
            let nanos = env.clock.monotonic_nanos().saturating_sub(start).max(1);
            if facts >= FACTS_MIN {
                let rate = facts as f64 / (nanos as f64 / 1e9);
                self.facts_per_second.store(rate as u64, Ordering::Relaxed);
            }
        })
    }

    fn facts_per_second(&self) -> Option<f64> {
        let rate = self.facts_per_second.load(Ordering::Relaxed);
        (rate > 0).then_some(rate as f64)
    }
}

/// The thread that brings new indexes and views up to the present.
pub(crate) struct Filler {
    wake: Option<Sender<()>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    rate: Arc<ReplayRate>,
    problem: Arc<Mutex<Option<Problem>>>,
}

impl Filler {
    pub fn start(
        env: &Env,
        facts: Arc<EmbeddedFactLog>,
        processor: Arc<Processor>,
        rate: Arc<ReplayRate>,
    ) -> Result<Self, Problem> {
        let (wake, woken) = queue::bounded("apply.fills_waiting_max", 1);
        let stop = Arc::new(AtomicBool::new(false));
        let problem = Arc::new(Mutex::new(None));
        let work = Work {
            env: env.clone(),
            facts,
            processor,
            stop: stop.clone(),
            rate: rate.clone(),
            problem: problem.clone(),
        };
        let thread = std::thread::Builder::new()
            .name("headwater-filler".into())
            .spawn(move || work.run(&woken))
            .map_err(|e| Problem::external("thread", "a thread can't be started").detail(e))?;
        let filler = Self {
            wake: Some(wake),
            stop,
            thread: Some(thread),
            rate,
            problem,
        };
        // For what was being filled when the last process ended.
        filler.wake();
        Ok(filler)
    }

    /// Says that there is something to fill. One call that waits stands for all later ones.
    pub fn wake(&self) {
        if let Some(wake) = &self.wake {
            let _ = wake.try_send(());
        }
    }

    /// Why filling failed last; none where it didn't.
    pub fn problem(&self) -> Option<Problem> {
        let problem = self.problem.lock();
        problem.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Stops at the next batch of facts; the next start fills the rest.
    pub fn stop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.wake = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that fills views panicked");
        }
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What the thread works with.
struct Work {
    env: Env,
    facts: Arc<EmbeddedFactLog>,
    processor: Arc<Processor>,
    stop: Arc<AtomicBool>,
    rate: Arc<ReplayRate>,
    problem: Arc<Mutex<Option<Problem>>>,
}

impl Work {
    fn run(&self, woken: &Receiver<()>) {
        let mut again = false;
        loop {
            // What failed is tried again after a while, or once somebody asks.
            let told = match again {
                true => woken.recv_timeout(RETRY),
                false => woken.recv().map_err(RecvTimeoutError::from),
            };
            let over = matches!(told, Err(RecvTimeoutError::Disconnected));
            if over || self.stop.load(Ordering::Acquire) {
                return;
            }
            let filled = self.fill();
            again = filled.is_err();
            match &filled {
                Ok(facts) => tracing::info!(facts, "views are filled"),
                Err(problem) if self.stop.load(Ordering::Acquire) => {
                    tracing::debug!(%problem, "filling was stopped");
                }
                Err(problem) => {
                    tracing::error!(%problem, "views can't be filled; it is tried again");
                }
            }
            let mut problem = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
            *problem = filled.err();
        }
    }

    /// How many facts were read.
    fn fill(&self) -> Result<u64, Problem> {
        // A view's reads of the past need its indexes, so they come first.
        self.facts.complete_indexes(&self.stop)?;
        let fill = |told: &mut dyn FnMut(u64)| self.processor.fill(&self.stop, told);
        Ok(self.rate.measure(&self.env, fill)?.replayed)
    }
}
