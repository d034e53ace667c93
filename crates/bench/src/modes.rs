//! One model in several modes, over the same rows: what each mode answers is compared bit for bit.
//!
//! The flights' year is replayed by a clock that is set. Every hour the flights of the hours that follow are predicted while
//! the facts are as they were then: over HTTP, in this process from a bundle, and by what scores facts as they arrive.
//! Afterwards the same rows are scored from file to file. A mode gives the bits of its answers in the order of
//! [`Asked::rows`].

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, TimestampMicrosecondArray,
    UInt64Array,
};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{Float64Type, TimestampMicrosecondType};
use headwater::{Config, Engine, Env};
use headwater_api::backend::{NewVersion, ScoreRequest};
use headwater_api::{Backend, Server, ServerOptions};
use headwater_batch::{OutputFormat, TableWriter};
use headwater_env::{Clock, RealClock};
use headwater_schema::decode::{BodyFormat, DecodeLimits, decode_each, read_record_batches};
use headwater_schema::{FactBatch, Problem};
use serde_json::{Value as Json, json};

use crate::client::{Client, request};
use crate::flights::CONTRACTS;
use crate::{failed, shop};

mod embedded;
mod streaming;

use embedded::{Embedded, objects};
use streaming::Streaming;

const HOUR: i64 = 3600 * shop::SECOND;
/// A flight is predicted at every full hour of so many before it is to leave.
const HOURS: i64 = 3;
/// How long the client may have nothing to ask.
const IDLE_MS: u64 = 600_000;
/// Rows of one request.
const REQUEST_ROWS: usize = 1000;
const KEYS: [&str; 4] = ["tailnum", "carrier", "origin", "dest"];
const CONTEXT: [&str; 3] = ["sched_dep", "sched_arr", "distance"];
const MODEL_NAME: &str = "in_all_modes";
const MODEL: &str = "apiVersion: headwater/v1
kind: Model
name: in_all_modes
spec: {feature_set: flight_delay, deadline: 30s, logging: {share: 0}, on: asked}
";

/// A clock that says the time that it is set to, and measures as the machine's does.
#[derive(Default)]
struct SetClock {
    now: AtomicI64,
    real: RealClock,
}

impl Clock for SetClock {
    fn now(&self) -> i64 {
        self.now.load(Ordering::SeqCst)
    }

    fn monotonic_nanos(&self) -> u64 {
        self.real.monotonic_nanos()
    }

    fn sleep(&self, duration: Duration) {
        self.real.sleep(duration);
    }
}

/// Rows that were predicted online, and the bits of the answers.
struct Asked {
    /// Keys, context, and the cursor of each row: `as_of` and `known_at`.
    rows: RecordBatch,
    answers: Vec<u64>,
    requests: usize,
    seconds: f64,
    embedded: Embedded,
    streaming: Streaming,
}

/// What a comparison came to.
pub struct Compared {
    pub rows: usize,
    /// Answers that differ from those to others: a model that says the same of everything proves nothing.
    pub distinct: usize,
    /// For each other mode: its name, and how many of its answers aren't, bit for bit, what was answered online.
    pub differ: Vec<(&'static str, usize)>,
    pub told: Vec<String>,
}

/// Compares so many rows, and prints what differs and what each mode took.
pub fn measure(rows: usize) -> Result<(), Problem> {
    let compared = compare(rows)?;
    for line in &compared.told {
        println!("{line}");
    }
    println!(
        "{} rows, {} different answers",
        compared.rows, compared.distinct
    );
    for (mode, differ) in &compared.differ {
        println!("{differ} differ between online and {mode}");
    }
    match compared.differ.iter().all(|(_, differ)| *differ == 0) {
        true => Ok(()),
        false => Err(failed("the modes answer differently")),
    }
}

/// Asks each mode for so many rows, or as many as the year has.
pub fn compare(rows: usize) -> Result<Compared, Problem> {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/flights");
    let folder = shop::folder()?;
    let clock = Arc::new(SetClock::default());
    let env = Env {
        clock: clock.clone(),
        ..Env::real()
    };
    let engine = open(&env, &example, folder.path())?;
    let asked = replay(&engine, &env, &clock, &example, rows)?;
    let mut told = tell(&asked);
    let start = Instant::now();
    let bulk = bulk(&engine, &env, &asked.rows, folder.path())?;
    let seconds = start.elapsed().as_secs_f64();
    told.push(format!(
        "bulk: {} rows from Parquet to Parquet in {seconds:.1} s, {:.0} rows/s",
        bulk.len(),
        bulk.len() as f64 / seconds
    ));
    let modes = [
        ("bulk", bulk),
        ("embedded", asked.embedded.answers),
        ("streaming", asked.streaming.answers()),
    ];
    let differ = modes.map(|(mode, answers)| {
        if answers.len() != asked.answers.len() {
            return Err(failed(format!("{mode} lost rows")));
        }
        let both = answers.iter().zip(&asked.answers);
        Ok((
            mode,
            both.filter(|(answer, online)| answer != online).count(),
        ))
    });
    let differ = differ.into_iter().collect::<Result<_, _>>()?;
    let mut distinct = asked.answers;
    let rows = distinct.len();
    distinct.sort_unstable();
    distinct.dedup();
    Ok(Compared {
        rows,
        distinct: distinct.len(),
        differ,
        told,
    })
}

/// What each mode of the replay took.
fn tell(asked: &Asked) -> Vec<String> {
    let rows = asked.answers.len();
    let took = |seconds: f64| format!("{seconds:.1} s, {:.0} rows/s", rows as f64 / seconds);
    let (embedded, streaming) = (&asked.embedded, &asked.streaming);
    vec![
        format!(
            "online: {rows} rows in {} requests over HTTP, one after another, beside the replay: {} in requests",
            asked.requests,
            took(asked.seconds)
        ),
        format!(
            "embedded: {rows} rows from {} bundles told of {} facts: {} in calls",
            embedded.bundles,
            embedded.told,
            took(embedded.seconds)
        ),
        format!(
            "streaming: {rows} facts scored as they arrive, from ingestion to the log: {}",
            took(streaming.seconds)
        ),
    ]
}

/// The flights' project with the model that is shipped with it, and no facts.
fn open(env: &Env, example: &Path, folder: &Path) -> Result<Arc<Engine>, Problem> {
    for part in ["contracts", "features"] {
        std::fs::create_dir_all(folder.join(part)).map_err(failed)?;
        for file in std::fs::read_dir(example.join(part)).map_err(failed)? {
            let file = file.map_err(failed)?;
            let text = std::fs::read(file.path()).map_err(failed)?;
            let copy = folder.join(part).join(file.file_name());
            env.files.write_atomic(&copy, &text).map_err(failed)?;
        }
    }
    for (name, text) in [
        ("headwater.yaml", "name: flights\n"),
        ("asked.yaml", streaming::CONTRACT),
        ("model.yaml", MODEL),
    ] {
        let written = env.files.write_atomic(&folder.join(name), text.as_bytes());
        written.map_err(failed)?;
    }
    let data = folder.join("data");
    shop::apply(env, folder, &data)?;
    let config = Config::named("flights");
    let engine = Engine::open(env.clone(), &config, &data, |_, _| {})?;
    let file = env.files.read(&example.join("models/arrives_late.txt"));
    let live = NewVersion {
        aliases: vec!["live".to_owned()],
        ..NewVersion::default()
    };
    engine.add_model(MODEL_NAME, file.map_err(failed)?, &live)?;
    Ok(Arc::new(engine))
}

/// The facts of all contracts, in the order of their times within each.
struct Recordings(Vec<(FactBatch, usize)>);

impl Recordings {
    fn read(engine: &Engine, example: &Path) -> Result<Self, Problem> {
        let mut batches = Vec::new();
        for contract in CONTRACTS {
            let file = example.join("data").join(format!("{contract}.parquet"));
            let bytes = std::fs::read(file).map_err(failed)?;
            let known = engine.catalog().contract(contract).cloned();
            let known = known.ok_or_else(|| failed("a contract is missing"))?;
            let (limits, all) = (DecodeLimits::files(), usize::MAX);
            decode_each(
                &known,
                BodyFormat::Parquet,
                &bytes,
                &limits,
                all,
                &mut |d| {
                    batches.push((d.batch, 0));
                    Ok(())
                },
            )?;
        }
        Ok(Self(batches))
    }

    /// The facts up to a moment that haven't been taken.
    fn take_until(&mut self, moment: i64) -> Vec<FactBatch> {
        let mut taken = Vec::new();
        for (batch, next) in &mut self.0 {
            let end = batch.event_times.partition_point(|t| *t <= moment);
            let (start, length) = (*next, end - *next);
            if length > 0 {
                *next = end;
                let ids = batch.fact_ids.as_ref();
                taken.push(FactBatch {
                    contract: batch.contract.clone(),
                    columns: batch.columns.slice(start, length),
                    event_times: batch.event_times[start..end].to_vec(),
                    fact_ids: ids.map(|ids| ids.slice(start, length)),
                    unknown_fields: None,
                });
            }
        }
        taken
    }
}

/// The schedule's flights that name a plane, by when they are to leave: online, a key that is null is refused.
fn schedule(example: &Path) -> Result<RecordBatch, Problem> {
    let bytes = std::fs::read(example.join("data/schedule.parquet")).map_err(failed)?;
    let batches = read_record_batches(BodyFormat::Parquet, &bytes)?;
    let batches = batches.collect::<Result<Vec<_>, _>>()?;
    let schema = batches
        .first()
        .ok_or_else(|| failed("no flights"))?
        .schema();
    let all = concat_batches(&schema, &batches).map_err(failed)?;
    let columns = KEYS.iter().chain(&CONTEXT).map(|name| {
        let column = all.column_by_name(name);
        let column = column.ok_or_else(|| failed(format!("no {name}")))?;
        let plain = headwater_schema::DataType::from_arrow(column.data_type()).map_err(failed)?;
        let column = arrow::compute::cast(column, &plain.to_arrow()).map_err(failed)?;
        Ok((*name, column, true))
    });
    let columns: Vec<_> = columns.collect::<Result<_, Problem>>()?;
    let flights = RecordBatch::try_from_iter_with_nullable(columns).map_err(failed)?;
    let leaves = leaving(&flights)?.clone();
    let known = (0..flights.num_rows()).filter(|row| flights.column(0).is_valid(*row));
    let mut known: Vec<u64> = known.map(|row| row as u64).collect();
    known.sort_by_key(|row| leaves.value(*row as usize));
    take_record_batch(&flights, &UInt64Array::from(known)).map_err(failed)
}

fn leaving(flights: &RecordBatch) -> Result<&TimestampMicrosecondArray, Problem> {
    let column = flights.column_by_name("sched_dep");
    let times = column.and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>());
    times.ok_or_else(|| failed("no times of departure"))
}

/// Replays the year, and asks every hour what can be asked while it is that hour.
fn replay(
    engine: &Arc<Engine>,
    env: &Env,
    clock: &SetClock,
    example: &Path,
    rows_max: usize,
) -> Result<Asked, Problem> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(failed)?;
    let backend: Arc<dyn Backend> = engine.clone();
    let mut limits = Config::named("flights").spec.limits;
    // The connection idles while the other modes are asked and bundles are taken.
    limits.header_ms_max = IDLE_MS;
    let options = ServerOptions::open(limits);
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let server = runtime.block_on(Server::bind(address, backend, options))?;
    let mut client = Client::connect(server.address())?;
    runtime.spawn(server.run(std::future::pending()));
    let mut facts = Recordings::read(engine, example)?;
    let flights = schedule(example)?;
    let leaves = leaving(&flights)?;
    let mut embedded = Embedded::new(env, &flights);
    let mut streaming = Streaming::default();
    let mut asking = Asking::default();
    let mut now = leaves.values()[0].div_euclid(HOUR) * HOUR - HOUR;
    while asking.answers.len() < rows_max && now < leaves.values()[leaves.len() - 1] {
        clock.now.store(now, Ordering::SeqCst);
        let news = facts.take_until(now);
        embedded.tell(&news)?;
        shop::ingest(engine, news.into_iter().map(Ok))?;
        embedded.renew(engine, now)?;
        let first = leaves.values().partition_point(|t| *t <= now);
        let end = leaves
            .values()
            .partition_point(|t| *t <= now + HOURS * HOUR);
        let end = end.min(first + rows_max - asking.answers.len());
        for from in (first..end).step_by(REQUEST_ROWS) {
            let rows = flights.slice(from, REQUEST_ROWS.min(end - from));
            let (entities, context) = (
                json!(objects(&rows, &KEYS)),
                json!(objects(&rows, &CONTEXT)),
            );
            asking.ask(&mut client, &rows, now, (&entities, &context))?;
            embedded.ask(&entities, &context)?;
            streaming.ask(engine, &rows, now)?;
        }
        now += HOUR;
    }
    runtime.shutdown_timeout(Duration::from_secs(5));
    asking.finish(embedded, streaming)
}

/// What has been asked.
#[derive(Default)]
struct Asking {
    rows: Vec<RecordBatch>,
    as_of: Vec<i64>,
    known_at: Vec<i64>,
    answers: Vec<u64>,
    seconds: f64,
}

impl Asking {
    fn ask(
        &mut self,
        client: &mut Client,
        rows: &RecordBatch,
        now: i64,
        (entities, context): (&Json, &Json),
    ) -> Result<(), Problem> {
        let body = json!({"entities": entities, "context": context, "deadline_ms": 30_000});
        let path = format!("/v1/models/{MODEL_NAME}/predict");
        let bytes = request(&path, "application/json", &body.to_string());
        let sent = Instant::now();
        let reply = client.call(&bytes)?;
        self.seconds += sent.elapsed().as_secs_f64();
        let reply: Json = serde_json::from_slice(reply).map_err(failed)?;
        if reply["degraded"] != json!(false) {
            return Err(failed(reply));
        }
        let sequence = reply["sequence"]
            .as_str()
            .and_then(|s| s.parse::<i64>().ok());
        let sequence = sequence.ok_or_else(|| failed("an answer has no sequence"))?;
        let outputs = reply["outputs"].as_array().into_iter().flatten();
        let bits =
            outputs.filter_map(|row| Some(row.as_object()?.values().next()?.as_f64()?.to_bits()));
        let before = self.answers.len();
        self.answers.extend(bits);
        if self.answers.len() != before + rows.num_rows() {
            return Err(failed("an answer lacks rows"));
        }
        self.as_of.extend(vec![now; rows.num_rows()]);
        self.known_at.extend(vec![sequence; rows.num_rows()]);
        self.rows.push(rows.clone());
        Ok(())
    }

    /// The rows with their cursors, beside what the others said of them.
    fn finish(self, embedded: Embedded, streaming: Streaming) -> Result<Asked, Problem> {
        let schema = self
            .rows
            .first()
            .ok_or_else(|| failed("nothing was asked"))?;
        let rows = concat_batches(&schema.schema(), &self.rows).map_err(failed)?;
        let names = rows.schema();
        let names = names.fields().iter().map(|f| f.name().clone());
        let times = TimestampMicrosecondArray::from(self.as_of).with_timezone("UTC");
        let cursors: [(String, ArrayRef); 2] = [
            ("as_of".to_owned(), Arc::new(times)),
            (
                "known_at".to_owned(),
                Arc::new(Int64Array::from(self.known_at)),
            ),
        ];
        let columns = names.zip(rows.columns().iter().cloned()).chain(cursors);
        let columns = columns.map(|(name, column)| (name, column, true));
        Ok(Asked {
            rows: RecordBatch::try_from_iter_with_nullable(columns).map_err(failed)?,
            answers: self.answers,
            requests: self.rows.len(),
            seconds: self.seconds,
            embedded,
            streaming,
        })
    }
}

/// The same rows from file to file, each at the cursor that it was asked at.
fn bulk(
    engine: &Engine,
    env: &Env,
    rows: &RecordBatch,
    folder: &Path,
) -> Result<Vec<u64>, Problem> {
    let (file, out) = (folder.join("rows.parquet"), folder.join("scores.parquet"));
    let mut bytes = Vec::new();
    let schema = rows.schema();
    let mut table = TableWriter::new(OutputFormat::Parquet, &schema, Box::new(&mut bytes))?;
    table.write(rows)?;
    table.finish()?;
    env.files.write_atomic(&file, &bytes).map_err(failed)?;
    let request = ScoreRequest {
        model: MODEL_NAME.to_owned(),
        inclusive: Some(true),
        ..ScoreRequest::default()
    };
    engine.write_scores(&request, &file, &out)?;
    let bytes = env.files.read(&out).map_err(failed)?;
    let mut scores = Vec::with_capacity(rows.num_rows());
    for batch in read_record_batches(BodyFormat::Parquet, &bytes)? {
        let batch = batch?;
        let last = batch.columns().last();
        let last: Option<&Float64Array> = last.and_then(|c| c.as_primitive_opt::<Float64Type>());
        let last = last.ok_or_else(|| failed("the table has no scores"))?;
        scores.extend(last.values().iter().map(|score| score.to_bits()));
    }
    Ok(scores)
}

#[cfg(test)]
mod tests {
    use super::compare;

    #[test]
    fn every_mode_gives_the_same_bits() {
        let compared = compare(6000).expect("compared");
        let differ = [("bulk", 0), ("embedded", 0), ("streaming", 0)];
        assert_eq!((compared.rows, &compared.differ[..]), (6000, &differ[..]));
        assert!(compared.distinct > 1000, "{}", compared.distinct);
    }
}
