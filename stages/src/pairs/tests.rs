use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::action::{Action, FAMILIES};
use super::balance::family_cap;
use super::rank::candidates;
use super::*;
use crate::encode::Encode;
use crate::featurize::Featurize;
use crate::featurize::split::Split;
use crate::featurize::tests::{bars_file, day, params, simulated};
use crate::testing::{self, Ran};

struct Inputs {
    dir: tempfile::TempDir,
    features: PathBuf,
    prompts: PathBuf,
}

fn inputs() -> Inputs {
    let dir = tempfile::tempdir().unwrap();
    let bars = bars_file(dir.path(), &simulated(700, 2));
    let ran = testing::run::<Featurize>(params(), &[("bars", &bars)]).unwrap();
    let features = dir.path().join("features.csv");
    fs_err::copy(&ran.outputs["features"], &features).unwrap();
    let ran = testing::run::<Encode>(json!({}), &[("features", &features)]).unwrap();
    let prompts = dir.path().join("prompts.jsonl");
    fs_err::copy(&ran.outputs["prompts"], &prompts).unwrap();
    Inputs { dir, features, prompts }
}

fn run(with: Value, features: &Path, prompts: &Path) -> crate::Result<Ran> {
    testing::run::<Pairs>(with, &[("prompts", prompts), ("features", features)])
}

fn pairs(ran: &Ran) -> Vec<Pair> {
    ran.text("pairs").lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn spec(ran: &Ran) -> RewardSpec {
    serde_json::from_str(&ran.text("reward")).unwrap()
}

fn action(completion: &str) -> Action {
    Action::parse(completion.strip_prefix(' ').unwrap()).unwrap()
}

/// Opt-in: `QUANTMILL_TEST_TRL` names a Python with TRL, and perhaps Axolotl.
#[test]
fn trl_trains_on_what_is_written() {
    let Some(python) = std::env::var_os("QUANTMILL_TEST_TRL") else { return };
    let inputs = inputs();
    let ran = run(json!({}), &inputs.features, &inputs.prompts).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/src/pairs/testdata/peers.py");
    let file = inputs.dir.path().join("pairs.jsonl");
    fs_err::copy(&ran.outputs["pairs"], &file).unwrap();
    let mut peer = std::process::Command::new(python);
    let loaded = peer.arg(script).arg(&file).env("HF_HUB_OFFLINE", "1").output().unwrap();
    assert!(loaded.status.success(), "{}", String::from_utf8_lossy(&loaded.stderr));
    let said = String::from_utf8_lossy(&loaded.stdout);
    assert!(said.contains("TRL: loss"), "{said}");
}

#[test]
fn what_is_written_scores_the_same_when_read() {
    let inputs = inputs();
    let with = json!({ "reward": { "horizon_bars": 3, "markout_bars": 2 } });
    let ran = run(with, &inputs.features, &inputs.prompts).unwrap();
    let spec = spec(&ran);
    let pairs = pairs(&ran);
    assert!(pairs.len() > 300);
    for pair in &pairs {
        assert_eq!(pair.outcome.check(&spec), Ok(()));
        let chosen = reward::score(&spec, &pair.outcome, action(&pair.chosen));
        let rejected = reward::score(&spec, &pair.outcome, action(&pair.rejected));
        let same = |a: f64, b: f64| assert!((a - b).abs() <= 4.0 * f64::EPSILON * a.abs().max(1.0));
        same(chosen.reward, pair.reward_chosen);
        same(rejected.reward, pair.reward_rejected);
        same(chosen.net_bps, pair.components.chosen.net_bps);
        same(rejected.components.p_fill, pair.components.rejected.terms.p_fill);
        same(rejected.components.markout_bps, pair.components.rejected.terms.markout_bps);
        assert!(chosen.net_bps - rejected.net_bps >= 1.0);
        // Chosen is the best there is.
        for other in candidates(&Params::default().offsets_bps, &[1], false, false) {
            assert!(reward::score(&spec, &pair.outcome, other).net_bps <= chosen.net_bps);
        }
    }
}

#[test]
fn no_label_passes_the_training_span() {
    let inputs = inputs();
    let rows = table::read(&inputs.features).unwrap();
    let last = rows.iter().rposition(|row| row.split == Split::Train).unwrap();
    for (h, tau) in [(1, 1), (3, 2), (10, 5)] {
        let with = json!({ "reward": { "horizon_bars": h, "markout_bars": tau } });
        let ran = run(with, &inputs.features, &inputs.prompts).unwrap();
        let pairs = pairs(&ran);
        for pair in &pairs {
            let place = |date: &str| rows.iter().position(|row| row.date == date).unwrap();
            assert_eq!(place(&pair.t1), place(&pair.t0) + h + tau);
            assert!(pair.t1 <= rows[last].date);
        }
        assert_eq!(pairs.last().unwrap().t1, rows[last].date);
        assert_eq!(ran.metrics["dropped_label_past_train_end"], (h + tau) as f64);
    }
}

#[test]
fn what_follows_the_training_span_changes_nothing() {
    let inputs = inputs();
    let whole = run(json!({}), &inputs.features, &inputs.prompts).unwrap();
    let text = fs_err::read_to_string(&inputs.features).unwrap();
    let changed: Vec<String> = text
        .lines()
        .map(|line| match (line.split_once(",gap,"), line.split_once(",test,")) {
            (Some((bar, rest)), _) | (_, Some((bar, rest))) => {
                let date = bar.split(',').next().unwrap();
                let split = if line.contains(",gap,") { "gap" } else { "test" };
                format!("{date},1,9,1,5,7,{split},{rest}")
            }
            _ => line.to_owned(),
        })
        .collect();
    let other = inputs.dir.path().join("other.csv");
    fs_err::write(&other, changed.join("\n")).unwrap();
    let other = run(json!({}), &other, &inputs.prompts).unwrap();
    assert_eq!(whole.text("pairs"), other.text("pairs"));
    assert_eq!(whole.text("reward"), other.text("reward"));
}

#[test]
fn an_outcome_by_hand() {
    let inputs = inputs();
    let rows = table::read(&inputs.features).unwrap();
    let ran = run(json!({}), &inputs.features, &inputs.prompts).unwrap();
    let pair = &pairs(&ran)[40];
    let at = rows.iter().position(|row| row.date == pair.t0).unwrap();
    let close = rows[at].close;
    assert_eq!(pair.outcome.close, close);
    let away = |price: f64| 1e4 * (price / close - 1.0);
    let [low, later] = pair.outcome.falls[0];
    assert!((low - away(rows[at + 1].low)).abs() < 1e-4);
    assert!((later - away(rows[at + 2].close)).abs() < 1e-4);
    assert_eq!(pair.outcome.falls.len(), 1);
    assert!((pair.outcome.markout_bps - away(rows[at + 1].close)).abs() < 1e-4);
    assert!((pair.outcome.end_bps - later).abs() < 1e-9);
    let half = rows[at].features[0] / 2.0;
    assert!((pair.outcome.half_spread_bps - half).abs() < 1e-4);
    let returns: Vec<f64> =
        (at - 19..=at).map(|i| (rows[i].close / rows[i - 1].close).ln()).collect();
    let mean = returns.iter().sum::<f64>() / 20.0;
    let variance = returns.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / 19.0;
    assert!((pair.outcome.sigma_bps - 1e4 * variance.sqrt()).abs() < 1e-4);
}

#[test]
fn rejected_actions_follow_the_parameter() {
    let inputs = inputs();
    let by = |with: Value| pairs(&run(with, &inputs.features, &inputs.prompts).unwrap());
    let worst = by(json!({ "rejected": "worst" }));
    let second = by(json!({ "rejected": "second" }));
    let random = by(json!({}));
    for ((worst, random), second) in worst.iter().zip(&random).zip(&second) {
        assert_eq!(worst.chosen, random.chosen);
        assert!(worst.reward_rejected <= random.reward_rejected);
        assert!(random.reward_rejected <= second.reward_rejected);
    }
    assert_eq!(random, by(json!({ "seed": 0 })));
    let other = by(json!({ "seed": 1 }));
    let moved = random.iter().zip(&other).filter(|(a, b)| a.rejected != b.rejected).count();
    assert!(moved > random.len() / 2, "{moved}");
    // A date's draw does not depend on which other dates there are.
    let few = by(json!({ "max_pairs": 50 }));
    assert_eq!(few.len(), 50);
    assert!(few.iter().all(|pair| random.contains(pair)));
}

#[test]
fn families_can_be_capped_and_flat_asked_for() {
    let inputs = inputs();
    let ran = run(
        json!({ "flat_below_bps": 40.0, "max_family_share": 0.3 }),
        &inputs.features,
        &inputs.prompts,
    )
    .unwrap();
    let kept = pairs(&ran);
    for name in FAMILIES {
        let n = kept.iter().filter(|pair| action(&pair.chosen).family() == name).count();
        assert!(n as f64 <= 0.3 * kept.len() as f64, "{name}: {n} of {}", kept.len());
    }
    assert!(ran.metrics["chosen_flat"] > 0.0);
    assert!(kept.is_sorted_by(|a, b| a.t0 < b.t0));
    let shares: f64 = FAMILIES
        .iter()
        .map(|name| ran.metrics[&format!("chosen_{}", name.replace(' ', "_"))])
        .sum();
    assert!((shares - 1.0).abs() < 1e-9);
    assert_eq!(family_cap(&[100, 10, 10, 10, 10], 0.25), 13);
    assert_eq!(family_cap(&[100, 0, 0, 0, 0], 1.0), 100);
}

#[test]
fn a_prompt_can_have_several_pairs() {
    let inputs = inputs();
    let by = |with: Value| run(with, &inputs.features, &inputs.prompts).unwrap();
    let single = pairs(&by(json!({})));
    for rejected in ["random", "worst", "second"] {
        let one = pairs(&by(json!({ "rejected": rejected })));
        let many = pairs(&by(json!({ "rejected": rejected, "per_prompt": 3 })));
        let firsts: Vec<&Pair> = many.iter().filter(|pair| !pair.id.contains('#')).collect();
        assert_eq!(firsts, one.iter().collect::<Vec<_>>(), "{rejected}");
        assert!(many.len() > 2 * one.len() && many.len() <= 3 * one.len());
        for same in many.chunk_by(|a, b| a.t0 == b.t0) {
            let mut against: Vec<&str> = same.iter().map(|pair| &pair.rejected[..]).collect();
            against.sort_unstable();
            against.dedup();
            assert_eq!(against.len(), same.len());
            for (at, pair) in same.iter().enumerate() {
                assert_eq!(pair.chosen, same[0].chosen);
                assert_ne!(pair.chosen, pair.rejected);
                let ids = [pair.t0.clone(), format!("{}#{}", pair.t0, at + 1)];
                assert_eq!(pair.id, ids[usize::from(at > 0)]);
            }
        }
    }
    let all = pairs(&by(json!({ "per_prompt": 10, "min_gap_bps": 0 })));
    assert_eq!(all.len(), 10 * single.len());
}

#[test]
fn families_can_be_capped_in_each_regime() {
    let inputs = inputs();
    let with = json!({ "max_family_share": 0.3, "balance_regimes": true, "per_prompt": 2 });
    let ran = run(with, &inputs.features, &inputs.prompts).unwrap();
    let rows = table::Rows::open(&inputs.features).unwrap();
    let place = rows.place("p_high_vol").unwrap();
    let volatile: std::collections::HashMap<String, bool> =
        rows.map(|row| row.unwrap()).map(|row| (row.date, row.features[place] >= 0.5)).collect();
    let kept = pairs(&ran);
    let mut sum = 0.0;
    for (regime, name) in [(false, "calm"), (true, "volatile")] {
        let own: Vec<&Pair> = kept.iter().filter(|pair| volatile[&pair.t0] == regime).collect();
        assert!(own.len() > 20);
        assert_eq!(ran.metrics[&format!("pairs_{name}")], own.len() as f64);
        for family in FAMILIES {
            let n = own.iter().filter(|pair| action(&pair.chosen).family() == family).count();
            assert!(n as f64 <= 0.3 * own.len() as f64, "{name} {family}: {n} of {}", own.len());
            let metric = format!("pairs_{name}_{}", family.replace(' ', "_"));
            assert_eq!(ran.metrics[&metric], n as f64);
            sum += n as f64;
        }
    }
    assert_eq!(ran.metrics["pairs"], sum);

    // Without the column there is nothing to go by.
    let text = fs_err::read_to_string(&inputs.features).unwrap();
    let other = inputs.dir.path().join("without.csv");
    fs_err::write(&other, text.replacen("p_high_vol", "something", 1)).unwrap();
    let with = json!({ "max_family_share": 0.3, "balance_regimes": true });
    let error = run(with, &other, &inputs.prompts).err().unwrap().to_string();
    assert!(error.contains("without.csv:1: missing column `p_high_vol`"), "{error}");
}

#[test]
fn a_rationale_is_in_no_prompt_and_no_completion() {
    let inputs = inputs();
    let ran = run(json!({ "per_prompt": 2 }), &inputs.features, &inputs.prompts).unwrap();
    let prompts: std::collections::HashMap<String, String> =
        crate::encode::prompt::Prompts::open(&inputs.prompts)
            .unwrap()
            .map(|prompt| prompt.unwrap())
            .map(|prompt| (prompt.t0, prompt.prompt))
            .collect();
    for pair in pairs(&ran) {
        assert_eq!(pair.prompt, prompts[&pair.t0]);
        assert_eq!(format!(" {}", action(&pair.chosen)), pair.chosen);
        assert_eq!(format!(" {}", action(&pair.rejected)), pair.rejected);
        let gap = pair.components.chosen.net_bps - pair.components.rejected.net_bps;
        let gap = if gap < 9.95 { format!("{gap:.1}") } else { format!("{gap:.0}") };
        let end = format!("; {gap} bps better than{}.", pair.rejected);
        assert!(pair.rationale.ends_with(&end), "{} {end}", pair.rationale);
        assert!(pair.rationale.starts_with(|c: char| c.is_ascii_uppercase()));
        let volatile = pair.rationale.contains("volatile market");
        assert!(!volatile || !pair.rationale.contains("queue"));
    }
}

#[test]
fn one_family_that_wins_nearly_always_is_warned_of() {
    let inputs = inputs();
    // Market orders cost more than the market moves.
    let dear = json!({
        "reward": { "taker_fee_bps": 1000.0, "half_spread_bps": 20.0 }, "flat_below_bps": 500.0
    });
    let ran = run(dear, &inputs.features, &inputs.prompts).unwrap();
    assert_eq!(ran.metrics["chosen_flat"], 1.0);
    assert!(ran.warnings[0].contains("100 % of the pairs choose `flat`"), "{:?}", ran.warnings);
}

#[test]
fn the_fill_model_falls_with_distance() {
    let inputs = inputs();
    for unit in ["sigma", "bps"] {
        let with = json!({ "reward": { "fill_distance": unit } });
        let spec = spec(&run(with, &inputs.features, &inputs.prompts).unwrap());
        assert!(spec.fill.a > 0.5 && spec.fill.k > 0.0, "{spec:?}");
        let near = spec.p_fill(5.0, 100.0);
        assert!(near > spec.p_fill(80.0, 100.0) && near < 1.0);
    }
}

#[test]
fn prompts_of_other_features_are_refused() {
    let inputs = inputs();
    let text = fs_err::read_to_string(&inputs.prompts).unwrap();
    let strange = inputs.dir.path().join("strange.jsonl");
    fs_err::write(&strange, text.replacen(&day(252), "1999-01-01", 2)).unwrap();
    let error = run(json!({}), &inputs.features, &strange).err().unwrap();
    assert!(error.to_string().ends_with("prompt `1999-01-01` is of no training row"), "{error}");
    fs_err::write(&strange, "{}\n").unwrap();
    let error = run(json!({}), &inputs.features, &strange).err().unwrap();
    assert!(error.to_string().contains("strange.jsonl:1: not a prompt"), "{error}");
}

#[test]
fn parameters_out_of_range_are_refused() {
    let resolve = crate::Kind::of::<Pairs>().resolve;
    let wrong = [
        (json!({ "offsets_bps": [5] }), "offsets_bps"),
        (json!({ "offsets_bps": [5, 5] }), "offsets_bps"),
        (json!({ "offsets_bps": [5, 501] }), "offsets_bps"),
        (json!({ "reward": { "scale": 0 } }), "reward.scale"),
        (json!({ "reward": { "horizon_bars": 0 } }), "reward.horizon_bars"),
        (json!({ "min_gap_bps": -1 }), "min_gap_bps"),
        (json!({ "max_family_share": 0.2 }), "max_family_share"),
        (json!({ "balance_regimes": true }), "balance_regimes"),
        (json!({ "per_prompt": 0 }), "per_prompt"),
        (json!({ "per_prompt": 11 }), "per_prompt"),
        (json!({ "max_pairs": 0 }), "max_pairs"),
    ];
    for (params, path) in wrong {
        assert_eq!(resolve(&params).unwrap_err().path, path);
    }
    assert!(resolve(&json!({})).is_ok());
}

#[test]
fn the_report_is_one_file_that_escapes_what_it_shows() {
    let inputs = inputs();
    let text = fs_err::read_to_string(&inputs.prompts).unwrap();
    let hostile = inputs.dir.path().join("hostile.jsonl");
    let lines: Vec<String> = text
        .lines()
        .map(|line| {
            let mut prompt: Value = serde_json::from_str(line).unwrap();
            let with = format!(
                "<script>alert(1)</script> & \u{202e}{}",
                prompt["prompt"].as_str().unwrap()
            );
            prompt["prompt"] = json!(with);
            prompt.to_string()
        })
        .collect();
    fs_err::write(&hostile, lines.join("\n")).unwrap();
    let ran = run(json!({ "per_prompt": 2 }), &inputs.features, &hostile).unwrap();
    let page = ran.text("report");
    if let Some(folder) = std::env::var_os("QUANTMILL_REPORTS") {
        fs_err::write(PathBuf::from(folder).join("pairs.html"), &page).unwrap();
    }
    assert!(page.contains("&lt;script&gt;alert(1)&lt;&#x2f;script&gt; &amp;"));
    for never in ["<script", "http://", "https://", "src=", "\u{202e}", "<link", "@import"] {
        let page = page.replace("http://www.w3.org/2000/svg", "");
        assert!(!page.contains(never), "{never}");
    }
    assert_eq!(page.matches("<article").count(), 10);
    for name in ["fills", "rewards", "classes", "regimes"] {
        assert!(page.contains(&format!("<figure id=\"{name}\"")), "{name}");
    }
    assert_eq!(page.matches("<svg role=").count(), 4);
    let all = pairs(&ran);
    for at in [0, all.len() / 10] {
        let pair = &all[at];
        assert!(page.contains(&pair.rationale) && page.contains(pair.chosen.trim()));
    }
    assert!(
        page.contains(&format!(
            "A = {:.4}, k = {:.4}",
            ran.metrics["fill_a"], ran.metrics["fill_k"]
        ))
    );
    assert_eq!(
        page,
        run(json!({ "per_prompt": 2 }), &inputs.features, &hostile).unwrap().text("report")
    );
}

#[test]
fn answers_are_written_as_asked_and_orders_kept_within_limits() {
    let inputs = inputs();
    let by = |with: Value| pairs(&run(with, &inputs.features, &inputs.prompts).unwrap());
    let words = by(json!({}));
    let desk = json!({
        "instrument": { "symbol": "IXIC", "tick": "0.01", "lot": "0.1", "unit": 1.0 },
        "limits": { "max_size": 1, "price_band_bps": 30.0, "max_notional": 1e6 }
    });
    for (form, with) in [
        ("code", json!({ "answers": "code", "desk": desk })),
        ("json", json!({ "answers": "json" })),
    ] {
        let other = by(with);
        assert_eq!(other.len(), words.len());
        for (a, b) in words.iter().zip(&other) {
            let read = |text: &str| super::decision::Decision::read(text).unwrap();
            assert_eq!(read(&a.chosen), read(&b.chosen));
            assert_eq!(read(&a.rejected), read(&b.rejected));
            assert_ne!(a.chosen, b.chosen);
            assert_eq!(b.order.is_some(), form == "code");
        }
        let sent = |what: &str| {
            other.iter().filter(|p| p.order.as_deref().is_some_and(|o| o.contains(what))).count()
        };
        if form == "code" {
            assert!(sent("\"timeInForce\":\"GTC\"") > 10 && sent("refused: the price lies") > 10);
        }
    }
}

/// Where these move, raise `Pairs::VERSION`, and put the new ones here.
#[test]
fn golden() {
    let inputs = inputs();
    let ran = run(json!({}), &inputs.features, &inputs.prompts).unwrap();
    let spec = spec(&ran);
    let pairs = pairs(&ran);
    let heads: Vec<String> = pairs
        .iter()
        .step_by(60)
        .map(|p| format!("{}{}/{} {:.6}", p.t0, p.chosen, p.rejected, p.reward_chosen))
        .collect();
    assert_eq!(pairs.len(), 342);
    assert_eq!(
        heads,
        [
            "2000-10-01 buy limit 25/ sell market 0.702730",
            "2000-12-05 sell limit 100/ sell limit 25 0.698171",
            "2001-02-09 sell limit 50/ sell market 0.703642",
            "2001-04-13 sell limit 25/ sell limit 100 0.667461",
            "2001-06-17 buy limit 100/ sell limit 10 0.584446",
            "2001-08-21 sell limit 50/ buy limit 50 0.730971",
        ]
    );
    assert_eq!(format!("{:.6} {:.6}", spec.fill.a, spec.fill.k), "2.370600 1.814463");
    assert_eq!(Pairs::VERSION, 4);
}

#[test]
fn a_folder_of_tables_is_read_as_one() {
    let inputs = inputs();
    let text = fs_err::read_to_string(&inputs.features).unwrap();
    let (head, rows) = text.split_once('\n').unwrap();
    let rows: Vec<&str> = rows.lines().collect();
    let folder = inputs.dir.path().join("tables");
    fs_err::create_dir(&folder).unwrap();
    for (name, rows) in [("a.csv", &rows[..400]), ("b.csv", &rows[400..])] {
        let text = format!("{head}\n{}\n", rows.join("\n"));
        fs_err::write(folder.join(name), text).unwrap();
    }
    let whole = run(json!({}), &inputs.features, &inputs.prompts).unwrap();
    let own = run(json!({}), &folder, &inputs.prompts).unwrap();
    for output in ["pairs", "reward"] {
        assert_eq!(own.text(output), whole.text(output));
    }
}

#[test]
fn sizes_hold_and_cancel_are_compared_beside_an_account() {
    let inputs = inputs();
    let usual = run(json!({}), &inputs.features, &inputs.prompts).unwrap();
    let sized = json!({ "sizes": [1, 3], "reward": { "size_impact_bps": 20.0 } });
    let ran = run(sized, &inputs.features, &inputs.prompts).unwrap();
    let (rule, all) = (spec(&ran), pairs(&ran));
    assert_eq!((rule.max_size, rule.size_impact_bps), (3, 20.0));
    let read = |text: &str| decision::Decision::read(text).unwrap();
    let of_size = |size| all.iter().filter(|pair| read(&pair.chosen).size() == size).count();
    assert!(of_size(1) > 10 && of_size(3) > 10, "{} {}", of_size(1), of_size(3));
    let share = of_size(3) as f64 / all.len() as f64;
    assert!((ran.metrics["chosen_size_3"] - share).abs() < 1e-12);
    for pair in &all {
        let scored = reward::score(&rule, &pair.outcome, read(&pair.chosen));
        assert!((scored.reward - pair.reward_chosen).abs() < 1e-12);
    }
    // Nothing of it shows where it is not asked for.
    let text = usual.text("pairs") + &usual.text("reward");
    let words = ["max_size", "\"position\"", "carried_bps", "impact_bps", " x3"];
    assert!(!words.iter().any(|w| text.contains(w)));

    let with = json!({ "hold": true, "cancel": true, "rejected": "second" });
    let error = run(with.clone(), &inputs.features, &inputs.prompts).err().unwrap();
    assert!(error.help().unwrap().contains("port `account`"), "{error}");
    let account = inputs.dir.path().join("account.csv");
    let row = |row: usize| match row % 4 {
        0 => format!("{},1,5,buy limit 25\n", day(row)),
        1 => format!("{},-1,-5,\n", day(row)),
        2 => format!("{},0,0,sell limit 10\n", day(row)),
        _ => format!("{},1,0,sell limit 50\n", day(row)),
    };
    let head = "date,position,pnl_bps,resting\n".to_owned();
    fs_err::write(&account, head + &(0..700).map(row).collect::<String>()).unwrap();
    let ports: &[(&str, &Path)] =
        &[("prompts", &inputs.prompts), ("features", &inputs.features), ("account", &account)];
    let ran = testing::run::<Pairs>(with, ports).unwrap();
    let all = pairs(&ran);
    let chosen = |word: &str| all.iter().filter(|pair| pair.chosen == format!(" {word}")).count();
    assert!(chosen("hold") > 10 && chosen("cancel") > 0, "{} {}", chosen("hold"), chosen("cancel"));
    assert!(ran.metrics["chosen_hold"] > 0.0 && ran.metrics["chosen_cancel"] > 0.0);
    let rule = spec(&ran);
    for pair in &all {
        let of = |decision| reward::score(&rule, &pair.outcome, decision).net_bps;
        let every = candidates(&Params::default().offsets_bps, &[1], true, true);
        let best = every.into_iter().map(of).fold(f64::NEG_INFINITY, f64::max);
        assert!((of(read(&pair.chosen)) - best).abs() < 1e-9);
    }
    fs_err::write(&account, format!("date,position,pnl_bps,resting\n{},1,0,buy market\n", day(0)))
        .unwrap();
    let error = testing::run::<Pairs>(json!({}), ports).err().unwrap().to_string();
    assert!(error.contains("`buy market` is no limit order that may rest"), "{error}");
}
