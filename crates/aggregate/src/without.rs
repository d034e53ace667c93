//! A fact taken out of a partial aggregate of facts that aren't all there any more: some of what was aggregated is kept and can
//! be read again, the rest is gone.
//!
//! Counts and sums are subtracted. A choice, such as a least value or the newest values, stays where the fact had no part in it
//! or what is kept decides it. Whatever else nothing can tell any more is a [`Doubt`], and a read that it touches is refused.

use headwater_schema::{Position, Sequence, Value};

use crate::decayed::Decayed;
use crate::ordered::Placed;
use crate::partial::{Partial, PartialData, ranking};
use crate::parts::Groups;
use crate::{Slot, SlotKind};

/// What is known of the facts that a partial aggregate was made of.
pub struct Known<'a> {
    /// The aggregate of those that are kept, the one that is taken out among them, and without it.
    pub kept: &'a Partial,
    pub left: &'a Partial,
    /// The aggregate of the one that is taken out, and its place.
    pub fact: &'a Partial,
    pub position: Position,
    /// Facts that are gone have smaller sequences.
    pub kept_from: Sequence,
}

/// What a partial aggregate lacks: facts at or before a position may be missing from it, or from that of one
/// category. [`Position::MAX`]: nothing of it can be told.
#[derive(Debug, Clone, PartialEq)]
pub struct Doubt {
    pub category: Option<Value>,
    pub position: Position,
}

impl Doubt {
    pub const ALL: Self = Self {
        category: None,
        position: Position::MAX,
    };

    fn below(position: Position) -> Vec<Self> {
        vec![Self {
            category: None,
            position,
        }]
    }

    /// Whether other facts that were merged into `partial` make it right all the same.
    pub fn is_settled(&self, slot: &Slot, partial: &Partial) -> bool {
        if self.position == Position::MAX {
            return false;
        }
        let inner = slot.inner();
        let (slot, partial) = match (&self.category, &partial.data) {
            (None, _) => (slot, partial),
            (Some(_), PartialData::Groups(groups)) if groups.overflowed => return true,
            (Some(category), PartialData::Groups(groups)) => match groups.partials.get(category) {
                Some(partial) => (&inner, partial),
                None => return false,
            },
            _ => return false,
        };
        let full = |list: &[Placed], n: usize| {
            list.len() == n && list.last().is_some_and(|(p, _)| *p >= self.position)
        };
        match (&partial.data, slot.kind) {
            (PartialData::Last(list), SlotKind::Last { n, .. })
            | (PartialData::LastDistinct(list), SlotKind::LastDistinct { n }) => full(list, n),
            _ => partial.newest >= self.position.event_time,
        }
    }
}

/// `whole` without the fact, and what can't be told of it.
pub fn without(slot: &Slot, whole: &Partial, known: &Known<'_>) -> (Partial, Vec<Doubt>) {
    if known.fact.count == 0 {
        return (whole.clone(), Vec::new());
    }
    if whole.count == known.kept.count {
        // Nothing that counted is gone.
        return (known.left.clone(), Vec::new());
    }
    let mut rest = whole.clone();
    rest.count = whole.count.saturating_sub(known.fact.count);
    let mut doubts = Vec::new();
    if known.position.event_time >= whole.newest && known.left.newest < whole.newest {
        rest.newest = known.left.newest;
        doubts = Doubt::below(known.position);
    }
    let more = match (&mut rest.data, &known.fact.data) {
        (PartialData::Groups(groups), PartialData::Groups(fact)) => {
            without_categories(slot, groups, fact, known)
        }
        _ if slot.is_grouped() => vec![Doubt::ALL],
        (PartialData::Places(_), _) => vec![Doubt::ALL],
        _ => without_value(slot.kind, whole, &mut rest, known),
    };
    doubts.extend(more);
    (rest, doubts)
}

/// Takes a fact's categories, or keys, out of `groups`, each by itself.
fn without_categories(
    slot: &Slot,
    groups: &mut Groups,
    fact: &Groups,
    known: &Known<'_>,
) -> Vec<Doubt> {
    let (PartialData::Groups(kept), PartialData::Groups(left)) =
        (&known.kept.data, &known.left.data)
    else {
        return vec![Doubt::ALL];
    };
    if groups.overflowed {
        return match left.overflowed {
            true => Vec::new(),
            false => vec![Doubt::ALL],
        };
    }
    let inner = slot.inner();
    let (mut doubts, nothing) = (Vec::new(), Partial::empty(&inner));
    for (category, fact) in &fact.partials {
        let Some(whole) = groups.partials.get(category) else {
            return vec![Doubt::ALL];
        };
        let of = |groups: &'_ Groups| groups.partials.get(category).unwrap_or(&nothing).clone();
        let known = Known {
            kept: &of(kept),
            left: &of(left),
            fact,
            ..*known
        };
        let (rest, more) = without(&inner, whole, &known);
        doubts.extend(more.into_iter().map(|doubt| match doubt.position {
            Position::MAX => Doubt::ALL,
            position => Doubt {
                category: Some(category.clone()),
                position,
            },
        }));
        match rest.count {
            0 => groups.partials.remove(category),
            _ => groups.partials.insert(category.clone(), rest),
        };
    }
    doubts
}

fn without_value(
    kind: SlotKind,
    whole: &Partial,
    rest: &mut Partial,
    known: &Known<'_>,
) -> Vec<Doubt> {
    let left = &known.left.data;
    let doubtful = |sure: bool| match sure {
        true => Vec::new(),
        false => vec![Doubt::ALL],
    };
    match (&mut rest.data, &known.fact.data) {
        (PartialData::Count, _) => Vec::new(),
        (PartialData::Moments(sums), PartialData::Moments(fact)) => {
            let pairs = sums.iter_mut().zip(fact);
            pairs.for_each(|(sum, fact)| sum.subtract(fact));
            Vec::new()
        }
        (PartialData::First(list), _) => {
            let had = take_out(list, known.position);
            let short = list.len() as u64 == rest.count;
            match (had, short) {
                (false, _) | (true, true) => Vec::new(),
                (true, false) => doubtful(all_listed(kind, whole, list, known, left)),
            }
        }
        (PartialData::Last(list), _) => {
            let end = list.last().map_or(Position::MAX, |(p, _)| *p);
            let had = take_out(list, known.position);
            if !had || list.len() as u64 == rest.count {
                return Vec::new();
            }
            match all_listed(kind, whole, list, known, left) {
                true => Vec::new(),
                false => Doubt::below(end),
            }
        }
        (PartialData::LastDistinct(list), _) => match take_out(list, known.position) {
            false => Vec::new(),
            true => Doubt::below(known.position),
        },
        (PartialData::Histogram(counts), PartialData::Histogram(fact)) => {
            if counts.overflowed || fact.overflowed {
                let over = matches!(left, PartialData::Histogram(left) if left.overflowed);
                return doubtful(over);
            }
            fact.counts
                .iter()
                .for_each(|(value, count)| counts.take_away(value, *count));
            Vec::new()
        }
        (PartialData::Quantile(samples), PartialData::Quantile(fact)) => {
            let exact_up_to = match kind {
                SlotKind::Quantile { exact_up_to } => exact_up_to as u64,
                _ => 0,
            };
            doubtful(samples.take_away(fact, rest.count > exact_up_to))
        }
        (PartialData::Decayed(sums), PartialData::Decayed(fact)) => {
            let newest = match left {
                PartialData::Decayed(left) => newest_cell(left),
                _ => None,
            };
            let sure = newest_cell(sums) != newest_cell(fact) || newest == newest_cell(fact);
            sums.take_away(fact);
            doubtful(sure)
        }
        (chosen, fact) => doubtful(stays(kind, whole, chosen, fact, known)),
    }
}

fn newest_cell(sums: &Decayed) -> Option<i64> {
    sums.cells.last().map(|cell| cell.number)
}

/// Takes the values of one fact out of a list; whether there were any.
fn take_out(list: &mut Vec<Placed>, position: Position) -> bool {
    let before = list.len();
    list.retain(|(p, _)| *p != position);
    list.len() < before
}

/// Whether all that is gone stands in the list; then those that are kept complete it.
fn all_listed(
    kind: SlotKind,
    whole: &Partial,
    list: &mut Vec<Placed>,
    known: &Known<'_>,
    left: &PartialData,
) -> bool {
    let gone = whole.count.saturating_sub(known.kept.count);
    let listed = list.iter().filter(|(p, _)| p.sequence < known.kept_from);
    if listed.count() as u64 != gone {
        return false;
    }
    list.retain(|(p, _)| p.sequence < known.kept_from);
    let mut data = match kind {
        SlotKind::First { .. } => PartialData::First(std::mem::take(list)),
        _ => PartialData::Last(std::mem::take(list)),
    };
    data.merge(kind, left);
    if let PartialData::First(all) | PartialData::Last(all) = data {
        *list = all;
    }
    true
}

/// Whether a choice of one or some values is the same without the fact, which is then left as it is; a list of all values
/// loses those of the fact.
fn stays(
    kind: SlotKind,
    whole: &Partial,
    chosen: &mut PartialData,
    fact: &PartialData,
    known: &Known<'_>,
) -> bool {
    let decided = known.kept.data.chooses_as(&known.left.data);
    match (chosen, fact) {
        (PartialData::Min(kept), PartialData::Min(of))
        | (PartialData::Max(kept), PartialData::Max(of)) => kept != of || decided,
        (PartialData::Chosen(kept), _) => {
            let of_fact = |c: &crate::ordered::Chosen| c.position == known.position;
            !kept.as_deref().is_some_and(of_fact)
        }
        (PartialData::Distinct(sketch), PartialData::Distinct(of)) => {
            let left = match &known.left.data {
                PartialData::Distinct(left) => left.hashes(),
                _ => &[],
            };
            let mut hashes = of.hashes().iter();
            hashes.all(|h| !sketch.hashes().contains(h) || left.contains(h))
        }
        (PartialData::Ranked(list), PartialData::Ranked(of)) => {
            let Some((n, order)) = ranking(kind) else {
                return false;
            };
            if list.len() as u64 == whole.count {
                for value in of {
                    if let Some(at) = list.iter().position(|v| v == value) {
                        list.remove(at);
                    }
                }
                return true;
            }
            let worse = |v: &Value| list.last().is_some_and(|last| order(last, v).is_lt());
            decided || (list.len() == n && of.iter().all(worse))
        }
        _ => false,
    }
}
