//! The journal: what was told here, in its order, so that it is there again after a restart. It belongs to one bundle.
//!
//! ```text
//! "HWJOURNL" | u8 format | u32 CRC-32 of the bundle | i64 when the bundle was made | record*
//! record:  u32 length of the payload | u32 CRC-32 of length and payload | payload
//! payload: u8 kind | i64 when it was told | a batch of `schema`'s codec, or JSON of a contract and ids
//! ```
//!
//! Each record is on the disk before what it tells counts. A record that was cut off at the end never counted: it is
//! taken away. Damage anywhere else is refused.

use std::path::{Path, PathBuf};

use headwater_env::{AppendFile, Env, FileErrorKind, FileLock};
use headwater_schema::codec::{decode_batch, encode_batch};
use headwater_schema::{FactBatch, Micros, Problem};

use crate::limits::JOURNAL_BYTES_MAX;

const MAGIC: &[u8; 8] = b"HWJOURNL";
const FORMAT: u8 = 1;
const HEADER_BYTES: usize = 21;
const APPEND: u8 = 1;
const REVISE: u8 = 2;
const RETRACT: u8 = 3;

/// Which bundle a journal belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    crc: u32,
    made_at: Micros,
}

/// One thing that was told.
#[derive(Debug)]
pub(crate) enum Entry {
    Append(FactBatch),
    Revise(FactBatch),
    /// A contract, and ids of its facts.
    Retract(String, Vec<String>),
}

/// An open journal; no other process has it.
pub(crate) struct Journal {
    path: PathBuf,
    file: Box<dyn AppendFile>,
    bytes: u64,
    /// After a failed write the end of the file isn't known.
    failed: bool,
    _lock: Box<dyn FileLock>,
}

/// A journal, what it holds, and what had to be mended.
pub(crate) type Opened = (Journal, Vec<(Micros, Entry)>, Option<String>);

impl Identity {
    pub fn of(bundle: &[u8], made_at: Micros) -> Self {
        Self {
            crc: crc32fast::hash(bundle),
            made_at,
        }
    }

    fn header(self) -> Vec<u8> {
        let mut header = MAGIC.to_vec();
        header.push(FORMAT);
        header.extend(self.crc.to_le_bytes());
        header.extend(self.made_at.to_le_bytes());
        header
    }
}

impl Journal {
    /// Opens the journal at a path, made where there is none.
    pub fn open(env: &Env, path: &Path, identity: Identity) -> Result<Opened, Problem> {
        let failed = |detail: &dyn std::fmt::Display| unusable(path, detail);
        let mut lock_path = path.as_os_str().to_owned();
        lock_path.push(".lock");
        let lock = env.files.lock(Path::new(&lock_path)).map_err(|e| {
            let problem = failed(&e);
            match e.kind {
                FileErrorKind::Locked => problem.hint("another process has it: one at a time"),
                _ => problem.hint("its folder must exist and be writable"),
            }
        })?;
        let bytes = match env.files.read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind == FileErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(failed(&error)),
        };
        let header = identity.header();
        let mut file = env.files.open_append(path).map_err(|e| failed(&e))?;
        let begun = header.starts_with(&bytes) && bytes.len() < HEADER_BYTES;
        if begun {
            let made = file
                .truncate(0)
                .and_then(|()| file.append(&header))
                .and_then(|()| file.sync());
            made.map_err(|e| failed(&e))?;
            let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
            let named = env.files.sync_dir(folder.unwrap_or(Path::new(".")));
            named.map_err(|e| failed(&e))?;
        } else {
            check_header(path, &bytes, &header)?;
        }
        let (entries, whole) = match begun {
            true => (Vec::new(), HEADER_BYTES),
            false => read(path, &bytes)?,
        };
        let torn = bytes.len().saturating_sub(whole);
        if torn > 0 && !begun {
            let cut = file.truncate(whole as u64).and_then(|()| file.sync());
            cut.map_err(|e| failed(&e))?;
        }
        let repair = (torn > 0 && !begun)
            .then(|| format!("{torn} bytes at the journal's end were cut off: they never counted"));
        let journal = Self {
            path: path.to_owned(),
            file,
            bytes: whole as u64,
            failed: false,
            _lock: lock,
        };
        Ok((journal, entries, repair))
    }

    /// Writes down what is told at a moment; on the disk when it returns.
    pub fn append(&mut self, at: Micros, entry: &Entry) -> Result<(), Problem> {
        if self.failed {
            return Err(unusable(&self.path, &"an earlier write failed").hint("open it again"));
        }
        let record = record(at, entry)?;
        let bytes = self.bytes + record.len() as u64;
        if bytes > JOURNAL_BYTES_MAX {
            return Err(Problem::user("limit", "the journal is full")
                .detail(format!("at most {JOURNAL_BYTES_MAX} bytes"))
                .hint("send its facts to the server, and begin another with a newer bundle"));
        }
        let written = self.file.append(&record).and_then(|()| self.file.sync());
        if let Err(error) = written {
            // What is left of the record must not stand before the next.
            let mended = self.file.truncate(self.bytes);
            self.failed = mended.and_then(|()| self.file.sync()).is_err();
            return Err(unusable(&self.path, &error));
        }
        self.bytes = bytes;
        Ok(())
    }
}

fn unusable(path: &Path, detail: &dyn std::fmt::Display) -> Problem {
    let title = format!("the journal {} can't be used", path.display());
    Problem::external("journal", title).detail(detail)
}

fn check_header(path: &Path, bytes: &[u8], header: &[u8]) -> Result<(), Problem> {
    let Some(rest) = bytes.strip_prefix(MAGIC) else {
        return Err(unusable(path, &"it is no journal").hint("name another file"));
    };
    if rest.first() != Some(&FORMAT) {
        return Err(unusable(path, &"its format is of another version")
            .hint("open it with the version that wrote it"));
    }
    if !bytes.starts_with(header) {
        return Err(unusable(path, &"it belongs to another bundle")
            .hint("a newer bundle needs a journal of its own: send the facts of the old one to the server before you make it"));
    }
    Ok(())
}

fn checksum(length: u32, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length.to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

fn record(at: Micros, entry: &Entry) -> Result<Vec<u8>, Problem> {
    let (kind, body) = match entry {
        Entry::Append(batch) => (APPEND, encode_batch(batch)),
        Entry::Revise(batch) => (REVISE, encode_batch(batch)),
        Entry::Retract(contract, ids) => {
            let body = serde_json::to_vec(&(contract, ids));
            let body = body.map_err(|e| Problem::internal("journal", "it can't be told").detail(e));
            (RETRACT, body?)
        }
    };
    let mut payload = vec![kind];
    payload.extend(at.to_le_bytes());
    payload.extend(body);
    let length = payload.len() as u32;
    let mut record = length.to_le_bytes().to_vec();
    record.extend(checksum(length, &payload).to_le_bytes());
    record.extend(payload);
    Ok(record)
}

/// The records of a journal, and how many bytes of it are whole.
fn read(path: &Path, bytes: &[u8]) -> Result<(Vec<(Micros, Entry)>, usize), Problem> {
    let (mut entries, mut at) = (Vec::new(), HEADER_BYTES);
    while let Some((head, rest)) = bytes[at..].split_first_chunk::<8>() {
        let [l0, l1, l2, l3, c0, c1, c2, c3] = *head;
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        let Some((payload, behind)) = rest.split_at_checked(length as usize) else {
            break;
        };
        if checksum(length, payload) != u32::from_le_bytes([c0, c1, c2, c3]) {
            if behind.is_empty() {
                break;
            }
            let damage = format!("the record at byte {at} is damaged");
            return Err(unusable(path, &damage).hint("restore it from a copy, or begin another"));
        }
        entries.push(entry(payload).map_err(|problem| unusable(path, &problem))?);
        at += 8 + length as usize;
    }
    Ok((entries, at))
}

fn entry(payload: &[u8]) -> Result<(Micros, Entry), Problem> {
    let unknown = || Problem::external("journal", "a record says something unknown");
    let (head, body) = payload.split_first_chunk::<9>().ok_or_else(unknown)?;
    let (kind, at) = (head[0], &head[1..]);
    let at = at.iter().rev().fold(0u64, |n, b| n << 8 | u64::from(*b)) as i64;
    let entry = match kind {
        APPEND => Entry::Append(decode_batch(body)?),
        REVISE => Entry::Revise(decode_batch(body)?),
        RETRACT => {
            let read = serde_json::from_slice(body);
            let (contract, ids) = read.map_err(|e| unknown().detail(e))?;
            Entry::Retract(contract, ids)
        }
        _ => return Err(unknown()),
    };
    Ok((at, entry))
}
