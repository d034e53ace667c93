//! The edge: HTTP, its wire types, its errors and its OpenAPI document.
//!
//! The only crate that knows HTTP and JSON replies. What it serves is a [`Backend`], which the
//! engine implements.

pub mod backend;
mod body;
mod error;
mod facts;
mod features;
mod json;
mod limits;
mod metrics;
mod openapi;
mod retract;
mod server;

pub use backend::Backend;
pub use features::entity_request;
pub use json::value_to_json;
pub use limits::Limits;
pub use openapi::openapi;
pub use server::Server;
