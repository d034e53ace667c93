//! Operators around networks that tract lacks, said in ones that it has: scikit-learn's scalers and maps of classes.

use std::borrow::Cow;

use headwater_schema::Problem;
use tract_onnx::pb;
use tract_onnx::pb::tensor_proto::DataType;

use super::attributes::Attributes;
use crate::load::corrupt;

/// What is said otherwise.
pub(super) const REWRITTEN: [&str; 2] = ["Scaler", "ZipMap"];

pub(super) fn is_rewritten(node: &pb::NodeProto) -> bool {
    node.domain == "ai.onnx.ml" && REWRITTEN.contains(&node.op_type.as_str())
}

/// The same model without them.
pub(super) fn rewritten(proto: &pb::ModelProto) -> Result<Cow<'_, pb::ModelProto>, Problem> {
    let Some(graph) = proto
        .graph
        .as_ref()
        .filter(|g| g.node.iter().any(is_rewritten))
    else {
        return Ok(Cow::Borrowed(proto));
    };
    let mut rest = graph.clone();
    rest.node.clear();
    for node in &graph.node {
        match node.op_type.as_str() {
            "Scaler" if is_rewritten(node) => scaler(node, &mut rest)?,
            "ZipMap" if is_rewritten(node) => zip_map(node, &mut rest),
            _ => rest.node.push(node.clone()),
        }
    }
    Ok(Cow::Owned(pb::ModelProto {
        graph: Some(rest),
        ..proto.clone()
    }))
}

/// The same model with maps of classes as their numbers; none where there are no maps.
#[cfg(feature = "onnxruntime")]
pub(super) fn without_maps(proto: &pb::ModelProto) -> Option<pb::ModelProto> {
    let is_map = |node: &pb::NodeProto| is_rewritten(node) && node.op_type == "ZipMap";
    let has_maps = |graph: &&pb::GraphProto| graph.node.iter().any(is_map);
    proto.graph.as_ref().filter(has_maps)?;
    let mut plain = proto.clone();
    let graph = plain.graph.as_mut()?;
    for node in std::mem::take(&mut graph.node) {
        match is_map(&node) {
            true => zip_map(&node, graph),
            false => graph.node.push(node),
        }
    }
    // `Identity` has to be of some version.
    if !proto
        .opset_import
        .iter()
        .any(|o| ["", "ai.onnx"].contains(&o.domain.as_str()))
    {
        plain.opset_import.push(pb::OperatorSetIdProto {
            domain: String::new(),
            version: 13,
        });
    }
    Some(plain)
}

/// The numbers that a map is made of, under its name.
fn zip_map(node: &pb::NodeProto, graph: &mut pb::GraphProto) {
    let output = node.output.first().map_or("", String::as_str);
    // It isn't a map any more.
    for declared in graph.output.iter_mut().filter(|o| o.name == output) {
        declared.r#type = None;
    }
    graph.node.push(made("Identity", &node.input, output));
}

/// `(x − offset) · scale`, of floats.
fn scaler(node: &pb::NodeProto, graph: &mut pb::GraphProto) -> Result<(), Problem> {
    let (Some(input), Some(output)) = (node.input.first(), node.output.first()) else {
        return Err(corrupt("A `Scaler` without input or output"));
    };
    let attributes = Attributes(node);
    let mut constant = |what: &str| {
        let numbers = attributes.floats(what);
        let name = format!("{output}/{what}");
        graph.initializer.push(pb::TensorProto {
            name: name.clone(),
            dims: vec![numbers.len() as i64],
            data_type: DataType::Float as i32,
            float_data: numbers.to_vec(),
            ..pb::TensorProto::default()
        });
        name
    };
    let (offset, scale) = (constant("offset"), constant("scale"));
    let (floats, centred) = (format!("{output}/floats"), format!("{output}/centred"));
    let mut cast = made("Cast", &[input], &floats);
    cast.attribute = vec![pb::AttributeProto {
        name: "to".into(),
        r#type: pb::attribute_proto::AttributeType::Int as i32,
        i: DataType::Float as i64,
        ..pb::AttributeProto::default()
    }];
    graph.node.push(cast);
    graph.node.push(made("Sub", &[&floats, &offset], &centred));
    graph.node.push(made("Mul", &[&centred, &scale], output));
    Ok(())
}

fn made<T: AsRef<str>>(op_type: &str, input: &[T], output: &str) -> pb::NodeProto {
    pb::NodeProto {
        op_type: op_type.into(),
        input: input.iter().map(|i| i.as_ref().to_owned()).collect(),
        output: vec![output.into()],
        name: output.into(),
        ..pb::NodeProto::default()
    }
}
