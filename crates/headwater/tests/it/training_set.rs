//! Training sets from outside: equal to live reads at the same cursors, in every format; what is refused.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::ipc::writer::StreamWriter;
use headwater_testkit::{ServerProcess, TempProject};
use parquet::arrow::ArrowWriter;
use serde_json::{Value, json};

use crate::{BINARY, SHOP};

const RISK: &str = "
apiVersion: headwater/v1
kind: FeatureSet
name: risk
spec:
  features: ['spending.*']
  context: [{name: amount, type: number}]
  on_demand:
    - {name: ratio, expression: amount / spent_1h, default: -1}
";

/// Nothing is held in memory that may be written down.
const SETTINGS: &str = "name: shop\nspec: {training_sets: {memory_bytes_max: 0}}\n";

/// Purchases whose sums of floats would tell another order of adding apart.
fn shop() -> TempProject {
    let project = TempProject::new(BINARY, SHOP);
    project.write("headwater.yaml", SETTINGS);
    project.write("features/risk.yaml", RISK);
    project.run_ok(&["apply"]);
    let mut facts = String::new();
    for i in 0..60u32 {
        let who = ["ada", "bob", "cyd"][(i % 3) as usize];
        let amount = f64::from(i * 37 % 101) / 10.0 + 0.1;
        let time = u64::from(i * 53 % 60) * 1_000_000;
        facts.push_str(&format!(
            "{{\"id\":\"f{i}\",\"customer\":\"{who}\",\"amount\":{amount},\"time\":{time}}}\n"
        ));
    }
    project.write("facts.ndjson", facts);
    project.run_ok(&["ingest", "purchase", "facts.ndjson"]);
    project
}

/// (customer, second, amount): any order, a row twice, a null key, an unknown customer.
fn rows() -> Vec<(Option<&'static str>, i64, f64)> {
    let mut rows = vec![(Some("zoe"), 30, 1.0), (None, 20, 2.0)];
    for second in [59, 3, 31, 3, 17, 120, 0] {
        for who in ["bob", "ada", "cyd"] {
            rows.push((Some(who), second, 2.5));
        }
    }
    rows
}

fn csv() -> String {
    let line = |(who, second, amount): (Option<&str>, i64, f64)| {
        format!(
            "{},{},{amount},\"n,{second}\"\n",
            who.unwrap_or(""),
            second * 1_000_000
        )
    };
    let lines: String = rows().into_iter().map(line).collect();
    format!("customer,as_of,amount,note\n{lines}")
}

fn ndjson() -> String {
    let line = |(who, second, amount): (Option<&str>, i64, f64)| {
        let time = second * 1_000_000;
        // By hand: the columns come in the order of the first row's fields.
        format!(
            "{{\"customer\":{},\"as_of\":{time},\"amount\":{amount:?},\"note\":\"n,{second}\"}}\n",
            json!(who)
        )
    };
    rows().into_iter().map(line).collect()
}

fn batch() -> RecordBatch {
    let rows = rows();
    let keys: StringArray = rows.iter().map(|r| r.0).collect();
    let times: TimestampMicrosecondArray = rows.iter().map(|r| Some(r.1 * 1_000_000)).collect();
    let amounts: arrow::array::Float64Array = rows.iter().map(|r| Some(r.2)).collect();
    let notes: StringArray = rows.iter().map(|r| Some(format!("n,{}", r.1))).collect();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("customer", Arc::new(keys)),
        ("as_of", Arc::new(times.with_timezone("UTC"))),
        ("amount", Arc::new(amounts)),
        ("note", Arc::new(notes)),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

fn arrow_bytes() -> Vec<u8> {
    let mut writer = StreamWriter::try_new(Vec::new(), &batch().schema()).unwrap();
    writer.write(&batch()).unwrap();
    writer.into_inner().unwrap()
}

fn parquet_bytes() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch().schema(), None).unwrap();
    writer.write(&batch()).unwrap();
    writer.close().unwrap();
    bytes
}

/// What `POST /v1/features` says of every row, as the CSV that a training set of them is.
fn live(server: &ServerProcess, inclusive: bool) -> String {
    let mut lines = String::new();
    for (who, second, amount) in rows() {
        // A null key is nobody: like a customer whom no fact names.
        let body = json!({"feature_set": "risk", "entities": [{"customer": who.unwrap_or("nobody")}],
            "context": [{"amount": amount}], "as_of": second * 1_000_000, "inclusive": inclusive});
        let reply = server.post_json("/v1/features", &body).json();
        if lines.is_empty() {
            let names: Vec<String> = serde_json::from_value(reply["names"].clone()).unwrap();
            lines = format!("customer,as_of,amount,note,{}\n", names.join(","));
        }
        let time = headwater_schema::time::format_timestamp(second * 1_000_000);
        let values = reply["rows"][0]["values"].as_array().unwrap().iter();
        let values = values.map(|v| match v {
            Value::Null => String::new(),
            value => value.to_string(),
        });
        let values: Vec<String> = values.collect();
        let amount = json!(amount);
        let who = who.unwrap_or("");
        lines.push_str(&format!(
            "{who},{time},{amount},\"n,{second}\",{}\n",
            values.join(",")
        ));
    }
    lines
}

/// A table of any format as CSV text, by the program's own writer of CSV.
fn as_csv(batches: impl Iterator<Item = RecordBatch>) -> String {
    use headwater_batch::{OutputFormat, TableWriter};
    let batches: Vec<RecordBatch> = batches.collect();
    let mut out = Vec::new();
    let schema = batches[0].schema();
    let mut writer = TableWriter::new(OutputFormat::Csv, &schema, Box::new(&mut out)).unwrap();
    for batch in &batches {
        writer.write(batch).unwrap();
    }
    writer.finish().unwrap();
    String::from_utf8(out).unwrap()
}

fn read(bytes: &[u8], format: headwater_schema::decode::BodyFormat) -> String {
    let batches = headwater_schema::decode::read_record_batches(format, bytes).unwrap();
    as_csv(batches.map(Result::unwrap))
}

#[test]
fn rows_are_what_live_reads_say() {
    use headwater_schema::decode::BodyFormat::{ArrowStream, Parquet};
    let project = shop();
    let server = ServerProcess::start(&project);
    let (exclusive, inclusive) = (live(&server, false), live(&server, true));
    assert_ne!(exclusive, inclusive);
    let spines: [(&str, &str, Vec<u8>); 4] = [
        ("s.csv", "text/csv", csv().into()),
        ("s.ndjson", "application/x-ndjson", ndjson().into()),
        (
            "s.arrow",
            "application/vnd.apache.arrow.stream",
            arrow_bytes(),
        ),
        (
            "s.parquet",
            "application/vnd.apache.parquet",
            parquet_bytes(),
        ),
    ];
    for (file, media_type, bytes) in &spines {
        project.write(file, bytes);
        let reply = server.post("/v1/training-sets?feature_set=risk", media_type, bytes);
        assert_eq!(reply.status, 200, "{}", reply.body);
        assert_eq!(
            read(&reply.bytes, ArrowStream),
            exclusive,
            "{file} over HTTP"
        );
    }
    assert!(server.stop());
    for (spine, ..) in &spines {
        for out in ["t.csv", "t.arrow", "t.parquet"] {
            project.run_ok(&[
                "training-set",
                "--set",
                "risk",
                "--spine",
                spine,
                "--out",
                out,
            ]);
            let bytes = std::fs::read(project.path().join(out)).unwrap();
            let text = match out {
                "t.csv" => String::from_utf8(bytes).unwrap(),
                "t.arrow" => read(&bytes, ArrowStream),
                _ => read(&bytes, Parquet),
            };
            assert_eq!(text, exclusive, "{spine} to {out}");
        }
    }
    let arguments = [
        "training-set",
        "--set",
        "risk",
        "--spine",
        "s.csv",
        "--out",
        "i.csv",
        "--inclusive",
    ];
    project.run_ok(&arguments);
    assert_eq!(
        std::fs::read_to_string(project.path().join("i.csv")).unwrap(),
        inclusive
    );
    let spilled = std::fs::read_dir(project.path().join(".headwater/spill"));
    assert_eq!(spilled.expect("something was spilled").count(), 0);
}

#[test]
fn a_manifest_makes_the_same_bytes_again() {
    let project = shop();
    project.write("s.csv", csv());
    project.run_ok(&[
        "training-set",
        "--set",
        "risk",
        "--spine",
        "s.csv",
        "--out",
        "a.parquet",
    ]);
    let more = "{\"id\":\"late\",\"customer\":\"ada\",\"amount\":7,\"time\":2000000}\n";
    project.write("more.ndjson", more);
    project.run_ok(&["ingest", "purchase", "more.ndjson"]);
    let manifest = "a.parquet.manifest.json";
    let again = [
        "training-set",
        "--manifest",
        manifest,
        "--spine",
        "s.csv",
        "--out",
        "b.parquet",
    ];
    project.run_ok(&again);
    let bytes = |name: &str| std::fs::read(project.path().join(name)).unwrap();
    assert!(bytes("a.parquet") == bytes("b.parquet"), "other bytes");
    assert!(
        bytes(manifest) == bytes("b.parquet.manifest.json"),
        "another manifest"
    );
    project.run_ok(&[
        "training-set",
        "--set",
        "risk",
        "--spine",
        "s.csv",
        "--out",
        "c.parquet",
    ]);
    assert!(
        bytes("a.parquet") != bytes("c.parquet"),
        "the late fact isn't seen"
    );
    project.write("s.csv", csv().replace("2.5", "3.5"));
    assert!(
        project
            .run_fails(&again)
            .contains("isn't the one that the manifest names")
    );
    project.write("s.csv", csv());
    project.write("features/risk.yaml", RISK.replace("-1", "-2"));
    project.run_ok(&["apply"]);
    let said = project.run_fails(&again);
    assert!(
        said.contains("is defined otherwise now") && said.contains("feature_sets/risk"),
        "{said}"
    );
}

#[test]
fn a_plain_sets_definition_counts_and_so_do_the_bytes() {
    let project = shop();
    project.write("s.csv", csv().replace(",amount,", ",weight,"));
    let make = |arguments: &[&str]| {
        let both = ["training-set", "--spine", "s.csv", "--out", "a.csv"];
        project.run(&[&both, arguments].concat())
    };
    assert!(make(&["--set", "customer_now"]).status.success());
    let path = project.path().join("a.csv.manifest.json");
    let kept = project.path().join("kept.json");
    std::fs::copy(&path, &kept).unwrap();
    let again = |arguments: &[&str]| {
        let output = make(&[&["--manifest", "kept.json"], arguments].concat());
        String::from_utf8(output.stderr).unwrap()
    };
    assert_eq!(again(&[]), "");
    let text = std::fs::read_to_string(&kept).unwrap();
    let manifest: Value = serde_json::from_str(&text).unwrap();
    let sha256 = manifest["sha256"].as_str().unwrap();
    std::fs::write(&kept, text.replace(sha256, "0")).unwrap();
    let said = again(&[]);
    assert!(said.contains("isn't, byte for byte, what it was"), "{said}");
    std::fs::write(&kept, text).unwrap();
    let narrower = crate::FEATURES.replace("'spending.*'", "spending.last");
    project.write("features/shop.yaml", narrower);
    project.run_ok(&["apply"]);
    assert!(again(&[]).contains("feature_sets/customer_now"));
}

#[test]
fn more_at_once_than_may_be_is_refused() {
    let project = shop();
    project.write(
        "headwater.yaml",
        SETTINGS.replace("memory_bytes_max", "running_max"),
    );
    let server = ServerProcess::start(&project);
    let reply = server.post("/v1/training-sets?feature_set=risk", "text/csv", csv());
    assert_eq!(reply.status, 503, "{}", reply.body);
    assert!(
        reply.body.contains("training_sets.running_max"),
        "{}",
        reply.body
    );
}

#[test]
fn wrong_input_is_named_and_leaves_nothing() {
    let project = shop();
    let cases: [(&str, &str, &str); 8] = [
        (
            "who,as_of,amount\nada,1,1\n",
            "risk",
            "no column `customer`",
        ),
        ("customer,at,amount\nada,1,1\n", "risk", "no time column"),
        ("customer,as_of\nada,1\n", "risk", "no column `amount`"),
        (
            "customer,as_of,amount\nada,2020-01-01T00:00:00,1\n",
            "risk",
            "`as_of`",
        ),
        ("customer,as_of,amount\nada,1,much\n", "risk", "`amount`"),
        ("customer,as_of,amount\n", "risk", "no rows"),
        (
            "customer,as_of,amount\nada,1,1\n",
            "rask",
            "no feature set `rask`",
        ),
        (
            "customer,as_of,amount,risk.ratio\nada,1,1,1\n",
            "risk",
            "two columns are called",
        ),
    ];
    for (spine, set, words) in cases {
        project.write("s.csv", spine);
        let said = project.run_fails(&[
            "training-set",
            "--set",
            set,
            "--spine",
            "s.csv",
            "--out",
            "t.csv",
        ]);
        assert!(said.contains(words), "no `{words}` in {said}");
    }
    let naive: TimestampMicrosecondArray = vec![1].into();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("customer", Arc::new(StringArray::from(vec!["ada"]))),
        ("as_of", Arc::new(naive)),
        (
            "amount",
            Arc::new(arrow::array::Float64Array::from(vec![1.0])),
        ),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    project.write("s.arrow", writer.into_inner().unwrap());
    let said = project.run_fails(&[
        "training-set",
        "--set",
        "risk",
        "--spine",
        "s.arrow",
        "--out",
        "t.csv",
    ]);
    assert!(said.contains("have no time zone"), "{said}");
    let left = std::fs::read_dir(project.path()).unwrap();
    let left = left.map(|e| e.unwrap().file_name().into_string().unwrap());
    assert!(!left.into_iter().any(|name| name.starts_with("t.csv")));
}

#[test]
fn rows_know_what_had_arrived_by_then_and_facts_see_what_came_before_them() {
    let project = shop();
    project.write("s.csv", csv());
    let set = [
        "training-set",
        "--feature",
        "spending.purchases_lifetime",
        "--spine",
        "s.csv",
        "--out",
        "t.csv",
    ];
    project.run_ok(&[&set[..], &["--known-at", "arrival"]].concat());
    let text = std::fs::read_to_string(project.path().join("t.csv")).unwrap();
    assert!(
        text.lines().skip(1).all(|line| line.ends_with(",0")),
        "{text}"
    );
    project.write(
        "s.csv",
        "customer,as_of,fact_contract,fact_id\nada,9,purchase,f0\nada,9,purchase,f57\n",
    );
    project.run_ok(&set);
    let text = std::fs::read_to_string(project.path().join("t.csv")).unwrap();
    assert!(text.contains(",purchase,f0,0\n"), "{text}");
    project.write(
        "s.csv",
        "customer,as_of,fact_contract,fact_id\nada,9,purchase,none\n",
    );
    assert!(project.run_fails(&set).contains("there is no fact `none`"));
}
