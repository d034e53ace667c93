//! The OpenAPI document, made from the wire types.

mod foreign;
mod security;

use schemars::SchemaGenerator;
use serde_json::{Value, json};

use crate::arrow_stream::ARROW_STREAM;
use crate::facts::IngestAnswer;
use crate::features::{FeaturesAnswer, FeaturesBody};
use crate::feed_lines::FeedAnswer;
use crate::quarantine::{MendAnswer, RepairedRow, ReplayBody};
use crate::retract::{RetractAnswer, RetractBody};

/// The OpenAPI 3.1 document of every call.
pub fn openapi() -> Value {
    let mut settings = schemars::generate::SchemaSettings::draft2020_12();
    settings.definitions_path = "/components/schemas".into();
    let mut generator = settings.into_generator();
    let mut paths = facts_paths(&mut generator);
    paths.extend(quarantine_paths(&mut generator));
    paths.extend(other_paths(&mut generator));
    paths.extend(crate::archive::paths());
    paths.extend(crate::audit::paths(&mut generator));
    paths.extend(crate::training_sets::paths());
    paths.extend(crate::query::paths(&mut generator));
    paths.extend(crate::models::paths(&mut generator));
    paths.extend(crate::predict::paths(&mut generator));
    paths.extend(crate::bundle::paths(&mut generator));
    paths.extend(crate::predictions::paths());
    paths.extend(crate::score::paths());
    paths.extend(crate::outcomes::paths(&mut generator));
    paths.extend(crate::registry::paths(&mut generator));
    paths.extend(crate::oip::paths(&mut generator));
    paths.extend(foreign::paths(&mut generator));
    security::guard(&mut paths);
    let mut schemas = generator.take_definitions(true);
    schemas.insert("Problem".into(), problem_schema());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Headwater",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Facts in, exact fresh features out.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"}
        },
        "paths": paths.into_iter().collect::<serde_json::Map<_, _>>(),
        "components": {"schemas": schemas, "securitySchemes": security::schemes()}
    })
}

fn feed_path(generator: &mut SchemaGenerator) -> (String, Value) {
    let line = generator.subschema_for::<FeedAnswer>();
    let on_reject = query(
        "on_reject",
        json!({"type": "string", "enum": ["keep"]}),
        "bad rows are kept in quarantine; a feed is never all or nothing",
    );
    let path = json!({"post": {
        "summary": "Feed facts line by line, for as long as it takes; answered with a line whenever some are durable and visible",
        "parameters": [contract_parameter(), revise_parameter(), on_reject],
        "requestBody": {"required": false, "content": {"application/x-ndjson": {"schema": {"type": "string"}}}},
        "responses": {
            "200": {"description": "Lines, each as the schema says", "content": {"application/x-ndjson": {"schema": {"type": "string"}, "itemSchema": line}}},
            "default": problem_reply()
        }
    }});
    ("/v1/facts/{contract}/stream".to_owned(), path)
}

pub type Paths = Vec<(String, Value)>;

pub fn json_content(schema: impl Into<Value>) -> Value {
    json!({"application/json": {"schema": schema.into()}})
}

pub fn any_object() -> Value {
    json!({"type": "object"})
}

pub fn query(name: &str, schema: Value, description: &str) -> Value {
    json!({"name": name, "in": "query", "schema": schema, "description": description})
}

/// A call's replies: what it answers with, or a problem.
pub fn replies(description: &str, schema: impl Into<Value>) -> Value {
    json!({
        "200": {"description": description, "content": json_content(schema)},
        "default": problem_reply()
    })
}

/// Replies that are offered as Arrow streams too.
fn with_arrow(mut replies: Value) -> Value {
    let stream = json!({"schema": {"type": "string", "contentEncoding": "binary"}});
    replies["200"]["content"][ARROW_STREAM] = stream;
    replies
}

pub fn problem_reply() -> Value {
    json!({
        "description": "What went wrong and how to mend it",
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    })
}

fn revise_parameter() -> Value {
    let schema = json!({"type": "boolean"});
    query(
        "revise",
        schema,
        "`true`: a fact whose id is known replaces it",
    )
}

fn facts_paths(generator: &mut SchemaGenerator) -> Paths {
    let contract = contract_parameter();
    let text = json!({"type": "string"});
    let number = json!({"type": "integer", "minimum": 1});
    // Of any type: a row that is no fact is kept and told of, and refuses nothing else.
    let row = json!({"description": "A fact as an object. What isn't one is rejected, and kept in quarantine"});
    let post = json!({
        "summary": "Send facts; answered once they are durable and visible",
        "parameters": [contract,
            query("on_reject", json!({"type": "string", "enum": ["keep", "fail"]}), "`fail`: one bad row refuses all"),
            revise_parameter()],
        "requestBody": {"required": false, "content": {
            "application/json": {"schema": {"anyOf": [{"type": "array", "items": row}, any_object()]}},
            "application/x-ndjson": {"schema": text},
            "text/csv": {"schema": text},
            "application/vnd.apache.arrow.stream": {"schema": {"type": "string", "contentEncoding": "binary"}}
        }},
        "responses": replies("What became of the facts", generator.subschema_for::<IngestAnswer>())
    });
    let get = json!({
        "summary": "List live facts, newest last",
        "parameters": [contract,
            query("entity", text.clone(), "`plane:N14228`, or `route:origin=EWR,dest=IAH`"),
            query("from", text.clone(), "RFC 3339 or microseconds"),
            query("to", text.clone(), "the first instant left out"),
            query("known_at", text.clone(), "a `sequence` or RFC 3339: facts as they were known then"),
            query("limit", number.clone(), "the newest, this many")],
        "responses": with_arrow(replies("Facts", any_object()))
    });
    let retract = json!({"post": {
        "summary": "Take back the newest live fact with each id",
        "parameters": [contract],
        "requestBody": {"required": true, "content": json_content(generator.subschema_for::<RetractBody>())},
        "responses": replies("What became of the facts", generator.subschema_for::<RetractAnswer>())
    }});
    vec![
        (
            "/v1/facts/{contract}".into(),
            json!({"post": post, "get": get}),
        ),
        ("/v1/facts/{contract}/retract".into(), retract),
        feed_path(generator),
    ]
}

fn quarantine_paths(generator: &mut SchemaGenerator) -> Paths {
    let contract = contract_parameter();
    let revise = query(
        "revise",
        json!({"type": "boolean"}),
        "`true`: a fact whose id is known is replaced",
    );
    let list = json!({"get": {
        "summary": "List rows that broke their contract, newest first",
        "parameters": [contract,
            query("resolved", json!({"type": "boolean"}), "`true`: with those that have become facts"),
            query("limit", json!({"type": "integer", "minimum": 1}), "how many")],
        "responses": replies("Rows", any_object())
    }});
    let answer = replies(
        "What became of the rows",
        generator.subschema_for::<MendAnswer>(),
    );
    let replay = json!({"post": {
        "summary": "Try rows again as they came: those that keep the contract become facts",
        "parameters": [contract, revise],
        "requestBody": {"content": json_content(generator.subschema_for::<ReplayBody>())},
        "responses": answer
    }});
    let repair = json!({"post": {
        "summary": "Send mended rows in the place of those in quarantine",
        "parameters": [contract, revise],
        "requestBody": {"required": true, "content": json_content(generator.subschema_for::<Vec<RepairedRow>>())},
        "responses": answer
    }});
    vec![
        ("/v1/facts/{contract}/quarantine".into(), list),
        ("/v1/facts/{contract}/quarantine/replay".into(), replay),
        ("/v1/facts/{contract}/quarantine/repair".into(), repair),
    ]
}

fn contract_parameter() -> Value {
    json!({"name": "contract", "in": "path", "required": true, "schema": {"type": "string"}})
}

fn other_paths(generator: &mut SchemaGenerator) -> Paths {
    let get = |path: &str, summary: &str| {
        let call = json!({"summary": summary, "responses": replies("OK", any_object())});
        (path.to_owned(), json!({ "get": call }))
    };
    let features = json!({"post": {
        "summary": "Read features of entities at one cursor",
        "requestBody": {"required": true, "content": json_content(generator.subschema_for::<FeaturesBody>())},
        "responses": with_arrow(replies("Features", generator.subschema_for::<FeaturesAnswer>()))
    }});
    let text = |path: &str, summary: &str| {
        let responses = json!({"200": {"description": "OK"}, "default": problem_reply()});
        let call = json!({"summary": summary, "responses": responses});
        (path.to_owned(), json!({ "get": call }))
    };
    vec![
        ("/v1/features".into(), features),
        text("/metrics", "OpenMetrics text"),
        text("/", "The start page"),
        get("/health/live", "Whether the process lives"),
        get("/health/ready", "Whether it answers reads"),
        get("/openapi.json", "This document"),
    ]
}

fn problem_schema() -> Value {
    let text = json!({"type": "string"});
    json!({
        "type": "object",
        "required": ["type", "title", "status"],
        "properties": {
            "type": text, "title": text, "status": {"type": "integer"},
            "detail": text, "hint": text, "field": text
        }
    })
}
