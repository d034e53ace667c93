//! Plans that end soon once nobody waits for them: where rows multiply, a query comes back to its threads often enough
//! to be let go, and the condition of a join, which may be false for billions of pairs in a row, asks each time
//! whether to go on.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, FieldRef, Schema};
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::joins::{
    HashJoinExec, NestedLoopJoinExec, NestedLoopJoinExecBuilder,
};
use datafusion::physical_plan::unnest::UnnestExec;

use super::problem::through;
use crate::Stop;

/// Says stop when it is dropped.
pub struct StopWhenDropped(pub Stop);

impl Drop for StopWhenDropped {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// The same plan, which ends soon after somebody says stop and drops it.
pub fn interruptible(plan: Arc<dyn ExecutionPlan>, stop: &Stop) -> Result<Arc<dyn ExecutionPlan>> {
    let asked = plan.transform_up(|plan| {
        let multiplies = plan.children().len() > 1 || plan.is::<UnnestExec>();
        if !multiplies {
            return Ok(Transformed::no(plan));
        }
        let plan = asking(&plan, stop)?.unwrap_or(plan);
        Ok(Transformed::yes(Arc::new(CooperativeExec::new(plan)) as _))
    });
    Ok(asked?.data)
}

/// A join whose condition asks; none where the plan has no condition.
fn asking(plan: &Arc<dyn ExecutionPlan>, stop: &Stop) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let ask = |filter: &JoinFilter| {
        let condition = Asking {
            condition: filter.expression().clone(),
            stop: stop.clone(),
        };
        let (columns, schema) = (filter.column_indices().to_vec(), filter.schema().clone());
        Some(JoinFilter::new(Arc::new(condition), columns, schema))
    };
    if let Some(join) = plan.downcast_ref::<NestedLoopJoinExec>()
        && let Some(filter) = join.filter()
    {
        let join = NestedLoopJoinExecBuilder::from(join).with_filter(ask(filter));
        return Ok(Some(Arc::new(join.build()?)));
    }
    if let Some(join) = plan.downcast_ref::<HashJoinExec>()
        && let Some(filter) = join.filter()
    {
        let join = join.builder().with_filter(ask(filter));
        return join.build_exec().map(Some);
    }
    Ok(None)
}

/// A condition that fails once somebody says stop.
#[derive(Debug, Clone)]
struct Asking {
    condition: Arc<dyn PhysicalExpr>,
    stop: Stop,
}

impl PartialEq for Asking {
    fn eq(&self, other: &Self) -> bool {
        self.condition.eq(&other.condition)
    }
}

impl Eq for Asking {}

impl Hash for Asking {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.condition.hash(state);
    }
}

impl fmt::Display for Asking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.condition.fmt(f)
    }
}

impl PhysicalExpr for Asking {
    fn data_type(&self, input: &Schema) -> Result<DataType> {
        self.condition.data_type(input)
    }

    fn nullable(&self, input: &Schema) -> Result<bool> {
        self.condition.nullable(input)
    }

    fn return_field(&self, input: &Schema) -> Result<FieldRef> {
        self.condition.return_field(input)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        self.stop.check().map_err(through)?;
        self.condition.evaluate(batch)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.condition]
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        Ok(Arc::new(Self {
            condition: children.pop().unwrap_or_else(|| self.condition.clone()),
            stop: self.stop.clone(),
        }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.condition.fmt_sql(f)
    }
}
