//! Sweeps of random logs, held to each moment read by itself from the facts that the log finds.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests stop loudly"
)]

use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use headwater_aggregate::{EntityState, Outcome};
use headwater_env::Env;
use headwater_facts::{AppendRequest, Change, FactLog, Lookup, MemoryFactLog};
use headwater_features::{Catalog, ReadPlan, SourceRows, prepare_rows};
use headwater_schema::yaml::YamlDocument;
use headwater_schema::{Cursor, EntityKey, FactBatch, Position, Value};
use proptest::prelude::*;

use super::{Moment, SpillLimit, Sweep, SweepOptions};
use crate::unindexed::Unindexed;

const SECOND: i64 = 1_000_000;

const PROJECT: &str = "kind: DataContract
apiVersion: v3.1.0
id: shop
version: 1.0.0
status: active
schema:
  - name: purchase
    properties:
      - {name: id, logicalType: string, required: true}
      - {name: customer, logicalType: string}
      - {name: friend, logicalType: string}
      - {name: item, logicalType: string}
      - {name: price, logicalType: number}
      - {name: pieces, logicalType: integer}
      - {name: time, logicalType: timestamp, required: true}
    customProperties:
      - {property: headwater.eventTime, value: time}
      - {property: headwater.factId, value: id}
      - {property: headwater.timeUnit, value: us}
---
apiVersion: headwater/v1
kind: Entity
name: customer
spec: {keys: [{name: customer, type: string}]}
---
apiVersion: headwater/v1
kind: FeatureView
name: all
spec:
  entity: customer
  sources:
    - {contract: purchase, where: price IS NULL OR price < 90}
    - {contract: purchase, keys: {customer: friend}, where: pieces > 1}
  features:
    - {name: purchases, aggregate: count, windows: [10s, {rows: 3}, {session: 5s}, lifetime]}
    - {name: spent, aggregate: sum, of: price, windows: [10s, {sawtooth: 20s, hop: 4s}, {tumbling: 10s}]}
    - {name: mean, aggregate: avg, of: price, windows: [10s, 30s], default: -1.0}
    - {name: pieces, aggregate: sum, of: pieces, windows: [10s, {exact: 10s, offset: 3s}]}
    - {name: dearest, aggregate: max, of: price, where: pieces > 1, windows: [10s, 30s]}
    - {name: items, aggregate: distinct_count, of: item, windows: [30s]}
    - {name: dear, aggregate: top_n, n: 3, of: price, windows: [30s]}
    - {name: by_item, aggregate: sum, of: pieces, by: item, windows: [30s]}
    - {name: faded, aggregate: decayed_sum, of: price, half_life: 5s, windows: [30s]}
    - {name: item, of: item, ttl: 8s}
    - {name: before, aggregate: last, of: price}
    - {name: trend, expression: mean_10s - mean_30s}
";

#[derive(Debug, Clone)]
struct Fact {
    customer: Option<u8>,
    friend: Option<u8>,
    item: Option<u8>,
    price: Option<i16>,
    pieces: Option<u8>,
    second: u8,
}

#[derive(Debug, Clone)]
enum Step {
    Append(Vec<Fact>),
    /// The id of an earlier fact, or one that never was.
    Revise(u8, Fact),
    Retract(u8),
}

fn fact() -> impl Strategy<Value = Fact> {
    let maybe = |most: u8| prop::option::weighted(0.9, 0..most);
    (
        maybe(9),
        maybe(9),
        maybe(4),
        prop::option::weighted(0.9, -40..400i16),
        maybe(5),
        0..60u8,
    )
        .prop_map(|(customer, friend, item, price, pieces, second)| Fact {
            customer,
            friend,
            item,
            price,
            pieces,
            second,
        })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => prop::collection::vec(fact(), 1..12).prop_map(Step::Append),
        1 => (0..40u8, fact()).prop_map(|(id, fact)| Step::Revise(id, fact)),
        1 => (0..40u8).prop_map(Step::Retract),
    ]
}

fn batch(facts: &[Fact], first_id: usize) -> FactBatch {
    let name = |letter: &str, number: Option<u8>| number.map(|n| format!("{letter}{n}"));
    let ids: StringArray = (first_id..)
        .take(facts.len())
        .map(|i| Some(format!("f{i}")))
        .collect();
    let text = |read: &dyn Fn(&Fact) -> Option<String>| -> ArrayRef {
        Arc::new(facts.iter().map(read).collect::<StringArray>())
    };
    let prices: Float64Array = facts
        .iter()
        .map(|f| f.price.map(|p| f64::from(p) / 4.0))
        .collect();
    let pieces: Int64Array = facts.iter().map(|f| f.pieces.map(i64::from)).collect();
    let event_times: Vec<i64> = facts.iter().map(|f| i64::from(f.second) * SECOND).collect();
    let times = TimestampMicrosecondArray::from(event_times.clone()).with_timezone("UTC");
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(ids.clone())),
        ("customer", text(&|f| name("c", f.customer))),
        ("friend", text(&|f| name("c", f.friend))),
        ("item", text(&|f| name("i", f.item))),
        ("price", Arc::new(prices)),
        ("pieces", Arc::new(pieces)),
        ("time", Arc::new(times)),
    ];
    let columns = columns
        .into_iter()
        .map(|(name, column)| (name, column, true));
    FactBatch {
        contract: "purchase".into(),
        columns: RecordBatch::try_from_iter_with_nullable(columns).unwrap(),
        event_times,
        fact_ids: Some(ids),
        unknown_fields: None,
    }
}

fn log(env: &Env, steps: &[Step]) -> MemoryFactLog {
    let log = MemoryFactLog::new(env.clone());
    let mut ids = 0;
    for step in steps {
        let change = match step {
            Step::Append(facts) => {
                let batch = batch(facts, ids);
                ids += facts.len();
                Change::Append(batch)
            }
            Step::Revise(id, fact) => {
                Change::Revise(batch(std::slice::from_ref(fact), usize::from(*id)))
            }
            Step::Retract(id) => Change::Retract {
                contract: "purchase".into(),
                fact_ids: vec![format!("f{id}")],
            },
        };
        log.append(vec![AppendRequest::new(change)]).unwrap();
    }
    log
}

/// One moment by itself.
fn alone(log: &MemoryFactLog, catalog: &Catalog, plan: &ReadPlan, moment: &Moment) -> Vec<Outcome> {
    let view = plan.view();
    let mut state = EntityState::new(&view.layout);
    if let Some(key) = &moment.key {
        let mut found = Vec::new();
        for source in &view.sources {
            let lookup = Lookup {
                contract: source.contract.clone(),
                key_columns: source.key_columns.clone(),
                key: key.clone(),
                from: Position::MIN,
                until: Position::MAX,
                known_at: moment.cursor.known_at,
                newest: None,
            };
            for run in log.lookup(&lookup).unwrap().runs {
                let rows = SourceRows {
                    columns: headwater_schema::evolve::project(
                        &run.columns,
                        catalog.contract("purchase").unwrap(),
                    )
                    .unwrap(),
                    event_times: run.event_times,
                    sequences: run.sequences,
                };
                found.push(prepare_rows(source, rows).unwrap().rows);
            }
        }
        let rows = found
            .iter()
            .flat_map(|facts| (0..facts.sequences.len()).map(move |r| (facts, r)));
        let mut rows: Vec<_> = rows.collect();
        rows.sort_by_key(|(facts, row)| facts.sequences[*row]);
        for (facts, row) in rows {
            state.insert(&view.layout, facts, row);
        }
    }
    let mut rows = vec![
        plan.read(Some(&state), &moment.cursor, None)
            .whole()
            .unwrap(),
    ];
    plan.derive(&mut rows).unwrap();
    plan.pick(&rows[0])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_sweep_equals_each_moment_alone_whatever_it_may_hold(
        steps in prop::collection::vec(step(), 0..24),
        asked in prop::collection::vec(
            (prop::option::weighted(0.95, 0..10u8), 0..70i64, 0..3u8, prop::option::weighted(0.3, any::<prop::sample::Index>())),
            0..60,
        ),
        known_alike in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let env = Env::simulated(7).0;
        let log = log(&env, &steps);
        let documents = YamlDocument::parse_all("project.yaml", PROJECT).unwrap();
        let catalog = Catalog::compile(&documents).unwrap();
        let view = catalog.view("all").unwrap();
        let last = log.last_sequence();
        let moments: Vec<Moment> = asked
            .iter()
            .map(|(customer, second, kind, known)| {
                let t = second * SECOND;
                let cursor = match kind {
                    0 => Cursor::inclusive(t),
                    1 => Cursor::exclusive(t),
                    _ => Cursor::before_fact(Position::new(t, last / 2)),
                };
                let known = known_alike.or(*known);
                let known = known.map_or(u64::MAX, |known| known.index(last as usize + 1) as u64);
                Moment {
                    key: customer.and_then(|c| EntityKey::from_values(&[Value::string(format!("c{c}"))])),
                    cursor: cursor.known_at(known),
                }
            })
            .collect();
        let plan = ReadPlan::new(view.clone(), (0..view.features.len()).rev().collect());
        let wanted: Vec<String> = moments
            .iter()
            .map(|moment| {
                let outcomes = alone(&log, &catalog, &plan, moment);
                let values = outcomes.into_iter().map(|outcome| outcome.value);
                format!("{:?}", values.collect::<Vec<_>>())
            })
            .collect();
        let unindexed = Unindexed(&log);
        let logs: [&dyn FactLog; 2] = [&log, &unindexed];
        for (memory_bytes_max, indexed) in [(0, 0), (6_000, 1), (1 << 30, 0), (1 << 30, 1)] {
            let folder = Path::new("/spill");
            let sweep = Sweep {
                env: &env,
                facts: logs[indexed],
                catalog: &catalog,
                options: SweepOptions { memory_bytes_max, spill_folder: folder.to_owned(), spill_limit: SpillLimit::default() },
            };
            let mut swept = sweep.features(&plan, moments.iter().cloned().map(Ok)).unwrap();
            let mut rows: Vec<String> = Vec::new();
            for chunk in moments.chunks(7) {
                let columns = swept.take(chunk.len()).unwrap();
                rows.extend((0..chunk.len()).map(|row| {
                    let values = columns.iter().map(|column| Value::from_array(column, row));
                    format!("{:?}", values.collect::<Vec<_>>())
                }));
            }
            prop_assert!(swept.take(1).is_err());
            drop(swept);
            prop_assert_eq!(rows.len(), moments.len());
            for (index, row) in rows.iter().enumerate() {
                prop_assert_eq!(row, &wanted[index], "at {:?}", moments[index]);
            }
            let left = env.files.exists(folder).then(|| env.files.list(folder).unwrap());
            prop_assert_eq!(left.unwrap_or_default(), Vec::<std::path::PathBuf>::new());
        }
    }
}
