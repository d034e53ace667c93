//! Tensors: thirteen types of elements, from JSON, from raw bytes or from gRPC's lists, strictly; and rows made of them.

use half::f16;
use headwater_schema::{Problem, Value};
use serde_json::Value as Json;

use crate::backend::InputRows;

/// What a tensor's elements are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Datatype {
    Bool,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Int8,
    Int16,
    Int32,
    Int64,
    Fp16,
    Fp32,
    Fp64,
    Bytes,
}

/// Names, and how many bytes an element has; texts say so themselves.
const NAMES: [(&str, Datatype, usize); 13] = [
    ("BOOL", Datatype::Bool, 1),
    ("UINT8", Datatype::Uint8, 1),
    ("UINT16", Datatype::Uint16, 2),
    ("UINT32", Datatype::Uint32, 4),
    ("UINT64", Datatype::Uint64, 8),
    ("INT8", Datatype::Int8, 1),
    ("INT16", Datatype::Int16, 2),
    ("INT32", Datatype::Int32, 4),
    ("INT64", Datatype::Int64, 8),
    ("FP16", Datatype::Fp16, 2),
    ("FP32", Datatype::Fp32, 4),
    ("FP64", Datatype::Fp64, 8),
    ("BYTES", Datatype::Bytes, 0),
];

/// A tensor of a request: its elements in row-major order.
#[derive(Debug)]
pub(crate) struct Tensor {
    pub name: String,
    pub shape: Vec<usize>,
    pub values: Vec<Value>,
}

/// A tensor's name, type and shape, before its elements.
#[derive(Debug)]
pub(crate) struct Head {
    pub name: String,
    pub datatype: Datatype,
    shape: Vec<usize>,
    /// How many elements the shape has.
    count: usize,
}

fn refuse(name: &str, detail: impl std::fmt::Display) -> Problem {
    Problem::user(
        "invalid-tensor",
        format!("the tensor `{name}` can't be read"),
    )
    .field(format!("inputs.{name}"))
    .detail(detail)
}

impl Datatype {
    fn parse(tensor: &str, name: &str) -> Result<Self, Problem> {
        let found = NAMES.iter().find(|(n, _, _)| *n == name);
        found.map(|(_, datatype, _)| *datatype).ok_or_else(|| {
            let names: Vec<&str> = NAMES.iter().map(|(n, _, _)| *n).collect();
            refuse(tensor, format!("`{name}` is no type of elements"))
                .hint(format!("there are {}", names.join(", ")))
        })
    }

    pub(crate) fn name(self) -> &'static str {
        let found = NAMES.iter().find(|(_, d, _)| *d == self);
        found.map_or("", |(name, _, _)| name)
    }

    fn bytes(self) -> usize {
        let found = NAMES.iter().find(|(_, d, _)| *d == self);
        found.map_or(0, |(_, _, bytes)| *bytes)
    }

    /// The whole numbers that fit; none of a type that has others.
    fn range(self) -> Option<(i128, i128)> {
        Some(match self {
            Self::Uint8 => (0, u8::MAX.into()),
            Self::Uint16 => (0, u16::MAX.into()),
            Self::Uint32 => (0, u32::MAX.into()),
            Self::Uint64 => (0, u64::MAX.into()),
            Self::Int8 => (i8::MIN.into(), i8::MAX.into()),
            Self::Int16 => (i16::MIN.into(), i16::MAX.into()),
            Self::Int32 => (i32::MIN.into(), i32::MAX.into()),
            Self::Int64 => (i64::MIN.into(), i64::MAX.into()),
            _ => return None,
        })
    }

    /// Whether a whole number is one of this type.
    pub(crate) fn fits(self, whole: i128) -> bool {
        let range = self.range();
        range.is_some_and(|(least, most)| (least..=most).contains(&whole))
    }

    /// A number as one of this type, if it is a float; none where it is too large for it.
    fn round(self, number: f64) -> Option<f64> {
        let rounded = match self {
            Self::Fp16 => f16::from_f64(number).to_f64(),
            Self::Fp32 => f64::from(number as f32),
            _ => number,
        };
        (rounded.is_finite() || !number.is_finite()).then_some(rounded)
    }

    /// One element of JSON. Null is a missing value, of floats and texts alone.
    fn element(self, json: &Json) -> Option<Value> {
        match (self, json) {
            (Self::Fp16 | Self::Fp32 | Self::Fp64 | Self::Bytes, Json::Null) => Some(Value::Null),
            (Self::Bool, Json::Bool(yes)) => Some(Value::Bool(*yes)),
            (Self::Bytes, Json::String(text)) => Some(Value::string(text)),
            (Self::Fp16 | Self::Fp32 | Self::Fp64, Json::Number(number)) => {
                self.round(number.as_f64()?).map(Value::Float)
            }
            (_, Json::Number(number)) => {
                let whole = number
                    .as_i64()
                    .map(i128::from)
                    .or(number.as_u64().map(i128::from))?;
                self.fits(whole).then(|| int(whole))
            }
            _ => None,
        }
    }

    /// One element of raw bytes, little-endian.
    fn raw_element(self, bytes: &[u8]) -> Option<Value> {
        Some(match self {
            Self::Bool => match bytes {
                [0] => Value::Bool(false),
                [1] => Value::Bool(true),
                _ => return None,
            },
            Self::Uint8 => int(u8::from_le_bytes(bytes.try_into().ok()?)),
            Self::Uint16 => int(u16::from_le_bytes(bytes.try_into().ok()?)),
            Self::Uint32 => int(u32::from_le_bytes(bytes.try_into().ok()?)),
            Self::Uint64 => int(u64::from_le_bytes(bytes.try_into().ok()?)),
            Self::Int8 => int(i8::from_le_bytes(bytes.try_into().ok()?)),
            Self::Int16 => int(i16::from_le_bytes(bytes.try_into().ok()?)),
            Self::Int32 => int(i32::from_le_bytes(bytes.try_into().ok()?)),
            Self::Int64 => int(i64::from_le_bytes(bytes.try_into().ok()?)),
            Self::Fp16 => float(f16::from_le_bytes(bytes.try_into().ok()?).to_f64()),
            Self::Fp32 => float(f32::from_le_bytes(bytes.try_into().ok()?).into()),
            Self::Fp64 => float(f64::from_le_bytes(bytes.try_into().ok()?)),
            Self::Bytes => Value::string(std::str::from_utf8(bytes).ok()?),
        })
    }
}

/// A whole number; one beyond 64 bits with a sign is a float, which is what models take.
pub(crate) fn int(whole: impl Into<i128>) -> Value {
    let whole = whole.into();
    i64::try_from(whole).map_or(Value::Float(whole as f64), Value::Int)
}

/// A float; NaN is a missing value.
pub(crate) fn float(number: f64) -> Value {
    match number.is_nan() {
        true => Value::Null,
        false => Value::Float(number),
    }
}

impl Head {
    pub(crate) fn new(
        name: &str,
        datatype: &str,
        shape: &[i64],
        elements_max: usize,
    ) -> Result<Self, Problem> {
        let parsed = Datatype::parse(name, datatype)?;
        let sizes: Result<Vec<usize>, _> = shape.iter().map(|s| usize::try_from(*s)).collect();
        let sizes = sizes
            .map_err(|_| refuse(name, format!("the shape {shape:?} has a size below zero")))?;
        let count = sizes
            .iter()
            .try_fold(1_usize, |count, size| count.checked_mul(*size));
        let Some(count) = count.filter(|count| *count <= elements_max) else {
            let detail = format!("the shape {shape:?} has more than {elements_max} elements");
            return Err(refuse(name, detail).hint("send fewer rows at once"));
        };
        Ok(Self {
            name: name.to_owned(),
            datatype: parsed,
            shape: sizes,
            count,
        })
    }

    /// With its elements, as many as its shape has.
    pub(crate) fn with(self, values: Vec<Value>) -> Result<Tensor, Problem> {
        if values.len() != self.count {
            let (seen, count) = (values.len(), self.count);
            return Err(refuse(
                &self.name,
                format!(
                    "it has {seen} elements; its shape {:?} has {count}",
                    self.shape
                ),
            ));
        }
        Ok(Tensor {
            name: self.name,
            shape: self.shape,
            values,
        })
    }

    /// Of JSON, flat or nested as the shape says.
    pub(crate) fn of_json(self, data: &Json) -> Result<Tensor, Problem> {
        let Json::Array(list) = data else {
            return Err(refuse(&self.name, "its `data` is no list"));
        };
        let mut values = Vec::with_capacity(list.len().min(self.count));
        let nested = list.first().is_some_and(Json::is_array);
        let levels: &[usize] = if nested { &self.shape } else { &[] };
        self.flatten(list, levels, &mut values)?;
        self.with(values)
    }

    fn flatten(
        &self,
        list: &[Json],
        levels: &[usize],
        values: &mut Vec<Value>,
    ) -> Result<(), Problem> {
        if let [size, below @ ..] = levels
            && (list.len() != *size || below.is_empty() && list.iter().any(Json::is_array))
        {
            let detail = format!("its nested lists aren't of the shape {:?}", self.shape);
            return Err(refuse(&self.name, detail));
        }
        if let [_, below @ ..] = levels
            && !below.is_empty()
        {
            for part in list {
                let Json::Array(part) = part else {
                    let detail = format!("its nested lists aren't of the shape {:?}", self.shape);
                    return Err(refuse(&self.name, detail));
                };
                self.flatten(part, below, values)?;
            }
            return Ok(());
        }
        for json in list {
            let value = self.datatype.element(json).ok_or_else(|| {
                let name = self.datatype.name();
                let place = values.len();
                refuse(
                    &self.name,
                    format!("element {place} is {}, which is no {name}", short(json)),
                )
            })?;
            values.push(value);
        }
        Ok(())
    }

    /// Of raw bytes: little-endian, without gaps; texts each after its length in four bytes.
    pub(crate) fn of_bytes(self, bytes: &[u8]) -> Result<Tensor, Problem> {
        let values = match self.datatype.bytes() {
            0 => self.texts(bytes)?,
            size => {
                if bytes.len() / size != self.count || !bytes.len().is_multiple_of(size) {
                    let detail = format!(
                        "it has {} bytes; {} elements of {} have {}",
                        bytes.len(),
                        self.count,
                        self.datatype.name(),
                        self.count.saturating_mul(size)
                    );
                    return Err(refuse(&self.name, detail));
                }
                let elements = bytes.chunks_exact(size).enumerate();
                let read = |(place, bytes)| {
                    let value = self.datatype.raw_element(bytes);
                    value.ok_or_else(|| self.refuse_raw(place))
                };
                elements.map(read).collect::<Result<_, _>>()?
            }
        };
        self.with(values)
    }

    fn refuse_raw(&self, place: usize) -> Problem {
        let what = match self.datatype {
            Datatype::Bool => "neither 0 nor 1",
            _ => "no UTF-8",
        };
        refuse(&self.name, format!("element {place} is {what}"))
    }

    fn texts(&self, mut bytes: &[u8]) -> Result<Vec<Value>, Problem> {
        let mut values = Vec::new();
        while !bytes.is_empty() {
            let text = bytes.split_first_chunk::<4>().and_then(|(size, rest)| {
                let size = usize::try_from(u32::from_le_bytes(*size)).ok()?;
                rest.split_at_checked(size)
            });
            let Some((text, rest)) = text else {
                let detail = format!("element {} is cut off", values.len());
                return Err(refuse(&self.name, detail));
            };
            if values.len() == self.count {
                let detail = format!("it has more than {} elements", self.count);
                return Err(refuse(&self.name, detail));
            }
            let value = self.datatype.raw_element(text);
            values.push(value.ok_or_else(|| self.refuse_raw(values.len()))?);
            bytes = rest;
        }
        Ok(values)
    }
}

/// What is told of a wrong element.
fn short(json: &Json) -> String {
    const CHARACTERS_MAX: usize = 40;
    let text = json.to_string();
    match text.char_indices().nth(CHARACTERS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Rows: of one tensor with all inputs in the model's order, or of one tensor for each input by its name.
pub(crate) fn rows(tensors: Vec<Tensor>, rows_max: usize) -> Result<InputRows, Problem> {
    let mut seen = std::collections::BTreeSet::new();
    if let Some(twice) = tensors.iter().find(|t| !seen.insert(t.name.as_str())) {
        return Err(refuse(&twice.name, "there are two of that name"));
    }
    let sizes = |tensor: &Tensor| match tensor.shape.as_slice() {
        [rows] => Ok((*rows, 1)),
        [rows, columns] => Ok((*rows, *columns)),
        shape => Err(refuse(
            &tensor.name,
            format!("its shape {shape:?} has {} dimensions", shape.len()),
        )
        .hint("give rows, or rows and columns")),
    };
    let Some(first) = tensors.first() else {
        return Err(Problem::user("no-rows", "the request has no inputs").field("inputs"));
    };
    let (count, columns) = sizes(first)?;
    if count > rows_max {
        return Err(Problem::user("limit", "too many rows in one request")
            .detail(format!("{count} of at most {rows_max}"))
            .hint("ask in parts, or raise `limits.entities_max`"));
    }
    if tensors.len() == 1 {
        let values = tensors.into_iter().next().map(|t| t.values);
        let values = values.unwrap_or_default();
        // Rows of nothing are told apart from no rows by the model.
        let rows = (0..count).map(|row| values[row * columns..(row + 1) * columns].to_vec());
        return Ok(InputRows::Vectors(rows.collect()));
    }
    let mut rows = vec![Vec::with_capacity(tensors.len()); count];
    let mut names = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        if sizes(&tensor)? != (count, 1) {
            let detail = format!(
                "its shape {:?} isn't [{count}] or [{count}, 1]",
                tensor.shape
            );
            return Err(refuse(&tensor.name, detail).hint(
                "send one tensor of rows and columns with all inputs in their order, or one column for each",
            ));
        }
        for (row, value) in rows.iter_mut().zip(tensor.values) {
            row.push(value);
        }
        names.push(tensor.name);
    }
    Ok(InputRows::Named { names, rows })
}

#[cfg(test)]
mod tests;
