//! The model in this process, as a device has it: a bundle is taken now and then, and told in between of every fact.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use arrow::array::RecordBatch;
use headwater::{Engine, Env};
use headwater_api::backend::{BundleRequest, EntityRequest, KeyValue};
use headwater_edge::Edge;
use headwater_schema::decode::value_to_json;
use headwater_schema::{FactBatch, Problem, Value};
use serde_json::{Map, Value as Json};

use super::{HOUR, MODEL_NAME};
use crate::failed;

/// How long a bundle is used.
const BUNDLE_AGE: i64 = 30 * 24 * HOUR;
/// Facts of one call.
const CALL_FACTS: usize = 10_000;
/// Keys by which something is known of flights.
const ENTITIES: [&[&str]; 5] = [
    &["tailnum"],
    &["carrier", "origin"],
    &["origin"],
    &["dest"],
    &["origin", "dest"],
];

/// What answers without a server.
pub(super) struct Embedded {
    env: Env,
    /// Whom bundles are made for.
    entities: Vec<EntityRequest>,
    edge: Option<Edge>,
    made_at: i64,
    pub answers: Vec<u64>,
    pub seconds: f64,
    pub bundles: usize,
    pub told: usize,
}

impl Embedded {
    /// For all that the flights name.
    pub fn new(env: &Env, flights: &RecordBatch) -> Self {
        Self {
            env: env.clone(),
            entities: entities(flights),
            edge: None,
            made_at: i64::MIN,
            answers: Vec::new(),
            seconds: 0.0,
            bundles: 0,
            told: 0,
        }
    }

    /// Tells it of facts, in the order in which the engine hears of them.
    pub fn tell(&mut self, facts: &[FactBatch]) -> Result<(), Problem> {
        let Some(edge) = &self.edge else {
            return Ok(());
        };
        for batch in facts {
            for from in (0..batch.len()).step_by(CALL_FACTS) {
                let length = CALL_FACTS.min(batch.len() - from);
                let rows = json_rows(&batch.columns.slice(from, length));
                let added = match edge.add_facts(&batch.contract, rows.as_bytes(), false) {
                    // No feature of the model is made of these.
                    Err(problem) if problem.code == "unknown-contract" => break,
                    added => added?,
                };
                if added.accepted != length {
                    let first = added.rejected.first();
                    return Err(failed(format!("facts told aren't taken: {first:?}")));
                }
                self.told += length;
            }
        }
        Ok(())
    }

    /// Takes a new bundle where the one that is open is old.
    pub fn renew(&mut self, engine: &Engine, now: i64) -> Result<(), Problem> {
        if now < self.made_at.saturating_add(BUNDLE_AGE) {
            return Ok(());
        }
        let request = BundleRequest {
            model: MODEL_NAME.to_owned(),
            version: None,
            feature_set: None,
            entities: self.entities.clone(),
            all_history: false,
        };
        let bytes = engine.bundle(&request)?;
        self.edge = Some(Edge::open_with(self.env.clone(), &bytes, None)?);
        self.made_at = now;
        self.bundles += 1;
        Ok(())
    }

    /// Asks what a server was asked: a request's body, `now` by the clock.
    pub fn ask(&mut self, entities: &Json, context: &Json) -> Result<(), Problem> {
        let edge = self.edge.as_ref();
        let edge = edge.ok_or_else(|| failed("no bundle is open"))?;
        let body = serde_json::json!({"entities": entities, "context": context}).to_string();
        let start = Instant::now();
        let numbers = edge.predict_numbers(&body)?;
        self.seconds += start.elapsed().as_secs_f64();
        self.answers.extend(numbers.iter().map(|n| n.to_bits()));
        Ok(())
    }
}

fn entities(flights: &RecordBatch) -> Vec<EntityRequest> {
    let mut known: BTreeSet<Vec<(&str, String)>> = BTreeSet::new();
    for row in 0..flights.num_rows() {
        let text = |name: &&'static str| {
            let column = flights.column_by_name(name)?;
            match Value::from_array(column, row) {
                Value::String(text) => Some((*name, text.to_string())),
                _ => None,
            }
        };
        known.extend(
            ENTITIES
                .iter()
                .filter_map(|keys| keys.iter().map(text).collect()),
        );
    }
    let request = |keys: Vec<(&str, String)>| -> EntityRequest {
        let keys = keys.into_iter();
        let keys =
            keys.map(|(name, text)| (name.to_owned(), KeyValue::Scalar(Value::string(text))));
        keys.collect()
    };
    known.into_iter().map(request).collect()
}

/// Rows as `POST /v1/facts` takes them.
fn json_rows(columns: &RecordBatch) -> String {
    let schema = columns.schema();
    let row = |row: usize| -> Map<String, Json> {
        let fields = schema.fields().iter().zip(columns.columns());
        let members = fields.map(|(field, column)| {
            let value = Value::from_array(column, row);
            (field.name().clone(), value_to_json(&value))
        });
        members.collect()
    };
    let rows: Vec<Map<String, Json>> = (0..columns.num_rows()).map(row).collect();
    serde_json::to_string(&rows).unwrap_or_default()
}

/// Rows of some columns, as a request names entities or brings its own fields.
pub(super) fn objects(rows: &RecordBatch, names: &[&str]) -> Vec<BTreeMap<String, Json>> {
    let object = |row: usize| {
        let members = names.iter().filter_map(|name| {
            let value = Value::from_array(rows.column_by_name(name)?, row);
            Some((name.to_string(), value_to_json(&value)))
        });
        members.collect()
    };
    (0..rows.num_rows()).map(object).collect()
}
