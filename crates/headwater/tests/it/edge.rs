//! Bundles: what a process without a server says of entities, against what the engine that they were taken from says.

use headwater::Engine;
use headwater_api::backend::{
    BundleRequest, EntityRequest, FeaturesRequest, KeyValue, Names, NewVersion,
};
use headwater_edge::Edge;
use headwater_schema::Value;
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use crate::chained::DEFINITIONS;
use crate::harness::{Harness, SECOND, bits};
use crate::{CONTRACTS, FEATURES};

/// A model that answers with one of its features.
pub fn linear(input: &str) -> Vec<u8> {
    json!({"format": "headwater-linear/1", "link": "identity", "inputs": [input],
           "coefficients": [1.0], "intercepts": [0.0]})
    .to_string()
    .into_bytes()
}

pub fn model(set: &str, input: &str) -> String {
    format!(
        "\n---\n{{apiVersion: headwater/v1, kind: Model, name: late, spec: {{feature_set: {set}, inputs: {{x: {input}}}}}}}\n"
    )
}

/// A view whose memory is short, so that states fold most facts away, and what is worked out of it on demand.
const RANDOM: &str = "
---
apiVersion: headwater/v1
kind: FeatureView
name: random
spec:
  entity: customer
  sources: [{contract: purchase}]
  retention: 20s
  features:
    - {name: count, aggregate: count, windows: [7s, 1m]}
    - {name: sum, aggregate: sum, of: amount, windows: [7s, lifetime]}
    - {name: variance, aggregate: variance, of: amount, windows: [1m]}
    - {name: last, aggregate: last, of: amount, windows: [{rows: 3}]}
    - {name: last_n, aggregate: last_n, n: 4, of: amount, windows: [{range: 9s}]}
    - {name: distinct, aggregate: distinct_count, of: amount, windows: [lifetime]}
    - {name: histogram, aggregate: histogram, of: amount, windows: [7s]}
    - {name: idle, aggregate: time_since_last, windows: [1m]}
    - {name: newest, of: amount}
    - {name: mean, expression: sum_7s / count_7s}
---
apiVersion: headwater/v1
kind: FeatureSet
name: taken
spec:
  features: ['random.*', 'spending.*']
  context: [{name: factor, type: number}]
  on_demand: [{name: scaled, expression: random.sum_lifetime * context.factor}]
";

pub fn row(customer: u8) -> EntityRequest {
    let key = KeyValue::Scalar(Value::string(format!("c{customer}")));
    EntityRequest::from([("customer".to_owned(), key)])
}

pub fn add_version(engine: &Engine, file: Vec<u8>) {
    let version = NewVersion {
        aliases: vec!["live".into()],
        ..NewVersion::default()
    };
    engine.add_model("late", file, &version).expect("added");
}

pub fn bundle(engine: &Engine, entities: Vec<EntityRequest>, all_history: bool) -> Vec<u8> {
    let request = BundleRequest {
        model: "late".into(),
        version: None,
        feature_set: None,
        entities,
        all_history,
    };
    engine.bundle(&request).expect("a bundle")
}

/// Compares every feature of an entity, bit for bit; false where the bundle doesn't reach back so far.
pub fn same(
    engine: &Engine,
    edge: &Edge,
    entity: &EntityRequest,
    context: &Json,
    as_of: i64,
) -> bool {
    let context: Vec<_> = serde_json::from_value(context.clone()).expect("rows");
    let entities = vec![entity.clone()];
    let taken = match edge.features(&entities, &context, Some(as_of)) {
        Ok(taken) => taken,
        Err(problem) => {
            assert_eq!(problem.code, "past-bundle", "{problem}");
            return false;
        }
    };
    let request = FeaturesRequest {
        names: Names::Set(edge.about().head.feature_set),
        entities,
        as_of: Some(as_of),
        known_at: None,
        context,
        inclusive: true,
        lenient: false,
    };
    let reply = engine.features(&request).expect("read");
    assert_eq!(reply.names, taken.names);
    for (index, name) in reply.names.iter().enumerate() {
        let (live, here) = (&reply.rows[0], &taken.rows[0][index]);
        let told = (bits(&here.value), here.status, here.event_time);
        let want = (
            bits(&live.values[index]),
            live.statuses[index],
            live.event_times[index],
        );
        assert_eq!(told, want, "{name} of {entity:?} at {as_of}");
    }
    true
}

/// (id, customer, amount, second)
type Fact = (u16, u8, Option<u16>, i64);

#[derive(Debug, Clone)]
enum Step {
    Send(Vec<Fact>),
    Revise(Vec<Fact>),
    Retract(Vec<u16>),
    Checkpoint,
    Reopen,
}

fn steps(ids: std::ops::Range<u16>) -> impl Strategy<Value = Vec<Step>> {
    let amount = proptest::option::weighted(0.9, 0u16..300);
    let fact = (ids.clone(), 0u8..3, amount, 0i64..120);
    let facts = proptest::collection::vec(fact, 1..60);
    let step = prop_oneof![
        8 => facts.clone().prop_map(Step::Send),
        2 => facts.prop_map(Step::Revise),
        2 => proptest::collection::vec(ids, 1..20).prop_map(Step::Retract),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..10)
}

fn json_of((id, customer, amount, second): &Fact) -> Json {
    json!({"id": id.to_string(), "customer": format!("c{customer}"),
           "amount": amount.map(|a| f64::from(a) / 100.0), "time": second * SECOND})
}

fn take(harness: &mut Harness, step: &Step) {
    match step {
        Step::Send(facts) | Step::Revise(facts) => {
            let rows: Vec<Json> = facts.iter().map(json_of).collect();
            let revise = matches!(step, Step::Revise(_));
            harness.send("purchase", &rows, revise);
        }
        Step::Retract(ids) => {
            harness.retract("purchase", ids.iter().map(u16::to_string).collect());
        }
        Step::Checkpoint => harness.engine().checkpoint().expect("written"),
        Step::Reopen => harness.reopen(),
    }
}

/// Tells both the same facts, one by one: what the bundle says lies beyond it, the engine isn't told either.
fn tell(harness: &mut Harness, edge: &Edge, step: &Step) {
    match step {
        Step::Send(facts) | Step::Revise(facts) => {
            let revise = matches!(step, Step::Revise(_));
            for fact in facts {
                let rows = json!([json_of(fact)]).to_string();
                let added = edge
                    .add_facts("purchase", rows.as_bytes(), revise)
                    .expect("told");
                let beyond = added.rejected.iter().any(|r| r.reason.contains("bundle"));
                if beyond {
                    continue;
                }
                let reply = harness.send("purchase", &[json_of(fact)], revise);
                assert_eq!(
                    (added.accepted, added.duplicates, added.rejected.len()),
                    (reply.accepted, reply.duplicates, reply.rejected.len()),
                    "{fact:?}: {added:?} {reply:?}"
                );
            }
        }
        Step::Retract(ids) => {
            for id in ids {
                let told = edge.retract("purchase", vec![id.to_string()]);
                let Some(told) = told.ok().filter(|told| told.retracted > 0) else {
                    continue;
                };
                let reply = harness.retract("purchase", vec![id.to_string()]);
                assert_eq!(told.retracted, reply.retracted, "{id}");
            }
        }
        Step::Checkpoint | Step::Reopen => take(harness, step),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_bundle_says_what_the_engine_says_and_so_after_the_same_facts(
        before in steps(0..400),
        after in steps(400..700),
        storage in prop_oneof![Just("memory"), Just("disk"), Just("tiered")],
        all_history: bool,
        reads in proptest::collection::vec((0u8..3, -5i64..130), 8),
    ) {
        let stored = format!("retention: 20s\n  storage: {storage}");
        let random = RANDOM.replace("retention: 20s", &stored);
        let declared = model("taken", "scaled");
        let mut harness = Harness::new(&format!("{CONTRACTS}---\n{FEATURES}{random}{declared}"), |state| {
            state.checkpoint_facts = 150;
            state.memory_bytes_max = 20_000;
        });
        add_version(harness.engine(), linear("x"));
        before.iter().for_each(|step| take(&mut harness, step));
        let bytes = bundle(harness.engine(), (0..3).map(row).collect(), all_history);
        let edge = Edge::open(&bytes).expect("opens");
        let context = json!([{"factor": 0.25}]);
        let check = |harness: &Harness| {
            for (customer, second) in &reads {
                let told = same(harness.engine(), &edge, &row(*customer), &context, second * SECOND);
                assert!(told || !all_history, "all facts are there");
                // No window reaches back behind what is held one by one.
                assert!(same(harness.engine(), &edge, &row(*customer), &context, 200 * SECOND));
            }
        };
        check(&harness);
        for step in &after {
            tell(&mut harness, &edge, step);
        }
        check(&harness);
        let asked: Vec<_> = serde_json::from_value(context.clone()).expect("rows");
        for customer in 0..3 {
            let entities = [row(customer)];
            let features = edge.features(&entities, &asked, Some(150 * SECOND)).expect("read");
            let predicted = edge.predict(&entities, &asked, Some(150 * SECOND)).expect("answered");
            let scaled = match features.rows[0].last().map(|o| &o.value) {
                Some(Value::Float(scaled)) => *scaled,
                _ => continue,
            };
            prop_assert_eq!(predicted.numbers[0].to_bits(), scaled.to_bits());
        }
    }
}

/// A set of views that are read through each other.
const CHAINED: &str = "
---
{apiVersion: headwater/v1, kind: FeatureSet, name: taken, spec: {features: ['spending.*', 'a_shop.*', 'a_place.*']}}
";

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn chained_views_are_taken_along_with_all_that_is_behind_them(
        purchases in proptest::collection::vec((0u8..3, 0u8..2, 0u8..2, -1i8..9, 0i64..80), 20..120),
        taken in 0usize..120,
        retracted in proptest::collection::vec(0usize..120, 0..6),
        second in 0i64..100,
    ) {
        let declared = model("taken", "a_place.newest");
        let harness = Harness::new(&format!("{DEFINITIONS}{CHAINED}{declared}"), |_| ());
        add_version(harness.engine(), linear("x"));
        let rows: Vec<Json> = purchases.iter().enumerate().map(|(id, (customer, shop, town, amount, second))| {
            json!({"id": id.to_string(), "customer": format!("c{customer}"), "shop": format!("s{shop}"),
                   "town": format!("t{town}"), "amount": amount, "time": second * SECOND})
        }).collect();
        let (first, rest) = rows.split_at(taken.min(rows.len()));
        harness.send("purchase", first, false);
        harness.engine().checkpoint().expect("written");
        let named = |customer: u8| -> EntityRequest {
            let keys = [("customer", format!("c{customer}")), ("shop", format!("s{}", customer % 2)), ("place", format!("t{}", customer % 2))];
            keys.into_iter().map(|(name, key)| (name.to_owned(), KeyValue::Scalar(Value::string(key)))).collect()
        };
        let bytes = bundle(harness.engine(), (0..3).map(named).collect(), false);
        let edge = Edge::open(&bytes).expect("opens");
        let check = || {
            for customer in 0..3 {
                for second in [second, 40, 200] {
                    assert!(same(harness.engine(), &edge, &named(customer), &json!([]), second * SECOND));
                }
            }
        };
        check();
        let body = json!(rest).to_string();
        let added = edge.add_facts("purchase", body.as_bytes(), false).expect("told");
        prop_assert_eq!(added.accepted, rest.len());
        harness.send("purchase", rest, false);
        let ids: Vec<String> = retracted.iter().map(usize::to_string).collect();
        edge.retract("purchase", ids.clone()).expect("told");
        harness.retract("purchase", ids);
        check();
    }
}

/// A small bundle, of one customer who has bought two things.
fn small() -> (Harness, Vec<u8>) {
    let declared = model("taken", "scaled");
    let harness = Harness::new(
        &format!("{CONTRACTS}---\n{FEATURES}{RANDOM}{declared}"),
        |_| (),
    );
    add_version(harness.engine(), linear("x"));
    let rows = [
        json_of(&(1, 1, Some(150), 10)),
        json_of(&(2, 1, Some(250), 12)),
    ];
    harness.send("purchase", &rows, false);
    let bytes = bundle(harness.engine(), vec![row(1)], false);
    (harness, bytes)
}

fn code(bytes: &[u8]) -> &'static str {
    match Edge::open(bytes) {
        Ok(_) => "opened",
        Err(problem) => {
            assert!(!problem.hint.is_empty(), "{problem}");
            problem.code
        }
    }
}

#[test]
fn a_bundle_that_is_cut_off_changed_or_newer_is_refused() {
    let (_harness, bytes) = small();
    assert_eq!(code(&bytes), "opened");
    for length in (0..bytes.len())
        .step_by(37)
        .chain(bytes.len() - 20..bytes.len())
    {
        let want = if length < 8 {
            "not-a-bundle"
        } else {
            "bundle-corrupt"
        };
        assert_eq!(
            code(&bytes[..length]),
            want,
            "{length} bytes of {}",
            bytes.len()
        );
    }
    for place in (9..bytes.len()).step_by(11) {
        let mut changed = bytes.clone();
        changed[place] ^= 4;
        assert_eq!(code(&changed), "bundle-corrupt", "byte {place}");
    }
    let mut newer = bytes.clone();
    newer[8] = headwater_edge::FORMAT + 1;
    assert_eq!(code(&newer), "bundle-format");
    assert_eq!(code(&[&bytes[..], b"more"].concat()), "bundle-corrupt");
    assert_eq!(code(b"PK\x03\x04 something else"), "not-a-bundle");
}

#[test]
fn who_isnt_in_it_is_told_and_wrong_requests_are_refused_as_a_server_does() {
    let (harness, bytes) = small();
    let edge = Edge::open(&bytes).expect("opens");
    let ask = |request: &Json| match edge.predict_json(&request.to_string()) {
        Ok(said) => serde_json::from_str::<Json>(&said).unwrap(),
        Err(problem) => json!(problem.code),
    };
    let factor = json!([{"factor": 2.0}]);
    let known =
        ask(&json!({"entities": [{"customer": "c1"}], "context": factor, "as_of": 20 * SECOND}));
    assert_eq!(known["outputs"][0]["value"], 8.0, "{known}");
    assert_eq!(known["not_bundled"], json!([]));
    let other =
        ask(&json!({"entities": [{"customer": "c2"}], "context": factor, "as_of": 20 * SECOND}));
    assert_eq!(
        other["not_bundled"],
        json!([{"row": 0, "entity": "customer"}])
    );
    assert_eq!(other["outputs"][0]["value"], Json::Null, "{other}");
    assert!(same(harness.engine(), &edge, &row(2), &factor, 20 * SECOND));
    for (request, want) in [
        (json!({"entities": [{}], "context": factor}), "missing-key"),
        (
            json!({"entities": [{"customer": 1}], "context": factor}),
            "wrong-key-type",
        ),
        (
            json!({"entities": [{"customer": "c1", "custmer": "x"}], "context": factor}),
            "unknown-key",
        ),
        (json!({"entities": [{"customer": "c1"}]}), "missing-context"),
        (
            json!({"entities": [{"customer": "c1"}], "context": [{"factor": "2"}]}),
            "wrong-context-type",
        ),
        (
            json!({"entities": [{"customer": "c1"}], "context": [{"factr": 2.0}]}),
            "unknown-context",
        ),
        (
            json!({"entities": [{"customer": "c1"}], "context": factor, "known_at": "1"}),
            "malformed-request",
        ),
        (
            json!({"entities": [{"customer": "c1"}], "context": factor, "as_of": "soon"}),
            "invalid-time",
        ),
        (json!([]), "malformed-request"),
    ] {
        assert_eq!(ask(&request), want, "{request}");
    }
    let told = |contract: &str, rows: &str| edge.add_facts(contract, rows.as_bytes(), false);
    assert_eq!(told("visit", "[]").unwrap_err().code, "unknown-contract");
    assert_eq!(
        told("prediction", "[]").unwrap_err().code,
        "unknown-contract"
    );
    assert!(told("purchase", "{").is_err() || told("purchase", "{").unwrap().accepted == 0);
    let mixed = json!([json_of(&(3, 1, Some(100), 15)), {"id": "4", "customer": "c1", "amount": -1, "time": 0}]);
    let mixed = told("purchase", &mixed.to_string()).unwrap();
    assert_eq!(
        (mixed.accepted, mixed.rejected.len(), mixed.rejected[0].row),
        (1, 1, 1)
    );
    let vector = edge.predict_vectors(&[1.5, f64::NAN], &mut [0.0]);
    assert_eq!(vector.unwrap_err().code, "model-shape");
    let mut outputs = [0.0; 2];
    edge.predict_vectors(&[1.5, -2.5], &mut outputs).unwrap();
    assert_eq!(outputs, [1.5, -2.5]);
}

#[test]
fn told_facts_are_there_again_from_the_journal() {
    let (harness, bytes) = small();
    let folder = tempfile::tempdir().unwrap();
    let (path, journal) = (folder.path().join("b"), folder.path().join("j"));
    std::fs::write(&path, &bytes).unwrap();
    let open = || Edge::open_file(&path, Some(&journal));
    let edge = open().expect("opens");
    assert_eq!(open().err().expect("held").code, "journal");
    let rows = [
        json_of(&(7, 1, Some(300), 15)),
        json_of(&(8, 1, Some(50), 16)),
    ];
    let told = |edge: &Edge, rows: &[Json], revise| {
        let added = edge.add_facts("purchase", json!(rows).to_string().as_bytes(), revise);
        let added = added.expect("told");
        (added.accepted, added.duplicates)
    };
    assert_eq!(told(&edge, &rows, false), (2, 0));
    let size = std::fs::metadata(&journal).unwrap().len();
    assert_eq!(told(&edge, &rows, false), (0, 2));
    assert_eq!(
        std::fs::metadata(&journal).unwrap().len(),
        size,
        "what is known isn't written again"
    );
    assert_eq!(told(&edge, &[json_of(&(8, 1, Some(75), 16))], true), (1, 0));
    assert_eq!(
        edge.retract("purchase", vec!["1".into(), "none".into()])
            .unwrap()
            .unknown,
        ["none"]
    );
    harness.send("purchase", &rows, false);
    harness.send("purchase", &[json_of(&(8, 1, Some(75), 16))], true);
    harness.retract("purchase", vec!["1".into()]);
    let context = json!([{"factor": 2.0}]);
    let check = |edge: &Edge| {
        for second in [11, 14, 18, 30] {
            assert!(same(
                harness.engine(),
                edge,
                &row(1),
                &context,
                second * SECOND
            ));
        }
    };
    check(&edge);
    drop(edge);
    let edge = open().expect("opens again");
    check(&edge);
    assert_eq!(edge.about().repairs, Vec::<String>::new());
    drop(edge);
    // A record that a power cut tore never counted.
    let whole = std::fs::read(&journal).unwrap();
    std::fs::write(&journal, [&whole[..], &whole[21..60]].concat()).unwrap();
    let edge = open().expect("opens");
    assert_eq!(edge.about().repairs.len(), 1);
    check(&edge);
    drop(edge);
    assert_eq!(std::fs::read(&journal).unwrap(), whole);
    // Damage in its midst isn't passed over.
    let mut damaged = whole.clone();
    damaged[40] ^= 1;
    std::fs::write(&journal, damaged).unwrap();
    assert_eq!(open().err().expect("damaged").code, "journal");
    // Another bundle's.
    std::fs::write(&journal, &whole).unwrap();
    let other = bundle(harness.engine(), vec![row(1)], false);
    std::fs::write(&path, &other).unwrap();
    let problem = open().err().expect("another bundle");
    assert!(problem.detail.contains("another bundle"), "{problem}");
}

#[test]
fn the_command_line_makes_bundles_and_says_what_is_wrong() {
    let project = crate::predict::shop("");
    fn bundle<'a>(more: &[&'a str]) -> Vec<&'a str> {
        [&["bundle", "--model", "fraud", "--out", "b"], more].concat()
    }
    let said = project.run_fails(&bundle(&["--entities", "customer=c1"]));
    assert!(said.contains("models add"), "{said}");
    project.run_ok(&["models", "add", "fraud", "one.model", "--alias", "live"]);
    let said = project.run_ok(&bundle(&["--entities", "customer=c1", "customer=c2"]));
    assert!(said.contains("of 2 entities"), "{said}");
    let edge = Edge::open_file(&project.path().join("b"), None).expect("opens");
    assert_eq!(edge.about().entities, 2);
    for (more, want) in [
        (
            &["--entities", "custmer=c1"][..],
            "did you mean `customer`?",
        ),
        (&["--entities", "nowhere.ndjson"], "can't be read"),
        (
            &["--entities", "customer=c1", "--set", "other"],
            "reads another feature set",
        ),
        (
            &["--entities", "customer=c1", "--version", "9"],
            "no version `9`",
        ),
    ] {
        let said = project.run_fails(&bundle(more));
        assert!(said.contains(want), "{more:?}: {said}");
    }
    project.write(
        "rows.ndjson",
        "{\"customer\": \"c1\"}\n\n{\"customer\": 5}\n",
    );
    let said = project.run_fails(&bundle(&["--entities", "rows.ndjson"]));
    assert!(said.contains("wrong type"), "{said}");
}
