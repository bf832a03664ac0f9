//! `quantmill stages`: every kind of stage; of one kind its ports and parameters.

use clap::Args;
use quantmill_stages::{Kind, Port};
use serde_json::Value;

use crate::diagnostic::suggest;
use crate::exit::Failure;
use crate::report::params::{choices, least, parameters};
use crate::report::text::{Paint, colour_out, columns, pad, paint};

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
    let schema = (kind.schema)().to_value();
    ports(kind, &schema, on);
    println!("\n{}", paint(on, Paint::Bold, "parameters (with)"));
    let names = (kind.names)();
    let listed: Vec<&str> = names.iter().flat_map(|(_, all)| all).map(|named| named.name).collect();
    print!("{}", parameters(&schema, &listed, columns(&std::io::stdout(), 120), on));
    if let Some((title, names)) = names {
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

/// Ports may depend on parameters: those of the least parameters, then what another value of one
/// parameter makes of them.
fn ports(kind: &Kind, schema: &Value, on: bool) {
    let base = least(schema, schema);
    let Ok(params) = (kind.resolve)(&base) else { return };
    if let Some(items) = (kind.items)(&params) {
        let reads = Some(items.reads()).filter(|reads| !reads.is_empty());
        let reads = reads.map_or(String::new(), |reads| format!("; {reads}"));
        println!("It maps over the files of `{}`: each is cached alone{reads}.", items.port);
    }
    let lines = |params: &Value| {
        let inputs: Vec<String> = (kind.inputs)(params).iter().map(input).collect();
        let outputs: Vec<String> = (kind.outputs)(params).iter().map(output).collect();
        (inputs, outputs)
    };
    let print = |title: String, lines: &[String]| {
        println!("{}", paint(on, Paint::Bold, &title));
        lines.iter().for_each(|line| println!("  {line}"));
    };
    // Ports, and the values of parameters that give them.
    let mut groups = vec![(lines(&params), Vec::new())];
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        for choice in choices(schema, property) {
            let said = said(name, &choice);
            let mut with = base.clone();
            with[name] = choice;
            let Ok(params) = (kind.resolve)(&with) else { continue };
            let lines = lines(&params);
            match groups.iter_mut().find(|(known, _)| *known == lines) {
                Some((_, names)) => names.push(said),
                None => groups.push((lines, vec![said])),
            }
        }
    }
    println!();
    for (i, ((inputs, outputs), names)) in groups.iter().enumerate() {
        let with = if i == 0 { String::new() } else { format!(" with {}", names.join(" or ")) };
        let first = &groups[0].0;
        if i == 0 || *inputs != first.0 {
            print(format!("inputs{with}"), inputs);
        }
        if i == 0 || *outputs != first.1 {
            print(format!("outputs{with}"), outputs);
        }
    }
}

/// `method: dpo`, `model: hybrid`, `forecasts`.
fn said(name: &str, choice: &Value) -> String {
    match choice {
        Value::String(text) if text != "x" => format!("`{name}: {text}`"),
        Value::Object(one) if one.len() == 1 => {
            format!("`{name}: {}`", one.keys().next().map_or("", String::as_str))
        }
        _ => format!("`{name}`"),
    }
}
