//! How long a server takes to answer again after SIGKILL.

use std::time::Instant;

use headwater::Config;
use headwater_schema::Problem;
use serde_json::json;

use crate::client::{Client, request};
use crate::ingest::{NDJSON, PATH};
use crate::server::ServerProcess;
use crate::shop;

const BATCH: usize = 10_000;

/// Fills a log, kills the server that appends to it, and prints how long the next one takes.
pub fn measure(facts: usize) -> Result<(), Problem> {
    let folder = shop::folder()?;
    shop::prepare(folder.path(), shop::ONE_WINDOW)?;
    let config = Config::named("bench");
    let engine = shop::open(folder.path(), &config)?;
    let start = Instant::now();
    let batches = (0..facts / BATCH).map(|i| shop::batch(i * BATCH, BATCH, shop::TAILS));
    shop::ingest(&engine, batches)?;
    println!(
        "filling the log, durable, batches of {BATCH}: {:.0} facts/s",
        facts as f64 / start.elapsed().as_secs_f64()
    );
    // Dropped without a checkpoint, as a killed process leaves it; then killed for real under way.
    drop(engine);
    let server = ServerProcess::start(folder.path(), None)?;
    let mut client = Client::connect(server.address)?;
    for i in 0..10 {
        client.call(&request(PATH, NDJSON, &shop::lines(facts + i * 1000, 1000)))?;
    }
    server.kill()?;
    let start = Instant::now();
    let server = ServerProcess::start(folder.path(), None)?;
    let mut client = Client::connect(server.address)?;
    let body = json!({"feature_set": "all", "entities": [{"tailnum": "N1"}]});
    client.call(&request(
        "/v1/features",
        "application/json",
        &body.to_string(),
    ))?;
    println!(
        "serving again after SIGKILL with {facts} facts in the log: {:.2} s to the first answer; {:.0} MB resident",
        start.elapsed().as_secs_f64(),
        server.resident_bytes() as f64 / 1e6
    );
    Ok(())
}
