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
