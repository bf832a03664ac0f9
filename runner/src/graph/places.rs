//! Where outputs go, and that no two things want one place.
//!
//! An output that overlaps another, or an input, would make a result depend on which stage ran last.

use std::borrow::Cow;
use std::path::{Component, Path, PathBuf};

use quantmill_stages::Port;

use super::{Fed, InputSpec, Known, Out, Wire};
use crate::diagnostic::{Problem, Sources, Span, suggest};
use crate::spec::{StageSpec, cells};

/// The outputs of a stage with their places.
pub(crate) fn outputs(
    stage: &StageSpec,
    known: Option<&Known>,
    sources: &Sources,
    problems: &mut Vec<Problem>,
) -> Vec<(Out, Span)> {
    let Some(known) = known else { return Vec::new() };
    let mut outs = Vec::with_capacity(known.outputs.len());
    for (i, port) in known.outputs.iter().enumerate() {
        let to = stage.to.iter().find(|(key, _)| match key {
            Some(key) => key.name == port.name,
            None => i == 0,
        });
        let span = match to {
            Some((_, to)) => to.span,
            None => {
                let own = stage.with.get("outputs").and_then(|outputs| outputs.get(&port.name));
                own.filter(|_| names_place(port)).map_or(stage.name.span, |own| own.span)
            }
        };
        let dest = match to {
            _ if names_place(port) => place(&port.path, span, sources),
            Some((_, to)) if !port.tree && to.text.ends_with('/') => {
                let file = port.path.rsplit('/').next().unwrap_or_default();
                let message = format!("`{}` is a file, and this is a folder", port.name);
                let problem = Problem::new("graph::place", span, message);
                Err(problem.help(format!("write `{}{file}`", to.text)))
            }
            Some((_, to)) => place(&to.text, span, sources),
            None => Ok(Path::new("out").join(&stage.name.name).join(port.path.as_ref())),
        };
        match dest {
            Ok(dest) => outs.push((Out { port: port.clone(), dest }, span)),
            Err(problem) => problems.push(problem),
        }
    }
    misplaced(stage, known, problems);
    mapped(stage, known, problems);
    outs
}

/// Outputs of a stage that maps must differ from item to item, and those of another cannot.
fn mapped(stage: &StageSpec, known: &Known, problems: &mut Vec<Problem>) {
    for port in known.outputs.iter().filter(|port| names_place(port)) {
        let own = stage.with.get("outputs").and_then(|outputs| outputs.get(&port.name));
        let Some((own, text)) = own.and_then(|own| Some((own, own.text()?))) else { continue };
        let each = ["{name}", "{stem}"].into_iter().find(|slot| text.contains(slot));
        let problem = match (&stage.map, each) {
            (Some(_), None) => {
                let message = format!("every item would write `{text}`");
                let problem = Problem::new("graph::map", own.span, message);
                problem.help(match text.trim_end_matches('/').rsplit_once('.') {
                    Some((before, kind)) if !before.is_empty() => {
                        format!("name the item: `{before}/{{stem}}.{kind}`")
                    }
                    _ => format!("name the item: `{}/{{name}}`", text.trim_end_matches('/')),
                })
            }
            (None, Some(slot)) => {
                let message =
                    format!("`{slot}` is the name of an item, and this stage has no `map`");
                let problem = Problem::new("graph::map", own.span, message);
                problem.help("add `map: SOURCE`, or name the file")
            }
            _ => continue,
        };
        problems.push(problem);
    }
}

/// Entries of `to` that name no output.
fn misplaced(stage: &StageSpec, known: &Known, problems: &mut Vec<Problem>) {
    for (key, to) in &stage.to {
        let span = key.as_ref().map_or(to.span, |key| key.span);
        if known.outputs.iter().any(names_place) {
            let message = format!("a `{}` names the places of its outputs itself", known.kind.name);
            let problem = Problem::new("graph::place", span, message);
            problems.push(problem.help("write them below `with: outputs:`, and leave out `to`"));
            return;
        }
        let Some(key) = key else { continue };
        if !known.outputs.iter().any(|port| port.name == key.name) {
            let message = format!("stage `{}` has no output `{}`", stage.base, key.name);
            let names: Vec<&str> = known.outputs.iter().map(|port| port.name.as_ref()).collect();
            let what = format!("outputs of `{}`", known.kind.name);
            let help = suggest(&key.name, &what, names);
            problems.push(Problem::new("graph::unknown_output", span, message).maybe_help(help));
        }
    }
}

/// A `command` says in its parameters where its outputs go.
fn names_place(port: &Port) -> bool {
    port.path.starts_with("./")
}

/// A path in the pipeline's folder, without `.` and empty parts.
fn place(text: &str, span: Span, sources: &Sources) -> Result<PathBuf, Problem> {
    let problem = |message: &str| Problem::new("graph::place", span, message);
    let mut dest = PathBuf::with_capacity(text.len());
    for part in Path::new(text).components() {
        match part {
            Component::Normal(part) => dest.push(part),
            Component::CurDir => {}
            _ => {
                let message = format!("`{text}` leads out of the pipeline's folder");
                return Err(problem(&message).help("give a relative path without `..`"));
            }
        }
    }
    let file = Path::new(sources.name()).file_name().map(Path::new);
    let beside = dest.parent().is_some_and(|folder| folder.as_os_str().is_empty());
    let own =
        beside && file.is_some_and(|file| dest == file || dest == file.with_extension("lock"));
    if own || dest.starts_with(".quantmill") || dest.starts_with(".git") {
        let problem = problem(&format!("`{text}` is not a place for an output"));
        return Err(problem.help("the pipeline, its lock and its state live there"));
    }
    if dest.as_os_str().is_empty() {
        return Err(problem("an output needs a path of its own"));
    }
    Ok(dest)
}

/// Something that holds a place.
struct Holder<'a> {
    path: Cow<'a, Path>,
    /// The output's stage and port; `None` for what is only read.
    output: Option<(&'a StageSpec, &'a str)>,
    /// The input's name; `None` for a path in `from` and for an output.
    input: Option<&'a str>,
    span: Span,
}

/// Reports outputs that are the same, or one within the other, or that would overwrite an input.
pub(crate) fn conflicts(
    stages: &[StageSpec],
    outs: &[Vec<(Out, Span)>],
    inputs: &[InputSpec],
    wires: &[Vec<Wire>],
    problems: &mut Vec<Problem>,
) {
    let mut holders = read(inputs, wires);
    for (stage, outs) in stages.iter().zip(outs) {
        holders.extend(outs.iter().map(|(out, span)| Holder {
            path: Cow::Borrowed(&out.dest),
            output: Some((stage, &out.port.name)),
            input: None,
            span: *span,
        }));
    }
    holders.sort_by_cached_key(|holder| (order(&holder.path), holder.span));
    // However many stages read a file: it is one place.
    holders.dedup_by(|next, last| {
        next.output.is_none() && last.output.is_none() && next.path == last.path
    });
    // What encloses the present one, outermost first: the sort puts a folder before what is in it.
    let mut around: Vec<&Holder> = Vec::new();
    for holder in &holders {
        while around.last().is_some_and(|outer| !holder.path.starts_with(&outer.path)) {
            around.pop();
        }
        problems.extend(around.iter().rev().find_map(|outer| clash(outer, holder)));
        around.push(holder);
    }
    globs(stages, outs, inputs, problems);
}

/// Sorts a folder right before all that is in it, as the comparison of paths does more slowly.
fn order(path: &Path) -> Vec<u8> {
    let bytes = path.as_os_str().as_encoded_bytes();
    bytes.iter().map(|&byte| if byte == b'/' { 0 } else { byte }).collect()
}

/// What is only read: inputs that are no globs, and paths in `from`.
fn read<'a>(inputs: &'a [InputSpec], wires: &[Vec<Wire>]) -> Vec<Holder<'a>> {
    let plain = inputs.iter().filter(|i| !is_glob(&i.pattern) && !i.pattern.trim().is_empty());
    let plain = plain.map(|input| Holder {
        path: tidy(&input.pattern).into(),
        output: None,
        input: Some(&input.name),
        span: input.span,
    });
    let paths = wires.iter().flatten().filter_map(|wire| match &wire.fed {
        Fed::Path(path) => {
            Some(Holder { path: tidy(path).into(), output: None, input: None, span: wire.span })
        }
        _ => None,
    });
    plain.chain(paths).collect()
}

/// The mistake of `inner`, whose path begins with that of `outer`.
fn clash(outer: &Holder, inner: &Holder) -> Option<Problem> {
    let same = outer.path == inner.path;
    let path = inner.path.display();
    let (problem, other) = match (outer.output, inner.output) {
        (None, None) => return None,
        (Some((stage, port)), Some((own, _))) => {
            let message = match same {
                true => format!("two outputs go to `{path}`"),
                false => {
                    let outer = outer.path.display();
                    format!(
                        "`{path}` lies in `{outer}`, the output `{port}` of `{}`",
                        stage.name.name
                    )
                }
            };
            let problem = Problem::new("graph::overlap", inner.span, message);
            if stage.base == own.base {
                return Some(problem.label(cells_of(own)).help(axes_help(own)));
            }
            let help = format!("give the output of `{}` a place of its own", own.name.name);
            (problem.help(help), outer)
        }
        (Some((stage, port)), None) => {
            let stage = &stage.base;
            let message = format!("`{path}` is made by stage `{stage}`");
            let problem = Problem::new("graph::reads_output", inner.span, message);
            let help = format!("name the stage: `from: {stage}` or `from: {stage}.{port}`");
            (problem.help(help), outer)
        }
        (None, Some((stage, _))) => {
            return Some(overwrites(&stage.base, inner, outer.input, outer.span));
        }
    };
    Some(problem.also(other.span, "the other"))
}

fn cells_of(stage: &StageSpec) -> String {
    match stage.cell.is_empty() {
        true => String::new(),
        false => "the same for several cells".to_owned(),
    }
}

/// How the cells of a stage get places of their own.
fn axes_help(stage: &StageSpec) -> String {
    let axes = stage.cell.iter().map(|bound| match bound.axis.as_str() {
        cells::ITEM => "${key}".to_owned(),
        axis => format!("${{matrix.{axis}}}"),
    });
    let axes: Vec<String> = axes.collect();
    match axes.is_empty() {
        true => format!("give each output of `{}` a place of its own", stage.base),
        false => format!("name the cell in the path: `{}`", axes.join("-")),
    }
}

fn overwrites(stage: &str, output: &Holder, input: Option<&str>, span: Span) -> Problem {
    let what = input.map_or("what it reads here".to_owned(), |name| format!("the input `{name}`"));
    let message = format!("`{}` of stage `{stage}` would overwrite {what}", output.path.display());
    let problem = Problem::new("graph::overwrites_input", output.span, message);
    problem.label("written").also(span, "read").help("write it elsewhere, as below `out/`")
}

/// Outputs that a glob of an input would pick up.
fn globs(
    stages: &[StageSpec],
    outs: &[Vec<(Out, Span)>],
    inputs: &[InputSpec],
    problems: &mut Vec<Problem>,
) {
    for input in inputs.iter().filter(|input| is_glob(&input.pattern)) {
        let pattern = input.pattern.trim_start_matches("./");
        let glob = globset::GlobBuilder::new(pattern).literal_separator(true).build();
        let Ok(glob) = glob.map(|glob| glob.compile_matcher()) else { continue };
        let fixed: PathBuf = (Path::new(pattern).components())
            .take_while(|part| !is_glob(&part.as_os_str().to_string_lossy()))
            .collect();
        for (stage, (out, span)) in
            stages.iter().zip(outs).flat_map(|(stage, outs)| outs.iter().map(move |o| (stage, o)))
        {
            // Of a folder the files are not known: it clashes where the glob looks into it.
            let within = out.port.tree
                && (fixed.starts_with(&out.dest)
                    || glob.is_match(out.dest.join("x"))
                    || glob.is_match(out.dest.join("x/x")));
            if within || glob.is_match(&out.dest) {
                let name = stage.base.as_str();
                let output =
                    Holder { path: (&out.dest).into(), output: None, input: None, span: *span };
                problems.push(overwrites(name, &output, Some(&input.name), input.span));
            }
        }
    }
}

fn is_glob(pattern: &str) -> bool {
    pattern.contains(['*', '?', '[', '{'])
}

fn tidy(path: &str) -> PathBuf {
    Path::new(path).components().filter(|part| *part != Component::CurDir).collect()
}
