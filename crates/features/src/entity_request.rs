//! The entities of one row, as whoever asks names them.

use std::collections::BTreeMap;

use headwater_schema::Value;

/// The entities of one row, by entity name or by key column.
pub type EntityRequest = BTreeMap<String, KeyValue>;

/// A key: one value, or several columns by name.
#[derive(Debug, Clone, PartialEq)]
pub enum KeyValue {
    Scalar(Value),
    Columns(BTreeMap<String, Value>),
}
