//! What happens in a run, as a function of its seed.

use headwater_env::{Random, SeededRandom};

use crate::definitions::{Memory, VARIANTS};
use crate::model::Request;

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
    /// A copy of an orderly end is put back, where there is one.
    Older,
}

/// What becomes of the states of views in a power cut.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum StoreFate {
    /// They lose some of what wasn't synced: so many parts of 255 stay.
    Kept(u8),
    /// They are as they were earlier, after so many parts of 255 of all that was written.
    Older(u8),
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
    /// Requests of which all but the first are written together.
    Group(Vec<Request>),
    Read(u64),
    /// Other definitions are put in force.
    Apply(u8),
    /// What the log has is sealed and goes to the archive, and leaves the log in time.
    Archive,
    Checkpoint,
    /// An orderly end, and a start.
    Reopen,
    /// The process is gone: what it wrote is in the system's memory.
    Kill,
    /// The machine is gone, with what wasn't synced; during the write of requests where there are some.
    PowerCut {
        during: Vec<Request>,
        bytes_left: u64,
        index: IndexFate,
        store: StoreFate,
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

impl Step {
    /// Whether requests are under way at the same time.
    pub fn sends_several(&self) -> bool {
        match self {
            Self::Group(_) => true,
            Self::PowerCut { during, .. } => during.len() > 1,
            _ => false,
        }
    }
}

/// Settings of a run.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    pub shards: usize,
    pub memory_bytes_max: usize,
    pub segment_bytes_max: u64,
    pub checkpoint_facts: u64,
    pub sync: headwater::Sync,
    pub memory: Memory,
    /// Seconds that facts stay in the log once they are archived; none: there is no archive.
    pub archive: Option<i64>,
}

struct Dice {
    random: SeededRandom,
    /// Whether facts are let go in time.
    kept: bool,
}

impl Dice {
    fn below(&self, bound: u64) -> u64 {
        self.random.next_u64() % bound
    }

    fn one_in(&self, bound: u64) -> bool {
        self.below(bound) == 0
    }

    fn pick<T: Copy>(&self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    fn fact(&self, contract: Contract, ids: u64, now: i64) -> Fact {
        let who = self.below(3) as u8;
        // A late fact keeps all that came after it.
        let late = self.one_in(if self.kept { 200 } else { 4 });
        let late = if late { 120 } else { 20 };
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

    fn ids(&self) -> Vec<u16> {
        let ids = self.pick(&[40, 400]);
        let some = 0..=self.below(4);
        some.map(|_| self.below(ids) as u16).collect()
    }

    /// Requests for one group.
    fn requests(&self, now: i64) -> Vec<Request> {
        let request = |_| match self.below(5) {
            0 => Request::Retract(self.ids()),
            _ => Request::Ingest {
                facts: self.facts(now),
                all_or_nothing: self.one_in(8),
                revise: self.one_in(4),
            },
        };
        (0..2 + self.below(4)).map(request).collect()
    }

    fn step(&self, settings: &Settings, now: &mut i64) -> Step {
        *now += self.below(3) as i64;
        match self.below(46) {
            0..=15 => Step::Ingest {
                facts: self.facts(*now),
                // A file with rejected rows in it is never let go, nor what came after it.
                malformed: self.one_in(if self.kept { 200 } else { 8 }),
                all_or_nothing: self.one_in(8),
                revise: self.one_in(4),
            },
            16..=17 => Step::Retract(self.ids()),
            18..=24 => Step::Read(self.random.next_u64()),
            25..=26 => Step::Checkpoint,
            27 => Step::Reopen,
            28..=29 => Step::Kill,
            30..=32 => Step::PowerCut {
                during: match self.below(4) {
                    0 => self.requests(*now),
                    1 => vec![Request::Ingest {
                        facts: self.facts(*now),
                        all_or_nothing: false,
                        revise: false,
                    }],
                    _ => Vec::new(),
                },
                bytes_left: self.pick(&[0, 1, 12, 40, 300, 3000, 1 << 40]),
                index: self.pick(&[
                    IndexFate::Kept,
                    IndexFate::Kept,
                    IndexFate::Deleted,
                    IndexFate::Older,
                ]),
                store: match self.below(8) {
                    0 => StoreFate::Deleted,
                    1..=2 => StoreFate::Older(self.below(256) as u8),
                    _ => StoreFate::Kept(self.below(256) as u8),
                },
            },
            33 => Step::DiskFull((!self.one_in(2)).then(|| self.below(2000))),
            34 => Step::SyncFails(self.one_in(2)),
            35..=36 if !self.kept => Step::StoreFails(self.one_in(2)),
            37..=38 => {
                let jump = match self.kept {
                    true => self.pick(&[5, -5, 40, 60]),
                    false => self.pick(&[1, 5, -5, -600, 40]),
                };
                *now += jump.max(0);
                Step::Clock(jump)
            }
            // Opening a log may let the damaged file go.
            39 if !self.kept => Step::Flip(self.random.next_u64()),
            40..=41 => Step::Apply(self.below(u64::from(VARIANTS)) as u8),
            44 if settings.archive.is_some() => Step::Archive,
            42..=43 if self.kept => Step::Reopen,
            _ => Step::Group(self.requests(*now)),
        }
    }
}

/// The settings and steps of a seed.
pub fn script(seed: u64) -> (Settings, Vec<Step>) {
    let mut dice = Dice {
        random: SeededRandom::new(seed),
        kept: false,
    };
    dice.kept = dice.one_in(3);
    let settings = Settings {
        shards: dice.pick(&[1, 2, 3]),
        memory_bytes_max: dice.pick(&[0, 20_000, 1 << 30]),
        segment_bytes_max: match dice.kept {
            true => dice.pick(&[1500, 6000]),
            false => dice.pick(&[1500, 20_000, 1 << 26]),
        },
        checkpoint_facts: dice.pick(&[1, 150, 100_000]),
        sync: dice.pick(&[
            headwater::Sync::Always,
            headwater::Sync::Always,
            headwater::Sync::Interval,
            headwater::Sync::Never,
        ]),
        memory: Memory {
            facts: dice.kept.then(|| dice.pick(&[2, 15, 60])),
            ids: dice.one_in(3).then(|| dice.pick(&[1, 5, 20])),
        },
        archive: dice.one_in(3).then(|| dice.pick(&[0, 20])),
    };
    let length = 20 + dice.below(60);
    let mut now = 200;
    let steps = (0..length).map(|_| dice.step(&settings, &mut now));
    (settings, steps.collect())
}
