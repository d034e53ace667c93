//! The archive from outside: facts leave, and every answer stays as it was.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use headwater_testkit::{ServerProcess, TempProject};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};

use crate::{BINARY, SHOP};

/// Archives when it is told to, everything that there is, in small files.
pub const ON_DEMAND: &str = "name: shop\nspec:\n  state: {checkpoint_facts: 100}\n  ingest: {segment_bytes_max: 2000}\n  archive: {every: 1h, after: 0s}\n";
pub const HOUR: u64 = 3_600_000_000;

pub fn parquet_files(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => parquet_files(&path, found),
            false if path.extension().is_some_and(|e| e == "parquet") => found.push(path),
            false => {}
        }
    }
}

/// How often each sequence occurs in the files of a project's own archive, as any reader of Parquet sees
/// them: facts in their own files, retractions only in what they removed.
pub fn rows_by_sequence(project: &Path) -> BTreeMap<u64, usize> {
    let archive = project.join(".headwater/archive");
    let numbers = |folder: &str, column: &str| {
        let mut files = Vec::new();
        parquet_files(&archive.join(folder), &mut files);
        let mut numbers = Vec::new();
        for path in files {
            let file = std::fs::File::open(&path).unwrap();
            let batches = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
            for batch in batches.build().unwrap() {
                let batch = batch.unwrap();
                let found = batch.column_by_name(column).unwrap();
                numbers.extend(found.as_primitive::<Int64Type>().values().iter().copied());
            }
        }
        numbers
    };
    let mut rows = BTreeMap::new();
    for sequence in numbers("contract=purchase", "_sequence") {
        *rows.entry(sequence as u64).or_default() += 1;
    }
    for removal in numbers("corrections/contract=purchase", "_removed_at") {
        rows.entry(removal as u64).or_insert(1);
    }
    rows
}

/// A project over another data folder that names the archive of this one.
fn archived(project: &TempProject) -> TempProject {
    let folder = project.path().join(".headwater");
    let config = format!(
        "name: other\nspec: {{archive: {{url: 'file://{}/archive'}}}}\n",
        folder.display()
    );
    let other = TempProject::new(BINARY, SHOP);
    other.write("headwater.yaml", config);
    other
}

/// Facts of four days, some of them late, some corrected, one that breaks the contract.
pub fn fill(server: &ServerProcess) {
    let fact = |id: u64, amount: u64| {
        json!({"id": format!("p{id}"), "customer": format!("c{}", id % 5), "amount": amount,
            "time": (id * 37 % 96) * HOUR + id, "colour": "red"})
    };
    for batch in 0..20 {
        let facts: Vec<Value> = (batch * 12..batch * 12 + 12)
            .map(|id| fact(id, id))
            .collect();
        let reply = server.post_json("/v1/facts/purchase", &json!(facts));
        assert_eq!(reply.json()["accepted"], json!(12), "{}", reply.body);
        let revised = [fact(batch * 5, 1000 + batch)];
        let reply = server.post_json("/v1/facts/purchase?revise=true", &json!(revised));
        assert_eq!(reply.json()["accepted"], json!(1), "{}", reply.body);
        let ids = json!({"fact_ids": [format!("p{}", batch * 7 + 1)]});
        let reply = server.post_json("/v1/facts/purchase/retract", &ids);
        assert_eq!(reply.status, 200, "{}", reply.body);
    }
    let reply = server.post_json(
        "/v1/facts/purchase",
        &json!([{"id": "bad", "amount": -1, "time": 1}]),
    );
    assert_eq!(reply.json()["rejected"][0]["field"], json!("amount"));
}

/// Everything that can be asked: facts by arrival and by customer, features, at many cursors.
fn answers(server: &ServerProcess) -> Vec<String> {
    let mut told = Vec::new();
    let mut get = |path: String| {
        let reply = server.get(&path);
        assert_eq!(reply.status, 200, "{path}: {}", reply.body);
        told.push(reply.body);
    };
    get("/v1/facts/purchase?limit=1000".into());
    get("/v1/facts/purchase?limit=1000&known_at=100".into());
    get("/v1/facts/purchase/quarantine?limit=1000".into());
    for customer in 0..5 {
        get(format!(
            "/v1/facts/purchase?entity=customer:c{customer}&limit=1000"
        ));
        get(format!(
            "/v1/facts/purchase?entity=customer:c{customer}&to={}&limit=7",
            30 * HOUR
        ));
    }
    let entities: Vec<Value> = (0..5)
        .map(|c| json!({"customer": format!("c{c}")}))
        .collect();
    for as_of in [0, 1, 20, 50, 77, 200] {
        for known_at in ["3", "90", "200", "270"] {
            let asked = json!({"feature_set": "customer_now", "entities": entities,
                "as_of": as_of * HOUR, "known_at": known_at});
            let reply = server.post_json("/v1/features", &asked);
            assert_eq!(reply.status, 200, "{}", reply.body);
            told.push(reply.body);
        }
    }
    told
}

#[test]
fn facts_leave_and_every_answer_stays_as_it_was() {
    let project = TempProject::new(BINARY, SHOP);
    project.write("headwater.yaml", ON_DEMAND);
    project.run_ok(&["apply"]);
    let server = ServerProcess::start(&project);
    fill(&server);
    let before = answers(&server);
    let state = server.get("/v1/archive").json();
    assert_eq!(
        (&state["facts"], &state["through"]),
        (&json!(0), &json!("0"))
    );
    let said = project.run_ok(&["--server", &server.url, "archive"]);
    assert!(said.starts_with("260 facts archived; "), "{said}");
    let state = server.get("/v1/archive").json();
    assert!(state["segments"].as_u64().unwrap() > 5, "{state}");
    assert_eq!(state["segments"], state["segments_only_in_archive"]);
    assert_eq!(
        (&state["facts"], &state["last_failure"]),
        (&json!(260), &Value::Null)
    );
    let local = std::fs::read_dir(project.path().join(".headwater/facts/log")).unwrap();
    assert!(local.count() <= 2, "the log keeps only what is open");
    assert_eq!(answers(&server), before);
    // Every fact that ever was is in a file of its day, those that were corrected too.
    let rows = rows_by_sequence(project.path());
    assert!(
        rows.values().all(|count| *count == 1) && rows.len() == 280,
        "{rows:?}"
    );
    let days = std::fs::read_dir(project.path().join(".headwater/archive/contract=purchase"));
    let mut days: Vec<_> = days.unwrap().map(|d| d.unwrap().file_name()).collect();
    days.sort();
    assert_eq!(
        days,
        [
            "day=1970-01-01",
            "day=1970-01-02",
            "day=1970-01-03",
            "day=1970-01-04"
        ]
    );
    // What is sent again is known, and what is new goes on after it.
    let again = json!([{"id": "p3", "customer": "c3", "amount": 3, "time": 15 * HOUR + 3, "colour": "red"}]);
    let reply = server.post_json("/v1/facts/purchase", &again).json();
    assert_eq!(
        (&reply["accepted"], &reply["duplicates"]),
        (&json!(0), &json!(1))
    );
    assert!(server.stop());
    let server = ServerProcess::start(&project);
    assert_eq!(answers(&server), before);
    assert!(server.stop());
    // No room for what is read back stops no reader.
    let restored = project.path().join(".headwater/facts/restored");
    let _ = std::fs::remove_dir_all(&restored);
    std::fs::write(&restored, "in the way").unwrap();
    let server = ServerProcess::start(&project);
    assert_eq!(answers(&server), before);
    assert!(server.stop());
    std::fs::remove_file(&restored).unwrap();
    std::fs::create_dir(&restored).unwrap();
    // Everything derived is made again from the archive.
    for derived in ["facts/index", "facts/restored", "features"] {
        std::fs::remove_dir_all(project.path().join(".headwater").join(derived))
            .unwrap_or_default();
    }
    let server = ServerProcess::start(&project);
    assert_eq!(answers(&server), before);
    assert!(server.stop());
}

#[test]
fn the_command_line_archives_verifies_and_tells_what_is_wrong() {
    let project = TempProject::new(BINARY, SHOP);
    project.run_ok(&["apply"]);
    let said = project.run_fails(&["archive"]);
    assert!(
        said.contains("no archive is set") && said.contains("archive: {}"),
        "{said}"
    );
    project.write("headwater.yaml", ON_DEMAND);
    project.write(
        "a.ndjson",
        "{\"id\":\"a\",\"customer\":\"ada\",\"amount\":1,\"time\":1}\n",
    );
    project.run_ok(&["ingest", "purchase", "a.ndjson"]);
    let status: Value =
        serde_json::from_str(&project.run_ok(&["--json", "archive", "--status"])).unwrap();
    assert_eq!(status["facts"], json!(0));
    let done: Value = serde_json::from_str(&project.run_ok(&["--json", "archive"])).unwrap();
    assert_eq!(
        (&done["archived_facts"], &done["complete"]),
        (&json!(1), &json!(true))
    );
    let said = project.run_ok(&["archive", "--verify"]);
    assert!(said.contains("every checksum right"), "{said}");
    // Another data folder may not write into it.
    let other = archived(&project);
    other.run_ok(&["apply"]);
    let said = other.run_fails(&["archive"]);
    assert!(said.contains("the archive is another log's"), "{said}");
    // A damaged file is found, and named.
    let mut files = Vec::new();
    parquet_files(
        &project.path().join(".headwater/archive/contract=purchase"),
        &mut files,
    );
    let mut bytes = std::fs::read(&files[0]).unwrap();
    bytes[9] ^= 1;
    std::fs::write(&files[0], bytes).unwrap();
    let said = project.run_fails(&["archive", "--verify"]);
    assert!(
        said.contains("the archive is damaged") && said.contains("day=1970-01-01"),
        "{said}"
    );
    // Facts have left: without the archive the data folder isn't whole.
    project.write("headwater.yaml", "name: shop\n");
    let said = project.run_fails(&["facts", "get", "purchase"]);
    assert!(said.contains("facts have left for an archive"), "{said}");
}
