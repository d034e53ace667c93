//! SQL held to a naive listing: random streams of facts, corrections and runs of the archive, read at random cursors.

use std::sync::Arc;

use arrow::array::RecordBatch;
use headwater_env::Env;
use headwater_facts::{
    AppendRequest, ArchiveOptions, Change, EmbeddedFactLog, FactLog, FactLogOptions, FolderStore,
    IndexSpec, MemoryFactLog, Scan,
};
use headwater_features::Catalog;
use headwater_schema::decode::{BodyFormat, DecodeLimits, decode};
use headwater_schema::yaml::YamlDocument;
use headwater_schema::{Contract, Position, Problem, Value, evolve};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::{Queries, Query, QueryOptions, Snapshot};
use crate::unindexed::Unindexed;
use crate::{SpillLimit, SweepOptions};

const CONTRACT: &str = "\
kind: DataContract
apiVersion: v3.1.0
id: pay
version: VERSION
status: active
schema:
  - name: pay
    properties:
      - {name: id, logicalType: string, required: true}
      - {name: who, logicalType: string}
      - {name: amount, logicalType: AMOUNT}
      - {name: tag, TAG}
      - {name: time, logicalType: timestamp, required: true}
    customProperties:
      - {property: headwater.eventTime, value: time}
      - {property: headwater.factId, value: id}
      - {property: headwater.timeUnit, value: us}
";
const DAY: i64 = 86_400_000_000;

const VIEW: &str = "\
---
apiVersion: headwater/v1
kind: Entity
name: payer
spec: {keys: [{name: who, type: string}]}
---
apiVersion: headwater/v1
kind: FeatureView
name: paid
spec:
  entity: payer
  sources: [{contract: pay, where: amount > -2}]
  features:
    - {name: often, aggregate: count, windows: [lifetime, 24h]}
    - {name: amount, aggregate: sum, of: amount, windows: [24h, 36h]}
";

/// The contract; later amounts are numbers, tags are texts rather than bytes, and facts have a note.
fn catalog(later: bool) -> Catalog {
    let (version, amount, tag) = if later {
        ("2.0.0", "number", "logicalType: string")
    } else {
        (
            "1.0.0",
            "integer",
            "logicalType: string, physicalType: bytes",
        )
    };
    let text = CONTRACT.replace("VERSION", version);
    let text = text.replace("AMOUNT", amount).replace("TAG", tag);
    let mut text = text + VIEW;
    if later {
        let time = "      - {name: time,";
        let note = "      - {name: note, logicalType: string}\n";
        text = text.replace(time, &format!("{note}{time}"));
    }
    let documents = YamlDocument::parse_all("pay.yaml", &text).unwrap();
    Catalog::compile(&documents).unwrap()
}

/// (id, entity, amount, time in sixths of a day)
type Row = (u8, u8, i64, i64);

#[derive(Debug, Clone)]
enum Step {
    Append(Vec<Row>),
    Revise(Vec<Row>),
    Retract(Vec<u8>),
    Archive,
    /// From here on the later contract counts.
    Evolve,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let row = || (0u8..30, 0u8..4, -3i64..4, -9i64..18);
    let rows = move || prop::collection::vec(row(), 1..7);
    let step = prop_oneof![
        6 => rows().prop_map(Step::Append),
        2 => rows().prop_map(Step::Revise),
        2 => prop::collection::vec(0u8..30, 1..4).prop_map(Step::Retract),
        2 => Just(Step::Archive),
        1 => Just(Step::Evolve),
    ];
    prop::collection::vec(step, 1..20)
}

fn facts(contract: &Contract, rows: &[Row]) -> headwater_schema::FactBatch {
    let line = |(id, who, amount, time): &Row| {
        let who = match who {
            0 => "null".to_owned(),
            who => format!("\"who {who}, whose name is long\""),
        };
        let time = time * DAY / 6;
        // As bytes these are no text.
        format!(
            "{{\"id\":\"i{id}\",\"who\":{who},\"amount\":{amount},\"tag\":\"/w==\",\"time\":{time}}}\n"
        )
    };
    let lines: String = rows.iter().map(line).collect();
    let limits = DecodeLimits::default();
    let decoded = decode(contract, BodyFormat::Ndjson, lines.as_bytes(), &limits).unwrap();
    assert!(decoded.rejected.is_empty(), "{:?}", decoded.rejected);
    decoded.batch
}

/// The same facts in a log that goes through all it holds, and in one whose files leave.
struct Logs {
    naive: Arc<MemoryFactLog>,
    embedded: Arc<EmbeddedFactLog>,
    _folder: tempfile::TempDir,
}

impl Logs {
    fn new() -> Self {
        let env = Env::real();
        let folder = tempfile::tempdir().unwrap();
        let options = FactLogOptions {
            segment_bytes_max: 600,
            archive: Some(ArchiveOptions {
                store: Arc::new(FolderStore::new(
                    env.clone(),
                    &folder.path().join("archive"),
                )),
                after: 0,
                cache_bytes_max: 1 << 20,
            }),
            ..FactLogOptions::default()
        };
        let index = IndexSpec {
            contract: "pay".into(),
            key_columns: vec!["who".into()],
        };
        let opened =
            EmbeddedFactLog::open(&env, &folder.path().join("facts"), options, vec![index]);
        Self {
            naive: Arc::new(MemoryFactLog::new(env)),
            embedded: Arc::new(opened.unwrap().0),
            _folder: folder,
        }
    }

    fn take(&self, step: &Step, contract: &Contract) {
        let change = match step {
            Step::Append(rows) => Change::Append(facts(contract, rows)),
            Step::Revise(rows) => Change::Revise(facts(contract, rows)),
            Step::Retract(ids) => Change::Retract {
                contract: contract.name.clone(),
                fact_ids: ids.iter().map(|id| format!("i{id}")).collect(),
            },
            Step::Archive => {
                self.embedded.seal().unwrap();
                self.embedded.run_archive(&|| false).unwrap();
                return;
            }
            Step::Evolve => return,
        };
        self.naive
            .append(vec![AppendRequest::new(change.clone())])
            .unwrap();
        self.embedded
            .append(vec![AppendRequest::new(change)])
            .unwrap();
    }
}

/// (sequence, time, entity, amount) of what counts at a cursor, gone through one by one.
fn listed(log: &MemoryFactLog, contract: &Contract, known_at: u64, as_of: i64) -> Vec<Vec<Value>> {
    let found = log.scan(&Scan {
        contract: contract.name.clone(),
        from: Position::MIN,
        until: Position::after(as_of),
        known_at,
        newest: usize::MAX,
    });
    let found = found.unwrap();
    let mut rows = Vec::new();
    for (run, row) in &found.order {
        let run = &found.runs[*run];
        let columns = evolve::project(&run.columns, contract).unwrap();
        let of = |name: &str| Value::from_array(columns.column_by_name(name).unwrap(), *row);
        rows.push(vec![
            Value::Int(run.sequences[*row] as i64),
            Value::Timestamp(run.event_times[*row]),
            of("who"),
            of("amount"),
            of("tag"),
        ]);
    }
    rows.sort_by_key(|row| match row[0] {
        Value::Int(sequence) => sequence,
        _ => 0,
    });
    rows
}

fn ask(queries: &Queries, snapshot: Snapshot, sql: &str) -> Vec<Vec<Value>> {
    let query = Query {
        sql: sql.to_owned(),
        limit: None,
    };
    let run = || -> Result<Vec<RecordBatch>, Problem> {
        let mut answer = queries.run_and_wait(queries.place()?, snapshot, query)?;
        let mut batches = Vec::new();
        while let Some(batch) = answer.next_and_wait()? {
            batches.push(batch);
        }
        Ok(batches)
    };
    let batches = run().unwrap_or_else(|problem| panic!("{sql}: {problem:?}"));
    let mut rows = Vec::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            let values = batch.columns().iter().map(|c| Value::from_array(c, row));
            rows.push(values.collect());
        }
    }
    rows
}

fn micros(value: &Value) -> i64 {
    match value {
        Value::Timestamp(time) => *time,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_select_is_the_naive_listing_with_and_without_an_archive() {
    let folder = tempfile::tempdir().unwrap();
    let queries = Queries::start(QueryOptions::default(), folder.path()).unwrap();
    let reads = prop::collection::vec((0u64..60, -9i64..18, -9i64..18), 5);
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 12,
        max_shrink_iters: 100,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let catalogs = [false, true].map(|later| Arc::new(catalog(later)));
    let run = runner.run(&(steps(), reads), |(steps, reads)| {
        let logs = Logs::new();
        let mut later = 0;
        for step in &steps {
            if matches!(step, Step::Evolve) {
                later = 1;
            }
            logs.take(step, catalogs[later].contract("pay").unwrap());
        }
        let catalog = &catalogs[later];
        let contract = catalog.contract("pay").unwrap();
        let last = logs.naive.last_sequence();
        for (known_at, as_of, from) in reads {
            let (known_at, as_of) = (known_at.min(last), as_of * DAY / 6);
            let want = listed(&logs.naive, contract, known_at, as_of);
            let kept: [Arc<dyn FactLog>; 2] = [logs.naive.clone(), logs.embedded.clone()];
            for facts in kept {
                let snapshot = Snapshot {
                    env: Env::real(),
                    facts,
                    catalog: catalog.clone(),
                    known_at,
                    as_of: Some(as_of),
                    sweep: SweepOptions {
                        memory_bytes_max: 1 << 20,
                        spill_folder: folder.path().join("spill"), spill_limit: SpillLimit::default(),
                    },
                };
                let columns = "SELECT _sequence, _event_time, who, amount, tag FROM pay";
                let all = format!("{columns} ORDER BY _sequence");
                prop_assert_eq!(&ask(&queries, snapshot.clone(), &all), &want);
                let from = from * DAY / 6;
                let text = headwater_schema::time::format_timestamp(from);
                let some = format!(
                    "{columns} WHERE time >= TIMESTAMP '{text}' AND amount > 0 ORDER BY _sequence"
                );
                let above = |row: &&Vec<Value>| match row[3] {
                    Value::Int(amount) => amount > 0,
                    Value::Float(amount) => amount > 0.0,
                    _ => false,
                };
                let picked: Vec<Vec<Value>> = want
                    .iter()
                    .filter(|row| micros(&row[1]) >= from)
                    .filter(above)
                    .cloned()
                    .collect();
                prop_assert_eq!(ask(&queries, snapshot.clone(), &some), picked);
                let counted = "SELECT count(*), count(who), max(_sequence) FROM pay";
                let newest = want.last().map_or(Value::Null, |row| row[0].clone());
                let named = want.iter().filter(|row| !row[2].is_null()).count();
                let count = |n: usize| Value::Int(n as i64);
                prop_assert_eq!(
                    ask(&queries, snapshot.clone(), counted),
                    [vec![count(want.len()), count(named), newest]]
                );
                let live = "SELECT _sequence, _event_time, who, amount, tag FROM history.pay WHERE _removed_at IS NULL ORDER BY _sequence";
                prop_assert_eq!(&ask(&queries, snapshot, live), &want);
            }
        }
        Ok(())
    });
    if let Err(failure) = run {
        panic!("{failure}");
    }
}

/// Holds features of entities that a filter names to the same rows among those of all.
#[test]
fn a_filter_on_entities_picks_the_rows_that_the_table_has() {
    let folder = tempfile::tempdir().unwrap();
    let queries = Queries::start(QueryOptions::default(), folder.path()).unwrap();
    let reads = prop::collection::vec((0u64..60, -9i64..18), 2);
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 8,
        max_shrink_iters: 100,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let catalog = Arc::new(catalog(false));
    let contract = catalog.contract("pay").unwrap();
    let run = runner.run(&(steps(), reads), |(steps, reads)| {
        let logs = Logs::new();
        for step in &steps {
            logs.take(step, contract);
        }
        let last = logs.naive.last_sequence();
        for (known_at, as_of) in reads {
            let as_of = as_of * DAY / 6;
            let snapshot = |facts: Arc<dyn FactLog>| Snapshot {
                env: Env::real(),
                facts,
                catalog: catalog.clone(),
                known_at: known_at.min(last),
                as_of: Some(as_of),
                sweep: SweepOptions {
                    memory_bytes_max: 1 << 20,
                    spill_folder: folder.path().join("spill"), spill_limit: SpillLimit::default(),
                },
            };
            let at = headwater_schema::time::format_timestamp(as_of + DAY / 7);
            let at = format!("features_as_of('paid', TIMESTAMP '{at}')");
            let history = "views.paid".to_owned();
            for (table, place) in [(&history, "_sequence"), (&at, "who")] {
                let all = format!("SELECT * FROM {table} ORDER BY {place}");
                let unindexed = Arc::new(Unindexed(logs.naive.clone()));
                let all = ask(&queries, snapshot(unindexed), &all);
                let kept: [Arc<dyn FactLog>; 2] = [logs.naive.clone(), logs.embedded.clone()];
                for facts in kept {
                    let named = ["who 1, whose name is long", "who 3, whose name is long"];
                    let some = format!(
                        "SELECT * FROM {table} WHERE who IN ('{}', '{}', 'nobody') ORDER BY {place}",
                        named[0], named[1]
                    );
                    let is_named = |row: &&Vec<Value>| {
                        named.iter().any(|name| row[0] == Value::string(*name))
                    };
                    let want: Vec<_> = all.iter().filter(is_named).cloned().collect();
                    prop_assert_eq!(ask(&queries, snapshot(facts.clone()), &some), want);
                    let few = format!("SELECT * FROM {table} LIMIT 3");
                    let few = ask(&queries, snapshot(facts), &few);
                    prop_assert_eq!(few.len(), all.len().min(3));
                    prop_assert!(few.iter().all(|row| all.contains(row)));
                }
            }
        }
        Ok(())
    });
    if let Err(failure) = run {
        panic!("{failure}");
    }
}

/// Whatever a query that was given up was doing, it soon leaves its place to others.
#[test]
fn a_query_that_takes_too_long_makes_room() {
    let folder = tempfile::tempdir().unwrap();
    let options = QueryOptions {
        timeout_ms: 200,
        concurrent_max: 1,
        ..QueryOptions::default()
    };
    let queries = Queries::start(options, folder.path()).unwrap();
    let snapshot = Snapshot {
        env: Env::real(),
        facts: Arc::new(MemoryFactLog::new(Env::real())),
        catalog: Arc::new(catalog(false)),
        known_at: 0,
        as_of: None,
        sweep: SweepOptions {
            memory_bytes_max: 1 << 20,
            spill_folder: folder.path().join("spill"),
            spill_limit: SpillLimit::default(),
        },
    };
    let numbers = "WITH n AS (SELECT unnest(range(0, 400000)) AS v)";
    for (query, never) in [
        (
            "FROM n a, n b WHERE a.v < b.v",
            "AND a.v * b.v % 1000003 = -7",
        ),
        (
            "FROM n a JOIN n b ON a.v % 2 = b.v % 2",
            "AND a.v * b.v % 1000003 = -7",
        ),
        ("FROM n a CROSS JOIN n b", ""),
    ] {
        let query = Query {
            sql: format!("{numbers} SELECT count(*), sum(a.v % 7 + b.v % 3) {query} {never}"),
            limit: None,
        };
        let place = queries.place().unwrap();
        let told = queries.run_and_wait(place, snapshot.clone(), query.clone());
        let told = told.and_then(|mut answer| answer.next_and_wait().map(drop));
        assert_eq!(told.unwrap_err().code, "timeout", "{}", query.sql);
        let mut waits = 0..500;
        while queries.running() > 0 {
            assert!(waits.next().is_some(), "{} goes on", query.sql);
            let clock = &snapshot.env.clock;
            clock.sleep(std::time::Duration::from_millis(10));
        }
    }
}
