//! gRPC from outside: the same meaning as HTTP, typed; feeds; errors with details; Feast's service.

use std::collections::{BTreeMap, BTreeSet};

use headwater_api::grpc::proto::feast::serving as feast;
use headwater_api::grpc::proto::feast::types::{RepeatedValue, Value as FeastValue, value::Val};
use headwater_api::grpc::proto::headwater::append_request::Body;
use headwater_api::grpc::proto::headwater::facts_client::FactsClient;
use headwater_api::grpc::proto::headwater::features_client::FeaturesClient;
use headwater_api::grpc::proto::headwater::models_client::ModelsClient;
use headwater_api::grpc::proto::headwater::value::Kind;
use headwater_api::grpc::proto::headwater::{
    Acknowledgement, AppendRequest, Candidates, EntityRow, FeatureValue, List, Outcome,
    OutcomesRequest, PredictReply, PredictRequest, ReadReply, ReadRequest, RetractRequest,
    Rows as ProtoRows, Status, Struct, Value,
};
use headwater_api::grpc::proto::rpc;
use headwater_models::{LoadOptions, Rows, load};
use headwater_testkit::{ServerProcess, TempProject};
use prost::Message;
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tonic::Code;
use tonic::codec::CompressionEncoding;
use tonic::transport::{Channel, Endpoint};

use crate::access::key;
use crate::{BINARY, SHOP};

/// A server, and a channel to its gRPC port.
struct Served {
    _project: TempProject,
    server: ServerProcess,
    runtime: Runtime,
    channel: Channel,
}

fn served() -> Served {
    let project = TempProject::new(BINARY, SHOP);
    project.write(
        "headwater.yaml",
        "name: shop\nspec: {limits: {entities_max: 3, rows_max: 1000}}\n",
    );
    project.run_ok(&["apply"]);
    serve(project)
}

fn serve(project: TempProject) -> Served {
    let server = ServerProcess::start(&project);
    let runtime = Runtime::new().unwrap();
    let endpoint = Endpoint::from_shared(server.grpc_url.clone()).unwrap();
    let channel = runtime.block_on(endpoint.connect()).unwrap();
    Served {
        _project: project,
        server,
        runtime,
        channel,
    }
}

fn value(kind: Kind) -> Value {
    Value { kind: Some(kind) }
}

fn text(text: impl Into<String>) -> Value {
    value(Kind::StringValue(text.into()))
}

fn purchase(id: usize, amount: Value) -> Struct {
    let time = i64::try_from(id).unwrap() * 1_000_000;
    Struct {
        fields: [
            ("id", text(id.to_string())),
            ("customer", text("ada")),
            ("amount", amount),
            ("time", value(Kind::TimestampValue(time))),
        ]
        .map(|(n, v)| (n.to_owned(), v))
        .into(),
    }
}

fn rows(rows: Vec<Struct>) -> AppendRequest {
    AppendRequest {
        contract: "purchase".into(),
        body: Some(Body::Rows(ProtoRows { rows })),
        all_or_nothing: false,
        revise: false,
    }
}

fn amount(amount: f64) -> Value {
    value(Kind::FloatValue(amount))
}

impl Served {
    fn read(&self, request: ReadRequest) -> Result<ReadReply, tonic::Status> {
        let mut features = FeaturesClient::new(self.channel.clone());
        let reply = self.runtime.block_on(features.read(request))?;
        Ok(reply.into_inner())
    }

    fn append(
        &self,
        request: AppendRequest,
    ) -> Result<(u64, u64, Vec<u64>, String), tonic::Status> {
        let mut facts = FactsClient::new(self.channel.clone());
        let reply = self.runtime.block_on(facts.append(request))?.into_inner();
        let rejected = reply.rejected.iter().map(|r| r.row).collect();
        Ok((reply.accepted, reply.duplicates, rejected, reply.sequence))
    }

    /// Feeds messages, then reads every acknowledgement; how it ended.
    fn feed(
        &self,
        messages: Vec<AppendRequest>,
    ) -> (Vec<Acknowledgement>, Result<(), tonic::Status>) {
        let mut facts = FactsClient::new(self.channel.clone());
        self.runtime.block_on(async {
            let messages = futures_util::stream::iter(messages);
            let mut told = facts.feed(messages).await.unwrap().into_inner();
            let mut acknowledgements = Vec::new();
            loop {
                match told.message().await {
                    Ok(Some(acknowledgement)) => acknowledgements.push(acknowledgement),
                    Ok(None) => return (acknowledgements, Ok(())),
                    Err(status) => return (acknowledgements, Err(status)),
                }
            }
        })
    }
}

fn customer(name: &str) -> EntityRow {
    EntityRow {
        keys: [("customer".to_owned(), text(name))].into(),
    }
}

fn question(features: &[&str], customers: &[&str]) -> ReadRequest {
    ReadRequest {
        features: features.iter().map(|f| (*f).to_owned()).collect(),
        entities: customers.iter().map(|c| customer(c)).collect(),
        ..ReadRequest::default()
    }
}

/// The problem's code and hint in the details of an error.
fn details(status: &tonic::Status) -> (String, String) {
    let details = rpc::Status::decode(status.details()).unwrap();
    assert_eq!(details.code, i32::from(status.code()));
    let info = rpc::ErrorInfo::decode(details.details[0].value.as_slice()).unwrap();
    assert_eq!(info.domain, "headwater");
    let hint = info.metadata.get("hint").cloned();
    (info.reason, hint.unwrap_or_default())
}

#[test]
fn typed_facts_in_typed_features_out() {
    let served = served();
    let appended = served.append(rows(vec![
        purchase(1, amount(1.5)),
        purchase(2, text("2")),
        purchase(3, Value { kind: None }),
        purchase(4, value(Kind::IntValue(2))),
    ]));
    assert_eq!(appended.unwrap(), (3, 0, vec![1], "3".into()));
    let again = served.append(rows(vec![
        purchase(1, amount(1.5)),
        purchase(1, amount(9.0)),
    ]));
    assert_eq!(again.unwrap(), (0, 1, vec![1], "3".into()));
    let lines = AppendRequest {
        body: Some(Body::Ndjson(
            b"{\"id\": \"5\"}\n{\"id\": \"6\", \"time\": 1}\n".to_vec(),
        )),
        all_or_nothing: true,
        ..rows(Vec::new())
    };
    assert_eq!(served.append(lines).unwrap(), (0, 0, vec![0], "3".into()));

    let names = [
        "spending.purchases_1h",
        "spending.spent_1h",
        "spending.last",
    ];
    let read = ReadRequest {
        as_of: Some(10_000_000),
        ..question(&names, &["ada", "eve"])
    };
    let reply = served.read(read.clone()).unwrap();
    assert_eq!(reply.names, names);
    assert_eq!((reply.as_of, reply.sequence.as_str()), (10_000_000, "3"));
    let feature = |kind, status: Status, event_time| FeatureValue {
        value: Some(Value { kind }),
        status: status.into(),
        event_time,
    };
    let newest = Some(4_000_000);
    assert_eq!(
        reply.rows[0].features,
        [
            feature(Some(Kind::IntValue(3)), Status::Present, newest),
            feature(Some(Kind::FloatValue(3.5)), Status::Present, newest),
            feature(Some(Kind::FloatValue(2.0)), Status::Present, newest),
        ]
    );
    assert_eq!(
        reply.rows[1].features[..2],
        [
            feature(Some(Kind::IntValue(0)), Status::NotFound, None),
            feature(None, Status::NotFound, None),
        ]
    );
    let revised = AppendRequest {
        revise: true,
        ..rows(vec![purchase(1, amount(9.0))])
    };
    assert_eq!(served.append(revised).unwrap(), (1, 0, vec![], "4".into()));
    let taken_back = RetractRequest {
        contract: "purchase".into(),
        fact_ids: vec!["3".into(), "none".into()],
    };
    let mut facts = FactsClient::new(served.channel.clone());
    let reply = served.runtime.block_on(facts.retract(taken_back)).unwrap();
    let reply = reply.into_inner();
    assert_eq!((reply.retracted, reply.unknown), (1, vec!["none".into()]));
    let after = served.read(read.clone()).unwrap();
    let after: Vec<_> = after.rows[0]
        .features
        .iter()
        .map(|f| f.value.clone())
        .collect();
    let counted = [
        Kind::IntValue(2),
        Kind::FloatValue(11.0),
        Kind::FloatValue(2.0),
    ];
    assert_eq!(after, counted.map(|kind| Some(value(kind))));
    let before = served.read(ReadRequest {
        as_of: Some(4_000_000),
        exclusive: true,
        known_at: "1".into(),
        ..read
    });
    let before = before.unwrap();
    assert_eq!(
        before.rows[0].features[0].value,
        Some(value(Kind::IntValue(1)))
    );
}

#[test]
fn mistakes_have_a_code_and_say_what_to_do() {
    let served = served();
    let refused = |status: tonic::Status, code, reason: &str| {
        assert_eq!(status.code(), code, "{status:?}");
        assert_eq!(details(&status).0, reason);
        details(&status).1
    };
    let unknown = AppendRequest {
        contract: "purchse".into(),
        ..rows(Vec::new())
    };
    refused(
        served.append(unknown).unwrap_err(),
        Code::NotFound,
        "unknown-contract",
    );
    let bare = AppendRequest {
        body: None,
        ..rows(Vec::new())
    };
    refused(
        served.append(bare).unwrap_err(),
        Code::InvalidArgument,
        "malformed-request",
    );
    let many = rows((0..1001).map(|i| purchase(i, amount(1.0))).collect());
    refused(
        served.append(many).unwrap_err(),
        Code::ResourceExhausted,
        "too-many-rows",
    );
    let near = served
        .read(question(&["spending.spent_2h"], &["ada"]))
        .unwrap_err();
    let hint = refused(near, Code::NotFound, "unknown-feature");
    assert_eq!(hint, "did you mean `spending.spent_1h`?");
    let crowd = served.read(question(&["spending.last"], &["a", "b", "c", "d"]));
    let hint = refused(crowd.unwrap_err(), Code::InvalidArgument, "limit");
    assert!(hint.contains("limits.entities_max"), "{hint}");
    let mut number = question(&["spending.last"], &["a"]);
    number.entities[0]
        .keys
        .insert("customer".into(), value(Kind::IntValue(1)));
    refused(
        served.read(number).unwrap_err(),
        Code::InvalidArgument,
        "wrong-key-type",
    );
    let neither = ReadRequest::default();
    refused(
        served.read(neither).unwrap_err(),
        Code::InvalidArgument,
        "malformed-request",
    );
}

#[test]
fn every_call_asks_for_a_key_with_its_role() {
    let project = TempProject::new(BINARY, SHOP);
    project.run_ok(&["apply"]);
    let (read, write) = (key(&project, &["read"]), key(&project, &["write"]));
    let served = serve(project);
    let features = |key: Option<&str>| {
        let mut request = tonic::Request::new(question(&["spending.last"], &["ada"]));
        if let Some(key) = key {
            let bearer = format!("Bearer {key}").parse().unwrap();
            request.metadata_mut().insert("authorization", bearer);
        }
        let mut client = FeaturesClient::new(served.channel.clone());
        served.runtime.block_on(client.read(request))
    };
    assert!(features(Some(&read)).is_ok());
    for (key, code, reason) in [
        (None, Code::Unauthenticated, "unauthenticated"),
        (Some(write.as_str()), Code::PermissionDenied, "forbidden"),
    ] {
        let refused = features(key).unwrap_err();
        assert_eq!(refused.code(), code, "{refused:?}");
        let (told, hint) = details(&refused);
        assert_eq!(told, reason);
        assert!(hint.contains("key"), "{hint}");
    }
    let appended = served.append(rows(vec![purchase(1, amount(1.0))]));
    assert_eq!(appended.unwrap_err().code(), Code::Unauthenticated);
}

#[test]
fn feeds_are_acknowledged_in_order_and_end_by_name() {
    let served = served();
    let mut messages: Vec<AppendRequest> = (0..500)
        .map(|batch| {
            rows(
                (0..10)
                    .map(|i| purchase(batch * 10 + i, amount(1.0)))
                    .collect(),
            )
        })
        .collect();
    messages[3].contract = String::new();
    messages[7] = rows(vec![purchase(0, amount(1.0)), purchase(1, text("bad"))]);
    let (told, end) = served.feed(messages);
    end.unwrap();
    let last = told.last().unwrap();
    assert_eq!((last.batches, last.rows, last.done), (500, 4992, true));
    assert_eq!(
        (last.accepted, last.duplicates, last.rejected_rows),
        (4990, 1, 1)
    );
    let rejected: Vec<u64> = told
        .iter()
        .flat_map(|a| &a.rejected)
        .map(|r| r.row)
        .collect();
    assert_eq!(rejected, [71]);
    assert!(told.windows(2).all(|pair| pair[0].rows <= pair[1].rows));
    let read = served
        .read(question(&["spending.purchases_lifetime"], &["ada"]))
        .unwrap();
    assert_eq!(
        read.rows[0].features[0].value,
        Some(value(Kind::IntValue(4990)))
    );
    assert_eq!(read.sequence, last.sequence);

    let wrong = AppendRequest {
        contract: "none".into(),
        ..rows(Vec::new())
    };
    let (told, end) = served.feed(vec![rows(vec![purchase(9999, amount(1.0))]), wrong]);
    let status = end.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status:?}");
    assert_eq!(
        told.last().unwrap().rows,
        1,
        "what came before it was taken"
    );
}

/// An acknowledgement comes while the client's side is still open, and the server's end ends the feed.
#[test]
fn a_feed_is_acknowledged_while_it_is_open_and_ends_with_the_server() {
    let served = served();
    let mut facts = FactsClient::new(served.channel.clone());
    let (sender, receiver) = mpsc::channel(1);
    let messages = futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|message| (message, receiver))
    });
    let mut told = served.runtime.block_on(async {
        sender
            .send(rows(vec![purchase(1, amount(1.0))]))
            .await
            .unwrap();
        let mut told = facts.feed(messages).await.unwrap().into_inner();
        let first = told.message().await.unwrap().unwrap();
        assert_eq!((first.rows, first.done), (1, false));
        sender
            .send(rows(vec![purchase(2, amount(1.0))]))
            .await
            .unwrap();
        assert_eq!(told.message().await.unwrap().unwrap().rows, 2);
        told
    });
    assert!(served.server.stop(), "an open feed holds up no orderly end");
    let status = served.runtime.block_on(async {
        loop {
            match told.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the feed ended without a word"),
                Err(status) => return status,
            }
        }
    });
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
}

#[test]
fn feasts_serving_service_answers_in_columns() {
    let served = served();
    served.append(rows(vec![purchase(1, amount(1.5))])).unwrap();
    let mut client =
        feast::serving_service_client::ServingServiceClient::new(served.channel.clone());
    let info = feast::GetFeastServingInfoRequest {};
    let info = served.runtime.block_on(client.get_feast_serving_info(info));
    assert!(info.unwrap().into_inner().version.starts_with("headwater "));
    let text = |text: &str| FeastValue {
        val: Some(Val::StringVal(text.into())),
    };
    let list = |names: &[&str]| feast::FeatureList {
        val: names.iter().map(|n| (*n).to_owned()).collect(),
    };
    let keys = RepeatedValue {
        val: vec![text("ada"), text("eve")],
    };
    let request = feast::GetOnlineFeaturesRequest {
        kind: Some(feast::get_online_features_request::Kind::Features(list(&[
            "spending:purchases_lifetime",
            "spending:last",
        ]))),
        entities: [("customer".to_owned(), keys.clone())].into(),
        full_feature_names: true,
        ..Default::default()
    };
    let reply = served
        .runtime
        .block_on(client.get_online_features(request.clone()));
    let reply = reply.unwrap().into_inner();
    let names = ["customer", "spending__purchases_lifetime", "spending__last"];
    assert_eq!(reply.metadata.unwrap().feature_names, Some(list(&names)));
    assert_eq!(reply.results[0].values, keys.val);
    let counts = [1, 0].map(|v| FeastValue {
        val: Some(Val::Int64Val(v)),
    });
    assert_eq!(reply.results[1].values, counts);
    let statuses = [feast::FieldStatus::Present, feast::FieldStatus::NotFound];
    assert_eq!(reply.results[1].statuses, statuses.map(i32::from));
    // The purchase lies far behind the latest value's `ttl`.
    assert_eq!(
        reply.results[2].values,
        [None, None].map(|val| FeastValue { val })
    );
    let statuses = [
        feast::FieldStatus::OutsideMaxAge,
        feast::FieldStatus::NotFound,
    ];
    assert_eq!(reply.results[2].statuses, statuses.map(i32::from));
    let seconds: Vec<i64> = reply.results[1]
        .event_timestamps
        .iter()
        .map(|t| t.seconds)
        .collect();
    assert_eq!(seconds[1], 0, "the epoch where there is none");
    let unknown = feast::GetOnlineFeaturesRequest {
        kind: Some(feast::get_online_features_request::Kind::FeatureService(
            "none".into(),
        )),
        ..request
    };
    let refused = served.runtime.block_on(client.get_online_features(unknown));
    assert_eq!(refused.unwrap_err().code(), Code::NotFound);
}

#[test]
fn a_stream_of_requests_is_answered_in_order_and_ends_with_them() {
    use headwater_api::grpc::proto::inference as oip;
    use headwater_api::grpc::proto::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
    use headwater_api::grpc::proto::inference::model_infer_request::InferInputTensor;

    let project = crate::predict::shop("");
    project.run_ok(&["models", "add", "fraud", "one.model", "--alias", "live"]);
    let served = serve(project);
    let input = |name: &str, value: &str| InferInputTensor {
        name: name.to_owned(),
        datatype: "BYTES".to_owned(),
        shape: vec![1],
        contents: Some(oip::InferTensorContents {
            bytes_contents: vec![value.as_bytes().to_vec()],
            ..Default::default()
        }),
        ..Default::default()
    };
    let number = |name: &str| InferInputTensor {
        datatype: "FP64".to_owned(),
        contents: Some(oip::InferTensorContents {
            fp64_contents: vec![3.0],
            ..Default::default()
        }),
        ..input(name, "")
    };
    let request = |id: &str, amount: &str| oip::ModelInferRequest {
        model_name: "fraud".to_owned(),
        id: id.to_owned(),
        inputs: vec![number(amount), input("country", "pt"), number("age")],
        ..Default::default()
    };
    let mut client = GrpcInferenceServiceClient::new(served.channel.clone());
    let one = client.model_infer(request("1", "amount"));
    let outputs = served.runtime.block_on(one).unwrap().into_inner().outputs;
    assert_eq!(outputs.len(), 1);
    // In order, each once; a wrong one in its place.
    let requests: Vec<_> = (0..100)
        .map(|n| {
            request(
                &n.to_string(),
                if n % 10 == 7 { "amounts" } else { "amount" },
            )
        })
        .collect();
    let told = served.runtime.block_on(async {
        let mut answers = client
            .model_stream_infer(futures_util::stream::iter(requests))
            .await
            .unwrap()
            .into_inner();
        let mut told = Vec::new();
        while let Some(answer) = answers.message().await.unwrap() {
            told.push(answer);
        }
        told
    });
    assert_eq!(told.len(), 100);
    for (place, answer) in told.into_iter().enumerate() {
        let of = answer.infer_response.unwrap();
        assert_eq!(of.id, place.to_string());
        match place % 10 {
            7 => assert!(
                answer.error_message.contains("amounts"),
                "{}",
                answer.error_message
            ),
            _ => assert_eq!(
                (of.outputs, answer.error_message),
                (outputs.clone(), String::new())
            ),
        }
    }
    assert!(served.server.stop());
}

fn list(items: Vec<Value>) -> List {
    List { items }
}

/// What the shop's set asks a request for.
fn own_fields(country: &str) -> Struct {
    let fields = [("country", text(country)), ("factor", amount(0.25))];
    Struct {
        fields: fields.map(|(n, v)| (n.to_owned(), v)).into(),
    }
}

impl Served {
    fn predict(&self, request: PredictRequest) -> Result<PredictReply, tonic::Status> {
        let mut models = ModelsClient::new(self.channel.clone());
        let request = PredictRequest {
            model: "fraud".into(),
            deadline_ms: Some(30_000),
            ..request
        };
        let reply = self.runtime.block_on(models.predict(request))?;
        Ok(reply.into_inner())
    }

    fn tell(&self, outcomes: &[(&str, Value)]) -> Result<(u64, u64), tonic::Status> {
        let outcomes = outcomes.iter().map(|(id, value)| Outcome {
            prediction_id: (*id).to_owned(),
            value: Some(value.clone()),
            event_time: 1_500_000,
        });
        let outcomes = OutcomesRequest {
            outcomes: outcomes.collect(),
        };
        let mut models = ModelsClient::new(self.channel.clone());
        let reply = self.runtime.block_on(models.outcomes(outcomes))?;
        let reply = reply.into_inner();
        Ok((reply.accepted, reply.duplicates))
    }
}

/// The only number of a row's only output, to the bit.
fn output(reply: &PredictReply, row: usize) -> u64 {
    let outputs = &reply.outputs[row].outputs;
    assert_eq!(outputs.len(), 1);
    let numbers = &outputs.values().next().unwrap().numbers;
    assert_eq!(numbers.len(), 1);
    numbers[0].to_bits()
}

#[test]
fn models_are_asked_by_entities_candidates_and_their_own_inputs() {
    let project = crate::predict::shop("");
    project.run_ok(&["models", "add", "fraud", "one.model", "--alias", "live"]);
    let served = serve(project);
    crate::predict::send_purchases(&served.server);
    let file = crate::predict::first();
    let model = load(file.as_bytes(), &LoadOptions::default()).unwrap();
    let wanted = |customer: &str, country: &str, reply: &PredictReply| {
        let cursor = json!({"as_of": reply.as_of.unwrap(), "sequence": reply.sequence});
        let server = &served.server;
        crate::predict::oracle(model.as_ref(), server, customer, country, &cursor)
    };
    let rows = PredictRequest {
        entities: vec![customer("c0"), customer("nobody")],
        context: vec![own_fields("fr"), own_fields("pt")],
        explain: true,
        ..PredictRequest::default()
    };
    let reply = served.predict(rows.clone()).unwrap();
    assert_eq!(
        (reply.model.as_str(), reply.prediction_ids.len()),
        ("fraud", 2)
    );
    assert!(!reply.version.is_empty() && reply.degraded.is_none());
    for (row, (customer, country)) in [("c0", "fr"), ("nobody", "pt")].into_iter().enumerate() {
        let wanted = wanted(customer, country, &reply);
        assert_eq!(output(&reply, row), wanted.to_bits(), "{customer}");
        let score = &reply.explanations[row].scores[0];
        let sum = score.inputs.values().sum::<f64>() + score.base;
        let margin = (wanted / (1.0 - wanted)).ln();
        assert!((sum - margin).abs() < 1e-9, "{sum} {margin}");
    }
    // Candidates share the row's context.
    let ranked = PredictRequest {
        entities: vec![EntityRow::default()],
        context: vec![own_fields("xx")],
        candidates: Some(Candidates {
            entity: "customer".into(),
            ids: ["c0", "c1", "c2"].map(text).into(),
        }),
        ..PredictRequest::default()
    };
    let ranked = served.predict(ranked).unwrap();
    for (row, customer) in ["c0", "c1", "c2"].into_iter().enumerate() {
        let wanted = wanted(customer, "xx", &ranked);
        assert_eq!(output(&ranked, row), wanted.to_bits(), "{customer}");
    }
    let null = || Value { kind: None };
    let own = PredictRequest {
        vectors: vec![
            list(vec![amount(1.5), text("pt"), null()]),
            list(vec![value(Kind::IntValue(-3)), text("de"), amount(7.25)]),
        ],
        version: "live".into(),
        ..PredictRequest::default()
    };
    let own = served.predict(own).unwrap();
    assert_eq!((own.as_of, own.sequence.as_str()), (None, ""));
    for (row, vector) in [[1.5, 2.0, f64::NAN], [-3.0, 0.0, 7.25]].iter().enumerate() {
        let wanted = model.predict(Rows::one(vector).unwrap()).unwrap().outputs[0];
        assert_eq!(output(&own, row), wanted.to_bits());
    }
    // They are in the log like any others.
    let facts = crate::predict::predictions(&served.server, 7);
    let logged: BTreeSet<&str> = facts
        .iter()
        .filter_map(|f| f["fact"]["id"].as_str())
        .collect();
    let ids = [&reply, &ranked, &own].map(|reply| &reply.prediction_ids);
    assert!(
        ids.into_iter()
            .flatten()
            .all(|id| logged.contains(id.as_str()))
    );

    // What is wrong is told in the words of HTTP.
    let refused = |change: &dyn Fn(&mut PredictRequest), code, reason: &str| {
        let mut request = rows.clone();
        change(&mut request);
        let status = served.predict(request).unwrap_err();
        assert_eq!((status.code(), details(&status).0.as_str()), (code, reason));
    };
    let wrong = Code::InvalidArgument;
    refused(
        &|r| r.vectors = vec![list(Vec::new())],
        wrong,
        "malformed-request",
    );
    refused(&|r| r.entities.clear(), wrong, "malformed-request");
    refused(&|r| r.context.clear(), wrong, "missing-context");
    refused(
        &|r| r.version = "9".into(),
        Code::NotFound,
        "unknown-version",
    );
    let bytes = || value(Kind::BytesValue(vec![0]));
    refused(
        &|r| r.entities[0] = row_of(bytes()),
        wrong,
        "wrong-key-type",
    );
    let vectors = |items: Vec<Value>| {
        move |r: &mut PredictRequest| {
            *r = PredictRequest {
                vectors: vec![list(items.clone())],
                ..PredictRequest::default()
            };
        }
    };
    refused(&vectors(vec![bytes()]), wrong, "model-input");
    refused(&vectors(vec![amount(1.0)]), wrong, "model-shape");
    let mut models = ModelsClient::new(served.channel.clone());
    let unknown = models.predict(PredictRequest {
        model: "frauds".into(),
        ..rows.clone()
    });
    let status = served.runtime.block_on(unknown).unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(
        details(&status),
        ("unknown-model".into(), "did you mean `fraud`?".into())
    );
    let late = models.predict(PredictRequest {
        model: "fraud".into(),
        deadline_ms: Some(0),
        ..rows.clone()
    });
    let status = served.runtime.block_on(late).unwrap_err();
    assert_eq!(details(&status).0, "invalid-duration");
    assert!(served.server.stop());
}

fn row_of(key: Value) -> EntityRow {
    EntityRow {
        keys: [("customer".to_owned(), key)].into(),
    }
}

#[test]
fn outcomes_are_told_and_revised_and_fallbacks_say_that_they_are() {
    let project = crate::predict::shop("  fallback: [{constant: 0.5}]\n");
    project.run_ok(&["models", "add", "fraud", "one.model", "--alias", "live"]);
    let served = serve(project);
    let vector = [amount(1.5), text("pt"), amount(2.0)];
    let rows = PredictRequest {
        vectors: vec![list(vector.into()); 3],
        ..PredictRequest::default()
    };
    let ids = served.predict(rows.clone()).unwrap().prediction_ids;
    let [first, second, third] = [&ids[0], &ids[1], &ids[2]];
    let yes = value(Kind::BoolValue(true));
    let told = [
        (first.as_str(), yes),
        (second.as_str(), text("late")),
        (third.as_str(), amount(0.25)),
    ];
    assert_eq!(served.tell(&told).unwrap(), (3, 0));
    assert_eq!(served.tell(&told[1..2]).unwrap(), (0, 1));
    let revised = [(third.as_str(), value(Kind::IntValue(7)))];
    assert_eq!(served.tell(&revised).unwrap(), (1, 0));
    let facts = served.server.get("/v1/facts/outcome").json();
    let facts = facts["facts"].as_array().unwrap().iter().map(|f| {
        let fact = &f["fact"];
        let id = fact["prediction_id"].as_str().unwrap().to_owned();
        (
            id,
            (
                fact["value"].as_f64(),
                fact["label"].as_str(),
                f["event_time"].as_str(),
            ),
        )
    });
    let facts: BTreeMap<String, _> = facts.collect();
    let time = Some("1970-01-01T00:00:01.5Z");
    assert_eq!(facts[first], (Some(1.0), None, time));
    assert_eq!(facts[second], (None, Some("late"), time));
    assert_eq!(facts[third], (Some(7.0), None, time));
    for (id, value, reason) in [
        ("", amount(1.0), "invalid-outcome"),
        ("p", value(Kind::DateValue(1)), "malformed-request"),
        ("p", Value { kind: None }, "malformed-request"),
    ] {
        let status = served.tell(&[(id, value)]).unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(details(&status).0, reason);
    }
    let unload = "/v2/repository/models/fraud/unload";
    assert_eq!(served.server.post_json(unload, &json!({})).status, 200);
    let reply = served.predict(rows).unwrap();
    let degraded = reply.degraded.as_ref().unwrap();
    let told = (degraded.code.as_str(), degraded.fallback.as_str());
    assert_eq!(told, ("no-live-version", "constant"));
    assert_eq!(
        (reply.version.as_str(), reply.prediction_ids.len()),
        ("", 3)
    );
    assert_eq!(output(&reply, 2), 0.5f64.to_bits());
    assert!(served.server.stop());
}

#[test]
fn requests_may_be_packed_and_the_limit_holds_for_what_was_packed() {
    let project = TempProject::new(BINARY, SHOP);
    project.write(
        "headwater.yaml",
        "name: shop\nspec: {limits: {body_bytes_max: 20000}}\n",
    );
    project.run_ok(&["apply"]);
    let served = serve(project);
    for (id, packing) in [CompressionEncoding::Gzip, CompressionEncoding::Deflate]
        .into_iter()
        .enumerate()
    {
        let mut facts = FactsClient::new(served.channel.clone()).send_compressed(packing);
        let mut append = |request| served.runtime.block_on(facts.append(request));
        let good = rows(vec![purchase(id, amount(2.5))]);
        assert_eq!(append(good).unwrap().into_inner().accepted, 1);
        // Ten million letters take ten thousand bytes: too many only once they are unpacked.
        let mut bomb = purchase(100, amount(2.5));
        bomb.fields
            .insert("customer".into(), text("a".repeat(10_000_000)));
        let refused = append(rows(vec![bomb])).unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
        assert!(refused.message().contains("20000 bytes"), "{refused:?}");
    }
}
