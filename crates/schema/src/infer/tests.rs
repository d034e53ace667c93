//! Inferred contracts: they read, they are right, and their sample keeps them.

use proptest::prelude::*;

use super::*;
use crate::Contract;
use crate::decode::{DecodeLimits, decode};

/// Infers, and checks that the contract reads and takes every row of its sample.
fn infer(format: BodyFormat, sample: &[u8]) -> (Contract, String) {
    let text = infer_contract("sample", format, sample).unwrap();
    let contract = match Contract::parse_yaml("c.yaml", &text) {
        Ok(mut all) => all.remove(0),
        Err(problems) => panic!("{problems:?}\n{text}"),
    };
    let decoded = decode(&contract, format, sample, &DecodeLimits::default()).unwrap();
    assert!(
        decoded.rejected.is_empty(),
        "{:?}\n{text}",
        decoded.rejected
    );
    assert_eq!(decoded.unknown_fields, 0);
    (contract, text)
}

fn types(contract: &Contract) -> Vec<String> {
    let shown = |f: &crate::FieldSpec| {
        format!(
            "{}{}:{}",
            f.name,
            if f.required { "!" } else { "" },
            f.data_type
        )
    };
    contract.fields.iter().map(shown).collect()
}

#[test]
fn ndjson() {
    let sample = br#"{"event_id":"a","created_at":"2013-01-01T00:00:00Z","time":"2013-01-01T00:00:00Z","n":1,"x":1,"b":true,"tags":["p"],"o":{"k":1},"who":null,"mix":null}
{"event_id":"b","created_at":"2013-01-01T00:00:01Z","time":"2013-01-01T00:00:01Z","n":2,"x":2.5,"b":false,"tags":[],"o":{"k":2,"l":"2013-01-01"},"mix":"x"}"#;
    let (contract, text) = infer(BodyFormat::Ndjson, sample);
    assert_eq!(
        types(&contract),
        [
            "event_id!:string",
            "created_at!:timestamp",
            "time!:timestamp",
            "n!:int64",
            "x!:float64",
            "b!:bool",
            "tags!:list<string>",
            "o!:struct<k:int64,l:date>",
            "who:string",
            "mix:string"
        ]
    );
    assert_eq!(contract.fields[contract.event_time].name.as_ref(), "time");
    assert_eq!(contract.fact_id, [0]);
    assert!(text.contains("could also be created_at"), "{text}");
}

#[test]
fn csv_with_local_times_codes_and_gaps() {
    let sample = b"flight,zip,time_hour,delay\n1,00501,2013-01-01 05:00:00,\n1,10001,2013-01-01 06:00:00,4\n";
    let (contract, text) = infer(BodyFormat::Csv, sample);
    assert_eq!(
        types(&contract),
        [
            "flight!:int64",
            "zip!:string",
            "time_hour!:timestamp",
            "delay:int64"
        ]
    );
    assert_eq!(contract.time_zone.as_ref().map(|z| z.name()), Some("UTC"));
    assert!(contract.fact_id.is_empty());
    assert!(text.contains("name the zone"), "{text}");
}

#[test]
fn integer_times_and_their_unit() {
    let (contract, _) = infer(
        BodyFormat::Json,
        br#"[{"ts":1357035420123,"v":1},{"ts":1357035420999,"v":2}]"#,
    );
    assert_eq!(contract.time_unit, Some(crate::time::TimeUnit::Millis));
    assert_eq!(types(&contract), ["ts!:int64", "v!:int64"]);
}

#[test]
fn parquet_keeps_its_own_types() {
    let (contract, _) = infer(BodyFormat::Json, br#"[{"id":"a","t":"2013-01-01T00:00:00Z","f":1.0,"o":{"x":1}},{"id":"b","t":"2013-01-01T00:00:00Z"}]"#);
    let decoded = decode(&contract, BodyFormat::Json, br#"[{"id":"a","t":"2013-01-01T00:00:00Z","f":1.0,"o":{"x":1}},{"id":"b","t":"2013-01-01T00:00:00Z"}]"#, &DecodeLimits::default()).unwrap();
    let mut bytes = Vec::new();
    let mut writer =
        parquet::arrow::ArrowWriter::try_new(&mut bytes, contract.arrow_schema(), None).unwrap();
    writer.write(&decoded.batch.columns).unwrap();
    writer.close().unwrap();
    let (again, _) = infer(BodyFormat::Parquet, &bytes);
    assert_eq!(again.fields_as(), contract.fields_as());
    assert_eq!(again.fact_id, contract.fact_id);
}

#[test]
fn samples_without_rows_or_times_are_refused() {
    for (sample, code) in [
        ("", "empty-sample"),
        ("{\"a\":1}", "no-event-time"),
        ("[1]", "bad-json"),
        ("{", "bad-json"),
    ] {
        assert_eq!(
            infer_contract("x", BodyFormat::Ndjson, sample.as_bytes())
                .unwrap_err()
                .code,
            code,
            "{sample}"
        );
    }
}

#[test]
fn odd_names_are_quoted() {
    let (contract, _) = infer(
        BodyFormat::Json,
        "[{\"no\":\"2013-01-01T00:00:00Z\",\"a: b\":1,\"é\\\"\":2}]".as_bytes(),
    );
    assert_eq!(contract.fields[2].name.as_ref(), "é\"");
    let text = infer_contract(
        "2 odd/name",
        BodyFormat::Json,
        b"[{\"t\":\"2013-01-01T00:00:00Z\"}]",
    )
    .unwrap();
    assert!(text.contains("name: _2_odd_name"), "{text}");
}

proptest! {
    #[test]
    fn random_samples_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100), text in "[\\[\\]{}\",:0-9a\\n-]{0,40}") {
        for format in [BodyFormat::Json, BodyFormat::Csv, BodyFormat::ArrowStream, BodyFormat::Parquet] {
            let _ = infer_contract("x", format, &bytes);
            let _ = infer_contract("x", format, text.as_bytes());
        }
    }
}
