//! SQL over everything that is stored, read-only: the facts of every contract, what became of them, and
//! their quarantine, as of one cursor.
//!
//! DataFusion plans and runs; the tables here stream from the log and its archive in pieces, so that no
//! query holds more than its limits allow. Queries run on threads of their own. `headwater` calls it.

mod bounds;
mod encode;
mod facts_table;
mod guard;
mod log_scan;
mod options;
mod problem;
mod quarantine_table;
mod result;
mod run;
mod sized;
mod snapshot;
mod tables;

pub use encode::{Encoder, Format};
pub use options::QueryOptions;
pub use run::{Answer, Queries, Query};
pub use snapshot::Snapshot;
