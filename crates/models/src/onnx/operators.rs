//! Which operators of ONNX are served. The others are refused by name when a model is loaded, before anything of
//! it is run.

use std::collections::BTreeSet;

use headwater_schema::Problem;
use tract_onnx::pb;

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

/// Refuses a graph with an operator that isn't served.
pub(super) fn check(proto: &pb::ModelProto, graph: &pb::GraphProto) -> Result<(), Problem> {
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
    let of_trees = named.iter().any(|name| name.contains("TreeEnsemble"));
    let problem = unsupported(format!("The operators {}{more}", named.join(", ")));
    Err(match of_trees {
        true => problem.hint("Give the file that the trees' own package saves (LightGBM, XGBoost, CatBoost): it is read exactly"),
        false => problem.hint("Export the model without them; scale inputs in features or in its first layer"),
    })
}

fn is_served(node: &pb::NodeProto) -> bool {
    let name = node.op_type.as_str();
    match node.domain.as_str() {
        "" | "ai.onnx" => NEURAL.binary_search(&name).is_ok(),
        "ai.onnx.ml" => CLASSICAL.contains(&name),
        _ => false,
    }
}
