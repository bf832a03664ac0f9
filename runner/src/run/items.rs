//! A stage that maps over items: which of them are known, and the folder of what all of them wrote.
//!
//! The result of the whole stage says which item wrote which file. So when one of 100,000 sources
//! changes, the others are taken over from the last result by comparing two manifests, without
//! looking each of them up.
//!
//! An item that reads files before its own is given them beside it, as a folder; its key then covers
//! the manifest of that folder, and so their names too.

use std::collections::BTreeMap;
use std::path::PathBuf;

use quantmill_cache::{ActionKey, ActionResult, Artifact, Digest, Entry, IndexError, Tree};
use quantmill_stages::{Input, Items as Over, Sandbox, StageError};

use super::{Ended, Shared};
use crate::executor;
use crate::graph::Node;
use crate::plan::{Plan, Ready};
use crate::source::{Given, Look, Origin};
use crate::state::State;

/// The items of a stage.
#[derive(Default)]
pub struct Items {
    /// What is known: the files of each output by the item that wrote them.
    pub known: BTreeMap<String, Files>,
    /// What must run.
    pub todo: Vec<Ready>,
    /// Milliseconds that the known ones once took.
    pub millis: u64,
}

/// Files by output port and name.
pub type Files = BTreeMap<String, BTreeMap<String, Entry>>;

/// Splits a stage into its items.
pub fn split(
    plan: &Plan,
    state: &State,
    index: usize,
    node: &Node,
    ready: &Ready,
    over: Over,
) -> Result<Items, IndexError> {
    let Some(whole) = ready.given.get(over.port) else { return Ok(Items::default()) };
    let store = &state.store;
    let mut tree = Tree::default();
    match whole.artifact {
        Artifact::Tree(digest) => tree = store.tree(&digest)?,
        Artifact::File(digest) => {
            for (name, path) in &whole.input.files {
                // The item's key is then as it would be in a folder.
                let size = if over.behind > 0 { fs_err::metadata(path)?.len() } else { 0 };
                let entry = Entry { digest, size, executable: false };
                tree.entries.insert(name.clone(), entry);
            }
        }
    }
    let again = plan.again(index);
    let mut items = match plan.last_key(&node.name).filter(|_| !again) {
        Some(last) => take_over(state, node, &last, &ready.key, over, &tree)?,
        None => Items::default(),
    };
    let files: Vec<(&String, &PathBuf)> = whole.input.files.iter().collect();
    for (at, (name, _)) in files.iter().enumerate() {
        if items.known.contains_key(*name) {
            continue;
        }
        let reads = at.saturating_sub(over.behind)..at + 1;
        let entry = |name: &String| {
            let unlisted = || Entry { digest: whole.artifact.digest(), size: 0, executable: false };
            // Whether a file may be executed is nothing to a stage that reads it.
            let listed = tree.entries.get(name).map(|entry| Entry { executable: false, ..*entry });
            listed.unwrap_or_else(unlisted)
        };
        let read = || files[reads.clone()].iter().map(|(name, _)| ((*name).clone(), entry(name)));
        let manifest = (over.behind > 0).then(|| Tree { entries: read().collect() });
        let artifact = match &manifest {
            Some(tree) => Artifact::Tree(Digest::of(&tree.encode())),
            None => Artifact::File(entry(name).digest),
        };
        let key = executor::item_key(&ready.key, over.port, name, artifact);
        let hit = match again {
            true => None,
            false => state.index.get(&key.digest(), store)?,
        };
        if let Some(result) = hit.filter(|result| node.takes(result)) {
            items.millis += result.millis;
            items.known.insert((*name).clone(), self::files(state, &result)?);
            continue;
        }
        let mut given: BTreeMap<_, _> = (ready.given.iter())
            .filter(|(other, _)| *other != over.port)
            .map(|(other, given)| (other.clone(), given.clone()))
            .collect();
        let origin = match &whole.origin {
            Origin::Folder(scan) => {
                let look = |(stamp, digest)| Look::new(stamp, digest, scan.before());
                let looks: Option<_> = reads.clone().map(|at| scan.file(at).map(look)).collect();
                looks.map_or(Origin::Store, Origin::Files)
            }
            origin => origin.clone(),
        };
        if let (Some(tree), Origin::Store) = (&manifest, &origin) {
            store.put_tree(tree)?;
        }
        let own = files[reads].iter().map(|(name, path)| ((*name).clone(), (*path).clone()));
        let input = Input { files: own.collect(), tree: manifest.is_some() };
        let shown = match over.behind {
            0 => whole.shown.as_ref().map(|folder| folder.join(name)),
            _ => whole.shown.clone(),
        };
        given.insert(over.port.to_owned(), Given { artifact, input, origin, shown }.into());
        items.todo.push(Ready { key, given });
    }
    Ok(items)
}

/// What the last result of the stage says of items whose keys are the same as then.
fn take_over(
    state: &State,
    node: &Node,
    last: &Digest,
    key: &ActionKey,
    over: Over,
    tree: &Tree,
) -> Result<Items, IndexError> {
    let (index, store) = (&state.index, &state.store);
    let mut items = Items::default();
    let Some(mut old) = index.key(last)? else { return Ok(items) };
    let before = old.inputs.insert(over.port.to_owned(), key.inputs[over.port]);
    let Some(Artifact::Tree(before)) = before.filter(|_| old == *key) else { return Ok(items) };
    let result = index.get(last, store)?.filter(|result| node.takes(result));
    let Some(result) = result else { return Ok(items) };
    let Ok(before) = store.tree(&before) else { return Ok(items) };
    let names: Vec<(&String, &Entry)> = before.entries.iter().collect();
    let now: Vec<(&String, &Entry)> = tree.entries.iter().collect();
    // An item is the same where all that it reads is, under the same names.
    let same = |at: usize, name: &String| {
        let Ok(place) = now.binary_search_by(|(other, _)| other.cmp(&name)) else { return false };
        let old = names[at.saturating_sub(over.behind)..=at].iter();
        let new = now[place.saturating_sub(over.behind)..=place].iter();
        old.map(|(name, entry)| (name, entry.digest))
            .eq(new.map(|(name, entry)| (name, entry.digest)))
    };
    let mut known: Vec<Option<Files>> =
        names.iter().enumerate().map(|(at, (name, _))| same(at, name).then(Files::new)).collect();
    for (output, artifact) in &result.outputs {
        let owners = result.items.get(output).map(|owners| store.read(owners));
        let Some(Ok(owners)) = owners else { return Ok(Items::default()) };
        let written = store.tree(&artifact.digest())?;
        let owners = owners.chunks_exact(4).filter_map(|bytes| bytes.try_into().ok());
        for (owner, (file, entry)) in owners.map(u32::from_le_bytes).zip(written.entries) {
            if let Some(Some(files)) = known.get_mut(owner as usize) {
                files.entry(output.clone()).or_default().insert(file, entry);
            }
        }
    }
    let all = known.len().max(1) as u64;
    for ((name, _), files) in names.into_iter().zip(known) {
        items.known.extend(files.map(|files| (name.clone(), files)));
    }
    items.millis = result.millis * items.known.len() as u64 / all;
    Ok(items)
}

/// The files that an item wrote.
pub fn files(state: &State, result: &ActionResult) -> Result<Files, IndexError> {
    let mut files = Files::new();
    for (output, artifact) in &result.outputs {
        let tree = state.store.tree(&artifact.digest())?;
        files.insert(output.clone(), tree.entries);
    }
    Ok(files)
}

/// The folder of what all items wrote. Their numbers stay with them: a sum of shares means nothing.
pub(super) fn merge(
    shared: &Shared,
    index: usize,
    known: BTreeMap<String, Files>,
) -> Result<ActionResult, Ended> {
    let node = &shared.graph.nodes[index];
    let store = &shared.state.store;
    let confined = node.kind.named && node.sandbox == Sandbox::Strict;
    let mut whole = ActionResult { confined, ..ActionResult::default() };
    let mut outputs: BTreeMap<&str, BTreeMap<String, (u32, Entry)>> = BTreeMap::new();
    for out in &node.outputs {
        outputs.insert(&out.port.name, BTreeMap::new());
    }
    let names: Vec<&String> = known.keys().collect();
    for (owner, files) in known.values().enumerate() {
        for (output, files) in files {
            let Some(all) = outputs.get_mut(output.as_str()) else { continue };
            for (file, entry) in files {
                let other = all.insert(file.clone(), (owner as u32, *entry));
                if let Some((first, other)) = other.filter(|(_, other)| other != entry) {
                    let _: Entry = other;
                    let both = format!("`{}` and `{}`", names[first as usize], names[owner]);
                    let error = StageError::failed(format!("{both} both write `{file}`"));
                    let error = error.hint("rename one of the source files");
                    shared.fail(&node.name, Some(names[owner].clone()), &error);
                    return Err(Ended::Failed);
                }
            }
        }
    }
    for (output, files) in outputs {
        let owners: Vec<u8> = files.values().flat_map(|(owner, _)| owner.to_le_bytes()).collect();
        let entries = files.into_iter().map(|(file, (_, entry))| (file, entry)).collect();
        let put = store.put_tree(&Tree { entries }).and_then(|tree| {
            whole.items.insert(output.to_owned(), store.put(&owners)?);
            whole.outputs.insert(output.to_owned(), tree);
            Ok(())
        });
        put.map_err(|e| Ended::Broken(e.into()))?;
    }
    Ok(whole)
}
