//! The model repository: which versions of which models there are, and which names point at them.
//!
//! A version is immutable: its file lies under its SHA-256, and what is told of it never changes. Aliases move,
//! each by one atomic write of the model's own file. Loading and checking are done by whoever serves.
//!
//! ```text
//! files/SHA256      model files, as they came
//! NAME.json         the versions and aliases of one model, with the version of the format
//! ```

mod remove;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use headwater_env::{Env, FileErrorKind};
use headwater_schema::{Micros, Problem};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::limits::{MODEL_BYTES_MAX, at_most};

const FORMAT: u32 = 1;
/// What aliases are called before there are any; no version is called so.
pub const RESERVED: [&str; 3] = ["live", "shadow", "canary"];
/// Versions of one model.
pub const VERSIONS_MAX: usize = 1000;
/// Aliases of one model.
pub const ALIASES_MAX: usize = 64;
/// Earlier versions that an alias remembers; the oldest go first.
pub const REMEMBERED_MAX: usize = 100;
/// Characters of the names of versions and aliases.
const NAME_MAX: usize = 64;
/// Digits of a file's hash that are a version's name unless it is given one.
const NAME_DIGITS: usize = 12;

/// The versions and aliases of one model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelRecord {
    format: u32,
    /// Oldest first.
    pub versions: Vec<VersionRecord>,
    pub aliases: BTreeMap<String, AliasRecord>,
}

/// What is told of a version; never changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VersionRecord {
    pub version: String,
    /// The SHA-256 of its file.
    pub sha256: String,
    pub bytes: u64,
    /// Who wrote the file, as in `lightgbm`.
    pub model_format: String,
    /// Microseconds since 1970.
    pub added_at: Micros,
    pub owner: Option<String>,
    pub description: Option<String>,
    pub inputs: Vec<InputRecord>,
    pub outputs: Vec<OutputRecord>,
    pub trained_on: TrainedOn,
    /// Figures of its training, as its maker gives them.
    #[serde(default)]
    pub metrics: BTreeMap<String, f64>,
}

/// An input, and what it was in training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InputRecord {
    pub name: String,
    /// `numeric` or `categorical`.
    pub kind: String,
    /// The feature or field of context that it is.
    pub source: String,
    /// The hash of what that meant.
    pub meaning: String,
}

/// An output, and how many numbers it has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutputRecord {
    pub name: String,
    pub width: usize,
}

/// What a version was trained on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TrainedOn {
    pub feature_set: String,
    /// The hash of each definition, by `kind/name`.
    pub definitions: BTreeMap<String, String>,
    /// The manifest of its training set, where its maker gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training_set: Option<serde_json::Value>,
}

/// Where an alias points.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AliasRecord {
    pub version: String,
    pub since: Micros,
    /// Where it pointed before, newest last.
    pub before: Vec<String>,
}

/// A model file, and how it is told apart from others.
#[derive(Debug, Clone)]
pub struct ModelFile {
    pub bytes: Vec<u8>,
    pub sha256: String,
}

impl ModelFile {
    pub fn new(bytes: Vec<u8>) -> Result<Self, Problem> {
        at_most("bytes", bytes.len(), MODEL_BYTES_MAX)?;
        let sha256 = sha256_hex(&bytes);
        Ok(Self { bytes, sha256 })
    }

    /// What its version is called unless it is given a name.
    pub fn version(&self) -> String {
        self.sha256.chars().take(NAME_DIGITS).collect()
    }
}

fn sha256_hex(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl ModelRecord {
    pub fn version(&self, name: &str) -> Option<&VersionRecord> {
        self.versions.iter().find(|v| v.version == name)
    }

    /// A version by its name, or by that of an alias of it.
    pub fn find(&self, name: &str) -> Result<&VersionRecord, Problem> {
        let version = self.aliases.get(name).map_or(name, |a| a.version.as_str());
        self.version(version).ok_or_else(|| {
            let aliases = self.aliases.keys().map(String::as_str);
            let newest = self.versions.iter().rev().take(10);
            let names: Vec<&str> = aliases.chain(newest.map(|v| v.version.as_str())).collect();
            Problem::user(
                "unknown-version",
                format!("the model has no version `{name}`"),
            )
            .hint(match names.is_empty() {
                true => "add one with `headwater models add`".to_owned(),
                false => format!("there are: {}", names.join(", ")),
            })
        })
    }
}

/// Keeps models in a folder.
pub struct ModelRepository {
    env: Env,
    folder: PathBuf,
    /// Held while a record is changed.
    changing: Mutex<()>,
}

impl ModelRepository {
    pub fn new(env: Env, folder: &Path) -> Self {
        Self {
            env,
            folder: folder.to_owned(),
            changing: Mutex::default(),
        }
    }

    /// The versions and aliases of a model; none of either where nothing was added.
    pub fn record(&self, model: &str) -> Result<ModelRecord, Problem> {
        let path = self.path(model)?;
        let unreadable = |detail: String| {
            let title = format!("the record of the model `{model}` can't be read");
            Problem::external("model-record", title).detail(detail)
        };
        let bytes = match self.env.files.read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind == FileErrorKind::NotFound => {
                return Ok(ModelRecord::default());
            }
            Err(error) => return Err(unreadable(error.to_string())),
        };
        let record: ModelRecord =
            serde_json::from_slice(&bytes).map_err(|e| unreadable(e.to_string()))?;
        match record.format {
            FORMAT => Ok(record),
            other => Err(unreadable(format!(
                "its format is {other}, this version reads {FORMAT}"
            ))
            .hint("open it with the version of Headwater that wrote it")),
        }
    }

    /// The file of a version; one that changed on the disk is refused.
    pub fn file(&self, version: &VersionRecord) -> Result<Vec<u8>, Problem> {
        let path = self.folder.join("files").join(&version.sha256);
        let title = || format!("the file of version `{}` can't be used", version.version);
        let bytes = self.env.files.read(&path);
        let bytes = bytes.map_err(|e| Problem::external("model-file", title()).detail(e))?;
        let seen = sha256_hex(&bytes);
        if seen == version.sha256 {
            return Ok(bytes);
        }
        Err(Problem::external("model-file", title())
            .detail(format!("its SHA-256 is {seen}, was {}", version.sha256))
            .hint(format!(
                "add it again from where it was made: `headwater models add MODEL FILE --version {}`",
                version.version
            )))
    }

    /// Keeps a version, and lets aliases point at it. One that is known is known already, and its file is written again
    /// where it was damaged; another under its name is refused.
    pub fn add(
        &self,
        model: &str,
        file: &ModelFile,
        version: VersionRecord,
        aliases: &[String],
    ) -> Result<ModelRecord, Problem> {
        check_name("version", &version.version)?;
        self.change(model, |record, now| {
            match record.version(&version.version) {
                Some(known) if known.is(&version) => {}
                Some(known) => return Err(taken(known, &version)),
                None => {
                    let name = version.version.as_str();
                    if RESERVED.contains(&name) || record.aliases.contains_key(name) {
                        return Err(alias_name(name));
                    }
                    if record.versions.len() >= VERSIONS_MAX {
                        return Err(limit("versions", VERSIONS_MAX).hint(
                            "remove one that nothing needs any more: `headwater models remove MODEL VERSION`",
                        ));
                    }
                    record.versions.push(version.clone());
                }
            }
            self.keep(file)?;
            for alias in aliases {
                point(record, alias, &version.version, now)?;
            }
            Ok(())
        })
    }

    /// Lets an alias point at a version.
    pub fn promote(&self, model: &str, alias: &str, version: &str) -> Result<ModelRecord, Problem> {
        self.change(model, |record, now| {
            let version = record.find(version)?.version.clone();
            point(record, alias, &version, now)
        })
    }

    /// Lets an alias point where it pointed before.
    pub fn rollback(&self, model: &str, alias: &str) -> Result<ModelRecord, Problem> {
        self.change(model, |record, now| {
            let kept = record.previous(alias)?.to_owned();
            if let Some(points) = record.aliases.get_mut(alias) {
                points.before.pop();
                (points.version, points.since) = (kept, now);
            }
            Ok(())
        })
    }

    /// Writes a file down where it isn't there, or isn't what it was.
    fn keep(&self, file: &ModelFile) -> Result<(), Problem> {
        let (files, folder) = (&self.env.files, self.folder.join("files"));
        let path = folder.join(&file.sha256);
        if files.read(&path).is_ok_and(|bytes| bytes == file.bytes) {
            return Ok(());
        }
        let written = files.create_dir_all(&folder);
        let written = written.and_then(|()| files.write_atomic(&path, &file.bytes));
        written.map_err(|e| Problem::external("model-file", "a model file can't be kept").detail(e))
    }

    fn change(
        &self,
        model: &str,
        change: impl FnOnce(&mut ModelRecord, Micros) -> Result<(), Problem>,
    ) -> Result<ModelRecord, Problem> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.change_alone(model, change)
    }

    /// Changes a record while nobody else does.
    fn change_alone(
        &self,
        model: &str,
        change: impl FnOnce(&mut ModelRecord, Micros) -> Result<(), Problem>,
    ) -> Result<ModelRecord, Problem> {
        let before = self.record(model)?;
        let mut record = ModelRecord {
            format: FORMAT,
            ..before.clone()
        };
        change(&mut record, self.env.clock.now())?;
        if record == before {
            return Ok(record);
        }
        let unwritable = |detail: &dyn std::fmt::Display| {
            Problem::external("model-record", "a model's record can't be written").detail(detail)
        };
        let bytes = serde_json::to_vec_pretty(&record).map_err(|e| unwritable(&e))?;
        let files = &self.env.files;
        files
            .create_dir_all(&self.folder)
            .map_err(|e| unwritable(&e))?;
        let written = files.write_atomic(&self.path(model)?, &bytes);
        written.map_err(|e| unwritable(&e))?;
        Ok(record)
    }

    fn path(&self, model: &str) -> Result<PathBuf, Problem> {
        check_name("model", model)?;
        Ok(self.folder.join(format!("{model}.json")))
    }
}

impl ModelRecord {
    /// Where an alias pointed before.
    pub fn previous(&self, alias: &str) -> Result<&str, Problem> {
        let points = self.aliases.get(alias).ok_or_else(|| {
            let names: Vec<&str> = self.aliases.keys().map(String::as_str).collect();
            Problem::user("unknown-alias", format!("the model has no alias `{alias}`"))
                .hint(format!("there are: {}", names.join(", ")))
        })?;
        points.before.last().map(String::as_str).ok_or_else(|| {
            Problem::user(
                "no-earlier-version",
                format!("`{alias}` has no earlier version"),
            )
            .hint("name the version that it is to point at: `headwater models promote`")
        })
    }
}

impl VersionRecord {
    /// Whether it says the same, whenever it was added.
    fn is(&self, other: &Self) -> bool {
        let same_time = Self {
            added_at: self.added_at,
            ..other.clone()
        };
        *self == same_time
    }
}

fn point(record: &mut ModelRecord, alias: &str, version: &str, now: Micros) -> Result<(), Problem> {
    check_name("alias", alias)?;
    if record.version(alias).is_some() {
        let title = format!("`{alias}` is the name of a version");
        return Err(Problem::user("name-clash", title).hint("call the alias something else"));
    }
    let many = record.aliases.len() >= ALIASES_MAX;
    match record.aliases.get_mut(alias) {
        Some(points) if points.version == version => {}
        Some(points) => {
            let before = std::mem::replace(&mut points.version, version.to_owned());
            points.before.push(before);
            let surplus = points.before.len().saturating_sub(REMEMBERED_MAX);
            points.before.drain(..surplus);
            points.since = now;
        }
        None if many => return Err(limit("aliases", ALIASES_MAX)),
        None => {
            let points = AliasRecord {
                version: version.to_owned(),
                since: now,
                before: Vec::new(),
            };
            record.aliases.insert(alias.to_owned(), points);
        }
    }
    Ok(())
}

/// A version that is called as an alias is, or will be.
pub fn alias_name(name: &str) -> Problem {
    let title = format!("`{name}` is the name of an alias");
    Problem::user("name-clash", title)
        .detail("a name is that of a version or of an alias, never of both")
        .hint(format!(
            "call the version something else with `--version`, and let `{name}` point at it with `--alias {name}`"
        ))
}

fn taken(known: &VersionRecord, other: &VersionRecord) -> Problem {
    let title = format!("the version `{}` is another one", known.version);
    let detail = match known.sha256 == other.sha256 {
        true => "it has the same file, and something else is told of it".to_owned(),
        false => format!(
            "its file has the SHA-256 {}, not {}",
            known.sha256, other.sha256
        ),
    };
    Problem::user("version-exists", title)
        .detail(detail)
        .hint("versions never change: add it under another name with `--version`")
}

fn limit(what: &str, most: usize) -> Problem {
    Problem::user("limit", format!("the model has too many {what}"))
        .detail(format!("{most} are allowed"))
}

/// Names become file names and parts of URLs.
fn check_name(what: &str, name: &str) -> Result<(), Problem> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let usable = !name.is_empty()
        && name.len() <= NAME_MAX.max(if what == "model" { 128 } else { 0 })
        && !name.starts_with('.')
        && name.chars().all(plain);
    if usable {
        return Ok(());
    }
    Err(Problem::user(
        "invalid-name",
        format!("`{name}` can't be the name of a {what}"),
    )
    .hint("use letters, digits, `_`, `-` and `.`, at most 64"))
}

#[cfg(test)]
mod tests;
