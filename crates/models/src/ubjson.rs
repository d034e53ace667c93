//! Universal Binary JSON (draft 12), as XGBoost writes it: one byte says what comes, numbers are big-endian, and a
//! list may say its type and length once, before its items.

use std::collections::BTreeMap;

use headwater_schema::Problem;

use crate::document::{Document, Items};
use crate::load::corrupt;

/// Lists and maps within each other.
const DEPTH_MAX: usize = 64;
/// Items of lists whose type takes no byte each.
const EMPTY_ITEMS_MAX: usize = 1 << 20;

pub(crate) fn parse(bytes: &[u8]) -> Result<Document, Problem> {
    let mut reader = Reader { bytes, at: 0 };
    let kind = reader.kind()?;
    let document = reader.value(kind, 0)?;
    if reader.at < bytes.len() {
        return Err(corrupt(format!(
            "{} bytes follow its end",
            bytes.len() - reader.at
        )));
    }
    Ok(document)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Problem> {
        let end = self.at.checked_add(count);
        let taken = end.and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or_else(|| {
            corrupt(format!(
                "It ends at byte {}, within a value",
                self.bytes.len()
            ))
        })?;
        self.at += count;
        Ok(taken)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Problem> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N)?);
        Ok(bytes)
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// What comes next; no-ops are left out.
    fn kind(&mut self) -> Result<u8, Problem> {
        loop {
            let [kind] = self.fixed()?;
            if kind != b'N' {
                return Ok(kind);
            }
        }
    }

    fn unknown(&self, kind: u8) -> Problem {
        corrupt(format!(
            "It has `{}` at byte {}, which begins no value",
            kind.escape_ascii(),
            self.at.saturating_sub(1)
        ))
    }

    fn number(&mut self, kind: u8) -> Result<f64, Problem> {
        Ok(match kind {
            b'i' => f64::from(i8::from_be_bytes(self.fixed()?)),
            b'U' => f64::from(u8::from_be_bytes(self.fixed()?)),
            b'I' => f64::from(i16::from_be_bytes(self.fixed()?)),
            b'l' => f64::from(i32::from_be_bytes(self.fixed()?)),
            b'L' => i64::from_be_bytes(self.fixed()?) as f64,
            b'd' => f64::from(f32::from_be_bytes(self.fixed()?)),
            b'D' => f64::from_be_bytes(self.fixed()?),
            _ => return Err(self.unknown(kind)),
        })
    }

    fn length(&mut self) -> Result<usize, Problem> {
        let kind = self.kind()?;
        let length = self.number(kind)?;
        if length >= 0.0 && length.fract() == 0.0 && length <= self.bytes.len() as f64 {
            return Ok(length as usize);
        }
        Err(corrupt(format!(
            "It has a length of {length} at byte {}, more than the file",
            self.at
        )))
    }

    fn text(&mut self) -> Result<String, Problem> {
        let length = self.length()?;
        let text = std::str::from_utf8(self.take(length)?);
        Ok(text
            .map_err(|e| corrupt(format!("It has text that isn't UTF-8: {e}")))?
            .to_owned())
    }

    fn value(&mut self, kind: u8, depth: usize) -> Result<Document, Problem> {
        if depth > DEPTH_MAX {
            return Err(corrupt(format!("It is nested deeper than {DEPTH_MAX}")));
        }
        Ok(match kind {
            b'Z' => Document::Null,
            b'T' => Document::Bool(true),
            b'F' => Document::Bool(false),
            b'S' => Document::Text(self.text()?),
            b'C' => Document::Text(char::from(self.fixed::<1>()?[0]).to_string()),
            b'[' => self.list(depth)?,
            b'{' => self.map(depth)?,
            number => Document::Number(self.number(number)?),
        })
    }

    /// The type and the length that a list or a map may begin with.
    fn header(&mut self) -> Result<(Option<u8>, Option<usize>), Problem> {
        let mut kind = None;
        if self.peek() == Some(b'$') {
            self.at += 1;
            kind = Some(self.kind()?);
            if self.peek() != Some(b'#') {
                return Err(corrupt("A list has a type and no length"));
            }
        }
        let mut count = None;
        if self.peek() == Some(b'#') {
            self.at += 1;
            count = Some(self.length()?);
        }
        Ok((kind, count))
    }

    fn list(&mut self, depth: usize) -> Result<Document, Problem> {
        let (kind, count) = self.header()?;
        if matches!(kind, Some(b'Z' | b'T' | b'F')) && count.unwrap_or(0) > EMPTY_ITEMS_MAX {
            return Err(corrupt("A list of nothing is too long"));
        }
        let mut items = Items::default();
        let mut left = count;
        loop {
            if left == Some(0) {
                break;
            }
            let next = match kind {
                Some(kind) => kind,
                None => self.kind()?,
            };
            if count.is_none() && next == b']' {
                break;
            }
            items.push(self.value(next, depth + 1)?);
            left = left.map(|n| n - 1);
        }
        Ok(items.finish())
    }

    fn map(&mut self, depth: usize) -> Result<Document, Problem> {
        let (kind, count) = self.header()?;
        let mut members = BTreeMap::new();
        let mut left = count;
        loop {
            if left == Some(0) {
                break;
            }
            if count.is_none() && self.peek() == Some(b'}') {
                self.at += 1;
                break;
            }
            let key = self.text()?;
            let next = match kind {
                Some(kind) => kind,
                None => self.kind()?,
            };
            members.insert(key, self.value(next, depth + 1)?);
            left = left.map(|n| n - 1);
        }
        Ok(Document::Map(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read() {
        let bytes = b"{L\0\0\0\0\0\0\0\x01a[$l#L\0\0\0\0\0\0\0\x02\0\0\0\x07\xff\xff\xff\xffi\x01bS\x69\x02hii\x01c[TZ]}";
        let Document::Map(members) = parse(bytes).unwrap() else {
            panic!("no map");
        };
        assert_eq!(members["a"], Document::Numbers(vec![7.0, -1.0]));
        assert_eq!(members["b"], Document::Text("hi".into()));
        assert_eq!(
            members["c"],
            Document::List(vec![Document::Bool(true), Document::Null])
        );
    }

    #[test]
    fn what_is_cut_off_or_endless_is_refused() {
        let bytes = b"{i\x01a[$d#i\x02\0\0\0\0\0\0\0\0}";
        assert!(parse(bytes).is_ok());
        for end in 0..bytes.len() {
            assert!(parse(&bytes[..end]).is_err(), "{end} bytes");
        }
        assert!(parse(&[b'['; 1000]).is_err());
        assert!(parse(b"[$Z#L\0\0\0\x7f\0\0\0\0").is_err());
        assert!(parse(b"[$d#l\x7f\xff\xff\xff").is_err());
        assert!(parse(b"[]]").is_err());
    }
}
