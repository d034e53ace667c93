//! What changes in a view, and why its state has to be made again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::Expression;
use crate::catalog::{CompiledFeature, CompiledView, FeatureKind};

/// How the features of a view change.
#[derive(Debug, Default)]
pub(super) struct FeatureChanges {
    /// In sentences.
    pub told: Vec<String>,
    /// Those that are gone or mean something else.
    pub touched: Vec<String>,
}

pub(super) fn feature_changes(old: &CompiledView, new: &CompiledView) -> FeatureChanges {
    let named = |view: &CompiledView, name: &str| -> Option<CompiledFeature> {
        let mut features = view.features.iter();
        features.find(|f| f.name.as_ref() == name).cloned()
    };
    let mut changes = FeatureChanges::default();
    for feature in &new.features {
        let name = feature.name.to_string();
        match named(old, &name) {
            None => changes.told.push(format!("adds the feature {name}")),
            Some(before) if before.data_type != feature.data_type => {
                let (now, was) = (&feature.data_type, &before.data_type);
                changes
                    .told
                    .push(format!("{name} becomes {now}, it was {was}"));
                changes.touched.push(name);
            }
            Some(before) if meaning(old, &before) != meaning(new, feature) => {
                changes.told.push(format!("{name} is computed differently"));
                changes.touched.push(name);
            }
            Some(_) => {}
        }
    }
    for feature in &old.features {
        if named(new, &feature.name).is_none() {
            changes
                .told
                .push(format!("drops the feature {}", feature.name));
            changes.touched.push(feature.name.to_string());
        }
    }
    changes
}

/// Everything that a feature's value depends on within its view, in one spelling.
fn meaning(view: &CompiledView, feature: &CompiledFeature) -> String {
    let how = match &feature.kind {
        FeatureKind::Aggregate {
            function,
            slot,
            window,
            largest,
            among,
        } => {
            let slot = slot_text(view, *slot);
            format!("{function:?} {window:?} {largest:?} {among:?} {slot}")
        }
        FeatureKind::Latest { slot } => format!("latest {}", slot_text(view, *slot)),
        FeatureKind::Expression { expression, .. } => expression.canonical().to_owned(),
    };
    format!(
        "{how} {:?} {:?} {}",
        feature.default, feature.ttl, feature.stale_keep
    )
}

fn slot_text(view: &CompiledView, slot: usize) -> String {
    let slot = &view.layout.slots[slot];
    let inputs = slot.inputs().map(|input| {
        let sources = view.sources.iter();
        let texts = sources.map(|s| format!("{} {:?}", s.contract, text(&s.inputs[input])));
        texts.collect::<Vec<_>>().join(", ")
    });
    let how = (slot.kind, slot.spread, slot.categories_max);
    format!("{how:?} {}", inputs.collect::<Vec<_>>().join("; "))
}

fn text(expression: &Option<Expression>) -> Option<&str> {
    expression.as_ref().map(Expression::canonical)
}

/// The views that a view reads and that change, each in a sentence.
pub(super) fn upstream_changes(old: &CompiledView, new: &CompiledView) -> Vec<String> {
    let upstream = |view: &CompiledView| -> BTreeMap<Arc<str>, String> {
        let upstream = view.sources.iter().filter_map(|s| s.upstream.as_ref());
        upstream
            .map(|u| (u.view.name.clone(), u.view.definition_hash.clone()))
            .collect()
    };
    let before = upstream(old);
    let mut changed = upstream(new);
    changed.retain(|name, hash| before.get(name).is_some_and(|old| old != hash));
    let told = |name: &Arc<str>| format!("reads the view {name}, which changes");
    changed.keys().map(told).collect()
}

/// Why the state of a view can't be kept, in sentences.
pub(super) fn why_recomputed(old: &CompiledView, new: &CompiledView) -> Vec<String> {
    let mut why = Vec::new();
    let types = |view: &CompiledView| -> Vec<String> {
        let keys = view.entity.keys.iter();
        keys.map(|k| k.data_type.to_string()).collect()
    };
    if types(old) != types(new) {
        let (was, now) = (types(old).join(", "), types(new).join(", "));
        why.push(format!("its keys are {now}, they were {was}"));
    }
    sources(old, new, &mut why);
    let (before, after) = (kept(old), kept(new));
    for input in after.difference(&before) {
        why.push(format!(
            "it needs `{input}` of each fact, which it hasn't kept"
        ));
    }
    for input in before.difference(&after) {
        why.push(format!("it no longer keeps `{input}` of each fact"));
    }
    if new.layout.lifetime && !old.layout.lifetime {
        why.push("a feature over all time needs facts that it let go of".to_owned());
    }
    if new.layout.rows_max > old.layout.rows_max {
        let (now, was) = (new.layout.rows_max, old.layout.rows_max);
        why.push(format!("it needs the newest {now} facts, it kept {was}"));
    }
    if why.is_empty() {
        why.push("it aggregates what it keeps of facts in other ways".to_owned());
    }
    why
}

fn sources(old: &CompiledView, new: &CompiledView, why: &mut Vec<String>) {
    for source in &new.sources {
        let contract = &source.contract;
        let Some(before) = old.sources.iter().find(|s| s.contract == *contract) else {
            why.push(format!("it reads the contract {contract} too"));
            continue;
        };
        if text(&before.filter) != text(&source.filter) {
            let told = |filter| match text(filter) {
                Some(sql) => format!("`{sql}`"),
                None => "every fact".to_owned(),
            };
            let (now, was) = (told(&source.filter), told(&before.filter));
            why.push(format!("of {contract} it takes {now}, it took {was}"));
        }
        if before.key_columns != source.key_columns {
            let (now, was) = (source.key_columns.join(", "), before.key_columns.join(", "));
            why.push(format!(
                "facts of {contract} are about the {now}, they were about the {was}"
            ));
        }
    }
    for source in &old.sources {
        if !new.sources.iter().any(|s| s.contract == source.contract) {
            why.push(format!(
                "it no longer reads the contract {}",
                source.contract
            ));
        }
    }
}

/// What a view keeps of facts.
fn kept(view: &CompiledView) -> BTreeSet<String> {
    let inputs = view.sources.iter().flat_map(|s| &s.inputs);
    inputs.filter_map(text).map(str::to_owned).collect()
}
