//! `training-set`.

use std::path::PathBuf;

use clap::Args;
use headwater::{manifest_path, request_of};
use headwater_api::backend::{Names, TrainingKnownAt, TrainingSetRequest};
use headwater_batch::{Manifest, spine_format};
use headwater_schema::Problem;
use serde_json::json;

use super::facts::{known_at, time};
use super::{Context, Failure, print};

#[derive(Args)]
pub struct TrainingSetArguments {
    /// A feature set.
    #[arg(long, conflicts_with = "feature", required_unless_present_any = ["feature", "manifest"])]
    set: Option<String>,
    /// A feature's full name, as in plane_delays.mean_delay_2h; may be repeated.
    #[arg(long)]
    feature: Vec<String>,
    /// Rows of keys and times: .parquet, .arrow, .csv or .ndjson.
    #[arg(long)]
    spine: PathBuf,
    /// Where to write it: .parquet, .arrow or .csv. Its manifest lies beside it.
    #[arg(long)]
    out: PathBuf,
    /// The spine's time column.
    #[arg(long, default_value = "as_of")]
    time: String,
    /// Facts at a row's time itself count too.
    #[arg(long)]
    inclusive: bool,
    /// A sequence or an instant: what was known then; `arrival`: what had arrived by each row's own time.
    #[arg(long)]
    known_at: Option<String>,
    /// A label to add; may be repeated.
    #[arg(long)]
    label: Vec<String>,
    /// When the labels are looked at: those whose horizon hasn't come by then are null. Now by default.
    #[arg(long, requires = "label")]
    labels_as_of: Option<String>,
    /// The manifest of a training set to make again.
    #[arg(long, conflicts_with_all = ["set", "feature", "inclusive", "known_at", "label"])]
    manifest: Option<PathBuf>,
}

/// Makes a training set.
pub fn run(context: &Context, arguments: &TrainingSetArguments) -> Result<(), Failure> {
    if context.server.is_some() {
        return Err(
            Problem::user("not-available", "a server makes training sets over HTTP")
                .hint("POST the spine to /v1/training-sets, or leave `--server` out")
                .into(),
        );
    }
    let read =
        |path: &PathBuf, what: &str| {
            context.env.files.read(path).map_err(|e| {
                Problem::user("unreadable", format!("the {what} can't be read")).detail(e)
            })
        };
    let extension = arguments.spine.extension().and_then(|e| e.to_str());
    let format = spine_format(extension.unwrap_or_default())?;
    let spine = read(&arguments.spine, "spine")?;
    let again = arguments.manifest.as_ref();
    let again = again.map(|path| Manifest::from_bytes(&read(path, "manifest")?));
    let again = again.transpose()?;
    let request = match &again {
        Some(manifest) => request_of(manifest),
        None => TrainingSetRequest {
            names: match &arguments.set {
                Some(set) => Names::Set(set.clone()),
                None => Names::List(arguments.feature.clone()),
            },
            inclusive: arguments.inclusive,
            known_at: match arguments.known_at.as_deref() {
                Some("arrival") => Some(TrainingKnownAt::Arrival),
                Some(text) => Some(TrainingKnownAt::Until(known_at(text)?)),
                None => None,
            },
            time: arguments.time.clone(),
            labels: arguments.label.clone(),
            labels_as_of: arguments.labels_as_of.as_deref().map(time).transpose()?,
        },
    };
    let engine = context.engine()?;
    let manifest =
        engine.write_training_set(&request, format, &spine, &arguments.out, again.as_ref())?;
    if context.json {
        print::json(&json!(manifest));
    } else {
        println!(
            "{} rows, {} features, {} labels: {} and {}",
            print::thousands(manifest.spine.rows as u64),
            manifest.features.len(),
            manifest.labels.len(),
            arguments.out.display(),
            manifest_path(&arguments.out).display()
        );
    }
    Ok(())
}
