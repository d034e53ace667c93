//! Loads over HTTP on loopback: reads of 50 features, single durable posts, batches.

use std::sync::Arc;
use std::time::{Duration, Instant};

use headwater::{Config, Engine, Env};
use headwater_api::{Backend, Server};
use headwater_schema::Problem;
use serde_json::json;

use crate::{engine, percentile};

const FACTS: usize = 100_000;
const SECOND: usize = 1_000_000;

/// Prints the figures of each load.
pub fn measure(seconds: u64, connections: usize) -> Result<(), Problem> {
    let failed = |e: std::io::Error| Problem::external("bench", "the bench can't run").detail(e);
    let folder = tempfile::tempdir().map_err(failed)?;
    engine::prepare(folder.path())?;
    let config = Config::named("bench");
    let engine = Arc::new(Engine::open(
        Env::real(),
        &config,
        &folder.path().join("data"),
        |_, _| {},
    )?);
    let runtime = tokio::runtime::Runtime::new().map_err(failed)?;
    let backend: Arc<dyn Backend> = engine;
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let server = runtime.block_on(Server::bind(address, backend, config.spec.limits))?;
    let url = format!("http://{}", server.address());
    runtime.spawn(server.run(std::future::pending()));
    let mut next = 0;
    let start = Instant::now();
    while next < FACTS {
        post(&agent(), &url, &lines(&mut next, 1000));
    }
    println!(
        "HTTP, one connection, NDJSON batches of 1,000, durable: {:.0} facts/s",
        FACTS as f64 / start.elapsed().as_secs_f64()
    );
    let bound = Duration::from_secs(seconds);
    load(
        "HTTP reads, 1 entity × 50 features",
        connections,
        bound,
        |agent, i| {
            let body = json!({"feature_set": "all", "entities": [{"tailnum": format!("N{}", i % 4000)}], "as_of": FACTS * SECOND});
            let sent = agent
                .post(format!("{url}/v1/features"))
                .content_type("application/json")
                .send(body.to_string());
            drop(sent.and_then(|mut reply| reply.body_mut().read_to_vec()));
        },
    );
    load(
        "HTTP posts of one fact, durable",
        connections,
        bound,
        |agent, i| {
            let mut id = FACTS + i;
            post(agent, &url, &lines(&mut id, 1));
        },
    );
    Ok(())
}

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(30)))
        .no_delay(true);
    config.build().into()
}

fn lines(next: &mut usize, count: usize) -> String {
    let first = *next;
    *next += count;
    let line = |i: usize| {
        let tail = i.wrapping_mul(2_654_435_761) % 4000;
        format!(
            "{{\"id\":\"h{i}\",\"tailnum\":\"N{tail}\",\"delay\":{}.5,\"time\":{}}}\n",
            i % 180,
            i * SECOND
        )
    };
    (first..first + count).map(line).collect()
}

fn post(agent: &ureq::Agent, url: &str, body: &str) {
    let sent = agent
        .post(format!("{url}/v1/facts/departure"))
        .content_type("application/x-ndjson")
        .send(body);
    drop(sent.and_then(|mut reply| reply.body_mut().read_to_vec()));
}

/// Calls in a loop on some connections until the time is up, and prints how many and how long they took.
fn load(
    name: &str,
    connections: usize,
    bound: Duration,
    call: impl Fn(&ureq::Agent, usize) + Sync,
) {
    let start = Instant::now();
    let call = &call;
    let one = move |connection: usize| {
        let agent = agent();
        let mut times = Vec::new();
        while start.elapsed() < bound {
            let sent = Instant::now();
            call(&agent, times.len() * connections + connection);
            times.push(sent.elapsed().as_secs_f64() * 1e3);
        }
        times
    };
    let mut times: Vec<f64> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..connections)
            .map(|c| scope.spawn(move || one(c)))
            .collect();
        threads
            .into_iter()
            .flat_map(|t| t.join().unwrap_or_default())
            .collect()
    });
    times.sort_by(f64::total_cmp);
    println!(
        "{name}, {connections} connections, client on the same cores: {:.0}/s; ms p50 {:.2}, p99 {:.2}, p99.9 {:.2}, worst {:.1}",
        times.len() as f64 / start.elapsed().as_secs_f64(),
        percentile(&times, 0.5),
        percentile(&times, 0.99),
        percentile(&times, 0.999),
        percentile(&times, 1.0)
    );
}
