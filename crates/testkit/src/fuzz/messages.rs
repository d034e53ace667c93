//! Messages of gRPC: whatever bytes come are refused, or a request whose rows and names are those of the message.

use std::sync::LazyLock;

use headwater_api::Limits;
use headwater_api::backend::{FeaturesRequest, InputRows, Names};
use headwater_api::grpc::fuzz;
use headwater_api::grpc::proto::feast::serving::get_online_features_request::Kind as Asked;
use headwater_api::grpc::proto::feast::serving::{FeatureList, GetOnlineFeaturesRequest};
use headwater_api::grpc::proto::feast::types::value::Val;
use headwater_api::grpc::proto::feast::types::{RepeatedValue, Value as FeastValue};
use headwater_api::grpc::proto::headwater::append_request::Body;
use headwater_api::grpc::proto::headwater::value::Kind;
use headwater_api::grpc::proto::headwater::{
    AppendRequest, Candidates, EntityRow, List, PredictRequest, ReadRequest, Rows, Struct, Value,
};
use headwater_schema::Blame;
use headwater_schema::decode::BodyFormat;
use prost::Message;

use super::{Target, documents, text};

/// Small, so that inputs reach them.
pub(super) static LIMITS: LazyLock<Limits> = LazyLock::new(|| Limits {
    entities_max: 8,
    features_max: 8,
    ..Limits::default()
});

fn value(kind: Kind) -> Value {
    Value { kind: Some(kind) }
}

fn fields<const N: usize>(fields: [(&str, Kind); N]) -> Struct {
    Struct {
        fields: fields.map(|(n, kind)| (n.to_owned(), value(kind))).into(),
    }
}

/// A row with every type, one with as little as can be, and one that isn't of the contract.
fn rows() -> Vec<Struct> {
    let tags = [value(Kind::StringValue("x".into())), Value { kind: None }];
    let full = fields([
        ("id", Kind::StringValue("a1".into())),
        ("who", Kind::StringValue("a\"\u{1F600}\n".into())),
        ("flag", Kind::BoolValue(true)),
        ("count", Kind::IntValue(7)),
        ("amount", Kind::FloatValue(1.5)),
        ("price", Kind::DecimalValue("12.30".into())),
        ("blob", Kind::BytesValue(vec![0, 255])),
        ("day", Kind::DateValue(20_000)),
        ("tags", Kind::ListValue(List { items: tags.into() })),
        (
            "rates",
            Kind::StructValue(fields([("k", Kind::FloatValue(1.5))])),
        ),
        (
            "place",
            Kind::StructValue(fields([("zip", Kind::StringValue("1".into()))])),
        ),
        ("time", Kind::TimestampValue(1_769_854_620_000_000)),
    ]);
    let little = fields([
        ("id", Kind::StringValue("a2".into())),
        ("time", Kind::IntValue(0)),
    ]);
    let wrong = fields([("amount", Kind::FloatValue(f64::NAN))]);
    vec![full, little, wrong]
}

pub const APPEND: Target = Target {
    name: "grpc_append",
    seeds: || {
        let bodies = [
            Body::Rows(Rows { rows: rows() }),
            Body::Ndjson(documents::ndjson().into_bytes()),
            Body::ArrowStream((text::ARROW.seeds)().swap_remove(0)),
        ];
        let request = |body| AppendRequest {
            contract: "every".into(),
            body: Some(body),
            all_or_nothing: true,
            revise: true,
        };
        bodies.map(|body| request(body).encode_to_vec()).into()
    },
    words: &[
        "every",
        "who",
        "NaN",
        "\u{a}",
        "\u{12}\u{0}",
        "R\u{0}",
        "J\u{4}\u{a}\u{2}R\u{0}",
    ],
    run: |input| {
        let read = fuzz::append(input);
        let Ok(read) = read.map_err(|problem| assert_eq!(problem.blame, Blame::User)) else {
            return false;
        };
        if let Some(rows) = read.rows {
            // What a name or a text holds ends no line.
            let lines: Vec<&[u8]> = read.body.split_inclusive(|b| *b == b'\n').collect();
            assert_eq!(lines.len(), rows);
            for line in lines {
                let row: serde_json::Result<serde_json::Value> = serde_json::from_slice(line);
                assert!(row.expect("a line is JSON").is_object());
            }
            text::body(BodyFormat::Ndjson, &read.body);
            return true;
        }
        text::body(read.format, &read.body)
    },
};

/// Whether a request keeps within its limits, and asks for something.
fn within(request: &FeaturesRequest) {
    if let Names::List(list) = &request.names {
        assert!((1..=LIMITS.features_max).contains(&list.len()));
    }
    assert!(request.entities.len() <= LIMITS.entities_max);
    assert!(request.context.len() <= LIMITS.entities_max);
}

pub const READ: Target = Target {
    name: "grpc_read",
    seeds: || {
        let key = fields([
            ("who", Kind::StringValue("ada".into())),
            ("day", Kind::DateValue(3)),
        ]);
        let keys = [
            Kind::StringValue("ada".into()),
            Kind::IntValue(7),
            Kind::StructValue(key),
        ];
        let row = |kind| EntityRow {
            keys: [("person".to_owned(), value(kind))].into(),
        };
        let by_name = ReadRequest {
            features: vec!["habits.seen_1m".into(), "habits.last_day".into()],
            entities: keys.map(row).into(),
            as_of: Some(-1),
            known_at: "3".into(),
            exclusive: true,
            context: rows(),
            ..ReadRequest::default()
        };
        let by_set = ReadRequest {
            feature_set: "all".into(),
            known_at: "2026-01-31T10:00:00Z".into(),
            ..ReadRequest::default()
        };
        vec![by_name.encode_to_vec(), by_set.encode_to_vec()]
    },
    words: &[
        "person",
        "habits.",
        "\u{12}\u{3}all",
        "*\u{1}9",
        "\u{1a}\u{0}",
        ":\u{0}",
        "0\u{1}",
    ],
    run: |input| match fuzz::read(input, &LIMITS) {
        Ok(request) => {
            within(&request);
            true
        }
        Err(problem) => {
            assert_eq!(problem.blame, Blame::User, "{problem}");
            false
        }
    },
};

/// Predictions asked by entities, of candidates, and with a model's own inputs.
pub const PREDICT: Target = Target {
    name: "grpc_predict",
    seeds: || {
        let text = |text: &str| value(Kind::StringValue(text.into()));
        let person = |kind| EntityRow {
            keys: [("person".to_owned(), value(kind))].into(),
        };
        let by_entities = PredictRequest {
            model: "score".into(),
            entities: vec![
                person(Kind::StringValue("ada".into())),
                person(Kind::IntValue(7)),
            ],
            context: rows(),
            version: "stable".into(),
            deadline_ms: Some(50),
            explain: true,
            ..PredictRequest::default()
        };
        let of_candidates = PredictRequest {
            entities: vec![EntityRow::default()],
            candidates: Some(Candidates {
                entity: "person".into(),
                ids: vec![text("ada"), value(Kind::DateValue(3))],
            }),
            ..PredictRequest::default()
        };
        let row = [
            value(Kind::FloatValue(f64::NAN)),
            value(Kind::IntValue(-1)),
            value(Kind::BoolValue(true)),
            text("fr"),
            Value { kind: None },
        ];
        let by_vectors = PredictRequest {
            vectors: vec![List { items: row.into() }, List::default()],
            ..PredictRequest::default()
        };
        let all = [by_entities, of_candidates, by_vectors];
        all.map(|request| request.encode_to_vec()).into()
    },
    words: &[
        "person",
        "score",
        "\u{12}\u{0}",
        "\"\u{0}",
        "*\u{0}",
        "8\u{1}",
    ],
    run: |input| match fuzz::predict(input, &LIMITS) {
        Ok(InputRows::Entities {
            entities,
            context,
            candidates,
        }) => {
            assert!((1..=LIMITS.entities_max).contains(&entities.len()));
            assert!(context.len() <= LIMITS.entities_max);
            assert!(candidates.is_none_or(|c| c.ids.len() <= LIMITS.entities_max));
            true
        }
        Ok(InputRows::Vectors(rows) | InputRows::Named { rows, .. }) => {
            assert!((1..=LIMITS.entities_max).contains(&rows.len()));
            true
        }
        Err(problem) => {
            assert_eq!(problem.blame, Blame::User, "{problem}");
            false
        }
    },
};

pub const ONLINE: Target = Target {
    name: "grpc_feast",
    seeds: || {
        let keys = [
            Val::StringVal("ada".into()),
            Val::Int64Val(7),
            Val::UnixTimestampVal(i64::MAX),
        ];
        let keys = RepeatedValue {
            val: keys.map(|val| FeastValue { val: Some(val) }).into(),
        };
        let asked = [
            Asked::FeatureService("all".into()),
            Asked::Features(FeatureList {
                val: vec!["habits:seen_1m".into(), "habits@latest:last_day".into()],
            }),
        ];
        let request = |kind| GetOnlineFeaturesRequest {
            kind: Some(kind),
            entities: [
                ("person".to_owned(), keys.clone()),
                ("who".to_owned(), keys.clone()),
            ]
            .into(),
            request_context: [("asked".to_owned(), keys.clone())].into(),
            full_feature_names: true,
            ..GetOnlineFeaturesRequest::default()
        };
        asked.map(|kind| request(kind).encode_to_vec()).into()
    },
    words: &[
        "person",
        "habits:",
        "@2",
        "\u{a}\u{0}",
        "\u{12}\u{0}",
        "\u{1a}\u{0}",
    ],
    run: |input| match fuzz::get_online_features(input, &LIMITS) {
        Ok(request) => {
            within(&request);
            let widths: Vec<usize> = request.entities.iter().map(|row| row.len()).collect();
            assert!(
                widths.windows(2).all(|pair| pair[0] == pair[1]),
                "{widths:?}"
            );
            // What is declared is in every row.
            assert!([0, request.entities.len()].contains(&request.context.len()));
            let mut fields = request.context.iter().map(|row| row.len());
            assert!(fields.all(|count| (1..=2).contains(&count)));
            true
        }
        Err(problem) => {
            assert_eq!(problem.blame, Blame::User, "{problem}");
            false
        }
    },
};
