//! Writes a fixture of the present formats.

use std::fs;
use std::path::Path;

use headwater::api::AuditEvent;
use headwater::api::backend::{EntityRequest, IngestOptions, KeyValue};
use headwater::schema::decode::BodyFormat;
use headwater::serve::{InputRows, NewVersion, PredictRequest};
use headwater::{AuditLog, AuditSettings, Engine, Env, KeyFile, Project, apply_project};
use headwater_api::Role;
use headwater_facts::FactLog;
use headwater_features::OUTCOME;
use headwater_schema::Value;
use headwater_testkit::fuzz::TARGETS;
use headwater_testkit::fuzz::documents::{self, visits};
use serde_json::json;

use crate::{BUILT_IN, CODECS, MODEL, STATES, config, copy, meaning, open, seen, send, text};

/// What the contract says of its facts: some are let go.
const RETENTION: &str = "      - {property: headwater.retention, value: 3650d}\n";

const MODELS: &str = "\
---
apiVersion: headwater/v1
kind: Model
name: score
owner: people
spec:
  feature_set: all
  inputs: {amount: habits.mean_7d, age: habits.seen_1m}
";

/// A linear model, as its file is.
fn linear(amount: f64) -> Vec<u8> {
    let inputs = json!(["amount", {"name": "age", "mean": 40, "scale": 10, "missing": 40}]);
    let model = json!({"format": "headwater-linear/1", "link": "logit", "inputs": inputs,
                       "coefficients": [amount, -1.0], "intercepts": [0.5]});
    model.to_string().into_bytes()
}

/// A fact that is let go.
pub fn old(number: u64) -> String {
    json!({"id": format!("old{number}"), "who": "ada", "amount": number, "time": number})
        .to_string()
}

pub fn write(folder: &Path) {
    let project = tempfile::tempdir().unwrap();
    let contracts = [documents::CONTRACT, RETENTION, "---\n", visits::CONTRACT].concat();
    let definitions = [documents::DEFINITIONS, "---\n", visits::DEFINITIONS, MODELS].concat();
    fs::write(project.path().join("headwater.yaml"), "name: fixture\n").unwrap();
    fs::write(project.path().join("contracts.yaml"), contracts).unwrap();
    fs::write(project.path().join("features.yaml"), definitions).unwrap();
    let loaded = Project::load(&Env::real(), project.path()).unwrap();
    let data = project.path().join("data");
    apply_project(&Env::real(), &loaded, &data).unwrap();
    write_facts(&data);
    let engine = open(&data);
    write_models(&engine);
    write_predictions(&engine);
    engine.close().expect("closed");
    write_keys(&data);
    // What the next start would remove anyway, and what is of one process.
    let _ = fs::remove_dir_all(data.join("facts/restored"));
    let _ = fs::remove_file(data.join("LOCK"));
    copy(&data, &folder.join("data"));
    fs::write(folder.join("seen.json"), text(&meaning(&data, true))).unwrap();
    fs::write(folder.join(BUILT_IN), text(&seen::built_in())).unwrap();
    write_codecs(folder);
}

/// Facts, of which the oldest go, the next are in the archive alone, and the newest in the log alone.
fn write_facts(data: &Path) {
    let engine = open(data);
    let now = |engine: &Engine, body: &str| send(engine, "every", body, false);
    for number in 0..20 {
        now(&engine, &old(number));
    }
    now(&engine, &documents::ndjson());
    // So many that states fold some.
    send(
        &engine,
        "visit",
        &visits::ndjson(0..visits::ROWS - 50),
        false,
    );
    now(&engine, "{\"id\":\"bad\",\"amount\":\"much\",\"time\":0}");
    engine.close().expect("closed");
    let engine = open(data);
    assert!(engine.facts_log().first_sequence() > 1, "none went");
    engine
        .archive_now(std::time::Duration::MAX)
        .expect("archived");
    let later = documents::ROWS.iter();
    let later = later.map(|row| row.replace("{\"id\":\"a", "{\"id\":\"b"));
    now(&engine, &later.collect::<Vec<_>>().join("\n"));
    let revised = documents::ROWS[0].replace("1.5,\"price\"", "2.5,\"price\"");
    send(&engine, "every", &revised, true);
    let retract = |contract: &str, ids: &[&str]| {
        let ids = ids.iter().map(|id| (*id).to_owned()).collect();
        engine.retract(contract, ids).expect("taken back");
    };
    retract("every", &["a5"]);
    now(&engine, &documents::ROWS[4].replace("a5", "c5"));
    send(
        &engine,
        "visit",
        &visits::ndjson(visits::ROWS - 50..visits::ROWS),
        false,
    );
    let revised = visits::ndjson(7..8).replace("\"east\"", "\"west\"");
    send(&engine, "visit", &revised, true);
    retract("visit", &["v9", "v391"]);
    engine.close().expect("closed");
}

fn write_models(engine: &Engine) {
    let version = |name: &str, aliases: &[&str]| NewVersion {
        version: Some(name.into()),
        aliases: aliases.iter().map(|a| (*a).to_owned()).collect(),
        owner: Some("people".into()),
        description: Some("Fit by hand".into()),
        metrics: [("auc".to_owned(), 0.75)].into(),
        ..NewVersion::default()
    };
    let add = |name, aliases: &[&str], amount| {
        let added = engine.add_model(MODEL, linear(amount), &version(name, aliases));
        added.expect("added");
    };
    add("1", &["live", "stable"], 2.0);
    add("2", &[], -0.5);
    engine.promote(MODEL, "live", "2").expect("promoted");
}

/// Predictions by entities and by the model's own inputs, and what became of some.
fn write_predictions(engine: &Engine) {
    let person = |who: &str| {
        let key = KeyValue::Scalar(Value::string(who));
        EntityRequest::from([("person".to_owned(), key)])
    };
    let entities = InputRows::Entities {
        entities: vec![person("ada"), person("nobody")],
        context: Vec::new(),
        candidates: None,
    };
    let own = InputRows::Vectors(vec![vec![Value::Float(2.5), Value::Null]]);
    let mut outcomes = String::new();
    for (number, rows) in [entities, own].into_iter().enumerate() {
        let asked = PredictRequest {
            model: MODEL.to_owned(),
            version: None,
            rows,
            deadline: Some(30_000_000),
            explain: false,
            request_id: format!("fixture-{number}"),
            cursor: None,
        };
        let answered = engine.predict(asked).expect("answered");
        assert!(answered.degraded.is_none());
        let id = &answered.prediction_ids[0];
        let outcome = json!({"prediction_id": id, "value": number, "label": "kept", "time": "2026-01-31T12:00:00Z"});
        outcomes += &format!("{outcome}\n");
    }
    let options = IngestOptions {
        all_or_nothing: true,
        revise: false,
    };
    let told = engine.ingest(OUTCOME, BodyFormat::Ndjson, outcomes.as_bytes(), options);
    assert_eq!(told.expect("told").accepted, 2);
}

fn write_keys(data: &Path) {
    let keys = KeyFile::new(Env::real(), &config(), data, data);
    let later = headwater::schema::time::parse_timestamp("2100-01-01T00:00:00Z", None).unwrap();
    keys.create("robot", &[Role::Write, Role::Read], None)
        .unwrap();
    let (revoked, _) = keys.create("person", &[Role::Admin], Some(later)).unwrap();
    keys.revoke(&revoked.id).unwrap();
    let _ = fs::remove_file(data.join("keys.lock"));
    let audit = AuditLog::new(Env::real(), data, AuditSettings::default());
    for (actor, action) in [
        ("command line", "key.create"),
        (revoked.id.as_str(), "key.use"),
    ] {
        audit
            .append(&AuditEvent::new(actor, action, "person", "ok"))
            .unwrap();
    }
}

fn write_codecs(folder: &Path) {
    let (codecs, states) = (folder.join("codecs"), folder.join("states"));
    fs::create_dir_all(&codecs).unwrap();
    fs::create_dir_all(&states).unwrap();
    for target in TARGETS.iter().filter(|t| CODECS.contains(&t.name)) {
        for (index, bytes) in (target.seeds)().iter().enumerate() {
            fs::write(codecs.join(format!("{}-{index}.bin", target.name)), bytes).unwrap();
        }
    }
    let mut said = serde_json::Map::new();
    for (name, view) in STATES {
        let target = TARGETS.iter().find(|t| t.name == name).unwrap();
        for (index, bytes) in (target.seeds)().iter().enumerate() {
            let number = format!("{view}-{index}");
            fs::write(states.join(format!("{}-{number}.bin", bytes[0])), bytes).unwrap();
            said.insert(number, seen::state(view, bytes));
        }
    }
    fs::write(folder.join("states.json"), text(&said.into())).unwrap();
}
