//! Bytes that come once, kept to be read at any place: in memory while they are few, else in a spill file.

use std::io;
use std::path::Path;
use std::sync::Arc;

use headwater_env::{FileError, ReadFile};
use headwater_schema::Problem;

use crate::spill::{Spill, SpillFile};

/// Bytes that come piece by piece; none at the end.
pub type Pieces<'a> = dyn FnMut() -> Result<Option<Vec<u8>>, Problem> + Send + 'a;

/// Takes all that comes; more than `held_bytes_max` lies on the disk. `too_many` is asked after each piece, with how
/// many bytes have come.
pub fn spool(
    spill: &Arc<Spill>,
    pieces: &mut Pieces<'_>,
    held_bytes_max: usize,
    too_many: impl Fn(u64) -> Option<Problem>,
) -> Result<Arc<dyn ReadFile>, Problem> {
    let mut held = Vec::new();
    let mut file: Option<SpillFile> = None;
    let mut bytes = 0;
    while let Some(piece) = pieces()? {
        bytes += piece.len() as u64;
        if let Some(problem) = too_many(bytes) {
            return Err(problem);
        }
        match &mut file {
            Some(file) => file.bytes_as_they_are(&piece)?,
            None => held.extend(piece),
        }
        if file.is_none() && held.len() > held_bytes_max {
            let file = file.insert(spill.file()?);
            file.bytes_as_they_are(&std::mem::take(&mut held))?;
        }
    }
    Ok(match file {
        Some(file) => file.finish()?,
        None => Arc::new(HeldFile(held)),
    })
}

/// Bytes in memory, as a file.
pub struct HeldFile(pub Vec<u8>);

impl ReadFile for HeldFile {
    fn length(&self) -> Result<u64, FileError> {
        Ok(self.0.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), FileError> {
        let from = usize::try_from(offset).ok();
        let from = from.and_then(|from| self.0.get(from..)?.get(..buffer.len()));
        let ended = || {
            let error = io::Error::from(io::ErrorKind::UnexpectedEof);
            FileError::new("reading", Path::new("a body in memory"), error)
        };
        buffer.copy_from_slice(from.ok_or_else(ended)?);
        Ok(())
    }
}
