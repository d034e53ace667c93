//! SIGKILL at random points while facts come in, some to be revised and some to be taken back: nothing
//! acknowledged is lost, nothing is counted twice, and the features equal those of a clean replay.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use headwater_testkit::{ServerProcess, TempProject, call};
use serde_json::{Value, json};

use crate::archive::rows_by_sequence;
use crate::{BINARY, CONTRACTS, FEATURES, SHOP, filled};

const ROUNDS: usize = 100;
/// Rounds with an archive, unless `HEADWATER_CRASH_ROUNDS` says how many.
const ARCHIVE_ROUNDS: usize = 50;
const CUSTOMERS: u64 = 7;
const MINUTE: u64 = 60_000_000;

/// A generator of test data: the same numbers every time.
fn mixed(seed: u64) -> u64 {
    let mut x = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

fn fact(id: u64) -> Value {
    json!({
        "id": format!("p{id}"),
        "customer": format!("c{}", mixed(id) % CUSTOMERS),
        "amount": (mixed(id + 1) % 10_000) as f64 / 100.0,
        "time": (mixed(id + 2) % 600) * MINUTE / 10,
    })
}

/// What is sent of some facts: a revision under the same id, with another customer and time, or that
/// they are taken back.
#[derive(PartialEq)]
enum Fate {
    Kept,
    Revised,
    Retracted,
}

fn fate(id: u64) -> Fate {
    match mixed(id + 3) % 10 {
        0 => Fate::Revised,
        1 => Fate::Retracted,
        _ => Fate::Kept,
    }
}

fn revised(id: u64) -> Value {
    let mut other = fact(id + 1_000_000);
    other["id"] = json!(format!("p{id}"));
    other
}

/// The calls that send facts and then correct them. Each may be made again.
fn calls(ids: &[u64]) -> [(&'static str, Value); 3] {
    let of = |wanted: Fate| ids.iter().filter(move |id| fate(**id) == wanted);
    let facts: Vec<Value> = ids.iter().map(|id| fact(*id)).collect();
    let revisions: Vec<Value> = of(Fate::Revised).map(|id| revised(*id)).collect();
    let retracted: Vec<String> = of(Fate::Retracted).map(|id| format!("p{id}")).collect();
    [
        ("/v1/facts/purchase", json!(facts)),
        ("/v1/facts/purchase?revise=true", json!(revisions)),
        (
            "/v1/facts/purchase/retract",
            json!({ "fact_ids": retracted }),
        ),
    ]
}

/// Sends batches of facts until the server is gone; remembers what was acknowledged. What was sent
/// last and never acknowledged is sent again by the next round, in a batch that may be shorter.
fn send_until_gone(
    round: u64,
    url: &str,
    next: &mut u64,
    sent_until: &mut u64,
    acknowledged: &Mutex<Vec<u64>>,
    gone: &AtomicBool,
) {
    while !gone.load(Ordering::SeqCst) {
        // Another size each round, so that what is sent again isn't in the same batches.
        let size = 1 + mixed(*next ^ (round << 32)) % 20;
        let ids: Vec<u64> = (*next..*next + size).collect();
        *sent_until = (*next + size).max(*sent_until);
        let sent = calls(&ids).into_iter().all(|(path, body)| {
            let (url, body) = (format!("{url}{path}"), body.to_string());
            let sent = std::panic::catch_unwind(|| {
                call("POST", &url, Some("application/json"), body.as_bytes())
            });
            sent.is_ok_and(|reply| reply.status == 200)
        });
        match sent {
            true => {
                acknowledged.lock().unwrap().extend(ids);
                *next += size;
            }
            false => return,
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_is_counted_twice() {
    let project = TempProject::new(BINARY, SHOP);
    kill_in_rounds(&project, ROUNDS, |_| {});
}

/// Another view over the same facts, each round with another text that picks the same ones: it is filled
/// from the beginning, which has left for the archive.
fn other_view(round: u64) -> Value {
    let view = format!(
        "---\napiVersion: headwater/v1\nkind: FeatureView\nname: other\nspec:\n  entity: customer\n  sources: [{{contract: purchase, where: amount > -{}}}]\n  features: [{{name: purchases, aggregate: count, windows: [lifetime]}}]\n",
        round + 1
    );
    json!({"files": [{"file": "a.yaml", "text": CONTRACTS}, {"file": "b.yaml", "text": format!("{FEATURES}{view}")}]})
}

/// The same while files of the log leave for the archive as soon as they can, and a view is filled. Every
/// fact that the archive has is in one of its files, once.
#[test]
fn a_kill_while_facts_leave_for_the_archive_loses_and_doubles_none() {
    let rounds = std::env::var("HEADWATER_CRASH_ROUNDS");
    let rounds = rounds.map_or(ARCHIVE_ROUNDS, |rounds| rounds.parse().expect("a number"));
    let project = TempProject::new(BINARY, SHOP);
    project.write("headwater.yaml", "name: shop\nspec:\n  state: {checkpoint_facts: 200, fill_facts_max: 40}\n  ingest: {segment_bytes_max: 6000}\n  archive: {every: 3ms, seal_after: 5ms, after: 200ms}\n");
    let (mut archived, mut left, mut round) = (0, 0, 0);
    kill_in_rounds(&project, rounds, |server| {
        if round > 0 {
            let counted = count(server, "other.purchases_lifetime");
            assert_eq!(counted, live(server), "round {round}");
        }
        let applied = server.post_json("/v1/registry/apply", &other_view(round));
        assert_eq!(applied.status, 200, "{}", applied.body);
        round += 1;
        let state = server.get("/v1/archive").json();
        left = state["segments_only_in_archive"].as_u64().unwrap();
        let through: u64 = state["through"].as_str().unwrap().parse().unwrap();
        let rows = rows_by_sequence(project.path());
        assert!(rows.values().all(|count| *count == 1), "{rows:?}");
        let known = rows.keys().filter(|sequence| **sequence <= through);
        assert!(
            known.copied().eq(1..=through),
            "through {through}: {rows:?}"
        );
        assert!(through >= archived, "{through} after {archived}");
        archived = through;
    });
    assert!(
        archived > rounds as u64 && left > 0,
        "{archived} facts, {left} files"
    );
}

/// Kills a server in each of some rounds, at a random moment while facts come in; `check` looks at
/// each server before.
fn kill_in_rounds(project: &TempProject, rounds: usize, mut check: impl FnMut(&ServerProcess)) {
    // The sender learns of the kill by a failed call; its panic message would only be noise.
    std::panic::set_hook(Box::new(|_| {}));
    project.run_ok(&["apply"]);
    let acknowledged: Arc<Mutex<Vec<u64>>> = Arc::default();
    let (mut next, mut sent_until) = (0, 0);
    for round in 0..rounds {
        let server = ServerProcess::start(project);
        check(&server);
        check_kept(&server, &acknowledged.lock().unwrap(), round);
        let gone = Arc::new(AtomicBool::new(false));
        let url = server.url.clone();
        let (told, known) = (acknowledged.clone(), gone.clone());
        let sender = std::thread::spawn(move || {
            send_until_gone(
                round as u64,
                &url,
                &mut next,
                &mut sent_until,
                &told,
                &known,
            );
            (next, sent_until)
        });
        std::thread::sleep(Duration::from_micros(mixed(round as u64) % 40_000));
        server.kill();
        gone.store(true, Ordering::SeqCst);
        (next, sent_until) = sender.join().expect("the sender ends");
    }
    let _ = std::panic::take_hook();
    let server = ServerProcess::start(project);
    check(&server);
    let acknowledged = acknowledged.lock().unwrap();
    assert!(
        acknowledged.len() > rounds,
        "only {} facts went in",
        acknowledged.len()
    );
    check_equals_clean_replay(&server, &acknowledged, sent_until);
}

/// How many facts live in the log.
fn live(server: &ServerProcess) -> u64 {
    let reply = server.get("/metrics").body;
    let measured = |name: &str| {
        let line = reply.lines().find(|l| l.starts_with(name));
        let value = line.and_then(|l| l.split(' ').nth(1)?.parse::<f64>().ok());
        value.unwrap_or(0.0) as u64
    };
    measured("headwater_facts_kept") - measured("headwater_facts_removed")
}

/// The sum of a feature over all customers.
fn count(server: &ServerProcess, name: &str) -> u64 {
    let entities = (0..CUSTOMERS).map(|c| json!({"customer": format!("c{c}")}));
    let entities: Vec<Value> = entities.collect();
    let reply = filled(server, &json!({"features": [name], "entities": entities}));
    let rows = reply["rows"].as_array().unwrap().iter();
    rows.map(|r| r["values"][0].as_u64().expect("a count"))
        .sum()
}

/// Every acknowledged fact is there: its lifetime count says at least as many, and what was sent and
/// never acknowledged is there once or not at all.
fn check_kept(server: &ServerProcess, acknowledged: &[u64], round: usize) {
    let features = features(server, 0..CUSTOMERS);
    let counted: i64 = features
        .values()
        .map(|row| row["spending.purchases_lifetime"].as_i64().unwrap())
        .sum();
    let kept = live(server);
    assert_eq!(
        counted as u64, kept,
        "round {round}: the views and the log disagree"
    );
    let acknowledged = acknowledged.iter();
    let acknowledged = acknowledged.filter(|id| fate(**id) != Fate::Retracted);
    let acknowledged = acknowledged.count() as u64;
    assert!(
        kept >= acknowledged,
        "round {round}: {kept} of {acknowledged} acknowledged"
    );
}

/// The features of customers at the end of all event times.
fn features(
    server: &ServerProcess,
    customers: std::ops::Range<u64>,
) -> BTreeMap<u64, serde_json::Map<String, Value>> {
    let entities: Vec<Value> = customers
        .clone()
        .map(|c| json!({"customer": format!("c{c}")}))
        .collect();
    let reply = server.post_json(
        "/v1/features",
        &json!({"feature_set": "customer_now", "entities": entities, "as_of": 60 * MINUTE}),
    );
    assert_eq!(reply.status, 200, "{}", reply.body);
    let reply = reply.json();
    let names = reply["names"].as_array().unwrap().clone();
    let rows = reply["rows"].as_array().unwrap().clone();
    customers
        .zip(rows)
        .map(|(customer, row)| {
            let values = row["values"].as_array().unwrap();
            let named = names.iter().zip(values);
            (
                customer,
                named
                    .map(|(n, v)| (n.as_str().unwrap().to_owned(), v.clone()))
                    .collect(),
            )
        })
        .collect()
}

/// Sends everything once more (all of it known but what was never acknowledged), and compares with a
/// data folder that never crashed.
fn check_equals_clean_replay(server: &ServerProcess, acknowledged: &[u64], sent_until: u64) {
    let ids: Vec<u64> = (0..sent_until).collect();
    let [facts, revisions, retractions] = calls(&ids);
    let again = server.post_json(facts.0, &facts.1).json();
    let conflicts = again["rejected"].as_array().unwrap().len();
    let duplicates = again["duplicates"].as_u64().unwrap() as usize;
    let kept = acknowledged.iter().filter(|id| fate(**id) == Fate::Kept);
    assert!(duplicates >= kept.count(), "{duplicates} duplicates");
    let revised_ids = ids.iter().filter(|id| fate(**id) == Fate::Revised);
    assert!(conflicts <= revised_ids.count(), "{conflicts} conflicts");
    for (path, body) in [revisions, retractions] {
        assert_eq!(server.post_json(path, &body).status, 200);
    }
    let all: Vec<Value> = ids
        .iter()
        .filter(|id| fate(**id) != Fate::Retracted)
        .map(|id| match fate(*id) {
            Fate::Revised => revised(*id),
            _ => fact(*id),
        })
        .collect();
    assert_eq!(live(server), all.len() as u64);
    let clean = TempProject::new(BINARY, SHOP);
    clean.run_ok(&["apply"]);
    let clean_server = ServerProcess::start(&clean);
    // In another order and in one piece: the answer may not depend on it.
    let reversed: Vec<Value> = all.into_iter().rev().collect();
    assert_eq!(
        clean_server
            .post_json("/v1/facts/purchase", &json!(reversed))
            .status,
        200
    );
    let (crashed, replayed) = (
        features(server, 0..CUSTOMERS),
        features(&clean_server, 0..CUSTOMERS),
    );
    for (customer, row) in &crashed {
        for (name, value) in row {
            // `last` follows arrival among equal times, and arrival differs here.
            if name != "spending.last" {
                assert_eq!(value, &replayed[customer][name], "{customer} {name}");
            }
        }
    }
    assert!(clean_server.stop(), "an orderly end");
}
