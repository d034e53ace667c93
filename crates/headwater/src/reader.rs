//! Feature reads: names to plans, requests to entity keys, states to rows, all at one cursor.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use arrow::array::ArrayRef;
use headwater_aggregate::Outcome;
use headwater_api::backend::{
    ContextRow, EntityRequest, EntityShape, FeatureRow, FeaturesReply, FeaturesRequest, KnownAt,
    Names, ReadShape,
};
use headwater_env::Histogram;
use headwater_facts::FactLog;
use headwater_features::{
    Catalog, FeatureSet, Registry, Resolved, check_entity_names, entity_names,
};
use headwater_schema::{Cursor, DataType, Problem, Sequence, Value};

use headwater_stream::{InForce, Processor, ViewReads};

use crate::freshness::{Watched, stale, watched};

/// Lists of features whose plans are remembered.
const PLANS_MAX: usize = 256;

/// Answers feature reads over a processor.
pub(crate) struct Reader {
    processor: Arc<Processor>,
    facts: Arc<dyn FactLog>,
    current: RwLock<Current>,
}

/// The definitions that reads go by, and the plans made of them. One look at it begins a read, which
/// then sees one catalog to its end.
struct Current {
    in_force: Arc<InForce>,
    registry: Arc<Registry>,
    plans: HashMap<Names, Arc<Plan>>,
}

/// What is counted of reads.
#[derive(Default)]
pub(crate) struct ReadStats {
    pub took: Histogram,
    /// Reads that told of a stale source.
    pub stale: AtomicU64,
}

impl ReadStats {
    pub(crate) fn count(&self, reply: &FeaturesReply, took_nanos: u64) {
        self.took.observe_nanos(took_nanos);
        let stale = u64::from(!reply.stale_sources.is_empty());
        self.stale.fetch_add(stale, Ordering::Relaxed);
    }
}

/// How to answer one list of features.
pub(crate) struct Plan {
    /// The definitions that it was made of.
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) names: Arc<[Arc<str>]>,
    /// What entities may be named by.
    members: HashSet<Arc<str>>,
    /// How far estimated values may be off, by full name.
    error_bounds: Arc<BTreeMap<Arc<str>, f64>>,
    pub(crate) shape: Arc<ReadShape>,
    pub(crate) views: Vec<ViewReads>,
    /// The sources of those views that should be fresh.
    watched: Vec<Watched>,
    /// How many features the views give; what the set works out of them follows.
    pub(crate) features: usize,
    pub(crate) set: Option<Arc<FeatureSet>>,
}

impl Plan {
    /// The same as [`Plan::finish`] of values, column by column.
    pub(crate) fn finish_columns(
        &self,
        columns: Vec<Option<ArrayRef>>,
        context: Vec<ArrayRef>,
        rows: usize,
    ) -> Result<Vec<ArrayRef>, Problem> {
        let columns = columns.into_iter().flatten().collect();
        match &self.set {
            Some(set) => set.derive_columns(columns, context, rows),
            None => Ok(columns),
        }
    }

    /// The columns of an answer.
    pub(crate) fn typed_names(&self) -> impl Iterator<Item = (&Arc<str>, &DataType)> {
        self.names.iter().zip(&self.shape.types)
    }

    /// Refuses what no entity is named by. Asked behind the keys: a name that is missing says more than one too many.
    pub(crate) fn check_members(&self, entities: &[EntityRequest]) -> Result<(), Problem> {
        for (index, asked) in entities.iter().enumerate() {
            check_entity_names(&self.members, asked)
                .map_err(|p| p.field(format!("entities[{index}]")))?;
        }
        Ok(())
    }

    /// Rows with what all views say of them, and what the set works out of that.
    pub(crate) fn finish(
        &self,
        rows: Vec<Vec<Option<Outcome>>>,
        context: Vec<Vec<Value>>,
    ) -> Result<Vec<Vec<Outcome>>, Problem> {
        let rows = rows.into_iter().map(|row| row.into_iter().flatten());
        let mut rows: Vec<Vec<Outcome>> = rows.map(Iterator::collect).collect();
        if let Some(set) = &self.set {
            set.derive(&mut rows, context)?;
        }
        Ok(rows)
    }
}

impl Reader {
    pub(crate) fn new(
        processor: Arc<Processor>,
        facts: Arc<dyn FactLog>,
        registry: Registry,
    ) -> Self {
        let current = Current {
            in_force: processor.in_force(),
            registry: Arc::new(registry),
            plans: HashMap::new(),
        };
        Self {
            processor,
            facts,
            current: RwLock::new(current),
        }
    }

    /// The definitions that reads go by.
    pub(crate) fn in_force(&self) -> Arc<InForce> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.in_force.clone()
    }

    /// The definitions that reads go by, and the registry that they are from.
    pub(crate) fn definitions(&self) -> (Arc<InForce>, Arc<Registry>) {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        (current.in_force.clone(), current.registry.clone())
    }

    /// Lets later reads go by other definitions.
    pub(crate) fn replace(&self, in_force: Arc<InForce>, registry: Registry) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        *current = Current {
            in_force,
            registry: Arc::new(registry),
            plans: HashMap::new(),
        };
    }

    /// Reads features at one cursor. `now` is the default of `as_of`.
    pub(crate) fn read(
        &self,
        request: &FeaturesRequest,
        now: i64,
    ) -> Result<FeaturesReply, Problem> {
        let known_at = self.known_at(request.known_at)?;
        let as_of = request.as_of.unwrap_or(now);
        let cursor = if request.inclusive {
            Cursor::inclusive(as_of)
        } else {
            Cursor::exclusive(as_of)
        };
        let cursor = cursor.known_at(known_at);
        let plan = self.plan(&request.names)?;
        let rows = self.rows(&plan, &request.entities, &request.context, &cursor)?;
        if !request.lenient {
            plan.check_members(&request.entities)?;
        }
        Ok(FeaturesReply {
            names: plan.names.clone(),
            error_bounds: plan.error_bounds.clone(),
            shape: plan.shape.clone(),
            rows: rows.into_iter().map(row).collect(),
            as_of,
            sequence: known_at,
            stale_sources: match request.as_of {
                None => stale(&plan.watched, now, |contract| {
                    self.processor.newest(contract)
                }),
                Some(_) => Vec::new(),
            },
        })
    }

    /// Rows of a plan's features, one for each of `entities`, at one cursor.
    pub(crate) fn rows(
        &self,
        plan: &Plan,
        entities: &[EntityRequest],
        given: &[ContextRow],
        cursor: &Cursor,
    ) -> Result<Vec<Vec<Outcome>>, Problem> {
        let context = context(plan, entities.len(), given)?;
        let unread = vec![None; plan.features];
        let mut rows: Vec<Vec<Option<Outcome>>> = vec![unread; entities.len()];
        for reads in &plan.views {
            reads.read(&self.processor, entities, cursor, &mut rows)?;
        }
        plan.finish(rows, context)
    }

    /// The last sequence that a read sees; everything that is visible by default.
    pub(crate) fn known_at(&self, asked: Option<KnownAt>) -> Result<Sequence, Problem> {
        let applied = self.processor.applied();
        match asked {
            Some(KnownAt::Sequence(asked)) if asked > applied => {
                Err(unknown_sequence(asked, applied))
            }
            Some(KnownAt::Sequence(asked)) => Ok(asked),
            Some(KnownAt::Instant(instant)) => Ok(self.facts.known_by(instant)?.min(applied)),
            None => Ok(applied),
        }
    }

    pub(crate) fn plan(&self, names: &Names) -> Result<Arc<Plan>, Problem> {
        Ok(self.plan_and_registry(names)?.0)
    }

    /// A plan, and the registry that its definitions are from.
    pub(crate) fn plan_and_registry(
        &self,
        names: &Names,
    ) -> Result<(Arc<Plan>, Arc<Registry>), Problem> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let (in_force, registry) = (current.in_force.clone(), current.registry.clone());
        if let Some(plan) = current.plans.get(names) {
            return Ok((plan.clone(), registry));
        }
        drop(current);
        let resolved = match names {
            Names::Set(set) => in_force.catalog().resolve_set(set)?,
            Names::List(list) => in_force.catalog().resolve(list)?,
        };
        let plan = Arc::new(compile(&in_force, &resolved)?);
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&current.in_force, &in_force) {
            if current.plans.len() >= PLANS_MAX {
                current.plans.clear();
            }
            current.plans.insert(names.clone(), plan.clone());
        }
        Ok((plan, registry))
    }
}

fn compile(in_force: &InForce, resolved: &Resolved) -> Result<Plan, Problem> {
    let views = ViewReads::of(in_force, resolved)?;
    let read = views.iter().map(|reads| reads.view.view());
    let watched = watched(in_force.catalog(), read);
    let own = resolved.features.iter();
    let mut names: Vec<Arc<str>> = own.map(|f| f.feature().full_name.clone()).collect();
    let features = resolved.features.iter();
    let features = features.map(|f| &f.view.features[f.index]);
    let bounds = features.filter_map(|f| Some((f.full_name.clone(), f.error_bound?)));
    if let Some(set) = &resolved.set {
        names = set.full_names().cloned().collect();
    }
    Ok(Plan {
        catalog: in_force.catalog().clone(),
        members: entity_names(in_force.catalog()),
        features: resolved.features.len(),
        set: resolved.set.clone(),
        names: names.into(),
        error_bounds: Arc::new(bounds.collect()),
        watched,
        shape: Arc::new(shape(resolved)),
        views,
    })
}

/// The request's own fields, as the set that it reads declares them.
fn context(plan: &Plan, rows: usize, given: &[ContextRow]) -> Result<Vec<Vec<Value>>, Problem> {
    if let Some(set) = &plan.set {
        return set.read_context(rows, given);
    }
    if given.iter().any(|row| !row.is_empty()) {
        return Err(
            Problem::user("unknown-context", "these features take no `context`")
                .field("context")
                .hint("leave it out, or ask for a feature set that declares it"),
        );
    }
    Ok(Vec::new())
}

/// The types of an answer's features, the entities that they are of, and the context that they take.
fn shape(resolved: &Resolved) -> ReadShape {
    let mut shape = ReadShape::default();
    for feature in &resolved.features {
        let described = &feature.view.features[feature.index];
        shape.types.push(described.data_type.clone());
        let entity = &feature.view.entity;
        if !shape.entities.iter().any(|e| e.name == entity.name) {
            shape.entities.push(EntityShape {
                name: entity.name.clone(),
                keys: entity.keys.clone(),
            });
        }
    }
    let on_demand = resolved.set.iter().flat_map(|set| &set.on_demand);
    let types = on_demand.map(|feature| feature.data_type.clone());
    shape.types.extend(types);
    let declared = resolved.set.iter().flat_map(|set| &set.context);
    shape.context = declared.cloned().collect();
    shape
}

fn row(outcomes: Vec<Outcome>) -> FeatureRow {
    let mut row = FeatureRow {
        values: Vec::with_capacity(outcomes.len()),
        statuses: Vec::with_capacity(outcomes.len()),
        event_times: Vec::with_capacity(outcomes.len()),
    };
    for outcome in outcomes {
        row.values.push(outcome.value);
        row.statuses.push(outcome.status);
        row.event_times.push(outcome.event_time);
    }
    row
}

fn unknown_sequence(asked: Sequence, applied: Sequence) -> Problem {
    Problem::user("unknown-sequence", "`known_at` lies in the future")
        .field("known_at")
        .detail(format!("{asked} is asked for, {applied} is the newest"))
        .hint("use a `sequence` that a reply gave")
}
