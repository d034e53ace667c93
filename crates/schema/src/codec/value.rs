//! Single values as bytes, for state that is checkpointed.

use std::sync::Arc;

use super::bytes::{Reader, Writer, unzigzag, zigzag};
use super::{Corrupt, bytes};
use crate::{Problem, Value};

/// Values within values.
const VALUE_DEPTH_MAX: usize = 64;

/// Appends the bytes of a value.
pub fn encode_value(out: &mut Vec<u8>, value: &Value) {
    let mut writer = Writer::from(std::mem::take(out));
    write(&mut writer, value);
    *out = writer.into_bytes();
}

/// Reads a value off the front of `bytes`, which then start behind it.
pub fn decode_value(input: &mut &[u8]) -> Result<Value, Problem> {
    let mut reader = bytes::Reader::new(input, super::BUDGET_BASE);
    let value = read(&mut reader, 0).map_err(|corrupt| {
        Problem::external("corrupt-value", "A stored value cannot be read").detail(corrupt.0)
    })?;
    *input = reader.rest();
    Ok(value)
}

fn write(out: &mut Writer, value: &Value) {
    match value {
        Value::Null => out.byte(0),
        Value::Bool(false) => out.byte(1),
        Value::Bool(true) => out.byte(2),
        Value::Int(v) => tagged(out, 3, *v),
        Value::Float(v) => {
            out.byte(4);
            out.raw(&v.to_le_bytes());
        }
        Value::Decimal { unscaled, scale } => {
            out.raw(&[5, *scale as u8]);
            out.wide(*unscaled);
        }
        Value::Timestamp(v) => tagged(out, 6, *v),
        Value::Date(v) => tagged(out, 7, i64::from(*v)),
        Value::String(v) => {
            out.byte(8);
            out.text(v);
        }
        Value::Bytes(v) => {
            out.byte(9);
            out.size(v.len());
            out.raw(v);
        }
        Value::List(items) => {
            out.byte(10);
            out.size(items.len());
            items.iter().for_each(|item| write(out, item));
        }
        Value::Struct(members) => {
            out.byte(11);
            out.size(members.len());
            for (name, member) in members.iter() {
                out.text(name);
                write(out, member);
            }
        }
        Value::Map(entries) => {
            out.byte(12);
            out.size(entries.len());
            for (key, entry) in entries.iter() {
                write(out, key);
                write(out, entry);
            }
        }
    }
}

fn tagged(out: &mut Writer, tag: u8, value: i64) {
    out.byte(tag);
    out.unsigned(zigzag(value));
}

fn read(reader: &mut Reader<'_>, depth: usize) -> Result<Value, Corrupt> {
    if depth > VALUE_DEPTH_MAX {
        return Err(Corrupt("values are nested too deep".to_owned()));
    }
    Ok(match reader.byte()? {
        0 => Value::Null,
        1 => Value::Bool(false),
        2 => Value::Bool(true),
        3 => Value::Int(unzigzag(reader.unsigned()?)),
        4 => {
            let bytes = reader.take(8)?;
            Value::Float(f64::from_le_bytes(bytes.try_into().unwrap_or_default()))
        }
        5 => {
            let scale = reader.byte()? as i8;
            let unscaled = reader.wide()?;
            Value::Decimal { unscaled, scale }
        }
        6 => Value::Timestamp(unzigzag(reader.unsigned()?)),
        7 => {
            let days = unzigzag(reader.unsigned()?);
            Value::Date(i32::try_from(days).map_err(|_| Corrupt(format!("no date {days}")))?)
        }
        8 => Value::string(reader.text()?),
        9 => {
            let len = reader.size()?;
            Value::Bytes(Arc::from(reader.take(len)?))
        }
        10 => {
            let count = counted(reader, 1)?;
            let items = (0..count).map(|_| read(reader, depth + 1));
            Value::List(items.collect::<Result<_, _>>()?)
        }
        11 => {
            let count = counted(reader, 2)?;
            let members = (0..count).map(|_| {
                let name = Arc::from(reader.text()?);
                Ok((name, read(reader, depth + 1)?))
            });
            Value::Struct(members.collect::<Result<_, Corrupt>>()?)
        }
        12 => {
            let count = counted(reader, 2)?;
            let entries = (0..count).map(|_| {
                let key = read(reader, depth + 1)?;
                Ok((key, read(reader, depth + 1)?))
            });
            Value::Map(entries.collect::<Result<_, Corrupt>>()?)
        }
        other => return Err(Corrupt(format!("no kind {other} of value"))),
    })
}

fn counted(reader: &mut Reader<'_>, width: usize) -> Result<usize, Corrupt> {
    let count = reader.count(width)?;
    reader.charge(count, 64)?;
    Ok(count)
}
