//! Column-oriented request bodies: names and cells in the order in which they came.

use std::fmt;
use std::marker::PhantomData;

use headwater_schema::Value;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Columns by name, in the order of the request; a name that comes again replaces the first.
#[derive(Debug)]
pub struct Columns<Cell>(pub Vec<(String, Vec<Cell>)>);

impl<Cell> Default for Columns<Cell> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, Cell: Deserialize<'de>> Deserialize<'de> for Columns<Cell> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names<Cell>(PhantomData<Cell>);
        impl<'de, Cell: Deserialize<'de>> Visitor<'de> for Names<Cell> {
            type Value = Columns<Cell>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of lists, one per column")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut columns: Vec<(String, Vec<Cell>)> = Vec::new();
                while let Some((name, cells)) = map.next_entry::<String, Vec<Cell>>()? {
                    match columns.iter_mut().find(|(known, _)| *known == name) {
                        Some(known) => known.1 = cells,
                        None => columns.push((name, cells)),
                    }
                }
                Ok(Columns(columns))
            }
        }
        deserializer.deserialize_map(Names(PhantomData))
    }
}

impl<Cell> Columns<Cell> {
    /// How many rows the columns have; the name of a column that has another number of them.
    pub fn rows(&self) -> Result<usize, &str> {
        let rows = self.0.first().map_or(0, |(_, cells)| cells.len());
        match self.0.iter().find(|(_, cells)| cells.len() != rows) {
            Some((name, _)) => Err(name),
            None => Ok(rows),
        }
    }
}

/// A cell of an entity column, as a key value or one of a set's context. What can be neither is read all the same:
/// columns that no requested feature needs are passed over.
#[derive(Debug)]
pub struct KeyCell(pub Value);

impl<'de> Deserialize<'de> for KeyCell {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Cell;
        impl<'de> Visitor<'de> for Cell {
            type Value = KeyCell;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key: a string, an integer or a bool")
            }

            fn visit_bool<E>(self, v: bool) -> Result<KeyCell, E> {
                Ok(KeyCell(Value::Bool(v)))
            }

            fn visit_i64<E>(self, v: i64) -> Result<KeyCell, E> {
                Ok(KeyCell(Value::Int(v)))
            }

            fn visit_u64<E>(self, v: u64) -> Result<KeyCell, E> {
                Ok(KeyCell(i64::try_from(v).map_or(
                    Value::Decimal {
                        unscaled: i128::from(v),
                        scale: 0,
                    },
                    Value::Int,
                )))
            }

            fn visit_f64<E>(self, v: f64) -> Result<KeyCell, E> {
                Ok(KeyCell(Value::Float(v)))
            }

            fn visit_str<E>(self, v: &str) -> Result<KeyCell, E> {
                Ok(KeyCell(Value::string(v)))
            }

            fn visit_unit<E>(self) -> Result<KeyCell, E> {
                Ok(KeyCell(Value::Null))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<KeyCell, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(KeyCell(Value::List([].into())))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<KeyCell, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(KeyCell(Value::Map([].into())))
            }
        }
        deserializer.deserialize_any(Cell)
    }
}
