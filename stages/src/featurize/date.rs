//! Dates as text: ISO 8601 sorts as it reads, so a date is checked once and then compared as a
//! string. No time zones: a file keeps to one.

/// The key by which a date sorts, or `None` where it is not an ISO date: `YYYY-MM-DD`, perhaps
/// with `T` or a space and `HH:MM`, `HH:MM:SS` or fractions of a second, perhaps with a final `Z`.
pub fn key(text: &str) -> Option<String> {
    let text = text.trim();
    let (day, time) = match text.split_at_checked(10)? {
        (day, "") => (day, None),
        (day, rest) => (day, Some(rest.strip_prefix('T').or_else(|| rest.strip_prefix(' '))?)),
    };
    let mut parts = day.split('-');
    let (year, month, of_month) = (parts.next()?, parts.next()?, parts.next()?);
    let (year, month, of_month) = (digits(year, 4)?, digits(month, 2)?, digits(of_month, 2)?);
    if parts.next().is_some() || !(1..=days(year, month)?).contains(&of_month) {
        return None;
    }
    let Some(time) = time else { return Some(day.to_owned()) };
    let time = time.strip_suffix('Z').unwrap_or(time);
    let (clock, fraction) = match time.split_once('.') {
        Some((clock, fraction)) => (clock, Some(fraction)),
        None => (time, None),
    };
    let mut parts = clock.split(':');
    let (hour, minute) = (digits(parts.next()?, 2)?, digits(parts.next()?, 2)?);
    let second = parts.next().map_or(Some(0), |s| digits(s, 2))?;
    let whole = parts.next().is_none() && hour < 24 && minute < 60 && second < 61;
    let fraction = fraction.unwrap_or("");
    if !whole || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(format!("{day}T{hour:02}:{minute:02}:{second:02}.{fraction:0<9}"))
}

/// Whether a row with key `row` lies at or before `bound`, where a bound that is only a day holds
/// all of that day.
pub fn up_to(row: &str, bound: &str) -> bool {
    row.get(..bound.len()).unwrap_or(row) <= bound
}

fn digits(text: &str, width: usize) -> Option<u32> {
    let plain = text.len() == width && text.bytes().all(|b| b.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

fn days(year: u32, month: u32) -> Option<u32> {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    Some(match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 => 28 + u32::from(leap),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iso_dates_and_nothing_else() {
        for good in ["1999-01-04", "2000-02-29", "2021-12-31 23:01:00.000000", "2021-12-31T23:01Z"]
        {
            assert!(key(good).is_some(), "{good}");
        }
        for bad in ["", "1/4/1999", "1999-1-4", "1999-02-29", "1999-13-01", "1999-01-04 25:00"] {
            assert!(key(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn keys_sort_as_time_does() {
        let times = [
            "2021-12-30",
            "2021-12-31",
            "2021-12-31 00:00:00",
            "2021-12-31T00:00:00.5",
            "2021-12-31 00:00:01",
            "2022-01-01",
        ];
        let keys: Vec<_> = times.iter().map(|t| key(t).unwrap()).collect();
        assert!(keys.windows(2).all(|w| w[0] < w[1]), "{keys:?}");
        assert_eq!(key("2021-12-31 23:01:00.000"), key("2021-12-31T23:01:00Z"));
    }

    #[test]
    fn a_day_as_a_bound_holds_all_of_it() {
        assert!(up_to("2021-12-31T23:59:00", "2021-12-31"));
        assert!(!up_to("2022-01-01T00:00:00", "2021-12-31"));
        assert!(up_to("2021-12-31", "2021-12-31"));
    }
}
