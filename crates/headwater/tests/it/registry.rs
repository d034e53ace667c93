//! The registry from outside: versions, lineage, search; plans; definitions applied to a running server,
//! which may be killed at any moment of it.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use headwater_testkit::{ServerProcess, TempProject, call};
use serde_json::{Value, json};

use crate::{BINARY, CONTRACTS, FEATURES, SHOP, filled};

const VISITS: &str = "\
---
apiVersion: headwater/v1
kind: FeatureView
name: twin
owner: research
tags: [experimental]
description: The same purchases once more.
spec:
  entity: customer
  sources: [{contract: purchase, where: amount > 0}]
  features:
    - {name: purchases, aggregate: count, windows: [lifetime]}
    - {name: spent, aggregate: sum, of: amount, windows: [lifetime]}
";

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

fn facts(from: u64, count: u64) -> Value {
    let fact = |id: u64| json!({"id": format!("p{id}"), "customer": format!("c{}", id % 7), "amount": id as f64, "time": id * 1_000_000});
    (from..from + count).map(fact).collect()
}

fn names(walk: &Value, kind: &str) -> Vec<String> {
    let nodes = walk["nodes"].as_array().unwrap().iter();
    let same = nodes.filter(|n| n["kind"] == kind);
    let mut names: Vec<String> = same
        .map(|n| n["name"].as_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn versions_lineage_and_search_are_told_alike_by_command_line_and_server() {
    let project = TempProject::new(BINARY, SHOP);
    let said = project.run_fails(&["registry", "list"]);
    assert!(said.contains("headwater apply"), "{said}");
    project.run_ok(&["apply"]);
    // Another order of keys, other formatting and comments are no change.
    let rewritten = FEATURES.replace(
        "name: customer\nspec: {keys: [{name: customer, type: string}]}",
        "# who buys\nspec:\n  keys:\n    - type: string\n      name: customer\nname: customer",
    );
    assert_ne!(rewritten, FEATURES);
    project.write("features/shop.yaml", &rewritten);
    assert!(project.run_ok(&["apply"]).starts_with("Nothing to do"));
    project.write("features/shop.yaml", format!("{FEATURES}{VISITS}"));
    project.run_ok(&["apply"]);
    project.write(
        "features/shop.yaml",
        format!(
            "{}{VISITS}",
            FEATURES.replace("owner: sales", "owner: marketing")
        ),
    );
    project.run_ok(&["apply"]);

    let server = ServerProcess::start(&project);
    let here =
        |arguments: &[&str]| json(&project.run_ok(&[&["--json", "registry"], arguments].concat()));
    let there = |arguments: &[&str]| {
        json(
            &project
                .run_ok(&[&["--json", "--server", &server.url, "registry"], arguments].concat()),
        )
    };
    for arguments in [
        ["list"].as_slice(),
        &["list", "views"],
        &["show", "view", "spending"],
        &["show", "view", "spending", "--version", "1"],
        &["search", "amount"],
        &["lineage", "purchase.amount"],
    ] {
        assert_eq!(here(arguments), there(arguments), "{arguments:?}");
    }
    let view = here(&["show", "view", "spending"]);
    assert_eq!(
        (&view["definition_version"], &view["owner"]),
        (&json!(2), &json!("marketing"))
    );
    assert_eq!(view["versions"].as_array().unwrap().len(), 2);
    let first = here(&["show", "view", "spending", "--version", "1"]);
    assert_eq!(first["document"]["owner"], "sales");
    assert_eq!(
        here(&["show", "entity", "customer"])["definition_version"],
        1
    );
    assert_eq!(here(&["list"])["version"], 3);

    let walks = here(&["lineage", "purchase.amount"]);
    let down = &walks["downstream"];
    assert_eq!(names(down, "feature_set"), ["customer_now"]);
    assert_eq!(names(down, "view"), ["spending", "twin"]);
    let features = names(down, "feature");
    assert!(
        features.contains(&"spending.share".to_owned()),
        "through an expression: {features:?}"
    );
    assert!(
        !features.contains(&"spending.purchases_1m".to_owned()),
        "it counts facts: {features:?}"
    );
    assert!(
        features.contains(&"twin.purchases_lifetime".to_owned()),
        "through the source's where"
    );
    let up = &here(&["lineage", "feature_set:customer_now"])["upstream"];
    assert_eq!(
        names(up, "column"),
        ["purchase.amount", "purchase.customer", "purchase.time"]
    );
    assert_eq!(names(up, "contract"), ["purchase"]);
    let said = project.run_fails(&["registry", "lineage", "customer_nwo"]);
    assert!(said.contains("did you mean `customer_now`?"), "{said}");
    let tree = project.run_ok(&["registry", "lineage", "spending.share", "--upstream"]);
    assert!(tree.contains("column purchase.amount  [of]"), "{tree}");

    let found = here(&["search", "experimental"]);
    assert_eq!(found["found"][0]["name"], "twin");
    assert_eq!(
        here(&["search", "research", "spent"])["found"][0]["name"],
        "twin.spent_lifetime"
    );
    assert_eq!(server.get("/v1/registry/search").status, 400);
    assert_eq!(server.get("/v1/registry/monitors").status, 404);
    assert_eq!(server.get("/v1/registry/views/nothing").status, 404);
    assert_eq!(
        server.get("/v1/registry/views/spending?version=9").status,
        404
    );
    assert!(server.stop());
}

#[test]
fn a_plan_tells_why_who_and_what_it_costs() {
    let project = TempProject::new(BINARY, SHOP);
    project.run_ok(&["apply"]);
    project.write("facts.json", facts(0, 30).to_string());
    project.run_ok(&["ingest", "purchase", "facts.json"]);
    let changed = FEATURES
        .replace(
            "contract: purchase",
            "contract: purchase\n      where: amount < 25",
        )
        .replace(
            "windows: [1m, 1h, lifetime]}\n    - {name: spent",
            "windows: [1m, 2h, lifetime]}\n    - {name: spent",
        );
    project.write("features/shop.yaml", format!("{changed}{VISITS}"));
    let plan = project.run_ok(&["plan"]);
    for expected in [
        "↻ view spending  (owner: sales)",
        "drops the feature purchases_1h",
        "of purchase it takes `purchase.amount < Float64(25)`, it took every fact",
        "computed again from 30 of purchase facts",
        "+ view twin  (owner: research)",
        "! feature set customer_now  (owner: sales) reads view spending",
        "1 to compute again",
        "Cost: the log's 30 facts are read once, about less than a second (a guess)",
    ] {
        let plain = plan.replace("`amount < Float64(25)`", "`purchase.amount < Float64(25)`");
        assert!(plain.contains(expected), "no {expected:?} in\n{plan}");
    }
    let said = json(&project.run_ok(&["plan", "--json"]));
    assert_eq!(said["cost"]["facts_read"], 30);
    assert_eq!(said["affected"][0]["because"], json!(["view spending"]));
    // A set that names features by a pattern changes with them.
    let set = said["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|i| i["kind"] == "feature set");
    let details = set.unwrap()["details"].to_string();
    assert!(details.contains("adds spending.purchases_2h"), "{details}");
}

#[test]
fn contracts_of_one_document_change_one_by_one() {
    let visit = CONTRACTS
        .split_once("schema:\n")
        .unwrap()
        .1
        .replace("name: purchase", "name: visit");
    let both = format!("{CONTRACTS}{visit}");
    let project = TempProject::new(BINARY, SHOP);
    project.write("contracts/shop.yaml", &both);
    project.run_ok(&["apply"]);
    let raised = both.replace("version: 1.0.0", "version: 1.1.0");
    let grown = raised.replacen(
        "      - {name: time,",
        "      - {name: shop, logicalType: string}\n      - {name: time,",
        1,
    );
    project.write("contracts/shop.yaml", &grown);
    let plan = project.run_ok(&["plan"]);
    assert!(plan.contains("~ contract purchase"), "{plan}");
    assert!(!plan.contains("contract visit"), "{plan}");
    project.run_ok(&["apply"]);
    let versions = |kind: &str, name: &str| {
        let said = json(&project.run_ok(&["--json", "registry", "show", kind, name]));
        (said["definition_version"].clone(), said["version"].clone())
    };
    assert_eq!(versions("contract", "purchase"), (json!(2), json!("1.1.0")));
    assert_eq!(versions("contract", "visit"), (json!(1), json!("1.1.0")));
    assert!(project.run_ok(&["apply"]).starts_with("Nothing to do"));
    // A version that is raised for nobody is a change of all.
    project.write("contracts/shop.yaml", grown.replace("1.1.0", "1.2.0"));
    let plan = project.run_ok(&["apply"]);
    assert!(
        plan.contains("contract visit") && plan.contains("contract purchase"),
        "{plan}"
    );
    assert_eq!(versions("contract", "visit"), (json!(2), json!("1.2.0")));
    // So is what is said of the document as a whole.
    project.write(
        "contracts/shop.yaml",
        grown.replace("1.1.0", "1.2.1\nteam: {name: ops}"),
    );
    assert!(project.run_ok(&["plan"]).contains("2 to change"));
}

#[test]
fn definitions_are_applied_to_a_running_server() {
    let project = TempProject::new(BINARY, SHOP);
    project.run_ok(&["apply"]);
    let server = ServerProcess::start(&project);
    assert_eq!(
        server
            .post_json("/v1/facts/purchase", &facts(0, 500))
            .status,
        200
    );
    let remote =
        |arguments: &[&str]| project.run_ok(&[&["--server", &server.url], arguments].concat());
    project.write("features/shop.yaml", format!("{FEATURES}{VISITS}"));
    // The contract grows at the same time, and an older sender's facts are still taken.
    let grown = CONTRACTS
        .replace("version: 1.0.0", "version: 1.1.0")
        .replace(
            "      - {name: time,",
            "      - {name: shop, logicalType: string}\n      - {name: time,",
        );
    project.write("contracts/shop.yaml", &grown);
    let plan = remote(&["plan"]);
    assert!(
        plan.contains("+ view twin") && plan.contains("500 of purchase facts"),
        "{plan}"
    );
    assert!(remote(&["apply", "--wait"]).ends_with("Applied.\n"));
    assert!(remote(&["plan"]).starts_with("Nothing to do"));
    let more = json!([{"id": "x", "customer": "c0", "amount": 1.0, "shop": "here", "time": 1}]);
    assert_eq!(
        server.post_json("/v1/facts/purchase", &more).json()["accepted"],
        1
    );
    let read = json!({"features": ["twin.purchases_lifetime", "spending.purchases_lifetime"], "entities": [{"customer": "c0"}]});
    let reply = server.post_json("/v1/features", &read).json();
    // The fact with the amount 0 doesn't pass the view's `where`.
    assert_eq!(reply["rows"][0]["values"], json!([72, 73]), "{reply}");
    // A looked-up column of an entity that is new is found too.
    assert_eq!(
        server.get("/v1/facts/purchase?entity=customer:c0").status,
        200
    );

    // What is wrong is refused with its place, and nothing changes.
    let wrong = json!({"files": [
        {"file": "a.yaml", "text": CONTRACTS},
        {"file": "b.yaml", "text": FEATURES.replace("of: amount, windows: [1h]", "of: amuont, windows: [1h]")}]});
    let reply = server.post_json("/v1/registry/apply", &wrong);
    assert_eq!(reply.status, 400);
    let problem = &reply.json()["problems"][0];
    assert_eq!(
        (&problem["location"]["file"], &problem["location"]["line"]),
        (&json!("b.yaml"), &json!(17)),
        "{problem}"
    );
    let breaking = json!({"files": [{"file": "a.yaml", "text": CONTRACTS}, {"file": "b.yaml", "text": FEATURES}]});
    let reply = server.post_json("/v1/registry/apply", &breaking);
    assert_eq!(
        reply.status, 409,
        "the contract's version goes back: {}",
        reply.body
    );
    assert_eq!(server.post_json("/v1/registry/plan", &breaking).status, 409);
    assert_eq!(
        server
            .post_json("/v1/registry/apply", &json!({"documents": []}))
            .status,
        400
    );
    let version = server.get("/v1/registry").json()["version"]
        .as_u64()
        .unwrap();
    project.write("features/shop.yaml", FEATURES);
    let stale = (version - 1).to_string();
    let said = project.run_fails(&["--server", &server.url, "apply", "--if-version", &stale]);
    assert!(said.contains("plan again"), "{said}");
    let said = remote(&["apply", "--if-version", &version.to_string()]);
    assert!(said.contains("- view twin"), "{said}");
    assert_eq!(server.post_json("/v1/features", &read).status, 404);
    assert!(server.stop());
    // What was applied to the server is what the next one finds.
    let server = ServerProcess::start(&project);
    assert_eq!(server.get("/v1/registry").json()["version"], version + 1);
    assert_eq!(
        server
            .get("/v1/registry/views")
            .json()
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

/// A generator of test data: the same numbers every time.
fn mixed(seed: u64) -> u64 {
    let mut x = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x ^ (x >> 27)
}

#[test]
fn a_server_killed_while_it_applies_has_the_old_definitions_or_the_new() {
    const ROUNDS: u64 = 24;
    let project = TempProject::new(BINARY, SHOP);
    project.write("headwater.yaml", "name: shop\nspec: {state: {checkpoint_facts: 100, fill_facts_max: 40, catch_up_facts_max: 50}}\n");
    project.run_ok(&["apply"]);
    let mut sent = 0;
    let mut wheres = std::collections::BTreeSet::new();
    for round in 0..ROUNDS {
        let server = ServerProcess::start(&project);
        check_twin(&server, &mut wheres);
        assert_eq!(
            server
                .post_json("/v1/facts/purchase", &facts(sent, 60))
                .status,
            200
        );
        sent += 60;
        let twin = match round % 4 {
            3 => String::new(),
            _ => VISITS.replace("amount > 0", &format!("amount > {}", round % 4)),
        };
        let files = json!({"files": [{"file": "a.yaml", "text": CONTRACTS}, {"file": "b.yaml", "text": format!("{FEATURES}{twin}")}]});
        let url = format!("{}/v1/registry/apply", server.url);
        let applier = std::thread::spawn(move || {
            // The call fails where the server dies first; that is the point.
            let hook = std::panic::catch_unwind(|| {
                call(
                    "POST",
                    &url,
                    Some("application/json"),
                    files.to_string().as_bytes(),
                )
            });
            drop(hook);
        });
        std::thread::sleep(Duration::from_micros(mixed(round) % 60_000));
        server.kill();
        applier.join().expect("the applier ends");
    }
    let server = ServerProcess::start(&project);
    check_twin(&server, &mut wheres);
    assert!(wheres.len() > 2, "some applies came through: {wheres:?}");
}

/// The views are those of one registry, and say what the facts say.
fn check_twin(server: &ServerProcess, wheres: &mut std::collections::BTreeSet<String>) {
    let twin = server.get("/v1/registry/views/twin").json();
    let filter = twin["document"]["spec"]["sources"][0]["where"]
        .as_str()
        .map(str::to_owned);
    wheres.insert(filter.clone().unwrap_or_default());
    let entities: Vec<Value> = (0..7)
        .map(|c| json!({"customer": format!("c{c}")}))
        .collect();
    let mut names = vec!["spending.purchases_lifetime"];
    if filter.is_some() {
        names.push("twin.purchases_lifetime");
    }
    let reply = filled(server, &json!({"features": names, "entities": entities}));
    let count = |column: usize| -> u64 {
        let rows = reply["rows"].as_array().unwrap().iter();
        rows.map(|r| r["values"][column].as_u64().unwrap()).sum()
    };
    let last: u64 = reply["sequence"].as_str().unwrap().parse().unwrap();
    assert_eq!(count(0), last);
    if let Some(filter) = filter {
        // Amounts are 0, 1, 2 and so on, one each.
        let above: u64 = filter.rsplit(' ').next().unwrap().parse().unwrap();
        assert_eq!(count(1), last.saturating_sub(above + 1), "where {filter}");
    }
}

#[test]
fn dev_applies_what_changes_and_tells_what_is_wrong() {
    let project = TempProject::new(BINARY, SHOP);
    let mut child = Command::new(project.binary())
        .args(["dev", "--listen", "127.0.0.1:0"])
        .current_dir(project.path())
        .env("NO_COLOR", "1")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut wait_for = |part: &str| loop {
        let line = said.next().expect("it goes on").unwrap();
        if line.contains(part) {
            return line;
        }
    };
    let url = wait_for("listening on ").replace("listening on ", "");
    wait_for("watching");
    let errors = BufReader::new(child.stderr.take().unwrap());
    project.write(
        "features/shop.yaml",
        FEATURES.replace("of: amount, windows: [1h]", "of: amuont, windows: [1h]"),
    );
    let mut lines = errors.lines().map(Result::unwrap);
    assert!(
        lines.any(|l| l.contains("features/shop.yaml:17:")),
        "no place"
    );
    assert!(lines.any(|l| l.contains("stays in force")));
    let views = || call("GET", &format!("{url}/v1/registry/views"), None, b"").json();
    assert_eq!(views().as_array().unwrap().len(), 1);
    project.write("features/shop.yaml", format!("{FEATURES}{VISITS}"));
    wait_for("+ view twin");
    wait_for("Applied.");
    assert_eq!(views().as_array().unwrap().len(), 2);
    child.kill().unwrap();
    child.wait().unwrap();
}
