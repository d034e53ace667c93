//! The demo's predictions: every flight an hour before it is to leave, as of what was known then, and what became of
//! it once it has arrived.

use std::collections::HashMap;
use std::path::Path;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use headwater::{Engine, Env};
use headwater_api::backend::{
    EntityRequest, IngestOptions, InputRows, KeyValue, NewVersion, PredictRequest,
};
use headwater_schema::decode::BodyFormat;
use headwater_schema::time::format_timestamp;
use headwater_schema::{Cursor, FactBatch, Micros, Problem, Value};
use serde_json::json;

use super::print::thousands;

/// The model, and the file of its version.
const MODEL: &str = "late";
const FILE: &str = "models/arrives_late.txt";
/// How long before its scheduled departure a flight is predicted.
const BEFORE: Micros = 3_600_000_000;
/// Minutes after which an arrival is late.
const LATE: i64 = 15;
/// Flights of one moment that are asked for together.
const ASKED_MAX: usize = 500;
/// The model was trained on flights before this: 1 July 2013 in New York.
const TRAINED_UNTIL: Micros = 1_372_651_200_000_000;

/// A flight that is to leave.
struct Flight {
    as_of: Micros,
    id: String,
    entities: EntityRequest,
    context: headwater_api::backend::ContextRow,
}

/// A prediction whose flight hasn't arrived yet.
struct Open {
    prediction_id: String,
    score: f64,
    as_of: Micros,
}

/// Predicts flights while a year is replayed, and keeps what became of them.
pub struct Forecast<'a> {
    env: &'a Env,
    engine: &'a Engine,
    /// By the moment they are predicted at.
    flights: Vec<Flight>,
    next: usize,
    open: HashMap<String, Open>,
    /// Score and whether it was late: of flights before the end of the training, and after.
    known: [Vec<(f64, bool)>; 2],
    latency_us: Vec<u64>,
    predicted: u64,
}

impl<'a> Forecast<'a> {
    /// Adds the example's model and reads the flights of its schedule.
    pub fn new(
        env: &'a Env,
        engine: &'a Engine,
        example: &Path,
        schedule: &FactBatch,
    ) -> Result<Self, Problem> {
        let path = example.join(FILE);
        let file = env.files.read(&path).map_err(|e| {
            let title = format!("{} can't be read", path.display());
            Problem::user("unreadable-file", title).detail(e)
        })?;
        let version = NewVersion {
            aliases: vec!["live".to_owned()],
            ..NewVersion::default()
        };
        engine.add_model(MODEL, file, &version)?;
        let mut flights = flights(schedule)?;
        flights.sort_by_key(|flight| flight.as_of);
        Ok(Self {
            env,
            engine,
            flights,
            next: 0,
            open: HashMap::new(),
            known: Default::default(),
            latency_us: Vec::new(),
            predicted: 0,
        })
    }

    /// Predicts the flights whose moment lies before `until`; all facts before it have been applied.
    pub fn predict_until(&mut self, until: Micros) -> Result<(), Problem> {
        while let Some(first) = self.flights.get(self.next).filter(|f| f.as_of < until) {
            let as_of = first.as_of;
            let rest = &self.flights[self.next..];
            let same = rest.iter().take(ASKED_MAX).take_while(|f| f.as_of == as_of);
            let asked: Vec<&Flight> = same.collect();
            let request = PredictRequest {
                model: MODEL.to_owned(),
                rows: InputRows::Entities {
                    entities: asked.iter().map(|f| f.entities.clone()).collect(),
                    context: asked.iter().map(|f| f.context.clone()).collect(),
                    candidates: None,
                },
                // A demo shows what is answered, not that it can be cut short.
                deadline: Some(30_000_000),
                cursor: Some(Cursor::inclusive(as_of)),
                ..PredictRequest::default()
            };
            let start = self.env.clock.monotonic_nanos();
            let reply = self.engine.predict(request)?;
            let took = self.env.clock.monotonic_nanos().saturating_sub(start);
            self.latency_us.push(took / 1000);
            let count = asked.len();
            for (at, flight) in asked.into_iter().enumerate() {
                let outputs = reply.outputs.get(at).and_then(|row| row.first());
                let score = outputs.and_then(|(_, numbers)| numbers.first().copied());
                let open = Open {
                    prediction_id: reply.prediction_ids.get(at).cloned().unwrap_or_default(),
                    score: score.unwrap_or(f64::NAN),
                    as_of,
                };
                self.open.insert(flight.id.clone(), open);
            }
            self.next += count;
            self.predicted += count as u64;
        }
        Ok(())
    }

    /// Tells what became of the flights of some arrivals. One without a delay was diverted, and is neither.
    pub fn arrived(&mut self, arrivals: &FactBatch) -> Result<(), Problem> {
        let ids = text(arrivals, "flight_id")?;
        let delays = column(arrivals, "arr_delay")?;
        let delays = delays.as_primitive_opt::<Int64Type>().ok_or_else(unfit)?;
        let mut outcomes = Vec::new();
        for (row, time) in arrivals.event_times.iter().enumerate() {
            if ids.is_null(row) || delays.is_null(row) {
                continue;
            }
            let Some(open) = self.open.remove(ids.value(row)) else {
                continue;
            };
            let late = delays.value(row) > LATE;
            self.known[usize::from(open.as_of >= TRAINED_UNTIL)].push((open.score, late));
            outcomes.push(json!({
                "prediction_id": open.prediction_id,
                "value": f64::from(u8::from(late)),
                "time": format_timestamp(*time),
            }));
        }
        if outcomes.is_empty() {
            return Ok(());
        }
        let body = json!(outcomes).to_string();
        let options = IngestOptions {
            all_or_nothing: true,
            revise: true,
        };
        let contract = headwater_features::OUTCOME;
        self.engine
            .ingest(contract, BodyFormat::Json, body.as_bytes(), options)
            .map(drop)
    }

    /// How good it has been so far, in a few words.
    pub fn so_far(&self) -> String {
        let all = self.known.concat();
        match (auc(&all), log_loss(&all)) {
            (Some(auc), Some(loss)) => format!("AUC {auc:.3}, log loss {loss:.3}"),
            _ => "no outcomes yet".to_owned(),
        }
    }

    /// Prints what it came to.
    pub fn summary(mut self) {
        let outcomes: usize = self.known.iter().map(Vec::len).sum();
        println!(
            "\n{} flights predicted one hour before they were to leave; {} outcomes.",
            thousands(self.predicted),
            thousands(outcomes as u64)
        );
        let halves = [
            "January to June, as in training",
            "July to December, never seen in training",
        ];
        for (half, known) in halves.iter().zip(&self.known) {
            if let (Some(auc), Some(loss)) = (auc(known), log_loss(known)) {
                println!("  {half}: AUC {auc:.4}, log loss {loss:.4}.");
            }
        }
        self.latency_us.sort_unstable();
        let at = |share: f64| {
            let last = self.latency_us.len().saturating_sub(1);
            let value = self.latency_us.get((last as f64 * share) as usize);
            value.copied().unwrap_or(0) as f64 / 1000.0
        };
        println!(
            "A request ({:.1} flights of one moment each) took {:.2} ms in the median, {:.2} ms for 95 and {:.2} ms for 99 of 100.",
            self.predicted as f64 / self.latency_us.len().max(1) as f64,
            at(0.5),
            at(0.95),
            at(0.99)
        );
        let log = self.engine.serving_stats().log;
        let lost = log.dropped + log.failed;
        println!(
            "Of the predictions {} are facts, {} are on their way to the log; {} found no room there.",
            thousands(log.written),
            thousands(self.predicted.saturating_sub(log.written + lost)),
            thousands(lost)
        );
    }
}

fn unfit() -> Problem {
    Problem::user("bad-recording", "a recording isn't that of the example")
        .hint("name the example's folder with `--example`")
}

fn column<'b>(facts: &'b FactBatch, name: &str) -> Result<&'b arrow::array::ArrayRef, Problem> {
    facts.columns.column_by_name(name).ok_or_else(unfit)
}

fn text<'b>(facts: &'b FactBatch, name: &str) -> Result<&'b arrow::array::StringArray, Problem> {
    column(facts, name)?
        .as_string_opt::<i32>()
        .ok_or_else(unfit)
}

fn flights(schedule: &FactBatch) -> Result<Vec<Flight>, Problem> {
    let [ids, planes, carriers, origins, dests] = [
        text(schedule, "flight_id")?,
        text(schedule, "tailnum")?,
        text(schedule, "carrier")?,
        text(schedule, "origin")?,
        text(schedule, "dest")?,
    ];
    let time = |name: &str| {
        let times = column(schedule, name)?.as_primitive_opt::<TimestampMicrosecondType>();
        times.ok_or_else(unfit)
    };
    let (departures, arrivals) = (time("sched_dep")?, time("sched_arr")?);
    let distances = column(schedule, "distance")?
        .as_primitive_opt::<Int64Type>()
        .ok_or_else(unfit)?;
    let scalar = |text: &str| KeyValue::Scalar(Value::string(text));
    let flight = |row: usize| {
        // A flight whose plane isn't known yet has one that nobody has heard of.
        let plane = if planes.is_valid(row) {
            planes.value(row)
        } else {
            ""
        };
        let keys = [
            ("tailnum", plane),
            ("carrier", carriers.value(row)),
            ("origin", origins.value(row)),
            ("dest", dests.value(row)),
        ];
        Flight {
            as_of: departures.value(row) - BEFORE,
            id: ids.value(row).to_owned(),
            entities: keys
                .iter()
                .map(|(k, v)| ((*k).to_owned(), scalar(v)))
                .collect(),
            context: [
                ("sched_dep", json!(departures.value(row))),
                ("sched_arr", json!(arrivals.value(row))),
                ("distance", json!(distances.value(row))),
            ]
            .into_iter()
            .map(|(k, v)| (k.to_owned(), v))
            .collect(),
        }
    };
    Ok((0..schedule.len()).map(flight).collect())
}

/// The share of pairs, one late and one not, that are ranked right; equal scores count half. Exact: by ranks.
fn auc(known: &[(f64, bool)]) -> Option<f64> {
    let mut sorted = known.to_vec();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let late = sorted.iter().filter(|(_, late)| *late).count();
    let others = sorted.len() - late;
    if late == 0 || others == 0 {
        return None;
    }
    let mut ranks = 0.0;
    let mut from = 0;
    for equal in sorted.chunk_by(|a, b| a.0 == b.0) {
        let rank = from as f64 + (equal.len() + 1) as f64 / 2.0;
        ranks += rank * equal.iter().filter(|(_, late)| *late).count() as f64;
        from += equal.len();
    }
    let least = late as f64 * (late as f64 + 1.0) / 2.0;
    Some((ranks - least) / (late as f64 * others as f64))
}

/// The mean of minus the logarithm of the probability that was given to what happened.
fn log_loss(known: &[(f64, bool)]) -> Option<f64> {
    if known.is_empty() {
        return None;
    }
    let loss = |(score, late): &(f64, bool)| {
        let told = if *late { *score } else { 1.0 - score };
        -told.clamp(f64::MIN_POSITIVE, 1.0).ln()
    };
    Some(known.iter().map(loss).sum::<f64>() / known.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_auc_is_the_share_of_pairs_that_are_ranked_right() {
        let known: Vec<(f64, bool)> = (0..200_u32)
            .map(|n| (f64::from(n * 37 % 23), n * 7 % 11 < 4))
            .collect();
        let (mut right, mut pairs) = (0.0, 0.0);
        for (late, _) in known.iter().filter(|k| k.1) {
            for (other, _) in known.iter().filter(|k| !k.1) {
                pairs += 1.0;
                right += match late.total_cmp(other) {
                    std::cmp::Ordering::Greater => 1.0,
                    std::cmp::Ordering::Equal => 0.5,
                    std::cmp::Ordering::Less => 0.0,
                };
            }
        }
        assert!((auc(&known).unwrap_or(0.0) - right / pairs).abs() < 1e-12);
        assert_eq!(auc(&[(0.5, true)]), None);
        assert_eq!(log_loss(&[(0.5, true), (0.5, false)]), Some(2f64.ln()));
    }
}
