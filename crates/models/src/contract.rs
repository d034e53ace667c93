//! What a model asks for and what it answers: columns by name and kind, the task, scores and outputs.

use std::collections::BTreeMap;
use std::sync::Arc;

use headwater_schema::{Problem, Value, value_to_text};

use crate::limits::TEXT_BYTES_MAX;

/// A model's side of the bargain.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelContract {
    /// Columns in the order in which a row holds them.
    pub inputs: Vec<Input>,
    pub task: Task,
    /// Numbers of one row before the link function: margins, log-odds, sums of leaves.
    pub scores: usize,
    /// What is answered after the link function, one after another in a row of outputs.
    pub outputs: Vec<Output>,
    /// Names of classes, where the file has them; by index otherwise.
    pub classes: Vec<String>,
    /// Whether contributions can be had, or why they can't.
    pub contributions: Result<(), String>,
}

impl ModelContract {
    /// Numbers of one row of outputs.
    pub fn output_width(&self) -> usize {
        self.outputs.iter().map(|o| o.width).sum()
    }
}

/// One column.
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    pub name: String,
    pub kind: InputKind,
}

#[derive(Debug, Clone, PartialEq)]
pub enum InputKind {
    Numeric,
    Categorical(Categories),
    /// Words, as they were written.
    Text,
}

/// How a category becomes a number of the row.
#[derive(Debug, Clone, PartialEq)]
pub enum Categories {
    /// It is a whole number already, the one that it had in training.
    Codes,
    /// Its place in the list that training used; one that isn't there is missing. Empty for a column that the model doesn't use.
    Labels(BTreeMap<String, u32>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    Regression,
    /// One output, the probability of the second class.
    Binary,
    /// One output for each class.
    Multiclass,
    /// Higher is better, within one query.
    Ranking,
}

/// A named run of numbers in a row of outputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    pub name: String,
    pub width: usize,
}

impl Output {
    pub(crate) fn new(name: &str, width: usize) -> Self {
        Self {
            name: name.to_owned(),
            width,
        }
    }
}

impl Input {
    pub(crate) fn numeric(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            kind: InputKind::Numeric,
        }
    }

    /// Whether its values are texts: a category's name, or words.
    pub fn is_text(&self) -> bool {
        matches!(
            self.kind,
            InputKind::Text | InputKind::Categorical(Categories::Labels(_))
        )
    }

    /// The number that stands for `value` in a row; a null is NaN, which is how models know what is missing. A text is
    /// put at the end of `texts`, and its place there is the number.
    pub fn encode(&self, value: &Value, texts: &mut Vec<Arc<str>>) -> Result<f64, Problem> {
        if value.is_null() {
            return Ok(f64::NAN);
        }
        match &self.kind {
            InputKind::Categorical(Categories::Labels(labels)) => {
                let label = value_to_text(value);
                Ok(labels.get(&label).map_or(f64::NAN, |code| f64::from(*code)))
            }
            InputKind::Numeric | InputKind::Categorical(Categories::Codes) => {
                number(value).ok_or_else(|| self.refuses(value))
            }
            InputKind::Text => {
                let Value::String(text) = value else {
                    return Err(self.refuses(value));
                };
                if text.len() > TEXT_BYTES_MAX {
                    return Err(self.too_long(text.len()));
                }
                texts.push(text.clone());
                Ok((texts.len() - 1) as f64)
            }
        }
    }

    fn too_long(&self, bytes: usize) -> Problem {
        Problem::user("model-input", "A model's input of text is too long")
            .field(&self.name)
            .detail(format!(
                "It has {bytes} bytes; {TEXT_BYTES_MAX} are allowed"
            ))
            .hint("Give the part that matters; networks of text read some hundred words")
    }

    fn refuses(&self, value: &Value) -> Problem {
        let wanted = match self.kind {
            InputKind::Numeric => "a number",
            InputKind::Categorical(_) => "a category's whole number",
            InputKind::Text => "a text",
        };
        Problem::user("model-input", "A model's input has the wrong type")
            .field(&self.name)
            .detail(format!("It is {wanted}; the row has {value:?}"))
            .hint("Give the model's feature the type that it was trained with")
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Bool(yes) => Some(f64::from(u8::from(*yes))),
        Value::Int(int) => Some(*int as f64),
        Value::Float(float) => Some(*float),
        Value::Decimal { .. } => value_to_text(value).parse().ok(),
        _ => None,
    }
}
