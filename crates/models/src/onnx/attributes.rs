//! Attributes of an operator by name, and constants of a graph as numbers.

use headwater_schema::Problem;
use tract_onnx::pb;
use tract_onnx::pb::tensor_proto::DataType;

use crate::load::{corrupt, unsupported};

/// What an operator was given besides its inputs.
#[derive(Clone, Copy)]
pub(super) struct Attributes<'a>(pub(super) &'a pb::NodeProto);

impl<'a> Attributes<'a> {
    fn find(self, name: &str) -> Option<&'a pb::AttributeProto> {
        self.0.attribute.iter().find(|a| a.name == name)
    }

    pub(super) fn has(self, name: &str) -> bool {
        self.find(name).is_some()
    }

    pub(super) fn int(self, name: &str, otherwise: i64) -> i64 {
        self.find(name).map_or(otherwise, |a| a.i)
    }

    pub(super) fn float(self, name: &str, otherwise: f32) -> f32 {
        self.find(name).map_or(otherwise, |a| a.f)
    }

    pub(super) fn ints(self, name: &str) -> &'a [i64] {
        self.find(name).map_or(&[], |a| &a.ints)
    }

    pub(super) fn floats(self, name: &str) -> &'a [f32] {
        self.find(name).map_or(&[], |a| &a.floats)
    }

    pub(super) fn bytes(self, name: &str) -> &'a [Vec<u8>] {
        self.find(name).map_or(&[], |a| &a.strings)
    }

    pub(super) fn text(self, name: &str, otherwise: &'a str) -> Result<&'a str, Problem> {
        self.find(name).map_or(Ok(otherwise), |a| text(name, &a.s))
    }

    pub(super) fn texts(self, name: &'a str) -> Result<Vec<&'a str>, Problem> {
        let texts = self.bytes(name).iter();
        texts.map(|bytes| text(name, bytes)).collect()
    }

    /// Floats, or the doubles of the attribute `NAME_as_tensor`, and whether they are doubles.
    pub(super) fn numbers(self, name: &str) -> Result<(Vec<f64>, bool), Problem> {
        let tensor = self.find(&format!("{name}_as_tensor"));
        match tensor.and_then(|a| a.t.as_ref()) {
            Some(tensor) => {
                let constant = Constant::read(tensor)?;
                Ok((constant.numbers, constant.kind == Kind::Double))
            }
            None => {
                let floats = self.floats(name).iter();
                Ok((floats.map(|f| f64::from(*f)).collect(), false))
            }
        }
    }
}

fn text<'a>(name: &str, bytes: &'a [u8]) -> Result<&'a str, Problem> {
    std::str::from_utf8(bytes).map_err(|_| corrupt(format!("`{name}` isn't text")))
}

/// How numbers are kept: each is a double here, rounded as its kind is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Single,
    Double,
    Whole,
}

impl Kind {
    pub(super) fn of(data_type: i32) -> Option<Self> {
        match DataType::try_from(data_type).ok()? {
            DataType::Float => Some(Self::Single),
            DataType::Double => Some(Self::Double),
            DataType::Bool | DataType::Int32 | DataType::Int64 => Some(Self::Whole),
            _ => None,
        }
    }

    pub(super) fn round(self, number: f64) -> f64 {
        match self {
            Self::Single => f64::from(number as f32),
            Self::Double => number,
            Self::Whole => number.trunc(),
        }
    }
}

/// A tensor that is in the file.
#[derive(Debug)]
pub(super) struct Constant {
    pub(super) numbers: Vec<f64>,
    pub(super) kind: Kind,
}

impl Constant {
    /// Its size has been held against the file's before.
    pub(super) fn read(tensor: &pb::TensorProto) -> Result<Self, Problem> {
        let name = &tensor.name;
        let kind = Kind::of(tensor.data_type).ok_or_else(|| {
            unsupported(format!(
                "The constant `{name}` isn't of floats, doubles or integers"
            ))
        })?;
        let raw = &tensor.raw_data;
        let numbers: Vec<f64> = match DataType::try_from(tensor.data_type).ok() {
            Some(DataType::Float) if raw.is_empty() => {
                tensor.float_data.iter().map(|n| f64::from(*n)).collect()
            }
            Some(DataType::Float) => words(raw, |b| f64::from(f32::from_le_bytes(b))),
            Some(DataType::Double) if raw.is_empty() => tensor.double_data.clone(),
            Some(DataType::Double) => words(raw, f64::from_le_bytes),
            Some(DataType::Int64) if raw.is_empty() => {
                tensor.int64_data.iter().map(|n| *n as f64).collect()
            }
            Some(DataType::Int64) => words(raw, |b| i64::from_le_bytes(b) as f64),
            _ if raw.is_empty() => tensor.int32_data.iter().map(|n| f64::from(*n)).collect(),
            Some(DataType::Int32) => words(raw, |b| f64::from(i32::from_le_bytes(b))),
            _ => words(raw, |[b]: [u8; 1]| f64::from(b)),
        };
        let dims = tensor.dims.iter();
        let elements = dims
            .map(|d| usize::try_from(*d).ok())
            .try_fold(1_usize, |n, d| n.checked_mul(d?));
        if elements != Some(numbers.len()) {
            return Err(corrupt(format!(
                "The constant `{name}` has {} numbers for the shape {:?}",
                numbers.len(),
                tensor.dims
            )));
        }
        Ok(Self { numbers, kind })
    }

    /// Whole numbers that are places or sizes.
    pub(super) fn whole(&self) -> Result<Vec<i64>, Problem> {
        match self.kind {
            Kind::Whole => Ok(self.numbers.iter().map(|n| *n as i64).collect()),
            _ => Err(corrupt("A constant of places or sizes isn't of integers")),
        }
    }
}

fn words<const N: usize>(raw: &[u8], number: impl Fn([u8; N]) -> f64) -> Vec<f64> {
    raw.as_chunks::<N>().0.iter().map(|b| number(*b)).collect()
}
