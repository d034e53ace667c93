//! Tests of times as text.

use proptest::prelude::*;

use super::*;

#[test]
fn timestamps_read_and_write() {
    for (text, expected) in [
        ("1970-01-01T00:00:00Z", 0),
        ("2013-01-01T10:17:00Z", 1_357_035_420_000_000),
        ("2013-01-01T05:17:00-05:00", 1_357_035_420_000_000),
        ("2013-01-01 10:17:00.25z", 1_357_035_420_250_000),
        ("1969-12-31T23:59:59.999999Z", -1),
        ("1969-12-31T23:59:59.9999999Z", -1),
        ("2012-02-29T00:00:00+14:00", 1_330_423_200_000_000),
    ] {
        assert_eq!(parse_timestamp(text, None), Ok(expected), "{text}");
    }
    assert_eq!(
        format_timestamp(1_357_035_420_250_000),
        "2013-01-01T10:17:00.25Z"
    );
    assert_eq!(format_timestamp(-1), "1969-12-31T23:59:59.999999Z");
}

#[test]
fn bad_timestamps_are_refused() {
    for text in [
        "",
        "2013-01-01",
        "2013-02-29T00:00:00Z",
        "2013-13-01T00:00:00Z",
        "2013-01-01T24:00:00Z",
        "2013-01-01T00:00:60Z",
        "2013-01-01T00:00:00",
        "2013-01-01T00:00:00+5:00",
        "2013-01-01T00:00:00.Z",
        "2013-01-01T00:00:00Zx",
        "2013-01-01T00:00:00+24:00",
        "1357035420",
        "２013-01-01T00:00:00Z",
    ] {
        assert!(parse_timestamp(text, None).is_err(), "{text}");
    }
}

#[test]
fn local_times_take_the_zone_and_its_rule_for_gaps_and_folds() {
    let zone: TimeZone = "America/New_York".parse().unwrap();
    for (local, utc) in [
        ("2013-01-01T05:17:00", "2013-01-01T10:17:00Z"),
        ("2013-07-01T05:17:00", "2013-07-01T09:17:00Z"),
        // Clocks went from 02:00 to 03:00: moved forward by the gap.
        ("2013-03-10T02:30:00", "2013-03-10T07:30:00Z"),
        // 01:30 came twice: the earlier.
        ("2013-11-03T01:30:00", "2013-11-03T05:30:00Z"),
        // An offset wins over the zone.
        ("2013-07-01T05:17:00Z", "2013-07-01T05:17:00Z"),
    ] {
        assert_eq!(
            parse_timestamp(local, Some(&zone)).map(format_timestamp),
            Ok(utc.to_owned())
        );
    }
    assert_eq!(
        zone.start_of_day(15_706).map(format_timestamp).as_deref(),
        Some("2013-01-01T05:00:00Z")
    );
    assert!("Mars/Olympus".parse::<TimeZone>().is_err());
}

#[test]
fn durations_read_and_write() {
    for (text, micros, canonical) in [
        ("250ms", 250_000, "250ms"),
        ("90s", 90_000_000, "90s"),
        ("5m", 300_000_000, "5m"),
        ("36h", 129_600_000_000, "36h"),
        ("30d", 2_592_000_000_000, "30d"),
        ("2w", 1_209_600_000_000, "2w"),
        ("14d", 1_209_600_000_000, "2w"),
        ("0s", 0, "0s"),
    ] {
        let duration: Duration = text.parse().unwrap();
        assert_eq!(
            (duration.0, duration.to_string().as_str()),
            (micros, canonical)
        );
    }
    for text in [
        "",
        "5",
        "m",
        "-5m",
        "5 m",
        "1.5h",
        "5M",
        "99999999999999w",
        "5min",
    ] {
        assert!(text.parse::<Duration>().is_err(), "{text}");
    }
}

#[test]
fn units_floor() {
    assert_eq!(TimeUnit::Nanos.to_micros(-1), Some(-1));
    assert_eq!(TimeUnit::Seconds.to_micros(i64::MAX), None);
    assert_eq!("ms".parse(), Ok(TimeUnit::Millis));
}

proptest! {
    #[test]
    fn formatted_times_read_back(t in -62_135_596_800_000_000i64..253_402_300_800_000_000) {
        prop_assert_eq!(parse_timestamp(&format_timestamp(t), None), Ok(t));
    }

    #[test]
    fn agrees_with_jiff(t in -62_135_596_800_000_000i64..253_402_207_200_000_000) {
        let text = jiff::Timestamp::from_microsecond(t).unwrap().to_string();
        prop_assert_eq!(format_timestamp(t), text);
    }

    #[test]
    fn no_text_panics(text in ".{0,40}") {
        let zone = "Europe/Berlin".parse::<TimeZone>().unwrap();
        let _ = parse_timestamp(&text, Some(&zone));
        let _ = text.parse::<Duration>();
        let _ = parse_date(&text);
        let _ = format_timestamp(i64::MIN);
    }
}
