//! Models in ONNX, an exchange format of neural networks and classical models: which files are of it, and who runs them.

#[cfg(feature = "onnx")]
mod attributes;
#[cfg(feature = "onnx")]
mod classical;
#[cfg(feature = "onnx")]
mod engine;
#[cfg(feature = "onnx")]
mod graph;
#[cfg(feature = "onnx")]
mod network;
#[cfg(feature = "onnx")]
mod operators;
#[cfg(feature = "onnx")]
mod rewrite;
#[cfg(feature = "onnxruntime")]
mod runtime;
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

/// Where a file says that it is to be run by another engine than the one that what it is made of would choose.
#[cfg(feature = "onnx")]
const ENGINE: &str = "headwater.engine";
/// The one engine that a file can ask for.
#[cfg(feature = "onnx")]
const RUNTIME: &str = "onnxruntime";

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
    if asks_for_runtime(&proto)? {
        return load_runtime(&proto, graph, bytes);
    }
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

#[cfg(feature = "onnx")]
fn asks_for_runtime(proto: &tract_onnx::pb::ModelProto) -> Result<bool, Problem> {
    use crate::load::unsupported;
    let Some(asked) = graph::note(proto, ENGINE) else {
        return Ok(false);
    };
    if asked != RUNTIME {
        return Err(unsupported(format!("The engine `{asked}`, which `{ENGINE}` of its metadata asks for"))
            .hint(format!("It can ask for `{RUNTIME}`; without it the engine is chosen by what the graph is made of")));
    }
    #[cfg(feature = "text")]
    if text::is_text(proto) {
        return Err(
            unsupported(format!("A network of texts isn't run by `{RUNTIME}`"))
                .hint(format!("Take `{ENGINE}` out of its metadata")),
        );
    }
    Ok(true)
}

#[cfg(feature = "onnxruntime")]
use runtime::load as load_runtime;

#[cfg(all(feature = "onnx", not(feature = "onnxruntime")))]
fn load_runtime(
    _: &tract_onnx::pb::ModelProto,
    _: &tract_onnx::pb::GraphProto,
    _: &[u8],
) -> Result<Box<dyn Predictor>, Problem> {
    Err(crate::load::unsupported(format!(
        "It asks for ONNX Runtime, and this program was built without the feature `{RUNTIME}`"
    ))
    .hint(format!(
        "Build the program with `--features {RUNTIME}`, or take `{ENGINE}` out of the file's metadata where our own engines can run it"
    )))
}

/// A build for small devices can leave the engine of networks out.
#[cfg(not(feature = "onnx"))]
pub(crate) fn load(_: &[u8]) -> Result<Box<dyn Predictor>, Problem> {
    Err(
        crate::load::unsupported("This build runs no models in ONNX")
            .hint("Use a build with the feature `onnx`"),
    )
}
