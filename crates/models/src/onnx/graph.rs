//! What a graph is fed with, column by column, and how large its weights may be.

use std::collections::BTreeSet;

use headwater_schema::Problem;
use tract_onnx::pb;
use tract_onnx::pb::tensor_shape_proto::dimension::Value as Dimension;
use tract_onnx::prelude::*;

use super::attributes::Kind;
use crate::Input;
use crate::limits::{INPUTS_MAX, NAME_BYTES_MAX, at_most};
use crate::load::{corrupt, unsupported};

/// Where a file names the columns of its inputs.
const NAMES: &str = "headwater.inputs";

/// An input of the graph, and which columns of a row it is made of.
pub(super) struct Feed {
    pub name: String,
    pub data_type: DatumType,
    /// Columns of a row, or none where the input is one number a row, without a second axis.
    width: Option<usize>,
    first: usize,
}

impl Feed {
    pub fn columns(&self) -> usize {
        self.width.unwrap_or(1)
    }

    /// The shape for one row.
    pub fn shape(&self) -> TVec<usize> {
        match self.width {
            Some(width) => tvec!(1, width),
            None => tvec!(1),
        }
    }

    /// How classical operators keep its numbers; none where they don't take such.
    pub fn kind(&self) -> Option<Kind> {
        match self.data_type {
            DatumType::F32 => Some(Kind::Single),
            DatumType::F64 => Some(Kind::Double),
            DatumType::Bool | DatumType::I32 | DatumType::I64 => Some(Kind::Whole),
            _ => None,
        }
    }

    /// Its part of a row.
    pub fn part<'a>(&self, row: &'a [f64]) -> &'a [f64] {
        &row[self.first..self.first + self.columns()]
    }

    /// Refuses a number that isn't whole, where the graph takes whole ones.
    pub fn whole(&self, number: f64) -> Result<i64, Problem> {
        whole(number).ok_or_else(|| {
            Problem::user("model-input", "A model's input has the wrong type")
                .field(&self.name)
                .detail("The model takes whole numbers here")
                .hint("Give the model's feature the type that it was trained with")
        })
    }

    /// Its part of a row; none where a whole number is missing, which has no NaN.
    pub fn tensor(&self, row: &[f64]) -> Result<Option<Tensor>, Problem> {
        let numbers = self.part(row);
        let shape = self.shape();
        let failed =
            |e| Problem::internal("model-failed", "A row can't be given to a network").detail(e);
        if self.data_type.is_float() {
            // Rounded once, from the double to what the graph takes.
            let tensor = match self.data_type {
                DatumType::F64 => Tensor::from_shape(&shape, numbers),
                _ => {
                    let singles: Vec<f32> = numbers.iter().map(|n| *n as f32).collect();
                    Tensor::from_shape(&shape, &singles)
                }
            };
            return tensor.map(Some).map_err(failed);
        }
        if numbers.iter().any(|n| n.is_nan()) {
            return Ok(None);
        }
        let whole = numbers.iter().map(|n| self.whole(*n));
        let whole = whole.collect::<Result<Vec<i64>, Problem>>()?;
        let tensor = Tensor::from_shape(&shape, &whole).map_err(failed)?;
        let tensor = tensor.cast_to_dt(self.data_type).map_err(failed)?;
        Ok(Some(tensor.into_owned()))
    }
}

fn whole(number: f64) -> Option<i64> {
    /// Beyond it doubles skip whole numbers.
    const MOST: f64 = 9_007_199_254_740_992.0;
    (number.fract() == 0.0 && number.abs() <= MOST).then_some(number as i64)
}

/// What a file notes under a key in its metadata.
pub(super) fn note<'a>(proto: &'a pb::ModelProto, key: &str) -> Option<&'a str> {
    let found = proto.metadata_props.iter().find(|p| p.key == key);
    found.map(|p| p.value.as_str())
}

/// The graph's inputs that aren't weights.
pub(super) fn given(graph: &pb::GraphProto) -> impl Iterator<Item = &pb::ValueInfoProto> {
    let weights = graph.initializer.iter().map(|w| w.name.as_str());
    let weights: BTreeSet<&str> = weights.collect();
    let inputs = graph.input.iter();
    inputs.filter(move |i| !weights.contains(i.name.as_str()))
}

/// The type of a tensor's numbers.
pub(super) fn data_type(input: &pb::ValueInfoProto) -> Option<DatumType> {
    let value = input.r#type.as_ref().and_then(|t| t.value.as_ref());
    let Some(pb::type_proto::Value::TensorType(tensor)) = value else {
        return None;
    };
    let data_type = pb::tensor_proto::DataType::try_from(tensor.elem_type).ok();
    data_type.and_then(|t| DatumType::try_from(t).ok())
}

/// What the graph's inputs are fed with.
pub(super) fn feeds(graph: &pb::GraphProto) -> Result<Vec<Feed>, Problem> {
    let (mut feeds, mut first) = (Vec::new(), 0_usize);
    for input in given(graph) {
        let mut feed = feed(input)?;
        feed.first = first;
        first = first.saturating_add(feed.columns());
        at_most("inputs", first, INPUTS_MAX)?;
        feeds.push(feed);
    }
    if feeds.is_empty() {
        return Err(corrupt("Its graph takes no inputs"));
    }
    Ok(feeds)
}

fn feed(input: &pb::ValueInfoProto) -> Result<Feed, Problem> {
    let name = &input.name;
    let value = input.r#type.as_ref().and_then(|t| t.value.as_ref());
    let Some(pb::type_proto::Value::TensorType(tensor)) = value else {
        return Err(unsupported(format!("The input `{name}` isn't a tensor")));
    };
    let is_fed = |t: &DatumType| {
        [DatumType::F32, DatumType::F64, DatumType::Bool].contains(t)
            || (t.is_integer() && !t.is_quantized())
    };
    let data_type = data_type(input).filter(is_fed).ok_or_else(|| {
        unsupported(format!(
            "The input `{name}` is of a type that rows of numbers don't have"
        ))
    })?;
    let dims = tensor.shape.as_ref().map_or(&[][..], |s| s.dim.as_slice());
    let known = |dim: &pb::tensor_shape_proto::Dimension| match &dim.value {
        Some(Dimension::DimValue(n)) => usize::try_from(*n).ok().filter(|n| *n > 0),
        _ => None,
    };
    let shape: Vec<Option<usize>> = dims.iter().map(known).collect();
    let width = match shape.as_slice() {
        [None | Some(1)] => None,
        [None | Some(1), Some(width)] => Some(*width),
        _ => {
            return Err(unsupported(format!(
                "The input `{name}` isn't rows of columns whose number is known"
            ))
            .hint("Export it as a tensor of two axes: rows, of any number, and columns"));
        }
    };
    Ok(Feed {
        name: name.clone(),
        data_type,
        width,
        first: 0,
    })
}

/// How many columns a row has.
pub(super) fn columns(feeds: &[Feed]) -> usize {
    feeds.iter().map(Feed::columns).sum()
}

/// The columns by their names: those that the file gives them, else an input's own, with the column's number where it
/// has several.
pub(super) fn inputs(proto: &pb::ModelProto, feeds: &[Feed]) -> Result<Vec<Input>, Problem> {
    let columns = columns(feeds);
    let own = feeds.iter().flat_map(|feed| {
        let several = feed.columns() > 1;
        (0..feed.columns()).map(move |column| match several {
            true => format!("{}_{column}", feed.name),
            false => feed.name.clone(),
        })
    });
    let names: Vec<String> = match note(proto, NAMES) {
        None => own.collect(),
        Some(given) => serde_json::from_str(given)
            .map_err(|e| corrupt(format!("`{NAMES}` isn't a list of names: {e}")))?,
    };
    if names.len() != columns {
        return Err(corrupt(format!(
            "`{NAMES}` has {} names, the graph takes {columns} columns",
            names.len()
        )));
    }
    let mut seen = BTreeSet::new();
    for name in &names {
        at_most("bytes in a name", name.len(), NAME_BYTES_MAX)?;
        if !seen.insert(name.as_str()) {
            return Err(corrupt(format!("Two inputs are called `{name}`")));
        }
    }
    Ok(names.iter().map(|name| Input::numeric(name)).collect())
}

/// A weight in memory: a float, and once more where it is packed for products of matrices.
const WEIGHT_BYTES: usize = 2 * size_of::<f32>();

/// The bytes that the weights take in memory, about. Refuses weights that aren't in the file, or say that they are larger
/// than it.
pub(super) fn weigh(graph: &pb::GraphProto, file_bytes: usize) -> Result<usize, Problem> {
    let attributes = graph.node.iter().flat_map(|node| &node.attribute);
    let constants = attributes.flat_map(|a| a.t.iter().chain(&a.tensors));
    weigh_tensors(graph.initializer.iter().chain(constants), file_bytes)
}

/// The same of some of a file's tensors, which have `elements_max` numbers each at most.
pub(super) fn weigh_tensors<'a>(
    tensors: impl IntoIterator<Item = &'a pb::TensorProto>,
    elements_max: usize,
) -> Result<usize, Problem> {
    let mut weights = 0_usize;
    for tensor in tensors {
        if tensor.data_location.unwrap_or_default() != 0 || !tensor.external_data.is_empty() {
            return Err(unsupported(format!(
                "The weights `{}` are in a file of their own",
                tensor.name
            ))
            .hint("Save the model as one file, without external data"));
        }
        let dims = tensor.dims.iter();
        let elements = dims
            .map(|d| usize::try_from(*d).ok())
            .try_fold(1_usize, |n, d| n.checked_mul(d?));
        let elements = elements.filter(|n| *n <= elements_max).ok_or_else(|| {
            corrupt(format!(
                "The weights `{}` are larger than the file",
                tensor.name
            ))
        })?;
        weights = weights.saturating_add(elements);
    }
    Ok(weights.saturating_mul(WEIGHT_BYTES))
}
