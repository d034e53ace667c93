//! What is remembered is what would be worked out, bit for bit, and is worked out once.

use std::collections::HashSet;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use headwater_features::Caching;
use headwater_models::{LoadOptions, ModelContract, Predictor, Rows, load};
use proptest::prelude::*;

use super::*;
use crate::cache::{Asker, PredictionCache};

#[derive(Debug, Clone)]
enum Step {
    /// A fact changes what is known of a customer.
    Learn(u8, u8),
    /// Rows of customers, each with its own field.
    Ask(Vec<(u8, u8)>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let rows = proptest::collection::vec((0u8..4, 0u8..3), 1..6);
    let step = prop_oneof![
        1 => (0u8..4, 0u8..6).prop_map(|(who, value)| Step::Learn(who, value)),
        2 => rows.prop_map(Step::Ask),
    ];
    proptest::collection::vec(step, 1..40)
}

/// Values that are equal and aren't the same, and those that are neither.
const VALUES: [f64; 6] = [0.0, -0.0, 1.5, f64::NAN, f64::INFINITY, 1.5000000000000002];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn answers_are_the_same_with_and_without(steps in steps()) {
        let shop = shop("  cache: {}\n", ServingSettings::default(), None);
        let model = load(&with_leaf("0.75"), &LoadOptions::default()).unwrap();
        let (mut known, mut hits, mut misses) = (HashSet::new(), 0, 0);
        for step in steps {
            let rows = match step {
                Step::Learn(who, value) => {
                    let mut values = shop.store.values.lock().unwrap();
                    values.insert(format!("c{who}"), VALUES[usize::from(value)]);
                    continue;
                }
                Step::Ask(rows) => rows,
            };
            let mut request = asked("c0");
            let given = rows.iter().map(|(who, more)| {
                let key = KeyValue::Scalar(Value::string(format!("c{who}")));
                let entity = EntityRequest::from([("customer".to_owned(), key)]);
                (entity, ContextRow::from([("more".to_owned(), (*more).into())]))
            });
            let (entities, context) = given.unzip();
            request.rows = InputRows::Entities { entities, context, candidates: None };
            let reply = shop.serving.predict(request).unwrap();
            for ((who, more), outputs) in rows.iter().zip(&reply.outputs) {
                let values = shop.store.values.lock().unwrap();
                let value = values.get(&format!("c{who}")).copied().unwrap_or(1.0);
                let row = [Value::Float(value), Value::Float(value), Value::Int((*more).into())];
                let inputs = model.contract().inputs.iter().zip(&row);
                let row: Vec<f64> = inputs.map(|(i, v)| i.encode(v, &mut Vec::new()).unwrap()).collect();
                let wanted = model.predict(Rows::one(&row).unwrap()).unwrap().outputs;
                prop_assert_eq!(outputs[0].1[0].to_bits(), wanted[0].to_bits());
                match known.insert(row.iter().map(|v| v.to_bits()).collect::<Vec<_>>()) {
                    true => misses += 1,
                    false => hits += 1,
                }
            }
        }
        let stats = shop.serving.stats();
        let cache = stats.models[0].cache;
        prop_assert_eq!((cache.hits, cache.misses), (hits, misses));
        prop_assert_eq!(stats.cache_entries, known.len() as u64);
        shop.serving.stop();
        // The log says which were remembered.
        let mut logged = (0, 0);
        for batch in shop.written.try_iter() {
            let cached = batch.columns.column_by_name("cached").unwrap();
            for row in 0..batch.len() {
                match Value::from_array(cached, row) {
                    Value::Bool(true) => logged.0 += 1,
                    Value::Bool(false) => logged.1 += 1,
                    other => panic!("{other:?}"),
                }
            }
        }
        prop_assert_eq!(logged, (hits, misses));
    }
}

/// Doubles its only input, slowly, and counts rows; fails when told.
#[derive(Debug)]
struct Slow {
    contract: ModelContract,
    rows: AtomicUsize,
    fail: AtomicBool,
}

impl Slow {
    fn new() -> Self {
        let file = r#"{"format": "headwater-linear/1", "inputs": ["x"], "coefficients": [1], "intercepts": [0]}"#;
        let model = load(file.as_bytes(), &LoadOptions::default()).unwrap();
        Self {
            contract: model.contract().clone(),
            rows: AtomicUsize::new(0),
            fail: AtomicBool::new(false),
        }
    }
}

impl Predictor for Slow {
    fn contract(&self) -> &ModelContract {
        &self.contract
    }

    fn scores(&self, rows: Rows<'_>, out: &mut [f64]) -> Result<(), Problem> {
        std::thread::sleep(Duration::from_millis(20));
        if self.fail.swap(false, Ordering::SeqCst) {
            return Err(Problem::external("broken", "it failed"));
        }
        self.rows.fetch_add(rows.len(), Ordering::SeqCst);
        for (out, row) in out.iter_mut().zip(rows.values()) {
            *out = row * 2.0;
        }
        Ok(())
    }

    fn outputs(&self, scores: &[f64], out: &mut [f64]) -> Result<(), Problem> {
        out.copy_from_slice(scores);
        Ok(())
    }

    fn contributions(&self, _: Rows<'_>, _: &mut [f64]) -> Result<(), Problem> {
        Err(Problem::internal("unused", "nobody asks"))
    }

    fn memory_bytes(&self) -> usize {
        0
    }
}

fn cache(env: &Env, entries: usize, bytes: usize) -> PredictionCache {
    let settings = ServingSettings {
        cache_entries_max: entries,
        cache_bytes_max: bytes,
        ..ServingSettings::default()
    };
    PredictionCache::new(env, &settings).unwrap()
}

#[test]
fn one_works_a_row_out_and_the_others_wait() {
    let (env, model) = (Env::real(), Slow::new());
    let (cache, caching) = (cache(&env, 1000, 1 << 20), Caching::default());
    let asker = Asker {
        env: &env,
        version: 7,
        predictor: &model,
        patience: Duration::from_secs(20),
    };
    let ask = |rows: &[f64]| cache.predict(&asker, Rows::new(rows, 1).unwrap(), Some(&caching));
    // Each has rows that the next one has too: none may wait for the other for ever.
    let together = Barrier::new(8);
    std::thread::scope(|scope| {
        for first in 0..8 {
            let (together, ask) = (&together, &ask);
            scope.spawn(move || {
                let rows: Vec<f64> = (0..8).map(|n| f64::from((first + n) % 8)).collect();
                together.wait();
                let answered = ask(&rows).unwrap();
                let wanted: Vec<f64> = rows.iter().map(|row| row * 2.0).collect();
                assert_eq!(answered.outputs, wanted);
            });
        }
    });
    assert_eq!(model.rows.load(Ordering::SeqCst), 8);
    // One who fails leaves the work to those who wait.
    model.fail.store(true, Ordering::SeqCst);
    let together = Barrier::new(4);
    let answered = std::thread::scope(|scope| {
        let ask = || {
            together.wait();
            ask(&[100.0]).map(|answered| answered.outputs)
        };
        let asking: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
        let answered = asking.into_iter().map(|a| a.join().unwrap());
        answered.collect::<Vec<_>>()
    });
    let good = answered.iter().flatten().filter(|o| **o == [200.0]);
    assert_eq!(good.count(), 3, "{answered:?}");
    assert_eq!(model.rows.load(Ordering::SeqCst), 9);
    // Another version has answers of its own, and old ones are worked out again.
    let other = Asker {
        version: 8,
        ..asker
    };
    let row = || Rows::new(&[100.0], 1).unwrap();
    assert_eq!(
        cache.predict(&other, row(), Some(&caching)).unwrap().cached,
        [false]
    );
    std::thread::sleep(Duration::from_millis(2));
    let age_max = |us| Caching { age_max: Some(us) };
    for (age, cached) in [(1_000_000_000, true), (1, false)] {
        let answered = cache.predict(&other, row(), Some(&age_max(age))).unwrap();
        assert_eq!(answered.cached, [cached], "{age}");
    }
    let answered = cache.predict(&other, row(), Some(&age_max(1_000_000_000)));
    assert_eq!(answered.unwrap().cached, [true]);
    assert_eq!(model.rows.load(Ordering::SeqCst), 11);
}

#[test]
fn what_is_remembered_stays_within_its_limits() {
    let (env, model) = (Env::real(), Slow::new());
    let caching = Caching::default();
    let asker = Asker {
        env: &env,
        version: 1,
        predictor: &model,
        patience: Duration::ZERO,
    };
    // Few entries of many bytes, many of few, none.
    for (entries, bytes, most) in [(64, 1 << 20, 64), (10_000, 16_384, 92), (0, 1 << 20, 0)] {
        let cache = cache(&env, entries, bytes);
        let rows: Vec<f64> = (0..5000).map(f64::from).collect();
        for _ in 0..2 {
            let rows = Rows::new(&rows, 1).unwrap();
            let answered = cache.predict(&asker, rows, Some(&caching)).unwrap();
            assert!((0..5000).all(|n| answered.outputs[n] == n as f64 * 2.0));
        }
        let (held, weight) = cache.held();
        assert!(held <= most && weight <= bytes as u64, "{held} {weight}");
        assert_eq!(held > 0, most > 0);
    }
}
