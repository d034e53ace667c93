//! Who may call what: every call against every kind of key, from outside.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use headwater_api::grpc::proto::headwater::append_request::Body;
use headwater_api::grpc::proto::headwater::facts_client::FactsClient;
use headwater_api::grpc::proto::headwater::{AppendRequest, Rows};
use headwater_api::{Access, RULES, Role};
use headwater_testkit::{Reply, ServerProcess, TempProject, call_with};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tonic::Code;
use tonic::codegen::{BoxFuture, Service};
use tonic::transport::{Channel, Endpoint, Uri};

use crate::{BINARY, SHOP};

pub fn key(project: &TempProject, roles: &[&str]) -> String {
    let roles = roles.iter().flat_map(|r| ["--role", r]);
    let arguments: Vec<&str> = ["keys", "create"].into_iter().chain(roles).collect();
    project.run_ok(&arguments).trim().to_owned()
}

fn try_call(server: &ServerProcess, method: &str, path: &str, key: Option<&str>) -> Reply {
    let bearer = key.map(|k| format!("Bearer {k}"));
    let headers = bearer.as_deref().map(|b| ("authorization", b));
    let path = path
        .replace("{contract}", "purchase")
        .replace("{kind}", "views");
    call_with(
        method,
        &format!("{}{path}", server.url),
        headers.as_slice(),
        b"",
    )
}

/// gRPC's calls are named after their service, as `/package.Service/Method`.
fn is_grpc(path: &str) -> bool {
    let service = path.split('/').nth(1).unwrap_or_default();
    service.contains('.') && service != "openapi.json"
}

/// Every call of the table and of the OpenAPI document × every kind of caller: nobody gets in where
/// they don't belong, and everybody gets in where they do.
#[test]
fn every_call_opens_to_its_role_and_to_nobody_else() {
    let project = TempProject::new(BINARY, SHOP);
    project.run_ok(&["apply"]);
    let callers: Vec<(Option<String>, &[Role])> = vec![
        (None, &[]),
        (Some("hw_0000000000_00".into()), &[]),
        (Some(key(&project, &["read"])), &[Role::Read]),
        (Some(key(&project, &["write"])), &[Role::Write]),
        (
            Some(key(&project, &["read", "write"])),
            &[Role::Read, Role::Write],
        ),
        (Some(key(&project, &["admin"])), &Role::ALL),
    ];
    let server = ServerProcess::start(&project);
    let mut calls: Vec<(String, String, Access)> = RULES
        .iter()
        .filter(|rule| !is_grpc(rule.path))
        .map(|rule| (rule.method.to_owned(), rule.path.to_owned(), rule.access))
        .collect();
    let described = server.get("/openapi.json").json();
    for (path, methods) in described["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            let method = method.to_uppercase();
            let known = calls.iter().any(|(m, p, _)| *m == method && p == path);
            assert!(known, "no role opens {method} {path}");
        }
    }
    assert!(calls.len() >= 11);
    // A call that nobody has thought of, and a method that isn't answered.
    calls.push((
        "GET".into(),
        "/v1/secrets".into(),
        Access::Role(Role::Admin),
    ));
    calls.push((
        "DELETE".into(),
        "/v1/facts/{contract}".into(),
        Access::Role(Role::Admin),
    ));
    let unheard = |method: &str, path: &str| {
        path == "/v1/secrets" || (method, path) == ("DELETE", "/v1/facts/{contract}")
    };
    for (method, path, access) in &calls {
        for (key, roles) in &callers {
            let reply = try_call(&server, method, path, key.as_deref());
            let stranger = roles.is_empty();
            let who = format!(
                "{method} {path} by {roles:?}: {} {}",
                reply.status, reply.body
            );
            match access {
                Access::Role(_) if stranger => assert_eq!(reply.status, 401, "{who}"),
                Access::Role(role) if !roles.contains(role) && !unheard(method, path) => {
                    assert_eq!(reply.status, 403, "{who}");
                }
                _ => assert!(![401, 403].contains(&reply.status), "{who}"),
            }
            if matches!(reply.status, 401 | 403) {
                // Below /v2 errors are worded as the Open Inference Protocol does.
                let (media_type, member) = match path.starts_with("/v2") {
                    true => ("application/json", "error"),
                    false => ("application/problem+json", "hint"),
                };
                assert_eq!(reply.media_type, media_type, "{who}");
                let told = reply.json()[member].as_str().unwrap().to_owned();
                assert!(told.contains("key"), "{who}");
            }
        }
    }
    assert_eq!(
        try_call(&server, "GET", "/v1/secrets", callers[5].0.as_deref()).status,
        404
    );
    assert_eq!(
        try_call(&server, "DELETE", "/v1/facts/x", callers[5].0.as_deref()).status,
        405
    );
}

#[test]
fn keys_come_and_go_while_the_server_runs_and_are_told_apart_in_the_record() {
    let project = TempProject::new(BINARY, SHOP);
    project.run_ok(&["apply"]);
    let server = ServerProcess::start(&project);
    assert_eq!(try_call(&server, "GET", "/metrics", None).status, 200);
    let admin = key(&project, &["admin"]);
    let until = |status: u16, key: Option<&str>| {
        let end = Instant::now() + Duration::from_secs(20);
        while try_call(&server, "GET", "/metrics", key).status != status {
            assert!(Instant::now() < end, "never {status}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    until(401, None);
    until(200, Some(&admin));
    let told = project.run_ok(&[
        "--server",
        &server.url,
        "--key",
        &admin,
        "facts",
        "get",
        "purchase",
    ]);
    assert!(told.contains("event time"), "{told}");
    let refused = project.run_fails(&["--server", &server.url, "facts", "get", "purchase"]);
    assert!(refused.contains("needs a key"), "{refused}");
    let id = admin.split('_').nth(1).unwrap();
    project.run_ok(&["keys", "revoke", id]);
    until(401, Some(&admin));
    let listed: Value = serde_json::from_str(&project.run_ok(&["--json", "keys", "list"])).unwrap();
    assert!(listed[0]["revoked"].is_string(), "{listed}");
    let record = project.run_ok(&["--json", "audit"]);
    let page: Value = serde_json::from_str(&record).unwrap();
    let has = |actor: &str, action: &str| {
        let entries = page["entries"].as_array().unwrap();
        entries
            .iter()
            .any(|e| e["actor"] == actor && e["action"] == action)
    };
    assert!(has("command line", "definitions.apply"), "{record}");
    assert!(
        has("command line", "key.create") && has("command line", "key.revoke"),
        "{record}"
    );
    assert!(
        has(id, "key.use") && has("anyone", "key.refused"),
        "{record}"
    );
    assert!(
        has(id, "key.refused"),
        "a revoked key is known by its id: {record}"
    );
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let file = project.path().join(".headwater/keys.json");
        let mode = std::fs::metadata(file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "only its owner reads it");
    }
    let secret = admin.rsplit_once('_').unwrap().1;
    assert!(!record.contains(secret), "a key in the record");
    assert!(server.stop(), "an orderly end");
    // The door stays shut after a start, though the only key is revoked.
    let server = ServerProcess::start(&project);
    assert_eq!(try_call(&server, "GET", "/metrics", None).status, 401);
    assert_eq!(try_call(&server, "GET", "/health/ready", None).status, 200);
}

#[test]
fn a_key_that_expires_is_refused_by_name_and_foretold() {
    let project = TempProject::new(BINARY, SHOP);
    project.run_ok(&["apply"]);
    let create = |expires: &str| {
        let made = project.run_ok(&["keys", "create", "--role", "admin", "--expires", expires]);
        made.trim().to_owned()
    };
    let (soon, later) = (create("3s"), create("10d"));
    let server = ServerProcess::start(&project);
    let admin = |key: &str| try_call(&server, "GET", "/v1/audit?limit=2", Some(key));
    assert_eq!(admin(&soon).status, 200);
    let end = Instant::now() + Duration::from_secs(20);
    let refused = loop {
        let reply = admin(&soon);
        if reply.status != 200 {
            break reply;
        }
        assert!(Instant::now() < end, "it never expires");
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(refused.status, 401);
    let id = |key: &str| key.split('_').nth(1).unwrap().to_owned();
    for words in ["has expired", &id(&soon), "keys create"] {
        assert!(refused.body.contains(words), "{}", refused.body);
    }

    // The record tells of it, page by page, to administrators alone.
    let reader = key(&project, &["read", "write"]);
    let end = Instant::now() + Duration::from_secs(20);
    while admin(&reader).status != 403 {
        assert!(Instant::now() < end, "the new key isn't known");
        std::thread::sleep(Duration::from_millis(50));
    }
    let url = server.url.clone();
    let page = |more: &[&str]| -> Value {
        let all = [
            "--server", &url, "--key", &later, "--json", "audit", "--limit", "2",
        ];
        serde_json::from_str(&project.run_ok(&[all.as_slice(), more].concat())).unwrap()
    };
    let told = page(&["--action", "key.refused", "--actor", &id(&soon)]);
    let entry = &told["entries"][0];
    assert_eq!(
        (&entry["target"], &told["before"]),
        (&"/v1/audit".into(), &Value::Null)
    );
    assert!(entry["result"].as_str().unwrap().contains("expired"));
    let (mut before, mut actions) = (None::<String>, Vec::new());
    loop {
        let shown: Value = match &before {
            None => page(&[]),
            Some(before) => page(&["--before", before]),
        };
        let entries = shown["entries"].as_array().unwrap();
        assert!((1..=2).contains(&entries.len()));
        actions.splice(0..0, entries.iter().map(|e| e["action"].to_string()));
        match shown["before"].as_str() {
            Some(place) => before = Some(place.to_owned()),
            None => break,
        }
    }
    assert_eq!(actions[0], "\"definitions.apply\"", "{actions:?}");
    assert!(actions.len() > 6, "{actions:?}");
    for wrong in ["limit=0", "limit=1000000", "before=x", "since=1"] {
        let reply = try_call(&server, "GET", &format!("/v1/audit?{wrong}"), Some(&later));
        assert_eq!(reply.status, 400, "{wrong}: {}", reply.body);
    }

    let doctor = project.run_ok(&["doctor"]);
    for words in [
        format!("`{}` expired at", id(&soon)),
        format!("`{}` expires at", id(&later)),
        "in 9 days".into(),
        "its last server doesn't tell how it is".into(),
    ] {
        assert!(doctor.contains(&words), "no {words} in {doctor}");
    }
    assert!(!doctor.contains(&id(&reader)), "{doctor}");
    let doctor = project.run_ok(&["--key", &later, "doctor"]);
    assert!(doctor.contains("holds it and was asked"), "{doctor}");
    let said = project.run_fails(&[
        "keys",
        "create",
        "--role",
        "read",
        "--expires",
        "2020-01-01T00:00:00Z",
    ]);
    assert!(said.contains("expired already"), "{said}");
}

#[test]
fn an_open_address_is_refused_without_keys() {
    let project = TempProject::new(BINARY, SHOP);
    project.run_ok(&["apply"]);
    // Before the data folder is opened, which may take long: another process holds it here.
    let _server = ServerProcess::start(&project);
    for option in ["--listen", "--grpc-listen"] {
        let said = project.run_fails(&["serve", option, "0.0.0.0:0"]);
        assert!(
            said.contains("0.0.0.0:0 is open to others") && said.contains("keys create"),
            "{said}"
        );
    }
}

/// A certificate for this machine that signs itself, and its key.
fn certificate(project: &TempProject) -> String {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()])
        .unwrap();
    let pem = made.cert.pem();
    project.write("tls/key.pem", made.signing_key.serialize_pem());
    project.write("tls/cert.pem", &pem);
    pem
}

#[test]
fn tls_shows_its_certificate_and_the_next_one_without_a_restart() {
    let project = TempProject::new(BINARY, SHOP);
    project.write(
        "headwater.yaml",
        "name: shop\nspec: {tls: {certificate_file: tls/cert.pem, key_file: tls/key.pem}}\n",
    );
    project.run_ok(&["apply"]);
    let said = project.run_fails(&["serve", "--listen", "127.0.0.1:0"]);
    assert!(said.contains("tls/cert.pem can't be read"), "{said}");
    let first = certificate(&project);
    let server = ServerProcess::start(&project);
    assert!(
        server.url.starts_with("https://127.0.0.1:"),
        "{}",
        server.url
    );
    project.write("first.pem", &first);
    let get = |ca: &str| {
        project.run(&[
            "--server",
            &server.url,
            "--ca",
            ca,
            "facts",
            "get",
            "purchase",
        ])
    };
    assert!(get("first.pem").status.success(), "{:?}", get("first.pem"));
    let plain = server.url.replace("https", "http");
    let refused = project.run(&["--server", &plain, "facts", "get", "purchase"]);
    assert!(!refused.status.success(), "no talk without TLS");
    let second = certificate(&project);
    project.write("second.pem", &second);
    let end = Instant::now() + Duration::from_secs(20);
    while !get("second.pem").status.success() {
        assert!(Instant::now() < end, "the new certificate isn't shown");
    }
    assert!(!get("first.pem").status.success(), "the old one still is");
}

/// Connects by TLS, and trusts one certificate.
struct Dial(TlsConnector);

impl Dial {
    fn trusting(pem: &str) -> Self {
        let mut roots = RootCertStore::empty();
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        roots.add(certificate).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap();
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Self(Arc::new(config).into())
    }
}

impl Service<Uri> for Dial {
    type Response = TokioIo<TlsStream<tokio::net::TcpStream>>;
    type Error = std::io::Error;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let tls = self.0.clone();
        Box::pin(async move {
            let (host, port) = (to.host().unwrap(), to.port_u16().unwrap());
            let name = ServerName::try_from(host.to_owned()).unwrap();
            let plain = tokio::net::TcpStream::connect((host, port)).await?;
            Ok(TokioIo::new(tls.connect(name, plain).await?))
        })
    }
}

#[test]
fn grpc_speaks_tls_and_opens_to_keys_alone() {
    let project = TempProject::new(BINARY, SHOP);
    project.write(
        "headwater.yaml",
        "name: shop\nspec: {tls: {certificate_file: tls/cert.pem, key_file: tls/key.pem}}\n",
    );
    let pem = certificate(&project);
    project.run_ok(&["apply"]);
    let (reader, writer) = (key(&project, &["read"]), key(&project, &["write"]));
    let server = ServerProcess::start(&project);
    let host = server.grpc_url.strip_prefix("https://").expect("TLS");
    // The connector does what `https` would ask for.
    let endpoint = Endpoint::from_shared(format!("http://{host}")).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _within = runtime.enter();
    let plain = FactsClient::new(endpoint.connect_lazy());
    let other = certificate(&TempProject::new(BINARY, &[]));
    let stranger = FactsClient::new(endpoint.connect_with_connector_lazy(Dial::trusting(&other)));
    let trusting = FactsClient::new(endpoint.connect_with_connector_lazy(Dial::trusting(&pem)));
    let append = |mut client: FactsClient<Channel>, key: Option<&str>| {
        let mut request = tonic::Request::new(AppendRequest {
            contract: "purchase".into(),
            body: Some(Body::Rows(Rows::default())),
            ..AppendRequest::default()
        });
        if let Some(key) = key {
            let bearer = format!("Bearer {key}").parse().unwrap();
            request.metadata_mut().insert("authorization", bearer);
        }
        let answered = runtime.block_on(client.append(request));
        answered.map_or_else(|status| status.code(), |_| Code::Ok)
    };
    let told = [
        append(plain, Some(&writer)),
        append(stranger, Some(&writer)),
        append(trusting.clone(), None),
        append(trusting.clone(), Some(&reader)),
        append(trusting, Some(&writer)),
    ];
    // Who can't be talked to isn't told apart by its code.
    assert!(![told[0], told[1]].contains(&Code::Ok), "{told:?}");
    let codes = [Code::Unauthenticated, Code::PermissionDenied, Code::Ok];
    assert_eq!(told[2..], codes);
    assert!(server.stop());
}

/// A request on a connection of its own.
fn send(server: &ServerProcess, head: &str, key: &str, body: &str) -> TcpStream {
    let address = server.url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let wait = Some(Duration::from_secs(20));
    stream.set_read_timeout(wait).unwrap();
    let text = format!(
        "{head} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-api-key: {key}\r\ncontent-length: 2\r\n\r\n{body}"
    );
    stream.write_all(text.as_bytes()).unwrap();
    stream
}

fn answer(mut stream: TcpStream) -> String {
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text);
    text
}

#[test]
fn one_key_takes_no_more_places_than_its_limit() {
    let project = TempProject::new(BINARY, SHOP);
    project.write(
        "headwater.yaml",
        "name: shop\nspec: {limits: {requests_per_key_max: 1}}\n",
    );
    project.run_ok(&["apply"]);
    let keys = [(); 2].map(|()| key(&project, &["read", "write"]));
    let server = ServerProcess::start(&project);
    // Its body is yet to come.
    let mut held = send(&server, "POST /v1/facts/purchase", &keys[0], "[");
    let read = |key: &str| answer(send(&server, "POST /v1/query", key, "{}"));
    let let_in = format!(
        "headwater_auth_requests_total{{key=\"{}\"}} 1\n",
        keys[0].split('_').nth(1).unwrap()
    );
    let until = |done: &dyn Fn() -> bool| {
        let end = Instant::now() + Duration::from_secs(20);
        while !done() {
            assert!(Instant::now() < end, "it never comes about");
        }
    };
    until(&|| {
        try_call(&server, "GET", "/metrics", Some(&keys[1]))
            .body
            .contains(&let_in)
    });
    let refused = read(&keys[0]);
    assert!(refused.starts_with("HTTP/1.1 429"), "{refused}");
    for words in ["retry-after: 1\r\n", "limits.requests_per_key_max"] {
        assert!(refused.contains(words), "no {words} in {refused}");
    }
    let other = read(&keys[1]);
    assert!(other.starts_with("HTTP/1.1 400"), "{other}");
    held.write_all(b"]").unwrap();
    assert!(answer(held).starts_with("HTTP/1.1 200"));
    until(&|| read(&keys[0]).starts_with("HTTP/1.1 400"));
}

#[test]
fn what_is_put_in_force_is_written_down_and_is_of_the_project_that_is_served() {
    let project = TempProject::new(BINARY, SHOP);
    project.run_ok(&["apply"]);
    let admin = key(&project, &["admin"]);
    let server = ServerProcess::start(&project);
    let apply = |project: &TempProject| {
        let arguments = ["--server", &server.url, "--key", &admin, "apply"];
        project.run(&arguments)
    };
    let more = "---\nkind: Entity\napiVersion: headwater/v1\nname: shelf\nspec: {keys: [{name: shelf, type: string}]}\n";
    project.write("features/shelf.yaml", more);
    assert!(apply(&project).status.success());
    let record = try_call(
        &server,
        "GET",
        "/v1/audit?action=definitions.apply",
        Some(&admin),
    )
    .json();
    let last = record["entries"]
        .as_array()
        .unwrap()
        .last()
        .unwrap()
        .clone();
    assert_eq!(
        (&last["actor"], &last["target"]),
        (&json!(admin.split('_').nth(1).unwrap()), &json!("shop"))
    );
    assert_eq!(last["result"], "registry version 2: add entity shelf");

    // Another project, and nothing at all, would drop all of this one.
    let other = TempProject::new(BINARY, SHOP);
    other.write("headwater.yaml", "name: otherproject\n");
    let refused = apply(&other);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && said.contains("`shop`"),
        "{said}"
    );
    let nothing = json!({"files": []}).to_string();
    for verb in ["apply", "plan"] {
        let url = format!("{}/v1/registry/{verb}", server.url);
        let bearer = format!("Bearer {admin}");
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-type", "application/json"),
        ];
        let refused = call_with("POST", &url, &headers, nothing.as_bytes());
        assert_eq!(refused.status, 400, "{}", refused.body);
        assert!(refused.body.contains("no-definitions"), "{}", refused.body);
    }
    let kept = try_call(&server, "GET", "/v1/registry", Some(&admin)).json();
    assert_eq!(kept["version"], 2, "{kept}");
}
