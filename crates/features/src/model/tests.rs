//! Models as they are compiled: what is wrong with them, and where; what plans and lineage say of them.
#![allow(clippy::panic, clippy::unwrap_used, reason = "tests stop loudly")]

use super::*;
use crate::{Direction, Lineage, plan};

const SHOP: &str = include_str!("../meaning/shop.yaml");

const MODEL: &str = "---
apiVersion: headwater/v1
kind: Model
name: fraud
owner: risk
spec:
  feature_set: all
  inputs: {amount: spent_1h, age: all.ratio, more: context.more}
  fallback: [{last_good: 10m}, {alias: stable}, {constant: 0.5}]
  deadline: 50ms
  on_changed_features: warn
  logging: {share: 0.5}
  cache: {max_age: 5m}
  traffic: {by: customer, arms: [{alias: canary, share: 0.25}, {alias: b, share: 0.75}], shadow: [next]}
";

fn compile(model: &str) -> Result<Catalog, Vec<Problem>> {
    let text = format!("{SHOP}{model}");
    Catalog::compile(&YamlDocument::parse_all("all.yaml", &text).unwrap())
}

#[test]
fn what_is_wrong_is_told_where_it_stands() {
    let catalog = compile(MODEL).unwrap();
    let model = catalog.model("fraud").unwrap();
    let ratio = model.set.place("ratio").unwrap();
    assert_eq!(model.place_of(1, "age").unwrap(), ratio);
    assert_eq!(model.place_of(2, "more").unwrap(), Place::Context(0));
    assert_eq!(model.place_of(3, "x").unwrap_err().code, "model-inputs");
    let first = SHOP.lines().count() + 1;
    // What is replaced, by what; the line of the mistake, and a word of what is said.
    let cases = [
        ("set: all", "set: al", 6, "did you mean `all`?"),
        ("amount: spent_1h", "amount: spent_2h", 7, "`spent_2h`"),
        ("context.more", "context.mor", 7, "mor"),
        ("inputs: {", "inputs: [] # ", 7, "0 inputs"),
        (
            "{alias: stable}",
            "{alias: stable, constant: 1}",
            8,
            "several",
        ),
        ("last_good: 10m", "last_good: 10", 8, "10"),
        ("50ms", "50", 9, "50"),
        ("50ms", "1h", 9, "out of range"),
        ("warn", "perhaps", 10, "perhaps"),
        ("0.5}\n", "1.5}\n", 11, "between 0 and 1"),
        ("logging", "loging", 11, "did you mean `logging`?"),
        ("alias: stable", "alia: stable", 8, "did you mean `alias`?"),
        ("constant: 0.5", "constant: {p: no}", 8, "a list of numbers"),
        ("max_age: 5m", "max_age: 5", 12, "5"),
        (
            "by: customer",
            "by: custome",
            13,
            "did you mean `customer`?",
        ),
        ("alias: b,", "alias: canary,", 13, "a share already"),
        ("alias: b,", "alias: live,", 13, "a share already"),
        ("0.75}", "0.76}", 13, "one whole"),
        ("0.75}", "-0.75}", 13, "one whole"),
        (
            "shadow: [next]",
            "shadow: [a, b, c, d, e]",
            13,
            "more than 4",
        ),
    ];
    for (old, new, line, said) in cases {
        assert!(MODEL.contains(old), "{old}");
        let problems = compile(&MODEL.replace(old, new)).unwrap_err();
        let [problem] = problems.as_slice() else {
            panic!("{new}: {problems:?}");
        };
        let at = problem.location.as_ref().unwrap();
        assert_eq!(at.line, first + line, "{new}: {problem}");
        assert!(problem.to_string().contains(said), "{new}: {problem}");
    }
    for (on, field, said) in [
        (
            "{contrat: purchase}",
            "on.contrat",
            "did you mean `contract`?",
        ),
        (
            "{contract: purchase, wher: amount > 1}",
            "on.wher",
            "did you mean `where`?",
        ),
        (
            "{contract: purchase, keys: [customer]}",
            "on.keys",
            "sequence, expected a map",
        ),
        ("{where: amount > 1}", "on", "missing field `contract`"),
        ("[purchase]", "on", "expected a contract, or a map"),
        ("purchse", "on", "did you mean `purchase`?"),
    ] {
        let problems = compile(&format!("{MODEL}  on: {on}\n")).unwrap_err();
        let problem = &problems[0];
        let at = problem.location.as_ref().unwrap();
        assert_eq!(at.line, first + 14, "{on}: {problem}");
        let field = format!("spec.{field}");
        assert_eq!(problem.field.as_deref(), Some(field.as_str()), "{on}");
        assert!(problem.to_string().contains(said), "{on}: {problem}");
    }
    let twice = compile(&format!("{MODEL}{MODEL}")).unwrap_err();
    assert_eq!(twice[0].code, "name-clash");
}

#[test]
fn inputs_are_found_by_their_own_names() {
    let own = MODEL.replace(
        "  inputs: {amount: spent_1h, age: all.ratio, more: context.more}\n",
        "",
    );
    let catalog = compile(&own).unwrap();
    let model = catalog.model("fraud").unwrap();
    let names: Vec<_> = model.set.full_names().cloned().collect();
    let place = |name: &str| names.iter().position(|n| **n == *name).map(Place::Value);
    for (input, is) in [
        ("spending.spent_1h", "spending.spent_1h"),
        ("spending_spent_1h", "spending.spent_1h"),
        ("top", "later.top"),
        ("ratio", "all.ratio"),
    ] {
        assert_eq!(model.place_of(0, input).ok(), place(is), "{input}");
    }
    assert_eq!(model.place_of(0, "more").unwrap(), Place::Context(0));
    assert_eq!(
        model.place_of(0, "Column_0").unwrap_err().code,
        "unknown-feature"
    );
}

#[test]
fn predictions_are_facts_wherever_there_are_models() {
    let without = compile("").unwrap();
    let with = compile(MODEL).unwrap();
    assert!(without.contract("prediction").is_none());
    assert!(with.contract("prediction").is_some() && with.contract("outcome").is_some());
    let own = SHOP
        .replace("name: purchase", "name: outcome")
        .replace("purchase", "outcome");
    let text = format!("{own}{MODEL}");
    let clash = Catalog::compile(&YamlDocument::parse_all("all.yaml", &text).unwrap());
    assert_eq!(clash.unwrap_err()[0].code, "name-clash");
}

#[test]
fn plans_and_lineage_know_models() {
    let (without, with) = (compile("").unwrap(), compile(MODEL).unwrap());
    let log = Default::default();
    let told = plan(&without, &with, &log).to_string();
    assert!(
        told.contains("+ model fraud") && !told.contains("prediction"),
        "{told}"
    );
    let told = plan(&with, &without, &log).to_string();
    assert!(told.contains("- model fraud"), "{told}");
    let other = SHOP.replace("of: amount, windows: [1h]", "of: amount * 2, windows: [1h]");
    let text = format!("{other}{MODEL}");
    let other = Catalog::compile(&YamlDocument::parse_all("all.yaml", &text).unwrap()).unwrap();
    let affected = plan(&with, &other, &log).affected;
    let fraud = affected.iter().find(|a| a.name == "fraud").unwrap();
    assert_eq!(
        (fraud.kind.as_str(), fraud.owner.as_deref()),
        ("model", Some("risk"))
    );
    let lineage = Lineage::of(&with);
    let start = lineage.find("purchase.amount").unwrap();
    let walk = lineage.walk(&start, Direction::Downstream);
    assert!(walk.nodes.iter().any(|n| n.to_string() == "model:fraud"));
}
