//! The same verbs against a running server.

use std::io::{self, Read};
use std::time::Duration;

use headwater_schema::{Location, Problem};
use serde_json::Value;
use ureq::SendBody;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

/// How long a call may take.
const CALL: Duration = Duration::from_secs(120);

/// Bytes whose end, where it comes too early, no reader takes for the end.
pub struct Unbroken<R>(R);

impl<R: Read> Read for Unbroken<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(io::Error::other)
    }
}

/// A running server.
pub struct Remote {
    base: String,
    key: Option<String>,
    agent: ureq::Agent,
}

impl Remote {
    /// The server at `base`. `ca` are certificates in PEM to trust instead of the public ones.
    pub fn new(base: &str, key: Option<&str>, ca: Option<&[u8]>) -> Result<Self, Problem> {
        let mut tls = TlsConfig::builder();
        if let Some(pem) = ca {
            tls = tls.root_certs(RootCerts::new_with_certs(&certificates(pem)?));
        }
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(CALL))
            .http_status_as_error(false)
            .tls_config(tls.build())
            .build();
        Ok(Self {
            base: base.trim_end_matches('/').to_owned(),
            key: key.map(|key| format!("Bearer {key}")),
            agent: config.into(),
        })
    }

    pub fn get(&self, path: &str, query: &[(&str, String)]) -> Result<Value, Problem> {
        self.get_all(path, query).map_err(first)
    }

    fn get_all(&self, path: &str, query: &[(&str, String)]) -> Result<Value, Vec<Problem>> {
        let mut request = self.agent.get(format!("{}{path}", self.base));
        for (name, value) in query {
            request = request.query(*name, value);
        }
        if let Some(key) = &self.key {
            request = request.header("authorization", key);
        }
        self.read(request.call())
    }

    /// Text of at most so many bytes.
    pub fn text(&self, path: &str, bytes_max: u64) -> Result<String, Problem> {
        let mut request = self.agent.get(format!("{}{path}", self.base));
        if let Some(key) = &self.key {
            request = request.header("authorization", key);
        }
        let mut answer = request.call().map_err(|e| self.unreachable(e))?;
        if !answer.status().is_success() {
            return self.read(Ok(answer)).map_err(first).map(|v| v.to_string());
        }
        let body = answer.body_mut().with_config().limit(bytes_max);
        body.read_to_string().map_err(|e| self.unreachable(e))
    }

    pub fn post(&self, path: &str, media_type: &str, body: &[u8]) -> Result<Value, Problem> {
        self.post_all(path, media_type, body).map_err(first)
    }

    pub fn delete(&self, path: &str) -> Result<Value, Problem> {
        let mut request = self.agent.delete(format!("{}{path}", self.base));
        if let Some(key) = &self.key {
            request = request.header("authorization", key);
        }
        self.read(request.call()).map_err(first)
    }

    /// Sends JSON and gives what is answered as it comes, in the format that is accepted.
    pub fn post_for_bytes(
        &self,
        path: &str,
        accept: &str,
        body: &serde_json::Value,
    ) -> Result<Unbroken<impl Read + use<>>, Problem> {
        let mut request = self.agent.post(format!("{}{path}", self.base));
        request = request.header("accept", accept);
        if let Some(key) = &self.key {
            request = request.header("authorization", key);
        }
        self.answer(request.send_json(body))
    }

    /// Sends a body as it is read, and gives what is answered as it comes, both for as long as they take.
    pub fn post_reader(
        &self,
        path: &str,
        query: &[(&str, String)],
        media_type: &str,
        body: &mut dyn Read,
    ) -> Result<Unbroken<impl Read + use<>>, Problem> {
        let mut request = self.agent.post(format!("{}{path}", self.base));
        for (name, value) in query {
            request = request.query(*name, value);
        }
        if let Some(key) = &self.key {
            request = request.header("authorization", key);
        }
        // A server that refuses before it reads says so before the body is sent, which would break off otherwise.
        let request = request.header("expect", "100-continue");
        let request = request.content_type(media_type).config();
        let request = request.timeout_global(None).build();
        self.answer(request.send(SendBody::from_reader(body)))
    }

    fn answer(
        &self,
        answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<Unbroken<impl Read + use<>>, Problem> {
        let answer = answer.map_err(|e| self.unreachable(e))?;
        if answer.status().is_success() {
            return Ok(Unbroken(answer.into_body().into_reader()));
        }
        match self.read(Ok(answer)) {
            Err(problems) => Err(first(problems)),
            Ok(_) => Err(first(Vec::new())),
        }
    }

    fn unreachable(&self, error: ureq::Error) -> Problem {
        let detail = error.to_string();
        // What rustls says where nobody that we know has signed the certificate.
        if detail.contains("UnknownIssuer") {
            let title = format!("the certificate of {} isn't trusted", self.base);
            return Problem::external("untrusted-certificate", title)
                .detail(detail)
                .hint("name the certificate that signed it with `--ca FILE`");
        }
        Problem::external("unreachable", format!("{} doesn't answer", self.base))
            .detail(detail)
            .hint("start it with `headwater serve`")
            .retryable()
    }

    /// As [`Remote::post`], with every problem that the reply lists.
    pub fn post_all(
        &self,
        path: &str,
        media_type: &str,
        body: &[u8],
    ) -> Result<Value, Vec<Problem>> {
        let mut request = self.agent.post(format!("{}{path}", self.base));
        if let Some(key) = &self.key {
            request = request.header("authorization", key);
        }
        self.read(request.content_type(media_type).send(body))
    }

    fn read(
        &self,
        answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<Value, Vec<Problem>> {
        let unreachable = |error: ureq::Error| vec![self.unreachable(error)];
        let mut answer = answer.map_err(unreachable)?;
        let status = answer.status();
        let body: Value = answer.body_mut().read_json().map_err(unreachable)?;
        if status.is_success() {
            return Ok(body);
        }
        match body["problems"].as_array() {
            Some(several) => Err(several.iter().map(problem).collect()),
            None => Err(vec![problem(&body)]),
        }
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<Certificate<'static>>, Problem> {
    let wrong = |detail: String| {
        Problem::user("invalid-certificate", "`--ca` holds no certificates")
            .detail(detail)
            .hint("give a file of certificates in PEM")
    };
    let mut found = Vec::new();
    for item in parse_pem(pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|e| wrong(e.to_string()))? {
            found.push(certificate);
        }
    }
    if found.is_empty() {
        return Err(wrong("there is none in the file".into()));
    }
    Ok(found)
}

fn first(problems: Vec<Problem>) -> Problem {
    let mut problems = problems.into_iter();
    let none = || Problem::external("refused", "the server refused and said nothing");
    problems.next().unwrap_or_else(none)
}

/// A problem document as the problem it was.
fn problem(document: &Value) -> Problem {
    let text = |name: &str| document[name].as_str().unwrap_or_default().to_owned();
    let mut problem = Problem::external("refused", text("title"))
        .detail(text("detail"))
        .hint(text("hint"));
    problem.field = document["field"].as_str().map(str::to_owned);
    let at = &document["location"];
    let number = |name: &str| at[name].as_u64().and_then(|n| usize::try_from(n).ok());
    if let (Some(file), Some(line), Some(column)) =
        (at["file"].as_str(), number("line"), number("column"))
    {
        problem.location = Some(Location {
            file: file.to_owned(),
            line,
            column,
        });
    }
    problem
}
