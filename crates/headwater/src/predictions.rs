//! A model's predictions in the order in which they were written, from the log: for whoever hears of them.

use std::sync::Arc;

use arrow::array::{Array, StringArray};
use headwater_api::PredictionPage;
use headwater_api::backend::FactRow;
use headwater_facts::{FactLog, Wanted, refuse_before_kept};
use headwater_features::{Catalog, PREDICTION};
use headwater_schema::{Micros, Problem, Sequence, Value, evolve};

/// Reads some of a model's predictions that were written after a sequence, `until` another; the page says from where
/// to go on.
pub(crate) fn read_predictions(
    facts: &dyn FactLog,
    catalog: &Catalog,
    model: &str,
    (after, until): (Sequence, Sequence),
    facts_max: usize,
) -> Result<PredictionPage, Problem> {
    let model = catalog.model(model)?.name.clone();
    let contract = catalog.contract(PREDICTION).cloned().ok_or_else(|| {
        Problem::internal("built-in-contract", "there is no contract of predictions")
    })?;
    if after > until {
        return Err(
            Problem::user("unknown-sequence", "the sequence lies in the future")
                .detail(format!("{after} is asked for, {until} is the newest"))
                .hint("use the id of an event, or a `sequence` that a reply gave"),
        );
    }
    refuse_before_kept(facts, PREDICTION, None, after)?;
    let mut page = PredictionPage {
        rows: Vec::new(),
        next: after,
    };
    if after == until {
        return Ok(page);
    }
    let wanted = Wanted {
        contract: contract.name.clone(),
        time_min: Micros::MIN,
        time_max: Micros::MAX,
        until,
    };
    let (batches, next) = facts.read_of(&wanted, after + 1, facts_max)?;
    page.next = next.saturating_sub(1).clamp(after, until);
    for batch in batches {
        if batch.batch.contract != contract.name || batch.batch.is_empty() {
            continue;
        }
        let columns = evolve::project(&batch.batch.columns, &contract)?;
        let models = contract.field_index("model").map(|at| columns.column(at));
        let models = models.and_then(|m| m.as_any().downcast_ref::<StringArray>());
        let ids = batch.batch.fact_ids.as_ref();
        for row in 0..batch.batch.len() {
            let sequence = batch.first_sequence + row as Sequence;
            let of_model = models.is_some_and(|m| m.is_valid(row) && *m.value(row) == *model);
            if !of_model || sequence <= after || sequence > page.next {
                continue;
            }
            let fields = contract.fields.iter().zip(columns.columns());
            let values = fields.map(|(f, c)| (Arc::clone(&f.name), Value::from_array(c, row)));
            page.rows.push(FactRow {
                fact_id: match ids.filter(|ids| ids.is_valid(row)) {
                    Some(ids) => ids.value(row).to_owned(),
                    None => sequence.to_string(),
                },
                event_time: batch.batch.event_times[row],
                ingest_time: batch.ingest_time,
                sequence,
                values: values.collect(),
            });
        }
    }
    Ok(page)
}
