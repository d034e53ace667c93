//! What the archive knows of its files: one entry for each segment of the log, written after the
//! segment's files and never changed.

use std::fmt::Write as _;

use headwater_schema::{Micros, Problem, Sequence};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::segment::Segment;

/// The version of entries and of what they name.
pub const FORMAT: u32 = 1;
/// Programs that read folders of Parquet pass by names that begin with `_`.
const OWN_FOLDER: &str = "_headwater";

/// Microseconds of a day.
const DAY: i64 = 86_400_000_000;

/// The day, as days since 1970, that a moment lies in.
pub fn day_of(time: Micros) -> i32 {
    // A day of any 64-bit moment fits.
    i32::try_from(time.div_euclid(DAY)).unwrap_or(i32::MAX)
}

/// The object that says whose archive this is.
pub fn identity_path() -> String {
    format!("{OWN_FOLDER}/archive.json")
}

/// The object that holds the entry of a segment.
pub fn entry_path(first_sequence: Sequence) -> String {
    format!("{OWN_FOLDER}/segments/{first_sequence:020}.json")
}

/// The object that holds what Parquet files can't of a segment.
pub fn rest_path(first_sequence: Sequence) -> String {
    format!("{OWN_FOLDER}/segments/{first_sequence:020}.rest")
}

/// The object with facts of a contract and day; `layout` tells those of other columns apart.
pub fn facts_path(contract: &str, day: i32, first_sequence: Sequence, layout: usize) -> String {
    let (contract, day) = (escaped(contract), headwater_schema::time::format_date(day));
    format!("contract={contract}/day={day}/{first_sequence:020}-{layout}.parquet")
}

/// The object with the sequences of facts of a contract that a segment revises or retracts.
pub fn corrections_path(contract: &str, first_sequence: Sequence) -> String {
    let contract = escaped(contract);
    format!("corrections/contract={contract}/{first_sequence:020}.parquet")
}

/// A name as Hive writes it into a path.
fn escaped(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' | b'.' => {
                text.push(char::from(byte));
            }
            other => drop(write!(text, "%{other:02X}")),
        }
    }
    text
}

/// The checksum of an object.
pub fn checksum(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

/// A segment of the log in the archive.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Entry {
    pub format: u32,
    /// What the log knows of the segment; its spans are one, for all of it.
    pub segment: Segment,
    /// What Parquet can't hold: where records begin and end, corrections, the quarantine.
    pub rest: ArchivedObject,
    pub facts: Vec<ArchivedFile>,
    pub corrections: Vec<ArchivedFile>,
}

/// An object, and how to tell that it is whole.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ArchivedObject {
    pub path: String,
    pub bytes: u64,
    /// xxh3, 64 bits.
    pub checksum: u64,
}

/// A Parquet file of one contract, its rows in the order of their sequences.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ArchivedFile {
    pub contract: String,
    /// The day of every fact in it, as days since 1970; none for corrections.
    pub day: Option<i32>,
    /// The same number for files of the same segment and contract with the same columns.
    pub layout: usize,
    #[serde(flatten)]
    pub object: ArchivedObject,
    pub rows: u64,
    pub first_sequence: Sequence,
    pub last_sequence: Sequence,
    /// Of event times; of arrivals, for corrections.
    pub time_min: Micros,
    pub time_max: Micros,
}

impl Entry {
    pub fn first_sequence(&self) -> Sequence {
        self.segment.first_sequence
    }

    pub fn last_sequence(&self) -> Sequence {
        self.segment.next_sequence - 1
    }

    /// Every object that it names.
    pub fn objects(&self) -> impl Iterator<Item = &ArchivedObject> {
        let files = self.facts.iter().chain(&self.corrections);
        files.map(|file| &file.object).chain([&self.rest])
    }

    pub fn to_bytes(&self) -> Result<Vec<u8>, Problem> {
        serde_json::to_vec(self).map_err(|e| {
            Problem::internal("archive-entry", "an archive's entry can't be written").detail(e)
        })
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Problem> {
        let entry: Self = read_versioned(bytes)?;
        let (first, next) = (entry.segment.first_sequence, entry.segment.next_sequence);
        match (1..=next).contains(&first) {
            true => Ok(entry),
            false => Err(unreadable(format!(
                "a segment begins at the sequence {first} and ends before {next}"
            ))),
        }
    }
}

/// Whose archive this is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub format: u32,
    pub id: String,
}

impl Identity {
    pub fn to_bytes(&self) -> Result<Vec<u8>, Problem> {
        serde_json::to_vec(self).map_err(|e| {
            Problem::internal("archive-entry", "an archive's name can't be written").detail(e)
        })
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Problem> {
        read_versioned(bytes)
    }
}

/// Reads JSON whose `format` is one that this version knows.
fn read_versioned<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<T, Problem> {
    #[derive(Deserialize)]
    struct Version {
        format: u32,
    }
    let version: Version = serde_json::from_slice(bytes).map_err(unreadable)?;
    if version.format != FORMAT {
        return Err(Problem::external(
            "archive-format",
            format!("the archive has format {}", version.format),
        )
        .detail(format!("this version reads format {FORMAT}"))
        .hint("open it with the version of Headwater that wrote it"));
    }
    serde_json::from_slice(bytes).map_err(unreadable)
}

/// Something of the archive isn't what was written.
pub fn unreadable(detail: impl std::fmt::Display) -> Problem {
    Problem::external("archive-corrupt", "the archive is damaged")
        .detail(detail)
        .hint("restore the object from a copy, or from an older version of the bucket")
}
