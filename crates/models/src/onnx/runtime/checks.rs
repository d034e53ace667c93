//! What isn't given to ONNX Runtime though it could run it, and what classes a file has.

use headwater_schema::Problem;
use tract_onnx::pb;

use super::super::attributes::Attributes;
use super::super::graph::weigh_tensors;
use super::super::operators::is_classical;
use crate::limits::{NODES_MAX, at_most};
use crate::load::{corrupt, unsupported};

/// Operators that answer the same row otherwise each time, or may never come to an end. Sorted.
const REFUSED: [&str; 10] = [
    "Bernoulli",
    "BiasDropout",
    "BitmaskBiasDropout",
    "Loop",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
    "Sampling",
];
/// The smallest numbers of a tensor have two bits.
const ELEMENTS_IN_BYTE: usize = 4;

/// The bytes that the weights take, about. Refuses what wouldn't be a pure function of its inputs, and weights that aren't
/// in the file.
pub(super) fn check(
    proto: &pb::ModelProto,
    graph: &pb::GraphProto,
    file_bytes: usize,
) -> Result<usize, Problem> {
    if proto.opset_import.is_empty() {
        return Err(corrupt("It doesn't say of which version its operators are"));
    }
    let parts = Parts::of(proto, graph);
    at_most("nodes", parts.nodes.len(), NODES_MAX)?;
    for node in &parts.nodes {
        let name = node.op_type.as_str();
        let trains = name.ends_with("Dropout") && node.input.get(2).is_some_and(|i| !i.is_empty());
        if REFUSED.binary_search(&name).is_ok() || trains {
            return Err(unsupported(format!(
                "The operator `{name}`, which doesn't answer the same row alike or may never end"
            ))
            .hint("Export the model for inference, without it"));
        }
    }
    weigh_tensors(parts.tensors, file_bytes.saturating_mul(ELEMENTS_IN_BYTE))
}

/// All operators and constants of a file, those of subgraphs and of functions among them.
#[derive(Default)]
struct Parts<'a> {
    nodes: Vec<&'a pb::NodeProto>,
    tensors: Vec<&'a pb::TensorProto>,
}

impl<'a> Parts<'a> {
    fn of(proto: &'a pb::ModelProto, graph: &'a pb::GraphProto) -> Self {
        let mut parts = Self::default();
        let mut graphs = vec![graph];
        for function in &proto.functions {
            parts.add_nodes(&function.node, &mut graphs);
        }
        while let Some(graph) = graphs.pop() {
            parts.tensors.extend(&graph.initializer);
            graph
                .sparse_initializer
                .iter()
                .for_each(|s| parts.add_sparse(s));
            parts.add_nodes(&graph.node, &mut graphs);
        }
        parts
    }

    fn add_nodes(&mut self, nodes: &'a [pb::NodeProto], graphs: &mut Vec<&'a pb::GraphProto>) {
        self.nodes.extend(nodes);
        for attribute in nodes.iter().flat_map(|node| &node.attribute) {
            self.tensors
                .extend(attribute.t.iter().chain(&attribute.tensors));
            let sparse = attribute.sparse_tensor.iter();
            sparse
                .chain(&attribute.sparse_tensors)
                .for_each(|s| self.add_sparse(s));
            graphs.extend(attribute.g.iter().chain(&attribute.graphs));
        }
    }

    fn add_sparse(&mut self, sparse: &'a pb::SparseTensorProto) {
        self.tensors
            .extend(sparse.values.iter().chain(&sparse.indices));
    }
}

/// Names of the classes that the graph's classifiers tell apart; none where there are several lists.
pub(super) fn classes(graph: &pb::GraphProto) -> Result<Vec<String>, Problem> {
    let mut found: Option<Vec<String>> = None;
    for node in graph.node.iter().filter(|node| is_classical(node)) {
        let attributes = Attributes(node);
        let texts = attributes.texts("classlabels_strings")?;
        let mut names: Vec<String> = texts.into_iter().map(str::to_owned).collect();
        for numbers in ["classlabels_int64s", "classlabels_ints"] {
            names.extend(attributes.ints(numbers).iter().map(i64::to_string));
        }
        match &found {
            _ if names.is_empty() => {}
            Some(before) if *before != names => return Ok(Vec::new()),
            _ => found = Some(names),
        }
    }
    Ok(found.unwrap_or_default())
}
