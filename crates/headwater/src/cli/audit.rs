//! `audit`: who did what.

use clap::Args;
use headwater_api::AuditQuery;
use serde_json::{Value as Json, json};

use super::{Context, Failure, print};

#[derive(Args)]
pub struct AuditArguments {
    /// The newest, this many.
    #[arg(long, default_value_t = 50)]
    limit: usize,
    /// Those before a page, by the place that it named.
    #[arg(long)]
    before: Option<String>,
    /// Of one actor only: a key's id, `anyone`, or `command line`.
    #[arg(long)]
    actor: Option<String>,
    /// Of one action only, as in `key.use`.
    #[arg(long)]
    action: Option<String>,
}

/// Prints a page of the record, newest last.
pub fn run(context: &Context, arguments: &AuditArguments) -> Result<(), Failure> {
    let page = read(context, arguments)?;
    if context.json {
        print::json(&page);
        return Ok(());
    }
    let headings = ["time", "actor", "action", "target", "result"];
    let row = |entry: &Json| {
        let text = |name: &&str| entry[*name].as_str().unwrap_or_default().to_owned();
        headings.iter().map(text).collect()
    };
    let entries = page["entries"].as_array().into_iter().flatten();
    let rows: Vec<Vec<String>> = entries.map(row).collect();
    print::table(&headings, &rows);
    if let Some(before) = page["before"].as_str() {
        eprintln!("there are more: --before {before}");
    }
    Ok(())
}

fn read(context: &Context, arguments: &AuditArguments) -> Result<Json, Failure> {
    let AuditArguments {
        limit,
        before,
        actor,
        action,
    } = arguments;
    if let Some(remote) = context.remote()? {
        let mut query = vec![("limit", limit.to_string())];
        for (name, value) in [("before", before), ("actor", actor), ("action", action)] {
            query.extend(value.clone().map(|value| (name, value)));
        }
        return Ok(remote.get("/v1/audit", &query)?);
    }
    let log = context.audit(&context.config()?);
    let page = log.read(&AuditQuery {
        limit: *limit,
        before: before.clone(),
        actor: actor.clone(),
        action: action.clone(),
    })?;
    Ok(json!(page))
}
