//! SQL over the archive, beside DuckDB on the same Parquet files with as many threads: facts of a month in files by
//! day. DuckDB is asked through Python, where there is one that has it.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{
    ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use headwater::{Config, Engine, Env};
use headwater_api::backend::QueryRequest;
use headwater_schema::{FactBatch, Problem, Value};

use crate::machine::process_seconds;
use crate::{failed, shop};

const FACTS: usize = 5_000_000;
const DAYS: i64 = 30;
/// Facts handed over together.
const BATCH: usize = 10_000;
const RUNS: usize = 7;
const ZONES: u64 = 260;

const CONTRACT: &str = "kind: DataContract
apiVersion: v3.1.0
id: bench
version: 1.0.0
status: active
schema:
  - name: trip
    properties:
      - {name: id, logicalType: string, required: true}
      - {name: zone, logicalType: string, required: true}
      - {name: vendor, logicalType: integer}
      - {name: distance, logicalType: number}
      - {name: fare, logicalType: number}
      - {name: passengers, logicalType: integer}
      - {name: time, logicalType: timestamp, required: true}
    customProperties:
      - {property: headwater.eventTime, value: time}
      - {property: headwater.timeUnit, value: us}
";

/// What is asked of both; `trip` is the table.
const QUERIES: [(&str, &str); 8] = [
    ("count of all", "SELECT count(*) FROM trip"),
    (
        "sums of all",
        "SELECT sum(vendor), min(fare), max(distance), sum(passengers) FROM trip",
    ),
    (
        "260 groups",
        "SELECT zone, count(*), max(fare), sum(passengers) FROM trip GROUP BY zone ORDER BY zone",
    ),
    (
        "groups by hour and vendor",
        "SELECT date_trunc('hour', time) AS h, vendor, count(*), max(distance) FROM trip GROUP BY 1, 2 ORDER BY 1, 2",
    ),
    (
        "three days of thirty",
        "SELECT vendor, count(*), max(fare) FROM trip WHERE time >= TIMESTAMPTZ '1970-01-11T00:00:00Z' AND time < TIMESTAMPTZ '1970-01-14T00:00:00Z' GROUP BY vendor ORDER BY vendor",
    ),
    (
        "one in ten thousand",
        "SELECT count(*), min(id), max(fare) FROM trip WHERE fare > 99 AND zone = 'zone 17'",
    ),
    (
        "the ten dearest",
        "SELECT id, zone, fare FROM trip ORDER BY fare DESC, id LIMIT 10",
    ),
    (
        "distinct values",
        "SELECT count(DISTINCT zone), count(DISTINCT distance) FROM trip",
    ),
];

/// What DuckDB says, a line per query: milliseconds of the best and the middle run, those of cores that a run took, then the
/// rows.
const PYTHON: &str = r#"
import json, sys, time
import duckdb
files, threads, runs, queries = json.load(sys.stdin)
con = duckdb.connect()
con.execute(f"SET threads = {threads}")
con.execute("SET TimeZone = 'UTC'")
for setting in ("SET enable_progress_bar = false", "SET parquet_metadata_cache = true", "SET enable_object_cache = true"):
    try: con.execute(setting)
    except Exception: pass
con.execute(f"CREATE VIEW trip AS SELECT * FROM read_parquet('{files}', hive_partitioning = false)")
print(duckdb.__version__)
for query in queries:
    took = []
    core = time.process_time()
    for _ in range(runs):
        start = time.perf_counter()
        rows = con.execute(query).fetchall()
        took.append((time.perf_counter() - start) * 1000)
    core = (time.process_time() - core) * 1000 / runs
    took.sort()
    print(json.dumps([took[0], took[len(took) // 2], core, len(rows), [str(v) for v in rows[-1] if isinstance(v, (int, str))]]))
"#;

/// Prints how long queries take, here and there. `python` runs DuckDB.
pub fn measure(python: &str) -> Result<(), Problem> {
    let folder = shop::folder()?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let engine = archived(folder.path(), threads)?;
    let files = folder.path().join("data/archive/contract=trip/*/*.parquet");
    let theirs = duckdb(python, &files, threads);
    for (place, (what, sql)) in QUERIES.iter().enumerate() {
        let mut took = Vec::new();
        let mut last = (0, Vec::new());
        let core = process_seconds();
        for _ in 0..RUNS {
            let start = Instant::now();
            last = ask(&engine, sql)?;
            took.push(start.elapsed().as_secs_f64() * 1000.0);
        }
        let core = (process_seconds() - core) * 1000.0 / RUNS as f64;
        took.sort_by(f64::total_cmp);
        let (best, middle) = (took[0], took[took.len() / 2]);
        let own =
            format!("{what}: best {best:.1} ms, middle {middle:.1} ms, of cores {core:.1} ms");
        match theirs.as_ref().ok().and_then(|t| t.get(place)) {
            None => println!("{own}"),
            Some(theirs) => {
                println!(
                    "{own}; DuckDB {:.1}, {:.1}, {:.1} ms: {:.2} × at best, {:.2} × in the middle (bar 1.2), {:.2} × of cores",
                    theirs.best,
                    theirs.middle,
                    theirs.core,
                    best / theirs.best,
                    middle / theirs.middle,
                    core / theirs.core
                );
                let alike = last.0 == theirs.rows && last.1 == theirs.last;
                if !alike {
                    println!(
                        "  another answer: {last:?} and {:?}",
                        (theirs.rows, &theirs.last)
                    );
                }
            }
        }
    }
    match theirs {
        Ok(_) => Ok(()),
        Err(problem) => {
            println!("DuckDB wasn't asked: {}", problem.detail);
            Ok(())
        }
    }
}

/// An engine whose facts are all in the archive below the folder.
fn archived(folder: &Path, threads: usize) -> Result<Engine, Problem> {
    let env = Env::real();
    for (name, text) in [
        ("headwater.yaml", "name: bench\n"),
        ("contract.yaml", CONTRACT),
    ] {
        let written = env.files.write_atomic(&folder.join(name), text.as_bytes());
        written.map_err(failed)?;
    }
    shop::apply(&env, folder, &folder.join("data"))?;
    let mut config = Config::named("bench");
    config.spec.query.threads = threads;
    config.spec.archive = Some(headwater::ArchiveSettings {
        after: headwater_schema::time::Duration(0),
        ..headwater::ArchiveSettings::default()
    });
    let engine = shop::open(folder, &config)?;
    shop::ingest(&engine, (0..FACTS).step_by(BATCH).map(batch))?;
    let mut complete = false;
    while !complete {
        let state = engine.archive_now(Duration::from_secs(60))?;
        complete = state["complete"].as_bool().unwrap_or(true);
        if complete {
            println!(
                "{FACTS} facts in {} files, {} bytes; {threads} threads; {RUNS} runs",
                state["files"], state["bytes"]
            );
        }
    }
    Ok(engine)
}

/// What DuckDB said of one query.
struct Theirs {
    best: f64,
    middle: f64,
    core: f64,
    rows: usize,
    last: Vec<String>,
}

fn duckdb(python: &str, files: &Path, threads: usize) -> Result<Vec<Theirs>, Problem> {
    use std::io::Write;
    let queries: Vec<&str> = QUERIES.iter().map(|q| q.1).collect();
    let input = serde_json::json!([files, threads, RUNS, queries]).to_string();
    let mut child = Command::new(python)
        .args(["-c", PYTHON])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).map_err(failed)?;
    }
    let output = child.wait_with_output().map_err(failed)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines = text.lines();
    let version = lines.next().ok_or_else(|| failed("no DuckDB"))?;
    println!("DuckDB {version}");
    let read = |line: &str| -> Result<Theirs, Problem> {
        let (best, middle, core, rows, last) = serde_json::from_str(line).map_err(failed)?;
        Ok(Theirs {
            best,
            middle,
            core,
            rows,
            last,
        })
    };
    lines.map(read).collect()
}

/// The number of rows, and the integers and texts of the last.
fn ask(engine: &Engine, sql: &str) -> Result<(usize, Vec<String>), Problem> {
    let mut answer = engine.query(&QueryRequest {
        sql: sql.to_owned(),
        as_of: None,
        known_at: None,
        limit: None,
    })?;
    let (mut rows, mut last) = (0, Vec::new());
    while let Some(batch) = answer.next_and_wait()? {
        rows += batch.num_rows();
        let values = batch.columns().iter();
        let values = values.map(|c| Value::from_array(c, batch.num_rows() - 1));
        let plain = values.filter_map(|value| match value {
            Value::Int(v) => Some(v.to_string()),
            Value::String(v) => Some(v.to_string()),
            _ => None,
        });
        last = plain.collect();
    }
    Ok((rows, last))
}

/// A spread of numbers that is the same every time.
fn mixed(seed: u64) -> u64 {
    let mut x = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

fn batch(first: usize) -> Result<FactBatch, Problem> {
    let facts = || (first..first + BATCH).map(|i| i as u64);
    let text = |of: &dyn Fn(u64) -> String| -> ArrayRef {
        Arc::new(facts().map(|i| Some(of(i))).collect::<StringArray>())
    };
    let integers = |of: &dyn Fn(u64) -> i64| -> ArrayRef {
        Arc::new(facts().map(|i| Some(of(i))).collect::<Int64Array>())
    };
    let numbers = |of: &dyn Fn(u64) -> f64| -> ArrayRef {
        Arc::new(facts().map(|i| Some(of(i))).collect::<Float64Array>())
    };
    let month = DAYS * 24 * 3600 * shop::SECOND;
    let times = facts().map(|i| (i128::from(month) * i128::from(i) / FACTS as i128) as i64);
    let event_times: Vec<i64> = times.collect();
    let time = TimestampMicrosecondArray::from(event_times.clone()).with_timezone("UTC");
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", text(&|i| format!("trip-{:08x}", mixed(i) >> 32))),
        (
            "zone",
            text(&|i| format!("zone {}", mixed(i ^ 0xA) % ZONES)),
        ),
        ("vendor", integers(&|i| (mixed(i ^ 0xB) % 3) as i64)),
        (
            "distance",
            numbers(&|i| (mixed(i ^ 0xC) % 4000) as f64 / 100.0),
        ),
        (
            "fare",
            numbers(&|i| (mixed(i ^ 0xD) % 10_000) as f64 / 100.0),
        ),
        ("passengers", integers(&|i| (mixed(i ^ 0xE) % 6) as i64)),
        ("time", Arc::new(time)),
    ];
    let columns = columns
        .into_iter()
        .map(|(name, column)| (name, column, true));
    Ok(FactBatch {
        contract: "trip".into(),
        columns: RecordBatch::try_from_iter_with_nullable(columns).map_err(failed)?,
        event_times,
        fact_ids: None,
        unknown_fields: None,
    })
}
