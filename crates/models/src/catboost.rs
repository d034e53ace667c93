//! CatBoost's models as JSON (`save_model(format="json", pool=…)`): symmetric and other trees, borders and rules for missing
//! values, one-hot splits, statistics of categories (CTRs) and of their combinations, several outputs.
//!
//! Inputs are rounded to floats, leaves are added as doubles, as CatBoost does. Text and embedding features aren't in its
//! JSON and are refused.

mod ctr;
mod tree;

use std::collections::BTreeMap;

use headwater_schema::Problem;

use crate::document::{Document, whole};
use crate::forest::Builder;
use crate::forest_model::{Affine, ForestModel};
use crate::limits::{INPUTS_MAX, NAME_BYTES_MAX, SCORES_MAX, at_most};
use crate::link::Link;
use crate::load::{LoadOptions, corrupt, unsupported};
use crate::{Categories, Input, InputKind, ModelContract, Output, Predictor, Task};
pub(crate) use ctr::Ctrs;
use tree::Splits;

/// CatBoost's models say so at their end or in the middle: all of a file is looked at.
pub(crate) fn looks_like(bytes: &[u8]) -> bool {
    let has = |word: &[u8]| bytes.windows(word.len()).any(|w| w == word);
    bytes.trim_ascii_start().starts_with(b"{")
        && has(b"\"features_info\"")
        && (has(b"\"oblivious_trees\"") || has(b"\"trees\""))
}

pub(crate) fn load(bytes: &[u8], options: &LoadOptions) -> Result<Box<dyn Predictor>, Problem> {
    let document = Document::from_json(bytes)?;
    let features = Features::read(document.get("features_info")?)?;
    let (scale, bias) = scale_and_bias(&document)?;
    let columns = features.inputs.len();
    let ctrs = Ctrs::read(&document, &features)?;
    let splits = Splits::read(document.get("features_info")?, &features, &ctrs)?;
    let (trees, symmetric) = match document.find("oblivious_trees") {
        Some(_) => (document.list("oblivious_trees")?, true),
        None => (document.list("trees")?, false),
    };
    let used = options.iterations.unwrap_or(trees.len()).min(trees.len());
    let scores = match trees.first() {
        Some(first) => tree::width(first, symmetric)?,
        None => bias.len(),
    };
    at_most("scores", scores, SCORES_MAX)?;
    let mut builder = Builder::new(columns + ctrs.len(), vec![0.0; scores], false);
    for (index, tree) in trees.iter().take(used).enumerate() {
        let read = tree::read(tree, symmetric, &splits, scores);
        builder.push(read.map_err(|p| {
            let field = format!("trees[{index}]");
            p.field(field)
        })?)?;
    }
    let bias = match bias.as_slice() {
        [one] => vec![*one; scores],
        _ if bias.len() == scores => bias,
        _ => return Err(corrupt("`scale_and_bias` doesn't fit the leaves")),
    };
    let (task, link, output) = objective(&document, scores, &ctrs)?;
    let forest = builder.finish();
    let contract = ModelContract {
        inputs: features.inputs,
        task,
        scores,
        outputs: vec![Output::new(output, scores)],
        classes: classes(&document),
        contributions: if forest.has_covers() {
            Ok(())
        } else {
            Err("The file doesn't say how much training data each leaf had".into())
        },
    };
    let plain = scale == 1.0 && bias.iter().all(|b| *b == 0.0);
    Ok(Box::new(ForestModel {
        affine: (!plain).then_some(Affine { scale, bias }),
        ctrs: (ctrs.len() > 0).then_some(ctrs),
        ..ForestModel::new(contract, forest, link)
    }))
}

/// Columns of a row, and where CatBoost's own numbering of floats and categories finds them.
pub(crate) struct Features {
    pub(crate) inputs: Vec<Input>,
    pub(crate) floats: BTreeMap<usize, Float>,
    /// Columns by CatBoost's number of a category.
    pub(crate) categories: BTreeMap<usize, usize>,
}

#[derive(Clone, Copy)]
pub(crate) struct Float {
    pub(crate) column: usize,
    /// A missing value is above all borders.
    pub(crate) missing_above: bool,
}

impl Features {
    fn read(info: &Document) -> Result<Self, Problem> {
        for kind in ["text_features", "embedding_features"] {
            if info.find(kind).is_some() {
                return Err(unsupported(format!(
                    "CatBoost's {}",
                    kind.replace('_', " ")
                )));
            }
        }
        let list = |key: &str| info.find(key).map_or(Ok([].as_slice()), |_| info.list(key));
        let (floats, categories) = (list("float_features")?, list("categorical_features")?);
        let count = floats.len() + categories.len();
        at_most("inputs", count, INPUTS_MAX)?;
        let mut inputs: Vec<Option<Input>> = vec![None; count];
        let mut place = |feature: &Document, kind: InputKind| {
            let column = feature.count("flat_feature_index")?;
            let name =
                ["feature_name", "feature_id"]
                    .iter()
                    .find_map(|key| match feature.find(key) {
                        Some(Document::Text(name)) if !name.is_empty() => Some(name.clone()),
                        _ => None,
                    });
            let name = name.unwrap_or_else(|| column.to_string());
            at_most("bytes in a name", name.len(), NAME_BYTES_MAX)?;
            match inputs.get_mut(column) {
                Some(free @ None) => *free = Some(Input { name, kind }),
                _ => return Err(corrupt(format!("Its column {column} isn't one of {count}"))),
            }
            Ok((feature.count("feature_index")?, column))
        };
        let mut found = (BTreeMap::new(), BTreeMap::new());
        for feature in floats {
            let (number, column) = place(feature, InputKind::Numeric)?;
            let missing_above = feature.text("nan_value_treatment")? == "AsTrue";
            let float = Float {
                column,
                missing_above,
            };
            found.0.insert(number, float);
        }
        let labels = if categories.is_empty() {
            BTreeMap::new()
        } else {
            labels(info)?
        };
        for feature in categories {
            let kind = InputKind::Categorical(Categories::Labels(labels.clone()));
            let (number, column) = place(feature, kind)?;
            found.1.insert(number, column);
        }
        Ok(Self {
            inputs: inputs.into_iter().flatten().collect(),
            floats: found.0,
            categories: found.1,
        })
    }

    pub(crate) fn float(&self, number: usize) -> Result<Float, Problem> {
        let found = self.floats.get(&number).copied();
        found.ok_or_else(|| corrupt(format!("Its float feature {number} isn't there")))
    }

    pub(crate) fn category(&self, number: usize) -> Result<usize, Problem> {
        let found = self.categories.get(&number).copied();
        found.ok_or_else(|| corrupt(format!("Its categorical feature {number} isn't there")))
    }
}

/// Hashes of all categories that training saw: they stand for them in splits and tables.
fn labels(info: &Document) -> Result<BTreeMap<String, u32>, Problem> {
    if info.find("cat_features_hash").is_none() {
        return Err(
            unsupported("CatBoost's JSON without the hashes of categories")
                .hint("Save it with `pool=`, the data that it was trained on"),
        );
    }
    let hashes = info.list("cat_features_hash")?.iter();
    hashes
        .map(|entry| Ok((entry.text("value")?.to_owned(), entry.count("hash")? as u32)))
        .collect()
}

/// `[scale, [bias, …]]`, or `[scale, bias]` in older files.
fn scale_and_bias(document: &Document) -> Result<(f64, Vec<f64>), Problem> {
    match document.find("scale_and_bias") {
        None => Ok((1.0, vec![0.0])),
        Some(Document::Numbers(both)) if both.len() == 2 => Ok((both[0], vec![both[1]])),
        Some(Document::List(both)) => match both.as_slice() {
            [Document::Number(scale), Document::Numbers(bias)] if !bias.is_empty() => {
                Ok((*scale, bias.clone()))
            }
            _ => Err(corrupt("`scale_and_bias` isn't a scale and a bias")),
        },
        Some(_) => Err(corrupt("`scale_and_bias` isn't a scale and a bias")),
    }
}

fn classes(document: &Document) -> Vec<String> {
    let names = document
        .find("model_info")
        .and_then(|i| i.find("class_params")?.find("class_names"));
    match names {
        Some(Document::Numbers(numbers)) => numbers.iter().map(f64::to_string).collect(),
        Some(Document::List(names)) => names
            .iter()
            .map(|name| match name {
                Document::Text(text) => text.clone(),
                Document::Bool(yes) => yes.to_string(),
                _ => String::new(),
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// The task, the link function and the output's name, of the loss that it was trained with.
fn objective(
    document: &Document,
    scores: usize,
    ctrs: &Ctrs,
) -> Result<(Task, Link, &'static str), Problem> {
    let loss = document
        .find("model_info")
        .and_then(|i| i.find("params")?.find("loss_function"));
    let Some(loss) = loss else {
        return Ok((Task::Regression, Link::Identity, "score"));
    };
    let name = loss.text("type")?;
    if name.starts_with("Multi") && !name.starts_with("MultiClass") && ctrs.know_the_target() {
        return Err(unsupported(format!(
            "CatBoost's statistics of categories with `{name}`: of several targets its JSON has those of one"
        ))
        .hint("Train with a larger `one_hot_max_size`"));
    }
    Ok(match name {
        "RMSE"
        | "MAE"
        | "Quantile"
        | "MultiQuantile"
        | "MAPE"
        | "Huber"
        | "Expectile"
        | "Lq"
        | "SMAPE"
        | "MSLE"
        | "MedianAbsoluteError"
        | "LogCosh"
        | "MultiRMSE"
        | "MultiRMSEWithMissingValues" => (Task::Regression, Link::Identity, "value"),
        "Poisson" | "Tweedie" | "LogLinQuantile" => (Task::Regression, Link::Exp, "value"),
        "Logloss" | "CrossEntropy" | "Focal" if scores == 1 => {
            (Task::Binary, Link::Sigmoid(1.0), "probability")
        }
        "MultiClass" => (Task::Multiclass, Link::Softmax, "probabilities"),
        "MultiClassOneVsAll" | "MultiLogloss" | "MultiCrossEntropy" => {
            (Task::Multiclass, Link::Sigmoid(1.0), "probabilities")
        }
        "QueryRMSE" | "QuerySoftMax" | "PairLogit" | "PairLogitPairwise" | "YetiRank"
        | "YetiRankPairwise" | "StochasticRank" | "StochasticFilter" | "LambdaMart"
        | "GroupQuantile" => (Task::Ranking, Link::Identity, "score"),
        _ => return Err(unsupported(format!("CatBoost's loss `{name}`"))),
    })
}

/// A feature's number, from a split or an element.
fn number(of: &Document, key: &str) -> Result<usize, Problem> {
    whole(of.number(key)?).ok_or_else(|| corrupt(format!("`{key}` isn't a feature's number")))
}

#[cfg(test)]
mod tests;
