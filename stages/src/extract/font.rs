//! A font, as far as text needs it: which characters a code shows, and how far it moves the pen.
//!
//! For text the order is ToUnicode, then glyph names (`/Differences`, the named encoding, the
//! encoding built into the font program), then what the program's own character map says. A code
//! that none of them explains is not guessed at: it is counted, and shown as U+FFFD.

use std::collections::HashMap;

use lopdf::{Dictionary, Document, Object, Stream};

use super::cmap::{Codes, ToUnicode, push_utf16};
use super::glyphs;
use super::program;
use super::standard::{Encoding, Widths};

/// A font program or CMap may not inflate beyond this.
const MOST_BYTES: usize = 64 << 20;

/// What a name says of a font.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// Its letters are symbols: TeX's maths fonts and the like.
    pub maths: bool,
    /// Big delimiters and operators, which hang far below the baseline.
    pub extension: bool,
    /// Bold.
    pub bold: bool,
    /// All glyphs are as wide: code.
    pub fixed: bool,
    /// Its glyphs are pieces of drawings: lines, arrow heads, circles.
    pub drawing: bool,
}

impl Style {
    fn of(name: &str, flags: i64) -> Style {
        let low = name.to_ascii_lowercase();
        let any = |parts: &[&str]| parts.iter().any(|part| low.contains(part));
        let extension = any(&["cmex", "mathextension", "mtex", "txex", "pxex", "euex", "lmex"]);
        Style {
            maths: extension
                || any(&["cmmi", "cmsy", "cmbsy", "msam", "msbm", "eufm", "eusm", "rsfs", "math"])
                || any(&["mtmi", "mtsy", "txmi", "txsy", "pxmi", "pxsy", "stmary", "wasy", "lmmi"])
                || any(&["lmsy", "esint", "bbold", "dsrom", "symbol", "txsym"]),
            extension,
            bold: any(&[
                "bold", "cmbx", "cmb1", "sfbx", "black", "demi", "medi", "heavy", "cmssbx",
            ]) || flags & 1 << 18 != 0,
            fixed: any(&[
                "mono",
                "cmtt",
                "courier",
                "typewriter",
                "sftt",
                "cmsltt",
                "cmitt",
                "cmtcsc",
                "consol",
            ]) || any(&["inconsolata", "luxi", "beramono", "lmtt"])
                || flags & 1 != 0,
            drawing: ["line1", "linew1", "lcircle", "xyatip", "xybtip", "xybsql", "xycirc"]
                .iter()
                .chain(&["xycmat", "xycmbt", "xydash", "xyline", "xyluat", "xylubt"])
                .any(|prefix| low.starts_with(prefix)),
        }
    }
}

/// A font that is ready to decode strings.
#[derive(Debug)]
pub struct Font {
    /// `/BaseFont` without the subset's prefix.
    pub name: String,
    /// `/Subtype`.
    pub kind: String,
    /// What its name and flags say.
    pub style: Style,
    /// It has a ToUnicode map.
    pub to_unicode: bool,
    /// Its program is in the file.
    pub embedded: bool,
    /// The em in units of the text size; not 1 for Type 3 fonts, whose size means nothing.
    pub em: f64,
    codes: Table,
}

#[derive(Debug)]
enum Table {
    Simple(Box<Simple>),
    Composite(Box<Composite>),
}

#[derive(Debug)]
struct Simple {
    text: String,
    spans: [Option<(u32, u32)>; 256],
    widths: [f32; 256],
}

#[derive(Debug)]
struct Composite {
    codes: Codes,
    unicode: ToUnicode,
    /// Text by CID, from the font program, where there is no ToUnicode.
    glyphs: HashMap<u32, String>,
    default_width: f32,
    /// (first CID, last CID, width), ascending.
    widths: Vec<(u32, u32, f32)>,
}

/// A code that was decoded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shown {
    /// Bytes it took.
    pub len: usize,
    /// How far it moves the pen, in text size.
    pub width: f64,
    /// Its text is known and was appended.
    pub known: bool,
    /// It is the one-byte code 32, which word spacing widens.
    pub space: bool,
}

impl Font {
    /// Decodes the first code of `bytes` (which are not empty) and appends its text.
    pub fn next(&self, bytes: &[u8], out: &mut String) -> Shown {
        match &self.codes {
            Table::Simple(simple) => {
                let code = bytes.first().copied().unwrap_or_default();
                let span = simple.spans[usize::from(code)];
                if let Some((start, end)) = span {
                    out.push_str(simple.text.get(start as usize..end as usize).unwrap_or_default());
                }
                let width = f64::from(simple.widths[usize::from(code)]);
                Shown { len: 1, width, known: span.is_some(), space: code == 32 }
            }
            Table::Composite(font) => {
                let (code, len) = font.codes.next(bytes);
                let cid = font.codes.cid(code);
                let known = font.unicode.push(code, out) || font.push(code, cid, out);
                let width = f64::from(font.width(cid));
                Shown { len, width, known, space: len == 1 && code == 32 }
            }
        }
    }

    /// Reads a font dictionary. What is broken in it is left out.
    pub fn load(doc: &Document, dict: &Dictionary) -> Font {
        let kind = name(doc, dict, b"Subtype").unwrap_or_default();
        if kind == "Type0" { composite(doc, dict, kind) } else { simple(doc, dict, kind) }
    }
}

impl Composite {
    fn push(&self, code: u32, cid: u32, out: &mut String) -> bool {
        if let Codes::Utf16 = self.codes {
            let bytes = code.to_be_bytes();
            push_utf16(if code > 0xffff { &bytes } else { &bytes[2..] }, out);
            return code != 0;
        }
        let text = self.glyphs.get(&cid);
        text.inspect(|text| out.push_str(text)).is_some()
    }

    fn width(&self, cid: u32) -> f32 {
        let after = self.widths.partition_point(|range| range.0 <= cid);
        match self.widths[..after].last() {
            Some(&(_, last, width)) if cid <= last => width,
            _ => self.default_width,
        }
    }
}

fn get<'a>(doc: &'a Document, dict: &'a Dictionary, key: &[u8]) -> Option<&'a Object> {
    dict.get_deref(key, doc).ok().filter(|object| !object.is_null())
}

fn dict<'a>(doc: &'a Document, from: &'a Dictionary, key: &[u8]) -> Option<&'a Dictionary> {
    get(doc, from, key).and_then(|object| object.as_dict().ok())
}

fn name(doc: &Document, dict: &Dictionary, key: &[u8]) -> Option<String> {
    let name = get(doc, dict, key)?.as_name().ok()?;
    Some(String::from_utf8_lossy(name).into_owned())
}

fn number(doc: &Document, object: &Object) -> Option<f32> {
    let (_, object) = doc.dereference(object).ok()?;
    object.as_float().ok().filter(|value| value.is_finite())
}

fn integer(doc: &Document, dict: &Dictionary, key: &[u8]) -> Option<i64> {
    get(doc, dict, key).and_then(|object| object.as_i64().ok())
}

/// The decoded bytes of a stream, unless they are more than `most`.
pub fn inflate(stream: &Stream, most: usize) -> Option<Vec<u8>> {
    stream.get_plain_content_with_limit(most).ok()
}

pub(super) fn stream(doc: &Document, dict: &Dictionary, key: &[u8]) -> Option<Vec<u8>> {
    get(doc, dict, key)?.as_stream().ok().and_then(|stream| inflate(stream, MOST_BYTES))
}

fn base_name(doc: &Document, dict: &Dictionary) -> String {
    let full = name(doc, dict, b"BaseFont").or_else(|| name(doc, dict, b"Name"));
    let full = full.unwrap_or_default();
    match full.split_once('+') {
        Some((prefix, rest)) if prefix.len() == 6 => rest.to_owned(),
        _ => full,
    }
}

/// `/Differences`: glyph names by code.
fn differences(doc: &Document, encoding: &Dictionary) -> HashMap<u8, String> {
    let mut out = HashMap::new();
    let Some(Ok(list)) = get(doc, encoding, b"Differences").map(Object::as_array) else {
        return out;
    };
    let mut code = 0i64;
    for item in list {
        match doc.dereference(item) {
            Ok((_, Object::Integer(value))) => code = *value,
            Ok((_, Object::Name(name))) => {
                if let Ok(code) = u8::try_from(code) {
                    out.insert(code, String::from_utf8_lossy(name).into_owned());
                }
                code = code.saturating_add(1);
            }
            _ => {}
        }
    }
    out
}

fn simple(doc: &Document, font: &Dictionary, kind: String) -> Font {
    let base = base_name(doc, font);
    let descriptor = dict(doc, font, b"FontDescriptor");
    let flags = descriptor.and_then(|d| integer(doc, d, b"Flags")).unwrap_or_default();
    let program = descriptor.and_then(|d| program::read(doc, d));
    let map = stream(doc, font, b"ToUnicode").map(|data| ToUnicode::parse(&data));
    let map = map.filter(|map| !map.is_empty());

    let entry = get(doc, font, b"Encoding");
    let (mut base_encoding, mut names) = (None, HashMap::new());
    match entry {
        Some(Object::Name(name)) => base_encoding = Encoding::named(name),
        Some(Object::Dictionary(encoding)) => {
            let name = get(doc, encoding, b"BaseEncoding").and_then(|name| name.as_name().ok());
            base_encoding = name.and_then(Encoding::named);
            names = differences(doc, encoding);
        }
        _ => {}
    }
    // Bitmap fonts of TeX name their glyphs by code: read them in TeX's layout.
    names.retain(|_, name| name != ".notdef");
    let coded = kind == "Type3"
        && !names.is_empty()
        && names.values().all(|name| glyphs::code_of(name).is_some());
    if coded {
        let codes: Vec<u8> = names.values().filter_map(|name| glyphs::code_of(name)).collect();
        base_encoding = Some(tex_layout(&codes));
        names = names
            .into_iter()
            .filter_map(|(code, name)| Some((code, glyphs::code_of(&name)?)))
            .filter_map(|(code, at)| Some((code, base_encoding?.table()[usize::from(at)]?)))
            .map(|(code, c)| (code, format!("uni{:04X}", c as u32)))
            .collect();
    }
    let own =
        if base_encoding.is_none() { program.as_ref().and_then(program::builtin) } else { None };
    let fallback = base_encoding.unwrap_or(match base.to_ascii_lowercase() {
        low if low.starts_with("symbol") => Encoding::Symbol,
        low if low.contains("dingbats") => Encoding::Dingbats,
        _ if kind == "TrueType" => Encoding::WinAnsi,
        _ => Encoding::Standard,
    });
    let chars = fallback.table();
    let style = Style::of(&base, flags);

    let mut table = Simple { text: String::new(), spans: [None; 256], widths: [0.0; 256] };
    let widths = widths(doc, font, descriptor, &base, &chars);
    table.widths = widths;
    for code in 0..=255u8 {
        let at = usize::from(code);
        let mut said = String::new();
        let mapped = map.as_ref().is_some_and(|map| map.push(u32::from(code), &mut said));
        let mut shown = mapped.then(|| said.clone());
        let own_text = match (names.get(&code), &own) {
            (Some(name), _) => named(name),
            (None, Some(own)) => own.get(&code).cloned(),
            (None, None) => chars[at].map(String::from),
        };
        let better = named_better(shown.as_deref(), own_text.as_deref(), &names, code)
            || coded && shown.as_deref().is_some_and(is_dingbat);
        if shown.is_none() || better && own_text.is_some() {
            shown = own_text.or(shown);
        }
        if style.drawing {
            shown = Some(String::new());
        }
        let shown = shown.and_then(public).or((code == 32).then(|| " ".to_owned()));
        table.spans[at] = shown.map(|shown| {
            let start = table.text.len() as u32;
            table.text.push_str(&shown);
            (start, table.text.len() as u32)
        });
    }
    let em = if kind == "Type3" { type3_em(doc, font, &table.widths) } else { 1.0 };
    if kind == "Type3" {
        let scale = type3_scale(doc, font) as f32 * 1000.0;
        table.widths.iter_mut().for_each(|width| *width *= scale);
    }
    Font {
        style,
        name: base,
        to_unicode: map.is_some(),
        embedded: program.is_some() || kind == "Type3",
        kind,
        em,
        codes: Table::Simple(Box::new(table)),
    }
}

/// Which of TeX's layouts a bitmap font of text is in, by the codes that it uses: the ligatures of
/// `fi` and its kin, the dashes and the accented letters are at places of their own, and a font of
/// signs has no letters.
fn tex_layout(codes: &[u8]) -> Encoding {
    let any = |from: u8, to: u8| codes.iter().any(|code| (from..=to).contains(code));
    let letters = any(65, 90) || any(97, 122) || any(192, 213) || any(215, 245) || any(247, 255);
    if !letters && any(128, 255) {
        return Encoding::Ts1;
    }
    let cork = any(128, 255) || (any(27, 31) || any(21, 22)) && !any(11, 15);
    if cork { Encoding::T1 } else { Encoding::Ot1 }
}

/// Whether the glyph's name is to be believed rather than the ToUnicode map. Ghostscript writes maps
/// that give the old code of a symbol or ligature as if it were Latin-1: `alpha` as `³`.
fn named_better(
    mapped: Option<&str>,
    own: Option<&str>,
    names: &HashMap<u8, String>,
    code: u8,
) -> bool {
    let (Some(mapped), Some(own)) = (mapped, own) else { return false };
    let upper_latin = |text: &str| text.chars().all(|c| matches!(c, '\u{80}'..='\u{ff}'));
    let foreign = |text: &str| text.chars().all(|c| c > '\u{17f}') && !text.is_empty();
    let private = |text: &str| text.chars().any(glyphs::private);
    private(mapped) && !private(own)
        || names.contains_key(&code) && upper_latin(mapped) && foreign(own)
}

/// Ghostscript reads TeX's glyph names by code (`a101`) as those of Zapf Dingbats, which have the
/// same form, and writes maps that say so.
fn is_dingbat(text: &str) -> bool {
    text.chars().all(|c| matches!(c, '\u{2190}'..='\u{21ff}' | '\u{2460}'..='\u{27bf}'))
}

/// Text without private characters: those of Symbol, moved up, and Adobe's.
fn public(text: String) -> Option<String> {
    let mut chars = text.chars();
    let Some(private) = chars.next().filter(|c| chars.next().is_none() && glyphs::private(*c))
    else {
        return Some(text);
    };
    if let Some(whole) = glyphs::corporate(private) {
        return Some(whole.to_owned());
    }
    let low = (private as u32).checked_sub(0xf000).and_then(|low| u8::try_from(low).ok())?;
    Encoding::Symbol.table()[usize::from(low)].map(String::from)
}

/// Text of a glyph name.
pub(super) fn named(name: &str) -> Option<String> {
    let mut text = String::new();
    glyphs::push(name, &mut text).then_some(text)
}

/// Widths by code, in em: `/Widths`, else those of the standard font of that name.
fn widths(
    doc: &Document,
    font: &Dictionary,
    descriptor: Option<&Dictionary>,
    base: &str,
    chars: &[Option<char>; 256],
) -> [f32; 256] {
    let listed = get(doc, font, b"Widths").and_then(|widths| widths.as_array().ok());
    let missing = descriptor.and_then(|d| number(doc, d.get(b"MissingWidth").ok()?));
    let first = integer(doc, font, b"FirstChar").unwrap_or_default();
    let standard = Widths::of(base);
    std::array::from_fn(|code| {
        let thousandths = match listed {
            Some(listed) => {
                let at = usize::try_from(code as i64 - first.clamp(-256, 256)).ok();
                let width = at.and_then(|at| listed.get(at)).and_then(|width| number(doc, width));
                width.unwrap_or(missing.unwrap_or(0.0))
            }
            None => standard.get(code as u8, chars[code]),
        };
        thousandths / 1000.0
    })
}

fn type3_scale(doc: &Document, font: &Dictionary) -> f64 {
    let matrix = get(doc, font, b"FontMatrix").and_then(|matrix| matrix.as_array().ok());
    let scale = matrix.and_then(|matrix| number(doc, matrix.first()?));
    f64::from(scale.unwrap_or(0.001)).abs()
}

/// The em of a Type 3 font: letters are about half as wide.
fn type3_em(doc: &Document, font: &Dictionary, widths: &[f32; 256]) -> f64 {
    let used: Vec<f64> = widths.iter().map(|w| f64::from(*w)).filter(|w| *w > 0.0).collect();
    let mean = used.iter().sum::<f64>() / used.len().max(1) as f64;
    let em = mean * 1000.0 * type3_scale(doc, font) * 2.0;
    if em > 0.0 && em.is_finite() && !(0.5..=2.0).contains(&em) { em } else { 1.0 }
}

fn composite(doc: &Document, font: &Dictionary, kind: String) -> Font {
    let base = base_name(doc, font);
    let descendant = get(doc, font, b"DescendantFonts")
        .and_then(|list| list.as_array().ok())
        .and_then(|list| doc.dereference(list.first()?).ok())
        .and_then(|(_, object)| object.as_dict().ok());
    let descriptor = descendant.and_then(|d| dict(doc, d, b"FontDescriptor"));
    let flags = descriptor.and_then(|d| integer(doc, d, b"Flags")).unwrap_or_default();
    let program = descriptor.and_then(|d| program::read(doc, d));
    let unicode = stream(doc, font, b"ToUnicode").map(|data| ToUnicode::parse(&data));
    let unicode = unicode.unwrap_or_default();
    let codes = match get(doc, font, b"Encoding") {
        Some(Object::Name(name)) => Codes::named(name),
        Some(Object::Stream(stream)) => {
            Codes::parse(&inflate(stream, MOST_BYTES).unwrap_or_default())
        }
        _ => Codes::Identity,
    };
    let glyphs = match (&program, descendant) {
        (Some(program), Some(descendant)) if unicode.is_empty() => {
            program::cid_text(program, stream(doc, descendant, b"CIDToGIDMap").as_deref())
        }
        _ => HashMap::new(),
    };
    let default = descendant.and_then(|d| number(doc, d.get(b"DW").ok()?)).unwrap_or(1000.0);
    Font {
        style: Style::of(&base, flags),
        name: base,
        to_unicode: !unicode.is_empty(),
        embedded: program.is_some(),
        kind,
        em: 1.0,
        codes: Table::Composite(Box::new(Composite {
            codes,
            unicode,
            glyphs,
            default_width: default / 1000.0,
            widths: descendant.map(|d| cid_widths(doc, d)).unwrap_or_default(),
        })),
    }
}

/// `/W`: `first [w w w]` or `first last w`.
fn cid_widths(doc: &Document, font: &Dictionary) -> Vec<(u32, u32, f32)> {
    let mut out = Vec::new();
    let Some(Ok(list)) = get(doc, font, b"W").map(Object::as_array) else { return out };
    let mut items = list.iter().filter_map(|item| doc.dereference(item).ok()).map(|(_, item)| item);
    let cid = |object: &Object| object.as_i64().ok().and_then(|cid| u32::try_from(cid).ok());
    while let (Some(first), Some(next)) = (items.next(), items.next()) {
        let Some(first) = cid(first) else { continue };
        if let Ok(widths) = next.as_array() {
            for (at, width) in widths.iter().enumerate() {
                let cid = first.saturating_add(at as u32);
                if let Some(width) = number(doc, width) {
                    out.push((cid, cid, width / 1000.0));
                }
            }
        } else if let (Some(last), Some(width)) = (cid(next), items.next())
            && let Some(width) = number(doc, width)
        {
            out.push((first, last, width / 1000.0));
        }
    }
    out.sort_by_key(|range| range.0);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use lopdf::dictionary;

    fn text(font: &Font, mut bytes: &[u8]) -> String {
        let mut out = String::new();
        while !bytes.is_empty() {
            let shown = font.next(bytes, &mut out);
            if !shown.known {
                out.push('\u{fffd}');
            }
            bytes = &bytes[shown.len..];
        }
        out
    }

    #[test]
    fn differences_and_widths() {
        let doc = Document::with_version("1.5");
        let font = Font::load(
            &doc,
            &dictionary! {
                "Subtype" => "Type1", "BaseFont" => "ABCDEF+CMMI10", "FirstChar" => 11,
                "Widths" => vec![640.into(), 566.into()],
                "Encoding" => dictionary! {
                    "Differences" => vec![11.into(), "alpha".into(), "g999".into()],
                },
            },
        );
        assert_eq!(text(&font, b"\x0b\x0cA"), "α\u{fffd}A");
        assert_eq!(font.next(b"\x0c", &mut String::new()).width, f64::from(0.566f32));
        assert_eq!(font.name, "CMMI10");
        assert!(font.style.maths && !font.style.bold && !font.embedded);
    }

    #[test]
    fn built_in_encoding_of_a_type1_program() {
        let mut doc = Document::with_version("1.5");
        let program = b"/Encoding 256 array\ndup 21 /lambda put\nreadonly def eexec".to_vec();
        let program = doc.add_object(Stream::new(Dictionary::new(), program));
        let font = Font::load(
            &doc,
            &dictionary! {
                "Subtype" => "Type1", "BaseFont" => "Own",
                "FontDescriptor" => dictionary! { "Flags" => 4, "FontFile" => program },
            },
        );
        assert_eq!(text(&font, b"\x15"), "λ");
    }

    #[test]
    fn bitmap_fonts_are_read_in_tex_layout() {
        let doc = Document::with_version("1.5");
        let font = Font::load(
            &doc,
            &dictionary! {
                "Subtype" => "Type3", "FontMatrix" => vec![0.01.into(), 0.into(), 0.into(), 0.01.into()],
                "FirstChar" => 11, "Widths" => vec![58.into(), 55.into()],
                "Encoding" => dictionary! { "Differences" => vec![11.into(), "a11".into(), "a12".into()] },
            },
        );
        assert_eq!(text(&font, b"\x0b\x0c"), "\u{fb00}\u{fb01}");
        assert_eq!(tex_layout(&[28, 65, 200]), Encoding::T1);
        assert_eq!(tex_layout(&[28, 62, 65]), Encoding::T1);
        assert_eq!(tex_layout(&[12, 16, 62, 123]), Encoding::Ot1);
        assert_eq!(tex_layout(&[136, 169]), Encoding::Ts1);
        assert!((font.next(b"\x0b", &mut String::new()).width - 0.58).abs() < 1e-6);
    }

    #[test]
    fn composite_codes_widths_and_text() {
        let mut doc = Document::with_version("1.5");
        let map = b"1 beginbfrange <0003> <0005> <0041> endbfrange".to_vec();
        let map = doc.add_object(Stream::new(Dictionary::new(), map));
        let font = Font::load(
            &doc,
            &dictionary! {
                "Subtype" => "Type0", "Encoding" => "Identity-H", "ToUnicode" => map,
                "DescendantFonts" => vec![Object::Dictionary(dictionary! {
                    "Subtype" => "CIDFontType2",
                    "DW" => 500,
                    "W" => vec![3.into(), vec![250.into(), 300.into()].into(), 9.into(), 12.into(), 700.into()],
                })],
            },
        );
        assert_eq!(text(&font, b"\0\x03\0\x05\0\x06"), "AC\u{fffd}");
        let width = |cid: u8| font.next(&[0, cid], &mut String::new()).width;
        assert_eq!(
            [width(4), width(5), width(12)].map(|w| (w * 1000.0).round()),
            [300., 500., 700.]
        );
    }
}
