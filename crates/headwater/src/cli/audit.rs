//! `audit`: who did what.

use clap::Args;
use serde_json::json;

use super::{Context, Failure, print};

#[derive(Args)]
pub struct AuditArguments {
    /// The newest, this many.
    #[arg(long, default_value_t = 50)]
    limit: usize,
    /// Of one actor only: a key's id, `anyone`, or `command line`.
    #[arg(long)]
    actor: Option<String>,
    /// Of one action only, as in `key.use`.
    #[arg(long)]
    action: Option<String>,
}

/// Prints the newest entries, oldest first.
pub fn run(context: &Context, arguments: &AuditArguments) -> Result<(), Failure> {
    let log = context.audit(&context.config()?);
    let is = |asked: &Option<String>, given: &str| asked.as_deref().is_none_or(|a| a == given);
    let entries = log.read(arguments.limit, |entry| {
        is(&arguments.actor, &entry.actor) && is(&arguments.action, &entry.action)
    })?;
    if context.json {
        print::json(&json!(entries));
        return Ok(());
    }
    let rows: Vec<Vec<String>> = entries
        .into_iter()
        .map(|e| vec![e.time, e.actor, e.action, e.target, e.result])
        .collect();
    print::table(&["time", "actor", "action", "target", "result"], &rows);
    Ok(())
}
