//! Bundles and their journals: whatever opens also answers. Each input is tried as it is, and with the checksums that its
//! sections or records should have, so that what is behind them is reached.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

use headwater_edge::{Bundle, Edge, Head};
use headwater_env::Env;
use headwater_facts::KeptFacts;
use headwater_features::{Documents, EntityRequest, KeyValue, StoredState};
use headwater_models::repository::{
    InputRecord, ModelFile, OutputRecord, TrainedOn, VersionRecord,
};
use headwater_schema::yaml::YamlDocument;
use headwater_schema::{EntityKey, Value};

use super::stored::states;
use super::{Target, documents};

const MODEL: &str = "\
apiVersion: headwater/v1
kind: Model
name: score
spec: {feature_set: all, inputs: {amount: habits.mean_7d}, on_changed_features: warn}
";
const FILE: &str = r#"{"format":"headwater-linear/1","link":"logit","inputs":["amount"],"coefficients":[2.0],"intercepts":[0.5]}"#;
/// Bytes before the first section, and of a section before its payload.
const START: usize = 9;
const HEADER: usize = 10;

/// A bundle of everything that a bundle can hold.
pub fn sample() -> Bundle {
    let text = format!(
        "{}---\n{}---\n{MODEL}",
        documents::CONTRACT,
        documents::DEFINITIONS
    );
    let parsed = YamlDocument::parse_all("fuzz.yaml", &text).expect("YAML");
    let view = documents::CATALOG.view("habits").expect("the view");
    let facts = documents::batch();
    let count = facts.len() as u64;
    let file = ModelFile::new(FILE.as_bytes().to_vec()).expect("a file");
    let ada = EntityKey::from_values(&[Value::string("ada")]).expect("a key");
    let states = states().into_iter().enumerate();
    Bundle {
        head: Head {
            model: "score".into(),
            version: "1".into(),
            alias: Some("live".into()),
            feature_set: "all".into(),
            sequence: 10_000,
            first_sequence: 1,
            made_at: 1,
            made_by: "headwater".into(),
            missing_to: BTreeMap::from([("every".to_owned(), -1_000_000_000)]),
            folded_to: BTreeMap::from([("every".to_owned(), -1_000_000_000)]),
        },
        definitions: Documents::from_yaml(&parsed),
        record: VersionRecord {
            version: "1".into(),
            sha256: file.sha256,
            bytes: file.bytes.len() as u64,
            model_format: "linear".into(),
            added_at: 1,
            owner: None,
            description: None,
            inputs: vec![InputRecord {
                name: "amount".into(),
                kind: "numeric".into(),
                source: "habits.mean_7d".into(),
                meaning: "none".into(),
            }],
            outputs: vec![OutputRecord {
                name: "probability".into(),
                width: 1,
            }],
            trained_on: TrainedOn::default(),
            metrics: BTreeMap::new(),
        },
        model_file: file.bytes,
        entities: vec![("person".into(), ada.as_bytes().to_vec())],
        facts: vec![KeptFacts {
            sequences: (0..count).map(|n| 1 + n * 7).collect(),
            ingest_times: vec![0; facts.len()],
            facts,
        }],
        states: states
            .map(|(number, state)| {
                let name = ["ada", "bob", "eve", "nobody"][number % 4];
                let key = EntityKey::from_values(&[Value::string(name)]).expect("a key");
                StoredState {
                    view: view.state_id.clone(),
                    key: key.as_bytes().to_vec(),
                    state,
                }
            })
            .collect(),
    }
}

pub const BUNDLE: Target = Target {
    name: "bundle",
    seeds: || vec![sample().to_bytes().expect("a bundle")],
    words: &[
        "HWBUNDLE\u{1}",
        "\u{0}\u{0}\u{4}\u{0}\u{0}\u{0}",
        "\"sequence\":18446744073709551615",
        "\"missing_to\":{}",
        "\"kind\":\"Entity\"",
        "null",
    ],
    run: |input| {
        let plain = open(input);
        let sealed = open(&resealed(input));
        plain || sealed
    },
};

fn open(input: &[u8]) -> bool {
    let (env, _, _) = Env::simulated(1);
    let Ok(edge) = Edge::open_with(env, input, None) else {
        return false;
    };
    for who in ["ada", "bob", "nobody"] {
        let person = KeyValue::Scalar(Value::string(who));
        let rows = [EntityRequest::from([("person".to_owned(), person)])];
        for as_of in [0, 1_769_855_000_000_000] {
            // What it can't tell it says.
            let _told = edge.features(&rows, &[], Some(as_of));
            let _told = edge.predict(&rows, &[], Some(as_of));
        }
    }
    let rows = format!("[{}]", documents::ROWS.join(","));
    for revise in [false, true] {
        let _told = edge.add_facts("every", rows.as_bytes(), revise);
    }
    let _told = edge.retract("every", vec!["a1".into(), "a4".into()]);
    edge.about_json();
    true
}

/// The bytes with the checksums that their sections should have, as far as there are sections.
fn resealed(input: &[u8]) -> Vec<u8> {
    let mut bytes = input.to_vec();
    let mut at = START;
    while let Some(header) = bytes.get(at..at + HEADER) {
        let length = [header[2], header[3], header[4], header[5]];
        let end = (at + HEADER).saturating_add(u32::from_le_bytes(length) as usize);
        let Some(payload) = bytes.get(at + HEADER..end) else {
            break;
        };
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&header[..6]);
        hasher.update(payload);
        let checksum = hasher.finalize().to_le_bytes();
        bytes[at + 6..at + HEADER].copy_from_slice(&checksum);
        at = end;
    }
    bytes
}

/// Bytes of a journal before its first record, and of a record before its payload.
const JOURNAL_START: usize = 21;
const RECORD: usize = 8;
const JOURNAL_PATH: &str = "/journal";

static SAMPLE: LazyLock<Vec<u8>> = LazyLock::new(|| sample().to_bytes().expect("a bundle"));

/// The sample's journal, with facts, revisions of them and what was taken back.
fn journal() -> Vec<u8> {
    let (env, _, _) = Env::simulated(1);
    let path = Path::new(JOURNAL_PATH);
    let edge = Edge::open_with(env.clone(), &SAMPLE, Some(path)).expect("opens");
    let rows = [
        r#"[{"id": "n1", "who": "ada", "amount": 2.5, "time": "2026-01-31T10:50:00Z"}]"#,
        r#"[{"id": "n1", "who": "bob", "amount": 3.5, "time": "2026-01-31T10:51:00Z"}]"#,
    ];
    for (revise, rows) in rows.iter().enumerate() {
        let added = edge.add_facts("every", rows.as_bytes(), revise > 0);
        assert_eq!(added.expect("told").accepted, 1);
    }
    edge.retract("every", vec!["n1".into()])
        .expect("taken back");
    drop(edge);
    env.files.read(path).expect("a journal")
}

pub const JOURNAL: Target = Target {
    name: "journal",
    seeds: || vec![journal()],
    words: &[
        "HWJOURNL\u{1}",
        "\u{0}\u{0}\u{0}\u{0}",
        "\u{3}",
        "[\"every\",[\"n1\"]]",
    ],
    run: |input| {
        let plain = open_journal(input);
        let sealed = open_journal(&with_checksums(input));
        plain || sealed
    },
};

/// Whether a journal opens; if so, it opens again as it was left, and the same is known.
fn open_journal(input: &[u8]) -> bool {
    let (env, _, _) = Env::simulated(1);
    let path = Path::new(JOURNAL_PATH);
    env.files.write_atomic(path, input).expect("written");
    let told = || {
        let edge = Edge::open_with(env.clone(), &SAMPLE, Some(path)).ok()?;
        let rows = ["ada", "bob"].map(|who| {
            let person = KeyValue::Scalar(Value::string(who));
            EntityRequest::from([("person".to_owned(), person)])
        });
        let read = edge.features(&rows, &[], Some(1_769_856_000_000_000));
        Some(format!("{:?}", read.map(|read| read.rows)))
    };
    let Some(first) = told() else {
        return false;
    };
    assert_eq!(told(), Some(first), "opened again it says otherwise");
    true
}

/// The journal with the checksums that its records should have, as far as there are records.
fn with_checksums(input: &[u8]) -> Vec<u8> {
    let mut bytes = input.to_vec();
    let mut at = JOURNAL_START;
    while let Some(length) = bytes.get(at..at + 4) {
        let length = [length[0], length[1], length[2], length[3]];
        let end = (at + RECORD).saturating_add(u32::from_le_bytes(length) as usize);
        let Some(payload) = bytes.get(at + RECORD..end) else {
            break;
        };
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&length);
        hasher.update(payload);
        let checksum = hasher.finalize().to_le_bytes();
        bytes[at + 4..at + RECORD].copy_from_slice(&checksum);
        at = end;
    }
    bytes
}
