//! What a log is opened with: its archive, and its index.

use std::path::Path;

use headwater_env::Env;
use headwater_schema::{Problem, Sequence};

use crate::archive::{Archive, ArchiveOptions, archived_segments};
use crate::index::Index;
use crate::log::LogReader;
use crate::segment::file_problem;

/// The archive of the log in `folder`; an error where facts have left for one that isn't named.
pub(super) fn open_archive(
    env: &Env,
    folder: &Path,
    options: Option<&ArchiveOptions>,
) -> Result<Option<Archive>, Problem> {
    if let Some(options) = options {
        return Archive::open(env, folder, options.clone()).map(Some);
    }
    let first = crate::log::first_named(env, &folder.join("log"))?;
    match archived_segments(env, folder, first.unwrap_or(Sequence::MAX))?.last() {
        None => Ok(None),
        Some(last) => Err(Problem::user(
            "no-archive",
            "facts have left for an archive that isn't named",
        )
        .field("archive.url")
        .detail(format!(
            "the facts up to sequence {} are no longer in {}",
            last.next_sequence - 1,
            folder.display()
        ))
        .hint("set `archive.url` in headwater.yaml to where they went")),
    }
}

/// Opens the index; one that can't be opened, or is ahead of the log, is made again from the log.
pub(super) fn open_index(
    env: &Env,
    folder: &Path,
    reader: &LogReader,
) -> Result<(Index, Option<String>), Problem> {
    let why = match Index::open(folder) {
        Ok(index) if index.furthest()? <= reader.last_sequence() => return Ok((index, None)),
        Ok(index) => format!(
            "it reaches sequence {}, the log ends at {}",
            index.furthest()?,
            reader.last_sequence()
        ),
        Err(problem) if problem.code == Index::IN_USE => return Err(problem),
        Err(problem) => problem.detail,
    };
    env.files
        .remove_dir_all(folder)
        .map_err(|e| file_problem(&e))?;
    let message = format!("the index of facts is made again from the log: {why}");
    Ok((Index::open(folder)?, Some(message)))
}
