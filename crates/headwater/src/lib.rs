//! Headwater as a library: one [`Engine`] per data folder, with the verbs of the command line.
//!
//! The binary is a thin main over it. This crate alone chooses implementations, starts and stops them
//! in order, and knows where things lie.

mod apply;
mod backend;
mod config;
mod data;
mod engine;
mod entity;
mod fixture;
mod measures;
mod project;
mod reader;

pub use config::{Config, IngestSettings, Settings, StateSettings, Sync};
pub use data::{DataFolder, apply_project, plan_project, read_registry};
pub use engine::{Engine, OpenReport};
pub use fixture::{CaseOutcome, Difference, FixtureTest, TestOutcome, run_test, test_schema};
pub use headwater_api as api;
pub use headwater_env::Env;
pub use headwater_schema as schema;
pub use project::{PROJECT_FILE, Project};
