//! The body of an inference over HTTP: JSON, with raw tensors behind it where the request says how long the JSON is.

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::http::HeaderMap;
use headwater_schema::{Micros, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use super::answer::{OutputData, OutputTensor};
use super::tensor::{Head, Tensor};
use crate::body::read_json;
use crate::error::{ApiError, malformed};
use crate::limits::Limits;

/// Says how long the JSON before raw tensors is.
pub(crate) const HEADER_LENGTH: &str = "inference-header-content-length";

type Parameters = BTreeMap<String, Json>;

/// An inference.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct InferBody {
    /// KServe's clients say again what the path says.
    #[serde(default)]
    model_name: Option<String>,
    #[serde(default)]
    model_version: Option<String>,
    /// Given back as it is.
    #[serde(default)]
    pub id: Option<String>,
    /// `binary_data_output`: answer with raw tensors; `timeout`: the deadline in microseconds.
    #[serde(default)]
    parameters: Option<Parameters>,
    /// One tensor of rows and columns with all inputs in the model's order, or a column for each input.
    inputs: Vec<InputBody>,
    /// The outputs to answer with; all of the model's by default.
    #[serde(default)]
    outputs: Option<Vec<OutputBody>>,
}

/// A tensor of a request.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct InputBody {
    name: String,
    shape: Vec<i64>,
    /// `BOOL`, `UINT8`, … `FP64`, `BYTES`.
    datatype: String,
    /// `binary_data_size`: the tensor is that many of the bytes behind the JSON.
    #[serde(default)]
    parameters: Option<Parameters>,
    /// The elements, flat or nested.
    #[serde(default)]
    data: Option<Json>,
}

/// An output that is asked for.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OutputBody {
    name: String,
    /// `binary_data`: answer with raw bytes.
    #[serde(default)]
    parameters: Option<Parameters>,
}

/// What a request asks, with its tensors read.
pub(crate) struct Inference {
    /// The model and version that the body names, besides the path.
    pub model: Option<String>,
    pub version: Option<String>,
    pub id: Option<String>,
    pub tensors: Vec<Tensor>,
    pub deadline: Option<Micros>,
    /// Outputs by name, and whether as raw bytes.
    outputs: Vec<(String, bool)>,
    /// Whether outputs are raw that nothing is said of.
    raw: bool,
}

/// What changes the meaning of a request and isn't served: refused, rather than left unheard.
const UNSERVED: [&str; 7] = [
    "classification",
    "sequence_id",
    "sequence_start",
    "sequence_end",
    "shared_memory_region",
    "shared_memory_byte_size",
    "shared_memory_offset",
];

fn check(parameters: Option<&Parameters>) -> Result<(), ApiError> {
    let none = |value: &Json| matches!(value, Json::Null | Json::Bool(false)) || value == &json!(0);
    let given = parameters.into_iter().flatten();
    let unserved = given
        .into_iter()
        .find(|(name, value)| UNSERVED.contains(&name.as_str()) && !none(value));
    match unserved {
        Some((name, _)) => Err(unserved_parameter(name).into()),
        None => Ok(()),
    }
}

/// A parameter that asks for what there isn't.
pub(crate) fn unserved_parameter(name: &str) -> Problem {
    Problem::user(
        "unsupported-parameter",
        format!("the parameter `{name}` isn't served here"),
    )
    .field("parameters")
    .hint("leave it out: sequences, classification and shared memory aren't offered")
}

/// Refuses the parameters that [`check`] does, by name.
pub(crate) fn is_unserved(name: &str) -> bool {
    UNSERVED.contains(&name)
}

fn flag(parameters: Option<&Parameters>, name: &str) -> Result<Option<bool>, ApiError> {
    match parameters.and_then(|p| p.get(name)) {
        None | Some(Json::Null) => Ok(None),
        Some(Json::Bool(yes)) => Ok(Some(*yes)),
        Some(other) => Err(malformed(format!(
            "the parameter `{name}` is {other}, no bool"
        ))),
    }
}

fn number(parameters: Option<&Parameters>, name: &str) -> Result<Option<u64>, ApiError> {
    match parameters.and_then(|p| p.get(name)) {
        None | Some(Json::Null) => Ok(None),
        Some(value) => value.as_u64().map(Some).ok_or_else(|| {
            malformed(format!(
                "the parameter `{name}` is {value}, no whole number"
            ))
        }),
    }
}

/// How long the JSON is; none where it is everything.
pub(crate) fn header_length(headers: &HeaderMap) -> Result<Option<usize>, ApiError> {
    let Some(given) = headers.get(HEADER_LENGTH) else {
        return Ok(None);
    };
    let length = given
        .to_str()
        .ok()
        .and_then(|text| text.trim().parse().ok());
    length
        .map(Some)
        .ok_or_else(|| malformed("`Inference-Header-Content-Length` is no number of bytes"))
}

/// Reads a request whose JSON has `length` bytes.
pub(crate) fn read(
    body: &Bytes,
    length: Option<usize>,
    limits: &Limits,
) -> Result<Inference, ApiError> {
    let split = body.split_at_checked(length.unwrap_or(body.len()));
    let (json, mut raw) = split.ok_or_else(|| {
        malformed(format!(
            "`Inference-Header-Content-Length` says more than the body's {} bytes",
            body.len()
        ))
    })?;
    let given: InferBody = read_json(json)?;
    check(given.parameters.as_ref())?;
    let deadline = number(given.parameters.as_ref(), "timeout")?.filter(|t| *t > 0);
    let mut tensors = Vec::with_capacity(given.inputs.len());
    for input in given.inputs {
        check(input.parameters.as_ref())?;
        // No tensor has more elements than a body has bytes.
        let head = Head::new(
            &input.name,
            &input.datatype,
            &input.shape,
            limits.body_bytes_max,
        )?;
        let size = number(input.parameters.as_ref(), "binary_data_size")?;
        tensors.push(match (size, &input.data) {
            (None, Some(data)) => head.of_json(data)?,
            (Some(size), None) => {
                let size = usize::try_from(size).unwrap_or(usize::MAX);
                let (own, rest) = raw.split_at_checked(size).ok_or_else(|| {
                    let name = &input.name;
                    malformed(format!("the body ends before the {size} bytes of `{name}`"))
                })?;
                raw = rest;
                head.of_bytes(own)?
            }
            _ => {
                let name = &input.name;
                let detail = format!("`{name}` needs either `data` or `binary_data_size`");
                return Err(malformed(detail));
            }
        });
    }
    if !raw.is_empty() {
        return Err(malformed(format!(
            "{} bytes belong to no tensor",
            raw.len()
        )));
    }
    let raw = flag(given.parameters.as_ref(), "binary_data_output")?.unwrap_or(false);
    let outputs = given.outputs.unwrap_or_default().into_iter().map(|output| {
        check(output.parameters.as_ref())?;
        let own = flag(output.parameters.as_ref(), "binary_data")?;
        Ok((output.name, own.unwrap_or(raw)))
    });
    Ok(Inference {
        model: given.model_name,
        version: given.model_version,
        id: given.id,
        deadline: deadline.map(|t| Micros::try_from(t).unwrap_or(Micros::MAX)),
        outputs: outputs.collect::<Result<_, ApiError>>()?,
        raw,
        tensors,
    })
}

impl Inference {
    /// One raw tensor of floats and nothing else: the whole body is rows of as many numbers as the model takes.
    pub(crate) fn of_raw(body: &[u8], columns: usize, limits: &Limits) -> Result<Self, ApiError> {
        let bytes = columns.saturating_mul(size_of::<f64>()).max(1);
        if !body.len().is_multiple_of(bytes) {
            let seen = body.len();
            let detail = format!("{seen} bytes aren't rows of {columns} doubles");
            return Err(malformed(detail));
        }
        let rows = i64::try_from(body.len() / bytes).unwrap_or(i64::MAX);
        let columns = i64::try_from(columns).unwrap_or(i64::MAX);
        let head = Head::new("input", "FP64", &[rows, columns], limits.body_bytes_max)?;
        Ok(Self {
            model: None,
            version: None,
            id: None,
            tensors: vec![head.of_bytes(body)?],
            deadline: None,
            outputs: Vec::new(),
            raw: true,
        })
    }

    /// The names of outputs that are asked for.
    pub(crate) fn asked(&self) -> Vec<&str> {
        self.outputs.iter().map(|(name, _)| name.as_str()).collect()
    }

    fn is_raw(&self, output: &str) -> bool {
        let own = self.outputs.iter().find(|(name, _)| name == output);
        own.map_or(self.raw, |(_, raw)| *raw)
    }

    /// The answer's tensors as JSON members, and the bytes behind them.
    pub(crate) fn write(&self, tensors: &[OutputTensor]) -> (Vec<OutputAnswer>, Vec<u8>) {
        let mut bytes = Vec::new();
        let answers = tensors.iter().map(|tensor| {
            let mut answer = OutputAnswer {
                name: tensor.name.clone(),
                shape: tensor.shape,
                datatype: tensor.data.datatype(),
                parameters: None,
                data: None,
            };
            if self.is_raw(&tensor.name) {
                let raw = tensor.data.raw();
                answer.parameters = Some(json!({ "binary_data_size": raw.len() }));
                bytes.extend(raw);
            } else {
                answer.data = Some(match &tensor.data {
                    OutputData::Fp64(numbers) => json!(numbers),
                    OutputData::Bytes(texts) => json!(texts),
                });
            }
            answer
        });
        (answers.collect(), bytes)
    }
}

/// The answer to an inference.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct InferAnswer {
    pub model_name: String,
    /// Left out where a fallback without a version answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(default)]
    pub model_version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(default)]
    pub id: Option<String>,
    /// `degraded` with its reason and `fallback`, where one answered.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(default)]
    pub parameters: BTreeMap<&'static str, String>,
    pub outputs: Vec<OutputAnswer>,
}

/// A tensor of an answer.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct OutputAnswer {
    name: String,
    shape: [usize; 2],
    datatype: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(default)]
    parameters: Option<Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(default)]
    data: Option<Json>,
}
