//! The data folder: what lies where, who holds it, and which definitions are applied to it.

use std::path::{Path, PathBuf};

use headwater_env::{Env, FileErrorKind, FileLock};
use headwater_features::{Catalog, Plan, Registry, plan};
use headwater_schema::Problem;

use crate::Project;

/// The folder that holds everything an engine keeps.
#[derive(Debug, Clone)]
pub struct DataFolder {
    folder: PathBuf,
}

impl DataFolder {
    pub fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
        }
    }

    /// The fact log and its indexes.
    pub fn facts(&self) -> PathBuf {
        self.folder.join("facts")
    }

    /// The states of views.
    pub fn features(&self) -> PathBuf {
        self.folder.join("features")
    }

    /// Who did what.
    pub fn audit(&self) -> PathBuf {
        self.folder.join("audit")
    }

    /// The keys, unless the project keeps them elsewhere.
    pub fn keys(&self) -> PathBuf {
        self.folder.join("keys.json")
    }

    fn registry(&self) -> PathBuf {
        self.folder.join("registry.json")
    }

    /// Holds the folder for this process alone.
    pub fn lock(&self, env: &Env) -> Result<Box<dyn FileLock>, Problem> {
        let folder = self.folder.display();
        env.files
            .create_dir_all(&self.folder)
            .and_then(|()| env.files.lock(&self.folder.join("LOCK")))
            .map_err(|error| match error.kind {
                FileErrorKind::Locked => {
                    Problem::user("data-folder-in-use", format!("another process uses {folder}"))
                        .detail(error)
                        .hint("ask the running server with `--server http://127.0.0.1:8080`, or stop it first")
                }
                _ => Problem::external("data-folder", format!("{folder} can't be used")).detail(error),
            })
    }
}

/// The definitions that are applied; none before the first `apply`.
pub fn read_registry(env: &Env, data: &DataFolder) -> Result<Option<Catalog>, Problem> {
    let path = data.registry();
    if !env.files.exists(&path) {
        return Ok(None);
    }
    let bytes = env
        .files
        .read(&path)
        .map_err(|e| Problem::external("registry", "the registry can't be read").detail(e))?;
    let compiled = Registry::from_bytes(&bytes)?.compile();
    compiled.map(Some).map_err(|problems| {
        let first = problems
            .first()
            .map(ToString::to_string)
            .unwrap_or_default();
        Problem::external(
            "registry-corrupt",
            "the applied definitions don't compile any more",
        )
        .detail(first)
        .hint("mend the project and apply it again")
    })
}

/// What applying a project to a data folder would change.
pub fn plan_project(env: &Env, project: &Project, folder: &Path) -> Result<Plan, Problem> {
    let applied = read_registry(env, &DataFolder::new(folder))?.unwrap_or_default();
    Ok(plan(&applied, &project.catalog))
}

/// Applies a project to a data folder: all of it or, where the plan has problems, nothing.
pub fn apply_project(env: &Env, project: &Project, folder: &Path) -> Result<Plan, Vec<Problem>> {
    let data = DataFolder::new(folder);
    let _lock = data.lock(env).map_err(|p| vec![p])?;
    let plan = plan_project(env, project, folder).map_err(|p| vec![p])?;
    if !plan.problems.is_empty() {
        return Err(plan.problems);
    }
    write_registry(env, &data, &project.registry).map_err(|p| vec![p])?;
    Ok(plan)
}

/// Puts definitions in force for the next start: from here on a crash finds these.
pub(crate) fn write_registry(
    env: &Env,
    data: &DataFolder,
    registry: &Registry,
) -> Result<(), Problem> {
    let bytes = registry.to_bytes()?;
    env.files
        .write_atomic(&data.registry(), &bytes)
        .map_err(|e| Problem::external("registry", "the registry can't be written").detail(e))
}
