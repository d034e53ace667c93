//! Which tables there are, by schema and name. Made when a query names them.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, SchemaProvider, TableProvider};
use datafusion::common::Result;
use headwater_schema::Contract;

use super::Snapshot;
use super::facts_table::{FactsTable, Kept};
use super::quarantine_table::QuarantineTable;

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
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Facts, Self::History, Self::Quarantine];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Facts => DEFAULT_SCHEMA,
            Self::History => "history",
            Self::Quarantine => "quarantine",
        }
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

impl TablesOf {
    fn contract(&self, name: &str) -> Option<&Arc<Contract>> {
        self.snapshot.catalog.contract(name)
    }
}

/// The names of a schema's tables.
pub fn names(snapshot: &Snapshot, kind: Kind) -> Vec<String> {
    match kind {
        Kind::Facts | Kind::History | Kind::Quarantine => {
            let contracts = snapshot.catalog.contracts();
            contracts.map(|c| c.name.to_string()).collect()
        }
    }
}

#[async_trait]
impl SchemaProvider for TablesOf {
    fn table_names(&self) -> Vec<String> {
        names(&self.snapshot, self.kind)
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let snapshot = self.snapshot.clone();
        let contract = self.contract(name).cloned();
        let table = contract.map(|contract| match self.kind {
            Kind::Facts => provider(FactsTable::new(snapshot, contract, Kept::Live)),
            Kind::History => provider(FactsTable::new(snapshot, contract, Kept::All)),
            Kind::Quarantine => provider(QuarantineTable::new(snapshot, contract.name.clone())),
        });
        Ok(table)
    }

    fn table_exist(&self, name: &str) -> bool {
        self.contract(name).is_some()
    }
}

fn provider(table: impl TableProvider + 'static) -> Arc<dyn TableProvider> {
    Arc::new(table)
}
