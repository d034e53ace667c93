//! Models that score facts as they arrive, from outside: what they say is what a training set says at its cursor;
//! a kill loses and doubles nothing; declarations that can't be are refused; subscribers and webhooks hear of it all.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use headwater_models::{LoadOptions, Rows, load};
use headwater_schema::Value;
use headwater_schema::decode::{BodyFormat, read_record_batches};
use headwater_testkit::{ServerProcess, TempProject};
use serde_json::{Value as Json, json};

use crate::predict::{first, predictions, second};
use crate::{BINARY, SHOP};

/// Orders have the customer under another name, and what the set asks for itself.
const MODEL: &str = "\
kind: DataContract
apiVersion: v3.1.0
id: orders
version: 1.0.0
status: active
schema:
  - name: order
    properties:
      - {name: id, logicalType: string, required: true}
      - {name: buyer, logicalType: string}
      - {name: country, logicalType: string}
      - {name: factor, logicalType: number}
      - {name: pieces, logicalType: integer}
      - {name: time, logicalType: timestamp, required: true}
    customProperties:
      - {property: headwater.eventTime, value: time}
      - {property: headwater.factId, value: id}
      - {property: headwater.timeUnit, value: us}
---
apiVersion: headwater/v1
kind: FeatureSet
name: fraud_inputs
spec:
  features: ['spending.*']
  context: [{name: country, type: string}, {name: factor, type: number}]
  on_demand: [{name: scaled, expression: spending.spent_1h * context.factor}]
---
apiVersion: headwater/v1
kind: Model
name: fraud
spec:
  feature_set: fraud_inputs
  inputs: {amount: scaled, country: context.country, age: spending.purchases_1h}
  on: {contract: order, where: pieces > 0, keys: {customer: buyer}}
";

fn shop(more: &str) -> TempProject {
    let project = TempProject::new(BINARY, SHOP);
    project.write("models/fraud.yaml", format!("{MODEL}{more}"));
    project.write("one.model", first());
    project.write("two.model", second());
    project.run_ok(&["apply"]);
    project
}

fn shop_live(more: &str) -> TempProject {
    let project = shop(more);
    project.run_ok(&["models", "add", "fraud", "one.model", "--alias", "live"]);
    project
}

const SECOND: i64 = 1_000_000;

/// Purchases and orders in turn; some orders are late, some have nobody, some no pieces.
fn send(server: &ServerProcess, from: i64, count: i64) {
    let start = 1_700_000_000 * SECOND;
    for n in from..from + count {
        let purchase = json!([{"id": format!("p{n}"), "customer": format!("c{}", n % 5),
            "amount": n as f64 * 0.1 + 0.7, "time": start + n * SECOND}]);
        let late = if n % 7 == 0 { 600 } else { 0 };
        let country = ["fr", "pt", "de"][usize::try_from(n % 3).unwrap()];
        let order = json!([
            {"id": format!("o{n}"), "buyer": format!("c{}", (n * 3) % 5), "country": country,
             "factor": n as f64 / 3.0, "pieces": n % 4, "time": start + (n - late) * SECOND},
            {"id": format!("x{n}"), "buyer": (n % 11 != 0).then_some("c1"), "country": null, "factor": 0.1 * n as f64,
             "pieces": 1, "time": start + n * SECOND}]);
        for (contract, facts) in [("purchase", purchase), ("order", order)] {
            let reply = server.post_json(&format!("/v1/facts/{contract}"), &facts);
            assert_eq!(reply.status, 200, "{}", reply.body);
            assert!(reply.body.contains("\"rejected\":[]"), "{}", reply.body);
        }
    }
}

/// The ids of the orders among those of [`send`] that are scored.
fn scored(until: i64) -> Vec<String> {
    let mut ids: Vec<String> = (0..until)
        .flat_map(|n| {
            let own = (n % 4 > 0).then(|| format!("o{n}"));
            own.into_iter()
                .chain((n % 11 != 0).then(|| format!("x{n}")))
        })
        .collect();
    ids.sort();
    ids
}

fn of<'a>(fact: &'a Json, name: &str) -> &'a Json {
    &fact["fact"][name]
}

fn text(json: &Json) -> String {
    json.as_str()
        .unwrap_or_default()
        .trim_matches('"')
        .to_owned()
}

fn triggers(facts: &[Json]) -> Vec<String> {
    let mut ids: Vec<String> = facts.iter().map(|f| text(of(f, "on_fact_id"))).collect();
    ids.sort();
    ids
}

/// Holds predictions of facts to a training set at their cursors, and to the model's file, bit for bit.
fn assert_training_set(server: &ServerProcess, facts: &[Json], file: &str) {
    let mut spine = "customer,as_of,known_at,country,factor\n".to_owned();
    for fact in facts {
        let (entities, context) = (of(fact, "entities"), of(fact, "context"));
        spine += &format!(
            "{},{},{},{},{}\n",
            text(&entities["customer"]),
            text(of(fact, "time")),
            of(fact, "known_at"),
            text(&context["country"]).replace("null", ""),
            text(&context["factor"])
        );
    }
    let query = "/v1/training-sets?feature_set=fraud_inputs&inclusive=true";
    let reply = server.post(query, "text/csv", spine);
    assert_eq!(reply.status, 200, "{}", reply.body);
    let batches = read_record_batches(BodyFormat::ArrowStream, &reply.bytes).unwrap();
    let batches: Vec<_> = batches.map(Result::unwrap).collect();
    let model = load(file.as_bytes(), &LoadOptions::default()).unwrap();
    let mut at = 0;
    for batch in &batches {
        for row in 0..batch.num_rows() {
            let fact = &facts[at];
            at += 1;
            let column = |name: &str| {
                let column = batch
                    .column_by_name(name)
                    .unwrap_or_else(|| panic!("{name}"));
                Value::from_array(column, row)
            };
            for feature in of(fact, "features").as_array().unwrap() {
                let name = feature["name"].as_str().unwrap();
                let served = feature["value"].as_str().unwrap_or("null");
                let told = headwater_schema::json_text(&column(name));
                assert_eq!(served, told, "{name} of {fact}");
            }
            let number = |value: Value| match value {
                Value::Float(float) => float,
                Value::Int(int) => int as f64,
                _ => f64::NAN,
            };
            let country = ["de", "fr", "pt"]
                .iter()
                .position(|c| text(&of(fact, "context")["country"]) == *c);
            let inputs = [
                number(column("fraud_inputs.scaled")),
                country.map_or(f64::NAN, |c| c as f64),
                number(column("spending.purchases_1h")),
            ];
            let wanted = model.predict(Rows::one(&inputs).unwrap()).unwrap().outputs[0];
            let outputs = of(fact, "outputs").as_object().unwrap();
            let served = outputs.values().next().unwrap().as_f64().unwrap();
            assert_eq!(served.to_bits(), wanted.to_bits(), "{fact}: {inputs:?}");
        }
    }
    assert_eq!(at, facts.len());
}

fn metric(server: &ServerProcess, name: &str) -> Option<f64> {
    let metrics = server.get("/metrics").body;
    let line = metrics
        .lines()
        .find(|l| l.starts_with(&format!("headwater_{name}")))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[test]
fn arriving_facts_are_scored_as_a_training_set_would_at_their_cursors() {
    let project = shop_live("");
    let server = ServerProcess::start(&project);
    send(&server, 0, 40);
    let wanted = scored(40);
    let facts = predictions(&server, wanted.len());
    assert_eq!(triggers(&facts), wanted);
    for fact in &facts {
        assert_eq!(of(fact, "on_contract"), "order");
        assert_eq!(*of(fact, "weight"), 1.0);
        let id = format!("stream-fraud-{}", of(fact, "known_at"));
        assert_eq!(fact["fact_id"].as_str(), Some(id.as_str()));
    }
    // A cursor is the order's own: its time, and what had been appended up to it.
    let orders = server.get("/v1/facts/order?limit=1000").json();
    for order in orders["facts"].as_array().unwrap() {
        let Some(fact) = facts
            .iter()
            .find(|f| of(f, "on_fact_id") == &order["fact_id"])
        else {
            continue;
        };
        assert_eq!(of(fact, "time"), &order["event_time"]);
        assert_eq!(of(fact, "known_at").to_string(), text(&order["sequence"]));
    }
    assert_training_set(&server, &facts, &first());
    assert_eq!(
        metric(&server, "prediction_stream_written_total"),
        Some(facts.len() as f64)
    );
    assert_eq!(
        metric(
            &server,
            "prediction_stream_skipped_total{reason=\"null_key\",model=\"fraud\"}"
        ),
        Some(4.0)
    );
    assert_eq!(metric(&server, "prediction_stream_lag_seconds"), Some(0.0));
    // A revision arrives too, and a retraction doesn't.
    let revised = json!([{"id": "o1", "buyer": "c2", "country": "fr", "factor": 9.5, "pieces": 2, "time": 1_700_000_100 * SECOND}]);
    assert_eq!(
        server
            .post_json("/v1/facts/order?revise=true", &revised)
            .status,
        200
    );
    assert_eq!(
        server
            .post_json("/v1/facts/order/retract", &json!({"fact_ids": ["o2"]}))
            .status,
        200
    );
    let facts = predictions(&server, wanted.len() + 1);
    assert_eq!(facts.len(), wanted.len() + 1);
    assert_training_set(&server, &facts, &first());
    assert!(server.stop());
}

#[test]
fn a_kill_loses_no_fact_and_doubles_none() {
    let project =
        shop_live("  traffic: {by: customer, arms: [{alias: b, share: 0.5}], shadow: [next]}\n");
    project.run_ok(&["models", "add", "fraud", "two.model", "--alias", "next"]);
    for round in 0..4 {
        let server = ServerProcess::start(&project);
        send(&server, round * 25, 25);
        server.kill();
    }
    let server = ServerProcess::start(&project);
    let wanted = scored(100);
    let facts = predictions(&server, wanted.len() * 2);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(
        predictions(&server, 1).len(),
        facts.len(),
        "some came later"
    );
    let (heard, shadows): (Vec<Json>, Vec<Json>) = facts
        .into_iter()
        .partition(|f| of(f, "shadow_of").is_null());
    assert_eq!(triggers(&heard), wanted);
    assert_eq!(triggers(&shadows), wanted);
    assert_training_set(&server, &heard, &first());
    assert_training_set(&server, &shadows, &second());
    assert!(server.stop());
}

#[test]
fn without_a_version_facts_wait_and_a_fallback_answers_at_once() {
    let project = shop("");
    let server = ServerProcess::start(&project);
    send(&server, 1, 3);
    std::thread::sleep(Duration::from_millis(200));
    assert!(
        server.get("/v1/facts/prediction").json()["facts"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    assert!(metric(&server, "prediction_stream_backlog_facts").unwrap() > 0.0);
    assert!(metric(&server, "prediction_stream_failures_total").unwrap() > 0.0);
    project.run_ok(&[
        "--server",
        &server.url,
        "models",
        "add",
        "fraud",
        "one.model",
        "--alias",
        "live",
    ]);
    let facts = predictions(&server, 6);
    assert_eq!(triggers(&facts), ["o1", "o2", "o3", "x1", "x2", "x3"]);
    assert_training_set(&server, &facts, &first());
    assert!(server.stop());

    let project = shop("  fallback: [{constant: 0.5}]\n");
    let server = ServerProcess::start(&project);
    send(&server, 1, 1);
    for fact in predictions(&server, 2) {
        assert_eq!(*of(&fact, "outputs"), json!({"value": 0.5}));
        assert_eq!(*of(&fact, "degraded"), "no-live-version");
    }
    assert!(server.stop());
}

#[test]
fn more_models_than_score_facts_are_refused_and_told_of() {
    let another = |name: &str| {
        let model = MODEL.rsplit_once("---\n").unwrap().1;
        format!(
            "---\n{}",
            model.replace("name: fraud", &format!("name: {name}"))
        )
    };
    let hook = "  push: {webhook: {url: 'http://127.0.0.1:1/x'}}\n";
    let settings = |streams, hooks| {
        format!(
            "name: shop\nspec: {{serving: {{stream_models_max: {streams}}}, webhooks: {{models_max: {hooks}}}}}\n"
        )
    };
    let project = shop_live("");
    project.write("headwater.yaml", settings(1, 1));
    let server = ServerProcess::start(&project);
    // Nobody applies more, with a server or without one.
    project.write("models/more.yaml", another("second"));
    for call in [
        &["check"][..],
        &["apply"],
        &["apply", "--server", &server.url],
    ] {
        let said = project.run_fails(call);
        assert!(
            said.contains("too many models score facts"),
            "{call:?}: {said}"
        );
        assert!(
            said.contains("2 of at most 1") && said.contains("`second`"),
            "{said}"
        );
        assert!(said.contains("serving.stream_models_max"), "{said}");
    }
    project.write(
        "models/more.yaml",
        another("second") + hook + &another("third") + hook,
    );
    let said = project.run_fails(&["check"]);
    assert!(said.contains("webhooks.models_max"), "{said}");
    let one = server.get("/v1/models/fraud").json();
    assert_eq!(one["on"], json!({"contract": "order", "state": "scoring"}));
    assert_eq!(server.get("/v1/models/second").status, 404);
    assert_eq!(metric(&server, "prediction_stream_refused"), Some(0.0));
    assert!(server.stop());
    // A setting that is lowered afterwards: those that are left out are told of, the others score.
    project.write("headwater.yaml", settings(2, 1));
    project.write("models/more.yaml", another("second"));
    project.run_ok(&["apply"]);
    project.write("headwater.yaml", settings(1, 1));
    let server = ServerProcess::start(&project);
    let on = server.get("/v1/models/second").json()["on"].clone();
    assert_eq!(
        (&on["contract"], &on["state"]),
        (&json!("order"), &json!("refused"))
    );
    assert!(
        text(&on["reason"]).contains("serving.stream_models_max"),
        "{on}"
    );
    let listed = project.run_ok(&["models", "list", "second", "--server", &server.url]);
    assert!(
        listed.contains("refused: ") && listed.contains("too many models"),
        "{listed}"
    );
    let metrics = server.get("/metrics").body;
    for (model, refused) in [("fraud", 0), ("second", 1)] {
        let line = format!("headwater_prediction_stream_refused{{model=\"{model}\"}} {refused}\n");
        assert!(metrics.contains(&line), "{line}: {metrics}");
    }
    send(&server, 1, 3);
    let facts = predictions(&server, 6);
    assert!(facts.iter().all(|fact| of(fact, "model") == "fraud"));
    // Taken away, the other has its place.
    let other = MODEL.replace(
        "  on: {contract: order, where: pieces > 0, keys: {customer: buyer}}\n",
        "",
    );
    project.write("models/fraud.yaml", other);
    project.run_ok(&["apply", "--server", &server.url]);
    assert_eq!(
        server.get("/v1/models/second").json()["on"]["state"],
        "scoring"
    );
    assert_eq!(server.get("/v1/models/fraud").json()["on"], Json::Null);
    assert!(server.stop());
}

#[test]
fn what_is_declared_and_cannot_be_is_refused_where_it_stands() {
    let project = shop("");
    let on = "on: {contract: order, where: pieces > 0, keys: {customer: buyer}}";
    let cases = [
        ("on: prediction", "can't score predictions"),
        ("on: ordr", "did you mean `order`?"),
        ("on: order", "`customer`"),
        (
            "on: {contract: order, keys: {customer: pieces}}",
            "another type",
        ),
        (
            "on: {contract: order, keys: {customer: buyr}}",
            "did you mean `buyer`?",
        ),
        (
            "on: {contract: order, keys: {customr: buyer}}",
            "`customer`",
        ),
        (
            "on: {contract: order, where: pieces, keys: {customer: buyer}}",
            "true or false",
        ),
        ("on: purchase", "`country`"),
        ("push: {webhook: {url: 'ftp://x/y'}}", "no URL"),
        (
            "push: {webhook: {url: 'http://x/y', timeout: 2m}}",
            "out of range",
        ),
        (
            "push: {webhook: {url: 'http://x/y', secret_env: 'A B'}}",
            "no environment variable",
        ),
    ];
    for (instead, told) in cases {
        project.write("models/fraud.yaml", MODEL.replace(on, instead));
        let said = project.run_fails(&["check"]);
        let line = MODEL.lines().position(|l| l.contains(on)).unwrap() + 1;
        assert!(said.contains(told), "{instead}: {said}");
        assert!(
            said.contains(&format!("fraud.yaml:{line}:")),
            "{instead}: {said}"
        );
    }
}

/// Reads a stream of events.
struct Events {
    lines: BufReader<TcpStream>,
}

struct Event {
    kind: String,
    id: String,
    data: Json,
}

impl Events {
    fn open(server: &ServerProcess, path: &str, header: &str) -> Self {
        let address = server.url.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        // HTTP/1.0: the body isn't cut into chunks.
        let head = format!("GET {path} HTTP/1.0\r\nhost: x\r\n{header}\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut lines = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(lines.read_line(&mut head).unwrap() > 0, "{head}");
        }
        assert!(
            head.contains(" 200 ") && head.contains("text/event-stream"),
            "{head}"
        );
        Self { lines }
    }

    /// The next event with data; none once the stream ends.
    fn next(&mut self) -> Option<Event> {
        let mut fields = BTreeMap::new();
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            match line.trim_end().split_once(':') {
                Some((name, value)) => {
                    drop(fields.insert(name.to_owned(), value.trim().to_owned()))
                }
                None if fields.contains_key("data") => {
                    let field = |name: &str| fields.get(name).cloned().unwrap_or_default();
                    return Some(Event {
                        kind: field("event"),
                        id: field("id"),
                        data: serde_json::from_str(&fields["data"]).unwrap(),
                    });
                }
                None => fields.clear(),
            }
        }
    }

    fn predictions(&mut self, count: usize) -> Vec<Event> {
        let next = |_| self.next().unwrap();
        let events: Vec<Event> = (0..count).map(next).collect();
        assert!(events.iter().all(|e| e.kind == "prediction"));
        events
    }
}

const PATH: &str = "/v1/models/fraud/predictions";

#[test]
fn subscribers_hear_every_prediction_and_resume_where_they_were() {
    let project = shop_live("");
    project.write(
        "headwater.yaml",
        "name: shop\nspec: {limits: {prediction_streams_max: 2, prediction_heartbeat_ms: 50}}\n",
    );
    let server = ServerProcess::start(&project);
    let mut events = Events::open(&server, PATH, "");
    send(&server, 1, 10);
    // Those that somebody asks for are among them.
    let asked = json!({"vectors": [[1, 2, 3]]});
    assert_eq!(
        server.post_json("/v1/models/fraud/predict", &asked).status,
        200
    );
    let wanted = predictions(&server, 19);
    let heard = events.predictions(wanted.len());
    let facts: Vec<Json> = heard.iter().map(|e| e.data.clone()).collect();
    let sorted = |facts: &[Json]| {
        let mut facts = facts.to_vec();
        facts.sort_by_key(|f| text(&f["sequence"]).parse::<u64>().unwrap());
        facts
    };
    assert_eq!(facts, sorted(&wanted));
    assert!(heard.iter().all(|e| e.data["sequence"] == e.id));
    // From the middle, by the header and by the parameter; the place of one that ended is free again.
    drop(events);
    std::thread::sleep(Duration::from_millis(300));
    let middle = &heard[8].id;
    let mut by_header = Events::open(&server, PATH, &format!("last-event-id: {middle}\r\n"));
    let mut by_parameter = Events::open(&server, &format!("{PATH}?after={middle}"), "");
    for events in [&mut by_header, &mut by_parameter] {
        let ids: Vec<String> = events
            .predictions(wanted.len() - 9)
            .into_iter()
            .map(|e| e.id)
            .collect();
        assert_eq!(
            ids,
            heard[9..].iter().map(|e| e.id.clone()).collect::<Vec<_>>()
        );
    }
    let busy = server.get(PATH);
    assert_eq!(busy.status, 503);
    assert!(
        busy.body.contains("limits.prediction_streams_max"),
        "{}",
        busy.body
    );
    drop(by_parameter);
    std::thread::sleep(Duration::from_millis(300));
    for (path, status, told) in [
        (format!("{PATH}?after=x"), 400, "no sequence"),
        (format!("{PATH}?after=999999"), 400, "future"),
        (format!("{PATH}?befor=1"), 400, "befor"),
        (
            "/v1/models/frau/predictions".to_owned(),
            404,
            "did you mean `fraud`?",
        ),
    ] {
        let reply = server.get(&path);
        assert_eq!(reply.status, status, "{}", reply.body);
        assert!(reply.body.contains(told), "{}", reply.body);
    }
    // The end of the server is told.
    server.terminate();
    let last = by_header.next().unwrap();
    assert_eq!(
        (last.kind.as_str(), &last.data["reason"]),
        ("cut-off", &json!("stopping"))
    );
    assert!(by_header.next().is_none());
    assert_eq!(server.wait(), Some(0));
}

#[test]
fn a_subscriber_that_does_not_read_is_cut_off_and_resumes() {
    let project = shop_live("");
    project.write(
        "headwater.yaml",
        "name: shop\nspec: {limits: {prediction_buffer_events_max: 4, prediction_stall_ms_max: 300}}\n",
    );
    let server = ServerProcess::start(&project);
    let mut slow = Events::open(&server, PATH, "");
    // More than all sockets between hold.
    let rows = vec![json!([1, 2, 3]); 1000];
    for round in 1..=12 {
        let reply = server.post_json("/v1/models/fraud/predict", &json!({"vectors": rows}));
        assert_eq!(reply.status, 200);
        while metric(&server, "prediction_log_written_total") < Some(f64::from(round) * 1000.0) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    std::thread::sleep(Duration::from_millis(1500));
    let mut heard = Vec::new();
    let after = loop {
        let event = slow.next().unwrap();
        if event.kind == "cut-off" {
            assert_eq!(event.data["reason"], "slow");
            break text(&event.data["resume_after"]);
        }
        heard.push(event.id);
    };
    assert!(slow.next().is_none());
    assert_eq!(heard.last(), Some(&after));
    let mut again = Events::open(&server, PATH, &format!("last-event-id: {after}\r\n"));
    let rest = again.predictions(12_000 - heard.len());
    heard.extend(rest.into_iter().map(|e| e.id));
    let before = heard.len();
    heard.dedup();
    assert_eq!((before, heard.len()), (12_000, 12_000));
    assert!(server.stop());
}

/// What a receiver was sent: headers and body.
type Deliveries = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// A server that refuses the first deliveries and takes all others.
fn receiver(refuse: usize) -> (String, Deliveries) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let deliveries = Deliveries::default();
    let kept = deliveries.clone();
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let mut stream = BufReader::new(stream.unwrap());
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if stream.read_line(&mut head).unwrap_or(0) == 0 {
                    break;
                }
            }
            let length = head.lines().find_map(|l| {
                l.to_ascii_lowercase()
                    .strip_prefix("content-length: ")
                    .map(str::to_owned)
            });
            let mut body = vec![0; length.map_or(0, |l| l.parse().unwrap())];
            stream.read_exact(&mut body).unwrap();
            let status = if number < refuse {
                "503 Busy"
            } else {
                "200 OK"
            };
            if number >= refuse {
                kept.lock().unwrap().push((head, body));
            }
            let reply =
                format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            let _ = stream.get_mut().write_all(reply.as_bytes());
        }
    });
    (url, deliveries)
}

#[test]
fn a_webhook_that_fails_is_tried_again_and_takes_each_prediction() {
    let (url, deliveries) = receiver(3);
    let project = shop_live(&format!(
        "  push: {{webhook: {{url: '{url}', secret_env: HOME, timeout: 5s}}}}\n"
    ));
    project.write(
        "headwater.yaml",
        "name: shop\nspec: {webhooks: {retry_ms_min: 20, batch_predictions_max: 4}}\n",
    );
    let server = ServerProcess::start(&project);
    send(&server, 1, 20);
    let wanted = predictions(&server, scored(21).len());
    let delivered = || {
        let deliveries = deliveries.lock().unwrap();
        let bodies = deliveries
            .iter()
            .map(|(_, body)| serde_json::from_slice::<Json>(body).unwrap());
        let facts = bodies.flat_map(|b| b["predictions"].as_array().unwrap().clone());
        facts.collect::<Vec<Json>>()
    };
    let wait = |count: usize| {
        let start = Instant::now();
        while delivered().len() < count {
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "{}",
                delivered().len()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    wait(wanted.len());
    assert_eq!(triggers(&delivered()), triggers(&wanted));
    assert_eq!(
        metric(&server, "prediction_webhook_failures_total"),
        Some(3.0)
    );
    assert!(metric(&server, "prediction_webhook_delivered_total").is_some());
    // The next process goes on where this one was.
    assert!(server.stop());
    let server = ServerProcess::start(&project);
    send(&server, 21, 5);
    let all = scored(26).len();
    wait(all);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(delivered().len(), all);
    // Python's own library says the same of each signature.
    for (head, body) in deliveries.lock().unwrap().iter().take(3) {
        let line = head
            .lines()
            .find_map(|l| l.strip_prefix("headwater-signature: "));
        let (seconds, signature) = line
            .unwrap()
            .strip_prefix("t=")
            .unwrap()
            .split_once(",v1=")
            .unwrap();
        let mut python = std::process::Command::new("python3")
            .args(["-c", "import hmac, os, sys; print(hmac.new(os.environ['HOME'].encode(), sys.argv[1].encode() + b'.' + sys.stdin.buffer.read(), 'sha256').hexdigest())", seconds])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        python.stdin.take().unwrap().write_all(body).unwrap();
        let told = python.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&told.stdout).trim(), signature);
    }
    assert!(server.stop());
}
