//! Tensors of the inference protocol, in gRPC's messages and behind JSON: whatever bytes come are refused, or are rows as wide as the
//! message says, of no more elements than it has bytes.

use std::collections::BTreeMap;

use headwater_api::backend::InputRows;
use headwater_api::grpc::fuzz;
use headwater_api::grpc::proto::inference::infer_parameter::ParameterChoice;
use headwater_api::grpc::proto::inference::model_infer_request::{
    InferInputTensor, InferRequestedOutputTensor,
};
use headwater_api::grpc::proto::inference::{
    InferParameter, InferTensorContents, ModelInferRequest,
};
use headwater_schema::{Blame, Problem, Value};
use prost::Message;

use super::Target;
use super::messages::LIMITS;

/// The end of the JSON of a body, where raw tensors follow.
const END_OF_JSON: u8 = b'\n';

/// Whether rows were read; what was is held to the bytes it came from.
fn read(input: &[u8], read: Result<InputRows, Problem>) -> bool {
    let rows = match read {
        Ok(InputRows::Vectors(rows)) => rows,
        Ok(InputRows::Named { names, rows }) => {
            assert!(rows.iter().all(|row| row.len() == names.len()));
            rows
        }
        Ok(InputRows::Entities { .. }) => panic!("tensors name no entities"),
        Err(problem) => {
            assert_eq!(problem.blame, Blame::User, "{problem}");
            return false;
        }
    };
    assert!(rows.len() <= LIMITS.entities_max);
    assert!(rows.windows(2).all(|pair| pair[0].len() == pair[1].len()));
    let elements: usize = rows.iter().map(Vec::len).sum();
    assert!(elements <= input.len(), "{elements} of {}", input.len());
    // A missing value is null, and nothing else is.
    let no_nan = |value: &Value| !matches!(value, Value::Float(f) if f.is_nan());
    assert!(rows.iter().flatten().all(no_nan));
    true
}

fn input(name: &str, datatype: &str, contents: Option<InferTensorContents>) -> InferInputTensor {
    InferInputTensor {
        name: name.into(),
        datatype: datatype.into(),
        shape: vec![2, 1],
        parameters: BTreeMap::new(),
        contents,
    }
}

fn parameter(choice: ParameterChoice) -> InferParameter {
    InferParameter {
        parameter_choice: Some(choice),
    }
}

fn request(inputs: Vec<InferInputTensor>, raw: Vec<Vec<u8>>) -> Vec<u8> {
    let timeout = parameter(ParameterChoice::Int64Param(1000));
    let binary = parameter(ParameterChoice::BoolParam(true));
    ModelInferRequest {
        model_name: "fraud".into(),
        model_version: "1".into(),
        id: "a".into(),
        parameters: [("timeout".to_owned(), timeout)].into(),
        inputs,
        outputs: vec![InferRequestedOutputTensor {
            name: "p".into(),
            parameters: [("binary_data".to_owned(), binary)].into(),
        }],
        raw_input_contents: raw,
    }
    .encode_to_vec()
}

/// A tensor for each list that elements come in.
fn of_lists() -> Vec<u8> {
    let mut lists: [InferTensorContents; 8] = Default::default();
    lists[0].bool_contents = vec![true, false];
    lists[1].int_contents = vec![-1, 127];
    lists[2].int64_contents = vec![i64::MIN, 7];
    lists[3].uint_contents = vec![0, 65_535];
    lists[4].uint64_contents = vec![7, u64::MAX];
    lists[5].fp32_contents = vec![f32::NAN, 1.5];
    lists[6].fp64_contents = vec![f64::INFINITY, -0.0];
    lists[7].bytes_contents = vec!["é".into(), Vec::new()];
    let types = [
        "BOOL", "INT8", "INT64", "UINT16", "UINT64", "FP32", "FP64", "BYTES",
    ];
    let inputs = types.into_iter().zip(lists);
    let inputs = inputs.map(|(datatype, list)| input(datatype, datatype, Some(list)));
    request(inputs.collect(), Vec::new())
}

/// Raw tensors of every width.
fn of_raw() -> Vec<u8> {
    let sizes = [
        ("BOOL", 1),
        ("INT8", 1),
        ("UINT16", 2),
        ("FP16", 2),
        ("INT32", 4),
        ("FP32", 4),
        ("UINT64", 8),
        ("FP64", 8),
    ];
    let inputs = sizes
        .iter()
        .map(|(datatype, _)| input(datatype, datatype, None));
    let inputs = inputs.chain([input("text", "BYTES", None)]);
    let raw = sizes.iter().map(|(_, bytes)| vec![1; 2 * bytes]);
    let texts = [
        &2_u32.to_le_bytes()[..],
        "é".as_bytes(),
        &0_u32.to_le_bytes(),
    ]
    .concat();
    request(inputs.collect(), raw.chain([texts]).collect())
}

pub const MESSAGES: Target = Target {
    name: "grpc_infer",
    seeds: || {
        let one = InferInputTensor {
            shape: vec![2, 3],
            ..input("all", "FP32", None)
        };
        vec![of_lists(), of_raw(), request(vec![one], vec![vec![0; 24]])]
    },
    words: &[
        "BOOL",
        "INT8",
        "UINT64",
        "FP16",
        "BYTES",
        "shared_memory_region",
        "\u{1a}\u{2}\u{2}\u{1}",
        "\u{1a}\u{1}\u{0}",
        "*\u{0}",
        ":\u{0}",
    ],
    run: |input| read(input, fuzz::infer(input, &LIMITS)),
};

pub const BODIES: Target = Target {
    name: "oip_infer",
    seeds: || {
        let listed = r#"{"model_name": "fraud", "model_version": "1", "id": "a", "parameters": {"timeout": 1000, "binary_data_output": true},
            "inputs": [{"name": "x", "shape": [2, 1], "datatype": "FP64", "data": [0.5, null]},
                       {"name": "y", "shape": [2], "datatype": "UINT64", "data": [18446744073709551615, 0]},
                       {"name": "z", "shape": [2, 1], "datatype": "BYTES", "data": [["é"], [""]]}],
            "outputs": [{"name": "p", "parameters": {"binary_data": false}}]}"#;
        let nested = r#"{"inputs": [{"name": "all", "shape": [2, 3], "datatype": "INT32", "data": [[1, 2, 3], [4, 5, -6]]}]}"#;
        let raw = r#"{"inputs": [{"name": "x", "shape": [2, 1], "datatype": "FP64", "parameters": {"binary_data_size": 16}}, {"name": "z", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": 10}}]}"#;
        let doubles = [0.5_f64, f64::NAN].map(f64::to_le_bytes).concat();
        let texts = [
            &2_u32.to_le_bytes()[..],
            "é".as_bytes(),
            &0_u32.to_le_bytes(),
        ]
        .concat();
        let raw = [raw.as_bytes(), &[END_OF_JSON], &doubles, &texts].concat();
        // In one line, so that all of it is JSON.
        let listed = listed.replace('\n', " ");
        vec![listed.into_bytes(), nested.as_bytes().to_vec(), raw]
    },
    words: &[
        "\"data\":",
        "\"shape\":[",
        "\"binary_data_size\":",
        "\"FP16\"",
        "\"BYTES\"",
        "\"BOOL\"",
        "null",
        "[[",
        "\n",
    ],
    run: |input| {
        // The header says where the JSON ends; here the first line does.
        let end = input.iter().position(|byte| *byte == END_OF_JSON);
        let json_bytes = end.map(|end| end + 1);
        for columns in [1, 3] {
            let raw = read(input, fuzz::infer_raw(input, columns, &LIMITS));
            let rows = input.len() / (8 * columns);
            let whole = input.len().is_multiple_of(8 * columns);
            assert_eq!(raw, whole && rows <= LIMITS.entities_max);
        }
        read(input, fuzz::infer_body(input, json_bytes, &LIMITS))
    },
};
