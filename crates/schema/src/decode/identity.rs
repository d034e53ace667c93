//! Fact ids as text. One column: its value's text. Several: their texts joined by `|`, where a `|`
//! or `\` in a text is written `\|` or `\\`, so that different values never give the same id.

use std::borrow::Cow;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Date32Type, Int64Type, TimeUnit, TimestampMicrosecondType};

use crate::contract::Cell;
use crate::time::{format_date, format_timestamp};

/// The text of row `row`; none for null and for types that can't identify a fact.
pub fn id_text(array: &dyn Array, row: usize) -> Option<Cow<'_, str>> {
    if array.is_null(row) {
        return None;
    }
    Some(match array.data_type() {
        DataType::Utf8 => Cow::Borrowed(array.as_string::<i32>().value(row)),
        DataType::Int64 => Cow::Owned(array.as_primitive::<Int64Type>().value(row).to_string()),
        DataType::Boolean => Cow::Borrowed(if array.as_boolean().value(row) {
            "true"
        } else {
            "false"
        }),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            let micros = array.as_primitive::<TimestampMicrosecondType>().value(row);
            Cow::Owned(format_timestamp(micros))
        }
        DataType::Date32 => Cow::Owned(format_date(array.as_primitive::<Date32Type>().value(row))),
        _ => return None,
    })
}

/// The same of a value that stands alone.
pub(super) fn cell_text<'a>(cell: &Cell<'a>) -> Option<Cow<'a, str>> {
    Some(match cell {
        Cell::String(text) => Cow::Borrowed(*text),
        Cell::Int(value) => Cow::Owned(value.to_string()),
        Cell::Bool(value) => Cow::Borrowed(if *value { "true" } else { "false" }),
        Cell::Timestamp(value) => Cow::Owned(format_timestamp(*value)),
        Cell::Date(value) => Cow::Owned(format_date(*value)),
        _ => return None,
    })
}

/// The id that the texts of its columns make.
pub fn join_id_parts<T: AsRef<str>>(parts: &[T]) -> String {
    if let [one] = parts {
        return one.as_ref().to_owned();
    }
    let mut id = String::with_capacity(parts.iter().map(|p| p.as_ref().len() + 1).sum());
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            id.push('|');
        }
        for c in part.as_ref().chars() {
            if matches!(c, '|' | '\\') {
                id.push('\\');
            }
            id.push(c);
        }
    }
    id
}

/// The parts that were joined; one part where the id is of a single column without `|` and `\`.
pub fn split_id(id: &str) -> Vec<Cow<'_, str>> {
    if !id.contains('\\') {
        return id.split('|').map(Cow::Borrowed).collect();
    }
    let (mut parts, mut part, mut chars) = (Vec::new(), String::new(), id.chars());
    while let Some(c) = chars.next() {
        match c {
            '\\' => part.extend(chars.next()),
            '|' => parts.push(Cow::Owned(std::mem::take(&mut part))),
            c => part.push(c),
        }
    }
    parts.push(Cow::Owned(part));
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn joined_parts_split_again(parts in prop::collection::vec("[ab|\\\\]{0,4}", 2..5)) {
            let id = join_id_parts(&parts);
            prop_assert_eq!(split_id(&id), parts);
        }
    }
}
