//! `training-set`: beside the data, or by a running server.

use std::io::BufReader;
use std::path::PathBuf;

use arrow::array::RecordBatch;
use arrow::ipc::reader::StreamReader;
use clap::Args;
use headwater::{
    Following, MANIFEST_METADATA, manifest_path, refuse_changes, refuse_other_bytes,
    refuse_own_spine, request_of, table_format, write_table,
};
use headwater_api::backend::{Names, TrainingKnownAt, TrainingSetRequest};
use headwater_batch::{Manifest, TableWriter, spine_format};
use headwater_schema::Problem;
use headwater_schema::time::format_timestamp;
use serde_json::json;

use super::facts::{known_at, known_at_text, time};
use super::progress::ProgressDisplay;
use super::remote::Remote;
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
    let manifest = match context.remote()? {
        Some(remote) => ask(context, &remote, arguments)?,
        None => make(context, arguments)?,
    };
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

impl TrainingSetArguments {
    /// What is to be made, with the manifest of what is to be made again.
    fn asked(&self, context: &Context) -> Result<(TrainingSetRequest, Option<Manifest>), Problem> {
        let Some(path) = &self.manifest else {
            return Ok((self.request()?, None));
        };
        let unreadable =
            |e| Problem::user("unreadable-file", "the manifest can't be read").detail(e);
        let bytes = context.env.files.read(path).map_err(unreadable)?;
        let again = Manifest::from_bytes(&bytes)?;
        Ok((request_of(&again), Some(again)))
    }

    fn request(&self) -> Result<TrainingSetRequest, Problem> {
        Ok(TrainingSetRequest {
            names: match &self.set {
                Some(set) => Names::Set(set.clone()),
                None => Names::List(self.feature.clone()),
            },
            inclusive: self.inclusive,
            known_at: match self.known_at.as_deref() {
                Some("arrival") => Some(TrainingKnownAt::Arrival),
                Some(text) => Some(TrainingKnownAt::Until(known_at(text)?)),
                None => None,
            },
            facts_until: None,
            time: self.time.clone(),
            labels: self.label.clone(),
            labels_as_of: self.labels_as_of.as_deref().map(time).transpose()?,
        })
    }
}

fn make(context: &Context, arguments: &TrainingSetArguments) -> Result<Manifest, Failure> {
    let (request, again) = arguments.asked(context)?;
    let engine = context.engine()?;
    let (spine, out) = (&arguments.spine, &arguments.out);
    let display = ProgressDisplay::new(context.json);
    let hook = display.hook();
    Ok(engine.write_training_set(&request, spine, out, again.as_ref(), &hook)?)
}

/// Has a server make it. What it sends is written as it comes; the manifest comes before the first row.
fn ask(
    context: &Context,
    remote: &Remote,
    arguments: &TrainingSetArguments,
) -> Result<Manifest, Failure> {
    let format = table_format(&arguments.out)?;
    refuse_own_spine(&context.env, &arguments.spine, &arguments.out)?;
    let extension = arguments.spine.extension().and_then(|e| e.to_str());
    let spine_format = spine_format(extension.unwrap_or_default())?;
    let (request, again) = arguments.asked(context)?;
    let mut query = vec![
        ("time", request.time),
        ("inclusive", request.inclusive.to_string()),
    ];
    query.push(match request.names {
        Names::Set(set) => ("feature_set", set),
        Names::List(features) => ("features", features.join(",")),
    });
    query.extend(request.known_at.map(|known| match known {
        TrainingKnownAt::Arrival => ("known_at", "arrival".to_owned()),
        TrainingKnownAt::Until(at) => ("known_at", known_at_text(at)),
    }));
    if !request.labels.is_empty() {
        query.push(("labels", request.labels.join(",")));
    }
    let until = request.facts_until.map(|n| n.to_string());
    query.extend(until.map(|n| ("facts_until", n)));
    let as_of = request.labels_as_of.map(format_timestamp);
    query.extend(as_of.map(|at| ("labels_as_of", at)));
    let mut spine = Following::open(&context.env, &arguments.spine)?;
    let media_type = spine_format.media_type();
    let answer = remote.post_reader("/v1/training-sets", &query, media_type, &mut spine)?;
    let rows = StreamReader::try_new(BufReader::new(answer), None).map_err(broke_off)?;
    let mut schema = rows.schema().as_ref().clone();
    let manifest = schema.metadata.remove(MANIFEST_METADATA);
    let manifest = Manifest::from_bytes(manifest.unwrap_or_default().as_bytes())?;
    if let Some(again) = &again {
        refuse_changes(&manifest, again)?;
    }
    let schema = schema.into();
    let written = write_table(&context.env, &arguments.out, |out| {
        let mut table = TableWriter::new(format, &schema, Box::new(out))?;
        let mut nulls = vec![0; manifest.features.len() + manifest.labels.len()];
        for rows in rows {
            let columns = rows.map_err(broke_off)?.columns().to_vec();
            let rows = RecordBatch::try_new(schema.clone(), columns).map_err(broke_off)?;
            let added = rows.num_columns().saturating_sub(nulls.len());
            for (nulls, column) in nulls.iter_mut().zip(&rows.columns()[added..]) {
                *nulls += column.null_count();
            }
            table.write(&rows)?;
        }
        table.finish()?;
        let output = format.as_str().to_owned();
        Ok(move |sha256| {
            let manifest = Manifest { output, ..manifest }.finish(nulls, sha256);
            if let Some(again) = &again {
                refuse_other_bytes(&manifest, again)?;
            }
            Ok(manifest)
        })
    });
    Ok(written?)
}

fn broke_off(error: impl std::fmt::Display) -> Problem {
    Problem::external("broke-off", "the server broke the training set off")
        .detail(error)
        .hint("its log says why")
}
