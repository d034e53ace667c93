//! What a fact is: values and their types, data contracts and their evolution, entity keys,
//! event time, and the versioned codec of stored columns.
//!
//! Everything here is synchronous and performs no I/O; every other crate builds on it.

mod array;
mod batch;
pub mod codec;
pub mod contract;
mod data_type;
pub mod decode;
pub mod evolve;
mod human;
pub mod infer;
mod json;
mod key;
mod order;
mod problem;
pub mod time;
mod value;
pub mod yaml;

pub use array::array_from_values;
pub use batch::{FactBatch, RemovedFacts, SequencedBatch};
pub use contract::{Contract, FieldSpec, NotEnforced, Rules, parse_decimal};
pub use data_type::{DataType, Field, UnsupportedType};
pub use human::{human_bytes, human_seconds, thousands};
pub use json::{JsonValue, json_text, value_to_json};
pub use key::{EntityKey, push_int_value, push_str, push_value};
pub use order::{Cursor, Micros, Position, Sequence};
pub use problem::{Blame, Location, Problem};
pub use value::{Value, compare_floats, value_to_text};
