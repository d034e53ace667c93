//! Groups: the frames of one durable write, which a crash leaves whole or not at all.
//!
//! A frame of its own begins them:
//!
//! ```text
//! u64 its place in the segment | u64 bytes of the frames that belong to it | u64 durable
//! ```
//!
//! `durable` is how much of the segment was known to be on the disk when the group was written. A power cut
//! may keep the later pages of a write and lose earlier ones. So damage is a torn end exactly where no
//! group behind it says that what stands there was on the disk before.

use crate::frame::{self, Damage, HEADER_BYTES};

/// The kind of the frame that begins a group.
pub const KIND: u8 = 5;
/// The whole frame that begins a group.
pub const MARK_BYTES: usize = HEADER_BYTES + 1 + 24;

/// What begins a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupMark {
    pub at: u64,
    pub bytes: u64,
    pub durable: u64,
}

impl GroupMark {
    pub fn to_frame(self) -> Vec<u8> {
        let numbers = [self.at, self.bytes, self.durable].map(u64::to_le_bytes);
        let mut out = Vec::with_capacity(MARK_BYTES);
        frame::put(&mut out, KIND, &[&numbers.concat()]);
        out
    }

    /// The mark that a frame's kind and payload are; none where they are something else.
    pub fn read(body: &[u8]) -> Option<Self> {
        let (&[KIND], numbers) = body.split_first_chunk::<1>()? else {
            return None;
        };
        let numbers: &[u8; 24] = numbers.try_into().ok()?;
        let mut numbers = numbers.chunks_exact(8).map(frame::number);
        Some(Self {
            at: numbers.next()?,
            bytes: numbers.next()?,
            durable: numbers.next()?,
        })
    }
}

/// Goes through the groups of a segment.
pub struct Groups<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Whether frames may stand alone, as they did before there were groups. After a first group none may.
    alone: bool,
}

/// A frame's kind and payload, and its whole length.
pub type Piece<'a> = (&'a [u8], usize);

/// What is no group, and where it stands.
pub struct Broken {
    pub at: usize,
    pub damage: Damage,
}

impl<'a> Groups<'a> {
    pub fn new(bytes: &'a [u8], at: usize, alone: bool) -> Self {
        Self { bytes, at, alone }
    }

    /// Where the next group begins.
    pub fn at(&self) -> usize {
        self.at
    }

    /// The frames of the next group, its mark among them; none at the end.
    pub fn next(&mut self) -> Option<Result<Vec<Piece<'a>>, Broken>> {
        (self.at < self.bytes.len()).then(|| {
            let (frames, marked) = self.read()?;
            self.alone &= !marked;
            self.at += frames.iter().map(|(_, length)| length).sum::<usize>();
            Ok(frames)
        })
    }

    fn read(&self) -> Result<(Vec<Piece<'a>>, bool), Broken> {
        let broken = |at: usize| move |damage: Damage| Broken { at, damage };
        let first = frame::split(&self.bytes[self.at..]).map_err(broken(self.at))?;
        let Some(mark) = GroupMark::read(first.0) else {
            return match self.alone {
                true => Ok((vec![first], false)),
                false => Err(broken(self.at)(Damage::Alone)),
            };
        };
        if mark.at != self.at as u64 {
            return Err(broken(self.at)(Damage::Place(mark.at)));
        }
        let (mut frames, mut next) = (vec![first], self.at + first.1);
        let end = usize::try_from(mark.bytes).ok();
        let end = end.and_then(|bytes| next.checked_add(bytes));
        let end = end.filter(|end| *end <= self.bytes.len());
        let end = end.ok_or_else(|| broken(self.at)(Damage::Short))?;
        while next < end {
            let piece = frame::split(&self.bytes[next..end]).map_err(broken(next))?;
            if GroupMark::read(piece.0).is_some() {
                return Err(broken(next)(Damage::Alone));
            }
            next += piece.1;
            frames.push(piece);
        }
        Ok((frames, true))
    }

    /// Whether a broken group is no torn end: anything behind it proves that it was on the disk once, be it a
    /// group that was written when it was, or any frame at all where frames may stand alone. A whole group in a
    /// wrong place isn't torn either.
    pub fn is_damaged(&self, damage: &Damage) -> bool {
        if matches!(damage, Damage::Place(_)) {
            return true;
        }
        let behind = (self.at + 1..self.bytes.len())
            .filter(|place| self.bytes[*place..].starts_with(&frame::MARK));
        behind
            .filter_map(|place| Some((place, frame::split(&self.bytes[place..]).ok()?.0)))
            .any(|(place, body)| match GroupMark::read(body) {
                Some(mark) => mark.at == place as u64 && mark.durable > self.at as u64,
                None => self.alone,
            })
    }
}
