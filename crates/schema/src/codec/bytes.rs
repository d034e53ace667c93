//! The bytes below the codec: varints, texts, packed bits, and a reader that checks every length.

use super::Corrupt;

#[derive(Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl From<Vec<u8>> for Writer {
    /// A writer that appends to `bytes`.
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes }
    }
}

impl Writer {
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    pub fn byte(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub fn unsigned(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    pub fn size(&mut self, value: usize) {
        self.unsigned(value as u64);
    }

    pub fn text(&mut self, text: &str) {
        self.size(text.len());
        self.raw(text.as_bytes());
    }

    /// A 128-bit integer, zigzag and as a varint.
    pub fn wide(&mut self, value: i128) {
        let mut value = ((value << 1) ^ (value >> 127)) as u128;
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    /// Each value in `width` bits, the lowest bits of the first byte first.
    pub fn packed(&mut self, values: impl Iterator<Item = u64>, width: u32) {
        if width == 0 {
            return;
        }
        let (mut pending, mut bits) = (0u128, 0);
        for value in values {
            pending |= u128::from(value) << bits;
            bits += width;
            while bits >= 8 {
                self.bytes.push(pending as u8);
                pending >>= 8;
                bits -= 8;
            }
        }
        if bits > 0 {
            self.bytes.push(pending as u8);
        }
    }
}

pub fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

pub fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// How many bytes [`Writer::unsigned`] takes.
pub fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// How many bits a value needs.
pub fn bit_width(value: u64) -> u32 {
    64 - value.leading_zeros()
}

pub struct Reader<'a> {
    rest: &'a [u8],
    /// Bytes that may still be allocated.
    budget: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8], budget: usize) -> Self {
        Self {
            rest: bytes,
            budget,
        }
    }

    /// Takes `count × width` bytes off the budget.
    pub fn charge(&mut self, count: usize, width: usize) -> Result<(), Corrupt> {
        let left = count
            .checked_mul(width)
            .and_then(|bytes| self.budget.checked_sub(bytes));
        self.budget = left.ok_or_else(|| Corrupt("it declares more data than fits".to_owned()))?;
        Ok(())
    }

    pub fn take(&mut self, len: usize) -> Result<&'a [u8], Corrupt> {
        if len > self.rest.len() {
            return Err(Corrupt("it ends too early".to_owned()));
        }
        let (taken, rest) = self.rest.split_at(len);
        self.rest = rest;
        Ok(taken)
    }

    pub fn byte(&mut self) -> Result<u8, Corrupt> {
        Ok(self.take(1)?[0])
    }

    pub fn unsigned(&mut self) -> Result<u64, Corrupt> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Corrupt("a number is too long".to_owned()))
    }

    pub fn wide(&mut self) -> Result<i128, Corrupt> {
        let mut value = 0u128;
        for shift in (0..133).step_by(7) {
            let byte = self.byte()?;
            let bits = u128::from(byte & 0x7f);
            if shift == 126 && bits > 3 {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok((value >> 1) as i128 ^ -((value & 1) as i128));
            }
        }
        Err(Corrupt("a number is too long".to_owned()))
    }

    pub fn size(&mut self) -> Result<usize, Corrupt> {
        let value = self.unsigned()?;
        // Arrow's offsets are 32 bits: nothing of a batch may be longer.
        i32::try_from(value)
            .map(|v| v as usize)
            .map_err(|_| Corrupt(format!("a length of {value} is too large")))
    }

    /// A count of things that take at least `width` bytes each of what is left.
    pub fn count(&mut self, width: usize) -> Result<usize, Corrupt> {
        let count = self.size()?;
        if count.saturating_mul(width) > self.rest.len() {
            return Err(Corrupt("it ends too early".to_owned()));
        }
        Ok(count)
    }

    pub fn text(&mut self) -> Result<&'a str, Corrupt> {
        let len = self.size()?;
        std::str::from_utf8(self.take(len)?).map_err(|_| Corrupt("a text is no UTF-8".to_owned()))
    }

    pub fn packed(&mut self, count: usize, width: u32) -> Result<Vec<u64>, Corrupt> {
        self.charge(count, 8)?;
        if width == 0 {
            return Ok(vec![0; count]);
        }
        if width > 64 {
            return Err(Corrupt(format!("a width of {width} bits")));
        }
        let bits = count.saturating_mul(width as usize);
        let bytes = self.take(bits.div_ceil(8))?;
        Ok((0..count)
            .map(|index| unpack(bytes, index, width))
            .collect())
    }

    pub fn finish(&self) -> Result<(), Corrupt> {
        match self.rest.len() {
            0 => Ok(()),
            more => Err(Corrupt(format!("{more} bytes follow its end"))),
        }
    }

    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

/// The packed value at an index, of a width from 1 to 64 bits.
fn unpack(bytes: &[u8], index: usize, width: u32) -> u64 {
    let bit = index * width as usize;
    let (at, shift) = (bit / 8, (bit % 8) as u32);
    let mask = u64::MAX >> (64 - width);
    match bytes[at..].first_chunk::<8>() {
        // One word holds all its bits.
        Some(word) if shift + width <= 64 => (u64::from_le_bytes(*word) >> shift) & mask,
        _ => {
            let near = bytes[at..].iter().take(9).rev();
            let word = near.fold(0u128, |word, byte| word << 8 | u128::from(*byte));
            (word >> shift) as u64 & mask
        }
    }
}
