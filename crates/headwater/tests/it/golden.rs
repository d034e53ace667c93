//! The flights example against values that pandas computed, bit for bit; the program replays the year.

use std::path::Path;

use headwater::{Config, Engine, Env};
use headwater_api::backend::{EntityRequest, FeaturesRequest, KeyValue, Names};
use headwater_api::value_to_json;
use headwater_schema::Value;
use headwater_schema::time::parse_timestamp;
use headwater_testkit::TempProject;
use serde_json::Value as Json;

use crate::BINARY;

fn request(line: &Json) -> FeaturesRequest {
    let (entity, key) = line["entity"].as_object().unwrap().iter().next().unwrap();
    let key = KeyValue::Scalar(Value::string(key.as_str().unwrap()));
    FeaturesRequest {
        names: Names::Set(line["set"].as_str().unwrap().into()),
        entities: vec![EntityRequest::from([(entity.clone(), key)])],
        as_of: Some(parse_timestamp(line["as_of"].as_str().unwrap(), None).unwrap()),
        known_at: None,
        context: Vec::new(),
        inclusive: true,
        lenient: false,
    }
}

/// Compares a value with an expected one: floats by their bits, whole floats with whole numbers.
fn same(got: &Json, want: &Json) -> bool {
    match (got.as_f64(), want.as_f64()) {
        (Some(got), Some(want)) => got.to_bits() == want.to_bits(),
        _ => got == want,
    }
}

#[test]
fn a_replayed_year_equals_an_independent_computation() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/flights");
    let project = TempProject::new(BINARY, &[]);
    let example_argument = example.to_str().unwrap();
    let said = project.run_ok(&[
        "demo",
        "flights",
        "--exit",
        "--no-predict",
        "--data",
        "data",
        "--example",
        example_argument,
        "--listen",
        "127.0.0.1:0",
    ]);
    assert!(said.contains("1,024,255 facts in"), "{said}");
    let data = project.path().join("data");
    let engine = Engine::open(Env::real(), &Config::named("flights"), &data, |_, _| {}).unwrap();
    let expected = std::fs::read_to_string(example.join("golden/expected.ndjson")).unwrap();
    let (mut values, mut wrong) = (0, Vec::new());
    for line in expected.lines() {
        let line: Json = serde_json::from_str(line).unwrap();
        let reply = engine.features(&request(&line)).unwrap();
        let expected = line["values"].as_object().unwrap();
        assert_eq!(
            reply.names.len(),
            expected.len(),
            "every feature of the set is checked"
        );
        for (name, value) in reply.names.iter().zip(&reply.rows[0].values) {
            values += 1;
            let (got, want) = (value_to_json(value), &expected[name.as_ref()]);
            if !same(&got, want) {
                wrong.push(format!(
                    "{} {} {name}: {got}, pandas says {want}",
                    line["entity"], line["as_of"]
                ));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {values} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert_eq!(values, 4020);
}

#[test]
fn flights_are_predicted_before_they_leave() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/flights");
    let project = TempProject::new(BINARY, &[]);
    let example = example.to_str().unwrap();
    let mut asked = vec!["demo", "flights", "--exit", "--data", "data"];
    asked.extend(["--example", example, "--listen", "127.0.0.1:0"]);
    asked.extend(["--until", "2013-01-09T00:00:00Z"]);
    let said = project.run_ok(&asked);
    let number = |before: &str, after: &str| -> f64 {
        let from = said
            .split(before)
            .nth(1)
            .unwrap_or_else(|| panic!("no `{before}` in {said}"));
        from.split(after)
            .next()
            .unwrap()
            .replace(',', "")
            .parse()
            .unwrap()
    };
    // A week has some six thousand flights. Most have landed; those that were cancelled or diverted have no outcome.
    let predicted = said
        .split(" flights predicted one hour before")
        .next()
        .unwrap();
    let predicted = predicted.lines().last().unwrap().replace(',', "");
    let predicted: f64 = predicted.parse().unwrap();
    let outcomes = number("to leave; ", " outcomes");
    assert!((5_000.0..8_000.0).contains(&predicted), "{said}");
    assert!((0.95..1.0).contains(&(outcomes / predicted)), "{said}");
    let auc = number("as in training: AUC ", ",");
    assert!((0.6..0.95).contains(&auc), "{said}");
    // The facts say the same: every prediction is one, and every outcome is one of a prediction.
    let sql = "SELECT count(o.prediction_id), count(DISTINCT p.id) FROM prediction p \
               LEFT JOIN outcome o ON o.prediction_id = p.id";
    let ask = [
        "--project",
        example,
        "--data",
        "data",
        "--json",
        "query",
        sql,
    ];
    let counted: Json = serde_json::from_str(&project.run_ok(&ask)).unwrap();
    let counts = [0, 1].map(|column| counted["rows"][0][column].as_f64());
    assert_eq!(counts, [Some(outcomes), Some(predicted)], "{counted}");
}
