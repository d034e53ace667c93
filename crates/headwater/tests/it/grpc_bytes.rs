//! gRPC by the bytes of its messages: every call against every kind of key, and messages that nobody would write.
//! Nothing panics, and every message gets a status.

use headwater_api::grpc::proto::feast::serving as feast;
use headwater_api::grpc::proto::feast::types::{RepeatedValue, Value as FeastValue, value::Val};
use headwater_api::grpc::proto::headwater::append_request::Body;
use headwater_api::grpc::proto::headwater::value::Kind;
use headwater_api::grpc::proto::headwater::{
    AppendRequest, EntityRow, List, Outcome, OutcomesRequest, PredictRequest, ReadRequest,
    RetractRequest, Rows, Struct, Value,
};
use headwater_api::grpc::proto::inference;
use headwater_api::{Access, RULES, Role};
use headwater_testkit::fuzz::Mutator;
use headwater_testkit::{ServerProcess, TempProject};
use prost::Message;
use prost::bytes::{Buf, BufMut};
use tokio::runtime::Runtime;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::access::key;
use crate::{BINARY, SHOP};

/// Messages as bytes, whatever they mean.
#[derive(Clone, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut bytes = vec![0; from.remaining()];
        from.copy_to_slice(&mut bytes);
        Ok(Some(bytes))
    }
}

struct Caller {
    runtime: Runtime,
    client: Grpc<Channel>,
}

impl Caller {
    fn new(server: &ServerProcess) -> Self {
        let runtime = Runtime::new().unwrap();
        let endpoint = Endpoint::from_shared(server.grpc_url.clone()).unwrap();
        let channel = runtime.block_on(endpoint.connect()).unwrap();
        Self {
            runtime,
            client: Grpc::new(channel),
        }
    }

    /// Sends messages and reads every reply; how it ended.
    fn call(&mut self, path: &'static str, messages: Vec<Vec<u8>>, key: Option<&str>) -> Status {
        let mut request = Request::new(futures_util::stream::iter(messages));
        if let Some(key) = key {
            let bearer = format!("Bearer {key}").parse().unwrap();
            request.metadata_mut().insert("authorization", bearer);
        }
        let client = &mut self.client;
        self.runtime.block_on(async {
            client.ready().await.expect("the server answers");
            let path = tonic::codegen::http::uri::PathAndQuery::from_static(path);
            let mut replies = match client.streaming(request, path, Raw).await {
                Ok(replies) => replies.into_inner(),
                Err(status) => return status,
            };
            loop {
                match replies.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => return Status::ok(""),
                    Err(status) => return status,
                }
            }
        })
    }
}

fn text(text: &str) -> Value {
    Value {
        kind: Some(Kind::StringValue(text.into())),
    }
}

fn row(id: &str) -> Struct {
    let value = |kind| Value { kind: Some(kind) };
    let nested = value(Kind::ListValue(List {
        items: vec![text("x"), value(Kind::BytesValue(vec![0, 255]))],
    }));
    let fields = [
        ("id", text(id)),
        ("customer", text("ada")),
        ("amount", value(Kind::FloatValue(1.5))),
        ("time", value(Kind::TimestampValue(1_000_000))),
        ("day", value(Kind::DateValue(17))),
        ("price", value(Kind::DecimalValue("1.50".into()))),
        ("more", nested),
    ];
    Struct {
        fields: fields.map(|(n, v)| (n.to_owned(), v)).into(),
    }
}

/// Every call with messages that it answers.
fn calls() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let append = |body| {
        let request = AppendRequest {
            contract: "purchase".into(),
            body: Some(body),
            ..AppendRequest::default()
        };
        request.encode_to_vec()
    };
    let line = br#"{"id":"n","customer":"ada","amount":1,"time":5}"#;
    let appends = vec![
        append(Body::Rows(Rows {
            rows: vec![row("a"), row("b")],
        })),
        append(Body::Ndjson(line.to_vec())),
    ];
    let retract = RetractRequest {
        contract: "purchase".into(),
        fact_ids: vec!["a".into(), "zz".into()],
    };
    let read = ReadRequest {
        features: vec!["spending.spent_1h".into(), "spending.last".into()],
        entities: vec![EntityRow {
            keys: [("customer".to_owned(), text("ada"))].into(),
        }],
        ..ReadRequest::default()
    };
    let predict = PredictRequest {
        model: "late".into(),
        entities: read.entities.clone(),
        context: vec![row("a")],
        deadline_ms: Some(100),
        ..PredictRequest::default()
    };
    let outcomes = OutcomesRequest {
        outcomes: vec![Outcome {
            prediction_id: "p".into(),
            value: Some(text("late")),
            event_time: 1,
        }],
    };
    let keys = [Val::StringVal("ada".into()), Val::StringVal("eve".into())];
    let keys = RepeatedValue {
        val: keys.map(|val| FeastValue { val: Some(val) }).into(),
    };
    let kinds = [
        feast::get_online_features_request::Kind::FeatureService("customer_now".into()),
        feast::get_online_features_request::Kind::Features(feast::FeatureList {
            val: vec!["spending:last".into()],
        }),
    ];
    let online = kinds.map(|kind| {
        let request = feast::GetOnlineFeaturesRequest {
            kind: Some(kind),
            entities: [("customer".to_owned(), keys.clone())].into(),
            full_feature_names: true,
            ..Default::default()
        };
        request.encode_to_vec()
    });
    vec![
        ("/headwater.v1.Facts/Append", appends.clone()),
        ("/headwater.v1.Facts/Feed", appends),
        ("/headwater.v1.Facts/Retract", vec![retract.encode_to_vec()]),
        ("/headwater.v1.Features/Read", vec![read.encode_to_vec()]),
        (
            "/headwater.v1.Models/Predict",
            vec![predict.encode_to_vec()],
        ),
        (
            "/headwater.v1.Models/Outcomes",
            vec![outcomes.encode_to_vec()],
        ),
        (
            "/feast.serving.ServingService/GetOnlineFeatures",
            online.into(),
        ),
        (
            "/feast.serving.ServingService/GetFeastServingInfo",
            vec![Vec::new()],
        ),
    ]
    .into_iter()
    .chain(inference_calls())
    .collect()
}

/// The calls of the Open Inference Protocol, of a model that the project doesn't have where they name one.
fn inference_calls() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let name = || "late".to_owned();
    let ready = inference::ModelReadyRequest {
        name: name(),
        ..Default::default()
    };
    let metadata = inference::ModelMetadataRequest {
        name: name(),
        ..Default::default()
    };
    let infer = inference::ModelInferRequest {
        model_name: name(),
        ..Default::default()
    };
    let config = inference::ModelConfigRequest {
        name: name(),
        ..Default::default()
    };
    let load = inference::RepositoryModelLoadRequest {
        model_name: name(),
        ..Default::default()
    };
    let unload = inference::RepositoryModelUnloadRequest {
        model_name: name(),
        ..Default::default()
    };
    vec![
        (
            "/inference.GRPCInferenceService/ServerLive",
            vec![Vec::new()],
        ),
        (
            "/inference.GRPCInferenceService/ServerReady",
            vec![Vec::new()],
        ),
        (
            "/inference.GRPCInferenceService/ServerMetadata",
            vec![Vec::new()],
        ),
        (
            "/inference.GRPCInferenceService/ModelStatistics",
            vec![Vec::new()],
        ),
        (
            "/inference.GRPCInferenceService/RepositoryIndex",
            vec![Vec::new()],
        ),
        (
            "/inference.GRPCInferenceService/ModelReady",
            vec![ready.encode_to_vec()],
        ),
        (
            "/inference.GRPCInferenceService/ModelMetadata",
            vec![metadata.encode_to_vec()],
        ),
        (
            "/inference.GRPCInferenceService/ModelInfer",
            vec![infer.encode_to_vec()],
        ),
        (
            "/inference.GRPCInferenceService/ModelStreamInfer",
            vec![infer.encode_to_vec()],
        ),
        (
            "/inference.GRPCInferenceService/ModelConfig",
            vec![config.encode_to_vec()],
        ),
        (
            "/inference.GRPCInferenceService/RepositoryModelLoad",
            vec![load.encode_to_vec()],
        ),
        (
            "/inference.GRPCInferenceService/RepositoryModelUnload",
            vec![unload.encode_to_vec()],
        ),
    ]
}

/// How a call is answered to whom it opens.
fn answer(path: &str) -> Code {
    let of_a_model = [
        "ModelReady",
        "ModelMetadata",
        "ModelConfig",
        "ModelLoad",
        "ModelUnload",
        "Models/Predict",
        // Where there is no model, there is no contract of outcomes.
        "Models/Outcomes",
    ];
    if path.ends_with("ModelInfer") {
        return Code::InvalidArgument;
    }
    match of_a_model.iter().any(|call| path.ends_with(call)) {
        true => Code::NotFound,
        false => Code::Ok,
    }
}

#[test]
fn every_call_opens_to_its_role_and_to_nobody_else() {
    let project = TempProject::new(BINARY, SHOP);
    project.run_ok(&["apply"]);
    let callers: Vec<(Option<String>, &[Role])> = vec![
        (None, &[]),
        (Some("hw_0000000000_00".into()), &[]),
        (Some(key(&project, &["read"])), &[Role::Read]),
        (Some(key(&project, &["write"])), &[Role::Write]),
        (Some(key(&project, &["admin"])), &Role::ALL),
    ];
    let server = ServerProcess::start(&project);
    let mut caller = Caller::new(&server);
    let rules = RULES.iter().filter(|r| r.name.starts_with("grpc_"));
    let mut known: Vec<&str> = rules.clone().map(|r| r.path).collect();
    let mut called: Vec<&str> = calls().iter().map(|(path, _)| *path).collect();
    known.sort_unstable();
    called.sort_unstable();
    assert_eq!(known, called, "every call is tried");
    for rule in rules {
        // Probes, and what is the same everywhere, take no key.
        let probe = rule
            .path
            .starts_with("/inference.GRPCInferenceService/Server");
        let role = match rule.access {
            Access::Role(role) => Some(role),
            Access::Open if probe => None,
            Access::Open => panic!("{} is open", rule.path),
        };
        let calls = calls();
        let (path, messages) = calls.iter().find(|(p, _)| *p == rule.path).unwrap();
        for (key, roles) in &callers {
            let status = caller.call(path, messages[..1].to_vec(), key.as_deref());
            let expected = match (role, roles) {
                (None, _) => answer(path),
                (Some(_), []) => Code::Unauthenticated,
                (Some(role), roles) if roles.contains(&role) => answer(path),
                _ => Code::PermissionDenied,
            };
            assert_eq!(status.code(), expected, "{path} by {roles:?}: {status:?}");
        }
    }
    for (key, roles) in &callers {
        let status = caller.call("/headwater.v1.Secrets/Read", Vec::new(), key.as_deref());
        let stranger = roles.is_empty();
        let expected = if stranger {
            Code::Unauthenticated
        } else {
            Code::Unimplemented
        };
        assert_eq!(status.code(), expected, "{roles:?}: {status:?}");
    }
}

/// Mutated messages of one call.
const MESSAGES: usize = 300;

#[test]
fn whatever_a_message_says_it_gets_a_status() {
    let project = TempProject::new(BINARY, SHOP);
    project.run_ok(&["apply"]);
    let server = ServerProcess::start_logged(&project);
    let mut caller = Caller::new(&server);
    for (seed, (path, seeds)) in calls().into_iter().enumerate() {
        for message in &seeds {
            let status = caller.call(path, vec![message.clone()], None);
            assert_eq!(status.code(), answer(path), "{path}: {status:?}");
        }
        let words = [
            "customer",
            "spending.last",
            "\u{0}",
            "\u{8}",
            "\u{12}",
            "NaN",
        ];
        let mut mutator = Mutator::new(seed as u64, &seeds, &words);
        let (mut taken, mut refused) = (0, 0);
        for _ in 0..MESSAGES {
            let message = mutator.input();
            let status = caller.call(path, vec![message.clone()], None);
            match status.code() {
                Code::Ok => taken += 1,
                Code::InvalidArgument
                | Code::NotFound
                | Code::OutOfRange
                | Code::ResourceExhausted
                | Code::FailedPrecondition => refused += 1,
                // What is no message at all is refused before any service hears of it.
                Code::Internal if status.message().contains("decode") => refused += 1,
                _ => panic!("{path}: {status:?} to {message:02x?}"),
            }
        }
        assert!(
            taken > 0 || answer(path) != Code::Ok,
            "{path}: none of {MESSAGES} was a message"
        );
        assert!(refused > 0 || seeds[0].is_empty(), "{path}: {taken} taken");
    }
    assert_eq!(server.get("/health/ready").status, 200);
    assert!(server.stop());
    let log = std::fs::read_to_string(project.path().join("server.log")).unwrap();
    assert!(!log.contains("panicked"), "{log}");
}
