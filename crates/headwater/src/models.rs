//! Models in the engine: where their features come from, where their predictions go, and the verbs for them.

use std::sync::Arc;

use headwater_api::backend::{ContextRow, EntityRequest, Names, NewVersion};
use headwater_env::Env;
use headwater_facts::{AppendRequest, Change, FactLog};
use headwater_features::{Catalog, Model};
use headwater_models::repository::ModelRepository;
use headwater_schema::{Cursor, FactBatch, Problem, Sequence};
use headwater_serve::{
    FeatureSource, FeaturesRead, Positions, PredictReply, PredictRequest, PredictionSink, Serving,
    ServingSettings, ServingStats,
};
use headwater_stream::{Pipeline, Processor};
use serde_json::Value as Json;
use tokio::sync::watch;

use crate::data::DataFolder;
use crate::reader::Reader;
use crate::training_set::feature_definitions;
use crate::webhooks::{Source, Webhooks};
use crate::{Config, Engine, WebhookSettings};

/// Models that are named where there are too many.
const NAMED_MAX: usize = 5;

/// Features as live reads give them.
struct LiveFeatures {
    env: Env,
    reader: Arc<Reader>,
    processor: Arc<Processor>,
}

impl FeatureSource for LiveFeatures {
    fn read(
        &self,
        set: &str,
        entities: &[EntityRequest],
        context: &[ContextRow],
    ) -> Result<FeaturesRead, Problem> {
        let sequence = self.reader.known_at(None)?;
        let as_of = self.env.clock.now();
        let cursor = Cursor::inclusive(as_of).known_at(sequence);
        self.read_at(set, entities, context, &cursor)
    }

    fn read_at(
        &self,
        set: &str,
        entities: &[EntityRequest],
        context: &[ContextRow],
        cursor: &Cursor,
    ) -> Result<FeaturesRead, Problem> {
        let cursor = cursor.known_at(cursor.known_at.min(self.applied()));
        let plan = self.reader.plan(&Names::Set(set.to_owned()))?;
        let rows = self.reader.rows(&plan, entities, context, &cursor)?;
        plan.check_members(entities)?;
        Ok(FeaturesRead {
            rows,
            catalog: plan.catalog.clone(),
            as_of: cursor.as_of,
            sequence: cursor.known_at,
        })
    }

    fn applied(&self) -> Sequence {
        self.processor.applied()
    }

    fn catalog(&self) -> Arc<Catalog> {
        self.reader.in_force().catalog().clone()
    }
}

/// The log of facts, as where predictions go.
struct ToTheLog {
    pipeline: Arc<Pipeline>,
    facts: Arc<dyn FactLog>,
}

impl PredictionSink for ToTheLog {
    fn append(&self, batch: FactBatch) -> Result<usize, Problem> {
        let request = AppendRequest::new(Change::Append(batch));
        let appended = self.pipeline.append(request)?;
        Ok(appended.batch.map_or(0, |batch| batch.len()))
    }

    fn sync(&self) -> Result<(), Problem> {
        self.facts.sync()
    }
}

/// What serving stands on.
pub(crate) struct Stores {
    pub facts: Arc<dyn FactLog>,
    pub processor: Arc<Processor>,
    pub reader: Arc<Reader>,
    pub pipeline: Arc<Pipeline>,
}

impl Stores {
    pub fn new(
        facts: Arc<dyn FactLog>,
        processor: &Arc<Processor>,
        reader: &Arc<Reader>,
        pipeline: &Arc<Pipeline>,
    ) -> Self {
        Self {
            facts,
            processor: processor.clone(),
            reader: reader.clone(),
            pipeline: pipeline.clone(),
        }
    }
}

pub(crate) fn start_serving(
    env: &Env,
    config: &Config,
    data: &DataFolder,
    stores: &Stores,
) -> Result<Serving, Problem> {
    let source = LiveFeatures {
        env: env.clone(),
        reader: stores.reader.clone(),
        processor: stores.processor.clone(),
    };
    let sink = ToTheLog {
        pipeline: stores.pipeline.clone(),
        facts: stores.facts.clone(),
    };
    let serving = Serving::start(
        env,
        config.spec.serving.clone(),
        ModelRepository::new(env.clone(), &data.models()),
        Arc::new(source),
        Arc::new(sink),
    )?;
    let positions = Positions::new(env, &data.positions());
    serving.stream(stores.facts.clone(), positions);
    Ok(serving)
}

/// Starts what posts predictions to servers, and lets all who wait for facts hear of them. What hears of them.
pub(crate) fn start_telling(
    env: &Env,
    config: &Config,
    data: &DataFolder,
    stores: &Stores,
    serving: &Serving,
) -> (Arc<Webhooks>, watch::Sender<Sequence>) {
    let webhooks = Webhooks::new(Source {
        env: env.clone(),
        settings: config.spec.webhooks.clone(),
        facts: stores.facts.clone(),
        processor: stores.processor.clone(),
        reader: stores.reader.clone(),
        positions: Positions::new(env, &data.positions()),
    });
    let webhooks = Arc::new(webhooks);
    let (told, _) = watch::channel(stores.processor.applied());
    let (wake_streams, hooks) = (serving.waker(), Arc::downgrade(&webhooks));
    let (tell, processor) = (told.clone(), Arc::downgrade(&stores.processor));
    stores.pipeline.listen(Box::new(move || {
        wake_streams();
        if let Some(hooks) = hooks.upgrade() {
            hooks.wake();
        }
        if let Some(processor) = processor.upgrade() {
            tell.send_replace(processor.applied());
        }
    }));
    (webhooks, told)
}

/// Refuses definitions with more models that score arriving facts, or are posted to a server, than have a thread.
pub(crate) fn too_many(
    catalog: &Catalog,
    serving: &ServingSettings,
    webhooks: &WebhookSettings,
) -> Vec<Problem> {
    let refuse = |what: &str, which: fn(&Model) -> bool, most: usize, setting: &str| {
        let named = catalog.models().filter(|model| which(model));
        let named: Vec<&str> = named.map(|model| model.name.as_ref()).collect();
        let over = named.get(most..).filter(|over| !over.is_empty())?;
        let shown = over[..over.len().min(NAMED_MAX)].join("`, `");
        let more = if over.len() > NAMED_MAX { ", …" } else { "" };
        let problem = Problem::user("limit", format!("too many models {what}"))
            .detail(format!(
                "{} of at most {most}; beyond them `{shown}`{more}",
                named.len()
            ))
            .hint(format!("declare fewer, or raise `{setting}`"));
        Some(problem)
    };
    let streams = refuse(
        "score facts as they arrive",
        |model| model.on.is_some(),
        serving.stream_models_max,
        "serving.stream_models_max",
    );
    let hooks = refuse(
        "have a webhook",
        |model| model.webhook.is_some(),
        webhooks.models_max,
        "webhooks.models_max",
    );
    streams.into_iter().chain(hooks).collect()
}

impl Engine {
    /// Asks a model and waits, at most until the deadline.
    pub fn predict(&self, request: PredictRequest) -> Result<Arc<PredictReply>, Problem> {
        self.serving.predict(request)
    }

    /// The versions and aliases of one model, or of all.
    pub fn models(&self, model: Option<&str>) -> Result<Json, Problem> {
        match model {
            Some(model) => self.serving.describe(model),
            None => self.serving.list(),
        }
    }

    /// Adds a version of a model, once its file has been read and tried and its inputs found.
    pub fn add_model(
        &self,
        model: &str,
        file: Vec<u8>,
        version: &NewVersion,
    ) -> Result<Json, Problem> {
        let catalog = self.catalog();
        let set = catalog.model(model)?.set.name.to_string();
        let names = Names::Set(set);
        let (_, registry) = self.reader.definitions();
        let plan = self.reader.plan(&names)?;
        let definitions = feature_definitions(&registry, &plan, &names);
        self.serving.add(model, file, version, definitions)
    }

    /// Lets an alias of a model point at a version, while requests are answered.
    pub fn promote(&self, model: &str, alias: &str, version: &str) -> Result<Json, Problem> {
        self.serving.promote(model, alias, version)
    }

    /// Lets an alias of a model point where it pointed before.
    pub fn rollback(&self, model: &str, alias: &str) -> Result<Json, Problem> {
        self.serving.rollback(model, alias)
    }

    /// Lets go of a version of a model that no alias points at.
    pub fn remove_version(&self, model: &str, version: &str) -> Result<Json, Problem> {
        self.serving.remove(model, version)
    }

    /// What is counted of predictions.
    pub fn serving_stats(&self) -> ServingStats {
        self.serving.stats()
    }
}
