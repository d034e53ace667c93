//! Models as they are declared: which set they read, what of it each of their inputs is, what stands in for an
//! answer that doesn't come in time, and what becomes of them when a feature changes its meaning. Their files
//! lie elsewhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use headwater_schema::yaml::YamlDocument;
use headwater_schema::{DataType, Micros, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::catalog::{Catalog, unknown};
use crate::definition::Definition;
use crate::documents::definition_hash;
use crate::set::{FeatureSet, Place, SetInput};
use crate::window::duration;

mod forms;
mod on;
mod push;
mod traffic;

use on::read_on;
pub use on::{OnFacts, OnSpec};
use push::read_push;
pub use push::{PushSpec, Webhook};
use traffic::read_traffic;
pub use traffic::{Arm, Traffic, TrafficSpec};

/// Inputs that one model names.
pub const MODEL_INPUTS_MAX: usize = 10_000;
/// Fallbacks of one model.
pub const FALLBACKS_MAX: usize = 8;
/// How long a prediction may take unless its model or its request says otherwise.
const DEADLINE_DEFAULT: Micros = 100_000;
/// The longest deadline.
const DEADLINE_MAX: Micros = 30_000_000;

/// What is asked of a model, and of what.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// The set whose rows it is asked with.
    pub feature_set: String,
    /// What each input of the model is: a feature of the set, or a field of its context. Default: what has the
    /// input's own name, in full (dots may be underscores) or alone.
    #[serde(default)]
    pub inputs: Option<InputsSpec>,
    /// What is answered instead where the model can't answer, or not in time; the first that can be.
    #[serde(default)]
    pub fallback: Vec<FallbackSpec>,
    /// How long a prediction may take: 100ms by default, at most 30s.
    #[serde(default)]
    pub deadline: Option<String>,
    /// What becomes of a version whose features mean something else than in its training.
    #[serde(default)]
    pub on_changed_features: OnChangedFeatures,
    #[serde(default)]
    pub logging: LoggingSpec,
    /// Answers are remembered, and given again to the same inputs of the same version; without it each is worked out.
    #[serde(default)]
    pub cache: Option<CachingSpec>,
    /// Which aliases answer, and which are asked beside them; `live` answers all without it.
    #[serde(default)]
    pub traffic: Option<TrafficSpec>,
    /// Facts that are scored as they arrive; each prediction is a fact of the contract `prediction`.
    #[serde(default)]
    pub on: Option<OnSpec>,
    /// Where predictions are sent to, once they are written.
    #[serde(default)]
    pub push: Option<PushSpec>,
}

/// How answers are remembered.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CachingSpec {
    /// How long an answer is remembered at most; as long as there is room by default.
    pub max_age: Option<String>,
}

/// Inputs in the order of the model's own, or by their names.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum InputsSpec {
    Listed(Vec<String>),
    /// The model's name → the set's.
    Named(BTreeMap<String, String>),
}

/// What stands in for an answer: exactly one of these.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FallbackSpec {
    /// The last good answer to the same entities, this old at most.
    #[serde(default)]
    pub last_good: Option<String>,
    /// Another alias of the model.
    #[serde(default)]
    pub alias: Option<String>,
    /// A number for every output, or numbers by the outputs' names.
    #[serde(default)]
    pub constant: Option<Constant>,
}

/// Outputs that are always the same.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Constant {
    Number(f64),
    Named(BTreeMap<String, ConstantOutput>),
}

/// One output: a number, or one for each of its places.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum ConstantOutput {
    One(f64),
    Many(Vec<f64>),
}

/// What becomes of a version whose features mean something else than in its training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnChangedFeatures {
    /// It isn't served.
    #[default]
    Refuse,
    /// It is served, and every answer says so.
    Warn,
}

/// Which predictions are kept as facts.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LoggingSpec {
    /// Between 0 and 1; a prediction that is kept stands for `1 / share` of them.
    pub share: f64,
}

impl Default for LoggingSpec {
    fn default() -> Self {
        Self { share: 1.0 }
    }
}

/// A model's declaration, ready to be bound to versions.
#[derive(Debug, Clone)]
pub struct Model {
    pub name: Arc<str>,
    pub set: Arc<FeatureSet>,
    pub inputs: ModelInputs,
    pub fallbacks: Vec<Fallback>,
    pub deadline: Micros,
    pub on_changed_features: OnChangedFeatures,
    /// The share of predictions that are kept as facts.
    pub logged: f64,
    pub cache: Option<Caching>,
    pub traffic: Option<Traffic>,
    /// The facts that it scores as they arrive.
    pub on: Option<OnFacts>,
    pub webhook: Option<Webhook>,
    pub owner: Option<String>,
    pub description: Option<String>,
    pub definition_hash: String,
}

/// How answers are remembered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Caching {
    /// Older answers are worked out again.
    pub age_max: Option<Micros>,
}

/// Where a model's inputs are in the rows of its set.
#[derive(Debug, Clone, PartialEq)]
pub enum ModelInputs {
    /// Under their own names.
    Own,
    /// In the model's order.
    Listed(Vec<Place>),
    /// By the model's names.
    Named(BTreeMap<String, Place>),
}

/// What stands in for an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Fallback {
    LastGood { age_max: Micros },
    Alias(String),
    Constant(Constant),
}

impl Model {
    /// The aliases that the declaration names.
    pub fn aliases(&self) -> impl Iterator<Item = &str> {
        let fallbacks = self.fallbacks.iter().filter_map(|fallback| match fallback {
            Fallback::Alias(alias) => Some(alias.as_str()),
            _ => None,
        });
        let traffic = self.traffic.iter().flat_map(|traffic| {
            let arms = traffic.arms.iter().map(|arm| &*arm.alias);
            arms.chain(traffic.shadows.iter().map(|shadow| &**shadow))
        });
        fallbacks.chain(traffic)
    }

    /// The places of the set that the declaration names.
    pub fn named_places(&self) -> Vec<Place> {
        match &self.inputs {
            ModelInputs::Own => Vec::new(),
            ModelInputs::Listed(places) => places.clone(),
            ModelInputs::Named(places) => places.values().copied().collect(),
        }
    }

    /// Where the input called `name`, the `index`-th of a model, is in the set's rows.
    pub fn place_of(&self, index: usize, name: &str) -> Result<Place, Problem> {
        let unnamed = || {
            Problem::user(
                "model-inputs",
                format!(
                    "the model `{}` says nothing of the input `{name}`",
                    self.name
                ),
            )
            .detail(format!("it is input {index} of the model file"))
            .hint("add it to the model's `inputs`")
        };
        match &self.inputs {
            ModelInputs::Listed(places) => places.get(index).copied().ok_or_else(unnamed),
            ModelInputs::Named(places) => places.get(name).copied().ok_or_else(unnamed),
            ModelInputs::Own => {
                // Packages replace what isn't a letter or a digit.
                let spelled = |full: &str| full.replace('.', "_") == name;
                let mut full = self.set.full_names();
                match full.position(|f| spelled(f)) {
                    Some(index) => Ok(Place::Value(index)),
                    None => self.set.place(name).map_err(|problem| {
                        let hint = format!("{}; or name it in the model's `inputs`", problem.hint);
                        problem.hint(hint)
                    }),
                }
            }
        }
    }
}

impl FeatureSet {
    pub(crate) fn input_at(&self, place: Place) -> SetInput<'_> {
        match place {
            Place::Context(index) => SetInput::Context(&self.context[index]),
            Place::Value(index) => match self.features.get(index) {
                Some(feature) => SetInput::Feature(feature.feature()),
                None => SetInput::OnDemand(&self.on_demand[index - self.features.len()]),
            },
        }
    }
}

/// Checks and compiles one model.
pub(crate) fn compile_model(
    catalog: &Catalog,
    document: &YamlDocument,
    definition: &Definition<ModelSpec>,
) -> Result<Model, Problem> {
    let spec = &definition.spec;
    let at = |problem: Problem, key: &str| {
        let problem = match &problem.field {
            Some(_) => problem,
            None => problem.field(format!("spec.{}", key.replace('/', "."))),
        };
        problem.at(document.locate(&format!("/spec/{key}")))
    };
    let set = catalog.set(&spec.feature_set).ok_or_else(|| {
        let names = catalog.sets().map(|s| s.name.as_ref());
        let problem = unknown("feature-set", "feature set", &spec.feature_set, names);
        at(problem, "feature_set")
    })?;
    let deadline = match &spec.deadline {
        None => DEADLINE_DEFAULT,
        Some(text) => duration(text).map_err(|p| at(p, "deadline"))?,
    };
    if !(1..=DEADLINE_MAX).contains(&deadline) {
        let problem = Problem::user("invalid-duration", "the deadline is out of range")
            .hint("write between 1ms and 30s, as in `deadline: 100ms`");
        return Err(at(problem, "deadline"));
    }
    if !(0.0..=1.0).contains(&spec.logging.share) {
        let problem = Problem::user("invalid-definition", "`share` isn't between 0 and 1");
        return Err(at(problem, "logging/share"));
    }
    if spec.fallback.len() > FALLBACKS_MAX {
        let problem = Problem::user("limit", format!("more than {FALLBACKS_MAX} fallbacks"));
        return Err(at(problem, "fallback"));
    }
    let fallbacks = spec.fallback.iter().enumerate().map(|(index, fallback)| {
        read_fallback(fallback).map_err(|p| at(p, &format!("fallback/{index}")))
    });
    let on = spec.on.as_ref().map(|on| read_on(catalog, set, on, &at));
    Ok(Model {
        name: definition.name.as_str().into(),
        set: set.clone(),
        inputs: read_inputs(set, spec, &at)?,
        fallbacks: fallbacks.collect::<Result<_, _>>()?,
        deadline,
        on_changed_features: spec.on_changed_features,
        logged: spec.logging.share,
        cache: spec
            .cache
            .as_ref()
            .map(|c| read_caching(c).map_err(|p| at(p, "cache/max_age")))
            .transpose()?,
        traffic: spec
            .traffic
            .as_ref()
            .map(|t| read_traffic(set, &definition.name, t, &at))
            .transpose()?,
        on: on.transpose()?,
        webhook: spec
            .push
            .as_ref()
            .map(|push| read_push(push, &at))
            .transpose()?,
        owner: definition.owner.clone(),
        description: definition.description.clone(),
        definition_hash: definition_hash(&document.value),
    })
}

fn read_inputs(
    set: &FeatureSet,
    spec: &ModelSpec,
    at: &dyn Fn(Problem, &str) -> Problem,
) -> Result<ModelInputs, Problem> {
    let place = |name: &String, key: &str| {
        let place = set
            .place(name)
            .map_err(|p| at(p, &format!("inputs/{key}")))?;
        let data_type = set.place_type(place);
        let scalar = matches!(
            data_type,
            DataType::Bool
                | DataType::Int64
                | DataType::Float64
                | DataType::Decimal { .. }
                | DataType::String
        );
        if scalar {
            return Ok(place);
        }
        let problem = Problem::user("wrong-type", format!("`{name}` can't be a model's input"))
            .detail(format!("it is {data_type}"))
            .hint("inputs are numbers, bools or strings; make one with an on-demand feature");
        Err(at(problem, &format!("inputs/{key}")))
    };
    let count = match &spec.inputs {
        None => return Ok(ModelInputs::Own),
        Some(InputsSpec::Listed(names)) => names.len(),
        Some(InputsSpec::Named(names)) => names.len(),
    };
    if count == 0 || count > MODEL_INPUTS_MAX {
        let problem = Problem::user("limit", format!("the model has {count} inputs")).hint(
            format!("name between 1 and {MODEL_INPUTS_MAX}, or leave `inputs` out"),
        );
        return Err(at(problem, "inputs"));
    }
    match &spec.inputs {
        Some(InputsSpec::Listed(names)) => {
            let names = names.iter().enumerate();
            let places = names.map(|(index, name)| place(name, &index.to_string()));
            places.collect::<Result<_, _>>().map(ModelInputs::Listed)
        }
        Some(InputsSpec::Named(names)) => {
            let places = names.iter().map(|(input, name)| {
                let key = headwater_schema::yaml::pointer_segment(input);
                Ok((input.clone(), place(name, &key)?))
            });
            places.collect::<Result<_, _>>().map(ModelInputs::Named)
        }
        None => Ok(ModelInputs::Own),
    }
}

fn read_caching(spec: &CachingSpec) -> Result<Caching, Problem> {
    let age_max = spec.max_age.as_deref().map(duration).transpose()?;
    Ok(Caching { age_max })
}

fn read_fallback(spec: &FallbackSpec) -> Result<Fallback, Problem> {
    match (&spec.last_good, &spec.alias, &spec.constant) {
        (Some(age), None, None) => {
            let age_max = duration(age)?;
            Ok(Fallback::LastGood { age_max })
        }
        (None, Some(alias), None) => Ok(Fallback::Alias(alias.clone())),
        (None, None, Some(constant)) => Ok(Fallback::Constant(constant.clone())),
        _ => Err(Problem::user(
            "invalid-definition",
            "a fallback is none, or several things at once",
        )
        .hint("write one of `{last_good: 10m}`, `{alias: stable}`, `{constant: 0.5}`")),
    }
}

#[cfg(test)]
mod tests;
