//! Targets that come from people and programs outside: definitions, expressions, times, bodies of rows.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::array::{BooleanArray, TimestampMicrosecondArray};
use arrow::ipc::writer::StreamWriter;
use headwater_features::{Catalog, Expression};
use headwater_schema::codec::encode_batch;
use headwater_schema::decode::{BodyFormat, DecodeLimits, Decoded, decode, decode_each};
use headwater_schema::time::{
    Duration, TimeZone, format_date, format_timestamp, parse_date, parse_timestamp,
};
use headwater_schema::yaml::YamlDocument;
use headwater_schema::{Contract, DataType, Field, infer};
use parquet::arrow::ArrowWriter;

use super::Target;
use super::documents;

pub const DEFINITIONS: Target = Target {
    name: "definitions",
    seeds: || documents::texts().map(String::into_bytes).to_vec(),
    words: &[
        "aggregate: ",
        "windows: ",
        "[",
        "{",
        "}",
        "]",
        ": ",
        "- ",
        "---\n",
        "&a ",
        "*a",
        "!!str ",
        "'",
        "\"",
        "|\n",
        "lifetime",
        "rows",
        "session",
        "tumbling",
        "0s",
        "-1d",
        "9999999999w",
        "decimal(99,-1)",
        "array<map<string,list<int>>>",
        "expression: ",
        "unnest: true",
        "element_wise: true",
        "by: ",
        "order_by: ",
        "quantile: [0, 1]",
        "half_life: 1h",
        "hopping: 1h, every: 5m",
        "sawtooth: 2h",
        "align: ",
        "partial: true",
        "offset: ",
        "limit: ",
        "as: ",
        "source: ",
        "view: tastes",
        "view: guests",
        "kind: Label",
        "horizon: ",
        "context: ",
        "on_demand: ",
        "null",
        "~",
        "\t",
    ],
    run: |input| {
        let Ok(text) = std::str::from_utf8(input) else {
            return false;
        };
        let Ok(documents) = YamlDocument::parse_all("fuzz.yaml", text) else {
            return false;
        };
        match Catalog::compile(&documents) {
            Ok(_) => true,
            Err(problems) => {
                assert!(!problems.is_empty(), "refused for no reason");
                false
            }
        }
    },
};

static COLUMNS: LazyLock<(Vec<Field>, RecordBatch)> = LazyLock::new(|| {
    let times = TimestampMicrosecondArray::from(vec![Some(0), None, Some(i64::MAX), Some(-1)]);
    let columns: Vec<(&str, DataType, ArrayRef)> = vec![
        (
            "a",
            DataType::Int64,
            Arc::new(Int64Array::from(vec![
                Some(7),
                None,
                Some(i64::MIN),
                Some(i64::MAX),
            ])),
        ),
        (
            "x",
            DataType::Float64,
            Arc::new(Float64Array::from(vec![
                Some(f64::NAN),
                None,
                Some(-0.0),
                Some(1e308),
            ])),
        ),
        (
            "s",
            DataType::String,
            Arc::new(StringArray::from(vec![
                Some("ada"),
                None,
                Some(""),
                Some("é\u{1F600}\0"),
            ])),
        ),
        (
            "b",
            DataType::Bool,
            Arc::new(BooleanArray::from(vec![
                Some(true),
                None,
                Some(false),
                Some(true),
            ])),
        ),
        (
            "t",
            DataType::Timestamp,
            Arc::new(times.with_timezone("UTC")),
        ),
    ];
    let fields = columns
        .iter()
        .map(|(name, kind, _)| Field::new(*name, kind.clone()));
    let rows = columns
        .iter()
        .map(|(name, _, array)| (*name, array.clone(), true));
    (
        fields.collect(),
        RecordBatch::try_from_iter_with_nullable(rows).expect("columns fit"),
    )
});

pub const EXPRESSIONS: Target = Target {
    name: "expressions",
    seeds: || {
        [
            "CASE WHEN a > 15 THEN 1.0 ELSE 0.0 END",
            "coalesce(x, 0.0) * 2 + abs(a) / 7 % 3 - -1",
            "s LIKE 'a%' AND b OR NOT (a BETWEEN 1 AND 9) AND s IN ('x', 'y''z')",
            "upper(substr(s, 1, 2)) || '-' || trim(s)",
            "CAST(x AS BIGINT) + length(s) + TRY_CAST(s AS INT)",
            "date_part('hour', t) + extract(year FROM t)",
            "date_trunc('day', t + INTERVAL '1 day')",
            "power(x, 2) + round(x, 2) + ln(x) + a::double",
            "regexp_replace(s, '[aeiou]+', '_') = nullif(s, '')",
            "greatest(a, 1, 2) | 3 & 4 << 2",
            // As deep as they may be, so that what makes them longer makes them too deep.
            &format!("a{}", " + a".repeat(400)),
            &format!("a{}", "::int::bigint".repeat(66)),
        ]
        .map(|s| s.as_bytes().to_vec())
        .to_vec()
    },
    words: &[
        "a",
        "x",
        "s",
        "b",
        "t",
        "(",
        ")",
        ",",
        " + ",
        " / ",
        "%",
        "NULL",
        "IS NOT NULL",
        "CASE",
        "WHEN",
        "END",
        "CAST(",
        " AS ",
        "BIGINT",
        "DECIMAL(38,38)",
        "VARCHAR",
        "INTERVAL '999999999 years'",
        "repeat(s, 2)",
        "concat(",
        "'",
        "\"",
        "--",
        "/*",
        "now()",
        "random()",
        "(SELECT 1)",
        "sum(a)",
        "~",
        "ARRAY[",
        "$1",
        "0x",
        "1e999",
        "date_bin(",
        "to_timestamp(",
        "chr(",
        "split_part(",
        "overlay(",
        "lpad(s, 2147483647)",
        "repeat(s, 9223372036854775807)",
        "factorial(a)",
        " IS NULL IS NULL IS NULL IS NULL",
        "coalesce(coalesce(coalesce(",
        " BETWEEN a AND a BETWEEN b AND b",
    ],
    run: |input| {
        let Ok(sql) = std::str::from_utf8(input) else {
            return false;
        };
        let (fields, rows) = &*COLUMNS;
        let Ok(expression) = Expression::compile(sql, fields) else {
            return false;
        };
        if let Ok((values, failed)) = expression.evaluate_counting(rows) {
            assert_eq!(values.len(), rows.num_rows());
            assert_eq!(*values.data_type(), expression.data_type().to_arrow());
            assert!(failed.iter().all(|row| values.is_null(*row)));
        }
        true
    },
};

pub const TIMES: Target = Target {
    name: "times",
    seeds: || {
        [
            "2026-01-15T10:00:00Z",
            "2026-01-15 10:00:00.123456789+14:00",
            "0001-03-15T00:00:00-00:30",
            "2026-03-29T02:30:00",
            "2026-01-31",
            "90s",
            "7d",
        ]
        .map(|s| s.as_bytes().to_vec())
        .to_vec()
    },
    words: &[
        "T",
        "Z",
        "-",
        ":",
        ".",
        "+24:00",
        "24:00:00",
        "23:59:60",
        "9999",
        "-9999",
        "ms",
        "w",
        "[Europe/Berlin]",
    ],
    run: |input| {
        let Ok(text) = std::str::from_utf8(input) else {
            return false;
        };
        let berlin: Result<TimeZone, _> = "Europe/Berlin".parse();
        let mut accepted = false;
        for zone in [None, Some(TimeZone::utc()), berlin.ok()] {
            if let Ok(time) = parse_timestamp(text, zone.as_ref()) {
                let written = format_timestamp(time);
                assert_eq!(parse_timestamp(&written, None), Ok(time), "{written}");
                accepted = true;
            }
        }
        if let Ok(day) = parse_date(text) {
            assert_eq!(parse_date(&format_date(day)), Ok(day));
            accepted = true;
        }
        if let Ok(duration) = text.parse::<Duration>() {
            assert_eq!(duration.to_string().parse(), Ok(duration));
            accepted = true;
        }
        accepted
    },
};

pub const JSON: Target = Target {
    name: "json",
    seeds: || vec![format!("[{}]", documents::ROWS.join(",")).into_bytes()],
    words: JSON_WORDS,
    run: |input| body(BodyFormat::Json, input),
};

pub const NDJSON: Target = Target {
    name: "ndjson",
    seeds: || vec![documents::ndjson().into_bytes()],
    words: JSON_WORDS,
    run: |input| body(BodyFormat::Ndjson, input),
};

const JSON_WORDS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    "\"",
    "\\u",
    "\\ud800",
    ",",
    ":",
    "null",
    "true",
    "\n",
    "\"id\":\"a1\",",
    "\"time\":0,",
    "[[[[[[[[",
    "{\"a\":",
    "\u{feff}",
    "\r\n",
    "1e9999",
    "\"NaN\"",
    "\"2026-13-01\"",
];

pub const CSV: Target = Target {
    name: "csv",
    seeds: || vec![documents::CSV.as_bytes().to_vec()],
    words: &[
        "\"",
        "\"\"",
        ",",
        "\n",
        "\r\n",
        "\r",
        "id,",
        "NaN",
        "inf",
        "{",
        "[",
        "\u{feff}",
        ",,,,,,,,,,,,,,",
    ],
    run: |input| body(BodyFormat::Csv, input),
};

pub const ARROW: Target = Target {
    name: "arrow",
    seeds: || {
        let columns = documents::batch().columns;
        let mut bytes = Vec::new();
        let mut writer = StreamWriter::try_new(&mut bytes, &columns.schema()).expect("a stream");
        writer.write(&columns).expect("written");
        writer.finish().expect("finished");
        drop(writer);
        vec![bytes]
    },
    words: &["\u{1}\u{0}\u{0}\u{0}"],
    run: |input| body(BodyFormat::ArrowStream, input),
};

pub const PARQUET: Target = Target {
    name: "parquet",
    seeds: || {
        let columns = documents::batch().columns;
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, columns.schema(), None).expect("a file");
        writer.write(&columns).expect("written");
        writer.close().expect("closed");
        vec![bytes]
    },
    words: &["PAR1", "PARE"],
    run: |input| body(BodyFormat::Parquet, input),
};

/// What one decoding of a body said, in a form that can be compared: row numbers with stored rows,
/// and the rejections.
fn told(decoded: &Decoded) -> (Vec<usize>, Vec<String>) {
    let rejected = decoded.rejected.iter();
    (
        decoded.row_numbers.clone(),
        rejected
            .map(|r| format!("{} {:?} {}", r.row, r.field, r.rule))
            .collect(),
    )
}

/// Decodes a body whole, and again a few rows at a time: both must say the same. What is accepted
/// has the contract's columns and can be stored and read again.
pub(super) fn body(format: BodyFormat, input: &[u8]) -> bool {
    let limits = DecodeLimits::default();
    let contract: &Contract = documents::contract();
    let Ok(whole) = decode(contract, format, input, &limits) else {
        return false;
    };
    assert_eq!(whole.batch.columns.schema(), contract.arrow_schema());
    assert_eq!(whole.batch.len(), whole.row_numbers.len());
    assert_eq!(whole.batch.len(), whole.batch.columns.num_rows());
    super::stored::round_trip(&whole.batch);
    let (mut rows, mut rejected, mut stored) = (Vec::new(), Vec::new(), 0);
    let parts = decode_each(contract, format, input, &limits, 3, &mut |part| {
        let (some, bad) = told(&part);
        rows.extend(some);
        rejected.extend(bad);
        stored += encode_batch(&part.batch).len();
        Ok(())
    });
    assert!(parts.is_ok(), "in parts: {parts:?}");
    assert_eq!((rows, rejected), told(&whole));
    true
}

pub const INFER: Target = Target {
    name: "infer",
    seeds: || {
        vec![
            documents::ndjson().into_bytes(),
            documents::CSV.as_bytes().to_vec(),
        ]
    },
    words: JSON_WORDS,
    run: |input| {
        let mut accepted = false;
        for format in [BodyFormat::Ndjson, BodyFormat::Csv] {
            if let Ok(text) = infer::infer_contract("fuzzed", format, input) {
                let parsed = Contract::parse_yaml("fuzzed.yaml", &text);
                assert!(parsed.is_ok(), "{parsed:?}\n{text}");
                accepted = true;
            }
        }
        accepted
    },
};
