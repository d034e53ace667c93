//! A word to a sweep from whoever waits no longer for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use headwater_schema::Problem;

/// Says stop to all its clones.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    pub fn stop(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// A problem once somebody has said it.
    pub fn check(&self) -> Result<(), Problem> {
        match self.0.load(Ordering::Relaxed) {
            false => Ok(()),
            true => Err(Problem::external(
                "stopped",
                "nobody waits for the features any more",
            )),
        }
    }
}
