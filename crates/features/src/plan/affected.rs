//! Who notices a plan: the views, feature sets, labels and models downstream of what changes, and their owners.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Action, Plan, PlanItem};
use crate::catalog::Catalog;
use crate::lineage::{Direction, Lineage, Node, NodeKind};

/// A definition that reads something that changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Affected {
    /// `view`, `feature set`, `label` or `model`.
    pub kind: String,
    pub name: String,
    pub owner: Option<String>,
    /// What changes upstream of it.
    pub because: Vec<String>,
}

pub(super) fn affected(plan: &Plan, applied: &Catalog, wanted: &Catalog) -> Vec<Affected> {
    let (before, after) = (Lineage::of(applied), Lineage::of(wanted));
    let mut because: BTreeMap<Node, BTreeSet<String>> = BTreeMap::new();
    for item in plan.items.iter().filter(|i| i.action != Action::Add) {
        let itself = Node::new(node_kind(item), item.name.as_str());
        for start in starts(item, &itself) {
            for lineage in [&before, &after] {
                let reached = lineage.walk(&start, Direction::Downstream).nodes;
                let noticing = reached.into_iter().filter(|node| *node != itself);
                let noticing = noticing.filter(|n| notices(n.kind));
                for node in noticing {
                    let reason = format!("{} {}", item.kind, item.name);
                    because.entry(node).or_default().insert(reason);
                }
            }
        }
    }
    let told = |(node, because): (Node, BTreeSet<String>)| {
        let (kind, owner) = owner(&node, applied, wanted)?;
        Some(Affected {
            kind: kind.to_owned(),
            name: node.name,
            owner,
            because: because.into_iter().collect(),
        })
    };
    because.into_iter().filter_map(told).collect()
}

fn notices(kind: NodeKind) -> bool {
    matches!(
        kind,
        NodeKind::View | NodeKind::FeatureSet | NodeKind::Label | NodeKind::Model
    )
}

fn node_kind(item: &PlanItem) -> NodeKind {
    match item.kind.as_str() {
        "contract" => NodeKind::Contract,
        "entity" => NodeKind::Entity,
        "view" => NodeKind::View,
        "label" => NodeKind::Label,
        "model" => NodeKind::Model,
        _ => NodeKind::FeatureSet,
    }
}

/// Where the change begins: the columns or features that change; all of it where it goes, or is
/// computed again.
fn starts(item: &PlanItem, itself: &Node) -> Vec<Node> {
    let part = match itself.kind {
        NodeKind::Contract => NodeKind::Column,
        _ => NodeKind::Feature,
    };
    match item.action {
        Action::Change
            if matches!(
                itself.kind,
                NodeKind::FeatureSet | NodeKind::Label | NodeKind::Model
            ) =>
        {
            Vec::new()
        }
        Action::Change if itself.kind != NodeKind::Entity => {
            let touched = item.touched.iter();
            touched
                .map(|name| Node::new(part, format!("{}.{name}", item.name)))
                .collect()
        }
        _ => vec![itself.clone()],
    }
}

/// What a node is called and who answers for it; none where it doesn't outlive the plan.
fn owner(
    node: &Node,
    applied: &Catalog,
    wanted: &Catalog,
) -> Option<(&'static str, Option<String>)> {
    let in_catalog = |catalog: &Catalog| match node.kind {
        NodeKind::View => catalog.view(&node.name).map(|v| ("view", v.owner.clone())),
        NodeKind::Label => {
            let label = catalog.label(&node.name).ok();
            label.map(|l| ("label", l.owner.clone()))
        }
        NodeKind::Model => {
            let model = catalog.model(&node.name).ok();
            model.map(|m| ("model", m.owner.clone()))
        }
        _ => catalog
            .set(&node.name)
            .map(|s| ("feature set", s.owner.clone())),
    };
    in_catalog(wanted).or_else(|| in_catalog(applied))
}
