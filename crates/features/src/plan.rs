//! Plans: what applying a project would change, who notices, and what has to be computed again.

use std::collections::BTreeSet;
use std::fmt;

use headwater_schema::Problem;
use headwater_schema::evolve::{check_version, compare};
use serde::Serialize;

use crate::catalog::{Catalog, CompiledView};

/// What happens to a definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlanItem {
    pub action: Action,
    /// `contract`, `entity`, `view` or `feature set`.
    pub kind: &'static str,
    pub name: String,
    pub owner: Option<String>,
    /// What changes and why, in sentences.
    pub details: Vec<String>,
}

/// What applying would do.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Plan {
    pub items: Vec<PlanItem>,
    /// Feature sets downstream of what changes, with their owners.
    pub affected: Vec<String>,
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
    ) {
        self.items.push(PlanItem {
            action,
            kind,
            name: name.to_owned(),
            owner: owner.cloned(),
            details,
        });
    }
}

/// Compares what is applied with what is wanted.
pub fn plan(applied: &Catalog, wanted: &Catalog) -> Plan {
    let mut plan = Plan::default();
    plan_contracts(&mut plan, applied, wanted);
    plan_entities(&mut plan, applied, wanted);
    plan_views(&mut plan, applied, wanted);
    plan_sets(&mut plan, applied, wanted);
    plan.affected = affected(&plan, applied, wanted);
    plan
}

fn plan_contracts(plan: &mut Plan, applied: &Catalog, wanted: &Catalog) {
    for new in wanted.contracts() {
        let Some(old) = applied.contract(&new.name) else {
            plan.add(
                Action::Add,
                "contract",
                &new.name,
                new.owner.as_ref(),
                vec![format!("version {}", new.version)],
            );
            continue;
        };
        let changes = compare(old, new);
        if changes.is_empty() && old.version == new.version {
            continue;
        }
        let mut details = vec![format!("version {} → {}", old.version, new.version)];
        for change in &changes {
            let sort = if change.compatible {
                "compatible"
            } else {
                "breaking"
            };
            let field = if change.field.is_empty() {
                "the contract"
            } else {
                &change.field
            };
            details.push(format!(
                "{field}: {} ({sort}, {}: {})",
                change.what,
                change.bump.as_str(),
                change.why
            ));
        }
        if let Err(problem) = check_version(old, new) {
            plan.problems.push(problem);
        }
        plan.add(
            Action::Change,
            "contract",
            &new.name,
            new.owner.as_ref(),
            details,
        );
    }
    for old in applied
        .contracts()
        .filter(|c| wanted.contract(&c.name).is_none())
    {
        let kept = "its facts stay in the log and can be read again when it comes back".to_owned();
        plan.add(
            Action::Drop,
            "contract",
            &old.name,
            old.owner.as_ref(),
            vec![kept],
        );
    }
}

fn plan_entities(plan: &mut Plan, applied: &Catalog, wanted: &Catalog) {
    for new in wanted.entities() {
        match applied.entity(&new.name) {
            None => plan.add(
                Action::Add,
                "entity",
                &new.name,
                new.owner.as_ref(),
                Vec::new(),
            ),
            Some(old) if old.keys != new.keys => {
                let keys =
                    vec!["its keys change, so every view of it is computed again".to_owned()];
                plan.add(
                    Action::Change,
                    "entity",
                    &new.name,
                    new.owner.as_ref(),
                    keys,
                );
            }
            Some(_) => {}
        }
    }
    for old in applied
        .entities()
        .filter(|e| wanted.entity(&e.name).is_none())
    {
        plan.add(
            Action::Drop,
            "entity",
            &old.name,
            old.owner.as_ref(),
            Vec::new(),
        );
    }
}

fn plan_views(plan: &mut Plan, applied: &Catalog, wanted: &Catalog) {
    for new in wanted.views() {
        match applied.view(&new.name) {
            None => {
                let details = vec![format!(
                    "{} features, computed from all facts at the next start",
                    new.features.len()
                )];
                plan.add(Action::Add, "view", &new.name, new.owner.as_ref(), details);
            }
            Some(old) if old.state_id != new.state_id => {
                let mut details = feature_changes(old, new);
                details.push("what it keeps of facts changes, so it is computed again from all facts at the next start".to_owned());
                plan.add(
                    Action::Recompute,
                    "view",
                    &new.name,
                    new.owner.as_ref(),
                    details,
                );
            }
            Some(old) if old.definition_hash != new.definition_hash => {
                plan.add(
                    Action::Change,
                    "view",
                    &new.name,
                    new.owner.as_ref(),
                    feature_changes(old, new),
                );
            }
            Some(_) => {}
        }
    }
    for old in applied.views().filter(|v| wanted.view(&v.name).is_none()) {
        plan.add(
            Action::Drop,
            "view",
            &old.name,
            old.owner.as_ref(),
            vec!["its state is removed; the facts stay".to_owned()],
        );
    }
}

fn feature_changes(old: &CompiledView, new: &CompiledView) -> Vec<String> {
    let names = |view: &CompiledView| -> BTreeSet<String> {
        view.features.iter().map(|f| f.name.to_string()).collect()
    };
    let (before, after) = (names(old), names(new));
    let mut changes = Vec::new();
    changes.extend(
        after
            .difference(&before)
            .map(|name| format!("adds the feature {name}")),
    );
    changes.extend(
        before
            .difference(&after)
            .map(|name| format!("drops the feature {name}")),
    );
    for feature in &new.features {
        let same = old.features.iter().find(|f| f.name == feature.name);
        if let Some(same) = same.filter(|same| same.data_type != feature.data_type) {
            changes.push(format!(
                "{} becomes {}, it was {}",
                feature.name, feature.data_type, same.data_type
            ));
        }
    }
    changes
}

fn plan_sets(plan: &mut Plan, applied: &Catalog, wanted: &Catalog) {
    for new in wanted.sets() {
        match applied.set(&new.name) {
            None => {
                let details = vec![format!("{} features", new.features.len())];
                plan.add(
                    Action::Add,
                    "feature set",
                    &new.name,
                    new.owner.as_ref(),
                    details,
                );
            }
            Some(old) if old.definition_hash != new.definition_hash => {
                let details = vec![format!(
                    "{} features, {} before",
                    new.features.len(),
                    old.features.len()
                )];
                plan.add(
                    Action::Change,
                    "feature set",
                    &new.name,
                    new.owner.as_ref(),
                    details,
                );
            }
            Some(_) => {}
        }
    }
    for old in applied.sets().filter(|s| wanted.set(&s.name).is_none()) {
        plan.add(
            Action::Drop,
            "feature set",
            &old.name,
            old.owner.as_ref(),
            Vec::new(),
        );
    }
}

/// The sets over views that change or go.
fn affected(plan: &Plan, applied: &Catalog, wanted: &Catalog) -> Vec<String> {
    let touched: BTreeSet<&str> = plan
        .items
        .iter()
        .filter(|item| item.kind == "view" && item.action != Action::Add)
        .map(|item| item.name.as_str())
        .collect();
    let sets = applied.sets().chain(wanted.sets());
    let over = sets.filter(|s| {
        s.features
            .iter()
            .any(|f| touched.contains(f.view.name.as_ref()))
    });
    let named: BTreeSet<String> = over
        .map(|set| match &set.owner {
            Some(owner) => format!("feature set {} (owner: {owner})", set.name),
            None => format!("feature set {}", set.name),
        })
        .collect();
    named.into_iter().collect()
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return writeln!(f, "Nothing to do: what is applied is what is defined.");
        }
        for item in &self.items {
            let sign = match item.action {
                Action::Add => "+",
                Action::Change => "~",
                Action::Recompute => "↻",
                Action::Drop => "-",
            };
            write!(f, "  {sign} {} {}", item.kind, item.name)?;
            if let Some(owner) = &item.owner {
                write!(f, "  (owner: {owner})")?;
            }
            writeln!(f)?;
            for detail in &item.details {
                writeln!(f, "      {detail}")?;
            }
        }
        for affected in &self.affected {
            writeln!(f, "  ! affects {affected}")?;
        }
        let count = |action| self.items.iter().filter(|i| i.action == action).count();
        writeln!(
            f,
            "\nPlan: {} to add, {} to change, {} to compute again, {} to drop.",
            count(Action::Add),
            count(Action::Change),
            count(Action::Recompute),
            count(Action::Drop)
        )
    }
}
