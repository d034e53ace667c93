//! The records of a segment: from its file or, where that is gone, from what the archive gives back.

use std::sync::{Arc, PoisonError};

use headwater_env::FileErrorKind;
use headwater_schema::Problem;

use super::{CACHED_SPANS_MAX, LogReader};
use crate::archive::Archive;
use crate::frame::{self, Frame};
use crate::segment::{Segment, file_problem};

/// How often a file may be gone when it is read: it may leave for the archive, or be let go again
/// after it was read back.
const TRIES: usize = 4;

impl LogReader {
    pub fn archive(&self) -> Option<&Archive> {
        self.archive.as_ref()
    }

    /// The segment with its spans and a file: itself or, where it is archived, read back.
    pub fn opened(&self, segment: &Arc<Segment>) -> Result<Arc<Segment>, Problem> {
        match (&self.archive, segment.archived) {
            (Some(archive), true) => archive.restored(segment.first_sequence),
            _ => Ok(segment.clone()),
        }
    }

    /// The frames of one span of an opened segment, kept for the next lookup.
    pub fn frames(&self, segment: &Arc<Segment>, span: usize) -> Result<Arc<Vec<Frame>>, Problem> {
        if let Some(frames) = self.kept(segment, span) {
            return Ok(frames);
        }
        let frames = Arc::new(self.decoded(segment, span)?);
        // The last span may grow yet.
        if span + 1 < segment.spans.len() {
            let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
            if cache.len() >= CACHED_SPANS_MAX {
                cache.clear();
            }
            cache.insert((segment.first_sequence, span), frames.clone());
        }
        Ok(frames)
    }

    /// The same for a scan, which comes by once: it takes what is kept, and leaves no other spans behind in
    /// place of those that are looked up.
    pub(super) fn passing(
        &self,
        segment: &Arc<Segment>,
        span: usize,
    ) -> Result<Arc<Vec<Frame>>, Problem> {
        match self.kept(segment, span) {
            Some(frames) => Ok(frames),
            None => Ok(Arc::new(self.decoded(segment, span)?)),
        }
    }

    fn kept(&self, segment: &Segment, span: usize) -> Option<Arc<Vec<Frame>>> {
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.get(&(segment.first_sequence, span)).cloned()
    }

    /// Every frame of a segment.
    pub fn frames_of_segment(&self, segment: &Arc<Segment>) -> Result<Vec<Frame>, Problem> {
        let segment = self.opened(segment)?;
        let mut frames = Vec::new();
        for span in 0..segment.spans.len() {
            frames.extend(self.decoded(&segment, span)?);
        }
        Ok(frames)
    }

    /// The frames of one span of an opened segment, not kept for the next reader.
    pub(super) fn decoded(
        &self,
        segment: &Arc<Segment>,
        span: usize,
    ) -> Result<Vec<Frame>, Problem> {
        let (mut segment, mut tries) = (segment.clone(), 0);
        let bytes = loop {
            match self.bytes(&segment, span) {
                Ok(bytes) => break bytes,
                Err(error) => {
                    let gone = error.kind == FileErrorKind::NotFound;
                    tries += 1;
                    match self.now_archived(&segment) {
                        Some(left) if gone && tries < TRIES => segment = self.opened(&left)?,
                        _ => return Err(file_problem(&error)),
                    }
                }
            }
        };
        let (mut frames, mut at) = (Vec::new(), 0);
        while at < bytes.len() {
            let (body, length) = frame::split(&bytes[at..]).map_err(|damage| {
                Problem::external("log-corrupt", "the log is damaged")
                    .detail(format!(
                        "{}, byte {}: {damage}",
                        segment.path.display(),
                        segment.spans[span].offset + at as u64
                    ))
                    .hint("restore the file from a copy")
            })?;
            match frame::decode(body)? {
                // It has told what it had to when the log was opened.
                Frame::Group(_) => {}
                frame => frames.push(frame),
            }
            at += length;
        }
        Ok(frames)
    }

    fn bytes(&self, segment: &Segment, span: usize) -> Result<Vec<u8>, headwater_env::FileError> {
        let Some(place) = segment.spans.get(span) else {
            return Ok(Vec::new());
        };
        let length = usize::try_from(place.bytes).unwrap_or(0);
        if let Some(held) = &segment.held {
            let from = usize::try_from(place.offset).unwrap_or(usize::MAX);
            let bytes = held.get(from..from.saturating_add(length));
            return Ok(bytes.unwrap_or_default().to_vec());
        }
        let file = self.env.files.open_read(&segment.path)?;
        let mut bytes = vec![0; length];
        file.read_at(place.offset, &mut bytes)?;
        Ok(bytes)
    }

    /// The segment as the archive has it, where it has left.
    fn now_archived(&self, segment: &Segment) -> Option<Arc<Segment>> {
        let segments = self.segments();
        let same = |s: &&Arc<Segment>| s.first_sequence == segment.first_sequence;
        segments.iter().find(same).filter(|s| s.archived).cloned()
    }

    /// Lets a segment that the archive has leave the folder.
    pub fn release(&self, segment: &Segment) -> Result<(), Problem> {
        let left = Arc::new(Segment {
            archived: true,
            ..segment.summary()
        });
        let mut segments = self
            .segments
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let same = |s: &&mut Arc<Segment>| s.first_sequence == segment.first_sequence;
        let Some(place) = segments.iter_mut().find(same) else {
            return Ok(());
        };
        *place = left;
        drop(segments);
        // What the archive gives back may be cut into spans elsewhere.
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.retain(|(first, _), _| *first != segment.first_sequence);
        drop(cache);
        self.remove_file(segment)
    }

    /// Removes a segment's file for good.
    pub(super) fn remove_file(&self, segment: &Segment) -> Result<(), Problem> {
        let files = &self.env.files;
        // The data file goes first: a sidecar alone is ignored.
        files
            .remove_file(&segment.path)
            .map_err(|e| file_problem(&e))?;
        let _ = files.remove_file(&segment.path.with_extension("idx"));
        // Else a power cut might bring it back, and not the one after it.
        match segment.path.parent() {
            Some(folder) => files.sync_dir(folder).map_err(|e| file_problem(&e)),
            None => Ok(()),
        }
    }
}
