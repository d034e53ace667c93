//! Decoding of good, bad and meaningless bodies.

use std::fmt::Write as _;

use arrow::array::Array;
use arrow::ipc::writer::StreamWriter;
use parquet::basic::Compression;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::Value;

const CONTRACT: &str = "
kind: DataContract
apiVersion: v3.1.0
id: x
status: active
version: 1.0.0
schema:
  - name: all
    properties:
      - {name: id, logicalType: string}
      - {name: t, logicalType: timestamp}
      - {name: i, logicalType: integer, logicalTypeOptions: {minimum: -5, exclusiveMaximum: 100, multipleOf: 5}}
      - {name: f, logicalType: number, logicalTypeOptions: {maximum: 1000}}
      - {name: d, logicalType: number, physicalType: 'decimal(6,2)', logicalTypeOptions: {minimum: 0.5}}
      - {name: s, logicalType: string, logicalTypeOptions: {minLength: 1, maxLength: 5, pattern: '^[a-z]*$'}}
      - {name: e, logicalType: string, quality: [{metric: invalidValues, mustBe: 0, arguments: {validValues: [red, green]}}]}
      - {name: b, logicalType: boolean}
      - {name: y, logicalType: string, physicalType: bytes}
      - {name: day, logicalType: date, logicalTypeOptions: {minimum: '2000-01-01'}}
      - {name: l, logicalType: array, items: {logicalType: integer, required: true}, logicalTypeOptions: {maxItems: 3, uniqueItems: true}}
      - {name: o, logicalType: object, properties: [{name: x, logicalType: integer, required: true}, {name: z, logicalType: string}]}
      - {name: m, logicalType: object, physicalType: 'map<string,double>'}
    customProperties:
      - {property: headwater.eventTime, value: t}
      - {property: headwater.factId, value: id}
";

fn contract_of(text: &str) -> Contract {
    match Contract::parse_yaml("c.yaml", text) {
        Ok(mut all) => all.remove(0),
        Err(problems) => panic!("{problems:?}"),
    }
}

fn contract() -> &'static Contract {
    static CONTRACT_ONCE: std::sync::OnceLock<Contract> = std::sync::OnceLock::new();
    CONTRACT_ONCE.get_or_init(|| contract_of(CONTRACT))
}

fn read(format: BodyFormat, body: &str) -> Decoded {
    decode(
        contract(),
        format,
        body.as_bytes(),
        &DecodeLimits::default(),
    )
    .unwrap()
}

fn row(decoded: &Decoded, row: usize) -> serde_json::Value {
    let schema = decoded.batch.columns.schema();
    let members = schema.fields().iter().zip(decoded.batch.columns.columns());
    let member = |(f, c): (
        &std::sync::Arc<arrow::datatypes::Field>,
        &arrow::array::ArrayRef,
    )| {
        (
            f.name().clone(),
            value_to_json(&Value::from_array(c.as_ref(), row)),
        )
    };
    let members = members.map(member).filter(|(_, v)| !v.is_null());
    serde_json::Value::Object(members.collect())
}

const ROW: &str = r#"{"id":"a","t":"2013-01-01T10:17:00.5-05:00","i":10,"f":1.5,"d":12.30,"s":"abc","e":"red","b":true,"y":"AAEC","day":"2013-01-31","l":[1,2],"o":{"x":1,"z":"q"},"m":{"k":1,"j":2.5}}"#;

#[test]
fn a_row_of_every_type_reads_and_writes_back() {
    for (format, body) in [
        (BodyFormat::Json, format!("[{ROW}]")),
        (BodyFormat::Json, ROW.to_owned()),
        (BodyFormat::Ndjson, format!("\n{ROW}\r\n\n")),
    ] {
        let decoded = read(format, &body);
        assert!(decoded.rejected.is_empty(), "{:?}", decoded.rejected);
        let mut expected: serde_json::Value = serde_json::from_str(ROW).unwrap();
        expected["t"] = json!("2013-01-01T15:17:00.5Z");
        expected["d"] = json!("12.30");
        expected["m"] = json!({"k": 1.0, "j": 2.5});
        assert_eq!(row(&decoded, 0), expected);
        assert_eq!(decoded.batch.columns.schema(), contract().arrow_schema());
        assert_eq!(decoded.batch.event_times, [1_357_053_420_500_000]);
        assert_eq!(decoded.batch.fact_ids.as_ref().unwrap().value(0), "a");
    }
}

#[test]
fn each_broken_rule_rejects_its_row_alone() {
    let t = r#""t":"2013-01-01T00:00:00Z""#;
    for (members, field, rule) in [
        (r#""i":1.0"#, "i", "type"),
        (r#""i":1e1"#, "i", "type"),
        (r#""i":"5""#, "i", "type"),
        (r#""i":true"#, "i", "type"),
        (r#""i":9223372036854775808"#, "i", "overflow"),
        (r#""i":-10"#, "i", "minimum"),
        (r#""i":100"#, "i", "exclusiveMaximum"),
        (r#""i":7"#, "i", "multipleOf"),
        (r#""f":"1.5""#, "f", "type"),
        (r#""f":1e999"#, "f", "overflow"),
        (r#""f":1000.5"#, "f", "maximum"),
        (r#""d":1.234"#, "d", "type"),
        (r#""d":12345"#, "d", "type"),
        (r#""d":0.49"#, "d", "minimum"),
        (r#""s":7"#, "s", "type"),
        (r#""s":"""#, "s", "minLength"),
        (r#""s":"abcdef""#, "s", "maxLength"),
        (r#""s":"A""#, "s", "pattern"),
        (r#""s":"\ud800""#, "", "syntax"),
        (r#""e":"rde""#, "e", "validValues"),
        (r#""b":0"#, "b", "type"),
        (r#""y":"?""#, "y", "type"),
        (r#""day":"2013-02-29""#, "day", "type"),
        (r#""day":"1999-12-31""#, "day", "minimum"),
        (r#""l":5"#, "l", "type"),
        (r#""l":[1,"2"]"#, "l[1]", "type"),
        (r#""l":[1,null]"#, "l[1]", "required"),
        (r#""l":[1,2,3,4]"#, "l", "maxItems"),
        (r#""l":[1,1]"#, "l", "uniqueItems"),
        (r#""o":[]"#, "o", "type"),
        (r#""o":{"x":"1"}"#, "o.x", "type"),
        (r#""o":{"z":"1"}"#, "o.x", "required"),
        (r#""o":{"x":1,"x":2}"#, "o.x", "duplicate-key"),
        (r#""m":{"k":"1"}"#, "m.k", "type"),
        (r#""m":{"k":1,"k":2}"#, "m.k", "duplicate-key"),
        (r#""i":5,"i":5"#, "i", "duplicate-key"),
        (r#""new":5,"new":5"#, "new", "duplicate-key"),
        (r#""t":"2013-01-01T00:00:00Z""#, "t", "duplicate-key"),
    ] {
        let bad = format!("{{\"id\":\"x\",{t},{members}}}");
        let body = format!("[{ROW},\n {bad} ,{}]", ROW.replacen("\"a\"", "\"b\"", 1));
        let decoded = read(BodyFormat::Json, &body);
        let lines = read(
            BodyFormat::Ndjson,
            &format!("{ROW}\n{bad}\n{}", ROW.replacen("\"a\"", "\"b\"", 1)),
        );
        assert_eq!(decoded.rejected, lines.rejected, "{bad}");
        assert_eq!(decoded.row_numbers, [0, 2], "{bad}: {:?}", decoded.rejected);
        let rejected = &decoded.rejected[0];
        assert_eq!(
            (
                rejected.row,
                rejected.field.as_deref().unwrap_or(""),
                rejected.rule.as_str()
            ),
            (1, field, rule),
            "{rejected:?}"
        );
        assert_eq!(rejected.raw, bad);
        assert!(!rejected.reason.is_empty());
        // What the bad row left half done is gone.
        let clean = read(
            BodyFormat::Json,
            &format!("[{ROW},{}]", ROW.replacen("\"a\"", "\"b\"", 1)),
        );
        assert_eq!(decoded.batch.columns, clean.batch.columns, "{bad}");
        assert_eq!(decoded.batch.fact_ids, clean.batch.fact_ids);
    }
}

#[test]
fn rows_need_their_time_and_id() {
    for (bad, field, rule) in [
        (r#"{"t":"2013-01-01T00:00:00Z"}"#, "id", "required"),
        (
            r#"{"id":null,"t":"2013-01-01T00:00:00Z"}"#,
            "id",
            "required",
        ),
        (r#"{"id":"a"}"#, "t", "required"),
        (r#"{"id":"a","t":"2013-01-01T00:00:00"}"#, "t", "type"),
        (r#"{"id":"a","t":1357000000}"#, "t", "type"),
        ("7", "", "type"),
        ("null", "", "type"),
    ] {
        let decoded = read(BodyFormat::Json, &format!("[{bad}]"));
        let rejected = &decoded.rejected[0];
        assert_eq!(
            (
                rejected.field.as_deref().unwrap_or(""),
                rejected.rule.as_str()
            ),
            (field, rule),
            "{rejected:?}"
        );
        assert!(decoded.batch.is_empty());
    }
}

#[test]
fn broken_json_costs_a_line_or_the_body() {
    let decoded = read(
        BodyFormat::Ndjson,
        &format!("{{\"id\":\n{ROW}\n{ROW} x\n[]\nnonsense"),
    );
    assert_eq!(decoded.row_numbers, [1]);
    let rules: Vec<&str> = decoded.rejected.iter().map(|r| r.rule.as_str()).collect();
    assert_eq!(rules, ["syntax", "syntax", "type", "syntax"]);
    for body in [
        "",
        " ",
        "7",
        "[",
        "[{]",
        "[{} {}]",
        "[{\"a\":1,}]",
        "[{\"a\" 1}]",
        "[1,]",
        "[] x",
        "{} {}",
        "[{\"a\":tru}]",
        "[\"\u{1}\"]",
        "[01]",
        "[-]",
        "[1.]",
        "[1e]",
        "\u{0}",
    ] {
        let problem = decode(
            contract(),
            BodyFormat::Json,
            body.as_bytes(),
            &DecodeLimits::default(),
        )
        .unwrap_err();
        assert_eq!(problem.code, "bad-json", "{body}");
        assert!(!problem.hint.is_empty());
    }
    assert!(
        decode(
            contract(),
            BodyFormat::Json,
            b"[\xff]",
            &DecodeLimits::default()
        )
        .is_err()
    );
    let lines = [b"\xff\xfe\n".as_slice(), ROW.as_bytes()].concat();
    let decoded = decode(
        contract(),
        BodyFormat::Ndjson,
        &lines,
        &DecodeLimits::default(),
    )
    .unwrap();
    assert_eq!((decoded.rejected.len(), decoded.row_numbers), (1, vec![1]));
}

#[test]
fn unknown_fields_are_kept_and_counted() {
    let extra = ROW
        .replacen("{", r#"{"new":{"a":[1, 2]},"o2":null,"#, 1)
        .replacen(r#""z":"q""#, r#""z":"q","w":1.50"#, 1);
    let decoded = read(BodyFormat::Json, &format!("[{ROW},{extra},{{}}]"));
    assert_eq!((decoded.unknown_fields, decoded.rejected.len()), (3, 1));
    let unknown = decoded.batch.unknown_fields.unwrap();
    assert_eq!(unknown.len(), 2);
    assert_eq!(
        unknown.value(1),
        r#"{"new":{"a":[1, 2]},"o2":null,"o.w":1.50}"#
    );
}

#[test]
fn limits_are_named() {
    let limits = DecodeLimits {
        body_bytes_max: 10_000,
        rows_max: 2,
        row_bytes_max: 300,
        nesting_max: 8,
    };
    let contract = contract();
    let try_it = |body: &str| decode(contract, BodyFormat::Json, body.as_bytes(), &limits);
    assert_eq!(
        try_it(&" ".repeat(10_001)).unwrap_err().code,
        "body-too-large"
    );
    assert_eq!(try_it("[{},{},{}]").unwrap_err().code, "too-many-rows");
    let long = format!("[{{\"s\":\"{}é\"}}]", "x".repeat(292));
    let decoded = try_it(&long).unwrap();
    assert_eq!(decoded.rejected[0].rule, "row-too-large");
    assert!(decoded.rejected[0].raw.len() <= 300);
    let deep = format!("[{{\"n\":{}{}}}]", "[".repeat(9), "]".repeat(9));
    let decoded = try_it(&deep.replace("}]", "},{}]")).unwrap();
    assert_eq!(
        (decoded.rejected[0].rule.as_str(), decoded.rejected.len()),
        ("nesting", 2)
    );
}

#[test]
fn batches_follow_one_another() {
    let body: String = (0..10)
        .map(|i| {
            if i == 3 {
                "{}\n".to_owned()
            } else {
                ROW.replace("\"a\"", &format!("\"{i}\"")) + "\n"
            }
        })
        .collect();
    let mut sizes = Vec::new();
    let mut numbers = Vec::new();
    decode_each(
        contract(),
        BodyFormat::Ndjson,
        body.as_bytes(),
        &DecodeLimits::files(),
        4,
        &mut |decoded| {
            sizes.push((decoded.batch.len(), decoded.rejected.len()));
            numbers.extend(decoded.row_numbers);
            assert_eq!(
                decoded.batch.fact_ids.as_ref().map(|ids| ids.len()),
                Some(decoded.batch.len())
            );
            Ok(())
        },
    )
    .unwrap();
    assert_eq!(sizes, [(3, 1), (4, 0), (2, 0)]);
    assert_eq!(numbers, [0, 1, 2, 4, 5, 6, 7, 8, 9]);
}

#[test]
fn csv_tells_null_from_empty() {
    let text = "id,t,i,f,s,b,l,extra\r\na,2013-01-01T00:00:00Z,5,NaN,\"abc\",true,\"[1,2]\",\r\n\
                b,2013-01-01T00:00:00Z,,,,,,\"x,\"\"y\"\r\n\
                c,2013-01-01T00:00:00Z,,,\"\",,,\r\n\
                d,2013-01-01T00:00:00Z,5.0,,,,,\r\n\
                e,2013-01-01T00:00:00Z,5\r\n\
                f,2013-01-01T00:00:00Z,,,a\"b,,,\r\n\
                g,2013-01-01T00:00:00Z,,,\"ab\ncd\",,,\r\n\
                h,2013-01-01T00:00:00Z,,1e999,,,,";
    let decoded = read(BodyFormat::Csv, text);
    let seen: Vec<_> = decoded
        .rejected
        .iter()
        .map(|r| (r.row, r.rule.as_str()))
        .collect();
    assert_eq!(
        seen,
        [
            (2, "minLength"),
            (3, "type"),
            (4, "syntax"),
            (5, "syntax"),
            (6, "pattern"),
            (7, "type")
        ],
        "{:?}",
        decoded.rejected
    );
    assert_eq!(decoded.row_numbers, [0, 1]);
    assert_eq!(row(&decoded, 0)["l"], json!([1, 2]));
    assert_eq!(row(&decoded, 0)["f"], json!("NaN"));
    assert_eq!(
        row(&decoded, 1),
        json!({"id": "b", "t": "2013-01-01T00:00:00Z"})
    );
    assert_eq!(
        decoded.batch.unknown_fields.unwrap().value(1),
        "{\"extra\":\"x,\\\"y\"}"
    );
    // What is rejected can be mended and sent again as JSON.
    let raw: serde_json::Value = serde_json::from_str(&decoded.rejected[1].raw).unwrap();
    assert_eq!(
        raw,
        json!({"id": "d", "t": "2013-01-01T00:00:00Z", "i": 5.0, "f": null, "s": null, "b": null, "l": null, "extra": null})
    );
    assert_eq!(decoded.rejected[2].raw, "e,2013-01-01T00:00:00Z,5");
}

#[test]
fn csv_without_a_usable_header_is_a_problem() {
    for text in ["", "a,\"b", "a,a\n", "{}", "x,1\ny,2\n"] {
        assert!(
            decode(
                contract(),
                BodyFormat::Csv,
                text.as_bytes(),
                &DecodeLimits::default()
            )
            .is_err(),
            "{text}"
        );
    }
}

fn ipc(batch: &arrow::array::RecordBatch) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = StreamWriter::try_new(&mut bytes, &batch.schema()).unwrap();
    writer.write(batch).unwrap();
    writer.finish().unwrap();
    drop(writer);
    bytes
}

fn parquet_bytes(batch: &arrow::array::RecordBatch) -> Vec<u8> {
    packed_parquet(batch, Compression::UNCOMPRESSED)
}

fn packed_parquet(batch: &arrow::array::RecordBatch, compression: Compression) -> Vec<u8> {
    let properties = parquet::file::properties::WriterProperties::builder();
    let properties = Some(properties.set_compression(compression).build());
    let mut bytes = Vec::new();
    let mut writer =
        parquet::arrow::ArrowWriter::try_new(&mut bytes, batch.schema(), properties).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
    bytes
}

#[test]
fn columns_come_from_arrow_and_parquet() {
    let json = read(
        BodyFormat::Json,
        &format!("[{ROW},{}]", r#"{"id":"n","t":"2013-01-01T00:00:00Z"}"#),
    );
    for (format, body) in [
        (BodyFormat::ArrowStream, ipc(&json.batch.columns)),
        (BodyFormat::Parquet, parquet_bytes(&json.batch.columns)),
    ] {
        let decoded = decode(contract(), format, &body, &DecodeLimits::default()).unwrap();
        assert!(decoded.rejected.is_empty(), "{:?}", decoded.rejected);
        assert_eq!(decoded.batch.columns, json.batch.columns);
        assert_eq!(decoded.batch.fact_ids, json.batch.fact_ids);
        // Damage is a problem, never a panic.
        for at in (0..body.len()).step_by(7) {
            let mut bad = body.clone();
            bad[at] ^= 0x55;
            if format == BodyFormat::ArrowStream {
                let _ = decode(contract(), format, &bad[..at], &DecodeLimits::default());
            }
        }
    }
}

#[test]
fn parquet_is_read_however_it_is_packed() {
    let json = read(BodyFormat::Json, &format!("[{ROW}]"));
    for compression in [
        Compression::SNAPPY,
        Compression::GZIP(Default::default()),
        Compression::BROTLI(Default::default()),
        Compression::LZ4,
        Compression::LZ4_RAW,
        Compression::ZSTD(Default::default()),
    ] {
        let body = packed_parquet(&json.batch.columns, compression);
        let limits = DecodeLimits::default();
        let decoded = decode(contract(), BodyFormat::Parquet, &body, &limits).unwrap();
        assert_eq!(decoded.batch.columns, json.batch.columns, "{compression}");
    }
}

#[test]
fn streams_that_are_empty_or_cut_off_are_problems() {
    let whole = ipc(&read(BodyFormat::Json, ROW).batch.columns);
    for body in [&b""[..], &whole[..whole.len() / 2], b"PAR1"] {
        for format in [BodyFormat::ArrowStream, BodyFormat::Parquet] {
            let problem = decode(contract(), format, body, &DecodeLimits::default()).unwrap_err();
            assert_eq!(problem.code, "bad-columns");
        }
    }
}

#[test]
fn arrow_types_are_fitted_or_refused() {
    use arrow::array::{
        ArrayRef, DictionaryArray, Float64Array, Int16Array, Int32Array, Int64Array,
        LargeStringArray, RecordBatch, StringArray, TimestampNanosecondArray,
    };
    use arrow::datatypes::Int32Type;
    use std::sync::Arc;
    let ids: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
    let times: ArrayRef =
        Arc::new(TimestampNanosecondArray::from(vec![1_500, 2_999]).with_timezone("UTC"));
    let with = |extra: Vec<(&str, ArrayRef)>| {
        let columns = [
            vec![("id", Arc::clone(&ids)), ("t", Arc::clone(&times))],
            extra,
        ]
        .concat();
        let batch = RecordBatch::try_from_iter_with_nullable(
            columns.into_iter().map(|(n, a)| (n, a, true)),
        )
        .unwrap();
        decode(
            contract(),
            BodyFormat::ArrowStream,
            &ipc(&batch),
            &DecodeLimits::default(),
        )
    };
    let decoded = with(vec![
        ("i", Arc::new(Int32Array::from(vec![Some(5), None]))),
        (
            "f",
            Arc::new(Int64Array::from(vec![Some(7), Some((1 << 53) + 1)])),
        ),
        ("s", Arc::new(LargeStringArray::from(vec!["ab", "cd"]))),
        (
            "e",
            Arc::new(DictionaryArray::<Int32Type>::from_iter(["red", "green"])),
        ),
        ("extra", Arc::new(Int16Array::from(vec![Some(1), None]))),
    ])
    .unwrap();
    assert_eq!(decoded.batch.event_times, [1]);
    assert_eq!(
        row(&decoded, 0),
        json!({"id": "a", "t": "1970-01-01T00:00:00.000001Z", "i": 5, "f": 7.0, "s": "ab", "e": "red"})
    );
    assert_eq!(decoded.unknown_fields, 1);
    assert_eq!(
        (
            decoded.rejected[0].row,
            decoded.rejected[0].field.as_deref()
        ),
        (1, Some("f"))
    );
    assert!(
        decoded.rejected[0].raw.contains("9007199254740993"),
        "{}",
        decoded.rejected[0].raw
    );
    for (name, array) in [
        (
            "i",
            Arc::new(Float64Array::from(vec![5.0, 5.0])) as ArrayRef,
        ),
        ("s", Arc::new(Int64Array::from(vec![5, 5]))),
        ("b", Arc::new(StringArray::from(vec!["true", "x"]))),
    ] {
        let problem = with(vec![(name, array)]).unwrap_err();
        assert_eq!(
            (problem.code, problem.field.as_deref()),
            ("wrong-type", Some(name))
        );
    }
}

#[test]
fn local_times_and_integer_times_need_the_contract() {
    let text = "
kind: DataContract
apiVersion: v3.1.0
id: x
status: active
version: 1.0.0
schema:
  - name: c
    properties:
      - {name: t, logicalType: TYPE}
    customProperties:
      - {property: headwater.eventTime, value: t}
      - {property: headwater.timeUnit, value: s}
      - {property: headwater.timeZone, value: America/New_York}
";
    let read = |kind: &str, value: &str| {
        let contract = contract_of(&text.replace("TYPE", kind));
        let body = format!("{{\"t\":{value}}}");
        let decoded = decode(
            &contract,
            BodyFormat::Json,
            body.as_bytes(),
            &DecodeLimits::default(),
        )
        .unwrap();
        assert!(decoded.batch.fact_ids.is_none());
        decoded.batch.event_times.first().copied()
    };
    assert_eq!(
        read("timestamp", "\"2013-01-01T05:17:00\""),
        Some(1_357_035_420_000_000)
    );
    assert_eq!(read("timestamp", "1357035420"), Some(1_357_035_420_000_000));
    assert_eq!(read("timestamp", "1357035420.5"), None);
    assert_eq!(read("integer", "1357035420"), Some(1_357_035_420_000_000));
    assert_eq!(read("integer", "9223372036854775807"), None);
    assert_eq!(read("date", "\"2013-01-01\""), Some(1_357_016_400_000_000));
}

#[test]
fn values_of_json_are_those_of_serde() {
    // The scanner against a reader that shares no code with it.
    let names = ["a", "b", "c", "i", "f", "s", "t", "o"];
    let value = prop_oneof![
        any::<i64>().prop_map(|v| json!(v)),
        any::<f64>().prop_map(|v| json!(v)),
        "\\PC{0,8}".prop_map(|v| json!(v)),
        any::<bool>().prop_map(|v| json!(v)),
        Just(json!([1, {"a": "\u{1F600}\n\"\\"}])),
        Just(json!(null)),
    ];
    proptest!(|(members in prop::collection::btree_map(prop::sample::select(names.to_vec()), value, 0..6), pretty in any::<bool>())| {
        let object = serde_json::Value::Object(members.into_iter().map(|(k, v)| (k.to_owned(), v)).collect());
        let text = if pretty { serde_json::to_string_pretty(&object).unwrap() } else { object.to_string() };
        let mut scanner = scanner::Scanner::new(&text, 64);
        prop_assert!(scanner.skip().is_ok());
        prop_assert_eq!(scanner.position(), text.len());
        let mut scanner = scanner::Scanner::new(&text, 64);
        scanner.accept(b'{');
        let mut first = true;
        while scanner.more(b'}', first).unwrap() {
            first = false;
            let key = scanner.key().unwrap().into_owned();
            let expected = &object[&key];
            match scanner.kind().unwrap() {
                scanner::Kind::Text => prop_assert_eq!(&json!(scanner.string().unwrap()), expected),
                scanner::Kind::Number => {
                    let number = scanner.number().unwrap();
                    if number.is_whole {
                        prop_assert_eq!(number.text.parse::<i64>().ok(), expected.as_i64());
                    } else {
                        prop_assert_eq!(number.text.parse::<f64>().ok(), expected.as_f64());
                    }
                }
                _ => scanner.skip().unwrap(),
            }
        }
    });
}

proptest! {
    #[test]
    fn the_scanner_accepts_what_serde_accepts(text in "[\\[\\]{}\",:0-9.eE+tfn\\\\ua-]{0,24}") {
        let mut scanner = scanner::Scanner::new(&text, 64);
        let ours = scanner.skip().is_ok() && scanner.peek().is_none();
        let theirs = serde_json::from_str::<&serde_json::value::RawValue>(&text).is_ok();
        prop_assert_eq!(ours, theirs, "{}", text);
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let contract = contract();
        for format in [BodyFormat::Json, BodyFormat::Ndjson, BodyFormat::Csv, BodyFormat::ArrowStream, BodyFormat::Parquet] {
            let _ = decode(contract, format, &bytes, &DecodeLimits::default());
        }
    }

    #[test]
    fn damaged_rows_never_panic_nor_leak(edits in prop::collection::vec((any::<prop::sample::Index>(), "[\"{}\\[\\],:0-9a\\\\]"), 1..5)) {
        let mut text = ROW.to_owned();
        for (at, with) in edits {
            let at = at.index(text.len());
            if text.is_char_boundary(at) && text.is_char_boundary(at + 1) {
                text.replace_range(at..=at, &with);
            }
        }
        let mut body = String::new();
        writeln!(body, "{}\n{text}\n{}", ROW, ROW.replacen("\"a\"", "\"b\"", 1)).unwrap();
        let decoded = read(BodyFormat::Ndjson, &body);
        prop_assert_eq!(decoded.batch.len() + decoded.rejected.len(), 3);
        prop_assert_eq!(decoded.batch.columns.num_rows(), decoded.row_numbers.len());
        let clean = read(BodyFormat::Ndjson, ROW);
        prop_assert_eq!(row(&decoded, 0), row(&clean, 0));
        for format in [BodyFormat::Csv, BodyFormat::Json] {
            let _ = decode(contract(), format, text.as_bytes(), &DecodeLimits::default());
        }
    }
}
