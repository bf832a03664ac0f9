//! Time stamps: nanoseconds since 1970-01-01 UTC in an `i64` (years 1678 to 2261), read from ISO 8601
//! or from epochs, and written back in the form in which they came.
//!
//! There are no calendars of exchanges here and no names of time zones ([`super::zone`] knows those): an
//! offset is a number or `Z`, and a stamp without one is taken as UTC. A file must keep to one way
//! ([`Zones`]).

use std::fmt::Write;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Nanoseconds in a second.
pub const SECOND: i64 = 1_000_000_000;
/// Nanoseconds in a day.
pub const DAY: i64 = 86_400 * SECOND;

/// How fine a written time is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// `2021-12-31`
    #[default]
    Date,
    /// `2021-12-31T23:01:00Z`
    Seconds,
    /// `2021-12-31T23:01:00.000Z`
    Millis,
    /// `2021-12-31T23:01:00.000000Z`
    Micros,
    /// `2021-12-31T23:01:00.000000000Z`
    Nanos,
}

impl Form {
    /// The coarsest form with a time of day that tells multiples of `step` nanoseconds apart.
    pub fn of_step(step: i64) -> Form {
        match step {
            _ if step % SECOND == 0 => Form::Seconds,
            _ if step % 1_000_000 == 0 => Form::Millis,
            _ if step % 1_000 == 0 => Form::Micros,
            _ => Form::Nanos,
        }
    }

    /// Writes a time; what is finer than the form is cut off.
    pub fn write(self, time: i64) -> String {
        let (days, nanos) = (time.div_euclid(DAY), time.rem_euclid(DAY));
        let (year, month, day) = civil(days);
        let mut text = format!("{year:04}-{month:02}-{day:02}");
        if self == Form::Date {
            return text;
        }
        let seconds = nanos / SECOND;
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        // Writing to a string cannot fail.
        let _ = write!(text, "T{hour:02}:{minute:02}:{second:02}");
        let fraction = nanos % SECOND;
        let _ = match self {
            Form::Date | Form::Seconds => Ok(()),
            Form::Millis => write!(text, ".{:03}", fraction / 1_000_000),
            Form::Micros => write!(text, ".{:06}", fraction / 1_000),
            Form::Nanos => write!(text, ".{fraction:09}"),
        };
        text.push('Z');
        text
    }
}

/// Whether a written time names its zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zone {
    /// A date without a time of day: no zone is to be expected.
    Day,
    /// A date and time without a zone.
    None,
    /// `Z` or `+hh:mm`.
    Offset,
    /// A count since 1970-01-01 UTC.
    Epoch,
}

/// A time as a file has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Nanoseconds since 1970-01-01 UTC.
    pub time: i64,
    /// How fine it was written.
    pub form: Form,
    /// Whether it names its zone.
    pub zone: Zone,
}

/// What a time may look like: the hint of every message on one.
pub const HINT: &str = "write times as YYYY-MM-DD, YYYY-MM-DD HH:MM:SS with a fraction, `Z` or +hh:mm \
                        after it where there is one, or as whole seconds, ms, us or ns since 1970";

/// Reads a time: `YYYY-MM-DD`, perhaps with `T` or a space and `HH:MM`, `HH:MM:SS` or fractions of a
/// second, perhaps with `Z`, `+hh:mm` or `+hhmm`; or a count since 1970 of 9 digits or more, whose unit
/// (s, ms, us, ns) its magnitude tells, seconds perhaps with a fraction. Digits beyond nanoseconds are
/// cut off. `None` where it is neither, or no such day.
pub fn parse(text: &str) -> Option<Stamp> {
    let text = text.trim();
    let bytes = text.as_bytes();
    if bytes.get(4) != Some(&b'-') {
        return epoch(text);
    }
    let (day, rest) = text.split_at_checked(10)?;
    let mut parts = day.split('-');
    let (year, month, of_month) = (parts.next()?, parts.next()?, parts.next()?);
    let (year, month, of_month) = (digits(year, 4)?, digits(month, 2)?, digits(of_month, 2)?);
    if parts.next().is_some() || !(1..=days_of(year, month)?).contains(&of_month) {
        return None;
    }
    let midnight = days(year, month, of_month).checked_mul(DAY)?;
    if rest.is_empty() {
        return Some(Stamp { time: midnight, form: Form::Date, zone: Zone::Day });
    }
    let rest = rest.strip_prefix('T').or_else(|| rest.strip_prefix(' '))?;
    let (clock, offset, zone) = zoned(rest)?;
    let (clock, fraction) = match clock.split_once('.') {
        Some((clock, fraction)) => (clock, Some(fraction)),
        None => (clock, None),
    };
    let mut parts = clock.split(':');
    let (hour, minute) = (digits(parts.next()?, 2)?, digits(parts.next()?, 2)?);
    let second = match parts.next() {
        Some(second) => digits(second, 2)?,
        None if fraction.is_some() => return None,
        None => 0,
    };
    // A leap second is the first of the next minute, as on every clock that counts from 1970.
    if parts.next().is_some() || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (nanos, form) = match fraction {
        Some(fraction) => fine(fraction)?,
        None => (0, Form::Seconds),
    };
    let of_day = (hour * 3600 + minute * 60 + second - offset * 60) * SECOND + nanos;
    Some(Stamp { time: midnight.checked_add(of_day)?, form, zone })
}

/// Cuts off `Z` or an offset, in minutes.
fn zoned(text: &str) -> Option<(&str, i64, Zone)> {
    if let Some(clock) = text.strip_suffix('Z').or_else(|| text.strip_suffix(" UTC")) {
        return Some((clock, 0, Zone::Offset));
    }
    let Some(at) = text.rfind(['+', '-']) else { return Some((text, 0, Zone::None)) };
    let (clock, offset) = text.split_at(at);
    let (sign, offset) = offset.split_at_checked(1)?;
    let (hours, minutes) = match offset.split_once(':') {
        Some(both) => both,
        None if offset.len() == 4 => offset.split_at_checked(2)?,
        None => (offset, "00"),
    };
    let (hours, minutes) = (digits(hours, 2)?, digits(minutes, 2)?);
    if hours > 18 || minutes > 59 {
        return None;
    }
    let ahead = hours * 60 + minutes;
    Some((clock.trim_end(), if sign == "-" { -ahead } else { ahead }, Zone::Offset))
}

/// Nanoseconds of a fraction's digits, and the form that shows them.
fn fine(fraction: &str) -> Option<(i64, Form)> {
    if fraction.is_empty() || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanos = fraction.bytes().take(9).fold(0, |sum, b| sum * 10 + i64::from(b - b'0'));
    let missing = 9 - fraction.len().min(9) as u32;
    let form = match fraction.len() {
        0..=3 => Form::Millis,
        4..=6 => Form::Micros,
        _ => Form::Nanos,
    };
    Some((nanos * 10_i64.pow(missing), form))
}

fn epoch(text: &str) -> Option<Stamp> {
    let (whole, fraction) = match text.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (text, None),
    };
    // With fewer digits it would be before 1973, and is more likely a date such as 20240809.
    if whole.len() < 9 || !whole.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let count: i64 = whole.parse().ok()?;
    let (unit, form) = match count {
        0..100_000_000_000 => (SECOND, Form::Seconds),
        100_000_000_000..100_000_000_000_000 => (1_000_000, Form::Millis),
        100_000_000_000_000..100_000_000_000_000_000 => (1_000, Form::Micros),
        _ => (1, Form::Nanos),
    };
    let time = count.checked_mul(unit)?;
    let (time, form) = match fraction {
        None => (time, form),
        Some(fraction) if unit == SECOND => {
            let (nanos, form) = fine(fraction)?;
            (time.checked_add(nanos)?, form)
        }
        // `1723161256172.0`, as a table of floats is written.
        Some(fraction) if fraction.bytes().all(|b| b == b'0') => (time, form),
        Some(_) => return None,
    };
    Some(Stamp { time, form, zone: Zone::Epoch })
}

/// Holds the stamps of one file to one way of naming the zone: a row that means another clock than its
/// neighbours is hours off, and nothing else shows it.
#[derive(Clone, Debug, Default)]
pub struct Zones {
    first: Option<(Zone, u64)>,
}

/// What [`Zones`] says to do.
pub const ZONE_HINT: &str = "write all times of a file with an offset, or none of them";

impl Zones {
    /// Takes the stamp of a line; the message where it differs from the lines before.
    pub fn check(&mut self, stamp: &Stamp, line: u64) -> Result<(), String> {
        let Some((zone, first)) = self.first else {
            self.first = Some((stamp.zone, line));
            return Ok(());
        };
        // A day at midnight among times without a zone is how some tables write midnight.
        let plain = |zone| matches!(zone, Zone::Day | Zone::None);
        if zone == stamp.zone || plain(zone) && plain(stamp.zone) {
            return Ok(());
        }
        let name = |zone| match zone {
            Zone::Day | Zone::None => "no time zone",
            Zone::Offset => "a time zone",
            Zone::Epoch => "a count since 1970",
        };
        Err(format!("the time has {}, that of line {first} {}", name(stamp.zone), name(zone)))
    }
}

fn digits(text: &str, width: usize) -> Option<i64> {
    let plain = text.len() == width && text.bytes().all(|b| b.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

fn days_of(year: i64, month: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    Some(match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 => 28 + i64::from(leap),
        _ => return None,
    })
}

/// Days since 1970-01-01 of a day of the Gregorian calendar (H. Hinnant, `days_from_civil`).
pub(crate) fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The inverse of [`days`] (`civil_from_days`).
pub(crate) fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + i64::from(month <= 2), month, day)
}

/// A length of time, written as a number and a unit: `100ms`, `1s`, `5m`, `1h`, `1d` (also `us`, `ns`).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Span(
    /// Nanoseconds, above 0.
    pub i64,
);

const UNITS: [(&str, i64); 7] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", SECOND),
    ("m", 60 * SECOND),
    ("h", 3_600 * SECOND),
    ("d", DAY),
];

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Span, String> {
        let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = &text[number.len()..];
        let unit = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, unit)| *unit);
        let number = number.trim().parse::<i64>().ok().filter(|number| *number > 0);
        unit.zip(number)
            .and_then(|(unit, number)| unit.checked_mul(number))
            .map(Span)
            .ok_or_else(|| format!("`{text}` is not a length of time such as 100ms, 1s, 5m or 1h"))
    }
}

impl From<Span> for String {
    fn from(Span(nanos): Span) -> String {
        let fits = UNITS.iter().rev().find(|(_, unit)| nanos % unit == 0);
        let (name, unit) = fits.unwrap_or(&UNITS[0]);
        format!("{}{name}", nanos / unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> i64 {
        parse(text).unwrap_or_else(|| panic!("{text}")).time
    }

    #[test]
    fn iso_times_and_nothing_else() {
        assert_eq!(at("1970-01-01"), 0);
        assert_eq!(at("1969-12-31T23:59:59Z"), -SECOND);
        // `date -u -d 2024-08-09T00:00:00 +%s`
        assert_eq!(at("2024-08-09"), 1_723_161_600 * SECOND);
        assert_eq!(at("2000-02-29 12:00"), 951_825_600 * SECOND);
        assert_eq!(at("2024-08-09T02:00:00.5+02:00"), at("2024-08-09T00:00:00.500Z"));
        assert_eq!(at("2024-08-08 18:30:00-0530"), at("2024-08-09"));
        assert_eq!(at("2016-12-31T23:59:60Z"), at("2017-01-01"));
        for bad in [
            "",
            "1/4/1999",
            "1999-1-4",
            "1999-02-29",
            "1999-13-01",
            "1999-01-04 25:00",
            "2300-01-01",
            "1999-01-04 10:00.5",
            "1999-01-04 10:00:00.",
            "1999-01-04 10:00:00+1",
            "1999-01-04x",
            "é",
            "1999-01-04 10:00:00+25:00",
            "20240809",
            "-1723161600",
            "99999999999999999999",
            "nan",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn epochs_by_magnitude() {
        for (text, form) in [
            ("1723161600", Form::Seconds),
            ("1723161600000", Form::Millis),
            ("1723161600000.0", Form::Millis),
            ("1723161600000000", Form::Micros),
            ("1723161600000000000", Form::Nanos),
        ] {
            let stamp = parse(text).unwrap();
            assert_eq!((stamp.time, stamp.form), (1_723_161_600 * SECOND, form), "{text}");
        }
        assert_eq!(at("1723161600.25"), 1_723_161_600 * SECOND + SECOND / 4);
        assert_eq!(parse("1723161600000.25"), None);
    }

    #[test]
    fn written_as_read() {
        for text in [
            "1678-01-01",
            "1969-12-31",
            "2024-02-29",
            "2024-02-29T23:59:59Z",
            "1969-12-31T23:59:59.999Z",
            "2024-02-29T23:59:59.123456Z",
            "2261-12-31T00:00:00.123456789Z",
        ] {
            let stamp = parse(text).unwrap();
            assert_eq!(stamp.form.write(stamp.time), text);
        }
        for days in (-100_000..100_000).step_by(37) {
            let (year, month, day) = civil(days);
            assert_eq!(super::days(year, month, day), days);
        }
    }

    #[test]
    fn one_way_of_zones_in_a_file() {
        let mut zones = Zones::default();
        for (line, text) in (2..).zip(["2024-08-09", "2024-08-09 00:01:00"]) {
            zones.check(&parse(text).unwrap(), line).unwrap();
        }
        let message = zones.check(&parse("2024-08-09T00:02:00Z").unwrap(), 4).unwrap_err();
        assert_eq!(message, "the time has a time zone, that of line 2 no time zone");
        let message = zones.check(&parse("1723161600").unwrap(), 5).unwrap_err();
        assert_eq!(message, "the time has a count since 1970, that of line 2 no time zone");
    }

    #[test]
    fn spans() {
        for text in ["100ms", "1s", "90s", "5m", "1h", "2d", "7ns"] {
            assert_eq!(String::from(Span::try_from(text.to_owned()).unwrap()), text);
        }
        for bad in ["", "5", "s", "0s", "-1s", "1 week", "99999999d"] {
            assert!(Span::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }
}
