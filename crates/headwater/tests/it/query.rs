//! SQL from outside: what it sees at a cursor, in every format; what is refused; what ends it.

use std::time::{Duration, Instant};

use headwater_testkit::{Reply, ServerProcess, TempProject, call_with};
use serde_json::{Value, json};

use crate::archive::{HOUR, ON_DEMAND, fill, parquet_files};
use crate::{BINARY, SHOP};

fn ask(server: &ServerProcess, body: &Value) -> Reply {
    server.post_json("/v1/query", body)
}

/// The rows of an answer.
fn rows(server: &ServerProcess, body: &Value) -> Vec<Vec<Value>> {
    let reply = ask(server, body);
    assert_eq!(reply.status, 200, "{body}: {}", reply.body);
    let answer = reply.json();
    let rows: Vec<Vec<Value>> = serde_json::from_value(answer["rows"].clone()).unwrap();
    assert_eq!(answer["row_count"], json!(rows.len()));
    rows
}

fn one(server: &ServerProcess, sql: &str) -> Value {
    rows(server, &json!({ "sql": sql }))[0][0].clone()
}

/// What the listing of facts says at the same cursor: sequence, id, customer, amount, times.
fn listed(server: &ServerProcess, known_at: u64, as_of: Option<u64>) -> Vec<Vec<Value>> {
    let before = as_of.map_or(String::new(), |t| format!("&to={}", t + 1));
    let path = format!("/v1/facts/purchase?limit=1000&known_at={known_at}{before}");
    let reply = server.get(&path);
    assert_eq!(reply.status, 200, "{}", reply.body);
    let listed = reply.json();
    let row = |fact: &Value| {
        let sequence: u64 = fact["sequence"].as_str().unwrap().parse().unwrap();
        vec![
            json!(sequence),
            fact["fact_id"].clone(),
            fact["fact"]["customer"].clone(),
            fact["fact"]["amount"].clone(),
            fact["event_time"].clone(),
            fact["ingest_time"].clone(),
        ]
    };
    let mut rows: Vec<Vec<Value>> = listed["facts"]
        .as_array()
        .unwrap()
        .iter()
        .map(row)
        .collect();
    rows.sort_by_key(|row| row[0].as_u64());
    rows
}

const LISTING: &str =
    "SELECT _sequence, _fact_id, customer, amount, _event_time, _ingest_time FROM purchase";

/// Holds SQL to the listing at many cursors, with and without filters that can pass files by.
fn sees_what_is_listed(server: &ServerProcess) {
    for known_at in [1, 3, 90, 151, 200, 270, 280] {
        for as_of in [None, Some(0), Some(20 * HOUR), Some(77 * HOUR + 5)] {
            let cursor = json!({"known_at": known_at.to_string(), "as_of": as_of});
            let ask = |filter: &str| {
                let mut body = cursor.clone();
                body["sql"] = json!(format!("{LISTING} {filter} ORDER BY _sequence"));
                rows(server, &body)
            };
            let want = listed(server, known_at, as_of);
            assert_eq!(ask(""), want, "known at {known_at}, as of {as_of:?}");
            let some = |keep: &dyn Fn(&Vec<Value>) -> bool| -> Vec<Vec<Value>> {
                want.iter().filter(|row| keep(row)).cloned().collect()
            };
            let late = ask("WHERE time >= TIMESTAMP '1970-01-03T12:00:00Z' AND amount > 30");
            let from = 60 * HOUR.cast_signed();
            assert_eq!(
                late,
                some(&|r| micros(&r[4]) >= from && r[3].as_f64() > Some(30.0))
            );
            let middle = ask("WHERE _sequence BETWEEN 50 AND 160 AND customer IN ('c1', 'c4')");
            assert_eq!(
                middle,
                some(&|r| (50..=160).contains(&r[0].as_u64().unwrap())
                    && ["c1", "c4"].contains(&r[2].as_str().unwrap()))
            );
        }
    }
}

#[test]
fn sql_sees_what_is_listed_at_every_cursor_and_after_facts_have_left() {
    let project = TempProject::new(BINARY, SHOP);
    project.write("headwater.yaml", ON_DEMAND);
    project.run_ok(&["apply"]);
    let server = ServerProcess::start(&project);
    fill(&server);
    sees_what_is_listed(&server);
    let history = "SELECT _sequence, _removed_at FROM history.purchase ORDER BY 1";
    let before = rows(&server, &json!({ "sql": history }));
    let live = before.iter().filter(|row| row[1].is_null()).count();
    assert_eq!(
        (before.len(), live),
        (260, listed(&server, 280, None).len())
    );
    assert_eq!(
        rows(&server, &json!({"sql": history, "known_at": "100"}))
            .last()
            .unwrap()[0]
            .as_u64(),
        Some(100)
    );
    project.run_ok(&["--server", &server.url, "archive"]);
    // Some more, so that there are facts in the archive and in the log.
    let more = json!([{"id": "new", "customer": "c1", "amount": 1, "time": HOUR}]);
    server.post_json("/v1/facts/purchase", &more);
    server.post_json("/v1/facts/purchase/retract", &json!({"fact_ids": ["p4"]}));
    sees_what_is_listed(&server);
    let last = listed(&server, 282, None);
    assert_eq!(
        rows(&server, &json!({"sql": format!("{LISTING} ORDER BY 1")})),
        last
    );
    assert_eq!(
        one(&server, "SELECT count(*) FROM purchase"),
        json!(last.len())
    );
    assert_eq!(
        rows(&server, &json!({"sql": history, "known_at": "280"})),
        before
    );
    let quarantined = "SELECT field, rule, raw, resolved FROM quarantine.purchase";
    let want = json!([
        "amount",
        "minimum",
        r#"{"amount":-1,"id":"bad","time":1}"#,
        null
    ]);
    assert_eq!(
        json!(rows(&server, &json!({ "sql": quarantined }))),
        json!([want])
    );
    assert_eq!(
        one(
            &server,
            "SELECT count(DISTINCT _unknown_fields) FROM purchase"
        ),
        json!(1)
    );
}

#[test]
fn an_object_that_the_archive_lacks_is_named() {
    let project = TempProject::new(BINARY, SHOP);
    project.write("headwater.yaml", ON_DEMAND);
    project.run_ok(&["apply"]);
    let server = ServerProcess::start(&project);
    fill(&server);
    project.run_ok(&["--server", &server.url, "archive"]);
    let sum = json!({"sql": "SELECT sum(amount) FROM history.purchase"});
    let whole = rows(&server, &sum);
    let mut files = Vec::new();
    let folder = project.path().join(".headwater/archive/contract=purchase");
    parquet_files(&folder, &mut files);
    let refused = |server: &ServerProcess, words: &str| {
        let reply = ask(server, &sum);
        let document = reply.json();
        let detail = document["detail"].as_str().unwrap();
        assert_eq!(
            (reply.status, &document["type"]),
            (503, &json!("urn:headwater:problem:archive-corrupt")),
            "{}",
            reply.body
        );
        assert!(detail.contains(words), "no `{words}` in {}", reply.body);
    };
    let kept = std::fs::read(&files[0]).unwrap();
    let name = files[0].file_name().unwrap().to_str().unwrap();
    std::fs::remove_file(&files[0]).unwrap();
    // Its metadata is remembered.
    let lacks = format!("{name}: it isn't there");
    refused(&server, &lacks);
    assert!(server.stop());
    let server = ServerProcess::start(&project);
    refused(&server, &lacks);
    // No Parquet any more; and Parquet whose pages can't be unpacked.
    std::fs::write(&files[0], vec![0; kept.len()]).unwrap();
    refused(&server, name);
    let mut torn = kept.clone();
    let footer = u32::from_le_bytes(kept[kept.len() - 8..kept.len() - 4].try_into().unwrap());
    let pages = kept.len() - 8 - footer as usize;
    torn[4..pages].fill(0);
    std::fs::write(&files[0], torn).unwrap();
    refused(&server, "");
    std::fs::write(&files[0], kept).unwrap();
    assert_eq!(rows(&server, &sum), whole);
    assert!(server.stop());
}

/// The features of the set `customer_now` of some customers, as a live read tells them.
fn live(
    server: &ServerProcess,
    customers: &[&Value],
    as_of: i64,
    known_at: u64,
) -> Vec<Vec<Value>> {
    let entities: Vec<Value> = customers.iter().map(|c| json!({"customer": c})).collect();
    let read = json!({"feature_set": "customer_now", "entities": entities, "as_of": as_of,
        "known_at": known_at.to_string()});
    let reply = server.post_json("/v1/features", &read);
    assert_eq!(reply.status, 200, "{}", reply.body);
    let reply = reply.json();
    let rows = reply["rows"].as_array().unwrap().iter();
    rows.map(|row| row["values"].as_array().unwrap().clone())
        .collect()
}

fn micros(text: &Value) -> i64 {
    headwater_schema::time::parse_timestamp(text.as_str().unwrap(), None).unwrap()
}

#[test]
fn features_in_sql_are_those_of_live_reads() {
    let project = TempProject::new(BINARY, SHOP);
    project.write("headwater.yaml", ON_DEMAND);
    project.run_ok(&["apply"]);
    let server = ServerProcess::start(&project);
    fill(&server);
    for archived in [false, true] {
        if archived {
            project.run_ok(&["--server", &server.url, "archive"]);
        }
        for (known_at, as_of) in [(280, 50 * HOUR), (151, 96 * HOUR), (90, 3 * HOUR), (5, 0)] {
            let as_of = as_of.cast_signed();
            let moment = headwater_schema::time::format_timestamp(as_of);
            let sql = format!(
                "SELECT * FROM features_as_of('customer_now', TIMESTAMP '{moment}') ORDER BY customer"
            );
            let got = rows(
                &server,
                &json!({"sql": sql, "known_at": known_at.to_string()}),
            );
            let mut customers: Vec<Value> = listed(&server, known_at, Some(as_of.cast_unsigned()))
                .iter()
                .map(|row| row[2].clone())
                .collect();
            customers.sort_by_key(Value::to_string);
            customers.dedup();
            let customers: Vec<&Value> = customers.iter().collect();
            let want = live(&server, &customers, as_of, known_at);
            let want = customers
                .iter()
                .zip(want)
                .map(|(customer, values)| [vec![(*customer).clone()], values].concat());
            assert_eq!(
                got,
                want.collect::<Vec<_>>(),
                "known at {known_at}, as of {moment}"
            );
        }
        for known_at in [280, 90] {
            let sql = "SELECT * FROM views.spending WHERE customer <> 'c3' ORDER BY _sequence";
            let got = rows(
                &server,
                &json!({"sql": sql, "known_at": known_at.to_string()}),
            );
            let facts = listed(&server, known_at, None);
            let facts: Vec<_> = facts.iter().filter(|fact| fact[2] != "c3").collect();
            assert_eq!(got.len(), facts.len());
            for (got, fact) in got.iter().zip(facts) {
                let features = &live(&server, &[&fact[2]], micros(&fact[4]), known_at)[0];
                let want = [
                    &[fact[2].clone(), fact[4].clone(), fact[0].clone()],
                    &features[..],
                ];
                assert_eq!(*got, want.concat());
            }
        }
    }
    // Columns by their bare names, one of many; filters on keys and times.
    let one = "SELECT customer, spent_1h FROM features_as_of('spending', '1970-01-03T02:00:00Z') WHERE customer = 'c1'";
    let spent = live(&server, &[&json!("c1")], 50 * HOUR.cast_signed(), 280);
    assert_eq!(
        rows(&server, &json!({ "sql": one })),
        [vec![json!("c1"), spent[0][4].clone()]]
    );
    let late = "SELECT count(*), min(_event_time) >= TIMESTAMP '1970-01-04T00:00:00Z' FROM views.spending WHERE _event_time >= '1970-01-04T00:00:00Z'";
    let late = &rows(&server, &json!({ "sql": late }))[0];
    let want = listed(&server, 280, None);
    let want = want
        .iter()
        .filter(|fact| micros(&fact[4]) >= 72 * HOUR.cast_signed())
        .count();
    assert_eq!(late, &vec![json!(want), json!(true)]);
    for (call, detail) in [
        ("features_as_of('customer_now')", "1 arguments"),
        ("features_as_of('nothing', now())", "feature set"),
        ("features_as_of('spending', 7)", "the moment is Int64"),
        (
            "features_as_of('spending', now(), 'visit')",
            "no contract `visit`",
        ),
    ] {
        let reply = ask(&server, &json!({"sql": format!("SELECT * FROM {call}")}));
        assert!(
            (400..500).contains(&reply.status) && reply.body.contains(detail),
            "{call}: {}",
            reply.body
        );
    }
    assert!(server.stop());
}

/// A shop with a few purchases, served.
fn shop(settings: &str) -> (TempProject, ServerProcess) {
    let project = TempProject::new(BINARY, SHOP);
    project.write(
        "headwater.yaml",
        format!("name: shop\nspec: {{{settings}}}\n"),
    );
    project.run_ok(&["apply"]);
    let server = ServerProcess::start(&project);
    let facts = json!([
        {"id": "a", "customer": "ada, \"the\" first", "amount": 0.5, "time": 1_000_000},
        {"id": "b", "customer": "", "amount": null, "time": 2_000_000},
        {"id": "c", "customer": null, "amount": 7, "time": 3_000_000},
        {"id": "bad", "amount": -1, "time": 1},
    ]);
    let reply = server.post_json("/v1/facts/purchase", &facts);
    assert_eq!(reply.json()["accepted"], json!(3), "{}", reply.body);
    (project, server)
}

#[test]
fn every_format_says_the_same_on_a_server_and_on_its_folder() {
    let (project, server) = shop("");
    let sql = "SELECT id, customer, amount, time FROM purchase ORDER BY id";
    let csv = "id,customer,amount,time\n\
        a,\"ada, \"\"the\"\" first\",0.5,1970-01-01T00:00:01Z\n\
        b,\"\",,1970-01-01T00:00:02Z\n\
        c,,7.0,1970-01-01T00:00:03Z\n";
    let http = |accept: &str| {
        let headers = [("content-type", "application/json"), ("accept", accept)];
        let body = json!({ "sql": sql }).to_string();
        let reply = call_with(
            "POST",
            &format!("{}/v1/query", server.url),
            &headers,
            body.as_bytes(),
        );
        assert_eq!(
            (reply.status, reply.media_type.as_str()),
            (200, accept),
            "{}",
            reply.body
        );
        reply
    };
    assert_eq!(http("text/csv").body, csv);
    let lines = http("application/x-ndjson").body;
    assert_eq!(
        lines.lines().nth(1),
        Some(r#"{"amount":null,"customer":"","id":"b","time":"1970-01-01T00:00:02Z"}"#)
    );
    let document = http("application/json").json();
    assert_eq!(
        document["columns"][3],
        json!({"name": "time", "type": "timestamp"})
    );
    assert_eq!(
        (&document["row_count"], &document["sequence"]),
        (&json!(3), &json!("3"))
    );
    let arrow = http("application/vnd.apache.arrow.stream").bytes;
    let reader = arrow::ipc::reader::StreamReader::try_new(arrow.as_slice(), None).unwrap();
    assert_eq!(
        reader.map(|batch| batch.unwrap().num_rows()).sum::<usize>(),
        3
    );
    let parquet = bytes::Bytes::from(http("application/vnd.apache.parquet").bytes);
    let reader =
        parquet::arrow::arrow_reader::ParquetRecordBatchReader::try_new(parquet, 10).unwrap();
    assert_eq!(
        reader.map(|batch| batch.unwrap().num_rows()).sum::<usize>(),
        3
    );
    let run = |arguments: &[&str]| project.run_ok(&[&["query", sql], arguments].concat());
    let remote = |arguments: &[&str]| run(&[&["--server", &server.url], arguments].concat());
    let formats: [&[&str]; 5] = [
        &[],
        &["--format", "csv"],
        &["--format", "ndjson"],
        &["--format", "json"],
        &["--json"],
    ];
    let said: Vec<String> = formats.iter().map(|f| remote(f)).collect();
    assert_eq!((&said[1], &said[2]), (&csv.to_owned(), &lines));
    assert_eq!(serde_json::from_str::<Value>(&said[3]).unwrap(), document);
    // A file says what is printed.
    let files = |more: &[&str]| -> Vec<Vec<u8>> {
        let write = |file: &&str| {
            let told = run(&[more, &["--out", *file]].concat());
            assert_eq!(told, format!("3 rows: {file}\n"));
            std::fs::read(project.path().join(file)).unwrap()
        };
        ["a.csv", "a.ndjson", "a.json", "a.arrow", "a.parquet"]
            .iter()
            .map(write)
            .collect()
    };
    let far = files(&["--server", &server.url]);
    assert_eq!(
        far[..3],
        [1, 2, 3].map(|format| said[format].clone().into_bytes())
    );
    assert_eq!(far[3], arrow);
    assert!(far[4].starts_with(b"PAR1") && far[4].ends_with(b"PAR1"));
    let told: Value = serde_json::from_str(&remote(&["--json", "--out", "b.csv"])).unwrap();
    assert_eq!(told, json!({"rows": 3, "out": "b.csv", "sequence": "3"}));
    assert!(
        said[0].starts_with("id  customer          amount  time\n"),
        "{}",
        said[0]
    );
    assert!(
        said[0].contains("b                     NULL"),
        "{}",
        said[0]
    );
    assert!(server.stop());
    // With no server the folder itself is asked.
    let own: Vec<String> = formats.iter().map(|f| run(f)).collect();
    assert_eq!(own, said);
    assert_eq!(files(&[]), far);
    let refused = project.run_fails(&["query", sql, "--out", "a.xlsx"]);
    assert!(refused.contains(".ndjson or .json"), "{refused}");
    let both = project.run(&["query", sql, "--out", "a.csv", "--format", "csv"]);
    assert_eq!(both.status.code(), Some(2));
    let tables = project.run_ok(&["query", "SHOW TABLES", "--format", "csv"]);
    for name in ["facts,purchase", "history,purchase", "quarantine,purchase"] {
        assert!(tables.contains(name), "{tables}");
    }
    let about = "SELECT data_type, description FROM about.columns WHERE table_schema = 'history' AND column_name = '_removed_at'";
    let about = project.run_ok(&["query", about, "--format", "csv"]);
    assert!(about.contains("int64,the sequence from which"), "{about}");
    let owners = "SELECT owner FROM about.tables WHERE table_name = 'spending'";
    assert_eq!(
        project.run_ok(&["query", owners, "--format", "csv"]),
        "owner\nsales\n"
    );
    let described = project.run_ok(&["query", "DESCRIBE purchase", "--format", "csv"]);
    assert!(described.contains("_sequence,Int64,NO"), "{described}");
}

#[test]
fn what_does_not_read_or_is_not_there_is_refused_by_name() {
    let (project, server) = shop("");
    let outside = project.path().join("outside.csv");
    std::fs::write(&outside, "a,b\n1,2\n").unwrap();
    let outside = outside.display();
    let writes = [
        "DROP TABLE purchase".to_owned(),
        "INSERT INTO purchase VALUES ('x', 'y', 1, TIMESTAMP '2020-01-01')".into(),
        "UPDATE purchase SET amount = 1".into(),
        "DELETE FROM purchase".into(),
        "TRUNCATE TABLE purchase".into(),
        "CREATE TABLE other AS SELECT * FROM purchase".into(),
        "CREATE VIEW other AS SELECT * FROM purchase".into(),
        format!("CREATE EXTERNAL TABLE other STORED AS CSV LOCATION '{outside}'"),
        format!("COPY purchase TO '{outside}'"),
        "SET datafusion.execution.batch_size = 1".into(),
        "SELECT * INTO other FROM purchase".into(),
        "PREPARE p AS SELECT 1".into(),
        "BEGIN".into(),
        "EXPLAIN INSERT INTO purchase SELECT * FROM purchase".into(),
        format!("EXPLAIN ANALYZE COPY purchase TO '{outside}'"),
    ];
    for sql in writes {
        let reply = ask(&server, &json!({ "sql": sql }));
        assert_eq!(
            (reply.status, &reply.json()["type"]),
            (400, &json!("urn:headwater:problem:read-only")),
            "{sql}: {}",
            reply.body
        );
    }
    let missing = [
        (format!("SELECT * FROM '{outside}'"), "no files"),
        (
            format!("SELECT * FROM read_csv('{outside}')"),
            "there are: ",
        ),
        ("SELECT * FROM purchas".into(), "did you mean `purchase`"),
        ("SELECT * FROM other.facts.purchase".into(), "there are: "),
        (
            "SELECT * FROM quarantine.visit".into(),
            "quarantine.purchase",
        ),
    ];
    for (sql, hint) in missing {
        let reply = ask(&server, &json!({ "sql": sql }));
        assert_eq!(
            reply.json()["type"],
            json!("urn:headwater:problem:unknown-table"),
            "{sql}: {}",
            reply.body
        );
        assert!(
            reply.status == 404 && reply.body.contains(hint),
            "{}",
            reply.body
        );
    }
    let wrong = [
        ("", "there is no query"),
        ("SELECT amont FROM purchase", "purchase.amount"),
        ("SELECT 1; SELECT 2", "single SQL statement"),
        ("SELECT\n  1 +* 2", "Line: 2"),
        ("SELECT 1 / 0", "Divide by zero"),
    ];
    for (sql, detail) in wrong {
        let reply = ask(&server, &json!({ "sql": sql }));
        assert!(
            reply.status == 400 && reply.body.contains(detail),
            "{sql}: {}",
            reply.body
        );
        assert_eq!(reply.json()["field"], json!("sql"));
    }
    let deep = format!("SELECT {}1{}", "(".repeat(3000), ")".repeat(3000));
    let long = format!("SELECT 1{}", " + 1".repeat(5000));
    for sql in [deep, long, "SELECT repeat('x', 100000000000)".into()] {
        let reply = ask(&server, &json!({ "sql": sql }));
        assert!(
            (400..500).contains(&reply.status),
            "{} {}",
            reply.status,
            reply.body
        );
    }
    let unknown = ask(&server, &json!({"sql": "SELECT 1", "pretty": true}));
    assert!(
        unknown.status == 400 && unknown.body.contains("pretty"),
        "{}",
        unknown.body
    );
    let ahead = ask(&server, &json!({"sql": "SELECT 1", "known_at": "99"}));
    assert!(ahead.body.contains("lies in the future"), "{}", ahead.body);
    assert_eq!(one(&server, "SELECT count(*) FROM purchase"), json!(3));
    assert_eq!(
        std::fs::read_to_string(project.path().join("outside.csv")).unwrap(),
        "a,b\n1,2\n"
    );
    assert_eq!(server.get("/v1/registry").status, 200);
}

fn running(server: &ServerProcess) -> bool {
    let metrics = server.get("/metrics").body;
    !metrics.contains("\nheadwater_queries_running 0")
}

/// Works for hours.
const ENDLESS: &str =
    "SELECT count(*) FROM generate_series(1, 100000000000000) WHERE value % 7 = 3";

#[test]
fn limits_end_a_query_and_the_server_serves_meanwhile() {
    let (_project, server) = shop(
        "query: {timeout_ms: 1500, concurrent_max: 1, rows_max: 100000, memory_bytes_max: 4000000, spill_bytes_max: 1000000}",
    );
    let start = Instant::now();
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| ask(&server, &json!({ "sql": ENDLESS })));
        while !running(&server) {
            assert!(start.elapsed() < Duration::from_secs(10));
        }
        let busy = ask(&server, &json!({"sql": "SELECT 1"}));
        assert!(
            busy.status == 503 && busy.body.contains("query.concurrent_max"),
            "{}",
            busy.body
        );
        // Facts go in and features are read as if nothing were.
        for id in 0..20 {
            let fact = json!([{"id": format!("n{id}"), "customer": "eve", "amount": 1, "time": 1}]);
            assert_eq!(server.post_json("/v1/facts/purchase", &fact).status, 200);
            let read = json!({"features": ["spending.purchases_lifetime"], "entities": [{"customer": "eve"}]});
            let reply = server.post_json("/v1/features", &read).json();
            assert_eq!(reply["rows"][0]["values"][0], json!(id + 1));
        }
        let slow = slow.join().unwrap();
        assert!(
            slow.status == 504 && slow.body.contains("query.timeout_ms"),
            "{}",
            slow.body
        );
    });
    // It is given up in fact.
    let ended = || {
        let since = Instant::now();
        while running(&server) {
            assert!(since.elapsed() < Duration::from_secs(5), "it goes on");
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    ended();
    // Too much for the memory, and for the disk.
    for large in [
        "SELECT value, count(*) FROM generate_series(1, 3000000) GROUP BY 1 ORDER BY 2",
        "SELECT value FROM generate_series(1, 3000000) ORDER BY value % 7, value",
    ] {
        let reply = ask(&server, &json!({ "sql": large }));
        ended();
        let named = ["memory_bytes_max", "spill_bytes_max"];
        let named = named.map(|name| reply.body.contains(&format!("query.{name}")));
        assert!(reply.status == 413 && named == [true; 2], "{}", reply.body);
    }
}

#[test]
fn an_answer_that_breaks_off_never_looks_whole() {
    let (project, server) = shop("query: {rows_max: 100000}");
    let sql = "SELECT value, 'a text that takes some room' AS text FROM generate_series(1, 100001)";
    let agent = ureq::agent();
    for accept in [
        "application/json",
        "application/x-ndjson",
        "text/csv",
        "application/vnd.apache.arrow.stream",
    ] {
        let mut reply = agent
            .post(format!("{}/v1/query", server.url))
            .header("accept", accept)
            .send(json!({ "sql": sql }).to_string())
            .unwrap();
        let mut body = Vec::new();
        let end = std::io::Read::read_to_end(&mut reply.body_mut().as_reader(), &mut body);
        assert!(
            end.is_err() && body.len() > 100_000,
            "{accept}: {} bytes",
            body.len()
        );
        let text = String::from_utf8_lossy(&body);
        assert_eq!(
            text.contains("too-many-rows"),
            accept.ends_with("json"),
            "{accept}"
        );
        assert!(!text.contains("row_count"));
    }
    // One that is short enough is refused as a whole.
    let few = "SELECT value FROM generate_series(1, 100001) LIMIT 100001";
    assert_eq!(ask(&server, &json!({"sql": few, "limit": 10})).status, 200);
    for format in ["csv", "json", "arrow"] {
        let said = project.run_fails(&["--server", &server.url, "query", sql, "--format", format]);
        assert!(said.contains("the server broke the answer off"), "{said}");
    }
    let path = |name: &str| project.path().join(name);
    let old = "what was there before\n";
    let fails = |more: &[&str]| {
        project.write("a.csv", old);
        let said = project.run_fails(&[&["query", sql, "--out", "a.csv"], more].concat());
        assert_eq!(std::fs::read_to_string(path("a.csv")).unwrap(), old);
        assert!(!path("a.csv.new").exists());
        said
    };
    let said = fails(&["--server", &server.url]);
    assert!(said.contains("the server broke the answer off"), "{said}");
    assert!(server.stop());
    for said in [
        fails(&[]),
        project.run_fails(&["query", sql, "--format", "csv"]),
    ] {
        assert!(
            said.contains("too many rows") && said.contains("query.rows_max"),
            "{said}"
        );
    }
    killed_while_it_writes(&project);
    // The manifest of a table that was there before is none of the answer's.
    project.write("a.csv.manifest.json", "{}");
    project.run_ok(&["query", "SELECT 1 AS one", "--out", "a.csv"]);
    assert_eq!(std::fs::read_to_string(path("a.csv")).unwrap(), "one\n1\n");
    assert!(!path("a.csv.manifest.json").exists() && !path("a.csv.new").exists());
}

fn killed_while_it_writes(project: &TempProject) {
    let many = "SELECT value, repeat('x', 200) AS text FROM generate_series(1, 100000)";
    let mut child = std::process::Command::new(project.binary())
        .args(["query", many, "--out", "killed.csv"])
        .current_dir(project.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let beside = project.path().join("killed.csv.new");
    let begun = || std::fs::metadata(&beside).is_ok_and(|file| file.len() > 0);
    while !begun() {
        let ended = child.try_wait().unwrap();
        assert!(ended.is_none(), "it ended before it was killed");
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let out = project.path().join("killed.csv");
    assert!(!out.exists(), "a part of an answer looks whole");
}

#[test]
fn a_format_that_is_not_there_is_refused_by_name() {
    let project = TempProject::new(BINARY, SHOP);
    project.run_ok(&["apply"]);
    let server = ServerProcess::start(&project);
    let ask = |accept: &str| {
        let body = br#"{"sql":"SELECT 1"}"#;
        let headers = [("content-type", "application/json"), ("accept", accept)];
        call_with("POST", &format!("{}/v1/query", server.url), &headers, body)
    };
    let refused = ask("application/foo");
    assert_eq!(refused.status, 406, "{}", refused.body);
    assert!(refused.body.contains("text/csv"), "{}", refused.body);
    for fine in [
        "application/foo, */*;q=0.1",
        "*/*",
        "application/json",
        "application/foo, text/csv",
    ] {
        assert_eq!(ask(fine).status, 200, "{fine}");
    }
}
