//! The placeholders of a command line: `{in.x}`, `{out.y}`, `{item.name}` and `{item.stem}`.
//!
//! Only `{in.`, `{out.` and `{item.` begin one; every other brace is text, so that awk, JSON and
//! `${x}` need no care. `{{in.x}}` is the text `{in.x}`.
//!
//! A path is quoted for the place where it stands: bare, within '...', or within "...". For this the
//! text is followed as a POSIX shell reads quotes, `$(...)` and comments; here-documents and
//! backticks are not followed, so a placeholder inside them is quoted as if it stood outside.
//! Nothing else of the shell is parsed, and nothing is run here.

use std::fmt;

/// A command line, taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Slot(Slot, Quote),
}

/// What a placeholder stands for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Slot {
    /// `{in.name}`: the path of an input.
    In(String),
    /// `{out.name}`: the path of an output.
    Out(String),
    /// `{item.name}`: the relative name of the item.
    Name,
    /// `{item.stem}`: that without its extension.
    Stem,
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Slot::In(name) => write!(f, "{{in.{name}}}"),
            Slot::Out(name) => write!(f, "{{out.{name}}}"),
            Slot::Name => f.write_str("{item.name}"),
            Slot::Stem => f.write_str("{item.stem}"),
        }
    }
}

/// The quotes around a place in a shell's command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quote {
    Bare,
    Single,
    Double,
}

/// Why a command line cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// A placeholder of no kind, and the one that may be meant.
    Unknown(String, Option<String>),
    /// A placeholder without its end.
    Open(String),
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Malformed::Unknown(text, _) => write!(f, "unknown placeholder `{{{text}}}`"),
            Malformed::Open(text) => write!(f, "`{{{text}` lacks its `}}`"),
        }
    }
}

/// How a placeholder begins, and how people who know other tools begin it.
const SIDES: [(&str, &str); 8] = [
    ("in.", "in."),
    ("out.", "out."),
    ("item.", "item."),
    ("input.", "in."),
    ("inputs.", "in."),
    ("output.", "out."),
    ("outputs.", "out."),
    ("ins.", "in."),
];

/// Whether an input or output can have this name: a letter or `_`, then letters, digits, `_`, `-`.
pub fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    name.chars().all(plain) && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
}

impl Template {
    /// Takes a command line apart.
    pub fn parse(text: &str) -> Result<Template, Malformed> {
        let mut parts = Vec::new();
        let mut literal = String::with_capacity(text.len());
        let mut shell = Shell::default();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let after = &rest[c.len_utf8()..];
            if c == '{'
                && let Some(doubled) = after.strip_prefix('{')
                && begins(doubled)
                && let Some((inside, behind)) = doubled.split_once("}}")
                && !inside.contains(['{', '}'])
            {
                let plain = format!("{{{inside}}}");
                plain.chars().for_each(|c| shell.step(c));
                literal.push_str(&plain);
                rest = behind;
                continue;
            }
            if c == '{' && begins(after) {
                let open = || Malformed::Open(after.chars().take(20).collect());
                let (inside, behind) = after.split_once('}').ok_or_else(open)?;
                let slot = slot(inside)?;
                if !literal.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut literal)));
                }
                parts.push(Part::Slot(slot, shell.quote()));
                shell.step('x');
                rest = behind;
                continue;
            }
            literal.push(c);
            shell.step(c);
            rest = after;
        }
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Ok(Template(parts))
    }

    /// The placeholders, in order; one that stands twice comes twice.
    pub fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.0.iter().filter_map(|part| match part {
            Part::Slot(slot, _) => Some(slot),
            Part::Text(_) => None,
        })
    }

    /// The command line for a shell: paths are quoted as their places ask.
    pub fn shell(&self, path: impl Fn(&Slot) -> String) -> String {
        self.fill(|slot, at| quoted(&path(slot), at))
    }

    /// One argument of a list: paths as they are.
    pub fn plain(&self, path: impl Fn(&Slot) -> String) -> String {
        self.fill(|slot, _| path(slot))
    }

    fn fill(&self, path: impl Fn(&Slot, Quote) -> String) -> String {
        let each = self.0.iter().map(|part| match part {
            Part::Text(text) => text.clone(),
            Part::Slot(slot, at) => path(slot, *at),
        });
        each.collect()
    }
}

/// Whether a placeholder begins here, behind its brace. `{input.` must look like a whole one.
fn begins(text: &str) -> bool {
    SIDES.iter().any(|(side, meant)| {
        text.strip_prefix(side).is_some_and(|rest| {
            side == meant || rest.split_once('}').is_some_and(|(name, _)| is_name(name))
        })
    })
}

fn slot(inside: &str) -> Result<Slot, Malformed> {
    let (side, name) = inside.split_once('.').unwrap_or((inside, ""));
    let unknown = |meant| Err(Malformed::Unknown(inside.into(), meant));
    match side {
        "in" if is_name(name) => Ok(Slot::In(name.into())),
        "out" if is_name(name) => Ok(Slot::Out(name.into())),
        "item" if name == "name" => Ok(Slot::Name),
        "item" if name == "stem" => Ok(Slot::Stem),
        "item" => unknown(Some(Slot::Stem.to_string())),
        _ => {
            let meant = SIDES.iter().find(|(begin, _)| inside.starts_with(begin));
            unknown(meant.filter(|_| is_name(name)).map(|(_, meant)| format!("{{{meant}{name}}}")))
        }
    }
}

fn quoted(path: &str, at: Quote) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || "_@%+=:,./-".contains(c);
    match at {
        Quote::Bare if !path.is_empty() && path.chars().all(safe) => path.into(),
        Quote::Bare => format!("'{}'", path.replace('\'', r"'\''")),
        Quote::Single => path.replace('\'', r"'\''"),
        Quote::Double => {
            let mut out = String::new();
            for c in path.chars() {
                if "\"$`\\".contains(c) {
                    out.push('\\');
                }
                out.push(c);
            }
            out
        }
    }
}

/// Where a reader stands in a shell's command line.
#[derive(Debug)]
struct Shell {
    /// Quotes and parentheses that are open: `'`, `"`, `(`.
    open: Vec<char>,
    last: char,
    escaped: bool,
    comment: bool,
}

impl Default for Shell {
    fn default() -> Shell {
        Shell { open: Vec::new(), last: ' ', escaped: false, comment: false }
    }
}

impl Shell {
    fn quote(&self) -> Quote {
        match self.open.last() {
            Some('\'') => Quote::Single,
            Some('"') => Quote::Double,
            _ => Quote::Bare,
        }
    }

    fn step(&mut self, c: char) {
        let before = std::mem::replace(&mut self.last, c);
        if self.comment {
            self.comment = c != '\n';
            return;
        }
        if std::mem::take(&mut self.escaped) {
            return;
        }
        match (self.quote(), c) {
            (Quote::Single, '\'') | (Quote::Double, '"') => drop(self.open.pop()),
            (Quote::Single, _) => {}
            (_, '\\') => self.escaped = true,
            (Quote::Double, '(') if before == '$' => self.open.push('('),
            (Quote::Double, _) => {}
            (Quote::Bare, '\'' | '"' | '(') => self.open.push(c),
            (Quote::Bare, ')') => drop(self.open.pop()),
            (Quote::Bare, '#') => self.comment = before.is_whitespace() || before == ';',
            (Quote::Bare, _) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(text: &str, path: &str) -> String {
        Template::parse(text).unwrap().shell(|_| path.into())
    }

    #[test]
    fn a_placeholder_is_a_name_on_a_side() {
        let text = "sort {in.a} -o {out.b-1} --name {item.stem} # {in.a} {item.name}";
        let template = Template::parse(text).unwrap();
        let slots: Vec<String> = template.slots().map(Slot::to_string).collect();
        assert_eq!(slots, ["{in.a}", "{out.b-1}", "{item.stem}", "{in.a}", "{item.name}"]);
        let wrong = |text: &str| Template::parse(text).unwrap_err();
        let unknown = |text: &str, meant: Option<&str>| {
            Malformed::Unknown(text.into(), meant.map(str::to_owned))
        };
        assert_eq!(wrong("cat {in.}"), unknown("in.", None));
        assert_eq!(wrong("cat {in.a b}"), unknown("in.a b", None));
        assert_eq!(wrong("cat {item.path}"), unknown("item.path", Some("{item.stem}")));
        assert_eq!(wrong("cat {input.a}"), unknown("input.a", Some("{in.a}")));
        assert_eq!(wrong("cat {outputs.a}"), unknown("outputs.a", Some("{out.a}")));
        assert_eq!(wrong("echo {in.a"), Malformed::Open("in.a".into()));
    }

    #[test]
    fn every_other_brace_is_text() {
        for text in [
            "awk '{print $1}' > ${x}",
            "echo } { {} {{ }} {a,b} '{\"a\": {\"b\": 1}}'",
            "python -c 'print(f\"{input}\", {1: {2}})'",
            "{ echo a; }",
            "{ in.a }",
            "{input.a + 1}",
        ] {
            assert_eq!(shell(text, "f"), text);
        }
        assert_eq!(shell("{{in.a}} {in.a} {{item.x}}", "f"), "{in.a} f {item.x}");
        assert_eq!(shell("{{in.a},{in.a}}", "f"), "{f,f}");
    }

    #[test]
    fn a_path_is_quoted_for_its_place() {
        assert_eq!(shell("cat {in.a}", "/t/a-b.txt"), "cat /t/a-b.txt");
        assert_eq!(shell("cat {in.a}", "a b"), "cat 'a b'");
        assert_eq!(shell("cat {in.a}", ""), "cat ''");
        assert_eq!(shell("cat {in.a}", "it's"), r"cat 'it'\''s'");
        assert_eq!(shell("cat '{in.a}'", "it's"), r"cat 'it'\''s'");
        assert_eq!(shell("cat \"{in.a}\"", "a \"$b\""), r#"cat "a \"\$b\"""#);
        assert_eq!(shell("echo \"$(cat {in.a})\"", "a b"), "echo \"$(cat 'a b')\"");
        assert_eq!(
            shell("echo \"$(cat \"{in.a}\")\" {in.a}", "a b"),
            "echo \"$(cat \"a b\")\" 'a b'"
        );
        assert_eq!(shell("# don't\ncat {in.a}", "a b"), "# don't\ncat 'a b'");
        assert_eq!(shell(r"echo \' {in.a}", "a b"), r"echo \' 'a b'");
    }
}
