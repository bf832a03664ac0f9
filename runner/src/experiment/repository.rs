//! The git repository around a pipeline, as far as a record needs it.
//!
//! The commit and the branch are read from git's own files, so that a run that does nothing starts no
//! process; whether the files differ from the commit, and what they were, is asked of `git`. Nothing
//! here writes to a repository.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where a repository is: its commit, and its branch unless the head is detached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The commit's id.
    pub commit: Option<String>,
    /// The branch.
    pub branch: Option<String>,
}

/// The head of the repository around a folder; empty where there is none, or it is of a form (such
/// as reftable) that only git reads.
pub fn head(dir: &Path) -> Head {
    let Some(git) = git_folder(dir) else { return Head::default() };
    let Ok(text) = std::fs::read_to_string(git.join("HEAD")) else { return Head::default() };
    let Some(name) = text.trim().strip_prefix("ref: ") else {
        return Head { commit: id(&text), branch: None };
    };
    // Branches of a linked worktree lie in the main repository.
    let common = std::fs::read_to_string(git.join("commondir"));
    let common = common.map_or_else(|_| git.clone(), |common| git.join(common.trim()));
    let loose = [&git, &common].into_iter().find_map(|folder| {
        let text = std::fs::read_to_string(folder.join(name)).ok()?;
        id(&text)
    });
    let commit = loose.or_else(|| {
        let packed = std::fs::read_to_string(common.join("packed-refs")).ok()?;
        packed.lines().find_map(|line| id(line.strip_suffix(name)?.strip_suffix(' ')?))
    });
    let branch = name.strip_prefix("refs/heads/").map(str::to_owned);
    Head { commit, branch }
}

fn git_folder(dir: &Path) -> Option<PathBuf> {
    let dir = std::path::absolute(dir).ok()?;
    let up = dir.ancestors().find(|up| up.join(".git").exists())?;
    let git = up.join(".git");
    if git.is_dir() {
        return Some(git);
    }
    let text = std::fs::read_to_string(&git).ok()?;
    Some(up.join(text.strip_prefix("gitdir:")?.trim()))
}

fn id(text: &str) -> Option<String> {
    let text = text.trim();
    let fits = text.len() >= 40 && text.bytes().all(|b| b.is_ascii_hexdigit());
    fits.then(|| text.to_owned())
}

/// Whether tracked files of the folder differ from the commit; `None` without git.
pub fn dirty(dir: &Path) -> Option<bool> {
    let out = git(dir, &["status", "--porcelain", "--untracked-files=no", "--", "."])?;
    Some(!out.is_empty())
}

/// A file as it was in a commit. The path is relative to `dir`.
pub fn file_at(dir: &Path, commit: &str, path: &str) -> Option<Vec<u8>> {
    let here = if path.starts_with("../") { "" } else { "./" };
    git(dir, &["show", &format!("{commit}:{here}{path}")])
}

/// Hands over the files of a folder as they were in a commit: path below the folder, whether it may be
/// executed, content. False where git or the commit is not there.
pub fn files_at(
    dir: &Path,
    commit: &str,
    mut each: impl FnMut(&str, bool, &mut dyn Read) -> io::Result<()>,
) -> io::Result<bool> {
    if !dir.is_dir() || git(dir, &["cat-file", "-e", commit]).is_none() {
        return Ok(false);
    }
    let mut child =
        command(dir, &["archive", "--format=tar", commit, "."]).stdout(Stdio::piped()).spawn()?;
    if let Some(mut pipe) = child.stdout.take() {
        for entry in tar::Archive::new(&mut pipe).entries()? {
            let mut entry = entry?;
            if entry.header().entry_type().is_file() {
                let path = entry.path()?.to_string_lossy().into_owned();
                let executable = entry.header().mode()? & 0o100 != 0;
                each(&path, executable, &mut entry)?;
            }
        }
        // The archive is padded; git would take a pipe that closes early for a failure.
        io::copy(&mut pipe, &mut io::sink())?;
    }
    Ok(child.wait()?.success())
}

fn command(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("git");
    // A question must not write: `status` would refresh the index.
    command.env("GIT_OPTIONAL_LOCKS", "0").arg("-C").arg(dir).args(arguments);
    command.stdin(Stdio::null()).stderr(Stdio::null());
    command
}

fn git(dir: &Path, arguments: &[&str]) -> Option<Vec<u8>> {
    let out = command(dir, arguments).output().ok()?;
    out.status.success().then_some(out.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(dir: &Path, arguments: &[&str]) -> String {
        let mut command = Command::new("git");
        let identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"];
        command.arg("-C").arg(dir).args(identity).args(arguments);
        let out = command.output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    }

    #[test]
    fn the_head_is_what_git_says_in_all_its_forms() {
        let space = tempfile::tempdir().unwrap();
        let dir = space.path().join("repo");
        fs_err::create_dir(&dir).unwrap();
        run(&dir, &["init", "-q", "-b", "some/branch"]);
        assert_eq!(head(&dir), Head { commit: None, branch: Some("some/branch".into()) });
        fs_err::write(dir.join("a"), "1").unwrap();
        run(&dir, &["add", "a"]);
        run(&dir, &["commit", "-qm", "one"]);
        let commit = run(&dir, &["rev-parse", "HEAD"]);
        let branch = Some("some/branch".to_owned());
        let wanted = Head { commit: Some(commit.clone()), branch };
        assert_eq!(head(&dir), wanted);
        run(&dir, &["pack-refs", "--all"]);
        assert_eq!(head(&dir), wanted, "packed");
        let other = space.path().join("other");
        run(&dir, &["worktree", "add", "-q", "-b", "side", other.to_str().unwrap()]);
        assert_eq!(head(&other).branch.as_deref(), Some("side"));
        assert_eq!(head(&other).commit.as_deref(), Some(commit.as_str()));
        run(&dir, &["checkout", "-q", "--detach"]);
        assert_eq!(head(&dir), Head { commit: Some(commit.clone()), branch: None });
        assert_eq!(dirty(&dir), Some(false));
        fs_err::write(dir.join("a"), "2").unwrap();
        assert_eq!(dirty(&dir), Some(true));
        assert_eq!(file_at(&dir, &commit, "a").as_deref(), Some(&b"1"[..]));
        let mut seen = Vec::new();
        let each = |path: &str, executable: bool, content: &mut dyn Read| {
            let mut text = String::new();
            content.read_to_string(&mut text)?;
            seen.push((path.to_owned(), executable, text));
            Ok(())
        };
        assert!(files_at(&dir, &commit, each).unwrap());
        assert_eq!(seen, [("a".to_owned(), false, "1".to_owned())]);
        assert!(!files_at(&dir, &"0".repeat(40), |_, _, _| Ok(())).unwrap());
    }
}
