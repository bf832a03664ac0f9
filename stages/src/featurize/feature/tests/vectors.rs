//! Against the vectors of libraries: TA-Lib, pandas, hmmlearn, statsmodels, mlfinpy.

use std::collections::VecDeque;

use serde_json::json;

use super::super::regime::{Filter, Hmm};
use super::super::relative::{absorption, revert};
use super::super::{eigen, garch, gjr, series, stationarity};
use super::*;
use crate::featurize::window::{Comoments, Rolling};

#[test]
fn indicators_agree_with_ta_lib() {
    let expected = reference("ta.json");
    let bars = daily();
    for (spec, key) in [
        ("rsi_14", "rsi14"),
        ("atr_14", "atr14"),
        ("natr_14", "natr14"),
        ("atr_pct", "natr14"),
        ("ema_20", "ema20"),
        ("sma_20", "sma20"),
        ("roc_10", "roc10"),
        ("adx_14", "adx14"),
        ("obv", "obv"),
        ("mfi_14", "mfi14"),
        ("cci_20", "cci20"),
        ("willr_14", "willr14"),
        ("macd", "macd"),
        ("macd_signal", "macd_signal"),
        ("macd_hist", "macd_hist"),
        ("bb_upper", "bb_up"),
        ("bb_middle", "bb_mid"),
        ("bb_lower", "bb_lo"),
        ("stoch_k", "stoch_k"),
        ("stoch_d", "stoch_d"),
    ] {
        compare(spec, &run(json!(spec), &BARS, &bars), &maybe(&expected[key]), 1e-9);
    }
}

#[test]
fn what_is_built_on_indicators_agrees() {
    let expected = reference("ta.json");
    let bars = daily();
    let of = |key: &str| maybe(&expected[key]);
    let (upper, middle) = (of("bb_up"), of("bb_mid"));
    let bands = upper.iter().zip(&middle).zip(&bars);
    let z: Vec<_> =
        bands.map(|((u, m), bar)| Some((bar.close - (*m)?) / (((*u)? - (*m)?) / 2.0))).collect();
    compare("bollinger_z", &run(json!("bollinger_z"), &BARS, &bars), &z, 1e-9);
    let hist = of("macd_hist").into_iter().zip(of("atr14")).map(|(h, a)| Some(h? / a?));
    let hist: Vec<_> = hist.collect();
    compare("macd_hist_atr", &run(json!("macd_hist_atr"), &BARS, &bars), &hist, 1e-9);
}

/// Percent a year with one sample a year, as a deviation a sample.
fn deviations(spec: Value, samples: &[Sample]) -> Vec<Option<f64>> {
    run(spec, &BARS, samples).into_iter().map(|v| v.map(|v| v / 100.0)).collect()
}

#[test]
fn volatilities_agree_with_the_reference() {
    let expected = reference("vol.json");
    let bars = daily();
    let check = |spec: Value, key: &str, scale: fn(f64) -> f64, first: usize| {
        let name = spec.to_string();
        let ours: Vec<_> = deviations(spec, &bars)[first..].iter().map(|v| v.map(scale)).collect();
        compare(&name, &ours, &maybe(&expected[key]), 1e-9);
    };
    // Series of returns begin with the second bar.
    check(json!("rolling_std"), "roll_std20_ddof1", |v| v, 1);
    check(json!({ "realised_vol": { "estimator": "realised" } }), "rv20", |v| v * 20f64.sqrt(), 1);
    // The reference is a sum over the 19 products of 20 returns.
    check(json!("bipower_vol"), "bpv20", |v| v * v * 19.0, 1);
    check(json!({ "ewma_vol": { "warmup": 1 } }), "ewma_var_094", |v| v * v, 1);
    check(json!("parkinson_vol"), "parkinson20", |v| v, 0);
    check(json!("garman_klass_vol"), "garman_klass20", |v| v, 0);
    check(json!("rogers_satchell_vol"), "rogers_satchell20", |v| v, 0);
    // 20 candles hold 19 moves between bars, and 19 pairs; the reference counts candles.
    check(json!({ "yang_zhang_vol": { "window": 19 } }), "yang_zhang20", |v| v, 0);
    check(json!({ "realised_vol": { "window": 19 } }), "yang_zhang20", |v| v, 0);
    let spreads = run(json!({ "spread_bps": { "window": 19 } }), &BARS, &bars);
    let spreads: Vec<_> = spreads.iter().map(|s| s.map(|s| s / 1e4)).collect();
    compare("corwin-schultz", &spreads, &maybe(&expected["corwin_schultz20"]), 1e-9);
}

#[test]
fn liquidity_and_correlation_agree_with_the_reference() {
    let expected = reference("vol.json");
    let bars = daily();
    let corr = run(json!("corr_60"), &BARS, &bars);
    compare("correlation", &corr[1..], &maybe(&expected["roll_corr60"]), 1e-9);
    let theirs: Vec<_> = maybe(&expected["amihud20"]).iter().map(|a| a.map(|a| a * 1e9)).collect();
    compare("amihud", &run(json!("amihud"), &BARS, &bars)[1..], &theirs, 1e-9);
    let depth = run(json!("depth"), &BARS, &bars)[1..]
        .iter()
        .map(|d| d.map(|d| 1e9 * (-d).exp()))
        .collect::<Vec<_>>();
    compare("depth", &depth, &theirs, 1e-9);
    let kyle = run(json!({ "kyle_lambda": { "window": 20 } }), &BARS, &bars);
    let kyle: Vec<_> = kyle[1..].iter().map(|k| k.map(|k| k / 1e4)).collect();
    compare("kyle_lambda", &kyle, &theirs, 1e-9);
    let momentum = maybe(&reference("structure.json")["mom_12_1"]);
    compare("12-1", &run(json!("momentum_12_1"), &BARS, &bars), &momentum, 1e-9);
}

fn returns(samples: &[Sample]) -> Vec<f64> {
    samples.windows(2).map(|w| 100.0 * (w[1].close / w[0].close).ln()).collect()
}

#[test]
fn filtered_probabilities_agree_with_hmmlearn() {
    let expected = reference("hmm.json");
    let returns = returns(&closes());
    for key in ["k2", "k3"] {
        let of = &expected[key];
        let rows = of["transmat"].as_array().unwrap();
        let hmm = Hmm {
            start: numbers(&of["startprob"]),
            transition: rows.iter().map(numbers).collect(),
            mean: numbers(&of["means"]),
            variance: numbers(&of["vars"]),
        };
        let mut filter = Filter::new(&hmm).unwrap();
        let ours: Vec<Vec<f64>> = returns.iter().map(|&r| filter.push(r).to_vec()).collect();
        let every_fifth = of["filtered_every_5"].as_array().unwrap().iter().enumerate();
        let prefixes = of["prefix_idx"].as_array().unwrap().iter().map(|i| i.as_u64().unwrap());
        let prefixes = prefixes.zip(of["filtered_by_lib_prefix"].as_array().unwrap());
        let mut rows = every_fifth
            .map(|(k, row)| (5 * k, row))
            .chain(prefixes.map(|(row, value)| (row as usize, value)))
            .collect::<Vec<_>>();
        assert!(rows.len() > 450);
        for (row, theirs) in rows.drain(..) {
            for (a, b) in ours[row].iter().zip(numbers(theirs)) {
                // Probabilities far below one in 1e12 are the rounding of both.
                assert!((a - b).abs() <= 1e-9 * b.max(1e-3), "{key}, row {row}: {a}, not {b}");
            }
        }
    }
    // A model that is none.
    let bad = Hmm { start: vec![1.0], transition: vec![], mean: vec![], variance: vec![] };
    assert!(Filter::new(&bad).is_none());
}

#[test]
fn the_garch_model_agrees_with_arch() {
    let expected = &reference("vol.json")["garch11"];
    let returns = returns(&closes());
    let ours = garch::fit(&returns, |_| Ok(())).unwrap().unwrap();
    let of = |name: &str| expected["params"][name].as_f64().unwrap();
    // The likelihood is flat at its top: what was found must be as high, and close by.
    let theirs = expected["loglik"].as_f64().unwrap();
    assert!(ours.log_likelihood > theirs - 1e-4, "{} {theirs}", ours.log_likelihood);
    close_to("mu", ours.mu, of("mu"), 2e-3);
    close_to("omega", ours.omega, of("omega"), 2e-3);
    close_to("alpha", ours.alpha, of("alpha[1]"), 2e-3);
    close_to("beta", ours.beta, of("beta[1]"), 2e-3);
    // With their parameters the variances are theirs.
    let (mu, omega) = (of("mu"), of("omega"));
    let (alpha, beta) = (of("alpha[1]"), of("beta[1]"));
    let weights: f64 = (0..75).map(|i| 0.94f64.powi(i)).sum();
    let mean = returns.iter().sum::<f64>() / returns.len() as f64;
    let first = returns.iter().take(75).enumerate();
    let backcast =
        first.map(|(i, r)| 0.94f64.powi(i as i32) * (r - mean).powi(2)).sum::<f64>() / weights;
    let fit = json!({ "mu": mu, "omega": omega, "alpha": alpha, "beta": beta,
        "backcast": backcast, "log_likelihood": 0.0 });
    let fits = Fits::from([("garch_vol".to_owned(), fit)]);
    let mut feature = column(json!("garch_vol")).make(1.0, &BARS, &fits).unwrap();
    let ours: Vec<_> = closes().iter().map(|sample| feature.push(sample)).collect();
    let theirs = numbers(&expected["cond_vol_every_10"]);
    for (k, theirs) in theirs.iter().enumerate().skip(1) {
        // Theirs is of the return at 10 k; ours is the forecast at the sample before it.
        close_to("cond_vol", ours[10 * k].unwrap(), *theirs, 1e-9);
    }
}

#[test]
fn the_gjr_model_agrees_with_arch() {
    let expected = &reference("vol.json")["gjr_t"];
    let returns = returns(&closes());
    let of = |name: &str| expected["params"][name].as_f64().unwrap();
    let model = json!({ "mu": of("mu"), "omega": of("omega"), "alpha": of("alpha[1]"),
        "gamma": of("gamma[1]"), "beta": of("beta[1]"), "nu": of("nu") });
    let theirs = expected["loglik"].as_f64().unwrap();
    let given: gjr::Given = serde_json::from_value(model.clone()).unwrap();
    close_to("log-likelihood", given.on(&returns).log_likelihood, theirs, 1e-9);
    // Given in the YAML, the filtered volatility is theirs; what is learnt is the beginning alone.
    let column = column(json!({ "gjr_vol": { "model": model } }));
    let mut learner = column.learner(1.0, &BARS).unwrap().unwrap();
    closes().iter().for_each(|sample| learner.push(sample));
    let fits = Fits::from([("gjr_vol".to_owned(), learner.finish(&mut |_, _| Ok(())).unwrap())]);
    let mut feature = column.make(1.0, &BARS, &fits).unwrap();
    let ours: Vec<_> = closes().iter().map(|sample| feature.push(sample)).collect();
    let volatilities = numbers(&expected["cond_vol_every_10"]);
    for (k, theirs) in volatilities.iter().enumerate().skip(1) {
        close_to("cond_vol", ours[10 * k].unwrap(), *theirs, 1e-9);
    }
    // Fitted, the likelihood is as high. Alpha lies on its bound, where it is flat.
    let ours = gjr::fit(&returns, |_| Ok(())).unwrap().unwrap();
    assert!(ours.log_likelihood > theirs - 1e-3, "{ours:?}");
    for (name, ours, tolerance) in [
        ("mu", ours.mu, 2e-2),
        ("omega", ours.omega, 2e-2),
        ("gamma[1]", ours.gamma, 2e-2),
        ("beta[1]", ours.beta, 5e-3),
        ("nu", ours.nu, 2e-2),
    ] {
        close_to(name, ours, of(name), tolerance);
    }
    assert!(ours.alpha < 1e-3);
}

#[test]
fn wandering_agrees_with_the_reference() {
    let expected = reference("structure.json");
    let samples = closes();
    let whole = json!({ "variance_ratio_5": { "window": samples.len() - 1 } });
    let ours = run(whole, &BARS, &samples).last().unwrap().unwrap();
    close_to("variance ratio", ours, expected["vr5"].as_f64().unwrap(), 1e-9);
    // Theirs is of the logarithm of the price by the index, with five lags.
    let theirs = expected["adf"]["stat"].as_f64().unwrap();
    let how = |value: &str| {
        json!({ "adf": {
        "window": samples.len(), "lags": 5, "relative": true, "value": value } })
    };
    let last = |value: &str| run(how(value), &BARS, &samples).last().unwrap().unwrap();
    close_to("adf", last("statistic"), theirs, 1e-9);
    close_to("p", last("p_value"), expected["adf"]["p"].as_f64().unwrap(), 1e-9);
    assert_eq!(stationarity::dickey_fuller(&[1.0; 50], 2), None);
    close_to("p", stationarity::p_value(theirs), expected["adf"]["p"].as_f64().unwrap(), 1e-9);
}

#[test]
fn s_scores_agree_with_the_reference() {
    let expected = reference("structure.json");
    let samples = closes();
    let scores = run(json!("s_score"), &BARS, &samples);
    let change = |at: usize, of: fn(&Sample) -> f64| of(&samples[at]) / of(&samples[at - 1]) - 1.0;
    for theirs in expected["avellaneda_lee"].as_array().unwrap() {
        let of = |name: &str| theirs[name].as_f64().unwrap();
        let t = of("t") as usize;
        let pairs: VecDeque<[f64; 2]> = (t - 59..=t)
            .map(|at| [change(at, |s| s.index.unwrap()), change(at, |s| s.close)])
            .collect();
        let mut line = Rolling::<Comoments>::new(60);
        pairs.iter().for_each(|pair| {
            line.push(*pair);
        });
        let ours = revert(&line.get().unwrap(), &pairs).unwrap();
        close_to("beta", ours.beta, of("beta"), 1e-9);
        close_to("b", ours.b, of("b"), 1e-9);
        close_to("a", ours.a, of("a"), 1e-9);
        close_to("kappa", ours.speed(252.0), of("kappa"), 1e-9);
        close_to("m", ours.mean, of("m"), 1e-9);
        close_to("sigma", ours.deviation, of("sigma_eq"), 1e-9);
        close_to("s", scores[t].unwrap(), of("s"), 1e-9);
    }
}

#[test]
fn absorption_and_schedules_agree_with_the_reference() {
    let expected = reference("structure.json");
    let of = &expected["absorption"];
    let matrix: Vec<f64> = of["cov"].as_array().unwrap().iter().flat_map(numbers).collect();
    let ours = eigen::eigenvalues(&matrix, 4);
    for (a, b) in ours.iter().zip(numbers(&of["eig"])) {
        close_to("eigenvalue", *a, b, 1e-9);
    }
    close_to("absorption", absorption(&ours, 1), of["ar1"].as_f64().unwrap(), 1e-9);
}

#[test]
fn memory_and_events_agree_with_mlfinpy() {
    let expected = reference("series.json");
    let samples = &closes()[..400];
    let ours = run(json!("fracdiff"), &BARS, samples);
    compare("fracdiff", &ours, &maybe(&expected["fracdiff_d0.4_thr1e-3"]), 1e-9);
    // mlfinpy takes the logarithm of what it is given, and was given logarithms.
    let quirk: Vec<_> = samples.iter().map(|s| flat(s.close.ln())).collect();
    let events = run(json!("cusum"), &BARS, &quirk).into_iter().enumerate();
    let events: Vec<f64> =
        events.filter(|(_, e)| e.is_some_and(|e| e != 0.0)).map(|(row, _)| row as f64).collect();
    assert_eq!(events, numbers(&expected["cusum_0.02"]));
    assert_eq!(series::weights(1.0, 1e-9), Some(vec![1.0, -1.0]));
}

#[test]
fn cusum_has_a_sign() {
    let mut cusum = series::Cusum::new(1.0);
    let signs = [0.6, 0.6, 0.5, -2.0, 0.1, -0.5].map(|x| cusum.push(x));
    assert_eq!(signs, [0.0, 1.0, 0.0, -1.0, 0.0, 0.0]);
}

#[test]
fn peers_are_ranked() {
    let row = |own: f64, peers: [f64; 3]| Sample { peers: peers.to_vec(), ..flat(own) };
    let samples = [row(10.0, [10.0; 3]), row(11.0, [10.0, 11.0, 12.0])];
    let rank = run(json!("peer_rank_1"), &BARS, &samples);
    // One below, one the same.
    assert_eq!(rank, [None, Some(0.5)]);
    let z = run(json!({ "peer_z": { "bars": 1 } }), &BARS, &samples)[1].unwrap();
    let returns = [1.1f64.ln(), 0.0, 1.1f64.ln(), 1.2f64.ln()];
    let mean = returns.iter().sum::<f64>() / 4.0;
    let deviation = (returns.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / 3.0).sqrt();
    close_to("z", z, (returns[0] - mean) / deviation, 1e-12);
}

#[test]
fn the_calendar_knows_its_zone() {
    // Saturday 2000-02-26 18:00 UTC; that February has 29 days.
    let at = Sample { time: 951_588_000 * SECOND, ..flat(1.0) };
    let value = |spec: Value| run(spec, &BARS, std::slice::from_ref(&at))[0].unwrap();
    assert_eq!(value(json!("day_of_week")), 5.0);
    assert_eq!(value(json!("hour_sin")), -1.0);
    assert!(value(json!("hour_cos")).abs() < 1e-12);
    assert_eq!(value(json!("minutes_to_month_end")), (3 * 24 + 6) as f64 * 60.0);
    assert_eq!(value(json!({ "day_of_week": { "zone": 6.5 } })), 6.0);
    assert_eq!(value(json!({ "hour_cos": { "zone": 6 } })), 1.0);
    assert_eq!(value(json!({ "minutes_to_month_end": { "zone": -2 } })), 80.0 * 60.0);
}
