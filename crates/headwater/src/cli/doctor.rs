//! `doctor`: what an operator would look at first.

use std::path::Path;

use headwater::{Engine, plan_project};
use headwater_schema::Problem;
use serde_json::json;

use super::{Context, Failure, print};

/// Syncs that are timed.
const SYNCS: usize = 20;
/// Less free room than this is a warning.
const FREE_BYTES_MIN: u64 = 1 << 30;
/// A slower sync than this is a warning.
const SYNC_MS_MAX: f64 = 50.0;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Good,
    Warn,
    Bad,
}

struct Finding {
    verdict: Verdict,
    what: &'static str,
    detail: String,
}

/// Looks at everything, then says what it found; fails where something is broken.
pub fn run(context: &Context) -> Result<(), Failure> {
    let mut findings = Vec::new();
    let mut note = |verdict, what, detail: String| {
        findings.push(Finding {
            verdict,
            what,
            detail,
        });
    };
    let config = context.config()?;
    let folder = context.data_folder(&config);
    match context.project() {
        Ok(project) => {
            note(
                Verdict::Good,
                "definitions",
                "every definition is right".into(),
            );
            match plan_project(&context.env, &project, &folder) {
                Ok(plan) if plan.is_empty() => note(
                    Verdict::Good,
                    "applied",
                    "what is applied is what is defined".into(),
                ),
                Ok(plan) => note(
                    Verdict::Warn,
                    "applied",
                    format!(
                        "{} changes aren't applied: see `headwater plan`",
                        plan.items.len()
                    ),
                ),
                Err(problem) => note(Verdict::Bad, "applied", problem.to_string()),
            }
        }
        Err(Failure::Problems(problems)) => note(
            Verdict::Bad,
            "definitions",
            format!("{} problems: see `headwater check`", problems.len()),
        ),
        Err(Failure::Told) => {}
    }
    if let Err(problem) = context.env.files.create_dir_all(&folder) {
        note(Verdict::Bad, "data folder", problem.to_string());
    }
    match context.env.files.free_bytes(&folder) {
        Ok(free) if free < FREE_BYTES_MIN => note(
            Verdict::Warn,
            "disk",
            format!("only {} MB are free", free >> 20),
        ),
        Ok(free) => note(Verdict::Good, "disk", format!("{} GB are free", free >> 30)),
        Err(problem) => note(Verdict::Bad, "disk", problem.to_string()),
    }
    match sync_times(context, &folder) {
        Ok((median, worst)) => {
            let verdict = if median > SYNC_MS_MAX {
                Verdict::Warn
            } else {
                Verdict::Good
            };
            note(
                verdict,
                "sync",
                format!(
                    "{median:.2} ms in the median, {worst:.2} ms at worst: each acknowledged write waits for one"
                ),
            );
        }
        Err(problem) => note(Verdict::Bad, "sync", problem.to_string()),
    }
    let now = context.env.clock.now();
    const YEAR_2020: i64 = 1_577_836_800_000_000;
    if now < YEAR_2020 {
        note(
            Verdict::Bad,
            "clock",
            "it stands before 2020: arrival times would be wrong".into(),
        );
    } else {
        note(
            Verdict::Good,
            "clock",
            headwater_schema::time::format_timestamp(now),
        );
    }
    match Engine::open(context.env.clone(), &config, &folder, |_, _| {}) {
        Ok(engine) => {
            for repair in &engine.report().repairs {
                note(Verdict::Warn, "repaired", repair.clone());
            }
            match engine.facts_log().verify() {
                Ok(bytes) => note(
                    Verdict::Good,
                    "fact log",
                    format!(
                        "{} bytes in {} segments, every checksum right",
                        print::thousands(bytes),
                        engine.facts_log().stats().segments
                    ),
                ),
                Err(problem) => note(Verdict::Bad, "fact log", problem.to_string()),
            }
            engine.close()?;
        }
        Err(problem) if problem.code == "nothing-applied" => {
            note(Verdict::Warn, "data", problem.to_string())
        }
        Err(problem) => note(Verdict::Bad, "data", problem.to_string()),
    }
    show(context, &findings)
}

fn show(context: &Context, findings: &[Finding]) -> Result<(), Failure> {
    let word = |verdict| match verdict {
        Verdict::Good => "OK",
        Verdict::Warn => "WARN",
        Verdict::Bad => "FAIL",
    };
    if context.json {
        let list: Vec<_> = findings
            .iter()
            .map(|f| json!({"verdict": word(f.verdict), "what": f.what, "detail": f.detail}))
            .collect();
        print::json(&json!(list));
    } else {
        for finding in findings {
            println!(
                "{:<5} {:<12} {}",
                word(finding.verdict),
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
