//! The edge: HTTP, its wire types, its errors and its OpenAPI document.
//!
//! The only crate that knows HTTP and JSON replies. What it serves is a [`Backend`], which the
//! engine implements.

mod accept;
mod access;
mod archive;
mod arrow_stream;
mod audit;
mod auth;
pub mod backend;
mod body;
mod bundle;
mod chronon;
pub mod connection;
mod context;
mod error;
mod facts;
mod feast;
mod feature_read;
mod features;
mod feed;
mod feed_lines;
pub mod grpc;
mod guard;
mod limits;
mod metrics;
mod models;
mod oip;
mod openapi;
mod outcomes;
mod predict;
mod predictions;
mod quarantine;
mod query;
mod registry;
mod retract;
mod score;
mod server;
mod stall;
mod table_stream;
mod tls;
mod trace;
mod training_sets;

pub use access::{Access, RULES, Role, Rule};
pub use audit::{Audit, AuditEntry, AuditEvent, AuditPage, AuditQuery, Unheard};
pub use auth::{Authorizer, Caller, KEYS_MAX, KeyRecord, hash_key};
pub use backend::Backend;
pub use bundle::{BUNDLE, BundleBody, BundledHistory};
pub use facts::fact_json;
pub use headwater_features::entity_request;
pub use headwater_schema::value_to_json;
pub use limits::Limits;
pub use metrics::render as openmetrics;
pub use openapi::openapi;
pub use predictions::PredictionPage;
pub use server::{Server, ServerOptions};
pub use tls::Tls;
