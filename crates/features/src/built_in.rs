//! The contracts that Headwater brings itself: predictions and their outcomes are facts like any other.

use std::sync::{Arc, LazyLock};

use headwater_schema::{Contract, Problem};

/// The contract of predictions.
pub const PREDICTION: &str = "prediction";
/// The contract of outcomes.
pub const OUTCOME: &str = "outcome";

const DOCUMENT: &str = include_str!("built_in/predictions.yaml");

static CONTRACTS: LazyLock<Vec<Arc<Contract>>> = LazyLock::new(|| {
    // A test reads them; a document that is wrong would leave the project without them.
    let contracts = Contract::parse_yaml("built-in", DOCUMENT).unwrap_or_default();
    contracts.into_iter().map(Arc::new).collect()
});

pub(crate) fn contracts() -> &'static [Arc<Contract>] {
    &CONTRACTS
}

/// One of the contracts that Headwater brings itself.
pub fn built_in_contract(name: &str) -> Result<Arc<Contract>, Problem> {
    let found = contracts().iter().find(|c| *c.name == *name);
    found.cloned().ok_or_else(|| {
        Problem::internal(
            "built-in-contract",
            format!("there is no contract `{name}`"),
        )
    })
}

/// Whether a contract is one that Headwater brings itself.
pub fn is_built_in(contract: &Contract) -> bool {
    contracts()
        .iter()
        .any(|own| own.name == contract.name && own.document_id == contract.document_id)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests stop loudly")]

    use super::*;

    #[test]
    fn the_built_in_contracts_are_right() {
        let read = Contract::parse_yaml("built-in", DOCUMENT).unwrap();
        let names: Vec<&str> = read.iter().map(|c| c.name.as_ref()).collect();
        assert_eq!(names, [PREDICTION, OUTCOME]);
        assert!(contracts().iter().all(|c| is_built_in(c)));
    }
}
