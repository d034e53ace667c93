//! XGBoost's models (`Booster.save_model`), in JSON and UBJSON, versions 1.3 and later: gbtree, dart, gblinear, every built-in
//! objective, categories, trees with several outputs.
//!
//! XGBoost rounds inputs to floats and adds leaves as floats; so do these, tree by tree, in its order.

mod tree;

use std::collections::BTreeMap;

use headwater_schema::Problem;

use crate::document::Document;
use crate::forest::Builder;
use crate::forest_model::ForestModel;
use crate::limits::{INPUTS_MAX, NAME_BYTES_MAX, SCORES_MAX, at_most};
use crate::linear::LinearModel;
use crate::link::Link;
use crate::load::{LoadOptions, corrupt, unsupported};
use crate::{Categories, Input, InputKind, ModelContract, Output, Predictor, Task, ubjson};

/// Whether a document is one of XGBoost's.
pub(crate) fn looks_like(bytes: &[u8]) -> bool {
    let start = &bytes[..bytes.len().min(4096)];
    start.starts_with(b"{") && contains(start, b"learner") && contains(start, b"attributes")
}

/// Whether the one byte after the bracket begins a length, as in UBJSON.
pub(crate) fn looks_like_ubjson(bytes: &[u8]) -> bool {
    matches!(
        bytes,
        [b'{', b'L' | b'l' | b'i' | b'U' | b'I' | b'#' | b'$', ..]
    ) && looks_like(bytes)
}

fn contains(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|w| w == word)
}

pub(crate) fn load_json(
    bytes: &[u8],
    options: &LoadOptions,
) -> Result<Box<dyn Predictor>, Problem> {
    load(&Document::from_json(bytes)?, options)
}

pub(crate) fn load_ubjson(
    bytes: &[u8],
    options: &LoadOptions,
) -> Result<Box<dyn Predictor>, Problem> {
    load(&ubjson::parse(bytes)?, options)
}

fn load(document: &Document, options: &LoadOptions) -> Result<Box<dyn Predictor>, Problem> {
    let learner = document.get("learner")?;
    let parameters = learner.get("learner_model_param")?;
    let classes = parameters.count("num_class")?;
    let targets = parameters
        .find("num_target")
        .map_or(Ok(1), |_| parameters.count("num_target"))?;
    let scores = classes.max(targets).max(1);
    at_most("scores", scores, SCORES_MAX)?;
    let booster = learner.get("gradient_booster")?;
    let contract = contract(learner, booster, scores)?;
    let objective = Objective::parse(learner.get("objective")?.text("name")?)?;
    let base = base(parameters.text("base_score")?, scores, objective.inverse)?;
    let contract = ModelContract {
        task: objective.task,
        outputs: vec![Output::new(objective.output, objective.link.width(scores))],
        ..contract
    };
    match booster.text("name")? {
        "gblinear" => linear(booster, contract, objective.link, base),
        "gbtree" => forest(booster, None, contract, objective.link, base, options),
        "dart" => {
            let weights = booster.numbers("weight_drop")?;
            forest(
                booster.get("gbtree")?,
                Some(weights),
                contract,
                objective.link,
                base,
                options,
            )
        }
        other => Err(unsupported(format!("XGBoost's booster `{other}`"))),
    }
}

fn forest(
    booster: &Document,
    weights: Option<&[f64]>,
    mut contract: ModelContract,
    link: Link,
    base: Vec<f64>,
    options: &LoadOptions,
) -> Result<Box<dyn Predictor>, Problem> {
    let model = booster.get("model")?;
    let trees = model.list("trees")?;
    let groups = model.counts("tree_info")?;
    if groups.len() != trees.len() || weights.is_some_and(|w| w.len() != trees.len()) {
        return Err(corrupt(format!(
            "It has {} trees and says of {} what they add to",
            trees.len(),
            groups.len()
        )));
    }
    let used = used_trees(model, trees.len(), contract.scores, options)?;
    let mut builder = Builder::new(contract.inputs.len(), base, true);
    let mut several = false;
    for (index, tree) in trees.iter().take(used).enumerate() {
        let weight = weights.map_or(1.0, |w| w[index] as f32);
        let tree = tree::read(tree, groups[index], weight).map_err(|p| {
            let field = format!("trees[{index}]");
            p.field(field)
        })?;
        several |= tree.leaf_width() > 1;
        builder.push(tree)?;
    }
    let forest = builder.finish();
    contract.contributions = match (several, forest.has_covers()) {
        (true, _) => Err("XGBoost defines none for trees with several outputs".into()),
        (_, false) => Err("The file doesn't say how much training data each node had".into()),
        _ => Ok(()),
    };
    Ok(Box::new(ForestModel::new(contract, forest, link)))
}

/// How many trees the wanted iterations have.
fn used_trees(
    model: &Document,
    trees: usize,
    scores: usize,
    options: &LoadOptions,
) -> Result<usize, Problem> {
    let Some(wanted) = options.iterations else {
        return Ok(trees);
    };
    if model.find("iteration_indptr").is_some() {
        let ends = model.counts("iteration_indptr")?;
        return Ok(ends.get(wanted).copied().unwrap_or(trees).min(trees));
    }
    let parallel = model
        .get("gbtree_model_param")?
        .count("num_parallel_tree")?;
    Ok(wanted
        .saturating_mul(parallel.max(1))
        .saturating_mul(scores)
        .min(trees))
}

/// Weights of gblinear: for each input one for each score, and the intercepts at the end.
fn linear(
    booster: &Document,
    contract: ModelContract,
    link: Link,
    base: Vec<f64>,
) -> Result<Box<dyn Predictor>, Problem> {
    let weights = booster.get("model")?.numbers("weights")?;
    let (inputs, scores) = (contract.inputs.len(), contract.scores);
    if weights.len() != (inputs + 1) * scores {
        return Err(corrupt(format!(
            "It has {} weights for {inputs} inputs and {scores} scores",
            weights.len()
        )));
    }
    let (coefficients, intercepts) = weights.split_at(inputs * scores);
    // XGBoost's gblinear takes the first score's base for all of them.
    let add = |intercept: &f64| f64::from(*intercept as f32 + base[0] as f32);
    Ok(Box::new(LinearModel {
        coefficients: coefficients.to_vec(),
        intercepts: intercepts.iter().map(add).collect(),
        fills: vec![0.0; inputs],
        single: true,
        contract,
        link,
    }))
}

/// Inputs and classes; the objective says the rest.
fn contract(
    learner: &Document,
    booster: &Document,
    scores: usize,
) -> Result<ModelContract, Problem> {
    let count = learner.get("learner_model_param")?.count("num_feature")?;
    at_most("inputs", count, INPUTS_MAX)?;
    let listed = |key: &str| {
        learner
            .find(key)
            .map_or(Ok(Vec::new()), |_| learner.texts(key))
    };
    let (names, types) = (listed("feature_names")?, listed("feature_types")?);
    for (what, list) in [("feature_names", &names), ("feature_types", &types)] {
        if !list.is_empty() && list.len() != count {
            return Err(corrupt(format!(
                "It has {count} inputs and {} {what}",
                list.len()
            )));
        }
    }
    let model = booster.find("gbtree").unwrap_or(booster).get("model")?;
    let labels = labels(model)?;
    let mut inputs = Vec::with_capacity(count);
    for index in 0..count {
        let mut input = match names.get(index) {
            Some(name) => Input::numeric(name),
            None => Input::numeric(&format!("f{index}")),
        };
        at_most("bytes in a name", input.name.len(), NAME_BYTES_MAX)?;
        if types.get(index) == Some(&"c") {
            let labels = labels.get(index).filter(|l| !l.is_empty()).cloned();
            input.kind =
                InputKind::Categorical(labels.map_or(Categories::Codes, Categories::Labels));
        }
        inputs.push(input);
    }
    Ok(ModelContract {
        inputs,
        task: Task::Regression,
        scores,
        outputs: Vec::new(),
        classes: Vec::new(),
        contributions: Ok(()),
    })
}

/// Categories of each column of the frame that it was trained on, where the file has them (3.1 and later). XGBoost cuts
/// off names that aren't ASCII, by as many bytes as they have more than letters: of such columns only codes can be had.
fn labels(model: &Document) -> Result<Vec<BTreeMap<String, u32>>, Problem> {
    let Some(columns) = model.find("cats") else {
        return Ok(Vec::new());
    };
    let columns = columns.list("enc")?.iter();
    columns
        .map(|column| {
            let values = column.numbers("values")?;
            let texts: Vec<String> = if column.find("offsets").is_some() {
                let bytes: Vec<u8> = values.iter().map(|v| *v as i16 as u8).collect();
                let ends = column.counts("offsets")?;
                if !bytes.is_ascii() {
                    return Ok(BTreeMap::new());
                }
                let part = |ends: &[usize]| {
                    let bytes = bytes.get(ends[0]..ends[1]);
                    bytes.map(|b| String::from_utf8_lossy(b).into_owned())
                };
                let parts: Option<Vec<String>> = ends.windows(2).map(part).collect();
                parts.ok_or_else(|| corrupt("`cats` has a category that isn't there"))?
            } else {
                values.iter().map(|v| v.to_string()).collect()
            };
            Ok(texts.into_iter().zip(0u32..).collect())
        })
        .collect()
}

/// What scores are before the first tree: `base_score`, one number or one for each score, through the link's inverse.
fn base(text: &str, scores: usize, inverse: fn(f32) -> f32) -> Result<Vec<f64>, Problem> {
    let wrong = || corrupt(format!("`base_score` is `{text}`"));
    let inner = text.trim().trim_start_matches('[').trim_end_matches(']');
    let parts: Result<Vec<f32>, _> = inner.split(',').map(|p| p.trim().parse::<f32>()).collect();
    let parts = parts.map_err(|_| wrong())?;
    let base: Vec<f64> = parts.into_iter().map(|p| f64::from(inverse(p))).collect();
    match base.as_slice() {
        [one] => Ok(vec![*one; scores]),
        many if many.len() == scores => Ok(base),
        _ => Err(wrong()),
    }
}

struct Objective {
    task: Task,
    link: Link,
    output: &'static str,
    /// From `base_score` to a raw score.
    inverse: fn(f32) -> f32,
}

impl Objective {
    fn parse(name: &str) -> Result<Self, Problem> {
        let same: fn(f32) -> f32 = |p| p;
        let logit: fn(f32) -> f32 = |p| -(1.0 / p - 1.0).ln();
        let (task, link, output, inverse) = match name {
            "reg:squarederror"
            | "reg:linear"
            | "reg:absoluteerror"
            | "reg:pseudohubererror"
            | "reg:squaredlogerror"
            | "reg:quantileerror"
            | "reg:expectileerror" => (Task::Regression, Link::Identity, "value", same),
            "reg:logistic" | "binary:logistic" => {
                (Task::Binary, Link::Sigmoid(1.0), "probability", logit)
            }
            "binary:logitraw" => (Task::Binary, Link::Identity, "score", same),
            "binary:hinge" => (Task::Binary, Link::Step, "class", same),
            "count:poisson" | "reg:gamma" | "reg:tweedie" | "survival:aft" | "survival:cox" => (
                Task::Regression,
                Link::Exp,
                "value",
                f32::ln as fn(f32) -> f32,
            ),
            "multi:softmax" => (Task::Multiclass, Link::ArgMax, "class", same),
            "multi:softprob" => (Task::Multiclass, Link::Softmax, "probabilities", same),
            _ if name.starts_with("rank:") => (Task::Ranking, Link::Identity, "score", same),
            _ => return Err(unsupported(format!("XGBoost's objective `{name}`"))),
        };
        Ok(Self {
            task,
            link,
            output,
            inverse,
        })
    }
}

#[cfg(test)]
mod tests;
