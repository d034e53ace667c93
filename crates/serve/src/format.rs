//! Whose file a model is: a package's, which `headwater_models` reads, or rules, which need the engine of expressions.

use headwater_models::{Format, LoadOptions, Predictor, load};
use headwater_schema::Problem;

use crate::rules;

/// The name of rules, beside those of [`Format`].
const RULES: &str = "rules";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileFormat {
    Package(Format),
    Rules,
}

impl FileFormat {
    /// The one that was named, or what the first bytes look like.
    pub fn of(bytes: &[u8], named: Option<&str>) -> Result<Self, Problem> {
        let package = match named {
            Some(RULES) => return Ok(Self::Rules),
            Some(name) => Format::parse(name),
            None if rules::looks_like(bytes) => return Ok(Self::Rules),
            None => Format::sniff(bytes),
        };
        package.map(Self::Package).map_err(|mut problem| {
            problem.hint.push_str(", or write rules in SQL, `rules`");
            problem
        })
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Package(format) => format.name(),
            Self::Rules => RULES,
        }
    }

    pub fn load(self, bytes: &[u8]) -> Result<Box<dyn Predictor>, Problem> {
        match self {
            Self::Rules => rules::load_rules(bytes),
            Self::Package(format) => load(
                bytes,
                &LoadOptions {
                    format: Some(format),
                    ..LoadOptions::default()
                },
            ),
        }
    }
}
