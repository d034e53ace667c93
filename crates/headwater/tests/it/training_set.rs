//! Training sets from outside: equal to live reads at the same cursors, in every format; what is refused.

use std::sync::{Arc, Mutex};

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Decimal128Array, DurationMicrosecondArray,
    Float64Array, Int64Array, RecordBatch, StringArray, Time64MicrosecondArray,
    TimestampMicrosecondArray, UInt64Array, new_null_array,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType as ArrowType, Int64Type, TimeUnit};
use arrow::ipc::CompressionType;
use arrow::ipc::writer::{FileWriter, IpcWriteOptions, StreamWriter};
use headwater_api::backend::{Names, TrainingSetRequest};
use headwater_batch::{Progress, ProgressHook, Step};
use headwater_schema::decode::BodyFormat;
use headwater_testkit::{ServerProcess, TempProject, call_with};
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

/// The same in other layouts: texts, and times of other units and zones.
fn layouts() -> Vec<RecordBatch> {
    let texts = [
        ArrowType::Dictionary(ArrowType::Int32.into(), ArrowType::Utf8.into()),
        ArrowType::LargeUtf8,
        ArrowType::Utf8View,
    ];
    let times = [
        ArrowType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
        ArrowType::Timestamp(TimeUnit::Microsecond, Some("America/New_York".into())),
        ArrowType::Timestamp(TimeUnit::Second, Some("+02:00".into())),
    ];
    let batch = batch();
    let layout = |(text, time)| {
        let mut columns = batch.columns().to_vec();
        for (place, wanted) in [(0, text), (1, time), (3, text)] {
            columns[place] = cast(&columns[place], wanted).unwrap();
        }
        let names = batch.schema();
        let names = names.fields().iter().map(|f| f.name().clone());
        RecordBatch::try_from_iter(names.zip(columns)).unwrap()
    };
    texts.iter().zip(&times).map(layout).collect()
}

fn arrow_of(batch: &RecordBatch) -> Vec<u8> {
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    writer.write(batch).unwrap();
    writer.into_inner().unwrap()
}

/// An Arrow IPC file, as pandas and polars write them.
fn file_of(batch: &RecordBatch, compression: Option<CompressionType>) -> Vec<u8> {
    let options = IpcWriteOptions::default().try_with_compression(compression);
    let options = options.unwrap();
    let writer = FileWriter::try_new_with_options(Vec::new(), &batch.schema(), options);
    let mut writer = writer.unwrap();
    writer.write(&batch.slice(0, 5)).unwrap();
    writer.write(&batch.slice(5, batch.num_rows() - 5)).unwrap();
    writer.into_inner().unwrap()
}

fn parquet_of(batch: &RecordBatch) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
    bytes
}

fn parquet_bytes() -> Vec<u8> {
    parquet_of(&batch())
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

fn read(bytes: &[u8], format: BodyFormat) -> String {
    let batches = headwater_schema::decode::read_record_batches(format, bytes).unwrap();
    as_csv(batches.map(Result::unwrap))
}

#[test]
fn rows_are_what_live_reads_say() {
    use BodyFormat::{ArrowStream, Parquet};
    let project = shop();
    let server = ServerProcess::start(&project);
    let (exclusive, inclusive) = (live(&server, false), live(&server, true));
    assert_ne!(exclusive, inclusive);
    let (arrow, parquet) = (ArrowStream.media_type(), Parquet.media_type());
    let lz4 = Some(CompressionType::LZ4_FRAME);
    // The footer alone tells what a file holds: not every writer puts the schema before it, too.
    let mut footed = file_of(&batch(), None);
    footed[8..16].fill(1);
    let spines: [(&str, &str, Vec<u8>); 6] = [
        ("s.csv", "text/csv", csv().into()),
        ("s.ndjson", "application/x-ndjson", ndjson().into()),
        ("s.arrow", arrow, arrow_of(&batch())),
        ("s.ipc", arrow, footed),
        ("s.feather", arrow, file_of(&batch(), lz4)),
        ("s.parquet", parquet, parquet_bytes()),
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
        let path = "/v1/training-sets?feature_set=risk&inclusive=true";
        let reply = server.post(path, media_type, bytes);
        assert_eq!(read(&reply.bytes, ArrowStream), inclusive, "{file}");
    }
    for batch in layouts() {
        for (media_type, bytes) in [(arrow, arrow_of(&batch)), (parquet, parquet_of(&batch))] {
            let path = "/v1/training-sets?feature_set=risk";
            let reply = server.post(path, media_type, bytes);
            let layout = format!("{media_type} of {}", batch.schema());
            assert_eq!(reply.status, 200, "{layout}: {}", reply.body);
            assert_eq!(read(&reply.bytes, ArrowStream), exclusive, "{layout}");
        }
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
    for (spine, ..) in &spines {
        let set = ["training-set", "--set", "risk", "--inclusive"];
        let files = ["--spine", spine, "--out", "i.csv"];
        project.run_ok(&[&set[..], &files].concat());
        let made = std::fs::read_to_string(project.path().join("i.csv")).unwrap();
        assert_eq!(made, inclusive, "{spine}");
    }
    let spilled = std::fs::read_dir(project.path().join(".headwater/spill"));
    assert_eq!(spilled.expect("something was spilled").count(), 0);
}

#[test]
fn each_step_is_told_up_to_all_rows() {
    let project = shop();
    project.write("s.csv", csv());
    let config = headwater::Config::named("shop");
    let engine = crate::open_engine(&config, &project.path().join(".headwater"));
    let request = TrainingSetRequest {
        names: Names::Set("risk".to_owned()),
        inclusive: false,
        known_at: None,
        facts_until: None,
        time: "as_of".to_owned(),
        labels: Vec::new(),
        labels_as_of: None,
    };
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hears = heard.clone();
    let hook = ProgressHook::new(move |progress| hears.lock().unwrap().push(progress));
    let (spine, out) = (project.path().join("s.csv"), project.path().join("t.csv"));
    let made = engine.write_training_set(&request, &spine, &out, None, &hook);
    let rows = made.unwrap().spine.rows as u64;
    let told: Vec<Progress> = heard.lock().unwrap().clone();
    assert!(told.is_sorted_by_key(|progress| match progress.step {
        Step::ReadSpine => 0,
        Step::SweepFacts { sweep, .. } => 2 * sweep,
        Step::SweepRows { sweep, .. } => 2 * sweep + 1,
        Step::WriteTable => usize::MAX,
    }));
    let sweep = Step::SweepRows {
        sweep: 1,
        sweeps: 1,
    };
    for (step, total) in [
        (Step::ReadSpine, None),
        (sweep, Some(rows)),
        (Step::WriteTable, Some(rows)),
    ] {
        let last = told.iter().rfind(|progress| progress.step == step);
        let done = rows;
        assert_eq!(last, Some(&Progress { step, done, total }), "{told:?}");
    }
}

#[test]
fn progress_is_for_terminals_alone() {
    let project = shop();
    project.write("s.csv", csv());
    let set = ["training-set", "--set", "risk", "--spine", "s.csv"];
    let output = project.run(&[&set[..], &["--out", "t.csv"]].concat());
    assert!(output.status.success());
    for words in ["Reading the spine", "Sweep ", "Writing rows"] {
        for told in [&output.stdout, &output.stderr] {
            let told = String::from_utf8_lossy(told);
            assert!(!told.contains(words), "{told}");
        }
    }
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
    let server = ServerProcess::start(&project);
    let by_server = [&["--server", &server.url], &again[..]].concat();
    std::fs::remove_file(project.path().join("b.parquet")).unwrap();
    project.run_ok(&by_server);
    assert!(bytes("a.parquet") == bytes("b.parquet"), "a server's bytes");
    assert!(
        bytes(manifest) == bytes("b.parquet.manifest.json"),
        "a server's manifest"
    );
    project.write("s.csv", csv().replace("2.5", "3.5"));
    let other_spine = "isn't the one that the manifest names";
    assert!(project.run_fails(&by_server).contains(other_spine));
    drop(server);
    assert!(project.run_fails(&again).contains(other_spine));
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
fn an_answer_that_the_caller_does_not_accept_is_not_made() {
    let project = shop();
    let server = ServerProcess::start(&project);
    let ask = |accept: &str| {
        let url = format!("{}/v1/training-sets?feature_set=risk", server.url);
        let headers = [("content-type", "text/csv"), ("accept", accept)];
        call_with("POST", &url, &headers, csv().as_bytes())
    };
    let refused = ask("application/vnd.apache.parquet");
    assert_eq!(refused.status, 406, "{}", refused.body);
    assert!(
        refused.body.contains("apache.arrow.stream"),
        "{}",
        refused.body
    );
    for fine in ["application/vnd.apache.arrow.stream", "*/*"] {
        assert_eq!(ask(fine).status, 200, "{fine}");
    }
}

#[test]
fn wrong_input_is_named_and_leaves_nothing() {
    let project = shop();
    let cases: [(&str, &str, &str); 11] = [
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
        // One row alone, so that no other has the columns.
        (
            "customer,as_of,amount\nada,1\n",
            "risk",
            "row 0: The line has 2 cells, the header 3",
        ),
        (
            "customer,as_of,amount\n\"ada,1,1\n",
            "risk",
            "row 0: The line is no CSV: a quoted cell is not closed",
        ),
        (
            "customer,as_of,amount\nada,1,1\nada,,1\n",
            "risk",
            "row 1 has none",
        ),
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
        // Only of times it is said how they are written.
        let of_times = said.contains("RFC 3339");
        assert!(!(words == "`amount`" && of_times), "{said}");
    }
    let own = "customer,as_of,amount\nada,1,1\n";
    project.write("s.csv", own);
    std::fs::create_dir(project.path().join("sub")).unwrap();
    let mut spines = vec![("s.csv", "./s.csv"), ("s.csv", "sub/../s.csv")];
    if cfg!(unix) {
        std::os::unix::fs::symlink(project.path(), project.path().join("here")).unwrap();
        std::os::unix::fs::symlink("s.csv", project.path().join("link.csv")).unwrap();
        spines.extend([
            ("s.csv", "here/s.csv"),
            ("here/s.csv", "s.csv"),
            ("link.csv", "s.csv"),
        ]);
    }
    for (spine, out) in spines {
        let over = [
            "training-set",
            "--set",
            "risk",
            "--spine",
            spine,
            "--out",
            out,
        ];
        let said = project.run_fails(&over);
        assert!(said.contains("over its own spine"), "{spine} {out}: {said}");
    }
    let kept = std::fs::read_to_string(project.path().join("s.csv")).unwrap();
    assert_eq!(kept, own);
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
    let fails = |spine: &str| {
        let set = ["training-set", "--set", "risk"];
        let files = ["--spine", spine, "--out", "t.csv"];
        project.run_fails(&[&set[..], &files[..]].concat())
    };
    let said = fails("s.arrow");
    assert!(said.contains("have no time zone"), "{said}");
    let whole = file_of(&self::batch(), None);
    for cut in [9, whole.len() / 2, whole.len() - 1] {
        project.write("s.arrow", &whole[..cut]);
        let said = fails("s.arrow");
        assert!(said.contains("an Arrow file that was cut off"), "{said}");
    }
    // Nothing at all, blank lines, no rows.
    let none = self::batch().slice(0, 0);
    let empty: [(&str, Vec<u8>); 7] = [
        ("s.csv", Vec::new()),
        ("s.csv", b"\n\n".to_vec()),
        ("s.ndjson", Vec::new()),
        ("s.arrow", Vec::new()),
        ("s.arrow", arrow_of(&none)),
        ("s.parquet", Vec::new()),
        ("s.parquet", parquet_of(&none)),
    ];
    for (file, bytes) in empty {
        project.write(file, &bytes);
        let said = fails(file);
        let count = bytes.len();
        assert!(
            said.contains("the spine has no rows"),
            "{file} of {count} bytes: {said}"
        );
    }
    let left = std::fs::read_dir(project.path()).unwrap();
    let left = left.map(|e| e.unwrap().file_name().into_string().unwrap());
    assert!(!left.into_iter().any(|name| name.starts_with("t.csv")));
}

/// More rows than two parts have, and then a code.
#[test]
fn columns_that_nobody_asks_for_are_carried_as_they_are() {
    let project = shop();
    let row = |n: u32| match n {
        119_998 => "ada,1,1,00501,18446744073709551616,+4\n".to_owned(),
        119_999 => "ada,1,1,,,\n".to_owned(),
        n => format!("ada,1,1,{n},{n},{n}\n"),
    };
    let rows: String = (0..120_000).map(row).collect();
    project.write(
        "s.csv",
        format!("customer,as_of,amount,zip,count,code\n{rows}"),
    );
    let made = [
        "training-set",
        "--set",
        "risk",
        "--spine",
        "s.csv",
        "--out",
        "t.csv",
    ];
    project.run_ok(&made);
    let text = std::fs::read_to_string(project.path().join("t.csv")).unwrap();
    assert_eq!(text.lines().count(), 120_001);
    for (line, n) in text.lines().skip(1).zip(0..) {
        let own = |line: &str| {
            line.split(',')
                .skip(3)
                .take(3)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(own(line), own(row(n).trim_end()), "row {n}");
    }
}

/// Some more facts arrive: a row of a time in between knows those before alone, though all happened long ago.
fn some_arrive_later(project: &TempProject, set: &[&str]) {
    let now = || {
        std::thread::sleep(std::time::Duration::from_millis(5));
        let now = headwater::Env::real().clock.now();
        std::thread::sleep(std::time::Duration::from_millis(5));
        now
    };
    let more = |ids: [&str; 2]| {
        let fact = |id| {
            format!("{{\"id\":\"{id}\",\"customer\":\"eve\",\"amount\":1,\"time\":2000000}}\n")
        };
        project.write("more.ndjson", ids.map(fact).concat());
        project.run_ok(&["ingest", "purchase", "more.ndjson"]);
        now()
    };
    let moments = [now(), more(["e1", "e2"]), more(["e3", "e4"])];
    let spine = moments.map(|at| format!("eve,{at}\n")).concat();
    project.write("s.csv", format!("customer,as_of\n{spine}"));
    let counts = |more: &[&str]| {
        project.run_ok(&[set, more].concat());
        let text = std::fs::read_to_string(project.path().join("t.csv")).unwrap();
        let last = text.lines().skip(1).map(|line| line.rsplit(',').next());
        last.map(|n| n.unwrap().parse().unwrap())
            .collect::<Vec<u32>>()
    };
    assert_eq!(counts(&["--known-at", "arrival"]), [0, 2, 4]);
    assert_eq!(counts(&[]), [4, 4, 4]);
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
    some_arrive_later(&project, &set);
    project.write(
        "s.csv",
        "customer,as_of,fact_contract,fact_id\nada,0,purchase,f0\nada,21000000,purchase,f57\n",
    );
    project.run_ok(&set);
    let text = std::fs::read_to_string(project.path().join("t.csv")).unwrap();
    assert!(text.contains(",purchase,f0,0\n"), "{text}");
    let counts = |text: &str| -> Vec<String> {
        let last = text
            .lines()
            .skip(1)
            .map(|line| line.rsplit(',').next().unwrap().to_owned());
        last.collect()
    };
    let timed = counts(&text);
    // The time is the fact's, and needn't be said; where others say theirs it is null.
    for (file, spine) in [
        ("f.csv", "customer,fact_contract,fact_id\nada,purchase,f0\nada,purchase,f57\n".to_owned()),
        (
            "f.ndjson",
            ["f0", "f57"]
                .map(|id| format!("{{\"customer\":\"ada\",\"fact_contract\":\"purchase\",\"fact_id\":\"{id}\"}}\n"))
                .concat(),
        ),
        (
            "g.csv",
            "customer,as_of,fact_contract,fact_id\nada,,purchase,f0\nada,21000000,purchase,f57\nada,21000000,,\n".to_owned(),
        ),
    ] {
        project.write(file, spine);
        let mut asked = set;
        asked[4] = file;
        project.run_ok(&asked);
        let text = std::fs::read_to_string(project.path().join("t.csv")).unwrap();
        assert_eq!(counts(&text)[..2], timed, "{file}: {text}");
    }
    project.write(
        "s.csv",
        "customer,as_of,fact_contract,fact_id\nada,,purchase,f0\nada,,,\n",
    );
    let said = project.run_fails(&set);
    assert!(
        said.contains("has no time") && said.contains("row 1"),
        "{said}"
    );
    project.write(
        "s.csv",
        "customer,as_of,fact_contract,fact_id\nada,9,purchase,f57\n",
    );
    let said = project.run_fails(&set);
    assert!(
        said.contains("the row says 1970-01-01T00:00:00.000009Z, the fact `f57` of `purchase` is of 1970-01-01T00:00:21Z"),
        "{said}"
    );
    project.write(
        "s.csv",
        "customer,as_of,fact_contract,fact_id\nada,9,purchase,none\n",
    );
    assert!(project.run_fails(&set).contains("there is no fact `none`"));
}

/// How many purchases ada's row of these columns sees, as an Arrow stream and as Parquet; or what is said instead.
fn counted(server: &ServerProcess, columns: &[(&str, ArrayRef)]) -> Vec<Result<i64, String>> {
    let ada: ArrayRef = Arc::new(StringArray::from(vec!["ada"]));
    let mut all = vec![("customer", ada)];
    all.extend(columns.iter().cloned());
    let batch =
        RecordBatch::try_from_iter_with_nullable(all.into_iter().map(|(n, c)| (n, c, true)));
    let batch = batch.unwrap();
    let path = "/v1/training-sets?features=spending.purchases_lifetime";
    let bodies = [
        (BodyFormat::ArrowStream, arrow_of(&batch)),
        (BodyFormat::Parquet, parquet_of(&batch)),
    ];
    let asked = bodies.map(|(format, body)| {
        let reply = server.post(path, format.media_type(), body);
        if reply.status != 200 {
            assert_eq!(reply.status, 400, "{}", reply.body);
            return Err(reply.body);
        }
        let batches =
            headwater_schema::decode::read_record_batches(BodyFormat::ArrowStream, &reply.bytes);
        let table = batches.unwrap().next().unwrap().unwrap();
        let counts = table.columns().last().unwrap();
        Ok(counts.as_primitive::<Int64Type>().value(0))
    });
    asked.to_vec()
}

fn at_100s() -> (&'static str, ArrayRef) {
    ("as_of", Arc::new(Int64Array::from(vec![100_000_000])))
}

/// Ada has 20 of the 60 purchases, and 4 of the first 10.
#[test]
fn what_a_row_knew_is_read_in_every_type_or_refused() {
    let project = shop();
    let server = ServerProcess::start(&project);
    let knew = |known: ArrayRef| counted(&server, &[at_100s(), ("known_at", known)]);
    let ten: ArrayRef = Arc::new(Int64Array::from(vec![10]));
    let text: ArrayRef = Arc::new(StringArray::from(vec!["10"]));
    let named = |values: ArrowType| ArrowType::Dictionary(ArrowType::Int8.into(), values.into());
    let integers = [
        ArrowType::UInt8,
        ArrowType::Int32,
        ArrowType::UInt32,
        ArrowType::Int64,
        ArrowType::UInt64,
        ArrowType::Decimal128(38, 0),
        ArrowType::Decimal256(40, 0),
        named(ArrowType::UInt64),
    ];
    let texts = [
        ArrowType::Utf8,
        ArrowType::LargeUtf8,
        ArrowType::Utf8View,
        named(ArrowType::Utf8),
    ];
    let integers = integers.iter().map(|t| cast(&ten, t).unwrap());
    let texts = texts.iter().map(|t| cast(&text, t).unwrap());
    for known in integers.chain(texts) {
        assert_eq!(knew(known.clone()), [Ok(4), Ok(4)], "{}", known.data_type());
    }
    // By then nothing had arrived.
    for unit in [
        TimeUnit::Second,
        TimeUnit::Millisecond,
        TimeUnit::Microsecond,
        TimeUnit::Nanosecond,
    ] {
        for zone in ["UTC", "Asia/Kolkata"] {
            let time = ArrowType::Timestamp(unit, Some(zone.into()));
            let known = cast(&ten, &time).unwrap();
            assert_eq!(knew(known), [Ok(0), Ok(0)], "{time}");
        }
        let naive = cast(&ten, &ArrowType::Timestamp(unit, None)).unwrap();
        for said in knew(naive) {
            let said = said.unwrap_err();
            assert!(
                said.contains("column `known_at` have no time zone"),
                "{said}"
            );
        }
    }
    // A row that says nothing knows all, whatever says it.
    for nothing in [ArrowType::Null, ArrowType::Int64, ArrowType::Utf8] {
        assert_eq!(knew(new_null_array(&nothing, 1)), [Ok(20), Ok(20)]);
    }
    let others: [ArrayRef; 8] = [
        Arc::new(Float64Array::from(vec![10.0])),
        Arc::new(
            Decimal128Array::from(vec![100])
                .with_precision_and_scale(4, 1)
                .unwrap(),
        ),
        Arc::new(BooleanArray::from(vec![true])),
        Arc::new(BinaryArray::from_vec(vec![b"10".as_slice()])),
        Arc::new(Time64MicrosecondArray::from(vec![10])),
        Arc::new(DurationMicrosecondArray::from(vec![10])),
        cast(
            &(Arc::new(arrow::array::Int32Array::from(vec![10])) as ArrayRef),
            &ArrowType::Date32,
        )
        .unwrap(),
        Arc::new(arrow::array::FixedSizeBinaryArray::try_from_iter([b"10"].into_iter()).unwrap()),
    ];
    for known in others {
        let wanted = format!("it is {}, wanted is int64", known.data_type());
        for said in knew(known) {
            let said = said.unwrap_err();
            let named = said.contains("column `known_at` has a wrong type");
            assert!(named && said.contains(&wanted), "{said}");
        }
    }
    for said in knew(Arc::new(UInt64Array::from(vec![u64::MAX]))) {
        let said = said.unwrap_err();
        assert!(said.contains("row 0: it doesn't fit int64"), "{said}");
    }
}

#[test]
fn the_fact_that_a_row_is_is_found_or_refused() {
    let project = shop();
    let fact = "{\"id\":\"7\",\"customer\":\"ada\",\"amount\":1,\"time\":30000000}\n";
    project.write("more.ndjson", fact);
    project.run_ok(&["ingest", "purchase", "more.ndjson"]);
    let server = ServerProcess::start(&project);
    let purchase: ArrayRef = Arc::new(StringArray::from(vec!["purchase"]));
    let seven: ArrayRef = Arc::new(Int64Array::from(vec![7]));
    let asked = |columns: &[(&str, &ArrayRef)]| {
        let columns = columns.iter().map(|(n, c)| (*n, ArrayRef::clone(c)));
        counted(&server, &columns.collect::<Vec<_>>())
    };
    // Ten of ada's purchases are of earlier seconds, and one of the same came before it.
    for id in [
        ArrowType::Utf8,
        ArrowType::LargeUtf8,
        ArrowType::Int16,
        ArrowType::UInt64,
        ArrowType::Decimal128(38, 0),
        ArrowType::Dictionary(ArrowType::Int8.into(), ArrowType::Utf8.into()),
    ] {
        let id = cast(&seven, &id).unwrap();
        let count = asked(&[("fact_contract", &purchase), ("fact_id", &id)]);
        assert_eq!(count, [Ok(11), Ok(11)], "{}", id.data_type());
    }
    let refused = |columns: &[(&str, &ArrayRef)], words: &str| {
        let (name, at) = at_100s();
        for said in asked(&[&[(name, &at)][..], columns].concat()) {
            let said = said.unwrap_err();
            assert!(said.contains(words), "no `{words}` in {said}");
        }
    };
    let float = cast(&seven, &ArrowType::Float64).unwrap();
    let none = new_null_array(&ArrowType::Utf8, 1);
    let wrong = "column `fact_id` has a wrong type";
    refused(&[("fact_contract", &purchase), ("fact_id", &float)], wrong);
    let wrong = "column `fact_contract` has a wrong type";
    refused(&[("fact_contract", &seven), ("fact_id", &seven)], wrong);
    refused(
        &[("fact_id", &seven)],
        "a column `fact_id`, and none `fact_contract`",
    );
    refused(
        &[("fact_contract", &purchase)],
        "a column `fact_contract`, and none `fact_id`",
    );
    let half = "row 0 has no `fact_id`";
    refused(&[("fact_contract", &purchase), ("fact_id", &none)], half);
    let half = "row 0 has no `fact_contract`";
    refused(&[("fact_contract", &none), ("fact_id", &seven)], half);
    // A row of which neither is said is no fact.
    let (name, at) = at_100s();
    let plain = asked(&[(name, &at), ("fact_contract", &none), ("fact_id", &none)]);
    assert_eq!(plain, [Ok(21), Ok(21)]);
}

#[test]
fn a_server_makes_what_the_command_makes_beside_the_data() {
    let project = shop();
    project.write(
        "models/labels.yaml",
        crate::labels::LABELS.trim_start_matches("\n---"),
    );
    project.run_ok(&["apply"]);
    project.write("s.csv", csv());
    project.write("s.parquet", parquet_bytes());
    let key = crate::access::key(&project, &["read"]);
    let asked = [
        "training-set",
        "--set",
        "risk",
        "--label",
        "spends",
        "--label",
        "comes_back",
        "--inclusive",
    ];
    let more = ["--labels-as-of", "1970-01-01T00:00:40Z", "--known-at", "50"];
    let outs = ["t.csv", "t.arrow", "t.parquet"];
    let make = |before: &[&str], spine: &str, out: &str| {
        let files = ["--spine", spine, "--out", out];
        project.run_ok(&[before, &asked, &more, &files].concat());
        let read = |name: &str| std::fs::read(project.path().join(name)).unwrap();
        (read(out), read(&format!("{out}.manifest.json")))
    };
    let spines = ["s.csv", "s.parquet"];
    let all = || {
        spines
            .iter()
            .flat_map(|spine| outs.map(|out| (*spine, out)))
    };
    let own: Vec<_> = all().map(|(spine, out)| make(&[], spine, out)).collect();
    let server = ServerProcess::start(&project);
    let remote = ["--server", &server.url, "--key", &key];
    for ((spine, out), own) in all().zip(own) {
        let (table, manifest) = make(&remote, spine, out);
        assert!(table == own.0, "{spine} to {out}: other bytes");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        assert_eq!(text(manifest), text(own.1), "{spine} to {out}");
    }
    let arguments = [
        &remote[..2],
        &asked,
        &["--spine", "s.csv", "--out", "u.csv"],
    ]
    .concat();
    assert!(
        project
            .run_fails(&arguments)
            .contains("this call needs a key"),
        "no key"
    );
    project.write("s.csv", "who,as_of,amount\nada,1,1\n");
    let arguments = [&remote[..], &asked, &["--spine", "s.csv", "--out", "u.csv"]].concat();
    let said = project.run_fails(&arguments);
    assert!(said.contains("no column `customer`"), "{said}");
    let left = std::fs::read_dir(project.path()).unwrap();
    let mut left = left.map(|e| e.unwrap().file_name().into_string().unwrap());
    assert!(!left.any(|name| name.starts_with("u.csv")));
}

const MIXED: &str = "
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
      - {name: shop, logicalType: integer}
      - {name: amount, logicalType: number}
      - {name: time, logicalType: timestamp, required: true}
    customProperties:
      - {property: headwater.eventTime, value: time}
      - {property: headwater.factId, value: id}
      - {property: headwater.timeUnit, value: us}
---
{apiVersion: headwater/v1, kind: Entity, name: customer, spec: {keys: [{name: customer, type: string}]}}
---
{apiVersion: headwater/v1, kind: Entity, name: place, spec: {keys: [{name: shop, type: integer}]}}
---
{apiVersion: headwater/v1, kind: Entity, name: visit, spec: {keys: [{name: customer, type: string}, {name: shop, type: integer}]}}
---
apiVersion: headwater/v1
kind: FeatureView
name: spending
spec:
  entity: customer
  sources: [{contract: purchase}]
  features:
    - {name: n, aggregate: count, windows: [20s]}
    - {name: total, aggregate: sum, of: amount, windows: [lifetime]}
---
apiVersion: headwater/v1
kind: FeatureView
name: regulars
spec:
  entity: place
  sources: [{view: spending, where: n_20s > 1}]
  features:
    - {name: n, aggregate: count, windows: [30s]}
    - {name: richest, aggregate: max, of: total_lifetime, windows: [30s]}
---
apiVersion: headwater/v1
kind: FeatureView
name: visits
spec:
  entity: visit
  sources: [{contract: purchase}]
  features: [{name: n, aggregate: count, windows: [40s]}, {name: last, of: amount}]
---
apiVersion: headwater/v1
kind: FeatureSet
name: mix
spec:
  features: [visits.n_40s, 'regulars.*', spending.total_lifetime, visits.last]
  context: [{name: weight, type: number}]
  on_demand: [{name: share, expression: weight * visits.n_40s / regulars.n_30s}]
";

/// Everything in one set: entities of three kinds, one with two keys, a view over another, what is worked out on demand.
#[test]
fn rows_of_several_entities_and_of_views_of_views_are_what_live_reads_say() {
    let project = TempProject::new(BINARY, &[("headwater.yaml", SETTINGS), ("mix.yaml", MIXED)]);
    project.run_ok(&["apply"]);
    let who = |i: i64| ["ada", "bob", "cyd", "dan"][(i * 7 % 11 % 4) as usize];
    let fact = |i: i64| {
        let (shop, amount, time) = (i * 5 % 3, i * 37 % 101, i * 53 % 60 * 1_000_000);
        format!("f{i},{},{shop},{amount}.1,{time}\n", who(i))
    };
    let facts: String = (0..90).map(fact).collect();
    project.write(
        "facts.csv",
        format!("id,customer,shop,amount,time\n{facts}"),
    );
    project.run_ok(&["ingest", "purchase", "facts.csv"]);
    let rows: Vec<(&str, i64, i64)> = (0..40).map(|i| (who(i * 3), i % 4, i * 29 % 70)).collect();
    let spine = rows.iter().map(|(who, shop, second)| {
        json!({"customer": who, "as_of": second * 1_000_000, "shop": shop, "weight": 0.5})
            .to_string()
            + "\n"
    });
    project.write("s.ndjson", spine.collect::<String>());
    project.run_ok(&[
        "training-set",
        "--set",
        "mix",
        "--spine",
        "s.ndjson",
        "--out",
        "t.csv",
    ]);
    let made = std::fs::read_to_string(project.path().join("t.csv")).unwrap();
    let server = ServerProcess::start(&project);
    for ((who, shop, second), line) in rows.iter().zip(made.lines().skip(1)) {
        let body = json!({"feature_set": "mix", "entities": [{"customer": who, "shop": shop}],
            "context": [{"weight": 0.5}], "as_of": second * 1_000_000, "inclusive": false});
        let reply = server.post_json("/v1/features", &body).json();
        let values = reply["rows"][0]["values"]
            .as_array()
            .expect("values")
            .iter();
        let values: Vec<String> = values
            .map(|v| {
                if v.is_null() {
                    String::new()
                } else {
                    v.to_string()
                }
            })
            .collect();
        assert_eq!(values.len(), 6);
        assert!(
            line.ends_with(&format!(",{}", values.join(","))),
            "{line}: {values:?}"
        );
    }
    assert!(
        made.lines().filter(|line| !line.contains(",,")).count() > 10,
        "{made}"
    );
}
