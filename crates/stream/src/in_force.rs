//! What is in force: one catalog and what runs its views, replaced as a whole when other definitions
//! are applied. Whoever holds one goes on seeing it whole.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use headwater_features::{Catalog, CompiledView};
use headwater_schema::{Contract, Micros, Problem, Sequence};

use crate::shard::ViewCounters;

/// A catalog, and what runs its views.
pub struct InForce {
    catalog: Arc<Catalog>,
    pub(crate) views: Vec<Arc<ServedView>>,
}

impl InForce {
    pub(crate) fn new(catalog: Arc<Catalog>, views: Vec<Arc<ServedView>>) -> Self {
        Self { catalog, views }
    }

    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// Whether any view is being filled.
    pub fn is_filling(&self) -> bool {
        self.views.iter().any(|view| view.is_filling())
    }

    /// A view by its name.
    pub fn view(&self, name: &str) -> Option<&Arc<ServedView>> {
        self.views.iter().find(|v| v.view.name.as_ref() == name)
    }

    /// Every view, in the order of the catalog.
    pub fn views(&self) -> impl Iterator<Item = &Arc<ServedView>> {
        self.views.iter()
    }
}

/// A view in force.
pub struct ServedView {
    pub(crate) view: Arc<CompiledView>,
    /// The contract of each source.
    contracts: Vec<Arc<Contract>>,
    /// The view upstream of each source, where there is one.
    upstream: Vec<Option<Arc<ServedView>>>,
    pub(crate) runtime: Arc<ViewRuntime>,
}

impl ServedView {
    /// The views of a catalog, in its order, each run by what `runtime` gives.
    pub(crate) fn all(
        catalog: &Catalog,
        mut runtime: impl FnMut(&Arc<CompiledView>) -> Arc<ViewRuntime>,
    ) -> Result<Vec<Arc<Self>>, Problem> {
        let mut views: Vec<&Arc<CompiledView>> = catalog.views().collect();
        views.sort_by_key(|view| view.depth);
        let mut served: BTreeMap<Arc<str>, Arc<Self>> = BTreeMap::new();
        for view in views {
            let new = Self::new(catalog, view, runtime(view), &served)?;
            served.insert(view.name.clone(), Arc::new(new));
        }
        let views = catalog.views();
        Ok(views.filter_map(|view| served.remove(&view.name)).collect())
    }

    fn new(
        catalog: &Catalog,
        view: &Arc<CompiledView>,
        runtime: Arc<ViewRuntime>,
        served: &BTreeMap<Arc<str>, Arc<Self>>,
    ) -> Result<Self, Problem> {
        let contract = |name: &Arc<str>| {
            catalog.contract(name).cloned().ok_or_else(|| {
                Problem::internal("unknown-contract", "a view's contract is gone").detail(name)
            })
        };
        let contracts = view.sources.iter().map(|s| contract(&s.contract));
        Ok(Self {
            contracts: contracts.collect::<Result<_, _>>()?,
            upstream: view
                .sources
                .iter()
                .map(|s| served.get(&s.upstream.as_ref()?.view.name).cloned())
                .collect(),
            view: view.clone(),
            runtime,
        })
    }

    pub fn view(&self) -> &Arc<CompiledView> {
        &self.view
    }

    /// Whether facts are still being read again for it; it answers no read until they are.
    pub fn is_filling(&self) -> bool {
        let mut upstream = self.upstream.iter().flatten();
        self.runtime.filling.load(Ordering::Acquire) || upstream.any(|view| view.is_filling())
    }

    /// The view upstream of one of its sources, where there is one.
    pub(crate) fn upstream(&self, source: usize) -> Option<&Arc<Self>> {
        self.upstream.get(source)?.as_ref()
    }

    /// The last sequence that the view has been filled to, where it is being filled.
    pub fn filled_to(&self) -> Option<Sequence> {
        Some(self.filled()?.reached)
    }

    /// How far it has been filled, where it is being filled: it or the view upstream that is least far.
    pub fn filled(&self) -> Option<Filled> {
        let upstream = self.upstream.iter().flatten();
        let filling = self.runtime.filling.load(Ordering::Acquire);
        let own = filling.then(|| Filled {
            from: self.runtime.from,
            reached: self.runtime.reached(),
        });
        let all = upstream.filter_map(|view| view.filled()).chain(own);
        all.min_by_key(|filled| filled.reached)
    }

    /// The contract of each source.
    pub(crate) fn contracts(&self) -> impl Iterator<Item = &Arc<Contract>> {
        self.contracts.iter()
    }

    pub(crate) fn contract(&self, name: &str) -> Option<Arc<Contract>> {
        let mut contracts = self.contracts.iter();
        contracts.find(|c| c.name.as_ref() == name).cloned()
    }
}

/// How far a view has been filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filled {
    /// The sequence after which it began.
    pub from: Sequence,
    /// The last sequence that it has.
    pub reached: Sequence,
}

/// What a view keeps while its definition may change around it: as long as its state stays the same.
pub(crate) struct ViewRuntime {
    /// The view's place in every shard.
    pub slot: usize,
    /// Whether the view is being filled: live facts pass it by until it has caught up.
    pub filling: AtomicBool,
    /// The sequence after which its filling began.
    from: Sequence,
    /// The last sequence that the view had been brought to before it took live facts.
    reached: AtomicU64,
    pub newest: AtomicI64,
    pub null_keys: AtomicU64,
    pub non_finite: AtomicU64,
    pub cold_reads: AtomicU64,
    /// What each shard counts of the view.
    pub counters: Vec<Arc<ViewCounters>>,
}

impl ViewRuntime {
    pub fn new(slot: usize, reached: Sequence, filling: bool, shards: usize) -> Self {
        Self {
            slot,
            filling: AtomicBool::new(filling),
            from: reached,
            reached: AtomicU64::new(reached),
            newest: AtomicI64::new(Micros::MIN),
            null_keys: AtomicU64::new(0),
            non_finite: AtomicU64::new(0),
            cold_reads: AtomicU64::new(0),
            counters: (0..shards).map(|_| Arc::default()).collect(),
        }
    }

    pub fn count_cold_read(&self) {
        self.cold_reads.fetch_add(1, Ordering::Relaxed);
    }

    pub fn reached(&self) -> Sequence {
        self.reached.load(Ordering::Acquire)
    }

    pub fn reach(&self, sequence: Sequence) {
        self.reached.store(sequence, Ordering::Release);
    }
}
