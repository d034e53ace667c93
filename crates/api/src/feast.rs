//! Feast's wire format: what its feature server answers, so that its clients switch by URL.
//!
//! A feature service is a feature set, a feature view a view, a push source a contract. Shapes,
//! statuses and errors are Feast's; what is read and written is what `/v1/features` and `/v1/facts`
//! read and write.

mod columns;
mod error;
mod read;
mod request;
mod write;

use axum::Router;
use axum::routing::{get, post};

use crate::server::Shared;

pub use columns::{Columns, KeyCell};
pub use read::{Answer, OnlineFeaturesAnswer, OnlineFeaturesBody, Question, unix_seconds, views};
#[cfg(feature = "fuzz")]
pub use request::features_request;
pub use request::names;
pub use write::{PushBody, WriteBody};

/// The routes of Feast's feature server.
pub fn routes() -> Router<Shared> {
    Router::new()
        .route("/get-online-features", post(read::get_online_features))
        .route("/push", post(write::push))
        .route("/write-to-online-store", post(write::write_to_online_store))
        .route("/health", get(health))
}

/// The server recovers before it listens: it is healthy once it answers.
async fn health() {}
