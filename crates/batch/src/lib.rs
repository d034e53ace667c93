//! What is made from many facts at once: training sets and rows to score, by the same definitions and the same
//! `aggregate` as live reads, and answers to SQL over what is stored.
//!
//! It isn't a second engine of features: nothing here knows how a window is computed. `headwater` calls it.

mod columns;
mod compact;
mod input_columns;
mod kept_rows;
mod moments;
mod progress;
mod score;
mod spill;
mod spine;
mod spool;
pub mod sql;
mod sweep;
mod table;
mod training_set;
#[cfg(test)]
mod unindexed;

pub use columns::{KeyShape, SpineColumns, SpineShape, SpineTime};
pub use compact::{batch_bytes, compact};
pub use input_columns::{InputColumns, InputShape};
pub use kept_rows::{KeptRows, KeptRowsWriter};
pub use moments::RowMoment;
pub use progress::{Progress, ProgressHook, Step, SweepProgress};
pub use score::{ScoreManifest, ScoredFeatures, ScoredRows, missing_values};
pub use spill::{Spill, SpillLimit};
pub use spine::SpineReader;
pub use spool::{HeldFile, Pieces, spool};
pub use sweep::{Moment, Stop, Sweep, SweepOptions, SweptRows};
pub use table::{OutputFormat, TableWriter};
pub use training_set::{KnownRule, Manifest, SpineRead, fact_positions, sha256_of, spine_format};
