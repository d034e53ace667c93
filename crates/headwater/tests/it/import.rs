//! The history of a data lake becomes facts: once, however often it is imported.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    ArrayRef, Float64Array, Int32Array, RecordBatch, StringArray, TimestampNanosecondArray,
};
use headwater_testkit::{ServerProcess, TempProject};
use parquet::arrow::ArrowWriter;
use serde_json::{Value, json};

use crate::{BINARY, SHOP};

/// A file as another program writes it: times in nanoseconds, a column that the contract doesn't know.
fn lake_file(path: &Path, ids: std::ops::Range<i64>) {
    let names = ids.clone().map(|i| Some(format!("p{i}")));
    let customers = ids.clone().map(|i| Some(format!("c{}", i % 7)));
    // One in a thousand breaks the contract.
    let amounts = ids
        .clone()
        .map(|i| Some(if i % 1000 == 500 { -1.0 } else { i as f64 }));
    let times = ids.clone().map(|i| Some(i * 1_000_000_000 + 999));
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(names.collect::<StringArray>())),
        ("customer", Arc::new(customers.collect::<StringArray>())),
        ("amount", Arc::new(amounts.collect::<Float64Array>())),
        (
            "time",
            Arc::new(
                times
                    .collect::<TimestampNanosecondArray>()
                    .with_timezone("UTC"),
            ),
        ),
        (
            "shop",
            Arc::new(ids.map(|i| Some(i as i32 % 3)).collect::<Int32Array>()),
        ),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let file = std::fs::File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn lake(project: &TempProject) {
    let at = |name: &str| project.path().join("lake").join(name);
    lake_file(&at("day=1/a.parquet"), 0..20_000);
    lake_file(&at("day=2/b.parquet"), 20_000..40_000);
    project.write("lake/_temporary/c.parquet", "half a file");
    project.write(
        "lake/day=3/d.csv",
        "id,customer,amount,time\nx1,c1,1,1970-01-01T00:00:00Z\nx2,c1,-3,1970-01-01T00:00:00Z\n",
    );
    project.write("lake/README.md", "no facts");
}

fn import(project: &TempProject, more: &[&str]) -> Value {
    let arguments = [
        more,
        &[
            "--json",
            "import",
            "purchase",
            "lake",
            "--rejected",
            "rejected.ndjson",
        ],
    ];
    serde_json::from_str(&project.run_ok(&arguments.concat())).unwrap()
}

fn counted(server: &ServerProcess) -> u64 {
    let entities: Vec<Value> = (0..7)
        .map(|c| json!({"customer": format!("c{c}")}))
        .collect();
    let asked = json!({"features": ["spending.purchases_lifetime"], "entities": entities});
    let reply = server.post_json("/v1/features", &asked).json();
    let rows = reply["rows"].as_array().unwrap().clone();
    rows.iter().map(|r| r["values"][0].as_u64().unwrap()).sum()
}

/// 40,000 rows of Parquet and two of CSV, of which 40 and one break the contract.
const GOOD: u64 = 40_000 - 40 + 1;

#[test]
fn a_lake_is_imported_once_into_a_folder_or_a_server() {
    let project = TempProject::new(BINARY, SHOP);
    project.run_ok(&["apply"]);
    lake(&project);
    let first = import(&project, &[]);
    assert_eq!(
        (&first["accepted"], &first["rejected"]),
        (&json!(GOOD), &json!(41))
    );
    let rejected = std::fs::read_to_string(project.path().join("rejected.ndjson")).unwrap();
    let rejected: Vec<Value> = rejected
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(rejected.len(), 41);
    // The row is that of the file, in the third batch of the second file too.
    assert_eq!(
        rejected[37],
        json!({"file": "lake/day=2/b.parquet", "row": 17_500, "field": "amount", "reason": rejected[37]["reason"]})
    );
    assert_eq!(
        (&rejected[40]["file"], &rejected[40]["row"]),
        (&json!("lake/day=3/d.csv"), &json!(1))
    );
    let again = import(&project, &[]);
    assert_eq!(
        (&again["accepted"], &again["duplicates"]),
        (&json!(0), &json!(GOOD))
    );
    // Into a server it goes over HTTP, and the held folder says so.
    let server = ServerProcess::start(&project);
    let said = project.run_fails(&["import", "purchase", "lake"]);
    assert!(said.contains("--server"), "{said}");
    let again = import(&project, &["--server", &server.url]);
    assert_eq!(
        (&again["accepted"], &again["duplicates"]),
        (&json!(0), &json!(GOOD))
    );
    assert_eq!(counted(&server), GOOD);
    let other = TempProject::new(BINARY, SHOP);
    other.run_ok(&["apply"]);
    lake(&other);
    let served = ServerProcess::start(&other);
    let first = import(&other, &["--server", &served.url]);
    assert_eq!(
        (&first["accepted"], &first["rejected"]),
        (&json!(GOOD), &json!(41))
    );
    let twice = std::fs::read_to_string(other.path().join("rejected.ndjson")).unwrap();
    assert_eq!(twice.lines().count(), 41);
    assert_eq!(
        serde_json::from_str::<Value>(twice.lines().nth(37).unwrap()).unwrap(),
        rejected[37]
    );
    assert_eq!(counted(&served), GOOD);
}

#[test]
fn an_import_that_was_killed_is_run_again() {
    let project = TempProject::new(BINARY, SHOP);
    project.run_ok(&["apply"]);
    lake(&project);
    let mut cut = 0;
    for round in 0..4 {
        let mut child = Command::new(project.binary())
            .args(["import", "purchase", "lake"])
            .current_dir(project.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(20 + 25 * round));
        cut += u32::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(cut > 0, "each import was faster than its kill");
    let last = import(&project, &[]);
    let total = last["accepted"].as_u64().unwrap() + last["duplicates"].as_u64().unwrap();
    assert_eq!(total, GOOD, "{last}");
    assert_eq!(counted(&ServerProcess::start(&project)), GOOD);
}

#[test]
fn what_cannot_be_imported_is_said_before_anything_is() {
    let project = TempProject::new(BINARY, SHOP);
    let without = crate::CONTRACTS.replace("      - {property: headwater.factId, value: id}\n", "");
    project.write("contracts/shop.yaml", without);
    project.run_ok(&["apply"]);
    lake(&project);
    let said = project.run_fails(&["import", "purchase", "lake"]);
    assert!(
        said.contains("`purchase` has no fact id") && said.contains("headwater.factId"),
        "{said}"
    );
    let server = ServerProcess::start(&project);
    let said = project.run_fails(&["--server", &server.url, "import", "purchase", "lake"]);
    assert!(said.contains("has no fact id"), "{said}");
    let said = project.run_fails(&[
        "--server",
        &server.url,
        "import",
        "purchase",
        "lake/README.md",
    ]);
    assert!(said.contains("README.md has no known format"), "{said}");
    assert!(server.stop());
    let next = crate::CONTRACTS.replace("version: 1.0.0", "version: 2.0.0");
    project.write("contracts/shop.yaml", next);
    project.run_ok(&["apply"]);
    project.write("broken.parquet", "PAR1 no more");
    let said = project.run_fails(&["import", "purchase", "broken.parquet"]);
    assert!(said.contains("broken.parquet"), "{said}");
}

#[test]
fn columns_that_are_missing_are_named_before_the_first_row() {
    let project = TempProject::new(BINARY, SHOP);
    project.run_ok(&["apply"]);
    project.write(
        "headless.csv",
        "x1,c1,1,1970-01-01T00:00:00Z\nx2,c1,3,1970-01-01T00:00:00Z\n",
    );
    let said = project.run_fails(&["import", "purchase", "headless.csv"]);
    for words in ["lacks columns", "time", "it has: x1", "headless.csv"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    project.write("bad.ndjson", "{\"id\":\"a\"}\n");
    let said = project.run_fails(&["import", "purchase", "bad.ndjson"]);
    assert!(said.contains("no row became a fact"), "{said}");
    let said = project.run_fails(&["import", "purchase", "nowhere"]);
    assert!(said.contains("there is no nowhere"), "{said}");
    // One row lay in quarantine before: none of the file that was refused.
    let kept = project.run_ok(&["--json", "facts", "quarantine", "purchase"]);
    assert!(!kept.contains("x1"), "{kept}");
}

/// What the archive holds is a lake, too: another project of the same definitions takes it in.
#[test]
fn an_archive_is_imported_into_another_project() {
    let config = crate::archive::ON_DEMAND;
    let project = TempProject::new(BINARY, SHOP);
    project.write("headwater.yaml", config);
    project.run_ok(&["apply"]);
    lake(&project);
    import(&project, &[]);
    project.run_ok(&["archive"]);
    let other = TempProject::new(BINARY, SHOP);
    other.run_ok(&["apply"]);
    let files = project.path().join(".headwater/archive/contract=purchase");
    let told = other.run_ok(&["--json", "import", "purchase", files.to_str().unwrap()]);
    let told: Value = serde_json::from_str(&told).unwrap();
    let archived = crate::archive::rows_by_sequence(project.path()).len() as u64;
    assert!(archived > GOOD / 2, "{archived}");
    assert_eq!(
        (&told["accepted"], &told["rejected"]),
        (&json!(archived), &json!(0)),
        "{told}"
    );
    assert_eq!(counted(&ServerProcess::start(&other)), archived);
}
