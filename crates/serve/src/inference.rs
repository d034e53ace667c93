//! Models as those see them who bring a model's inputs themselves: what a version takes and answers, what is loaded,
//! and models loaded and let go.

use std::sync::{Arc, PoisonError};

use headwater_models::Input;
use headwater_schema::Problem;

use crate::Serving;
use crate::loaded::Version;

/// What a version takes and answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    pub model: String,
    pub version: String,
    /// Versions of the model that can be asked.
    pub versions: Vec<String>,
    /// Who wrote the model file, as in `lightgbm`.
    pub format: String,
    /// In the model's order.
    pub inputs: Vec<SignatureInput>,
    /// Names, and how many numbers each has in a row.
    pub outputs: Vec<(String, usize)>,
    /// Rows that one request may have.
    pub rows_max: usize,
}

/// An input of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureInput {
    pub name: String,
    /// Whether it is a text or a category by its name, rather than a number.
    pub is_text: bool,
}

impl SignatureInput {
    pub(crate) fn of(input: &Input) -> Self {
        Self {
            name: input.name.clone(),
            is_text: input.is_text(),
        }
    }
}

/// A version that an alias points at, or a model without one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexedVersion {
    pub model: String,
    pub version: Option<String>,
    /// Why it can't be asked.
    pub unavailable: Option<String>,
}

impl Serving {
    /// What a version takes and answers, if it can be asked now; `live` where none is named.
    pub fn signature(&self, model: &str, version: Option<&str>) -> Result<Signature, Problem> {
        let core = &self.core;
        core.source.catalog().model(model)?;
        let served = core.served(model)?;
        let version = served.version(version)?;
        self.servable(model, &version)?;
        let contract = version.predictor.contract();
        let inputs = contract.inputs.iter().map(SignatureInput::of);
        let loaded = served
            .versions
            .iter()
            .filter(|(_, v)| v.as_ref().is_ok_and(|v| self.servable(model, v).is_ok()));
        let outputs = contract.outputs.iter().map(|o| (o.name.clone(), o.width));
        Ok(Signature {
            model: model.to_owned(),
            version: version.name.to_string(),
            versions: loaded.map(|(name, _)| name.clone()).collect(),
            format: version.record.model_format.clone(),
            inputs: inputs.collect(),
            outputs: outputs.collect(),
            rows_max: core.settings.rows_max,
        })
    }

    /// Refuses a version that isn't served under the definitions in force.
    fn servable(&self, model: &str, version: &Arc<Version>) -> Result<(), Problem> {
        let binding = version.binding(&self.core.source.catalog(), model)?;
        match &binding.refused {
            Some(problem) => Err(problem.clone()),
            None => Ok(()),
        }
    }

    /// Every model that is declared, with each version that is loaded or should be.
    pub fn index(&self) -> Vec<IndexedVersion> {
        let catalog = self.core.source.catalog();
        let mut index = Vec::new();
        for model in catalog.models() {
            let name = model.name.to_string();
            let served = self.core.served(&model.name);
            let versions = served.as_ref().map(|s| s.versions.iter());
            let before = index.len();
            for (version, loaded) in versions.into_iter().flatten() {
                let servable = loaded.as_ref().map_err(Clone::clone);
                let servable = servable.and_then(|v| self.servable(&name, v));
                index.push(IndexedVersion {
                    model: name.clone(),
                    version: Some(version.clone()),
                    unavailable: servable.err().map(|p| p.to_string()),
                });
            }
            if index.len() == before {
                index.push(IndexedVersion {
                    model: name,
                    version: None,
                    unavailable: Some("no version is loaded".to_owned()),
                });
            }
        }
        index
    }

    /// Loads the versions that a model's aliases point at, where they aren't; refuses unless `live` can be asked then.
    pub fn load_model(&self, model: &str) -> Result<(), Problem> {
        let core = &self.core;
        core.source.catalog().model(model)?;
        let changing = core.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let record = core.repository.record(model)?;
        self.replace(model, record, None)?;
        drop(changing);
        self.signature(model, None).map(drop)
    }

    /// Lets a model's versions go: until it is loaded, a version is promoted, definitions are applied or the server
    /// starts again, nothing but its fallback is answered. What was counted and remembered of it stays.
    pub fn unload_model(&self, model: &str) -> Result<(), Problem> {
        let core = &self.core;
        core.source.catalog().model(model)?;
        let _changing = core.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut models = core.models.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(served) = models.get_mut(model) {
            *served = Arc::new(served.unload());
        }
        Ok(())
    }
}
