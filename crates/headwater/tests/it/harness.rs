//! An engine over a project of its own, for tests that send random facts and hold what is read to an oracle.

use std::path::Path;

use headwater::{Config, Engine, Env, Project, StateSettings, apply_project};
use headwater_aggregate::Status;
use headwater_api::backend::{
    EntityRequest, FeatureRow, FeaturesRequest, IngestOptions, IngestReply, KeyValue, KnownAt,
    Names, RetractReply,
};
use headwater_schema::decode::BodyFormat;
use headwater_schema::{Cursor, Micros, Position, Sequence, Value};
use headwater_testkit::TempProject;
use serde_json::{Value as Json, json};

use crate::labels::assert_rows;
use crate::{BINARY, assert_swept, open_engine};

pub const SECOND: i64 = 1_000_000;

/// What was read live of an entity whose key is one text.
pub type Live = (String, Cursor, FeatureRow);

pub struct Harness {
    project: TempProject,
    config: Config,
    engine: Option<Engine>,
}

impl Harness {
    /// A project of these definitions, applied and opened. `settings` says how states are kept.
    pub fn new(definitions: &str, settings: impl FnOnce(&mut StateSettings)) -> Self {
        let files = [
            ("headwater.yaml", "name: shop\n"),
            ("definitions.yaml", definitions),
        ];
        let project = TempProject::new(BINARY, &files);
        let env = Env::real();
        let loaded = Project::load(&env, project.path()).expect("a project");
        apply_project(&env, &loaded, &project.path().join("data")).expect("applied");
        let mut config = Config::named("shop");
        settings(&mut config.spec.state);
        config.spec.ingest.sync = headwater::Sync::Never;
        let mut harness = Self {
            project,
            config,
            engine: None,
        };
        harness.reopen();
        harness
    }

    pub fn engine(&self) -> &Engine {
        self.engine.as_ref().expect("open")
    }

    /// The project's folder.
    pub fn folder(&self) -> &Path {
        self.project.path()
    }

    /// Drops the engine as it is, and opens what it leaves.
    pub fn reopen(&mut self) {
        drop(self.engine.take());
        let data = self.folder().join("data");
        self.engine = Some(open_engine(&self.config, &data));
    }

    /// Sends facts, new ones or revisions.
    pub fn send(&self, contract: &str, rows: &[Json], revise: bool) -> IngestReply {
        let body = json!(rows).to_string();
        let options = IngestOptions {
            revise,
            ..IngestOptions::default()
        };
        let sent = self
            .engine()
            .ingest(contract, BodyFormat::Json, body.as_bytes(), options);
        sent.expect("taken")
    }

    pub fn retract(&self, contract: &str, fact_ids: Vec<String>) -> RetractReply {
        self.engine().retract(contract, fact_ids).expect("taken")
    }

    /// The features of one entity at a cursor.
    pub fn read(&self, names: &[String], entity: (&str, &str), cursor: &Cursor) -> FeatureRow {
        let all = cursor.known_at == Sequence::MAX;
        let request = FeaturesRequest {
            names: Names::List(names.to_vec()),
            entities: vec![EntityRequest::from([(
                entity.0.to_owned(),
                KeyValue::Scalar(Value::string(entity.1)),
            )])],
            as_of: Some(cursor.as_of),
            known_at: (!all).then_some(KnownAt::Sequence(cursor.known_at)),
            context: Vec::new(),
            inclusive: is_inclusive(cursor),
            lenient: false,
        };
        let mut reply = self.engine().features(&request).expect("read");
        reply.rows.remove(0)
    }

    /// Holds what was read live to whatever else tells it, bit for bit: the sweep, rows of training sets, and reads
    /// once the view that keeps the states has been made again. `key` is the entity's.
    pub fn assert_offline(&self, view: &str, names: &[String], key: &str, reads: &[Live]) {
        let engine = self.engine();
        assert_swept(engine, self.folder(), names, reads);
        assert_rows(engine, names, key, reads);
        engine.backfill(&[view.to_owned()]).expect("begun");
        engine.wait_until_filled(|_| ()).expect("filled");
        for (entity, cursor, live) in reads {
            let again = self.read(names, (key, entity), cursor);
            for (index, name) in names.iter().enumerate() {
                assert_eq!(
                    told(&again, index),
                    told(live, index),
                    "{name} of {entity} at {cursor:?}, made again"
                );
            }
        }
    }
}

/// A value as bits, its status, and its event time.
pub fn told(row: &FeatureRow, index: usize) -> (String, Status, Option<Micros>) {
    let value = bits(&row.values[index]);
    (value, row.statuses[index], row.event_times[index])
}

/// Whether a cursor sees facts at its moment itself.
pub fn is_inclusive(cursor: &Cursor) -> bool {
    cursor.until > Position::before(cursor.as_of)
}

/// The cursor at a second, which sees facts at it or doesn't.
pub fn cursor_at(second: i64, inclusive: bool, known_at: Sequence) -> Cursor {
    let cursor = match inclusive {
        true => Cursor::inclusive(second * SECOND),
        false => Cursor::exclusive(second * SECOND),
    };
    cursor.known_at(known_at)
}

/// A value with its floats as bits.
pub fn bits(value: &Value) -> String {
    match value {
        Value::Float(f) => format!("{:016x}", f.to_bits()),
        Value::List(items) => format!("{:?}", items.iter().map(bits).collect::<Vec<_>>()),
        Value::Map(entries) => {
            let entries = entries.iter().map(|(k, v)| (k, bits(v)));
            format!("{:?}", entries.collect::<Vec<_>>())
        }
        other => format!("{other:?}"),
    }
}
