//! Which tables there are, by schema and name. Made when a query names them.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, SchemaProvider, TableProvider};
use datafusion::common::Result;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};

use super::facts_table::{FactsTable, Kept};
use super::feature_tables::FeatureTable;
use super::problem::through;
use super::quarantine_table::QuarantineTable;
use super::{Snapshot, about};

/// How the catalog is called.
pub const CATALOG: &str = "headwater";
/// The schema that a bare name is looked up in.
pub const DEFAULT_SCHEMA: &str = "facts";

/// A schema of the catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Facts that count at the cursor, by contract.
    Facts,
    /// Every fact there was, by contract.
    History,
    /// Rows that broke their contract.
    Quarantine,
    /// Features as they were at each fact, by view.
    Views,
    /// What the definitions say of all these.
    About,
}

impl Kind {
    pub const ALL: [Self; 5] = [
        Self::Facts,
        Self::History,
        Self::Quarantine,
        Self::Views,
        Self::About,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Facts => DEFAULT_SCHEMA,
            Self::History => "history",
            Self::Quarantine => "quarantine",
            Self::Views => "views",
            Self::About => "about",
        }
    }

    /// A table by its name.
    pub fn table(
        self,
        snapshot: &Arc<Snapshot>,
        name: &str,
    ) -> Result<Option<Arc<dyn TableProvider>>> {
        let contract = || snapshot.catalog.contract(name).cloned();
        let facts = |kept| {
            let table = |contract| FactsTable::new(snapshot.clone(), contract, kept);
            contract().map(|contract| provider(table(contract)))
        };
        Ok(match self {
            Self::Facts => facts(Kept::Live),
            Self::History => facts(Kept::All),
            Self::Quarantine => contract()
                .map(|contract| QuarantineTable::new(snapshot.clone(), contract.name.clone()))
                .map(provider),
            Self::Views => {
                let view = snapshot.catalog.view(name);
                let table = view.map(|view| FeatureTable::of_view(snapshot, view));
                table.transpose().map_err(through)?.map(provider)
            }
            Self::About => about::table(snapshot, name)?,
        })
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// The tables of a snapshot.
#[derive(Debug)]
pub struct Tables(pub Arc<Snapshot>);

impl CatalogProvider for Tables {
    fn schema_names(&self) -> Vec<String> {
        Kind::ALL.iter().map(|kind| kind.as_str().into()).collect()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        let kind = Kind::named(name)?;
        let snapshot = self.0.clone();
        Some(Arc::new(TablesOf { kind, snapshot }))
    }
}

/// The tables of one schema.
#[derive(Debug)]
struct TablesOf {
    kind: Kind,
    snapshot: Arc<Snapshot>,
}

/// The names of a schema's tables.
pub fn names(snapshot: &Snapshot, kind: Kind) -> Vec<String> {
    let catalog = &snapshot.catalog;
    match kind {
        Kind::Facts | Kind::History | Kind::Quarantine => {
            catalog.contracts().map(|c| c.name.to_string()).collect()
        }
        Kind::Views => catalog.views().map(|v| v.name.to_string()).collect(),
        Kind::About => about::NAMES.map(str::to_owned).to_vec(),
    }
}

#[async_trait]
impl SchemaProvider for TablesOf {
    fn table_names(&self) -> Vec<String> {
        names(&self.snapshot, self.kind)
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        self.kind.table(&self.snapshot, name)
    }

    fn table_exist(&self, name: &str) -> bool {
        names(&self.snapshot, self.kind)
            .iter()
            .any(|known| known == name)
    }
}

fn provider(table: impl TableProvider + 'static) -> Arc<dyn TableProvider> {
    Arc::new(table)
}

/// The places of the columns that are asked for.
pub fn asked(projection: Option<&Vec<usize>>, schema: &Schema) -> Vec<usize> {
    let all = || (0..schema.fields().len()).collect();
    projection.cloned().unwrap_or_else(all)
}

/// A plan that reads streams side by side.
pub fn streamed(
    schema: SchemaRef,
    streams: Vec<impl PartitionStream + 'static>,
    projection: Option<&Vec<usize>>,
    limit: Option<usize>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let streams = streams.into_iter();
    let streams = streams.map(|stream| Arc::new(stream) as Arc<dyn PartitionStream>);
    let streams = streams.collect();
    let exec = StreamingTableExec::try_new(schema, streams, projection, [], false, limit);
    Ok(Arc::new(exec?))
}
