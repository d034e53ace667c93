//! What happens in a run, as a function of its seed.

use headwater_env::{Random, SeededRandom};

/// A fact to send.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fact {
    pub contract: Contract,
    pub id: u16,
    /// Who it is about; none: a null.
    pub who: Option<u8>,
    /// The other side of a transfer.
    pub other: u8,
    /// In hundredths; none: a null.
    pub amount: Option<u16>,
    pub second: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Contract {
    Purchase,
    Transfer,
}

/// What becomes of the index of facts in a power cut. It is made again from the log.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum IndexFate {
    Kept,
    Deleted,
}

#[derive(Debug, Clone)]
pub enum Step {
    Ingest {
        facts: Vec<Fact>,
        malformed: bool,
        all_or_nothing: bool,
        revise: bool,
    },
    Retract(Vec<u16>),
    Read(u64),
    Checkpoint,
    /// An orderly end, and a start.
    Reopen,
    /// The process is gone: what it wrote is in the system's memory.
    Kill,
    /// The machine is gone, with what wasn't synced; during the write of facts where there are some.
    PowerCut {
        during: Vec<Fact>,
        bytes_left: u64,
        index: IndexFate,
        store_kept: Option<u8>,
    },
    /// The disk takes this many bytes more; none: it has room again.
    DiskFull(Option<u64>),
    SyncFails(bool),
    StoreFails(bool),
    /// Seconds; also back.
    Clock(i64),
    /// A bit of a log file turns over.
    Flip(u64),
}

/// Settings of a run.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    pub shards: usize,
    pub memory_bytes_max: usize,
    pub segment_bytes_max: u64,
    pub checkpoint_facts: u64,
    pub sync: headwater::Sync,
}

struct Dice(SeededRandom);

impl Dice {
    fn below(&self, bound: u64) -> u64 {
        self.0.next_u64() % bound
    }

    fn one_in(&self, bound: u64) -> bool {
        self.below(bound) == 0
    }

    fn pick<T: Copy>(&self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    fn fact(&self, contract: Contract, ids: u64, now: i64) -> Fact {
        let who = self.below(3) as u8;
        let late = if self.one_in(4) { 120 } else { 20 };
        Fact {
            contract,
            id: self.below(ids) as u16,
            who: (!self.one_in(20)).then_some(who),
            other: (who + 1 + self.below(2) as u8) % 3,
            amount: (!self.one_in(10)).then(|| self.below(300) as u16),
            second: now - self.below(late) as i64 + self.below(5) as i64,
        }
    }

    fn facts(&self, now: i64) -> Vec<Fact> {
        let contract = if self.one_in(3) {
            Contract::Transfer
        } else {
            Contract::Purchase
        };
        // Few ids make duplicates and conflicts; many make long states.
        let (ids, rows) = self.pick(&[(40, 6), (400, 30), (4000, 30), (40_000, 300)]);
        let rows = 1 + self.below(rows);
        (0..rows).map(|_| self.fact(contract, ids, now)).collect()
    }

    fn step(&self, now: &mut i64) -> Step {
        *now += self.below(3) as i64;
        match self.below(40) {
            0..=15 => Step::Ingest {
                facts: self.facts(*now),
                malformed: self.one_in(8),
                all_or_nothing: self.one_in(8),
                revise: self.one_in(4),
            },
            16..=17 => {
                let ids = self.pick(&[40, 400]);
                Step::Retract(
                    (0..=self.below(4))
                        .map(|_| self.below(ids) as u16)
                        .collect(),
                )
            }
            18..=24 => Step::Read(self.0.next_u64()),
            25..=26 => Step::Checkpoint,
            27 => Step::Reopen,
            28..=29 => Step::Kill,
            30..=32 => Step::PowerCut {
                during: if self.one_in(2) {
                    self.facts(*now)
                } else {
                    Vec::new()
                },
                bytes_left: self.pick(&[0, 1, 12, 40, 300, 1 << 40]),
                index: self.pick(&[IndexFate::Kept, IndexFate::Kept, IndexFate::Deleted]),
                store_kept: (!self.one_in(4)).then(|| self.below(256) as u8),
            },
            33 => Step::DiskFull((!self.one_in(2)).then(|| self.below(2000))),
            34 => Step::SyncFails(self.one_in(2)),
            35..=36 => Step::StoreFails(self.one_in(2)),
            37..=38 => {
                let jump = self.pick(&[1, 5, -5, -600, 40]);
                *now += jump.max(0);
                Step::Clock(jump)
            }
            _ => Step::Flip(self.0.next_u64()),
        }
    }
}

/// The settings and steps of a seed.
pub fn script(seed: u64) -> (Settings, Vec<Step>) {
    let dice = Dice(SeededRandom::new(seed));
    let settings = Settings {
        shards: dice.pick(&[1, 2, 3]),
        memory_bytes_max: dice.pick(&[0, 20_000, 1 << 30]),
        segment_bytes_max: dice.pick(&[1500, 20_000, 1 << 26]),
        checkpoint_facts: dice.pick(&[1, 150, 100_000]),
        sync: dice.pick(&[
            headwater::Sync::Always,
            headwater::Sync::Always,
            headwater::Sync::Interval,
            headwater::Sync::Never,
        ]),
    };
    let length = 20 + dice.below(60);
    let mut now = 200;
    (settings, (0..length).map(|_| dice.step(&mut now)).collect())
}
