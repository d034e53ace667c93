//! What must hold: the facts that were acknowledged, and what the naive oracle makes of them.

use std::collections::BTreeMap;

use headwater_aggregate::oracle::{OracleFact, Question, answer};
use headwater_aggregate::{CATEGORIES_MAX_DEFAULT, Outcome};
use headwater_schema::{Cursor, DataType, Micros, Position, Sequence, Value};

use crate::definitions::{Input, ViewModel};
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
    pub arrived: Micros,
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
    /// For how long after its arrival the id of a fact is its own; none: for ever.
    window: Option<Micros>,
    /// The facts that live, or lived when their retention let them go, under each id, the newest last: several where an id
    /// came again after the window.
    live: BTreeMap<(Contract, u16), Vec<usize>>,
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
    /// Of a log that remembers ids for `window` after they came; none: for ever.
    pub fn new(window: Option<Micros>) -> Self {
        Self {
            window,
            ..Self::default()
        }
    }

    /// Takes requests that are written together, as the log should at that moment.
    pub fn take_group(&mut self, requests: &[Request], now: Micros) -> Vec<Answer> {
        let taken = requests.iter().map(|request| self.take(request, now));
        let answers = taken.collect();
        self.ends.push(self.last);
        answers
    }

    fn take(&mut self, request: &Request, now: Micros) -> Answer {
        let before = self.clone();
        let mut answer = Answer::default();
        match request {
            Request::Ingest {
                facts,
                all_or_nothing,
                revise,
            } => {
                for fact in facts {
                    self.take_fact(fact, *revise, now, &mut answer);
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
                    match self.retract((Contract::Purchase, *id)) {
                        true => answer.accepted += 1,
                        false => answer.unknown += 1,
                    }
                }
            }
        }
        answer.sequence = self.last;
        answer
    }

    /// Takes back the newest fact that lives under an id; false where there is none any more.
    fn retract(&mut self, key: (Contract, u16)) -> bool {
        let Some(index) = self.newest(key).filter(|index| self.is_kept(*index)) else {
            return false;
        };
        self.last += 1;
        self.facts[index].removed_at = Some(self.last);
        self.pop(key);
        // Of one below it that is gone nothing is known.
        if self.newest(key).is_some_and(|below| !self.is_kept(below)) {
            self.forget(key);
        }
        true
    }

    fn take_fact(&mut self, fact: &Fact, revise: bool, now: Micros, answer: &mut Answer) {
        let key = (fact.contract, fact.id);
        if let Some(newest) = self.newest(key) {
            let known = &self.facts[newest];
            let recent = self
                .window
                .is_none_or(|window| now - known.arrived <= window);
            if same(&known.fact, fact) && (revise || recent) {
                answer.duplicates += 1;
                return;
            }
            if recent && !revise {
                answer.conflicts += 1;
                return;
            }
        }
        self.last += 1;
        match self.newest(key).filter(|_| revise) {
            Some(index) if self.is_kept(index) => {
                self.facts[index].removed_at = Some(self.last);
                self.pop(key);
            }
            // What is gone can't be replaced any more.
            Some(_) => self.forget(key),
            None => {}
        }
        self.live.entry(key).or_default().push(self.facts.len());
        self.facts.push(Known {
            fact: *fact,
            sequence: self.last,
            arrived: now,
            removed_at: None,
            forgotten_at: None,
        });
        answer.accepted += 1;
    }

    fn newest(&self, key: (Contract, u16)) -> Option<usize> {
        self.live
            .get(&key)
            .and_then(|living| living.last().copied())
    }

    fn pop(&mut self, key: (Contract, u16)) {
        self.live.get_mut(&key).and_then(Vec::pop);
    }

    /// An id is nobody's from the last sequence on.
    fn forget(&mut self, key: (Contract, u16)) {
        for index in self.live.remove(&key).unwrap_or_default() {
            self.facts[index].forgotten_at = Some(self.last);
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
        self.live.clear();
        for (index, known) in self.facts.iter().enumerate() {
            if known.removed_at.is_none() && known.forgotten_at.is_none() {
                let key = (known.fact.contract, known.fact.id);
                self.live.entry(key).or_default().push(index);
            }
        }
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
                category: Value::string(format!("c{}", k.fact.other)),
            })
            .collect();
        let (_, function, input, window) = &view.features[feature];
        let amount = (*input != Input::Facts).then_some(&DataType::Float64);
        let question = Question {
            grouped: *input == Input::AmountByOther,
            categories_max: CATEGORIES_MAX_DEFAULT,
            ..Question::plain(function, amount)
        };
        answer(&facts, &question, window, cursor)
    }
}

pub fn amount(hundredths: u16) -> f64 {
    f64::from(hundredths) / 100.0
}
