//! Reads behind a state's memory: the facts of one entity are read again from the fact store and
//! aggregated by the same code.

use std::sync::Arc;

use headwater_aggregate::{EntityState, InputBatch};
use headwater_facts::{FactLog, Lookup};
use headwater_features::{CompiledView, PreparedFacts, prepare};
use headwater_schema::{Contract, Cursor, EntityKey, FactBatch, Position, Problem, evolve};

/// The state of one entity made from everything that the fact store knows of it at `cursor`; none
/// where that is nothing.
pub(crate) fn rebuild(
    facts: &dyn FactLog,
    view: &CompiledView,
    contract: impl Fn(&str) -> Option<Arc<Contract>>,
    key: &EntityKey,
    cursor: &Cursor,
) -> Result<Option<EntityState>, Problem> {
    let mut prepared: Vec<PreparedFacts> = Vec::new();
    for source in &view.sources {
        let contract = contract(&source.contract).ok_or_else(|| {
            Problem::internal("unknown-contract", "a view's contract is gone")
                .detail(&source.contract)
        })?;
        let found = facts.lookup(&Lookup {
            contract: source.contract.clone(),
            key_columns: source.key_columns.clone(),
            key: key.clone(),
            from: Position::MIN,
            until: cursor.until,
            known_at: cursor.known_at,
            newest: None,
        })?;
        for run in found.runs {
            let batch = FactBatch {
                contract: source.contract.clone(),
                columns: evolve::project(&run.columns, &contract)?,
                event_times: run.event_times,
                fact_ids: None,
                unknown_fields: None,
            };
            prepared.push(prepare(source, &batch, &run.sequences)?);
        }
    }
    Ok(state_of(view, &prepared))
}

/// A state of facts of one entity, taken in the order of their sequences whatever run they are in.
fn state_of(view: &CompiledView, prepared: &[PreparedFacts]) -> Option<EntityState> {
    let rows = |facts: &InputBatch| facts.sequences.clone();
    let mut order: Vec<(u64, usize, usize)> = prepared
        .iter()
        .enumerate()
        .flat_map(|(run, facts)| {
            let sequences = rows(&facts.rows).into_iter().enumerate();
            sequences.map(move |(row, sequence)| (sequence, run, row))
        })
        .collect();
    order.sort_unstable();
    let mut state = EntityState::new(&view.layout);
    for (_, run, row) in &order {
        state.insert(&view.layout, &prepared[*run].rows, *row);
    }
    (!order.is_empty()).then_some(state)
}
