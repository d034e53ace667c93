//! Graphs that ONNX Runtime runs, for files that ask for it and builds that have it: every operator that it knows, and
//! its own speed and numbers. The runtime is a library of the machine's, found when the first such model is loaded.
//!
//! A session has no threads of its own: who asks computes. Rows are run one after another, as by tract, because sums of
//! another height may be added in another order.

mod checks;
mod library;

use std::borrow::Cow;
use std::sync::{Mutex, PoisonError};

use headwater_schema::Problem;
use ort::session::builder::SessionBuilder;
use ort::session::{Session, SessionOutputs};
use ort::value::{
    DynValue, PrimitiveTensorElementType, Tensor as Value, TensorElementType, ValueType,
};
use prost::Message;
use tract_onnx::pb;
use tract_onnx::prelude::{Datum, DatumType, Tensor};

use super::engine::{Engine, Graph, contract, each_row, failed, fill};
use super::graph::{Feed, columns, feeds, inputs};
use super::network::unpanicked;
use super::rewrite::without_maps;
use crate::load::{corrupt, unsupported};
use crate::{ModelContract, Output, Predictor, Rows};

/// A graph in a session that is ready to run.
struct Runtime {
    contract: ModelContract,
    feeds: Vec<Feed>,
    /// Held for one row at a time: the binding lets one thread into a session.
    session: Mutex<Session>,
    bytes: usize,
}

pub(super) fn load(
    proto: &pb::ModelProto,
    graph: &pb::GraphProto,
    file: &[u8],
) -> Result<Box<dyn Predictor>, Problem> {
    unpanicked(|| read(proto, graph, file))
        .unwrap_or_else(|| Err(corrupt("Its graph doesn't hold together")))
        .map(Graph::boxed)
}

fn read(proto: &pb::ModelProto, graph: &pb::GraphProto, file: &[u8]) -> Result<Runtime, Problem> {
    // Trees are attributes, which aren't weighed.
    let bytes = checks::check(proto, graph, file.len())?.max(file.len());
    let feeds = feeds(graph)?;
    let inputs = inputs(proto, &feeds)?;
    // A map of classes is a sequence of maps to the runtime; what it is made of has its numbers in the classes' order.
    let file = match without_maps(proto) {
        Some(plain) => Cow::Owned(plain.encode_to_vec()),
        None => Cow::Borrowed(file),
    };
    let mut session = session(&file)?;
    let row = vec![0.0; columns(&feeds)];
    let answers = run(&mut session, &feeds, &row, |answers| {
        let answers = answers.iter();
        let answers = answers.map(|(name, value)| (name.to_owned(), answer(&value)));
        Ok(answers.collect::<Vec<_>>())
    })
    .map_err(|e| unsupported(format!("A row of zeros can't be run: {}", e.detail)))?;
    let (outputs, floats) = outputs(answers.unwrap_or_default())?;
    let mut classes = checks::classes(graph)?;
    if !floats.contains(&classes.len()) {
        classes.clear();
    }
    Ok(Runtime {
        contract: contract(inputs, outputs, classes, "ONNX Runtime has none")?,
        feeds,
        session: Mutex::new(session),
        bytes,
    })
}

/// What is answered for one row, and the widths of what is answered in floats.
fn outputs(answers: Vec<(String, Answer)>) -> Result<(Vec<Output>, Vec<usize>), Problem> {
    let (mut outputs, mut floats) = (Vec::new(), Vec::new());
    for (name, answer) in answers {
        match answer {
            Answer::Numbers(data_type, numbers) => {
                if is_float(data_type) {
                    floats.push(numbers.len());
                }
                outputs.push(Output::new(&name, numbers.len()));
            }
            Answer::Text => {}
            Answer::Other(what) => {
                return Err(unsupported(format!(
                    "The output `{name}` is of {what}; numbers are answered"
                ))
                .hint("Cast it to floats in the graph"));
            }
        }
    }
    if outputs.is_empty() {
        return Err(unsupported("Its graph answers no numbers").hint(
            "Export the probabilities, too; of labels of text only their numbers are answered",
        ));
    }
    Ok((outputs, floats))
}

/// A session that computes in the thread that asks it.
fn session(file: &[u8]) -> Result<Session, Problem> {
    type Set = fn(SessionBuilder) -> Result<SessionBuilder, ort::Error<SessionBuilder>>;
    const SETTINGS: [Set; 5] = [
        |builder| builder.with_intra_threads(1),
        |builder| builder.with_inter_threads(1),
        |builder| builder.with_parallel_execution(false),
        |builder| builder.with_intra_op_spinning(false),
        |builder| builder.with_deterministic_compute(true),
    ];
    let environment = library::environment()?;
    let refused = |e: ort::Error| {
        unsupported(format!("ONNX Runtime refuses it: {e}"))
            .hint("Check the file with the Python package onnxruntime")
    };
    let mut builder = Session::builder(&environment).map_err(refused)?;
    for set in SETTINGS {
        builder = set(builder).map_err(|e| refused(e.into()))?;
    }
    builder.commit_from_memory(file).map_err(refused)
}

/// What an output has for one row.
enum Answer {
    Numbers(TensorElementType, Vec<f64>),
    /// Labels, which are left out.
    Text,
    Other(String),
}

fn is_float(data_type: TensorElementType) -> bool {
    [TensorElementType::Float32, TensorElementType::Float64].contains(&data_type)
}

fn answer(value: &DynValue) -> Answer {
    let ValueType::Tensor { ty, .. } = value.dtype() else {
        return Answer::Other(value.dtype().to_string());
    };
    let numbers = match ty {
        TensorElementType::String => return Answer::Text,
        TensorElementType::Float32 => numbers::<f32>(value, |n| f64::from(*n)),
        TensorElementType::Float64 => numbers::<f64>(value, |n| *n),
        TensorElementType::Bool => numbers::<bool>(value, |n| f64::from(u8::from(*n))),
        TensorElementType::Int8 => numbers::<i8>(value, |n| f64::from(*n)),
        TensorElementType::Int16 => numbers::<i16>(value, |n| f64::from(*n)),
        TensorElementType::Int32 => numbers::<i32>(value, |n| f64::from(*n)),
        TensorElementType::Int64 => numbers::<i64>(value, |n| *n as f64),
        TensorElementType::Uint8 => numbers::<u8>(value, |n| f64::from(*n)),
        TensorElementType::Uint16 => numbers::<u16>(value, |n| f64::from(*n)),
        TensorElementType::Uint32 => numbers::<u32>(value, |n| f64::from(*n)),
        TensorElementType::Uint64 => numbers::<u64>(value, |n| *n as f64),
        _ => None,
    };
    match numbers {
        Some(numbers) => Answer::Numbers(*ty, numbers),
        None => Answer::Other(format!("{ty:?}")),
    }
}

/// None where the value isn't of them.
fn numbers<T: PrimitiveTensorElementType>(
    value: &DynValue,
    number: impl Fn(&T) -> f64,
) -> Option<Vec<f64>> {
    let (_, numbers) = value.try_extract_tensor::<T>().ok()?;
    Some(numbers.iter().map(number).collect())
}

/// Runs one row, and hands on what is answered by name, in the graph's order; none where a whole number is missing.
fn run<T>(
    session: &mut Session,
    feeds: &[Feed],
    row: &[f64],
    take: impl FnOnce(&SessionOutputs<'_>) -> Result<T, Problem>,
) -> Result<Option<T>, Problem> {
    let mut given = Vec::with_capacity(feeds.len());
    for feed in feeds {
        match feed.tensor(row)? {
            Some(tensor) => given.push((feed.name.as_str(), tensor_value(&tensor)?)),
            None => return Ok(None),
        }
    }
    unpanicked(|| {
        let values = session.run(given).map_err(failed)?;
        take(&values)
    })
    .ok_or_else(|| failed("It broke off"))?
    .map(Some)
}

/// The same tensor to the runtime.
fn tensor_value(tensor: &Tensor) -> Result<DynValue, Problem> {
    match tensor.datum_type() {
        DatumType::F32 => copied::<f32>(tensor),
        DatumType::F64 => copied::<f64>(tensor),
        DatumType::Bool => copied::<bool>(tensor),
        DatumType::I8 => copied::<i8>(tensor),
        DatumType::I16 => copied::<i16>(tensor),
        DatumType::I32 => copied::<i32>(tensor),
        DatumType::I64 => copied::<i64>(tensor),
        DatumType::U8 => copied::<u8>(tensor),
        DatumType::U16 => copied::<u16>(tensor),
        DatumType::U32 => copied::<u32>(tensor),
        DatumType::U64 => copied::<u64>(tensor),
        other => Err(failed(format!("It can't be given {other:?}"))),
    }
}

fn copied<T>(tensor: &Tensor) -> Result<DynValue, Problem>
where
    T: Datum + Copy + PrimitiveTensorElementType + std::fmt::Debug,
{
    let numbers = tensor.to_plain_array_view::<T>().map_err(failed)?;
    let numbers: Vec<T> = numbers.iter().copied().collect();
    let value = Value::from_array((tensor.shape().to_vec(), numbers)).map_err(failed)?;
    Ok(value.into_dyn())
}

impl Engine for Runtime {
    fn contract(&self) -> &ModelContract {
        &self.contract
    }

    fn run(&self, rows: Rows<'_>, out: &mut [f64]) -> Result<(), Problem> {
        each_row(rows, out, self.contract.scores, |row, out| {
            let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
            let answered = run(&mut session, &self.feeds, row, |answers| {
                let mut numbers = Vec::with_capacity(out.len());
                for (_, value) in answers {
                    if let Answer::Numbers(_, more) = answer(&value) {
                        numbers.extend(more);
                    }
                }
                fill(out, numbers.into_iter())
            })?;
            if answered.is_none() {
                out.fill(f64::NAN);
            }
            Ok(())
        })
    }

    fn memory_bytes(&self) -> usize {
        self.bytes
    }
}
