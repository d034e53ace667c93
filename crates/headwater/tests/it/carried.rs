//! Columns of a spine that nobody asks for: whatever format they come and leave in, they say what they said.

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float64Array,
    Int64Array, ListArray, RecordBatch, StringArray, StructArray, TimestampMicrosecondArray,
    TimestampNanosecondArray, UInt64Array,
};
use arrow::compute::concat_batches;
use arrow::datatypes::{Field, Int32Type, Int64Type};
use arrow::ipc::writer::StreamWriter;
use headwater_api::backend::{Names, TrainingSetRequest};
use headwater_batch::{OutputFormat, ProgressHook, TableWriter};
use headwater_schema::decode::{BodyFormat, read_record_batches};
use headwater_schema::time::{format_date, format_timestamp, parse_timestamp};
use headwater_testkit::TempProject;
use parquet::arrow::ArrowWriter;
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use crate::{BINARY, SHOP};

const ROWS: usize = 6;
/// What 128 bits hold of a decimal: 38 digits.
const WIDE_MAX: i128 = 10i128.pow(38) - 1;

/// A column that nobody asks for.
#[derive(Debug, Clone)]
enum Carried {
    Bools(Vec<Option<bool>>),
    Integers(Vec<Option<i64>>),
    /// In NDJSON and CSV digits; else unsigned, or decimals where one doesn't fit.
    Wide(Vec<Option<i128>>),
    Floats(Vec<Option<f64>>),
    Texts(Vec<Option<String>>),
    /// Digits that are no number.
    Codes(Vec<Option<u16>>),
    /// Microseconds; in text with an offset of so many hours.
    Times(Vec<Option<i64>>, i64),
    Nanos(Vec<Option<i64>>),
    /// Times of no zone.
    Local(Vec<Option<i64>>),
    Dates(Vec<Option<i32>>),
    Lists(Vec<Option<Vec<i64>>>),
    Structs(Vec<Option<(i64, String)>>),
}

fn column<T: Clone + std::fmt::Debug>(
    value: impl Strategy<Value = T>,
) -> impl Strategy<Value = Vec<Option<T>>> {
    prop::collection::vec(prop::option::weighted(0.8, value), ROWS)
}

fn carried() -> impl Strategy<Value = Carried> {
    let text = || "[ -~\n\u{e9}\u{4e2d}]{0,12}";
    let micros = || 0..4_102_444_800_000_000i64;
    let float = prop_oneof![
        3 => any::<f64>().prop_filter("finite", |f| f.is_finite()),
        2 => (-10_000..10_000i32).prop_map(|n| f64::from(n) / 100.0),
    ];
    let wide = prop_oneof![
        2 => any::<u64>().prop_map(i128::from),
        1 => -WIDE_MAX..WIDE_MAX,
        1 => -9..9i128,
    ];
    prop_oneof![
        column(any::<bool>()).prop_map(Carried::Bools),
        column(any::<i64>()).prop_map(Carried::Integers),
        column(wide).prop_map(Carried::Wide),
        column(float).prop_map(Carried::Floats),
        column(text()).prop_map(Carried::Texts),
        column(0..1000u16).prop_map(Carried::Codes),
        (column(micros()), -12..12i64).prop_map(|(times, hours)| Carried::Times(times, hours)),
        column(0..4_102_444_800_000_000_000i64).prop_map(Carried::Nanos),
        column(micros()).prop_map(Carried::Local),
        column(0..40_000i32).prop_map(Carried::Dates),
        column(prop::collection::vec(-5..5i64, 0..3)).prop_map(Carried::Lists),
        column((any::<i64>(), text().prop_map(String::from))).prop_map(Carried::Structs),
    ]
}

fn nanos_text(nanos: i64) -> String {
    let seconds = format_timestamp(nanos.div_euclid(1_000_000_000) * 1_000_000);
    let seconds = seconds.trim_end_matches('Z');
    format!("{seconds}.{:09}Z", nanos.rem_euclid(1_000_000_000))
}

fn local_text(micros: i64) -> String {
    format_timestamp(micros).trim_end_matches('Z').to_owned()
}

impl Carried {
    fn is_null(&self, row: usize) -> bool {
        match self {
            Self::Bools(v) => v[row].is_none(),
            Self::Integers(v) | Self::Nanos(v) | Self::Local(v) | Self::Times(v, _) => {
                v[row].is_none()
            }
            Self::Wide(v) => v[row].is_none(),
            Self::Floats(v) => v[row].is_none(),
            Self::Texts(v) => v[row].is_none(),
            Self::Codes(v) => v[row].is_none(),
            Self::Dates(v) => v[row].is_none(),
            Self::Lists(v) => v[row].is_none(),
            Self::Structs(v) => v[row].is_none(),
        }
    }

    /// A value as a spine in text has it; numbers and nested values as JSON has them, all else without quotes.
    fn text(&self, row: usize) -> Option<String> {
        Some(match self {
            Self::Bools(v) => v[row]?.to_string(),
            Self::Integers(v) => v[row]?.to_string(),
            Self::Wide(v) => v[row]?.to_string(),
            Self::Floats(v) => json!(v[row]?).to_string(),
            Self::Texts(v) => v[row].clone()?,
            Self::Codes(v) => format!("{:05}", v[row]?),
            Self::Times(v, hours) => {
                let local = local_text(v[row]? + hours * 3_600_000_000);
                let sign = if *hours < 0 { '-' } else { '+' };
                format!("{local}{sign}{:02}:00", hours.abs())
            }
            Self::Nanos(v) => nanos_text(v[row]?),
            Self::Local(v) => local_text(v[row]?),
            Self::Dates(v) => format_date(v[row]?),
            Self::Lists(v) => json!(v[row].clone()?).to_string(),
            Self::Structs(v) => {
                let (number, text) = v[row].clone()?;
                json!({"number": number, "text": text}).to_string()
            }
        })
    }

    fn json(&self, row: usize) -> String {
        let is_plain = matches!(
            self,
            Self::Bools(_)
                | Self::Integers(_)
                | Self::Wide(_)
                | Self::Floats(_)
                | Self::Lists(_)
                | Self::Structs(_)
        );
        match self.text(row) {
            None => "null".into(),
            Some(text) if is_plain => text,
            Some(text) => json!(text).to_string(),
        }
    }

    fn array(&self) -> ArrayRef {
        match self {
            Self::Bools(v) => Arc::new(BooleanArray::from(v.clone())),
            Self::Integers(v) => Arc::new(Int64Array::from(v.clone())),
            Self::Wide(v) => {
                let unsigned = v.iter().map(|v| v.map(u64::try_from).transpose());
                match unsigned.collect::<Result<UInt64Array, _>>() {
                    Ok(unsigned) => Arc::new(unsigned),
                    Err(_) => {
                        let decimals = Decimal128Array::from(v.clone());
                        Arc::new(decimals.with_precision_and_scale(38, 0).unwrap())
                    }
                }
            }
            Self::Floats(v) => Arc::new(Float64Array::from(v.clone())),
            Self::Texts(v) => Arc::new(StringArray::from(v.clone())),
            Self::Codes(_) => {
                let texts: Vec<Option<String>> = (0..ROWS).map(|row| self.text(row)).collect();
                let texts = texts.iter().map(Option::as_deref);
                Arc::new(texts.collect::<DictionaryArray<Int32Type>>())
            }
            Self::Times(v, _) => {
                Arc::new(TimestampMicrosecondArray::from(v.clone()).with_timezone("UTC"))
            }
            Self::Nanos(v) => {
                Arc::new(TimestampNanosecondArray::from(v.clone()).with_timezone("UTC"))
            }
            Self::Local(v) => Arc::new(TimestampMicrosecondArray::from(v.clone())),
            Self::Dates(v) => Arc::new(Date32Array::from(v.clone())),
            Self::Lists(v) => {
                let lists = v.iter().cloned();
                let lists = lists.map(|list| list.map(|l| l.into_iter().map(Some)));
                Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(lists))
            }
            Self::Structs(v) => {
                let numbers: Int64Array = v.iter().map(|v| v.as_ref().map(|v| v.0)).collect();
                let texts: StringArray =
                    v.iter().map(|v| v.as_ref().map(|v| v.1.as_str())).collect();
                let fields = vec![
                    Field::new("number", numbers.data_type().clone(), true),
                    Field::new("text", texts.data_type().clone(), true),
                ];
                let nulls = v.iter().map(Option::is_some).collect::<Vec<_>>().into();
                let members: Vec<ArrayRef> = vec![Arc::new(numbers), Arc::new(texts)];
                Arc::new(StructArray::new(fields.into(), members, Some(nulls)))
            }
        }
    }

    /// Asserts that a cell of a table in CSV says what the spine did.
    fn check(&self, row: usize, cell: &Option<String>, from: &str) {
        let nothing = self.is_null(row);
        assert_eq!(cell.is_none(), nothing, "{from}, row {row} of {self:?}");
        let (Some(cell), Some(said)) = (cell, self.text(row)) else {
            return;
        };
        let same = match self {
            Self::Floats(v) => {
                let float: f64 = cell.parse().unwrap();
                Some(float) == v[row]
            }
            Self::Times(v, _) => parse_timestamp(cell, None).ok() == v[row],
            // Trailing zeros may go.
            Self::Nanos(_) | Self::Local(_) => {
                let plain = |text: &str| {
                    let text = text.trim_end_matches('Z');
                    match text.contains('.') {
                        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
                        false => text.to_owned(),
                    }
                };
                plain(cell) == plain(&said) && cell.ends_with('Z') == said.ends_with('Z')
            }
            Self::Lists(_) | Self::Structs(_) => {
                let read = |text: &str| serde_json::from_str::<Json>(text).unwrap();
                read(cell) == read(&said)
            }
            _ => *cell == said,
        };
        assert!(
            same,
            "{from}, row {row}: {said:?} became {cell:?} in {self:?}"
        );
    }
}

/// The moments of the rows, one before any fact.
fn second(row: usize) -> usize {
    row * 7
}

fn name(place: usize) -> String {
    // Names that a contract wouldn't have.
    ["", "a b", "x,y", "it's \"so\"", "k\u{e9}y\n2"]
        .get(place)
        .map_or_else(|| format!("column_{place}"), |name| (*name).to_owned())
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

fn csv(columns: &[Carried]) -> Vec<u8> {
    let mut text = "customer,as_of".to_owned();
    (0..columns.len()).for_each(|place| write!(text, ",{}", quoted(&name(place))).unwrap());
    text.push('\n');
    for row in 0..ROWS {
        write!(text, "ada,{}", second(row) * 1_000_000).unwrap();
        for column in columns {
            let cell = column.text(row);
            // Numbers are told from text by what they say, not by quotes.
            write!(
                text,
                ",{}",
                cell.as_deref().map_or_else(String::new, quoted)
            )
            .unwrap();
        }
        text.push('\n');
    }
    text.into_bytes()
}

fn ndjson(columns: &[Carried]) -> Vec<u8> {
    let mut text = String::new();
    for row in 0..ROWS {
        let time = second(row) * 1_000_000;
        write!(text, "{{\"customer\":\"ada\",\"as_of\":{time}").unwrap();
        for (place, column) in columns.iter().enumerate() {
            write!(text, ",{}:{}", json!(name(place)), column.json(row)).unwrap();
        }
        text.push_str("}\n");
    }
    text.into_bytes()
}

fn batch(columns: &[Carried]) -> RecordBatch {
    let times: TimestampMicrosecondArray = (0..ROWS)
        .map(|row| Some(second(row) as i64 * 1_000_000))
        .collect();
    let keys: StringArray = std::iter::repeat_n(Some("ada"), ROWS).collect();
    let mut all: Vec<(String, ArrayRef)> = vec![
        ("customer".into(), Arc::new(keys)),
        ("as_of".into(), Arc::new(times.with_timezone("UTC"))),
    ];
    let own = columns.iter().enumerate();
    all.extend(own.map(|(place, column)| (name(place), column.array())));
    let all = all.into_iter().map(|(name, array)| (name, array, true));
    RecordBatch::try_from_iter_with_nullable(all).unwrap()
}

/// The records of a CSV text; an empty cell without quotes is null.
fn records(text: &str) -> Vec<Vec<Option<String>>> {
    let (mut records, mut record, mut cell) = (Vec::new(), Vec::new(), String::new());
    let (mut open, mut was_quoted) = (false, false);
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '"' if open && rest.peek() == Some(&'"') => cell.extend(rest.next()),
            '"' => {
                open = !open;
                was_quoted = true;
            }
            ',' | '\n' if !open => {
                let taken = std::mem::take(&mut cell);
                record.push((was_quoted || !taken.is_empty()).then_some(taken));
                was_quoted = false;
                if c == '\n' {
                    records.push(std::mem::take(&mut record));
                }
            }
            c => cell.push(c),
        }
    }
    records
}

fn table(bytes: &[u8], format: BodyFormat) -> RecordBatch {
    let batches = read_record_batches(format, bytes).unwrap();
    let batches: Vec<RecordBatch> = batches.map(Result::unwrap).collect();
    concat_batches(&batches[0].schema(), &batches).unwrap()
}

fn as_csv(table: &RecordBatch) -> String {
    let mut out = Vec::new();
    let schema = table.schema();
    let mut writer = TableWriter::new(OutputFormat::Csv, &schema, Box::new(&mut out)).unwrap();
    writer.write(table).unwrap();
    writer.finish().unwrap();
    String::from_utf8(out).unwrap()
}

struct Shop {
    project: TempProject,
    engine: headwater::Engine,
    request: TrainingSetRequest,
}

impl Shop {
    fn new() -> Self {
        let project = TempProject::new(BINARY, SHOP);
        project.run_ok(&["apply"]);
        let facts = (0..20).map(|i| {
            let (amount, time) = (f64::from(i) * 1.1, i * 2_000_000);
            format!(
                "{{\"id\":\"f{i}\",\"customer\":\"ada\",\"amount\":{amount},\"time\":{time}}}\n"
            )
        });
        project.write("facts.ndjson", facts.collect::<String>());
        project.run_ok(&["ingest", "purchase", "facts.ndjson"]);
        let config = headwater::Config::named("shop");
        let engine = crate::open_engine(&config, &project.path().join(".headwater"));
        Self {
            project,
            engine,
            request: TrainingSetRequest {
                names: Names::Set("customer_now".to_owned()),
                inclusive: false,
                known_at: None,
                facts_until: None,
                time: "as_of".to_owned(),
                labels: Vec::new(),
                labels_as_of: None,
            },
        }
    }

    fn make(&self, spine: &str, out: &str) -> Vec<u8> {
        let at = |name: &str| self.project.path().join(name);
        let made = self.engine.write_training_set(
            &self.request,
            &at(spine),
            Path::new(&at(out)),
            None,
            &ProgressHook::default(),
        );
        made.unwrap_or_else(|problem| panic!("{spine} to {out}: {problem}"));
        std::fs::read(at(out)).unwrap()
    }

    /// Makes tables of a spine in every format; the features of its rows.
    fn check(&self, spine: &str, columns: &[Carried], given: Option<&RecordBatch>) -> String {
        let text = String::from_utf8(self.make(spine, "t.csv")).unwrap();
        let arrow = table(&self.make(spine, "t.arrow"), BodyFormat::ArrowStream);
        let parquet = table(&self.make(spine, "t.parquet"), BodyFormat::Parquet);
        assert_eq!(as_csv(&arrow), text, "{spine} to arrow");
        assert_eq!(as_csv(&parquet), text, "{spine} to parquet");
        if let Some(given) = given {
            for place in 0..given.num_columns() {
                assert_eq!(arrow.column(place), given.column(place), "{spine}");
                assert_eq!(parquet.column(place), given.column(place), "{spine}");
            }
        }
        let records = records(&text);
        let names = |place: usize| records[0][2 + place].clone().unwrap_or_default();
        let mut features = String::new();
        for (row, record) in records[1..].iter().enumerate() {
            for (place, column) in columns.iter().enumerate() {
                assert_eq!(names(place), name(place), "{spine}");
                column.check(row, &record[2 + place], spine);
            }
            writeln!(features, "{:?}", &record[2 + columns.len()..]).unwrap();
        }
        assert_eq!(records.len(), ROWS + 1, "{spine}");
        features
    }
}

#[test]
fn a_spine_in_any_format_gives_the_same_set_in_any_other_and_carries_its_columns() {
    let shop = Shop::new();
    let config = ProptestConfig {
        cases: 48,
        ..ProptestConfig::default()
    };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let columns = prop::collection::vec(carried(), 1..9);
    let run = runner.run(&columns, |columns| {
        let batch = batch(&columns);
        shop.project.write("s.csv", csv(&columns));
        shop.project.write("s.ndjson", ndjson(&columns));
        let mut stream = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
        stream.write(&batch).unwrap();
        shop.project.write("s.arrow", stream.into_inner().unwrap());
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        shop.project.write("s.parquet", bytes);
        let features = shop.check("s.csv", &columns, None);
        assert_eq!(features.lines().count(), ROWS);
        assert!(features.contains("Some(\"4\")"), "{features}");
        assert_eq!(shop.check("s.ndjson", &columns, None), features);
        for spine in ["s.arrow", "s.parquet"] {
            assert_eq!(shop.check(spine, &columns, Some(&batch)), features);
        }
        Ok(())
    });
    run.unwrap();
}

#[test]
fn what_no_type_of_a_column_holds_is_named_with_its_row() {
    let shop = Shop::new();
    let request = &shop.request;
    let cases = [
        ("\"much\"", "7", "`extra`", "A string is expected"),
        ("1", &"9".repeat(39), "`extra`", "decimal(38,0)"),
        ("[1]", "{\"a\":1}", "`extra`", "A string is expected"),
        ("{}", "{}", "`extra`", "A string is expected"),
    ];
    for (first, second, column, words) in cases {
        let row = |value: &str| format!("{{\"customer\":\"ada\",\"as_of\":1,\"extra\":{value}}}\n");
        let spine = row(first) + &row(second);
        shop.project.write("w.ndjson", spine);
        let at = |name: &str| shop.project.path().join(name);
        let made = shop.engine.write_training_set(
            request,
            &at("w.ndjson"),
            &at("w.csv"),
            None,
            &ProgressHook::default(),
        );
        let said = made.unwrap_err();
        let text = format!("{said} {:?} {:?} {}", said.field, said.hint, said.detail);
        assert!(text.contains(words), "no {words} in {text}");
        assert!(text.contains(column.trim_matches('`')), "{text}");
        assert!(
            text.contains("row ") && text.contains("as text in every row"),
            "{text}"
        );
        assert!(!at("w.csv").exists());
    }
}
