//! Models in ONNX, an exchange format of neural networks and classical models: which files are of it, and who runs them.

#[cfg(feature = "onnx")]
mod attributes;
#[cfg(feature = "onnx")]
mod classical;
#[cfg(feature = "onnx")]
mod graph;
#[cfg(feature = "onnx")]
mod network;
#[cfg(feature = "onnx")]
mod operators;
#[cfg(feature = "onnx")]
mod rewrite;
#[cfg(feature = "onnx")]
mod steps;
#[cfg(all(test, feature = "onnx"))]
mod tests;
#[cfg(feature = "text")]
mod text;
#[cfg(feature = "onnx")]
mod transform;
#[cfg(feature = "onnx")]
mod trees;

use headwater_schema::Problem;

use crate::Predictor;

/// Of the field that every file begins with, the version of the format.
const FIRST_TAG: u8 = 0x08;
/// Versions of the format are small numbers.
const IR_VERSION_MAX: u8 = 64;
/// Fields that may come next, producer to opset imports, each by its tag.
const NEXT_TAGS: [u8; 7] = [0x12, 0x1a, 0x22, 0x28, 0x32, 0x3a, 0x42];

pub(crate) fn looks_like(bytes: &[u8]) -> bool {
    match bytes {
        [FIRST_TAG, version, next, ..] => *version <= IR_VERSION_MAX && NEXT_TAGS.contains(next),
        _ => false,
    }
}

#[cfg(feature = "onnx")]
pub(crate) fn load(bytes: &[u8]) -> Result<Box<dyn Predictor>, Problem> {
    use crate::load::corrupt;
    use tract_onnx::prelude::Framework;
    let proto = tract_onnx::onnx().proto_model_for_read(&mut &*bytes);
    let proto = proto.map_err(|e| corrupt(e.root_cause()))?;
    let graph = proto.graph.as_ref();
    let graph = graph.ok_or_else(|| corrupt("It has no graph"))?;
    #[cfg(feature = "text")]
    if text::is_text(&proto) {
        return text::load(&proto, graph, bytes.len());
    }
    if operators::are_classical(graph) {
        return classical::load(&proto, graph, bytes.len());
    }
    let proto = rewrite::rewritten(&proto)?;
    let graph = proto.graph.as_ref().unwrap_or(graph);
    network::load(&proto, graph, bytes.len())
}

/// A build for small devices can leave the engine of networks out.
#[cfg(not(feature = "onnx"))]
pub(crate) fn load(_: &[u8]) -> Result<Box<dyn Predictor>, Problem> {
    Err(
        crate::load::unsupported("This build runs no models in ONNX")
            .hint("Use a build with the feature `onnx`"),
    )
}
