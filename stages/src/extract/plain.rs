//! Text and Markdown files: passed through, normalised, with the sidecar that a PDF would have.

use super::compose::Section;
use super::document::{PageInfo, Sidecar};
use super::language::language;
use super::unicode::{composed, push_clean};
use crate::{Result, StageError};

/// The bytes as text, without a byte-order mark. `name` stands for them in errors.
pub fn utf8<'a>(bytes: &'a [u8], name: &str) -> Result<&'a str> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    std::str::from_utf8(bytes).map_err(|error| {
        let line = bytes[..error.valid_up_to()].iter().filter(|&&b| b == b'\n').count() + 1;
        StageError::bad(name, "not UTF-8 text")
            .at(line as u64)
            .hint("save it as UTF-8, for instance with `iconv -f latin1 -t utf-8`")
    })
}

/// The text of a `.txt` or `.md` file and its sidecar. `markdown`: lines that begin with `#` are
/// headings.
pub fn extract(bytes: &[u8], name: &str, markdown: bool) -> Result<(String, Sidecar)> {
    let source = utf8(bytes, name)?;
    let (mut text, mut sections) = (String::with_capacity(source.len()), Vec::new());
    let (mut chars, mut blank, mut fenced) = (0, 0, false);
    for line in source.lines() {
        let mut clean = String::with_capacity(line.len());
        push_clean(line, &mut clean);
        let clean = composed(clean);
        let clean = clean.trim_end();
        blank = if clean.is_empty() { blank + 1 } else { 0 };
        if blank > 1 || clean.is_empty() && text.is_empty() {
            continue;
        }
        fenced ^= clean.trim_start().starts_with("```");
        let level = clean.bytes().take_while(|&b| b == b'#').count();
        let title = clean.get(level..).and_then(|rest| rest.strip_prefix(' '));
        if let (true, false, 1..=6, Some(title)) = (markdown, fenced, level, title) {
            sections.push(Section { title: title.trim().into(), level, offset: chars });
        }
        text.push_str(clean);
        text.push('\n');
        chars += clean.chars().count() + 1;
    }
    if text.ends_with("\n\n") {
        text.pop();
        chars -= 1;
    }
    if text.trim().is_empty() {
        return Err(StageError::bad(name, "the file has no text").hint("remove it from the inputs"));
    }
    let sidecar = Sidecar {
        source: name.into(),
        extractor: super::VERSION,
        language: language(&text),
        characters: chars,
        understood: 1.0,
        pages: vec![PageInfo { number: 1, offset: 0, glyphs: chars as u64, understood: 1.0 }],
        sections,
        ..Sidecar::default()
    };
    Ok((text, sidecar))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markdown_is_normalised_and_its_headings_are_listed() {
        let source =
            "\u{feff}# Title\r\n\r\n\r\n\r\ne\u{fb03}cient\u{ad}ly  \n```\n# code\n```\n## Next\n";
        let (text, sidecar) = extract(source.as_bytes(), "a.md", true).expect("text");
        assert_eq!(text, "# Title\n\nefficiently\n```\n# code\n```\n## Next\n");
        let titles: Vec<_> = sidecar.sections.iter().map(|s| (s.title.as_str(), s.level)).collect();
        assert_eq!(titles, [("Title", 1), ("Next", 2)]);
        let from = sidecar.sections[1].offset;
        assert!(text.chars().skip(from).collect::<String>().starts_with("## Next"));
    }

    #[test]
    fn what_is_not_text_is_refused_with_its_line() {
        let error = extract(b"one\ntwo \xff", "a.txt", false).expect_err("latin-1");
        assert_eq!(error.to_string(), "a.txt:2: not UTF-8 text");
        assert!(extract(b" \n", "a.txt", false).is_err());
    }
}
