//! A table's file while it is written: beside its place until it is whole.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use headwater_env::{AppendFile, FileError};
use headwater_schema::Problem;
use sha2::{Digest, Sha256};

/// Where a training set's manifest lies: beside it.
pub fn manifest_path(out: &Path) -> PathBuf {
    let mut name = out.as_os_str().to_owned();
    name.push(".manifest.json");
    name.into()
}

/// Where a table is while it isn't whole.
pub(crate) fn beside(out: &Path) -> PathBuf {
    let mut name = out.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

pub(crate) fn unwritable(error: FileError) -> Problem {
    Problem::external("unwritable", "the training set can't be written").detail(error)
}

/// A file as what tables are written to; it is hashed on the way.
pub(crate) struct FileOut {
    file: Box<dyn AppendFile>,
    hash: Sha256,
}

impl FileOut {
    pub(crate) fn new(file: Box<dyn AppendFile>) -> Self {
        Self {
            file,
            hash: Sha256::new(),
        }
    }

    pub(crate) fn sync(&mut self) -> Result<(), FileError> {
        self.file.sync()
    }

    /// The SHA-256 of all that was written, as text.
    pub(crate) fn sha256(self) -> String {
        let hash = self.hash.finalize();
        hash.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl Write for FileOut {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.append(bytes).map_err(io::Error::other)?;
        self.hash.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
