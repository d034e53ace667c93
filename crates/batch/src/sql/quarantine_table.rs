//! The rows of one contract that broke it, newest first, a page at a time.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::physical_plan::{ExecutionPlan, SendableRecordBatchStream};
use futures_util::stream::try_unfold;
use headwater_facts::{QuarantineQuery, QuarantinedRow};

use super::Snapshot;
use super::facts_table::instant;
use super::log_scan::blocking;
use super::problem::through;
use super::tables::streamed;

/// Rows read at a time.
const PAGE_ROWS: u64 = 1024;

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let text = |name: &str, nullable| Field::new(name, DataType::Utf8, nullable);
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("ingest_time", instant(), false),
        Field::new("row", DataType::Int64, false),
        text("field", true),
        text("rule", false),
        text("reason", false),
        text("raw", false),
        Field::new("resolved", instant(), true),
    ]))
});

/// Rows in quarantine, those too that have become facts since.
#[derive(Debug, Clone)]
pub struct QuarantineTable {
    snapshot: Arc<Snapshot>,
    contract: Arc<str>,
}

impl QuarantineTable {
    pub fn new(snapshot: Arc<Snapshot>, contract: Arc<str>) -> Self {
        Self { snapshot, contract }
    }

    /// The rows that `ids` names, or the newest.
    fn page(&self, ids: Option<std::ops::RangeInclusive<u64>>) -> Result<Vec<QuarantinedRow>> {
        let query = QuarantineQuery {
            contract: self.contract.clone(),
            limit: ids.as_ref().map_or(1, |_| PAGE_ROWS as usize),
            ids: ids.map(Iterator::collect),
            resolved: true,
        };
        self.snapshot.facts.quarantined(&query).map_err(through)
    }
}

#[async_trait]
impl TableProvider for QuarantineTable {
    fn schema(&self) -> SchemaRef {
        SCHEMA.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        streamed(SCHEMA.clone(), vec![self.clone()], projection, limit)
    }
}

impl PartitionStream for QuarantineTable {
    fn schema(&self) -> &SchemaRef {
        &SCHEMA
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        // The newest id that isn't read yet; none: nothing is read yet.
        let stream = try_unfold((self.clone(), None), |(table, newest)| async move {
            blocking(move || {
                let newest = match newest {
                    Some(newest) => newest,
                    None => table.page(None)?.first().map_or(0, |row| row.id),
                };
                if newest == 0 {
                    return Ok(None);
                }
                let oldest = newest.saturating_sub(PAGE_ROWS - 1).max(1);
                let rows = table.page(Some(oldest..=newest))?;
                Ok(Some((batch(&rows)?, (table, Some(oldest - 1)))))
            })
            .await
        });
        Box::pin(RecordBatchStreamAdapter::new(SCHEMA.clone(), stream))
    }
}

fn batch(rows: &[QuarantinedRow]) -> Result<RecordBatch> {
    let numbers = |of: &dyn Fn(&QuarantinedRow) -> i64| {
        Arc::new(rows.iter().map(|r| Some(of(r))).collect::<Int64Array>()) as ArrayRef
    };
    let instants = |of: &dyn Fn(&QuarantinedRow) -> Option<i64>| {
        let array: TimestampMicrosecondArray = rows.iter().map(of).collect();
        Arc::new(array.with_timezone("UTC")) as ArrayRef
    };
    let texts = |of: &dyn Fn(&QuarantinedRow) -> Option<String>| {
        Arc::new(rows.iter().map(of).collect::<StringArray>()) as ArrayRef
    };
    let columns = vec![
        numbers(&|r| r.id as i64),
        instants(&|r| Some(r.ingest_time)),
        numbers(&|r| r.row as i64),
        texts(&|r| r.fault.field.clone()),
        texts(&|r| Some(r.fault.rule.clone())),
        texts(&|r| Some(r.fault.reason.clone())),
        texts(&|r| Some(r.raw.clone())),
        instants(&|r| r.resolved),
    ];
    Ok(RecordBatch::try_new(SCHEMA.clone(), columns)?)
}
