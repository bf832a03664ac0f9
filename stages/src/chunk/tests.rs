use std::path::PathBuf;

use proptest::prelude::*;
use quantmill_cache::Digest;
use serde_json::{Value, json};

use super::divide::{Bounds, divide};
use super::{Chunking, Counter, Encoding, structure};
use crate::testing::{self, Ran};
use crate::{Kind, Result, Stage};

fn space(files: &[(&str, &str)]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("text");
    for (name, text) in files {
        let path = folder.join(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, text).unwrap();
    }
    (dir, folder)
}

fn run(params: Value, files: &[(&str, &str)]) -> Result<Ran> {
    let (_dir, folder) = space(files);
    testing::run::<Chunking>(params, &[("text", &folder)])
}

fn lines(ran: &Ran, output: &str) -> Vec<Value> {
    ran.text(output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn texts(ran: &Ran) -> Vec<String> {
    let text = |line: Value| line["text"].as_str().unwrap().to_owned();
    lines(ran, "chunks").into_iter().map(text).collect()
}

/// A paper of sections, paragraphs and sentences that differ.
fn paper(sections: usize, seed: usize) -> String {
    let nouns =
        ["volatility", "the spread", "order flow", "a long position", "the factor", "liquidity"];
    let verbs = ["explains", "predicts, in Fig. 2,", "exceeds", "follows (cf. Eq. 3)", "offsets"];
    let mut text = String::new();
    for section in 0..sections {
        text += &format!("# {section} Section of {seed}\n\n");
        for paragraph in 0..6 {
            for sentence in 0..7 {
                let i = section * 31 + paragraph * 7 + sentence * 3 + seed;
                let (noun, other) = (nouns[i % 6], nouns[(i / 6 + sentence) % 6]);
                text += &format!(
                    "In case {i} {noun} {} {other} at {}.5 per cent.\n",
                    verbs[i % 5],
                    i % 9
                );
            }
            text.push('\n');
        }
    }
    text
}

#[test]
fn chunks_are_in_range_and_end_at_sentences() {
    let (one, two) = (paper(12, 1), paper(7, 2));
    let ran = run(json!({}), &[("one.txt", &one), ("two.txt", &two)]).unwrap();
    let texts = texts(&ran);
    assert!(texts.len() > 4);
    let mut sum = 0.0;
    for text in &texts {
        let tokens = tiktoken_rs::o200k_base_singleton().encode_ordinary(text).len();
        assert!((800..=2000).contains(&tokens), "{tokens}");
        sum += tokens as f64;
    }
    assert_eq!(ran.metrics["documents"], 2.0);
    assert_eq!(ran.metrics["chunks"], texts.len() as f64);
    assert_eq!(ran.metrics["tokens"], sum);
    assert_eq!(ran.metrics["share_well_ended"], 1.0);
    assert_eq!(ran.metrics["out_of_range"], 0.0);
    assert!(ran.metrics["tokens_min"] >= 800.0 && ran.metrics["tokens_max"] <= 2000.0);
    assert!(ran.warnings.is_empty(), "{:?}", ran.warnings);
    // Sections are preferred.
    assert!(texts.iter().filter(|text| text.starts_with("# ")).count() * 2 > texts.len());
}

/// Whoever changes these bytes raises `Chunking::VERSION`, or caches keep the old ones.
#[test]
fn the_bytes_of_this_version() {
    let files = [("one.txt", paper(9, 1)), ("two.md", paper(4, 2)), ("three.txt", "Short.".into())];
    let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
    let ran = run(json!({ "overlap": 60 }), &files).unwrap();
    let digests = ["chunks", "index"].map(|name| Digest::of(ran.text(name).as_bytes()).short());
    assert_eq!((Chunking::VERSION, digests), (2, ["4ec057eb", "92d77228"].map(String::from)));
}

#[test]
fn the_index_says_where_a_chunk_comes_from() {
    let text = format!("Ünter einem Titel. {}", paper(9, 4));
    let at = |byte: usize| text[..byte].chars().count();
    let second = text.find("# 5").unwrap();
    let sidecar = json!({
        "pages": [
            { "number": 1, "offset": 0 },
            { "number": 2, "offset": at(text.len() / 2) },
            { "number": 3, "offset": at(text.len()) - 10 },
        ],
        "sections": [
            { "title": "First", "level": 1, "offset": 0 },
            { "title": "Inner", "level": 2, "offset": at(second) },
        ],
        "fonts": [],
        "source": "a.pdf",
        "extractor": 3,
    });
    let ran =
        run(json!({}), &[("sub/a.txt", &text), ("sub/a.json", &sidecar.to_string())]).unwrap();
    let texts = texts(&ran);
    let index = lines(&ran, "index");
    assert_eq!(index.len(), texts.len());
    let characters: Vec<char> = text.chars().collect();
    for (i, (origin, chunk)) in index.iter().zip(&texts).enumerate() {
        let place = |key: &str| origin[key].as_u64().unwrap() as usize;
        assert_eq!(origin["line"], i);
        assert_eq!(origin["document"], "sub/a");
        assert_eq!((&origin["source"], &origin["extractor"]), (&json!("a.pdf"), &json!(3)));
        assert_eq!(origin["digest"], json!(Digest::of(text.as_bytes())));
        assert_eq!(origin["encoding"], "o200k_base");
        let found: String = characters[place("start")..place("end")].iter().collect();
        assert_eq!(&found, chunk);
        assert_eq!(place("tokens"), Counter::of(Encoding::O200kBase).count(chunk) as usize);
    }
    assert_eq!(index[0]["pages"][0], 1);
    assert_eq!(index[0]["section"], json!(["First"]));
    let last = index.last().unwrap();
    assert_eq!(last["pages"][1], 3);
    assert_eq!(last["section"], json!(["First", "Inner"]));
    assert_eq!(last["ends"], "section");
}

#[test]
fn formulas_tables_and_code_stay_whole_while_they_fit() {
    let table: String = (0..40).map(|i| format!("| row {i} | {i}.25 | 0.{i} |\n")).collect();
    let code: String = (0..60).map(|i| format!("x{i} <- f(x, {i}). So\n")).collect();
    let mut text = String::new();
    for i in 0..12 {
        text += &format!(
            "{}\n{table}\nIt is\n\nr = α_{i} + βx_t + ε_t,\nσ_{i} = Σ_t x_t² (3)\n\n",
            paper(1, i)
        );
        text += &format!("where α is so. It\n\n```r\n{code}```\n\n");
    }
    let ran = run(json!({}), &[("a.txt", &text)]).unwrap();
    assert_eq!(ran.metrics["out_of_range"], 0.0);
    for chunk in texts(&ran) {
        let whole = chunk.matches("| row 0 |").count();
        assert_eq!(chunk.matches("| row 39 |").count(), whole, "{chunk}");
        assert_eq!(chunk.matches("```").count() % 2, 0, "{chunk}");
        assert_eq!(chunk.matches("r = α").count(), chunk.matches("where α").count(), "{chunk}");
    }
}

#[test]
fn a_table_longer_than_a_chunk_is_cut_between_its_lines() {
    let table: String = (0..400).map(|i| format!("| row {i} | {i}.25 | 0.{i} |\n")).collect();
    let ran = run(json!({}), &[("a.md", &table)]).unwrap();
    assert!(ran.metrics["chunks"] > 1.0);
    assert_eq!(ran.metrics["out_of_range"], 0.0);
    assert!(texts(&ran).iter().all(|text| text.starts_with('|') && text.ends_with('|')));
}

#[test]
fn an_overlap_repeats_whole_sentences() {
    let text = paper(12, 1);
    let ran = run(json!({ "overlap": 100 }), &[("a.txt", &text)]).unwrap();
    let texts = texts(&ran);
    let mut counter = Counter::of(Encoding::O200kBase);
    for pair in texts.windows(2) {
        let shared = (1..pair[1].len())
            .rev()
            .filter(|at| pair[1].is_char_boundary(*at))
            .find(|at| pair[0].ends_with(&pair[1][..*at]))
            .unwrap();
        let tokens = counter.count(&pair[1][..shared]);
        assert!((40..=100).contains(&tokens), "{tokens}");
        assert!(pair[1][..shared].ends_with('.'));
    }
    for text in texts {
        assert!((800..=2000).contains(&counter.count(&text)));
    }
}

#[test]
fn short_and_empty_documents_are_told() {
    let files = [
        ("a.txt", "Short one."),
        ("b.txt", " \n "),
        ("c.txt", "Short  one.\n"),
        ("d.txt", "Other."),
    ];
    let ran = run(json!({}), &files).unwrap();
    assert_eq!(texts(&ran), ["Short one.", "Short  one.", "Other."]);
    assert_eq!(ran.metrics["documents_short"], 3.0);
    assert_eq!(
        ran.warnings,
        [
            "documents shorter than 800 tokens were kept as one chunk each: 3 (a, c, d)",
            "documents without text: 1 (b)",
        ]
    );
    let long = paper(4, 1);
    let ran = run(json!({ "short": "drop" }), &[("a.txt", "Short."), ("b.txt", &long)]).unwrap();
    assert_eq!(ran.warnings, ["documents shorter than 800 tokens were left out: 1 (a)"]);
    assert!(texts(&ran).iter().all(|text| text != "Short."));
}

#[test]
fn what_is_wrong_is_said() {
    let fails = |params: Value, files: &[(&str, &str)]| {
        let error = run(params, files).err().unwrap();
        (error.to_string(), error.help().unwrap_or_default().to_owned())
    };
    let (what, help) = fails(json!({ "short": "drop" }), &[("a.txt", "Short.")]);
    assert_eq!(what, "1 documents gave no chunk");
    assert!(help.contains("800"));
    let (what, _) = fails(json!({}), &[("a.pdf", "%PDF")]);
    assert_eq!(what, "there is no text: no file ends in `.txt` or `.md`");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.txt");
    fs_err::write(&path, b"one\ntwo \xff\n").unwrap();
    let error = testing::run::<Chunking>(json!({}), &[("text", &path)]).err().unwrap();
    assert_eq!(error.to_string(), "a:2: the text is not UTF-8");
    let ran = run(json!({}), &[("a.txt", "Short."), ("a.json", "[1]")]).unwrap();
    assert!(ran.warnings[0].starts_with("a.json is not read"), "{:?}", ran.warnings);
}

#[test]
fn a_byte_order_mark_and_windows_lines_are_no_text() {
    let text = format!("\u{feff}{}", paper(4, 1).replace('\n', "\r\n"));
    let ran = run(json!({}), &[("a.txt", &text)]).unwrap();
    assert!(texts(&ran)[0].starts_with("# 0 Section"));
    assert_eq!(lines(&ran, "index")[0]["section"], json!(["0 Section of 1"]));
    assert_eq!(ran.metrics["share_well_ended"], 1.0);
}

#[test]
fn many_documents_keep_their_order() {
    let files: Vec<(String, String)> =
        (0..150).map(|i| (format!("{i:03}.txt"), format!("Document {i}. Short."))).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    let ran = run(json!({}), &files).unwrap();
    let expected: Vec<&str> = files.iter().map(|(_, text)| *text).collect();
    assert_eq!(texts(&ran), expected);
}

#[test]
fn parameters_that_cannot_hold_are_refused() {
    let resolve = |params: Value| (Kind::of::<Chunking>().resolve)(&params);
    let wrong = |params: Value| resolve(params).unwrap_err().path;
    assert_eq!(wrong(json!({ "min_tokens": 0 })), "min_tokens");
    assert_eq!(wrong(json!({ "min_tokens": 1001 })), "max_tokens");
    assert_eq!(wrong(json!({ "overlap": 401 })), "max_tokens");
    assert_eq!(wrong(json!({ "target_tokens": 100 })), "target_tokens");
    assert_eq!(wrong(json!({ "encoding": "o201k" })), "encoding");
    assert_eq!(wrong(json!({ "max_token": 9 })), "max_token");
    assert!(resolve(json!({ "overlap": 400, "encoding": "cl100k_base" })).is_ok());
}

/// Any text of words, marks, lines and symbols.
fn any_text() -> impl Strategy<Value = String> {
    let part = "([a-z]{1,9}[ ,]|[A-Z][a-z]{2,7} |[a-z]{2,6}\\. |et al\\. |\n\n|\n# |\n\\| [0-9.]{1,3} \\| |\
                x_t = β\\^2 \n|```\n|[0-9]{1,6} |文字。|\\PC{1,4}|[ \t]{1,3}|[a-zA-Z]{30,90})";
    (proptest::collection::vec(part, 1..12), 1..60_usize).prop_map(|(parts, times)| {
        let turn = |i: usize| parts.iter().cycle().skip(i).take(parts.len()).cloned();
        (0..times).flat_map(turn).collect()
    })
}

fn words(text: &str) -> String {
    text.split_whitespace().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn any_text_is_divided_in_range_without_loss(
        text in any_text(), min in 8..80_u32, room in 24..200_u32, overlap in prop_oneof![Just(0), 1..30_u32]
    ) {
        let max = 2 * min + overlap + room;
        let bounds = Bounds { min, max, target: max * 3 / 4, overlap };
        let mut counter = Counter::of(Encoding::O200kBase);
        let mut go = || {
            let cuts = structure::cuts(&text, None);
            divide::<()>(&text, cuts, bounds, &mut counter, |_| Ok(())).unwrap()
        };
        let chunks = go();
        prop_assert_eq!(&chunks, &go());
        let all: u32 = tiktoken_rs::o200k_base_singleton().encode_ordinary(text.trim()).len() as u32;
        let mut covered = 0;
        let mut joined = String::new();
        for chunk in &chunks {
            let own = &text[chunk.range.clone()];
            let tokens = tiktoken_rs::o200k_base_singleton().encode_ordinary(own).len() as u32;
            prop_assert_eq!(chunk.tokens, tokens);
            prop_assert_eq!(own.trim(), own);
            if all >= min {
                prop_assert!((min..=max).contains(&tokens), "{} not in {}..={}: {:?}", tokens, min, max, own);
            }
            let from = chunk.range.start.max(covered);
            if overlap == 0 {
                prop_assert_eq!(from, chunk.range.start);
            }
            joined.push_str(&text[from..chunk.range.end]);
            covered = chunk.range.end;
        }
        prop_assert_eq!(words(&joined), words(&text));
    }
}

#[test]
fn hostile_texts_are_divided_in_good_time() {
    let mut counter = Counter::of(Encoding::O200kBase);
    let bounds = Bounds { min: 800, max: 2000, target: 1500, overlap: 0 };
    for unit in [
        "a", "a ", "=", " \n", ". A", "x. ", "[", "```\n", "$$\n\n", "- a\n", "é", "a.", "文", "0 ",
    ] {
        let text = format!("a{}a", unit.repeat(120_000 / unit.len()));
        let cuts = structure::cuts(&text, None);
        let chunks = divide::<()>(&text, cuts, bounds, &mut counter, |_| Ok(())).unwrap();
        let outside: Vec<u32> = chunks
            .iter()
            .map(|chunk| chunk.tokens)
            .filter(|tokens| !(800..=2000).contains(tokens))
            .collect();
        // Of white space alone nothing is left to divide.
        let blank = unit.trim().is_empty();
        assert!(blank || outside.is_empty(), "{unit:?}: {outside:?} of {}", chunks.len());
    }
}

/// With a tokenizer of a file, counts are its own and ranges hold all the same.
#[cfg(feature = "lm")]
mod own_tokenizer {
    use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
    use tokenizers::pre_tokenizers::PreTokenizerWrapper;
    use tokenizers::pre_tokenizers::byte_level::ByteLevel;
    use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
    use tokenizers::{ModelWrapper, Tokenizer, models::TrainerWrapper};

    use super::*;

    /// BPE trained on papers, words cut by the given rule.
    fn trained(path: &std::path::Path, words: PreTokenizerWrapper) -> Tokenizer {
        let mut tokenizer = Tokenizer::new(ModelWrapper::from(BPE::default()));
        tokenizer.with_pre_tokenizer(Some(words));
        let trainer = BpeTrainerBuilder::new()
            .vocab_size(600)
            .show_progress(false)
            .special_tokens(vec![tokenizers::AddedToken::from("<|end|>", true)])
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .build();
        let texts = [paper(12, 1), paper(7, 2)];
        tokenizer.train(&mut TrainerWrapper::from(trainer), texts.iter()).unwrap();
        tokenizer.save(path, false).unwrap();
        tokenizer
    }

    #[test]
    fn chunks_are_in_range_by_its_own_count() {
        let bytes = PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, true, true));
        let spaces = Metaspace::new('\u{2581}', PrependScheme::Always, true);
        for (words, overlap) in [(bytes, 0), (PreTokenizerWrapper::Metaspace(spaces), 50)] {
            let text = format!("<|end|> {}é – x² {}", paper(12, 1), paper(5, 3));
            let (_dir, folder) = space(&[("a.txt", &text)]);
            let path = _dir.path().join("tokenizer.json");
            let tokenizer = trained(&path, words);
            let params = json!({ "encoding": "tokenizer", "min_tokens": 300, "max_tokens": 700, "overlap": overlap });
            let inputs = [("text", folder.as_path()), ("tokenizer", path.as_path())];
            let ran = testing::run::<Chunking>(params, &inputs).unwrap();
            assert_eq!(ran.metrics["out_of_range"], 0.0);
            assert_eq!(ran.metrics["share_well_ended"], 1.0);
            let mut plain = tokenizer.clone();
            plain.set_encode_special_tokens(true);
            for (chunk, origin) in texts(&ran).iter().zip(lines(&ran, "index")) {
                let own = plain.encode(chunk.as_str(), false).unwrap().len();
                assert_eq!(origin["tokens"], own);
                assert_eq!(origin["encoding"], "tokenizer");
                assert!((300..=700).contains(&own), "{own}");
            }
            assert!(texts(&ran).len() > 5);
        }
    }

    #[test]
    fn a_file_that_is_no_tokenizer_is_named() {
        let (_dir, folder) = space(&[("a.txt", "Text.")]);
        let path = _dir.path().join("tokenizer.json");
        fs_err::write(&path, "{}").unwrap();
        let inputs = [("text", folder.as_path()), ("tokenizer", path.as_path())];
        let error = testing::run::<Chunking>(json!({ "encoding": "tokenizer" }), &inputs);
        let error = error.err().unwrap().to_string();
        assert!(error.starts_with("tokenizer.json: this is no tokenizer"), "{error}");
    }
}
