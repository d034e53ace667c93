//! An engine, the disk and the clock under it, and the model beside it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use headwater::api::backend::DefinitionFile;
use headwater::{ArchiveSettings, Config, Engine, Project, apply_project, read_definitions};
use headwater_env::{
    Env, Faults, Files, Random, RealFiles, SeededRandom, SimulatedClock, SimulatedFiles,
};
use headwater_facts::FactLog;
use headwater_features::FeatureStore;
use headwater_schema::time::Duration as Span;
use headwater_schema::{Micros, Problem, Sequence};

use crate::definitions::{Memory, ViewModel, definitions, views};
use crate::model::{Model, Request, SECOND};
use crate::steps::{Contract, IndexFate, Settings, Step, StoreFate};
use crate::store::{Gate, MixedFiles, SimulatedStore};

mod reading;
mod sending;

/// How long, in real time, is waited for another thread.
const WAIT: Duration = Duration::from_secs(60);

pub struct World {
    env: Env,
    clock: Arc<SimulatedClock>,
    files: Arc<SimulatedFiles>,
    gate: Arc<Gate>,
    faults: Faults,
    /// Whether anything has failed since the last start; what was to be filled then may wait for the next.
    troubled: bool,
    config: Config,
    memory: Memory,
    always: bool,
    folder: tempfile::TempDir,
    store: Arc<SimulatedStore>,
    engine: Option<Engine>,
    model: Model,
    /// The group that failed last, and when: it may be in the log all the same.
    maybe: Option<(Micros, Vec<Request>)>,
    /// Rows in quarantine that were acknowledged.
    quarantined: [usize; 2],
    views: Vec<ViewModel>,
    /// Whether other definitions were ever put in force.
    changed: bool,
    /// Whether there is a copy of the index.
    copied: bool,
    /// What happened, for comparing two runs.
    pub trace: Vec<String>,
}

fn name(contract: Contract) -> &'static str {
    match contract {
        Contract::Purchase => "purchase",
        Contract::Transfer => "transfer",
    }
}

/// Copies a real folder.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => copy(&path, &target),
            false => drop(std::fs::copy(&path, target).unwrap()),
        }
    }
}

impl World {
    pub fn new(seed: u64, settings: &Settings) -> Self {
        let (mut env, clock, files) = Env::simulated(seed);
        let gate = Arc::new(Gate::default());
        env.files = Arc::new(MixedFiles(files.clone(), gate.clone()));
        clock.set(200 * SECOND);
        // The index syncs its real files; in memory that costs nothing.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let folder = folder.unwrap();
        let project = folder.path().join("project");
        env.files.create_dir_all(&project).unwrap();
        let write = |name: &str, text: &str| {
            let path = project.join(name);
            env.files.write_atomic(&path, text.as_bytes()).unwrap();
        };
        write("headwater.yaml", "name: simulated\n");
        write("all.yaml", &definitions(0, settings.memory));
        let loaded = Project::load(&env, &project).unwrap_or_else(|p| panic!("{p:?}"));
        let data = folder.path().join("data");
        apply_project(&env, &loaded, &data).unwrap_or_else(|p| panic!("{p:?}"));
        let mut config = Config::named("simulated");
        config.spec.state.shards = settings.shards;
        config.spec.state.memory_bytes_max = settings.memory_bytes_max;
        config.spec.state.checkpoint_facts = settings.checkpoint_facts;
        config.spec.ingest.sync = settings.sync;
        config.spec.ingest.sync_interval_ms = 3000;
        config.spec.ingest.segment_bytes_max = settings.segment_bytes_max;
        config.spec.archive = settings.archive.map(|seconds| ArchiveSettings {
            every: Span(1_000_000 * SECOND),
            after: Span(seconds * SECOND),
            cache_bytes_max: 4000,
            ..ArchiveSettings::default()
        });
        let mut world = Self {
            env,
            clock,
            files,
            gate,
            faults: Faults::default(),
            troubled: false,
            config,
            memory: settings.memory,
            always: settings.sync == headwater::Sync::Always,
            folder,
            store: Arc::default(),
            engine: None,
            model: Model::new(settings.memory.ids.map(|seconds| seconds * SECOND)),
            maybe: None,
            quarantined: [0; 2],
            views: views(0),
            changed: false,
            copied: false,
            trace: Vec::new(),
        };
        world.open(false);
        world
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn engine(&self) -> &Engine {
        self.engine.as_ref().expect("an open engine")
    }

    fn tell(&mut self, what: impl std::fmt::Debug) {
        self.trace.push(format!("{what:?}"));
    }

    fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
        self.files.set_faults(faults);
        self.troubled |= faults.bytes_left.is_some() || faults.sync_fails;
    }

    fn try_open(&mut self) -> Result<(), Problem> {
        let store = self.store.clone();
        let env = self.env.clone();
        let opened = Engine::open_over(
            env,
            &self.config,
            &self.data(),
            |_, _, _| Ok((store, Vec::new())),
            |_, _| {},
        );
        self.engine = Some(opened?);
        Ok(())
    }

    /// Opens what is on the disk, which has been mended, and compares it with the model. `power_cut`:
    /// whether what wasn't synced may be gone.
    fn open(&mut self, power_cut: bool) {
        self.set_faults(Faults::default());
        self.store.fails.store(false, Ordering::Relaxed);
        self.troubled = false;
        let positions = self.store.positions().unwrap();
        self.try_open()
            .expect("what was acknowledged can be opened");
        let last = self.engine().facts_log().last_sequence();
        if let Some((at, group)) = self.maybe.take()
            && last > self.model.last
        {
            self.model.take_group(&group, at);
        }
        if power_cut && !self.always {
            self.quarantined = [0; 2];
            if last < self.model.last {
                self.model.forget_after(last);
            }
        }
        assert_eq!(
            last, self.model.last,
            "the log's last sequence after opening"
        );
        self.note_begun(&positions);
        self.note_dropped();
        self.check_log();
        self.tell(("open", last));
    }

    /// Views whose states end before what is kept were begun again.
    fn note_begun(&mut self, positions: &BTreeMap<String, Sequence>) {
        let catalog = self.engine().catalog();
        for view in &self.views {
            let state_id = &catalog.view(view.name).expect("the view").state_id;
            let stored = positions.get(state_id).copied().unwrap_or(0);
            if stored + 1 < self.model.first {
                self.model.begin(view);
            }
        }
    }

    /// What retention let go was old enough, and is kept note of.
    fn note_dropped(&mut self) {
        let log = self.engine().facts_log().clone();
        let (before, first) = (self.model.first, log.first_sequence());
        if first <= before.max(1) {
            return;
        }
        let kept = self
            .memory
            .facts
            .expect("nothing goes that is kept for ever")
            * SECOND;
        let gone = self
            .model
            .facts
            .iter()
            .filter(|k| (before..first).contains(&k.sequence));
        for known in gone {
            let newest = log.newest(name(known.fact.contract));
            let old = newest.is_none_or(|newest| known.fact.second * SECOND < newest - kept);
            assert!(old, "{known:?} went, kept for {kept} before {newest:?}");
        }
        self.model.drop_before(first);
        for contract in [Contract::Purchase, Contract::Transfer] {
            let newest = self
                .model
                .newest_dropped(contract)
                .map(|second| second * SECOND);
            assert_eq!(log.newest_dropped(name(contract)), newest);
        }
        // It knows fewer of the ids that are gone.
        self.copied = false;
        self.tell(("dropped", first));
    }

    /// Waits until every view has been filled, unless something keeps it from being.
    fn wait_until_filled(&self) {
        let since = Instant::now();
        while !self.troubled && !self.engine().filling().is_empty() {
            assert!(since.elapsed() < WAIT, "views are never filled");
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    fn apply(&mut self, variant: u8) {
        let file = DefinitionFile {
            file: "all.yaml".into(),
            text: definitions(variant, self.memory),
        };
        let (documents, catalog) = read_definitions(&[file]).unwrap_or_else(|p| panic!("{p:?}"));
        let applied = self.engine().apply(&documents, &Arc::new(catalog), None);
        let applied = applied.map(drop).map_err(|problems| problems[0].clone());
        self.tell(("apply", applied.as_ref().map_err(|problem| problem.code)));
        match applied {
            Err(problem) => assert!(self.troubled, "{problem:?}"),
            Ok(()) => {
                let before = std::mem::replace(&mut self.views, views(variant));
                for view in &self.views {
                    if !before.iter().any(|v| v.id == view.id) {
                        self.model.begin(view);
                    }
                }
                self.changed = true;
                // While they are being filled, or just after.
                (0..self.views.len()).for_each(|view| self.read_unfilled(view));
            }
        }
    }

    fn archive(&mut self) {
        let run = self.engine().archive_now(Duration::from_secs(1_000_000));
        let complete = run.map(|state| state["complete"] == true);
        self.tell(("archive", complete.as_ref().map_err(|problem| problem.code)));
        if let Err(problem) = complete {
            assert!(self.troubled, "{problem:?}");
        }
    }

    fn index(&self) -> PathBuf {
        self.data().join("facts/index")
    }

    fn index_copy(&self) -> PathBuf {
        self.folder.path().join("index-copy")
    }

    fn copy_index(&mut self) {
        RealFiles.remove_dir_all(&self.index_copy()).unwrap();
        copy(&self.index(), &self.index_copy());
        self.copied = true;
    }

    /// Every acknowledged fact is in the log, as it was sent, and nothing else.
    fn check_log(&self) {
        let log = self.engine().facts_log();
        let mut found = Vec::new();
        let mut next = log.first_sequence();
        while next <= log.last_sequence() {
            let batches = log.read(next, 1000).expect("readable");
            for batch in &batches {
                for row in 0..batch.batch.len() {
                    let id = batch.batch.fact_ids.as_ref().unwrap().value(row).to_owned();
                    let time = batch.batch.event_times[row];
                    let contract = batch.batch.contract.to_string();
                    found.push((batch.first_sequence + row as u64, contract, id, time));
                }
                next = batch.last_sequence() + 1;
            }
        }
        let kept = self
            .model
            .facts
            .iter()
            .filter(|k| k.sequence >= self.model.first);
        let known = kept.map(|k| {
            let fact = &k.fact;
            (
                k.sequence,
                name(fact.contract).to_owned(),
                fact.id.to_string(),
                fact.second * SECOND,
            )
        });
        assert_eq!(found, known.collect::<Vec<_>>(), "the facts in the log");
        for (contract, count) in ["purchase", "transfer"].iter().zip(self.quarantined) {
            let rows = self
                .engine()
                .quarantine(contract, true, 100_000)
                .expect("readable");
            assert!(
                rows.len() >= count,
                "{} of {count} rejected rows",
                rows.len()
            );
        }
    }

    fn power_cut(
        &mut self,
        during: &[Request],
        bytes_left: u64,
        index: IndexFate,
        store: StoreFate,
    ) {
        let going = Faults {
            bytes_left: Some(bytes_left),
            sync_fails: during.len() < 2,
            mend_fails: true,
        };
        match during {
            [] => self.set_faults(going),
            [request] => {
                self.set_faults(going);
                self.send(request, false);
            }
            // What comes after the first is torn.
            requests => self.send_group(requests, Some(going)),
        }
        drop(self.engine.take());
        self.files.crash();
        // Of facts that are gone an older copy of the states may have seen none.
        let whole = self.memory.facts.is_none() || !self.changed;
        self.store = Arc::new(match store {
            StoreFate::Kept(kept) => self.store.crashed(kept),
            StoreFate::Older(part) if whole => self.store.older(part),
            StoreFate::Older(_) => self.store.crashed(255),
            StoreFate::Deleted => SimulatedStore::default(),
        });
        match index {
            IndexFate::Older if self.copied => {
                RealFiles.remove_dir_all(&self.index()).unwrap();
                copy(&self.index_copy(), &self.index());
            }
            IndexFate::Deleted => {
                RealFiles.remove_dir_all(&self.index()).unwrap();
                self.model.forget_dropped_ids();
                // It knows ids that are forgotten now.
                self.copied = false;
            }
            _ => {}
        }
        self.open(true);
    }

    /// Damage to what was synced is found, and named, and never read as other facts.
    fn flip(&mut self, seed: u64) {
        self.set_faults(Faults::default());
        let Some(engine) = self.engine.take() else {
            return;
        };
        if engine.close().is_err() {
            return self.open(false);
        }
        let random = SeededRandom::new(seed);
        let folder = self.data().join("facts/log");
        let mut segments = self.files.list(&folder).unwrap();
        segments.retain(|p| p.extension().is_some_and(|e| e == "seg"));
        segments.sort();
        let path = &segments[(random.next_u64() % segments.len() as u64) as usize];
        let length = self.files.read(path).unwrap().len() as u64;
        let (byte, bit) = (
            (random.next_u64() % length) as usize,
            random.next_u64() as u8,
        );
        self.files.flip(path, byte, bit);
        let found = match self.try_open() {
            Err(problem) => problem.code,
            // A segment without a frame holds nothing that could be damaged.
            Ok(()) if length <= 16 => "empty",
            Ok(()) => {
                let verified = self.engine().facts_log().verify();
                verified.expect_err("a flipped bit is found").code
            }
        };
        drop(self.engine.take());
        self.files.flip(path, byte, bit);
        self.tell(("flip", found));
        self.open(false);
    }

    pub fn step(&mut self, step: &Step) {
        match step {
            Step::Ingest {
                facts,
                malformed,
                all_or_nothing,
                revise,
            } => {
                let request = Request::Ingest {
                    facts: facts.clone(),
                    all_or_nothing: *all_or_nothing,
                    revise: *revise,
                };
                self.send(&request, *malformed);
            }
            Step::Retract(ids) => self.send(&Request::Retract(ids.clone()), false),
            Step::Group(requests) => self.send_group(requests, None),
            Step::Apply(variant) => self.apply(*variant),
            Step::Archive => self.archive(),
            Step::Read(seed) => (0..4).for_each(|more| self.read(seed.wrapping_add(more))),
            Step::Checkpoint => {
                let done = self.engine().checkpoint().map_err(|p| p.code);
                self.tell(("checkpoint", done));
            }
            Step::Reopen => {
                if let Some(engine) = self.engine.take() {
                    let closed = engine.close().map_err(|p| p.code);
                    if closed.is_ok() {
                        self.copy_index();
                    }
                    self.tell(("close", closed));
                }
                self.open(false);
            }
            Step::Kill => {
                drop(self.engine.take());
                self.store = Arc::new(self.store.crashed(200));
                self.open(false);
            }
            Step::PowerCut {
                during,
                bytes_left,
                index,
                store,
            } => self.power_cut(during, *bytes_left, *index, *store),
            Step::DiskFull(bytes_left) => self.set_faults(Faults {
                bytes_left: *bytes_left,
                ..self.faults
            }),
            Step::SyncFails(sync_fails) => self.set_faults(Faults {
                sync_fails: *sync_fails,
                ..self.faults
            }),
            Step::StoreFails(fails) => {
                self.store.fails.store(*fails, Ordering::Relaxed);
                self.troubled |= fails;
            }
            Step::Clock(seconds) => {
                let now = self.env.clock.now() + seconds * SECOND;
                self.clock.set(now);
            }
            Step::Flip(seed) => self.flip(*seed),
        }
        self.clock.advance(Duration::from_millis(700));
    }

    /// At the end everything is read once more, from what a clean start finds.
    pub fn finish(&mut self) {
        for seed in 0..6 {
            self.read(seed);
        }
        self.step(&Step::Reopen);
        for seed in 6..30 {
            self.read(seed);
        }
    }
}
