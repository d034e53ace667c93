//! Keys of entities as numbers, in the order in which they were first met.

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

/// About how many bytes an entity takes beside its key.
const ENTITY_BYTES: usize = 16;

/// The keys lie one after another: finding one touches little memory.
#[derive(Default)]
pub(super) struct Entities {
    numbers: HashTable<u32>,
    keys: Keys,
}

#[derive(Default)]
struct Keys {
    bytes: Vec<u8>,
    /// Where each key ends in `bytes`.
    ends: Vec<usize>,
}

impl Keys {
    fn get(&self, number: u32) -> &[u8] {
        let number = number as usize;
        let start = number.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..self.ends[number]]
    }
}

impl Entities {
    pub(super) fn len(&self) -> usize {
        self.keys.ends.len()
    }

    /// About how many bytes of memory they take.
    pub(super) fn bytes(&self) -> usize {
        self.keys.bytes.len() + self.len() * ENTITY_BYTES
    }

    pub(super) fn key(&self, number: u32) -> &[u8] {
        self.keys.get(number)
    }

    /// The number of an entity that was met.
    pub(super) fn get(&self, key: &[u8]) -> Option<u32> {
        let same = |number: &u32| self.keys.get(*number) == key;
        self.numbers.find(xxh3_64(key), same).copied()
    }

    /// The number of an entity, which is met now if it wasn't before.
    pub(super) fn meet(&mut self, key: &[u8]) -> u32 {
        if let Some(number) = self.get(key) {
            return number;
        }
        let number = self.len() as u32;
        self.keys.bytes.extend_from_slice(key);
        self.keys.ends.push(self.keys.bytes.len());
        let keys = &self.keys;
        let hash = |number: &u32| xxh3_64(keys.get(*number));
        self.numbers.insert_unique(xxh3_64(key), number, hash);
        number
    }
}
