//! Predictions that can't be made in time: more of them than fit, and a store of states that stands still or fails.
//!
//! Nothing outside of a process makes its embedded store stand still and not the process with it: signals and frozen groups
//! stop both, and what a disk has given already is in the system's memory. So the whole server runs in this process over the
//! real store behind a gate, which holds up every call of it, or refuses it as a store would that is gone. HTTP, queues,
//! threads, engine and states are those of any server. What this doesn't show is a disk that delays the log: predictions wait
//! for none of it. More than fits is asked of a server of its own process, with nothing in between.
//!
//! A deadline counts from when a request has arrived, so times are from when it was sent, and what the client and the wire
//! take is in them: a request that does nothing is measured beside.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use headwater::{Config, DataFolder, Engine, Env};
use headwater_api::backend::{
    EntityRequest, FeaturesRequest, IngestOptions, KeyValue, Names, NewVersion,
};
use headwater_api::{Backend, Server, ServerOptions};
use headwater_features::{EmbeddedFeatureStore, FeatureStore, StoreWrite};
use headwater_schema::decode::BodyFormat;
use headwater_schema::{Problem, Sequence, Value};
use serde_json::{Value as Json, json};

use crate::client::{Client, each_connection, get, request};
use crate::http::wait_until;
use crate::machine::{percentile, spread};
use crate::server::ServerProcess;
use crate::serving::{paced, verdict};
use crate::{failed, shop};

/// Facts, three seconds apart, the last of them now.
const FACTS: usize = 100_000;
const BATCH: usize = 1000;
const APART: i64 = 3 * shop::SECOND;
const PLANES: usize = 2000;
/// So little that nearly every read is one of the store.
const MEMORY_BYTES: usize = 64 << 10;
const DEADLINE_MS: u32 = 20;
/// Connections, and requests a second over all of them: each has its answer by the deadline before its next is due.
const PACE: (usize, usize) = (40, 500);
/// The same of more than fits, and the planes of one request: about 2.5 ms of a core.
const OVERLOAD: (usize, usize) = (64, 2000);
const OVERLOAD_PLANES: usize = 200;
/// What does nothing, beside each load.
const IDLE_PACE: (usize, usize) = (1, 200);
/// Requests made beforehand.
const REQUESTS: usize = 256;
/// How long a server may take to answer as ever once its store does.
const RECOVERY_MAX: Duration = Duration::from_secs(30);

/// One that a fallback answers for, and one without. Their predictions aren't logged: what is too much is to be the models' work.
const MODELS: &str = "apiVersion: headwater/v1
kind: Model
name: guarded
spec: {feature_set: all, fallback: [{constant: 0.5}], logging: {share: 0}}
---
apiVersion: headwater/v1
kind: Model
name: bare
spec: {feature_set: all, logging: {share: 0}}
";
const NAMED: [&str; 2] = ["guarded", "bare"];

/// Prints how late answers are, and what they are, under overload and over a store that fails them.
pub fn measure(seconds: u64) -> Result<(), Problem> {
    let folder = shop::folder()?;
    let bound = Duration::from_secs(seconds);
    prepare(folder.path())?;
    overload(folder.path(), bound)?;
    impaired_store(folder.path(), bound)
}

/// Planes with facts of the last days, in the store and not in memory, and the models.
fn prepare(folder: &Path) -> Result<(), Problem> {
    let env = Env::real();
    let models = folder.join("models.yaml");
    let written = env.files.write_atomic(&models, MODELS.as_bytes());
    written.map_err(failed)?;
    shop::prepare(folder, shop::TEN_WINDOWS)?;
    let engine = shop::open(folder, &Config::named("bench"))?;
    let now = env.clock.now();
    for first in (0..FACTS).step_by(BATCH) {
        let lines = lines(first, now);
        let options = IngestOptions::default();
        let taken = engine.ingest("departure", BodyFormat::Ndjson, lines.as_bytes(), options)?;
        if taken.accepted != BATCH {
            return Err(failed("facts aren't taken"));
        }
    }
    let file = model(&engine)?;
    let live = NewVersion {
        aliases: vec!["live".to_owned()],
        ..NewVersion::default()
    };
    for name in NAMED {
        engine.add_model(name, file.clone(), &live)?;
    }
    engine.close()
}

fn lines(first: usize, now: i64) -> String {
    let facts = (first..first + BATCH).map(|i| {
        let fact = json!({
            "id": format!("f{i}"), "tailnum": plane(shop::tail(i, PLANES)), "delay": shop::delay(i),
            "time": now - (FACTS - i) as i64 * APART,
        });
        fact.to_string() + "\n"
    });
    facts.collect()
}

fn plane(number: usize) -> String {
    format!("N{}", number % PLANES)
}

/// A weight for each feature: the work is reading them.
fn model(engine: &Engine) -> Result<Vec<u8>, Problem> {
    let key = KeyValue::Scalar(Value::string(plane(0)));
    let read = engine.features(&FeaturesRequest {
        names: Names::Set("all".into()),
        entities: vec![EntityRequest::from([("plane".to_owned(), key)])],
        as_of: None,
        known_at: None,
        context: Vec::new(),
        inclusive: true,
        lenient: false,
    })?;
    let inputs = read.names.iter();
    let inputs = inputs.map(|name| json!({"name": &**name, "missing": 0.0}));
    let inputs: Vec<Json> = inputs.collect();
    let weights: Vec<f64> = (1..=inputs.len()).map(|i| 1.0 / i as f64).collect();
    let file = json!({
        "format": "headwater-linear/1", "inputs": inputs, "coefficients": weights, "intercepts": [0.5],
    });
    Ok(file.to_string().into_bytes())
}

/// Requests to both models in turn, each for so many planes; other ones for other seeds.
fn requests(planes: usize, seeds: Range<usize>) -> Vec<Vec<u8>> {
    let one = |seed: usize| {
        let planes = (0..planes).map(|i| json!({"plane": plane(seed * 31 + i * 7)}));
        let planes: Vec<Json> = planes.collect();
        let body = json!({"entities": planes, "deadline_ms": DEADLINE_MS}).to_string();
        let path = format!("/v1/models/{}/predict", NAMED[seed % NAMED.len()]);
        request(&path, "application/json", &body)
    };
    seeds.map(one).collect()
}

/// An answer: milliseconds from when it was asked for, and what it is.
struct Answer {
    ms: f64,
    is: String,
}

/// Asks one thing, and takes whatever the answer is.
fn ask(client: &mut Client, asked: &[u8]) -> Result<Answer, Problem> {
    let sent = Instant::now();
    let (status, body) = client.exchange(asked)?;
    let ms = sent.elapsed().as_secs_f64() * 1e3;
    let text = String::from_utf8_lossy(body);
    // Only looked at for a few words: reading it all would take the server's core.
    let behind = |start: &str| text.split_once(start)?.1.split('"').next();
    let is = match status {
        200 if text.contains("\"degraded\":false") => "good".to_owned(),
        200 => format!(
            "fallback: {}",
            behind("\"reason\":{\"code\":\"").ok_or_else(|| failed(&text))?
        ),
        _ => format!(
            "refused: {status} {}",
            behind("urn:headwater:problem:").ok_or_else(|| failed(&text))?
        ),
    };
    Ok(Answer { ms, is })
}

/// Asks at a steady rate over some connections.
fn answers(
    address: SocketAddr,
    requests: &[Vec<u8>],
    (connections, rate): (usize, usize),
    bound: Duration,
) -> Result<Vec<Answer>, Problem> {
    let next = AtomicUsize::new(0);
    let start = Instant::now();
    let answers = each_connection(address, connections, |client| {
        let mut answers = Vec::new();
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let due = start + Duration::from_secs_f64(place as f64 / rate as f64);
            if due - start > bound {
                return Ok(answers);
            }
            wait_until(due);
            answers.push(ask(client, &requests[place % requests.len()])?);
        }
    })?;
    Ok(answers.into_iter().flatten().collect())
}

/// One load, and beside it what does nothing.
fn load(
    address: SocketAddr,
    what: &str,
    planes: usize,
    pace: (usize, usize),
    bound: Duration,
) -> Result<f64, Problem> {
    let start = Instant::now();
    let (answers, mut idle) = std::thread::scope(|scope| {
        let idle = scope.spawn(|| paced(address, &[get("/health/live")], IDLE_PACE, bound));
        let answers = answers(address, &requests(planes, 0..REQUESTS), pace, bound);
        let idle = idle.join();
        let idle = idle.unwrap_or_else(|_| Err(failed("a connection's thread panicked")));
        Ok::<_, Problem>((answers?, idle?))
    })?;
    println!(
        "{what}: {planes} × 50 features, {}/s asked for over {} connections, a deadline of {DEADLINE_MS} ms: {:.0}/s answered",
        pace.1,
        pace.0,
        answers.len() as f64 / start.elapsed().as_secs_f64()
    );
    Ok(tell(&answers, &mut idle))
}

/// What answers are, and how late: milliseconds from the deadline, and what does nothing took, to the latest of them.
fn tell(answers: &[Answer], idle: &mut [f64]) -> f64 {
    let mut kinds: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for answer in answers {
        kinds.entry(&answer.is).or_default().push(answer.ms);
    }
    for (kind, mut times) in kinds {
        let share = times.len() as f64 / answers.len() as f64 * 100.0;
        let count = times.len();
        println!("  {kind}: {count}, {share:.2} %; {}", spread(&mut times));
    }
    let late = answers.iter().map(|a| a.ms - f64::from(DEADLINE_MS));
    let mut late: Vec<f64> = late.filter(|ms| *ms > 0.0).collect();
    late.sort_by(f64::total_cmp);
    let latest = late.last().copied().unwrap_or(0.0);
    println!(
        "  after their deadline, as the client sees it: {} of {}, the latest by {latest:.3} ms",
        late.len(),
        answers.len()
    );
    println!("  what does nothing, meanwhile: {}", spread(idle));
    // The client, the wire and the cores that all share put off any answer by as much.
    latest - percentile(idle, 1.0)
}

/// Far more is asked for than there are cores for.
fn overload(folder: &Path, bound: Duration) -> Result<(), Problem> {
    let server = ServerProcess::start(folder, None)?;
    load(server.address, "alone", OVERLOAD_PLANES, (2, 50), bound)?;
    // Its clients need the server's cores: how late answers are says more of them than of the server.
    let what = "more than fits";
    load(server.address, what, OVERLOAD_PLANES, OVERLOAD, bound)?;
    Ok(())
}

/// How a store is.
#[derive(Clone, Copy, PartialEq)]
enum Health {
    Well,
    /// It answers nothing.
    Stalled,
    /// It refuses everything.
    Lost,
}

/// What every call of a store passes.
struct Gate {
    health: Mutex<Health>,
    changed: Condvar,
}

impl Gate {
    fn set(&self, health: Health) {
        *self.health.lock().unwrap_or_else(PoisonError::into_inner) = health;
        self.changed.notify_all();
    }

    fn pass(&self) -> Result<(), Problem> {
        let health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        let health = self
            .changed
            .wait_while(health, |health| *health == Health::Stalled)
            .unwrap_or_else(PoisonError::into_inner);
        match *health {
            Health::Lost => {
                Err(Problem::external("store-lost", "the store of states is gone").retryable())
            }
            Health::Well | Health::Stalled => Ok(()),
        }
    }
}

/// The store that a server has, behind a gate.
struct GatedStore {
    store: EmbeddedFeatureStore,
    gate: Arc<Gate>,
}

impl FeatureStore for GatedStore {
    fn get(&self, view: &str, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, Problem> {
        self.gate.pass()?;
        self.store.get(view, keys)
    }

    fn write(&self, write: &StoreWrite) -> Result<(), Problem> {
        self.gate.pass()?;
        self.store.write(write)
    }

    fn positions(&self) -> Result<BTreeMap<String, Sequence>, Problem> {
        self.gate.pass()?;
        self.store.positions()
    }

    fn retain(&self, views: &[String]) -> Result<(), Problem> {
        self.gate.pass()?;
        self.store.retain(views)
    }

    fn sync(&self) -> Result<(), Problem> {
        self.gate.pass()?;
        self.store.sync()
    }

    fn size_bytes(&self) -> u64 {
        self.store.size_bytes()
    }
}

fn open(folder: &Path, gate: &Arc<Gate>) -> Result<Engine, Problem> {
    let mut config = Config::named("bench");
    config.spec.state.memory_bytes_max = MEMORY_BYTES;
    let gate = gate.clone();
    Engine::open_over(
        Env::real(),
        &config,
        &folder.join("data"),
        |_: &Env, data: &DataFolder, config: &Config| {
            let cache_bytes = config.spec.state.disk_cache_bytes;
            let store = EmbeddedFeatureStore::open(&data.features(), cache_bytes)?;
            let store: Arc<dyn FeatureStore> = Arc::new(GatedStore { store, gate });
            Ok((store, Vec::new()))
        },
        |_, _| {},
    )
}

/// A server whose store stands still for a while, answers again, is gone, and is there again.
fn impaired_store(folder: &Path, bound: Duration) -> Result<(), Problem> {
    let gate = Arc::new(Gate {
        health: Mutex::new(Health::Well),
        changed: Condvar::new(),
    });
    let engine = Arc::new(open(folder, &gate)?);
    let backend: Arc<dyn Backend> = engine.clone();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(failed)?;
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let options = ServerOptions::open(Config::named("bench").spec.limits);
    let server = runtime.block_on(Server::bind(address, backend, options))?;
    let address = server.address();
    runtime.spawn(server.run(std::future::pending()));
    let measured = phases(address, &gate, bound);
    // Whatever came of it: the end of the engine waits for those that wait for the store.
    gate.set(Health::Well);
    runtime.shutdown_timeout(Duration::from_secs(5));
    drop(engine);
    measured
}

fn phases(address: SocketAddr, gate: &Gate, bound: Duration) -> Result<(), Problem> {
    let phases = [
        (Health::Well, "a store that answers"),
        (Health::Stalled, "a store that stands still"),
        (Health::Lost, "a store that is gone"),
    ];
    for (phase, (health, what)) in phases.into_iter().enumerate() {
        gate.set(health);
        let later = load(address, what, 1, PACE, bound)?;
        let bar = "no answer later than its deadline and what does nothing took";
        verdict(bar, later <= 0.0);
        gate.set(Health::Well);
        // Of planes that nobody has asked for yet, since their states are in the store alone.
        let first = (phase + 1) * REQUESTS;
        let seconds = well_again(address, &requests(1, first..first + REQUESTS))?;
        println!(
            "  a good answer again {:.1} ms after it is well",
            seconds * 1e3
        );
    }
    Ok(())
}

/// How long it takes until an answer is good.
fn well_again(address: SocketAddr, requests: &[Vec<u8>]) -> Result<f64, Problem> {
    let start = Instant::now();
    let mut client = Client::connect(address)?;
    for asked in requests.iter().cycle() {
        if ask(&mut client, asked)?.is == "good" {
            return Ok(start.elapsed().as_secs_f64());
        }
        if start.elapsed() > RECOVERY_MAX {
            break;
        }
    }
    Err(failed("the server doesn't answer as before"))
}
