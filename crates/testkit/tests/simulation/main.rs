//! A whole engine under simulated time, disk and faults, one seed after another, held to the naive
//! oracle. See `docs/testing.md` for what a run is made of and what isn't simulated.
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test that measures time, uses a real folder for the index, and stops loudly"
)]

mod definitions;
mod model;
mod steps;
mod store;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use headwater_env::{Random, RealRandom};
use steps::{Settings, Step, script};
use world::World;

/// Seeds of every run of the tests, unless `HEADWATER_SIM_SEEDS` says otherwise.
const SEEDS: u64 = 60;
/// Seeds after them that no run has twice.
const FRESH_SEEDS: u64 = 20;
/// After this long none of the first, and of the others, is begun, unless the number of seeds was asked for.
const SECONDS_MAX: u64 = 15;
const FRESH_SECONDS_MAX: u64 = 5;

/// What the last panic said; panics are caught, so that a failure can be made shorter.
static LAST_PANIC: Mutex<String> = Mutex::new(String::new());

/// Runs steps; what happened.
fn run(seed: u64, settings: &Settings, steps: &[Step]) -> Result<Vec<String>, String> {
    let ran = catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new(seed, settings);
        for step in steps {
            world.step(step);
        }
        world.finish();
        std::mem::take(&mut world.trace)
    }));
    ran.map_err(|_| LAST_PANIC.lock().unwrap().clone())
}

/// Fewer steps that fail too: parts are left out while they do.
fn shrunk(seed: u64, settings: &Settings, mut steps: Vec<Step>) -> Vec<Step> {
    let mut part = steps.len() / 2;
    while part > 0 {
        let mut at = 0;
        while at < steps.len() {
            let mut fewer = steps.clone();
            drop(fewer.drain(at..(at + part).min(steps.len())));
            if run(seed, settings, &fewer).is_err() {
                steps = fewer;
            } else {
                at += part;
            }
        }
        part /= 2;
    }
    steps
}

fn check(seed: u64) -> Result<usize, String> {
    let (settings, steps) = script(seed);
    run(seed, &settings, &steps).map(|trace| trace.len()).map_err(|said| {
        let fewer = shrunk(seed, &settings, steps);
        let fewest = match run(seed, &settings, &fewer) {
            Err(said) => said,
            Ok(_) => "it fails at times only".to_owned(),
        };
        format!(
            "seed {seed}: {said}\n\nwith fewer steps: {fewest}\n{settings:?}\n{fewer:#?}\n\nrun it again: HEADWATER_SIM_SEED={seed} cargo test -p headwater-testkit --test simulation"
        )
    })
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|v| v.parse().expect("a number"))
}

fn be_quiet() {
    std::panic::set_hook(Box::new(|info| {
        *LAST_PANIC.lock().unwrap() = info.to_string();
    }));
}

/// Runs seeds until one fails, within the time that there is; what it failed with.
fn check_all(seeds: impl Iterator<Item = u64>, seconds_max: Option<u64>) -> Result<(), String> {
    let start = Instant::now();
    for seed in seeds {
        let long = seconds_max.is_some_and(|max| start.elapsed() > Duration::from_secs(max));
        if long {
            eprintln!("stopped before seed {seed}, after {:?}", start.elapsed());
            break;
        }
        check(seed)?;
    }
    eprintln!("{:?}", start.elapsed());
    Ok(())
}

#[test]
fn every_seed_agrees_with_the_oracle() {
    be_quiet();
    let (from, count) = (
        setting("HEADWATER_SIM_FROM").unwrap_or(0),
        setting("HEADWATER_SIM_SEEDS"),
    );
    let ran = match (setting("HEADWATER_SIM_SEED"), count) {
        (Some(seed), _) => check(seed).map(drop),
        (None, Some(count)) => check_all(from..from + count, None),
        (None, None) => {
            let random = RealRandom::default();
            let fresh = (0..FRESH_SEEDS).map(|_| random.next_u64());
            check_all(from..from + SEEDS, Some(SECONDS_MAX))
                .and_then(|()| check_all(fresh, Some(FRESH_SECONDS_MAX)))
        }
    };
    drop(std::panic::take_hook());
    if let Err(said) = ran {
        panic!("{said}");
    }
}

/// What is up to threads is left out: which of several requests are written together, and, of a log that isn't synced at
/// every write, what a power cut takes, since a checkpoint syncs it, too.
#[test]
fn a_seed_repeats_itself() {
    let scripts = (0..).map(|seed| (seed, script(seed)));
    let synced = scripts.filter(|(_, (settings, _))| settings.sync == headwater::Sync::Always);
    for (seed, (settings, mut steps)) in synced.take(4) {
        steps.retain(|step| !step.sends_several());
        let first = run(seed, &settings, &steps);
        assert_eq!(first, run(seed, &settings, &steps));
        assert!(first.is_ok_and(|trace| trace.len() > 20));
    }
}
