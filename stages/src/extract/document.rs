//! A PDF from bytes to text: opens it, runs its pages, and says clearly why it cannot.
//!
//! Limits that no honest paper comes near stand here, so that a hostile file costs seconds and not
//! the machine.

use std::collections::BTreeMap;

use lopdf::{Document, LoadOptions, ObjectId};
use serde::Serialize;

use super::compose::{Composed, Section, compose};
use super::furniture::{self, Sheet};
use super::hyphen::Vocabulary;
use super::interpret::{Budget, Fonts, Page, interpret};
use super::language::language;
use super::layout;
use super::lines::{Line, lines};
use super::{Headers, Hyphens, Params, repair};
use crate::{Context, Result, StageError};

/// Pages beyond this are not read.
const MOST_PAGES: usize = 20_000;
/// A page's content, and each stream, may inflate to this.
const MOST_BYTES: u64 = 64 << 20;
/// An object stream or cross-reference stream may inflate to this; several are open at once.
const MOST_OBJECTS: usize = 16 << 20;
/// What all pages may cost together; a page gets its share, and no more than a page may have.
const ALL: Budget = Budget { operators: 200_000_000, bytes: 4 << 30, glyphs: 20_000_000 };
const ONE: Budget = Budget { operators: 8_000_000, bytes: MOST_BYTES, glyphs: 1_000_000 };

/// What stands beside a text: where its parts are and how well it was understood.
#[derive(Debug, Default, Serialize)]
pub struct Sidecar {
    /// The file's name.
    pub source: String,
    /// Version of the extractor.
    pub extractor: u32,
    /// ISO 639-3 code of the language, where it is sure.
    pub language: Option<&'static str>,
    /// Characters (Unicode scalar values) of the text.
    pub characters: usize,
    /// Share of all glyphs whose character is known.
    pub understood: f64,
    /// Pages in order.
    pub pages: Vec<PageInfo>,
    /// Headings in order.
    pub sections: Vec<Section>,
    /// Fonts by name.
    pub fonts: Vec<FontInfo>,
    /// What was left out or may be wrong.
    pub warnings: Vec<String>,
}

/// A page of a text.
#[derive(Debug, Serialize)]
pub struct PageInfo {
    /// From 1.
    pub number: usize,
    /// Characters of the text before it.
    pub offset: usize,
    /// Glyphs shown.
    pub glyphs: u64,
    /// Share of them whose character is known; 1 on an empty page.
    pub understood: f64,
}

/// A font of a document.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct FontInfo {
    /// Its name.
    pub name: String,
    /// Type1, TrueType, Type3 or Type0.
    pub kind: String,
    /// Its program is in the file.
    pub embedded: bool,
    /// It has a ToUnicode map.
    pub to_unicode: bool,
}

/// Opens a PDF and lists its pages. `name` stands for it in errors. Where the file is damaged, so that
/// pages may be missing, a warning says so.
fn open(bytes: &[u8], name: &str, password: Option<&str>) -> Result<Opened> {
    let head = bytes.get(..1024.min(bytes.len())).unwrap_or_default();
    if !head.windows(5).any(|window| window == b"%PDF-") {
        return Err(StageError::bad(name, "not a PDF: it does not begin with `%PDF-`")
            .hint("extract reads .pdf, .txt, .md, .tex, .html and .ipynb files"));
    }
    let locked = || {
        StageError::bad(name, "the PDF is encrypted")
            .hint("give its password as `with: { password: ... }`, or decrypt the file first")
    };
    let wrong = || {
        StageError::bad(name, "the password does not open the PDF")
            .hint("check `password`; both the user and the owner password work")
    };
    let options = LoadOptions {
        password: password.map(str::to_owned),
        max_decompressed_size: Some(MOST_OBJECTS),
        ..LoadOptions::default()
    };
    let read = Document::load_mem_with_options(bytes, options);
    match &read {
        Ok(document)
            if document.is_encrypted()
                && (document.objects.len() <= 1 || !document.was_encrypted()) =>
        {
            return Err(locked());
        }
        Err(lopdf::Error::InvalidPassword | lopdf::Error::Decryption(_)) => {
            return Err(if password.is_some() { wrong() } else { locked() });
        }
        _ => {}
    }
    let listed = |document: &Document| document.page_iter().take(MOST_PAGES).collect::<Vec<_>>();
    let mut best = match read {
        Ok(document) if document.xref_recovery.is_none() && !short_of_pages(&document) => {
            let pages = listed(&document);
            return Ok(Opened { document, pages, damaged: None });
        }
        Ok(document) => {
            let mut pages = repair::pages(&document);
            if pages.is_empty() {
                pages = listed(&document);
            }
            let damaged = Some("its cross-reference table or page tree is damaged".to_owned());
            Opened { document, pages, damaged }
        }
        Err(error) => Opened {
            document: Document::new(),
            pages: Vec::new(),
            damaged: Some(error.to_string()),
        },
    };
    if let Some(document) = repair::rebuilt(bytes, MOST_OBJECTS) {
        let pages = repair::pages(&document);
        if pages.len() > best.pages.len() {
            best = Opened { document, pages, ..best };
        }
    }
    best.pages.truncate(MOST_PAGES);
    if best.pages.is_empty() {
        let why = best.damaged.filter(|_| best.document.objects.is_empty());
        let why = why.map(|why| format!("the PDF cannot be read: {why}"));
        return Err(StageError::bad(name, why.unwrap_or("the PDF has no pages".into()))
            .hint("it may be truncated or damaged; download it again, or repair it with `qpdf`"));
    }
    Ok(best)
}

/// A PDF that could be opened.
struct Opened {
    document: Document,
    pages: Vec<ObjectId>,
    /// How it is damaged.
    damaged: Option<String>,
}

/// Whether the page tree leads to no page, or to fewer than it says.
fn short_of_pages(document: &Document) -> bool {
    let tree = document.catalog().and_then(|c| c.get_deref(b"Pages", document)?.as_dict());
    let count = tree.and_then(|tree| tree.get_deref(b"Count", document)?.as_i64()).unwrap_or(1);
    let want = usize::try_from(count).unwrap_or(1).clamp(1, MOST_PAGES);
    document.page_iter().take(want).count() < want
}

/// What is kept of a page after its glyphs are lines.
struct Read {
    lines: Vec<Line>,
    bounds: [f32; 4],
    shown: u64,
    unknown: u64,
    images: u64,
    fonts: Vec<FontInfo>,
    warnings: Vec<String>,
}

fn read(page: Page) -> Read {
    let lines = layout::order(upright_first(lines(&page)));
    let fonts = page.fonts.iter().map(|font| FontInfo {
        name: font.name.clone(),
        kind: font.kind.clone(),
        embedded: font.embedded,
        to_unicode: font.to_unicode,
    });
    Read {
        lines,
        fonts: fonts.collect(),
        bounds: page.bounds,
        shown: page.shown,
        unknown: page.unknown,
        images: page.images,
        warnings: page.warnings,
    }
}

/// Lines of the direction that most of the page has first, then those turned otherwise.
fn upright_first(lines: Vec<Line>) -> Vec<Line> {
    let mut counts = [0u64; 4];
    for line in &lines {
        counts[usize::from(line.turn % 4)] += u64::from(line.glyphs);
    }
    if counts[0] == counts.iter().sum::<u64>() {
        return lines;
    }
    let main = (0..4u8).max_by_key(|turn| (counts[usize::from(*turn)], 4 - *turn)).unwrap_or(0);
    let (mut first, rest): (Vec<_>, Vec<_>) = lines.into_iter().partition(|l| l.turn == main);
    first.extend(rest);
    first
}

fn share(shown: u64, unknown: u64) -> f64 {
    if shown == 0 { 1.0 } else { (shown - unknown.min(shown)) as f64 / shown as f64 }
}

/// The text of a PDF and its sidecar.
pub fn extract(
    bytes: &[u8],
    name: &str,
    params: &Params,
    ctx: &Context,
) -> Result<(String, Sidecar)> {
    let Opened { document, pages: ids, damaged } = open(bytes, name, params.password.as_deref())?;
    let count = ids.len() as u64;
    let budget = Budget {
        operators: ONE.operators.min(ALL.operators / count),
        bytes: ONE.bytes.min(ALL.bytes / count),
        glyphs: ONE.glyphs.min(ALL.glyphs / ids.len()),
    };
    let fonts = Fonts::default();
    let mut reads = Vec::with_capacity(ids.len());
    for (at, id) in ids.iter().enumerate() {
        ctx.progress(at as u64, count, "pages", name)?;
        reads.push(read(interpret(&document, &fonts, *id, budget)));
    }
    ctx.progress(count, count, "pages", name)?;

    let mut warnings = Vec::new();
    if let Some(why) = &damaged {
        warnings.push(format!("the file is damaged ({why}); pages may be missing"));
    }
    for (at, read) in reads.iter().enumerate() {
        warnings.extend(read.warnings.iter().map(|what| format!("page {}: {what}", at + 1)));
    }
    if reads.iter().all(|read| read.lines.is_empty()) {
        if let Some(why) = damaged {
            let why = format!("the file is damaged ({why}), and no text of it can be found");
            return Err(StageError::bad(name, why).hint("fetch it again, or find another copy"));
        }
        return Err(match reads.iter().map(|read| read.images).sum::<u64>() {
            0 => StageError::bad(name, "the PDF has no text")
                .hint(warnings.last().cloned().unwrap_or("its pages are empty".into())),
            images => StageError::bad(name, format!("no text, only {images} images: it needs OCR"))
                .hint("run an OCR program such as `ocrmypdf` on it first"),
        });
    }
    let bare = reads.iter().filter(|read| read.lines.is_empty() && read.images > 0).count();
    if bare > 0 {
        warnings.push(format!("{bare} pages have images and no text: they need OCR"));
    }

    if params.headers == Headers::Remove {
        remove_furniture(&mut reads);
    }
    let mut pages = Vec::with_capacity(reads.len());
    let mut infos = Vec::with_capacity(reads.len());
    let mut found: BTreeMap<FontInfo, ()> = BTreeMap::new();
    let (mut shown, mut unknown) = (0, 0);
    for (at, read) in reads.into_iter().enumerate() {
        let understood = share(read.shown, read.unknown);
        infos.push(PageInfo { number: at + 1, offset: 0, glyphs: read.shown, understood });
        found.extend(read.fonts.into_iter().map(|font| (font, ())));
        shown += read.shown;
        unknown += read.unknown;
        pages.push(read.lines);
    }
    let words = (params.hyphens == Hyphens::Join)
        .then(|| Vocabulary::of(pages.iter().flatten().map(|line| line.text.as_str())));
    let Composed { text, pages: offsets, sections } = compose(&pages, words.as_ref());
    for (info, offset) in infos.iter_mut().zip(offsets) {
        info.offset = offset;
    }
    let understood = share(shown, unknown);
    if !text.chars().any(char::is_alphanumeric) {
        return Err(StageError::bad(name, "no glyph of the PDF has a known character").hint(
            "its fonts lack what says so, or are lost; run an OCR program such as `ocrmypdf`",
        ));
    }
    if understood < 0.98 {
        let percent = (1.0 - understood) * 100.0;
        warnings.push(format!("{percent:.1} % of the glyphs have no known character (U+FFFD)"));
    }
    let sidecar = Sidecar {
        source: name.into(),
        extractor: super::VERSION,
        language: language(&text),
        characters: text.chars().count(),
        understood,
        pages: infos,
        sections,
        fonts: found.into_keys().collect(),
        warnings,
    };
    Ok((text, sidecar))
}

fn remove_furniture(reads: &mut [Read]) {
    let sheets: Vec<Sheet<'_>> = reads
        .iter()
        .map(|read| Sheet { bounds: (read.bounds[1], read.bounds[3]), lines: &read.lines })
        .collect();
    let found = furniture::find(&sheets);
    for (read, found) in reads.iter_mut().zip(found) {
        let mut at = 0;
        read.lines.retain(|_| {
            at += 1;
            !found.contains(&(at - 1))
        });
    }
}
