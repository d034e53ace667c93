//! Problems as gRPC statuses, with the standard error details.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{Response, StatusCode, header};
use axum::middleware::Next;
use headwater_schema::Blame;
use prost::Message;
use prost_types::Any;
use tonic::{Code, Status};

use super::proto::rpc;
use crate::error::{ApiError, status};

/// Who speaks in an `ErrorInfo`.
const DOMAIN: &str = "headwater";
const ERROR_INFO: &str = "type.googleapis.com/google.rpc.ErrorInfo";

/// The code that an HTTP status stands for.
pub fn code(status: StatusCode) -> Code {
    match status {
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        StatusCode::NOT_FOUND => Code::NotFound,
        StatusCode::METHOD_NOT_ALLOWED => Code::Unimplemented,
        StatusCode::CONFLICT => Code::Aborted,
        StatusCode::GONE => Code::OutOfRange,
        StatusCode::PAYLOAD_TOO_LARGE
        | StatusCode::TOO_MANY_REQUESTS
        | StatusCode::INSUFFICIENT_STORAGE => Code::ResourceExhausted,
        StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
        StatusCode::GATEWAY_TIMEOUT | StatusCode::REQUEST_TIMEOUT => Code::DeadlineExceeded,
        other if other.is_client_error() => Code::InvalidArgument,
        _ => Code::Internal,
    }
}

/// A problem as a status.
pub fn refuse(problem: impl Into<ApiError>) -> Status {
    let problem = problem.into().0;
    let code = code(status(&problem));
    if problem.blame == Blame::Internal {
        tracing::error!(
            code = problem.code,
            detail = problem.detail,
            "internal error"
        );
        return Status::new(code, "the server's log tells more");
    }
    let texts = [
        ("title", problem.title.as_str()),
        ("detail", problem.detail.as_str()),
        ("hint", problem.hint.as_str()),
        ("field", problem.field.as_deref().unwrap_or_default()),
    ];
    let message = problem.to_string().replace("\n  hint: ", "; ");
    with_info(code, message, problem.code, &texts)
}

/// A status whose details hold an `ErrorInfo`.
fn with_info(code: Code, message: String, reason: &str, texts: &[(&str, &str)]) -> Status {
    let told = texts.iter().filter(|(_, text)| !text.is_empty());
    let info = rpc::ErrorInfo {
        reason: reason.to_owned(),
        domain: DOMAIN.to_owned(),
        metadata: told
            .map(|(n, t)| ((*n).to_owned(), (*t).to_owned()))
            .collect(),
    };
    let details = rpc::Status {
        code: code.into(),
        message: message.clone(),
        details: vec![Any {
            type_url: ERROR_INFO.to_owned(),
            value: info.encode_to_vec(),
        }],
    };
    Status::with_details(code, message, details.encode_to_vec().into())
}

/// Says in gRPC's words what was refused before a service heard of it.
pub async fn in_grpc(request: Request, next: Next) -> Response<Body> {
    const DOCUMENT_BYTES_MAX: usize = 64 << 10;
    let response = next.run(request).await;
    let media_type = response.headers().get(header::CONTENT_TYPE);
    let spoken = media_type.is_some_and(|t| t.as_bytes().starts_with(b"application/grpc"));
    if spoken {
        return response;
    }
    let (parts, body) = response.into_parts();
    let body = axum::body::to_bytes(body, DOCUMENT_BYTES_MAX).await;
    let document: serde_json::Value =
        serde_json::from_slice(&body.unwrap_or_default()).unwrap_or_default();
    let text = |name: &str| document[name].as_str().unwrap_or_default();
    let code = match parts.status {
        // No service has such a call.
        StatusCode::NOT_FOUND => Code::Unimplemented,
        status => code(status),
    };
    let reason = text("type").rsplit(':').next().unwrap_or_default();
    let texts = ["title", "detail", "hint", "field"].map(|name| (name, text(name)));
    let message = match text("detail") {
        "" => text("title").to_owned(),
        detail => format!("{}: {detail}", text("title")),
    };
    let mut refused: Response<Body> = with_info(code, message, reason, &texts).into_http();
    if let Some(id) = parts.headers.get("x-request-id") {
        refused.headers_mut().insert("x-request-id", id.clone());
    }
    refused
}
