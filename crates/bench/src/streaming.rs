//! A model that scores facts as they arrive: how many a second from their ingestion to the log of predictions, and how long
//! after its acknowledgement a fact's prediction is pushed to a subscriber by server-sent events.
//!
//! Facts, features and model are those of `serving`: each purchase is scored by 500 trees of 31 leaves over fifty features of
//! its user, item and place, and counts in them. The server is a process of its own on loopback; the client shares its cores.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use headwater::{Config, Env};
use headwater_api::backend::NewVersion;
use headwater_schema::Problem;
use serde_json::Value as Json;

use crate::client::{each_connection, request};
use crate::http::wait_until;
use crate::ingest::NDJSON;
use crate::machine::spread;
use crate::server::ServerProcess;
use crate::serving::{FACTS, fact, metrics, prepare, sum};
use crate::{failed, shop};

/// Facts that come as fast as they are taken, and how many one request brings.
const BURST: usize = 50_000;
const BATCH: usize = 1000;
const CONNECTIONS: usize = 4;
/// Facts a second, one in each request, whose predictions are waited for one by one.
const RATE: usize = 500;
const PATH: &str = "/v1/facts/purchase";
const MODEL_NAME: &str = "streamed";
/// Added when the facts that it is trained with are there already: it scores those that come after.
const MODEL: &str = "apiVersion: headwater/v1
kind: Model
name: streamed
spec: {feature_set: all, on: purchase}
";
/// How long predictions are waited for once their facts have been sent.
const WAIT_MAX: Duration = Duration::from_secs(300);
/// How often it is asked how many there are: seldom, because being asked takes the server's core.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Prints the throughput of a burst and the delay at a modest rate.
pub fn measure(seconds: u64, python: &str) -> Result<(), Problem> {
    let folder = shop::folder()?;
    prepare(folder.path(), python)?;
    add_model(folder.path())?;
    let server = ServerProcess::start(folder.path(), None)?;
    let sent = burst(server.address)?;
    delays(server.address, sent, Duration::from_secs(seconds))?;
    let metrics = metrics(server.address)?;
    for name in ["skipped", "degraded", "failures", "repeated"] {
        println!("  {name} {:.0}", counted(&metrics, name));
    }
    Ok(())
}

/// The model that scores what arrives from now on.
fn add_model(folder: &Path) -> Result<(), Problem> {
    let env = Env::real();
    let declared = folder.join("streamed.yaml");
    let written = env.files.write_atomic(&declared, MODEL.as_bytes());
    written.map_err(failed)?;
    shop::apply(&env, folder, &folder.join("data"))?;
    let file = std::fs::read(folder.join("model.txt")).map_err(failed)?;
    let live = NewVersion {
        aliases: vec!["live".to_owned()],
        ..NewVersion::default()
    };
    let engine = shop::open(folder, &Config::named("bench"))?;
    engine.add_model(MODEL_NAME, file, &live)?;
    engine.close()
}

/// What is counted of the stream.
fn counted(metrics: &str, name: &str) -> f64 {
    let name = format!("headwater_prediction_stream_{name}_total");
    sum(metrics, &name, &format!("model=\"{MODEL_NAME}\""))
}

/// Facts that happen now, as lines.
fn lines(first: usize, count: usize, now: i64) -> String {
    (first..first + count).map(|i| fact(i, now)).collect()
}

/// Sends facts as fast as they are taken, and waits until all are scored. How many have been scored then.
fn burst(address: SocketAddr) -> Result<usize, Problem> {
    let clock = Env::real().clock;
    let next = AtomicUsize::new(0);
    let start = Instant::now();
    each_connection(address, CONNECTIONS, |client| {
        loop {
            let first = next.fetch_add(BATCH, Ordering::Relaxed);
            if first >= BURST {
                return Ok(());
            }
            let lines = lines(FACTS + first, BATCH, clock.now());
            client.call(&request(PATH, NDJSON, &lines))?;
        }
    })?;
    let taken = start.elapsed().as_secs_f64();
    let behind = BURST as f64 - counted(&metrics(address)?, "written");
    wait_for(address, BURST)?;
    let scored = start.elapsed().as_secs_f64();
    println!(
        "{BURST} facts in batches of {BATCH} over {CONNECTIONS} connections, durable: all taken after {taken:.2} s, {:.0} facts/s, {behind:.0} of them not scored then",
        BURST as f64 / taken
    );
    println!(
        "  from the first of them to the last prediction in the log, durable: {scored:.2} s, {:.0} facts/s",
        BURST as f64 / scored
    );
    Ok(BURST)
}

/// Waits until so many predictions are in the log.
fn wait_for(address: SocketAddr, wanted: usize) -> Result<(), Problem> {
    let start = Instant::now();
    loop {
        let metrics = metrics(address)?;
        let written = counted(&metrics, "written");
        if written >= wanted as f64 {
            return Ok(());
        }
        if start.elapsed() > WAIT_MAX {
            let skipped = counted(&metrics, "skipped");
            return Err(failed(format!(
                "{written:.0} of {wanted} facts are scored, {skipped:.0} left out"
            )));
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// A fact that was sent: when, and when it was acknowledged.
struct Sent {
    fact: usize,
    sent: Instant,
    acknowledged: Instant,
}

/// Sends facts one by one at a steady rate, and hears of their predictions.
fn delays(address: SocketAddr, before: usize, bound: Duration) -> Result<(), Problem> {
    let count = RATE * bound.as_secs() as usize;
    let first = FACTS + before;
    let subscriber = Subscriber::open(address)?;
    let (sent, heard) = std::thread::scope(|scope| {
        let until = Instant::now() + bound + WAIT_MAX;
        let heard = scope.spawn(move || subscriber.hear(count, until));
        let sent = send(address, first, count);
        let heard = heard.join();
        let heard = heard.unwrap_or_else(|_| Err(failed("the subscriber's thread panicked")));
        Ok::<_, Problem>((sent?, heard?))
    })?;
    let ms = |from: Instant, to: Instant| {
        // A prediction may be pushed before its fact's acknowledgement has come to the client.
        let (later, earlier) = (
            to.saturating_duration_since(from),
            from.saturating_duration_since(to),
        );
        (later.as_secs_f64() - earlier.as_secs_f64()) * 1e3
    };
    let (mut acknowledged, mut pushed, mut whole) = (Vec::new(), Vec::new(), Vec::new());
    for one in &sent {
        let at = heard.get(&one.fact).copied();
        let at = at.ok_or_else(|| failed("a prediction wasn't pushed"))?;
        acknowledged.push(ms(one.sent, one.acknowledged));
        pushed.push(ms(one.acknowledged, at));
        whole.push(ms(one.sent, at));
    }
    println!(
        "{RATE} facts/s, one a request over {CONNECTIONS} connections, durable, {} of them, a subscriber to server-sent events",
        sent.len()
    );
    for (what, times) in [
        ("sent to acknowledged", &mut acknowledged),
        ("acknowledged to prediction pushed", &mut pushed),
        ("sent to prediction pushed", &mut whole),
    ] {
        println!("  {what}: {}", spread(times));
    }
    Ok(())
}

/// Sends so many facts, each when it is due.
fn send(address: SocketAddr, first: usize, count: usize) -> Result<Vec<Sent>, Problem> {
    let clock = Env::real().clock;
    let next = AtomicUsize::new(0);
    let start = Instant::now();
    let sent = each_connection(address, CONNECTIONS, |client| {
        let mut all = Vec::new();
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            if place >= count {
                return Ok(all);
            }
            wait_until(start + Duration::from_secs_f64(place as f64 / RATE as f64));
            let asked = request(PATH, NDJSON, &lines(first + place, 1, clock.now()));
            let sent = Instant::now();
            client.call(&asked)?;
            all.push(Sent {
                fact: first + place,
                sent,
                acknowledged: Instant::now(),
            });
        }
    })?;
    Ok(sent.into_iter().flatten().collect())
}

/// Somebody who hears of predictions.
struct Subscriber {
    lines: BufReader<TcpStream>,
}

impl Subscriber {
    /// Subscribes; what is written from now on is heard of.
    fn open(address: SocketAddr) -> Result<Self, Problem> {
        let mut stream = TcpStream::connect(address).map_err(failed)?;
        let patience = Some(Duration::from_secs(60));
        stream.set_read_timeout(patience).map_err(failed)?;
        // HTTP/1.0: the events aren't cut into chunks.
        let head =
            format!("GET /v1/models/{MODEL_NAME}/predictions HTTP/1.0\r\nhost: bench\r\n\r\n");
        stream.write_all(head.as_bytes()).map_err(failed)?;
        let mut subscriber = Self {
            lines: BufReader::new(stream),
        };
        let status = subscriber.line()?;
        if !status.contains(" 200 ") {
            return Err(failed(status));
        }
        // Behind the head it is told where it begins.
        while !subscriber.line()?.starts_with("id: ") {}
        Ok(subscriber)
    }

    fn line(&mut self) -> Result<String, Problem> {
        let mut line = String::new();
        match self.lines.read_line(&mut line).map_err(failed)? {
            0 => Err(failed("the stream of predictions has ended")),
            _ => Ok(line),
        }
    }

    /// Hears of so many predictions: when that of each fact came.
    fn hear(mut self, count: usize, until: Instant) -> Result<BTreeMap<usize, Instant>, Problem> {
        let mut heard = BTreeMap::new();
        while heard.len() < count {
            // Comments come where nothing else does, so a line is never waited for for long.
            let line = self.line()?;
            let now = Instant::now();
            if now > until {
                return Err(failed(format!(
                    "{} of {count} predictions came",
                    heard.len()
                )));
            }
            let Some(data) = line.strip_prefix("data: ") else {
                continue;
            };
            let event: Json = serde_json::from_str(data).map_err(failed)?;
            let of = event["fact"]["on_fact_id"].as_str();
            let of = of.and_then(|id| id.strip_prefix('f')?.parse::<usize>().ok());
            // The last event of a stream that is cut off is of no fact.
            let of = of.ok_or_else(|| failed(&event))?;
            heard.insert(of, now);
        }
        Ok(heard)
    }
}
