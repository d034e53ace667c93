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

/// Stack of a thread that has to be enough: three quarters of what threads have unless they ask for more.
const STACK_BYTES: usize = 3 << 19;

/// What an expression gives on a small stack, or why it is refused; an overflow ends the test's process.
fn on_a_small_stack(sql: String) -> Result<Value, Problem> {
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
    let compiled = thread.spawn(move || {
        let expression = Expression::compile(&sql, &columns())?;
        Ok(Value::from_array(&expression.evaluate(&rows())?, 0))
    });
    compiled.unwrap().join().unwrap()
}

#[test]
fn chains_of_a_few_hundred_work_and_longer_ones_are_refused() {
    type Chain = fn(usize) -> String;
    let chains: [(&str, Chain, usize); 8] = [
        ("sum", |n| format!("b{}", " + b".repeat(n)), 400),
        ("concat", |n| format!("Name{}", "||'x'".repeat(n)), 400),
        ("or", |n| format!("b = 7{}", " OR b = 2".repeat(n)), 399),
        (
            "case",
            |n| format!("CASE {}END", "WHEN b = 7 THEN false ".repeat(n)),
            396,
        ),
        ("cast", |n| format!("b{}", "::int::bigint".repeat(n)), 66),
        ("null", |n| format!("b{}", " IS NULL".repeat(n)), 133),
        (
            "calls",
            |n| format!("{}b{}", "abs(".repeat(n), ")".repeat(n)),
            61,
        ),
        (
            "calls of a sum",
            |n| {
                format!(
                    "{}b{}{}",
                    "abs(".repeat(50),
                    " + b".repeat(n),
                    ")".repeat(50)
                )
            },
            100,
        ),
    ];
    for (name, chain, longest) in chains {
        let given = on_a_small_stack(chain(longest));
        assert!(given.is_ok(), "{name} of {longest}: {given:?}");
        for longer in [longest + 4, 500, 1000, 2000] {
            let sql = chain(longer);
            if sql.len() <= EXPRESSION_CHARACTERS_MAX {
                let refused = on_a_small_stack(sql).expect_err(name);
                assert_eq!(refused.code, "invalid-expression", "{name} of {longer}");
            }
        }
    }
    let sum = on_a_small_stack(format!("b{}", " + b".repeat(400)));
    assert_eq!(sum.unwrap(), Value::Int(802));
    let longest = format!("b{}", "+b".repeat(EXPRESSION_CHARACTERS_MAX / 2 - 1));
    let refused = on_a_small_stack(longest).expect_err("too deep").to_string();
    for said in [
        "too large",
        "400 levels",
        "features or outputs of their own",
    ] {
        assert!(refused.contains(said), "{said}: {refused}");
    }
    let queries = format!("(SELECT 1{})", " UNION SELECT 1".repeat(1000));
    let refused = on_a_small_stack(queries).expect_err("queries").to_string();
    assert!(refused.contains("subquery"), "{refused}");
}

/// Each of these would double or treble at every level.
#[test]
fn what_would_be_written_out_too_often_is_refused() {
    let within =
        |open: &str, close: &str, n: usize| format!("{}(a > 1){}", open.repeat(n), close.repeat(n));
    let forms = [
        ("CASE WHEN ", " THEN a > 2 END"),
        ("coalesce(", ", a > 2)"),
        ("(", " BETWEEN false AND true)"),
    ];
    for (open, close) in forms {
        let few = on_a_small_stack(within(open, close, 4));
        assert_eq!(few.unwrap(), Value::Bool(true), "{open}");
        let refused = on_a_small_stack(within(open, close, 30)).expect_err(open);
        assert!(refused.to_string().contains("written out"), "{refused}");
    }
    // Where nothing is doubled, as many as there is room for.
    let branches = within("CASE WHEN b > 5 THEN true ELSE ", " END", 30);
    assert_eq!(on_a_small_stack(branches).unwrap(), Value::Bool(true));
    let defaults = format!("{}a{}", "coalesce(a, ".repeat(30), ")".repeat(30));
    assert_eq!(on_a_small_stack(defaults).unwrap(), Value::Int(7));
}
