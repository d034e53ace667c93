//! Requests whose features don't come in time, or not at all; more of them than there is room for.
#![allow(
    clippy::disallowed_methods,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests use the real clock and stop loudly"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use headwater_env::Env;
use headwater_features::{Catalog, ContextRow, EntityRequest, KeyValue, Outcome};
use headwater_models::repository::ModelRepository;
use headwater_schema::yaml::YamlDocument;
use headwater_schema::{Cursor, FactBatch, Problem, Sequence, Value};

use crate::*;

mod caching;
mod fallbacks;
mod traffic;

const SHOP: &str = include_str!("../../features/src/meaning/shop.yaml");
const SAVED: &str = include_str!("../../models/src/lightgbm/small.txt");

/// The file with small leaves, the last one as told, so that its versions can be told apart by what they answer.
fn with_leaf(leaf: &str) -> Vec<u8> {
    let mut trees = 0;
    let small = SAVED.lines().map(|line| {
        if !line.starts_with("leaf_value=") {
            return line.to_owned();
        }
        trees += 1;
        match trees {
            1 => "leaf_value=0.1 0.2 0.4".to_owned(),
            2 => "leaf_value=-1.5 0.25".to_owned(),
            _ => format!("leaf_value={leaf} -{leaf}"),
        }
    });
    small
        .map(|line| line + "\n")
        .collect::<String>()
        .into_bytes()
}

const MODEL: &str = "---
apiVersion: headwater/v1
kind: Model
name: fraud
spec:
  feature_set: all
  inputs: [spent_1h, all.ratio, context.more]
  deadline: 500ms
";

/// What the store does with the next read.
enum Next {
    Fail,
    Panic,
    /// Says that it was reached, and waits for the test.
    Stall(Sender<()>, Receiver<()>),
}

struct Store {
    catalog: Arc<Catalog>,
    next: Mutex<Vec<Next>>,
    /// What all features of a customer are; 1 unless told.
    values: Mutex<BTreeMap<String, f64>>,
}

impl FeatureSource for Store {
    fn read(
        &self,
        _: &str,
        entities: &[EntityRequest],
        _: &[ContextRow],
    ) -> Result<FeaturesRead, Problem> {
        let next = self.next.lock().unwrap().pop();
        match next {
            None => {}
            Some(Next::Panic) => panic!("as it is meant to"),
            Some(Next::Fail) => return Err(Problem::external("store-lost", "the store is gone")),
            Some(Next::Stall(reached, until)) => {
                reached.send(()).unwrap();
                until.recv().unwrap_or(());
            }
        }
        let set = self.catalog.set("all").unwrap();
        let values = self.values.lock().unwrap();
        let row = |asked: &EntityRequest| {
            let value = match asked.get("customer") {
                Some(KeyValue::Scalar(Value::String(name))) => values.get(name.as_ref()),
                _ => None,
            };
            let value = Value::Float(value.copied().unwrap_or(1.0));
            let names = set.full_names();
            names
                .map(|_| Outcome::present(value.clone(), None))
                .collect()
        };
        Ok(FeaturesRead {
            catalog: self.catalog.clone(),
            rows: entities.iter().map(row).collect(),
            as_of: 7,
            sequence: 3,
        })
    }

    fn read_at(
        &self,
        set: &str,
        entities: &[EntityRequest],
        context: &[ContextRow],
        cursor: &Cursor,
    ) -> Result<FeaturesRead, Problem> {
        let read = self.read(set, entities, context)?;
        Ok(FeaturesRead {
            as_of: cursor.as_of,
            sequence: cursor.known_at.min(self.applied()),
            ..read
        })
    }

    fn applied(&self) -> Sequence {
        3
    }

    fn catalog(&self) -> Arc<Catalog> {
        self.catalog.clone()
    }
}

/// Keeps what it is given, stands still, or refuses it.
struct Log {
    batches: Mutex<Sender<FactBatch>>,
    stalled: Mutex<Option<Receiver<()>>>,
    full: AtomicBool,
}

impl PredictionSink for Log {
    fn append(&self, batch: FactBatch) -> Result<usize, Problem> {
        if let Some(until) = self.stalled.lock().unwrap().take() {
            until.recv().unwrap_or(());
        }
        if self.full.load(Ordering::SeqCst) {
            return Err(Problem::external("disk-full", "the disk is full"));
        }
        let rows = batch.len();
        self.batches.lock().unwrap().send(batch).unwrap();
        Ok(rows)
    }

    fn sync(&self) -> Result<(), Problem> {
        Ok(())
    }
}

struct Shop {
    serving: Serving,
    store: Arc<Store>,
    log: Arc<Log>,
    written: Receiver<FactBatch>,
}

fn shop(more: &str, settings: ServingSettings, stalled: Option<Receiver<()>>) -> Shop {
    let text = format!("{SHOP}{MODEL}{more}");
    let documents = YamlDocument::parse_all("all.yaml", &text).unwrap();
    let catalog = Arc::new(Catalog::compile(&documents).unwrap());
    let store = Arc::new(Store {
        catalog,
        next: Mutex::default(),
        values: Mutex::default(),
    });
    let (batches, written) = channel();
    let log = Arc::new(Log {
        batches: Mutex::new(batches),
        stalled: Mutex::new(stalled),
        full: AtomicBool::new(false),
    });
    // Files in memory; time as it goes, since somebody waits for it.
    let (simulated, _, _) = Env::simulated(1);
    let env = Env {
        clock: Env::real().clock,
        ..simulated
    };
    let repository = ModelRepository::new(env.clone(), Path::new("/models"));
    let serving = Serving::start(&env, settings, repository, store.clone(), log.clone()).unwrap();
    let live = NewVersion {
        aliases: vec!["live".to_owned()],
        ..NewVersion::default()
    };
    serving
        .add("fraud", with_leaf("0.75"), &live, Default::default())
        .unwrap();
    Shop {
        serving,
        store,
        log,
        written,
    }
}

impl Shop {
    /// Says what the store does with the reads to come.
    fn then(&self, next: impl IntoIterator<Item = Next>) {
        self.store.next.lock().unwrap().extend(next);
    }
}

fn asked(customer: &str) -> PredictRequest {
    let key = KeyValue::Scalar(Value::string(customer));
    PredictRequest {
        model: "fraud".to_owned(),
        rows: InputRows::Entities {
            entities: vec![EntityRequest::from([("customer".to_owned(), key)])],
            context: vec![ContextRow::from([("more".to_owned(), 2.into())])],
            candidates: None,
        },
        ..PredictRequest::default()
    }
}

fn one_thread() -> ServingSettings {
    ServingSettings {
        threads: 1,
        queue_requests_max: 2,
        ..ServingSettings::default()
    }
}

#[test]
fn a_store_that_stands_still_or_fails_delays_nobody_beyond_the_deadline() {
    let fallback = "  fallback: [{last_good: 10m}, {constant: 0.5}]\n";
    let shop = shop(fallback, one_thread(), None);
    let good = shop.serving.predict(asked("a")).unwrap();
    assert_eq!((&good.degraded, good.cursor), (&None, Some((7, 3))));
    // It fails: the last good answer for who is known, the constant for who isn't.
    for (customer, fallback) in [("a", "last_good"), ("b", "constant")] {
        shop.store.next.lock().unwrap().push(Next::Fail);
        let reply = shop.serving.predict(asked(customer)).unwrap();
        let degraded = reply.degraded.clone().unwrap();
        assert_eq!(
            (degraded.reason.as_str(), degraded.fallback),
            ("store-lost", fallback)
        );
        match fallback {
            "constant" => assert_eq!(reply.outputs[0][0].1, [0.5]),
            _ => assert_eq!(reply.outputs, good.outputs),
        }
    }
    // It stands still: those after wait in the queue, those after them find no room.
    let (go, until) = channel();
    let (reached, standing) = channel();
    let stall = Next::Stall(reached, until);
    shop.store.next.lock().unwrap().push(stall);
    let mut reasons: Vec<String> = std::thread::scope(|scope| {
        let ask = || {
            let reply = shop.serving.predict(asked("c")).unwrap();
            reply.degraded.clone().unwrap().reason
        };
        let mut asking = vec![scope.spawn(ask)];
        standing.recv().unwrap();
        asking.extend((0..5).map(|_| scope.spawn(ask)));
        asking.into_iter().map(|a| a.join().unwrap()).collect()
    });
    reasons.sort();
    assert_eq!(
        reasons,
        ["busy", "busy", "busy", "deadline", "deadline", "deadline"]
    );
    go.send(()).unwrap();
    // What came too late is still a good answer, and once there is room again requests are answered as ever.
    let end = Instant::now() + Duration::from_secs(20);
    let mut asked_again = 1;
    while let Some(degraded) = &shop.serving.predict(asked("d")).unwrap().degraded {
        assert!(
            degraded.reason == "busy" && Instant::now() < end,
            "{degraded:?}"
        );
        asked_again += 1;
    }
    shop.store.next.lock().unwrap().push(Next::Fail);
    let reply = shop.serving.predict(asked("c")).unwrap();
    assert_eq!(reply.degraded.clone().unwrap().fallback, "last_good");
    shop.serving.stop();
    let rows: usize = shop.written.try_iter().map(|b| b.len()).sum();
    let written = shop.serving.stats().log.written;
    assert_eq!((rows, written), (10 + asked_again, rows as u64));
}

/// Where a thread is busy for longer, what waits for it is given up as soon as the thread comes to it.
#[test]
fn what_can_not_be_answered_in_time_any_more_is_not_begun() {
    let shop = shop("  fallback: [{constant: 0.5}]\n", one_thread(), None);
    assert_eq!(shop.serving.predict(asked("a")).unwrap().degraded, None);
    let (go, until) = channel();
    let (reached, standing) = channel();
    // The store is asked for the first alone: it would fail for the second.
    shop.then([Next::Fail, Next::Stall(reached, until)]);
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| shop.serving.predict(asked("b")).unwrap());
        standing.recv().unwrap();
        let waits = scope.spawn(|| shop.serving.predict(asked("c")).unwrap());
        // More than half of the deadline of both, which is 500 ms.
        std::thread::sleep(Duration::from_millis(300));
        go.send(()).unwrap();
        slow.join().unwrap();
        let degraded = waits.join().unwrap().degraded.clone().unwrap();
        assert_eq!(degraded.reason, "deadline");
    });
    // What hasn't waited is tried, whatever is expected; and the store is asked again only now.
    let reply = shop.serving.predict(asked("d")).unwrap();
    assert_eq!(reply.degraded.clone().unwrap().reason, "store-lost");
    assert_eq!(shop.serving.predict(asked("e")).unwrap().degraded, None);
}

#[test]
fn without_a_fallback_a_problem_says_why() {
    let shop = shop("", one_thread(), None);
    shop.store.next.lock().unwrap().push(Next::Fail);
    assert_eq!(
        shop.serving.predict(asked("a")).unwrap_err().code,
        "store-lost"
    );
    let (_go, until) = channel();
    let (reached, _standing) = channel();
    let stall = Next::Stall(reached, until);
    shop.store.next.lock().unwrap().push(stall);
    let late = shop.serving.predict(asked("a")).unwrap_err();
    assert_eq!((late.code, late.retry), ("deadline", true));
}

#[test]
fn a_log_that_stands_still_delays_nobody_and_what_it_misses_is_counted() {
    let (go, until) = channel();
    let settings = ServingSettings {
        log_queue_predictions_max: 4,
        ..ServingSettings::default()
    };
    let shop = shop("", settings, Some(until));
    for _ in 0..20 {
        assert_eq!(shop.serving.predict(asked("a")).unwrap().degraded, None);
    }
    go.send(()).unwrap();
    shop.serving.stop();
    // The last answer may have been given before it was handed over: what was let go is told after the end.
    let dropped = shop.serving.stats().log.dropped;
    assert!((10..20).contains(&dropped), "{dropped}");
    let rows: usize = shop.written.try_iter().map(|b| b.len()).sum();
    assert_eq!(rows as u64, 20 - dropped);
}

#[test]
fn predictions_are_gathered_and_written_together() {
    let settings = ServingSettings {
        log_gather_ms: 3_600_000,
        ..ServingSettings::default()
    };
    let shop = shop("", settings, None);
    for _ in 0..3 {
        shop.serving.predict(asked("a")).unwrap();
    }
    assert!(shop.written.try_recv().is_err());
    // The end doesn't wait for the hour to pass.
    shop.serving.stop();
    let batches: Vec<_> = shop.written.try_iter().map(|b| b.len()).collect();
    assert_eq!(batches, [3]);
}

#[test]
fn a_log_that_refuses_predictions_fails_nobody_and_is_counted() {
    let shop = shop("", ServingSettings::default(), None);
    shop.log.full.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        assert_eq!(shop.serving.predict(asked("a")).unwrap().degraded, None);
    }
    let end = Instant::now() + Duration::from_secs(20);
    while shop.serving.stats().log.failed < 3 && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(1));
    }
    let log = shop.serving.stats().log;
    assert_eq!((log.failed, log.written, log.waiting), (3, 0, 0));
    // Once there is room again, what comes then is written.
    shop.log.full.store(false, Ordering::SeqCst);
    shop.serving.predict(asked("a")).unwrap();
    shop.serving.stop();
    let log = shop.serving.stats().log;
    assert_eq!((log.failed, log.written, log.dropped), (3, 1, 0));
    let rows: usize = shop.written.try_iter().map(|b| b.len()).sum();
    assert_eq!(rows, 1);
}
