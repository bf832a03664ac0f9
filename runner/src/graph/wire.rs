//! What feeds each port of a stage: names looked up, ports known and filled, formats fitting.

use std::collections::{BTreeMap, BTreeSet};

use quantmill_stages::{Format, Port};

use super::{InputSpec, Known};
use crate::diagnostic::{Problem, Span, nearest, suggest};
use crate::spec::{StageSpec, Text, is_name};
use crate::yaml::Key;

/// A port and what feeds it.
pub(crate) struct Wire {
    pub port: String,
    pub fed: Fed,
    /// The source in the file.
    pub span: Span,
}

/// What feeds a port; stages by their place in the file.
pub(crate) enum Fed {
    Input(String),
    Path(String),
    Stage { stage: usize, port: String },
}

/// All that a `from` may name.
pub(crate) struct Names<'a> {
    inputs: BTreeSet<&'a str>,
    stages: BTreeMap<&'a str, usize>,
    known: &'a [Option<Known>],
}

impl<'a> Names<'a> {
    pub fn new(
        inputs: &'a [InputSpec],
        stages: &'a [StageSpec],
        known: &'a [Option<Known>],
    ) -> Names<'a> {
        let inputs = inputs.iter().map(|input| input.name.as_str()).collect();
        let place = |(i, stage): (usize, &'a StageSpec)| (stage.name.name.as_str(), i);
        Names { inputs, stages: stages.iter().enumerate().map(place).collect(), known }
    }

    fn all(&self) -> Vec<&'a str> {
        self.inputs.iter().chain(self.stages.keys()).copied().collect()
    }

    /// Looks up a source. The format is `None` where another mistake hides it.
    fn find(&self, source: &Text) -> Result<(Fed, Option<Format>), Problem> {
        let text = source.text.as_str();
        if text.starts_with("./") {
            return path(source).map(|path| (Fed::Path(path), Some(Format::Any)));
        }
        if self.inputs.contains(text) {
            return Ok((Fed::Input(text.to_owned()), Some(Format::Any)));
        }
        let (name, port) = match text.split_once('.') {
            Some((name, port)) => (name, Some(port)),
            None => (text, None),
        };
        match self.stages.get(name) {
            Some(&stage) => self.output(source, stage, name, port),
            None => Err(self.unknown(source, name)),
        }
    }

    fn output(
        &self,
        source: &Text,
        stage: usize,
        name: &str,
        port: Option<&str>,
    ) -> Result<(Fed, Option<Format>), Problem> {
        let Some(known) = self.known.get(stage).and_then(Option::as_ref) else {
            let port = port.unwrap_or_default().to_owned();
            return Ok((Fed::Stage { stage, port }, None));
        };
        let outputs = &known.outputs;
        let found = match port {
            None => outputs.first(),
            Some(port) => outputs.iter().find(|output| output.name == port),
        };
        if let Some(found) = found {
            let port = found.name.clone().into_owned();
            return Ok((Fed::Stage { stage, port }, Some(found.format)));
        }
        let names: Vec<&str> = outputs.iter().map(|output| output.name.as_ref()).collect();
        let (message, help) = match port {
            Some(port) => {
                let help = suggest(port, &format!("outputs of `{name}`"), names);
                (format!("stage `{name}` has no output `{port}`"), help)
            }
            None => (format!("stage `{name}` has no output"), None),
        };
        Err(Problem::new("graph::unknown_output", source.span, message).maybe_help(help))
    }

    fn unknown(&self, source: &Text, name: &str) -> Problem {
        let text = &source.text;
        let message = format!("unknown source `{text}`");
        let problem = Problem::new("graph::unknown_source", source.span, message);
        let problem = problem.label("neither an input nor a stage");
        let near = nearest(name, self.all());
        if near.is_none() && (text.contains('/') || text.starts_with('.')) {
            let path = text.trim_start_matches('/');
            return problem.help(format!("a path begins with `./`, as `./{path}`"));
        }
        problem.maybe_help(suggest(name, "inputs and stages", self.all()))
    }

    /// `a`, `b.c`: the outputs of other stages that have a format.
    fn giving(&self, format: Format, own: &str) -> Vec<String> {
        let mut giving = Vec::new();
        for (name, &stage) in self.stages.iter().filter(|(name, _)| **name != own) {
            let outputs = self.known.get(stage).and_then(Option::as_ref).map(|k| &k.outputs);
            for (i, output) in outputs.into_iter().flatten().enumerate() {
                if output.format == format {
                    giving.push(match i {
                        0 => format!("`{name}`"),
                        _ => format!("`{name}.{}`", output.name),
                    });
                }
            }
        }
        giving
    }
}

fn path(source: &Text) -> Result<String, Problem> {
    let problem = |message: &str| Problem::new("graph::path", source.span, message);
    if source.text.contains(['*', '?', '[', '{']) {
        return Err(problem("a path in `from` is one file or folder")
            .help("give the glob a name in `inputs`, and use the name here"));
    }
    if source.text.split('/').any(|part| part == "..") {
        return Err(problem("a path in `from` stays in the pipeline's folder")
            .help("give it a name in `inputs`, which may lie elsewhere"));
    }
    Ok(source.text.clone())
}

/// The wires of a stage, with all that is wrong with them.
pub(crate) fn stage(
    stage: &StageSpec,
    known: Option<&Known>,
    names: &Names,
    problems: &mut Vec<Problem>,
) -> Vec<Wire> {
    let mut wires = Vec::with_capacity(stage.from.len());
    let mut named = BTreeSet::new();
    for (key, source) in &stage.from {
        let port = known.map_or(Ok(None), |known| port(stage, known, key.as_ref(), source));
        let port = port.unwrap_or_else(|problem| {
            problems.push(problem);
            None
        });
        named.extend(port.as_ref().map(|port| port.name.clone()));
        let (fed, given) = match names.find(source) {
            Ok(found) => found,
            Err(problem) => {
                problems.push(problem);
                continue;
            }
        };
        if let (Some(port), Some(given)) = (&port, given)
            && !port.format.accepts(given)
        {
            problems.push(misfit(stage, port, given, source, names));
        }
        let name = port.map_or_else(String::new, |port| port.name.into_owned());
        wires.push(Wire { port: name, fed, span: source.span });
    }
    if let (Some(name), Some(known)) = (stage.env.first(), known)
        && !known.inputs.iter().any(Port::is_any)
    {
        let message = format!("a `{}` reads no environment", known.kind.name);
        let problem = Problem::new("graph::env", name.span, message);
        problems.push(problem.help("leave out `env`; give what differs as a parameter"));
    }
    let ports = known.map(|known| known.inputs.as_slice()).unwrap_or_default();
    for port in ports.iter().filter(|port| port.required && !port.is_any() && !stage.broken) {
        if !named.contains(&port.name) {
            problems.push(unfed(stage, port, ports, names));
        }
    }
    wires
}

/// The port that an entry of `from` means.
fn port(
    stage: &StageSpec,
    known: &Known,
    key: Option<&Key>,
    source: &Text,
) -> Result<Option<Port>, Problem> {
    let any = known.inputs.iter().find(|port| port.is_any());
    let Some(key) = key else {
        return match known.inputs.first() {
            Some(first) if first.is_any() => single(first, source).map(Some),
            Some(first) => Ok(Some(first.clone())),
            None => {
                let message = format!("`{}` takes no input", known.kind.name);
                let problem = Problem::new("graph::unknown_port", source.span, message);
                Err(problem.help("leave out `from`"))
            }
        };
    };
    if let Some(found) = known.inputs.iter().find(|port| port.name == key.name && !port.is_any()) {
        return Ok(Some(found.clone()));
    }
    if let Some(any) = any {
        return match is_name(&key.name) {
            true => Ok(Some(Port { name: key.name.clone().into(), ..any.clone() })),
            false => {
                let message = format!("`{}` cannot name a port", key.name);
                let problem = Problem::new("graph::unknown_port", key.span, message);
                Err(problem.help("a name has lower-case letters, digits, `_` and `-`"))
            }
        };
    }
    let message = format!("stage `{}` has no input `{}`", stage.name.name, key.name);
    let ports = known.inputs.iter().map(|port| port.name.as_ref()).collect::<Vec<_>>();
    let what = format!("inputs of `{}`", known.kind.name);
    let help = match ports.is_empty() {
        true => Some(format!("`{}` takes no input", known.kind.name)),
        false => suggest(&key.name, &what, ports),
    };
    let problem = Problem::new("graph::unknown_port", key.span, message);
    Err(problem.label(format!("not an input of `{}`", known.kind.name)).maybe_help(help))
}

/// A `command` with one unnamed source: the port takes the source's name.
fn single(any: &Port, source: &Text) -> Result<Port, Problem> {
    let name = source.text.rsplit('.').next().unwrap_or_default();
    if source.text.starts_with("./") || !is_name(name) {
        let problem = Problem::new("graph::unknown_port", source.span, "a path has no name");
        let help =
            format!("name it: `from: {{ data: {} }}`, and `{{in.data}}` is its place", source.text);
        return Err(problem.help(help));
    }
    Ok(Port { name: name.to_owned().into(), ..any.clone() })
}

fn misfit(stage: &StageSpec, port: &Port, given: Format, source: &Text, names: &Names) -> Problem {
    let (name, wanted) = (&stage.name.name, port.format);
    let message = format!("`{name}` wants {wanted} at `{}`, not {given}", port.name);
    let problem = Problem::new("graph::format", source.span, message);
    let problem = problem.label(format!("gives {given}"));
    let giving = names.giving(wanted, name);
    problem.help(match giving.is_empty() {
        true => format!("no stage here gives {wanted}"),
        false => format!("what gives {wanted} here: {}", giving.join(", ")),
    })
}

fn unfed(stage: &StageSpec, port: &Port, ports: &[Port], names: &Names) -> Problem {
    let message = format!("stage `{}` lacks its input `{}`", stage.name.name, port.name);
    let problem = Problem::new("graph::missing_port", stage.name.span, message);
    let problem = problem.label(match port.format {
        Format::Any => "needs a file".to_owned(),
        format => format!("needs {format}"),
    });
    let giving = names.giving(port.format, &stage.name.name);
    let example = match ports {
        [_] => "from: SOURCE".to_owned(),
        _ => format!("from: {{ {}: SOURCE }}", port.name),
    };
    problem.help(match giving.is_empty() || port.format == Format::Any {
        true => format!("add `{example}`"),
        false => format!("add `{example}`; what gives {} here: {}", port.format, giving.join(", ")),
    })
}
