//! The machine's disk.
#![expect(clippy::disallowed_methods, reason = "this is the door")]

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{AppendFile, FileError, FileLock, Files, ReadFile};

/// Files on the machine's disk.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealFiles;

struct RealFile {
    path: PathBuf,
    file: File,
}

impl RealFile {
    fn failed(&self, doing: &'static str) -> impl FnOnce(io::Error) -> FileError {
        let path = self.path.clone();
        move |source| FileError::new(doing, &path, source)
    }
}

impl AppendFile for RealFile {
    fn append(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        self.file.write_all(bytes).map_err(self.failed("writing"))
    }

    fn sync(&mut self) -> Result<(), FileError> {
        self.file.sync_data().map_err(self.failed("syncing"))
    }

    fn truncate(&mut self, length: u64) -> Result<(), FileError> {
        self.file
            .set_len(length)
            .map_err(self.failed("truncating"))?;
        self.file
            .seek(SeekFrom::Start(length))
            .map(drop)
            .map_err(self.failed("truncating"))
    }
}

impl ReadFile for RealFile {
    fn length(&self) -> Result<u64, FileError> {
        let metadata = self.file.metadata().map_err(self.failed("reading"))?;
        Ok(metadata.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), FileError> {
        self.file
            .read_exact_at(buffer, offset)
            .map_err(self.failed("reading"))
    }
}

/// Held by the open file: the system lets go of it when the process ends, however it ends.
struct RealLock {
    file: File,
}

impl FileLock for RealLock {}

impl Drop for RealLock {
    fn drop(&mut self) {
        // Closing lets go only once every copy of the descriptor is closed, and a program that another thread is
        // starting has one until it runs. Said aloud, it holds for all copies.
        let _ = rustix::fs::flock(&self.file, rustix::fs::FlockOperation::Unlock);
    }
}

/// Makes a file beside another, under a name that nobody else has: processes on other machines may write there, too.
fn new_beside(path: &Path) -> io::Result<(PathBuf, File)> {
    static MADE: AtomicU64 = AtomicU64::new(0);
    loop {
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let temporary = path.with_extension(format!("new-{}-{number}", std::process::id()));
        match File::create_new(&temporary) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made.map(|file| (temporary, file)),
        }
    }
}

fn fill(mut file: File, bytes: &[u8]) -> io::Result<()> {
    file.write_all(bytes)?;
    file.sync_all()
}

fn no_links(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied
    )
}

impl RealFiles {
    /// Puts bytes into a new file, and that in the place of another.
    fn replace(
        &self,
        temporary: &Path,
        file: File,
        path: &Path,
        bytes: &[u8],
    ) -> Result<(), FileError> {
        fill(file, bytes).map_err(|e| FileError::new("writing", path, e))?;
        self.rename(temporary, path)
    }

    /// Puts a file's name on the disk.
    fn sync_parent(&self, path: &Path) -> Result<(), FileError> {
        match path.parent() {
            Some(folder) if folder.as_os_str().is_empty() => self.sync_dir(Path::new(".")),
            Some(folder) => self.sync_dir(folder),
            None => Ok(()),
        }
    }
}

impl Files for RealFiles {
    fn create_dir_all(&self, folder: &Path) -> Result<(), FileError> {
        let new = folder.ancestors().take_while(|f| !f.exists());
        let new: Vec<&Path> = new.filter(|f| !f.as_os_str().is_empty()).collect();
        fs::create_dir_all(folder).map_err(|e| FileError::new("creating", folder, e))?;
        // A folder's own name is only sure once the one around it is on the disk.
        for parent in new.iter().filter_map(|f| f.parent()) {
            let parent = if parent.as_os_str().is_empty() {
                Path::new(".")
            } else {
                parent
            };
            self.sync_dir(parent)?;
        }
        Ok(())
    }

    fn open_append(&self, path: &Path) -> Result<Box<dyn AppendFile>, FileError> {
        let file = OpenOptions::new().append(true).create(true).open(path);
        let file = file.map_err(|e| FileError::new("opening", path, e))?;
        Ok(Box::new(RealFile {
            path: path.to_owned(),
            file,
        }))
    }

    fn open_read(&self, path: &Path) -> Result<Box<dyn ReadFile>, FileError> {
        let file = File::open(path).map_err(|e| FileError::new("opening", path, e))?;
        Ok(Box::new(RealFile {
            path: path.to_owned(),
            file,
        }))
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>, FileError> {
        fs::read(path).map_err(|e| FileError::new("reading", path, e))
    }

    fn write_atomic(&self, path: &Path, bytes: &[u8]) -> Result<(), FileError> {
        let temporary = path.with_extension("new");
        let file = File::create(&temporary).map_err(|e| FileError::new("writing", path, e))?;
        self.replace(&temporary, file, path, bytes)
    }

    #[cfg(unix)]
    fn write_atomic_private(&self, path: &Path, bytes: &[u8]) -> Result<(), FileError> {
        use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
        let failed = |e| FileError::new("writing", path, e);
        let temporary = path.with_extension("new");
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let file = options.open(&temporary).map_err(failed)?;
        // One that a crash has left may have another mode.
        file.set_permissions(fs::Permissions::from_mode(0o600))
            .map_err(failed)?;
        self.replace(&temporary, file, path, bytes)
    }

    fn write_new(&self, path: &Path, bytes: &[u8]) -> Result<bool, FileError> {
        let failed = |e| FileError::new("writing", path, e);
        if path.exists() {
            return Ok(false);
        }
        let (temporary, file) = new_beside(path).map_err(failed)?;
        let linked = fill(file, bytes).and_then(|()| fs::hard_link(&temporary, path));
        let linked = match linked {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            // A file system without links, as some of the network's: its own rule for new files has to do.
            Err(error) if no_links(&error) => match File::create_new(path) {
                Ok(file) => fill(file, bytes).map(|()| true),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        // Whatever came of it; what is left behind harms nobody.
        let _ = fs::remove_file(&temporary);
        let new = linked.map_err(failed)?;
        self.sync_parent(path).map(|()| new)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), FileError> {
        fs::rename(from, to).map_err(|e| FileError::new("renaming", from, e))?;
        self.sync_parent(to)
    }

    fn list(&self, folder: &Path) -> Result<Vec<PathBuf>, FileError> {
        let failed = |e| FileError::new("listing", folder, e);
        let entries = fs::read_dir(folder).map_err(failed)?;
        entries
            .map(|e| e.map(|e| e.path()).map_err(failed))
            .collect()
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn is_dir(&self, path: &Path) -> bool {
        path.is_dir()
    }

    fn remove_file(&self, path: &Path) -> Result<(), FileError> {
        fs::remove_file(path).map_err(|e| FileError::new("removing", path, e))
    }

    fn remove_dir_all(&self, folder: &Path) -> Result<(), FileError> {
        match fs::remove_dir_all(folder) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(FileError::new("removing", folder, e))
            }
            _ => Ok(()),
        }
    }

    fn sync_dir(&self, folder: &Path) -> Result<(), FileError> {
        let failed = |e| FileError::new("syncing", folder, e);
        File::open(folder)
            .map_err(failed)?
            .sync_all()
            .map_err(failed)
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn FileLock>, FileError> {
        let failed = |e| FileError::new("locking", path, e);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(failed)?;
        let operation = rustix::fs::FlockOperation::NonBlockingLockExclusive;
        if let Err(error) = rustix::fs::flock(&file, operation) {
            if error != rustix::io::Errno::WOULDBLOCK {
                return Err(failed(error.into()));
            }
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            let message = format!("process {} holds it", holder.trim());
            return Err(failed(io::Error::new(io::ErrorKind::WouldBlock, message)));
        }
        file.set_len(0).map_err(failed)?;
        writeln!(file, "{}", std::process::id()).map_err(failed)?;
        Ok(Box::new(RealLock { file }))
    }

    fn canonical(&self, path: &Path) -> Result<PathBuf, FileError> {
        std::fs::canonicalize(path).map_err(|e| FileError::new("resolving", path, e))
    }

    fn free_bytes(&self, folder: &Path) -> Result<u64, FileError> {
        let stat = rustix::fs::statvfs(folder)
            .map_err(|e| FileError::new("measuring", folder, e.into()))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}
