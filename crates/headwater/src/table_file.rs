//! A table's file while it is written: beside its place until it is whole.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use headwater_env::AppendFile;
use headwater_schema::Problem;

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

pub(crate) fn unwritable(error: headwater_env::FileError) -> Problem {
    Problem::external("unwritable", "the training set can't be written").detail(error)
}

/// A file as what tables are written to.
pub(crate) struct FileOut(pub Box<dyn AppendFile>);

impl Write for FileOut {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.append(bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
