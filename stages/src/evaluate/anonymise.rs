//! Takes out of prompts what a model may remember: names are replaced by neutral ones, and every date
//! is moved by a number of whole weeks, so that its weekday stays.
//!
//! What is replaced is exact and counted: names are the user's, character for character and as whole
//! words; dates are those with a year that can only be dates (`2019-03-08`, `2019/03/08`, `8 March
//! 2019`, `Mar. 8, 2019`, `March 2019`). What may be a date and may not, such as a lone `2019` or
//! `3/8/19`, stays, and is counted as left. Prices, returns and the wording of news stay: they too can
//! tell the time to who remembers them.

use std::collections::BTreeMap;

use chrono::{Datelike, NaiveDate, TimeDelta};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::inference::Interval;
use crate::Invalid;

/// How prompts are made anonymous.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Anonymise {
    /// Tickers and names, and what is said instead: `{ AAPL: STOCK, Apple: the company }`. Whole words,
    /// upper and lower case as written; of names that begin alike the longest.
    pub names: BTreeMap<String, String>,
    /// Days by which every date is moved: whole weeks, below 0 into the past. The default is 28 years,
    /// after which weekdays and days of the year are the same.
    pub shift_days: i64,
}

impl Default for Anonymise {
    fn default() -> Self {
        Anonymise { names: BTreeMap::new(), shift_days: 10_227 }
    }
}

impl Anonymise {
    /// What the types cannot say.
    ///
    /// # Errors
    /// A parameter, by its path.
    pub fn check(&self) -> Result<(), Invalid> {
        let path = "anonymise.shift_days";
        if self.shift_days == 0 || self.shift_days % 7 != 0 {
            return Err(Invalid::new(path, "must be whole weeks other than none")
                .help("a multiple of 7 keeps the weekday; 10227 is 28 years"));
        }
        if self.shift_days.abs() > 73_050 {
            return Err(Invalid::new(path, "must be at most 200 years"));
        }
        for (from, to) in &self.names {
            let bad = |why: String| Err(Invalid::new("anonymise.names", why));
            if from.trim().is_empty() || to.trim().is_empty() {
                return bad("a name must not be empty".into());
            }
            if let Some(name) = self.names.keys().find(|name| occurs(to, name)) {
                return bad(format!("`{from}` is replaced by `{to}`, which has `{name}` in it"));
            }
        }
        Ok(())
    }

    /// Makes texts anonymous.
    pub fn apply<'a>(&self, texts: impl Iterator<Item = &'a str>) -> (Vec<String>, Replaced) {
        let mut replaced = Replaced::default();
        let mut names: Vec<(&str, &str)> =
            self.names.iter().map(|(from, to)| (from.as_str(), to.as_str())).collect();
        names.sort_by_key(|(from, _)| (std::cmp::Reverse(from.len()), *from));
        let shift = TimeDelta::days(self.shift_days);
        let mut one = |text: &str| {
            let mut out = String::with_capacity(text.len());
            let mut at = 0;
            while let Some(c) = text[at..].chars().next() {
                let rest = &text[at..];
                let found = match starts(text, at) {
                    false => None,
                    true => name(text, at, &names).or_else(|| {
                        let (len, date) = date(rest)?;
                        Some((len, date.moved(shift)?, Kind::Date))
                    }),
                };
                if let Some((len, to, kind)) = found {
                    let from = &rest[..len];
                    let into = match kind {
                        Kind::Name => &mut replaced.names,
                        Kind::Date => &mut replaced.dates,
                    };
                    *into.entry((from.to_owned(), to.clone())).or_default() += 1;
                    out += &to;
                    at += len;
                    continue;
                }
                if let Some(len) = perhaps(text, at) {
                    *replaced.left.entry(rest[..len].to_owned()).or_default() += 1;
                    out += &rest[..len];
                    at += len;
                    continue;
                }
                out.push(c);
                at += c.len_utf8();
            }
            out
        };
        let mut made = Vec::new();
        for text in texts {
            let other = one(text);
            made.push((other != text, other));
        }
        replaced.prompts = made.len();
        replaced.changed = made.iter().filter(|(changed, _)| *changed).count();
        (made.into_iter().map(|(_, text)| text).collect(), replaced)
    }
}

enum Kind {
    Name,
    Date,
}

/// What was replaced, and how often.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Replaced {
    /// Prompts.
    pub prompts: usize,
    /// Those in which something was replaced.
    pub changed: usize,
    /// Names, with what stands instead.
    #[serde(serialize_with = "listed")]
    pub names: BTreeMap<(String, String), usize>,
    /// Dates, likewise.
    #[serde(serialize_with = "listed")]
    pub dates: BTreeMap<(String, String), usize>,
    /// What may be a year or a date and was left as it was.
    pub left: BTreeMap<String, usize>,
}

fn listed<S: serde::Serializer>(
    all: &BTreeMap<(String, String), usize>,
    to: S,
) -> Result<S::Ok, S::Error> {
    to.collect_seq(all.iter().map(|((from, to), times)| (from, to, times)))
}

/// What became of the model’s decisions.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Anonymised {
    /// Days by which dates were moved.
    pub shift_days: i64,
    /// What was replaced.
    pub replaced: Replaced,
    /// A prompt as it was asked anew.
    #[serde(skip)]
    pub example: Option<String>,
    /// What came of it; `None` where nothing was replaced, so that nothing was asked anew.
    pub change: Option<Change>,
}

/// Decisions with and without names and dates.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// Share of the decisions that are others.
    pub decisions: f64,
    /// Sharpe ratio a year with names and dates.
    pub named: Option<f64>,
    /// Without.
    pub anonymous: Option<f64>,
    /// 95 % interval of the first less the second, from the same draws.
    pub difference: Option<Interval>,
}

impl Change {
    /// Whether the model earns more where it can recognise what it is asked about.
    pub fn hints_at_memory(&self) -> bool {
        self.difference.is_some_and(|d| d.low > 0.0)
    }
}

/// Whether a word can begin at a byte of a text.
fn starts(text: &str, at: usize) -> bool {
    text[..at].chars().next_back().is_none_or(|c| !c.is_alphanumeric())
}

/// Whether a word can end before a byte of a text.
fn ends(text: &str, at: usize) -> bool {
    text[at..].chars().next().is_none_or(|c| !c.is_alphanumeric())
}

/// Whether a name stands in a text as a whole word.
fn occurs(text: &str, name: &str) -> bool {
    text.match_indices(name).any(|(at, _)| starts(text, at) && ends(text, at + name.len()))
}

/// A name at a byte of a text: its length, and what stands instead.
fn name(text: &str, at: usize, names: &[(&str, &str)]) -> Option<(usize, String, Kind)> {
    let is =
        |(from, _): &&(&str, &str)| text[at..].starts_with(from) && ends(text, at + from.len());
    names.iter().find(is).map(|(from, to)| (from.len(), (*to).to_owned(), Kind::Name))
}

/// A date, and how it was written.
#[derive(Debug)]
struct Written {
    date: NaiveDate,
    /// Pieces of the text: what stands as it is, and what is written of the new date.
    form: Vec<Piece>,
}

#[derive(Debug)]
enum Piece {
    Text(String),
    Year,
    Month2,
    Day2,
    Day,
    /// The month in words, as long as this one, and where its first letters are capitals.
    Word(bool, bool),
    /// `st`, `nd`, `rd` or `th`.
    Ending,
}

impl Written {
    fn moved(&self, by: TimeDelta) -> Option<String> {
        let date = self.date.checked_add_signed(by)?;
        let month = MONTHS.get(date.month0() as usize)?;
        let piece = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Year => format!("{:04}", date.year()),
            Piece::Month2 => format!("{:02}", date.month()),
            Piece::Day2 => format!("{:02}", date.day()),
            Piece::Day => date.day().to_string(),
            Piece::Word(long, upper) => {
                let word = if *long { month } else { &month[..3] };
                if *upper { word.to_uppercase() } else { word.to_string() }
            }
            Piece::Ending => match date.day() {
                1 | 21 | 31 => "st".into(),
                2 | 22 => "nd".into(),
                3 | 23 => "rd".into(),
                _ => "th".into(),
            },
        };
        Some(self.form.iter().map(piece).collect())
    }
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// Reads a text piece by piece.
#[derive(Clone)]
struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// A number of so many digits, not followed by another digit.
    fn number(&mut self, least: usize, most: usize) -> Option<u32> {
        let digits = self.rest().bytes().take_while(u8::is_ascii_digit).count();
        if !(least..=most).contains(&digits) {
            return None;
        }
        let number = self.rest()[..digits].parse().ok()?;
        self.at += digits;
        Some(number)
    }

    fn literal(&mut self, any: &[&str]) -> Option<&'a str> {
        let found = any.iter().find(|word| self.rest().starts_with(**word))?;
        let text = &self.rest()[..found.len()];
        self.at += found.len();
        Some(text)
    }

    /// A month in words: its number, whether the word is long, whether it is all capitals.
    fn month(&mut self) -> Option<(u32, bool, bool)> {
        let letters = self.rest().bytes().take_while(u8::is_ascii_alphabetic).count();
        let word = &self.rest()[..letters];
        // May is a word too, but not before a number that is a year.
        let proper = word.bytes().next()?.is_ascii_uppercase();
        let is = |month: &&str| word.eq_ignore_ascii_case(month);
        let short = |month: &&str| word.eq_ignore_ascii_case(&month[..3]);
        let sept = word.eq_ignore_ascii_case("sept");
        let at = MONTHS.iter().position(|m| is(m) || short(m)).or(sept.then_some(8))?;
        self.at += letters;
        let upper = word.bytes().all(|b| b.is_ascii_uppercase());
        proper.then_some((at as u32 + 1, letters > 4 || MONTHS[at].len() == letters, upper))
    }

    fn year(&mut self) -> Option<i32> {
        self.number(4, 4).filter(|y| (1000..=2999).contains(y)).map(|y| y as i32)
    }
}

/// A date at the beginning of a text: its length, and what it is.
fn date(text: &str) -> Option<(usize, Written)> {
    let new = || Cursor { text, at: 0 };
    let first = text.bytes().next()?;
    let found = match first {
        b'0'..=b'9' => iso(new()).or_else(|| day_first(new())),
        b'A'..=b'Z' => month_first(new()),
        _ => None,
    };
    let (len, written) = found?;
    // `2019-03-08T14:00` goes on, `2019-03-081` is none.
    let next = text[len..].chars().next();
    let goes_on = next.is_some_and(|c| c.is_ascii_digit());
    (!goes_on).then_some((len, written))
}

fn iso(mut c: Cursor) -> Option<(usize, Written)> {
    let year = c.year()?;
    let mark = c.literal(&["-", "/"])?;
    let month = c.number(2, 2)?;
    c.literal(&[mark])?;
    let day = c.number(2, 2)?;
    let date = NaiveDate::from_ymd_opt(year, month, day)?;
    let mark = || Piece::Text(mark.to_owned());
    let form = vec![Piece::Year, mark(), Piece::Month2, mark(), Piece::Day2];
    Some((c.at, Written { date, form }))
}

/// `8 March 2019`, `8th of March, 2019`.
fn day_first(mut c: Cursor) -> Option<(usize, Written)> {
    let start = c.at;
    let day = c.number(1, 2)?;
    let padded = c.text[start..].starts_with('0');
    let mut form = vec![if padded { Piece::Day2 } else { Piece::Day }];
    form.extend(c.literal(&["st", "nd", "rd", "th"]).map(|_| Piece::Ending));
    let between = c.literal(&[" of ", " ", "-"])?;
    form.push(Piece::Text(between.to_owned()));
    let (month, long, upper) = c.month()?;
    form.push(Piece::Word(long, upper));
    let between = c.literal(&[". ", ", ", " ", "-"])?;
    form.push(Piece::Text(between.to_owned()));
    let date = NaiveDate::from_ymd_opt(c.year()?, month, day)?;
    form.push(Piece::Year);
    Some((c.at, Written { date, form }))
}

/// `March 8, 2019`, `Mar. 8 2019`, `March 2019`.
fn month_first(mut c: Cursor) -> Option<(usize, Written)> {
    let (month, long, upper) = c.month()?;
    let mut form = vec![Piece::Word(long, upper)];
    let between = c.literal(&[". ", ", ", " ", "-"])?;
    form.push(Piece::Text(between.to_owned()));
    let mut alone = c.clone();
    if let Some(year) = alone.year() {
        // A month is moved as its middle is.
        form.push(Piece::Year);
        let date = NaiveDate::from_ymd_opt(year, month, 15)?;
        return Some((alone.at, Written { date, form }));
    }
    let start = c.at;
    let day = c.number(1, 2)?;
    let padded = c.text[start..].starts_with('0');
    form.push(if padded { Piece::Day2 } else { Piece::Day });
    form.extend(c.literal(&["st", "nd", "rd", "th"]).map(|_| Piece::Ending));
    let between = c.literal(&[", ", " "])?;
    form.push(Piece::Text(between.to_owned()));
    let date = NaiveDate::from_ymd_opt(c.year()?, month, day)?;
    form.push(Piece::Year);
    Some((c.at, Written { date, form }))
}

/// What may be a year or a date at a byte of a text: its length. `2019`, `3/8/2019`, `FY2019`; not
/// `2019.5`, `12019` or `1,2019`.
fn perhaps(text: &str, at: usize) -> Option<usize> {
    let before = text[..at].chars().next_back();
    if before.is_some_and(|c| c.is_ascii_digit() || matches!(c, '.' | ',' | '/' | '-' | '+')) {
        return None;
    }
    let rest = &text[at..];
    let run = rest.bytes().take_while(|b| b.is_ascii_digit() || *b == b'/').count();
    let word = &rest[..run];
    let parts: Vec<&str> = word.split('/').collect();
    let numbers = parts.iter().all(|p| !p.is_empty());
    let next = rest[run..].chars().next();
    let decimal = matches!(next, Some('.' | ','))
        && rest[run + 1..].starts_with(|c: char| c.is_ascii_digit());
    let year = |p: &str| p.len() == 4 && (p.starts_with("19") || p.starts_with("20"));
    let dated = match parts.as_slice() {
        [one] => year(one) && next != Some('%'),
        [a, b, c] => numbers && a.len() <= 2 && b.len() <= 2 && (year(c) || c.len() == 2),
        _ => false,
    };
    (dated && !decimal).then_some(run)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(anonymise: &Anonymise, text: &str) -> (String, Replaced) {
        let (mut texts, replaced) = anonymise.apply([text].into_iter());
        (texts.remove(0), replaced)
    }

    fn names(all: &[(&str, &str)]) -> Anonymise {
        let names = all.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect();
        Anonymise { names, ..Anonymise::default() }
    }

    #[test]
    fn names_are_whole_words_and_the_longest_wins() {
        let rule = names(&[
            ("Apple", "the firm"),
            ("Apple Inc.", "the company"),
            ("A", "X"),
            ("S&P 500", "the index"),
        ]);
        assert_eq!(rule.check(), Ok(()));
        let (text, replaced) =
            applied(&rule, "Apple Inc. (A): Apple’s pineApple, apple, Apples; AA, S&P 500.");
        assert_eq!(text, "the company (X): the firm’s pineApple, apple, Apples; AA, the index.");
        let times: Vec<(&str, usize)> =
            replaced.names.iter().map(|((from, _), n)| (from.as_str(), *n)).collect();
        assert_eq!(times, [("A", 1), ("Apple", 1), ("Apple Inc.", 1), ("S&P 500", 1)]);
        assert!(replaced.dates.is_empty() && replaced.left.is_empty());
    }

    #[test]
    fn dates_move_by_whole_weeks_in_the_form_they_are_written() {
        // 2019-03-08 was a Friday, and so is 2047-03-08.
        for (from, to) in [
            ("2019-03-08", "2047-03-08"),
            ("2019/03/08", "2047/03/08"),
            ("at 2019-03-08T14:00:00Z.", "at 2047-03-08T14:00:00Z."),
            ("Fri, 8 March 2019", "Fri, 8 March 2047"),
            ("08-MAR-2019", "08-MAR-2047"),
            ("Mar. 8, 2019", "Mar. 8, 2047"),
            ("March 8th, 2019", "March 8th, 2047"),
            ("Sept. 3 2019", "Sep. 3 2047"),
            ("in March 2019,", "in March 2047,"),
            ("(May 2019)", "(May 2047)"),
        ] {
            let (text, replaced) = applied(&Anonymise::default(), from);
            assert_eq!(text, to);
            assert_eq!(replaced.dates.values().sum::<usize>(), 1, "{from}");
        }
        let week = Anonymise { shift_days: 7, ..Anonymise::default() };
        assert_eq!(applied(&week, "December 28th, 2019").0, "January 4th, 2020");
        assert_eq!(applied(&week, "2020-02-25").0, "2020-03-03");
        let back = Anonymise { shift_days: -14, ..Anonymise::default() };
        assert_eq!(applied(&back, "1 January 2020").0, "18 December 2019");
    }

    #[test]
    fn what_is_no_date_stays() {
        for text in [
            "2019-13-08",
            "12019-03-08",
            "2019-03-081",
            "2019.25",
            "close 12,019",
            "may 2 buy 3",
            "5 days, 30 of 252",
            "Decision:",
            "v2019",
            "+0.2 %, -1.5 %",
            "Mayor 2 of 9",
            "2019-02-30",
        ] {
            let (other, replaced) = applied(&Anonymise::default(), text);
            assert_eq!(other, text);
            assert!(replaced.dates.is_empty() && replaced.changed == 0, "{text}: {replaced:?}");
        }
        let (text, replaced) =
            applied(&Anonymise::default(), "In 2019, by 3/8/2019 or 3/8/19: 2019; FY 2020");
        assert_eq!(text, "In 2019, by 3/8/2019 or 3/8/19: 2019; FY 2020");
        let left: Vec<(&str, usize)> =
            replaced.left.iter().map(|(what, n)| (what.as_str(), *n)).collect();
        assert_eq!(left, [("2019", 2), ("2020", 1), ("3/8/19", 1), ("3/8/2019", 1)]);
    }

    #[test]
    fn what_is_no_whole_week_or_gives_a_name_back_is_refused() {
        let shift = |days| Anonymise { shift_days: days, ..Anonymise::default() };
        for days in [0, 1, 365, 7 * 100_000] {
            assert_eq!(shift(days).check().unwrap_err().path, "anonymise.shift_days");
        }
        assert_eq!(shift(-364).check(), Ok(()));
        for bad in [names(&[("AAPL", "not AAPL")]), names(&[(" ", "x")]), names(&[("x", "")])] {
            assert_eq!(bad.check().unwrap_err().path, "anonymise.names");
        }
        // The default: 28 years to the day.
        let day = |y| NaiveDate::from_ymd_opt(y, 2, 28).unwrap();
        assert_eq!((day(2048) - day(2020)).num_days(), Anonymise::default().shift_days);
    }

    proptest::proptest! {
        /// Whatever the text, what is not replaced is as it was.
        #[test]
        fn texts_are_rewritten_and_never_cut(text in "[ -~é中]{0,60}") {
            let rule = names(&[("a", "b"), ("é", "e")]);
            let (other, replaced) = applied(&rule, &text);
            if replaced.names.is_empty() && replaced.dates.is_empty() {
                proptest::prop_assert_eq!(other, text);
            } else {
                proptest::prop_assert_eq!(replaced.changed, 1);
            }
        }
    }
}
