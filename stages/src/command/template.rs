//! The placeholders of a command line: `{in.x}`, `{out.y}`, and `{{` and `}}` for braces.
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
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Slot::In(name) => write!(f, "{{in.{name}}}"),
            Slot::Out(name) => write!(f, "{{out.{name}}}"),
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
    /// Braces around something that is no placeholder.
    Unknown(String),
    /// A brace without its other half.
    Unmatched(char),
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Malformed::Unknown(text) => write!(f, "unknown placeholder `{{{text}}}`"),
            Malformed::Unmatched(brace) => write!(f, "a `{brace}` without its other half"),
        }
    }
}

/// Whether an input or output can have this name: a letter or `_`, then letters, digits, `_`, `-`.
pub fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    name.chars().all(plain) && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
}

impl Template {
    /// Takes a command line apart. Text inside braces must be `in.NAME` or `out.NAME`.
    pub fn parse(text: &str) -> Result<Template, Malformed> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut shell = Shell::default();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let after = &rest[c.len_utf8()..];
            if (c == '{' || c == '}') && !after.starts_with(c) {
                if c == '}' {
                    return Err(Malformed::Unmatched('}'));
                }
                let (inside, behind) = after.split_once('}').ok_or(Malformed::Unmatched('{'))?;
                let slot = slot(inside).ok_or_else(|| Malformed::Unknown(inside.into()))?;
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
            // A doubled brace is one of them.
            rest = if c == '{' || c == '}' { &after[1..] } else { after };
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

fn slot(inside: &str) -> Option<Slot> {
    let (side, name) = inside.trim().split_once('.')?;
    match side {
        "in" if is_name(name) => Some(Slot::In(name.into())),
        "out" if is_name(name) => Some(Slot::Out(name.into())),
        _ => None,
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
    fn a_placeholder_is_a_name_on_one_of_two_sides() {
        let template = Template::parse("sort {in.a} -o {out.b-1} # {in.a}").unwrap();
        let slots: Vec<String> = template.slots().map(Slot::to_string).collect();
        assert_eq!(slots, ["{in.a}", "{out.b-1}", "{in.a}"]);
        let wrong = |text: &str| Template::parse(text).unwrap_err();
        assert_eq!(wrong("cat {a}"), Malformed::Unknown("a".into()));
        assert_eq!(wrong("cat {in.}"), Malformed::Unknown("in.".into()));
        assert_eq!(wrong("awk '{print $1}'"), Malformed::Unknown("print $1".into()));
        assert_eq!(wrong("echo }"), Malformed::Unmatched('}'));
        assert_eq!(wrong("echo {in.a"), Malformed::Unmatched('{'));
    }

    #[test]
    fn doubled_braces_are_braces() {
        assert_eq!(shell("awk '{{print $1}}' {in.a}", "f"), "awk '{print $1}' f");
        assert_eq!(shell("echo ${{HOME}}", ""), "echo ${HOME}");
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
