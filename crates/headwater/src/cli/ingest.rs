//! `ingest`: facts from files, in batches.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use headwater::{Engine, Part, parts_of_lines, read_parts};
use headwater_api::backend::{IngestOptions, IngestReply};
use headwater_schema::Problem;
use headwater_schema::decode::BodyFormat;
use headwater_schema::infer::SeenColumns;
use serde_json::json;

use super::remote::Remote;
use super::{Context, Failure, print};

/// Rejected rows that are shown one by one.
const SHOWN_MAX: usize = 10;

#[derive(Args)]
pub struct IngestArguments {
    /// The contract that the facts keep.
    contract: String,
    /// NDJSON, JSON, CSV or Parquet by their extensions; `-` is NDJSON from standard input.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// `fail`: a file with a bad row is refused as a whole, where it is sent in one part.
    #[arg(long, value_enum, default_value_t = OnReject::Keep)]
    on_reject: OnReject,
    /// Facts whose id is known replace those that are known.
    #[arg(long)]
    revise: bool,
}

impl IngestArguments {
    fn options(&self) -> IngestOptions {
        IngestOptions {
            all_or_nothing: self.on_reject == OnReject::Fail,
            revise: self.revise,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OnReject {
    Keep,
    Fail,
}

/// What all files came to.
#[derive(Default)]
pub(super) struct Total {
    pub accepted: usize,
    pub duplicates: usize,
    pub rejected: usize,
    /// (file, row, field, reason)
    shown: Vec<(String, usize, Option<String>, String)>,
    sequence: u64,
}

impl Total {
    pub fn add(&mut self, file: &str, row_offset: usize, reply: IngestReply) {
        self.accepted += reply.accepted;
        self.duplicates += reply.duplicates;
        self.rejected += reply.rejected.len();
        self.sequence = self.sequence.max(reply.sequence);
        for rejected in reply.rejected {
            if self.shown.len() < SHOWN_MAX {
                let row = row_offset + rejected.row;
                self.shown
                    .push((file.to_owned(), row, rejected.field, rejected.reason));
            }
        }
    }
}

/// Where facts go.
pub(super) enum Target {
    Engine(Box<Engine>),
    Server(Remote),
}

impl Target {
    /// A running server where one is named, else the data folder.
    pub fn open(context: &Context) -> Result<Self, Failure> {
        Ok(match context.remote()? {
            Some(remote) => Self::Server(remote),
            None => Self::Engine(Box::new(context.engine()?)),
        })
    }

    pub fn close(self) -> Result<(), Problem> {
        match self {
            Self::Engine(engine) => engine.close(),
            Self::Server(_) => Ok(()),
        }
    }

    /// Sends a file part by part; `told` hears of each, with the number of its first row and how much
    /// of the file has been read. A file whose header or schema lacks a `required` column is refused before its
    /// first row.
    pub fn send_parts(
        &self,
        context: &Context,
        contract: &str,
        file: &Path,
        revise: bool,
        required: &[String],
        told: &mut dyn FnMut(usize, IngestReply, u64) -> Result<(), Problem>,
    ) -> Result<(), Failure> {
        let options = IngestOptions {
            all_or_nothing: false,
            revise,
        };
        let mut first_row = 0;
        let mut sink = |part: Part| {
            if first_row == 0 && !required.is_empty() {
                refuse_missing(&part, required)?;
            }
            let mut tell = |first_row: usize, reply: IngestReply| {
                let rows = reply.accepted + reply.duplicates + reply.rejected.len();
                told(first_row, reply, part.read_bytes).map(|()| rows)
            };
            match self {
                Self::Engine(engine) => {
                    let (mut rows, mut failed) = (0, Ok(()));
                    engine.ingest_each(contract, part.format, &part.body, revise, |reply| {
                        match tell(first_row, reply) {
                            Ok(told) => rows += told,
                            Err(problem) => failed = Err(problem),
                        }
                    })?;
                    first_row += rows;
                    failed
                }
                Self::Server(_) => {
                    let reply = self.send(contract, part.format, &part.body, options)?;
                    first_row += tell(first_row, reply)?;
                    Ok(())
                }
            }
        };
        match file == Path::new("-") {
            true => parts_of_lines(&read(context, file)?, &mut sink)?,
            false => read_parts(&context.env, file, format_of(file)?, &mut sink)?,
        }
        Ok(())
    }

    fn send(
        &self,
        contract: &str,
        format: BodyFormat,
        body: &[u8],
        options: IngestOptions,
    ) -> Result<IngestReply, Problem> {
        match self {
            Self::Engine(engine) => engine.ingest(contract, format, body, options),
            Self::Server(remote) => {
                let query = match (options.all_or_nothing, options.revise) {
                    (false, false) => "",
                    (true, false) => "?on_reject=fail",
                    (false, true) => "?revise=true",
                    (true, true) => "?on_reject=fail&revise=true",
                };
                let path = format!("/v1/facts/{contract}{query}");
                let reply = remote.post(&path, format.media_type(), body)?;
                Ok(read_reply(&reply))
            }
        }
    }
}

/// Refuses a part whose header or schema lacks required columns: no row of it could become a fact.
fn refuse_missing(part: &Part, required: &[String]) -> Result<(), Problem> {
    if matches!(part.format, BodyFormat::Json | BodyFormat::Ndjson) {
        return Ok(());
    }
    let mut seen = SeenColumns::default();
    seen.see(part.format, &part.body)?;
    let columns = seen.fields();
    let has = |name: &str| columns.iter().any(|column| *column.name == *name);
    let missing = required.iter().filter(|name| !has(name));
    let missing: Vec<&str> = missing.map(String::as_str).collect();
    if missing.is_empty() || columns.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = columns.iter().map(|column| column.name.as_ref()).collect();
    Err(Problem::user(
        "missing-columns",
        "the file lacks columns that every fact has",
    )
    .detail(format!(
        "{}; it has: {}",
        missing.join(", "),
        names.join(", ")
    ))
    .hint("name them as the contract does; the first line of CSV names the columns"))
}

fn read_reply(reply: &serde_json::Value) -> IngestReply {
    let count = |name: &str| reply[name].as_u64().unwrap_or(0) as usize;
    let rejected = reply["rejected"].as_array().into_iter().flatten();
    IngestReply {
        accepted: count("accepted"),
        duplicates: count("duplicates"),
        rejected: rejected
            .map(|r| headwater_api::backend::RejectedFact {
                row: r["row"].as_u64().unwrap_or(0) as usize,
                field: r["field"].as_str().map(str::to_owned),
                reason: r["reason"].as_str().unwrap_or_default().to_owned(),
            })
            .collect(),
        sequence: reply["sequence"]
            .as_str()
            .and_then(|s| s.parse().ok())
            .unwrap_or(0),
    }
}

/// Sends every file.
pub fn run(context: &Context, arguments: &IngestArguments) -> Result<(), Failure> {
    let target = Target::open(context)?;
    let mut total = Total::default();
    let start = context.env.clock.monotonic_nanos();
    for file in &arguments.files {
        send_file(context, &target, arguments, file, &mut total)?;
    }
    let seconds = (context.env.clock.monotonic_nanos() - start) as f64 / 1e9;
    target.close()?;
    report(context, &total, seconds);
    let nothing_taken = total.accepted == 0 && total.duplicates == 0;
    if total.rejected > 0 && (nothing_taken || arguments.on_reject == OnReject::Fail) {
        return Err(Failure::Told);
    }
    Ok(())
}

pub(super) fn report(context: &Context, total: &Total, seconds: f64) {
    if context.json {
        let shown: Vec<_> = total
            .shown
            .iter()
            .map(|(file, row, field, reason)| json!({"file": file, "row": row, "field": field, "reason": reason}))
            .collect();
        print::json(&json!({
            "accepted": total.accepted, "duplicates": total.duplicates, "rejected": total.rejected,
            "first_rejected": shown, "sequence": total.sequence.to_string(), "seconds": seconds,
        }));
        return;
    }
    println!(
        "{} accepted, {} duplicates, {} rejected, in {seconds:.2} s",
        print::thousands(total.accepted as u64),
        print::thousands(total.duplicates as u64),
        print::thousands(total.rejected as u64)
    );
    for (file, row, field, reason) in &total.shown {
        let field = field
            .as_ref()
            .map(|f| format!(" `{f}`"))
            .unwrap_or_default();
        eprintln!("  rejected: {file}, row {row}{field}: {reason}");
    }
    if total.rejected > total.shown.len() {
        eprintln!(
            "  … and {} more; see `headwater facts quarantine`",
            total.rejected - total.shown.len()
        );
    }
}

fn send_file(
    context: &Context,
    target: &Target,
    arguments: &IngestArguments,
    file: &Path,
    total: &mut Total,
) -> Result<(), Failure> {
    let name = file.display().to_string();
    let options = arguments.options();
    let all_or_nothing = options.all_or_nothing;
    let contract = &arguments.contract;
    if all_or_nothing {
        let bytes = read(context, file)?;
        let reply = target.send(contract, format_of(file)?, &bytes, options)?;
        total.add(&name, 0, reply);
        return Ok(());
    }
    target.send_parts(
        context,
        contract,
        file,
        options.revise,
        &[],
        &mut |row, reply, _| {
            total.add(&name, row, reply);
            Ok(())
        },
    )
}

fn read(context: &Context, file: &Path) -> Result<Vec<u8>, Failure> {
    if file == Path::new("-") {
        let mut bytes = Vec::new();
        return match std::io::stdin().read_to_end(&mut bytes) {
            Ok(_) => Ok(bytes),
            Err(e) => Err(
                Problem::external("unreadable-file", "standard input can't be read")
                    .detail(e)
                    .into(),
            ),
        };
    }
    let read = context.env.files.read(file);
    Ok(read.map_err(|e| {
        Problem::user(
            "unreadable-file",
            format!("{} can't be read", file.display()),
        )
        .detail(e)
    })?)
}

pub(super) fn format_of(file: &Path) -> Result<BodyFormat, Failure> {
    if file == Path::new("-") {
        return Ok(BodyFormat::Ndjson);
    }
    let extension = file
        .extension()
        .and_then(|e| e.to_str())
        .unwrap_or_default();
    BodyFormat::from_extension(extension).ok_or_else(|| {
        Problem::user(
            "unsupported-media-type",
            format!("{} has no known format", file.display()),
        )
        .hint("its name ends in .ndjson, .json, .csv, .parquet or .arrow")
        .into()
    })
}
