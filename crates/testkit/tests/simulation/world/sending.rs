//! Requests sent one by one and many at once, and their answers held to the model's.

use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use headwater::api::backend::{IngestOptions, IngestReply, RetractReply};
use headwater::schema::decode::BodyFormat;
use headwater_env::Faults;
use headwater_schema::{Micros, Problem};
use serde_json::json;

use super::{WAIT, World, name};
use crate::model::{Answer, Request, SECOND, amount};
use crate::steps::{Contract, Fact};

/// What became of a request, by its place.
type Told = (usize, Result<Answer, Problem>);

/// How often somebody who waits for the log looks for an answer.
const LOOK_EVERY: Duration = Duration::from_millis(1);

fn row(fact: &Fact) -> serde_json::Value {
    let who = |who: u8| format!("c{who}");
    let (id, time) = (fact.id.to_string(), fact.second * SECOND);
    let amount = fact.amount.map(amount);
    match fact.contract {
        Contract::Purchase => {
            json!({"id": id, "customer": fact.who.map(who), "amount": amount, "time": time})
        }
        Contract::Transfer => {
            json!({"id": id, "payer": fact.who.map(who), "payee": who(fact.other), "amount": amount, "time": time})
        }
    }
}

fn body(facts: &[Fact], malformed: bool) -> String {
    let mut rows: Vec<_> = facts.iter().map(row).collect();
    if malformed {
        rows.insert(
            rows.len() / 2,
            json!({"id": "x", "amount": "much", "time": 0}),
        );
    }
    json!(rows).to_string()
}

fn retracted(reply: RetractReply) -> Answer {
    Answer {
        accepted: reply.retracted,
        unknown: reply.unknown.len(),
        sequence: reply.sequence,
        ..Answer::default()
    }
}

fn ingested(reply: IngestReply, malformed: bool) -> Answer {
    Answer {
        accepted: reply.accepted,
        duplicates: reply.duplicates,
        conflicts: reply.rejected.len() - usize::from(malformed && !reply.rejected.is_empty()),
        unknown: 0,
        sequence: reply.sequence,
    }
}

impl World {
    /// The moment at which the log takes what is sent now: the clock's, unless that was turned back.
    fn moment(&self) -> Micros {
        let newest = self.engine().facts_log().stats().newest_arrival;
        self.env.clock.now().max(newest.unwrap_or(Micros::MIN))
    }

    /// Sends a request; the answer must be the model's, or an error while something is broken.
    pub(super) fn send(&mut self, request: &Request, malformed: bool) {
        let now = self.moment();
        let sent = match request {
            Request::Retract(ids) => {
                let ids = ids.iter().map(u16::to_string).collect();
                self.engine().retract("purchase", ids).map(retracted)
            }
            Request::Ingest {
                facts,
                all_or_nothing,
                revise,
            } => {
                let options = IngestOptions {
                    all_or_nothing: *all_or_nothing,
                    revise: *revise,
                };
                let (contract, text) = (name(facts[0].contract), body(facts, malformed));
                let engine = self.engine();
                let sent = engine.ingest(contract, BodyFormat::Json, text.as_bytes(), options);
                sent.map(|reply| ingested(reply, malformed))
            }
        };
        self.tell(sent.as_ref().map_err(|problem| problem.code));
        if let (
            true,
            Ok(answer),
            Request::Ingest {
                facts,
                all_or_nothing,
                ..
            },
        ) = (malformed, &sent, request)
        {
            if *all_or_nothing {
                assert_eq!((answer.accepted, answer.sequence), (0, self.model.last));
                return;
            }
            self.quarantined[facts[0].contract as usize] += 1;
        }
        self.judge(std::slice::from_ref(request), vec![sent], now);
    }

    /// Hands a request over and doesn't wait.
    fn submit(&self, place: usize, request: &Request, told: &Sender<Told>) {
        let told = told.clone();
        match request {
            Request::Retract(ids) => {
                let ids = ids.iter().map(u16::to_string).collect();
                let done =
                    move |reply: Result<_, _>| drop(told.send((place, reply.map(retracted))));
                self.engine()
                    .submit_retraction("purchase", ids, Box::new(done));
            }
            Request::Ingest {
                facts,
                all_or_nothing,
                revise,
            } => {
                let options = IngestOptions {
                    all_or_nothing: *all_or_nothing,
                    revise: *revise,
                };
                let (contract, text) = (name(facts[0].contract), body(facts, false));
                let done = move |reply: Result<_, _>| {
                    drop(told.send((place, reply.map(|reply| ingested(reply, false)))));
                };
                let (engine, done) = (self.engine(), Box::new(done));
                engine.submit(contract, BodyFormat::Json, text.as_bytes(), options, done);
            }
        }
    }

    /// Sends requests at once. While the first has been written and not yet answered the others gather, and are
    /// written together; `then` goes wrong before they are.
    pub(super) fn send_group(&mut self, requests: &[Request], then: Option<Faults>) {
        let now = self.moment();
        let (told, answers) = channel();
        let mut found: Vec<Told> = Vec::new();
        self.gate.close();
        self.submit(0, &requests[0], &told);
        // What changes nothing isn't written; then the others go as they come.
        let held = loop {
            if self.gate.is_met(LOOK_EVERY) {
                break true;
            }
            if let Ok(answer) = answers.try_recv() {
                found.push(answer);
                break false;
            }
        };
        for (place, request) in requests.iter().enumerate().skip(1) {
            self.submit(place, request, &told);
        }
        if let Some(faults) = then {
            self.set_faults(faults);
        }
        self.gate.open();
        while found.len() < requests.len() {
            found.push(
                answers
                    .recv_timeout(WAIT)
                    .expect("every request is answered"),
            );
        }
        found.sort_by_key(|(place, _)| *place);
        let mut found: Vec<_> = found.into_iter().map(|(_, answer)| answer).collect();
        let codes = found
            .iter()
            .map(|answer| answer.as_ref().map_err(|problem| problem.code));
        self.tell(codes.collect::<Vec<_>>());
        if held {
            let rest = found.split_off(1);
            self.judge(&requests[..1], found, now);
            self.judge(&requests[1..], rest, now);
        } else {
            for (request, answer) in requests.iter().zip(found) {
                self.judge(std::slice::from_ref(request), vec![answer], now);
            }
        }
    }

    /// Compares the answers to requests that were written together with the model's.
    fn judge(&mut self, group: &[Request], answers: Vec<Result<Answer, Problem>>, now: Micros) {
        let answers: Result<Vec<Answer>, Problem> = answers.into_iter().collect();
        match answers {
            Ok(answers) => {
                let expected = self.model.take_group(group, now);
                assert_eq!(answers, expected, "the answers to {group:?}");
                self.maybe = None;
            }
            Err(problem) => {
                let codes = ["disk-full", "file", "log-poisoned"];
                assert!(codes.contains(&problem.code), "{problem:?}");
                if problem.code != "log-poisoned" {
                    self.maybe = Some((now, group.to_vec()));
                }
            }
        }
    }
}
