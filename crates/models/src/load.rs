//! From the bytes of a model file to a predictor: which format it is, and who reads it.

use headwater_schema::Problem;

use crate::limits::{MODEL_BYTES_MAX, at_most};
use crate::{Predictor, lightgbm};

/// Who wrote a model file, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `Booster.save_model`: text, versions 2 to 4.
    LightGbm,
}

/// Names, as a definition gives them.
const NAMES: [(&str, Format); 1] = [("lightgbm", Format::LightGbm)];

impl Format {
    /// The format of that name.
    pub fn parse(name: &str) -> Result<Self, Problem> {
        let found = NAMES.iter().find(|(n, _)| *n == name);
        found
            .map(|(_, format)| *format)
            .ok_or_else(|| unknown(format!("`{name}`")).hint(format!("It is one of {}", names())))
    }

    pub fn name(self) -> &'static str {
        let found = NAMES.iter().find(|(_, f)| *f == self);
        found.map_or("", |(name, _)| name)
    }

    /// What the first bytes look like.
    pub fn sniff(bytes: &[u8]) -> Result<Self, Problem> {
        if lightgbm::looks_like(bytes) {
            return Ok(Self::LightGbm);
        }
        Err(
            unknown("Its first bytes are of no format that is known here").hint(format!(
                "Save the model as one of {}; pickles aren't read",
                names()
            )),
        )
    }
}

fn names() -> String {
    let names: Vec<&str> = NAMES.iter().map(|(n, _)| *n).collect();
    names.join(", ")
}

fn unknown(detail: impl std::fmt::Display) -> Problem {
    Problem::user("model-format", "A model's format isn't known").detail(detail)
}

/// How to read a file.
#[derive(Debug, Clone, Copy, Default)]
pub struct LoadOptions {
    /// Told by the bytes, unless given.
    pub format: Option<Format>,
    /// Boosting iterations to use, the first ones; all that the file holds, unless given.
    pub iterations: Option<usize>,
}

/// Reads a model, all of it: what can't be served is refused here, by name, and not at the first request.
pub fn load(bytes: &[u8], options: &LoadOptions) -> Result<Box<dyn Predictor>, Problem> {
    at_most("bytes", bytes.len(), MODEL_BYTES_MAX)?;
    let format = options.format.map_or_else(|| Format::sniff(bytes), Ok)?;
    match format {
        Format::LightGbm => lightgbm::load(bytes, options),
    }
}

/// A file that isn't what its format says.
pub(crate) fn corrupt(detail: impl std::fmt::Display) -> Problem {
    Problem::user("model-corrupt", "A model file can't be read")
        .detail(detail)
        .hint("The file may be cut off or changed: save the model again")
}

/// Something that the format has and that isn't served.
pub(crate) fn unsupported(what: impl std::fmt::Display) -> Problem {
    Problem::user(
        "model-unsupported",
        "A model uses something that isn't served",
    )
    .detail(what)
    .hint("Train without it")
}
