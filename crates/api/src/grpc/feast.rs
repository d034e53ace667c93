//! `feast.serving.ServingService`.

use std::collections::BTreeMap;
use std::sync::Arc;

use headwater_aggregate::Status as FeatureStatus;
use headwater_schema::{DataType, Micros, Problem, Value, value_to_text};
use prost_types::Timestamp;
use tonic::{Request, Response, Status};

use super::error::refuse;
use super::proto::feast::serving::get_online_features_request::Kind;
use super::proto::feast::serving::get_online_features_response::FeatureVector;
use super::proto::feast::serving::serving_service_server::ServingService;
use super::proto::feast::serving::{
    FeatureList, FeatureViewMetadata, FieldStatus, GetFeastServingInfoRequest,
    GetFeastServingInfoResponse, GetOnlineFeaturesRequest, GetOnlineFeaturesResponse,
    GetOnlineFeaturesResponseMetadata,
};
use super::proto::feast::types::value::Val;
use super::proto::feast::types::{
    BoolList, BytesList, DoubleList, Int64List, Map, RepeatedValue, StringList, Value as FeastValue,
};
use crate::feast::{Answer, Columns, KeyCell, Question, names, unix_seconds, views};
use crate::server::Shared;

/// Serves features as Feast does.
pub struct Service(pub Shared);

#[tonic::async_trait]
impl ServingService for Service {
    async fn get_feast_serving_info(
        &self,
        _: Request<GetFeastServingInfoRequest>,
    ) -> Result<Response<GetFeastServingInfoResponse>, Status> {
        let version = format!("headwater {}", env!("CARGO_PKG_VERSION"));
        Ok(Response::new(GetFeastServingInfoResponse { version }))
    }

    async fn get_online_features(
        &self,
        request: Request<GetOnlineFeaturesRequest>,
    ) -> Result<Response<GetOnlineFeaturesResponse>, Status> {
        let question = question(request.into_inner()).map_err(refuse)?;
        let answer = question.answer(&self.0).map_err(refuse)?;
        Ok(Response::new(response(&answer)))
    }
}

/// What a request asks.
pub(super) fn question(request: GetOnlineFeaturesRequest) -> Result<Question, Problem> {
    let names = match &request.kind {
        Some(Kind::FeatureService(service)) => names(Some(service), None),
        Some(Kind::Features(list)) => names(None, Some(&list.val)),
        None => names(None, None),
    };
    let columns = |columns: BTreeMap<String, RepeatedValue>| {
        let columns = columns.into_iter().map(|(name, cells)| {
            let cells = cells.val.into_iter().map(|v| KeyCell(cell(v)));
            (name, cells.collect())
        });
        Columns(columns.collect())
    };
    Ok(Question {
        names: names?,
        entities: columns(request.entities),
        context: columns(request.request_context),
        full_names: request.full_feature_names,
        with_views: request.include_feature_view_version_metadata,
    })
}

/// A key or a field of context as it came. What can be neither becomes a list, which no key and no field is.
fn cell(value: FeastValue) -> Value {
    match value.val {
        None | Some(Val::NullVal(_)) => Value::Null,
        Some(Val::StringVal(v)) => Value::string(v),
        Some(Val::Int32Val(v)) => Value::Int(v.into()),
        Some(Val::Int64Val(v)) => Value::Int(v),
        Some(Val::BoolVal(v)) => Value::Bool(v),
        Some(Val::UnixTimestampVal(v)) => Value::Timestamp(v.saturating_mul(1_000_000)),
        Some(Val::DoubleVal(v)) => Value::Float(v),
        Some(Val::FloatVal(v)) => Value::Float(v.into()),
        Some(_) => Value::List([].into()),
    }
}

fn response(answer: &Answer) -> GetOnlineFeaturesResponse {
    let reply = &answer.reply;
    let key_names = answer.keys.iter().map(|(name, _)| name.clone());
    let all = key_names.chain(answer.names.iter().cloned()).collect();
    let view = |name: &str| FeatureViewMetadata {
        name: name.to_owned(),
        version: 0,
    };
    let views = match answer.with_views {
        true => views(reply).into_iter().map(view).collect(),
        false => Vec::new(),
    };
    let keys = answer.keys.iter().map(|(_, cells)| key_vector(cells));
    let features = reply.shape.types.iter().enumerate();
    let features = features.map(|(index, data_type)| FeatureVector {
        values: reply
            .rows
            .iter()
            .map(|r| value(&r.values[index], data_type))
            .collect(),
        statuses: reply
            .rows
            .iter()
            .map(|r| field_status(r.statuses[index]).into())
            .collect(),
        event_timestamps: reply
            .rows
            .iter()
            .map(|r| timestamp(r.event_times[index]))
            .collect(),
    });
    GetOnlineFeaturesResponse {
        metadata: Some(GetOnlineFeaturesResponseMetadata {
            feature_names: Some(FeatureList { val: all }),
            feature_view_metadata: views,
        }),
        results: keys.chain(features).collect(),
        status: true,
    }
}

fn key_vector(cells: &[KeyCell]) -> FeatureVector {
    let of = |value: &Value| match value {
        Value::Bool(_) => DataType::Bool,
        Value::Int(_) => DataType::Int64,
        _ => DataType::String,
    };
    FeatureVector {
        values: cells.iter().map(|c| value(&c.0, &of(&c.0))).collect(),
        statuses: vec![FieldStatus::Present.into(); cells.len()],
        event_timestamps: vec![timestamp(None); cells.len()],
    }
}

fn field_status(status: FeatureStatus) -> FieldStatus {
    match status {
        FeatureStatus::Present => FieldStatus::Present,
        FeatureStatus::NotFound => FieldStatus::NotFound,
        FeatureStatus::OutsideMaxAge => FieldStatus::OutsideMaxAge,
        FeatureStatus::NullValue
        | FeatureStatus::Undefined
        | FeatureStatus::Overflow
        | FeatureStatus::Backfilling => FieldStatus::NullValue,
    }
}

/// The epoch where there is none, as Feast has it.
fn timestamp(time: Option<Micros>) -> Timestamp {
    let time = time.unwrap_or_default();
    let micros = time.rem_euclid(1_000_000);
    Timestamp {
        seconds: time.div_euclid(1_000_000),
        nanos: i32::try_from(micros * 1000).unwrap_or_default(),
    }
}

fn value(value: &Value, data_type: &DataType) -> FeastValue {
    let val = match value {
        Value::Null => None,
        Value::Bool(v) => Some(Val::BoolVal(*v)),
        Value::Int(v) => Some(Val::Int64Val(*v)),
        Value::Float(v) => Some(Val::DoubleVal(*v)),
        Value::Decimal { .. } => Some(Val::DecimalVal(value_to_text(value))),
        Value::Timestamp(_) | Value::Date(_) => unix_seconds(value).map(Val::UnixTimestampVal),
        Value::String(v) => Some(Val::StringVal(v.to_string())),
        Value::Bytes(v) => Some(Val::BytesVal(v.to_vec())),
        Value::List(items) => Some(list(items, data_type)),
        Value::Struct(members) => {
            let member = |(n, v): &(Arc<str>, Value)| (n.to_string(), self::value(v, &any_of(v)));
            Some(Val::MapVal(Map {
                val: members.iter().map(member).collect(),
            }))
        }
        Value::Map(entries) => {
            let entry = |(k, v): &(Value, Value)| (value_to_text(k), self::value(v, &any_of(v)));
            Some(Val::MapVal(Map {
                val: entries.iter().map(entry).collect(),
            }))
        }
    };
    FeastValue { val }
}

/// A type that a nested value may have: that of its first item, for lists.
fn any_of(value: &Value) -> DataType {
    match value {
        Value::Bool(_) => DataType::Bool,
        Value::Int(_) => DataType::Int64,
        Value::Float(_) => DataType::Float64,
        Value::Timestamp(_) => DataType::Timestamp,
        Value::Date(_) => DataType::Date,
        Value::Bytes(_) => DataType::Bytes,
        Value::List(items) => {
            let first = items.iter().find(|i| !i.is_null());
            DataType::List(first.map_or(DataType::String, any_of).into())
        }
        _ => DataType::String,
    }
}

/// A list of scalars has a kind of its own; lists within lists and lists with nulls are lists of values.
fn list(items: &[Value], data_type: &DataType) -> Val {
    let item_type = match data_type {
        DataType::List(item) => item.as_ref(),
        _ => &DataType::String,
    };
    macro_rules! scalars {
        ($kind:ident, $list:ident, $pattern:pat => $value:expr) => {{
            let scalars = items.iter().map(|item| match item {
                $pattern => Some($value),
                _ => None,
            });
            let scalars: Option<Vec<_>> = scalars.collect();
            scalars.map(|val| Val::$kind($list { val }))
        }};
    }
    let scalars = match item_type {
        DataType::Bool => scalars!(BoolListVal, BoolList, Value::Bool(v) => *v),
        DataType::Int64 => scalars!(Int64ListVal, Int64List, Value::Int(v) => *v),
        DataType::Float64 => scalars!(DoubleListVal, DoubleList, Value::Float(v) => *v),
        DataType::Bytes => scalars!(BytesListVal, BytesList, Value::Bytes(v) => v.to_vec()),
        DataType::String => scalars!(StringListVal, StringList, Value::String(v) => v.to_string()),
        DataType::Timestamp | DataType::Date => {
            let seconds: Option<Vec<i64>> = items.iter().map(unix_seconds).collect();
            seconds.map(|val| Val::UnixTimestampListVal(Int64List { val }))
        }
        _ => None,
    };
    scalars.unwrap_or_else(|| {
        Val::ListVal(RepeatedValue {
            val: items.iter().map(|i| value(i, &any_of(i))).collect(),
        })
    })
}
