//! Fuzzing of everything that reads bytes from outside or from disk.
//!
//! A [`Target`] has valid documents to start from and says what must hold of any bytes. [`Mutator`] changes the
//! documents, within `cargo test` and for as long as is asked (`docs/testing.md`). No target may panic, hang, or take
//! memory out of proportion.

mod beside;
mod bundles;
pub mod documents;
mod messages;
mod models;
mod mutate;
mod project;
mod sql;
mod stored;
mod tensors;
mod text;

pub use bundles::sample as sample_bundle;
pub use mutate::Mutator;

/// A decoder under test.
pub struct Target {
    pub name: &'static str,
    /// Valid inputs, all of which `run` accepts.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Words of the format, to be written over and between.
    pub words: &'static [&'static str],
    /// Decodes; panics where the answer can't be right. Whether the input was accepted.
    pub run: fn(&[u8]) -> bool,
}

/// Every target.
pub const TARGETS: &[Target] = &[
    text::DEFINITIONS,
    project::CONFIG,
    project::TEST,
    text::EXPRESSIONS,
    text::TIMES,
    text::JSON,
    text::NDJSON,
    text::CSV,
    text::ARROW,
    text::PARQUET,
    text::INFER,
    sql::QUERIES,
    stored::REGISTRY,
    stored::BATCH,
    stored::VALUE,
    stored::KEY,
    stored::STATE,
    stored::STATE_TASTES,
    stored::STATE_ACTIVITY,
    stored::FRAME,
    stored::SEGMENT,
    stored::SIDECAR,
    stored::ARCHIVE_ENTRY,
    stored::ARCHIVE_REST,
    stored::ARCHIVE_IDENTITY,
    stored::DROPPED,
    stored::INDEX,
    beside::KEYS,
    beside::AUDIT,
    beside::MODEL_RECORD,
    beside::POSITION,
    messages::APPEND,
    messages::READ,
    messages::PREDICT,
    messages::ONLINE,
    tensors::MESSAGES,
    tensors::BODIES,
    models::LIGHTGBM,
    models::XGBOOST,
    models::UBJSON,
    models::CATBOOST,
    models::LINEAR,
    models::ONNX,
    bundles::BUNDLE,
    bundles::JOURNAL,
    models::RULES,
];

/// Runs one target, by name, on an input.
pub fn run(name: &str, input: &[u8]) -> bool {
    let target = TARGETS.iter().find(|t| t.name == name);
    (target.expect("a target of that name").run)(input)
}
