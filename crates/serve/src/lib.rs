//! Serving models: a version and its features resolved, fetched, scored and answered in time, and what was
//! answered kept as a fact.
//!
//! [`Serving`] holds the loaded versions and a few threads with a bounded queue before them. It asks a
//! [`FeatureSource`] for features and hands finished predictions to a [`PredictionSink`]; it knows nothing of HTTP.

mod bind;
mod bulk;
mod cache;
mod deadline;
mod facts;
mod fallback;
mod format;
mod inference;
mod last_good;
mod loaded;
mod log;
mod manage;
mod positions;
mod predict;
mod request;
mod rows;
mod rules;
mod scorer;
mod serving;
mod settings;
mod shadow;
mod stats;
mod stream;
mod streams;
mod traffic;
mod trigger;

pub use bulk::BulkScorer;
pub use inference::{IndexedVersion, Signature, SignatureInput};
pub use log::{LogStats, PredictionSink};
pub use manage::NewVersion;
pub use positions::Positions;
pub use request::{
    AnsweredBy, Candidates, Degraded, Explanation, FeatureSource, FeaturesRead, InputRows,
    OutputRow, Pending, PredictReply, PredictRequest,
};
pub use rules::load_rules;
pub use scorer::Scorer;
pub use serving::{PredictDone, Serving};
pub use settings::ServingSettings;
pub use stats::{CacheStats, ModelStats, ServingStats, StreamStats, VersionCounts};

#[cfg(test)]
mod tests;
