//! Random windows of every mode over random facts of two contracts, some revised and some retracted, through the real
//! engine, at any cursor, must equal the naive oracle: also where a feature uses one of the sources, and where a
//! contract feeds a view twice. Live reads, sweeps, rows of training sets, and reads of the view once it has been made
//! again.

use headwater_aggregate::oracle::{OracleFact, evaluate};
use headwater_aggregate::{Aggregate, Grid, Window, WindowKind};
use headwater_schema::{DataType, Position, Value};
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::json;

use crate::harness::{Harness, Live, SECOND, bits, cursor_at};

const DEFINITIONS: &str = "\
kind: DataContract
apiVersion: v3.1.0
id: bank
version: 1.0.0
status: active
schema:
  - name: payment
    properties:
      - {name: id, logicalType: string, required: true}
      - {name: payer, logicalType: string}
      - {name: payee, logicalType: string}
      - {name: amount, logicalType: number}
      - {name: time, logicalType: timestamp, required: true}
    customProperties:
      - {property: headwater.eventTime, value: time}
      - {property: headwater.factId, value: id}
      - {property: headwater.timeUnit, value: us}
  - name: fee
    properties:
      - {name: id, logicalType: string, required: true}
      - {name: account, logicalType: string}
      - {name: cost, logicalType: number}
      - {name: at, logicalType: timestamp, required: true}
    customProperties:
      - {property: headwater.eventTime, value: at}
      - {property: headwater.factId, value: id}
      - {property: headwater.timeUnit, value: us}
---
apiVersion: headwater/v1
kind: Entity
name: account
spec: {keys: [{name: account, type: string}]}
---
apiVersion: headwater/v1
kind: FeatureView
name: money
spec:
  entity: account
  sources:
    - {contract: payment, keys: {account: payer}}
    - {contract: payment, keys: {account: payee}, where: amount > 1}
    - {contract: fee, columns: {amount: cost}}
  retention: 30s
  features:
    - {name: count, aggregate: count, windows: WINDOWS}
    - {name: sum, aggregate: sum, of: amount, windows: WINDOWS}
    - {name: last, aggregate: last, of: amount, where: amount > 2, windows: WINDOWS}
    - {name: fees, aggregate: sum, of: amount, source: fee, windows: WINDOWS}
";

const FEATURES: [&str; 4] = ["count", "sum", "last", "fees"];

/// A window as it is written (without its `as`), and as it is meant.
type Spelled = (String, Window);

fn modes() -> impl Strategy<Value = (String, WindowKind)> {
    let second = |n: i64| n * SECOND;
    let grid = || {
        (1i64..40).prop_flat_map(|width| {
            (1..=width)
                .prop_flat_map(move |every| (0..every).prop_map(move |align| (width, every, align)))
        })
    };
    prop_oneof![
        (1i64..60).prop_map(move |w| (
            format!("exact: {w}s"),
            WindowKind::Exact { width: second(w) }
        )),
        (1i64..60).prop_map(move |w| (
            format!("range: {w}s"),
            WindowKind::Range { width: second(w) }
        )),
        grid().prop_map(move |(w, e, a)| {
            let grid = Grid {
                every: second(e),
                align: second(a),
            };
            let kind = WindowKind::Sawtooth {
                width: second(w),
                grid,
            };
            (format!("sawtooth: {w}s, hop: {e}s, align: {a}s"), kind)
        }),
        (grid(), any::<bool>()).prop_map(move |((w, e, a), partial)| {
            let grid = Grid {
                every: second(e),
                align: second(a),
            };
            let kind = WindowKind::Hopping {
                width: second(w),
                grid,
                partial,
            };
            (
                format!("hopping: {w}s, every: {e}s, align: {a}s, partial: {partial}"),
                kind,
            )
        }),
        (1i64..40, any::<bool>()).prop_map(move |(w, partial)| {
            let kind = WindowKind::Hopping {
                width: second(w),
                grid: Grid::new(second(w)),
                partial,
            };
            (format!("tumbling: {w}s, partial: {partial}"), kind)
        }),
        (1i64..12).prop_map(move |g| (
            format!("session: {g}s"),
            WindowKind::Session { gap: second(g) }
        )),
        (1usize..9).prop_map(|n| (format!("rows: {n}"), WindowKind::Rows { rows: n })),
        Just(("lifetime: true".to_owned(), WindowKind::Lifetime)),
    ]
}

fn window() -> impl Strategy<Value = Spelled> {
    let offset = prop_oneof![2 => Just(0i64), 1 => 1i64..20];
    let limit = proptest::option::weighted(0.3, 1usize..6);
    (modes(), offset, limit).prop_map(|((mut text, kind), offset, limit)| {
        let limit = limit.filter(|_| !matches!(kind, WindowKind::Rows { .. }));
        text += &format!(", offset: {offset}s");
        text += &limit.map_or(String::new(), |n| format!(", limit: {n}"));
        let window = Window {
            offset: offset * SECOND,
            limit,
            ..Window::new(kind)
        };
        (text, window)
    })
}

/// (payer, payee, amount, second)
type Payment = (u8, u8, Option<i8>, i64);

#[derive(Debug, Clone)]
enum Step {
    Payments(Vec<Payment>),
    /// Replaces payments that were sent, by any number.
    Revise(Vec<(Index, Payment)>),
    Fees(Vec<(u8, Option<i8>, i64)>),
    /// Retracts payments that were sent, by any number.
    Retract(Vec<Index>),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let amount = || proptest::option::weighted(0.9, -3i8..9);
    let time = || -60i64..60;
    let payment = || (0u8..3, 0u8..3, amount(), time());
    let payments = proptest::collection::vec(payment(), 1..30);
    let revised = proptest::collection::vec((any::<Index>(), payment()), 1..6);
    let fees = proptest::collection::vec((0u8..3, amount(), time()), 1..20);
    let step = prop_oneof![
        5 => payments.prop_map(Step::Payments),
        2 => revised.prop_map(Step::Revise),
        3 => fees.prop_map(Step::Fees),
        2 => proptest::collection::vec(any::<Index>(), 1..6).prop_map(Step::Retract),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..8)
}

/// A fact as the oracle sees it, and whether it is a fee.
type Known = (OracleFact, bool);

/// A payment that hasn't been retracted: the number in its id, what it says, and the sequence since which it does.
type Sent = (u64, Payment, u64);

struct Run {
    windows: Vec<Spelled>,
    harness: Harness,
    facts: Vec<Vec<Known>>,
    payments: Vec<Sent>,
    sequence: u64,
}

impl Run {
    fn new(windows: Vec<Spelled>, shards: usize, memory_bytes_max: usize) -> Self {
        let mut definitions = DEFINITIONS.to_owned();
        for name in FEATURES {
            let written = windows.iter().enumerate();
            let written: Vec<String> = written
                .map(|(i, (text, _))| format!("{{{text}, as: {name}_{i}}}"))
                .collect();
            let list = format!("[{}]", written.join(", "));
            definitions = definitions.replacen("WINDOWS", &list, 1);
        }
        let harness = Harness::new(&definitions, |state| {
            state.shards = shards;
            state.memory_bytes_max = memory_bytes_max;
            state.checkpoint_facts = 60;
        });
        Self {
            windows,
            harness,
            facts: vec![Vec::new(); 3],
            payments: Vec::new(),
            sequence: 0,
        }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Reopen => self.harness.reopen(),
            Step::Retract(picks) => picks.iter().for_each(|pick| self.retract(pick)),
            Step::Revise(changes) => changes.iter().for_each(|(pick, to)| self.revise(pick, *to)),
            Step::Payments(payments) => {
                let rows = (self.sequence..).zip(payments);
                let rows = rows.map(|(id, payment)| paid(id, *payment)).collect();
                self.ingest("payment", rows);
                for payment in payments {
                    self.pay(self.sequence, *payment);
                }
            }
            Step::Fees(fees) => {
                let rows = fees.iter().enumerate().map(|(i, (account, cost, second))| {
                    json!({"id": format!("f{}", self.sequence + i as u64), "account": name(*account),
                        "cost": cost.map(f64::from), "at": second * SECOND})
                });
                self.ingest("fee", rows.collect());
                for (account, cost, second) in fees {
                    self.sequence += 1;
                    self.know(*account, *cost, *second, true);
                }
            }
        }
    }

    fn ingest(&self, contract: &str, rows: Vec<serde_json::Value>) {
        let reply = self.harness.send(contract, &rows, false);
        assert_eq!(reply.accepted, rows.len());
    }

    /// A payment begins to count, for its payer and perhaps for its payee.
    fn pay(&mut self, id: u64, payment: Payment) {
        self.sequence += 1;
        self.payments.push((id, payment, self.sequence));
        let (payer, payee, amount, second) = payment;
        self.know(payer, amount, second, false);
        if payee != payer && amount.is_some_and(|a| a > 1) {
            self.know(payee, amount, second, false);
        }
    }

    fn revise(&mut self, pick: &Index, payment: Payment) {
        if self.payments.is_empty() {
            return;
        }
        let place = pick.index(self.payments.len());
        let (id, known, since) = self.payments[place];
        let reply = self.harness.send("payment", &[paid(id, payment)], true);
        assert_eq!(reply.accepted, usize::from(payment != known));
        if payment != known {
            self.payments.swap_remove(place);
            self.end(since, self.sequence + 1);
            self.pay(id, payment);
        }
    }

    fn retract(&mut self, pick: &Index) {
        if self.payments.is_empty() {
            return;
        }
        let (id, _, since) = self.payments.swap_remove(pick.index(self.payments.len()));
        let reply = self.harness.retract("payment", vec![format!("p{id}")]);
        assert_eq!(reply.retracted, 1);
        self.sequence += 1;
        self.end(since, self.sequence);
    }

    /// What counts since one sequence counts no longer from another on.
    fn end(&mut self, since: u64, at: u64) {
        for (fact, _) in self.facts.iter_mut().flatten() {
            if fact.position.sequence == since {
                fact.removed_at = Some(at);
            }
        }
    }

    fn know(&mut self, account: u8, amount: Option<i8>, second: i64, fee: bool) {
        let fact = OracleFact {
            position: Position::new(second * SECOND, self.sequence),
            removed_at: None,
            value: amount.map_or(Value::Null, |a| Value::Float(f64::from(a))),
            counts: true,
            order: Value::Null,
            category: Value::Null,
        };
        self.facts[usize::from(account)].push((fact, fee));
    }

    fn names(&self) -> Vec<String> {
        let of = |name| (0..self.windows.len()).map(move |i| format!("money.{name}_{i}"));
        FEATURES.into_iter().flat_map(of).collect()
    }

    /// Reads live, and holds that to the oracle.
    fn check(&self, account: u8, second: i64, inclusive: bool, known_at: u64) -> Live {
        let wanted: [(&str, Aggregate, bool); 4] = [
            ("count", Aggregate::Count, false),
            ("sum", Aggregate::Sum, true),
            ("last", Aggregate::Last { keep_nulls: false }, true),
            ("fees", Aggregate::Sum, true),
        ];
        let features = wanted.iter().flat_map(|w| {
            let windows = self.windows.iter();
            windows.map(move |(text, window)| (w, text, window))
        });
        let cursor = cursor_at(second, inclusive, known_at.min(self.sequence));
        let key = name(account);
        let row = self.harness.read(&self.names(), ("account", &key), &cursor);
        let float = DataType::Float64;
        for (index, ((name, function, with_input), text, window)) in features.enumerate() {
            let facts: Vec<OracleFact> = self.facts[usize::from(account)]
                .iter()
                .filter(|(_, fee)| *fee || *name != "fees")
                .map(|(fact, _)| fact.clone())
                .map(|fact| OracleFact {
                    counts: *name != "last" || fact.value > Value::Float(2.0),
                    ..fact
                })
                .collect();
            let want = evaluate(&facts, function, *with_input, &float, window, &cursor);
            let got = (bits(&row.values[index]), row.event_times[index]);
            assert_eq!(
                got,
                (bits(&want.value), want.event_time),
                "{name} over {{{text}}} at {cursor:?}"
            );
        }
        (key, cursor, row)
    }
}

fn name(account: u8) -> String {
    format!("a{account}")
}

/// A payment as it is sent.
fn paid(id: u64, (payer, payee, amount, second): Payment) -> serde_json::Value {
    json!({"id": format!("p{id}"), "payer": name(payer), "payee": name(payee),
        "amount": amount.map(f64::from), "time": second * SECOND})
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_window_over_any_sources_equals_the_oracle(
        windows in proptest::collection::vec(window(), 3..7),
        shards in 1usize..4,
        memory_bytes_max in prop_oneof![Just(0usize), Just(1 << 30)],
        steps in steps(),
        reads in proptest::collection::vec((0u8..3, -70i64..80, any::<bool>(), 0u64..150), 10),
    ) {
        let mut run = Run::new(windows, shards, memory_bytes_max);
        for (index, step) in steps.iter().enumerate() {
            run.take(step);
            let (account, second, inclusive, known_at) = reads[index % reads.len()];
            run.check(account, second, inclusive, known_at);
            run.check(account, second, inclusive, u64::MAX);
        }
        let mut live = Vec::new();
        for (account, second, inclusive, known_at) in reads {
            live.push(run.check(account, second, inclusive, known_at));
            live.push(run.check(account, second, inclusive, u64::MAX));
        }
        run.harness.assert_offline("money", &run.names(), "account", &live);
    }
}
