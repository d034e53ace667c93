//! Instants, durations, time zones and integer time units, as text and as microseconds.
//!
//! A local time that a zone skips (a gap, when clocks go forward) is moved forward by the length
//! of the gap; one that occurs twice (a fold, when they go back) means the earlier. Zones come
//! from the IANA database that is compiled in, so that every machine reads them alike.

use std::fmt;
use std::str::FromStr;

use jiff::civil;
use jiff::tz::TimeZoneDatabase;
use serde::{Deserialize, Serialize};

use crate::Micros;

pub const MICROS_PER_SECOND: i64 = 1_000_000;
pub const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;

/// The unit of times that are written as integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TimeUnit {
    #[serde(rename = "s")]
    Seconds,
    #[serde(rename = "ms")]
    Millis,
    #[serde(rename = "us")]
    Micros,
    #[serde(rename = "ns")]
    Nanos,
}

impl TimeUnit {
    pub const ALL: [Self; 4] = [Self::Seconds, Self::Millis, Self::Micros, Self::Nanos];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Seconds => "s",
            Self::Millis => "ms",
            Self::Micros => "us",
            Self::Nanos => "ns",
        }
    }

    /// `value` of this unit in microseconds, floored; none where it doesn't fit.
    pub const fn to_micros(self, value: i64) -> Option<Micros> {
        match self {
            Self::Seconds => value.checked_mul(MICROS_PER_SECOND),
            Self::Millis => value.checked_mul(1000),
            Self::Micros => Some(value),
            Self::Nanos => Some(value.div_euclid(1000)),
        }
    }
}

impl fmt::Display for TimeUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for TimeUnit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|unit| unit.as_str() == text)
            .ok_or_else(|| format!("`{text}` is no time unit; use s, ms, us or ns"))
    }
}

/// A time zone of the IANA database, by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeZone {
    name: String,
    zone: jiff::tz::TimeZone,
}

impl TimeZone {
    pub fn utc() -> Self {
        Self {
            name: "UTC".to_owned(),
            zone: jiff::tz::TimeZone::UTC,
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The instant of a local time; gaps and folds as the module says.
    fn instant(&self, local: civil::DateTime) -> Result<Micros, String> {
        self.zone
            .to_ambiguous_timestamp(local)
            .compatible()
            .map(|t| t.as_microsecond())
            .map_err(|_| format!("`{local}` is outside the years that times can have"))
    }

    /// The first instant of a day, given in days since the Unix epoch.
    pub fn start_of_day(&self, date: i32) -> Option<Micros> {
        let (year, month, day) = civil_from_days(i64::from(date));
        let local = civil::DateTime::new(
            i16::try_from(year).ok()?,
            i8::try_from(month).ok()?,
            i8::try_from(day).ok()?,
            0,
            0,
            0,
            0,
        );
        self.instant(local.ok()?).ok()
    }
}

impl FromStr for TimeZone {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let zone = TimeZoneDatabase::bundled().get(text).map_err(|_| {
            format!("`{text}` is no time zone of the IANA database; write for example `America/New_York`")
        })?;
        let name = zone.iana_name().unwrap_or(text).to_owned();
        Ok(Self { name, zone })
    }
}

impl fmt::Display for TimeZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// A length of time in microseconds. Written `250ms`, `90s`, `5m`, `36h`, `30d`, `2w`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(pub i64);

/// Units from the longest, with their microseconds.
const DURATION_UNITS: [(&str, i64); 6] = [
    ("w", 7 * MICROS_PER_DAY),
    ("d", MICROS_PER_DAY),
    ("h", 3600 * MICROS_PER_SECOND),
    ("m", 60 * MICROS_PER_SECOND),
    ("s", MICROS_PER_SECOND),
    ("ms", 1000),
];

impl Duration {
    pub const fn micros(self) -> i64 {
        self.0
    }
}

impl FromStr for Duration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || {
            format!(
                "`{text}` is no duration; write a whole number and one of ms, s, m, h, d, w, as in `90s` or `7d`"
            )
        };
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let (_, factor) = DURATION_UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(bad)?;
        if number.is_empty() {
            return Err(bad());
        }
        number
            .parse::<i64>()
            .ok()
            .and_then(|n| n.checked_mul(*factor))
            .map(Self)
            .ok_or_else(|| format!("`{text}` is longer than a duration can be"))
    }
}

/// In the largest unit that divides it: `14d` comes back as `2w`, `120s` as `2m`.
impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, factor) in DURATION_UNITS {
            if self.0 != 0 && self.0 % factor == 0 {
                return write!(f, "{}{name}", self.0 / factor);
            }
        }
        match self.0 {
            0 => f.write_str("0s"),
            micros => write!(f, "{micros}us"),
        }
    }
}

impl Serialize for Duration {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Reads RFC 3339. Without an offset it is a local time of `zone`, and an error where that is none.
/// Digits beyond microseconds are dropped towards the past.
pub fn parse_timestamp(text: &str, zone: Option<&TimeZone>) -> Result<Micros, String> {
    let bad = || {
        format!(
            "`{}` is no RFC 3339 time such as `2013-01-01T10:17:00Z`",
            shorten(text)
        )
    };
    let bytes = text.as_bytes();
    let days = parse_date_bytes(bytes.get(..10).ok_or_else(bad)?).ok_or_else(bad)?;
    if !matches!(bytes.get(10), Some(b'T' | b't' | b' ')) {
        return Err(bad());
    }
    let clock = bytes.get(11..19).ok_or_else(bad)?;
    if clock[2] != b':' || clock[5] != b':' {
        return Err(bad());
    }
    let number = |at: usize| two_digits(&clock[at..at + 2]).ok_or_else(bad);
    let (hour, minute, second) = (number(0)?, number(3)?, number(6)?);
    if hour > 23 || minute > 59 || second > 59 {
        return Err(format!("`{text}` has a time of day that no clock shows"));
    }
    let (fraction, rest) = parse_fraction(&bytes[19..]).ok_or_else(bad)?;
    let of_day = (hour * 3600 + minute * 60 + second) * MICROS_PER_SECOND + fraction;
    let local = days * MICROS_PER_DAY + of_day;
    match (rest, zone) {
        ([b'Z' | b'z'], _) => Ok(local),
        ([], None) => Err(format!(
            "`{text}` has no offset, and the contract names no time zone"
        )),
        ([], Some(zone)) => zone.instant(local_time(days, of_day).ok_or_else(bad)?),
        ([sign @ (b'+' | b'-'), h1, h2, b':', m1, m2], _) => {
            let hours = two_digits(&[*h1, *h2]).ok_or_else(bad)?;
            let minutes = two_digits(&[*m1, *m2]).ok_or_else(bad)?;
            if hours > 23 || minutes > 59 {
                return Err(bad());
            }
            let offset = (hours * 60 + minutes) * 60 * MICROS_PER_SECOND;
            Ok(if *sign == b'+' {
                local - offset
            } else {
                local + offset
            })
        }
        _ => Err(bad()),
    }
}

/// `2013-01-01T10:17:00Z`, with a fraction of a second only where there is one.
pub fn format_timestamp(t: Micros) -> String {
    let mut text = String::with_capacity(TIMESTAMP_CHARACTERS);
    push_timestamp(&mut text, t);
    text
}

/// Room for a timestamp of a year with four digits.
const TIMESTAMP_CHARACTERS: usize = 27;

/// Appends what [`format_timestamp`] gives.
pub fn push_timestamp(text: &mut String, t: Micros) {
    let days = t.div_euclid(MICROS_PER_DAY);
    let of_day = t.rem_euclid(MICROS_PER_DAY);
    let (seconds, micros) = (of_day / MICROS_PER_SECOND, of_day % MICROS_PER_SECOND);
    push_days(text, days);
    for (mark, number) in [
        ('T', seconds / 3600),
        (':', seconds / 60 % 60),
        (':', seconds % 60),
    ] {
        text.push(mark);
        push_digits(text, number, 2);
    }
    if micros != 0 {
        text.push('.');
        push_digits(text, micros, 6);
        text.truncate(text.trim_end_matches('0').len());
    }
    text.push('Z');
}

/// Appends a number that isn't negative, with leading zeros up to `width` digits.
fn push_digits(text: &mut String, number: i64, width: u32) {
    for place in (0..width).rev() {
        let digit = number / 10i64.pow(place) % 10;
        text.push(char::from(b'0' + digit as u8));
    }
}

/// Reads `2013-01-31` as days since the Unix epoch.
pub fn parse_date(text: &str) -> Result<i32, String> {
    (text.len() == 10)
        .then(|| parse_date_bytes(text.as_bytes()))
        .flatten()
        .and_then(|days| i32::try_from(days).ok())
        .ok_or_else(|| format!("`{}` is no date such as `2013-01-31`", shorten(text)))
}

/// Days since the Unix epoch as `2013-01-31`.
pub fn format_date(days: i32) -> String {
    let mut text = String::with_capacity(TIMESTAMP_CHARACTERS);
    push_days(&mut text, i64::from(days));
    text
}

fn push_days(text: &mut String, days: i64) {
    let (year, month, day) = civil_from_days(days);
    if (0..=9999).contains(&year) {
        push_digits(text, year, 4);
    } else {
        text.push_str(&format!("{year:+07}"));
    }
    for number in [month, day] {
        text.push('-');
        push_digits(text, number, 2);
    }
}

/// At most 60 characters of a text that a message quotes.
pub(crate) fn shorten(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

fn local_time(days: i64, of_day: i64) -> Option<civil::DateTime> {
    let (year, month, day) = civil_from_days(days);
    let seconds = of_day / MICROS_PER_SECOND;
    civil::DateTime::new(
        i16::try_from(year).ok()?,
        i8::try_from(month).ok()?,
        i8::try_from(day).ok()?,
        i8::try_from(seconds / 3600).ok()?,
        i8::try_from(seconds / 60 % 60).ok()?,
        i8::try_from(seconds % 60).ok()?,
        i32::try_from(of_day % MICROS_PER_SECOND * 1000).ok()?,
    )
    .ok()
}

/// A fraction of a second in microseconds, and what follows it.
fn parse_fraction(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let Some((b'.', digits_and_rest)) = bytes.split_first() else {
        return Some((0, bytes));
    };
    let len = digits_and_rest
        .iter()
        .take_while(|b| b.is_ascii_digit())
        .count();
    if len == 0 {
        return None;
    }
    let (digits, rest) = digits_and_rest.split_at(len);
    let micros = (0..6).fold(0, |sum, i| {
        sum * 10 + digits.get(i).map_or(0, |d| i64::from(d - b'0'))
    });
    Some((micros, rest))
}

fn parse_date_bytes(bytes: &[u8]) -> Option<i64> {
    if bytes.len() != 10 || bytes[4] != b'-' || bytes[7] != b'-' {
        return None;
    }
    let year = two_digits(&bytes[..2])? * 100 + two_digits(&bytes[2..4])?;
    let (month, day) = (two_digits(&bytes[5..7])?, two_digits(&bytes[8..10])?);
    if !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
        return None;
    }
    Some(days_from_civil(year, month, day))
}

fn two_digits(bytes: &[u8]) -> Option<i64> {
    match bytes {
        [a, b] if a.is_ascii_digit() && b.is_ascii_digit() => {
            Some(i64::from(a - b'0') * 10 + i64::from(b - b'0'))
        }
        _ => None,
    }
}

fn days_in_month(year: i64, month: i64) -> i64 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 of a Gregorian date. Years are counted from March, so that the leap day
/// is the last of its year; 400 years are 146,097 days.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests;
