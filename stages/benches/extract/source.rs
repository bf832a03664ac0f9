//! The prose of a LaTeX source (`.tex`, `.ltx`, `.Rnw`): runs of words that stand in the paper
//! exactly so, one after the other.
//!
//! Whatever may print as something else ends a run: maths, a citation, an unknown command, a code
//! chunk, an accent. A word that touches such a place is dropped, for only a part of it is known.
//! Arguments of unknown commands are not read. So a run is short rather than wrong.

/// Commands whose argument prints as it is, in the flow of the text.
const INLINE: &[&str] = &[
    "emph",
    "textit",
    "textbf",
    "textsf",
    "textrm",
    "textsl",
    "textup",
    "text",
    "mbox",
    "pkg",
    "proglang",
    "class",
    "strong",
    "dfn",
    "underline",
    "textmd",
    "textnormal",
];
/// Commands whose argument prints somewhere, apart from the text around it.
const APART: &[&str] = &[
    "chapter",
    "section",
    "subsection",
    "subsubsection",
    "paragraph",
    "subparagraph",
    "caption",
    "footnote",
    "title",
    "section*",
    "subsection*",
    "subsubsection*",
    "chapter*",
    "paragraph*",
    "abstract",
    "Abstract",
];
/// Environments that do not hold prose.
const SKIPPED: &[&str] = &[
    "equation",
    "align",
    "eqnarray",
    "gather",
    "multline",
    "displaymath",
    "math",
    "tabular",
    "tabularx",
    "longtable",
    "array",
    "verbatim",
    "Verbatim",
    "lstlisting",
    "Sinput",
    "Soutput",
    "Schunk",
    "Scode",
    "alltt",
    "Code",
    "CodeInput",
    "CodeOutput",
    "CodeChunk",
    "minted",
    "filecontents",
    "comment",
    "CCSXML",
    "tikzpicture",
    "picture",
    "alignat",
    "flalign",
    "split",
    "subequations",
    "table",
    "deluxetable",
    "tabu",
    "dmath",
    "IEEEeqnarray",
    "example",
    "VerbatimOut",
    "semiverbatim",
    "thebibliography",
    "references",
    "lstcode",
    "LTXexample",
    "widetext",
    "algorithm",
    "algorithmic",
    "pseudocode",
    "tabbing",
    "sidewaystable",
    "supertabular",
    "titlepage",
    "cases",
];

/// Runs of words, in order.
pub fn prose(source: &str) -> Vec<Vec<String>> {
    let text = without_comments(source);
    let start = text.find("\\begin{document}").map_or(0, |at| at + 16);
    let end = text.find("\\end{document}").unwrap_or(text.len());
    let body = without_chunks(text.get(start..end.max(start)).unwrap_or_default());
    let mut reader = Reader {
        chars: super::measure::without_accents(&body).collect(),
        at: 0,
        out: Vec::new(),
        run: Run::default(),
    };
    reader.read(0);
    reader.end_run(false);
    reader.out.retain(|run| !run.is_empty());
    reader.out
}

/// From an unescaped `%` to the end of the line, with the line end.
fn without_comments(source: &str) -> String {
    let mut out = String::new();
    for line in source.lines() {
        let mut escaped = false;
        let cut = line.char_indices().find(|&(_, c)| {
            let found = c == '%' && !escaped;
            escaped = c == '\\' && !escaped;
            found
        });
        match cut {
            Some((at, _)) => out.push_str(&line[..at]),
            None => {
                out.push_str(line);
                out.push('\n');
            }
        }
    }
    out
}

/// Without the code chunks of Sweave.
fn without_chunks(text: &str) -> String {
    let (mut out, mut code) = (String::new(), false);
    for line in text.lines() {
        let open = line.starts_with("<<") && line.trim_end().ends_with(">>=");
        if open {
            out.push_str("\\chunk\n\n");
        }
        let close = code && line.starts_with('@');
        code = (code || open) && !close;
        if !code && !close {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

#[derive(Default)]
struct Run {
    words: Vec<String>,
    word: String,
    /// The word began at something unknown.
    tainted: bool,
}

struct Reader {
    chars: Vec<char>,
    at: usize,
    out: Vec<Vec<String>>,
    run: Run,
}

impl Reader {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn end_word(&mut self) {
        let word = std::mem::take(&mut self.run.word);
        if self.run.tainted {
            // A part of an unknown word: what follows is not next to what came before.
            self.run.tainted = false;
            self.out.push(std::mem::take(&mut self.run.words));
        } else if !word.is_empty() {
            self.run.words.push(word);
        }
    }

    /// Ends the run. `touching`: what ends it may go on the word before it and the one after.
    fn end_run(&mut self, touching: bool) {
        if touching {
            self.run.word.clear();
        } else {
            self.end_word();
        }
        self.out.push(std::mem::take(&mut self.run.words));
        self.run.tainted = touching;
    }

    /// Reads to the end, or to the brace that closes `depth` > 0.
    fn read(&mut self, depth: usize) {
        while let Some(c) = self.peek() {
            self.at += 1;
            match c {
                '\\' => self.command(depth),
                '$' => self.maths(),
                '}' if depth > 0 => return,
                '\n' => {
                    let blank = self.chars[self.at..].iter().take_while(|c| c.is_whitespace());
                    if blank.into_iter().any(|c| *c == '\n') {
                        self.end_run(false)
                    } else {
                        self.end_word()
                    }
                }
                '~' => self.end_word(),
                '-' if self.peek() == Some('-') => {
                    self.end_word();
                    while self.peek() == Some('-') {
                        self.at += 1;
                    }
                }
                '-' | '\'' | '\u{ad}' => {}
                '{' | '}' | '&' | '|' | '<' | '>' | '=' | '+' | '*' | '@' | '#' | '^' | '_' => {
                    self.end_run(true)
                }
                c if c.is_alphabetic() => self.run.word.extend(c.to_lowercase()),
                _ => self.end_word(),
            }
        }
    }

    fn maths(&mut self) {
        self.end_run(true);
        let double = self.peek() == Some('$');
        self.at += usize::from(double);
        while let Some(c) = self.peek() {
            self.at += 1;
            match c {
                '\\' => self.at += 1,
                '$' => {
                    self.at += usize::from(double && self.peek() == Some('$'));
                    return;
                }
                _ => {}
            }
        }
    }

    fn skip_to(&mut self, end: &str) {
        let end: Vec<char> = end.chars().collect();
        let rest = self.chars.get(self.at..).unwrap_or_default();
        let found = rest.windows(end.len()).position(|window| window == end);
        self.at += found.map_or(rest.len(), |at| at + end.len());
    }

    /// The group that begins here, braces balanced, without them.
    fn group(&mut self, open: char, close: char) -> Option<String> {
        if self.peek() != Some(open) {
            return None;
        }
        let (start, mut depth) = (self.at + 1, 0usize);
        while let Some(c) = self.peek() {
            self.at += 1;
            match c {
                '\\' => self.at += 1,
                c if c == open || c == '{' => depth += 1,
                c if c == close || c == '}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
        let end = self.at.saturating_sub(1).clamp(start.min(self.chars.len()), self.chars.len());
        Some(self.chars[start.min(end)..end].iter().collect())
    }

    fn arguments(&mut self) {
        while self.group('{', '}').is_some() || self.group('[', ']').is_some() {}
    }

    fn command(&mut self, depth: usize) {
        let start = self.at;
        while self.peek().is_some_and(char::is_alphabetic) {
            self.at += 1;
        }
        if self.at > start && self.peek() == Some('*') {
            self.at += 1;
        }
        let name: String = self.chars[start..self.at].iter().collect();
        if name.is_empty() {
            let Some(sign) = self.peek() else { return };
            self.at += 1;
            return match sign {
                '\\' => {
                    self.end_run(false);
                    if self.peek() == Some('[') {
                        self.group('[', ']');
                    }
                }
                ' ' | '\n' | '&' | '%' | '$' | '#' => self.end_word(),
                '/' | '-' => {}
                '[' | '(' => {
                    self.end_run(true);
                    self.skip_to(if sign == '[' { "\\]" } else { "\\)" });
                }
                _ => self.end_run(true),
            };
        }
        match name.as_str() {
            "begin" => {
                self.end_run(false);
                let Some(name) = self.group('{', '}') else { return };
                if SKIPPED.contains(&name.trim_end_matches('*')) {
                    self.skip_to(&format!("\\end{{{name}}}"));
                } else {
                    self.arguments();
                }
            }
            "end" => {
                self.end_run(false);
                self.arguments();
            }
            "verb" | "verb*" | "lstinline" | "code" if self.peek() != Some('{') => {
                self.end_run(true);
                if let Some(mark) = self.peek() {
                    self.at += 1;
                    self.skip_to(&mark.to_string());
                }
            }
            "def" | "gdef" | "edef" | "xdef" => {
                self.end_run(true);
                while self.peek().is_some_and(|c| c != '{') {
                    self.at += 1;
                }
                self.group('{', '}');
            }
            // Which branch prints is not known.
            name if name.starts_with("if") && !matches!(name, "iff" | "ifthenelse") => {
                self.end_run(true);
                self.skip_to("\\fi");
            }
            name if INLINE.contains(&name) && self.peek() == Some('{') => {
                self.at += 1;
                self.read(depth + 1);
            }
            name if APART.contains(&name) => {
                self.end_run(true);
                self.run.tainted = false;
                self.group('[', ']');
                if self.peek() == Some('{') && depth < 16 {
                    self.at += 1;
                    self.read(depth + 1);
                }
                self.end_run(false);
            }
            _ => {
                self.end_run(true);
                self.arguments();
            }
        }
    }
}
