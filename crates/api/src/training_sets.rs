//! `POST /v1/training-sets`: a spine in, the same rows with features out, as an Arrow stream.
//!
//! Neither is held as a whole: the backend reads the body as it comes, and what it writes is sent as it is made. As with
//! queries the beginning of an answer is held back, and what goes wrong later breaks the transfer off.

use std::io::{self, Write};

use axum::body::{Body, BodyDataStream, Bytes};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, Response, header};
use futures_util::stream::{self, StreamExt};
use headwater_batch::Stop;
use headwater_schema::Problem;
use serde::Deserialize;
use serde_json::json;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::accept;
use crate::arrow_stream::ARROW_STREAM;
use crate::backend::{Names, TrainingKnownAt, TrainingSetRequest};
use crate::body::{facts_format, instant, known_at, unreadable};
use crate::error::{ApiError, malformed};
use crate::openapi::{Paths, problem_reply, query};
use crate::query::{HELD_BACK_BYTES, PIECE_BYTES, Stopped};
use crate::server::Shared;

/// Pieces of an answer that wait to be sent; its maker waits with the next.
const PIECES_MAX: usize = 4;

/// Parameters of a training set.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingSetParameters {
    #[serde(default)]
    feature_set: Option<String>,
    /// Full names, with commas between them.
    #[serde(default)]
    features: Option<String>,
    #[serde(default)]
    time: Option<String>,
    #[serde(default)]
    inclusive: Option<bool>,
    #[serde(default)]
    known_at: Option<String>,
    /// Names, with commas between them.
    #[serde(default)]
    labels: Option<String>,
    #[serde(default)]
    labels_as_of: Option<String>,
}

/// Stops the work when the caller is given up, or goes.
struct Waiting(Stop);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// A body, read by a thread that may wait for it.
struct Coming {
    begun: Option<Bytes>,
    rest: BodyDataStream,
    runtime: Handle,
    stop: Stop,
}

impl Coming {
    fn next(&mut self) -> Result<Option<Vec<u8>>, Problem> {
        self.stop.check()?;
        let piece = match self.begun.take() {
            Some(begun) => Some(Ok(begun)),
            None => self.runtime.block_on(self.rest.next()),
        };
        let piece = piece.transpose().map_err(|e| unreadable(&e).0)?;
        Ok(piece.map(Vec::from))
    }
}

/// What is written, in pieces.
struct Going {
    piece: Vec<u8>,
    pieces: mpsc::Sender<Vec<u8>>,
}

impl Write for Going {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let piece = std::mem::take(&mut self.piece);
        let sent = self.pieces.blocking_send(piece);
        sent.map_err(|_| io::Error::other("nobody waits for the answer any more"))
    }
}

/// An answer that is being made and sent.
struct Sending {
    pieces: mpsc::Receiver<Vec<u8>>,
    /// Until it is known how the making ended.
    making: Option<JoinHandle<Result<(), Problem>>>,
    _waiting: Waiting,
}

impl Sending {
    /// At least so many bytes, or all that are left.
    async fn fill(&mut self, bytes_min: usize) -> Result<Vec<u8>, Problem> {
        let mut bytes = Vec::new();
        while bytes.len() < bytes_min {
            match (self.pieces.recv().await, self.making.take()) {
                (Some(piece), making) => {
                    bytes.extend(piece);
                    self.making = making;
                }
                (None, Some(making)) => {
                    let panicked =
                        |e| Problem::internal("training-set", "making it panicked").detail(e);
                    making.await.map_err(panicked)??;
                }
                (None, None) => break,
            }
        }
        Ok(bytes)
    }

    /// The next bytes; none at the end.
    async fn piece(&mut self) -> Option<Result<Bytes, Stopped>> {
        match self.fill(1).await {
            Ok(bytes) if bytes.is_empty() => None,
            Ok(bytes) => Some(Ok(bytes.into())),
            Err(problem) => {
                let (code, detail) = (problem.code, problem.detail);
                tracing::warn!(code, detail, "a training set went wrong while it was sent");
                Some(Err(Stopped))
            }
        }
    }
}

/// Makes a training set.
pub async fn post_training_set(
    State(shared): State<Shared>,
    parameters: Result<Query<TrainingSetParameters>, axum::extract::rejection::QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response<Body>, ApiError> {
    let Query(parameters) = parameters.map_err(|e| malformed(e.body_text()))?;
    let list = |names: String| names.split(',').map(str::to_owned).collect::<Vec<_>>();
    let labels_as_of = parameters.labels_as_of.as_deref();
    let request = TrainingSetRequest {
        names: match (parameters.feature_set, parameters.features) {
            (Some(set), None) => Names::Set(set),
            (None, Some(features)) => Names::List(list(features)),
            _ => return Err(malformed("name either `features` or a `feature_set`")),
        },
        inclusive: parameters.inclusive.unwrap_or(false),
        known_at: match parameters.known_at.as_deref() {
            Some("arrival") => Some(TrainingKnownAt::Arrival),
            Some(text) => Some(TrainingKnownAt::Until(known_at("known_at", text)?)),
            None => None,
        },
        time: parameters.time.unwrap_or_else(|| "as_of".to_owned()),
        labels: parameters.labels.map(list).unwrap_or_default(),
        labels_as_of: labels_as_of
            .map(|t| instant("labels_as_of", &json!(t)))
            .transpose()?,
    };
    let media_type = accept::media_type(&headers, &[ARROW_STREAM])?;
    let mut rest = body.into_data_stream();
    let begun = rest.next().await.transpose();
    let begun = begun.map_err(|e| unreadable(&e))?;
    let format = facts_format(&headers, begun.as_deref().unwrap_or_default())?;
    let waiting = Waiting(Stop::default());
    let mut coming = Coming {
        begun,
        rest,
        runtime: Handle::current(),
        stop: waiting.0.clone(),
    };
    let (sender, pieces) = mpsc::channel(PIECES_MAX);
    let (backend, stop) = (shared.backend.clone(), waiting.0.clone());
    let making = tokio::task::spawn_blocking(move || {
        let mut out = Going {
            piece: Vec::new(),
            pieces: sender,
        };
        backend.training_set(&request, format, &mut || coming.next(), &stop, &mut out)?;
        out.flush()
            .map_err(|e| Problem::external("stopped", "the answer can't be sent").detail(e))
    });
    let mut sending = Sending {
        pieces,
        making: Some(making),
        _waiting: waiting,
    };
    let beginning = sending.fill(HELD_BACK_BYTES).await?;
    let rest = stream::unfold(sending, |mut sending| async move {
        sending.piece().await.map(|piece| (piece, sending))
    });
    let begun = stream::once(async { Ok(Bytes::from(beginning)) });
    let mut response = Response::new(Body::from_stream(begun.chain(rest)));
    let media_type = HeaderValue::from_static(media_type);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, media_type);
    Ok(response)
}

/// This call in the OpenAPI document.
pub fn paths() -> Paths {
    let text = json!({"type": "string"});
    let binary = json!({"schema": {"type": "string", "contentEncoding": "binary"}});
    let call = json!({"post": {
        "summary": "Make a training set: the rows of a spine, each with its features as of its own time",
        "parameters": [
            query("feature_set", text.clone(), "a feature set; or `features`"),
            query("features", text.clone(), "full names, with commas between them"),
            query("time", text.clone(), "the spine's time column; `as_of` by default"),
            query("inclusive", json!({"type": "boolean"}), "`true`: facts at a row's time itself count"),
            query("known_at", text.clone(), "a `sequence`, RFC 3339, or `arrival`: what had arrived by each row's own time"),
            query("labels", text.clone(), "labels to add, with commas between them"),
            query("labels_as_of", text.clone(), "when the labels are looked at, in RFC 3339: those whose horizon hasn't come by then are null; now by default")],
        "requestBody": {"required": true, "content": {
            "application/vnd.apache.arrow.stream": binary,
            "application/vnd.apache.parquet": binary,
            "text/csv": {"schema": text},
            "application/x-ndjson": {"schema": text}
        }},
        "responses": {
            "200": {"description": "The spine's columns, then the features, then the labels; a transfer that breaks off is no whole answer", "content": {ARROW_STREAM: binary}},
            "default": problem_reply()
        }
    }});
    vec![("/v1/training-sets".to_owned(), call)]
}
