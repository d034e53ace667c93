//! What a file operation failed at: what was done, to which path, and of what kind the failure is.

use std::io;
use std::path::{Path, PathBuf};

/// Kinds that a caller acts on differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileErrorKind {
    NotFound,
    DiskFull,
    /// Another process holds the lock.
    Locked,
    Other,
}

/// A failed file operation.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {path} failed: {source}")]
pub struct FileError {
    /// What was done, as in "writing".
    pub doing: &'static str,
    pub path: PathBuf,
    pub kind: FileErrorKind,
    pub source: io::Error,
}

impl FileError {
    pub fn new(doing: &'static str, path: &Path, source: io::Error) -> Self {
        let kind = match source.kind() {
            io::ErrorKind::NotFound => FileErrorKind::NotFound,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => FileErrorKind::DiskFull,
            io::ErrorKind::WouldBlock => FileErrorKind::Locked,
            _ => FileErrorKind::Other,
        };
        Self {
            doing,
            path: path.to_owned(),
            kind,
            source,
        }
    }
}
