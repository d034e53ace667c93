//! Validation against the JSON Schema of the Open Data Contract Standard, which is compiled in.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use jsonschema::Validator;
use jsonschema::error::{TypeKind, ValidationErrorKind};
use serde_json::Value;

use super::nearest;
use crate::Problem;
use crate::time::shorten;

/// The standard's own JSON Schema, as it was published.
pub const ODCS_JSON_SCHEMA: &str = include_str!("../../assets/odcs-json-schema-v3.1.0.json");

/// Mistakes of one document that are listed.
pub const PROBLEMS_MAX: usize = 100;

struct Standard {
    validator: Validator,
    /// Every property name that the standard knows anywhere.
    names: BTreeSet<String>,
}

fn standard() -> Result<&'static Standard, Problem> {
    static STANDARD: OnceLock<Result<Standard, String>> = OnceLock::new();
    let standard = STANDARD.get_or_init(|| {
        let schema: Value = serde_json::from_str(ODCS_JSON_SCHEMA).map_err(|e| e.to_string())?;
        let validator = jsonschema::options()
            .build(&schema)
            .map_err(|e| e.to_string())?;
        let mut names = BTreeSet::new();
        collect_names(&schema, &mut names);
        Ok(Standard { validator, names })
    });
    standard.as_ref().map_err(|error| {
        Problem::internal(
            "odcs-schema",
            "The compiled-in JSON Schema of ODCS cannot be used",
        )
        .detail(error)
    })
}

fn collect_names(schema: &Value, names: &mut BTreeSet<String>) {
    match schema {
        Value::Object(members) => {
            if let Some(Value::Object(properties)) = members.get("properties") {
                names.extend(properties.keys().cloned());
            }
            members
                .values()
                .for_each(|member| collect_names(member, names));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_names(item, names)),
        _ => {}
    }
}

/// What the standard finds wrong, with the JSON pointer of the place.
pub fn validate(document: &Value) -> Result<Vec<(String, Problem)>, Problem> {
    let standard = standard()?;
    let errors: Vec<_> = standard
        .validator
        .iter_errors(document)
        .take(PROBLEMS_MAX)
        .collect();
    let unevaluated = |kind: &ValidationErrorKind| {
        matches!(kind, ValidationErrorKind::UnevaluatedProperties { .. })
    };
    // Where a part fails, the standard's schema also calls its siblings unknown. Names that it
    // knows are then none of the user's mistakes.
    let failed: Vec<String> = errors
        .iter()
        .filter(|e| !unevaluated(e.kind()))
        .map(|e| e.instance_path().as_str().to_owned())
        .collect();
    let mut found: Vec<(String, Problem)> = Vec::new();
    for error in &errors {
        let pointer = error.instance_path().as_str().to_owned();
        match error.kind() {
            ValidationErrorKind::UnevaluatedProperties { unexpected }
            | ValidationErrorKind::AdditionalProperties { unexpected } => {
                let disturbed =
                    unevaluated(error.kind()) && failed.iter().any(|p| p.starts_with(&pointer));
                for name in unexpected {
                    if disturbed && standard.names.contains(name) {
                        continue;
                    }
                    let at = format!("{pointer}/{}", crate::yaml::pointer_segment(name));
                    found.push((at, unknown_property(name, &standard.names)));
                }
            }
            kind => found.push((pointer, explain(kind, error.instance()))),
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found.dedup_by(|a, b| a.0 == b.0 && a.1 == b.1);
    Ok(found)
}

fn unknown_property(name: &str, names: &BTreeSet<String>) -> Problem {
    let problem = Problem::user(
        "unknown-property",
        format!("ODCS v3.1 has no property `{name}` here"),
    );
    match nearest(name, names.iter().map(String::as_str)) {
        Some(near) if near != name => problem.hint(format!("Did you mean `{near}`?")),
        _ => problem.hint("Remove it, or put it under `customProperties`"),
    }
}

fn explain(kind: &ValidationErrorKind, instance: &Value) -> Problem {
    let invalid = |title: String| Problem::user("invalid-contract", title);
    let seen = shorten(&instance.to_string());
    match kind {
        ValidationErrorKind::Required { property } => {
            let name = property.as_str().unwrap_or_default();
            Problem::user("missing-property", format!("`{name}` is missing"))
                .hint(format!("Add `{name}`; ODCS v3.1 requires it"))
        }
        ValidationErrorKind::Enum { options } => {
            let texts: Vec<&str> = options
                .as_array()
                .map(|options| options.iter().filter_map(Value::as_str).collect())
                .unwrap_or_default();
            let near = instance
                .as_str()
                .and_then(|i| nearest(i, texts.iter().copied()));
            let hint = match near {
                Some(near) => format!("Did you mean `{near}`? Allowed are {}", texts.join(", ")),
                None => format!("Allowed are {}", texts.join(", ")),
            };
            invalid(format!("{seen} is not allowed here")).hint(hint)
        }
        ValidationErrorKind::Type { kind } => {
            let wanted = match kind {
                TypeKind::Single(wanted) => wanted.to_string(),
                TypeKind::Multiple(_) => "another type".to_owned(),
            };
            let quote = if wanted == "string" { "; quote it" } else { "" };
            invalid(format!("A value of the wrong type: {seen}"))
                .hint(format!("ODCS v3.1 wants {wanted} here{quote}"))
        }
        ValidationErrorKind::OneOfMultipleValid { .. }
        | ValidationErrorKind::OneOfNotValid { .. } => invalid(format!(
            "{seen} matches not exactly one of the forms that ODCS v3.1 allows here"
        ))
        .hint("A quality rule needs exactly one operator such as `mustBe: 0`"),
        kind => invalid(format!("ODCS v3.1 forbids {seen} here"))
            .detail(format!("The rule is `{}`", kind.keyword()))
            .hint("See the standard's description of this property"),
    }
}
