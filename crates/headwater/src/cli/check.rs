//! `check`, `plan` and `apply`.

use headwater::{apply_project, plan_project};
use headwater_api::AuditEvent;
use serde_json::json;

use super::{Context, Failure, print};

/// Checks every definition.
pub fn check(context: &Context) -> Result<(), Failure> {
    let project = context.project()?;
    let catalog = &project.catalog;
    let counts = json!({
        "contracts": catalog.contracts().count(),
        "entities": catalog.entities().count(),
        "views": catalog.views().count(),
        "features": catalog.views().map(|v| v.features.len()).sum::<usize>(),
        "feature_sets": catalog.sets().count(),
        "tests": project.tests.len(),
    });
    if context.json {
        print::json(&counts);
    } else {
        println!(
            "All good: {} contracts, {} entities, {} views with {} features, {} feature sets, {} tests.",
            counts["contracts"],
            counts["entities"],
            counts["views"],
            counts["features"],
            counts["feature_sets"],
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

/// Shows what `apply` would change; fails where it would refuse.
pub fn plan(context: &Context) -> Result<(), Failure> {
    let project = context.project()?;
    let folder = project.data_folder(context.data.as_deref());
    let plan = plan_project(&context.env, &project, &folder)?;
    if context.json {
        print::json(&json!(plan));
    } else {
        print!("{plan}");
    }
    if plan.problems.is_empty() {
        Ok(())
    } else {
        Err(plan.problems.into())
    }
}

/// Puts the definitions in force.
pub fn apply(context: &Context) -> Result<(), Failure> {
    let project = context.project()?;
    let folder = project.data_folder(context.data.as_deref());
    let applied = apply_project(&context.env, &project, &folder);
    let result = match &applied {
        Ok(plan) => format!("{} changes", plan.items.len()),
        Err(problems) => problems
            .iter()
            .map(|p| p.code)
            .collect::<Vec<_>>()
            .join(", "),
    };
    let event = AuditEvent::new(
        super::ACTOR,
        "definitions.apply",
        &project.config.name,
        &result,
    );
    let noted = context.audit(&project.config).append(&event);
    let plan = applied?;
    noted?;
    if context.json {
        print::json(&json!(plan));
    } else {
        print!("{plan}");
        if !plan.is_empty() {
            println!("Applied.");
        }
    }
    Ok(())
}
