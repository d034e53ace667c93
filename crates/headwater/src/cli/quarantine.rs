//! `facts quarantine`: rows that broke their contract, listed, replayed and repaired.

use std::path::{Path, PathBuf};

use clap::Args;
use headwater_api::backend::{MendReply, Mending};
use headwater_schema::Problem;
use headwater_schema::time::format_timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value as Json, json};

use super::{Context, Failure, print};

#[derive(Args)]
pub struct QuarantineArguments {
    contract: String,
    #[arg(long, default_value_t = 20)]
    limit: usize,
    /// List rows that have become facts too.
    #[arg(long)]
    resolved: bool,
    /// Try rows again as they came: those with these ids, or all that wait.
    #[arg(long, value_name = "ID", num_args = 0.., conflicts_with = "repair")]
    replay: Option<Vec<u64>>,
    /// Send mended rows: lines of {"id": "3", "row": {…}} with the ids that the list shows.
    #[arg(long, value_name = "FILE")]
    repair: Option<PathBuf>,
    /// What is replayed or repaired replaces the fact with its id.
    #[arg(long)]
    revise: bool,
}

/// Lists, replays or repairs.
pub fn run(context: &Context, arguments: &QuarantineArguments) -> Result<(), Failure> {
    let mending = match (&arguments.replay, &arguments.repair) {
        (None, None) => return list(context, arguments),
        (_, Some(file)) => Mending::Repaired(read_repaired(context, file)?),
        (Some(ids), None) if ids.is_empty() => Mending::All,
        (Some(ids), None) => Mending::Rows(ids.clone()),
    };
    let reply = mend(context, arguments, mending)?;
    if context.json {
        print::json(&reply);
        return Ok(());
    }
    println!(
        "{} accepted, {} duplicates, {} still in quarantine",
        reply["accepted"], reply["duplicates"], reply["waiting"]
    );
    for row in reply["rejected"].as_array().into_iter().flatten() {
        let text = |name: &str| row[name].as_str().unwrap_or_default();
        eprintln!("  {}: {} {}", text("id"), text("field"), text("reason"));
    }
    Ok(())
}

fn mend(
    context: &Context,
    arguments: &QuarantineArguments,
    mending: Mending,
) -> Result<Json, Failure> {
    let (contract, revise) = (&arguments.contract, arguments.revise);
    let Some(remote) = context.remote()? else {
        let engine = context.engine()?;
        let reply = engine.mend(contract, mending, revise)?;
        engine.close()?;
        return Ok(reply_json(reply));
    };
    let (verb, body) = match mending {
        Mending::All => ("replay", json!({}).to_string()),
        Mending::Rows(rows) => {
            let ids: Vec<String> = rows.iter().map(u64::to_string).collect();
            ("replay", json!({ "ids": ids }).to_string())
        }
        Mending::Repaired(rows) => {
            let rows = rows.iter();
            let rows = rows.map(|(row, text)| format!("{{\"id\":\"{row}\",\"row\":{text}}}"));
            (
                "repair",
                format!("[{}]", rows.collect::<Vec<_>>().join(",")),
            )
        }
    };
    let path = format!("/v1/facts/{contract}/quarantine/{verb}?revise={revise}");
    Ok(remote.post(&path, "application/json", body.as_bytes())?)
}

fn reply_json(reply: MendReply) -> Json {
    let rejected = reply.rejected.iter();
    let rejected = rejected
        .map(|row| json!({"id": row.id.to_string(), "field": row.field, "reason": row.reason}));
    json!({
        "accepted": reply.accepted, "duplicates": reply.duplicates, "waiting": reply.waiting,
        "rejected": rejected.collect::<Vec<_>>(), "sequence": reply.sequence.to_string(),
    })
}

/// A line of a file of mended rows.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    id: String,
    #[serde(borrow)]
    row: &'a RawValue,
}

fn read_repaired(context: &Context, file: &Path) -> Result<Vec<(u64, String)>, Failure> {
    let unreadable = |detail: &dyn std::fmt::Display| {
        Problem::user(
            "unreadable-file",
            format!("{} can't be read", file.display()),
        )
        .detail(detail)
        .hint("each line is {\"id\": \"3\", \"row\": {…}}, with the ids that `facts quarantine` lists")
    };
    let bytes = context.env.files.read(file).map_err(|e| unreadable(&e))?;
    let text = String::from_utf8(bytes).map_err(|e| unreadable(&e))?;
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let row = |line: &str| {
        let line: Line<'_> = serde_json::from_str(line).map_err(|e| unreadable(&e))?;
        let id = line.id.parse().map_err(|e| unreadable(&e))?;
        Ok((id, line.row.get().to_owned()))
    };
    lines.map(row).collect()
}

fn list(context: &Context, arguments: &QuarantineArguments) -> Result<(), Failure> {
    let QuarantineArguments {
        contract,
        limit,
        resolved,
        ..
    } = arguments;
    let listed = match context.remote()? {
        Some(remote) => {
            let path = format!("/v1/facts/{contract}/quarantine");
            let query = [
                ("limit", limit.to_string()),
                ("resolved", resolved.to_string()),
            ];
            remote.get(&path, &query)?
        }
        None => {
            let rows = context.engine()?.quarantine(contract, *resolved, *limit)?;
            let rows = rows.into_iter().map(|row| {
                json!({
                    "id": row.id.to_string(), "ingest_time": format_timestamp(row.ingest_time),
                    "row": row.row, "field": row.field, "rule": row.rule, "reason": row.reason,
                    "raw": row.raw, "resolved": row.resolved.map(format_timestamp),
                })
            });
            json!({ "rows": rows.collect::<Vec<_>>() })
        }
    };
    if context.json {
        print::json(&listed);
        return Ok(());
    }
    let rows: Vec<Vec<String>> = listed["rows"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|row| {
            let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
            ["id", "ingest_time", "field", "rule", "reason", "raw"]
                .map(text)
                .to_vec()
        })
        .collect();
    print::table(&["id", "arrived", "field", "rule", "reason", "row"], &rows);
    Ok(())
}
