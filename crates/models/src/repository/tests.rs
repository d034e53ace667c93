//! Versions that never change, aliases that move whole, and a disk that fails in between.
#![allow(clippy::unwrap_used, reason = "tests stop loudly")]

use headwater_env::Files;

use super::*;

fn record(version: &str, file: &ModelFile) -> VersionRecord {
    VersionRecord {
        version: version.to_owned(),
        sha256: file.sha256.clone(),
        bytes: file.bytes.len() as u64,
        model_format: "lightgbm".to_owned(),
        added_at: 0,
        owner: None,
        description: None,
        inputs: Vec::new(),
        outputs: Vec::new(),
        trained_on: TrainedOn::default(),
        metrics: BTreeMap::new(),
    }
}

fn file(text: &str) -> ModelFile {
    ModelFile::new(text.as_bytes().to_vec()).unwrap()
}

#[test]
fn versions_stay_and_aliases_move() {
    let (env, clock, files) = Env::simulated(1);
    let open = || ModelRepository::new(env.clone(), Path::new("/models"));
    let repository = open();
    assert_eq!(repository.record("m").unwrap(), ModelRecord::default());
    let (one, two) = (file("one"), file("two"));
    assert_eq!(one.version(), "7692c3ad3540");
    let live = ["live".to_owned()];
    repository.add("m", &one, record("1", &one), &live).unwrap();
    clock.set(5);
    let again = repository.add("m", &one, record("1", &one), &[]).unwrap();
    assert_eq!((again.versions.len(), again.versions[0].added_at), (1, 0));
    let clash = repository
        .add("m", &two, record("1", &two), &live)
        .unwrap_err();
    assert_eq!(clash.code, "version-exists");
    repository.add("m", &two, record("2", &two), &[]).unwrap();
    assert_eq!(
        open().record("m").unwrap().find("live").unwrap().version,
        "1"
    );
    assert_eq!(
        repository.rollback("m", "live").unwrap_err().code,
        "no-earlier-version"
    );
    assert_eq!(
        repository.rollback("m", "canary").unwrap_err().code,
        "unknown-alias"
    );
    assert_eq!(
        repository.promote("m", "live", "3").unwrap_err().code,
        "unknown-version"
    );
    assert_eq!(
        repository.promote("m", "../x", "2").unwrap_err().code,
        "invalid-name"
    );
    assert_eq!(
        repository.promote("m", "1", "2").unwrap_err().code,
        "name-clash"
    );
    repository.promote("m", "live", "2").unwrap();
    repository.promote("m", "canary", "live").unwrap();
    let seen = open().record("m").unwrap();
    assert_eq!(seen.find("live").unwrap().version, "2");
    assert_eq!(seen.find("canary").unwrap().version, "2");
    let back = repository.rollback("m", "live").unwrap();
    assert_eq!(back.find("live").unwrap().version, "1");
    assert!(back.aliases["live"].before.is_empty());
    assert_eq!(repository.file(back.find("2").unwrap()).unwrap(), b"two");
    // A file that changed on the disk.
    let path = Path::new("/models/files").join(&two.sha256);
    files.write_atomic(&path, b"tow").unwrap();
    assert_eq!(
        repository.file(back.find("2").unwrap()).unwrap_err().code,
        "model-file"
    );
    let path = Path::new("/models/m.json");
    files
        .write_atomic(path, br#"{"format": 9, "versions": [], "aliases": {}}"#)
        .unwrap();
    assert_eq!(repository.record("m").unwrap_err().code, "model-record");
    for name in ["", ".", "..", "a/b", ".hidden", "é"] {
        assert_eq!(
            repository.record(name).unwrap_err().code,
            "invalid-name",
            "{name}"
        );
    }
}

#[test]
fn no_version_is_called_as_an_alias_is() {
    let (env, _, _) = Env::simulated(1);
    let repository = ModelRepository::new(env, Path::new("/models"));
    let (one, two) = (file("one"), file("two"));
    for name in RESERVED {
        let refused = repository.add("m", &one, record(name, &one), &[]);
        assert_eq!(refused.unwrap_err().code, "name-clash", "{name}");
    }
    let aliases = ["mine".to_owned()];
    repository
        .add("m", &one, record("1", &one), &aliases)
        .unwrap();
    let refused = repository.add("m", &two, record("mine", &two), &[]);
    assert_eq!(refused.unwrap_err().code, "name-clash");
    repository.promote("m", "mine", "1").unwrap();
}

#[test]
fn a_damaged_file_is_mended_by_adding_it_again() {
    let (env, _, files) = Env::simulated(1);
    let repository = ModelRepository::new(env, Path::new("/models"));
    let one = file("one");
    let added = repository.add("m", &one, record("1", &one), &[]).unwrap();
    let version = added.find("1").unwrap();
    let path = Path::new("/models/files").join(&one.sha256);
    files.write_atomic(&path, b"noe").unwrap();
    let damaged = repository.file(version).unwrap_err();
    assert!(damaged.hint.contains("--version 1"), "{damaged}");
    // Under a name of its own, too.
    repository.add("m", &one, record("2", &one), &[]).unwrap();
    assert_eq!(repository.file(version).unwrap(), b"one");
    files.remove_file(&path).unwrap();
    repository.add("m", &one, record("1", &one), &[]).unwrap();
    assert_eq!(repository.file(version).unwrap(), b"one");
}

#[test]
fn versions_go_with_their_files_unless_something_needs_them() {
    let (env, _, files) = Env::simulated(1);
    let repository = ModelRepository::new(env, Path::new("/models"));
    let (one, two) = (file("one"), file("two"));
    let live = ["live".to_owned()];
    for (version, file) in [("1", &one), ("2", &two), ("copy", &two), ("3", &one)] {
        repository
            .add("m", file, record(version, file), &live)
            .unwrap();
    }
    repository
        .add("other", &one, record("1", &one), &[])
        .unwrap();
    repository.promote("m", "live", "2").unwrap();
    let there = |file: &ModelFile| files.exists(&Path::new("/models/files").join(&file.sha256));
    // What an alias points at stays, by its own name and the alias's.
    for name in ["2", "live"] {
        let refused = repository.remove("m", name).unwrap_err();
        assert_eq!(refused.code, "version-in-use");
        assert!(refused.detail.contains("live"), "{refused}");
    }
    let unknown = repository.remove("m", "9").unwrap_err();
    assert_eq!(unknown.code, "unknown-version");
    // Before: 1, 2, copy, 3.
    repository.remove("m", "copy").unwrap();
    assert!(there(&two));
    let left = repository.remove("m", "3").unwrap();
    assert_eq!(left.aliases["live"].before, ["1"]);
    repository.remove("m", "1").unwrap();
    // The other model's.
    assert!(there(&one));
    repository.remove("other", "1").unwrap();
    assert!(!there(&one));
    let refused = repository.rollback("m", "live").unwrap_err();
    assert_eq!(refused.code, "no-earlier-version");
    assert_eq!(repository.record("m").unwrap().versions.len(), 1);
    repository.add("m", &one, record("1", &one), &live).unwrap();
    repository.remove("m", "2").unwrap();
    assert!(!there(&two) && there(&one));
}

#[test]
fn a_full_model_says_how_there_is_room_again() {
    let (env, _, files) = Env::simulated(1);
    let repository = ModelRepository::new(env, Path::new("/models"));
    let one = file("one");
    let add = |version: &str| repository.add("m", &one, record(version, &one), &[]);
    let mut full = add("0").unwrap();
    full.versions = (0..VERSIONS_MAX)
        .map(|n| record(&n.to_string(), &one))
        .collect();
    let bytes = serde_json::to_vec(&full).unwrap();
    files
        .write_atomic(Path::new("/models/m.json"), &bytes)
        .unwrap();
    let refused = add("next").unwrap_err();
    assert_eq!(refused.code, "limit");
    assert!(refused.hint.contains("models remove"), "{refused}");
    repository.remove("m", "7").unwrap();
    add("next").unwrap();
}
