//! Damaged files: found, named, and refused or made again as documented.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use headwater_testkit::TempProject;

use crate::{BINARY, SHOP};

fn filled() -> TempProject {
    let project = TempProject::new(BINARY, SHOP);
    project.run_ok(&["apply"]);
    let lines: String = (0..50)
        .map(|i| {
            format!(
                "{{\"id\":\"p{i}\",\"customer\":\"ada\",\"amount\":1.5,\"time\":{}}}\n",
                i * 1000
            )
        })
        .collect();
    project.write("facts.ndjson", lines);
    let said = project.run_ok(&["ingest", "purchase", "facts.ndjson"]);
    assert!(
        said.starts_with("50 accepted, 0 duplicates, 0 rejected"),
        "{said}"
    );
    project
}

fn segment(project: &TempProject) -> PathBuf {
    project
        .path()
        .join(".headwater/facts/log/00000000000000000001.seg")
}

fn purchases(project: &TempProject) -> String {
    let read = [
        "features",
        "get",
        "--feature",
        "spending.purchases_lifetime",
        "--entity",
        "customer=ada",
        "--json",
    ];
    let json: serde_json::Value = serde_json::from_str(&project.run_ok(&read)).unwrap();
    json["rows"][0]["values"][0].to_string()
}

#[test]
fn a_flipped_bit_in_the_log_is_refused_by_name_and_nothing_is_changed() {
    let project = filled();
    let path = segment(&project);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    for arguments in [["facts", "get", "purchase"].as_slice(), &["doctor"]] {
        let output = project.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned()
            + &String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("the log is damaged"), "{said}");
        assert!(said.contains("00000000000000000001.seg, byte "), "{said}");
        assert!(said.contains("checksum"), "{said}");
    }
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    bytes[middle] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(purchases(&project), "50");
}

/// A process that has just ended, or been killed, may hold its stores a moment longer than its data folder.
#[test]
fn what_another_still_holds_is_waited_for_and_not_made_again() {
    let project = filled();
    assert_eq!(purchases(&project), "50");
    for store in ["facts/index", "features"] {
        let lock = project.path().join(".headwater").join(store).join("lock");
        let held = std::fs::File::open(lock).unwrap();
        held.try_lock().expect("nobody has it");
        let letting_go = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(1500));
            held.unlock().expect("let go");
        });
        let start = Instant::now();
        let output = project.run(&["doctor"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned()
            + &String::from_utf8_lossy(&output.stdout);
        assert!(start.elapsed() > Duration::from_millis(1400), "{said}");
        letting_go.join().unwrap();
        assert!(output.status.success(), "{said}");
        assert!(!said.contains("made again"), "{said}");
        assert_eq!(purchases(&project), "50");
    }
}

#[test]
fn a_torn_last_write_is_cut_off_and_said() {
    let project = filled();
    let path = segment(&project);
    let mut bytes = std::fs::read(&path).unwrap();
    let whole = bytes.len();
    bytes.extend(b"HWF1\x20\x00\x00\x00half a frame");
    std::fs::write(&path, &bytes).unwrap();
    let output = project.run(&["facts", "get", "purchase"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("cut off 20 bytes"), "{said}");
    assert_eq!(std::fs::read(&path).unwrap().len(), whole);
}

#[test]
fn what_is_derived_is_made_again_from_the_log() {
    let project = filled();
    for folder in ["features", "facts/index"] {
        std::fs::remove_dir_all(project.path().join(".headwater").join(folder)).unwrap();
        assert_eq!(purchases(&project), "50", "without {folder}");
    }
    project.write(
        "facts.ndjson",
        "{\"id\":\"p7\",\"customer\":\"ada\",\"amount\":1.5,\"time\":7000}\n",
    );
    let said = project.run_ok(&["ingest", "purchase", "facts.ndjson"]);
    assert!(said.starts_with("0 accepted, 1 duplicates"), "{said}");
}
