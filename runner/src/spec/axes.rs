//! The axes of one stage: `matrix` and `foreach` as its writer gave them, and the cells they span.

use std::sync::Arc;

use super::cells::{Bound, Cell, ITEM, MOST};
use crate::diagnostic::{Problem, Span};
use crate::vars::{Vars, spell};
use crate::yaml::{Key, Value, Yaml};

/// The key of a matrix that drops cells.
const EXCLUDE: &str = "exclude";
/// The longest label that a value has in a name, in characters.
const LABEL: usize = 40;

/// An axis: its name as it is written, and its values.
pub struct Axis {
    pub key: Key,
    pub values: Vec<Arc<Bound>>,
}

/// The axes of a stage: `foreach` first, then those of `matrix` in the order of the file.
pub fn axes(foreach: Option<&Yaml>, matrix: Option<&Yaml>, vars: &mut Vars) -> Vec<Axis> {
    let mut axes = Vec::new();
    if let Some(foreach) = foreach {
        axes.extend(items(foreach, vars));
    }
    if let Some(matrix) = matrix {
        let (before, problems) = (axes.len(), &mut *vars.problems);
        let told = problems.len();
        match matrix.map() {
            Some(entries) => {
                let own = entries.iter().filter(|(key, _)| key.name != EXCLUDE);
                own.for_each(|(key, value)| axis(&key.name, key, value, &mut axes, problems));
                if axes.len() == before && problems.len() == told {
                    let problem =
                        Problem::new("matrix::empty", matrix.span, "a matrix without axes");
                    problems.push(problem.help("add one, as `seed: [1, 2, 3]`"));
                }
            }
            None => {
                let problem = Problem::new("spec::type", matrix.span, "`matrix` is a map of lists");
                let help = "write `axis: [value, value]` below it";
                problems.push(problem.label(matrix.noun()).help(help));
            }
        }
    }
    axes
}

/// Every combination of the axes but those that `exclude` drops.
pub fn cells(axes: &[Axis], matrix: Option<&Yaml>, problems: &mut Vec<Problem>) -> Vec<Cell> {
    let many = axes.iter().fold(1usize, |n, axis| n.saturating_mul(axis.values.len()));
    if many > MOST {
        let span = axes.first().map_or(Span::default(), |axis| axis.key.span);
        let problem = Problem::new("matrix::size", span, format!("a matrix of {many} cells"));
        problems.push(problem.help(format!("at most {MOST}; drop an axis, or some of its values")));
        return Vec::new();
    }
    let mut cells = vec![Cell::new()];
    for axis in axes {
        let with = |cell: &Cell, value: &Arc<Bound>| {
            let mut cell = cell.clone();
            cell.push(Arc::clone(value));
            cell
        };
        cells = cells.iter().flat_map(|c| axis.values.iter().map(move |v| with(c, v))).collect();
    }
    if let Some(exclude) = matrix.and_then(|matrix| matrix.get(EXCLUDE)) {
        drop_excluded(exclude, axes, &mut cells, problems);
    }
    cells
}

fn items(foreach: &Yaml, vars: &mut Vars) -> Option<Axis> {
    let told = vars.problems.len();
    let mut labels = Labels::default();
    let mut values = Vec::new();
    match &foreach.value {
        Value::Seq(list) => {
            for value in list {
                let written = vars.written(value.span);
                let Some(name) = spell(value) else {
                    if value.value != Value::Null || written.is_empty() {
                        vars.problems.push(no_item(value));
                    }
                    continue;
                };
                if let (Value::Number(_), false) = (&value.value, written == name) {
                    vars.problems.extend(respelt(&written, &name, value.span));
                }
                values.extend(labels.bound(ITEM, name, value, value.span, vars.problems));
            }
        }
        Value::Map(entries) => {
            for (key, value) in entries {
                values.extend(labels.bound(ITEM, key.name.clone(), value, key.span, vars.problems));
            }
        }
        _ => {
            let problem = Problem::new("spec::type", foreach.span, "`foreach` is a list or a map");
            vars.problems.push(problem.label(foreach.noun()).help("write `foreach: [btc, eth]`"));
            return None;
        }
    }
    let key = Key { name: ITEM.to_owned(), span: foreach.span };
    if values.is_empty() && vars.problems.len() == told {
        let problem = Problem::new("matrix::empty", foreach.span, "`foreach` has no item");
        vars.problems
            .push(problem.help("give at least one, or leave the stage out with `when: false`"));
    }
    Some(Axis { key, values })
}

fn no_item(value: &Yaml) -> Problem {
    let problem =
        Problem::new("matrix::value", value.span, "an item of a list is text or a number");
    let help = "name each: `foreach: { name: { ... }, other: { ... } }`";
    problem.label(value.noun()).help(help)
}

/// A name such as `1e5` or `1.10` that YAML reads as a number and that would lose its spelling.
fn respelt(written: &str, name: &str, span: Span) -> Option<Problem> {
    let first = written.bytes().next()?;
    // A variable, or something else that is not the number itself.
    if !(first.is_ascii_digit() || matches!(first, b'+' | b'-' | b'.')) {
        return None;
    }
    let message = format!("`{written}` without quotes is ambiguous");
    let problem = Problem::new("yaml::ambiguous", span, message);
    let problem = problem.label(format!("the number {name}"));
    Some(problem.help(format!("write \"{written}\" for the text, or `{name}` for the number")))
}

/// An axis, or those that a map nests below its name.
fn axis(path: &str, key: &Key, value: &Yaml, axes: &mut Vec<Axis>, problems: &mut Vec<Problem>) {
    match &value.value {
        Value::Map(entries) => {
            for (below, value) in entries {
                axis(&format!("{path}.{}", below.name), below, value, axes, problems);
            }
        }
        Value::Seq(list) => {
            if !is_axis(path) {
                let message = format!("`{path}` cannot name an axis");
                let problem = Problem::new("matrix::name", key.span, message);
                let help =
                    "letters, digits, `_`, `-` and `.`; `item` and `key` belong to `foreach`";
                problems.push(problem.help(help));
                return;
            }
            if list.is_empty() {
                let problem = Problem::new(
                    "matrix::empty",
                    value.span,
                    format!("the axis `{path}` has no value"),
                );
                problems.push(problem.help("give at least one, or leave the axis out"));
            }
            let mut labels = Labels::default();
            let values = list
                .iter()
                .filter_map(|value| labels.bound(path, label(value), value, value.span, problems));
            let values = values.collect();
            axes.push(Axis { key: Key { name: path.to_owned(), span: key.span }, values });
        }
        _ => {
            let problem = Problem::new(
                "spec::type",
                value.span,
                format!("the axis `{path}` is a list of values"),
            );
            let written = spell(value).unwrap_or_default();
            let help = format!("write `[{written}]`, or put it below `with`");
            problems.push(problem.label(value.noun()).help(help));
        }
    }
}

fn is_axis(name: &str) -> bool {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    !matches!(name, "item" | "key") && !name.is_empty() && name.chars().all(plain)
}

/// Drops the cells that an entry of `exclude` describes.
fn drop_excluded(
    exclude: &Yaml,
    axes: &[Axis],
    cells: &mut Vec<Cell>,
    problems: &mut Vec<Problem>,
) {
    let Value::Seq(entries) = &exclude.value else {
        let problem = Problem::new("spec::type", exclude.span, "`exclude` is a list of cells");
        problems.push(problem.label(exclude.noun()).help("write `exclude: [{ axis: value }]`"));
        return;
    };
    for entry in entries {
        let mut wanted = Vec::new();
        flatten("", entry, &mut wanted);
        if wanted.is_empty() {
            let problem = Problem::new("spec::type", entry.span, "an entry of `exclude` is a map");
            problems.push(problem.label(entry.noun()).help("write `{ axis: value }`"));
            continue;
        }
        let known = |path: &str| axes.iter().any(|axis| axis.key.name == path);
        if let Some((path, value)) = wanted.iter().find(|(path, _)| !known(path)) {
            let problem =
                Problem::new("matrix::unknown", value.span, format!("no axis `{path}` here"));
            let names = axes.iter().map(|axis| axis.key.name.as_str());
            problems.push(problem.maybe_help(crate::diagnostic::suggest(path, "axes", names)));
            continue;
        }
        let before = cells.len();
        cells.retain(|cell| {
            !wanted.iter().all(|(path, value)| {
                cell.iter().any(|bound| bound.axis == *path && bound.value.json() == value.json())
            })
        });
        if cells.len() == before {
            let problem = Problem::warning("matrix::exclude", entry.span, "this drops no cell");
            problems.push(problem.help("each value must be one of its axis"));
        } else if cells.is_empty() {
            let problem = Problem::new("matrix::empty", entry.span, "`exclude` drops every cell");
            problems
                .push(problem.help("keep at least one, or leave the stage out with `when: false`"));
        }
    }
}

/// `{lora: {r: 8}}` as `lora.r` and `8`; a list or a map that is a value stays whole where an axis
/// has such values.
fn flatten<'y>(path: &str, yaml: &'y Yaml, into: &mut Vec<(String, &'y Yaml)>) {
    match &yaml.value {
        Value::Map(entries) => entries.iter().for_each(|(key, value)| match path {
            "" => flatten(&key.name, value, into),
            path => flatten(&format!("{path}.{}", key.name), value, into),
        }),
        _ if path.is_empty() => {}
        _ => into.push((path.to_owned(), yaml)),
    }
}

/// Labels of an axis: each its own, also on a disk that ignores case.
#[derive(Default)]
struct Labels {
    seen: std::collections::BTreeMap<String, (serde_json::Value, Span)>,
}

impl Labels {
    fn bound(
        &mut self,
        axis: &str,
        name: String,
        value: &Yaml,
        span: Span,
        problems: &mut Vec<Problem>,
    ) -> Option<Arc<Bound>> {
        let plain = sanitised(&name);
        let json = value.json();
        let mut label = plain.clone();
        let mut n = 1;
        while let Some((other, first)) = self.seen.get(&label.to_lowercase()) {
            if *other == json {
                let problem =
                    Problem::new("matrix::duplicate", span, format!("`{name}` is given twice"));
                problems.push(problem.also(*first, "first here").help("keep one of the two"));
                return None;
            }
            n += 1;
            label = format!("{plain}-{n}");
        }
        self.seen.insert(label.to_lowercase(), (json, span));
        Some(Arc::new(Bound { axis: axis.to_owned(), label, name, value: value.clone() }))
    }
}

/// A value as its name in a cell.
fn label(value: &Yaml) -> String {
    match &value.value {
        Value::Null => "null".to_owned(),
        Value::Seq(items) => items.iter().map(label).collect::<Vec<_>>().join("-"),
        Value::Map(entries) => {
            let each = entries.iter().map(|(key, value)| format!("{}-{}", key.name, label(value)));
            each.collect::<Vec<_>>().join("-")
        }
        _ => spell(value).unwrap_or_default(),
    }
}

/// A text as part of a file's name, of a `from` and of a shell word.
fn sanitised(text: &str) -> String {
    let fits = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '+');
    let label: String = text.chars().take(LABEL).map(|c| if fits(c) { c } else { '-' }).collect();
    match label.trim_matches(['-', '.']) {
        "" => "value".to_owned(),
        _ => label,
    }
}
