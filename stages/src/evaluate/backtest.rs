//! What a sequence of decisions would have earned: an event-driven, causal replay over bars.
//!
//! A decision belongs to the close of bar t and knows nothing later. Its order arrives at bar
//! t + `latency` (1: the next bar). At that bar, in this order:
//!
//! 1. at the open, a market order fills, or a position whose `horizon` has run out is closed;
//! 2. during the bar, a limit order fills if the bar trades through it ([`Fill::Penetrate`]) or
//!    reaches it ([`Fill::Touch`]), at the limit; where the bar in which it arrives already opens
//!    beyond the limit, at the open and with a market order's costs. With [`Fill::Queue`] it fills when
//!    an order in the book's queue does ([`super::queues`]), and not by the bar. It rests for `rest_bars`
//!    bars; then it is gone and leaves the position as it was;
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

use super::queues::Fills;
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
    /// Trades have taken what stood before us in the book's queue, or went past us. Needs `book`.
    Queue,
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
    /// What a market order pays beyond the half spread, in bps of the notional, each side.
    pub slippage_bps: f64,
}

impl Rules {
    /// The same with every cost multiplied; 0 is gross.
    pub fn scaled(self, by: f64) -> Rules {
        Rules {
            taker_bps: self.taker_bps * by,
            maker_bps: self.maker_bps * by,
            half_spread_bps: self.half_spread_bps * by,
            slippage_bps: self.slippage_bps * by,
            ..self
        }
    }

    /// The position that an order asks for, in units.
    fn wanted(&self, side: Side, size: u32) -> i32 {
        i32::from(sign(side)) * size.min(self.max_size) as i32
    }

    /// Cost of a market order as a share of the notional.
    pub fn market(&self) -> f64 {
        (self.taker_bps + self.half_spread_bps + self.slippage_bps) / 1e4
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
    /// Of a portfolio: the sum of the sizes of its positions and their sum, at each close, as shares of
    /// equity. Empty for one instrument, whose position is in units.
    pub weights: Vec<[f64; 2]>,
    /// Units of position traded during each bar: 2 for a flip. Of a portfolio: the notional traded as
    /// a share of equity.
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
    offset: u32,
    /// The bar whose close it was decided at.
    decided: usize,
    price: f64,
    wanted: i32,
    /// The bar in which it arrived.
    since: usize,
}

/// Replays `decisions` (one a bar, `None` where none was taken) over `bars`.
///
/// Nothing at bar i depends on a bar or a decision after i.
pub fn run<D: Into<Decision> + Copy>(bars: &[Bar], decisions: &[Option<D>], rules: &Rules) -> Path {
    replayed(bars, decisions, rules, None)
}

/// The same, with fills of limit orders by `queue` where [`Fill::Queue`] asks for them: none fills that is
/// not in it.
pub fn replayed<D: Into<Decision> + Copy>(
    bars: &[Bar],
    decisions: &[Option<D>],
    rules: &Rules,
    queue: Option<&Fills>,
) -> Path {
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
        // A fill in the queue that comes before what is sent now is there.
        let early = resting.filter(|order| i < order.since + rules.rest.max(1)).and_then(|order| {
            queued(queue, &order, i, rules).filter(|fill| fill.early).zip(Some(order))
        });
        if let Some((fill, order)) = early {
            account.path.limits_filled += 1;
            account.trade(i, order.wanted, fill.price, fill.cost);
            resting = None;
            expires = if rules.horizon == 0 { usize::MAX } else { i + rules.horizon };
        }
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
        let mut renew = confirmed || early.is_some();
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
                resting = Some(Resting { side, offset, decided: t, price, wanted, since: i });
            }
            (Some(Decision::Hold) | None, _) => {}
            _ => resting = None,
        }
        resting = resting.filter(|order| i < order.since + rules.rest.max(1));
        if let Some(order) = resting
            && let Some((price, cost)) = match rules.fill {
                Fill::Queue => queued(queue, &order, i, rules).map(|fill| (fill.price, fill.cost)),
                _ => limit_fill(bar, &order, order.since == i, rules),
            }
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

/// A fill in the book's queue.
#[derive(Clone, Copy)]
struct Queued {
    price: f64,
    cost: f64,
    early: bool,
}

/// The fill of an order at a bar, in the book's queue. What it takes from the other side is that side's
/// price: it pays no half spread beside it.
fn queued(queue: Option<&Fills>, order: &Resting, bar: usize, rules: &Rules) -> Option<Queued> {
    if rules.fill != Fill::Queue {
        return None;
    }
    let hit = queue?.get(rules.latency.max(1), order.decided, order.side, order.offset)?;
    let cost = match hit.taker {
        true => rules.taker_bps + rules.slippage_bps,
        false => rules.maker_bps,
    };
    (hit.bar == bar).then_some(Queued { price: hit.price, cost: cost / 1e4, early: hit.early })
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
        Fill::Queue => false,
    };
    through.then_some((limit, rules.maker_bps / 1e4))
}

fn sign(side: Side) -> i8 {
    match side {
        Side::Buy => 1,
        Side::Sell => -1,
    }
}
