//! Which operators of ONNX are served. The others are refused by name when a model is loaded, before anything of
//! it is run.

use std::collections::BTreeSet;

use headwater_schema::Problem;
use tract_onnx::pb;

use super::rewrite::is_rewritten;
use crate::limits::{NODES_MAX, at_most};
use crate::load::{corrupt, unsupported};

/// Operators that are named where several aren't served.
const NAMED_MAX: usize = 5;

/// Of the domain of neural networks: pure functions of their inputs, without subgraphs, randomness or sizes that
/// depend on values. Sorted.
const NEURAL: [&str; 104] = [
    "Abs",
    "Acos",
    "Acosh",
    "Add",
    "And",
    "ArgMax",
    "ArgMin",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "AveragePool",
    "BatchNormalization",
    "Cast",
    "Ceil",
    "Celu",
    "Clip",
    "Concat",
    "Constant",
    "Conv",
    "Cos",
    "Cosh",
    "CumSum",
    "Div",
    "Dropout",
    "Einsum",
    "Elu",
    "Equal",
    "Erf",
    "Exp",
    "Flatten",
    "Floor",
    "GRU",
    "Gather",
    "GatherElements",
    "Gelu",
    "Gemm",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "Greater",
    "GreaterOrEqual",
    "HardSigmoid",
    "HardSwish",
    "Hardmax",
    "Identity",
    "InstanceNormalization",
    "IsInf",
    "IsNaN",
    "LSTM",
    "LayerNormalization",
    "LeakyRelu",
    "Less",
    "LessOrEqual",
    "Log",
    "LogSoftmax",
    "LpNormalization",
    "MatMul",
    "Max",
    "MaxPool",
    "Mean",
    "Min",
    "Mish",
    "Mod",
    "Mul",
    "Neg",
    "Not",
    "Or",
    "PRelu",
    "Pow",
    "RNN",
    "Reciprocal",
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
    "Relu",
    "Reshape",
    "Round",
    "Selu",
    "Shape",
    "Sigmoid",
    "Sign",
    "Sin",
    "Sinh",
    "Slice",
    "Softmax",
    "Softplus",
    "Softsign",
    "Split",
    "Sqrt",
    "Squeeze",
    "Sub",
    "Sum",
    "Tan",
    "Tanh",
    "ThresholdedRelu",
    "Transpose",
    "Unsqueeze",
    "Where",
];
/// Of the domain of classical models, those that scikit-learn's networks are converted with.
const CLASSICAL: [&str; 3] = ["ArrayFeatureExtractor", "LinearRegressor", "Normalizer"];

/// Of graphs that are run by our own engine of trees: the operators around trees and linear models. Sorted.
const AROUND_TREES: [&str; 22] = [
    "Add",
    "ArrayFeatureExtractor",
    "Cast",
    "Concat",
    "Div",
    "Exp",
    "FeatureVectorizer",
    "Flatten",
    "Gather",
    "Identity",
    "Imputer",
    "LinearClassifier",
    "LinearRegressor",
    "Mul",
    "Normalizer",
    "OneHotEncoder",
    "Reshape",
    "Scaler",
    "Sigmoid",
    "Slice",
    "Sub",
    "ZipMap",
];
const TREES: [&str; 2] = ["TreeEnsembleClassifier", "TreeEnsembleRegressor"];

/// Refuses a network with an operator that isn't served.
pub(super) fn check(proto: &pb::ModelProto, graph: &pb::GraphProto) -> Result<(), Problem> {
    refuse_others(
        proto,
        graph,
        |node| {
            let name = node.op_type.as_str();
            match is_classical(node) {
                true => CLASSICAL.contains(&name),
                false => is_neural(node) && NEURAL.binary_search(&name).is_ok(),
            }
        },
        &or_runtime("Export the model without them"),
    )
}

/// A hint, and that another engine may know the operators.
fn or_runtime(hint: &str) -> String {
    match cfg!(feature = "onnxruntime") {
        true => format!(
            "{hint}, or note `headwater.engine: onnxruntime` in the file's metadata: ONNX Runtime may know them"
        ),
        false => hint.to_owned(),
    }
}

/// What networks of text have besides: sizes that depend on the number of tokens, and weights in bytes.
#[cfg(feature = "text")]
const TEXTUAL: [&str; 10] = [
    "ConstantOfShape",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "Expand",
    "GatherND",
    "MatMulInteger",
    "QuantizeLinear",
    "Range",
    "Tile",
    "Trilu",
];

/// Refuses a network of text with an operator that isn't served.
#[cfg(feature = "text")]
pub(super) fn check_text(proto: &pb::ModelProto, graph: &pb::GraphProto) -> Result<(), Problem> {
    let is_served = |node: &pb::NodeProto| {
        let name = node.op_type.as_str();
        is_neural(node) && (NEURAL.binary_search(&name).is_ok() || TEXTUAL.contains(&name))
    };
    refuse_others(proto, graph, is_served, "Export the model without them")
}

/// The same of a classical model.
pub(super) fn check_classical(
    proto: &pb::ModelProto,
    graph: &pb::GraphProto,
) -> Result<(), Problem> {
    let of_new_trees = graph.node.iter().any(|node| node.op_type == "TreeEnsemble");
    let hint = match of_new_trees {
        true => {
            "Export trees for version 3 of ai.onnx.ml, or give the file that their own package saves"
        }
        false => {
            "Export the model without them, or give the file that the trees' own package saves (LightGBM, XGBoost, CatBoost)"
        }
    };
    refuse_others(proto, graph, is_around_trees, &or_runtime(hint))
}

/// Whether a graph is run by our own engine: what has an operator that networks don't have, or none that only they have.
pub(super) fn are_classical(graph: &pb::GraphProto) -> bool {
    let only = |node: &pb::NodeProto| {
        let name = node.op_type.as_str();
        is_classical(node) && !CLASSICAL.contains(&name) && !is_rewritten(node)
    };
    graph.node.iter().any(only)
        || (graph.node.iter().any(is_classical) && graph.node.iter().all(is_around_trees))
}

fn is_around_trees(node: &pb::NodeProto) -> bool {
    let name = node.op_type.as_str();
    (is_classical(node) && TREES.contains(&name))
        || ((is_classical(node) || is_neural(node)) && AROUND_TREES.binary_search(&name).is_ok())
}

pub(super) fn is_classical(node: &pb::NodeProto) -> bool {
    node.domain == "ai.onnx.ml"
}

fn is_neural(node: &pb::NodeProto) -> bool {
    ["", "ai.onnx"].contains(&node.domain.as_str())
}

/// Names the operators that aren't served.
fn refuse_others(
    proto: &pb::ModelProto,
    graph: &pb::GraphProto,
    is_served: impl Fn(&pb::NodeProto) -> bool,
    hint: &str,
) -> Result<(), Problem> {
    at_most("nodes", graph.node.len(), NODES_MAX)?;
    if proto.opset_import.is_empty() {
        return Err(corrupt("It doesn't say of which version its operators are"));
    }
    if !proto.functions.is_empty() {
        return Err(unsupported("Functions of its own")
            .hint("Inline them before you save it, as with onnx.inliner"));
    }
    if graph.node.is_empty() {
        return Err(corrupt("Its graph has no operators"));
    }
    let refused = graph.node.iter().filter(|node| !is_served(node));
    let name = |node: &pb::NodeProto| match node.domain.as_str() {
        "" | "ai.onnx" => format!("`{}`", node.op_type),
        domain => format!("`{}` of {domain}", node.op_type),
    };
    let refused: BTreeSet<String> = refused.map(name).collect();
    if refused.is_empty() {
        return Ok(());
    }
    let more = if refused.len() > NAMED_MAX {
        ", …"
    } else {
        ""
    };
    let named: Vec<String> = refused.into_iter().take(NAMED_MAX).collect();
    Err(unsupported(format!("The operators {}{more}", named.join(", "))).hint(hint))
}
