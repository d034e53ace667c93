//! Facts picked out of a log with their places in it, to be kept somewhere else.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{Array, StringArray};
use arrow::compute::concat_batches;
use headwater_schema::{FactBatch, Micros, Problem, Sequence};

use crate::FactLog;
use crate::found::{missing, take};

/// Facts of one contract, stored with the same columns, each with its place in the log.
#[derive(Debug, Clone)]
pub struct KeptFacts {
    pub facts: FactBatch,
    /// Ascending; one per fact.
    pub sequences: Vec<Sequence>,
    /// When the log took each of them.
    pub ingest_times: Vec<Micros>,
}

/// What another log knew of some entities, for a log that goes on from there.
#[derive(Debug, Clone, Default)]
pub struct Restored {
    /// Live facts; each sequence once.
    pub facts: Vec<KeptFacts>,
    /// The oldest sequence that the other log kept, and its last.
    pub sequences: (Sequence, Sequence),
    /// The newest event time that it let go, by contract.
    pub dropped: BTreeMap<String, Micros>,
    /// When it was asked: later facts count as arrived no earlier.
    pub ingest_time: Micros,
}

/// The facts that have these sequences, each as it was stored. Refuses a sequence that no fact has.
pub fn facts_at(
    log: &dyn FactLog,
    sequences: &BTreeSet<Sequence>,
) -> Result<Vec<KeptFacts>, Problem> {
    let mut runs: Vec<Vec<KeptFacts>> = Vec::new();
    let mut wanted = sequences.iter().copied().peekable();
    while let Some(next) = wanted.peek().copied() {
        let batches = log.read(next, 1)?.into_iter();
        let holds = batches.filter(|b| b.first_sequence <= next && next <= b.last_sequence());
        let batch = holds.last().ok_or_else(|| missing(next))?;
        let (mut rows, mut taken) = (Vec::new(), Vec::new());
        while let Some(sequence) = wanted.next_if(|s| *s <= batch.last_sequence()) {
            let row = sequence - batch.first_sequence;
            if row >= batch.batch.len() as u64 {
                return Err(missing(sequence));
            }
            rows.push(row as u32);
            taken.push(sequence);
        }
        let kept = KeptFacts {
            facts: take(&batch.batch, &rows)?,
            ingest_times: vec![batch.ingest_time; taken.len()],
            sequences: taken,
        };
        match runs.iter_mut().find(|run| alike(&run[0], &kept)) {
            Some(run) => run.push(kept),
            None => runs.push(vec![kept]),
        }
    }
    runs.into_iter().map(joined).collect()
}

/// Whether facts can lie in the same columns.
fn alike(a: &KeptFacts, b: &KeptFacts) -> bool {
    let (a, b) = (&a.facts, &b.facts);
    a.contract == b.contract
        && a.columns.schema_ref().fields() == b.columns.schema_ref().fields()
        && a.fact_ids.is_some() == b.fact_ids.is_some()
}

fn joined(run: Vec<KeptFacts>) -> Result<KeptFacts, Problem> {
    let schema = run[0].facts.columns.schema();
    let columns = concat_batches(&schema, run.iter().map(|kept| &kept.facts.columns));
    let columns =
        columns.map_err(|e| Problem::internal("take-rows", "facts don't join").detail(e))?;
    let texts = |of: fn(&FactBatch) -> Option<&StringArray>| -> Option<StringArray> {
        run.iter().any(|kept| of(&kept.facts).is_some()).then(|| {
            let each = run.iter().flat_map(|kept| {
                let texts = of(&kept.facts);
                let text = move |row: usize| {
                    let texts = texts.filter(|texts| texts.is_valid(row))?;
                    Some(texts.value(row).to_owned())
                };
                (0..kept.facts.len()).map(text)
            });
            each.collect()
        })
    };
    Ok(KeptFacts {
        facts: FactBatch {
            contract: run[0].facts.contract.clone(),
            fact_ids: texts(|facts| facts.fact_ids.as_ref()),
            unknown_fields: texts(|facts| facts.unknown_fields.as_ref()),
            event_times: run
                .iter()
                .flat_map(|k| k.facts.event_times.clone())
                .collect(),
            columns,
        },
        sequences: run.iter().flat_map(|k| k.sequences.clone()).collect(),
        ingest_times: run.iter().flat_map(|k| k.ingest_times.clone()).collect(),
    })
}
