//! Small things to print: durations, sizes, tables, colours.

use std::io::IsTerminal;

/// Whether stderr takes colours: a terminal that is not dumb, and no `NO_COLOR`.
pub fn colour() -> bool {
    std::io::stderr().is_terminal() && plain_wish()
}

/// Whether stdout takes colours.
pub fn colour_out() -> bool {
    std::io::stdout().is_terminal() && plain_wish()
}

fn plain_wish() -> bool {
    let unset = |name| std::env::var_os(name).is_none_or(|value| value.is_empty());
    unset("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// The width of a terminal in characters, or what to take for a file or a pipe.
pub fn columns(stream: &impl std::os::fd::AsFd, otherwise: usize) -> usize {
    match terminal_size::terminal_size_of(stream) {
        Some((terminal_size::Width(width), _)) => width.into(),
        None => std::env::var("COLUMNS").ok().and_then(|c| c.parse().ok()).unwrap_or(otherwise),
    }
}

/// A colour of the terminal's own palette.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    /// Done.
    Green,
    /// About to run.
    Yellow,
    /// Failed.
    Red,
    /// Not known yet.
    Blue,
    /// Less important.
    Dim,
    /// Names.
    Bold,
}

/// Paints, if `on`.
pub fn paint(on: bool, paint: Paint, text: &str) -> String {
    let code = match paint {
        Paint::Green => 32,
        Paint::Yellow => 33,
        Paint::Red => 31,
        Paint::Blue => 34,
        Paint::Dim => 2,
        Paint::Bold => 1,
    };
    if on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// `0.4 s`, `38 s`, `3 min 05 s`, `2 h 10 min`.
pub fn duration(millis: u64) -> String {
    let seconds = millis.div_ceil(1000);
    match millis {
        0..=999 => format!("{millis} ms"),
        1_000..=9_999 => format!("{:.1} s", millis as f64 / 1000.0),
        10_000..=119_999 => format!("{seconds} s"),
        120_000..=7_199_999 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// `1 stage`, `3 stages`, `10,000 stages`.
pub fn count(n: usize, noun: &str) -> String {
    format!("{} {noun}{}", number(n), if n == 1 { "" } else { "s" })
}

/// `9,987`.
pub fn number(n: usize) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `0 bytes`, `812 bytes`, `3.4 KiB`, `12 GiB`.
pub fn bytes(n: u64) -> String {
    let mut size = n as f64;
    let mut unit = "bytes";
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        if size < 1000.0 {
            break;
        }
        (size, unit) = (size / 1024.0, next);
    }
    match unit {
        "bytes" if n == 1 => "1 byte".into(),
        "bytes" => format!("{n} bytes"),
        _ if size < 10.0 => format!("{size:.1} {unit}"),
        _ => format!("{size:.0} {unit}"),
    }
}

/// What fits into a width of a line, with a sign where something was cut off.
pub fn clip(text: &str, width: usize) -> String {
    match text.chars().count() > width {
        true => text.chars().take(width.saturating_sub(1)).chain(['…']).collect(),
        false => text.to_owned(),
    }
}

/// Pads to a width in characters.
pub fn pad(text: &str, width: usize) -> String {
    let missing = width.saturating_sub(text.chars().count());
    format!("{text}{}", " ".repeat(missing))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        let shown: Vec<String> =
            [7, 1_240, 38_000, 119_400, 185_000, 7_800_000].map(duration).to_vec();
        assert_eq!(shown, ["7 ms", "1.2 s", "38 s", "120 s", "3 min 05 s", "2 h 10 min"]);
        assert_eq!([7, 999, 1_000, 1_234_567].map(number), ["7", "999", "1,000", "1,234,567"]);
        let sizes = [0, 1, 999, 3_482, 40_000, 1 << 30].map(bytes);
        assert_eq!(sizes, ["0 bytes", "1 byte", "999 bytes", "3.4 KiB", "39 KiB", "1.0 GiB"]);
        assert_eq!([clip("abc", 3), clip("abcd", 3)], ["abc", "ab…"]);
    }
}
