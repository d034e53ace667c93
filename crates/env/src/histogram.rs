//! How long something takes: counts by duration, in buckets that never change, safe to add to from
//! any thread.

use std::sync::atomic::{AtomicU64, Ordering};

/// Upper bounds of the buckets, in seconds; what is longer is counted in the total alone.
pub const BOUNDS_SECONDS: [f64; 17] = [
    0.00001, 0.000025, 0.00005, 0.0001, 0.0002, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025,
    0.05, 0.1, 0.5, 2.0, 10.0,
];

/// A histogram of durations.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BOUNDS_SECONDS.len()],
    count: AtomicU64,
    nanos: AtomicU64,
}

/// What a histogram has counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Durations {
    /// How many were within each of [`BOUNDS_SECONDS`] and above the one before.
    pub buckets: [u64; BOUNDS_SECONDS.len()],
    pub count: u64,
    /// The sum of all, in nanoseconds.
    pub nanos: u64,
}

impl Histogram {
    pub fn observe_nanos(&self, nanos: u64) {
        let seconds = nanos as f64 / 1e9;
        if let Some(bucket) = BOUNDS_SECONDS.iter().position(|bound| seconds <= *bound) {
            self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    pub fn read(&self) -> Durations {
        let buckets = &self.buckets;
        Durations {
            buckets: std::array::from_fn(|i| buckets[i].load(Ordering::Relaxed)),
            count: self.count.load(Ordering::Relaxed),
            nanos: self.nanos.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_duration_falls_into_one_bucket_or_beyond_all() {
        let histogram = Histogram::default();
        for nanos in [0, 10_000, 10_001, 10_000_000_000, 10_000_000_001] {
            histogram.observe_nanos(nanos);
        }
        let seen = histogram.read();
        assert_eq!(
            (seen.buckets[0], seen.buckets[1], seen.buckets[16]),
            (2, 1, 1)
        );
        assert_eq!(seen.buckets.iter().sum::<u64>(), 4);
        assert_eq!((seen.count, seen.nanos), (5, 20_000_020_002));
    }
}
