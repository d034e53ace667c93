//! Reads a document that passed ODCS's own schema: the document, its schema objects, its fields.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::Value;

use super::custom::{HeadwaterProperties, read_custom};
use super::freshness::read_freshness;
use super::property::read_property;
use super::{
    Contract, FIELDS_MAX, FieldSpec, NAME_LENGTH_MAX, NotEnforced, is_usable_name, schema_of,
    standard,
};
use crate::{DataType, Location, Problem};

/// A reading in progress: what was found wrong, and what is kept but not enforced.
pub(super) struct Reading<'a> {
    locate: &'a dyn Fn(&str) -> Option<Location>,
    pub problems: Vec<Problem>,
    pub not_enforced: Vec<NotEnforced>,
}

impl Reading<'_> {
    /// Files a problem with the place of a JSON pointer.
    pub fn report(&mut self, pointer: &str, mut problem: Problem) {
        if problem.field.is_none() && !pointer.is_empty() {
            problem.field = Some(path_of(pointer));
        }
        problem.location = (self.locate)(pointer);
        self.problems.push(problem);
    }

    pub fn skip(&mut self, pointer: &str, what: impl Into<String>) {
        self.not_enforced.push(NotEnforced {
            path: path_of(pointer),
            what: what.into(),
            location: (self.locate)(pointer),
        });
    }
}

/// `/schema/0/properties/2/name` as `schema[0].properties[2].name`.
fn path_of(pointer: &str) -> String {
    let mut path = String::new();
    for segment in pointer.split('/').skip(1) {
        if !segment.is_empty() && segment.bytes().all(|b| b.is_ascii_digit()) {
            path.push_str(&format!("[{segment}]"));
            continue;
        }
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(&segment.replace("~1", "/").replace("~0", "~"));
    }
    path
}

pub(super) fn read_document(
    document: &Value,
    locate: &dyn Fn(&str) -> Option<Location>,
) -> Result<Vec<Contract>, Vec<Problem>> {
    let mut reading = Reading {
        locate,
        problems: Vec::new(),
        not_enforced: Vec::new(),
    };
    for (pointer, problem) in standard::validate(document).map_err(|p| vec![p])? {
        reading.report(&pointer, problem);
    }
    if !reading.problems.is_empty() {
        return Err(reading.problems);
    }
    let contracts = read_contracts(document, &mut reading);
    if reading.problems.is_empty() {
        Ok(contracts)
    } else {
        Err(reading.problems)
    }
}

fn read_contracts(document: &Value, reading: &mut Reading<'_>) -> Vec<Contract> {
    let api_version = text(document, "apiVersion").unwrap_or_default();
    if !api_version.starts_with("v3.") {
        let problem = Problem::user(
            "unsupported-version",
            format!("ODCS {api_version} is not read"),
        )
        .hint("Write `apiVersion: v3.1.0`");
        reading.report("/apiVersion", problem);
    }
    let version = match text(document, "version").unwrap_or_default().parse() {
        Ok(version) => Some(version),
        Err(error) => {
            let title = format!("The contract's version is no semantic version: {error}");
            let problem = Problem::user("bad-version", title)
                .hint("Write three numbers, as in `version: 1.0.0`");
            reading.report("/version", problem);
            None
        }
    };
    let freshness = read_freshness(document, reading);
    for part in ["roles", "servers", "price", "support"] {
        if document.get(part).is_some() {
            reading.skip(&format!("/{part}"), format!("`{part}` is kept for readers"));
        }
    }
    misplaced_words(document, "", reading);
    let objects = document.get("schema").and_then(Value::as_array);
    let objects = objects.map_or(&[][..], Vec::as_slice);
    if objects.is_empty() {
        let problem = Problem::user("no-schema", "The contract has no schema object")
            .hint("Add `schema:` with one object per kind of fact: its `name`, `properties` and `customProperties`");
        reading.report("", problem);
    }
    let of_document = reading.not_enforced.clone();
    let mut names = HashSet::new();
    let mut contracts = Vec::new();
    for (index, object) in objects.iter().enumerate() {
        let pointer = format!("/schema/{index}");
        let name = text(object, "name").unwrap_or_default();
        if !names.insert(name) {
            let problem = Problem::user(
                "duplicate-contract",
                format!("The schema object `{name}` occurs twice"),
            )
            .hint("Rename one of them");
            reading.report(&format!("{pointer}/name"), problem);
        }
        let found = reading.problems.len();
        let skipped = reading.not_enforced.len();
        let contract = read_object(document, object, &pointer, reading);
        let (Some(version), Some(mut contract)) = (version.clone(), contract) else {
            continue;
        };
        if reading.problems.len() == found {
            contract.version = version;
            contract.freshness = contract.freshness.or_else(|| freshness.of(name));
            contract.not_enforced.clone_from(&of_document);
            contract
                .not_enforced
                .extend_from_slice(&reading.not_enforced[skipped..]);
            contracts.push(contract);
        }
    }
    contracts
}

fn text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key).and_then(Value::as_str)
}

/// Headwater's words stand at the schema object only.
pub(super) fn misplaced_words(value: &Value, pointer: &str, reading: &mut Reading<'_>) {
    let custom = value.get("customProperties").and_then(Value::as_array);
    for (index, property) in custom.into_iter().flatten().enumerate() {
        let name = text(property, "property").unwrap_or_default();
        if name.starts_with("headwater.") {
            let title = format!("`{name}` stands in the wrong place");
            let problem = Problem::user("misplaced-property", title).hint(
                "Put it under `customProperties` of the schema object, beside its `properties`",
            );
            reading.report(
                &format!("{pointer}/customProperties/{index}/property"),
                problem,
            );
        }
    }
}

fn read_object(
    document: &Value,
    object: &Value,
    pointer: &str,
    reading: &mut Reading<'_>,
) -> Option<Contract> {
    let name = text(object, "name").unwrap_or_default();
    check_contract_name(name, pointer, reading);
    let mut fields = read_fields(object, pointer, reading);
    for part in ["quality", "relationships"] {
        let items = object.get(part).and_then(Value::as_array);
        for index in 0..items.map_or(0, Vec::len) {
            reading.skip(
                &format!("{pointer}/{part}/{index}"),
                format!("`{part}` of a schema object"),
            );
        }
    }
    let words = read_custom(object, &fields, pointer, reading)?;
    require_identity(&mut fields, &words);
    check_uniqueness(&fields, &words, pointer, reading);
    let HeadwaterProperties {
        event_time,
        fact_id,
        time_unit,
        time_zone,
        dedup_window,
        retention,
        freshness,
    } = words;
    Some(Contract {
        name: Arc::from(name),
        version: semver::Version::new(0, 0, 0),
        document_id: text(document, "id").unwrap_or_default().to_owned(),
        owner: owner(document),
        description: description(document, object),
        tags: tags(document).into_iter().chain(tags(object)).collect(),
        status: text(document, "status").unwrap_or_default().to_owned(),
        schema: schema_of(&fields),
        fields,
        event_time,
        fact_id,
        time_unit,
        time_zone,
        dedup_window,
        retention,
        freshness,
        not_enforced: Vec::new(),
        source: document.clone(),
    })
}

fn check_contract_name(name: &str, pointer: &str, reading: &mut Reading<'_>) {
    let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let allowed = name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if !starts || !allowed || name.len() > NAME_LENGTH_MAX {
        let title = format!(
            "`{}` can't be a contract's name",
            crate::time::shorten(name)
        );
        let problem = Problem::user("bad-name", title)
            .hint(format!("Use up to {NAME_LENGTH_MAX} letters, digits, `_` and `-`, a letter first: it is part of URLs"));
        reading.report(&format!("{pointer}/name"), problem);
    }
}

/// The fields of a schema object or the members of a struct.
pub(super) fn read_fields(
    object: &Value,
    pointer: &str,
    reading: &mut Reading<'_>,
) -> Vec<FieldSpec> {
    let properties = object.get("properties").and_then(Value::as_array);
    let properties = properties.map_or(&[][..], Vec::as_slice);
    if properties.is_empty() || properties.len() > FIELDS_MAX {
        let problem = Problem::user(
            "bad-fields",
            format!("{} fields are declared here", properties.len()),
        )
        .hint(format!("Declare 1 to {FIELDS_MAX} under `properties`"));
        reading.report(pointer, problem);
    }
    let mut names = HashSet::new();
    let mut fields = Vec::with_capacity(properties.len());
    for (index, property) in properties.iter().take(FIELDS_MAX).enumerate() {
        let pointer = format!("{pointer}/properties/{index}");
        let name = text(property, "name").unwrap_or_default();
        if !is_usable_name(name) {
            let problem = Problem::user("bad-name", "A field has no usable name")
                .hint(format!("Give it a name of 1 to {NAME_LENGTH_MAX} bytes"));
            reading.report(&format!("{pointer}/name"), problem);
        } else if !names.insert(name) {
            let problem = Problem::user(
                "duplicate-field",
                format!("The field `{name}` occurs twice"),
            )
            .hint("Remove or rename one of them");
            reading.report(&format!("{pointer}/name"), problem);
        }
        fields.extend(read_property(property, name, &pointer, 0, reading));
    }
    fields
}

/// Event time and fact id are never null, whatever the document says.
fn require_identity(fields: &mut [FieldSpec], words: &HeadwaterProperties) {
    for index in words.fact_id.iter().chain([&words.event_time]) {
        if let Some(field) = fields.get_mut(*index) {
            field.required = true;
        }
    }
}

/// Uniqueness holds across the whole log or not at all: only the fact id's can be kept.
fn check_uniqueness(
    fields: &[FieldSpec],
    words: &HeadwaterProperties,
    pointer: &str,
    reading: &mut Reading<'_>,
) {
    for (index, field) in fields.iter().enumerate() {
        if field.unique && words.fact_id != [index] {
            let title = format!("`{}` can't be kept unique", field.name);
            let problem = Problem::user("unique-field", title)
                .detail("Only the fact id is looked up in the whole log")
                .hint(format!(
                    "Make it the fact id (`- {{property: headwater.factId, value: {}}}`), or remove `unique`",
                    field.name
                ));
            reading.report(&format!("{pointer}/properties/{index}/unique"), problem);
        }
    }
    let keys: Vec<usize> = (0..fields.len())
        .filter(|i| fields[*i].primary_key)
        .collect();
    let is_id = keys.len() == words.fact_id.len() && keys.iter().all(|i| words.fact_id.contains(i));
    for index in keys.iter().filter(|_| !is_id) {
        let what = format!(
            "`primaryKey` of `{}` makes it required, but only `headwater.factId` finds duplicates",
            fields[*index].name
        );
        reading.skip(&format!("{pointer}/properties/{index}/primaryKey"), what);
    }
}

fn owner(document: &Value) -> Option<String> {
    let team = document.get("team")?;
    if let Some(name) = text(team, "name") {
        return Some(name.to_owned());
    }
    let members = team.get("members").unwrap_or(team).as_array()?;
    let owner = members
        .iter()
        .find(|m| text(m, "role").is_some_and(|r| r.eq_ignore_ascii_case("owner")));
    let member = owner.or_else(|| members.first())?;
    text(member, "username")
        .or_else(|| text(member, "name"))
        .map(str::to_owned)
}

fn description(document: &Value, object: &Value) -> Option<String> {
    let purpose = || document.get("description").and_then(|d| text(d, "purpose"));
    text(object, "description")
        .or_else(purpose)
        .map(str::to_owned)
}

pub(super) fn tags(value: &Value) -> Vec<String> {
    let tags = value.get("tags").and_then(Value::as_array);
    let tags = tags.into_iter().flatten();
    tags.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Whether a field of this type can say when a fact happened.
pub(super) fn is_time(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Timestamp | DataType::Int64 | DataType::Date
    )
}
