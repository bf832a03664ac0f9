//! No feature knows what comes, and none is harmed by what is no number.

use proptest::prelude::*;

use super::*;

/// Closes of three rows ahead: what a careless join would give.
struct Peek {
    closes: Vec<f64>,
    row: usize,
}

impl Feature for Peek {
    fn push(&mut self, sample: &Sample) -> Option<f64> {
        self.row += 1;
        self.closes.get(self.row + 2).map(|later| later / sample.close)
    }
}

/// A price by the mean of the whole series: a scale that was fitted on everything.
struct Scaled(f64);

impl Feature for Scaled {
    fn push(&mut self, sample: &Sample) -> Option<f64> {
        Some(sample.close / self.0)
    }
}

#[test]
fn a_future_that_is_planted_is_caught() {
    let samples = market(50, 1);
    let closes = |series: &[Sample]| series.iter().map(|s| s.close).collect::<Vec<_>>();
    let peek = causal(|s| Box::new(Peek { closes: closes(s), row: 0 }), &samples, 30);
    assert_eq!(peek, Some(27));
    let scaled =
        causal(|s| Box::new(Scaled(closes(s).iter().sum::<f64>() / s.len() as f64)), &samples, 30);
    assert_eq!(scaled, Some(0));
    let honest = causal(|_| Box::new(Scaled(2.0)), &samples, 30);
    assert_eq!(honest, None);
    assert_eq!(causal(|_| Box::new(Scaled(2.0)), &samples, 999), None);
}

/// The fit, too, must come from the training span alone: one over the whole series is caught.
#[test]
fn a_fit_on_everything_is_caught() {
    let samples = market(400, 2);
    let columns = parse(&[FeatureSpec::new("vpin"), FeatureSpec::new("p_high_vol")]).unwrap();
    for column in &columns {
        let fitted = |series: &[Sample], train: usize| {
            let fits = fits(std::slice::from_ref(column), &ALL, series, train);
            column.make(252.0, &ALL, &fits).unwrap()
        };
        assert!(causal(|s| fitted(s, s.len()), &samples, 300).is_some(), "{}", column.name);
        assert_eq!(causal(|s| fitted(s, 300), &samples, 300), None, "{}", column.name);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    /// Every row of the table, in both forms: whatever follows a row leaves it as it is, to the
    /// bit.
    #[test]
    fn every_feature_is_causal(cut in 301usize..600, seed in 0u64..1000) {
        let samples = market(600, seed);
        for source in [ALL, BARS] {
            for column in everything() {
                if column.check(&source).is_err() {
                    continue;
                }
                // What is learnt is learnt anew from each series' first 250 rows.
                let make = |series: &[Sample]| {
                    let fits = fits(std::slice::from_ref(&column), &source, series, 250);
                    column.make(252.0, &source, &fits).unwrap()
                };
                let row = causal(make, &samples, cut);
                prop_assert_eq!(row, None, "{} looks ahead", column.name);
            }
        }
    }
}

/// Features do answer, in both forms, and with finite numbers alone.
#[test]
fn every_feature_answers() {
    let samples = market(700, 3);
    for source in [ALL, BARS] {
        let columns: Vec<_> =
            everything().into_iter().filter(|c| c.check(&source).is_ok()).collect();
        assert_eq!(columns.len(), FEATURES.len() - if source == ALL { 0 } else { 4 });
        let fits = fits(&columns, &source, &samples, 400);
        for column in columns {
            let mut feature = column.make(252.0, &source, &fits).unwrap();
            let values: Vec<_> = samples.iter().map(|s| feature.push(s)).collect();
            let first = values.iter().position(Option::is_some);
            let name = &column.name;
            let first = first.unwrap_or_else(|| panic!("{name} never answers"));
            assert!(first < 300, "{name} begins at {first}");
            // Once known it stays known; without an index at first, or on idle samples, too.
            let gaps = values[first..].iter().filter(|v| v.is_none()).count();
            assert_eq!(gaps, 0, "{name} has gaps");
            assert!(values.iter().flatten().all(|v| v.is_finite()), "{name}");
            let distinct: std::collections::BTreeSet<u64> =
                values.iter().flatten().map(|v| v.to_bits()).collect();
            assert!(distinct.len() > 1, "{name} always says the same");
        }
    }
}

/// Of a source of closes, whatever is not refused reads closes alone, and what is refused for its lack
/// of ranges does read them.
#[test]
fn of_closes_there_is_what_reads_closes_alone() {
    // Who bought is not known of either.
    let bars: Vec<Sample> =
        market(400, 8).into_iter().map(|s| Sample { bought: None, ..s }).collect();
    let alone = |s: &Sample| Sample {
        open: s.close,
        high: s.close,
        low: s.close,
        volume: 0.0,
        turnover: 0.0,
        ..s.clone()
    };
    let closes: Vec<Sample> = bars.iter().map(alone).collect();
    let has = Source { ranges: false, volume: false, ..BARS };
    let mut refused = 0;
    for column in everything() {
        // Its form on bars reads ranges; that on closes is another.
        if column.name == "realised_vol" {
            continue;
        }
        let ranges = column.entry.needs.contains(&Need::Ranges);
        let wanted = if ranges { BARS } else { has };
        if column.check(&wanted).is_err() {
            continue;
        }
        let fits = fits(std::slice::from_ref(&column), &wanted, &bars, 250);
        let Ok(mut one) = column.make(252.0, &wanted, &fits) else { continue };
        let mut two = column.make(252.0, &wanted, &fits).unwrap();
        let same = bars.iter().zip(&closes).all(|(a, b)| one.push(a) == two.push(b));
        assert_eq!(same, !ranges, "{}", column.name);
        refused += usize::from(column.check(&has).is_err());
    }
    assert_eq!(refused, 15);
    let column = column(serde_json::json!({ "realised_vol": { "estimator": "parkinson" } }));
    assert!(column.make(252.0, &has, &Fits::new()).is_err());
    assert!(column.make(252.0, &BARS, &Fits::new()).is_ok());
}

/// A sample of which nothing is a number leaves no trace.
#[test]
fn nothing_that_is_no_number_enters() {
    let samples = market(400, 4);
    for source in [ALL, BARS] {
        for column in everything() {
            if column.check(&source).is_err() || column.name == "trade_rate" {
                continue;
            }
            let fits = fits(std::slice::from_ref(&column), &source, &samples, 250);
            let mut with = column.make(252.0, &source, &fits).unwrap();
            let mut without = column.make(252.0, &source, &fits).unwrap();
            for (row, sample) in samples.iter().enumerate() {
                if row % 50 == 49 {
                    let nan = f64::NAN;
                    let quote = Quote { bid: nan, bid_size: nan, ask: nan, ask_size: nan };
                    let nothing = Sample {
                        time: samples[row - 1].time,
                        open: nan,
                        high: nan,
                        low: nan,
                        close: nan,
                        volume: nan,
                        turnover: nan,
                        bought: Some(nan),
                        trades: Vec::new(),
                        quote: Some(quote),
                        depth: Some(nan),
                        flow: Some(nan),
                        touch: Some(nan),
                        index: Some(nan),
                        peers: vec![nan; 3],
                    };
                    let value = with.push(&nothing);
                    assert!(value.is_none_or(f64::is_finite));
                }
                let (a, b) = (with.push(sample), without.push(sample));
                assert_eq!(a.map(f64::to_bits), b.map(f64::to_bits), "{}, row {row}", column.name);
            }
        }
    }
}

/// Prices that stand still, and intervals without volume, give numbers.
#[test]
fn a_market_that_stands_still_gives_numbers() {
    let busy = market(400, 6);
    let mut samples = busy.clone();
    let last = busy[399].clone();
    for row in 0..300i64 {
        let time = last.time + (row + 1) * SECOND;
        let (price, quote) = (last.close, last.quote);
        samples.push(Sample {
            time,
            quote,
            open: price,
            high: price,
            low: price,
            close: price,
            volume: 0.0,
            turnover: 0.0,
            bought: None,
            trades: Vec::new(),
            flow: Some(0.0),
            ..last.clone()
        });
    }
    for source in [ALL, BARS] {
        for column in everything() {
            if column.check(&source).is_err() {
                continue;
            }
            let fits = fits(std::slice::from_ref(&column), &source, &samples, 400);
            let mut feature = column.make(252.0, &source, &fits).unwrap();
            let values: Vec<_> = samples.iter().map(|s| feature.push(s)).collect();
            assert!(values[400..].iter().all(Option::is_some), "{}", column.name);
        }
    }
}
