//! Counting distinct values: exact up to a bound, estimated above it, and always a function of the
//! set of values alone.
//!
//! The state is the `k + 1` smallest 64-bit hashes seen. With at most `k` of them the count is
//! theirs; with more, the `k + 1`-th smallest hash `h` says how dense the hashes lie and the count is
//! about `k · 2^64 / h`, with a relative standard error of `1 / √(k − 1)` (Bar-Yossef et al.,
//! "Counting distinct elements in a data stream", 2002). Merging is the union of two sorted lists.

use headwater_schema::Value;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The smallest hashes of a set, ascending.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BottomK {
    hashes: Vec<u64>,
}

impl BottomK {
    pub fn insert(&mut self, hash: u64, k: usize) {
        if self.hashes.len() > k && self.hashes.last().is_some_and(|last| hash >= *last) {
            return;
        }
        if let Err(at) = self.hashes.binary_search(&hash) {
            self.hashes.insert(at, hash);
            self.hashes.truncate(k + 1);
        }
    }

    pub fn merge(&mut self, other: &Self, k: usize) {
        if self.hashes.is_empty() {
            self.hashes.clone_from(&other.hashes);
            return;
        }
        let mut merged = Vec::with_capacity((self.hashes.len() + other.hashes.len()).min(k + 1));
        let (mut left, mut right) = (self.hashes.as_slice(), other.hashes.as_slice());
        while merged.len() <= k {
            let next = match (left.first(), right.first()) {
                (Some(a), Some(b)) => *a.min(b),
                (Some(a), None) => *a,
                (None, Some(b)) => *b,
                (None, None) => break,
            };
            left = if left.first() == Some(&next) {
                &left[1..]
            } else {
                left
            };
            right = if right.first() == Some(&next) {
                &right[1..]
            } else {
                right
            };
            merged.push(next);
        }
        self.hashes = merged;
    }

    /// How many distinct values there are.
    pub fn count(&self, k: usize) -> u64 {
        match self.hashes.last() {
            Some(last) if self.hashes.len() > k => {
                let scaled = ((k as u128) << 64) / u128::from(*last).max(1);
                u64::try_from(scaled).unwrap_or(u64::MAX)
            }
            _ => self.hashes.len() as u64,
        }
    }

    pub fn hashes(&self) -> &[u64] {
        &self.hashes
    }

    /// A state from hashes that [`BottomK::hashes`] gave.
    pub fn from_hashes(mut hashes: Vec<u64>) -> Self {
        hashes.sort_unstable();
        hashes.dedup();
        Self { hashes }
    }
}

/// The hash of a value. Stored in states: a change of it needs a new state format.
pub fn hash_value(value: &Value) -> u64 {
    match value {
        Value::Null => 0,
        Value::Bool(v) => xxh3_64_with_seed(&[u8::from(*v)], 1),
        Value::Int(v) => hash_int(*v),
        Value::Float(v) => hash_float(*v),
        Value::Timestamp(v) => xxh3_64_with_seed(&v.to_le_bytes(), 5),
        Value::Date(v) => xxh3_64_with_seed(&v.to_le_bytes(), 6),
        Value::String(v) => hash_str(v),
        Value::Bytes(v) => xxh3_64_with_seed(v, 8),
        nested => {
            let mut bytes = Vec::new();
            headwater_schema::codec::encode_value(&mut bytes, nested);
            xxh3_64_with_seed(&bytes, 9)
        }
    }
}

/// [`hash_value`] of an integer.
pub fn hash_int(value: i64) -> u64 {
    xxh3_64_with_seed(&value.to_le_bytes(), 2)
}

/// [`hash_value`] of a float; −0.0 hashes as 0.0.
pub fn hash_float(value: f64) -> u64 {
    xxh3_64_with_seed(&(value + 0.0).to_bits().to_le_bytes(), 3)
}

/// [`hash_value`] of a string.
pub fn hash_str(value: &str) -> u64 {
    xxh3_64_with_seed(value.as_bytes(), 7)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_up_to_k_and_close_above() {
        let k = 1024;
        for n in [0u64, 1, 1000, 1024, 1025, 50_000] {
            let mut whole = BottomK::default();
            let (mut even, mut odd) = (BottomK::default(), BottomK::default());
            for i in 0..n {
                let hash = hash_value(&Value::Int(i as i64));
                whole.insert(hash, k);
                if i % 2 == 0 { &mut even } else { &mut odd }.insert(hash, k);
            }
            even.merge(&odd, k);
            assert_eq!(whole, even);
            let count = whole.count(k);
            if n <= 1024 {
                assert_eq!(count, n);
            } else {
                let error = (count as f64 - n as f64).abs() / n as f64;
                assert!(error < 5.0 / (k as f64).sqrt(), "{n} counted as {count}");
            }
        }
    }
}
