//! Partial aggregates as bytes: those of facts that have been folded away.

use std::collections::BTreeMap;

use headwater_schema::Value;
use headwater_schema::codec::encode_value;

use super::{
    Corrupt, byte, get, get_length, get_position, get_signed, get_value, put, put_position,
    put_signed, take,
};
use crate::bottom_k::BottomK;
use crate::decayed::{CELLS_BEHIND_MAX, Cell, Decayed};
use crate::exact_sum::{ExactSum, big_from_bytes, big_to_bytes};
use crate::histogram::Histogram;
use crate::ordered::{Chosen, Placed};
use crate::partial::{Partial, PartialData};
use crate::parts::{Groups, Places, Trouble};
use crate::quantile::{LEVEL_MAX, Samples, Sketch};
use crate::{Slot, SlotKind, Spread};

/// Appends the bytes of a partial aggregate.
pub fn put_partial(out: &mut Vec<u8>, partial: &Partial) {
    put(out, partial.count);
    put_signed(out, partial.newest);
    match &partial.data {
        PartialData::Count => {}
        PartialData::Moments(sums) => sums.iter().for_each(|sum| put_sum(out, sum)),
        PartialData::Min(value) | PartialData::Max(value) => {
            encode_value(out, value.as_ref().unwrap_or(&Value::Null));
        }
        PartialData::First(list) | PartialData::Last(list) | PartialData::LastDistinct(list) => {
            put(out, list.len() as u64);
            for (position, value) in list {
                put_position(out, *position);
                encode_value(out, value);
            }
        }
        PartialData::Distinct(sketch) => {
            put(out, sketch.hashes().len() as u64);
            let hashes = sketch.hashes().iter();
            hashes.for_each(|hash| out.extend(hash.to_le_bytes()));
        }
        PartialData::Histogram(histogram) => {
            out.push(u8::from(histogram.overflowed));
            put(out, histogram.counts.len() as u64);
            for (value, count) in &histogram.counts {
                encode_value(out, value);
                put(out, *count);
            }
        }
        PartialData::Ranked(values) => put_values(out, values.iter().cloned()),
        PartialData::Chosen(chosen) => {
            out.push(u8::from(chosen.is_some()));
            if let Some(chosen) = chosen {
                encode_value(out, &chosen.order);
                put_position(out, chosen.position);
                encode_value(out, &chosen.value);
            }
        }
        PartialData::Quantile(samples) => put_samples(out, samples),
        PartialData::Decayed(sums) => {
            put(out, sums.cells.len() as u64);
            for cell in &sums.cells {
                put_signed(out, cell.number);
                put_sum(out, &cell.values);
                put_sum(out, &cell.weights);
            }
        }
        PartialData::Groups(groups) => {
            out.push(u8::from(groups.overflowed));
            put(out, groups.partials.len() as u64);
            for (key, partial) in &groups.partials {
                encode_value(out, key);
                put_partial(out, partial);
            }
        }
        PartialData::Places(places) => {
            out.push(places.trouble.map_or(0, |t| t as u8 + 1));
            put(out, places.partials.len() as u64);
            places.partials.iter().for_each(|p| put_partial(out, p));
        }
    }
}

fn put_sum(out: &mut Vec<u8>, sum: &ExactSum) {
    let (mantissa, exponent) = sum.to_big();
    put_signed(out, i64::from(exponent));
    let bytes = big_to_bytes(&mantissa);
    put(out, bytes.len() as u64);
    out.extend(bytes);
}

fn put_values(out: &mut Vec<u8>, values: impl ExactSizeIterator<Item = Value>) {
    put(out, values.len() as u64);
    values.for_each(|value| encode_value(out, &value));
}

fn put_samples(out: &mut Vec<u8>, samples: &Samples) {
    match samples {
        Samples::None => put(out, 0),
        Samples::Ints(list) => put_values(out, list.iter().map(|v| Value::Int(*v))),
        Samples::Floats(list) => put_values(out, list.iter().map(|v| Value::Float(*v))),
        Samples::Decimals(scale, list) => {
            let decimal = |unscaled: &i128| Value::Decimal {
                unscaled: *unscaled,
                scale: *scale,
            };
            put_values(out, list.iter().map(decimal));
        }
        Samples::Sketch(sketch) => {
            put(out, 0);
            out.push(1 + sketch.level as u8);
            out.extend(sketch.least.to_le_bytes());
            out.extend(sketch.greatest.to_le_bytes());
            put(out, sketch.counts.len() as u64);
            for (number, count) in &sketch.counts {
                put_signed(out, i64::from(*number));
                put(out, *count);
            }
            return;
        }
    }
    out.push(0);
}

/// Takes a partial aggregate of a slot off the front of the bytes.
pub fn get_partial(slot: &Slot, input: &mut &[u8]) -> Result<Partial, Corrupt> {
    let count = get(input)?;
    let newest = get_signed(input)?;
    let data = if slot.is_grouped() {
        PartialData::Groups(Box::new(get_groups(slot, input)?))
    } else if slot.spread == Spread::Positions {
        PartialData::Places(Box::new(get_places(slot, input)?))
    } else {
        get_data(slot.kind, input)?
    };
    Ok(Partial {
        count,
        newest,
        data,
    })
}

fn get_data(kind: SlotKind, input: &mut &[u8]) -> Result<PartialData, Corrupt> {
    Ok(match kind {
        SlotKind::Count => PartialData::Count,
        SlotKind::Moments { order } => PartialData::Moments(
            (0..order)
                .map(|_| get_sum(input))
                .collect::<Result<_, _>>()?,
        ),
        SlotKind::Min => PartialData::Min(some(get_value(input)?)),
        SlotKind::Max => PartialData::Max(some(get_value(input)?)),
        SlotKind::First { .. } => PartialData::First(get_list(input)?),
        SlotKind::Last { .. } => PartialData::Last(get_list(input)?),
        SlotKind::LastDistinct { .. } => PartialData::LastDistinct(get_list(input)?),
        SlotKind::Distinct { .. } => {
            let hashes = (0..get_length(input)?).map(|_| Ok(u64::from_le_bytes(get_eight(input)?)));
            PartialData::Distinct(BottomK::from_hashes(hashes.collect::<Result<_, _>>()?))
        }
        SlotKind::Histogram { .. } => {
            let overflowed = byte(input)? != 0;
            let entries = (0..get_length(input)?).map(|_| Ok((get_value(input)?, get(input)?)));
            let counts = entries.collect::<Result<BTreeMap<_, _>, Corrupt>>()?;
            PartialData::Histogram(Histogram { counts, overflowed })
        }
        SlotKind::Top { .. } | SlotKind::Bottom { .. } => PartialData::Ranked(get_values(input)?),
        SlotKind::MinBy | SlotKind::MaxBy => PartialData::Chosen(match byte(input)? {
            0 => None,
            _ => Some(Box::new(Chosen {
                order: get_value(input)?,
                position: get_position(input)?,
                value: get_value(input)?,
            })),
        }),
        SlotKind::Quantile { .. } => PartialData::Quantile(get_samples(input)?),
        SlotKind::Decayed { .. } => PartialData::Decayed(get_decayed(input)?),
    })
}

fn get_groups(slot: &Slot, input: &mut &[u8]) -> Result<Groups, Corrupt> {
    let overflowed = byte(input)? != 0;
    let inner = slot.inner();
    let partials = (0..get_length(input)?)
        .map(|_| Ok((get_value(input)?, get_partial(&inner, input)?)))
        .collect::<Result<_, Corrupt>>()?;
    Ok(Groups {
        partials,
        overflowed,
    })
}

fn get_places(slot: &Slot, input: &mut &[u8]) -> Result<Places, Corrupt> {
    let trouble = match byte(input)? {
        0 => None,
        1 => Some(Trouble::Unequal),
        _ => Some(Trouble::TooLong),
    };
    let inner = slot.inner();
    let partials = (0..get_length(input)?)
        .map(|_| get_partial(&inner, input))
        .collect::<Result<_, Corrupt>>()?;
    Ok(Places { partials, trouble })
}

fn get_sum(input: &mut &[u8]) -> Result<ExactSum, Corrupt> {
    let exponent =
        i32::try_from(get_signed(input)?).map_err(|_| Corrupt("an exponent is too large"))?;
    if exponent.unsigned_abs() > EXPONENT_MAX {
        return Err(Corrupt("an exponent is too large"));
    }
    let length = get_length(input)?;
    Ok(ExactSum::from_big(
        big_from_bytes(take(input, length)?),
        exponent,
    ))
}

/// No sum of powers of floats has a greater exponent, or a smaller one.
const EXPONENT_MAX: u32 = 1 << 13;

fn get_eight(input: &mut &[u8]) -> Result<[u8; 8], Corrupt> {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(take(input, 8)?);
    Ok(bytes)
}

fn get_list(input: &mut &[u8]) -> Result<Vec<Placed>, Corrupt> {
    (0..get_length(input)?)
        .map(|_| Ok((get_position(input)?, get_value(input)?)))
        .collect()
}

fn get_values(input: &mut &[u8]) -> Result<Vec<Value>, Corrupt> {
    (0..get_length(input)?).map(|_| get_value(input)).collect()
}

fn get_samples(input: &mut &[u8]) -> Result<Samples, Corrupt> {
    let values = get_values(input)?;
    let level = match byte(input)? {
        0 => return samples_of(values),
        level => u32::from(level) - 1,
    };
    if level > LEVEL_MAX {
        return Err(Corrupt("a sketch has no such level"));
    }
    let least = f64::from_le_bytes(get_eight(input)?);
    let greatest = f64::from_le_bytes(get_eight(input)?);
    let counts = (0..get_length(input)?)
        .map(|_| {
            let number = i32::try_from(get_signed(input)?);
            let number = number.map_err(|_| Corrupt("a bucket has no such number"))?;
            Ok((number, get(input)?))
        })
        .collect::<Result<_, Corrupt>>()?;
    Ok(Samples::Sketch(Box::new(Sketch {
        level,
        counts,
        least,
        greatest,
    })))
}

fn samples_of(values: Vec<Value>) -> Result<Samples, Corrupt> {
    let mixed = || Corrupt("values of a quantile have different types");
    let first = values.first().cloned();
    let values = values.into_iter();
    Ok(match first {
        None => Samples::None,
        Some(Value::Int(_)) => Samples::Ints(
            values
                .map(|v| match v {
                    Value::Int(v) => Ok(v),
                    _ => Err(mixed()),
                })
                .collect::<Result<_, _>>()?,
        ),
        Some(Value::Float(_)) => Samples::Floats(
            values
                .map(|v| match v {
                    Value::Float(v) => Ok(v),
                    _ => Err(mixed()),
                })
                .collect::<Result<_, _>>()?,
        ),
        Some(Value::Decimal { scale, .. }) => Samples::Decimals(
            scale,
            values
                .map(|v| match v {
                    Value::Decimal { unscaled, .. } => Ok(unscaled),
                    _ => Err(mixed()),
                })
                .collect::<Result<_, _>>()?,
        ),
        Some(_) => return Err(mixed()),
    })
}

fn get_decayed(input: &mut &[u8]) -> Result<Decayed, Corrupt> {
    let mut cells: Vec<Cell> = Vec::new();
    for _ in 0..get_length(input)? {
        let number = get_signed(input)?;
        if cells.last().is_some_and(|last| last.number >= number) {
            return Err(Corrupt("the cells of a decayed sum are out of order"));
        }
        cells.push(Cell {
            number,
            values: get_sum(input)?,
            weights: get_sum(input)?,
        });
    }
    let span = cells.first().zip(cells.last());
    if span.is_some_and(|(a, b)| b.number.saturating_sub(a.number) > CELLS_BEHIND_MAX) {
        return Err(Corrupt("the cells of a decayed sum lie too far apart"));
    }
    Ok(Decayed { cells })
}

fn some(value: Value) -> Option<Value> {
    (!value.is_null()).then_some(value)
}
