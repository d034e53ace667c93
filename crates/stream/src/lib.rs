//! The stream processor: facts in, durable and visible features out.
//!
//! The [`Pipeline`] groups what callers send into one durable append, hands it to the
//! [`Processor`] and answers the callers once it is visible. The processor routes facts by entity to
//! shards, keeps hot states in memory within a budget and the rest in the feature store, writes
//! checkpoints and recovers by replaying the log. It knows nothing of HTTP.

mod cold;
mod in_force;
mod pipeline;
mod processor;
mod reads;
mod replace;
mod shard;

pub use in_force::{Filled, InForce, ServedView};
pub use pipeline::{Done, Pipeline, PipelineOptions, PipelineStats};
pub use processor::{
    Behind, Extent, Processor, ProcessorOptions, ProcessorStats, RecoveryStats, ShardStats,
    ViewStats, Wanted,
};
pub use reads::ViewReads;
pub use replace::FillStats;
