//! On-demand features: names, types, order, and what a request's own fields may be.

use headwater_schema::yaml::YamlDocument;
use serde_json::json;

use super::*;

const PROJECT: &str = "
kind: DataContract
apiVersion: v3.1.0
id: d
version: 1.0.0
status: active
schema:
  - name: purchase
    properties:
      - {name: customer, logicalType: string}
      - {name: shop, logicalType: string}
      - {name: amount, logicalType: number}
      - {name: time, logicalType: timestamp}
    customProperties: [{property: headwater.eventTime, value: time}]
---
{apiVersion: headwater/v1, kind: Entity, name: customer, spec: {keys: [{name: customer, type: string}]}}
---
{apiVersion: headwater/v1, kind: Entity, name: shop, spec: {keys: [{name: shop, type: string}]}}
---
apiVersion: headwater/v1
kind: FeatureView
name: spending
spec:
  entity: customer
  sources: [{contract: purchase}]
  features: [{name: mean, aggregate: avg, of: amount}, {name: n, aggregate: count}]
---
apiVersion: headwater/v1
kind: FeatureView
name: shops
spec:
  entity: shop
  sources: [{contract: purchase}]
  features: [{name: mean, aggregate: avg, of: amount}]
---
apiVersion: headwater/v1
kind: FeatureSet
name: risk
spec:
  features: ['*.*']
";

const CONTEXT: &str = "
  context: [{name: amount, type: number}, {name: card, type: string}, {name: at, type: timestamp}]
";

fn compile(rest: &str) -> Result<Arc<FeatureSet>, Problem> {
    let documents = YamlDocument::parse_all("all.yaml", &format!("{PROJECT}{rest}")).unwrap();
    let catalog = Catalog::compile(&documents).map_err(|mut problems| problems.remove(0))?;
    Ok(catalog.set("risk").unwrap().clone())
}

fn outcome(value: impl Into<Option<f64>>, status: Status) -> Outcome {
    Outcome {
        value: value.into().map_or(Value::Null, Value::Float),
        status,
        event_time: Some(7),
    }
}

#[test]
fn expressions_read_features_context_and_each_other_in_any_order() {
    let set = compile(&format!(
        "{CONTEXT}
  on_demand:
    - {{name: both, expression: ratio + against_shop}}
    - {{name: ratio, expression: amount / spending.mean}}
    - {{name: against_shop, expression: context.amount - shops.mean, default: -1}}
    - {{name: mean, expression: \"(shops.mean + spending.mean) / 2\"}}
    - {{name: foreign, expression: \"card = 'x'\"}}
"
    ))
    .unwrap();
    let names: Vec<&str> = set.full_names().map(AsRef::as_ref).collect();
    let features = ["shops.mean", "spending.mean", "spending.n"];
    let derived = [
        "risk.both",
        "risk.ratio",
        "risk.against_shop",
        "risk.mean",
        "risk.foreign",
    ];
    assert_eq!(names, [features.as_slice(), &derived].concat());
    let context = json!([
        {"amount": 10, "card": "x", "at": "2026-01-01T00:00:00Z"},
        {"amount": 1.5, "card": null, "at": 0},
    ]);
    let context: Vec<ContextRow> = serde_json::from_value(context).unwrap();
    let context = set.read_context(2, &context).unwrap();
    let count = |n, status| Outcome {
        value: Value::Int(n),
        status,
        event_time: None,
    };
    let mut rows = vec![
        vec![
            outcome(8.0, Status::Present),
            outcome(4.0, Status::Present),
            count(1, Status::Present),
        ],
        vec![
            outcome(None, Status::NotFound),
            outcome(0.0, Status::Present),
            count(0, Status::Present),
        ],
    ];
    set.derive(&mut rows, context).unwrap();
    let seen = |row: &[Outcome]| -> Vec<(Value, Status)> {
        row[3..]
            .iter()
            .map(|o| (o.value.clone(), o.status))
            .collect()
    };
    use Status::{NotFound, NullValue, Present, Undefined};
    use Value::{Bool, Float, Null};
    assert_eq!(
        seen(&rows[0]),
        [
            (Float(4.5), Present),
            (Float(2.5), Present),
            (Float(2.0), Present),
            (Float(6.0), Present),
            (Bool(true), Present),
        ]
    );
    // 1.5 / 0 is no number; the shop isn't known, so its default stands in.
    assert_eq!(
        seen(&rows[1]),
        [
            (Null, NullValue),
            (Null, Undefined),
            (Float(-1.0), NotFound),
            (Null, NullValue),
            (Null, NullValue),
        ]
    );
    assert_eq!(rows[0][3].event_time, Some(7));
}

#[test]
fn a_wrong_definition_says_what_is_wrong() {
    let cases = [
        (
            "{name: a, expression: mean + 1}",
            "write shops.mean or spending.mean",
        ),
        (
            "{name: a, expression: shops.meen}",
            "did you mean `shops.mean`?",
        ),
        ("{name: a, expression: amont}", "did you mean `amount`?"),
        ("{name: a, expression: a + 1}", "a → a"),
        (
            "{name: a, expression: b}, {name: b, expression: risk.a}",
            "a → b → a",
        ),
        (
            "{name: a, expression: n}, {name: a, expression: n}",
            "two features `risk.a`",
        ),
        (
            "{name: a, expression: n, default: x}",
            "the default has another type",
        ),
    ];
    for (on_demand, why) in cases {
        let problem = compile(&format!("{CONTEXT}  on_demand: [{on_demand}]\n")).unwrap_err();
        assert!(problem.to_string().contains(why), "{on_demand}: {problem}");
        assert!(problem.location.is_some(), "{on_demand}");
    }
    let problem = compile("  context: [{name: a, type: float}]\n").unwrap_err();
    assert!(
        problem.to_string().contains("unknown variant `float`"),
        "{problem}"
    );
}

#[test]
fn a_wrong_context_names_the_row_and_the_field() {
    let set = compile(CONTEXT).unwrap();
    let whole = json!({"amount": 1, "card": "x", "at": 0});
    let with = |key: &str, value: serde_json::Value| {
        let mut row = whole.clone();
        row[key] = value;
        json!([whole, row])
    };
    let cases = [
        (json!([whole]), "context", "1 rows of 2"),
        (json!([]), "context", "amount, card, at"),
        (
            json!([whole, {"card": "x", "at": 0}]),
            "context[1].amount",
            "is missing",
        ),
        (
            with("amont", json!(1)),
            "context[1].amont",
            "did you mean `amount`?",
        ),
        (
            with("amount", json!("1")),
            "context[1].amount",
            "it is float64",
        ),
        (with("card", json!(1)), "context[1].card", "it is string"),
        (
            with("at", json!("noon")),
            "context[1].at",
            "it is timestamp",
        ),
    ];
    for (context, field, why) in cases {
        let context: Vec<ContextRow> = serde_json::from_value(context).unwrap();
        let problem = set.read_context(2, &context).unwrap_err();
        assert_eq!(problem.field.as_deref(), Some(field), "{problem}");
        assert!(problem.to_string().contains(why), "{problem}");
    }
}
