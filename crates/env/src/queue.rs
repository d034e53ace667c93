//! Bounded queues between threads, each with the name of the limit that bounds it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

pub use std::sync::mpsc::{RecvError, RecvTimeoutError, TryRecvError};

/// The sending side; clones share the queue.
pub struct Sender<T> {
    inner: mpsc::SyncSender<T>,
    gauge: Arc<Gauge>,
}

/// The receiving side.
pub struct Receiver<T> {
    inner: mpsc::Receiver<T>,
    gauge: Arc<Gauge>,
}

struct Gauge {
    limit: &'static str,
    waiting: AtomicUsize,
}

/// Why a message wasn't taken; it comes back.
#[derive(Debug)]
pub enum TrySendError<T> {
    /// The queue is full.
    Full(T),
    /// Nobody receives any more.
    Disconnected(T),
}

impl<T> TrySendError<T> {
    pub fn into_inner(self) -> T {
        match self {
            Self::Full(message) | Self::Disconnected(message) => message,
        }
    }
}

/// A queue of at most `capacity` messages; `limit` names the setting that says so.
pub fn bounded<T>(limit: &'static str, capacity: usize) -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = mpsc::sync_channel(capacity.max(1));
    let gauge = Arc::new(Gauge {
        limit,
        waiting: AtomicUsize::new(0),
    });
    let sender = Sender {
        inner: sender,
        gauge: gauge.clone(),
    };
    (
        sender,
        Receiver {
            inner: receiver,
            gauge,
        },
    )
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            gauge: self.gauge.clone(),
        }
    }
}

impl<T> Sender<T> {
    /// The setting that bounds the queue.
    pub fn limit(&self) -> &'static str {
        self.gauge.limit
    }

    /// About how many messages wait.
    pub fn waiting(&self) -> usize {
        self.gauge.waiting.load(Ordering::Relaxed)
    }

    /// Waits for room; the message comes back where nobody receives any more.
    pub fn send(&self, message: T) -> Result<(), T> {
        self.gauge.waiting.fetch_add(1, Ordering::Relaxed);
        self.inner
            .send(message)
            .map_err(|mpsc::SendError(message)| {
                self.gauge.waiting.fetch_sub(1, Ordering::Relaxed);
                message
            })
    }

    /// Gives up at once where there is no room.
    pub fn try_send(&self, message: T) -> Result<(), TrySendError<T>> {
        self.gauge.waiting.fetch_add(1, Ordering::Relaxed);
        self.inner.try_send(message).map_err(|error| {
            self.gauge.waiting.fetch_sub(1, Ordering::Relaxed);
            match error {
                mpsc::TrySendError::Full(message) => TrySendError::Full(message),
                mpsc::TrySendError::Disconnected(message) => TrySendError::Disconnected(message),
            }
        })
    }
}

impl<T> Receiver<T> {
    fn took(&self) {
        self.gauge.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    /// Waits for a message; an error once the queue is empty and nobody sends any more.
    pub fn recv(&self) -> Result<T, RecvError> {
        self.inner.recv().inspect(|_| self.took())
    }

    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        self.inner.try_recv().inspect(|_| self.took())
    }

    pub fn recv_timeout(&self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        self.inner.recv_timeout(timeout).inspect(|_| self.took())
    }
}
