//! Whole documents, built here page by page.

use std::path::Path;

use lopdf::{Dictionary, Document, Object, ObjectId, Stream, dictionary};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::Extract;
use crate::testing::{Ran, run};
use crate::{Result, StageError};

/// A PDF with one page for each content. `resources` may add objects.
fn pdf(contents: &[&str], resources: impl FnOnce(&mut Document) -> Dictionary) -> Vec<u8> {
    save(document(contents, resources))
}

fn save(mut doc: Document) -> Vec<u8> {
    let mut bytes = Vec::new();
    doc.save_to(&mut bytes).expect("a document that can be written");
    bytes
}

fn document(contents: &[&str], resources: impl FnOnce(&mut Document) -> Dictionary) -> Document {
    let mut doc = Document::with_version("1.5");
    let resources = resources(&mut doc);
    let resources = doc.add_object(resources);
    let parent = doc.new_object_id();
    let kids: Vec<Object> = contents
        .iter()
        .map(|content| {
            let content =
                doc.add_object(Stream::new(Dictionary::new(), content.as_bytes().to_vec()));
            doc.add_object(
                dictionary! { "Type" => "Page", "Parent" => parent, "Contents" => content },
            )
            .into()
        })
        .collect();
    let tree = dictionary! {
        "Type" => "Pages", "Count" => kids.len() as i64, "Kids" => kids, "Resources" => resources,
        "MediaBox" => vec![0.into(), 0.into(), 600.into(), 800.into()],
    };
    doc.objects.insert(parent, Object::Dictionary(tree));
    let catalog = doc.add_object(dictionary! { "Type" => "Catalog", "Pages" => parent });
    doc.trailer.set("Root", catalog);
    doc
}

fn helvetica(_: &mut Document) -> Dictionary {
    fonts(dictionary! { "Type" => "Font", "Subtype" => "Type1", "BaseFont" => "Helvetica" })
}

fn fonts(font: Dictionary) -> Dictionary {
    dictionary! { "Font" => dictionary! { "F" => font } }
}

/// A font whose glyphs are all half an em wide.
fn half_wide(encoding: Vec<Object>, more: &[(&str, Object)]) -> Dictionary {
    let mut font = dictionary! {
        "Type" => "Font", "Subtype" => "Type1", "BaseFont" => "Test", "FirstChar" => 0,
        "Widths" => vec![Object::Integer(500); 256],
        "Encoding" => dictionary! { "Type" => "Encoding", "Differences" => encoding },
    };
    for (key, value) in more {
        font.set(*key, value.clone());
    }
    fonts(font)
}

fn extract(bytes: &[u8], params: Value) -> Result<Ran> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("paper.pdf");
    fs_err::write(&path, bytes)?;
    run::<Extract>(params, &[("documents", &path)])
}

fn text(bytes: &[u8]) -> String {
    let ran = extract(bytes, json!({})).expect("a readable PDF");
    read(&ran, "paper.txt")
}

fn read(ran: &Ran, name: &str) -> String {
    fs_err::read_to_string(ran.outputs["text"].join(name)).expect("an output")
}

fn sidecar(ran: &Ran) -> Value {
    serde_json::from_str(&read(ran, "paper.json")).expect("JSON")
}

fn refusal(bytes: &[u8], params: Value) -> (String, String) {
    let error = extract(bytes, params).err().expect("a refusal");
    assert!(matches!(error, StageError::BadInput { .. }), "{error:?}");
    (error.to_string(), error.help().unwrap_or_default().to_owned())
}

/// Lines of text, one below the other from `top`.
fn column(left: i32, top: i32, lines: &[&str]) -> String {
    let shown: String = lines.iter().map(|line| format!("({line}) Tj T* ")).collect();
    format!("BT /F 10 Tf 12 TL {left} {top} Td {shown}ET ")
}

#[test]
fn kerning_in_whole_and_real_numbers_makes_words() {
    let page = "BT /F 10 Tf 50 700 Td [(W)80(ord)-333(gaps)-300.5(of)-250.(r)20.0(eal)-310.75(size)] TJ ET";
    assert_eq!(text(&pdf(&[page], helvetica)), "Word gaps of real size\n");
}

#[test]
fn to_unicode_is_preferred_to_names() {
    let page = "BT /F 10 Tf 50 700 Td (A\\001B) Tj ET";
    let bytes = pdf(&[page], |doc| {
        let map = b"1 beginbfchar <01> <03B103B2> endbfchar".to_vec();
        let map = doc.add_object(Stream::new(Dictionary::new(), map));
        half_wide(vec![1.into(), "gamma".into()], &[("ToUnicode", map.into())])
    });
    assert_eq!(text(&bytes), "AαβB\n");
}

#[test]
fn names_of_differences_ligatures_and_maths() {
    let page = "BT /F 10 Tf 50 700 Td (e\\001cient \\002 \\003 0) Tj ET";
    let bytes = pdf(&[page], |_| {
        half_wide(vec![1.into(), "ffi".into(), "Sigma".into(), "lessequal".into()], &[])
    });
    assert_eq!(text(&bytes), "efficient Σ ≤ 0\n");
}

#[test]
fn unknown_glyphs_are_counted_and_seen() {
    let page = "BT /F 10 Tf 50 700 Td (abc\\001) Tj ET";
    let bytes = pdf(&[page], |_| half_wide(vec![1.into(), "g4711".into()], &[]));
    let ran = extract(&bytes, json!({})).expect("a text");
    assert_eq!(read(&ran, "paper.txt"), "abc\u{fffd}\n");
    assert_eq!(sidecar(&ran)["pages"][0]["understood"], 0.75);
    assert_eq!(ran.metrics["understood"], 0.75);
    assert!(ran.warnings[0].contains("25.0 %"), "{:?}", ran.warnings);
}

#[test]
fn scripts_are_marked_and_accents_composed() {
    let page = "BT /F 10 Tf 50 700 Td (x) Tj /F 7 Tf 3.6 Ts (2) Tj -1.5 Ts -3.5 0 Td 5 0 Td (t) Tj \
                /F 10 Tf 0 Ts 20 0 Td (caf) Tj [(\\302)500(e)] TJ ET";
    let bytes = pdf(&[page], |_| half_wide(vec![0o302.into(), "acute".into()], &[]));
    assert_eq!(text(&bytes), "x^{2}_{t} café\n");
}

#[test]
fn forms_are_entered_and_one_that_draws_itself_is_left() {
    let bytes = pdf(&["BT /F 10 Tf 50 700 Td (before) Tj ET /X Do"], |doc| {
        let form: ObjectId = doc.new_object_id();
        let mut resources = helvetica(doc);
        resources.set("XObject", dictionary! { "X" => form });
        let inner = dictionary! {
            "Type" => "XObject", "Subtype" => "Form", "Resources" => resources.clone(),
            "Matrix" => vec![1.into(), 0.into(), 0.into(), 1.into(), 0.into(), (-14).into()],
        };
        let content = b"BT /F 10 Tf 50 700 Td (within) Tj ET /X Do".to_vec();
        doc.objects.insert(form, Stream::new(inner, content).into());
        resources
    });
    let ran = extract(&bytes, json!({})).expect("a text");
    assert_eq!(read(&ran, "paper.txt"), "before within\n");
    assert_eq!(ran.warnings, ["paper.pdf: page 1: a form draws itself; that was left out"]);
}

#[test]
fn forms_that_double_at_each_level_end() {
    let bytes = pdf(&["BT /F 10 Tf 50 700 Td (start) Tj ET /X0 Do"], |doc| {
        let ids: Vec<ObjectId> = (0..40).map(|_| doc.new_object_id()).collect();
        let mut resources = helvetica(doc);
        let named = ids.iter().enumerate().map(|(at, id)| (format!("X{at}"), Object::from(*id)));
        resources.set("XObject", Dictionary::from_iter(named));
        for (at, id) in ids.iter().enumerate() {
            let dict = dictionary! { "Type" => "XObject", "Subtype" => "Form" };
            let content = format!("/X{0} Do /X{0} Do", at + 1).into_bytes();
            doc.objects.insert(*id, Stream::new(dict, content).into());
        }
        resources
    });
    let ran = extract(&bytes, json!({})).expect("a text");
    assert_eq!(read(&ran, "paper.txt"), "start\n");
    assert!(ran.warnings[0].contains("nested too deep"), "{:?}", ran.warnings);
}

#[test]
fn actual_text_takes_the_place_of_its_glyphs() {
    let page =
        "BT /F 10 Tf 50 700 Td (A) Tj /Span <</ActualText <FEFF03B1>>> BDC (zz) Tj EMC (B) Tj ET";
    assert_eq!(text(&pdf(&[page], helvetica)), "AαB\n");
}

#[test]
fn columns_are_read_one_after_the_other() {
    let left: Vec<String> = (0..8).map(|row| format!("left words here {row}")).collect();
    let right: Vec<String> = (0..8).map(|row| format!("right words here {row}")).collect();
    let mut zigzag = String::new();
    for row in 0..8 {
        let y = 700 - 12 * row;
        zigzag += &column(50, y, &[&left[row as usize]]);
        zigzag += &column(320, y, &[&right[row as usize]]);
    }
    let out = text(&pdf(&[&zigzag], helvetica));
    let want: Vec<&str> = left.iter().chain(&right).map(String::as_str).collect();
    assert_eq!(out.split_whitespace().collect::<Vec<_>>().join(" "), want.join(" "));
}

fn three_pages() -> Vec<u8> {
    let page = |number: usize, lines: &[&str]| {
        column(50, 770, &[&format!("A Running Head {number}")])
            + &column(50, 700, lines)
            + &column(295, 30, &[&number.to_string()])
    };
    let first =
        ["The estimate is far from the volati-", "lity of other days and the volatility of this"];
    let second = ["one is a long-", "term matter; a long-term matter is a slow"];
    let third = ["matter in the end of all things there are."];
    pdf(&[&page(1, &first), &page(2, &second), &page(3, &third)], helvetica)
}

#[test]
fn heads_feet_and_hyphens_go_and_offsets_point_to_pages() {
    let ran = extract(&three_pages(), json!({})).expect("a text");
    let out = read(&ran, "paper.txt");
    assert_eq!(
        out,
        "The estimate is far from the volatility of other days and the volatility of this one is a \
         long-term matter; a long-term matter is a slow matter in the end of all things there are.\n"
    );
    let about = sidecar(&ran);
    let from = |page: usize| {
        let offset = about["pages"][page]["offset"].as_u64().expect("an offset") as usize;
        out.chars().skip(offset).take(10).collect::<String>()
    };
    assert_eq!(from(0), "The estima");
    assert_eq!(from(1).trim_start(), "one is a ");
    assert_eq!(from(2).trim_start(), "matter in");
    assert_eq!(about["characters"], out.chars().count());
}

#[test]
fn parameters_keep_heads_and_hyphens() {
    let ran =
        extract(&three_pages(), json!({ "headers": "keep", "hyphens": "keep" })).expect("a text");
    let out = read(&ran, "paper.txt");
    assert!(out.starts_with("A Running Head 1") && out.contains("volati- lity"), "{out}");
}

#[test]
fn headings_and_paragraphs() {
    let page = "BT /F 18 Tf 50 750 Td (A Fine Title) Tj ET ".to_owned()
        + "BT /F 14 Tf 50 715 Td (1 Introduction) Tj ET "
        + &column(
            50,
            690,
            &["This is the first paragraph, and it goes on", "over two of the lines."],
        )
        + &column(50, 640, &["Far below, a second one."]);
    let ran = extract(&pdf(&[&page], helvetica), json!({})).expect("a text");
    assert_eq!(
        read(&ran, "paper.txt"),
        "# A Fine Title\n\n## 1 Introduction\n\nThis is the first paragraph, and it goes on over two \
         of the lines.\n\nFar below, a second one.\n"
    );
    let sections = &sidecar(&ran)["sections"];
    assert_eq!(sections[1], json!({ "title": "1 Introduction", "level": 2, "offset": 16 }));
}

#[test]
fn what_is_no_pdf_is_refused() {
    let (what, hint) = refusal(b"hello", json!({}));
    assert!(what.ends_with("paper.pdf: not a PDF: it does not begin with `%PDF-`"), "{what}");
    assert!(hint.contains(".md"));
}

#[test]
fn a_truncated_file_is_read_or_refused() {
    let whole = pdf(&[&column(50, 700, &["some words"])], helvetica);
    for len in [8, whole.len() / 4, whole.len() / 2, whole.len() - 40] {
        if let Err(error) = extract(&whole[..len], json!({})) {
            assert!(error.help().is_some(), "{error}");
        }
    }
    let (what, hint) = refusal(&whole[..60], json!({}));
    assert!(what.contains("paper.pdf: the PDF"), "{what}");
    assert!(hint.contains("truncated"), "{hint}");
}

#[test]
fn pictures_of_text_need_ocr() {
    let bytes = pdf(&["q 600 0 0 800 0 0 cm /I Do Q"], |doc| {
        let image =
            dictionary! { "Type" => "XObject", "Subtype" => "Image", "Width" => 1, "Height" => 1 };
        let image = doc.add_object(Stream::new(image, vec![0]));
        dictionary! { "XObject" => dictionary! { "I" => image } }
    });
    let (what, hint) = refusal(&bytes, json!({}));
    assert!(what.contains("needs OCR") && hint.contains("ocrmypdf"), "{what} {hint}");
}

#[test]
fn an_encrypted_file_opens_with_its_password_alone() {
    use lopdf::encryption::{EncryptionState, EncryptionVersion, Permissions};
    let mut doc = document(&[&column(50, 700, &["secret words"])], helvetica);
    let id = Object::string_literal(vec![7; 16]);
    doc.trailer.set("ID", vec![id.clone(), id]);
    let version = EncryptionVersion::V2 {
        document: &doc,
        owner_password: "owner",
        user_password: "user",
        key_length: 128,
        permissions: Permissions::all(),
    };
    let state = EncryptionState::try_from(version).expect("a state");
    doc.encrypt(&state).expect("an encrypted document");
    let bytes = save(doc);
    let (what, hint) = refusal(&bytes, json!({}));
    assert!(what.contains("is encrypted") && hint.contains("password"), "{what} {hint}");
    let (what, _) = refusal(&bytes, json!({ "password": "wrong" }));
    assert!(what.contains("does not open"), "{what}");
    let ran = extract(&bytes, json!({ "password": "user" })).expect("a text");
    assert_eq!(read(&ran, "paper.txt"), "secret words\n");
}

#[test]
fn markdown_passes_through() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("note.md");
    fs_err::write(&path, "# Note\n\nText.\n").expect("a file");
    let ran = run::<Extract>(json!({}), &[("documents", Path::new(&path))]).expect("a text");
    assert_eq!(read(&ran, "note.txt"), "# Note\n\nText.\n");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let mut file = b"%PDF-1.5\n".to_vec();
        file.extend(&bytes);
        let _ = extract(&file, json!({}));
    }

    #[test]
    fn no_damage_makes_it_panic(at in 0.0..1.0f64, with in proptest::collection::vec(any::<u8>(), 1..40)) {
        let mut file = three_pages();
        let at = (at * file.len() as f64) as usize;
        let end = (at + with.len()).min(file.len());
        file.splice(at..end, with);
        let _ = extract(&file, json!({}));
    }

    #[test]
    fn no_content_makes_it_panic(content in "([-0-9.]{1,6} |/F |\\[|\\]|\\(a\\\\1b\\)|<41>|<<|>>| q | Q | cm | BT | ET | Tf | Td | Tm | TJ | Tj | Do |BI | ID | EI ){0,80}") {
        let _ = extract(&pdf(&[&content], helvetica), json!({}));
    }
}

#[test]
fn fractions_and_limits_stay_on_their_line() {
    // 1 over n, the limits of a sum around its sign, then the summand.
    let page = "BT /F 10 Tf 1 0 0 1 100 706.8 Tm (1) Tj 1 0 0 1 100 693.2 Tm (n) Tj \
                /F 7 Tf 1 0 0 1 110 711 Tm (N) Tj /E 10 Tf 1 0 0 1 107 707.7 Tm (S) Tj \
                /F 7 Tf 1 0 0 1 107 689 Tm (t=1) Tj /F 10 Tf 1 0 0 1 119 700 Tm (x) Tj ET";
    let bytes = pdf(&[page], |_| {
        let font = |name: &str, glyph: &str| {
            let fonts = half_wide(vec![83.into(), glyph.into()], &[("BaseFont", name.into())]);
            let font = fonts.get(b"Font").and_then(|fonts| fonts.as_dict()?.get(b"F"));
            font.expect("a font").clone()
        };
        dictionary! { "Font" => dictionary! {
            "F" => font("CMR10", "S"), "E" => font("CMEX10", "summationdisplay"),
        } }
    });
    assert_eq!(text(&bytes), "1 / n ^{N}∑_{t=1}x\n");
}

#[test]
fn code_keeps_its_lines_and_its_shape() {
    let lines = ["# a comment", "if a == b:", "    return  1"];
    let font = dictionary! { "Type" => "Font", "Subtype" => "Type1", "BaseFont" => "Courier" };
    let bytes = pdf(&[&column(50, 700, &lines)], |_| fonts(font));
    assert_eq!(text(&bytes), "    # a comment\n    if a == b:\n        return  1\n");
}

#[test]
fn ghostscripts_maps_are_not_believed_over_names() {
    // `alpha` as U+00B3, its code with a bit gone astray; `eacute` is what it says.
    let page = "BT /F 10 Tf 50 700 Td (\\013 \\014) Tj ET";
    let bytes = pdf(&[page], |doc| {
        let map = b"2 beginbfchar <0b> <00b3> <0c> <00e9> endbfchar".to_vec();
        let map = doc.add_object(Stream::new(Dictionary::new(), map));
        let names = vec![11.into(), "alpha".into(), "eacute".into()];
        half_wide(names, &[("ToUnicode", map.into())])
    });
    assert_eq!(text(&bytes), "α é\n");
}

#[test]
fn a_turned_page_is_read_as_it_is_seen() {
    let page =
        "BT /F 10 Tf 0 1 -1 0 100 50 Tm (first line) Tj 0 1 -1 0 112 50 Tm (and second) Tj ET";
    let mut doc = document(&[page], helvetica);
    for object in doc.objects.values_mut() {
        if let Ok(page) = object.as_dict_mut()
            && page.has_type(b"Page")
        {
            page.set("Rotate", 90);
        }
    }
    assert_eq!(text(&save(doc)), "first line and second\n");
}
