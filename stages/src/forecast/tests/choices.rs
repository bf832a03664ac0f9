//! What is tried beside a fit: labels in another order, features in another order, other parameters.

use super::*;

/// On a signal that is there, a model beats the shares of the classes; fitted on permuted labels it does
/// not, whichever the model, and rows are judged by what happened. By chance a control leans one way or
/// the other: it is the mean over markets that tells.
#[test]
fn permuted_labels_teach_nothing() {
    for (model, seeds) in [
        (json!({ "logit": {} }), 21..27),
        (json!({ "ridge": {} }), 21..27),
        (json!({ "boosting": { "trees": 40, "min_leaf_weight": 5 } }), 21..23),
    ] {
        let (mut gained, mut control_gained) = (0.0, 0.0);
        for seed in seeds {
            let market = signal(1_200, seed);
            let majority = run(&market, params(&json!({ "majority": {} })));
            let real = run(&market, params(&model));
            let mut given = params(&model);
            given["labels"] = "permuted".into();
            let control = run(&market, given);
            for name in ["fold_log_loss_1", "test_log_loss_1"] {
                let none = majority.metrics[name];
                gained += none - real.metrics[name];
                control_gained += none - control.metrics[name];
            }
            let came = |ran: &Ran| -> Vec<_> {
                lines(ran).into_iter().map(|line| (line.t0, line.class, line.came)).collect()
            };
            assert_eq!(came(&real), came(&control));
        }
        assert!(gained > 0.1, "{model}: {gained}");
        assert!(control_gained < 0.05 * gained, "{model}: {control_gained} of {gained}");
    }
    let market = signal(400, 21);
    let mut given = params(&json!({ "logit": {} }));
    given["labels"] = "permuted".into();
    assert_eq!(
        run(&market, given.clone()).text("forecasts"),
        run(&market, given).text("forecasts")
    );
    // What classes weigh, and so what a model that reads nothing says, stays.
    let mut given = params(&json!({ "majority": {} }));
    let majority = run(&market, given.clone()).text("forecasts");
    given["labels"] = "permuted".into();
    assert_eq!(run(&market, given).text("forecasts"), majority);
}

/// The feature that tells is found, the one that does not has an interval around nothing, and a rule
/// that reads none has an empty table.
#[test]
fn importance_finds_the_feature_that_tells() {
    let market = signal(1_000, 22);
    let told = |model: Value| {
        let mut given = params(&model);
        given["importance"] = json!({ "repeats": 3, "draws": 200 });
        run(&market, given).text("importance")
    };
    for model in
        [json!({ "logit": {} }), json!({ "boosting": { "trees": 40, "min_leaf_weight": 5 } })]
    {
        let text = told(model.clone());
        assert!(text.starts_with("feature,horizon,loss_increase,lo,hi\n"));
        let rows: Vec<Vec<&str>> = text.lines().skip(1).map(|l| l.split(',').collect()).collect();
        assert_eq!(rows.len(), 4);
        let of = |feature: &str, horizon: &str| -> Vec<f64> {
            let row = rows.iter().find(|row| row[0] == feature && row[1] == horizon).unwrap();
            row[2..].iter().map(|x| x.parse().unwrap()).collect()
        };
        let (one, two) = (of("one", "1"), of("two", "1"));
        assert!(one[1] > 0.02 && one[0] > one[1] && one[2] > one[0], "{model}: {one:?}");
        assert!(two[1] < 0.01 && two[2] > -0.01 && two[0].abs() < 0.02, "{model}: {two:?}");
        assert_eq!(told(model), text);
    }
    assert_eq!(told(json!({ "majority": {} })), "feature,horizon,loss_increase,lo,hi\n");
    let plain = run(&market, params(&json!({ "logit": {} })));
    assert!(!plain.outputs.contains_key("importance"));
}

/// A search picks what generalises, on inner folds alone: test rows have no say, and the choice is that
/// of the least log loss among those it tells of.
#[test]
fn a_search_chooses_on_inner_folds() {
    let market = signal(900, 23);
    let mut given = params(&json!({ "logit": {} }));
    given["search"] = json!({
        "grid": { "l2": [1000.0, 0.01, 300.0] },
        "folds": { "purged_k_fold": { "folds": 3 } },
    });
    let ran = run(&market, given.clone());
    let searches = |ran: &Ran| -> Vec<Value> {
        let log = ran.text("log");
        let all = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        all.filter(|line| line.get("search").is_some()).collect()
    };
    let told = searches(&ran);
    // Three folds and the last fit.
    assert_eq!(told.len(), 4);
    for line in &told {
        let losses: Vec<f64> = line["search"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["log_loss"].as_f64().unwrap())
            .collect();
        assert_eq!(losses.len(), 3);
        assert!(losses[1] < losses[2] && losses[2] < losses[0], "{losses:?}");
        assert_eq!(line["chosen"], json!({ "l2": 0.01 }));
        assert_eq!(line["log_loss"].as_f64(), Some(losses[1]));
    }
    assert_eq!(ran.metrics[crate::CONFIGURATIONS], 3.0);
    assert_eq!(ran.metrics["search_l2"], 0.01);
    // It forecasts as the chosen one does.
    assert_eq!(
        ran.text("forecasts"),
        run(&market, params(&json!({ "logit": {} }))).text("forecasts")
    );
    let saved = fs_err::read_to_string(ran.outputs["model"].join("forecast.json")).unwrap();
    let saved: Value = serde_json::from_str(&saved).unwrap();
    assert_eq!(saved["params"]["model"], json!({ "logit": { "l2": 0.01 } }));
    // Test rows, however they change, have no say.
    let mut changed = market.clone();
    changed.closes.iter_mut().skip(market.train + 40).for_each(|close| *close *= 2.0);
    assert_eq!(searches(&run(&changed, given.clone())), told);
    // Drawn ones are some of all, by the seed; a net's own name for a rate is a path.
    given["model"] = json!({ "boosting": { "min_leaf_weight": 5 } });
    given["search"] = json!({ "grid": { "depth": [1, 2, 3], "trees": [5, 20] }, "draws": 2,
        "folds": { "walk_forward": { "folds": 2 } } });
    let ran = run(&market, given);
    assert_eq!(ran.metrics[crate::CONFIGURATIONS], 2.0);
    assert_eq!(searches(&ran)[0]["search"].as_array().unwrap().len(), 2);
}

/// Inner folds lie within what their fit may see, and no label that is learnt reaches an inner row that
/// is judged.
#[test]
fn inner_folds_are_purged() {
    let market = noise(600, 24);
    let dir = tempfile::tempdir().unwrap();
    let path = market.write(&dir.path().join("features.csv"));
    let given = json!({ "model": { "boosting": {} }, "horizons": [1, 20], "embargo_bars": 7,
        "folds": { "purged_k_fold": { "folds": 4 } } });
    let params: Params = serde_json::from_value(given).unwrap();
    testing::with(&[("features", &path)], |ctx| {
        let panel = panel::read(&params, ctx).unwrap();
        let outer = protocol(&panel, &params, true).unwrap();
        for task in &outer.tasks {
            let scheme = crate::featurize::folds::Scheme::PurgedKFold { folds: 3 };
            let inner = outer.within(task, scheme, &params, true).unwrap();
            assert_eq!(inner.len(), 3);
            let mut seen: Vec<usize> = task.train.iter().chain(&task.valid).copied().collect();
            seen.sort_unstable();
            let asked: Vec<usize> = inner.iter().flat_map(|task| task.asked.clone()).collect();
            assert_eq!(asked, seen);
            for inner in &inner {
                let learnt: Vec<usize> = inner.train.iter().chain(&inner.valid).copied().collect();
                assert!(learnt.iter().all(|at| seen.binary_search(at).is_ok()));
                let apart = |a: usize, b: usize| a + 20 < b || a > b + 20;
                assert!(learnt.iter().all(|&a| inner.asked.iter().all(|&b| apart(a, b))));
                assert!(inner.train.iter().all(|&a| inner.valid.iter().all(|&b| apart(a, b))));
                assert!(!learnt.is_empty() && !inner.valid.is_empty());
            }
        }
    });
}

/// Reports call it so.
#[test]
fn shuffled_labels_are_permuted_ones() {
    let of = |labels: &str| {
        let text = json!({ "model": { "logit": {} }, "labels": labels });
        serde_json::from_value::<Params>(text).unwrap()
    };
    assert_eq!(of("shuffled"), of("permuted"));
}
