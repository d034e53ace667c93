//! `import`: the history that lies in files of a data lake becomes facts. What is known already adds
//! nothing, so an import that was cut off is simply run again.

use std::path::{Path, PathBuf};

use clap::Args;
use headwater_env::AppendFile;
use headwater_schema::decode::BodyFormat;
use headwater_schema::{Problem, human_bytes};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value as Json, json};

use super::ingest::{Target, Total, report};
use super::{Context, Failure, print};

/// Files of one import.
const FILES_MAX: usize = 1_000_000;
/// A line tells how far it is, this often, where nobody looks at a terminal.
const TOLD_EVERY_NANOS: u64 = 5_000_000_000;

#[derive(Args)]
pub struct ImportArguments {
    /// The contract that the facts keep; it has to name what identifies a fact.
    contract: String,
    /// Parquet, CSV, NDJSON, JSON and Arrow files, and folders of them; names that begin with `_` or `.`
    /// are passed by.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Write every rejected row to this file, one JSON object with file, row, field and reason a line.
    #[arg(long)]
    rejected: Option<PathBuf>,
}

/// Imports every file, in the order of their paths.
pub fn run(context: &Context, arguments: &ImportArguments) -> Result<(), Failure> {
    let mut files = Vec::new();
    for path in &arguments.paths {
        collect(context, path, true, &mut files)?;
    }
    if files.is_empty() {
        return Err(Problem::user("no-files", "there is nothing to import")
            .hint("names end in .parquet, .csv, .ndjson, .json or .arrow")
            .into());
    }
    let target = Target::open(context)?;
    let required = check_ids(&target, &arguments.contract)?;
    let mut import = Import::new(context, arguments.rejected.as_deref(), &files)?;
    for (file, bytes) in &files {
        let name = file.display().to_string();
        let sent = target.send_parts(
            context,
            &arguments.contract,
            file,
            false,
            &required,
            &mut |row, reply, read| import.told(&name, row, reply, read),
        );
        if let Err(failure) = sent {
            import.bar.finish_and_clear();
            return Err(stopped(failure, &name));
        }
        import.bytes_done += bytes;
    }
    target.close()?;
    import.finish(context)
}

/// What stopped it, with the file it is about.
fn stopped(failure: Failure, file: &str) -> Failure {
    match failure {
        Failure::Problems(problems) => Failure::Problems(
            problems
                .into_iter()
                .map(|problem| about(problem, file))
                .collect(),
        ),
        told => told,
    }
}

fn about(mut problem: Problem, file: &str) -> Problem {
    problem.detail = format!("{file}: {}", problem.detail);
    problem
}

/// The files at a path, each with its size, in the order of their names.
fn collect(
    context: &Context,
    path: &Path,
    named: bool,
    files: &mut Vec<(PathBuf, u64)>,
) -> Result<(), Problem> {
    let env = &context.env.files;
    let unreadable = |e: headwater_env::FileError| {
        Problem::user(
            "unreadable-file",
            format!("{} can't be read", path.display()),
        )
        .detail(e)
    };
    if env.is_dir(path) {
        let mut inside = env.list(path).map_err(unreadable)?;
        inside.sort();
        for path in inside {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if !name.starts_with(['_', '.']) {
                collect(context, &path, false, files)?;
            }
        }
        return Ok(());
    }
    if !env.exists(path) {
        let title = format!("there is no {}", path.display());
        return Err(
            Problem::user("unreadable-file", title).hint("name a file or a folder that is there")
        );
    }
    let extension = path.extension().and_then(|e| e.to_str());
    if extension.and_then(BodyFormat::from_extension).is_none() {
        return match named {
            true => super::ingest::format_of(path).map(drop).map_err(first),
            false => Ok(()),
        };
    }
    if files.len() >= FILES_MAX {
        return Err(Problem::user("too-many-files", "there are too many files")
            .detail(format!("one import takes {FILES_MAX}"))
            .hint("import folder by folder"));
    }
    let opened = env.open_read(path).map_err(unreadable)?;
    files.push((path.to_owned(), opened.length().map_err(unreadable)?));
    Ok(())
}

fn first(failure: Failure) -> Problem {
    let none = || Problem::internal("import", "a file's format isn't known");
    match failure {
        Failure::Problems(problems) => problems.into_iter().next().unwrap_or_else(none),
        Failure::Told => none(),
    }
}

/// Refuses a contract without ids, and warns where they are forgotten: what is imported twice would
/// count twice. The names of the columns that every fact has.
fn check_ids(target: &Target, contract: &str) -> Result<Vec<String>, Problem> {
    let document = match target {
        Target::Engine(engine) => {
            let catalog = engine.catalog();
            let found = catalog.contract(contract);
            let found = found.ok_or_else(|| {
                Problem::user(
                    "unknown-contract",
                    format!("there is no contract `{contract}`"),
                )
                .hint("apply the project that defines it, or mend the name")
            })?;
            found.source.clone()
        }
        Target::Server(remote) => remote.get(&format!("/v1/registry/contracts/{contract}"), &[])?,
    };
    if property(&document, contract, "headwater.factId").is_none() {
        return Err(Problem::user("no-fact-id", format!("`{contract}` has no fact id"))
            .detail("what is imported again couldn't be told from new facts")
            .hint("add `headwater.factId` to the contract, or send the files once with `headwater ingest`"));
    }
    if let Some(window) = property(&document, contract, "headwater.dedupWindow") {
        eprintln!(
            "warning: `{contract}` remembers ids for {}: importing the same again later than that counts it twice",
            window.as_str().unwrap_or("a while")
        );
    }
    Ok(required(&document, contract))
}

/// The names of a contract's required columns, wherever in a document they are said.
fn required(document: &Json, contract: &str) -> Vec<String> {
    match document {
        Json::Array(items) => items.iter().flat_map(|i| required(i, contract)).collect(),
        Json::Object(members) if members.get("name").and_then(Json::as_str) == Some(contract) => {
            let columns = members.get("properties").and_then(Json::as_array);
            let columns = columns.into_iter().flatten();
            let required = columns.filter(|column| column["required"] == true);
            let names = required.filter_map(|column| column["name"].as_str());
            names.map(str::to_owned).collect()
        }
        Json::Object(members) => {
            let inner = members.values();
            inner.flat_map(|inner| required(inner, contract)).collect()
        }
        _ => Vec::new(),
    }
}

/// The value of a custom property of a contract, somewhere within a document.
fn property<'a>(document: &'a Json, contract: &str, name: &str) -> Option<&'a Json> {
    match document {
        Json::Array(items) => items.iter().find_map(|item| property(item, contract, name)),
        Json::Object(members) => {
            let own = members.get("name").and_then(Json::as_str) == Some(contract);
            let list = members.get("customProperties").and_then(Json::as_array);
            let listed = list.filter(|_| own).into_iter().flatten();
            let mut named = listed.filter(|item| item["property"] == name);
            named
                .next()
                .map(|item| &item["value"])
                .or_else(|| members.values().find_map(|m| property(m, contract, name)))
        }
        _ => None,
    }
}

/// How an import goes.
struct Import {
    env: headwater::Env,
    total: Total,
    bar: ProgressBar,
    start: u64,
    told_at: u64,
    bytes_done: u64,
    bytes: u64,
    files: usize,
    rejected: Option<Box<dyn AppendFile>>,
}

fn unwritable(error: headwater_env::FileError) -> Problem {
    Problem::external(
        "unwritable-file",
        "the file of rejected rows can't be written",
    )
    .detail(error)
}

impl Import {
    fn new(
        context: &Context,
        rejected: Option<&Path>,
        files: &[(PathBuf, u64)],
    ) -> Result<Self, Problem> {
        let open = |path: &Path| {
            let mut file = context.env.files.open_append(path).map_err(unwritable)?;
            file.truncate(0).map_err(unwritable)?;
            Ok::<_, Problem>(file)
        };
        let bytes = files.iter().map(|(_, bytes)| bytes).sum();
        let bar = ProgressBar::new(bytes);
        let style = "[{wide_bar}] {bytes}/{total_bytes}, {msg}";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        let start = context.env.clock.monotonic_nanos();
        Ok(Self {
            env: context.env.clone(),
            total: Total::default(),
            bar,
            start,
            told_at: start,
            bytes_done: 0,
            bytes,
            files: files.len(),
            rejected: rejected.map(open).transpose()?,
        })
    }

    /// Counts what became of a part.
    fn told(
        &mut self,
        file: &str,
        first_row: usize,
        reply: headwater_api::backend::IngestReply,
        read: u64,
    ) -> Result<(), Problem> {
        if let Some(out) = &mut self.rejected {
            let lines = reply.rejected.iter().map(|r| {
                let row = first_row + r.row;
                let line = json!({"file": file, "row": row, "field": r.field, "reason": r.reason});
                format!("{line}\n")
            });
            out.append(lines.collect::<String>().as_bytes())
                .map_err(unwritable)?;
        }
        self.total.add(file, first_row, reply);
        let done = self.bytes_done + read;
        self.bar.set_position(done);
        let facts = print::thousands(self.total.accepted as u64);
        self.bar.set_message(format!("{facts} new facts"));
        let now = self.env.clock.monotonic_nanos();
        if self.bar.is_hidden() && now.saturating_sub(self.told_at) >= TOLD_EVERY_NANOS {
            self.told_at = now;
            let (done, all) = (human_bytes(done), human_bytes(self.bytes));
            eprintln!("{done} of {all}, {facts} new facts");
        }
        Ok(())
    }

    fn finish(mut self, context: &Context) -> Result<(), Failure> {
        self.bar.finish_and_clear();
        if let Some(out) = &mut self.rejected {
            out.sync().map_err(unwritable)?;
        }
        let seconds = (self.env.clock.monotonic_nanos() - self.start) as f64 / 1e9;
        if !context.json {
            println!("{} files, {}", self.files, human_bytes(self.bytes));
        }
        report(context, &self.total, seconds);
        if self.total.accepted + self.total.duplicates == 0 {
            return Err(Problem::user("nothing-imported", "no row became a fact")
                .detail(format!("{} rows were rejected", self.total.rejected))
                .hint("`headwater facts quarantine` and `--rejected` tell why")
                .into());
        }
        Ok(())
    }
}
