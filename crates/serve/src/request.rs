//! What is asked of a model and what is answered, in plain types; and where features come from.

use std::collections::BTreeMap;
use std::sync::Arc;

use headwater_features::{Catalog, ContextRow, EntityRequest, Outcome};
use headwater_schema::{Cursor, Micros, Problem, Sequence, Value};

/// Gives features at one cursor: now, and everything acknowledged.
pub trait FeatureSource: Send + Sync {
    /// The rows of a set, one for each of `entities`.
    fn read(
        &self,
        set: &str,
        entities: &[EntityRequest],
        context: &[ContextRow],
    ) -> Result<FeaturesRead, Problem>;

    /// The same, at a cursor that isn't now; one that knows more than there is knows all there is.
    fn read_at(
        &self,
        set: &str,
        entities: &[EntityRequest],
        context: &[ContextRow],
        cursor: &Cursor,
    ) -> Result<FeaturesRead, Problem>;

    /// The last sequence that a read sees.
    fn applied(&self) -> Sequence;

    /// The definitions in force.
    fn catalog(&self) -> Arc<Catalog>;
}

/// Features, the cursor they were read at, and the definitions that say what they mean.
pub struct FeaturesRead {
    pub catalog: Arc<Catalog>,
    pub rows: Vec<Vec<Outcome>>,
    pub as_of: Micros,
    pub sequence: Sequence,
}

/// One request: rows for one model.
#[derive(Debug, Clone, Default)]
pub struct PredictRequest {
    pub model: String,
    /// An alias or a version; `live` by default.
    pub version: Option<String>,
    pub rows: InputRows,
    pub deadline: Option<Micros>,
    pub explain: bool,
    /// The id that the request itself is known by.
    pub request_id: String,
    /// Where features are read; now, and everything acknowledged, by default.
    pub cursor: Option<Cursor>,
}

/// What rows are made of.
#[derive(Debug, Clone)]
pub enum InputRows {
    /// Features of entities, with the request's own fields: none, or one object per row.
    Entities {
        entities: Vec<EntityRequest>,
        context: Vec<ContextRow>,
        /// The ids that stand in, one after another, for one entity of the only row.
        candidates: Option<Candidates>,
    },
    /// The model's own inputs, in its order.
    Vectors(Vec<Vec<Value>>),
    /// The model's own inputs by their names, in any order: one value for each name in each row.
    Named {
        names: Vec<String>,
        rows: Vec<Vec<Value>>,
    },
}

impl Default for InputRows {
    fn default() -> Self {
        Self::Vectors(Vec::new())
    }
}

/// Things to score for one and the same request.
#[derive(Debug, Clone)]
pub struct Candidates {
    pub entity: String,
    pub ids: Vec<headwater_features::KeyValue>,
}

/// The answer to a request.
#[derive(Debug, Clone)]
pub struct PredictReply {
    /// One per row.
    pub prediction_ids: Vec<String>,
    pub model: Arc<str>,
    /// The version that answered; none where none did, or several.
    pub version: Option<Arc<str>>,
    /// Who answered each row; empty where none did.
    pub answered_by: Vec<Arc<AnsweredBy>>,
    /// One per row.
    pub outputs: Vec<OutputRow>,
    /// One per row, where they were asked for and can be had.
    pub explanations: Vec<Explanation>,
    pub degraded: Option<Degraded>,
    /// What is wrong though it was answered.
    pub warnings: Vec<String>,
    /// The cursor, where features were read.
    pub cursor: Option<(Micros, Sequence)>,
}

/// Who answered a row.
#[derive(Debug, Clone, PartialEq)]
pub struct AnsweredBy {
    /// The alias that the row fell to, or the version that the request named.
    pub alias: Arc<str>,
    pub version: Arc<str>,
    /// The experiment whose arm the alias is.
    pub experiment: Option<Arc<str>>,
    /// How likely the row was to fall to it.
    pub propensity: f64,
}

/// Numbers by the names of the model's outputs.
pub type OutputRow = Vec<(Arc<str>, Vec<f64>)>;

/// What each input added to each raw score of a row.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Explanation {
    /// For each score: what each input added, and what the model says without any.
    pub scores: Vec<(BTreeMap<Arc<str>, f64>, f64)>,
}

/// Why a fallback was answered, and which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Degraded {
    /// The code of what went wrong: `deadline`, `overloaded`, or a problem's.
    pub reason: String,
    pub detail: String,
    /// `last_good`, `alias` or `constant`.
    pub fallback: &'static str,
}

/// A prediction that is being made.
pub trait Pending: Send + Sync {
    /// How long its caller should wait.
    fn wait(&self) -> std::time::Duration;

    /// Ends it: whoever asked hears the fallback, or why there is none, unless it has been answered already.
    fn give_up(&self);
}
