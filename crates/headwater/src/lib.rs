//! Headwater as a library: one [`Engine`] per data folder, with the verbs of the command line.
//!
//! The binary is a thin main over it. This crate alone chooses implementations, starts and stops them
//! in order, and knows where things lie.

mod apply;
mod archive;
pub mod audit;
mod backend;
mod bundle;
mod config;
mod data;
mod describe;
mod engine;
mod fixture;
mod freshness;
mod indexes;
pub mod keys;
mod measures;
mod models;
mod parts;
mod predictions;
mod project;
mod quarantine;
mod query;
mod reader;
mod score;
pub mod settings;
mod table_file;
pub mod tls_files;
mod training_set;
mod webhooks;

pub use apply::FillProgress;
pub use archive::ArchiveSettings;
pub use audit::AuditLog;
pub use config::{
    AuditSettings, AuthSettings, Config, IngestSettings, LogFormat, LogSettings, Settings,
    StateSettings, Sync, TelemetrySettings, TlsSettings, TraceSettings,
};
pub use data::{
    DataFolder, OpenedStore, apply_project, apply_project_on, compile_applied, plan_project,
    read_registry,
};
pub use describe::{Running, describe};
pub use engine::{Engine, OpenReport};
pub use fixture::{CaseOutcome, Difference, FixtureTest, TestOutcome, run_test, test_schema};
pub use headwater_api as api;
pub use headwater_env::Env;
pub use headwater_schema as schema;
pub use headwater_serve as serve;
pub use keys::{KeyFile, authorizer, check_address};
pub use parts::{Following, Part, parts_of_lines, read_parts};
pub use project::{PROJECT_FILE, Project, project_name, read_definitions};
pub use table_file::{manifest_path, refuse_own_spine, table_format, write_table, write_whole};
pub use training_set::{
    MANIFEST_METADATA, TrainingSetSettings, refuse_changes, refuse_other_bytes, request_of,
};
pub use webhooks::{WebhookSettings, WebhookStats};
