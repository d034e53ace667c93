//! Predictions as facts of the built-in contract: each row with everything that it was answered from.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{RecordBatch, StringArray};
use headwater_features::{EntityRequest, KeyValue, Outcome, PREDICTION, built_in_contract};
use headwater_schema::{
    DataType, FactBatch, Micros, Problem, Value, array_from_values, json_text, value_to_text,
};

use crate::log::Entry;
use crate::predict::Part;
use crate::{InputRows, OutputRow, PredictReply};

/// The policy of an answer that no version gave.
const FALLBACK: &str = "fallback";

/// One prediction: its values by the names of the contract's columns.
pub(crate) struct PredictionFact {
    id: String,
    time: Micros,
    columns: BTreeMap<&'static str, Value>,
}

/// The facts of an answered request.
pub(crate) fn rows_of(entry: &Entry) -> Vec<PredictionFact> {
    let Some(reply) = &entry.reply else {
        return Vec::new();
    };
    let shared = shared(entry, reply);
    let of_parts: Vec<_> = entry.parts.iter().map(|p| of_part(entry, p)).collect();
    let names = entry.parts.first().map(|p| {
        let names = p.binding.model.set.full_names();
        names.map(|n| Value::String(n.clone())).collect::<Vec<_>>()
    });
    let time = reply.cursor.map_or(entry.arrived, |(as_of, _)| as_of);
    let rows = reply.prediction_ids.iter().enumerate();
    let fact = |(index, id): (usize, &String)| {
        let mut columns = shared.clone();
        if let Some(part) = entry.by_row.get(index) {
            columns.extend(of_parts[*part].clone());
        }
        if let Some(cached) = entry.cached.get(index) {
            columns.insert("cached", Value::Bool(*cached));
        }
        if let Some(heard) = &entry.shadow_of {
            let id = heard.prediction_ids.get(index);
            columns.insert("shadow_of", id.map_or(Value::Null, Value::string));
        }
        columns.insert("id", Value::string(id));
        columns.insert("row", int(index as u64));
        columns.insert("outputs", outputs(&reply.outputs[index]));
        let asked = entry.read.as_ref().map(|r| &r.entities[..]);
        let asked = asked
            .and_then(|rows| rows.get(index))
            .or(row(&entry.rows, index));
        if let Some(asked) = asked {
            columns.insert("entities", entities(entry, asked));
        }
        if let Some(read) = &entry.read {
            let names = names.as_deref().unwrap_or_default();
            columns.insert(
                "features",
                features(names, &read.features.rows[index], time),
            );
            if let Some(context) = read.context.get(index) {
                let fields = context.iter();
                let fields = fields.map(|(k, v)| (Value::string(k), Value::string(v.to_string())));
                columns.insert("context", Value::Map(fields.collect()));
            }
        }
        if let Some((numbers, texts)) = vector(entry, index) {
            columns.insert("vector", numbers);
            columns.extend(texts.map(|texts| ("texts", texts)));
        }
        PredictionFact {
            id: id.clone(),
            time,
            columns,
        }
    };
    rows.map(fact).collect()
}

/// What all rows of a request share.
fn shared(entry: &Entry, reply: &PredictReply) -> BTreeMap<&'static str, Value> {
    let text = |text: &str| Value::string(text);
    let time = reply.cursor.map_or(entry.arrived, |(as_of, _)| as_of);
    let mut columns = BTreeMap::from([
        ("request_id", text(&entry.request_id)),
        ("model", text(&reply.model)),
        ("time", Value::Timestamp(time)),
        ("policy", text(FALLBACK)),
        ("propensity", Value::Float(1.0)),
        ("latency_us", int(entry.latency_us)),
        ("weight", Value::Float(1.0 / entry.model.logged)),
    ]);
    if let Some(trigger) = &entry.trigger {
        // Those are all kept.
        columns.insert("weight", Value::Float(1.0));
        columns.insert("on_contract", text(&trigger.contract));
        columns.insert("on_fact_id", text(&trigger.fact_id));
    }
    if let Some(degraded) = &reply.degraded {
        columns.insert("degraded", text(&degraded.reason));
    }
    if let Some((_, sequence)) = reply.cursor {
        columns.insert("known_at", int(sequence));
    }
    columns
}

/// What the rows of one version share.
fn of_part(entry: &Entry, part: &Part) -> BTreeMap<&'static str, Value> {
    let mut columns = BTreeMap::from([
        ("version", Value::String(part.version.name.clone())),
        ("policy", Value::String(part.choice.name.clone())),
        ("propensity", Value::Float(part.choice.propensity)),
    ]);
    if let Some(experiment) = &part.choice.experiment {
        columns.insert("experiment", Value::String(experiment.clone()));
    }
    if entry.read.is_some() {
        let set = &part.binding.model.set;
        columns.insert("feature_set", Value::String(set.name.clone()));
        columns.insert("definitions", part.binding.definitions.clone());
    }
    columns
}

fn int(number: u64) -> Value {
    Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
}

/// The model's inputs of a row that the request brought itself, in the order of the version that answered: numbers, and
/// in a list of their own, where there are any, the values that the model takes as text.
fn vector(entry: &Entry, index: usize) -> Option<(Value, Option<Value>)> {
    let part = entry.by_row.get(index).and_then(|p| entry.parts.get(*p));
    let values: Vec<&Value> = match &entry.rows {
        InputRows::Vectors(vectors) => vectors.get(index)?.iter().collect(),
        InputRows::Named { names, rows } => {
            let row = rows.get(index)?;
            let value = |input: &Arc<str>| {
                let place = names.iter().position(|name| **name == **input)?;
                row.get(place)
            };
            let inputs = part?.version.input_names.iter();
            inputs
                .map(|input| value(input).unwrap_or(&Value::Null))
                .collect()
        }
        InputRows::Entities { .. } => return None,
    };
    let inputs = part.map_or(&[][..], |p| &p.version.predictor.contract().inputs);
    let text = |(place, value): (usize, &&Value)| match inputs.get(place) {
        // A number may be a category by its name, too, and its text is what it is known by.
        Some(input) if input.is_text() && !value.is_null() => Value::string(value_to_text(value)),
        None if matches!(value, Value::String(_)) => (*value).clone(),
        _ => Value::Null,
    };
    let texts: Vec<Value> = values.iter().enumerate().map(text).collect();
    let numbers = values.iter().zip(&texts).map(|(value, text)| match text {
        Value::Null => number(value),
        _ => Value::Null,
    });
    let numbers = Value::List(numbers.collect());
    let any = texts.iter().any(|text| !text.is_null());
    Some((numbers, any.then(|| Value::List(texts.into()))))
}

fn number(value: &Value) -> Value {
    match value {
        Value::Int(int) => Value::Float(*int as f64),
        Value::Bool(yes) => Value::Float(f64::from(u8::from(*yes))),
        Value::Float(float) => Value::Float(*float),
        _ => Value::Null,
    }
}

fn row(rows: &InputRows, index: usize) -> Option<&EntityRequest> {
    match rows {
        InputRows::Entities {
            entities,
            candidates: None,
            ..
        } => entities.get(index),
        InputRows::Entities { entities, .. } => entities.first(),
        InputRows::Vectors(_) | InputRows::Named { .. } => None,
    }
}

/// The key columns of a row, as text. An entity of one key may stand for its column.
fn entities(entry: &Entry, asked: &EntityRequest) -> Value {
    let mut keys: BTreeMap<String, String> = BTreeMap::new();
    let catalog = entry.parts.first().map(|p| &p.binding.catalog);
    for (name, key) in asked {
        match key {
            KeyValue::Columns(columns) => {
                let columns = columns.iter();
                keys.extend(columns.map(|(column, v)| (column.clone(), value_to_text(v))));
            }
            KeyValue::Scalar(value) => {
                let entity = catalog.and_then(|c| c.entity(name));
                let column = match entity.map(|e| e.keys.as_slice()) {
                    Some([key]) => key.name.to_string(),
                    _ => name.clone(),
                };
                keys.insert(column, value_to_text(value));
            }
        }
    }
    let keys = keys.iter();
    Value::Map(
        keys.map(|(k, v)| (Value::string(k), Value::string(v)))
            .collect(),
    )
}

fn features(names: &[Value], row: &[Outcome], as_of: Micros) -> Value {
    let member = |name: &str, value: Value| (Arc::from(name), value);
    let feature = |(name, outcome): (&Value, &Outcome)| {
        let age = outcome
            .event_time
            .map(|t| Value::Int(as_of.saturating_sub(t)));
        let value = match outcome.value.is_null() {
            true => Value::Null,
            false => Value::string(json_text(&outcome.value)),
        };
        Value::Struct(Arc::from([
            member("name", name.clone()),
            member("value", value),
            member("status", Value::string(outcome.status.as_str())),
            member("age_us", age.unwrap_or(Value::Null)),
        ]))
    };
    Value::List(names.iter().zip(row).map(feature).collect())
}

fn outputs(row: &OutputRow) -> Value {
    let mut entries = Vec::new();
    for (name, numbers) in row {
        match numbers.as_slice() {
            [number] => entries.push((Value::String(name.clone()), Value::Float(*number))),
            several => {
                let several = several.iter().enumerate();
                entries.extend(several.map(|(place, number)| {
                    (
                        Value::string(format!("{name}.{place}")),
                        Value::Float(*number),
                    )
                }));
            }
        }
    }
    entries.sort();
    Value::Map(entries.into())
}

/// Facts in columns.
pub(crate) fn batch(rows: &[PredictionFact]) -> Result<FactBatch, Problem> {
    let contract = built_in_contract(PREDICTION)?;
    let null = Value::Null;
    let column = |name: &str, data_type: &DataType| {
        let values = rows
            .iter()
            .map(|row| row.columns.get(name).unwrap_or(&null));
        array_from_values(data_type, values)
    };
    let columns = contract.fields.iter();
    let columns = columns.map(|field| column(&field.name, &field.data_type));
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let columns = RecordBatch::try_new(contract.arrow_schema(), columns).map_err(|e| {
        Problem::internal("prediction", "predictions don't fit their contract").detail(e)
    })?;
    Ok(FactBatch {
        contract: contract.name.clone(),
        columns,
        event_times: rows.iter().map(|row| row.time).collect(),
        fact_ids: Some(
            rows.iter()
                .map(|row| Some(row.id.as_str()))
                .collect::<StringArray>(),
        ),
        unknown_fields: None,
    })
}
