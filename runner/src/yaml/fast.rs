//! Reads the YAML that nearly every pipeline file is written in, several times faster than the
//! general parser, and gives up on the rest.
//!
//! It knows block maps and lists, flow maps and lists, plain and quoted scalars of one line,
//! `|` and `|-` blocks, and comments. On anything else (anchors, tags, folded text, tabs, empty
//! values, and whatever is wrong) it returns nothing, and the general parser decides. What it does
//! return is what the general parser returns, places included; a test holds the two together.

use std::collections::HashMap;

use super::{Key, Scalars, Value, Yaml};
use crate::diagnostic::{Problem, Span};

/// How deep maps and lists may nest here.
const DEPTH: usize = 60;
/// From how many entries on a map's names are looked up by hash.
const FEW: usize = 12;

/// The tree and its problems, or nothing.
pub fn read(text: &str, source: usize) -> Option<(Yaml, Vec<Problem>)> {
    // Without a branch, so that it goes over many bytes at a time.
    let odd = |odd, b: &u8| odd | ((*b < b' ') & (*b != b'\n')) | (*b == 0x7f);
    let breaks = ['\u{feff}', '\u{85}', '\u{2028}', '\u{2029}'];
    if text.bytes().fold(false, |found, b| odd(found, &b))
        || (!text.is_ascii() && text.contains(breaks))
    {
        return None;
    }
    let mut problems = Vec::new();
    let scalars = Scalars { text, source, problems: &mut problems };
    let (entries, items) = (Vec::new(), Vec::new());
    let mut fast = Fast { text, bytes: text.as_bytes(), at: 0, scalars, entries, items };
    let indent = fast.next_line()?;
    let tree = fast.block(indent, None, DEPTH)?;
    fast.next_line().is_none().then_some((tree, problems))
}

struct Fast<'t> {
    text: &'t str,
    bytes: &'t [u8],
    at: usize,
    scalars: Scalars<'t>,
    /// Entries of the maps that are open, each behind those of the map around it: what a map takes
    /// with it in the end is as long as it must be.
    entries: Vec<(Key, Yaml)>,
    /// The same for lists.
    items: Vec<Yaml>,
}

impl<'t> Fast<'t> {
    fn byte(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn ahead(&self, n: usize) -> Option<u8> {
        self.bytes.get(self.at + n).copied()
    }

    fn spaces(&mut self) -> usize {
        let start = self.at;
        while self.byte() == Some(b' ') {
            self.at += 1;
        }
        self.at - start
    }

    /// From the start of a line to the first character of the next line with content, and its
    /// indentation. Nothing at the end of the text, and before what marks a document.
    fn next_line(&mut self) -> Option<usize> {
        loop {
            let indent = self.spaces();
            match self.byte()? {
                b'\n' => self.at += 1,
                b'#' => self.skip_line(),
                _ => return Some(indent),
            }
        }
    }

    fn skip_line(&mut self) {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        self.at += rest.iter().position(|b| *b == b'\n').map_or(rest.len(), |n| n + 1);
    }

    /// Over the blanks and the comment behind a value, and the end of its line.
    fn end_line(&mut self) -> Option<()> {
        let spaces = self.spaces();
        match self.byte() {
            None => Some(()),
            Some(b'\n') => {
                self.at += 1;
                Some(())
            }
            Some(b'#') if spaces > 0 => {
                self.skip_line();
                Some(())
            }
            _ => None,
        }
    }

    fn span(&self, start: usize, end: usize) -> Span {
        Span { source: self.scalars.source, start, end }
    }

    /// A node that begins here, at a column; `parent` is the column of what it lies in. The place
    /// behind it is the start of a line.
    fn block(&mut self, column: usize, parent: Option<usize>, depth: usize) -> Option<Yaml> {
        let depth = depth.checked_sub(1)?;
        if self.byte() == Some(b'-') && self.blank(1) {
            return self.list(column, depth);
        }
        let start = self.at;
        if let Some(first) = self.key(false) {
            return self.map(start, column, first, depth);
        }
        self.at = start;
        let value = self.inline(parent, depth)?;
        self.end_line()?;
        self.no_more(parent)?;
        Some(value)
    }

    fn blank(&self, n: usize) -> bool {
        matches!(self.ahead(n), None | Some(b' ' | b'\n'))
    }

    /// What follows a scalar or a flow value must not go on with it.
    fn no_more(&mut self, parent: Option<usize>) -> Option<()> {
        let start = self.at;
        let indent = self.next_line();
        self.at = start;
        match (indent, parent) {
            (None, _) => Some(()),
            (Some(indent), Some(parent)) if indent <= parent => Some(()),
            _ => None,
        }
    }

    /// A key and its colon.
    fn key(&mut self, flow: bool) -> Option<(String, Span)> {
        let start = self.at;
        let (name, end) = match self.byte()? {
            b'"' | b'\'' => {
                let name = self.quoted()?;
                (name, self.at)
            }
            first => {
                if !plain_start(first) {
                    return None;
                }
                loop {
                    match self.byte()? {
                        b':' if self.blank(1) => break,
                        b'\n' => return None,
                        b'#' if self.bytes.get(self.at - 1) == Some(&b' ') => return None,
                        b',' | b'[' | b']' | b'{' | b'}' if flow => return None,
                        _ => self.at += 1,
                    }
                }
                let name = self.text.get(start..self.at)?.trim_end_matches(' ');
                // Merges, and keys that are no text, are for the general parser.
                if name == "<<" || !plainly_text(name) {
                    return None;
                }
                (name.to_owned(), start + name.len())
            }
        };
        self.spaces();
        if self.byte()? != b':' || !self.blank(1) || self.at - start > 900 {
            return None;
        }
        self.at += 1;
        Some((name, self.span(start, end)))
    }

    /// A map whose first key, which began at `start`, is read.
    fn map(
        &mut self,
        start: usize,
        column: usize,
        first: (String, Span),
        depth: usize,
    ) -> Option<Yaml> {
        let span = self.span(start, start);
        let mut names = Names::new(&self.entries);
        let mut first = Some(first);
        loop {
            let (name, key) = match first.take() {
                Some(first) => first,
                None => self.key(false)?,
            };
            let told = self.scalars.problems.len();
            self.spaces();
            let value = match self.byte()? {
                b'\n' | b'#' => {
                    self.end_line_of_key()?;
                    let indent = self.next_line()?;
                    let list = indent == column && self.byte() == Some(b'-') && self.blank(1);
                    if indent <= column && !list {
                        return None;
                    }
                    let start = self.at;
                    let mut value = self.block(indent, Some(column), depth)?;
                    if list {
                        // The general parser places it behind its first dash.
                        let dash = self.text.get(start..)?.strip_prefix('-')?;
                        let blanks = dash.len() - dash.trim_start_matches(' ').len();
                        value.span = self.span(start + 1 + blanks, start + 1 + blanks);
                    }
                    value
                }
                b'|' => self.literal(column)?,
                _ => {
                    let value = self.inline(Some(column), depth)?;
                    self.end_line()?;
                    self.no_more(Some(column))?;
                    value
                }
            };
            self.add(&mut names, Key { name, span: key }, value, told);
            let start = self.at;
            match self.next_line() {
                Some(indent) if indent == column => {}
                Some(indent) if indent > column => return None,
                _ => {
                    self.at = start;
                    return Some(Yaml { value: names.close(&mut self.entries), span });
                }
            }
        }
    }

    /// A comment needs a blank before it, also behind a key.
    fn end_line_of_key(&mut self) -> Option<()> {
        match self.bytes.get(self.at - 1) {
            Some(b' ') => {
                self.at -= 1;
                self.end_line()
            }
            _ => self.end_line(),
        }
    }

    fn list(&mut self, column: usize, depth: usize) -> Option<Yaml> {
        let span = self.span(self.at, self.at);
        let first = self.items.len();
        loop {
            if self.byte() != Some(b'-') || !self.blank(1) {
                return None;
            }
            self.at += 1;
            let gap = self.spaces();
            let item = match self.byte()? {
                b'\n' | b'#' => {
                    self.end_line_of_key()?;
                    let indent = self.next_line()?;
                    if indent <= column {
                        return None;
                    }
                    self.block(indent, Some(column), depth)?
                }
                b'|' => self.literal(column)?,
                _ => self.block(column + 1 + gap, Some(column), depth)?,
            };
            self.items.push(item);
            let start = self.at;
            match self.next_line() {
                Some(indent) if indent == column && self.byte() == Some(b'-') && self.blank(1) => {}
                Some(indent) if indent > column => return None,
                _ => {
                    self.at = start;
                    return Some(Yaml {
                        value: Value::Seq(self.items.drain(first..).collect()),
                        span,
                    });
                }
            }
        }
    }

    /// A value on the line of what it belongs to.
    fn inline(&mut self, parent: Option<usize>, depth: usize) -> Option<Yaml> {
        let start = self.at;
        match self.byte()? {
            b'"' | b'\'' => {
                let text = self.quoted()?;
                Some(Yaml { value: Value::String(text), span: self.span(start, self.at) })
            }
            b'[' | b'{' => self.flow(parent, depth),
            first if plain_start(first) => {
                loop {
                    match self.byte() {
                        None | Some(b'\n') => break,
                        Some(b':') if self.blank(1) => return None,
                        Some(b'#') if self.bytes.get(self.at - 1) == Some(&b' ') => break,
                        _ => self.at += 1,
                    }
                }
                self.plain(start)
            }
            _ => None,
        }
    }

    /// The plain scalar from a place to here, blanks at its end aside.
    fn plain(&mut self, start: usize) -> Option<Yaml> {
        let text = self.text.get(start..self.at)?.trim_end_matches(' ');
        let first = text.as_bytes().first().copied()?;
        if matches!(first, b'-' | b'?' | b':')
            && matches!(text.as_bytes().get(1), None | Some(b' '))
        {
            return None;
        }
        let span = self.span(start, start + text.len());
        Some(self.scalars.plain(text, span))
    }

    /// A quoted scalar of one line.
    fn quoted(&mut self) -> Option<String> {
        let quote = self.byte()?;
        self.at += 1;
        let mut start = self.at;
        let mut text = String::new();
        loop {
            match self.byte()? {
                b'\n' => return None,
                b'\\' if quote == b'"' => {
                    text.push_str(self.text.get(start..self.at)?);
                    text.push(match self.ahead(1)? {
                        b'n' => '\n',
                        b't' => '\t',
                        b'"' => '"',
                        b'\\' => '\\',
                        b'/' => '/',
                        _ => return None,
                    });
                    self.at += 2;
                    start = self.at;
                }
                byte if byte == quote => {
                    text.push_str(self.text.get(start..self.at)?);
                    self.at += 1;
                    if quote == b'"' || self.byte() != Some(b'\'') {
                        return Some(text);
                    }
                    text.push('\'');
                    self.at += 1;
                    start = self.at;
                }
                _ => self.at += 1,
            }
        }
    }

    /// Blanks, comments and line breaks within a flow value.
    fn flow_space(&mut self, parent: Option<usize>) -> Option<()> {
        loop {
            let spaces = self.spaces();
            match self.byte()? {
                b'\n' => {
                    self.at += 1;
                    let indent = self.next_line()?;
                    // Lines of it lie deeper than what it lies in.
                    if parent.is_some_and(|parent| indent <= parent) || self.byte() == Some(b'-') {
                        return None;
                    }
                }
                b'#' if spaces > 0 => {
                    self.skip_line();
                    self.at -= 1;
                }
                _ => return Some(()),
            }
        }
    }

    fn flow(&mut self, parent: Option<usize>, depth: usize) -> Option<Yaml> {
        let depth = depth.checked_sub(1)?;
        let start = self.at;
        let open = self.byte()?;
        let close = if open == b'[' { b']' } else { b'}' };
        self.at += 1;
        let first = self.items.len();
        let mut names = Names::new(&self.entries);
        self.flow_space(parent)?;
        if self.byte()? == close {
            self.at += 1;
        } else {
            loop {
                if open == b'[' {
                    let item = self.flow_value(parent, depth)?;
                    self.items.push(item);
                } else {
                    let (name, span) = self.key(true)?;
                    let told = self.scalars.problems.len();
                    self.flow_space(parent)?;
                    let value = self.flow_value(parent, depth)?;
                    self.add(&mut names, Key { name, span }, value, told);
                }
                self.flow_space(parent)?;
                let end = self.byte()?;
                self.at += 1;
                match end {
                    b',' => self.flow_space(parent)?,
                    end if end == close => break,
                    _ => return None,
                }
            }
        }
        let value = match open {
            b'[' => Value::Seq(self.items.drain(first..).collect()),
            _ => names.close(&mut self.entries),
        };
        Some(Yaml { value, span: self.span(start, start + 1) })
    }

    fn flow_value(&mut self, parent: Option<usize>, depth: usize) -> Option<Yaml> {
        let start = self.at;
        match self.byte()? {
            b'"' | b'\'' | b'[' | b'{' => self.inline(parent, depth),
            first if plain_start(first) => {
                loop {
                    match self.byte()? {
                        b',' | b']' | b'}' => break,
                        b'\n' | b'[' | b'{' => return None,
                        b':' if matches!(
                            self.ahead(1)?,
                            b' ' | b'\n' | b',' | b'[' | b']' | b'{' | b'}'
                        ) =>
                        {
                            return None;
                        }
                        b'#' if self.bytes.get(self.at - 1) == Some(&b' ') => return None,
                        _ => self.at += 1,
                    }
                }
                self.plain(start)
            }
            _ => None,
        }
    }

    /// Adds an entry, where its name is new. Problems from `told` on are those of its value.
    fn add(&mut self, names: &mut Names, key: Key, value: Yaml, told: usize) {
        if let Some(first) = names.find(&self.entries, &key.name) {
            self.scalars.problems.push(super::duplicate(&key, first));
            return;
        }
        self.scalars.forgive(&key.name, &value, told);
        self.entries.push((key, value));
    }

    /// `|` or `|-` and the lines below it that are indented deeper than a column.
    fn literal(&mut self, column: usize) -> Option<Yaml> {
        self.at += 1;
        let strip = self.byte() == Some(b'-');
        self.at += usize::from(strip);
        if self.byte()? != b'\n' {
            return None;
        }
        self.at += 1;
        let mut text = String::new();
        let mut indent = None;
        let (start, mut end) = (self.at, self.at);
        while let Some(rest) = self.text.get(self.at..).filter(|rest| !rest.is_empty()) {
            let line = rest.split('\n').next().unwrap_or_default();
            let spaces = line.len() - line.trim_start_matches(' ').len();
            if spaces < line.len() {
                let indent = *indent.get_or_insert(spaces);
                if indent <= column {
                    return None;
                }
                if spaces < indent {
                    break;
                }
                text.push_str(line.get(indent..)?);
            } else if indent.is_none_or(|indent| spaces > indent) {
                // Blank lines at its start, and blanks that belong to it.
                return None;
            }
            text.push('\n');
            self.at += (line.len() + 1).min(rest.len());
            end = self.at;
        }
        if indent.is_none() || !self.text.get(..end)?.ends_with('\n') {
            return None;
        }
        let kept = text.trim_end_matches('\n').len();
        text.truncate(kept + usize::from(!strip));
        let start = start + indent.unwrap_or_default();
        let end = start + self.text.get(start..end)?.trim_end().len();
        Some(Yaml { value: Value::String(text), span: self.span(start, end) })
    }
}

/// The names of a map that is open, and where its entries begin.
struct Names {
    first: usize,
    places: HashMap<String, usize>,
}

impl Names {
    fn new(entries: &[(Key, Yaml)]) -> Names {
        Names { first: entries.len(), places: HashMap::new() }
    }

    fn close(self, entries: &mut Vec<(Key, Yaml)>) -> Value {
        Value::Map(entries.drain(self.first..).collect())
    }

    /// The entry of a name.
    fn find(&mut self, entries: &[(Key, Yaml)], name: &str) -> Option<Span> {
        let own = entries.get(self.first..).unwrap_or_default();
        let found = match own.len() {
            n if n < FEW => own.iter().position(|(key, _)| key.name == name),
            n => {
                for (place, (key, _)) in own.iter().enumerate().skip(self.places.len()).take(n) {
                    self.places.insert(key.name.clone(), place);
                }
                self.places.get(name).copied()
            }
        };
        found.and_then(|place| own.get(place)).map(|(key, _)| key.span)
    }
}

/// Whether a plain scalar may begin so. `-`, `?` and `:` may, before something else than a blank.
fn plain_start(byte: u8) -> bool {
    !matches!(
        byte,
        b',' | b'['
            | b']'
            | b'{'
            | b'}'
            | b'#'
            | b'&'
            | b'*'
            | b'!'
            | b'|'
            | b'>'
            | b'\''
            | b'"'
            | b'%'
            | b'@'
            | b'`'
            | b'?'
            | b' '
            | b'\n'
    )
}

/// Whether a key is surely text, and no number, boolean or nothing.
fn plainly_text(name: &str) -> bool {
    let letter = |byte: &u8| byte.is_ascii_alphabetic() || *byte == b'_' || *byte >= 0x80;
    let first = name.as_bytes().first().is_some_and(letter);
    let word = ["true", "false", "null"].iter().any(|word| name.eq_ignore_ascii_case(word));
    first && !word
}
