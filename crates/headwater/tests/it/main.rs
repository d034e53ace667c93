//! Tests from outside: the program, its HTTP, its data folder.
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests use the real disk and clock, and stop loudly"
)]

mod access;
mod apply;
mod archive;
mod backfill;
mod bounded;
mod carried;
mod chained;
mod chronon;
mod cli;
mod clients;
mod crash;
mod damage;
mod edge;
mod edge_flights;
mod edge_models;
mod expressions;
mod fallbacks;
mod feast;
mod feed;
mod fixtures;
mod functions;
mod golden;
mod grpc;
mod grpc_bytes;
mod harness;
mod http;
mod import;
mod labels;
mod limits;
mod logged;
mod models;
mod observe;
mod on_demand;
mod oracle;
mod outcomes;
mod predict;
mod promotions;
mod quarantine;
mod query;
mod registry;
mod retention;
mod rules;
mod score;
mod streaming;
mod traffic;
mod training_set;
mod typed_keys;
mod values;
mod windows;

use headwater::Env;
use headwater_batch::{Moment, SpillLimit, Sweep, SweepOptions};
use headwater_features::ReadPlan;
use headwater_schema::{EntityKey, Value};

use crate::harness::{Live, bits};

fn open_engine(config: &headwater::Config, data: &std::path::Path) -> headwater::Engine {
    headwater::Engine::open(headwater::Env::real(), config, data, |_, _| {}).expect("opens")
}

/// What is read once no view of it is being filled any more: a start goes on filling where the last process died.
fn filled(
    server: &headwater_testkit::ServerProcess,
    request: &serde_json::Value,
) -> serde_json::Value {
    for _ in 0..500 {
        let reply = server.post_json("/v1/features", request);
        assert_eq!(reply.status, 200, "{}", reply.body);
        if !reply.body.contains("BACKFILLING") {
            return reply.json();
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("a view is still being filled after ten seconds");
}

/// Holds the sweep to what was read live: the values of features of one view, of entities
/// with one text as key, at their cursors.
fn assert_swept(
    engine: &headwater::Engine,
    folder: &std::path::Path,
    names: &[String],
    reads: &[Live],
) {
    let catalog = engine.catalog();
    let features = catalog.resolve(names).expect("known").features;
    let wanted = features.iter().map(|f| f.index).collect();
    let plan = ReadPlan::new(features[0].view.clone(), wanted);
    for memory_bytes_max in [0, 1 << 30] {
        let sweep = Sweep {
            env: &Env::real(),
            facts: engine.facts_log().as_ref(),
            catalog: &catalog,
            options: SweepOptions {
                memory_bytes_max,
                spill_folder: folder.join("spill"),
                spill_limit: SpillLimit::default(),
            },
        };
        let moments = reads.iter().map(|(key, cursor, _)| {
            Ok(Moment {
                key: EntityKey::from_values(&[Value::string(key)]),
                cursor: *cursor,
            })
        });
        let mut swept = sweep.features(&plan, moments).expect("swept");
        let columns = swept.take(reads.len()).expect("rows");
        assert_eq!(columns.len(), names.len());
        for (index, column) in columns.iter().enumerate() {
            assert_eq!(column.len(), reads.len());
            for (row, (key, cursor, live)) in reads.iter().enumerate() {
                assert_eq!(
                    bits(&Value::from_array(column, row)),
                    bits(&live.values[index]),
                    "{} of {key} at {cursor:?}",
                    names[index]
                );
            }
        }
    }
}

/// The program under test.
const BINARY: &str = env!("CARGO_BIN_EXE_headwater");

/// A small shop: purchases of customers, visits of customers on pages.
const SHOP: &[(&str, &str)] = &[
    (
        "headwater.yaml",
        "name: shop\nspec: {state: {checkpoint_facts: 500}}\n",
    ),
    ("contracts/shop.yaml", CONTRACTS),
    ("features/shop.yaml", FEATURES),
];

const CONTRACTS: &str = "\
kind: DataContract
apiVersion: v3.1.0
id: shop
version: 1.0.0
status: active
schema:
  - name: purchase
    properties:
      - {name: id, logicalType: string, required: true}
      - {name: customer, logicalType: string}
      - {name: amount, logicalType: number, logicalTypeOptions: {minimum: 0}}
      - {name: time, logicalType: timestamp, required: true}
    customProperties:
      - {property: headwater.eventTime, value: time}
      - {property: headwater.factId, value: id}
      - {property: headwater.timeUnit, value: us}
";

const FEATURES: &str = "\
apiVersion: headwater/v1
kind: Entity
name: customer
spec: {keys: [{name: customer, type: string}]}
---
apiVersion: headwater/v1
kind: FeatureView
name: spending
owner: sales
spec:
  entity: customer
  sources:
    - contract: purchase
  features:
    - {name: purchases, aggregate: count, windows: [1m, 1h, lifetime]}
    - {name: spent, aggregate: sum, of: amount, windows: [1m, 1h, lifetime]}
    - {name: largest, aggregate: max, of: amount, windows: [1h]}
    - {name: last, aggregate: last, of: amount, ttl: 1h}
    - {name: share, expression: spent_1m / spent_1h}
---
apiVersion: headwater/v1
kind: FeatureSet
name: customer_now
owner: sales
spec: {features: ['spending.*']}
";
