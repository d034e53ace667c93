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
/// How long an estimate holds after the last answer: one that is too high would keep what it is about from being tried.
const HOLDS_NANOS: u64 = 1_000_000_000;

/// What answers of a model take, by the number of their rows and whether they are explained.
#[derive(Debug, Default)]
pub(crate) struct Expected(Mutex<[[Estimate; SIZES]; 2]>);

/// What is answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Work {
    pub rows: usize,
    pub explain: bool,
}

/// The mean and the mean deviation of some nanoseconds, the latest of them counting most.
#[derive(Debug, Default, Clone, Copy)]
struct Estimate {
    mean: u64,
    deviation: u64,
    /// When the last answer came; zero where none has.
    at: u64,
}

impl Estimate {
    /// As TCP estimates how long an acknowledgement takes (RFC 6298, section 2).
    fn took(&mut self, nanos: u64, now: u64) {
        if self.holds(now) {
            let off = self.mean.abs_diff(nanos);
            self.deviation = self.deviation - self.deviation / 4 + off / 4;
            self.mean = self.mean - self.mean / 8 + nanos / 8;
        } else {
            (self.mean, self.deviation) = (nanos, nanos / 2);
        }
        self.at = now;
    }

    fn holds(&self, now: u64) -> bool {
        self.at > 0 && now.saturating_sub(self.at) <= HOLDS_NANOS
    }

    /// What nearly all take at most; nothing where none came lately.
    fn most(&self, now: u64) -> u64 {
        match self.holds(now) {
            true => self.mean.saturating_add(self.deviation.saturating_mul(4)),
            false => 0,
        }
    }
}

impl Expected {
    pub fn took(&self, work: Work, nanos: u64, now: u64) {
        self.of(work, |estimate| estimate.took(nanos, now));
    }

    /// Nanoseconds that nearly all answers of about this size took at most of late.
    pub fn most(&self, work: Work, now: u64) -> u64 {
        self.of(work, |estimate| estimate.most(now))
    }

    fn of<T>(&self, work: Work, with: impl FnOnce(&mut Estimate) -> T) -> T {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let size = work.rows.checked_ilog2().unwrap_or(0) as usize;
        with(&mut all[usize::from(work.explain)][size.min(SIZES - 1)])
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

    fn work(&self) -> Work {
        Work {
            rows: count(&self.asked.rows),
            explain: self.asked.explain,
        }
    }

    /// Answers, and learns how long that takes, or failing.
    pub fn predict(&self) -> Result<Scored, Problem> {
        let clock = &self.core.env.clock;
        let began = clock.monotonic_nanos();
        let scored = predict(&self.core, self, self.asked.version.as_deref());
        if let Ok(served) = self.core.served(&self.model.name) {
            let now = clock.monotonic_nanos();
            let took = now.saturating_sub(began);
            served.counters.expected.took(self.work(), took, now);
        }
        scored
    }

    /// Why it is to be given up at once: it is late, or it has waited for half of its deadline or more and an answer usually
    /// takes longer than what is left. One that hasn't waited so long is always tried.
    pub fn hopeless(&self) -> Option<Problem> {
        if self.late() {
            return Some(self.too_late());
        }
        let (waited, deadline) = (self.spent_nanos(), self.deadline_nanos);
        let served = self.core.served(&self.model.name).ok()?;
        let now = self.core.env.clock.monotonic_nanos();
        let takes = served.counters.expected.most(self.work(), now);
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

    fn rows(rows: usize) -> Work {
        Work {
            rows,
            explain: false,
        }
    }

    #[test]
    fn an_estimate_follows_what_answers_take() {
        let expected = Expected::default();
        assert_eq!(expected.most(rows(1), 5), 0);
        expected.took(rows(1), 1000, 5);
        assert_eq!(expected.most(rows(1), 6), 1000 + 4 * 500);
        // 1000 is no news: the deviation falls by a quarter.
        expected.took(rows(1), 1000, 7);
        assert_eq!(expected.most(rows(1), 8), 1000 + 4 * 375);
        expected.took(rows(1), 9000, 9);
        // 375 − 93 + 2000, and 1000 − 125 + 1125.
        assert_eq!(expected.most(rows(1), 10), 2000 + 4 * 2282);
        for now in 10..110 {
            expected.took(rows(1), 1000, now);
        }
        assert!((1000..1200).contains(&expected.most(rows(1), 110)));
    }

    #[test]
    fn an_estimate_that_nothing_confirms_is_given_up() {
        let expected = Expected::default();
        let (began, holds) = (7, 7 + HOLDS_NANOS);
        expected.took(rows(1), 1_000_000, began);
        assert_eq!(expected.most(rows(1), holds), 3_000_000);
        assert_eq!(expected.most(rows(1), holds + 1), 0);
        // What comes next is believed as the first was.
        expected.took(rows(1), 10, holds + 1);
        assert_eq!(expected.most(rows(1), holds + 1), 30);
    }

    #[test]
    fn sizes_and_explanations_are_told_apart() {
        let expected = Expected::default();
        expected.took(rows(200), 80, 1);
        expected.took(rows(usize::MAX), 40, 1);
        for (asked, most) in [(0, 0), (1, 0), (127, 0), (128, 240), (255, 240), (256, 0)] {
            assert_eq!(expected.most(rows(asked), 1), most, "{asked} rows");
        }
        assert_eq!(expected.most(rows(1 << 20), 1), 120);
        let explained = Work {
            rows: 200,
            explain: true,
        };
        assert_eq!(expected.most(explained, 1), 0);
    }
}
