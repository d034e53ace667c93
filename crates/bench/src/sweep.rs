//! The sweep: features of many moments in one pass over a durable log, on one core. Windows over a year of flights, as a training
//! set reads them; the latest values of ten columns, as a join as of a time does.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::{
    ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use headwater::{Config, Engine, Env};
use headwater_batch::{Moment, Sweep, SweepOptions};
use headwater_features::ReadPlan;
use headwater_schema::{Cursor, EntityKey, FactBatch, Problem, Value};

use crate::machine::on_core;
use crate::{failed, shop};

const RUNS: usize = 3;
/// Facts handed over together.
const BATCH: usize = 10_000;
const MEMORY_BYTES_MAX: usize = 2 << 30;
const YEAR: i64 = 365 * 24 * 3600 * shop::SECOND;
const COLUMNS: usize = 10;

/// Ten features over three windows.
const WINDOWS: &str = "
    - {name: flights, aggregate: count, windows: [24h, 7d, 30d]}
    - {name: sum_0, aggregate: sum, of: v0, windows: [24h, 7d, 30d]}
    - {name: avg_0, aggregate: avg, of: v0, windows: [24h, 7d, 30d]}
    - {name: min_0, aggregate: min, of: v0, windows: [24h, 7d, 30d]}
    - {name: max_0, aggregate: max, of: v0, windows: [24h, 7d, 30d]}
    - {name: last_0, aggregate: last, of: v0, windows: [24h, 7d, 30d]}
    - {name: avg_1, aggregate: avg, of: v1, windows: [24h, 7d, 30d]}
    - {name: max_1, aggregate: max, of: v1, windows: [24h, 7d, 30d]}
    - {name: sum_5, aggregate: sum, of: v5, windows: [24h, 7d, 30d]}
    - {name: late, aggregate: count, of: v0, where: v0 > 15, windows: [24h, 7d, 30d]}";

/// A shape of facts and moments.
struct Shape {
    what: &'static str,
    bar: usize,
    features: String,
    facts: usize,
    rows: usize,
    entities: usize,
}

/// Prints how many rows of a spine a second one core makes.
pub fn measure() -> Result<(), Problem> {
    let latest = (0..COLUMNS).map(|c| format!("\n    - {{name: latest_{c}, of: v{c}}}"));
    let shapes = [
        Shape {
            what: "ten features over 24 h, 7 d and 30 d",
            bar: 300_000,
            features: WINDOWS.to_owned(),
            facts: 350_000,
            rows: 500_000,
            entities: 4_000,
        },
        Shape {
            what: "the latest values of ten columns",
            bar: 466_000,
            features: latest.collect(),
            facts: 2_000_000,
            rows: 1_000_000,
            entities: 100_000,
        },
    ];
    shapes.iter().try_for_each(measure_shape)
}

fn measure_shape(shape: &Shape) -> Result<(), Problem> {
    let folder = shop::folder()?;
    let env = Env::real();
    for (name, text) in [
        ("headwater.yaml", "name: bench\n".to_owned()),
        ("contract.yaml", contract()),
        ("features.yaml", features(&shape.features)),
    ] {
        let written = env
            .files
            .write_atomic(&folder.path().join(name), text.as_bytes());
        written.map_err(failed)?;
    }
    shop::apply(&env, folder.path(), &folder.path().join("data"))?;
    let open = || shop::open(folder.path(), &Config::named("bench"));
    let firsts = (0..shape.facts).step_by(BATCH);
    let batches = firsts.map(|first| batch(shape, first, BATCH.min(shape.facts - first)));
    shop::ingest(&open()?, batches)?;
    let moments = moments(shape);
    for _ in 0..RUNS {
        // The start has read the newest facts, which are in memory then; older ones are read from the disk.
        let engine = open()?;
        let (seconds, values) = on_core(0, || sweep(&env, &engine, folder.path(), &moments))?;
        println!(
            "{} at {} moments of {} entities over {} facts, one core: {:.0} rows/s (bar {}; {seconds:.2} s, {values} values)",
            shape.what,
            shape.rows,
            shape.entities,
            shape.facts,
            shape.rows as f64 / seconds,
            shape.bar,
        );
    }
    Ok(())
}

/// How long a sweep takes, and how many values there were.
fn sweep(
    env: &Env,
    engine: &Engine,
    folder: &std::path::Path,
    moments: &[Moment],
) -> Result<(f64, usize), Problem> {
    let catalog = engine.catalog();
    let view = catalog.known_view("facts")?;
    let plan = ReadPlan::new(view.clone(), (0..view.features.len()).collect());
    let sweep = Sweep {
        env,
        facts: engine.facts_log().as_ref(),
        catalog: &catalog,
        options: SweepOptions {
            memory_bytes_max: MEMORY_BYTES_MAX,
            spill_folder: folder.join("spill"),
        },
    };
    let start = Instant::now();
    let (mut rows, mut values) = (0, 0);
    for chunk in sweep.features(&plan, moments.iter().cloned().map(Ok))? {
        for row in chunk? {
            rows += 1;
            values += row.iter().filter(|o| !o.value.is_null()).count();
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    if rows != moments.len() || values == 0 {
        return Err(failed("rows are missing"));
    }
    Ok((seconds, values))
}

fn contract() -> String {
    let kind = |c| match c {
        0..=4 => "number",
        5..=7 => "integer",
        _ => "string",
    };
    let values =
        (0..COLUMNS).map(|c| format!("      - {{name: v{c}, logicalType: {}}}\n", kind(c)));
    format!(
        "kind: DataContract
apiVersion: v3.1.0
id: bench
version: 1.0.0
status: active
schema:
  - name: fact
    properties:
      - {{name: key, logicalType: string, required: true}}
      - {{name: time, logicalType: timestamp, required: true}}
{}    customProperties:
      - {{property: headwater.eventTime, value: time}}
      - {{property: headwater.timeUnit, value: us}}
",
        values.collect::<String>()
    )
}

fn features(features: &str) -> String {
    format!(
        "apiVersion: headwater/v1
kind: Entity
name: entity
spec: {{keys: [{{name: key, type: string}}]}}
---
apiVersion: headwater/v1
kind: FeatureView
name: facts
spec:
  entity: entity
  sources: [{{contract: fact}}]
  features: {features}
"
    )
}

/// A spread of numbers that is the same every time.
fn mixed(seed: u64) -> u64 {
    let mut x = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

fn key(shape: &Shape, seed: u64) -> String {
    format!("N{:06}", mixed(seed) as usize % shape.entities)
}

/// A time of the year, for the n-th of so many.
fn time(n: usize, of: usize) -> i64 {
    (YEAR as i128 * n as i128 / of as i128) as i64
}

fn batch(shape: &Shape, first: usize, count: usize) -> Result<FactBatch, Problem> {
    let facts = || first..first + count;
    let keys: StringArray = facts().map(|i| Some(key(shape, i as u64))).collect();
    let event_times: Vec<i64> = facts().map(|i| time(i, shape.facts)).collect();
    let times = TimestampMicrosecondArray::from(event_times.clone()).with_timezone("UTC");
    let mut columns: Vec<(String, ArrayRef)> = vec![
        ("key".to_owned(), Arc::new(keys)),
        ("time".to_owned(), Arc::new(times)),
    ];
    for column in 0..COLUMNS {
        let value = |i: usize| mixed((i * COLUMNS + column) as u64) % 240;
        let array: ArrayRef = match column {
            // Minutes, like delays and distances; a third with fractions.
            0..=4 => Arc::new(
                facts()
                    .map(|i| Some(value(i) as f64 - 20.0 + if i % 3 == 0 { 0.25 } else { 0.0 }))
                    .collect::<Float64Array>(),
            ),
            5..=7 => Arc::new(
                facts()
                    .map(|i| Some(value(i) as i64))
                    .collect::<Int64Array>(),
            ),
            _ => Arc::new(
                facts()
                    .map(|i| Some(format!("place {}", value(i))))
                    .collect::<StringArray>(),
            ),
        };
        columns.push((format!("v{column}"), array));
    }
    let columns = columns
        .into_iter()
        .map(|(name, column)| (name, column, true));
    Ok(FactBatch {
        contract: "fact".into(),
        columns: RecordBatch::try_from_iter_with_nullable(columns).map_err(failed)?,
        event_times,
        fact_ids: None,
        unknown_fields: None,
    })
}

/// Moments in the order of their times, as the rows of a spine usually are, that don't see the facts at them.
fn moments(shape: &Shape) -> Vec<Moment> {
    let moment = |n: usize| Moment {
        key: EntityKey::from_values(&[Value::string(key(shape, n as u64 ^ 0xC0FF_EE00_0000))]),
        cursor: Cursor::exclusive(time(n, shape.rows)),
    };
    (0..shape.rows).map(moment).collect()
}
