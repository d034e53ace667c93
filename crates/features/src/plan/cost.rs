//! What a plan costs: the facts that are read again, about how long that takes, and how much state.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Action, Plan};
use crate::catalog::{Catalog, CompiledView};

/// Facts of the log read again in a second, where nothing has been measured: what a slow core does.
const FACTS_PER_SECOND: f64 = 100_000.0;

/// What is in the log.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LogFacts {
    /// Facts by contract.
    pub contracts: BTreeMap<String, u64>,
    /// How many facts this machine was seen to read again in a second.
    pub facts_per_second: Option<f64>,
}

/// The facts that a view is computed from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Replay {
    pub facts: u64,
    /// Facts by contract.
    pub contracts: BTreeMap<String, u64>,
    /// What its state takes if every fact is held one by one.
    pub state_bytes_max: u64,
}

/// What filling all views takes together.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Facts read from the log, once for all views.
    pub facts_read: u64,
    /// About how long that takes.
    pub seconds: f64,
    /// Whether the seconds come from what this data folder's engine was seen to do.
    pub measured: bool,
    pub state_bytes_max: u64,
}

pub(super) fn add_costs(plan: &mut Plan, wanted: &Catalog, log: &LogFacts) {
    for item in plan.items.iter_mut().filter(|i| i.kind == "view") {
        if matches!(item.action, Action::Add | Action::Recompute)
            && let Some(view) = wanted.view(&item.name)
        {
            item.replay = Some(replay(view, log));
        }
    }
    let replays = || plan.items.iter().filter_map(|i| i.replay.as_ref());
    if replays().all(|r| r.facts == 0) {
        return;
    }
    let facts_read: u64 = log.contracts.values().sum();
    let rate = log.facts_per_second.unwrap_or(FACTS_PER_SECOND);
    plan.cost = Cost {
        facts_read,
        seconds: facts_read as f64 / rate.max(1.0),
        measured: log.facts_per_second.is_some(),
        state_bytes_max: replays().map(|r| r.state_bytes_max).sum(),
    };
}

fn replay(view: &CompiledView, log: &LogFacts) -> Replay {
    let contracts: BTreeMap<String, u64> = view
        .sources
        .iter()
        .map(|s| {
            let facts = log.contracts.get(s.contract.as_ref()).copied();
            (s.contract.to_string(), facts.unwrap_or(0))
        })
        .collect();
    let facts = contracts.values().sum();
    Replay {
        facts,
        contracts,
        state_bytes_max: facts * view.layout.row_bytes() as u64,
    }
}
