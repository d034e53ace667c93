//! What a measurement ran on, which core it may use, and what it took.

use std::time::{Duration, Instant};

use headwater_schema::Problem;
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::failed;

/// Prints cores, processor, load and profile.
pub fn print() {
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

/// Keeps the calling thread, and those that it starts from now on, on some cores.
pub fn pin(cores: &[usize]) -> Result<(), Problem> {
    let mut set = CpuSet::new();
    cores.iter().for_each(|core| set.set(*core));
    sched_setaffinity(None, &set).map_err(failed)
}

/// Runs `work` on a thread that stays on one core, with the threads that it starts.
pub fn on_core<T: Send>(
    core: usize,
    work: impl FnOnce() -> Result<T, Problem> + Send,
) -> Result<T, Problem> {
    std::thread::scope(|scope| {
        let pinned = scope.spawn(|| {
            pin(&[core])?;
            work()
        });
        pinned
            .join()
            .unwrap_or_else(|_| Err(failed("a thread panicked")))
    })
}

/// Seconds that the calling thread has had a core: what it took, whatever else the machine did meanwhile.
pub fn thread_seconds() -> f64 {
    let had = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = had.split_whitespace().next().and_then(|n| n.parse().ok());
    nanos.map_or(f64::NAN, |nanos: f64| nanos / 1e9)
}

/// Seconds that the threads of this process which still run have had a core.
pub fn process_seconds() -> f64 {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten();
    let nanos = threads.flatten().filter_map(|thread| {
        let had = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        had.split_whitespace().next()?.parse::<f64>().ok()
    });
    nanos.sum::<f64>() / 1e9
}

/// Bytes of memory that a process has resident (`self`, or a process id).
pub fn resident_bytes(process: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

/// Prints how long threads that only look at the clock, one on each core, were kept from it: what the machine
/// itself adds to every tail that is measured on it.
pub fn print_stalls() {
    const WATCHED: Duration = Duration::from_secs(3);
    /// A shorter gap is an interrupt, not a stall.
    const STALL: Duration = Duration::from_micros(200);
    let watch = |core: usize| {
        // Without a core of its own it still sees the stalls of those it's on.
        let _ = pin(&[core]);
        let start = Instant::now();
        let (mut last, mut lost, mut worst) = (start, Duration::ZERO, Duration::ZERO);
        while last - start < WATCHED {
            let now = Instant::now();
            let gap = now - last;
            last = now;
            worst = worst.max(gap);
            if gap > STALL {
                lost += gap;
            }
        }
        (lost, worst)
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let stalls: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores)
            .map(|core| scope.spawn(move || watch(core)))
            .collect();
        threads.into_iter().filter_map(|t| t.join().ok()).collect()
    });
    for (core, (lost, worst)) in stalls.into_iter().enumerate() {
        println!(
            "core {core}, busy with nothing but the clock: {:.2} % of the time taken away, {:.1} ms at the longest",
            lost.as_secs_f64() / WATCHED.as_secs_f64() * 100.0,
            worst.as_secs_f64() * 1e3
        );
    }
}

/// Seconds that `work` takes: the median of some runs.
pub fn median_seconds(
    runs: usize,
    mut work: impl FnMut() -> Result<(), Problem>,
) -> Result<f64, Problem> {
    let mut times = Vec::with_capacity(runs);
    for _ in 0..runs {
        let start = Instant::now();
        work()?;
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(percentile(&times, 0.5))
}

/// A part of sorted times.
pub fn percentile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted
        .get((last as f64 * share).round() as usize)
        .copied()
        .unwrap_or(f64::NAN)
}

/// Times as one line: p50, p99, p99.9 and the worst, in milliseconds.
pub fn spread(times: &mut [f64]) -> String {
    times.sort_by(f64::total_cmp);
    format!(
        "ms p50 {:.3}, p99 {:.3}, p99.9 {:.3}, worst {:.1}",
        percentile(times, 0.5),
        percentile(times, 0.99),
        percentile(times, 0.999),
        percentile(times, 1.0)
    )
}
