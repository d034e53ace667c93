//! The definitions of a run: three sets of them, one in force at a time, as text and as the model knows them.

use headwater_aggregate::{Aggregate, Grid, Quantiles, Window, WindowKind};

use self::Input::{Amount, AmountByOther, Facts};
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

const PAYMENTS: &str = "\
---
apiVersion: headwater/v1
kind: FeatureView
name: payments
owner: simulation
spec:
  entity: account
  sources: [{contract: transfer, keys: {account: payer}}]
  retention: 20s
  features:
    - name: count
      aggregate: count
      windows: [{tumbling: 9s}, {hopping: 9s, every: 3s, partial: true}, {sawtooth: 20s, hop: 5s}, {session: 2s}]
    - {name: paid, aggregate: sum, of: amount, by: payee, windows: [9s, lifetime]}
    - {name: top, aggregate: top_n, of: amount, n: 3, windows: [{tumbling: 9s}, lifetime]}
    - {name: median, aggregate: quantile, of: amount, quantile: 0.5, exact_up_to: 16, windows: [1m]}
    - {name: faded, aggregate: decayed_sum, of: amount, half_life: 10s, windows: [lifetime]}
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
        0 => [SPENDING, LARGE, LEDGER, PAYMENTS].concat(),
        1 => [SPENDING_LESS, LEDGER].concat(),
        _ => [SPENDING, LEDGER_IN, ACTIVITY, PAYMENTS].concat(),
    };
    contracts + &views
}

/// What a feature reads of facts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Input {
    /// That they are there.
    Facts,
    Amount,
    /// The amount, by the other side of a transfer.
    AmountByOther,
}

/// A feature as the model knows it: name, function, what it reads, window.
pub type FeatureModel = (&'static str, Aggregate, Input, Window);

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
            ("count_7s", Aggregate::Count, Facts, exact(7)),
            ("count_1m", Aggregate::Count, Facts, exact(60)),
            ("sum_7s", Aggregate::Sum, Amount, exact(7)),
            ("sum_lifetime", Aggregate::Sum, Amount, lifetime()),
            ("max_1m", Aggregate::Max, Amount, exact(60)),
            ("variance_1m", variance, Amount, exact(60)),
            ("first_lifetime", first, Amount, lifetime()),
            (
                "last_rows_3",
                last,
                Amount,
                Window::new(WindowKind::Rows { rows: 3 }),
            ),
            ("last_n_range_9s", last_n, Amount, Window::new(range)),
            ("distinct_lifetime", distinct, Amount, lifetime()),
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
            ("count_1m", Aggregate::Count, Facts, exact(60)),
            ("count_lifetime", Aggregate::Count, Facts, lifetime()),
            ("min_9s", Aggregate::Min, Amount, exact(9)),
            ("min_lifetime", Aggregate::Min, Amount, lifetime()),
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
            ("count_7s", Aggregate::Count, Facts, exact(7)),
            ("count_lifetime", Aggregate::Count, Facts, lifetime()),
            ("sum_1m", Aggregate::Sum, Amount, exact(60)),
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
            ("count_7s", Aggregate::Count, Facts, exact(7)),
            ("count_lifetime", Aggregate::Count, Facts, lifetime()),
            ("sum_1m", Aggregate::Sum, Amount, exact(60)),
            ("sum_lifetime", Aggregate::Sum, Amount, lifetime()),
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
            ("count_7s", Aggregate::Count, Facts, exact(7)),
            ("count_lifetime", Aggregate::Count, Facts, lifetime()),
            ("last_lifetime", last(), Amount, lifetime()),
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
            ("count_9s", Aggregate::Count, Facts, exact(9)),
            ("count_lifetime", Aggregate::Count, Facts, lifetime()),
            ("sum_lifetime", Aggregate::Sum, Amount, lifetime()),
        ],
    }
}

fn payments() -> ViewModel {
    let window = Window::new;
    let grid = |seconds| Grid::new(seconds * SECOND);
    let hopping = |every, partial| {
        window(WindowKind::Hopping {
            width: 9 * SECOND,
            grid: grid(every),
            partial,
        })
    };
    let sawtooth = window(WindowKind::Sawtooth {
        width: 20 * SECOND,
        grid: grid(5),
    });
    let session = window(WindowKind::Session { gap: 2 * SECOND });
    let (sum, top) = (Aggregate::Sum, Aggregate::TopN { n: 3 });
    let median = Aggregate::Quantile {
        at: Quantiles::One(500_000_000),
        exact_up_to: 16,
    };
    let faded = Aggregate::DecayedSum {
        half_life: 10 * SECOND,
    };
    ViewModel {
        id: PAYMENTS,
        name: "payments",
        entity: "account",
        contracts: &[Contract::Transfer],
        about: |fact, who| fact.contract == Contract::Transfer && fact.who == Some(who),
        features: vec![
            (
                "count_tumbling_9s",
                Aggregate::Count,
                Facts,
                hopping(9, false),
            ),
            (
                "count_hopping_9s",
                Aggregate::Count,
                Facts,
                hopping(3, true),
            ),
            ("count_sawtooth_20s", Aggregate::Count, Facts, sawtooth),
            ("count_session_2s", Aggregate::Count, Facts, session),
            ("paid_9s", sum.clone(), AmountByOther, exact(9)),
            ("paid_lifetime", sum, AmountByOther, lifetime()),
            ("top_tumbling_9s", top.clone(), Amount, hopping(9, false)),
            ("top_lifetime", top, Amount, lifetime()),
            ("median_1m", median, Amount, exact(60)),
            ("faded_lifetime", faded, Amount, lifetime()),
        ],
    }
}

/// The views of a set of definitions.
pub fn views(variant: u8) -> Vec<ViewModel> {
    match variant {
        0 => vec![spending(), large(), ledger(), payments()],
        1 => vec![spending_less(), ledger()],
        _ => vec![spending(), ledger_in(), activity(), payments()],
    }
}
