//! What a contract asks of single values, and the check of a value against it.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use regex::Regex;

use crate::contract::nearest;
use crate::time::{format_date, format_timestamp, shorten};
use crate::{Micros, Value};

/// What a contract asks of the values of one field. Nulls pass all of it: `required` is apart.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rules {
    pub minimum: Option<Value>,
    pub exclusive_minimum: Option<Value>,
    pub maximum: Option<Value>,
    pub exclusive_maximum: Option<Value>,
    /// As it was written, and as a number of the field's type.
    pub multiple_of: Option<Value>,
    /// In characters.
    pub min_length: Option<u64>,
    pub max_length: Option<u64>,
    pub pattern: Option<Pattern>,
    pub format: Option<TextFormat>,
    /// Of lists.
    pub min_items: Option<u64>,
    pub max_items: Option<u64>,
    pub unique_items: bool,
    /// Of structs and maps: members that are not null.
    pub min_properties: Option<u64>,
    pub max_properties: Option<u64>,
    pub enumeration: Option<Enumeration>,
}

/// A regular expression that must match somewhere in the text, as in ODCS; anchor it with `^` and `$`.
#[derive(Debug, Clone)]
pub struct Pattern(Arc<Regex>);

impl Pattern {
    pub fn new(pattern: &str) -> Result<Self, String> {
        /// Bytes of a compiled expression.
        const PATTERN_BYTES_MAX: usize = 1 << 20;
        regex::RegexBuilder::new(pattern)
            .size_limit(PATTERN_BYTES_MAX)
            .build()
            .map(|regex| Self(Arc::new(regex)))
            .map_err(|e| e.to_string())
    }

    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

/// A shape that texts must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextFormat {
    Email,
    Uuid,
    Ipv4,
    Ipv6,
    Hostname,
    /// A time of day: `10:17:00`, with or without a fraction.
    Time,
}

impl TextFormat {
    /// The formats of ODCS that are checked; `time` is a logical type of its own there.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "email" => Self::Email,
            "uuid" => Self::Uuid,
            "ipv4" => Self::Ipv4,
            "ipv6" => Self::Ipv6,
            "hostname" => Self::Hostname,
            _ => return None,
        })
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Email => "email",
            Self::Uuid => "uuid",
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
            Self::Hostname => "hostname",
            Self::Time => "time",
        }
    }

    fn matches(self, text: &str) -> bool {
        match self {
            Self::Email => text.rsplit_once('@').is_some_and(|(user, host)| {
                !user.is_empty() && !user.contains(char::is_whitespace) && is_hostname(host)
            }),
            Self::Uuid => {
                text.len() == 36
                    && text.bytes().enumerate().all(|(i, b)| match i {
                        8 | 13 | 18 | 23 => b == b'-',
                        _ => b.is_ascii_hexdigit(),
                    })
            }
            Self::Ipv4 => text.parse::<Ipv4Addr>().is_ok(),
            Self::Ipv6 => text.parse::<Ipv6Addr>().is_ok(),
            Self::Hostname => is_hostname(text),
            Self::Time => {
                let instant = format!("1970-01-01T{text}Z");
                !text.contains(['+', 'Z', '-'])
                    && crate::time::parse_timestamp(&instant, None).is_ok()
            }
        }
    }
}

fn is_hostname(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

/// The values that are allowed.
#[derive(Debug, Clone, PartialEq)]
pub struct Enumeration {
    pub values: Arc<[Value]>,
    texts: Arc<HashSet<Arc<str>>>,
}

impl Enumeration {
    pub fn new(values: Vec<Value>) -> Self {
        let text = |value: &Value| match value {
            Value::String(text) => Some(Arc::clone(text)),
            _ => None,
        };
        Self {
            texts: Arc::new(values.iter().filter_map(text).collect()),
            values: values.into(),
        }
    }

    fn contains(&self, cell: &Cell<'_>) -> bool {
        match cell {
            Cell::String(text) => self.texts.contains(*text),
            cell => self
                .values
                .iter()
                .any(|v| cell.compare(v) == Some(Ordering::Equal)),
        }
    }
}

/// A single value, borrowed from where it stands.
#[derive(Debug, Clone, Copy)]
pub enum Cell<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Decimal {
        unscaled: i128,
        scale: i8,
    },
    Timestamp(Micros),
    Date(i32),
    String(&'a str),
    Bytes(&'a [u8]),
    /// A list, struct or map with so many items or members that are not null.
    Nested(usize),
}

impl Cell<'_> {
    /// The order of the value and another of the same type; none for other types and NaN.
    pub fn compare(&self, other: &Value) -> Option<Ordering> {
        Some(match (self, other) {
            (Self::Bool(a), Value::Bool(b)) => a.cmp(b),
            (Self::Int(a), Value::Int(b)) | (Self::Timestamp(a), Value::Timestamp(b)) => a.cmp(b),
            (Self::Date(a), Value::Date(b)) => a.cmp(b),
            (Self::Float(a), Value::Float(b)) => return a.partial_cmp(b),
            (Self::Decimal { unscaled, scale }, Value::Decimal { .. }) => {
                let (unscaled, scale) = (*unscaled, *scale);
                Value::Decimal { unscaled, scale }.cmp(other)
            }
            (Self::String(a), Value::String(b)) => a.as_bytes().cmp(b.as_bytes()),
            _ => return None,
        })
    }
}

impl fmt::Display for Cell<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(v) => write!(f, "{v}"),
            Self::Int(v) => write!(f, "{v}"),
            Self::Float(v) => write!(f, "{v}"),
            Self::Decimal { unscaled, scale } => f.write_str(&format_decimal(*unscaled, *scale)),
            Self::Timestamp(v) => f.write_str(&format_timestamp(*v)),
            Self::Date(v) => f.write_str(&format_date(*v)),
            Self::String(v) => write!(f, "\"{}\"", shorten(v)),
            Self::Bytes(v) => write!(f, "{} bytes", v.len()),
            Self::Nested(v) => write!(f, "{v} items"),
        }
    }
}

/// A decimal as text, with all digits of its scale.
pub(crate) fn format_decimal(unscaled: i128, scale: i8) -> String {
    let sign = if unscaled < 0 { "-" } else { "" };
    let mut digits = unscaled.unsigned_abs().to_string();
    if scale <= 0 {
        if unscaled != 0 {
            digits.extend(std::iter::repeat_n('0', usize::from(scale.unsigned_abs())));
        }
        return format!("{sign}{digits}");
    }
    let scale = usize::from(scale.unsigned_abs());
    if digits.len() <= scale {
        digits.insert_str(0, &"0".repeat(scale + 1 - digits.len()));
    }
    let point = digits.len() - scale;
    format!("{sign}{}.{}", &digits[..point], &digits[point..])
}

/// Text of plain digits as a decimal of `scale`; none where digits would be lost or don't fit.
pub fn parse_decimal(text: &str, precision: u8, scale: i8) -> Option<i128> {
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], text[at + 1..].parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (negative, digits) = match mantissa.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, mantissa.strip_prefix('+').unwrap_or(mantissa)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.len() + fraction.len() == 0 {
        return None;
    }
    let mut unscaled = 0i128;
    for digit in whole.bytes().chain(fraction.bytes()) {
        if !digit.is_ascii_digit() {
            return None;
        }
        unscaled = unscaled
            .checked_mul(10)?
            .checked_add(i128::from(digit - b'0'))?;
    }
    let shift = i64::from(scale) + i64::from(exponent) - i64::try_from(fraction.len()).ok()?;
    if unscaled != 0 {
        let power = 10i128.checked_pow(u32::try_from(shift.unsigned_abs()).ok()?)?;
        unscaled = match shift {
            0.. => unscaled.checked_mul(power)?,
            _ if unscaled % power == 0 => unscaled / power,
            _ => return None,
        };
    }
    let limit = 10i128.checked_pow(u32::from(precision))?;
    (unscaled < limit).then_some(if negative { -unscaled } else { unscaled })
}

/// Which rule a value breaks, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub rule: &'static str,
    pub reason: String,
}

impl Rules {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Checks a value that is not null.
    pub fn check(&self, cell: &Cell<'_>) -> Result<(), Violation> {
        self.check_bounds(cell)?;
        match cell {
            Cell::String(text) => self.check_text(text)?,
            Cell::Bytes(bytes) => self.check_length(bytes.len() as u64, "bytes")?,
            Cell::Nested(count) => self.check_count(*count as u64)?,
            _ => {}
        }
        if let Some(divisor) = &self.multiple_of
            && !is_multiple(cell, divisor)
        {
            return violation(
                "multipleOf",
                format!("{cell} is no multiple of {}", show(divisor)),
            );
        }
        match &self.enumeration {
            Some(allowed) if !allowed.contains(cell) => {
                violation("validValues", not_among(cell, allowed))
            }
            _ => Ok(()),
        }
    }

    fn check_bounds(&self, cell: &Cell<'_>) -> Result<(), Violation> {
        use Ordering::{Equal, Greater, Less};
        type Bound<'a> = (
            &'static str,
            &'a Option<Value>,
            &'static [Ordering],
            &'static str,
        );
        let bounds: [Bound<'_>; 4] = [
            ("minimum", &self.minimum, &[Less], "less than"),
            (
                "exclusiveMinimum",
                &self.exclusive_minimum,
                &[Less, Equal],
                "not greater than",
            ),
            ("maximum", &self.maximum, &[Greater], "greater than"),
            (
                "exclusiveMaximum",
                &self.exclusive_maximum,
                &[Greater, Equal],
                "not less than",
            ),
        ];
        for (rule, bound, broken, words) in bounds {
            if let Some(bound) = bound
                && cell
                    .compare(bound)
                    .is_some_and(|order| broken.contains(&order))
            {
                return violation(rule, format!("{cell} is {words} {}", show(bound)));
            }
        }
        Ok(())
    }

    fn check_text(&self, text: &str) -> Result<(), Violation> {
        if self.min_length.is_some() || self.max_length.is_some() {
            self.check_length(text.chars().count() as u64, "characters")?;
        }
        if let Some(pattern) = &self.pattern
            && !pattern.0.is_match(text)
        {
            let reason = format!(
                "\"{}\" does not match `{}`",
                shorten(text),
                pattern.as_str()
            );
            return violation("pattern", reason);
        }
        match self.format {
            Some(format) if !format.matches(text) => violation(
                "format",
                format!("\"{}\" is no {}", shorten(text), format.as_str()),
            ),
            _ => Ok(()),
        }
    }

    fn check_length(&self, length: u64, unit: &str) -> Result<(), Violation> {
        if let Some(least) = self.min_length.filter(|least| length < *least) {
            return violation(
                "minLength",
                format!("{length} {unit} are fewer than {least}"),
            );
        }
        match self.max_length.filter(|most| length > *most) {
            Some(most) => violation("maxLength", format!("{length} {unit} are more than {most}")),
            None => Ok(()),
        }
    }

    fn check_count(&self, count: u64) -> Result<(), Violation> {
        let limits = [
            ("minItems", self.min_items, true),
            ("maxItems", self.max_items, false),
            ("minProperties", self.min_properties, true),
            ("maxProperties", self.max_properties, false),
        ];
        for (rule, limit, is_least) in limits {
            match limit {
                Some(least) if is_least && count < least => {
                    return violation(rule, format!("{count} are fewer than {least}"));
                }
                Some(most) if !is_least && count > most => {
                    return violation(rule, format!("{count} are more than {most}"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn violation<T>(rule: &'static str, reason: String) -> Result<T, Violation> {
    Err(Violation { rule, reason })
}

fn not_among(cell: &Cell<'_>, allowed: &Enumeration) -> String {
    let near = match cell {
        Cell::String(text) => nearest(text, allowed.texts.iter().map(AsRef::as_ref)),
        _ => None,
    };
    match near {
        Some(near) => format!("{cell} is not allowed; \"{near}\" is"),
        None => format!(
            "{cell} is none of the {} allowed values",
            allowed.values.len()
        ),
    }
}

fn is_multiple(cell: &Cell<'_>, divisor: &Value) -> bool {
    match (cell, divisor) {
        (Cell::Int(value), Value::Int(divisor)) => value.checked_rem(*divisor).unwrap_or(0) == 0,
        (Cell::Float(value), Value::Float(divisor)) => {
            // 0.3 / 0.1 is 2.9999999999999996: quotients count as whole within a few units of
            // the last place.
            let quotient = value / divisor;
            !quotient.is_finite()
                || (quotient - quotient.round()).abs()
                    <= quotient.abs().max(1.0) * 4.0 * f64::EPSILON
        }
        (
            Cell::Decimal { unscaled, scale },
            Value::Decimal {
                unscaled: divisor,
                scale: other,
            },
        ) => {
            let common = (*scale).max(*other);
            let at = |v: i128, s: i8| {
                10i128
                    .checked_pow(u32::from(common.abs_diff(s)))
                    .and_then(|p| v.checked_mul(p))
            };
            match (at(*unscaled, *scale), at(*divisor, *other)) {
                (Some(value), Some(divisor)) => value.checked_rem(divisor).unwrap_or(0) == 0,
                _ => true,
            }
        }
        _ => true,
    }
}

/// A bound as a person would write it.
pub(crate) fn show(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(v) => v.to_string(),
        Value::Int(v) => v.to_string(),
        Value::Float(v) => v.to_string(),
        Value::Decimal { unscaled, scale } => format_decimal(*unscaled, *scale),
        Value::Timestamp(v) => format_timestamp(*v),
        Value::Date(v) => format_date(*v),
        Value::String(v) => format!("\"{}\"", shorten(v)),
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_exact() {
        for (text, precision, scale, expected) in [
            ("12.34", 12, 2, Some(1234)),
            ("-0.5", 12, 2, Some(-50)),
            ("12.340", 12, 2, Some(1234)),
            ("12.345", 12, 2, None),
            ("1e3", 12, 2, Some(100_000)),
            ("1E-2", 12, 2, Some(1)),
            ("9999.99", 6, 2, Some(999_999)),
            ("10000", 6, 2, None),
            ("", 6, 2, None),
            (".", 6, 2, None),
            ("0e99999999", 6, 2, Some(0)),
            ("1e99999999", 6, 2, None),
            ("170141183460469231731687303715884105728", 38, 0, None),
        ] {
            assert_eq!(parse_decimal(text, precision, scale), expected, "{text}");
        }
        for (unscaled, scale, text) in [
            (1234, 2, "12.34"),
            (-5, 2, "-0.05"),
            (0, 2, "0.00"),
            (7, 0, "7"),
            (7, -2, "700"),
        ] {
            assert_eq!(format_decimal(unscaled, scale), text);
        }
    }

    #[test]
    fn formats_and_multiples() {
        let cases = [
            (TextFormat::Email, "a@b.org", "a b@c"),
            (
                TextFormat::Uuid,
                "123e4567-e89b-12d3-a456-426614174000",
                "123e4567",
            ),
            (TextFormat::Ipv4, "10.0.0.1", "10.0.0.256"),
            (TextFormat::Ipv6, "::1", "1"),
            (TextFormat::Hostname, "a-b.example", "-a"),
            (TextFormat::Time, "10:17:00.5", "25:00:00"),
        ];
        for (format, good, bad) in cases {
            assert!(format.matches(good), "{good}");
            assert!(!format.matches(bad), "{bad}");
        }
        assert!(is_multiple(&Cell::Float(0.3), &Value::Float(0.1)));
        assert!(!is_multiple(&Cell::Float(0.35), &Value::Float(0.1)));
        assert!(!is_multiple(&Cell::Int(7), &Value::Int(5)));
    }
}
