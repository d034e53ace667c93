//! What is in force: one catalog and what runs its views, replaced as a whole when other definitions
//! are applied. Whoever holds one goes on seeing it whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use headwater_features::{Catalog, CompiledView};
use headwater_schema::{Contract, Micros, Problem, Sequence};

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
    pub(crate) runtime: Arc<ViewRuntime>,
}

impl ServedView {
    /// A view of `catalog`, run by `runtime`.
    pub(crate) fn new(
        catalog: &Catalog,
        view: &Arc<CompiledView>,
        runtime: Arc<ViewRuntime>,
    ) -> Result<Self, Problem> {
        let contract = |name: &Arc<str>| {
            catalog.contract(name).cloned().ok_or_else(|| {
                Problem::internal("unknown-contract", "a view's contract is gone").detail(name)
            })
        };
        let contracts = view.sources.iter().map(|s| contract(&s.contract));
        Ok(Self {
            contracts: contracts.collect::<Result<_, _>>()?,
            view: view.clone(),
            runtime,
        })
    }

    pub fn view(&self) -> &Arc<CompiledView> {
        &self.view
    }

    /// Whether facts are still being read again for it; it answers no read until they are.
    pub fn is_filling(&self) -> bool {
        self.runtime.filling.load(Ordering::Acquire)
    }

    /// The last sequence that the view has been filled to, where it is being filled.
    pub fn filled_to(&self) -> Option<Sequence> {
        self.is_filling().then(|| self.runtime.reached())
    }

    pub(crate) fn contract(&self, name: &str) -> Option<Arc<Contract>> {
        let mut contracts = self.contracts.iter();
        contracts.find(|c| c.name.as_ref() == name).cloned()
    }
}

/// What a view keeps while its definition may change around it: as long as its state stays the same.
pub(crate) struct ViewRuntime {
    /// The view's place in every shard.
    pub slot: usize,
    /// Whether the view is being filled: live facts pass it by until it has caught up.
    pub filling: AtomicBool,
    /// The last sequence that the view had been brought to before it took live facts.
    reached: AtomicU64,
    pub newest: AtomicI64,
    pub null_keys: AtomicU64,
    pub non_finite: AtomicU64,
    pub cold_reads: AtomicU64,
}

impl ViewRuntime {
    pub fn new(slot: usize, reached: Sequence, filling: bool) -> Self {
        Self {
            slot,
            filling: AtomicBool::new(filling),
            reached: AtomicU64::new(reached),
            newest: AtomicI64::new(Micros::MIN),
            null_keys: AtomicU64::new(0),
            non_finite: AtomicU64::new(0),
            cold_reads: AtomicU64::new(0),
        }
    }

    pub fn reached(&self) -> Sequence {
        self.reached.load(Ordering::Acquire)
    }

    pub fn reach(&self, sequence: Sequence) {
        self.reached.store(sequence, Ordering::Release);
    }
}
