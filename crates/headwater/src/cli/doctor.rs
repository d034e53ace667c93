//! `doctor`: what an operator would look at first. Here: of this machine and its data folder, of a server's
//! definitions, and who looks at what.

mod samples;
mod told;

use std::path::{Path, PathBuf};

use headwater::settings::contradictions;
use headwater::{Config, Engine, KeyFile, Project, authorizer, check_address, keys, plan_project};
use headwater_api::backend::RegistryQuery;
use headwater_api::{AuditQuery, Backend, Unheard, openmetrics};
use headwater_features::{DefinitionKind, Plan};
use headwater_schema::Problem;
use headwater_schema::time::format_timestamp;
use serde_json::{Value as Json, json};

use self::samples::{PAGE_BYTES_MAX, Samples};
use super::apply::plan_on;
use super::backfill::Fill;
use super::remote::Remote;
use super::{Context, Failure, print};

/// Syncs that are timed.
const SYNCS: usize = 20;
/// Less free room than this is a warning.
const FREE_BYTES_MIN: u64 = 1 << 30;
/// A slower sync than this is a warning.
const SYNC_MS_MAX: f64 = 50.0;
/// 2020-01-01: a clock before it was never set.
const CLOCK_MIN: i64 = 1_577_836_800_000_000;
/// Clocks of a server and of this machine that stand further apart than this, in microseconds, are a warning: so
/// much passes between two looks.
const CLOCKS_APART_MAX: i64 = 2_000_000;
/// Microseconds of a day.
const DAY: i64 = 86_400_000_000;
/// A key that expires within two weeks is a warning.
const EXPIRY_NOTICE: i64 = 14 * DAY;
/// Files that the engine holds open besides connections.
const FILES_BESIDE: u64 = 256;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Good,
    Warn,
    Bad,
}

impl Verdict {
    fn as_str(self) -> &'static str {
        match self {
            Self::Good => "OK",
            Self::Warn => "WARN",
            Self::Bad => "FAIL",
        }
    }
}

struct Finding {
    verdict: Verdict,
    what: &'static str,
    detail: String,
}

impl Finding {
    fn new(verdict: Verdict, what: &'static str, detail: impl Into<String>) -> Self {
        Self {
            verdict,
            what,
            detail: detail.into(),
        }
    }

    fn good(what: &'static str, detail: impl Into<String>) -> Self {
        Self::new(Verdict::Good, what, detail)
    }

    fn warn(what: &'static str, detail: impl Into<String>) -> Self {
        Self::new(Verdict::Warn, what, detail)
    }

    fn bad(what: &'static str, detail: impl Into<String>) -> Self {
        Self::new(Verdict::Bad, what, detail)
    }
}

/// Looks at everything, then says what it found; fails where something is broken. With a server named, that one is
/// looked at and not this machine.
pub fn run(context: &Context) -> Result<(), Failure> {
    let config = context.config()?;
    let mut doctor = Doctor {
        context,
        folder: context.data_folder(&config),
        config,
        findings: Vec::new(),
    };
    match context.remote() {
        Err(problem) => doctor.bad("server", problem),
        Ok(Some(remote)) => {
            doctor.definitions(Some(&remote));
            match Looked::at(context, &remote) {
                Ok(looked) => doctor.server(&remote, &looked),
                Err(problem) => doctor.bad("server", problem),
            }
        }
        Ok(None) => {
            doctor.definitions(None);
            doctor.settings();
            doctor.disk();
            doctor.sync();
            doctor.clock();
            doctor.open_files();
            doctor.door();
            doctor.data();
        }
    }
    show(context, &doctor.findings)
}

/// A server's metrics, and this machine's clock before and after they came.
struct Looked {
    samples: Samples,
    before: i64,
    after: i64,
}

impl Looked {
    fn at(context: &Context, remote: &Remote) -> Result<Self, Problem> {
        let clock = &context.env.clock;
        let before = clock.now();
        let page = remote.text("/metrics", PAGE_BYTES_MAX)?;
        Ok(Self {
            samples: Samples::read(&page),
            before,
            after: clock.now(),
        })
    }
}

struct Doctor<'a> {
    context: &'a Context,
    config: Config,
    folder: PathBuf,
    findings: Vec<Finding>,
}

impl Doctor<'_> {
    fn good(&mut self, what: &'static str, detail: impl Into<String>) {
        self.findings.push(Finding::good(what, detail));
    }

    fn warn(&mut self, what: &'static str, detail: impl Into<String>) {
        self.findings.push(Finding::warn(what, detail));
    }

    fn bad(&mut self, what: &'static str, problem: impl std::fmt::Display) {
        self.findings.push(Finding::bad(what, problem.to_string()));
    }

    /// Whether definitions are right, and those in force: here, or on a server.
    fn definitions(&mut self, server: Option<&Remote>) {
        let project = match Project::load(&self.context.env, &self.context.folder) {
            Ok(project) => project,
            Err(problems) => {
                let detail = format!("{} problems: see `headwater check`", problems.len());
                return self.bad("definitions", detail);
            }
        };
        self.good("definitions", "every definition is right");
        let plan = match server {
            None => plan_project(&self.context.env, &project, &self.folder).map_err(Failure::from),
            Some(remote) => plan_on(self.context, remote),
        };
        self.applied(plan);
    }

    fn applied(&mut self, plan: Result<Plan, Failure>) {
        match plan {
            Ok(plan) if plan.is_empty() => {
                self.good("applied", "what is applied is what is defined");
            }
            Ok(plan) => {
                let count = plan.items.len();
                self.warn(
                    "applied",
                    format!("{count} changes aren't applied: see `headwater plan`"),
                );
            }
            Err(Failure::Problems(problems)) => {
                problems.iter().for_each(|p| self.bad("applied", p));
            }
            Err(Failure::Told) => {}
        }
    }

    /// Settings that contradict each other: each may be meant, and together they don't do what they say.
    fn settings(&mut self) {
        let found = contradictions(&self.config.spec);
        if found.is_empty() {
            return self.good("settings", "no limit contradicts another");
        }
        found.into_iter().for_each(|f| self.warn("settings", f));
    }

    fn disk(&mut self) {
        if let Err(problem) = self.context.env.files.create_dir_all(&self.folder) {
            self.bad("data folder", problem);
        }
        match self.context.env.files.free_bytes(&self.folder) {
            Ok(free) => self.free(free),
            Err(problem) => self.bad("disk", problem),
        }
    }

    fn free(&mut self, bytes: u64) {
        if bytes < FREE_BYTES_MIN {
            return self.warn("disk", format!("only {} MB are free", bytes >> 20));
        }
        self.good("disk", format!("{} GB are free", bytes >> 30));
    }

    fn sync(&mut self) {
        match sync_times(self.context, &self.folder) {
            Ok((median, worst)) => {
                let verdict = if median > SYNC_MS_MAX {
                    Verdict::Warn
                } else {
                    Verdict::Good
                };
                let detail = format!(
                    "{median:.2} ms in the median, {worst:.2} ms at worst: each acknowledged write waits for one"
                );
                self.findings.push(Finding::new(verdict, "sync", detail));
            }
            Err(problem) => self.bad("sync", problem),
        }
    }

    fn clock(&mut self) {
        self.clock_at(self.context.env.clock.now());
    }

    fn clock_at(&mut self, now: i64) {
        if now < CLOCK_MIN {
            self.bad(
                "clock",
                "it stands before 2020: arrival times would be wrong",
            );
        } else {
            self.good("clock", format_timestamp(now));
        }
    }

    /// Whether the system lets the process open as many files as there may be connections.
    fn open_files(&mut self) {
        let wanted = self.config.spec.limits.connections_max as u64 + FILES_BESIDE;
        match open_files_max(self.context) {
            Some(most) if most < wanted => self.warn(
                "open files",
                format!(
                    "the system allows {most}, `limits.connections_max` may need {wanted}: raise it (`ulimit -n`) or lower the limit"
                ),
            ),
            Some(most) => self.good("open files", format!("the system allows {most}")),
            None => self.good("open files", "the system tells no limit"),
        }
    }

    /// Whether others can reach the server, and need a key when they do.
    fn door(&mut self) {
        let address = self.config.spec.listen;
        let env = self.context.env.clone();
        let file = KeyFile::new(env, &self.config, &self.context.folder, &self.folder);
        let auth = match authorizer(&file, &self.config, std::sync::Arc::new(Unheard)) {
            Ok(auth) => auth,
            Err(problem) => return self.bad("keys", problem),
        };
        match check_address(address, &auth) {
            Err(problem) => self.bad("keys", problem),
            Ok(()) if auth.is_required() => self.good("keys", "every call needs one"),
            Ok(()) => self.good(
                "keys",
                format!("none are needed: {address} is this machine's own"),
            ),
        }
        self.expiries(&file);
        if !keys::is_loopback(address.ip()) && self.config.spec.tls.is_none() {
            self.warn(
                "tls",
                format!("{address} is open to others without TLS: set `tls`"),
            );
        }
    }

    /// Keys that will soon be refused, or are.
    fn expiries(&mut self, file: &KeyFile) {
        let now = self.context.env.clock.now();
        let keys = file.in_force(&self.config).unwrap_or_default().0;
        for key in keys {
            let Some(at) = key.expires_at().unwrap_or_default() else {
                continue;
            };
            let (id, when) = (&key.id, format_timestamp(at));
            if at <= now {
                self.warn(
                    "keys",
                    format!("`{id}` expired at {when}: calls with it are refused"),
                );
            } else if at.saturating_sub(now) <= EXPIRY_NOTICE {
                let days = at.saturating_sub(now) / DAY;
                let detail =
                    format!("`{id}` expires at {when}, in {days} days: give its user another");
                self.warn("keys", detail);
            }
        }
    }

    /// What the data folder holds: opened, so that what has to be mended is.
    fn data(&mut self) {
        let env = self.context.env.clone();
        match Engine::open(env, &self.config, &self.folder, |_, _| {}) {
            Ok(engine) => {
                self.log(&engine);
                let samples = Samples::read(&openmetrics(&engine.measures()));
                self.findings.extend(told::of_engine(&samples));
                let views = RegistryQuery::Kind(DefinitionKind::View);
                let views = Backend::registry(&engine, &views);
                self.fills(views);
                if let Err(problem) = engine.close() {
                    self.bad("data", problem);
                }
            }
            Err(problem) if problem.code == "nothing-applied" => {
                self.warn("data", problem.to_string());
            }
            Err(problem) if problem.code == "data-folder-in-use" => self.holder(&problem),
            Err(problem) => self.bad("data", problem),
        }
    }

    /// A running process holds the data folder. A server has written where it listens, and can be asked; one that
    /// wants a key, and whatever else holds the folder, isn't broken.
    fn holder(&mut self, in_use: &Problem) {
        let asked = self.newest_server().map(|url| {
            let remote = self.context.remote_at(&url)?;
            let looked = Looked::at(self.context, &remote)?;
            Ok::<_, Problem>((url, remote, looked))
        });
        match asked {
            Some(Ok((url, remote, looked))) => {
                let detail = format!("the server at {url} holds it and was asked");
                self.good("data", detail);
                self.server(&remote, &looked);
            }
            Some(Err(problem)) => self.warn(
                "data",
                format!(
                    "a running process holds it, and its last server doesn't tell how it is: {problem}"
                ),
            ),
            None => self.warn(
                "data",
                format!(
                    "a running process holds it, so it wasn't looked at: {}",
                    in_use.detail
                ),
            ),
        }
    }

    /// Where the last server over the data folder listens, by its record.
    fn newest_server(&self) -> Option<String> {
        let query = AuditQuery {
            action: Some("serve.start".into()),
            limit: 1,
            ..AuditQuery::default()
        };
        let page = self.context.audit(&self.config).read(&query).ok()?;
        page.entries.last().map(|entry| entry.target.clone())
    }

    /// What a running server says of itself, of its machine, and of its views.
    fn server(&mut self, remote: &Remote, looked: &Looked) {
        let samples = &looked.samples;
        if let Some(free) = samples.value("headwater_data_free_bytes") {
            self.free(free as u64);
        }
        if let Some(seconds) = samples.value("headwater_clock_seconds") {
            let clock = (seconds * 1e6) as i64;
            self.clock_at(clock);
            let apart = (looked.before - clock).max(clock - looked.after);
            if apart > CLOCKS_APART_MAX {
                let detail = format!(
                    "the server's and this machine's are {} s apart",
                    apart / 1_000_000
                );
                self.warn("clock", detail);
            }
        }
        self.findings.extend(told::since_the_start(samples));
        self.findings.extend(told::of_engine(samples));
        self.fills(remote.get("/v1/registry/views", &[]));
    }

    /// Whether every view is filled.
    fn fills(&mut self, views: Result<Json, Problem>) {
        let views = match views {
            Ok(views) => views,
            Err(problem) => return self.bad("views", problem),
        };
        let fills = Fill::all(&views);
        for fill in &fills {
            match &fill.problem {
                None => self.warn("views", format!("being filled, {}", fill.told())),
                Some(problem) => {
                    self.bad("views", format!("{} can't be filled: {problem}", fill.view))
                }
            }
        }
        if fills.is_empty() {
            self.good("views", "every view is filled");
        }
    }

    fn log(&mut self, engine: &Engine) {
        for repair in &engine.report().repairs {
            self.warn("repaired", repair.clone());
        }
        let segments = engine.facts_log().stats().segments;
        match engine.facts_log().verify() {
            Ok(bytes) => self.good(
                "fact log",
                format!(
                    "{} bytes in {segments} segments, every checksum right",
                    print::thousands(bytes)
                ),
            ),
            Err(problem) => self.bad("fact log", problem),
        }
    }
}

fn show(context: &Context, findings: &[Finding]) -> Result<(), Failure> {
    if context.json {
        let list: Vec<_> = findings
            .iter()
            .map(|f| json!({"verdict": f.verdict.as_str(), "what": f.what, "detail": f.detail}))
            .collect();
        print::json(&json!(list));
    } else {
        for finding in findings {
            println!(
                "{:<5} {:<12} {}",
                finding.verdict.as_str(),
                finding.what,
                finding.detail
            );
        }
    }
    if findings.iter().any(|f| f.verdict == Verdict::Bad) {
        return Err(Failure::Told);
    }
    Ok(())
}

/// Files and connections that the system lets a process have open, where it tells.
fn open_files_max(context: &Context) -> Option<u64> {
    let limits = context
        .env
        .files
        .read(Path::new("/proc/self/limits"))
        .ok()?;
    let limits = String::from_utf8(limits).ok()?;
    let line = limits
        .lines()
        .find_map(|l| l.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Median and worst milliseconds of small synced writes in the data folder.
fn sync_times(context: &Context, folder: &Path) -> Result<(f64, f64), Problem> {
    let path = folder.join("doctor.tmp");
    let failed = |e: headwater_env::FileError| {
        Problem::external("data-folder", "the data folder can't be written").detail(e)
    };
    let mut file = context.env.files.open_append(&path).map_err(failed)?;
    let mut times = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let start = context.env.clock.monotonic_nanos();
        file.append(&[0; 4096])
            .and_then(|()| file.sync())
            .map_err(failed)?;
        times.push((context.env.clock.monotonic_nanos() - start) as f64 / 1e6);
    }
    drop(file);
    context.env.files.remove_file(&path).map_err(failed)?;
    times.sort_by(f64::total_cmp);
    Ok((times[SYNCS / 2], times[SYNCS - 1]))
}
