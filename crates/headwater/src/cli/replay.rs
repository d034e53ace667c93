//! Replays recorded facts in the order of their event times, as fast as it goes or at a chosen speed.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arrow::array::RecordBatch;
use headwater::{Engine, Env};
use headwater_env::queue;
use headwater_schema::decode::{BodyFormat, DecodeLimits, decode_each};
use headwater_schema::{FactBatch, Micros, Problem};

/// Event time whose facts are handed over together.
const SLICE: Micros = 3_600_000_000;
/// Batches that may be under way at once.
const IN_FLIGHT_MAX: usize = 64;

/// Recorded facts of one contract, sorted by event time.
pub struct Recording {
    pub contract: Arc<str>,
    batch: FactBatch,
    /// The first row that hasn't been replayed.
    next: usize,
}

/// How a replay goes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Progress {
    pub facts: u64,
    pub total: u64,
    pub event_time: Micros,
}

/// What a replay came to.
#[derive(Debug, Default)]
pub struct Outcome {
    pub facts: u64,
    /// Without what its watcher took.
    pub seconds: f64,
    /// Milliseconds from handing a batch over to its being durable and visible, ascending.
    pub fresh_ms: Vec<f64>,
}

/// Hears of each slice of a replay.
pub trait Watcher {
    /// Whether it reads what was replayed: then a slice is told once it has been applied, and the next one waits.
    fn reads(&self) -> bool;

    /// `slice` is empty for those that don't read.
    fn slice(&mut self, progress: Progress, slice: &[FactBatch]) -> Result<(), Problem>;
}

impl Recording {
    /// Reads a Parquet file of facts that keep the contract.
    pub fn read(env: &Env, engine: &Engine, contract: &str, file: &Path) -> Result<Self, Problem> {
        let bytes = env.files.read(file).map_err(|e| {
            Problem::user(
                "unreadable-file",
                format!("{} can't be read", file.display()),
            )
            .detail(e)
        })?;
        let known = engine
            .catalog()
            .contract(contract)
            .cloned()
            .ok_or_else(|| {
                Problem::user(
                    "unknown-contract",
                    format!("there is no contract `{contract}`"),
                )
            })?;
        let mut batches: Vec<FactBatch> = Vec::new();
        let limits = DecodeLimits::files();
        decode_each(
            &known,
            BodyFormat::Parquet,
            &bytes,
            &limits,
            usize::MAX,
            &mut |decoded| {
                if let Some(rejected) = decoded.rejected.first() {
                    return Err(Problem::user(
                        "bad-recording",
                        format!("{} breaks its contract", file.display()),
                    )
                    .detail(format!("row {}: {}", rejected.row, rejected.reason)));
                }
                batches.push(decoded.batch);
                Ok(())
            },
        )?;
        let batch = join(batches)?;
        if !batch.event_times.is_sorted() {
            return Err(Problem::user(
                "bad-recording",
                format!("{} isn't sorted by event time", file.display()),
            ));
        }
        Ok(Self {
            contract: known.name.clone(),
            batch,
            next: 0,
        })
    }

    pub fn len(&self) -> usize {
        self.batch.len()
    }

    /// All of its facts.
    pub fn facts(&self) -> &FactBatch {
        &self.batch
    }

    fn next_time(&self) -> Option<Micros> {
        self.batch.event_times.get(self.next).copied()
    }

    /// The facts before `until` that haven't been replayed.
    fn take_before(&mut self, until: Micros) -> Option<FactBatch> {
        let end = self.batch.event_times.partition_point(|t| *t < until);
        let (start, length) = (self.next, end.saturating_sub(self.next));
        if length == 0 {
            return None;
        }
        self.next = end;
        Some(FactBatch {
            contract: self.batch.contract.clone(),
            columns: self.batch.columns.slice(start, length),
            event_times: self.batch.event_times[start..end].to_vec(),
            fact_ids: self
                .batch
                .fact_ids
                .as_ref()
                .map(|ids| ids.slice(start, length)),
            unknown_fields: self
                .batch
                .unknown_fields
                .as_ref()
                .map(|u| u.slice(start, length)),
        })
    }
}

fn join(batches: Vec<FactBatch>) -> Result<FactBatch, Problem> {
    let failed = |e: arrow::error::ArrowError| {
        Problem::internal("bad-recording", "a recording can't be put together").detail(e)
    };
    let mut batches = batches;
    if batches.len() == 1 {
        return Ok(batches.remove(0));
    }
    let first = batches
        .first()
        .ok_or_else(|| Problem::user("bad-recording", "a recording is empty"))?;
    let columns: Vec<&RecordBatch> = batches.iter().map(|b| &b.columns).collect();
    let columns =
        arrow::compute::concat_batches(&first.columns.schema(), columns).map_err(failed)?;
    let ids = batches
        .iter()
        .filter_map(|b| b.fact_ids.as_ref())
        .flat_map(|ids| ids.iter());
    Ok(FactBatch {
        contract: first.contract.clone(),
        columns,
        event_times: batches
            .iter()
            .flat_map(|b| b.event_times.iter().copied())
            .collect(),
        fact_ids: first.fact_ids.as_ref().map(|_| ids.collect()),
        unknown_fields: None,
    })
}

/// Replays recordings up to `until`. Facts of equal event times keep the order of `recordings`.
/// `speed` is seconds of event time per second; none goes as fast as it can.
pub fn replay(
    env: &Env,
    engine: &Engine,
    recordings: &mut [Recording],
    until: Option<Micros>,
    speed: Option<f64>,
    watcher: &mut dyn Watcher,
) -> Result<Outcome, Problem> {
    let until = until.unwrap_or(Micros::MAX);
    let under_way = UnderWay::new(env);
    let start = env.clock.monotonic_nanos();
    let mut watched = 0;
    let first = recordings.iter().filter_map(Recording::next_time).min();
    let mut progress = Progress {
        total: recordings.iter().map(|r| r.len() as u64).sum(),
        ..Progress::default()
    };
    while let Some(next) = recordings.iter().filter_map(Recording::next_time).min() {
        if next >= until {
            break;
        }
        let width = if speed.is_some() { SLICE / 60 } else { SLICE };
        let end = (next - next.rem_euclid(width) + width).min(until);
        if let (Some(speed), Some(first)) = (speed, first) {
            wait_for(env, start, (next - first) as f64 / 1e6 / speed);
        }
        let mut slice = Vec::new();
        for recording in recordings.iter_mut() {
            let Some(batch) = recording.take_before(end) else {
                continue;
            };
            progress.facts += batch.len() as u64;
            if watcher.reads() {
                slice.push(batch.clone());
            }
            under_way.submit(engine, batch);
        }
        progress.event_time = end;
        if watcher.reads() {
            under_way.wait();
        }
        let begun = env.clock.monotonic_nanos();
        watcher.slice(progress, &slice)?;
        watched += env.clock.monotonic_nanos().saturating_sub(begun);
        under_way.check()?;
    }
    under_way.wait();
    under_way.check()?;
    let mut answers = under_way.answers();
    let mut fresh_ms = std::mem::take(&mut answers.fresh_ms);
    fresh_ms.sort_by(f64::total_cmp);
    Ok(Outcome {
        facts: answers.facts,
        seconds: (env.clock.monotonic_nanos() - start).saturating_sub(watched) as f64 / 1e9,
        fresh_ms,
    })
}

/// Batches that were handed over and haven't been answered.
struct UnderWay {
    env: Env,
    answers: Arc<Mutex<Answers>>,
    /// One for each batch that may be under way and isn't.
    permits: queue::Sender<()>,
    returned: queue::Receiver<()>,
}

impl UnderWay {
    fn new(env: &Env) -> Self {
        let (permits, returned) = queue::bounded("replay", IN_FLIGHT_MAX);
        let under_way = Self {
            env: env.clone(),
            answers: Arc::default(),
            permits,
            returned,
        };
        under_way.permit_all();
        under_way
    }

    fn permit_all(&self) {
        for _ in 0..IN_FLIGHT_MAX {
            let _ = self.permits.try_send(());
        }
    }

    /// Hands a batch over, once few enough are under way.
    fn submit(&self, engine: &Engine, batch: FactBatch) {
        let _ = self.returned.recv();
        let (answers, permits) = (self.answers.clone(), self.permits.clone());
        let clock = self.env.clock.clone();
        let handed_over = clock.monotonic_nanos();
        engine.submit_batch(
            batch,
            Box::new(move |reply| {
                let waited = clock.monotonic_nanos().saturating_sub(handed_over);
                let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
                answers.add(reply, waited);
                drop(answers);
                let _ = permits.try_send(());
            }),
        );
    }

    /// Waits until every batch has been answered.
    fn wait(&self) {
        for _ in 0..IN_FLIGHT_MAX {
            let _ = self.returned.recv();
        }
        self.permit_all();
    }

    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails where a batch did.
    fn check(&self) -> Result<(), Problem> {
        self.answers().failed.take().map_or(Ok(()), Err)
    }
}

fn wait_for(env: &Env, start: u64, seconds: f64) {
    let passed = (env.clock.monotonic_nanos() - start) as f64 / 1e9;
    if seconds > passed {
        env.clock.sleep(Duration::from_secs_f64(seconds - passed));
    }
}

#[derive(Default)]
struct Answers {
    facts: u64,
    fresh_ms: Vec<f64>,
    failed: Option<Problem>,
}

impl Answers {
    fn add(
        &mut self,
        reply: Result<headwater_api::backend::IngestReply, Problem>,
        waited_nanos: u64,
    ) {
        match reply {
            Ok(reply) => {
                self.facts += reply.accepted as u64;
                self.fresh_ms.push(waited_nanos as f64 / 1e6);
            }
            Err(problem) => self.failed = Some(problem),
        }
    }
}
