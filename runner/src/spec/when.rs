//! `when`: whether a stage takes part.
//!
//! A boolean, or an expression in the syntax of Jinja over the variables, `matrix`, `item` and
//! `key`. `${name}` may stand for a name. Nothing else is known to it: no files, no clock, no
//! environment; so that a pipeline means the same on every machine.

use minijinja::value::{Serde, ValueKind};
use minijinja::{Environment, Value as Jinja};

use super::cells::{Cell, ITEM};
use crate::diagnostic::{Problem, Span, suggest};
use crate::vars::Vars;
use crate::yaml::{Value, Yaml};

/// The place of a `when` that is false in a cell. What is wrong with it is added to the problems.
pub fn leaves_out(when: &Yaml, cell: &Cell, vars: &mut Vars) -> Option<Span> {
    let holds = match &when.value {
        Value::Bool(holds) => Some(*holds),
        Value::String(text) => judge(text, when.span, cell, vars),
        _ => {
            let problem = Problem::new("spec::type", when.span, "`when` is a condition");
            let help = "write `when: \"${name}\"`, or an expression such as `when: size > 10`";
            vars.problems.push(problem.label(when.noun()).help(help));
            None
        }
    };
    (holds == Some(false)).then_some(when.span)
}

fn judge(text: &str, span: Span, cell: &Cell, vars: &mut Vars) -> Option<bool> {
    let mut given = std::collections::BTreeMap::new();
    let mut bind = |name: String, value: &Yaml| {
        drop(given.insert(name, Jinja::from(Serde(value.json()))));
    };
    let told = vars.problems.len();
    let mut expression = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (path, behind) = after.split_once('}').unwrap_or((after, ""));
        let name = format!("given_{}", rest.len());
        if let Some(value) = vars.lookup(path.trim(), span, cell) {
            bind(name.clone(), &value);
        }
        expression.push_str(before);
        expression.push_str(&name);
        rest = behind;
    }
    expression.push_str(rest);
    if vars.problems.len() > told {
        return None;
    }
    let environment = Environment::new();
    let compiled = match environment.compile_expression(&expression) {
        Ok(compiled) => compiled,
        Err(error) => {
            let why = error.detail().unwrap_or("it is not an expression").to_owned();
            let problem =
                Problem::new("when::syntax", span, format!("the condition cannot be read: {why}"));
            let help =
                "write for example `size > 10`, `mode == 'fast'`, `not quick and matrix.seed == 1`";
            vars.problems.push(problem.help(help));
            return None;
        }
    };
    for path in compiled.undeclared_variables(true) {
        let name = path.split('.').next().unwrap_or_default();
        if matches!(name, "matrix" | "item" | "key") {
            if path == "matrix" {
                cell.iter().filter(|b| b.axis != ITEM).for_each(|b| vars.use_axis(&b.axis));
                continue;
            }
            // Its whole path, so that what is missing is told.
            vars.lookup(&path, span, cell)?;
            if name != "matrix" {
                bind(name.to_owned(), &vars.lookup(name, span, cell)?);
            }
        } else if vars.names().contains(&name) {
            vars.lookup(&path, span, cell)?;
            bind(name.to_owned(), &vars.lookup(name, span, cell)?);
        } else if !name.starts_with("given_") {
            let message = format!("unknown name `{name}` in a condition");
            let help = match suggest(name, "variables", vars.names()) {
                Some(help) => format!("{help}\na text is quoted, as `'{name}'`"),
                None => format!("a text is quoted, as `'{name}'`"),
            };
            vars.problems.push(Problem::new("when::unknown", span, message).help(help));
        }
    }
    if vars.problems.len() > told {
        return None;
    }
    let axes = cell.iter().filter(|bound| bound.axis != ITEM);
    let matrix = axes.fold(serde_json::json!({}), |mut matrix, bound| {
        matrix[&bound.axis] = bound.value.json();
        matrix
    });
    given.insert("matrix".to_owned(), Jinja::from(Serde(matrix)));
    match compiled.eval(Jinja::from(Serde(&given))) {
        Ok(value) if value.kind() == ValueKind::Bool => Some(value.is_true()),
        Ok(value) => {
            let message = format!("the condition gives a {}, neither true nor false", value.kind());
            let problem = Problem::new("when::type", span, message);
            vars.problems.push(problem.help("compare it, as `size > 10` or `mode == 'fast'`"));
            None
        }
        Err(error) => {
            let why = error.detail().unwrap_or("its values do not fit").to_owned();
            let problem = Problem::new("when::type", span, format!("the condition fails: {why}"));
            vars.problems.push(problem.help("compare values of one kind"));
            None
        }
    }
}
