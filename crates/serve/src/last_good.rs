//! The last good answers of a model, by what was asked: a fallback for when it can't answer.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use headwater_features::{ContextRow, EntityRequest};
use headwater_schema::Micros;
use xxhash_rust::xxh3::xxh3_128;

use crate::OutputRow;

/// A bounded memory of answers; the ones that were kept longest go first.
pub(crate) struct LastGood {
    most: usize,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    answers: HashMap<u128, Answer>,
    /// Which was kept when.
    order: BTreeMap<u64, u128>,
    next: u64,
}

struct Answer {
    place: u64,
    time: Micros,
    outputs: OutputRow,
}

/// What answers are kept under, row by row: all that was asked, the entities and the request's own fields.
pub(crate) fn row_keys(
    entities: &[EntityRequest],
    context: &[ContextRow],
) -> impl Iterator<Item = u128> {
    let rows = entities.iter().enumerate();
    rows.map(move |(row, entities)| {
        let own = context.get(row);
        xxh3_128(format!("{entities:?} {own:?}").as_bytes())
    })
}

impl LastGood {
    pub fn new(most: usize) -> Self {
        Self {
            most,
            kept: Mutex::default(),
        }
    }

    pub fn keep(&self, key: u128, time: Micros, outputs: &OutputRow) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let place = kept.next;
        kept.next += 1;
        let answer = Answer {
            place,
            time,
            outputs: outputs.clone(),
        };
        if let Some(before) = kept.answers.insert(key, answer) {
            kept.order.remove(&before.place);
        }
        kept.order.insert(place, key);
        while kept.order.len() > self.most {
            if let Some((_, oldest)) = kept.order.pop_first() {
                kept.answers.remove(&oldest);
            }
        }
    }

    /// The answer under a key, where it isn't from before `since`.
    pub fn get(&self, key: u128, since: Micros) -> Option<OutputRow> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = kept.answers.get(&key)?;
        (answer.time >= since).then(|| answer.outputs.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_answers_are_kept() {
        let memory = LastGood::new(2);
        let outputs = |value: f64| vec![("score".into(), vec![value])];
        memory.keep(1, 10, &outputs(1.0));
        memory.keep(2, 20, &outputs(2.0));
        memory.keep(1, 30, &outputs(3.0));
        memory.keep(3, 40, &outputs(4.0));
        assert_eq!(memory.get(2, 0), None);
        assert_eq!(memory.get(1, 30), Some(outputs(3.0)));
        assert_eq!(memory.get(1, 31), None);
        assert_eq!(memory.get(3, 0), Some(outputs(4.0)));
    }
}
