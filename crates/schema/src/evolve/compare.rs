//! The differences between two versions of a contract, each with the version it asks for.

use std::cmp::Ordering;

use super::{Bump, Change};
use crate::contract::{Rules, format_decimal};
use crate::time::Duration;
use crate::{Contract, DataType, FieldSpec, Value};

/// Every difference that matters, in the order of the fields.
pub fn compare(old: &Contract, new: &Contract) -> Vec<Change> {
    let mut changes = Changes::default();
    compare_contracts(old, new, &mut changes);
    compare_fields(&old.fields, &new.fields, "", &mut changes);
    if changes.0.is_empty() && meaning(old) != meaning(new) {
        changes.add(
            "",
            "Descriptions or other notes changed.",
            Bump::Patch,
            "No fact is affected.",
        );
    }
    changes.0
}

/// The document without its version, and without the schema objects that are other contracts.
fn meaning(contract: &Contract) -> serde_json::Value {
    let mut source = contract.source.clone();
    if let Some(object) = source.as_object_mut() {
        object.remove("version");
    }
    if let Some(objects) = source["schema"].as_array_mut() {
        objects.retain(|object| object["name"].as_str() == Some(&*contract.name));
    }
    source
}

#[derive(Default)]
struct Changes(Vec<Change>);

impl Changes {
    fn add(&mut self, field: &str, what: impl Into<String>, bump: Bump, why: impl Into<String>) {
        self.0.push(Change {
            field: field.to_owned(),
            what: what.into(),
            compatible: bump != Bump::Major,
            bump,
            why: why.into(),
        });
    }

    fn tightened(&mut self, field: &str, what: String) {
        self.add(
            field,
            what,
            Bump::Major,
            "Rows that were accepted so far would be rejected.",
        );
    }

    fn relaxed(&mut self, field: &str, what: String) {
        self.add(
            field,
            what,
            Bump::Minor,
            "Every row that was accepted so far still is.",
        );
    }
}

fn names(contract: &Contract, indexes: &[usize]) -> String {
    let names = indexes.iter().filter_map(|i| contract.fields.get(*i));
    names
        .map(|f| f.name.as_ref())
        .collect::<Vec<_>>()
        .join(", ")
}

fn compare_contracts(old: &Contract, new: &Contract, changes: &mut Changes) {
    let (was, is) = (names(old, &[old.event_time]), names(new, &[new.event_time]));
    if was != is {
        let what = format!("The event time is `{is}` and was `{was}`.");
        changes.add(
            "",
            what,
            Bump::Major,
            "Old and new facts would be ordered by different times.",
        );
    }
    let (was, is) = (names(old, &old.fact_id), names(new, &new.fact_id));
    if was != is {
        let shown = |id: &str| {
            if id.is_empty() {
                "assigned by the log".to_owned()
            } else {
                format!("`{id}`")
            }
        };
        let what = format!("The fact id is {} and was {}.", shown(&is), shown(&was));
        changes.add(
            "",
            what,
            Bump::Major,
            "A fact sent again under the new id would count twice.",
        );
    }
    let unit = |c: &Contract| c.time_unit.map(|u| u.to_string());
    compare_reading("", "time unit", unit(old), unit(new), changes);
    let zone = |c: &Contract| c.time_zone.as_ref().map(|z| z.name().to_owned());
    compare_reading("", "time zone", zone(old), zone(new), changes);
    compare_retention(old.retention, new.retention, changes);
    if old.dedup_window != new.dedup_window {
        let what = format!(
            "The dedup window is {} and was {}.",
            length(new.dedup_window),
            length(old.dedup_window)
        );
        changes.add(
            "",
            what,
            Bump::Minor,
            "Facts in the log stay; only later repeats are judged by it.",
        );
    }
    if (&old.owner, &old.status, &old.tags, &old.description)
        != (&new.owner, &new.status, &new.tags, &new.description)
    {
        let what = "Owner, status, tags or description of the contract changed.";
        changes.add("", what, Bump::Patch, "No fact is affected.");
    }
}

fn length(duration: Option<Duration>) -> String {
    duration.map_or_else(|| "unlimited".to_owned(), |d| d.to_string())
}

fn compare_retention(old: Option<Duration>, new: Option<Duration>, changes: &mut Changes) {
    let micros = |d: Option<Duration>| d.map_or(i64::MAX, Duration::micros);
    let what = format!("The retention is {} and was {}.", length(new), length(old));
    match micros(new).cmp(&micros(old)) {
        Ordering::Less => changes.add(
            "",
            what,
            Bump::Major,
            "Facts that could be read so far would be dropped.",
        ),
        Ordering::Greater => changes.add("", what, Bump::Minor, "Facts are kept longer."),
        Ordering::Equal => {}
    }
}

/// A unit or zone by which values are read.
fn compare_reading(
    field: &str,
    what: &str,
    old: Option<String>,
    new: Option<String>,
    changes: &mut Changes,
) {
    match (old, new) {
        (None, Some(is)) => changes.relaxed(field, format!("A {what} was added: {is}.")),
        (Some(was), None) => changes.tightened(field, format!("The {what} {was} was removed.")),
        (Some(was), Some(is)) if was != is => {
            let why = "The same row would be read as another time.";
            changes.add(
                field,
                format!("The {what} is {is} and was {was}."),
                Bump::Major,
                why,
            );
        }
        _ => {}
    }
}

fn compare_fields(old: &[FieldSpec], new: &[FieldSpec], parent: &str, changes: &mut Changes) {
    let path = |field: &FieldSpec| match parent {
        "" => field.name.to_string(),
        parent => format!("{parent}.{}", field.name),
    };
    for was in old {
        match new.iter().find(|is| is.name == was.name) {
            Some(is) => compare_field(was, is, &path(is), changes),
            None => {
                let what = format!("The field `{}` was removed.", path(was));
                let why = "Readers lose it; senders that still send it send an unknown field. A renamed field is one that was removed and one that was added.";
                changes.add(&path(was), what, Bump::Major, why);
            }
        }
    }
    for is in new
        .iter()
        .filter(|is| !old.iter().any(|was| was.name == is.name))
    {
        let path = path(is);
        if is.required {
            let what = format!("The required field `{path}` was added.");
            changes.add(
                &path,
                what,
                Bump::Major,
                "Rows without it would be rejected, and old facts don't have it.",
            );
        } else {
            let what = format!("The optional field `{path}` was added.");
            changes.add(&path, what, Bump::Minor, "Old facts read as null there.");
        }
    }
    let order = |fields: &[FieldSpec], others: &[FieldSpec]| {
        let shared = fields
            .iter()
            .filter(|f| others.iter().any(|o| o.name == f.name));
        shared.map(|f| f.name.clone()).collect::<Vec<_>>()
    };
    if order(old, new) != order(new, old) {
        changes.add(
            parent,
            "The order of fields changed.",
            Bump::Patch,
            "Fields are found by name.",
        );
    }
}

fn compare_field(old: &FieldSpec, new: &FieldSpec, path: &str, changes: &mut Changes) {
    compare_types(old, new, path, changes);
    match (old.required, new.required) {
        (false, true) => changes.tightened(path, format!("`{path}` is now required.")),
        (true, false) => changes.relaxed(path, format!("`{path}` is no longer required.")),
        _ => {}
    }
    let zone = |f: &FieldSpec| f.time_zone.as_ref().map(|z| z.name().to_owned());
    compare_reading(
        path,
        &format!("time zone of `{path}`"),
        zone(old),
        zone(new),
        changes,
    );
    if old.data_type == new.data_type {
        compare_rules(&old.rules, &new.rules, path, changes);
    }
    if (&old.description, &old.tags) != (&new.description, &new.tags) {
        let what = format!("Description or tags of `{path}` changed.");
        changes.add(path, what, Bump::Patch, "No fact is affected.");
    }
}

fn compare_types(old: &FieldSpec, new: &FieldSpec, path: &str, changes: &mut Changes) {
    match (&old.data_type, &new.data_type) {
        (DataType::Struct(_), DataType::Struct(_)) => {
            compare_fields(&old.members, &new.members, path, changes);
        }
        (DataType::List(_), DataType::List(_)) => {
            if let (Some(was), Some(is)) = (old.members.first(), new.members.first()) {
                compare_field(was, is, &format!("{path}[]"), changes);
            }
        }
        (was, is) if was == is => {}
        (was, is) => {
            let what = format!("The type of `{path}` is {is} and was {was}.");
            let (bump, why) = type_change(was, is);
            changes.add(path, what, bump, why);
        }
    }
}

fn type_change(old: &DataType, new: &DataType) -> (Bump, &'static str) {
    const LOSSLESS: &str = "Every old value is one of the new type.";
    const WHOLE_DIGITS_OF_INT64: i16 = 19;
    let whole = |precision: u8, scale: i8| i16::from(precision) - i16::from(scale);
    match (old, new) {
        (DataType::Int64, DataType::Float64) => (
            Bump::Major,
            "Old integers are read as floats: beyond 2^53 they lose digits, and sums are no integers any more.",
        ),
        (DataType::Int64, DataType::Decimal { precision, scale })
            if whole(*precision, *scale) >= WHOLE_DIGITS_OF_INT64 =>
        {
            (Bump::Minor, LOSSLESS)
        }
        (
            DataType::Decimal {
                precision: p,
                scale: s,
            },
            DataType::Decimal { precision, scale },
        ) if scale >= s && whole(*precision, *scale) >= whole(*p, *s) => (Bump::Minor, LOSSLESS),
        (DataType::Map(was), DataType::Map(is)) => type_change(was, is),
        _ => (
            Bump::Major,
            "Old facts read as null there wherever their value is none of the new type.",
        ),
    }
}

fn compare_rules(old: &Rules, new: &Rules, path: &str, changes: &mut Changes) {
    let bounds = [
        ("minimum", &old.minimum, &new.minimum, Ordering::Greater),
        (
            "exclusiveMinimum",
            &old.exclusive_minimum,
            &new.exclusive_minimum,
            Ordering::Greater,
        ),
        ("maximum", &old.maximum, &new.maximum, Ordering::Less),
        (
            "exclusiveMaximum",
            &old.exclusive_maximum,
            &new.exclusive_maximum,
            Ordering::Less,
        ),
    ];
    for (rule, was, is, tighter) in bounds {
        compare_limit(
            rule,
            path,
            was.as_ref().zip(is.as_ref()).map(|(a, b)| b.cmp(a)),
            tighter,
            (was.as_ref().map(text), is.as_ref().map(text)),
            changes,
        );
    }
    let counts = [
        (
            "minLength",
            old.min_length,
            new.min_length,
            Ordering::Greater,
        ),
        ("maxLength", old.max_length, new.max_length, Ordering::Less),
        ("minItems", old.min_items, new.min_items, Ordering::Greater),
        ("maxItems", old.max_items, new.max_items, Ordering::Less),
        (
            "minProperties",
            old.min_properties,
            new.min_properties,
            Ordering::Greater,
        ),
        (
            "maxProperties",
            old.max_properties,
            new.max_properties,
            Ordering::Less,
        ),
    ];
    for (rule, was, is, tighter) in counts {
        let order = was.zip(is).map(|(a, b)| b.cmp(&a));
        compare_limit(
            rule,
            path,
            order,
            tighter,
            (was.map(|v| v.to_string()), is.map(|v| v.to_string())),
            changes,
        );
    }
    let pattern = |r: &Rules| r.pattern.as_ref().map(|p| p.as_str().to_owned());
    let format = |r: &Rules| r.format.map(|f| f.as_str().to_owned());
    let multiple = |r: &Rules| r.multiple_of.as_ref().map(text);
    let unique = |r: &Rules| r.unique_items.then(|| "true".to_owned());
    for (rule, was, is) in [
        ("pattern", pattern(old), pattern(new)),
        ("format", format(old), format(new)),
        ("multipleOf", multiple(old), multiple(new)),
        ("uniqueItems", unique(old), unique(new)),
    ] {
        // Nothing is tighter than another text: any change but a removal may reject rows.
        let order = (was != is).then_some(Ordering::Greater);
        let order = was
            .is_some()
            .then_some(order)
            .flatten()
            .filter(|_| is.is_some());
        compare_limit(rule, path, order, Ordering::Greater, (was, is), changes);
    }
    compare_enumerations(old, new, path, changes);
}

/// A rule that was added, removed, or moved in the tighter or the looser direction.
fn compare_limit(
    rule: &str,
    path: &str,
    moved: Option<Ordering>,
    tighter: Ordering,
    (was, is): (Option<String>, Option<String>),
    changes: &mut Changes,
) {
    match (was, is) {
        (None, Some(is)) => {
            changes.tightened(path, format!("`{path}` got the rule `{rule}: {is}`."))
        }
        (Some(was), None) => {
            changes.relaxed(path, format!("`{path}` lost the rule `{rule}: {was}`."))
        }
        (Some(was), Some(is)) => {
            let what = format!("The rule `{rule}` of `{path}` is {is} and was {was}.");
            match moved {
                Some(Ordering::Equal) | None => {}
                Some(order) if order == tighter => changes.tightened(path, what),
                Some(_) => changes.relaxed(path, what),
            }
        }
        (None, None) => {}
    }
}

fn compare_enumerations(old: &Rules, new: &Rules, path: &str, changes: &mut Changes) {
    match (&old.enumeration, &new.enumeration) {
        (None, Some(_)) => changes.tightened(
            path,
            format!("The values of `{path}` are now limited to a list."),
        ),
        (Some(_), None) => changes.relaxed(
            path,
            format!("The values of `{path}` are no longer limited to a list."),
        ),
        (Some(was), Some(is)) => {
            let missing = |a: &[Value], b: &[Value]| {
                let lost = a.iter().filter(|v| !b.contains(v));
                lost.map(text).collect::<Vec<_>>()
            };
            let lost = missing(&was.values, &is.values);
            let gained = missing(&is.values, &was.values);
            if !lost.is_empty() {
                changes.tightened(
                    path,
                    format!("`{path}` may no longer be {}.", lost.join(", ")),
                );
            }
            if !gained.is_empty() {
                changes.relaxed(path, format!("`{path}` may also be {}.", gained.join(", ")));
            }
        }
        (None, None) => {}
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Decimal { unscaled, scale } => format_decimal(*unscaled, *scale),
        other => match crate::decode::value_to_json(other) {
            serde_json::Value::String(text) => text,
            json => json.to_string(),
        },
    }
}
