//! Functions of calendars over times in UTC, which is all that is stored: what they make of a time with that zone is what
//! they make of the same time without one, and that takes them a tenth as long.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{
    ArrowTimestampType, DataType, FieldRef, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};
use datafusion::common::Result;
use datafusion::logical_expr::preimage::PreimageResult;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature,
};

const UTC: &str = "UTC";

/// The function itself, where it is one of calendars, quicker in UTC.
pub fn in_utc(function: &Arc<ScalarUDF>) -> Option<ScalarUDF> {
    matches!(function.name(), "date_trunc" | "date_part")
        .then(|| ScalarUDF::new_from_impl(InUtc(function.clone())))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct InUtc(Arc<ScalarUDF>);

/// The same times with the zone, or without one.
fn with_zone(times: &ArrayRef, unit: TimeUnit, zone: Option<&str>) -> ArrayRef {
    fn zoned<T: ArrowTimestampType>(times: &ArrayRef, zone: Option<&str>) -> ArrayRef {
        let times = times.as_primitive::<T>().clone();
        Arc::new(times.with_timezone_opt(zone))
    }
    match unit {
        TimeUnit::Second => zoned::<TimestampSecondType>(times, zone),
        TimeUnit::Millisecond => zoned::<TimestampMillisecondType>(times, zone),
        TimeUnit::Microsecond => zoned::<TimestampMicrosecondType>(times, zone),
        TimeUnit::Nanosecond => zoned::<TimestampNanosecondType>(times, zone),
    }
}

impl ScalarUDFImpl for InUtc {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn aliases(&self) -> &[String] {
        self.0.aliases()
    }

    fn signature(&self) -> &Signature {
        self.0.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.0.return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        self.0.inner().return_field_from_args(args)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.0.inner().coerce_types(types)
    }

    fn simplify(&self, args: Vec<Expr>, context: &SimplifyContext) -> Result<ExprSimplifyResult> {
        self.0.inner().simplify(args, context)
    }

    fn preimage(
        &self,
        args: &[Expr],
        literal: &Expr,
        context: &SimplifyContext,
    ) -> Result<PreimageResult> {
        self.0.inner().preimage(args, literal, context)
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        self.0.inner().output_ordering(inputs)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.0.inner().documentation()
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let mut unzoned = false;
        for arg in &mut args.args {
            if let ColumnarValue::Array(times) = arg
                && let DataType::Timestamp(unit, Some(zone)) = times.data_type()
                && zone.as_ref() == UTC
            {
                *arg = ColumnarValue::Array(with_zone(times, *unit, None));
                unzoned = true;
            }
        }
        if unzoned && let DataType::Timestamp(unit, Some(_)) = args.return_field.data_type() {
            let unit = DataType::Timestamp(*unit, None);
            args.return_field = Arc::new(args.return_field.as_ref().clone().with_data_type(unit));
        }
        let made = self.0.invoke_with_args(args)?;
        Ok(match &made {
            ColumnarValue::Array(times) if unzoned => match times.data_type() {
                DataType::Timestamp(unit, None) => {
                    ColumnarValue::Array(with_zone(times, *unit, Some(UTC)))
                }
                _ => made,
            },
            _ => made,
        })
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, StringArray, TimestampMicrosecondArray};
    use arrow::datatypes::Field;
    use datafusion::common::ScalarValue;
    use datafusion::execution::session_state::SessionStateBuilder;

    use super::*;

    #[test]
    fn calendars_say_the_same_without_the_zone() {
        let state = SessionStateBuilder::new().with_default_features().build();
        let times = [
            -9_000_000_000_000_000,
            -1,
            0,
            1_372_593_599_999_999,
            9_000_000_000_000_000,
        ];
        let times = TimestampMicrosecondArray::from(times.to_vec()).with_timezone(UTC);
        for (name, parts) in [
            (
                "date_trunc",
                ["hour", "day", "week", "month", "quarter", "year"],
            ),
            (
                "date_part",
                ["hour", "dow", "week", "month", "epoch", "year"],
            ),
        ] {
            let inner = &state.scalar_functions()[name];
            let own = in_utc(inner).unwrap();
            for part in parts {
                let part = ScalarValue::Utf8(Some(part.to_owned()));
                let field = |name: &str, t: &DataType| Arc::new(Field::new(name, t.clone(), true));
                let fields = [
                    field("part", &DataType::Utf8),
                    field("time", times.data_type()),
                ];
                let return_field = inner
                    .inner()
                    .return_field_from_args(ReturnFieldArgs {
                        arg_fields: &fields,
                        scalar_arguments: &[Some(&part), None],
                    })
                    .unwrap();
                let text = |function: &ScalarUDF| {
                    let args = ScalarFunctionArgs {
                        args: vec![
                            ColumnarValue::Scalar(part.clone()),
                            ColumnarValue::Array(Arc::new(times.clone())),
                        ],
                        arg_fields: fields.to_vec(),
                        number_rows: times.len(),
                        return_field: return_field.clone(),
                        config_options: Arc::default(),
                    };
                    let made = function.invoke_with_args(args).unwrap();
                    let made = made.into_array(times.len()).unwrap();
                    let texts = arrow::compute::cast(&made, &DataType::Utf8).unwrap();
                    let texts: StringArray = texts.as_string::<i32>().clone();
                    (made.data_type().clone(), format!("{texts:?}"))
                };
                assert_eq!(text(&own), text(inner), "{name} {part}");
            }
        }
    }
}
