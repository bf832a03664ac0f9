use std::path::Path;

use quantmill_cache::Digest;
use serde_json::{Value, json};

use super::Curate;
use super::words::mix;
use crate::chunk::Chunking;
use crate::testing::{self, Ran};
use crate::{Kind, Result, Stage};

/// `count` sentences that differ from those of any other seed.
pub fn prose(seed: u64, count: u64) -> String {
    let nouns = "spread,order flow,factor,volatility,hedge,book,dealer,auction,yield,margin,price,trade,model,\
                 estimate,quote,premium,regime,test,sample,portfolio,liquidity,signal,forecast,return";
    let verbs = "follows,leads,explains,exceeds,offsets,widens,predicts,reverses,drives,absorbs,dampens,confirms";
    let links = "because,although,so that,while,before,once,whenever,unless";
    let (nouns, verbs): (Vec<&str>, Vec<&str>) =
        (nouns.split(',').collect(), verbs.split(',').collect());
    let links: Vec<&str> = links.split(',').collect();
    let sentence = |i: u64| {
        let mut state = mix(seed << 32 | i);
        let mut next = |list: &[&'static str]| {
            state = mix(state.wrapping_add(0x9e37_79b9_7f4a_7c15));
            list[state as usize % list.len()]
        };
        let [a, b, c, d, e, f] = [(); 6].map(|()| next(&nouns));
        let [v, w] = [(); 2].map(|()| next(&verbs));
        let link = next(&links);
        format!(
            "In study {seed} the {a} {v} the {b} of a {c} {link} the {d} {w} the {e} of a {f}. "
        )
    };
    (0..count).map(sentence).collect()
}

/// Writes chunks as `chunk` would: name of the document and text of each.
fn given(dir: &Path, chunks: &[(&str, String)]) {
    let mut lines = (String::new(), String::new());
    for (i, (document, text)) in chunks.iter().enumerate() {
        lines.0 += &format!("{}\n", json!({ "text": text }));
        let origin = json!({
            "line": i, "document": document, "digest": Digest::of(document.as_bytes()), "start": 0,
            "end": text.chars().count(), "pages": [1, 2], "section": ["One", "Two"],
            "tokens": text.len() / 4, "encoding": "o200k_base", "ends": "section",
        });
        lines.1 += &format!("{origin}\n");
    }
    fs_err::write(dir.join("chunks.jsonl"), lines.0).unwrap();
    fs_err::write(dir.join("index.jsonl"), lines.1).unwrap();
}

fn run(params: Value, chunks: &[(&str, String)], evaluation: Option<&str>) -> Result<Ran> {
    let dir = tempfile::tempdir().unwrap();
    given(dir.path(), chunks);
    let path = |name: &str| dir.path().join(name);
    let (one, two, three) = (path("chunks.jsonl"), path("index.jsonl"), path("eval.jsonl"));
    let mut inputs = vec![("chunks", one.as_path()), ("index", two.as_path())];
    if let Some(text) = evaluation {
        fs_err::write(&three, text).unwrap();
        inputs.push(("evaluation", &three));
    }
    testing::run::<Curate>(params, &inputs)
}

fn lines(ran: &Ran, name: &str) -> Vec<Value> {
    let text = fs_err::read_to_string(ran.outputs["dataset"].join(name)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The texts of the lines, which hold nothing else.
fn texts(ran: &Ran, output: &str) -> Vec<String> {
    let text = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(line.as_object().unwrap().len(), 1);
        line["text"].as_str().unwrap().to_owned()
    };
    ran.text(output).lines().map(text).collect()
}

/// Everything that a chunk can be left out for, in order.
fn mixed() -> Vec<(&'static str, String)> {
    let german = "Die Rendite der Anleihe hängt von dem Zins und von der Laufzeit ab, und der Markt \
                  preist das Risiko nicht immer richtig ein, weil die Händler unsicher sind. ";
    let quoted = "it was the best of trades it was the worst of trades they said";
    vec![
        ("a", prose(1, 40)),
        ("b", prose(2, 40)),
        ("b", format!("  {}\n", prose(1, 40).to_uppercase())),
        ("c", german.to_owned() + &prose(3, 1).replace(' ', "") + german),
        ("d", "7 ".repeat(80)),
        ("e", prose(4, 40) + "And so it ends."),
        ("f", prose(4, 40) + "And so it goes on."),
        ("g", prose(5, 40)),
        ("g", prose(6, 20) + "Old: " + quoted + ". " + &prose(7, 20)),
        ("h", prose(8, 40)),
        ("h", prose(2, 40) + "More."),
    ]
}

#[test]
fn each_reason_takes_what_it_is_for() {
    let evaluation = format!(
        "{}\n",
        json!({ "q": "It was the best of trades, it was the worst of trades: they said." })
    );
    let params = json!({ "languages": ["eng"], "validation": 0.3 });
    let ran = run(params, &mixed(), Some(&evaluation)).unwrap();
    let removed: Vec<(u64, String)> = lines(&ran, "removed.jsonl")
        .iter()
        .map(|line| (line["chunk"].as_u64().unwrap(), line["reason"].as_str().unwrap().into()))
        .collect();
    let expected = [
        (2, "exact_duplicate"),
        (3, "language"),
        (4, "quality"),
        (6, "near_duplicate_document"),
        (8, "contamination"),
        (10, "near_duplicate"),
    ];
    assert_eq!(removed, expected.map(|(chunk, reason)| (chunk, reason.to_owned())));
    for (_, reason) in expected {
        assert_eq!(ran.metrics[&format!("removed_{reason}")], 1.0, "{reason}");
    }
    let index = lines(&ran, "index.jsonl");
    let (train, validation) = (texts(&ran, "train"), texts(&ran, "validation"));
    assert_eq!((train.len() + validation.len(), index.len()), (5, 5));
    assert_eq!(ran.metrics["train_chunks"], train.len() as f64);
    let given = mixed();
    for line in &index {
        let at = line["line"].as_u64().unwrap() as usize;
        let from = line["chunk"].as_u64().unwrap() as usize;
        let own = if line["split"] == "train" { &train } else { &validation };
        assert_eq!(own[at], given[from].1);
        assert_eq!(line["document"], given[from].0);
        assert_eq!(line["language"], "eng");
    }
    // b repeats a, and h repeats b: the three go together.
    let side = |document: &str| {
        let line = index.iter().find(|line| line["document"] == document).unwrap();
        (line["split"].clone(), line["group"].clone())
    };
    assert_eq!(side("a"), side("b"));
    assert_eq!(side("a"), side("h"));
    assert_eq!(side("a").1, "a");
}

/// A document in German whose one chunk in English stands in another document too: the language
/// takes the first, so the second stays.
#[test]
fn of_the_same_text_twice_one_is_left() {
    let german = "Die Rendite der Anleihe hängt von dem Zins und von der Laufzeit ab, und der Markt \
                  preist das Risiko nicht immer richtig ein, weil die Händler unsicher sind. ";
    let chunks =
        [("a", german.repeat(20)), ("a", prose(1, 10)), ("b", prose(1, 10)), ("b", prose(1, 10))];
    let params = json!({
        "languages": ["eng"], "validation": 0, "quality": null, "near_duplicates": null
    });
    let ran = run(params, &chunks, None).unwrap();
    assert_eq!(texts(&ran, "train"), [prose(1, 10)]);
    assert_eq!(ran.metrics["removed_exact_duplicate"], 1.0);
    assert_eq!(ran.metrics["removed_language"], 2.0);
}

#[test]
fn without_rules_all_is_kept_in_order() {
    let params = json!({
        "exact_duplicates": false, "quality": null, "near_duplicates": null, "validation": 0
    });
    let ran = run(params, &mixed(), None).unwrap();
    let expected: Vec<String> = mixed().into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts(&ran, "train"), expected);
    assert_eq!(ran.text("validation"), "");
    assert!(!ran.outputs["dataset"].join("validation.parquet").exists());
    assert!(ran.warnings.is_empty());
}

#[test]
fn the_card_counts() {
    let ran =
        run(json!({ "title": "Papers: one", "license": "cc-by-4.0" }), &mixed(), None).unwrap();
    let card = fs_err::read_to_string(ran.outputs["dataset"].join("README.md")).unwrap();
    for part in [
        "---\npretty_name: \"Papers: one\"\nlicense: \"cc-by-4.0\"\nconfigs:",
        "path: train.parquet",
        "\n# Papers: one\n",
        "| given | 11 | ",
        "| exact duplicate | 1 | ",
        "| near duplicate document | 1 | ",
        "| contamination | 0 | 0 |",
        "`min_word_length` 1",
        "No evaluation was given",
        "   tokens  chunks\n",
        "| section | 6 | 100.0 % |",
        "| eng | ",
        "\"threshold\": 0.8",
    ] {
        assert!(card.contains(part), "{part} is not in\n{card}");
    }
    let sum: f64 = lines(&ran, "index.jsonl").iter().map(|l| l["tokens"].as_f64().unwrap()).sum();
    assert_eq!(sum, ran.metrics["train_tokens"] + ran.metrics["validation_tokens"]);
}

#[test]
fn parquet_holds_what_the_lines_hold() {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::Row;
    let mut chunks = mixed();
    chunks.truncate(2);
    let ran = run(json!({ "validation": 0 }), &chunks, None).unwrap();
    let path = ran.outputs["dataset"].join("train.parquet");
    let reader = SerializedFileReader::new(std::fs::File::open(path).unwrap()).unwrap();
    let rows: Vec<Row> = reader.get_row_iter(None).unwrap().map(|row| row.unwrap()).collect();
    let digest = Digest::of(b"b").to_string();
    let (text, length) = (&chunks[1].1, chunks[1].1.len());
    let expected = [
        ("text", format!("{text:?}")),
        ("document", "\"b\"".into()),
        ("source", "null".into()),
        ("digest", format!("{digest:?}")),
        ("section", "\"One > Two\"".into()),
        ("first_page", "1".into()),
        ("last_page", "2".into()),
        ("start", "0".into()),
        ("end", length.to_string()),
        ("tokens", (length / 4).to_string()),
        ("language", "\"eng\"".into()),
        ("group", "\"b\"".into()),
    ];
    assert_eq!(rows.len(), 2);
    let found = rows[1].get_column_iter().map(|(name, field)| (name.as_str(), field.to_string()));
    assert_eq!(found.collect::<Vec<_>>(), expected);
}

/// Whoever changes these bytes raises `Curate::VERSION`, or caches keep the old ones.
#[test]
fn the_bytes_of_this_version() {
    let ran = run(json!({ "validation": 0.3 }), &mixed(), None).unwrap();
    let mut all = String::new();
    for name in ["index.jsonl", "removed.jsonl", "README.md", "train.parquet"] {
        let bytes = fs_err::read(ran.outputs["dataset"].join(name)).unwrap();
        all += &format!("{}\n", Digest::of(&bytes));
    }
    all += &(ran.text("train") + &ran.text("validation"));
    assert_eq!((Curate::VERSION, Digest::of(all.as_bytes()).short()), (2, "c56473e1".into()));
}

#[test]
fn it_takes_what_chunk_gives() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["one", "two", "three"] {
        fs_err::write(dir.path().join(name).with_extension("txt"), prose(name.len() as u64, 300))
            .unwrap();
    }
    let chunked = testing::run::<Chunking>(json!({}), &[("text", dir.path())]).unwrap();
    let inputs = ["chunks", "index"].map(|name| (name, chunked.outputs[name].as_path()));
    let ran = testing::run::<Curate>(json!({}), &inputs).unwrap();
    assert_eq!(ran.metrics["chunks_in"], chunked.metrics["chunks"]);
    assert_eq!(
        ran.metrics["train_chunks"] + ran.metrics["validation_chunks"],
        chunked.metrics["chunks"]
            - ran.metrics["removed_exact_duplicate"]
            - ran.metrics["removed_near_duplicate_document"]
    );
}

#[test]
fn what_is_wrong_is_said() {
    let wrong = |params: Value| (Kind::of::<Curate>().resolve)(&params).unwrap_err();
    assert_eq!(wrong(json!({ "validation": 1 })).path, "validation");
    assert_eq!(wrong(json!({ "ngram": 1 })).path, "ngram");
    assert_eq!(wrong(json!({ "languages": ["eng", "english"] })).path, "languages[1]");
    assert_eq!(
        wrong(json!({ "near_duplicates": { "threshold": 0 } })).path,
        "near_duplicates.threshold"
    );
    assert_eq!(wrong(json!({ "quality": { "min_word": 3 } })).path, "quality.min_word");
    let fails = |params, chunks: &[(&str, String)], evaluation| {
        run(params, chunks, evaluation).err().unwrap().to_string()
    };
    let one = [("a", prose(1, 40))];
    assert_eq!(fails(json!({}), &[], None), "there are no chunks");
    assert_eq!(fails(json!({}), &[("a", "Short.".into())], None), "all 1 chunks were left out");
    let short = "{\"q\": \"short\"}";
    assert_eq!(fails(json!({}), &one, Some(short)), "no text of the evaluation has 13 words");
    let dir = tempfile::tempdir().unwrap();
    given(dir.path(), &one);
    let (chunks, index) = (dir.path().join("chunks.jsonl"), dir.path().join("index.jsonl"));
    let error = testing::run::<Curate>(json!({}), &[("chunks", &chunks), ("index", &chunks)]);
    assert!(error.err().unwrap().to_string().starts_with("index:1: this is not what it must be"));
    fs_err::write(&index, "").unwrap();
    let error = testing::run::<Curate>(json!({}), &[("chunks", &chunks), ("index", &index)]);
    assert_eq!(error.err().unwrap().to_string(), "1 chunks, but 0 lines of index");
}

/// What Hugging Face's `datasets` reads of it, by files and by the folder with its card. Axolotl's
/// `type: completion` asks for a column `text` of strings in a file that `datasets` loads.
const LOAD: &str = r#"
import json, sys
from datasets import Value, load_dataset
train, validation, folder = sys.argv[1:]
lines = load_dataset("json", data_files={"train": train, "validation": validation})
card = load_dataset(folder)
for split in ("train", "validation"):
    assert lines[split].features == {"text": Value("string")}, lines[split].features
    assert lines[split]["text"] == card[split]["text"]
    assert all(lines[split]["text"])
print(json.dumps({
    "rows": [lines["train"].num_rows, lines["validation"].num_rows],
    "columns": card["train"].column_names,
    "tokens": sum(card["train"]["tokens"]) + sum(card["validation"]["tokens"]),
    "last": card["train"][-1],
}))
"#;

#[test]
fn datasets_of_hugging_face_loads_it() {
    if std::env::var_os("QUANTMILL_TEST_PYTHON").is_none() {
        return;
    }
    let ran = run(json!({ "validation": 0.3 }), &mixed(), None).unwrap();
    let home = tempfile::tempdir().unwrap();
    // The format is told by the name's end.
    let named = |output: &str| {
        let path = home.path().join(output).with_extension("jsonl");
        fs_err::copy(&ran.outputs[output], &path).unwrap();
        path
    };
    let loaded = std::process::Command::new("python3")
        .env("HF_HOME", home.path())
        .env("HF_HUB_OFFLINE", "1")
        .args(["-c", LOAD])
        .args([named("train"), named("validation"), ran.outputs["dataset"].clone()])
        .output()
        .unwrap();
    assert!(loaded.status.success(), "{}", String::from_utf8_lossy(&loaded.stderr));
    let loaded: Value = serde_json::from_slice(&loaded.stdout).unwrap();
    let metrics = ["train_chunks", "validation_chunks"].map(|name| ran.metrics[name]);
    assert_eq!(loaded["rows"], json!(metrics.map(|count| count as u64)));
    assert_eq!(
        loaded["tokens"],
        (ran.metrics["train_tokens"] + ran.metrics["validation_tokens"]) as u64
    );
    assert_eq!(loaded["columns"].as_array().unwrap().len(), 12);
    let index = lines(&ran, "index.jsonl");
    let last = index.iter().rfind(|line| line["split"] == "train").unwrap();
    for name in ["document", "digest", "start", "end", "tokens", "language", "group"] {
        assert_eq!(loaded["last"][name], last[name], "{name}");
    }
    assert_eq!(loaded["last"]["section"], "One > Two");
    assert_eq!(loaded["last"]["last_page"], 2);
}
