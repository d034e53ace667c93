//! What is made from many facts at once: training sets, backfill and SQL, by the same definitions and the
//! same `aggregate` as live reads.
//!
//! It isn't a second engine of features: nothing here knows how a window is computed. `headwater` calls it.

mod sweep;

pub use sweep::{Moment, Sweep, SweepOptions, SweptRows};
