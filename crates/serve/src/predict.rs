//! One request from its rows to its answer: rows shared out, features read at one cursor, encoded, scored.

use std::collections::BTreeMap;
use std::sync::Arc;

use headwater_features::{Catalog, ContextRow, EntityRequest};
use headwater_models::{Encoded, Rows};
use headwater_schema::{Problem, Value};

use crate::bind::Binding;
use crate::cache::Asker;
use crate::loaded::Version;
use crate::rows::{encode_features, encode_named, encode_vectors, spell_out};
use crate::serving::{Core, Request};
use crate::stats::Counters;
use crate::traffic::{Choice, Routes, route};
use crate::{AnsweredBy, Explanation, FeaturesRead, InputRows, OutputRow, Pending};

/// How often features are read again where definitions changed meanwhile.
const READS_MAX: usize = 4;

/// What versions made of a request's rows.
pub(crate) struct Scored {
    /// Who answered: several where rows were shared out.
    pub parts: Vec<Part>,
    /// Of each row: the place of its part.
    pub by_row: Vec<usize>,
    pub outputs: Vec<OutputRow>,
    pub explanations: Vec<Explanation>,
    /// Of each row: whether its answer was remembered.
    pub cached: Vec<bool>,
    pub read: Option<Arc<Read>>,
    /// What reading and encoding took, and scoring.
    pub features_nanos: u64,
    pub scoring_nanos: u64,
}

/// A version that answered some of the rows.
pub(crate) struct Part {
    pub choice: Choice,
    pub version: Arc<Version>,
    pub binding: Arc<Binding>,
}

/// Rows of features, and what they were asked for with.
pub(crate) struct Read {
    pub features: FeaturesRead,
    pub entities: Vec<EntityRequest>,
    pub context: Vec<ContextRow>,
    /// The request's own fields, as the set declares them.
    pub own: Vec<Vec<Value>>,
}

/// What all versions that are asked for a request share.
pub(crate) struct Fetched {
    catalog: Arc<Catalog>,
    read: Option<Arc<Read>>,
}

/// What was read already.
pub(crate) fn fetched(core: &Core, read: Option<Arc<Read>>) -> Fetched {
    let catalog = read.as_ref().map(|r| r.features.catalog.clone());
    Fetched {
        catalog: catalog.unwrap_or_else(|| core.source.catalog()),
        read,
    }
}

/// Answers with the version that `asked` names, or those that the model's traffic goes to.
pub(crate) fn predict(
    core: &Core,
    request: &Request,
    asked: Option<&str>,
) -> Result<Scored, Problem> {
    let served = core.served(&request.model.name)?;
    let rows = &request.asked.rows;
    let Routes { choices, by_row } =
        route(&request.model, &served, rows, asked, request.identity())?;
    let version = |choice: Choice| {
        let version = served.version(Some(&choice.name))?;
        Ok((choice, version))
    };
    let versions: Result<Vec<_>, Problem> = choices.into_iter().map(version).collect();
    let versions = versions?;
    let start = core.env.clock.monotonic_nanos();
    let read = read(core, request)?;
    let fetched = fetched(core, read);
    let timed = Timed {
        counters: &served.counters,
        start,
    };
    score(request, &fetched, versions, by_row, Some(&timed))
}

/// Where times of a request are counted.
pub(crate) struct Timed<'a> {
    counters: &'a Counters,
    start: u64,
}

/// Scores rows, each by its version. What isn't timed isn't remembered either.
pub(crate) fn score(
    request: &Request,
    fetched: &Fetched,
    versions: Vec<(Choice, Arc<Version>)>,
    by_row: Vec<usize>,
    timed: Option<&Timed<'_>>,
) -> Result<Scored, Problem> {
    let clock = &request.core.env.clock;
    let mut encoded = Vec::with_capacity(versions.len());
    for (place, (choice, version)) in versions.into_iter().enumerate() {
        let binding = bound(&version, &fetched.catalog, request)?;
        let rows: Vec<usize> = (0..by_row.len()).filter(|r| by_row[*r] == place).collect();
        let inputs = inputs(request, fetched, &version, &binding, &rows)?;
        let part = Part {
            choice,
            version,
            binding,
        };
        encoded.push((part, rows, inputs));
    }
    let scoring = clock.monotonic_nanos();
    let all = by_row.len();
    let mut scored = Scored {
        parts: Vec::with_capacity(encoded.len()),
        by_row,
        outputs: vec![OutputRow::new(); all],
        explanations: Vec::new(),
        cached: vec![false; all],
        read: fetched.read.clone(),
        features_nanos: 0,
        scoring_nanos: 0,
    };
    if request.asked.explain {
        scored.explanations = vec![Explanation::default(); all];
    }
    for (part, rows, inputs) in encoded {
        scored.part(request, &part.version, &rows, &inputs, timed)?;
        scored.parts.push(part);
    }
    if let Some(Timed { counters, start }) = timed {
        scored.features_nanos = scoring.saturating_sub(*start);
        counters.features.observe_nanos(scored.features_nanos);
        scored.scoring_nanos = clock.monotonic_nanos().saturating_sub(scoring);
        counters.scoring.observe_nanos(scored.scoring_nanos);
    }
    Ok(scored)
}

impl Scored {
    /// Who answered each row.
    pub fn answered_by(&self) -> Vec<Arc<AnsweredBy>> {
        let parts = self.parts.iter().map(|part| {
            Arc::new(AnsweredBy {
                alias: part.choice.name.clone(),
                version: part.version.name.clone(),
                experiment: part.choice.experiment.clone(),
                propensity: part.choice.propensity,
            })
        });
        let parts: Vec<_> = parts.collect();
        self.by_row
            .iter()
            .map(|part| parts[*part].clone())
            .collect()
    }

    /// Scores the rows of one version.
    fn part(
        &mut self,
        request: &Request,
        version: &Version,
        places: &[usize],
        inputs: &Encoded,
        timed: Option<&Timed<'_>>,
    ) -> Result<(), Problem> {
        let contract = version.predictor.contract();
        let rows = inputs.rows(contract.inputs.len())?;
        let asker = Asker {
            env: &request.core.env,
            version: version.number,
            predictor: version.predictor.as_ref(),
            patience: request.wait(),
        };
        let caching = request.model.cache.as_ref().filter(|_| timed.is_some());
        let answered = request.core.cache.predict(&asker, rows, caching)?;
        if let (Some(timed), Some(_)) = (timed, caching) {
            timed.counters.cache(&answered);
        }
        let outputs = answered.outputs.chunks_exact(contract.output_width());
        for ((place, row), cached) in places.iter().zip(outputs).zip(answered.cached) {
            self.outputs[*place] = version.output_row(row);
            self.cached[*place] = cached;
        }
        if request.asked.explain {
            let explained = explain(version, rows)?;
            for (place, explanation) in places.iter().zip(explained) {
                self.explanations[*place] = explanation;
            }
        }
        Ok(())
    }
}

/// The version's inputs of some of the rows.
fn inputs(
    request: &Request,
    fetched: &Fetched,
    version: &Version,
    binding: &Binding,
    rows: &[usize],
) -> Result<Encoded, Problem> {
    let contract = version.predictor.contract();
    match (&fetched.read, &request.asked.rows) {
        (Some(read), _) => encode_features(contract, binding, &read.features.rows, &read.own, rows),
        (None, InputRows::Vectors(vectors)) => encode_vectors(contract, vectors, rows),
        (None, InputRows::Named { names, rows: given }) => {
            encode_named(contract, names, given, rows)
        }
        (None, InputRows::Entities { .. }) => Err(Problem::internal(
            "model-inputs",
            "the features of a row weren't read",
        )),
    }
}

fn bound(
    version: &Version,
    catalog: &Arc<Catalog>,
    request: &Request,
) -> Result<Arc<Binding>, Problem> {
    let binding = version.binding(catalog, &request.model.name)?;
    match &binding.refused {
        Some(problem) => Err(problem.clone()),
        None => Ok(binding),
    }
}

/// The features of a request's entities, of the set that the model has under the very definitions that they were read
/// by; none where the request brings the model's inputs itself.
fn read(core: &Core, request: &Request) -> Result<Option<Arc<Read>>, Problem> {
    let InputRows::Entities {
        entities,
        context,
        candidates,
    } = &request.asked.rows
    else {
        return Ok(None);
    };
    let (entities, context) = spell_out(entities, context, candidates.as_ref())?;
    let mut set = request.model.set.clone();
    for _ in 0..READS_MAX {
        let features = match &request.asked.cursor {
            None => core.source.read(&set.name, &entities, &context)?,
            Some(cursor) => core
                .source
                .read_at(&set.name, &entities, &context, cursor)?,
        };
        let now = &features.catalog.model(&request.model.name)?.set;
        if now.name == set.name {
            return Ok(Some(Arc::new(Read {
                own: now.read_context(entities.len(), &context)?,
                features,
                entities,
                context,
            })));
        }
        // Another set is declared since the request came.
        set = now.clone();
    }
    Err(Problem::external(
        "definitions-changed",
        "definitions change faster than they are read",
    )
    .retryable())
}

/// What each input of rows added to each score.
pub(crate) fn explain(version: &Version, rows: Rows<'_>) -> Result<Vec<Explanation>, Problem> {
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
