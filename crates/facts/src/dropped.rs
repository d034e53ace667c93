//! How far the facts reach that retention let go, by contract: kept beside the log, written before they go.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use headwater_env::{Env, FileErrorKind};
use headwater_schema::{Micros, Problem};
use serde::{Deserialize, Serialize};

use crate::segment::{Segment, file_problem};

const FILE: &str = "dropped.json";
/// The format of the file.
const VERSION: u32 = 1;

#[derive(Debug, Default, Serialize, Deserialize)]
struct Stored {
    version: u32,
    /// The newest event time, in microseconds, among the facts that went of each contract.
    newest: BTreeMap<String, Micros>,
}

/// What is known of facts that are gone.
pub struct Dropped {
    env: Env,
    path: PathBuf,
    newest: RwLock<BTreeMap<String, Micros>>,
}

impl Dropped {
    /// Reads what is beside the log in `folder`. Where no fact went there is no file, nor where they all went
    /// before there was one.
    pub fn open(env: &Env, folder: &Path) -> Result<Self, Problem> {
        let path = folder.join(FILE);
        let newest = match env.files.read(&path) {
            Ok(bytes) => read(&path, &bytes)?.newest,
            Err(error) if error.kind == FileErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(file_problem(&error)),
        };
        Ok(Self {
            env: env.clone(),
            path,
            newest: RwLock::new(newest),
        })
    }

    /// The newest event time of a contract's facts that went.
    pub fn newest(&self, contract: &str) -> Option<Micros> {
        let newest = self.newest.read().unwrap_or_else(PoisonError::into_inner);
        newest.get(contract).copied()
    }

    /// Keeps note of segments that are about to go; on the disk once this returns.
    pub fn note(&self, going: &[Arc<Segment>]) -> Result<(), Problem> {
        let mut newest = self.newest.write().unwrap_or_else(PoisonError::into_inner);
        let mut reached = newest.clone();
        for (name, summary) in going.iter().flat_map(|segment| &segment.contracts) {
            let known = reached.entry(name.clone()).or_insert(summary.time_max);
            *known = (*known).max(summary.time_max);
        }
        if reached == *newest {
            return Ok(());
        }
        let stored = Stored {
            version: VERSION,
            newest: reached,
        };
        let bytes = serde_json::to_vec(&stored).map_err(|e| {
            Problem::internal("log-dropped", "what retention lets go can't be noted").detail(e)
        })?;
        self.env
            .files
            .write_atomic(&self.path, &bytes)
            .map_err(|e| file_problem(&e))?;
        *newest = stored.newest;
        Ok(())
    }
}

/// What retention let go, as bytes of the file say it, to be told.
#[cfg(feature = "fuzz")]
pub(crate) fn read_newest(bytes: &[u8]) -> Result<BTreeMap<String, Micros>, Problem> {
    read(Path::new(FILE), bytes).map(|stored| stored.newest)
}

fn read(path: &Path, bytes: &[u8]) -> Result<Stored, Problem> {
    let stored: Stored = serde_json::from_slice(bytes).map_err(|e| {
        Problem::external("log-corrupt", format!("{} can't be read", path.display()))
            .detail(e)
            .hint("restore the file from a copy: it says which facts are gone")
    })?;
    match stored.version {
        VERSION => Ok(stored),
        other => Err(Problem::external(
            "log-format",
            format!("{} has format {other}", path.display()),
        )
        .detail(format!("this version reads format {VERSION}"))
        .hint("open the data with the version of Headwater that wrote it")),
    }
}
