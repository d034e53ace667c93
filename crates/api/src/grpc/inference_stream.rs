//! `ModelStreamInfer`: requests for as long as they come, answered in their order. What is wrong with one is told in its
//! place, and the stream goes on.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{BoxStream, unfold};
use headwater_schema::Problem;
use tokio::sync::OwnedSemaphorePermit;
use tonic::{Status, Streaming};

use super::error::refuse;
use super::inference::Service;
use super::proto::inference::infer_parameter::ParameterChoice;
use super::proto::inference::{
    InferParameter, ModelInferRequest, ModelInferResponse, ModelStreamInferResponse,
};
use crate::error::malformed;
use crate::feed_lines::place;

/// Requests of one stream that are worked on at once; the next is read when one of them is answered.
const STREAM_REQUESTS_MAX: usize = 16;
/// Asks for [`FINAL`] in the answers.
const ASKS_FINAL: &str = "triton_enable_empty_final_response";
/// Says of an answer that its request gets no other.
const FINAL: &str = "triton_final_response";

/// What is answered to a stream.
pub type Answers = BoxStream<'static, Result<ModelStreamInferResponse, Status>>;

/// The answers to a stream of requests; refused where too many streams are open. `id` is the call's.
pub fn answers(
    service: Service,
    id: String,
    messages: Streaming<ModelInferRequest>,
) -> Result<Answers, Problem> {
    let place = place(&service.0)?;
    let requests = Requests {
        service: service.clone(),
        messages: Some(messages),
        _place: place,
    };
    let requests = unfold(requests, |mut requests| async move {
        let next = requests.next().await?;
        Some((next, requests))
    });
    let answer = move |request: Result<ModelInferRequest, Status>| {
        let (service, id) = (service.clone(), id.clone());
        async move { Ok(answer(&service, id, request?).await) }
    };
    Ok(requests.map(answer).buffered(STREAM_REQUESTS_MAX).boxed())
}

/// Requests as they come.
struct Requests {
    service: Service,
    /// None once they are over.
    messages: Option<Streaming<ModelInferRequest>>,
    _place: OwnedSemaphorePermit,
}

impl Requests {
    /// The next; an error is the last.
    async fn next(&mut self) -> Option<Result<ModelInferRequest, Status>> {
        let shared = &self.service.0;
        let mut messages = self.messages.take()?;
        let mut stopping = shared.stopping.clone();
        let idle_ms = shared.limits.feed_idle_ms_max;
        let idle = Duration::from_millis(idle_ms);
        let next = tokio::select! {
            next = tokio::time::timeout(idle, messages.message()) => next,
            _ = stopping.wait_for(|stopping| *stopping) => return Some(Err(refuse(stopped()))),
        };
        match next {
            Ok(Ok(None)) => None,
            Ok(Ok(Some(request))) => {
                self.messages = Some(messages);
                Some(Ok(request))
            }
            Ok(Err(status)) => {
                let problem = malformed(format!("the stream can't be read: {}", status.message()));
                Some(Err(refuse(problem)))
            }
            Err(_) => Some(Err(refuse(idled(idle_ms)))),
        }
    }
}

fn stopped() -> Problem {
    Problem::external("stopping", "the server is stopping")
        .hint("open another stream, and ask there what wasn't answered")
        .retryable()
}

fn idled(idle_ms: u64) -> Problem {
    Problem::user("feed-idle", "the stream was idle for too long")
        .detail(format!("no request came for {idle_ms} ms"))
        .hint("end a stream that isn't needed, or raise `limits.feed_idle_ms_max`")
}

async fn answer(
    service: &Service,
    call: String,
    request: ModelInferRequest,
) -> ModelStreamInferResponse {
    let id = request.id.clone();
    let asks_final = request.parameters.get(ASKS_FINAL).is_some_and(|parameter| {
        matches!(
            parameter.parameter_choice,
            Some(ParameterChoice::BoolParam(true))
        )
    });
    let (error_message, mut answered) = match service.infer(call, request).await {
        Ok(answered) => (String::new(), answered),
        Err(problem) => {
            let of = ModelInferResponse {
                id,
                ..ModelInferResponse::default()
            };
            (refuse(problem).message().to_owned(), of)
        }
    };
    if asks_final {
        let choice = Some(ParameterChoice::BoolParam(true));
        let parameter = InferParameter {
            parameter_choice: choice,
        };
        answered.parameters.insert(FINAL.to_owned(), parameter);
    }
    ModelStreamInferResponse {
        error_message,
        infer_response: Some(answered),
    }
}
