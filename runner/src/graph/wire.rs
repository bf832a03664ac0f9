//! What feeds each port of a stage: names looked up, ports known and filled, formats fitting.

use std::collections::{BTreeSet, HashMap};

use quantmill_stages::{Format, Port};

use super::{InputSpec, Known};
use crate::diagnostic::{Problem, Span, nearest, suggest};
use crate::spec::cells::{self, Cell};
use crate::spec::source::{Pick, Source, is_path};
use crate::spec::{StageSpec, Text, is_name};
use crate::yaml::Key;

/// The port of `map`.
pub(crate) const ITEM: &str = "item";

/// A port and what feeds it.
pub(crate) struct Wire {
    pub port: String,
    pub fed: Fed,
    /// The stage cannot run without it.
    pub required: bool,
    /// The source in the file.
    pub span: Span,
}

/// What feeds a port; stages by their place in the spec.
pub(crate) enum Fed {
    Input(String),
    Path(String),
    Stage { stage: usize, port: String },
    Cells { stages: Vec<(String, usize)>, port: String },
}

impl Fed {
    /// The stages that feed it.
    pub fn stages(&self) -> impl Iterator<Item = usize> {
        let (one, many) = match self {
            Fed::Stage { stage, .. } => (Some(*stage), [].as_slice()),
            Fed::Cells { stages, .. } => (None, stages.as_slice()),
            _ => (None, [].as_slice()),
        };
        one.into_iter().chain(many.iter().map(|(_, stage)| *stage))
    }
}

/// The cells of a stage: how many stages of the spec it became, from which on.
struct Base {
    first: usize,
    cells: usize,
}

/// All that a `from` may name.
pub(crate) struct Names<'a> {
    inputs: BTreeSet<&'a str>,
    bases: HashMap<&'a str, Base>,
    /// Cells by stage and label.
    cells: HashMap<(&'a str, String), usize>,
    stages: &'a [StageSpec],
    known: &'a [Option<Known>],
}

impl<'a> Names<'a> {
    pub fn new(
        inputs: &'a [InputSpec],
        stages: &'a [StageSpec],
        known: &'a [Option<Known>],
    ) -> Names<'a> {
        let inputs = inputs.iter().map(|input| input.name.as_str()).collect();
        let mut bases: HashMap<&str, Base> = HashMap::with_capacity(stages.len());
        let mut cells = HashMap::new();
        for (place, stage) in stages.iter().enumerate() {
            bases.entry(&stage.base).or_insert(Base { first: place, cells: 0 }).cells += 1;
            if !stage.cell.is_empty() {
                cells.insert((stage.base.as_str(), cells::label(&stage.cell)), place);
            }
        }
        Names { inputs, bases, cells, stages, known }
    }

    fn all(&self) -> Vec<&'a str> {
        let mut stages: Vec<&str> = self.bases.keys().copied().collect();
        stages.sort_unstable();
        self.inputs.iter().copied().chain(stages).collect()
    }

    /// Looks up a source for a stage. The format is `None` where another mistake hides it.
    fn find(
        &self,
        text: &Text,
        reader: &StageSpec,
        globs: bool,
    ) -> Result<(Fed, Option<Format>), Problem> {
        if is_path(&text.text) {
            return path(text, globs).map(|path| (Fed::Path(path), Some(Format::Any)));
        }
        if self.inputs.contains(text.text.as_str()) {
            return Ok((Fed::Input(text.text.clone()), Some(Format::Any)));
        }
        let source = Source::parse(&text.text);
        match self.bases.get(source.name) {
            Some(base) => self.output(text, &source, base, reader),
            None => Err(self.unknown(text, source.name)),
        }
    }

    fn output(
        &self,
        text: &Text,
        source: &Source,
        base: &Base,
        reader: &StageSpec,
    ) -> Result<(Fed, Option<Format>), Problem> {
        let port = source.port;
        let unclear = reader.unclear || self.stages[base.first].unclear;
        let Some(known) = self.known.get(base.first).and_then(Option::as_ref).filter(|_| !unclear)
        else {
            let port = port.unwrap_or_default().to_owned();
            return Ok((Fed::Stage { stage: base.first, port }, None));
        };
        let outputs = &known.outputs;
        let found = match port {
            None => outputs.first(),
            Some(port) => outputs.iter().find(|output| output.name == port),
        };
        let name = source.name;
        let Some(found) = found else {
            let names: Vec<&str> = outputs.iter().map(|output| output.name.as_ref()).collect();
            let (message, help) = match port {
                Some(port) => {
                    let help = suggest(port, &format!("outputs of `{name}`"), names);
                    (format!("stage `{name}` has no output `{port}`"), help)
                }
                None => (format!("stage `{name}` has no output"), None),
            };
            return Err(Problem::new("graph::unknown_output", text.span, message).maybe_help(help));
        };
        let port = found.name.clone().into_owned();
        let stages = self.cells(text, source, base, reader)?;
        if source.gathers() {
            let label = |stage: usize| {
                let cell = self.stages[stage].cell.iter();
                let gathered = cell.filter(|bound| source.gathers_axis(&bound.axis)).cloned();
                (cells::label(&gathered.collect()), stage)
            };
            let stages = stages.into_iter().map(label).collect();
            return Ok((Fed::Cells { stages, port }, Some(Format::Any)));
        }
        match stages.as_slice() {
            [stage] => Ok((Fed::Stage { stage: *stage, port }, Some(found.format))),
            _ => {
                let message = format!("`{}` means {} cells of `{name}`", text.text, stages.len());
                let problem = Problem::new("graph::cell", text.span, message);
                Err(problem.help(format!("pick one, or gather all: `{name}@*`")))
            }
        }
    }

    /// The cells of a stage that a source means for a reader; at least one.
    fn cells(
        &self,
        text: &Text,
        source: &Source,
        base: &Base,
        reader: &StageSpec,
    ) -> Result<Vec<usize>, Problem> {
        let all = base.first..base.first + base.cells;
        let first = &self.stages[base.first].cell;
        if first.is_empty() && source.picks.is_empty() {
            return Ok(vec![base.first]);
        }
        let name = source.name;
        if first.is_empty() {
            let message = format!("`{name}` has no matrix: there are no cells to pick");
            let problem = Problem::new("graph::cell", text.span, message);
            let plain = text.text.split('@').next().unwrap_or_default();
            return Err(problem.help(format!("write `{plain}`")));
        }
        // Nearly always all cells have the same axes, and this finds the one.
        if !source.gathers()
            && let Some(label) = label_for(first, source, &reader.cell)
            && let Some(&found) = self.cells.get(&(name, label))
        {
            return Ok(vec![found]);
        }
        let fits = |stage: &usize| {
            let cell = &self.stages[*stage].cell;
            let agrees = |axis: &str, label: &str| {
                reader.cell.iter().any(|own| own.axis == axis && own.label == label)
            };
            source.takes(cell)
                && cell.iter().all(|b| source.mentions(&b.axis) || agrees(&b.axis, &b.label))
        };
        let found: Vec<usize> = all.clone().filter(fits).collect();
        if found.is_empty() {
            let wanted = text.text.split_once('@').map_or("", |(_, cell)| cell);
            let message = format!("`{name}` has no cell `{wanted}`");
            let labels: Vec<String> =
                all.map(|stage| cells::label(&self.stages[stage].cell)).collect();
            let help = match wanted.strip_prefix("*.") {
                Some(port) => Some(format!("the output comes first: `{name}.{port}@*`")),
                None => suggest(
                    wanted,
                    &format!("cells of `{name}`"),
                    labels.iter().map(String::as_str),
                ),
            };
            return Err(Problem::new("graph::cell", text.span, message).maybe_help(help));
        }
        Ok(found)
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
        for stage in self.stages.iter().filter(|stage| stage.base != own) {
            let name = &stage.base;
            let Some(base) = self.bases.get(name.as_str()) else { continue };
            let outputs = self.known.get(base.first).and_then(Option::as_ref).map(|k| &k.outputs);
            for (i, output) in outputs.into_iter().flatten().enumerate() {
                if output.format == format {
                    giving.push(match i {
                        0 => format!("`{name}`"),
                        _ => format!("`{name}.{}`", output.name),
                    });
                }
            }
        }
        giving.dedup();
        giving
    }
}

/// The label of the one cell that a source means, where its axes are those of `like`.
fn label_for(like: &Cell, source: &Source, reader: &Cell) -> Option<String> {
    let mut label = String::new();
    for bound in like {
        let picked = source.picks.iter().find_map(|pick| match pick {
            Pick::One(axis, value) if *axis == bound.axis => Some(*value),
            _ => None,
        });
        let own = || reader.iter().find(|own| own.axis == bound.axis).map(|own| own.label.as_str());
        let value = picked.or_else(own)?;
        if !label.is_empty() {
            label.push(',');
        }
        if bound.axis != cells::ITEM {
            label.push_str(&bound.axis);
            label.push('=');
        }
        label.push_str(value);
    }
    Some(label)
}

fn path(source: &Text, globs: bool) -> Result<String, Problem> {
    let problem = |message: &str| Problem::new("graph::path", source.span, message);
    if !globs && source.text.contains(['*', '?', '[', '{']) {
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
    let mut named: Vec<std::borrow::Cow<str>> = Vec::new();
    for (key, source) in &stage.from {
        let port = known.map_or(Ok(None), |known| port(stage, known, key.as_ref(), source));
        let port = port.unwrap_or_else(|problem| {
            problems.push(problem);
            None
        });
        named.extend(port.as_ref().map(|port| port.name.clone()));
        let (fed, given) = match names.find(source, stage, false) {
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
        let required = port.as_ref().is_some_and(|port| port.required);
        let name = port.map_or_else(String::new, |port| port.name.into_owned());
        wires.push(Wire { port: name, fed, required, span: source.span });
    }
    if let Some(source) = &stage.map {
        named.push(ITEM.into());
        match map(stage, source, known, names) {
            Ok(fed) => {
                let span = source.span;
                wires.push(Wire { port: ITEM.to_owned(), fed, required: true, span });
            }
            Err(problem) => problems.push(problem),
        }
    }
    let names_of = [("env", &stage.env), ("secrets", &stage.secrets)];
    for (key, name) in names_of.iter().filter_map(|(key, names)| Some((key, names.first()?))) {
        if let Some(known) = known.filter(|known| !known.inputs.iter().any(Port::is_any)) {
            let message = format!("`{}` reads no environment", known.kind.name);
            let problem = Problem::new("graph::env", name.span, message);
            let help = format!("leave out `{key}`; give what differs as a parameter");
            problems.push(problem.help(help));
        }
    }
    let ports = known.map(|known| known.inputs.as_slice()).unwrap_or_default();
    for port in ports.iter().filter(|port| port.required && !port.is_any() && !stage.broken) {
        if !named.contains(&port.name) {
            problems.push(unfed(stage, port, ports, names));
        }
    }
    wires
}

/// What a stage maps over.
fn map(
    stage: &StageSpec,
    text: &Text,
    known: Option<&Known>,
    names: &Names,
) -> Result<Fed, Problem> {
    let problem = |message: String| Problem::new("graph::map", text.span, message);
    if let Some(known) = known.filter(|known| !known.inputs.iter().any(Port::is_any)) {
        let kind = known.kind.name;
        let problem = problem(format!("`{kind}` takes no `map`"));
        return Err(problem.help(match known.items {
            Some(items) => {
                format!("it goes over the files of `{}` by itself: leave out `map`", items.port)
            }
            None => "`map` is for a `command`".to_owned(),
        }));
    }
    let taken = stage.from.iter().filter_map(|(key, _)| key.as_ref()).find(|k| k.name == ITEM);
    if let Some(key) = taken {
        let problem = Problem::new("graph::map", key.span, "`item` is what `map` gives");
        return Err(problem.also(text.span, "here").help("call this source something else"));
    }
    // A glob cannot be a name: its place is clear without `./`.
    let glob = !is_path(&text.text) && text.text.contains(['*', '/']) && !text.text.contains('@');
    let source = match glob {
        true => Text { text: format!("./{}", text.text), span: text.span },
        false => text.clone(),
    };
    let (fed, _) = names.find(&source, stage, true)?;
    if let Fed::Stage { stage, port } = &fed {
        let outputs = names.known.get(*stage).and_then(Option::as_ref).map(|known| &known.outputs);
        let out = outputs.into_iter().flatten().find(|out| out.name == *port);
        if out.is_some_and(|out| !out.tree) {
            let problem =
                problem(format!("`{}` is one file, and `map` goes over a folder", text.text));
            let help = "feed it through `from`, or let that stage write a folder: `outputs: { parts: parts/ }`";
            return Err(problem.help(help));
        }
    }
    Ok(fed)
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
        // The item has a source of its own.
        let mapped = |port: &&Port| stage.map.is_some() && port.name == ITEM;
        return match known.inputs.iter().find(|port| !mapped(port)) {
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
    let message = format!("stage `{}` has no input `{}`", stage.base, key.name);
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
    let parsed = Source::parse(&source.text);
    let name = parsed.port.unwrap_or(parsed.name);
    if is_path(&source.text) || !is_name(name) {
        let problem = Problem::new("graph::unknown_port", source.span, "a path has no name");
        let help =
            format!("name it: `from: {{ data: {} }}`, and `{{in.data}}` is its place", source.text);
        return Err(problem.help(help));
    }
    Ok(Port { name: name.to_owned().into(), ..any.clone() })
}

fn misfit(stage: &StageSpec, port: &Port, given: Format, source: &Text, names: &Names) -> Problem {
    let (name, wanted) = (&stage.base, port.format);
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
    let message = format!("stage `{}` lacks its input `{}`", stage.base, port.name);
    let problem = Problem::new("graph::missing_port", stage.name.span, message);
    let problem = problem.label(match port.format {
        Format::Any => "needs a file".to_owned(),
        format => format!("needs {format}"),
    });
    let giving = names.giving(port.format, &stage.base);
    let example = match ports {
        [_] => "from: SOURCE".to_owned(),
        _ => format!("from: {{ {}: SOURCE }}", port.name),
    };
    problem.help(match giving.is_empty() || port.format == Format::Any {
        true => format!("add `{example}`"),
        false => format!("add `{example}`; what gives {} here: {}", port.format, giving.join(", ")),
    })
}
