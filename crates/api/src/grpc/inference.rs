//! `inference.GRPCInferenceService`: the Open Inference Protocol.

use std::collections::BTreeMap;

use headwater_schema::{Micros, Problem, Value};
use tonic::{Request, Response, Status, Streaming};

use super::error::refuse;
use super::inference_stream::{Answers, answers};
use super::inference_told::{configuration, statistics};
use super::proto::inference as proto;
use super::proto::inference::grpc_inference_service_server::GrpcInferenceService;
use super::proto::inference::infer_parameter::ParameterChoice;
use super::proto::inference::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use super::proto::inference::model_infer_response::InferOutputTensor;
use super::proto::inference::model_metadata_response::TensorMetadata;
use super::proto::inference::repository_index_response::ModelIndex;
use super::proto::inference::{InferParameter, InferTensorContents};
use crate::backend::{PredictReply, PredictRequest};
use crate::error::{ApiError, malformed};
use crate::limits::Limits;
use crate::oip::answer::{OutputData, OutputTensor, outputs, parameters};
use crate::oip::model;
use crate::oip::tensor::{Datatype, Head, Tensor, float, int, rows};
use crate::oip::{EXTENSIONS, SERVER, is_unserved, model_given, unserved_parameter};
use crate::predict::{ask, request_id};
use crate::server::Shared;

/// Answers with the models of the backend.
#[derive(Clone)]
pub struct Service(pub Shared);

/// A call's message and its answer.
type Asked<T> = Request<T>;
type Answered<T> = Result<Response<T>, Status>;

/// A version that is named, if one is.
fn named(version: &str) -> Option<&str> {
    Some(version).filter(|v| !v.is_empty())
}

#[tonic::async_trait]
impl GrpcInferenceService for Service {
    async fn server_live(
        &self,
        _: Asked<proto::ServerLiveRequest>,
    ) -> Answered<proto::ServerLiveResponse> {
        Ok(Response::new(proto::ServerLiveResponse { live: true }))
    }

    async fn server_ready(
        &self,
        _: Asked<proto::ServerReadyRequest>,
    ) -> Answered<proto::ServerReadyResponse> {
        let ready = !*self.0.stopping.borrow();
        Ok(Response::new(proto::ServerReadyResponse { ready }))
    }

    async fn model_ready(
        &self,
        request: Asked<proto::ModelReadyRequest>,
    ) -> Answered<proto::ModelReadyResponse> {
        let asked = request.into_inner();
        let ready = model::is_ready(&self.0, &asked.name, named(&asked.version)).map_err(refuse)?;
        Ok(Response::new(proto::ModelReadyResponse { ready }))
    }

    async fn server_metadata(
        &self,
        _: Asked<proto::ServerMetadataRequest>,
    ) -> Answered<proto::ServerMetadataResponse> {
        Ok(Response::new(proto::ServerMetadataResponse {
            name: SERVER.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            extensions: EXTENSIONS.map(str::to_owned).into(),
        }))
    }

    async fn model_metadata(
        &self,
        request: Asked<proto::ModelMetadataRequest>,
    ) -> Answered<proto::ModelMetadataResponse> {
        let asked = request.into_inner();
        let signature = self.0.backend.signature(&asked.name, named(&asked.version));
        let told = model::metadata(&signature.map_err(refuse)?);
        let tensors = |tensors: Vec<model::TensorMetadata>| {
            let tensors = tensors.into_iter();
            let tensors = tensors.map(|tensor| TensorMetadata {
                name: tensor.name,
                datatype: tensor.datatype.to_owned(),
                shape: tensor.shape.to_vec(),
            });
            tensors.collect()
        };
        Ok(Response::new(proto::ModelMetadataResponse {
            name: told.name,
            versions: told.versions,
            platform: told.platform,
            inputs: tensors(told.inputs),
            outputs: tensors(told.outputs),
        }))
    }

    async fn model_infer(
        &self,
        request: Asked<proto::ModelInferRequest>,
    ) -> Answered<proto::ModelInferResponse> {
        let id = request_id(request.metadata().as_ref());
        self.infer(id, request.into_inner())
            .await
            .map(Response::new)
            .map_err(refuse)
    }

    type ModelStreamInferStream = Answers;

    async fn model_stream_infer(
        &self,
        request: Request<Streaming<proto::ModelInferRequest>>,
    ) -> Answered<Self::ModelStreamInferStream> {
        let id = request_id(request.metadata().as_ref());
        let answers = answers(self.clone(), id, request.into_inner());
        answers.map(Response::new).map_err(refuse)
    }

    async fn model_config(
        &self,
        request: Asked<proto::ModelConfigRequest>,
    ) -> Answered<proto::ModelConfigResponse> {
        let asked = request.into_inner();
        let signature = self.0.backend.signature(&asked.name, named(&asked.version));
        let signature = signature.map_err(refuse)?;
        let config = model::config(&signature, self.0.limits.entities_max);
        Ok(Response::new(proto::ModelConfigResponse {
            config: Some(configuration(config)),
        }))
    }

    async fn model_statistics(
        &self,
        request: Asked<proto::ModelStatisticsRequest>,
    ) -> Answered<proto::ModelStatisticsResponse> {
        let asked = request.into_inner();
        let all = model::stats(&self.0, named(&asked.name), named(&asked.version));
        let stats = all.map_err(refuse)?.into_iter().map(statistics);
        Ok(Response::new(proto::ModelStatisticsResponse {
            model_stats: stats.collect(),
        }))
    }

    async fn repository_index(
        &self,
        request: Asked<proto::RepositoryIndexRequest>,
    ) -> Answered<proto::RepositoryIndexResponse> {
        let all = model::index(&self.0, request.into_inner().ready).into_iter();
        let models = all.map(|entry| ModelIndex {
            name: entry.name,
            version: entry.version.unwrap_or_default(),
            state: entry.state.to_owned(),
            reason: entry.reason,
        });
        Ok(Response::new(proto::RepositoryIndexResponse {
            models: models.collect(),
        }))
    }

    async fn repository_model_load(
        &self,
        request: Asked<proto::RepositoryModelLoadRequest>,
    ) -> Answered<proto::RepositoryModelLoadResponse> {
        let asked = request.into_inner();
        if let Some(name) = asked.parameters.keys().next() {
            return Err(refuse(model_given(name)));
        }
        let model_name = either(asked.model_name, asked.repository_name);
        let shared = self.0.clone();
        let model = model_name.clone();
        blocking(move || shared.backend.load_model(&model)).await?;
        Ok(Response::new(proto::RepositoryModelLoadResponse {
            model_name,
            is_loaded: true,
        }))
    }

    async fn repository_model_unload(
        &self,
        request: Asked<proto::RepositoryModelUnloadRequest>,
    ) -> Answered<proto::RepositoryModelUnloadResponse> {
        let asked = request.into_inner();
        let model_name = either(asked.model_name, asked.repository_name);
        let shared = self.0.clone();
        let model = model_name.clone();
        blocking(move || shared.backend.unload_model(&model)).await?;
        Ok(Response::new(proto::RepositoryModelUnloadResponse {
            model_name,
            is_unloaded: true,
        }))
    }
}

fn either(first: String, second: String) -> String {
    if first.is_empty() { second } else { first }
}

async fn blocking(
    work: impl FnOnce() -> Result<(), Problem> + Send + 'static,
) -> Result<(), Status> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.map_err(|e| Problem::internal("panic", "a call failed").detail(e));
    done.and_then(|done| done).map_err(refuse)
}

impl Service {
    pub(super) async fn infer(
        &self,
        request_id: String,
        request: proto::ModelInferRequest,
    ) -> Result<proto::ModelInferResponse, ApiError> {
        let raw = !request.raw_input_contents.is_empty();
        let (asked, asked_outputs) = question(&request, &self.0.limits)?;
        let asked = PredictRequest {
            request_id,
            ..asked
        };
        let reply = ask(&self.0, asked).await?;
        let tensors = outputs(&reply, &asked_outputs)?;
        Ok(answer(&reply, request.id.clone(), tensors, raw))
    }
}

/// What a request asks, with its tensors read, and the outputs that it names.
pub(super) fn question<'a>(
    request: &'a proto::ModelInferRequest,
    limits: &Limits,
) -> Result<(PredictRequest, Vec<&'a str>), ApiError> {
    check(&request.parameters)?;
    let asked_outputs = request.outputs.iter();
    let asked_outputs = asked_outputs.map(|output: &InferRequestedOutputTensor| {
        check(&output.parameters)?;
        Ok(output.name.as_str())
    });
    let asked_outputs: Vec<&str> = asked_outputs.collect::<Result<_, ApiError>>()?;
    let deadline = deadline(&request.parameters)?;
    let tensors = tensors(&request.inputs, &request.raw_input_contents, limits)?;
    let asked = PredictRequest {
        model: request.model_name.clone(),
        version: named(&request.model_version).map(str::to_owned),
        rows: rows(tensors, limits.entities_max)?,
        deadline,
        ..PredictRequest::default()
    };
    Ok((asked, asked_outputs))
}

/// What the tensors of an answer are, raw where those of the request were.
fn answer(
    reply: &PredictReply,
    id: String,
    tensors: Vec<OutputTensor>,
    raw: bool,
) -> proto::ModelInferResponse {
    let parameters = parameters(reply).into_iter().map(|(name, text)| {
        let choice = Some(ParameterChoice::StringParam(text));
        let parameter = InferParameter {
            parameter_choice: choice,
        };
        (name.to_owned(), parameter)
    });
    let mut response = proto::ModelInferResponse {
        model_name: reply.model.to_string(),
        model_version: reply.version.as_deref().unwrap_or_default().to_owned(),
        id,
        parameters: parameters.collect(),
        outputs: Vec::with_capacity(tensors.len()),
        raw_output_contents: Vec::new(),
    };
    for tensor in tensors {
        if raw {
            response.raw_output_contents.push(tensor.data.raw());
        }
        let size = |size: usize| i64::try_from(size).unwrap_or(i64::MAX);
        response.outputs.push(InferOutputTensor {
            datatype: tensor.data.datatype().to_owned(),
            shape: tensor.shape.map(size).to_vec(),
            parameters: BTreeMap::new(),
            contents: (!raw).then(|| contents(tensor.data)),
            name: tensor.name,
        });
    }
    response
}

fn contents(data: OutputData) -> InferTensorContents {
    let mut contents = InferTensorContents::default();
    match data {
        OutputData::Fp64(numbers) => contents.fp64_contents = numbers,
        OutputData::Bytes(texts) => {
            contents.bytes_contents = texts.into_iter().map(String::into_bytes).collect();
        }
    }
    contents
}

fn check(parameters: &BTreeMap<String, InferParameter>) -> Result<(), ApiError> {
    let none = |parameter: &InferParameter| {
        matches!(
            parameter.parameter_choice,
            None | Some(
                ParameterChoice::BoolParam(false)
                    | ParameterChoice::Int64Param(0)
                    | ParameterChoice::Uint64Param(0)
            )
        )
    };
    let mut given = parameters.iter();
    match given.find(|(name, parameter)| is_unserved(name) && !none(parameter)) {
        Some((name, _)) => Err(unserved_parameter(name).into()),
        None => Ok(()),
    }
}

/// The parameter `timeout`, in microseconds.
fn deadline(parameters: &BTreeMap<String, InferParameter>) -> Result<Option<Micros>, ApiError> {
    let given = parameters.get("timeout");
    match given.and_then(|p| p.parameter_choice.as_ref()) {
        None | Some(ParameterChoice::Int64Param(0) | ParameterChoice::Uint64Param(0)) => Ok(None),
        Some(ParameterChoice::Int64Param(micros)) => Ok(Some(*micros)),
        Some(ParameterChoice::Uint64Param(micros)) => {
            Ok(Some(Micros::try_from(*micros).unwrap_or(Micros::MAX)))
        }
        Some(_) => Err(malformed("the parameter `timeout` is no whole number")),
    }
}

fn tensors(
    inputs: &[InferInputTensor],
    raw: &[Vec<u8>],
    limits: &Limits,
) -> Result<Vec<Tensor>, ApiError> {
    if !raw.is_empty() && raw.len() != inputs.len() {
        let (inputs, raw) = (inputs.len(), raw.len());
        return Err(malformed(format!(
            "{inputs} inputs have {raw} `raw_input_contents`"
        )));
    }
    let tensor = |(index, input): (usize, &InferInputTensor)| {
        check(&input.parameters)?;
        // No tensor has more elements than a message has bytes.
        let most = limits.body_bytes_max;
        let head = Head::new(&input.name, &input.datatype, &input.shape, most)?;
        match (raw.get(index), &input.contents) {
            (Some(bytes), None) => Ok(head.of_bytes(bytes)?),
            (None, Some(contents)) => {
                let values = values(&head, contents)?;
                Ok(head.with(values)?)
            }
            (None, None) => Ok(head.with(Vec::new())?),
            (Some(_), Some(_)) => Err(malformed(format!(
                "`{}` has `contents` beside `raw_input_contents`",
                input.name
            ))),
        }
    };
    inputs.iter().enumerate().map(tensor).collect()
}

/// Which of the lists has the elements of a tensor; refuses others that aren't empty.
fn own_list(head: &Head, contents: &InferTensorContents) -> Result<usize, ApiError> {
    let name = &head.name;
    let lists = [
        contents.bool_contents.len(),
        contents.int_contents.len(),
        contents.int64_contents.len(),
        contents.uint_contents.len(),
        contents.uint64_contents.len(),
        contents.fp32_contents.len(),
        contents.fp64_contents.len(),
        contents.bytes_contents.len(),
    ];
    let own = match head.datatype {
        Datatype::Bool => 0,
        Datatype::Int8 | Datatype::Int16 | Datatype::Int32 => 1,
        Datatype::Int64 => 2,
        Datatype::Uint8 | Datatype::Uint16 | Datatype::Uint32 => 3,
        Datatype::Uint64 => 4,
        Datatype::Fp32 => 5,
        Datatype::Fp64 => 6,
        Datatype::Bytes => 7,
        Datatype::Fp16 => {
            return Err(malformed(format!(
                "`{name}` is FP16, which comes as raw bytes alone"
            )));
        }
    };
    if lists
        .iter()
        .enumerate()
        .any(|(list, length)| list != own && *length > 0)
    {
        let datatype = head.datatype.name();
        let detail = format!("`{name}` is {datatype} and has contents of another type");
        return Err(malformed(detail));
    }
    Ok(own)
}

/// The elements of a tensor, from the list of its type.
fn values(head: &Head, contents: &InferTensorContents) -> Result<Vec<Value>, ApiError> {
    let name = &head.name;
    let own = own_list(head, contents)?;
    let fits = |whole: i64| {
        head.datatype
            .fits(whole.into())
            .then(|| int(whole))
            .ok_or_else(|| {
                let datatype = head.datatype.name();
                malformed(format!("`{name}` has {whole}, which is no {datatype}"))
            })
    };
    let text = |bytes: &Vec<u8>| {
        let text = std::str::from_utf8(bytes);
        text.map(Value::string)
            .map_err(|_| malformed(format!("`{name}` has a text that is no UTF-8")))
    };
    match own {
        0 => Ok(contents
            .bool_contents
            .iter()
            .map(|v| Value::Bool(*v))
            .collect()),
        1 => contents
            .int_contents
            .iter()
            .map(|v| fits((*v).into()))
            .collect(),
        2 => Ok(contents.int64_contents.iter().map(|v| int(*v)).collect()),
        3 => contents
            .uint_contents
            .iter()
            .map(|v| fits((*v).into()))
            .collect(),
        4 => Ok(contents.uint64_contents.iter().map(|v| int(*v)).collect()),
        5 => Ok(contents
            .fp32_contents
            .iter()
            .map(|v| float((*v).into()))
            .collect()),
        6 => Ok(contents.fp64_contents.iter().map(|v| float(*v)).collect()),
        _ => contents.bytes_contents.iter().map(text).collect(),
    }
}
