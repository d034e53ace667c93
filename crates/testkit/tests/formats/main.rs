//! Data of every released format is still read: whole data folders with what was in them, and the
//! bytes of each codec. `crates/testkit/fixtures/README.md` says when to add one, and how.
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test of files, that stops loudly"
)]

use std::fs;
use std::path::{Path, PathBuf};

use headwater::api::backend::IngestOptions;
use headwater::schema::decode::BodyFormat;
use headwater::{ArchiveSettings, Config, Engine, Env};
use headwater_schema::time::Duration;
use headwater_testkit::fuzz::TARGETS;
use serde_json::{Value as Json, json};

mod seen;
mod write;

/// Targets whose seeds are bytes of a codec that is stored for good.
const CODECS: [&str; 5] = ["registry", "batch", "value", "key", "frame"];
/// Targets whose seeds are states, and the views that they are of.
const STATES: [(&str, &str); 3] = [
    ("state", "habits"),
    ("state_tastes", "tastes"),
    ("state_activity", "activity"),
];
/// A file of what lies beside the facts; folders from before there was anything have none.
const KEYS: &str = "keys.json";
/// The versions of the contracts that predictions were written under; folders from before there were any have none.
const BUILT_IN: &str = "built-in.json";
/// A model of the fixture.
const MODEL: &str = "score";

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, target).unwrap();
        }
    }
}

fn config() -> Config {
    let mut config = Config::named("fixture");
    // Several segments, of which all but the last are sealed.
    config.spec.ingest.segment_bytes_max = 600;
    // What is archived leaves the log at once; nobody archives anything unasked.
    config.spec.archive = Some(ArchiveSettings {
        every: Duration(i64::MAX),
        after: Duration(0),
        ..ArchiveSettings::default()
    });
    config
}

fn open(data: &Path) -> Engine {
    Engine::open(Env::real(), &config(), data, |_, _| {}).expect("data of an earlier version opens")
}

/// Sends rows, one JSON object a line; how many of them were new, and known.
fn send(engine: &Engine, contract: &str, body: &str, revise: bool) -> (usize, usize) {
    let options = IngestOptions {
        all_or_nothing: false,
        revise,
    };
    let sent = engine.ingest(contract, BodyFormat::Ndjson, body.as_bytes(), options);
    let sent = sent.expect("taken");
    (sent.accepted, sent.duplicates)
}

fn text(json: &Json) -> String {
    serde_json::to_string_pretty(json).unwrap() + "\n"
}

/// Everything that a data folder says; `predicted` where there are predictions in it.
fn meaning(data: &Path, predicted: bool) -> Json {
    let beside = data.join(KEYS).exists();
    let index = beside.then(|| seen::index(data));
    let engine = open(data);
    let mut all = seen::facts(&engine);
    if predicted {
        all["predictions"] = seen::predictions(&engine);
    }
    if engine.catalog().set(seen::EVERYTHING).is_some() {
        all[seen::EVERYTHING] = seen::everything(&engine);
    }
    if let Some(index) = index {
        all["index"] = index;
        all["states"] = seen::states(&engine);
        all["archive"] = seen::archive(&engine);
        all["keys"] = seen::keys(data);
        all["audit"] = seen::audit(data);
        all["model"] = seen::model(data);
        let newest = engine.facts_log();
        all["dropped"] = json!(headwater_facts::FactLog::newest_dropped(
            newest.as_ref(),
            "every"
        ));
        // The fact is gone, and only the index knows that there was one.
        let again = send(&engine, "every", &write::old(1), false);
        assert_eq!(again, (0, 1), "an id is forgotten");
    }
    all
}

fn check_codecs(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let name = name.split('-').next().unwrap();
        let target = TARGETS.iter().find(|t| t.name == name).expect("a codec");
        let accepted = (target.run)(&fs::read(&path).unwrap());
        assert!(accepted, "{} can't be read any more", path.display());
    }
}

/// Bytes of states, `FORMAT-VIEW-NUMBER.bin`: those of one number say the same in every format. Without a view they are of
/// the first.
fn check_states(folder: &Path, expected: &Json) {
    let Ok(files) = fs::read_dir(folder) else {
        return;
    };
    for entry in files {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let (format, number) = name.split_once('-').unwrap();
        let bytes = fs::read(&path).unwrap();
        assert_eq!(bytes[0].to_string(), format);
        let view = number.split_once('-').map_or(STATES[0].1, |(view, _)| view);
        let said = seen::state(view, &bytes);
        assert_eq!(said, expected[number], "{}", path.display());
    }
}

#[test]
fn every_released_format_is_read() {
    if let Ok(name) = std::env::var("HEADWATER_WRITE_FIXTURE") {
        let folder = fixtures().join(name);
        assert!(!folder.exists(), "{} is there already", folder.display());
        write::write(&folder);
    }
    let mut built_in = Vec::new();
    for entry in fs::read_dir(fixtures()).unwrap() {
        let folder = entry.unwrap().path();
        if !folder.is_dir() {
            continue;
        }
        let copied = tempfile::tempdir().unwrap();
        copy(&folder.join("data"), copied.path());
        let expected = fs::read_to_string(folder.join("seen.json")).unwrap();
        let contracts = fs::read(folder.join(BUILT_IN)).ok();
        assert_eq!(
            text(&meaning(copied.path(), contracts.is_some())),
            expected,
            "{}",
            folder.display()
        );
        check_codecs(&folder.join("codecs"));
        if let Ok(expected) = fs::read(folder.join("states.json")) {
            check_states(
                &folder.join("states"),
                &serde_json::from_slice(&expected).unwrap(),
            );
        }
        let contracts = contracts.map(|bytes| serde_json::from_slice::<Json>(&bytes).unwrap());
        built_in.extend(contracts);
    }
    let now = seen::built_in();
    assert!(
        built_in.contains(&now),
        "no fixture has predictions and outcomes of {now}"
    );
}
