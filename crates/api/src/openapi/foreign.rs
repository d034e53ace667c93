//! The calls whose shapes others fixed: Feast's feature server and Chronon's fetcher.

use schemars::SchemaGenerator;
use serde_json::{Map, Value, json};

use crate::chronon::{ChrononAnswer, ChrononBody};
use crate::feast::{OnlineFeaturesAnswer, OnlineFeaturesBody, PushBody, WriteBody};

/// Paths by themselves.
pub fn paths(generator: &mut SchemaGenerator) -> Map<String, Value> {
    let content = |schema: Value| json!({"application/json": {"schema": schema}});
    let body =
        |schema: schemars::Schema| json!({"required": true, "content": content(schema.into())});
    let ok = |description: &str, schema: Value| json!({"description": description, "content": content(schema)});
    let empty = |description: &str| json!({ "description": description });
    let feast_error = ok(
        "What went wrong: an exception of `feast.errors` as JSON text in a string, complaints, or a text",
        json!({"anyOf": [
            {"type": "string"},
            {"type": "object", "required": ["detail"], "properties": {"detail": {"type": "array", "items": {
                "type": "object", "required": ["type", "loc", "msg"],
                "properties": {"type": {"type": "string"}, "msg": {"type": "string"}, "loc": {"type": "array", "items": {"type": "string"}}}
            }}}}
        ]}),
    );
    let chronon_error = ok(
        "What went wrong",
        json!({"type": "object", "required": ["errors"], "properties": {"errors": {"type": "array", "items": {"type": "string"}}}}),
    );
    let post = |summary: &str, schema: schemars::Schema, reply: Value, error: &Value| json!({"post": {"summary": summary, "requestBody": body(schema), "responses": {"200": reply, "default": error}}});
    let name =
        json!([{"name": "name", "in": "path", "required": true, "schema": {"type": "string"}}]);
    let mut chronon = |summary: &str| {
        let reply = ok("Results", generator.subschema_for::<ChrononAnswer>().into());
        let schema = generator.subschema_for::<ChrononBody>();
        let mut path = post(summary, schema, reply, &chronon_error);
        path["post"]["parameters"] = name.clone();
        path
    };
    let group_by = chronon("Chronon: fetch a group-by, which is a view");
    let join = chronon("Chronon: fetch a join, which is a feature set");
    let features = ok(
        "Features in columns",
        generator.subschema_for::<OnlineFeaturesAnswer>().into(),
    );
    let read = post(
        "Feast: read features",
        generator.subschema_for::<OnlineFeaturesBody>(),
        features,
        &feast_error,
    );
    let push = post(
        "Feast: push facts of a contract",
        generator.subschema_for::<PushBody>(),
        empty("Taken"),
        &feast_error,
    );
    let write = post(
        "Feast: write facts of the contract behind a view",
        generator.subschema_for::<WriteBody>(),
        ok("Taken", json!({"type": "null"})),
        &feast_error,
    );
    let get = |summary: &str| json!({"get": {"summary": summary, "responses": {"200": empty("It lives")}}});
    [
        ("/get-online-features", read),
        ("/push", push),
        ("/write-to-online-store", write),
        ("/health", get("Feast: whether the server lives")),
        ("/chronon/v1/features/groupby/{name}", group_by),
        ("/chronon/v1/features/join/{name}", join),
        ("/chronon/ping", get("Chronon: whether the server lives")),
    ]
    .into_iter()
    .map(|(path, calls)| (path.to_owned(), calls))
    .collect()
}
