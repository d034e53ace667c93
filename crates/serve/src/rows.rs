//! Rows of a request: candidates spelled out, inputs picked and encoded.

use std::collections::{BTreeMap, BTreeSet};

use headwater_features::{ContextRow, EntityRequest, Outcome, Place};
use headwater_models::{Encoded, ModelContract};
use headwater_schema::{Problem, Value};

use crate::bind::Binding;
use crate::{Candidates, InputRows};

/// One row per thing to score, with the request's own fields of each.
pub(crate) fn spell_out(
    entities: &[EntityRequest],
    context: &[ContextRow],
    candidates: Option<&Candidates>,
) -> Result<(Vec<EntityRequest>, Vec<ContextRow>), Problem> {
    let Some(candidates) = candidates else {
        return Ok((entities.to_vec(), context.to_vec()));
    };
    let [asking] = entities else {
        return Err(Problem::user(
            "candidates",
            "candidates go with exactly one row of entities",
        )
        .field("candidates")
        .detail(format!("there are {} rows", entities.len()))
        .hint("name the entities that all candidates share as the only row"));
    };
    if asking.contains_key(&candidates.entity) {
        let title = "the row names the entity that the candidates are";
        return Err(Problem::user("candidates", title)
            .field("entities[0]")
            .detail(format!("both name `{}`", candidates.entity))
            .hint("leave it out of the row: each candidate stands in its place"));
    }
    let row = |id| {
        let mut row = asking.clone();
        row.insert(candidates.entity.clone(), id);
        row
    };
    let rows: Vec<EntityRequest> = candidates.ids.iter().cloned().map(row).collect();
    let context = match context {
        [shared] => vec![shared.clone(); rows.len()],
        context => context.to_vec(),
    };
    Ok((rows, context))
}

/// How many rows a request has.
pub(crate) fn count(rows: &InputRows) -> usize {
    match rows {
        InputRows::Vectors(rows) | InputRows::Named { rows, .. } => rows.len(),
        InputRows::Entities {
            entities,
            candidates,
            ..
        } => candidates.as_ref().map_or(entities.len(), |c| c.ids.len()),
    }
}

/// The model's inputs of those rows of features that are picked, one after another.
pub(crate) fn encode_features(
    contract: &ModelContract,
    binding: &Binding,
    rows: &[Vec<Outcome>],
    context: &[Vec<Value>],
    picked: &[usize],
) -> Result<Encoded, Problem> {
    let mut encoded = Encoded::with_capacity(picked.len() * contract.inputs.len());
    for &index in picked {
        let row = &rows[index];
        for (input, place) in contract.inputs.iter().zip(&binding.places) {
            let value = match place {
                Place::Value(place) => row.get(*place).map(|o| &o.value),
                Place::Context(place) => context.get(index).and_then(|c| c.get(*place)),
            };
            let value = value.ok_or_else(|| {
                Problem::internal("model-inputs", "a row lacks an input of its model")
            })?;
            encoded.push(input, value)?;
        }
    }
    Ok(encoded)
}

/// The same of rows that are the model's inputs already.
pub(crate) fn encode_vectors(
    contract: &ModelContract,
    vectors: &[Vec<Value>],
    picked: &[usize],
) -> Result<Encoded, Problem> {
    let width = contract.inputs.len();
    let mut encoded = Encoded::with_capacity(picked.len() * width);
    for &index in picked {
        let vector = &vectors[index];
        let field = format!("vectors[{index}]");
        if vector.len() != width {
            return Err(
                Problem::user("model-shape", "a vector doesn't fit the model")
                    .field(field)
                    .detail(format!(
                        "it has {} numbers; the model takes {width}",
                        vector.len()
                    ))
                    .hint("give the model's inputs in their order; null where one is missing"),
            );
        }
        for (input, value) in contract.inputs.iter().zip(vector) {
            let pushed = encoded.push(input, value);
            pushed.map_err(|p| p.field(field.clone()))?;
        }
    }
    Ok(encoded)
}

/// The same of rows that have the model's inputs by their names.
pub(crate) fn encode_named(
    contract: &ModelContract,
    names: &[String],
    rows: &[Vec<Value>],
    picked: &[usize],
) -> Result<Encoded, Problem> {
    let places = places(contract, names)?;
    let mut encoded = Encoded::with_capacity(picked.len() * places.len());
    for &index in picked {
        for (input, place) in contract.inputs.iter().zip(&places) {
            let value = rows[index].get(*place).unwrap_or(&Value::Null);
            let pushed = encoded.push(input, value);
            pushed.map_err(|p| p.field(format!("inputs.{}", input.name)))?;
        }
    }
    Ok(encoded)
}

/// Where each input of the model is among names; refuses names that aren't just those.
fn places(contract: &ModelContract, names: &[String]) -> Result<Vec<usize>, Problem> {
    const NAMED_MAX: usize = 5;
    let given = names.iter().enumerate();
    let given: BTreeMap<&str, usize> = given.map(|(place, name)| (name.as_str(), place)).collect();
    let inputs = contract.inputs.iter().map(|i| i.name.as_str());
    let inputs: BTreeSet<&str> = inputs.collect();
    let differ = |what: &str, names: Vec<&str>| {
        let some = names[..names.len().min(NAMED_MAX)].join(", ");
        let more = if names.len() > NAMED_MAX { ", …" } else { "" };
        Problem::user("model-inputs", "the inputs aren't the model's")
            .field("inputs")
            .detail(format!("{what}: {some}{more}"))
            .hint("give each input of the model once, or all of them as one tensor of rows and columns")
    };
    let unknown = given.keys().copied().filter(|name| !inputs.contains(name));
    let unknown: Vec<&str> = unknown.collect();
    if !unknown.is_empty() {
        return Err(differ("the model doesn't take", unknown));
    }
    let missing = inputs
        .iter()
        .copied()
        .filter(|name| !given.contains_key(name));
    let missing: Vec<&str> = missing.collect();
    if !missing.is_empty() {
        return Err(differ("missing are", missing));
    }
    let places = contract.inputs.iter();
    Ok(places
        .filter_map(|i| given.get(i.name.as_str()).copied())
        .collect())
}
