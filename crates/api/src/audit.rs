//! What is written down about who did what; the engine's side keeps it.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::Instant;

/// Something that is worth remembering. Never holds a key, only its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEvent {
    /// The id of a key, `anyone`, or `command line`.
    pub actor: String,
    /// What was done, as in `key.use`.
    pub action: String,
    pub target: String,
    /// `ok`, or why not.
    pub result: String,
}

impl AuditEvent {
    pub fn new(actor: &str, action: &str, target: &str, result: &str) -> Self {
        Self {
            actor: actor.into(),
            action: action.into(),
            target: target.into(),
            result: result.into(),
        }
    }
}

/// Keeps events. Never fails a request: what can't be kept is logged.
pub trait Audit: Send + Sync {
    fn record(&self, event: &AuditEvent);
}

/// Keeps nothing.
pub struct Unheard;

impl Audit for Unheard {
    fn record(&self, _event: &AuditEvent) {}
}

/// Refusals that are written down within a minute: whoever knocks all day must not fill the disk.
const REFUSALS_PER_MINUTE_MAX: u32 = 60;

/// Bounds how many refusals are written down.
#[derive(Default)]
pub(crate) struct Refusals(Mutex<Option<(Instant, u32)>>);

impl Refusals {
    pub(crate) fn may_tell(&self) -> bool {
        const MINUTE: Duration = Duration::from_secs(60);
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *state {
            Some((since, count)) if since.elapsed() < MINUTE => {
                *count += 1;
                *count <= REFUSALS_PER_MINUTE_MAX
            }
            state => {
                *state = Some((Instant::now(), 1));
                true
            }
        }
    }
}
