//! The inferred contract as YAML.

use std::fmt::Write;

use super::profile::{Guess, Profile};
use crate::DataType;

/// The document with a comment on every guess.
pub fn document(name: &str, row: &Profile, guess: &Guess, left_out: usize) -> String {
    let mut out = heading(&contract_name(name), row.seen, left_out);
    for (index, (column, profile)) in row.members.iter().enumerate() {
        let is_time = index == guess.event_time;
        property(&mut out, "      ", Some(column), profile, row.seen, is_time);
    }
    out.push_str("    customProperties:\n");
    let (time, _) = &row.members[guess.event_time];
    let others: Vec<&str> = guess
        .other_times
        .iter()
        .map(|i| row.members[*i].0.as_str())
        .collect();
    if !others.is_empty() {
        let _ = writeln!(
            out,
            "      # When the fact happened. It could also be {}.",
            comment(&others.join(", "))
        );
    }
    let _ = writeln!(
        out,
        "      - property: headwater.eventTime\n        value: {}",
        scalar(time)
    );
    if let Some(unit) = guess.time_unit {
        let _ = writeln!(out, "      # Guessed from the size of its numbers.");
        let _ = writeln!(
            out,
            "      - property: headwater.timeUnit\n        value: {unit}"
        );
    }
    if guess.needs_zone {
        let _ = writeln!(
            out,
            "      # Times in the sample have no offset: name the zone they were written in."
        );
        let _ = writeln!(
            out,
            "      - property: headwater.timeZone\n        value: UTC"
        );
    }
    match guess.fact_id {
        Some(index) => {
            let _ = writeln!(
                out,
                "      # It differs in every row of the sample. With it, a fact sent twice counts once."
            );
            let _ = writeln!(
                out,
                "      - property: headwater.factId\n        value: {}",
                scalar(&row.members[index].0)
            );
        }
        None => {
            let _ = writeln!(
                out,
                "      # No column was found that identifies a fact, so that one sent twice counts twice. If some"
            );
            let _ = writeln!(
                out,
                "      # columns do: - {{property: headwater.factId, value: [first, second]}}"
            );
        }
    }
    out
}

/// What stands before the columns.
fn heading(name: &str, rows: usize, left_out: usize) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(
        out,
        "# Inferred from {rows} rows. Check the types, what is required, and the guesses below."
    );
    if left_out > 0 {
        let _ = writeln!(
            out,
            "# Left out are {left_out} columns without a name that a contract may use."
        );
    }
    let _ = writeln!(
        out,
        "kind: DataContract\napiVersion: v3.1.0\nid: {name}\nname: {name}"
    );
    let _ = writeln!(
        out,
        "version: 0.1.0\nstatus: draft\nschema:\n  - name: {name}\n    logicalType: object\n    properties:"
    );
    out
}

fn property(
    out: &mut String,
    indent: &str,
    name: Option<&str>,
    profile: &Profile,
    parents: usize,
    is_time: bool,
) {
    // A property in a list starts with its name; items of an array have none.
    let inner = match name {
        Some(name) => {
            let _ = writeln!(out, "{indent}- name: {}", scalar(name));
            format!("{indent}  ")
        }
        None => indent.to_owned(),
    };
    if profile.is_list() {
        let _ = writeln!(out, "{inner}logicalType: array\n{inner}items:");
        let empty = Profile::default();
        let items = profile.items.as_deref().unwrap_or(&empty);
        property(out, &format!("{inner}  "), None, items, items.seen, false);
    } else if profile.is_object() {
        let _ = writeln!(out, "{inner}logicalType: object\n{inner}properties:");
        for (name, member) in &profile.members {
            property(
                out,
                &format!("{inner}  "),
                Some(name),
                member,
                profile.present,
                false,
            );
        }
    } else {
        if profile.is_mixed() {
            let _ = writeln!(
                out,
                "{inner}# Values of several types were seen; rows that hold no string will be rejected."
            );
        } else if profile.present == 0 {
            let _ = writeln!(out, "{inner}# No value was seen.");
        }
        plain_type(out, &inner, &profile.data_type());
    }
    if name.is_some() && (is_time || profile.is_required(parents)) {
        let _ = writeln!(out, "{inner}required: true");
    }
}

fn plain_type(out: &mut String, indent: &str, data_type: &DataType) {
    let logical = match data_type {
        DataType::Bool => "boolean",
        DataType::Int64 => "integer",
        DataType::Float64 | DataType::Decimal { .. } => "number",
        DataType::String | DataType::Bytes => "string",
        DataType::Timestamp => "timestamp",
        DataType::Date => "date",
        DataType::List(_) => "array",
        DataType::Struct(_) | DataType::Map(_) => "object",
    };
    let _ = writeln!(out, "{indent}logicalType: {logical}");
    if matches!(
        data_type,
        DataType::Decimal { .. }
            | DataType::Bytes
            | DataType::Map(_)
            | DataType::List(_)
            | DataType::Struct(_)
    ) {
        let _ = writeln!(
            out,
            "{indent}physicalType: {}",
            quoted(&data_type.to_string())
        );
    }
}

/// A name that a contract may have.
fn contract_name(name: &str) -> String {
    let allowed = |c: char| {
        if c.is_ascii_alphanumeric() || c == '-' {
            c
        } else {
            '_'
        }
    };
    let name: String = name
        .chars()
        .map(allowed)
        .take(crate::contract::NAME_LENGTH_MAX - 1)
        .collect();
    match name.starts_with(|c: char| c.is_ascii_alphabetic()) {
        true => name,
        false => format!("_{name}"),
    }
}

/// Plain where YAML reads it as the same text, else quoted.
fn scalar(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !matches!(
            text.to_lowercase().as_str(),
            "null" | "true" | "false" | "yes" | "no" | "on" | "off" | "y" | "n"
        );
    if plain { text.to_owned() } else { quoted(text) }
}

/// JSON's quotes are YAML's.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn comment(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}
