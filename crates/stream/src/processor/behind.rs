//! What the features of some entities go back to: the states of views, and the facts behind them. Whoever takes it
//! along, with the definitions, reads the same features elsewhere.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use headwater_facts::Lookup;
use headwater_features::{CompiledView, SourceRows, StoredState, keep};
use headwater_schema::{EntityKey, Micros, Position, Problem, Sequence};

use super::{Processor, lock};
use crate::cold;
use crate::in_force::ServedView;

/// How often states are looked at again where facts reach them meanwhile.
const ATTEMPTS_MAX: usize = 32;

/// An entity of a view.
pub type Wanted = (Arc<ServedView>, EntityKey);

/// How much is taken along.
#[derive(Debug, Clone, Copy)]
pub struct Extent {
    /// Facts; more are refused.
    pub facts_max: usize,
    /// All facts that are kept, however old: not only those that the views' states hold one by one.
    pub all: bool,
}

/// What features go back to, as of one sequence.
#[derive(Debug, Default)]
pub struct Behind {
    /// Everything up to here is in it.
    pub sequence: Sequence,
    /// The states of the views that keep any, where there are some.
    pub states: Vec<StoredState>,
    /// The facts of the entities that are kept and live, by their sequences.
    pub facts: BTreeSet<Sequence>,
    /// For each contract of which older facts were left out: the event time from which all are there.
    pub facts_from: BTreeMap<Arc<str>, Micros>,
    /// For each contract: the event time up to which states hold its facts only all together, no longer one by one.
    pub folded_to: BTreeMap<Arc<str>, Micros>,
}

/// One walk through what is behind entities.
struct Walk<'a> {
    processor: &'a Processor,
    behind: Behind,
    /// The event time up to which each view's states are folded; by the view's name.
    floors: HashMap<Arc<str>, Micros>,
    seen: HashSet<(Arc<str>, EntityKey)>,
    facts_max: usize,
}

impl Processor {
    /// What the features of entities go back to, now; those of a chained view go back to the entities upstream, too, and
    /// all of their facts come along. Refused while a view is still being filled.
    pub fn behind(&self, wanted: &[Wanted], extent: Extent) -> Result<Behind, Problem> {
        for _ in 0..ATTEMPTS_MAX {
            let mut walk = Walk {
                processor: self,
                behind: Behind {
                    sequence: self.applied(),
                    ..Behind::default()
                },
                floors: HashMap::new(),
                seen: HashSet::new(),
                facts_max: extent.facts_max,
            };
            walk.look_back(wanted, extent.all);
            let mut whole = true;
            for (served, key) in wanted {
                whole = whole && walk.visit(served, key)?;
            }
            if whole {
                return Ok(walk.behind);
            }
        }
        Err(Problem::external(
            "busy",
            "facts of these entities come in faster than they are looked at",
        )
        .hint("try again, or with fewer entities")
        .retryable())
    }

    /// The event time before which a view needs its facts only all together; none where it has no facts.
    fn floor(&self, view: &CompiledView) -> Option<Micros> {
        let newest = view.sources.iter().map(|s| self.facts.newest(&s.contract));
        Some(newest.max()??.saturating_sub(view.retention))
    }
}

impl Walk<'_> {
    /// Settles how far back facts go: as far as any view that is involved needs them one by one, and all the way where
    /// one reads them through another.
    fn look_back(&mut self, wanted: &[Wanted], all: bool) {
        let mut views: BTreeMap<&str, (&Arc<ServedView>, bool)> = BTreeMap::new();
        let mut open: Vec<(&Arc<ServedView>, bool)> = wanted
            .iter()
            .map(|(served, _)| (served, served.view().is_chained()))
            .collect();
        while let Some((served, whole)) = open.pop() {
            let known = views.get(served.view().name.as_ref());
            if known.is_some_and(|(_, known)| *known || !whole) {
                continue;
            }
            views.insert(&served.view().name, (served, whole));
            let sources = 0..served.view().sources.len();
            open.extend(sources.filter_map(|s| Some((served.upstream(s)?, true))));
        }
        let mut whole: BTreeSet<Arc<str>> = BTreeSet::new();
        for (served, of_all) in views.values() {
            let view = served.view();
            let contracts = || view.sources.iter().map(|s| s.contract.clone());
            let floor = self.processor.floor(view);
            if all || *of_all || floor.is_none() {
                whole.extend(contracts());
            }
            let Some(floor) = floor.filter(|_| !view.is_chained()) else {
                continue;
            };
            self.floors.insert(view.name.clone(), floor);
            for contract in contracts() {
                let from = floor.saturating_add(1);
                let facts_from = &mut self.behind.facts_from;
                let least = facts_from.entry(contract.clone()).or_insert(from);
                *least = from.min(*least);
                let folded = self.behind.folded_to.entry(contract).or_insert(floor);
                *folded = floor.max(*folded);
            }
        }
        let facts_from = &mut self.behind.facts_from;
        facts_from.retain(|contract, _| !whole.contains(contract));
    }

    /// Adds what is behind an entity of a view. False where its state has gone on meanwhile.
    fn visit(&mut self, served: &Arc<ServedView>, key: &EntityKey) -> Result<bool, Problem> {
        let view = served.view();
        if !self.seen.insert((view.name.clone(), key.clone())) {
            return Ok(true);
        }
        if served.is_filling() {
            let title = format!("the view `{}` is still being filled", view.name);
            let problem = Problem::external("backfilling", title);
            return Err(problem
                .hint("wait until it is: `headwater backfill`")
                .retryable());
        }
        if !view.is_chained() && !self.add_state(served, key)? {
            return Ok(false);
        }
        for (index, source) in view.sources.iter().enumerate() {
            let contract = served.contract(&source.contract).ok_or_else(|| {
                Problem::internal("unknown-contract", "a view's contract is gone")
                    .detail(&source.contract)
            })?;
            let lookup = Lookup {
                contract: source.contract.clone(),
                key_columns: source.key_columns.clone(),
                key: key.clone(),
                from: self
                    .behind
                    .facts_from
                    .get(&source.contract)
                    .map_or(Position::MIN, |from| Position::before(*from)),
                until: Position::MAX,
                known_at: self.behind.sequence,
                newest: None,
            };
            let facts = cold::read(self.processor.facts.as_ref(), &contract, &lookup)?;
            self.behind.facts.extend(&facts.sequences);
            if self.behind.facts.len() > self.facts_max {
                return Err(too_many(self.facts_max));
            }
            if !self.visit_upstream(served, index, facts)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Adds what is behind the entities upstream of facts of a source, where there is a view upstream.
    fn visit_upstream(
        &mut self,
        served: &ServedView,
        source: usize,
        facts: SourceRows,
    ) -> Result<bool, Problem> {
        let compiled = &served.view().sources[source];
        let (Some(upstream), Some(above)) = (&compiled.upstream, served.upstream(source)) else {
            return Ok(true);
        };
        let needed = upstream.needed_above(&compiled.needed());
        let known_at = self.behind.sequence;
        let rows = self
            .processor
            .chained_rows(above, upstream.source, facts, &needed, known_at)?;
        let kept = keep(&above.view().sources[upstream.source], rows)?;
        let keys: BTreeSet<&[u8]> = (0..kept.len()).map(|row| kept.key(row)).collect();
        for key in keys {
            if !self.visit(above, &EntityKey::from_bytes(key))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn add_state(&mut self, served: &ServedView, key: &EntityKey) -> Result<bool, Problem> {
        let (processor, bytes) = (self.processor, key.as_bytes());
        let mut shard = lock(&processor.shards[processor.shard_of(bytes)]);
        let slot = served.runtime.slot;
        let floor = self.floors.get(&served.view().name);
        let read = shard.read(slot, bytes, processor.store.as_ref(), |state| {
            state.map(|state| {
                let mut state = state.clone();
                if let Some(floor) = floor {
                    state.fold(&served.view().layout, *floor);
                }
                let mut encoded = Vec::new();
                state.encode(&mut encoded);
                (state.applied(), encoded)
            })
        })?;
        processor.settle(&mut shard)?;
        drop(shard);
        // A view that was dropped meanwhile keeps none; its successor is found by whoever asks again.
        let Some(read) = read else { return Ok(false) };
        let Some((applied, state)) = read else {
            return Ok(true);
        };
        if applied > self.behind.sequence {
            return Ok(false);
        }
        self.behind.states.push(StoredState {
            view: served.view().state_id.clone(),
            key: bytes.to_vec(),
            state,
        });
        Ok(true)
    }
}

fn too_many(facts_max: usize) -> Problem {
    Problem::user("limit", "too many facts are behind these entities")
        .detail(format!("at most {facts_max} are taken along"))
        .hint("name fewer entities, or leave out the features of those that everything happens to")
}
