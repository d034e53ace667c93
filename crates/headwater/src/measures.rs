//! What an operator wants to measure, gathered from every part of the engine. The names are part of
//! the interface; docs/metrics.md lists them.

mod machine;
mod predictions;

use std::sync::atomic::Ordering;

use headwater_api::backend::Measure;
use headwater_facts::{Archive, FactLogStats};
use headwater_stream::{ShardStats, ViewStats};

use crate::Engine;

/// Every measure, now.
pub(crate) fn measures(engine: &Engine) -> Vec<Measure> {
    let mut out = Vec::new();
    machine::machine(engine, &mut out);
    log(engine, &mut out);
    archive(engine, &mut out);
    sources(engine, &mut out);
    reads(engine, &mut out);
    predictions::serving(engine, &mut out);
    pipeline(engine, &mut out);
    stream(engine, &mut out);
    out
}

fn gauge(name: &'static str, help: &'static str, value: f64) -> Measure {
    Measure::gauge(name, help, value)
}

fn counter(name: &'static str, help: &'static str, value: u64) -> Measure {
    Measure::counter(name, help, value)
}

fn labelled(measure: Measure, label: &'static str, value: &str) -> Measure {
    measure.of(label, value)
}

fn log(engine: &Engine, out: &mut Vec<Measure>) {
    let stats = engine.facts_log().stats();
    out.push(gauge(
        "log_bytes",
        "Bytes of the fact log.",
        stats.bytes as f64,
    ));
    out.push(gauge(
        "log_segments",
        "Files of the fact log.",
        stats.segments as f64,
    ));
    out.push(gauge(
        "log_index_bytes",
        "Bytes of the indexes of the fact log.",
        stats.index_bytes as f64,
    ));
    out.push(gauge(
        "log_last_sequence",
        "The newest sequence.",
        stats.last_sequence as f64,
    ));
    if let Some(arrived) = stats.newest_arrival {
        out.push(gauge(
            "facts_arrived_seconds",
            "When the newest fact arrived, as seconds since 1970.",
            arrived as f64 / 1e6,
        ));
    }
    out.push(Measure::durations(
        "log_append_seconds",
        "Time of durable writes, each of one group of requests.",
        stats.append,
    ));
    out.push(Measure::durations(
        "log_sync_seconds",
        "Time that the disk took to make a write durable.",
        stats.sync,
    ));
    out.push(gauge(
        "log_append_seconds_max",
        "The longest durable write.",
        stats.append_nanos_max as f64 / 1e9,
    ));
    out.push(counter(
        "facts_duplicate",
        "Facts that were known already.",
        stats.duplicates,
    ));
    out.push(counter(
        "facts_conflicting",
        "Facts whose id was known with another payload.",
        stats.conflicts,
    ));
    contracts(&stats, out);
    for contract in engine.catalog().contracts() {
        let unknown = stats.unknown.get(&contract.name);
        let unknown = counter(
            "facts_unknown_fields",
            "Fields of facts that their contract doesn't know.",
            unknown.map_or(0, |u| u.fields),
        );
        out.push(labelled(unknown, "contract", &contract.name));
    }
}

fn contracts(stats: &FactLogStats, out: &mut Vec<Measure>) {
    for (contract, kept) in &stats.contracts {
        let facts = gauge("facts_kept", "Facts in the log.", kept.facts as f64);
        out.push(labelled(facts, "contract", contract));
        let removed = gauge(
            "facts_removed",
            "Facts in the log that were revised or retracted.",
            kept.removed as f64,
        );
        out.push(labelled(removed, "contract", contract));
        let newest = gauge(
            "facts_newest_seconds",
            "The newest event time, as seconds since 1970.",
            kept.newest as f64 / 1e6,
        );
        out.push(labelled(newest, "contract", contract));
    }
    for (contract, rejected) in &stats.rejected {
        let resolved = stats.resolved.get(contract).copied().unwrap_or(0);
        let waiting = rejected.saturating_sub(resolved) as f64;
        let waiting = gauge(
            "facts_quarantined",
            "Rows that wait in quarantine.",
            waiting,
        );
        out.push(labelled(waiting, "contract", contract));
        let resolved = gauge(
            "facts_resolved",
            "Rows that were in quarantine and have become facts.",
            resolved as f64,
        );
        out.push(labelled(resolved, "contract", contract));
    }
}

/// What the archive holds, where there is one.
fn archive(engine: &Engine, out: &mut Vec<Measure>) {
    let Some(stats) = engine.facts_log().archive().map(Archive::stats) else {
        return;
    };
    let mut push = |name, help, value: f64| out.push(gauge(name, help, value));
    push(
        "archive_through_sequence",
        "Every fact that is kept up to this sequence is in the archive.",
        stats.through as f64,
    );
    push(
        "archive_files",
        "Parquet files of the archive.",
        stats.files as f64,
    );
    push("archive_facts", "Facts in the archive.", stats.facts as f64);
    push("archive_bytes", "Bytes of the archive.", stats.bytes as f64);
    push(
        "archive_cache_bytes",
        "Bytes of files that were read back from the archive and are kept.",
        stats.cache_bytes as f64,
    );
    push(
        "archive_failing",
        "1 where the last run of the archive failed, else 0.",
        f64::from(u8::from(stats.failure.is_some())),
    );
}

/// Sources that should be fresh, and how fresh they are.
fn sources(engine: &Engine, out: &mut Vec<Measure>) {
    let stale = engine.stale_sources();
    let catalog = engine.catalog();
    for contract in catalog.contracts() {
        let Some(within) = contract.freshness else {
            continue;
        };
        let is_stale = stale.iter().any(|s| s.contract == contract.name);
        let mut push = |measure| out.push(labelled(measure, "contract", &contract.name));
        push(gauge(
            "source_expected_seconds",
            "How old the newest fact of a contract may be.",
            within.0 as f64 / 1e6,
        ));
        push(gauge(
            "source_stale",
            "1 where the newest fact of a contract is older than it may be, else 0.",
            f64::from(u8::from(is_stale)),
        ));
    }
}

fn reads(engine: &Engine, out: &mut Vec<Measure>) {
    out.push(gauge(
        "queries_running",
        "Queries that run now.",
        engine.querying.running() as f64,
    ));
    let stats = engine.read_stats();
    out.push(Measure::durations(
        "feature_read_seconds",
        "Time to read the features of one request, without the wire.",
        stats.took.read(),
    ));
    out.push(counter(
        "feature_reads_stale",
        "Reads that told of a stale source.",
        stats.stale.load(Ordering::Relaxed),
    ));
}

fn pipeline(engine: &Engine, out: &mut Vec<Measure>) {
    let stats = engine.pipeline_stats();
    out.push(gauge(
        "ingest_waiting",
        "Requests that wait to be written.",
        stats.waiting as f64,
    ));
    out.push(counter(
        "ingest_groups",
        "Groups of requests written together.",
        stats.groups,
    ));
    out.push(counter(
        "ingest_requests",
        "Requests written.",
        stats.requests,
    ));
    out.push(counter(
        "ingest_refused",
        "Requests refused because too many waited.",
        stats.refused,
    ));
}

fn stream(engine: &Engine, out: &mut Vec<Measure>) {
    let stats = engine.processor_stats();
    out.push(gauge(
        "stream_applied_sequence",
        "The newest sequence that every view has seen.",
        stats.applied as f64,
    ));
    out.push(gauge(
        "stream_checkpoint_sequence",
        "The sequence of the last checkpoint.",
        stats.checkpointed as f64,
    ));
    out.push(counter(
        "stream_checkpoints",
        "Checkpoints written.",
        stats.checkpoints,
    ));
    out.push(gauge(
        "feature_store_bytes",
        "Bytes of the feature store.",
        stats.store_bytes as f64,
    ));
    shards(&stats.shards, out);
    views(&stats.views, out);
    fills(engine, &stats.views, out);
}

fn views(views: &[ViewStats], out: &mut Vec<Measure>) {
    for view in views {
        let mut push = |measure| out.push(labelled(measure, "view", &view.view));
        push(counter(
            "view_facts",
            "Facts applied to a view.",
            view.facts,
        ));
        push(counter(
            "view_null_keys",
            "Facts with a null in a key column.",
            view.null_keys,
        ));
        push(counter(
            "view_non_finite",
            "Input values that counted as null because they were NaN or infinite.",
            view.non_finite,
        ));
        push(gauge(
            "view_entities_in_memory",
            "Entities whose state is in memory.",
            view.entities_in_memory as f64,
        ));
        push(gauge(
            "view_bytes_in_memory",
            "About how many bytes of memory the states take.",
            view.bytes_in_memory as f64,
        ));
        push(counter(
            "view_evictions",
            "States that left memory.",
            view.evictions,
        ));
        push(counter("view_loads", "States read from disk.", view.loads));
        push(counter(
            "view_cold_reads",
            "Reads answered from the fact log.",
            view.cold_reads,
        ));
        if let Some(newest) = view.newest {
            push(gauge(
                "view_newest_seconds",
                "The newest event time of a view's facts, as seconds since 1970.",
                newest as f64 / 1e6,
            ));
        }
    }
}

/// How far views have been filled that are being filled.
fn fills(engine: &Engine, views: &[ViewStats], out: &mut Vec<Measure>) {
    for view in views {
        let progress = view.filled.map(|filled| engine.fill_progress(filled));
        let mut push = |name, help, value: f64| {
            out.push(labelled(gauge(name, help, value), "view", &view.view));
        };
        let filling = f64::from(u8::from(progress.is_some()));
        push(
            "view_filling",
            "Whether a view is still being filled.",
            filling,
        );
        let Some(progress) = progress else { continue };
        push(
            "view_filled_sequence",
            "The sequence that a view has been filled to, while it is being filled.",
            progress.filled_to as f64,
        );
        push(
            "view_fill_facts_done",
            "Facts that have been read to fill a view.",
            progress.facts_done as f64,
        );
        push(
            "view_fill_facts_total",
            "Facts to read until a view is filled.",
            progress.facts_total as f64,
        );
        if let Some(seconds) = progress.seconds_left {
            push(
                "view_fill_seconds_left",
                "About how long until a view is filled.",
                seconds,
            );
        }
    }
}

fn shards(shards: &[ShardStats], out: &mut Vec<Measure>) {
    for (index, shard) in shards.iter().enumerate() {
        let mut push = |measure| out.push(labelled(measure, "shard", &index.to_string()));
        push(gauge(
            "shard_entities_in_memory",
            "Entity states in the memory of a shard.",
            shard.entities_in_memory as f64,
        ));
        push(gauge(
            "shard_bytes_in_memory",
            "About how many bytes of memory the states of a shard take.",
            shard.bytes_in_memory as f64,
        ));
    }
}
