//! A table made of rows that are sent: the answer, an Arrow stream, is made while it goes.
//!
//! Neither is held as a whole: whoever makes the table reads the body as it comes, and what it writes is sent as it is made.
//! As with queries the beginning of an answer is held back, and what goes wrong later breaks the transfer off.

use std::io::{self, Write};

use axum::body::{Body, BodyDataStream, Bytes};
use axum::http::{HeaderMap, HeaderValue, Response, header};
use futures_util::stream::{self, StreamExt};
use headwater_batch::{Pieces, Stop};
use headwater_schema::Problem;
use headwater_schema::decode::BodyFormat;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::accept;
use crate::arrow_stream::ARROW_STREAM;
use crate::backend::Backend;
use crate::body::{facts_format, unreadable};
use crate::error::ApiError;
use crate::query::{HELD_BACK_BYTES, PIECE_BYTES, Stopped};
use crate::server::Shared;

/// Pieces of an answer that wait to be sent; its maker waits with the next.
const PIECES_MAX: usize = 4;

/// Rows as they are sent, and whether anybody still waits for what is made of them.
pub struct SentRows<'a> {
    pub format: BodyFormat,
    pub pieces: &'a mut Pieces<'a>,
    pub stop: &'a Stop,
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
                        |e| Problem::internal("table", "making a table panicked").detail(e);
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
                tracing::warn!(code, detail, "a table went wrong while it was sent");
                Some(Err(Stopped))
            }
        }
    }
}

/// Answers with what `make` makes of the rows in a body.
pub async fn made_of_rows(
    shared: &Shared,
    headers: &HeaderMap,
    body: Body,
    make: impl FnOnce(&dyn Backend, SentRows<'_>, &mut (dyn Write + Send)) -> Result<(), Problem>
    + Send
    + 'static,
) -> Result<Response<Body>, ApiError> {
    let media_type = accept::media_type(headers, &[ARROW_STREAM])?;
    let mut rest = body.into_data_stream();
    let begun = rest.next().await.transpose();
    let begun = begun.map_err(|e| unreadable(&e))?;
    let format = facts_format(headers, begun.as_deref().unwrap_or_default())?;
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
        let rows = SentRows {
            format,
            pieces: &mut || coming.next(),
            stop: &stop,
        };
        make(backend.as_ref(), rows, &mut out)?;
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
