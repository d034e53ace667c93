//! Graphs written by hand, against what they say.
#![expect(clippy::unwrap_used, reason = "tests stop loudly")]

use proptest::prelude::*;
use prost::Message;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto,
    TensorProto, TensorShapeProto, TypeProto, ValueInfoProto, type_proto,
};

use crate::{Format, LoadOptions, Predictor, Rows, load};

pub(super) const FLOAT: i32 = 1;
pub(super) const INT64: i32 = 7;
pub(super) const DOUBLE: i32 = 11;

/// A tensor's name, type and columns a row; `None` is one number without a second axis.
pub(super) fn value(name: &str, elem_type: i32, columns: Option<i64>) -> ValueInfoProto {
    let fixed = |n| Dimension {
        value: Some(dimension::Value::DimValue(n)),
        ..Dimension::default()
    };
    let rows = Dimension {
        value: Some(dimension::Value::DimParam("rows".into())),
        ..Dimension::default()
    };
    let dim = std::iter::once(rows).chain(columns.map(fixed)).collect();
    let tensor = type_proto::Tensor {
        elem_type,
        shape: Some(TensorShapeProto { dim }),
    };
    ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(tensor)),
            ..TypeProto::default()
        }),
        ..ValueInfoProto::default()
    }
}

/// A tensor of one text's tokens, whose number isn't known, with so many numbers for each.
pub(super) fn tokens(name: &str, elem_type: i32, numbers: Option<i64>) -> ValueInfoProto {
    let mut value = value(name, elem_type, None);
    let some = TypeProto {
        value: Some(type_proto::Value::TensorType(type_proto::Tensor {
            elem_type,
            shape: Some(TensorShapeProto {
                dim: ["batch", "tokens"]
                    .map(|name| dimension::Value::DimParam(name.into()))
                    .into_iter()
                    .chain(numbers.map(dimension::Value::DimValue))
                    .map(|value| Dimension {
                        value: Some(value),
                        ..Dimension::default()
                    })
                    .collect(),
            }),
        })),
        ..TypeProto::default()
    };
    value.r#type = Some(some);
    value
}

pub(super) fn graph(
    input: Vec<ValueInfoProto>,
    initializer: Vec<TensorProto>,
    node: Vec<NodeProto>,
    output: Vec<ValueInfoProto>,
) -> GraphProto {
    GraphProto {
        name: "network".into(),
        input,
        initializer,
        node,
        output,
        ..GraphProto::default()
    }
}

pub(super) fn weights(name: &str, dims: &[i64], floats: &[f32]) -> TensorProto {
    TensorProto {
        name: name.into(),
        dims: dims.to_vec(),
        data_type: FLOAT,
        float_data: floats.to_vec(),
        ..TensorProto::default()
    }
}

pub(super) fn node(op_type: &str, input: &[&str], output: &str) -> NodeProto {
    NodeProto {
        op_type: op_type.into(),
        input: input.iter().map(|i| (*i).to_owned()).collect(),
        output: vec![output.into()],
        name: output.into(),
        ..NodeProto::default()
    }
}

pub(super) fn model(graph: GraphProto) -> ModelProto {
    ModelProto {
        ir_version: 8,
        producer_name: "by hand".into(),
        opset_import: vec![OperatorSetIdProto {
            domain: String::new(),
            version: 13,
        }],
        graph: Some(graph),
        ..ModelProto::default()
    }
}

/// `score = relu(x · w + b) · v`, `probability = sigmoid(score)`, of two columns.
fn network() -> ModelProto {
    model(GraphProto {
        name: "network".into(),
        input: vec![value("x", FLOAT, Some(2))],
        initializer: vec![
            weights("w", &[2, 3], &[1.0, -2.0, 3.0, 0.5, 1.0, -1.0]),
            weights("b", &[3], &[0.25, 0.5, -4.0]),
            weights("v", &[3, 1], &[2.0, -1.0, 0.5]),
        ],
        node: vec![
            node("MatMul", &["x", "w"], "xw"),
            node("Add", &["xw", "b"], "sum"),
            node("Relu", &["sum"], "hidden"),
            node("MatMul", &["hidden", "v"], "score"),
            node("Sigmoid", &["score"], "probability"),
        ],
        output: vec![
            value("score", FLOAT, Some(1)),
            value("probability", FLOAT, Some(1)),
        ],
        ..GraphProto::default()
    })
}

fn by_hand(x: [f64; 2]) -> f64 {
    let hidden = [
        x[0] + 0.5 * x[1] + 0.25,
        -2.0 * x[0] + x[1] + 0.5,
        3.0 * x[0] - x[1] - 4.0,
    ];
    let [a, b, c] = hidden.map(|h| h.max(0.0));
    2.0 * a - b + 0.5 * c
}

pub(super) fn loaded(model: &ModelProto) -> Box<dyn Predictor> {
    load(&model.encode_to_vec(), &LoadOptions::default()).unwrap()
}

pub(super) fn refused(model: &ModelProto) -> (&'static str, String) {
    let problem = load(&model.encode_to_vec(), &LoadOptions::default()).unwrap_err();
    (problem.code, problem.to_string())
}

pub(super) fn predict(model: &dyn Predictor, rows: &[f64]) -> Vec<f64> {
    let rows = Rows::new(rows, model.contract().inputs.len()).unwrap();
    model.predict(rows).unwrap().outputs
}

#[test]
fn a_network_says_what_its_graph_says() {
    let bytes = network().encode_to_vec();
    assert_eq!(Format::sniff(&bytes).unwrap(), Format::Onnx);
    let model = loaded(&network());
    let contract = model.contract();
    let names: Vec<&str> = contract.inputs.iter().map(|i| i.name.as_str()).collect();
    assert_eq!(names, ["x_0", "x_1"]);
    let outputs: Vec<_> = contract
        .outputs
        .iter()
        .map(|o| (o.name.as_str(), o.width))
        .collect();
    assert_eq!(outputs, [("score", 1), ("probability", 1)]);
    // Small halves and whole numbers: floats are exact.
    let rows = [[3.0, 1.0], [-2.0, 4.0], [0.0, -0.0], [8.0, 64.0]];
    let answers = predict(model.as_ref(), rows.as_flattened());
    for (row, answer) in rows.iter().zip(answers.chunks(2)) {
        let score = by_hand(*row);
        assert_eq!(answer[0], score, "{row:?}");
        let probability = 1.0 / (1.0 + (-score).exp());
        assert!((answer[1] - probability).abs() < 1e-6, "{row:?} {answer:?}");
    }
    let missing = predict(model.as_ref(), &[f64::NAN, 1.0]);
    assert!(missing[0].is_nan() || missing[0] == 0.0, "{missing:?}");
    assert_eq!(
        model
            .explain(Rows::one(&[1.0, 2.0]).unwrap())
            .unwrap_err()
            .code,
        "no-contributions"
    );
}

#[test]
fn columns_are_named_by_the_file_or_after_their_inputs() {
    let mut named = network();
    named.metadata_props.push(StringStringEntryProto {
        key: "headwater.inputs".into(),
        value: r#"["age","amount"]"#.into(),
    });
    let names = |model: &ModelProto| -> Vec<String> {
        let model = loaded(model);
        model
            .contract()
            .inputs
            .iter()
            .map(|i| i.name.clone())
            .collect()
    };
    assert_eq!(names(&named), ["age", "amount"]);
    for (value, said) in [
        (r#"["age"]"#, "has 1 names"),
        (r#"["age","age"]"#, "called `age`"),
        ("age", "isn't a list"),
    ] {
        named.metadata_props[0].value = value.into();
        let (code, problem) = refused(&named);
        assert!(
            code == "model-corrupt" && problem.contains(said),
            "{problem}"
        );
    }
    // One input a column, of three types, one of them without a second axis.
    let several = model(GraphProto {
        input: vec![
            value("age", INT64, None),
            value("amount", DOUBLE, Some(1)),
            value("score", FLOAT, Some(2)),
        ],
        node: vec![
            node("Identity", &["age"], "the_age"),
            node("Neg", &["amount"], "less"),
            node("Abs", &["score"], "size"),
        ],
        output: vec![
            value("the_age", INT64, None),
            value("less", DOUBLE, Some(1)),
            value("size", FLOAT, Some(2)),
        ],
        ..GraphProto::default()
    });
    assert_eq!(names(&several), ["age", "amount", "score_0", "score_1"]);
    let model = loaded(&several);
    // A double stays a double; what is given as a float is rounded to one.
    let answer = predict(model.as_ref(), &[41.0, 0.1, -0.1, f64::INFINITY]);
    assert_eq!(answer, [41.0, -0.1, f64::from(0.1_f32), f64::INFINITY]);
    let missing = predict(model.as_ref(), &[f64::NAN, 1.0, 1.0, 1.0]);
    assert!(missing.iter().all(|n| n.is_nan()), "{missing:?}");
    let halves = model.predict(Rows::one(&[1.5, 1.0, 1.0, 1.0]).unwrap());
    assert_eq!(halves.unwrap_err().code, "model-input");
}

#[test]
fn scalers_and_maps_around_a_network_are_taken() {
    let mut scaled = network();
    let graph = scaled.graph.as_mut().unwrap();
    let floats = |name: &str, floats: &[f32]| AttributeProto {
        name: name.into(),
        r#type: 6,
        floats: floats.to_vec(),
        ..AttributeProto::default()
    };
    let of_classical = |node| NodeProto {
        domain: "ai.onnx.ml".into(),
        ..node
    };
    graph.node[0].input[0] = "scaled".into();
    let scaler = NodeProto {
        attribute: vec![floats("offset", &[1.0, -2.0]), floats("scale", &[0.5])],
        ..of_classical(node("Scaler", &["x"], "scaled"))
    };
    graph.node.insert(0, scaler);
    graph
        .node
        .push(of_classical(node("ZipMap", &["score"], "map")));
    graph.output = vec![value("map", FLOAT, None)];
    scaled.opset_import.push(OperatorSetIdProto {
        domain: "ai.onnx.ml".into(),
        version: 3,
    });
    let model = loaded(&scaled);
    assert_eq!(model.contract().outputs[0].name, "map");
    let answer = predict(model.as_ref(), &[3.0, 8.0]);
    assert_eq!(answer, [by_hand([1.0, 5.0])]);
}

#[test]
fn what_is_not_served_is_refused_by_name() {
    let refuse = |change: &dyn Fn(&mut GraphProto)| {
        let mut model = network();
        change(model.graph.as_mut().unwrap());
        refused(&model)
    };
    type Change<'a> = &'a dyn Fn(&mut GraphProto);
    let cases: [(Change<'_>, &str, &str); 9] = [
        (
            &|g| g.initializer[0].dims = vec![3, 2],
            "model-unsupported",
            "can't be run",
        ),
        (
            &|g| g.node[2].op_type = "If".into(),
            "model-unsupported",
            "`If`",
        ),
        (
            &|g| {
                g.node[2].op_type = "SVMRegressor".into();
                g.node[2].domain = "ai.onnx.ml".into();
            },
            "model-unsupported",
            "`SVMRegressor` of ai.onnx.ml",
        ),
        (
            &|g| g.initializer[0].data_location = Some(1),
            "model-unsupported",
            "`w`",
        ),
        (
            &|g| g.initializer[0].dims = vec![1 << 40, 1 << 40],
            "model-corrupt",
            "`w`",
        ),
        (
            &|g| g.initializer[0].dims = vec![-2, 3],
            "model-corrupt",
            "`w`",
        ),
        (
            &|g| g.input = vec![value("x", FLOAT, None)],
            "model-unsupported",
            "can't be run",
        ),
        (&|g| g.input.clear(), "model-corrupt", "no inputs"),
        (&|g| g.output.clear(), "model-corrupt", "answers nothing"),
    ];
    for (change, code, said) in cases {
        let (refused, problem) = refuse(change);
        assert!(
            refused == code && problem.contains(said),
            "{refused} {problem}"
        );
    }
    let nowhere = refuse(&|g| g.output[0].name = "nowhere".into());
    assert_eq!(nowhere.0, "model-corrupt", "{}", nowhere.1);
}

#[test]
fn a_file_gets_the_engine_that_it_asks_for_or_is_refused() {
    let asking = |engine: &str| {
        let mut model = network();
        model.metadata_props.push(StringStringEntryProto {
            key: "headwater.engine".into(),
            value: engine.into(),
        });
        refused(&model)
    };
    let (code, problem) = asking("tensorrt");
    assert!(
        code == "model-unsupported" && problem.contains("`tensorrt`"),
        "{problem}"
    );
    // Where it is built in, `tests/onnxruntime.rs` has it run.
    if cfg!(not(feature = "onnxruntime")) {
        let (code, problem) = asking("onnxruntime");
        assert!(
            code == "model-unsupported" && problem.contains("built without the feature"),
            "{problem}"
        );
    }
}

#[test]
fn a_file_that_is_cut_off_is_refused() {
    let bytes = network().encode_to_vec();
    for end in 0..bytes.len() {
        let options = LoadOptions {
            format: Some(Format::Onnx),
            ..LoadOptions::default()
        };
        assert!(load(&bytes[..end], &options).is_err(), "cut off at {end}");
    }
}

proptest! {
    #[test]
    fn a_row_is_answered_alike_alone_and_in_any_batch(
        rows in proptest::collection::vec(proptest::array::uniform2(-1e6_f64..1e6), 1..20),
    ) {
        let model = loaded(&network());
        let together = predict(model.as_ref(), rows.as_flattened());
        let alone = rows.iter().flat_map(|row| predict(model.as_ref(), row));
        let bits = |numbers: Vec<f64>| numbers.into_iter().map(f64::to_bits).collect::<Vec<_>>();
        prop_assert_eq!(bits(together), bits(alone.collect()));
    }

    #[test]
    fn a_file_that_was_changed_stops_nobody(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = network().encode_to_vec();
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        let options = LoadOptions { format: Some(Format::Onnx), ..LoadOptions::default() };
        if let Ok(model) = load(&bytes, &options) {
            let width = model.contract().inputs.len();
            let _ = model.predict(Rows::one(&vec![1.0; width]).unwrap());
        }
    }
}
