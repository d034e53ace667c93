//! The same verbs against a running server.

use std::time::Duration;

use headwater_schema::Problem;
use serde_json::Value;

/// How long a call may take.
const CALL: Duration = Duration::from_secs(120);

/// A running server.
pub struct Remote {
    base: String,
    agent: ureq::Agent,
}

impl Remote {
    pub fn new(base: &str) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(CALL))
            .http_status_as_error(false)
            .build();
        Self {
            base: base.trim_end_matches('/').to_owned(),
            agent: config.into(),
        }
    }

    pub fn get(&self, path: &str, query: &[(&str, String)]) -> Result<Value, Problem> {
        let mut request = self.agent.get(format!("{}{path}", self.base));
        for (name, value) in query {
            request = request.query(*name, value);
        }
        self.read(request.call())
    }

    pub fn post(&self, path: &str, media_type: &str, body: &[u8]) -> Result<Value, Problem> {
        let request = self.agent.post(format!("{}{path}", self.base));
        self.read(request.content_type(media_type).send(body))
    }

    fn read(
        &self,
        answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<Value, Problem> {
        let unreachable = |error: ureq::Error| {
            Problem::external("unreachable", format!("{} doesn't answer", self.base))
                .detail(error)
                .hint("start it with `headwater serve`")
                .retryable()
        };
        let mut answer = answer.map_err(unreachable)?;
        let status = answer.status();
        let body: Value = answer.body_mut().read_json().map_err(unreachable)?;
        if status.is_success() {
            return Ok(body);
        }
        let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        let mut problem = Problem::external("refused", text("title"))
            .detail(text("detail"))
            .hint(text("hint"));
        problem.field = body["field"].as_str().map(str::to_owned);
        Err(problem)
    }
}
