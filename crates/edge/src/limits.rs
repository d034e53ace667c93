//! How large a bundle may be, and how much may be asked and told of it.

/// Bytes of a bundle.
pub const BUNDLE_BYTES_MAX: usize = 1 << 30;
/// Bytes of one section of it, packed or not.
pub const SECTION_BYTES_MAX: usize = 512 << 20;
/// Sections of a bundle.
pub const SECTIONS_MAX: usize = 1 << 20;
/// Facts that a bundle takes along.
pub const BUNDLED_FACTS_MAX: usize = 5_000_000;
/// Rows of entities that a bundle is made for.
pub const BUNDLED_ENTITIES_MAX: usize = 100_000;
/// Rows of one question.
pub const ROWS_MAX: usize = 10_000;
/// Facts told here, beside those of the bundle.
pub const LOCAL_FACTS_MAX: usize = 1_000_000;
/// Bytes of facts in one call.
pub const BODY_BYTES_MAX: usize = 16 << 20;
/// Bytes of a journal.
pub const JOURNAL_BYTES_MAX: u64 = 256 << 20;
