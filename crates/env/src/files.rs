//! Files, as far as a store needs them.

use std::path::{Path, PathBuf};

use crate::FileError;

/// A file that is only ever appended to.
pub trait AppendFile: Send {
    /// Appends all of `bytes`. After an error any part of them may have been written.
    fn append(&mut self, bytes: &[u8]) -> Result<(), FileError>;

    /// Returns once everything appended is on the disk.
    fn sync(&mut self) -> Result<(), FileError>;

    /// Cuts the file to `length` bytes.
    fn truncate(&mut self, length: u64) -> Result<(), FileError>;
}

/// A file that is read at any place.
pub trait ReadFile: Send + Sync {
    fn length(&self) -> Result<u64, FileError>;

    /// Fills `buffer` from `offset`; an error where the file ends before it is full.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), FileError>;
}

/// A lock that is held until it is dropped, or its process ends.
pub trait FileLock: Send + Sync {}

/// The disk.
pub trait Files: Send + Sync {
    /// Makes a folder and those around it, on the disk.
    fn create_dir_all(&self, folder: &Path) -> Result<(), FileError>;

    /// Opens a file for appending, made where there is none.
    fn open_append(&self, path: &Path) -> Result<Box<dyn AppendFile>, FileError>;

    fn open_read(&self, path: &Path) -> Result<Box<dyn ReadFile>, FileError>;

    fn read(&self, path: &Path) -> Result<Vec<u8>, FileError>;

    /// Replaces a file as a whole: after a crash it holds the old bytes or the new, on the disk.
    fn write_atomic(&self, path: &Path, bytes: &[u8]) -> Result<(), FileError>;

    /// The same, of a file that its owner alone may read, where the system has such modes.
    fn write_atomic_private(&self, path: &Path, bytes: &[u8]) -> Result<(), FileError> {
        self.write_atomic(path, bytes)
    }

    /// Writes a file as a whole unless there is one; whether it did. Of several that write it at once, one does.
    fn write_new(&self, path: &Path, bytes: &[u8]) -> Result<bool, FileError>;

    /// Gives a file that was synced another name, in place of the file that has it; on the disk once this returns.
    fn rename(&self, from: &Path, to: &Path) -> Result<(), FileError>;

    /// Everything in a folder, unsorted, with the folder's path before it.
    fn list(&self, folder: &Path) -> Result<Vec<PathBuf>, FileError>;

    fn exists(&self, path: &Path) -> bool;

    fn is_dir(&self, path: &Path) -> bool;

    fn remove_file(&self, path: &Path) -> Result<(), FileError>;

    /// Removes a folder with everything in it; nothing where there is none.
    fn remove_dir_all(&self, folder: &Path) -> Result<(), FileError>;

    /// Returns once the names in a folder are on the disk.
    fn sync_dir(&self, folder: &Path) -> Result<(), FileError>;

    /// Takes a file as an exclusive lock and writes this process's id into it. Fails with the kind
    /// `Locked`, and the holder's id in the error, where another holds it.
    fn lock(&self, path: &Path) -> Result<Box<dyn FileLock>, FileError>;

    /// The one path, without links, of a file or folder that exists.
    fn canonical(&self, path: &Path) -> Result<PathBuf, FileError>;

    /// Free bytes on the disk that holds `folder`.
    fn free_bytes(&self, folder: &Path) -> Result<u64, FileError>;
}
