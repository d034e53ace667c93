//! Which type keeps every digit of a column's numbers.

use std::borrow::Cow;

use crate::DataType;

/// The most digits of a decimal.
const DIGITS_MAX: usize = 38;
/// Every number of so many digits or fewer is told apart from all others by the float nearest to it.
const FLOAT_DIGITS: usize = 15;
/// As many as a program that writes all of a float may write.
const FLOAT_DIGITS_MAX: usize = 17;
/// Places after the point that a time keeps.
const TIME_DIGITS: usize = 6;

/// What was seen of the numbers of a column.
#[derive(Default)]
pub struct Numbers {
    /// The most digits before the point, and after it.
    whole: usize,
    fraction: usize,
    /// Whether a float loses a digit of one of them.
    is_lossy: bool,
    /// Whether one of them is a cell of CSV, which is as good as text.
    in_cells: bool,
}

impl Numbers {
    /// Takes a number as it is written.
    pub fn see(&mut self, text: &str) {
        let Some(number) = Digits::of(text) else {
            return;
        };
        self.whole = self.whole.max(number.whole());
        self.fraction = self.fraction.max(number.fraction());
        self.is_lossy |= !number.is_float(text);
    }

    /// The same of a cell of CSV. NaN and the infinities are floats.
    pub fn see_cell(&mut self, text: &str) {
        self.in_cells = true;
        self.see(text);
    }

    /// Floats where they lose nothing; else decimals, or in CSV text. Numbers that have more digits than a decimal don't
    /// fit it, and are found out where the rows are read.
    pub fn data_type(&self) -> DataType {
        match (self.is_lossy, self.in_cells) {
            (false, _) => DataType::Float64,
            (true, true) => DataType::String,
            (true, false) => DataType::Decimal {
                precision: DIGITS_MAX as u8,
                scale: self.fraction.min(DIGITS_MAX.saturating_sub(self.whole)) as i8,
            },
        }
    }
}

/// A number: its digits, and where the point is among them.
#[derive(Debug, PartialEq)]
struct Digits<'t> {
    /// Without zeros at either end; empty for zero.
    digits: Cow<'t, str>,
    /// Digits before the point; negative where zeros come after it first.
    point: i64,
}

impl<'t> Digits<'t> {
    /// None of what is no number.
    fn of(text: &'t str) -> Option<Self> {
        let text = text.strip_prefix(['-', '+']).unwrap_or(text);
        let (mantissa, exponent) = match text.find(['e', 'E']) {
            Some(at) => (&text[..at], text[at + 1..].parse::<i64>().ok()?),
            None => (text, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let is_number = whole.len() + fraction.len() > 0
            && whole
                .bytes()
                .chain(fraction.bytes())
                .all(|b| b.is_ascii_digit());
        if !is_number {
            return None;
        }
        let all = match fraction.is_empty() {
            true => Cow::Borrowed(whole),
            false => Cow::Owned(format!("{whole}{fraction}")),
        };
        let zeros = all.len() - all.trim_start_matches('0').len();
        let point = (whole.len() as i64 - zeros as i64).saturating_add(exponent);
        let digits = match all {
            Cow::Borrowed(all) => Cow::Borrowed(all.trim_matches('0')),
            Cow::Owned(all) => Cow::Owned(all.trim_matches('0').to_owned()),
        };
        let point = if digits.is_empty() { 0 } else { point };
        Some(Self { digits, point })
    }

    fn whole(&self) -> usize {
        usize::try_from(self.point).unwrap_or(0)
    }

    fn fraction(&self) -> usize {
        let after = (self.digits.len() as i64).saturating_sub(self.point);
        usize::try_from(after).unwrap_or(0)
    }

    /// Whether the float nearest to it, written with as many digits, is it again.
    fn is_float(&self, text: &str) -> bool {
        let digits = self.digits.len();
        let near = (-300..300).contains(&self.point);
        match digits {
            0 => true,
            1..=FLOAT_DIGITS if near => true,
            1..=FLOAT_DIGITS_MAX => {
                let float: f64 = text.parse().unwrap_or(f64::NAN);
                let written = format!("{:.*e}", digits - 1, float);
                float.is_finite() && Digits::of(&written).as_ref() == Some(self)
            }
            _ => false,
        }
    }
}

/// Whether a time is written with more places after the second's point than a time keeps.
pub fn is_finer_than_times(text: &str) -> bool {
    let Some((_, after)) = text.split_once('.') else {
        return false;
    };
    let digits = after.bytes().take_while(u8::is_ascii_digit);
    digits.skip(TIME_DIGITS).any(|digit| digit != b'0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_taken_where_they_keep_every_digit() {
        let of = |texts: &[&str], cells: bool| {
            let mut numbers = Numbers::default();
            for text in texts {
                match cells {
                    true => numbers.see_cell(text),
                    false => numbers.see(text),
                }
            }
            numbers.data_type()
        };
        let fine = [
            "0",
            "-0.0",
            "1.50",
            "1e300",
            "0.30000000000000004",
            "9007199254740992",
            "5e-324",
            "123456789012345.0",
            "0.10000000000000001",
            "1.7976931348623157e308",
        ];
        for text in fine {
            assert_eq!(of(&[text], false), DataType::Float64, "{text}");
        }
        for text in [
            "9007199254740993",
            "18446744073709551616",
            "1e400",
            "1e-400",
            "0.12345678901234567890",
        ] {
            assert_eq!(of(&["0.5", text], true), DataType::String, "{text}");
        }
        let decimal = |scale| DataType::Decimal {
            precision: 38,
            scale,
        };
        assert_eq!(of(&["18446744073709551616"], false), decimal(0));
        assert_eq!(of(&["18446744073709551616", "-0.125"], false), decimal(3));
        assert_eq!(of(&["9007199254740993", "25e-2"], false), decimal(2));
        assert_eq!(of(&["1e400", "0.5"], false), decimal(0));
        assert_eq!(of(&["NaN"], true), DataType::Float64);
        assert!(is_finer_than_times("2020-01-01T00:00:00.0000001Z"));
        assert!(!is_finer_than_times("2020-01-01T00:00:00.1234560Z"));
    }
}
