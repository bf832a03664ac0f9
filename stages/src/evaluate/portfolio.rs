//! What target weights would have earned: an event-driven, causal replay of one cash account over
//! several instruments.
//!
//! Weights are decided at the close of date t, as shares of the equity, and know nothing later. The
//! orders arrive at date t + `latency`; each is a market order for the difference between what is
//! held and the weight times the equity at that open, filled at the open, with fee, half spread and
//! slippage on the notional traded. An instrument without a bar there waits for its next one, unless
//! newer weights replace it. In between the number of shares stays: nothing is rebalanced for free.
//! At each close equity is cash plus shares at their last closes.
//!
//! Deliberately not here: interest, dividends, borrow fees, margin calls and market impact. An
//! account whose equity reaches zero stops trading at zero.

use super::backtest::{Bar, Path, Rules, Trade};
use super::panel::Panel;

/// Weights for the instruments of a panel, at the dates at which they are decided.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Weights {
    width: usize,
    /// `[dates, assets]`; `NaN` leaves an instrument as it is.
    values: Vec<f64>,
    /// Whether anything is decided at a date.
    decided: Vec<bool>,
}

impl Weights {
    /// Nothing decided at any of so many dates.
    pub fn none(dates: usize, width: usize) -> Weights {
        Weights { width, values: vec![f64::NAN; dates * width], decided: vec![false; dates] }
    }

    /// Decides at a date.
    pub fn set(&mut self, at: usize, weights: &[f64]) {
        self.values[at * self.width..(at + 1) * self.width].copy_from_slice(weights);
        self.decided[at] = true;
    }

    /// What is decided at a date.
    pub fn get(&self, at: usize) -> Option<&[f64]> {
        let row = self.values.get(at * self.width..(at + 1) * self.width)?;
        self.decided.get(at).copied().unwrap_or(false).then_some(row)
    }

    /// How many dates there are.
    pub fn len(&self) -> usize {
        self.decided.len()
    }

    /// Whether there is no date.
    pub fn is_empty(&self) -> bool {
        self.decided.is_empty()
    }

    /// How many instruments there are.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The dates at which something is decided.
    pub fn dates(&self) -> impl Iterator<Item = usize> {
        self.decided.iter().enumerate().filter(|(_, d)| **d).map(|(at, _)| at)
    }

    /// The first so many dates.
    pub fn until(&self, dates: usize) -> Weights {
        let dates = dates.min(self.len());
        Weights {
            width: self.width,
            values: self.values[..dates * self.width].to_vec(),
            decided: self.decided[..dates].to_vec(),
        }
    }

    /// Cuts each weight to `most` and, where their sizes sum to more than `gross`, all of them in
    /// proportion.
    pub fn limited(mut self, most: f64, gross: f64) -> Weights {
        for row in self.values.chunks_mut(self.width.max(1)) {
            row.iter_mut().for_each(|w| *w = w.clamp(-most, most));
            let sum: f64 = row.iter().filter(|w| !w.is_nan()).map(|w| w.abs()).sum();
            if sum > gross {
                row.iter_mut().for_each(|w| *w *= gross / sum);
            }
        }
        self
    }
}

/// What is held of one instrument.
#[derive(Clone, Copy, Default)]
struct Held {
    shares: f64,
    /// The last close.
    last: f64,
    /// An order that waits for a bar: the weight, and the date from which it may fill.
    wants: Option<f64>,
    open: Option<Open>,
}

/// A round trip under way: from no position, or the other side, to the same.
#[derive(Clone, Copy)]
struct Open {
    at: usize,
    price: f64,
    equity: f64,
    /// What was received less what was paid so far, costs included.
    flow: f64,
}

struct Account {
    cash: f64,
    held: Vec<Held>,
    path: Path,
}

impl Account {
    /// Equity with instruments that have a bar at its `price`, the others at their last close.
    fn equity(&self, bars: &[Bar], price: fn(&Bar) -> f64) -> f64 {
        let value = |(held, bar): (&Held, &Bar)| {
            if held.shares == 0.0 {
                return 0.0;
            }
            let price = price(bar);
            held.shares * if price.is_nan() { held.last } else { price }
        };
        self.cash + self.held.iter().zip(bars).map(value).sum::<f64>()
    }

    /// Moves an instrument to so many shares.
    fn trade(&mut self, asset: usize, at: usize, shares: f64, price: f64, equity: f64, cost: f64) {
        let held = &mut self.held[asset];
        let delta = shares - held.shares;
        if delta == 0.0 {
            return;
        }
        let notional = delta.abs() * price;
        let paid = notional * cost;
        self.cash -= delta * price + paid;
        self.path.costs += paid;
        if let Some(traded) = self.path.traded.last_mut() {
            *traded += notional / equity;
        }
        let (before, after) = (sign(held.shares), sign(shares));
        // What is closed and what is opened bear their own parts of the costs.
        let closed = if before == after { 0.0 } else { held.shares.abs() * price };
        if before != after {
            if let Some(open) = held.open.take() {
                let flow = open.flow + held.shares * price - closed * cost;
                self.path.trades.push(Trade {
                    side: before,
                    entry: open.at,
                    exit: at,
                    entry_price: open.price,
                    exit_price: price,
                    net: flow / open.equity,
                    open: false,
                });
            }
            if after != 0 {
                let flow = -shares * price - (notional - closed) * cost;
                held.open = Some(Open { at, price, equity, flow });
            }
        } else if let Some(open) = &mut held.open {
            open.flow -= delta * price + paid;
        }
        held.shares = shares;
    }
}

fn sign(x: f64) -> i8 {
    if x > 0.0 { 1 } else { -i8::from(x < 0.0) }
}

/// Replays weights over a panel: `weights(t)` is what is decided at the close of date t.
///
/// Nothing at a date depends on a bar or a weight after it. Each date counts in the result, whether
/// or not every instrument has a bar.
pub fn replay<'w>(
    panel: &Panel,
    weights: impl Fn(usize) -> Option<&'w [f64]>,
    rules: &Rules,
) -> Path {
    let (width, dates) = (panel.width(), panel.len());
    let (latency, cost) = (rules.latency.max(1), rules.market());
    let mut account = Account {
        cash: 1.0,
        held: vec![Held { last: f64::NAN, ..Held::default() }; width],
        path: Path {
            equity: Vec::with_capacity(dates),
            traded: Vec::with_capacity(dates),
            weights: Vec::with_capacity(dates),
            ..Path::default()
        },
    };
    let mut waiting = 0usize;
    let mut ruined = false;
    for t in 0..dates {
        let bars = panel.row(t);
        account.path.traded.push(0.0);
        if let Some(decided) = t.checked_sub(latency).and_then(&weights) {
            for (held, weight) in account.held.iter_mut().zip(decided) {
                if !weight.is_nan() {
                    waiting += usize::from(held.wants.is_none());
                    held.wants = Some(*weight);
                }
            }
        }
        if waiting > 0 && !ruined {
            let equity = account.equity(bars, |bar| bar.open);
            for (asset, bar) in bars.iter().enumerate() {
                if bar.open.is_nan() || equity <= 0.0 {
                    continue;
                }
                if let Some(weight) = account.held[asset].wants.take() {
                    waiting -= 1;
                    account.trade(asset, t, weight * equity / bar.open, bar.open, equity, cost);
                }
            }
        }
        let mut equity = account.equity(bars, |bar| bar.close);
        if equity <= 0.0 && !ruined {
            ruined = true;
            ruin(&mut account, t, bars);
        }
        equity = if ruined { 0.0 } else { equity };
        let (mut gross, mut net) = (0.0, 0.0);
        for (held, bar) in account.held.iter_mut().zip(bars) {
            if !bar.close.is_nan() {
                held.last = bar.close;
            }
            if held.shares != 0.0 {
                let value = held.shares * held.last;
                gross += value.abs();
                net += value;
            }
        }
        let share = |value: f64| if equity > 0.0 { value / equity } else { 0.0 };
        account.path.equity.push(equity);
        account.path.weights.push([share(gross), share(net)]);
    }
    finish(account, dates)
}

/// Everything is lost.
fn ruin(account: &mut Account, at: usize, bars: &[Bar]) {
    account.cash = 0.0;
    for (held, bar) in account.held.iter_mut().zip(bars) {
        if let Some(open) = held.open.take() {
            let exit_price = if bar.close.is_nan() { held.last } else { bar.close };
            account.path.trades.push(Trade {
                side: sign(held.shares),
                entry: open.at,
                exit: at,
                entry_price: open.price,
                exit_price,
                net: -1.0,
                open: false,
            });
        }
        (held.shares, held.wants) = (0.0, None);
    }
}

/// Marks what is still open.
fn finish(mut account: Account, dates: usize) -> Path {
    for held in &account.held {
        if let Some(open) = held.open {
            account.path.trades.push(Trade {
                side: sign(held.shares),
                entry: open.at,
                exit: dates.saturating_sub(1),
                entry_price: open.price,
                exit_price: held.last,
                net: (open.flow + held.shares * held.last) / open.equity,
                open: true,
            });
        }
    }
    account.path.trades.sort_by_key(|trade| trade.entry);
    account.path
}
