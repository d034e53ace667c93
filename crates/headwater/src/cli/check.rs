//! `check`.

use headwater::tls_files::TlsFiles;
use serde_json::json;

use super::{Context, Failure, print};

/// Checks every definition.
pub fn check(context: &Context) -> Result<(), Failure> {
    let project = context.project()?;
    // What `serve` would refuse to begin with.
    if let Some(files) = TlsFiles::new(context.env.clone(), &project.config, &context.folder) {
        files.load()?;
    }
    let catalog = &project.catalog;
    let counts = json!({
        "contracts": catalog.contracts().count(),
        "entities": catalog.entities().count(),
        "views": catalog.views().count(),
        "features": catalog.views().map(|v| v.features.len()).sum::<usize>(),
        "feature_sets": catalog.sets().count(),
        "labels": catalog.labels().count(),
        "tests": project.tests.len(),
    });
    if context.json {
        print::json(&counts);
    } else {
        println!(
            "All good: {} contracts, {} entities, {} views with {} features, {} feature sets, {} labels, {} tests.",
            counts["contracts"],
            counts["entities"],
            counts["views"],
            counts["features"],
            counts["feature_sets"],
            counts["labels"],
            counts["tests"]
        );
    }
    for contract in catalog.contracts() {
        for part in &contract.not_enforced {
            eprintln!(
                "note: {} of the contract `{}` isn't checked on rows: {}",
                part.path, contract.name, part.what
            );
        }
    }
    Ok(())
}
