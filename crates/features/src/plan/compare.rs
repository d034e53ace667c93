//! What differs between the definitions that are applied and those that are wanted.

use std::sync::Arc;

use headwater_schema::Contract;
use headwater_schema::evolve::{check_version, compare};

use super::explain::{feature_changes, upstream_changes, why_recomputed};
use super::{Action, Plan};
use crate::built_in::is_built_in;
use crate::catalog::Catalog;
use crate::set::FeatureSet;

pub(super) fn contracts(plan: &mut Plan, applied: &Catalog, wanted: &Catalog) {
    let own = |contract: &&Arc<Contract>| !is_built_in(contract);
    for new in wanted.contracts().filter(own) {
        let owner = new.owner.as_ref();
        let Some(old) = applied.contract(&new.name) else {
            let version = vec![format!("version {}", new.version)];
            plan.add(Action::Add, "contract", &new.name, owner, version);
            continue;
        };
        let changes = compare(old, new);
        let raised = old.version != new.version && !raised_for_others(new, applied, wanted);
        if changes.is_empty() && !raised {
            continue;
        }
        let mut details = vec![format!("version {} → {}", old.version, new.version)];
        for change in &changes {
            let sort = if change.compatible {
                "compatible"
            } else {
                "breaking"
            };
            let field = match change.field.as_str() {
                "" => "the contract",
                field => field,
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
        let item = plan.add(Action::Change, "contract", &new.name, owner, details);
        // A path inside a column is a change of the column.
        let column = |field: &str| field.split(['.', '[']).next().map(str::to_owned);
        item.touched = changes.iter().filter_map(|c| column(&c.field)).collect();
    }
    for old in applied.contracts().filter(own) {
        if wanted.contract(&old.name).is_none() {
            let kept = "its facts stay in the log and can be read again when it comes back";
            let owner = old.owner.as_ref();
            plan.add(
                Action::Drop,
                "contract",
                &old.name,
                owner,
                vec![kept.into()],
            );
        }
    }
}

/// Whether the version of a contract that stays as it is was raised for another contract of its document.
fn raised_for_others(contract: &Contract, applied: &Catalog, wanted: &Catalog) -> bool {
    let same_document = |other: &&Arc<Contract>| {
        other.document_id == contract.document_id && other.name != contract.name
    };
    let changed = |other: &Arc<Contract>| match applied.contract(&other.name) {
        Some(old) => !compare(old, other).is_empty(),
        None => true,
    };
    let dropped = |other: &Arc<Contract>| wanted.contract(&other.name).is_none();
    wanted.contracts().filter(same_document).any(changed)
        || applied.contracts().filter(same_document).any(dropped)
}

pub(super) fn entities(plan: &mut Plan, applied: &Catalog, wanted: &Catalog) {
    for new in wanted.entities() {
        let owner = new.owner.as_ref();
        match applied.entity(&new.name) {
            None => {
                plan.add(Action::Add, "entity", &new.name, owner, Vec::new());
            }
            Some(old) if old.keys != new.keys => {
                let keys = "its keys change, so every view of it is computed again";
                plan.add(
                    Action::Change,
                    "entity",
                    &new.name,
                    owner,
                    vec![keys.into()],
                );
            }
            Some(_) => {}
        }
    }
    for old in applied.entities() {
        if wanted.entity(&old.name).is_none() {
            plan.add(
                Action::Drop,
                "entity",
                &old.name,
                old.owner.as_ref(),
                Vec::new(),
            );
        }
    }
}

pub(super) fn views(plan: &mut Plan, applied: &Catalog, wanted: &Catalog) {
    for new in wanted.views() {
        let owner = new.owner.as_ref();
        let Some(old) = applied.view(&new.name) else {
            let details = vec![format!("{} features", new.features.len())];
            plan.add(Action::Add, "view", &new.name, owner, details);
            continue;
        };
        let recompute = old.state_id != new.state_id;
        if !recompute && old.definition_hash == new.definition_hash {
            continue;
        }
        let changes = feature_changes(old, new);
        let mut details = changes.told;
        details.extend(upstream_changes(old, new));
        if recompute {
            details.extend(why_recomputed(old, new));
            plan.add(Action::Recompute, "view", &new.name, owner, details);
        } else {
            let item = plan.add(Action::Change, "view", &new.name, owner, details);
            item.touched = changes.touched;
        }
    }
    for old in applied.views() {
        if wanted.view(&old.name).is_none() {
            let kept = "its state is removed; the facts stay".to_owned();
            plan.add(
                Action::Drop,
                "view",
                &old.name,
                old.owner.as_ref(),
                vec![kept],
            );
        }
    }
}

pub(super) fn sets(plan: &mut Plan, applied: &Catalog, wanted: &Catalog) {
    for new in wanted.sets() {
        let owner = new.owner.as_ref();
        let Some(old) = applied.set(&new.name) else {
            let details = vec![format!("{} features", new.features.len())];
            plan.add(Action::Add, "feature set", &new.name, owner, details);
            continue;
        };
        let (before, after) = (names(old), names(new));
        if old.definition_hash == new.definition_hash && before == after {
            continue;
        }
        let mut details = Vec::new();
        details.extend(missing(&after, &before, "adds"));
        details.extend(missing(&before, &after, "drops"));
        if details.is_empty() && before != after {
            details.push("its features come in another order".to_owned());
        }
        plan.add(Action::Change, "feature set", &new.name, owner, details);
    }
    for old in applied.sets() {
        if wanted.set(&old.name).is_none() {
            plan.add(
                Action::Drop,
                "feature set",
                &old.name,
                old.owner.as_ref(),
                Vec::new(),
            );
        }
    }
}

pub(super) fn labels(plan: &mut Plan, applied: &Catalog, wanted: &Catalog) {
    for new in wanted.labels() {
        let owner = new.owner.as_ref();
        let Ok(old) = applied.label(&new.name) else {
            let details = vec![new.told()];
            plan.add(Action::Add, "label", &new.name, owner, details);
            continue;
        };
        if old.definition_hash != new.definition_hash {
            let kept =
                "training sets that were made with it can't be made again from their manifests";
            let details = vec![format!("{} → {}", old.told(), new.told()), kept.to_owned()];
            plan.add(Action::Change, "label", &new.name, owner, details);
        }
    }
    for old in applied.labels() {
        if wanted.label(&old.name).is_err() {
            plan.add(
                Action::Drop,
                "label",
                &old.name,
                old.owner.as_ref(),
                Vec::new(),
            );
        }
    }
}

pub(super) fn models(plan: &mut Plan, applied: &Catalog, wanted: &Catalog) {
    for new in wanted.models() {
        let owner = new.owner.as_ref();
        let reads = format!("reads the feature set `{}`", new.set.name);
        match applied.model(&new.name) {
            Err(_) => {
                plan.add(Action::Add, "model", &new.name, owner, vec![reads]);
            }
            Ok(old) if old.definition_hash != new.definition_hash => {
                let mut details = Vec::new();
                if old.set.name != new.set.name {
                    details.push(reads);
                }
                plan.add(Action::Change, "model", &new.name, owner, details);
            }
            Ok(_) => {}
        }
    }
    for old in applied.models() {
        if wanted.model(&old.name).is_err() {
            let kept = "its versions stay and serve again when it comes back";
            let owner = old.owner.as_ref();
            plan.add(Action::Drop, "model", &old.name, owner, vec![kept.into()]);
        }
    }
}

fn names(set: &FeatureSet) -> Vec<String> {
    let name = |f: &crate::FeatureRef| f.view.features[f.index].full_name.to_string();
    set.features.iter().map(name).collect()
}

/// Those of `names` that `others` lack, as one sentence.
fn missing(names: &[String], others: &[String], verb: &str) -> Option<String> {
    const NAMED_MAX: usize = 5;
    let missing: Vec<&str> = names
        .iter()
        .filter(|n| !others.contains(n))
        .map(String::as_str)
        .collect();
    match missing.len() {
        0 => None,
        n if n > NAMED_MAX => Some(format!(
            "{verb} {n} features: {}, …",
            missing[..NAMED_MAX].join(", ")
        )),
        _ => Some(format!("{verb} {}", missing.join(", "))),
    }
}
