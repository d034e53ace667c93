//! Windowed aggregation as an algebra (prepare, update, merge, finalise, retract), and its naive
//! oracle. One code path for serving, backfill and training sets. No I/O, no async.
//!
//! A fact's inputs enter an [`EntityState`]; a [`Window`] at a cursor is a range of the total order;
//! the state adds the facts in that range to [`Partial`]s; [`Aggregate::finalize`] reads a value.

mod block;
mod bottom_k;
mod column;
mod exact_sum;
mod function;
mod layout;
#[cfg(any(test, feature = "oracle"))]
pub mod oracle;
mod outcome;
mod partial;
mod state;
mod window;

pub use block::InputBatch;
pub use column::InputColumn;
pub use function::{Aggregate, CATEGORIES_MAX_DEFAULT, EXACT_UP_TO_DEFAULT};
pub use layout::{Layout, Slot, SlotKind};
pub use outcome::{Outcome, Status};
pub use partial::Partial;
pub use state::{Aged, BLOCK_ROWS, Corrupt, EntityState};
pub use window::{Window, WindowKind, WindowRange};
