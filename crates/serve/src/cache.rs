//! Answers that are remembered. A version answers the same inputs with the same bits, so the key is the version and
//! every one of its inputs, bit for bit: a feature that changed is another key, and nothing that is found is stale.
//!
//! Rows are remembered one by one. Of several requests that need a row that isn't known yet, one works it out and the
//! others wait for it.

use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::FixedState;
use headwater_env::Env;
use headwater_features::Caching;
use headwater_models::{InputKind, Predictor, Rows};
use headwater_schema::{Micros, Problem};
use quick_cache::sync::{Cache, DefaultLifecycle, GuardResult, PlaceholderGuard};
use quick_cache::{OptionsBuilder, Weighter};

use crate::ServingSettings;

/// Bytes that an entry takes beside its numbers, about.
const ENTRY_BYTES: usize = 160;

/// The version's number, then the bits of each input; of a text its length, and at the end its bytes.
type Key = Vec<u64>;
type Memory = Cache<Key, Remembered, Weight, FixedState>;
type Guard<'a> =
    PlaceholderGuard<'a, Key, Remembered, Weight, FixedState, DefaultLifecycle<Key, Remembered>>;

/// An answer, when it was worked out, and how long that took.
#[derive(Clone)]
struct Remembered {
    outputs: Arc<[f64]>,
    at: Micros,
    nanos: u64,
}

/// What an entry counts for: its bytes, and at least the share that lets so many entries fit.
#[derive(Clone)]
struct Weight {
    least: u64,
}

impl Weighter<Key, Remembered> for Weight {
    fn weight(&self, key: &Key, value: &Remembered) -> u64 {
        let bytes = (key.len() + value.outputs.len()) * size_of::<u64>() + ENTRY_BYTES;
        (bytes as u64).max(self.least)
    }
}

/// The memory of all versions.
pub(crate) struct PredictionCache {
    /// None where the settings leave no room.
    memory: Option<Memory>,
}

/// Outputs of rows, and which of them were remembered.
pub(crate) struct Answered {
    pub outputs: Vec<f64>,
    pub cached: Vec<bool>,
    /// Rows that somebody else was working out.
    pub joined: u64,
    /// What working out the remembered rows had taken.
    pub saved_nanos: u64,
}

/// Who asks, and how long they have.
pub(crate) struct Asker<'a> {
    pub env: &'a Env,
    pub version: u64,
    pub predictor: &'a dyn Predictor,
    pub patience: Duration,
}

impl Asker<'_> {
    fn key(&self, rows: Rows<'_>, row: usize, key: &mut Key) -> Result<(), Problem> {
        let row = rows.row(row);
        key.clear();
        key.push(self.version);
        key.extend(row.iter().map(|input| input.to_bits()));
        if rows.texts().is_empty() {
            return Ok(());
        }
        let inputs = self.predictor.contract().inputs.iter();
        for (place, (input, number)) in inputs.zip(row).enumerate() {
            if input.kind != InputKind::Text {
                continue;
            }
            if let Some(text) = rows.text(*number)? {
                key[1 + place] = text.len() as u64;
                let words = text.as_bytes().chunks(size_of::<u64>());
                key.extend(words.map(|word| {
                    let word = word.iter().rev();
                    word.fold(0, |bits, byte| bits << u8::BITS | u64::from(*byte))
                }));
            }
        }
        Ok(())
    }

    fn work_out(&self, rows: Rows<'_>) -> Result<(Vec<f64>, u64), Problem> {
        let clock = &self.env.clock;
        let start = clock.monotonic_nanos();
        let outputs = self.predictor.predict(rows)?.outputs;
        let took = clock.monotonic_nanos().saturating_sub(start);
        Ok((outputs, took / rows.len().max(1) as u64))
    }

    fn remembered(&self, outputs: &[f64], nanos: u64) -> Remembered {
        Remembered {
            outputs: outputs.into(),
            at: self.env.clock.now(),
            nanos,
        }
    }
}

impl PredictionCache {
    pub fn new(env: &Env, settings: &ServingSettings) -> Result<Self, Problem> {
        let (entries, bytes) = (settings.cache_entries_max, settings.cache_bytes_max as u64);
        if entries == 0 || bytes == 0 {
            return Ok(Self { memory: None });
        }
        let options = OptionsBuilder::new()
            .estimated_items_capacity(entries)
            .weight_capacity(bytes)
            .build()
            .map_err(|e| Problem::internal("cache", "the cache can't be made").detail(e))?;
        let weight = Weight {
            least: bytes.div_ceil(entries as u64),
        };
        let hash = FixedState::with_seed(env.random.next_u64());
        let memory = Cache::with_options(options, weight, hash, DefaultLifecycle::default());
        Ok(Self {
            memory: Some(memory),
        })
    }

    /// Entries, and the bytes that they count for.
    pub fn held(&self) -> (u64, u64) {
        let memory = self.memory.as_ref();
        memory.map_or((0, 0), |m| (m.len() as u64, m.weight()))
    }

    /// What the predictor answers to the rows: remembered, or worked out and remembered from now on.
    pub fn predict(
        &self,
        asker: &Asker<'_>,
        rows: Rows<'_>,
        caching: Option<&Caching>,
    ) -> Result<Answered, Problem> {
        let (Some(memory), Some(caching)) = (&self.memory, caching) else {
            return Ok(Answered {
                outputs: asker.predictor.predict(rows)?.outputs,
                cached: vec![false; rows.len()],
                joined: 0,
                saved_nanos: 0,
            });
        };
        let width = asker.predictor.contract().output_width();
        let mut answered = Answered {
            outputs: vec![0.0; rows.len() * width],
            cached: vec![false; rows.len()],
            joined: 0,
            saved_nanos: 0,
        };
        let oldest = caching.age_max.map(|age| asker.env.clock.now() - age);
        let lookup = Lookup { memory, oldest };
        let (mut own, mut others): (Vec<(usize, Guard<'_>)>, Vec<usize>) = Default::default();
        let mut key = Key::with_capacity(rows.columns() + 1);
        for row in 0..rows.len() {
            asker.key(rows, row, &mut key)?;
            // Nobody waits while others may wait for what they hold.
            match lookup.find(&key, Duration::ZERO) {
                GuardResult::Value(found) => answered.hit(row, width, &found),
                GuardResult::Guard(guard) => own.push((row, guard)),
                GuardResult::Timeout => others.push(row),
            }
        }
        if !own.is_empty() {
            answered.work_out(asker, rows, own, width)?;
        }
        for row in others {
            asker.key(rows, row, &mut key)?;
            answered.joined += 1;
            match lookup.find(&key, asker.patience) {
                GuardResult::Value(found) => answered.hit(row, width, &found),
                // Whoever worked it out failed.
                GuardResult::Guard(guard) => {
                    answered.work_out(asker, rows, vec![(row, guard)], width)?;
                }
                GuardResult::Timeout => {
                    let (outputs, _) =
                        asker.work_out(Rows::one(rows.row(row))?.with_texts(rows.texts()))?;
                    answered.put(row, width, &outputs);
                }
            }
        }
        Ok(answered)
    }
}

struct Lookup<'a> {
    memory: &'a Memory,
    /// What was worked out before isn't used.
    oldest: Option<Micros>,
}

impl<'a> Lookup<'a> {
    /// What is remembered, or the right to work it out; neither where somebody else goes on doing so for longer.
    fn find(
        &self,
        key: &Key,
        patience: Duration,
    ) -> GuardResult<'a, Key, Remembered, Weight, FixedState, DefaultLifecycle<Key, Remembered>>
    {
        loop {
            let found = self
                .memory
                .get_value_or_guard(key.as_slice(), Some(patience));
            match (&found, self.oldest) {
                (GuardResult::Value(value), Some(oldest)) if value.at < oldest => {
                    let is_old = |kept: &Remembered| kept.at < oldest;
                    self.memory.remove_if(key.as_slice(), is_old);
                }
                _ => return found,
            }
        }
    }
}

impl Answered {
    fn put(&mut self, row: usize, width: usize, outputs: &[f64]) {
        self.outputs[row * width..(row + 1) * width].copy_from_slice(outputs);
    }

    fn hit(&mut self, row: usize, width: usize, found: &Remembered) {
        self.put(row, width, &found.outputs);
        self.cached[row] = true;
        self.saved_nanos += found.nanos;
    }

    /// Works rows out together, and lets those hear who wait for them.
    fn work_out(
        &mut self,
        asker: &Asker<'_>,
        rows: Rows<'_>,
        own: Vec<(usize, Guard<'_>)>,
        width: usize,
    ) -> Result<(), Problem> {
        let (outputs, nanos) = if own.len() == rows.len() {
            asker.work_out(rows)?
        } else {
            let picked = own.iter().flat_map(|(row, _)| rows.row(*row));
            let picked: Vec<f64> = picked.copied().collect();
            asker.work_out(Rows::new(&picked, rows.columns())?.with_texts(rows.texts()))?
        };
        for ((row, guard), outputs) in own.into_iter().zip(outputs.chunks_exact(width)) {
            self.put(row, width, outputs);
            // An entry that has no room is one that nobody finds.
            let _ = guard.insert(asker.remembered(outputs, nanos));
        }
        Ok(())
    }
}
