//! `count(DISTINCT …)` behind a table of the values that came lately: most columns have few values, and one that the
//! counter was given already needn't be looked for among all of them again.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{
    DataType, FieldRef, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType,
};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::expr::AggregateFunctionParams;
use datafusion::logical_expr::function::{
    AccumulatorArgs, AggregateFunctionSimplification, StateFieldsArgs,
};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, GroupsAccumulator, ReversedUDAF,
    Signature, StatisticsArgs,
};

/// Values after which a table is made: a counter of one small group among many has none.
const VALUES_MIN: usize = 32_768;
/// Places of a table; together they fit into a core's cache.
const PLACES: usize = 16_384;
/// Batches one after another, most of whose values are new, after which a table is given up.
const USELESS_BATCHES: u32 = 8;
/// Bytes of a text that is held within its view.
const INLINE_BYTES: u32 = 12;
/// Spreads the bits of numbers: 2^64 over the golden ratio.
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

/// The function itself, where it counts.
pub fn remembering(function: &Arc<AggregateUDF>) -> Option<AggregateUDF> {
    let counts = function.name() == "count";
    counts.then(|| AggregateUDF::new_from_impl(Remembering(function.clone())))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Remembering(Arc<AggregateUDF>);

impl AggregateUDFImpl for Remembering {
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

    fn is_nullable(&self) -> bool {
        self.0.is_nullable()
    }

    fn schema_name(&self, params: &AggregateFunctionParams) -> Result<String> {
        self.0.schema_name(params)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let one = match args.expr_fields {
            [field] if args.is_distinct => Some(field.data_type().clone()),
            _ => None,
        };
        let inner = self.0.accumulator(args)?;
        Ok(match one.as_ref().and_then(Kind::of) {
            Some(kind) => Box::new(Counter {
                inner,
                lately: Lately::Waits(0),
                kind,
            }),
            None => inner,
        })
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        self.0.state_fields(args)
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        self.0.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        self.0.create_groups_accumulator(args)
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.0.create_sliding_accumulator(args)
    }

    fn simplify(&self) -> Option<AggregateFunctionSimplification> {
        self.0.simplify()
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        self.0.reverse_udf()
    }

    fn value_from_stats(&self, args: &StatisticsArgs) -> Option<ScalarValue> {
        self.0.value_from_stats(args)
    }

    fn default_value(&self, data_type: &DataType) -> Result<ScalarValue> {
        self.0.default_value(data_type)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.0.documentation()
    }
}

/// How values are held in a table.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Integers,
    Floats,
    Times,
    Texts,
}

impl Kind {
    fn of(data_type: &DataType) -> Option<Self> {
        match data_type {
            DataType::Int64 => Some(Self::Integers),
            DataType::Float64 => Some(Self::Floats),
            DataType::Timestamp(TimeUnit::Microsecond, _) => Some(Self::Times),
            DataType::Utf8View => Some(Self::Texts),
            _ => None,
        }
    }

    /// The rows whose values the table didn't have.
    fn new_rows(self, values: &ArrayRef, table: &mut Table) -> Vec<u32> {
        match self {
            Self::Integers => {
                let column = values.as_primitive::<Int64Type>().values();
                table.new_rows(values, |row| number(column[row].cast_unsigned()))
            }
            Self::Floats => {
                let column = values.as_primitive::<Float64Type>().values();
                table.new_rows(values, |row| number(column[row].to_bits()))
            }
            Self::Times => {
                let column = values.as_primitive::<TimestampMicrosecondType>().values();
                table.new_rows(values, |row| number(column[row].cast_unsigned()))
            }
            Self::Texts => {
                let views = values.as_string_view().views();
                table.new_rows(values, |row| {
                    let view = views[row];
                    // Longer ones lie elsewhere: the view only says where.
                    (view as u32 <= INLINE_BYTES).then_some(view)
                })
            }
        }
    }
}

fn number(bits: u64) -> Option<u128> {
    Some(u128::from(bits))
}

/// Values that came lately, each at the one place that it may have.
#[derive(Debug)]
struct Table(Vec<u128>);

impl Table {
    fn new() -> Self {
        // Every place holds a value whose place is another.
        let mut places = vec![0; PLACES];
        places[place(0)] = 1;
        Self(places)
    }

    fn new_rows(&mut self, values: &ArrayRef, held: impl Fn(usize) -> Option<u128>) -> Vec<u32> {
        let nulls = values.nulls().filter(|nulls| nulls.null_count() > 0);
        let mut rows = Vec::new();
        for row in 0..values.len() {
            if nulls.is_some_and(|nulls| nulls.is_null(row)) {
                continue;
            }
            if let Some(value) = held(row) {
                let known = &mut self.0[place(value)];
                if *known == value {
                    continue;
                }
                *known = value;
            }
            rows.push(row as u32);
        }
        rows
    }
}

fn place(value: u128) -> usize {
    let folded = (value as u64) ^ ((value >> 64) as u64).rotate_left(32);
    (folded.wrapping_mul(SPREAD) >> (u64::BITS - PLACES.ilog2())) as usize
}

#[derive(Debug)]
enum Lately {
    /// So many values came.
    Waits(usize),
    /// The table, and for how many batches it was of no use.
    Known(Table, u32),
    Useless,
}

/// A counter of distinct values that isn't given what it was given lately.
#[derive(Debug)]
struct Counter {
    inner: Box<dyn Accumulator>,
    lately: Lately,
    kind: Kind,
}

impl Accumulator for Counter {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let [column] = values else {
            return self.inner.update_batch(values);
        };
        match &mut self.lately {
            Lately::Waits(came) => {
                *came += column.len();
                if *came >= VALUES_MIN {
                    self.lately = Lately::Known(Table::new(), 0);
                }
            }
            Lately::Useless => {}
            Lately::Known(table, useless) => {
                let rows = self.kind.new_rows(column, table);
                match rows.len() * 2 > column.len() {
                    true => *useless += 1,
                    false => *useless = 0,
                }
                if *useless >= USELESS_BATCHES {
                    self.lately = Lately::Useless;
                }
                if rows.is_empty() {
                    return Ok(());
                }
                let new = take(column, &UInt32Array::from(rows), None)?;
                return self.inner.update_batch(&[new]);
            }
        }
        self.inner.update_batch(values)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.inner.evaluate()
    }

    fn size(&self) -> usize {
        let table = match &self.lately {
            Lately::Known(table, _) => size_of_val(table.0.as_slice()),
            _ => 0,
        };
        size_of_val(self) + table + self.inner.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        // It may begin again.
        self.lately = Lately::Waits(0);
        self.inner.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.inner.merge_batch(states)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use arrow::array::{
        Float64Array, Int64Array, StringArray, StringViewArray, TimestampMicrosecondArray,
    };
    use arrow::compute::cast;
    use arrow::datatypes::{Field, Schema};
    use datafusion::execution::session_state::SessionStateBuilder;
    use datafusion::physical_expr::PhysicalExpr;
    use datafusion::physical_expr::expressions::Column;

    use super::*;

    fn counter(data_type: &DataType) -> Box<dyn Accumulator> {
        let state = SessionStateBuilder::new().with_default_features().build();
        let field = Arc::new(Field::new("a", data_type.clone(), true));
        let schema = Schema::new(vec![field.clone()]);
        let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new("a", 0));
        let args = AccumulatorArgs {
            return_field: Arc::new(Field::new("count", DataType::Int64, false)),
            schema: &schema,
            ignore_nulls: false,
            order_bys: &[],
            is_reversed: false,
            name: "count",
            is_distinct: true,
            exprs: &[column],
            expr_fields: &[field],
        };
        let own = remembering(&state.aggregate_functions()["count"]).unwrap();
        own.accumulator(args).unwrap()
    }

    /// Makes a column of numbers, some of which are null.
    type Made<'a> = &'a dyn Fn(&[Option<u64>]) -> ArrayRef;

    /// Numbers up to `most`, zero not before there is a table, some rows null; the same every time.
    fn numbers(batch: u64, most: u64) -> Vec<Option<u64>> {
        let mixed = |row: u64| (row + batch * 8192).wrapping_mul(SPREAD).rotate_left(29);
        let number = |row| (row % 97 != 0).then(|| mixed(row) % most + u64::from(batch < 8));
        (0..8192).map(number).collect()
    }

    #[test]
    fn distinct_values_are_counted_as_a_set_counts_them() {
        let integers = |n: &[Option<u64>]| -> ArrayRef {
            Arc::new(
                n.iter()
                    .map(|n| n.map(u64::cast_signed))
                    .collect::<Int64Array>(),
            )
        };
        let floats = |n: &[Option<u64>]| -> ArrayRef {
            let float = |n: &u64| *n as f64 / 4.0 - 100.0;
            Arc::new(
                n.iter()
                    .map(|n| n.as_ref().map(float))
                    .collect::<Float64Array>(),
            )
        };
        let times = |n: &[Option<u64>]| -> ArrayRef {
            let times = n.iter().map(|n| n.map(|n| (n >> 8).cast_signed()));
            Arc::new(
                times
                    .collect::<TimestampMicrosecondArray>()
                    .with_timezone("UTC"),
            )
        };
        let texts = |n: &[Option<u64>]| -> ArrayRef {
            // Short ones, and ones that lie beside their views.
            let text = |n: &u64| format!("{:1$}", n, (n % 3) as usize * 8);
            Arc::new(
                n.iter()
                    .map(|n| n.as_ref().map(text))
                    .collect::<StringViewArray>(),
            )
        };
        let kinds: [Made; 4] = [&integers, &floats, &times, &texts];
        for made in kinds {
            for most in [1, 300, 20_000, u64::MAX] {
                let mut counter = counter(made(&[]).data_type());
                let mut known = BTreeSet::new();
                for batch in 0..16 {
                    let column = made(&numbers(batch, most));
                    let text = cast(&column, &DataType::Utf8).unwrap();
                    let text: &StringArray = text.as_string();
                    known.extend(text.iter().flatten().map(str::to_owned));
                    counter.update_batch(&[column]).unwrap();
                }
                let counted = counter.evaluate().unwrap();
                assert_eq!(counted, ScalarValue::Int64(Some(known.len() as i64)));
            }
        }
    }
}
