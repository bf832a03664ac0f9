use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::*;
use crate::featurize::Featurize;

use crate::featurize::tests::{bars_file, day, params, simulated};
use crate::testing::{self, Ran};

fn features(dir: &Path, seed: u64) -> PathBuf {
    let bars = bars_file(dir, &simulated(700, seed));
    let ran = testing::run::<Featurize>(params(), &[("bars", &bars)]).unwrap();
    let path = dir.join(format!("features-{seed}.csv"));
    fs_err::copy(&ran.outputs["features"], &path).unwrap();
    path
}

fn encode(with: Value, features: &Path) -> Ran {
    testing::run::<Encode>(with, &[("features", features)]).unwrap()
}

fn prompts(ran: &Ran) -> Vec<Prompt> {
    prompt::Prompts::open(&ran.outputs["prompts"]).unwrap().collect::<Result<_>>().unwrap()
}

fn names(features: &Path) -> Vec<String> {
    Rows::open(features).unwrap().names().to_vec()
}

fn feature(names: &[String], row: &Row, name: &str) -> f64 {
    row.features[names.iter().position(|own| own == name).unwrap()]
}

/// Every number in a text, in order, with its decimals as written.
fn numbers(text: &str) -> Vec<f64> {
    text.split(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '-' | '+')))
        .map(|word| word.trim_end_matches(['.', '-']))
        .filter(|word| word.chars().any(|c| c.is_ascii_digit()))
        .map(|word| word.parse().unwrap())
        .collect()
}

#[test]
fn the_narrative_reads_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = features(dir.path(), 1);
    let ran = encode(json!({}), &path);
    let (names, rows) = (names(&path), table::read(&path).unwrap());
    let bins: Bins = serde_json::from_str(&ran.text("bins")).unwrap();
    for prompt in prompts(&ran) {
        let at = rows.iter().position(|row| row.date == prompt.t0).unwrap();
        let value = |name: &str| feature(&names, &rows[at], name);
        let rank = |name: &str| bins.percentile(name, value(name)) as f64;
        let back = |n: usize| 100.0 * (rows[at - n].close / rows[at - n - 1].close - 1.0);
        let impact = value("kyle_lambda");
        let expected = [
            (value("spread_bps"), 0.05),
            (rank("spread_bps"), 0.0),
            (value("depth"), 0.005),
            (rank("depth"), 0.0),
            (impact, 0.05 * impact),
            (rank("kyle_lambda"), 0.0),
            (value("realised_vol"), 0.05),
            (rank("realised_vol"), 0.0),
            (value("p_high_vol"), 0.005),
            (value("momentum_5"), 0.05),
            (value("momentum_1"), 0.05),
            (value("momentum_30"), 0.05),
            (100.0 * value("momentum_12_1"), 0.05),
            (value("vwap_dev_bps"), 0.5),
            (value("rsi_14"), 0.5),
            (value("imbalance"), 0.005),
            (value("order_flow_imbalance"), 0.005),
            (value("trade_intensity"), 0.05),
            (value("vpin"), 0.005),
            (rank("vpin"), 0.0),
            (back(2), 0.05),
            (back(1), 0.05),
            (back(0), 0.05),
        ];
        let read = numbers(&prompt.prompt);
        assert_eq!(read.len(), expected.len(), "{}", prompt.prompt);
        for (read, (value, tolerance)) in read.iter().zip(expected) {
            assert!((read - value).abs() <= tolerance + 1e-9, "{read} {value}: {}", prompt.prompt);
        }
        let words = prompt.prompt.split_whitespace().count();
        assert!((125..=150).contains(&words), "{words} words");
        assert!(prompt.prompt.ends_with(" %.\nDecision:"));
        assert!(!prompt.prompt.contains(&prompt.t0));
    }
}

/// One state by itself is told as the row of the table that it is.
#[test]
fn a_state_is_told_as_its_row() {
    let dir = tempfile::tempdir().unwrap();
    let path = features(dir.path(), 1);
    let with = json!({ "context_states": 2, "max_tokens": 300 });
    let ran = encode(with.clone(), &path);
    let (names, rows) = (names(&path), table::read(&path).unwrap());
    let bins: Bins = serde_json::from_str(&ran.text("bins")).unwrap();
    let params: Params = serde_json::from_value(with).unwrap();
    let all = prompts(&ran);
    let named = |row: &Row| names.iter().cloned().zip(row.features.iter().copied()).collect();
    for prompt in all.iter().step_by(37) {
        let at = rows.iter().position(|row| row.date == prompt.t0).unwrap();
        let before = rows[at - 3..at].iter();
        let state = state::State {
            features: named(&rows[at]),
            close: Some(rows[at].close),
            before: before
                .map(|row| state::Before { close: row.close, features: named(row) })
                .collect(),
            ..state::State::default()
        };
        assert_eq!(state::tell(&params, &bins, &state).unwrap(), prompt.prompt);
    }
    assert!(all.len() > 100);
}

/// On a book the state has other features, of other sizes; its numbers read back too.
#[test]
fn the_narrative_of_a_book_reads_back() {
    let dir = tempfile::tempdir().unwrap();
    let stream = dir.path().join("stream.txt");
    fs_err::write(&stream, crate::market::tests::made::spot()).unwrap();
    let with = json!({
        "source": { "binance": {} },
        "sampling": { "clock": { "every": "20ms" }, "warm_up": "100ms" },
        "features": [
            "spread_bps", "microprice_dev_bps", { "momentum_5": { "window": 10 } },
            { "vwap_dev_bps": { "window": 20 } }, "imbalance",
            { "order_flow_imbalance": { "window": 5 } }
        ],
        "splits": { "train_fraction": 0.8, "horizon_bars": 1, "embargo_bars": 1 }
    });
    let ran = testing::run::<Featurize>(with, &[("events", &stream)]).unwrap();
    let path = &ran.outputs["features"];
    let ran = encode(json!({ "bar": "tick", "context_bars": 0 }), path);
    let (names, rows) = (names(path), table::read(path).unwrap());
    let bins: Bins = serde_json::from_str(&ran.text("bins")).unwrap();
    assert!(prompts(&ran).len() > 100);
    for prompt in prompts(&ran) {
        let row = rows.iter().find(|row| row.date == prompt.t0).unwrap();
        let value = |name: &str| feature(&names, row, name);
        // Small numbers have two digits, the others as many decimals as they are given.
        let near = |name: &str, half: f64| (value(name), half.min(0.05 * value(name).abs()));
        let expected = [
            near("spread_bps", 0.05),
            (bins.percentile("spread_bps", value("spread_bps")) as f64, 0.0),
            near("microprice_dev_bps", 0.005),
            (value("momentum_5"), 0.05),
            (value("vwap_dev_bps"), 0.5),
            (value("imbalance"), 0.005),
            (value("order_flow_imbalance"), 0.005),
        ];
        let read = numbers(&prompt.prompt);
        assert_eq!(read.len(), expected.len(), "{}", prompt.prompt);
        for (read, (value, tolerance)) in read.iter().zip(expected) {
            assert!((read - value).abs() <= tolerance + 1e-9, "{read} {value}: {}", prompt.prompt);
        }
    }
}

#[test]
fn raw_names_every_feature() {
    let dir = tempfile::tempdir().unwrap();
    let path = features(dir.path(), 1);
    let (names, rows) = (names(&path), table::read(&path).unwrap());
    let ran = encode(json!({ "style": "raw", "context_bars": 0 }), &path);
    for prompt in prompts(&ran) {
        let row = rows.iter().find(|row| row.date == prompt.t0).unwrap();
        let body = prompt.prompt.strip_suffix(words::ASK).unwrap();
        let lines: Vec<(&str, f64)> = body
            .lines()
            .map(|line| line.split_once('=').unwrap())
            .map(|(name, value)| (name, value.parse().unwrap()))
            .collect();
        assert_eq!(lines.iter().map(|line| line.0).collect::<Vec<_>>(), names);
        for (name, value) in lines {
            let true_value = feature(&names, row, name);
            assert!((value - true_value).abs() <= 0.0006 * true_value.abs() + 1e-12, "{name}");
        }
    }
}

#[test]
fn bins_are_of_the_training_rows_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = features(dir.path(), 1);
    let whole = encode(json!({}), &path);
    // The test span is multiplied: bins and training prompts stay.
    let text = fs_err::read_to_string(&path).unwrap();
    let changed: Vec<String> = text
        .lines()
        .map(|line| match line.split_once(",test,") {
            Some((bar, _)) => format!("{bar},test{}", ",99".repeat(15)),
            None => line.to_owned(),
        })
        .collect();
    let other = dir.path().join("other.csv");
    fs_err::write(&other, changed.join("\n")).unwrap();
    let other = encode(json!({}), &other);
    assert_eq!(whole.text("bins"), other.text("bins"));
    let train = |ran: &Ran| -> Vec<Prompt> {
        prompts(ran).into_iter().filter(|p| p.split == Split::Train).collect()
    };
    assert_eq!(train(&whole), train(&other));
    assert_ne!(prompts(&whole), prompts(&other));
}

#[test]
fn rows_are_chosen_by_split() {
    let dir = tempfile::tempdir().unwrap();
    let path = features(dir.path(), 1);
    let all = prompts(&encode(json!({}), &path));
    let few =
        prompts(&encode(json!({ "max_train_rows": 10, "max_test_rows": 20, "stride": 3 }), &path));
    let of = |prompts: &[Prompt], split| -> Vec<String> {
        prompts.iter().filter(|p| p.split == split).map(|p| p.t0.clone()).collect()
    };
    let strided: Vec<String> = of(&all, Split::Train).into_iter().step_by(3).collect();
    let expected: Vec<String> = evenly(strided.len(), 10).map(|i| strided[i].clone()).collect();
    assert_eq!(of(&few, Split::Train), expected);
    assert_eq!(of(&few, Split::Test), of(&all, Split::Test)[..20]);
    assert_eq!(
        all.len(),
        few.len() - 30 + of(&all, Split::Train).len() + of(&all, Split::Test).len()
    );

    let within = prompts(&encode(json!({ "from": day(500), "to": day(610) }), &path));
    assert_eq!(within.first().unwrap().t0, day(500));
    assert_eq!(within.last().unwrap().t0, day(610));
}

#[test]
fn a_template_of_your_own() {
    let dir = tempfile::tempdir().unwrap();
    let path = features(dir.path(), 1);
    let template = "{{ date }}: rsi {{ rsi_14.value|fixed(1) }}\nDecision:\n";
    let ran = encode(json!({ "template": template, "max_train_rows": 1 }), &path);
    let first = &prompts(&ran)[0];
    let (names, rows) = (names(&path), table::read(&path).unwrap());
    let row = rows.iter().find(|row| row.split == Split::Train).unwrap();
    let rsi = feature(&names, row, "rsi_14");
    assert_eq!(first.prompt, format!("{}: rsi {rsi:.1}\nDecision:", row.date));
}

#[test]
fn a_wrong_template_names_its_line_before_anything_runs() {
    let resolve = crate::Kind::of::<Encode>().resolve;
    let wrong = [
        ("a\nb\n{% if %}", "line 3: syntax error"),
        ("{{ rsi_14.value|fixxed(1) }}", "line 1: unknown filter"),
    ];
    for (template, said) in wrong {
        let error = resolve(&json!({ "template": template })).unwrap_err();
        assert_eq!(error.path, "template");
        assert!(error.message.starts_with(said), "{}", error.message);
    }
    for style in ["narrative", "report", "raw"] {
        assert!(resolve(&json!({ "style": style })).is_ok(), "{style}");
    }
    // Which features there are, only the file says.
    let dir = tempfile::tempdir().unwrap();
    let path = features(dir.path(), 1);
    let with = json!({ "template": "a\n{{ spred_bps.value }}" });
    let error = testing::run::<Encode>(with, &[("features", &path)]).err().unwrap();
    assert!(error.to_string().starts_with("template: line 2: a name is not known"), "{error}");
    assert!(error.help().unwrap().contains("`spread_bps`"), "{:?}", error.help());
}

#[test]
fn account_news_and_past_states_are_told_as_they_were_known() {
    let dir = tempfile::tempdir().unwrap();
    let path = features(dir.path(), 1);
    let (account, news) = (dir.path().join("account.csv"), dir.path().join("news.csv"));
    let text = format!(
        "date,position,pnl_bps,decision\n{},2,3.3,buy limit 10\n{},-1,-7,sell market\n",
        day(400),
        day(402)
    );
    fs_err::write(&account, text).unwrap();
    fs_err::write(&news, format!("date,text\n{},\"Rates rise, bonds fall\"\n", day(401))).unwrap();
    let with = json!({ "context_states": 2, "from": day(399), "max_tokens": 400 });
    let inputs = [("features", &*path), ("account", &*account), ("news", &*news)];
    let ran = testing::run::<Encode>(with, &inputs).unwrap();
    let prompts = prompts(&ran);
    let said = |at: usize, what: &str| prompts[at].prompt.contains(what);
    assert!(!said(0, "Position"));
    assert!(said(1, "Position is long 2, profit +3.3 bps. Last decisions: buy limit 10.\n"));
    assert!(!said(1, "News"));
    assert!(said(
        3,
        "Position is short 1, profit -7.0 bps. Last decisions: buy limit 10, sell market."
    ));
    assert!(said(3, "\nNews: Rates rise, bonds fall\nDecision:"));
    assert!(said(1, "\n2 days before: spread ") && said(1, "\n1 day before: spread "));

    // Told shorter where it does not fit: the states go first, the account stays.
    let with = json!({ "context_states": 50, "from": day(402), "max_tokens": 300 });
    let ran = testing::run::<Encode>(with, &inputs).unwrap();
    assert_eq!(ran.metrics["told_shorter"], self::prompts(&ran).len() as f64);
    assert!(ran.metrics["tokens_max"] <= 300.0 && ran.warnings.is_empty());
    let first = &self::prompts(&ran)[0].prompt;
    assert!(!first.contains("before:") && first.contains("Position is short 1"), "{first}");
    let with = json!({ "max_tokens": 100 });
    let ran = testing::run::<Encode>(with, &[("features", &path)]).unwrap();
    assert!(ran.warnings[0].contains("are longer than 100 tokens"), "{:?}", ran.warnings);
}

#[test]
fn a_features_file_that_is_none_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("features.csv");
    fs_err::write(&path, "date,close\n2020-01-02,1\n").unwrap();
    let error = testing::run::<Encode>(json!({}), &[("features", &path)]).err().unwrap();
    assert!(error.to_string().ends_with(":1: missing column `split`"), "{error}");

    let text = fs_err::read_to_string(features(dir.path(), 1)).unwrap();
    let broken = text.replacen(",train,", ",train,x", 1);
    fs_err::write(&path, broken).unwrap();
    let error = testing::run::<Encode>(json!({}), &[("features", &path)]).err().unwrap();
    let said = error.to_string();
    assert!(said.contains("features.csv:254: spread_bps is not a number: `x"), "{said}");
}

/// Where this text moves, raise `Encode::VERSION`, and put the new text here.
#[test]
fn golden() {
    let dir = tempfile::tempdir().unwrap();
    let ran = encode(json!({}), &features(dir.path(), 3));
    let prompts = prompts(&ran);
    let expected = "\
Spread is typical at 69.7 bps, 62nd percentile of the training span. Depth is thin at 22.61, 13th percentile. Price impact is very high at 1644 bps a billion, 94th percentile.
Realised volatility is high at 37.0 % a year, 84th percentile. The probability of the high-volatility regime is 1.00.
Momentum over five days is negative at -0.4 standard deviations, over one day strongly positive at 2.3, over thirty days positive at 1.1. The twelve-month momentum is positive at 7.9 %. The close is below its average price at -116 bps. The relative strength index is typical at 54.
Order imbalance is strongly positive at 0.98. Order flow imbalance is positive at 0.16. Trade intensity is high at 0.7 standard deviations. VPIN is very high at 0.48, 97th percentile.
Last three days: -1.4 %, -1.3 %, +5.2 %.
Decision:";
    assert_eq!(prompts[100].prompt, expected);
    assert_eq!(Encode::VERSION, 3);
}

#[test]
fn a_folder_of_tables_is_read_as_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = features(dir.path(), 1);
    let text = fs_err::read_to_string(&path).unwrap();
    let (head, rows) = text.split_once('\n').unwrap();
    let rows: Vec<&str> = rows.lines().collect();
    let folder = dir.path().join("tables");
    fs_err::create_dir(&folder).unwrap();
    let write = |name: &str, head: &str, rows: &[&str]| {
        let text = format!("{head}\n{}\n", rows.join("\n"));
        fs_err::write(folder.join(name), text).unwrap();
    };
    write("a.csv", head, &rows[..301]);
    write("b.csv", head, &rows[301..640]);
    write("c.csv", head, &rows[640..]);
    let with = json!({ "from": day(290), "context_states": 2 });
    let (whole, own) = (encode(with.clone(), &path), encode(with.clone(), &folder));
    for output in ["prompts", "bins"] {
        assert_eq!(own.text(output), whole.text(output));
    }
    let error = || {
        testing::run::<Encode>(with.clone(), &[("features", &folder)]).err().unwrap().to_string()
    };
    write("c.csv", &head.replace("rsi_14", "rsi_7"), &rows[640..]);
    let said = error();
    assert!(said.contains("c.csv:1: features `") && said.contains("rsi_7"), "{said}");
    write("c.csv", head, &rows[600..]);
    let said = error();
    assert!(said.ends_with("c.csv:2: dates do not ascend"), "{said}");
}

#[test]
fn the_holdout_is_opened_on_purpose_alone() {
    let dir = tempfile::tempdir().unwrap();
    let bars = bars_file(dir.path(), &simulated(700, 4));
    let mut with = params();
    with["splits"]["holdout_start"] = json!(day(650));
    let ran = testing::run::<Featurize>(with, &[("bars", &bars)]).unwrap();
    let path = &ran.outputs["features"];
    let usual = encode(json!({}), path);
    assert!(prompts(&usual).iter().all(|prompt| prompt.split != Split::Holdout));
    assert!(usual.warnings.is_empty() && !usual.metrics.contains_key("prompts_holdout"));
    let opened = encode(json!({ "split": "holdout" }), path);
    let all = prompts(&opened);
    assert_eq!((all.len(), &*all[0].t0), (50, &*day(650)));
    assert!(all.iter().all(|prompt| prompt.split == Split::Holdout));
    assert_eq!(opened.metrics["prompts_holdout"], 50.0);
    assert!(opened.warnings[0].contains("the sealed holdout is open: 50 prompts"));
    // What the words mean was learnt without it.
    assert_eq!(opened.text("bins"), usual.text("bins"));
    let few = encode(json!({ "split": "holdout", "max_test_rows": 3 }), path);
    assert_eq!(prompts(&few), all[..3]);
    // There is none to open.
    let sealed = features(dir.path(), 4);
    let error = testing::run::<Encode>(json!({ "split": "holdout" }), &[("features", &sealed)]);
    let error = error.err().unwrap();
    assert!(error.help().unwrap().contains("splits.holdout_start"), "{error}");
}
