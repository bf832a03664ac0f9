//! Outputs of a command that maps over items: `clean/{stem}.csv` is the folder `clean`, in which
//! each item writes a file of its own.
//!
//! `{name}` is the item's relative name and `{stem}` that without its extension. The folders of an
//! item's name come first, whatever else the pattern says: items that differ only in their folder
//! never meet.

use std::path::{Path, PathBuf};

/// Where the items of an output go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern<'a> {
    /// The folder before the first placeholder; may be empty.
    pub folder: &'a str,
    /// The rest, which begins with the component that holds the first placeholder.
    rest: &'a str,
}

impl<'a> Pattern<'a> {
    /// The pattern of an output's path; `None` where it has no placeholder.
    pub fn of(path: &'a str) -> Option<Pattern<'a>> {
        let slot = |text: &str| text.starts_with("{name}") || text.starts_with("{stem}");
        let (first, _) = path.match_indices('{').find(|(at, _)| slot(&path[*at..]))?;
        let (folder, rest) = path.split_at(path[..first].rfind('/').map_or(0, |slash| slash + 1));
        Some(Pattern { folder, rest })
    }

    /// Each item makes a folder rather than a file.
    pub fn tree(&self) -> bool {
        self.rest.ends_with('/')
    }

    /// The path of an item's output below the folder.
    pub fn place(&self, item: &str) -> PathBuf {
        let item = Path::new(item);
        let own = item.file_name().unwrap_or_default().to_string_lossy();
        let rest = self.rest.replace("{name}", &own).replace("{stem}", &bare(&own));
        item.parent().unwrap_or(Path::new("")).join(rest)
    }
}

/// A name without its extension.
pub fn bare(name: &str) -> String {
    Path::new(name).with_extension("").to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_keeps_its_folders() {
        let place = |path: &str, item: &str| {
            let pattern = Pattern::of(path).unwrap();
            (pattern.folder.to_owned(), pattern.place(item).display().to_string())
        };
        assert_eq!(place("clean/{stem}.csv", "a.txt"), ("clean/".into(), "a.csv".into()));
        assert_eq!(place("clean/{name}", "x/y/a.b.txt"), ("clean/".into(), "x/y/a.b.txt".into()));
        assert_eq!(place("c/d/pre-{stem}.csv", "x/a.txt"), ("c/d/".into(), "x/pre-a.csv".into()));
        assert_eq!(place("c/{stem}/{name}", "x/a.txt"), ("c/".into(), "x/a/a.txt".into()));
        assert_eq!(place("{name}", "a"), (String::new(), "a".into()));
        assert!(Pattern::of("c/{stem}/").unwrap().tree());
        assert_eq!(Pattern::of("c/{other}.csv"), None);
        assert_eq!(bare("x/.hidden"), "x/.hidden");
    }
}
