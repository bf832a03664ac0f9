//! The replay of decisions on one instrument, by hand-worked cases.

use super::backtest::*;
use crate::pairs::action::{Action, Side};
use crate::pairs::decision::Decision;

const FREE: Rules = Rules {
    latency: 1,
    fill: Fill::Penetrate,
    horizon: 0,
    taker_bps: 0.0,
    maker_bps: 0.0,
    half_spread_bps: 0.0,
    unit: 1.0,
    max_size: 1,
    rest: 1,
    slippage_bps: 0.0,
};
const BUY: Option<Action> = Some(Action::Market(Side::Buy));
const SELL: Option<Action> = Some(Action::Market(Side::Sell));
const FLAT: Option<Action> = Some(Action::Flat);

fn bar(open: f64, high: f64, low: f64, close: f64) -> Bar {
    Bar { open, high, low, close }
}

fn limit(side: Side, offset: u32) -> Option<Action> {
    Some(Action::Limit(side, offset))
}

fn close_to(a: f64, b: f64) {
    assert!((a - b).abs() < 1e-12, "{a} is not {b}");
}

#[test]
fn a_market_order_fills_at_the_next_open() {
    let bars = [
        bar(99.0, 101.0, 98.0, 100.0),
        bar(102.0, 104.0, 101.0, 103.0),
        bar(105.0, 106.0, 100.0, 101.0),
    ];
    let path = run(&bars, &[BUY, FLAT, None], &FREE);
    assert_eq!(path.position, [0, 1, 0]);
    // In at 102, out at 105: neither the close of the decision nor that of the exit's bar.
    for (got, want) in path.equity.iter().zip([1.0, 103.0 / 102.0, 105.0 / 102.0]) {
        close_to(*got, want);
    }
    assert_eq!(path.traded, [0.0, 1.0, 1.0]);
    assert_eq!(path.trades.len(), 1);
    close_to(path.trades[0].net, 3.0 / 102.0);
    assert!(!path.trades[0].open);
}

#[test]
fn a_bar_of_latency_more_fills_a_bar_later() {
    let bars = [100.0, 110.0, 120.0, 130.0].map(|p| bar(p, p, p, p));
    let path = run(&bars, &[BUY, None, None, None], &Rules { latency: 2, ..FREE });
    assert_eq!(path.position, [0, 0, 1, 1]);
    close_to(path.equity[3], 130.0 / 120.0);
    assert!(path.trades[0].open);
    close_to(path.trades[0].net, 10.0 / 120.0);
}

#[test]
fn a_flip_pays_for_both_sides() {
    let bars = [100.0, 100.0, 110.0, 99.0].map(|p| bar(p, p, p, p));
    let rules = Rules { taker_bps: 7.0, half_spread_bps: 3.0, ..FREE };
    let path = run(&bars, &[BUY, SELL, FLAT, None], &rules);
    assert_eq!(path.position, [0, 1, -1, 0]);
    assert_eq!(path.traded, [0.0, 1.0, 2.0, 1.0]);
    // Buy 1 of equity at 100, sell 0.011 shares at 110 and go short the same equity, close.
    let after_buy = 1.0 - 0.001;
    let at_flip = after_buy + 0.1;
    let long_out = 0.011 * 100.0 * 0.001;
    let short = at_flip / 110.0;
    let after_flip = at_flip - long_out - at_flip * 0.001;
    let out = after_flip + short * 11.0 - short * 99.0 * 0.001;
    close_to(path.equity[1], after_buy);
    close_to(path.equity[2], after_flip);
    close_to(path.equity[3], out);
    close_to(path.trades[0].net, 0.1 - 0.001 - long_out);
    close_to(path.costs, 0.001 + long_out + at_flip * 0.001 + short * 99.0 * 0.001);
    // Renewing a position costs nothing.
    assert_eq!(run(&bars, &[BUY, BUY, BUY, BUY], &rules).traded, [0.0, 1.0, 0.0, 0.0]);
}

#[test]
fn a_limit_fills_only_when_traded_through() {
    let decided = bar(100.0, 100.0, 100.0, 100.0);
    let rules = Rules { maker_bps: 1.0, taker_bps: 50.0, ..FREE };
    // Limit at 99. Not reached; touched; traded through; opened through.
    let cases = [
        (bar(100.0, 101.0, 99.5, 100.5), None, None),
        (bar(100.0, 101.0, 99.0, 100.5), None, Some((99.0, 1.0))),
        (bar(100.0, 101.0, 98.9, 100.5), Some((99.0, 1.0)), Some((99.0, 1.0))),
        (bar(98.0, 98.5, 97.0, 98.2), Some((98.0, 50.0)), Some((98.0, 50.0))),
    ];
    for (next, penetrate, touch) in cases {
        for (fill, want) in [(Fill::Penetrate, penetrate), (Fill::Touch, touch)] {
            let path =
                run(&[decided, next], &[limit(Side::Buy, 100), None], &Rules { fill, ..rules });
            let want = want.map_or(1.0, |(p, bps): (f64, f64)| next.close / p - bps / 1e4);
            close_to(path.equity[1], want);
            assert_eq!(path.limits_sent, 1);
            assert_eq!(path.limits_filled, path.position[1] as usize);
        }
    }
    // The mirror: a sell limit at 101.
    let next = bar(100.0, 101.5, 99.0, 100.0);
    let path = run(&[decided, next], &[limit(Side::Sell, 100), None], &FREE);
    assert_eq!(path.position, [0, -1]);
    close_to(path.equity[1], 1.0 + (101.0 - 100.0) / 101.0);
}

#[test]
fn an_unfilled_limit_leaves_the_position_and_is_gone() {
    let bars = [100.0, 100.0, 100.0, 90.0].map(|p| bar(p, p, p, p));
    let path = run(&bars, &[SELL, limit(Side::Buy, 500), None, None], &FREE);
    // The order of bar 1 rested during bar 2 alone; the fall of bar 3 is not its business.
    assert_eq!(path.position, [0, -1, -1, -1]);
    assert_eq!((path.limits_sent, path.limits_filled), (1, 0));
}

#[test]
fn a_horizon_closes_what_nobody_confirms() {
    let bars = [100.0; 7].map(|p| bar(p, p, p, p));
    let rules = Rules { horizon: 2, ..FREE };
    let once = run(&bars, &[BUY, None, None, None, None, None, None], &rules);
    assert_eq!(once.position, [0, 1, 1, 0, 0, 0, 0]);
    let twice = run(&bars, &[BUY, BUY, None, None, None, None, None], &rules);
    assert_eq!(twice.position, [0, 1, 1, 1, 0, 0, 0]);
    let stale = run(&bars, &[BUY, None, limit(Side::Sell, 500), None, None, None, None], &rules);
    assert_eq!(stale.position, [0, 1, 1, 0, 0, 0, 0]);
}

#[test]
fn an_account_that_loses_everything_stops_at_zero() {
    let bars = [100.0, 100.0, 250.0, 90.0, 80.0].map(|p| bar(p, p, p, p));
    let path = run(&bars, &[SELL, None, SELL, SELL, None], &FREE);
    assert_eq!(path.equity, [1.0, 1.0, 0.0, 0.0, 0.0]);
    assert_eq!(path.position, [0, -1, 0, 0, 0]);
    assert_eq!(path.returns(), [0.0, -1.0, 0.0, 0.0]);
    assert_eq!((path.trades.len(), path.trades[0].net), (1, -1.0));
}

fn say(text: &str) -> Option<Decision> {
    Decision::read(text)
}

#[test]
fn a_size_is_a_position_and_the_difference_is_traded_and_paid() {
    let bars = [100.0, 100.0, 110.0, 110.0, 121.0].map(|p| bar(p, p, p, p));
    let rules = Rules { unit: 0.25, max_size: 3, taker_bps: 100.0, ..FREE };
    let told = ["buy market x2", "buy market x9", "buy market", "flat"].map(say);
    let path = run(&bars, &told, &rules);
    assert_eq!(path.position, [0, 2, 3, 1, 0]);
    assert_eq!(path.traded, [0.0, 2.0, 1.0, 2.0, 1.0]);
    // Half of equity in at 100; three quarters of it at 110, of which the rest is bought.
    let first = 1.0 - 0.5 * 0.01;
    let at_second = first + 0.5 / 100.0 * 10.0;
    let (had, wants) = (0.5 / 100.0 * 110.0, 0.75 * at_second);
    let second = at_second - (wants - had) * 0.01;
    // A size of 9 is 3. Down to a quarter of the equity, and out.
    let third = second - (wants - 0.25 * second) * 0.01;
    let last = third + 0.25 * second * 0.1 - 0.25 * second * 1.1 * 0.01;
    for (got, want) in path.equity.iter().zip([1.0, first, second, third, last]) {
        close_to(*got, want);
    }
    // With the defaults a size counts as 1.
    assert_eq!(run(&bars, &told, &FREE).position, [0, 1, 1, 1, 0]);
    // Sizes scale positions and fees alike.
    let one = run(&bars, &["sell market", "flat"].map(say), &rules);
    let two = run(&bars, &["sell market x2", "flat"].map(say), &rules);
    close_to(two.equity[2] - 1.0, 2.0 * (one.equity[2] - 1.0));
    close_to(two.costs, 2.0 * one.costs);
}

#[test]
fn hold_keeps_what_there_is_and_cancel_takes_orders_back() {
    let mut bars = [100.0; 6].map(|p| bar(p, p, p, p));
    bars[4].low = 98.0;
    let rules = Rules { rest: 9, horizon: 2, ..FREE };
    let after = |told: &[&str]| {
        let told: Vec<_> = told.iter().map(|text| say(text)).collect();
        let path = run(&bars, &told, &rules);
        (path.position, path.limits_sent, path.limits_filled)
    };
    // It rests until it fills; without an answer, and with `hold`, it stays.
    assert_eq!(after(&["buy limit 100"]), (vec![0, 0, 0, 0, 1, 1], 1, 1));
    assert_eq!(after(&["buy limit 100", "hold", "hold"]), (vec![0, 0, 0, 0, 1, 1], 1, 1));
    assert_eq!(after(&["buy limit 100", "cancel"]), (vec![0; 6], 1, 0));
    assert_eq!(after(&["buy limit 100", "flat"]), (vec![0; 6], 1, 0));
    // Another order takes its place.
    assert_eq!(after(&["buy limit 100", "buy limit 300"]), (vec![0; 6], 2, 0));
    assert_eq!(after(&["buy limit 100", "sell market"]).0, [0, 0, -1, -1, 0, 0]);
    // Held against the horizon; cancelling holds nothing.
    assert_eq!(after(&["buy market", "hold", "hold"]).0, [0, 1, 1, 1, 1, 0]);
    assert_eq!(after(&["buy market", "cancel", "cancel"]).0, [0, 1, 1, 0, 0, 0]);
    // Nothing is held by holding nothing.
    assert_eq!(after(&["hold", "cancel"]).0, [0; 6]);
}

#[test]
fn an_order_that_rested_is_met_at_its_price() {
    let flat = |p: f64| bar(p, p, p, p);
    let bars = [flat(100.0), flat(100.0), flat(95.0)];
    let rules = Rules { rest: 2, taker_bps: 50.0, maker_bps: 10.0, ..FREE };
    let path = run(&bars, &[say("buy limit 100")], &rules);
    close_to(path.equity[2], 95.0 / 99.0 - 0.001);
    let path = run(&bars, &[say("buy limit 100")], &Rules { rest: 1, ..rules });
    assert_eq!(path.position, [0, 0, 0]);
    // A limit that asks for more adds to the position; for less, it confirms it.
    let rules = Rules { rest: 2, max_size: 5, ..FREE };
    let path = run(&bars, &[say("buy market x2"), say("buy limit 100 x3")], &rules);
    assert_eq!((path.position, path.limits_sent), (vec![0, 2, 3], 1));
    let path = run(&bars, &[say("buy market x2"), say("buy limit 100")], &rules);
    assert_eq!((path.position, path.limits_sent), (vec![0, 2, 2], 0));
}

proptest::proptest! {
    /// What happens later changes nothing earlier, to the bit.
    #[test]
    fn nothing_depends_on_the_future(
        moves in proptest::collection::vec((-0.05f64..0.05, -0.05f64..0.05, 0u8..12), 3..60),
        cut in 1usize..59,
        latency in 1usize..3,
    ) {
        let mut price = 100.0;
        let (mut bars, mut decisions) = (Vec::new(), Vec::new());
        for (a, b, d) in moves {
            let (open, close) = (price * (1.0 + a), price * (1.0 + a) * (1.0 + b));
            bars.push(bar(open, open.max(close) * 1.01, open.min(close) * 0.99, close));
            price = close;
            decisions.push(match d {
                0 | 1 => say("buy market"),
                2 | 3 => say("sell market x3"),
                4 => say("flat"),
                5 | 6 => say("buy limit 80 x2"),
                7 | 8 => say("sell limit 80"),
                9 => say("hold"),
                10 => say("cancel"),
                _ => None,
            });
        }
        let cut = cut.min(bars.len());
        let rules = Rules {
            latency, horizon: 3, taker_bps: 2.0, maker_bps: 1.0, half_spread_bps: 1.0, unit: 0.5,
            max_size: 2, rest: latency, ..FREE
        };
        let whole = run(&bars, &decisions, &rules);
        let part = run(&bars[..cut], &decisions[..cut], &rules);
        proptest::prop_assert_eq!(&whole.equity[..cut], &part.equity[..]);
        proptest::prop_assert_eq!(&whole.position[..cut], &part.position[..]);
    }
}
