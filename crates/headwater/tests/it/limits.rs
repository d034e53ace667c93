//! What protects the server: clients that are slow or too many, requests that are too large, and an
//! end that answers what is under way.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use headwater_testkit::{ServerProcess, TempProject, call_with};
use serde_json::json;

use crate::{BINARY, SHOP};

fn served(limits: &str) -> (TempProject, ServerProcess) {
    let project = TempProject::new(BINARY, SHOP);
    project.write(
        "headwater.yaml",
        format!("name: shop\nspec: {{limits: {{{limits}}}}}\n"),
    );
    project.run_ok(&["apply"]);
    let server = ServerProcess::start(&project);
    (project, server)
}

fn connect(server: &ServerProcess) -> TcpStream {
    let address = server.url.strip_prefix("http://").unwrap();
    let stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    stream
}

/// Everything that comes until the server closes.
fn rest(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// The head of a request with a body that is yet to come.
fn begin(server: &ServerProcess, body: usize) -> TcpStream {
    let mut stream = connect(server);
    let head = format!(
        "POST /v1/facts/purchase HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {body}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

fn is_answered(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let waits = stream
        .peek(&mut [0])
        .is_err_and(|e| e.kind() == ErrorKind::WouldBlock);
    stream.set_nonblocking(false).unwrap();
    !waits
}

#[test]
fn slow_clients_are_let_go() {
    let (_project, server) = served("header_ms_max: 300, body_ms_max: 300");
    let start = Instant::now();
    let mut silent = connect(&server);
    let mut slow = connect(&server);
    slow.write_all(b"POST /v1/facts/purchase HTT").unwrap();
    let mut half = begin(&server, 100);
    half.write_all(b"[{\"id\":").unwrap();
    assert_eq!(rest(&mut silent), "");
    let refused = rest(&mut slow);
    assert!(
        refused.is_empty() || refused.starts_with("HTTP/1.1 408"),
        "{refused}"
    );
    let told = rest(&mut half);
    assert!(
        told.starts_with("HTTP/1.1 408") && told.contains("limits.body_ms_max"),
        "{told}"
    );
    assert!(start.elapsed() < Duration::from_secs(15));
    assert_eq!(server.get("/health/ready").status, 200);
}

#[test]
fn a_request_that_takes_too_long_is_given_up_by_name() {
    let (_project, server) = served("request_ms_max: 300");
    let start = Instant::now();
    let mut half = begin(&server, 100);
    half.write_all(b"[{\"id\":").unwrap();
    let told = rest(&mut half);
    for words in ["HTTP/1.1 504", "retry-after: 1", "limits.request_ms_max"] {
        assert!(told.contains(words), "no {words} in {told}");
    }
    let took = start.elapsed();
    let bounds = Duration::from_millis(300)..Duration::from_secs(15);
    assert!(bounds.contains(&took), "{took:?}");
    assert_eq!(server.get("/health/ready").status, 200);
}

#[test]
fn no_more_features_are_read_at_once_than_the_limit_lets() {
    let (_project, server) = served("features_max: 2");
    let names = ["spent_1h", "spent_1m", "last"];
    let read = |count: usize| {
        let names = names.iter().take(count);
        let ours: Vec<String> = names.clone().map(|n| format!("spending.{n}")).collect();
        let feasts: Vec<String> = names.map(|n| format!("spending:{n}")).collect();
        let ours = json!({"features": ours, "entities": [{"customer": "ada"}]});
        let feasts = json!({"features": feasts, "entities": {"customer": ["ada"]}});
        [
            server.post_json("/v1/features", &ours),
            server.post_json("/get-online-features", &feasts),
        ]
    };
    assert_eq!(read(2).map(|reply| reply.status), [200, 200]);
    let refused = read(3);
    assert_eq!(refused.each_ref().map(|reply| reply.status), [400, 422]);
    for reply in refused {
        for words in ["3 of at most 2", "limits.features_max"] {
            assert!(reply.body.contains(words), "no {words} in {}", reply.body);
        }
    }
}

#[test]
fn requests_that_find_no_room_to_wait_are_refused_and_may_come_again() {
    let project = TempProject::new(BINARY, SHOP);
    project.write(
        "headwater.yaml",
        "name: shop\nspec: {ingest: {queue_requests_max: 1, group_requests_max: 1, groups_in_flight_max: 1}}\n",
    );
    project.run_ok(&["apply"]);
    let server = ServerProcess::start(&project);
    // Each is written by itself, and one may wait meanwhile: of eight at once some find no room, sooner or later.
    let send = |id: &str| {
        let rows =
            (0..200).map(|n| json!({"id": format!("{id}-{n}"), "customer": "ada", "time": n}));
        server.post_json("/v1/facts/purchase", &rows.collect())
    };
    let end = Instant::now() + Duration::from_secs(60);
    let refused = (0..).find_map(|round| {
        assert!(Instant::now() < end, "there is always room");
        std::thread::scope(|scope| {
            let sender = |place| {
                let send = &send;
                let id = format!("{round}-{place}");
                scope.spawn(move || (send(&id), id))
            };
            let senders: Vec<_> = (0..8).map(sender).collect();
            let told = senders.into_iter().map(|sender| sender.join().unwrap());
            let told: Vec<_> = told.collect();
            let known = [200, 503];
            assert!(told.iter().all(|(reply, _)| known.contains(&reply.status)));
            told.into_iter().find(|(reply, _)| reply.status == 503)
        })
    });
    let (reply, id) = refused.unwrap();
    assert!(
        reply.body.contains("ingest.queue_requests_max"),
        "{}",
        reply.body
    );
    let again = send(&id);
    assert_eq!(
        again.json()["accepted"],
        200,
        "nothing of it was taken: {}",
        again.body
    );
    let metrics = server.get("/metrics").body;
    let counted = metrics
        .lines()
        .find_map(|line| line.strip_prefix("headwater_ingest_refused_total "));
    assert!(counted.is_some_and(|count| count != "0"), "{counted:?}");
}

#[test]
fn a_view_has_no_more_features_than_a_view_may_have() {
    let project = TempProject::new(BINARY, SHOP);
    let view = |windows: usize| {
        let windows = (1..=windows).map(|seconds| format!("{seconds}s"));
        let view = format!(
            "{{apiVersion: headwater/v1, kind: FeatureView, name: many, spec: {{entity: customer, sources: [{{contract: purchase}}],\n  \
             features: [{{name: last, of: amount}}, {{name: n, aggregate: count, windows: [{}]}}]}}}}\n",
            windows.collect::<Vec<_>>().join(", ")
        );
        project.write("features/many.yaml", view);
    };
    view(1999);
    project.run_ok(&["check"]);
    view(2000);
    let said = project.run_fails(&["check"]);
    for words in ["more than 2000 features", "split it", "many.yaml:2"] {
        assert!(said.contains(words), "no {words} in {said}");
    }
}

#[test]
fn more_than_there_is_room_for_is_refused_at_once_and_by_name() {
    let (_project, server) = served(
        "connections_max: 3, requests_in_flight_max: 1, url_bytes_max: 200, header_bytes_max: 2000, body_ms_max: 90000",
    );
    let long = server.get(&format!("/metrics?{}", "x".repeat(300)));
    assert!(
        long.status == 414 && long.body.contains("limits.url_bytes_max"),
        "{}",
        long.body
    );
    let value = "x".repeat(3000);
    let url = format!("{}/metrics", server.url);
    let large = call_with("GET", &url, &[("x-large", &value)], b"");
    assert!(
        large.status == 431 && large.body.contains("limits.header_bytes_max"),
        "{}",
        large.body
    );
    // What has just been answered counts a moment longer, and may have the next be refused by another limit,
    // the one that is to be held too.
    let end = Instant::now() + Duration::from_secs(60);
    let is = |path: &str, status: u16, says: &str| {
        let told = server.get(path);
        let is = told.status == status && told.body.contains(says);
        assert!(is || Instant::now() < end, "{path}: {}", told.body);
        is
    };
    let mut held = begin(&server, 2);
    while !is("/metrics", 503, "limits.requests_in_flight_max") || is_answered(&held) {
        if is_answered(&held) {
            held = begin(&server, 2);
        }
    }
    held.write_all(b"[").unwrap();
    while !is("/health/live", 200, "") {}
    let mut open = Vec::new();
    let told = loop {
        let mut next = connect(&server);
        next.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            .unwrap();
        let mut first = [0; 12];
        next.read_exact(&mut first).unwrap();
        if &first == b"HTTP/1.1 503" {
            break rest(&mut next);
        }
        open.push(next);
        assert!(open.len() < 3, "never refused");
    };
    assert!(
        told.contains("limits.connections_max") && told.contains("retry-after: 1"),
        "{told}"
    );
    drop(open);
    held.write_all(b"]").unwrap();
    assert!(rest(&mut held).starts_with("HTTP/1.1 200"));
    let end = Instant::now() + Duration::from_secs(10);
    let refused = |metrics: &str| {
        let line = metrics
            .lines()
            .find(|l| l.starts_with("headwater_http_connections_refused_total "));
        line.is_some_and(|l| !l.ends_with(" 0"))
    };
    while !refused(&server.get("/metrics").body) {
        assert!(Instant::now() < end, "never counted");
    }
}

#[test]
fn a_stop_answers_what_is_under_way_and_takes_nothing_more() {
    let (_project, server) = served("drain_notice_ms: 1500");
    let mut held = begin(&server, 2);
    held.write_all(b"[").unwrap();
    assert_eq!(server.get("/health/ready").status, 200);
    server.terminate();
    let end = Instant::now() + Duration::from_secs(10);
    while server.get("/health/ready").status != 503 {
        assert!(Instant::now() < end, "never told");
    }
    let address = server.url.strip_prefix("http://").unwrap().to_owned();
    while TcpStream::connect(&address).is_ok() {
        assert!(Instant::now() < end, "never closed");
        std::thread::sleep(Duration::from_millis(20));
    }
    held.write_all(b"]").unwrap();
    let told = rest(&mut held);
    assert!(
        told.starts_with("HTTP/1.1 200") && told.contains("\"accepted\":0"),
        "{told}"
    );
    assert_eq!(server.wait(), Some(0));
}

#[test]
fn a_stop_waits_for_a_named_time_and_a_second_signal_for_none() {
    let (_project, server) = served("drain_ms_max: 300");
    let _held = begin(&server, 2);
    assert_eq!(server.get("/health/ready").status, 200);
    let start = Instant::now();
    server.terminate();
    assert_eq!(server.wait(), Some(0), "the rest is given up in order");
    assert!(start.elapsed() < Duration::from_secs(15));

    let (_project, server) = served("drain_ms_max: 600000");
    let _held = begin(&server, 2);
    assert_eq!(server.get("/health/ready").status, 200);
    server.terminate();
    std::thread::sleep(Duration::from_millis(200));
    server.terminate();
    assert_eq!(server.wait(), Some(130));
}
