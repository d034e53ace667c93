//! Contracts, good and bad: what a person sees, where.

use super::*;
use crate::Value;

/// A contract whose lines can be counted: `id` is line 3, the first property line 9.
const GOOD: &str = "kind: DataContract
apiVersion: v3.1.0
id: 53581432-6c55-4ba2-a65f-72344a91553a
version: 1.2.0
status: active
schema:
  - name: departure
    properties:
      - name: flight
        logicalType: integer
        logicalTypeOptions: {minimum: 1, maximum: 9999}
      - name: origin
        logicalType: string
        required: true
        quality:
          - {metric: invalidValues, arguments: {validValues: [EWR, JFK, LGA]}, mustBe: 0}
      - name: time
        logicalType: timestamp
      - name: price
        logicalType: number
        physicalType: decimal(8,2)
    customProperties:
      - {property: headwater.eventTime, value: time}
      - {property: headwater.factId, value: [flight, time]}
      - {property: headwater.dedupWindow, value: 30d}
";

/// All problems of a text, as people see them.
fn check(text: &str) -> Vec<String> {
    match Contract::parse_yaml("c.yaml", text) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn a_good_contract_reads() {
    let contract = Contract::parse_yaml("c.yaml", GOOD).unwrap().remove(0);
    assert_eq!(
        (
            contract.name.as_ref(),
            contract.version.to_string().as_str()
        ),
        ("departure", "1.2.0")
    );
    assert_eq!(
        (contract.event_time, &contract.fact_id[..]),
        (2, &[0, 2][..])
    );
    assert_eq!(
        contract.dedup_window.map(|d| d.to_string()).as_deref(),
        Some("30d")
    );
    let types: Vec<String> = contract
        .fields
        .iter()
        .map(|f| f.data_type.to_string())
        .collect();
    assert_eq!(types, ["int64", "string", "timestamp", "decimal(8,2)"]);
    let required: Vec<bool> = contract.fields.iter().map(|f| f.required).collect();
    assert_eq!(required, [true, true, true, false]);
    assert_eq!(contract.fields[0].rules.minimum, Some(Value::Int(1)));
    assert_eq!(
        contract.fields[1]
            .rules
            .enumeration
            .as_ref()
            .unwrap()
            .values
            .len(),
        3
    );
    assert_eq!(contract.arrow_schema().fields().len(), 4);
    // The stored document gives the same contract again.
    let again = Contract::parse_documents(&contract.source, &|_| None)
        .unwrap()
        .remove(0);
    assert_eq!(again.fields_as(), contract.fields_as());
}

#[test]
fn mistakes_are_named_located_and_mended() {
    // What is replaced, with what, where it is found, and two parts of the message.
    let cases: &[(&str, &str, &str, &str, &str)] = &[
        // ODCS's own schema.
        (
            "status: active\n",
            "",
            "1:1",
            "`status` is missing",
            "requires it",
        ),
        (
            "kind: DataContract",
            "kind: Datacontract",
            "1:7",
            "not allowed",
            "Did you mean `DataContract`",
        ),
        (
            "status: active",
            "state: active",
            "5:8",
            "no property `state`",
            "Did you mean",
        ),
        (
            "logicalType: integer",
            "logicalType: int",
            "10:22",
            "not allowed",
            "Did you mean `integer`",
        ),
        (
            "version: 1.2.0",
            "version: 1.2",
            "4:10",
            "wrong type",
            "quote it",
        ),
        (
            "minimum: 1,",
            "minimum: one,",
            "11:39",
            "wrong type",
            "number",
        ),
        (
            "minimum: 1,",
            "least: 1,",
            "11:37",
            "no property `least`",
            "customProperties",
        ),
        (
            "mustBe: 0}",
            "mustBe: 0, mustNotBe: 1}",
            "16:13",
            "exactly one",
            "one operator",
        ),
        // Ours.
        (
            "version: 1.2.0",
            "version: one",
            "4:10",
            "no semantic version",
            "1.0.0",
        ),
        (
            "      - {property: headwater.eventTime, value: time}\n",
            "",
            "7:5",
            "does not say when",
            "value: time",
        ),
        (
            "headwater.eventTime",
            "headwater.event_time",
            "23:20",
            "no property that Headwater knows",
            "Did you mean `headwater.eventTime`",
        ),
        (
            "value: time}",
            "value: tme}",
            "23:48",
            "no column `tme`",
            "Did you mean `time`",
        ),
        (
            "value: time}",
            "value: origin}",
            "23:48",
            "of type string, which is no time",
            "timestamp",
        ),
        (
            "value: time}",
            "value: flight}",
            "23:48",
            "integer without a unit",
            "timeUnit",
        ),
        (
            "[flight, time]}",
            "[flight, tim]}",
            "24:54",
            "no column `tim`",
            "`time`",
        ),
        (
            "[flight, time]}",
            "[flight, price]}",
            "24:54",
            "can't identify",
            "strings",
        ),
        (
            "[flight, time]}",
            "[flight, flight]}",
            "24:54",
            "twice",
            "Remove",
        ),
        (
            "value: 30d",
            "value: 30",
            "25:50",
            "no duration",
            "whole number",
        ),
        ("value: 30d", "value: 0d", "25:50", "of nothing", "longer"),
        (
            "headwater.dedupWindow, value: 30d",
            "headwater.timeUnit, value: sec",
            "25:47",
            "no time unit",
            "ms",
        ),
        (
            "headwater.dedupWindow, value: 30d",
            "headwater.timeZone, value: EST5",
            "25:47",
            "no time zone",
            "America",
        ),
        (
            "headwater.dedupWindow, value: 30d",
            "headwater.eventTime, value: time",
            "25:20",
            "twice",
            "Remove",
        ),
        (
            "      - {property: headwater.factId, value: [flight, time]}\n",
            "",
            "24:50",
            "needs a fact id",
            "factId",
        ),
        (
            "name: origin",
            "name: flight",
            "12:15",
            "occurs twice",
            "rename",
        ),
        (
            "name: departure",
            "name: a departure",
            "7:11",
            "can't be a contract's name",
            "URLs",
        ),
        (
            "maximum: 9999",
            "maximum: 0",
            "11:29",
            "no value can pass",
            "Swap",
        ),
        (
            "decimal(8,2)",
            "decimal",
            "21:23",
            "how many digits",
            "decimal(18,4)",
        ),
        (
            "[EWR, JFK, LGA]",
            "[EWR, 7]",
            "16:68",
            "no value of type string",
            "quote",
        ),
        (
            "required: true",
            "unique: true",
            "14:17",
            "can't be kept unique",
            "headwater.factId",
        ),
        (
            "required: true",
            "logicalTypeOptions: {pattern: '('}",
            "14:39",
            "no regular expression",
            "Look-around",
        ),
        (
            "required: true",
            "customProperties: [{property: headwater.retention, value: 1d}]",
            "14:39",
            "wrong place",
            "schema object",
        ),
        (
            "logicalType: timestamp",
            "description: x",
            "17:9",
            "has no type",
            "logicalType",
        ),
        (
            "logicalType: timestamp",
            "logicalType: object",
            "17:9",
            "does not say what its members",
            "map<string",
        ),
        (
            "logicalType: timestamp",
            "logicalType: array",
            "17:9",
            "does not say what its items",
            "items",
        ),
        (
            "logicalType: timestamp",
            "logicalType: date",
            "23:48",
            "no zone says",
            "timeZone",
        ),
        (
            "apiVersion: v3.1.0",
            "apiVersion: v2.2.2",
            "2:13",
            "is not read",
            "v3.1.0",
        ),
    ];
    for (from, to, place, part, hint) in cases {
        let text = GOOD.replacen(from, to, 1);
        assert_ne!(text, GOOD, "{from}");
        let seen = check(&text);
        let found = seen.iter().any(|message| {
            message.starts_with(&format!("c.yaml:{place}: "))
                && message.contains(part)
                && message.contains(hint)
        });
        assert!(
            found,
            "{from} -> {to}: wanted {place} {part} / {hint}, got {seen:#?}"
        );
    }
}

#[test]
fn a_mistake_does_not_bring_others_along() {
    let seen = check(&GOOD.replacen("logicalType: integer", "logicalType: int", 1));
    assert_eq!(seen.len(), 1, "{seen:#?}");
    let two = GOOD
        .replacen("value: time}", "value: tme}", 1)
        .replacen("30d", "x", 1);
    assert_eq!(check(&two).len(), 2);
}

#[test]
fn what_is_not_enforced_is_named() {
    let text = GOOD.replacen(
        "        required: true\n",
        "        logicalTypeOptions: {format: password}\n",
        1,
    ) + "    quality:\n      - {metric: rowCount, mustBeGreaterThan: 5}\n      - {type: text, description: nice}\nslaProperties:\n  - {property: latency, value: 4, unit: d}\n";
    let contract = Contract::parse_yaml("c.yaml", &text).unwrap().remove(0);
    let seen: Vec<String> = contract
        .not_enforced
        .iter()
        .map(|n| format!("{}: {}", n.path, n.what))
        .collect();
    assert_eq!(seen.len(), 4, "{seen:#?}");
    assert!(
        seen[1]
            .contains("schema[0].properties[1].logicalTypeOptions.format: the format `password`"),
        "{seen:#?}"
    );
    assert_eq!(contract.not_enforced[1].location.as_ref().unwrap().line, 14);
}

#[test]
fn freshness_is_a_service_level_or_a_word_of_ours() {
    let freshness = |text: &str| {
        let contract = Contract::parse_yaml("c.yaml", text).unwrap().remove(0);
        contract.freshness.map(|f| f.to_string())
    };
    let sla = |level: &str| format!("{GOOD}slaProperties:\n  - {level}\n");
    assert_eq!(freshness(GOOD), None);
    for (level, expected) in [
        ("{property: freshness, value: 15, unit: m}", Some("15m")),
        ("{property: freshness, value: 2, unit: hours}", Some("2h")),
        ("{property: Freshness, value: 90s}", Some("90s")),
        (
            "{property: freshness, value: 1, unit: d, element: departure.time}",
            Some("1d"),
        ),
        ("{property: latency, value: 1, unit: d}", None),
    ] {
        assert_eq!(freshness(&sla(level)).as_deref(), expected, "{level}");
    }
    let own = "      - {property: headwater.freshness, value: 5m}\n";
    let both =
        format!("{GOOD}{own}slaProperties:\n  - {{property: freshness, value: 1, unit: h}}\n");
    assert_eq!(freshness(&both).as_deref(), Some("5m"), "ours goes before");
    for (level, expected) in [
        (
            "{property: freshness, value: soon}",
            "`soon` is no duration",
        ),
        (
            "{property: freshness, value: 0, unit: s}",
            "Nothing can be as fresh",
        ),
        (
            "{property: freshness, value: 1, unit: parsec}",
            "`1parsec` is no duration",
        ),
        (
            "{property: freshness, value: 1h, element: arrival}",
            "no schema object `arrival`",
        ),
    ] {
        let seen = check(&sla(level));
        assert!(
            seen.len() == 1 && seen[0].contains(expected),
            "{level}: {seen:?}"
        );
    }
}

#[test]
fn several_schema_objects_make_several_contracts() {
    let (head, object) = GOOD.split_at(GOOD.find("  - name: departure").unwrap());
    let text = format!("{head}{object}{}", object.replace("departure", "arrival"));
    let contracts = Contract::parse_yaml("c.yaml", &text).unwrap();
    let names: Vec<&str> = contracts.iter().map(|c| c.name.as_ref()).collect();
    assert_eq!(names, ["departure", "arrival"]);
    let seen = check(&format!("{head}{object}{object}"));
    assert!(seen[0].contains("occurs twice"), "{seen:?}");
}

#[test]
fn every_type_of_the_standard_has_one_here() {
    let cases = [
        ("logicalType: integer, physicalType: BIGINT", "int64"),
        ("logicalType: number", "float64"),
        ("logicalType: number, physicalType: float32", "float64"),
        (
            "logicalType: number, physicalType: 'NUMERIC(10, 4)'",
            "decimal(10,4)",
        ),
        ("logicalType: string, physicalType: varchar(20)", "string"),
        ("logicalType: string, physicalType: bytes", "bytes"),
        ("logicalType: boolean", "bool"),
        ("logicalType: date", "date"),
        ("logicalType: timestamp", "timestamp"),
        ("logicalType: time", "string"),
        (
            "logicalType: array, items: {logicalType: array, items: {logicalType: integer}}",
            "list<list<int64>>",
        ),
        (
            "logicalType: array, physicalType: 'array<double>'",
            "list<float64>",
        ),
        (
            "logicalType: object, physicalType: 'map<string,double>'",
            "map<string,float64>",
        ),
        (
            "logicalType: object, properties: [{name: a, logicalType: date}]",
            "struct<a:date>",
        ),
        ("physicalType: timestamptz", "timestamp"),
    ];
    for (definition, expected) in cases {
        let text = GOOD.replacen(
            "      - name: time\n",
            &format!("      - {{name: x, {definition}}}\n      - name: time\n"),
            1,
        );
        let contract = match Contract::parse_yaml("c.yaml", &text) {
            Ok(mut all) => all.remove(0),
            Err(problems) => panic!("{definition}: {problems:?}"),
        };
        assert_eq!(
            contract.field("x").unwrap().data_type.to_string(),
            expected,
            "{definition}"
        );
    }
}

#[test]
fn bounds_of_integers_keep_their_meaning_with_fractions() {
    let text = GOOD.replacen(
        "minimum: 1, maximum: 9999",
        "minimum: 0.5, exclusiveMaximum: 9.5",
        1,
    );
    let rules = Contract::parse_yaml("c.yaml", &text)
        .unwrap()
        .remove(0)
        .fields[0]
        .rules
        .clone();
    assert_eq!(
        (rules.minimum, rules.exclusive_maximum),
        (Some(Value::Int(1)), Some(Value::Int(10)))
    );
    let text = GOOD.replacen("minimum: 1, maximum: 9999", "format: i16", 1);
    let rules = Contract::parse_yaml("c.yaml", &text)
        .unwrap()
        .remove(0)
        .fields[0]
        .rules
        .clone();
    assert_eq!(
        (rules.minimum, rules.maximum),
        (Some(Value::Int(-32768)), Some(Value::Int(32767)))
    );
}
#[test]
fn no_document_panics() {
    use proptest::prelude::*;
    let line = prop::sample::select(GOOD.lines().collect::<Vec<_>>());
    proptest!(|(lines in prop::collection::vec(line, 0..25))| {
        let _ = check(&lines.join("\n"));
    });
}
