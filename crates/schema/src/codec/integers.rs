//! Runs of 64-bit integers, in the smallest of three forms.
//!
//! `0`: varints of the values; `1`: varints of the differences; `2`: frame of reference, that is
//! the least value, the greatest common divisor of what is above it, and the quotients bit-packed.
//! Times in whole minutes thus cost no more than minutes would.

use super::Corrupt;
use super::bytes::{Reader, Writer, bit_width, unzigzag, varint_len, zigzag};

const PLAIN: u8 = 0;
const DELTA: u8 = 1;
const FRAME: u8 = 2;

pub fn write(out: &mut Writer, values: &[i64]) {
    let frame = Frame::of(values);
    let plain_len: usize = values.iter().map(|v| varint_len(zigzag(*v))).sum();
    let delta_len: usize = deltas(values).map(varint_len).sum();
    if frame.len(values.len()) <= plain_len.min(delta_len) {
        out.byte(FRAME);
        out.unsigned(zigzag(frame.least));
        out.unsigned(frame.divisor);
        out.byte(frame.width as u8);
        out.packed(values.iter().map(|v| frame.quotient(*v)), frame.width);
    } else if delta_len < plain_len {
        out.byte(DELTA);
        deltas(values).for_each(|delta| out.unsigned(delta));
    } else {
        out.byte(PLAIN);
        values.iter().for_each(|value| out.unsigned(zigzag(*value)));
    }
}

pub fn read(reader: &mut Reader<'_>, count: usize) -> Result<Vec<i64>, Corrupt> {
    let form = reader.byte()?;
    if form == FRAME {
        let least = unzigzag(reader.unsigned()?);
        let divisor = reader.unsigned()?;
        let width = u32::from(reader.byte()?);
        let quotients = reader.packed(count, width)?;
        let value = |q: u64| least.wrapping_add(q.wrapping_mul(divisor) as i64);
        return Ok(quotients.into_iter().map(value).collect());
    }
    // Each value takes a byte at least, so the input bounds what is allocated.
    reader.charge(count, 8)?;
    let mut values = Vec::with_capacity(count.min(reader.rest().len()));
    let mut last = 0i64;
    for _ in 0..count {
        let read = unzigzag(reader.unsigned()?);
        last = match form {
            PLAIN => read,
            DELTA => last.wrapping_add(read),
            other => return Err(Corrupt(format!("no form {other} of integers"))),
        };
        values.push(last);
    }
    Ok(values)
}

fn deltas(values: &[i64]) -> impl Iterator<Item = u64> {
    let mut last = 0i64;
    values.iter().map(move |value| {
        let delta = value.wrapping_sub(last);
        last = *value;
        zigzag(delta)
    })
}

struct Frame {
    least: i64,
    divisor: u64,
    width: u32,
}

impl Frame {
    fn of(values: &[i64]) -> Self {
        let least = values.iter().copied().min().unwrap_or(0);
        let (mut divisor, mut widest) = (0u64, 0u64);
        for value in values {
            let above = value.wrapping_sub(least) as u64;
            widest = widest.max(above);
            if divisor != 1 {
                divisor = greatest_common_divisor(divisor, above);
            }
        }
        let divisor = divisor.max(1);
        Self {
            least,
            divisor,
            width: bit_width(widest / divisor),
        }
    }

    fn quotient(&self, value: i64) -> u64 {
        value.wrapping_sub(self.least) as u64 / self.divisor
    }

    fn len(&self, count: usize) -> usize {
        let packed = (count * self.width as usize).div_ceil(8);
        varint_len(zigzag(self.least)) + varint_len(self.divisor) + 1 + packed
    }
}

fn greatest_common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}
