//! Runs a page's content and notes each glyph that it shows: where, how large, and as which text.
//!
//! Graphics matter only as far as they move text. Form XObjects are entered, at most
//! [`DEEPEST_FORM`] deep and never one inside itself; every operator and every byte is paid from a
//! budget, so no page can hold the program up. Text is kept in the order in which the page draws
//! it: for typeset papers that is the reading order.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};

use lopdf::{Dictionary, Document, Object, ObjectId};

use super::content::{Lexer, Operand, Operands};
use super::font::{Font, inflate};

/// Form XObjects within Form XObjects.
const DEEPEST_FORM: usize = 16;
/// `q` without `Q`.
const DEEPEST_STATE: usize = 256;
/// An `/ActualText` over more glyphs than this is a paragraph; its glyphs are the better text.
const LONGEST_REPLACED: usize = 64;

/// A glyph on a page. Coordinates are in points, turned so that its baseline runs to the right.
#[derive(Clone, Copy, Debug)]
pub struct Glyph {
    /// Where it starts on the baseline.
    pub x: f32,
    /// Where its advance ends.
    pub end: f32,
    /// The baseline, upwards.
    pub y: f32,
    /// The em.
    pub size: f32,
    /// Its text in [`Page::text`].
    pub start: u32,
    /// Bytes of text.
    pub len: u16,
    /// Its font in [`Page::fonts`].
    pub font: u16,
    /// Quarter turns of its baseline, counter-clockwise.
    pub turn: u8,
    /// Part of a header, footer or watermark, by the file's own marks.
    pub artifact: bool,
}

/// What a page shows.
#[derive(Default)]
pub struct Page {
    /// In drawing order.
    pub glyphs: Vec<Glyph>,
    /// The glyphs' text.
    pub text: String,
    /// Fonts used, in order of first use.
    pub fonts: Vec<Arc<Font>>,
    /// Left, bottom, right, top of the page as it is seen.
    pub bounds: [f32; 4],
    /// Codes shown.
    pub shown: u64,
    /// Codes among them whose text is not known.
    pub unknown: u64,
    /// Images drawn.
    pub images: u64,
    /// What was left out.
    pub warnings: Vec<String>,
}

/// What a page may cost.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Operators.
    pub operators: u64,
    /// Bytes of content, of forms too.
    pub bytes: u64,
    /// Glyphs.
    pub glyphs: usize,
}

/// Fonts of a document, each loaded once.
#[derive(Default)]
pub struct Fonts(Mutex<HashMap<usize, Arc<OnceLock<Arc<Font>>>>>);

impl Fonts {
    /// The font that `dict`, a dictionary of the document, describes.
    fn get(&self, doc: &Document, dict: &Dictionary) -> Arc<Font> {
        let key = std::ptr::from_ref(dict) as usize;
        let cell = match self.0.lock() {
            Ok(mut map) => map.entry(key).or_default().clone(),
            Err(_) => Arc::default(),
        };
        cell.get_or_init(|| Arc::new(Font::load(doc, dict))).clone()
    }
}

/// An affine map: x' = a x + c y + e, y' = b x + d y + f.
type Matrix = [f64; 6];

const UNIT: Matrix = [1.0, 0.0, 0.0, 1.0, 0.0, 0.0];

/// First `m`, then `n`.
fn concat(m: Matrix, n: Matrix) -> Matrix {
    [
        m[0] * n[0] + m[1] * n[2],
        m[0] * n[1] + m[1] * n[3],
        m[2] * n[0] + m[3] * n[2],
        m[2] * n[1] + m[3] * n[3],
        m[4] * n[0] + m[5] * n[2] + n[4],
        m[4] * n[1] + m[5] * n[3] + n[5],
    ]
}

#[derive(Clone, Copy)]
struct State {
    ctm: Matrix,
    font: Option<u16>,
    size: f64,
    char_space: f64,
    word_space: f64,
    scale: f64,
    leading: f64,
    rise: f64,
}

/// An open marked-content sequence.
#[derive(Clone)]
enum Mark {
    Plain,
    Artifact,
    /// Replacement text, and how many glyphs there were before it.
    Actual(String, usize),
}

struct Interpreter<'a> {
    doc: &'a Document,
    fonts: &'a Fonts,
    /// Dictionaries of `page.fonts`, by address.
    loaded: Vec<usize>,
    page: Page,
    left: Budget,
    /// Forms that are being drawn.
    open: Vec<ObjectId>,
    marks: Vec<Mark>,
    artifacts: usize,
}

/// Runs the content of the page `id`.
pub fn interpret(doc: &Document, fonts: &Fonts, id: ObjectId, budget: Budget) -> Page {
    let mut run = Interpreter {
        doc,
        fonts,
        loaded: Vec::new(),
        page: Page::default(),
        left: budget,
        open: Vec::new(),
        marks: Vec::new(),
        artifacts: 0,
    };
    let Ok(page) = doc.get_dictionary(id) else {
        run.page.warnings.push("the page is missing".into());
        return run.page;
    };
    let (ctm, bounds) = frame(doc, page);
    run.page.bounds = bounds;
    let content = match doc.get_page_content_with_limit(id, budget.bytes as usize) {
        Ok(content) => content,
        Err(error) => {
            let why = std::error::Error::source(&error).map(|why| format!(", {why}"));
            let why = why.unwrap_or_default();
            run.page.warnings.push(format!("its content was left out: {error}{why}"));
            return run.page;
        }
    };
    let empty = Dictionary::new();
    let resources = inherited(doc, page, b"Resources").and_then(|found| found.as_dict().ok());
    run.run(&content, resources.unwrap_or(&empty), ctm);
    run.page
}

/// An attribute of a page that its ancestors may hold.
fn inherited<'a>(doc: &'a Document, page: &'a Dictionary, key: &[u8]) -> Option<&'a Object> {
    let mut node = page;
    for _ in 0..64 {
        match node.get_deref(key, doc) {
            Ok(found) if !found.is_null() => return Some(found),
            _ => node = node.get_deref(b"Parent", doc).ok()?.as_dict().ok()?,
        }
    }
    None
}

fn rectangle(doc: &Document, object: &Object) -> Option<[f64; 4]> {
    let corners = object.as_array().ok()?;
    let mut out = [0.0; 4];
    for (slot, corner) in out.iter_mut().zip(corners) {
        *slot = f64::from(doc.dereference(corner).ok()?.1.as_float().ok()?);
    }
    let [x0, y0, x1, y1] = out;
    let sorted = [x0.min(x1), y0.min(y1), x0.max(x1), y0.max(y1)];
    (sorted[2] - sorted[0] > 1.0 && sorted[3] - sorted[1] > 1.0).then_some(sorted)
}

/// The matrix that turns the page as `/Rotate` asks, and what is seen of it then.
fn frame(doc: &Document, page: &Dictionary) -> (Matrix, [f32; 4]) {
    let seen = [b"CropBox".as_slice(), b"MediaBox"].into_iter();
    let mut boxes = seen.filter_map(|key| rectangle(doc, inherited(doc, page, key)?));
    let [x0, y0, x1, y1] = boxes.next().unwrap_or([0.0, 0.0, 612.0, 792.0]);
    let turns = inherited(doc, page, b"Rotate").and_then(|turn| turn.as_i64().ok()).unwrap_or(0);
    let ctm = match turns.rem_euclid(360) {
        90 => [0.0, -1.0, 1.0, 0.0, 0.0, 0.0],
        180 => [-1.0, 0.0, 0.0, -1.0, 0.0, 0.0],
        270 => [0.0, 1.0, -1.0, 0.0, 0.0, 0.0],
        _ => UNIT,
    };
    let at = |x: f64, y: f64| (ctm[0] * x + ctm[2] * y, ctm[1] * x + ctm[3] * y);
    let ((xa, ya), (xb, yb)) = (at(x0, y0), at(x1, y1));
    (ctm, [xa.min(xb), ya.min(yb), xa.max(xb), ya.max(yb)].map(|value| value as f32))
}

/// A text string: UTF-16 or UTF-8 where it says so, else taken as Latin-1.
pub fn text_string(bytes: &[u8]) -> String {
    let mut out = String::new();
    match bytes {
        [0xfe, 0xff, rest @ ..] if rest.len() >= 2 => super::cmap::push_utf16(rest, &mut out),
        [0xef, 0xbb, 0xbf, rest @ ..] => out.push_str(&String::from_utf8_lossy(rest)),
        _ => out.extend(bytes.iter().map(|&byte| char::from(byte))),
    }
    out
}

impl<'a> Interpreter<'a> {
    fn run(&mut self, content: &[u8], resources: &'a Dictionary, ctm: Matrix) {
        let doc = self.doc;
        let mut state = State {
            ctm,
            font: None,
            size: 0.0,
            char_space: 0.0,
            word_space: 0.0,
            scale: 1.0,
            leading: 0.0,
            rise: 0.0,
        };
        let (mut text, mut line) = (UNIT, UNIT);
        let (mut stack, mut ignored) = (Vec::new(), 0usize);
        let marks = self.marks.len();
        let mut lexer = Lexer::new(content);
        let mut operands = Operands::default();
        while let Some(operator) = lexer.next(&mut operands) {
            if self.left.operators == 0 {
                self.warn("it has too many operators; the rest was left out");
                break;
            }
            self.left.operators -= 1;
            match operator {
                b"q" if stack.len() < DEEPEST_STATE => stack.push(state),
                b"q" => ignored += 1,
                b"Q" if ignored > 0 => ignored -= 1,
                b"Q" => state = stack.pop().unwrap_or(state),
                b"cm" => state.ctm = concat(operands.numbers::<6>(), state.ctm),
                b"BT" => (text, line) = (UNIT, UNIT),
                b"Tc" => [state.char_space] = operands.numbers(),
                b"Tw" => [state.word_space] = operands.numbers(),
                b"Tz" => state.scale = operands.numbers::<1>()[0] / 100.0,
                b"TL" => [state.leading] = operands.numbers(),
                b"Ts" => [state.rise] = operands.numbers(),
                b"Tf" => {
                    [state.size] = operands.numbers();
                    state.font = operands.name(0).and_then(|name| self.font(resources, name));
                }
                b"gs" => self.graphics_state(resources, &operands, &mut state),
                b"Td" | b"TD" => {
                    let [x, y] = operands.numbers();
                    if operator == b"TD" {
                        state.leading = -y;
                    }
                    line = concat([1.0, 0.0, 0.0, 1.0, x, y], line);
                    text = line;
                }
                b"Tm" => {
                    line = operands.numbers();
                    text = line;
                }
                b"T*" | b"'" | b"\"" => {
                    line = concat([1.0, 0.0, 0.0, 1.0, 0.0, -state.leading], line);
                    text = line;
                    if operator == b"\"" {
                        [state.word_space, state.char_space, _] = operands.numbers();
                    }
                    if operator != b"T*"
                        && let Some(last) = operands.items.last()
                    {
                        self.show(operands.text(*last).unwrap_or_default(), &state, &mut text);
                    }
                }
                b"Tj" => {
                    if let Some(last) = operands.items.last() {
                        self.show(operands.text(*last).unwrap_or_default(), &state, &mut text);
                    }
                }
                b"TJ" => {
                    for item in &operands.items {
                        if let Operand::Number(back) = item {
                            let x = -back / 1000.0 * state.size * state.scale;
                            text = concat([1.0, 0.0, 0.0, 1.0, x, 0.0], text);
                        } else if let Some(bytes) = operands.text(*item) {
                            self.show(bytes, &state, &mut text);
                        }
                    }
                }
                b"BMC" | b"BDC" => self.begin_mark(doc, resources, &operands),
                b"EMC" if self.marks.len() > marks => self.end_mark(),
                b"Do" => {
                    if let Some(name) = operands.name(0) {
                        self.draw(resources, name, state.ctm);
                    }
                }
                _ => {}
            }
        }
        while self.marks.len() > marks {
            self.end_mark();
        }
    }

    fn warn(&mut self, what: &str) {
        if !self.page.warnings.iter().any(|said| said == what) {
            self.page.warnings.push(what.to_owned());
        }
    }

    fn entry(&self, from: &'a Dictionary, class: &[u8], name: &[u8]) -> Option<&'a Object> {
        let class = from.get_deref(class, self.doc).ok()?.as_dict().ok()?;
        class.get_deref(name, self.doc).ok()
    }

    fn font(&mut self, resources: &'a Dictionary, name: &[u8]) -> Option<u16> {
        let dict = self.entry(resources, b"Font", name)?.as_dict().ok()?;
        self.load(dict)
    }

    fn load(&mut self, dict: &Dictionary) -> Option<u16> {
        let address = std::ptr::from_ref(dict) as usize;
        if let Some(at) = self.loaded.iter().position(|known| *known == address) {
            return u16::try_from(at).ok();
        }
        let at = u16::try_from(self.loaded.len()).ok()?;
        self.loaded.push(address);
        self.page.fonts.push(self.fonts.get(self.doc, dict));
        Some(at)
    }

    fn graphics_state(&mut self, from: &'a Dictionary, operands: &Operands, state: &mut State) {
        let doc = self.doc;
        let found = operands.name(0).and_then(|name| self.entry(from, b"ExtGState", name));
        let font = found
            .and_then(|found| found.as_dict().ok())
            .and_then(|found| found.get_deref(b"Font", doc).ok())
            .and_then(|font| font.as_array().ok());
        let Some([font, size]) = font.map(Vec::as_slice) else { return };
        if let (Ok((_, font)), Ok(size)) = (doc.dereference(font), size.as_float())
            && let Ok(font) = font.as_dict()
        {
            state.font = self.load(font);
            state.size = f64::from(size);
        }
    }

    /// Shows a string and moves the pen.
    fn show(&mut self, mut bytes: &[u8], state: &State, text: &mut Matrix) {
        let Some(index) = state.font else { return };
        let Some(font) = self.page.fonts.get(usize::from(index)).cloned() else { return };
        let combined = concat(*text, state.ctm);
        let (right, up) = ((combined[0], combined[1]), (combined[2], combined[3]));
        let forward = state.size * state.scale;
        let turn = turn_of(right.0 * forward.signum(), right.1 * forward.signum());
        let size = (up.0.hypot(up.1) * state.size * font.em).abs() as f32;
        let along = right.0.hypot(right.1) * forward.abs();
        // The pen moves along `right`; the origin is lifted by the rise.
        let mut origin = (combined[4] + up.0 * state.rise, combined[5] + up.1 * state.rise);
        let mut moved = 0.0;
        while !bytes.is_empty() {
            let start = self.page.text.len();
            let shown = font.next(bytes, &mut self.page.text);
            bytes = bytes.get(shown.len.max(1)..).unwrap_or_default();
            self.page.shown += 1;
            if !shown.known {
                self.page.unknown += 1;
                self.page.text.push('\u{fffd}');
            }
            let (x, y) = turned(origin, turn);
            let glyph = Glyph {
                x: x as f32,
                end: (x + shown.width * along) as f32,
                y: y as f32,
                size,
                start: start as u32,
                len: (self.page.text.len() - start).min(usize::from(u16::MAX)) as u16,
                font: index,
                turn,
                artifact: self.artifacts > 0,
            };
            if self.page.glyphs.len() >= self.left.glyphs {
                self.page.text.truncate(start);
                return self.warn("it has too many glyphs; the rest was left out");
            }
            if glyph.len > 0 && self.visible(origin, &glyph) {
                self.page.glyphs.push(glyph);
            }
            let space = if shown.space { state.word_space } else { 0.0 };
            let step = shown.width * forward + (state.char_space + space) * state.scale;
            moved += step;
            origin.0 += step * right.0;
            origin.1 += step * right.1;
        }
        *text = concat([1.0, 0.0, 0.0, 1.0, moved, 0.0], *text);
    }

    /// On the page, of a size, and with numbers that can be reckoned with.
    fn visible(&self, (x, y): (f64, f64), glyph: &Glyph) -> bool {
        let [left, bottom, right, top] = self.page.bounds.map(f64::from);
        let finite = [glyph.x, glyph.end, glyph.y, glyph.size].iter().all(|v| v.abs() < 1e6);
        let slack = 10.0;
        finite
            && glyph.size > 0.05
            && (left - slack..=right + slack).contains(&x)
            && (bottom - slack..=top + slack).contains(&y)
    }

    fn begin_mark(&mut self, doc: &'a Document, resources: &'a Dictionary, operands: &Operands) {
        let tag = operands.name(0).unwrap_or_default();
        let listed = operands.name(1).filter(|_| operands.items.len() == 2);
        let listed = listed.and_then(|name| self.entry(resources, b"Properties", name));
        let listed = listed.and_then(|found| found.as_dict().ok());
        let of_list = |key: &[u8]| listed.and_then(|list| list.get_deref(key, doc).ok());
        let actual = match operands.after(b"ActualText") {
            Some(text) => operands.text(text).map(text_string),
            None => of_list(b"ActualText").and_then(|text| text.as_str().ok()).map(text_string),
        };
        let is_name = |key: &[u8], want: &[&[u8]]| {
            let inline = operands.after(key).and_then(|value| match value {
                Operand::Name(..) => {
                    let at = operands.items.iter().position(|item| *item == value)?;
                    operands.name(at)
                }
                _ => None,
            });
            let found = inline.or_else(|| of_list(key)?.as_name().ok());
            found.is_some_and(|found| want.contains(&found))
        };
        let mark = if tag == b"Artifact"
            && (is_name(b"Type", &[b"Pagination"])
                || is_name(b"Subtype", &[b"Header", b"Footer", b"Watermark"]))
        {
            self.artifacts += 1;
            Mark::Artifact
        } else if let Some(text) = actual {
            Mark::Actual(text, self.page.glyphs.len())
        } else {
            Mark::Plain
        };
        if self.marks.len() < 1 << 16 {
            self.marks.push(mark);
        }
    }

    fn end_mark(&mut self) {
        match self.marks.pop() {
            Some(Mark::Artifact) => self.artifacts = self.artifacts.saturating_sub(1),
            Some(Mark::Actual(text, from)) => self.replace(&text, from),
            _ => {}
        }
    }

    /// Gives the glyphs since `from` the text `actual`, if they are a part of one line.
    fn replace(&mut self, actual: &str, from: usize) {
        let glyphs = self.page.glyphs.get(from..).unwrap_or_default();
        let Some(&first) = glyphs.first() else { return };
        let one_line =
            glyphs.iter().all(|g| (g.y - first.y).abs() < first.size && g.turn == first.turn);
        if !one_line || glyphs.len() > LONGEST_REPLACED || actual.len() > usize::from(u16::MAX) {
            return;
        }
        let end = glyphs.iter().fold(first.end, |end, g| end.max(g.end));
        let start = self.page.text.len() as u32;
        let unknown = glyphs.iter().filter(|g| self.text_of(g) == "\u{fffd}").count() as u64;
        self.page.unknown -= unknown.min(self.page.unknown);
        self.page.text.push_str(actual);
        self.page.glyphs.truncate(from);
        self.page.glyphs.push(Glyph { end, start, len: actual.len() as u16, ..first });
    }

    fn text_of(&self, glyph: &Glyph) -> &str {
        let start = glyph.start as usize;
        self.page.text.get(start..start + usize::from(glyph.len)).unwrap_or_default()
    }

    /// `Do`: enters a form, counts an image.
    fn draw(&mut self, resources: &'a Dictionary, name: &[u8], ctm: Matrix) {
        let doc = self.doc;
        let Some(object) = resources.get_deref(b"XObject", doc).ok() else { return };
        let Some(object) = object.as_dict().ok().and_then(|dict| dict.get(name).ok()) else {
            return;
        };
        let Ok((Some(id), Object::Stream(stream))) = doc.dereference(object) else { return };
        let kind = stream.dict.get_deref(b"Subtype", doc).ok().and_then(|kind| kind.as_name().ok());
        match kind {
            Some(b"Image") => return self.page.images += 1,
            Some(b"Form") => {}
            _ => return,
        }
        if self.open.contains(&id) {
            return self.warn("a form draws itself; that was left out");
        }
        if self.open.len() >= DEEPEST_FORM {
            return self.warn("forms are nested too deep; the innermost were left out");
        }
        let Some(content) = inflate(stream, self.left.bytes as usize) else {
            // Inflating in vain costs too.
            self.left.bytes /= 2;
            return self.warn("a form is too large or broken; it was left out");
        };
        self.left.bytes -= self.left.bytes.min(content.len() as u64);
        let matrix = stream.dict.get_deref(b"Matrix", doc).ok().and_then(|m| m.as_array().ok());
        let mut own = UNIT;
        for (slot, number) in own.iter_mut().zip(matrix.into_iter().flatten()) {
            let number = doc.dereference(number).ok().and_then(|(_, n)| n.as_float().ok());
            *slot = number.map_or(*slot, f64::from);
        }
        let inner = stream.dict.get_deref(b"Resources", doc).ok().and_then(|r| r.as_dict().ok());
        self.open.push(id);
        self.run(&content, inner.unwrap_or(resources), concat(own, ctm));
        self.open.pop();
    }
}

/// Quarter turns, counter-clockwise, of the direction (x, y).
fn turn_of(x: f64, y: f64) -> u8 {
    if y.abs() > x.abs() {
        if y > 0.0 { 1 } else { 3 }
    } else if x >= 0.0 {
        0
    } else {
        2
    }
}

/// The point turned back by quarter turns, so that its baseline runs to the right.
fn turned((x, y): (f64, f64), turn: u8) -> (f64, f64) {
    match turn {
        0 => (x, y),
        1 => (y, -x),
        2 => (-x, -y),
        _ => (-y, x),
    }
}
