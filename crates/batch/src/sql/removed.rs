//! Which facts count no longer, by their sequences, as a function of queries' plans.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{AsArray, Int64Array};
use arrow::datatypes::{DataType, Field, Int64Type};
use datafusion::common::Result;
use datafusion::config::ConfigOptions;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use headwater_schema::Sequence;

use super::facts_table::REMOVED_AT;

/// Facts that were revised or retracted, ascending, each with the sequence from which it doesn't count.
#[derive(Debug)]
pub struct Removed {
    pairs: Vec<(Sequence, Sequence)>,
    _memory: MemoryReservation,
}

impl Removed {
    /// What it takes is the query's.
    pub fn new(pairs: Vec<(Sequence, Sequence)>, pool: &Arc<dyn MemoryPool>) -> Result<Self> {
        let memory = MemoryConsumer::new("corrections").register(pool);
        memory.try_grow(size_of_val(pairs.as_slice()))?;
        Ok(Self {
            pairs,
            _memory: memory,
        })
    }

    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// Whether any of these sequences counts no longer.
    pub fn any_among(&self, first: Sequence, last: Sequence) -> bool {
        let from = self.pairs.partition_point(|(s, _)| *s < first);
        self.pairs.get(from).is_some_and(|(s, _)| *s <= last)
    }

    fn at(&self, sequence: i64) -> Option<i64> {
        let sequence = Sequence::try_from(sequence).ok()?;
        let place = self.pairs.binary_search_by_key(&sequence, |(s, _)| *s);
        place.ok().map(|place| self.pairs[place].1 as i64)
    }

    /// The sequence from which the fact of a sequence doesn't count; null for those that do.
    pub fn removed_at(self: &Arc<Self>, sequence: Arc<dyn PhysicalExpr>) -> Arc<dyn PhysicalExpr> {
        let function = RemovedAt {
            removed: self.clone(),
            signature: Signature::exact(vec![DataType::Int64], Volatility::Immutable),
        };
        Arc::new(ScalarFunctionExpr::new(
            REMOVED_AT,
            Arc::new(ScalarUDF::new_from_impl(function)),
            vec![sequence],
            Arc::new(Field::new(REMOVED_AT, DataType::Int64, true)),
            Arc::new(ConfigOptions::default()),
        ))
    }
}

#[derive(Debug)]
struct RemovedAt {
    removed: Arc<Removed>,
    signature: Signature,
}

impl PartialEq for RemovedAt {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.removed, &other.removed)
    }
}

impl Eq for RemovedAt {}

impl Hash for RemovedAt {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.removed.pairs.len().hash(state);
    }
}

impl ScalarUDFImpl for RemovedAt {
    fn name(&self) -> &str {
        REMOVED_AT
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let sequences = arrays
            .first()
            .and_then(|a| a.as_primitive_opt::<Int64Type>());
        let removed: Int64Array = match sequences {
            Some(sequences) => sequences.iter().map(|s| self.removed.at(s?)).collect(),
            None => Int64Array::new_null(args.number_rows),
        };
        Ok(ColumnarValue::Array(Arc::new(removed)))
    }
}
