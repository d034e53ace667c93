//! Windowed aggregation as an algebra (prepare, update, merge, finalise, retract), and its naive
//! oracle. One code path for serving, backfill and training sets. No I/O, no async.
//!
//! A fact's inputs enter an [`EntityState`]; a [`Window`] at a cursor is a range of the total order;
//! the state adds the facts in that range to [`Partial`]s; [`Aggregate::finalize`] reads a value.

mod block;
mod bottom_k;
mod column;
mod decayed;
mod exact_sum;
mod exp2;
mod finalize;
mod forward;
mod function;
mod histogram;
mod layout;
mod moments;
#[cfg(any(test, feature = "oracle"))]
pub mod oracle;
mod ordered;
mod outcome;
mod partial;
mod parts;
mod quantile;
mod slide;
mod state;
mod window;
mod without;

pub use block::InputBatch;
pub use column::InputColumn;
pub use finalize::Reading;
pub use forward::{ForwardReads, ForwardWindow};
pub use function::{Aggregate, CATEGORIES_MAX_DEFAULT, EXACT_UP_TO_DEFAULT, Quantiles};
pub use layout::{Contribution, Layout, Slot, SlotKind, Spread};
pub use outcome::{Outcome, Status};
pub use partial::Partial;
pub use parts::PLACES_MAX;
pub use quantile::BILLION as QUANTILE_WHOLE;
pub use state::{Aged, BLOCK_ROWS, Corrupt, EntityState};
pub use window::{Grid, Window, WindowKind, WindowRange};
