//! Facts that come in a stream: chunks, acknowledgements meanwhile, limits, an orderly end.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use headwater_testkit::{ServerProcess, TempProject};
use serde_json::{Value, json};

use crate::{BINARY, SHOP};

const LIMITS: &str = "name: shop\nspec: {limits: {row_bytes_max: 300, feed_batch_rows_max: 50, feed_rejected_max: 2, feeds_max: 2}}\n";

fn served() -> (TempProject, ServerProcess) {
    let project = TempProject::new(BINARY, SHOP);
    project.write("headwater.yaml", LIMITS);
    project.run_ok(&["apply"]);
    let server = ServerProcess::start(&project);
    (project, server)
}

fn purchase(id: usize) -> String {
    json!({"id": id.to_string(), "customer": "ada", "amount": 1, "time": id}).to_string()
}

/// A connection that feeds, in chunks.
struct Feeding {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Feeding {
    /// `contract` may have parameters behind it.
    fn open(server: &ServerProcess, contract: &str) -> Self {
        let (contract, parameters) = contract.split_once('?').unwrap_or((contract, ""));
        let address = server.url.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let head = format!(
            "POST /v1/facts/{contract}/stream?{parameters} HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let reader = BufReader::new(stream.try_clone().unwrap());
        Self { stream, reader }
    }

    fn chunk(&mut self, text: &str) {
        let chunk = format!("{:x}\r\n{text}\r\n", text.len());
        self.stream.write_all(chunk.as_bytes()).unwrap();
    }

    fn end(&mut self) {
        self.stream.write_all(b"0\r\n\r\n").unwrap();
    }

    /// The status, and what is left behind the head.
    fn status(&mut self) -> u16 {
        let mut first = String::new();
        self.reader.read_line(&mut first).unwrap();
        let mut line = String::new();
        while self.reader.read_line(&mut line).unwrap() > 2 {
            line.clear();
        }
        first.split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// The next line of the reply.
    fn line(&mut self) -> Value {
        let mut size = String::new();
        self.reader.read_line(&mut size).unwrap();
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        let mut bytes = vec![0; size + 2];
        self.reader.read_exact(&mut bytes).unwrap();
        serde_json::from_slice(&bytes[..size]).unwrap()
    }

    fn last_line(&mut self) -> Value {
        loop {
            let line = self.line();
            if line.get("done").is_some() {
                return line;
            }
        }
    }
}

#[test]
fn a_feed_revises_where_it_is_asked_to_and_is_never_all_or_nothing() {
    let (_project, server) = served();
    server.post_json(
        "/v1/facts/purchase",
        &json!([{"id": "1", "customer": "ada", "amount": 1, "time": 1}]),
    );
    let mut feeding = Feeding::open(&server, "purchase?revise=true");
    assert_eq!(feeding.status(), 200);
    let revised = json!({"id": "1", "customer": "ada", "amount": 5, "time": 1});
    feeding.chunk(&format!("{revised}\n"));
    feeding.end();
    let line = feeding.last_line();
    assert_eq!(
        (&line["accepted"], &line["done"]),
        (&json!(1), &json!(true)),
        "{line}"
    );
    let facts = server.get("/v1/facts/purchase").json();
    assert_eq!(facts["facts"][0]["fact"]["amount"], 5.0, "{facts}");
    for (parameters, status) in [
        ("on_reject=fail", 400),
        ("revise=perhaps", 400),
        ("revize=true", 400),
        ("on_reject=keep", 200),
    ] {
        let mut feeding = Feeding::open(&server, &format!("purchase?{parameters}"));
        feeding.end();
        assert_eq!(feeding.status(), status, "{parameters}");
    }
}

#[test]
fn a_batch_of_a_feed_is_no_larger_than_a_request_may_be() {
    let project = TempProject::new(BINARY, SHOP);
    project.write(
        "headwater.yaml",
        "name: shop\nspec: {limits: {rows_max: 10}}\n",
    );
    project.run_ok(&["apply"]);
    let server = ServerProcess::start(&project);
    let mut feeding = Feeding::open(&server, "purchase");
    let lines: Vec<String> = (0..95).map(purchase).collect();
    feeding.chunk(&(lines.join("\n") + "\n"));
    feeding.end();
    assert_eq!(feeding.status(), 200);
    let line = feeding.last_line();
    assert_eq!(
        (&line["accepted"], &line["done"]),
        (&json!(95), &json!(true)),
        "{line}"
    );
}

#[test]
fn a_batch_of_a_feed_has_no_more_bytes_than_the_limit_lets() {
    let project = TempProject::new(BINARY, SHOP);
    let rows: Vec<String> = (1000..1100).map(purchase).collect();
    let row_bytes = rows[0].len() + 1;
    let three = 3 * row_bytes;
    project.write(
        "headwater.yaml",
        format!("name: shop\nspec: {{limits: {{feed_batch_bytes_max: {three}, row_bytes_max: {row_bytes}}}}}\n"),
    );
    project.run_ok(&["apply"]);
    let server = ServerProcess::start(&project);
    let mut feeding = Feeding::open(&server, "purchase");
    feeding.chunk(&(rows.join("\n") + "\n"));
    feeding.end();
    assert_eq!(feeding.status(), 200);
    let line = feeding.last_line();
    assert_eq!(line["accepted"], 100, "{line}");
    // Each batch is a request to the log.
    let metrics = server.get("/metrics").body;
    let mut lines = metrics.lines();
    let requests = lines.find_map(|l| l.strip_prefix("headwater_ingest_requests_total "));
    let requests: u64 = requests.unwrap().parse().unwrap();
    assert!((34..=100).contains(&requests), "{requests} batches");
}

#[test]
fn rows_are_acknowledged_while_the_body_is_still_open() {
    let (_project, server) = served();
    let mut feeding = Feeding::open(&server, "purchase");
    assert_eq!(feeding.status(), 200);
    let first = purchase(1);
    let (head, tail) = first.split_at(9);
    feeding.chunk(head);
    feeding.chunk(&format!("{tail}\n"));
    let line = feeding.line();
    assert_eq!(
        (&line["rows"], &line["accepted"], &line["sequence"]),
        (&json!(1), &json!(1), &json!("1"))
    );
    let read =
        json!({"features": ["spending.purchases_lifetime"], "entities": [{"customer": "ada"}]});
    let seen = server.post_json("/v1/features", &read).json();
    assert_eq!(
        seen["rows"][0]["values"],
        json!([1]),
        "acknowledged is visible"
    );
    let mut rows = vec![first, "\n\n{\"id\": 7}".into(), "{\"id\":".into()];
    rows.push(json!({"id": "1", "customer": "ada", "amount": 2, "time": 1}).to_string());
    rows.extend((2..200).map(purchase));
    feeding.chunk(&rows.join("\n"));
    feeding.end();
    let mut rejected = Vec::new();
    let last = loop {
        let line = feeding.line();
        rejected.extend(
            line["rejected"]
                .as_array()
                .unwrap()
                .iter()
                .map(|r| r["row"].clone()),
        );
        if line.get("done").is_some() {
            break line;
        }
    };
    assert_eq!(
        rejected,
        [json!(2), json!(3)],
        "as many as the limit lists, by their number in the body"
    );
    let counts = [
        "rows",
        "accepted",
        "duplicates",
        "rejected_rows",
        "sequence",
    ];
    let counts: Vec<&Value> = counts.iter().map(|name| &last[name]).collect();
    assert_eq!(
        counts,
        [
            &json!(203),
            &json!(199),
            &json!(1),
            &json!(3),
            &json!("199")
        ]
    );
    assert_eq!(last["done"], json!(true));
}

#[test]
fn everything_may_be_sent_before_anything_is_read() {
    let (_project, server) = served();
    let mut feeding = Feeding::open(&server, "purchase");
    for first in (0..20_000).step_by(100) {
        let rows: Vec<String> = (first..first + 100).map(purchase).collect();
        feeding.chunk(&(rows.join("\n") + "\n"));
    }
    feeding.end();
    assert_eq!(feeding.status(), 200);
    let last = feeding.last_line();
    assert_eq!(
        (&last["done"], &last["accepted"]),
        (&json!(true), &json!(20_000))
    );
}

#[test]
fn a_feed_ends_by_name_and_leaves_what_was_acknowledged() {
    let (_project, server) = served();
    let unknown = server.post("/v1/facts/none/stream", "application/x-ndjson", "");
    assert_eq!(unknown.status, 404, "{}", unknown.body);
    let csv = server.post("/v1/facts/purchase/stream", "text/csv", "a,b\n");
    assert_eq!(csv.status, 415, "{}", csv.body);
    let empty = server.post("/v1/facts/purchase/stream", "application/x-ndjson", "");
    assert_eq!(empty.json()["done"], json!(true), "{}", empty.body);

    let mut feeding = Feeding::open(&server, "purchase");
    assert_eq!(feeding.status(), 200);
    feeding.chunk(&format!("{}\n{{\"id\": \"{}", purchase(1), "x".repeat(400)));
    let last = feeding.last_line();
    assert_eq!(
        (&last["done"], &last["rows"]),
        (&json!(false), &json!(1)),
        "{last}"
    );
    let error = &last["error"];
    assert_eq!(error["type"], json!("urn:headwater:problem:row-too-large"));
    assert!(
        error["hint"]
            .as_str()
            .unwrap()
            .contains("limits.row_bytes_max"),
        "{error}"
    );

    let mut open: Vec<Feeding> = (0..2).map(|_| Feeding::open(&server, "purchase")).collect();
    for feeding in &mut open {
        assert_eq!(feeding.status(), 200);
    }
    let one_more = server.post("/v1/facts/purchase/stream", "application/x-ndjson", "");
    assert_eq!(one_more.status, 503, "{}", one_more.body);
    assert!(
        one_more.body.contains("limits.feeds_max"),
        "{}",
        one_more.body
    );
    open[0].chunk(&format!("{}\n", purchase(2)));
    assert_eq!(open[0].line()["accepted"], json!(1));
    assert!(server.stop(), "an open feed holds up no orderly end");
    let last = open[0].last_line();
    assert_eq!(
        (&last["done"], &last["error"]["type"]),
        (&json!(false), &json!("urn:headwater:problem:stopping")),
        "{last}"
    );
}
