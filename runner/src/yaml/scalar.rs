//! Scalars without quotes: what they are, and which are read differently by different readers.

use serde_json::Number;

use super::{Value, Yaml};
use crate::diagnostic::{Problem, Span};

/// Reads scalars, and refuses traps.
pub struct Scalars<'a> {
    pub text: &'a str,
    pub source: usize,
    pub problems: &'a mut Vec<Problem>,
}

impl Scalars<'_> {
    /// A plain scalar.
    pub fn plain(&mut self, written: &str, span: Span) -> Yaml {
        self.trap(span);
        Yaml { value: value(written), span }
    }

    /// Takes back what was said of `sandbox: off`, where it can mean nothing else. Problems from
    /// `told` on are those of the value.
    pub fn forgive(&mut self, key: &str, value: &Yaml, told: usize) {
        if key == "sandbox" && value.text() == Some("off") {
            self.problems.truncate(told);
        }
    }

    /// Refuses a plain scalar that is read differently by different readers.
    pub fn trap(&mut self, span: Span) {
        let Some(written) = self.text.get(span.start..span.end) else { return };
        let Some(why) = trap(written) else { return };
        let message = format!("`{written}` without quotes is ambiguous");
        let problem = Problem::new("yaml::ambiguous", span, message).label(why);
        let quoted = format!("write \"{written}\" for the text");
        self.problems.push(problem.help(match plain_form(written) {
            Some(plain) => format!("{quoted}, or {plain}"),
            None => quoted,
        }));
    }
}

/// The value of a plain scalar, by the core schema of YAML 1.2.
fn value(written: &str) -> Value {
    let text = || Value::String(written.to_owned());
    match written.as_bytes().first() {
        None | Some(b'~') if written.len() < 2 => return Value::Null,
        Some(b't' | b'T') if written.eq_ignore_ascii_case("true") => return Value::Bool(true),
        Some(b'f' | b'F') if written.eq_ignore_ascii_case("false") => return Value::Bool(false),
        Some(b'n' | b'N') if written.eq_ignore_ascii_case("null") => return Value::Null,
        Some(b'0'..=b'9' | b'+' | b'-' | b'.') => {}
        _ => return text(),
    }
    if let Some(number) = integer(written) {
        return Value::Number(number);
    }
    let unsigned = written.strip_prefix(['+', '-']).unwrap_or(written);
    if unsigned.eq_ignore_ascii_case(".nan") || unsigned.eq_ignore_ascii_case(".inf") {
        let infinite = if written.starts_with('-') { "-.inf" } else { ".inf" };
        let nan = unsigned.eq_ignore_ascii_case(".nan");
        return Value::String(if nan { ".nan" } else { infinite }.to_owned());
    }
    let number = written.parse::<f64>().ok().and_then(Number::from_f64);
    match number {
        Some(number) => Value::Number(number),
        None => text(),
    }
}

fn integer(written: &str) -> Option<Number> {
    let (negative, digits) = match written.as_bytes().first()? {
        b'-' => (true, &written[1..]),
        b'+' => (false, &written[1..]),
        _ => (false, written),
    };
    let prefix = digits.get(..2).unwrap_or_default().to_ascii_lowercase();
    let (radix, digits) = match prefix.as_str() {
        "0x" => (16, &digits[2..]),
        "0o" => (8, &digits[2..]),
        "0b" => (2, &digits[2..]),
        _ if digits.starts_with('0') && digits != "0" => return None,
        _ => (10, digits),
    };
    let single = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric());
    if !digits.split('_').all(single) {
        return None;
    }
    let magnitude = u64::from_str_radix(&digits.replace('_', ""), radix).ok()?;
    match negative {
        false => Some(magnitude.into()),
        true => 0i64.checked_sub_unsigned(magnitude).map(Number::from),
    }
}

/// Why a plain scalar is a trap.
fn trap(written: &str) -> Option<&'static str> {
    let first = *written.as_bytes().first()?;
    if matches!(first, b'0'..=b'9' | b'+' | b'-') {
        return numeric(written);
    }
    if written.len() > 5 {
        return None;
    }
    let is = |words: &[&str]| words.iter().any(|word| written.eq_ignore_ascii_case(word));
    if is(&["yes", "no", "on", "off"]) {
        return Some("a boolean to YAML 1.1, text to YAML 1.2");
    }
    if is(&["true", "false"]) && written != "true" && written != "false" {
        return Some("a boolean, though it looks like a name");
    }
    (is(&["null"]) && written != "null").then_some("nothing at all, though it looks like a name")
}

fn numeric(written: &str) -> Option<&'static str> {
    let digits = written.strip_prefix(['-', '+']).unwrap_or(written);
    let zeros = digits.len() > 1 && digits.starts_with('0');
    if zeros && digits.bytes().all(|b| b.is_ascii_digit()) {
        return Some("octal, decimal or text, as the reader pleases");
    }
    let two = |part: &str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit());
    let mut parts = digits.split(':');
    let hours =
        parts.next().is_some_and(|h| !h.is_empty() && h.bytes().all(|b| b.is_ascii_digit()));
    let mut rest = parts.peekable();
    let sixty = hours && rest.peek().is_some() && rest.all(two);
    sixty.then_some("a number in base 60 to YAML 1.1, text to YAML 1.2")
}

/// What the writer of a trap may have meant but for text.
fn plain_form(written: &str) -> Option<String> {
    Some(match written.to_ascii_lowercase().as_str() {
        "yes" | "on" | "true" => "`true` for the boolean".into(),
        "no" | "off" | "false" => "`false` for the boolean".into(),
        "null" => "`null` for nothing".into(),
        number => format!("`{}` for the number", number.parse::<i64>().ok()?),
    })
}
