//! How things look: problems with the line they are about, tables, numbers.

use headwater::OpenReport;
use headwater_schema::Problem;
pub use headwater_schema::thousands;

use super::Context;

/// Prints problems to standard error, each with the line of the file it is about.
pub fn problems(context: &Context, problems: &[Problem]) {
    let colour = colours();
    let paint = |code: &str, text: &str| {
        if colour {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    };
    for problem in problems {
        let mut line = format!("{} {}", paint("1;31", "error:"), paint("1", &problem.title));
        if let Some(field) = &problem.field {
            line.push_str(&format!(" (`{field}`)"));
        }
        eprintln!("{line}");
        if let Some(at) = &problem.location {
            eprintln!(
                "  {} {}:{}:{}",
                paint("34", "-->"),
                at.file,
                at.line,
                at.column
            );
            excerpt(context, at);
        }
        if !problem.detail.is_empty() {
            eprintln!("  {}", problem.detail);
        }
        if !problem.hint.is_empty() {
            eprintln!("  {} {}", paint("36", "hint:"), problem.hint);
        }
    }
    if problems.len() > 1 {
        eprintln!("{} problems", problems.len());
    }
}

/// The line of a file that a problem is about, with a mark below its column.
fn excerpt(context: &Context, at: &headwater_schema::Location) {
    let Ok(bytes) = context.env.files.read(&context.folder.join(&at.file)) else {
        return;
    };
    let text = String::from_utf8_lossy(&bytes);
    if let Some(line) = text.lines().nth(at.line - 1) {
        let number = at.line.to_string();
        eprintln!("  {number} | {line}");
        eprintln!(
            "  {} | {}^",
            " ".repeat(number.len()),
            " ".repeat(at.column.saturating_sub(1))
        );
    }
}

/// What opening had to mend, to standard error.
pub fn repairs(report: &OpenReport) {
    for repair in &report.repairs {
        eprintln!("note: {repair}");
    }
}

/// Colours where a person looks at standard error and hasn't asked for none.
fn colours() -> bool {
    use std::io::IsTerminal;
    std::env::var_os("NO_COLOR").is_none() && std::io::stderr().is_terminal()
}

/// Rows under headings, in columns as wide as they need to be.
pub fn table(headings: &[&str], rows: &[Vec<String>]) {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let widest = cells.map(|c| c.chars().count()).max().unwrap_or(0);
        widest.max(headings[column].chars().count())
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let line = |cells: &[String]| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| {
            format!(
                "{cell}{}",
                " ".repeat(width.saturating_sub(cell.chars().count()))
            )
        });
        let line: Vec<String> = padded.collect();
        println!("{}", line.join("  ").trim_end());
    };
    line(&headings.iter().map(|h| (*h).to_owned()).collect::<Vec<_>>());
    rows.iter().for_each(|row| line(row));
}

/// Any JSON, over several lines.
pub fn json(value: &serde_json::Value) {
    println!("{value:#}");
}
