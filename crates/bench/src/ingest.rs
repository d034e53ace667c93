//! Durable ingestion over HTTP, the client on the same cores: NDJSON batches, and facts one by one.

use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use headwater_schema::Problem;

use crate::client::{each_connection, request};
use crate::machine::spread;
use crate::server::ServerProcess;
use crate::{failed, shop};

pub const PATH: &str = "/v1/facts/departure";
pub const NDJSON: &str = "application/x-ndjson";
const BATCH: usize = 1000;
/// Connections that send batches.
const CONNECTIONS: usize = 4;

/// Prints facts a second in batches, and the latency of single facts beside the disk's own.
pub fn measure(seconds: u64) -> Result<(), Problem> {
    let folder = shop::folder()?;
    shop::prepare(folder.path(), shop::ONE_WINDOW)?;
    let server = ServerProcess::start(folder.path(), None)?;
    let bound = Duration::from_secs(seconds);
    let next = AtomicUsize::new(0);
    let start = Instant::now();
    let batches = each_connection(server.address, CONNECTIONS, |client| {
        let mut sent = 0;
        while start.elapsed() < bound {
            let first = next.fetch_add(BATCH, Ordering::Relaxed);
            client.call(&request(PATH, NDJSON, &shop::lines(first, BATCH)))?;
            sent += BATCH;
        }
        Ok(sent)
    })?;
    let facts: usize = batches.into_iter().sum();
    println!(
        "HTTP, NDJSON batches of {BATCH}, durable, {CONNECTIONS} connections, client on the same cores: {:.0} facts/s",
        facts as f64 / start.elapsed().as_secs_f64()
    );
    let mut syncs = sync_times(folder.path(), 500)?;
    println!(
        "the disk's own write and fdatasync of 4 KiB: {}",
        spread(&mut syncs)
    );
    for connections in [1, 8] {
        let start = Instant::now();
        let times = each_connection(server.address, connections, |client| {
            let mut times = Vec::new();
            while start.elapsed() < bound {
                let id = next.fetch_add(1, Ordering::Relaxed);
                let request = request(PATH, NDJSON, &shop::lines(id, 1));
                let sent = Instant::now();
                client.call(&request)?;
                times.push(sent.elapsed().as_secs_f64() * 1e3);
            }
            Ok(times)
        })?;
        let mut times: Vec<f64> = times.into_iter().flatten().collect();
        println!(
            "HTTP, one fact a request, durable, {connections} connections: {:.0}/s; {}",
            times.len() as f64 / start.elapsed().as_secs_f64(),
            spread(&mut times)
        );
    }
    Ok(())
}

/// Milliseconds that appending 4 KiB to a file and forcing it to the disk take.
fn sync_times(folder: &Path, count: usize) -> Result<Vec<f64>, Problem> {
    let mut file = std::fs::File::create(folder.join("sync")).map_err(failed)?;
    let once = |_| {
        let start = Instant::now();
        file.write_all(&[7; 4096])
            .and_then(|()| file.sync_data())
            .map_err(failed)?;
        Ok(start.elapsed().as_secs_f64() * 1e3)
    };
    (0..count).map(once).collect()
}
