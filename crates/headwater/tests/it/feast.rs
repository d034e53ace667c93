//! Feast's clients ask for feature sets that want more than keys: over HTTP and gRPC, among the entities or beside them.

use headwater_api::grpc::proto::feast::serving as feast;
use headwater_api::grpc::proto::feast::types::{RepeatedValue, Value as FeastValue, value::Val};
use headwater_testkit::{Reply, ServerProcess, TempProject};
use serde_json::{Value, json};
use tonic::Code;
use tonic::transport::Endpoint;

use crate::{BINARY, SHOP};

/// A field of the context is named as the entity is, another as its key column.
const SET: &str = "
{apiVersion: headwater/v1, kind: Entity, name: buyer, spec: {keys: [{name: customer, type: string}]}}
---
apiVersion: headwater/v1
kind: FeatureView
name: bought
spec:
  entity: buyer
  sources: [{contract: purchase}]
  features:
    - {name: spent, aggregate: sum, of: amount}
---
apiVersion: headwater/v1
kind: FeatureSet
name: offer
spec:
  features: [bought.spent]
  context:
    - {name: amount, type: number}
    - {name: guests, type: integer}
    - {name: buyer, type: string}
    - {name: customer, type: string}
    - {name: vip, type: bool}
    - {name: day, type: date}
    - {name: at, type: timestamp}
  on_demand:
    - {name: share, expression: amount / spent}
    - {name: more, expression: guests + 1}
    - {name: who, expression: context.buyer || '/' || context.customer}
    - {name: plain, expression: NOT vip}
    - {name: on_day, expression: day}
    - {name: at_time, expression: at}
";

/// The first second of 2024-10-04.
const DAY: i64 = 1_728_000_000;

pub fn shop() -> (TempProject, ServerProcess) {
    let project = TempProject::new(BINARY, SHOP);
    project.write("features/offer.yaml", SET);
    project.run_ok(&["apply"]);
    let server = ServerProcess::start(&project);
    let facts = json!([{"id": "a", "customer": "ada", "amount": 40.0, "time": 1_000_000}]);
    assert_eq!(server.post_json("/v1/facts/purchase", &facts).status, 200);
    (project, server)
}

fn entities() -> Value {
    json!({
        "customer": ["ada", "bob"],
        "amount": [50, 0.5],
        "guests": [3, null],
        "buyer": ["x", "y"],
        "vip": [true, false],
        "day": [DAY, "2024-10-04"],
        "at": [DAY + 1, "2024-10-04T00:00:01.5Z"],
        "ignored": [[], {}],
    })
}

fn read(server: &ServerProcess, entities: &Value, context: &Value) -> Reply {
    let body =
        json!({"feature_service": "offer", "entities": entities, "request_context": context});
    server.post_json("/get-online-features", &body)
}

/// The columns of a reply, by name.
fn values(reply: &Reply) -> Value {
    assert_eq!(reply.status, 200, "{}", reply.body);
    let reply = reply.json();
    let names = reply["metadata"]["feature_names"].as_array().unwrap();
    let columns = names.iter().zip(reply["results"].as_array().unwrap());
    let columns = columns.map(|(name, c)| (name.as_str().unwrap().to_owned(), c["values"].clone()));
    Value::Object(columns.collect())
}

fn expected() -> Value {
    json!({
        "customer": ["ada", "bob"],
        "spent": [40.0, null],
        "share": [1.25, null],
        "more": [4, null],
        "who": ["x/ada", "y/bob"],
        "plain": [false, true],
        "on_day": [DAY, DAY],
        "at_time": [DAY + 1, DAY + 1],
    })
}

#[test]
fn a_request_brings_its_own_fields_among_the_entities_or_beside_them() {
    let (_project, server) = shop();
    let reply = read(&server, &entities(), &Value::Null);
    assert_eq!(values(&reply), expected());
    let names = &reply.json()["metadata"]["feature_names"];
    assert_eq!(names.as_array().unwrap().len(), 8, "each once: {names}");

    // What has columns of its own goes before what is among the entities.
    let (mut keys, mut own) = (entities(), json!({"customer": ["ada", "bob"]}));
    for name in ["amount", "vip", "at", "buyer"] {
        own[name] = keys[name].take();
        keys[name] = json!(["no", "no"]);
    }
    assert_eq!(values(&read(&server, &keys, &own)), expected());
    let full =
        json!({"feature_service": "offer", "entities": entities(), "full_feature_names": true});
    let full = values(&server.post_json("/get-online-features", &full));
    assert_eq!(full["offer__share"], json!([1.25, null]), "{full}");

    // A set that wants nothing, and features by name, pass over what comes besides.
    for names in [
        json!({"feature_service": "customer_now"}),
        json!({"features": ["bought:spent"]}),
    ] {
        let mut body = names;
        body["entities"] = entities();
        body["request_context"] = json!({"more": [1, 2]});
        let reply = server.post_json("/get-online-features", &body);
        assert_eq!(reply.status, 200, "{}", reply.body);
    }
}

#[test]
fn a_field_that_is_missing_or_of_another_type_is_refused_as_feast_does() {
    let (_project, server) = shop();
    let without = |name: &str| {
        let mut entities = entities();
        entities.as_object_mut().unwrap().remove(name);
        read(&server, &entities, &json!({}))
    };
    let missing = without("guests");
    assert_eq!(missing.status, 404, "{}", missing.body);
    let told: Value = serde_json::from_str(missing.json().as_str().unwrap()).unwrap();
    assert_eq!(told["class"], "RequestDataNotFoundInEntityRowsException");
    for words in ["`guests`", "`request_context`", "int64"] {
        let message = told["message"].as_str().unwrap();
        assert!(message.contains(words), "no {words} in {message}");
    }
    let wrong = [
        ("amount", json!(["50", 1])),
        ("guests", json!([3.5, 1])),
        ("day", json!([DAY + 1, null])),
        ("at", json!(["yesterday", null])),
        ("vip", json!([1, null])),
        ("buyer", json!([["x"], null])),
    ];
    for (name, cells) in wrong {
        let mut entities = entities();
        entities[name] = cells;
        let reply = read(&server, &entities, &json!({}));
        assert_eq!(reply.status, 422, "{name}: {}", reply.body);
        let place = json!(["body", format!("context[0].{name}")]);
        assert_eq!(reply.json()["detail"][0]["loc"], place, "{}", reply.body);
    }
    let uneven = read(&server, &entities(), &json!({"amount": [1]}));
    assert_eq!(uneven.status, 422, "{}", uneven.body);
    let place = &uneven.json()["detail"][0]["loc"];
    assert_eq!(*place, json!(["body", "request_context"]));
}

#[test]
fn grpc_takes_the_same_by_its_own_types() {
    let (_project, server) = shop();
    let column = |vals: [Option<Val>; 2]| RepeatedValue {
        val: vals.map(|val| FeastValue { val }).into(),
    };
    let text = |a: &str, b: &str| column([a, b].map(|t| Some(Val::StringVal(t.into()))));
    let entities = [
        ("customer", text("ada", "bob")),
        ("guests", column([Some(Val::Int32Val(3)), None])),
        ("buyer", text("x", "y")),
        ("vip", column([true, false].map(|v| Some(Val::BoolVal(v))))),
    ];
    let times = [Val::UnixTimestampVal(DAY + 1), Val::Int64Val(DAY + 1)];
    let own = [
        (
            "amount",
            column([Some(Val::FloatVal(50.0)), Some(Val::DoubleVal(0.5))]),
        ),
        (
            "day",
            column([Some(Val::UnixTimestampVal(DAY)), Some(Val::Int64Val(DAY))]),
        ),
        ("at", column(times.map(Some))),
    ];
    let named = |columns: &[(&str, RepeatedValue)]| {
        let columns = columns.iter();
        columns.map(|(n, c)| ((*n).to_owned(), c.clone())).collect()
    };
    let request = feast::GetOnlineFeaturesRequest {
        kind: Some(feast::get_online_features_request::Kind::FeatureService(
            "offer".into(),
        )),
        entities: named(&entities),
        request_context: named(&own),
        ..Default::default()
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let endpoint = Endpoint::from_shared(server.grpc_url.clone()).unwrap();
    let channel = runtime.block_on(endpoint.connect()).unwrap();
    let mut client = feast::serving_service_client::ServingServiceClient::new(channel);
    let mut ask = |request| runtime.block_on(client.get_online_features(request));
    let reply = ask(request.clone()).unwrap().into_inner();
    let names = reply.metadata.unwrap().feature_names.unwrap().val;
    let of = |name: &str| {
        let at = names.iter().position(|n| n == name).unwrap();
        reply.results[at].values.clone()
    };
    let same = |val: Val| column([val.clone(), val].map(Some)).val;
    assert_eq!(of("share"), column([Some(Val::DoubleVal(1.25)), None]).val);
    assert_eq!(of("more"), column([Some(Val::Int64Val(4)), None]).val);
    assert_eq!(of("who"), text("x/ada", "y/bob").val);
    assert_eq!(of("on_day"), same(Val::UnixTimestampVal(DAY)));
    assert_eq!(of("at_time"), same(Val::UnixTimestampVal(DAY + 1)));
    let mut missing = request;
    missing.request_context.remove("day");
    let refused = ask(missing).unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    assert!(refused.message().contains("`day`"), "{refused:?}");
}
