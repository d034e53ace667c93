//! Training sets and scores larger than the memory they may take: a process of its own, watched while it works.

use std::fmt::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use headwater_testkit::TempProject;

use crate::BINARY;

/// `training_sets.memory_bytes_max`.
const BUDGET: u64 = 4 << 20;
/// What it takes beside that, and beside what the same process takes for a spine of one row: parts of the spine and of the
/// log while they are read, the sample that tells types, buffers of files and of runs that are merged, chunks on their way.
const BESIDE: u64 = 60 << 20;
/// What rows of a model's own inputs take: chunks on their way from one file to the other.
const VECTORS: u64 = 32 << 20;
/// Bytes of text in each row of the spine, and in each fact.
const TEXT_BYTES: usize = 400;
const ROWS: u64 = 10 * BUDGET / TEXT_BYTES as u64;

const PROJECT: &str = "\
kind: DataContract
apiVersion: v3.1.0
id: shop
version: 1.0.0
status: active
schema:
  - name: purchase
    properties:
      - {name: id, logicalType: string, required: true}
      - {name: customer, logicalType: string}
      - {name: note, logicalType: string}
      - {name: amount, logicalType: number}
      - {name: time, logicalType: timestamp, required: true}
    customProperties:
      - {property: headwater.eventTime, value: time}
      - {property: headwater.factId, value: id}
      - {property: headwater.timeUnit, value: us}
---
apiVersion: headwater/v1
kind: Entity
name: customer
spec: {keys: [{name: customer, type: string}]}
---
apiVersion: headwater/v1
kind: FeatureView
name: spending
spec:
  entity: customer
  sources: [{contract: purchase}]
  features:
    - {name: purchases, aggregate: count, windows: [1m, lifetime]}
    - {name: spent, aggregate: sum, of: amount, windows: [1h]}
    - {name: note, aggregate: last, of: note}
---
apiVersion: headwater/v1
kind: Label
name: next_note
spec: {contract: purchase, match: customer, horizon: 10s, value: note}
";

const MODELS: &str = "\
apiVersion: headwater/v1
kind: FeatureSet
name: spending_now
spec: {features: ['spending.*']}
---
apiVersion: headwater/v1
kind: Model
name: sum
spec:
  feature_set: spending_now
  inputs: {purchases: spending.purchases_1m, spent: spending.spent_1h}
";
const RULES: &str = "\
format: headwater-rules/1
inputs: [{name: purchases, type: integer}, {name: spent, type: number}]
outputs: [{name: sum, expression: purchases + spent}]
";

fn settings(memory_bytes_max: u64) -> String {
    format!(
        "name: shop\nspec:\n  ingest: {{sync: never, segment_bytes_max: 4194304}}\n  state: {{shards: 1, memory_bytes_max: 1048576, disk_cache_bytes: 1048576}}\n  \
         training_sets: {{memory_bytes_max: {memory_bytes_max}}}\n"
    )
}

/// A text of its own for every number, which doesn't shrink much.
fn text(number: u64) -> String {
    let mut text = String::with_capacity(TEXT_BYTES);
    let mut state = number;
    while text.len() < TEXT_BYTES {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        write!(text, "{:08x}", state >> 32).expect("written");
    }
    text
}

/// Makes a training set; the most memory that its process had.
fn peak(project: &TempProject, spine: &str, out: &str) -> u64 {
    let arguments = [
        "training-set",
        "--feature",
        "spending.purchases_1m",
        "--feature",
        "spending.purchases_lifetime",
        "--feature",
        "spending.spent_1h",
        "--feature",
        "spending.note",
        "--label",
        "next_note",
        "--labels-as-of",
        "2020-01-01T00:00:00Z",
        "--spine",
        spine,
        "--out",
        out,
    ];
    peak_of(project, &arguments)
}

/// The most memory that a process had.
fn peak_of(project: &TempProject, arguments: &[&str]) -> u64 {
    let mut child = Command::new(BINARY)
        .args(arguments)
        .current_dir(project.path())
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    let status = format!("/proc/{}/status", child.id());
    let mut most = 0;
    loop {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kibibytes = line.and_then(|l| l.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        most = most.max(kibibytes.unwrap_or(0) << 10);
        if let Some(status) = child.try_wait().expect("it can be waited for") {
            assert!(status.success(), "{status}");
            assert!(most > 0, "no memory was seen");
            return most;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The least of a few runs, where the first takes more: threads that wait for a core hold their buffers longer.
fn least(most: u64, run: impl Fn() -> u64) -> u64 {
    let mut seen = run();
    for _ in 0..2 {
        if seen >= most {
            seen = seen.min(run());
        }
    }
    seen
}

/// A project with a history of ten budgets, and a spine of as many.
fn grown(more: &[(&str, &str)]) -> TempProject {
    let project = TempProject::new(BINARY, &[&[("shop.yaml", PROJECT)][..], more].concat());
    project.write("headwater.yaml", settings(BUDGET));
    project.run_ok(&["apply"]);
    let (mut facts, mut spine) = (
        "id,customer,note,amount,time\n".to_owned(),
        "customer,as_of,own\n".to_owned(),
    );
    for i in 0..ROWS {
        let (who, second) = (i * 7919 % 5003, i * 104_729 % 100_000);
        let (note, own) = (text(i), text(i + ROWS));
        writeln!(facts, "f{i},c{who},{note},{}.25,{second}000000", i % 100).expect("written");
        writeln!(spine, "c{},{}500000,{own}", i * 31 % 5503, i * 7 % 100_000).expect("written");
    }
    project.write("facts.csv", &facts);
    project.write("s.csv", &spine);
    project.run_ok(&["ingest", "purchase", "facts.csv"]);
    project.write("one.csv", "customer,as_of,own\nc1,500000,x\n");
    project
}

#[test]
fn a_spine_and_a_history_of_ten_budgets_stay_within_one() {
    let project = grown(&[]);
    let base = peak(&project, "one.csv", "one.arrow");
    let bounded = least(base + BUDGET + BESIDE, || {
        peak(&project, "s.csv", "bounded.arrow")
    });
    project.write("headwater.yaml", settings(1 << 30));
    let free = peak(&project, "s.csv", "free.arrow");
    let read = |name: &str| std::fs::read(project.path().join(name)).expect("written");
    assert!(read("bounded.arrow") == read("free.arrow"), "other bytes");
    let told = [base, bounded, free].map(|bytes| bytes >> 20);
    let told = format!("a row, bounded, free: {told:?} MiB");
    assert!(bounded < base + BUDGET + BESIDE, "{told}");
    // The measure sees what isn't bounded.
    assert!(free > base + BUDGET + BESIDE, "{told}");
    let left = std::fs::read_dir(project.path().join(".headwater/spill"));
    assert_eq!(left.expect("something was spilled").count(), 0);

    // The disk has a limit, too, and nothing is left of what goes beyond.
    let small = settings(BUDGET).replace(
        "{memory_bytes_max: 4",
        "{spill_bytes_max: 9000000, memory_bytes_max: 4",
    );
    project.write("headwater.yaml", small);
    let arguments = [
        "training-set",
        "--feature",
        "spending.note",
        "--spine",
        "s.csv",
        "--out",
        "no.csv",
    ];
    let said = project.run_fails(&arguments);
    assert!(said.contains("`training_sets.spill_bytes_max`"), "{said}");
    assert!(!project.path().join("no.csv").exists() && !project.path().join("no.csv.new").exists());
}

/// What a model says of each row: by entities, with all features beside it, or of its own inputs.
#[test]
fn scores_of_ten_budgets_stay_within_one() {
    let project = grown(&[("models.yaml", MODELS), ("sum.rules", RULES)]);
    project.run_ok(&["models", "add", "sum", "sum.rules", "--alias", "live"]);
    let score = |rows: &str, out: &str, more: &[&str]| {
        let arguments = ["score", "--model", "sum", "--in", rows, "--out", out];
        peak_of(&project, &[&arguments[..], more].concat())
    };
    let read = |name: &str| std::fs::read(project.path().join(name)).expect("written");
    let with = ["--with-features"];
    let base = score("one.csv", "one.arrow", &with);
    let bounded = least(base + BUDGET + BESIDE, || {
        score("s.csv", "bounded.arrow", &with)
    });
    project.write("headwater.yaml", settings(1 << 30));
    let free = score("s.csv", "free.arrow", &with);
    assert!(read("bounded.arrow") == read("free.arrow"), "other bytes");
    let told = [base, bounded, free].map(|bytes| bytes >> 20);
    let told = format!("a row, bounded, free: {told:?} MiB");
    assert!(bounded < base + BUDGET + BESIDE, "{told}");
    // The measure sees what isn't bounded.
    assert!(free > base + BUDGET + BESIDE, "{told}");

    // Rows of the model's own inputs wait for nothing: a few chunks, whatever the settings allow.
    let mut rows = "purchases,spent,own\n".to_owned();
    project.write("one.csv", format!("{rows}1,0.5,x\n"));
    for i in 0..ROWS {
        writeln!(rows, "{},{}.5,{}", i % 100, i % 1000, text(i)).expect("written");
    }
    project.write("rows.csv", &rows);
    let own = ["--vectors"];
    let base = score("one.csv", "one.arrow", &own);
    let all = least(base + VECTORS, || score("rows.csv", "all.arrow", &own));
    let told = [base, all, rows.len() as u64].map(|bytes| bytes >> 20);
    let told = format!("a row, all, the file: {told:?} MiB");
    assert!(all < base + VECTORS, "{told}");
    // The file alone would be more, and all of it came out.
    assert!(rows.len() as u64 > VECTORS, "{told}");
    assert!(read("all.arrow").len() > rows.len(), "{told}");
}
