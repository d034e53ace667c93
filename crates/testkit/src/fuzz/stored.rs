//! Targets that read what was stored: the registry, batches, values, keys, states, the log.

use std::sync::{Arc, LazyLock};

use headwater_aggregate::{EntityState, InputBatch};
use headwater_facts::fuzz::{
    read_archive_entry, read_archive_identity, read_archive_rest, read_dropped, read_frame,
    read_index, read_log, sample_archive, sample_archive_identity, sample_index, sample_log,
};
use headwater_features::{CompiledView, Documents, ReadPlan, Registry, prepare};
use headwater_schema::codec::{decode_batch, decode_value, encode_batch, encode_value};
use headwater_schema::yaml::YamlDocument;
use headwater_schema::{Cursor, EntityKey, FactBatch, SequencedBatch, Value};

use super::{Target, documents};

/// What was read can be written, and reads the same again.
pub fn round_trip(batch: &FactBatch) {
    let bytes = encode_batch(batch);
    let again = decode_batch(&bytes).expect("what was written can be read");
    assert_eq!(again.columns, batch.columns);
    assert_eq!(again.event_times, batch.event_times);
    assert_eq!(again.fact_ids, batch.fact_ids);
    assert_eq!(encode_batch(&again), bytes);
}

pub const REGISTRY: Target = Target {
    name: "registry",
    seeds: || {
        let [some, all] = documents::texts().map(|text| {
            let documents = YamlDocument::parse_all("fuzz.yaml", &text).expect("YAML");
            Documents::from_yaml(&documents)
        });
        let first = serde_json::json!({"format": 1, "documents": some});
        let second = |documents| Registry::default().next(documents, Some(1));
        vec![
            first.to_string().into_bytes(),
            second(some).to_bytes().expect("JSON"),
            second(all).to_bytes().expect("JSON"),
        ]
    },
    words: &[
        "{",
        "}",
        "[",
        "]",
        "\"format\": 1",
        "null",
        "1e999",
        "\"",
        "\\u0000",
        "\"kind\": \"Entity\"",
        "[[[[[[[[",
    ],
    run: |input| Registry::from_bytes(input).is_ok_and(|registry| registry.compile().is_ok()),
};

pub const BATCH: Target = Target {
    name: "batch",
    seeds: || {
        let stored = include_bytes!("../../../schema/assets/batch-v1.bin").to_vec();
        vec![encode_batch(&documents::batch()), stored]
    },
    words: &["every", "\u{1}\u{1}", "\u{0}\u{0}\u{0}\u{0}"],
    run: |input| {
        let Ok(batch) = decode_batch(input) else {
            return false;
        };
        assert_eq!(batch.columns.num_rows(), batch.event_times.len());
        round_trip(&batch);
        true
    },
};

pub const VALUE: Target = Target {
    name: "value",
    seeds: || {
        let columns = documents::batch().columns;
        let value = |index: usize| {
            let mut bytes = Vec::new();
            for row in 0..columns.num_rows() {
                let column = columns.column(index);
                encode_value(&mut bytes, &Value::from_array(column.as_ref(), row));
            }
            bytes
        };
        (0..columns.num_columns()).map(value).collect()
    },
    words: &[],
    run: |input| {
        let mut rest = input;
        while !rest.is_empty() {
            let Ok(value) = decode_value(&mut rest) else {
                return false;
            };
            let mut bytes = Vec::new();
            encode_value(&mut bytes, &value);
            let again = decode_value(&mut &bytes[..]).expect("what was written can be read");
            let mut twice = Vec::new();
            encode_value(&mut twice, &again);
            assert_eq!(twice, bytes);
        }
        true
    },
};

pub const KEY: Target = Target {
    name: "key",
    seeds: || {
        let values = [
            Value::string("ada"),
            Value::string("\0\u{FF}"),
            Value::Int(i64::MIN),
            Value::Bool(true),
            Value::Date(-1),
            Value::Timestamp(0),
        ];
        let whole = EntityKey::from_values(&values).expect("a key");
        let single = values
            .iter()
            .map(|v| EntityKey::from_values(std::slice::from_ref(v)));
        let single = single.map(|key| key.expect("a key").as_bytes().to_vec());
        single.chain([whole.as_bytes().to_vec()]).collect()
    },
    words: &["\u{0}\u{0}", "\u{0}"],
    run: |input| match EntityKey::from_bytes(input).to_values() {
        None => false,
        Some(values) => {
            let key = EntityKey::from_values(&values).expect("key values make a key");
            assert_eq!(key.as_bytes(), input, "two keys for {values:?}");
            true
        }
    },
};

fn view(name: &str) -> &'static Arc<CompiledView> {
    documents::CATALOG.view(name).expect("the view")
}

/// States of the view `habits`: of its facts, of many of them (with sealed blocks), folded, and empty.
pub fn states() -> Vec<Vec<u8>> {
    let view = view("habits");
    let batch = documents::batch();
    let mut bytes = Vec::new();
    for (times, floor) in [(0, None), (1, None), (120, None), (120, Some(i64::MAX))] {
        let mut state = EntityState::new(&view.layout);
        for time in 0..times {
            let first = 1 + time * batch.len() as u64;
            let sequences: Vec<u64> = (first..first + batch.len() as u64).collect();
            let facts = prepare(&view.sources[0], &batch, &sequences).expect("prepared");
            (0..facts.len()).for_each(|row| state.insert(&view.layout, &facts.rows, row));
        }
        if let Some(floor) = floor {
            state.fold(&view.layout, floor);
        }
        bytes.push(encoded(&state));
    }
    bytes
}

fn encoded(state: &EntityState) -> Vec<u8> {
    let mut bytes = Vec::new();
    state.encode(&mut bytes);
    bytes
}

/// The facts of a view's sources, in the order of their sequences.
fn prepared(view: &CompiledView) -> Vec<InputBatch> {
    let mut next = 1;
    let sources = view.sources.iter().map(|source| {
        let batch = match source.contract.as_ref() {
            "visit" => documents::visits::batch(),
            _ => documents::batch(),
        };
        let sequences: Vec<u64> = (next..next + batch.len() as u64).collect();
        next += batch.len() as u64;
        prepare(source, &batch, &sequences).expect("prepared").rows
    });
    sources.collect()
}

/// States of a view of visits: empty, of some facts of which two were taken back, folded, and folded with a fact among
/// them that was taken back since, of which nothing else is known any more.
pub fn states_of(name: &str) -> Vec<Vec<u8>> {
    let (view, later) = (view(name), 10_000);
    let sources = prepared(view);
    let facts = sources.iter();
    let facts = facts.flat_map(|source| (0..source.sequences.len()).map(move |row| (source, row)));
    let facts: Vec<(&InputBatch, usize)> = facts.collect();
    let of = |count: usize| {
        let mut state = EntityState::new(&view.layout);
        for (source, row) in &facts[..count] {
            state.insert(&view.layout, source, *row);
        }
        state
    };
    let place = |(source, row): &(&InputBatch, usize)| source.position(*row);
    let mut corrected = of(150);
    for (at, fact) in [(later, &facts[7]), (later + 1, &facts[148])] {
        let retracted = corrected.retract(&view.layout, place(fact), at);
        retracted.expect("nothing was folded");
    }
    let mut folded = of(facts.len());
    folded.fold(&view.layout, i64::MAX);
    let mut doubtful = folded.clone();
    let oldest = facts.iter().min_by_key(|fact| place(fact));
    let nothing = EntityState::new(&view.layout);
    let oldest = *oldest.expect("facts");
    doubtful.retract_folded(&view.layout, oldest, later, &nothing, u64::MAX);
    let states = [of(0), corrected, folded, doubtful];
    states.iter().map(encoded).collect()
}

/// What is read of any bytes as a state of a view can be written and answers.
fn read_state(name: &str, input: &[u8]) -> bool {
    let view = view(name);
    let Ok(state) = EntityState::decode(&view.layout, input) else {
        return false;
    };
    let bytes = encoded(&state);
    let again = EntityState::decode(&view.layout, &bytes).expect("what was written can be read");
    assert_eq!(encoded(&again), bytes);
    let plan = ReadPlan::new(view.clone(), (0..view.features.len()).collect());
    for as_of in [i64::MIN / 2, 0, 1_769_855_000_000_000] {
        let cursor = Cursor::inclusive(as_of);
        // A state that has folded what the cursor needs says so.
        let _aged = plan.read(Some(&state), &cursor, None);
    }
    true
}

pub const STATE: Target = Target {
    name: "state",
    seeds: states,
    words: &[],
    run: |input| read_state("habits", input),
};

/// Of a view with every aggregate function.
pub const STATE_TASTES: Target = Target {
    name: "state_tastes",
    seeds: || states_of("tastes"),
    words: &[],
    run: |input| read_state("tastes", input),
};

/// Of a view with several sources.
pub const STATE_ACTIVITY: Target = Target {
    name: "state_activity",
    seeds: || states_of("activity"),
    words: &[],
    run: |input| read_state("activity", input),
};

pub const FRAME: Target = Target {
    name: "frame",
    seeds: || sample_log(&documents::batch()).bodies,
    words: &["\u{0}\u{0}\u{0}\u{1}"],
    run: |input| read_frame(input).is_ok(),
};

/// A whole log, and what is in it, batch by batch.
static LOG: LazyLock<(Vec<u8>, Vec<Vec<u8>>)> = LazyLock::new(|| {
    let sample = sample_log(&documents::batch());
    let batches = read_log(&sample.segment, None).expect("the sample is whole");
    (sample.segment, batches.iter().map(|b| stored(b)).collect())
});

fn stored(batch: &SequencedBatch) -> Vec<u8> {
    let mut bytes = batch.first_sequence.to_le_bytes().to_vec();
    bytes.extend(batch.ingest_time.to_le_bytes());
    bytes.extend(encode_batch(&batch.batch));
    bytes
}

/// A damaged log is refused, or cut off where a torn write would have ended it: what is read is
/// always how the log began.
pub const SEGMENT: Target = Target {
    name: "segment",
    seeds: || vec![LOG.0.clone()],
    words: &["HWF1", "HWFACTS\u{1}", "HWF1\u{5}\u{0}\u{0}\u{0}"],
    run: |input| {
        let Ok(batches) = read_log(input, None) else {
            return false;
        };
        assert!(batches.len() <= LOG.1.len(), "facts from nowhere");
        for (found, written) in batches.iter().zip(&LOG.1) {
            assert_eq!(stored(found), *written, "another fact than was written");
        }
        true
    },
};

/// A damaged sidecar of a whole log never changes what is read; at most the log is refused.
pub const SIDECAR: Target = Target {
    name: "sidecar",
    seeds: || vec![sample_log(&documents::batch()).sidecar],
    words: &[
        "{",
        "}",
        "\"bytes\":",
        "\"spans\":[]",
        "0",
        "18446744073709551615",
    ],
    run: |input| {
        let Ok(batches) = read_log(&LOG.0, Some(input)) else {
            return false;
        };
        let found: Vec<Vec<u8>> = batches.iter().map(|b| stored(b)).collect();
        assert_eq!(found, LOG.1);
        true
    },
};

pub const ARCHIVE_ENTRY: Target = Target {
    name: "archive_entry",
    seeds: || vec![archive().0],
    words: &[
        "{",
        "}",
        "\"next_sequence\":0",
        "18446744073709551615",
        "\"format\":1",
        "null",
    ],
    run: |input| read_archive_entry(input).is_ok(),
};

pub const ARCHIVE_REST: Target = Target {
    name: "archive_rest",
    seeds: || vec![archive().1],
    words: &["HWREST\u{1}", "\u{0}\u{0}\u{0}\u{0}", "\"l\":0"],
    run: |input| read_archive_rest(input).is_ok(),
};

/// Whose archive it is: read otherwise, another log's would be taken for one's own.
pub const ARCHIVE_IDENTITY: Target = Target {
    name: "archive_identity",
    seeds: || vec![sample_archive_identity().expect("a sample")],
    words: &[
        "{",
        "}",
        "\"format\":1",
        "\"format\":2",
        "\"id\":null",
        "\"id\":\"\"",
    ],
    run: |input| read_archive_identity(input).is_ok(),
};

fn archive() -> (Vec<u8>, Vec<u8>) {
    sample_archive(&documents::batch()).expect("a sample")
}

pub const DROPPED: Target = Target {
    name: "dropped",
    seeds: || vec![br#"{"version":1,"newest":{"every":1769855000000000,"other":-1}}"#.to_vec()],
    words: &["{", "}", "\"newest\":", "null", "\"version\":1"],
    run: |input| read_dropped(input).is_ok(),
};

/// Any bytes are entries, as far as they go.
pub const INDEX: Target = Target {
    name: "index",
    seeds: sample_index,
    words: &["\u{0}"],
    run: |input| {
        assert!(read_index(input), "what was read reads otherwise");
        true
    },
};
