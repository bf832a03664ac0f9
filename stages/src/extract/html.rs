//! HTML to Markdown: headings, paragraphs, lists, code and tables by rows; formulas as TeX.
//!
//! It reads tags as they come and builds no tree, so nothing that a page leaves open or closes twice
//! can lose text. Scripts, styles, navigation and forms are left out. It does not render: a page that
//! is written by scripts has no text here.

/// Elements whose content is no text.
const HIDDEN: &[&str] = &[
    "script", "style", "noscript", "template", "svg", "head", "nav", "form", "button", "select",
    "iframe", "object", "canvas", "textarea", "footer",
];
/// Elements that have no end.
const VOID: &[&str] = &["br", "hr", "img", "input", "meta", "link", "wbr", "col", "source", "base"];
/// Elements that stand on lines of their own.
const BLOCKS: &[&str] = &[
    "p",
    "div",
    "section",
    "article",
    "main",
    "header",
    "aside",
    "ul",
    "ol",
    "dl",
    "table",
    "thead",
    "tbody",
    "figure",
    "figcaption",
    "blockquote",
    "address",
    "body",
    "html",
    "details",
    "summary",
    "center",
    "caption",
];

struct Writer {
    out: String,
    /// Elements without text that are open.
    hidden: Vec<String>,
    /// `pre` elements that are open.
    code: usize,
    /// The TeX of the formula that is open, and its elements that are.
    formula: Option<(String, usize)>,
    /// The page's own title, where no heading comes.
    title: String,
    in_title: bool,
}

/// The Markdown of a page.
pub fn markdown(source: &str) -> String {
    let mut writer = Writer {
        out: String::new(),
        hidden: Vec::new(),
        code: 0,
        formula: None,
        title: String::new(),
        in_title: false,
    };
    let mut rest = source;
    while let Some(at) = rest.find('<') {
        writer.text(&rest[..at]);
        rest = &rest[at..];
        if let Some(comment) = rest.strip_prefix("<!--") {
            rest = comment.find("-->").map_or("", |end| &comment[end + 3..]);
        } else if let Some((tag, after)) = tag(rest) {
            rest = after;
            // What stands in a script is not HTML.
            if matches!(tag.name.as_str(), "script" | "style" | "textarea") && !tag.closes {
                let end = format!("</{}", tag.name);
                let lower = rest.to_ascii_lowercase();
                rest = lower.find(&end).map_or("", |at| &rest[at..]);
            } else if !matches!(tag.name.as_str(), "script" | "style" | "textarea") {
                writer.tag(&tag);
            }
        } else {
            // `<` as a sign, or `<!doctype`.
            let skip = if rest.starts_with("<!") || rest.starts_with("<?") {
                rest.find('>').map_or(rest.len(), |at| at + 1)
            } else {
                writer.text("<");
                1
            };
            rest = &rest[skip..];
        }
    }
    writer.text(rest);
    let title = writer.title.split_whitespace().collect::<Vec<_>>().join(" ");
    let headed = writer.out.lines().any(|line| line.starts_with("# "));
    if headed || title.is_empty() { writer.out } else { format!("# {title}\n\n{}", writer.out) }
}

struct Tag<'a> {
    name: String,
    closes: bool,
    /// It ends itself: `<br/>`.
    empty: bool,
    attributes: &'a str,
}

/// The tag that begins here and what comes after it.
fn tag(source: &str) -> Option<(Tag<'_>, &str)> {
    let inner = source.strip_prefix('<')?;
    let (closes, inner) = match inner.strip_prefix('/') {
        Some(inner) => (true, inner),
        None => (false, inner),
    };
    let len = inner.find(|c: char| !c.is_ascii_alphanumeric() && c != ':' && c != '-');
    let (name, after) = inner.split_at(len.unwrap_or(inner.len()));
    if !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return None;
    }
    // `>` may stand in a quoted attribute.
    let mut quote = None;
    let end = after.char_indices().find(|&(_, c)| {
        match quote {
            Some(open) if c == open => quote = None,
            None if c == '"' || c == '\'' => quote = Some(c),
            None if c == '>' => return true,
            _ => {}
        }
        false
    });
    let (attributes, rest) = match end {
        Some((at, _)) => (&after[..at], &after[at + 1..]),
        None => (after, ""),
    };
    let name = name.to_ascii_lowercase();
    let empty = attributes.ends_with('/') || VOID.contains(&name.as_str());
    Some((Tag { name, closes, empty, attributes }, rest))
}

impl Tag<'_> {
    /// The value of an attribute.
    fn attribute(&self, name: &str) -> Option<String> {
        let at = self.attributes.find(&format!("{name}="))?;
        let value = &self.attributes[at + name.len() + 1..];
        let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''));
        let value = match quote {
            Some(quote) => value[1..].split(quote).next(),
            None => value.split_whitespace().next(),
        };
        value.map(|value| html_escape::decode_html_entities(value).into_owned())
    }
}

impl Writer {
    fn text(&mut self, raw: &str) {
        if raw.is_empty() {
            return;
        }
        let text = html_escape::decode_html_entities(raw);
        if self.in_title {
            self.title.push_str(&text);
        }
        if !self.hidden.is_empty() {
            return;
        }
        if let Some((tex, _)) = &mut self.formula {
            tex.push_str(&text);
        } else if self.code > 0 {
            self.out.push_str(&text.replace('\n', "\n    "));
        } else {
            for part in text.split_inclusive(|c: char| c.is_ascii_whitespace()) {
                let word = part.trim_end_matches(|c: char| c.is_ascii_whitespace());
                if self.out.ends_with('\n') && word.starts_with('#') {
                    self.out.push('\\');
                }
                self.out.push_str(word);
                if word.len() < part.len()
                    && !self.out.ends_with([' ', '\n'])
                    && !self.out.is_empty()
                {
                    self.out.push(' ');
                }
            }
        }
    }

    /// Begins a new line, `blank` with an empty one before it.
    fn line(&mut self, blank: bool) {
        let kept = self.out.trim_end_matches(' ').len();
        self.out.truncate(kept);
        let want = if blank { "\n\n" } else { "\n" };
        while !self.out.is_empty() && !self.out.ends_with(want) {
            self.out.push('\n');
        }
    }

    fn tag(&mut self, tag: &Tag<'_>) {
        let name = tag.name.as_str();
        if name == "title" && self.formula.is_none() {
            self.in_title = !tag.closes && self.title.is_empty();
        }
        if self.formula(tag) {
            return;
        }
        if HIDDEN.contains(&name) {
            if !tag.closes && !tag.empty {
                self.hidden.push(tag.name.clone());
            } else if let Some(at) = self.hidden.iter().rposition(|open| open == name) {
                self.hidden.truncate(at);
            }
            return;
        }
        // A body ends whatever the head left open.
        if name == "body" {
            self.hidden.clear();
        }
        if !self.hidden.is_empty() {
            return;
        }
        match (name, tag.closes) {
            ("h1" | "h2" | "h3" | "h4" | "h5" | "h6", false) => {
                self.line(true);
                let level = usize::from(name.as_bytes()[1] - b'0');
                self.out.push_str(&"#".repeat(level));
                self.out.push(' ');
            }
            ("h1" | "h2" | "h3" | "h4" | "h5" | "h6", true) => self.line(true),
            ("pre", false) => {
                self.line(true);
                self.out.push_str("    ");
                self.code += 1;
            }
            ("pre", true) => {
                self.code = self.code.saturating_sub(1);
                self.line(true);
            }
            ("li", false) => {
                self.line(false);
                self.out.push_str("- ");
            }
            ("td" | "th", true) => self.out.push_str(" | "),
            ("tr", true) => {
                let kept = self.out.trim_end_matches([' ', '|']).len();
                self.out.truncate(kept);
                self.line(false);
            }
            ("br" | "tr" | "dt" | "dd" | "li", _) => self.line(false),
            ("sub", false) => self.out.push_str("_{"),
            ("sup", false) => self.out.push_str("^{"),
            ("sub" | "sup", true) => self.out.push('}'),
            _ if BLOCKS.contains(&name) && self.code == 0 => self.line(true),
            _ => {}
        }
    }

    /// MathML: its TeX, where the page gives it. True where the tag is part of a formula.
    fn formula(&mut self, tag: &Tag<'_>) -> bool {
        match (tag.name.as_str(), tag.closes) {
            ("math", false) if self.hidden.is_empty() => {
                if let Some(tex) = tag.attribute("alttext") {
                    let mark = if tag.attribute("display").as_deref() == Some("block") {
                        "$$"
                    } else {
                        "$"
                    };
                    self.out.push_str(&format!("{mark}{}{mark}", tex.trim()));
                    self.hidden.push("math".into());
                } else {
                    self.formula = Some((String::new(), 0));
                }
                true
            }
            ("math", true) => {
                if let Some((text, _)) = self.formula.take() {
                    self.out.push_str(&text.split_whitespace().collect::<Vec<_>>().join(" "));
                }
                if let Some(at) = self.hidden.iter().rposition(|open| open == "math") {
                    self.hidden.truncate(at);
                }
                true
            }
            ("annotation", false) if self.formula.is_some() => {
                // The presentation before it says the same.
                self.formula = Some((String::from("$"), 0));
                true
            }
            ("annotation", true) if self.formula.is_some() => {
                if let Some((tex, _)) = &mut self.formula {
                    *tex = format!("{}$", tex.trim());
                }
                true
            }
            _ => self.formula.is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::plain;
    use super::*;

    fn text(html: &str) -> String {
        plain::extract(markdown(html).as_bytes(), "a.html", true).expect("text").0
    }

    #[test]
    fn headings_paragraphs_lists_and_tables() {
        let html = "<!DOCTYPE html><html><head><title>Not shown</title><style>p{}</style></head><body>\
            <nav>menu</nav><h1>Title &amp; more</h1><p>One\n  <b>bold</b> word<p>Two<ul><li>a<li>b</ul>\
            <table><tr><td>1</td><td>2</td></tr></table><pre>x &lt; 1\n  y</pre>x<sub>t</sub>\
            <script>if (a < b) { '</p>' }</script></body></html>";
        assert_eq!(
            text(html),
            "# Title & more\n\nOne bold word\n\nTwo\n\n- a\n- b\n\n1 | 2\n\n    x < 1\n      y\n\nx_{t}\n"
        );
    }

    #[test]
    fn formulas_are_tex_where_the_page_says_it() {
        let html = "<p>So <math alttext=\"x &gt; \\alpha\"><mi>x</mi></math> and \
            <math><semantics><mi>y</mi><annotation encoding=\"application/x-tex\">y_1</annotation></semantics></math>.";
        assert_eq!(text(html), "So $x > \\alpha$ and $y_1$.\n");
    }

    #[test]
    fn a_title_heads_a_page_without_headings_and_broken_tags_lose_nothing() {
        assert_eq!(
            text("<head><title> A\n page </title><body>a < b </i></p> c <x"),
            "# A page\n\na < b\n\nc\n"
        );
    }
}
