//! How far a table of many rows is, told to whoever shows it: nothing here knows how.

use std::sync::Arc;

/// Rows between two words of a sweep. Unit tests have few rows, so that few make several words.
const TOLD_EVERY: u64 = if cfg!(test) { 16 } else { 4096 };

/// What is being done for a table. Sweeps are numbered from 1: there is one for each view and label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Rows of the spine are read and checked.
    ReadSpine,
    /// A sweep goes through the log; facts are counted by their sequences, once per source of the view. Where rows of
    /// a chained view differ in what they know, it begins anew for each state of knowledge.
    SweepFacts { sweep: usize, sweeps: usize },
    /// A sweep reads features at the rows' moments.
    SweepRows { sweep: usize, sweeps: usize },
    /// Rows of the table are written.
    WriteTable,
}

/// How far a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub step: Step,
    /// Rows or facts; never more than `total`.
    pub done: u64,
    /// None where it isn't known before the end.
    pub total: Option<u64>,
}

/// Hears how far a table is, every few thousand rows, on the thread that makes it. The default hears nothing.
#[derive(Clone, Default)]
pub struct ProgressHook(Option<Arc<dyn Fn(Progress) + Send + Sync>>);

impl ProgressHook {
    pub fn new(hear: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(hear)))
    }

    /// Tells that `done` of `total` are done.
    pub fn tell(&self, step: Step, done: u64, total: Option<u64>) {
        if let Some(hear) = &self.0 {
            let done = total.map_or(done, |total| done.min(total));
            hear(Progress { step, done, total });
        }
    }

    /// For one sweep of several, over this many rows.
    pub fn of_sweep(&self, sweep: usize, sweeps: usize, rows: usize) -> SweepProgress {
        SweepProgress {
            hook: self.clone(),
            sweep,
            sweeps,
            rows: rows as u64,
        }
    }
}

/// Hears how far one sweep is. The default hears nothing.
#[derive(Clone, Default)]
pub struct SweepProgress {
    hook: ProgressHook,
    sweep: usize,
    sweeps: usize,
    rows: u64,
}

impl SweepProgress {
    pub(crate) fn facts(&self, done: u64, total: u64) {
        let (sweep, sweeps) = (self.sweep, self.sweeps);
        let step = Step::SweepFacts { sweep, sweeps };
        self.hook.tell(step, done, Some(total));
    }

    /// Called for every row.
    pub(crate) fn rows(&self, done: u64) {
        if done.is_multiple_of(TOLD_EVERY) || done == self.rows {
            let (sweep, sweeps) = (self.sweep, self.sweeps);
            let step = Step::SweepRows { sweep, sweeps };
            self.hook.tell(step, done, Some(self.rows));
        }
    }
}
