//! `models`: versions added, listed, promoted, rolled back and removed; on a running server, between two requests.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use headwater::Engine;
use headwater_api::AuditEvent;
use headwater_api::backend::NewVersion;
use headwater_schema::{Problem, human_bytes};
use serde_json::{Value as Json, json};

use super::remote::Remote;
use super::{Context, Failure, print};

#[derive(Subcommand)]
pub enum ModelsVerb {
    /// Add a version: it is read, tried and checked against the model's declaration first.
    Add(AddArguments),
    /// Show models with their versions, and which aliases point at them.
    List(ListArguments),
    /// Let an alias point at a version.
    Promote(PromoteArguments),
    /// Let an alias point where it pointed before.
    Rollback(RollbackArguments),
    /// Let go of a version that no alias points at, and of its file unless another version has the same.
    Remove(RemoveArguments),
}

#[derive(Args)]
pub struct AddArguments {
    model: String,
    /// The model file.
    file: PathBuf,
    /// The version's name; the beginning of the file's SHA-256 by default.
    #[arg(long)]
    version: Option<String>,
    /// Who wrote the file, as in lightgbm; told by the file by default.
    #[arg(long)]
    format: Option<String>,
    /// An alias that is to point at it at once, as in live; may be repeated.
    #[arg(long)]
    alias: Vec<String>,
    #[arg(long)]
    owner: Option<String>,
    #[arg(long)]
    description: Option<String>,
    /// A figure of its training, as in auc=0.91; may be repeated.
    #[arg(long)]
    metric: Vec<String>,
    /// The manifest of its training set.
    #[arg(long)]
    training_set: Option<PathBuf>,
}

#[derive(Args)]
pub struct ListArguments {
    /// One model; all by default.
    model: Option<String>,
}

#[derive(Args)]
pub struct PromoteArguments {
    model: String,
    /// A version, or another alias.
    version: String,
    #[arg(long, default_value = "live")]
    alias: String,
}

#[derive(Args)]
pub struct RollbackArguments {
    model: String,
    #[arg(long, default_value = "live")]
    alias: String,
}

#[derive(Args)]
pub struct RemoveArguments {
    model: String,
    version: String,
}

/// Runs one of the verbs.
pub fn run(context: &Context, verb: ModelsVerb) -> Result<(), Failure> {
    let told = match verb {
        ModelsVerb::Add(arguments) => add(context, &arguments)?,
        ModelsVerb::List(ListArguments { model }) => match context.remote()? {
            Some(remote) => {
                let one = model.map(|model| format!("/{model}"));
                remote.get(&format!("/v1/models{}", one.unwrap_or_default()), &[])?
            }
            None => {
                let engine = context.engine()?;
                let told = engine.models(model.as_deref())?;
                engine.close()?;
                told
            }
        },
        ModelsVerb::Promote(PromoteArguments {
            model,
            version,
            alias,
        }) => act(
            context,
            &model,
            "promote",
            &json!({"version": version, "alias": alias}),
            &format!("{model} {alias} {version}"),
            |engine| engine.promote(&model, &alias, &version),
        )?,
        ModelsVerb::Rollback(RollbackArguments { model, alias }) => act(
            context,
            &model,
            "rollback",
            &json!({ "alias": alias }),
            &format!("{model} {alias}"),
            |engine| engine.rollback(&model, &alias),
        )?,
        ModelsVerb::Remove(RemoveArguments { model, version }) => match context.remote()? {
            Some(remote) => remote.delete(&format!("/v1/models/{model}/versions/{version}"))?,
            None => act_here(context, "remove", &format!("{model} {version}"), |engine| {
                engine.remove_version(&model, &version)
            })?,
        },
    };
    if context.json {
        print::json(&told);
        return Ok(());
    }
    match told["models"].as_array() {
        Some(models) if models.is_empty() => {
            println!("No model is declared: write a document of `kind: Model`.");
        }
        Some(models) => models.iter().for_each(show),
        None => show(&told),
    }
    Ok(())
}

fn read(context: &Context, path: &Path) -> Result<Vec<u8>, Problem> {
    let title = format!("{} can't be read", path.display());
    let read = context.env.files.read(path);
    read.map_err(|e| Problem::user("unreadable-file", title).detail(e))
}

fn add(context: &Context, arguments: &AddArguments) -> Result<Json, Failure> {
    let file = read(context, &arguments.file)?;
    let manifest = match &arguments.training_set {
        None => None,
        Some(path) => {
            let read = serde_json::from_slice(&read(context, path)?);
            let title = format!("{} is no manifest", path.display());
            Some(read.map_err(|e| Problem::user("training-set", title).detail(e))?)
        }
    };
    let metrics = arguments.metric.iter().map(|metric| {
        let read = metric.split_once('=');
        let read = read.and_then(|(name, number)| Some((name.to_owned(), number.parse().ok()?)));
        read.ok_or_else(|| {
            Problem::user("invalid-metric", format!("`{metric}` is no metric"))
                .hint("write it as auc=0.91")
        })
    });
    let new = NewVersion {
        version: arguments.version.clone(),
        format: arguments.format.clone(),
        aliases: arguments.alias.clone(),
        owner: arguments.owner.clone(),
        description: arguments.description.clone(),
        metrics: metrics.collect::<Result<BTreeMap<String, f64>, _>>()?,
        training_set: manifest,
    };
    let model = &arguments.model;
    if let Some(remote) = context.remote()? {
        let details = json!({
            "version": new.version, "format": new.format, "aliases": new.aliases,
            "owner": new.owner, "description": new.description, "metrics": new.metrics,
            "training_set": new.training_set,
        });
        return Ok(send(&remote, model, &details.to_string(), &file)?);
    }
    let target = format!("{model} {}", arguments.file.display());
    act_here(context, "add", &target, |engine| {
        engine.add_model(model, file, &new)
    })
}

/// Sends a model file as it is, behind what is told of it.
fn send(remote: &Remote, model: &str, details: &str, file: &[u8]) -> Result<Json, Problem> {
    let path = format!("/v1/models/{model}/versions");
    let query = [("details_bytes", details.len().to_string())];
    let mut body = details.as_bytes().chain(file);
    let answer = remote.post_reader(&path, &query, "application/octet-stream", &mut body)?;
    serde_json::from_reader(answer).map_err(|e| {
        Problem::external("malformed-reply", "the server's reply can't be read").detail(e)
    })
}

/// Acts on a running server where one is named, else on the data folder, and writes down that it did.
fn act(
    context: &Context,
    model: &str,
    call: &str,
    body: &Json,
    target: &str,
    here: impl FnOnce(&Engine) -> Result<Json, Problem>,
) -> Result<Json, Failure> {
    if let Some(remote) = context.remote()? {
        let path = format!("/v1/models/{model}/{call}");
        return Ok(remote.post(&path, "application/json", body.to_string().as_bytes())?);
    }
    act_here(context, call, target, here)
}

/// Acts on the data folder, and writes down that it did.
fn act_here(
    context: &Context,
    verb: &str,
    target: &str,
    act: impl FnOnce(&Engine) -> Result<Json, Problem>,
) -> Result<Json, Failure> {
    let engine = context.engine()?;
    let told = act(&engine)?;
    engine.close()?;
    let event = AuditEvent::new(super::ACTOR, &format!("models.{verb}"), target, "ok");
    context.audit(&context.config()?).append(&event)?;
    Ok(told)
}

fn show(model: &Json) {
    let text = |json: &Json| json.as_str().unwrap_or_default().to_owned();
    println!(
        "{}, reads {}",
        text(&model["model"]),
        text(&model["feature_set"])
    );
    if let Some(on) = model.get("on") {
        let reason = text(&on["reason"]);
        let state = text(&on["state"]);
        let why = if reason.is_empty() { "" } else { ": " };
        println!(
            "  on facts of {}  {state}{why}{reason}",
            text(&on["contract"])
        );
    }
    for version in model["versions"].as_array().into_iter().flatten() {
        let aliases = version["aliases"].as_array().into_iter().flatten();
        let aliases: Vec<String> = aliases.map(text).collect();
        let metrics = version["metrics"].as_object().into_iter().flatten();
        let metrics: Vec<String> = metrics.map(|(name, m)| format!("{name} {m}")).collect();
        let told = [
            text(&version["version"]),
            text(&version["model_format"]),
            human_bytes(version["bytes"].as_u64().unwrap_or(0)),
            text(&version["state"]),
            aliases.join(", "),
            metrics.join(", "),
        ];
        let told: Vec<&str> = told.iter().map(String::as_str).collect();
        let told: Vec<&str> = told.into_iter().filter(|t| !t.is_empty()).collect();
        println!("  {}", told.join("  "));
        for warning in version["warnings"].as_array().into_iter().flatten() {
            println!("    {}", text(warning));
        }
    }
}
