//! The sweep: features of many moments in one pass over a durable log, on one core. Windows over a year of flights, as a training
//! set reads them; the latest values of ten columns, as a join as of a time does.
//!
//! The tables can be written for others to read: `peers/run` measures them beside this.

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{
    Array, ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use headwater::{Config, Engine, Env};
use headwater_batch::{Moment, OutputFormat, SpillLimit, Sweep, SweepOptions, TableWriter};
use headwater_features::ReadPlan;
use headwater_schema::{Cursor, EntityKey, FactBatch, Problem, Value};

use crate::machine::{on_core, thread_seconds};
use crate::{failed, shop};

const RUNS: usize = 3;
/// Facts handed over together.
const BATCH: usize = 10_000;
const MEMORY_BYTES_MAX: usize = 2 << 30;
const YEAR: i64 = 365 * 24 * 3600 * shop::SECOND;
const COLUMNS: usize = 10;
/// Rows that are taken from a sweep together.
const CHUNK_ROWS: usize = 8192;

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
    name: &'static str,
    what: &'static str,
    bar: usize,
    features: String,
    facts: usize,
    rows: usize,
    entities: usize,
}

/// Prints how many rows of a spine a second one core makes, and writes what was read and found to a folder where one is given.
pub fn measure(tables: Option<&Path>) -> Result<(), Problem> {
    let latest = (0..COLUMNS).map(|c| format!("\n    - {{name: latest_{c}, of: v{c}}}"));
    let latest: String = latest.collect();
    let shapes = [
        Shape {
            name: "windows",
            what: "ten features over 24 h, 7 d and 30 d",
            bar: 300_000,
            features: WINDOWS.to_owned(),
            facts: 350_000,
            rows: 500_000,
            entities: 4_000,
        },
        Shape {
            name: "latest",
            what: "the latest values of ten columns",
            bar: 466_000,
            features: latest.clone(),
            facts: 2_000_000,
            rows: 1_000_000,
            entities: 100_000,
        },
        Shape {
            name: "small",
            what: "the same of a small table",
            bar: 1_450_000,
            features: latest,
            facts: 100_000,
            rows: 100_000,
            entities: 10_000,
        },
    ];
    let mut lines = String::new();
    for shape in &shapes {
        let seconds = measure_shape(shape, tables)?;
        let line = serde_json::json!({
            "shape": shape.name, "what": shape.what, "rows": shape.rows, "seconds": seconds
        });
        writeln!(lines, "{line}").map_err(failed)?;
    }
    if let Some(folder) = tables {
        let written = Env::real()
            .files
            .write_atomic(&folder.join("ours.ndjson"), lines.as_bytes());
        written.map_err(failed)?;
    }
    Ok(())
}

fn measure_shape(shape: &Shape, tables: Option<&Path>) -> Result<Vec<f64>, Problem> {
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
    let (mut runs, mut found) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        // The start has read the newest facts, which are in memory then; older ones are read from the disk.
        let engine = open()?;
        let (seconds, core, values, columns) =
            on_core(0, || sweep(&env, &engine, folder.path(), &moments))?;
        println!(
            "{} at {} moments of {} entities over {} facts: {:.0} rows/s of one core (bar {}; {core:.2} s of the core in {seconds:.2} s, {values} values)",
            shape.what,
            shape.rows,
            shape.entities,
            shape.facts,
            shape.rows as f64 / core,
            shape.bar,
        );
        runs.push(core);
        found = columns;
    }
    if let Some(tables) = tables {
        write_tables(shape, &found, tables)?;
    }
    Ok(runs)
}

/// Writes the facts, the moments and what was found, each as a Parquet file; times are microseconds.
fn write_tables(shape: &Shape, found: &[Vec<ArrayRef>], folder: &Path) -> Result<(), Problem> {
    let numbers = |range: std::ops::Range<usize>| -> ArrayRef {
        Arc::new(range.map(|n| n as i64).collect::<Int64Array>())
    };
    let times = |range: std::ops::Range<usize>, of: usize| -> ArrayRef {
        Arc::new(range.map(|n| Some(time(n, of))).collect::<Int64Array>())
    };
    let facts = (0..shape.facts).step_by(BATCH).map(|first| {
        let count = BATCH.min(shape.facts - first);
        let batch = batch(shape, first, count)?.columns;
        let mut columns = named(&batch);
        columns[1].1 = times(first..first + count, shape.facts);
        Ok::<Named, Problem>(columns)
    });
    write(shape, "facts", facts, folder)?;
    let spine = (0..shape.rows).step_by(BATCH).map(|first| {
        let rows = first..(first + BATCH).min(shape.rows);
        let keys = rows.clone().map(|n| Some(key(shape, moment_seed(n))));
        let keys: ArrayRef = Arc::new(keys.collect::<StringArray>());
        Ok::<Named, Problem>(vec![
            ("row".to_owned(), numbers(rows.clone())),
            ("key".to_owned(), keys),
            ("time".to_owned(), times(rows, shape.rows)),
        ])
    });
    write(shape, "spine", spine, folder)?;
    let names = feature_names(&shape.features);
    let mut first = 0;
    let ours = found.iter().map(|columns| {
        let rows = first..first + columns[0].len();
        first = rows.end;
        let mut named = vec![("row".to_owned(), numbers(rows))];
        named.extend(names.iter().cloned().zip(columns.iter().cloned()));
        Ok::<Named, Problem>(named)
    });
    write(shape, "ours", ours, folder)
}

/// The names of the features, window by window.
fn feature_names(features: &str) -> Vec<String> {
    let lines = features.lines().filter_map(|line| {
        let (_, rest) = line.split_once("name: ")?;
        rest.split_once(',')
    });
    let mut names = Vec::new();
    for (name, rest) in lines {
        match rest.split_once('[') {
            None => names.push(name.to_owned()),
            Some((_, windows)) => {
                let windows = windows.trim_end_matches(['}', ']']).split(", ");
                names.extend(windows.map(|window| format!("{name}_{window}")));
            }
        }
    }
    names
}

type Named = Vec<(String, ArrayRef)>;

fn write_batches(
    bytes: &mut Vec<u8>,
    batches: impl Iterator<Item = Result<Named, Problem>>,
) -> Result<(), Problem> {
    let (mut writer, mut out) = (None, Some(bytes));
    for columns in batches {
        let columns = columns?
            .into_iter()
            .map(|(name, column)| (name, column, true));
        let batch = RecordBatch::try_from_iter_with_nullable(columns).map_err(failed)?;
        let table = match (&mut writer, out.take()) {
            (Some(writer), _) => writer,
            (none, Some(out)) => {
                let schema = batch.schema();
                none.insert(TableWriter::new(
                    OutputFormat::Parquet,
                    &schema,
                    Box::new(out),
                )?)
            }
            (None, None) => return Err(failed("a table has no writer")),
        };
        table.write(&batch)?;
    }
    writer.map_or(Ok(()), TableWriter::finish)
}

fn named(batch: &RecordBatch) -> Named {
    let schema = batch.schema();
    let fields = schema.fields().iter().zip(batch.columns());
    let named = fields.map(|(field, column)| (field.name().clone(), column.clone()));
    named.collect()
}

fn write(
    shape: &Shape,
    table: &str,
    batches: impl Iterator<Item = Result<Named, Problem>>,
    folder: &Path,
) -> Result<(), Problem> {
    let mut bytes = Vec::new();
    write_batches(&mut bytes, batches)?;
    let path = folder.join(format!("{}.{table}.parquet", shape.name));
    let written = Env::real().files.write_atomic(&path, &bytes);
    written.map_err(failed)
}

/// How long a sweep took, how long it had the core, how many values there were, and the columns, some rows at a time.
type Swept = (f64, f64, usize, Vec<Vec<ArrayRef>>);

fn sweep(
    env: &Env,
    engine: &Engine,
    folder: &std::path::Path,
    moments: &[Moment],
) -> Result<Swept, Problem> {
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
            spill_limit: SpillLimit::default(),
        },
    };
    let (start, core) = (Instant::now(), thread_seconds());
    let mut swept = sweep.features(&plan, moments.iter().cloned().map(Ok))?;
    let mut chunks = Vec::new();
    for first in (0..moments.len()).step_by(CHUNK_ROWS) {
        chunks.push(swept.take(CHUNK_ROWS.min(moments.len() - first))?);
    }
    let (seconds, core) = (start.elapsed().as_secs_f64(), thread_seconds() - core);
    let rows: usize = chunks.iter().map(|columns| columns[0].len()).sum();
    let columns = chunks.iter().flatten();
    let values: usize = columns
        .map(|column| column.len() - column.null_count())
        .sum();
    if rows != moments.len() || values == 0 {
        return Err(failed("rows are missing"));
    }
    Ok((seconds, core, values, chunks))
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

/// What the key of a moment is made from.
fn moment_seed(n: usize) -> u64 {
    n as u64 ^ 0xC0FF_EE00_0000
}

/// Moments in the order of their times, as the rows of a spine usually are, that don't see the facts at them.
fn moments(shape: &Shape) -> Vec<Moment> {
    let moment = |n: usize| Moment {
        key: EntityKey::from_values(&[Value::string(key(shape, moment_seed(n)))]),
        cursor: Cursor::exclusive(time(n, shape.rows)),
    };
    (0..shape.rows).map(moment).collect()
}
