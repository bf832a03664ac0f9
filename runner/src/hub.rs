//! Models of the Hugging Face hub: `{ hf: owner/name }`, or `hf://owner/name@revision`.
//!
//! What the hub's cache on this machine holds is taken from there, and no network is asked: a run gives
//! the same again until somebody updates the cache. The rest is fetched into the cache, where every
//! program of the hub finds it. Pickled weights are never fetched. What was read is pinned by its digest
//! in the lock, like any source. The token is the hub's own: `HF_TOKEN`, or what its login left behind.

use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};

use crate::source::SourceError;

/// A model of the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hub<'a> {
    /// `owner/name`.
    pub name: &'a str,
    /// A branch, tag or commit.
    pub revision: &'a str,
    /// The files, as a glob within the repository.
    pub files: &'a str,
}

/// The files of a model that mean something here.
pub const FILES: &str = "*.{json,safetensors,jinja}";
/// The revision where none is given.
const MAIN: &str = "main";
const SCHEME: &str = "hf://";

/// What a source's pattern names on the hub; `None` where it is no such pattern.
///
/// # Errors
/// It is not `hf://owner/name`, perhaps with `@revision` and `#glob`.
pub fn named(pattern: &str) -> Option<Result<Hub<'_>, SourceError>> {
    let rest = pattern.trim().strip_prefix(SCHEME)?;
    let (rest, files) = rest.split_once('#').unwrap_or((rest, FILES));
    let (name, revision) = rest.split_once('@').unwrap_or((rest, MAIN));
    let legal = |part: &str| {
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        !part.is_empty() && part.chars().all(known) && !part.starts_with('.')
    };
    let whole = name.split('/').count() == 2 && name.split('/').all(legal);
    Some(match whole && revision.split('/').all(legal) && !files.is_empty() {
        true => Ok(Hub { name, revision, files }),
        false => Err(SourceError::Nothing {
            message: format!("`{pattern}` names no model of the hub"),
            help: Some("write `{ hf: owner/name }`, perhaps with `revision:` and `files:`".into()),
        }),
    })
}

impl Hub<'_> {
    /// The files as a glob of this machine, fetched if they are not there.
    ///
    /// # Errors
    /// They are not there and cannot be fetched.
    pub fn place(&self) -> Result<String, SourceError> {
        let cache = Cache::of_env();
        let snapshot = match cache.snapshot(self).filter(|found| self.whole(found)) {
            Some(found) => found,
            None => {
                fetch(self, &cache.0)?;
                cache
                    .snapshot(self)
                    .ok_or_else(|| self.failed("it was fetched and is not there"))?
            }
        };
        Ok(snapshot.join(self.files).to_string_lossy().into_owned())
    }

    /// Whether a snapshot has what a model needs; another program may have fetched a part of it.
    fn whole(&self, snapshot: &Path) -> bool {
        if self.files != FILES {
            let Ok(glob) = self.glob() else { return false };
            return names(snapshot).iter().any(|name| glob.is_match(name));
        }
        let there = |name: &str| snapshot.join(name).is_file();
        let shards = || {
            let index = std::fs::read(snapshot.join("model.safetensors.index.json")).ok()?;
            let index: serde_json::Value = serde_json::from_slice(&index).ok()?;
            let mut files = index["weight_map"].as_object()?.values();
            Some(files.all(|file| file.as_str().is_some_and(there)))
        };
        let weights = there("model.safetensors") || shards() == Some(true);
        weights && there("config.json") && there("tokenizer.json")
    }

    fn glob(&self) -> Result<GlobMatcher, SourceError> {
        let glob = GlobBuilder::new(self.files).literal_separator(true).build();
        let glob = glob.map_err(|error| SourceError::Nothing {
            message: format!("`files: {}` is not a glob: {}", self.files, error.kind()),
            help: Some("`*` matches within a folder, `{a,b}` either".into()),
        })?;
        Ok(glob.compile_matcher())
    }

    fn failed(&self, why: impl std::fmt::Display) -> SourceError {
        SourceError::Nothing {
            message: format!("{} ({}) cannot be had from the hub: {why}", self.name, self.revision),
            help: Some(
                "with a network, and for a gated model a token in HF_TOKEN, it is fetched; or put it into the \
                 hub's cache, whose folder HF_HOME or HF_HUB_CACHE name; or name a folder that holds it"
                    .into(),
            ),
        }
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// The folder in which every program of the hub keeps what it fetched.
struct Cache(PathBuf);

impl Cache {
    fn of_env() -> Cache {
        let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let home = || var("HF_HOME").map(|home| home.join("hub"));
        let user = || {
            let cache = var("XDG_CACHE_HOME");
            let cache = cache.or_else(|| Some(std::env::home_dir()?.join(".cache")));
            Some(cache?.join("huggingface/hub"))
        };
        Cache(var("HF_HUB_CACHE").or_else(home).or_else(user).unwrap_or_default())
    }

    /// The folder of a revision, which a file under `refs` translates to a commit.
    fn snapshot(&self, hub: &Hub) -> Option<PathBuf> {
        let repo = self.0.join(format!("models--{}", hub.name.replace('/', "--")));
        let commit = std::fs::read_to_string(repo.join("refs").join(hub.revision));
        let commit = commit.as_deref().unwrap_or(hub.revision).trim();
        Some(repo.join("snapshots").join(commit)).filter(|path| path.is_dir())
    }
}

#[cfg(feature = "lm")]
fn fetch(hub: &Hub, cache: &Path) -> Result<(), SourceError> {
    use std::io::IsTerminal;

    use hf_hub::api::sync::ApiBuilder;
    use hf_hub::{Repo, RepoType};

    if std::env::var("HF_HUB_OFFLINE").is_ok_and(|set| !matches!(set.as_str(), "" | "0")) {
        return Err(hub.failed("HF_HUB_OFFLINE is set and the cache does not hold it"));
    }
    let builder = ApiBuilder::from_env()
        .with_cache_dir(cache.to_owned())
        .with_progress(std::io::stderr().is_terminal());
    let builder = match std::env::var("HF_TOKEN") {
        Ok(token) if !token.is_empty() => builder.with_token(Some(token)),
        _ => builder,
    };
    let api = builder.build().map_err(|error| hub.failed(error))?;
    let repo = Repo::with_revision(hub.name.into(), RepoType::Model, hub.revision.into());
    let repo = api.repo(repo);
    eprintln!("fetching {} from the hub", hub.name);
    let info = repo.info().map_err(|error| hub.failed(error))?;
    let glob = hub.glob()?;
    let wanted: Vec<&str> = (info.siblings.iter().map(|file| file.rfilename.as_str()))
        .filter(|name| glob.is_match(name))
        .collect();
    if wanted.is_empty() {
        return Err(hub.failed(format!("none of its files matches `{}`", hub.files)));
    }
    for name in wanted {
        repo.get(name).map_err(|error| hub.failed(format!("{name}: {error}")))?;
    }
    Ok(())
}

#[cfg(not(feature = "lm"))]
fn fetch(hub: &Hub, _: &Path) -> Result<(), SourceError> {
    Err(hub.failed("this build cannot fetch from it"))
}
