//! From stages with axes to a stage for each cell.
//!
//! A stage has the axes of its own `matrix` and `foreach`, and those of every stage that it reads:
//! it has a cell wherever the cells that it reads agree on the axes that they share. `stage@cell`
//! picks cells and `stage@*` gathers them; axes that are picked or gathered are not handed on.

use std::sync::Arc;

use quantmill_stages::Kind;

use super::axes::{self, Axis};
use super::join;
use super::when;
use crate::diagnostic::{Problem, Severity, Span};
use crate::params::{self, Schemas};
use crate::set;
use crate::vars::Vars;
use crate::yaml::{Key, Value, Yaml};

/// The axis of `foreach`.
pub const ITEM: &str = "item";
/// The most cells that a stage may have.
pub const MOST: usize = 100_000;

/// A value on an axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Bound {
    /// The axis.
    pub axis: String,
    /// The value in a cell's name: safe in a path, and of its own on the axis.
    pub label: String,
    /// The value as text, for `${key}`.
    pub name: String,
    /// The value.
    pub value: Yaml,
}

impl Bound {
    /// The axis.
    pub fn axis(self: &Arc<Bound>) -> &str {
        &self.axis
    }
}

/// A value on each axis, in the order of the cell's name.
pub type Cell = Vec<Arc<Bound>>;

/// `lr=0.0001,seed=1`; an item stands by itself.
pub fn label(cell: &Cell) -> String {
    let each = cell.iter().map(|bound| match bound.axis.as_str() {
        ITEM => bound.label.clone(),
        axis => format!("{axis}={}", bound.label),
    });
    each.collect::<Vec<_>>().join(",")
}

/// A stage of the file, or one of its cells: what is below its name, variables filled in.
pub struct Expanded {
    /// The name of the file.
    pub key: Key,
    /// The cell; empty where the stage has no axes.
    pub cell: Cell,
    /// What is below the name, without `matrix`, `foreach` and `when`.
    pub yaml: Yaml,
    /// The `when` that leaves it out.
    pub left_out: Option<Span>,
    /// Something about its axes is wrong, and told: the rest cannot be judged.
    pub broken: bool,
}

/// A stage as it stands in the file.
pub(super) struct Template {
    pub key: Key,
    pub yaml: Yaml,
    pub axes: Vec<Axis>,
    /// The cells of its own axes.
    pub own: Vec<Cell>,
    when: Option<Yaml>,
    /// Something about its axes is wrong, and told.
    pub broken: bool,
}

/// A stage for each cell, variables filled in, in the order of the file.
pub fn expand(stages: Vec<(Key, Yaml)>, kinds: &[Kind], vars: &mut Vars) -> Vec<Expanded> {
    let mut templates: Vec<Template> =
        stages.into_iter().map(|(key, yaml)| template(key, yaml, vars)).collect();
    let plain = templates.iter().all(|template| template.axes.is_empty() && !template.broken);
    let cells = if plain { Vec::new() } else { join::all(&mut templates, vars) };
    let mut schemas = Schemas::new(kinds);
    let mut expanded = Vec::with_capacity(templates.len());
    let mut cells = cells.into_iter();
    for mut template in templates {
        let cells = cells.next().unwrap_or_else(|| std::mem::take(&mut template.own));
        fill(template, cells, &mut schemas, vars, &mut expanded);
    }
    expanded
}

fn template(key: Key, mut yaml: Yaml, vars: &mut Vars) -> Template {
    let mut take = |name: &str| {
        let Value::Map(entries) = &mut yaml.value else { return None };
        let at = entries.iter().position(|(key, _)| key.name == name)?;
        Some(entries.remove(at).1)
    };
    let (when, mut matrix, mut foreach) = (take("when"), take("matrix"), take("foreach"));
    let told = vars.problems.len();
    for value in matrix.iter_mut().chain(&mut foreach) {
        vars.expand(value, &Cell::new());
    }
    let axes = axes::axes(foreach.as_ref(), matrix.as_ref(), vars);
    let own = axes::cells(&axes, matrix.as_ref(), vars.problems);
    let errors = vars.problems.get(told..).unwrap_or_default();
    let broken = errors.iter().any(|p| p.severity == Severity::Error);
    Template { key, yaml, axes, own, when, broken }
}

/// Fills in each cell of a stage.
fn fill(
    template: Template,
    cells: Vec<Cell>,
    schemas: &mut Schemas,
    vars: &mut Vars,
    expanded: &mut Vec<Expanded>,
) {
    let Template { key, yaml, axes, when, broken, .. } = template;
    if broken {
        let left_out = None;
        expanded.push(Expanded { key, cell: Cell::new(), yaml, left_out, broken });
        return;
    }
    let schema = match axes.is_empty() {
        true => None,
        false => yaml.get("uses").and_then(Yaml::text).and_then(|kind| schemas.of(kind)),
    };
    let sets = |axis: &&Axis| {
        let name = axis.key.name.as_str();
        name == "seed" || (name != ITEM && schema.is_some_and(|schema| params::has(schema, name)))
    };
    let (given, others): (Vec<&Axis>, Vec<&Axis>) = axes.iter().partition(sets);
    vars.problems.extend(given.iter().filter_map(|axis| twice(axis, &yaml)));
    vars.forget_axes();
    let last = cells.len().saturating_sub(1);
    let mut whole = Some(yaml);
    for (i, cell) in cells.into_iter().enumerate() {
        let copy = if i == last { whole.take() } else { whole.clone() };
        let Some(mut yaml) = copy else { break };
        vars.expand(&mut yaml, &cell);
        for bound in cell.iter().filter(|b| given.iter().any(|axis| axis.key.name == b.axis)) {
            assign(&mut yaml, bound);
        }
        let left_out = when.as_ref().and_then(|when| when::leaves_out(when, &cell, vars));
        expanded.push(Expanded { key: key.clone(), cell, yaml, left_out, broken });
    }
    let used = vars.forget_axes();
    if schema.is_some() {
        let unused = others.into_iter().filter(|axis| !used.contains(&axis.key.name));
        vars.problems.extend(unused.map(self::unused));
    }
}

/// Puts the value of an axis where the parameter, or the seed, of its name is.
fn assign(yaml: &mut Yaml, bound: &Bound) {
    let mut path: Vec<String> = bound.axis.split('.').map(str::to_owned).collect();
    if bound.axis != "seed" {
        path.insert(0, "with".to_owned());
    }
    // Where `with` is no map, that is reported when the stage is read.
    let _ = set::put(yaml, &path, bound.value.span, bound.value.clone());
}

/// A parameter, or the seed, that is given beside the axis of its name.
fn twice(axis: &Axis, yaml: &Yaml) -> Option<Problem> {
    let name = &axis.key.name;
    let root = if name == "seed" { yaml } else { yaml.get("with")? };
    let found = name.split('.').try_fold(root, |at, part| at.get(part))?;
    let message = format!("`{name}` is an axis and has a value of its own");
    let problem = Problem::new("matrix::twice", axis.key.span, message).label("the axis");
    Some(problem.also(found.span, "the value").help("leave out one of the two"))
}

fn unused(axis: &Axis) -> Problem {
    let name = &axis.key.name;
    if name == ITEM {
        let problem =
            Problem::new("matrix::unused", axis.key.span, "every item gives the same stage");
        return problem.help("use `${item}` or `${key}` in it");
    }
    let message = format!("nothing uses the axis `{name}`");
    let problem = Problem::new("matrix::unused", axis.key.span, message);
    problem.help(format!("use `${{matrix.{name}}}` in the stage, or name a parameter of it"))
}
