//! Models in bundles: what is told of their answers, and what of their definitions goes along.

use headwater_edge::Edge;
use serde_json::{Value as Json, json};

use crate::edge::{add_version, bundle, model, row};
use crate::harness::{Harness, SECOND};
use crate::{CONTRACTS, FEATURES};

const SET: &str = "
---
{apiVersion: headwater/v1, kind: FeatureSet, name: taken, spec: {features: ['spending.*']}}
";

/// Orders, of which no feature is made.
const ORDERS: &str = "kind: DataContract
apiVersion: v3.1.0
id: orders
version: 1.0.0
status: active
schema:
  - name: order
    properties:
      - {name: id, logicalType: string, required: true}
      - {name: customer, logicalType: string}
      - {name: time, logicalType: timestamp, required: true}
    customProperties:
      - {property: headwater.eventTime, value: time}
      - {property: headwater.factId, value: id}
";

/// Twice what a customer spent in an hour, and one.
fn twice() -> Vec<u8> {
    json!({"format": "headwater-linear/1", "link": "identity", "inputs": ["x"],
           "coefficients": [2.0], "intercepts": [1.0]})
    .to_string()
    .into_bytes()
}

/// A bundle of one customer who spent three, of a model declared so.
fn taken(declared: &str) -> Edge {
    let definitions = format!("{CONTRACTS}---\n{ORDERS}---\n{FEATURES}{SET}{declared}");
    let harness = Harness::new(&definitions, |_| ());
    add_version(harness.engine(), twice());
    let purchase = json!({"id": "p", "customer": "c1", "amount": 3.0, "time": 10 * SECOND});
    harness.send("purchase", &[purchase], false);
    Edge::open(&bundle(harness.engine(), vec![row(1)], false)).expect("opens")
}

#[test]
fn a_model_that_scores_facts_as_they_arrive_is_taken_along() {
    let declared = model("taken", "spending.spent_1h");
    let on = declared.replace("feature_set: taken", "feature_set: taken, on: order");
    assert_ne!(on, declared);
    let edge = taken(&on);
    let entities = [row(1)];
    let predicted = edge.predict(&entities, &[], Some(20 * SECOND));
    assert_eq!(predicted.expect("answered").numbers, [7.0]);
    // They are no facts of its features.
    assert_eq!(
        edge.add_facts("order", b"[]", false).unwrap_err().code,
        "unknown-contract"
    );
}

#[test]
fn what_each_input_added_is_told_where_it_is_asked_for() {
    let edge = taken(&model("taken", "spending.spent_1h"));
    let request = json!({"entities": [{"customer": "c1"}], "as_of": 20 * SECOND, "explain": true})
        .to_string();
    let said: Json = serde_json::from_str(&edge.predict_json(&request).unwrap()).unwrap();
    assert_eq!(said["outputs"][0]["value"], 7.0, "{said}");
    let explained = json!([[{"inputs": {"x": 6.0}, "base": 1.0}]]);
    assert_eq!(said["explanations"], explained);
    let plain = request.replace(",\"explain\":true", "");
    let said: Json = serde_json::from_str(&edge.predict_json(&plain).unwrap()).unwrap();
    assert_eq!(said.get("explanations"), None);
    for refused in [
        edge.features_json(&request).map(drop),
        edge.predict_numbers(&request).map(drop),
    ] {
        let problem = refused.unwrap_err();
        assert_eq!(
            (problem.code, problem.field.as_deref()),
            ("malformed-request", Some("explain"))
        );
    }
    edge.features_json(&plain).expect("read");
}
