//! Functions whose result may be far larger than what they are given, made to refuse that: what
//! functions allocate isn't counted by the memory pool.

use std::hash::Hash;
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef, Int64Type};
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature,
};

/// Bytes, about, that one call makes of one batch.
const MADE_BYTES_MAX: u64 = 128 << 20;
/// Bytes of a number in a list.
const NUMBER_BYTES: u64 = 8;

/// How the size of a result follows from the arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Size {
    /// The argument at this place, times the first argument's size.
    Times(usize),
    /// The argument at this place.
    Length(usize),
    /// As many times longer as the argument at this place is long.
    Replaced(usize),
    /// All numbers from the first to the second.
    Range,
}

fn size_of(name: &str) -> Option<Size> {
    match name {
        "repeat" | "array_repeat" => Some(Size::Times(1)),
        "lpad" | "rpad" | "array_resize" => Some(Size::Length(1)),
        "replace" | "regexp_replace" => Some(Size::Replaced(2)),
        "range" | "generate_series" => Some(Size::Range),
        _ => None,
    }
}

/// The function itself, or one that refuses to make too much.
pub fn sized(function: &Arc<ScalarUDF>) -> Option<ScalarUDF> {
    let size = size_of(function.name())?;
    let inner = function.clone();
    Some(ScalarUDF::new_from_impl(Sized { inner, size }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Sized {
    inner: Arc<ScalarUDF>,
    size: Size,
}

impl Sized {
    fn check(&self, args: &ScalarFunctionArgs) -> Result<()> {
        let rows = args.number_rows as u64;
        let each = match self.size {
            Size::Times(at) => greatest(args, at)?.saturating_mul(longest(args, 0)),
            Size::Length(at) => greatest(args, at)?.saturating_mul(NUMBER_BYTES),
            Size::Replaced(at) => match longest(args, at) {
                0..=64 => return Ok(()),
                length => longest(args, 0).saturating_mul(length),
            },
            Size::Range => {
                if !args
                    .args
                    .iter()
                    .all(|a| a.data_type().is_integer() || a.data_type().is_null())
                {
                    return Ok(());
                }
                let (low, high) = match args.args.len() {
                    1 => (0, greatest(args, 0)?),
                    _ => (least(args, 0)?, greatest(args, 1)?),
                };
                (high as i64).abs_diff(low).saturating_mul(NUMBER_BYTES)
            }
        };
        if each.saturating_mul(rows) > MADE_BYTES_MAX {
            return exec_err!(
                "`{}` would make more than {} MiB of one batch of rows",
                self.inner.name(),
                MADE_BYTES_MAX >> 20
            );
        }
        Ok(())
    }
}

fn numbers(args: &ScalarFunctionArgs, at: usize) -> Result<Vec<i64>> {
    let Some(value) = args.args.get(at) else {
        return Ok(Vec::new());
    };
    let array = match value {
        ColumnarValue::Array(array) => array.clone(),
        ColumnarValue::Scalar(scalar) => scalar.to_array()?,
    };
    let array = cast(&array, &DataType::Int64)?;
    Ok(array.as_primitive::<Int64Type>().iter().flatten().collect())
}

/// The greatest of an argument, at least 0.
fn greatest(args: &ScalarFunctionArgs, at: usize) -> Result<u64> {
    let numbers = numbers(args, at)?;
    let greatest = numbers.into_iter().max().unwrap_or(0);
    Ok(u64::try_from(greatest).unwrap_or(0))
}

fn least(args: &ScalarFunctionArgs, at: usize) -> Result<i64> {
    Ok(numbers(args, at)?.into_iter().min().unwrap_or(0))
}

/// About how many bytes the longest value of an argument has.
fn longest(args: &ScalarFunctionArgs, at: usize) -> u64 {
    let array = match args.args.get(at) {
        Some(ColumnarValue::Array(array)) => array.clone(),
        Some(ColumnarValue::Scalar(scalar)) => match scalar.to_array() {
            Ok(array) => array,
            Err(_) => return NUMBER_BYTES,
        },
        None => return 0,
    };
    let texts = match array.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            cast(&array, &DataType::LargeUtf8).ok()
        }
        _ => None,
    };
    match texts {
        Some(texts) => {
            let lengths = texts.as_string::<i64>().iter().flatten().map(str::len);
            lengths.max().unwrap_or(0) as u64
        }
        None => (array.get_array_memory_size() / array.len().max(1)) as u64,
    }
}

impl ScalarUDFImpl for Sized {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        self.inner.inner().return_field_from_args(args)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.inner().coerce_types(types)
    }

    fn simplify(&self, args: Vec<Expr>, _: &SimplifyContext) -> Result<ExprSimplifyResult> {
        Ok(ExprSimplifyResult::Original(args))
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.inner().documentation()
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.check(&args)?;
        self.inner.invoke_with_args(args)
    }
}
