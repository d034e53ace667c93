//! `archive`: takes facts to the archive now, and tells what it holds.

use std::time::Duration;

use clap::Args;
use headwater_schema::{Problem, human_bytes};
use serde_json::Value as Json;

use super::{Context, Failure, print};

/// How long one piece of the work takes, before it is told how far it is.
const PIECE: Duration = Duration::from_secs(15);

#[derive(Args)]
pub struct ArchiveArguments {
    /// Only tell what the archive holds.
    #[arg(long)]
    status: bool,
    /// Read every object of the archive and compare its checksum.
    #[arg(long)]
    verify: bool,
}

/// Archives, in pieces, until all is done.
pub fn run(context: &Context, arguments: &ArchiveArguments) -> Result<(), Failure> {
    let state = match context.remote()? {
        Some(_) if arguments.verify => {
            return Err(
                Problem::user("not-on-a-server", "`--verify` reads the archive itself")
                    .hint("stop the server, or run it where the data folder is")
                    .into(),
            );
        }
        Some(remote) if arguments.status => remote.get("/v1/archive", &[])?,
        Some(remote) => until_done(|| remote.post("/v1/archive", "application/json", b""))?,
        None => here(context, arguments)?,
    };
    show(context, &state);
    match state["last_failure"].is_null() {
        true => Ok(()),
        false => Err(Failure::Told),
    }
}

fn here(context: &Context, arguments: &ArchiveArguments) -> Result<Json, Failure> {
    let engine = context.engine()?;
    let mut state = match arguments.status || arguments.verify {
        true => engine.archive_state()?,
        false => until_done(|| engine.archive_now(PIECE))?,
    };
    if arguments.verify {
        state["verified_bytes"] = engine.verify_archive()?.into();
    }
    engine.close()?;
    Ok(state)
}

/// The last answer, with what all of them did.
fn until_done(mut piece: impl FnMut() -> Result<Json, Problem>) -> Result<Json, Problem> {
    const DONE: [&str; 3] = ["archived_segments", "archived_facts", "released_segments"];
    let mut sums = [0u64; 3];
    loop {
        let mut state = piece()?;
        for (sum, name) in sums.iter_mut().zip(DONE) {
            *sum += state[name].as_u64().unwrap_or(0);
            state[name] = (*sum).into();
        }
        if state["complete"] != Json::Bool(false) {
            return Ok(state);
        }
        eprintln!(
            "archived {} facts so far",
            print::thousands(state["archived_facts"].as_u64().unwrap_or(0))
        );
    }
}

fn show(context: &Context, state: &Json) {
    if context.json {
        return print::json(state);
    }
    let number = |name: &str| state[name].as_u64().unwrap_or(0);
    let text = |name: &str| state[name].as_str().unwrap_or_default().to_owned();
    if state.get("archived_facts").is_some() {
        println!(
            "{} facts archived; {} files have left the log",
            print::thousands(number("archived_facts")),
            number("released_segments")
        );
    }
    println!(
        "{}: {} facts in {} Parquet files, {}, through sequence {}",
        text("url"),
        print::thousands(number("facts")),
        print::thousands(number("files")),
        human_bytes(number("bytes")),
        text("through")
    );
    if let Some(bytes) = state["verified_bytes"].as_u64() {
        println!("{} read, every checksum right", human_bytes(bytes));
    }
    if let Some(failure) = state["last_failure"].as_object() {
        eprintln!(
            "the last run failed: {}: {}",
            failure["title"].as_str().unwrap_or_default(),
            failure["detail"].as_str().unwrap_or_default()
        );
    }
}
