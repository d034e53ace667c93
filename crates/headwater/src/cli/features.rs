//! `features get`.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use headwater::Engine;
use headwater_api::backend::{
    ContextRow, EntityRequest, FeaturesReply, FeaturesRequest, KeyValue, Names,
};
use headwater_api::value_to_json;
use headwater_features::{Entity, read_all_as_typed};
use headwater_schema::time::format_timestamp;
use headwater_schema::{DataType, Field, Problem, Value};
use serde_json::{Value as Json, json};

use super::facts::{entity, known_at, known_at_text, time};
use super::remote::Remote;
use super::{Context, Failure, print};

#[derive(Subcommand)]
pub enum FeaturesVerb {
    /// Read features of one row of entities.
    Get(GetArguments),
}

#[derive(Args)]
pub struct GetArguments {
    /// A feature set.
    #[arg(long, conflicts_with = "feature", required_unless_present = "feature")]
    set: Option<String>,
    /// A feature's full name, as in plane_delays.mean_delay_2h; may be repeated.
    #[arg(long)]
    feature: Vec<String>,
    /// As in plane=N14228 or route=origin:EWR,dest:IAH; once per entity that the features need. Integers and bools are read as
    /// such where the key is one.
    #[arg(long, required = true)]
    entity: Vec<String>,
    /// The event time to read at; now by default.
    #[arg(long)]
    as_of: Option<String>,
    /// A field of the request's own that the set asks for, as in amount=12.5; may be repeated. Numbers,
    /// `true`, `false` and `null` are read as such; put quotes around one that is text: code='"12"'.
    #[arg(long, requires = "set")]
    context: Vec<String>,
    /// A sequence, or an instant: read what was known then.
    #[arg(long)]
    known_at: Option<String>,
    /// Hide facts at the event time itself.
    #[arg(long)]
    exclusive: bool,
}

/// Reads features.
pub fn run(context: &Context, verb: FeaturesVerb) -> Result<(), Failure> {
    let FeaturesVerb::Get(arguments) = verb;
    let mut entities = EntityRequest::new();
    for text in &arguments.entity {
        entities.extend(entity(text)?);
    }
    let request = FeaturesRequest {
        names: match &arguments.set {
            Some(set) => Names::Set(set.clone()),
            None => Names::List(arguments.feature.clone()),
        },
        entities: vec![entities],
        as_of: arguments.as_of.as_deref().map(time).transpose()?,
        known_at: arguments.known_at.as_deref().map(known_at).transpose()?,
        context: context_row(&arguments.context)?,
        inclusive: !arguments.exclusive,
        lenient: false,
    };
    let reply = match context.remote()? {
        Some(remote) => {
            let mut request = request;
            read_keys_as_typed(&remote, &mut request.entities)?;
            let body = request_json(&request).to_string();
            remote.post("/v1/features", "application/json", body.as_bytes())?
        }
        None => reply_json(&read(&context.engine()?, request)?),
    };
    if context.json {
        print::json(&reply);
    } else {
        show(&reply);
    }
    Ok(())
}

/// Fields written as `name=value`, as the context of one row; no row where there are none.
fn context_row(fields: &[String]) -> Result<Vec<ContextRow>, Problem> {
    let mut row = ContextRow::new();
    for text in fields {
        let (name, value) = text.split_once('=').ok_or_else(|| {
            Problem::user("invalid-context", format!("`{text}` is no context field"))
                .hint("write it as in --context amount=12.5")
        })?;
        let value = serde_json::from_str(value).unwrap_or_else(|_| json!(value));
        row.insert(name.to_owned(), value);
    }
    Ok(match row.is_empty() {
        true => Vec::new(),
        false => vec![row],
    })
}

/// Reads features in process; key values that came as text are read as the keys' types.
pub fn read(engine: &Engine, mut request: FeaturesRequest) -> Result<FeaturesReply, Problem> {
    for entities in &mut request.entities {
        engine.read_keys_as_typed(entities);
    }
    engine.features(&request)
}

/// Reads key values that came as text as the types of the keys they name, which the server knows: in requests an integer has
/// no quotes.
pub fn read_keys_as_typed(remote: &Remote, asked: &mut [EntityRequest]) -> Result<(), Problem> {
    let untyped = |value: &Value| match value {
        Value::String(text) => text.parse::<i64>().is_ok() || text.parse::<bool>().is_ok(),
        _ => false,
    };
    let mut keys = asked.iter().flat_map(EntityRequest::values);
    let any = keys.any(|key| match key {
        KeyValue::Scalar(value) => untyped(value),
        KeyValue::Columns(columns) => columns.values().any(untyped),
    });
    if !any {
        return Ok(());
    }
    let told = remote.get("/v1/registry/entities", &[])?;
    let entities: Vec<Entity> = told
        .as_array()
        .into_iter()
        .flatten()
        .map(described)
        .collect();
    for row in asked {
        read_all_as_typed(entities.iter(), row);
    }
    Ok(())
}

/// An entity as the registry tells of it. Of the types that keys have, those that text isn't read as are left as text.
fn described(told: &Json) -> Entity {
    let text = |json: &Json| json.as_str().unwrap_or_default().to_owned();
    let key = |key: &Json| {
        let types = [DataType::Int64, DataType::Bool];
        let same = types.into_iter().find(|t| key["type"] == t.to_string());
        Field::new(text(&key["name"]), same.unwrap_or(DataType::String))
    };
    Entity {
        name: text(&told["name"]).into(),
        keys: told["keys"]
            .as_array()
            .into_iter()
            .flatten()
            .map(key)
            .collect(),
        owner: None,
        description: None,
    }
}

/// The entities of a row as requests name them.
pub fn entity_json(asked: &EntityRequest) -> BTreeMap<String, Json> {
    let key = |(name, value): (&String, &KeyValue)| {
        let value = match value {
            KeyValue::Scalar(value) => value_to_json(value),
            KeyValue::Columns(columns) => columns
                .iter()
                .map(|(c, v)| (c.clone(), value_to_json(v)))
                .collect(),
        };
        (name.clone(), value)
    };
    asked.iter().map(key).collect()
}

/// The request as `POST /v1/features` takes it.
pub fn request_json(request: &FeaturesRequest) -> Json {
    let mut body = json!({
        "entities": request.entities.iter().map(entity_json).collect::<Vec<_>>(),
    });
    match &request.names {
        Names::Set(set) => body["feature_set"] = json!(set),
        Names::List(names) => body["features"] = json!(names),
    }
    if let Some(as_of) = request.as_of {
        body["as_of"] = json!(format_timestamp(as_of));
    }
    if let Some(known_at) = request.known_at {
        body["known_at"] = json!(known_at_text(known_at));
    }
    if !request.context.is_empty() {
        body["context"] = json!(request.context);
    }
    if !request.inclusive {
        body["inclusive"] = json!(false);
    }
    body
}

/// The reply as `POST /v1/features` gives it.
pub fn reply_json(reply: &FeaturesReply) -> Json {
    let rows = reply.rows.iter().map(|row| {
        json!({
            "values": row.values.iter().map(value_to_json).collect::<Vec<_>>(),
            "statuses": row.statuses.iter().map(|s| s.as_str()).collect::<Vec<_>>(),
            "event_times": row.event_times.iter().map(|t| t.map(format_timestamp)).collect::<Vec<_>>(),
        })
    });
    json!({
        "names": reply.names.to_vec(),
        "rows": rows.collect::<Vec<_>>(),
        "as_of": format_timestamp(reply.as_of),
        "sequence": reply.sequence.to_string(),
    })
}

/// Prints a reply as a table.
pub fn show(reply: &Json) {
    let empty = Vec::new();
    let names = reply["names"].as_array().unwrap_or(&empty);
    for row in reply["rows"].as_array().unwrap_or(&empty) {
        let cells = names.iter().enumerate().map(|(i, name)| {
            let text = |json: &Json| match json {
                Json::Null => "-".to_owned(),
                Json::String(text) => text.clone(),
                other => other.to_string(),
            };
            vec![
                text(name),
                text(&row["values"][i]),
                text(&row["statuses"][i]),
                text(&row["event_times"][i]),
            ]
        });
        print::table(
            &["feature", "value", "status", "newest fact"],
            &cells.collect::<Vec<_>>(),
        );
    }
    println!(
        "as of {}, sequence {}",
        reply["as_of"].as_str().unwrap_or("-"),
        reply["sequence"].as_str().unwrap_or("-")
    );
}
