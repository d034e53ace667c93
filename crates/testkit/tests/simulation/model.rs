//! What must hold: the facts that were acknowledged, and what the naive oracle makes of them.

use std::collections::BTreeMap;

use headwater_aggregate::oracle::{OracleFact, evaluate};
use headwater_aggregate::{Aggregate, Outcome, Window, WindowKind};
use headwater_schema::{Cursor, DataType, Position, Sequence, Value};

use crate::steps::{Contract, Fact};

pub const SECOND: i64 = 1_000_000;

pub const DEFINITIONS: &str = "\
kind: DataContract
apiVersion: v3.1.0
id: simulated
version: 1.0.0
status: active
schema:
  - name: purchase
    properties:
      - {name: id, logicalType: string, required: true}
      - {name: customer, logicalType: string}
      - {name: amount, logicalType: number, logicalTypeOptions: {minimum: 0}}
      - {name: time, logicalType: timestamp, required: true}
    customProperties:
      - {property: headwater.eventTime, value: time}
      - {property: headwater.factId, value: id}
      - {property: headwater.timeUnit, value: us}
  - name: transfer
    properties:
      - {name: id, logicalType: string, required: true}
      - {name: payer, logicalType: string}
      - {name: payee, logicalType: string}
      - {name: amount, logicalType: number, logicalTypeOptions: {minimum: 0}}
      - {name: time, logicalType: timestamp, required: true}
    customProperties:
      - {property: headwater.eventTime, value: time}
      - {property: headwater.factId, value: id}
      - {property: headwater.timeUnit, value: us}
---
apiVersion: headwater/v1
kind: Entity
name: customer
owner: simulation
spec: {keys: [{name: customer, type: string}]}
---
apiVersion: headwater/v1
kind: Entity
name: account
owner: simulation
spec: {keys: [{name: account, type: string}]}
---
apiVersion: headwater/v1
kind: FeatureView
name: spending
owner: simulation
spec:
  entity: customer
  sources: [{contract: purchase}]
  retention: 20s
  features:
    - {name: count, aggregate: count, windows: [7s, 1m]}
    - {name: sum, aggregate: sum, of: amount, windows: [7s, lifetime]}
    - {name: max, aggregate: max, of: amount, windows: [1m]}
    - {name: variance, aggregate: variance, of: amount, windows: [1m]}
    - {name: first, aggregate: first, of: amount, windows: [lifetime]}
    - {name: last, aggregate: last, of: amount, windows: [{rows: 3}]}
    - {name: last_n, aggregate: last_n, n: 4, of: amount, windows: [{range: 9s}]}
    - {name: distinct, aggregate: distinct_count, of: amount, windows: [lifetime]}
---
apiVersion: headwater/v1
kind: FeatureView
name: large
owner: simulation
spec:
  entity: customer
  sources: [{contract: purchase, where: amount > 1.0}]
  storage: disk
  features:
    - {name: count, aggregate: count, windows: [7s, lifetime]}
    - {name: sum, aggregate: sum, of: amount, windows: [1m]}
---
apiVersion: headwater/v1
kind: FeatureView
name: ledger
owner: simulation
spec:
  entity: account
  sources:
    - {contract: transfer, keys: {account: payer}}
    - {contract: transfer, keys: {account: payee}}
  features:
    - {name: count, aggregate: count, windows: [7s, lifetime]}
    - {name: sum, aggregate: sum, of: amount, windows: [1m, lifetime]}
";

/// A view as the model knows it.
pub struct ViewModel {
    pub name: &'static str,
    pub entity: &'static str,
    pub features: Vec<(&'static str, Aggregate, bool, Window)>,
    /// Whether a fact is about an entity, in this view.
    about: fn(&Fact, u8) -> bool,
}

pub fn views() -> Vec<ViewModel> {
    let exact = |seconds: i64| {
        Window::new(WindowKind::Exact {
            width: seconds * SECOND,
        })
    };
    let lifetime = Window::new(WindowKind::Lifetime);
    let keep_nulls = false;
    let sum = Aggregate::Sum;
    vec![
        ViewModel {
            name: "spending",
            entity: "customer",
            about: |f, who| f.contract == Contract::Purchase && f.who == Some(who),
            features: vec![
                ("count_7s", Aggregate::Count, false, exact(7)),
                ("count_1m", Aggregate::Count, false, exact(60)),
                ("sum_7s", sum.clone(), true, exact(7)),
                ("sum_lifetime", sum.clone(), true, lifetime),
                ("max_1m", Aggregate::Max, true, exact(60)),
                (
                    "variance_1m",
                    Aggregate::Variance { sample: false },
                    true,
                    exact(60),
                ),
                (
                    "first_lifetime",
                    Aggregate::First { keep_nulls },
                    true,
                    lifetime,
                ),
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
            ],
        },
        ViewModel {
            name: "large",
            entity: "customer",
            about: |f, who| {
                let large = f.amount.is_some_and(|a| a > 100);
                f.contract == Contract::Purchase && f.who == Some(who) && large
            },
            features: vec![
                ("count_7s", Aggregate::Count, false, exact(7)),
                ("count_lifetime", Aggregate::Count, false, lifetime),
                ("sum_1m", sum.clone(), true, exact(60)),
            ],
        },
        ViewModel {
            name: "ledger",
            entity: "account",
            about: |f, who| {
                f.contract == Contract::Transfer && (f.who == Some(who) || f.other == who)
            },
            features: vec![
                ("count_7s", Aggregate::Count, false, exact(7)),
                ("count_lifetime", Aggregate::Count, false, lifetime),
                ("sum_1m", sum.clone(), true, exact(60)),
                ("sum_lifetime", sum, true, lifetime),
            ],
        },
    ]
}

/// What was asked of the log.
#[derive(Debug, Clone)]
pub enum Request {
    Ingest {
        facts: Vec<Fact>,
        all_or_nothing: bool,
        revise: bool,
    },
    Retract(Vec<u16>),
}

/// What it should have answered.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answer {
    pub accepted: usize,
    pub duplicates: usize,
    pub conflicts: usize,
    pub unknown: usize,
    pub sequence: Sequence,
}

#[derive(Debug, Clone)]
pub struct Known {
    pub fact: Fact,
    pub sequence: Sequence,
    pub removed_at: Option<Sequence>,
}

/// The log as it should be.
#[derive(Clone, Default)]
pub struct Model {
    /// Every fact, live or not, by sequence.
    pub facts: Vec<Known>,
    pub last: Sequence,
    live: BTreeMap<(Contract, u16), usize>,
    /// Where requests ended: a torn write never leaves a part of one.
    ends: Vec<Sequence>,
}

fn same(a: &Fact, b: &Fact) -> bool {
    let other = a.contract == Contract::Purchase || a.other == b.other;
    (a.who, a.amount, a.second) == (b.who, b.amount, b.second) && other
}

impl Model {
    /// Takes a request as the log should.
    pub fn take(&mut self, request: &Request) -> Answer {
        let before = self.clone();
        let mut answer = Answer::default();
        match request {
            Request::Ingest {
                facts,
                all_or_nothing,
                revise,
            } => {
                for fact in facts {
                    self.take_fact(fact, *revise, &mut answer);
                }
                if *all_or_nothing && answer.conflicts > 0 {
                    *self = before;
                    answer = Answer {
                        conflicts: answer.conflicts,
                        ..Answer::default()
                    };
                }
            }
            Request::Retract(ids) => {
                for id in ids {
                    match self.live.remove(&(Contract::Purchase, *id)) {
                        None => answer.unknown += 1,
                        Some(index) => {
                            self.last += 1;
                            self.facts[index].removed_at = Some(self.last);
                            answer.accepted += 1;
                        }
                    }
                }
            }
        }
        answer.sequence = self.last;
        self.ends.push(self.last);
        answer
    }

    fn take_fact(&mut self, fact: &Fact, revise: bool, answer: &mut Answer) {
        let key = (fact.contract, fact.id);
        let known = self.live.get(&key).copied();
        match known {
            Some(index) if same(&self.facts[index].fact, fact) => answer.duplicates += 1,
            Some(_) if !revise => answer.conflicts += 1,
            _ => {
                self.last += 1;
                if let Some(index) = known {
                    self.facts[index].removed_at = Some(self.last);
                }
                self.live.insert(key, self.facts.len());
                self.facts.push(Known {
                    fact: *fact,
                    sequence: self.last,
                    removed_at: None,
                });
                answer.accepted += 1;
            }
        }
    }

    /// Forgets what came after `last`, as a power cut may where nothing was synced.
    pub fn forget_after(&mut self, last: Sequence) {
        assert!(
            last == 0 || self.ends.contains(&last),
            "a part of a request is left: the log ends at {last}, requests at {:?}",
            self.ends
        );
        self.facts.retain(|k| k.sequence <= last);
        self.ends.retain(|end| *end <= last);
        for known in &mut self.facts {
            known.removed_at = known.removed_at.filter(|at| *at <= last);
        }
        self.last = last;
        let living = self.facts.iter().enumerate();
        let living = living.filter(|(_, k)| k.removed_at.is_none());
        self.live = living
            .map(|(i, k)| ((k.fact.contract, k.fact.id), i))
            .collect();
    }

    /// What a feature should be.
    pub fn answer(&self, view: &ViewModel, feature: usize, who: u8, cursor: &Cursor) -> Outcome {
        let facts: Vec<OracleFact> = self
            .facts
            .iter()
            .filter(|k| (view.about)(&k.fact, who))
            .map(|k| OracleFact {
                position: Position::new(k.fact.second * SECOND, k.sequence),
                removed_at: k.removed_at,
                value: k
                    .fact
                    .amount
                    .map_or(Value::Null, |a| Value::Float(amount(a))),
                counts: true,
                order: Value::Null,
                category: Value::Null,
            })
            .collect();
        let (_, function, with_input, window) = &view.features[feature];
        evaluate(
            &facts,
            function,
            *with_input,
            &DataType::Float64,
            window,
            cursor,
        )
    }
}

pub fn amount(hundredths: u16) -> f64 {
    f64::from(hundredths) / 100.0
}
