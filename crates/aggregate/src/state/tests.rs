//! The state held to the oracle: random streams of late, equal-time and retracted facts, any
//! window at any cursor, folded and stored at random moments, must agree bit for bit.

use arrow::array::ArrayRef;
use headwater_schema::{Cursor, DataType, Position, Value, array_from_values};
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;
use crate::oracle::{self, OracleFact, Question};
use crate::{
    Aggregate, ForwardReads, ForwardWindow, Grid, InputColumn, Outcome, Quantiles, Reading, Slot,
    Spread, Window, WindowKind,
};

#[derive(Debug, Clone)]
struct Fact {
    time: i64,
    value: Option<i64>,
    counts: Option<bool>,
    order: Option<i64>,
    category: Option<u8>,
    /// Elements of the lists and values of the maps, and how many.
    items: Option<Vec<Option<i64>>>,
}

#[derive(Debug, Clone)]
enum Step {
    Fact(Fact),
    /// Retracts the fact that this many live facts stand before.
    Retract(usize),
    /// Replaces it.
    Revise(usize, Fact),
    Fold(i64),
    Store,
    /// Lets the oldest facts go, as far as they have been folded away: at most this many.
    Drop(usize),
}

fn facts() -> impl Strategy<Value = Fact> {
    let number = || proptest::option::weighted(0.85, -9i64..9);
    // Mostly two elements, so that lists are of equal length now and then.
    let items = prop_oneof![
        8 => proptest::collection::vec(number(), 2),
        1 => proptest::collection::vec(number(), 0..4),
    ];
    (
        -30i64..30,
        number(),
        any::<Option<bool>>(),
        proptest::option::weighted(0.9, 0i64..4),
        proptest::option::weighted(0.9, 0u8..4),
        proptest::option::weighted(0.9, items),
    )
        .prop_map(|(time, value, counts, order, category, items)| Fact {
            time,
            value,
            counts,
            order,
            category,
            items,
        })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        20 => facts().prop_map(Step::Fact),
        2 => (0usize..60).prop_map(Step::Retract),
        2 => (0usize..60, facts()).prop_map(|(at, fact)| Step::Revise(at, fact)),
        1 => (-30i64..10).prop_map(Step::Fold),
        1 => Just(Step::Store),
        1 => (0usize..60).prop_map(Step::Drop),
    ];
    proptest::collection::vec(step, 1..90)
}

/// Every function, with small parameters.
fn functions() -> Vec<Aggregate> {
    let mut all = vec![
        Aggregate::Count,
        Aggregate::Rate,
        Aggregate::Min,
        Aggregate::Max,
        Aggregate::TimeSinceFirst,
        Aggregate::TimeSinceLast,
        Aggregate::DistinctCount { exact_up_to: 3 },
        Aggregate::DistinctCount { exact_up_to: 100 },
        Aggregate::DistinctN { n: 3 },
        Aggregate::TopN { n: 3 },
        Aggregate::BottomN { n: 3 },
        Aggregate::MinBy,
        Aggregate::MaxBy,
        Aggregate::Histogram {
            n: None,
            categories_max: 100,
        },
        Aggregate::Histogram {
            n: Some(2),
            categories_max: 6,
        },
        Aggregate::TopValues {
            n: 2,
            categories_max: 100,
        },
        Aggregate::DecayedCount { half_life: 7 },
        Aggregate::Sum,
        Aggregate::Avg,
    ];
    for keep_nulls in [false, true] {
        all.extend([
            Aggregate::First { keep_nulls },
            Aggregate::Last { keep_nulls },
            Aggregate::FirstN { n: 3, keep_nulls },
            Aggregate::LastN { n: 3, keep_nulls },
        ]);
    }
    for sample in [false, true] {
        all.extend([
            Aggregate::Variance { sample },
            Aggregate::Stddev { sample },
            Aggregate::Skew { sample },
            Aggregate::Kurtosis { sample },
        ]);
    }
    for exact_up_to in [3, 100] {
        all.extend([
            Aggregate::Quantile {
                at: Quantiles::One(500_000_000),
                exact_up_to,
            },
            Aggregate::Quantile {
                at: Quantiles::Many([0, 123_456_789, 950_000_000, 1_000_000_000].into()),
                exact_up_to,
            },
        ]);
    }
    // A half-life of one makes facts decay away altogether.
    for half_life in [1, 7] {
        all.extend([
            Aggregate::DecayedSum { half_life },
            Aggregate::DecayedAvg { half_life },
        ]);
    }
    all
}

/// What a feature asks, by the numbers of inputs.
#[derive(Debug, Clone)]
struct Feature {
    function: Aggregate,
    input: Option<usize>,
    filtered: bool,
    spread: Spread,
    grouped: bool,
    largest: Option<usize>,
}

/// The inputs of the layout.
const VALUE: usize = 0;
const COUNTS: usize = 1;
const ORDER: usize = 2;
const CATEGORY: usize = 3;
const LIST: usize = 4;
const MAP: usize = 5;
/// Fewer than there are categories and keys at times.
const CATEGORIES_MAX: usize = 3;

fn inputs(value: &DataType) -> Vec<DataType> {
    vec![
        value.clone(),
        DataType::Bool,
        DataType::Int64,
        DataType::String,
        DataType::List(value.clone().into()),
        DataType::Map(value.clone().into()),
    ]
}

impl Feature {
    fn slot(&self) -> Slot {
        Slot {
            input: self.input,
            filter: self.filtered.then_some(COUNTS),
            order_by: self.function.needs_order().then_some(ORDER),
            by: self.grouped.then_some(CATEGORY),
            spread: self.spread,
            categories_max: CATEGORIES_MAX,
            kind: self.function.slot_kind(),
        }
    }
}

/// Features that a definition could have over values of a type.
fn features(value: DataType) -> impl Strategy<Value = Vec<Feature>> {
    let spread = prop_oneof![
        4 => Just(Spread::Whole),
        1 => Just(Spread::Elements),
        1 => Just(Spread::Entries),
        1 => Just(Spread::Positions),
    ];
    let feature = (
        select(functions()),
        spread,
        prop::bool::weighted(0.9),
        any::<bool>(),
        prop::bool::weighted(0.3),
        proptest::option::weighted(0.3, 1usize..3),
    );
    let inputs = inputs(&value);
    let feature = feature.prop_filter_map(
        "the function takes the input",
        move |(function, spread, with_input, filtered, grouped, largest)| {
            let input = match spread {
                Spread::Whole if !with_input && !function.needs_input() => None,
                Spread::Whole => Some(VALUE),
                Spread::Elements | Spread::Positions => Some(LIST),
                Spread::Entries => Some(MAP),
            };
            let taken = function.result_type(input.map(|i| &inputs[i]), spread, grouped);
            taken.is_ok().then_some(Feature {
                function,
                input,
                filtered,
                spread,
                grouped,
                largest: largest.filter(|_| grouped || spread == Spread::Entries),
            })
        },
    );
    proptest::collection::vec(feature, 12)
}

fn types() -> impl Strategy<Value = DataType> {
    select(vec![
        DataType::Float64,
        DataType::Float64,
        DataType::Int64,
        DataType::String,
        DataType::Decimal {
            precision: 12,
            scale: 2,
        },
    ])
}

/// A type, and features over values of it.
fn questions() -> impl Strategy<Value = (DataType, Vec<Feature>)> {
    types().prop_flat_map(|input| (Just(input.clone()), features(input)))
}

fn value_of(input: &DataType, value: Option<i64>) -> Value {
    let Some(value) = value else {
        return Value::Null;
    };
    match input {
        DataType::Int64 => Value::Int(value),
        DataType::String => Value::string(format!("v{value}")),
        DataType::Decimal { scale, .. } => Value::Decimal {
            unscaled: i128::from(value) * 5,
            scale: *scale,
        },
        _ => Value::Float(as_float(value)),
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

/// The value as the oracle is told it: NaN and infinities are null, and zero has no sign.
fn clean(value: &Value) -> Value {
    match value {
        Value::Float(f) if !f.is_finite() => Value::Null,
        Value::Float(f) => Value::Float(f + 0.0),
        Value::List(items) => Value::List(items.iter().map(clean).collect()),
        Value::Map(entries) => {
            Value::Map(entries.iter().map(|(k, v)| (k.clone(), clean(v))).collect())
        }
        other => other.clone(),
    }
}

struct Run {
    layout: Layout,
    features: Vec<Feature>,
    state: EntityState,
    /// Every input of each fact.
    facts: Vec<(OracleFact, Vec<Value>)>,
    sequence: u64,
    /// Facts with smaller sequences are no longer kept.
    kept_from: u64,
}

impl Run {
    fn new((input, features): (DataType, Vec<Feature>)) -> Self {
        let layout = Layout {
            inputs: inputs(&input),
            slots: features.iter().map(Feature::slot).collect(),
            lifetime: true,
            rows_max: 5,
        };
        Self {
            state: EntityState::new(&layout),
            layout,
            features,
            facts: Vec::new(),
            sequence: 0,
            kept_from: 0,
        }
    }

    fn counting(function: Aggregate) -> Self {
        let feature = Feature {
            function,
            input: None,
            filtered: false,
            spread: Spread::Whole,
            grouped: false,
            largest: None,
        };
        Self::new((DataType::Float64, vec![feature]))
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Fact(fact) => self.insert(fact),
            Step::Retract(at) => drop(self.retract(*at)),
            Step::Revise(at, fact) => {
                if self.retract(*at) {
                    self.sequence -= 1;
                    self.insert(fact);
                }
            }
            Step::Drop(most) => self.drop_oldest(*most),
            Step::Fold(floor) => self.state.fold(&self.layout, *floor),
            Step::Store => {
                let mut bytes = Vec::new();
                self.state.encode(&mut bytes);
                self.state = EntityState::decode(&self.layout, &bytes).expect("own bytes");
            }
        }
        self.read_all();
    }

    /// Lets the state make what it keeps for wide windows, so that the next step must mend it.
    fn read_all(&self) {
        let slots: Vec<usize> = (0..self.layout.slots.len()).collect();
        for from in [
            Position::MIN,
            self.state
                .blocks()
                .next()
                .and_then(Block::first)
                .unwrap_or(Position::MIN),
        ] {
            let empty = self.layout.slots.iter().map(Partial::empty);
            let mut partials: Vec<Partial> = empty.collect();
            let range = WindowRange::between(from, Position::MAX);
            let _ = self
                .state
                .query(&self.layout, &range, Sequence::MAX, &slots, &mut partials);
        }
    }

    /// Whether there was such a fact.
    fn retract(&mut self, at: usize) -> bool {
        let kept = |f: &OracleFact| f.position.sequence >= self.kept_from;
        let live = self.facts.iter().enumerate();
        let mut live = live.filter(|(_, (f, _))| f.removed_at.is_none() && kept(f));
        let Some((index, (fact, _))) = live.nth(at) else {
            return false;
        };
        let removed_at = self.sequence + 1;
        let retracted = self.state.retract(&self.layout, fact.position, removed_at);
        self.facts[index].0.removed_at = Some(removed_at);
        if retracted == Err(Aged) {
            let fact = self.batch(std::iter::once(&self.facts[index]));
            let kept = self.facts.iter().filter(|(f, _)| f.removed_at.is_none());
            let kept = kept.filter(|(f, _)| f.position.sequence >= self.kept_from);
            let kept = self.batch(kept);
            let mut left = EntityState::new(&self.layout);
            (0..kept.sequences.len()).for_each(|row| left.insert(&self.layout, &kept, row));
            let fact = (&fact, 0);
            self.state
                .retract_folded(&self.layout, fact, removed_at, &left, self.kept_from);
        }
        self.sequence = removed_at;
        true
    }

    /// Lets the oldest facts go that have been folded away.
    fn drop_oldest(&mut self, most: usize) {
        let gone = self.facts.iter().map(|(fact, _)| fact);
        let gone = gone.take_while(|f| f.removed_at.is_some() || !self.state.holds(f.position));
        if let Some(newest) = gone.take(most).last() {
            self.kept_from = self.kept_from.max(newest.position.sequence + 1);
        }
    }

    fn insert(&mut self, fact: &Fact) {
        self.sequence += 1;
        let input = &self.layout.inputs[VALUE];
        let items: Option<Vec<Value>> = fact
            .items
            .as_ref()
            .map(|items| items.iter().map(|i| value_of(input, *i)).collect());
        let entries = items.as_ref().map(|items| {
            let keyed = items.iter().zip(["a", "b", "c", "d"]);
            keyed
                .map(|(v, key)| (Value::string(key), v.clone()))
                .collect()
        });
        let values = vec![
            value_of(input, fact.value),
            fact.counts.map_or(Value::Null, Value::Bool),
            fact.order.map_or(Value::Null, Value::Int),
            fact.category
                .map_or(Value::Null, |c| Value::string(format!("c{c}"))),
            items.map_or(Value::Null, |items| Value::List(items.into())),
            entries.map_or(Value::Null, Value::Map),
        ];
        let columns = self.layout.inputs.iter().zip(&values);
        let columns = columns.map(|(input, value)| {
            let array: ArrayRef = array_from_values(input, std::iter::once(value)).expect("fits");
            InputColumn::new(&array)
        });
        let batch = InputBatch {
            event_times: vec![fact.time],
            sequences: vec![self.sequence],
            columns: columns.collect(),
        };
        self.state.insert(&self.layout, &batch, 0);
        let values: Vec<Value> = values.iter().map(clean).collect();
        let fact = OracleFact {
            position: Position::new(fact.time, self.sequence),
            removed_at: None,
            value: Value::Null,
            counts: true,
            order: values[ORDER].clone(),
            category: values[CATEGORY].clone(),
        };
        self.facts.push((fact, values));
    }

    /// The facts as one feature sees them; `among`: only those that count.
    fn facts_of(&self, feature: &Feature, among: bool) -> Vec<OracleFact> {
        let fact = |(fact, values): &(OracleFact, Vec<Value>)| OracleFact {
            value: feature.input.map_or(Value::Null, |i| values[i].clone()),
            counts: !feature.filtered || values[COUNTS] == Value::Bool(true),
            ..fact.clone()
        };
        let known = self.facts.iter();
        let known = known.filter(|(_, values)| !among || values[COUNTS] == Value::Bool(true));
        known.map(fact).collect()
    }

    /// Holds every feature to the oracle. `among`: windows are formed of the facts alone that count.
    fn check(&self, window: &Window, cursor: &Cursor, among: bool) {
        let range = WindowRange {
            among: among.then_some(COUNTS),
            ..window.range(cursor)
        };
        if let Some(reach) = window.reach() {
            assert!(range.from >= Position::before(cursor.as_of - reach));
        }
        let query = |slots: &[usize]| {
            let empty = slots.iter().map(|s| Partial::empty(&self.layout.slots[*s]));
            let mut partials: Vec<Partial> = empty.collect();
            let known_at = cursor.known_at;
            let answer = self
                .state
                .query(&self.layout, &range, known_at, slots, &mut partials);
            answer.map(|()| partials)
        };
        let slots: Vec<usize> = (0..self.layout.slots.len()).collect();
        if let Ok(partials) = query(&slots) {
            return self.hold(&partials, window, cursor, among, &slots);
        }
        assert!(
            self.state.base.is_some() || self.state.forgotten.removed_at > cursor.known_at,
            "only folded and forgotten facts are out of reach"
        );
        let one_by_one = |slot: usize| Some((slot, query(&[slot]).ok()?));
        for (slot, partials) in slots.into_iter().filter_map(one_by_one) {
            self.hold(&partials, window, cursor, among, &[slot]);
        }
    }

    /// Holds the partial aggregates of some slots over a window to the oracle.
    fn hold(
        &self,
        partials: &[Partial],
        window: &Window,
        cursor: &Cursor,
        among: bool,
        slots: &[usize],
    ) {
        let features = slots.iter().map(|slot| &self.features[*slot]).zip(partials);
        for (feature, partial) in features.filter(|(f, _)| f.filtered || !among) {
            if feature.function == Aggregate::Rate && window.width().is_none() {
                continue;
            }
            let reading = Reading {
                slot: &feature.slot(),
                input: feature.input.map(|i| &self.layout.inputs[i]),
                as_of: cursor.as_of - window.offset,
                width: window.width(),
                largest: feature.largest,
            };
            let got = feature.function.finalize(partial, &reading);
            let question = Question {
                function: &feature.function,
                input: feature.input.map(|i| &self.layout.inputs[i]),
                spread: feature.spread,
                grouped: feature.grouped,
                largest: feature.largest,
                categories_max: CATEGORIES_MAX,
            };
            let want = oracle::answer(&self.facts_of(feature, among), &question, window, cursor);
            assert_eq!(
                exact(&got),
                exact(&want),
                "{feature:?} among={among} {window:?} {cursor:?}"
            );
        }
    }
}

impl Run {
    /// The facts that live, in the order of their positions, as one batch.
    fn live(&self) -> InputBatch {
        let live = self.facts.iter().filter(|(f, _)| f.removed_at.is_none());
        let mut live: Vec<_> = live.collect();
        live.sort_by_key(|(fact, _)| fact.position);
        self.batch(live.into_iter())
    }

    fn batch<'a>(&self, facts: impl Iterator<Item = &'a (OracleFact, Vec<Value>)>) -> InputBatch {
        let facts: Vec<_> = facts.collect();
        let columns = self.layout.inputs.iter().enumerate();
        let columns = columns.map(|(index, input)| {
            let values = facts.iter().map(|(_, values)| &values[index]);
            InputColumn::new(&array_from_values(input, values).expect("fits"))
        });
        InputBatch {
            event_times: facts.iter().map(|(f, _)| f.position.event_time).collect(),
            sequences: facts.iter().map(|(f, _)| f.position.sequence).collect(),
            columns: columns.collect(),
        }
    }

    /// Reads a window forward at cursors, and holds each to the oracle.
    fn check_forward(&self, window: &Window, cursors: &[Cursor], among: bool) {
        let facts = self.live();
        let grows = window.kind == WindowKind::Lifetime && window.limit.is_none();
        let forward = ForwardWindow {
            slots: (0..self.layout.slots.len()).collect(),
            grows,
            among: among.then_some(COUNTS),
        };
        let mut reads = ForwardReads::new(&self.layout, &[forward]);
        // Another entity before it leaves nothing behind.
        reads.begin((0..facts.sequences.len().min(3)).map(|row| (&facts, row)));
        reads.read(0, &WindowRange::between(Position::MIN, Position::MAX));
        reads.begin((0..facts.sequences.len()).map(|row| (&facts, row)));
        let mut last: Option<Vec<Partial>> = None;
        for cursor in cursors {
            let range = WindowRange {
                among: among.then_some(COUNTS),
                ..window.range(cursor)
            };
            let (partials, changed) = reads.read(0, &range);
            let partials = partials.to_vec();
            if let (Some(last), false) = (&last, changed) {
                assert_eq!(format!("{last:?}"), format!("{partials:?}"));
            }
            let slots: Vec<usize> = (0..self.layout.slots.len()).collect();
            self.hold(&partials, window, cursor, among, &slots);
            let any = self
                .facts
                .iter()
                .any(|(f, _)| f.removed_at.is_none() && f.position < cursor.until);
            assert_eq!(reads.any_before(cursor.until), any);
            last = Some(partials);
        }
    }
}

/// Floats by their bits, wherever they are.
fn exact(outcome: &Outcome) -> String {
    fn bits(value: &Value, out: &mut String) {
        match value {
            Value::Float(f) => out.push_str(&format!(" {:016x}", f.to_bits())),
            Value::List(items) => items.iter().for_each(|v| bits(v, out)),
            Value::Map(entries) => entries.iter().for_each(|(_, v)| bits(v, out)),
            _ => {}
        }
    }
    let mut out = format!("{outcome:?}");
    bits(&outcome.value, &mut out);
    out
}

fn grids(width: i64) -> impl Strategy<Value = Grid> {
    (1..=width).prop_flat_map(|every| (0..every).prop_map(move |align| Grid { every, align }))
}

fn windows() -> impl Strategy<Value = Window> {
    let on_grid = || (1i64..40).prop_flat_map(|width| grids(width).prop_map(move |g| (width, g)));
    let kind = prop_oneof![
        3 => (1i64..40).prop_map(|width| WindowKind::Exact { width }),
        1 => (1i64..40).prop_map(|width| WindowKind::Range { width }),
        2 => on_grid().prop_map(|(width, grid)| WindowKind::Sawtooth { width, grid }),
        3 => (on_grid(), any::<bool>()).prop_map(|((width, grid), partial)| {
            WindowKind::Hopping { width, grid, partial }
        }),
        1 => (1i64..20, any::<bool>()).prop_map(|(width, partial)| {
            WindowKind::Hopping { width, grid: Grid::new(width), partial }
        }),
        2 => (0i64..12).prop_map(|gap| WindowKind::Session { gap }),
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
        -35i64..40,
        prop_oneof![
            2 => Just(None),
            2 => Just(Some(0)),
            1 => (1u64..90).prop_map(Some),
        ],
        proptest::option::weighted(0.4, 0u64..90),
    )
        .prop_map(|(as_of, hidden_from, known_at)| {
            let cursor = match hidden_from {
                None => Cursor::inclusive(as_of),
                Some(sequence) => Cursor::before_fact(Position::new(as_of, sequence)),
            };
            known_at.map_or(cursor, |sequence| cursor.known_at(sequence))
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 384, failure_persistence: None, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn every_window_at_every_cursor_equals_the_oracle(
        questions in questions(),
        steps in steps(),
        reads in proptest::collection::vec((windows(), cursors(), any::<bool>()), 1..12),
    ) {
        let mut run = Run::new(questions);
        for step in &steps {
            run.take(step);
        }
        for (window, cursor, among) in &reads {
            run.check(window, cursor, *among);
        }
        let facts: Vec<OracleFact> = run.facts.iter().map(|f| f.0.clone()).collect();
        for (_, cursor, _) in &reads {
            if let Ok(any) = run.state.any_before(cursor.until, cursor.known_at) {
                let lifetime = Window::new(WindowKind::Lifetime);
                prop_assert_eq!(any, !oracle::in_window(&facts, &lifetime, cursor).is_empty());
            }
        }
    }

}

proptest! {
    #![proptest_config(ProptestConfig { cases: 384, failure_persistence: None, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn windows_that_slide_equal_the_oracle(
        questions in questions(),
        steps in steps(),
        windows in proptest::collection::vec((windows(), any::<bool>()), 1..5),
        cursors in proptest::collection::vec(cursors(), 1..40),
        jumps in any::<bool>(),
    ) {
        let mut run = Run::new(questions);
        for step in steps.iter().filter(|s| !matches!(s, Step::Fold(_) | Step::Store | Step::Drop(_))) {
            run.take(step);
        }
        let mut cursors: Vec<Cursor> = cursors.iter().map(|c| c.known_at(Sequence::MAX)).collect();
        if !jumps {
            cursors.sort_by_key(|c| (c.as_of, c.until));
        }
        for (window, among) in &windows {
            run.check_forward(window, &cursors, *among);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_bytes_are_an_error_and_never_a_panic(
        questions in questions(),
        steps in steps(),
        flips in proptest::collection::vec((any::<Index>(), any::<u8>()), 1..4),
    ) {
        let mut run = Run::new(questions);
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
    let mut run = Run::counting(Aggregate::Count);
    for time in 0..20 {
        run.insert(&Fact {
            time,
            value: Some(1),
            counts: Some(true),
            order: None,
            category: None,
            items: None,
        });
    }
    run.state.fold(&run.layout, 9);
    let read = |window: &Window, cursor: &Cursor| {
        let mut partials = vec![Partial::empty(&run.layout.slots[0])];
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

/// Counts, sums and what else can be subtracted go on being told; a choice is until the fact that it fell on is taken back.
#[test]
fn what_was_folded_with_facts_that_are_gone_loses_no_more_than_it_must() {
    let feature = |function: Aggregate, grouped| Feature {
        input: function.needs_input().then_some(VALUE),
        function,
        filtered: false,
        spread: Spread::Whole,
        grouped,
        largest: None,
    };
    let keep_nulls = false;
    let histogram = Aggregate::Histogram {
        n: None,
        categories_max: 100,
    };
    let told = vec![
        feature(Aggregate::Count, false),
        feature(Aggregate::Count, true),
        feature(Aggregate::Sum, false),
        feature(Aggregate::Variance { sample: true }, true),
        feature(histogram, false),
        feature(Aggregate::DecayedSum { half_life: 7 }, false),
        feature(Aggregate::Last { keep_nulls }, false),
        feature(Aggregate::LastN { n: 3, keep_nulls }, true),
        feature(Aggregate::First { keep_nulls }, false),
        feature(Aggregate::Max, false),
        feature(Aggregate::Min, false),
    ];
    let least = told.len() - 1;
    let mut run = Run::new((DataType::Int64, told));
    for time in 0..60 {
        run.insert(&Fact {
            time,
            value: Some([5, 9, 3, 8, 1, 7][time as usize % 6] + if time < 30 { 10 } else { 0 }),
            counts: Some(true),
            order: None,
            category: Some((time % 2) as u8),
            items: None,
        });
    }
    run.state.fold(&run.layout, 45);
    run.drop_oldest(20);
    assert_eq!(run.kept_from, 21);
    let (lifetime, cursor) = (Window::new(WindowKind::Lifetime), Cursor::inclusive(99));
    let told = |run: &Run| -> Vec<usize> {
        let range = lifetime.range(&cursor);
        let slots = 0..run.layout.slots.len();
        let tells = |slot: &usize| {
            let mut partials = [Partial::empty(&run.layout.slots[*slot])];
            let known_at = cursor.known_at;
            let state = &run.state;
            let answer = state.query(&run.layout, &range, known_at, &[*slot], &mut partials);
            answer.is_ok()
        };
        slots.filter(tells).collect()
    };
    // Of those that are kept: values 3, 8, 7 (twice), 5 and 9, none of them the least or the first.
    for nth in [0, 0, 1, 4, 6] {
        assert!(run.retract(nth));
        run.check(&lifetime, &cursor, false);
        let mut bytes = Vec::new();
        run.state.encode(&mut bytes);
        run.state = EntityState::decode(&run.layout, &bytes).expect("own bytes");
        assert_eq!(told(&run).len(), run.layout.slots.len());
    }
    let value = |f: &(OracleFact, Vec<Value>)| (f.1[VALUE].clone(), f.0.position.event_time < 45);
    let ones = |run: &Run| {
        let kept = |f: &&(OracleFact, Vec<Value>)| {
            f.0.removed_at.is_none() && f.0.position.sequence >= run.kept_from
        };
        let mut live = run.facts.iter().filter(kept);
        live.position(|f| value(f) == (Value::Int(1), true))
    };
    // With the last of the least values that was folded it can't be told what the least of those that are gone is.
    while let Some(at) = ones(&run) {
        assert_eq!(told(&run).len(), run.layout.slots.len());
        assert!(run.retract(at));
        run.check(&lifetime, &cursor, false);
    }
    let still: Vec<usize> = (0..least).collect();
    assert_eq!(told(&run), still);
}
