//! DataFusion's errors as problems: what is wrong with a query and where, without what lies behind it.

use datafusion::common::DataFusionError;
use datafusion::common::SchemaError;
use headwater_schema::{Location, Problem};

/// How a query's text is called where a problem says where it is.
const FILE: &str = "query";

/// A problem on its way through DataFusion.
pub fn through(problem: Problem) -> DataFusionError {
    DataFusionError::External(Box::new(problem))
}

/// What went wrong with a query.
pub fn query_problem(error: &DataFusionError) -> Problem {
    let root = error.find_root();
    let problem = match root {
        DataFusionError::External(inner) => match inner.downcast_ref::<Problem>() {
            Some(problem) => return problem.clone(),
            None => Problem::internal("query", "the query failed").detail(inner),
        },
        DataFusionError::ResourcesExhausted(_) => Problem::user(
            "query-too-large",
            "the query takes too much memory or disk",
        )
        .detail("what it sorts, joins or groups doesn't fit into what queries may take")
        .hint("read less of it, or raise `query.memory_bytes_max` and `query.spill_bytes_max`"),
        DataFusionError::SQL(parser, _) => {
            Problem::user("invalid-query", "the query can't be understood")
                .detail(without_prefix(&parser.to_string()))
        }
        DataFusionError::SchemaError(schema, _) => {
            let problem = Problem::user("invalid-query", "the query is wrong");
            let problem = problem.detail(first_line(&schema.to_string()));
            match schema.as_ref() {
                SchemaError::FieldNotFound { .. } => {
                    problem.hint("DESCRIBE a table to see its columns; names keep their case")
                }
                _ => problem,
            }
        }
        DataFusionError::Plan(text)
        | DataFusionError::NotImplemented(text)
        | DataFusionError::Configuration(text) => {
            Problem::user("invalid-query", "the query is wrong").detail(first_line(text))
        }
        DataFusionError::Execution(text) => failed(text),
        DataFusionError::ArrowError(inner, _) => failed(&inner.to_string()),
        other => Problem::internal("query", "the query failed").detail(other),
    };
    located(problem.field("sql"), error)
}

/// A query that is well-formed and met a value that it can't go on with.
fn failed(text: &str) -> Problem {
    Problem::user("query-failed", "the query can't go on").detail(first_line(text))
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

fn without_prefix(text: &str) -> &str {
    let prefixes = ["sql parser error: ", "SQL error: "];
    let found = prefixes.iter().find_map(|prefix| text.strip_prefix(prefix));
    found.unwrap_or(text)
}

/// Adds where in the text it is and what DataFusion advises.
fn located(mut problem: Problem, error: &DataFusionError) -> Problem {
    if let Some(diagnostic) = error.diagnostic() {
        let advice = diagnostic.notes.iter().map(|note| note.message.as_str());
        let advice = advice.chain(diagnostic.helps.iter().map(|help| help.message.as_str()));
        let advice: Vec<&str> = advice.collect();
        if !advice.is_empty() {
            problem = problem.hint(advice.join("; "));
        }
        if let Some(span) = diagnostic.span {
            return problem.at(location(span.start.line, span.start.column));
        }
    }
    match place(&problem.detail) {
        Some((line, column)) => problem.at(location(line, column)),
        None => problem,
    }
}

fn location(line: u64, column: u64) -> Location {
    Location {
        file: FILE.into(),
        line: usize::try_from(line).unwrap_or(usize::MAX),
        column: usize::try_from(column).unwrap_or(usize::MAX),
    }
}

/// The place that the parser writes at the end of what it says.
fn place(text: &str) -> Option<(u64, u64)> {
    let (_, at) = text.rsplit_once("at Line: ")?;
    let (line, column) = at.split_once(", Column: ")?;
    let digits: String = column.chars().take_while(char::is_ascii_digit).collect();
    Some((line.parse().ok()?, digits.parse().ok()?))
}
