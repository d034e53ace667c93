//! `GET /v1/models/{model}/predictions`: a model's predictions as they are written, as server-sent events.
//!
//! Each subscriber is read to from the log, through a buffer of its own. One that doesn't read is cut off with a last
//! event that says so, and goes on later from the last event that it has.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, Response, header};
use headwater_schema::{Problem, Sequence};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::mpsc::{self, OwnedPermit, Sender};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, timeout_at};

use crate::backend::FactRow;
use crate::body::sequence;
use crate::error::ApiError;
use crate::facts::fact_json;
use crate::openapi::{Paths, problem_reply, query};
use crate::server::Shared;

/// Predictions read from the log at once.
const READ_MAX: usize = 1024;
/// How soon a browser should come back after the stream ends.
const RETRY_MS: u64 = 1000;

/// Some of a model's predictions, in the order in which they were written.
#[derive(Debug, Clone, Default)]
pub struct PredictionPage {
    pub rows: Vec<FactRow>,
    /// After which sequence to go on; nothing is left where it is the one that was asked for.
    pub next: Sequence,
}

/// Parameters of the stream.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamParameters {
    /// The sequence after which it begins; what is written from now on by default.
    #[serde(default)]
    after: Option<String>,
}

/// Streams a model's predictions.
pub async fn get_predictions(
    State(shared): State<Shared>,
    Path(model): Path<String>,
    Query(parameters): Query<StreamParameters>,
    headers: HeaderMap,
) -> Result<Response<Body>, ApiError> {
    let last = headers.get("last-event-id");
    let last = last.map(|id| id.to_str().unwrap_or_default().to_owned());
    let asked = match (&last, &parameters.after) {
        (Some(id), _) => Some(sequence("Last-Event-ID", id)?),
        (None, Some(after)) => Some(sequence("after", after)?),
        (None, None) => None,
    };
    let place = shared.subscribers.clone().try_acquire_owned();
    let place = place.map_err(|_| {
        Problem::external("busy", "too many streams of predictions are open")
            .hint("try again a little later; the limit is `limits.prediction_streams_max`")
            .retryable()
    })?;
    let applied = shared.backend.applied();
    let after = asked.unwrap_or(*applied.borrow());
    // Refuses what can't be read before anything is answered.
    shared.backend.predictions(&model, after, 1)?;
    let (events, mut sent) = mpsc::channel(shared.limits.prediction_buffer_events_max.max(1) + 1);
    let last = events.clone().try_reserve_owned();
    let last = last.map_err(|_| ApiError(Problem::internal("stream", "a buffer has no room")))?;
    let subscriber = Subscriber {
        stopping: shared.stopping.clone(),
        shared,
        model,
        applied,
        events,
        _place: place,
    };
    tokio::spawn(subscriber.run(after, last));
    let body = futures_util::stream::poll_fn(move |context| {
        let next = sent.poll_recv(context);
        next.map(|event| event.map(Ok::<Bytes, std::convert::Infallible>))
    });
    let mut response = Response::new(Body::from_stream(body));
    let headers = response.headers_mut();
    let event_stream = HeaderValue::from_static("text/event-stream");
    headers.insert(header::CONTENT_TYPE, event_stream);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Somebody who hears of predictions.
struct Subscriber {
    shared: Shared,
    model: String,
    applied: watch::Receiver<Sequence>,
    stopping: watch::Receiver<bool>,
    events: Sender<Bytes>,
    _place: OwnedSemaphorePermit,
}

/// Why a stream ends.
enum End {
    /// Nobody listens any more.
    Gone,
    /// The subscriber doesn't read.
    Slow,
    Stopping,
    Failed(Problem),
}

impl Subscriber {
    async fn run(mut self, after: Sequence, last: OwnedPermit<Bytes>) {
        let mut told = after;
        let end = self.feed(after, &mut told).await;
        let text = match end {
            End::Gone => return,
            End::Slow => format!(
                "event: cut-off\ndata: {}\n\n",
                json!({"reason": "slow", "detail": format!(
                    "{} events waited for {} ms", self.shared.limits.prediction_buffer_events_max,
                    self.shared.limits.prediction_stall_ms_max),
                    "resume_after": told.to_string()})
            ),
            End::Stopping => format!(
                "event: cut-off\ndata: {}\n\n",
                json!({"reason": "stopping", "resume_after": told.to_string()})
            ),
            End::Failed(problem) => format!(
                "event: cut-off\ndata: {}\n\n",
                json!({"reason": problem.code, "detail": problem.to_string(), "resume_after": told.to_string()})
            ),
        };
        last.send(text.into());
    }

    /// Sends events until the stream ends. `told` is the id of the last that was sent.
    async fn feed(&mut self, mut next: Sequence, told: &mut Sequence) -> End {
        if let Err(end) = self
            .send(format!("retry: {RETRY_MS}\nid: {next}\n\n"))
            .await
        {
            return end;
        }
        let beat = Duration::from_millis(self.shared.limits.prediction_heartbeat_ms.max(1));
        loop {
            self.applied.borrow_and_update();
            let (backend, model) = (self.shared.backend.clone(), self.model.clone());
            let read = move || backend.predictions(&model, next, READ_MAX);
            let page = match tokio::task::spawn_blocking(read).await {
                Ok(Ok(page)) => page,
                Ok(Err(problem)) => return End::Failed(problem),
                Err(error) => {
                    return End::Failed(
                        Problem::internal("stream", "predictions can't be read").detail(error),
                    );
                }
            };
            for row in &page.rows {
                if let Err(end) = self.send(event(row)).await {
                    return end;
                }
                *told = row.sequence;
            }
            let caught_up = page.next <= next;
            next = page.next;
            if !caught_up {
                continue;
            }
            *told = next;
            let beats = tokio::select! {
                changed = self.applied.changed() => match changed {
                    Ok(()) => false,
                    Err(_) => return End::Stopping,
                },
                () = stopped(&mut self.stopping) => return End::Stopping,
                () = self.events.closed() => return End::Gone,
                () = tokio::time::sleep(beat) => true,
            };
            // Whoever resumes needn't look again at what wasn't for them.
            if beats && let Err(end) = self.send(format!(":\nid: {next}\n\n")).await {
                return end;
            }
        }
    }

    async fn send(&mut self, text: String) -> Result<(), End> {
        let patience = Duration::from_millis(self.shared.limits.prediction_stall_ms_max);
        let until = Instant::now() + patience;
        let sent = timeout_at(until, self.events.send(text.into()));
        tokio::select! {
            sent = sent => match sent {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) => Err(End::Gone),
                Err(_) => Err(End::Slow),
            },
            () = stopped(&mut self.stopping) => Err(End::Stopping),
        }
    }
}

/// Returns once the server is about to end.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

fn event(row: &FactRow) -> String {
    let data = serde_json::to_string(&fact_json(row)).unwrap_or_default();
    format!("event: prediction\nid: {}\ndata: {data}\n\n", row.sequence)
}

/// This call in the OpenAPI document.
pub fn paths() -> Paths {
    let text = json!({"type": "string"});
    let model = json!({"name": "model", "in": "path", "required": true, "schema": text});
    let last = json!({
        "name": "Last-Event-ID", "in": "header", "schema": text,
        "description": "the id of the last event that was heard: the stream goes on after it"
    });
    let after = query(
        "after",
        text.clone(),
        "the same, where the header can't be set; without either the stream begins with what is written from now on",
    );
    let call = json!({"get": {
        "summary": "Hear of a model's predictions as they are written, as server-sent events",
        "parameters": [model, after, last],
        "responses": {
            "200": {
                "description": "Events `prediction`, each with a fact as `GET /v1/facts/prediction` lists it and its sequence as id; at last `cut-off`, with a reason",
                "content": {"text/event-stream": {"schema": {"type": "string"}}}
            },
            "default": problem_reply()
        }
    }});
    vec![("/v1/models/{model}/predictions".to_owned(), call)]
}
