//! A run of the archive: sealed segments are written to it, and those that have been in it for long
//! leave the log, once they have been read back and compared.

use std::sync::PoisonError;

use headwater_schema::{Micros, Problem};

use super::write::write_segment;
use super::{Archive, read};
use crate::EmbeddedFactLog;
use crate::frame::{self, Frame};
use crate::segment::Segment;

/// What a run did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ArchiveRun {
    /// Segments that are in the archive now and weren't before.
    pub segments: u64,
    pub facts: u64,
    /// Segments that have left the log.
    pub released: u64,
    /// Whether it came to an end, and wasn't stopped.
    pub complete: bool,
}

impl EmbeddedFactLog {
    /// Where sealed segments go, if anywhere.
    pub fn archive(&self) -> Option<&Archive> {
        self.reader.archive()
    }

    /// Ends the file that facts are appended to, where it has any, and begins the next.
    pub fn seal(&self) -> Result<(), Problem> {
        let mut writer = self.writer();
        writer.log.roll(&self.reader)
    }

    /// The same, where the first fact in the file arrived by an instant.
    pub fn seal_begun_by(&self, instant: Micros) -> Result<(), Problem> {
        let segments = self.reader.segments();
        let Some(last) = segments.last().filter(|last| !last.spans.is_empty()) else {
            return Ok(());
        };
        let frames = self.reader.frames(last, 0)?;
        let first = frames.iter().find_map(|frame| frame.batch());
        match first {
            Some(batch) if batch.ingest_time <= instant => self.seal(),
            _ => Ok(()),
        }
    }

    /// Writes every sealed segment that isn't in the archive to it, and lets those leave the log that
    /// arrived longer ago than they are to stay. What failed is tried again by the next run. `stop` is
    /// asked before each segment.
    pub fn run_archive(&self, stop: &dyn Fn() -> bool) -> Result<ArchiveRun, Problem> {
        let Some(archive) = self.archive() else {
            return Err(Problem::user("no-archive", "no archive is set")
                .hint("set `archive: {url: file:///srv/facts}`, or a bucket, in headwater.yaml"));
        };
        let running = archive.running.lock();
        let _running = running.unwrap_or_else(PoisonError::into_inner);
        let done = self.write_sealed(archive, stop);
        let mut failure = archive
            .failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *failure = done.as_ref().err().cloned();
        done
    }

    fn write_sealed(
        &self,
        archive: &Archive,
        stop: &dyn Fn() -> bool,
    ) -> Result<ArchiveRun, Problem> {
        let mut run = ArchiveRun::default();
        archive.identify()?;
        archive.remove_expired()?;
        let indexes = self.index.specs();
        let mut sealed = self.reader.segments();
        sealed.pop();
        for segment in sealed {
            if stop() {
                return Ok(run);
            }
            if segment.archived || archive.has(segment.first_sequence) {
                continue;
            }
            let frames = self.reader.frames_of_segment(&segment)?;
            let store = archive.options.store.as_ref();
            let entry = write_segment(store, &segment, &frames, &indexes)?;
            run.facts += entry.facts.iter().map(|f| f.rows).sum::<u64>();
            archive.commit(entry)?;
            run.segments += 1;
        }
        let oldest = self.env.clock.now().saturating_sub(archive.options.after);
        (run.released, run.complete) = self.release(archive, oldest, stop)?;
        Ok(run)
    }

    /// Lets the oldest segments leave the log whose facts all arrived by an instant; how many did, and
    /// whether that was all.
    fn release(
        &self,
        archive: &Archive,
        arrived_by: Micros,
        stop: &dyn Fn() -> bool,
    ) -> Result<(u64, bool), Problem> {
        let mut released = 0;
        let mut sealed = self.reader.segments();
        sealed.pop();
        for segment in sealed.iter().filter(|s| !s.archived) {
            if segment.ingest_time > arrived_by || !archive.has(segment.first_sequence) {
                break;
            }
            if stop() {
                return Ok((released, false));
            }
            compare(archive, segment, &self.reader.frames_of_segment(segment)?)?;
            self.reader.release(segment)?;
            released += 1;
        }
        Ok((released, true))
    }
}

/// Reads a segment back and compares it with what the log has, record by record.
fn compare(archive: &Archive, segment: &Segment, frames: &[Frame]) -> Result<(), Problem> {
    let first = segment.first_sequence;
    let differs = |detail: String| {
        Problem::internal(
            "archive-differs",
            "the archive doesn't give back what the log has",
        )
        .detail(format!(
            "the segment that begins with sequence {first}: {detail}"
        ))
        .hint("nothing is lost: the log keeps the segment")
    };
    let entry = archive
        .entry(first)
        .ok_or_else(|| differs("it isn't there".into()))?;
    let found = read::read_segment(archive.options.store.as_ref(), &entry)?;
    if found.len() != frames.len() {
        let detail = format!("{} records instead of {}", found.len(), frames.len());
        return Err(differs(detail));
    }
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for (number, (frame, found)) in frames.iter().zip(&found).enumerate() {
        ours.clear();
        theirs.clear();
        frame::put_frame(&mut ours, frame)?;
        frame::put_frame(&mut theirs, found)?;
        if ours != theirs {
            return Err(differs(format!("record {number}")));
        }
    }
    Ok(())
}
