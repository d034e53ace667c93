//! `headwater-bench`: measures the whole, prints what it ran on, and how each figure came to be.
//!
//! Every run is bounded; servers listen on loopback only.
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a program that prints what it measured, with the real clock"
)]

mod engine;
mod http;

use clap::Parser;
use headwater_schema::Problem;

/// Measures Headwater.
#[derive(Parser)]
struct Arguments {
    /// Facts of the engine's own measurements.
    #[arg(long, default_value_t = 1_000_000)]
    facts: usize,
    /// Seconds of each load over HTTP.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Connections of each load over HTTP.
    #[arg(long, default_value_t = 4)]
    connections: usize,
}

fn main() -> Result<(), Problem> {
    let arguments = Arguments::parse();
    machine();
    engine::measure(arguments.facts)?;
    http::measure(arguments.seconds, arguments.connections)
}

/// What the figures were made on.
fn machine() {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let model = read("/proc/cpuinfo");
    let model = model
        .lines()
        .find_map(|l| l.strip_prefix("model name"))
        .unwrap_or_default();
    let load = read("/proc/loadavg");
    let profile = if cfg!(debug_assertions) {
        "dev"
    } else {
        "release"
    };
    println!(
        "{cores} cores{model}; load {}; profile {profile}",
        load.split(' ').next().unwrap_or_default()
    );
}

/// A part of sorted times.
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted
        .get((last as f64 * share).round() as usize)
        .copied()
        .unwrap_or(f64::NAN)
}
