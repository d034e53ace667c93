//! Values of every type go in and come out alike: what one interface writes, every other reads as the same value.

use headwater_schema::Value;
use headwater_schema::decode::value_to_json;
use headwater_testkit::{ServerProcess, TempProject};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use serde_json::{Map, Value as Json, json};

use crate::BINARY;

/// Name and ODCS type of a column of every type, nested ones too.
const COLUMNS: [(&str, &str); 12] = [
    ("flag", "logicalType: boolean"),
    ("whole", "logicalType: integer"),
    ("real", "logicalType: number"),
    (
        "price",
        "logicalType: number, physicalType: 'decimal(30,4)'",
    ),
    ("text", "logicalType: string"),
    ("raw", "logicalType: string, physicalType: bytes"),
    ("at", "logicalType: timestamp"),
    ("day", "logicalType: date"),
    (
        "raws",
        "logicalType: array, items: {logicalType: string, physicalType: bytes}",
    ),
    (
        "spot",
        "logicalType: object, properties: [{name: raw, logicalType: string, physicalType: bytes}, {name: day, logicalType: date}, {name: x, logicalType: number}]",
    ),
    (
        "parts",
        "logicalType: object, physicalType: 'map<string,double>'",
    ),
    (
        "blobs",
        "logicalType: object, physicalType: 'map<string,binary>'",
    ),
];

fn contract(name: &str) -> String {
    let columns = COLUMNS.map(|(name, kind)| format!("      - {{name: {name}, {kind}}}\n"));
    format!(
        "\
kind: DataContract
apiVersion: v3.1.0
id: {name}
version: 1.0.0
status: active
schema:
  - name: {name}
    properties:
      - {{name: id, logicalType: string, required: true}}
      - {{name: time, logicalType: timestamp, required: true}}
{}    customProperties:
      - {{property: headwater.eventTime, value: time}}
      - {{property: headwater.factId, value: id}}
",
        columns.concat()
    )
}

fn definitions() -> String {
    let latest = COLUMNS.map(|(name, _)| format!("    - {{name: {name}, of: {name}}}\n"));
    format!(
        "\
{{apiVersion: headwater/v1, kind: Entity, name: thing, spec: {{keys: [{{name: id, type: string}}]}}}}
---
apiVersion: headwater/v1
kind: FeatureView
name: first
spec:
  entity: thing
  sources: [{{contract: first}}]
  features:
    - {{name: time, of: time}}
    - {{name: raws_seen, aggregate: histogram, of: raw}}
{}---
{{apiVersion: headwater/v1, kind: FeatureSet, name: all, spec: {{features: ['first.*']}}}}
",
        latest.concat()
    )
}

fn bytes() -> impl Strategy<Value = Value> {
    proptest::collection::vec(any::<u8>(), 0..9).prop_map(|bytes| Value::Bytes(bytes.into()))
}

fn day() -> impl Strategy<Value = Value> {
    (-40_000i32..60_000).prop_map(Value::Date)
}

fn real() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<f64>().prop_filter("JSON has none", |f| f.is_finite()),
        Just(0.1 + 0.2),
        Just(1e17),
    ]
    .prop_map(Value::Float)
}

fn map(of: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
    proptest::collection::btree_map("[a-z é]{0,3}", of, 0..4).prop_map(|entries| {
        let entries = entries.into_iter();
        Value::Map(entries.map(|(k, v)| (Value::string(k), v)).collect())
    })
}

/// The columns' values, as in [`COLUMNS`]; some are null.
fn row() -> impl Strategy<Value = Vec<Value>> {
    let unscaled = -(10i128.pow(30) - 1)..10i128.pow(30);
    let spot = (bytes(), day(), real()).prop_map(|(raw, day, x)| {
        let members = [("raw", raw), ("day", day), ("x", x)];
        Value::Struct(members.map(|(n, v)| (n.into(), v)).into())
    });
    let plain: [BoxedStrategy<Value>; 12] = [
        any::<bool>().prop_map(Value::Bool).boxed(),
        any::<i64>().prop_map(Value::Int).boxed(),
        real().boxed(),
        unscaled
            .prop_map(|unscaled| Value::Decimal { unscaled, scale: 4 })
            .boxed(),
        "\\PC{0,6}|[a\",\n '|]{0,5}".prop_map(Value::string).boxed(),
        bytes().boxed(),
        (-4_000_000_000_000_000i64..7_000_000_000_000_000)
            .prop_map(Value::Timestamp)
            .boxed(),
        day().boxed(),
        proptest::collection::vec(bytes(), 0..4)
            .prop_map(|items| Value::List(items.into()))
            .boxed(),
        spot.boxed(),
        map(real()).boxed(),
        map(bytes()).boxed(),
    ];
    plain
        .map(|values| prop_oneof![9 => values, 1 => Just(Value::Null)])
        .into_iter()
        .collect::<Vec<_>>()
}

/// The facts of a contract, by id, as the server lists them.
fn listed(server: &ServerProcess, contract: &str) -> Vec<Json> {
    let reply = server.get(&format!("/v1/facts/{contract}?limit=1000"));
    facts(&reply.json(), false)
}

/// Facts without what the log adds, in the order of their ids; `known` leaves out fields that no contract names.
fn facts(listing: &Json, known: bool) -> Vec<Json> {
    let facts = listing["facts"].as_array().expect("facts").iter();
    let mut facts: Vec<Json> = facts.map(|f| f["fact"].clone()).collect();
    for fact in facts.iter_mut().filter(|_| known) {
        let fact = fact.as_object_mut().expect("an object");
        fact.retain(|name, _| {
            name == "id" || name == "time" || COLUMNS.iter().any(|(c, _)| c == name)
        });
    }
    facts.sort_by_key(|fact| fact["id"].as_str().map(str::to_owned));
    facts
}

fn accepted(reply: &headwater_testkit::Reply, rows: usize) {
    assert_eq!(reply.status, 200, "{}", reply.body);
    assert_eq!(reply.json()["accepted"], rows, "{}", reply.body);
}

/// Reads the features of every row, live and as Feast has them; the values by name, row by row.
fn read(server: &ServerProcess, ids: &[String]) -> (Vec<Json>, Vec<Json>) {
    let entities: Vec<Json> = ids.iter().map(|id| json!({"thing": id})).collect();
    let request =
        json!({"feature_set": "all", "entities": entities, "as_of": "2030-01-01T00:00:00Z"});
    let reply = server.post_json("/v1/features", &request);
    assert_eq!(reply.status, 200, "{}", reply.body);
    let reply = reply.json();
    let names = reply["names"].as_array().unwrap();
    let named = |values: &Json| {
        let named = names.iter().zip(values.as_array().unwrap());
        named
            .map(|(n, v)| (n.as_str().unwrap().replace("first.", ""), v.clone()))
            .collect::<Map<_, _>>()
    };
    let rows = reply["rows"].as_array().unwrap().iter();
    let live = rows
        .map(|row| Json::Object(named(&row["values"])))
        .collect();
    let request = json!({"feature_service": "all", "entities": {"id": ids}});
    let reply = server.post_json("/get-online-features", &request);
    assert_eq!(reply.status, 200, "{}", reply.body);
    let reply = reply.json();
    let names = reply["metadata"]["feature_names"].as_array().unwrap();
    let row = |row: usize| {
        let columns = names.iter().zip(reply["results"].as_array().unwrap());
        let columns =
            columns.map(|(n, c)| (n.as_str().unwrap().to_owned(), c["values"][row].clone()));
        Json::Object(columns.collect())
    };
    (live, (0..ids.len()).map(row).collect())
}

#[test]
fn what_is_written_is_read_as_the_same_value_everywhere() {
    let files = [
        ("headwater.yaml", "name: values\n".to_owned()),
        ("first.yaml", contract("first")),
        ("second.yaml", contract("second")),
        ("third.yaml", contract("third")),
        ("fourth.yaml", contract("fourth")),
        ("features.yaml", definitions()),
    ];
    let files: Vec<(&str, &str)> = files.iter().map(|(n, t)| (*n, t.as_str())).collect();
    let project = TempProject::new(BINARY, &files);
    project.run_ok(&["apply"]);
    let server = ServerProcess::start(&project);
    let mut runner = proptest::test_runner::TestRunner::default();
    let rows = proptest::collection::vec(row(), 150..151);
    let rows = rows.new_tree(&mut runner).expect("rows").current();
    let sent: Vec<Json> = rows
        .iter()
        .enumerate()
        .map(|(index, row)| {
            let columns = COLUMNS
                .iter()
                .zip(row)
                .map(|((name, _), v)| ((*name).to_owned(), value_to_json(v)));
            let own = [
                ("id", format!("r{index:03}")),
                ("time", "2025-01-01T00:00:00Z".into()),
            ];
            let own = own.map(|(name, text)| (name.to_owned(), Json::from(text)));
            Json::Object(columns.chain(own).collect())
        })
        .collect();
    let ids: Vec<String> = sent
        .iter()
        .map(|f| f["id"].as_str().unwrap().to_owned())
        .collect();

    accepted(
        &server.post_json("/v1/facts/first", &json!(sent)),
        sent.len(),
    );
    assert_eq!(listed(&server, "first"), sent);
    let url = server.url.as_str();
    let told = project.run_ok(&[
        "--server", url, "--json", "facts", "get", "first", "--limit", "1000",
    ]);
    assert_eq!(
        facts(&serde_json::from_str(&told).expect("JSON"), false),
        sent
    );

    // What was listed is a body, too.
    accepted(
        &server.post_json("/v1/facts/second", &json!(listed(&server, "first"))),
        sent.len(),
    );
    assert_eq!(listed(&server, "second"), sent);

    let (live, feast) = read(&server, &ids);
    for ((fact, live), feast) in sent.iter().zip(&live).zip(&feast) {
        for (name, _) in COLUMNS {
            assert_eq!(fact[name], live[name], "{name}");
            // Feast has times as seconds.
            if !["at", "day", "spot"].contains(&name) {
                assert_eq!(fact[name], feast[name], "{name} as Feast has it");
            }
        }
        // The keys of maps are the values' texts.
        if let Some(raw) = fact["raw"].as_str() {
            assert_eq!(live["raws_seen"], json!({raw: 1}));
            assert_eq!(feast["raws_seen"], json!({raw: 1}));
        }
    }

    // SQL tells the same.
    let columns = COLUMNS.map(|(name, _)| format!("\"{name}\"")).join(", ");
    let sql = format!("SELECT {columns} FROM first ORDER BY id");
    let told = server.post_json("/v1/query", &json!({"sql": sql, "limit": 1000}));
    assert_eq!(told.status, 200, "{}", told.body);
    let told = told.json();
    for (row, fact) in sent.iter().enumerate() {
        for (place, (name, _)) in COLUMNS.iter().enumerate() {
            assert_eq!(told["rows"][row][place], fact[*name], "{name} in SQL");
        }
    }

    // A table of CSV is a file of facts.
    let lines = ids.iter().map(|id| format!("{id},2030-01-01T00:00:00Z\n"));
    project.write(
        "spine.csv",
        format!("id,as_of\n{}", lines.collect::<String>()),
    );
    assert!(server.stop());
    let table = ["--spine", "spine.csv", "--out", "table.csv"];
    project.run_ok(&[&["training-set", "--set", "all"], table.as_slice()].concat());
    let table = std::fs::read_to_string(project.path().join("table.csv")).expect("a table");
    let (header, rest) = table.split_once('\n').expect("a header");
    project.write(
        "facts.csv",
        format!("{}\n{rest}", header.replace("first.", "")),
    );
    let said = project.run_ok(&["ingest", "third", "facts.csv"]);
    let server = ServerProcess::start(&project);
    let listing = server.get("/v1/facts/third?limit=1000").json();
    assert_eq!(facts(&listing, true), sent, "{said}");

    // Feast's clients push frames in columns.
    let mut names: Vec<&str> = COLUMNS.iter().map(|(name, _)| *name).collect();
    names.extend(["id", "time"]);
    let frame = names.iter().map(|name| {
        let column = sent.iter().map(|fact| fact[*name].clone());
        ((*name).to_owned(), column.collect::<Json>())
    });
    let push =
        json!({"push_source_name": "fourth", "df": frame.collect::<Map<_, _>>(), "to": "online"});
    let reply = server.post_json("/push", &push);
    assert_eq!(reply.status, 200, "{}", reply.body);
    assert_eq!(listed(&server, "fourth"), sent);
    assert!(server.stop());
}
