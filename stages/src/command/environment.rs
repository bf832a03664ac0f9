//! The environment of a command: clean, and what it uses of ours without saying so.
//!
//! A command sees PATH, HOME, LANG, a TMPDIR of its own, and what `env` and `secrets` name. A
//! variable that its line or a script of it mentions, that is set here and that it will not see, is
//! told with the line that declares it. Scripts are not parsed: names are looked for where the usual
//! languages write them, and only those that are set here count, so that little is told in vain.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Run;
use crate::{Context, Job, Result, Sandbox, StageError};

/// What every command sees of our environment.
const GIVEN: [&str; 3] = ["PATH", "HOME", "LANG"];

/// What a shell sets itself, so that a use of it is none of ours.
const SHELL: &str = " PWD OLDPWD SHLVL IFS PS1 PS2 PS4 OPTIND OPTARG RANDOM LINENO SECONDS PPID UID \
                     EUID GROUPS SHELL HOSTNAME HOSTTYPE OSTYPE MACHTYPE TERM COLUMNS LINES TMPDIR _ ";

/// Extensions of scripts, those of shells first.
const SCRIPTS: [&str; 15] =
    ["sh", "bash", "zsh", "ksh", "py", "R", "r", "jl", "rb", "pl", "js", "mjs", "ts", "php", "lua"];
const SHELLS: usize = 4;

/// Bytes of a script that are looked at, and files of a folder.
const MOST: u64 = 256 << 10;
const FILES: usize = 64;

/// Secrets that are shorter would make `***` of every other word.
const SHORTEST: usize = 4;

/// The scratch folder in the environment of a command: no other action has the same.
pub fn mark(ctx: &Context) -> Result<String> {
    Ok(format!("TMPDIR={}", std::path::absolute(ctx.scratch())?.display()))
}

/// Gives a command its environment.
pub fn give(command: &mut Command, ctx: &Context) -> Result<()> {
    let job = ctx.job();
    if let Some((name, _)) = job.secrets.iter().find(|(_, value)| value.trim().len() < SHORTEST) {
        let text = format!("the secret {name} is shorter than {SHORTEST} characters");
        return Err(StageError::failed(text)
            .hint("it could not be masked in what is printed; what is no secret goes in `env`"));
    }
    for name in &job.unset {
        ctx.warn(format!("{name} is declared and not set: the command does not see it"));
    }
    command.env_clear();
    for name in GIVEN {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.env("TMPDIR", std::path::absolute(ctx.scratch())?);
    command.envs(&job.env).envs(&job.secrets);
    Ok(())
}

/// Tells of each variable that the command mentions and does not see; in a strict sandbox this is an
/// error.
pub fn look(run: &Run, ctx: &Context) -> Result<()> {
    let job = ctx.job();
    let mut told = Vec::new();
    let mut seen = BTreeSet::new();
    let mut look = |what: &str, text: &str, shell: bool| {
        for name in mentioned(text, shell) {
            let set = || std::env::var_os(&name).is_some_and(|value| !value.is_empty());
            if !declared(job, &name) && set() && seen.insert(name.clone()) {
                told.push((what.to_owned(), name));
            }
        }
    };
    match run {
        Run::Shell(line) => look("the command line", line, true),
        Run::Program(parts) => {
            let shell =
                parts.first().is_some_and(|program| SHELLS_BY_NAME.contains(&base(program)));
            parts.iter().for_each(|part| look("the command line", part, shell));
        }
    }
    for script in scripts(run, job) {
        let text = head(&script).unwrap_or_default();
        let shell = kind(&script).is_some_and(|kind| kind < SHELLS)
            || text
                .lines()
                .next()
                .is_some_and(|line| line.starts_with("#!") && line.ends_with("sh"));
        let shown = script.strip_prefix(&job.dir).unwrap_or(&script);
        look(&format!("`{}`", shown.display()), &text, shell);
    }
    let advice = |name: &str| match secret(name) {
        true => format!("add `secrets: [{name}]`"),
        false => format!("add `env: [{name}]`"),
    };
    if job.sandbox == Sandbox::Strict
        && let Some((what, name)) = told.first()
    {
        let text = format!("{what} uses the variable {name}, which the stage does not declare");
        return Err(StageError::failed(text).hint(advice(name)));
    }
    for (what, name) in told {
        ctx.warn(format!(
            "{what} uses the variable {name}, which is set here but hidden from the command: {}",
            advice(&name)
        ));
    }
    Ok(())
}

const SHELLS_BY_NAME: [&str; 5] = ["sh", "bash", "zsh", "dash", "ksh"];

fn base(program: &str) -> &str {
    program.rsplit('/').next().unwrap_or(program)
}

fn declared(job: &Job, name: &str) -> bool {
    GIVEN.contains(&name)
        || SHELL.split(' ').any(|own| own == name)
        || name.starts_with("BASH")
        || job.env.contains_key(name)
        || job.secrets.contains_key(name)
        || job.unset.iter().any(|unset| unset == name)
}

fn secret(name: &str) -> bool {
    ["TOKEN", "SECRET", "PASSWORD", "PASSWD", "KEY", "CREDENTIAL"]
        .iter()
        .any(|part| name.contains(part))
}

/// The scripts that a command is known to use: inputs, and files that its line names.
fn scripts(run: &Run, job: &Job) -> BTreeSet<PathBuf> {
    let inputs = job.inputs.values().flat_map(|input| {
        let single = if input.tree { None } else { input.files.first_key_value() };
        let single = single.filter(|(name, place)| {
            Path::new(name).extension().is_none() && begins_as_script(place)
        });
        let found = input.files.named(|name| kind(Path::new(name)).is_some(), FILES);
        found.into_iter().chain(single.map(|(_, place)| place.clone()))
    });
    let words = run.parts().iter().flat_map(|part| part.split([' ', '\t', '\n', ';', '\'', '"']));
    let words = words.filter(|word| kind(Path::new(word)).is_some() && !word.contains(['{', '$']));
    let named = words.map(|word| job.dir.join(word)).filter(|path| path.is_file());
    inputs.chain(named).collect()
}

fn kind(path: &Path) -> Option<usize> {
    let extension = path.extension()?.to_str()?;
    SCRIPTS.iter().position(|kind| *kind == extension)
}

fn begins_as_script(path: &Path) -> bool {
    let mut begin = [0; 2];
    fs_err::File::open(path).and_then(|mut file| file.read_exact(&mut begin)).is_ok()
        && &begin == b"#!"
}

fn head(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    fs_err::File::open(path).ok()?.take(MOST).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Names of variables that a text reads and does not itself set.
fn mentioned(text: &str, shell: bool) -> BTreeSet<String> {
    let mut read = BTreeSet::new();
    let mut set = BTreeSet::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with(['#', '%'])) {
        if shell {
            in_shell(line, &mut read, &mut set);
        }
        in_script(line, &mut read, &mut set);
    }
    read.difference(&set).cloned().collect()
}

/// `$NAME` and `${NAME...}`; `NAME=`, `for NAME`, `read NAME` set it.
fn in_shell(line: &str, read: &mut BTreeSet<String>, set: &mut BTreeSet<String>) {
    for (at, _) in line.match_indices('$').filter(|(at, _)| !line[..*at].ends_with('\\')) {
        let name = name(line[at + 1..].trim_start_matches(['{', '#', '!']));
        read.insert(name.to_owned());
    }
    let mut before = "";
    for word in line.split([' ', '\t', ';', '(', '&', '|', '"', '\'', '`']) {
        let own = name(word);
        if !own.is_empty() {
            let rest = &word[own.len()..];
            let bound = ["for", "read", "-r", "local", "export", "declare"].contains(&before);
            if rest.starts_with('=')
                || rest.starts_with("+=")
                || (bound && rest.is_empty() && before != "export")
            {
                set.insert(own.to_owned());
            }
        }
        before = word;
    }
}

/// Where Python, R, Julia, Ruby, Perl, PHP, Lua, JavaScript and C write the name of a variable.
const MARKS: [&str; 5] = ["environ", "getenv", "ENV", "process.env", "env::var"];

fn in_script(line: &str, read: &mut BTreeSet<String>, set: &mut BTreeSet<String>) {
    for mark in MARKS {
        for (at, _) in line.match_indices(mark) {
            let mut rest = &line[at + mark.len()..];
            for part in ["_os", "b"] {
                rest = rest.strip_prefix(part).unwrap_or(rest);
            }
            for part in [".get", ".fetch", ".pop"] {
                rest = rest.strip_prefix(part).unwrap_or(rest);
            }
            let begin = rest.trim_start_matches(['.', '(', '[', '{', '"', '\'', ' ']);
            let own = name(begin);
            if own.is_empty() || begin.len() == rest.len() {
                continue;
            }
            let behind = begin[own.len()..].trim_start_matches([')', ']', '}', '"', '\'', ' ']);
            match behind.starts_with('=') && !behind.starts_with("==") {
                true => set.insert(own.to_owned()),
                false => read.insert(own.to_owned()),
            };
        }
    }
}

fn name(text: &str) -> &str {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let name = &text[..text.find(|c| !part(c)).unwrap_or(text.len())];
    if name.starts_with(|c: char| c.is_ascii_digit()) { "" } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str, shell: bool) -> String {
        mentioned(text, shell)
            .into_iter()
            .filter(|name| !name.is_empty())
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn a_shell_line_names_what_it_reads_and_not_what_it_sets() {
        assert_eq!(
            found("curl $API_URL/x -H \"k: ${KEY}\" ${#LIST} ${D:-x}", true),
            "API_URL D KEY LIST"
        );
        assert_eq!(found("A=1 B=2; echo $A ${B} $1 $? \\$C", true), "");
        assert_eq!(found("for f in *; do read -r g; echo $f $g; done", true), "");
        assert_eq!(found("# $A\necho $B", true), "B");
        assert_eq!(found("export A\necho $A", true), "A");
        assert_eq!(found("echo $A", false), "");
    }

    #[test]
    fn a_script_names_what_it_reads() {
        for line in [
            "x = os.environ[\"NAME\"]",
            "x = os.environ.get('NAME', 1)",
            "x = os.getenv( \"NAME\")",
            "x <- Sys.getenv('NAME')",
            "x = ENV[\"NAME\"]; y = ENV.fetch('NAME')",
            "my $x = $ENV{NAME};",
            "const x = process.env.NAME || 1",
            "env::var(\"NAME\")",
            "if os.environ['NAME'] == 'x':",
        ] {
            assert_eq!(found(line, false), "NAME", "{line}");
        }
        assert_eq!(found("os.environ['NAME'] = 'x'\nprint(os.environ['NAME'])", false), "");
        assert_eq!(found("environment = 3; ENVIRONMENT NAME", false), "");
    }
}
