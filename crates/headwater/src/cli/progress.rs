//! How far a table is that is being made: a bar on standard error while that is a terminal, nothing elsewhere.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use headwater_batch::{Progress, ProgressHook, Step};
use indicatif::{HumanDuration, ProgressBar, ProgressState, ProgressStyle};

/// The bar is drawn anew this often, whether or not there is news.
const DRAWN_EVERY: Duration = Duration::from_millis(200);

/// A bar that goes when it is dropped.
pub struct ProgressDisplay(ProgressBar);

impl ProgressDisplay {
    /// Shows nothing where it is to be quiet, as where JSON was asked for.
    pub fn new(quiet: bool) -> Self {
        Self(match quiet {
            true => ProgressBar::hidden(),
            false => ProgressBar::no_length(),
        })
    }

    /// What shows on the bar how far it is.
    pub fn hook(&self) -> ProgressHook {
        if self.0.is_hidden() {
            return ProgressHook::default();
        }
        let bar = self.0.clone();
        let step = Mutex::new(None);
        ProgressHook::new(move |progress| {
            let mut step = step.lock().unwrap_or_else(PoisonError::into_inner);
            if step.replace(progress.step) != Some(progress.step) {
                begin(&bar, progress);
                bar.enable_steady_tick(DRAWN_EVERY);
            }
            show(&bar, progress);
        })
    }
}

impl Drop for ProgressDisplay {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Begins another step, with an estimate of its own.
fn begin(bar: &ProgressBar, progress: Progress) {
    let template = match progress.total {
        Some(_) => "{msg} [{wide_bar}] {human_pos} of {human_len}{left}",
        None => "{msg}: {human_pos}",
    };
    bar.reset();
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.with_key("left", left));
    }
    bar.set_message(words(progress.step));
}

fn show(bar: &ProgressBar, progress: Progress) {
    if bar.length() != progress.total {
        match progress.total {
            Some(total) => bar.set_length(total),
            None => bar.unset_length(),
        }
    }
    bar.set_position(progress.done);
}

/// How long it takes yet, once that can be told.
fn left(state: &ProgressState, out: &mut dyn fmt::Write) {
    let left = state.eta();
    if !left.is_zero() {
        // A terminal that can't be written to is no reason to stop.
        let _ = out.write_fmt(format_args!(", about {:#} left", HumanDuration(left)));
    }
}

fn words(step: Step) -> String {
    match step {
        Step::ReadSpine => "Reading the spine, rows".to_owned(),
        Step::SweepFacts { sweep, sweeps } => format!("Sweep {sweep} of {sweeps}, facts"),
        Step::SweepRows { sweep, sweeps } => format!("Sweep {sweep} of {sweeps}, rows"),
        Step::WriteTable => "Writing rows".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_shows_each_step_with_its_own_count() {
        let bar = ProgressBar::hidden();
        let sweep = Step::SweepRows {
            sweep: 2,
            sweeps: 3,
        };
        let told = [
            (Step::ReadSpine, 7, None, "Reading the spine, rows"),
            (sweep, 20, Some(70), "Sweep 2 of 3, rows"),
            (Step::WriteTable, 0, Some(70), "Writing rows"),
        ];
        for (step, done, total, words) in told {
            let progress = Progress { step, done, total };
            begin(&bar, progress);
            show(&bar, progress);
            assert_eq!(bar.position(), done);
            assert_eq!(bar.length(), total);
            assert_eq!(bar.message(), words);
        }
    }
}
