//! The aggregation engine alone, in process.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use headwater_aggregate::{
    Aggregate, EntityState, InputBatch, InputColumn, Layout, Partial, Slot, Window, WindowKind,
};
use headwater_schema::{Cursor, DataType};

const FACTS: usize = 10_000;
const MINUTE: i64 = 60_000_000;

fn layout() -> Layout {
    let functions = [Aggregate::Count, Aggregate::Sum, Aggregate::Max];
    let slot = |function: &Aggregate| Slot {
        input: function.needs_input().then_some(0),
        ..Slot::new(function.slot_kind())
    };
    Layout {
        inputs: vec![DataType::Float64],
        slots: functions.iter().map(slot).collect(),
        lifetime: false,
        rows_max: 0,
    }
}

fn batch() -> InputBatch {
    let values: ArrayRef = Arc::new(
        (0..FACTS)
            .map(|i| Some((i * 7919 % 1000) as f64))
            .collect::<Float64Array>(),
    );
    InputBatch {
        event_times: (0..FACTS as i64).map(|i| i * MINUTE).collect(),
        sequences: (1..=FACTS as u64).collect(),
        columns: vec![InputColumn::new(&values)],
    }
}

fn filled(layout: &Layout, batch: &InputBatch) -> EntityState {
    let mut state = EntityState::new(layout);
    (0..FACTS).for_each(|row| state.insert(layout, batch, row));
    state
}

fn benches(criterion: &mut Criterion) {
    let (layout, batch) = (layout(), batch());
    let mut group = criterion.benchmark_group("entity state");
    group.throughput(Throughput::Elements(FACTS as u64));
    group.bench_function("insert 10,000 facts in order", |b| {
        b.iter_batched(|| (), |()| filled(&layout, &batch), BatchSize::SmallInput);
    });
    let state = filled(&layout, &batch);
    group.throughput(Throughput::Elements(1));
    for (name, minutes) in [("1h", 60), ("24h", 1440), ("5d", 7200)] {
        let window = Window::new(WindowKind::Exact {
            width: minutes * MINUTE,
        });
        let mut at = 0;
        group.bench_function(
            format!("read an exact {name} window: count, sum, max"),
            |b| {
                b.iter(|| {
                    at = (at + 7919) % FACTS as i64;
                    let cursor = Cursor::inclusive(at * MINUTE);
                    let range = window.range(&cursor);
                    let mut partials: Vec<Partial> =
                        layout.slots.iter().map(Partial::empty).collect();
                    let _ =
                        state.query(&layout, &range, cursor.known_at, &[0, 1, 2], &mut partials);
                    partials
                });
            },
        );
    }
    group.finish();
}

criterion_group!(all, benches);
criterion_main!(all);
