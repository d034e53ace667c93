//! Connections: how many there may be, how slow they may be, TLS, and an orderly end.
//!
//! [`Connections::serve`] takes a listener and a router and speaks HTTP/1.1 or HTTP/2, whichever the
//! client begins with, so that gRPC needs no port of its own. It never queues: a connection beyond
//! `limits.connections_max` is told so and closed.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use headwater_schema::Problem;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulConnection;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use crate::backend::Measure;
use crate::error::ApiError;
use crate::limits::Limits;
use crate::stall::Unstalled;
use crate::tls::Tls;

/// How long saying so may take.
const NO_ROOM_WITHIN: Duration = Duration::from_millis(200);
/// The wait after a connection couldn't be taken, as when too many files are open.
const AFTER_FAILURE: Duration = Duration::from_millis(50);

/// How far the end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// Requests under way are answered, no others.
    Closing,
    /// Nothing is waited for any more.
    Gone,
}

/// What every connection shares.
pub struct Connections {
    limits: Arc<Limits>,
    tls: Option<Arc<Tls>>,
    room: Arc<Semaphore>,
    counters: Arc<Counters>,
    /// Told once the wait for requests under way begins.
    phase: watch::Sender<Phase>,
}

/// What is counted of connections.
#[derive(Default)]
pub struct Counters {
    taken: AtomicU64,
    refused: AtomicU64,
    open: AtomicU64,
}

impl Counters {
    /// What there is to measure.
    pub(crate) fn measures(&self) -> Vec<Measure> {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let refused = "Connections refused because there were too many.";
        let open = "Connections open now.";
        vec![
            Measure::counter("http_connections", "Connections taken.", load(&self.taken)),
            Measure::counter("http_connections_refused", refused, load(&self.refused)),
            Measure::gauge("http_connections_open", open, load(&self.open) as f64),
        ]
    }
}

/// Counts a connection as open as long as it lives.
struct Open(Arc<Counters>);

impl Open {
    fn new(counters: &Arc<Counters>) -> Self {
        counters.taken.fetch_add(1, Ordering::Relaxed);
        counters.open.fetch_add(1, Ordering::Relaxed);
        Self(counters.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connections {
    pub fn new(limits: Arc<Limits>, tls: Option<Arc<Tls>>, counters: Arc<Counters>) -> Self {
        Self {
            room: Arc::new(Semaphore::new(limits.connections_max.clamp(1, 1 << 20))),
            limits,
            tls,
            counters,
            phase: watch::Sender::new(Phase::Open),
        }
    }

    /// Serves until `stop` is ready; then takes no more connections, and waits for the requests under
    /// way at most `limits.drain_ms_max`. Whether all of them were answered.
    pub async fn serve(
        &self,
        listener: TcpListener,
        router: Router,
        stop: impl Future<Output = ()>,
    ) -> bool {
        let mut stop = pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                taken = listener.accept() => match taken {
                    Ok((stream, _)) => self.take(stream, &router),
                    Err(error) => {
                        tracing::warn!(%error, "a connection can't be taken");
                        sleep(AFTER_FAILURE).await;
                    }
                },
            }
        }
        drop(listener);
        self.phase.send_replace(Phase::Closing);
        let patience = Duration::from_millis(self.limits.drain_ms_max);
        let drained = timeout(patience, self.phase.closed()).await.is_ok();
        self.phase.send_replace(Phase::Gone);
        drained
    }

    fn take(&self, stream: TcpStream, router: &Router) {
        // Small replies must not wait for more.
        let _ = stream.set_nodelay(true);
        let Ok(place) = self.room.clone().try_acquire_owned() else {
            self.counters.refused.fetch_add(1, Ordering::Relaxed);
            if self.tls.is_none() {
                tokio::spawn(timeout(NO_ROOM_WITHIN, say_no(stream)));
            }
            return;
        };
        let open = Open::new(&self.counters);
        let (limits, phase) = (self.limits.clone(), self.phase.subscribe());
        let router = router.clone();
        let acceptor = self.tls.as_ref().map(|tls| tls.acceptor());
        tokio::spawn(async move {
            let _held = (place, open);
            let opening = Duration::from_millis(limits.header_ms_max);
            match acceptor {
                None => converse(stream, router, &limits, phase).await,
                Some(acceptor) => {
                    if let Ok(Ok(stream)) = timeout(opening, acceptor.accept(stream)).await {
                        converse(stream, router, &limits, phase).await;
                    }
                }
            }
        });
    }
}

/// Says that there is no room, and reads what has come, so that closing doesn't cut the answer off.
async fn say_no(mut stream: TcpStream) {
    let (status, body) = ApiError(
        Problem::external("busy", "too many connections at once")
            .hint("keep connections open and use them again, or try a little later; the limit is `limits.connections_max`")
            .retryable(),
    )
    .document();
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/problem+json\r\nretry-after: 1\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let answer = head + &body;
    if stream.write_all(answer.as_bytes()).await.is_ok() && stream.shutdown().await.is_ok() {
        let mut rest = [0; 1024];
        while let Ok(1..) = stream.read(&mut rest).await {}
    }
}

async fn converse<S>(stream: S, router: Router, limits: &Limits, phase: watch::Receiver<Phase>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let header = Duration::from_millis(limits.header_ms_max);
    // Guessing the protocol from the first bytes has no deadline of its own: the stream's ends it.
    let stream = Unstalled::new(stream, header, Duration::from_millis(limits.write_ms_max));
    let streams = u32::try_from(limits.streams_max).unwrap_or(u32::MAX);
    let head_bytes = limits.header_bytes_max.saturating_add(limits.url_bytes_max);
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(header);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(streams)
        .max_header_list_size(u32::try_from(head_bytes).unwrap_or(u32::MAX))
        .keep_alive_interval(header)
        .keep_alive_timeout(header);
    let service = TowerToHyperService::new(router);
    run(
        builder.serve_connection(TokioIo::new(stream), service),
        phase,
    )
    .await;
}

/// Runs a connection to its end: its own, or the server's.
async fn run(connection: impl GracefulConnection, mut phase: watch::Receiver<Phase>) {
    let mut connection = pin!(connection);
    loop {
        tokio::select! {
            _ = &mut connection => return,
            changed = phase.changed() => {
                let now = *phase.borrow_and_update();
                if changed.is_err() || now == Phase::Gone {
                    return;
                }
                if now == Phase::Closing {
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}
