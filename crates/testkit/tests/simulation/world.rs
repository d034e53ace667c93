//! An engine, the disk and the clock under it, and the model beside it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use headwater::api::backend::{
    EntityRequest, FeaturesRequest, IngestOptions, KeyValue, KnownAt, Names,
};
use headwater::schema::decode::BodyFormat;
use headwater::{Config, Engine, Project, apply_project};
use headwater_env::{
    Env, Faults, Files, Random, RealFiles, SeededRandom, SimulatedClock, SimulatedFiles,
};
use headwater_facts::FactLog;
use headwater_schema::{Cursor, Problem, Value};
use serde_json::json;

use crate::model::{Answer, DEFINITIONS, Model, Request, SECOND, ViewModel, amount, views};
use crate::steps::{Contract, Fact, IndexFate, Settings, Step};
use crate::store::{MixedFiles, SimulatedStore};

pub struct World {
    env: Env,
    clock: Arc<SimulatedClock>,
    files: Arc<SimulatedFiles>,
    faults: Faults,
    config: Config,
    always: bool,
    folder: tempfile::TempDir,
    store: Arc<SimulatedStore>,
    engine: Option<Engine>,
    model: Model,
    /// What failed last and may be in the log all the same.
    maybe: Option<Request>,
    /// Rows in quarantine that were acknowledged.
    quarantined: [usize; 2],
    views: Vec<ViewModel>,
    /// What happened, for comparing two runs.
    pub trace: Vec<String>,
}

fn name(contract: Contract) -> &'static str {
    match contract {
        Contract::Purchase => "purchase",
        Contract::Transfer => "transfer",
    }
}

fn row(fact: &Fact) -> serde_json::Value {
    let who = |who: u8| format!("c{who}");
    let (id, time) = (fact.id.to_string(), fact.second * SECOND);
    let amount = fact.amount.map(amount);
    match fact.contract {
        Contract::Purchase => {
            json!({"id": id, "customer": fact.who.map(who), "amount": amount, "time": time})
        }
        Contract::Transfer => {
            json!({"id": id, "payer": fact.who.map(who), "payee": who(fact.other), "amount": amount, "time": time})
        }
    }
}

fn body(facts: &[Fact], malformed: bool) -> String {
    let mut rows: Vec<_> = facts.iter().map(row).collect();
    if malformed {
        rows.insert(
            rows.len() / 2,
            json!({"id": "x", "amount": "much", "time": 0}),
        );
    }
    json!(rows).to_string()
}

fn bits(value: &Value) -> String {
    match value {
        Value::Float(f) => format!("{:016x}", f.to_bits()),
        other => format!("{other:?}"),
    }
}

impl World {
    pub fn new(seed: u64, settings: &Settings) -> Self {
        let (mut env, clock, files) = Env::simulated(seed);
        env.files = Arc::new(MixedFiles(files.clone()));
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
        write("all.yaml", DEFINITIONS);
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
        let mut world = Self {
            env,
            clock,
            files,
            faults: Faults::default(),
            config,
            always: settings.sync == headwater::Sync::Always,
            folder,
            store: Arc::default(),
            engine: None,
            model: Model::default(),
            maybe: None,
            quarantined: [0; 2],
            views: views(),
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
        self.try_open()
            .expect("what was acknowledged can be opened");
        let last = self.engine().facts_log().last_sequence();
        if last > self.model.last {
            let maybe = self.maybe.take().expect("no facts from nowhere");
            self.model.take(&maybe);
        }
        self.maybe = None;
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
        self.check_log();
        self.tell(("open", last));
    }

    /// Every acknowledged fact is in the log, as it was sent, and nothing else.
    fn check_log(&self) {
        let log = self.engine().facts_log();
        let mut found = Vec::new();
        let mut next = 1;
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
        let known = self.model.facts.iter().map(|k| {
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

    /// Sends a request; the answer must be the model's, or an error while something is broken.
    fn send(&mut self, request: Request, malformed: bool) {
        let sent = match &request {
            Request::Retract(ids) => {
                let ids = ids.iter().map(u16::to_string).collect();
                self.engine().retract("purchase", ids).map(|reply| Answer {
                    accepted: reply.retracted,
                    unknown: reply.unknown.len(),
                    sequence: reply.sequence,
                    ..Answer::default()
                })
            }
            Request::Ingest {
                facts,
                all_or_nothing,
                revise,
            } => {
                let Some(first) = facts.first() else { return };
                let options = IngestOptions {
                    all_or_nothing: *all_or_nothing,
                    revise: *revise,
                };
                let text = body(facts, malformed);
                let contract = name(first.contract);
                let sent =
                    self.engine()
                        .ingest(contract, BodyFormat::Json, text.as_bytes(), options);
                sent.map(|reply| Answer {
                    accepted: reply.accepted,
                    duplicates: reply.duplicates,
                    conflicts: reply.rejected.len()
                        - usize::from(malformed && !reply.rejected.is_empty()),
                    unknown: 0,
                    sequence: reply.sequence,
                })
            }
        };
        self.tell(sent.as_ref().map_err(|problem| problem.code));
        match sent {
            Ok(answer) => {
                let refused = matches!(
                    &request,
                    Request::Ingest {
                        all_or_nothing: true,
                        ..
                    }
                ) && malformed;
                if refused {
                    assert_eq!((answer.accepted, answer.sequence), (0, self.model.last));
                    return;
                }
                assert_eq!(
                    answer,
                    self.model.take(&request),
                    "the answer to {request:?}"
                );
                self.maybe = None;
                if let (true, Request::Ingest { facts, .. }) = (malformed, &request) {
                    self.quarantined[facts[0].contract as usize] += 1;
                }
            }
            Err(problem) => {
                let codes = ["disk-full", "file", "log-poisoned"];
                assert!(codes.contains(&problem.code), "{problem:?}");
                if problem.code != "log-poisoned" {
                    self.maybe = Some(request);
                }
            }
        }
    }

    /// Reads the features of one view for one entity, at a cursor that the seed picks.
    fn read(&mut self, seed: u64) {
        let random = SeededRandom::new(seed);
        let below = |bound: u64| random.next_u64() % bound;
        let view = &self.views[below(self.views.len() as u64) as usize];
        let who = below(3) as u8;
        let second = match self.model.facts.len() as u64 {
            0 => 200,
            length => self.model.facts[below(length) as usize].fact.second,
        };
        // At the edges of windows, and a little beside them.
        let offset = [0, 0, 7, 9, 60, 20, 300][below(7) as usize] * SECOND;
        let beside = [0, 0, 1, -1][below(4) as usize];
        let as_of = (below(8) > 0).then_some(second * SECOND + offset + beside);
        let known_at = (below(2) == 0).then(|| below(self.model.last + 1));
        let inclusive = below(3) > 0;
        let names = view
            .features
            .iter()
            .map(|f| format!("{}.{}", view.name, f.0));
        let request = FeaturesRequest {
            names: Names::List(names.collect()),
            entities: vec![EntityRequest::from([(
                view.entity.to_owned(),
                KeyValue::Scalar(Value::string(format!("c{who}"))),
            )])],
            as_of,
            known_at: known_at.map(KnownAt::Sequence),
            inclusive,
            context: Vec::new(),
        };
        let reply = self.engine().features(&request).expect("a read");
        let cursor = match inclusive {
            true => Cursor::inclusive(reply.as_of),
            false => Cursor::exclusive(reply.as_of),
        };
        let cursor = cursor.known_at(known_at.unwrap_or(self.model.last));
        for (index, feature) in view.features.iter().enumerate() {
            let want = self.model.answer(view, index, who, &cursor);
            let (got, time) = (
                &reply.rows[0].values[index],
                reply.rows[0].event_times[index],
            );
            let what = format!("{}.{} of c{who} at {cursor:?}", view.name, feature.0);
            assert_eq!(bits(got), bits(&want.value), "{what}");
            assert_eq!(time, want.event_time, "{what}");
        }
        let values: Vec<String> = reply.rows[0].values.iter().map(bits).collect();
        self.tell((reply.as_of, reply.sequence, values));
    }

    fn power_cut(
        &mut self,
        during: &[Fact],
        bytes_left: u64,
        index: IndexFate,
        store_kept: Option<u8>,
    ) {
        self.set_faults(Faults {
            bytes_left: Some(bytes_left),
            sync_fails: true,
            mend_fails: true,
        });
        let request = Request::Ingest {
            facts: during.to_vec(),
            all_or_nothing: false,
            revise: false,
        };
        self.send(request, false);
        drop(self.engine.take());
        self.files.crash();
        self.store = Arc::new(match store_kept {
            Some(kept) => self.store.crashed(kept),
            None => SimulatedStore::default(),
        });
        if index == IndexFate::Deleted {
            let folder = self.data().join("facts/index");
            RealFiles.remove_dir_all(&folder).unwrap();
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
                self.send(request, *malformed);
            }
            Step::Retract(ids) => self.send(Request::Retract(ids.clone()), false),
            Step::Read(seed) => (0..4).for_each(|more| self.read(seed.wrapping_add(more))),
            Step::Checkpoint => {
                let done = self.engine().checkpoint().map_err(|p| p.code);
                self.tell(("checkpoint", done));
            }
            Step::Reopen => {
                if let Some(engine) = self.engine.take() {
                    let closed = engine.close().map_err(|p| p.code);
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
                store_kept,
            } => {
                self.power_cut(during, *bytes_left, *index, *store_kept);
            }
            Step::DiskFull(bytes_left) => self.set_faults(Faults {
                bytes_left: *bytes_left,
                ..self.faults
            }),
            Step::SyncFails(sync_fails) => self.set_faults(Faults {
                sync_fails: *sync_fails,
                ..self.faults
            }),
            Step::StoreFails(fails) => self.store.fails.store(*fails, Ordering::Relaxed),
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
