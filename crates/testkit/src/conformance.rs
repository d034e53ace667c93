//! What every implementation of a store must do: one suite per trait, run on each implementation by
//! `tests/conformance.rs`. A new implementation runs the same.

pub mod archive_store;
pub mod fact_log;
pub mod feature_store;
