//! `test`: the project's own tests of its definitions.

use clap::Args;
use headwater::{CaseOutcome, Difference, TestOutcome, run_test};
use headwater_schema::{Location, Problem};
use serde_json::{Value as Json, json};

use super::{Context, Failure, print};

#[derive(Args)]
pub struct TestArguments {
    /// Only tests with this in their name; may be repeated.
    names: Vec<String>,
}

/// Runs the tests; fails where one does.
pub fn run(context: &Context, arguments: &TestArguments) -> Result<(), Failure> {
    let project = context.project()?;
    let wanted = |name: &str| {
        arguments.names.is_empty() || arguments.names.iter().any(|part| name.contains(part))
    };
    let tests: Vec<_> = project.tests.iter().filter(|t| wanted(&t.name)).collect();
    if tests.is_empty() && !project.tests.is_empty() {
        return Err(Problem::user("no-test", "no test has such a name")
            .detail(arguments.names.join(", "))
            .into());
    }
    let mut outcomes = Vec::with_capacity(tests.len());
    for test in tests {
        let outcome = run_test(&context.env, &project, test)?;
        if !context.json {
            show(&outcome);
        }
        outcomes.push(outcome);
    }
    let cases = || outcomes.iter().flat_map(|t| &t.cases);
    let failed = outcomes.iter().filter(|t| !t.passed()).count();
    if context.json {
        print::json(&json!({
            "passed": outcomes.len() - failed,
            "failed": failed,
            "tests": outcomes.iter().map(as_json).collect::<Vec<_>>(),
        }));
    } else if outcomes.is_empty() {
        println!("There are no tests: a document of `kind: Test` makes one (docs/features.md).");
    } else {
        println!(
            "{} tests with {} cases: {} passed, {failed} failed.",
            outcomes.len(),
            cases().count(),
            outcomes.len() - failed,
        );
    }
    if failed > 0 {
        return Err(Failure::Told);
    }
    Ok(())
}

fn show(test: &TestOutcome) {
    let word = if test.passed() { "ok" } else { "FAIL" };
    let (name, count) = (&test.name, test.cases.len());
    println!(
        "{word:<5} {name}  ({count} cases, {})",
        place(&test.location)
    );
    for wrong in &test.facts {
        println!("      facts: {wrong}");
    }
    for case in test.cases.iter().filter(|c| !c.passed()) {
        println!("      {} ({})", case.name, place(&case.location));
        if let Some(problem) = &case.problem {
            println!("        {}", problem.title);
            for more in [&problem.detail, &problem.hint] {
                if !more.is_empty() {
                    println!("        {more}");
                }
            }
        }
        case.differences.iter().for_each(show_difference);
    }
}

fn show_difference(difference: &Difference) {
    let status = |status: Option<&str>| status.map(|s| format!(" {s}")).unwrap_or_default();
    let expected = match &difference.expected {
        Some(value) => value.to_string(),
        None => "any value".to_owned(),
    };
    println!(
        "        {} ({})",
        difference.feature,
        place(&difference.location)
    );
    println!(
        "          expected  {expected}{}",
        status(difference.expected_status.as_deref())
    );
    println!(
        "          got       {}{}",
        difference.value,
        status(difference.status)
    );
}

fn place(at: &Location) -> String {
    format!("{}:{}:{}", at.file, at.line, at.column)
}

fn as_json(test: &TestOutcome) -> Json {
    let difference = |d: &Difference| {
        json!({
            "feature": d.feature, "at": place(&d.location),
            "expected": d.expected, "expected_status": d.expected_status,
            "value": d.value, "status": d.status,
        })
    };
    let case = |case: &CaseOutcome| {
        json!({
            "name": case.name, "at": place(&case.location), "passed": case.passed(),
            "problem": case.problem.as_ref().map(ToString::to_string),
            "differences": case.differences.iter().map(difference).collect::<Vec<_>>(),
        })
    };
    json!({
        "name": test.name, "at": place(&test.location), "passed": test.passed(),
        "facts": test.facts,
        "cases": test.cases.iter().map(case).collect::<Vec<_>>(),
    })
}
