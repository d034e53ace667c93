//! Files that ask for ONNX Runtime, run by the library that `ORT_DYLIB_PATH` names. `crates/headwater/tests/clients/run`
//! names the one of the Python package.
#![expect(clippy::unwrap_used, reason = "tests stop loudly")]

use std::process::Command;

use headwater_models::{Format, LoadOptions, Predictor, Rows, Task, load};
use headwater_schema::Problem;
use proptest::prelude::*;
use prost::Message;
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto,
    TensorProto, TensorShapeProto, TypeProto, ValueInfoProto, attribute_proto, tensor_shape_proto,
    type_proto,
};

const NETWORK: &[u8] = include_bytes!("../src/onnx/small_network.onnx");
const TREES: &[u8] = include_bytes!("../src/onnx/small_trees.onnx");
const LIBRARY: &str = "ORT_DYLIB_PATH";
const FLOAT: i32 = 1;

/// The same file, and that it asks for the runtime.
fn asking(file: &[u8]) -> ModelProto {
    let mut model = ModelProto::decode(file).unwrap();
    note(&mut model, "onnxruntime");
    model
}

fn note(model: &mut ModelProto, engine: &str) {
    model.metadata_props.push(StringStringEntryProto {
        key: "headwater.engine".into(),
        value: engine.into(),
    });
}

fn read(bytes: &[u8]) -> Result<Box<dyn Predictor>, Problem> {
    let options = LoadOptions {
        format: Some(Format::Onnx),
        ..LoadOptions::default()
    };
    load(bytes, &options)
}

fn loaded(model: &ModelProto) -> Box<dyn Predictor> {
    read(&model.encode_to_vec()).unwrap()
}

fn refused(model: &ModelProto) -> Problem {
    read(&model.encode_to_vec()).unwrap_err()
}

fn outputs(model: &dyn Predictor, rows: &[f64]) -> Vec<f64> {
    let rows = Rows::new(rows, model.contract().inputs.len()).unwrap();
    let prediction = model.predict(rows).unwrap();
    assert_eq!(bits(&prediction.scores), bits(&prediction.outputs));
    prediction.outputs
}

fn bits(numbers: &[f64]) -> Vec<u64> {
    numbers.iter().map(|n| n.to_bits()).collect()
}

/// Rows of halves, in a fixed disorder; the last columns of the trees take whole numbers.
fn rows(columns: usize, whole_from: usize) -> Vec<f64> {
    let numbers = (0..columns * 200).map(|at| {
        let half = ((at * 7919 + at / 3) % 41) as f64 / 2.0 - 10.0;
        match at % columns >= whole_from {
            true => half.floor(),
            false => half,
        }
    });
    numbers.collect()
}

fn value(name: &str, elem_type: i32, columns: i64) -> ValueInfoProto {
    let dims = [-1, columns].map(|n| match n {
        -1 => tensor_shape_proto::dimension::Value::DimParam("rows".into()),
        n => tensor_shape_proto::dimension::Value::DimValue(n),
    });
    let dim = dims.map(|value| tensor_shape_proto::Dimension {
        value: Some(value),
        ..Default::default()
    });
    ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(type_proto::Tensor {
                elem_type,
                shape: Some(TensorShapeProto { dim: dim.into() }),
            })),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn node(op_type: &str, input: &[&str], output: &str) -> NodeProto {
    NodeProto {
        op_type: op_type.into(),
        input: input.iter().map(|i| (*i).to_owned()).collect(),
        output: vec![output.into()],
        ..Default::default()
    }
}

/// Of the nodes between `x`, of two floats, and `y`.
fn graph(node: Vec<NodeProto>, initializer: Vec<TensorProto>) -> ModelProto {
    let mut model = ModelProto {
        ir_version: 8,
        opset_import: vec![OperatorSetIdProto {
            domain: String::new(),
            version: 17,
        }],
        graph: Some(GraphProto {
            name: "graph".into(),
            input: vec![value("x", FLOAT, 2)],
            output: vec![ValueInfoProto {
                r#type: None,
                ..value("y", FLOAT, 2)
            }],
            node,
            initializer,
            ..Default::default()
        }),
        ..Default::default()
    };
    note(&mut model, "onnxruntime");
    model
}

#[test]
fn a_network_and_trees_answer_what_our_own_engines_answer() {
    for (file, whole_from) in [(NETWORK, usize::MAX), (TREES, 2)] {
        let asking = asking(file);
        let (own, runtime) = (read(file).unwrap(), loaded(&asking));
        let (ours, theirs) = (own.contract(), runtime.contract());
        assert_eq!(ours.inputs, theirs.inputs);
        assert_eq!(ours.outputs, theirs.outputs);
        assert_eq!(ours.classes, theirs.classes);
        assert_eq!(ours.task, theirs.task);
        assert!(theirs.contributions.is_err());
        let rows = rows(ours.inputs.len(), whole_from);
        let expected = outputs(own.as_ref(), &rows);
        let answered = outputs(runtime.as_ref(), &rows);
        assert!(expected.iter().any(|n| *n != expected[0]), "{expected:?}");
        for (expected, answered) in expected.iter().zip(&answered) {
            let near = (expected - answered).abs() <= 1e-5 * expected.abs().max(1.0);
            assert!(near, "{expected} {answered}");
        }
        let explained = runtime.explain(Rows::new(&rows, ours.inputs.len()).unwrap());
        assert_eq!(explained.unwrap_err().code, "no-contributions");
        assert!(runtime.memory_bytes() >= asking.encoded_len());
    }
}

#[test]
fn a_whole_number_that_is_missing_is_answered_as_by_our_own_trees() {
    let (own, runtime) = (read(TREES).unwrap(), loaded(&asking(TREES)));
    let columns = own.contract().inputs.len();
    let mut row = rows(columns, 2)[..columns].to_vec();
    row[columns - 1] = f64::NAN;
    assert!(outputs(own.as_ref(), &row).iter().all(|n| n.is_nan()));
    assert!(outputs(runtime.as_ref(), &row).iter().all(|n| n.is_nan()));
    row[columns - 1] = 0.5;
    let half = runtime.predict(Rows::one(&row).unwrap());
    assert_eq!(half.unwrap_err().code, "model-input");
}

#[test]
fn threads_that_share_a_model_get_their_own_answers() {
    let model = loaded(&asking(NETWORK));
    let columns = model.contract().inputs.len();
    let rows = rows(columns, usize::MAX);
    let expected = outputs(model.as_ref(), &rows);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| outputs(model.as_ref(), &rows)))
            .collect();
        for thread in threads {
            assert_eq!(thread.join().unwrap(), expected);
        }
    });
}

#[test]
fn what_our_own_engines_refuse_is_run() {
    // The square of a row's sum, times the sum of a window.
    let mut square = graph(
        vec![
            node("MatMul", &["turned", "x"], "outer"),
            node("ReduceSum", &["outer"], "sum"),
            node("BlackmanWindow", &["size"], "window"),
            node("ReduceSum", &["window"], "of_window"),
            node("Mul", &["sum", "of_window"], "y"),
        ],
        vec![TensorProto {
            name: "size".into(),
            data_type: 7,
            int64_data: vec![8],
            ..Default::default()
        }],
    );
    let nodes = &mut square.graph.as_mut().unwrap().node;
    nodes.insert(0, node("Transpose", &["x"], "turned"));
    let own = ModelProto {
        metadata_props: Vec::new(),
        ..square.clone()
    };
    let problem = refused(&own);
    assert_eq!(problem.code, "model-unsupported");
    let said = problem.to_string();
    assert!(
        said.contains("`BlackmanWindow`") && said.contains("headwater.engine"),
        "{said}"
    );

    let model = loaded(&square);
    let answered = outputs(model.as_ref(), &[2.0, -3.0, 1.0, 3.0]);
    let window: f64 = (0..8)
        .map(|n| {
            let turn = 2.0 * std::f64::consts::PI * f64::from(n) / 8.0;
            0.42 - 0.5 * turn.cos() + 0.08 * (2.0 * turn).cos()
        })
        .sum();
    for (answered, expected) in answered.iter().zip([1.0, 16.0]) {
        assert!(
            (answered - expected * window).abs() < 1e-4,
            "{answered} {window}"
        );
    }
}

#[test]
fn a_map_of_classes_is_its_numbers_in_the_order_of_its_classes() {
    let names = AttributeProto {
        name: "classlabels_strings".into(),
        r#type: attribute_proto::AttributeType::Strings as i32,
        strings: vec![b"yes".to_vec(), b"no".to_vec()],
        ..Default::default()
    };
    let map = NodeProto {
        domain: "ai.onnx.ml".into(),
        attribute: vec![names],
        ..node("ZipMap", &["p"], "y")
    };
    let mut model = graph(vec![node("Softmax", &["x"], "p"), map], Vec::new());
    model.opset_import.push(OperatorSetIdProto {
        domain: "ai.onnx.ml".into(),
        version: 3,
    });
    let model = loaded(&model);
    let contract = model.contract();
    assert_eq!(contract.classes, ["yes", "no"]);
    assert_eq!(contract.task, Task::Multiclass);
    let answered = outputs(model.as_ref(), &[3.0, -3.0]);
    assert!(answered[0] > 0.99 && answered[1] < 0.01, "{answered:?}");
}

#[test]
fn what_is_not_run_is_refused_by_name() {
    let zero = TensorProto {
        name: "elsewhere".into(),
        dims: vec![2],
        data_type: FLOAT,
        data_location: Some(1),
        ..Default::default()
    };
    let huge = TensorProto {
        dims: vec![1 << 40],
        data_location: None,
        ..zero.clone()
    };
    let training = node("Dropout", &["x", "ratio", "training"], "y");
    // In a branch of its own, where only a descent finds it.
    let branch = AttributeProto {
        name: "then_branch".into(),
        r#type: attribute_proto::AttributeType::Graph as i32,
        g: Some(GraphProto {
            node: vec![node("RandomNormalLike", &["x"], "noise")],
            ..Default::default()
        }),
        ..Default::default()
    };
    let branches = NodeProto {
        attribute: vec![branch],
        ..node("If", &["x"], "y")
    };
    let add = || vec![node("Add", &["x", "elsewhere"], "y")];
    let cases = [
        (
            graph(vec![node("Loop", &["x"], "y")], vec![]),
            "model-unsupported",
            "`Loop`",
        ),
        (
            graph(vec![training], vec![]),
            "model-unsupported",
            "`Dropout`",
        ),
        (
            graph(vec![branches], vec![]),
            "model-unsupported",
            "`RandomNormalLike`",
        ),
        (graph(add(), vec![zero]), "model-unsupported", "`elsewhere`"),
        (graph(add(), vec![huge]), "model-corrupt", "`elsewhere`"),
        (
            graph(vec![node("Nothing", &["x"], "y")], vec![]),
            "model-unsupported",
            "ONNX Runtime refuses it",
        ),
        (
            graph(vec![node("Shape", &["nowhere"], "y")], vec![]),
            "model-unsupported",
            "ONNX Runtime refuses it",
        ),
    ];
    for (model, code, said) in cases {
        let problem = refused(&model);
        assert!(
            problem.code == code && problem.to_string().contains(said),
            "{} {problem}",
            problem.code
        );
    }
    let mut other = ModelProto::decode(NETWORK).unwrap();
    note(&mut other, "tensorrt");
    let problem = refused(&other).to_string();
    assert!(
        problem.contains("`tensorrt`") && problem.contains("`onnxruntime`"),
        "{problem}"
    );
}

#[test]
fn a_file_that_is_cut_off_is_refused() {
    // The note is the last field but for what decoding leaves in place: each cut takes some of the graph or the note.
    let whole = asking(NETWORK);
    let mut graph = ModelProto {
        metadata_props: Vec::new(),
        ..whole.clone()
    };
    let notes = ModelProto {
        metadata_props: whole.metadata_props,
        ..ModelProto::default()
    };
    let (notes, opsets) = (
        notes.encode_to_vec(),
        std::mem::take(&mut graph.opset_import),
    );
    let rest = ModelProto {
        opset_import: opsets,
        ..ModelProto::default()
    };
    let bytes = [notes, graph.encode_to_vec(), rest.encode_to_vec()].concat();
    assert!(read(&bytes).is_ok());
    for end in 0..bytes.len() {
        assert!(read(&bytes[..end]).is_err(), "cut off at {end}");
    }
}

/// Set in processes of this test whose environment names no library that there is.
const WITHOUT: &str = "HEADWATER_TEST_WITHOUT_LIBRARY";

#[test]
fn a_library_that_is_missing_is_an_error() {
    if std::env::var_os(WITHOUT).is_some() {
        return without_the_library();
    }
    let this = std::env::current_exe().unwrap();
    // None at all, and a file that is no library.
    for library in ["/nowhere/libonnxruntime.so".into(), this.clone()] {
        let ran = Command::new(&this)
            .args(["--exact", "a_library_that_is_missing_is_an_error"])
            .env(LIBRARY, &library)
            .env(WITHOUT, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ran.stdout);
        assert!(ran.status.success() && said.contains("1 passed"), "{said}");
    }
}

fn without_the_library() {
    let library = std::env::var(LIBRARY).unwrap();
    for _ in 0..2 {
        let problem = refused(&asking(NETWORK));
        assert_eq!(problem.code, "engine-missing");
        let said = problem.to_string();
        assert!(said.contains(&library) && said.contains(LIBRARY), "{said}");
    }
    // Others are read as ever.
    assert!(read(NETWORK).is_ok());
}

proptest! {
    #[test]
    fn a_row_is_answered_alike_alone_and_in_any_batch(
        rows in proptest::collection::vec(proptest::array::uniform3(-1e6_f64..1e6), 1..20),
    ) {
        let model = loaded(&asking(NETWORK));
        let together = outputs(model.as_ref(), rows.as_flattened());
        let alone = rows.iter().flat_map(|row| outputs(model.as_ref(), row));
        prop_assert_eq!(bits(&together), bits(&alone.collect::<Vec<f64>>()));
    }

    #[test]
    fn a_file_that_was_changed_stops_nobody(
        trees in any::<bool>(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = asking(if trees { TREES } else { NETWORK }).encode_to_vec();
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if let Ok(model) = read(&bytes) {
            let width = model.contract().inputs.len();
            let _ = model.predict(Rows::one(&vec![1.0; width]).unwrap());
        }
    }
}
