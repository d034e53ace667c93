//! Features and predictions: the set's rows at a cursor, and what the model makes of them.

use std::sync::{Arc, PoisonError};

use headwater_aggregate::Outcome;
use headwater_facts::PAST_RETENTION;
use headwater_features::{ContextRow, EntityRequest, check_entity_names, entity_key};
use headwater_models::{Encoded, Rows};
use headwater_schema::{Cursor, Micros, Problem, Value};
use headwater_serve::{Explanation, OutputRow};

use crate::Edge;
use crate::limits::ROWS_MAX;

/// An entity of a row that the bundle wasn't made for: of it only facts told here are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotBundled {
    pub row: usize,
    pub entity: Arc<str>,
}

/// Rows of the model's feature set.
#[derive(Debug, Clone)]
pub struct FeatureRows {
    /// Full names, in the order of each row.
    pub names: Arc<[Arc<str>]>,
    pub rows: Vec<Vec<Outcome>>,
    pub as_of: Micros,
    pub not_bundled: Vec<NotBundled>,
}

/// What the model makes of rows.
#[derive(Debug, Clone)]
pub struct Predictions {
    /// One per row.
    pub outputs: Vec<OutputRow>,
    /// The same numbers, one row after another.
    pub numbers: Vec<f64>,
    pub as_of: Micros,
    pub not_bundled: Vec<NotBundled>,
    /// What is wrong though it was answered.
    pub warnings: Vec<String>,
    /// What each input added, one per row; empty unless asked for.
    pub explanations: Vec<Explanation>,
}

impl Edge {
    /// The features of rows of entities at an event time, now by default, and with everything told so far.
    pub fn features(
        &self,
        entities: &[EntityRequest],
        context: &[ContextRow],
        as_of: Option<Micros>,
    ) -> Result<FeatureRows, Problem> {
        Ok(self.read(entities, context, as_of)?.0)
    }

    /// What the model says of rows of entities at an event time, now by default.
    pub fn predict(
        &self,
        entities: &[EntityRequest],
        context: &[ContextRow],
        as_of: Option<Micros>,
    ) -> Result<Predictions, Problem> {
        Ok(self.answer(entities, context, as_of)?.0)
    }

    /// [`Edge::predict`], with what each input added to each score. Refused of models that don't tell.
    pub fn explain(
        &self,
        entities: &[EntityRequest],
        context: &[ContextRow],
        as_of: Option<Micros>,
    ) -> Result<Predictions, Problem> {
        let (mut predictions, inputs) = self.answer(entities, context, as_of)?;
        predictions.explanations = self.scorer.explain(inputs.rows(self.inputs())?)?;
        Ok(predictions)
    }

    /// What the model says, and the inputs that it says it of.
    fn answer(
        &self,
        entities: &[EntityRequest],
        context: &[ContextRow],
        as_of: Option<Micros>,
    ) -> Result<(Predictions, Encoded), Problem> {
        let (features, own) = self.read(entities, context, as_of)?;
        let inputs = self.scorer.encode(&features.rows, &own)?;
        let predicted = self.scorer.predict(inputs.rows(self.inputs())?)?;
        let predictions = Predictions {
            outputs: self.scorer.named(&predicted.outputs),
            numbers: predicted.outputs,
            as_of: features.as_of,
            not_bundled: features.not_bundled,
            warnings: self.scorer.warnings().to_vec(),
            explanations: Vec::new(),
        };
        Ok((predictions, inputs))
    }

    /// What the model says of its own inputs: rows of [`Edge::inputs`] numbers one after another, NaN where one is
    /// missing. Fills `outputs`, which has [`Edge::outputs`] numbers for each row.
    pub fn predict_vectors(&self, numbers: &[f64], outputs: &mut [f64]) -> Result<(), Problem> {
        let rows = Rows::new(numbers, self.inputs())?;
        let predicted = self.scorer.predict(rows)?.outputs;
        if predicted.len() != outputs.len() {
            return Err(
                Problem::user("model-shape", "the place for the answer has another size")
                    .detail(format!(
                        "it holds {} numbers, the answer has {}",
                        outputs.len(),
                        predicted.len()
                    ))
                    .hint("give room for each row's outputs"),
            );
        }
        outputs.copy_from_slice(&predicted);
        Ok(())
    }

    /// Rows of features, and the rows' own fields.
    fn read(
        &self,
        entities: &[EntityRequest],
        context: &[ContextRow],
        as_of: Option<Micros>,
    ) -> Result<(FeatureRows, Vec<Vec<Value>>), Problem> {
        if entities.len() > ROWS_MAX {
            return Err(Problem::user("limit", "too many entities in one request")
                .field("entities")
                .detail(format!("{} of at most {ROWS_MAX}", entities.len()))
                .hint("ask in parts"));
        }
        let as_of = as_of.unwrap_or_else(|| self.env.clock.now());
        let cursor = Cursor::inclusive(as_of).known_at(self.processor.applied());
        let own = self.set.read_context(entities.len(), context)?;
        let width = self.set.features.len();
        let mut rows: Vec<Vec<Option<Outcome>>> = vec![vec![None; width]; entities.len()];
        for reads in &self.views {
            let read = reads.read(&self.processor, entities, &cursor, &mut rows);
            read.map_err(past_bundle)?;
        }
        for (index, asked) in entities.iter().enumerate() {
            check_entity_names(&self.entity_names, asked)
                .map_err(|p| p.field(format!("entities[{index}]")))?;
        }
        let rows = rows.into_iter().map(|row| row.into_iter().flatten());
        let mut rows: Vec<Vec<Outcome>> = rows.map(Iterator::collect).collect();
        self.set.derive(&mut rows, own.clone())?;
        let features = FeatureRows {
            names: self.names.clone(),
            not_bundled: self.not_bundled(entities)?,
            rows,
            as_of,
        };
        Ok((features, own))
    }

    fn not_bundled(&self, entities: &[EntityRequest]) -> Result<Vec<NotBundled>, Problem> {
        let mut missing: Vec<NotBundled> = Vec::new();
        for (row, asked) in entities.iter().enumerate() {
            for reads in &self.views {
                let entity = &reads.plan.view().entity;
                let named = (entity.name.clone(), entity_key(entity, asked)?);
                let told = NotBundled {
                    row,
                    entity: named.0.clone(),
                };
                if !self.entities.contains(&named) && !missing.contains(&told) {
                    missing.push(told);
                }
            }
        }
        Ok(missing)
    }

    /// Facts told here.
    pub(crate) fn local_facts(&self) -> usize {
        let local = self.local.lock().unwrap_or_else(PoisonError::into_inner);
        local.facts
    }
}

/// A read that needs facts which weren't taken along, told as such.
fn past_bundle(problem: Problem) -> Problem {
    if problem.code != PAST_RETENTION {
        return problem;
    }
    Problem::user("past-bundle", "the bundle doesn't reach back that far")
        .detail(problem.detail)
        .hint("ask for a later moment, or make the bundle with `--history all`")
}
