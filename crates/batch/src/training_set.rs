//! What a training set is made by, and the manifest by which it can be made again bit for bit.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use headwater_env::{FileError, ReadFile};
use headwater_facts::FactLog;
use headwater_schema::decode::BodyFormat;
use headwater_schema::{Micros, Position, Problem, Sequence};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Facts read from the log at a time.
const READ_FACTS: usize = 8192;
/// Bytes of a file that are hashed at a time.
const PIECE_BYTES: usize = 256 * 1024;

/// How much of the log every row may know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KnownRule {
    /// Everything up to the manifest's last sequence.
    Everything,
    /// What had arrived by the row's own time.
    AsOfArrival,
    /// As the row's column `known_at` says.
    Column,
}

/// A spine that was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpineRead {
    pub rows: usize,
    pub columns: Vec<String>,
    pub sha256: String,
    pub time: String,
}

/// Everything that decides the bytes of a training set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The version of the manifest's own form.
    pub format: u32,
    pub feature_set: Option<String>,
    /// Full names, in the order of the columns.
    pub features: Vec<String>,
    /// The names of the labels, in the order of the columns.
    #[serde(default)]
    pub labels: Vec<String>,
    /// When the labels were looked at, in microseconds since 1970; none where there are none.
    #[serde(default)]
    pub labels_as_of: Option<Micros>,
    /// The hash of every definition that the features stand on, by kind and name.
    pub definitions: BTreeMap<String, String>,
    pub inclusive: bool,
    pub known_at: KnownRule,
    /// The first and the last sequence of the facts that could be seen.
    pub facts: (Sequence, Sequence),
    pub spine: SpineRead,
    /// Values of each feature and label that are null.
    pub nulls: BTreeMap<String, usize>,
    pub output: String,
    /// Of the table's bytes.
    pub sha256: String,
}

impl Manifest {
    /// The first had no labels.
    pub const FORMAT: u32 = 2;

    /// With how many values of each column that was added are null, and the SHA-256 of the table's bytes.
    pub fn finish(self, nulls: Vec<usize>, sha256: String) -> Self {
        let names = self.features.iter().chain(&self.labels).cloned();
        Self {
            nulls: names.zip(nulls).collect(),
            sha256,
            ..self
        }
    }

    pub fn to_text(&self) -> Result<String, Problem> {
        serde_json::to_string_pretty(self)
            .map_err(|e| Problem::internal("manifest", "a manifest can't be written").detail(e))
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Problem> {
        let wrong = |detail: String| {
            Problem::user("invalid-manifest", "the manifest can't be read")
                .detail(detail)
                .hint("give the file that lies beside a training set, `….manifest.json`")
        };
        let read: Self = serde_json::from_slice(bytes).map_err(|e| wrong(e.to_string()))?;
        match read.format {
            1..=Self::FORMAT => Ok(read),
            other => Err(wrong(format!(
                "its format is {other}, this version reads 1 to {}",
                Self::FORMAT
            ))),
        }
    }
}

/// The SHA-256 of a file's bytes, as text.
pub fn sha256_of(file: &dyn ReadFile) -> Result<String, FileError> {
    let (mut hash, mut at, length) = (Sha256::new(), 0, file.length()?);
    let mut piece = vec![0; PIECE_BYTES];
    while at < length {
        let bytes = (length - at).min(PIECE_BYTES as u64) as usize;
        file.read_at(at, &mut piece[..bytes])?;
        hash.update(&piece[..bytes]);
        at += bytes as u64;
    }
    Ok(hex(&hash.finalize()))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The places of facts in the total order, found in one pass over the log; of a fact that was revised, the
/// newest. A fact that isn't there is refused by name.
pub fn fact_positions(
    facts: &dyn FactLog,
    wanted: &BTreeSet<(String, String)>,
    end: Sequence,
) -> Result<HashMap<(String, String), Position>, Problem> {
    let mut found = HashMap::with_capacity(wanted.len());
    let mut next = facts.first_sequence();
    while next <= end && !wanted.is_empty() {
        let batches = facts.read(next, READ_FACTS)?;
        let Some(last) = batches.last() else { break };
        next = last.last_sequence() + 1;
        for batch in &batches {
            let times: &[Micros] = &batch.batch.event_times;
            for (row, time) in times.iter().enumerate() {
                let sequence = batch.first_sequence + row as Sequence;
                let id = match &batch.batch.fact_ids {
                    Some(ids) => ids.value(row).to_owned(),
                    None => sequence.to_string(),
                };
                let fact = (batch.batch.contract.to_string(), id);
                if sequence <= end && wanted.contains(&fact) {
                    found.insert(fact, Position::new(*time, sequence));
                }
            }
        }
    }
    match wanted.iter().find(|fact| !found.contains_key(*fact)) {
        None => Ok(found),
        Some((contract, id)) => Err(Problem::user(
            "unknown-fact",
            format!("there is no fact `{id}` of `{contract}`"),
        )
        .field("fact_id")
        .hint("ids are as `headwater facts get` lists them")),
    }
}

/// The media types and endings that spines may have.
pub fn spine_format(extension: &str) -> Result<BodyFormat, Problem> {
    BodyFormat::from_extension(extension).ok_or_else(|| {
        Problem::user(
            "unsupported-format",
            format!("a spine isn't read from files that end in `{extension}`"),
        )
        .hint("give .parquet, .arrow, .csv or .ndjson")
    })
}
