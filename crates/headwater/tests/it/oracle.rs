//! Random streams through the real engine: late, duplicate, equal-time and future facts, revisions that
//! change time, entity and value, retractions and facts sent again after them, in any batches, with
//! any number of shards and any memory, closed and opened in between, must equal the naive oracle: live reads,
//! sweeps, rows of training sets with their labels, and reads of the view once it has been made again.

use headwater_aggregate::oracle::{OracleFact, evaluate};
use headwater_aggregate::{Aggregate, Window, WindowKind};
use headwater_schema::{DataType, Position, Value};
use proptest::prelude::*;
use serde_json::json;

use crate::harness::{Harness, Live, SECOND, bits, cursor_at, told};
use crate::labels::{LABELS, Seen, assert_labels, assert_rows};
use crate::{CONTRACTS, FEATURES, assert_swept};

/// (id, customer, amount in cents, second)
type Fact = (u16, u8, Option<u16>, i64);

const VIEW: &str = "
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
    - {name: avg, aggregate: avg, of: amount, windows: [1m]}
    - {name: min, aggregate: min, of: amount, windows: [7s]}
    - {name: max, aggregate: max, of: amount, windows: [1m]}
    - {name: variance, aggregate: variance, of: amount, windows: [1m]}
    - {name: first, aggregate: first, of: amount, windows: [1m]}
    - {name: last, aggregate: last, of: amount, windows: [{rows: 3}]}
    - {name: last_n, aggregate: last_n, n: 4, of: amount, windows: [{range: 9s}]}
    - {name: distinct, aggregate: distinct_count, of: amount, windows: [lifetime]}
    - {name: histogram, aggregate: histogram, of: amount, windows: [7s]}
    - {name: idle, aggregate: time_since_last, windows: [1m]}
    - {name: newest, of: amount}
";

fn features() -> Vec<(&'static str, Aggregate, bool, Window)> {
    let exact = |seconds: i64| {
        Window::new(WindowKind::Exact {
            width: seconds * SECOND,
        })
    };
    let lifetime = Window::new(WindowKind::Lifetime);
    let keep_nulls = false;
    vec![
        ("count_7s", Aggregate::Count, false, exact(7)),
        ("count_1m", Aggregate::Count, false, exact(60)),
        ("sum_7s", Aggregate::Sum, true, exact(7)),
        ("sum_lifetime", Aggregate::Sum, true, lifetime),
        ("avg_1m", Aggregate::Avg, true, exact(60)),
        ("min_7s", Aggregate::Min, true, exact(7)),
        ("max_1m", Aggregate::Max, true, exact(60)),
        (
            "variance_1m",
            Aggregate::Variance { sample: false },
            true,
            exact(60),
        ),
        ("first_1m", Aggregate::First { keep_nulls }, true, exact(60)),
        (
            "last_rows_3",
            Aggregate::Last { keep_nulls },
            true,
            Window::new(WindowKind::Rows { rows: 3 }),
        ),
        (
            "last_n_range_9s",
            Aggregate::LastN { n: 4, keep_nulls },
            true,
            Window::new(WindowKind::Range { width: 9 * SECOND }),
        ),
        (
            "distinct_lifetime",
            Aggregate::DistinctCount { exact_up_to: 1024 },
            true,
            lifetime,
        ),
        (
            "histogram_7s",
            Aggregate::Histogram {
                n: None,
                categories_max: 1000,
            },
            true,
            exact(7),
        ),
        ("idle_1m", Aggregate::TimeSinceLast, false, exact(60)),
        (
            "newest",
            Aggregate::Last { keep_nulls: true },
            true,
            lifetime,
        ),
    ]
}

#[derive(Debug, Clone)]
enum Step {
    Ingest(Vec<Fact>),
    Revise(Vec<Fact>),
    Retract(Vec<u16>),
    Reopen,
    Checkpoint,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let fact = (
        0u16..400,
        0u8..3,
        proptest::option::weighted(0.9, 0u16..300),
        0i64..120,
    );
    let facts = proptest::collection::vec(fact, 1..60);
    let step = prop_oneof![
        8 => facts.clone().prop_map(Step::Ingest),
        2 => facts.prop_map(Step::Revise),
        2 => proptest::collection::vec(0u16..400, 1..40).prop_map(Step::Retract),
        1 => Just(Step::Reopen),
        1 => Just(Step::Checkpoint),
    ];
    proptest::collection::vec(step, 1..14)
}

struct Run {
    harness: Harness,
    /// Facts by customer, as the oracle sees them.
    facts: Vec<Vec<OracleFact>>,
    /// The live fact of each id, and where it is among its customer's.
    live: std::collections::BTreeMap<u16, (Fact, usize)>,
    sequence: u64,
}

impl Run {
    fn new(shards: usize, memory_bytes_max: usize, storage: &str) -> Self {
        let stored = format!("retention: 20s\n  storage: {storage}");
        let view = VIEW.replace("retention: 20s", &stored);
        let definitions = format!("{CONTRACTS}---\n{FEATURES}{view}{LABELS}");
        let harness = Harness::new(&definitions, |state| {
            state.shards = shards;
            state.memory_bytes_max = memory_bytes_max;
            state.checkpoint_facts = 150;
        });
        Self {
            harness,
            facts: vec![Vec::new(); 3],
            live: Default::default(),
            sequence: 0,
        }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Checkpoint => self.harness.engine().checkpoint().expect("written"),
            Step::Reopen => self.harness.reopen(),
            Step::Retract(ids) => {
                let texts = ids.iter().map(u16::to_string).collect();
                let reply = self.harness.retract("purchase", texts);
                let before = self.sequence;
                for id in ids {
                    if self.live.contains_key(id) {
                        self.sequence += 1;
                        self.end(*id);
                    }
                }
                assert_eq!(reply.retracted as u64, self.sequence - before);
                assert_eq!(reply.sequence, self.sequence);
            }
            Step::Ingest(facts) | Step::Revise(facts) => {
                let rows: Vec<_> = facts.iter().map(|(id, customer, amount, second)| {
                    json!({"id": id.to_string(), "customer": format!("c{customer}"), "amount": amount.map(cents), "time": second * SECOND})
                }).collect();
                let revise = matches!(step, Step::Revise(_));
                self.harness.send("purchase", &rows, revise);
                facts.iter().for_each(|fact| self.take_fact(*fact, revise));
            }
        }
    }

    fn take_fact(&mut self, fact: Fact, revise: bool) {
        let (id, customer, amount, second) = fact;
        let known = self.live.get(&id).map(|(known, _)| *known);
        if known == Some(fact) || (known.is_some() && !revise) {
            return;
        }
        self.sequence += 1;
        self.end(id);
        let facts = &mut self.facts[usize::from(customer)];
        self.live.insert(id, (fact, facts.len()));
        facts.push(OracleFact {
            position: Position::new(second * SECOND, self.sequence),
            removed_at: None,
            value: amount.map_or(Value::Null, |a| Value::Float(cents(a))),
            counts: true,
            order: Value::Null,
            category: Value::Null,
        });
    }

    /// The live fact of an id, where there is one, isn't seen from the present sequence on.
    fn end(&mut self, id: u16) {
        if let Some((fact, index)) = self.live.remove(&id) {
            self.facts[usize::from(fact.1)][index].removed_at = Some(self.sequence);
        }
    }

    /// Reads live, and holds that to the oracle.
    fn check(&self, customer: u8, second: i64, inclusive: bool, known_at: u64) -> Live {
        let features = features();
        let names: Vec<String> = features.iter().map(|f| format!("random.{}", f.0)).collect();
        let key = format!("c{customer}");
        let cursor = cursor_at(second, inclusive, known_at.min(self.sequence));
        let row = self.harness.read(&names, ("customer", &key), &cursor);
        let facts = &self.facts[usize::from(customer)];
        for (index, (name, function, with_input, window)) in features.iter().enumerate() {
            let want = evaluate(
                facts,
                function,
                *with_input,
                &DataType::Float64,
                window,
                &cursor,
            );
            let got = &row.values[index];
            assert_eq!(
                bits(got),
                bits(&want.value),
                "{name} of {key} at {second}s, {cursor:?}"
            );
            assert_eq!(row.event_times[index], want.event_time, "{name}");
        }
        // By itself a latest value may be read in another way.
        let newest = features.len() - 1;
        let alone = self
            .harness
            .read(&names[newest..], ("customer", &key), &cursor);
        assert_eq!(
            told(&alone, 0),
            told(&row, newest),
            "of {key} at {cursor:?}"
        );
        (key, cursor, row)
    }
}

fn cents(amount: u16) -> f64 {
    f64::from(amount) / 100.0
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_engine_equals_the_oracle(
        shards in 1usize..4,
        memory_bytes_max in prop_oneof![Just(0usize), Just(20_000), Just(1 << 30)],
        storage in prop_oneof![Just("memory"), Just("disk"), Just("tiered")],
        steps in steps(),
        reads in proptest::collection::vec((0u8..3, -5i64..130, any::<bool>(), 0u64..500), 12),
    ) {
        let mut run = Run::new(shards, memory_bytes_max, storage);
        for (index, step) in steps.iter().enumerate() {
            run.take(step);
            let (customer, second, inclusive, known_at) = reads[index % reads.len()];
            run.check(customer, second, inclusive, known_at);
            run.check(customer, second, inclusive, u64::MAX);
        }
        let mut live = Vec::new();
        for (customer, second, inclusive, known_at) in reads {
            live.push(run.check(customer, second, inclusive, known_at));
            live.push(run.check(customer, second, inclusive, u64::MAX));
            live.push(run.check(customer, 125, true, u64::MAX));
        }
        let names: Vec<String> = features().iter().map(|f| format!("random.{}", f.0)).collect();
        let engine = run.harness.engine();
        assert_swept(engine, run.harness.folder(), &names, &live);
        assert_rows(engine, &names, "customer", &live);
        assert_labels(engine, &run.facts, &live);
        engine.backfill(&["random".to_owned()]).expect("begun");
        engine.wait_until_filled(|_| ()).expect("filled");
        for Seen { second, inclusive, known_at, customer, .. } in live.iter().map(Seen::of) {
            run.check(customer, second, inclusive, known_at);
        }
    }
}
