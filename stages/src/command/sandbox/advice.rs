//! From what a command did to what its author should write: one finding for each file, or one for a
//! folder with many, and the line of YAML that declares it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use super::log::{Access, What};
use super::places::Places;
use crate::Job;

/// More files of one folder than this are told as the folder.
const FOLDER: usize = 3;

/// Something that a command did and does not declare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    what: What,
    /// The path as people know it: relative to the pipeline's folder where it lies below.
    shown: String,
    /// Files, where the path is a folder.
    files: usize,
    /// The name and the value of an entry that declares it; none for what lies elsewhere.
    entry: Option<(String, String)>,
}

impl Finding {
    /// What the command did.
    pub fn what(&self) -> String {
        let shown = &self.shown;
        let object = match self.files {
            1 => format!("`{shown}`"),
            files => format!("{files} files below `{shown}`"),
        };
        match self.what {
            What::Read => format!("read {object}, which it does not declare"),
            What::Write => format!("wrote {object}, which is no output"),
            What::Remove => format!("removed {object}, which is none of its outputs"),
            What::Connect => format!("connected to {shown}"),
        }
    }

    /// What it did and what to do.
    pub fn text(&self) -> String {
        format!("{}: {}", self.what(), Finding::advice(std::slice::from_ref(self)))
    }

    /// The lines of YAML to add.
    pub fn advice(found: &[Finding]) -> String {
        let of = |what| found.iter().filter(move |finding| finding.what == what);
        let mut advice = Vec::new();
        let entries = |what: What| {
            let entries = of(what).filter_map(|finding| finding.entry.as_ref());
            entries.map(|(name, path)| format!("{name}: {path}")).collect::<Vec<_>>().join(", ")
        };
        let inside = entries(What::Read);
        if !inside.is_empty() {
            advice.push(format!("add `from: {{ {inside} }}`"));
        }
        if let Some(outside) = of(What::Read).find(|finding| finding.entry.is_none()) {
            let (name, path) = (port(&outside.shown), &outside.shown);
            advice.push(format!(
                "add `{name}: {path}` to the pipeline's `inputs`, and `from: {{ {name}: {name} }}`"
            ));
        }
        let outputs = entries(What::Write);
        if !outputs.is_empty() {
            advice.push(format!("add `outputs: {{ {outputs} }}`, or write below $TMPDIR"));
        }
        let elsewhere = of(What::Write).any(|finding| finding.entry.is_none());
        if elsewhere && outputs.is_empty() {
            advice.push("write below $TMPDIR".into());
        }
        if of(What::Remove).next().is_some() {
            advice.push("let it work on copies below $TMPDIR".into());
        }
        if of(What::Connect).next().is_some() {
            advice.push(
                "what it gets from there is no input that could be seen to change: `always: true` \
                 fetches it in every run, and the network needs `sandbox: trace` or `off`"
                    .into(),
            );
        }
        advice.join("; ")
    }
}

/// What a command did beside what it declares. `all` tells also of the settings and caches that
/// programs write below HOME, which may be why they failed.
pub fn findings(accesses: &[Access], places: &Places, job: &Job, all: bool) -> Vec<Finding> {
    let mut wrote: HashSet<PathBuf> = HashSet::new();
    let mut seen: BTreeMap<(u8, PathBuf), What> = BTreeMap::new();
    for access in accesses {
        if access.what == What::Connect {
            seen.insert((3, access.path.clone()), access.what);
            continue;
        }
        let path = real(&access.path);
        let write = access.what != What::Read;
        let allowed = match write {
            true => places.writable(&path),
            false => places.readable(&path),
        };
        let own = wrote.contains(&path) && !access.denied;
        if access.what == What::Write && !access.denied {
            wrote.insert(path.clone());
        }
        // What is gone by now was a temporary file, or was moved away.
        let gone = !access.denied && access.what == What::Write && !path.is_file();
        let folder = access.what == What::Read && path.is_dir();
        if allowed
            || own
            || gone
            || folder
            || places.quiet(&path)
            || (!all && write && places.settings(&path))
        {
            continue;
        }
        seen.entry((access.what as u8, path)).or_insert(access.what);
    }
    let kept = |what: What, path: &Path| what != What::Remove || !wrote.contains(path);
    let mut names: BTreeSet<String> =
        job.inputs.keys().chain(job.outputs.keys()).cloned().collect();
    let mut found = Vec::new();
    for what in [What::Read, What::Write, What::Remove, What::Connect] {
        let paths = seen.iter().filter(|((_, path), did)| **did == what && kept(what, path));
        let paths: Vec<&Path> = paths.map(|((_, path), _)| path.as_path()).collect();
        found.extend(grouped(&paths, what, places, &mut names));
    }
    found
}

fn grouped(
    paths: &[&Path],
    what: What,
    places: &Places,
    names: &mut BTreeSet<String>,
) -> Vec<Finding> {
    let mut folders: BTreeMap<PathBuf, Vec<&Path>> = BTreeMap::new();
    for path in paths {
        let inside = path.strip_prefix(&places.dir).ok();
        let first = inside.filter(|path| path.components().count() > 1);
        let first = first.and_then(|path| path.components().next());
        let group = match (first, inside) {
            (Some(first), _) => places.dir.join(first),
            (None, Some(_)) => path.to_path_buf(),
            (None, None) => path.parent().unwrap_or(path).to_owned(),
        };
        folders.entry(group).or_default().push(path);
    }
    let mut found = Vec::new();
    for (folder, files) in folders {
        let whole = [folder.as_path()];
        let (one, each) = match files.len() > FOLDER && what != What::Connect {
            true => (files.len(), &whole[..]),
            false => (1, &files[..]),
        };
        for path in each {
            let inside = path.strip_prefix(&places.dir).ok();
            let shown = inside.unwrap_or(path).display().to_string();
            let entry = inside.filter(|_| what != What::Connect).map(|_| {
                let mut name = port(&shown);
                while !names.insert(name.clone()) {
                    name.push('_');
                }
                let slash = if one > 1 && what == What::Write { "/" } else { "" };
                match what {
                    What::Write => (name, format!("{shown}{slash}")),
                    _ => (name, format!("./{shown}")),
                }
            });
            found.push(Finding { what, shown, files: one, entry });
        }
    }
    found
}

/// A name for an input or output at a path: its stem, as far as a name can have it.
fn port(path: &str) -> String {
    let stem = Path::new(path).file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    let name: String = stem.trim_start_matches('.').chars().map(plain).collect();
    match name.starts_with(|c: char| c.is_ascii_lowercase()) {
        true => name,
        false => format!("file_{name}"),
    }
}

/// As the system names it; of what is not there, its folder.
fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => {
            parent.canonicalize().map_or_else(|_| path.to_owned(), |parent| parent.join(name))
        }
        _ => path.to_owned(),
    })
}
