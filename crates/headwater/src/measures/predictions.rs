//! What is measured of predictions: asked for, of arriving facts, remembered, written and posted.

use headwater_api::backend::Measure;
use headwater_serve::{CacheStats, ServingStats, StreamStats};

use super::{counter, gauge, labelled};
use crate::{Engine, WebhookStats};

pub(super) fn serving(engine: &Engine, out: &mut Vec<Measure>) {
    let stats = engine.serving_stats();
    for model in &stats.models {
        let mut push = |measure| out.push(labelled(measure, "model", &model.model));
        for (version, count) in &model.answered {
            let help = "Requests that a version of a model answered.";
            push(counter("predictions_answered", help, *count).of("version", version));
        }
        for (reason, count) in &model.degraded {
            let help = "Requests that a fallback answered, by the reason.";
            push(counter("predictions_degraded", help, *count).of("reason", reason));
        }
        push(counter(
            "predictions_failed",
            "Requests for predictions that got a problem.",
            model.failed,
        ));
        push(counter(
            "prediction_rows",
            "Rows of requests for predictions.",
            model.rows,
        ));
        push(Measure::durations(
            "prediction_seconds",
            "Time from a request's arrival to its answer, without the wire.",
            model.took,
        ));
        push(Measure::durations(
            "prediction_features_seconds",
            "Time of it to read features and encode them.",
            model.features,
        ));
        push(Measure::durations(
            "prediction_scoring_seconds",
            "Time of it to score.",
            model.scoring,
        ));
        for (became, count) in &model.shadows {
            let help = "Requests that a shadow was to be asked for, by what became of it.";
            push(counter("predictions_shadowed", help, *count).of("became", became));
        }
        cache(model.cache, &mut push);
    }
    for stream in &stats.streams {
        prediction_stream(stream, out);
    }
    for model in &stats.streams_refused {
        prediction_stream_refused(model, true, out);
    }
    for webhook in &engine.webhooks.stats() {
        prediction_webhook(webhook, out);
    }
    prediction_log(&stats, out);
}

fn prediction_stream_refused(model: &str, refused: bool, out: &mut Vec<Measure>) {
    let measure = gauge(
        "prediction_stream_refused",
        "1 for a model with `on` that scores nothing, else 0; `GET /v1/models` says why.",
        f64::from(u8::from(refused)),
    );
    out.push(labelled(measure, "model", model));
}

fn prediction_stream(stream: &StreamStats, out: &mut Vec<Measure>) {
    prediction_stream_refused(&stream.model, false, out);
    let mut push = |measure| out.push(labelled(measure, "model", &stream.model));
    push(gauge(
        "prediction_stream_backlog_facts",
        "Facts of the log, of whatever contract, that a model with `on` hasn't looked at.",
        stream.backlog as f64,
    ));
    push(gauge(
        "prediction_stream_lag_seconds",
        "How long ago the fact arrived that a model with `on` is at; 0 where it has looked at all.",
        stream.lag as f64 / 1e6,
    ));
    push(counter(
        "prediction_stream_written",
        "Predictions of arriving facts that were written.",
        stream.written,
    ));
    push(counter(
        "prediction_stream_repeated",
        "Predictions of arriving facts that had been written before.",
        stream.repeated,
    ));
    push(counter(
        "prediction_stream_degraded",
        "Predictions of arriving facts that a fallback answered.",
        stream.degraded,
    ));
    push(counter(
        "prediction_stream_failures",
        "Times that scoring or writing an arriving fact failed and was tried again.",
        stream.failures,
    ));
    for (reason, count) in &stream.skipped {
        let help = "Arriving facts that weren't scored, by the reason.";
        push(counter("prediction_stream_skipped", help, *count).of("reason", reason));
    }
}

fn cache(stats: CacheStats, push: &mut impl FnMut(Measure)) {
    push(counter(
        "prediction_cache_hits",
        "Rows that were answered by what was remembered.",
        stats.hits,
    ));
    push(counter(
        "prediction_cache_misses",
        "Rows that were worked out and remembered.",
        stats.misses,
    ));
    push(counter(
        "prediction_cache_joined",
        "Rows that another request was working out already.",
        stats.joined,
    ));
    push(gauge(
        "prediction_cache_saved_seconds",
        "What working out the rows that were remembered had taken.",
        stats.saved_nanos as f64 / 1e9,
    ));
}

fn prediction_log(stats: &ServingStats, out: &mut Vec<Measure>) {
    let mut push = |name, help, value: u64| out.push(gauge(name, help, value as f64));
    push(
        "predictions_waiting",
        "Requests that wait for a thread that predicts.",
        stats.waiting,
    );
    push(
        "models_loaded_bytes",
        "Bytes of the versions that are loaded.",
        stats.loaded_bytes,
    );
    push(
        "prediction_cache_entries",
        "Answers that are remembered.",
        stats.cache_entries,
    );
    push(
        "prediction_cache_bytes",
        "Bytes that they count for.",
        stats.cache_bytes,
    );
    push(
        "prediction_log_waiting",
        "Predictions that wait to be written as facts.",
        stats.log.waiting,
    );
    let mut push = |name, help, value| out.push(counter(name, help, value));
    push(
        "prediction_log_written",
        "Predictions written as facts.",
        stats.log.written,
    );
    push(
        "prediction_log_dropped",
        "Predictions that weren't written because too many waited.",
        stats.log.dropped,
    );
    push(
        "prediction_log_failed",
        "Predictions that the log refused.",
        stats.log.failed,
    );
}

fn prediction_webhook(webhook: &WebhookStats, out: &mut Vec<Measure>) {
    let mut push = |measure| out.push(labelled(measure, "model", &webhook.model));
    push(counter(
        "prediction_webhook_delivered",
        "Predictions that a webhook took.",
        webhook.delivered,
    ));
    push(counter(
        "prediction_webhook_failures",
        "Deliveries to a webhook that failed, each try.",
        webhook.failures,
    ));
    push(gauge(
        "prediction_webhook_backlog_facts",
        "Facts of the log, of whatever contract, that a webhook hasn't come to.",
        webhook.backlog as f64,
    ));
}
