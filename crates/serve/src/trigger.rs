//! A request that nobody makes: for a fact that has arrived.

use std::sync::{Arc, Mutex};

use headwater_features::Model;
use headwater_schema::{Blame, Problem, Sequence};

use crate::fallback::{StandIn, fallback};
use crate::log::Entry;
use crate::predict::predict;
use crate::serving::{Core, DEADLINE_MAX, Request};
use crate::{Degraded, PredictReply, PredictRequest};

/// A fact that a model scores.
#[derive(Debug, Clone)]
pub(crate) struct Trigger {
    pub contract: Arc<str>,
    pub fact_id: Arc<str>,
    pub sequence: Sequence,
}

impl Request {
    /// A request for a fact that has arrived; nobody waits for it.
    pub fn of_fact(
        core: &Arc<Core>,
        model: Arc<Model>,
        asked: PredictRequest,
        trigger: Trigger,
    ) -> Arc<Self> {
        Arc::new(Self {
            core: core.clone(),
            model,
            number: trigger.sequence,
            arrived_nanos: core.env.clock.monotonic_nanos(),
            arrived: asked.cursor.map_or(0, |cursor| cursor.as_of),
            deadline_nanos: DEADLINE_MAX.unsigned_abs() * 1000,
            done: Mutex::default(),
            trigger: Some(trigger),
            asked,
        })
    }

    /// The answer to a fact that has arrived, and what its prediction is made of.
    pub fn score(
        self: &Arc<Self>,
    ) -> Result<(Arc<PredictReply>, Entry, Option<Degraded>), Problem> {
        let (stand_in, degraded) = match predict(&self.core, self, None) {
            Ok(scored) => {
                self.remember(&scored);
                (StandIn::Scored(Box::new(scored)), None)
            }
            Err(problem) if problem.blame == Blame::User => return Err(problem),
            Err(problem) => {
                let (stand_in, degraded) = fallback(&self.core, self, &problem, true)?;
                (stand_in, Some(degraded))
            }
        };
        let (scored, outputs) = match stand_in {
            StandIn::Scored(scored) => (Some(scored), Vec::new()),
            StandIn::Outputs(outputs) => (None, outputs),
        };
        let ids = self.trigger.iter();
        let ids = ids.map(|t| format!("stream-{}-{}", self.model.name, t.sequence));
        let (reply, entry) = self.reply(ids.collect(), scored, outputs, degraded.clone());
        Ok((reply, entry, degraded))
    }
}
