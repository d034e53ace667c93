//! What an engine's metrics tell an operator, whether it runs in this process or is a server elsewhere.

use headwater_schema::Micros;
use headwater_schema::time::{Duration, format_timestamp};

use super::samples::Samples;
use super::{Finding, Verdict};

/// Facts that arrived further in the future than this, in seconds, tell of a clock that went back.
const CLOCK_BACK_MAX: f64 = 1.0;

/// Sources, quarantine, archive, predictions, and how the engine's clock stands to its facts.
pub fn of_engine(samples: &Samples) -> Vec<Finding> {
    let mut found = Vec::new();
    sources(samples, &mut found);
    for (contract, rows) in samples.by("headwater_facts_quarantined", "contract") {
        if rows > 0.0 {
            let detail = format!(
                "{rows} rows of `{contract}` wait to be repaired: see `headwater facts quarantine`"
            );
            found.push(Finding::warn("quarantine", detail));
        }
    }
    if samples.value("headwater_archive_failing") == Some(1.0) {
        found.push(Finding::bad(
            "archive",
            "the last run failed, so nothing leaves the log: `headwater archive` tries again and says why",
        ));
    }
    let ahead = match (
        samples.value("headwater_facts_arrived_seconds"),
        samples.value("headwater_clock_seconds"),
    ) {
        (Some(arrived), Some(clock)) => arrived - clock,
        _ => 0.0,
    };
    if ahead > CLOCK_BACK_MAX {
        let detail =
            format!("the newest fact arrived {ahead:.0} s in the future: the clock has gone back");
        found.push(Finding::warn("clock", detail));
    }
    found
}

fn sources(samples: &Samples, found: &mut Vec<Finding>) {
    let of = |name: &str, contract: &str| {
        let by = samples.by(name, "contract").into_iter();
        let mut by = by.filter(|(c, _)| *c == contract);
        by.next().map(|(_, value)| (value * 1e6) as Micros)
    };
    let mut stale = false;
    for (contract, is_stale) in samples.by("headwater_source_stale", "contract") {
        if is_stale != 1.0 {
            continue;
        }
        stale = true;
        let newest = of("headwater_facts_newest_seconds", contract).map(format_timestamp);
        let newest = newest.unwrap_or_else(|| "nothing yet".into());
        let expected = of("headwater_source_expected_seconds", contract).unwrap_or_default();
        let detail = format!(
            "`{contract}` is stale: the newest fact is of {newest}, one is expected every {}",
            Duration(expected)
        );
        found.push(Finding::warn("source", detail));
    }
    if !stale {
        found.push(Finding::good(
            "sources",
            "none is staler than its contract allows",
        ));
    }
}

/// What has gone wrong since the engine started.
pub fn since_the_start(samples: &Samples) -> Vec<Finding> {
    let mut found = Vec::new();
    let count = |name: &str| samples.value(name).unwrap_or_default();
    let repairs = count("headwater_start_repairs");
    if repairs > 0.0 {
        let detail = format!("{repairs} things when it started: its log says what");
        found.push(Finding::warn("repaired", detail));
    }
    sync(samples, &mut found);
    let mut warn_of = |what, number: f64, told: &str| {
        if number > 0.0 {
            found.push(Finding::warn(what, format!("{number} {told}")));
        }
    };
    warn_of(
        "ingest",
        count("headwater_ingest_refused_total"),
        "requests were refused because too many waited (`ingest.queue_requests_max`)",
    );
    warn_of(
        "predictions",
        count("headwater_prediction_log_dropped_total"),
        "predictions weren't kept because too many waited (`serving.log_queue_predictions_max`)",
    );
    warn_of(
        "predictions",
        count("headwater_prediction_log_failed_total"),
        "predictions weren't kept because the log refused them",
    );
    for (reason, number) in samples.by("headwater_predictions_degraded_total", "reason") {
        let told = format!("requests were answered by a fallback: {reason}");
        warn_of("predictions", number, &told);
    }
    for (model, number) in samples.by("headwater_predictions_failed_total", "model") {
        let told = format!("requests to `{model}` got no answer");
        warn_of("predictions", number, &told);
    }
    warn_of(
        "requests",
        samples.sum_of("headwater_http_requests_total", "outcome", "server_error"),
        "requests ended in a server's error (5xx): its log says which",
    );
    found
}

fn sync(samples: &Samples, found: &mut Vec<Finding>) {
    let count = samples.value("headwater_log_sync_seconds_count");
    let seconds = samples.value("headwater_log_sync_seconds_sum");
    let worst = samples.value("headwater_log_append_seconds_max");
    let (Some(count), Some(seconds)) = (count, seconds) else {
        return;
    };
    if count == 0.0 {
        return found.push(Finding::good("sync", "nothing has been written yet"));
    }
    let mean = seconds / count * 1e3;
    let verdict = if mean > super::SYNC_MS_MAX {
        Verdict::Warn
    } else {
        Verdict::Good
    };
    let worst = worst.unwrap_or_default() * 1e3;
    let detail =
        format!("{mean:.2} ms on average of {count}; the longest durable write took {worst:.2} ms");
    found.push(Finding {
        verdict,
        what: "sync",
        detail,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(found: &[Finding]) -> Vec<(&'static str, &'static str)> {
        found.iter().map(|f| (f.verdict.as_str(), f.what)).collect()
    }

    #[test]
    fn an_engine_that_does_well_is_told_so() {
        let page = "headwater_source_stale{contract=\"a\"} 0\nheadwater_facts_quarantined{contract=\"a\"} 0\n\
            headwater_archive_failing 0\nheadwater_facts_arrived_seconds 10\nheadwater_clock_seconds 10.5\n\
            headwater_log_sync_seconds_count 4\nheadwater_log_sync_seconds_sum 0.004\n";
        let samples = Samples::read(page);
        assert_eq!(told(&of_engine(&samples)), [("OK", "sources")]);
        assert_eq!(told(&since_the_start(&samples)), [("OK", "sync")]);
    }

    #[test]
    fn each_trouble_is_told() {
        let page = "headwater_source_stale{contract=\"a\"} 1\nheadwater_source_expected_seconds{contract=\"a\"} 60\n\
            headwater_facts_quarantined{contract=\"a\"} 2\nheadwater_archive_failing 1\nheadwater_facts_arrived_seconds 20\n\
            headwater_clock_seconds 10\nheadwater_start_repairs 1\nheadwater_log_sync_seconds_count 4\nheadwater_log_sync_seconds_sum 0.4\n\
            headwater_ingest_refused_total 1\nheadwater_prediction_log_dropped_total 2\nheadwater_prediction_log_failed_total 3\n\
            headwater_predictions_degraded_total{model=\"m\",reason=\"deadline\"} 4\nheadwater_predictions_failed_total{model=\"m\"} 5\n\
            headwater_http_requests_total{call=\"x\",outcome=\"server_error\"} 6\n";
        let samples = Samples::read(page);
        assert_eq!(
            told(&of_engine(&samples)),
            [
                ("WARN", "source"),
                ("WARN", "quarantine"),
                ("FAIL", "archive"),
                ("WARN", "clock")
            ]
        );
        let found = since_the_start(&samples);
        assert!(found.iter().all(|f| f.verdict == Verdict::Warn));
        let whats: Vec<_> = found.iter().map(|f| f.what).collect();
        let predictions = ["predictions"; 4];
        assert_eq!(
            whats,
            [
                &["repaired", "sync", "ingest"][..],
                &predictions,
                &["requests"]
            ]
            .concat()
        );
        assert!(
            found[5]
                .detail
                .contains("4 requests were answered by a fallback: deadline"),
            "{}",
            found[5].detail
        );
    }
}
