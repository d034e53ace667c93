//! Tests of located YAML.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn one(text: &str) -> YamlDocument {
    let mut all = YamlDocument::parse_all("f.yaml", text).unwrap();
    assert_eq!(all.len(), 1);
    all.remove(0)
}

fn at(document: &YamlDocument, pointer: &str) -> (usize, usize) {
    let place = document.locate(pointer);
    (place.line, place.column)
}

#[test]
fn values_have_their_types_and_places() {
    let document =
        one("a: 1\nb:\n  - x\n  - {c: 1.5, 'd/e': '7'}\nf: ~\ng: yes\nh: |\n  two\n  lines\n");
    assert_eq!(
        document.value,
        json!({"a": 1, "b": ["x", {"c": 1.5, "d/e": "7"}], "f": null, "g": "yes", "h": "two\nlines\n"})
    );
    assert_eq!(at(&document, "/a"), (1, 4));
    assert_eq!(at(&document, "/b/1/c"), (4, 9));
    assert_eq!(at(&document, "/b/1/d~1e"), (4, 21));
    // What isn't there: its nearest ancestor.
    assert_eq!(at(&document, "/b/1/zz/0"), at(&document, "/b/1"));
    assert_eq!(
        (
            document.locate_key("/b").line,
            document.locate_key("/b").column
        ),
        (2, 1)
    );
    assert_eq!(at(&document, ""), (1, 1));
}

#[test]
fn several_documents_and_aliases() {
    let all =
        YamlDocument::parse_all("f.yaml", "---\na: &x [1, 2]\nb: *x\n---\n---\nc: 3\n").unwrap();
    assert_eq!(all.len(), 2);
    assert_eq!(all[0].value, json!({"a": [1, 2], "b": [1, 2]}));
    assert_eq!(at(&all[0], "/b"), (3, 4));
    assert_eq!(at(&all[0], "/b/1"), (2, 11));
    assert_eq!(at(&all[1], "/c"), (6, 4));
    assert!(YamlDocument::parse_all("f.yaml", "").unwrap().is_empty());
}

#[test]
fn numbers_follow_the_core_schema() {
    for (text, value) in [
        ("12", json!(12)),
        ("-7", json!(-7)),
        ("+7", json!(7)),
        ("0x1f", json!(31)),
        ("0o17", json!(15)),
        ("1e3", json!(1000.0)),
        (".5", json!(0.5)),
        ("18446744073709551615", json!(u64::MAX)),
        ("1_000", json!("1_000")),
        ("1.2.3", json!("1.2.3")),
        ("2013-01-01", json!("2013-01-01")),
        (".inf", json!(".inf")),
        ("-", json!("-")),
        ("1:30", json!("1:30")),
        ("nan", json!("nan")),
        ("007", json!(7)),
        ("7d", json!("7d")),
    ] {
        if text != "-" {
            assert_eq!(one(&format!("v: {text}")).value["v"], value, "{text}");
        } else {
            assert_eq!(plain(text), value);
        }
    }
}

#[test]
fn mistakes_are_located() {
    for (text, line, column, part) in [
        ("a: 1\nb: 2\na: 3\n", 3, 1, "occurs twice"),
        ("a: [1, 2\nb: 3\n", 2, 2, "valid YAML"),
        ("a: !secret x\n", 1, 12, "tag"),
        ("? [1]\n: 2\n", 1, 3, "plain text"),
        ("a: &x {b: 1}\nc:\n  <<: *x\n", 3, 3, "Merge"),
    ] {
        let problem = YamlDocument::parse_all("f.yaml", text).unwrap_err();
        let place = problem.location.clone().unwrap();
        assert!(problem.to_string().contains(part), "{problem}");
        assert_eq!((place.line, place.column), (line, column), "{problem}");
    }
}

#[test]
fn nothing_grows_without_limit() {
    let deep = "[".repeat(100) + &"]".repeat(100);
    assert!(YamlDocument::parse_all("f", &deep).is_err());
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..12 {
        let aliases = vec![format!("*a{}", i - 1); 10].join(", ");
        laughs.push_str(&format!("a{i}: &a{i} [{aliases}]\n"));
    }
    let problem = YamlDocument::parse_all("f", &laughs).unwrap_err();
    assert!(problem.title.contains("more than"), "{problem}");
}

proptest! {
    #[test]
    fn json_reads_as_itself(numbers in prop::collection::vec(any::<i64>(), 0..5), text in "\\PC{0,12}") {
        let value = json!({"n": numbers, "t": text, "o": {"k": [true, null, "x"]}});
        let document = one(&serde_json::to_string_pretty(&value).unwrap());
        prop_assert_eq!(document.value, value);
    }

    #[test]
    fn no_text_panics(text in "[-a-z0-9:{}\\[\\],&*!|>'\"\\n #?%]{0,80}") {
        let _ = YamlDocument::parse_all("f", &text);
    }
}
