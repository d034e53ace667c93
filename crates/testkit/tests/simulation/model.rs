//! What must hold: the facts that were acknowledged, and what the naive oracle makes of them.

use std::collections::BTreeMap;

use headwater_aggregate::Outcome;
use headwater_aggregate::oracle::{OracleFact, evaluate};
use headwater_schema::{Cursor, DataType, Position, Sequence, Value};

use crate::definitions::ViewModel;
use crate::steps::{Contract, Fact};

pub const SECOND: i64 = 1_000_000;

/// What was asked of the log.
#[derive(Debug, Clone)]
pub enum Request {
    Ingest {
        facts: Vec<Fact>,
        all_or_nothing: bool,
        revise: bool,
    },
    Retract(Vec<u16>),
}

/// What it should have answered.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answer {
    pub accepted: usize,
    pub duplicates: usize,
    pub conflicts: usize,
    pub unknown: usize,
    pub sequence: Sequence,
}

#[derive(Debug, Clone)]
pub struct Known {
    pub fact: Fact,
    pub sequence: Sequence,
    pub removed_at: Option<Sequence>,
    /// From where on its id is another fact's or nobody's, though it was never removed: it was gone by then.
    forgotten_at: Option<Sequence>,
}

/// The log as it should be.
#[derive(Clone, Default)]
pub struct Model {
    /// Every fact, live or not, by sequence.
    pub facts: Vec<Known>,
    pub last: Sequence,
    /// The oldest sequence that is kept; 0 for 1.
    pub first: Sequence,
    /// The newest fact that lives, or lived when its retention let it go, under each id.
    live: BTreeMap<(Contract, u16), usize>,
    /// The first sequence that each view has seen, by its text: that which was kept when its states were begun.
    begun: BTreeMap<&'static str, Sequence>,
    /// Where groups of requests ended: a torn write never leaves a part of one.
    ends: Vec<Sequence>,
}

fn same(a: &Fact, b: &Fact) -> bool {
    let other = a.contract == Contract::Purchase || a.other == b.other;
    (a.who, a.amount, a.second) == (b.who, b.amount, b.second) && other
}

impl Model {
    /// Takes requests that are written together, as the log should.
    pub fn take_group(&mut self, requests: &[Request]) -> Vec<Answer> {
        let answers = requests.iter().map(|request| self.take(request)).collect();
        self.ends.push(self.last);
        answers
    }

    fn take(&mut self, request: &Request) -> Answer {
        let before = self.clone();
        let mut answer = Answer::default();
        match request {
            Request::Ingest {
                facts,
                all_or_nothing,
                revise,
            } => {
                for fact in facts {
                    self.take_fact(fact, *revise, &mut answer);
                }
                if *all_or_nothing && answer.conflicts > 0 {
                    *self = before;
                    answer = Answer {
                        conflicts: answer.conflicts,
                        ..Answer::default()
                    };
                }
            }
            Request::Retract(ids) => {
                for id in ids {
                    let key = (Contract::Purchase, *id);
                    let known = self.live.get(&key).copied();
                    match known.filter(|index| self.is_kept(*index)) {
                        None => answer.unknown += 1,
                        Some(index) => {
                            self.live.remove(&key);
                            self.last += 1;
                            self.facts[index].removed_at = Some(self.last);
                            answer.accepted += 1;
                        }
                    }
                }
            }
        }
        answer.sequence = self.last;
        answer
    }

    fn take_fact(&mut self, fact: &Fact, revise: bool, answer: &mut Answer) {
        let key = (fact.contract, fact.id);
        let known = self.live.get(&key).copied();
        match known {
            Some(index) if same(&self.facts[index].fact, fact) => answer.duplicates += 1,
            Some(_) if !revise => answer.conflicts += 1,
            _ => {
                self.last += 1;
                if let Some(index) = known {
                    let kept = self.is_kept(index);
                    let known = &mut self.facts[index];
                    let place = if kept {
                        &mut known.removed_at
                    } else {
                        &mut known.forgotten_at
                    };
                    *place = Some(self.last);
                }
                self.live.insert(key, self.facts.len());
                self.facts.push(Known {
                    fact: *fact,
                    sequence: self.last,
                    removed_at: None,
                    forgotten_at: None,
                });
                answer.accepted += 1;
            }
        }
    }

    fn is_kept(&self, index: usize) -> bool {
        self.facts[index].sequence >= self.first
    }

    /// Retention let everything before `first` go. Their ids are known on, until the index is made again.
    pub fn drop_before(&mut self, first: Sequence) {
        assert!(first >= self.first, "what is gone has come back");
        self.first = first;
    }

    /// The index was made again from what is kept.
    pub fn forget_dropped_ids(&mut self) {
        for known in &mut self.facts {
            if known.sequence < self.first {
                known.forgotten_at = Some(0);
            }
        }
        self.note_living();
    }

    /// The newest event time, in seconds, of a contract's facts that are gone.
    pub fn newest_dropped(&self, contract: Contract) -> Option<i64> {
        let gone = self.facts.iter().filter(|k| k.sequence < self.first);
        let gone = gone.filter(|k| k.fact.contract == contract);
        gone.map(|k| k.fact.second).max()
    }

    /// The states of a view are begun from what is kept now.
    pub fn begin(&mut self, view: &ViewModel) {
        self.begun.insert(view.id, self.first);
    }

    /// Forgets what came after `last`, as a power cut may where nothing was synced.
    pub fn forget_after(&mut self, last: Sequence) {
        assert!(
            last == 0 || self.ends.contains(&last),
            "a part of a group is left: the log ends at {last}, groups at {:?}",
            self.ends
        );
        self.facts.retain(|k| k.sequence <= last);
        self.ends.retain(|end| *end <= last);
        for known in &mut self.facts {
            known.removed_at = known.removed_at.filter(|at| *at <= last);
            known.forgotten_at = known.forgotten_at.filter(|at| *at <= last);
        }
        self.last = last;
        self.note_living();
    }

    fn note_living(&mut self) {
        let living = self.facts.iter().enumerate();
        let living = living.filter(|(_, k)| k.removed_at.is_none() && k.forgotten_at.is_none());
        self.live = living
            .map(|(i, k)| ((k.fact.contract, k.fact.id), i))
            .collect();
    }

    /// What a feature should be.
    pub fn answer(&self, view: &ViewModel, feature: usize, who: u8, cursor: &Cursor) -> Outcome {
        let begun = self.begun.get(view.id).copied().unwrap_or(0);
        let facts: Vec<OracleFact> = self
            .facts
            .iter()
            .filter(|k| k.sequence >= begun && (view.about)(&k.fact, who))
            .map(|k| OracleFact {
                position: Position::new(k.fact.second * SECOND, k.sequence),
                removed_at: k.removed_at,
                value: k
                    .fact
                    .amount
                    .map_or(Value::Null, |a| Value::Float(amount(a))),
                counts: true,
                order: Value::Null,
                category: Value::Null,
            })
            .collect();
        let (_, function, with_input, window) = &view.features[feature];
        evaluate(
            &facts,
            function,
            *with_input,
            &DataType::Float64,
            window,
            cursor,
        )
    }
}

pub fn amount(hundredths: u16) -> f64 {
    f64::from(hundredths) / 100.0
}
