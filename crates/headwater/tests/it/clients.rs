//! Other ways of asking the same: Arrow streams and Chronon's fetch API. Feast's own client runs in
//! `tests/clients`.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int64Type, TimestampMicrosecondType};
use arrow::ipc::reader::StreamReader;
use headwater_testkit::{ServerProcess, TempProject};
use serde_json::{Value, json};

use crate::{BINARY, SHOP};

fn served() -> (TempProject, ServerProcess) {
    let project = TempProject::new(BINARY, SHOP);
    project.run_ok(&["apply"]);
    let server = ServerProcess::start(&project);
    let rows = json!([
        {"id": "a", "customer": "ada", "amount": 1.5, "time": 1_000_000},
        {"id": "b", "customer": "ada", "amount": 2, "time": 2_000_000},
        {"id": "c", "customer": "bob", "time": 3_000_000, "colour": "red"},
    ]);
    let reply = server.post_json("/v1/facts/purchase", &rows);
    assert_eq!(reply.json()["accepted"], json!(3), "{}", reply.body);
    (project, server)
}

/// The one batch of an Arrow reply.
fn arrow(server: &ServerProcess, method: &str, path: &str, body: &str) -> RecordBatch {
    let mut answer = ureq::agent()
        .run(
            ureq::http::Request::builder()
                .method(method)
                .uri(format!("{}{path}", server.url))
                .header("content-type", "application/json")
                .header("accept", "application/vnd.apache.arrow.stream")
                .body(body.as_bytes().to_vec())
                .unwrap(),
        )
        .unwrap();
    let media_type = answer.headers()["content-type"]
        .to_str()
        .unwrap()
        .to_owned();
    assert_eq!(media_type, "application/vnd.apache.arrow.stream");
    let bytes = answer.body_mut().read_to_vec().unwrap();
    let mut batches = StreamReader::try_new(bytes.as_slice(), None).unwrap();
    let batch = batches.next().unwrap().unwrap();
    assert!(batches.next().is_none());
    batch
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> &'a dyn Array {
    batch.column_by_name(name).expect(name).as_ref()
}

#[test]
fn an_arrow_reply_holds_what_the_json_reply_holds() {
    let (_project, server) = served();
    let names = [
        "spending.purchases_1h",
        "spending.spent_1h",
        "spending.last",
    ];
    let body = json!({"features": names, "as_of": "1970-01-01T00:00:10Z",
        "entities": [{"customer": "ada"}, {"customer": "bob"}, {"customer": "eve"}]});
    let expected = server.post_json("/v1/features", &body).json();
    let batch = arrow(&server, "POST", "/v1/features", &body.to_string());
    let metadata = batch.schema().metadata().clone();
    assert_eq!(expected["sequence"], json!(metadata["headwater.sequence"]));
    assert_eq!(expected["as_of"], json!(metadata["headwater.as_of"]));
    for (index, name) in names.iter().enumerate() {
        for (row, expected) in expected["rows"].as_array().unwrap().iter().enumerate() {
            let values = column(&batch, name);
            let value = match values {
                values if values.is_null(row) => Value::Null,
                values if index == 0 => json!(values.as_primitive::<Int64Type>().value(row)),
                values => json!(values.as_primitive::<Float64Type>().value(row)),
            };
            assert_eq!(value, expected["values"][index], "{name} {row}");
            let status = column(&batch, &format!("{name}:status")).as_string::<i32>();
            assert_eq!(json!(status.value(row)), expected["statuses"][index]);
            let times = column(&batch, &format!("{name}:event_time"));
            let time = (!times.is_null(row)).then(|| {
                let micros = times.as_primitive::<TimestampMicrosecondType>().value(row);
                headwater_schema::time::format_timestamp(micros)
            });
            assert_eq!(json!(time), expected["event_times"][index]);
        }
    }
    let facts = arrow(&server, "GET", "/v1/facts/purchase?limit=2", "");
    assert_eq!(facts.num_rows(), 2);
    let ids = column(&facts, "headwater.fact_id").as_string::<i32>();
    assert_eq!((ids.value(0), ids.value(1)), ("b", "c"));
    let amounts = column(&facts, "amount").as_primitive::<Float64Type>();
    assert_eq!((amounts.value(0), amounts.is_null(1)), (2.0, true));
}

#[test]
fn chronon_clients_get_what_they_know_row_by_row() {
    let (_project, server) = served();
    let keys = json!([{"customer": "ada"}, {"custmer": "ada"}, {"customer": "bob"}]);
    let reply = server.post_json("/chronon/v1/features/groupby/spending", &keys);
    assert_eq!(reply.status, 200, "{}", reply.body);
    let results = reply.json()["results"].clone();
    assert_eq!(results[0]["status"], json!("Success"));
    assert_eq!(results[0]["entityKeys"], json!({"customer": "ada"}));
    assert_eq!(results[0]["features"]["spent_lifetime"], json!(3.5));
    assert_eq!(results[1]["status"], json!("Failure"));
    assert!(results[1]["error"].as_str().unwrap().contains("`customer`"));
    assert!(results[1].get("features").is_none());
    assert_eq!(results[2]["features"]["spent_lifetime"], json!(null));
    let join = server.post_json(
        "/chronon/v1/features/join/customer_now",
        &json!([{"customer": "ada"}]),
    );
    let features = &join.json()["results"][0]["features"];
    assert_eq!(features["spending_purchases_lifetime"], json!(2));
    for path in ["groupby/spendings", "join/none"] {
        let unknown = server.post_json(&format!("/chronon/v1/features/{path}"), &keys);
        assert_eq!(unknown.status, 404, "{}", unknown.body);
        assert!(unknown.json()["errors"][0].is_string());
    }
    let wrong = server.post_json("/chronon/v1/features/join/customer_now", &json!({}));
    assert_eq!(
        (wrong.status, wrong.json()["errors"][0].is_string()),
        (400, true)
    );
}
