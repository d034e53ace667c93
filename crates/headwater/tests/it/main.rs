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
mod chained;
mod cli;
mod clients;
mod crash;
mod damage;
mod feed;
mod fixtures;
mod functions;
mod golden;
mod grpc;
mod http;
mod import;
mod limits;
mod observe;
mod on_demand;
mod oracle;
mod quarantine;
mod registry;
mod windows;

/// Opens an engine. A folder that this process had open a moment ago was once still locked, probably by
/// a program that another test was starting and that inherited the lock: that is waited for.
fn open_engine(config: &headwater::Config, data: &std::path::Path) -> headwater::Engine {
    for _ in 0..200 {
        match headwater::Engine::open(headwater::Env::real(), config, data, |_, _| {}) {
            Err(problem) if problem.code == "data-folder-in-use" => {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            opened => return opened.expect("opens"),
        }
    }
    panic!("the data folder stays in use")
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
