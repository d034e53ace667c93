//! Bundles: a version of a model and what is known of some entities, in one file for `edge` to open.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use headwater_api::backend::{BundleRequest, EntityRequest};
use headwater_edge::{Bundle, Head, limits};
use headwater_facts::{FactLog, facts_at};
use headwater_features::{
    CompiledView, DefinitionDocument, DefinitionKind, Documents, Entity, Model, Registry,
    check_entity_names, entity_key, entity_names,
};
use headwater_models::repository::{ModelRepository, VersionRecord};
use headwater_schema::{EntityKey, Problem};
use headwater_serve::Scorer;
use headwater_stream::{Behind, Extent, InForce, ViewReads, Wanted};

use crate::Engine;

/// The version that is taken along unless another is named.
const LIVE: &str = "live";

impl Engine {
    /// Everything that a version of a model needs to answer for some entities without a server, as a file. Refused where
    /// a view of its set is still being filled, and where the version can't be served here either.
    pub fn bundle(&self, request: &BundleRequest) -> Result<Vec<u8>, Problem> {
        let (in_force, registry) = self.reader.definitions();
        let catalog = in_force.catalog();
        let model = catalog.model(&request.model)?.clone();
        check_set(&model, request.feature_set.as_deref())?;
        let (record, file, alias) = self.version(request)?;
        // Tried before it is carried away.
        Scorer::new(catalog, &model.name, record.clone(), &file)?;
        let reads = ViewReads::of(&in_force, &catalog.resolve_set(&model.set.name)?)?;
        let (wanted, entities) = wanted(&in_force, &reads, &request.entities)?;
        let extent = Extent {
            facts_max: limits::BUNDLED_FACTS_MAX,
            all: request.all_history,
        };
        let behind = self.processor.behind(&wanted, extent)?;
        let views = with_upstream(reads.iter().map(|r| r.plan.view()));
        let log = self.facts.as_ref();
        let bundle = Bundle {
            head: Head {
                model: model.name.to_string(),
                version: record.version.clone(),
                alias,
                feature_set: model.set.name.to_string(),
                sequence: behind.sequence,
                first_sequence: log.first_sequence(),
                made_at: self.env.clock.now(),
                made_by: format!("headwater {}", env!("CARGO_PKG_VERSION")),
                missing_to: missing_to(log, &views, &behind),
                folded_to: named(&behind.folded_to),
            },
            definitions: Documents::of(&needed(&registry, &model, &views)),
            facts: facts_at(log, &behind.facts)?,
            states: behind.states,
            model_file: file,
            record,
            entities,
        };
        bundle.to_bytes()
    }

    /// The version that is asked for, its file, and the alias where that was asked for.
    fn version(
        &self,
        request: &BundleRequest,
    ) -> Result<(VersionRecord, Vec<u8>, Option<String>), Problem> {
        let repository = ModelRepository::new(self.env.clone(), &self.data.models());
        let models = repository.record(&request.model)?;
        let asked = request.version.as_deref().unwrap_or(LIVE);
        let record = models.find(asked)?.clone();
        let file = repository.file(&record)?;
        let alias = models.aliases.contains_key(asked).then(|| asked.to_owned());
        Ok((record, file, alias))
    }
}

fn check_set(model: &Model, asked: Option<&str>) -> Result<(), Problem> {
    match asked {
        Some(set) if set != model.set.name.as_ref() => Err(Problem::user(
            "wrong-set",
            format!("the model `{}` reads another feature set", model.name),
        )
        .field("feature_set")
        .detail(format!(
            "it reads `{}`, asked for is `{set}`",
            model.set.name
        ))
        .hint("leave the set out: it is the model's own")),
        _ => Ok(()),
    }
}

type Named = (Vec<Wanted>, Vec<(String, Vec<u8>)>);

/// The entities of views that rows name, and those entities by themselves. A row may name some of them only.
fn wanted(
    in_force: &InForce,
    reads: &[ViewReads],
    rows: &[EntityRequest],
) -> Result<Named, Problem> {
    if rows.is_empty() || rows.len() > limits::BUNDLED_ENTITIES_MAX {
        return Err(Problem::user("limit", "a bundle is made for some entities")
            .field("entities")
            .detail(format!(
                "{} rows, between 1 and {} are taken",
                rows.len(),
                limits::BUNDLED_ENTITIES_MAX
            ))
            .hint("name those that it will be asked for"));
    }
    let names = entity_names(in_force.catalog());
    let mut known: BTreeSet<(Arc<str>, EntityKey)> = BTreeSet::new();
    let mut entities: BTreeSet<(String, Vec<u8>)> = BTreeSet::new();
    let mut wanted = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        let at = |problem: Problem| problem.field(format!("entities[{index}]"));
        check_entity_names(&names, row).map_err(at)?;
        let mut any = false;
        for reads in reads {
            let view = reads.plan.view();
            if !names_it(&view.entity, row) {
                continue;
            }
            any = true;
            let key = entity_key(&view.entity, row).map_err(at)?;
            entities.insert((view.entity.name.to_string(), key.as_bytes().to_vec()));
            if known.insert((view.name.clone(), key.clone())) {
                wanted.push((reads.view.clone(), key));
            }
        }
        if !any {
            let problem = Problem::user("missing-key", "a row names no entity of the model's set");
            return Err(at(problem.hint(format!("name one of: {}", of_set(reads)))));
        }
    }
    Ok((wanted, entities.into_iter().collect()))
}

fn of_set(reads: &[ViewReads]) -> String {
    let names = reads.iter().map(|r| r.plan.view().entity.name.as_ref());
    let names: BTreeSet<&str> = names.collect();
    names.into_iter().collect::<Vec<_>>().join(", ")
}

/// Whether a row names an entity, by itself or by all of its key columns.
fn names_it(entity: &Entity, row: &EntityRequest) -> bool {
    let mut keys = entity.keys.iter();
    row.contains_key(entity.name.as_ref()) || keys.all(|key| row.contains_key(key.name.as_ref()))
}

/// Views, and those upstream of them.
fn with_upstream<'a>(
    views: impl Iterator<Item = &'a Arc<CompiledView>>,
) -> BTreeMap<Arc<str>, Arc<CompiledView>> {
    let mut all = BTreeMap::new();
    let mut open: Vec<Arc<CompiledView>> = views.cloned().collect();
    while let Some(view) = open.pop() {
        let upstream = view.sources.iter().filter_map(|s| s.upstream.as_ref());
        open.extend(upstream.map(|u| u.view.clone()));
        all.insert(view.name.clone(), view);
    }
    all
}

/// For each contract: the newest event time whose facts aren't there, left out here or let go before.
fn missing_to(
    log: &dyn FactLog,
    views: &BTreeMap<Arc<str>, Arc<CompiledView>>,
    behind: &Behind,
) -> BTreeMap<String, i64> {
    let sources = views.values().flat_map(|view| &view.sources);
    let missing = sources.filter_map(|source| {
        let left_out = behind.facts_from.get(&source.contract);
        let left_out = left_out.map(|from| from.saturating_sub(1));
        let newest = left_out.max(log.newest_dropped(&source.contract))?;
        Some((source.contract.to_string(), newest))
    });
    missing.collect()
}

fn named(times: &BTreeMap<Arc<str>, i64>) -> BTreeMap<String, i64> {
    let times = times.iter();
    times
        .map(|(name, time)| (name.to_string(), *time))
        .collect()
}

/// The definitions that the model's set stands on, and its own.
fn needed(
    registry: &Registry,
    model: &Model,
    views: &BTreeMap<Arc<str>, Arc<CompiledView>>,
) -> Vec<DefinitionDocument> {
    let entity = |name: &str| views.values().any(|v| v.entity.name.as_ref() == name);
    let contract = |name: &str| {
        let mut sources = views.values().flat_map(|view| &view.sources);
        let on = model.on.as_ref().map(|on| on.contract.name.as_ref());
        // The model's definition doesn't compile without the facts that it scores as they arrive.
        on == Some(name) || sources.any(|source| source.contract.as_ref() == name)
    };
    let is_needed = |definition: &DefinitionDocument| {
        let name = definition.name.as_str();
        match definition.kind {
            DefinitionKind::Contract => contract(name),
            DefinitionKind::Entity => entity(name),
            DefinitionKind::View => views.contains_key(name),
            DefinitionKind::FeatureSet => name == model.set.name.as_ref(),
            DefinitionKind::Model => name == model.name.as_ref(),
            DefinitionKind::Label => false,
        }
    };
    let mut definitions = registry.definitions();
    definitions.retain(is_needed);
    definitions
}
