//! JSON bodies: an array of objects, one object, or one object per line.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::columns::{Column, Values};
use super::rows::{Reject, Rows, Unknown, duplicate_key};
use super::scanner::{Kind, NumberText, Scanner, Syntax, TOO_DEEP};
use crate::contract::parse_decimal;
use crate::time::{TimeUnit, TimeZone, parse_date, parse_timestamp, shorten};
use crate::{DataType, FieldSpec, Problem};

/// Why a value isn't read.
pub enum Fault {
    Syntax(Syntax),
    Reject(Reject),
}

impl From<Syntax> for Fault {
    fn from(syntax: Syntax) -> Self {
        Self::Syntax(syntax)
    }
}

impl From<Reject> for Fault {
    fn from(reject: Reject) -> Self {
        Self::Reject(reject)
    }
}

impl Fault {
    fn within(self, name: &str) -> Self {
        match self {
            Self::Reject(reject) => Self::Reject(reject.within(name)),
            syntax => syntax,
        }
    }
}

impl Fault {
    /// Gives a place in the body as one in the row that starts there.
    fn counted_from(mut self, start: usize) -> Self {
        if let Self::Syntax(syntax) = &mut self {
            syntax.at -= start.min(syntax.at);
        }
        self
    }
}

impl From<Fault> for Reject {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Reject(reject) => reject,
            Fault::Syntax(syntax) if syntax.what == TOO_DEEP => {
                Self::new("nesting", "The row's values are nested too deep")
            }
            Fault::Syntax(syntax) => Self::new(
                "syntax",
                format!("It is no JSON: at byte {}, {}", syntax.at, syntax.what),
            ),
        }
    }
}

/// How times without an offset and times as integers are read.
#[derive(Clone, Copy)]
pub struct Times<'a> {
    pub zone: Option<&'a TimeZone>,
    pub unit: Option<TimeUnit>,
}

pub fn read_body(body: &[u8], rows: &mut Rows<'_>) -> Result<(), Problem> {
    let text = std::str::from_utf8(body).map_err(|error| {
        Problem::user("bad-json", "The body is no UTF-8")
            .detail(format!("Byte {} is wrong", error.valid_up_to()))
            .hint("JSON is sent as UTF-8")
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut scanner = Scanner::new(text, rows.limits.nesting_max);
    match scanner.peek() {
        Some(b'[') => {
            scanner.accept(b'[');
            let mut first = true;
            while scanner.more(b']', first).map_err(broken)? {
                read_item(&mut scanner, rows)?;
                first = false;
            }
        }
        Some(b'{') => read_item(&mut scanner, rows)?,
        _ => {
            return Err(
                Problem::user("bad-json", "The body is neither an array nor an object").hint(
                    "Send a JSON array of objects, or one object per line as application/x-ndjson",
                ),
            );
        }
    }
    match scanner.peek() {
        None => Ok(()),
        Some(b'{') => Err(Problem::user("bad-json", "Another value follows the first")
            .hint("Send one object per line as application/x-ndjson, or wrap them in an array")),
        Some(_) => Err(broken(scanner.syntax("something follows the end"))),
    }
}

fn broken(syntax: Syntax) -> Problem {
    Problem::user("bad-json", "The body is no JSON")
        .detail(format!("At byte {}, {}", syntax.at, syntax.what))
        .hint("Nothing of it was taken; send one object per line as application/x-ndjson to lose only bad lines")
}

/// One object of an array, whose fault is its own unless the array breaks with it.
fn read_item(scanner: &mut Scanner<'_>, rows: &mut Rows<'_>) -> Result<(), Problem> {
    scanner.peek();
    let start = scanner.position();
    let mut read = read_row(scanner, rows).map_err(|fault| Reject::from(fault.counted_from(start)));
    if read.is_err() {
        scanner.seek(start);
        scanner.skip_any().map_err(broken)?;
    }
    let raw = scanner.since(start);
    if raw.len() > rows.limits.row_bytes_max {
        read = Err(too_long(raw.len(), rows));
    }
    rows.end_row(read, || Cow::Borrowed(raw))
}

fn too_long(bytes: usize, rows: &Rows<'_>) -> Reject {
    let limit = rows.limits.row_bytes_max;
    Reject::new(
        "row-too-large",
        format!("The row has {bytes} bytes; `row_bytes_max` is {limit}"),
    )
}

pub fn read_lines(body: &[u8], rows: &mut Rows<'_>) -> Result<(), Problem> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    for line in body.split(|byte| *byte == b'\n') {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        let Ok(text) = std::str::from_utf8(line) else {
            let read = Err(Reject::new("syntax", "The line is no UTF-8"));
            rows.end_row(read, || String::from_utf8_lossy(line))?;
            continue;
        };
        let read = if text.len() > rows.limits.row_bytes_max {
            Err(too_long(text.len(), rows))
        } else {
            read_line(text, rows).map_err(Reject::from)
        };
        rows.end_row(read, || Cow::Borrowed(text))?;
    }
    Ok(())
}

fn read_line(text: &str, rows: &mut Rows<'_>) -> Result<(), Fault> {
    let mut scanner = Scanner::new(text, rows.limits.nesting_max);
    read_row(&mut scanner, rows)?;
    match scanner.peek() {
        None => Ok(()),
        Some(_) => Err(scanner.syntax("something follows the object").into()),
    }
}

/// Reads one object onto the columns.
fn read_row(scanner: &mut Scanner<'_>, rows: &mut Rows<'_>) -> Result<(), Fault> {
    let row = rows.taken();
    let Rows {
        contract,
        columns,
        unknown,
        plain_names,
        ..
    } = rows;
    let fields = &contract.fields;
    let kind = scanner.kind()?;
    if kind != Kind::Object {
        scanner.skip()?;
        return Err(
            Reject::new("type", format!("The row is {} and no object", kind.words())).into(),
        );
    }
    scanner.accept(b'{');
    let (mut first, mut expected) = (true, 0);
    while scanner.more(b'}', first)? {
        first = false;
        // Rows mostly name their fields in the same order, so the next one is tried first.
        let index = match fields.get(expected) {
            Some(field) if plain_names[expected] && scanner.accept_key(&field.name) => expected,
            _ => {
                let key = scanner.key()?;
                match fields.iter().position(|f| f.name.as_ref() == key.as_ref()) {
                    Some(index) => index,
                    None => {
                        read_unknown(scanner, &key, unknown)?;
                        continue;
                    }
                }
            }
        };
        expected = index + 1;
        let field = &fields[index];
        if columns[index].len() > row {
            return Err(duplicate_key().within(&field.name).into());
        }
        let times = Times {
            zone: contract.zone_of(field),
            unit: contract.time_unit,
        };
        let mark = unknown.len();
        read_value(scanner, &mut columns[index], Some(field), times, unknown)
            .map_err(|fault| fault.within(&field.name))?;
        place_unknown(unknown, mark, &field.name);
    }
    Ok(())
}

fn read_unknown(scanner: &mut Scanner<'_>, key: &str, unknown: &mut Unknown) -> Result<(), Syntax> {
    scanner.peek();
    let start = scanner.position();
    scanner.skip()?;
    unknown.push((key.to_owned(), scanner.since(start).to_owned()));
    Ok(())
}

/// Says of what was found within a field that it was there.
fn place_unknown(unknown: &mut Unknown, mark: usize, name: &str) {
    for (path, _) in &mut unknown[mark..] {
        let dot = if path.starts_with('[') { "" } else { "." };
        *path = format!("{name}{dot}{path}");
    }
}

fn wrong(expected: &str, kind: Kind) -> Fault {
    Reject::new(
        "type",
        format!("{expected} is expected, not {}", kind.words()),
    )
    .into()
}

/// Reads one value onto a column.
pub fn read_value(
    scanner: &mut Scanner<'_>,
    column: &mut Column,
    spec: Option<&FieldSpec>,
    times: Times<'_>,
    unknown: &mut Unknown,
) -> Result<(), Fault> {
    let kind = scanner.kind()?;
    if kind == Kind::Null {
        scanner.literal(kind)?;
        column.push_null();
        return Ok(());
    }
    match (&mut column.values, kind) {
        (Values::Int(values), Kind::Number) => values.push(whole(scanner.number()?)?),
        (Values::Float(values), Kind::Number) => values.push(float(scanner.number()?)?),
        (Values::String(values), Kind::Text) => values.push(scanner.string()?.as_bytes()),
        (Values::Bool(values), Kind::True | Kind::False) => {
            scanner.literal(kind)?;
            values.push(kind == Kind::True);
        }
        (Values::Timestamp(values), Kind::Text) => {
            let text = scanner.string()?;
            values.push(timestamp(&text, times)?);
        }
        (Values::Timestamp(values), Kind::Number) => {
            values.push(integer_time(whole(scanner.number()?)?, times)?);
        }
        (Values::Date(values), Kind::Text) => values.push(date(&scanner.string()?)?),
        (
            Values::Decimal {
                unscaled,
                precision,
                scale,
            },
            Kind::Number | Kind::Text,
        ) => {
            let text = match kind {
                Kind::Number => Cow::Borrowed(scanner.number()?.text),
                _ => scanner.string()?,
            };
            unscaled.push(decimal(&text, *precision, *scale)?);
        }
        (Values::Bytes(values), Kind::Text) => values.push(&bytes(&scanner.string()?)?),
        (Values::List { ends, items }, Kind::List) => {
            scanner.accept(b'[');
            let spec = spec.and_then(|s| s.members.first());
            let times = within(times, spec);
            let start = items.len();
            while scanner.more(b']', items.len() == start)? {
                let (mark, position) = (unknown.len(), items.len() - start);
                let read = read_value(scanner, items, spec, times, unknown);
                read.map_err(|fault| fault.within(&format!("[{position}]")))?;
                if unknown.len() > mark {
                    place_unknown(unknown, mark, &format!("[{position}]"));
                }
            }
            ends.push(items.len());
        }
        (Values::Struct(_), Kind::Object) => read_struct(scanner, column, spec, times, unknown)?,
        (Values::Map { .. }, Kind::Object) => read_map(scanner, column, times, unknown)?,
        (values, kind) => return Err(wrong(expected(values), kind)),
    }
    column.pushed();
    Ok(())
}

fn within<'a>(times: Times<'a>, spec: Option<&'a FieldSpec>) -> Times<'a> {
    Times {
        zone: spec.and_then(|s| s.time_zone.as_ref()).or(times.zone),
        unit: times.unit,
    }
}

fn expected(values: &Values) -> &'static str {
    match values {
        Values::Bool(_) => "A boolean",
        Values::Int(_) => "An integer",
        Values::Float(_) => "A number",
        Values::Decimal { .. } => "A decimal number",
        Values::Timestamp(_) => "An RFC 3339 time",
        Values::Date(_) => "A date such as \"2013-01-31\"",
        Values::String(_) => "A string",
        Values::Bytes(_) => "A base64 string",
        Values::List { .. } => "A list",
        Values::Struct(_) | Values::Map { .. } => "An object",
    }
}

fn read_struct(
    scanner: &mut Scanner<'_>,
    column: &mut Column,
    spec: Option<&FieldSpec>,
    times: Times<'_>,
    unknown: &mut Unknown,
) -> Result<(), Fault> {
    let row = column.len();
    let Values::Struct(members) = &mut column.values else {
        return Ok(());
    };
    scanner.accept(b'{');
    let mut first = true;
    while scanner.more(b'}', first)? {
        first = false;
        let key = scanner.key()?;
        let Some(index) = members
            .iter()
            .position(|(name, _)| name.as_ref() == key.as_ref())
        else {
            read_unknown(scanner, &key, unknown)?;
            continue;
        };
        let (name, member) = &mut members[index];
        if member.len() > row {
            return Err(duplicate_key().within(name).into());
        }
        let spec = spec.and_then(|s| s.members.get(index));
        let mark = unknown.len();
        read_value(scanner, member, spec, within(times, spec), unknown)
            .map_err(|fault| fault.within(name))?;
        place_unknown(unknown, mark, name);
    }
    for (_, member) in members {
        if member.len() == row {
            member.push_null();
        }
    }
    Ok(())
}

fn read_map(
    scanner: &mut Scanner<'_>,
    column: &mut Column,
    times: Times<'_>,
    unknown: &mut Unknown,
) -> Result<(), Fault> {
    let Values::Map { ends, keys, values } = &mut column.values else {
        return Ok(());
    };
    scanner.accept(b'{');
    let start = keys.len();
    while scanner.more(b'}', keys.len() == start)? {
        let key = scanner.key()?;
        keys.push(key.as_bytes());
        let mark = unknown.len();
        read_value(scanner, values, None, times, unknown).map_err(|fault| fault.within(&key))?;
        place_unknown(unknown, mark, &key);
    }
    let mut names: Vec<&[u8]> = (start..keys.len()).map(|i| keys.get(i)).collect();
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        let name = String::from_utf8_lossy(pair[0]);
        return Err(duplicate_key().within(&name).into());
    }
    ends.push(keys.len());
    Ok(())
}

pub fn whole(number: NumberText<'_>) -> Result<i64, Reject> {
    if !number.is_whole {
        let reason = format!(
            "An integer is expected; {} has a point or an exponent",
            shorten(number.text)
        );
        return Err(Reject::new("type", reason));
    }
    let reason = || format!("{} does not fit into 64 bits", shorten(number.text));
    number
        .text
        .parse()
        .map_err(|_| Reject::new("overflow", reason()))
}

fn float(number: NumberText<'_>) -> Result<f64, Reject> {
    let value: f64 = number.text.parse().unwrap_or(f64::INFINITY);
    if value.is_finite() {
        return Ok(value);
    }
    let reason = format!("{} is beyond what a float64 can be", shorten(number.text));
    Err(Reject::new("overflow", reason))
}

pub fn timestamp(text: &str, times: Times<'_>) -> Result<i64, Reject> {
    parse_timestamp(text, times.zone).map_err(|reason| Reject::new("type", reason))
}

pub fn integer_time(value: i64, times: Times<'_>) -> Result<i64, Reject> {
    let unit = times.unit.ok_or_else(|| {
        Reject::new(
            "type",
            "A time is an integer, and the contract names no `headwater.timeUnit`",
        )
    })?;
    unit.to_micros(value).ok_or_else(|| {
        Reject::new(
            "overflow",
            format!("{value} {unit} is beyond what times can be"),
        )
    })
}

pub fn date(text: &str) -> Result<i32, Reject> {
    parse_date(text).map_err(|reason| Reject::new("type", reason))
}

pub fn decimal(text: &str, precision: u8, scale: i8) -> Result<i128, Reject> {
    parse_decimal(text, precision, scale).ok_or_else(|| {
        let data_type = DataType::Decimal { precision, scale };
        Reject::new(
            "type",
            format!("`{}` is no {data_type} without loss", shorten(text)),
        )
    })
}

pub fn bytes(text: &str) -> Result<Vec<u8>, Reject> {
    STANDARD
        .decode(text)
        .map_err(|error| Reject::new("type", format!("The bytes are no base64: {error}")))
}
