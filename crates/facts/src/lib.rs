//! The fact store: an append-only log that is the only truth, what is derived from it to find facts
//! again (ids, postings by entity, corrections), the quarantine of rows that broke their contract, and
//! the archive that sealed facts leave for.
//!
//! It doesn't decode requests (`schema` does) and knows nothing of features. Without the feature `disk` only the
//! log in memory is there.

#[cfg(feature = "disk")]
mod archive;
#[cfg(feature = "disk")]
mod build_index;
#[cfg(feature = "disk")]
mod count;
#[cfg(feature = "disk")]
mod dropped;
#[cfg(feature = "disk")]
mod embedded;
mod found;
#[cfg(feature = "disk")]
mod frame;
#[cfg(feature = "fuzz")]
pub mod fuzz;
#[cfg(feature = "disk")]
mod group;
#[cfg(feature = "disk")]
mod index;
mod kept;
#[cfg(feature = "disk")]
mod log;
mod log_trait;
mod memory;
mod retention;
mod row_hash;
#[cfg(feature = "disk")]
mod segment;
#[cfg(feature = "disk")]
mod unknown;

#[cfg(feature = "disk")]
pub use archive::{
    Archive, ArchiveListing, ArchiveOptions, ArchiveRun, ArchiveStats, ArchiveStore, ArchivedFile,
    ArchivedObject, FolderStore, RemoteStore, archived_name, damaged as archive_damaged,
    open_archive_store, unreachable as archive_unreachable,
};
#[cfg(feature = "disk")]
pub use count::count_facts;
#[cfg(feature = "disk")]
pub use embedded::{
    ContractStats, EmbeddedFactLog, FactLogOptions, FactLogStats, RecoveryReport, SyncPolicy,
};
pub use found::take as take_facts;
pub use kept::{KeptFacts, Restored, facts_at};
pub use log_trait::{
    AppendRequest, Appended, Change, FactLog, Fault, FoundColumns, FoundFacts, FoundRun, IndexSpec,
    Lookup, Mends, QuarantineQuery, QuarantinedRow, Scan, Wanted,
};
pub use memory::MemoryFactLog;
pub use retention::{PAST_RETENTION, refuse_before_kept, refuse_expired};
#[cfg(feature = "disk")]
pub use unknown::{NAMES_MAX, UnknownFields};
