//! What has come in since the index was last written to the store, in memory.

use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use headwater_schema::{
    FactBatch, Position, Sequence, SequencedBatch, Value, push_int_value, push_str, push_value,
};

use super::{KnownId, spec_hash};
use crate::IndexSpec;

pub type IdChange = (u128, Option<KnownId>);

type Ids = HashMap<u128, Option<KnownId>, FixedState>;
/// The number of an index, and the bytes of a key.
pub(super) type EntityKeyBytes = (u64, Vec<u8>);
type Postings = HashMap<EntityKeyBytes, Vec<Position>, FixedState>;

/// [`EntityKeyBytes`], borrowed.
#[derive(Hash)]
struct EntityKeyRef<'a>(u64, &'a [u8]);

impl hashbrown::Equivalent<EntityKeyBytes> for EntityKeyRef<'_> {
    fn equivalent(&self, owned: &EntityKeyBytes) -> bool {
        self.0 == owned.0 && *self.1 == *owned.1
    }
}

/// Facts that are revised or retracted: their sequence, and the one from which they aren't seen.
pub(super) type Removal = (Sequence, Sequence);

#[derive(Default)]
pub(super) struct Gathered {
    pub ids: Ids,
    pub postings: Postings,
    /// By sequence.
    pub removed: HashMap<Sequence, Sequence, FixedState>,
    /// By entity, like postings.
    pub removals: HashMap<EntityKeyBytes, Vec<Removal>, FixedState>,
    pub facts: u64,
    /// Every fact up to here is in the store or in here.
    pub reached: Sequence,
}

impl Gathered {
    pub fn clear(&mut self) {
        self.ids.clear();
        self.postings.clear();
        self.removed.clear();
        self.removals.clear();
        self.facts = 0;
    }

    pub fn add_batch(&mut self, spec: &IndexSpec, batch: &SequencedBatch) {
        each_key(spec, &batch.batch, |row, key| {
            let sequence = batch.first_sequence + row as u64;
            let position = Position::new(batch.batch.event_times[row], sequence);
            push(&mut self.postings, key, position);
        });
        for removed in &batch.removed {
            each_key(spec, &removed.facts, |row, key| {
                let removal = (removed.sequences[row], removed.removed_at[row]);
                push(&mut self.removals, key, removal);
            });
        }
    }
}

fn push<T>(
    lists: &mut HashMap<EntityKeyBytes, Vec<T>, FixedState>,
    key: &EntityKeyRef<'_>,
    item: T,
) {
    match lists.get_mut(key) {
        Some(list) => list.push(item),
        None => drop(lists.insert((key.0, key.1.to_vec()), vec![item])),
    }
}

/// Shows the key of every fact that has no null among the index's columns.
fn each_key(spec: &IndexSpec, facts: &FactBatch, mut visit: impl FnMut(usize, &EntityKeyRef<'_>)) {
    let columns: Option<Vec<&dyn Array>> = spec
        .key_columns
        .iter()
        .map(|name| facts.columns.column_by_name(name).map(AsRef::as_ref))
        .collect();
    // Facts stored before the contract had one of the columns have null there.
    let Some(columns) = columns else { return };
    let hash = spec_hash(spec);
    let mut key = Vec::with_capacity(32);
    for row in 0..facts.len() {
        key.clear();
        if columns.iter().all(|c| push_key(&mut key, *c, row)) {
            visit(row, &EntityKeyRef(hash, &key));
        }
    }
}

/// Appends the bytes of one key value; false where it is null.
fn push_key(key: &mut Vec<u8>, column: &dyn Array, row: usize) -> bool {
    if column.is_null(row) {
        return false;
    }
    if let Some(texts) = column.as_string_opt::<i32>() {
        push_str(key, texts.value(row));
    } else if let Some(numbers) = column.as_primitive_opt::<Int64Type>() {
        push_int_value(key, numbers.value(row));
    } else {
        return push_value(key, &Value::from_array(column, row)).is_some();
    }
    true
}
