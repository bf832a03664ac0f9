//! The replay of weights, by hand-worked cases, against the replay of one instrument, and against a
//! program of others.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::backtest::{Bar, Fill, Rules, run};
use super::panel::Panel;
use super::portfolio::{Weights, replay};
use crate::pairs::action::{Action, Side};

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
const GONE: Bar = Bar { open: f64::NAN, high: f64::NAN, low: f64::NAN, close: f64::NAN };

fn bar(open: f64, close: f64) -> Bar {
    Bar { open, high: open.max(close), low: open.min(close), close }
}

fn panel(width: usize, bars: Vec<Bar>) -> Panel {
    let dates = (0..bars.len() / width).map(|t| format!("{t:06}")).collect();
    let assets = (0..width).map(|a| a.to_string()).collect();
    Panel { assets, dates, bars, queue: None }
}

fn weights(width: usize, rows: &[(usize, &[f64])], dates: usize) -> Weights {
    let mut weights = Weights::none(dates, width);
    rows.iter().for_each(|(at, row)| weights.set(*at, row));
    weights
}

#[track_caller]
fn close_to(got: f64, want: f64) {
    assert!((got - want).abs() < 1e-12, "{got} is not {want}");
}

#[test]
fn weights_fill_at_the_next_open_and_pay_for_what_they_trade() {
    let bars = vec![
        bar(100.0, 100.0),
        bar(50.0, 50.0),
        bar(100.0, 110.0),
        bar(50.0, 45.0),
        bar(110.0, 121.0),
        bar(45.0, 45.0),
    ];
    let panel = panel(2, bars);
    let plan = weights(2, &[(0, &[0.5, -0.5]), (1, &[0.0, f64::NAN])], 3);
    let rules = Rules { taker_bps: 50.0, half_spread_bps: 30.0, slippage_bps: 20.0, ..FREE };
    let path = replay(&panel, |t| plan.get(t), &rules);
    // 1 % of a whole equity traded; then 0.5 of 110 / 100 and -0.5 of 45 / 50.
    close_to(path.equity[1], 1.0 - 0.01 + 0.05 + 0.05);
    close_to(path.weights[1][0], (0.55 + 0.45) / 1.09);
    close_to(path.weights[1][1], (0.55 - 0.45) / 1.09);
    close_to(path.traded[1], 1.0);
    // The first goes at 110, the second stays as it is.
    close_to(path.equity[2], 1.09 - 0.55 * 0.01);
    close_to(path.traded[2], 0.55 / 1.09);
    close_to(path.costs, 0.01 + 0.0055);
    assert_eq!(path.trades.len(), 2);
    close_to(path.trades[0].net, 0.05 - 0.005 - 0.0055);
    close_to(path.trades[1].net, 0.05 - 0.005);
    assert!(path.trades[1].open && !path.trades[0].open);
    // What the trades made is what the account made.
    let sum: f64 = path.trades.iter().map(|t| t.net).sum();
    close_to(path.equity[2] - 1.0, sum);
}

#[test]
fn an_instrument_without_a_bar_waits() {
    let bars = vec![
        bar(10.0, 10.0),
        bar(1.0, 1.0),
        GONE,
        bar(1.0, 1.0),
        bar(20.0, 20.0),
        bar(1.0, 2.0),
        GONE,
        bar(2.0, 2.0),
    ];
    let panel = panel(2, bars);
    let plan = weights(2, &[(0, &[0.5, 0.5])], 4);
    let path = replay(&panel, |t| plan.get(t), &FREE);
    // The second fills at once, the first two dates later, at its own open.
    assert_eq!(path.traded, [0.0, 0.5, 0.5, 0.0]);
    close_to(path.equity[2], 1.5);
    // Where it has no bar it is worth its last close.
    close_to(path.equity[3], 1.5);
    // Newer weights take the place of what waits.
    let plan = weights(2, &[(0, &[0.5, 0.5]), (1, &[0.0, f64::NAN])], 4);
    let path = replay(&panel, |t| plan.get(t), &FREE);
    assert_eq!(path.traded, [0.0, 0.5, 0.0, 0.0]);
}

#[test]
fn who_loses_everything_stops() {
    let bars = [100.0, 100.0, 250.0, 100.0, 50.0].map(|p| bar(p, p)).to_vec();
    let panel = panel(1, bars);
    let plan = weights(1, &[(0, &[-1.0]), (2, &[1.0])], 5);
    let path = replay(&panel, |t| plan.get(t), &FREE);
    assert_eq!(path.equity, [1.0, 1.0, 0.0, 0.0, 0.0]);
    assert_eq!(path.returns(), [0.0, -1.0, 0.0, 0.0]);
    assert_eq!((path.trades.len(), path.trades[0].net), (1, -1.0));
}

#[test]
fn limits_hold_when_weights_are_set() {
    let plan = weights(2, &[(0, &[0.9, -0.9]), (1, &[0.1, f64::NAN])], 2).limited(0.6, 1.0);
    let row = plan.get(0).unwrap();
    close_to(row[0], 0.5);
    close_to(row[1], -0.5);
    assert_eq!(plan.get(1).unwrap()[0], 0.1);
}

/// A walk, and orders to be long, short or flat.
fn walk(bars: usize, seed: u64) -> (Vec<Bar>, Vec<Option<f64>>) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut price = 100.0;
    let mut step = |price: &mut f64| {
        *price *= 1.0 + 0.02 * (rng.random::<f64>() - 0.5);
        *price
    };
    let bars = (0..bars).map(|_| bar(step(&mut price), step(&mut price))).collect::<Vec<_>>();
    let mut rng = ChaCha8Rng::seed_from_u64(seed + 1);
    let orders = bars.iter().map(|_| match rng.random_range(0..9) {
        0 => Some(1.0),
        1 => Some(-1.0),
        2 => Some(0.0),
        _ => None,
    });
    let orders = orders.collect();
    (bars, orders)
}

#[test]
fn whole_positions_are_those_of_the_replay_of_orders() {
    let (bars, orders) = walk(2000, 3);
    let rules = Rules { taker_bps: 3.0, half_spread_bps: 2.0, latency: 2, ..FREE };
    let mut held = None;
    // The replay of orders confirms a position that is held, weights would trade it back to size.
    let news: Vec<Option<f64>> =
        orders.iter().map(|order| order.filter(|o| held.replace(*o) != Some(*o))).collect();
    let mut plan = Weights::none(bars.len(), 1);
    let mut actions = vec![None; bars.len()];
    for (t, order) in news.iter().enumerate().filter_map(|(t, o)| Some((t, (*o)?))) {
        plan.set(t, &[order]);
        actions[t] = Some(match order {
            o if o > 0.0 => Action::Market(Side::Buy),
            o if o < 0.0 => Action::Market(Side::Sell),
            _ => Action::Flat,
        });
    }
    let one = run(&bars, &actions, &rules);
    let many = replay(&panel(1, bars), |t| plan.get(t), &rules);
    for (a, b) in one.equity.iter().zip(&many.equity) {
        assert!((a - b).abs() < 1e-12 * b, "{a} is not {b}");
    }
    assert_eq!(one.trades.len(), many.trades.len());
    for (a, b) in one.trades.iter().zip(&many.trades) {
        assert_eq!((a.side, a.entry, a.exit), (b.side, b.entry, b.exit));
        assert!((a.net - b.net).abs() < 1e-10, "{a:?} is not {b:?}");
    }
    assert!(one.trades.len() > 200);
}

proptest::proptest! {
    /// What happens later changes nothing earlier, to the bit.
    #[test]
    fn nothing_depends_on_the_future(
        rows in proptest::collection::vec((0.9f64..1.1, 0.9f64..1.1, 0u8..8, -1.5f64..1.5), 6..80),
        cut in 1usize..30,
        latency in 1usize..3,
    ) {
        let width = 2;
        let (mut price, mut bars) = ([100.0, 20.0], Vec::new());
        let mut plan = Weights::none(rows.len() / width, width);
        for (i, (a, b, kind, weight)) in rows[..rows.len() / width * width].iter().enumerate() {
            let (open, close) = (price[i % 2] * a, price[i % 2] * a * b);
            price[i % 2] = close;
            bars.push(if *kind == 7 { GONE } else { bar(open, close) });
            if i % 2 == 1 && *kind < 4 {
                plan.set(i / 2, &[*weight, if *kind == 0 { f64::NAN } else { -weight / 2.0 }]);
            }
        }
        let panel = panel(width, bars);
        let cut = cut.min(panel.len());
        let rules = Rules { latency, taker_bps: 5.0, ..FREE };
        let whole = replay(&panel, |t| plan.get(t), &rules);
        let short = plan.until(cut);
        let part = replay(&panel.slice(0..cut), |t| short.get(t), &rules);
        proptest::prop_assert_eq!(&whole.equity[..cut], &part.equity[..]);
        proptest::prop_assert_eq!(&whole.weights[..cut], &part.weights[..]);
    }
}

/// The Python program that the replay is compared with: the same shares bought and sold at the same
/// opens, with the same commission.
const PROGRAM: &str = r#"
import json, sys, warnings
warnings.filterwarnings("ignore")
import pandas as pd
from backtesting import Backtest, Strategy
given = json.load(sys.stdin)
bars = pd.DataFrame(given["bars"], columns=["Open", "High", "Low", "Close"])
bars.index = pd.date_range("2000-01-01", periods=len(bars))
class Orders(Strategy):
    def init(self): pass
    def next(self):
        shares = given["shares"][len(self.data) - 1]
        if shares > 0: self.buy(size=shares)
        if shares < 0: self.sell(size=-shares)
test = Backtest(bars, Orders, cash=given["cash"], commission=given["commission"], margin=0.2,
                trade_on_close=False, hedging=False, exclusive_orders=False, finalize_trades=False)
print(json.dumps(list(test.run()["_equity_curve"]["Equity"])))
"#;

/// Set `QUANTMILL_TEST_BACKTESTING` to a Python that has the package `backtesting` (0.6).
#[test]
fn equity_is_that_of_backtesting_py() {
    use std::io::Write as _;
    use std::process::{Command, Stdio};
    let Ok(python) = std::env::var("QUANTMILL_TEST_BACKTESTING") else { return };
    let (bars, orders) = walk(1500, 9);
    let cash = 1e9;
    let rules = Rules { taker_bps: 10.0, ..FREE };
    let mut plan = Weights::none(bars.len(), 1);
    // The program fills nothing at the first two bars.
    let set = orders.iter().enumerate().skip(2).filter_map(|(t, o)| Some((t, (*o)?)));
    set.for_each(|(t, order)| plan.set(t, &[0.5 * order]));
    let panel = panel(1, bars.clone());
    let path = replay(&panel, |t| plan.get(t), &rules);
    // The shares that each order trades, from equity and weights alone; whole ones.
    let (mut shares, mut held) = (vec![0i64; bars.len()], 0.0);
    for t in 1..bars.len() {
        let Some(weight) = plan.get(t - 1) else { continue };
        let equity = path.equity[t - 1] + held * (bars[t].open - bars[t - 1].close);
        let wanted = weight[0] * equity / bars[t].open;
        shares[t - 1] = ((wanted - held) * cash).round() as i64;
        held = wanted;
    }
    let rows: Vec<[f64; 4]> = bars.iter().map(|b| [b.open, b.high, b.low, b.close]).collect();
    let given = serde_json::json!({
        "bars": rows, "shares": shares, "cash": cash, "commission": 0.001,
    });
    let mut child = Command::new(python)
        .args(["-c", PROGRAM])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(given.to_string().as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success());
    let theirs: Vec<f64> = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(theirs.len(), path.equity.len());
    let mut worst = 0.0f64;
    for (mine, theirs) in path.equity.iter().zip(&theirs) {
        worst = worst.max((mine - theirs / cash).abs());
    }
    assert!(worst < 1e-6, "{worst}");
    assert!(path.trades.len() > 150);
}
