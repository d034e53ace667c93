//! The server as a process of its own, and a client for it.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::TempProject;

/// A running server; killed when it is dropped.
pub struct ServerProcess {
    child: Child,
    pub url: String,
    pub grpc_url: String,
}

/// An answer: its status and its body.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub media_type: String,
    pub body: String,
    /// The body as it came, where it is no text.
    pub bytes: Vec<u8>,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("JSON")
    }
}

impl ServerProcess {
    /// Starts `headwater serve` on a free port and waits until it listens.
    pub fn start(project: &TempProject) -> Self {
        Self::start_with(project, Stdio::inherit())
    }

    /// The same, with what it says on standard error in the file `server.log` of the project.
    pub fn start_logged(project: &TempProject) -> Self {
        let log = std::fs::File::create(project.path().join("server.log"));
        Self::start_with(project, log.expect("a file").into())
    }

    fn start_with(project: &TempProject, stderr: Stdio) -> Self {
        let mut child = Command::new(project.binary())
            .args(["serve", "--listen", "127.0.0.1:0"])
            .current_dir(project.path())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .expect("the server starts");
        let stdout = child.stdout.take().expect("its output");
        let mut stdout = BufReader::new(stdout);
        let mut told = |prefix: &str| {
            let mut line = String::new();
            stdout.read_line(&mut line).expect("a line");
            let url = line.trim().strip_prefix(prefix).unwrap_or_default();
            assert!(url.starts_with("http"), "the server said: {line:?}");
            url.to_owned()
        };
        let url = told("listening on ");
        let grpc_url = told("listening for gRPC on ");
        Self {
            child,
            url,
            grpc_url,
        }
    }

    /// SIGKILL: the process gets no chance to tidy up.
    pub fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("gone");
    }

    /// SIGTERM, and waits for an orderly end; whether it was one.
    pub fn stop(self) -> bool {
        self.terminate();
        self.wait() == Some(0)
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        let pid = self.child.id().to_string();
        Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .expect("signalled");
    }

    /// Waits for the end; its exit code.
    pub fn wait(mut self) -> Option<i32> {
        self.child.wait().expect("gone").code()
    }

    pub fn get(&self, path: &str) -> Reply {
        call("GET", &format!("{}{path}", self.url), None, b"")
    }

    pub fn post(&self, path: &str, media_type: &str, body: impl AsRef<[u8]>) -> Reply {
        call(
            "POST",
            &format!("{}{path}", self.url),
            Some(media_type),
            body.as_ref(),
        )
    }

    pub fn post_json(&self, path: &str, body: &Value) -> Reply {
        self.post(path, "application/json", body.to_string())
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One call; statuses of failure are answers too.
pub fn call(method: &str, url: &str, media_type: Option<&str>, body: &[u8]) -> Reply {
    let headers = media_type.map(|m| ("content-type", m));
    call_with(method, url, headers.as_slice(), body)
}

/// One call with headers.
pub fn call_with(method: &str, url: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
    Client::default().call(method, url, headers, body)
}

/// A client that keeps its connections, for loads.
pub struct Client(ureq::Agent);

impl Default for Client {
    fn default() -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(60)))
            .http_status_as_error(false);
        Self(config.build().into())
    }
}

impl Client {
    /// One call; what keeps it from being answered at all is an error.
    pub fn try_call(
        &self,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Reply, ureq::Error> {
        let mut request = ureq::http::Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut answer = self.0.run(request.body(body.to_vec())?)?;
        let media_type = answer
            .headers()
            .get("content-type")
            .and_then(|t| t.to_str().ok());
        let media_type = media_type.unwrap_or_default().to_owned();
        let bytes = answer.body_mut().read_to_vec()?;
        Ok(Reply {
            status: answer.status().as_u16(),
            media_type,
            body: String::from_utf8_lossy(&bytes).into_owned(),
            bytes,
        })
    }

    /// One call, which has to be answered.
    pub fn call(&self, method: &str, url: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let answer = self.try_call(method, url, headers, body);
        answer.expect("an answer")
    }
}
