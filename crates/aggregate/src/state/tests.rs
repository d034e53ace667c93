//! The state held to the oracle: random streams of late, equal-time and retracted facts, any
//! window at any cursor, folded and stored at random moments, must agree bit for bit.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray};
use headwater_schema::{Cursor, DataType, Position, Value};
use proptest::prelude::*;

use super::*;
use crate::oracle::{self, OracleFact};
use crate::{Aggregate, InputColumn, Outcome, Slot, Window, WindowKind};

#[derive(Debug, Clone)]
enum Step {
    Fact {
        time: i64,
        value: Option<i64>,
        counts: Option<bool>,
    },
    /// Retracts the fact that this many live facts stand before.
    Retract(usize),
    Fold(i64),
    Store,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let fact = (
        0i64..60,
        proptest::option::weighted(0.85, -9i64..9),
        any::<Option<bool>>(),
    )
        .prop_map(|(time, value, counts)| Step::Fact {
            time,
            value,
            counts,
        });
    let step = prop_oneof![
        20 => fact,
        2 => (0usize..60).prop_map(Step::Retract),
        1 => (0i64..40).prop_map(Step::Fold),
        1 => Just(Step::Store),
    ];
    proptest::collection::vec(step, 1..90)
}

fn functions() -> Vec<Aggregate> {
    let mut all = vec![
        Aggregate::Count,
        Aggregate::Min,
        Aggregate::Max,
        Aggregate::TimeSinceFirst,
        Aggregate::TimeSinceLast,
        Aggregate::DistinctCount { exact_up_to: 3 },
        Aggregate::DistinctCount { exact_up_to: 100 },
        Aggregate::Histogram {
            n: None,
            categories_max: 100,
        },
        Aggregate::Histogram {
            n: Some(2),
            categories_max: 6,
        },
    ];
    for keep_nulls in [false, true] {
        all.extend([
            Aggregate::First { keep_nulls },
            Aggregate::Last { keep_nulls },
            Aggregate::FirstN { n: 3, keep_nulls },
            Aggregate::LastN { n: 3, keep_nulls },
        ]);
    }
    all
}

fn numeric_functions() -> Vec<Aggregate> {
    vec![
        Aggregate::Sum,
        Aggregate::Avg,
        Aggregate::Variance { sample: false },
        Aggregate::Variance { sample: true },
        Aggregate::Stddev { sample: false },
    ]
}

/// One slot per function, with and without an input and a filter.
fn layout(input: &DataType) -> (Layout, Vec<(Aggregate, bool, bool)>) {
    let mut features = Vec::new();
    for filtered in [false, true] {
        let numeric = if input.is_numeric() {
            numeric_functions()
        } else {
            Vec::new()
        };
        features.extend(
            functions()
                .into_iter()
                .chain(numeric)
                .map(|f| (f, true, filtered)),
        );
        features.push((Aggregate::Count, false, filtered));
        features.push((Aggregate::TimeSinceLast, false, filtered));
    }
    let slots = features
        .iter()
        .map(|(function, with_input, filtered)| Slot {
            input: with_input.then_some(0),
            filter: filtered.then_some(1),
            kind: function.slot_kind(),
        })
        .collect();
    let layout = Layout {
        inputs: vec![input.clone(), DataType::Bool],
        slots,
        lifetime: true,
        rows_max: 5,
    };
    (layout, features)
}

fn array(input: &DataType, value: Option<i64>) -> ArrayRef {
    match input {
        DataType::Int64 => Arc::new(Int64Array::from(vec![value])),
        DataType::String => Arc::new(StringArray::from(vec![value.map(|v| format!("v{v}"))])),
        _ => Arc::new(Float64Array::from(vec![value.map(as_float)])),
    }
}

/// Floats that round when they are added in the wrong order, and some that count as null.
fn as_float(value: i64) -> f64 {
    match value {
        -9 => f64::NAN,
        -8 => f64::INFINITY,
        -7 => 1e17,
        -6 => -1e17,
        -5 => -0.0,
        v => v as f64 * 0.1,
    }
}

struct Run {
    layout: Layout,
    features: Vec<(Aggregate, bool, bool)>,
    input: DataType,
    state: EntityState,
    facts: Vec<OracleFact>,
    sequence: u64,
}

impl Run {
    fn new(input: DataType) -> Self {
        let (layout, features) = layout(&input);
        Self {
            state: EntityState::new(&layout),
            layout,
            features,
            input,
            facts: Vec::new(),
            sequence: 0,
        }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Fact {
                time,
                value,
                counts,
            } => self.insert(*time, *value, *counts),
            Step::Retract(at) => {
                let live: Vec<usize> = (0..self.facts.len())
                    .filter(|i| self.facts[*i].removed_at.is_none())
                    .collect();
                if let Some(index) = live.get(*at) {
                    let position = self.facts[*index].position;
                    if self
                        .state
                        .retract(&self.layout, position, self.sequence + 1)
                        .is_ok()
                    {
                        self.sequence += 1;
                        self.facts[*index].removed_at = Some(self.sequence);
                    }
                }
            }
            Step::Fold(floor) => self.state.fold(&self.layout, *floor),
            Step::Store => {
                let mut bytes = Vec::new();
                self.state.encode(&mut bytes);
                self.state = EntityState::decode(&self.layout, &bytes).expect("own bytes");
            }
        }
    }

    fn insert(&mut self, time: i64, value: Option<i64>, counts: Option<bool>) {
        self.sequence += 1;
        let values = array(&self.input, value);
        let counts_array: ArrayRef = Arc::new(BooleanArray::from(vec![counts]));
        let batch = InputBatch {
            event_times: vec![time],
            sequences: vec![self.sequence],
            columns: vec![InputColumn::new(&values), InputColumn::new(&counts_array)],
        };
        self.state.insert(&self.layout, &batch, 0);
        self.facts.push(OracleFact {
            position: Position::new(time, self.sequence),
            removed_at: None,
            value: match Value::from_array(&values, 0) {
                Value::Float(f) if !f.is_finite() => Value::Null,
                Value::Float(f) => Value::Float(f + 0.0),
                other => other,
            },
            counts: counts == Some(true),
        });
    }

    fn check(&self, window: &Window, cursor: &Cursor) {
        let slots: Vec<usize> = (0..self.layout.slots.len()).collect();
        let mut partials: Vec<Partial> = self
            .layout
            .slots
            .iter()
            .map(|s| Partial::empty(s.kind))
            .collect();
        let range = window.range(cursor);
        let answer = self
            .state
            .query(&self.layout, &range, cursor.known_at, &slots, &mut partials);
        if answer.is_err() {
            assert!(
                self.state.base.is_some(),
                "only folded facts are out of reach"
            );
            return;
        }
        for ((function, with_input, filtered), partial) in self.features.iter().zip(&partials) {
            let facts: Vec<OracleFact> = self
                .facts
                .iter()
                .map(|f| OracleFact {
                    counts: f.counts || !filtered,
                    ..f.clone()
                })
                .collect();
            let input = with_input.then_some(&self.input);
            let as_of = cursor.as_of - window.offset;
            let got = function.finalize(partial, input, as_of);
            let want = oracle::evaluate(&facts, function, *with_input, &self.input, window, cursor);
            assert_eq!(
                exact(&got),
                exact(&want),
                "{function:?} with_input={with_input} filtered={filtered} {window:?} {cursor:?}"
            );
        }
    }
}

/// Floats by their bits.
fn exact(outcome: &Outcome) -> String {
    match &outcome.value {
        Value::Float(f) => format!("{:x} {:?}", f.to_bits(), outcome),
        _ => format!("{outcome:?}"),
    }
}

fn windows() -> impl Strategy<Value = Window> {
    let kind = prop_oneof![
        3 => (1i64..40).prop_map(|width| WindowKind::Exact { width }),
        1 => (1i64..40).prop_map(|width| WindowKind::Range { width }),
        2 => (1usize..6).prop_map(|rows| WindowKind::Rows { rows }),
        1 => Just(WindowKind::Lifetime),
    ];
    (
        kind,
        prop_oneof![3 => Just(0i64), 1 => 1i64..10],
        proptest::option::weighted(0.2, 1usize..5),
    )
        .prop_map(|(kind, offset, limit)| Window {
            kind,
            offset,
            limit,
        })
}

fn cursors() -> impl Strategy<Value = Cursor> {
    (
        -1i64..65,
        any::<bool>(),
        proptest::option::weighted(0.4, 0u64..90),
    )
        .prop_map(|(as_of, inclusive, known_at)| {
            let cursor = if inclusive {
                Cursor::inclusive(as_of)
            } else {
                Cursor::exclusive(as_of)
            };
            known_at.map_or(cursor, |sequence| cursor.known_at(sequence))
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn every_window_at_every_cursor_equals_the_oracle(
        input in prop_oneof![Just(DataType::Float64), Just(DataType::Int64), Just(DataType::String)],
        steps in steps(),
        reads in proptest::collection::vec((windows(), cursors()), 1..12),
    ) {
        let mut run = Run::new(input);
        for step in &steps {
            run.take(step);
        }
        for (window, cursor) in &reads {
            run.check(window, cursor);
        }
        for (_, cursor) in &reads {
            if let Ok(any) = run.state.any_before(cursor.until, cursor.known_at) {
                let lifetime = Window::new(WindowKind::Lifetime);
                prop_assert_eq!(any, !oracle::in_window(&run.facts, &lifetime, cursor).is_empty());
            }
        }
    }

    #[test]
    fn damaged_bytes_are_an_error_and_never_a_panic(steps in steps(), flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let mut run = Run::new(DataType::Float64);
        steps.iter().for_each(|step| run.take(step));
        let mut bytes = Vec::new();
        run.state.encode(&mut bytes);
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let _ = EntityState::decode(&run.layout, &bytes);
    }
}

#[test]
fn a_read_that_needs_folded_facts_says_so() {
    let mut run = Run::new(DataType::Float64);
    for time in 0..20 {
        run.insert(time, Some(1), Some(true));
    }
    run.state.fold(&run.layout, 9);
    let read = |window: &Window, cursor: &Cursor| {
        let mut partials = vec![Partial::empty(run.layout.slots[0].kind)];
        let range = window.range(cursor);
        let answer = run
            .state
            .query(&run.layout, &range, cursor.known_at, &[0], &mut partials);
        answer.map(|()| partials[0].count)
    };
    let lifetime = Window::new(WindowKind::Lifetime);
    let exact = Window::new(WindowKind::Exact { width: 5 });
    assert_eq!(read(&lifetime, &Cursor::inclusive(30)), Ok(20));
    assert_eq!(read(&exact, &Cursor::inclusive(19)), Ok(5));
    assert_eq!(read(&exact, &Cursor::inclusive(9)), Err(Aged));
    assert_eq!(read(&lifetime, &Cursor::inclusive(5)), Err(Aged));
    assert_eq!(
        read(&lifetime, &Cursor::inclusive(30).known_at(3)),
        Err(Aged)
    );
}
