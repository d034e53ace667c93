//! Definitions that change while facts come in and features are read: no read sees half of anything, and
//! in the end everything is as if the last definitions had been there from the start.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use headwater::{Config, Engine, Env, Project, apply_project};
use headwater_api::backend::{EntityRequest, FeaturesRequest, IngestOptions, KeyValue, Names};
use headwater_schema::Value;
use headwater_schema::decode::BodyFormat;
use headwater_testkit::TempProject;
use serde_json::json;

use crate::{BINARY, CONTRACTS, FEATURES};

const CUSTOMERS: u64 = 13;
const FACTS: u64 = 6_000;
const BATCH: u64 = 40;

/// A view that counts and adds up what `spending` does, with something that shapes its state.
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
    - {{name: doubled, expression: spent_lifetime * 2}}
    - {{name: shape, aggregate: max, of: \"{shape}\"}}
"
    )
}

fn project(features: &str) -> TempProject {
    let settings = "name: shop\nspec: {ingest: {sync: never}, state: {shards: 3, checkpoint_facts: 900, fill_facts_max: 64, catch_up_facts_max: 128}}\n";
    let files = [
        ("headwater.yaml", settings),
        ("contracts/shop.yaml", CONTRACTS),
        ("features/shop.yaml", features),
    ];
    TempProject::new(BINARY, &files)
}

fn load(project: &TempProject) -> Project {
    Project::load(&Env::real(), project.path()).expect("a project")
}

fn open(project: &TempProject) -> Engine {
    let loaded = load(project);
    let folder = project.path().join("data");
    if !folder.exists() {
        apply_project(&Env::real(), &loaded, &folder).expect("applied");
    }
    open_config(&loaded.config, project)
}

fn open_config(config: &Config, project: &TempProject) -> Engine {
    let folder = project.path().join("data");
    crate::open_engine(config, &folder)
}

fn apply(engine: &Engine, project: &TempProject) {
    let loaded = load(project);
    engine
        .apply(&loaded.documents, &loaded.catalog, None)
        .expect("applied");
}

fn ingest(engine: &Engine, from: u64) {
    let fact = |id: u64| {
        let mixed = id.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20;
        json!({
            "id": format!("p{id}"), "customer": format!("c{}", mixed % CUSTOMERS),
            "amount": (mixed % 999) as f64 / 10.0, "time": (id + mixed % 50) * 100_000,
        })
    };
    let rows: Vec<_> = (from..from + BATCH).map(fact).collect();
    let body = json!(rows).to_string();
    let options = IngestOptions::default();
    let reply = engine
        .ingest("purchase", BodyFormat::Json, body.as_bytes(), options)
        .expect("taken");
    assert_eq!(reply.accepted as u64, BATCH);
}

fn read(engine: &Engine, names: &[&str], customer: u64) -> Option<Vec<(Value, &'static str)>> {
    let key = KeyValue::Scalar(Value::string(format!("c{customer}")));
    let request = FeaturesRequest {
        names: Names::List(names.iter().map(|n| (*n).to_owned()).collect()),
        entities: vec![EntityRequest::from([("customer".to_owned(), key)])],
        as_of: Some(i64::MAX / 2),
        known_at: None,
        context: Vec::new(),
        inclusive: true,
        lenient: false,
    };
    match engine.features(&request) {
        Ok(reply) => {
            let row = reply.rows.into_iter().next().expect("a row");
            let statuses = row.statuses.iter().map(|s| s.as_str());
            Some(row.values.into_iter().zip(statuses).collect())
        }
        Err(problem) => {
            assert_eq!(problem.code, "unknown-feature", "{problem}");
            None
        }
    }
}

const TWINS: [&str; 5] = [
    "spending.purchases_lifetime",
    "spending.spent_lifetime",
    "twin.purchases_lifetime",
    "twin.spent_lifetime",
    "twin.doubled",
];

/// The twin says what `spending` says, or that it can't yet; both at one cursor.
fn check_twin(engine: &Engine, customer: u64) -> Option<bool> {
    let row = read(engine, &TWINS, customer)?;
    if row[2].1 == "BACKFILLING" {
        assert!(
            row[2..]
                .iter()
                .all(|(v, s)| *v == Value::Null && *s == "BACKFILLING"),
            "{row:?}"
        );
        return Some(false);
    }
    assert_eq!(row[0].0, row[2].0, "{row:?}");
    assert_eq!(row[1].0, row[3].0, "{row:?}");
    Some(true)
}

fn wait_until_filled(engine: &Engine) {
    for _ in 0..3000 {
        if engine.filling().is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("the views are never filled");
}

#[test]
fn definitions_change_under_facts_and_reads() {
    let project = project(FEATURES);
    let engine = Arc::new(open(&project));
    let done = Arc::new(AtomicBool::new(false));
    let over = Arc::new(AtomicBool::new(false));
    let whole = Arc::new(AtomicU64::new(0));
    let filling = Arc::new(AtomicU64::new(0));
    let ingester = std::thread::spawn({
        let (engine, done) = (engine.clone(), done.clone());
        move || {
            (0..FACTS)
                .step_by(BATCH as usize)
                .for_each(|from| ingest(&engine, from));
            done.store(true, Ordering::SeqCst);
        }
    });
    let reader = std::thread::spawn({
        let (engine, over) = (engine.clone(), over.clone());
        let (whole, filling) = (whole.clone(), filling.clone());
        move || {
            let mut customer = 0;
            while !over.load(Ordering::SeqCst) {
                customer = (customer + 1) % CUSTOMERS;
                match check_twin(&engine, customer) {
                    Some(true) => whole.fetch_add(1, Ordering::SeqCst),
                    Some(false) => filling.fetch_add(1, Ordering::SeqCst),
                    None => 0,
                };
            }
        }
    });
    let shapes = ["amount", "amount + 1", "amount * 2", "amount"];
    let mut round = 0_u64;
    // On a busy machine the reader may come late: a twin changes until both kinds of reads were seen.
    let seen = || whole.load(Ordering::SeqCst) > 0 && filling.load(Ordering::SeqCst) > 0;
    while !done.load(Ordering::SeqCst) || round < 8 || (round < 400 && !seen()) {
        let features = match round as usize % 5 {
            4 => FEATURES.to_owned(),
            shape => format!("{FEATURES}{}", twin(shapes[shape])),
        };
        project.write("features/shop.yaml", &features);
        apply(&engine, &project);
        round += 1;
        // Some are filled before the next one comes, some aren't.
        std::thread::sleep(Duration::from_millis(7 * (round % 4) * (1 + round / 16)));
    }
    ingester.join().expect("facts go in");
    over.store(true, Ordering::SeqCst);
    reader.join().expect("reads are whole");
    let last = format!("{FEATURES}{}", twin("amount + 7"));
    project.write("features/shop.yaml", &last);
    apply(&engine, &project);
    wait_until_filled(&engine);
    assert!(whole.load(Ordering::SeqCst) > 0, "no read of a filled twin");
    assert!(
        filling.load(Ordering::SeqCst) > 0,
        "no read of a twin being filled"
    );
    check_equals_fresh(&engine, &last);
    // What a start finds is what was in force.
    Arc::into_inner(engine)
        .expect("nobody holds it")
        .close()
        .expect("closed");
    let again = open_config(&load(&project).config, &project);
    assert_eq!(again.report().replayed, 0, "everything was brought to disk");
    check_equals_fresh(&again, &last);
}

/// All features equal those of an engine that had these definitions before the first fact.
fn check_equals_fresh(engine: &Engine, features: &str) {
    let fresh_project = project(features);
    let fresh = open(&fresh_project);
    (0..FACTS)
        .step_by(BATCH as usize)
        .for_each(|from| ingest(&fresh, from));
    let names: Vec<String> = fresh
        .catalog()
        .views()
        .flat_map(|v| {
            v.features
                .iter()
                .map(|f| f.full_name.to_string())
                .collect::<Vec<_>>()
        })
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for customer in 0..CUSTOMERS {
        let (is, should) = (
            read(engine, &names, customer),
            read(&fresh, &names, customer),
        );
        assert!(should.is_some());
        assert_eq!(is, should, "customer c{customer}");
    }
}
