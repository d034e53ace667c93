//! Columns of archived files read as the present contract's, by the rules of its evolution: the same that facts of the log
//! are read by.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType as ArrowType, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{Column, lit};
use datafusion::physical_expr_adapter::{PhysicalExprAdapter, PhysicalExprAdapterFactory};
use headwater_facts::archived_name;
use headwater_schema::{Contract, DataType, evolve};

use super::archive_reader::BYTES_COLUMNS;

/// Makes readers of files, each as the file is.
#[derive(Debug)]
pub struct ReadAsContract(pub Arc<Contract>);

impl PhysicalExprAdapterFactory for ReadAsContract {
    fn create(&self, table: SchemaRef, file: SchemaRef) -> Result<Arc<dyn PhysicalExprAdapter>> {
        let bytes = file.metadata().get(BYTES_COLUMNS);
        let bytes = bytes.map_or(Ok(Vec::new()), |names| serde_json::from_str(names));
        Ok(Arc::new(ReadFile {
            contract: self.0.clone(),
            table,
            file,
            bytes: bytes.map_err(|e| DataFusionError::External(Box::new(e)))?,
        }))
    }
}

/// Reads one file as the table.
#[derive(Debug)]
struct ReadFile {
    contract: Arc<Contract>,
    table: SchemaRef,
    file: SchemaRef,
    /// Columns that hold bytes where the table has text, which they are not.
    bytes: Vec<String>,
}

impl PhysicalExprAdapter for ReadFile {
    fn rewrite(&self, expr: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
        let rewritten = expr.transform_up(|expr| match expr.downcast_ref::<Column>() {
            Some(column) => Ok(Transformed::yes(self.column(column)?)),
            None => Ok(Transformed::no(expr)),
        });
        rewritten.data()
    }
}

impl ReadFile {
    fn column(&self, column: &Column) -> Result<Arc<dyn PhysicalExpr>> {
        let name = column.name();
        let wanted = self.table.field_with_name(name)?.data_type();
        let place = match self.file.index_of(name) {
            Ok(place) if !self.bytes.iter().any(|bytes| bytes == name) => place,
            _ => return Ok(lit(ScalarValue::try_from(wanted)?)),
        };
        let stored: Arc<dyn PhysicalExpr> = Arc::new(Column::new(name, place));
        if self.file.field(place).data_type() == wanted {
            return Ok(stored);
        }
        let mut fields = self.contract.fields.iter();
        let field = fields.find(|f| archived_name(&f.name) == name);
        Ok(match field {
            Some(field) => Arc::new(ReadAs {
                stored,
                contracts: field.data_type.clone(),
                wanted: wanted.clone(),
            }),
            None => stored,
        })
    }
}

/// A column whose facts were stored under another type.
#[derive(Debug, Clone, Eq)]
struct ReadAs {
    stored: Arc<dyn PhysicalExpr>,
    contracts: DataType,
    wanted: ArrowType,
}

impl PartialEq for ReadAs {
    fn eq(&self, other: &Self) -> bool {
        self.stored.eq(&other.stored)
            && self.contracts == other.contracts
            && self.wanted == other.wanted
    }
}

impl Hash for ReadAs {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.stored.hash(state);
        self.wanted.hash(state);
    }
}

impl std::fmt::Display for ReadAs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} as {}", self.stored, self.contracts)
    }
}

impl PhysicalExpr for ReadAs {
    fn data_type(&self, _: &Schema) -> Result<ArrowType> {
        Ok(self.wanted.clone())
    }

    fn nullable(&self, _: &Schema) -> Result<bool> {
        Ok(true)
    }

    fn evaluate(&self, rows: &RecordBatch) -> Result<ColumnarValue> {
        let stored: ArrayRef = self.stored.evaluate(rows)?.into_array(rows.num_rows())?;
        let read = evolve::read_as(&stored, &self.contracts)?;
        Ok(ColumnarValue::Array(cast(&read, &self.wanted)?))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.stored]
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        let stored = children.into_iter().next();
        Ok(Arc::new(Self {
            stored: stored.unwrap_or_else(|| self.stored.clone()),
            ..self.as_ref().clone()
        }))
    }

    fn fmt_sql(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}
