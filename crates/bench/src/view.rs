//! One view keyed by tail number, one exact 24 h window of count, sum, average and maximum, on one core:
//! what the stream processor costs, with and without an answer for every fact.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use headwater::Env;
use headwater_facts::{EmbeddedFactLog, FactLog, FactLogOptions};
use headwater_features::{Catalog, MemoryFeatureStore, ReadPlan};
use headwater_schema::decode::{BodyFormat, DecodeLimits, decode_each};
use headwater_schema::yaml::YamlDocument;
use headwater_schema::{Cursor, EntityKey, FactBatch, Position, Problem, SequencedBatch, Value};
use headwater_stream::{Processor, ProcessorOptions};

use crate::machine::{on_core, percentile};
use crate::{failed, shop};

/// Facts handed over together.
const BATCH: usize = 1000;
const RUNS: usize = 5;

const VIEW: &str = "apiVersion: headwater/v1
kind: Entity
name: plane
spec: {keys: [{name: tailnum, type: string}]}
---
apiVersion: headwater/v1
kind: FeatureView
name: delays
spec:
  entity: plane
  sources: [{contract: departure}]
  features:
    - {name: count, aggregate: count, windows: [24h]}
    - {name: sum, aggregate: sum, of: dep_delay, windows: [24h]}
    - {name: avg, aggregate: avg, of: dep_delay, windows: [24h]}
    - {name: max, aggregate: max, of: dep_delay, windows: [24h]}
";

/// Prints how many departures a second one core takes.
pub fn measure() -> Result<(), Problem> {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/flights");
    let env = Env::real();
    let contracts = env
        .files
        .read(&example.join("contracts/flights.yaml"))
        .map_err(failed)?;
    let text = String::from_utf8_lossy(&contracts).into_owned() + "\n---\n" + VIEW;
    let documents = YamlDocument::parse_all("bench.yaml", &text)?;
    let first = |mut problems: Vec<Problem>| problems.swap_remove(0);
    let catalog = Arc::new(Catalog::compile(&documents).map_err(first)?);
    let batches = departures(&env, &catalog, &example)?;
    let facts: usize = batches.iter().map(|b| b.batch.len()).sum();
    for answered in [false, true] {
        let mut rates = Vec::with_capacity(RUNS);
        for _ in 0..RUNS {
            let seconds = on_core(0, || run(&env, &catalog, &batches, answered))?;
            rates.push(facts as f64 / seconds);
        }
        rates.sort_by(f64::total_cmp);
        println!(
            "one view, one exact 24 h window (count, sum, avg, max), one core, {facts} departures in batches of {BATCH}{}: {:.0} facts/s (median of {RUNS})",
            if answered {
                ", the window read at every fact"
            } else {
                ""
            },
            percentile(&rates, 0.5)
        );
    }
    Ok(())
}

/// A year of departures in event order, in batches.
fn departures(
    env: &Env,
    catalog: &Catalog,
    example: &Path,
) -> Result<Vec<SequencedBatch>, Problem> {
    let contract = catalog
        .contract("departure")
        .ok_or_else(|| failed("the example has no departures"))?;
    let bytes = env
        .files
        .read(&example.join("data/departure.parquet"))
        .map_err(failed)?;
    let mut batches: Vec<SequencedBatch> = Vec::new();
    let mut next = 1;
    let limits = DecodeLimits::files();
    decode_each(
        contract,
        BodyFormat::Parquet,
        &bytes,
        &limits,
        BATCH,
        &mut |decoded| {
            let batch: FactBatch = decoded.batch;
            let sequenced = SequencedBatch {
                first_sequence: next,
                ingest_time: i64::MAX,
                batch,
                removed: Vec::new(),
            };
            next = sequenced.last_sequence() + 1;
            batches.push(sequenced);
            Ok(())
        },
    )?;
    Ok(batches)
}

fn run(
    env: &Env,
    catalog: &Arc<Catalog>,
    batches: &[SequencedBatch],
    answered: bool,
) -> Result<f64, Problem> {
    let folder = shop::folder()?;
    let (log, _) =
        EmbeddedFactLog::open(env, folder.path(), FactLogOptions::default(), Vec::new())?;
    let log: Arc<dyn FactLog> = Arc::new(log);
    let options = ProcessorOptions {
        shards: 1,
        checkpoint_facts: u64::MAX,
        ..ProcessorOptions::default()
    };
    let store = Arc::new(MemoryFeatureStore::default());
    let processor = Processor::open(catalog.clone(), log, store, options)?;
    let served = processor
        .in_force()
        .view("delays")
        .cloned()
        .ok_or_else(|| failed("the view is missing"))?;
    let compiled = served.view().clone();
    let plan = ReadPlan::new(compiled.clone(), (0..compiled.features.len()).collect());
    let keys = keys(batches)?;
    let start = Instant::now();
    let mut checked = 0usize;
    for (batch, keys) in batches.iter().zip(&keys) {
        processor.apply(batch)?;
        if answered {
            for (row, key) in keys.iter().enumerate() {
                let Some(key) = key else { continue };
                let sequence = batch.first_sequence + row as u64;
                let time = batch.batch.event_times[row];
                let cursor = Cursor {
                    as_of: time,
                    until: Position::new(time, sequence + 1),
                    known_at: sequence,
                };
                let outcomes = processor.read(&served, &plan, key, &cursor)?;
                checked += usize::from(!outcomes[0].value.is_null());
            }
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    if answered && checked == 0 {
        return Err(failed("no window had a value"));
    }
    Ok(seconds)
}

/// The entity of each fact, made beforehand.
fn keys(batches: &[SequencedBatch]) -> Result<Vec<Vec<Option<EntityKey>>>, Problem> {
    let of = |batch: &SequencedBatch| {
        let tails = batch
            .batch
            .columns
            .column_by_name("tailnum")
            .ok_or_else(|| failed("departures have no tail number"))?;
        let rows = 0..batch.batch.len();
        Ok(rows
            .map(|row| EntityKey::from_values(&[Value::from_array(tails.as_ref(), row)]))
            .collect())
    };
    batches.iter().map(of).collect()
}
