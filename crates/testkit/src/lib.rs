//! What tests of the whole share: projects on disk, the server as a process, a small client.
//!
//! Never published; nothing but tests depends on it.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test that can't go on should stop loudly, and tests use the real disk"
)]

pub mod conformance;
pub mod fuzz;
pub mod project;
pub mod server;

pub use project::TempProject;
pub use server::{Client, Reply, ServerProcess, call, call_with};
