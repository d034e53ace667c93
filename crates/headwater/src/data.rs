//! The data folder: what lies where, who holds it, and which definitions are applied to it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use headwater_env::{Env, FileErrorKind, FileLock};
use headwater_facts::count_facts;
use headwater_features::{
    Catalog, EmbeddedFeatureStore, FeatureStore, LogFacts, Plan, Registry, plan,
};
use headwater_schema::Problem;

use crate::{Config, Project};

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

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.folder
    }

    /// The fact log and its indexes.
    pub fn facts(&self) -> PathBuf {
        self.folder.join("facts")
    }

    /// What work over many facts writes down for a while.
    pub fn spill(&self) -> PathBuf {
        self.folder.join("spill")
    }

    /// The same for queries, whose files are DataFusion's.
    pub fn query_spill(&self) -> PathBuf {
        self.folder.join("query-spill")
    }

    /// Sealed facts, unless the project keeps them elsewhere.
    pub fn archive(&self) -> PathBuf {
        self.folder.join("archive")
    }

    /// The states of views.
    pub fn features(&self) -> PathBuf {
        self.folder.join("features")
    }

    /// Model files, and what is told of them.
    pub fn models(&self) -> PathBuf {
        self.folder.join("models")
    }

    /// How far models, and those who hear of them, have come in the log.
    pub fn positions(&self) -> PathBuf {
        self.folder.join("positions")
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
                        .hint("ask the running server with `--server` and the URL that it printed when it started, or stop it first")
                }
                _ => Problem::external("data-folder", format!("{folder} can't be used")).detail(error),
            })
    }
}

/// What is applied; none before the first `apply`.
pub fn read_registry(env: &Env, data: &DataFolder) -> Result<Option<Registry>, Problem> {
    let path = data.registry();
    if !env.files.exists(&path) {
        return Ok(None);
    }
    let bytes = env
        .files
        .read(&path)
        .map_err(|e| Problem::external("registry", "the registry can't be read").detail(e))?;
    Registry::from_bytes(&bytes).map(Some)
}

pub(crate) fn nothing_applied(folder: &Path) -> Problem {
    Problem::user("nothing-applied", "no definitions have been applied yet")
        .detail(format!("the data folder is {}", folder.display()))
        .hint("run `headwater apply` first")
}

/// Compiles what is applied.
pub fn compile_applied(registry: &Registry) -> Result<Catalog, Problem> {
    registry.compile().map_err(|problems| {
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

/// What applying a project to a data folder would change. Another process may hold the folder.
pub fn plan_project(env: &Env, project: &Project, folder: &Path) -> Result<Plan, Problem> {
    let data = DataFolder::new(folder);
    let registry = read_registry(env, &data)?.unwrap_or_default();
    let applied = compile_applied(&registry)?;
    let contracts = count_facts(env, &data.facts()).unwrap_or_else(|problem| {
        tracing::warn!(%problem, "the facts can't be counted, so the plan's cost is wrong");
        BTreeMap::new()
    });
    let log = LogFacts {
        contracts,
        facts_per_second: None,
    };
    Ok(plan(&applied, &project.catalog, &log))
}

/// Applies a project to a data folder: all of it or, where the plan has problems, nothing.
pub fn apply_project(env: &Env, project: &Project, folder: &Path) -> Result<Plan, Vec<Problem>> {
    apply_project_on(env, project, folder, None)
}

/// As [`apply_project`], where the caller may insist that nobody has applied anything since it saw the
/// registry's version `planned_on`.
pub fn apply_project_on(
    env: &Env,
    project: &Project,
    folder: &Path,
    planned_on: Option<u64>,
) -> Result<Plan, Vec<Problem>> {
    let data = DataFolder::new(folder);
    let _lock = data.lock(env).map_err(|p| vec![p])?;
    let applied = read_registry(env, &data).map_err(|p| vec![p])?;
    let version = applied.as_ref().map_or(0, Registry::version);
    check_planned_on(planned_on, version).map_err(|p| vec![p])?;
    let plan = plan_project(env, project, folder).map_err(|p| vec![p])?;
    if !plan.problems.is_empty() {
        return Err(plan.problems);
    }
    let next = applied
        .clone()
        .unwrap_or_default()
        .next(project.documents.clone(), Some(env.clock.now()));
    if applied.as_ref() != Some(&next) {
        write_registry(env, &data, &next).map_err(|p| vec![p])?;
    }
    Ok(plan)
}

/// Refuses a change that was planned on another version of the registry.
pub(crate) fn check_planned_on(planned_on: Option<u64>, version: u64) -> Result<(), Problem> {
    match planned_on {
        Some(planned_on) if planned_on != version => Err(Problem::user(
            "definitions-changed",
            "somebody has applied other definitions since",
        )
        .field("if_version")
        .detail(format!(
            "the plan was made on version {planned_on} of the registry, it is {version}"
        ))
        .hint("plan again, and apply that")),
        _ => Ok(()),
    }
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

/// A feature store, and what opening it had to mend.
pub type OpenedStore = (Arc<dyn FeatureStore>, Vec<String>);

/// Opens the feature store; one that can't be opened is made again, since the log has everything.
pub(crate) fn open_store(
    env: &Env,
    data: &DataFolder,
    config: &Config,
) -> Result<OpenedStore, Problem> {
    let folder = data.features();
    let cache = config.spec.state.disk_cache_bytes;
    match EmbeddedFeatureStore::open(&folder, cache) {
        Ok(store) => Ok((Arc::new(store), Vec::new())),
        Err(problem) if problem.code == EmbeddedFeatureStore::IN_USE => Err(problem),
        Err(problem) => {
            env.files.remove_dir_all(&folder).map_err(|e| {
                Problem::external("data-folder", "the feature store can't be removed").detail(e)
            })?;
            let store = EmbeddedFeatureStore::open(&folder, cache)?;
            let message = format!("the feature store is made again from the log: {problem}");
            Ok((Arc::new(store), vec![message]))
        }
    }
}
