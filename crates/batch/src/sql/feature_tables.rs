//! Features as tables: `views.NAME` has a view's features as they were at each of its facts, `features_as_of` those of every
//! entity at one moment.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{
    Expr, LogicalPlan, LogicalPlanBuilder, TableProviderFilterPushDown, TableType, ident, lit,
};
use datafusion::physical_plan::ExecutionPlan;
use headwater_facts::{IndexSpec, archived_name};
use headwater_features::{CompiledView, FeatureRef};
use headwater_schema::{Contract, Cursor, EntityKey, Problem};

use super::bounds::Bounds;
use super::facts_table::{EVENT_TIME, FactsTable, Kept, SEQUENCE};
use super::feature_columns::FeatureColumns;
use super::feature_stream::{FeatureStream, Of};
use super::tables::{asked, streamed};
use super::{Snapshot, named};
use crate::sweep::ENTITIES_MAX;

/// A contract whose facts name entities.
#[derive(Debug, Clone)]
pub struct NamedBy {
    pub contract: Arc<Contract>,
    /// Its columns in the order of the keys.
    pub columns: Vec<Arc<str>>,
}

impl NamedBy {
    pub fn index(&self) -> IndexSpec {
        IndexSpec {
            contract: self.contract.name.clone(),
            key_columns: self.columns.clone(),
        }
    }
}

/// A table of features.
#[derive(Debug)]
pub struct FeatureTable {
    snapshot: Arc<Snapshot>,
    columns: FeatureColumns,
    rows: Rows,
}

/// What its rows are of.
#[derive(Debug)]
enum Rows {
    /// The facts of a view, each at itself.
    Facts(Arc<CompiledView>),
    /// The entities that facts name by a cursor, all at it.
    Entities(Cursor, Vec<NamedBy>),
}

pub fn features_of(view: &Arc<CompiledView>) -> Vec<FeatureRef> {
    let feature = |index| FeatureRef {
        view: view.clone(),
        index,
    };
    (0..view.features.len()).map(feature).collect()
}

/// Whether a filter is about these columns alone and says the same whenever it is asked.
fn is_about(filter: &Expr, names: &[&str]) -> bool {
    let columns = filter.column_refs();
    !columns.is_empty()
        && columns
            .iter()
            .all(|column| names.contains(&column.name.as_str()))
        && !filter.is_volatile()
}

impl FeatureTable {
    /// A view's features as they were at each of its facts.
    pub fn of_view(
        snapshot: &Arc<Snapshot>,
        view: &Arc<CompiledView>,
    ) -> std::result::Result<Self, Problem> {
        Ok(Self {
            snapshot: snapshot.clone(),
            columns: FeatureColumns::new(features_of(view), None, true)?,
            rows: Rows::Facts(view.clone()),
        })
    }

    /// Features of every entity that facts name by a cursor.
    pub fn as_of(
        snapshot: &Arc<Snapshot>,
        columns: FeatureColumns,
        cursor: Cursor,
        named_by: Vec<NamedBy>,
    ) -> Self {
        Self {
            snapshot: snapshot.clone(),
            columns,
            rows: Rows::Entities(cursor, named_by),
        }
    }

    /// The columns that say what a row is of: filters on them pick rows before a sweep.
    fn places(&self) -> Vec<&str> {
        let mut places: Vec<&str> = self.columns.keys.iter().map(|k| k.name.as_ref()).collect();
        if self.columns.placed {
            places.extend([EVENT_TIME, SEQUENCE]);
        }
        places
    }

    fn facts(
        &self,
        state: &dyn Session,
        view: &Arc<CompiledView>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Of> {
        for source in &view.sources {
            self.snapshot.refuse_gone(&source.contract, None)?;
        }
        let schema = DFSchema::try_from(self.columns.schema.clone())?;
        let filter = conjunction(filters.iter().cloned());
        let filter = filter.map(|filter| state.create_physical_expr(filter, &schema));
        Ok(Of::Facts {
            view: view.clone(),
            bounds: Bounds::of(filters, &[EVENT_TIME], SEQUENCE).seen_by(&self.snapshot),
            named: named::entities(filters, &self.columns.keys, ENTITIES_MAX),
            filter: filter.transpose()?,
            limit: limit.filter(|_| filters.is_empty()),
        })
    }

    async fn entities(
        &self,
        state: &dyn Session,
        cursor: Cursor,
        named_by: &[NamedBy],
        filters: &[Expr],
    ) -> Result<Of> {
        for by in named_by {
            let until = Some(cursor.until.event_time);
            self.snapshot.refuse_gone(&by.contract.name, until)?;
        }
        let indexed = |by: &NamedBy| self.snapshot.facts.is_indexed(&by.index());
        let named: Option<Vec<EntityKey>> =
            named::entities(filters, &self.columns.keys, ENTITIES_MAX);
        if let Some(keys) = named.filter(|_| named_by.iter().all(indexed)) {
            let named_by = named_by.to_vec();
            return Ok(Of::Named(keys, named_by, cursor));
        }
        let plan = self.plan_of_entities(cursor, named_by, filters)?;
        let plan = state.create_physical_plan(&plan).await?;
        Ok(Of::Found(plan, cursor))
    }

    /// Finds the entities that facts name by a cursor.
    fn plan_of_entities(
        &self,
        cursor: Cursor,
        named_by: &[NamedBy],
        filters: &[Expr],
    ) -> Result<LogicalPlan> {
        let mut all: Option<LogicalPlanBuilder> = None;
        for by in named_by {
            let table = FactsTable::new(self.snapshot.clone(), by.contract.clone(), Kept::Live);
            let source = provider_as_source(Arc::new(table));
            let until = cursor.until.event_time;
            let until = ScalarValue::TimestampMicrosecond(Some(until), Some("UTC".into()));
            let mut passes = ident(EVENT_TIME).lt_eq(lit(until));
            let mut keys = Vec::new();
            for (column, key) in by.columns.iter().zip(&self.columns.keys) {
                let column = ident(archived_name(column));
                passes = passes.and(column.clone().is_not_null());
                keys.push(column.alias(key.name.as_ref()));
            }
            let mut found = LogicalPlanBuilder::scan(by.contract.name.as_ref(), source, None)?
                .filter(passes)?
                .project(keys)?;
            if let Some(filter) = conjunction(filters.iter().cloned()) {
                found = found.filter(filter)?;
            }
            all = Some(match all {
                None => found,
                Some(all) => all.union(found.build()?)?,
            });
        }
        let none =
            || datafusion::common::DataFusionError::Internal("no facts name entities".into());
        all.ok_or_else(none)?.distinct()?.build()
    }
}

#[async_trait]
impl TableProvider for FeatureTable {
    fn schema(&self) -> SchemaRef {
        self.columns.schema.clone()
    }

    fn table_type(&self) -> TableType {
        match self.rows {
            Rows::Facts(_) => TableType::Base,
            Rows::Entities(..) => TableType::Temporary,
        }
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        let places = self.places();
        let judge = |filter: &&Expr| match is_about(filter, &places) {
            true => TableProviderFilterPushDown::Inexact,
            false => TableProviderFilterPushDown::Unsupported,
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
        let of = match &self.rows {
            Rows::Facts(view) => self.facts(state, view, filters, limit)?,
            Rows::Entities(cursor, named_by) => {
                self.entities(state, *cursor, named_by, filters).await?
            }
        };
        let projection = asked(projection, &self.columns.schema);
        let schema = Arc::new(self.columns.schema.project(&projection)?);
        let stream = FeatureStream {
            snapshot: self.snapshot.clone(),
            columns: self.columns.clone(),
            projection,
            schema: schema.clone(),
            of,
        };
        streamed(schema, vec![stream], None, limit)
    }
}
