//! Where an archive lies: a folder of this machine, or an object store behind a synchronous door.
//!
//! A folder is written through `env`, so that what was put survives a power cut and a test can make
//! its disk fail; `object_store`'s own folders aren't synced.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use headwater_env::{Env, FileErrorKind};
use headwater_schema::Problem;
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;

/// Objects by path; a path is names that `/` parts, each of letters, digits and `._-=%`.
pub trait ArchiveStore: Send + Sync {
    /// Writes an object as a whole, over one that is there; when it returns the object is durable.
    fn put(&self, path: &str, bytes: Vec<u8>) -> Result<(), Problem>;

    /// Writes an object unless there is one; whether it did. Of several that write it at once, one does.
    fn put_new(&self, path: &str, bytes: Vec<u8>) -> Result<bool, Problem>;

    /// An object's bytes; none where there is no such object.
    fn get(&self, path: &str) -> Result<Option<Bytes>, Problem>;

    /// Some of an object's bytes.
    fn get_range(&self, path: &str, range: Range<u64>) -> Result<Bytes, Problem>;

    /// Removes an object; nothing where there is none.
    fn delete(&self, path: &str) -> Result<(), Problem>;

    /// The same objects for readers of Parquet that know `object_store`.
    fn objects(&self) -> Result<Arc<dyn ObjectStore>, Problem>;

    /// Where it is, without anything secret.
    fn url(&self) -> String;
}

/// What can't be done with an object.
pub fn failed(url: &str, path: &str, error: impl std::fmt::Display) -> Problem {
    Problem::external("archive-unreachable", "the archive can't be used")
        .detail(format!("{url}, {path}: {error}"))
        .hint(
            "facts that the archive hasn't taken stay in the log; see `archive` in headwater.yaml",
        )
        .retryable()
}

/// A folder of this machine.
pub struct FolderStore {
    env: Env,
    folder: PathBuf,
}

impl FolderStore {
    pub fn new(env: Env, folder: &Path) -> Self {
        Self {
            env,
            folder: folder.to_owned(),
        }
    }

    fn failed(&self, path: &str, error: impl std::fmt::Display) -> Problem {
        failed(&self.url(), path, error)
    }

    /// Where an object is to lie, in a folder that is there.
    fn place(&self, path: &str) -> Result<PathBuf, Problem> {
        let place = self.folder.join(path);
        let folder = place.parent().unwrap_or(&self.folder);
        let made = self.env.files.create_dir_all(folder);
        made.map_err(|e| self.failed(path, e))?;
        Ok(place)
    }
}

impl ArchiveStore for FolderStore {
    fn put(&self, path: &str, bytes: Vec<u8>) -> Result<(), Problem> {
        let place = self.place(path)?;
        let written = self.env.files.write_atomic(&place, &bytes);
        written.map_err(|e| self.failed(path, e))
    }

    fn put_new(&self, path: &str, bytes: Vec<u8>) -> Result<bool, Problem> {
        let place = self.place(path)?;
        let written = self.env.files.write_new(&place, &bytes);
        written.map_err(|e| self.failed(path, e))
    }

    fn get(&self, path: &str) -> Result<Option<Bytes>, Problem> {
        match self.env.files.read(&self.folder.join(path)) {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(error) if error.kind == FileErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed(path, error)),
        }
    }

    fn get_range(&self, path: &str, range: Range<u64>) -> Result<Bytes, Problem> {
        let length = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(0);
        let mut bytes = vec![0; length];
        let file = self.env.files.open_read(&self.folder.join(path));
        file.and_then(|file| file.read_at(range.start, &mut bytes))
            .map_err(|e| self.failed(path, e))?;
        Ok(bytes.into())
    }

    fn delete(&self, path: &str) -> Result<(), Problem> {
        match self.env.files.remove_file(&self.folder.join(path)) {
            Err(error) if error.kind != FileErrorKind::NotFound => Err(self.failed(path, error)),
            _ => Ok(()),
        }
    }

    fn objects(&self) -> Result<Arc<dyn ObjectStore>, Problem> {
        let made = self.env.files.create_dir_all(&self.folder);
        made.map_err(|e| self.failed("", e))?;
        let store = LocalFileSystem::new_with_prefix(&self.folder);
        Ok(Arc::new(store.map_err(|e| self.failed("", e))?))
    }

    fn url(&self) -> String {
        let whole = std::path::absolute(&self.folder);
        let folder = whole.as_ref().unwrap_or(&self.folder);
        format!("file://{}", folder.display())
    }
}
