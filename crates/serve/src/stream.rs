//! One model that scores facts as they arrive. It reads them from the log, from where it had come; what it says of
//! one is a function of the log up to that fact, and its prediction's id is made of the fact's sequence. So a process
//! that was killed goes on where predictions were written, and what it says again changes nothing.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::array::{Array, BooleanArray, RecordBatch};
use headwater_env::queue::{Receiver, RecvTimeoutError};
use headwater_facts::{FactLog, Wanted};
use headwater_features::{EntityRequest, KeyValue, Model, OnFacts, Status};
use headwater_schema::{
    Blame, Cursor, JsonValue, Micros, Problem, Sequence, SequencedBatch, Value, evolve,
};

use crate::facts::{PredictionFact, batch, rows_of};
use crate::log::PredictionSink;
use crate::serving::{Core, Request};
use crate::shadow::Answered;
use crate::trigger::Trigger;
use crate::{InputRows, Positions, PredictRequest, StreamStats};

/// How long it looks after facts by itself, where nobody says that there are any.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often it is noted how far a model has come.
const NOTE_EVERY_NANOS: u64 = 1_000_000_000;
/// The first pause after a failure; each one is twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How often a fact is tried that panics.
const PANICS_MAX: u32 = 3;

/// What a thread works with.
pub(crate) struct Stream {
    pub core: Arc<Core>,
    pub facts: Arc<dyn FactLog>,
    pub positions: Positions,
    /// What its position is called.
    pub noted: String,
    pub sink: Arc<dyn PredictionSink>,
    pub model: String,
    pub counters: Arc<Counters>,
    pub woken: Receiver<()>,
}

/// What is counted of it.
#[derive(Default)]
pub(crate) struct Counters {
    pub stop: AtomicBool,
    /// The last sequence that it has looked at.
    position: AtomicU64,
    /// When the fact arrived that it is at; 0 where it has looked at all.
    waiting_since: AtomicI64,
    written: AtomicU64,
    repeated: AtomicU64,
    degraded: AtomicU64,
    failures: AtomicU64,
    skipped: Mutex<BTreeMap<String, u64>>,
}

impl Counters {
    pub fn new(position: Sequence) -> Self {
        Self {
            position: AtomicU64::new(position),
            ..Self::default()
        }
    }

    fn skip(&self, reason: &str, facts: u64) {
        let mut skipped = self.skipped.lock().unwrap_or_else(PoisonError::into_inner);
        *skipped.entry(reason.to_owned()).or_default() += facts;
    }

    pub fn stats(&self, model: &str, applied: Sequence, now: Micros) -> StreamStats {
        let backlog = applied.saturating_sub(self.position.load(Ordering::Acquire));
        let since = self.waiting_since.load(Ordering::Relaxed);
        StreamStats {
            model: model.to_owned(),
            backlog,
            lag: match backlog > 0 && since > 0 {
                true => now.saturating_sub(since).max(0),
                false => 0,
            },
            written: self.written.load(Ordering::Relaxed),
            repeated: self.repeated.load(Ordering::Relaxed),
            degraded: self.degraded.load(Ordering::Relaxed),
            skipped: self
                .skipped
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
            failures: self.failures.load(Ordering::Relaxed),
        }
    }
}

/// Predictions that wait to be written together.
#[derive(Default)]
struct Made {
    rows: Vec<PredictionFact>,
    degraded: u64,
}

/// Why a stream doesn't go on: it should end.
struct Stopped;

impl Stream {
    /// Scores what comes after `position`, until it is told to end.
    pub fn run(&self, position: Sequence) {
        let mut next = position + 1;
        let mut noted = (position, self.core.env.clock.monotonic_nanos());
        loop {
            if next > self.core.source.applied() {
                self.note(next - 1, &mut noted);
                match self.woken.recv_timeout(LOOK_EVERY) {
                    Err(RecvTimeoutError::Disconnected) => break,
                    _ => continue,
                }
            }
            match self.piece(next) {
                Ok(after) => next = after,
                Err(Stopped) => break,
            }
            let now = self.core.env.clock.monotonic_nanos();
            if now.saturating_sub(noted.1) >= NOTE_EVERY_NANOS {
                self.note(next - 1, &mut noted);
            }
        }
        self.note(next - 1, &mut noted);
    }

    /// Notes how far it has come, once what it has written is on the disk.
    fn note(&self, position: Sequence, noted: &mut (Sequence, u64)) {
        if position == noted.0 {
            return;
        }
        let written = self.sink.sync();
        match written.and_then(|()| self.positions.write(&self.noted, position)) {
            Ok(()) => *noted = (position, self.core.env.clock.monotonic_nanos()),
            // It is noted later; until then it would only be scored again.
            Err(problem) => {
                tracing::warn!(model = self.model, %problem, "a position can't be noted");
                noted.1 = self.core.env.clock.monotonic_nanos();
            }
        }
    }

    /// Scores some facts from `next` on, and writes their predictions. The sequence to go on from.
    fn piece(&self, next: Sequence) -> Result<Sequence, Stopped> {
        let first = self.facts.first_sequence();
        if next < first {
            self.counters.skip("dropped", first - next);
            self.reached(first - 1);
            return Ok(first);
        }
        let Some(model) = self.model() else {
            // It is about to end.
            return Ok(self.core.source.applied() + 1);
        };
        let Some(on) = &model.on else {
            return Ok(self.core.source.applied() + 1);
        };
        let wanted = Wanted {
            contract: on.contract.name.clone(),
            time_min: Micros::MIN,
            time_max: Micros::MAX,
            until: self.core.source.applied(),
        };
        let most = self.core.settings.stream_batch_facts_max;
        let (batches, after) = self.insist(|| self.facts.read_of(&wanted, next, most), |_| true)?;
        let mut made = Made::default();
        for batch in batches {
            if batch.batch.contract != on.contract.name || batch.batch.is_empty() {
                continue;
            }
            self.batch(&batch, next, wanted.until, &mut made)?;
        }
        self.write(&mut made)?;
        let after = after.min(wanted.until + 1).max(next);
        self.reached(after - 1);
        Ok(after)
    }

    fn reached(&self, position: Sequence) {
        self.counters.position.store(position, Ordering::Release);
        self.counters.waiting_since.store(0, Ordering::Relaxed);
    }

    fn model(&self) -> Option<Arc<Model>> {
        let catalog = self.core.source.catalog();
        catalog.model(&self.model).ok().cloned()
    }

    /// Scores the facts of a batch that lie between two sequences.
    fn batch(
        &self,
        facts: &SequencedBatch,
        from: Sequence,
        until: Sequence,
        made: &mut Made,
    ) -> Result<(), Stopped> {
        let since = &self.counters.waiting_since;
        since.store(facts.ingest_time, Ordering::Relaxed);
        let Some(model) = self.model() else {
            return Ok(());
        };
        let Some(on) = &model.on else { return Ok(()) };
        let columns = evolve::project(&facts.batch.columns, &on.contract);
        let passing = columns.and_then(|columns| {
            let passing = on.filter.as_ref().map(|f| f.evaluate(&columns));
            Ok((columns, passing.transpose()?))
        });
        let (columns, passing) = match passing {
            Ok(read) => read,
            Err(problem) => {
                tracing::error!(model = self.model, %problem, "facts can't be read for a model");
                self.counters.skip(problem.code, facts.batch.len() as u64);
                return Ok(());
            }
        };
        let passing = passing.as_ref();
        let passing = passing.and_then(|p| p.as_any().downcast_ref::<BooleanArray>());
        let together = self.core.settings.log_batch_predictions_max;
        for row in 0..facts.batch.len() {
            let sequence = facts.first_sequence + row as Sequence;
            let passes = passing.is_none_or(|p| p.is_valid(row) && p.value(row));
            if sequence < from || sequence > until || !passes {
                continue;
            }
            let Some(entities) = keys(on, &columns, row) else {
                self.counters.skip("null_key", 1);
                continue;
            };
            let ids = facts.batch.fact_ids.as_ref();
            let id = ids
                .filter(|ids| ids.is_valid(row))
                .map(|ids| ids.value(row));
            let trigger = Trigger {
                contract: on.contract.name.clone(),
                fact_id: id.map_or_else(|| sequence.to_string().into(), Arc::from),
                sequence,
            };
            let cursor = Cursor::inclusive(facts.batch.event_times[row]).known_at(sequence);
            let asked = PredictRequest {
                model: self.model.clone(),
                request_id: format!("stream-{sequence}"),
                rows: InputRows::Entities {
                    entities: vec![entities],
                    context: context(on, &model, &columns, row),
                    candidates: None,
                },
                cursor: Some(cursor),
                ..PredictRequest::default()
            };
            self.fact(&asked, &trigger, made)?;
            if made.rows.len() >= together {
                self.write(made)?;
            }
        }
        Ok(())
    }

    /// Scores one fact, with its shadows; one that can't be scored is counted.
    fn fact(
        &self,
        asked: &PredictRequest,
        trigger: &Trigger,
        made: &mut Made,
    ) -> Result<(), Stopped> {
        let mut panics = 0;
        let score = || {
            let score = || {
                // Asked anew each time: a version may have been promoted, or other definitions applied.
                let model = self.core.source.catalog().model(&self.model)?.clone();
                let request = Request::of_fact(&self.core, model, asked.clone(), trigger.clone());
                let (reply, entry, degraded) = request.score()?;
                if let Some(read) = &entry.read
                    && read
                        .features
                        .rows
                        .iter()
                        .flatten()
                        .any(|o| o.status == Status::Backfilling)
                {
                    return Err(filling());
                }
                let mut entries = Answered::all(&request, entry.read.clone(), &reply);
                entries.insert(0, entry);
                let rows: Vec<PredictionFact> = entries.iter().flat_map(rows_of).collect();
                Ok((rows, degraded.is_some()))
            };
            catch_unwind(AssertUnwindSafe(score))
                .unwrap_or_else(|_| Err(Problem::internal("panic", "a prediction failed")))
        };
        let again = |problem: &Problem| {
            panics += u32::from(problem.blame == Blame::Internal);
            problem.blame != Blame::User && panics < PANICS_MAX
        };
        match self.insist_or(score, again)? {
            Ok((rows, degraded)) => {
                made.rows.extend(rows);
                made.degraded += u64::from(degraded);
            }
            Err(problem) => {
                tracing::debug!(model = self.model, sequence = trigger.sequence, %problem, "a fact isn't scored");
                self.counters.skip(problem.code, 1);
            }
        }
        Ok(())
    }

    /// Writes what was made; returns once it is as durable as the project's settings say.
    fn write(&self, made: &mut Made) -> Result<(), Stopped> {
        let Made { rows, degraded } = std::mem::take(made);
        if rows.is_empty() {
            return Ok(());
        }
        let append = || batch(&rows).and_then(|batch| self.sink.append(batch));
        let new = self.insist(append, |_| true)? as u64;
        let counters = &self.counters;
        counters.written.fetch_add(new, Ordering::Relaxed);
        counters
            .repeated
            .fetch_add((rows.len() as u64).saturating_sub(new), Ordering::Relaxed);
        counters.degraded.fetch_add(degraded, Ordering::Relaxed);
        Ok(())
    }

    fn insist<T>(
        &self,
        what: impl FnMut() -> Result<T, Problem>,
        again: impl FnMut(&Problem) -> bool,
    ) -> Result<T, Stopped> {
        self.insist_or(what, again)?.map_err(|_| Stopped)
    }

    /// Does something until it can be done, or `again` says that it can't be.
    fn insist_or<T>(
        &self,
        mut what: impl FnMut() -> Result<T, Problem>,
        mut again: impl FnMut(&Problem) -> bool,
    ) -> Result<Result<T, Problem>, Stopped> {
        let mut pause = PAUSE_MIN;
        loop {
            if self.counters.stop.load(Ordering::Acquire) {
                return Err(Stopped);
            }
            let problem = match what() {
                Ok(done) => return Ok(Ok(done)),
                Err(problem) => problem,
            };
            if !again(&problem) {
                return Ok(Err(problem));
            }
            if self.counters.failures.fetch_add(1, Ordering::Relaxed) == 0 || pause == PAUSE_MAX {
                tracing::warn!(model = self.model, %problem, "a model that scores facts waits");
            }
            let until = self.core.env.clock.monotonic_nanos() + pause.as_nanos() as u64;
            loop {
                let now = self.core.env.clock.monotonic_nanos();
                let left = Duration::from_nanos(until.saturating_sub(now));
                if left.is_zero() {
                    break;
                }
                // Facts that arrive meanwhile don't make it any shorter; the end does.
                if let Err(RecvTimeoutError::Disconnected) = self.woken.recv_timeout(left) {
                    return Err(Stopped);
                }
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

fn filling() -> Problem {
    Problem::external("backfilling", "features of the model are being filled").retryable()
}

/// The entities of a fact; none where a key is null.
fn keys(on: &OnFacts, columns: &RecordBatch, row: usize) -> Option<EntityRequest> {
    let mut asked = EntityRequest::new();
    for (entity, places) in &on.entities {
        let values = places.iter().map(|place| {
            let value = Value::from_array(columns.column(*place), row);
            (!value.is_null()).then_some(value)
        });
        let values: Vec<Value> = values.collect::<Option<_>>()?;
        let key = match <[Value; 1]>::try_from(values) {
            Ok([value]) => KeyValue::Scalar(value),
            Err(values) => {
                let names = entity.keys.iter().map(|k| k.name.to_string());
                KeyValue::Columns(names.zip(values).collect())
            }
        };
        asked.insert(entity.name.to_string(), key);
    }
    Some(asked)
}

/// The set's own fields, as a request would bring them.
fn context(
    on: &OnFacts,
    model: &Model,
    columns: &RecordBatch,
    row: usize,
) -> Vec<headwater_features::ContextRow> {
    if on.context.is_empty() {
        return Vec::new();
    }
    let field = |(field, place): (&headwater_schema::Field, &usize)| {
        let value = Value::from_array(columns.column(*place), row);
        let json = serde_json::to_value(JsonValue(&value)).unwrap_or_default();
        (field.name.to_string(), json)
    };
    vec![
        model
            .set
            .context
            .iter()
            .zip(&on.context)
            .map(field)
            .collect(),
    ]
}
