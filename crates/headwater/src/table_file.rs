//! A file while it is written, as a table or an answer: beside its place until it is whole.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use headwater_batch::OutputFormat;
use headwater_env::{AppendFile, Env, FileError};
use headwater_schema::Problem;
use serde::Serialize;
use sha2::{Digest, Sha256};

/// Where a table's manifest lies: beside it.
pub fn manifest_path(out: &Path) -> PathBuf {
    let mut name = out.as_os_str().to_owned();
    name.push(".manifest.json");
    name.into()
}

/// How a table is written to a file of that name.
pub fn table_format(out: &Path) -> Result<OutputFormat, Problem> {
    let extension = out.extension().and_then(|e| e.to_str()).unwrap_or_default();
    OutputFormat::from_extension(extension).ok_or_else(|| {
        Problem::user(
            "unsupported-format",
            format!("a table isn't written to files that end in `{extension}`"),
        )
        .hint("name the file .parquet, .arrow or .csv")
    })
}

/// Refuses a table that would take the place of the spine it is made of, by whatever path either is named.
pub fn refuse_own_spine(env: &Env, spine: &Path, out: &Path) -> Result<(), Problem> {
    // The table is renamed to its name: of what a link there points at nothing is lost.
    let own_name = |path: &Path| {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
        let folder = env.files.canonical(folder.unwrap_or(Path::new("."))).ok()?;
        Some(folder.join(path.file_name()?))
    };
    let taken = own_name(out);
    let spines = [own_name(spine), env.files.canonical(spine).ok()];
    if taken.is_none() || !spines.contains(&taken) {
        return Ok(());
    }
    let title = "the table would be written over its own spine";
    Err(Problem::user("same-file", title)
        .field("out")
        .detail(format!("both are {}", out.display()))
        .hint("give it another name"))
}

/// Writes a table to a file, and beside it the manifest that what `write` gives makes of its SHA-256.
pub fn write_table<M: Serialize, F>(
    env: &Env,
    out: &Path,
    write: impl FnOnce(&mut (dyn Write + Send)) -> Result<F, Problem>,
) -> Result<M, Problem>
where
    F: FnOnce(String) -> Result<M, Problem>,
{
    let (manifest, text) = write_whole(env, out, |out| {
        let manifest = write(out)?;
        Ok(move |sha256| {
            let manifest = manifest(sha256)?;
            let text = serde_json::to_string_pretty(&manifest).map_err(|e| {
                Problem::internal("manifest", "a manifest can't be written").detail(e)
            })?;
            Ok((manifest, text))
        })
    })?;
    let written = env.files.write_atomic(&manifest_path(out), text.as_bytes());
    written.map_err(unwritable)?;
    Ok(manifest)
}

/// Writes a file; gives what what `write` gives makes of its SHA-256. The file takes its place once it is whole and on the disk;
/// where something goes wrong nothing is left of it, and what was there before stays.
pub fn write_whole<T, F>(
    env: &Env,
    out: &Path,
    write: impl FnOnce(&mut (dyn Write + Send)) -> Result<F, Problem>,
) -> Result<T, Problem>
where
    F: FnOnce(String) -> Result<T, Problem>,
{
    let (files, beside) = (&env.files, beside(out));
    let manifest = manifest_path(out);
    let place = || {
        let done = write_beside(env, &beside, write)?;
        if files.exists(&manifest) {
            // A crash from here on leaves a table without a manifest, never with another's.
            files.remove_file(&manifest).map_err(unwritable)?;
        }
        files.rename(&beside, out).map_err(unwritable)?;
        Ok(done)
    };
    place().inspect_err(|_| {
        let _ = files.remove_file(&beside);
    })
}

fn write_beside<T, F>(
    env: &Env,
    path: &Path,
    write: impl FnOnce(&mut (dyn Write + Send)) -> Result<F, Problem>,
) -> Result<T, Problem>
where
    F: FnOnce(String) -> Result<T, Problem>,
{
    let files = &env.files;
    if files.exists(path) {
        files.remove_file(path).map_err(unwritable)?;
    }
    let file = files.open_append(path).map_err(unwritable)?;
    let mut out = io::BufWriter::new(FileOut::new(file));
    let done = write(&mut out)?;
    let mut file = out.into_inner().map_err(|e| {
        Problem::external("unwritable", "the file can't be written").detail(e.error())
    })?;
    file.sync().map_err(unwritable)?;
    done(file.sha256())
}

/// Where a file is while it isn't whole.
fn beside(out: &Path) -> PathBuf {
    let mut name = out.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

fn unwritable(error: FileError) -> Problem {
    Problem::external("unwritable", "the file can't be written").detail(error)
}

/// A file as what is written to; it is hashed on the way.
struct FileOut {
    file: Box<dyn AppendFile>,
    hash: Sha256,
}

impl FileOut {
    fn new(file: Box<dyn AppendFile>) -> Self {
        Self {
            file,
            hash: Sha256::new(),
        }
    }

    fn sync(&mut self) -> Result<(), FileError> {
        self.file.sync()
    }

    /// The SHA-256 of all that was written, as text.
    fn sha256(self) -> String {
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
