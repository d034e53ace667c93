//! Every aggregate function as it is written in a definition, over every window, through the real engine: random facts with
//! decimals, lists, maps and structs, some revised and some retracted, in any batches, closed and opened in between, must
//! equal the naive oracle bit for bit: live reads, sweeps, rows of training sets, and reads of the view once it has been made
//! again.

use std::fmt::Write;

use headwater_aggregate::oracle::{OracleFact, Question, answer};
use headwater_aggregate::{Aggregate, Quantiles, Spread, Window, WindowKind};
use headwater_schema::decode::value_to_json;
use headwater_schema::{DataType, Field, Position, Value, value_to_text};
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use crate::harness::{Harness, Live, SECOND, bits, cursor_at};

const CONTRACT: &str = "
kind: DataContract
apiVersion: v3.1.0
id: sales
version: 1.0.0
status: active
schema:
  - name: sale
    properties:
      - {name: id, logicalType: string, required: true}
      - {name: customer, logicalType: string, required: true}
      - {name: time, logicalType: timestamp, required: true}
      - {name: amount, logicalType: number}
      - {name: price, logicalType: number, physicalType: 'decimal(12,2)'}
      - {name: quantity, logicalType: integer}
      - {name: shop, logicalType: string}
      - {name: raw, logicalType: string, physicalType: bytes}
      - {name: day, logicalType: date}
      - {name: open, logicalType: boolean}
      - {name: scores, logicalType: array, physicalType: 'array<double>'}
      - {name: parts, logicalType: object, physicalType: 'map<string,double>'}
      - name: spot
        logicalType: object
        properties: [{name: x, logicalType: integer}, {name: y, logicalType: string}]
    customProperties:
      - {property: headwater.eventTime, value: time}
      - {property: headwater.factId, value: id}
      - {property: headwater.timeUnit, value: us}
---
apiVersion: headwater/v1
kind: Entity
name: customer
spec: {keys: [{name: customer, type: string}]}
---
apiVersion: headwater/v1
kind: FeatureView
name: sales
spec:
  entity: customer
  sources: [{contract: sale}]
  retention: 20s
  features:
";

/// Windows as they are written, and what they are.
fn windows() -> Vec<(&'static str, Window)> {
    let new = Window::new;
    vec![
        ("exact: 7s", new(WindowKind::Exact { width: 7 * SECOND })),
        ("range: 40s", new(WindowKind::Range { width: 40 * SECOND })),
        ("rows: 9", new(WindowKind::Rows { rows: 9 })),
        ("lifetime: true", new(WindowKind::Lifetime)),
        (
            "exact: 1m, offset: 5s, limit: 12",
            Window {
                offset: 5 * SECOND,
                limit: Some(12),
                ..new(WindowKind::Exact { width: 60 * SECOND })
            },
        ),
    ]
}

/// A feature as it is written, and what it asks.
struct Written {
    text: &'static str,
    function: Aggregate,
    of: Option<&'static str>,
    spread: Spread,
    /// What categories are of.
    by: Option<&'static str>,
    largest: Option<usize>,
    categories_max: usize,
}

fn plain(text: &'static str, function: Aggregate, of: Option<&'static str>) -> Written {
    Written {
        text,
        function,
        of,
        spread: Spread::Whole,
        by: None,
        largest: None,
        categories_max: 1000,
    }
}

fn written() -> Vec<Written> {
    let mut all = simple();
    all.extend(plain_types());
    all.extend(by_category());
    all.extend(taken_apart());
    all
}

fn simple() -> Vec<Written> {
    let (amount, price, quantity) = (Some("amount"), Some("price"), Some("quantity"));
    let (keep_nulls, sample, half_life) = (false, false, 3 * SECOND);
    let histogram = |n, categories_max| Aggregate::Histogram { n, categories_max };
    let quantile = |at, exact_up_to| Aggregate::Quantile { at, exact_up_to };
    let half = || Quantiles::One(500_000_000);
    let many = Quantiles::Many([0, 250_000_000, 990_000_000].into());
    vec![
        plain("aggregate: count", Aggregate::Count, None),
        plain("aggregate: rate", Aggregate::Rate, None),
        plain(
            "aggregate: time_since_first",
            Aggregate::TimeSinceFirst,
            None,
        ),
        plain(
            "aggregate: time_since_last, of: price",
            Aggregate::TimeSinceLast,
            price,
        ),
        plain("aggregate: sum, of: price", Aggregate::Sum, price),
        plain("aggregate: avg, of: price", Aggregate::Avg, price),
        plain("aggregate: min, of: price", Aggregate::Min, price),
        plain("aggregate: max, of: shop", Aggregate::Max, Some("shop")),
        plain(
            "aggregate: first, of: spot",
            Aggregate::First { keep_nulls },
            Some("spot"),
        ),
        plain(
            "aggregate: last, of: scores, nulls: keep",
            Aggregate::Last { keep_nulls: true },
            Some("scores"),
        ),
        plain(
            "aggregate: first_n, of: parts, n: 2",
            Aggregate::FirstN { n: 2, keep_nulls },
            Some("parts"),
        ),
        plain(
            "aggregate: last_n, of: spot, n: 3",
            Aggregate::LastN { n: 3, keep_nulls },
            Some("spot"),
        ),
        plain(
            "aggregate: variance, of: price",
            Aggregate::Variance { sample },
            price,
        ),
        plain(
            "aggregate: stddev, of: amount, sample: true",
            Aggregate::Stddev { sample: true },
            amount,
        ),
        plain(
            "aggregate: skew, of: amount",
            Aggregate::Skew { sample },
            amount,
        ),
        plain(
            "aggregate: skew, of: price, sample: true",
            Aggregate::Skew { sample: true },
            price,
        ),
        plain(
            "aggregate: kurtosis, of: quantity",
            Aggregate::Kurtosis { sample },
            quantity,
        ),
        plain(
            "aggregate: kurtosis, of: amount, sample: true",
            Aggregate::Kurtosis { sample: true },
            amount,
        ),
        plain(
            "aggregate: distinct_count, of: spot, exact_up_to: 20",
            Aggregate::DistinctCount { exact_up_to: 20 },
            Some("spot"),
        ),
        plain(
            "aggregate: distinct_n, of: shop, n: 2",
            Aggregate::DistinctN { n: 2 },
            Some("shop"),
        ),
        plain(
            "aggregate: top_n, of: price, n: 4",
            Aggregate::TopN { n: 4 },
            price,
        ),
        plain(
            "aggregate: bottom_n, of: amount, n: 4",
            Aggregate::BottomN { n: 4 },
            amount,
        ),
        plain(
            "aggregate: min_by, of: spot, order_by: quantity",
            Aggregate::MinBy,
            Some("spot"),
        ),
        plain(
            "aggregate: max_by, of: amount, order_by: quantity",
            Aggregate::MaxBy,
            amount,
        ),
        plain(
            "aggregate: histogram, of: quantity, n: 3",
            histogram(Some(3), 1000),
            quantity,
        ),
        plain(
            "aggregate: histogram, of: shop, max_categories: 2",
            histogram(None, 2),
            Some("shop"),
        ),
        plain(
            "aggregate: top_values, of: shop, n: 2",
            Aggregate::TopValues {
                n: 2,
                categories_max: 1000,
            },
            Some("shop"),
        ),
        plain(
            "aggregate: quantile, of: price, quantile: 0.5",
            quantile(half(), 1024),
            price,
        ),
        plain(
            "aggregate: quantile, of: amount, quantile: [0, 0.25, 0.99], exact_up_to: 5",
            quantile(many, 5),
            amount,
        ),
        plain(
            "aggregate: quantile, of: quantity, quantile: 0.5, exact_up_to: 50",
            quantile(half(), 50),
            quantity,
        ),
        plain(
            "aggregate: decayed_count, half_life: 3s",
            Aggregate::DecayedCount { half_life },
            None,
        ),
        plain(
            "aggregate: decayed_sum, of: price, half_life: 3s",
            Aggregate::DecayedSum { half_life },
            price,
        ),
        plain(
            "aggregate: decayed_avg, of: amount, half_life: 3s",
            Aggregate::DecayedAvg { half_life },
            amount,
        ),
        plain(
            "aggregate: decayed_sum, of: amount, half_life: 10ms",
            Aggregate::DecayedSum {
                half_life: SECOND / 100,
            },
            amount,
        ),
    ]
}

/// Bytes, dates and bools.
fn plain_types() -> Vec<Written> {
    let categories_max = 1000;
    let (raw, day, open) = (Some("raw"), Some("day"), Some("open"));
    let (keep_nulls, n) = (false, 2);
    vec![
        plain("aggregate: max, of: day", Aggregate::Max, day),
        plain("aggregate: min, of: open", Aggregate::Min, open),
        plain("aggregate: count, of: raw", Aggregate::Count, raw),
        plain(
            "aggregate: last_n, of: raw, n: 2",
            Aggregate::LastN { n, keep_nulls },
            raw,
        ),
        plain(
            "aggregate: distinct_count, of: raw",
            Aggregate::DistinctCount { exact_up_to: 1024 },
            raw,
        ),
        plain(
            "aggregate: distinct_n, of: day, n: 2",
            Aggregate::DistinctN { n },
            day,
        ),
        plain(
            "aggregate: histogram, of: day",
            Aggregate::Histogram {
                n: None,
                categories_max,
            },
            day,
        ),
        plain(
            "aggregate: top_values, of: open, n: 2",
            Aggregate::TopValues { n, categories_max },
            open,
        ),
        plain(
            "aggregate: max_by, of: raw, order_by: quantity",
            Aggregate::MaxBy,
            raw,
        ),
    ]
}

fn by_category() -> Vec<Written> {
    let amount = Some("amount");
    let by_column = |column, text, function, of| Written {
        by: Some(column),
        ..plain(text, function, of)
    };
    let by = |text, function, of| by_column("shop", text, function, of);
    let keep_nulls = false;
    vec![
        by("aggregate: count, by: shop", Aggregate::Count, None),
        Written {
            largest: Some(2),
            ..by(
                "aggregate: sum, of: amount, by: shop, n: 2",
                Aggregate::Sum,
                amount,
            )
        },
        Written {
            categories_max: 3,
            ..by(
                "aggregate: avg, of: price, by: shop, max_categories: 3",
                Aggregate::Avg,
                Some("price"),
            )
        },
        by(
            "aggregate: last, of: amount, by: shop",
            Aggregate::Last { keep_nulls },
            amount,
        ),
        by(
            "aggregate: last_n, of: quantity, by: shop, n: 2",
            Aggregate::LastN { n: 2, keep_nulls },
            Some("quantity"),
        ),
        by(
            "aggregate: max_by, of: price, order_by: quantity, by: shop",
            Aggregate::MaxBy,
            Some("price"),
        ),
        by(
            "aggregate: decayed_count, half_life: 3s, by: shop",
            Aggregate::DecayedCount {
                half_life: 3 * SECOND,
            },
            None,
        ),
        by_column("raw", "aggregate: count, by: raw", Aggregate::Count, None),
        by_column(
            "day",
            "aggregate: last, of: raw, by: day",
            Aggregate::Last { keep_nulls },
            Some("raw"),
        ),
        by_column(
            "open",
            "aggregate: sum, of: amount, by: open",
            Aggregate::Sum,
            amount,
        ),
        Written {
            spread: Spread::Positions,
            ..by(
                "aggregate: max, of: scores, element_wise: true, by: shop",
                Aggregate::Max,
                Some("scores"),
            )
        },
    ]
}

fn taken_apart() -> Vec<Written> {
    let list = |text, function| Written {
        spread: Spread::Elements,
        ..plain(text, function, Some("scores"))
    };
    let map = |text, function| Written {
        spread: Spread::Entries,
        ..plain(text, function, Some("parts"))
    };
    let places = |text, function| Written {
        spread: Spread::Positions,
        ..plain(text, function, Some("scores"))
    };
    vec![
        list(
            "aggregate: count, of: scores, unnest: true",
            Aggregate::Count,
        ),
        list("aggregate: avg, of: scores, unnest: true", Aggregate::Avg),
        list(
            "aggregate: last_n, of: scores, unnest: true, n: 5",
            Aggregate::LastN {
                n: 5,
                keep_nulls: false,
            },
        ),
        map("aggregate: sum, of: parts, unnest: true", Aggregate::Sum),
        Written {
            largest: Some(1),
            ..map(
                "aggregate: count, of: parts, unnest: true, n: 1",
                Aggregate::Count,
            )
        },
        places(
            "aggregate: avg, of: scores, element_wise: true",
            Aggregate::Avg,
        ),
        places(
            "aggregate: count, of: scores, element_wise: true",
            Aggregate::Count,
        ),
    ]
}

/// A feature with one window: its name, what it asks, and over which window.
type Asked = (String, Written, Window);

fn features() -> Vec<Asked> {
    let mut all = Vec::new();
    for (place, (_, window)) in windows().into_iter().enumerate() {
        for (index, feature) in written().into_iter().enumerate() {
            if feature.function != Aggregate::Rate || window.width().is_some() {
                all.push((format!("f{index}_w{place}"), feature, window));
            }
        }
    }
    all
}

fn definitions() -> String {
    let mut text = CONTRACT.to_owned();
    for (index, feature) in written().iter().enumerate() {
        let windows = windows().into_iter().enumerate();
        let windows = windows
            .filter(|(_, (_, w))| feature.function != Aggregate::Rate || w.width().is_some());
        let windows: Vec<String> = windows
            .map(|(place, (window, _))| format!("{{{window}, as: f{index}_w{place}}}"))
            .collect();
        let windows = windows.join(", ");
        let _ = writeln!(
            text,
            "    - {{name: f{index}, {}, windows: [{windows}]}}",
            feature.text
        );
    }
    text
}

#[derive(Debug, Clone)]
struct Fact {
    id: u16,
    customer: u8,
    second: i64,
    /// Everything else follows from it.
    seed: u32,
}

impl Fact {
    /// A small number drawn from the seed; none in one of ten draws.
    fn draw(&self, salt: u32, below: u32) -> Option<u32> {
        let mixed = (self.seed ^ salt.wrapping_mul(0x9E37_79B9)).wrapping_mul(0x85EB_CA6B);
        let mixed = (mixed ^ (mixed >> 13)).wrapping_mul(0xC2B2_AE35) >> 8;
        (!mixed.is_multiple_of(10)).then_some((mixed / 10) % below)
    }

    fn value(&self, column: &str) -> Value {
        let tenths = |v: u32| Value::Float(f64::from(v) / 10.0 - 7.0);
        let or_null =
            |drawn: Option<u32>, value: &dyn Fn(u32) -> Value| drawn.map_or(Value::Null, value);
        match column {
            "amount" => or_null(self.draw(1, 300), &tenths),
            "price" => or_null(self.draw(2, 5000), &|v| Value::Decimal {
                unscaled: i128::from(v) - 900,
                scale: 2,
            }),
            "quantity" => or_null(self.draw(3, 6), &|v| Value::Int(i64::from(v) - 2)),
            "shop" => or_null(self.draw(4, 5), &|v| Value::string(format!("s{v}"))),
            "raw" => or_null(self.draw(30, 4), &|v| {
                Value::Bytes([u8::try_from(v).expect("small"), 255].into())
            }),
            "day" => or_null(self.draw(31, 5), &|v| {
                Value::Date(i32::try_from(v).expect("small") - 2)
            }),
            "open" => or_null(self.draw(32, 2), &|v| Value::Bool(v == 1)),
            "scores" => or_null(self.draw(5, 20), &|v| {
                let length = if v == 0 { 2 } else { 3 };
                Value::List(
                    (10..10 + length)
                        .map(|i| or_null(self.draw(i, 40), &tenths))
                        .collect(),
                )
            }),
            "parts" => or_null(self.draw(6, 4), &|v| {
                let entry = |i: u32| {
                    (
                        Value::string(format!("p{i}")),
                        or_null(self.draw(20 + i, 40), &tenths),
                    )
                };
                Value::Map((0..v).map(entry).collect())
            }),
            _ => or_null(self.draw(7, 4), &|v| {
                let members = [
                    ("x", Value::Int(i64::from(v))),
                    ("y", Value::string("here")),
                ];
                Value::Struct(members.map(|(n, v)| (n.into(), v)).into())
            }),
        }
    }

    fn row(&self) -> Json {
        let mut row = json!({"id": self.id.to_string(), "customer": format!("c{}", self.customer), "time": self.second * SECOND});
        for column in COLUMNS {
            row[column] = to_json(&self.value(column));
        }
        row
    }
}

const COLUMNS: [&str; 10] = [
    "amount", "price", "quantity", "shop", "raw", "day", "open", "scores", "parts", "spot",
];

fn column_type(column: &str) -> DataType {
    let float = || DataType::Float64.into();
    match column {
        "amount" => DataType::Float64,
        "price" => DataType::Decimal {
            precision: 12,
            scale: 2,
        },
        "quantity" => DataType::Int64,
        "shop" => DataType::String,
        "raw" => DataType::Bytes,
        "day" => DataType::Date,
        "open" => DataType::Bool,
        "scores" => DataType::List(float()),
        "parts" => DataType::Map(float()),
        _ => DataType::Struct(
            [
                Field::new("x", DataType::Int64),
                Field::new("y", DataType::String),
            ]
            .into(),
        ),
    }
}

fn to_json(value: &Value) -> Json {
    match value {
        Value::Int(v) => json!(v),
        Value::Float(v) => json!(v),
        Value::String(v) => json!(&**v),
        Value::List(items) => items.iter().map(to_json).collect(),
        Value::Map(entries) => entries
            .iter()
            .map(|(k, v)| (value_to_text(k), to_json(v)))
            .collect(),
        Value::Struct(members) => members
            .iter()
            .map(|(n, v)| (n.to_string(), to_json(v)))
            .collect(),
        Value::Decimal { .. } => json!(value_to_text(value)),
        Value::Bytes(_) | Value::Date(_) | Value::Bool(_) => value_to_json(value),
        _ => Json::Null,
    }
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
    let fact = (0u16..400, 0u8..2, 0i64..90, any::<u32>());
    let fact = fact.prop_map(|(id, customer, second, seed)| Fact {
        id,
        customer,
        second,
        seed,
    });
    let facts = proptest::collection::vec(fact, 1..90);
    let step = prop_oneof![
        6 => facts.clone().prop_map(Step::Ingest),
        2 => facts.prop_map(Step::Revise),
        2 => proptest::collection::vec(0u16..400, 1..60).prop_map(Step::Retract),
        1 => Just(Step::Reopen),
        1 => Just(Step::Checkpoint),
    ];
    proptest::collection::vec(step, 1..8)
}

/// (customer, second, whether facts at it count, what is known)
type Read = (u8, i64, bool, u64);

struct Run {
    harness: Harness,
    /// The facts that were taken, with their sequences and those of their retraction.
    facts: Vec<(Fact, u64, Option<u64>)>,
    sequence: u64,
}

impl Run {
    fn new(memory_bytes_max: usize) -> Self {
        let harness = Harness::new(&definitions(), |state| {
            state.memory_bytes_max = memory_bytes_max
        });
        Self {
            harness,
            facts: Vec::new(),
            sequence: 0,
        }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Checkpoint => self.harness.engine().checkpoint().expect("written"),
            Step::Reopen => self.harness.reopen(),
            Step::Retract(ids) => {
                let texts = ids.iter().map(u16::to_string).collect();
                self.harness.retract("sale", texts);
                for id in ids {
                    let next = self.sequence + 1;
                    if let Some(fact) = self.live(*id) {
                        fact.2 = Some(next);
                        self.sequence = next;
                    }
                }
            }
            Step::Ingest(facts) | Step::Revise(facts) => {
                let rows: Vec<Json> = facts.iter().map(Fact::row).collect();
                let revise = matches!(step, Step::Revise(_));
                self.harness.send("sale", &rows, revise);
                facts.iter().for_each(|fact| self.take_fact(fact, revise));
            }
        }
    }

    fn take_fact(&mut self, fact: &Fact, revise: bool) {
        let next = self.sequence + 1;
        if let Some((known, _, removed_at)) = self.live(fact.id) {
            if !revise || known.row() == fact.row() {
                return;
            }
            *removed_at = Some(next);
        }
        self.sequence = next;
        self.facts.push((fact.clone(), next, None));
    }

    fn live(&mut self, id: u16) -> Option<&mut (Fact, u64, Option<u64>)> {
        let mut facts = self.facts.iter_mut();
        facts.find(|(fact, _, removed_at)| fact.id == id && removed_at.is_none())
    }

    fn facts_of(&self, customer: u8, feature: &Written) -> Vec<OracleFact> {
        let (of, by) = (feature.of, feature.by.unwrap_or("shop"));
        let facts = self.facts.iter().filter(|(f, _, _)| f.customer == customer);
        let fact = |(fact, sequence, removed_at): &(Fact, u64, Option<u64>)| OracleFact {
            position: Position::new(fact.second * SECOND, *sequence),
            removed_at: *removed_at,
            value: of.map_or(Value::Null, |column| fact.value(column)),
            counts: true,
            order: fact.value("quantity"),
            category: fact.value(by),
        };
        facts.map(fact).collect()
    }

    /// Reads live, and holds that to the oracle.
    fn check(&self, features: &[Asked], read: Read) -> Live {
        let (customer, second, inclusive, known_at) = read;
        let cursor = cursor_at(second, inclusive, known_at.min(self.sequence));
        let key = format!("c{customer}");
        let row = self
            .harness
            .read(&full_names(features), ("customer", &key), &cursor);
        for (index, (name, feature, window)) in features.iter().enumerate() {
            let input = feature.of.map(column_type);
            let question = Question {
                function: &feature.function,
                input: input.as_ref(),
                spread: feature.spread,
                grouped: feature.by.is_some(),
                largest: feature.largest,
                categories_max: feature.categories_max,
            };
            let want = answer(
                &self.facts_of(customer, feature),
                &question,
                window,
                &cursor,
            );
            let text = feature.text;
            assert_eq!(
                bits(&row.values[index]),
                bits(&want.value),
                "{name}: {text} of {key} at {cursor:?}"
            );
            assert_eq!(row.event_times[index], want.event_time, "{name}: {text}");
        }
        (key, cursor, row)
    }
}

fn full_names(features: &[Asked]) -> Vec<String> {
    features.iter().map(|f| format!("sales.{}", f.0)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn every_function_over_every_window_equals_the_oracle(
        memory_bytes_max in prop_oneof![Just(0usize), Just(1 << 30)],
        steps in steps(),
        reads in proptest::collection::vec((0u8..2, -5i64..100, any::<bool>(), 0u64..400), 8),
    ) {
        let features = features();
        let mut run = Run::new(memory_bytes_max);
        for (step, read) in steps.iter().zip(&reads) {
            run.take(step);
            run.check(&features, (read.0, read.1, read.2, u64::MAX));
        }
        let ends = [0, 1].map(|customer| (customer, 95, true, u64::MAX));
        let reads = reads.into_iter().chain(ends);
        let live: Vec<Live> = reads.map(|read| run.check(&features, read)).collect();
        run.harness.assert_offline("sales", &full_names(&features), "customer", &live);
    }
}
