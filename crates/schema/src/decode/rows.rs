//! Rows on their way into a batch: what every format has in common. A row's values are pushed onto
//! the columns, then the row is committed, which checks it against the contract's rules, or undone.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch, RecordBatchOptions, StringArray};

use super::columns::{Blobs, Column, Values};
use super::identity::{cell_text, join_id_parts};
use super::{DecodeLimits, Decoded, RejectedRow};
use crate::contract::{Cell, Rules, Violation};
use crate::{Contract, FactBatch, FieldSpec, Micros, Problem, Value};

/// Why a row is not taken.
#[derive(Debug)]
pub struct Reject {
    pub field: Option<String>,
    pub rule: &'static str,
    pub reason: String,
}

impl Reject {
    pub fn new(rule: &'static str, reason: impl Into<String>) -> Self {
        Self {
            field: None,
            rule,
            reason: reason.into(),
        }
    }

    /// Says that it happened in `name`, from the inside out.
    pub fn within(mut self, name: &str) -> Self {
        self.field = Some(match self.field {
            None => name.to_owned(),
            Some(inner) if inner.starts_with('[') => format!("{name}{inner}"),
            Some(inner) => format!("{name}.{inner}"),
        });
        self
    }
}

impl From<Violation> for Reject {
    fn from(violation: Violation) -> Self {
        Self::new(violation.rule, violation.reason)
    }
}

/// Fields of one row that the contract doesn't know: path and JSON text.
pub type Unknown = Vec<(String, String)>;

pub struct Rows<'c> {
    pub contract: &'c Contract,
    pub limits: &'c DecodeLimits,
    pub columns: Vec<Column>,
    /// Whether a field's name is written in JSON without escapes.
    pub plain_names: Vec<bool>,
    /// Of the row that is being read.
    pub unknown: Unknown,
    rows_per_batch: usize,
    sink: &'c mut dyn FnMut(Decoded) -> Result<(), Problem>,
    /// Fields that have more than a type to check.
    checks: Vec<(usize, Check<'c>)>,
    event_times: Vec<Micros>,
    fact_ids: Blobs,
    unknown_texts: Vec<Option<String>>,
    unknown_fields: u64,
    row_numbers: Vec<usize>,
    rejected: Vec<RejectedRow>,
    /// Rows of the whole body.
    rows: usize,
    batches: usize,
}

impl<'c> Rows<'c> {
    pub fn new(
        contract: &'c Contract,
        limits: &'c DecodeLimits,
        rows_per_batch: usize,
        sink: &'c mut dyn FnMut(Decoded) -> Result<(), Problem>,
    ) -> Self {
        let checks = contract.fields.iter().enumerate();
        Self {
            contract,
            limits,
            columns: new_columns(contract),
            plain_names: contract.fields.iter().map(|f| is_plain(&f.name)).collect(),
            unknown: Vec::new(),
            rows_per_batch,
            sink,
            checks: checks
                .filter_map(|(index, field)| Some((index, Check::of(field)?)))
                .collect(),
            event_times: Vec::new(),
            fact_ids: Blobs::default(),
            unknown_texts: Vec::new(),
            unknown_fields: 0,
            row_numbers: Vec::new(),
            rejected: Vec::new(),
            rows: 0,
            batches: 0,
        }
    }

    /// Rows that were taken into the present batch.
    pub fn taken(&self) -> usize {
        self.event_times.len()
    }

    /// Ends a row: takes it if it was read and keeps the contract, else undoes it and keeps `raw`.
    pub fn end_row<'r>(
        &mut self,
        read: Result<(), Reject>,
        raw: impl FnOnce() -> std::borrow::Cow<'r, str>,
    ) -> Result<(), Problem> {
        if self.rows >= self.limits.rows_max {
            return Err(Problem::user("too-many-rows", "The body has too many rows")
                .detail(format!("`rows_max` is {}", self.limits.rows_max))
                .hint("Send it in several parts"));
        }
        if let Err(reject) = read.and_then(|()| self.take_row()) {
            let taken = self.taken();
            self.columns
                .iter_mut()
                .for_each(|column| column.truncate(taken));
            self.rejected.push(RejectedRow {
                row: self.rows,
                field: reject.field,
                rule: reject.rule.to_owned(),
                reason: reject.reason,
                raw: cut(&raw(), self.limits.row_bytes_max).to_owned(),
            });
        }
        self.unknown.clear();
        self.rows += 1;
        if self.taken() + self.rejected.len() >= self.rows_per_batch {
            self.flush()?;
        }
        Ok(())
    }

    fn take_row(&mut self) -> Result<(), Reject> {
        let index = self.taken();
        for column in &mut self.columns {
            if column.len() == index {
                column.push_null();
            }
        }
        for (field, check) in &self.checks {
            check
                .value(&self.columns[*field], index)
                .map_err(|reject| reject.within(&self.contract.fields[*field].name))?;
        }
        let event_time = self.event_time(index)?;
        let unknown = unknown_text(&self.unknown)?;
        push_id(
            &self.contract.fact_id,
            &self.columns,
            index,
            &mut self.fact_ids,
        )?;
        if unknown.is_some() || !self.unknown_texts.is_empty() {
            self.unknown_texts.resize(index, None);
            self.unknown_texts.push(unknown);
        }
        self.unknown_fields += self.unknown.len() as u64;
        self.event_times.push(event_time);
        self.row_numbers.push(self.rows);
        Ok(())
    }

    fn event_time(&self, index: usize) -> Result<Micros, Reject> {
        let spec = &self.contract.fields[self.contract.event_time];
        let time = match self.columns[self.contract.event_time].cell(index) {
            Cell::Timestamp(time) => Some(time),
            Cell::Int(value) => self
                .contract
                .time_unit
                .and_then(|unit| unit.to_micros(value)),
            Cell::Date(date) => self
                .contract
                .zone_of(spec)
                .and_then(|zone| zone.start_of_day(date)),
            // Of rows that are no facts: a contract's own event time is always required.
            Cell::Null if !spec.required => Some(0),
            _ => None,
        };
        time.ok_or_else(|| {
            Reject::new("eventTime", "The event time is beyond what times can be")
                .within(&spec.name)
        })
    }

    pub fn finish(mut self) -> Result<(), Problem> {
        if self.batches == 0 || self.taken() + self.rejected.len() > 0 {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Problem> {
        let columns = std::mem::replace(&mut self.columns, new_columns(self.contract));
        let arrays = columns
            .into_iter()
            .map(Column::finish)
            .collect::<Result<Vec<_>, _>>()?;
        let event_times = std::mem::take(&mut self.event_times);
        let options = RecordBatchOptions::new().with_row_count(Some(event_times.len()));
        let columns =
            RecordBatch::try_new_with_options(self.contract.arrow_schema(), arrays, &options)
                .map_err(|e| {
                    Problem::internal("decode", "Decoded columns don't fit together").detail(e)
                })?;
        let ids = std::mem::take(&mut self.fact_ids);
        let fact_ids = match self.contract.fact_id.is_empty() {
            true => None,
            false => Some(texts(ids)?),
        };
        let mut unknown = std::mem::take(&mut self.unknown_texts);
        let unknown_fields = (!unknown.is_empty()).then(|| {
            unknown.resize(event_times.len(), None);
            StringArray::from(unknown)
        });
        self.batches += 1;
        (self.sink)(Decoded {
            batch: FactBatch {
                contract: Arc::clone(&self.contract.name),
                columns,
                event_times,
                fact_ids,
                unknown_fields,
            },
            row_numbers: std::mem::take(&mut self.row_numbers),
            rejected: std::mem::take(&mut self.rejected),
            unknown_fields: std::mem::take(&mut self.unknown_fields),
        })
    }
}

/// Appends the id that a row's columns make, where the contract names some.
fn push_id(
    fact_id: &[usize],
    columns: &[Column],
    row: usize,
    ids: &mut Blobs,
) -> Result<(), Reject> {
    let text = |field: &usize| {
        let none = || Reject::new("factId", "A part of the fact id is missing");
        cell_text(&columns[*field].cell(row)).ok_or_else(none)
    };
    match fact_id {
        [] => {}
        [one] => ids.push(text(one)?.as_bytes()),
        several => {
            let parts = several.iter().map(text).collect::<Result<Vec<_>, _>>()?;
            ids.push(join_id_parts(&parts).as_bytes());
        }
    }
    Ok(())
}

fn is_plain(name: &str) -> bool {
    !name.bytes().any(|b| matches!(b, b'"' | b'\\' | 0..=0x1f))
}

fn new_columns(contract: &Contract) -> Vec<Column> {
    contract
        .fields
        .iter()
        .map(|f| Column::new(&f.data_type))
        .collect()
}

fn texts(blobs: Blobs) -> Result<StringArray, Problem> {
    let mut column = Column::new(&crate::DataType::String);
    for _ in 0..blobs.len() {
        column.pushed();
    }
    column.values = Values::String(blobs);
    Ok(column.finish()?.as_string::<i32>().clone())
}

/// At most `bytes` bytes of a text, cut between characters.
pub fn cut(text: &str, bytes: usize) -> &str {
    if text.len() <= bytes {
        return text;
    }
    let end = (0..=bytes).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

/// The unknown fields of a row as one JSON object.
fn unknown_text(unknown: &Unknown) -> Result<Option<String>, Reject> {
    if unknown.is_empty() {
        return Ok(None);
    }
    let mut names: Vec<&str> = unknown.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(duplicate_key().within(pair[0]));
    }
    let mut text = String::from("{");
    for (index, (name, value)) in unknown.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        text.push_str(&serde_json::Value::from(name.as_str()).to_string());
        text.push(':');
        text.push_str(value);
    }
    text.push('}');
    Ok(Some(text))
}

pub fn duplicate_key() -> Reject {
    Reject::new("duplicate-key", "The key occurs twice in the row")
}

/// What is checked of a field beyond its type, looked up once and not per row.
struct Check<'c> {
    required: bool,
    rules: Option<&'c Rules>,
    unique_items: bool,
    /// Members of a struct by their place, or the items of a list at 0.
    members: Vec<(usize, &'c str, Check<'c>)>,
}

impl<'c> Check<'c> {
    /// None where nothing is checked.
    fn of(spec: &'c FieldSpec) -> Option<Self> {
        let members = spec.members.iter().enumerate();
        spec.is_checked().then(|| Self {
            required: spec.required,
            rules: Some(&spec.rules).filter(|rules| !rules.is_empty()),
            unique_items: spec.rules.unique_items,
            members: members
                .filter_map(|(place, m)| Some((place, m.name.as_ref(), Self::of(m)?)))
                .collect(),
        })
    }

    /// Checks one value and all within it.
    fn value(&self, column: &Column, index: usize) -> Result<(), Reject> {
        if !column.is_valid(index) {
            return match self.required {
                true => Err(Reject::new("required", "The value is missing")),
                false => Ok(()),
            };
        }
        if let Some(rules) = self.rules {
            rules.check(&column.cell(index))?;
        }
        match &column.values {
            Values::Struct(members) => {
                for (place, name, check) in &self.members {
                    check
                        .value(&members[*place].1, index)
                        .map_err(|reject| reject.within(name))?;
                }
            }
            Values::List { items, .. } => {
                let places = column.items(index);
                if self.unique_items {
                    check_unique(items, places.clone())?;
                }
                for (_, _, check) in &self.members {
                    for (position, place) in places.clone().enumerate() {
                        check
                            .value(items, place)
                            .map_err(|reject| reject.within(&format!("[{position}]")))?;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}

fn check_unique(items: &Column, places: std::ops::Range<usize>) -> Result<(), Reject> {
    let mut seen = HashSet::new();
    for place in places {
        let value = match items.cell(place) {
            Cell::Bool(v) => Value::Bool(v),
            Cell::Int(v) => Value::Int(v),
            Cell::Float(v) => Value::Float(v),
            Cell::Decimal { unscaled, scale } => Value::Decimal { unscaled, scale },
            Cell::Timestamp(v) => Value::Timestamp(v),
            Cell::Date(v) => Value::Date(v),
            Cell::String(v) => Value::string(v),
            Cell::Bytes(v) => Value::Bytes(Arc::from(v)),
            Cell::Null => Value::Null,
            Cell::Nested(_) => continue,
        };
        if !seen.insert(value) {
            let reason = format!("{} occurs twice in the list", items.cell(place));
            return Err(Reject::new("uniqueItems", reason));
        }
    }
    Ok(())
}
