//! Renders a row: the names that a template knows, and its filters.

use std::collections::BTreeMap;

use minijinja::value::Serde;
use minijinja::{Environment, ErrorKind, UndefinedBehavior, Value, context};

use super::beside::Account;
use super::bins::{Bins, level};
use crate::featurize::table::Row;

/// What ends every prompt; the completion begins with a space.
pub const ASK: &str = "\nDecision:";

/// A template that is wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Wrong {
    /// Its line, from 1, where it is known.
    pub line: Option<usize>,
    /// What is wrong.
    pub message: String,
}

/// What a bar is called, and how much of the past is told.
#[derive(Clone, Copy, Debug)]
pub struct Wording<'a> {
    /// A bar, in the singular.
    pub bar: &'a str,
    /// Bars whose returns are listed.
    pub back: usize,
    /// Decimals of a return in percent.
    pub decimals: usize,
    /// States before this one that are listed.
    pub states: usize,
}

/// Reads a template.
///
/// # Errors
/// Its syntax is wrong, or it uses a filter that there is none of.
pub fn parse(template: &str) -> Result<Environment<'_>, Wrong> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.add_filter("fixed", |x: f64, places: usize| fixed(x, places));
    environment.add_filter("signed", |x: f64, places: usize| signed(x, places));
    environment.add_filter("digits", |x: f64, digits: usize| significant(x, digits));
    environment.add_filter("plain", |x: f64, places: usize| plain(x, places));
    environment.add_filter("number", |x: f64| format!("{x}"));
    environment.add_filter("ordinal", |n: usize| ordinal(n));
    environment.add_template("prompt", template).map_err(wrong)?;
    Ok(environment)
}

/// What is wrong with a template whatever the rows hold: its syntax, or a filter, test or function
/// that there is none of.
///
/// # Errors
/// That.
pub fn check(template: &str) -> Result<(), Wrong> {
    let mut environment = parse(template)?;
    // Every name is taken for one that is known, and every filter for one that takes anything.
    environment.set_undefined_behavior(UndefinedBehavior::Chainable);
    for name in ["fixed", "signed", "digits", "plain"] {
        environment.add_filter(name, |_: Value, _: Value| 0);
    }
    for name in ["number", "ordinal"] {
        environment.add_filter(name, |_: Value| 0);
    }
    let template = environment.get_template("prompt").map_err(wrong)?;
    let unknown = [ErrorKind::UnknownFilter, ErrorKind::UnknownTest, ErrorKind::UnknownFunction];
    match template.render(context! {}) {
        Err(error) if unknown.contains(&error.kind()) => Err(wrong(error)),
        _ => Ok(()),
    }
}

/// What a prompt is made of.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    /// The names of the features.
    pub names: &'a [String],
    /// The row and those before it, the oldest first.
    pub rows: &'a [Row],
    /// The account, where one is given.
    pub account: Option<&'a Account>,
    /// News, the oldest first.
    pub news: &'a [String],
}

/// The prompt of the last row of a scene.
///
/// # Errors
/// The template names what there is not, or fails otherwise.
pub fn render(
    environment: &Environment,
    scene: &Scene,
    bins: &Bins,
    wording: &Wording,
) -> Result<String, Wrong> {
    let Some(row) = scene.rows.last() else { return Err(no_row()) };
    let mut names: BTreeMap<&str, Value> = BTreeMap::new();
    let states = state(scene.names, row, bins);
    for (name, feature) in scene.names.iter().zip(&states) {
        names.insert(name, feature.clone());
    }
    let last = |count: usize| &scene.rows[scene.rows.len().saturating_sub(count)..];
    let returns: Vec<String> = last(wording.back + 1)
        .windows(2)
        .map(|w| {
            let percent = 100.0 * (w[1].close / w[0].close - 1.0);
            format!("{} %", signed(percent, wording.decimals))
        })
        .collect();
    let before = last(wording.states + 1);
    let past: Vec<Value> = before[..before.len().saturating_sub(1)]
        .iter()
        .filter(|row| row.features.iter().all(|x| x.is_finite()))
        .map(|row| {
            let states = state(scene.names, row, bins);
            scene.names.iter().cloned().zip(states).collect::<Vec<_>>()
        })
        .map(Value::from_pairs)
        .collect();
    names.insert("features", Value::from(states));
    names.insert("past", Value::from(past));
    names.insert("bars_back", Value::from(counted(returns.len(), wording.bar)));
    names.insert("returns", Value::from(returns));
    names.insert("account", Value::from(Serde(scene.account)));
    names.insert("news", Value::from(scene.news.to_vec()));
    names.insert("bar", Value::from(wording.bar));
    names.insert("date", Value::from(row.date.as_str()));
    for (name, value) in [
        ("open", row.open),
        ("high", row.high),
        ("low", row.low),
        ("close", row.close),
        ("volume", row.volume),
    ] {
        names.insert(name, Value::from(value));
    }
    let template = environment.get_template("prompt").map_err(wrong)?;
    let text = template.render(names).map_err(wrong)?;
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    let text = lines.join("\n");
    let text = text.trim_end();
    Ok(format!("{}{ASK}", text.strip_suffix(ASK.trim_start()).unwrap_or(text).trim_end()))
}

/// The features of a row, as a template knows them.
fn state(names: &[String], row: &Row, bins: &Bins) -> Vec<Value> {
    let feature = |(name, &value): (&String, &f64)| {
        let percentile = bins.percentile(name, value);
        let level = level(name, value, percentile, bins.book());
        context! { name, value, percentile, level }
    };
    names.iter().zip(&row.features).map(feature).collect()
}

fn no_row() -> Wrong {
    Wrong { line: None, message: "no such row".into() }
}

fn wrong(error: minijinja::Error) -> Wrong {
    let mut message = match error.kind() {
        ErrorKind::UndefinedError => "a name is not known here".to_owned(),
        kind => kind.to_string(),
    };
    if let Some(detail) = error.detail() {
        message = format!("{message}: {detail}");
    }
    Wrong { line: error.line(), message }
}

/// With a fixed number of decimals; never `-0`.
fn fixed(x: f64, places: usize) -> String {
    let text = format!("{x:.places$}");
    match text.strip_prefix('-') {
        Some(rest) if rest.chars().all(|c| matches!(c, '0' | '.')) => rest.to_owned(),
        _ => text,
    }
}

/// Like [`fixed`], with a plus before what is above zero.
fn signed(x: f64, places: usize) -> String {
    let text = fixed(x, places);
    let zero = text.chars().all(|c| matches!(c, '0' | '.'));
    if text.starts_with('-') || zero { text } else { format!("+{text}") }
}

/// With a number of significant digits, without an exponent.
fn significant(x: f64, digits: usize) -> String {
    if x == 0.0 || !x.is_finite() {
        return fixed(x, 0);
    }
    let magnitude = x.abs().log10().floor() as i64;
    let places = (digits as i64 - 1 - magnitude).clamp(0, 20);
    fixed(x, places as usize)
}

/// With a fixed number of decimals, and more where that would leave less than two digits.
fn plain(x: f64, places: usize) -> String {
    let small = x != 0.0 && x.abs() < 10f64.powi(1 - places as i32);
    if small { significant(x, 2) } else { fixed(x, places) }
}

/// `1st`, `2nd`, `3rd`, `11th`.
fn ordinal(n: usize) -> String {
    let ending = match (n % 100, n % 10) {
        (11..=13, _) => "th",
        (_, 1) => "st",
        (_, 2) => "nd",
        (_, 3) => "rd",
        _ => "th",
    };
    format!("{n}{ending}")
}

/// `three days`, `1 day` as `day`.
fn counted(n: usize, noun: &str) -> String {
    const WORDS: [&str; 13] = [
        "no", "", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
        "twelve",
    ];
    match (n, WORDS.get(n)) {
        (1, _) => noun.to_owned(),
        (_, Some(word)) => format!("{word} {noun}s"),
        _ => format!("{n} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_people_do() {
        assert_eq!(fixed(-0.04, 1), "0.0");
        assert_eq!(signed(-0.04, 1), "0.0");
        assert_eq!(signed(0.05, 1), "+0.1");
        assert_eq!(signed(-1.25, 2), "-1.25");
        assert_eq!(significant(0.015_234, 2), "0.015");
        assert_eq!(significant(1_234.5, 2), "1234");
        assert_eq!(significant(0.0, 4), "0");
        assert_eq!([plain(69.71, 1), plain(0.0162, 1), plain(-1.2, 1)], ["69.7", "0.016", "-1.2"]);
        let ordinals: Vec<_> = [1, 2, 3, 4, 11, 12, 13, 21, 82, 93].map(ordinal).to_vec();
        assert_eq!(ordinals.join(" "), "1st 2nd 3rd 4th 11th 12th 13th 21st 82nd 93rd");
        assert_eq!(counted(1, "day"), "day");
        assert_eq!(counted(3, "day"), "three days");
        assert_eq!(counted(30, "minute"), "30 minutes");
    }
}
