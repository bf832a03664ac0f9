//! Reads strace's log: which files a command opened, moved and removed, and whom it connected to.
//!
//! `-y` prints the true path behind each descriptor, so that what was opened needs no working out.
//! Calls that give a path alone (`rename("a", ...)`, and whatever failed) are read relative to the
//! folder of their process, which is followed through `chdir` and `fork`. A line that cannot be
//! understood is passed over.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::io::BufRead;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

/// The system calls that the log must hold.
pub const CALLS: &str = "open,openat,openat2,creat,execve,execveat,rename,renameat,renameat2,unlink,\
                         unlinkat,rmdir,mkdir,mkdirat,link,linkat,symlink,symlinkat,mknod,mknodat,\
                         truncate,chdir,fchdir,socket,connect,bind,clone,clone3,fork,vfork";

/// Something that a command did, or tried to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Access {
    /// What.
    pub what: What,
    /// The path; of a connection the address.
    pub path: PathBuf,
    /// It was not let.
    pub denied: bool,
}

/// What a command does with a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum What {
    /// It reads a file.
    Read,
    /// It writes a file or makes a folder.
    Write,
    /// It removes a file.
    Remove,
    /// It connects to a TCP address.
    Connect,
}

/// Reads a log of processes that began in `dir`. Each access comes once.
pub fn read(log: impl BufRead, dir: &Path) -> Vec<Access> {
    let mut reader = Reader { dir: dir.to_owned(), ..Reader::default() };
    for line in log.split(b'\n').map_while(Result::ok) {
        reader.line(&line);
    }
    reader.found
}

#[derive(Default)]
struct Reader {
    dir: PathBuf,
    /// Folders by process.
    cwd: HashMap<u32, PathBuf>,
    /// Calls that have begun, by process.
    open: HashMap<u32, Vec<u8>>,
    /// Sockets that are not TCP.
    others: HashSet<Vec<u8>>,
    seen: HashSet<Access>,
    found: Vec<Access>,
}

impl Reader {
    fn line(&mut self, line: &[u8]) {
        let digits = line.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (pid, text) = line.split_at(digits);
        let pid = std::str::from_utf8(pid).ok().and_then(|pid| pid.parse().ok()).unwrap_or(0);
        let text = text.trim_ascii();
        if text.starts_with(b"+++") || text.starts_with(b"---") {
            return;
        }
        if !self.cwd.contains_key(&pid) {
            self.begin(pid);
        }
        if let Some(begun) = text.strip_suffix(b"<unfinished ...>") {
            self.open.insert(pid, begun.trim_ascii_end().to_owned());
            return;
        }
        let whole = match text.strip_prefix(b"<... ") {
            Some(resumed) => {
                let Some(end) = find(resumed, b"resumed>") else { return };
                let Some(mut begun) = self.open.remove(&pid) else { return };
                begun.extend_from_slice(&resumed[end + b"resumed>".len()..]);
                begun
            }
            None => text.to_owned(),
        };
        if let Some(call) = Call::parse(&whole) {
            self.call(pid, &call);
        }
    }

    /// A process that is seen for the first time begins in the folder of its parent: one that is
    /// just now forking.
    fn begin(&mut self, pid: u32) {
        let forking = |begun: &[u8]| {
            [&b"clone"[..], b"fork", b"vfork"].iter().any(|call| begun.starts_with(call))
        };
        let parent = self.open.iter().find(|(_, begun)| forking(begun)).map(|(pid, _)| *pid);
        let folder = parent.and_then(|parent| self.cwd.get(&parent)).unwrap_or(&self.dir);
        self.cwd.insert(pid, folder.clone());
    }

    fn call(&mut self, pid: u32, call: &Call) {
        if let Some(at) = call.args.first().filter(|arg| arg.starts_with(b"AT_FDCWD<"))
            && let Some(path) = shown(at)
        {
            self.cwd.insert(pid, path);
        }
        let at = |base: usize, name: usize| self.path(pid, call.arg(base), call.arg(name));
        let here = |name: usize| self.path(pid, b"", call.arg(name));
        let mut did: Vec<(What, Option<PathBuf>)> = Vec::new();
        match call.name {
            b"open" => did.extend(opened(call, here(0), call.arg(1))),
            b"openat" | b"openat2" => did.extend(opened(call, at(0, 1), call.arg(2))),
            b"creat" => did.push((What::Write, here(0))),
            b"execve" => did.push((What::Read, here(0))),
            b"execveat" => did.push((What::Read, at(0, 1))),
            b"rename" => did.extend([(What::Remove, here(0)), (What::Write, here(1))]),
            b"renameat" | b"renameat2" => {
                did.extend([(What::Remove, at(0, 1)), (What::Write, at(2, 3))]);
            }
            b"unlink" | b"rmdir" => did.push((What::Remove, here(0))),
            b"unlinkat" => did.push((What::Remove, at(0, 1))),
            b"truncate" | b"mknod" => did.push((What::Write, here(0))),
            b"mkdir" if call.denied() => did.push((What::Write, here(0))),
            b"mkdirat" if call.denied() => did.push((What::Write, at(0, 1))),
            b"link" | b"symlink" => did.push((What::Write, here(1))),
            b"linkat" => did.push((What::Write, at(2, 3))),
            b"symlinkat" => did.push((What::Write, at(1, 2))),
            b"mknodat" => did.push((What::Write, at(0, 1))),
            b"chdir" if call.ok() => {
                if let Some(path) = here(0) {
                    self.cwd.insert(pid, path);
                }
            }
            b"fchdir" if call.ok() => {
                if let Some(path) = shown(call.arg(0)) {
                    self.cwd.insert(pid, path);
                }
            }
            b"clone" | b"clone3" | b"fork" | b"vfork" => {
                let child = std::str::from_utf8(call.result).ok();
                let child = child.and_then(|text| text.split_whitespace().next()?.parse().ok());
                if let Some(child) = child
                    && let Some(folder) = self.cwd.get(&pid).cloned()
                {
                    self.cwd.entry(child).or_insert(folder);
                }
            }
            b"socket" if find(call.arg(1), b"SOCK_STREAM").is_none() => {
                self.others.extend(inside(call.result).map(<[u8]>::to_vec));
            }
            b"connect" if inside(call.arg(0)).is_some_and(|it| !self.others.contains(it)) => {
                did.push((What::Connect, address(call.arg(1))));
            }
            b"bind" if call.denied() => did.push((What::Connect, address(call.arg(1)))),
            _ => {}
        }
        // A connection may be refused or under way; it was tried.
        let counts = |what| call.ok() || call.denied() || what == What::Connect;
        for (what, path) in did {
            if let Some(path) = path.filter(|_| counts(what)) {
                let access = Access { what, path, denied: call.denied() };
                if self.seen.insert(access.clone()) {
                    self.found.push(access);
                }
            }
        }
    }

    /// A path as it was given, from the folder that a descriptor stands for, or of the process.
    fn path(&self, pid: u32, base: &[u8], name: &[u8]) -> Option<PathBuf> {
        let name = path(unquoted(name)?);
        if name.is_absolute() {
            return Some(plain(&name));
        }
        let base = shown(base).or_else(|| self.cwd.get(&pid).cloned());
        Some(plain(&base.unwrap_or_else(|| self.dir.clone()).join(name)))
    }
}

/// What opening a file comes to. Looking into a folder is nothing.
fn opened(call: &Call, given: Option<PathBuf>, flags: &[u8]) -> Option<(What, Option<PathBuf>)> {
    let has = |flag: &[u8]| find(flags, flag).is_some();
    if has(b"O_PATH") || has(b"O_DIRECTORY") {
        return None;
    }
    let write = [&b"O_WRONLY"[..], b"O_RDWR", b"O_CREAT", b"O_TRUNC"].iter().any(|flag| has(flag));
    let what = if write { What::Write } else { What::Read };
    Some((what, shown(call.result).or(given)))
}

/// `{sa_family=AF_INET, sin_port=htons(443), sin_addr=inet_addr("1.2.3.4")}` as `1.2.3.4:443`.
fn address(text: &[u8]) -> Option<PathBuf> {
    let text = String::from_utf8_lossy(text);
    let six = text.contains("AF_INET6");
    if !text.contains("AF_INET") {
        return None;
    }
    let between =
        |from: &str, to: char| Some(text.split_once(from)?.1.split_once(to)?.0.to_owned());
    let port = between("htons(", ')')?;
    let host = between("inet_addr(\"", '"').or_else(|| between("inet_pton(AF_INET6, \"", '"'))?;
    Some(PathBuf::from(if six { format!("[{host}]:{port}") } else { format!("{host}:{port}") }))
}

/// A call, taken apart.
struct Call<'a> {
    name: &'a [u8],
    args: Vec<&'a [u8]>,
    result: &'a [u8],
}

impl<'a> Call<'a> {
    fn parse(line: &'a [u8]) -> Option<Call<'a>> {
        let open = line.iter().position(|byte| *byte == b'(')?;
        let (name, rest) = (&line[..open], &line[open + 1..]);
        let (mut args, mut depth, mut begin, mut at) = (Vec::new(), 0, 0, 0);
        loop {
            match *rest.get(at)? {
                b'"' => {
                    at += 1;
                    while *rest.get(at)? != b'"' {
                        at += if rest[at] == b'\\' { 2 } else { 1 };
                    }
                }
                b'<' => at += rest[at..].iter().position(|byte| *byte == b'>')?,
                b'(' | b'[' | b'{' => depth += 1,
                b')' if depth == 0 => break,
                b')' | b']' | b'}' => depth -= 1,
                b',' if depth == 0 => {
                    args.push(rest[begin..at].trim_ascii());
                    begin = at + 1;
                }
                _ => {}
            }
            at += 1;
        }
        args.push(rest[begin..at].trim_ascii());
        let result = rest[at + 1..].trim_ascii_start().strip_prefix(b"=")?.trim_ascii();
        Some(Call { name, args, result })
    }

    fn arg(&self, at: usize) -> &'a [u8] {
        self.args.get(at).copied().unwrap_or_default()
    }

    fn ok(&self) -> bool {
        self.result.first().is_some_and(u8::is_ascii_digit)
    }

    fn denied(&self) -> bool {
        [&b"EACCES"[..], b"EPERM", b"EXDEV"].iter().any(|error| find(self.result, error).is_some())
    }
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

/// What stands in `<...>`, where a descriptor is shown with what it stands for.
fn inside(text: &[u8]) -> Option<&[u8]> {
    let begin = text.iter().position(|byte| *byte == b'<')? + 1;
    let end = text.iter().rposition(|byte| *byte == b'>')?;
    text.get(begin..end)
}

fn shown(text: &[u8]) -> Option<PathBuf> {
    let found = path(unescaped(inside(text)?));
    found.is_absolute().then_some(found)
}

/// The text between quotes.
fn unquoted(text: &[u8]) -> Option<Vec<u8>> {
    let text = text.strip_prefix(b"\"")?;
    let mut at = 0;
    while *text.get(at)? != b'"' {
        at += if text[at] == b'\\' { 2 } else { 1 };
    }
    Some(unescaped(text.get(..at)?))
}

/// C's escapes, in which strace writes whatever is not plain ASCII.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'\\' {
            out.push(*first);
            continue;
        }
        let octal = after.iter().take(3).take_while(|byte| (b'0'..=b'7').contains(byte)).count();
        let Some(escaped) = after.first() else { break };
        if octal > 0 {
            let value = after[..octal]
                .iter()
                .fold(0u32, |value, digit| value * 8 + u32::from(digit - b'0'));
            out.push(value as u8);
            rest = &after[octal..];
            continue;
        }
        let hex = (*escaped == b'x').then(|| after.get(1..3)).flatten();
        let hex = hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        out.push(match escaped {
            b'n' => b'\n',
            b't' => b'\t',
            b'r' => b'\r',
            b'v' => 0x0b,
            b'f' => 0x0c,
            other => hex.unwrap_or(*other),
        });
        rest = &after[if hex.is_some() { 3 } else { 1 }..];
    }
    out
}

fn path(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes))
}

/// Without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(plain.pop()),
            part => plain.push(part),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accesses(log: &str) -> Vec<String> {
        let found = read(log.as_bytes(), Path::new("/w"));
        let show = |access: Access| {
            let denied = if access.denied { " denied" } else { "" };
            format!("{:?} {}{denied}", access.what, access.path.display())
        };
        found.into_iter().map(show).collect()
    }

    #[test]
    fn what_is_opened_is_where_its_descriptor_says() {
        let log = r#"
7 execve("/usr/bin/sort", ["sort", "a, b\" (", 0x7ffc /* 3 vars */], 0x7ffc33 /* 35 vars */) = 0
7 openat(AT_FDCWD</w>, "p\303\244r \"a\".txt", O_RDONLY|O_CLOEXEC) = 3</w/p\303\244r \"a\".txt>
7 openat(AT_FDCWD</w>, "link", O_RDONLY) = 3</data/true\74.csv>
7 openat(AT_FDCWD</w>, ".", O_RDONLY|O_NONBLOCK|O_CLOEXEC|O_DIRECTORY) = 3</w>
7 openat(AT_FDCWD</w>, "none", O_RDONLY) = -1 ENOENT (No such file or directory)
7 openat(5</w/sub>, "../x", O_WRONLY|O_CREAT|O_TRUNC, 0666) = 3</w/x>
7 openat(AT_FDCWD</w>, "secret", O_RDONLY) = -1 EACCES (Permission denied)
7 --- SIGCHLD {si_signo=SIGCHLD} ---
7 +++ exited with 0 +++
"#;
        assert_eq!(
            accesses(log),
            [
                "Read /usr/bin/sort",
                "Read /w/pär \"a\".txt",
                "Read /data/true<.csv",
                "Write /w/x",
                "Read /w/secret denied",
            ]
        );
    }

    #[test]
    fn calls_that_are_cut_apart_and_processes_that_move_are_followed() {
        let log = r#"
7 chdir("sub")                      = 0
7 vfork( <unfinished ...>
8 execve("./tool", ["./tool"], 0x7ffc /* 1 var */ <unfinished ...>
9 openat(AT_FDCWD</w>, "b" <unfinished ...>
8 <... execve resumed>)             = 0
7 <... vfork resumed>)              = 8
9 <... openat resumed>, O_RDONLY)   = 3</w/b>
8 rename("new", "../old")           = 0
8 unlink("gone")                    = 0
8 mkdir("d", 0777)                  = 0
8 fchdir(3</w/other>)               = 0
8 truncate("t", 0)                  = 0
7 openat(AT_FDCWD</w/sub>, "unfin
"#;
        assert_eq!(
            accesses(log),
            [
                "Read /w/sub/tool",
                "Read /w/b",
                "Remove /w/sub/new",
                "Write /w/old",
                "Remove /w/sub/gone",
                "Write /w/other/t",
            ]
        );
    }

    #[test]
    fn a_connection_is_one_over_tcp() {
        let log = r#"
7 socket(AF_INET, SOCK_STREAM|SOCK_CLOEXEC, IPPROTO_IP) = 3<socket:[1]>
7 socket(AF_INET, SOCK_DGRAM, IPPROTO_IP) = 4<socket:[2]>
7 socket(AF_UNIX, SOCK_STREAM, 0) = 5<socket:[3]>
7 connect(3<socket:[1]>, {sa_family=AF_INET, sin_port=htons(443), sin_addr=inet_addr("1.2.3.4")}, 16) = -1 EINPROGRESS (Operation now in progress)
7 connect(4<socket:[2]>, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("8.8.8.8")}, 16) = 0
7 connect(5<socket:[3]>, {sa_family=AF_UNIX, sun_path="/run/x"}, 110) = -1 ENOENT (No such file)
7 connect(3<socket:[1]>, {sa_family=AF_INET6, sin6_port=htons(80), sin6_flowinfo=htonl(0), inet_pton(AF_INET6, "::1", &sin6_addr), sin6_scope_id=0}, 28) = -1 EACCES (Permission denied)
"#;
        assert_eq!(accesses(log), ["Connect 1.2.3.4:443", "Connect [::1]:80 denied"]);
    }
}
