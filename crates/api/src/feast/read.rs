//! `POST /get-online-features`: entities in columns, features out in columns.

use axum::body::Body;
use axum::extract::State;
use axum::http::Response;
use headwater_aggregate::Status;
use headwater_schema::time::format_timestamp;
use headwater_schema::{Micros, Problem, Value};
use schemars::JsonSchema;
use serde::Deserialize;
use serde::ser::{Serialize, SerializeSeq, SerializeStruct, Serializer};

use super::columns::{Columns, KeyCell};
use super::error::FeastError;
use super::request::{features_request, names};
use crate::backend::{FeatureRow, FeaturesReply, Names, ReadShape};
use crate::body::{read_body, read_json};
use crate::context::asked;
use crate::error::ApiError;
use crate::features::json_reply;
use crate::server::Shared;
use headwater_schema::JsonValue;

/// What Feast writes where there is no event time.
const EPOCH: &str = "1970-01-01T00:00:00Z";
const MICROS_PER_SECOND: i64 = 1_000_000;

/// A read of features in Feast's wire format.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct OnlineFeaturesBody {
    /// Key columns, and fields of the feature set's context: a list of values each, all equally long.
    #[schemars(with = "std::collections::BTreeMap<String, Vec<serde_json::Value>>")]
    entities: Columns<KeyCell>,
    /// A feature set, instead of `features`.
    #[serde(default)]
    feature_service: Option<String>,
    /// Features as `view:feature`.
    #[serde(default)]
    features: Option<Vec<String>>,
    /// Whether names come back as `view__feature`.
    #[serde(default)]
    full_feature_names: bool,
    /// Whether the reply's metadata names the views.
    #[serde(default)]
    include_feature_view_version_metadata: bool,
    /// Fields of the feature set's context in columns, which may be among `entities` as well.
    #[serde(default)]
    #[schemars(with = "Option<std::collections::BTreeMap<String, Vec<serde_json::Value>>>")]
    request_context: Option<Columns<KeyCell>>,
}

/// The reply: keys first, then features, each over all rows.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "describes what `Answer` writes")]
pub struct OnlineFeaturesAnswer {
    metadata: AnswerMetadata,
    results: Vec<AnswerVector>,
}

/// What the results are.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "describes what `Metadata` writes")]
pub struct AnswerMetadata {
    /// The names of the results, in their order.
    feature_names: Vec<String>,
    /// The views, where they are asked for.
    feature_view_metadata: Option<Vec<serde_json::Value>>,
}

/// One key column or feature over all rows.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "describes what `Vector` writes")]
pub struct AnswerVector {
    values: Vec<serde_json::Value>,
    /// `PRESENT`, `NULL_VALUE`, `NOT_FOUND` or `OUTSIDE_MAX_AGE`.
    statuses: Vec<String>,
    /// The epoch for keys, and where there is none.
    event_timestamps: Vec<String>,
}

/// Reads features as Feast's feature server does.
pub async fn get_online_features(
    State(shared): State<Shared>,
    body: Body,
) -> Result<Response<Body>, FeastError> {
    let body = read_body(body, shared.limits.body_bytes_max).await?;
    let body: OnlineFeaturesBody = read_json(&body)?;
    let answer = Question {
        names: names(body.feature_service.as_deref(), body.features.as_deref())?,
        entities: body.entities,
        context: body.request_context.unwrap_or_default(),
        full_names: body.full_feature_names,
        with_views: body.include_feature_view_version_metadata,
    }
    .answer(&shared)?;
    Ok(json_reply(&answer)?)
}

/// What a client of Feast asks, whatever it came by.
pub struct Question {
    pub names: Names,
    pub entities: Columns<KeyCell>,
    /// What the request brings itself, where that has columns of its own.
    pub context: Columns<KeyCell>,
    pub full_names: bool,
    pub with_views: bool,
}

/// What it is answered, in columns.
pub struct Answer {
    /// The columns of the question that are keys, under the names of their key columns.
    pub keys: Vec<(String, Vec<KeyCell>)>,
    /// The names of the features.
    pub names: Vec<String>,
    pub with_views: bool,
    pub reply: FeaturesReply,
}

impl Question {
    /// Reads the features.
    pub fn answer(self, shared: &Shared) -> Result<Answer, ApiError> {
        let asked = asked(shared, &self.names)?;
        let (keys, own) = (&self.entities, &self.context);
        let request = features_request(self.names, keys, own, &asked, &shared.limits)?;
        let read = shared.backend.features(&request);
        let reply = read.map_err(|problem| missing_view(shared, &request.names, problem))?;
        let columns = self.entities.0.into_iter();
        let columns = columns.filter(|(name, _)| asked.may_be_key(name));
        let key = |(name, cells): (String, _)| {
            let key = join_key(&name, &reply.shape)?.to_owned();
            Some((key, cells))
        };
        Ok(Answer {
            keys: columns.filter_map(key).collect(),
            names: feature_names(&reply, self.full_names)?,
            with_views: self.with_views,
            reply,
        })
    }
}

/// Of a feature that isn't there, whether it is its view that is missing: Feast tells them apart.
fn missing_view(shared: &Shared, names: &Names, problem: Problem) -> Problem {
    let Names::List(features) = names else {
        return problem;
    };
    if problem.code != "unknown-feature" {
        return problem;
    }
    let views = features.iter().filter_map(|name| name.split_once('.'));
    let unknown = |(view, _): (&str, &str)| shared.backend.view_features(view).err();
    views.map(unknown).find_map(|p| p).unwrap_or(problem)
}

/// The key column that a name stands for: itself, or the only key of the entity it names.
fn join_key<'a>(name: &str, shape: &'a ReadShape) -> Option<&'a str> {
    let keys = || shape.entities.iter().flat_map(|e| &e.keys);
    if let Some(key) = keys().find(|k| *k.name == *name) {
        return Some(&key.name);
    }
    let entity = shape.entities.iter().find(|e| *e.name == *name)?;
    match entity.keys.as_slice() {
        [key] => Some(&key.name),
        _ => None,
    }
}

/// Names of the reply: `feature`, or `view__feature`. Two of the same are an error, as in Feast.
fn feature_names(reply: &FeaturesReply, full: bool) -> Result<Vec<String>, Problem> {
    let name = |name: &str| match name.split_once('.') {
        Some((view, feature)) if full => format!("{view}__{feature}"),
        Some((_, feature)) => feature.to_owned(),
        None => name.to_owned(),
    };
    let names: Vec<String> = reply.names.iter().map(|n| name(n)).collect();
    let mut sorted: Vec<&String> = names.iter().collect();
    sorted.sort_unstable();
    match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        None => Ok(names),
        Some(pair) => Err(Problem::user(
            "feature-name-collision",
            format!("Duplicate features named {} found", pair[0]),
        )
        .field("features")
        .hint("set `full_feature_names`, or ask for features whose names differ")),
    }
}

/// A status as Feast knows them.
pub fn status_name(status: Status) -> &'static str {
    match status {
        Status::Undefined | Status::Overflow | Status::Backfilling => Status::NullValue.as_str(),
        known => known.as_str(),
    }
}

impl Serialize for Answer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut answer = serializer.serialize_struct("answer", 2)?;
        answer.serialize_field("metadata", &Metadata(self))?;
        answer.serialize_field("results", &Results(self))?;
        answer.end()
    }
}

struct Metadata<'a>(&'a Answer);

impl Serialize for Metadata<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Answer {
            keys,
            names,
            with_views,
            ..
        } = self.0;
        let mut metadata = serializer.serialize_struct("metadata", 2)?;
        let keys = keys.iter().map(|(name, _)| name.as_str());
        let all: Vec<&str> = keys.chain(names.iter().map(String::as_str)).collect();
        metadata.serialize_field("feature_names", &all)?;
        if *with_views {
            let views = views(&self.0.reply);
            let named = views.iter().map(|v| serde_json::json!({ "name": v }));
            metadata.serialize_field("feature_view_metadata", &named.collect::<Vec<_>>())?;
        }
        metadata.end()
    }
}

/// The views of a reply, each once.
pub fn views(reply: &FeaturesReply) -> Vec<&str> {
    let mut views = Vec::new();
    for view in reply
        .names
        .iter()
        .filter_map(|n| Some(n.split_once('.')?.0))
    {
        if !views.contains(&view) {
            views.push(view);
        }
    }
    views
}

struct Results<'a>(&'a Answer);

impl Serialize for Results<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let answer = self.0;
        let count = answer.keys.len() + answer.names.len();
        let mut results = serializer.serialize_seq(Some(count))?;
        for (_, cells) in &answer.keys {
            results.serialize_element(&Keys(cells))?;
        }
        for index in 0..answer.names.len() {
            let rows = &answer.reply.rows;
            results.serialize_element(&Vector { index, rows })?;
        }
        results.end()
    }
}

/// The keys as they came: present, without a time.
struct Keys<'a>(&'a [KeyCell]);

impl Serialize for Keys<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let repeated = |text| Repeated(text, self.0.len());
        let mut vector = serializer.serialize_struct("vector", 3)?;
        let values: Vec<JsonValue<'_>> = self.0.iter().map(|c| JsonValue(&c.0)).collect();
        vector.serialize_field("values", &values)?;
        vector.serialize_field("statuses", &repeated(Status::Present.as_str()))?;
        vector.serialize_field("event_timestamps", &repeated(EPOCH))?;
        vector.end()
    }
}

struct Repeated(&'static str, usize);

impl Serialize for Repeated {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(std::iter::repeat_n(self.0, self.1))
    }
}

/// One feature over all rows.
struct Vector<'a> {
    index: usize,
    rows: &'a [FeatureRow],
}

impl Serialize for Vector<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let rows = self.rows;
        let mut vector = serializer.serialize_struct("vector", 3)?;
        vector.serialize_field(
            "values",
            &Each(|| rows.iter().map(|r| FeastValue(&r.values[self.index]))),
        )?;
        vector.serialize_field(
            "statuses",
            &Each(|| rows.iter().map(|r| status_name(r.statuses[self.index]))),
        )?;
        vector.serialize_field(
            "event_timestamps",
            &Each(|| {
                rows.iter()
                    .map(|r| event_timestamp(r.event_times[self.index]))
            }),
        )?;
        vector.end()
    }
}

/// A list that is written from an iterator.
struct Each<F>(F);

impl<F, I> Serialize for Each<F>
where
    F: Fn() -> I,
    I: Iterator,
    I::Item: Serialize,
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq((self.0)())
    }
}

/// A value as Feast writes it: times as seconds since 1970, bytes in base64.
struct FeastValue<'a>(&'a Value);

impl Serialize for FeastValue<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use base64::Engine;
        match self.0 {
            Value::Timestamp(_) | Value::Date(_) => {
                serializer.serialize_i64(unix_seconds(self.0).unwrap_or_default())
            }
            Value::Bytes(bytes) => {
                let text = base64::engine::general_purpose::STANDARD.encode(bytes);
                serializer.serialize_str(&text)
            }
            Value::List(items) => serializer.collect_seq(items.iter().map(FeastValue)),
            Value::Struct(members) => {
                serializer.collect_map(members.iter().map(|(n, v)| (n.as_ref(), FeastValue(v))))
            }
            Value::Map(entries) => {
                let text = headwater_schema::value_to_text;
                serializer.collect_map(entries.iter().map(|(k, v)| (text(k), FeastValue(v))))
            }
            plain => JsonValue(plain).serialize(serializer),
        }
    }
}

/// A time or a date in whole seconds since 1970, as Feast has them.
pub fn unix_seconds(value: &Value) -> Option<i64> {
    match value {
        Value::Timestamp(micros) => Some(micros.div_euclid(MICROS_PER_SECOND)),
        Value::Date(days) => Some(i64::from(*days) * 86_400),
        _ => None,
    }
}

/// RFC 3339 with 0, 3 or 6 digits after the second, as protobuf's JSON has it.
fn event_timestamp(time: Option<Micros>) -> String {
    let Some(time) = time else {
        return EPOCH.to_owned();
    };
    let text = format_timestamp(time);
    let Some((second, fraction)) = text.trim_end_matches('Z').split_once('.') else {
        return text;
    };
    let width = if fraction.len() <= 3 { 3 } else { 6 };
    format!("{second}.{fraction:0<width$}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_times_are_written_as_protobuf_writes_them() {
        let written = |t| event_timestamp(Some(t));
        assert_eq!(written(1_000_000), "1970-01-01T00:00:01Z");
        assert_eq!(written(1_500_000), "1970-01-01T00:00:01.500Z");
        assert_eq!(written(1_000_010), "1970-01-01T00:00:01.000010Z");
        assert_eq!(written(-1), "1969-12-31T23:59:59.999999Z");
        assert_eq!(event_timestamp(None), EPOCH);
    }
}
