//! The engine in process: the states alone, and facts through a durable engine, and its recovery.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use headwater::{Config, Engine, Env, Project, apply_project};
use headwater_aggregate::{Aggregate, EntityState, InputBatch, InputColumn, Layout, Slot};
use headwater_schema::{DataType, FactBatch, Problem};

const TAILS: usize = 4000;
const SECOND: i64 = 1_000_000;
const BATCH: usize = 1000;

/// A project with one view keyed by tail number: one exact 24 h window of count, sum, avg and max.
pub const PROJECT: [(&str, &str); 3] = [
    ("headwater.yaml", "name: bench\n"),
    (
        "contract.yaml",
        "kind: DataContract\napiVersion: v3.1.0\nid: bench\nversion: 1.0.0\nstatus: active\nschema:\n  - name: departure\n    properties:\n      - {name: id, logicalType: string, required: true}\n      - {name: tailnum, logicalType: string, required: true}\n      - {name: delay, logicalType: number}\n      - {name: time, logicalType: timestamp, required: true}\n    customProperties:\n      - {property: headwater.eventTime, value: time}\n      - {property: headwater.factId, value: id}\n      - {property: headwater.timeUnit, value: us}\n",
    ),
    (
        "features.yaml",
        "apiVersion: headwater/v1\nkind: Entity\nname: plane\nspec: {keys: [{name: tailnum, type: string}]}\n---\napiVersion: headwater/v1\nkind: FeatureView\nname: delays\nspec:\n  entity: plane\n  sources: [{contract: departure}]\n  features:\n    - {name: count, aggregate: count, windows: [1h, 2h, 4h, 8h, 12h, 24h, 2d, 3d, 5d, 7d]}\n    - {name: sum, aggregate: sum, of: delay, windows: [1h, 2h, 4h, 8h, 12h, 24h, 2d, 3d, 5d, 7d]}\n    - {name: avg, aggregate: avg, of: delay, windows: [1h, 2h, 4h, 8h, 12h, 24h, 2d, 3d, 5d, 7d]}\n    - {name: min, aggregate: min, of: delay, windows: [1h, 2h, 4h, 8h, 12h, 24h, 2d, 3d, 5d, 7d]}\n    - {name: max, aggregate: max, of: delay, windows: [1h, 2h, 4h, 8h, 12h, 24h, 2d, 3d, 5d, 7d]}\n---\napiVersion: headwater/v1\nkind: FeatureSet\nname: all\nspec: {features: ['delays.*']}\n",
    ),
];

/// Prints the engine's figures.
pub fn measure(facts: usize) -> Result<(), Problem> {
    states(facts);
    let folder = tempfile::tempdir()
        .map_err(|e| Problem::external("bench", "no temporary folder").detail(e))?;
    prepare(folder.path())?;
    durable(folder.path(), facts)?;
    reopened(folder.path())
}

/// Writes and applies the project.
pub fn prepare(folder: &Path) -> Result<(), Problem> {
    let env = Env::real();
    for (name, text) in PROJECT {
        let written = env.files.write_atomic(&folder.join(name), text.as_bytes());
        written
            .map_err(|e| Problem::external("bench", "the project can't be written").detail(e))?;
    }
    let first = |problems: Vec<Problem>| {
        problems
            .into_iter()
            .next()
            .unwrap_or_else(|| Problem::internal("bench", "refused"))
    };
    let project = Project::load(&env, folder).map_err(first)?;
    apply_project(&env, &project, &folder.join("data")).map_err(first)?;
    Ok(())
}

fn tail(fact: usize) -> usize {
    fact.wrapping_mul(2_654_435_761) % TAILS
}

/// States keyed by tail number, on one core: what the aggregation itself costs.
fn states(facts: usize) {
    let slot = |function: Aggregate| Slot {
        input: function.needs_input().then_some(0),
        ..Slot::new(function.slot_kind())
    };
    let layout = Layout {
        inputs: vec![DataType::Float64],
        slots: [Aggregate::Count, Aggregate::Sum, Aggregate::Max]
            .map(slot)
            .to_vec(),
        lifetime: false,
        rows_max: 0,
    };
    let delays: ArrayRef = Arc::new(
        (0..facts)
            .map(|i| Some((i % 180) as f64))
            .collect::<Float64Array>(),
    );
    let batch = InputBatch {
        event_times: (0..facts as i64).map(|i| i * SECOND).collect(),
        sequences: (1..=facts as u64).collect(),
        columns: vec![InputColumn::new(&delays)],
    };
    let mut states: Vec<EntityState> = (0..TAILS).map(|_| EntityState::new(&layout)).collect();
    let start = Instant::now();
    for fact in 0..facts {
        states[tail(fact)].insert(&layout, &batch, fact);
    }
    let seconds = start.elapsed().as_secs_f64();
    let bytes: usize = states.iter().map(EntityState::size_bytes).sum();
    println!(
        "states alone, one core: {:.0} facts/s; {:.1} bytes a fact in memory",
        facts as f64 / seconds,
        bytes as f64 / facts as f64
    );
}

fn batch(first: usize, count: usize) -> Result<FactBatch, Problem> {
    let ids: StringArray = (first..first + count)
        .map(|i| Some(format!("f{i}")))
        .collect();
    let tails: StringArray = (first..first + count)
        .map(|i| Some(format!("N{}", tail(i))))
        .collect();
    let delays: Float64Array = (first..first + count)
        .map(|i| Some((i % 180) as f64))
        .collect();
    let event_times: Vec<i64> = (first as i64..(first + count) as i64)
        .map(|i| i * SECOND)
        .collect();
    let times = TimestampMicrosecondArray::from(event_times.clone()).with_timezone("UTC");
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(ids.clone())),
        ("tailnum", Arc::new(tails)),
        ("delay", Arc::new(delays)),
        ("time", Arc::new(times)),
    ];
    let columns =
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true)));
    Ok(FactBatch {
        contract: "departure".into(),
        columns: columns.map_err(|e| Problem::internal("bench", "columns don't fit").detail(e))?,
        event_times,
        fact_ids: Some(ids),
        unknown_fields: None,
    })
}

/// Facts in batches of 1,000 through a durable engine with one shard.
fn durable(folder: &Path, facts: usize) -> Result<(), Problem> {
    let mut config = Config::named("bench");
    config.spec.state.shards = 1;
    let engine = Engine::open(Env::real(), &config, &folder.join("data"), |_, _| {})?;
    let batches: Vec<FactBatch> = (0..facts / BATCH)
        .map(|i| batch(i * BATCH, BATCH))
        .collect::<Result<_, _>>()?;
    let (permits, returned) = headwater_env::queue::bounded("bench", 64);
    for _ in 0..64 {
        let _ = permits.try_send(());
    }
    let start = Instant::now();
    for batch in batches {
        let _ = returned.recv();
        let permits = permits.clone();
        engine.submit_batch(batch, Box::new(move |_| drop(permits.try_send(()))));
    }
    for _ in 0..64 {
        let _ = returned.recv();
    }
    let seconds = start.elapsed().as_secs_f64();
    let stats = engine.facts_log().stats();
    println!(
        "durable engine, batches of {BATCH}: {:.0} facts/s; {:.1} bytes a fact in the log, {} syncs",
        facts as f64 / seconds,
        stats.bytes as f64 / facts as f64,
        stats.appends
    );
    // Dropped without a checkpoint, as a killed process leaves it.
    Ok(())
}

fn reopened(folder: &Path) -> Result<(), Problem> {
    let start = Instant::now();
    let engine = Engine::open(
        Env::real(),
        &Config::named("bench"),
        &folder.join("data"),
        |_, _| {},
    )?;
    println!(
        "recovery: serving again after {:.2} s, {} facts read again of {}",
        start.elapsed().as_secs_f64(),
        engine.report().replayed,
        engine.facts_log().stats().last_sequence
    );
    Ok(())
}
