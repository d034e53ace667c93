//! `headwater.v1.Features`.

use headwater_aggregate::Status as FeatureStatus;
use headwater_schema::Problem;
use tonic::{Request, Response, Status};

use super::error::refuse;
use super::proto::headwater::features_server::Features;
use super::proto::headwater::{self as proto, EntityRow, ReadReply, ReadRequest, Struct, Value};
use super::values::{to_key, to_lines, to_proto};
use crate::backend::{
    ContextRow, EntityRequest, FeatureRow, FeaturesRequest, KeyValue, StaleSource,
};
use crate::body::known_at;
use crate::error::{ApiError, malformed};
use crate::feature_read;
use crate::limits::Limits;
use crate::server::Shared;

/// Reads features.
pub struct Service(pub Shared);

#[tonic::async_trait]
impl Features for Service {
    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<ReadReply>, Status> {
        let Self(shared) = self;
        let request = read_request(request.into_inner(), &shared.limits).map_err(refuse)?;
        let reply = shared.backend.features(&request).map_err(refuse)?;
        Ok(Response::new(ReadReply {
            names: reply.names.iter().map(|n| n.to_string()).collect(),
            rows: reply.rows.iter().map(row).collect(),
            as_of: reply.as_of,
            sequence: reply.sequence.to_string(),
            error_bounds: reply
                .error_bounds
                .iter()
                .map(|(name, bound)| (name.to_string(), *bound))
                .collect(),
            stale_sources: reply.stale_sources.into_iter().map(stale).collect(),
        }))
    }
}

fn stale(source: StaleSource) -> proto::StaleSource {
    proto::StaleSource {
        contract: source.contract.to_string(),
        newest: source.newest,
        expected_within: source.expected_within.to_string(),
    }
}

pub(super) fn read_request(
    request: ReadRequest,
    limits: &Limits,
) -> Result<FeaturesRequest, ApiError> {
    // What is left out of a message is empty in it.
    let features = Some(request.features).filter(|list| !list.is_empty());
    let feature_set = Some(request.feature_set).filter(|set| !set.is_empty());
    let names = feature_read::list_or_set(features, feature_set)?;
    let (entities, contexts) = (request.entities.len(), request.context.len());
    feature_read::check_size(&names, entities, contexts, limits)?;
    let known = Some(request.known_at).filter(|k| !k.is_empty());
    Ok(FeaturesRequest {
        names,
        entities: feature_read::entities(&request.entities, entity)?,
        as_of: request.as_of,
        known_at: known.map(|k| known_at("known_at", &k)).transpose()?,
        context: context(&request.context)?,
        inclusive: !request.exclusive,
        lenient: false,
    })
}

/// The request's own fields, as JSON has them.
pub(super) fn context(rows: &[Struct]) -> Result<Vec<ContextRow>, ApiError> {
    let row = |row: &Struct| {
        serde_json::from_slice(&to_lines(std::slice::from_ref(row)))
            .map_err(|e| malformed(format!("`context` can't be read: {e}")))
    };
    rows.iter().map(row).collect()
}

/// The entities of one row.
pub(super) fn entity(row: &EntityRow) -> Result<EntityRequest, Problem> {
    let keys = row.keys.iter();
    let keys = keys.map(|(name, value)| Ok((name.clone(), key(|| name.clone(), value)?)));
    keys.collect()
}

/// A key that stands at a place of the request.
pub(super) fn key(place: impl FnOnce() -> String, value: &Value) -> Result<KeyValue, Problem> {
    to_key(value).ok_or_else(|| {
        Problem::user("wrong-key-type", "a key has a type that no key has")
            .field(place())
            .hint("keys are texts, integers, bools, dates or times, or a struct of such columns")
    })
}

fn row(row: &FeatureRow) -> proto::FeatureRow {
    let features = row.values.iter().zip(&row.statuses).zip(&row.event_times);
    let feature =
        |((value, status), time): ((_, &FeatureStatus), &Option<i64>)| proto::FeatureValue {
            value: Some(to_proto(value)),
            status: status_of(*status).into(),
            event_time: *time,
        };
    proto::FeatureRow {
        features: features.map(feature).collect(),
    }
}

fn status_of(status: FeatureStatus) -> proto::Status {
    match status {
        FeatureStatus::Present => proto::Status::Present,
        FeatureStatus::NullValue => proto::Status::NullValue,
        FeatureStatus::NotFound => proto::Status::NotFound,
        FeatureStatus::OutsideMaxAge => proto::Status::OutsideMaxAge,
        FeatureStatus::Undefined => proto::Status::Undefined,
        FeatureStatus::Overflow => proto::Status::Overflow,
        FeatureStatus::Backfilling => proto::Status::Backfilling,
    }
}
