//! What a data folder says to those who use it.

use std::fs;
use std::path::Path;

use headwater::api::backend::{
    EntityRequest, FactsQuery, FeaturesRequest, KeyValue, KnownAt, Names,
};
use headwater::{AuditLog, AuditSettings, Engine, Env, KeyFile};
use headwater_aggregate::EntityState;
use headwater_api::AuditQuery;
use headwater_facts::{
    ArchiveOptions, EmbeddedFactLog, FactLog, FactLogOptions, FolderStore, IndexSpec, Lookup,
};
use headwater_features::{ContextRow, OUTCOME, PREDICTION, ReadPlan, Registry, built_in_contract};
use headwater_models::repository::ModelRepository;
use headwater_models::{LoadOptions, Rows, load};
use headwater_schema::{Cursor, EntityKey, Position, Value};
use headwater_testkit::fuzz::documents;
use serde_json::{Value as Json, json};

use crate::{MODEL, config};

/// A moment that windows of the facts reach.
const AS_OF: i64 = 1_769_855_000_000_000;

/// Facts, rejected rows, features now and in the past.
pub fn facts(engine: &Engine) -> Json {
    let query = FactsQuery {
        contract: "every".into(),
        entity: None,
        from: None,
        to: None,
        known_at: None,
        limit: 1000,
    };
    let facts = engine.facts(&query).expect("facts").into_iter();
    let facts = facts.map(|fact| {
        let values = fact.values.iter();
        let values = values.map(|(name, value)| format!("{name}={value:?}"));
        let values = values.collect::<Vec<_>>();
        json!([fact.fact_id, fact.event_time, fact.sequence, values])
    });
    let rejected = engine.quarantine("every", true, 1000);
    let rejected = rejected.expect("rejected rows").into_iter();
    let rejected = rejected.map(|r| json!([r.row, r.field, r.rule, r.raw]));
    json!({
        "facts": facts.collect::<Vec<_>>(),
        "rejected": rejected.collect::<Vec<_>>(),
        "features": features(engine),
    })
}

fn features(engine: &Engine) -> Vec<Json> {
    let (first, last) = engine.facts_log().sequences();
    let known_at = match first {
        1 => vec![2, last],
        _ => vec![2, first + 3, last],
    };
    let mut features = Vec::new();
    for known_at in known_at {
        for who in ["ada", "bob", "eve", "nobody"] {
            let request = FeaturesRequest {
                names: Names::Set("all".into()),
                entities: vec![EntityRequest::from([(
                    "person".to_owned(),
                    KeyValue::Scalar(Value::string(who)),
                )])],
                as_of: Some(AS_OF),
                known_at: Some(KnownAt::Sequence(known_at)),
                inclusive: true,
                lenient: false,
                context: Vec::new(),
            };
            features.push(match engine.features(&request) {
                Ok(reply) => {
                    let values = reply.names.iter().zip(&reply.rows[0].values);
                    let values = values.map(|(name, value)| format!("{name}={value:?}"));
                    json!([who, known_at, values.collect::<Vec<_>>()])
                }
                Err(problem) => json!([who, known_at, problem.code]),
            });
        }
    }
    features
}

/// A set with features of every kind; folders from before there was one have none.
pub const EVERYTHING: &str = "everything";

/// Its views and labels, and what is read of it: by states that have folded facts and by facts one by one, now and as of
/// before the last ones came.
pub fn everything(engine: &Engine) -> Json {
    let catalog = engine.catalog();
    let views = catalog.views();
    let views = views.map(|view| (view.name.to_string(), json!(view.state_id)));
    let labels = catalog.labels();
    let labels = labels.map(|label| json!([label.name.to_string(), label.horizon]));
    let last = engine.facts_log().last_sequence();
    let mut rows = Vec::new();
    for known_at in [last - 50, last] {
        for (who, shop, asked) in [
            ("ada", "north", 30.0),
            ("bob", "east", 0.5),
            ("nobody", "", 1.0),
        ] {
            let key = |name: &str, value| (name.to_owned(), KeyValue::Scalar(Value::string(value)));
            let request = FeaturesRequest {
                names: Names::Set(EVERYTHING.into()),
                entities: vec![EntityRequest::from([key("person", who), key("shop", shop)])],
                as_of: Some(AS_OF),
                known_at: Some(KnownAt::Sequence(known_at)),
                inclusive: true,
                lenient: false,
                context: vec![ContextRow::from([
                    ("asked".to_owned(), json!(asked)),
                    ("channel".to_owned(), Json::Null),
                ])],
            };
            let reply = engine.features(&request).expect("every fact is kept");
            let told = reply.names.iter().zip(&reply.rows[0].values);
            let told = told.zip(&reply.rows[0].statuses);
            let told = told.map(|((name, value), status)| format!("{name}={value:?} {status:?}"));
            rows.push(json!([who, known_at, told.collect::<Vec<_>>()]));
        }
    }
    json!({
        "views": serde_json::Map::from_iter(views),
        "labels": labels.collect::<Vec<_>>(),
        "rows": rows,
    })
}

/// The columns that facts of the contracts which a folder knows are looked up by.
fn indexes(data: &Path) -> Vec<IndexSpec> {
    let registry = fs::read(data.join("registry.json")).expect("a registry");
    let registry = Registry::from_bytes(&registry).expect("a registry");
    let catalog = registry.compile().expect("definitions");
    let all = [("every", "who"), ("visit", "who"), ("visit", "shop")];
    let known = all.into_iter();
    let known = known.filter(|(contract, _)| catalog.contract(contract).is_some());
    let spec = |(contract, column): (&str, &str)| IndexSpec {
        contract: contract.into(),
        key_columns: vec![column.into()],
    };
    known.map(spec).collect()
}

/// What the index finds, without being made again. Before an engine opens the folder.
pub fn index(data: &Path) -> Json {
    let env = Env::real();
    let options = FactLogOptions {
        archive: Some(ArchiveOptions {
            store: std::sync::Arc::new(FolderStore::new(env.clone(), &data.join("archive"))),
            after: 0,
            cache_bytes_max: 1 << 20,
        }),
        ..FactLogOptions::default()
    };
    let opened = EmbeddedFactLog::open(&env, &data.join("facts"), options, indexes(data));
    let (log, report) = opened.expect("the log opens");
    assert_eq!((report.repairs, report.indexed_again), (Vec::new(), 0));
    let found = log.lookup(&Lookup {
        contract: "every".into(),
        key_columns: vec!["who".into()],
        key: EntityKey::from_values(&[Value::string("ada")]).unwrap(),
        from: Position::MIN,
        until: Position::MAX,
        known_at: log.last_sequence(),
        newest: None,
    });
    let found = found.expect("found");
    let sequence = |(run, row): &(usize, usize)| found.runs[*run].sequences[*row];
    json!(found.order.iter().map(sequence).collect::<Vec<_>>())
}

/// Predictions and outcomes, without what they say nothing of: contracts may have grown since.
pub fn predictions(engine: &Engine) -> Json {
    let of = |contract: &str| {
        let query = FactsQuery {
            contract: contract.into(),
            entity: None,
            from: None,
            to: None,
            known_at: None,
            limit: 1000,
        };
        let facts = engine.facts(&query).expect("facts").into_iter();
        let facts = facts.map(|fact| {
            let told = fact.values.iter().filter(|(_, value)| !value.is_null());
            let told = told.map(|(name, value)| format!("{name}={value:?}"));
            json!([
                fact.fact_id,
                fact.event_time,
                fact.sequence,
                told.collect::<Vec<_>>()
            ])
        });
        facts.collect::<Vec<_>>()
    };
    json!({PREDICTION: of(PREDICTION), OUTCOME: of(OUTCOME)})
}

/// The contracts that Headwater brings itself, and their versions.
pub fn built_in() -> Json {
    let of = |name| {
        let contract = built_in_contract(name).expect("a contract");
        contract.version.to_string()
    };
    json!({PREDICTION: of(PREDICTION), OUTCOME: of(OUTCOME)})
}

/// Whether the states of the folder were gone on from: they hold what facts that are gone have brought.
pub fn states(engine: &Engine) -> Json {
    let report = engine.report();
    let view = engine
        .catalog()
        .known_view("habits")
        .expect("a view")
        .clone();
    json!({
        "repairs": report.repairs,
        "replayed": report.replayed,
        "state_id": view.state_id,
    })
}

/// What a state of a view says, given as bytes.
pub fn state(view: &str, bytes: &[u8]) -> Json {
    let view = documents::CATALOG.view(view).expect("a view");
    let state = EntityState::decode(&view.layout, bytes).expect("a state");
    let plan = ReadPlan::new(view.clone(), (0..view.features.len()).collect());
    let read = |as_of| {
        let read = plan.read(Some(&state), &Cursor::inclusive(as_of), None);
        let outcomes = read.outcomes.iter().map(|o| format!("{:?}", o.value));
        json!([as_of, outcomes.collect::<Vec<_>>(), read.aged])
    };
    json!([read(0), read(AS_OF), read(i64::MAX / 2)])
}

pub fn archive(engine: &Engine) -> Json {
    let bytes = engine.verify_archive().expect("the archive is whole");
    let state = engine.archive_state().expect("an archive");
    let told = ["through", "segments", "segments_only_in_archive", "facts"];
    let told = told.map(|name| (name.to_owned(), state[name].clone()));
    json!({"bytes": bytes, "state": serde_json::Map::from_iter(told)})
}

pub fn keys(data: &Path) -> Json {
    let keys = KeyFile::new(Env::real(), &config(), data, data);
    let keys = keys.list().expect("keys").into_iter();
    let keys = keys.map(|key| {
        json!([
            key.id,
            key.name,
            key.roles,
            key.sha256,
            key.created,
            key.revoked,
            key.expires
        ])
    });
    keys.collect()
}

pub fn audit(data: &Path) -> Json {
    let log = AuditLog::new(Env::real(), data, AuditSettings::default());
    let query = AuditQuery {
        limit: 100,
        ..AuditQuery::default()
    };
    let entries = log.read(&query).expect("a page").entries.into_iter();
    let entries =
        entries.map(|e| json!([e.version, e.time, e.actor, e.action, e.target, e.result]));
    entries.collect()
}

/// What is told of a model, and what each of its versions makes of one row.
pub fn model(data: &Path) -> Json {
    let repository = ModelRepository::new(Env::real(), &data.join("models"));
    let record = repository.record(MODEL).expect("a record");
    let versions = record.versions.iter().map(|version| {
        let file = repository.file(version).expect("its file");
        let predictor = load(&file, &LoadOptions::default()).expect("a model");
        let row = [2.5, 30.0];
        let scores = predictor.predict(Rows::one(&row).unwrap()).expect("scores");
        let inputs = version.inputs.iter();
        let inputs = inputs.map(|i| json!([i.name, i.kind, i.source, i.meaning]));
        json!({
            "version": version.version,
            "sha256": version.sha256,
            "bytes": version.bytes,
            "format": version.model_format,
            "added_at": version.added_at,
            "owner": version.owner,
            "description": version.description,
            "inputs": inputs.collect::<Vec<_>>(),
            "outputs": version.outputs.iter().map(|o| json!([o.name, o.width])).collect::<Vec<_>>(),
            "trained_on": [json!(version.trained_on.feature_set), json!(version.trained_on.definitions), json!(version.trained_on.training_set)],
            "metrics": version.metrics,
            "scores": format!("{:?}", scores.scores),
        })
    });
    let aliases = record.aliases.iter();
    let aliases =
        aliases.map(|(name, alias)| json!([name, alias.version, alias.since, alias.before]));
    json!({"versions": versions.collect::<Vec<_>>(), "aliases": aliases.collect::<Vec<_>>()})
}
