//! A feature's value at a cursor, and how it came to be.

use headwater_schema::{Micros, Value};

/// How a value came to be what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    Present,
    NullValue,
    /// The entity has no fact in the view at the cursor.
    NotFound,
    /// The latest value is older than its `ttl`.
    OutsideMaxAge,
    /// The arithmetic has no result.
    Undefined,
    /// The result doesn't fit its type.
    Overflow,
    /// The view is still being filled.
    Backfilling,
}

impl Status {
    /// The name used in every interface.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Present => "PRESENT",
            Self::NullValue => "NULL_VALUE",
            Self::NotFound => "NOT_FOUND",
            Self::OutsideMaxAge => "OUTSIDE_MAX_AGE",
            Self::Undefined => "UNDEFINED",
            Self::Overflow => "OVERFLOW",
            Self::Backfilling => "BACKFILLING",
        }
    }
}

/// A feature's value at a cursor.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    pub value: Value,
    pub status: Status,
    /// The event time of the newest fact that counted.
    pub event_time: Option<Micros>,
}

impl Outcome {
    pub fn present(value: Value, event_time: Option<Micros>) -> Self {
        let status = if value.is_null() {
            Status::NullValue
        } else {
            Status::Present
        };
        Self {
            value,
            status,
            event_time,
        }
    }

    pub(crate) fn none(status: Status, event_time: Option<Micros>) -> Self {
        Self {
            value: Value::Null,
            status,
            event_time,
        }
    }
}
