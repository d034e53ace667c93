//! `bundle`: a model and what is known of some entities, in one file for a process or a device without a server.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use headwater_api::backend::{BundleRequest, EntityRequest};
use headwater_api::{BundleBody, BundledHistory, entity_request};
use headwater_edge::limits::{BUNDLE_BYTES_MAX, BUNDLED_ENTITIES_MAX};
use headwater_schema::{Problem, human_bytes};
use serde_json::{Value as Json, json};

use super::facts::entity;
use super::features::{entity_json, read_keys_as_typed};
use super::remote::Remote;
use super::{Context, Failure, print};

#[derive(Args)]
pub struct BundleArguments {
    /// The model.
    #[arg(long)]
    model: String,
    /// A version of it, or an alias.
    #[arg(long, default_value = "live")]
    version: String,
    /// The model's feature set, to be checked: it is always the model's own.
    #[arg(long)]
    set: Option<String>,
    /// Whom it will be asked for: as in plane=N14228 or route=origin:EWR,dest:IAH, or a file with an object of JSON per
    /// line, as requests name entities; several may follow.
    #[arg(long, required = true, num_args = 1..)]
    entities: Vec<String>,
    /// How old the facts may be that go along: as old as the views' states hold them one by one, or all that are kept.
    #[arg(long, value_enum, default_value = "recent")]
    history: History,
    /// The file to make.
    #[arg(long)]
    out: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum History {
    Recent,
    All,
}

/// Makes a bundle.
pub fn run(context: &Context, arguments: &BundleArguments) -> Result<(), Failure> {
    let mut entities = Vec::new();
    for given in &arguments.entities {
        match given.contains('=') {
            true => entities.push(entity(given)?),
            false => read_entities(context, Path::new(given), &mut entities)?,
        }
    }
    let rows = entities.len();
    let bytes = match context.remote()? {
        Some(remote) => {
            read_keys_as_typed(&remote, &mut entities)?;
            from_server(&remote, arguments, &entities)?
        }
        None => from_data(context, arguments, entities)?,
    };
    // Read as a device will read it.
    let about = headwater_edge::Edge::open(&bytes)?.about();
    let written = context.env.files.write_atomic(&arguments.out, &bytes);
    written.map_err(|e| {
        let title = format!("{} can't be written", arguments.out.display());
        Problem::external("unwritable-file", title).detail(e)
    })?;
    if context.json {
        print::json(&json!({
            "out": arguments.out.display().to_string(),
            "bytes": bytes.len(),
            "model": about.head.model,
            "version": about.head.version,
            "sequence": about.head.sequence.to_string(),
            "entities": about.entities,
        }));
        return Ok(());
    }
    println!(
        "{}: {} version {}, what is known of {} entities of {rows} rows, as of sequence {}; {}",
        arguments.out.display(),
        about.head.model,
        about.head.version,
        about.entities,
        about.head.sequence,
        human_bytes(bytes.len() as u64),
    );
    Ok(())
}

fn from_server(
    remote: &Remote,
    arguments: &BundleArguments,
    entities: &[EntityRequest],
) -> Result<Vec<u8>, Problem> {
    let body = json!(BundleBody {
        entities: entities.iter().map(entity_json).collect(),
        version: Some(arguments.version.clone()),
        feature_set: arguments.set.clone(),
        history: match arguments.history {
            History::All => BundledHistory::All,
            History::Recent => BundledHistory::Recent,
        },
    });
    let path = format!("/v1/models/{}/bundle", arguments.model);
    let answer = remote.post_for_bytes(&path, headwater_api::BUNDLE, &body)?;
    let mut bytes = Vec::new();
    let mut answer = answer.take(BUNDLE_BYTES_MAX as u64 + 1);
    let read = answer.read_to_end(&mut bytes);
    read.map_err(|e| Problem::external("unreachable", "the answer broke off").detail(e))?;
    Ok(bytes)
}

fn from_data(
    context: &Context,
    arguments: &BundleArguments,
    mut entities: Vec<EntityRequest>,
) -> Result<Vec<u8>, Failure> {
    let engine = context.engine()?;
    for entity in &mut entities {
        engine.read_keys_as_typed(entity);
    }
    let made = engine.bundle(&BundleRequest {
        model: arguments.model.clone(),
        version: Some(arguments.version.clone()),
        feature_set: arguments.set.clone(),
        entities,
        all_history: arguments.history == History::All,
    });
    engine.close()?;
    Ok(made?)
}

fn read_entities(
    context: &Context,
    path: &Path,
    entities: &mut Vec<EntityRequest>,
) -> Result<(), Problem> {
    let unreadable = |detail: String| {
        let title = format!("entities can't be read from {}", path.display());
        Problem::user("unreadable-file", title)
            .detail(detail)
            .hint("write one object of JSON per line, as in {\"plane\": \"N14228\"}; or name them as in plane=N14228")
    };
    let bytes = context.env.files.read(path);
    let bytes = bytes.map_err(|e| unreadable(e.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|e| unreadable(e.to_string()))?;
    for (number, line) in text
        .lines()
        .enumerate()
        .filter(|(_, l)| !l.trim().is_empty())
    {
        let at =
            |detail: &dyn std::fmt::Display| unreadable(format!("line {}: {detail}", number + 1));
        let row: BTreeMap<String, Json> = serde_json::from_str(line).map_err(|e| at(&e))?;
        entities.push(entity_request(&row).map_err(|e| at(&e))?);
        if entities.len() > BUNDLED_ENTITIES_MAX {
            return Err(at(&format!("more than {BUNDLED_ENTITIES_MAX} rows")));
        }
    }
    Ok(())
}
