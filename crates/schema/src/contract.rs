//! Data contracts: what the facts of one kind look like, in the Open Data Contract Standard v3.1.
//!
//! A document is first validated against the standard's own JSON Schema (`standard.rs`), then read
//! (`read.rs`, `property.rs`, `types.rs`, `rules.rs`), with Headwater's own words from the
//! `customProperties` of the schema object (`custom.rs`). Every mistake becomes a [`Problem`] with
//! file, line and column; reading goes on, so that all of them are seen at once.

mod custom;
mod freshness;
mod nearest;
mod property;
mod read;
mod rules;
#[cfg(feature = "standard")]
mod standard;
#[cfg(not(feature = "standard"))]
#[path = "contract/taken_as_valid.rs"]
mod standard;
mod types;

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};

use crate::time::{Duration, TimeUnit, TimeZone};
use crate::yaml::YamlDocument;
use crate::{DataType, Field, Location, Problem};

pub use nearest::{nearest, suggest};
pub(crate) use rules::format_decimal;
pub use rules::{Cell, Enumeration, Pattern, Rules, TextFormat, Violation, parse_decimal};
#[cfg(feature = "standard")]
pub use standard::ODCS_JSON_SCHEMA;
pub use types::parse_type;

/// Characters of the names of contracts and fields.
pub const NAME_LENGTH_MAX: usize = 128;
/// Whether a field may be called so.
pub(crate) fn is_usable_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= NAME_LENGTH_MAX && !name.chars().any(char::is_control)
}

/// Fields of one contract.
pub const FIELDS_MAX: usize = 4096;
/// Types within types.
pub const TYPE_DEPTH_MAX: usize = 16;

/// What the facts of one kind look like.
#[derive(Debug, Clone)]
pub struct Contract {
    /// The schema object's name; how the API calls the contract.
    pub name: Arc<str>,
    pub version: semver::Version,
    /// The document's `id`.
    pub document_id: String,
    pub owner: Option<String>,
    pub description: Option<String>,
    pub tags: Vec<String>,
    pub status: String,
    pub fields: Vec<FieldSpec>,
    /// The field that says when a fact happened.
    pub event_time: usize,
    /// The fields that identify a fact; none where the log assigns ids.
    pub fact_id: Vec<usize>,
    /// The unit of times that come as integers.
    pub time_unit: Option<TimeUnit>,
    /// The zone of times that come without an offset.
    pub time_zone: Option<TimeZone>,
    /// For how long an id is remembered; none: for ever.
    pub dedup_window: Option<Duration>,
    /// For how long facts are kept; none: for ever.
    pub retention: Option<Duration>,
    /// How old the newest fact may be before the source counts as stale; none: it never does.
    pub freshness: Option<Duration>,
    /// What the document asks for that is kept but not checked on rows.
    pub not_enforced: Vec<NotEnforced>,
    /// The whole document, for the registry to store and parse again.
    pub source: serde_json::Value,
    schema: SchemaRef,
}

/// A part of a contract that no row is checked against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotEnforced {
    /// The path in the document.
    pub path: String,
    pub what: String,
    pub location: Option<Location>,
}

/// A field of a contract, a member of a struct, or the items of a list.
#[derive(Debug, Clone)]
pub struct FieldSpec {
    pub name: Arc<str>,
    pub data_type: DataType,
    /// Whether null breaks the contract. Always so for event time and fact id.
    pub required: bool,
    pub unique: bool,
    pub primary_key: bool,
    pub rules: Rules,
    /// The zone of this field's times without an offset (`defaultTimezone`), else the contract's.
    pub time_zone: Option<TimeZone>,
    pub description: Option<String>,
    pub tags: Vec<String>,
    /// The members of a struct, or the one kind of item of a list; empty for all other types.
    pub members: Vec<FieldSpec>,
}

impl FieldSpec {
    /// A field without rules.
    pub fn new(name: impl Into<Arc<str>>, data_type: DataType) -> Self {
        let members = match &data_type {
            DataType::Struct(fields) => fields
                .iter()
                .map(|f| Self::new(Arc::clone(&f.name), f.data_type.clone()))
                .collect(),
            DataType::List(item) => vec![Self::new("items", item.as_ref().clone())],
            _ => Vec::new(),
        };
        Self {
            name: name.into(),
            data_type,
            required: false,
            unique: false,
            primary_key: false,
            rules: Rules::default(),
            time_zone: None,
            description: None,
            tags: Vec::new(),
            members,
        }
    }

    /// Whether anything but its type is checked, here or within.
    pub fn is_checked(&self) -> bool {
        self.required || !self.rules.is_empty() || self.members.iter().any(Self::is_checked)
    }
}

impl Contract {
    /// What rows that are no facts look like. Nothing is required of them, integer times are microseconds, and their event
    /// time is a column of its own behind theirs, which no row has.
    pub fn of_rows(columns: Vec<Field>) -> Self {
        let mut time = "no_time".to_owned();
        while columns.iter().any(|c| *c.name == *time) {
            time.push('_');
        }
        let event_time = columns.len();
        let columns = columns.into_iter();
        let columns = columns.chain([Field::new(time, DataType::Timestamp)]);
        let fields: Vec<FieldSpec> = columns
            .map(|c| FieldSpec::new(c.name, c.data_type))
            .collect();
        Self {
            name: "rows".into(),
            version: semver::Version::new(1, 0, 0),
            document_id: String::new(),
            owner: None,
            description: None,
            tags: Vec::new(),
            status: String::new(),
            schema: schema_of(&fields),
            fields,
            event_time,
            fact_id: Vec::new(),
            time_unit: Some(TimeUnit::Micros),
            time_zone: None,
            dedup_window: None,
            retention: None,
            freshness: None,
            not_enforced: Vec::new(),
            source: serde_json::Value::Null,
        }
    }

    /// All contracts of an ODCS document, one per schema object, or all that is wrong with it.
    /// `locate` gives the place of a JSON pointer, where the document came from a file.
    pub fn parse_documents(
        document: &serde_json::Value,
        locate: &dyn Fn(&str) -> Option<Location>,
    ) -> Result<Vec<Self>, Vec<Problem>> {
        read::read_document(document, locate)
    }

    /// All contracts of a YAML file.
    pub fn parse_yaml(file: &str, text: &str) -> Result<Vec<Self>, Vec<Problem>> {
        let documents = YamlDocument::parse_all(file, text).map_err(|p| vec![p])?;
        let (mut contracts, mut problems) = (Vec::new(), Vec::new());
        for document in documents {
            let locate = |pointer: &str| Some(document.locate(pointer));
            match Self::parse_documents(&document.value, &locate) {
                Ok(more) => contracts.extend(more),
                Err(more) => problems.extend(more),
            }
        }
        if problems.is_empty() {
            Ok(contracts)
        } else {
            Err(problems)
        }
    }

    /// The Arrow schema of the contract's columns; all are nullable, so that a later version may
    /// relax what is required.
    pub fn arrow_schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    pub fn field_index(&self, name: &str) -> Option<usize> {
        self.fields
            .iter()
            .position(|field| field.name.as_ref() == name)
    }

    pub fn field(&self, name: &str) -> Option<&FieldSpec> {
        self.fields.iter().find(|field| field.name.as_ref() == name)
    }

    /// Names and types of the columns.
    pub fn fields_as(&self) -> Vec<Field> {
        let field = |f: &FieldSpec| Field::new(Arc::clone(&f.name), f.data_type.clone());
        self.fields.iter().map(field).collect()
    }

    /// The zone of a field's times that have no offset.
    pub fn zone_of<'a>(&'a self, field: &'a FieldSpec) -> Option<&'a TimeZone> {
        field.time_zone.as_ref().or(self.time_zone.as_ref())
    }
}

fn schema_of(fields: &[FieldSpec]) -> SchemaRef {
    let fields = fields
        .iter()
        .map(|f| arrow::datatypes::Field::new(f.name.as_ref(), f.data_type.to_arrow(), true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

#[cfg(test)]
mod tests;
