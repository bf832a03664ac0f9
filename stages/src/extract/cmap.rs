//! CMaps: from the codes of a string to characters (ToUnicode) or to glyphs (a composite font's
//! encoding).
//!
//! Ranges stay ranges, so that one over four billion codes costs one entry. Of the predefined
//! CMaps it knows Identity and those whose codes are Unicode; the tables of the older East Asian
//! ones are not here.

use super::content::{Lexer, Operand, Operands};

/// More entries than this are dropped.
const MOST_ENTRIES: usize = 1 << 18;

/// Bytes of UTF-16 that one code may stand for.
const MOST_TEXT: usize = 64;

/// A map from codes to text.
#[derive(Clone, Debug, Default)]
pub struct ToUnicode {
    entries: Vec<Entry>,
    text: String,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    low: u32,
    high: u32,
    start: u32,
    end: u32,
}

impl ToUnicode {
    /// Reads the CMap of a font's `/ToUnicode`.
    pub fn parse(data: &[u8]) -> ToUnicode {
        let mut map = ToUnicode::default();
        let (mut lexer, mut operands) = (Lexer::new(data), Operands::default());
        while let Some(operator) = lexer.next(&mut operands) {
            match operator {
                b"endbfchar" => map.chars(&operands),
                b"endbfrange" => map.ranges(&operands),
                _ => {}
            }
        }
        // A later entry for the same code wins: it comes last among equals.
        map.entries.sort_by_key(|entry| entry.low);
        map
    }

    /// True where it maps nothing.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn chars(&mut self, operands: &Operands) {
        for pair in operands.items.chunks_exact(2) {
            let code = operands.text(pair[0]).and_then(code);
            if let (Some(code), Some(to)) = (code, operands.text(pair[1])) {
                self.add(code, code, to);
            }
        }
    }

    fn ranges(&mut self, operands: &Operands) {
        let mut items = operands.items.iter().copied();
        while let (Some(low), Some(high), Some(to)) = (items.next(), items.next(), items.next()) {
            let low = operands.text(low).and_then(code);
            let high = operands.text(high).and_then(code);
            if to == Operand::Open {
                let listed = items.by_ref().take_while(|item| *item != Operand::Close);
                for (at, to) in listed.enumerate() {
                    let code = low.and_then(|low| low.checked_add(at as u32));
                    if let (Some(code), Some(to)) = (code, operands.text(to)) {
                        self.add(code, code, to);
                    }
                }
            } else if let (Some(low), Some(high), Some(to)) = (low, high, operands.text(to)) {
                self.add(low, high.max(low), to);
            }
        }
    }

    fn add(&mut self, low: u32, high: u32, utf16: &[u8]) {
        if self.entries.len() >= MOST_ENTRIES {
            return;
        }
        let start = self.text.len() as u32;
        push_utf16(utf16.get(..MOST_TEXT).unwrap_or(utf16), &mut self.text);
        self.entries.push(Entry { low, high, start, end: self.text.len() as u32 });
    }

    /// Appends the text of `code`. False where the map has none, or one that means nothing.
    pub fn push(&self, code: u32, out: &mut String) -> bool {
        let after = self.entries.partition_point(|entry| entry.low <= code);
        // Ranges may overlap in a careless file; look at a few.
        let near = self.entries[..after].iter().rev().take(4);
        let Some(entry) = near.into_iter().find(|entry| code <= entry.high) else { return false };
        let text = self.text.get(entry.start as usize..entry.end as usize).unwrap_or_default();
        let Some(last) = text.chars().next_back() else { return false };
        let step = code - entry.low;
        let Some(shifted) = (last as u32).checked_add(step).and_then(char::from_u32) else {
            return false;
        };
        if matches!(shifted, '\0' | '\u{fffd}' | '\u{ffff}') {
            return false;
        }
        out.push_str(&text[..text.len() - last.len_utf8()]);
        out.push(shifted);
        true
    }
}

/// Appends UTF-16BE, which may begin with a byte-order mark; one byte is a code below 256.
pub fn push_utf16(bytes: &[u8], out: &mut String) {
    if let [byte] = bytes {
        return out.push(char::from(*byte));
    }
    let units = bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
    let chars = char::decode_utf16(units).map(|c| c.unwrap_or('\u{fffd}'));
    out.extend(chars.filter(|c| *c != '\u{feff}'));
}

fn code(bytes: &[u8]) -> Option<u32> {
    let short = !bytes.is_empty() && bytes.len() <= 4;
    short.then(|| bytes.iter().fold(0, |code, &byte| code << 8 | u32::from(byte)))
}

/// How a composite font cuts a string into codes, and which glyph (CID) each one is.
#[derive(Clone, Debug)]
pub enum Codes {
    /// Two bytes a code, and the code is the CID.
    Identity,
    /// Codes are UTF-16BE text: the CMap's name says so.
    Utf16,
    /// One byte below 0x81 and two from there; CIDs unknown.
    Mixed,
    /// A CMap in the file.
    Own {
        /// (bytes, low, high)
        spaces: Vec<(u8, u32, u32)>,
        /// (low, high, first CID), ascending.
        cids: Vec<(u32, u32, u32)>,
    },
}

impl Codes {
    /// The predefined CMap called `name`.
    pub fn named(name: &[u8]) -> Codes {
        let name = String::from_utf8_lossy(name);
        if name.starts_with("Identity") {
            Codes::Identity
        } else if name.contains("UCS2") || name.contains("UTF16") {
            Codes::Utf16
        } else {
            Codes::Mixed
        }
    }

    /// Reads a CMap stream.
    pub fn parse(data: &[u8]) -> Codes {
        let (mut spaces, mut cids) = (Vec::new(), Vec::new());
        let (mut lexer, mut operands) = (Lexer::new(data), Operands::default());
        while let Some(operator) = lexer.next(&mut operands) {
            let text = |at: usize| operands.items.get(at).and_then(|item| operands.text(*item));
            let number = |at: usize| match operands.items.get(at) {
                Some(Operand::Number(value)) => Some(*value as u32),
                _ => None,
            };
            match operator {
                b"endcodespacerange" => {
                    for at in (0..operands.items.len()).step_by(2) {
                        if let (Some(low), Some(high)) = (text(at), text(at + 1))
                            && let (Some(from), Some(to)) = (code(low), code(high))
                        {
                            spaces.push((low.len() as u8, from, to));
                        }
                    }
                }
                b"endcidrange" => {
                    for at in (0..operands.items.len()).step_by(3) {
                        let low = text(at).and_then(code);
                        let high = text(at + 1).and_then(code);
                        if let (Some(low), Some(high), Some(cid)) = (low, high, number(at + 2)) {
                            cids.push((low, high, cid));
                        }
                    }
                }
                b"endcidchar" => {
                    for at in (0..operands.items.len()).step_by(2) {
                        if let (Some(low), Some(cid)) = (text(at).and_then(code), number(at + 1)) {
                            cids.push((low, low, cid));
                        }
                    }
                }
                _ => {}
            }
        }
        spaces.truncate(256);
        cids.truncate(MOST_ENTRIES);
        spaces.sort_unstable();
        cids.sort_unstable();
        if spaces.is_empty() { Codes::Identity } else { Codes::Own { spaces, cids } }
    }

    /// The first code of `bytes` and its length, which is at least 1. `bytes` is not empty.
    pub fn next(&self, bytes: &[u8]) -> (u32, usize) {
        let first = bytes.first().copied().unwrap_or_default();
        let take = |len: usize| {
            let len = len.clamp(1, bytes.len().max(1));
            (code(bytes.get(..len).unwrap_or_default()).unwrap_or_default(), len)
        };
        match self {
            Codes::Identity => take(2),
            Codes::Utf16 if (0xd8..0xdc).contains(&first) => take(4),
            Codes::Utf16 => take(2),
            Codes::Mixed => take(if first < 0x81 { 1 } else { 2 }),
            Codes::Own { spaces, .. } => {
                let inside = |&&(len, low, high): &&(u8, u32, u32)| {
                    let (found, took) = take(usize::from(len));
                    // Each byte of a code lies in its own range.
                    took == usize::from(len)
                        && (0..took).all(|byte| {
                            let part = |value: u32| value >> (8 * byte) & 0xff;
                            (part(low)..=part(high)).contains(&part(found))
                        })
                };
                let len = spaces.iter().find(inside).or(spaces.first()).map_or(1, |s| s.0);
                take(usize::from(len))
            }
        }
    }

    /// The glyph of `code`.
    pub fn cid(&self, code: u32) -> u32 {
        let Codes::Own { cids, .. } = self else { return code };
        let after = cids.partition_point(|range| range.0 <= code);
        match cids[..after].last() {
            Some(&(low, high, cid)) if code <= high => cid.saturating_add(code - low),
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(map: &ToUnicode, code: u32) -> Option<String> {
        let mut out = String::new();
        map.push(code, &mut out).then_some(out)
    }

    #[test]
    fn chars_ranges_lists_and_several_characters() {
        let map = ToUnicode::parse(
            b"2 beginbfchar <01> <00660069> <02> <D835DEFC> endbfchar
              3 beginbfrange <10> <12> <0041> <20> <21> [<0061> <00620063>]
              <0030> <FFFFFFFF> <00660041> endbfrange 1 beginbfchar <40> <0000> endbfchar",
        );
        assert_eq!(text(&map, 1).as_deref(), Some("fi"));
        assert_eq!(text(&map, 2).as_deref(), Some("𝛼"));
        assert_eq!(text(&map, 0x12).as_deref(), Some("C"));
        assert_eq!(text(&map, 0x21).as_deref(), Some("bc"));
        assert_eq!(text(&map, 0x31).as_deref(), Some("fB"));
        assert_eq!(text(&map, 0x40), None);
        assert_eq!(text(&map, 5), None);
        assert_eq!(text(&map, u32::MAX), None);
    }

    #[test]
    fn codes_are_cut_by_the_codespace() {
        let codes = Codes::parse(
            b"2 begincodespacerange <00> <80> <8140> <9ffc> endcodespacerange
              1 begincidrange <20> <7e> 1 endcidrange 1 begincidchar <8140> 500 endcidchar",
        );
        assert_eq!(codes.next(b"A"), (0x41, 1));
        assert_eq!(codes.next(b"\x81\x40A"), (0x8140, 2));
        assert_eq!(codes.cid(0x41), 34);
        assert_eq!(codes.cid(0x8140), 500);
        assert_eq!(Codes::named(b"Identity-H").next(b"\x01\x02\x03"), (0x102, 2));
        assert_eq!(Codes::named(b"Identity-H").next(b"\x01"), (1, 1));
        assert_eq!(Codes::named(b"UniJIS-UTF16-H").next(b"\xd8\x35\xde\xfc"), (0xd835defc, 4));
    }
}
