//! A stream that ends itself where the other side stalls: where the first bytes don't come, or where
//! what is written isn't read.
//!
//! Between requests, and for their heads and bodies, HTTP has deadlines of its own.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// Bytes after which a client has begun to speak: those of HTTP/2's preface.
const BEGUN_BYTES: usize = 24;

/// A stream with deadlines.
pub struct Unstalled<S> {
    stream: S,
    /// Bytes still missing until the client has begun, and until when they must be here.
    missing: usize,
    begin: Pin<Box<Sleep>>,
    /// Runs while a write waits.
    write: Option<Pin<Box<Sleep>>>,
    write_max: Duration,
}

impl<S> Unstalled<S> {
    /// The first bytes must come within `begin_max`; a write may wait `write_max`.
    pub fn new(stream: S, begin_max: Duration, write_max: Duration) -> Self {
        Self {
            stream,
            missing: BEGUN_BYTES,
            begin: Box::pin(sleep(begin_max)),
            write: None,
            write_max,
        }
    }

    /// Watches the outcome of a write.
    fn watch<T>(
        &mut self,
        context: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.write = None;
            return outcome;
        }
        let write_max = self.write_max;
        let deadline = self.write.get_or_insert_with(|| Box::pin(sleep(write_max)));
        ready!(deadline.as_mut().poll(context));
        Poll::Ready(Err(stalled("the client doesn't read what is sent")))
    }
}

fn stalled(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

impl<S: AsyncRead + Unpin> AsyncRead for Unstalled<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(context, buffer);
        if self.missing == 0 {
            return outcome;
        }
        self.missing = self.missing.saturating_sub(buffer.filled().len() - before);
        if outcome.is_pending() && self.missing > 0 {
            ready!(self.begin.as_mut().poll(context));
            return Poll::Ready(Err(stalled("the client doesn't begin to speak")));
        }
        outcome
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Unstalled<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(context, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.watch(context, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(context);
        self.watch(context, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_shutdown(context);
        self.watch(context, outcome)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::Instant;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_client_that_never_begins_is_let_go_and_one_that_has_begun_is_not() {
        let (mut client, server) = duplex(64);
        let mut server = Unstalled::new(server, SECOND, SECOND);
        client.write_all(b"PRI * HT").await.unwrap();
        let mut buffer = [0; 64];
        assert_eq!(server.read(&mut buffer).await.unwrap(), 8);
        let error = server.read(&mut buffer).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);

        let (mut client, server) = duplex(64);
        let mut server = Unstalled::new(server, SECOND, SECOND);
        client.write_all(&[b'x'; BEGUN_BYTES]).await.unwrap();
        assert_eq!(server.read(&mut buffer).await.unwrap(), BEGUN_BYTES);
        let start = Instant::now();
        tokio::spawn(async move {
            sleep(10 * SECOND).await;
            client.write_all(b"later").await.unwrap();
        });
        assert_eq!(server.read(&mut buffer).await.unwrap(), 5);
        assert!(start.elapsed() >= 10 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_never_reads_is_let_go_and_a_slow_one_is_not() {
        let (mut client, server) = duplex(64);
        let mut server = Unstalled::new(server, SECOND, SECOND);
        let slow = tokio::spawn(async move {
            let mut buffer = [0; 32];
            for _ in 0..20 {
                sleep(SECOND / 2).await;
                client.read_exact(&mut buffer).await.unwrap();
            }
            client
        });
        server.write_all(&[0; 32 * 20]).await.unwrap();
        let _unread = slow.await.unwrap();
        let error = server.write_all(&[0; 1000]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
