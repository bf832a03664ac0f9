//! Where a text may be cut, and how well: before a section, between paragraphs, between sentences.
//!
//! Lines are grouped into blocks (headings, prose, formulas, tables, code) by how they look, because
//! text from a PDF says no more than that. Formulas, tables and code hold together; so do a heading
//! and what follows it, and a formula and the half sentence around it. A wrong guess about a line
//! moves a cut and loses nothing: a block only holds together while it fits.

use std::collections::BTreeSet;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::sentence;

/// How well a text is cut at a place, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Before a heading, or at the end of the text.
    Section,
    /// Between paragraphs.
    Paragraph,
    /// Between sentences.
    Sentence,
    /// Before a heading, behind what does not end as a sentence: a table or a formula, but perhaps
    /// the heading is none.
    Heading,
    /// Between blocks whose sentence goes on, or does not end as one.
    Break,
    /// Between words.
    Word,
    /// Within a formula, table or piece of code, or behind a heading.
    Block,
    /// Within a word.
    Letter,
}

/// A place where a text may be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Behind the last character before it that is no white space.
    pub end: usize,
    /// The first character after it that is no white space.
    pub start: usize,
    /// How well it cuts.
    pub level: Level,
    /// What follows, up to the next cut, holds together.
    pub solid: bool,
}

/// What a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Heading,
    Prose,
    /// A line that begins a list item.
    Item,
    Formula,
    Table,
    Code,
}

struct Block {
    shape: Shape,
    range: Range<usize>,
    /// A blank line stands before it.
    apart: bool,
}

/// The cuts of a text, in order, its start first and its end last. A text without words has none.
/// `headings` are byte offsets of lines that are headings; without it, lines that begin with `#` are.
pub fn cuts(text: &str, headings: Option<&BTreeSet<usize>>) -> Vec<Cut> {
    let blocks = blocks(text, headings);
    let (Some(first), Some(last)) = (blocks.first(), blocks.last()) else { return Vec::new() };
    let edge = |at: &Block| matches!(at.shape, Shape::Formula | Shape::Table | Shape::Code);
    let mut cuts =
        vec![Cut { end: 0, start: first.range.start, level: Level::Section, solid: edge(first) }];
    for (i, block) in blocks.iter().enumerate() {
        if i > 0 {
            let before = &blocks[i - 1];
            cuts.push(Cut {
                end: before.range.end,
                start: block.range.start,
                level: between(text, before, block),
                solid: edge(block),
            });
        }
        if matches!(block.shape, Shape::Prose | Shape::Item) {
            let inner = sentence::boundaries(&text[block.range.clone()]).into_iter();
            cuts.extend(inner.map(|found| Cut {
                end: block.range.start + found.end,
                start: block.range.start + found.start,
                level: Level::Sentence,
                solid: false,
            }));
        }
    }
    let end = last.range.end;
    cuts.push(Cut { end, start: end, level: Level::Section, solid: false });
    cuts
}

/// How well a text is cut between two blocks.
fn between(text: &str, before: &Block, after: &Block) -> Level {
    if before.shape == Shape::Heading {
        return Level::Block;
    }
    let ends = sentence::ends(&text[before.range.clone()]);
    if after.shape == Shape::Heading {
        return if ends { Level::Section } else { Level::Heading };
    }
    let words = matches!(after.shape, Shape::Prose | Shape::Item);
    let small = words && text[after.range.clone()].starts_with(char::is_lowercase);
    match (ends, after.apart) {
        (true, true) if !small => Level::Paragraph,
        (true, false) if !small => Level::Sentence,
        // "it follows that", the formula, and "where x is": one sentence.
        _ if after.shape == Shape::Formula => Level::Block,
        _ if before.shape == Shape::Formula && small => Level::Block,
        _ => Level::Break,
    }
}

/// Groups the lines of a text into blocks.
fn blocks(text: &str, headings: Option<&BTreeSet<usize>>) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut apart = true;
    let mut fence: Option<Fence> = None;
    let mut at = 0;
    let mut unclosed = BTreeSet::new();
    for line in text.split_inclusive('\n') {
        let begin = at;
        at += line.len();
        let words = line.trim();
        if words.is_empty() {
            apart = true;
            continue;
        }
        let start = begin + (line.len() - line.trim_start().len());
        let range = start..start + words.len();
        if let (Some(open), Some(block)) = (&fence, blocks.last_mut()) {
            block.range.end = range.end;
            if open.closed_by(words) {
                fence = None;
            }
            apart = false;
            continue;
        }
        let heading = match headings {
            Some(offsets) => offsets.range(begin..at).next().is_some(),
            // One that follows a line at once is a comment in code.
            None => apart && is_heading(words),
        };
        let opens = if heading { None } else { Fence::open(words) };
        // One that is never closed is an ordinary line; each is searched for in vain only once.
        let opens = opens.filter(|open| {
            let closes = !unclosed.contains(&open.close) && open.closes_in(&text[at..]);
            if !closes {
                unclosed.insert(open.close.clone());
            }
            closes
        });
        let shape = match &opens {
            Some(open) => open.shape,
            None if heading => Shape::Heading,
            None => shape(line, words),
        };
        let joins = !apart
            && opens.is_none()
            && blocks.last().is_some_and(|last| match last.shape {
                Shape::Heading => false,
                Shape::Item => shape == Shape::Prose,
                Shape::Code => shape != Shape::Heading,
                kept => kept == shape,
            });
        match blocks.last_mut().filter(|_| joins) {
            Some(block) => block.range.end = range.end,
            None => blocks.push(Block { shape, range, apart }),
        }
        fence = opens;
        apart = false;
    }
    blocks
}

/// A block that says itself where it ends.
struct Fence {
    shape: Shape,
    close: String,
}

impl Fence {
    fn open(words: &str) -> Option<Fence> {
        let fence = |shape, close: &str| Some(Fence { shape, close: close.into() });
        for ticks in ["```", "~~~"] {
            if words.starts_with(ticks) {
                return fence(Shape::Code, ticks);
            }
        }
        for (open, close) in [("$$", "$$"), ("\\[", "\\]")] {
            if let Some(rest) = words.strip_prefix(open)
                && !rest.contains(close)
            {
                return fence(Shape::Formula, close);
            }
        }
        let name = words.strip_prefix("\\begin{")?.split('}').next()?;
        let close = format!("\\end{{{name}}}");
        let shape = match name.trim_end_matches('*') {
            "table" | "tabular" | "longtable" => Shape::Table,
            "verbatim" | "lstlisting" | "algorithm" => Shape::Code,
            "equation" | "align" | "gather" | "multline" | "eqnarray" | "displaymath" => {
                Shape::Formula
            }
            _ => return None,
        };
        (!words.contains(&close)).then_some(Fence { shape, close })
    }

    fn closed_by(&self, words: &str) -> bool {
        match self.shape {
            Shape::Code if !self.close.starts_with('\\') => words.starts_with(&self.close),
            _ => words.contains(&self.close),
        }
    }

    fn closes_in(&self, rest: &str) -> bool {
        rest.lines().any(|line| self.closed_by(line.trim()))
    }
}

fn is_heading(words: &str) -> bool {
    let rest = words.trim_start_matches('#');
    (1..=6).contains(&(words.len() - rest.len())) && rest.starts_with(' ')
}

/// What a line looks like by itself.
fn shape(line: &str, words: &str) -> Shape {
    if is_code(line, words) {
        Shape::Code
    } else if is_table(words) {
        Shape::Table
    } else if is_formula(words) {
        Shape::Formula
    } else if is_item(words) {
        Shape::Item
    } else {
        Shape::Prose
    }
}

/// A prompt, or an indented line with a programming language's signs.
fn is_code(line: &str, words: &str) -> bool {
    const SIGNS: [&str; 8] = ["<-", "()", "();", "==", "{", "}", "//", "::"];
    let signs = || SIGNS.iter().any(|sign| words.contains(sign)) || words.ends_with(';');
    ["R> ", ">>> ", "In [", "#!/"].iter().any(|prompt| words.starts_with(prompt))
        || ((words.starts_with("> ") || words.starts_with("+ ")) && signs())
        || ((line.starts_with("    ") || line.starts_with('\t'))
            && signs()
            && !words.contains(". "))
}

/// Cells between bars or tabs, or more numbers than words.
fn is_table(words: &str) -> bool {
    if words.starts_with('|')
        || words.matches(" | ").count() >= 2
        || words.matches('\t').count() >= 2
    {
        return true;
    }
    if !words.bytes().any(|byte| byte.is_ascii_digit()) {
        return false;
    }
    let (mut cells, mut numbers) = (0, 0);
    for cell in words.split_whitespace() {
        let bare = cell.trim_matches(|c: char| "()[]*%$€£,−-+†‡<".contains(c));
        let number = |c: char| c.is_ascii_digit() || c == '.' || c == ',';
        cells += 1;
        numbers += usize::from(!bare.is_empty() && bare.chars().all(number));
    }
    numbers >= 3 && numbers * 2 > cells
}

/// Relations, operators and Greek letters, and hardly a word.
fn is_formula(words: &str) -> bool {
    // Prose is longer than this; the end of a long line decides nothing new.
    if words.len() > 400 {
        return false;
    }
    let (mut relations, mut signs) = (0, 0);
    for c in words.chars() {
        match c {
            '=' | '≤' | '≥' | '≈' | '≡' | '∼' | '∝' | '∈' | '→' | '⇒' | '⇔' | '≠' | '≪' | '≫' => {
                relations += 1
            }
            '<' | '>' | '+' | '^' | '_' | '\\' | '|' | '∑' | '∫' | '∏' | '√' | '∂' | '∇' | '±'
            | '×' | '·' | '∞' | '−' | '⋅' | '∗' => signs += 1,
            'α'..='ω'
            | 'Α'..='Ω'
            | 'ϑ'..='ϵ'
            | '\u{1D400}'..='\u{1D7FF}'
            | '\u{2070}'..='\u{209C}' => signs += 1,
            _ => {}
        }
    }
    // What is left of a formula between its lines: an index, a number, a bracket.
    let scrap = words.len() <= 4;
    if relations + signs == 0 && !scrap && !is_number_of_formula(words) {
        return false;
    }
    let prose = words.split(|c: char| !(c.is_alphabetic() || c == '\\')).filter(|word| {
        word.len() >= 4
            && word.bytes().all(|byte| byte.is_ascii_alphabetic())
            && !matches!(
                *word,
                "with" | "where" | "otherwise" | "subject" | "argmin" | "argmax" | "diag"
            )
            && !matches!(
                *word,
                "tanh" | "sign" | "trace" | "minimize" | "maximize" | "such" | "that"
            )
    });
    match prose.count() {
        0 => relations > 0 || signs > 1 || words.len() <= 12,
        1 | 2 => relations > 0 && relations + signs >= 4,
        _ => false,
    }
}

/// `(12)` or `(A.3)`.
fn is_number_of_formula(words: &str) -> bool {
    let inside = words.strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
    inside.is_some_and(|inside| {
        (1..=6).contains(&inside.len())
            && inside.ends_with(|c: char| c.is_ascii_digit())
            && inside.chars().all(|c| c.is_ascii_digit() || c.is_ascii_uppercase() || c == '.')
    })
}

/// A bullet, or a number or letter with a bracket or a dot.
fn is_item(words: &str) -> bool {
    if let Some(rest) = words.strip_prefix(['-', '*', '•', '–', '·', '◦', '▪']) {
        return rest.starts_with(' ');
    }
    let bare = words.strip_prefix('(').unwrap_or(words);
    let rest = bare.trim_start_matches(|c: char| c.is_ascii_digit());
    let mark = match (bare.len() - rest.len(), rest.as_bytes()) {
        (1 | 2, _) => rest,
        (0, [b'a'..=b'z', b')', ..]) => &rest[1..],
        _ => return false,
    };
    mark.starts_with(") ") || mark.starts_with(". ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What stands between the cuts, each with the level of the cut before it.
    fn levels(text: &str) -> Vec<(Level, &str)> {
        let cuts = cuts(text, None);
        cuts.windows(2).map(|pair| (pair[0].level, &text[pair[0].start..pair[1].end])).collect()
    }

    #[test]
    fn sections_paragraphs_and_sentences_are_told_apart() {
        use Level::*;
        let text = "# One\n\nFirst here. Second\nline.\n\nNext one.\n\n## Two\nAnd so on\n";
        let expected = [
            (Section, "# One"),
            (Block, "First here."),
            (Sentence, "Second\nline."),
            (Paragraph, "Next one."),
            (Section, "## Two"),
            (Block, "And so on"),
        ];
        assert_eq!(levels(text), expected);
        assert_eq!(levels("  \n\n"), []);
    }

    #[test]
    fn a_formula_holds_together_with_its_sentence() {
        use Level::*;
        let text = "The price is\n\ny = α + βx + ε,\nσ² ≥ 0, (12)\n\nwhere α is small. It holds.\n\n\
                    The loss is\nL = Σ_t (y_t − ŷ_t)²\nSo it falls.";
        let expected = [
            (Section, "The price is"),
            (Block, "y = α + βx + ε,\nσ² ≥ 0, (12)"),
            (Block, "where α is small."),
            (Sentence, "It holds."),
            (Paragraph, "The loss is"),
            (Block, "L = Σ_t (y_t − ŷ_t)²"),
            (Break, "So it falls."),
        ];
        assert_eq!(levels(text), expected);
        let solid: Vec<bool> = cuts(text, None).iter().map(|cut| cut.solid).collect();
        assert_eq!(solid, [false, true, false, false, false, true, false, false]);
    }

    #[test]
    fn tables_and_code_are_blocks() {
        use Level::*;
        let text = "As shown:\n\nAlpha 0.12 1.50 (2.3)\nBeta 3.4 5.1 6.7\n\n```r\nx <- 1. Then\n\ny\n```\n\n\
                    | a | b |\n|---|---|\n\nR> summary(fit)\nCall. It is:\n\nDone. \\begin{align}";
        let expected = [
            (Section, "As shown:"),
            (Break, "Alpha 0.12 1.50 (2.3)\nBeta 3.4 5.1 6.7"),
            (Break, "```r\nx <- 1. Then\n\ny\n```"),
            (Break, "| a | b |\n|---|---|"),
            (Break, "R> summary(fit)\nCall. It is:"),
            (Break, "Done. \\begin{align}"),
        ];
        assert_eq!(levels(text), expected);
    }

    #[test]
    fn a_paragraph_that_a_page_interrupts_is_no_paragraph() {
        use Level::*;
        let text = "It goes over\n\nthe page. Here.\n\n- one item\n- two. Items\n";
        let expected = [
            (Section, "It goes over"),
            (Break, "the page."),
            (Sentence, "Here."),
            (Paragraph, "- one item"),
            (Break, "- two."),
            (Sentence, "Items"),
        ];
        assert_eq!(levels(text), expected);
    }

    #[test]
    fn a_fence_without_end_is_a_line() {
        use Level::*;
        let text = "```python\nOne. Two.\n\n$$ Also\nThree.\n\\[\nx\n\\]";
        let expected = [
            (Section, "```python\nOne."),
            (Sentence, "Two."),
            (Paragraph, "$$ Also\nThree."),
            (Sentence, "\\[\nx\n\\]"),
        ];
        assert_eq!(levels(text), expected);
    }

    #[test]
    fn prose_with_numbers_and_signs_is_prose() {
        for line in [
            "The ratio is 1.5 in 2008 and 2009, at p < 0.05, with α = 1.",
            "Let x = y + z denote the return of the market portfolio.",
            "We use 3 of 4 factors; see Table 2.",
        ] {
            assert_eq!(shape(line, line), Shape::Prose, "{line}");
        }
        for line in
            ["r_t = μ + ε_t", "∑_{i=1}^N w_i = 1, w_i ≥ 0 (3)", "x = argmin f(x) subject to Ax ≤ b"]
        {
            assert_eq!(shape(line, line), Shape::Formula, "{line}");
        }
    }

    #[test]
    fn given_headings_replace_the_guess() {
        let text = "# not one.\n\nMethods\nText.";
        let at: BTreeSet<usize> = [12].into();
        let cuts = cuts(text, Some(&at));
        assert_eq!(cuts[1].level, Level::Section);
        assert_eq!(cuts[1].start, 12);
    }
}
