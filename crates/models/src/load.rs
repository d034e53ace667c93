//! From the bytes of a model file to a predictor: which format it is, and who reads it.

use headwater_schema::Problem;

use crate::limits::{MODEL_BYTES_MAX, at_most};
use crate::{Predictor, catboost, lightgbm, linear, onnx, xgboost};

/// Who wrote a model file, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `Booster.save_model`: text, versions 2 to 4.
    LightGbm,
    /// `Booster.save_model` to a name that ends in `.json`: versions 1.3 and later.
    XgboostJson,
    /// The same, as UBJSON, which is what XGBoost writes by default.
    XgboostUbjson,
    /// `save_model(format="json", pool=…)`.
    CatBoostJson,
    /// Coefficients in a small JSON file, `docs/models.md`.
    Linear,
    /// A neural network that any package exported.
    Onnx,
}

/// Names, as a definition gives them.
const NAMES: [(&str, Format); 6] = [
    ("lightgbm", Format::LightGbm),
    ("xgboost-json", Format::XgboostJson),
    ("xgboost-ubj", Format::XgboostUbjson),
    ("catboost-json", Format::CatBoostJson),
    ("linear", Format::Linear),
    ("onnx", Format::Onnx),
];

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
        type Looks = fn(&[u8]) -> bool;
        let looks: [(Looks, Self); 6] = [
            (lightgbm::looks_like, Self::LightGbm),
            (xgboost::looks_like_ubjson, Self::XgboostUbjson),
            (xgboost::looks_like, Self::XgboostJson),
            (linear::looks_like, Self::Linear),
            (catboost::looks_like, Self::CatBoostJson),
            (onnx::looks_like, Self::Onnx),
        ];
        if let Some((_, format)) = looks.iter().find(|(looks_like, _)| looks_like(bytes)) {
            return Ok(*format);
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
        Format::XgboostJson => xgboost::load_json(bytes, options),
        Format::XgboostUbjson => xgboost::load_ubjson(bytes, options),
        Format::CatBoostJson => catboost::load(bytes, options),
        Format::Linear => linear::load(bytes),
        Format::Onnx => onnx::load(bytes),
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
