//! The protocol's calls in the OpenAPI document.

use schemars::SchemaGenerator;
use serde_json::{Value, json};

use super::body::{InferAnswer, InferBody};
use super::calls::{IndexBody, LoadBody};
use super::model::{Config, IndexEntry, Metadata, ModelStatistics};
use crate::openapi::{Paths, any_object, json_content};

fn reply(description: &str, schema: impl Into<Value>) -> Value {
    json!({"description": description, "content": json_content(schema)})
}

fn replies(description: &str, schema: impl Into<Value>) -> Value {
    let error = json!({"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}});
    json!({"200": reply(description, schema), "default": reply("What went wrong", error)})
}

fn get(summary: &str, schema: impl Into<Value>, parameters: &[&str]) -> Value {
    json!({"get": {
        "summary": format!("Open Inference Protocol: {summary}"),
        "parameters": in_path(parameters), "responses": replies("What it is", schema)
    }})
}

/// A readiness call: the same body, whether it is or isn't.
fn ready(summary: &str, parameters: &[&str]) -> Value {
    let mut call = get(summary, any_object(), parameters);
    call["get"]["responses"]["503"] = reply("It isn't, or too much is asked at once", any_object());
    call
}

fn post(summary: &str, body: Value, replies: &Value, parameters: &[&str]) -> Value {
    json!({"post": {
        "summary": format!("Open Inference Protocol: {summary}"),
        "parameters": in_path(parameters), "requestBody": body, "responses": replies
    }})
}

fn in_path(names: &[&str]) -> Value {
    let one = |name: &&str| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}});
    names.iter().map(one).collect()
}

/// These calls in the OpenAPI document.
pub(crate) fn paths(generator: &mut SchemaGenerator) -> Paths {
    let raw = json!({"schema": {"type": "string", "contentEncoding": "binary"}});
    let mut asked = json_content(generator.subschema_for::<InferBody>());
    asked["application/octet-stream"] = raw.clone();
    let asked = json!({"required": true, "content": asked});
    let mut answers = replies("Tensors", generator.subschema_for::<InferAnswer>());
    answers["200"]["content"]["application/octet-stream"] = raw;
    let metadata: Value = generator.subschema_for::<Metadata>().into();
    let config: Value = generator.subschema_for::<Config>().into();
    let stats = stats_schema(generator);
    let mut paths = server_paths(generator, &stats);
    for (path, parameters) in [
        ("/v2/models/{model}", &["model"][..]),
        (
            "/v2/models/{model}/versions/{version}",
            &["model", "version"],
        ),
    ] {
        let infer = post(
            "ask a model with tensors",
            asked.clone(),
            &answers,
            parameters,
        );
        paths.push((
            path.to_owned(),
            get("a model's tensors", metadata.clone(), parameters),
        ));
        paths.push((
            format!("{path}/ready"),
            ready("whether a model can be asked", parameters),
        ));
        paths.push((
            format!("{path}/config"),
            get("a model's configuration", config.clone(), parameters),
        ));
        paths.push((
            format!("{path}/stats"),
            get("what is counted of a model", stats.clone(), parameters),
        ));
        paths.push((format!("{path}/infer"), infer));
    }
    paths
}

fn stats_schema(generator: &mut SchemaGenerator) -> Value {
    let stats: Value = generator.subschema_for::<Vec<ModelStatistics>>().into();
    json!({"type": "object", "required": ["model_stats"], "properties": {"model_stats": stats}})
}

/// What isn't asked of one model, and the repository's calls.
fn server_paths(generator: &mut SchemaGenerator, stats: &Value) -> Paths {
    let optional = |schema: schemars::Schema| json!({"content": json_content(schema)});
    let index = optional(generator.subschema_for::<IndexBody>());
    let load = optional(generator.subschema_for::<LoadBody>());
    let entries = replies(
        "Models and versions",
        generator.subschema_for::<Vec<IndexEntry>>(),
    );
    let done = replies("Done", any_object());
    let mut paths: Paths = vec![
        ("/v2".to_owned(), get("the server", any_object(), &[])),
        (
            "/v2/health/live".to_owned(),
            get("whether the process lives", any_object(), &[]),
        ),
        (
            "/v2/health/ready".to_owned(),
            ready("whether the server takes requests", &[]),
        ),
        (
            "/v2/models".to_owned(),
            get("the models' names", any_object(), &[]),
        ),
        (
            "/v2/models/stats".to_owned(),
            get("what is counted of all models", stats.clone(), &[]),
        ),
        (
            "/v2/repository/index".to_owned(),
            post(
                "models, and whether they can be asked",
                index,
                &entries,
                &[],
            ),
        ),
    ];
    for (verb, summary) in [
        ("load", "load a model's versions"),
        ("unload", "let a model's versions go"),
    ] {
        let path = format!("/v2/repository/models/{{model}}/{verb}");
        paths.push((path, post(summary, load.clone(), &done, &["model"])));
    }
    paths
}
