//! CSV bodies (RFC 4180) with a header line. An empty unquoted cell is null, `""` the empty string,
//! so the reader keeps what general readers lose: whether a cell was quoted. Lists, structs and maps
//! are JSON text within a cell.

use std::borrow::Cow;

use super::columns::{Column, Values};
use super::json::{Fault, Times, bytes, date, decimal, integer_time, read_value, timestamp};
use super::rows::{Reject, Rows, Unknown};
use super::scanner::Scanner;
use crate::time::shorten;
use crate::{DataType, FieldSpec, Problem};

/// One cell of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CsvCell<'a> {
    pub text: Cow<'a, str>,
    pub quoted: bool,
}

impl CsvCell<'_> {
    pub fn is_null(&self) -> bool {
        self.text.is_empty() && !self.quoted
    }
}

/// One record, as it came and in cells.
#[derive(Debug)]
pub struct CsvRecord<'a> {
    pub raw: &'a str,
    pub cells: Vec<CsvCell<'a>>,
    pub fault: Option<&'static str>,
}

/// Reads records off a text. Blank lines are none.
pub struct CsvReader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> CsvReader<'a> {
    pub fn new(text: &'a str) -> Self {
        Self {
            text: text.strip_prefix('\u{feff}').unwrap_or(text),
            at: 0,
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn cell(&mut self) -> Result<CsvCell<'a>, &'static str> {
        let start = self.at;
        if self.peek() != Some(b'"') {
            while !matches!(self.peek(), None | Some(b',' | b'\n')) {
                self.at += 1;
            }
            let text = &self.text[start..self.at];
            let text = match self.peek() {
                Some(b',') => text,
                _ => text.strip_suffix('\r').unwrap_or(text),
            };
            let cell = CsvCell {
                text: Cow::Borrowed(text),
                quoted: false,
            };
            return match text.contains('"') {
                true => Err("a quote stands within an unquoted cell"),
                false => Ok(cell),
            };
        }
        self.at += 1;
        let mut text: Cow<'a, str> = Cow::Borrowed("");
        loop {
            let run = self.at;
            let end = self.text[run..]
                .find('"')
                .ok_or("a quoted cell is not closed")?;
            self.at = run + end + 1;
            let piece = &self.text[run..run + end];
            match &mut text {
                Cow::Borrowed("") => text = Cow::Borrowed(piece),
                text => text.to_mut().push_str(piece),
            }
            if self.peek() != Some(b'"') {
                break;
            }
            self.at += 1;
            text.to_mut().push('"');
        }
        if self.peek() == Some(b'\r') {
            self.at += 1;
        }
        match self.peek() {
            None | Some(b',' | b'\n') => Ok(CsvCell { text, quoted: true }),
            Some(_) => Err("something follows a quoted cell"),
        }
    }

    fn record(&mut self) -> CsvRecord<'a> {
        let start = self.at;
        let (mut cells, mut fault) = (Vec::new(), None);
        loop {
            match self.cell() {
                Ok(cell) => cells.push(cell),
                Err(error) => {
                    // The rest of the line goes with it.
                    fault = Some(error);
                    let rest = self.text.get(self.at..).unwrap_or_default();
                    self.at = rest.find('\n').map_or(self.text.len(), |end| self.at + end);
                }
            }
            if self.peek() != Some(b',') {
                break;
            }
            self.at += 1;
        }
        let raw = self.text[start..self.at].trim_end_matches('\r');
        self.at = (self.at + 1).min(self.text.len());
        CsvRecord { raw, cells, fault }
    }
}

impl<'a> Iterator for CsvReader<'a> {
    type Item = CsvRecord<'a>;

    fn next(&mut self) -> Option<CsvRecord<'a>> {
        while matches!(self.peek(), Some(b'\n' | b'\r')) {
            self.at += 1;
        }
        self.peek().map(|_| self.record())
    }
}

pub fn csv_text(body: &[u8]) -> Result<&str, Problem> {
    std::str::from_utf8(body).map_err(|error| {
        Problem::user("bad-csv", "The file is no UTF-8")
            .detail(format!("Byte {} is wrong", error.valid_up_to()))
            .hint("Save it as UTF-8")
    })
}

pub fn read_body(body: &[u8], rows: &mut Rows<'_>) -> Result<(), Problem> {
    let mut records = CsvReader::new(csv_text(body)?);
    let header = records
        .next()
        .filter(|header| header.fault.is_none())
        .ok_or_else(|| {
            Problem::user("bad-csv", "The header line is missing or broken")
                .hint("The first line names the columns, separated by commas")
        })?;
    let names: Vec<Cow<'_, str>> = header.cells.into_iter().map(|cell| cell.text).collect();
    for (index, name) in names.iter().enumerate() {
        if names[..index].contains(name) {
            return Err(Problem::user(
                "bad-csv",
                format!("The column `{name}` occurs twice in the header"),
            )
            .hint("Rename one of them"));
        }
    }
    let fields: Vec<Option<usize>> = names.iter().map(|n| rows.contract.field_index(n)).collect();
    // A file without a header would lose its first row, and have every other refused.
    if fields.iter().all(Option::is_none) {
        let known = rows.contract.fields.iter().take(8);
        let known: Vec<String> = known.map(|f| format!("`{}`", f.name)).collect();
        return Err(
            Problem::user("bad-csv", "The first line names no column of the contract")
                .detail(format!("It begins with `{}`", shorten(&names[0])))
                .hint(format!(
                    "It is the header: name columns such as {}",
                    known.join(", ")
                )),
        );
    }
    for record in records {
        let read = read_record(&record, &names, &fields, rows);
        let contract = rows.contract;
        rows.end_row(read, || {
            let fits = record.fault.is_none() && record.cells.len() == names.len();
            match fits {
                true => Cow::Owned(raw_json(&record.cells, &names, &fields, &contract.fields)),
                false => Cow::Borrowed(record.raw),
            }
        })?;
    }
    Ok(())
}

fn read_record(
    record: &CsvRecord<'_>,
    names: &[Cow<'_, str>],
    fields: &[Option<usize>],
    rows: &mut Rows<'_>,
) -> Result<(), Reject> {
    if let Some(fault) = record.fault {
        return Err(Reject::new(
            "syntax",
            format!("The line is no CSV: {fault}"),
        ));
    }
    if record.raw.len() > rows.limits.row_bytes_max {
        let limit = rows.limits.row_bytes_max;
        let reason = format!(
            "The row has {} bytes; `row_bytes_max` is {limit}",
            record.raw.len()
        );
        return Err(Reject::new("row-too-large", reason));
    }
    if record.cells.len() != names.len() {
        let reason = format!(
            "The line has {} cells, the header {}",
            record.cells.len(),
            names.len()
        );
        return Err(Reject::new("syntax", reason));
    }
    let nesting_max = rows.limits.nesting_max;
    let Rows {
        contract,
        columns,
        unknown,
        ..
    } = rows;
    for ((cell, name), field) in record.cells.iter().zip(names).zip(fields) {
        match field {
            None if cell.is_null() => {}
            None => unknown.push((name.to_string(), quoted(&cell.text))),
            Some(index) if cell.is_null() => columns[*index].push_null(),
            Some(index) => {
                let spec = &contract.fields[*index];
                let times = Times {
                    zone: contract.zone_of(spec),
                    unit: contract.time_unit,
                };
                read_cell(
                    &cell.text,
                    &mut columns[*index],
                    spec,
                    times,
                    nesting_max,
                    unknown,
                )
                .map_err(|reject| reject.within(name))?;
            }
        }
    }
    Ok(())
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The record as a JSON object that can be mended and sent again.
fn raw_json(
    cells: &[CsvCell<'_>],
    names: &[Cow<'_, str>],
    fields: &[Option<usize>],
    specs: &[FieldSpec],
) -> String {
    let member = |((cell, name), field): ((&CsvCell<'_>, &Cow<'_, str>), &Option<usize>)| {
        let is_text = field.is_none_or(|index| {
            matches!(
                specs[index].data_type,
                DataType::String | DataType::Bytes | DataType::Date
            )
        });
        let is_json = || serde_json::from_str::<serde::de::IgnoredAny>(&cell.text).is_ok();
        let value = match (cell.is_null(), is_text) {
            (true, _) => "null".to_owned(),
            (false, false) if is_json() => cell.text.to_string(),
            _ => quoted(&cell.text),
        };
        format!("{}:{value}", quoted(name))
    };
    let members: Vec<String> = cells.iter().zip(names).zip(fields).map(member).collect();
    format!("{{{}}}", members.join(","))
}

fn read_cell(
    text: &str,
    column: &mut Column,
    spec: &FieldSpec,
    times: Times<'_>,
    nesting_max: usize,
    unknown: &mut Unknown,
) -> Result<(), Reject> {
    let wrong = |expected: &str| {
        Reject::new(
            "type",
            format!("{expected} is expected, not `{}`", shorten(text)),
        )
    };
    match &mut column.values {
        Values::Bool(values) => values.push(match text {
            "true" => true,
            "false" => false,
            _ => return Err(wrong("true or false")),
        }),
        Values::Int(values) => {
            values.push(integer(text).ok_or_else(|| wrong("An integer of 64 bits"))?)
        }
        Values::Float(values) => values.push(float(text).ok_or_else(|| wrong("A number"))?),
        Values::Decimal {
            unscaled,
            precision,
            scale,
        } => {
            unscaled.push(decimal(text, *precision, *scale)?);
        }
        Values::Timestamp(values) => values.push(match integer(text) {
            Some(value) => integer_time(value, times)?,
            None => timestamp(text, times)?,
        }),
        Values::Date(values) => values.push(date(text)?),
        Values::String(values) => values.push(text.as_bytes()),
        Values::Bytes(values) => values.push(&bytes(text)?),
        Values::List { .. } | Values::Struct(_) | Values::Map { .. } => {
            let mut scanner = Scanner::new(text, nesting_max);
            let mark = unknown.len();
            read_value(&mut scanner, column, Some(spec), times, unknown).map_err(Reject::from)?;
            for (path, _) in &mut unknown[mark..] {
                *path = format!("{}.{path}", spec.name);
            }
            return match scanner.peek() {
                None => Ok(()),
                Some(_) => Err(Fault::from(scanner.syntax("something follows the value")).into()),
            };
        }
    }
    column.pushed();
    Ok(())
}

fn integer(text: &str) -> Option<i64> {
    if text.starts_with('+') {
        None
    } else {
        text.parse().ok()
    }
}

/// A number, `NaN`, `inf` or `-inf`; digits that are too large for a float are none.
fn float(text: &str) -> Option<f64> {
    let value: f64 = text.parse().ok()?;
    let has_digits = text.bytes().any(|b| b.is_ascii_digit());
    (!has_digits || value.is_finite()).then_some(value)
}
