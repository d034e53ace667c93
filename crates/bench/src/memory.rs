//! State: a million entities with ten windows in memory, and a state ten times its memory budget.

use std::time::Instant;

use headwater::{Config, Engine};
use headwater_api::backend::{EntityRequest, FeaturesRequest, KeyValue, Names};
use headwater_schema::{Problem, Value};

use crate::machine::{resident_bytes, spread};
use crate::shop;

const ENTITIES: usize = 1_000_000;
const FACTS: usize = 5_000_000;
const WINDOWS: usize = 10;
const BATCH: usize = 10_000;
const READS: usize = 200_000;

/// Prints bytes of memory, and the latency of reads within and beyond the budget.
pub fn measure() -> Result<(), Problem> {
    let folder = shop::folder()?;
    shop::prepare(folder.path(), shop::TEN_WINDOWS)?;
    let mut config = Config::named("bench");
    config.spec.state.memory_bytes_max = 4 << 30;
    config.spec.state.checkpoint_facts = u64::MAX;
    config.spec.ingest.sync = headwater::Sync::Never;
    let engine = shop::open(folder.path(), &config)?;
    let before = resident_bytes("self");
    let facts = (0..FACTS / BATCH).map(|i| shop::batch(i * BATCH, BATCH, ENTITIES));
    shop::ingest(&engine, facts)?;
    let resident = resident_bytes("self").saturating_sub(before);
    let stats = engine.processor_stats();
    let bytes: u64 = stats.views.iter().map(|v| v.bytes_in_memory).sum();
    let entities: u64 = stats.views.iter().map(|v| v.entities_in_memory).sum();
    println!(
        "{entities} entities, {WINDOWS} windows of 5 aggregates, {FACTS} facts: states {:.2} GB ({:.0} bytes a fact, {:.0} an entity and window); the process grew by {:.2} GB with the log's index",
        bytes as f64 / 1e9,
        bytes as f64 / FACTS as f64,
        bytes as f64 / (entities * WINDOWS as u64) as f64,
        resident as f64 / 1e9
    );
    println!(
        "reads of 50 features, all in memory, in process: {}",
        spread(&mut reads(&engine)?)
    );
    let budget = bytes as usize / 10;
    engine.close()?;
    config.spec.state.memory_bytes_max = budget;
    let engine = shop::open(folder.path(), &config)?;
    let mut times = reads(&engine)?;
    let stats = engine.processor_stats();
    println!(
        "the same with a tenth of that memory ({:.0} MB, {} of the reads from disk): {}",
        budget as f64 / 1e6,
        stats.views.iter().map(|v| v.loads).sum::<u64>(),
        spread(&mut times)
    );
    Ok(())
}

/// Milliseconds that reads of scattered entities take.
fn reads(engine: &Engine) -> Result<Vec<f64>, Problem> {
    let one = |i: usize| {
        let key = format!("N{}", shop::tail(i * 7919 + 1, ENTITIES));
        let request = FeaturesRequest {
            names: Names::Set("all".into()),
            entities: vec![EntityRequest::from([(
                "plane".to_owned(),
                KeyValue::Scalar(Value::string(key)),
            )])],
            as_of: Some(FACTS as i64 * shop::SECOND),
            known_at: None,
            context: Vec::new(),
            inclusive: true,
            lenient: false,
        };
        let start = Instant::now();
        engine.features(&request)?;
        Ok(start.elapsed().as_secs_f64() * 1e3)
    };
    (0..READS).map(one).collect()
}
