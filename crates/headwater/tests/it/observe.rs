//! What an operator sees: metrics, traces, logs, stale sources, the doctor.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use headwater_testkit::{ServerProcess, TempProject, call_with};
use serde_json::{Value, json};

use crate::{BINARY, CONTRACTS, FEATURES, SHOP};

/// The shop, with a contract whose facts should be at most a minute old.
fn fresh_shop() -> TempProject {
    let project = TempProject::new(BINARY, SHOP);
    project.write("headwater.yaml", "name: shop\nspec: {archive: {}}\n");
    let contracts = format!(
        "{CONTRACTS}slaProperties:\n  - {{property: freshness, value: 1, unit: minute, element: purchase}}\n"
    );
    project.write("contracts/shop.yaml", contracts);
    project.run_ok(&["apply"]);
    project
}

fn now_micros() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.unwrap().as_micros()).unwrap()
}

fn purchase(id: &str, time: i64) -> Value {
    json!([{"id": id, "customer": "ada", "amount": 1.0, "time": time}])
}

#[test]
fn the_page_of_metrics_is_what_a_server_exposes() {
    let project = fresh_shop();
    let key = project.run_ok(&["keys", "create", "--role", "admin"]);
    let bearer = format!("Bearer {}", key.trim());
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "application/json"),
    ];
    let server = ServerProcess::start(&project);
    let call = |method: &str, path: &str, body: &str| {
        let url = format!("{}{path}", server.url);
        let reply = call_with(method, &url, &headers, body.as_bytes());
        assert_eq!(reply.status, 200, "{}", reply.body);
        reply.body
    };
    call(
        "POST",
        "/v1/facts/purchase",
        &purchase("a", 1_000_000).to_string(),
    );
    call("POST", "/v1/facts/purchase", "[{\"id\": 7}]");
    let read = json!({"feature_set": "customer_now", "entities": [{"customer": "ada"}]});
    call("POST", "/v1/features", &read.to_string());
    let text = call("GET", "/metrics", "");
    let kinds = text
        .lines()
        .filter_map(|l| l.strip_prefix("# TYPE ")?.split_once(' '));
    let exposed: BTreeMap<&str, &str> = kinds.collect();
    let page = include_str!("../../../../docs/metrics.md");
    let rows = page.lines().filter(|l| l.starts_with("| `headwater_"));
    let mut documented: BTreeMap<&str, &str> = rows
        .map(|row| {
            let mut cells = row.split('|').map(|c| c.trim().trim_matches('`')).skip(1);
            (cells.next().unwrap(), cells.next().unwrap())
        })
        .collect();
    // There only while a view is being filled, and where there are models.
    const OF_MODELS: [&str; 23] = [
        "headwater_predictions_answered",
        "headwater_predictions_degraded",
        "headwater_predictions_failed",
        "headwater_prediction_rows",
        "headwater_prediction_seconds",
        "headwater_prediction_features_seconds",
        "headwater_prediction_scoring_seconds",
        "headwater_predictions_shadowed",
        "headwater_prediction_cache_hits",
        "headwater_prediction_cache_misses",
        "headwater_prediction_cache_joined",
        "headwater_prediction_cache_saved_seconds",
        "headwater_prediction_stream_backlog_facts",
        "headwater_prediction_stream_lag_seconds",
        "headwater_prediction_stream_written",
        "headwater_prediction_stream_repeated",
        "headwater_prediction_stream_degraded",
        "headwater_prediction_stream_failures",
        "headwater_prediction_stream_skipped",
        "headwater_prediction_stream_refused",
        "headwater_prediction_webhook_delivered",
        "headwater_prediction_webhook_failures",
        "headwater_prediction_webhook_backlog_facts",
    ];
    documented.retain(|name, _| {
        let fill = name.starts_with("headwater_view_fill_") || OF_MODELS.contains(name);
        !fill && *name != "headwater_view_filled_sequence"
    });
    assert_eq!(exposed, documented);
    // Each histogram counts up to its total.
    for line in text.lines().filter(|l| l.contains("le=\"+Inf\"")) {
        let (bucket, count) = line.rsplit_once(' ').unwrap();
        let total = bucket
            .replace("_bucket", "_count")
            .replace(",le=\"+Inf\"", "")
            .replace("{le=\"+Inf\"}", "");
        assert!(text.contains(&format!("\n{total} {count}\n")), "{line}");
    }
    assert!(
        text.contains("\nheadwater_log_sync_seconds_count 2\n"),
        "{text}"
    );
    assert!(
        text.contains("\nheadwater_feature_read_seconds_count 1\n"),
        "{text}"
    );
}

#[test]
fn a_stale_source_is_told_in_the_reply_and_by_the_doctor() {
    let project = fresh_shop();
    let doctor = |project: &TempProject| {
        let found: Value = serde_json::from_str(&project.run_ok(&["--json", "doctor"])).unwrap();
        let found = found.as_array().unwrap().clone();
        let stale = found.iter().find(|f| f["what"] == "source");
        stale.map(|f| f["detail"].as_str().unwrap().to_owned())
    };
    let told = doctor(&project).unwrap();
    assert!(
        told.contains("`purchase` is stale: the newest fact is of nothing yet"),
        "{told}"
    );
    let server = ServerProcess::start(&project);
    let read = |more: Value| {
        let mut body = json!({"feature_set": "customer_now", "entities": [{"customer": "ada"}]});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        server.post_json("/v1/features", &body).json()
    };
    let stale = |read: &Value| read.get("stale_sources").cloned();
    let metric = |name: &str| {
        let text = server.get("/metrics").body;
        let line = text
            .lines()
            .find(|l| l.starts_with(&format!("headwater_{name}")))
            .unwrap();
        line.rsplit_once(' ').unwrap().1.to_owned()
    };
    let nothing = json!([{"contract": "purchase", "newest": null, "expected_within": "1m"}]);
    assert_eq!(stale(&read(json!({}))), Some(nothing));
    server.post_json("/v1/facts/purchase", &purchase("old", 1_500_000));
    let old = json!([{"contract": "purchase", "newest": "1970-01-01T00:00:01.5Z", "expected_within": "1m"}]);
    assert_eq!(stale(&read(json!({}))), Some(old));
    assert_eq!(metric("source_stale"), "1");
    assert_eq!(metric("feature_reads_stale_total"), "2");
    assert_eq!(
        stale(&read(json!({"as_of": 2_000_000}))),
        None,
        "the past is as it was"
    );
    server.post_json("/v1/facts/purchase", &purchase("new", now_micros()));
    assert_eq!(stale(&read(json!({}))), None, "a reader sees its own fact");
    assert_eq!(metric("source_stale"), "0");
    assert!(server.stop(), "an orderly end");
    assert_eq!(doctor(&project), None);
}

#[test]
fn fields_that_a_contract_doesnt_know_are_counted_and_named() {
    let project = fresh_shop();
    let server = ServerProcess::start(&project);
    let about = || server.get("/v1/registry/contract/purchase").json()["unknown_fields"].clone();
    assert_eq!(about(), Value::Null);
    let facts = json!([
        {"id": "a", "time": 1, "colour": "red", "size": 4},
        {"id": "b", "time": 2, "colour": "blue"},
        {"id": "c", "time": 3},
        {"id": 7, "time": 4, "colour": "of a row that is no fact"},
    ]);
    let reply = server.post_json("/v1/facts/purchase", &facts).json();
    assert_eq!(reply["accepted"], 3, "{reply}");
    let told = json!({"facts": 2, "fields": 3, "names": {"colour": 2, "size": 1}, "others": 0});
    assert_eq!(about(), told);
    let text = server.get("/metrics").body;
    let line = "headwater_facts_unknown_fields_total{contract=\"purchase\"} 3\n";
    assert!(text.contains(line), "{text}");
}

/// A collector of one connection at a time: all bodies that are sent to it.
fn collector() -> (String, std::sync::mpsc::Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}/v1/traces", listener.local_addr().unwrap());
    let (send, received) = std::sync::mpsc::sync_channel(100);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            stream
                .set_read_timeout(Some(Duration::from_secs(5)))
                .unwrap();
            let (mut bytes, mut part) = (Vec::new(), [0; 4096]);
            let whole = |bytes: &[u8]| {
                let head = bytes.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
                let text = String::from_utf8_lossy(&bytes[..head]).to_lowercase();
                let length = text.split("content-length:").nth(1)?.split("\r\n").next()?;
                let length: usize = length.trim().parse().ok()?;
                (bytes.len() >= head + length).then(|| bytes[head..].to_vec())
            };
            while whole(&bytes).is_none() {
                match stream.read(&mut part) {
                    Ok(0) | Err(_) => break,
                    Ok(read) => bytes.extend_from_slice(&part[..read]),
                }
            }
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            send.send(whole(&bytes).unwrap_or_default()).unwrap();
        }
    });
    (endpoint, received)
}

#[test]
fn spans_of_a_request_join_the_callers_trace() {
    let (endpoint, received) = collector();
    let project = TempProject::new(BINARY, SHOP);
    let settings = format!(
        "name: shop\nspec: {{telemetry: {{traces: {{endpoint: '{endpoint}', sample_ratio: 0}}, logs: {{format: json, level: info}}}}}}\n"
    );
    project.write("headwater.yaml", settings);
    project.run_ok(&["apply"]);
    let server = ServerProcess::start_logged(&project);
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let traced = format!("00-{trace}-00f067aa0ba902b7-01");
    let send = |path: &str, headers: &[(&str, &str)], body: &Value| {
        let url = format!("{}{path}", server.url);
        let reply = call_with("POST", &url, headers, body.to_string().as_bytes());
        assert_eq!(reply.status, 200, "{}", reply.body);
    };
    let caller = [
        ("traceparent", traced.as_str()),
        ("x-request-id", "order-17"),
    ];
    send("/v1/facts/purchase", &caller, &purchase("a", 1_000_000));
    let read = json!({"feature_set": "customer_now", "entities": [{"customer": "ada"}]});
    send("/v1/features", &caller, &read);
    send("/v1/features", &[("x-request-id", "untraced")], &read);
    assert!(server.stop(), "an orderly end");
    let logs = std::fs::read_to_string(project.path().join("server.log")).unwrap();
    let mut bytes = Vec::new();
    let end = Instant::now() + Duration::from_secs(20);
    let has = |bytes: &[u8], text: &[u8]| bytes.windows(text.len()).any(|w| w == text);
    while !has(&bytes, b"apply") || !has(&bytes, b"/v1/features") {
        assert!(Instant::now() < end, "no spans");
        bytes.extend(received.recv_timeout(Duration::from_secs(20)).unwrap());
    }
    let id: Vec<u8> = (0..16)
        .map(|i| u8::from_str_radix(&trace[2 * i..2 * i + 2], 16).unwrap())
        .collect();
    let spans = bytes.windows(16).filter(|w| *w == id.as_slice()).count();
    assert!(
        spans >= 6,
        "{spans} spans: request, decode, append, apply, request, read"
    );
    for name in ["request", "decode", "append", "apply", "read", "order-17"] {
        assert!(has(&bytes, name.as_bytes()), "no span tells of {name}");
    }
    assert!(!has(&bytes, b"untraced"), "not sampled");
    let lines: Vec<Value> = logs
        .lines()
        .filter_map(|l| serde_json::from_str(l).ok())
        .collect();
    let answered = lines
        .iter()
        .find(|l| l["fields"]["message"] == "answered" && l["span"]["request_id"] == "order-17");
    let answered = answered.unwrap_or_else(|| panic!("{logs}"));
    assert_eq!(
        (&answered["level"], &answered["fields"]["status"]),
        (&json!("INFO"), &json!(200))
    );
}

#[test]
fn the_doctor_finds_what_an_operator_would_look_for() {
    let project = TempProject::new(BINARY, SHOP);
    let verdicts = |project: &TempProject, code: i32| {
        let output = project.run(&["--json", "doctor"]);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        let found = found.as_array().unwrap().clone();
        let pair = |f: &Value| {
            let text = |n: &str| f[n].as_str().unwrap().to_owned();
            (text("what"), text("verdict"))
        };
        found.iter().map(pair).collect::<BTreeMap<String, String>>()
    };
    let is =
        |found: &BTreeMap<String, String>, what: &str| found.get(what).cloned().unwrap_or_default();
    let fresh = verdicts(&project, 0);
    assert_eq!(
        (
            is(&fresh, "definitions"),
            is(&fresh, "applied"),
            is(&fresh, "data")
        ),
        ("OK".into(), "WARN".into(), "WARN".into())
    );
    project.run_ok(&["apply"]);
    let applied = verdicts(&project, 0);
    for what in [
        "applied", "disk", "sync", "clock", "keys", "sources", "fact log",
    ] {
        assert_eq!(is(&applied, what), "OK", "{what}: {applied:?}");
    }
    // Open to others without keys, more connections than files, and an event that "arrived" tomorrow.
    project.write(
        "headwater.yaml",
        "name: shop\nspec: {listen: '0.0.0.0:8080', limits: {connections_max: 1000000000000000}}\n",
    );
    let open = verdicts(&project, 1);
    assert_eq!(
        (is(&open, "keys"), is(&open, "tls")),
        ("FAIL".into(), "WARN".into())
    );
    if cfg!(target_os = "linux") {
        assert_eq!(is(&open, "open files"), "WARN");
    }
    project.run_ok(&["keys", "create", "--role", "read"]);
    assert_eq!(is(&verdicts(&project, 0), "keys"), "OK");
    // Limits of which the inner one can't be reached.
    project.write(
        "headwater.yaml",
        "name: shop\nspec: {limits: {body_bytes_max: 1000}}\n",
    );
    assert_eq!(is(&verdicts(&project, 0), "settings"), "WARN");
}

#[test]
fn the_doctor_asks_a_running_server() {
    let project = fresh_shop();
    let look = |arguments: &[&str], code: i32| {
        let output = project.run(&[&["--json", "doctor"], arguments].concat());
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        let found: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
        let told = found.iter().map(|f| {
            let text = |n: &str| f[n].as_str().unwrap().to_owned();
            format!("{} {}: {}", text("verdict"), text("what"), text("detail"))
        });
        told.collect::<Vec<String>>()
    };
    let has = |found: &[String], words: &str| {
        assert!(
            found.iter().any(|f| f.contains(words)),
            "no `{words}` in {found:#?}"
        );
    };
    let server = ServerProcess::start(&project);
    server.post_json("/v1/facts/purchase", &purchase("old", 1_500_000));
    server.post_json("/v1/facts/purchase", &json!([{"id": 7}]));
    for arguments in [&[][..], &["--server", &server.url]] {
        let found = look(arguments, 0);
        has(&found, "OK applied: what is applied is what is defined");
        has(&found, "OK disk: ");
        has(&found, "OK sync: ");
        has(&found, "OK clock: 20");
        has(
            &found,
            "WARN source: `purchase` is stale: the newest fact is of 1970-01-01T00:00:01.5Z, one is expected every 1m",
        );
        has(&found, "WARN quarantine: 1 rows of `purchase` wait");
        has(&found, "OK views: every view is filled");
        let here = found.iter().any(|f| f.starts_with("OK open files"));
        assert_eq!(here, arguments.is_empty(), "{found:#?}");
    }
    has(
        &look(&[], 0),
        &format!(
            "OK data: the server at {} holds it and was asked",
            server.url
        ),
    );
    // Another project's definitions aren't those of the server.
    project.write(
        "features/shop.yaml",
        FEATURES.replace("customer_now", "customer_then"),
    );
    has(
        &look(&["--server", &server.url], 0),
        "changes aren't applied: see `headwater plan`",
    );
    drop(server);
    has(
        &look(&["--server", "http://127.0.0.1:9"], 1),
        "FAIL server: ",
    );
}
