//! Fixture tests: a project's own tests of its definitions. Facts go in, features and labels come out at a cursor,
//! and are compared with what the test expects. They run through the same engine that serves, in a
//! folder of their own that goes when they end.

mod compare;
mod run;

use std::collections::BTreeMap;

use headwater_features::{Catalog, ContextRow, Definition, read_definition};
use headwater_schema::contract::suggest;
use headwater_schema::time::parse_timestamp;
use headwater_schema::yaml::{YamlDocument, pointer_segment};
use headwater_schema::{Location, Micros, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

pub use run::{CaseOutcome, Difference, TestOutcome, run_test};

/// Cases of one test.
pub const CASES_MAX: usize = 1000;
const STATUSES: [&str; 7] = [
    "PRESENT",
    "NULL_VALUE",
    "NOT_FOUND",
    "OUTSIDE_MAX_AGE",
    "UNDEFINED",
    "OVERFLOW",
    "BACKFILLING",
];

/// Facts that go in, and the features that have to come out.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TestSpec {
    pub facts: FactsSpec,
    /// Rows that have to break their contract. Any other row that does fails the test.
    #[serde(default)]
    pub rejected: Vec<RejectedSpec>,
    #[serde(default)]
    pub cases: Vec<CaseSpec>,
}

/// Facts by contract, as they would be sent; a list of such maps where the order of arrival between
/// contracts matters.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum FactsSpec {
    ByContract(BTreeMap<String, Vec<serde_json::Map<String, Json>>>),
    InOrder(Vec<BTreeMap<String, Vec<serde_json::Map<String, Json>>>>),
}

/// A row that has to break its contract.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RejectedSpec {
    pub contract: String,
    /// Which of the contract's rows, counted from 0 through all of them.
    pub row: usize,
    /// The field that breaks it, where that matters.
    #[serde(default)]
    pub field: Option<String>,
}

/// One read, and what it has to give.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CaseSpec {
    #[serde(default)]
    pub name: Option<String>,
    /// The event time to read at: RFC 3339, or microseconds.
    pub as_of: Json,
    /// Read what was known after this many facts had been taken; all of them by default.
    #[serde(default)]
    pub known_at: Option<u64>,
    /// Whether facts at `as_of` itself count.
    #[serde(default = "yes")]
    pub inclusive: bool,
    /// As in requests: entity name → key, or key column → value.
    pub entity: BTreeMap<String, Json>,
    /// Read this feature set, whose on-demand features may be expected then.
    #[serde(default)]
    pub feature_set: Option<String>,
    /// The request's own fields that the feature set declares.
    #[serde(default)]
    pub context: Option<ContextRow>,
    /// Full name of a feature → its value, or a map of `value`, `status` and `tolerance`.
    #[serde(default)]
    pub expect: BTreeMap<String, Json>,
    /// Name of a label → its value for a row of `entity` at `as_of`, or a map of `value` and `tolerance`. Columns that it
    /// is matched by may be named in `entity` too.
    #[serde(default)]
    pub labels: BTreeMap<String, Json>,
    /// When the labels are looked at; by default once every horizon has come.
    #[serde(default)]
    pub labels_as_of: Option<Json>,
}

fn yes() -> bool {
    true
}

/// A test, checked against the definitions it tests.
#[derive(Debug, Clone)]
pub struct FixtureTest {
    pub name: String,
    pub location: Location,
    /// (contract, rows), in the order of arrival.
    facts: Vec<(String, Vec<Json>)>,
    rejected: Vec<RejectedSpec>,
    cases: Vec<Case>,
}

#[derive(Debug, Clone)]
struct Case {
    name: String,
    location: Location,
    as_of: Micros,
    known_at: Option<u64>,
    inclusive: bool,
    entity: BTreeMap<String, Json>,
    feature_set: Option<String>,
    context: Option<ContextRow>,
    expect: Vec<Expected>,
    labels: Vec<Expected>,
    labels_as_of: Micros,
}

/// What a feature or a label has to be.
#[derive(Debug, Clone)]
struct Expected {
    feature: String,
    location: Location,
    /// None where only the status matters.
    value: Option<Json>,
    status: Option<String>,
    /// How far a number may be off; it is compared exactly without.
    tolerance: f64,
}

/// The JSON Schema of test documents.
pub fn test_schema() -> Json {
    schemars::schema_for!(Definition<TestSpec>).into()
}

/// Whether a document is a fixture test.
pub(crate) fn is_test(document: &YamlDocument) -> bool {
    document.value.get("kind").and_then(Json::as_str) == Some("Test")
}

impl FixtureTest {
    /// Reads a test and checks that what it names is defined; all mistakes at once.
    pub fn read(document: &YamlDocument, catalog: &Catalog) -> Result<Self, Vec<Problem>> {
        let definition: Definition<TestSpec> = read_definition(document).map_err(|p| vec![p])?;
        let mut problems = Vec::new();
        let facts = in_order(definition.spec.facts);
        for (contract, _) in &facts {
            if catalog.contract(contract).is_none() {
                let place = document.locate("/spec/facts");
                problems.push(unknown_contract(contract, catalog).at(place));
            }
        }
        if definition.spec.cases.len() > CASES_MAX {
            problems.push(
                Problem::user("limit", format!("the test has more than {CASES_MAX} cases"))
                    .hint("split it")
                    .at(document.locate("/spec/cases")),
            );
        }
        if definition.spec.cases.is_empty() && definition.spec.rejected.is_empty() {
            problems.push(
                Problem::user("invalid-test", "the test expects nothing")
                    .field("spec.cases")
                    .hint(
                        "add a case: `cases: [{as_of: …, entity: {…}, expect: {view.feature: 1}}]`",
                    )
                    .at(document.locate("/spec")),
            );
        }
        let mut cases = Vec::new();
        for (index, case) in definition.spec.cases.into_iter().enumerate() {
            match read_case(document, index, case, catalog) {
                Ok(case) => cases.push(case),
                Err(found) => problems.extend(found),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Self {
            name: definition.name,
            location: document.locate("/name"),
            facts,
            rejected: definition.spec.rejected,
            cases,
        })
    }
}

fn in_order(facts: FactsSpec) -> Vec<(String, Vec<Json>)> {
    let steps = match facts {
        FactsSpec::ByContract(step) => vec![step],
        FactsSpec::InOrder(steps) => steps,
    };
    let rows = |(contract, rows): (String, Vec<serde_json::Map<String, Json>>)| {
        (contract, rows.into_iter().map(Json::Object).collect())
    };
    steps.into_iter().flatten().map(rows).collect()
}

fn unknown_contract(name: &str, catalog: &Catalog) -> Problem {
    let known = catalog.contracts().map(|c| c.name.as_ref());
    Problem::user("unknown-contract", format!("there is no contract `{name}`"))
        .hint(suggest(name, known))
}

fn read_case(
    document: &YamlDocument,
    index: usize,
    case: CaseSpec,
    catalog: &Catalog,
) -> Result<Case, Vec<Problem>> {
    let pointer = format!("/spec/cases/{index}");
    let mut problems = Vec::new();
    let mut time = |json: &Json, name: &str| {
        instant(json).unwrap_or_else(|detail| {
            problems.push(
                Problem::user("invalid-time", format!("`{name}` is no time"))
                    .detail(detail)
                    .hint("write RFC 3339 with an offset, as in 2026-01-15T10:00:00Z, or microseconds")
                    .at(document.locate(&format!("{pointer}/{name}"))),
            );
            0
        })
    };
    let as_of = time(&case.as_of, "as_of");
    let labels_as_of = case.labels_as_of.as_ref();
    let labels_as_of = labels_as_of.map_or(Micros::MAX, |json| time(json, "labels_as_of"));
    if let Err(problem) = check_set(&case, catalog) {
        // What the set gives can't be told, so neither can what is expected of it.
        problems.push(problem.at(document.locate(&pointer)));
        return Err(problems);
    }
    let mut all = |given, key, check: Check<'_>| {
        let pointer = format!("{pointer}/{key}");
        read_all(document, &pointer, given, check, &mut problems)
    };
    let expect = all(&case.expect, "expect", &|name, _| {
        check_feature(&case, name, catalog)
    });
    let labels = all(&case.labels, "labels", &|name, e| {
        check_label(name, e, catalog)
    });
    if case.expect.is_empty() && case.labels.is_empty() {
        problems.push(
            Problem::user("invalid-test", "the case expects nothing")
                .hint("name features and their values: `expect: {view.feature: 1}`")
                .at(document.locate(&pointer)),
        );
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(Case {
        name: case.name.unwrap_or_else(|| format!("case {}", index + 1)),
        location: document.locate(&pointer),
        as_of,
        known_at: case.known_at,
        inclusive: case.inclusive,
        entity: case.entity,
        feature_set: case.feature_set,
        context: case.context,
        expect,
        labels,
        labels_as_of,
    })
}

/// Whether something may be expected of a name.
type Check<'a> = &'a dyn Fn(&String, &Expected) -> Result<(), Problem>;

/// What is expected of each of some names.
fn read_all(
    document: &YamlDocument,
    pointer: &str,
    given: &BTreeMap<String, Json>,
    check: Check<'_>,
    problems: &mut Vec<Problem>,
) -> Vec<Expected> {
    let mut read = Vec::new();
    for (name, given) in given {
        let location = document.locate_key(&format!("{pointer}/{}", pointer_segment(name)));
        let expected = read_expected(name, given);
        match expected.and_then(|e| check(name, &e).map(|()| e)) {
            Ok(expected) => read.push(Expected {
                location,
                ..expected
            }),
            Err(problem) => problems.push(problem.at(location)),
        }
    }
    read
}

/// Whether there is such a label; one has no status.
fn check_label(name: &str, expected: &Expected, catalog: &Catalog) -> Result<(), Problem> {
    catalog.label(name)?;
    match expected.status {
        None => Ok(()),
        Some(_) => Err(Problem::user("invalid-test", "a label has no status")
            .hint("expect a value; null where it is unknown")),
    }
}

/// Whether the case's feature set is there, and the context what it declares.
fn check_set(case: &CaseSpec, catalog: &Catalog) -> Result<(), Problem> {
    let Some(name) = &case.feature_set else {
        return match &case.context {
            None => Ok(()),
            Some(_) => Err(Problem::user(
                "invalid-test",
                "`context` needs a feature set that takes it",
            )
            .hint("add `feature_set: NAME`")),
        };
    };
    catalog.resolve_set(name)?;
    if let Some(set) = catalog.set(name) {
        set.read_context(1, case.context.as_slice())?;
    }
    Ok(())
}

/// Whether the case reads the feature that it expects something of.
fn check_feature(case: &CaseSpec, feature: &String, catalog: &Catalog) -> Result<(), Problem> {
    let Some(set) = case.feature_set.as_ref().and_then(|name| catalog.set(name)) else {
        return catalog.resolve(std::slice::from_ref(feature)).map(drop);
    };
    let names = || set.full_names().map(AsRef::as_ref);
    if names().any(|name: &str| name == feature) {
        return Ok(());
    }
    let title = format!("the feature set `{}` has no feature `{feature}`", set.name);
    Err(Problem::user("unknown-feature", title).hint(suggest(feature, names())))
}

fn instant(json: &Json) -> Result<Micros, String> {
    match json {
        Json::Number(number) => number
            .as_i64()
            .ok_or_else(|| format!("{number} is no integer")),
        Json::String(text) => parse_timestamp(text, None),
        other => Err(other.to_string()),
    }
}

/// A value as it is; or a map whose keys are `value`, `status` and `tolerance`, at least one of the
/// first two.
fn read_expected(feature: &str, given: &Json) -> Result<Expected, Problem> {
    let mut expected = Expected {
        feature: feature.to_owned(),
        location: Location {
            file: String::new(),
            line: 1,
            column: 1,
        },
        value: Some(given.clone()),
        status: None,
        tolerance: 0.0,
    };
    let Some(map) = given.as_object() else {
        return Ok(expected);
    };
    let ours = |key: &String| matches!(key.as_str(), "value" | "status" | "tolerance");
    let says = map.contains_key("value") || map.contains_key("status");
    if !says || !map.keys().all(ours) {
        return Ok(expected);
    }
    expected.value = map.get("value").cloned();
    if let Some(status) = map.get("status") {
        let name = status.as_str().unwrap_or_default();
        if !STATUSES.contains(&name) {
            return Err(
                Problem::user("invalid-test", format!("there is no status {status}"))
                    .hint(format!("it is one of {}", STATUSES.join(", "))),
            );
        }
        expected.status = Some(name.to_owned());
    }
    if let Some(tolerance) = map.get("tolerance") {
        let given = tolerance.as_f64().filter(|t| t.is_finite() && *t >= 0.0);
        expected.tolerance = given.ok_or_else(|| {
            Problem::user("invalid-test", "`tolerance` is no distance")
                .detail(tolerance)
                .hint("write how far the number may be off, as in 0.001")
        })?;
    }
    Ok(expected)
}
