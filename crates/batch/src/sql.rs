//! SQL over everything that is stored, read-only: the facts of every contract, what became of them, their
//! quarantine, and features, as of one cursor.
//!
//! DataFusion plans and runs; the tables here stream from the log and its archive in pieces, so that no
//! query holds more than its limits allow. Queries run on threads of their own. `headwater` calls it.

mod about;
mod archive_reader;
mod archive_scan;
mod as_of;
mod bounds;
mod distinct;
mod encode;
mod facts_table;
mod feature_columns;
mod feature_stream;
mod feature_tables;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod guard;
mod interruptible;
mod log_scan;
mod named;
mod options;
mod planned;
mod problem;
mod quarantine_table;
mod read_as;
mod removed;
mod result;
mod run;
mod sized;
mod snapshot;
mod stoppable;
mod tables;
mod utc;

pub use encode::{Encoder, Format, SEQUENCE_METADATA};
pub use options::QueryOptions;
pub use run::{Answer, Place, Queries, Query};
pub use snapshot::Snapshot;

#[cfg(test)]
mod tests;
