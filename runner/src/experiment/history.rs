//! All runs that a state folder remembers, and how people name one.

use std::io;
use std::path::Path;

use super::account::{self, Account};
use crate::exit::Failure;

/// The ids of all runs, the oldest first: an id begins with its time.
pub fn ids(home: &Path) -> io::Result<Vec<String>> {
    let mut ids = Vec::new();
    for entry in fs_err::read_dir(home.join("runs"))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            ids.extend(entry.file_name().into_string());
        }
    }
    ids.sort_unstable();
    Ok(ids)
}

/// The run that a name means: its id, the beginning of one that no other run shares, `latest`, or
/// `latest~2` for the one two before it.
pub fn find(home: &Path, name: &str) -> Result<Account, Failure> {
    let ids = ids(home)?;
    let hint = || Some("`quantmill runs list` lists the runs".to_owned());
    if let Some(back) = name.strip_prefix("latest") {
        let back = if back.is_empty() {
            Some(0)
        } else {
            back.strip_prefix('~').and_then(|n| n.parse().ok())
        };
        let back: usize = back.ok_or_else(|| {
            Failure::usage(
                format!("no run `{name}`"),
                Some("write `latest~1` for the run before the latest".into()),
            )
        })?;
        let mut readable = ids.iter().rev().filter_map(|id| account::read(home, id));
        return readable.nth(back).ok_or_else(|| {
            Failure::usage(format!("no run `{name}`: {} recorded", ids.len()), hint())
        });
    }
    let fits: Vec<&String> = ids.iter().filter(|id| id.starts_with(name)).collect();
    let id = match fits.as_slice() {
        [one] => *one,
        _ if ids.iter().any(|id| id == name) => &name.to_owned(),
        [] => return Err(Failure::usage(format!("no run `{name}`"), hint())),
        several => {
            let names: Vec<&str> = several.iter().take(4).map(|id| id.as_str()).collect();
            let help = format!("such as {}", names.join(", "));
            let message = format!("`{name}` begins the names of {} runs", several.len());
            return Err(Failure::usage(message, Some(help)));
        }
    };
    account::read(home, id).ok_or_else(|| {
        let message = format!("the record of run {id} cannot be read");
        Failure::usage(message, Some("`quantmill runs rm` removes it".into()))
    })
}

/// All runs that can be read, the newest first, as far as the caller takes them.
pub fn newest(home: &Path) -> io::Result<impl Iterator<Item = Account>> {
    let home = home.to_owned();
    Ok(ids(&home)?.into_iter().rev().filter_map(move |id| account::read(&home, &id)))
}
