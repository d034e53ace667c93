//! Reads over HTTP on loopback: alone, and while facts come in.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use headwater_schema::Problem;
use serde_json::json;

use crate::client::{Client, each_connection, get, request};
use crate::ingest::{NDJSON, PATH};
use crate::machine::{self, spread};
use crate::server::ServerProcess;
use crate::shop;

/// Facts that are there before the reads begin.
const FACTS: usize = 200_000;
/// Facts a second that come in while reads are measured, and how many one request brings.
const RATE: usize = 20_000;
const BATCH: usize = 200;
/// Reads a second that are asked for beside ingestion.
const READS: usize = 2000;

/// Prints the figures of each load.
pub fn measure(seconds: u64) -> Result<(), Problem> {
    let folder = shop::folder()?;
    shop::prepare(folder.path(), shop::TEN_WINDOWS)?;
    let bound = Duration::from_secs(seconds);
    let next = AtomicUsize::new(0);
    let server = ServerProcess::start(folder.path(), Some(0))?;
    fill(server.address, &next)?;
    for connections in [1, 4] {
        reads(
            server.address,
            connections,
            1,
            bound,
            "server on one core, client on the other",
        )?;
    }
    reads(
        server.address,
        1,
        100,
        bound,
        "server on one core, client on the other",
    )?;
    drop(server);
    let server = ServerProcess::start(folder.path(), None)?;
    beside_ingestion(server.address, &next, bound)
}

fn fill(address: SocketAddr, next: &AtomicUsize) -> Result<(), Problem> {
    let mut client = Client::connect(address)?;
    while next.load(Ordering::Relaxed) < FACTS {
        let first = next.fetch_add(1000, Ordering::Relaxed);
        client.call(&request(PATH, NDJSON, &shop::lines(first, 1000)))?;
    }
    Ok(())
}

/// A read of fifty features of some entities, at the end of the facts that are there.
fn read(seed: usize, entities: usize) -> Vec<u8> {
    let entity = |i: usize| json!({"tailnum": format!("N{}", (seed * 31 + i * 7) % shop::TAILS)});
    let entities: Vec<_> = (0..entities).map(entity).collect();
    let as_of = FACTS as i64 * shop::SECOND;
    let body = json!({"feature_set": "all", "entities": entities, "as_of": as_of});
    request("/v1/features", "application/json", &body.to_string())
}

/// Requests made beforehand: a load measures the server.
fn requests(entities: usize) -> Vec<Vec<u8>> {
    (0..256).map(|seed| read(seed, entities)).collect()
}

fn reads(
    address: SocketAddr,
    connections: usize,
    entities: usize,
    bound: Duration,
    how: &str,
) -> Result<(), Problem> {
    let requests = requests(entities);
    let start = Instant::now();
    let times = each_connection(address, connections, |client| {
        let mut times = Vec::new();
        while start.elapsed() < bound {
            let request = &requests[times.len() % requests.len()];
            let sent = Instant::now();
            client.call(request)?;
            times.push(sent.elapsed().as_secs_f64() * 1e3);
        }
        Ok(times)
    })?;
    let mut times: Vec<f64> = times.into_iter().flatten().collect();
    println!(
        "HTTP reads, {entities} × 50 features, {connections} connections, {how}: {:.0}/s; {}",
        times.len() as f64 / start.elapsed().as_secs_f64(),
        spread(&mut times)
    );
    Ok(())
}

/// Paced reads while facts come in at a steady rate. A read's time counts from when it was due, so
/// that one slow reply isn't hidden by the reads that waited behind it. A request that does nothing shows
/// how much of that time is waiting for a core, and not the server's work.
fn beside_ingestion(
    address: SocketAddr,
    next: &AtomicUsize,
    bound: Duration,
) -> Result<(), Problem> {
    machine::print_stalls();
    let loads = [
        (
            "what does nothing (GET /health/live)",
            READS,
            vec![get("/health/live")],
        ),
        ("1 × 50 features", READS, requests(1)),
        ("100 × 50 features", 50, requests(100)),
    ];
    for (what, reads_a_second, requests) in loads {
        let over = AtomicBool::new(false);
        let start = Instant::now();
        let before = next.load(Ordering::Relaxed);
        let mut times = std::thread::scope(|scope| {
            let sender = scope.spawn(|| ingest_steadily(address, next, &over));
            let times = paced_reads(address, &requests, reads_a_second, bound);
            over.store(true, Ordering::Relaxed);
            let sent = sender.join();
            sent.unwrap_or_else(|_| Err(crate::failed("the sender panicked")))?;
            times
        })?;
        println!(
            "HTTP reads, {what}, {reads_a_second}/s asked for while {:.0} facts/s come in, everything on the same cores: {}",
            (next.load(Ordering::Relaxed) - before) as f64 / start.elapsed().as_secs_f64(),
            spread(&mut times)
        );
    }
    Ok(())
}

fn paced_reads(
    address: SocketAddr,
    requests: &[Vec<u8>],
    reads_a_second: usize,
    bound: Duration,
) -> Result<Vec<f64>, Problem> {
    let mut client = Client::connect(address)?;
    let start = Instant::now();
    let mut times = Vec::new();
    while start.elapsed() < bound {
        let due = start + Duration::from_secs_f64(times.len() as f64 / reads_a_second as f64);
        wait_until(due);
        client.call(&requests[times.len() % requests.len()])?;
        times.push(due.elapsed().as_secs_f64() * 1e3);
    }
    Ok(times)
}

fn ingest_steadily(
    address: SocketAddr,
    next: &AtomicUsize,
    over: &AtomicBool,
) -> Result<(), Problem> {
    let mut client = Client::connect(address)?;
    let start = Instant::now();
    let mut batches = 0;
    while !over.load(Ordering::Relaxed) {
        wait_until(start + Duration::from_secs_f64((batches * BATCH) as f64 / RATE as f64));
        let first = next.fetch_add(BATCH, Ordering::Relaxed);
        client.call(&request(PATH, NDJSON, &shop::lines(first, BATCH)))?;
        batches += 1;
    }
    Ok(())
}

/// Sleeps until then, if it isn't past.
pub fn wait_until(due: Instant) {
    let now = Instant::now();
    if due > now {
        std::thread::sleep(due - now);
    }
}
