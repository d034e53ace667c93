//! `facts get` and `facts retract`.

use clap::{Args, Subcommand};
use headwater_api::backend::{EntityRequest, FactsQuery, KeyValue, KnownAt};
use headwater_api::value_to_json;
use headwater_schema::time::{format_timestamp, parse_timestamp};
use headwater_schema::{Micros, Problem, Value};
use serde_json::{Value as Json, json};

use super::quarantine::{self, QuarantineArguments};
use super::{Context, Failure, print};

#[derive(Subcommand)]
pub enum FactsVerb {
    /// List facts, newest last.
    Get(GetArguments),
    /// Take back the newest live fact with each id.
    Retract(RetractArguments),
    /// List rows that broke their contract, newest first, or try them again.
    Quarantine(QuarantineArguments),
}

#[derive(Args)]
pub struct GetArguments {
    contract: String,
    /// Of one entity only, as in plane=N14228 or route=origin:EWR,dest:IAH.
    #[arg(long)]
    entity: Option<String>,
    /// From this event time on.
    #[arg(long)]
    from: Option<String>,
    /// Before this event time.
    #[arg(long)]
    to: Option<String>,
    /// A sequence, or an instant: facts as they were known then.
    #[arg(long)]
    known_at: Option<String>,
    /// The newest of them, this many.
    #[arg(long, default_value_t = 20)]
    limit: usize,
}

#[derive(Args)]
pub struct RetractArguments {
    contract: String,
    /// Ids as `facts get` lists them.
    #[arg(required = true)]
    fact_ids: Vec<String>,
}

/// Lists facts, or rows in quarantine.
pub fn run(context: &Context, verb: FactsVerb) -> Result<(), Failure> {
    match verb {
        FactsVerb::Get(arguments) => get(context, &arguments),
        FactsVerb::Retract(arguments) => retract(context, &arguments),
        FactsVerb::Quarantine(arguments) => quarantine::run(context, &arguments),
    }
}

fn get(context: &Context, arguments: &GetArguments) -> Result<(), Failure> {
    let from = arguments.from.as_deref().map(time).transpose()?;
    let to = arguments.to.as_deref().map(time).transpose()?;
    let entity = arguments.entity.as_deref().map(entity).transpose()?;
    let known_at = arguments.known_at.as_deref().map(known_at).transpose()?;
    let facts = match context.remote()? {
        Some(remote) => {
            let mut query = vec![("limit", arguments.limit.to_string())];
            query.extend(from.map(|t| ("from", t.to_string())));
            query.extend(to.map(|t| ("to", t.to_string())));
            query.extend(known_at.map(|k| ("known_at", known_at_text(k))));
            query.extend(entity.as_ref().map(|e| ("entity", entity_parameter(e))));
            remote.get(&format!("/v1/facts/{}", arguments.contract), &query)?
        }
        None => {
            let rows = context.engine()?.facts(&FactsQuery {
                contract: arguments.contract.clone(),
                entity,
                from,
                to,
                known_at,
                limit: arguments.limit,
            })?;
            let facts = rows.iter().map(|row| {
                let fact: serde_json::Map<String, Json> = row
                    .values
                    .iter()
                    .map(|(n, v)| (n.to_string(), value_to_json(v)))
                    .collect();
                json!({
                    "fact_id": row.fact_id, "event_time": format_timestamp(row.event_time),
                    "ingest_time": format_timestamp(row.ingest_time),
                    "sequence": row.sequence.to_string(), "fact": fact,
                })
            });
            json!({ "facts": facts.collect::<Vec<_>>() })
        }
    };
    if context.json {
        print::json(&facts);
        return Ok(());
    }
    let rows: Vec<Vec<String>> = facts["facts"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|fact| {
            let text = |name: &str| fact[name].as_str().unwrap_or_default().to_owned();
            vec![
                text("event_time"),
                text("sequence"),
                text("fact_id"),
                fact["fact"].to_string(),
            ]
        })
        .collect();
    print::table(&["event time", "sequence", "fact id", "fact"], &rows);
    Ok(())
}

fn retract(context: &Context, arguments: &RetractArguments) -> Result<(), Failure> {
    let (contract, ids) = (&arguments.contract, arguments.fact_ids.clone());
    let reply = match context.remote()? {
        Some(remote) => {
            let body = json!({ "fact_ids": ids }).to_string();
            let path = format!("/v1/facts/{contract}/retract");
            remote.post(&path, "application/json", body.as_bytes())?
        }
        None => {
            let engine = context.engine()?;
            let reply = engine.retract(contract, ids)?;
            engine.close()?;
            json!({
                "retracted": reply.retracted, "unknown": reply.unknown,
                "sequence": reply.sequence.to_string(),
            })
        }
    };
    if context.json {
        print::json(&reply);
        return Ok(());
    }
    println!("{} retracted", reply["retracted"]);
    for id in reply["unknown"].as_array().into_iter().flatten() {
        eprintln!("  unknown: {}", id.as_str().unwrap_or_default());
    }
    Ok(())
}

/// An instant: RFC 3339, or microseconds.
pub fn time(text: &str) -> Result<Micros, Problem> {
    if let Ok(micros) = text.parse() {
        return Ok(micros);
    }
    parse_timestamp(text, None).map_err(|e| {
        Problem::user("invalid-time", format!("`{text}` is no time"))
            .detail(e)
            .hint("write RFC 3339 with an offset, as in 2013-07-04T12:00:00Z")
    })
}

/// A sequence, or an instant as RFC 3339.
pub fn known_at(text: &str) -> Result<KnownAt, Problem> {
    match text.parse() {
        Ok(sequence) => Ok(KnownAt::Sequence(sequence)),
        Err(_) => time(text).map(KnownAt::Instant),
    }
}

/// What [`known_at`] reads.
pub fn known_at_text(known_at: KnownAt) -> String {
    match known_at {
        KnownAt::Sequence(sequence) => sequence.to_string(),
        KnownAt::Instant(instant) => format_timestamp(instant),
    }
}

/// `plane=N14228`, or `route=origin:EWR,dest:IAH` for several key columns.
pub fn entity(text: &str) -> Result<EntityRequest, Problem> {
    let wrong = || {
        Problem::user("invalid-entity", format!("`{text}` names no entity"))
            .hint("write plane=N14228, or route=origin:EWR,dest:IAH for several key columns")
    };
    let (name, key) = text.split_once('=').ok_or_else(wrong)?;
    let value = if key.contains(':') && key.split(',').all(|part| part.contains(':')) {
        let columns = key.split(',').filter_map(|part| part.split_once(':'));
        KeyValue::Columns(
            columns
                .map(|(c, v)| (c.to_owned(), Value::string(v)))
                .collect(),
        )
    } else {
        KeyValue::Scalar(Value::string(key))
    };
    Ok(EntityRequest::from([(name.to_owned(), value)]))
}

fn entity_parameter(entity: &EntityRequest) -> String {
    let text = headwater_schema::value_to_text;
    let named = entity.iter().map(|(name, value)| match value {
        KeyValue::Scalar(value) => format!("{name}:{}", text(value)),
        KeyValue::Columns(columns) => {
            let parts: Vec<String> = columns
                .iter()
                .map(|(c, v)| format!("{c}={}", text(v)))
                .collect();
            format!("{name}:{}", parts.join(","))
        }
    });
    named.collect::<Vec<_>>().join(";")
}
