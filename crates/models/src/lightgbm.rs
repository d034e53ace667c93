//! LightGBM's text models (`Booster.save_model`), versions 2 to 4: gbdt, dart, goss and random forests, every built-in
//! objective, categories, the three rules for missing values, linear trees.
//!
//! Raw scores equal `Booster.predict(raw_score=True)` bit for bit.

mod labels;
mod text;
mod tree;

use std::collections::BTreeMap;

use headwater_schema::Problem;
use serde_json::Value as Json;

use crate::forest::Builder;
use crate::forest_model::ForestModel;
use crate::limits::{INPUTS_MAX, NAME_BYTES_MAX, SCORES_MAX, TREES_MAX, at_most};
use crate::link::Link;
use crate::load::{LoadOptions, corrupt, unsupported};
use crate::{Categories, Input, InputKind, ModelContract, Output, Predictor, Task};
use text::{Block, ModelText};

pub(crate) fn looks_like(bytes: &[u8]) -> bool {
    bytes.starts_with(b"tree\n") || bytes.starts_with(b"tree\r\n")
}

pub(crate) fn load(bytes: &[u8], options: &LoadOptions) -> Result<Box<dyn Predictor>, Problem> {
    let text = ModelText::parse(bytes)?;
    let header = &text.header;
    match header.get("version") {
        Some("v2" | "v3" | "v4") => {}
        other => {
            return Err(unsupported(format!(
                "LightGBM's text version {}; v2 to v4 are read",
                other.unwrap_or("1")
            )));
        }
    }
    let scores = header.number("num_tree_per_iteration")?;
    at_most("scores", scores, SCORES_MAX)?;
    if scores == 0 {
        return Err(corrupt("`num_tree_per_iteration` is 0"));
    }
    let inputs = inputs(header, text.categories)?;
    at_most("trees", text.trees.len(), TREES_MAX)?;
    check_count(header, text.trees.len())?;
    let all = text.trees.len() / scores;
    let iterations = options.iterations.unwrap_or(all).min(all);
    let mut builder = Builder::new(inputs.len(), vec![0.0; scores], false);
    let mut linear = false;
    for (index, block) in text.trees.iter().take(iterations * scores).enumerate() {
        let tree = tree::read(block, index % scores).map_err(|p| {
            let field = format!("Tree={index}");
            p.field(field)
        })?;
        linear |= tree.is_linear();
        builder.push(tree)?;
    }
    let (task, link, output) = objective(header.get("objective"), scores)?;
    let forest = builder.finish();
    let contributions = if linear {
        Err("Linear trees have none: an input adds to a leaf's line and chooses the leaf".into())
    } else if !forest.has_covers() {
        Err("The file doesn't say how much training data each node had".into())
    } else {
        Ok(())
    };
    let contract = ModelContract {
        inputs,
        task,
        scores,
        outputs: vec![Output::new(output, scores)],
        classes: Vec::new(),
        contributions,
    };
    let averaged = header.has("average_output") && iterations > 0;
    Ok(Box::new(ForestModel {
        divisor: if averaged { iterations as f64 } else { 1.0 },
        ..ForestModel::new(contract, forest, link)
    }))
}

/// The header's list of trees' sizes says how many there are.
fn check_count(header: &Block<'_>, trees: usize) -> Result<(), Problem> {
    let sizes = header.get("tree_sizes").unwrap_or_default();
    let told = sizes.split_ascii_whitespace().count();
    if header.get("tree_sizes").is_none() || told == trees {
        return Ok(());
    }
    Err(corrupt(format!(
        "It begins with the sizes of {told} trees and holds {trees}"
    )))
}

fn inputs(header: &Block<'_>, categories: Option<&str>) -> Result<Vec<Input>, Problem> {
    let columns = header.number("max_feature_idx")?.saturating_add(1);
    at_most("inputs", columns, INPUTS_MAX)?;
    let names: Vec<&str> = header.words("feature_names").collect();
    let infos: Vec<&str> = header.words("feature_infos").collect();
    if names.len() != columns || infos.len() != columns {
        return Err(corrupt(format!(
            "It has {columns} inputs, {} names of them and {} ranges",
            names.len(),
            infos.len()
        )));
    }
    let mut labels = labels::by_column(&infos, category_lists(categories)?);
    let mut inputs = Vec::with_capacity(columns);
    for (index, name) in names.iter().enumerate() {
        at_most("bytes in a name", name.len(), NAME_BYTES_MAX)?;
        let mut input = Input::numeric(name);
        if infos[index] == "none" {
            // Training found nothing in it. Any value will do: none is one of its categories.
            input.kind = InputKind::Categorical(Categories::Labels(BTreeMap::new()));
        } else if labels::is_category(infos[index]) {
            let labels = labels.remove(&index);
            input.kind =
                InputKind::Categorical(labels.map_or(Categories::Codes, Categories::Labels));
        }
        inputs.push(input);
    }
    Ok(inputs)
}

/// `pandas_categorical`: the categories of each categorical column of the frame that it was trained on.
fn category_lists(text: Option<&str>) -> Result<Vec<BTreeMap<String, u32>>, Problem> {
    let Some(text) = text else {
        return Ok(Vec::new());
    };
    let json: Json = serde_json::from_str(text)
        .map_err(|e| corrupt(format!("`pandas_categorical` isn't JSON: {e}")))?;
    let lists = json.as_array().map(Vec::as_slice).unwrap_or_default();
    let label = |value: &Json| match value {
        Json::String(text) => text.clone(),
        other => other.to_string(),
    };
    let codes = |list: &Json| {
        let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
        let codes = list.iter().zip(0u32..);
        codes.map(|(value, code)| (label(value), code)).collect()
    };
    Ok(lists.iter().map(codes).collect())
}

/// The task, the link function and the output's name.
fn objective(line: Option<&str>, scores: usize) -> Result<(Task, Link, &'static str), Problem> {
    let Some(line) = line else {
        return Ok((Task::Regression, Link::Identity, "score"));
    };
    let mut words = line.split_ascii_whitespace();
    let name = words.next().unwrap_or_default();
    let parameters: Vec<&str> = words.collect();
    let sigmoid = || {
        let given = parameters.iter().find_map(|p| p.strip_prefix("sigmoid:"));
        given.map_or(Ok(1.0), |text| text::number("objective", text))
    };
    let root = parameters.contains(&"sqrt");
    Ok(match name {
        "regression" | "regression_l1" | "huber" | "fair" | "quantile" | "mape" => {
            let link = if root {
                Link::SignedSquare
            } else {
                Link::Identity
            };
            (Task::Regression, link, "value")
        }
        "poisson" | "gamma" | "tweedie" => (Task::Regression, Link::Exp, "value"),
        "binary" => (Task::Binary, Link::Sigmoid(sigmoid()?), "probability"),
        "cross_entropy" => (Task::Binary, Link::Sigmoid(1.0), "probability"),
        "cross_entropy_lambda" => (Task::Regression, Link::Softplus, "intensity"),
        "multiclass" if scores > 1 => (Task::Multiclass, Link::Softmax, "probabilities"),
        "multiclassova" if scores > 1 => {
            (Task::Multiclass, Link::Sigmoid(sigmoid()?), "probabilities")
        }
        "lambdarank" | "rank_xendcg" => (Task::Ranking, Link::Identity, "score"),
        "custom" => (Task::Regression, Link::Identity, "score"),
        _ => return Err(unsupported(format!("LightGBM's objective `{line}`"))),
    })
}

#[cfg(test)]
mod tests;
