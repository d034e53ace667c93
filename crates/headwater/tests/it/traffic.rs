//! A model whose rows are shared out, shadowed and remembered, from outside: across restarts, and in its facts.

use std::collections::BTreeMap;

use headwater_testkit::{ServerProcess, TempProject};
use serde_json::{Value as Json, json};

use crate::predict::{first, predictions, second, send_purchases, shop};

const TRAFFIC: &str = "  cache: {}
  traffic: {by: customer, arms: [{alias: canary, share: 0.5}], shadow: [next]}
";

fn rows() -> Json {
    let entities: Vec<Json> = (0..40)
        .map(|n| json!({"customer": format!("x{n}")}))
        .collect();
    let context = vec![json!({"country": "fr", "factor": 0.25}); 40];
    json!({"entities": entities, "context": context, "deadline_ms": 30_000})
}

fn ask(server: &ServerProcess) -> Json {
    let reply = server.post_json("/v1/models/fraud/predict", &rows());
    assert_eq!(reply.status, 200, "{}", reply.body);
    reply.json()
}

fn aliases(answer: &Json) -> Vec<String> {
    let by = answer["answered_by"].as_array().unwrap().iter();
    by.map(|by| by["alias"].as_str().unwrap().to_owned())
        .collect()
}

fn add(project: &TempProject, file: &str, version: &str, alias: &str) {
    let add = [
        "models",
        "add",
        "fraud",
        file,
        "--version",
        version,
        "--alias",
        alias,
    ];
    project.run_ok(&add);
}

#[test]
fn arms_stay_across_restarts_and_facts_say_who_answered_and_from_what() {
    let project = shop(TRAFFIC);
    project.write("one.model", first());
    project.write("two.model", second());
    add(&project, "one.model", "1", "live");
    add(&project, "two.model", "2", "canary");
    add(&project, "two.model", "2", "next");
    let server = ServerProcess::start(&project);
    send_purchases(&server);
    let answer = ask(&server);
    let arms = aliases(&answer);
    let canary = arms.iter().filter(|arm| *arm == "canary").count();
    assert!(
        (8..32).contains(&canary) && answer["version"].is_null(),
        "{answer}"
    );
    // All customers are unknown, so that the rows of an arm are the same; each is worked out once.
    let mut outputs: BTreeMap<&String, &Json> = BTreeMap::new();
    for (arm, row) in arms.iter().zip(answer["outputs"].as_array().unwrap()) {
        assert_eq!(*outputs.entry(arm).or_insert(row), row);
    }
    assert_ne!(outputs.values().next(), outputs.values().last());
    let metric = |server: &ServerProcess, name: &str| -> f64 {
        let text = server.get("/metrics").body;
        let line = text
            .lines()
            .find(|l| l.starts_with(&format!("headwater_{name}{{")));
        line.unwrap().rsplit_once(' ').unwrap().1.parse().unwrap()
    };
    assert_eq!(metric(&server, "prediction_cache_misses_total"), 2.0);
    assert_eq!(metric(&server, "prediction_cache_hits_total"), 38.0);
    let facts = predictions(&server, 80);
    let of = |fact: &Json, name: &str| fact["fact"][name].clone();
    let (shadows, live): (Vec<_>, Vec<_>) =
        facts.iter().partition(|f| !of(f, "shadow_of").is_null());
    assert_eq!((shadows.len(), live.len()), (40, 40));
    let ids = answer["prediction_ids"].as_array().unwrap();
    for fact in &live {
        let row = ids.iter().position(|id| *id == of(fact, "id")).unwrap();
        assert_eq!(of(fact, "policy"), json!(arms[row]));
        assert_eq!(of(fact, "version"), answer["answered_by"][row]["version"]);
        assert_eq!(
            (of(fact, "propensity"), of(fact, "experiment")),
            (json!(0.5), json!("fraud"))
        );
        let shadow = shadows
            .iter()
            .find(|s| of(s, "shadow_of") == ids[row])
            .unwrap();
        assert_eq!(
            (of(shadow, "policy"), of(shadow, "version")),
            (json!("next"), json!("2"))
        );
        assert_eq!(of(shadow, "features"), of(fact, "features"));
        if arms[row] == "canary" {
            assert_eq!(of(shadow, "outputs"), of(fact, "outputs"));
        }
    }
    assert_eq!(
        live.iter()
            .filter(|f| of(f, "cached") == json!(false))
            .count(),
        2
    );
    assert!(server.stop());
    let server = ServerProcess::start(&project);
    assert_eq!(aliases(&ask(&server)), arms);
    assert!(server.stop());
}
