//! The online store: the states of entities that aren't in memory, and the log position each view
//! has been brought to.

#[cfg(feature = "disk")]
mod embedded;
mod memory;

use std::collections::BTreeMap;

use headwater_schema::{Problem, Sequence};

#[cfg(feature = "disk")]
pub use embedded::EmbeddedFeatureStore;
pub use memory::MemoryFeatureStore;

/// One entity's state in one view, as bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredState {
    /// The view's state id.
    pub view: String,
    pub key: Vec<u8>,
    pub state: Vec<u8>,
}

/// What one write holds: states, and the positions that views have been brought to with them.
#[derive(Debug, Clone, Default)]
pub struct StoreWrite {
    pub states: Vec<StoredState>,
    pub positions: BTreeMap<String, Sequence>,
}

/// Keeps entity states outside memory. Every implementation passes one suite (`testkit::conformance`).
///
/// Everything here can be made again from the fact log, so a write needn't reach the disk before it
/// returns. What must hold: a write is atomic, and writes survive in the order they were made, so
/// that after a crash no position is newer than the states that belong to it. A state may be newer
/// than its view's position: it names the last sequence it has seen and a replay skips those. Writing
/// the same state twice changes nothing.
pub trait FeatureStore: Send + Sync {
    /// The states of `keys` in a view, in the order of `keys`; none where there is none.
    fn get(&self, view: &str, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, Problem>;

    /// Applies a write as a whole.
    fn write(&self, write: &StoreWrite) -> Result<(), Problem>;

    /// The last sequence that each view has been brought to; views without any are absent.
    fn positions(&self) -> Result<BTreeMap<String, Sequence>, Problem>;

    /// Drops the states and the positions of every view that isn't named.
    fn retain(&self, views: &[String]) -> Result<(), Problem>;

    /// Returns once every write so far would survive a crash.
    fn sync(&self) -> Result<(), Problem>;

    /// How many bytes the store takes. It may wait as long as a read or a write.
    fn size_bytes(&self) -> u64;
}
