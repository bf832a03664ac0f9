//! What a sequence of decisions would have earned: an event-driven, causal replay over bars.
//!
//! A decision belongs to the close of bar t and knows nothing later. Its order arrives at bar
//! t + `latency` (1: the next bar). At that bar, in this order:
//!
//! 1. at the open, a market order fills, or a position whose `horizon` has run out is closed;
//! 2. during the bar, a limit order fills if the bar trades through it ([`Fill::Penetrate`]) or
//!    reaches it ([`Fill::Touch`]), at the limit; where the bar in which it arrives already opens
//!    beyond the limit, at the open and with a market order's costs. It rests for `rest_bars` bars;
//!    then it is gone and leaves the position as it was;
//! 3. at the close, equity is marked.
//!
//! An order says what to hold, not what to add: `buy market x3` asks for a position of +3 units,
//! whatever is held, and trades the difference. A unit is `unit` times the equity at that trade, and
//! sizes above `max_size` count as that; with the defaults a position is +1, 0 or -1 times equity. A
//! limit order that asks for no more on its side than is held confirms the position and sends nothing.
//! The number of shares stays until the position changes, so nothing is rebalanced for free. Costs are
//! charged on the notional traded, each side.
//!
//! One order rests at a time: a new one replaces it, `cancel` and `flat` take it back, `hold` leaves it.
//! `hold` confirms the position, as an order to the same side does; `cancel` leaves the position to its
//! horizon; `flat` closes it.
//!
//! Deliberately not here: interest, dividends, borrow fees, margin calls, market impact and
//! partial fills. An account whose equity reaches zero stops trading at zero.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::pairs::action::Side;
use crate::pairs::decision::Decision;

/// Prices of one bar.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bar {
    /// First price.
    pub open: f64,
    /// Highest price.
    pub high: f64,
    /// Lowest price.
    pub low: f64,
    /// Last price.
    pub close: f64,
}

/// When a bar fills a resting limit order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Fill {
    /// The bar trades beyond the limit: everyone in the queue at that price was served.
    #[default]
    Penetrate,
    /// The bar reaches the limit: we stand first in the queue. Optimistic.
    Touch,
}

/// How orders become fills, and what they cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// Bars from a decision's close to the bar at which its order arrives; at least 1.
    pub latency: usize,
    /// When a limit order fills.
    pub fill: Fill,
    /// Bars after which a position that no decision confirms is closed at the open; 0: never.
    pub horizon: usize,
    /// Fee of a market order, in bps of the notional, each side.
    pub taker_bps: f64,
    /// Fee of a resting limit order, in bps of the notional, each side.
    pub maker_bps: f64,
    /// What a market order pays beyond the mid, in bps of the notional, each side.
    pub half_spread_bps: f64,
    /// A unit of size, as a share of the equity.
    pub unit: f64,
    /// Sizes above it count as it.
    pub max_size: u32,
    /// Bars for which a limit order rests; at least 1.
    pub rest: usize,
}

impl Rules {
    /// The same with every cost multiplied; 0 is gross.
    pub fn scaled(self, by: f64) -> Rules {
        Rules {
            taker_bps: self.taker_bps * by,
            maker_bps: self.maker_bps * by,
            half_spread_bps: self.half_spread_bps * by,
            ..self
        }
    }

    /// The position that an order asks for, in units.
    fn wanted(&self, side: Side, size: u32) -> i32 {
        i32::from(sign(side)) * size.min(self.max_size) as i32
    }

    fn market(&self) -> f64 {
        (self.taker_bps + self.half_spread_bps) / 1e4
    }
}

/// A round trip: from one position to the next change.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Trade {
    /// +1 or -1.
    pub side: i8,
    /// Bar of the entry.
    pub entry: usize,
    /// Bar of the exit; the last bar where it is still open.
    pub exit: usize,
    /// Price of the entry.
    pub entry_price: f64,
    /// Price of the exit; the last close where it is still open.
    pub exit_price: f64,
    /// Profit after the costs of both sides, as a share of the equity at the entry.
    pub net: f64,
    /// Still open at the end, marked at the last close.
    pub open: bool,
}

/// What happened.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Path {
    /// Equity at each close, the first close at 1.
    pub equity: Vec<f64>,
    /// Position at each close, in units; below 0 where short.
    pub position: Vec<i32>,
    /// Units of position traded during each bar: 2 for a flip.
    pub traded: Vec<f64>,
    /// Round trips in order.
    pub trades: Vec<Trade>,
    /// Limit orders that would have changed the position.
    pub limits_sent: usize,
    /// Those that filled.
    pub limits_filled: usize,
    /// Costs paid, as a share of the initial equity.
    pub costs: f64,
}

impl Path {
    /// Returns from close to close; one fewer than bars. After ruin they are 0.
    pub fn returns(&self) -> Vec<f64> {
        let change = |w: &[f64]| if w[0] > 0.0 { w[1] / w[0] - 1.0 } else { 0.0 };
        self.equity.windows(2).map(change).collect()
    }
}

struct Account {
    cash: f64,
    shares: f64,
    /// Position in units, and what a unit is, as a share of equity.
    held: i32,
    unit: f64,
    open: Option<Entry>,
    path: Path,
}

struct Entry {
    bar: usize,
    price: f64,
    equity: f64,
    paid: f64,
}

impl Account {
    fn equity(&self, price: f64) -> f64 {
        self.cash + self.shares * price
    }

    /// Moves to a position of so many units at `price`, paying `cost` (a share of the notional) on what
    /// is traded.
    fn trade(&mut self, bar: usize, wanted: i32, price: f64, cost: f64) {
        let equity = self.equity(price);
        if wanted == self.held || equity <= 0.0 {
            return;
        }
        let shares = f64::from(wanted) * self.unit * equity / price;
        // From one side to the other all of both is traded, on the same side the difference.
        let kept = match wanted.signum() == self.held.signum() {
            true => shares.abs().min(self.shares.abs()),
            false => 0.0,
        };
        if let Some(entry) = self.open.take() {
            let paid = (self.shares.abs() - kept) * price * cost;
            let profit = self.shares * (price - entry.price) - entry.paid - paid;
            self.path.trades.push(Trade {
                side: self.held.signum() as i8,
                entry: entry.bar,
                exit: bar,
                entry_price: entry.price,
                exit_price: price,
                net: profit / entry.equity,
                open: false,
            });
            self.cash -= paid;
            self.path.costs += paid;
        }
        if wanted != 0 {
            let paid = (shares.abs() - kept) * price * cost;
            self.open = Some(Entry { bar, price, equity, paid });
            self.cash -= paid;
            self.path.costs += paid;
        }
        self.cash -= (shares - self.shares) * price;
        if let Some(traded) = self.path.traded.last_mut() {
            *traded += f64::from((wanted - self.held).abs());
        }
        (self.shares, self.held) = (shares, wanted);
    }

    /// Everything is lost at the close of `bar`.
    fn ruin(&mut self, bar: usize, price: f64) {
        if let Some(entry) = self.open.take() {
            self.path.trades.push(Trade {
                side: self.held.signum() as i8,
                entry: entry.bar,
                exit: bar,
                entry_price: entry.price,
                exit_price: price,
                net: -1.0,
                open: false,
            });
        }
        (self.cash, self.shares, self.held) = (0.0, 0.0, 0);
    }
}

/// A limit order that has not filled.
#[derive(Clone, Copy)]
struct Resting {
    side: Side,
    price: f64,
    wanted: i32,
    /// The bar in which it arrived.
    since: usize,
}

/// Replays `decisions` (one a bar, `None` where none was taken) over `bars`.
///
/// Nothing at bar i depends on a bar or a decision after i.
pub fn run<D: Into<Decision> + Copy>(bars: &[Bar], decisions: &[Option<D>], rules: &Rules) -> Path {
    let latency = rules.latency.max(1);
    let mut account = Account {
        cash: 1.0,
        shares: 0.0,
        held: 0,
        unit: rules.unit,
        open: None,
        path: Path {
            equity: Vec::with_capacity(bars.len()),
            position: Vec::with_capacity(bars.len()),
            traded: Vec::with_capacity(bars.len()),
            ..Path::default()
        },
    };
    let (mut expires, mut resting) = (usize::MAX, None::<Resting>);
    for (i, bar) in bars.iter().enumerate() {
        account.path.traded.push(0.0);
        let decided = i.checked_sub(latency);
        let order: Option<Decision> =
            decided.and_then(|t| decisions.get(t).copied().flatten()).map(Into::into);
        let confirmed = match order {
            Some(Decision::Market(side, size)) => rules.wanted(side, size) == account.held,
            Some(Decision::Limit(side, _, size)) => {
                // It can only add on its side.
                let (wanted, held) = (rules.wanted(side, size), account.held);
                wanted.signum() == held.signum() && wanted.abs() <= held.abs()
            }
            Some(Decision::Hold) => account.held != 0,
            Some(Decision::Flat | Decision::Cancel) | None => false,
        };
        let mut renew = confirmed;
        match order {
            Some(Decision::Flat) => account.trade(i, 0, bar.open, rules.market()),
            Some(Decision::Market(side, size)) => {
                account.trade(i, rules.wanted(side, size), bar.open, rules.market());
                renew = true;
            }
            // The position that a limit order would replace may itself be over.
            _ if !confirmed && i >= expires => account.trade(i, 0, bar.open, rules.market()),
            _ => {}
        }
        match (order, decided) {
            (Some(Decision::Limit(side, offset, size)), Some(t)) if !confirmed => {
                account.path.limits_sent += 1;
                let away = f64::from(sign(side)) * f64::from(offset) / 1e4;
                let (price, wanted) = (bars[t].close * (1.0 - away), rules.wanted(side, size));
                resting = Some(Resting { side, price, wanted, since: i });
            }
            (Some(Decision::Hold) | None, _) => {}
            _ => resting = None,
        }
        resting = resting.filter(|order| i < order.since + rules.rest.max(1));
        if let Some(order) = resting
            && let Some((price, cost)) = limit_fill(bar, &order, order.since == i, rules)
        {
            account.path.limits_filled += 1;
            account.trade(i, order.wanted, price, cost);
            (renew, resting) = (true, None);
        }
        if account.held == 0 || rules.horizon == 0 {
            expires = usize::MAX;
        } else if renew {
            expires = i + rules.horizon;
        }
        let mut equity = account.equity(bar.close);
        if equity <= 0.0 {
            equity = 0.0;
            account.ruin(i, bar.close);
            resting = None;
        }
        account.path.equity.push(equity);
        account.path.position.push(account.held);
    }
    if let (Some(entry), Some(last)) = (account.open.take(), bars.last()) {
        let profit = account.shares * (last.close - entry.price) - entry.paid;
        account.path.trades.push(Trade {
            side: account.held.signum() as i8,
            entry: entry.bar,
            exit: bars.len() - 1,
            entry_price: entry.price,
            exit_price: last.close,
            net: profit / entry.equity,
            open: true,
        });
    }
    account.path
}

/// Price and cost at which the bar fills a limit order, if it does. One that arrives behind the open
/// takes it; one that rested is met at its own price.
fn limit_fill(bar: &Bar, order: &Resting, arrives: bool, rules: &Rules) -> Option<(f64, f64)> {
    let (side, limit) = (order.side, order.price);
    // Mirrored for a sell, so that one comparison serves both.
    let s = f64::from(sign(side));
    let (open, best, limit_s) = match side {
        Side::Buy => (bar.open, bar.low, limit),
        Side::Sell => (-bar.open, -bar.high, -limit),
    };
    if arrives && open < limit_s {
        return Some((s * open, rules.market()));
    }
    let through = match rules.fill {
        Fill::Penetrate => best < limit_s,
        Fill::Touch => best <= limit_s,
    };
    through.then_some((limit, rules.maker_bps / 1e4))
}

fn sign(side: Side) -> i8 {
    match side {
        Side::Buy => 1,
        Side::Sell => -1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pairs::action::Action;

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
        let stale =
            run(&bars, &[BUY, None, limit(Side::Sell, 500), None, None, None, None], &rules);
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
}
