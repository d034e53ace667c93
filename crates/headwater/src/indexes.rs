//! Which columns of facts an engine can look up by.

use std::collections::BTreeSet;

use headwater_facts::IndexSpec;
use headwater_features::Catalog;

/// The columns that facts are looked up by: the keys of every view's sources, and the keys of every
/// entity whose columns a contract has.
pub(crate) fn indexes(catalog: &Catalog) -> Vec<IndexSpec> {
    let mut indexes = BTreeSet::new();
    for view in catalog.views() {
        for source in &view.sources {
            indexes.insert((source.contract.clone(), source.key_columns.clone()));
        }
    }
    for contract in catalog.contracts() {
        for entity in catalog.entities() {
            let same = |key: &headwater_schema::Field| {
                contract
                    .field_index(&key.name)
                    .is_some_and(|i| contract.fields[i].data_type == key.data_type)
            };
            if entity.keys.iter().all(same) {
                let columns = entity.keys.iter().map(|k| k.name.clone()).collect();
                indexes.insert((contract.name.clone(), columns));
            }
        }
    }
    let spec = |(contract, key_columns)| IndexSpec {
        contract,
        key_columns,
    };
    indexes.into_iter().map(spec).collect()
}
