//! Versions that are asked as well, and that nobody hears: what they say is written down beside what was answered.
//!
//! One thread asks them after the answer was given, with the very rows that it was made of. What finds no room in its
//! queue is counted and let go.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use headwater_env::queue::{self, Receiver, Sender};
use headwater_schema::Problem;

use crate::log::Entry;
use crate::predict::{Read, Scored, fetched, score};
use crate::serving::Request;
use crate::traffic::Choice;
use crate::{PredictReply, ServingSettings};

/// An answered request.
pub(crate) struct Answered {
    request: Arc<Request>,
    read: Option<Arc<Read>>,
    reply: Arc<PredictReply>,
}

/// The queue and its thread.
pub(crate) struct Shadows {
    answered: Mutex<Option<Sender<Answered>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Shadows {
    pub fn start(settings: &ServingSettings) -> Result<Self, Problem> {
        let room = settings.shadow_queue_requests_max;
        let (answered, waiting) = queue::bounded("serving.shadow_queue_requests_max", room);
        let thread = std::thread::Builder::new()
            .name("headwater-shadow".into())
            .spawn(move || work(&waiting))
            .map_err(|e| Problem::external("thread", "a thread can't be started").detail(e))?;
        Ok(Self {
            answered: Mutex::new(Some(answered)),
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Hands an answered request over, where its model has shadows.
    pub fn ask(&self, request: &Arc<Request>, read: Option<Arc<Read>>, reply: Arc<PredictReply>) {
        let traffic = request.model.traffic.as_ref();
        if traffic.is_none_or(|t| t.shadows.is_empty()) {
            return;
        }
        let answered = Answered {
            request: request.clone(),
            read,
            reply,
        };
        let queue = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = queue.as_ref().is_some_and(|q| q.try_send(answered).is_ok());
        if !sent && let Ok(served) = request.core.served(&request.model.name) {
            served.counters.shadow("dropped");
        }
    }

    /// Asks for what waits, and ends.
    pub fn stop(&self) {
        *self.answered.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that asks shadows panicked");
        }
    }
}

fn work(waiting: &Receiver<Answered>) {
    while let Ok(answered) = waiting.recv() {
        let traffic = answered.request.model.traffic.as_ref();
        let aliases = traffic.map_or(&[][..], |t| &t.shadows);
        for alias in aliases {
            let run = std::panic::AssertUnwindSafe(|| answered.ask(alias));
            let asked = std::panic::catch_unwind(run)
                .unwrap_or_else(|_| Err(Problem::internal("panic", "a prediction failed")));
            let request = &answered.request;
            let Ok(served) = request.core.served(&request.model.name) else {
                continue;
            };
            match asked {
                Ok(()) => served.counters.shadow("answered"),
                Err(problem) => {
                    tracing::debug!(model = request.model.name.as_ref(), %problem, "a shadow failed");
                    served.counters.shadow("failed");
                }
            }
        }
    }
}

impl Answered {
    /// What the shadows of an answered request say, as far as they can.
    pub fn all(
        request: &Arc<Request>,
        read: Option<Arc<Read>>,
        reply: &Arc<PredictReply>,
    ) -> Vec<Entry> {
        let answered = Self {
            request: request.clone(),
            read,
            reply: reply.clone(),
        };
        let traffic = request.model.traffic.as_ref();
        let aliases = traffic.map_or(&[][..], |t| &t.shadows).iter();
        let said = aliases.filter_map(|alias| {
            let said = answered.said(alias);
            if let Ok(served) = request.core.served(&request.model.name) {
                let became = if said.is_ok() { "answered" } else { "failed" };
                served.counters.shadow(became);
            }
            said.ok()
        });
        said.collect()
    }

    /// What a shadow says, written down.
    fn ask(&self, alias: &Arc<str>) -> Result<(), Problem> {
        let entry = self.said(alias)?;
        self.request.core.log.write(entry);
        Ok(())
    }

    fn said(&self, alias: &Arc<str>) -> Result<Entry, Problem> {
        let request = &self.request;
        let served = request.core.served(&request.model.name)?;
        let version = served.version(Some(alias))?;
        let choice = Choice {
            name: alias.clone(),
            propensity: 1.0,
            experiment: None,
        };
        let fetched = fetched(&request.core, self.read.clone());
        let rows = self.reply.prediction_ids.len();
        let scored = score(
            request,
            &fetched,
            vec![(choice, version)],
            vec![0; rows],
            None,
        )?;
        Ok(self.entry(alias, scored))
    }

    fn entry(&self, alias: &str, scored: Scored) -> Entry {
        let ids = self.reply.prediction_ids.iter();
        let (reply, mut entry) = self.request.reply(
            ids.map(|id| format!("{id}-{alias}")).collect(),
            Some(Box::new(scored)),
            Vec::new(),
            None,
        );
        entry.reply = Some(reply);
        entry.shadow_of = Some(self.reply.clone());
        entry
    }
}
