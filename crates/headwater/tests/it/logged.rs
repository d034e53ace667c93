//! Training sets whose spine is the log of predictions: each row is read at its prediction's own cursor, and has the bits
//! that were served, whatever has come since; and labels of what became. Vectors of the log, scored again.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use headwater_schema::decode::{BodyFormat, read_record_batches};
use headwater_schema::time::parse_timestamp;
use headwater_schema::{Value, json_text, value_to_text};
use headwater_testkit::{ServerProcess, TempProject};
use serde_json::{Value as Json, json};

use crate::predict::{predictions, send_purchases, shop};

/// Every prediction that features were read for, as a row of a spine: `docs/training-sets.md` has it, too.
const SPINE: &str = "\
SELECT id, entities['customer'] AS customer, time AS as_of, known_at,
       nullif(trim(BOTH '\"' FROM context['country']), 'null') AS country,
       CAST(nullif(context['factor'], 'null') AS DOUBLE) AS factor
FROM facts.prediction WHERE known_at IS NOT NULL";
/// What each format is called by `query`, and over HTTP.
const FORMATS: [(&str, &str); 4] = [
    ("csv", "text/csv"),
    ("ndjson", "application/x-ndjson"),
    ("arrow", "application/vnd.apache.arrow.stream"),
    ("parquet", "application/vnd.apache.parquet"),
];
const TRAINING_SETS: &str = "/v1/training-sets?feature_set=fraud_inputs&inclusive=true";
const SECOND: i64 = 1_000_000;

fn ok(server: &ServerProcess, path: &str, body: &Json) {
    let reply = server.post_json(path, body);
    assert_eq!(reply.status, 200, "{path} {body}: {}", reply.body);
    assert!(!reply.body.contains("\"reason\""), "{path}: {}", reply.body);
}

fn purchase(id: &str, customer: &str, amount: f64, ago: i64) -> Json {
    let now = headwater::Env::real().clock.now();
    json!({"id": id, "customer": customer, "amount": amount, "time": now - ago * SECOND})
}

/// Asks in turns; between them purchases come, new ones and late ones, and others are revised and taken back. How many
/// predictions there are that features were read for.
fn ask_while_facts_come(server: &ServerProcess) -> usize {
    let contexts = [
        json!({"country": "fr", "factor": 1.0 / 3.0}),
        json!({"country": "xx", "factor": -1e-3}),
        json!({"country": null, "factor": null}),
    ];
    let customers = ["c0", "c1", "c2", "nobody"];
    let mut asked = 0;
    for turn in 0..5 {
        let rows: Vec<Json> = customers.iter().map(|c| json!({"customer": c})).collect();
        let context = (0..rows.len()).map(|row| contexts[(turn + row) % contexts.len()].clone());
        let body = json!({"entities": rows, "context": context.collect::<Vec<_>>(), "deadline_ms": 30_000});
        ok(server, "/v1/models/fraud/predict", &body);
        asked += rows.len();
        let facts: Vec<Json> = customers
            .iter()
            .enumerate()
            .map(|(place, customer)| {
                let ago = [0, 90, 1200, 5][(turn + place) % 4];
                let amount = 0.1 + 0.7 * (turn + place) as f64;
                purchase(&format!("q{turn}-{customer}"), customer, amount, ago)
            })
            .collect();
        ok(server, "/v1/facts/purchase", &json!(facts));
        let revised = purchase(&format!("p{turn}"), "c1", 1.1 * turn as f64, 7);
        ok(server, "/v1/facts/purchase?revise=true", &json!([revised]));
        let gone = json!({"fact_ids": [format!("p{}", 20 + turn)]});
        ok(server, "/v1/facts/purchase/retract", &gone);
    }
    // Nothing is read for the model's own inputs.
    let own = json!({"vectors": [[1, "fr", 3]], "deadline_ms": 30_000});
    ok(server, "/v1/models/fraud/predict", &own);
    asked
}

fn table(bytes: &[u8]) -> RecordBatch {
    let batches = read_record_batches(BodyFormat::ArrowStream, bytes).unwrap();
    let batches: Vec<_> = batches.map(Result::unwrap).collect();
    arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap()
}

type Features = BTreeMap<String, BTreeMap<String, String>>;

/// What was served, by prediction and feature.
fn served(facts: &[Json]) -> Features {
    let with_features = facts.iter().map(|fact| &fact["fact"]);
    let with_features = with_features.filter(|fact| !fact["features"].is_null());
    let text = |json: &Json| json.as_str().unwrap_or("null").to_owned();
    let features = |fact: &Json| {
        let features = fact["features"].as_array().unwrap().iter();
        features
            .map(|f| (text(&f["name"]), text(&f["value"])))
            .collect()
    };
    with_features
        .map(|fact| (text(&fact["id"]), features(fact)))
        .collect()
}

/// The same of a training set, whose features come behind the spine's columns.
fn made(table: &RecordBatch, columns: usize) -> Features {
    let ids = table.column_by_name("id").unwrap();
    let id = |row: usize| value_to_text(&Value::from_array(ids, row));
    let schema = table.schema();
    let features = |row: usize| {
        let added = schema.fields().iter().zip(table.columns()).skip(columns);
        added
            .map(|(field, column)| {
                let value = Value::from_array(column, row);
                (field.name().clone(), json_text(&value))
            })
            .collect()
    };
    (0..table.num_rows())
        .map(|row| (id(row), features(row)))
        .collect()
}

/// Writes the spine, in a format, from what a server has.
fn write_spine(project: &TempProject, server: &ServerProcess, sql: &str, format: &str) -> Vec<u8> {
    let query = ["--server", &server.url, "query", sql, "--format", format];
    let asked = project.run(&query);
    let told = String::from_utf8_lossy(&asked.stderr);
    assert!(asked.status.success(), "{format}: {told}");
    project.write(&format!("spine.{format}"), &asked.stdout);
    asked.stdout
}

#[test]
fn a_spine_of_logged_predictions_has_the_features_that_were_served() {
    let project = shop("");
    project.run_ok(&["models", "add", "fraud", "one.model", "--alias", "live"]);
    let server = ServerProcess::start(&project);
    send_purchases(&server);
    let asked = ask_while_facts_come(&server);
    let served = served(&predictions(&server, asked + 1));
    assert_eq!(served.len(), asked);
    // What comes once all are logged is older than each of them.
    let late: Vec<Json> = ["c0", "c1", "c2", "nobody"]
        .iter()
        .map(|c| purchase(&format!("late-{c}"), c, 1e6, 1500))
        .collect();
    ok(&server, "/v1/facts/purchase", &json!(late));
    let make = ["training-set", "--set", "fraud_inputs", "--inclusive"];
    for (format, media_type) in FORMATS {
        let spine = write_spine(&project, &server, SPINE, format);
        let reply = server.post(TRAINING_SETS, media_type, &spine);
        assert_eq!(reply.status, 200, "{format}: {}", reply.body);
        assert_eq!(made(&table(&reply.bytes), 6), served, "{format} over HTTP");
    }
    // Read at the same times with all that is known by now, no row that somebody was asked about is what it was.
    let now = SPINE.replace(" known_at,", "");
    assert_ne!(now, SPINE);
    let spine = write_spine(&project, &server, &now, "arrow");
    let reply = server.post(TRAINING_SETS, FORMATS[2].1, &spine);
    assert_eq!(reply.status, 200, "{}", reply.body);
    let by_now = made(&table(&reply.bytes), 5);
    assert_eq!(by_now.len(), served.len());
    assert!(served.iter().all(|(id, features)| by_now[id] != *features));
    write_spine(&project, &server, SPINE, "arrow");
    assert!(server.stop());
    for (format, _) in FORMATS {
        let spine = format!("spine.{format}");
        project.run_ok(&[&make[..], &["--spine", &spine, "--out", "out.arrow"]].concat());
        let bytes = std::fs::read(project.path().join("out.arrow")).unwrap();
        assert_eq!(made(&table(&bytes), 6), served, "{format} beside the data");
    }
}

/// Labels of what a prediction was made about, and of its outcome: `docs/training-sets.md` has the second, too.
const LABELS: &str = "\
apiVersion: headwater/v1
kind: Label
name: buys
spec: {contract: purchase, match: customer, horizon: 1h, aggregate: count}
---
apiVersion: headwater/v1
kind: Label
name: outcome_value
spec: {contract: outcome, match: {prediction_id: id}, horizon: 30d, value: value}
";
const LABELLED: &str = "&labels=buys,outcome_value";

fn values(table: &RecordBatch, column: &str) -> BTreeMap<String, Value> {
    let (ids, column) = (table.column_by_name("id"), table.column_by_name(column));
    let (ids, column) = (ids.unwrap(), column.unwrap());
    let row = |row| {
        let id = value_to_text(&Value::from_array(ids, row));
        (id, Value::from_array(column, row))
    };
    (0..table.num_rows()).map(row).collect()
}

fn time(fact: &Json) -> i64 {
    parse_timestamp(fact["event_time"].as_str().unwrap(), None).unwrap()
}

#[test]
fn labels_join_what_became_to_logged_predictions() {
    let project = shop("");
    project.write("models/labels.yaml", LABELS);
    project.run_ok(&["apply"]);
    project.run_ok(&["models", "add", "fraud", "one.model", "--alias", "live"]);
    let server = ServerProcess::start(&project);
    send_purchases(&server);
    let asked = ask_while_facts_come(&server);
    let mut facts = predictions(&server, asked + 1);
    facts.retain(|fact| !fact["fact"]["known_at"].is_null());
    // Two of three have an outcome; every sixth is revised, every sixth taken back.
    let now = headwater::Env::real().clock.now();
    let mut outcomes: BTreeMap<String, Value> = BTreeMap::new();
    for (place, fact) in facts.iter().enumerate() {
        let id = fact["fact"]["id"].as_str().unwrap().to_owned();
        let tell = |value: usize| {
            let told = json!([{"prediction_id": id, "value": value, "event_time": now + SECOND}]);
            ok(&server, "/v1/outcomes", &told);
            Value::Float(value as f64)
        };
        let value = match place % 6 {
            0 | 3 => Value::Null,
            1 => {
                tell(place + 100);
                tell(place)
            }
            2 => {
                tell(place);
                let gone = json!({ "fact_ids": [id] });
                ok(&server, "/v1/facts/outcome/retract", &gone);
                Value::Null
            }
            _ => tell(place),
        };
        outcomes.insert(id, value);
    }
    let spine = write_spine(&project, &server, SPINE, "arrow");
    let make = |more: &str| {
        let path = format!("{TRAINING_SETS}{LABELLED}{more}");
        let reply = server.post(&path, FORMATS[2].1, &spine);
        assert_eq!(reply.status, 200, "{}", reply.body);
        table(&reply.bytes)
    };
    let labelled = make("&labels_as_of=2100-01-01T00:00:00Z");
    assert_eq!(values(&labelled, "outcome_value"), outcomes);
    // Purchases that came after a prediction, counted one by one.
    let purchases = server.get("/v1/facts/purchase?limit=1000").json();
    let buys = facts.iter().map(|fact| {
        let (id, customer) = (&fact["fact"]["id"], &fact["fact"]["entities"]["customer"]);
        let (from, until) = (time(fact), time(fact) + 3600 * SECOND);
        let all = purchases["facts"].as_array().unwrap().iter();
        let of_row = all.filter(|p| p["fact"]["customer"] == *customer);
        let count = of_row.filter(|p| from < time(p) && time(p) <= until);
        let count = i64::try_from(count.count()).unwrap();
        (id.as_str().unwrap().to_owned(), Value::Int(count))
    });
    let buys: BTreeMap<String, Value> = buys.collect();
    assert!(
        buys.values().any(|count| *count != Value::Int(0)),
        "{buys:?}"
    );
    assert_eq!(values(&labelled, "buys"), buys);
    // The features beside them are those that were served.
    let mut features = made(&labelled, 6);
    for row in features.values_mut() {
        row.retain(|name, _| !["buys", "outcome_value"].contains(&name.as_str()));
    }
    assert_eq!(features, served(&facts));
    // Until its horizon a label is unknown.
    let unknown = values(&make(""), "outcome_value");
    assert!(unknown.values().all(Value::is_null), "{unknown:?}");
    assert!(server.stop());
}

/// The rows that models were given, as `score --vectors` takes them: `docs/models.md` has it, too.
const VECTORS: &str = "\
SELECT id, vector[1] AS amount, texts[2] AS country, vector[3] AS age
FROM facts.prediction WHERE vector IS NOT NULL";

#[test]
fn logged_vectors_are_scored_again_to_the_bit() {
    let project = shop("");
    project.run_ok(&["models", "add", "fraud", "one.model", "--alias", "live"]);
    let server = ServerProcess::start(&project);
    let rows = json!([
        [1.5, "pt", null],
        [-3, "de", 7.25],
        [1, "fr", 3],
        [0.1, null, 2],
        [1, "xx", 1],
        [true, 5, 3]
    ]);
    let body = json!({"vectors": rows, "deadline_ms": 30_000});
    ok(&server, "/v1/models/fraud/predict", &body);
    // As columns of their own, in another order.
    let column = |name: &str, datatype: &str, data: Json| json!({"name": name, "datatype": datatype, "shape": [3], "data": data});
    let inputs = json!([
        column("country", "BYTES", json!(["fr", "xx", "pt"])),
        column("age", "FP64", json!([3, 1, null])),
        column("amount", "FP64", json!([1, 1, -0.1])),
    ]);
    ok(
        &server,
        "/v2/models/fraud/infer",
        &json!({ "inputs": inputs }),
    );
    // Nothing is text where all are numbers.
    let numbers = json!({"vectors": [[1, null, 3]], "deadline_ms": 30_000});
    ok(&server, "/v1/models/fraud/predict", &numbers);
    let facts = predictions(&server, 10);
    let without_texts = |fact: &&Json| fact["fact"]["texts"].is_null();
    assert_eq!(facts.iter().filter(without_texts).count(), 2, "{facts:?}");
    let told = facts.iter().map(|fact| &fact["fact"]);
    let texts = told.filter(|fact| fact["vector"] == json!([1.0, null, 3.0]));
    let mut texts: Vec<String> = texts.map(|fact| fact["texts"].to_string()).collect();
    texts.sort();
    let wanted = [
        "[null,\"5\",null]",
        "[null,\"fr\",null]",
        "[null,\"fr\",null]",
        "null",
    ];
    assert_eq!(texts, wanted);
    let logged: BTreeMap<String, u64> = facts
        .iter()
        .map(|fact| {
            let outputs = fact["fact"]["outputs"].as_object().unwrap();
            let output = outputs.values().next().unwrap().as_f64().unwrap();
            (
                fact["fact"]["id"].as_str().unwrap().to_owned(),
                output.to_bits(),
            )
        })
        .collect();
    let name = facts[0]["fact"]["outputs"].as_object().unwrap();
    let name = name.keys().next().unwrap();
    let again = |sql: &str| {
        write_spine(&project, &server, sql, "parquet");
        let score = [
            "score",
            "--model",
            "fraud",
            "--vectors",
            "--server",
            &server.url,
        ];
        let files = ["--in", "spine.parquet", "--out", "scores.arrow"];
        project.run_ok(&[&score[..], &files].concat());
        let scored = std::fs::read(project.path().join("scores.arrow")).unwrap();
        let outputs = values(&table(&scored), name).into_iter();
        let bits = outputs.map(|(id, output)| match output {
            Value::Float(output) => (id, output.to_bits()),
            other => panic!("{other:?}"),
        });
        bits.collect::<BTreeMap<_, _>>()
    };
    assert_eq!(again(VECTORS), logged);
    // Without their texts some rows are others.
    let without = VECTORS.replace("texts[2]", "CAST(NULL AS VARCHAR)");
    assert_ne!(again(&without), logged);
    assert!(server.stop());
}
