//! The files of a command: where it finds its inputs, where it writes, and what it has written.
//!
//! An input is given where it lies, a folder too where that folder holds just these files. Only one
//! whose bytes lie under another name (the store's), or among files that do not belong to it, is
//! laid out in the scratch folder under the names that the user knows, because programs look at
//! extensions. Those copies share blocks where the file system can.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use super::Params;
use super::item::{self, Pattern};
use super::template::Slot;
use crate::{Context, Input, Result, Sandbox, StageError};

/// What stands for each placeholder; paths are absolute.
pub type Places = BTreeMap<Slot, String>;

/// The path of an output in plain form; `None` where it does not stay below the pipeline's folder.
pub fn relative(path: &str) -> Option<PathBuf> {
    let mut plain = PathBuf::with_capacity(path.len());
    for part in Path::new(path).components() {
        match part {
            Component::Normal(part) => plain.push(part),
            Component::CurDir => {}
            _ => return None,
        }
    }
    (!plain.as_os_str().is_empty()).then_some(plain)
}

/// Finds or makes a place for each placeholder.
pub fn lay_out(params: &Params, slots: &[Slot], ctx: &Context) -> Result<Places> {
    let mut places = Places::new();
    for slot in slots {
        let path = match slot {
            Slot::In(name) => {
                let input = ctx.job().inputs.get(name).ok_or_else(|| {
                    StageError::failed(format!("nothing feeds `{slot}`"))
                        .hint(format!("add `{name}` to `from`"))
                })?;
                input_place(name, input, ctx)?
            }
            Slot::Out(name) => output_place(name, params, ctx)?,
            Slot::Name => {
                places.insert(slot.clone(), item(ctx, slot)?.to_owned());
                continue;
            }
            Slot::Stem => {
                places.insert(slot.clone(), item::bare(item(ctx, slot)?));
                continue;
            }
        };
        let path = std::path::absolute(path)?;
        let text = path.to_str().map(str::to_owned);
        let text = text.ok_or_else(|| StageError::bad(&path, "the path is not UTF-8"))?;
        places.insert(slot.clone(), text);
    }
    Ok(places)
}

fn item<'c>(ctx: &'c Context, slot: impl std::fmt::Display) -> Result<&'c str> {
    ctx.item().ok_or_else(|| {
        StageError::failed(format!("`{slot}` has no meaning: the stage maps over nothing"))
            .hint("say over what, as `map: data/*.csv`")
    })
}

fn input_place(port: &str, input: &Input, ctx: &Context) -> Result<PathBuf> {
    if let Some(own) = own_place(input) {
        return Ok(own);
    }
    let folder = ctx.scratch().join("in").join(port);
    fs_err::create_dir_all(&folder)?;
    let mut last = None;
    for (name, from) in &input.files {
        if ctx.cancel().is_cancelled() {
            return Err(StageError::Cancelled);
        }
        let name = relative(name).ok_or_else(|| StageError::bad(from, "not a relative name"))?;
        let to = folder.join(name);
        if let Some(parent) = to.parent() {
            fs_err::create_dir_all(parent)?;
        }
        copy(from, &to)?;
        last = Some(to);
    }
    match last {
        Some(file) if !input.tree => Ok(file),
        _ => Ok(folder),
    }
}

/// Where an input lies, if it lies there by the names that people know and nothing else does.
pub fn own_place(input: &Input) -> Option<PathBuf> {
    if let Some(folder) = input.files.folder() {
        return Some(folder.to_owned());
    }
    let (name, path) = input.files.first_key_value()?;
    if !input.tree {
        let own = Path::new(name).file_name()?;
        return (path.file_name() == Some(own)).then(|| path.clone());
    }
    let root = path.to_str()?.strip_suffix(name.as_str())?;
    let below = |(name, path): (&String, &PathBuf)| {
        path.to_str().and_then(|path| path.strip_prefix(root)) == Some(name)
    };
    if !root.ends_with('/') || !input.files.iter().all(below) {
        return None;
    }
    let seen = input.files.keys().filter(|name| !name.split('/').any(hidden)).count();
    let whole = count(Path::new(root), &mut String::new(), input) == Some(seen);
    whole.then(|| PathBuf::from(root.trim_end_matches('/')))
}

/// Hidden files are not part of a folder that is an input.
fn hidden(name: &str) -> bool {
    name.starts_with('.')
}

/// The visible files below a folder; `None` where one is not of the input. `name` is the folder's
/// own, and ends in `/` unless it is the first.
fn count(folder: &Path, name: &mut String, input: &Input) -> Option<usize> {
    let (mut found, length) = (0, name.len());
    for entry in fs_err::read_dir(folder).ok()? {
        let entry = entry.ok()?;
        let own = entry.file_name();
        let own = own.to_str()?;
        if hidden(own) {
            continue;
        }
        let mut kind = entry.file_type().ok()?;
        if kind.is_symlink() {
            kind = fs_err::metadata(entry.path()).ok()?.file_type();
        }
        name.push_str(own);
        if kind.is_dir() {
            name.push('/');
            found += count(&entry.path(), name, input)?;
        } else if kind.is_file() {
            input.files.get(name.as_str())?;
            found += 1;
        }
        name.truncate(length);
    }
    Some(found)
}

/// Where the command writes an output: a path with the file name that the user gave it.
fn output_place(name: &str, params: &Params, ctx: &Context) -> Result<PathBuf> {
    let end = ctx.output(name)?;
    let wanted = params.outputs.get(name).map(String::as_str).unwrap_or_default();
    if let Some(pattern) = Pattern::of(wanted) {
        let place = end.join(pattern.place(item(ctx, wanted)?));
        let folder = if pattern.tree() { Some(place.as_path()) } else { place.parent() };
        fs_err::create_dir_all(folder.unwrap_or(end))?;
        return Ok(place);
    }
    let wanted = relative(wanted).unwrap_or_default();
    if end.is_dir() || end.file_name() == wanted.file_name() {
        return Ok(end.to_owned());
    }
    let folder = ctx.scratch().join("out").join(name);
    fs_err::create_dir_all(&folder)?;
    Ok(folder.join(wanted.file_name().unwrap_or_default()))
}

/// Of each output that the command writes to its own path: what stood there before.
pub type Stamps = BTreeMap<String, Option<Stamp>>;

/// When and how large: enough to see that a file was written again.
pub type Stamp = (Option<SystemTime>, u64);

/// Looks at the outputs that have no placeholder. A command that may create no file finds them made.
pub fn stamps(params: &Params, slots: &[Slot], ctx: &Context) -> Result<Stamps> {
    let mut stamps = Stamps::new();
    for (name, path) in in_the_workspace(params, slots, ctx) {
        if ctx.job().sandbox == Sandbox::Strict && !path.exists() {
            if let Some(parent) = path.parent() {
                fs_err::create_dir_all(parent)?;
            }
            fs_err::write(&path, "")?;
        }
        stamps.insert(name.to_owned(), stamp(&path));
    }
    Ok(stamps)
}

/// After a failure: takes away what was made for a strict command and what it left empty.
pub fn clear(params: &Params, slots: &[Slot], before: &Stamps, ctx: &Context) {
    if ctx.job().sandbox != Sandbox::Strict {
        return;
    }
    for (name, path) in in_the_workspace(params, slots, ctx) {
        let now = stamp(&path);
        if now.is_some_and(|(_, size)| size == 0) && before.get(name) == Some(&now) {
            // It is empty: nobody misses it, and nobody is hurt if it stays.
            let _ = fs_err::remove_file(&path);
        }
    }
}

/// The outputs that the command writes to their own paths, with these.
pub fn in_the_workspace<'a>(
    params: &'a Params,
    slots: &'a [Slot],
    ctx: &'a Context,
) -> impl Iterator<Item = (&'a str, PathBuf)> {
    let own =
        params.outputs.iter().filter(|(name, _)| !slots.contains(&Slot::Out((*name).clone())));
    own.map(|(name, path)| (name.as_str(), ctx.job().dir.join(relative(path).unwrap_or_default())))
}

fn stamp(path: &Path) -> Option<Stamp> {
    let meta = fs_err::metadata(path).ok()?;
    Some((meta.modified().ok(), meta.len()))
}

/// Brings what the command wrote to where the outputs go, and misses what it did not write.
pub fn collect(params: &Params, places: &Places, before: &Stamps, ctx: &Context) -> Result<()> {
    for (name, path) in &params.outputs {
        let end = ctx.output(name)?;
        let pattern = Pattern::of(path);
        let tree = path.ends_with('/');
        let (from, own) = match places.get(&Slot::Out(name.clone())) {
            Some(place) => (PathBuf::from(place), false),
            None => (ctx.job().dir.join(relative(path).unwrap_or_default()), true),
        };
        let Ok(meta) = fs_err::metadata(&from) else {
            return Err(missing(name, path, own));
        };
        if meta.is_dir() != tree {
            let (is, slash) = if tree { ("file", "without") } else { ("folder", "with") };
            return Err(StageError::failed(format!("its output `{name}` is a {is}")).hint(
                format!(
                    "write the path {slash} a `/` at the end: `outputs: {{ {name}: {} }}`",
                    match tree {
                        true => path.trim_end_matches('/').to_owned(),
                        false => format!("{path}/"),
                    }
                ),
            ));
        }
        if own && before.get(name).is_some_and(|old| old.is_some() && *old == stamp(&from)) {
            let text = format!("the command left its output `{name}` as it was");
            return Err(StageError::failed(text).hint(format!(
                "write `{path}` anew each time, or to `{{out.{name}}}`: what an earlier run left \
                 is not believed"
            )));
        }
        if tree && fs_err::read_dir(&from)?.next().is_none() {
            ctx.warn(format!("output `{name}` is an empty folder"));
        }
        match own {
            true => copy(&from, end)?,
            false if pattern.is_none() && from != std::path::absolute(end)? => rename(&from, end)?,
            false => {}
        }
    }
    Ok(())
}

fn missing(name: &str, path: &str, own: bool) -> StageError {
    let error = StageError::failed(format!("the command did not write its output `{name}`"));
    match own {
        true => {
            error.hint(format!("it is looked for at `{path}`; or let it write to `{{out.{name}}}`"))
        }
        false => error.hint(format!("it must write a file or folder at `{{out.{name}}}`")),
    }
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    match fs_err::rename(from, to) {
        Err(e) if e.kind() == ErrorKind::CrossesDevices => copy(from, to),
        done => Ok(done?),
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    match reflink_copy::reflink_or_copy(from, to) {
        Ok(_) => Ok(()),
        Err(e) => Err(std::io::Error::new(
            e.kind(),
            format!("{} -> {}: {e}", from.display(), to.display()),
        )
        .into()),
    }
}
