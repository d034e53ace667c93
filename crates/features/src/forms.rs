//! What may be written short or in full: as a text, a number, a list, or a map that says more.
//!
//! serde's own way of telling such forms apart (`untagged`) tries one after another, and forgets where inside of one it
//! went wrong and what would have been right. Here the form decides, and what is wrong in it is told as anywhere else.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{DeserializeOwned, Deserializer, Error, MapAccess, SeqAccess, Unexpected, Visitor};

/// A part of a definition that has several forms; those that it hasn't give none.
pub(crate) trait Forms: Sized {
    /// The forms, in words.
    const EXPECTED: &'static str;
    type List: DeserializeOwned;
    type Map: DeserializeOwned;

    fn of_text(_text: &str) -> Option<Self> {
        None
    }

    fn of_number(_number: f64) -> Option<Self> {
        None
    }

    fn of_list(_list: Self::List) -> Option<Self> {
        None
    }

    fn of_map(_map: Self::Map) -> Option<Self> {
        None
    }
}

/// Reads whichever form is there.
pub(crate) fn read<'de, T: Forms, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    deserializer.deserialize_any(Reader(PhantomData))
}

struct Reader<T>(PhantomData<T>);

impl<'de, T: Forms> Visitor<'de> for Reader<T> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(T::EXPECTED)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        T::of_text(text).ok_or_else(|| E::invalid_type(Unexpected::Str(text), &self))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        let read = T::of_number(number as f64);
        read.ok_or_else(|| E::invalid_type(Unexpected::Signed(number), &self))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        let read = T::of_number(number as f64);
        read.ok_or_else(|| E::invalid_type(Unexpected::Unsigned(number), &self))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<T, E> {
        T::of_number(number).ok_or_else(|| E::invalid_type(Unexpected::Float(number), &self))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<T, A::Error> {
        let list = T::List::deserialize(SeqAccessDeserializer::new(list))?;
        T::of_list(list).ok_or_else(|| A::Error::invalid_type(Unexpected::Seq, &self))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        let map = T::Map::deserialize(MapAccessDeserializer::new(map))?;
        T::of_map(map).ok_or_else(|| A::Error::invalid_type(Unexpected::Map, &self))
    }
}

/// Has serde read types by their forms.
macro_rules! read_by_form {
    ($($name:ty),+) => {
        $(impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                crate::forms::read(deserializer)
            }
        })+
    };
}
pub(crate) use read_by_form;
