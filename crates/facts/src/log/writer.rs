//! The end of the log: frames are appended and made durable, a full segment is sealed, and a disk that
//! can't be trusted is written to no more.

use std::sync::Arc;

use headwater_env::{FileError, Histogram};
use headwater_schema::Problem;

use super::{LogReader, LogWriter, create};
use crate::frame::Frame;
use crate::group::{GroupMark, MARK_BYTES};
use crate::segment::{FORMAT, file_problem};

impl LogWriter {
    /// Appends frames as one group and makes them durable where `sync` says so. `bytes` are theirs, behind
    /// [`MARK_BYTES`] of room for the group's mark. After an error the log is as it was.
    pub fn append(
        &mut self,
        reader: &LogReader,
        bytes: &mut [u8],
        frames: &[(Frame, usize)],
        sync: bool,
    ) -> Result<(), Problem> {
        if let Some(problem) = &self.poisoned {
            return Err(problem.clone());
        }
        self.roll_if_full(reader)?;
        let mut segment = reader.last();
        let before = segment.bytes;
        let mark = GroupMark {
            at: before,
            bytes: (bytes.len() - MARK_BYTES) as u64,
            durable: self.synced,
        };
        bytes[..MARK_BYTES].copy_from_slice(&mark.to_frame());
        let written = self.file.append(bytes);
        let failed_sync = written.is_ok() && sync;
        let written = written.and_then(|()| if sync { self.timed_sync() } else { Ok(()) });
        if let Err(error) = written {
            let problem = file_problem(&error);
            let mended = self.file.truncate(before).and_then(|()| self.file.sync());
            if failed_sync {
                self.poison(&problem.detail);
            }
            match mended {
                Ok(()) => self.synced = before,
                Err(error) => self.poison(&format!("{}; then {error}", problem.detail)),
            }
            return Err(problem);
        }
        if sync {
            self.synced = before + bytes.len() as u64;
        }
        let grown = Arc::make_mut(&mut segment);
        grown.note(&Frame::Group(mark), MARK_BYTES as u64);
        for (frame, length) in frames {
            grown.note(frame, *length as u64);
        }
        reader.replace_last(segment);
        Ok(())
    }

    fn timed_sync(&mut self) -> Result<(), FileError> {
        let start = self.env.clock.monotonic_nanos();
        self.file.sync()?;
        let nanos = self.env.clock.monotonic_nanos().saturating_sub(start);
        self.sync.observe_nanos(nanos);
        Ok(())
    }

    /// How long syncs of facts took, as it goes on.
    pub fn sync_durations(&self) -> Arc<Histogram> {
        self.sync.clone()
    }

    /// Whether everything appended is on the disk; also where nothing can be done about it.
    pub fn is_synced(&self, reader: &LogReader) -> bool {
        self.poisoned.is_some() || self.synced >= reader.last().bytes
    }

    /// Returns once everything appended is on the disk.
    pub fn sync(&mut self, reader: &LogReader) -> Result<(), Problem> {
        let length = reader.last().bytes;
        if self.synced >= length {
            return Ok(());
        }
        if let Some(problem) = &self.poisoned {
            return Err(problem.clone());
        }
        if let Err(error) = self.file.sync() {
            let problem = file_problem(&error);
            self.poison(&problem.detail);
            return Err(problem);
        }
        self.synced = length;
        Ok(())
    }

    /// Takes no more. After a failed sync the system may have let go of bytes that it will never say
    /// it lost: a later sync that succeeds would prove nothing.
    fn poison(&mut self, why: &str) {
        let problem = Problem::external("log-poisoned", "the log can't be written any more");
        let hint =
            "mend the disk and start again; nothing that was acknowledged and synced is lost";
        self.poisoned = Some(problem.detail(why).hint(hint));
    }

    /// Remembers what has been read of the last segment, so that damage to it is never taken for a
    /// torn end.
    pub fn save(&self, reader: &LogReader) -> Result<(), Problem> {
        reader.last().save(&self.env)
    }

    fn roll_if_full(&mut self, reader: &LogReader) -> Result<(), Problem> {
        let last = reader.last();
        if last.bytes < self.segment_bytes_max && last.format == FORMAT {
            return Ok(());
        }
        self.roll(reader)
    }

    /// Ends the last segment, where it has facts, and begins the next.
    pub fn roll(&mut self, reader: &LogReader) -> Result<(), Problem> {
        let last = reader.last();
        if last.next_sequence == last.first_sequence {
            return Ok(());
        }
        self.sync(reader)?;
        last.save(&self.env)?;
        let next = create(&self.env, &self.folder, last.next_sequence)?;
        self.file = self
            .env
            .files
            .open_append(&next.path)
            .map_err(|e| file_problem(&e))?;
        self.synced = next.bytes;
        reader.push(Arc::new(next));
        Ok(())
    }
}
