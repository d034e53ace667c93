//! Mutations of valid documents: bits, bytes, words and numbers of the format, cuts and splices.

use headwater_env::{Random, SeededRandom};

/// Integers that sit at the edges of lengths and types.
const EDGES: [u64; 12] = [
    0,
    1,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0xFFFF,
    0x7FFF_FFFF,
    0xFFFF_FFFF,
    1 << 32,
    i64::MAX as u64,
    u64::MAX,
];
/// Numbers as text, at the edges too.
const NUMBERS: [&str; 10] = [
    "0",
    "-1",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551616",
    "1e308",
    "1e-400",
    "-0.0",
    "0.1234567890123456789012345678901234567890",
    "99999999999999999999999999999999999999999",
];
/// An input grows to at most this many times its seed, and this many bytes more.
const GROWTH_BYTES_MAX: usize = 4096;

/// Makes inputs of a target, the same ones for the same seed.
pub struct Mutator<'a> {
    random: SeededRandom,
    seeds: &'a [Vec<u8>],
    words: &'a [&'a str],
}

impl<'a> Mutator<'a> {
    pub fn new(seed: u64, seeds: &'a [Vec<u8>], words: &'a [&'a str]) -> Self {
        Self {
            random: SeededRandom::new(seed),
            seeds,
            words,
        }
    }

    /// The next input: a seed with a few mutations, mostly one or two.
    pub fn input(&mut self) -> Vec<u8> {
        let mut bytes = self.seeds[self.below(self.seeds.len())].clone();
        let bytes_max = bytes.len() * 2 + GROWTH_BYTES_MAX;
        for _ in 0..=self.below(1 << self.below(4)) {
            self.mutate(&mut bytes);
            bytes.truncate(bytes_max);
        }
        bytes
    }

    fn below(&self, bound: usize) -> usize {
        (self.random.next_u64() % bound.max(1) as u64) as usize
    }

    fn pick<T: Copy>(&self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// A range of `bytes`, mostly short.
    fn range(&self, bytes: &[u8]) -> std::ops::Range<usize> {
        let start = self.below(bytes.len() + 1);
        let most = if self.below(4) == 0 { bytes.len() } else { 16 };
        start..(start + self.below(most + 1)).min(bytes.len())
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        let range = self.range(bytes);
        match self.below(12) {
            0 | 1 => self.with_byte(bytes, |byte, random| *byte ^= 1 << (random % 8)),
            2 => self.with_byte(bytes, |byte, random| *byte = random as u8),
            3 => self.with_byte(bytes, |byte, random| {
                *byte = byte.wrapping_add(if random % 2 == 0 { 1 } else { 255 });
            }),
            4 => bytes.truncate(range.start),
            5 => drop(bytes.drain(range)),
            6 => {
                let copy = bytes[range.clone()].to_vec();
                drop(bytes.splice(range.start..range.start, copy));
            }
            7 => {
                let other = &self.seeds[self.below(self.seeds.len())];
                let part = other[self.range(other)].to_vec();
                drop(bytes.splice(range, part));
            }
            8 if !self.words.is_empty() => {
                let word = self.pick(self.words);
                let end = if self.below(2) == 0 {
                    range.start
                } else {
                    range.end
                };
                drop(bytes.splice(range.start..end, word.bytes()));
            }
            9 => self.number(bytes),
            _ => {
                let width = self.pick(&[1, 2, 4, 8]);
                let edge = self.pick(&EDGES).to_le_bytes();
                let end = (range.start + width).min(bytes.len());
                bytes[range.start..end].copy_from_slice(&edge[..end - range.start]);
            }
        }
    }

    fn with_byte(&self, bytes: &mut [u8], change: impl FnOnce(&mut u8, u64)) {
        let at = self.below(bytes.len());
        if let Some(byte) = bytes.get_mut(at) {
            change(byte, self.random.next_u64());
        }
    }

    /// Writes another number where one stands.
    fn number(&self, bytes: &mut Vec<u8>) {
        let from = self.below(bytes.len() + 1);
        let Some(start) = bytes[from..].iter().position(u8::is_ascii_digit) else {
            return;
        };
        let start = from + start;
        let digits = bytes[start..].iter().take_while(|b| b.is_ascii_digit());
        let end = start + digits.count();
        drop(bytes.splice(start..end, self.pick(&NUMBERS).bytes()));
    }
}
