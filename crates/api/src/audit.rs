//! What is written down about who did what, and `/v1/audit`, which shows it; the engine's side keeps it.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::Response;
use headwater_schema::Problem;
use schemars::{JsonSchema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::error::ApiError;
use crate::facts::limit;
use crate::features::json_reply;
use crate::openapi::{Paths, query, replies};
use crate::server::Shared;

/// Something that is worth remembering. Never holds a key, only its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEvent {
    /// The id of a key, `anyone`, or `command line`.
    pub actor: String,
    /// What was done, as in `key.use`.
    pub action: String,
    pub target: String,
    /// `ok`, or why not.
    pub result: String,
}

impl AuditEvent {
    pub fn new(actor: &str, action: &str, target: &str, result: &str) -> Self {
        Self {
            actor: actor.into(),
            action: action.into(),
            target: target.into(),
            result: result.into(),
        }
    }
}

/// The names of changed definitions that a record of an apply has room for.
const NAMED_MAX: usize = 20;

impl AuditEvent {
    /// Definitions were put in force, or weren't: what `plan` would have said of it, in a line.
    pub fn applied(actor: &str, project: &str, applied: Result<&Value, &[Problem]>) -> Self {
        let result = match applied {
            Ok(plan) => changes(plan),
            Err(problems) => {
                let codes: Vec<&str> = problems.iter().map(|p| p.code).collect();
                codes.join(", ")
            }
        };
        Self::new(actor, "definitions.apply", project, &result)
    }
}

fn changes(plan: &Value) -> String {
    let items = plan["items"].as_array().map_or(&[][..], Vec::as_slice);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let named = |item: &Value| {
        let (action, kind) = (text(&item["action"]), text(&item["kind"]));
        format!("{action} {kind} {}", text(&item["name"]))
    };
    let mut said: Vec<String> = items.iter().take(NAMED_MAX).map(named).collect();
    if items.len() > NAMED_MAX {
        said.push(format!("{} more", items.len() - NAMED_MAX));
    }
    if said.is_empty() {
        said.push("no changes".into());
    }
    match plan["version"].as_u64() {
        Some(version) => format!("registry version {version}: {}", said.join(", ")),
        None => said.join(", "),
    }
}

/// An event as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AuditEntry {
    /// The format of the entry.
    pub version: u32,
    /// RFC 3339, UTC.
    pub time: String,
    /// The id of a key, `anyone`, or `command line`.
    pub actor: String,
    pub action: String,
    pub target: String,
    pub result: String,
}

/// Which entries to show.
#[derive(Debug, Clone, Default)]
pub struct AuditQuery {
    /// The newest, this many.
    pub limit: usize,
    /// Those before a place that an [`AuditPage`] named.
    pub before: Option<String>,
    pub actor: Option<String>,
    pub action: Option<String>,
}

/// Some entries.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub struct AuditPage {
    /// Newest last.
    pub entries: Vec<AuditEntry>,
    /// What `before` is for those before these; null where there are none.
    pub before: Option<String>,
}

/// Keeps events. Never fails a request: what can't be kept is logged.
pub trait Audit: Send + Sync {
    fn record(&self, event: &AuditEvent);

    /// The newest events that a query asks for.
    fn page(&self, query: &AuditQuery) -> Result<AuditPage, Problem>;
}

/// Keeps nothing.
pub struct Unheard;

impl Audit for Unheard {
    fn record(&self, _event: &AuditEvent) {}

    fn page(&self, _query: &AuditQuery) -> Result<AuditPage, Problem> {
        Ok(AuditPage::default())
    }
}

/// Parameters of the listing.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditParameters {
    #[serde(default)]
    limit: Option<usize>,
    #[serde(default)]
    before: Option<String>,
    #[serde(default)]
    actor: Option<String>,
    #[serde(default)]
    action: Option<String>,
}

/// Lists who did what.
pub async fn get_audit(
    State(shared): State<Shared>,
    Query(parameters): Query<AuditParameters>,
) -> Result<Response<Body>, ApiError> {
    let asked = AuditQuery {
        limit: limit(parameters.limit, shared.limits.listed_max)?,
        before: parameters.before,
        actor: parameters.actor,
        action: parameters.action,
    };
    let audit = shared.auth.audit().clone();
    let page = tokio::task::spawn_blocking(move || audit.page(&asked)).await;
    let panicked = |e| ApiError(Problem::internal("audit", "listing panicked").detail(e));
    json_reply(&page.map_err(panicked)??)
}

/// This call in the OpenAPI document.
pub fn paths(generator: &mut SchemaGenerator) -> Paths {
    let text = || json!({"type": "string"});
    let get = json!({
        "summary": "Who did what, newest last",
        "parameters": [
            query("limit", json!({"type": "integer", "minimum": 1}), "the newest, this many"),
            query("before", text(), "the `before` of another page: the entries before it"),
            query("actor", text(), "a key's id, `anyone`, or `command line`"),
            query("action", text(), "as in `key.use`")],
        "responses": replies("A page of the record", generator.subschema_for::<AuditPage>())
    });
    vec![("/v1/audit".to_owned(), json!({ "get": get }))]
}

/// Refusals that are written down within a minute: whoever knocks all day must not fill the disk.
const REFUSALS_PER_MINUTE_MAX: u32 = 60;

/// Bounds how many refusals are written down.
#[derive(Default)]
pub(crate) struct Refusals(Mutex<Option<(Instant, u32)>>);

impl Refusals {
    pub(crate) fn may_tell(&self) -> bool {
        const MINUTE: Duration = Duration::from_secs(60);
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *state {
            Some((since, count)) if since.elapsed() < MINUTE => {
                *count += 1;
                *count <= REFUSALS_PER_MINUTE_MAX
            }
            state => {
                *state = Some((Instant::now(), 1));
                true
            }
        }
    }
}
