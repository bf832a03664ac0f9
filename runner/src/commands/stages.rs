//! `quantmill stages`: every kind of stage; of one kind its ports and parameters.

use clap::Args;
use quantmill_stages::{Kind, Port};
use serde_json::Value;

use crate::diagnostic::suggest;
use crate::exit::Failure;
use crate::report::text::{Paint, colour_out, pad, paint};

/// Arguments of `stages`.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "\
Examples:
  quantmill stages
  quantmill stages chunk")]
pub struct Stages {
    /// A kind of stage [default: list them all]
    kind: Option<String>,
}

/// Prints the list, or one kind.
pub fn stages(arguments: &Stages, kinds: &[Kind]) -> Result<(), Failure> {
    let on = colour_out();
    let Some(name) = &arguments.kind else {
        for kind in kinds {
            println!("{} {}", paint(on, Paint::Bold, &pad(kind.name, 10)), kind.about);
        }
        return Ok(());
    };
    let Some(kind) = kinds.iter().find(|kind| kind.name == *name) else {
        let help = suggest(name, "kinds", kinds.iter().map(|kind| kind.name));
        return Err(Failure::usage(format!("no kind of stage `{name}`"), help));
    };
    println!("{}: {} (version {})", paint(on, Paint::Bold, kind.name), kind.about, kind.version);
    // Ports may depend on parameters: shown where the defaults are enough to know them.
    if let Ok(params) = (kind.resolve)(&Value::Null) {
        if let Some(items) = (kind.items)(&params) {
            let reads = Some(items.reads()).filter(|reads| !reads.is_empty());
            let reads = reads.map_or(String::new(), |reads| format!("; {reads}"));
            println!("It maps over the files of `{}`: each is cached alone{reads}.", items.port);
        }
        println!("\n{}", paint(on, Paint::Bold, "inputs"));
        (kind.inputs)(&params).iter().for_each(|port| println!("  {}", input(port)));
        println!("{}", paint(on, Paint::Bold, "outputs"));
        (kind.outputs)(&params).iter().for_each(|port| println!("  {}", output(port)));
    }
    println!("\n{}", paint(on, Paint::Bold, "parameters (with)"));
    let schema = (kind.schema)().to_value();
    parameters(&schema, &schema, "  ", on);
    if let Some((title, names)) = (kind.names)() {
        println!("\n{}", paint(on, Paint::Bold, title));
        for named in names {
            println!("  {} {}", paint(on, Paint::Bold, &pad(named.name, 20)), named.about);
            named.notes.iter().for_each(|note| println!("  {} {note}", pad("", 20)));
        }
    }
    Ok(())
}

fn input(port: &Port) -> String {
    let optional = if port.required { "" } else { " (optional)" };
    format!("{} {}{optional}", pad(&port.name, 14), port.format)
}

fn output(port: &Port) -> String {
    let folder = if port.tree { "/" } else { "" };
    format!("{} {} {}{folder}", pad(&port.name, 14), pad(&port.format.to_string(), 10), port.path)
}

/// A line for each property, with what lies below it indented.
fn parameters(root: &Value, schema: &Value, indent: &str, on: bool) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let default = match &property["default"] {
            Value::Null => String::new(),
            Value::Object(_) | Value::Array(_) => String::new(),
            value => format!(" [{value}]"),
        };
        let about = property["description"].as_str().unwrap_or("").replace('\n', " ");
        println!("{indent}{}{default}  {about}", paint(on, Paint::Bold, name));
        let target = property["$ref"].as_str().and_then(|path| path.strip_prefix('#'));
        if let Some(inner) = target.and_then(|path| root.pointer(path)) {
            parameters(root, inner, &format!("{indent}  "), on);
        }
    }
}
