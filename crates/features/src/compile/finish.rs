//! From the features of a view to what runs: numbered slots, derived features, retention, hashes.

use std::collections::BTreeMap;
use std::sync::Arc;

use headwater_aggregate::{Layout, Slot, SlotKind, WindowKind};
use headwater_schema::yaml::YamlDocument;
use headwater_schema::{Micros, Problem};

use super::checks::read_ttl;
use super::source::Source;
use super::{Compiler, Pending, PendingKind, Picked};
use crate::Expression;
use crate::catalog::{CompiledFeature, CompiledSource, CompiledView, Entity, FeatureKind, hash};
use crate::default::default_value;
use crate::definition::{Stale, WindowSpec};
use crate::derive::{compile_derived, names_any};
use crate::documents::definition_hash;
use crate::window::duration;

/// Kept besides the widest window and the allowed lateness.
const RETENTION_MARGIN: Micros = 7 * 24 * 3600 * 1_000_000;
/// The newest facts of an entity that stay at hand for its session, whatever their age.
const SESSION_ROWS: usize = 256;

impl Compiler<'_> {
    pub fn finish(mut self, entity: Arc<Entity>) -> Result<CompiledView, Vec<Problem>> {
        let spec = &self.definition.spec;
        let (slots, numbers) = number_slots(&self.pending);
        let features = self.features(&numbers);
        let (features, evaluation_order) = match self.derive(features) {
            Ok(derived) => derived,
            Err(problem) => {
                self.problems.push(problem);
                (Vec::new(), Vec::new())
            }
        };
        let layout = Layout {
            inputs: self.inputs.iter().map(|i| i.data_type.clone()).collect(),
            slots,
            lifetime: self.pending.iter().any(Pending::is_lifetime),
            rows_max: self
                .pending
                .iter()
                .filter_map(Pending::rows)
                .max()
                .unwrap_or(0),
        };
        let retention = self.retention().unwrap_or_else(|problem| {
            self.problems.push(problem);
            0
        });
        if !self.problems.is_empty() {
            return Err(self.problems);
        }
        let sources = self.compiled_sources();
        let name: Arc<str> = self.definition.name.as_str().into();
        Ok(CompiledView {
            state_id: format!("{name}@{}", hash(&state_text(&entity, &sources, &layout))),
            name,
            definition_hash: meaning(self.document, &sources),
            depth: depth(&sources),
            entity,
            sources,
            layout,
            features,
            evaluation_order,
            retention,
            storage: spec.storage,
            owner: self.definition.owner.clone(),
            description: self.definition.description.clone(),
        })
    }

    fn features(&mut self, numbers: &[Option<usize>]) -> Vec<CompiledFeature> {
        let mut features = Vec::with_capacity(self.pending.len());
        for (pending, slot) in self.pending.iter().zip(numbers) {
            let spec = &self.definition.spec.features[pending.spec_index];
            let kind = match (&pending.kind, slot) {
                (PendingKind::Aggregate(reads, _, picked), Some(slot)) => FeatureKind::Aggregate {
                    function: reads.function.clone(),
                    slot: *slot,
                    window: picked.window,
                    among: picked.among,
                    largest: reads.largest,
                },
                (_, slot) => FeatureKind::Latest {
                    slot: slot.unwrap_or(0),
                },
            };
            let ttl = spec.ttl.as_deref().map(read_ttl).transpose();
            let ttl = ttl.unwrap_or_else(|problem| {
                let place = format!("/spec/features/{}/ttl", pending.spec_index);
                self.problems.push(problem.at(self.document.locate(&place)));
                None
            });
            features.push(CompiledFeature {
                full_name: format!("{}.{}", self.definition.name, pending.name).into(),
                name: pending.name.as_str().into(),
                data_type: pending.data_type.clone(),
                kind,
                default: None,
                ttl,
                stale_keep: spec.stale == Some(Stale::Keep),
                error_bound: match &pending.kind {
                    PendingKind::Aggregate(reads, _, _) => reads.function.error_bound(),
                    _ => None,
                },
                description: spec.description.clone(),
            });
        }
        features
    }

    /// Compiles the derived features and reads the defaults, now that every type is known.
    fn derive(
        &self,
        mut features: Vec<CompiledFeature>,
    ) -> Result<(Vec<CompiledFeature>, Vec<usize>), Problem> {
        let place = |index: usize, key: &str| {
            let spec = self.pending[index].spec_index;
            self.document
                .locate(&format!("/spec/features/{spec}/{key}"))
        };
        let order = compile_derived(&mut features, &self.derived())
            .map_err(|(index, problem)| problem.at(place(index, "expression")))?;
        for (index, feature) in features.iter_mut().enumerate() {
            let spec = &self.definition.spec.features[self.pending[index].spec_index];
            if let Some(default) = &spec.default {
                let value = default_value(default, &feature.data_type)
                    .map_err(|p| p.at(place(index, "default")))?;
                feature.default = Some(value);
            }
        }
        Ok((features, order))
    }

    /// The SQL of derived features, by index; of those alone that read nothing that is wrong.
    fn derived(&self) -> BTreeMap<usize, &str> {
        let derived = self.pending.iter().enumerate();
        let mut derived: BTreeMap<usize, &str> = derived
            .filter_map(|(index, p)| match &p.kind {
                PendingKind::Derived(sql) => Some((index, sql.as_str())),
                _ => None,
            })
            .collect();
        let mut missing: Vec<&str> = Vec::new();
        for index in &self.failed {
            let spec = &self.definition.spec.features[*index];
            missing.push(&spec.name);
            missing.extend(spec.windows.iter().flatten().filter_map(named_as));
        }
        while !missing.is_empty() {
            let reads = |(_, sql): &(&usize, &&str)| names_any(sql, &missing);
            let lost: Vec<usize> = derived.iter().filter(reads).map(|(i, _)| *i).collect();
            derived.retain(|index, _| !lost.contains(index));
            missing = lost
                .iter()
                .map(|i| self.pending[*i].name.as_str())
                .collect();
        }
        derived
    }

    fn retention(&self) -> Result<Micros, Problem> {
        let spec = &self.definition.spec;
        let read = |text: &Option<String>, key: &str| {
            let at = |p: Problem| p.at(self.document.locate(&format!("/spec/{key}")));
            text.as_deref().map(|t| duration(t).map_err(at)).transpose()
        };
        let lateness = read(&spec.allowed_lateness, "allowed_lateness")?.unwrap_or(0);
        if let Some(retention) = read(&spec.retention, "retention")? {
            return Ok(retention);
        }
        let reach = self.pending.iter().filter_map(|p| match &p.kind {
            PendingKind::Aggregate(_, _, picked) => picked.window.reach(),
            _ => None,
        });
        Ok(reach
            .max()
            .unwrap_or(0)
            .saturating_add(lateness)
            .saturating_add(RETENTION_MARGIN))
    }

    fn compiled_sources(&self) -> Vec<CompiledSource> {
        let source = |(index, source): (usize, &Source)| CompiledSource {
            contract: source.contract.clone(),
            columns: source.columns.clone(),
            stored: source.stored.clone(),
            keys: source.keys.clone(),
            upstream: source.upstream.clone(),
            filter: source.filter.clone(),
            key_columns: source
                .keys
                .iter()
                .filter_map(|place| source.stored[*place].clone())
                .collect(),
            inputs: self
                .inputs
                .iter()
                .map(|i| i.expressions[index].clone())
                .collect(),
        };
        self.sources.iter().enumerate().map(source).collect()
    }
}

impl Pending {
    fn slot(&self) -> Option<&Slot> {
        match &self.kind {
            PendingKind::Aggregate(_, slot, _) | PendingKind::Latest(slot) => Some(slot),
            PendingKind::Derived(_) => None,
        }
    }

    fn is_lifetime(&self) -> bool {
        match &self.kind {
            PendingKind::Aggregate(_, _, Picked { window, .. }) => {
                window.kind == WindowKind::Lifetime && window.limit.is_none()
            }
            PendingKind::Latest(_) => true,
            PendingKind::Derived(_) => false,
        }
    }

    fn rows(&self) -> Option<usize> {
        match &self.kind {
            PendingKind::Aggregate(_, _, Picked { window, .. }) => match window.kind {
                WindowKind::Rows { rows } => Some(rows),
                WindowKind::Session { .. } => Some(SESSION_ROWS),
                WindowKind::Lifetime => window.limit,
                _ => None,
            },
            _ => None,
        }
    }
}

/// The slots of all features, and each feature's number among them. Sums of lower powers are read
/// from a slot that has higher ones too.
fn number_slots(pending: &[Pending]) -> (Vec<Slot>, Vec<Option<usize>>) {
    let highest = |slot: &Slot| {
        let SlotKind::Moments { order } = slot.kind else {
            return *slot;
        };
        let others = pending.iter().filter_map(Pending::slot);
        let orders = others.filter_map(|other| match other.kind {
            SlotKind::Moments { order } => {
                let same = Slot {
                    kind: slot.kind,
                    ..*other
                };
                (same == *slot).then_some(order)
            }
            _ => None,
        });
        Slot {
            kind: SlotKind::Moments {
                order: orders.max().unwrap_or(order),
            },
            ..*slot
        }
    };
    let mut slots: Vec<Slot> = Vec::new();
    let mut numbers = Vec::with_capacity(pending.len());
    for feature in pending {
        numbers.push(feature.slot().map(|slot| {
            let slot = highest(slot);
            slots.iter().position(|s| *s == slot).unwrap_or_else(|| {
                slots.push(slot);
                slots.len() - 1
            })
        }));
    }
    (slots, numbers)
}

/// How many views are upstream of a view with these sources, one behind the other.
/// The whole name that a window gives its feature, where it does.
fn named_as(window: &WindowSpec) -> Option<&str> {
    match window {
        WindowSpec::Mode(map) => map.name.as_deref(),
        WindowSpec::Width(_) => None,
    }
}

fn depth(sources: &[CompiledSource]) -> usize {
    let upstream = sources.iter().filter_map(|s| s.upstream.as_ref());
    upstream.map(|u| u.view.depth + 1).max().unwrap_or(0)
}

/// A hash of everything that gives a view's features their meaning: its definition, and those of the
/// views upstream.
fn meaning(document: &YamlDocument, sources: &[CompiledSource]) -> String {
    let own = definition_hash(&document.value);
    let upstream = sources.iter().filter_map(|s| s.upstream.as_ref());
    let upstream: Vec<&str> = upstream.map(|u| u.view.definition_hash.as_str()).collect();
    match upstream.is_empty() {
        true => own,
        false => hash(&format!("{own} {}", upstream.join(" "))),
    }
}

/// Everything that shapes a view's stored state, in one spelling.
fn state_text(entity: &Entity, sources: &[CompiledSource], layout: &Layout) -> String {
    let keys: Vec<String> = entity
        .keys
        .iter()
        .map(|k| k.data_type.to_string())
        .collect();
    let mut text = format!("keys {}\n", keys.join(","));
    let spelling = |e: &Option<Expression>| e.as_ref().map(|e| e.canonical().to_owned());
    for source in sources {
        if let Some(upstream) = &source.upstream {
            text.push_str(&format!("upstream {}\n", upstream.view.name));
        }
        text.push_str(&format!(
            "source {} where {:?} keys {:?} inputs {:?}\n",
            source.contract,
            spelling(&source.filter),
            source.key_columns,
            source.inputs.iter().map(spelling).collect::<Vec<_>>(),
        ));
    }
    text.push_str(&format!("layout {layout:?}"));
    text
}
