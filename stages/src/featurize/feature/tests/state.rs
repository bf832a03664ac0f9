//! On bars the market state is what `featurize::state` computed before there was a table.

use super::*;
use crate::featurize::bars::Bar;
use crate::featurize::fit::Fit;
use crate::featurize::state::{self, Follower, State};
use crate::featurize::{Impact, Params, regime, spread};

fn as_bar(sample: &Sample) -> Bar {
    Bar {
        date: String::new(),
        key: String::new(),
        open: sample.open,
        high: sample.high,
        low: sample.low,
        close: sample.close,
        volume: sample.volume,
    }
}

fn same(params: &Params, list: &[Value], samples: &[Sample]) {
    let list: Vec<FeatureSpec> = serde_json::from_value(list.to_vec().into()).unwrap();
    let columns = parse(&list).unwrap();
    let names: Vec<&str> = columns.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, state::FEATURES);
    let train = samples.len() / 2;
    let fits = fits(&columns, &Source::BARS, samples, train);
    let hmm = &fits["p_high_vol"];
    let fit = Fit {
        train: Default::default(),
        train_rows: train,
        periods_per_year: 252.0,
        regime: serde_json::from_value(hmm.clone()).unwrap(),
        vpin_bucket: fits["vpin"]["bucket"].as_f64().unwrap(),
        scalers: Default::default(),
    };
    let returns: Vec<f64> =
        samples[..train].windows(2).map(|w| 100.0 * (w[1].close / w[0].close).ln()).collect();
    // Fitted to the bit as before.
    let before = regime::fit(&returns, &params.regime, |_| Ok(())).unwrap().unwrap();
    assert_eq!(serde_json::to_value(before).unwrap(), *hmm);

    let mut features: Vec<_> =
        columns.iter().map(|c| c.make(252.0, &Source::BARS, &fits).unwrap()).collect();
    let mut state = State::new(params, &fit);
    let mut known = [0; 15];
    for (row, sample) in samples.iter().enumerate() {
        let theirs = state.push(&as_bar(sample));
        let ours = features.iter_mut().map(|f| f.push(sample));
        for (at, (ours, theirs)) in ours.zip(theirs).enumerate() {
            let name = names[at];
            assert_eq!(ours.is_some(), theirs.is_some(), "{name}, row {row}");
            let (Some(a), Some(b)) = (ours, theirs) else { continue };
            known[at] += 1;
            assert!((a - b).abs() <= 1e-10 * b.abs().max(1e-3), "{name}, row {row}: {a}, not {b}");
        }
    }
    assert!(known.iter().all(|&rows| rows > 50), "{known:?}");
}

#[test]
fn bars_give_what_they_gave() {
    let list: Vec<Value> = default_features(&Source::BARS)
        .iter()
        .map(|spec| serde_json::to_value(spec).unwrap())
        .collect();
    same(&Params::default(), &list, &daily());
    let mut samples = market(700, 5);
    samples.iter_mut().for_each(|s| s.bought = None);
    same(&Params::default(), &list, &samples);

    // The other methods.
    let params = Params {
        spread: spread::SpreadMethod::Roll,
        impact: Impact::Ols,
        volatility: crate::featurize::volatility::Estimator::Close,
        ..Params::default()
    };
    let mut list = list;
    list[0] = serde_json::json!({ "spread_bps": { "method": "roll" } });
    list[7] = serde_json::json!({ "realised_vol": { "estimator": "close" } });
    list[11] = serde_json::json!({ "kyle_lambda": { "method": "ols" } });
    same(&params, &list, &samples);
}

#[test]
fn the_index_is_followed_as_before() {
    let samples = daily();
    let mut follower = Follower::new(60);
    let ours = run("corr_60".into(), &BARS, &samples);
    for (ours, sample) in ours.iter().zip(&samples) {
        let theirs = follower.push(sample.close, sample.index.unwrap());
        assert_eq!(ours.is_some(), theirs.is_some());
        if let (Some(a), Some(b)) = (ours, theirs) {
            close_to("corr", *a, b, 1e-10);
        }
    }
}
