//! Scores from outside: bit for bit what requests were answered, from files of every format, beside the data and by a
//! server; what is refused, and what is left of work that ends early.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType as ArrowType, Float64Type};
use arrow::ipc::writer::StreamWriter;
use headwater_batch::{OutputFormat, TableWriter};
use headwater_schema::Value;
use headwater_schema::decode::{BodyFormat, read_record_batches, value_to_json};
use headwater_schema::time::parse_timestamp;
use headwater_testkit::{ServerProcess, TempProject};
use serde_json::{Value as Json, json};

use crate::predict::{first, predictions, second, send_purchases, shop};

const PREDICT: &str = "/v1/models/fraud/predict";
const SCORE: &str = "/v1/models/fraud/score";

/// A batch in every format that is read: file, media type, bytes.
fn files(name: &str, rows: &RecordBatch) -> Vec<(String, &'static str, Vec<u8>)> {
    let written = |format| {
        let mut out = Vec::new();
        let mut writer = TableWriter::new(format, &rows.schema(), Box::new(&mut out)).unwrap();
        writer.write(rows).unwrap();
        writer.finish().unwrap();
        out
    };
    let mut ndjson = String::new();
    for row in 0..rows.num_rows() {
        // By hand: the columns come in the order of the first row's fields.
        let members = rows.schema();
        let members = members.fields().iter().zip(rows.columns());
        let members = members.map(|(field, column)| {
            let value = value_to_json(&Value::from_array(column, row));
            format!("{}:{value}", json!(field.name()))
        });
        let members: Vec<String> = members.collect();
        ndjson += &format!("{{{}}}\n", members.join(","));
    }
    vec![
        (
            format!("{name}.csv"),
            "text/csv",
            written(OutputFormat::Csv),
        ),
        (
            format!("{name}.ndjson"),
            "application/x-ndjson",
            ndjson.into(),
        ),
        (
            format!("{name}.arrow"),
            "application/vnd.apache.arrow.stream",
            written(OutputFormat::ArrowStream),
        ),
        (
            format!("{name}.parquet"),
            "application/vnd.apache.parquet",
            written(OutputFormat::Parquet),
        ),
    ]
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true)))
        .unwrap()
}

fn table(bytes: &[u8], format: BodyFormat) -> RecordBatch {
    let batches = read_record_batches(format, bytes).unwrap();
    let batches: Vec<_> = batches.map(Result::unwrap).collect();
    arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap()
}

/// The last column of a table, as bits.
fn scores(table: &RecordBatch) -> Vec<u64> {
    let column = table.columns().last().unwrap();
    let numbers = column.as_primitive::<Float64Type>();
    numbers.iter().map(|n| n.unwrap().to_bits()).collect()
}

fn answered(server: &ServerProcess, body: &Json) -> (Vec<u64>, Json) {
    let reply = server.post_json(PREDICT, body);
    assert_eq!(reply.status, 200, "{}", reply.body);
    let answer = reply.json();
    let outputs = answer["outputs"].as_array().unwrap().iter();
    let bits = outputs.map(|row| {
        let number = row.as_object().unwrap().values().next().unwrap();
        number.as_f64().unwrap().to_bits()
    });
    (bits.collect(), answer)
}

/// A shop whose model's version 1 is live, and 2 is no alias's.
fn served() -> TempProject {
    let project = shop("");
    let add = ["models", "add", "fraud"];
    project.run_ok(
        &[
            &add[..],
            &["one.model", "--version", "1", "--alias", "live"],
        ]
        .concat(),
    );
    project.run_ok(&[&add[..], &["two.model", "--version", "2"]].concat());
    project
}

/// The rows that predictions' facts were made of, each at its own cursor, with what was answered.
fn asked_again(facts: &[Json]) -> RecordBatch {
    let of = |fact: &Json, name: &str| fact["fact"][name].clone();
    let text = |json: &Json| json.as_str().unwrap().to_owned();
    let context = |fact: &Json, name: &str| -> Json {
        serde_json::from_str(&text(&of(fact, "context")[name])).unwrap()
    };
    let customers = facts
        .iter()
        .map(|f| Some(text(&of(f, "entities")["customer"])));
    let times = facts
        .iter()
        .map(|f| Some(parse_timestamp(&text(&of(f, "time")), None).unwrap()));
    let times: TimestampMicrosecondArray = times.collect();
    let known = facts.iter().map(|f| of(f, "known_at").as_i64());
    let countries = facts
        .iter()
        .map(|f| context(f, "country").as_str().map(str::to_owned));
    let factors = facts.iter().map(|f| context(f, "factor").as_f64());
    let outputs = facts.iter().map(|f| {
        let outputs = of(f, "outputs");
        let outputs = outputs.as_object().unwrap().values().next().cloned();
        outputs.unwrap().as_f64()
    });
    batch(vec![
        ("customer", Arc::new(customers.collect::<StringArray>())),
        ("as_of", Arc::new(times.with_timezone("UTC"))),
        ("known_at", Arc::new(known.collect::<Int64Array>())),
        ("country", Arc::new(countries.collect::<StringArray>())),
        ("factor", Arc::new(factors.collect::<Float64Array>())),
        ("answered", Arc::new(outputs.collect::<Float64Array>())),
    ])
}

#[test]
fn scores_are_bit_for_bit_what_requests_were_answered() {
    let project = served();
    let server = ServerProcess::start(&project);
    send_purchases(&server);
    let contexts = [
        json!({"country": "fr", "factor": 0.25}),
        json!({"country": "xx", "factor": 3.5}),
        json!({"country": null, "factor": null}),
        json!({"country": "pt", "factor": -1e-3}),
    ];
    let mut asked = 0;
    for turn in 0..6 {
        for customer in ["c0", "c1", "c2", "nobody"] {
            let context = &contexts[asked % contexts.len()];
            answered(
                &server,
                &json!({"entities": [{"customer": customer}], "context": [context]}),
            );
            asked += 1;
        }
        // What comes after a request must not be seen by it.
        let now = headwater::Env::real().clock.now();
        let more = json!([{"id": format!("q{turn}"), "customer": "c1", "amount": 0.3 + f64::from(turn), "time": now}]);
        assert_eq!(server.post_json("/v1/facts/purchase", &more).status, 200);
    }
    let rows = asked_again(&predictions(&server, asked));
    let wanted = scores(&rows);
    assert_eq!(wanted.len(), asked);
    let distinct: std::collections::BTreeSet<u64> = wanted.iter().copied().collect();
    assert!(distinct.len() > 2, "{distinct:?}");
    let mut tables = Vec::new();
    for (file, media_type, bytes) in files("rows", &rows) {
        project.write(&file, &bytes);
        let reply = server.post(&format!("{SCORE}?inclusive=true"), media_type, &bytes);
        assert_eq!(reply.status, 200, "{}", reply.body);
        let scored = table(&reply.bytes, BodyFormat::ArrowStream);
        assert_eq!(scores(&scored), wanted, "{file} over HTTP");
        assert_eq!(scored.num_columns(), rows.num_columns() + 1);
        let out = format!("{file}.parquet");
        let arguments = [
            "score",
            "--model",
            "fraud",
            "--inclusive",
            "--in",
            &file,
            "--out",
        ];
        project.run_ok(&[&arguments[..], &[&out, "--server", &server.url]].concat());
        tables.push((file, out));
    }
    // What a row knew is never passed over, whatever its type.
    let place = rows.schema().index_of("known_at").unwrap();
    let known_as = |wanted: &ArrowType| {
        let mut columns = rows.columns().to_vec();
        columns[place] = cast(&columns[place], wanted).unwrap();
        let names = rows.schema();
        let names = names.fields().iter().map(|f| f.name().as_str());
        let bytes = &files("known", &batch(names.zip(columns).collect()))[2].2;
        let stream = BodyFormat::ArrowStream.media_type();
        server.post(&format!("{SCORE}?inclusive=true"), stream, bytes)
    };
    for integers in [ArrowType::UInt64, ArrowType::Decimal128(38, 0)] {
        let reply = known_as(&integers);
        assert_eq!(reply.status, 200, "{}", reply.body);
        let scored = table(&reply.bytes, BodyFormat::ArrowStream);
        assert_eq!(scores(&scored), wanted, "{integers}");
    }
    let reply = known_as(&ArrowType::Float64);
    let named = reply.body.contains("column `known_at` has a wrong type");
    assert!(reply.status == 400 && named, "{}", reply.body);
    // A request that hides what is at its own moment is another.
    let exclusive = server.post(SCORE, "text/csv", &files("rows", &rows)[0].2);
    assert_eq!(exclusive.status, 200, "{}", exclusive.body);
    assert!(server.stop());
    for (file, out) in tables {
        let own = format!("own.{out}");
        let arguments = [
            "score",
            "--model",
            "fraud",
            "--inclusive",
            "--in",
            &file,
            "--out",
        ];
        project.run_ok(&[&arguments[..], &[&own]].concat());
        let read = |path: &str| std::fs::read(project.path().join(path)).unwrap();
        let (own_bytes, bytes) = (read(&own), read(&out));
        assert_eq!(scores(&table(&own_bytes, BodyFormat::Parquet)), wanted);
        assert_eq!(own_bytes, bytes, "{file} by the server and beside the data");
        let manifest = |out: &str| read(&format!("{out}.manifest.json"));
        assert_eq!(manifest(&own), manifest(&out), "of {file}");
    }
    assert_manifest(&project, &rows);
}

fn assert_manifest(project: &TempProject, rows: &RecordBatch) {
    let out = "own.rows.csv.parquet.manifest.json";
    let manifest = std::fs::read(project.path().join(out)).unwrap();
    let manifest: Json = serde_json::from_slice(&manifest).unwrap();
    let text = |name: &str| manifest[name].as_str().unwrap().to_owned();
    assert_eq!(
        (text("model"), text("version")),
        ("fraud".into(), "1".into())
    );
    assert_eq!(text("model_format"), "lightgbm");
    assert_eq!(text("file_sha256").len(), 64);
    assert_eq!(manifest["rows"]["count"], rows.num_rows());
    let features = &manifest["features"];
    assert_eq!(features["time"], "as_of");
    assert_eq!(
        (&features["as_of"], &features["inclusive"]),
        (&Json::Null, &json!(true))
    );
    assert_eq!(features["known_at"], "column");
    for name in [
        "feature_sets/fraud_inputs",
        "views/spending",
        "contracts/purchase",
    ] {
        let hash = features["definitions"][name].as_str();
        assert!(hash.is_some(), "{name}: {features}");
    }
    assert!(features["meanings"]["context.country"].is_string());
}

#[test]
fn rows_without_times_are_read_at_one_moment_as_a_request_is() {
    let project = served();
    let server = ServerProcess::start(&project);
    send_purchases(&server);
    let customers = ["c0", "c1", "nobody", "c2"];
    let entities = customers.map(|c| json!({"customer": c}));
    let context = json!({"country": "fr", "factor": 0.5});
    let (wanted, answer) = answered(
        &server,
        &json!({"entities": entities, "context": vec![context; customers.len()]}),
    );
    let more = json!([{"id": "later", "customer": "c0", "amount": 9.5, "time": answer["as_of"]}]);
    assert_eq!(server.post_json("/v1/facts/purchase", &more).status, 200);
    let rows = batch(vec![
        ("customer", Arc::new(StringArray::from(customers.to_vec()))),
        ("country", Arc::new(StringArray::from(vec!["fr"; 4]))),
        ("factor", Arc::new(Float64Array::from(vec![0.5; 4]))),
    ]);
    let (as_of, known_at) = (&answer["as_of"], &answer["sequence"]);
    let (as_of, known_at) = (as_of.as_str().unwrap(), known_at.as_str().unwrap());
    for (file, media_type, bytes) in files("rows", &rows) {
        let path = format!("{SCORE}?as_of={as_of}&known_at={known_at}");
        let reply = server.post(&path, media_type, &bytes);
        assert_eq!(reply.status, 200, "{}", reply.body);
        assert_eq!(
            scores(&table(&reply.bytes, BodyFormat::ArrowStream)),
            wanted,
            "{file}"
        );
        project.write(&file, &bytes);
    }
    assert!(server.stop());
    let score = [
        "score",
        "--model",
        "fraud",
        "--in",
        "rows.csv",
        "--out",
        "out.arrow",
    ];
    let at = ["--as-of", as_of, "--known-at", known_at];
    let told = project.run_ok(&[&score[..], &at].concat());
    assert!(told.contains(&format!("as of {as_of}")), "{told}");
    let written = |name: &str| std::fs::read(project.path().join(name)).unwrap();
    let then = scores(&table(&written("out.arrow"), BodyFormat::ArrowStream));
    assert_eq!(then, wanted);
    // What is known by now, of the same moment: the purchase that came later counts, unless the moment itself is hidden.
    let now = |more: &[&str]| {
        project.run_ok(&[&score[..], &at[..2], more].concat());
        scores(&table(&written("out.arrow"), BodyFormat::ArrowStream))
    };
    let features = |more: &[&str]| {
        project.run_ok(&[&score[..], &at[..2], &["--with-features"], more].concat());
        let table = table(&written("out.arrow"), BodyFormat::ArrowStream);
        let column = table.column_by_name("spending.largest_1h").unwrap();
        column.as_primitive::<Float64Type>().value(0)
    };
    assert_eq!(now(&["--inclusive=false", "--known-at", known_at]).len(), 4);
    assert_eq!(features(&[]), 9.5);
    assert!(features(&["--inclusive=false"]) < 9.5);
    // Without any moment it is now.
    let told = project.run_ok(&score);
    assert!(told.contains(" as of 2"), "{told}");
}

/// The model's own inputs: rows of which some lack some.
fn vectors() -> RecordBatch {
    let amounts = [Some(1.5), None, Some(-3.0), Some(0.1 + 0.2), Some(1e300)];
    let ages = [None, Some(7), Some(0), Some(41), None];
    let countries = [Some("pt"), Some("de"), None, Some("xx"), Some("fr")];
    let many = 1000;
    batch(vec![
        (
            "note",
            Arc::new(StringArray::from_iter(
                (0..many * 5).map(|n| Some(format!("n{n}"))),
            )),
        ),
        ("age", Arc::new(Int64Array::from_iter(ages.repeat(many)))),
        (
            "country",
            Arc::new(StringArray::from_iter(countries.repeat(many))),
        ),
        (
            "amount",
            Arc::new(Float64Array::from_iter(amounts.repeat(many))),
        ),
    ])
}

#[test]
fn the_models_own_inputs_are_scored_as_they_come() {
    let project = served();
    let server = ServerProcess::start(&project);
    let rows = vectors();
    let of =
        |column: usize, row: usize| value_to_json(&Value::from_array(rows.column(column), row));
    let vector = |row: usize| json!([of(3, row), of(2, row), of(1, row)]);
    let mut wanted = Vec::new();
    for from in (0..rows.num_rows()).step_by(1000) {
        let vectors: Vec<Json> = (from..from + 1000).map(vector).collect();
        wanted.extend(answered(&server, &json!({ "vectors": vectors })).0);
    }
    for (file, media_type, bytes) in files("rows", &rows) {
        project.write(&file, &bytes);
        let reply = server.post(&format!("{SCORE}?vectors=true"), media_type, &bytes);
        assert_eq!(reply.status, 200, "{}", reply.body);
        let scored = table(&reply.bytes, BodyFormat::ArrowStream);
        assert_eq!(scores(&scored), wanted, "{file} over HTTP");
        let notes = scored.column_by_name("note").unwrap();
        assert_eq!(notes.as_string::<i32>(), rows.column(0).as_string::<i32>());
        let vectors = ["score", "--model", "fraud", "--vectors", "--in", &file];
        project.run_ok(&[&vectors[..], &["--out", "far.csv", "--server", &server.url]].concat());
        let far = std::fs::read(project.path().join("far.csv")).unwrap();
        std::fs::rename(
            project.path().join("far.csv"),
            project.path().join(format!("far.{file}.csv")),
        )
        .unwrap();
        assert!(far.starts_with(b"note,age,country,amount,"));
    }
    // The other version answers otherwise, and is still nobody's.
    let reply = server.post(
        &format!("{SCORE}?vectors=true&version=2"),
        "text/csv",
        &files("rows", &rows)[0].2,
    );
    assert_eq!(reply.status, 200, "{}", reply.body);
    let others = scores(&table(&reply.bytes, BodyFormat::ArrowStream));
    assert_ne!(others, wanted);
    let listed = server.get("/v1/models/fraud").body;
    assert!(
        !listed.contains("\"version\":\"2\",\"aliases\":[\"live\"]"),
        "{listed}"
    );
    assert!(server.stop());
    for (file, ..) in files("rows", &rows) {
        let vectors = [
            "score",
            "--model",
            "fraud",
            "--vectors",
            "--in",
            &file,
            "--out",
            "near.csv",
        ];
        project.run_ok(&vectors);
        let read = |path: &str| std::fs::read(project.path().join(path)).unwrap();
        assert_eq!(read("near.csv"), read(&format!("far.{file}.csv")), "{file}");
    }
    let spilled = std::fs::read_dir(project.path().join(".headwater/spill"));
    assert_eq!(spilled.map_or(0, |s| s.count()), 0, "vectors are spilled");
}

#[test]
fn what_is_wrong_is_refused_by_name_and_leaves_nothing() {
    let project = served();
    let good = "customer,as_of,country,factor\nc0,2026-01-01T00:00:00Z,fr,1\n";
    project.write("good.csv", good);
    project.write("old.csv", "what was there before\n");
    let wrong: Vec<(&str, &str, &[&str], &str)> = vec![
        (
            "nokey.csv",
            "buyer,as_of,country,factor\nc0,0,fr,1\n",
            &[],
            "no column `customer`",
        ),
        (
            "nocontext.csv",
            "customer,as_of,country\nc0,0,fr\n",
            &[],
            "no column `factor`",
        ),
        (
            "type.csv",
            "customer,as_of,country,factor\nc0,0,fr,much\n",
            &[],
            "factor",
        ),
        (
            "time.csv",
            "customer,as_of,country,factor\nc0,yesterday,fr,1\n",
            &[],
            "as_of",
        ),
        (
            "none.csv",
            "customer,as_of,country,factor\n",
            &[],
            "no rows",
        ),
        (
            "clash.csv",
            "customer,as_of,country,factor,probability\nc0,0,fr,1,2\n",
            &[],
            "two columns are called `probability`",
        ),
        (
            "known.csv",
            "customer,as_of,country,factor,known_at\nc0,0,fr,1,1.5\n",
            &[],
            "the spine's column `known_at` has a wrong type",
        ),
        (
            "id.csv",
            "customer,as_of,country,factor,fact_id\nc0,0,fr,1,p0\n",
            &[],
            "a column `fact_id`, and none `fact_contract`",
        ),
        ("empty.csv", "", &[], "no rows"),
        ("empty.parquet", "", &["--vectors"], "no rows"),
        (
            "ragged.csv",
            "amount,age,country\n1,2\n",
            &["--vectors"],
            "row 0: The line has 2 cells, the header 3",
        ),
        ("good.csv", good, &["--time", "at"], "no time column"),
        (
            "good.csv",
            good,
            &["--as-of", "2026-01-02T00:00:00Z"],
            "one moment is asked for all rows",
        ),
        ("good.csv", good, &["--version", "9"], "no version `9`"),
        (
            "good.csv",
            good,
            &["--model", "frauds"],
            "did you mean `fraud`?",
        ),
        (
            "good.csv",
            good,
            &["--known-at", "99999"],
            "lies in the future",
        ),
        (
            "vector.csv",
            "amount,age\n1,2\n",
            &["--vectors"],
            "no column `country`",
        ),
        (
            "texts.csv",
            "amount,age,country\n1,2,fr\nmuch,2,fr\n",
            &["--vectors"],
            "row 1: A number is expected, not `much`",
        ),
        ("rows.txt", "amount", &["--vectors"], "end in `txt`"),
    ];
    for (file, text, more, said) in &wrong {
        project.write(file, text);
        let mut all = vec!["score", "--in", file, "--out", "old.csv"];
        if !more.contains(&"--model") {
            all.extend(["--model", "fraud"]);
        }
        all.extend(*more);
        let output = project.run(&all);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{file} {more:?}");
        assert!(told.contains(said), "{file} {more:?}: {told}");
        let left = std::fs::read_to_string(project.path().join("old.csv")).unwrap();
        assert_eq!(left, "what was there before\n");
        assert!(!project.path().join("old.csv.new").exists());
        assert!(!project.path().join("old.csv.manifest.json").exists());
    }
    project.run_fails(&[
        "score", "--model", "fraud", "--in", "good.csv", "--out", "good.csv",
    ]);
    project.run_fails(&[
        "score", "--model", "fraud", "--in", "good.csv", "--out", "out.xlsx",
    ]);
    let usage = project.run(&[
        "score",
        "--model",
        "fraud",
        "--in",
        "good.csv",
        "--out",
        "o.csv",
        "--vectors",
        "--inclusive",
    ]);
    assert_eq!(usage.status.code(), Some(2));
    let server = ServerProcess::start(&project);
    let refused = |path: &str, status: u16, code: &str| {
        let reply = server.post(path, "text/csv", good);
        assert_eq!(reply.status, status, "{path}: {}", reply.body);
        assert!(
            reply.body.contains(&format!("problem:{code}\"")),
            "{}",
            reply.body
        );
    };
    refused("/v1/models/frauds/score", 404, "unknown-model");
    refused(&format!("{SCORE}?version=9"), 404, "unknown-version");
    refused(
        &format!("{SCORE}?vectors=true&time=as_of"),
        400,
        "malformed-request",
    );
    refused(
        &format!("{SCORE}?as_of=0&time=as_of"),
        400,
        "malformed-request",
    );
    refused(&format!("{SCORE}?vector=true"), 400, "malformed-request");
    refused(&format!("{SCORE}?as_of=0"), 400, "two-cursors");
    refused(&format!("{SCORE}?time=at"), 400, "missing-time");
    refused(&format!("{SCORE}?vectors=true"), 400, "missing-input");
    assert!(server.stop());
}

#[test]
fn versions_whose_features_changed_are_refused_or_warned_about() {
    let project = served();
    project.write(
        "rows.csv",
        "customer,as_of,country,factor\nc0,2026-01-01T00:00:00Z,fr,1\n",
    );
    let score = [
        "score", "--model", "fraud", "--in", "rows.csv", "--out", "out.csv",
    ];
    project.run_ok(&score);
    let changed = |model: &str| {
        let text = std::fs::read_to_string(project.path().join("models/fraud.yaml")).unwrap();
        let text = text.replace(
            "spending.spent_1h * context.factor",
            "spending.spent_1h + context.factor",
        );
        project.write("models/fraud.yaml", text + model);
        project.run_ok(&["apply"]);
    };
    changed("");
    let told = project.run_fails(&score);
    assert!(told.contains("its features have changed"), "{told}");
    changed("  on_changed_features: warn\n");
    let told = project.run_ok(&score);
    assert!(
        told.contains("mean something else now: fraud_inputs.scaled"),
        "{told}"
    );
    let manifest = std::fs::read(project.path().join("out.csv.manifest.json")).unwrap();
    let manifest: BTreeMap<String, Json> = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(manifest["warnings"].as_array().map(Vec::len), Some(1));
}

#[test]
fn work_that_ends_early_leaves_no_file_that_looks_whole() {
    let project = served();
    const ROWS: usize = 300_000;
    let mut csv = "amount,age,country\n".to_owned();
    for row in 0..ROWS {
        csv += &format!("{row}.5,,fr\n");
    }
    project.write("rows.csv", &csv);
    let out = project.path().join("out.parquet");
    let vectors = [
        "score",
        "--model",
        "fraud",
        "--vectors",
        "--in",
        "rows.csv",
        "--out",
        "out.parquet",
    ];
    let mut child = Command::new(project.binary())
        .args(vectors)
        .current_dir(project.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let beside = project.path().join("out.parquet.new");
    while !beside.exists() {
        assert!(
            child.try_wait().unwrap().is_none(),
            "it ended before it was killed"
        );
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!out.exists(), "a part of a table looks whole");
    // A last row that is wrong: a server has sent most of the table by then.
    csv += "7,much,fr\n";
    project.write("rows.csv", &csv);
    let server = ServerProcess::start(&project);
    let told = project.run_fails(&[&vectors[..], &["--server", &server.url]].concat());
    assert!(told.contains("broke the scores off"), "{told}");
    assert!(!out.exists() && !beside.exists());
    assert!(server.stop());
    let told = project.run_fails(&vectors);
    assert!(told.contains(&format!("row {ROWS}:")), "{told}");
    assert!(!out.exists() && !beside.exists());
    project.write("rows.csv", &csv[..csv.len() - "7,much,fr\n".len()]);
    project.run_ok(&vectors);
    let written = table(&std::fs::read(&out).unwrap(), BodyFormat::Parquet);
    assert_eq!(written.num_rows(), ROWS);
}

#[test]
fn a_stream_of_arrow_batches_is_one_table() {
    let project = served();
    let rows = vectors();
    let mut stream = StreamWriter::try_new(Vec::new(), &rows.schema()).unwrap();
    for from in (0..rows.num_rows()).step_by(700) {
        let count = 700.min(rows.num_rows() - from);
        stream.write(&rows.slice(from, count)).unwrap();
    }
    stream.flush().unwrap();
    project.write("parts.arrow", stream.into_inner().unwrap());
    project.write("whole.parquet", &files("rows", &rows)[3].2);
    let score = |file: &str| {
        project.run_ok(&[
            "score",
            "--model",
            "fraud",
            "--vectors",
            "--in",
            file,
            "--out",
            "out.arrow",
        ]);
        let bytes = std::fs::read(project.path().join("out.arrow")).unwrap();
        scores(&table(&bytes, BodyFormat::ArrowStream))
    };
    let whole = score("whole.parquet");
    assert_eq!(whole.len(), rows.num_rows());
    assert_eq!(score("parts.arrow"), whole);
    let one = headwater_models::load(first().as_bytes(), &Default::default()).unwrap();
    let two = headwater_models::load(second().as_bytes(), &Default::default()).unwrap();
    let row = [1.5, 2.0, f64::NAN];
    let output = |model: &dyn headwater_models::Predictor| {
        let rows = headwater_models::Rows::one(&row).unwrap();
        model.predict(rows).unwrap().outputs[0].to_bits()
    };
    assert_eq!(whole[0], output(one.as_ref()));
    assert_ne!(whole[0], output(two.as_ref()));
}
