//! Compiled views: names, shared inputs and slots, state ids, plans.

use super::*;
use crate::plan::{Action, LogFacts, plan};

const CONTRACT: &str = "
kind: DataContract
apiVersion: v3.1.0
id: d
version: 1.0.0
status: active
schema:
  - name: departure
    properties:
      - {name: tailnum, logicalType: string}
      - {name: delay, logicalType: number}
      - {name: fare, logicalType: number, physicalType: 'decimal(12,2)'}
      - {name: scores, logicalType: array, physicalType: 'array<double>'}
      - {name: minutes, logicalType: object, physicalType: 'map<string,double>'}
      - {name: time, logicalType: timestamp}
    customProperties: [{property: headwater.eventTime, value: time}]
  - name: arrival
    properties:
      - {name: plane, logicalType: string}
      - {name: lateness, logicalType: number}
      - {name: at, logicalType: timestamp}
    customProperties: [{property: headwater.eventTime, value: at}]
---
apiVersion: headwater/v1
kind: Entity
name: plane
spec: {keys: [{name: tailnum, type: string}]}
";

fn compile(definitions: &str) -> Catalog {
    let text = format!("{CONTRACT}---{definitions}");
    let documents = YamlDocument::parse_all("all.yaml", &text).unwrap();
    Catalog::compile(&documents).unwrap_or_else(|problems| panic!("{}", problems[0]))
}

fn view(features: &str) -> String {
    format!(
        "
apiVersion: headwater/v1
kind: FeatureView
name: v
owner: ops
spec:
  entity: plane
  sources: [{{contract: departure, where: delay IS NOT NULL}}]
  features:
{features}
---
apiVersion: headwater/v1
kind: FeatureSet
name: s
owner: ml
spec: {{features: ['v.*']}}
"
    )
}

fn names(catalog: &Catalog) -> Vec<String> {
    catalog
        .view("v")
        .unwrap()
        .features
        .iter()
        .map(|f| f.name.to_string())
        .collect()
}

#[test]
fn features_are_named_after_their_windows() {
    let catalog = compile(&view(
        "    - {name: n, aggregate: count}
    - {name: a, aggregate: avg, of: delay, windows: [90s, 24h, lifetime, {exact: 2h}, {range: 2h}, {rows: 3}, {exact: 1h, offset: 1d, as: yesterday}]}
    - {name: newest, of: delay, ttl: 8h}
    - {name: trend, expression: a_90s - a_24h}",
    ));
    let want = [
        "n",
        "a_90s",
        "a_24h",
        "a_lifetime",
        "a_exact_2h",
        "a_range_2h",
        "a_rows_3",
        "yesterday",
        "newest",
        "trend",
    ];
    assert_eq!(names(&catalog), want);
    let view = catalog.view("v").unwrap();
    assert_eq!(view.features[1].full_name.as_ref(), "v.a_90s");
    assert_eq!((view.layout.lifetime, view.layout.rows_max), (true, 3));
    assert_eq!(view.retention, (1 + 7) * 86_400_000_000 + 3_600_000_000);
    assert_eq!(catalog.set("s").unwrap().features.len(), want.len());
}

#[test]
fn what_is_the_same_is_kept_once() {
    let catalog = compile(&view(
        "    - {name: s, aggregate: sum, of: delay, windows: [1h, 2h]}
    - {name: a, aggregate: avg, of: ' delay ', windows: [1h]}
    - {name: d, aggregate: stddev, of: delay, windows: [1h]}
    - {name: late, aggregate: sum, of: delay, where: delay > 15, windows: [1h]}
    - {name: later, aggregate: count, where: 'delay>15', windows: [1h]}",
    ));
    let layout = &catalog.view("v").unwrap().layout;
    assert_eq!(layout.inputs, [DataType::Float64, DataType::Bool]);
    // Sum, average and deviation share one; the filtered sum and the filtered count have their own.
    assert_eq!(layout.slots.len(), 3);
}

#[test]
fn several_sources_feed_one_view() {
    let catalog = compile(
        "
apiVersion: headwater/v1
kind: FeatureView
name: v
spec:
  entity: plane
  sources:
    - {contract: departure}
    - {contract: arrival, keys: {tailnum: plane}, columns: {delay: lateness}}
  features:
    - {name: both, aggregate: sum, of: delay, windows: [1h]}
    - {name: departures, aggregate: count, source: departure, windows: [1h]}
",
    );
    let view = catalog.view("v").unwrap();
    assert_eq!(view.sources[1].key_columns, [Arc::from("plane")]);
    assert!(view.sources.iter().all(|s| s.inputs[0].is_some()));
    let filter = view.layout.slots[1].filter.unwrap();
    assert!(view.sources[0].inputs[filter].is_some() && view.sources[1].inputs[filter].is_none());
}

#[test]
fn a_column_that_a_used_source_lacks_is_refused_with_the_source_named() {
    let wrong = |sources: &str, feature: &str| {
        let text = format!(
            "{CONTRACT}---
apiVersion: headwater/v1
kind: FeatureView
name: v
spec: {{entity: plane, sources: [{{contract: departure}}, {sources}], features: [{feature}]}}
"
        );
        let documents = YamlDocument::parse_all("all.yaml", &text).unwrap();
        Catalog::compile(&documents).unwrap_err()[0].to_string()
    };
    let arrival = "{contract: arrival, keys: {tailnum: plane}}";
    let sum = "{name: s, aggregate: sum, of: delay, windows: [1h]}";
    let text = wrong(arrival, sum);
    assert!(text.contains("in the source `arrival`"), "{text}");
    let text = wrong("{contract: arrival}", sum);
    assert!(text.contains("there is no column `tailnum`"), "{text}");
    let twice = "{contract: departure, columns: {tailnum: delay}}";
    assert!(wrong(twice, sum).contains("two columns `tailnum`"));
    let stray = "{name: s, aggregate: sum, of: delay, source: arrivals, windows: [1h]}";
    assert!(wrong(arrival, stray).contains("did you mean `arrival`?"));
}

#[test]
fn the_state_id_follows_what_is_kept_and_nothing_else() {
    let id = |features: &str| compile(&view(features)).view("v").unwrap().state_id.clone();
    let one = id("    - {name: a, aggregate: avg, of: delay, windows: [1h]}");
    assert_eq!(
        one,
        id("    - {aggregate: avg, windows: [2h, 3h], name: b, of: delay, description: new}")
    );
    assert_ne!(
        one,
        id("    - {name: a, aggregate: avg, of: delay + 1, windows: [1h]}")
    );
    assert_ne!(
        one,
        id("    - {name: a, aggregate: max, of: delay, windows: [1h]}")
    );
}

#[test]
fn a_plan_says_what_changes_and_whom_it_affects() {
    let one = compile(&view(
        "    - {name: a, aggregate: avg, of: delay, windows: [1h]}",
    ));
    let two = compile(&view(
        "    - {name: a, aggregate: max, of: delay, windows: [1h, 2h]}",
    ));
    assert!(plan(&one, &one, &LogFacts::default()).is_empty());
    let added = plan(&Catalog::default(), &one, &LogFacts::default());
    assert!(added.items.iter().all(|i| i.action == Action::Add));
    let changed = plan(&one, &two, &LogFacts::default());
    let item = changed.items.iter().find(|i| i.kind == "view").unwrap();
    assert_eq!(
        (item.action, item.owner.as_deref()),
        (Action::Recompute, Some("ops"))
    );
    assert!(
        item.details.iter().any(|d| d == "adds the feature a_2h"),
        "{:?}",
        item.details
    );
    let affected = &changed.affected[0];
    assert_eq!(
        (affected.kind.as_str(), affected.name.as_str()),
        ("feature set", "s")
    );
    assert_eq!(
        (affected.owner.as_deref(), affected.because.as_slice()),
        (Some("ml"), &["view v".to_owned()][..])
    );
    let text = changed.to_string();
    assert!(
        text.contains("↻ view v  (owner: ops)") && text.contains("1 to compute again"),
        "{text}"
    );
}

#[test]
fn functions_have_types_or_say_what_they_take() {
    let data_type = |feature: &str| {
        let catalog = compile(&view(&format!(
            "    - {{name: f, {feature}, windows: [1h]}}"
        )));
        catalog.view("v").unwrap().features[0].data_type.to_string()
    };
    for (feature, want) in [
        ("aggregate: sum, of: fare", "decimal(38,2)"),
        ("aggregate: avg, of: fare", "float64"),
        ("aggregate: max, of: fare", "decimal(12,2)"),
        ("aggregate: last, of: scores", "list<float64>"),
        ("aggregate: quantile, of: fare, quantile: 0.5", "float64"),
        (
            "aggregate: quantile, of: delay, quantile: [0.1, 0.9]",
            "list<float64>",
        ),
        ("aggregate: top_n, of: fare, n: 3", "list<decimal(12,2)>"),
        (
            "aggregate: max_by, of: scores, order_by: delay",
            "list<float64>",
        ),
        ("aggregate: count, by: tailnum", "map<string,int64>"),
        ("aggregate: avg, of: scores, unnest: true", "float64"),
        (
            "aggregate: avg, of: minutes, unnest: true",
            "map<string,float64>",
        ),
        (
            "aggregate: avg, of: minutes, unnest: true, by: tailnum",
            "map<string,map<string,float64>>",
        ),
        (
            "aggregate: avg, of: scores, element_wise: true, by: tailnum",
            "map<string,list<float64>>",
        ),
        ("aggregate: rate", "float64"),
    ] {
        assert_eq!(data_type(feature), want, "{feature}");
    }
}

#[test]
fn what_a_function_cannot_do_is_refused_with_a_reason() {
    let refusal = |feature: &str| {
        let text = format!(
            "{CONTRACT}---{}",
            view(&format!("    - {{name: f, {feature}}}"))
        );
        let documents = YamlDocument::parse_all("all.yaml", &text).unwrap();
        match Catalog::compile(&documents) {
            Err(problems) => problems[0].to_string(),
            Ok(_) => panic!("`{feature}` is accepted"),
        }
    };
    for (feature, says) in [
        (
            "aggregate: sum, of: tailnum",
            "it takes numbers, not string",
        ),
        (
            "aggregate: quantile, of: tailnum, quantile: 0.5",
            "it takes numbers",
        ),
        (
            "aggregate: min, of: scores",
            "it takes values with an order, not list<float64>",
        ),
        (
            "aggregate: quantile, of: delay",
            "`quantile` needs `quantile`",
        ),
        (
            "aggregate: quantile, of: delay, quantile: 1.5",
            "between 0 and 1",
        ),
        ("aggregate: median, of: delay", "`quantile: 0.5`"),
        ("aggregate: top_n, of: delay", "needs `n`"),
        ("aggregate: min_by, of: delay", "needs `order_by`"),
        (
            "aggregate: max, of: delay, order_by: time",
            "has no `order_by`",
        ),
        (
            "aggregate: min_by, of: delay, order_by: scores",
            "`order_by` has no order",
        ),
        ("aggregate: count, by: minutes", "`by` has no order"),
        ("aggregate: decayed_sum, of: delay", "needs `half_life`"),
        (
            "aggregate: decayed_sum, of: delay, half_life: 0ms",
            "at least 1ms",
        ),
        ("aggregate: rate", "needs a window with a width"),
        (
            "aggregate: rate, windows: [{rows: 3}]",
            "needs a window with a width",
        ),
        (
            "aggregate: count, of: delay, unnest: true",
            "`unnest` takes lists and maps, not float64",
        ),
        (
            "aggregate: avg, of: minutes, element_wise: true",
            "`element_wise` takes lists",
        ),
        (
            "aggregate: avg, of: scores, element_wise: true, unnest: true",
            "not both",
        ),
        ("aggregate: count, n: 3", "has no `n`"),
        (
            "aggregate: avg, of: scores, unnest: true, n: 3",
            "has no `n`",
        ),
        (
            "aggregate: last, of: scores, by: tailnum, n: 3",
            "whose values have no order",
        ),
        (
            "aggregate: last, of: delay, by: tailnum, ttl: 1h",
            "takes no `ttl`",
        ),
        ("of: delay, n: 3", "a latest value has no `n`"),
        (
            "expression: '1', by: tailnum",
            "a derived feature has no `by`",
        ),
    ] {
        let said = refusal(feature);
        assert!(said.contains(says), "{feature}: {said}");
    }
}

#[test]
fn defaults_are_of_the_feature_s_type() {
    let default = |feature: &str| {
        let catalog = compile(&view(&format!("    - {{name: f, {feature}}}")));
        let default = catalog.view("v").unwrap().features[0].default.clone();
        headwater_schema::value_to_text(&default.unwrap())
    };
    assert_eq!(default("aggregate: sum, of: fare, default: 1.5"), "1.50");
    assert_eq!(default("of: fare, default: '0.05'"), "0.05");
    assert_eq!(
        default("aggregate: max, of: delay, by: tailnum, default: {b: 2, a: 1}"),
        "{a:1.0,b:2.0}"
    );
    assert_eq!(default("of: scores, default: [1, 2]"), "[1.0,2.0]");
}

fn problems(definitions: &str) -> Vec<String> {
    let text = format!("{CONTRACT}---{definitions}");
    let documents = YamlDocument::parse_all("all.yaml", &text).unwrap();
    let problems = Catalog::compile(&documents).unwrap_err();
    problems.iter().map(ToString::to_string).collect()
}

#[test]
fn what_is_made_of_something_wrong_is_not_blamed() {
    let downstream = "---
apiVersion: headwater/v1
kind: FeatureView
name: w
spec:
  entity: plane
  sources: [{view: v}]
  features: [{name: most, aggregate: max, of: n_1h, windows: [1h]}]
---
apiVersion: headwater/v1
kind: FeatureView
name: x
spec: {entity: plane, sources: [{view: w}], features: [{name: n, aggregate: count}]}
---
apiVersion: headwater/v1
kind: Label
name: late
spec: {contract: departure, match: plane, value: delay, horizon: 1h}
";
    let wrong = view(
        "    - {name: n, aggregate: cuont, windows: [1h, {exact: 2h, as: pair}]}
    - {name: twice, expression: 2 * n_1h}
    - {name: four, expression: 2 * twice + pair}",
    );
    let found = problems(&format!("{wrong}{downstream}"));
    assert!(found.len() == 1 && found[0].contains("cuont"), "{found:?}");
    // What is wrong besides is told all the same.
    let wrong = wrong.replace("2 * n_1h", "2 * m_1h");
    let found = problems(&format!("{wrong}{downstream}"));
    assert!(found.len() == 2 && found[1].contains("m_1h"), "{found:?}");
    // An entity takes what is keyed by it along, contracts what reads their facts.
    let text = format!(
        "{CONTRACT}---{}{downstream}",
        view("    - {name: n, aggregate: count}")
    );
    for (right, broken) in [
        ("type: string}]}", "type: strin}]}"),
        ("logicalType: array", "logicalType: arrey"),
    ] {
        let documents = YamlDocument::parse_all("all.yaml", &text.replace(right, broken)).unwrap();
        let found = Catalog::compile(&documents).unwrap_err();
        assert_eq!(found.len(), 1, "{broken}: {found:?}");
    }
}
