//! Every implementation of a store passes the suite of its trait.
#![allow(
    clippy::expect_used,
    reason = "a test that can't go on should stop loudly"
)]

use std::path::Path;
use std::sync::Arc;

use headwater_env::Env;
use headwater_facts::{
    AppendRequest, Appended, ArchiveOptions, ArchiveStore, EmbeddedFactLog, FactLog,
    FactLogOptions, FolderStore, FoundFacts, IndexSpec, Lookup, MemoryFactLog, QuarantineQuery,
    QuarantinedRow, RemoteStore, Scan, Wanted,
};
use headwater_features::{EmbeddedFeatureStore, FeatureStore, MemoryFeatureStore};
use headwater_schema::{Micros, Problem, Sequence, SequencedBatch};
use headwater_testkit::conformance::{archive_store, fact_log, feature_store};

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

/// A log whose facts leave for the archive as soon as they are appended.
struct Archived(EmbeddedFactLog);

impl FactLog for Archived {
    fn append(&self, group: Vec<AppendRequest>) -> Result<Vec<Appended>, Problem> {
        let appended = self.0.append(group)?;
        self.0.seal()?;
        self.0.run_archive(&|| false)?;
        assert_eq!(self.0.stats().segments, 1);
        Ok(appended)
    }

    fn read(&self, from: Sequence, facts_max: usize) -> Result<Vec<Arc<SequencedBatch>>, Problem> {
        self.0.read(from, facts_max)
    }

    fn sequences(&self) -> (Sequence, Sequence) {
        self.0.sequences()
    }

    fn newest(&self, contract: &str) -> Option<Micros> {
        self.0.newest(contract)
    }

    fn newest_dropped(&self, contract: &str) -> Option<Micros> {
        self.0.newest_dropped(contract)
    }

    fn lookup(&self, lookup: &Lookup) -> Result<FoundFacts, Problem> {
        self.0.lookup(lookup)
    }

    fn scan(&self, scan: &Scan) -> Result<FoundFacts, Problem> {
        self.0.scan(scan)
    }

    fn read_of(
        &self,
        wanted: &Wanted,
        from: Sequence,
        facts_max: usize,
    ) -> Result<(Vec<Arc<SequencedBatch>>, Sequence), Problem> {
        self.0.read_of(wanted, from, facts_max)
    }

    fn removed(
        &self,
        contract: &str,
        from: Sequence,
        until: Sequence,
    ) -> Result<Vec<(Sequence, Sequence)>, Problem> {
        self.0.removed(contract, from, until)
    }

    fn known_by(&self, instant: Micros) -> Result<Sequence, Problem> {
        self.0.known_by(instant)
    }

    fn quarantined(&self, query: &QuarantineQuery) -> Result<Vec<QuarantinedRow>, Problem> {
        self.0.quarantined(query)
    }
}

#[test]
fn the_archived_log_conforms() {
    fact_log::conforms(|env: &Env| {
        let (env, folder) = (env.clone(), tempfile::tempdir().expect("a folder"));
        let indexes = ["payment", "visit"].map(|contract| IndexSpec {
            contract: contract.into(),
            key_columns: vec![fact_log::KEY.into()],
        });
        Box::new(move || {
            let lake = folder.path().join("lake");
            let options = FactLogOptions {
                archive: Some(ArchiveOptions {
                    store: Arc::new(FolderStore::new(env.clone(), &lake)),
                    after: 0,
                    cache_bytes_max: 4000,
                }),
                ..FactLogOptions::default()
            };
            let indexes = indexes.to_vec();
            let opened = EmbeddedFactLog::open(&env, folder.path(), options, indexes);
            Arc::new(Archived(opened.expect("opens").0))
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

#[test]
fn an_archive_in_a_folder_conforms() {
    let start = || -> archive_store::Open {
        let folder = tempfile::tempdir().expect("a folder");
        Box::new(move || Arc::new(FolderStore::new(Env::real(), &folder.path().join("lake"))))
    };
    archive_store::conforms(start);
    archive_store::shows_its_objects(&start());
}

/// Whenever it is opened again, the machine has lost its power.
#[test]
fn an_archive_in_a_folder_outlives_power_cuts() {
    archive_store::conforms(|| {
        let (env, _, files) = Env::simulated(1);
        Box::new(move || {
            files.crash();
            Arc::new(FolderStore::new(env.clone(), Path::new("/lake")))
        })
    });
}

#[test]
fn an_archive_in_an_object_store_conforms() {
    let start = || -> archive_store::Open {
        let store = RemoteStore::open("memory:///a/b", Vec::new());
        let store: Arc<dyn ArchiveStore> = Arc::new(store.expect("opens"));
        Box::new(move || store.clone())
    };
    archive_store::conforms(start);
    archive_store::shows_its_objects(&start());
}
