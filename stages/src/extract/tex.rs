//! LaTeX sources (`.tex`, `.ltx`, Sweave's `.Rnw`) to Markdown: sections as headings, code indented,
//! formulas as they stand.
//!
//! Commands that format are taken off their text; those that name a figure, a label or a citation go,
//! and so do the definitions before `\begin{document}`. Macros are not expanded and other files are not
//! read; a warning says which are missing.

/// Commands whose argument is text in the flow.
const TRANSPARENT: &[&str] = &[
    "emph",
    "textit",
    "textbf",
    "texttt",
    "textsf",
    "textrm",
    "textsl",
    "textsc",
    "text",
    "textup",
    "mbox",
    "underline",
    "code",
    "pkg",
    "proglang",
    "strong",
    "enquote",
    "hbox",
    "uppercase",
    "url",
    "path",
    "centerline",
    "makebox",
    "fbox",
    "abstract",
    "Abstract",
    "author",
    "Author",
    "date",
    "textmd",
    "textnormal",
    "sout",
    "uline",
    "ensuremath",
    "caption",
    "thanks",
    "acknowledgments",
];
/// Commands that go with all their arguments.
const DROPPED: &[&str] = &[
    "label",
    "cite",
    "citep",
    "citet",
    "citealp",
    "citeauthor",
    "citeyear",
    "nocite",
    "ref",
    "eqref",
    "pageref",
    "autoref",
    "cref",
    "Cref",
    "includegraphics",
    "vspace",
    "hspace",
    "setlength",
    "addtolength",
    "bibliographystyle",
    "bibliography",
    "usepackage",
    "newcommand",
    "renewcommand",
    "providecommand",
    "DeclareMathOperator",
    "newtheorem",
    "setcounter",
    "addtocounter",
    "index",
    "pagestyle",
    "thispagestyle",
    "input",
    "include",
    "graphicspath",
    "hypersetup",
    "rule",
    "SweaveOpts",
    "Sexpr",
    "VignetteIndexEntry",
    "theoremstyle",
    "affiliation",
    "email",
    "orcid",
    "vskip",
    "markboth",
    "pagenumbering",
    "definecolor",
    "newenvironment",
    "renewenvironment",
];
/// Formulas on lines of their own.
const DISPLAYS: &[&str] = &[
    "equation",
    "align",
    "eqnarray",
    "gather",
    "multline",
    "displaymath",
    "math",
    "alignat",
    "flalign",
    "subequations",
];
/// Text that is kept as it is.
const CODE: &[&str] = &[
    "verbatim",
    "Verbatim",
    "lstlisting",
    "Sinput",
    "Soutput",
    "Code",
    "CodeInput",
    "CodeOutput",
    "minted",
    "alltt",
    "Scode",
];
/// Environments without text.
const SKIPPED: &[&str] =
    &["tikzpicture", "picture", "comment", "CCSXML", "filecontents", "pspicture"];

/// The Markdown of a source, and what it lacks.
pub fn markdown(source: &str) -> (String, Vec<String>) {
    let body = match source.split_once("\\begin{document}") {
        Some((head, body)) => {
            let title =
                command_argument(head, "title").map(|title| format!("\\title{{{title}}}\n\n"));
            title.unwrap_or_default() + body.split("\\end{document}").next().unwrap_or_default()
        }
        None => source.to_owned(),
    };
    let mut reader = Reader { rest: &body, out: String::new(), warnings: Vec::new() };
    reader.read(None, 0);
    (reader.out, reader.warnings)
}

/// The argument of the first `\name{...}` or `\name[..]{...}` of a text.
fn command_argument<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let at = text
        .match_indices(&format!("\\{name}"))
        .find(|(at, found)| text[at + found.len()..].starts_with(['{', '[']))?;
    let mut rest = &text[at.0 + at.1.len()..];
    group(&mut rest, '[', ']');
    group(&mut rest, '{', '}')
}

/// Takes the group that `rest` begins with, braces balanced; gives what is in it.
fn group<'a>(rest: &mut &'a str, open: char, close: char) -> Option<&'a str> {
    if !rest.starts_with(open) {
        return None;
    }
    let (mut depth, mut escaped) = (0usize, false);
    let end = rest.char_indices().find(|&(_, c)| {
        let plain = !escaped;
        escaped = c == '\\' && plain;
        match c {
            _ if !plain => {}
            c if c == open || c == '{' => depth += 1,
            c if c == close || c == '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0
    });
    let at = end.map_or(rest.len(), |(at, _)| at);
    let inner = &rest[1..at];
    *rest = rest.get(at + 1..).unwrap_or_default();
    Some(inner)
}

/// Text up to `end`, which is taken too.
fn up_to<'a>(rest: &mut &'a str, end: &str) -> &'a str {
    let at = rest.find(end).unwrap_or(rest.len());
    let inner = &rest[..at];
    *rest = rest.get(at + end.len()..).unwrap_or_default();
    inner
}

/// Groups within groups that are read as such.
const DEEPEST: usize = 64;

struct Reader<'a> {
    rest: &'a str,
    out: String,
    warnings: Vec<String>,
}

impl<'a> Reader<'a> {
    /// Reads to the end, or through the brace that closes the group it is in.
    fn read(&mut self, until: Option<char>, deep: usize) {
        while let Some(c) = self.rest.chars().next() {
            let start = self.out.is_empty() || self.out.ends_with('\n');
            let chunk = start && self.rest.starts_with("<<");
            if chunk
                && self.rest.lines().next().is_some_and(|line| line.trim_end().ends_with(">>="))
            {
                up_to(&mut self.rest, "\n");
                let code = up_to(&mut self.rest, "\n@");
                self.code(code);
                continue;
            }
            self.rest = &self.rest[c.len_utf8()..];
            match c {
                '\\' => self.command(deep),
                '%' => {
                    // With its line end, but not where that makes a paragraph.
                    up_to(&mut self.rest, "\n");
                    self.rest = self.rest.trim_start_matches([' ', '\t']);
                }
                '$' => self.formula(),
                '{' if deep < DEEPEST => self.read(Some('}'), deep + 1),
                c if Some(c) == until => return,
                '{' | '}' => {}
                '~' => self.out.push(' '),
                '`' | '\'' if self.rest.starts_with(c) => {
                    self.rest = &self.rest[1..];
                    self.out.push(if c == '`' { '“' } else { '”' });
                }
                '`' => self.out.push('‘'),
                '\'' => self.out.push('’'),
                '-' if self.rest.starts_with("--") => {
                    self.rest = &self.rest[2..];
                    self.out.push('—');
                }
                '-' if self.rest.starts_with('-') => {
                    self.rest = &self.rest[1..];
                    self.out.push('–');
                }
                '&' => self.out.push_str(" | "),
                '\n' => {
                    let blank = self.rest.trim_start_matches([' ', '\t']).starts_with('\n');
                    if blank {
                        self.paragraph();
                        self.rest = self.rest.trim_start();
                    } else if !self.out.ends_with(['\n', ' ']) {
                        self.out.push(' ');
                    }
                }
                ' ' | '\t' if self.out.ends_with([' ', '\n']) => {}
                '#' if start => self.out.push_str("\\#"),
                c => self.out.push(c),
            }
        }
    }

    fn paragraph(&mut self) {
        let kept = self.out.trim_end().len();
        self.out.truncate(kept);
        if !self.out.is_empty() {
            self.out.push_str("\n\n");
        }
    }

    fn code(&mut self, code: &str) {
        self.paragraph();
        for line in code.trim_matches('\n').lines() {
            self.out.push_str("    ");
            self.out.push_str(line);
            self.out.push('\n');
        }
        self.out.push('\n');
    }

    fn display(&mut self, tex: &str) {
        self.paragraph();
        let lines: Vec<&str> = tex.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        self.out.push_str(&format!("$$\n{}\n$$\n\n", lines.join("\n")));
    }

    fn formula(&mut self) {
        if let Some(rest) = self.rest.strip_prefix('$') {
            self.rest = rest;
            let tex = up_to(&mut self.rest, "$$");
            return self.display(tex);
        }
        let mut escaped = false;
        let end = self.rest.char_indices().find(|&(_, c)| {
            let found = c == '$' && !escaped;
            escaped = c == '\\' && !escaped;
            found
        });
        let at = end.map_or(self.rest.len(), |(at, _)| at);
        let tex = self.rest[..at].split_whitespace().collect::<Vec<_>>().join(" ");
        self.out.push_str(&format!("${tex}$"));
        self.rest = self.rest.get(at + 1..).unwrap_or_default();
    }

    fn arguments(&mut self) {
        while group(&mut self.rest, '[', ']').or(group(&mut self.rest, '{', '}')).is_some() {}
    }

    fn command(&mut self, deep: usize) {
        let len = self.rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(self.rest.len());
        let name = &self.rest[..len];
        self.rest = &self.rest[len..];
        if name.is_empty() {
            return self.sign();
        }
        self.rest = self.rest.strip_prefix('*').unwrap_or(self.rest);
        let level = match name {
            "title" => 1,
            "part" | "chapter" | "section" => 2,
            "subsection" => 3,
            "subsubsection" => 4,
            "paragraph" => 5,
            _ => 0,
        };
        match name {
            _ if level > 0 && self.rest.starts_with(['{', '[']) => {
                group(&mut self.rest, '[', ']');
                self.paragraph();
                self.out.push_str(&"#".repeat(level));
                self.out.push(' ');
                self.argument(deep);
                self.paragraph();
            }
            "begin" => self.environment(),
            "end" => {
                self.arguments();
                self.paragraph();
            }
            "item" | "bibitem" => {
                let label = group(&mut self.rest, '[', ']');
                if name == "bibitem" {
                    group(&mut self.rest, '{', '}');
                }
                let kept = self.out.trim_end_matches(' ').len();
                self.out.truncate(kept);
                if !self.out.is_empty() && !self.out.ends_with('\n') {
                    self.out.push('\n');
                }
                self.out.push_str("- ");
                if let Some(label) = label.filter(|_| name == "item") {
                    self.out.push_str(label);
                    self.out.push(' ');
                }
                self.rest = self.rest.trim_start();
            }
            "verb" | "lstinline" if !self.rest.starts_with('{') => {
                let Some(mark) = self.rest.chars().next() else { return };
                self.rest = &self.rest[mark.len_utf8()..];
                let code = up_to(&mut self.rest, mark.encode_utf8(&mut [0; 4]));
                self.out.push_str(code);
            }
            "footnote" => {
                self.out.push_str(" (");
                self.argument(deep);
                self.out.push(')');
            }
            "href" => {
                group(&mut self.rest, '{', '}');
                self.argument(deep);
            }
            "input" | "include" => {
                let file = group(&mut self.rest, '{', '}').unwrap_or_default();
                self.warnings.push(format!("`\\{name}{{{file}}}` was not read"));
            }
            "par" => self.paragraph(),
            "LaTeX" | "TeX" | "BibTeX" => self.out.push_str(name),
            "ldots" | "dots" => self.out.push_str("..."),
            "ss" | "ae" | "o" | "oe" | "aa" | "l" | "O" | "AE" | "AA" | "i" | "j" | "S"
            | "copyright" => {
                let text = match name {
                    "ss" => "ß",
                    "ae" => "æ",
                    "o" => "ø",
                    "oe" => "œ",
                    "aa" => "å",
                    "l" => "ł",
                    "O" => "Ø",
                    "AE" => "Æ",
                    "AA" => "Å",
                    "S" => "§",
                    "copyright" => "©",
                    other => other,
                };
                self.out.push_str(text);
                self.rest = self.rest.strip_prefix(' ').unwrap_or(self.rest);
            }
            "c" | "v" | "u" | "H" | "r" | "k" if self.rest.starts_with('{') => {
                let mark = match name {
                    "c" => '\u{327}',
                    "v" => '\u{30c}',
                    "u" => '\u{306}',
                    "H" => '\u{30b}',
                    "r" => '\u{30a}',
                    _ => '\u{328}',
                };
                self.accent(mark);
            }
            _ if TRANSPARENT.contains(&name) && self.rest.starts_with(['{', '[']) => {
                group(&mut self.rest, '[', ']');
                self.argument(deep);
            }
            _ if DROPPED.contains(&name) => {
                // `\newcommand\x{...}` and `\vskip 1em` have their own manners; the rest is groups.
                if self.rest.starts_with('\\') {
                    let end = self.rest[1..].find(|c: char| !c.is_ascii_alphabetic());
                    self.rest = &self.rest[end.map_or(self.rest.len(), |end| end + 1)..];
                }
                self.arguments();
                // The blank before a citation goes with it.
                let stop = self.rest.starts_with(['.', ',', ';', ':', ')']);
                if stop && self.out.ends_with(' ') {
                    self.out.pop();
                }
            }
            "def" | "gdef" | "let" => {
                let at = self.rest.find('{').unwrap_or(self.rest.len());
                self.rest = &self.rest[at..];
                group(&mut self.rest, '{', '}');
            }
            // A macro: its arguments are most likely text.
            _ => {
                group(&mut self.rest, '[', ']');
                if !self.rest.starts_with('{') {
                    self.rest = self.rest.strip_prefix(' ').unwrap_or(self.rest);
                }
            }
        }
    }

    /// The group that comes next, read as text.
    fn argument(&mut self, deep: usize) {
        if let Some(rest) = self.rest.strip_prefix('{') {
            self.rest = rest;
            if deep < DEEPEST {
                self.read(Some('}'), deep + 1);
            }
        }
    }

    fn sign(&mut self) {
        let Some(sign) = self.rest.chars().next() else { return };
        self.rest = &self.rest[sign.len_utf8()..];
        match sign {
            '\\' => {
                group(&mut self.rest, '[', ']');
                self.out.push('\n');
            }
            '[' => {
                let tex = up_to(&mut self.rest, "\\]");
                self.display(tex);
            }
            '(' => {
                let tex = up_to(&mut self.rest, "\\)");
                self.out.push_str(&format!("${}$", tex.trim()));
            }
            '\'' => self.accent('\u{301}'),
            '`' => self.accent('\u{300}'),
            '^' => self.accent('\u{302}'),
            '"' => self.accent('\u{308}'),
            '~' => self.accent('\u{303}'),
            '=' => self.accent('\u{304}'),
            '.' => self.accent('\u{307}'),
            '-' | '/' | '@' => {}
            ' ' | '\n' | ',' | ';' | ':' | '!' | '>' => self.out.push(' '),
            sign => self.out.push(sign),
        }
    }

    /// A letter with `mark` on it.
    fn accent(&mut self, mark: char) {
        let inner = group(&mut self.rest, '{', '}');
        let text = inner.unwrap_or_else(|| {
            let len = self.rest.chars().next().map_or(0, char::len_utf8);
            let (letter, rest) = self.rest.split_at(len);
            self.rest = rest;
            // `\'\i`
            if letter == "\\" { "\\" } else { letter }
        });
        let mut text = text.trim();
        if text == "\\" || text == "\\i" || text == "\\j" {
            if text == "\\" {
                text = if self.rest.starts_with('j') { "\\j" } else { "\\i" };
                self.rest = self.rest.strip_prefix(['i', 'j']).unwrap_or(self.rest);
                self.rest = self.rest.strip_prefix(' ').unwrap_or(self.rest);
            }
            text = &text[1..];
        }
        let mut chars = text.chars();
        if let Some(letter) = chars.next() {
            self.out.push(letter);
            self.out.push(mark);
        }
        self.out.push_str(chars.as_str());
    }

    fn environment(&mut self) {
        let Some(name) = group(&mut self.rest, '{', '}') else { return };
        let plain = name.trim_end_matches('*');
        let end = format!("\\end{{{name}}}");
        if DISPLAYS.contains(&plain) {
            let tex = up_to(&mut self.rest, &end);
            let several = !matches!(plain, "equation" | "displaymath" | "math");
            // An alignment means nothing outside its environment.
            let tex =
                if several { format!("\\begin{{{name}}}\n{tex}\n{end}") } else { tex.to_owned() };
            self.display(&tex);
        } else if CODE.contains(&plain) {
            let code = up_to(&mut self.rest, &end);
            let options = code.starts_with('[');
            self.code(if options {
                code.split_once('\n').map_or("", |(_, code)| code)
            } else {
                code
            });
        } else if SKIPPED.contains(&plain) {
            up_to(&mut self.rest, &end);
        } else {
            self.paragraph();
            if plain == "abstract" {
                self.out.push_str("## Abstract\n\n");
            }
            self.arguments();
            self.rest = self.rest.trim_start_matches([' ', '\t']);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::plain;
    use super::*;

    fn text(tex: &str) -> String {
        plain::extract(markdown(tex).0.as_bytes(), "a.tex", true).expect("text").0
    }

    #[test]
    fn sections_formulas_lists_and_code() {
        let tex = "\\documentclass{article}\\title{On \\emph{Risk}}\n\\begin{document}\n\\maketitle\n\
            \\section{Data} % a note\nThe ``return'' $r_t = \\log p_t$ of~\\citet{x} is 5\\,\\% --- as\\\n\
            in Poincar\\'e's \\'{\\i}ndex.\\footnote{See below.}\n\n\\begin{equation}\\label{e}\nx = 1\n\
            \\end{equation}\n\\begin{itemize}\n\\item one\n\\item two\n\\end{itemize}\n\
            \\begin{verbatim}\n x <- 1\n\\end{verbatim}\nEnd.\n\\end{document} gone";
        assert_eq!(
            text(tex),
            "# On Risk\n\n## Data\n\nThe “return” $r_t = \\log p_t$ of is 5 % — as in Poincaré’s índex. (See \
             below.)\n\n$$\n\\label{e}\nx = 1\n$$\n\n- one\n- two\n\n     x <- 1\n\nEnd.\n"
        );
    }

    #[test]
    fn what_is_not_read_is_named_and_what_is_open_ends() {
        let (text, warnings) = markdown("a \\input{b} {c \\emph{d");
        assert_eq!(text, "a c d");
        assert_eq!(warnings, ["`\\input{b}` was not read"]);
        let deep = "{".repeat(100_000) + "\\emph{".repeat(1000).as_str() + "x";
        assert!(markdown(&deep).0.contains('x'));
    }
}
