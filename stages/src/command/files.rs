//! The files of a command: where it finds its inputs, where it writes, and what it has written.
//!
//! An input in the workspace is given by its own path. One whose bytes lie elsewhere under another
//! name (the store's), and every folder, is laid out in the scratch folder under the names that the
//! user knows, because programs look at extensions. Copies share blocks where the file system can.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use super::Params;
use super::template::Slot;
use crate::{Context, Input, Result, StageError};

/// Paths by placeholder, absolute.
pub type Places = BTreeMap<Slot, String>;

/// The path of an output in plain form; `None` where it does not stay below the pipeline's folder.
pub fn relative(path: &str) -> Option<PathBuf> {
    let mut plain = PathBuf::new();
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
        };
        let path = std::path::absolute(path)?;
        let text = path.to_str().map(str::to_owned);
        let text = text.ok_or_else(|| StageError::bad(&path, "the path is not UTF-8"))?;
        places.insert(slot.clone(), text);
    }
    Ok(places)
}

fn input_place(port: &str, input: &Input, ctx: &Context) -> Result<PathBuf> {
    if !input.tree
        && let Some((name, path)) = input.files.first_key_value()
    {
        let own = Path::new(name).file_name();
        if own.is_some() && path.file_name() == own {
            return Ok(path.clone());
        }
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

/// Where the command writes an output: a path with the file name that the user gave it.
fn output_place(name: &str, params: &Params, ctx: &Context) -> Result<PathBuf> {
    let end = ctx.output(name)?;
    let wanted = params.outputs.get(name).and_then(|path| relative(path)).unwrap_or_default();
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

/// Looks at the outputs that have no placeholder.
pub fn stamps(params: &Params, slots: &[Slot], ctx: &Context) -> Stamps {
    let own = params.outputs.keys().filter(|name| !slots.contains(&Slot::Out((*name).clone())));
    own.map(|name| (name.clone(), stamp(&own_place(name, params, ctx)))).collect()
}

fn own_place(name: &str, params: &Params, ctx: &Context) -> PathBuf {
    let path = params.outputs.get(name).and_then(|path| relative(path)).unwrap_or_default();
    ctx.job().dir.join(path)
}

fn stamp(path: &Path) -> Option<Stamp> {
    let meta = fs_err::metadata(path).ok()?;
    Some((meta.modified().ok(), meta.len()))
}

/// Brings what the command wrote to where the outputs go, and misses what it did not write.
pub fn collect(params: &Params, places: &Places, before: &Stamps, ctx: &Context) -> Result<()> {
    for (name, path) in &params.outputs {
        let end = ctx.output(name)?;
        let tree = path.ends_with('/');
        let (from, own) = match places.get(&Slot::Out(name.clone())) {
            Some(place) => (PathBuf::from(place), false),
            None => (own_place(name, params, ctx), true),
        };
        let Ok(meta) = fs_err::metadata(&from) else {
            return Err(missing(name, path, own));
        };
        if meta.is_dir() != tree {
            let (is, slash) = if tree { ("file", "without") } else { ("folder", "with") };
            return Err(StageError::failed(format!("output `{name}` is a {is}"))
                .hint(format!("write its path {slash} a `/` at the end")));
        }
        if own && before.get(name) == Some(&stamp(&from)) {
            return Err(missing(name, path, own));
        }
        match own {
            true => copy(&from, end)?,
            false if from != std::path::absolute(end)? => rename(&from, end)?,
            false => {}
        }
        if tree && fs_err::read_dir(end)?.next().is_none() {
            ctx.warn(format!("output `{name}` is an empty folder"));
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
