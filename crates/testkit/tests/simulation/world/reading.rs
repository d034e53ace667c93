//! Reads of features, held to the oracle bit for bit.

use headwater::api::backend::{
    EntityRequest, FeaturesReply, FeaturesRequest, KeyValue, KnownAt, Names,
};
use headwater_aggregate::{Status, WindowKind};
use headwater_env::{Random, SeededRandom};
use headwater_facts::{FactLog, PAST_RETENTION};
use headwater_schema::{Cursor, Micros, Problem, Sequence, Value};

use super::{World, name};
use crate::definitions::ViewModel;
use crate::model::SECOND;

fn bits(value: &Value) -> String {
    match value {
        Value::Float(f) => format!("{:016x}", f.to_bits()),
        other => format!("{other:?}"),
    }
}

/// What is read of a view.
#[derive(Debug, Clone)]
struct Question {
    view: usize,
    /// Which of its features.
    features: Vec<usize>,
    who: u8,
    /// None: now.
    as_of: Option<Micros>,
    /// None: all there is.
    known_at: Option<Sequence>,
    inclusive: bool,
}

impl World {
    /// Reads the features of one view for one entity, at a cursor that the seed picks.
    pub(super) fn read(&mut self, seed: u64) {
        let random = SeededRandom::new(seed);
        let below = |bound: u64| random.next_u64() % bound;
        let view = below(self.views.len() as u64) as usize;
        let who = below(3) as u8;
        let second = match self.model.facts.len() as u64 {
            0 => 200,
            length => self.model.facts[below(length) as usize].fact.second,
        };
        // At the edges of windows, and a little beside them.
        let offset = [0, 0, 7, 9, 60, 20, 300][below(7) as usize] * SECOND;
        let beside = [0, 0, 1, -1][below(4) as usize];
        let question = Question {
            view,
            features: (0..self.views[view].features.len()).collect(),
            who,
            as_of: (below(8) > 0).then_some(second * SECOND + offset + beside),
            known_at: (below(2) == 0).then(|| below(self.model.last + 1)),
            inclusive: below(3) > 0,
        };
        self.wait_until_filled();
        let told = match self.ask(&question) {
            Ok(reply) => self.compare(&question, &reply),
            Err(problem) => {
                self.check_refused(&question, &problem);
                None
            }
        };
        if let Some(told) = told {
            self.tell(told);
        }
    }

    /// Reads a view that may still be being filled.
    pub(super) fn read_unfilled(&mut self, view: usize) {
        let question = Question {
            view,
            features: (0..self.views[view].features.len()).collect(),
            who: 1,
            as_of: None,
            known_at: None,
            inclusive: true,
        };
        match self.ask(&question) {
            Ok(reply) => drop(self.compare(&question, &reply)),
            Err(problem) => self.check_refused(&question, &problem),
        }
    }

    fn ask(&self, question: &Question) -> Result<FeaturesReply, Problem> {
        let view = &self.views[question.view];
        let names = question.features.iter();
        let names = names.map(|index| format!("{}.{}", view.name, view.features[*index].0));
        let who = Value::string(format!("c{}", question.who));
        self.engine().features(&FeaturesRequest {
            names: Names::List(names.collect()),
            entities: vec![EntityRequest::from([(
                view.entity.to_owned(),
                KeyValue::Scalar(who),
            )])],
            as_of: question.as_of,
            known_at: question.known_at.map(KnownAt::Sequence),
            inclusive: question.inclusive,
            lenient: false,
            context: Vec::new(),
        })
    }

    /// The answer is the oracle's, which is told; or it is said that the view isn't filled yet.
    fn compare(
        &self,
        question: &Question,
        reply: &FeaturesReply,
    ) -> Option<(Micros, Sequence, Vec<String>)> {
        let (view, row) = (&self.views[question.view], &reply.rows[0]);
        if row.statuses.contains(&Status::Backfilling) {
            assert!(row.statuses.iter().all(|s| *s == Status::Backfilling));
            return None;
        }
        let cursor = match question.inclusive {
            true => Cursor::inclusive(reply.as_of),
            false => Cursor::exclusive(reply.as_of),
        };
        let cursor = cursor.known_at(question.known_at.unwrap_or(self.model.last));
        for (place, index) in question.features.iter().enumerate() {
            let want = self.model.answer(view, *index, question.who, &cursor);
            let (got, time) = (&row.values[place], row.event_times[place]);
            let feature = view.features[*index].0;
            let what = format!("{}.{feature} of c{} at {cursor:?}", view.name, question.who);
            assert_eq!(bits(got), bits(&want.value), "{what}");
            assert_eq!(time, want.event_time, "{what}");
        }
        let values = row.values.iter().map(bits).collect();
        Some((reply.as_of, reply.sequence, values))
    }

    /// A read may be refused where it reaches what retention let go. Features whose windows don't are told all the same.
    fn check_refused(&self, question: &Question, problem: &Problem) {
        if self.troubled && ["disk-full", "file"].contains(&problem.code) {
            // What has to be read back from the archive finds no room.
            return;
        }
        assert_eq!(problem.code, PAST_RETENTION, "{problem:?}");
        assert!(self.model.first > 1, "nothing is gone: {problem:?}");
        let view = &self.views[question.view];
        let (kept_from, as_of) = (self.kept_from(view), question.as_of);
        let as_of = as_of.unwrap_or_else(|| self.env.clock.now());
        for index in &question.features {
            let width = match view.features[*index].3.kind {
                WindowKind::Exact { width } | WindowKind::Range { width } => width,
                _ => continue,
            };
            if as_of.saturating_sub(width) >= kept_from {
                let alone = Question {
                    features: vec![*index],
                    ..question.clone()
                };
                let reply = self.ask(&alone).expect("all that it needs is kept");
                self.compare(&alone, &reply);
            }
        }
    }

    /// From which event time on every fact that a view has seen is kept.
    fn kept_from(&self, view: &ViewModel) -> Micros {
        let log = self.engine().facts_log();
        let retention = self.memory.facts.unwrap_or(0) * SECOND;
        let kept_from = view.contracts.iter().map(|contract| {
            let promised = log.newest(name(*contract)).map(|newest| newest - retention);
            let dropped = log.newest_dropped(name(*contract)).map(|newest| newest + 1);
            promised.max(dropped).unwrap_or(Micros::MIN)
        });
        kept_from.max().unwrap_or(Micros::MIN)
    }
}
