//! The archive of a running engine: where it lies, the thread that takes sealed facts to it, and its
//! state for operators.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use headwater_env::Env;
use headwater_env::queue::{self, Receiver, Sender};
use headwater_facts::{
    Archive, ArchiveOptions, ArchiveRun, EmbeddedFactLog, FolderStore, open_archive_store,
};
use headwater_schema::Problem;
use headwater_schema::time::Duration as Span;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use crate::data::DataFolder;
use crate::{Config, Engine};

/// Variables of the environment that object stores know begin so.
const KNOWN: [&str; 3] = ["AWS_", "GOOGLE_", "AZURE_"];

/// The archive: files of the fact log as Parquet, in a folder or an object store.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ArchiveSettings {
    /// `file:///srv/facts`, `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`; without it
    /// the folder `archive` of the data folder. Credentials come from the environment.
    pub url: Option<String>,
    /// What the object store needs besides, by `object_store`'s names, as `aws_region` or `aws_endpoint`.
    /// What the environment says (`AWS_…`, `GOOGLE_…`, `AZURE_…`) is taken too; this wins.
    pub options: BTreeMap<String, String>,
    /// How often sealed files are taken to the archive.
    #[schemars(with = "String")]
    pub every: Span,
    /// A file of the log whose first fact arrived this long ago is sealed, full or not.
    #[schemars(with = "String")]
    pub seal_after: Span,
    /// How long facts that are archived stay in the log too, counted from their arrival.
    #[schemars(with = "String")]
    pub after: Span,
    /// Bytes of files read back from the archive that are kept for the next read.
    pub cache_bytes_max: u64,
}

impl Default for ArchiveSettings {
    fn default() -> Self {
        const DAY: i64 = 86_400_000_000;
        Self {
            url: None,
            options: BTreeMap::new(),
            every: Span(DAY / 24 / 12),
            seal_after: Span(DAY),
            after: Span(7 * DAY),
            cache_bytes_max: 1 << 30,
        }
    }
}

/// The project's archive, if it has one.
pub(crate) fn archive_options(
    env: &Env,
    config: &Config,
    data: &DataFolder,
) -> Result<Option<ArchiveOptions>, Problem> {
    let Some(settings) = &config.spec.archive else {
        return Ok(None);
    };
    let store = match &settings.url {
        None => Arc::new(FolderStore::new(env.clone(), &data.archive())),
        Some(url) => open_archive_store(env, url, store_options(settings))?,
    };
    Ok(Some(ArchiveOptions {
        store,
        after: settings.after.micros(),
        cache_bytes_max: settings.cache_bytes_max,
    }))
}

/// Options of the object store: those of the environment, then those of the project.
fn store_options(settings: &ArchiveSettings) -> Vec<(String, String)> {
    let known = |name: &String| KNOWN.iter().any(|prefix| name.starts_with(prefix));
    let variables = std::env::vars_os();
    let variables =
        variables.filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
    let own = settings.options.clone();
    variables
        .filter(|(name, _)| known(name))
        .chain(own)
        .collect()
}

/// The thread that takes sealed facts to the archive, every now and then.
pub(crate) struct Archiver {
    /// Dropped to end the thread's wait.
    wake: Option<Sender<()>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Archiver {
    /// Starts the thread, where the project has an archive.
    pub fn start(
        env: &Env,
        config: &Config,
        facts: Arc<EmbeddedFactLog>,
    ) -> Result<Option<Self>, Problem> {
        let Some(settings) = config.spec.archive.clone() else {
            return Ok(None);
        };
        let (wake, woken) = queue::bounded("archive.runs_waiting_max", 1);
        let stop = Arc::new(AtomicBool::new(false));
        let (env, stopped) = (env.clone(), stop.clone());
        let thread = std::thread::Builder::new()
            .name("headwater-archiver".into())
            .spawn(move || archive_on(&env, &settings, &facts, &woken, &stopped))
            .map_err(|e| Problem::external("thread", "a thread can't be started").detail(e))?;
        Ok(Some(Self {
            wake: Some(wake),
            stop,
            thread: Some(thread),
        }))
    }

    /// Stops before the next segment; the next start goes on.
    pub fn stop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.wake = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the archive panicked");
        }
    }
}

impl Drop for Archiver {
    fn drop(&mut self) {
        self.stop();
    }
}

fn archive_on(
    env: &Env,
    settings: &ArchiveSettings,
    facts: &EmbeddedFactLog,
    woken: &Receiver<()>,
    stop: &AtomicBool,
) {
    let every = u64::try_from(settings.every.micros()).unwrap_or(0);
    let every = Duration::from_micros(every).max(Duration::from_millis(1));
    loop {
        match woken.recv_timeout(every) {
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {}
            _ => return,
        }
        let begun_by = env.clock.now().saturating_sub(settings.seal_after.micros());
        let run = facts
            .seal_begun_by(begun_by)
            .and_then(|()| facts.run_archive(&|| stop.load(Ordering::Acquire)));
        match run {
            Ok(run) if run.segments + run.released > 0 => {
                tracing::info!(run.segments, run.facts, run.released, "facts are archived");
            }
            Ok(_) => {}
            Err(problem) => {
                tracing::error!(%problem, "facts can't be archived; they stay in the log, and it is tried again");
            }
        }
    }
}

impl Engine {
    /// Seals what the log has and takes it to the archive, for about as long as `at_most`; what that did,
    /// and whether all is done.
    pub fn archive_now(&self, at_most: Duration) -> Result<Json, Problem> {
        let clock = &self.env.clock;
        let start = clock.monotonic_nanos();
        let over = || clock.monotonic_nanos().saturating_sub(start) > at_most.as_nanos() as u64;
        self.archive()?;
        self.facts.seal()?;
        let run: ArchiveRun = self.facts.run_archive(&over)?;
        let mut state = self.archive_state()?;
        state["archived_segments"] = json!(run.segments);
        state["archived_facts"] = json!(run.facts);
        state["released_segments"] = json!(run.released);
        state["complete"] = json!(run.complete);
        Ok(state)
    }

    /// What the archive holds.
    pub fn archive_state(&self) -> Result<Json, Problem> {
        let archive = self.archive()?;
        let stats = archive.stats();
        let failure = stats
            .failure
            .map(|p| json!({"code": p.code, "title": p.title, "detail": p.detail}));
        Ok(json!({
            "url": archive.store().url(),
            "through": stats.through.to_string(),
            "segments": stats.segments,
            "segments_only_in_archive": stats.segments_only_here,
            "files": stats.files,
            "facts": stats.facts,
            "bytes": stats.bytes,
            "cache_bytes": stats.cache_bytes,
            "last_failure": failure,
        }))
    }

    /// Reads every object of the archive and compares its checksum; how many bytes are whole.
    pub fn verify_archive(&self) -> Result<u64, Problem> {
        self.archive()?.verify()
    }

    fn archive(&self) -> Result<&Archive, Problem> {
        self.facts.archive().ok_or_else(|| {
            Problem::user("no-archive", "no archive is set")
                .field("archive")
                .hint("set `archive: {}` below `spec` in headwater.yaml, with `url` for a bucket or another folder")
        })
    }
}
