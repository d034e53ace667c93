//! Views that are filled from the facts while a server runs: seen from outside, killed in the middle, made
//! again on demand.

use std::time::{Duration, Instant};

use headwater_testkit::{ServerProcess, TempProject};
use serde_json::{Value, json};

use crate::{BINARY, CONTRACTS, FEATURES};

const CUSTOMERS: u64 = 300;
/// Facts that are there before the first view is filled: many pieces of the log.
const FACTS: u64 = 120_000;
const BODY: u64 = 4_000;
const ROUNDS: u64 = 50;
/// Behind all facts, with some of everybody in the ten seconds before.
const AS_OF: u64 = 125_000_000;

const SETTINGS: &str = "name: shop\nspec: {ingest: {sync: never}, state: {checkpoint_facts: 15000, fill_facts_max: 64, catch_up_facts_max: 128}}\n";

fn mixed(seed: u64) -> u64 {
    let mut x = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x ^ (x >> 27)
}

/// A view that counts and adds up what `spending` does, and one over its output.
fn twin(shape: &str) -> String {
    format!(
        "---
apiVersion: headwater/v1
kind: FeatureView
name: twin
owner: research
spec:
  entity: customer
  sources: [{{contract: purchase}}]
  features:
    - {{name: purchases, aggregate: count, windows: [1m, lifetime]}}
    - {{name: spent, aggregate: sum, of: amount, windows: [1m, lifetime]}}
    - {{name: shape, aggregate: max, of: \"{shape}\"}}
---
apiVersion: headwater/v1
kind: FeatureView
name: above
owner: research
spec:
  entity: customer
  sources: [{{view: twin}}]
  features:
    - {{name: most, aggregate: max, of: spent_lifetime, windows: [10s]}}
"
    )
}

fn project(features: &str) -> TempProject {
    let files = [
        ("headwater.yaml", SETTINGS),
        ("contracts/shop.yaml", CONTRACTS),
        ("features/shop.yaml", features),
    ];
    let project = TempProject::new(BINARY, &files);
    project.run_ok(&["apply"]);
    project
}

fn body(from: u64, count: u64) -> String {
    let fact = |id: u64| {
        let mixed = mixed(id);
        let line = json!({
            "id": format!("p{id}"), "customer": format!("c{}", mixed % CUSTOMERS),
            "amount": (mixed >> 20) as f64 % 997.0 / 7.0, "time": id * 1000 + (mixed >> 40) % 50_000,
        });
        line.to_string() + "\n"
    };
    (from..from + count).map(fact).collect()
}

fn ingest(server: &ServerProcess, from: u64, count: u64) {
    let reply = server.post(
        "/v1/facts/purchase",
        "application/x-ndjson",
        body(from, count),
    );
    assert_eq!(reply.status, 200, "{}", reply.body);
}

fn fill(server: &ServerProcess, facts: u64) {
    (0..facts)
        .step_by(BODY as usize)
        .for_each(|from| ingest(server, from, BODY.min(facts - from)));
}

/// Values and statuses of some features of every customer, at one cursor.
fn read(server: &ServerProcess, names: &[&str]) -> Vec<Vec<(Value, String)>> {
    let entities: Vec<Value> = (0..CUSTOMERS)
        .map(|c| json!({"customer": format!("c{c}")}))
        .collect();
    let body = json!({"features": names, "entities": entities, "as_of": AS_OF});
    let reply = server.post_json("/v1/features", &body);
    assert_eq!(reply.status, 200, "{}", reply.body);
    let reply = reply.json();
    let rows = reply["rows"].as_array().unwrap().iter();
    rows.map(|row| {
        let values = row["values"].as_array().unwrap().iter().cloned();
        let statuses = row["statuses"].as_array().unwrap().iter();
        let statuses = statuses.map(|s| s.as_str().unwrap().to_owned());
        values.zip(statuses).collect()
    })
    .collect()
}

const TWINS: [&str; 5] = [
    "spending.purchases_lifetime",
    "spending.spent_lifetime",
    "twin.purchases_lifetime",
    "twin.spent_lifetime",
    "above.most_10s",
];

/// The twin says of everybody what `spending` says, or of nobody anything; so does the view above it.
fn check_whole_or_nothing(server: &ServerProcess) -> bool {
    let rows = read(server, &TWINS);
    let filling = rows[0][2].1 == "BACKFILLING";
    for row in rows {
        let nothing =
            |(value, status): &(Value, String)| value.is_null() && status == "BACKFILLING";
        // Between two customers, and between two views, it may have been filled.
        if row[2].1 == "BACKFILLING" {
            assert!(filling && row[2..4].iter().all(nothing), "{row:?}");
            assert!(row[4].1 == "PRESENT" || nothing(&row[4]), "{row:?}");
        } else {
            assert_eq!((&row[0].0, &row[1].0), (&row[2].0, &row[3].0));
            assert_ne!(row[4].1, "BACKFILLING", "{row:?}");
        }
    }
    filling
}

fn view(server: &ServerProcess, name: &str) -> Value {
    let views = server.get("/v1/registry/views").json();
    let mut views = views.as_array().unwrap().iter();
    views.find(|v| v["name"] == name).unwrap().clone()
}

fn wait_until_filled(project: &TempProject, server: &ServerProcess) {
    project.run_ok(&["backfill", "--server", &server.url]);
    for name in ["spending", "twin", "above"] {
        assert_eq!(view(server, name)["status"], "serving");
    }
}

#[test]
fn killed_while_views_are_filled_nothing_is_lost_and_nothing_is_doubled() {
    let shape = |round: u64| format!("amount + {}", round % 7);
    let project = project(&format!("{FEATURES}{}", twin(&shape(0))));
    let server = ServerProcess::start(&project);
    fill(&server, FACTS);
    assert!(server.stop());
    let (mut next, mut interrupted) = (FACTS, 0);
    for round in 1..=ROUNDS {
        let server = ServerProcess::start(&project);
        interrupted += u32::from(check_whole_or_nothing(&server));
        match mixed(round) % 4 {
            // It goes on with what the last one began.
            0 => {}
            1 => {
                let views = json!({"views": ["twin"]});
                let reply = server.post_json("/v1/registry/backfill", &views);
                assert_eq!(reply.status, 200, "{}", reply.body);
            }
            _ => {
                let features = format!("{FEATURES}{}", twin(&shape(round)));
                project.write("features/shop.yaml", features);
                project.run_ok(&["apply", "--server", &server.url]);
            }
        }
        for _ in 0..mixed(round + 1000) % 4 {
            ingest(&server, next, 7);
            next += 7;
            check_whole_or_nothing(&server);
        }
        std::thread::sleep(Duration::from_millis(mixed(round + 2000) % 40));
        server.kill();
    }
    assert!(
        interrupted > 5,
        "only {interrupted} starts found a view half filled"
    );
    let last = format!("{FEATURES}{}", twin("amount + 9"));
    project.write("features/shop.yaml", &last);
    let server = ServerProcess::start(&project);
    project.run_ok(&["apply", "--server", &server.url]);
    wait_until_filled(&project, &server);
    check_equals_fresh(&server, &last, next);
}

/// Every feature of everybody is, bit for bit, what a server says that had these definitions from the start.
fn check_equals_fresh(server: &ServerProcess, features: &str, facts: u64) {
    let fresh_project = project(features);
    let fresh = ServerProcess::start(&fresh_project);
    fill(&fresh, facts);
    let views = server.get("/v1/registry/views").json();
    let views = views.as_array().unwrap().iter();
    let names = views.flat_map(|v| v["features"].as_array().unwrap().clone());
    let names: Vec<String> = names
        .map(|f| f["name"].as_str().unwrap().to_owned())
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert!(names.len() > 8);
    let (is, should) = (read(server, &names), read(&fresh, &names));
    for (customer, (is, should)) in is.iter().zip(&should).enumerate() {
        assert_eq!(is, should, "c{customer}: {names:?}");
    }
}

#[test]
fn a_restart_goes_on_with_what_was_being_filled() {
    // Its only view: nothing else says how far the log had been applied.
    let project = project(FEATURES);
    let server = ServerProcess::start(&project);
    fill(&server, FACTS);
    assert!(server.stop());
    let server = ServerProcess::start(&project);
    let begun = project.run_ok(&[
        "backfill",
        "--view",
        "spending",
        "--no-wait",
        "--server",
        &server.url,
    ]);
    assert!(
        begun.starts_with("spending: ") && begun.contains("of 120,000 facts"),
        "{begun}"
    );
    let start = Instant::now();
    let before = loop {
        let view = view(&server, "spending");
        let done = view["filling"]["facts_done"].as_u64();
        assert_eq!(
            view["status"], "backfilling",
            "filled before it could be killed"
        );
        if done > Some(FACTS / 3) {
            break done.unwrap();
        }
        assert!(start.elapsed() < Duration::from_secs(30));
    };
    server.kill();
    let server = ServerProcess::start_logged(&project);
    let log = std::fs::read_to_string(project.path().join("server.log")).unwrap();
    assert!(!log.contains("reading the log again"), "{log}");
    let after = view(&server, "spending");
    if after["status"] == "backfilling" {
        let reached: u64 = after["filled_to"].as_str().unwrap().parse().unwrap();
        // At most what was read since the last checkpoint is read again.
        assert!(
            reached + 15_000 + 8_000 >= before,
            "{reached} after {before}"
        );
    }
    ingest(&server, FACTS, 10);
    let told = project.run_ok(&["backfill", "--server", &server.url, "--json"]);
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["views"][0]["status"], "serving");
    check_equals_fresh_of_one(&server);
    check_training_set_while_filling(&project, &server);
}

/// A training set needs no states: made while the view is being filled it is what it is afterwards.
fn check_training_set_while_filling(project: &TempProject, server: &ServerProcess) {
    let spine: String = (0..CUSTOMERS).map(|c| format!("c{c},{AS_OF}\n")).collect();
    let make = || {
        let path = "/v1/training-sets?features=spending.spent_lifetime";
        let reply = server.post(path, "text/csv", format!("customer,as_of\n{spine}"));
        assert_eq!(reply.status, 200, "{}", reply.body);
        reply.bytes
    };
    let views = json!({"views": ["spending"]});
    let begun = server.post_json("/v1/registry/backfill", &views).json();
    assert_eq!(begun["filling"][0], "spending");
    let meanwhile = make();
    project.run_ok(&["backfill", "--server", &server.url]);
    assert!(meanwhile == make(), "another table");
}

fn check_equals_fresh_of_one(server: &ServerProcess) {
    let names = ["spending.purchases_lifetime", "spending.spent_lifetime"];
    let counted: u64 = read(server, &names)
        .iter()
        .map(|row| row[0].0.as_u64().unwrap())
        .sum();
    assert_eq!(counted, FACTS + 10);
}

#[test]
fn a_view_is_made_again_without_a_server_and_mistakes_are_named() {
    let project = project(&format!("{FEATURES}{}", twin("amount")));
    project.write("facts.ndjson", body(0, 2000));
    project.run_ok(&["ingest", "purchase", "facts.ndjson"]);
    let said = project.run_ok(&["backfill", "--view", "twin"]);
    assert_eq!(said.trim(), "Every view is filled.");
    let unknown = project.run(&["backfill", "--view", "nothing"]);
    assert_eq!(unknown.status.code(), Some(1));
    let chained = project.run(&["backfill", "--view", "above"]);
    let said = String::from_utf8_lossy(&chained.stderr).into_owned();
    assert!(
        said.contains("keeps nothing that could be filled") && said.contains("twin"),
        "{said}"
    );
    let server = ServerProcess::start(&project);
    assert!(!check_whole_or_nothing(&server));
    let wrong = server.post_json("/v1/registry/backfill", &json!({"view": "twin"}));
    assert_eq!(wrong.status, 400, "{}", wrong.body);
}
