//! The whole flights project (every contract, view and feature of the example) through a durable
//! [`Engine::ingest`] on one core: decoding, checking, writing, indexing and aggregating included.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use headwater::{Config, Engine, Env};
use headwater_api::backend::IngestOptions;
use headwater_schema::Problem;
use headwater_schema::decode::{BodyFormat, DecodeLimits, decode_each};

use crate::machine::on_core;
use crate::{failed, shop};

pub const CONTRACTS: [&str; 6] = [
    "airport",
    "plane",
    "weather",
    "schedule",
    "departure",
    "arrival",
];
/// Event time whose facts of one contract are one body.
const SLICE: i64 = 24 * 3600 * shop::SECOND;
/// Callers that wait for durability side by side; they share the core.
const CALLERS: usize = 8;

struct Body {
    contract: &'static str,
    format: BodyFormat,
    bytes: Vec<u8>,
    facts: usize,
}

/// Prints how many facts a second one core takes.
pub fn measure() -> Result<(), Problem> {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/flights");
    for format in [BodyFormat::ArrowStream, BodyFormat::Ndjson] {
        let folder = shop::folder()?;
        let env = Env::real();
        shop::apply(&env, &example, &folder.path().join("data"))?;
        let (facts, seconds, bytes) = on_core(0, || {
            let mut config = Config::named("flights");
            config.spec.state.shards = 1;
            let engine = shop::open(folder.path(), &config)?;
            let bodies = bodies(&engine, &env, &example, format)?;
            let facts: usize = bodies.iter().map(|b| b.facts).sum();
            let start = Instant::now();
            send(&engine, &bodies)?;
            let seconds = start.elapsed().as_secs_f64();
            let stats = engine.facts_log().stats();
            if stats.last_sequence != facts as u64 {
                return Err(failed("facts are missing"));
            }
            Ok((facts, seconds, stats.bytes))
        })?;
        println!(
            "the whole flights project, durable, one core, {} bodies of a day: {:.0} facts/s ({facts} facts in {seconds:.2} s), {:.1} bytes a fact in the log",
            match format {
                BodyFormat::ArrowStream => "Arrow",
                _ => "NDJSON",
            },
            facts as f64 / seconds,
            bytes as f64 / facts as f64
        );
    }
    Ok(())
}

fn send(engine: &Engine, bodies: &[Body]) -> Result<(), Problem> {
    let next = Mutex::new(bodies.iter());
    let caller = || {
        loop {
            let body = next.lock().map_err(failed)?.next();
            let Some(body) = body else { return Ok(()) };
            let options = IngestOptions::default();
            let reply = engine.ingest(body.contract, body.format, &body.bytes, options)?;
            if reply.accepted != body.facts {
                return Err(failed(format!("{:?}", reply.rejected.first())));
            }
        }
    };
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS).map(|_| scope.spawn(caller)).collect();
        callers
            .into_iter()
            .map(|c| {
                c.join()
                    .unwrap_or_else(|_| Err(failed("a caller panicked")))
            })
            .fold(Ok(()), Result::and)
    })
}

/// The year as bodies of one contract and one day, in the order of the days.
fn bodies(
    engine: &Engine,
    env: &Env,
    example: &Path,
    format: BodyFormat,
) -> Result<Vec<Body>, Problem> {
    let mut days: BTreeMap<(i64, usize), Body> = BTreeMap::new();
    for (index, contract) in CONTRACTS.into_iter().enumerate() {
        let file = example.join("data").join(format!("{contract}.parquet"));
        let bytes = env.files.read(&file).map_err(failed)?;
        let known = engine
            .catalog()
            .contract(contract)
            .cloned()
            .ok_or_else(|| failed("a contract is missing"))?;
        let limits = DecodeLimits::files();
        let rows = usize::MAX;
        decode_each(
            &known,
            BodyFormat::Parquet,
            &bytes,
            &limits,
            rows,
            &mut |decoded| {
                let (times, columns) = (&decoded.batch.event_times, &decoded.batch.columns);
                let mut start = 0;
                while start < times.len() {
                    let day = times[start].div_euclid(SLICE);
                    let end = times.partition_point(|t| t.div_euclid(SLICE) <= day);
                    let rows = columns.slice(start, end - start);
                    let body = Body {
                        contract,
                        format,
                        bytes: encode(&rows, format)?,
                        facts: rows.num_rows(),
                    };
                    days.insert((day, index), body);
                    start = end;
                }
                Ok(())
            },
        )?;
    }
    Ok(days.into_values().collect())
}

fn encode(rows: &RecordBatch, format: BodyFormat) -> Result<Vec<u8>, Problem> {
    if format == BodyFormat::ArrowStream {
        let schema: &Schema = rows.schema_ref();
        let mut writer =
            arrow::ipc::writer::StreamWriter::try_new(Vec::new(), schema).map_err(failed)?;
        writer.write(rows).map_err(failed)?;
        return writer.into_inner().map_err(failed);
    }
    let mut text = String::new();
    let schema = rows.schema();
    for row in 0..rows.num_rows() {
        let named = schema.fields().iter().zip(rows.columns());
        let object: serde_json::Map<String, serde_json::Value> = named
            .map(|(field, column)| {
                let value = headwater_schema::Value::from_array(column.as_ref(), row);
                (field.name().clone(), headwater_api::value_to_json(&value))
            })
            .collect();
        text.push_str(&serde_json::Value::from(object).to_string());
        text.push('\n');
    }
    Ok(text.into_bytes())
}
