//! Chained views over random facts, late ones, revised ones and retracted ones among them, must equal what the naive
//! oracle says step by step: first the upstream's features at every fact, then those of the view over these rows. So
//! must rows of training sets, and reads once the upstream has been made again.

use headwater_aggregate::oracle::{OracleFact, evaluate};
use headwater_aggregate::{Aggregate, Window, WindowKind};
use headwater_schema::{Cursor, DataType, Position, Value};
use headwater_testkit::{ServerProcess, TempProject};
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::json;

use crate::BINARY;
use crate::harness::{Harness, Live, SECOND, cursor_at};

pub const DEFINITIONS: &str = "\
kind: DataContract
apiVersion: v3.1.0
id: shop
version: 1.0.0
status: active
schema:
  - name: purchase
    properties:
      - {name: id, logicalType: string, required: true}
      - {name: customer, logicalType: string}
      - {name: shop, logicalType: string}
      - {name: town, logicalType: string}
      - {name: amount, logicalType: number}
      - {name: time, logicalType: timestamp, required: true}
    customProperties:
      - {property: headwater.eventTime, value: time}
      - {property: headwater.factId, value: id}
      - {property: headwater.timeUnit, value: us}
---
{apiVersion: headwater/v1, kind: Entity, name: customer, spec: {keys: [{name: customer, type: string}]}}
---
{apiVersion: headwater/v1, kind: Entity, name: shop, spec: {keys: [{name: shop, type: string}]}}
---
{apiVersion: headwater/v1, kind: Entity, name: place, spec: {keys: [{name: place, type: string}]}}
---
apiVersion: headwater/v1
kind: FeatureView
name: spending
spec:
  entity: customer
  sources: [{contract: purchase, where: amount > 0}]
  retention: 15s
  features:
    - {name: n, aggregate: count, windows: [20s]}
    - {name: total, aggregate: sum, of: amount, windows: [lifetime]}
    - {name: mean, expression: total_lifetime / n_20s}
---
apiVersion: headwater/v1
kind: FeatureView
name: a_shop
spec:
  entity: shop
  sources: [{view: spending, where: n_20s > 1}]
  features:
    - {name: rows, aggregate: count, windows: [30s]}
    - {name: means, aggregate: sum, of: mean, windows: [30s, {rows: 3}]}
    - {name: own, aggregate: sum, of: amount, windows: [30s]}
---
apiVersion: headwater/v1
kind: FeatureView
name: a_place
spec:
  entity: place
  sources: [{view: a_shop, keys: {place: town}, columns: {seen: rows_30s}}]
  features:
    - {name: seen, aggregate: max, of: seen + 1, windows: [40s]}
    - {name: newest, of: means_30s}
";

const SHOP: [&str; 4] = [
    "a_shop.rows_30s",
    "a_shop.means_30s",
    "a_shop.means_rows_3",
    "a_shop.own_30s",
];
const TOWN: [&str; 2] = ["a_place.seen_40s", "a_place.newest"];

#[derive(Debug, Clone, PartialEq)]
struct Purchase {
    customer: u8,
    shop: u8,
    town: u8,
    amount: Option<i8>,
    second: i64,
}

#[derive(Debug, Clone)]
enum Step {
    Purchases(Vec<Purchase>),
    /// Replaces purchases that were sent, by any number.
    Revise(Vec<(Index, Purchase)>),
    Retract(Vec<Index>),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let amount = proptest::option::weighted(0.9, -1i8..9);
    let purchase = (0u8..3, 0u8..2, 0u8..2, amount, 0i64..80).prop_map(
        |(customer, shop, town, amount, second)| Purchase {
            customer,
            shop,
            town,
            amount,
            second,
        },
    );
    let step = prop_oneof![
        5 => proptest::collection::vec(purchase.clone(), 1..25).prop_map(Step::Purchases),
        2 => proptest::collection::vec((any::<Index>(), purchase), 1..5).prop_map(Step::Revise),
        2 => proptest::collection::vec(any::<Index>(), 1..5).prop_map(Step::Retract),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..7)
}

/// A fact, and since when it counts no longer.
#[derive(Debug, Clone)]
struct Known {
    id: u64,
    purchase: Purchase,
    position: Position,
    removed_at: Option<u64>,
}

struct Run {
    harness: Harness,
    facts: Vec<Known>,
    sequence: u64,
}

impl Run {
    fn new(shards: usize, memory_bytes_max: usize) -> Self {
        let harness = Harness::new(DEFINITIONS, |state| {
            state.shards = shards;
            state.memory_bytes_max = memory_bytes_max;
            state.checkpoint_facts = 40;
        });
        Self {
            harness,
            facts: Vec::new(),
            sequence: 0,
        }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Reopen => self.harness.reopen(),
            Step::Retract(picks) => picks.iter().for_each(|pick| self.retract(pick)),
            Step::Revise(changes) => changes.iter().for_each(|(p, to)| self.revise(p, to)),
            Step::Purchases(purchases) => {
                let ids = self.sequence + 1..;
                let rows = ids.zip(purchases).map(|(id, p)| sent(id, p));
                self.harness
                    .send("purchase", &rows.collect::<Vec<_>>(), false);
                for purchase in purchases {
                    self.know(self.sequence + 1, purchase);
                }
            }
        }
    }

    fn know(&mut self, id: u64, purchase: &Purchase) {
        self.sequence += 1;
        self.facts.push(Known {
            id,
            purchase: purchase.clone(),
            position: Position::new(purchase.second * SECOND, self.sequence),
            removed_at: None,
        });
    }

    /// The place of a fact that counts.
    fn live(&self, pick: &Index) -> Option<usize> {
        let facts = self.facts.iter().enumerate();
        let live = facts.filter(|(_, f)| f.removed_at.is_none());
        let live: Vec<usize> = live.map(|(place, _)| place).collect();
        (!live.is_empty()).then(|| live[pick.index(live.len())])
    }

    fn revise(&mut self, pick: &Index, purchase: &Purchase) {
        let Some(place) = self.live(pick) else { return };
        let id = self.facts[place].id;
        let reply = self.harness.send("purchase", &[sent(id, purchase)], true);
        let changes = self.facts[place].purchase != *purchase;
        assert_eq!(reply.accepted, usize::from(changes));
        if changes {
            self.facts[place].removed_at = Some(self.sequence + 1);
            self.know(id, purchase);
        }
    }

    fn retract(&mut self, pick: &Index) {
        let Some(place) = self.live(pick) else { return };
        let id = self.facts[place].id.to_string();
        let reply = self.harness.retract("purchase", vec![id]);
        assert_eq!(reply.retracted, 1);
        self.sequence += 1;
        self.facts[place].removed_at = Some(self.sequence);
    }

    /// Reads shops and towns live and holds that to the oracle; adds what was read to `shops` and `towns`.
    fn check(
        &self,
        second: i64,
        inclusive: bool,
        known_at: u64,
        [shops, towns]: &mut [Vec<Live>; 2],
    ) {
        let cursor = cursor_at(second, inclusive, known_at.min(self.sequence));
        let [in_shop, in_town] = [SHOP.as_slice(), &TOWN].map(full_names);
        for place in 0..2 {
            let key = format!("s{place}");
            let row = self.harness.read(&in_shop, ("shop", &key), &cursor);
            assert_eq!(row.values, self.shop(place, &cursor), "{key} at {cursor:?}");
            shops.push((key, cursor, row));
            let key = format!("t{place}");
            let row = self.harness.read(&in_town, ("place", &key), &cursor);
            assert_eq!(row.values, self.town(place, &cursor), "{key} at {cursor:?}");
            towns.push((key, cursor, row));
        }
    }

    fn seen(&self, cursor: &Cursor) -> impl Iterator<Item = &Known> {
        let cursor = *cursor;
        let facts = self.facts.iter();
        facts
            .filter(move |f| f.position < cursor.until && f.position.sequence <= cursor.known_at)
            .filter(move |f| f.removed_at.is_none_or(|at| cursor.known_at < at))
    }

    /// `spending.n_20s` and `spending.mean` of the fact's customer at the fact, if it counts there.
    fn spending(&self, fact: &Known, cursor: &Cursor) -> Option<(i64, Value)> {
        let at = at_fact(fact, cursor);
        let same = |f: &&Known| f.purchase.customer == fact.purchase.customer;
        let facts = self
            .seen(&at)
            .filter(same)
            .filter(|f| f.purchase.amount > Some(0));
        let facts: Vec<OracleFact> = facts.map(|f| row(f.position, amount(f))).collect();
        fact.purchase.amount.filter(|a| *a > 0)?;
        let n = int(&ask(&facts, Aggregate::Count, false, exact(20), &at));
        let lifetime = Window::new(WindowKind::Lifetime);
        let total = ask(&facts, Aggregate::Sum, true, lifetime, &at);
        let Value::Float(total) = total else {
            panic!("the fact itself has an amount")
        };
        Some((n, Value::Float(total / n as f64)))
    }

    fn shop(&self, shop: u8, cursor: &Cursor) -> Vec<Value> {
        let (mut means, mut own) = (Vec::new(), Vec::new());
        for fact in self.seen(cursor).filter(|f| f.purchase.shop == shop) {
            if let Some((n, mean)) = self.spending(fact, cursor).filter(|(n, _)| *n > 1) {
                assert!(n > 1);
                means.push(row(fact.position, mean));
                own.push(row(fact.position, amount(fact)));
            }
        }
        let rows = Window::new(WindowKind::Rows { rows: 3 });
        vec![
            ask(&means, Aggregate::Count, false, exact(30), cursor),
            ask(&means, Aggregate::Sum, true, exact(30), cursor),
            ask(&means, Aggregate::Sum, true, rows, cursor),
            ask(&own, Aggregate::Sum, true, exact(30), cursor),
        ]
    }

    fn town(&self, town: u8, cursor: &Cursor) -> Vec<Value> {
        let (mut seen, mut means) = (Vec::new(), Vec::new());
        for fact in self.seen(cursor).filter(|f| f.purchase.town == town) {
            let counts = self.spending(fact, cursor).is_some_and(|(n, _)| n > 1);
            if counts {
                let shop = self.shop(fact.purchase.shop, &at_fact(fact, cursor));
                seen.push(row(fact.position, Value::Int(int(&shop[0]) + 1)));
                means.push(row(fact.position, shop[1].clone()));
            }
        }
        let lifetime = Window::new(WindowKind::Lifetime);
        let newest = Aggregate::Last { keep_nulls: true };
        vec![
            ask(&seen, Aggregate::Max, true, exact(40), cursor),
            ask(&means, newest, true, lifetime, cursor),
        ]
    }
}

/// A purchase as it is sent.
fn sent(id: u64, p: &Purchase) -> serde_json::Value {
    json!({"id": id.to_string(), "customer": format!("c{}", p.customer),
        "shop": format!("s{}", p.shop), "town": format!("t{}", p.town),
        "amount": p.amount.map(f64::from), "time": p.second * SECOND})
}

fn full_names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// A fact sees itself and what stands before it.
fn at_fact(fact: &Known, cursor: &Cursor) -> Cursor {
    let after = Position::new(fact.position.event_time, fact.position.sequence + 1);
    Cursor::before_fact(after).known_at(cursor.known_at)
}

fn exact(seconds: i64) -> Window {
    Window::new(WindowKind::Exact {
        width: seconds * SECOND,
    })
}

fn amount(fact: &Known) -> Value {
    let amount = fact.purchase.amount;
    amount.map_or(Value::Null, |a| Value::Float(f64::from(a)))
}

fn int(value: &Value) -> i64 {
    match value {
        Value::Int(v) => *v,
        other => panic!("{other:?} is no count"),
    }
}

fn row(position: Position, value: Value) -> OracleFact {
    OracleFact {
        position,
        removed_at: None,
        value,
        counts: true,
        order: Value::Null,
        category: Value::Null,
    }
}

fn ask(
    facts: &[OracleFact],
    function: Aggregate,
    with_input: bool,
    window: Window,
    cursor: &Cursor,
) -> Value {
    let input = DataType::Float64;
    evaluate(facts, &function, with_input, &input, &window, cursor).value
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn chained_views_equal_the_oracle(
        shards in 1usize..3,
        memory_bytes_max in prop_oneof![Just(0usize), Just(1 << 30)],
        steps in steps(),
        reads in proptest::collection::vec((-5i64..90, any::<bool>(), 0u64..90), 5),
    ) {
        let mut run = Run::new(shards, memory_bytes_max);
        for (index, step) in steps.iter().enumerate() {
            run.take(step);
            let (second, inclusive, known_at) = reads[index % reads.len()];
            run.check(second, inclusive, known_at, &mut Default::default());
            run.check(second, inclusive, u64::MAX, &mut Default::default());
        }
        let mut live: [Vec<Live>; 2] = Default::default();
        for (second, inclusive, known_at) in reads {
            run.check(second, inclusive, known_at, &mut live);
            run.check(second, inclusive, u64::MAX, &mut live);
        }
        for (names, key, live) in [(SHOP.as_slice(), "shop", &live[0]), (TOWN.as_slice(), "place", &live[1])] {
            run.harness.assert_offline("spending", &full_names(names), key, live);
        }
    }
}

#[test]
fn what_cannot_be_chained_is_refused() {
    let refused = |from: &str, to: &str, words: &str| {
        let definitions = DEFINITIONS.replace(from, to);
        assert_ne!(definitions, DEFINITIONS);
        let files = [("headwater.yaml", "name: shop\n"), ("d.yaml", &definitions)];
        let project = TempProject::new(BINARY, &files);
        let said = project.run_fails(&["check"]);
        assert!(
            said.contains(words) && said.contains("d.yaml"),
            "no `{words}` in {said}"
        );
    };
    let source = "sources: [{contract: purchase, where: amount > 0}]";
    refused(
        source,
        "sources: [{view: a_place, keys: {customer: place}}]",
        "in a circle",
    );
    refused(
        "view: spending",
        "view: spendin",
        "did you mean `spending`?",
    );
    refused(
        "view: spending",
        "view: spending, contract: purchase",
        "a contract or a view",
    );
    refused(
        "where: n_20s > 1",
        "where: n_2s > 1",
        "did you mean `n_20s`?",
    );
    refused("{place: town}", "{place: tow}", "did you mean `town`?");
    let by_count = "keys: [{name: place, type: integer}]";
    let definitions = DEFINITIONS.replace("keys: [{name: place, type: string}]", by_count);
    let definitions = definitions.replace(
        "{place: town}, columns: {seen: rows_30s}",
        "{place: rows_30s}",
    );
    let files = [
        ("headwater.yaml", "name: shop\n"),
        ("d.yaml", &definitions.replace("seen + 1", "rows_30s")),
    ];
    let said = TempProject::new(BINARY, &files).run_fails(&["check"]);
    assert!(said.contains("is a feature"), "{said}");
}

const VISIT: &str = "
apiVersion: headwater/v1
kind: FeatureSet
name: visit
owner: web
spec:
  features: [a_place.seen_40s]
  context: [{name: guests, type: integer}]
  on_demand:
    - {name: crowd, expression: seen_40s + guests}
    - {name: crowded, expression: crowd > 10}
";

fn named(walk: &serde_json::Value) -> Vec<String> {
    let nodes = walk["nodes"].as_array().unwrap().iter();
    let mut ids: Vec<String> = nodes
        .map(|n| n["id"].as_str().unwrap().to_owned())
        .collect();
    ids.sort();
    ids
}

#[test]
fn lineage_is_whole_from_a_column_to_what_is_worked_out_on_demand() {
    let files = [
        ("headwater.yaml", "name: shop\n"),
        ("d.yaml", DEFINITIONS),
        ("visit.yaml", VISIT),
    ];
    let project = TempProject::new(BINARY, &files);
    project.run_ok(&["apply"]);
    let server = ServerProcess::start(&project);
    let walk = |of: &str, direction: &str| {
        let path = format!("/v1/registry/lineage?of={of}&direction={direction}");
        let walk = server.get(&path).json();
        let told = project.run_ok(&["--json", "registry", "lineage", of]);
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        assert_eq!(told[direction], walk);
        walk
    };
    // `total` reads the amount; of it `mean`; of that `a_shop.means`, of the first of those `a_place.newest`.
    let down = walk("spending.total_lifetime", "downstream");
    let expected = [
        "feature:a_place.newest",
        "feature:a_shop.means_30s",
        "feature:a_shop.means_rows_3",
        "feature:spending.mean",
        "feature:spending.total_lifetime",
        "view:a_place",
        "view:a_shop",
        "view:spending",
    ];
    assert_eq!(named(&down), expected);
    // Which rows there are is up to `where: amount > 0`, three views above.
    let down = named(&walk("purchase.amount", "downstream"));
    for reached in [
        "feature:a_shop.rows_30s",
        "feature:a_place.seen_40s",
        "on_demand:visit.crowd",
        "on_demand:visit.crowded",
        "feature_set:visit",
    ] {
        assert!(
            down.contains(&reached.to_owned()),
            "no {reached} in {down:?}"
        );
    }
    let up = walk("visit.crowded", "upstream");
    let expected = [
        "column:purchase.amount",
        "column:purchase.customer",
        "column:purchase.shop",
        "column:purchase.time",
        "column:purchase.town",
        "context:visit.guests",
        "contract:purchase",
        "feature:a_place.seen_40s",
        "feature:a_shop.rows_30s",
        "feature:spending.n_20s",
        "on_demand:visit.crowd",
        "on_demand:visit.crowded",
        "view:a_shop",
        "view:spending",
    ];
    assert_eq!(named(&up), expected);
    let found = server.get("/v1/registry/search?q=crowded").json();
    assert_eq!(found["found"][0]["kind"], "on_demand");

    let affected = |from: &str, to: &str| {
        let changed = DEFINITIONS.replace(from, to);
        assert_ne!(changed, DEFINITIONS);
        project.write("d.yaml", changed);
        // Of a view that changes for what is upstream alone, that is the reason.
        let told = project.run_ok(&["plan"]);
        let reason = "view a_shop\n      reads the view spending, which changes\n";
        assert!(told.contains(reason), "{told}");
        let plan = project.run_ok(&["--json", "plan"]);
        let plan: serde_json::Value = serde_json::from_str(&plan).unwrap();
        let affected = plan["affected"].as_array().unwrap().iter();
        let named = affected.map(|a| format!("{} {}", a["name"].as_str().unwrap(), a["because"]));
        named.collect::<Vec<_>>()
    };
    let because = |name: &str| format!("{name} [\"view spending\"]");
    assert_eq!(
        affected("where: amount > 0", "where: amount > 1"),
        ["a_place", "a_shop", "visit"].map(because)
    );
    // `visit` reads nothing that comes of the mean.
    assert_eq!(
        affected("total_lifetime / n_20s", "total_lifetime * n_20s"),
        ["a_place", "a_shop"].map(because)
    );
    assert!(server.stop());
}
