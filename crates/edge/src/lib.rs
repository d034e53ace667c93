//! Models in a process or on a device, with no server: one file holds a version of a model, the definitions that its
//! features are made by, and what was known of some entities.
//!
//! [`Edge::open`] reads such a file, [`Edge::predict`] and [`Edge::features`] answer what the server that it was taken
//! from would have answered, bit for bit, and [`Edge::add_facts`] takes facts that happen here. States, facts and rows go
//! through the code of the server (`stream`, `features`, `serve`); what is here is the file, its journal, and the
//! door. It knows nothing of HTTP. `edge-c` has the same for C.

mod bundle;
mod edge;
mod journal;
mod json;
pub mod limits;
mod local;
mod read;

pub use bundle::{Bundle, FORMAT, Head};
pub use edge::{About, Edge};
pub use headwater_serve::Explanation;
pub use json::problem_json;
pub use local::{Added, RejectedRow, Retracted};
pub use read::{FeatureRows, NotBundled, Predictions};
