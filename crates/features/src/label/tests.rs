//! Labels as they are compiled: what is wrong with them, and where; when they are looked at.
#![allow(clippy::panic, clippy::unwrap_used, reason = "tests stop loudly")]

use super::*;
use crate::{Direction, Lineage, plan};

const SHOP: &str = "kind: DataContract
apiVersion: v3.1.0
id: shop
version: 1.0.0
status: active
schema:
  - name: purchase
    properties:
      - {name: id, logicalType: string}
      - {name: buyer, logicalType: string}
      - {name: amount, logicalType: number}
      - {name: time, logicalType: timestamp}
    customProperties: [{property: headwater.eventTime, value: time}]
---
{apiVersion: headwater/v1, kind: Entity, name: buyer, spec: {keys: [{name: buyer, type: string}]}}
---
apiVersion: headwater/v1
kind: Label
name: bought
owner: sales
";

fn compile(spec: &str) -> Result<Catalog, Vec<Problem>> {
    let text = format!("{SHOP}spec:\n{spec}");
    Catalog::compile(&YamlDocument::parse_all("all.yaml", &text).unwrap())
}

#[test]
fn what_is_wrong_is_told_where_it_stands() {
    let right = "  contract: purchase\n  match: buyer\n  condition: amount > 1\n  horizon: 2s\n  value: amount\n  otherwise: 0\n";
    let compiled = compile(right);
    assert!(compiled.is_ok(), "{compiled:?}");
    // What is replaced, by what; the line of the mistake, and a word of what is said.
    let cases = [
        ("purchase\n", "purchases\n", 22, "did you mean `purchase`?"),
        ("match: buyer", "match: byer", 23, "did you mean `buyer`?"),
        ("match: buyer", "match: [byer]", 23, "did you mean `buyer`?"),
        ("match: buyer", "match: {buyers: customer}", 23, "`buyers`"),
        ("match: buyer", "match: [amount]", 23, "it is float64"),
        ("match: buyer", "match: []", 23, "is empty"),
        ("amount > 1", "amoun > 1", 24, "amoun"),
        ("amount > 1", "amount", 24, "true or false"),
        ("2s", "2 s", 25, "no duration"),
        ("2s", "0s", 25, "no horizon"),
        ("value: amount", "value: price", 26, "price"),
        (
            "value: amount",
            "value: buyer\n  aggregate: sum",
            26,
            "can't aggregate",
        ),
        ("value: amount", "aggregate: max", 26, "needs `value`"),
        ("value: amount", "aggregate: quantile", 26, "quantile"),
        (
            "otherwise: 0",
            "otherwise: never",
            27,
            "the label is float64",
        ),
        ("otherwise: 0", "otherwize: 0", 27, "otherwize"),
    ];
    for (from, to, line, words) in cases {
        let spec = right.replacen(from, to, 1);
        assert_ne!(spec, right, "{from}");
        let problems = compile(&spec).expect_err(to);
        let text = problems[0].to_string();
        let text = format!(
            "{text} {} {} {:?}",
            problems[0].detail, problems[0].hint, problems[0].field
        );
        assert!(text.contains(words), "{to}: no `{words}` in {text}");
        let at = problems[0]
            .location
            .as_ref()
            .unwrap_or_else(|| panic!("{to}: {text}"));
        assert_eq!(at.line, line, "{to}: {text}");
    }
}

#[test]
fn a_label_is_looked_at_from_its_horizon_once_that_has_come() {
    let catalog = compile("  {contract: purchase, match: buyer, horizon: 10us}").unwrap_err();
    assert!(
        catalog[0].to_string().contains("duration"),
        "{}",
        catalog[0]
    );
    let label = |more: &str| {
        let spec = format!("  {{contract: purchase, match: buyer, horizon: 1s{more}}}");
        compile(&spec).unwrap().label("bought").unwrap().clone()
    };
    let (final_only, early) = (label(""), label(", early_negative: true"));
    assert_eq!(*final_only.data_type(), DataType::Bool);
    let second = 1_000_000;
    let at_horizon = Some(Cursor::inclusive(second));
    for label in [&final_only, &early] {
        assert_eq!(label.cursor(0, second), at_horizon);
        assert_eq!(label.cursor(0, second + 5), at_horizon);
        assert_eq!(label.cursor(0, -1), None);
    }
    assert_eq!(final_only.cursor(0, second - 1), None);
    let so_far = Cursor {
        until: Position::after(second - 1),
        ..Cursor::inclusive(second)
    };
    assert_eq!(early.cursor(0, second - 1), Some(so_far));
    assert_eq!(final_only.cursor(Micros::MAX, Micros::MAX - 1), None);
}

#[test]
fn plans_and_lineage_know_labels() {
    let spec = "  {contract: purchase, match: {buyer: who}, condition: amount > 1, horizon: 1s, value: amount}";
    let catalog = compile(spec).unwrap();
    let lineage = Lineage::of(&catalog);
    let label = lineage.find("label:bought").unwrap();
    let walk = lineage.walk(&label, Direction::Upstream);
    let edges: Vec<String> = walk
        .edges
        .iter()
        .map(|e| format!("{} {}", e.from, e.role))
        .collect();
    for edge in [
        "column:purchase.amount of",
        "column:purchase.amount where",
        "column:purchase.buyer key",
        "column:purchase.time event time",
    ] {
        assert!(edges.contains(&edge.to_owned()), "no {edge} in {edges:?}");
    }
    let other = compile(&spec.replace("1s", "2s")).unwrap();
    let none = Catalog::default();
    let log = Default::default();
    for (before, after, said) in [
        (&none, &catalog, "+ label bought"),
        (&catalog, &other, "label bought"),
        (&catalog, &none, "- label bought"),
    ] {
        let told = plan(before, after, &log).to_string();
        assert!(told.contains(said), "{told}");
    }
    let again = compile(spec).unwrap();
    assert!(plan(&catalog, &again, &log).is_empty());
}
