//! Predictions over the network: by entities, of candidates, remembered, and of raw vectors over the Open Inference
//! Protocol beside MLServer from Python, which serves the same file.
//!
//! Fifty features of three entities go into a LightGBM model of 500 trees with 31 leaves. The server is a process of its
//! own on loopback; the client shares its cores. Answers are compared with the file's before anything is timed.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use headwater::{Config, Env};
use headwater_api::backend::NewVersion;
use headwater_models::{LoadOptions, Predictor, Rows, load};
use headwater_schema::Problem;
use serde_json::{Value as Json, json};

use crate::client::{Client, each_connection, get, request};
use crate::http::wait_until;
use crate::ingest::NDJSON;
use crate::machine::{percentile, spread};
use crate::server::ServerProcess;
use crate::{failed, shop};

mod vectors;

/// Facts, three seconds apart, the last of them now.
pub(crate) const FACTS: usize = 200_000;
const APART: i64 = 3 * shop::SECOND;
const USERS: usize = 2000;
const ITEMS: usize = 2000;
const PLACES: usize = 100;
/// Rows that the model is trained with, and how many of them one read brings.
const TRAINED: usize = 20_000;
const READ: usize = 500;
const FEATURES: usize = 50;
const CANDIDATES: usize = 100;
/// Requests made beforehand.
const REQUESTS: usize = 256;

const CONTRACT: &str = "kind: DataContract
apiVersion: v3.1.0
id: bench
version: 1.0.0
status: active
schema:
  - name: purchase
    properties:
      - {name: id, logicalType: string, required: true}
      - {name: user, logicalType: string, required: true}
      - {name: item, logicalType: string, required: true}
      - {name: place, logicalType: string, required: true}
      - {name: amount, logicalType: number}
      - {name: time, logicalType: timestamp, required: true}
    customProperties:
      - {property: headwater.eventTime, value: time}
      - {property: headwater.factId, value: id}
      - {property: headwater.timeUnit, value: us}
";

const MODELS: &str = "apiVersion: headwater/v1
kind: FeatureSet
name: all
spec: {features: ['users.*', 'items.*', 'places.*']}
---
apiVersion: headwater/v1
kind: Model
name: scored
spec: {feature_set: all, deadline: 10s}
---
apiVersion: headwater/v1
kind: Model
name: remembered
spec: {feature_set: all, deadline: 10s, cache: {}}
---
apiVersion: headwater/v1
kind: Model
name: unlogged
spec: {feature_set: all, deadline: 10s, logging: {share: 0}}
---
apiVersion: headwater/v1
kind: Model
name: remembered_unlogged
spec: {feature_set: all, deadline: 10s, cache: {}, logging: {share: 0}}
";

/// Prints the figures of each load.
pub fn measure(seconds: u64, python: &str) -> Result<(), Problem> {
    let folder = shop::folder()?;
    let (folder, bound) = (folder.path(), Duration::from_secs(seconds));
    let model = prepare(folder, python)?;
    let server = ServerProcess::start(folder, None)?;
    check(server.address, model.as_ref())?;
    by_entities(&server, bound)?;
    candidates(&server, bound)?;
    remembered(&server, bound)?;
    let metrics = metrics(server.address)?;
    for name in ["written", "dropped", "failed"] {
        let name = format!("headwater_prediction_log_{name}_total");
        println!("  {name} {:.0}", sum(&metrics, &name, ""));
    }
    vectors::measure(&server, bound, folder, python, model.as_ref())
}

/// A view of each entity's purchases: 16 features, the users' 18.
fn views() -> String {
    let view = |entity: &str, least: &str| {
        let windows = "windows: [1h, 6h, 24h, 7d]";
        format!(
            "apiVersion: headwater/v1
kind: Entity
name: {entity}
spec: {{keys: [{{name: {entity}, type: string}}]}}
---
apiVersion: headwater/v1
kind: FeatureView
name: {entity}s
spec:
  entity: {entity}
  sources: [{{contract: purchase}}]
  features:
    - {{name: count, aggregate: count, {windows}}}
    - {{name: sum, aggregate: sum, of: amount, {windows}}}
    - {{name: avg, aggregate: avg, of: amount, {windows}}}
    - {{name: max, aggregate: max, of: amount, {windows}}}{least}
---
"
        )
    };
    let least = "\n    - {name: min, aggregate: min, of: amount, windows: [24h, 7d]}";
    view("user", least) + &view("item", "") + &view("place", "")
}

/// A data folder with the facts and a model that was trained on what is read of them; that model.
pub(crate) fn prepare(folder: &Path, python: &str) -> Result<Box<dyn Predictor>, Problem> {
    let env = Env::real();
    for (name, text) in [
        ("headwater.yaml", "name: bench\n"),
        ("contract.yaml", CONTRACT),
        ("features.yaml", &(views() + MODELS)),
    ] {
        let written = env.files.write_atomic(&folder.join(name), text.as_bytes());
        written.map_err(failed)?;
    }
    shop::apply(&env, folder, &folder.join("data"))?;
    let server = ServerProcess::start(folder, None)?;
    let mut client = Client::connect(server.address)?;
    let now = env.clock.now();
    for first in (0..FACTS).step_by(1000) {
        client.call(&request("/v1/facts/purchase", NDJSON, &lines(first, now)))?;
    }
    let mut rows = Vec::with_capacity(TRAINED * FEATURES * 8);
    for first in (0..TRAINED).step_by(READ) {
        let read = json!({"feature_set": "all", "entities": entities(first, READ)});
        let read = ask(&mut client, "/v1/features", &read)?;
        let names = read["names"].to_string();
        std::fs::write(folder.join("names.json"), names).map_err(failed)?;
        numbers(&read)?
            .iter()
            .flatten()
            .for_each(|v| rows.extend(v.to_le_bytes()));
    }
    std::fs::write(folder.join("rows.f64"), rows).map_err(failed)?;
    server.kill()?;
    let trained = script(python, "train", folder).status().map_err(failed)?;
    if !trained.success() {
        return Err(failed("the script that trains the model failed")
            .hint("Give `--python` an interpreter that has lightgbm, numpy, mlserver and mlserver-lightgbm"));
    }
    let file = std::fs::read(folder.join("model.txt")).map_err(failed)?;
    let live = NewVersion {
        aliases: vec!["live".to_owned()],
        ..NewVersion::default()
    };
    let engine = shop::open(folder, &Config::named("bench"))?;
    for name in ["scored", "remembered", "unlogged", "remembered_unlogged"] {
        engine.add_model(name, file.clone(), &live)?;
    }
    load(&file, &LoadOptions::default())
}

fn script(python: &str, what: &str, folder: &Path) -> Command {
    let mut command = Command::new(python);
    let script = include_str!("serving.py");
    command.args(["-W", "ignore", "-c", script, what]);
    command.arg(folder);
    command
}

/// A thousand facts as NDJSON.
fn lines(first: usize, now: i64) -> String {
    let facts = first..first + 1000;
    let facts = facts.map(|i| fact(i, now - (FACTS - i) as i64 * APART));
    facts.collect()
}

/// A fact as a line of NDJSON.
pub(crate) fn fact(i: usize, time: i64) -> String {
    let fact = json!({
        "id": format!("f{i}"), "amount": shop::delay(i), "time": time,
        "user": format!("u{}", shop::tail(i, USERS)), "item": format!("i{}", shop::tail(i / 3, ITEMS)),
        "place": format!("p{}", shop::tail(i / 7, PLACES)),
    });
    fact.to_string() + "\n"
}

pub(crate) fn entity(seed: usize) -> Json {
    json!({"user": format!("u{}", seed * 31 % USERS), "item": item(seed * 17), "place": format!("p{}", seed % PLACES)})
}

fn item(seed: usize) -> String {
    format!("i{}", seed % ITEMS)
}

fn entities(first: usize, count: usize) -> Vec<Json> {
    (first..first + count).map(entity).collect()
}

fn by_entity(seed: usize) -> Json {
    json!({"entities": [entity(seed)]})
}

fn reranked(seed: usize) -> Json {
    let ids: Vec<_> = (0..CANDIDATES).map(|i| item(seed * 101 + i * 7)).collect();
    let mut of = entity(seed);
    if let Some(of) = of.as_object_mut() {
        of.remove("item");
    }
    json!({"entities": [of], "candidates": {"entity": "item", "ids": ids}})
}

fn post(path: &str, body: &Json) -> Vec<u8> {
    request(path, "application/json", &body.to_string())
}

pub(crate) fn ask(client: &mut Client, path: &str, body: &Json) -> Result<Json, Problem> {
    serde_json::from_slice(client.call(&post(path, body))?).map_err(failed)
}

/// The rows of an answer to a read, null as NaN.
fn numbers(read: &Json) -> Result<Vec<Vec<f64>>, Problem> {
    let rows = read["rows"].as_array();
    let rows = rows.ok_or_else(|| failed("no rows were read"))?.iter();
    let rows = rows.map(|row| {
        let values = row["values"].as_array().into_iter().flatten();
        let values: Vec<f64> = values.map(|v| v.as_f64().unwrap_or(f64::NAN)).collect();
        match values.len() == FEATURES {
            true => Ok(values),
            false => Err(failed(format!("{} features were read", values.len()))),
        }
    });
    rows.collect()
}

fn output(model: &dyn Predictor, row: &[f64]) -> Result<f64, Problem> {
    Ok(model.predict(Rows::one(row)?)?.outputs[0])
}

/// Holds answers of each kind, bit for bit, to what the file says of the features that are read at their cursor.
fn check(address: SocketAddr, model: &dyn Predictor) -> Result<(), Problem> {
    let mut client = Client::connect(address)?;
    let mut answers = Vec::new();
    for seed in 0..20 {
        for (name, asked) in [
            ("scored", by_entity(seed)),
            ("remembered", by_entity(seed / 2)),
            ("scored", reranked(seed)),
        ] {
            let answer = ask(&mut client, &format!("/v1/models/{name}/predict"), &asked)?;
            let of = &asked["entities"][0];
            let ids = asked["candidates"]["ids"].as_array();
            let rows: Vec<Json> = ids.map_or(vec![of.clone()], |ids| {
                let with =
                    |id: &Json| json!({"user": of["user"], "place": of["place"], "item": id});
                ids.iter().map(with).collect()
            });
            let read = json!({"feature_set": "all", "entities": rows, "as_of": answer["as_of"], "known_at": answer["sequence"]});
            let read = numbers(&ask(&mut client, "/v1/features", &read)?)?;
            for (place, row) in read.iter().enumerate() {
                let outputs = answer["outputs"][place].as_object();
                let said = outputs.and_then(|o| o.values().next()?.as_f64());
                let wanted = output(model, row)?;
                if said.map(f64::to_bits) != Some(wanted.to_bits()) {
                    return Err(failed(format!("{asked}: {said:?} isn't {wanted}")));
                }
                answers.push(wanted.to_bits());
            }
        }
    }
    let checked = answers.len();
    answers.sort_unstable();
    answers.dedup();
    println!(
        "{checked} answers are the file's, bit for bit; {} different ones",
        answers.len()
    );
    Ok(())
}

/// What the server's histogram says of a model's requests: from arrival to answer, without the wire.
struct Told(Vec<(f64, f64)>);

impl Told {
    fn read(metrics: &str, model: &str) -> Self {
        let buckets = metrics.lines().filter_map(|line| {
            let line = line.strip_prefix("headwater_prediction_seconds_bucket{")?;
            let (labels, count) = line.rsplit_once("} ")?;
            let le = labels.split("le=\"").nth(1)?.split('"').next()?;
            let le = le.replace("+Inf", "inf").parse().ok()?;
            let of = labels.contains(&format!("model=\"{model}\""));
            of.then_some((le, count.parse().ok()?))
        });
        Self(buckets.collect())
    }

    /// The bound, in milliseconds, below which so large a share of what came since then is.
    fn below(&self, before: &Self, share: f64) -> f64 {
        let old = |le: f64| before.0.iter().find(|b| b.0 == le).map_or(0.0, |b| b.1);
        let count = |(le, count): &(f64, f64)| count - old(*le);
        let all = self.0.last().map_or(f64::NAN, count);
        let found = self.0.iter().find(|b| count(b) >= share * all);
        found.map_or(f64::NAN, |b| b.0 * 1e3)
    }
}

pub(crate) fn metrics(address: SocketAddr) -> Result<String, Problem> {
    let mut client = Client::connect(address)?;
    let text = client.call(&get("/metrics"))?;
    Ok(String::from_utf8_lossy(text).into_owned())
}

/// The sum of a metric's series that have `label`.
pub(crate) fn sum(metrics: &str, name: &str, label: &str) -> f64 {
    let lines = metrics
        .lines()
        .filter(|l| l.starts_with(name) && l.contains(label));
    lines
        .filter_map(|l| l.rsplit_once(' ')?.1.parse::<f64>().ok())
        .fold(0.0, |sum, one| sum + one)
}

/// Requests at a steady rate over some connections; what each took from when it was due, in milliseconds.
pub(crate) fn paced(
    address: SocketAddr,
    requests: &[Vec<u8>],
    (connections, rate): (usize, usize),
    bound: Duration,
) -> Result<Vec<f64>, Problem> {
    let next = AtomicUsize::new(0);
    let start = Instant::now();
    let times = each_connection(address, connections, |client| {
        let mut times = Vec::new();
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let due = start + Duration::from_secs_f64(place as f64 / rate as f64);
            if due - start > bound {
                return Ok(times);
            }
            wait_until(due);
            client.call(&requests[place % requests.len()])?;
            times.push(due.elapsed().as_secs_f64() * 1e3);
        }
    })?;
    Ok(times.into_iter().flatten().collect())
}

/// One paced load; its times, sorted, and the server's own p50 and p99.
fn load_of(
    server: &ServerProcess,
    (model, what): (&str, &str),
    requests: &[Vec<u8>],
    pace: (usize, usize),
    bound: Duration,
) -> Result<(Vec<f64>, f64), Problem> {
    paced(server.address, requests, pace, Duration::from_millis(500))?;
    let before = metrics(server.address)?;
    let mut times = paced(server.address, requests, pace, bound)?;
    let after = metrics(server.address)?;
    let label = format!("model=\"{model}\"");
    let more = |name: &str| sum(&after, name, &label) - sum(&before, name, &label);
    let mean = |part: &str| {
        let name = format!("headwater_prediction{part}_seconds");
        more(&(name.clone() + "_sum")) / more(&(name + "_count")) * 1e3
    };
    let means = ["", "_features", "_scoring"].map(mean);
    let (before, after) = (Told::read(&before, model), Told::read(&after, model));
    let p99 = after.below(&before, 0.99);
    println!(
        "{what}, {}/s asked for over {} connections, {} came: the client has {}; the server's histogram p50 ≤ {}, p99 ≤ {p99}, p99.9 ≤ {} ms",
        pace.1,
        pace.0,
        times.len(),
        spread(&mut times),
        after.below(&before, 0.5),
        after.below(&before, 0.999),
    );
    let [whole, features, scoring] = means;
    println!(
        "  of {whole:.3} ms in the server on average, {features:.3} read features, {scoring:.3} scored"
    );
    Ok((times, p99))
}

pub(crate) fn verdict(bar: &str, met: bool) {
    println!("  bar: {bar}: {}", if met { "met" } else { "MISSED" });
}

fn by_entities(server: &ServerProcess, bound: Duration) -> Result<(), Problem> {
    let requests = |model: &str| -> Vec<_> {
        let path = format!("/v1/models/{model}/predict");
        (0..REQUESTS).map(|s| post(&path, &by_entity(s))).collect()
    };
    let what = ("scored", "predictions by entities");
    let (times, _) = load_of(server, what, &requests("scored"), (4, 2000), bound)?;
    let met = percentile(&times, 0.5) <= 1.0 && percentile(&times, 0.99) <= 5.0;
    verdict("p50 ≤ 1 ms, p99 ≤ 5 ms at the client", met);
    // How much of that is the log of predictions, and how much is waiting for a core.
    let what = ("unlogged", "the same without a log of predictions");
    load_of(server, what, &requests("unlogged"), (4, 2000), bound)?;
    let mut times = paced(server.address, &[get("/health/live")], (4, 2000), bound)?;
    println!(
        "what does nothing, at that rate: the client has {}",
        spread(&mut times)
    );
    Ok(())
}

fn candidates(server: &ServerProcess, bound: Duration) -> Result<(), Problem> {
    let path = "/v1/models/scored/predict";
    let requests: Vec<_> = (0..REQUESTS).map(|s| post(path, &reranked(s))).collect();
    let what = ("scored", "100 candidates reranked");
    let (times, _) = load_of(server, what, &requests, (2, 50), bound)?;
    let met = percentile(&times, 0.99) <= 10.0;
    verdict("p99 ≤ 10 ms at the client", met);
    Ok(())
}

fn remembered(server: &ServerProcess, bound: Duration) -> Result<(), Problem> {
    let load = |model: &str, what: &str| {
        let requests = [post(&format!("/v1/models/{model}/predict"), &by_entity(1))];
        load_of(server, (model, what), &requests, (2, 1000), bound)
    };
    let (_, p99) = load("remembered", "an entity whose answer is remembered")?;
    let metrics = metrics(server.address)?;
    let count = |name: &str| {
        let name = format!("headwater_prediction_cache_{name}_total");
        sum(&metrics, &name, "model=\"remembered\"")
    };
    println!("  {} hits, {} misses", count("hits"), count("misses"));
    verdict("p99 ≤ 0.2 ms at the server", p99 <= 0.2);
    load(
        "remembered_unlogged",
        "the same without a log of predictions",
    )?;
    Ok(())
}
