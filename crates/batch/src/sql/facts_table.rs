//! The facts of one contract as a table: those that live at the query's cursor, or all that ever were.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::union::UnionExec;
use headwater_facts::archived_name;
use headwater_schema::{Contract, DataType as Type};

use super::Snapshot;
use super::archive_scan::{ArchiveScan, table_type};
use super::bounds::Bounds;
use super::log_scan::{LogPartition, LogScan};
use super::tables::{asked, streamed};

pub const EVENT_TIME: &str = "_event_time";
pub const INGEST_TIME: &str = "_ingest_time";
pub const SEQUENCE: &str = "_sequence";
pub const FACT_ID: &str = "_fact_id";
pub const UNKNOWN_FIELDS: &str = "_unknown_fields";
pub const REMOVED_AT: &str = "_removed_at";

/// Which facts of a contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// Those that count at the cursor.
    Live,
    /// Those too that were revised or retracted, with the sequence from which they don't count.
    All,
}

/// Facts of one contract.
#[derive(Debug)]
pub struct FactsTable {
    snapshot: Arc<Snapshot>,
    contract: Arc<Contract>,
    kept: Kept,
    schema: SchemaRef,
}

impl FactsTable {
    pub fn new(snapshot: Arc<Snapshot>, contract: Arc<Contract>, kept: Kept) -> Self {
        let schema = schema(&contract, kept);
        Self {
            snapshot,
            contract,
            kept,
            schema,
        }
    }

    /// The columns that say when a fact happened.
    fn times(&self) -> Vec<&str> {
        let own = &self.contract.fields[self.contract.event_time];
        match own.data_type {
            Type::Timestamp => vec![EVENT_TIME, own.name.as_ref()],
            _ => vec![EVENT_TIME],
        }
    }
}

pub fn instant() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// The contract's columns, as the archive names them, and what Headwater knows of each fact.
fn schema(contract: &Contract, kept: Kept) -> SchemaRef {
    let own = contract.fields.iter();
    let own = own.map(|f| {
        let stored = f.data_type.to_arrow();
        Field::new(archived_name(&f.name), table_type(stored), true)
    });
    let mut fields: Vec<Field> = own.collect();
    fields.extend([
        Field::new(EVENT_TIME, instant(), false),
        Field::new(INGEST_TIME, instant(), false),
        Field::new(SEQUENCE, DataType::Int64, false),
        Field::new(FACT_ID, DataType::Utf8View, true),
        Field::new(UNKNOWN_FIELDS, DataType::Utf8View, true),
    ]);
    if kept == Kept::All {
        fields.push(Field::new(REMOVED_AT, DataType::Int64, true));
    }
    Arc::new(Schema::new(fields))
}

#[async_trait]
impl TableProvider for FactsTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        let times = self.times();
        let judge = |filter: &&Expr| {
            let one = std::slice::from_ref(*filter);
            match Bounds::of(one, &times, SEQUENCE) == Bounds::ALL {
                true => TableProviderFilterPushDown::Unsupported,
                false => TableProviderFilterPushDown::Inexact,
            }
        };
        Ok(filters.iter().map(judge).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.snapshot.refuse_gone(&self.contract.name, None)?;
        let bounds = Bounds::of(filters, &self.times(), SEQUENCE);
        let mut bounds = bounds.seen_by(&self.snapshot);
        let (first, last) = self.snapshot.facts.sequences();
        bounds.sequence_min = bounds.sequence_min.max(first);
        bounds.sequence_max = bounds.sequence_max.min(last);
        let projection = asked(projection, &self.schema);
        let archived = ArchiveScan {
            snapshot: &self.snapshot,
            contract: &self.contract,
            kept: self.kept,
            schema: &self.schema,
            projection: &projection,
            bounds,
        };
        let (mut plans, through) = archived.plan(state).await?;
        bounds.sequence_min = bounds.sequence_min.max(through + 1);
        if plans.is_empty() || bounds.sequence_min <= bounds.sequence_max {
            plans.push(self.log(state, projection, bounds, limit)?);
        }
        match plans.len() {
            1 => Ok(plans.remove(0)),
            _ => UnionExec::try_new(plans),
        }
    }
}

impl FactsTable {
    /// A scan of what the archive hasn't got.
    fn log(
        &self,
        state: &dyn Session,
        projection: Vec<usize>,
        bounds: Bounds,
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let scan = Arc::new(LogScan {
            facts: self.snapshot.facts.clone(),
            contract: self.contract.clone(),
            kept: self.kept,
            known_at: self.snapshot.known_at,
            schema: Arc::new(self.schema.project(&projection)?),
            projection,
            rows_max: state.config().batch_size(),
        });
        let parts = state.config().target_partitions();
        let partitions = LogPartition::split(&scan, bounds, parts);
        streamed(scan.schema.clone(), partitions, None, limit)
    }
}
