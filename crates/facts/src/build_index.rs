//! Indexes for a log that is in use: facts appended from now on go in at once, earlier ones are read
//! from the log beside them.

use std::sync::atomic::{AtomicBool, Ordering};

use headwater_schema::{Problem, Sequence};

use crate::{EmbeddedFactLog, IndexSpec};

impl EmbeddedFactLog {
    /// Adds indexes. Facts appended from now on are in them; until
    /// [`EmbeddedFactLog::complete_indexes`] has brought in the earlier ones, lookups by them are
    /// refused.
    pub fn begin_indexes(&self, specs: Vec<IndexSpec>) -> Result<(), Problem> {
        let _held = self.writer();
        for spec in specs {
            if !self.index.has_spec(&spec) {
                let nothing_behind = self.reader.newest(&spec.contract).is_none();
                self.index.begin(spec, nothing_behind)?;
            }
        }
        Ok(())
    }

    /// Brings the indexes that were begun up to date from the log, while facts go on coming in.
    pub fn complete_indexes(&self, stop: &AtomicBool) -> Result<(), Problem> {
        loop {
            let building = self.index.building();
            let Some(until) = building.iter().map(|(_, until)| *until).max() else {
                return self.index.specs_complete();
            };
            let specs: Vec<IndexSpec> = building.into_iter().map(|(spec, _)| spec).collect();
            self.fill_indexes(&specs, until, stop)?;
            self.index.built(&specs);
        }
    }

    /// Puts the facts up to a sequence into indexes.
    pub(crate) fn fill_indexes(
        &self,
        specs: &[IndexSpec],
        until: Sequence,
        stop: &AtomicBool,
    ) -> Result<(), Problem> {
        if specs.is_empty() {
            return Ok(());
        }
        self.each_frame(self.reader.first_sequence(), until, |_, batch| {
            if stop.load(Ordering::Acquire) {
                return Err(Problem::external("stopping", "the engine is stopping").retryable());
            }
            for spec in specs.iter().filter(|s| s.contract == batch.batch.contract) {
                self.index.backfill(spec, batch);
            }
            // What is written out holds the facts of a moment ago, too.
            match self.index.is_full() {
                true => self.settle_index(&mut self.writer()),
                false => Ok(()),
            }
        })?;
        self.flush_index(&mut self.writer())
    }
}
