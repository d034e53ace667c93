//! DataFusion's errors as problems: what is wrong with a query and where, without what lies behind it.

use std::error::Error;
use std::io;

use datafusion::arrow::error::ArrowError;
use datafusion::common::DataFusionError;
use datafusion::common::SchemaError;
use headwater_facts::archive_damaged;
use headwater_schema::{Location, Problem};

/// How a query's text is called where a problem says where it is.
const FILE: &str = "query";

/// A problem on its way through DataFusion.
pub fn through(problem: Problem) -> DataFusionError {
    DataFusionError::External(Box::new(problem))
}

/// An error and what lies behind it, one behind the other.
pub fn causes<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| {
        (*error).source()
    })
}

/// What went wrong with a query.
pub fn query_problem(error: &DataFusionError) -> Problem {
    if let Some(problem) = causes(error).find_map(|e| e.downcast_ref::<Problem>()) {
        return problem.clone();
    }
    let problem = match error.find_root() {
        DataFusionError::ResourcesExhausted(_) => too_large(),
        DataFusionError::IoError(error) => return of_disk(error),
        // Nothing but the archive is read as Parquet.
        DataFusionError::ParquetError(error) => return of_archive(error),
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
        DataFusionError::ArrowError(inner, _) => match inner.as_ref() {
            ArrowError::IoError(_, error) => return of_disk(error),
            ArrowError::ParquetError(error) => return of_archive(error),
            other => failed(&other.to_string()),
        },
        other => Problem::internal("query", "the query failed").detail(other),
    };
    located(problem.field("sql"), error)
}

fn too_large() -> Problem {
    Problem::user("query-too-large", "the query takes too much memory or disk")
        .detail("what it sorts, joins or groups doesn't fit into what queries may take")
        .hint("read less of it, or raise `query.memory_bytes_max` and `query.spill_bytes_max`")
}

/// What doesn't fit into memory, and can't be written down. That it may not be more, DataFusion tells as it tells any other
/// failure of a disk, by the name of an option of its own.
fn of_disk(error: &io::Error) -> Problem {
    match error.to_string().contains("max_temp_directory_size") {
        true => too_large().field("sql"),
        false => {
            let title = "a query can't write down what doesn't fit into memory";
            Problem::external("query-spill", title)
                .detail(error)
                .hint("see whether the disk of the data folder is full or failing")
        }
    }
}

/// A file that was read, and isn't what was written.
fn of_archive(error: impl std::fmt::Display) -> Problem {
    archive_damaged(error).hint(
        "`headwater archive --verify` names the object: restore it from a copy, or from an older version of the bucket",
    )
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

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use datafusion::execution::disk_manager::DiskManagerBuilder;

    use super::*;

    #[test]
    fn what_may_not_be_spilled_is_too_large_by_the_name_of_our_own_limit() {
        let disk = DiskManagerBuilder::default().with_max_temp_directory_size(1);
        let disk = Arc::new(disk.build().expect("a folder"));
        let file = disk.create_tmp_file("a sort").expect("a file");
        let mut out = file.open_writer().expect("a writer");
        let mut full = || out.write_all(b"more").expect_err("it is too much");
        for error in [
            DataFusionError::from(ArrowError::from(full())),
            DataFusionError::IoError(full()),
        ] {
            let problem = query_problem(&error);
            let named = problem.hint.contains("query.spill_bytes_max");
            assert!(problem.code == "query-too-large" && named, "{problem}");
        }
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let problem = query_problem(&DataFusionError::from(ArrowError::from(full)));
        assert_eq!(problem.blame, headwater_schema::Blame::External);
    }
}
