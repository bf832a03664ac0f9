//! The report as a document: sections of words, tables and figures, of which HTML and Markdown are two
//! renderings. It knows nothing of what it says.

use serde::Serialize;

use super::assessment::Sample;
use super::charts::Figure;

/// A numbered section.
#[derive(Clone, Debug, Serialize)]
pub struct Section {
    /// Its number; `None` of what stands behind the protocol.
    pub number: Option<usize>,
    /// Its title.
    pub title: String,
    /// What is in it.
    pub blocks: Vec<Block>,
}

/// A part of a section.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "kind", content = "of", rename_all = "lowercase")]
pub enum Block {
    /// A paragraph.
    Words(String),
    /// A paragraph that must not be overlooked.
    Alarm(String),
    /// A heading within the section.
    Heading(String),
    /// Points.
    List(Vec<String>),
    /// A table.
    Table(Table),
    /// Figures side by side.
    Figures(Vec<Figure>),
    /// Prompts with their answers.
    Samples(Vec<Sample>),
    /// Text to the character.
    Code(String),
    /// A page beside this one: its file, and what it is called.
    Link(String, String),
}

/// A table, the first column of which names its rows.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Table {
    /// How it is set: `metrics` (narrow cells), `facts` (words) or nothing.
    pub look: &'static str,
    /// Headings of the columns; none of a list of facts.
    pub head: Vec<String>,
    /// The rows.
    pub rows: Vec<Row>,
    /// Whether the last column holds sentences.
    pub words: bool,
    /// Whether the first column of cells is the model's.
    pub model: bool,
}

/// A row of a table.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Row {
    /// What it is.
    pub name: String,
    /// More of it, in small.
    pub note: String,
    /// Its cells.
    pub cells: Vec<String>,
}

impl Row {
    /// A row without a note.
    pub fn new<C: Into<String>>(
        name: impl Into<String>,
        cells: impl IntoIterator<Item = C>,
    ) -> Row {
        let cells = cells.into_iter().map(Into::into).collect();
        Row { name: name.into(), note: String::new(), cells }
    }
}

impl Table {
    /// A table with headings.
    pub fn new(head: &[&str], rows: Vec<Row>) -> Table {
        Table { head: head.iter().map(ToString::to_string).collect(), rows, ..Table::default() }
    }

    /// Facts by name, a sentence each.
    pub fn facts<N: Into<String>, V: Into<String>>(facts: Vec<(N, V)>) -> Table {
        let rows = facts.into_iter().map(|(name, value)| Row::new(name, [value.into()])).collect();
        Table { look: "facts", rows, ..Table::default() }
    }

    /// The same, with sentences in the last column.
    pub fn with_words(mut self) -> Table {
        self.words = true;
        self
    }
}

/// Text as it is, with what cannot be seen made visible.
pub fn visible(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '\n' => out.push_str("⏎\n"),
            '\t' => out.push('⇥'),
            c if hidden(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out
}

fn hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// The document as Markdown (CommonMark, with the tables of GitHub): every word and number of the
/// page; of a figure its title and caption.
pub fn markdown(title: &str, lead: &[String], sections: &[Section]) -> String {
    let mut out = format!("# {}\n", escaped(title));
    for words in lead {
        out += &format!("\n{}\n", escaped(words));
    }
    for section in sections {
        match section.number {
            Some(n) => out += &format!("\n## {n}. {}\n", escaped(&section.title)),
            None => out += &format!("\n## {}\n", escaped(&section.title)),
        }
        for block in &section.blocks {
            out.push('\n');
            add(&mut out, block);
        }
    }
    out
}

fn add(out: &mut String, block: &Block) {
    match block {
        Block::Words(text) => *out += &format!("{}\n", escaped(text)),
        Block::Alarm(text) => *out += &format!("**{}**\n", escaped(text)),
        Block::Heading(text) => *out += &format!("### {}\n", escaped(text)),
        Block::List(points) => {
            points.iter().for_each(|point| *out += &format!("- {}\n", escaped(point)));
        }
        Block::Code(text) => indented(out, text),
        Block::Link(file, name) => *out += &format!("[{}]({file})\n", escaped(name)),
        Block::Figures(figures) => {
            for figure in figures {
                *out += &format!("*{}.* {}\n\n", escaped(&figure.title), escaped(&figure.caption));
            }
        }
        Block::Samples(samples) => {
            for sample in samples {
                *out += &format!("**{}**\n\n", escaped(&sample.date));
                indented(out, &sample.prompt);
                out.push('\n');
                for (source, raw, action) in &sample.answers {
                    let (source, action) = (escaped(source), escaped(action));
                    *out += &format!("{source}, read as {action}:\n\n");
                    indented(out, raw);
                    out.push('\n');
                }
            }
        }
        Block::Table(table) => {
            let width = table.rows.iter().map(|r| r.cells.len() + 1).max().unwrap_or(1);
            let head = |i: usize| table.head.get(i).map(|h| cell(h)).unwrap_or_default();
            let heads: Vec<String> = (0..width).map(head).collect();
            *out += &format!("| {} |\n|{}\n", heads.join(" | "), " --- |".repeat(width));
            for row in &table.rows {
                let note = match row.note.is_empty() {
                    true => String::new(),
                    false => format!(" ({})", row.note),
                };
                let mut cells = vec![cell(&format!("{}{note}", row.name))];
                cells.extend(row.cells.iter().map(|c| cell(c)));
                *out += &format!("| {} |\n", cells.join(" | "));
            }
        }
    }
}

/// As code, so that it means nothing; what cannot be seen is made visible.
fn indented(out: &mut String, text: &str) {
    for line in text.lines() {
        *out += &format!("    {}\n", visible(line));
    }
}

fn cell(text: &str) -> String {
    escaped(text).replace('|', "\\|").replace('\n', " ")
}

/// Text whose characters mean themselves, but for backticks in pairs, between which it is code.
fn escaped(text: &str) -> String {
    let paired = text.matches('`').count().is_multiple_of(2);
    let mut code = false;
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        code ^= c == '`';
        let special = matches!(c, '\\' | '*' | '_' | '[' | ']' | '<' | '&' | '#');
        if (special && !(code && paired)) || (c == '`' && !paired) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hides_is_shown() {
        assert_eq!(visible(" flat\n"), " flat⏎\n");
        assert_eq!(visible("a\u{202e}b\u{0}"), "a\\u{202e}b\\u{0}");
        assert_eq!(visible("é 中 😀"), "é 中 😀");
    }

    #[test]
    fn markdown_means_what_it_says() {
        let table = Table::new(&["What", "a|b"], vec![Row::new("x_y", ["1|2", "<b>"])]);
        let sections = [Section {
            number: Some(3),
            title: "Causality".into(),
            blocks: vec![
                Block::Words("a * b, `c_d` [e]".into()),
                Block::Table(table),
                Block::List(vec!["one".into()]),
                Block::Code("x\n# y".into()),
            ],
        }];
        let text = markdown("T", &["lead".into()], &sections);
        assert_eq!(
            text,
            "# T\n\nlead\n\n## 3. Causality\n\na \\* b, `c_d` \\[e\\]\n\n| What | a\\|b |  |\n| --- | --- | --- |\n| x\\_y | 1\\|2 | \\<b> |\n\n- one\n\n    x\n    # y\n"
        );
    }
}
