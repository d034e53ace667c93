//! The fact store: an append-only log that is the only truth, what is derived from it to find facts
//! again (ids, postings by entity, corrections), the quarantine of rows that broke their contract, and
//! the archive that sealed facts leave for.
//!
//! It doesn't decode requests (`schema` does) and knows nothing of features.

mod archive;
mod build_index;
mod count;
mod dropped;
mod embedded;
mod found;
mod frame;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod group;
mod index;
mod kept;
mod log;
mod log_trait;
mod memory;
mod retention;
mod row_hash;
mod segment;
mod unknown;

pub use archive::{
    Archive, ArchiveListing, ArchiveOptions, ArchiveRun, ArchiveStats, ArchiveStore, ArchivedFile,
    ArchivedObject, FolderStore, RemoteStore, archived_name, open_archive_store,
};
pub use count::count_facts;
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
pub use unknown::{NAMES_MAX, UnknownFields};
