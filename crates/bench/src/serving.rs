//! Serving over HTTP on loopback: predictions by entity id, candidates, raw vectors beside MLServer, remembered answers.
//!
//! The model has 500 trees with 31 leaves over 50 features of three entities. Client and server share the machine. What the
//! server took is read from the predictions' facts (`latency_us`): from a request's arrival to its answer, without the wire.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use headwater::{Config, Env};
use headwater_api::backend::NewVersion;
use headwater_schema::Problem;
use serde_json::{Value as Json, json};

use crate::client::{Client, each_connection, get, request};
use crate::machine::spread;
use crate::server::ServerProcess;
use crate::{failed, shop};

const FACTS: usize = 200_000;
const CUSTOMERS: usize = 20_000;
const MERCHANTS: usize = 2_000;
const DEVICES: usize = 10_000;
/// Facts lie this far apart.
const APART: i64 = 2 * shop::SECOND;
/// Requests a second by entity id, and connections that they are spread over.
const RATE: usize = 2_000;
const CONNECTIONS: usize = 8;
/// Candidates of one request, and requests with candidates a second.
const CANDIDATES: usize = 100;
const RERANKS: usize = 50;
/// Predictions whose latency is looked at: the newest.
const LISTED: usize = 10_000;
/// A port below those that connections get.
const PEER_PORT: u16 = 18_471;

const CONTRACT: &str = "kind: DataContract
apiVersion: v3.1.0
id: bench
version: 1.0.0
status: active
schema:
  - name: payment
    properties:
      - {name: customer, logicalType: string, required: true}
      - {name: merchant, logicalType: string, required: true}
      - {name: device, logicalType: string, required: true}
      - {name: amount, logicalType: number}
      - {name: time, logicalType: timestamp, required: true}
    customProperties:
      - {property: headwater.eventTime, value: time}
      - {property: headwater.timeUnit, value: us}
";

/// A view of one entity; `LARGEST` are the windows of its last aggregate.
const VIEW: &str = "---
apiVersion: headwater/v1
kind: Entity
name: ENTITY
spec: {keys: [{name: ENTITY, type: string}]}
---
apiVersion: headwater/v1
kind: FeatureView
name: of_ENTITY
spec:
  entity: ENTITY
  sources: [{contract: payment}]
  features:
    - {name: count, aggregate: count, windows: [1h, 4h, 12h, 24h, 3d]}
    - {name: sum, aggregate: sum, of: amount, windows: [1h, 4h, 12h, 24h, 3d]}
    - {name: avg, aggregate: avg, of: amount, windows: [1h, 4h, 12h, 24h, 3d]}
    - {name: largest, aggregate: max, of: amount, windows: [LARGEST]}
";

const MODELS: &str = "---
apiVersion: headwater/v1
kind: FeatureSet
name: all
spec: {features: ['of_customer.*', 'of_merchant.*', 'of_device.*']}
---
apiVersion: headwater/v1
kind: Model
name: risk
spec: {feature_set: all, deadline: 1s}
---
apiVersion: headwater/v1
kind: Model
name: remembered
spec: {feature_set: all, deadline: 1s, cache: {}}
";

/// Prints the figures of each load.
pub fn measure(python: &str, seconds: u64) -> Result<(), Problem> {
    let folder = shop::folder()?;
    let peer = prepare(python, folder.path())?;
    let bound = Duration::from_secs(seconds);
    let server = ServerProcess::start(folder.path(), None)?;
    fill(server.address)?;
    paced(
        server.address,
        "what does nothing (GET /health/live)",
        bound,
        RATE,
        &[get("/health/live")],
        None,
    )?;
    let by_entity: Vec<_> = (0..256).map(by_entity).collect();
    paced(
        server.address,
        "by entity id, 50 features of 3 entities, 500 trees",
        bound,
        RATE,
        &by_entity,
        Some("risk"),
    )?;
    let reranks: Vec<_> = (0..64).map(candidates).collect();
    let what = format!("{CANDIDATES} candidates of one request");
    paced(
        server.address,
        &what,
        bound,
        RERANKS,
        &reranks,
        Some("risk"),
    )?;
    let remembered = [predict("remembered", &json!({"vectors": [vector(1)]}))];
    paced(
        server.address,
        "a remembered answer",
        bound,
        RATE,
        &remembered,
        Some("remembered"),
    )?;
    let own = vectors(server.address, "Headwater", bound)?;
    drop(server);
    match peer {
        None => println!(
            "MLServer isn't installed where `--python` says: raw vectors are measured alone"
        ),
        Some(version) => {
            let mlserver = Peer::start(python, folder.path())?;
            let theirs = vectors(mlserver.address, &format!("MLServer {version}"), bound)?;
            println!(
                "raw vectors over REST: {:.1} times as many requests a second as MLServer",
                own / theirs
            );
        }
    }
    Ok(())
}

/// A project with its model, live under two names; the version of MLServer, where there is one.
fn prepare(python: &str, folder: &Path) -> Result<Option<String>, Problem> {
    let env = Env::real();
    let view =
        |entity: &str, largest: &str| VIEW.replace("ENTITY", entity).replace("LARGEST", largest);
    let views = ["customer", "merchant"].map(|entity| view(entity, "24h, 3d"));
    let features = views.concat() + &view("device", "24h") + MODELS;
    let files = [
        ("headwater.yaml", "name: bench\n"),
        ("contract.yaml", CONTRACT),
        ("features.yaml", features.trim_start_matches("---\n")),
    ];
    for (name, text) in files {
        let written = env.files.write_atomic(&folder.join(name), text.as_bytes());
        written.map_err(failed)?;
    }
    shop::apply(&env, folder, &folder.join("data"))?;
    let engine = shop::open(folder, &Config::named("bench"))?;
    let catalog = engine.catalog();
    let set = catalog.model("risk")?.set.clone();
    let names: Vec<&str> = set.full_names().map(AsRef::as_ref).collect();
    if names.len() != 50 {
        return Err(failed(format!("{} features", names.len())));
    }
    let trained = Command::new(python)
        .args(["-W", "ignore", "-c", include_str!("serving.py")])
        .arg(folder)
        .arg(PEER_PORT.to_string())
        .args(&names)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| failed(format!("{python}: {e}")))?;
    if !trained.status.success() {
        return Err(failed("the script that trains the model failed")
            .hint("give `--python` an interpreter that has lightgbm and numpy, and mlserver with mlserver-lightgbm to compare with"));
    }
    let file = env.files.read(&folder.join("model.txt")).map_err(failed)?;
    let live = NewVersion {
        aliases: vec!["live".to_owned()],
        ..NewVersion::default()
    };
    for model in ["risk", "remembered"] {
        engine.add_model(model, file.clone(), &live)?;
    }
    engine.close()?;
    let version = String::from_utf8_lossy(&trained.stdout).trim().to_owned();
    Ok((!version.is_empty()).then_some(version))
}

fn keys(seed: usize) -> (String, String, String) {
    let scattered =
        |keys: usize, salt: usize| seed.wrapping_mul(2_654_435_761).wrapping_add(salt) % keys;
    (
        format!("c{}", scattered(CUSTOMERS, 1)),
        format!("m{}", scattered(MERCHANTS, 7)),
        format!("d{}", scattered(DEVICES, 3)),
    )
}

/// Payments up to now.
fn fill(address: SocketAddr) -> Result<(), Problem> {
    use std::fmt::Write;
    let mut client = Client::connect(address)?;
    let now = Env::real().clock.now();
    for first in (0..FACTS).step_by(1000) {
        let mut lines = String::new();
        for fact in first..first + 1000 {
            let (customer, merchant, device) = keys(fact);
            let time = now - (FACTS - fact) as i64 * APART;
            let amount = shop::delay(fact);
            let _ = writeln!(
                lines,
                "{{\"customer\":\"{customer}\",\"merchant\":\"{merchant}\",\"device\":\"{device}\",\"amount\":{amount},\"time\":{time}}}"
            );
        }
        client.call(&request(
            "/v1/facts/payment",
            "application/x-ndjson",
            &lines,
        ))?;
    }
    Ok(())
}

fn predict(model: &str, body: &Json) -> Vec<u8> {
    let path = format!("/v1/models/{model}/predict");
    request(&path, "application/json", &body.to_string())
}

fn by_entity(seed: usize) -> Vec<u8> {
    let (customer, merchant, device) = keys(seed * 31);
    let entities = json!([{"customer": customer, "merchant": merchant, "device": device}]);
    predict("risk", &json!({ "entities": entities }))
}

fn candidates(seed: usize) -> Vec<u8> {
    let (customer, _, device) = keys(seed * 31);
    let ids: Vec<String> = (0..CANDIDATES).map(|i| keys(seed * 31 + i).1).collect();
    let entities = json!([{"customer": customer, "device": device}]);
    predict(
        "risk",
        &json!({"entities": entities, "candidates": {"entity": "merchant", "ids": ids}}),
    )
}

fn vector(seed: usize) -> Vec<f64> {
    (0..50)
        .map(|i| ((seed * 37 + i * 101) % 1000) as f64 / 10.0)
        .collect()
}

/// Requests at a steady rate over some connections, whatever becomes of them. Their times count from when they were due.
fn paced(
    address: SocketAddr,
    what: &str,
    bound: Duration,
    rate: usize,
    requests: &[Vec<u8>],
    model: Option<&str>,
) -> Result<(), Problem> {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let start = Instant::now();
    let times = each_connection(address, CONNECTIONS, |client| {
        let mut times = Vec::new();
        loop {
            let turn = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let due = Duration::from_secs_f64(turn as f64 / rate as f64);
            if due > bound {
                return Ok(times);
            }
            let due = start + due;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            client.call(&requests[turn % requests.len()])?;
            times.push(due.elapsed().as_secs_f64() * 1e3);
        }
    })?;
    let took = start.elapsed().as_secs_f64();
    let mut times: Vec<f64> = times.into_iter().flatten().collect();
    println!(
        "{what}: {rate}/s asked for, {:.0}/s answered; client {}",
        times.len() as f64 / took,
        spread(&mut times)
    );
    if let Some(model) = model {
        println!("  server {}", spread(&mut latencies(address, model)?));
    }
    Ok(())
}

/// What the server took for the newest requests for a model, in milliseconds.
fn latencies(address: SocketAddr, model: &str) -> Result<Vec<f64>, Problem> {
    // The log of predictions follows behind.
    std::thread::sleep(Duration::from_secs(2));
    let mut client = Client::connect(address)?;
    let reply = client.call(&get(&format!("/v1/facts/prediction?limit={LISTED}")))?;
    let reply: Json = serde_json::from_slice(reply).map_err(failed)?;
    let facts = reply["facts"].as_array().into_iter().flatten();
    let facts = facts.map(|f| &f["fact"]);
    let own = facts.filter(|f| f["model"] == model && f["row"] == 0 && f["degraded"].is_null());
    let times: Vec<f64> = own
        .filter_map(|f| Some(f["latency_us"].as_f64()? / 1e3))
        .collect();
    match times.is_empty() {
        true => Err(failed("no predictions were kept")),
        false => Ok(times),
    }
}

/// Requests of one raw vector, as many as four connections bring; how many a second.
fn vectors(address: SocketAddr, who: &str, bound: Duration) -> Result<f64, Problem> {
    let body = |seed: usize| {
        let input =
            json!({"name": "x", "shape": [1, 50], "datatype": "FP64", "data": vector(seed)});
        let body = json!({ "inputs": [input] });
        request(
            "/v2/models/risk/infer",
            "application/json",
            &body.to_string(),
        )
    };
    let requests: Vec<_> = (0..256).map(body).collect();
    let start = Instant::now();
    let times = each_connection(address, 4, |client| {
        let mut times = Vec::new();
        while start.elapsed() < bound {
            let sent = Instant::now();
            client.call(&requests[times.len() % requests.len()])?;
            times.push(sent.elapsed().as_secs_f64() * 1e3);
        }
        Ok(times)
    })?;
    let mut times: Vec<f64> = times.into_iter().flatten().collect();
    let rate = times.len() as f64 / start.elapsed().as_secs_f64();
    println!(
        "raw vectors over REST, one row, 4 connections, {who}: {rate:.0}/s; {}",
        spread(&mut times)
    );
    Ok(rate)
}

/// MLServer with the same model, one process; killed when it is dropped.
struct Peer {
    child: Child,
    address: SocketAddr,
}

impl Peer {
    fn start(python: &str, folder: &Path) -> Result<Self, Problem> {
        let folder = folder.join("mlserver");
        let log = std::fs::File::create(folder.join("log")).map_err(failed)?;
        let command = "import sys; from mlserver.cli import main; sys.argv = ['mlserver', 'start', '.']; main()";
        let child = Command::new(python)
            .args(["-W", "ignore", "-c", command])
            .current_dir(&folder)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(failed)?;
        let peer = Self {
            child,
            address: SocketAddr::from(([127, 0, 0, 1], PEER_PORT)),
        };
        for _ in 0..600 {
            let ready = Client::connect(peer.address)
                .and_then(|mut client| client.call(&get("/v2/models/risk/ready")).map(drop));
            if ready.is_ok() {
                return Ok(peer);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let said = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
        Err(failed(format!("MLServer doesn't get ready: {said}")))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
