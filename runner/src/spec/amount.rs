//! Amounts with their units: `90s`, `2h`, `512MiB`, `16GiB`.

use std::time::Duration;

/// `500ms`, `90s`, `10m`, `2h`, `1d`, or a sum such as `1h30m`.
pub fn duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (number, unit, behind) = part(rest)?;
        let seconds = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return None,
        };
        total = total.checked_add(Duration::try_from_secs_f64(number * seconds).ok()?)?;
        rest = behind.trim_start();
    }
    (total > Duration::ZERO).then_some(total)
}

/// Bytes of `512MiB`, `16GiB`, `1.5GB`.
pub fn size(text: &str) -> Option<u64> {
    let (number, unit, rest) = part(text.trim())?;
    let bytes = match unit {
        "B" => 1.0,
        "KiB" => 1024f64,
        "MiB" => 1024f64.powi(2),
        "GiB" => 1024f64.powi(3),
        "TiB" => 1024f64.powi(4),
        "kB" | "KB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        "TB" => 1e12,
        _ => return None,
    };
    let bytes = number * bytes;
    (rest.is_empty() && (1.0..1e18).contains(&bytes)).then_some(bytes as u64)
}

/// The first number of a text, its unit, and what follows.
fn part(text: &str) -> Option<(f64, &str, &str)> {
    let (number, rest) = split(text, |c| c.is_ascii_digit() || c == '.');
    let (unit, behind) = split(rest.trim_start(), |c| c.is_ascii_alphabetic());
    Some((number.parse().ok()?, unit, behind))
}

fn split(text: &str, of: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !of(c)).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        let seconds = |text| duration(text).map(|d| d.as_secs_f64());
        assert_eq!(seconds("90s"), Some(90.0));
        assert_eq!(seconds("1h30m"), Some(5400.0));
        assert_eq!(seconds("1.5 d"), Some(129_600.0));
        assert_eq!(seconds("250ms"), Some(0.25));
        for wrong in ["", "90", "s", "10 minutes", "0s", "-1s", "1e99d", "1h 30"] {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(size("16GiB"), Some(16 << 30));
        assert_eq!(size("512 MiB"), Some(512 << 20));
        assert_eq!(size("1.5GB"), Some(1_500_000_000));
        for wrong in ["", "16", "16G", "GiB", "1GiB2", "0B", "-1B", "9999999TiB"] {
            assert_eq!(size(wrong), None, "{wrong}");
        }
    }
}
