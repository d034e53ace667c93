//! What is made from many facts at once: training sets, by the same definitions and the same `aggregate` as live
//! reads, and answers to SQL over what is stored.
//!
//! It isn't a second engine of features: nothing here knows how a window is computed. `headwater` calls it.

mod columns;
mod spine;
pub mod sql;
mod sweep;
mod table;
mod training_set;
#[cfg(test)]
mod unindexed;

pub use columns::{KeyShape, RowMoment, SpineColumns, SpineShape};
pub use spine::Spine;
pub use sweep::{Moment, Stop, Sweep, SweepOptions, SweptRows};
pub use table::{OutputFormat, TableWriter};
pub use training_set::{KnownRule, Manifest, SpineRead, fact_positions, sha256_hex, spine_format};
