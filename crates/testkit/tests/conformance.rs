//! Every implementation of a store passes the suite of its trait.
#![allow(
    clippy::expect_used,
    reason = "a test that can't go on should stop loudly"
)]

use std::sync::Arc;

use headwater_env::Env;
use headwater_facts::{EmbeddedFactLog, FactLog, FactLogOptions, IndexSpec, MemoryFactLog};
use headwater_features::{EmbeddedFeatureStore, FeatureStore, MemoryFeatureStore};
use headwater_testkit::conformance::{fact_log, feature_store};

#[test]
fn the_log_in_memory_conforms() {
    fact_log::conforms(|env| {
        let log: Arc<dyn FactLog> = Arc::new(MemoryFactLog::new(env.clone()));
        Box::new(move || log.clone())
    });
}

#[test]
fn the_embedded_log_conforms() {
    fact_log::conforms(|env: &Env| {
        let (env, folder) = (env.clone(), tempfile::tempdir().expect("a folder"));
        let indexes = ["payment", "visit"].map(|contract| IndexSpec {
            contract: contract.into(),
            key_columns: vec![fact_log::KEY.into()],
        });
        Box::new(move || {
            // Small segments, so that a short stream fills several.
            let options = FactLogOptions {
                segment_bytes_max: 2000,
                ..FactLogOptions::default()
            };
            let indexes = indexes.to_vec();
            let opened = EmbeddedFactLog::open(&env, folder.path(), options, indexes);
            Arc::new(opened.expect("opens").0)
        })
    });
}

#[test]
fn the_store_in_memory_conforms() {
    let store: Arc<dyn FeatureStore> = Arc::new(MemoryFeatureStore::default());
    let open: feature_store::Open = Box::new(move || store.clone());
    feature_store::conforms(&open);
}

#[test]
fn the_embedded_store_conforms() {
    let folder = tempfile::tempdir().expect("a folder");
    let open: feature_store::Open = Box::new(move || {
        let store = EmbeddedFeatureStore::open(folder.path(), 1 << 20);
        Arc::new(store.expect("opens"))
    });
    feature_store::conforms(&open);
}
