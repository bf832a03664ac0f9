//! Numbers as people read them: two or three significant digits, a real minus sign, and a dash
//! where there is no number.

/// What stands where a number is not defined.
pub const NONE: &str = "–";

/// A share as a percentage: `12.3%`, `4.8%`, `0.34%`.
pub fn percent(share: f64) -> String {
    let x = share * 100.0;
    let digits = match x.abs() {
        a if !a.is_finite() => return NONE.into(),
        // What a few minutes would be in a year.
        a if a >= 1e6 => return format!("{}%", minus(format!("{x:.1e}"))),
        a if a >= 99.95 || a == 0.0 => 0,
        a if a >= 0.995 => 1,
        a if a < 0.005 => return "≈0%".into(),
        _ => 2,
    };
    format!("{}%", minus(format!("{x:.digits$}")))
}

/// A percentage that says its sign: `+12.3%`.
pub fn signed_percent(share: f64) -> String {
    let text = percent(share);
    if share > 0.0 && !text.starts_with('≈') { format!("+{text}") } else { text }
}

/// A ratio: `1.23`, `12.3`, `123`.
pub fn ratio(x: f64) -> String {
    let digits = match x.abs() {
        a if !a.is_finite() => return NONE.into(),
        a if a >= 99.95 => 0,
        a if a >= 9.995 => 1,
        _ => 2,
    };
    minus(format!("{x:.digits$}"))
}

/// Rounded to a whole number.
pub fn whole(x: f64) -> String {
    fixed(x, 0)
}

/// With a fixed number of decimals.
pub fn fixed(x: f64, digits: usize) -> String {
    minus(format!("{x:.digits$}"))
}

/// A whole number in groups of three: `12,345`.
pub fn count(n: usize) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(c);
    }
    text
}

/// A count with its noun: `1 trade`, `2 trades`.
pub fn many(n: usize, noun: &str) -> String {
    format!("{} {noun}{}", count(n), if n == 1 { "" } else { "s" })
}

/// An ordinal: `1st`, `43rd`, `97th`.
pub fn ordinal(n: usize) -> String {
    let end = match (n % 10, n % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{n}{end}")
}

/// A number that may not be there.
pub fn or_none(x: Option<f64>, show: fn(f64) -> String) -> String {
    x.map_or_else(|| NONE.into(), show)
}

/// `-0.00` is 0.00, and a hyphen is no minus sign.
fn minus(text: String) -> String {
    match text.strip_prefix('-') {
        Some(rest) if rest.chars().all(|c| matches!(c, '0' | '.')) => rest.into(),
        Some(rest) => format!("−{rest}"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let percents = [0.12345, 0.0482, 0.00341, -0.5, 1.234, 0.0, -0.00001, 0.9999, f64::NAN];
        assert_eq!(
            percents.map(percent),
            ["12.3%", "4.8%", "0.34%", "−50.0%", "123%", "0%", "≈0%", "100%", "–"]
        );
        assert_eq!([1.234, -0.001, 12.34, 1234.5].map(ratio), ["1.23", "0.00", "12.3", "1234"]);
        assert_eq!([0, 999, 1000, 1234567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(
            [1, 2, 3, 11, 43, 112].map(ordinal),
            ["1st", "2nd", "3rd", "11th", "43rd", "112th"]
        );
        assert_eq!([many(1, "trade"), many(2000, "trade")], ["1 trade", "2,000 trades"]);
        assert_eq!([signed_percent(0.1), signed_percent(-0.1)], ["+10.0%", "−10.0%"]);
    }
}
