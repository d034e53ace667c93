//! What is read of gRPC's messages, and of the inference protocol's bodies, for fuzzing: bytes in, what was understood out.
//! Behind the feature `fuzz`.

use axum::body::Bytes;
use headwater_schema::decode::BodyFormat;
use headwater_schema::{DataType, Field, Problem};
use prost::Message;

use super::proto::feast::serving::GetOnlineFeaturesRequest;
use super::proto::headwater::append_request::Body;
use super::proto::headwater::{AppendRequest, PredictRequest, ReadRequest};
use super::proto::inference::ModelInferRequest;
use super::{facts, feast, features, inference, models};
use crate::backend::{FeaturesRequest, InputRows, ReadShape};
use crate::error::malformed;
use crate::feast::features_request;
use crate::limits::Limits;
use crate::oip::body::{self, Inference};
use crate::oip::tensor::rows;

/// Facts of an `AppendRequest`, as they go on to be decoded.
pub struct Appended {
    pub format: BodyFormat,
    pub body: Bytes,
    /// How many rows the message has, where it has rows.
    pub rows: Option<usize>,
}

/// Reads a message; what was read can be written, and reads the same again.
fn message<M: Message + Default>(bytes: &[u8]) -> Result<M, Problem> {
    let message = M::decode(bytes).map_err(|e| malformed(e).0)?;
    let written = message.encode_to_vec();
    let again = M::decode(written.as_slice())
        .map_err(|e| Problem::internal("message", "what was written can't be read").detail(e))?;
    // By their bytes: no NaN is equal to itself.
    match again.encode_to_vec() == written {
        true => Ok(message),
        false => Err(Problem::internal("message", "a message reads otherwise")),
    }
}

/// `headwater.v1.AppendRequest`.
pub fn append(bytes: &[u8]) -> Result<Appended, Problem> {
    let request: AppendRequest = message(bytes)?;
    let rows = match &request.body {
        Some(Body::Rows(rows)) => Some(rows.rows.len()),
        _ => None,
    };
    let (format, body) = facts::body(request.body)?;
    Ok(Appended { format, body, rows })
}

/// `headwater.v1.ReadRequest`.
pub fn read(bytes: &[u8], limits: &Limits) -> Result<FeaturesRequest, Problem> {
    let request: ReadRequest = message(bytes)?;
    features::read_request(request, limits).map_err(|e| e.0)
}

/// `headwater.v1.PredictRequest`: the rows that it asks for.
pub fn predict(bytes: &[u8], limits: &Limits) -> Result<InputRows, Problem> {
    let request: PredictRequest = message(bytes)?;
    let asked = models::question(request, limits).map_err(|e| e.0)?;
    Ok(asked.rows)
}

/// `feast.serving.GetOnlineFeaturesRequest`.
pub fn get_online_features(bytes: &[u8], limits: &Limits) -> Result<FeaturesRequest, Problem> {
    let request: GetOnlineFeaturesRequest = message(bytes)?;
    let question = feast::question(request)?;
    let (keys, own) = (&question.entities, &question.context);
    // A set whose context is some of what the request brings.
    let brought = own.0.iter().chain(&keys.0).take(2);
    let brought = brought.map(|(name, _)| Field::new(name.as_str(), DataType::Date));
    let asked = ReadShape {
        context: brought.collect(),
        ..ReadShape::default()
    };
    features_request(question.names, keys, own, &asked, limits).map_err(|e| e.0)
}

/// `inference.ModelInferRequest`: the rows that its tensors make.
pub fn infer(bytes: &[u8], limits: &Limits) -> Result<InputRows, Problem> {
    let request: ModelInferRequest = message(bytes)?;
    let asked = inference::question(&request, limits).map_err(|e| e.0)?;
    Ok(asked.0.rows)
}

/// The body of an inference over HTTP whose JSON has so many bytes, before raw tensors; none: all of it is JSON.
pub fn infer_body(
    bytes: &[u8],
    json_bytes: Option<usize>,
    limits: &Limits,
) -> Result<InputRows, Problem> {
    let bytes = Bytes::copy_from_slice(bytes);
    let asked = body::read(&bytes, json_bytes, limits).map_err(|e| e.0)?;
    rows(asked.tensors, limits.entities_max)
}

/// The body of one that is a raw tensor and nothing else.
pub fn infer_raw(bytes: &[u8], columns: usize, limits: &Limits) -> Result<InputRows, Problem> {
    let asked = Inference::of_raw(bytes, columns, limits).map_err(|e| e.0)?;
    rows(asked.tensors, limits.entities_max)
}
