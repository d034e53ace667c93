//! What many rows were scored by: the manifest that lies beside a table of scores.

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::Float64Type;
use headwater_schema::{Micros, Problem, Sequence};
use serde::{Deserialize, Serialize};

use crate::KnownRule;

/// Everything that decides a table of scores.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScoreManifest {
    /// The version of the manifest's own form.
    pub format: u32,
    pub model: String,
    pub version: String,
    /// The SHA-256 of the model's file, and who wrote it, as in `lightgbm`.
    pub file_sha256: String,
    pub model_format: String,
    /// The columns of what the model said, in their order.
    pub outputs: Vec<String>,
    /// What is wrong with the version though it was served.
    pub warnings: Vec<String>,
    /// What the inputs were read by; none where the rows brought them.
    pub features: Option<ScoredFeatures>,
    pub rows: ScoredRows,
    /// Values of each column that was added which are null or NaN.
    pub nulls: BTreeMap<String, usize>,
    pub output: String,
    /// Of the table's bytes.
    pub sha256: String,
}

/// How features of rows were read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScoredFeatures {
    pub feature_set: String,
    /// The columns of features that the table has.
    pub columns: Vec<String>,
    /// The hash of every definition that they stand on, by kind and name.
    pub definitions: BTreeMap<String, String>,
    /// What each input of the model meant, by the name of its feature.
    pub meanings: BTreeMap<String, String>,
    /// The column of the rows' moments; none where all have one.
    pub time: Option<String>,
    /// The one moment of all rows, in microseconds since 1970.
    pub as_of: Option<Micros>,
    pub inclusive: bool,
    pub known_at: KnownRule,
    /// The first and the last sequence of the facts that could be seen.
    pub facts: (Sequence, Sequence),
}

/// The rows that were scored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScoredRows {
    pub count: usize,
    pub columns: Vec<String>,
    pub sha256: String,
}

impl ScoreManifest {
    pub const FORMAT: u32 = 1;

    /// The columns that the table has beside those of the rows.
    pub fn added(&self) -> impl Iterator<Item = &String> {
        let features = self.features.iter().flat_map(|f| &f.columns);
        features.chain(&self.outputs)
    }

    /// With what is known at the end: the number of rows, how many values of each added column are missing, and the
    /// SHA-256 of the table's bytes.
    pub fn finish(mut self, rows: usize, missing: Vec<usize>, sha256: String) -> Self {
        self.nulls = self.added().cloned().zip(missing).collect();
        self.rows.count = rows;
        self.sha256 = sha256;
        self
    }

    pub fn to_text(&self) -> Result<String, Problem> {
        serde_json::to_string_pretty(self)
            .map_err(|e| Problem::internal("manifest", "a manifest can't be written").detail(e))
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Problem> {
        let wrong = |detail: String| {
            Problem::user("invalid-manifest", "the manifest of scores can't be read").detail(detail)
        };
        let read: Self = serde_json::from_slice(bytes).map_err(|e| wrong(e.to_string()))?;
        match read.format {
            Self::FORMAT => Ok(read),
            other => Err(wrong(format!(
                "its format is {other}, this version reads {}",
                Self::FORMAT
            ))),
        }
    }
}

/// How many values of a column are null or NaN.
pub fn missing_values(column: &ArrayRef) -> usize {
    let floats = column.as_primitive_opt::<Float64Type>();
    let nans = floats.map_or(0, |f| f.iter().flatten().filter(|v| v.is_nan()).count());
    column.null_count() + nans
}
