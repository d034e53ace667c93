//! The facts of few entities, looked up rather than picked out of all facts.

use headwater_facts::{IndexSpec, Lookup};
use headwater_features::{CompiledView, PreparedFacts, SourceRows, prepare_rows};
use headwater_schema::{EntityKey, Position, Problem, Sequence};

use super::Sweep;

/// Entities whose facts are looked up one by one.
pub(crate) const ENTITIES_MAX: usize = 64;
/// Facts, of all these entities together, that are found one by one more quickly than by going through all.
const FACTS_MAX: usize = 16_384;

/// Entities, and which of their facts to find.
pub(crate) struct Few {
    pub keys: Vec<EntityKey>,
    /// The first place of the total order that counts: what lies before what all windows reach back to isn't looked for.
    pub from: Position,
    /// The first place that is left out.
    pub until: Position,
    /// Facts that don't count here are left out, too.
    pub known_at: Sequence,
}

impl Sweep<'_> {
    /// The facts of a view's sources that are of a few entities; none where that isn't known without going through all.
    pub(crate) fn facts_of_few(
        &self,
        view: &CompiledView,
        few: &Few,
    ) -> Result<Option<Vec<PreparedFacts>>, Problem> {
        let indexed = view.sources.iter().all(|source| {
            self.facts.is_indexed(&IndexSpec {
                contract: source.contract.clone(),
                key_columns: source.key_columns.clone(),
            })
        });
        if view.is_chained() || few.keys.len() > ENTITIES_MAX || !indexed {
            return Ok(None);
        }
        let (mut prepared, mut left) = (Vec::new(), FACTS_MAX);
        for source in &view.sources {
            let contract = self.contract(&source.contract)?;
            for key in &few.keys {
                let found = self.facts.lookup(&Lookup {
                    contract: source.contract.clone(),
                    key_columns: source.key_columns.clone(),
                    key: key.clone(),
                    from: few.from,
                    until: few.until,
                    known_at: few.known_at,
                    newest: Some(left + 1),
                })?;
                let Some(fewer) = left.checked_sub(found.order.len()) else {
                    return Ok(None);
                };
                left = fewer;
                let found = found.under(&contract)?;
                prepared.push(prepare_rows(
                    source,
                    SourceRows {
                        columns: found.columns,
                        event_times: found.event_times,
                        sequences: found.sequences,
                    },
                )?);
            }
        }
        Ok(Some(prepared))
    }
}
