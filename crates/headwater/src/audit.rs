//! The record of who did what: definitions applied, keys made, used, revoked and refused, calls that
//! only an administrator may make.
//!
//! Lines of JSON in numbered files below `audit/` of the data folder, only ever appended to. When a
//! file is full the next one begins, and the oldest goes. The server and the command line both write
//! to it: each line is one append.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use headwater_api::{Audit, AuditEntry, AuditEvent, AuditPage, AuditQuery};
use headwater_env::{AppendFile, Env, FileError};
use headwater_schema::Problem;
use headwater_schema::time::format_timestamp;

use crate::{AuditSettings, DataFolder};

/// The format of lines.
const VERSION: u32 = 1;

/// The record of one data folder.
pub struct AuditLog {
    env: Env,
    folder: PathBuf,
    settings: AuditSettings,
    open: Mutex<Option<OpenFile>>,
}

struct OpenFile {
    number: u64,
    file: Box<dyn AppendFile>,
    bytes: u64,
}

impl AuditLog {
    /// The record of the data folder `data`; nothing is written before the first event.
    pub fn new(env: Env, data: &Path, settings: AuditSettings) -> Self {
        Self {
            env,
            folder: DataFolder::new(data).audit(),
            settings,
            open: Mutex::new(None),
        }
    }

    /// Appends an event. What must not be lost in a power cut (all but the uses and refusals of keys)
    /// is on the disk when this returns.
    pub fn append(&self, event: &AuditEvent) -> Result<(), Problem> {
        let failed =
            |e: FileError| Problem::external("audit", "the audit log can't be written").detail(e);
        let entry = AuditEntry {
            version: VERSION,
            time: format_timestamp(self.env.clock.now()),
            actor: event.actor.clone(),
            action: event.action.clone(),
            target: event.target.clone(),
            result: event.result.clone(),
        };
        let mut line = serde_json::to_vec(&entry)
            .map_err(|e| Problem::internal("audit", "an event can't be written").detail(e))?;
        line.push(b'\n');
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |o: &OpenFile| {
            o.bytes > 0 && o.bytes + line.len() as u64 > self.settings.file_bytes_max
        };
        let current = match open.take() {
            Some(current) if !full(&current) => current,
            Some(current) => self.begin(current.number + 1).map_err(failed)?,
            None => {
                let newest = self.files().map_err(failed)?.last().map_or(1, |(n, _)| *n);
                let current = self.begin(newest).map_err(failed)?;
                match full(&current) {
                    true => self.begin(newest + 1).map_err(failed)?,
                    false => current,
                }
            }
        };
        let current = open.insert(current);
        current.bytes += line.len() as u64;
        let routine = ["key.use", "key.refused"].contains(&event.action.as_str());
        let written = current.file.append(&line);
        let written = written.and_then(|()| if routine { Ok(()) } else { current.file.sync() });
        if written.is_err() {
            *open = None;
        }
        written.map_err(failed)
    }

    /// Opens a file and lets the oldest go.
    fn begin(&self, number: u64) -> Result<OpenFile, FileError> {
        self.env.files.create_dir_all(&self.folder)?;
        let path = self.folder.join(format!("{number:06}.ndjson"));
        let mut file = self.env.files.open_append(&path)?;
        let written = self.env.files.open_read(&path)?;
        let (mut bytes, mut last) = (written.length()?, [b'\n']);
        if bytes > 0 {
            written.read_at(bytes - 1, &mut last)?;
        }
        // A line that a crash tore would take the next one with it.
        if last != [b'\n'] {
            file.append(b"\n")?;
            bytes += 1;
        }
        let files = self.files()?;
        let spare = files.len().saturating_sub(self.settings.files_max.max(1));
        for (_, path) in files.iter().take(spare) {
            self.env.files.remove_file(path)?;
        }
        Ok(OpenFile {
            number,
            file,
            bytes,
        })
    }

    /// Every file with its number, the oldest first.
    fn files(&self) -> Result<Vec<(u64, PathBuf)>, FileError> {
        if !self.env.files.exists(&self.folder) {
            return Ok(Vec::new());
        }
        let number = |path: PathBuf| {
            let name = path.file_name()?.to_str()?;
            Some((name.strip_suffix(".ndjson")?.parse().ok()?, path))
        };
        let paths = self.env.files.list(&self.folder)?;
        let mut files: Vec<(u64, PathBuf)> = paths.into_iter().filter_map(number).collect();
        files.sort_unstable();
        Ok(files)
    }

    /// A page of the record. Lines that aren't whole are passed over.
    pub fn read(&self, query: &AuditQuery) -> Result<AuditPage, Problem> {
        let failed =
            |e: FileError| Problem::external("audit", "the audit log can't be read").detail(e);
        let before = query.before.as_deref().map(Place::read).transpose()?;
        let is = |asked: &Option<String>, given: &str| asked.as_deref().is_none_or(|a| a == given);
        let (mut found, mut oldest) = (Vec::new(), None);
        for (number, path) in self.files().map_err(failed)?.iter().rev() {
            if before.is_some_and(|before| *number > before.file) {
                continue;
            }
            let bytes = self.env.files.read(path).map_err(failed)?;
            let end = before.filter(|b| b.file == *number).map(|b| b.offset);
            let mut end = end.map_or(bytes.len(), |offset| offset.min(bytes.len()));
            while end > 0 {
                let line = &bytes[..end - 1];
                let start = line
                    .iter()
                    .rposition(|b| *b == b'\n')
                    .map_or(0, |at| at + 1);
                let entry = serde_json::from_slice::<AuditEntry>(&bytes[start..end]).ok();
                end = start;
                let wanted =
                    |e: &AuditEntry| is(&query.actor, &e.actor) && is(&query.action, &e.action);
                let Some(entry) = entry.filter(wanted) else {
                    continue;
                };
                if found.len() == query.limit {
                    // There is one more: the next page begins before the last that is shown.
                    found.reverse();
                    return Ok(AuditPage {
                        entries: found,
                        before: oldest,
                    });
                }
                found.push(entry);
                let place = Place {
                    file: *number,
                    offset: start,
                };
                oldest = Some(place.to_text());
            }
        }
        found.reverse();
        Ok(AuditPage {
            entries: found,
            before: None,
        })
    }
}

/// Where an entry begins.
#[derive(Clone, Copy)]
struct Place {
    file: u64,
    offset: usize,
}

impl Place {
    fn read(text: &str) -> Result<Self, Problem> {
        let parts = text.split_once('-');
        let parts =
            parts.and_then(|(file, offset)| Some((file.parse().ok()?, offset.parse().ok()?)));
        let (file, offset) = parts.ok_or_else(|| {
            Problem::user("malformed-request", "`before` names no place of the record")
                .field("before")
                .detail(text)
                .hint("take the `before` of a page, or leave it out for the newest entries")
        })?;
        Ok(Self { file, offset })
    }

    fn to_text(self) -> String {
        format!("{}-{}", self.file, self.offset)
    }
}

impl Audit for AuditLog {
    fn record(&self, event: &AuditEvent) {
        if let Err(problem) = self.append(event) {
            tracing::error!(action = event.action, actor = event.actor, target = event.target, %problem, "not audited");
        }
    }

    fn page(&self, query: &AuditQuery) -> Result<AuditPage, Problem> {
        self.read(query)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_line_takes_no_other_with_it() {
        let (env, _, _) = Env::simulated(1);
        let data = Path::new("/data");
        let log = || AuditLog::new(env.clone(), data, AuditSettings::default());
        let event = |target: &str| AuditEvent::new("a", "key.create", target, "ok");
        log().append(&event("first")).unwrap();
        let path = data.join("audit/000001.ndjson");
        let whole = env.files.read(&path).unwrap();
        for torn in [whole.len() - 1, whole.len() + 20] {
            let bytes: Vec<u8> = whole.iter().chain(&whole).copied().take(torn).collect();
            env.files.write_atomic(&path, &bytes).unwrap();
            log().append(&event("second")).unwrap();
            let query = AuditQuery {
                limit: 9,
                ..AuditQuery::default()
            };
            let entries = log().read(&query).unwrap().entries;
            let targets: Vec<&str> = entries.iter().map(|e| e.target.as_str()).collect();
            assert_eq!(targets, ["first", "second"], "cut after {torn} bytes");
        }
    }

    #[test]
    fn the_newest_files_stay_and_entries_come_back_in_order() {
        let (env, clock, files) = Env::simulated(1);
        let settings = AuditSettings {
            file_bytes_max: 400,
            files_max: 3,
        };
        let data = Path::new("/data");
        for i in 0..40 {
            clock.set(i * 1_000_000);
            // Another process each time: nothing is remembered.
            let log = AuditLog::new(env.clone(), data, settings.clone());
            for key in ["a", "b"] {
                let event = AuditEvent::new(key, "key.use", &i.to_string(), "ok");
                log.append(&event).unwrap();
            }
        }
        let log = AuditLog::new(env, data, settings);
        let kept = log.files().unwrap();
        assert_eq!(kept.len(), 3);
        for (_, path) in &kept {
            use headwater_env::Files;
            assert!(files.read(path).unwrap().len() <= 400);
        }
        let mut query = AuditQuery {
            limit: 3,
            actor: Some("b".into()),
            ..AuditQuery::default()
        };
        let last = log.read(&query).unwrap();
        let targets = |page: &AuditPage| -> Vec<String> {
            page.entries.iter().map(|e| e.target.clone()).collect()
        };
        assert_eq!(targets(&last), ["37", "38", "39"]);
        assert_eq!(last.entries[2].time, "1970-01-01T00:00:39Z");
        // Page by page, what comes meanwhile moving nothing, until there is no more.
        let all = AuditQuery {
            limit: 1000,
            ..query.clone()
        };
        let all = targets(&log.read(&all).unwrap());
        let mut pages = targets(&last);
        query.before = last.before;
        while query.before.is_some() {
            log.append(&AuditEvent::new("b", "key.use", "later", "ok"))
                .unwrap();
            let page = log.read(&query).unwrap();
            assert!((1..=3).contains(&page.entries.len()));
            pages.splice(0..0, targets(&page));
            query.before = page.before;
        }
        assert!(
            all.ends_with(&pages) && pages.len() >= all.len() - 3,
            "{pages:?} of {all:?}"
        );
        for wrong in ["", "1", "x-1", "1-x", "1--1"] {
            query.before = Some(wrong.into());
            assert_eq!(log.read(&query).unwrap_err().code, "malformed-request");
        }
    }
}
