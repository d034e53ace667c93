//! Random windows over one entity, in the shape of Chronon's aggregator test: 10,000 facts and 100,000
//! cursors over 30 days, windows of an hour, a day, 30 days and all time, exact, on one core.
//!
//! Chronon hands all its queries over at once, sorts them and answers them in one sweep; so does a training set, and so is it measured
//! first. A state that is read at one cursor after another, in no order, is what a live read is.
//!
//! Chronon's own figures for that shape (`TwoStackLiteAggregatorTest`, another machine, averages and
//! the 300 largest values): sawtooth 914 ms, exact two-stack 1,597 ms, naive 256,011 ms.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use headwater_aggregate::{
    Aggregate, EntityState, InputBatch, InputColumn, Layout, Partial, Reading, Slot, Window,
    WindowKind,
};
use headwater_features::{Catalog, PlacedFact, ReadPlan, Said};
use headwater_schema::yaml::YamlDocument;
use headwater_schema::{Cursor, DataType, Problem, Value};

use crate::failed;
use crate::machine::{median_seconds, on_core};

const FACTS: usize = 10_000;
const CURSORS: usize = 100_000;
const LARGEST: usize = 300;
const HOUR: i64 = 3_600_000_000;
const MONTH: i64 = 30 * 24 * HOUR;

/// Prints how long all cursors take.
pub fn measure() -> Result<(), Problem> {
    let windows = [Some(HOUR), Some(24 * HOUR), Some(MONTH), None].map(|width| {
        Window::new(width.map_or(WindowKind::Lifetime, |width| WindowKind::Exact { width }))
    });
    let averages = [Aggregate::Avg];
    let both = [Aggregate::Avg, Aggregate::TopN { n: LARGEST }];
    for (functions, runs, what) in [
        (averages.as_slice(), 5, "averages"),
        (both.as_slice(), 1, "averages and the 300 largest values"),
    ] {
        let seconds = on_core(0, || median_seconds(runs, || read_all(functions, &windows)))?;
        let swept = on_core(0, || {
            let plan = plan(functions.len() > 1)?;
            median_seconds(5, || sweep_all(&plan))
        })?;
        println!(
            "{CURSORS} cursors in one sweep over {FACTS} facts of one entity, {what} over exact 1 h, 1 d, 30 d and lifetime, one core: {:.0} ms (median of 5)",
            swept * 1e3
        );
        println!(
            "{CURSORS} cursors in no order over {FACTS} facts of one entity, {what} over exact 1 h, 1 d, 30 d and lifetime, one core: {:.0} ms (median of {runs})",
            seconds * 1e3
        );
    }
    Ok(())
}

/// A spread of numbers that is the same every time.
fn mixed(seed: u64) -> u64 {
    let mut x = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

fn read_all(functions: &[Aggregate], windows: &[Window]) -> Result<(), Problem> {
    let layout = Layout {
        inputs: vec![DataType::Int64],
        slots: functions
            .iter()
            .map(|function| Slot {
                input: Some(0),
                ..Slot::new(function.slot_kind())
            })
            .collect(),
        lifetime: true,
        rows_max: 0,
    };
    let state = state(&layout);
    let slots: Vec<usize> = (0..layout.slots.len()).collect();
    let mut with_value = 0usize;
    for cursor in 0..CURSORS as u64 {
        let as_of = as_of(cursor);
        let cursor = Cursor::inclusive(as_of);
        for window in windows {
            let mut partials: Vec<Partial> = layout.slots.iter().map(Partial::empty).collect();
            state
                .query(
                    &layout,
                    &window.range(&cursor),
                    cursor.known_at,
                    &slots,
                    &mut partials,
                )
                .map_err(|_| failed("the state has folded facts"))?;
            let slots = layout.slots.iter().zip(&partials);
            for (function, (slot, partial)) in functions.iter().zip(slots) {
                let reading = Reading {
                    slot,
                    input: Some(&DataType::Int64),
                    as_of,
                    width: None,
                    largest: None,
                };
                let outcome = function.finalize(partial, &reading);
                with_value += usize::from(outcome.value != Value::Null);
            }
        }
    }
    if with_value == 0 {
        return Err(failed("no window had a value"));
    }
    Ok(())
}

/// The same windows as features of a view.
fn plan(largest: bool) -> Result<ReadPlan, Problem> {
    let windows = "windows: [1h, 1d, 30d, lifetime]";
    let top = match largest {
        true => {
            format!("    - {{name: top, aggregate: top_n, n: {LARGEST}, of: value, {windows}}}\n")
        }
        false => String::new(),
    };
    let project = format!(
        "kind: DataContract
apiVersion: v3.1.0
id: bench
version: 1.0.0
status: active
schema:
  - name: event
    properties:
      - {{name: key, logicalType: string, required: true}}
      - {{name: value, logicalType: integer}}
      - {{name: time, logicalType: timestamp, required: true}}
    customProperties:
      - {{property: headwater.eventTime, value: time}}
---
apiVersion: headwater/v1
kind: Entity
name: entity
spec: {{keys: [{{name: key, type: string}}]}}
---
apiVersion: headwater/v1
kind: FeatureView
name: events
spec:
  entity: entity
  sources: [{{contract: event}}]
  features:
    - {{name: mean, aggregate: avg, of: value, {windows}}}
{top}"
    );
    let first = |problems: Vec<Problem>| {
        let first = problems.into_iter().next();
        first.unwrap_or_else(|| failed("refused"))
    };
    let documents = YamlDocument::parse_all("bench.yaml", &project)?;
    let catalog = Catalog::compile(&documents).map_err(first)?;
    let view = catalog.known_view("events")?.clone();
    let features = (0..view.features.len()).collect();
    Ok(ReadPlan::new(view, features))
}

/// Sorts all cursors, goes through them once, and keeps every value at its cursor's place.
fn sweep_all(plan: &ReadPlan) -> Result<(), Problem> {
    let mut cursors: Vec<(i64, u32)> = (0..CURSORS as u32).map(|n| (as_of(n.into()), n)).collect();
    cursors.sort_unstable();
    let facts = [facts()];
    let width = plan.view().features.len();
    let mut values = vec![Value::Null; CURSORS * width];
    let mut reads = plan.forward(&facts);
    reads.begin((0..FACTS).map(|row| PlacedFact {
        position: facts[0].position(row),
        batch: 0,
        row: row as u32,
    }));
    for (as_of, place) in cursors {
        reads.read(&Cursor::inclusive(as_of), |said| {
            // No feature here is a latest value.
            if let Said::Value(feature, value, _) = said {
                values[place as usize * width + feature] = value.clone();
            }
        });
    }
    match values.iter().any(|value| !value.is_null()) {
        true => Ok(()),
        false => Err(failed("no window had a value")),
    }
}

fn as_of(cursor: u64) -> i64 {
    (mixed(cursor ^ 0xC0FFEE) % MONTH as u64) as i64
}

fn state(layout: &Layout) -> EntityState {
    let batch = facts();
    let mut state = EntityState::new(layout);
    for row in 0..FACTS {
        state.insert(layout, &batch, row);
    }
    state
}

fn facts() -> InputBatch {
    let mut times: Vec<i64> = (0..FACTS as u64)
        .map(|i| (mixed(i) % MONTH as u64) as i64)
        .collect();
    times.sort_unstable();
    let values: ArrayRef = Arc::new(
        (0..FACTS as u64)
            .map(|i| Some((mixed(i ^ 0xFACADE) % 1000) as i64))
            .collect::<Int64Array>(),
    );
    InputBatch {
        event_times: times,
        sequences: (1..=FACTS as u64).collect(),
        columns: vec![InputColumn::new(&values)],
    }
}
