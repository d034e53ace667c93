//! A project to measure: facts keyed by tail number, and a view of them.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use headwater::{Config, Engine, Env, Project, apply_project};
use headwater_schema::{FactBatch, Problem};

use crate::failed;

pub const SECOND: i64 = 1_000_000;
/// Keys that facts are spread over unless a measurement has its own.
pub const TAILS: usize = 4000;

const CONTRACT: &str = "kind: DataContract
apiVersion: v3.1.0
id: bench
version: 1.0.0
status: active
schema:
  - name: departure
    properties:
      - {name: id, logicalType: string, required: true}
      - {name: tailnum, logicalType: string, required: true}
      - {name: delay, logicalType: number}
      - {name: time, logicalType: timestamp, required: true}
    customProperties:
      - {property: headwater.eventTime, value: time}
      - {property: headwater.factId, value: id}
      - {property: headwater.timeUnit, value: us}
";

const FEATURES: &str = "apiVersion: headwater/v1
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
  features: FEATURES
---
apiVersion: headwater/v1
kind: FeatureSet
name: all
spec: {features: ['delays.*']}
";

/// One exact window of 24 h: count, sum, average and maximum.
pub const ONE_WINDOW: &str = "
    - {name: count, aggregate: count, windows: [24h]}
    - {name: sum, aggregate: sum, of: delay, windows: [24h]}
    - {name: avg, aggregate: avg, of: delay, windows: [24h]}
    - {name: max, aggregate: max, of: delay, windows: [24h]}";

/// Ten windows of five aggregates: fifty features.
pub const TEN_WINDOWS: &str = "
    - {name: count, aggregate: count, windows: [1h, 2h, 4h, 8h, 12h, 24h, 2d, 3d, 5d, 7d]}
    - {name: sum, aggregate: sum, of: delay, windows: [1h, 2h, 4h, 8h, 12h, 24h, 2d, 3d, 5d, 7d]}
    - {name: avg, aggregate: avg, of: delay, windows: [1h, 2h, 4h, 8h, 12h, 24h, 2d, 3d, 5d, 7d]}
    - {name: min, aggregate: min, of: delay, windows: [1h, 2h, 4h, 8h, 12h, 24h, 2d, 3d, 5d, 7d]}
    - {name: max, aggregate: max, of: delay, windows: [1h, 2h, 4h, 8h, 12h, 24h, 2d, 3d, 5d, 7d]}";

/// Writes the project and applies it to `data` below the folder.
pub fn prepare(folder: &Path, features: &str) -> Result<(), Problem> {
    let env = Env::real();
    let features = FEATURES.replace("FEATURES", features);
    let files = [
        ("headwater.yaml", "name: bench\n"),
        ("contract.yaml", CONTRACT),
        ("features.yaml", &features),
    ];
    for (name, text) in files {
        let written = env.files.write_atomic(&folder.join(name), text.as_bytes());
        written.map_err(failed)?;
    }
    apply(&env, folder, &folder.join("data"))
}

/// Applies the project in `folder` to a data folder.
pub fn apply(env: &Env, folder: &Path, data: &Path) -> Result<(), Problem> {
    let first = |problems: Vec<Problem>| {
        let first = problems.into_iter().next();
        first.unwrap_or_else(|| failed("refused"))
    };
    let project = Project::load(env, folder).map_err(first)?;
    apply_project(env, &project, data).map_err(first)?;
    Ok(())
}

/// Opens the data that [`prepare`] made.
pub fn open(folder: &Path, config: &Config) -> Result<Engine, Problem> {
    Engine::open(Env::real(), config, &folder.join("data"), |_, _| {})
}

/// A temporary folder; it goes when the handle does.
pub fn folder() -> Result<tempfile::TempDir, Problem> {
    tempfile::tempdir().map_err(failed)
}

/// The key of a fact: scattered over `keys`.
pub fn tail(fact: usize, keys: usize) -> usize {
    fact.wrapping_mul(2_654_435_761) % keys
}

/// The delay that a fact tells, with a fraction.
pub fn delay(fact: usize) -> f64 {
    (fact % 180) as f64 + 0.5
}

/// Facts as the edge decodes them, one a second.
pub fn batch(first: usize, count: usize, keys: usize) -> Result<FactBatch, Problem> {
    let facts = || first..first + count;
    let ids: StringArray = facts().map(|i| Some(format!("f{i}"))).collect();
    let tails: StringArray = facts()
        .map(|i| Some(format!("N{}", tail(i, keys))))
        .collect();
    let delays: Float64Array = facts().map(|i| Some(delay(i))).collect();
    let event_times: Vec<i64> = facts().map(|i| i as i64 * SECOND).collect();
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
        columns: columns.map_err(failed)?,
        event_times,
        fact_ids: Some(ids),
        unknown_fields: None,
    })
}

/// Facts as NDJSON, one a second.
pub fn lines(first: usize, count: usize) -> String {
    use std::fmt::Write;
    let mut lines = String::with_capacity(count * 72);
    for i in first..first + count {
        let _ = writeln!(
            lines,
            "{{\"id\":\"f{i}\",\"tailnum\":\"N{}\",\"delay\":{:.1},\"time\":{}}}",
            tail(i, TAILS),
            delay(i),
            i as i64 * SECOND
        );
    }
    lines
}

/// Hands batches over with many under way, and waits until all are durable and visible.
pub fn ingest(
    engine: &Engine,
    batches: impl Iterator<Item = Result<FactBatch, Problem>>,
) -> Result<(), Problem> {
    const UNDER_WAY_MAX: usize = 64;
    let (permits, returned) = headwater_env::queue::bounded("bench", UNDER_WAY_MAX);
    for _ in 0..UNDER_WAY_MAX {
        let _ = permits.try_send(Ok(()));
    }
    let gone = || failed("an answer is missing");
    for batch in batches {
        returned.recv().map_err(|_| gone())??;
        let permits = permits.clone();
        let done = move |reply: Result<_, Problem>| drop(permits.try_send(reply.map(drop)));
        engine.submit_batch(batch?, Box::new(done));
    }
    for _ in 0..UNDER_WAY_MAX {
        returned.recv().map_err(|_| gone())??;
    }
    Ok(())
}
