//! `query`: SQL over what is stored, in the data folder or on a running server; printed, or written to a file.

use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::StreamReader;
use clap::{Args, ValueEnum};
use headwater::{table_format, write_whole};
use headwater_api::backend::QueryRequest;
use headwater_batch::OutputFormat;
use headwater_batch::sql::{Answer, Encoder, Format, SEQUENCE_METADATA};
use headwater_schema::decode::value_to_json;
use headwater_schema::{Problem, Value};
use serde_json::{Value as Json, json};

use super::facts::{known_at, known_at_text, time};
use super::{BY_SIGPIPE, Context, Failure, print};

/// Rows of a table for people, unless they ask for more.
const SHOWN_ROWS: usize = 1000;

#[derive(Args)]
pub struct QueryArguments {
    /// A SELECT, or SHOW TABLES, DESCRIBE, EXPLAIN; `-` reads it from standard input.
    sql: String,
    #[arg(long, value_enum, default_value_t = Shape::Table)]
    format: Shape,
    /// Write a file instead, which is there once it is whole: .parquet, .arrow, .csv, .ndjson or .json.
    #[arg(long, conflicts_with = "format")]
    out: Option<PathBuf>,
    /// Facts of later event times aren't seen.
    #[arg(long)]
    as_of: Option<String>,
    /// A sequence, or an instant: facts as they were known then.
    #[arg(long)]
    known_at: Option<String>,
    /// Rows after which the answer ends; a table ends after 1000 unless this says more.
    #[arg(long)]
    limit: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shape {
    /// For people.
    Table,
    Csv,
    /// One document.
    Json,
    /// A line of JSON per row.
    Ndjson,
    /// An Arrow IPC stream.
    Arrow,
    Parquet,
}

impl Shape {
    fn format(self) -> Option<Format> {
        Some(match self {
            Self::Table => return None,
            Self::Csv => Format::Table(OutputFormat::Csv),
            Self::Json => Format::Json,
            Self::Ndjson => Format::Ndjson,
            Self::Arrow => Format::Table(OutputFormat::ArrowStream),
            Self::Parquet => Format::Table(OutputFormat::Parquet),
        })
    }
}

/// How an answer is written to a file of that name.
fn file_format(out: &Path) -> Result<Format, Problem> {
    let extension = out.extension().and_then(|e| e.to_str()).unwrap_or_default();
    match extension.to_ascii_lowercase().as_str() {
        "json" => Ok(Format::Json),
        "ndjson" | "jsonl" => Ok(Format::Ndjson),
        _ => table_format(out)
            .map(Format::Table)
            .map_err(|p| p.hint("name the file .parquet, .arrow, .csv, .ndjson or .json")),
    }
}

/// Where rows come from.
enum Rows {
    Own(Box<Answer>),
    Remote(Box<StreamReader<BufReader<Box<dyn Read>>>>),
}

impl Rows {
    fn schema(&self) -> SchemaRef {
        match self {
            Self::Own(answer) => answer.schema().clone(),
            Self::Remote(reader) => reader.schema(),
        }
    }

    fn sequence(&self) -> u64 {
        match self {
            Self::Own(answer) => answer.sequence,
            Self::Remote(reader) => {
                let schema = reader.schema();
                let token = schema.metadata().get(SEQUENCE_METADATA);
                token.and_then(|token| token.parse().ok()).unwrap_or(0)
            }
        }
    }

    fn next(&mut self) -> Result<Option<RecordBatch>, Problem> {
        match self {
            Self::Own(answer) => answer.next_and_wait(),
            Self::Remote(reader) => reader.next().transpose().map_err(broke_off),
        }
    }
}

fn broke_off(error: impl std::fmt::Display) -> Problem {
    Problem::external("broke-off", "the server broke the answer off")
        .detail(error)
        .hint("its log says why: the query took too long, or its answer has more than `query.rows_max` rows")
}

/// Asks, and prints or writes what is answered.
pub fn run(context: &Context, arguments: &QueryArguments) -> Result<(), Failure> {
    let shape = match (arguments.format, context.json) {
        (Shape::Table, true) => Shape::Json,
        (shape, _) => shape,
    };
    let format = match &arguments.out {
        Some(out) => Some(file_format(out)?),
        None => shape.format(),
    };
    let mut request = QueryRequest {
        sql: match arguments.sql.as_str() {
            "-" => io::read_to_string(io::stdin())
                .map_err(|e| Problem::user("unreadable", "the query can't be read").detail(e))?,
            sql => sql.to_owned(),
        },
        as_of: arguments.as_of.as_deref().map(time).transpose()?,
        known_at: arguments.known_at.as_deref().map(known_at).transpose()?,
        limit: arguments.limit,
    };
    if format.is_none() && request.limit.is_none() {
        // One more, to tell whether there are more.
        request.limit = Some(SHOWN_ROWS + 1);
    }
    let (_engine, mut rows) = match context.remote()? {
        Some(remote) => {
            let known_at = request.known_at.map(known_at_text);
            let body = json!({"sql": request.sql, "as_of": request.as_of, "known_at": known_at, "limit": request.limit});
            let accept = "application/vnd.apache.arrow.stream";
            let bytes = remote.post_for_bytes("/v1/query", accept, &body)?;
            let bytes: Box<dyn Read> = Box::new(bytes);
            let reader = StreamReader::try_new(BufReader::new(bytes), None).map_err(broke_off)?;
            (None, Rows::Remote(Box::new(reader)))
        }
        None => {
            let engine = context.engine()?;
            let answer = engine.query(&request)?;
            (Some(engine), Rows::Own(Box::new(answer)))
        }
    };
    match (format, &arguments.out) {
        (None, _) => table(&mut rows, arguments.limit),
        (Some(format), None) => {
            encoded(&mut rows, format, &mut hand_on)?;
            Ok(())
        }
        (Some(format), Some(out)) => write(context, &mut rows, format, out),
    }
}

/// Writes rows to a file that takes its place once it is whole.
fn write(context: &Context, rows: &mut Rows, format: Format, out: &Path) -> Result<(), Failure> {
    let sequence = rows.sequence().to_string();
    let count = write_whole(&context.env, out, |file| {
        let count = encoded(rows, format, &mut |bytes| {
            file.write_all(bytes).map_err(unwritable)
        })?;
        Ok(move |_| Ok(count))
    })?;
    match context.json {
        true => print::json(&json!({"rows": count, "out": out, "sequence": sequence})),
        false => println!("{} rows: {}", print::thousands(count as u64), out.display()),
    }
    Ok(())
}

/// Hands rows on as bytes; how many they were.
fn encoded(
    rows: &mut Rows,
    format: Format,
    hand_on: &mut dyn FnMut(&[u8]) -> Result<(), Problem>,
) -> Result<usize, Problem> {
    let mut encoder = Encoder::new(format, &rows.schema(), rows.sequence())?;
    let mut count = 0;
    loop {
        match rows.next() {
            Ok(Some(batch)) => {
                count += batch.num_rows();
                encoder.write(&batch)?;
            }
            Ok(None) => break,
            Err(problem) => {
                encoder.break_off(&json!({"code": problem.code, "title": problem.title, "detail": problem.detail}));
                hand_on(&encoder.take())?;
                return Err(problem);
            }
        }
        hand_on(&encoder.take())?;
    }
    encoder.finish()?;
    hand_on(&encoder.take())?;
    if format == Format::Json {
        hand_on(b"\n")?;
    }
    Ok(count)
}

/// Writes to standard output.
fn hand_on(bytes: &[u8]) -> Result<(), Problem> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(BY_SIGPIPE),
        written => written.map_err(unwritable),
    }
}

fn unwritable(error: io::Error) -> Problem {
    Problem::external("unwritable", "the answer can't be written").detail(error)
}

fn table(rows: &mut Rows, limit: Option<usize>) -> Result<(), Failure> {
    let schema = rows.schema();
    let mut lines: Vec<Vec<String>> = Vec::new();
    while let Some(batch) = rows.next()? {
        for row in 0..batch.num_rows() {
            let cells = batch.columns().iter();
            let cells = cells.map(|column| cell(&Value::from_array(column, row)));
            lines.push(cells.collect());
        }
    }
    let more = limit.is_none() && lines.len() > SHOWN_ROWS;
    if more {
        lines.truncate(SHOWN_ROWS);
    }
    let names: Vec<String> = schema.fields().iter().map(|f| shown(f.name())).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    print::table(&names, &lines);
    if more {
        eprintln!("the first {SHOWN_ROWS} rows; `--limit` shows more, `--format csv` all");
    }
    Ok(())
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "NULL".into(),
        value => match value_to_json(value) {
            Json::String(text) => shown(&text),
            other => shown(&other.to_string()),
        },
    }
}

/// A text on one line, with nothing in it that a terminal would obey.
fn shown(text: &str) -> String {
    let shown = |c: char| match c.is_control() {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    };
    text.chars().map(shown).collect()
}
