//! `score`: a model over all rows of a file, beside the data or by a running server.

use std::io::BufReader;
use std::path::PathBuf;

use arrow::array::RecordBatch;
use arrow::ipc::reader::StreamReader;
use clap::Args;
use headwater::{
    Following, MANIFEST_METADATA, manifest_path, refuse_own_spine, table_format, write_table,
};
use headwater_api::backend::{ScoreRequest, TrainingKnownAt};
use headwater_batch::{ScoreManifest, TableWriter, missing_values, spine_format};
use headwater_schema::Problem;
use headwater_schema::time::format_timestamp;
use serde_json::json;

use super::facts::{known_at, known_at_text, time};
use super::remote::Remote;
use super::{Context, Failure, print};

#[derive(Args)]
pub struct ScoreArguments {
    /// A model.
    #[arg(long)]
    model: String,
    /// A version, or an alias.
    #[arg(long, default_value = "live")]
    version: String,
    /// The rows: .parquet, .arrow, .csv or .ndjson.
    #[arg(long = "in")]
    rows: PathBuf,
    /// Where to write them with the scores: .parquet, .arrow or .csv. Its manifest lies beside it.
    #[arg(long)]
    out: PathBuf,
    /// The rows are the model's own inputs, by its names for them.
    #[arg(long, conflicts_with_all = ["time", "as_of", "inclusive", "known_at", "with_features"])]
    vectors: bool,
    /// The column of the rows' times; as_of by default. Without such a column all rows are read as of now.
    #[arg(long)]
    time: Option<String>,
    /// Read all rows as of this time.
    #[arg(long, conflicts_with = "time")]
    as_of: Option<String>,
    /// Facts at a row's time itself count too. So they do where all rows are read as of one time, unless this is false.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    inclusive: Option<bool>,
    /// A sequence or an instant: what was known then; `arrival`: what had arrived by each row's own time.
    #[arg(long)]
    known_at: Option<String>,
    /// Write the features down too.
    #[arg(long)]
    with_features: bool,
}

/// Scores rows.
pub fn run(context: &Context, arguments: &ScoreArguments) -> Result<(), Failure> {
    let manifest = match context.remote()? {
        Some(remote) => ask(context, &remote, arguments)?,
        None => {
            let engine = context.engine()?;
            engine.write_scores(&arguments.request()?, &arguments.rows, &arguments.out)?
        }
    };
    if context.json {
        print::json(&json!(manifest));
        return Ok(());
    }
    let as_of = manifest.features.as_ref().and_then(|f| f.as_of);
    let as_of = as_of.map(|at| format!(" as of {}", format_timestamp(at)));
    println!(
        "{} rows by {} {}{}: {} and {}",
        print::thousands(manifest.rows.count as u64),
        manifest.model,
        manifest.version,
        as_of.unwrap_or_default(),
        arguments.out.display(),
        manifest_path(&arguments.out).display()
    );
    for warning in &manifest.warnings {
        println!("  {warning}");
    }
    Ok(())
}

impl ScoreArguments {
    fn request(&self) -> Result<ScoreRequest, Problem> {
        Ok(ScoreRequest {
            model: self.model.clone(),
            version: Some(self.version.clone()),
            vectors: self.vectors,
            time: self.time.clone(),
            as_of: self.as_of.as_deref().map(time).transpose()?,
            inclusive: self.inclusive,
            known_at: match self.known_at.as_deref() {
                Some("arrival") => Some(TrainingKnownAt::Arrival),
                Some(text) => Some(TrainingKnownAt::Until(known_at(text)?)),
                None => None,
            },
            with_features: self.with_features,
        })
    }
}

/// What a server is asked with.
fn parameters(request: ScoreRequest) -> Vec<(&'static str, String)> {
    let mut query = Vec::new();
    query.extend(request.version.map(|version| ("version", version)));
    query.extend(request.time.map(|column| ("time", column)));
    query.extend(request.as_of.map(|at| ("as_of", format_timestamp(at))));
    let inclusive = request.inclusive;
    query.extend(inclusive.map(|inclusive| ("inclusive", inclusive.to_string())));
    query.extend(request.known_at.map(|known| match known {
        TrainingKnownAt::Arrival => ("known_at", "arrival".to_owned()),
        TrainingKnownAt::Until(at) => ("known_at", known_at_text(at)),
    }));
    for (name, yes) in [
        ("vectors", request.vectors),
        ("with_features", request.with_features),
    ] {
        query.extend(yes.then(|| (name, "true".to_owned())));
    }
    query
}

/// Has a server score them. What it sends is written as it comes; the manifest comes before the first row.
fn ask(
    context: &Context,
    remote: &Remote,
    arguments: &ScoreArguments,
) -> Result<ScoreManifest, Failure> {
    let format = table_format(&arguments.out)?;
    refuse_own_spine(&context.env, &arguments.rows, &arguments.out)?;
    let extension = arguments.rows.extension().and_then(|e| e.to_str());
    let rows_format = spine_format(extension.unwrap_or_default())?;
    let path = format!("/v1/models/{}/score", arguments.model);
    let query = parameters(arguments.request()?);
    let mut rows = Following::open(&context.env, &arguments.rows)?;
    let answer = remote.post_reader(&path, &query, rows_format.media_type(), &mut rows)?;
    let rows = StreamReader::try_new(BufReader::new(answer), None).map_err(broke_off)?;
    let mut schema = rows.schema().as_ref().clone();
    let manifest = schema.metadata.remove(MANIFEST_METADATA);
    let manifest = ScoreManifest::from_bytes(manifest.unwrap_or_default().as_bytes())?;
    let schema = schema.into();
    let written = write_table(&context.env, &arguments.out, |out| {
        let mut table = TableWriter::new(format, &schema, Box::new(out))?;
        let (mut count, mut missing) = (0, vec![0; manifest.added().count()]);
        for rows in rows {
            let columns = rows.map_err(broke_off)?.columns().to_vec();
            let rows = RecordBatch::try_new(schema.clone(), columns).map_err(broke_off)?;
            let added = rows.num_columns().saturating_sub(missing.len());
            for (missing, column) in missing.iter_mut().zip(&rows.columns()[added..]) {
                *missing += missing_values(column);
            }
            count += rows.num_rows();
            table.write(&rows)?;
        }
        table.finish()?;
        let output = format.as_str().to_owned();
        let manifest = ScoreManifest { output, ..manifest };
        Ok(move |sha256| Ok(manifest.finish(count, missing, sha256)))
    });
    Ok(written?)
}

fn broke_off(error: impl std::fmt::Display) -> Problem {
    Problem::external("broke-off", "the server broke the scores off")
        .detail(error)
        .hint("its log says why")
}
