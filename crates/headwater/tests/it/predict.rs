//! Models from outside: versions added and promoted, predictions by entities, candidates and vectors, what they
//! leave as facts, outcomes, and what happens when something is wrong.

use headwater_models::{LoadOptions, Predictor, Rows, load};
use headwater_schema::Value;
use headwater_schema::decode::{BodyFormat, read_record_batches};
use headwater_testkit::{ServerProcess, TempProject};
use serde_json::{Value as Json, json};

use crate::{BINARY, SHOP};

/// As LightGBM saves one: amount and age are numbers, country is a category.
const SAVED: &str = include_str!("../../../models/src/lightgbm/small.txt");

const MODEL: &str = "\
apiVersion: headwater/v1
kind: FeatureSet
name: fraud_inputs
spec:
  features: ['spending.*']
  context: [{name: country, type: string}, {name: factor, type: number}]
  on_demand: [{name: scaled, expression: spending.spent_1h * context.factor}]
---
apiVersion: headwater/v1
kind: Model
name: fraud
owner: risk
spec:
  feature_set: fraud_inputs
  inputs: {amount: scaled, country: context.country, age: spending.purchases_1h}
";

/// The file with small leaves, those of its second tree as told, so that no probability is 0 or 1.
fn with_leaves(leaves: &str) -> String {
    let mut trees = 0;
    let small = SAVED.lines().map(|line| {
        if !line.starts_with("leaf_value=") {
            return line.to_owned();
        }
        trees += 1;
        match trees {
            1 => "leaf_value=0.1 0.2 0.4".to_owned(),
            2 => format!("leaf_value={leaves}"),
            _ => "leaf_value=-0.5 0.75".to_owned(),
        }
    });
    small.map(|line| line + "\n").collect()
}

pub fn first() -> String {
    with_leaves("-1.5 0.25")
}

pub fn second() -> String {
    with_leaves("0.5 -2.75")
}

/// A shop with a model, two files of it, and some purchases of now.
pub fn shop(more: &str) -> TempProject {
    let project = TempProject::new(BINARY, SHOP);
    project.write("models/fraud.yaml", format!("{MODEL}{more}"));
    project.write("one.model", first());
    project.write("two.model", second());
    project.run_ok(&["apply"]);
    project
}

pub fn send_purchases(server: &ServerProcess) {
    let now = headwater::Env::real().clock.now();
    let fact = |n: i64| {
        json!({"id": format!("p{n}"), "customer": format!("c{}", n % 3), "amount": n as f64 * 0.1 + 0.7,
               "time": now - n * 1_000_000})
    };
    let facts: Vec<Json> = (0..40).map(fact).collect();
    let sent = server.post_json("/v1/facts/purchase", &json!(facts));
    assert_eq!(sent.status, 200, "{}", sent.body);
}

fn context(country: &str) -> Json {
    json!({"country": country, "factor": 0.25})
}

fn asked(customer: &str) -> Json {
    json!({"entities": [{"customer": customer}], "context": [context("fr")]})
}

fn predict(server: &ServerProcess, body: &Json) -> Json {
    let reply = server.post_json("/v1/models/fraud/predict", body);
    assert_eq!(reply.status, 200, "{}", reply.body);
    reply.json()
}

/// What a model file answers to the features of a row as a feature read gives them.
pub fn oracle(
    model: &dyn Predictor,
    server: &ServerProcess,
    customer: &str,
    country: &str,
    like: &Json,
) -> f64 {
    let read = server.post_json(
        "/v1/features",
        &json!({"feature_set": "fraud_inputs", "entities": [{"customer": customer}],
                "context": [context(country)], "as_of": like["as_of"], "known_at": like["sequence"]}),
    );
    assert_eq!(read.status, 200, "{}", read.body);
    let read = read.json();
    let names = read["names"].as_array().unwrap();
    let value = |name: &str| {
        let place = names.iter().position(|n| n == name).unwrap();
        read["rows"][0]["values"][place]
            .as_f64()
            .unwrap_or(f64::NAN)
    };
    // The place in the list that the file was trained with.
    let code = ["de", "fr", "pt"].iter().position(|c| *c == country);
    let row = [
        value("fraud_inputs.scaled"),
        code.map_or(f64::NAN, |code| code as f64),
        value("spending.purchases_1h"),
    ];
    model.predict(Rows::one(&row).unwrap()).unwrap().outputs[0]
}

fn output(answer: &Json, row: usize) -> f64 {
    let outputs = answer["outputs"][row].as_object().unwrap();
    outputs.values().next().unwrap().as_f64().unwrap()
}

/// The prediction facts once so many are written.
pub fn predictions(server: &ServerProcess, count: usize) -> Vec<Json> {
    for _ in 0..500 {
        let facts = server.get("/v1/facts/prediction?limit=1000").json();
        let facts = facts["facts"].as_array().unwrap().clone();
        if facts.len() >= count {
            return facts;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("fewer than {count} predictions are written after five seconds");
}

#[test]
fn a_model_answers_what_its_file_says_and_leaves_what_it_was_answered_from() {
    let project = shop("");
    let told = project.run_ok(&[
        "models",
        "add",
        "fraud",
        "one.model",
        "--alias",
        "live",
        "--metric",
        "auc=0.9",
    ]);
    assert!(
        told.contains("serving") && told.contains("auc 0.9"),
        "{told}"
    );
    let server = ServerProcess::start(&project);
    send_purchases(&server);
    let model = load(first().as_bytes(), &LoadOptions::default()).unwrap();
    // Rows, one of them of somebody who is unknown.
    let body = json!({"entities": [{"customer": "c0"}, {"customer": "nobody"}],
                      "context": [context("fr"), context("pt")], "explain": true});
    let answer = predict(&server, &body);
    assert_eq!(answer["degraded"], false);
    for (row, customer, country) in [(0, "c0", "fr"), (1, "nobody", "pt")] {
        let wanted = oracle(model.as_ref(), &server, customer, country, &answer);
        assert_eq!(
            output(&answer, row).to_bits(),
            wanted.to_bits(),
            "of {customer}: {answer}"
        );
        let score = &answer["explanations"][row][0];
        let added = score["inputs"].as_object().unwrap().values();
        let sum: f64 =
            added.map(|v| v.as_f64().unwrap()).sum::<f64>() + score["base"].as_f64().unwrap();
        let margin = (wanted / (1.0 - wanted)).ln();
        assert!((sum - margin).abs() < 1e-9, "{sum} {margin}");
    }
    // Candidates share everything but themselves.
    let ranked = predict(
        &server,
        &json!({"entities": [{}], "context": [context("xx")],
                "candidates": {"entity": "customer", "ids": ["c0", "c1", "c1", "c2"]}}),
    );
    for (row, customer) in ["c0", "c1", "c1", "c2"].into_iter().enumerate() {
        let wanted = oracle(model.as_ref(), &server, customer, "xx", &ranked);
        assert_eq!(output(&ranked, row).to_bits(), wanted.to_bits());
    }
    // The model's own inputs.
    let raw = predict(
        &server,
        &json!({"vectors": [[1.5, "pt", null], [-3, "de", 7.25]]}),
    );
    for (row, vector) in [[1.5, 2.0, f64::NAN], [-3.0, 0.0, 7.25]].iter().enumerate() {
        let wanted = model.predict(Rows::one(vector).unwrap()).unwrap().outputs[0];
        assert_eq!(output(&raw, row).to_bits(), wanted.to_bits());
    }
    let facts = predictions(&server, 8);
    assert_facts(&server, &facts, &answer);
    let metrics = server.get("/metrics").body;
    let counted = metrics
        .lines()
        .find(|l| l.starts_with("headwater_predictions_answered_total"));
    let counted = counted.unwrap();
    assert!(
        counted.contains("model=\"fraud\"") && counted.ends_with(" 3"),
        "{counted}"
    );
    assert!(server.stop());
}

/// Holds what predictions left to what a training set says at their cursors, bit for bit.
fn assert_facts(server: &ServerProcess, facts: &[Json], answer: &Json) {
    let of = |fact: &Json, name: &str| fact["fact"][name].clone();
    let mut spine = "customer,as_of,known_at,country,factor\n".to_owned();
    let read: Vec<&Json> = facts
        .iter()
        .filter(|f| !of(f, "features").is_null())
        .collect();
    assert_eq!(read.len(), 6, "{facts:?}");
    for fact in &read {
        let (entities, context) = (of(fact, "entities"), of(fact, "context"));
        let text = |json: &Json| json.as_str().unwrap().trim_matches('"').to_owned();
        spine += &format!(
            "{},{},{},{},{}\n",
            text(&entities["customer"]),
            text(&of(fact, "time")),
            of(fact, "known_at"),
            text(&context["country"]),
            text(&context["factor"])
        );
        assert_eq!(
            (of(fact, "model"), of(fact, "policy")),
            (json!("fraud"), json!("live"))
        );
        assert_eq!(
            (of(fact, "propensity").as_f64(), of(fact, "weight").as_f64()),
            (Some(1.0), Some(1.0))
        );
        assert!(of(fact, "degraded").is_null() && of(fact, "latency_us").as_i64().unwrap() > 0);
        assert!(
            of(fact, "definitions")["fraud_inputs.scaled"].is_string(),
            "{fact}"
        );
    }
    let ids: Vec<Json> = facts.iter().map(|f| of(f, "id")).collect();
    for id in answer["prediction_ids"].as_array().unwrap() {
        let place = ids.iter().position(|i| i == id).unwrap();
        let row = of(&facts[place], "row").as_u64().unwrap() as usize;
        let logged = of(&facts[place], "outputs");
        let logged = logged
            .as_object()
            .unwrap()
            .values()
            .next()
            .unwrap()
            .as_f64()
            .unwrap();
        assert_eq!(logged.to_bits(), output(answer, row).to_bits());
    }
    let path = "/v1/training-sets?feature_set=fraud_inputs&inclusive=true";
    let made = server.post(path, "text/csv", &spine);
    assert_eq!(made.status, 200, "{}", made.body);
    let batches = read_record_batches(BodyFormat::ArrowStream, &made.bytes).unwrap();
    let batches: Vec<_> = batches.map(Result::unwrap).collect();
    let table = arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap();
    let mut compared = 0;
    for (row, fact) in read.iter().enumerate() {
        for feature in of(fact, "features").as_array().unwrap() {
            let column = table
                .column_by_name(feature["name"].as_str().unwrap())
                .unwrap();
            let made = Value::from_array(column, row);
            let Some(served) = feature["value"].as_str() else {
                assert!(made.is_null(), "{feature}");
                continue;
            };
            match (&made, serde_json::from_str::<Json>(served).unwrap()) {
                (Value::Float(made), Json::Number(served)) => {
                    assert_eq!(
                        made.to_bits(),
                        served.as_f64().unwrap().to_bits(),
                        "{feature}"
                    );
                }
                (Value::Int(made), Json::Number(served)) => {
                    assert_eq!(Some(*made), served.as_i64())
                }
                other => panic!("{other:?} of {feature}"),
            }
            compared += 1;
        }
    }
    assert!(compared > 30, "{compared}");
}

#[test]
fn what_is_wrong_is_refused_and_leaves_the_running_version_alone() {
    let project = shop("");
    let server = ServerProcess::start(&project);
    send_purchases(&server);
    let refused = |path: &str, body: &Json, status: u16, code: &str| {
        let reply = server.post_json(path, body);
        assert_eq!(reply.status, status, "{path} {body}: {}", reply.body);
        assert!(
            reply.body.contains(&format!("problem:{code}\"")),
            "{}",
            reply.body
        );
    };
    let path = "/v1/models/fraud/predict";
    refused(path, &asked("c0"), 503, "no-live-version");
    let url = server.url.clone();
    let models = |arguments: &[&str]| {
        let all = [&["models"], arguments, &["--server", &url]].concat();
        project.run(&all)
    };
    let ok = |arguments: &[&str]| {
        let output = models(arguments);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let fails = |arguments: &[&str], said: &str| {
        let output = models(arguments);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && told.contains(said),
            "{arguments:?}: {told}"
        );
    };
    ok(&[
        "add",
        "fraud",
        "one.model",
        "--version",
        "1",
        "--alias",
        "live",
    ]);
    let before = output(&predict(&server, &json!({"vectors": [[1, 2, 3]]})), 0);
    // Files that are cut off, or nothing at all, or another under a name that is taken.
    project.write("cut.model", &SAVED[..SAVED.len() / 2]);
    project.write("noise.model", [0x93, 0xff, 0, 1, 2]);
    project.write(
        "other.model",
        SAVED.replace("amount country age", "amount country weight"),
    );
    fails(
        &["add", "fraud", "cut.model", "--alias", "live"],
        "can't be read",
    );
    fails(
        &["add", "fraud", "noise.model", "--alias", "live"],
        "format",
    );
    fails(
        &["add", "fraud", "other.model", "--alias", "live"],
        "`weight`",
    );
    fails(
        &[
            "add",
            "fraud",
            "two.model",
            "--version",
            "1",
            "--alias",
            "live",
        ],
        "is another one",
    );
    fails(&["add", "frauds", "two.model"], "did you mean `fraud`?");
    fails(&["promote", "fraud", "9"], "no version `9`");
    fails(&["rollback", "fraud"], "no earlier version");
    let same = output(&predict(&server, &json!({"vectors": [[1, 2, 3]]})), 0);
    assert_eq!(same.to_bits(), before.to_bits());
    // Requests that are wrong.
    let with = |name: &str, value: Json| {
        let mut body = asked("c0");
        body[name] = value;
        body
    };
    refused(
        "/v1/models/frauds/predict",
        &asked("c0"),
        404,
        "unknown-model",
    );
    refused(path, &json!({}), 400, "malformed-request");
    refused(
        path,
        &with("candidate", json!([])),
        400,
        "malformed-request",
    );
    refused(path, &with("entities", json!([])), 400, "no-rows");
    refused(
        path,
        &with("entities", json!([{"buyer": "c0"}])),
        400,
        "missing-key",
    );
    refused(
        path,
        &with("entities", json!([{"customer": 7}])),
        400,
        "wrong-key-type",
    );
    refused(path, &with("context", json!([])), 400, "missing-context");
    refused(
        path,
        &with("context", json!([{"country": 7, "factor": 1}])),
        400,
        "wrong-context-type",
    );
    refused(path, &with("version", json!("9")), 404, "unknown-version");
    refused(
        path,
        &with("deadline_ms", json!(0)),
        400,
        "invalid-duration",
    );
    // Each candidate stands in the place of its entity, which the row mustn't name.
    refused(
        path,
        &with("candidates", json!({"entity": "customer", "ids": ["c1"]})),
        400,
        "candidates",
    );
    refused(path, &json!({"vectors": [[1, 2]]}), 400, "model-shape");
    refused(path, &json!({"vectors": [[1, [], 2]]}), 400, "model-input");
    refused(path, &json!({"vectors": [["x", 1, 2]]}), 400, "model-input");
    refused(
        path,
        &json!({"vectors": vec![[1, 2, 3]; 1001]}),
        400,
        "limit",
    );
    let outcomes = "/v1/outcomes";
    refused(
        outcomes,
        &json!([{"prediction_id": "", "value": 1, "event_time": 0}]),
        400,
        "invalid-outcome",
    );
    refused(
        outcomes,
        &json!([{"prediction_id": "p", "value": [], "event_time": 0}]),
        400,
        "malformed-request",
    );
    refused(
        outcomes,
        &json!([{"prediction_id": "p", "value": 1}]),
        400,
        "malformed-request",
    );
    // A feature that means something else: another version may not take its place, this one isn't served.
    let other = MODEL.replace("spent_1h * context", "spent_1m * context");
    project.write("models/fraud.yaml", &other);
    project.run_ok(&["apply", "--server", &server.url]);
    refused(path, &asked("c0"), 503, "features-changed");
    fails(
        &["promote", "fraud", "1", "--alias", "canary"],
        "mean something else",
    );
    let warned = other.replace("  inputs:", "  on_changed_features: warn\n  inputs:");
    project.write("models/fraud.yaml", &warned);
    project.run_ok(&["apply", "--server", &server.url]);
    let answer = predict(&server, &asked("c0"));
    assert!(
        answer["warnings"][0]
            .as_str()
            .unwrap()
            .contains("fraud_inputs.scaled"),
        "{answer}"
    );
    let told = ok(&["list"]);
    assert!(told.contains("mean something else"), "{told}");
    // With a fallback there is an answer where the version is refused.
    let degraded = other.replace("  inputs:", "  fallback: [{constant: 0.5}]\n  inputs:");
    project.write("models/fraud.yaml", &degraded);
    project.run_ok(&["apply", "--server", &server.url]);
    let answer = predict(&server, &asked("c0"));
    assert_eq!(
        (&answer["degraded"], &answer["reason"]["code"]),
        (&json!(true), &json!("features-changed"))
    );
    assert_eq!((output(&answer, 0), &answer["version"]), (0.5, &Json::Null));
    // As before.
    project.write("models/fraud.yaml", MODEL);
    project.run_ok(&["apply", "--server", &server.url]);
    assert_eq!(predict(&server, &asked("c0"))["degraded"], false);
    assert!(server.stop());
}

#[test]
fn acknowledged_outcomes_survive_a_kill_and_the_newest_counts() {
    let project = shop("");
    project.run_ok(&["models", "add", "fraud", "one.model", "--alias", "live"]);
    let mut ids: Vec<Json> = Vec::new();
    let mut acknowledged = 0;
    for round in 0..3 {
        let server = ServerProcess::start(&project);
        for _ in 0..5 {
            let answer = predict(&server, &json!({"vectors": [[1, 2, 3], [4, 5, 6]]}));
            ids.extend(answer["prediction_ids"].as_array().unwrap().clone());
        }
        let outcome = |id: &Json| json!({"prediction_id": id, "value": false, "event_time": round});
        let outcomes: Vec<Json> = ids[acknowledged..].iter().map(outcome).collect();
        let reply = server.post_json("/v1/outcomes", &json!(outcomes));
        assert_eq!(
            (reply.status, reply.json()["accepted"].as_u64()),
            (200, Some(10)),
            "{}",
            reply.body
        );
        acknowledged = ids.len();
        // Revised, and sent once more.
        let revised =
            json!([{"prediction_id": ids[0], "value": round + 10, "event_time": 100 + round}]);
        for _ in 0..2 {
            assert_eq!(server.post_json("/v1/outcomes", &revised).status, 200);
        }
        server.kill();
    }
    let server = ServerProcess::start(&project);
    let facts = server.get("/v1/facts/outcome?limit=1000").json();
    let facts = facts["facts"].as_array().unwrap();
    assert_eq!(facts.len(), acknowledged);
    let of = |fact: &Json, name: &str| fact["fact"][name].clone();
    for id in &ids {
        let found = facts
            .iter()
            .find(|f| of(f, "prediction_id") == *id)
            .unwrap();
        let wanted = if *id == ids[0] { 12.0 } else { 0.0 };
        assert_eq!(of(found, "value").as_f64(), Some(wanted));
    }
    let mut unique: Vec<String> = ids.iter().map(Json::to_string).collect();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), ids.len(), "processes share ids");
    assert!(server.stop());
}
