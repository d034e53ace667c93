//! What the protocol tells of models: metadata, configurations, readiness, the repository's index, statistics.

use headwater_schema::{Blame, Micros, Problem};
use schemars::JsonSchema;
use serde::Serialize;

use super::SERVER;
use crate::backend::{Signature, VersionCounts};
use crate::server::Shared;

/// A model's metadata.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Metadata {
    pub name: String,
    /// Those that can be asked.
    pub versions: Vec<String>,
    /// Who wrote the model file, after `headwater_`.
    pub platform: String,
    pub inputs: Vec<TensorMetadata>,
    pub outputs: Vec<TensorMetadata>,
}

/// A tensor's name, type and shape; -1 is any number of rows.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct TensorMetadata {
    pub name: String,
    pub datatype: &'static str,
    pub shape: [i64; 2],
}

pub(crate) fn metadata(signature: &Signature) -> Metadata {
    let tensor = |name: &str, datatype, width: usize| TensorMetadata {
        name: name.to_owned(),
        datatype,
        shape: [-1, i64::try_from(width).unwrap_or(i64::MAX)],
    };
    let inputs = signature.inputs.iter().map(|input| {
        let datatype = if input.is_text { "BYTES" } else { "FP64" };
        tensor(&input.name, datatype, 1)
    });
    let outputs = signature.outputs.iter();
    let outputs = outputs.map(|(name, width)| tensor(name, "FP64", *width));
    Metadata {
        name: signature.model.clone(),
        versions: signature.versions.clone(),
        platform: format!("headwater_{}", signature.format),
        inputs: inputs.collect(),
        outputs: outputs.collect(),
    }
}

/// A model's configuration, as Triton's clients ask for it: what of it has a meaning here.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Config {
    pub name: String,
    /// Who wrote the model file, after `headwater_`.
    pub platform: String,
    pub backend: &'static str,
    /// Rows of one request, at most.
    pub max_batch_size: usize,
    pub input: Vec<ConfigTensor>,
    pub output: Vec<ConfigTensor>,
}

/// A tensor's name, type and shape without the rows.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ConfigTensor {
    pub name: String,
    /// `TYPE_FP64` or `TYPE_STRING`.
    pub data_type: &'static str,
    pub dims: [i64; 1],
}

pub(crate) fn config(signature: &Signature, rows_max: usize) -> Config {
    let told = metadata(signature);
    let tensors = |tensors: Vec<TensorMetadata>| {
        let tensor = |tensor: TensorMetadata| ConfigTensor {
            name: tensor.name,
            data_type: match tensor.datatype {
                "BYTES" => "TYPE_STRING",
                _ => "TYPE_FP64",
            },
            dims: [tensor.shape[1]],
        };
        tensors.into_iter().map(tensor).collect()
    };
    Config {
        name: told.name,
        platform: told.platform,
        backend: SERVER,
        max_batch_size: rows_max.min(signature.rows_max),
        input: tensors(told.inputs),
        output: tensors(told.outputs),
    }
}

/// Whether a version can be asked; a problem where there is no such model or version.
pub(crate) fn is_ready(
    shared: &Shared,
    model: &str,
    version: Option<&str>,
) -> Result<bool, Problem> {
    match shared.backend.signature(model, version) {
        Ok(_) => Ok(true),
        Err(problem) if problem.blame == Blame::External => Ok(false),
        Err(problem) if problem.code == "version-not-loaded" => Ok(false),
        Err(problem) => Err(problem),
    }
}

/// A version of the repository's index.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct IndexEntry {
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(default)]
    pub version: Option<String>,
    /// `READY` or `UNAVAILABLE`.
    pub state: &'static str,
    pub reason: String,
}

pub(crate) fn index(shared: &Shared, ready_alone: bool) -> Vec<IndexEntry> {
    let all = shared.backend.model_index().into_iter();
    let entries = all.map(|entry| IndexEntry {
        name: entry.model,
        version: entry.version,
        state: match entry.unavailable {
            None => "READY",
            Some(_) => "UNAVAILABLE",
        },
        reason: entry.unavailable.unwrap_or_default(),
    });
    entries
        .filter(|e| !ready_alone || e.state == "READY")
        .collect()
}

/// What is counted, of one model or of all, of one version or of all.
pub(crate) fn stats(
    shared: &Shared,
    model: Option<&str>,
    version: Option<&str>,
) -> Result<Vec<ModelStatistics>, Problem> {
    // An alias stands for its version.
    let named = match (model, version) {
        (Some(model), Some(version)) => {
            Some(shared.backend.signature(model, Some(version))?.version)
        }
        (Some(model), None) => {
            shared.backend.models(Some(model))?;
            None
        }
        _ => None,
    };
    let mut all = Vec::new();
    for of in shared.backend.model_stats() {
        if model.is_some_and(|m| m != of.model) {
            continue;
        }
        let versions = of.versions.iter();
        let wanted = versions.filter(|(name, _)| named.as_ref().is_none_or(|v| v == *name));
        all.extend(wanted.map(|(name, counts)| ModelStatistics::of(&of.model, name, counts)));
    }
    Ok(all)
}

/// How often, and how long altogether.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(crate) struct Duration {
    pub count: u64,
    pub ns: u64,
}

/// Where the time of inferences went.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(crate) struct InferStatistics {
    pub success: Duration,
    pub fail: Duration,
    pub queue: Duration,
    pub compute_input: Duration,
    pub compute_infer: Duration,
    pub compute_output: Duration,
    pub cache_hit: Duration,
    pub cache_miss: Duration,
}

/// What is counted of a version since the server started.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ModelStatistics {
    pub name: String,
    pub version: String,
    /// Milliseconds since 1970; 0 before the first.
    pub last_inference: u64,
    /// Rows.
    pub inference_count: u64,
    /// Requests.
    pub execution_count: u64,
    pub inference_stats: InferStatistics,
    /// Always empty: a request's rows are scored by themselves.
    pub batch_stats: Vec<Duration>,
}

impl ModelStatistics {
    fn of(model: &str, version: &str, stats: &VersionCounts) -> Self {
        let requests = |nanos| Duration {
            count: stats.requests,
            ns: nanos,
        };
        let waited = stats
            .took_nanos
            .saturating_sub(stats.features_nanos)
            .saturating_sub(stats.scoring_nanos);
        Self {
            last_inference: millis(stats.last),
            inference_count: stats.rows,
            execution_count: stats.requests,
            inference_stats: InferStatistics {
                success: requests(stats.took_nanos),
                fail: Duration {
                    count: stats.failed,
                    ns: stats.failed_nanos,
                },
                queue: requests(waited),
                compute_input: requests(stats.features_nanos),
                compute_infer: requests(stats.scoring_nanos),
                compute_output: requests(0),
                ..InferStatistics::default()
            },
            batch_stats: Vec::new(),
            name: model.to_owned(),
            version: version.to_owned(),
        }
    }
}

fn millis(micros: Micros) -> u64 {
    u64::try_from(micros / 1000).unwrap_or(0)
}
