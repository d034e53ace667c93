//! Targets that read what lies beside facts: the file of keys, the record of who did what, what is told of a model's
//! versions, how far somebody has come in the log.

use std::path::Path;
use std::sync::Arc;

use headwater::{AuditLog, AuditSettings, Config, KeyFile, authorizer};
use headwater_api::{AuditEntry, AuditEvent, AuditQuery, KEYS_MAX, Role, Unheard};
use headwater_env::Env;
use headwater_models::repository::{
    InputRecord, ModelFile, ModelRepository, OutputRecord, TrainedOn, VersionRecord,
};
use headwater_serve::Positions;
use serde_json::Value as Json;
use serde_json::value::RawValue;

use super::Target;

const FOLDER: &str = "/data";

fn env() -> Env {
    Env::simulated(1).0
}

/// Holds how many there are in a list to what a parser says that knows nothing of the format. A struct may be the list of
/// its members, too.
fn assert_listed(input: &[u8], name: &str, place: usize, read: usize) {
    let text = String::from_utf8_lossy(input);
    let is_json = serde_json::from_str::<&RawValue>(&text).is_ok();
    assert!(is_json, "what is no JSON is read");
    // Numbers that no float holds are passed over where nobody asks for them.
    if let Ok(json) = serde_json::from_str::<Json>(&text) {
        let list = json.get(name).or_else(|| json.get(place));
        let count = list.and_then(Json::as_array).map(Vec::len);
        assert_eq!(count, Some(read), "others than there are in `{name}`");
    }
}

fn key_file(env: &Env) -> KeyFile {
    let folder = Path::new(FOLDER);
    KeyFile::new(env.clone(), &Config::named("fuzz"), folder, folder)
}

/// A file with keys of every kind, as it is written.
fn keys() -> Vec<u8> {
    let env = env();
    let file = key_file(&env);
    let year = Some(365 * 86_400_000_000);
    file.create("robot", &[Role::Write, Role::Read], None)
        .expect("a key");
    file.create("guest", &[Role::Read], year).expect("a key");
    let (gone, _) = file.create("person", &[Role::Admin], None).expect("a key");
    file.revoke(&gone.id).expect("revoked");
    env.files.read(file.path()).expect("keys")
}

/// A file that can't be read is no file without keys: that would open the door to everybody.
pub const KEYS: Target = Target {
    name: "keys",
    seeds: || {
        let second = String::from_utf8(keys()).expect("text");
        let first = second.replace("\"version\": 2", "\"version\": 1");
        let kept = first.lines().filter(|line| !line.contains("\"expires\""));
        let kept: Vec<&str> = kept.collect();
        let first = kept.join("\n").replace(",\n    }", "\n    }");
        vec![first.into_bytes(), second.into_bytes()]
    },
    words: &[
        "{",
        "}",
        "[]",
        "\"version\": 1",
        "\"version\": 3",
        "\"roles\": []",
        "\"admin\"",
        "\"revoked\": null",
        "\"expires\": \"1970-01-01T00:00:00Z\"",
        "\"keys\": null",
    ],
    run: |input| {
        let (env, config) = (env(), Config::named("fuzz"));
        let file = key_file(&env);
        let written = env.files.write_atomic(file.path(), input);
        written.expect("written");
        let door = authorizer(&file, &config, Arc::new(Unheard));
        let Ok(keys) = file.list() else {
            assert!(door.is_err(), "what can't be read opens a door");
            return false;
        };
        assert_listed(input, "keys", 1, keys.len());
        let (live, any) = file.in_force(&config).expect("read once, read again");
        assert_eq!(any, !keys.is_empty());
        assert_eq!(
            live.len(),
            keys.iter().filter(|k| k.revoked.is_none()).count()
        );
        if let Ok(door) = &door {
            assert_eq!(door.is_required(), any, "keys that nobody asks for");
        }
        if keys.len() < KEYS_MAX {
            let made = file.create("more", &[Role::Read], None).expect("a key").0;
            let again = file.list().expect("what was written can be read");
            assert_eq!(again[..keys.len()], keys);
            assert_eq!(again[keys.len()..], [made]);
        }
        door.is_ok()
    },
};

fn audit(env: &Env) -> AuditLog {
    AuditLog::new(env.clone(), Path::new(FOLDER), AuditSettings::default())
}

fn audit_path() -> std::path::PathBuf {
    Path::new(FOLDER).join("audit/000001.ndjson")
}

/// The whole record, read in pages of so many entries.
fn entries(log: &AuditLog, limit: usize) -> Vec<AuditEntry> {
    let mut query = AuditQuery {
        limit,
        ..AuditQuery::default()
    };
    let mut entries = Vec::new();
    loop {
        let page = log
            .read(&query)
            .expect("lines that aren't whole are passed over");
        assert!(page.before.is_none() || page.entries.len() == limit);
        entries.splice(0..0, page.entries);
        if page.before.is_none() {
            return entries;
        }
        query.before = page.before;
    }
}

/// What can't be read of the record takes nothing with it, before it or behind.
pub const AUDIT: Target = Target {
    name: "audit",
    seeds: || {
        let env = env();
        for (actor, action) in [("command line", "key.create"), ("hw_1", "key.use")] {
            let event = AuditEvent::new(actor, action, "person", "ok");
            audit(&env).append(&event).expect("written");
        }
        vec![env.files.read(&audit_path()).expect("a record")]
    },
    words: &[
        "{",
        "}",
        "\n",
        "null",
        "\"version\":2",
        "\"actor\":\"anyone\"",
        "\"action\":\"key.use\"",
        "[[[[[[[[",
    ],
    run: |input| {
        let env = env();
        let folder = Path::new(FOLDER).join("audit");
        env.files.create_dir_all(&folder).expect("a folder");
        let written = env.files.write_atomic(&audit_path(), input);
        written.expect("written");
        let lines = input.split(|byte| *byte == b'\n');
        let whole = lines.filter_map(|line| serde_json::from_slice(line).ok());
        let whole: Vec<AuditEntry> = whole.collect();
        assert_eq!(entries(&audit(&env), input.len() + 2), whole);
        let event = AuditEvent::new("anyone", "key.create", "later", "ok");
        audit(&env).append(&event).expect("written");
        let told = entries(&audit(&env), 2);
        let (last, before) = told.split_last().expect("what was appended");
        assert_eq!(last.target, "later");
        assert_eq!(before, whole);
        !whole.is_empty()
    },
};

const MODEL: &str = "score";

fn version(name: &str, file: &ModelFile) -> VersionRecord {
    VersionRecord {
        version: name.to_owned(),
        sha256: file.sha256.clone(),
        bytes: file.bytes.len() as u64,
        model_format: "linear".to_owned(),
        added_at: 7,
        owner: Some("people".to_owned()),
        description: None,
        inputs: vec![InputRecord {
            name: "amount".to_owned(),
            kind: "numeric".to_owned(),
            source: "habits.mean_7d".to_owned(),
            meaning: "0f".to_owned(),
        }],
        outputs: vec![OutputRecord {
            name: "probability".to_owned(),
            width: 1,
        }],
        trained_on: TrainedOn {
            feature_set: "all".to_owned(),
            definitions: [("entities/person".to_owned(), "1e".to_owned())].into(),
            training_set: Some(serde_json::json!({"format": 2, "features": ["habits.mean_7d"]})),
        },
        metrics: [("auc".to_owned(), 0.1 + 0.2)].into(),
    }
}

fn record_path() -> std::path::PathBuf {
    Path::new(FOLDER).join(format!("{MODEL}.json"))
}

/// A record of two versions, with an alias that moved; and one of before versions had metrics.
fn records() -> Vec<Vec<u8>> {
    let env = env();
    let models = ModelRepository::new(env.clone(), Path::new(FOLDER));
    for name in ["1", "2"] {
        let file = ModelFile::new(name.as_bytes().to_vec()).expect("a file");
        let live = ["live".to_owned()];
        let added = models.add(MODEL, &file, version(name, &file), &live);
        added.expect("added");
    }
    models.promote(MODEL, "stable", "1").expect("promoted");
    let bytes = env.files.read(&record_path()).expect("a record");
    let mut first: Json = serde_json::from_slice(&bytes).expect("JSON");
    for version in first["versions"].as_array_mut().expect("versions") {
        let version = version.as_object_mut().expect("an object");
        version.remove("metrics");
    }
    vec![first.to_string().into_bytes(), bytes]
}

/// A record that is taken is written as it was read, but for what is changed.
pub const MODEL_RECORD: Target = Target {
    name: "model_record",
    seeds: records,
    words: &[
        "{",
        "}",
        "[]",
        "null",
        "1e999",
        "\"format\": 1",
        "\"version\": \"1\"",
        "\"version\": \"live\"",
        "\"before\": [\"9\"]",
        "\"aliases\": {}",
        "../../",
        "[[[[[[[[",
    ],
    run: |input| {
        let env = env();
        let written = env.files.write_atomic(&record_path(), input);
        written.expect("written");
        let models = ModelRepository::new(env, Path::new(FOLDER));
        let Ok(record) = models.record(MODEL) else {
            // Damaged, it is never taken for that of a model without versions, and written over.
            assert!(models.promote(MODEL, "live", "1").is_err());
            assert!(models.rollback(MODEL, "live").is_err());
            return false;
        };
        assert_listed(input, "versions", 1, record.versions.len());
        for version in &record.versions {
            assert!(record.version(&version.version).is_some());
            assert!(models.file(version).is_err(), "there are no files");
        }
        for (alias, points) in &record.aliases {
            let version = record.find(alias).ok();
            assert_eq!(version, record.version(&points.version));
            let before = record.previous(alias).ok().map(str::to_owned);
            let Ok(back) = models.rollback(MODEL, alias) else {
                assert_eq!(before, None);
                continue;
            };
            assert_eq!(Some(&back.aliases[alias].version), before.as_ref());
            assert_eq!(back.versions, record.versions);
            let again = models.record(MODEL).expect("what was written can be read");
            assert_eq!(again, back);
        }
        let newest = record.versions.last();
        let promoted = newest.map(|v| models.promote(MODEL, "fuzzed", &v.version));
        if let Some(Ok(promoted)) = promoted {
            assert_eq!(promoted.versions, record.versions);
            assert!(promoted.find("fuzzed").is_ok());
            let again = models.record(MODEL).expect("what was written can be read");
            assert_eq!(again, promoted);
        }
        true
    },
};

/// A note that can't be read is no note that there is none: facts would be scored, or sent, twice or never.
pub const POSITION: Target = Target {
    name: "position",
    seeds: || {
        let sequence = |sequence: u64| {
            let text = format!(r#"{{"format":"headwater-position/1","sequence":{sequence}}}"#);
            text.into_bytes()
        };
        vec![sequence(1), sequence(u64::MAX)]
    },
    words: &[
        "{",
        "}",
        "null",
        "-1",
        "1.5",
        "headwater-position/2",
        "18446744073709551616",
    ],
    run: |input| {
        const NAME: &str = "model-fraud";
        let (env, folder) = (env(), Path::new(FOLDER));
        let written = env
            .files
            .write_atomic(&folder.join(format!("{NAME}.json")), input);
        written.expect("written");
        let positions = Positions::new(&env, folder);
        let Ok(noted) = positions.read(NAME) else {
            return false;
        };
        let sequence = noted.expect("a note is there");
        positions.write(NAME, sequence).expect("written");
        let again = positions.read(NAME).expect("what was written can be read");
        assert_eq!(again, noted);
        assert_eq!(positions.names(), [NAME]);
        true
    },
};
