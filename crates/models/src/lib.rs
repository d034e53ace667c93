//! Models: what a program that was trained elsewhere asks for, and what it answers.
//!
//! [`load`] reads a model file into a [`Predictor`]: a pure function from rows of numbers to scores, outputs and
//! contributions, equal to the package that trained it. It is synchronous and performs no I/O.
//! [`repository`] keeps the files of models, their versions and the aliases that point at them; who serves them
//! lies above. A predictor of another kind (rules in SQL, say) implements [`Predictor`] where its engine is.

mod catboost;
mod contract;
mod document;
mod forest;
mod forest_model;
mod lightgbm;
pub mod limits;
mod linear;
mod link;
mod load;
mod onnx;
mod predictor;
pub mod repository;
mod single;
mod ubjson;
mod xgboost;

pub use contract::{Categories, Input, InputKind, ModelContract, Output, Task};
pub use load::{Format, LoadOptions, load};
pub use predictor::{Encoded, Prediction, Predictor, Rows, check_buffer, check_shape};
