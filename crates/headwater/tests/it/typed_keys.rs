//! Keys named on the command line: text there, and whatever type the key has, with a server and without one.

use headwater_edge::Edge;
use headwater_testkit::{ServerProcess, TempProject};
use serde_json::{Value, json};

use crate::BINARY;
use crate::edge::{linear, model};

const DEFINITIONS: &str = "\
kind: DataContract
apiVersion: v3.1.0
id: store
version: 1.0.0
status: active
schema:
  - name: visit
    properties:
      - {name: id, logicalType: string, required: true}
      - {name: number, logicalType: integer}
      - {name: code, logicalType: string}
      - {name: open, logicalType: boolean}
      - {name: day, logicalType: date}
      - {name: time, logicalType: timestamp, required: true}
    customProperties:
      - {property: headwater.eventTime, value: time}
      - {property: headwater.factId, value: id}
---
{apiVersion: headwater/v1, kind: Entity, name: shelf, spec: {keys: [{name: number, type: integer}]}}
---
{apiVersion: headwater/v1, kind: Entity, name: article, spec: {keys: [{name: code, type: string}]}}
---
{apiVersion: headwater/v1, kind: Entity, name: place, spec: {keys: [{name: number, type: integer}, {name: code, type: string}, {name: open, type: bool}, {name: day, type: date}]}}
---
{apiVersion: headwater/v1, kind: FeatureView, name: shelves, spec: {entity: shelf, sources: [{contract: visit}], features: [{name: visits, aggregate: count}]}}
---
{apiVersion: headwater/v1, kind: FeatureView, name: articles, spec: {entity: article, sources: [{contract: visit}], features: [{name: visits, aggregate: count}]}}
---
{apiVersion: headwater/v1, kind: FeatureView, name: places, spec: {entity: place, sources: [{contract: visit}], features: [{name: visits, aggregate: count}]}}
---
{apiVersion: headwater/v1, kind: FeatureSet, name: shelves, spec: {features: ['shelves.*']}}
";

const VISITS: &str = "\
{\"id\":\"a\",\"number\":7,\"code\":\"007\",\"open\":true,\"day\":\"2026-01-31\",\"time\":\"2026-01-31T10:00:00Z\"}
{\"id\":\"b\",\"number\":7,\"code\":\"7\",\"open\":false,\"day\":\"2026-01-31\",\"time\":\"2026-01-31T11:00:00Z\"}
{\"id\":\"c\",\"number\":-7,\"code\":\"true\",\"open\":true,\"day\":\"2026-01-31\",\"time\":\"2026-01-31T12:00:00Z\"}
";

/// A feature, how an entity is named, and the visits counted of it.
const READS: [(&str, &[&str], u64); 8] = [
    ("shelves.visits", &["shelf=7"], 2),
    ("shelves.visits", &["number=7"], 2),
    ("shelves.visits", &["shelf=number:-7"], 1),
    ("articles.visits", &["article=007"], 1),
    ("articles.visits", &["code=7"], 1),
    ("articles.visits", &["article=true"], 1),
    (
        "places.visits",
        &["place=number:7,code:007,open:true,day:2026-01-31"],
        1,
    ),
    (
        "places.visits",
        &["number=7", "code=7", "open=false", "day=2026-01-31"],
        1,
    ),
];

fn reads(project: &TempProject, server: &[&str]) -> Vec<Value> {
    let read = |(feature, entities, _): (&str, &[&str], u64)| {
        let mut arguments = [
            server,
            &["--json", "features", "get"],
            &["--feature", feature],
        ]
        .concat();
        entities
            .iter()
            .for_each(|entity| arguments.extend(["--entity", *entity]));
        let reply: Value = serde_json::from_str(&project.run_ok(&arguments)).expect("JSON");
        reply["rows"][0]["values"][0].clone()
    };
    READS.map(read).into()
}

#[test]
fn keys_of_the_command_line_are_read_as_their_types_with_a_server_and_without() {
    let definitions = format!("{DEFINITIONS}{}", model("shelves", "visits"));
    let files = [
        ("headwater.yaml", "name: store\n"),
        ("all.yaml", &definitions),
    ];
    let project = TempProject::new(BINARY, &files);
    project.run_ok(&["apply"]);
    project.write("visits.ndjson", VISITS);
    project.run_ok(&["ingest", "visit", "visits.ndjson"]);
    project.write("x.json", linear("x"));
    project.run_ok(&["models", "add", "late", "x.json", "--alias", "live"]);

    let expected: Vec<Value> = READS.iter().map(|(_, _, visits)| json!(visits)).collect();
    assert_eq!(reads(&project, &[]), expected);
    let server = ServerProcess::start(&project);
    let remote = ["--server", server.url.as_str()];
    assert_eq!(reads(&project, &remote), expected);

    // A text is no integer in a request itself.
    let asked = json!({"features": ["shelves.visits"], "entities": [{"shelf": "7"}]});
    let refused = server.post_json("/v1/features", &asked);
    assert_eq!(refused.status, 400, "{}", refused.body);
    let text = [
        "features",
        "get",
        "--feature",
        "shelves.visits",
        "--entity",
        "shelf=seven",
    ];
    let said = project.run_fails(&[&remote[..], &text].concat());
    assert!(said.contains("it is int64; given is seven"), "{said}");

    let taken = [
        "bundle",
        "--model",
        "late",
        "--entities",
        "shelf=7",
        "number=-7",
        "--out",
        "b",
    ];
    project.run_ok(&[&remote[..], &taken].concat());
    let edge = Edge::open_file(&project.path().join("b"), None).expect("opens");
    assert_eq!(edge.about().entities, 2);
}
