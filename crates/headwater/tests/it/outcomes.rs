//! SIGKILL while outcomes come in, some to be revised: none that was acknowledged is lost, and the newest counts.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use headwater_testkit::{Client, ServerProcess};
use serde_json::{Value as Json, json};

use crate::predict::shop;

const ROUNDS: u64 = 20;
/// Threads that tell outcomes, each of predictions of its own.
const TELLERS: u64 = 3;
/// Predictions whose outcomes are told together.
const ROWS: usize = 4;

/// What was told of a prediction: the newest value that was acknowledged, and those sent since without an answer.
#[derive(Default)]
struct Told {
    acknowledged: Option<f64>,
    unanswered: Vec<f64>,
}

type Known = Mutex<BTreeMap<String, Told>>;

/// Predicts and tells outcomes, of the newest predictions and again of some before, until the server is gone.
fn tell_until_gone(server_url: &str, teller: u64, next: &mut u64, known: &Known) {
    let client = Client::default();
    let post = |path: &str, body: &Json| {
        let headers = [("content-type", "application/json")];
        let url = format!("{server_url}{path}");
        let reply = client.try_call("POST", &url, &headers, body.to_string().as_bytes());
        // What the dying server says, it hasn't acknowledged.
        reply.ok().filter(|reply| reply.status == 200)
    };
    let mut before: Vec<String> = Vec::new();
    loop {
        let asked = json!({"vectors": vec![[1, 2, 3]; ROWS], "deadline_ms": 30_000});
        let Some(reply) = post("/v1/models/fraud/predict", &asked) else {
            return;
        };
        let ids = reply.json()["prediction_ids"].clone();
        let mut ids: Vec<String> = serde_json::from_value(ids).unwrap();
        let newest = ids.clone();
        ids.extend(before.into_iter().take(2));
        before = newest;
        let told = ids.iter().map(|id| {
            *next += 1;
            // No two tellers tell the same, and each tells more than before.
            let value = (*next * TELLERS + teller) as f64;
            (id.clone(), value)
        });
        let told: Vec<(String, f64)> = told.collect();
        {
            let mut known = known.lock().unwrap();
            for (id, value) in &told {
                known.entry(id.clone()).or_default().unanswered.push(*value);
            }
        }
        let outcomes = told.iter().map(
            |(id, value)| json!({"prediction_id": id, "value": value, "event_time": *value as u64}),
        );
        let Some(reply) = post("/v1/outcomes", &outcomes.collect()) else {
            return;
        };
        let answer = reply.json();
        assert_eq!(answer["rejected"], json!([]), "{answer}");
        let mut known = known.lock().unwrap();
        for (id, value) in told {
            let of = known.entry(id).or_default();
            of.acknowledged = Some(value);
            of.unanswered.clear();
        }
    }
}

/// Holds the outcomes that are there to what was told.
fn check(server: &ServerProcess, known: &Known, round: u64) {
    let sql = "SELECT prediction_id, value FROM facts.outcome";
    let query = json!({ "sql": sql, "limit": 10_000_000 }).to_string();
    let headers = [
        ("content-type", "application/json"),
        ("accept", "application/x-ndjson"),
    ];
    let url = format!("{}/v1/query", server.url);
    let reply = Client::default().call("POST", &url, &headers, query.as_bytes());
    assert_eq!(reply.status, 200, "{}", reply.body);
    let mut there = BTreeMap::new();
    for line in reply.body.lines() {
        let row: Json = serde_json::from_str(line).unwrap();
        let id = row["prediction_id"].as_str().unwrap().to_owned();
        let twice = there.insert(id, row["value"].as_f64().unwrap());
        assert_eq!(twice, None, "two count of {row}");
    }
    let known = known.lock().unwrap();
    for (id, told) in known.iter() {
        let value = there.remove(id);
        let sent = || told.unanswered.iter().copied().map(Some);
        let may = std::iter::once(told.acknowledged).chain(sent());
        assert!(
            may.into_iter().any(|may| may == value),
            "round {round}: {value:?} of {id}, acknowledged {:?}, unanswered {:?}",
            told.acknowledged,
            told.unanswered
        );
    }
    assert!(there.is_empty(), "nobody told of {there:?}");
}

#[test]
fn a_kill_while_outcomes_come_in_loses_none_that_was_acknowledged() {
    let project = shop("");
    project.run_ok(&["models", "add", "fraud", "one.model", "--alias", "live"]);
    let known = Known::default();
    let mut next = [0; TELLERS as usize];
    for round in 0..ROUNDS {
        let server = ServerProcess::start(&project);
        check(&server, &known, round);
        let url = server.url.clone();
        std::thread::scope(|scope| {
            for (teller, next) in next.iter_mut().enumerate() {
                let (url, known) = (&url, &known);
                scope.spawn(move || tell_until_gone(url, teller as u64, next, known));
            }
            // Another moment each round, from the first calls on.
            std::thread::sleep(Duration::from_millis(5 + round * 37 % 150));
            server.kill();
        });
    }
    let server = ServerProcess::start(&project);
    check(&server, &known, ROUNDS);
    let known = known.lock().unwrap();
    let acknowledged = known.values().filter(|told| told.acknowledged.is_some());
    let acknowledged = acknowledged.count();
    let lost = known
        .values()
        .filter(|told| !told.unanswered.is_empty())
        .count();
    assert!(acknowledged > ROUNDS as usize * ROWS, "{acknowledged}");
    assert!(lost > 0, "no kill came between a call and its answer");
    assert!(server.stop());
}
