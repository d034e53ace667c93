//! The model that scores facts as they arrive: each question is a fact, and its answer is read from the prediction log.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, TimestampMicrosecondArray};
use headwater::Engine;
use headwater_facts::{FactLog, Wanted};
use headwater_schema::{FactBatch, Problem, SequencedBatch, Value};

use super::{CONTEXT, KEYS};
use crate::{failed, shop};

/// Questions as facts. What is asked at one moment is asked as of it.
pub(super) const CONTRACT: &str = "kind: DataContract
apiVersion: v3.1.0
id: asked
version: 1.0.0
status: active
schema:
  - name: asked
    properties:
      - {name: id, logicalType: string, required: true}
      - {name: tailnum, logicalType: string, required: true}
      - {name: carrier, logicalType: string, required: true}
      - {name: origin, logicalType: string, required: true}
      - {name: dest, logicalType: string, required: true}
      - {name: sched_dep, logicalType: timestamp}
      - {name: sched_arr, logicalType: timestamp}
      - {name: distance, logicalType: integer}
      - {name: at, logicalType: timestamp, required: true}
    customProperties:
      - {property: headwater.eventTime, value: at}
      - {property: headwater.factId, value: id}
";
/// How long an answer may take to come.
const ANSWER_SECONDS_MAX: u64 = 120;
/// Facts read from the log at once.
const READ_FACTS: usize = 100_000;

/// What has been asked, and answered as it arrived.
#[derive(Default)]
pub(super) struct Streaming {
    /// By the number of the question; none where the answer hasn't come.
    answers: Vec<Option<u64>>,
    answered: usize,
    /// How far the log has been looked through.
    looked: u64,
    pub seconds: f64,
}

impl Streaming {
    /// Lets questions arrive, and waits for their answers.
    pub fn ask(&mut self, engine: &Engine, rows: &RecordBatch, now: i64) -> Result<(), Problem> {
        let first = self.answers.len();
        let facts = facts(first, rows, now)?;
        self.answers.resize(first + rows.num_rows(), None);
        self.looked = self.looked.max(engine.facts_log().last_sequence());
        let start = Instant::now();
        shop::ingest(engine, std::iter::once(Ok(facts)))?;
        while self.answered < self.answers.len() {
            if start.elapsed() > Duration::from_secs(ANSWER_SECONDS_MAX) {
                return Err(failed("what arrives isn't answered"));
            }
            if !self.look(engine.facts_log().as_ref())? {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        self.seconds += start.elapsed().as_secs_f64();
        Ok(())
    }

    /// Looks for predictions further on in the log; false where there is nothing new.
    fn look(&mut self, log: &dyn FactLog) -> Result<bool, Problem> {
        let until = log.last_sequence();
        if until <= self.looked {
            return Ok(false);
        }
        let wanted = Wanted {
            contract: "prediction".into(),
            time_min: i64::MIN,
            time_max: i64::MAX,
            until,
        };
        let (batches, next) = log.read_of(&wanted, self.looked + 1, READ_FACTS)?;
        for batch in batches {
            if batch.batch.contract.as_ref() == "prediction" {
                self.take(&batch)?;
            }
        }
        self.looked = next - 1;
        Ok(true)
    }

    fn take(&mut self, facts: &SequencedBatch) -> Result<(), Problem> {
        let column = |name: &str| {
            let column = facts.batch.columns.column_by_name(name);
            column.ok_or_else(|| failed(format!("predictions lack `{name}`")))
        };
        let (triggers, outputs) = (column("on_fact_id")?, column("outputs")?);
        let (degraded, triggers) = (column("degraded")?, triggers.as_string::<i32>());
        for row in 0..facts.batch.len() {
            let sequence = facts.first_sequence + row as u64;
            if sequence <= self.looked {
                continue;
            }
            if degraded.is_valid(row) {
                return Err(failed("a streamed answer is degraded"));
            }
            let question = triggers.value(row).parse::<usize>().map_err(failed)?;
            let answer = match Value::from_array(outputs, row) {
                Value::Map(named) => named.first().map(|(_, number)| number.clone()),
                _ => None,
            };
            let Some(Value::Float(answer)) = answer else {
                return Err(failed("a streamed answer has no number"));
            };
            let place = self.answers.get_mut(question);
            let place = place.ok_or_else(|| failed("an answer to nothing"))?;
            if place.replace(answer.to_bits()).is_some() {
                return Err(failed("a fact is answered twice"));
            }
            self.answered += 1;
        }
        Ok(())
    }

    /// The bits of all answers, in the order of the questions.
    pub fn answers(&self) -> Vec<u64> {
        self.answers.iter().filter_map(|answer| *answer).collect()
    }
}

/// Rows as facts that happen now; an id is the number of a question.
fn facts(first: usize, rows: &RecordBatch, now: i64) -> Result<FactBatch, Problem> {
    let count = rows.num_rows();
    let ids = (first..first + count).map(|number| Some(number.to_string()));
    let ids: StringArray = ids.collect();
    let at = TimestampMicrosecondArray::from(vec![now; count]).with_timezone("UTC");
    let mut columns: Vec<(&str, ArrayRef)> = vec![("id", Arc::new(ids.clone()))];
    for name in KEYS.iter().chain(&CONTEXT) {
        let column = rows.column_by_name(name);
        let column = column.ok_or_else(|| failed(format!("no {name}")))?;
        columns.push((name, column.clone()));
    }
    columns.push(("at", Arc::new(at)));
    let columns = columns.into_iter().map(|(n, c)| (n, c, true));
    Ok(FactBatch {
        contract: "asked".into(),
        columns: RecordBatch::try_from_iter_with_nullable(columns).map_err(failed)?,
        event_times: vec![now; count],
        fact_ids: Some(ids),
        unknown_fields: None,
    })
}
