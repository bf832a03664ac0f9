//! Values of the file as the types that keys ask for, with what is wrong where they do not fit.

use std::ops::RangeInclusive;
use std::time::Duration;

use quantmill_stages::Sandbox;

use super::{Text, amount};
use crate::diagnostic::{Problem, suggest};
use crate::graph::Needs;
use crate::yaml::{Key, Value, Yaml};

/// Where problems go while values are read.
pub struct Reading<'a> {
    pub problems: &'a mut Vec<Problem>,
}

impl Reading<'_> {
    fn wrong(&mut self, value: &Yaml, message: String, help: &str) {
        let problem = Problem::new("spec::type", value.span, message);
        self.problems.push(problem.label(value.noun()).help(help));
    }

    /// The entries of a map; of nothing none.
    pub fn entries<'y>(
        &mut self,
        value: &'y Yaml,
        what: &str,
        as_in: &str,
    ) -> Option<&'y [(Key, Yaml)]> {
        match &value.value {
            Value::Null => Some(&[]),
            Value::Map(entries) => Some(entries),
            _ => {
                self.wrong(value, format!("{what} is a map"), &format!("write `{as_in}` below it"));
                None
            }
        }
    }

    /// A text.
    pub fn text(&mut self, value: &Yaml, what: &str) -> Option<Text> {
        if let Some(text) = value.text() {
            return Some(Text { text: text.to_owned(), span: value.span });
        }
        let problem = Problem::new("spec::type", value.span, format!("{what} is text"));
        let problem = problem.label(value.noun());
        self.problems.push(match value.value {
            Value::Seq(_) => problem.help("one text; a glob such as `{a,b}/*.csv` names many"),
            Value::Null | Value::Map(_) => problem,
            _ => problem.help("put it in quotes"),
        });
        None
    }

    /// `from` or `to`: text, or a map of text.
    pub fn ports(&mut self, value: Yaml, key: &str, what: &str) -> Vec<(Option<Key>, Text)> {
        let mut read = Vec::new();
        match value.value {
            Value::Map(entries) => {
                read.reserve_exact(entries.len());
                for (port, value) in entries {
                    if value.text().is_none() {
                        self.text(&value, &format!("`{key}.{}`", port.name));
                    }
                    if let Value::String(text) = value.value {
                        read.push((Some(port), Text { text, span: value.span }));
                    }
                }
            }
            Value::Seq(_) => {
                let help = format!("name the port of each: `{key}: {{ port: {what} }}`");
                self.wrong(&value, format!("`{key}` is a {what}, or a map of them"), &help);
            }
            _ => read.extend(self.text(&value, &format!("`{key}`")).map(|text| (None, text))),
        }
        read
    }

    /// A whole number within bounds.
    pub fn whole(
        &mut self,
        value: &Yaml,
        what: &str,
        bounds: RangeInclusive<u64>,
        as_in: &str,
    ) -> Option<u64> {
        let number = match &value.value {
            Value::Number(number) => number.as_u64(),
            _ => None,
        };
        let number = number.filter(|number| bounds.contains(number));
        if number.is_none() {
            let (low, high) = (bounds.start(), bounds.end());
            let range = match *high {
                u64::MAX => format!("from {low} up"),
                _ => format!("from {low} to {high}"),
            };
            self.wrong(value, format!("{what} is a whole number {range}"), as_in);
        }
        number
    }

    /// A seed.
    pub fn seed(&mut self, value: &Yaml) -> Option<u64> {
        self.whole(value, "a seed", 0..=u64::MAX, "write for example `seed: 7`")
    }

    /// `true` or `false`.
    pub fn boolean(&mut self, value: &Yaml, what: &str) -> bool {
        match value.value {
            Value::Bool(holds) => holds,
            _ => {
                self.wrong(
                    value,
                    format!("{what} is `true` or `false`"),
                    "write it without quotes",
                );
                false
            }
        }
    }

    /// `off`, `trace` or `strict`.
    pub fn sandbox(&mut self, value: &Yaml) -> Option<Sandbox> {
        let names = ["off", "trace", "strict"];
        match value.text() {
            Some("off") => Some(Sandbox::Off),
            Some("trace") => Some(Sandbox::Trace),
            Some("strict") => Some(Sandbox::Strict),
            text => {
                let help = suggest(text.unwrap_or_default(), "it may be", names);
                let message = "`sandbox` is `off`, `trace` or `strict`";
                let problem = Problem::new("spec::type", value.span, message);
                self.problems.push(problem.maybe_help(help.filter(|_| text.is_some())));
                None
            }
        }
    }

    /// `90s`, `10m`, `2h`, `1d`.
    pub fn duration(&mut self, value: &Yaml, what: &str) -> Option<Duration> {
        let read = value.text().and_then(amount::duration);
        if read.is_none() {
            let problem =
                Problem::new("spec::unit", value.span, format!("{what} is a time with a unit"));
            self.problems.push(problem.help(match &value.value {
                Value::Number(n) => format!("write `{n}s` for seconds, or `{n}m`, `{n}h`, `{n}d`"),
                _ => "write for example `90s`, `10m`, `2h`, `1h30m`, `1d`".to_owned(),
            }));
        }
        read
    }

    fn size(&mut self, value: &Yaml, what: &str) -> Option<u64> {
        let read = value.text().and_then(amount::size);
        if read.is_none() {
            let problem =
                Problem::new("spec::unit", value.span, format!("{what} is a size with a unit"));
            let short = value.text().and_then(|text| {
                let (number, unit) = text.split_at(text.find(|c: char| c.is_alphabetic())?);
                let unit = unit.trim_end_matches('b').to_uppercase();
                matches!(unit.as_str(), "K" | "M" | "G" | "T").then(|| format!("{number}{unit}iB"))
            });
            self.problems.push(problem.help(match (short, &value.value) {
                (Some(meant), _) => format!("write `{meant}`"),
                (None, Value::Number(n)) => format!("write `{n}GiB` or `{n}MiB`"),
                _ => "write for example `512MiB` or `16GiB`".to_owned(),
            }));
        }
        read
    }

    /// `{ cpu: 4, gpu: 1, memory: 16GiB, time: 2h }`.
    pub fn needs(&mut self, value: &Yaml) -> (Needs, Option<Duration>) {
        let (mut needs, mut time) = (Needs::default(), None);
        let entries = self.entries(value, "`needs`", "cpu: 4").unwrap_or_default();
        for (key, value) in entries {
            match key.name.as_str() {
                "cpu" => {
                    let read =
                        self.whole(value, "`needs.cpu`", 1..=65_536, "processors, as `cpu: 4`");
                    needs.cpu = read.unwrap_or(1) as u32;
                }
                "gpu" => {
                    let read = self.whole(value, "`needs.gpu`", 0..=1024, "GPUs, as `gpu: 1`");
                    needs.gpu = read.unwrap_or(0) as u32;
                }
                "memory" => needs.memory = self.size(value, "`needs.memory`").unwrap_or(0),
                "time" => time = self.duration(value, "`needs.time`"),
                name => {
                    let message = format!("unknown key `{name}` of `needs`");
                    let problem = Problem::new("spec::unknown_key", key.span, message);
                    let known = ["cpu", "gpu", "memory", "time"];
                    self.problems.push(problem.maybe_help(suggest(name, "it may have", known)));
                }
            }
        }
        (needs, time)
    }
}

/// `env` or `secrets`: names of environment variables.
pub fn list_of_names(value: &Yaml, key: &str, reading: &mut Reading) -> Vec<Text> {
    let Value::Seq(items) = &value.value else {
        let help =
            format!("write `{key}: [NAME]`; the values are those of the environment of the run");
        reading.wrong(value, format!("`{key}` is a list of names"), &help);
        return Vec::new();
    };
    let what = format!("a name in `{key}`");
    let names: Vec<Text> = items.iter().filter_map(|item| reading.text(item, &what)).collect();
    for name in names.iter().filter(|n| n.text.is_empty() || n.text.contains(['=', ' ', '\0'])) {
        let message = format!("`{}` is no name of a variable", name.text);
        let problem = Problem::new("spec::env", name.span, message);
        let help = "names only: the values come from the environment";
        reading.problems.push(problem.help(help));
    }
    names
}
