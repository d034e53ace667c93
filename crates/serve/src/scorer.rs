//! One version of a model for whoever has rows and no server: bound to definitions, it scores on the caller's thread by
//! the code that serves requests.

use std::sync::Arc;

use headwater_features::{Catalog, Outcome};
use headwater_models::repository::VersionRecord;
use headwater_models::{Encoded, ModelContract, Prediction, Rows};
use headwater_schema::{Problem, Value};

use crate::bind::Binding;
use crate::loaded::{Version, read};
use crate::predict::explain;
use crate::rows::encode_features;
use crate::{Explanation, OutputRow};

/// A version that scores rows of its set.
pub struct Scorer {
    version: Version,
    binding: Arc<Binding>,
}

impl Scorer {
    /// Reads the version's file and binds it to the model of that name in a catalog. Refused where its features mean
    /// something else than in its training and the model says so.
    pub fn new(
        catalog: &Arc<Catalog>,
        model: &str,
        record: VersionRecord,
        file: &[u8],
    ) -> Result<Self, Problem> {
        let predictor = read(file, Some(record.model_format.as_str()))?;
        let version = Version::new(0, record, predictor);
        let binding = version.binding(catalog, model)?;
        match &binding.refused {
            Some(problem) => Err(problem.clone()),
            None => Ok(Self { version, binding }),
        }
    }

    /// What the version takes and answers.
    pub fn contract(&self) -> &ModelContract {
        self.version.predictor.contract()
    }

    pub fn record(&self) -> &VersionRecord {
        &self.version.record
    }

    /// What is to be told with every answer.
    pub fn warnings(&self) -> &[String] {
        &self.binding.warnings
    }

    /// The version's inputs of rows of its set, one row after another. `context` are the rows' own fields.
    pub fn encode(
        &self,
        rows: &[Vec<Outcome>],
        context: &[Vec<Value>],
    ) -> Result<Encoded, Problem> {
        let all: Vec<usize> = (0..rows.len()).collect();
        encode_features(self.contract(), &self.binding, rows, context, &all)
    }

    /// Scores and outputs of rows of inputs.
    pub fn predict(&self, rows: Rows<'_>) -> Result<Prediction, Problem> {
        self.version.predictor.predict(rows)
    }

    /// What each of the inputs added to each score. Refused of models that don't tell.
    pub fn explain(&self, rows: Rows<'_>) -> Result<Vec<Explanation>, Problem> {
        explain(&self.version, rows)
    }

    /// The outputs of rows, by name.
    pub fn named(&self, outputs: &[f64]) -> Vec<OutputRow> {
        let rows = outputs.chunks_exact(self.contract().output_width().max(1));
        rows.map(|row| self.version.output_row(row)).collect()
    }
}
