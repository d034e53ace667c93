//! HTTP from outside: shapes, errors, limits.

use headwater_testkit::{Reply, ServerProcess, TempProject};
use serde_json::{Value, json};

use crate::{BINARY, SHOP};

fn served() -> (TempProject, ServerProcess) {
    let project = TempProject::new(BINARY, SHOP);
    project.write("headwater.yaml", "name: shop\nspec: {limits: {body_bytes_max: 20000, rows_max: 100, entities_max: 3, listed_max: 50}}\n");
    project.run_ok(&["apply"]);
    let server = ServerProcess::start(&project);
    (project, server)
}

fn purchase(id: &str, amount: Value, time: Value) -> Value {
    json!({"id": id, "customer": "ada", "amount": amount, "time": time})
}

/// A problem document of a status, whose text holds some words.
fn assert_problem(reply: &Reply, status: u16, words: &[&str]) {
    assert_eq!(reply.status, status, "{}", reply.body);
    assert_eq!(
        reply.media_type, "application/problem+json",
        "{}",
        reply.body
    );
    let document = reply.json();
    for field in ["type", "title", "hint"] {
        assert!(document[field].is_string(), "no {field}: {document}");
    }
    assert_ne!(document["detail"], "", "nothing is told by an empty text");
    assert_eq!(document["status"], status);
    for word in words {
        assert!(reply.body.contains(word), "no `{word}` in {}", reply.body);
    }
}

#[test]
fn a_bad_row_stops_nothing_else_and_is_kept() {
    let (_project, server) = served();
    let rows = json!([
        purchase("a", json!(1.5), json!(1_000_000)),
        purchase("b", json!("2"), json!(1_000_000)),
        purchase("c", json!(2), json!("1970-01-01T00:00:02Z")),
        {"id": "d", "customer": "ada"},
        {"id": "e", "customer": "ada", "time": 3_000_000, "amount": 4.0, "colour": "red"},
    ]);
    let reply = server.post_json("/v1/facts/purchase", &rows);
    assert_eq!(reply.status, 200, "{}", reply.body);
    let reply = reply.json();
    assert_eq!(
        (&reply["accepted"], &reply["duplicates"], &reply["sequence"]),
        (&json!(3), &json!(0), &json!("3"))
    );
    let rejected: Vec<(u64, &str)> = reply["rejected"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| (r["row"].as_u64().unwrap(), r["field"].as_str().unwrap()))
        .collect();
    assert_eq!(rejected, [(1, "amount"), (3, "time")]);
    let quarantine = server.get("/v1/facts/purchase/quarantine").json();
    assert_eq!(quarantine["rows"].as_array().unwrap().len(), 2);
    let again = server
        .post_json(
            "/v1/facts/purchase",
            &json!([
                purchase("a", json!(1.5), json!(1_000_000)),
                purchase("a", json!(9.5), json!(1_000_000))
            ]),
        )
        .json();
    assert_eq!(
        (&again["duplicates"], &again["rejected"][0]["row"]),
        (&json!(1), &json!(1))
    );
    let none = server
        .post_json(
            "/v1/facts/purchase?on_reject=fail",
            &json!([purchase("x", json!(1), json!(1)), {"id": "y"}]),
        )
        .json();
    assert_eq!(
        (&none["accepted"], &none["sequence"]),
        (&json!(0), &json!("3"))
    );
    let facts = server
        .get("/v1/facts/purchase?entity=customer:ada&from=1970-01-01T00:00:02Z&limit=10")
        .json();
    let ids: Vec<&str> = facts["facts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f["fact_id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, ["c", "e"]);
}

#[test]
fn facts_are_revised_and_taken_back_and_the_past_still_sees_them() {
    let (_project, server) = served();
    let send = |query: &str, rows: Value| {
        let reply = server.post_json(&format!("/v1/facts/purchase{query}"), &rows);
        assert_eq!(reply.status, 200, "{}", reply.body);
        reply.json()
    };
    let ingest_time = |id: &str| {
        let facts = server.get("/v1/facts/purchase").json()["facts"].clone();
        let mut facts = facts.as_array().unwrap().iter();
        let fact = facts.find(|f| f["fact_id"] == id).unwrap();
        fact["ingest_time"].as_str().unwrap().to_owned()
    };
    send(
        "",
        json!([
            purchase("a", json!(1), json!(1_000_000)),
            purchase("b", json!(2), json!(2_000_000))
        ]),
    );
    let first = ingest_time("b");
    std::thread::sleep(std::time::Duration::from_millis(2));
    let moved = json!({"id": "a", "customer": "bob", "amount": 5, "time": 3_000_000});
    let revised = send(
        "?revise=true",
        json!([moved, purchase("c", json!(3), json!(1))]),
    );
    assert_eq!(
        (&revised["accepted"], &revised["sequence"]),
        (&json!(2), &json!("4"))
    );
    assert_eq!(send("?revise=true", json!([moved]))["duplicates"], 1);
    let retract = |body: Value| server.post_json("/v1/facts/purchase/retract", &body);
    let reply = retract(json!([{"fact_id": "b"}, {"fact_id": "x"}])).json();
    assert_eq!(
        reply,
        json!({"retracted": 1, "unknown": ["x"], "sequence": "5"})
    );
    assert_eq!(
        retract(json!({"fact_ids": ["b"]})).json()["unknown"],
        json!(["b"])
    );
    let spent = |known_at: Value| {
        let mut body = json!({"features": ["spending.spent_lifetime", "spending.purchases_lifetime"],
            "entities": [{"customer": "ada"}, {"customer": "bob"}], "as_of": 60_000_000});
        if !known_at.is_null() {
            body["known_at"] = known_at;
        }
        let reply = server.post_json("/v1/features", &body).json();
        let rows = reply["rows"].as_array().unwrap().iter();
        let values: Vec<Value> = rows.map(|row| row["values"].clone()).collect();
        json!([reply["sequence"], values])
    };
    assert_eq!(spent(Value::Null), json!(["5", [[3.0, 1], [5.0, 1]]]));
    assert_eq!(spent(json!("4")), json!(["4", [[5.0, 2], [5.0, 1]]]));
    assert_eq!(spent(json!("3")), json!(["3", [[2.0, 1], [5.0, 1]]]));
    assert_eq!(spent(json!(first)), json!(["2", [[3.0, 2], [null, 0]]]));
    let listed = |query: &str| -> Vec<String> {
        let facts = server.get(&format!("/v1/facts/purchase?{query}")).json();
        let facts = facts["facts"].as_array().unwrap().iter();
        facts
            .map(|f| f["fact_id"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(listed("limit=10"), ["c", "a"]);
    assert_eq!(listed("entity=customer:ada"), ["c"]);
    assert_eq!(listed("known_at=2&entity=customer:ada"), ["a", "b"]);
    assert_eq!(
        send("", json!([purchase("b", json!(7), json!(2))]))["accepted"],
        1
    );
    for body in [
        json!({"fact_id": "b"}),
        json!([{"fact_id": null}]),
        json!([{"id": "b"}]),
    ] {
        assert_problem(&retract(body), 400, &[]);
    }
    let unknown = server.post_json("/v1/facts/nothing/retract", &json!({"fact_ids": []}));
    assert_problem(&unknown, 404, &["nothing"]);
}

#[test]
fn a_read_sees_what_was_acknowledged_and_the_past_stays_as_it_was() {
    let (_project, server) = served();
    let mut first = String::new();
    for i in 1..=20 {
        let reply = server.post(
            "/v1/facts/purchase",
            "application/x-ndjson",
            format!(
                "{}\n",
                purchase(&i.to_string(), json!(i), json!(i * 1_000_000))
            ),
        );
        let sequence = reply.json()["sequence"].as_str().unwrap().to_owned();
        let read =
            json!({"features": ["spending.purchases_lifetime"], "entities": [{"customer": "ada"}]});
        let read = server.post_json("/v1/features", &read).json();
        assert_eq!(read["rows"][0]["values"], json!([i]));
        assert_eq!(read["sequence"], json!(sequence));
        if i == 5 {
            first = sequence;
        }
    }
    let read = |body: Value| server.post_json("/v1/features", &body).json()["rows"][0].clone();
    let names = json!([
        "spending.purchases_lifetime",
        "spending.spent_1m",
        "spending.last"
    ]);
    let known = read(
        json!({"features": names, "entities": [{"customer": "ada"}], "as_of": 20_000_000, "known_at": first}),
    );
    assert_eq!(known["values"], json!([5, 15.0, 5.0]));
    let before = read(
        json!({"features": names, "entities": [{"customer": "ada"}], "as_of": "1970-01-01T00:00:10Z", "inclusive": false}),
    );
    assert_eq!(before["values"], json!([9, 45.0, 9.0]));
    assert_eq!(before["event_times"][2], json!("1970-01-01T00:00:09Z"));
    let stale = read(
        json!({"features": names, "entities": [{"customer": "ada"}], "as_of": "1970-01-01T02:00:00Z"}),
    );
    assert_eq!(
        stale["statuses"],
        json!(["PRESENT", "NULL_VALUE", "OUTSIDE_MAX_AGE"])
    );
    let nobody = read(json!({"features": names, "entities": [{"customer": "nobody"}]}));
    assert_eq!(
        (&nobody["values"], &nobody["statuses"][0]),
        (&json!([0, null, null]), &json!("NOT_FOUND"))
    );
}

#[test]
fn mistakes_are_problem_documents_that_say_what_to_do() {
    let (_project, server) = served();
    let read = |body: Value| server.post_json("/v1/features", &body);
    assert_problem(
        &server.post_json("/v1/facts/purchse", &json!([])),
        404,
        &["unknown-contract", "purchase"],
    );
    assert_problem(
        &read(json!({"feature_set": "customer_now", "entities": [], "asof": 1})),
        400,
        &["asof"],
    );
    assert_problem(&read(json!({"entities": []})), 400, &["feature_set"]);
    assert_problem(
        &read(json!({"features": ["spending.spent_2h"], "entities": []})),
        404,
        &["did you mean `spending.spent_1h`?"],
    );
    assert_problem(
        &read(json!({"feature_set": "customer_now", "entities": [{}]})),
        400,
        &["missing-key", "customer"],
    );
    assert_problem(
        &read(json!({"feature_set": "customer_now", "entities": [{"customer": 7}]})),
        400,
        &["wrong-key-type"],
    );
    assert_problem(
        &read(
            json!({"feature_set": "customer_now", "entities": [{"customer": "a"}], "as_of": "yesterday"}),
        ),
        400,
        &["as_of"],
    );
    assert_problem(
        &read(
            json!({"feature_set": "customer_now", "entities": [{"customer": "a"}], "known_at": "99"}),
        ),
        400,
        &["known_at"],
    );
    assert_problem(
        &read(
            json!({"feature_set": "customer_now", "entities": [{"customer": "a", "custmer": "b"}]}),
        ),
        400,
        &["unknown-key", "entities[0]", "did you mean `customer`?"],
    );
    assert_problem(
        &read(
            json!({"feature_set": "customer_now", "entities": [{"customer": {"customer": "a", "shop": 1}}]}),
        ),
        400,
        &["unknown-key", "shop"],
    );
    // Servers of Feast and Chronon pass over what their clients send besides.
    let more = json!({"feature_service": "customer_now", "entities": {"customer": ["a"], "custmer": ["b"]}});
    let feast = server.post_json("/get-online-features", &more);
    assert_eq!(feast.status, 200, "{}", feast.body);
    let more = json!([{"customer": "a", "custmer": "b"}]);
    let chronon = server.post_json("/chronon/v1/features/join/customer_now", &more);
    assert_eq!(chronon.status, 200, "{}", chronon.body);
    assert_eq!(
        chronon.json()["results"][0]["status"],
        "Success",
        "{}",
        chronon.body
    );
    let anything = json!({"feature_set": "customer_now", "entities": []});
    assert_problem(
        &server.post_json("/v1/features?as_off=1", &anything),
        400,
        &["as_off"],
    );
    let many: Vec<Value> = (0..4).map(|i| json!({"customer": i.to_string()})).collect();
    assert_problem(
        &read(json!({"feature_set": "customer_now", "entities": many})),
        400,
        &["limits.entities_max"],
    );
    assert_problem(
        &server.post("/v1/facts/purchase", "application/json", "[{\"id\":"),
        400,
        &[],
    );
    assert_problem(
        &server.post("/v1/facts/purchase", "image/png", "x"),
        415,
        &["application/x-ndjson"],
    );
    let large = format!("[{}]", " ".repeat(30_000));
    assert_problem(
        &server.post("/v1/facts/purchase", "application/json", large),
        413,
        &["limits.body_bytes_max"],
    );
    let rows: Vec<Value> = (0..101)
        .map(|i| json!({"id": i.to_string(), "time": 1}))
        .collect();
    assert_problem(
        &server.post_json("/v1/facts/purchase", &json!(rows)),
        413,
        &["rows_max"],
    );
    assert_problem(
        &server.get("/v1/facts/purchase?limit=51"),
        400,
        &["limits.listed_max"],
    );
    assert_problem(&server.get("/v1/facts/purchase?limt=5"), 400, &["limt"]);
    assert_problem(&server.get("/v1/nothing"), 404, &["/openapi.json"]);
    assert_problem(&server.get("/v1/features"), 405, &["GET"]);
    assert_eq!(
        server.get("/health/ready").status,
        200,
        "the server lives on"
    );
}

#[test]
fn the_open_api_document_holds_together_and_metrics_are_open_metrics() {
    let (_project, server) = served();
    server.post_json(
        "/v1/facts/purchase",
        &json!([purchase("a", json!(1), json!(1))]),
    );
    let document = server.get("/openapi.json").json();
    let mut references = Vec::new();
    collect_references(&document, &mut references);
    assert!(!references.is_empty());
    for reference in references {
        let pointer = reference.strip_prefix('#').expect("a local reference");
        assert!(
            document.pointer(pointer).is_some(),
            "{reference} leads nowhere"
        );
    }
    let metrics = server.get("/metrics").body;
    assert!(metrics.ends_with("# EOF\n"));
    assert!(
        metrics.contains("headwater_facts_kept{contract=\"purchase\"} 1\n"),
        "{metrics}"
    );
    assert!(
        metrics.contains("headwater_view_facts_total{view=\"spending\"} 1\n"),
        "{metrics}"
    );
    assert!(
        metrics.contains("headwater_http_requests_total{call=\"facts_post\",outcome=\"ok\"} 1\n"),
        "{metrics}"
    );
    let families: Vec<&str> = metrics
        .lines()
        .filter_map(|l| l.strip_prefix("# TYPE "))
        .collect();
    let names: std::collections::BTreeSet<&str> = families
        .iter()
        .filter_map(|f| f.split(' ').next())
        .collect();
    assert_eq!(names.len(), families.len(), "a family is described twice");
    let registry = server.get("/v1/registry/views").json();
    assert_eq!(registry[0]["name"], json!("spending"));
}

fn collect_references<'a>(json: &'a Value, references: &mut Vec<&'a str>) {
    match json {
        Value::Object(members) => {
            references.extend(members.get("$ref").and_then(Value::as_str));
            members
                .values()
                .for_each(|member| collect_references(member, references));
        }
        Value::Array(items) => items
            .iter()
            .for_each(|item| collect_references(item, references)),
        _ => {}
    }
}
