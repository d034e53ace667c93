//! Other definitions for a running engine: planned, made durable, put in force as a whole, and filled
//! beside the stream of facts.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;

use headwater_env::queue::{self, Receiver, Sender};
use headwater_facts::EmbeddedFactLog;
use headwater_features::{Plan, Registry, plan};
use headwater_schema::Problem;
use headwater_stream::Processor;

use crate::Engine;
use crate::data::write_registry;
use crate::engine::indexes;

impl Engine {
    /// What applying definitions would change.
    pub fn plan(&self, wanted: &Registry) -> Result<Plan, Vec<Problem>> {
        Ok(plan(&self.catalog(), &wanted.compile()?))
    }

    /// Puts definitions in force: all of them or, where the plan has problems, none. Reads and facts
    /// under way end with the definitions they began with. Views that are new or computed again
    /// answer with the status `BACKFILLING` until they have been filled, which goes on after this
    /// returns. After a crash at any point the old definitions are in force or the new ones are.
    pub fn apply(&self, wanted: &Registry) -> Result<Plan, Vec<Problem>> {
        let catalog = Arc::new(wanted.compile()?);
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let plan = plan(&self.catalog(), &catalog);
        if !plan.problems.is_empty() {
            return Err(plan.problems);
        }
        let put = || {
            self.facts.begin_indexes(indexes(&catalog))?;
            let commit = || write_registry(&self.env, &self.data, wanted);
            self.processor.replace(catalog.clone(), commit)
        };
        let in_force = put().map_err(|p| vec![p])?;
        self.reader.replace(in_force);
        self.filler.wake();
        Ok(plan)
    }

    /// Whether a view is still being filled.
    pub fn is_filling(&self) -> bool {
        let in_force = self.processor.in_force();
        in_force.views().any(|v| v.is_filling())
    }
}

/// The thread that brings new indexes and views up to the present.
pub(crate) struct Filler {
    wake: Option<Sender<()>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Filler {
    pub fn start(facts: Arc<EmbeddedFactLog>, processor: Arc<Processor>) -> Result<Self, Problem> {
        let (wake, woken) = queue::bounded("apply.fills_waiting_max", 1);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::Builder::new()
            .name("headwater-filler".into())
            .spawn(move || fill(&facts, &processor, &woken, &stopped))
            .map_err(|e| Problem::external("thread", "a thread can't be started").detail(e))?;
        Ok(Self {
            wake: Some(wake),
            stop,
            thread: Some(thread),
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

fn fill(facts: &EmbeddedFactLog, processor: &Processor, woken: &Receiver<()>, stop: &AtomicBool) {
    while woken.recv().is_ok() && !stop.load(Ordering::Acquire) {
        // A view's reads of the past need its indexes, so they come first.
        let filled = facts
            .complete_indexes(stop)
            .and_then(|()| processor.fill(stop));
        match filled {
            Ok(stats) => tracing::info!(facts = stats.replayed, "views are filled"),
            Err(problem) if stop.load(Ordering::Acquire) => {
                tracing::debug!(%problem, "filling was stopped");
            }
            Err(problem) => {
                tracing::error!(%problem, "views can't be filled; the next start or `apply` tries again");
            }
        }
    }
}
