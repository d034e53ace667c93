//! The models of a catalog, and the built-in contracts that come with them.

use std::sync::Arc;

use headwater_schema::Problem;
use headwater_schema::yaml::YamlDocument;

use super::{Catalog, clash, unknown};
use crate::built_in::contracts;
use crate::definition::{self, Definition};
use crate::model::{Model, ModelSpec, compile_model};

impl Catalog {
    /// Predictions and outcomes are facts wherever there are models.
    pub(super) fn add_built_in(&mut self) {
        let contracts = contracts().iter();
        self.contracts
            .extend(contracts.map(|c| (c.name.to_string(), c.clone())));
    }

    pub(super) fn add_model(&mut self, document: &YamlDocument) -> Result<(), Problem> {
        let definition: Definition<ModelSpec> = definition::read(document)?;
        if self.models.contains_key(&definition.name) {
            return Err(clash("model", &definition.name, document));
        }
        let model = compile_model(self, document, &definition)?;
        self.models.insert(definition.name, Arc::new(model));
        Ok(())
    }

    pub fn models(&self) -> impl Iterator<Item = &Arc<Model>> {
        self.models.values()
    }

    /// A model, or the problem that there is none.
    pub fn model(&self, name: &str) -> Result<&Arc<Model>, Problem> {
        let names = self.models.keys().map(String::as_str);
        self.models
            .get(name)
            .ok_or_else(|| unknown("model", "model", name, names))
    }
}
