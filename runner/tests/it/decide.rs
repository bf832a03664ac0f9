//! `quantmill decide` on a tiny model.

use serde_json::{Value, json};

use crate::generate::{piped, space};
use crate::space::{Ended, Space};

fn lines(ended: &Ended) -> Vec<Value> {
    ended.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn decide(space: &Space, extra: &[&str], input: &str) -> Ended {
    piped(space, &[&["decide", "m"], extra].concat(), input)
}

fn states(n: usize) -> String {
    let state = |n| json!({ "id": n, "prompt": format!("{}Spread is {n} bps.\nDecision:", "The market is calm. ".repeat(6)) });
    (0..n).map(|n| format!("{}\n", state(n))).collect()
}

#[test]
fn every_form_reads_at_any_temperature() {
    let space = space();
    for form in ["words", "json", "code"] {
        for heat in ["0", "1", "50"] {
            let extra = [
                "--form",
                form,
                "--offsets",
                "5,10,25",
                "--temperature",
                heat,
                "--max-size",
                "3",
                "--resting",
            ];
            let ended = decide(&space, &extra, &states(12)).ok();
            let lines = lines(&ended);
            assert_eq!(lines.len(), 12);
            for (n, line) in lines.iter().enumerate() {
                assert_eq!(line["id"], n);
                let action = line["action"].as_str().unwrap();
                assert!(["market", "limit", "flat", "hold", "cancel"].contains(&action));
                if action == "limit" {
                    assert!([5, 10, 25].contains(&line["offset_bps"].as_i64().unwrap()), "{line}");
                }
                assert!(line["log_prob"].as_f64().unwrap() <= 0.0);
            }
        }
    }
}

#[test]
fn what_prompts_begin_with_is_read_once() {
    let space = space();
    let ended = decide(&space, &["--form", "code"], &states(5)).ok();
    let known: Vec<usize> = ended
        .err
        .lines()
        .filter_map(|line| line.split_once(" known;")?.0.rsplit_once(' ')?.1.parse().ok())
        .collect();
    assert_eq!(known.len(), 5, "{}", ended.err);
    assert_eq!(known[0], 0);
    assert!(known[1..].iter().all(|known| *known > 20), "{known:?}");
    assert!(ended.err.contains("5 decisions: the first took"), "{}", ended.err);
    // From the beginning each says the same.
    let all = lines(&ended);
    for (line, state) in all.iter().zip(states(5).lines()) {
        let alone = decide(&space, &["--form", "code", "-q"], state).ok();
        assert_eq!(alone.err, "");
        let alone = lines(&alone).remove(0);
        assert_eq!((&alone["id"], &alone["decision"]), (&line["id"], &line["decision"]));
    }
}

#[test]
fn probabilities_are_of_all_that_may_be_said() {
    let space = space();
    for form in ["words", "json", "code"] {
        let extra = ["--form", form, "--offsets", "1,10,100", "--explain"];
        let line = lines(&decide(&space, &extra, "{\"prompt\": \"x\"}").ok()).remove(0);
        let each = line["probabilities"].as_array().unwrap();
        assert_eq!(each.len(), 9);
        let p: Vec<f64> = each.iter().map(|one| one["probability"].as_f64().unwrap()).collect();
        assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-9 && p.windows(2).all(|w| w[0] >= w[1]));
    }
    let many = decide(&space, &["--offsets", "any", "--explain"], "{\"prompt\": \"x\"}");
    assert!(many.code == 1 && many.err.contains("too many to explain"), "{}", many.err);
}

const DESK: &str = "
instrument: { symbol: BTCUSDT, tick: '0.01', lot: '0.00001', unit: 0.001 }
limits: { max_size: 1, price_band_bps: 30, max_notional: 1000 }
";

#[test]
fn orders_keep_to_the_desk() {
    let space = space();
    space.write("desk.yaml", DESK);
    let state = |mid: f64| format!("{}\n", json!({ "prompt": "x", "mid": mid }));
    let (mut sent, mut refused) = (0, 0);
    let args = ["--desk", "desk.yaml", "--temperature", "3", "--offsets", "10,25,50", "-q"];
    let many: String = (0..60).map(|n| state(61_000.0 + f64::from(n))).collect();
    for line in lines(&decide(&space, &args, &many).ok()) {
        let why = line["why"].as_str().unwrap_or_default();
        match &line["order"] {
            Value::Null if line["offset_bps"] == 50 => {
                assert!(why.starts_with("refused: the price lies 50"), "{line}");
                refused += 1;
            }
            Value::Null => assert_eq!((&line["action"], why), (&json!("flat"), "nothing is sent")),
            order => {
                assert_eq!(
                    (&order["symbol"], &order["quantity"]),
                    (&json!("BTCUSDT"), &json!("0.00100"))
                );
                sent += 1;
            }
        }
    }
    assert!(sent > 5 && refused > 0, "{sent} {refused}");
    let only = decide(&space, &[&args[..], &["--exchange"]].concat(), &many).ok();
    assert_eq!(lines(&only).len(), sent);
    assert!(lines(&only).iter().all(|order| order["side"] == "BUY" || order["side"] == "SELL"));
    let without = decide(&space, &["--desk", "desk.yaml"], "{\"prompt\": \"x\"}");
    assert!(without.code == 2 && without.err.contains("-:1: a desk needs"), "{}", without.err);
}

#[test]
fn features_are_told_as_encode_tells_them() {
    let space = space();
    let cuts: Vec<f64> = (1..100).map(|n| f64::from(n) / 10.0).collect();
    let bins = json!({ "train": ["a", "b"], "rows": 99, "percentiles": { "spread_bps": cuts, "imbalance": cuts } });
    space.write("bins.json", &bins.to_string());
    let state = json!({
        "features": { "spread_bps": 9.5, "imbalance": -0.7 },
        "close": 101.0, "before": [{ "close": 100.0 }, { "close": 102.0 }],
    });
    // In the built-in words, too.
    decide(&space, &["--bins", "bins.json"], &state.to_string()).ok();
    // The same text by hand is the same question.
    space.write("encode.yaml", "template: |\n  {{ spread_bps.level }} {{ returns | join(' ') }} {{ close }}\nbar: minute\n");
    let own = decide(
        &space,
        &["--bins", "bins.json", "--encode", "encode.yaml", "--explain"],
        &state.to_string(),
    );
    let own = lines(&own.ok());
    let hand = decide(
        &space,
        &["--explain"],
        &json!({ "prompt": "very wide +2.0 % -1.0 % 101.0\nDecision:" }).to_string(),
    );
    assert_eq!(own[0]["probabilities"], lines(&hand.ok())[0]["probabilities"]);
    for (change, said) in [
        (json!({ "features": { "spread_bps": 1.0 } }), "the state lacks the feature `imbalance`"),
        (
            json!({ "features": { "spread_bps": 1.0, "imbalance": 0, "vpin": 1 } }),
            "no feature `vpin`",
        ),
        (json!({ "prompt": "x", "features": {} }), "either `prompt` or `features`"),
        (json!({ "promt": "x" }), "unknown field `promt`"),
    ] {
        let ended = decide(&space, &["--bins", "bins.json"], &change.to_string());
        assert!(ended.code > 0 && ended.err.contains(said), "{}", ended.err);
        assert!(ended.err.contains("-:1: "), "{}", ended.err);
    }
    let bare = decide(&space, &[], &state.to_string());
    assert!(bare.code == 2 && bare.err.contains("--bins"), "{}", bare.err);
}

#[test]
fn a_state_may_take_many_lines_and_mistakes_name_theirs() {
    let space = space();
    let ended =
        decide(&space, &["-q"], "\n{\n  \"prompt\":\n \"x\"\n}\n{\"prompt\": \"y\"}\n").ok();
    assert_eq!(ended.out.lines().count(), 2);
    let ended = decide(&space, &["-q"], "{\"prompt\": \"x\"}\n\n{\"prompt\": 3}\n");
    assert!(ended.code == 2 && ended.err.contains("-:3: "), "{}", ended.err);
    let cut = decide(&space, &["-q"], "{\"prompt\": ");
    assert!(cut.code == 2 && cut.err.contains("EOF"), "{}", cut.err);
    for (args, said) in [
        (vec!["--offsets", "0"], "an offset of 0"),
        (vec!["--offsets", "10,x"], "`x` is no offset"),
        (vec!["--max-size", "1001"], "a size of 1001"),
        (vec!["--temperature", "-1"], "--temperature"),
    ] {
        let ended = decide(&space, &args, "{\"prompt\": \"x\"}");
        assert!(ended.code == 2 && ended.err.contains(said), "{}", ended.err);
    }
    assert_eq!(decide(&space, &[], "").code, 2);
}
