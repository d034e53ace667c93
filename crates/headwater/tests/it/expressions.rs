//! Expressions over structs and maps, and over features of the same names, from a definition to what is read.

use headwater_schema::{Cursor, Sequence, Value};
use headwater_testkit::TempProject;
use serde_json::json;

use crate::harness::{Harness, SECOND};
use crate::{BINARY, SHOP};

const DEFINITIONS: &str = "
kind: DataContract
apiVersion: v3.1.0
id: visits
version: 1.0.0
status: active
schema:
  - name: visit
    properties:
      - {name: id, logicalType: string, required: true}
      - {name: guest, logicalType: string, required: true}
      - {name: time, logicalType: timestamp, required: true}
      - {name: shop, logicalType: string}
      - {name: minutes, logicalType: object, physicalType: 'map<string,double>'}
      - {name: scores, logicalType: array, physicalType: 'array<double>'}
      - name: spot
        logicalType: object
        properties:
          - {name: x, logicalType: integer}
          - {name: town, logicalType: object, properties: [{name: name, logicalType: string}]}
    customProperties:
      - {property: headwater.eventTime, value: time}
      - {property: headwater.factId, value: id}
      - {property: headwater.timeUnit, value: us}
---
{apiVersion: headwater/v1, kind: Entity, name: guest, spec: {keys: [{name: guest, type: string}]}}
---
apiVersion: headwater/v1
kind: FeatureView
name: visits
spec:
  entity: guest
  sources: [{contract: visit}]
  features:
    - {name: x, aggregate: sum, of: \"spot['x']\", where: \"minutes['cart'] > 1\", windows: [{exact: 1h, as: x}]}
    - {name: towns, aggregate: count, by: \"spot['town']['name']\", windows: [{exact: 1h, as: towns}]}
    - {name: shops, aggregate: count, by: shop, windows: [{exact: 1h, as: shops}]}
    - {name: spot, of: spot}
    - {name: north, expression: shops.north}
    - {name: same, expression: \"shops['north'] + get_field(shops, 'north')\"}
    - {name: town, expression: \"spot['town']['name']\"}
    - {name: round, expression: round(north / 2.0)}
";

#[test]
fn members_of_structs_and_maps_are_read_by_name() {
    let harness = Harness::new(DEFINITIONS, |_| {});
    let visit = |id: u8, shop: &str, cart: f64, town: &str| {
        json!({"id": id.to_string(), "guest": "ada", "time": i64::from(id) * SECOND, "shop": shop,
            "minutes": {"home": 1.0, "cart": cart}, "spot": {"x": id, "town": {"name": town}}})
    };
    let mut visits = vec![
        visit(1, "north", 2.0, "Oslo"),
        visit(2, "north", 0.5, "Bergen"),
        visit(4, "south", 3.0, "Oslo"),
    ];
    visits.push(json!({"id": "5", "guest": "eve", "time": 5 * SECOND}));
    harness.send("visit", &visits, false);
    let names = ["x", "towns", "north", "same", "town", "round"];
    let names = names.map(|name| format!("visits.{name}"));
    let cursor = Cursor::inclusive(9 * SECOND).known_at(Sequence::MAX);
    let read = |guest| harness.read(&names, ("guest", guest), &cursor).values;
    let towns = [("Bergen", 1), ("Oslo", 2)];
    let towns = towns.map(|(name, count)| (Value::string(name), Value::Int(count)));
    let expected = [
        Value::Int(5),
        Value::Map(towns.into()),
        Value::Int(2),
        Value::Int(4),
        Value::string("Oslo"),
        Value::Float(1.0),
    ];
    assert_eq!(read("ada"), expected);
    // Without a struct, and where a map has no such key, there is nothing to take.
    let eve = read("eve");
    for (index, value) in eve.iter().enumerate().filter(|(index, _)| *index != 1) {
        assert!(value.is_null(), "{}: {value:?}", names[index]);
    }
}

#[test]
fn what_expressions_do_not_take_apart_is_refused_plainly() {
    let refused = |from: &str, to: &str, words: &[&str]| {
        let definitions = DEFINITIONS.replace(from, to);
        assert_ne!(definitions, DEFINITIONS);
        let files = [("headwater.yaml", "name: shop\n"), ("d.yaml", &definitions)];
        let said = TempProject::new(BINARY, &files).run_fails(&["check"]);
        for word in ["d.yaml:"].iter().chain(words) {
            assert!(said.contains(word), "no `{word}` in {said}");
        }
        assert!(!said.contains("Raw"), "{said}");
    };
    let apart = ["don't take lists apart", "unnest: true"];
    for list in [
        "scores[1]",
        "scores[1:2]",
        "array_element(scores, 1)",
        "cardinality(scores)",
        "map_keys(minutes)",
    ] {
        let of = format!("of: \"{list}\"");
        refused("of: \"spot['x']\"", &of, &[list, apart[0], apart[1]]);
    }
    refused("spot['x']", "spot['y']", &["spot['y']"]);
    refused("spot['town']['name']", "spot['twn']['name']", &["twn"]);
    refused(
        "expression: shops.north",
        "expression: round + 1",
        &["north → round → north"],
    );
}

#[test]
fn what_one_of_several_sources_lacks_is_told_in_whole_sentences() {
    let project = TempProject::new(BINARY, SHOP);
    let view = |feature: &str| {
        let text = format!(
            "{{apiVersion: headwater/v1, kind: FeatureView, name: both, spec: {{entity: customer, \
             sources: [{{contract: purchase}}, {{contract: purchase, keys: {{customer: id}}}}], features: [{feature}]}}}}\n"
        );
        project.write("features/both.yaml", text);
        project.run_fails(&["check"])
    };
    let told = view("{name: much, aggregate: sum, of: amuont}");
    assert!(
        told.contains("did you mean `amount`?; or map the column"),
        "{told}"
    );
    let told = view("{name: much, aggregate: sum, of: amount +}");
    assert!(told.contains("hint: map the column"), "{told}");
}
