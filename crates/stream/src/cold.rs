//! Reads behind a state's memory: the facts of one entity are read again from the fact store and
//! aggregated by the same code.

use headwater_aggregate::{EntityState, InputBatch};
use headwater_facts::{FactLog, Lookup, refuse_expired};
use headwater_features::{CompiledView, PreparedFacts, SourceRows, prepare_rows};
use headwater_schema::{Contract, Cursor, EntityKey, Micros, Position, Problem};

use crate::in_force::ServedView;

/// How many times as many of the newest facts are looked at next, where none of those before counts.
const FURTHER_BACK: usize = 16;

/// Makes the rows of a view's source, by its index, from facts of its contract.
pub(crate) type RowsOf<'a> = dyn Fn(usize, SourceRows) -> Result<SourceRows, Problem> + 'a;

/// Which of an entity's facts a read needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    All,
    /// Those from an event time on.
    From(Micros),
    /// The newest of each source.
    Newest,
}

impl Reach {
    /// The oldest event time at which a fact may be needed; none: any.
    pub fn oldest(self) -> Option<Micros> {
        match self {
            Self::From(oldest) => Some(oldest),
            Self::All | Self::Newest => None,
        }
    }
}

/// The state of one entity made from what the fact store knows of it at `cursor`, as far as a read needs it;
/// none where it knows nothing. `rows_of` makes rows of one of the view's sources from facts of its contract.
pub(crate) fn rebuild(
    facts: &dyn FactLog,
    served: &ServedView,
    rows_of: &RowsOf<'_>,
    key: &EntityKey,
    cursor: &Cursor,
    reach: Reach,
) -> Result<Option<EntityState>, Problem> {
    let view = &served.view;
    let mut prepared: Vec<PreparedFacts> = Vec::new();
    for (index, source) in view.sources.iter().enumerate() {
        let contract = served.contract(&source.contract).ok_or_else(|| {
            Problem::internal("unknown-contract", "a view's contract is gone")
                .detail(&source.contract)
        })?;
        // What counts of the facts that are found, and how many they are.
        let read = |from, newest| {
            let lookup = Lookup {
                contract: source.contract.clone(),
                key_columns: source.key_columns.clone(),
                key: key.clone(),
                from,
                until: cursor.until,
                known_at: cursor.known_at,
                newest,
            };
            let rows = read(facts, &contract, &lookup)?;
            let count = rows.sequences.len();
            Ok::<_, Problem>((prepare_rows(source, rows_of(index, rows)?)?, count))
        };
        let from = reach.oldest().map_or(Position::MIN, Position::before);
        let newest = (reach == Reach::Newest).then_some(1);
        let (mut counting, _) = read(from, newest)?;
        // Nothing in the windows: whether the entity was ever seen still counts, and one fact tells it. The newest may be
        // among those that the source's `where` leaves out.
        let mut most = 1;
        while reach.oldest().is_some() && counting.is_empty() {
            let (older, count) = read(Position::MIN, Some(most))?;
            if count < most && older.is_empty() {
                break;
            }
            counting = older;
            most = most.saturating_mul(FURTHER_BACK);
        }
        prepared.push(counting);
    }
    Ok(state_of(view, &prepared))
}

/// Refuses a read of a view from event time `oldest` on (none: of all time) where facts that it needs are gone.
pub(crate) fn refuse_gone(
    facts: &dyn FactLog,
    served: &ServedView,
    oldest: Option<Micros>,
) -> Result<(), Problem> {
    let mut contracts = served.contracts();
    contracts.try_for_each(|contract| refuse_expired(facts, contract, &served.view.name, oldest))
}

/// The facts of a lookup in one piece, with the columns of the contract.
pub(crate) fn read(
    facts: &dyn FactLog,
    contract: &Contract,
    lookup: &Lookup,
) -> Result<SourceRows, Problem> {
    let found = facts.lookup(lookup)?.under(contract)?;
    Ok(SourceRows {
        columns: found.columns,
        event_times: found.event_times,
        sequences: found.sequences,
    })
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
