//! Bundles and journals of every released format are still read, and say what they said. `bundles/README.md` says when to
//! add one, and how.
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test of files, that stops loudly"
)]

use std::fs;
use std::path::{Path, PathBuf};

use headwater_edge::Edge;
use headwater_testkit::fuzz::sample_bundle;
use serde_json::{Value as Json, json};

const AS_OF: i64 = 1_769_855_000_000_000;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("bundles")
}

/// What a bundle and its journal say of those that it was made for, and of others.
fn said(folder: &Path) -> Json {
    let work = tempfile::tempdir().unwrap();
    let journal = work.path().join("journal");
    fs::copy(folder.join("journal"), &journal).unwrap();
    let edge = Edge::open_file(&folder.join("bundle"), Some(&journal)).expect("it opens");
    let about: Json = serde_json::from_str(&edge.about_json()).unwrap();
    let ask = |who: &str, as_of: i64| {
        let request = json!({"entities": [{"person": who}], "as_of": as_of}).to_string();
        let features = match edge.features_json(&request) {
            Ok(said) => serde_json::from_str(&said).unwrap(),
            Err(problem) => json!(problem.code),
        };
        let outputs = match edge.predict_numbers(&request) {
            Ok(numbers) => numbers.iter().map(|n| n.to_bits().to_string()).collect(),
            Err(problem) => json!(problem.code),
        };
        json!({"who": who, "as_of": as_of, "features": features, "outputs": outputs})
    };
    let rows = ["ada", "bob", "eve", "nobody", "more"];
    let rows = rows.map(|who| json!([ask(who, AS_OF), ask(who, 0)]));
    json!({"about": about, "rows": rows})
}

fn write(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    let path = folder.join("bundle");
    fs::write(&path, sample_bundle().to_bytes().expect("a bundle")).unwrap();
    let journal = folder.join("journal");
    let edge = Edge::open_file(&path, Some(&journal)).expect("it opens");
    let rows = json!([{"id": "n1", "who": "ada", "amount": 2.5, "count": 3, "flag": true, "time": AS_OF - 1_000_000},
                      {"id": "n2", "who": "more", "amount": 0.1, "count": 1, "time": AS_OF - 2_000_000},
                      {"id": "n3", "who": "bob", "amount": 0.2, "count": 2, "time": AS_OF - 3_000_000}]);
    let add = |rows: &Json, revise: bool| {
        let added = edge.add_facts("every", rows.to_string().as_bytes(), revise);
        added.expect("told").accepted
    };
    assert_eq!(add(&rows, false), 3);
    let mut revised = rows[1].clone();
    revised["amount"] = json!(0.3);
    assert_eq!(add(&json!([revised]), true), 1);
    let told = edge.retract("every", vec!["n3".into()]).expect("told");
    assert_eq!(told.retracted, 1);
    drop(edge);
    fs::remove_file(folder.join("journal.lock")).unwrap();
    let text = serde_json::to_string_pretty(&said(folder)).unwrap();
    fs::write(folder.join("said.json"), text + "\n").unwrap();
}

#[test]
fn every_released_format_is_read() {
    if let Ok(name) = std::env::var("HEADWATER_WRITE_BUNDLE") {
        let folder = fixtures().join(name);
        assert!(!folder.exists(), "{} is there already", folder.display());
        write(&folder);
    }
    let mut read = 0;
    for entry in fs::read_dir(fixtures()).unwrap() {
        let folder = entry.unwrap().path();
        if !folder.is_dir() {
            continue;
        }
        let expected = fs::read_to_string(folder.join("said.json")).unwrap();
        let expected: Json = serde_json::from_str(&expected).unwrap();
        assert_eq!(said(&folder), expected, "{}", folder.display());
        read += 1;
    }
    assert!(read > 0, "there is no fixture");
}
