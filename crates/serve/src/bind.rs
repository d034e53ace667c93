//! A version and the definitions in force: where each input is, and whether it still means what it meant.

use std::collections::BTreeMap;
use std::sync::Arc;

use headwater_features::{Catalog, Model, OnChangedFeatures, Place};
use headwater_models::repository::{InputRecord, VersionRecord};
use headwater_models::{Categories, Input, InputKind, ModelContract};
use headwater_schema::{DataType, Problem, Value};

/// Changed inputs that are named.
const NAMED_MAX: usize = 5;

/// A version under the definitions of one catalog.
#[derive(Debug)]
pub(crate) struct Binding {
    pub catalog: Arc<Catalog>,
    pub model: Arc<Model>,
    /// One per input.
    pub places: Vec<Place>,
    /// What each named thing means now, for predictions' facts.
    pub definitions: Value,
    pub warnings: Vec<String>,
    /// Why the version isn't served under these definitions.
    pub refused: Option<Problem>,
}

/// The inputs of a model file as features of the set; refuses those that aren't there or don't fit.
pub(crate) fn inputs(model: &Model, contract: &ModelContract) -> Result<Vec<InputRecord>, Problem> {
    if let headwater_features::ModelInputs::Listed(listed) = &model.inputs
        && listed.len() != contract.inputs.len()
    {
        return Err(inputs_differ(model, contract, listed.len()));
    }
    let records = contract.inputs.iter().enumerate().map(|(index, input)| {
        let place = model.place_of(index, &input.name)?;
        refuse_unfit(input, model.set.place_type(place))?;
        Ok(InputRecord {
            name: input.name.clone(),
            kind: match input.kind {
                InputKind::Numeric => "numeric",
                InputKind::Categorical(_) => "categorical",
                InputKind::Text => "text",
            }
            .to_owned(),
            source: source(model, place),
            meaning: model.set.meaning(place),
        })
    });
    records.collect()
}

fn inputs_differ(model: &Model, contract: &ModelContract, listed: usize) -> Problem {
    Problem::user(
        "model-inputs",
        "the model file takes other inputs than are listed",
    )
    .detail(format!(
        "`inputs` of `{}` lists {listed}, the file takes {}",
        model.name,
        contract.inputs.len()
    ))
    .hint("list one feature for each input of the file, in its order")
}

/// The name of what is at a place.
fn source(model: &Model, place: Place) -> String {
    match place {
        Place::Value(index) => {
            let name = model.set.full_names().nth(index);
            name.map(|n| n.to_string()).unwrap_or_default()
        }
        Place::Context(index) => format!("context.{}", model.set.context[index].name),
    }
}

fn refuse_unfit(input: &Input, data_type: &DataType) -> Result<(), Problem> {
    let is_number = matches!(
        data_type,
        DataType::Bool | DataType::Int64 | DataType::Float64 | DataType::Decimal { .. }
    );
    let fits = match &input.kind {
        InputKind::Categorical(Categories::Labels(_)) => {
            is_number || *data_type == DataType::String
        }
        InputKind::Numeric | InputKind::Categorical(Categories::Codes) => is_number,
        InputKind::Text => *data_type == DataType::String,
    };
    let wanted = match input.kind {
        InputKind::Text => "text",
        _ => "a number",
    };
    if fits {
        return Ok(());
    }
    Err(Problem::user(
        "wrong-type",
        format!("the input `{}` doesn't fit", input.name),
    )
    .detail(format!(
        "the model takes {wanted}, its feature is {data_type}"
    ))
    .hint("name another feature in the model's `inputs`"))
}

/// Binds a version to the definitions of a catalog.
pub(crate) fn bind(
    catalog: &Arc<Catalog>,
    name: &str,
    contract: &ModelContract,
    record: &VersionRecord,
) -> Result<Binding, Problem> {
    let model = catalog.model(name)?.clone();
    let mut binding = Binding {
        catalog: catalog.clone(),
        places: Vec::with_capacity(contract.inputs.len()),
        definitions: Value::Null,
        warnings: Vec::new(),
        refused: None,
        model,
    };
    let now = match inputs(&binding.model, contract) {
        Ok(now) => now,
        Err(problem) => {
            // Whoever asks for a prediction isn't to blame.
            binding.refused = Some(unserved(record, &problem.title).detail(problem.detail));
            return Ok(binding);
        }
    };
    for (index, input) in contract.inputs.iter().enumerate() {
        binding
            .places
            .push(binding.model.place_of(index, &input.name)?);
    }
    let meanings = now.iter().map(|i| (i.source.as_str(), i.meaning.as_str()));
    let meanings: BTreeMap<&str, &str> = meanings.collect();
    let entries = meanings.iter();
    let entries = entries.map(|(name, meaning)| (Value::string(name), Value::string(meaning)));
    binding.definitions = Value::Map(entries.collect());
    let changed = now.iter().zip(&record.inputs);
    let changed = changed.filter(|(now, then)| now.meaning != then.meaning);
    let changed: Vec<&str> = changed.map(|(now, _)| now.source.as_str()).collect();
    if changed.is_empty() {
        return Ok(binding);
    }
    let more = if changed.len() > NAMED_MAX {
        ", …"
    } else {
        ""
    };
    let named = changed[..changed.len().min(NAMED_MAX)].join(", ");
    let told = format!(
        "{} of its inputs mean something else now: {named}{more}",
        changed.len()
    );
    match binding.model.on_changed_features {
        OnChangedFeatures::Warn => binding.warnings.push(told),
        OnChangedFeatures::Refuse => {
            let problem = unserved(record, "its features have changed since its training");
            binding.refused = Some(
                problem
                    .detail(told)
                    .hint("train it again, or let the model's `on_changed_features` be `warn`"),
            );
        }
    }
    Ok(binding)
}

fn unserved(record: &VersionRecord, why: &str) -> Problem {
    Problem::external(
        "features-changed",
        format!("the version `{}` isn't served: {why}", record.version),
    )
    .hint("apply definitions that it fits, or promote another version")
}
