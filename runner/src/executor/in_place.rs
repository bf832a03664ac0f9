//! What other stages made, as it lies in the workspace under the names that people know.
//!
//! A program looks at names and extensions, and the store has none: so a stage that is `NAMED` reads
//! the outputs of others in their places rather than copies of blobs. They are what they should be
//! when it begins, and looked at again when it has ended. Another run may replace them meanwhile;
//! then what the stage did counts for nothing, and it is given copies.

use std::path::{Path, PathBuf};

use quantmill_cache::{Artifact, IndexError, Stamp};
use quantmill_stages::Input;

use crate::source::Given;
use crate::state::State;

/// Outputs of other stages, and how they looked.
#[derive(Default)]
pub struct InPlace(Vec<(PathBuf, Stamp)>);

impl InPlace {
    /// The input with the places in the workspace, where they are as they should be.
    pub fn input(&mut self, state: &State, given: &Given) -> Result<Option<Input>, IndexError> {
        let Some(place) = &given.shown else { return Ok(None) };
        let place = std::path::absolute(place)?;
        let input = Input { files: files(given, &place).into(), tree: given.input.tree };
        let mut looks = Vec::with_capacity(input.files.len());
        for path in input.files.values() {
            let Ok(stamp) = Stamp::read(path) else { return Ok(None) };
            looks.push((path.clone(), stamp));
        }
        // After the look: what changes from here on shows.
        if !state.index.stands(&given.artifact, &place)? {
            return Ok(None);
        }
        self.0.extend(looks);
        Ok(Some(input))
    }

    /// Whether all of it still looks as it did.
    pub fn stands(&self) -> bool {
        self.0.iter().all(|(path, then)| Stamp::read(path).is_ok_and(|now| now == *then))
    }
}

fn files(given: &Given, place: &Path) -> std::collections::BTreeMap<String, PathBuf> {
    let names = given.input.files.keys();
    match given.artifact {
        Artifact::Tree(_) => names.map(|name| (name.clone(), place.join(name))).collect(),
        Artifact::File(_) => names.map(|name| (name.clone(), place.to_owned())).collect(),
    }
}
