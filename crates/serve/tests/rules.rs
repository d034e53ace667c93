//! Rules held to the same conditions written in Rust, row by row and in batches; and what is refused, with its place.
#![allow(clippy::unwrap_used, reason = "tests stop loudly")]

use headwater_models::{Prediction, Predictor, Rows};
use headwater_schema::Value;
use headwater_serve::load_rules;
use proptest::prelude::*;

const SMALL: &str = include_str!("../src/rules/small.yaml");
/// The list of countries in it.
const COUNTRIES: f64 = 3.0;

fn small() -> Box<dyn Predictor> {
    load_rules(SMALL.as_bytes()).unwrap()
}

fn predict(model: &dyn Predictor, rows: &[[f64; 4]]) -> Prediction {
    model
        .predict(Rows::new(rows.as_flattened(), 4).unwrap())
        .unwrap()
}

/// What the file says, with nulls as NaN.
fn by_hand([amount, age, member, country]: [f64; 4]) -> [f64; 5] {
    let points = if amount > 100.0 { 40.0 } else { 0.0 }
        + if country == 1.0 || country == 2.0 {
            25.0
        } else {
            0.0
        };
    let by_age = if age == 0.0 {
        f64::NAN
    } else {
        (1000.0 / age).trunc()
    };
    let blocked = points >= 40.0 && member != 1.0;
    let score = if blocked { 1.0 } else { points / 100.0 };
    [
        points,
        by_age,
        amount / 3.0,
        f64::from(u8::from(blocked)),
        score,
    ]
}

fn row() -> impl Strategy<Value = [f64; 4]> {
    let missing = |some: BoxedStrategy<f64>| prop_oneof![4 => some, 1 => Just(f64::NAN)];
    let amount = prop_oneof![
        Just(100.0),
        Just(100.0_f64.next_up()),
        Just(f64::INFINITY),
        -1e3..1e3_f64
    ];
    let age = (-3..120_i32).prop_map(f64::from);
    let member = (0..2_u8).prop_map(f64::from);
    // Places beyond the list, and what is none: missing.
    let country = prop_oneof![
        (0..3_u8).prop_map(f64::from),
        Just(COUNTRIES),
        Just(-1.0),
        Just(0.5)
    ];
    (
        missing(amount.boxed()),
        missing(age.boxed()),
        missing(member.boxed()),
        missing(country.boxed()),
    )
        .prop_map(|(amount, age, member, country)| [amount, age, member, country])
}

fn same(a: &[f64], b: &[f64]) -> bool {
    let same = |(a, b): (&f64, &f64)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
    a.len() == b.len() && a.iter().zip(b).all(same)
}

proptest! {
    #[test]
    fn rules_say_what_their_words_say_alone_and_in_any_batch(
        rows in prop::collection::vec(row(), 1..40),
    ) {
        let model = small();
        let all = predict(model.as_ref(), &rows);
        for (row, outputs) in rows.iter().zip(all.outputs.chunks_exact(5)) {
            let alone = predict(model.as_ref(), &[*row]).outputs;
            let wanted = by_hand(*row);
            prop_assert!(same(&alone, &wanted), "{row:?}: {alone:?}, not {wanted:?}");
            prop_assert!(same(outputs, &alone), "{row:?}: {outputs:?} in a batch, {alone:?} alone");
        }
        prop_assert_eq!(all.scores.len(), all.outputs.len());
    }
}

#[test]
fn long_batches_are_the_same_rows() {
    let model = small();
    let rows: Vec<[f64; 4]> = (0..10_007)
        .map(|n| [n as f64, (n % 90) as f64, (n % 2) as f64, (n % 4) as f64])
        .collect();
    let outputs = predict(model.as_ref(), &rows).outputs;
    for (row, outputs) in rows.iter().zip(outputs.chunks_exact(5)) {
        assert!(same(outputs, &by_hand(*row)), "{row:?}: {outputs:?}");
    }
}

#[test]
fn inputs_take_their_types() {
    let model = small();
    let contract = model.contract();
    let names: Vec<&str> = contract.outputs.iter().map(|o| o.name.as_str()).collect();
    assert_eq!(names, ["points", "by_age", "share", "blocked", "score"]);
    let country = &contract.inputs[3];
    assert_eq!(
        country
            .encode(&Value::string("pt"), &mut Vec::new())
            .unwrap(),
        2.0
    );
    assert!(
        country
            .encode(&Value::string("xx"), &mut Vec::new())
            .unwrap()
            .is_nan()
    );
    let refused = |row: [f64; 4]| {
        let problem = model.predict(Rows::one(&row).unwrap()).unwrap_err();
        (problem.code, problem.field.unwrap_or_default())
    };
    assert_eq!(refused([1.0, 2.5, 0.0, 0.0]), ("model-input", "age".into()));
    assert_eq!(
        refused([1.0, 1e300, 0.0, 0.0]),
        ("model-input", "age".into())
    );
    assert_eq!(
        refused([1.0, f64::INFINITY, 0.0, 0.0]),
        ("model-input", "age".into())
    );
    assert_eq!(
        refused([1.0, 2.0, 2.0, 0.0]),
        ("model-input", "member".into())
    );
    // A later integer that a double can't tell from its neighbour is refused, the last one before it isn't.
    let most = 9_007_199_254_740_992.0_f64;
    assert!(
        model
            .predict(Rows::one(&[1.0, most, 0.0, 0.0]).unwrap())
            .is_ok()
    );
    assert_eq!(refused([1.0, most.next_up(), 0.0, 0.0]).0, "model-input");
    let explained = model.explain(Rows::one(&[1.0; 4]).unwrap());
    assert_eq!(explained.unwrap_err().code, "model-explain");
    let narrow = model.predict(Rows::new(&[1.0; 6], 3).unwrap());
    assert_eq!(narrow.unwrap_err().code, "model-shape");
}

#[test]
fn json_is_rules_too() {
    let json = r#"{"format": "headwater-rules/1",
        "inputs": [{"name": "a.b", "type": "number"}, {"name": "c", "type": "string", "values": ["x\u00e9", "1"]}],
        "outputs": [{"name": "o", "expression": "CASE WHEN c = 'xé' THEN \"a.b\" * 2 ELSE -1 END"}]}"#;
    let model = load_rules(json.as_bytes()).unwrap();
    let rows = [1.5, 0.0, 1.5, 1.0, f64::NAN, 0.0, 2.0, f64::NAN];
    let outputs = model.predict(Rows::new(&rows, 2).unwrap()).unwrap().outputs;
    assert!(same(&outputs, &[3.0, -1.0, f64::NAN, -1.0]), "{outputs:?}");
}

#[test]
fn what_is_wrong_is_refused_with_its_place() {
    let cases = [
        ("points >= 40", "sum(points) > 1", "invalid-expression", 16),
        ("points >= 40", "pints >= 40", "invalid-expression", 16),
        ("1000 / age", "score + 1", "invalid-expression", 14),
        ("1000 / age", "random()", "invalid-expression", 14),
        ("1000 / age", "country", "invalid-rules", 14),
        ("1000 / age", "country || country", "invalid-rules", 14),
        ("name: by_age", "name: points", "invalid-rules", 14),
        ("name: by_age", "name: amount", "invalid-rules", 14),
        ("name: by_age", "name: by age", "invalid-rules", 14),
        ("type: bool", "type: truth", "invalid-rules", 7),
        ("type: bool", "type: bool, values: [a]", "invalid-rules", 7),
        (", values: [de, fr, pt]", "", "invalid-rules", 8),
        ("[de, fr, pt]", "[de, fr, de]", "invalid-rules", 8),
        ("[de, fr, pt]", "[1, 2]", "invalid-rules", 8),
        ("rules/1", "rules/2", "model-unsupported", 2),
        ("description:", "descriptions:", "invalid-rules", 3),
        ("format: headwater-rules/1", "a: &x [*y]", "bad-yaml", 2),
    ];
    for (from, to, code, line) in cases {
        let text = SMALL.replacen(from, to, 1);
        assert_ne!(text, SMALL, "{from}");
        let problem = load_rules(text.as_bytes()).unwrap_err();
        let place = problem.location.as_ref().map(|at| at.line);
        assert_eq!((problem.code, place), (code, Some(line)), "{to}: {problem}");
    }
    let many: String = (0..300)
        .map(|n| format!("  - {{name: o{n}, expression: amount}}\n"))
        .collect();
    let cut = SMALL.split("outputs:").next().unwrap();
    for (text, code) in [
        (format!("{SMALL}{many}"), "model-limit"),
        (format!("{cut}outputs: []\n"), "invalid-rules"),
        (format!("{SMALL}---\n{SMALL}"), "invalid-rules"),
        (String::new(), "invalid-rules"),
    ] {
        assert_eq!(load_rules(text.as_bytes()).unwrap_err().code, code);
    }
    assert_eq!(load_rules(b"\xff\xfe").unwrap_err().code, "invalid-rules");
}
