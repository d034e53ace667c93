//! Where a model's predictions are sent to, as it is declared.

use headwater_schema::{Micros, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::window::duration;

/// How long a delivery may take unless its declaration says otherwise.
const TIMEOUT_DEFAULT: Micros = 10_000_000;
/// The longest that it may say.
const TIMEOUT_MAX: Micros = 60_000_000;
/// Characters of a webhook's URL.
pub const URL_CHARACTERS_MAX: usize = 2048;

/// Where predictions are sent to.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PushSpec {
    pub webhook: WebhookSpec,
}

/// A server that predictions are posted to.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookSpec {
    /// Begins with `http://` or `https://`.
    pub url: String,
    /// The environment variable that holds the secret that deliveries are signed with; without it they aren't.
    #[serde(default)]
    pub secret_env: Option<String>,
    /// How long one delivery may take: 10s by default, at most 60s.
    #[serde(default)]
    pub timeout: Option<String>,
}

/// A server that predictions are posted to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    pub url: String,
    pub secret_env: Option<String>,
    pub timeout: Micros,
}

pub(super) fn read_push(
    spec: &PushSpec,
    at: &dyn Fn(Problem, &str) -> Problem,
) -> Result<Webhook, Problem> {
    let WebhookSpec {
        url,
        secret_env,
        timeout,
    } = &spec.webhook;
    let rest = ["http://", "https://"]
        .iter()
        .find_map(|scheme| url.strip_prefix(scheme));
    let host = rest.and_then(|rest| rest.split(['/', '?', '#']).next());
    let plain = |c: char| c.is_ascii_graphic();
    let named = host.is_some_and(|host| !host.is_empty() && !host.contains('@'));
    if !named || url.len() > URL_CHARACTERS_MAX || !url.chars().all(plain) {
        let problem = Problem::user("invalid-url", format!("`{url}` is no URL of a webhook"))
            .hint("write `http://HOST/PATH` or `https://HOST/PATH`; what is secret belongs in `secret_env`");
        return Err(at(problem, "push/webhook/url"));
    }
    if let Some(name) = secret_env {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty() || !name.chars().all(plain) {
            let title = format!("`{name}` is no environment variable");
            let problem = Problem::user("invalid-definition", title).hint(
                "name the variable that holds the secret, as in `secret_env: WEBHOOK_SECRET`",
            );
            return Err(at(problem, "push/webhook/secret_env"));
        }
    }
    let timeout = match timeout {
        None => TIMEOUT_DEFAULT,
        Some(text) => duration(text).map_err(|p| at(p, "push/webhook/timeout"))?,
    };
    if !(1..=TIMEOUT_MAX).contains(&timeout) {
        let problem = Problem::user("invalid-duration", "the timeout is out of range")
            .hint("write between 1ms and 60s, as in `timeout: 10s`");
        return Err(at(problem, "push/webhook/timeout"));
    }
    Ok(Webhook {
        url: url.clone(),
        secret_env: secret_env.clone(),
        timeout,
    })
}
