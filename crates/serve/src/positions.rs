//! How far somebody has come in the log, on disk: one small file for each.

use std::path::{Path, PathBuf};

use headwater_env::{Env, FileErrorKind};
use headwater_schema::{Problem, Sequence};
use serde::{Deserialize, Serialize};

const FORMAT: &str = "headwater-position/1";

/// A folder of positions.
#[derive(Clone)]
pub struct Positions {
    env: Env,
    folder: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Position {
    format: String,
    /// The last sequence that is done with.
    sequence: Sequence,
}

impl Positions {
    pub fn new(env: &Env, folder: &Path) -> Self {
        Self {
            env: env.clone(),
            folder: folder.to_owned(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.json"))
    }

    /// The last sequence that is done with; none where nothing was noted.
    pub fn read(&self, name: &str) -> Result<Option<Sequence>, Problem> {
        let path = self.path(name);
        let bytes = match self.env.files.read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind == FileErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(&path).detail(error)),
        };
        let position: Position =
            serde_json::from_slice(&bytes).map_err(|e| unreadable(&path).detail(e))?;
        if position.format != FORMAT {
            let detail = format!("its format is `{}`, not `{FORMAT}`", position.format);
            return Err(unreadable(&path).detail(detail));
        }
        Ok(Some(position.sequence))
    }

    /// Returns once it is on the disk.
    pub fn write(&self, name: &str, sequence: Sequence) -> Result<(), Problem> {
        let position = Position {
            format: FORMAT.to_owned(),
            sequence,
        };
        let text = serde_json::to_vec(&position)
            .map_err(|e| Problem::internal("position", "a position can't be written").detail(e))?;
        let files = &self.env.files;
        let written = files
            .create_dir_all(&self.folder)
            .and_then(|()| files.write_atomic(&self.path(name), &text));
        written.map_err(|e| {
            Problem::external("position", "a position can't be written")
                .detail(e)
                .retryable()
        })
    }

    /// Forgets what was noted.
    pub fn remove(&self, name: &str) -> Result<(), Problem> {
        let path = self.path(name);
        if !self.env.files.exists(&path) {
            return Ok(());
        }
        let removed = self.env.files.remove_file(&path);
        removed.map_err(|e| Problem::external("position", "a position can't be removed").detail(e))
    }

    /// The names under which something is noted.
    pub fn names(&self) -> Vec<String> {
        let paths = self.env.files.list(&self.folder).unwrap_or_default();
        let name = |path: PathBuf| {
            let name = path.file_name()?.to_str()?.strip_suffix(".json")?;
            Some(name.to_owned())
        };
        paths.into_iter().filter_map(name).collect()
    }
}

fn unreadable(path: &Path) -> Problem {
    Problem::external("position", format!("{} can't be read", path.display()))
        .hint("delete it to go on from the newest fact; what arrived before isn't looked at then")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_as_they_were_first_written_are_read_and_others_refused() {
        let (env, _, _) = Env::simulated(1);
        let folder = Path::new("/positions");
        let positions = Positions::new(&env, folder);
        let put = |text: &str| {
            let path = folder.join("model-fraud.json");
            env.files.write_atomic(&path, text.as_bytes()).unwrap();
            positions.read("model-fraud")
        };
        assert_eq!(positions.read("model-fraud").unwrap(), None);
        // The bytes of the first version, kept for ever.
        let first = r#"{"format":"headwater-position/1","sequence":18446744073709551615}"#;
        assert_eq!(put(first).unwrap(), Some(Sequence::MAX));
        positions.write("model-fraud", Sequence::MAX).unwrap();
        let written = env.files.read(&folder.join("model-fraud.json")).unwrap();
        assert_eq!(written, first.as_bytes());
        for damaged in [
            "",
            "{}",
            r#"{"format":"headwater-position/2","sequence":1}"#,
            r#"{"format":"headwater-position/1","sequence":-1}"#,
        ] {
            let problem = put(damaged).unwrap_err();
            assert_eq!(problem.code, "position", "{damaged}");
            assert!(problem.hint.contains("delete it"), "{problem}");
        }
        assert_eq!(positions.names(), ["model-fraud"]);
        positions.remove("model-fraud").unwrap();
        assert_eq!(positions.read("model-fraud").unwrap(), None);
    }
}
