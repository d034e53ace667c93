//! Plans: what applying a project would change, why, who notices, and what it costs.

mod affected;
mod compare;
mod cost;
mod explain;
mod show;

use headwater_schema::Problem;
use serde::{Deserialize, Serialize};

use crate::catalog::Catalog;

pub use affected::Affected;
pub use cost::{Cost, LogFacts, Replay};

/// What happens to a definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Add,
    /// Changed, and everything stored stays as it is.
    Change,
    /// Changed so that it has to be computed again from the facts.
    Recompute,
    Drop,
}

/// One definition that the plan touches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanItem {
    pub action: Action,
    /// `contract`, `entity`, `view`, `feature set`, `label` or `model`.
    pub kind: String,
    pub name: String,
    pub owner: Option<String>,
    /// What changes and why, in sentences.
    pub details: Vec<String>,
    /// The facts that are read again for it; none where nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay: Option<Replay>,
    /// What of it changes for those downstream: columns of a contract, features of a view.
    #[serde(skip)]
    touched: Vec<String>,
}

/// What applying would do.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Plan {
    pub items: Vec<PlanItem>,
    /// Views, feature sets, labels and models downstream of what changes, with their owners.
    pub affected: Vec<Affected>,
    pub cost: Cost,
    /// Why the plan can't be applied.
    #[serde(skip)]
    pub problems: Vec<Problem>,
}

impl Plan {
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    fn add(
        &mut self,
        action: Action,
        kind: &'static str,
        name: &str,
        owner: Option<&String>,
        details: Vec<String>,
    ) -> &mut PlanItem {
        self.items.push(PlanItem {
            action,
            kind: kind.to_owned(),
            name: name.to_owned(),
            owner: owner.cloned(),
            details,
            replay: None,
            touched: Vec::new(),
        });
        let last = self.items.len() - 1;
        &mut self.items[last]
    }
}

/// Compares what is applied with what is wanted, over a log with such facts.
pub fn plan(applied: &Catalog, wanted: &Catalog, log: &LogFacts) -> Plan {
    let mut plan = Plan::default();
    compare::contracts(&mut plan, applied, wanted);
    compare::entities(&mut plan, applied, wanted);
    compare::views(&mut plan, applied, wanted);
    compare::sets(&mut plan, applied, wanted);
    compare::labels(&mut plan, applied, wanted);
    compare::models(&mut plan, applied, wanted);
    plan.affected = affected::affected(&plan, applied, wanted);
    cost::add_costs(&mut plan, wanted, log);
    plan
}
