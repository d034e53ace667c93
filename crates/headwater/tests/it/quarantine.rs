//! Rows that broke their contract: kept, listed, replayed under a new contract, repaired; and facts
//! corrected from the command line.

use headwater_testkit::{ServerProcess, TempProject};
use serde_json::{Value, json};

use crate::{BINARY, CONTRACTS, SHOP};

const QUARANTINE: &str = "/v1/facts/purchase/quarantine";

fn purchase(id: &str, amount: Value) -> Value {
    json!({"id": id, "customer": "ada", "amount": amount, "time": 1_000_000})
}

/// (id, field, whether it is resolved) of listed rows.
fn listed(server: &ServerProcess, query: &str) -> Vec<(String, String, bool)> {
    let rows = server.get(&format!("{QUARANTINE}{query}")).json();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let row = |row: &Value| {
        let resolved = !row["resolved"].is_null();
        (text(&row["id"]), text(&row["field"]), resolved)
    };
    rows["rows"].as_array().unwrap().iter().map(row).collect()
}

fn spent(server: &ServerProcess) -> Value {
    let read = json!({"features": ["spending.spent_lifetime"], "entities": [{"customer": "ada"}]});
    server.post_json("/v1/features", &read).json()["rows"][0]["values"][0].clone()
}

#[test]
fn rows_in_quarantine_become_facts_once() {
    let project = TempProject::new(BINARY, SHOP);
    project.run_ok(&["apply"]);
    let server = ServerProcess::start(&project);
    let rows = json!([
        purchase("a", json!(-1)),
        purchase("b", json!(-2)),
        purchase("c", json!("3")),
        purchase("d", json!(4)),
        purchase("e", json!(-5)),
    ]);
    server.post_json("/v1/facts/purchase", &rows);
    let waiting = |ids: &[&str]| -> Vec<(String, String, bool)> {
        let row = |id: &&str| ((*id).to_owned(), "amount".to_owned(), false);
        ids.iter().map(row).collect()
    };
    assert_eq!(listed(&server, ""), waiting(&["4", "3", "2", "1"]));
    // Nothing has changed: all stay, and say why.
    let reply = server
        .post_json(&format!("{QUARANTINE}/replay"), &json!({}))
        .json();
    assert_eq!(
        (&reply["accepted"], &reply["waiting"]),
        (&json!(0), &json!(4))
    );
    assert_eq!(reply["rejected"][0]["id"], "1");
    // One is mended; one is mended wrongly and stays; one isn't there.
    let repair = json!([
        {"id": "3", "row": purchase("c", json!(3))},
        {"id": "2", "row": purchase("b", json!(-20))},
        {"id": "9", "row": purchase("z", json!(9))},
    ]);
    let repair = || {
        server
            .post_json(&format!("{QUARANTINE}/repair"), &repair)
            .json()
    };
    let reply = repair();
    let ids: Vec<&Value> = reply["rejected"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| &r["id"])
        .collect();
    assert_eq!(
        (&reply["accepted"], ids),
        (&json!(1), vec![&json!("9"), &json!("2")])
    );
    assert_eq!(repair()["accepted"], 0);
    assert_eq!(spent(&server), 7.0);
    assert_eq!(listed(&server, ""), waiting(&["4", "2", "1"]));
    assert!(listed(&server, "?resolved=true").contains(&("3".into(), "amount".into(), true)));
    let metrics = server.get("/metrics").body;
    assert!(
        metrics.contains("headwater_facts_quarantined{contract=\"purchase\"} 3"),
        "{metrics}"
    );
    let wrong = server.post_json(&format!("{QUARANTINE}/replay"), &json!({"ids": ["x"]}));
    assert_eq!(wrong.status, 400, "{}", wrong.body);
    // A fact with the id of one of them comes in meanwhile.
    server.post_json("/v1/facts/purchase", &json!([purchase("b", json!(8))]));
    assert!(server.stop());
    // The contract allows what it refused.
    let relaxed = CONTRACTS.replace(", logicalTypeOptions: {minimum: 0}", "");
    project.write(
        "contracts/shop.yaml",
        relaxed.replace("version: 1.0.0", "version: 1.1.0"),
    );
    project.run_ok(&["apply"]);
    let told = project.run_ok(&["facts", "quarantine", "purchase", "--replay", "1", "2"]);
    assert!(
        told.contains("1 accepted, 0 duplicates, 1 still in quarantine"),
        "{told}"
    );
    let server = ServerProcess::start(&project);
    assert_eq!(
        listed(&server, ""),
        [
            ("4".into(), "amount".into(), false),
            ("2".into(), String::new(), false),
        ]
    );
    let replay = |query: &str| {
        let path = format!("{QUARANTINE}/replay{query}");
        let reply = server.post(&path, "application/json", String::new()).json();
        (reply["accepted"].clone(), reply["waiting"].clone())
    };
    assert_eq!(replay(""), (json!(1), json!(1)));
    assert_eq!(replay("?revise=true"), (json!(1), json!(0)));
    assert_eq!(replay(""), (json!(0), json!(0)));
    assert_eq!(spent(&server), -1.0 - 2.0 + 3.0 + 4.0 - 5.0);
}

#[test]
fn facts_are_corrected_from_the_command_line() {
    let project = TempProject::new(BINARY, SHOP);
    project.run_ok(&["apply"]);
    let file = |name: &str, rows: &[Value]| {
        let lines: Vec<String> = rows.iter().map(Value::to_string).collect();
        project.write(name, lines.join("\n") + "\n");
    };
    file(
        "first.ndjson",
        &[
            purchase("a", json!(1)),
            purchase("b", json!(2)),
            purchase("c", json!(-3)),
        ],
    );
    file("second.ndjson", &[purchase("a", json!(10))]);
    file(
        "mended.ndjson",
        &[json!({"id": "1", "row": purchase("c", json!(3))})],
    );
    project.run_ok(&["ingest", "purchase", "first.ndjson"]);
    project.run_ok(&["ingest", "--revise", "purchase", "second.ndjson"]);
    let told = project.run_ok(&["facts", "retract", "purchase", "b"]);
    assert!(told.contains("1 retracted"), "{told}");
    let told = project.run_ok(&[
        "facts",
        "quarantine",
        "purchase",
        "--repair",
        "mended.ndjson",
    ]);
    assert!(told.contains("1 accepted"), "{told}");
    let facts = |arguments: &[&str]| -> Vec<String> {
        let arguments = [&["--json", "facts", "get", "purchase"], arguments].concat();
        let facts: Value = serde_json::from_str(&project.run_ok(&arguments)).unwrap();
        let facts = facts["facts"].as_array().unwrap().iter();
        facts
            .map(|f| format!("{}={}", f["fact_id"].as_str().unwrap(), f["fact"]["amount"]))
            .collect()
    };
    assert_eq!(facts(&[]), ["a=10.0", "c=3.0"]);
    assert_eq!(facts(&["--known-at", "3"]), ["b=2.0", "a=10.0"]);
    assert_eq!(facts(&["--known-at", "2"]), ["a=1.0", "b=2.0"]);
}
