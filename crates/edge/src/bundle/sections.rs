//! A bundle in bytes: sections, each with its length and a checksum over all of it. Numbers are little-endian.
//!
//! ```text
//! "HWBUNDLE" | u8 format | section* | end
//! section: u8 kind | u8 packing | u32 length of the payload | u32 CRC-32 of kind, packing, length and payload | payload
//! packing: 0 as it is, 1 LZ4 behind the u32 length that it unpacks to
//! end:     a section of kind 0 whose payload is the u32 count of the sections before it
//! ```

use headwater_schema::Problem;

use crate::limits::{BUNDLE_BYTES_MAX, SECTION_BYTES_MAX, SECTIONS_MAX};

const MAGIC: &[u8; 8] = b"HWBUNDLE";
/// The version of the format.
pub const FORMAT: u8 = 1;
const END: u8 = 0;
const PLAIN: u8 = 0;
const LZ4: u8 = 1;
/// No byte of LZ4 stands for more bytes than this.
const COMPRESSION_MAX: usize = 256;
/// Payloads below this aren't worth packing.
const PACK_BYTES_MIN: usize = 256;

/// Bytes that are no bundle, or one that was damaged.
pub(super) fn corrupt(detail: impl std::fmt::Display) -> Problem {
    Problem::external("bundle-corrupt", "the bundle can't be read")
        .detail(detail)
        .hint(
            "it may be cut off or changed: copy it again, or make it again with `headwater bundle`",
        )
}

/// Refuses a file that is too long before it is read.
pub(super) fn check_length(length: u64) -> Result<(), Problem> {
    if length <= BUNDLE_BYTES_MAX as u64 {
        return Ok(());
    }
    Err(Problem::user("limit", "the bundle is too large")
        .detail(format!(
            "it has {length} bytes of at most {BUNDLE_BYTES_MAX}"
        ))
        .hint("make it for fewer entities"))
}

/// A bundle that is being written.
pub(super) struct Packed {
    bytes: Vec<u8>,
    sections: u32,
}

impl Packed {
    pub fn new() -> Self {
        let mut bytes = MAGIC.to_vec();
        bytes.push(FORMAT);
        Self { bytes, sections: 0 }
    }

    pub fn section(&mut self, kind: u8, payload: &[u8]) -> Result<(), Problem> {
        if payload.len() > SECTION_BYTES_MAX || self.sections as usize >= SECTIONS_MAX {
            return check_length(u64::MAX);
        }
        self.sections += 1;
        if payload.len() >= PACK_BYTES_MIN {
            let packed = lz4_flex::compress_prepend_size(payload);
            if packed.len() < payload.len() - payload.len() / 8 {
                return self.put(kind, LZ4, &packed);
            }
        }
        self.put(kind, PLAIN, payload)
    }

    fn put(&mut self, kind: u8, packing: u8, payload: &[u8]) -> Result<(), Problem> {
        let length = payload.len() as u32;
        self.bytes.extend([kind, packing]);
        self.bytes.extend(length.to_le_bytes());
        let checksum = checksum(kind, packing, payload);
        self.bytes.extend(checksum.to_le_bytes());
        self.bytes.extend_from_slice(payload);
        check_length(self.bytes.len() as u64)
    }

    pub fn finish(mut self) -> Result<Vec<u8>, Problem> {
        let count = self.sections.to_le_bytes();
        self.put(END, PLAIN, &count)?;
        Ok(self.bytes)
    }
}

fn checksum(kind: u8, packing: u8, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[kind, packing]);
    hasher.update(&(payload.len() as u32).to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

/// Reads sections in their order.
pub(super) struct SectionReader<'a> {
    rest: &'a [u8],
    sections: u32,
}

impl<'a> SectionReader<'a> {
    pub fn new(bytes: &'a [u8]) -> Result<Self, Problem> {
        check_length(bytes.len() as u64)?;
        let no_bundle = || {
            Problem::user("not-a-bundle", "this is no bundle")
                .detail("its first bytes are others")
                .hint("give a file that `headwater bundle` made")
        };
        let rest = bytes.strip_prefix(MAGIC).ok_or_else(no_bundle)?;
        let (format, rest) = rest
            .split_first()
            .ok_or_else(|| corrupt("it ends at once"))?;
        if *format != FORMAT {
            return Err(
                Problem::user("bundle-format", "the bundle has another format")
                    .detail(format!("it is {format}, this version reads {FORMAT}"))
                    .hint("make it with the version of Headwater that this library is of, or use a newer library"),
            );
        }
        Ok(Self { rest, sections: 0 })
    }

    /// The next section, which has to be of this kind.
    pub fn expect(&mut self, kind: u8) -> Result<Vec<u8>, Problem> {
        match self.next()? {
            Some((found, payload)) if found == kind => Ok(payload),
            Some((found, _)) => Err(corrupt(format!(
                "a section of kind {found} stands where {kind} is due"
            ))),
            None => Err(corrupt(format!("it has no section of kind {kind}"))),
        }
    }

    /// The next section as its kind and what it holds; none at the end, behind which nothing may stand.
    pub fn next(&mut self) -> Result<Option<(u8, Vec<u8>)>, Problem> {
        let short = || corrupt("it is cut off");
        let (header, rest) = self.rest.split_first_chunk::<10>().ok_or_else(short)?;
        let [kind, packing, l0, l1, l2, l3, c0, c1, c2, c3] = *header;
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        if length > SECTION_BYTES_MAX || self.sections as usize > SECTIONS_MAX {
            return Err(corrupt(format!(
                "a section of {length} bytes is impossible"
            )));
        }
        let (payload, rest) = rest.split_at_checked(length).ok_or_else(short)?;
        let stored = u32::from_le_bytes([c0, c1, c2, c3]);
        let actual = checksum(kind, packing, payload);
        if stored != actual {
            return Err(corrupt(format!(
                "the checksum of section {} is {actual:08x}, stored is {stored:08x}",
                self.sections
            )));
        }
        self.rest = rest;
        if kind == END {
            let count = payload.first_chunk::<4>().map(|b| u32::from_le_bytes(*b));
            return match (count == Some(self.sections), rest) {
                (true, []) => Ok(None),
                (true, _) => Err(corrupt("something stands behind its end")),
                (false, _) => Err(corrupt("sections are missing")),
            };
        }
        self.sections += 1;
        match packing {
            PLAIN => Ok(Some((kind, payload.to_vec()))),
            LZ4 => unpack(payload).map(|unpacked| Some((kind, unpacked))),
            other => Err(corrupt(format!(
                "a section is packed in the unknown way {other}"
            ))),
        }
    }
}

fn unpack(packed: &[u8]) -> Result<Vec<u8>, Problem> {
    let size = packed
        .first_chunk::<4>()
        .map_or(0, |b| u32::from_le_bytes(*b) as usize);
    if size > SECTION_BYTES_MAX.min(packed.len().saturating_mul(COMPRESSION_MAX)) {
        return Err(corrupt(format!("a section would unpack to {size} bytes")));
    }
    lz4_flex::decompress_size_prepended(packed).map_err(corrupt)
}
