//! The flights example at the edge: its model with twenty days of facts, moved to the present, taken along from a running
//! server and asked from Rust and from C; each answer against the server's at the same cursor, bit for bit.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use arrow::ipc::writer::StreamWriter;
use headwater_edge::Edge;
use headwater_schema::Value;
use headwater_schema::decode::{BodyFormat, read_record_batches};
use headwater_schema::time::{format_timestamp, parse_timestamp};
use headwater_testkit::{ServerProcess, TempProject};
use serde_json::{Value as Json, json};

use crate::BINARY;

const MODEL: &str = "\
{apiVersion: headwater/v1, kind: Model, name: late, owner: operations, spec: {feature_set: flight_delay}}
";
const HOUR: i64 = 3_600_000_000;
/// What isn't known of until then stays away.
const UNTIL: &str = "2013-01-21T12:00:00Z";
/// Contracts, and what says when their facts happened.
const FACTS: [(&str, &str); 5] = [
    ("schedule", "published"),
    ("departure", "departed"),
    ("arrival", "arrived"),
    ("weather", "known"),
    ("plane", "registered"),
];
const ROWS: usize = 120;

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/flights")
}

fn times(column: &ArrayRef) -> ArrayRef {
    let micros = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    cast(column, &micros).expect("times")
}

/// The facts of a contract until the end, moved by `moved` microseconds.
fn facts(contract: &str, time: &str, moved: i64) -> Vec<RecordBatch> {
    let until = parse_timestamp(UNTIL, None).unwrap();
    let path = example().join(format!("data/{contract}.parquet"));
    let bytes = std::fs::read(path).expect("the example's data");
    let batches = read_record_batches(BodyFormat::Parquet, &bytes).expect("Parquet");
    let mut kept = Vec::new();
    for batch in batches {
        let batch = batch.expect("rows");
        let at = times(batch.column_by_name(time).expect("a time"));
        let at = at.as_primitive::<TimestampMicrosecondType>();
        let known: BooleanArray = at.iter().map(|t| t.map(|t| t < until)).collect();
        let rows = filter_record_batch(&batch, &known).expect("rows");
        if rows.num_rows() == 0 {
            continue;
        }
        let moved = |column: &ArrayRef| -> ArrayRef {
            match column.data_type() {
                DataType::Timestamp(..) => {
                    let column = times(column);
                    let column = column.as_primitive::<TimestampMicrosecondType>();
                    let later = column.unary::<_, TimestampMicrosecondType>(|t| t + moved);
                    Arc::new(later.with_timezone("UTC"))
                }
                DataType::Dictionary(..) | DataType::LargeUtf8 | DataType::Utf8View => {
                    cast(column, &DataType::Utf8).expect("texts")
                }
                whole if whole.is_integer() => cast(column, &DataType::Int64).expect("numbers"),
                _ => column.clone(),
            }
        };
        let names = rows.schema();
        let names = names.fields().iter().map(|f| f.name().clone());
        let columns = names.zip(rows.columns().iter().map(moved));
        kept.push(
            RecordBatch::try_from_iter_with_nullable(
                columns.map(|(name, column)| (name, column, true)),
            )
            .expect("rows"),
        );
    }
    kept
}

fn send(server: &ServerProcess, contract: &str, batches: &[RecordBatch]) -> u64 {
    let mut taken = 0;
    for batch in batches {
        let mut body = Vec::new();
        let mut writer = StreamWriter::try_new(&mut body, &batch.schema()).unwrap();
        writer.write(batch).unwrap();
        writer.finish().unwrap();
        drop(writer);
        let media = BodyFormat::ArrowStream.media_type();
        let reply = server.post(&format!("/v1/facts/{contract}"), media, &body);
        assert_eq!(reply.status, 200, "{}", reply.body);
        taken += reply.json()["accepted"].as_u64().unwrap();
    }
    taken
}

/// Requests of flights: their entities and the request's own fields.
fn flights(schedule: &[RecordBatch]) -> Vec<(Json, Json)> {
    let mut rows = Vec::new();
    for batch in schedule.iter().rev() {
        for row in (0..batch.num_rows()).rev() {
            let value = |name: &str| Value::from_array(batch.column_by_name(name).unwrap(), row);
            let text = |name: &str| match value(name) {
                Value::String(text) => Some(text.to_string()),
                _ => None,
            };
            let time = |name: &str| match value(name) {
                Value::Timestamp(time) => format_timestamp(time),
                other => panic!("{name} is {other:?}"),
            };
            let Some(tailnum) = text("tailnum") else {
                continue;
            };
            let entities = json!({"tailnum": tailnum, "carrier": text("carrier"), "origin": text("origin"), "dest": text("dest")});
            let distance = match value("distance") {
                Value::Int(miles) => miles,
                other => panic!("distance is {other:?}"),
            };
            let context = json!({"sched_dep": time("sched_dep"), "sched_arr": time("sched_arr"), "distance": distance});
            rows.push((entities, context));
            if rows.len() == ROWS {
                return rows;
            }
        }
    }
    panic!("fewer than {ROWS} flights");
}

/// Where the library for C was built: beside this test.
fn library_folder() -> PathBuf {
    let test = std::env::current_exe().expect("a path");
    test.parent().expect("a folder").to_owned()
}

/// The example for C, compiled.
fn compiled(folder: &Path) -> PathBuf {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../edge-c");
    let program = folder.join("predict");
    let libraries = library_folder();
    let output = Command::new("cc")
        .args(["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-I"])
        .arg(crate_folder.join("include"))
        .arg(crate_folder.join("examples/predict.c"))
        .arg("-L")
        .arg(&libraries)
        .arg("-lheadwater_edge_c")
        .arg(format!("-Wl,-rpath,{}", libraries.display()))
        .arg("-o")
        .arg(&program)
        .output()
        .expect("a C compiler");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    program
}

/// A hexadecimal float as C prints it.
fn hexadecimal(text: &str) -> f64 {
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text),
    };
    let rest = rest.strip_prefix("0x").expect("hexadecimal");
    let (digits, exponent) = rest.split_once('p').expect("an exponent");
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let mantissa = u64::from_str_radix(&format!("{whole}{part}"), 16).expect("digits");
    let exponent: i32 = exponent.parse().expect("a number");
    sign * mantissa as f64 * 2f64.powi(exponent - 4 * part.len() as i32)
}

/// What the program in C answers to requests, row by row; `more` are its further arguments.
fn asked_from_c(program: &Path, bundle: &Path, more: &[&str], requests: &[Json]) -> Vec<f64> {
    let mut child = Command::new(program)
        .arg(bundle)
        .args(more)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut stdin = child.stdin.take().expect("its input");
    let lines: Vec<String> = requests.iter().map(|r| format!("{r}\n")).collect();
    let writer = std::thread::spawn(move || stdin.write_all(lines.concat().as_bytes()));
    let output = child.wait_with_output().expect("it ends");
    writer.join().unwrap().expect("it reads all");
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(hexadecimal).collect()
}

fn outputs(answer: &Json) -> Vec<f64> {
    let rows = answer["outputs"].as_array().unwrap().iter();
    let number = |row: &Json| row.as_object().unwrap().values().next().unwrap().as_f64();
    rows.map(|row| number(row).unwrap()).collect()
}

fn assert_bits(what: &str, got: &[f64], want: &[f64]) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (row, (got, want)) in got.iter().zip(want).enumerate() {
        assert_eq!(
            got.to_bits(),
            want.to_bits(),
            "{what}, row {row}: {got} {want}"
        );
    }
}

struct Example {
    project: TempProject,
    server: ServerProcess,
    rows: Vec<(Json, Json)>,
}

impl Example {
    fn new() -> Self {
        let project = TempProject::new(BINARY, &[("headwater.yaml", "name: flights\n")]);
        for folder in ["contracts", "features"] {
            for entry in std::fs::read_dir(example().join(folder)).unwrap() {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_str().unwrap();
                project.write(&format!("{folder}/{name}"), std::fs::read(&path).unwrap());
            }
        }
        project.write("models/late.yaml", MODEL);
        project.run_ok(&["apply"]);
        let file = example().join("models/arrives_late.txt");
        let file = file.to_str().unwrap();
        project.run_ok(&["models", "add", "late", file, "--alias", "live"]);
        let server = ServerProcess::start(&project);
        let now = headwater::Env::real().clock.now();
        let moved = now - HOUR - parse_timestamp(UNTIL, None).unwrap();
        let mut rows = Vec::new();
        for (contract, time) in FACTS {
            let batches = facts(contract, time, moved);
            assert!(send(&server, contract, &batches) > 0, "{contract}");
            if contract == "schedule" {
                rows = flights(&batches);
            }
        }
        let lines = rows.iter().map(|(entities, _)| format!("{entities}\n"));
        project.write("entities.ndjson", lines.collect::<String>());
        Self {
            project,
            server,
            rows,
        }
    }

    fn bundle(&self) -> PathBuf {
        let make = [
            "bundle",
            "--model",
            "late",
            "--entities",
            "entities.ndjson",
            "--out",
            "late.bundle",
        ];
        let said = self
            .project
            .run_ok(&[&make[..], &["--server", &self.server.url]].concat());
        assert!(said.contains("late version"), "{said}");
        self.project.path().join("late.bundle")
    }

    fn request(&self, as_of: Option<&Json>) -> Json {
        let entities: Vec<&Json> = self.rows.iter().map(|(entities, _)| entities).collect();
        let context: Vec<&Json> = self.rows.iter().map(|(_, context)| context).collect();
        let mut request = json!({"entities": entities, "context": context});
        if let Some(as_of) = as_of {
            request["as_of"] = as_of.clone();
        }
        request
    }

    /// The same, a row at a time.
    fn requests(&self, as_of: &Json) -> Vec<Json> {
        let rows = self.rows.iter();
        rows.map(|(entities, context)| json!({"entities": [entities], "context": [context], "as_of": as_of}))
            .collect()
    }

    fn predict(&self) -> Json {
        let mut request = self.request(None);
        request["deadline_ms"] = json!(30_000);
        request["explain"] = json!(true);
        let reply = self.server.post_json("/v1/models/late/predict", &request);
        assert_eq!(reply.status, 200, "{}", reply.body);
        let reply = reply.json();
        assert_eq!(reply["degraded"], false, "{reply}");
        reply
    }

    fn assert_features(&self, edge: &Edge, as_of: i64) {
        let as_of = json!(format_timestamp(as_of));
        let mut request = self.request(Some(&as_of));
        let here: Json =
            serde_json::from_str(&edge.features_json(&request.to_string()).unwrap()).unwrap();
        request["feature_set"] = json!("flight_delay");
        let reply = self.server.post_json("/v1/features", &request);
        assert_eq!(reply.status, 200, "{}", reply.body);
        let there = reply.json();
        assert_eq!(here["names"], there["names"]);
        assert_eq!(here["rows"], there["rows"], "as of {as_of}");
        assert_eq!(here["not_bundled"], json!([]));
    }
}

#[test]
fn a_bundle_answers_what_the_server_answers_from_rust_and_from_c() {
    let example = Example::new();
    let bundle = example.bundle();
    let program = compiled(example.project.path());
    let edge = Edge::open_file(&bundle, None).expect("it opens");
    let now = headwater::Env::real().clock.now();
    for back in [0, 2, 24, 72] {
        example.assert_features(&edge, now - back * HOUR);
    }
    let there = example.predict();
    let want = outputs(&there);
    let distinct: std::collections::BTreeSet<u64> = want.iter().map(|p| p.to_bits()).collect();
    assert!(distinct.len() > ROWS / 2, "the answers hardly differ");
    let asked = example.request(Some(&there["as_of"])).to_string();
    let here = edge.predict_numbers(&asked).expect("answered");
    assert_bits("from Rust", &here, &want);
    let mut explained = example.request(Some(&there["as_of"]));
    explained["explain"] = json!(true);
    let said = edge.predict_json(&explained.to_string()).unwrap();
    let said: Json = serde_json::from_str(&said).unwrap();
    assert_eq!(said["outputs"], there["outputs"]);
    assert_eq!(said["explanations"].as_array().map(Vec::len), Some(ROWS));
    assert_eq!(said["explanations"], there["explanations"]);
    let requests = example.requests(&there["as_of"]);
    let from_c = asked_from_c(&program, &bundle, &[], &requests);
    assert_bits("from C", &from_c, &want);

    // A plane leaves late: the server hears of it, and the process without one.
    let (entities, _) = &example.rows[0];
    let left = headwater::Env::real().clock.now() - 60_000_000;
    let departure = json!([{"flight_id": "new", "carrier": entities["carrier"], "flight": 1, "tailnum": entities["tailnum"],
        "origin": entities["origin"], "dest": entities["dest"], "departed": format_timestamp(left), "dep_delay": 95}]);
    let reply = example.server.post_json("/v1/facts/departure", &departure);
    assert_eq!(reply.json()["accepted"], 1, "{}", reply.body);
    let added = edge.add_facts("departure", departure.to_string().as_bytes(), false);
    assert_eq!(added.expect("told").accepted, 1);
    let later = example.predict();
    let told = outputs(&later);
    assert!(
        told.iter()
            .zip(&want)
            .any(|(a, b)| a.to_bits() != b.to_bits()),
        "nothing changed"
    );
    example.assert_features(&edge, headwater::Env::real().clock.now());
    let asked = example.request(Some(&later["as_of"])).to_string();
    assert_bits("told", &edge.predict_numbers(&asked).unwrap(), &told);
    let journal = example.project.path().join("journal");
    let facts = [
        journal.to_str().unwrap(),
        "departure",
        &departure.to_string(),
    ];
    let requests = example.requests(&later["as_of"]);
    // The second time the fact is there from the journal, and told again.
    for run in ["told from C", "told from C again"] {
        let from_c = asked_from_c(&program, &bundle, &facts, &requests);
        assert_bits(run, &from_c, &told);
    }
}
