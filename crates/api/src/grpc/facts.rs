//! `headwater.v1.Facts`: batches, and feeds without an end.

use std::time::Duration;

use axum::body::Bytes;
use futures_util::stream::{BoxStream, StreamExt, unfold};
use headwater_schema::Problem;
use headwater_schema::decode::BodyFormat;
use tokio::sync::OwnedSemaphorePermit;
use tonic::{Request, Response, Status, Streaming};

use super::error::refuse;
use super::proto::headwater::append_request::Body;
use super::proto::headwater::facts_server::Facts;
use super::proto::headwater::{
    Acknowledgement, AppendReply, AppendRequest, Rejected, RetractReply, RetractRequest,
};
use super::values::to_lines;
use crate::backend::{IngestOptions, IngestReply, RejectedFact};
use crate::error::malformed;
use crate::facts::ingest;
use crate::feed::{self, Acknowledgements, Feed};
use crate::feed_lines::{idled, place, stopped};
use crate::retract::retract;
use crate::server::Shared;

/// Takes facts.
pub struct Service(pub Shared);

#[tonic::async_trait]
impl Facts for Service {
    async fn append(
        &self,
        request: Request<AppendRequest>,
    ) -> Result<Response<AppendReply>, Status> {
        let request = request.into_inner();
        let options = IngestOptions {
            all_or_nothing: request.all_or_nothing,
            revise: request.revise,
        };
        let (format, body) = body(request.body).map_err(refuse)?;
        let reply = ingest(&self.0, &request.contract, format, body, options).await;
        reply.map(appended).map(Response::new).map_err(refuse)
    }

    async fn retract(
        &self,
        request: Request<RetractRequest>,
    ) -> Result<Response<RetractReply>, Status> {
        let RetractRequest { contract, fact_ids } = request.into_inner();
        let reply = retract(&self.0, &contract, fact_ids)
            .await
            .map_err(refuse)?;
        Ok(Response::new(RetractReply {
            retracted: reply.retracted as u64,
            unknown: reply.unknown,
            sequence: reply.sequence.to_string(),
        }))
    }

    type FeedStream = BoxStream<'static, Result<Acknowledgement, Status>>;

    async fn feed(
        &self,
        request: Request<Streaming<AppendRequest>>,
    ) -> Result<Response<Self::FeedStream>, Status> {
        let Self(shared) = self;
        let place = place(shared).map_err(refuse)?;
        let (feed, told) = feed::open(shared.backend.clone(), &shared.limits);
        tokio::spawn(take(shared.clone(), request.into_inner(), feed, place));
        Ok(Response::new(acknowledgements(told)))
    }
}

pub(super) fn appended(reply: IngestReply) -> AppendReply {
    AppendReply {
        accepted: reply.accepted as u64,
        duplicates: reply.duplicates as u64,
        rejected: reply.rejected.into_iter().map(rejected).collect(),
        sequence: reply.sequence.to_string(),
    }
}

fn rejected(rejected: RejectedFact) -> Rejected {
    Rejected {
        row: rejected.row as u64,
        field: rejected.field,
        reason: rejected.reason,
    }
}

pub(super) fn body(body: Option<Body>) -> Result<(BodyFormat, Bytes), Problem> {
    Ok(match body {
        Some(Body::Rows(rows)) => (BodyFormat::Ndjson, to_lines(&rows.rows).into()),
        Some(Body::Ndjson(lines)) => (BodyFormat::Ndjson, lines.into()),
        Some(Body::ArrowStream(stream)) => (BodyFormat::ArrowStream, stream.into()),
        None => return Err(malformed("send `rows`, `ndjson` or an `arrow_stream`").0),
    })
}

/// Acknowledgements as they come, and an error at the end where there was one.
fn acknowledgements(told: Acknowledgements) -> BoxStream<'static, Result<Acknowledgement, Status>> {
    let next = |(mut told, failed): (Acknowledgements, Option<Problem>)| async move {
        if let Some(problem) = failed {
            return Some((Err(refuse(problem)), (told, None)));
        }
        let next = told.next().await?;
        let progress = next.progress;
        let done = matches!(next.end, Some(Ok(())));
        let failed = next.end.and_then(Result::err);
        let acknowledgement = Acknowledgement {
            batches: progress.batches,
            rows: progress.rows,
            accepted: progress.accepted,
            duplicates: progress.duplicates,
            rejected_rows: progress.rejected_rows,
            rejected: progress.rejected.into_iter().map(rejected).collect(),
            sequence: progress.sequence.map(|s| s.to_string()).unwrap_or_default(),
            done,
        };
        Some((Ok(acknowledgement), (told, failed)))
    };
    unfold((told, None), next).boxed()
}

async fn take(
    shared: Shared,
    messages: Streaming<AppendRequest>,
    feed: Feed,
    _place: OwnedSemaphorePermit,
) {
    let mut stopping = shared.stopping.clone();
    let taken = tokio::select! {
        taken = take_messages(&shared, messages, &feed) => taken,
        () = feed.ended() => Ok(()),
        _ = stopping.wait_for(|stopping| *stopping) => Err(stopped()),
    };
    feed.finish(taken);
}

/// Takes messages to their end. The next is read once there is room for it, so that a sender which is
/// too fast is held up by flow control.
async fn take_messages(
    shared: &Shared,
    mut messages: Streaming<AppendRequest>,
    feed: &Feed,
) -> Result<(), Problem> {
    let idle = Duration::from_millis(shared.limits.feed_idle_ms_max);
    let mut contract = String::new();
    while let Some(ready) = feed.ready().await {
        let message = tokio::time::timeout(idle, messages.message());
        let message = message.await.map_err(|_| idled(&shared.limits))?;
        let message = message.map_err(|status| {
            malformed(format!("the stream can't be read: {}", status.message())).0
        })?;
        let Some(message) = message else { break };
        if message.all_or_nothing {
            return Err(malformed("`all_or_nothing` isn't for feeds").0);
        }
        let options = IngestOptions {
            all_or_nothing: false,
            revise: message.revise,
        };
        if !message.contract.is_empty() {
            contract = message.contract;
            shared.backend.contract(&contract)?;
        }
        let (format, body) = body(message.body)?;
        ready.take(&contract, format, body, options).await?;
    }
    Ok(())
}
