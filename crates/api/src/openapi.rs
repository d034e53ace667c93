//! The OpenAPI document, made from the wire types.

use serde_json::{Value, json};

use crate::facts::IngestAnswer;
use crate::features::{FeaturesAnswer, FeaturesBody};

/// The OpenAPI 3.1 document of every call.
pub fn openapi() -> Value {
    let mut settings = schemars::generate::SchemaSettings::draft2020_12();
    settings.definitions_path = "/components/schemas".into();
    let mut generator = settings.into_generator();
    let features_body = generator.subschema_for::<FeaturesBody>();
    let features_answer = generator.subschema_for::<FeaturesAnswer>();
    let ingest_answer = generator.subschema_for::<IngestAnswer>();
    let mut schemas = generator.take_definitions(true);
    schemas.insert("Problem".into(), problem_schema());
    let json_content = |schema: Value| json!({"application/json": {"schema": schema}});
    let object = json!({"type": "object"});
    let ok = |description: &str, schema: Value| json!({"description": description, "content": json_content(schema)});
    let problem = json!({"description": "What went wrong and how to mend it", "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}});
    let contract =
        json!({"name": "contract", "in": "path", "required": true, "schema": {"type": "string"}});
    let query = |name: &str, schema: Value, description: &str| json!({"name": name, "in": "query", "schema": schema, "description": description});
    let text = json!({"type": "string"});
    let number = json!({"type": "integer", "minimum": 1});
    let get = |summary: &str| json!({"get": {"summary": summary, "responses": {"200": ok("OK", object.clone()), "default": problem.clone()}}});
    let plain = |summary: &str| json!({"get": {"summary": summary, "responses": {"200": {"description": "OK"}, "default": problem.clone()}}});
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Headwater",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Facts in, exact fresh features out.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"}
        },
        "paths": {
            "/v1/facts/{contract}": {
                "post": {
                    "summary": "Send facts; answered once they are durable and visible",
                    "parameters": [contract, query("on_reject", json!({"type": "string", "enum": ["keep", "fail"]}), "`fail`: one bad row refuses all")],
                    "requestBody": {"required": true, "content": {
                        "application/json": {"schema": {"type": "array", "items": object}},
                        "application/x-ndjson": {"schema": text},
                        "text/csv": {"schema": text},
                        "application/vnd.apache.arrow.stream": {"schema": {"type": "string", "contentEncoding": "binary"}}
                    }},
                    "responses": {"200": ok("What became of the facts", ingest_answer.into()), "default": problem}
                },
                "get": {
                    "summary": "List facts, newest last",
                    "parameters": [contract,
                        query("entity", text.clone(), "`plane:N14228`, or `route:origin=EWR,dest=IAH`"),
                        query("from", text.clone(), "RFC 3339 or microseconds"),
                        query("to", text.clone(), "the first instant left out"),
                        query("limit", number.clone(), "the newest, this many")],
                    "responses": {"200": ok("Facts", object.clone()), "default": problem}
                }
            },
            "/v1/facts/{contract}/quarantine": {"get": {
                "summary": "List rows that broke their contract, newest first",
                "parameters": [contract, query("limit", number, "how many")],
                "responses": {"200": ok("Rows", object.clone()), "default": problem}
            }},
            "/v1/features": {"post": {
                "summary": "Read features of entities at one cursor",
                "requestBody": {"required": true, "content": json_content(features_body.into())},
                "responses": {"200": ok("Features", features_answer.into()), "default": problem}
            }},
            "/v1/registry": get("Everything that is defined"),
            "/metrics": plain("OpenMetrics text"),
            "/health/live": get("Whether the process lives"),
            "/health/ready": get("Whether it answers reads"),
            "/openapi.json": get("This document")
        },
        "components": {"schemas": schemas}
    })
}

fn problem_schema() -> Value {
    let text = json!({"type": "string"});
    json!({
        "type": "object",
        "required": ["type", "title", "status", "detail", "hint"],
        "properties": {
            "type": text, "title": text, "status": {"type": "integer"},
            "detail": text, "hint": text, "field": text
        }
    })
}
