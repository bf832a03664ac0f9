//! `include`: variables, inputs and stages of other files, as if they stood in this one.
//!
//! Every path, also one in an included file, starts from the pipeline's folder. A file that is
//! reached twice counts once; a name that is defined twice is a mistake.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::read::version;
use crate::diagnostic::{Problem, Source, Span, suggest};
use crate::source::{self, SourceError};
use crate::yaml::{self, Key, Value, Yaml};

/// Keys of an included file.
const KEYS: [&str; 5] = ["version", "include", "vars", "inputs", "stages"];
/// Those whose entries are joined with the pipeline's.
const SECTIONS: [&str; 3] = ["vars", "inputs", "stages"];

/// Takes `include` out of the pipeline and what it names in. The files are added to `sources`.
pub fn merge(
    root: &mut Yaml,
    path: &Path,
    dir: &Path,
    sources: &mut Vec<Source>,
    problems: &mut Vec<Problem>,
) {
    let Value::Map(entries) = &mut root.value else { return };
    let Some(at) = entries.iter().position(|(key, _)| key.name == "include") else { return };
    let (_, include) = entries.remove(at);
    let mut names = BTreeMap::new();
    for (section, value) in entries.iter() {
        for (key, _) in value.map().unwrap_or_default() {
            names.insert((section.name.clone(), key.name.clone()), key.span);
        }
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let whole = fs_err::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let open = vec![(whole, name)];
    let done = BTreeSet::new();
    let mut includer = Includer { dir, entries, names, open, done, sources, problems };
    includer.list(&include);
}

struct Includer<'a> {
    dir: &'a Path,
    entries: &'a mut Vec<(Key, Yaml)>,
    /// Where each name is defined, by section.
    names: BTreeMap<(String, String), Span>,
    /// The files that are being read, each by the one before it.
    open: Vec<(PathBuf, String)>,
    done: BTreeSet<PathBuf>,
    sources: &'a mut Vec<Source>,
    problems: &'a mut Vec<Problem>,
}

impl Includer<'_> {
    fn list(&mut self, include: &Yaml) {
        let one = std::slice::from_ref(include);
        let files = match &include.value {
            Value::Seq(files) => files.as_slice(),
            Value::Null => &[],
            _ => one,
        };
        for file in files {
            match file.text() {
                Some(text) => self.file(text, file.span),
                None => {
                    let problem =
                        Problem::new("spec::type", file.span, "`include` is a list of files");
                    let help = "write `include: [common.yaml]`";
                    self.problems.push(problem.label(file.noun()).help(help));
                }
            }
        }
    }

    fn file(&mut self, name: &str, span: Span) {
        let path = self.dir.join(name);
        if !path.is_file() {
            let (message, help) = match source::exists(self.dir, name) {
                Err(SourceError::Nothing { message, help }) => (message, help),
                _ => (format!("`{name}` is not a file"), Some("name each file".to_owned())),
            };
            let problem = Problem::new("include::missing", span, message);
            self.problems.push(problem.label("nothing to include").maybe_help(help));
            return;
        }
        let whole = fs_err::canonicalize(&path).unwrap_or_else(|_| path.clone());
        if let Some(first) = self.open.iter().position(|(open, _)| *open == whole) {
            let mut round: Vec<&str> = self.open[first..].iter().map(|(_, n)| n.as_str()).collect();
            round.push(name);
            let message = format!("files include each other in a circle: {}", round.join(" -> "));
            let problem = Problem::new("include::cycle", span, message);
            self.problems.push(problem.help("leave out one of these"));
            return;
        }
        if !self.done.insert(whole.clone()) {
            return;
        }
        let text = match fs_err::read(&path).map(String::from_utf8) {
            Ok(Ok(text)) => text,
            Ok(Err(_)) => {
                let problem = Problem::new("include::read", span, format!("`{name}` is not UTF-8"));
                self.problems.push(problem.help("save it as UTF-8"));
                return;
            }
            Err(error) => {
                self.problems.push(Problem::new("include::read", span, error.to_string()));
                return;
            }
        };
        let source = self.sources.len();
        self.sources.push(Source { name: path.display().to_string(), text: text.as_str().into() });
        let Some(root) = yaml::read(&text, source, self.problems) else { return };
        self.open.push((whole, name.to_owned()));
        self.take(root);
        self.open.pop();
    }

    fn take(&mut self, root: Yaml) {
        let (span, noun) = (root.span, root.noun());
        let Value::Map(entries) = root.value else {
            let problem = Problem::new("spec::type", span, "an included file is a map");
            let help = "it may have `vars`, `inputs`, `stages` and `include`";
            self.problems.push(problem.label(noun).help(help));
            return;
        };
        for (key, value) in entries {
            match key.name.as_str() {
                "version" => self.problems.extend(version(&value)),
                "include" => self.list(&value),
                section if SECTIONS.contains(&section) => self.section(key, value),
                name => {
                    let message = format!("unknown key `{name}` of an included file");
                    let problem = Problem::new("spec::unknown_key", key.span, message);
                    let help = suggest(name, "keys of an included file", KEYS);
                    self.problems.push(problem.label("not for an included file").maybe_help(help));
                }
            }
        }
    }

    /// Joins a section with that of the pipeline.
    fn section(&mut self, section: Key, value: Yaml) {
        let at = self.entries.iter().position(|(key, _)| key.name == section.name);
        let place = at.and_then(|at| self.entries.get_mut(at));
        let Some((_, whole)) = place else {
            let named = value.map().unwrap_or_default().iter();
            let names = named.map(|(key, _)| ((section.name.clone(), key.name.clone()), key.span));
            self.names.extend(names);
            self.entries.push((section, value));
            return;
        };
        if whole.value == Value::Null {
            whole.value = Value::Map(Vec::new());
        }
        let (Value::Map(all), Value::Map(entries)) = (&mut whole.value, value.value) else {
            return;
        };
        for (key, value) in entries {
            let name = (section.name.clone(), key.name.clone());
            if let Some(&first) = self.names.get(&name) {
                let what = match section.name.as_str() {
                    "vars" => "variable",
                    other => other.trim_end_matches('s'),
                };
                let message = format!("the {what} `{}` is defined twice", key.name);
                let problem = Problem::new("include::duplicate", key.span, message);
                let problem = problem.label("again here").also(first, "first here");
                self.problems.push(problem.help("rename one, or leave it out"));
                continue;
            }
            self.names.insert(name, key.span);
            all.push((key, value));
        }
    }
}
