//! A short fuzzing run of every decoder. See `docs/testing.md` for longer ones.
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test that measures time and stops loudly"
)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use headwater_testkit::fuzz::{Mutator, TARGETS, Target};

/// How long one target is fuzzed, unless `HEADWATER_FUZZ_MS` says otherwise.
const TARGET_MS: u64 = 400;
/// No input takes longer, on a slow and busy machine.
const INPUT_SECONDS_MAX: u64 = 20;
/// What the process may ever take: no input makes a decoder take memory out of proportion.
const MEMORY_KIB_MAX: u64 = 1 << 20;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |v| v.parse().expect("a number"))
}

/// The greatest amount of memory that the process has had, where the system tells.
fn memory_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let digits = line.map(|l| l.trim().trim_end_matches(" kB"));
    digits.and_then(|d| d.parse().ok()).unwrap_or(0)
}

/// Where an input that broke a target is kept.
fn keep(target: &Target, input: &[u8]) -> PathBuf {
    let folder = std::env::temp_dir().join("headwater-fuzz");
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(target.name);
    std::fs::write(&path, input).unwrap();
    path
}

fn fails(target: &Target, input: &[u8]) -> bool {
    catch_unwind(AssertUnwindSafe(|| (target.run)(input))).is_err()
}

/// A shorter input that fails too: parts are left out while it does.
fn shrunk(target: &Target, mut input: Vec<u8>) -> Vec<u8> {
    let mut part = input.len() / 2;
    while part > 0 {
        let mut at = 0;
        while at < input.len() {
            let mut shorter = input.clone();
            drop(shorter.drain(at..(at + part).min(input.len())));
            if fails(target, &shorter) {
                input = shorter;
            } else {
                at += part;
            }
        }
        part /= 2;
    }
    input
}

/// What is being run now, for the watch to name should it hang.
type Now = Arc<Mutex<Option<(&'static Target, Vec<u8>, Instant)>>>;

fn watch(now: &Now) {
    let now = now.clone();
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let running = now.lock().unwrap();
            if let Some((target, input, since)) = &*running
                && since.elapsed() > Duration::from_secs(INPUT_SECONDS_MAX)
            {
                let path = keep(target, input);
                eprintln!("`{}` hangs on {}", target.name, path.display());
                std::process::abort();
            }
        }
    });
}

/// What the last panic said. Panics are caught by the hundred while an input is made shorter, and
/// some decoders catch those of libraries: only the one that matters is shown.
static LAST_PANIC: Mutex<String> = Mutex::new(String::new());

fn be_quiet() {
    std::panic::set_hook(Box::new(|info| {
        *LAST_PANIC.lock().unwrap() = info.to_string();
    }));
}

/// Runs inputs of one target; how many, how many it accepted, or what it failed on.
fn fuzz(target: &'static Target, seed: u64, now: &Now) -> Result<(u64, u64), String> {
    let seeds = (target.seeds)();
    for valid in &seeds {
        if !catch_unwind(AssertUnwindSafe(|| (target.run)(valid))).unwrap_or(false) {
            let text = String::from_utf8_lossy(valid);
            return Err(format!("it refuses its own seed {text}"));
        }
    }
    let mut mutator = Mutator::new(seed, &seeds, target.words);
    let (mut runs, mut accepted) = (0u64, 0u64);
    let until = Instant::now() + Duration::from_millis(setting("HEADWATER_FUZZ_MS", TARGET_MS));
    while Instant::now() < until {
        let input = mutator.input();
        *now.lock().unwrap() = Some((target, input.clone(), Instant::now()));
        match catch_unwind(AssertUnwindSafe(|| (target.run)(&input))) {
            Ok(fine) => accepted += u64::from(fine),
            Err(_) => {
                *now.lock().unwrap() = None;
                let path = keep(target, &shrunk(target, input));
                let said = LAST_PANIC.lock().unwrap().clone();
                return Err(format!(
                    "{said}\nrun HEADWATER_FUZZ_INPUT={} HEADWATER_FUZZ_TARGET={} cargo test -p headwater-testkit --test fuzz",
                    path.display(),
                    target.name
                ));
            }
        }
        *now.lock().unwrap() = None;
        runs += 1;
        let memory = memory_kib();
        if memory > MEMORY_KIB_MAX {
            let path = keep(target, &input);
            return Err(format!("it took {memory} KiB on {}", path.display()));
        }
    }
    Ok((runs, accepted))
}

#[test]
fn no_decoder_panics_hangs_or_takes_memory_out_of_proportion() {
    let only = std::env::var("HEADWATER_FUZZ_TARGET").ok();
    let chosen = TARGETS
        .iter()
        .filter(|t| only.as_deref().is_none_or(|o| o == t.name));
    let seed = setting("HEADWATER_FUZZ_SEED", 1);
    let now = Now::default();
    watch(&now);
    be_quiet();
    let mut failures = Vec::new();
    for target in chosen {
        if let Ok(path) = std::env::var("HEADWATER_FUZZ_INPUT") {
            let accepted = (target.run)(&std::fs::read(path).unwrap());
            eprintln!("`{}`: accepted {accepted}", target.name);
            continue;
        }
        if let Ok(folder) = std::env::var("HEADWATER_FUZZ_CORPUS") {
            let folder = PathBuf::from(folder).join(target.name);
            std::fs::create_dir_all(&folder).unwrap();
            for (index, valid) in (target.seeds)().iter().enumerate() {
                std::fs::write(folder.join(index.to_string()), valid).unwrap();
            }
            continue;
        }
        match fuzz(target, seed, &now) {
            Ok((runs, accepted)) => {
                let memory = memory_kib();
                eprintln!(
                    "`{}`: {runs} inputs, {accepted} accepted, {memory} KiB",
                    target.name
                );
            }
            Err(failure) => failures.push(format!("`{}`: {failure}", target.name)),
        }
    }
    drop(std::panic::take_hook());
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}
