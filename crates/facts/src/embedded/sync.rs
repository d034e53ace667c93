//! When the log is forced to the disk.

use std::sync::PoisonError;
use std::time::Duration;

use headwater_schema::Problem;

use super::{EmbeddedFactLog, SyncPolicy, Writer};

impl EmbeddedFactLog {
    /// Whether an append syncs before it returns.
    pub(super) fn sync_now(&self, writer: &Writer) -> bool {
        match self.options.sync {
            SyncPolicy::Always => true,
            SyncPolicy::Never => false,
            SyncPolicy::Interval(ms) => self.until_sync(writer, ms).is_zero(),
        }
    }

    /// How long what is appended now may wait to be synced.
    fn until_sync(&self, writer: &Writer, interval_ms: u64) -> Duration {
        let since = self.env.clock.monotonic_nanos();
        let since = since.saturating_sub(writer.synced_at_nanos);
        Duration::from_millis(interval_ms).saturating_sub(Duration::from_nanos(since))
    }

    /// Starts writing the index out where much has gathered, never ahead of the log.
    pub(crate) fn settle_index(&self, writer: &mut Writer) -> Result<(), Problem> {
        if !self.index.is_full() {
            return Ok(());
        }
        writer.log.sync(&self.reader)?;
        self.index.settle()
    }

    /// Writes the index out, never ahead of the log: while the writer is held, nothing is appended that the
    /// log may lose and the index would know.
    pub(crate) fn flush_index(&self, writer: &mut Writer) -> Result<(), Problem> {
        writer.log.sync(&self.reader)?;
        self.index.flush()
    }

    /// Returns once everything appended survives a power cut.
    pub(super) fn sync_all(&self) -> Result<(), Problem> {
        if self.options.sync == SyncPolicy::Always {
            // Whatever can be seen is on the disk.
            return Ok(());
        }
        let mut writer = self.writer();
        writer.log.sync(&self.reader)
    }

    /// Syncs what was appended an interval ago; how long until something else is due.
    pub(super) fn sync_due(&self) -> Result<Option<Duration>, Problem> {
        let SyncPolicy::Interval(ms) = self.options.sync else {
            return Ok(None);
        };
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if writer.log.is_synced(&self.reader) {
            return Ok(None);
        }
        let left = self.until_sync(&writer, ms);
        if !left.is_zero() {
            return Ok(Some(left));
        }
        writer.log.sync(&self.reader)?;
        writer.synced_at_nanos = self.env.clock.monotonic_nanos();
        Ok(None)
    }
}
