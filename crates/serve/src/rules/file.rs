//! Files of rules: YAML, or JSON, which is YAML. What is wrong is told with line and column.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::StringArray;
use arrow::datatypes::Schema;
use headwater_features::Expression;
use headwater_models::{Categories, Input, InputKind, ModelContract, Output, Task};
use headwater_schema::yaml::YamlDocument;
use headwater_schema::{DataType, Field, Problem};
use serde::Deserialize;

use super::{Column, Rule, Rules};

/// What `format` says in a file.
const FORMAT: &str = "headwater-rules/1";
/// What `format` begins with in each version, by which a file is known.
const FORMATS: &[u8] = b"headwater-rules/";
/// Bytes at a file's beginning in which `format` is looked for.
const LOOKED_AT: usize = 4096;
/// What stands for the file's name in places of mistakes.
const FILE: &str = "rules";
/// Inputs of one file.
const INPUTS_MAX: usize = 1024;
/// Outputs of one file.
const OUTPUTS_MAX: usize = 256;
/// Texts that one input tells apart.
const TEXTS_MAX: usize = 100_000;
/// Bytes of a name.
const NAME_BYTES_MAX: usize = 128;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RulesSpec {
    #[serde(rename = "format")]
    _format: String,
    /// For people who read the file.
    #[serde(rename = "description")]
    _description: Option<String>,
    inputs: Vec<InputSpec>,
    outputs: Vec<OutputSpec>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InputSpec {
    name: String,
    #[serde(rename = "type")]
    data_type: InputType,
    /// Texts that the rules tell apart.
    values: Option<Vec<String>>,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum InputType {
    Number,
    Integer,
    Bool,
    String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OutputSpec {
    name: String,
    expression: String,
}

pub(crate) fn looks_like(bytes: &[u8]) -> bool {
    let start = &bytes[..bytes.len().min(LOOKED_AT)];
    start.windows(FORMATS.len()).any(|word| word == FORMATS)
}

pub(super) fn read(bytes: &[u8]) -> Result<Rules, Problem> {
    let text = std::str::from_utf8(bytes).map_err(|e| wrong("the file isn't UTF-8").detail(e))?;
    let documents = YamlDocument::parse_all(FILE, text)?;
    let [document] = documents.as_slice() else {
        return Err(wrong("the file isn't one document")
            .detail(format!("it has {}", documents.len()))
            .hint("write one model into a file"));
    };
    let spec = read_spec(document)?;
    let mut reading = Reading {
        document,
        names: BTreeSet::new(),
        fields: Vec::with_capacity(spec.inputs.len() + spec.outputs.len()),
    };
    let (mut inputs, mut columns) = (Vec::new(), Vec::new());
    for (index, input) in spec.inputs.into_iter().enumerate() {
        let (input, column) = reading.input(index, input)?;
        inputs.push(input);
        columns.push(column);
    }
    let (mut outputs, mut rules) = (Vec::new(), Vec::new());
    for (index, output) in spec.outputs.into_iter().enumerate() {
        rules.push(reading.output(index, &output)?);
        outputs.push(Output {
            name: output.name,
            width: 1,
        });
    }
    Ok(Rules {
        contract: ModelContract {
            inputs,
            task: Task::Regression,
            scores: rules.len(),
            outputs,
            classes: Vec::new(),
            contributions: Err("Rules don't add up what inputs contribute".to_owned()),
        },
        inputs: columns,
        outputs: rules,
    })
}

fn read_spec(document: &YamlDocument) -> Result<RulesSpec, Problem> {
    // A later version may have other keys: that it is one is what is to be said then.
    let format = document.value.get("format").and_then(|f| f.as_str());
    if let Some(other) = format.filter(|format| *format != FORMAT) {
        return Err(Problem::user(
            "model-unsupported",
            "the rules are of a format that isn't read here",
        )
        .field("format")
        .detail(format!("it is `{other}`"))
        .hint(format!("write `format: {FORMAT}`"))
        .at(document.locate("/format")));
    }
    let spec: RulesSpec = serde_path_to_error::deserialize(&document.value).map_err(|error| {
        let path = error.path().to_string();
        let pointer = path.replace(['.', '['], "/").replace(']', "");
        wrong("the file is wrong")
            .field(path)
            .detail(error.inner())
            .hint("a file has `format`, `inputs` with `name` and `type`, `outputs` with `name` and `expression`")
            .at(document.locate(&format!("/{pointer}")))
    })?;
    let lists = [
        ("inputs", spec.inputs.len(), INPUTS_MAX),
        ("outputs", spec.outputs.len(), OUTPUTS_MAX),
    ];
    for (what, seen, most) in lists {
        let at = document.locate(&format!("/{what}"));
        if seen == 0 {
            return Err(wrong(format!("there are no {what}")).field(what).at(at));
        }
        if seen > most {
            return Err(too_many(what, seen, most).field(what).at(at));
        }
    }
    Ok(spec)
}

/// What was read so far.
struct Reading<'a> {
    document: &'a YamlDocument,
    names: BTreeSet<String>,
    /// What the next expression may name.
    fields: Vec<Field>,
}

impl Reading<'_> {
    fn input(&mut self, index: usize, spec: InputSpec) -> Result<(Input, Column), Problem> {
        let path = format!("/inputs/{index}");
        self.name(&path, &spec.name)?;
        let column = match spec.data_type {
            InputType::Number => Column::Number,
            InputType::Integer => Column::Integer,
            InputType::Bool => Column::Bool,
            InputType::String => {
                let texts = spec.values.clone().unwrap_or_default();
                Column::Text(Arc::new(StringArray::from(texts)))
            }
        };
        let kind = match spec.data_type {
            InputType::String => self.texts(&path, spec.values)?,
            _ if spec.values.is_some() => {
                return Err(wrong("only texts have `values`")
                    .field("values")
                    .hint("leave it out, or write `type: string`")
                    .at(self.document.locate(&format!("{path}/values"))));
            }
            _ => InputKind::Numeric,
        };
        let field = Field::new(spec.name.as_str(), column.data_type());
        self.fields.push(field);
        let name = spec.name;
        Ok((Input { name, kind }, column))
    }

    /// Texts by their places.
    fn texts(&self, path: &str, values: Option<Vec<String>>) -> Result<InputKind, Problem> {
        let problem = |title: &str| wrong(title).field("values").at(self.document.locate(path));
        let values = values.filter(|v| !v.is_empty()).ok_or_else(|| {
            problem("the texts of an input aren't listed").hint(
                "write those that the rules name, as in `values: [de, fr]`; any other is null",
            )
        })?;
        if values.len() > TEXTS_MAX {
            let problem = too_many("values", values.len(), TEXTS_MAX);
            return Err(problem.field("values").at(self.document.locate(path)));
        }
        let mut places = BTreeMap::new();
        for (place, text) in values.into_iter().enumerate() {
            let shown = format!("`{text}` is listed twice");
            if places.insert(text, place as u32).is_some() {
                return Err(problem(&shown).hint("leave one out"));
            }
        }
        Ok(InputKind::Categorical(Categories::Labels(places)))
    }

    fn output(&mut self, index: usize, spec: &OutputSpec) -> Result<Rule, Problem> {
        let path = format!("/outputs/{index}");
        self.name(&path, &spec.name)?;
        let at = || self.document.locate(&format!("{path}/expression"));
        let compiled = Expression::compile(&spec.expression, &self.fields);
        let expression = compiled.map_err(|p| p.field(&spec.name).at(at()))?;
        let data_type = expression.data_type();
        if !data_type.is_numeric() && *data_type != DataType::Bool {
            return Err(wrong("an output is no number")
                .field(&spec.name)
                .detail(format!("`{}` is {data_type}", spec.expression))
                .hint("give a number or a bool, as in `CASE WHEN … THEN 1 ELSE 0 END`")
                .at(at()));
        }
        let columns: Vec<_> = self.fields.iter().map(Field::to_arrow).collect();
        let field = Field::new(spec.name.as_str(), data_type.clone());
        self.fields.push(field);
        Ok(Rule {
            expression,
            columns: Arc::new(Schema::new(columns)),
        })
    }

    /// Expressions tell inputs and outputs by their names alone.
    fn name(&mut self, path: &str, name: &str) -> Result<(), Problem> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
        let at = || self.document.locate(&format!("{path}/name"));
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(plain) {
            return Err(wrong(format!("`{name}` is no name"))
                .hint("use letters, digits, dots and underscores, at most 128")
                .at(at()));
        }
        if self.names.insert(name.to_owned()) {
            return Ok(());
        }
        Err(wrong(format!("`{name}` is there twice"))
            .hint("inputs and outputs have names of their own")
            .at(at()))
    }
}

fn wrong(title: impl Into<String>) -> Problem {
    Problem::user("invalid-rules", title)
}

fn too_many(what: &str, seen: usize, most: usize) -> Problem {
    Problem::user("model-limit", "A model is too large")
        .detail(format!("It has {seen} {what}; {most} are allowed"))
        .hint("Let features of the set, or several models, do a part of it")
}
