//! Facts that their contract let go: a read that would need them is refused, whoever reads.

use headwater_schema::time::format_timestamp;
use headwater_schema::{Contract, Micros, Problem, Sequence};

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
    let kept = || {
        format!(
            "the view `{view}` reads `{}`, of which facts from {} on are kept",
            contract.name,
            format_timestamp(kept_from)
        )
    };
    match oldest {
        Some(oldest) if oldest >= kept_from => Ok(()),
        Some(_) => Err(Problem::user(
            PAST_RETENTION,
            "the moment lies before the facts that are kept",
        )
        .detail(kept())
        .hint("read a later moment; a longer `headwater.retention` keeps facts that are still there, and brings none back")),
        None => Err(Problem::user(
            PAST_RETENTION,
            "a feature over all time needs facts that are no longer kept",
        )
        .detail(kept())
        .hint("leave such features out (windows `lifetime`, latest values), or read them live, where states know them; an archive (`archive` in `headwater.yaml`) keeps facts that are still there")),
    }
}

/// Refuses a listing of a contract's facts up to event time `as_of` (none: all), as known at a sequence, where
/// facts that it would have told are gone: it would look as if there had been none.
pub fn refuse_before_kept(
    facts: &dyn FactLog,
    contract: &str,
    as_of: Option<Micros>,
    known_at: Sequence,
) -> Result<(), Problem> {
    let Some(newest_dropped) = facts.newest_dropped(contract) else {
        return Ok(());
    };
    let (first, last) = facts.sequences();
    let kept = if known_at < first.min(last) {
        format!("sequence {first}")
    } else if as_of.is_some_and(|as_of| as_of <= newest_dropped) {
        format_timestamp(newest_dropped.saturating_add(1))
    } else {
        return Ok(());
    };
    Err(Problem::user(
        PAST_RETENTION,
        "the moment lies before the facts that are kept",
    )
    .detail(format!("facts of `{contract}` from {kept} on are kept"))
    .hint("ask for a later moment; an archive (`archive` in `headwater.yaml`) keeps facts that are still there"))
}
