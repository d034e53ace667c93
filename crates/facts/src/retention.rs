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
    let (Some(retention), Some(newest)) = (contract.retention, facts.newest(&contract.name)) else {
        return Ok(());
    };
    let kept_from = newest.saturating_sub(retention.0);
    if facts.first_sequence() == 1 || oldest.is_some_and(|oldest| oldest >= kept_from) {
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
    .hint("read a later moment, or raise `headwater.retention` of the contract"))
}
