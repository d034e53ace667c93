//! Neural networks in ONNX, run by tract.
//!
//! A graph is fixed, when it is loaded, to one row at a time: matrix products of another height may add in another
//! order, and a row's answer is to be the same bits alone and in any batch. Classical models, which tract knows few operators of, are
//! beside, in `classical`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use headwater_schema::Problem;
use tract_onnx::pb;
use tract_onnx::prelude::*;

use super::engine::{Engine, Graph, contract, each_row, failed, fill};
use super::graph::{Feed, columns, feeds, inputs, weigh};
use super::operators;
use crate::load::{corrupt, unsupported};
use crate::{ModelContract, Output, Predictor, Rows};

/// A graph that is ready to run.
struct Network {
    contract: ModelContract,
    feeds: Vec<Feed>,
    plan: Arc<TypedRunnableModel>,
    bytes: usize,
}

pub(super) fn load(
    proto: &pb::ModelProto,
    graph: &pb::GraphProto,
    file_bytes: usize,
) -> Result<Box<dyn Predictor>, Problem> {
    unpanicked(|| read(proto, graph, file_bytes))
        .unwrap_or_else(|| Err(corrupt("Its graph doesn't hold together")))
        .map(Graph::boxed)
}

/// What runs in code of others, on a file of others, doesn't take the caller with it.
pub(super) fn unpanicked<T>(run: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(run)).ok()
}

fn read(
    proto: &pb::ModelProto,
    graph: &pb::GraphProto,
    file_bytes: usize,
) -> Result<Network, Problem> {
    let onnx = tract_onnx::onnx().with_ignore_value_info(true);
    operators::check(proto, graph)?;
    let weights = weigh(graph, file_bytes)?;
    let feeds = feeds(graph)?;
    let inputs = inputs(proto, &feeds)?;
    let refused = |e: TractError| unsupported(format!("The graph can't be run: {}", root(&e)));
    let mut model = onnx.model_for_proto_model(proto).map_err(refused)?;
    for (place, feed) in feeds.iter().enumerate() {
        let fact = InferenceFact::dt_shape(feed.data_type, feed.shape());
        model.set_input_fact(place, fact).map_err(refused)?;
    }
    let model = model.into_optimized().map_err(refused)?;
    let outputs = outputs(graph, &model)?;
    let network = Network {
        contract: contract(inputs, outputs, Vec::new(), "a network has none")?,
        feeds,
        plan: model.into_runnable().map_err(refused)?,
        bytes: weights,
    };
    // What only shows when it runs is told now, not to whoever asks first.
    let (row, mut out) = (
        vec![0.0; columns(&network.feeds)],
        vec![0.0; network.contract.scores],
    );
    network
        .run_row(&row, &mut out)
        .map_err(|e| unsupported(format!("A row of zeros can't be run: {}", e.detail)))?;
    Ok(network)
}

/// What the graph answers for one row, by name.
fn outputs(graph: &pb::GraphProto, model: &TypedModel) -> Result<Vec<Output>, Problem> {
    let mut outputs: Vec<Output> = Vec::with_capacity(graph.output.len());
    for (place, output) in graph.output.iter().enumerate() {
        let name = output.name.as_str();
        let fact = model
            .output_fact(place)
            .map_err(|e| corrupt(format!("The output `{name}`: {}", root(&e))))?;
        let width = fact.shape.as_concrete();
        let width = width.and_then(|dims| dims.iter().try_fold(1_usize, |n, d| n.checked_mul(*d)));
        let width = width.filter(|width| *width > 0).ok_or_else(|| {
            unsupported(format!(
                "How many numbers the output `{name}` has for a row isn't known"
            ))
        })?;
        if !is_number(fact.datum_type) {
            return Err(unsupported(format!(
                "The output `{name}` is of {:?}; numbers are answered",
                fact.datum_type
            ))
            .hint("Convert without labels of text; with skl2onnx: options={id(model): {'zipmap': False}}"));
        }
        outputs.push(Output::new(name, width));
    }
    Ok(outputs)
}

fn is_number(data_type: DatumType) -> bool {
    // Whole numbers that are places or sizes are dimensions to tract.
    data_type.is_float()
        || data_type.is_integer()
        || [bool::datum_type(), DatumType::TDim].contains(&data_type)
}

/// The innermost cause, which names what is wrong; what surrounds it are places in tract.
pub(super) fn root(error: &TractError) -> String {
    error.root_cause().to_string()
}

impl Network {
    /// Runs one row; NaN where the graph takes whole numbers and one is missing.
    fn run_row(&self, row: &[f64], out: &mut [f64]) -> Result<(), Problem> {
        let mut tensors = tvec!();
        for feed in &self.feeds {
            match feed.tensor(row)? {
                Some(tensor) => tensors.push(tensor.into_tvalue()),
                None => {
                    out.fill(f64::NAN);
                    return Ok(());
                }
            }
        }
        let values = unpanicked(|| self.plan.run(tensors))
            .ok_or_else(|| failed("It broke off"))?
            .map_err(|e| failed(root(&e)))?;
        let mut numbers = Vec::with_capacity(out.len());
        for value in &values {
            let value = value.cast_to::<f64>().map_err(|e| failed(root(&e)))?;
            let value = value.to_plain_array_view::<f64>();
            numbers.extend(value.map_err(|e| failed(root(&e)))?.iter().copied());
        }
        fill(out, numbers.into_iter())
    }
}

impl Engine for Network {
    fn contract(&self) -> &ModelContract {
        &self.contract
    }

    fn run(&self, rows: Rows<'_>, out: &mut [f64]) -> Result<(), Problem> {
        let scores = self.contract.scores;
        each_row(rows, out, scores, |row, out| self.run_row(row, out))
    }

    fn memory_bytes(&self) -> usize {
        self.bytes
    }
}
