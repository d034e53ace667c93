//! The definitions of a run: three sets of them, one in force at a time, as text and as the model knows them.

use headwater_aggregate::{Aggregate, Window, WindowKind};

use crate::model::SECOND;
use crate::steps::{Contract, Fact};

/// How many sets of definitions there are.
pub const VARIANTS: u8 = 3;

const CONTRACTS: &str = "\
kind: DataContract
apiVersion: v3.1.0
id: simulated
version: 1.0.0
status: active
schema:
  - name: purchase
    properties:
      - {name: id, logicalType: string, required: true}
      - {name: customer, logicalType: string}
      - {name: amount, logicalType: number, logicalTypeOptions: {minimum: 0}}
      - {name: time, logicalType: timestamp, required: true}
    customProperties:
      - {property: headwater.eventTime, value: time}
      - {property: headwater.factId, value: id}
      - {property: headwater.timeUnit, value: us}
MEMORY
  - name: transfer
    properties:
      - {name: id, logicalType: string, required: true}
      - {name: payer, logicalType: string}
      - {name: payee, logicalType: string}
      - {name: amount, logicalType: number, logicalTypeOptions: {minimum: 0}}
      - {name: time, logicalType: timestamp, required: true}
    customProperties:
      - {property: headwater.eventTime, value: time}
      - {property: headwater.factId, value: id}
      - {property: headwater.timeUnit, value: us}
MEMORY
---
apiVersion: headwater/v1
kind: Entity
name: customer
owner: simulation
spec: {keys: [{name: customer, type: string}]}
---
apiVersion: headwater/v1
kind: Entity
name: account
owner: simulation
spec: {keys: [{name: account, type: string}]}
";

const SPENDING: &str = "\
---
apiVersion: headwater/v1
kind: FeatureView
name: spending
owner: simulation
spec:
  entity: customer
  sources: [{contract: purchase}]
  retention: 20s
  features:
    - {name: count, aggregate: count, windows: [7s, 1m]}
    - {name: sum, aggregate: sum, of: amount, windows: [7s, lifetime]}
    - {name: max, aggregate: max, of: amount, windows: [1m]}
    - {name: variance, aggregate: variance, of: amount, windows: [1m]}
    - {name: first, aggregate: first, of: amount, windows: [lifetime]}
    - {name: last, aggregate: last, of: amount, windows: [{rows: 3}]}
    - {name: last_n, aggregate: last_n, n: 4, of: amount, windows: [{range: 9s}]}
    - {name: distinct, aggregate: distinct_count, of: amount, windows: [lifetime]}
";

const SPENDING_LESS: &str = "\
---
apiVersion: headwater/v1
kind: FeatureView
name: spending
owner: simulation
spec:
  entity: customer
  sources: [{contract: purchase}]
  retention: 5s
  storage: disk
  features:
    - {name: count, aggregate: count, windows: [1m, lifetime]}
    - {name: min, aggregate: min, of: amount, windows: [9s, lifetime]}
";

const LARGE: &str = "\
---
apiVersion: headwater/v1
kind: FeatureView
name: large
owner: simulation
spec:
  entity: customer
  sources: [{contract: purchase, where: amount > 1.0}]
  storage: disk
  features:
    - {name: count, aggregate: count, windows: [7s, lifetime]}
    - {name: sum, aggregate: sum, of: amount, windows: [1m]}
";

const LEDGER: &str = "\
---
apiVersion: headwater/v1
kind: FeatureView
name: ledger
owner: simulation
spec:
  entity: account
  sources:
    - {contract: transfer, keys: {account: payer}}
    - {contract: transfer, keys: {account: payee}}
  features:
    - {name: count, aggregate: count, windows: [7s, lifetime]}
    - {name: sum, aggregate: sum, of: amount, windows: [1m, lifetime]}
";

const LEDGER_IN: &str = "\
---
apiVersion: headwater/v1
kind: FeatureView
name: ledger
owner: simulation
spec:
  entity: account
  sources: [{contract: transfer, keys: {account: payee}}]
  features:
    - {name: count, aggregate: count, windows: [7s, lifetime]}
    - {name: last, aggregate: last, of: amount, windows: [lifetime]}
";

const ACTIVITY: &str = "\
---
apiVersion: headwater/v1
kind: FeatureView
name: activity
owner: simulation
spec:
  entity: customer
  sources:
    - {contract: purchase}
    - {contract: transfer, keys: {customer: payee}}
  features:
    - {name: count, aggregate: count, windows: [9s, lifetime]}
    - {name: sum, aggregate: sum, of: amount, windows: [lifetime]}
";

/// How long something is remembered, in seconds; none: for ever.
#[derive(Debug, Clone, Copy, Default)]
pub struct Memory {
    pub facts: Option<i64>,
    /// Of the ids of facts that were taken.
    pub ids: Option<i64>,
}

/// A set of definitions.
pub fn definitions(variant: u8, memory: Memory) -> String {
    let property = |name: &str, seconds: Option<i64>| {
        let line = |seconds| format!("      - {{property: headwater.{name}, value: {seconds}s}}\n");
        seconds.map(line).unwrap_or_default()
    };
    let kept = property("retention", memory.facts) + &property("dedupWindow", memory.ids);
    let contracts = CONTRACTS.replace("MEMORY\n", &kept);
    let views = match variant {
        0 => [SPENDING, LARGE, LEDGER].concat(),
        1 => [SPENDING_LESS, LEDGER].concat(),
        _ => [SPENDING, LEDGER_IN, ACTIVITY].concat(),
    };
    contracts + &views
}

/// A feature as the model knows it: name, function, whether it has an input, window.
pub type FeatureModel = (&'static str, Aggregate, bool, Window);

/// A view as the model knows it.
pub struct ViewModel {
    /// Its text; a view of the same text keeps its states.
    pub id: &'static str,
    pub name: &'static str,
    pub entity: &'static str,
    pub contracts: &'static [Contract],
    pub features: Vec<FeatureModel>,
    /// Whether a fact is about an entity, in this view.
    pub about: fn(&Fact, u8) -> bool,
}

fn exact(seconds: i64) -> Window {
    Window::new(WindowKind::Exact {
        width: seconds * SECOND,
    })
}

fn lifetime() -> Window {
    Window::new(WindowKind::Lifetime)
}

const KEEP_NULLS: bool = false;

fn bought(fact: &Fact, who: u8) -> bool {
    fact.contract == Contract::Purchase && fact.who == Some(who)
}

fn was_paid(fact: &Fact, who: u8) -> bool {
    fact.contract == Contract::Transfer && fact.other == who
}

fn spending() -> ViewModel {
    let range = WindowKind::Range { width: 9 * SECOND };
    let distinct = Aggregate::DistinctCount { exact_up_to: 1024 };
    let last_n = Aggregate::LastN {
        n: 4,
        keep_nulls: KEEP_NULLS,
    };
    let variance = Aggregate::Variance { sample: false };
    let (first, last) = (first(), last());
    ViewModel {
        id: SPENDING,
        name: "spending",
        entity: "customer",
        contracts: &[Contract::Purchase],
        about: bought,
        features: vec![
            ("count_7s", Aggregate::Count, false, exact(7)),
            ("count_1m", Aggregate::Count, false, exact(60)),
            ("sum_7s", Aggregate::Sum, true, exact(7)),
            ("sum_lifetime", Aggregate::Sum, true, lifetime()),
            ("max_1m", Aggregate::Max, true, exact(60)),
            ("variance_1m", variance, true, exact(60)),
            ("first_lifetime", first, true, lifetime()),
            (
                "last_rows_3",
                last,
                true,
                Window::new(WindowKind::Rows { rows: 3 }),
            ),
            ("last_n_range_9s", last_n, true, Window::new(range)),
            ("distinct_lifetime", distinct, true, lifetime()),
        ],
    }
}

fn first() -> Aggregate {
    Aggregate::First {
        keep_nulls: KEEP_NULLS,
    }
}

fn last() -> Aggregate {
    Aggregate::Last {
        keep_nulls: KEEP_NULLS,
    }
}

fn spending_less() -> ViewModel {
    ViewModel {
        id: SPENDING_LESS,
        name: "spending",
        entity: "customer",
        contracts: &[Contract::Purchase],
        about: bought,
        features: vec![
            ("count_1m", Aggregate::Count, false, exact(60)),
            ("count_lifetime", Aggregate::Count, false, lifetime()),
            ("min_9s", Aggregate::Min, true, exact(9)),
            ("min_lifetime", Aggregate::Min, true, lifetime()),
        ],
    }
}

fn large() -> ViewModel {
    ViewModel {
        id: LARGE,
        name: "large",
        entity: "customer",
        contracts: &[Contract::Purchase],
        about: |fact, who| bought(fact, who) && fact.amount.is_some_and(|a| a > 100),
        features: vec![
            ("count_7s", Aggregate::Count, false, exact(7)),
            ("count_lifetime", Aggregate::Count, false, lifetime()),
            ("sum_1m", Aggregate::Sum, true, exact(60)),
        ],
    }
}

fn ledger() -> ViewModel {
    ViewModel {
        id: LEDGER,
        name: "ledger",
        entity: "account",
        contracts: &[Contract::Transfer],
        about: |fact, who| {
            let paid = fact.contract == Contract::Transfer && fact.who == Some(who);
            paid || was_paid(fact, who)
        },
        features: vec![
            ("count_7s", Aggregate::Count, false, exact(7)),
            ("count_lifetime", Aggregate::Count, false, lifetime()),
            ("sum_1m", Aggregate::Sum, true, exact(60)),
            ("sum_lifetime", Aggregate::Sum, true, lifetime()),
        ],
    }
}

fn ledger_in() -> ViewModel {
    ViewModel {
        id: LEDGER_IN,
        name: "ledger",
        entity: "account",
        contracts: &[Contract::Transfer],
        about: was_paid,
        features: vec![
            ("count_7s", Aggregate::Count, false, exact(7)),
            ("count_lifetime", Aggregate::Count, false, lifetime()),
            ("last_lifetime", last(), true, lifetime()),
        ],
    }
}

fn activity() -> ViewModel {
    ViewModel {
        id: ACTIVITY,
        name: "activity",
        entity: "customer",
        contracts: &[Contract::Purchase, Contract::Transfer],
        about: |fact, who| bought(fact, who) || was_paid(fact, who),
        features: vec![
            ("count_9s", Aggregate::Count, false, exact(9)),
            ("count_lifetime", Aggregate::Count, false, lifetime()),
            ("sum_lifetime", Aggregate::Sum, true, lifetime()),
        ],
    }
}

/// The views of a set of definitions.
pub fn views(variant: u8) -> Vec<ViewModel> {
    match variant {
        0 => vec![spending(), large(), ledger()],
        1 => vec![spending_less(), ledger()],
        _ => vec![spending(), ledger_in(), activity()],
    }
}
