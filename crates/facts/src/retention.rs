//! Facts that their contract let go: a read that would need them is refused, whoever reads.

use headwater_schema::time::format_timestamp;
use headwater_schema::{Contract, Micros, Problem};

use crate::FactLog;

/// The code of a read that needs facts which are no longer kept.
pub const PAST_RETENTION: &str = "past-retention";

/// Refuses a read by `view` of a contract's facts from event time `oldest` on (none: all of them) where some of
/// those may be gone.
pub fn refuse_expired(
    facts: &dyn FactLog,
    contract: &Contract,
    view: &str,
    oldest: Option<Micros>,
) -> Result<(), Problem> {
    if facts.first_sequence() == 1 {
        return Ok(());
    }
    let promised = contract.retention.zip(facts.newest(&contract.name));
    let promised = promised.map(|(retention, newest)| newest.saturating_sub(retention.0));
    // Facts that went under a shorter retention don't come back when it is raised or taken away.
    let after_dropped = facts.newest_dropped(&contract.name);
    let after_dropped = after_dropped.map(|newest| newest.saturating_add(1));
    let Some(kept_from) = promised.max(after_dropped) else {
        return Ok(());
    };
    if oldest.is_some_and(|oldest| oldest >= kept_from) {
        return Ok(());
    }
    Err(Problem::user(
        PAST_RETENTION,
        "the moment lies before the facts that are kept",
    )
    .detail(format!(
        "the view `{view}` reads `{}`, of which facts from {} on are kept",
        contract.name,
        format_timestamp(kept_from)
    ))
    .hint("read a later moment; a longer `headwater.retention` keeps facts that are still there, and brings none back"))
}
