//! `init`: a new project, with contracts inferred from samples where some are given.

use std::path::{Path, PathBuf};

use clap::Args;
use headwater::PROJECT_FILE;
use headwater_schema::Problem;
use headwater_schema::decode::BodyFormat;
use headwater_schema::infer::infer_contract;

use super::{Context, Failure};

#[derive(Args)]
pub struct InitArguments {
    /// The folder to make it in; this one by default.
    folder: Option<PathBuf>,
    /// A sample of facts (NDJSON, JSON, CSV or Parquet) to infer a contract from; may be repeated.
    #[arg(long)]
    from: Vec<PathBuf>,
}

const CONTRACT: &str = include_str!("init/contract.yaml");
const FEATURES: &str = include_str!("init/features.yaml");
const TESTS: &str = include_str!("init/tests.yaml");

/// Makes a project. What is there already is never overwritten.
pub fn run(context: &Context, arguments: &InitArguments) -> Result<(), Failure> {
    let folder = arguments
        .folder
        .clone()
        .unwrap_or_else(|| context.folder.clone());
    let name = name_of(&folder);
    let mut files = vec![(
        PathBuf::from(PROJECT_FILE),
        format!("apiVersion: headwater/v1\nkind: Project\nname: {name}\n"),
    )];
    for sample in &arguments.from {
        files.push(inferred(context, sample)?);
    }
    if arguments.from.is_empty() {
        files.push(("contracts/purchase.yaml".into(), CONTRACT.into()));
        files.push(("features/customers.yaml".into(), FEATURES.into()));
        files.push(("tests/customers.yaml".into(), TESTS.into()));
    }
    if let Some((file, _)) = files
        .iter()
        .find(|(f, _)| context.env.files.exists(&folder.join(f)))
    {
        return Err(Problem::user(
            "already-there",
            format!("{} is there already", folder.join(file).display()),
        )
        .hint("nothing was written; name another folder")
        .into());
    }
    for (file, text) in &files {
        let path = folder.join(file);
        let written = context
            .env
            .files
            .create_dir_all(path.parent().unwrap_or(&folder))
            .and_then(|()| context.env.files.write_atomic(&path, text.as_bytes()));
        written
            .map_err(|e| Problem::external("unwritable", "a file can't be written").detail(e))?;
        println!("{}", path.display());
    }
    let at = if folder == Path::new(".") {
        String::new()
    } else {
        format!(" --project {}", folder.display())
    };
    println!("Next: `headwater{at} check` and `test`, then `apply` and `serve`.");
    Ok(())
}

fn inferred(context: &Context, sample: &Path) -> Result<(PathBuf, String), Failure> {
    let bytes = context.env.files.read(sample).map_err(|e| {
        Problem::user(
            "unreadable-file",
            format!("{} can't be read", sample.display()),
        )
        .detail(e)
    })?;
    let extension = sample
        .extension()
        .and_then(|e| e.to_str())
        .unwrap_or_default();
    let format = BodyFormat::from_extension(extension).ok_or_else(|| {
        Problem::user(
            "unsupported-media-type",
            format!("{} has no known format", sample.display()),
        )
        .hint("its name ends in .ndjson, .json, .csv or .parquet")
    })?;
    let name = name_of(&sample.with_extension(""));
    let text = infer_contract(&name, format, &bytes)?;
    Ok((PathBuf::from(format!("contracts/{name}.yaml")), text))
}

/// The last part of a path as a name: letters, digits and underscores.
fn name_of(path: &Path) -> String {
    let last = match path.file_name() {
        Some(last) => last.to_string_lossy().into_owned(),
        None => std::env::current_dir()
            .ok()
            .and_then(|d| d.file_name().map(|n| n.to_string_lossy().into_owned()))
            .unwrap_or_default(),
    };
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_lowercase()
        } else {
            '_'
        }
    };
    let name: String = last.chars().map(plain).collect();
    match name.chars().next() {
        Some(first) if first.is_ascii_alphabetic() => name,
        _ => format!("project_{name}"),
    }
}
