//! A first contract from sample rows: types, what is required, the event time, the fact id. Every
//! guess is a comment in the document, for a person to confirm.

mod exact;
mod profile;
mod write;

use crate::decode::{BodyFormat, CsvReader, Scanner, csv_text, read_record_batches};
use crate::{Field, Problem};

use self::profile::{Guess, Profile};

/// Rows of a sample that are looked at.
pub const SAMPLE_ROWS_MAX: usize = 100_000;
/// Objects and lists within one row of a sample.
const NESTING_MAX: usize = 16;

/// The YAML text of a contract named `name` that the sample's rows keep.
pub fn infer_contract(name: &str, format: BodyFormat, sample: &[u8]) -> Result<String, Problem> {
    let mut row = Profile::default();
    observe(format, sample, SAMPLE_ROWS_MAX, &mut row)?;
    let left_out = row.leave_out_unnamed();
    if row.seen == 0 || row.members.is_empty() {
        return Err(Problem::user(
            "empty-sample",
            "The sample has no rows to infer a contract from",
        )
        .hint("Give a file with some typical rows"));
    }
    let guess = Guess::of(&row).ok_or_else(|| {
        Problem::user("no-event-time", "No column of the sample says when its facts happened")
            .detail(format!("Columns are {}", row.names()))
            .hint("Add a column of RFC 3339 times such as 2013-01-01T10:17:00Z, or of integers named like a time")
    })?;
    Ok(write::document(name, &row, &guess, left_out))
}

/// The columns of rows, in the order in which they first occur, and the types in which every value keeps what it says. Rows
/// come in parts, and all are looked at.
pub struct SeenColumns(Profile);

impl Default for SeenColumns {
    fn default() -> Self {
        Self(Profile::of_types())
    }
}

impl SeenColumns {
    pub fn see(&mut self, format: BodyFormat, part: &[u8]) -> Result<(), Problem> {
        observe(format, part, usize::MAX, &mut self.0)
    }

    pub fn fields(&self) -> Vec<Field> {
        let field = |(name, seen): &(String, Profile)| Field::new(name.as_str(), seen.exact_type());
        self.0.members.iter().map(field).collect()
    }
}

fn observe(
    format: BodyFormat,
    sample: &[u8],
    rows_max: usize,
    row: &mut Profile,
) -> Result<(), Problem> {
    match format {
        BodyFormat::Json | BodyFormat::Ndjson => observe_json(sample, rows_max, row)?,
        BodyFormat::Csv => observe_csv(sample, rows_max, row)?,
        BodyFormat::ArrowStream | BodyFormat::Parquet => {
            for batch in read_record_batches(format, sample)? {
                row.observe_batch(&batch?);
                if row.seen >= rows_max {
                    break;
                }
            }
        }
    }
    Ok(())
}

fn observe_json(sample: &[u8], rows_max: usize, row: &mut Profile) -> Result<(), Problem> {
    let bad = |line: usize, what: &str| {
        Problem::user(
            "bad-json",
            format!("Row {line} of the sample is no JSON object"),
        )
        .detail(what)
        .hint("Give NDJSON: one object per line, or an array of objects")
    };
    let text = std::str::from_utf8(sample).map_err(|_| bad(0, "It is no UTF-8"))?;
    let mut scanner = Scanner::new(text.trim_start_matches('\u{feff}'), NESTING_MAX);
    let is_array = scanner.accept(b'[');
    let mut first = true;
    while row.seen < rows_max {
        let more = match is_array {
            true => scanner
                .more(b']', first)
                .map_err(|e| bad(row.seen, e.what))?,
            false => scanner.peek().is_some(),
        };
        if !more {
            break;
        }
        first = false;
        if scanner.peek() != Some(b'{') {
            return Err(bad(row.seen, "It starts with something else"));
        }
        row.observe_json(&mut scanner, 0)
            .map_err(|e| bad(row.seen, e.what))?;
    }
    Ok(())
}

fn observe_csv(sample: &[u8], rows_max: usize, row: &mut Profile) -> Result<(), Problem> {
    let mut records = CsvReader::new(csv_text(sample)?);
    // Blank lines are no rows, and need no header.
    let Some(header) = records.next() else {
        return Ok(());
    };
    if header.fault.is_some() {
        return Err(Problem::user("bad-csv", "The header line is broken")
            .hint("The first line names the columns, separated by commas"));
    }
    for record in records.take(rows_max) {
        let fits = record.fault.is_none() && record.cells.len() == header.cells.len();
        row.seen += usize::from(fits);
        // What is wrong with a record is told where it is read; its columns are there all the same.
        for (index, name) in header.cells.iter().enumerate() {
            let column = row.member(&name.text);
            if fits {
                column.observe_cell(&record.cells[index]);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
