//! Sources that should be fresher than they are: the newest fact of a contract is older than the
//! contract's `freshness` allows.
//!
//! Event times count up to their arrival, so that one fact from the future hides no silence.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use headwater_api::backend::StaleSource;
use headwater_features::{Catalog, CompiledView};
use headwater_schema::time::Duration;
use headwater_schema::{Contract, Micros};

/// A source whose contract says how fresh it should be.
pub(crate) struct Watched {
    contract: Arc<str>,
    within: Duration,
    /// The newest event time known: the log is asked only once it is too old.
    newest: AtomicI64,
}

impl Watched {
    /// The contract's source; none where the contract doesn't say.
    fn new(contract: &Contract) -> Option<Self> {
        Some(Self {
            contract: contract.name.clone(),
            within: contract.freshness?,
            newest: AtomicI64::new(Micros::MIN),
        })
    }

    /// Whether the source is stale at `now`. `ask` gives the newest event time of a contract.
    fn stale(&self, now: Micros, ask: &impl Fn(&str) -> Option<Micros>) -> Option<StaleSource> {
        let fresh =
            |newest: Micros| newest > Micros::MIN && newest >= now.saturating_sub(self.within.0);
        if fresh(self.newest.load(Ordering::Relaxed)) {
            return None;
        }
        let newest = ask(&self.contract);
        self.newest
            .store(newest.unwrap_or(Micros::MIN), Ordering::Relaxed);
        if newest.is_some_and(fresh) {
            return None;
        }
        Some(StaleSource {
            contract: self.contract.clone(),
            newest,
            expected_within: self.within,
        })
    }
}

/// The sources of views that are watched, each contract once.
pub(crate) fn watched<'a>(
    catalog: &Catalog,
    views: impl Iterator<Item = &'a Arc<CompiledView>>,
) -> Vec<Watched> {
    let mut names: Vec<&Arc<str>> = views
        .flat_map(|view| view.sources.iter().map(|s| &s.contract))
        .collect();
    names.sort_unstable();
    names.dedup();
    let contracts = names.into_iter().filter_map(|name| catalog.contract(name));
    contracts.filter_map(|c| Watched::new(c)).collect()
}

/// Every contract that says how fresh it should be.
pub(crate) fn watched_contracts(catalog: &Catalog) -> Vec<Watched> {
    catalog
        .contracts()
        .filter_map(|c| Watched::new(c))
        .collect()
}

/// Those that are stale at `now`.
pub(crate) fn stale(
    watched: &[Watched],
    now: Micros,
    ask: impl Fn(&str) -> Option<Micros>,
) -> Vec<StaleSource> {
    watched.iter().filter_map(|w| w.stale(now, &ask)).collect()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_source_is_stale_from_the_first_instant_beyond_and_the_log_is_asked_only_then() {
        let watched = Watched {
            contract: "departure".into(),
            within: Duration(100),
            newest: AtomicI64::new(Micros::MIN),
        };
        let (newest, asked) = (Cell::new(None), Cell::new(0));
        let ask = |_: &str| {
            asked.set(asked.get() + 1);
            newest.get()
        };
        let seen = watched.stale(0, &ask).map(|s| s.newest);
        assert_eq!(seen, Some(None), "nothing has come yet");
        newest.set(Some(1000));
        assert_eq!(watched.stale(1100, &ask), None);
        assert_eq!(watched.stale(1100, &ask), None);
        assert_eq!(asked.get(), 2, "what is known to be fresh isn't asked for");
        let seen = watched.stale(1101, &ask).map(|s| s.newest);
        assert_eq!(seen, Some(Some(1000)));
        newest.set(Some(1050));
        assert_eq!(watched.stale(1101, &ask), None, "a new fact counts at once");
        assert_eq!(
            watched.stale(Micros::MIN, &ask),
            None,
            "a clock far back is no error"
        );
    }
}
