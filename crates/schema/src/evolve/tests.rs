//! Tests of contract evolution.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Decimal128Type, Float64Type};

use super::*;
use crate::decode::{BodyFormat, DecodeLimits, decode};
use crate::{Contract, Value};

fn contract(version: &str, fields: &str, custom: &str) -> Contract {
    let text = format!(
        "kind: DataContract\napiVersion: v3.1.0\nid: x\nstatus: active\nversion: {version}\nschema:\n  - name: c\n    properties:\n      - {{name: t, logicalType: timestamp}}\n      - {{name: id, logicalType: string}}\n{fields}    customProperties:\n      - {{property: headwater.eventTime, value: t}}\n      - {{property: headwater.factId, value: id}}\n{custom}"
    );
    match Contract::parse_yaml("c.yaml", &text) {
        Ok(mut all) => all.remove(0),
        Err(problems) => panic!("{problems:?}\n{text}"),
    }
}

fn field(definition: &str) -> String {
    format!("      - {{{definition}}}\n")
}

/// The bump and what is said, from one field to another.
fn changed(old: &str, new: &str) -> (Bump, String) {
    let old = contract(
        "1.0.0",
        &if old.is_empty() {
            String::new()
        } else {
            field(old)
        },
        "",
    );
    let new = contract(
        "1.0.0",
        &if new.is_empty() {
            String::new()
        } else {
            field(new)
        },
        "",
    );
    let changes = compare(&old, &new);
    assert!(
        changes
            .iter()
            .all(|c| c.compatible == (c.bump != Bump::Major))
    );
    (
        required_bump(&changes),
        changes.iter().map(|c| c.what.as_str()).collect(),
    )
}

#[test]
fn changes_of_fields_ask_for_their_versions() {
    let range =
        |options: &str| format!("name: a, logicalType: integer, logicalTypeOptions: {{{options}}}");
    let text =
        |options: &str| format!("name: a, logicalType: string, logicalTypeOptions: {{{options}}}");
    let valid = |values: &str| {
        format!(
            "name: a, logicalType: string, quality: [{{metric: invalidValues, mustBe: 0, arguments: {{validValues: [{values}]}}}}]"
        )
    };
    let plain = |kind: &str| format!("name: a, logicalType: {kind}");
    let decimal =
        |digits: &str| format!("name: a, logicalType: number, physicalType: 'decimal({digits})'");
    let object = |members: &str| format!("name: a, logicalType: object, properties: [{members}]");
    for (old, new, bump, part) in [
        (plain("integer"), plain("integer"), Bump::None, ""),
        (
            String::new(),
            plain("integer"),
            Bump::Minor,
            "optional field `a` was added",
        ),
        (
            String::new(),
            format!("{}, required: true", plain("integer")),
            Bump::Major,
            "required field `a` was added",
        ),
        (
            plain("integer"),
            String::new(),
            Bump::Major,
            "`a` was removed",
        ),
        (
            plain("integer"),
            plain("integer").replace("name: a", "name: b"),
            Bump::Major,
            "removed",
        ),
        (
            plain("integer"),
            plain("number"),
            Bump::Major,
            "is float64 and was int64",
        ),
        (
            plain("integer"),
            decimal("21,2"),
            Bump::Minor,
            "is decimal(21,2) and was int64",
        ),
        (plain("integer"), decimal("10,2"), Bump::Major, "decimal"),
        (
            decimal("10,2"),
            decimal("12,2"),
            Bump::Minor,
            "decimal(12,2)",
        ),
        (
            decimal("10,2"),
            decimal("10,3"),
            Bump::Major,
            "decimal(10,3)",
        ),
        (
            plain("string"),
            plain("integer"),
            Bump::Major,
            "is int64 and was string",
        ),
        (
            plain("integer"),
            format!("{}, required: true", plain("integer")),
            Bump::Major,
            "now required",
        ),
        (
            format!("{}, required: true", plain("integer")),
            plain("integer"),
            Bump::Minor,
            "no longer required",
        ),
        (
            range("minimum: 1"),
            range("minimum: 0"),
            Bump::Minor,
            "minimum",
        ),
        (
            range("minimum: 0"),
            range("minimum: 1"),
            Bump::Major,
            "is 1 and was 0",
        ),
        (
            range("maximum: 9"),
            range("maximum: 5"),
            Bump::Major,
            "maximum",
        ),
        (
            range("maximum: 5"),
            range("maximum: 9"),
            Bump::Minor,
            "maximum",
        ),
        (
            plain("integer"),
            range("exclusiveMaximum: 5"),
            Bump::Major,
            "got the rule",
        ),
        (
            range("exclusiveMinimum: 5"),
            plain("integer"),
            Bump::Minor,
            "lost the rule",
        ),
        (
            text("pattern: a"),
            text("pattern: b"),
            Bump::Major,
            "pattern",
        ),
        (
            text("maxLength: 3"),
            text("maxLength: 4"),
            Bump::Minor,
            "maxLength",
        ),
        (
            text("minLength: 3"),
            text("minLength: 4"),
            Bump::Major,
            "minLength",
        ),
        (text("format: uuid"), text(""), Bump::Minor, "format"),
        (
            valid("x, y"),
            valid("x, y, z"),
            Bump::Minor,
            "may also be z",
        ),
        (valid("x, y"), valid("x"), Bump::Major, "may no longer be y"),
        (
            plain("string"),
            valid("x"),
            Bump::Major,
            "limited to a list",
        ),
        (
            plain("integer"),
            format!("{}, description: d", plain("integer")),
            Bump::Patch,
            "Description",
        ),
        (
            plain("integer"),
            format!("{}, businessName: d", plain("integer")),
            Bump::Patch,
            "notes",
        ),
        (
            object("{name: b, logicalType: integer}"),
            object("{name: b, logicalType: integer}, {name: c, logicalType: string}"),
            Bump::Minor,
            "`a.c` was added",
        ),
        (
            object("{name: b, logicalType: integer}"),
            object("{name: b, logicalType: integer, required: true}"),
            Bump::Major,
            "`a.b` is now required",
        ),
    ] {
        let (found, what) = changed(&old, &new);
        assert_eq!(found, bump, "{old} -> {new}: {what}");
        assert!(what.contains(part), "{what}");
    }
}

#[test]
fn changes_of_the_contract_ask_for_their_versions() {
    let word = |name: &str, value: &str| {
        format!("      - {{property: headwater.{name}, value: {value}}}\n")
    };
    for (old, new, bump) in [
        (String::new(), word("timeUnit", "ms"), Bump::Minor),
        (word("timeUnit", "ms"), word("timeUnit", "s"), Bump::Major),
        (word("timeUnit", "ms"), String::new(), Bump::Major),
        (
            String::new(),
            word("timeZone", "Europe/Berlin"),
            Bump::Minor,
        ),
        (
            word("timeZone", "Europe/Paris"),
            word("timeZone", "Europe/Berlin"),
            Bump::Major,
        ),
        (
            word("retention", "30d"),
            word("retention", "60d"),
            Bump::Minor,
        ),
        (String::new(), word("retention", "60d"), Bump::Major),
        (word("retention", "60d"), String::new(), Bump::Minor),
        (
            word("dedupWindow", "60d"),
            word("dedupWindow", "1d"),
            Bump::Minor,
        ),
    ] {
        let changes = compare(&contract("1.0.0", "", &old), &contract("1.0.0", "", &new));
        assert_eq!(required_bump(&changes), bump, "{old} -> {new}: {changes:?}");
    }
    let old = contract("1.0.0", &field("name: u, logicalType: timestamp"), "");
    let mut new = old.clone();
    new.event_time = 2;
    assert_eq!(required_bump(&compare(&old, &new)), Bump::Major);
    let mut new = old.clone();
    new.fact_id = vec![];
    assert_eq!(required_bump(&compare(&old, &new)), Bump::Major);
}

#[test]
fn versions_must_be_raised_enough() {
    let optional = field("name: a, logicalType: integer");
    let required = field("name: a, logicalType: integer, required: true");
    for (old, new, fields, ok) in [
        ("1.0.0", "1.0.0", "", true),
        ("1.2.0", "1.1.0", "", false),
        ("1.0.0", "1.0.0", optional.as_str(), false),
        ("1.0.0", "1.0.1", &optional, false),
        ("1.0.0", "1.1.0", &optional, true),
        ("1.0.0", "1.1.0", &required, false),
        ("1.0.0", "2.0.0", &required, true),
        ("0.1.0", "0.1.1", &optional, true),
        ("0.1.0", "0.1.1", &required, false),
        ("0.1.0", "0.2.0", &required, true),
    ] {
        let result = check_version(&contract(old, "", ""), &contract(new, fields, ""));
        assert_eq!(result.is_ok(), ok, "{old} -> {new}: {result:?}");
    }
    let problem = check_version(
        &contract("1.0.0", "", ""),
        &contract("1.1.0", &required, ""),
    )
    .unwrap_err();
    assert!(
        problem.to_string().contains("required field `a` was added"),
        "{problem}"
    );
    assert!(problem.hint.contains("2.0.0"), "{problem}");
}

#[test]
fn old_facts_read_under_the_new_contract() {
    let old = contract(
        "1.0.0",
        &[
            field("name: n, logicalType: integer"),
            field("name: d, logicalType: number, physicalType: 'decimal(6,2)'"),
            field("name: s, logicalType: string"),
            field("name: o, logicalType: object, properties: [{name: x, logicalType: integer}]"),
            field("name: l, logicalType: array, items: {logicalType: integer}"),
            field("name: m, logicalType: object, physicalType: 'map<string,int>'"),
            field("name: gone, logicalType: string"),
        ]
        .concat(),
        "",
    );
    let new = contract(
        "2.0.0",
        &[
            field("name: added, logicalType: string"),
            field("name: n, logicalType: number"),
            field("name: d, logicalType: number, physicalType: 'decimal(10,3)'"),
            field("name: s, logicalType: integer"),
            field("name: o, logicalType: object, properties: [{name: y, logicalType: string}, {name: x, logicalType: number}]"),
            field("name: l, logicalType: array, items: {logicalType: number}"),
            field("name: m, logicalType: object, physicalType: 'map<string,double>'"),
        ]
        .concat(),
        "",
    );
    let body = br#"[{"t":"2013-01-01T00:00:00Z","id":"1","n":7,"d":1.25,"s":"5","o":{"x":3},"l":[1,2],"m":{"k":4},"gone":"g"},
                    {"t":"2013-01-01T00:00:00Z","id":"2"}]"#;
    let decoded = decode(&old, BodyFormat::Json, body, &DecodeLimits::default()).unwrap();
    assert_eq!(decoded.batch.len(), 2, "{:?}", decoded.rejected);
    let read = project(&decoded.batch.columns, &new).unwrap();
    assert_eq!(read.schema(), new.arrow_schema());
    let value = |name: &str, row: usize| {
        Value::from_array(read.column_by_name(name).unwrap().as_ref(), row)
    };
    assert!(read.column_by_name("added").unwrap().null_count() == 2);
    assert_eq!(
        read.column_by_name("n")
            .unwrap()
            .as_primitive::<Float64Type>()
            .value(0),
        7.0
    );
    assert_eq!(
        read.column_by_name("d")
            .unwrap()
            .as_primitive::<Decimal128Type>()
            .value(0),
        1250
    );
    assert_eq!(value("s", 0), Value::Null);
    assert_eq!(
        value("o", 0),
        Value::Struct([("y".into(), Value::Null), ("x".into(), Value::Float(3.0))].into())
    );
    assert_eq!(
        value("l", 0),
        Value::List([Value::Float(1.0), Value::Float(2.0)].into())
    );
    assert_eq!(
        value("m", 0),
        Value::Map([(Value::string("k"), Value::Float(4.0))].into())
    );
    assert_eq!(value("o", 1), Value::Null);
    // The present version's own columns are taken as they are.
    assert_eq!(
        project(&decoded.batch.columns, &old).unwrap(),
        decoded.batch.columns
    );
}
