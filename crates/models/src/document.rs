//! What JSON and UBJSON files hold, once read: one tree of values for both, with runs of numbers kept close.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use headwater_schema::Problem;

use crate::load::corrupt;

/// Bytes of a model in JSON: what is read takes some ten times as many.
pub(crate) const JSON_BYTES_MAX: usize = 128 << 20;

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Document {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    /// A list of numbers and nothing else.
    Numbers(Vec<f64>),
    List(Vec<Document>),
    Map(BTreeMap<String, Document>),
}

impl Document {
    pub(crate) fn from_json(bytes: &[u8]) -> Result<Self, Problem> {
        crate::limits::at_most("bytes of JSON", bytes.len(), JSON_BYTES_MAX)?;
        let bytes = standard(bytes);
        serde_json::from_slice(&bytes).map_err(|e| corrupt(format!("It isn't JSON: {e}")))
    }

    /// The member of that name, where this is a map that has it and it isn't null.
    pub(crate) fn find(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Map(members) => members.get(key).filter(|d| **d != Self::Null),
            _ => None,
        }
    }

    pub(crate) fn get(&self, key: &str) -> Result<&Self, Problem> {
        self.find(key)
            .ok_or_else(|| corrupt(format!("It has no `{key}`")))
    }

    pub(crate) fn text(&self, key: &str) -> Result<&str, Problem> {
        match self.get(key)? {
            Self::Text(text) => Ok(text),
            _ => Err(wrong(key, "text")),
        }
    }

    /// A number, or text that is one.
    pub(crate) fn number(&self, key: &str) -> Result<f64, Problem> {
        self.get(key)?
            .to_number()
            .ok_or_else(|| wrong(key, "a number"))
    }

    pub(crate) fn to_number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Text(text) => text.trim().parse().ok(),
            _ => None,
        }
    }

    /// A whole number that isn't below zero, or text that is one.
    pub(crate) fn count(&self, key: &str) -> Result<usize, Problem> {
        whole(self.number(key)?).ok_or_else(|| wrong(key, "a count"))
    }

    pub(crate) fn numbers(&self, key: &str) -> Result<&[f64], Problem> {
        match self.get(key)? {
            Self::Numbers(numbers) => Ok(numbers),
            Self::List(items) if items.is_empty() => Ok(&[]),
            _ => Err(wrong(key, "a list of numbers")),
        }
    }

    /// Whole numbers that aren't below zero.
    pub(crate) fn counts(&self, key: &str) -> Result<Vec<usize>, Problem> {
        let numbers = self.numbers(key)?.iter();
        numbers
            .map(|n| whole(*n).ok_or_else(|| wrong(key, "a list of counts")))
            .collect()
    }

    /// A list of anything but numbers.
    pub(crate) fn list(&self, key: &str) -> Result<&[Self], Problem> {
        match self.get(key)? {
            Self::List(items) => Ok(items),
            Self::Numbers(items) if items.is_empty() => Ok(&[]),
            _ => Err(wrong(key, "a list")),
        }
    }

    pub(crate) fn texts(&self, key: &str) -> Result<Vec<&str>, Problem> {
        let items = self.list(key)?.iter();
        items
            .map(|item| match item {
                Self::Text(text) => Ok(text.as_str()),
                _ => Err(wrong(key, "a list of texts")),
            })
            .collect()
    }
}

/// XGBoost writes `NaN` and `Infinity`, which JSON doesn't have: null, and the largest double, which is endless as a float.
fn standard(bytes: &[u8]) -> Cow<'_, [u8]> {
    const WORDS: [(&[u8], &[u8]); 2] =
        [(b"NaN", b"null"), (b"Infinity", b"1.7976931348623157e308")];
    let contains = |word: &[u8]| bytes.windows(word.len()).any(|w| w == word);
    if !WORDS.iter().any(|(word, _)| contains(word)) {
        return Cow::Borrowed(bytes);
    }
    let mut out = Vec::with_capacity(bytes.len());
    let (mut at, mut in_text) = (0, false);
    while let Some(byte) = bytes.get(at) {
        let found = WORDS
            .iter()
            .find(|(word, _)| !in_text && bytes[at..].starts_with(word));
        if let Some((word, instead)) = found {
            out.extend_from_slice(instead);
            at += word.len();
            continue;
        }
        in_text ^= *byte == b'"';
        let end = (at + if in_text && *byte == b'\\' { 2 } else { 1 }).min(bytes.len());
        out.extend_from_slice(&bytes[at..end]);
        at = end;
    }
    Cow::Owned(out)
}

fn wrong(key: &str, wanted: &str) -> Problem {
    corrupt(format!("`{key}` isn't {wanted}"))
}

pub(crate) fn whole(number: f64) -> Option<usize> {
    (number >= 0.0 && number <= u32::MAX.into() && number.fract() == 0.0).then_some(number as usize)
}

/// A list that grows: of numbers as long as nothing else comes; a null among them isn't a number.
#[derive(Default)]
pub(crate) struct Items {
    numbers: Vec<f64>,
    others: Vec<Document>,
}

impl Items {
    pub(crate) fn push(&mut self, item: Document) {
        match item {
            Document::Number(number) if self.others.is_empty() => self.numbers.push(number),
            Document::Null if self.others.is_empty() => self.numbers.push(f64::NAN),
            other => {
                let before = std::mem::take(&mut self.numbers);
                self.others.extend(before.into_iter().map(Document::Number));
                self.others.push(other);
            }
        }
    }

    pub(crate) fn finish(self) -> Document {
        if self.others.is_empty() {
            Document::Numbers(self.numbers)
        } else {
            Document::List(self.others)
        }
    }
}

impl<'de> serde::Deserialize<'de> for Document {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> serde::de::Visitor<'de> for Reader {
    type Value = Document;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Document, E> {
        Ok(Document::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Document, E> {
        Ok(Document::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Document, E> {
        Ok(Document::Number(value as f64))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Document, E> {
        Ok(Document::Number(value as f64))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Document, E> {
        Ok(Document::Number(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Document, E> {
        Ok(Document::Text(value.to_owned()))
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Document, A::Error> {
        let mut items = Items::default();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(items.finish())
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Document, A::Error> {
        let mut members = BTreeMap::new();
        while let Some((key, value)) = map.next_entry::<String, Document>()? {
            members.insert(key, value);
        }
        Ok(Document::Map(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_json_lacks_are_read_outside_of_text() {
        let text = br#"{"a":[1,NaN,-Infinity],"b":"NaN \"NaN","c":[{},null],"d":[NaN,1]}"#;
        let document = Document::from_json(text).unwrap();
        let a = document.numbers("a").unwrap();
        assert!(a[1].is_nan() && a[2] as f32 == f32::NEG_INFINITY);
        assert_eq!(document.text("b"), Ok("NaN \"NaN"));
        assert_eq!(document.list("c").unwrap().len(), 2);
        assert!(document.numbers("d").unwrap()[0].is_nan());
    }
}
