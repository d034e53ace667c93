//! One property of a schema object: its type and the rules of its values.

use std::sync::Arc;

use serde_json::Value;

use super::read::{Reading, misplaced_words, read_fields, tags};
use super::rules::{Enumeration, Pattern, Rules, TextFormat, parse_decimal};
use super::types::{is_bare_decimal, parse_type};
use super::{FieldSpec, TYPE_DEPTH_MAX};
use crate::time::{TimeZone, parse_date, parse_timestamp};
use crate::{DataType, Field, Problem, Value as Bound};

/// Values of one enumeration.
const VALID_VALUES_MAX: usize = 100_000;

fn text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key).and_then(Value::as_str)
}

fn flag(value: &Value, key: &str) -> bool {
    value.get(key).and_then(Value::as_bool).unwrap_or(false)
}

/// Reads a property; none where its type is wrong, which was then reported.
pub(super) fn read_property(
    property: &Value,
    name: &str,
    pointer: &str,
    depth: usize,
    reading: &mut Reading<'_>,
) -> Option<FieldSpec> {
    if depth > TYPE_DEPTH_MAX {
        let problem = Problem::user(
            "too-deep",
            format!("Types are nested more than {TYPE_DEPTH_MAX} deep"),
        );
        reading.report(pointer, problem.hint("Flatten them"));
        return None;
    }
    misplaced_words(property, pointer, reading);
    let typed = read_type(property, pointer, depth, reading)?;
    let mut field = FieldSpec::new(name, typed.data_type);
    if !typed.members.is_empty() {
        field.members = typed.members;
    }
    field.primary_key = flag(property, "primaryKey");
    field.required = flag(property, "required") || field.primary_key;
    field.unique = flag(property, "unique");
    if depth > 0 && (field.unique || field.primary_key) {
        reading.skip(
            pointer,
            format!("uniqueness of `{name}`, which is part of another field"),
        );
    }
    field.description = text(property, "description").map(str::to_owned);
    field.tags = tags(property);
    field.time_zone = default_zone(property, pointer, reading);
    field.rules = read_options(property, &mut field, pointer, reading);
    if text(property, "logicalType") == Some("time") {
        field.rules.format = Some(TextFormat::Time);
    }
    read_quality(property, &mut field, pointer, reading);
    Some(field)
}

struct Typed {
    data_type: DataType,
    members: Vec<FieldSpec>,
}

fn plain(data_type: DataType) -> Option<Typed> {
    let members = Vec::new();
    Some(Typed { data_type, members })
}

fn read_type(
    property: &Value,
    pointer: &str,
    depth: usize,
    reading: &mut Reading<'_>,
) -> Option<Typed> {
    let physical_text = text(property, "physicalType").unwrap_or_default();
    let physical = parse_type(physical_text);
    match text(property, "logicalType") {
        Some("integer") => plain(DataType::Int64),
        Some("number") => match physical {
            Some(decimal @ DataType::Decimal { .. }) => plain(decimal),
            _ if is_bare_decimal(physical_text) => {
                let title = format!("`{physical_text}` does not say how many digits it has");
                let problem = Problem::user("bad-type", title)
                    .hint("Write `physicalType: decimal(18,4)` with digits in all and after the point, or `double`");
                reading.report(&format!("{pointer}/physicalType"), problem);
                None
            }
            _ => plain(DataType::Float64),
        },
        Some("string") if physical == Some(DataType::Bytes) => plain(DataType::Bytes),
        Some("string" | "time") => plain(DataType::String),
        Some("boolean") => plain(DataType::Bool),
        Some("date") => plain(DataType::Date),
        Some("timestamp") => plain(DataType::Timestamp),
        Some("array") => read_array(property, physical, pointer, depth, reading),
        Some("object") => read_struct(property, physical, pointer, reading),
        Some(other) => {
            let problem = Problem::user(
                "bad-type",
                format!("`{other}` is no logical type that is read"),
            );
            reading.report(
                &format!("{pointer}/logicalType"),
                problem.hint("Use one of ODCS v3.1"),
            );
            None
        }
        None if physical.is_some() => plain(physical?),
        None => {
            let problem = Problem::user("missing-type", "The field has no type")
                .hint("Add `logicalType`: string, integer, number, boolean, timestamp, date, array or object");
            reading.report(pointer, problem);
            None
        }
    }
}

fn read_array(
    property: &Value,
    physical: Option<DataType>,
    pointer: &str,
    depth: usize,
    reading: &mut Reading<'_>,
) -> Option<Typed> {
    if let Some(items) = property.get("items") {
        let item = read_property(
            items,
            "items",
            &format!("{pointer}/items"),
            depth + 1,
            reading,
        )?;
        return Some(Typed {
            data_type: DataType::List(Arc::new(item.data_type.clone())),
            members: vec![item],
        });
    }
    match physical {
        Some(list @ DataType::List(_)) => plain(list),
        _ => {
            let problem =
                Problem::user("missing-type", "The array does not say what its items are")
                    .hint("Add `items: {logicalType: string}`, or `physicalType: array<string>`");
            reading.report(pointer, problem);
            None
        }
    }
}

fn read_struct(
    property: &Value,
    physical: Option<DataType>,
    pointer: &str,
    reading: &mut Reading<'_>,
) -> Option<Typed> {
    if property.get("properties").is_some() {
        // Depth grows with every pointer segment pair; the YAML reader bounds it before we do.
        let members = read_fields(property, pointer, reading);
        let fields = members
            .iter()
            .map(|m| Field::new(Arc::clone(&m.name), m.data_type.clone()));
        return Some(Typed {
            data_type: DataType::Struct(fields.collect()),
            members,
        });
    }
    match physical {
        Some(nested @ (DataType::Map(_) | DataType::Struct(_))) => plain(nested),
        _ => {
            let problem = Problem::user(
                "missing-type",
                "The object does not say what its members are",
            )
            .hint("List them under `properties`, or write `physicalType: map<string,double>`");
            reading.report(pointer, problem);
            None
        }
    }
}

fn default_zone(property: &Value, pointer: &str, reading: &mut Reading<'_>) -> Option<TimeZone> {
    let name = text(property.get("logicalTypeOptions")?, "defaultTimezone")?;
    match name.parse() {
        Ok(zone) => Some(zone),
        Err(error) => {
            let at = format!("{pointer}/logicalTypeOptions/defaultTimezone");
            reading.report(
                &at,
                Problem::user("bad-value", error).hint("Use a name of the IANA database"),
            );
            None
        }
    }
}

fn read_options(
    property: &Value,
    field: &mut FieldSpec,
    pointer: &str,
    reading: &mut Reading<'_>,
) -> Rules {
    let mut rules = Rules::default();
    let Some(options) = property
        .get("logicalTypeOptions")
        .and_then(Value::as_object)
    else {
        return rules;
    };
    for (option, value) in options {
        let at = format!("{pointer}/logicalTypeOptions/{option}");
        let count = value.as_u64();
        match option.as_str() {
            "minimum" => rules.minimum = bound(value, field, Rounding::Up, &at, reading),
            "exclusiveMinimum" => {
                rules.exclusive_minimum = bound(value, field, Rounding::Down, &at, reading)
            }
            "maximum" => rules.maximum = bound(value, field, Rounding::Down, &at, reading),
            "exclusiveMaximum" => {
                rules.exclusive_maximum = bound(value, field, Rounding::Up, &at, reading)
            }
            "multipleOf" => rules.multiple_of = bound(value, field, Rounding::None, &at, reading),
            "minLength" => rules.min_length = count,
            "maxLength" => rules.max_length = count,
            "minItems" => rules.min_items = count,
            "maxItems" => rules.max_items = count,
            "minProperties" => rules.min_properties = count,
            "maxProperties" => rules.max_properties = count,
            "uniqueItems" => rules.unique_items = value.as_bool().unwrap_or(false),
            "pattern" => rules.pattern = pattern(value, &at, reading),
            "format" => read_format(
                value.as_str().unwrap_or_default(),
                field,
                &mut rules,
                &at,
                reading,
            ),
            "required" => require_members(value, field, &at, reading),
            "timezone" | "defaultTimezone" => {}
            _ => reading.skip(&at, format!("the option `{option}`")),
        }
    }
    check_order(&rules, &format!("{pointer}/logicalTypeOptions"), reading);
    rules
}

fn check_order(rules: &Rules, pointer: &str, reading: &mut Reading<'_>) {
    let least = rules.minimum.as_ref().or(rules.exclusive_minimum.as_ref());
    let most = rules.maximum.as_ref().or(rules.exclusive_maximum.as_ref());
    let values = least.zip(most).is_some_and(|(least, most)| least > most);
    let over = |least: Option<u64>, most: Option<u64>| least.zip(most).is_some_and(|(a, b)| a > b);
    let lengths = over(rules.min_length, rules.max_length)
        || over(rules.min_items, rules.max_items)
        || over(rules.min_properties, rules.max_properties);
    if values || lengths {
        let problem = Problem::user(
            "empty-range",
            "The least value is above the greatest: no value can pass",
        );
        reading.report(pointer, problem.hint("Swap the two"));
    }
}

/// How a bound with a fraction becomes one of integers, without changing which integers pass.
#[derive(Clone, Copy, PartialEq)]
enum Rounding {
    Up,
    Down,
    None,
}

fn bound(
    value: &Value,
    field: &FieldSpec,
    rounding: Rounding,
    at: &str,
    reading: &mut Reading<'_>,
) -> Option<Bound> {
    let bound = typed_bound(value, &field.data_type, field.time_zone.as_ref(), rounding);
    match &bound {
        Some(_) => {}
        None => {
            let title = format!("{value} is no bound for values of type {}", field.data_type);
            let hint = match field.data_type {
                DataType::Timestamp => {
                    "Write a quoted RFC 3339 time such as \"2013-01-01T00:00:00Z\""
                }
                DataType::Date => "Write a quoted date such as \"2013-01-01\"",
                _ => "Write a number of the field's type",
            };
            reading.report(at, Problem::user("bad-bound", title).hint(hint));
        }
    }
    bound
}

fn typed_bound(
    value: &Value,
    data_type: &DataType,
    zone: Option<&TimeZone>,
    rounding: Rounding,
) -> Option<Bound> {
    match (data_type, value) {
        (DataType::Int64, Value::Number(number)) => match number.as_i64() {
            Some(whole) => Some(Bound::Int(whole)),
            None => {
                let float = number.as_f64()?;
                let whole = match rounding {
                    Rounding::Up => float.ceil(),
                    Rounding::Down => float.floor(),
                    Rounding::None if float.fract() == 0.0 => float,
                    Rounding::None => return None,
                };
                // Beyond the type's range the cast gives its end.
                Some(Bound::Int(whole as i64))
            }
        },
        (DataType::Float64, Value::Number(number)) => number.as_f64().map(Bound::Float),
        (DataType::Decimal { .. }, Value::Number(number)) => {
            let text = number.to_string();
            let scale = text
                .split_once('.')
                .map_or(0, |(_, fraction)| fraction.len());
            let scale = i8::try_from(scale).ok()?;
            let unscaled = parse_decimal(&text, 38, scale)?;
            Some(Bound::Decimal { unscaled, scale })
        }
        (DataType::Timestamp, Value::String(text)) => {
            let zone = zone.cloned().unwrap_or_else(TimeZone::utc);
            parse_timestamp(text, Some(&zone))
                .ok()
                .map(Bound::Timestamp)
        }
        (DataType::Date, Value::String(text)) => parse_date(text).ok().map(Bound::Date),
        (DataType::String, Value::String(text)) => Some(Bound::string(text)),
        (DataType::Bool, Value::Bool(value)) => Some(Bound::Bool(*value)),
        _ => None,
    }
}

fn pattern(value: &Value, at: &str, reading: &mut Reading<'_>) -> Option<Pattern> {
    match Pattern::new(value.as_str().unwrap_or_default()) {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            let problem = Problem::user(
                "bad-pattern",
                "The pattern is no regular expression that can be checked",
            )
            .detail(error)
            .hint("Look-around and back-references are not supported; quote the pattern in YAML");
            reading.report(at, problem);
            None
        }
    }
}

fn read_format(
    format: &str,
    field: &FieldSpec,
    rules: &mut Rules,
    at: &str,
    reading: &mut Reading<'_>,
) {
    match (&field.data_type, format) {
        (DataType::String, name) => match TextFormat::parse(name) {
            Some(format) => rules.format = Some(format),
            None => reading.skip(at, format!("the format `{name}`")),
        },
        (DataType::Int64, name) => {
            // The range of the Rust type of that name, within that of int64.
            let bits = name.get(1..).and_then(|bits| bits.parse::<u32>().ok());
            let bits = bits.filter(|bits| *bits > 0).unwrap_or(64);
            let signed = name.starts_with('i');
            let most = if bits >= 64 {
                i64::MAX
            } else if signed {
                (1 << (bits - 1)) - 1
            } else {
                (1 << bits) - 1
            };
            let least = if signed { -most - 1 } else { 0 };
            if rules.minimum.is_none() && least > i64::MIN {
                rules.minimum = Some(Bound::Int(least));
            }
            if rules.maximum.is_none() && most < i64::MAX {
                rules.maximum = Some(Bound::Int(most));
            }
            if bits > 64 || (bits == 64 && !signed) {
                reading.skip(at, format!("`{name}` beyond the range of int64"));
            }
        }
        (DataType::Timestamp | DataType::Date, _) => {
            reading.skip(
                at,
                "the format of times: RFC 3339 is read, whatever the format says".to_owned(),
            );
        }
        _ => {}
    }
}

fn require_members(value: &Value, field: &mut FieldSpec, at: &str, reading: &mut Reading<'_>) {
    for name in value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
    {
        match field.members.iter_mut().find(|m| m.name.as_ref() == name) {
            Some(member) => member.required = true,
            None => {
                let problem = Problem::user(
                    "unknown-column",
                    format!("The object has no member `{name}`"),
                );
                reading.report(at, problem.hint("Name one of its `properties`"));
            }
        }
    }
}

/// Rules of the standard's library that a row can be checked against; others are kept and named.
fn read_quality(property: &Value, field: &mut FieldSpec, pointer: &str, reading: &mut Reading<'_>) {
    let rules = property.get("quality").and_then(Value::as_array);
    for (index, rule) in rules.into_iter().flatten().enumerate() {
        let at = format!("{pointer}/quality/{index}");
        let none_allowed = rule.get("mustBe").and_then(Value::as_i64) == Some(0);
        let arguments = rule.get("arguments");
        let argument = |name: &str| arguments.and_then(|a| a.get(name));
        match text(rule, "metric") {
            Some("nullValues") if none_allowed => field.required = true,
            Some("invalidValues") if none_allowed && argument("validValues").is_some() => {
                let values = argument("validValues").cloned().unwrap_or_default();
                valid_values(
                    &values,
                    field,
                    &format!("{at}/arguments/validValues"),
                    reading,
                );
            }
            Some("invalidValues") if none_allowed && argument("pattern").is_some() => {
                let value = argument("pattern").cloned().unwrap_or_default();
                field.rules.pattern = pattern(&value, &format!("{at}/arguments/pattern"), reading);
            }
            Some(metric) => {
                reading.skip(&at, format!("the quality rule `{metric}` with these terms"))
            }
            None => {
                let kind = text(rule, "type").unwrap_or("library");
                reading.skip(&at, format!("a quality rule of type `{kind}`"));
            }
        }
    }
}

fn valid_values(values: &Value, field: &mut FieldSpec, at: &str, reading: &mut Reading<'_>) {
    let items = values.as_array().map_or(&[][..], Vec::as_slice);
    if items.is_empty() || items.len() > VALID_VALUES_MAX {
        let problem = Problem::user(
            "bad-value",
            format!("{} values are allowed here", items.len()),
        );
        reading.report(at, problem.hint(format!("List 1 to {VALID_VALUES_MAX}")));
        return;
    }
    let mut allowed = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        match typed_bound(
            item,
            &field.data_type,
            field.time_zone.as_ref(),
            Rounding::None,
        ) {
            Some(value) => allowed.push(value),
            None => {
                let title = format!("{item} is no value of type {}", field.data_type);
                let problem = Problem::user("wrong-type", title)
                    .hint("List values of the field's type; quote strings");
                reading.report(&format!("{at}/{index}"), problem);
            }
        }
    }
    field.rules.enumeration = Some(Enumeration::new(allowed));
}
