//! The verbs of the command line, and what they say of mistakes.

use headwater_testkit::{ServerProcess, TempProject};
use serde_json::Value;

use crate::{BINARY, CONTRACTS, FEATURES, SHOP};

#[test]
fn a_new_project_goes_from_init_to_a_feature() {
    let project = TempProject::new(BINARY, &[]);
    project.run_ok(&["init", "shop"]);
    let at = |arguments: &[&str]| project.run_ok(&[&["--project", "shop"], arguments].concat());
    assert!(at(&["check"]).starts_with("All good: 1 contracts, 1 entities, 1 views"));
    let tested = at(&["test"]);
    assert!(
        tested.contains("1 tests with 3 cases: 1 passed, 0 failed."),
        "{tested}"
    );
    let plan = at(&["plan"]);
    assert!(plan.contains("+ view spending"), "{plan}");
    assert!(at(&["apply"]).ends_with("Applied.\n"));
    assert!(at(&["plan"]).starts_with("Nothing to do"));
    project.write(
        "purchases.csv",
        "purchase_id,customer,amount,time\n1,ada,10.5,2026-01-15T10:00:00Z\n2,ada,4.5,2026-01-15T10:30:00Z\n3,bob,-1,2026-01-15T10:30:00Z\n",
    );
    let output = project.run(&["--project", "shop", "ingest", "purchase", "purchases.csv"]);
    let (told, warned) = (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    );
    assert!(
        told.starts_with("2 accepted, 0 duplicates, 1 rejected"),
        "{told}"
    );
    assert!(warned.contains("row 2 `amount`"), "{warned}");
    let read = at(&[
        "features",
        "get",
        "--set",
        "customer_now",
        "--entity",
        "customer=ada",
        "--as-of",
        "2026-01-15T10:45:00Z",
    ]);
    let line = |name: &str| {
        read.lines()
            .find(|l| l.starts_with(name))
            .unwrap_or_default()
            .to_owned()
    };
    assert!(line("spending.purchases_1h").contains(" 2 "), "{read}");
    assert!(line("spending.spent_1h").contains("15.0"), "{read}");
    let quarantine = at(&["facts", "quarantine", "purchase"]);
    assert!(
        quarantine.contains("minimum") && quarantine.contains("bob"),
        "{quarantine}"
    );
    let facts: Value = serde_json::from_str(&at(&[
        "--json",
        "facts",
        "get",
        "purchase",
        "--entity",
        "customer=ada",
    ]))
    .unwrap();
    let amounts: Vec<f64> = facts["facts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f["fact"]["amount"].as_f64().unwrap())
        .collect();
    assert_eq!(amounts, [10.5, 4.5]);
    assert!(at(&["doctor"]).contains("every checksum right"));
    at(&["schema", "--out", "schemas"]);
    let schema =
        std::fs::read_to_string(project.path().join("schemas/feature-view.schema.json")).unwrap();
    assert!(serde_json::from_str::<Value>(&schema).unwrap()["properties"]["spec"].is_object());
    assert!(
        project
            .run_fails(&["init", "shop"])
            .contains("is there already")
    );
}

#[test]
fn a_contract_is_inferred_from_a_sample() {
    let project = TempProject::new(BINARY, &[]);
    project.write("click.ndjson", "{\"id\":\"a\",\"at\":\"2026-01-15T10:00:00Z\",\"user\":7}\n{\"id\":\"b\",\"at\":\"2026-01-15T10:00:01Z\",\"user\":8}\n");
    project.run_ok(&["init", "web", "--from", "click.ndjson"]);
    assert!(
        project
            .run_ok(&["--project", "web", "check"])
            .contains("1 contracts")
    );
    project.run_ok(&["--project", "web", "apply"]);
    let said = project.run_ok(&["--project", "web", "ingest", "click", "click.ndjson"]);
    assert!(said.starts_with("2 accepted"), "{said}");
}

/// Features of the shop with one piece replaced; what `check` says.
fn check_with(from: &str, to: &str) -> String {
    let changed = FEATURES.replace(from, to);
    assert_ne!(changed, FEATURES, "`{from}` isn't there");
    let project = TempProject::new(BINARY, SHOP);
    project.write("features/shop.yaml", changed);
    project.run_fails(&["check"])
}

#[test]
fn mistakes_in_definitions_are_named_with_their_place_and_how_to_mend_them() {
    let cases = [
        (
            "of: amount, windows: [1h]",
            "of: amuont, windows: [1h]",
            "shop.yaml:17:",
            "did you mean `amount`?",
        ),
        (
            "contract: purchase",
            "contract: purchse",
            "shop.yaml:13:",
            "did you mean `purchase`?",
        ),
        (
            "entity: customer",
            "entity: costumer",
            "shop.yaml:11:",
            "did you mean `customer`?",
        ),
        (
            "windows: [1h]",
            "windows: [0s]",
            "shop.yaml:17:",
            "the window has no width",
        ),
        (
            "windows: [1h]",
            "windows: [{hopping: 1h}]",
            "shop.yaml:17:",
            "a hopping window needs `every`",
        ),
        (
            "windows: [1h]",
            "windows: [{hoping: 1h}]",
            "shop.yaml:17:",
            "did you mean `hopping`?",
        ),
        (
            "windows: [1h]",
            "windows: [3600]",
            "shop.yaml:17:",
            "expected a width",
        ),
        (
            "aggregate: max",
            "agregate: max",
            "shop.yaml:17:",
            "did you mean `aggregate`?",
        ),
        (
            "aggregate: max",
            "aggregate: maximum",
            "shop.yaml:17:",
            "there is no aggregate `maximum`",
        ),
        (
            "of: amount, windows: [1h]",
            "of: customer || 'x', aggregate_: 1",
            "shop.yaml:",
            "aggregate_",
        ),
        (
            "aggregate: max, of: amount",
            "aggregate: avg, of: customer",
            "shop.yaml:17:",
            "it takes numbers, not string",
        ),
        ("ttl: 1h", "ttl: 0s", "shop.yaml:18:", "`ttl` is zero"),
        (
            "name: largest",
            "name: spent",
            "shop.yaml:17:",
            "two features `spent_1h`",
        ),
        (
            "expression: spent_1m / spent_1h",
            "expression: share + 1",
            "shop.yaml:19:",
            "share → share",
        ),
        (
            "kind: FeatureSet",
            "kind: FeatureSett",
            "shop.yaml:",
            "did you mean `FeatureSet`?",
        ),
        (
            "'spending.*'",
            "spending.spent_2h",
            "shop.yaml:",
            "did you mean `spending.spent_1h`?",
        ),
        (
            "type: string",
            "type: float",
            "shop.yaml:4:",
            "unknown variant `float`",
        ),
    ];
    for (from, to, place, message) in cases {
        let said = check_with(from, to);
        assert!(said.contains(place), "{to}: no place {place} in\n{said}");
        assert!(said.contains(message), "{to}: no `{message}` in\n{said}");
    }
}

#[test]
fn settings_that_nothing_would_work_with_are_refused_where_they_stand() {
    let project = TempProject::new(BINARY, SHOP);
    for (spec, words) in [
        ("limits: {rows_max: 0}", "`limits.rows_max` is `0`"),
        (
            "telemetry: {logs: {level: loud}}",
            "`telemetry.logs.level` is `loud`",
        ),
        (
            "telemetry: {traces: {endpoint: 'localhost:4318'}}",
            "`telemetry.traces.endpoint` is `localhost:4318`",
        ),
    ] {
        project.write("headwater.yaml", format!("name: shop\nspec:\n  {spec}\n"));
        for verb in ["check", "serve", "apply"] {
            let said = project.run_fails(&[verb]);
            let place = said.contains("headwater.yaml:3:");
            assert!(place && said.contains(words), "{verb}: {said}");
        }
    }
}

#[test]
fn a_breaking_contract_needs_a_new_major_version() {
    let project = TempProject::new(BINARY, SHOP);
    project.run_ok(&["apply"]);
    let narrower = CONTRACTS.replace("minimum: 0", "minimum: 1");
    project.write("contracts/shop.yaml", &narrower);
    let said = project.run_fails(&["plan"]);
    assert!(
        said.contains("purchase") && said.contains("2.0.0"),
        "{said}"
    );
    project.run_fails(&["apply"]);
    project.write(
        "contracts/shop.yaml",
        narrower.replace("version: 1.0.0", "version: 2.0.0"),
    );
    assert!(project.run_ok(&["apply"]).contains("version 1.0.0 → 2.0.0"));
}

#[test]
fn old_facts_are_read_under_a_new_version_and_a_new_view_sees_them() {
    let project = TempProject::new(BINARY, SHOP);
    project.run_ok(&["apply"]);
    project.write(
        "facts.ndjson",
        "{\"id\":\"a\",\"customer\":\"ada\",\"amount\":2.5,\"time\":1000000}\n",
    );
    project.run_ok(&["ingest", "purchase", "facts.ndjson"]);
    let grown = CONTRACTS
        .replace("version: 1.0.0", "version: 1.1.0")
        .replace(
            "      - {name: time,",
            "      - {name: shop, logicalType: string}\n      - {name: time,",
        );
    project.write("contracts/shop.yaml", grown);
    let view = "\
apiVersion: headwater/v1
kind: FeatureView
name: shops
spec:
  entity: customer
  sources: [{contract: purchase}]
  features:
    - {name: total, aggregate: sum, of: amount}
    - {name: shops, aggregate: distinct_count, of: shop}
";
    project.write("features/shops.yaml", view);
    assert!(project.run_ok(&["apply"]).contains("+ view shops"));
    project.write("facts.ndjson", "{\"id\":\"a\",\"customer\":\"ada\",\"amount\":2.5,\"time\":1000000}\n{\"id\":\"b\",\"customer\":\"ada\",\"amount\":1.0,\"shop\":\"x\",\"time\":2000000}\n");
    let said = project.run_ok(&["ingest", "purchase", "facts.ndjson"]);
    assert!(said.starts_with("1 accepted, 1 duplicates"), "{said}");
    let read = [
        "--json",
        "features",
        "get",
        "--feature",
        "shops.total",
        "--feature",
        "shops.shops",
        "--feature",
        "spending.spent_lifetime",
        "--entity",
        "customer=ada",
    ];
    let reply: Value = serde_json::from_str(&project.run_ok(&read)).unwrap();
    assert_eq!(reply["rows"][0]["values"].to_string(), "[3.5,1,3.5]");
}

#[test]
fn a_second_process_on_the_data_folder_is_told_what_to_do() {
    let project = TempProject::new(BINARY, SHOP);
    let said = project.run_fails(&["serve"]);
    assert!(said.contains("headwater apply"), "{said}");
    project.run_ok(&["apply"]);
    let server = ServerProcess::start(&project);
    for arguments in [
        ["facts", "get", "purchase"].as_slice(),
        &["apply"],
        &["serve"],
    ] {
        let said = project.run_fails(arguments);
        assert!(
            said.contains("another process uses") && said.contains("--server"),
            "{said}"
        );
    }
    project.write(
        "facts.ndjson",
        "{\"id\":\"a\",\"customer\":\"ada\",\"amount\":2.5,\"time\":1000000}\n",
    );
    let remote =
        |arguments: &[&str]| project.run_ok(&[&["--server", &server.url], arguments].concat());
    assert!(remote(&["ingest", "purchase", "facts.ndjson"]).starts_with("1 accepted"));
    let facts = remote(&["facts", "get", "purchase", "--entity", "customer=ada"]);
    assert!(facts.contains("1970-01-01T00:00:01Z"), "{facts}");
    let read = remote(&[
        "features",
        "get",
        "--set",
        "customer_now",
        "--entity",
        "customer=ada",
        "--as-of",
        "1000000",
    ]);
    assert!(read.contains("spending.spent_1m"), "{read}");
    assert!(server.stop(), "SIGTERM is an orderly end");
}

#[test]
fn nobody_reading_on_is_no_panic() {
    let project = TempProject::new(BINARY, SHOP);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let ended = std::process::Command::new(project.binary())
        .arg("check")
        .current_dir(project.path())
        .stdout(writer)
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
    assert_eq!(ended.status.code(), Some(141));
}

#[test]
fn bad_usage_is_exit_code_2() {
    let project = TempProject::new(BINARY, SHOP);
    for arguments in [["frobnicate"].as_slice(), &["ingest"], &["features", "get"]] {
        assert_eq!(
            project.run(arguments).status.code(),
            Some(2),
            "{arguments:?}"
        );
    }
    let elsewhere = TempProject::new(BINARY, &[]);
    assert!(elsewhere.run_fails(&["check"]).contains("headwater init"));
}
