//! How long answers take: a request that has waited so long that it can't be answered in time is given up before the
//! work, not after it.
//!
//! Without that, where more is asked than fits, each request reaches a thread just when its deadline is over or nearly so: all
//! of the work is done, and none of it in time.

use std::sync::{Mutex, PoisonError};

use headwater_schema::Problem;

use crate::predict::{Scored, predict};
use crate::rows::count;
use crate::serving::Request;

/// Sizes that are told apart, by their binary logarithm.
const SIZES: usize = 16;

/// What answers of a model take, by the number of their rows.
#[derive(Debug, Default)]
pub(crate) struct Expected(Mutex<[Estimate; SIZES]>);

/// The mean and the mean deviation of some nanoseconds, the latest of them counting most.
#[derive(Debug, Default, Clone, Copy)]
struct Estimate {
    mean: u64,
    deviation: u64,
}

impl Estimate {
    /// As TCP estimates how long an acknowledgement takes (RFC 6298, section 2).
    fn took(&mut self, nanos: u64) {
        if self.mean == 0 {
            (self.mean, self.deviation) = (nanos, nanos / 2);
            return;
        }
        let off = self.mean.abs_diff(nanos);
        self.deviation = self.deviation - self.deviation / 4 + off / 4;
        self.mean = self.mean - self.mean / 8 + nanos / 8;
    }

    /// What nearly all take at most; nothing until one is known.
    fn most(self) -> u64 {
        self.mean.saturating_add(self.deviation.saturating_mul(4))
    }
}

impl Expected {
    pub fn took(&self, rows: usize, nanos: u64) {
        self.of(rows, |estimate| estimate.took(nanos));
    }

    /// Nanoseconds that nearly all answers of about so many rows take at most.
    pub fn most(&self, rows: usize) -> u64 {
        self.of(rows, |estimate| estimate.most())
    }

    fn of<T>(&self, rows: usize, with: impl FnOnce(&mut Estimate) -> T) -> T {
        let mut sizes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let size = rows.checked_ilog2().unwrap_or(0) as usize;
        with(&mut sizes[size.min(SIZES - 1)])
    }
}

impl Request {
    pub fn spent_nanos(&self) -> u64 {
        let now = self.core.env.clock.monotonic_nanos();
        now.saturating_sub(self.arrived_nanos)
    }

    pub fn late(&self) -> bool {
        self.spent_nanos() >= self.deadline_nanos
    }

    /// Answers, and learns how long that takes.
    pub fn predict(&self) -> Result<Scored, Problem> {
        let began = self.spent_nanos();
        let scored = predict(&self.core, self, self.asked.version.as_deref())?;
        if let Ok(served) = self.core.served(&self.model.name) {
            let took = self.spent_nanos().saturating_sub(began);
            // A store that stood still says nothing of the next answer.
            let took = took.min(self.deadline_nanos);
            served.counters.expected.took(count(&self.asked.rows), took);
        }
        Ok(scored)
    }

    /// Why it is to be given up at once: it is late, or it has waited for half of its deadline or more and an answer usually
    /// takes longer than what is left. One that hasn't waited so long is always tried, so that an estimate that is too
    /// high doesn't stay.
    pub fn hopeless(&self) -> Option<Problem> {
        if self.late() {
            return Some(self.too_late());
        }
        let (waited, deadline) = (self.spent_nanos(), self.deadline_nanos);
        let served = self.core.served(&self.model.name).ok()?;
        let takes = served.counters.expected.most(count(&self.asked.rows));
        if waited < deadline / 2 || waited.saturating_add(takes) <= deadline {
            return None;
        }
        let ms = |nanos: u64| nanos / 1_000_000;
        let problem = Problem::external("deadline", "the prediction would take too long")
            .detail(format!(
                "it has waited {} of {} ms, and takes up to {} ms",
                ms(waited),
                ms(deadline),
                ms(takes)
            ))
            .hint(
                "ask for less at a time, declare a `fallback` for the model, or allow it more time",
            );
        Some(problem.retryable())
    }

    pub fn too_late(&self) -> Problem {
        let after = self.deadline_nanos / 1_000_000;
        Problem::external("deadline", "the prediction took too long")
            .detail(format!("more than {after} ms"))
            .hint("declare a `fallback` for the model, or allow it more time")
            .retryable()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_follows_what_answers_take() {
        let expected = Expected::default();
        assert_eq!(expected.most(1), 0);
        expected.took(1, 1000);
        assert_eq!(expected.most(1), 1000 + 4 * 500);
        // 1000 is no news: the deviation falls by a quarter.
        expected.took(1, 1000);
        assert_eq!(expected.most(1), 1000 + 4 * 375);
        expected.took(1, 9000);
        // 375 − 93 + 2000, and 1000 − 125 + 1125.
        assert_eq!(expected.most(1), 2000 + 4 * 2282);
        for _ in 0..100 {
            expected.took(1, 1000);
        }
        assert!((1000..1200).contains(&expected.most(1)));
    }

    #[test]
    fn sizes_are_told_apart() {
        let expected = Expected::default();
        expected.took(200, 80);
        expected.took(usize::MAX, 40);
        for (rows, most) in [(0, 0), (1, 0), (127, 0), (128, 240), (255, 240), (256, 0)] {
            assert_eq!(expected.most(rows), most, "{rows} rows");
        }
        assert_eq!(expected.most(1 << 20), 120);
    }
}
