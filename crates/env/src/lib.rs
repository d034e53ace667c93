//! The only door to time, randomness, files and bounded queues; real and simulated. Also how durations are
//! counted.
//!
//! Everything above asks an [`Env`] for them, so that a test can run the same code on a clock it
//! sets, on a disk that fails, and twice the same way.

mod clock;
mod error;
mod files;
mod histogram;
pub mod queue;
mod random;
mod real_files;
mod simulated_files;

use std::sync::Arc;

pub use clock::{Clock, RealClock, SimulatedClock};
pub use error::{FileError, FileErrorKind};
pub use files::{AppendFile, FileLock, Files, ReadFile};
pub use histogram::{BOUNDS_SECONDS, Durations, Histogram};
pub use random::{Random, RealRandom, SeededRandom};
pub use real_files::RealFiles;
pub use simulated_files::{Faults, SimulatedFiles};

/// Time, randomness and files for everything that runs together.
#[derive(Clone)]
pub struct Env {
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub files: Arc<dyn Files>,
}

impl Env {
    /// The machine's clock, randomness and disk.
    pub fn real() -> Self {
        Self {
            clock: Arc::new(RealClock::default()),
            random: Arc::new(RealRandom::default()),
            files: Arc::new(RealFiles),
        }
    }

    /// A clock that stands still until it is moved, seeded randomness, and files in memory that fail
    /// as they are told.
    pub fn simulated(seed: u64) -> (Self, Arc<SimulatedClock>, Arc<SimulatedFiles>) {
        let clock = Arc::new(SimulatedClock::default());
        let files = Arc::new(SimulatedFiles::new(seed));
        let env = Self {
            clock: clock.clone(),
            random: Arc::new(SeededRandom::new(seed)),
            files: files.clone(),
        };
        (env, clock, files)
    }
}

#[cfg(test)]
mod tests;
