//! Other definitions for a running engine: planned, made durable, put in force as a whole, and filled
//! beside the stream of facts.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;

use headwater_env::Env;
use headwater_env::queue::{self, Receiver, Sender};
use headwater_facts::EmbeddedFactLog;
use headwater_features::{Catalog, Documents, LogFacts, Plan, plan};
use headwater_schema::Problem;
use headwater_stream::Processor;

use crate::Engine;
use crate::data::{check_planned_on, write_registry};
use crate::engine::indexes;

impl Engine {
    /// What applying definitions would change.
    pub fn plan(&self, wanted: &Catalog) -> Plan {
        let counts = self.facts.stats().contracts.into_iter();
        let log = LogFacts {
            contracts: counts.map(|(name, stats)| (name, stats.facts)).collect(),
            facts_per_second: self.filler.rate.facts_per_second(),
        };
        plan(&self.catalog(), wanted, &log)
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
        Ok(plan)
    }

    /// The views that are still being filled.
    pub fn filling(&self) -> Vec<String> {
        let in_force = self.processor.in_force();
        let filling = in_force.views().filter(|v| v.is_filling());
        filling.map(|v| v.view().name.to_string()).collect()
    }
}

/// How fast this process was seen to read facts again.
#[derive(Debug, Default)]
pub(crate) struct ReplayRate {
    /// 0: not measured yet.
    facts_per_second: AtomicU64,
}

impl ReplayRate {
    /// Times `replay`, which says how many facts it has read again; few say nothing.
    pub fn measure(
        &self,
        env: &Env,
        replay: impl FnOnce() -> Result<u64, Problem>,
    ) -> Result<u64, Problem> {
        const FACTS_MIN: u64 = 20_000;
        let start = env.clock.monotonic_nanos();
        let facts = replay()?;
        let nanos = env.clock.monotonic_nanos().saturating_sub(start).max(1);
        if facts >= FACTS_MIN {
            let rate = facts as f64 / (nanos as f64 / 1e9);
            self.facts_per_second.store(rate as u64, Ordering::Relaxed);
        }
        Ok(facts)
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
        let (env, stopped, measured) = (env.clone(), stop.clone(), rate.clone());
        let thread = std::thread::Builder::new()
            .name("headwater-filler".into())
            .spawn(move || fill(&env, &facts, &processor, &woken, &stopped, &measured))
            .map_err(|e| Problem::external("thread", "a thread can't be started").detail(e))?;
        Ok(Self {
            wake: Some(wake),
            stop,
            thread: Some(thread),
            rate,
        })
    }

    /// Says that there is something to fill. One call that waits stands for all later ones.
    pub fn wake(&self) {
        if let Some(wake) = &self.wake {
            let _ = wake.try_send(());
        }
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

fn fill(
    env: &Env,
    facts: &EmbeddedFactLog,
    processor: &Processor,
    woken: &Receiver<()>,
    stop: &AtomicBool,
    rate: &ReplayRate,
) {
    while woken.recv().is_ok() && !stop.load(Ordering::Acquire) {
        // A view's reads of the past need its indexes, so they come first.
        let filled = facts
            .complete_indexes(stop)
            .and_then(|()| rate.measure(env, || Ok(processor.fill(stop)?.replayed)));
        match filled {
            Ok(facts) => tracing::info!(facts, "views are filled"),
            Err(problem) if stop.load(Ordering::Acquire) => {
                tracing::debug!(%problem, "filling was stopped");
            }
            Err(problem) => {
                tracing::error!(%problem, "views can't be filled; the next start or `apply` tries again");
            }
        }
    }
}
