//! The values of a sweep: lists and ranges on the command line, and the trials that they make.
//!
//! `a=1,2,3` is a list, `a=1e-5..1e-3:log` a range to draw from; `a=[1,2,3]` is one value, a list, and
//! a text with commas is one value where it is quoted.

use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A value that takes more than one.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// What `--set` names.
    pub name: String,
    /// What it takes.
    pub values: Values,
}

/// What an axis takes.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// These, as they were written.
    List(Vec<String>),
    /// Any number between two.
    Range {
        /// The least.
        least: f64,
        /// The most.
        most: f64,
        /// Evenly in the logarithm.
        log: bool,
        /// Whole numbers only, the most among them.
        whole: bool,
    },
}

/// What `--set NAME=TEXT` sweeps over; `None` where it is one value.
pub fn axis(name: &str, text: &str) -> Option<Axis> {
    let values = range(text).or_else(|| {
        let parts = parts(text);
        (parts.len() > 1).then_some(Values::List(parts))
    })?;
    Some(Axis { name: name.to_owned(), values })
}

/// The parts between commas outside brackets and quotes; one part where any of them is empty.
fn parts(text: &str) -> Vec<String> {
    let (mut parts, mut part) = (Vec::new(), String::new());
    let (mut depth, mut quote) = (0_usize, None);
    for c in text.chars() {
        match (c, quote) {
            (_, Some(open)) if c == open => quote = None,
            (_, Some(_)) => {}
            // In the middle of a word it is an apostrophe.
            ('"' | '\'', None) if part.trim().is_empty() => quote = Some(c),
            ('[' | '{', None) => depth += 1,
            (']' | '}', None) => depth = depth.saturating_sub(1),
            (',', None) if depth == 0 => {
                parts.push(std::mem::take(&mut part));
                continue;
            }
            _ => {}
        }
        part.push(c);
    }
    parts.push(part);
    let parts: Vec<String> = parts.iter().map(|part| part.trim().to_owned()).collect();
    if parts.iter().any(String::is_empty) { vec![text.to_owned()] } else { parts }
}

fn range(text: &str) -> Option<Values> {
    let (ends, log) = match text.strip_suffix(":log") {
        Some(ends) => (ends, true),
        None => (text, false),
    };
    let (least, most) = ends.split_once("..")?;
    let whole = least.trim().parse::<i64>().is_ok() && most.trim().parse::<i64>().is_ok();
    let (least, most): (f64, f64) = (least.trim().parse().ok()?, most.trim().parse().ok()?);
    let fits = least < most && most.is_finite() && least.is_finite() && (!log || least > 0.0);
    fits.then_some(Values::Range { least, most, log, whole })
}

/// The values of one trial, in the order of the axes.
pub type Trial = Vec<(String, String)>;

/// Every combination of lists, the last axis fastest; `None` where an axis is a range.
pub fn all(axes: &[Axis]) -> Option<Vec<Trial>> {
    let mut trials: Vec<Trial> = vec![Vec::new()];
    for axis in axes {
        let Values::List(values) = &axis.values else { return None };
        let with = |trial: &Trial, value: &String| {
            let mut trial = trial.clone();
            trial.push((axis.name.clone(), value.clone()));
            trial
        };
        let longer =
            trials.iter().flat_map(|trial| values.iter().map(move |value| with(trial, value)));
        trials = longer.collect();
    }
    Some(trials)
}

/// `n` trials drawn at random; the same seed draws the same. Fewer where there are no more.
pub fn draw(axes: &[Axis], n: usize, seed: u64) -> Vec<Trial> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut trials: Vec<Trial> = Vec::new();
    // Lists run out of combinations: what was drawn twice is drawn again, for a while.
    for _ in 0..n.saturating_mul(20) {
        if trials.len() == n {
            break;
        }
        let one = |axis: &Axis| (axis.name.clone(), value(&axis.values, &mut random));
        let trial: Trial = axes.iter().map(one).collect();
        if !trials.contains(&trial) {
            trials.push(trial);
        }
    }
    trials
}

fn value(values: &Values, random: &mut ChaCha8Rng) -> String {
    match values {
        Values::List(list) => list[random.random_range(0..list.len())].clone(),
        &Values::Range { least, most, log, whole } => {
            let share: f64 = random.random();
            // A whole range takes in its upper end.
            let most = if whole { most + 1.0 } else { most };
            let drawn = match log {
                true => (least.ln() + share * (most.ln() - least.ln())).exp(),
                false => least + share * (most - least),
            };
            if whole {
                return format!("{}", drawn.floor().clamp(least, most - 1.0) as i64);
            }
            // Four digits are enough, and can be typed again.
            let text = format!("{drawn:.3e}");
            text.parse::<f64>().map_or(text, |number| number.to_string())
        }
    }
}

/// How a trial is called: `lr=0.0003 seed=1`.
pub fn label(trial: &Trial) -> String {
    trial.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
}

/// When a sweep stops for lack of time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Budget {
    /// Trials at most.
    pub runs: Option<usize>,
    /// Time at most; a trial that has begun is let finish.
    pub time: Option<Duration>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Option<Vec<String>> {
        match axis("a", text)?.values {
            Values::List(list) => Some(list),
            Values::Range { .. } => None,
        }
    }

    #[test]
    fn a_comma_list_is_a_sweep_and_brackets_and_quotes_are_not() {
        let wanted = |parts: &[&str]| Some(parts.iter().map(|p| p.to_string()).collect());
        assert_eq!(list("1,2,3"), wanted(&["1", "2", "3"]));
        assert_eq!(list("1e-4, 3e-4"), wanted(&["1e-4", "3e-4"]));
        assert_eq!(list("[1,2],[3]"), wanted(&["[1,2]", "[3]"]));
        assert_eq!(list("'a,b',c"), wanted(&["'a,b'", "c"]));
        for one in ["1", "", "[1,2]", "{a: 1, b: 2}", "\"a, b\"", ",", "a,", "don't"] {
            assert_eq!(axis("a", one), None, "{one}");
        }
    }

    #[test]
    fn ranges_are_read() {
        let range = |text: &str| axis("a", text).map(|axis| axis.values);
        let log = Values::Range { least: 1e-5, most: 1e-3, log: true, whole: false };
        assert_eq!(range("1e-5..1e-3:log"), Some(log));
        let whole = Values::Range { least: 1.0, most: 8.0, log: false, whole: true };
        assert_eq!(range("1..8"), Some(whole));
        for text in ["8..1", "../data", "0..1:log", "a..b"] {
            assert_eq!(range(text), None, "{text}");
        }
    }

    #[test]
    fn a_grid_has_every_combination_once() {
        let axes = [axis("a", "1,2").unwrap(), axis("b", "x,y,z").unwrap()];
        let trials = all(&axes).unwrap();
        assert_eq!(trials.len(), 6);
        assert_eq!(label(&trials[1]), "a=1 b=y");
        assert_eq!(all(&[axis("a", "0..1").unwrap()]), None);
    }

    #[test]
    fn draws_are_the_same_for_the_same_seed_and_stay_in_their_ranges() {
        let axes = [
            axis("lr", "1e-5..1e-3:log").unwrap(),
            axis("n", "1..3").unwrap(),
            axis("k", "a,b").unwrap(),
        ];
        let trials = draw(&axes, 200, 7);
        assert_eq!(trials.len(), 200);
        assert_eq!(trials, draw(&axes, 200, 7));
        assert_ne!(trials, draw(&axes, 200, 8));
        let low = trials.iter().filter(|trial| trial[0].1.parse::<f64>().unwrap() < 1e-4).count();
        assert!(
            (70..130).contains(&low),
            "{low}: half of them lie below the middle of the logarithm"
        );
        for trial in &trials {
            let lr: f64 = trial[0].1.parse().unwrap();
            assert!((1e-5..=1e-3).contains(&lr));
            assert!(["1", "2", "3"].contains(&trial[1].1.as_str()));
        }
        assert_eq!(draw(&axes[1..], 50, 1).len(), 6, "there are no more");
    }
}
