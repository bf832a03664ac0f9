//! The font program that a file carries, as far as it says which characters its glyphs are.
//!
//! It draws nothing, and asks a program only for names and maps.

use std::collections::HashMap;

use lopdf::{Dictionary, Document};

use super::font::{named, stream};
use super::type1;

/// A font program, where the file has one that can be read.
pub enum Program {
    Type1(Vec<u8>),
    /// Bare CFF.
    Cff(Vec<u8>),
    /// TrueType or OpenType.
    Sfnt(Vec<u8>),
}

/// The program of a font descriptor.
pub fn read(doc: &Document, descriptor: &Dictionary) -> Option<Program> {
    if let Some(data) = stream(doc, descriptor, b"FontFile") {
        return Some(Program::Type1(data));
    }
    let data = stream(doc, descriptor, b"FontFile2").or(stream(doc, descriptor, b"FontFile3"))?;
    let sfnt = [b"\0\x01\0\0", b"OTTO", b"true", b"ttcf"].iter().any(|tag| data.starts_with(*tag));
    Some(if sfnt { Program::Sfnt(data) } else { Program::Cff(data) })
}

/// Text of each code of a simple font, as the program itself has it.
pub fn builtin(program: &Program) -> Option<HashMap<u8, String>> {
    match program {
        Program::Type1(data) => {
            let codes = type1::encoding(data)?;
            Some(codes.into_iter().filter_map(|(code, name)| Some((code, named(&name)?))).collect())
        }
        Program::Cff(data) => {
            let table = ttf_parser::cff::Table::parse(data)?;
            let text = |code| named(table.glyph_name(table.glyph_index(code)?)?);
            Some((0..=255).filter_map(|code| Some((code, text(code)?))).collect())
        }
        Program::Sfnt(data) => {
            let face = face(data)?;
            if let Some(table) = face.tables().cff {
                let text = |code| named(table.glyph_name(table.glyph_index(code)?)?);
                return Some((0..=255).filter_map(|code| Some((code, text(code)?))).collect());
            }
            let maps = face.tables().cmap?.subtables;
            let unicode = unicode_of_glyphs(&face);
            let text = |code: u8| {
                let code = u32::from(code);
                let glyph = maps.into_iter().filter(|map| !map.is_unicode()).find_map(|map| {
                    [code, 0xf000 + code, 0xf100 + code]
                        .into_iter()
                        .find_map(|code| map.glyph_index(code).filter(|glyph| glyph.0 != 0))
                })?;
                let from_map = unicode.get(&glyph.0).map(|c| c.to_string());
                from_map.or_else(|| named(face.glyph_name(glyph)?))
            };
            Some((0..=255).filter_map(|code| Some((code, text(code)?))).collect())
        }
    }
}

/// A TrueType or OpenType program. One that says to be a collection of more fonts than it has bytes for
/// is none: ttf-parser takes the number as it is, and stops at it where debug assertions are on.
fn face(data: &[u8]) -> Option<ttf_parser::Face<'_>> {
    if data.starts_with(b"ttcf") {
        let fonts = u32::from_be_bytes(data.get(8..12)?.try_into().ok()?) as usize;
        data.get(12..)?.get(..fonts.checked_mul(4)?)?;
    }
    ttf_parser::Face::parse(data, 0).ok()
}

/// Which character each glyph is, by the font's Unicode map. It asks for the blocks that papers
/// use, rather than for all that a hostile map might claim.
fn unicode_of_glyphs(face: &ttf_parser::Face<'_>) -> HashMap<u16, char> {
    let mut out = HashMap::new();
    let Some(cmap) = face.tables().cmap else { return out };
    for map in cmap.subtables.into_iter().filter(|map| map.is_unicode()) {
        let blocks = [0x20..=0x2fff, 0xfb00..=0xfb06, 0x1d400..=0x1d7ff, 0x3000..=0x9fff];
        for code in blocks.into_iter().flatten() {
            if let (Some(glyph), Some(c)) = (map.glyph_index(code), char::from_u32(code)) {
                out.entry(glyph.0).or_insert(c);
            }
        }
    }
    out
}

/// Text by CID from the font program.
pub fn cid_text(program: &Program, to_glyph: Option<&[u8]>) -> HashMap<u32, String> {
    match program {
        Program::Type1(_) => HashMap::new(),
        Program::Cff(data) => {
            let Some(table) = ttf_parser::cff::Table::parse(data) else { return HashMap::new() };
            let text = |glyph: u16| named(table.glyph_name(ttf_parser::GlyphId(glyph))?);
            let glyphs = 0..table.number_of_glyphs();
            glyphs.filter_map(|glyph| Some((u32::from(glyph), text(glyph)?))).collect()
        }
        Program::Sfnt(data) => {
            let Some(face) = face(data) else { return HashMap::new() };
            let unicode = unicode_of_glyphs(&face);
            let text = |glyph: u16| {
                let c = unicode.get(&glyph).map(|c| c.to_string());
                c.or_else(|| named(face.glyph_name(ttf_parser::GlyphId(glyph))?))
            };
            let glyph_of = |cid: u16| match to_glyph {
                Some(map) => {
                    let at = usize::from(cid) * 2;
                    map.get(at..at + 2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
                }
                None => Some(cid),
            };
            let most = to_glyph.map_or(face.number_of_glyphs().into(), |map| map.len() / 2);
            let cids = 0..most.min(65_535) as u16;
            cids.filter_map(|cid| Some((u32::from(cid), text(glyph_of(cid)?)?))).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Found by fuzzing.
    #[test]
    fn a_collection_of_four_billion_fonts_is_none() {
        assert!(face(b"ttcf(\xfe\xff\xff\xff\x10\x26\x08\x0a\xdc\x00").is_none());
        assert!(face(b"ttcf\0\x01\0\0").is_none());
    }
}
