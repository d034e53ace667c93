//! Fallbacks from outside: a model that was unloaded, and a version whose file is damaged.

use headwater_models::{LoadOptions, load};
use headwater_testkit::{ServerProcess, TempProject};
use serde_json::{Value as Json, json};

use crate::predict::{first, oracle, predictions, second, send_purchases, shop};

fn asked(customer: &str, factor: f64) -> Json {
    json!({"entities": [{"customer": customer}], "context": [{"country": "fr", "factor": factor}],
           "deadline_ms": 30_000})
}

fn predict(server: &ServerProcess, body: &Json) -> Json {
    let reply = server.post_json("/v1/models/fraud/predict", body);
    assert_eq!(reply.status, 200, "{}", reply.body);
    reply.json()
}

fn add(project: &TempProject, file: &str, version: &str, alias: &str) {
    let add = ["models", "add", "fraud", file, "--version", version];
    project.run_ok(&[&add[..], &["--alias", alias]].concat());
}

#[test]
fn an_unloaded_model_is_answered_by_what_it_said_last_and_by_its_constant() {
    let project = shop("  fallback: [{last_good: 10m}, {constant: 0.25}]\n");
    add(&project, "one.model", "1", "live");
    let server = ServerProcess::start(&project);
    send_purchases(&server);
    let good = predict(&server, &asked("c0", 0.25));
    assert_eq!(good["degraded"], false);
    let call = |call: &str| {
        let path = format!("/v2/repository/models/fraud/{call}");
        assert_eq!(server.post_json(&path, &json!({})).status, 200);
    };
    call("unload");
    let name = good["outputs"][0]
        .as_object()
        .unwrap()
        .keys()
        .next()
        .unwrap();
    let constant = json!([{ (name.as_str()): 0.25 }]);
    for (body, fallback, outputs) in [
        (asked("c0", 0.25), "last_good", &good["outputs"]),
        (asked("c0", 1000.0), "constant", &constant),
        (asked("c1", 0.25), "constant", &constant),
    ] {
        let answer = predict(&server, &body);
        let told = (&answer["degraded"], &answer["reason"]["code"]);
        assert_eq!(told, (&json!(true), &json!("no-live-version")));
        assert_eq!(answer["reason"]["fallback"], fallback, "{answer}");
        assert_eq!(
            (&answer["outputs"], &answer["version"]),
            (outputs, &Json::Null)
        );
    }
    // What was counted of it before is counted still.
    let metrics = server.get("/metrics").body;
    let answered = |line: &&str| line.starts_with("headwater_predictions_answered_total{");
    let answered = metrics.lines().find(answered).unwrap();
    assert!(answered.ends_with(" 1"), "{answered}");
    call("load");
    let again = predict(&server, &asked("c1", 1000.0));
    assert_eq!(again["degraded"], false);
    assert!(server.stop());
}

#[test]
fn another_version_answers_for_one_whose_file_is_damaged() {
    let project = shop("  fallback: [{alias: stable}]\n");
    add(&project, "one.model", "1", "live");
    add(&project, "two.model", "2", "stable");
    let files = project.path().join(".headwater/models/files");
    let damaged = std::fs::read_dir(files).unwrap().filter(|entry| {
        let path = entry.as_ref().unwrap().path();
        let is_live = std::fs::read(&path).unwrap() == first().into_bytes();
        if is_live {
            std::fs::write(&path, first().replace("0.25", "0.75")).unwrap();
        }
        is_live
    });
    assert_eq!(damaged.count(), 1);
    let server = ServerProcess::start(&project);
    send_purchases(&server);
    let answer = predict(&server, &asked("c0", 0.25));
    let told = (&answer["degraded"], &answer["reason"]["fallback"]);
    assert_eq!(told, (&json!(true), &json!("alias")), "{answer}");
    assert_eq!(answer["version"], "2");
    let model = load(second().as_bytes(), &LoadOptions::default()).unwrap();
    let wanted = oracle(model.as_ref(), &server, "c0", "fr", &answer);
    let outputs = answer["outputs"][0].as_object().unwrap();
    let output = outputs.values().next().unwrap().as_f64().unwrap();
    assert_eq!(output.to_bits(), wanted.to_bits());
    let facts = predictions(&server, 1);
    let fact = &facts[0]["fact"];
    let told = (&fact["policy"], &fact["version"], &fact["degraded"]);
    let reason = &answer["reason"]["code"];
    assert_eq!(told, (&json!("stable"), &json!("2"), reason));
    assert!(server.stop());
}
