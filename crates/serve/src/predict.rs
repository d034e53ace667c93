//! One request from its rows to its answer: features read at one cursor, encoded, scored.

use std::collections::BTreeMap;
use std::sync::Arc;

use headwater_features::{ContextRow, EntityRequest};
use headwater_models::Rows;
use headwater_schema::Problem;

use crate::bind::Binding;
use crate::loaded::Version;
use crate::rows::{encode_features, encode_vectors, spell_out};
use crate::serving::{Core, Request};
use crate::{Explanation, FeaturesRead, InputRows, OutputRow};

/// How often features are read again where definitions changed meanwhile.
const READS_MAX: usize = 4;

/// What a version made of a request's rows.
pub(crate) struct Scored {
    pub version: Arc<Version>,
    pub binding: Arc<Binding>,
    pub outputs: Vec<OutputRow>,
    pub explanations: Vec<Explanation>,
    pub read: Option<Read>,
}

/// Rows of features, and what they were asked for with.
pub(crate) struct Read {
    pub features: FeaturesRead,
    pub entities: Vec<EntityRequest>,
    pub context: Vec<ContextRow>,
}

/// Answers with the version that `asked` names.
pub(crate) fn predict(
    core: &Core,
    request: &Request,
    asked: Option<&str>,
) -> Result<Scored, Problem> {
    let served = core.served(&request.model.name)?;
    let version = served.version(asked)?;
    let clock = &core.env.clock;
    let start = clock.monotonic_nanos();
    let (binding, numbers, read) = match &request.asked.rows {
        InputRows::Vectors(vectors) => {
            let binding = bound(&version, &core.source.catalog(), request)?;
            let numbers = encode_vectors(version.predictor.contract(), vectors)?;
            (binding, numbers, None)
        }
        InputRows::Entities {
            entities,
            context,
            candidates,
        } => {
            let (entities, context) = spell_out(entities, context, candidates.as_ref())?;
            let (binding, features) = read(core, request, &version, &entities, &context)?;
            let own = binding.model.set.read_context(entities.len(), &context)?;
            let contract = version.predictor.contract();
            let numbers = encode_features(contract, &binding, &features.rows, &own)?;
            let read = Read {
                features,
                entities,
                context,
            };
            (binding, numbers, Some(read))
        }
    };
    let encoded = clock.monotonic_nanos();
    let counters = &served.counters;
    counters
        .features
        .observe_nanos(encoded.saturating_sub(start));
    let contract = version.predictor.contract();
    let rows = Rows::new(&numbers, contract.inputs.len())?;
    let answered = version.predictor.predict(rows)?;
    let outputs = answered.outputs.chunks_exact(contract.output_width());
    let outputs = outputs.map(|row| output_row(&version, row)).collect();
    let explanations = match request.asked.explain {
        true => explain(&version, rows)?,
        false => Vec::new(),
    };
    let scored = clock.monotonic_nanos();
    counters
        .scoring
        .observe_nanos(scored.saturating_sub(encoded));
    Ok(Scored {
        version,
        binding,
        outputs,
        explanations,
        read,
    })
}

fn bound(
    version: &Version,
    catalog: &Arc<headwater_features::Catalog>,
    request: &Request,
) -> Result<Arc<Binding>, Problem> {
    let binding = version.binding(catalog, &request.model.name)?;
    match &binding.refused {
        Some(problem) => Err(problem.clone()),
        None => Ok(binding),
    }
}

/// Features and the binding under the very definitions that they were read by.
fn read(
    core: &Core,
    request: &Request,
    version: &Version,
    entities: &[EntityRequest],
    context: &[ContextRow],
) -> Result<(Arc<Binding>, FeaturesRead), Problem> {
    let mut set = request.model.set.name.clone();
    for _ in 0..READS_MAX {
        let features = core.source.read(&set, entities, context)?;
        let binding = bound(version, &features.catalog, request)?;
        if binding.model.set.name == set {
            return Ok((binding, features));
        }
        // Another set is declared since the request came.
        set = binding.model.set.name.clone();
    }
    Err(Problem::external(
        "definitions-changed",
        "definitions change faster than they are read",
    )
    .retryable())
}

fn output_row(version: &Version, row: &[f64]) -> OutputRow {
    let mut from = 0;
    let outputs = version.predictor.contract().outputs.iter();
    let named = outputs.zip(&version.output_names).map(|(output, name)| {
        let numbers = row[from..from + output.width].to_vec();
        from += output.width;
        (name.clone(), numbers)
    });
    named.collect()
}

fn explain(version: &Version, rows: Rows<'_>) -> Result<Vec<Explanation>, Problem> {
    let contract = version.predictor.contract();
    let inputs = contract.inputs.len();
    let all = version.predictor.explain(rows)?;
    let of_row = |row: &[f64]| {
        let of_score = |score: &[f64]| {
            let named = version
                .input_names
                .iter()
                .cloned()
                .zip(score.iter().copied());
            let added: BTreeMap<Arc<str>, f64> = named.collect();
            (added, score[inputs])
        };
        Explanation {
            scores: row.chunks_exact(inputs + 1).map(of_score).collect(),
        }
    };
    let rows = all.chunks_exact(contract.scores * (inputs + 1));
    Ok(rows.map(of_row).collect())
}
