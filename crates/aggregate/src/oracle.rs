//! The naive oracle: every aggregate over a plain list of facts, one fact at a time, with rational
//! arithmetic. Slow and obviously right; tests hold the engine to it bit for bit.

use std::collections::BTreeMap;

use headwater_schema::{Cursor, DataType, Position, Sequence, Value, value_to_text};

use self::functions::{Row, aggregate};
use crate::{Aggregate, Grid, Outcome, PLACES_MAX, Spread, Status, Window, WindowKind};

mod functions;
mod numbers;

/// One fact of one entity, as the oracle sees it.
#[derive(Debug, Clone)]
pub struct OracleFact {
    pub position: Position,
    /// The sequence from which it is retracted.
    pub removed_at: Option<Sequence>,
    /// The input's value.
    pub value: Value,
    /// Whether the feature's `where` holds.
    pub counts: bool,
    /// The value of the feature's `order_by`, where it has one.
    pub order: Value,
    /// The value of the feature's `by`, where it has one.
    pub category: Value,
}

/// What a feature asks of the facts in its window.
#[derive(Debug, Clone)]
pub struct Question<'a> {
    pub function: &'a Aggregate,
    /// The type of `of`; none where the feature has none.
    pub input: Option<&'a DataType>,
    pub spread: Spread,
    /// Whether there is a `by`.
    pub grouped: bool,
    /// The `n` of a `by`.
    pub largest: Option<usize>,
    pub categories_max: usize,
}

impl<'a> Question<'a> {
    /// A function of whole values, not grouped.
    pub fn plain(function: &'a Aggregate, input: Option<&'a DataType>) -> Self {
        Self {
            function,
            input,
            spread: Spread::Whole,
            grouped: false,
            largest: None,
            categories_max: usize::MAX,
        }
    }
}

/// The facts in a window at a cursor, in the total order.
pub fn in_window<'a>(
    facts: &'a [OracleFact],
    window: &Window,
    cursor: &Cursor,
) -> Vec<&'a OracleFact> {
    let as_of = cursor.as_of - window.offset;
    let until = Position::new(
        cursor.until.event_time - window.offset,
        cursor.until.sequence,
    );
    let mut seen: Vec<&OracleFact> = facts
        .iter()
        .filter(|f| f.position < until && f.position.sequence <= cursor.known_at)
        .filter(|f| f.removed_at.is_none_or(|at| cursor.known_at < at))
        .filter(|f| within(window.kind, as_of, f.position.event_time))
        .collect();
    seen.sort_by_key(|f| f.position);
    if let WindowKind::Session { gap } = window.kind {
        let time = |i: usize| seen[i].position.event_time;
        let begins = (1..seen.len())
            .filter(|i| time(*i) - time(i - 1) > gap)
            .max();
        seen.drain(..begins.unwrap_or(0));
    }
    for newest in [window.limit, rows_of(window)].into_iter().flatten() {
        let surplus = seen.len().saturating_sub(newest);
        seen.drain(..surplus);
    }
    seen
}

/// Whether a window at `t` covers an event time, as the modes are written.
fn within(kind: WindowKind, t: i64, time: i64) -> bool {
    let floor = |t: i64, grid: Grid| t - (t - grid.align).rem_euclid(grid.every);
    match kind {
        WindowKind::Exact { width } => t - width < time && time <= t,
        WindowKind::Range { width } => t - width <= time && time <= t,
        WindowKind::Sawtooth { width, grid } => floor(t - width, grid) <= time && time < t,
        WindowKind::Hopping {
            width,
            grid,
            partial,
        } => {
            let start = floor(if partial { t } else { t - width }, grid);
            start <= time && time < start + width
        }
        WindowKind::Session { .. } | WindowKind::Rows { .. } | WindowKind::Lifetime => true,
    }
}

fn rows_of(window: &Window) -> Option<usize> {
    match window.kind {
        WindowKind::Rows { rows } => Some(rows),
        _ => None,
    }
}

/// The function's value over a window at a cursor. `with_input` is whether the feature has an `of`.
pub fn evaluate(
    facts: &[OracleFact],
    function: &Aggregate,
    with_input: bool,
    input: &DataType,
    window: &Window,
    cursor: &Cursor,
) -> Outcome {
    let question = Question::plain(function, with_input.then_some(input));
    answer(facts, &question, window, cursor)
}

/// The answer to a question over a window at a cursor.
pub fn answer(
    facts: &[OracleFact],
    question: &Question<'_>,
    window: &Window,
    cursor: &Cursor,
) -> Outcome {
    let counted: Vec<&OracleFact> = in_window(facts, window, cursor)
        .into_iter()
        .filter(|f| f.counts && !(question.function.needs_order() && f.order.is_null()))
        .filter(|f| !(question.grouped && f.category.is_null()))
        .collect();
    let at = Moment {
        as_of: cursor.as_of - window.offset,
        width: window.width(),
    };
    let rows = |facts: &[&OracleFact]| -> Vec<Row> {
        let row = |f: &&OracleFact| Row {
            position: f.position,
            value: f.value.clone(),
            order: f.order.clone(),
        };
        facts.iter().map(row).collect()
    };
    if !question.grouped {
        return spread(question, &rows(&counted), &at).outcome;
    }
    let mut categories: BTreeMap<&Value, Vec<&OracleFact>> = BTreeMap::new();
    for fact in &counted {
        categories.entry(&fact.category).or_default().push(fact);
    }
    let results = categories.into_iter().map(|(category, facts)| {
        let answer = spread(question, &rows(&facts), &at);
        (category.clone(), answer)
    });
    by_category(results.collect(), question.categories_max, question.largest)
}

/// The moment of a read.
pub struct Moment {
    pub as_of: i64,
    pub width: Option<i64>,
}

/// An outcome, and the time of the newest fact that gave a value.
pub struct Answer {
    pub outcome: Outcome,
    pub newest: Option<i64>,
}

fn spread(question: &Question<'_>, rows: &[Row], at: &Moment) -> Answer {
    let function = question.function;
    let with = |row: &Row, value: &Value| Row {
        value: value.clone(),
        ..row.clone()
    };
    match question.spread {
        Spread::Whole => aggregate(function, rows, question.input, at),
        Spread::Elements => {
            let mut elements = Vec::new();
            for row in rows {
                if let Value::List(items) = &row.value {
                    elements.extend(items.iter().map(|item| with(row, item)));
                }
            }
            aggregate(function, &elements, item_type(question.input), at)
        }
        Spread::Entries => {
            let mut keys: BTreeMap<Value, Vec<Row>> = BTreeMap::new();
            for row in rows {
                if let Value::Map(entries) = &row.value {
                    for (key, value) in entries.iter() {
                        keys.entry(key.clone()).or_default().push(with(row, value));
                    }
                }
            }
            let keys = keys.into_iter();
            let results = keys.map(|(key, rows)| {
                let answer = aggregate(function, &rows, item_type(question.input), at);
                (key, answer)
            });
            // The largest of a map's keys are chosen where nothing else groups.
            let largest = question.largest.filter(|_| !question.grouped);
            let outcome = by_category(results.collect(), question.categories_max, largest);
            Answer {
                newest: outcome.event_time,
                outcome,
            }
        }
        Spread::Positions => by_place(question, rows, at),
    }
}

fn item_type(input: Option<&DataType>) -> Option<&DataType> {
    match input {
        Some(DataType::List(item) | DataType::Map(item)) => Some(item),
        other => other,
    }
}

fn by_category(
    results: Vec<(Value, Answer)>,
    categories_max: usize,
    largest: Option<usize>,
) -> Outcome {
    let mut there: Vec<(Value, Answer)> = results
        .into_iter()
        .filter(|(_, answer)| answer.newest.is_some())
        .collect();
    let time = there.iter().filter_map(|(_, answer)| answer.newest).max();
    if there.len() > categories_max {
        return failed(Status::Overflow, time);
    }
    if let Some(n) = largest {
        there.sort_by(|a, b| (&b.1.outcome.value, &a.0).cmp(&(&a.1.outcome.value, &b.0)));
        there.truncate(n);
    }
    let mut named: Vec<(Value, Value)> = there
        .into_iter()
        .map(|(key, answer)| (Value::string(value_to_text(&key)), answer.outcome.value))
        .collect();
    named.sort();
    Outcome::present(Value::Map(named.into()), time)
}

fn by_place(question: &Question<'_>, rows: &[Row], at: &Moment) -> Answer {
    let lists: Vec<(&Row, &[Value])> = rows
        .iter()
        .filter_map(|row| match &row.value {
            Value::List(items) => Some((row, items.as_ref())),
            _ => None,
        })
        .collect();
    let newest = lists.iter().map(|(row, _)| row.position.event_time).max();
    let places = lists.first().map_or(0, |(_, items)| items.len());
    if lists.iter().any(|(_, items)| items.len() > PLACES_MAX) {
        let outcome = failed(Status::Overflow, newest);
        return Answer { outcome, newest };
    }
    if lists.iter().any(|(_, items)| items.len() != places) {
        let outcome = failed(Status::Undefined, newest);
        return Answer { outcome, newest };
    }
    let place = |place: usize| {
        let rows: Vec<Row> = lists
            .iter()
            .map(|(row, items)| Row {
                value: items[place].clone(),
                ..(*row).clone()
            })
            .collect();
        let answer = aggregate(question.function, &rows, item_type(question.input), at);
        answer.outcome.value
    };
    let values = (0..places).map(place).collect();
    Answer {
        outcome: Outcome::present(Value::List(values), newest),
        newest,
    }
}

fn failed(status: Status, event_time: Option<i64>) -> Outcome {
    Outcome {
        value: Value::Null,
        status,
        event_time,
    }
}
