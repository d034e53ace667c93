//! Expressions: what they give, what they refuse, and that one bad row harms no other.

use std::sync::Arc;

use arrow::array::{Float64Array, Int64Array, StringArray};
use headwater_schema::Value;

use super::*;

fn columns() -> Vec<Field> {
    vec![
        Field::new("a", DataType::Int64),
        Field::new("b", DataType::Int64),
        Field::new("Name", DataType::String),
        Field::new("x", DataType::Float64),
    ]
}

fn rows() -> RecordBatch {
    let columns: Vec<(&str, ArrayRef)> = vec![
        (
            "a",
            Arc::new(Int64Array::from(vec![Some(7), Some(1), None])),
        ),
        ("b", Arc::new(Int64Array::from(vec![2, 0, 3]))),
        (
            "Name",
            Arc::new(StringArray::from(vec![Some("ada"), None, Some("")])),
        ),
        (
            "x",
            Arc::new(Float64Array::from(vec![Some(1.5), Some(f64::NAN), None])),
        ),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true)))
        .unwrap()
}

fn values(sql: &str) -> Vec<Value> {
    let array = Expression::compile(sql, &columns())
        .unwrap()
        .evaluate(&rows())
        .unwrap();
    (0..array.len())
        .map(|row| Value::from_array(&array, row))
        .collect()
}

#[test]
fn expressions_are_sql() {
    use Value::{Bool, Float, Int, Null};
    let cases = [
        ("a", vec![Int(7), Int(1), Null]),
        ("7 / 2 + b", vec![Int(5), Int(3), Int(6)]),
        ("a IS NULL", vec![Bool(false), Bool(false), Bool(true)]),
        (
            "CASE WHEN a > 5 THEN 1.0 ELSE 0.0 END",
            vec![Float(1.0), Float(0.0), Float(0.0)],
        ),
        ("coalesce(a, 0) + b * 10", vec![Int(27), Int(1), Int(30)]),
        (
            "\"Name\" = 'ada' OR Name = ''",
            vec![Bool(true), Null, Bool(true)],
        ),
        (
            "upper(Name)",
            vec![Value::string("ADA"), Null, Value::string("")],
        ),
        ("CAST(a AS DOUBLE) / 2", vec![Float(3.5), Float(0.5), Null]),
    ];
    for (sql, want) in cases {
        assert_eq!(values(sql), want, "{sql}");
    }
}

#[test]
fn a_row_without_a_result_is_null_and_named() {
    let expression = Expression::compile("a / b", &columns()).unwrap();
    let (array, failed) = expression.evaluate_counting(&rows()).unwrap();
    assert_eq!(failed, [1]);
    assert_eq!(Value::from_array(&array, 0), Value::Int(3));
    assert!(Value::from_array(&array, 1).is_null());
}

#[test]
fn what_cannot_be_used_is_refused_with_a_reason() {
    let cases = [
        ("aa + 1", "did you mean `a`?"),
        ("a +", "the expression is wrong"),
        ("a b", "isn't expected"),
        ("sum(a)", "the expression is wrong"),
        ("(SELECT 1)", "subquery"),
        ("now()", "answers differently each time"),
        ("random() < 0.5", "answers differently each time"),
        ("a OR 1 = 'x' AND", "the expression is wrong"),
        ("a = 1; DROP TABLE x", "isn't expected"),
    ];
    for (sql, message) in cases {
        let problem = Expression::compile(sql, &columns())
            .expect_err(sql)
            .to_string();
        assert!(problem.contains(message), "{sql}: {problem}");
    }
    let deep = format!("{}a{}", "(".repeat(5000), ")".repeat(5000));
    assert!(Expression::compile(&deep, &columns()).is_err());
}

#[test]
fn the_canonical_spelling_ignores_how_it_was_written() {
    let canonical = |sql: &str| {
        Expression::compile(sql, &columns())
            .unwrap()
            .canonical()
            .to_owned()
    };
    assert_eq!(canonical("a>5"), canonical("  a  >  5 "));
    assert_eq!(
        canonical("case when a>5 then 1.0 else 0.0 end"),
        canonical("CASE WHEN a > 5 THEN 1.0 ELSE 0.0 END")
    );
    assert_ne!(canonical("a > 5"), canonical("a > 6"));
    assert_eq!(
        Expression::compile("b + x", &columns()).unwrap().columns(),
        [1, 3]
    );
}

#[test]
fn facts_never_decide_how_long_a_text_gets() {
    let columns = columns();
    for sql in [
        "repeat(\"Name\", a)",
        "repeat('x', 1000000000)",
        "lpad(\"Name\", 2147483647)",
        "rpad(\"Name\", 2 + 3)",
        "replace(\"Name\", 'a', \"Name\")",
        "repeat(repeat(\"Name\", 200), 200)",
    ] {
        let problem = Expression::compile(sql, &columns).expect_err(sql);
        assert_eq!(problem.code, "invalid-expression", "{sql}");
    }
    assert_eq!(
        values("lpad(repeat(replace(\"Name\", 'd', '--'), 2), 10, '*') || substr(\"Name\", 2)"),
        [
            Value::string("**a--aa--ada"),
            Value::Null,
            Value::string("**********")
        ]
    );
}
