//! Sources that lie elsewhere: `https://host/path#blake3=<digest>`.
//!
//! The digest is what counts: a file with it is the source, wherever it lies. It is looked for in what
//! was fetched before, then in the folder that `QUANTMILL_MIRROR` names, whatever its name there, and
//! fetched by `curl` where neither has it. What comes with another digest is thrown away. Several
//! URLs, one after the other with white space between, are one source of several files.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use quantmill_cache::{Artifact, Digest, Entry, IndexError, Tree, Walk};
use quantmill_stages::{Files, Input};

use crate::source::{Given, SourceError};
use crate::state::State;

/// A file that lies elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remote<'a> {
    /// Where.
    pub url: &'a str,
    /// Its last part.
    pub name: &'a str,
    /// What it holds.
    pub digest: Digest,
}

/// What a source's pattern names elsewhere; `None` where it is a path or a glob.
///
/// # Errors
/// It begins as a URL and lacks a digest, or has one that is none.
pub fn remotes(pattern: &str) -> Option<Result<Vec<Remote<'_>>, SourceError>> {
    let web = |part: &str| part.starts_with("https://") || part.starts_with("http://");
    web(pattern.trim_start()).then(|| pattern.split_whitespace().map(remote).collect())
}

fn remote(text: &str) -> Result<Remote<'_>, SourceError> {
    let lacks = |message: String| SourceError::Nothing {
        message,
        help: Some(
            "write `https://host/file#blake3=<64 hexadecimal digits>`; `b3sum FILE` prints them"
                .into(),
        ),
    };
    let (url, digest) = text
        .split_once("#blake3=")
        .ok_or_else(|| lacks(format!("`{text}` has no digest: what it holds could change")))?;
    let digest = digest.parse().map_err(|_| lacks(format!("`{digest}` is not a BLAKE3 digest")))?;
    let name = url.split('?').next().unwrap_or(url).rsplit('/').next().unwrap_or_default();
    if name.is_empty() || !(url.starts_with("https://") || url.starts_with("http://")) {
        return Err(lacks(format!("`{url}` names no file")));
    }
    Ok(Remote { url, name, digest })
}

/// Finds the files, and fetches those that are nowhere. They are kept in the store.
///
/// # Errors
/// One cannot be fetched, or comes with another digest.
pub fn read(state: &State, remotes: &[Remote]) -> Result<Given, SourceError> {
    let mut tree = Tree::default();
    for remote in remotes {
        if !state.store.has(&remote.digest, None) {
            bring(state, remote)?;
        }
        let size = fs_err::metadata(state.store.path(&remote.digest))?.len();
        let entry = Entry { digest: remote.digest, size, executable: false };
        if tree.entries.insert(remote.name.to_owned(), entry).is_some() {
            return Err(SourceError::Nothing {
                message: format!("two files of one source are named `{}`", remote.name),
                help: Some("make two inputs of them".into()),
            });
        }
    }
    let single = remotes.len() == 1;
    let artifact = match single {
        true => Artifact::File(remotes[0].digest),
        false => state.store.put_tree(&tree).map_err(IndexError::from)?,
    };
    let files = state.store.places(&artifact, remotes[0].name).map_err(IndexError::from)?;
    Ok(Given::stored(artifact, Input { files: files.into(), tree: !single }, None))
}

/// Puts a file into the store, from the mirror or from where it lies.
fn bring(state: &State, remote: &Remote) -> Result<(), SourceError> {
    let scratch = state.store.scratch().map_err(IndexError::from)?;
    let path = scratch.path().join("fetched");
    match mirrored(state, &remote.digest)? {
        Some(found) => drop(fs_err::copy(found, &path)?),
        None => download(remote, &path)?,
    }
    let found = Digest::of_file(&path)?;
    if found != remote.digest {
        return Err(SourceError::Nothing {
            message: format!("{} holds something else now: its digest is {found}", remote.url),
            help: Some(format!(
                "find a copy of what was meant, or write the new digest after `#blake3=` and expect other results; wanted was {}",
                remote.digest
            )),
        });
    }
    state.store.adopt(&path).map_err(IndexError::from)?;
    Ok(())
}

/// The file of the mirror that holds it.
fn mirrored(state: &State, digest: &Digest) -> Result<Option<PathBuf>, SourceError> {
    let Some(mirror) = std::env::var_os(MIRROR).map(PathBuf::from).filter(|m| m.is_dir()) else {
        return Ok(None);
    };
    let all = |_: &str| true;
    let walk = Walk { name: MIRROR, hidden: false, links: true, depth: usize::MAX, wanted: &all };
    let scan = state.index.scan(&mirror, &walk)?;
    let files = Files::scanned(Arc::new(scan), true);
    for (_, path) in &files {
        if state.index.file(path)?.0.digest == *digest {
            return Ok(Some(path.clone()));
        }
    }
    Ok(None)
}

/// The variable that names the mirror.
const MIRROR: &str = "QUANTMILL_MIRROR";

fn download(remote: &Remote, to: &Path) -> Result<(), SourceError> {
    eprintln!("fetching {}", remote.url);
    let mut curl = Command::new("curl");
    curl.args(["--fail", "--location", "--retry", "3", "--connect-timeout", "30"]);
    curl.args(["--silent", "--show-error", "--output"]).arg(to).arg("--").arg(remote.url);
    let ran = curl.stdin(Stdio::null()).output();
    let why = match ran {
        Ok(out) if out.status.success() && to.is_file() => return Ok(()),
        // Each try says so; the last is enough.
        Ok(out) => {
            let said = String::from_utf8_lossy(&out.stderr).into_owned();
            said.trim().lines().last().unwrap_or("`curl` failed").to_owned()
        }
        Err(error) => format!("`curl` cannot be run: {error}"),
    };
    Err(SourceError::Nothing {
        message: format!("{} cannot be fetched: {why}", remote.url),
        help: Some(format!(
            "try again with a network, or put a file with that digest, under any name, into a folder that {MIRROR} names"
        )),
    })
}
