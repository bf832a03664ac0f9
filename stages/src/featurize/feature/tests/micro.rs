//! Against the vectors of simulated quotes and trades.

use serde_json::json;

use super::super::flow::{Signs, bulk, order_flow};
use super::super::liquidity::roll;
use super::super::vpin::Vpin;
use super::*;

struct Quotes {
    quotes: Vec<Quote>,
    times: Vec<i64>,
}

fn quotes() -> Quotes {
    let rows = table("l1_quotes.csv");
    let quote = |r: &Vec<f64>| Quote { bid: r[1], bid_size: r[2], ask: r[3], ask_size: r[4] };
    let times = rows.iter().map(|r| (r[0] * 1e9) as i64).collect();
    Quotes { quotes: rows.iter().map(quote).collect(), times }
}

/// Trades, and the quote at the time of each.
fn trades() -> Vec<(Trade, usize)> {
    let trade = |r: &Vec<f64>| Trade {
        time: (r[0] * 1e9) as i64,
        price: r[1],
        size: r[2],
        bought: Some(r[3] > 0.0),
    };
    table("l1_trades.csv").iter().map(|r| (trade(r), r[4] as usize)).collect()
}

/// A sample a quote, with the flow since the quote before.
fn by_quote() -> Vec<Sample> {
    let Quotes { quotes, times } = quotes();
    let sample = |i: usize| {
        let (now, before) = (quotes[i], quotes[i.saturating_sub(1)]);
        Sample {
            time: times[i],
            quote: Some(now),
            flow: Some(if i == 0 { 0.0 } else { order_flow(&before, &now) }),
            touch: Some((now.bid_size + now.ask_size) / 2.0),
            ..flat(now.mid())
        }
    };
    (0..quotes.len()).map(sample).collect()
}

#[test]
fn quotes_agree_with_the_reference() {
    let expected = reference("micro.json");
    let samples = &by_quote()[..600];
    let of = |key: &str| maybe(&expected[key]);
    compare("spread", &run(json!("spread_bps"), &ALL, samples), &of("spread_bps"), 1e-9);
    compare("imbalance", &run(json!("imbalance"), &ALL, samples), &of("imbalance"), 1e-9);
    let deviation = run(json!("microprice_dev_bps"), &ALL, samples);
    for ((dev, sample), theirs) in deviation.iter().zip(samples).zip(of("microprice")) {
        let price = sample.close * (1.0 + dev.unwrap() / 1e4);
        close_to("microprice", price, theirs.unwrap(), 1e-14);
    }
    let flow: Vec<_> = samples.iter().skip(1).map(|s| s.flow).collect();
    compare("order flow", &flow, &of("ofi_lib")[..599], 1e-9);
}

/// Of a bucket of 50 quotes the reference takes the 49 changes within it, and the mid from its first
/// to its last.
#[test]
fn buckets_of_order_flow_agree_with_the_reference() {
    let expected = reference("micro.json");
    let samples = by_quote();
    let ofi = run(json!({ "ofi": { "window": 49 } }), &ALL, &samples);
    let size = expected["bucket_events"].as_u64().unwrap() as usize;
    for (k, theirs) in numbers(&expected["bar_ofi"]).iter().enumerate() {
        let bucket = &samples[k * size + 1..(k + 1) * size];
        let touch = bucket.iter().map(|s| s.touch.unwrap()).sum::<f64>() / bucket.len() as f64;
        let ours = ofi[(k + 1) * size - 1].unwrap() * touch;
        assert!((ours - theirs).abs() < 1e-9 * theirs.abs().max(1.0), "{k}: {ours}, not {theirs}");
        let moved = bucket[size - 2].close - samples[k * size].close;
        assert_eq!(moved, expected["bar_dmid"][k].as_f64().unwrap());
    }
}

#[test]
fn impacts_agree_with_statsmodels() {
    let expected = reference("micro.json");
    let moves = numbers(&expected["bar_dmid"]);
    let slope = |x: &[f64]| {
        let mut close = 60_000.0;
        let mut samples = vec![flat(close)];
        for (moved, x) in moves.iter().zip(x) {
            close += moved;
            let (volume, bought) = (x.abs() + 1.0, (x.abs() + 1.0 + x) / 2.0);
            samples.push(Sample { volume, bought: Some(bought), ..flat(close) });
        }
        run(json!("kyle_lambda"), &ALL, &samples).last().unwrap().unwrap()
    };
    let of = |key: &str, name: &str| expected[key][name].as_f64().unwrap();
    close_to("kyle", slope(&numbers(&expected["bar_signed_vol"])), of("kyle_ols", "lam"), 1e-9);
    // The same line on order flow is Cont, Kukanov and Stoikov's.
    close_to("impact", slope(&numbers(&expected["bar_ofi"])), of("ofi_ols", "beta"), 1e-9);
}

#[test]
fn spreads_of_trades_agree_with_the_reference() {
    let expected = reference("micro.json");
    let trades = trades();
    let prices: Vec<_> = trades.iter().map(|(t, _)| flat(t.price)).collect();
    let window = prices.len() - 2;
    let ours = run(json!({ "roll_spread_bps": { "window": window } }), &ALL, &prices);
    let ours = ours.last().unwrap().unwrap() * prices.last().unwrap().close / 1e4;
    // numpy's covariance has one degree of freedom gone.
    let covariance = expected["roll_cov"].as_f64().unwrap() * (window - 1) as f64 / window as f64;
    close_to("roll", ours, roll(covariance), 1e-9);
    // orderflow-metrics takes one mean for both series.
    close_to("roll", ours, expected["roll_om"].as_f64().unwrap(), 1e-7);
}

#[test]
fn trades_agree_with_the_reference() {
    let expected = reference("micro.json");
    let of = |key: &str| expected[key].as_f64().unwrap();
    let trades = trades();
    let sample = |(trade, _): &(Trade, usize)| Sample {
        time: trade.time,
        volume: trade.size,
        turnover: trade.price * trade.size,
        trades: vec![*trade],
        ..flat(trade.price)
    };
    let samples: Vec<_> = trades.iter().map(sample).collect();
    let n = samples.len();
    let vwap = run(json!({ "vwap": { "window": n } }), &ALL, &samples);
    close_to("vwap", vwap[n - 1].unwrap(), of("vwap_all"), 1e-12);
    let dev = run(json!({ "vwap_dev_bps": { "window": n } }), &ALL, &samples)[n - 1].unwrap();
    close_to("vwap", samples[n - 1].close / (1.0 + dev / 1e4), of("vwap_all"), 1e-12);
    // The reference counts the trade with which the time begins.
    let rate = run(json!({ "trade_rate": { "window": n - 1 } }), &ALL, &samples)[n - 1].unwrap();
    close_to("rate", rate * n as f64 / (n - 1) as f64, of("trade_intensity_per_s"), 1e-8);
    // The average that forgets is of the same size; it averages to it over time.
    let intensity = run(json!({ "trade_intensity": { "seconds": 100 } }), &ALL, &samples);
    let known: Vec<f64> = intensity.iter().flatten().copied().collect();
    let mean = known.iter().sum::<f64>() / known.len() as f64;
    close_to("intensity", mean, of("trade_intensity_per_s"), 0.05);

    let mut signs = Signs::default();
    let ours: Vec<f64> = trades.iter().map(|(t, _)| signs.tick(t.price)).collect();
    assert_eq!(ours[..300], numbers(&expected["tick_rule"]));
    let right = ours
        .iter()
        .zip(&trades)
        .filter(|(s, (t, _))| (**s > 0.0) == (t.bought == Some(true)) && **s != 0.0);
    close_to("accuracy", right.count() as f64 / n as f64, of("tick_rule_acc"), 1e-12);
}

/// A sample a quote; a trade is in the sample of the quote at its time, and is measured against the mid
/// before it.
#[test]
fn what_trades_paid_agrees_with_the_reference() {
    let expected = reference("micro.json");
    let mut samples = by_quote();
    let trades = trades();
    trades.iter().for_each(|(trade, at)| samples[*at].trades.push(*trade));
    let of = |value: &Value| numbers(value);
    let paid = run(json!({ "effective_spread_bps": { "window": 1 } }), &ALL, &samples);
    // The first trade has no mid before it.
    for ((_, at), theirs) in trades.iter().zip(of(&expected["eff_spread"])).skip(1) {
        let mid = samples[at - 1].close;
        close_to("effective spread", paid[*at].unwrap() * mid / 1e4, theirs, 1e-9);
    }
    for bars in [1, 5, 20] {
        let spec = json!({ "markout_bps": { "bars": bars, "window": 1 } });
        let ours = run(spec, &ALL, &samples);
        let theirs = of(&expected["markout_bps"][bars.to_string()]);
        for ((_, at), theirs) in trades.iter().zip(theirs).skip(1) {
            let ours = ours[at + bars].unwrap();
            assert!((ours - theirs).abs() < 1e-9, "{bars}: {ours}, not {theirs}");
        }
    }
    // Over more, trades weigh by their size.
    let mean = run(json!({ "effective_spread_bps": { "window": 3 } }), &ALL, &samples);
    let (sum, size) = trades[1..4].iter().fold((0.0, 0.0), |(sum, size), (trade, at)| {
        (sum + paid[*at].unwrap() * trade.size, size + trade.size)
    });
    close_to("mean", mean[trades[3].1].unwrap(), sum / size, 1e-12);
}

#[test]
fn the_reference_buckets_give_its_vpin() {
    let vpin = &reference("micro.json")["vpin"];
    let changes = numbers(&vpin["buckets_dp"]);
    let size = vpin["bucket_size"].as_f64().unwrap();
    let value = |sigma: f64| {
        let mut ours = Vpin::new(size, changes.len());
        let volumes = numbers(&vpin["buckets_v"]).into_iter().zip(&changes);
        volumes.filter_map(|(v, c)| ours.push(v, bulk(*c, sigma))).last().unwrap()
    };
    let sigma = vpin["sigma_ddof1"].as_f64().unwrap();
    let n = changes.len() as f64;
    // The reference approximates the normal distribution to 1e-7; `vpin_all` divides by n.
    close_to("vpin", value(sigma), vpin["vpin_sigma"].as_f64().unwrap(), 2e-7);
    let all = value(sigma * ((n - 1.0) / n).sqrt());
    close_to("vpin", all, vpin["vpin_all"].as_f64().unwrap(), 2e-7);
}

#[test]
fn the_share_that_was_bought_is_of_the_normal_distribution() {
    assert_eq!(bulk(0.0, 0.0), 0.5);
    close_to("phi", bulk(1.0, 1.0), 0.841_344_746_068_542_9, 1e-10);
}

#[test]
fn buckets_split_a_bar() {
    let mut vpin = Vpin::new(10.0, 2);
    assert_eq!(vpin.push(6.0, 1.0), None);
    // 4 more fill the first bucket, 5 start the next: |6 - 4| / 10.
    assert_eq!(vpin.push(9.0, 0.0), None);
    // 5 sold and 5 bought fill the second.
    close_to("vpin", vpin.push(5.0, 1.0).unwrap(), 0.1, 1e-15);
    // Two whole buckets, all bought.
    assert_eq!(vpin.push(20.0, 1.0), Some(1.0));
    assert_eq!(vpin.push(1e15, 0.75), Some(0.5));
}

#[test]
fn a_book_is_deep_or_shallow_beside_its_average() {
    let rows = |depth: f64, row: usize| Sample {
        time: row as i64 * SECOND,
        depth: Some(depth),
        ..flat(1.0)
    };
    let mut samples: Vec<_> = (0..100).map(|row| rows(500.0, row)).collect();
    samples.push(rows(1000.0, 100));
    let spec = json!({ "depth": { "warmup": 10, "seconds": 10 } });
    let depth = run(spec, &ALL, &samples);
    assert_eq!(depth[8], None);
    assert!(depth[9].unwrap().abs() < 1e-15);
    let kept = (-0.1f64).exp();
    let average = 500.0 + 500.0 * (1.0 - kept);
    close_to("depth", depth[100].unwrap(), (1000.0 / average).ln(), 1e-3);
}
