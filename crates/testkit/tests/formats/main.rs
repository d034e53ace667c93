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

use headwater::api::backend::{
    EntityRequest, FactsQuery, FeaturesRequest, IngestOptions, KeyValue, KnownAt, Names,
};
use headwater::schema::decode::BodyFormat;
use headwater::{Config, Engine, Env, Project, apply_project};
use headwater_schema::Value;
use headwater_testkit::fuzz::{TARGETS, documents};
use serde_json::{Value as Json, json};

/// Targets whose seeds are bytes of a codec that is stored for good. States aren't: they belong to the
/// layout of their view, and are made again where it changes.
const CODECS: [&str; 5] = ["registry", "batch", "value", "key", "frame"];

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
    config
}

fn open(data: &Path) -> Engine {
    Engine::open(Env::real(), &config(), data, |_, _| {}).expect("data of an earlier version opens")
}

/// Everything that a caller can see: facts, rejected rows, features now and in the past.
fn seen(engine: &Engine) -> Json {
    let query = FactsQuery {
        contract: "every".into(),
        entity: None,
        from: None,
        to: None,
        known_at: None,
        limit: 1000,
    };
    let facts = engine
        .facts(&query)
        .expect("facts")
        .into_iter()
        .map(|fact| {
            let values = fact
                .values
                .iter()
                .map(|(name, value)| format!("{name}={value:?}"));
            json!([
                fact.fact_id,
                fact.event_time,
                fact.sequence,
                values.collect::<Vec<_>>()
            ])
        });
    let rejected = engine
        .quarantine("every", true, 1000)
        .expect("rejected rows");
    let rejected = rejected
        .into_iter()
        .map(|r| json!([r.row, r.field, r.rule, r.raw]));
    let last = engine.processor_stats().applied;
    let mut features = Vec::new();
    for known_at in [2, last] {
        for who in ["ada", "bob", "eve", "nobody"] {
            let request = FeaturesRequest {
                names: Names::Set("all".into()),
                entities: vec![EntityRequest::from([(
                    "person".to_owned(),
                    KeyValue::Scalar(Value::string(who)),
                )])],
                as_of: Some(1_769_855_000_000_000),
                known_at: Some(KnownAt::Sequence(known_at)),
                inclusive: true,
                context: Vec::new(),
            };
            let reply = engine.features(&request).expect("features");
            let values = reply.names.iter().zip(&reply.rows[0].values);
            let values = values.map(|(name, value)| format!("{name}={value:?}"));
            features.push(json!([who, known_at, values.collect::<Vec<_>>()]));
        }
    }
    json!({
        "facts": facts.collect::<Vec<_>>(),
        "rejected": rejected.collect::<Vec<_>>(),
        "features": features,
    })
}

fn text(json: &Json) -> String {
    serde_json::to_string_pretty(json).unwrap() + "\n"
}

/// Writes a fixture of the present formats.
fn write(folder: &Path) {
    let project = tempfile::tempdir().unwrap();
    fs::write(project.path().join("headwater.yaml"), "name: fixture\n").unwrap();
    fs::write(project.path().join("contract.yaml"), documents::CONTRACT).unwrap();
    fs::write(project.path().join("features.yaml"), documents::DEFINITIONS).unwrap();
    let loaded = Project::load(&Env::real(), project.path()).unwrap();
    let data = project.path().join("data");
    apply_project(&Env::real(), &loaded, &data).unwrap();
    let engine = open(&data);
    let plain = IngestOptions::default();
    let revise = IngestOptions {
        revise: true,
        ..plain
    };
    let send = |format, body: &str, options| {
        engine
            .ingest("every", format, body.as_bytes(), options)
            .expect("taken")
    };
    send(BodyFormat::Ndjson, &documents::ndjson(), plain);
    send(
        BodyFormat::Ndjson,
        "{\"id\":\"bad\",\"amount\":\"much\",\"time\":0}",
        plain,
    );
    let later = documents::ROWS
        .iter()
        .map(|row| row.replace("{\"id\":\"a", "{\"id\":\"b"));
    send(
        BodyFormat::Ndjson,
        &later.collect::<Vec<_>>().join("\n"),
        plain,
    );
    send(
        BodyFormat::Ndjson,
        &documents::ROWS[0].replace("1.5,\"price\"", "2.5,\"price\""),
        revise,
    );
    engine
        .retract("every", vec!["a5".into()])
        .expect("taken back");
    send(
        BodyFormat::Ndjson,
        &documents::ROWS[4].replace("a5", "c5"),
        plain,
    );
    let seen = text(&seen(&engine));
    engine.close().expect("closed");
    fs::create_dir_all(folder.join("codecs")).unwrap();
    fs::write(folder.join("seen.json"), seen).unwrap();
    fs::create_dir_all(folder.join("data/facts")).unwrap();
    fs::copy(
        data.join("registry.json"),
        folder.join("data/registry.json"),
    )
    .unwrap();
    copy(&data.join("facts/log"), &folder.join("data/facts/log"));
    for target in TARGETS.iter().filter(|t| CODECS.contains(&t.name)) {
        for (index, bytes) in (target.seeds)().iter().enumerate() {
            let name = format!("{}-{index}.bin", target.name);
            fs::write(folder.join("codecs").join(name), bytes).unwrap();
        }
    }
}

#[test]
fn every_released_format_is_read() {
    if let Ok(name) = std::env::var("HEADWATER_WRITE_FIXTURE") {
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
        let copied = tempfile::tempdir().unwrap();
        copy(&folder.join("data"), copied.path());
        let found = text(&seen(&open(copied.path())));
        let expected = fs::read_to_string(folder.join("seen.json")).unwrap();
        assert_eq!(found, expected, "{}", folder.display());
        for entry in fs::read_dir(folder.join("codecs")).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            let name = name.split('-').next().unwrap();
            let target = TARGETS.iter().find(|t| t.name == name).expect("a codec");
            let accepted = (target.run)(&fs::read(&path).unwrap());
            assert!(accepted, "{} can't be read any more", path.display());
        }
        read += 1;
    }
    assert!(read > 0, "there is no fixture");
}
