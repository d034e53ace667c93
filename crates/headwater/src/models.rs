//! Models in the engine: where their features come from, where their predictions go, and the verbs for them.

use std::sync::Arc;

use headwater_api::backend::{ContextRow, EntityRequest, Names, NewVersion};
use headwater_env::Env;
use headwater_facts::{AppendRequest, Change};
use headwater_features::Catalog;
use headwater_models::repository::ModelRepository;
use headwater_schema::{Cursor, FactBatch, Problem};
use headwater_serve::{
    FeatureSource, FeaturesRead, PredictReply, PredictRequest, PredictionSink, Serving,
    ServingStats,
};
use headwater_stream::Pipeline;
use serde_json::Value as Json;

use crate::data::DataFolder;
use crate::reader::Reader;
use crate::training_set::feature_definitions;
use crate::{Config, Engine};

/// Features as live reads give them.
struct LiveFeatures {
    env: Env,
    reader: Arc<Reader>,
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
        let plan = self.reader.plan(&Names::Set(set.to_owned()))?;
        let cursor = Cursor::inclusive(as_of).known_at(sequence);
        let rows = self.reader.rows(&plan, entities, context, &cursor)?;
        plan.check_members(entities)?;
        Ok(FeaturesRead {
            rows,
            catalog: plan.catalog.clone(),
            as_of,
            sequence,
        })
    }

    fn catalog(&self) -> Arc<Catalog> {
        self.reader.in_force().catalog().clone()
    }
}

/// The log of facts, as where predictions go.
struct ToTheLog(Arc<Pipeline>);

impl PredictionSink for ToTheLog {
    fn append(&self, batch: FactBatch) -> Result<(), Problem> {
        let request = AppendRequest::new(Change::Append(batch));
        self.0.append(request).map(drop)
    }
}

pub(crate) fn start_serving(
    env: &Env,
    config: &Config,
    data: &DataFolder,
    reader: &Arc<Reader>,
    pipeline: &Arc<Pipeline>,
) -> Result<Serving, Problem> {
    let source = LiveFeatures {
        env: env.clone(),
        reader: reader.clone(),
    };
    Serving::start(
        env,
        config.spec.serving.clone(),
        ModelRepository::new(env.clone(), &data.models()),
        Arc::new(source),
        Arc::new(ToTheLog(pipeline.clone())),
    )
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

    /// What is counted of predictions.
    pub fn serving_stats(&self) -> ServingStats {
        self.serving.stats()
    }
}
