//! Corrections of facts that states have folded away, where the oldest facts have gone for good, and where they lie in the
//! archive: what can be told stays right, and what can't is refused feature by feature.

use std::fs;

use headwater_testkit::{Reply, ServerProcess, TempProject};
use serde_json::{Value, json};

use crate::{BINARY, CONTRACTS};

const HOUR: u64 = 3_600_000_000;
const FACTS: u64 = 600;

const FEATURES: &str = "\
{apiVersion: headwater/v1, kind: Entity, name: customer, spec: {keys: [{name: customer, type: string}]}}
---
apiVersion: headwater/v1
kind: FeatureView
name: spending
spec:
  entity: customer
  retention: 3h
  sources: [{contract: purchase}]
  features:
    - {name: purchases, aggregate: count, windows: [2h, lifetime]}
    - {name: spent, aggregate: sum, of: amount, windows: [lifetime]}
    - {name: mean, aggregate: avg, of: amount, windows: [lifetime]}
    - {name: largest, aggregate: max, of: amount, windows: [lifetime]}
    - {name: least, aggregate: min, of: amount, windows: [lifetime]}
    - {name: newest, of: amount}
";

/// Purchases of one customer, one an hour, as they should be: amount by number, while they live.
struct Shop {
    project: TempProject,
    server: Option<ServerProcess>,
    amounts: Vec<Option<u64>>,
}

/// The greatest amounts are the last of the first half; the least are all over.
fn amount(number: u64) -> u64 {
    match number {
        n if n >= FACTS / 2 => 10 + n * 7 % 50,
        n => 60 + n,
    }
}

impl Shop {
    fn new(settings: &str, retention: &str) -> Self {
        let unit = "      - {property: headwater.timeUnit, value: us}\n";
        let contract = CONTRACTS.replace(unit, &format!("{unit}{retention}"));
        let config = format!(
            "name: shop\nspec:\n  state: {{checkpoint_facts: 50}}\n  ingest: {{segment_bytes_max: 500}}\n{settings}"
        );
        let files = [
            ("headwater.yaml", config.as_str()),
            ("contract.yaml", &contract),
            ("features.yaml", FEATURES),
        ];
        let project = TempProject::new(BINARY, &files);
        project.run_ok(&["apply"]);
        let mut shop = Self {
            server: Some(ServerProcess::start(&project)),
            project,
            amounts: (0..FACTS).map(|n| Some(amount(n))).collect(),
        };
        for first in (0..FACTS).step_by(20) {
            let facts = (first..first + 20).map(|n| fact(n, amount(n)));
            let facts: Vec<Value> = facts.collect();
            let reply = shop.server().post_json("/v1/facts/purchase", &json!(facts));
            assert_eq!(reply.json()["accepted"], 20, "{}", reply.body);
        }
        shop.restart();
        shop
    }

    fn server(&self) -> &ServerProcess {
        self.server.as_ref().expect("started")
    }

    /// A start lets facts go whose time is over.
    fn restart(&mut self) {
        assert!(self.server.take().is_none_or(ServerProcess::stop));
        self.server = Some(ServerProcess::start(&self.project));
    }

    /// Numbers of the facts that can be listed, by their customer.
    fn listed(&self) -> Vec<u64> {
        let reply = self
            .server()
            .get("/v1/facts/purchase?entity=customer:ada&limit=1000");
        assert_eq!(reply.status, 200, "{}", reply.body);
        let facts = reply.json();
        let facts = facts["facts"].as_array().unwrap().iter();
        facts
            .map(|f| f["fact_id"].as_str().unwrap()[1..].parse().unwrap())
            .collect()
    }

    fn read(&self, names: &[&str], known_at: Option<&Value>) -> Reply {
        let names: Vec<String> = names.iter().map(|n| format!("spending.{n}")).collect();
        let mut request = json!({"features": names, "entities": [{"customer": "ada"}],
            "as_of": (FACTS - 1) * HOUR});
        if let Some(known_at) = known_at {
            request["known_at"] = known_at.clone();
        }
        self.server().post_json("/v1/features", &request)
    }

    fn values(&self, names: &[&str], known_at: Option<&Value>) -> Value {
        let reply = self.read(names, known_at);
        assert_eq!(reply.status, 200, "{names:?}: {}", reply.body);
        reply.json()["rows"][0]["values"].clone()
    }

    /// Count, sum and mean of a lifetime.
    fn sums(&self) -> Value {
        let live: Vec<u64> = self.amounts.iter().flatten().copied().collect();
        let spent = live.iter().sum::<u64>() as f64;
        json!([live.len(), spent, spent / live.len() as f64])
    }

    fn largest(&self) -> Value {
        json!(*self.amounts.iter().flatten().max().unwrap() as f64)
    }

    /// Takes back a fact; the sequence.
    fn retract(&mut self, number: u64) -> Value {
        let ids = json!({"fact_ids": [format!("p{number}")]});
        let reply = self
            .server()
            .post_json("/v1/facts/purchase/retract", &ids)
            .json();
        assert_eq!(reply["retracted"], 1, "{reply}");
        self.amounts[number as usize] = None;
        reply["sequence"].clone()
    }

    fn revise(&mut self, number: u64, amount: u64) {
        let facts = json!([fact(number, amount)]);
        let reply = self
            .server()
            .post_json("/v1/facts/purchase?revise=true", &facts);
        assert_eq!(reply.json()["accepted"], 1, "{}", reply.body);
        self.amounts[number as usize] = Some(amount);
    }
}

fn fact(number: u64, amount: u64) -> Value {
    json!({"id": format!("p{number}"), "customer": "ada", "amount": amount, "time": number * HOUR})
}

const SUMS: [&str; 3] = ["purchases_lifetime", "spent_lifetime", "mean_lifetime"];

#[test]
fn what_can_be_told_without_facts_that_are_gone_stays_right() {
    let retention = "      - {property: headwater.retention, value: 18d}\n";
    let mut shop = Shop::new("", retention);
    let kept = shop.listed();
    // Eighteen days are 432 hours; a segment goes as a whole.
    let oldest = kept[0];
    assert!((60..=FACTS - 433).contains(&oldest), "{oldest}");
    assert_eq!(shop.values(&SUMS, None), shop.sums());
    assert_eq!(
        shop.values(&["largest_lifetime"], None),
        json!([shop.largest()])
    );

    // Rows of training sets are held to the same, before the first is read.
    let spine = |hour: u64| {
        format!(
            "customer,as_of\nada,{}\nada,{}\n",
            (FACTS - 1) * HOUR,
            hour * HOUR
        )
    };
    let make = |features: &str, hour: u64| {
        let path = format!("/v1/training-sets?features=spending.purchases_2h{features}");
        shop.server().post(&path, "text/csv", spine(hour))
    };
    assert_eq!(make("", FACTS - 430).status, 200);
    for (features, hour) in [("", 50), (",spending.spent_lifetime", FACTS - 1)] {
        let refused = make(features, hour);
        assert_eq!(refused.status, 410, "{}", refused.body);
        assert!(
            refused
                .body
                .contains("the view `spending` reads `purchase`, of which facts from")
        );
    }

    // The kept fact is folded with others that are gone; the least value isn't its own.
    let before = shop.sums();
    let sequence = shop.retract(200);
    assert_eq!(shop.values(&SUMS, None), shop.sums());
    let earlier: u64 = sequence.as_str().unwrap().parse::<u64>().unwrap() - 1;
    let earlier = json!(earlier.to_string());
    assert_eq!(shop.values(&SUMS, Some(&earlier)), before);
    shop.revise(210, 1);
    assert_eq!(shop.values(&SUMS, None), shop.sums());
    let chosen = [
        "largest_lifetime",
        "least_lifetime",
        "newest",
        "purchases_2h",
    ];
    let last = amount(FACTS - 1) as f64;
    let expected = json!([shop.largest(), 1.0, last, 2]);
    assert_eq!(shop.values(&chosen, None), expected);
    shop.restart();
    assert_eq!(shop.values(&SUMS, None), shop.sums());
    assert_eq!(shop.values(&chosen, None), expected);

    // The greatest value may have been that of a fact that is gone, too: nothing can tell.
    shop.retract(FACTS / 2 - 1);
    for _ in 0..2 {
        assert_eq!(shop.values(&SUMS, None), shop.sums());
        assert_eq!(shop.values(&chosen[1..], None), json!([1.0, last, 2]));
        let refused = shop.read(&["spent_lifetime", "largest_lifetime"], None);
        assert_eq!(refused.status, 410, "{}", refused.body);
        for words in ["asked for: spending.largest_lifetime\"", "backfill --view"] {
            assert!(refused.body.contains(words), "{}", refused.body);
        }
        shop.restart();
    }
    // Corrections go on being taken.
    shop.retract(FACTS / 2 - 2);
    shop.revise(220, 2);
    assert_eq!(shop.values(&SUMS, None), shop.sums());

    // Made again, the view knows the facts that are kept, and nothing else.
    let url = shop.server().url.clone();
    shop.project
        .run_ok(&["--server", &url, "backfill", "--view", "spending"]);
    let kept_from = shop.listed()[0] as usize;
    shop.amounts[..kept_from].fill(None);
    assert_eq!(shop.values(&SUMS, None), shop.sums());
    assert_eq!(
        shop.values(&["largest_lifetime"], None),
        json!([shop.largest()])
    );
}

#[test]
fn what_is_corrected_in_the_archive_is_made_again_from_it() {
    let archive = "  archive: {every: 1h, after: 0s}\n";
    let mut shop = Shop::new(archive, "");
    let url = shop.server().url.clone();
    let told = shop
        .project
        .run_ok(&["--server", &url, "--json", "archive"]);
    let told: Value = serde_json::from_str(&told).unwrap();
    assert!(
        told["segments_only_in_archive"].as_u64() > Some(3),
        "{told}"
    );
    assert_eq!(shop.listed().len() as u64, FACTS);
    shop.retract(0);
    shop.revise(3, 1);
    // The greatest of all, so that the next has to be found.
    shop.retract(FACTS / 2 - 1);
    shop.restart();
    assert_eq!(shop.values(&SUMS, None), shop.sums());
    let chosen = ["largest_lifetime", "least_lifetime"];
    assert_eq!(shop.values(&chosen, None), json!([shop.largest(), 1.0]));
    // A training set reads the archive, too.
    let path = "/v1/training-sets?features=spending.purchases_lifetime,spending.purchases_2h";
    let spine = format!("customer,as_of\nada,{}\n", 10 * HOUR + 1);
    let reply = shop.server().post(path, "text/csv", spine);
    assert_eq!(reply.status, 200, "{}", reply.body);
    let format = headwater_schema::decode::BodyFormat::ArrowStream;
    let rows = headwater_schema::decode::read_record_batches(format, &reply.bytes).unwrap();
    let rows = rows.map(Result::unwrap).next().unwrap();
    let value = |column| headwater_schema::Value::from_array(rows.column(column), 0);
    assert_eq!(
        (value(2), value(3)),
        (
            headwater_schema::Value::Int(10),
            headwater_schema::Value::Int(2)
        )
    );
}

#[test]
fn a_longer_retention_brings_no_fact_back() {
    let retention =
        |days: &str| format!("      - {{property: headwater.retention, value: {days}d}}\n");
    let mut shop = Shop::new("", &retention("18"));
    let kept_from = shop.listed()[0];
    assert!(kept_from > 60, "{kept_from}");
    let path = shop.project.path().join("contract.yaml");
    let contract = fs::read_to_string(&path).unwrap();
    let at = |shop: &Shop, number: u64| {
        let request = json!({"features": ["spending.purchases_2h"], "entities": [{"customer": "ada"}],
            "as_of": number * HOUR});
        shop.server().post_json("/v1/features", &request)
    };
    for (version, longer) in [("1.1.0", retention("24")), ("1.2.0", String::new())] {
        let changed = contract
            .replace(&retention("18"), &longer)
            .replace("version: 1.0.0", &format!("version: {version}"));
        fs::write(&path, changed).unwrap();
        assert!(shop.server.take().is_none_or(ServerProcess::stop));
        shop.project.run_ok(&["apply"]);
        shop.restart();
        assert_eq!(shop.listed()[0], kept_from);
        // Its window begins among facts that are gone, though the contract would keep them now.
        let refused = at(&shop, kept_from);
        assert_eq!(refused.status, 410, "{}", refused.body);
        assert!(refused.body.contains("past-retention"), "{}", refused.body);
        let told = at(&shop, kept_from + 3);
        assert_eq!(
            told.json()["rows"][0]["values"],
            json!([2]),
            "{}",
            told.body
        );
    }
}

#[test]
fn what_lies_before_the_kept_facts_is_refused_not_empty() {
    let retention = "      - {property: headwater.retention, value: 18d}\n";
    let shop = Shop::new("", retention);
    let kept_from = shop.listed()[0];
    let ask = |sql: &str, as_of: Option<u64>, known_at: Option<&str>| {
        let body = json!({"sql": sql, "as_of": as_of, "known_at": known_at});
        shop.server().post_json("/v1/query", &body)
    };
    let count = "SELECT count(*) AS n FROM purchase";
    let history = "SELECT count(*) AS n FROM history.purchase";
    let view = "SELECT purchases_2h FROM views.spending WHERE _event_time > TIMESTAMP '1970-01-25T00:00:00Z'";
    let early =
        "SELECT purchases_2h FROM features_as_of('spending', TIMESTAMP '1970-01-02T00:00:00Z')";
    let late = early.replace("01-02", "01-25");
    let gone = Some((kept_from - 1) * HOUR);
    for (sql, as_of, known_at) in [
        (count, gone, None),
        (count, None, Some("5")),
        (history, None, Some("5")),
        (view, gone, None),
        (view, None, Some("5")),
        (early, None, None),
        (&late, gone, None),
        (&late, None, Some("5")),
    ] {
        let refused = ask(sql, as_of, known_at);
        assert_eq!(refused.status, 410, "{sql}: {}", refused.body);
        assert!(refused.body.contains("past-retention"), "{}", refused.body);
    }
    let known = shop
        .server()
        .post_json("/v1/query", &json!({"sql": count}))
        .json();
    assert_eq!(known["rows"], json!([[FACTS - kept_from]]), "{known}");
    let last = known["sequence"].as_str();
    let told = ask(count, Some(kept_from * HOUR), last);
    assert_eq!(told.json()["rows"], json!([[1]]), "{}", told.body);
    for sql in [view, &late] {
        let told = ask(sql, None, last);
        assert_eq!(told.json()["rows"][0], json!([2]), "{sql}: {}", told.body);
    }
    for asked in [
        "known_at=5",
        "to=1970-01-02T00:00:00Z",
        "entity=customer:ada&known_at=5",
    ] {
        let refused = shop.server().get(&format!("/v1/facts/purchase?{asked}"));
        assert_eq!(refused.status, 410, "{asked}: {}", refused.body);
    }
    let told = shop
        .server()
        .get("/v1/facts/purchase?from=1970-01-20T00:00:00Z&to=1970-01-20T00:30:00Z");
    assert_eq!(told.status, 200, "{}", told.body);

    // A training set has lifetimes from facts alone: it says which feature of which row lacks them.
    let spine = json!([{"customer": "ada", "as_of": (FACTS - 1) * HOUR}]);
    let features = "spending.purchases_2h,spending.spent_lifetime,spending.newest";
    let refused = shop
        .server()
        .post_json(&format!("/v1/training-sets?features={features}"), &spine);
    assert_eq!(refused.status, 410, "{}", refused.body);
    for words in [
        "spending.spent_lifetime, spending.newest at 1970-01-25",
        "archive",
        "all time",
    ] {
        assert!(refused.body.contains(words), "{}", refused.body);
    }
}

/// Purchases in the two hours before the `number`-th, as they were known.
fn two_hours(shop: &Shop, number: u64, known_at: Option<&Value>) -> Reply {
    let mut request = json!({"features": ["spending.purchases_2h"], "entities": [{"customer": "ada"}],
        "as_of": number * HOUR});
    if let Some(known_at) = known_at {
        request["known_at"] = known_at.clone();
    }
    shop.server().post_json("/v1/features", &request)
}

#[test]
fn corrections_reach_the_facts_that_are_kept_and_no_others() {
    let retention = "      - {property: headwater.retention, value: 18d}\n";
    let mut shop = Shop::new("", retention);
    let kept_from = shop.listed()[0];
    let send = |shop: &Shop, query: &str, number: u64, amount: u64| {
        let path = format!("/v1/facts/purchase{query}");
        shop.server()
            .post_json(&path, &json!([fact(number, amount)]))
            .json()
    };
    // A fact that is gone can't be taken back, and what it contributed stays.
    let ids = json!({"fact_ids": ["p0", "p1"]});
    let reply = shop
        .server()
        .post_json("/v1/facts/purchase/retract", &ids)
        .json();
    assert_eq!(
        (&reply["retracted"], &reply["unknown"]),
        (&json!(0), &json!(["p0", "p1"]))
    );
    assert_eq!(shop.values(&SUMS, None), shop.sums());
    // Its id is known on: sent again it is no second fact.
    assert_eq!(send(&shop, "", 0, amount(0))["duplicates"], 1);
    let conflict = send(&shop, "", 0, 7);
    assert_eq!(
        (&conflict["accepted"], &conflict["rejected"][0]["row"]),
        (&json!(0), &json!(0))
    );
    assert_eq!(shop.values(&SUMS, None), shop.sums());
    // Nor can it be replaced: its revision is a fact beside what it contributed, however old.
    let revised = send(&shop, "?revise=true", 0, 7);
    assert_eq!(revised["accepted"], 1, "{revised}");
    shop.amounts.push(Some(7));
    assert_eq!(shop.values(&SUMS, None), shop.sums());

    // A moment before the kept facts is refused after corrections as before them, whatever is known of it.
    let number = 220;
    assert!(number > kept_from + 5);
    let before = json!(revised["sequence"]);
    let sequence = shop.retract(number);
    for known_at in [None, Some(&before), Some(&sequence)] {
        for gone in [1, kept_from - 1, kept_from] {
            let refused = two_hours(&shop, gone, known_at);
            assert_eq!(refused.status, 410, "{gone} {known_at:?}: {}", refused.body);
            assert!(refused.body.contains("past-retention"), "{}", refused.body);
        }
    }
    let told = |shop: &Shop, number: u64, known_at: Option<&Value>| {
        let reply = two_hours(shop, number, known_at);
        assert_eq!(reply.status, 200, "{number} {known_at:?}: {}", reply.body);
        reply.json()["rows"][0]["values"][0].clone()
    };
    // A kept fact is moved before them: it is no longer where it was, and where it is now nothing can be told.
    let moved =
        json!([{"id": "p230", "customer": "ada", "amount": amount(230), "time": 10 * HOUR}]);
    let reply = shop
        .server()
        .post_json("/v1/facts/purchase?revise=true", &moved);
    assert_eq!(reply.json()["accepted"], 1, "{}", reply.body);
    for _ in 0..2 {
        assert_eq!(told(&shop, number, None), 1);
        assert_eq!(told(&shop, number, Some(&before)), 2);
        assert_eq!(told(&shop, 230, None), 1);
        assert_eq!(told(&shop, 230, Some(&sequence)), 2);
        assert_eq!(two_hours(&shop, 10, None).status, 410);
        assert_eq!(shop.values(&SUMS, None), shop.sums());
        shop.restart();
    }
}
