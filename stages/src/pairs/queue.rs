//! Where in its queue a resting order stands, from a book that tells only the sum at each price.
//!
//! An order joins behind what rests at its price. Trades at the price take from the front. What else
//! leaves the level was cancelled, ahead of the order or behind it; nobody says which. With `front`
//! ahead and `back` behind, a cancel is taken to be behind with probability
//! f(back) / (f(back) + f(front)), f(x) = ln(1 + x) or x^n (Rigtorp's estimate, as hftbacktest's
//! `ProbQueueModel` has it), and the order moves up by the expected value: nothing is drawn.
//!
//! Which comes first of a trade and the smaller level it leaves depends on the stream. Trades first:
//! the level is known to be smaller by them. Level first: a trade that comes within [`LAG`] is what
//! made it smaller, and what was taken for a cancel becomes that trade.
//!
//! An order fills when a trade takes more than was ahead of it, when one goes past its price, or when
//! the other side's best price reaches it. The order's own size, its effect on others, hidden orders
//! and latency are not modelled.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::action::Side;

/// Which cancels are ahead of an order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Queue {
    /// None, as long as as much is behind: an order moves up by trades alone. The fewest fills.
    #[default]
    Trades,
    /// By f(x) = ln(1 + x).
    Log,
    /// By f(x) = x^n, n above 0: the larger, the more a cancel comes from the larger part.
    Power(f64),
}

impl Queue {
    /// The probability that a cancel is behind an order.
    pub fn behind(self, front: f64, back: f64) -> f64 {
        let f = |x: f64| match self {
            Queue::Trades => 0.0,
            Queue::Log => x.max(0.0).ln_1p(),
            Queue::Power(n) => x.max(0.0).powf(n),
        };
        let (front, back) = (f(front), f(back));
        match self {
            Queue::Trades => 1.0,
            // Nothing is known to be there: what leaves was not ahead.
            _ if front + back <= 0.0 => 1.0,
            _ => back / (back + front),
        }
    }
}

/// How long a trade may come after the smaller level that it left, nanoseconds.
pub const LAG: i64 = 20_000_000;

/// Prices as whole numbers, so that they are equal where they look equal.
pub fn key(price: f64) -> i64 {
    (price * 1e9).round() as i64
}

/// Orders that joined their level at the same place, and so stay together.
#[derive(Debug)]
struct Group<T> {
    /// Units ahead of them.
    front: f64,
    /// How much of that was lately taken off for cancels.
    early: f64,
    orders: Vec<T>,
}

/// A price at which orders are watched.
#[derive(Debug)]
struct Level<T> {
    /// Units there, without the orders that are watched.
    size: f64,
    /// Units that lately left without a trade, and when.
    early: (f64, i64),
    groups: Vec<Group<T>>,
}

/// Orders of one side, by price; each with what the caller knows it by.
#[derive(Debug)]
pub struct Resting<T> {
    side: Side,
    model: Queue,
    levels: BTreeMap<i64, Level<T>>,
    count: usize,
    /// Orders that a trade at their own price filled.
    reached: usize,
}

impl<T: Copy + PartialEq> Resting<T> {
    /// No order yet.
    pub fn new(side: Side, model: Queue) -> Resting<T> {
        Resting { side, model, levels: BTreeMap::new(), count: 0, reached: 0 }
    }

    /// How many orders rest.
    pub fn count(&self) -> usize {
        self.count
    }

    /// How many orders were filled by a trade at their own price, their queue being used up; all others
    /// that filled were passed.
    pub fn reached(&self) -> usize {
        self.reached
    }

    /// The prices at which orders rest.
    pub fn prices(&self) -> impl Iterator<Item = i64> + '_ {
        self.levels.keys().copied()
    }

    /// An order joins, where `size` units rest at its price.
    pub fn join(&mut self, price: i64, size: f64, order: T) {
        let none = || Level { size, early: (0.0, i64::MIN), groups: Vec::new() };
        let level = self.levels.entry(price).or_insert_with(none);
        // A level that is watched knows of trades that the book does not show yet.
        let front = level.size.min(size);
        self.count += 1;
        match level.groups.last_mut() {
            Some(last) if last.front == front && last.early == 0.0 => last.orders.push(order),
            _ => level.groups.push(Group { front, early: 0.0, orders: vec![order] }),
        }
    }

    /// An order is taken back; false where it does not rest any more.
    pub fn leave(&mut self, price: i64, order: T) -> bool {
        let Some(level) = self.levels.get_mut(&price) else { return false };
        let place =
            level.groups.iter().enumerate().find_map(|(at, group)| {
                Some((at, group.orders.iter().position(|own| *own == order)?))
            });
        let Some((at, place)) = place else { return false };
        let group = &mut level.groups[at];
        group.orders.swap_remove(place);
        self.count -= 1;
        if group.orders.is_empty() {
            level.groups.remove(at);
        }
        if level.groups.is_empty() {
            self.levels.remove(&price);
        }
        true
    }

    /// The level at a price now has `size` units.
    pub fn change(&mut self, time: i64, price: i64, size: f64) {
        let Some(level) = self.levels.get_mut(&price) else { return };
        let gone = level.size - size;
        let before = level.size;
        level.size = size;
        if gone <= 0.0 {
            return;
        }
        let fresh = time.saturating_sub(level.early.1) <= LAG;
        level.early = (if fresh { level.early.0 } else { 0.0 } + gone, time);
        for group in &mut level.groups {
            let (front, back) = (group.front, before - group.front);
            let behind = self.model.behind(front, back) * gone;
            // What cannot have been behind was ahead.
            let behind = behind.min(back.max(0.0));
            let moved = (front - (gone - behind)).clamp(0.0, size);
            group.early = if fresh { group.early } else { 0.0 } + front - moved;
            group.front = moved;
        }
    }

    /// A taker of the other side traded `size` units at a price; what fills goes to `filled`.
    pub fn trade(&mut self, time: i64, price: i64, size: f64, filled: &mut Vec<T>) {
        self.pass(price, false, filled);
        let Some(level) = self.levels.get_mut(&price) else { return };
        let (lately, since) = level.early;
        let lately = if time.saturating_sub(since) <= LAG { lately } else { 0.0 };
        // Units of the trade that the level is smaller by already.
        let known = lately.min(size);
        let share = if lately > 0.0 { known / lately } else { 0.0 };
        level.early.0 = lately - known;
        level.size = (level.size - (size - known)).max(0.0);
        for group in &mut level.groups {
            let early = if lately > 0.0 { group.early } else { 0.0 };
            let credit = share * early;
            group.early = early - credit;
            let taken = size - credit;
            if taken > group.front {
                self.count -= group.orders.len();
                self.reached += group.orders.len();
                filled.append(&mut group.orders);
            }
            group.front = (group.front - taken).max(0.0);
        }
        level.groups.retain(|group| !group.orders.is_empty());
        if level.groups.is_empty() {
            self.levels.remove(&price);
        }
    }

    /// The market is past a price, or `at` it: what rests nearer to the mid is filled.
    pub fn pass(&mut self, price: i64, at: bool, filled: &mut Vec<T>) {
        loop {
            let first = match self.side {
                Side::Buy => self.levels.last_entry(),
                Side::Sell => self.levels.first_entry(),
            };
            let Some(level) = first else { return };
            let own = *level.key();
            let through = match self.side {
                Side::Buy => own > price,
                Side::Sell => own < price,
            };
            if !(through || at && own == price) {
                return;
            }
            for mut group in level.remove().groups {
                self.count -= group.orders.len();
                filled.append(&mut group.orders);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NONE: [u32; 0] = [];

    fn resting(model: Queue) -> Resting<u32> {
        Resting::new(Side::Buy, model)
    }

    fn front(resting: &Resting<u32>, price: i64) -> Vec<f64> {
        resting.levels[&price].groups.iter().map(|group| group.front).collect()
    }

    fn trade(resting: &mut Resting<u32>, time: i64, price: i64, size: f64) -> Vec<u32> {
        let mut filled = Vec::new();
        resting.trade(time, price, size, &mut filled);
        filled
    }

    #[test]
    fn probabilities_by_hand() {
        assert_eq!(Queue::Trades.behind(5.0, 0.0), 1.0);
        assert!((Queue::Log.behind(1.0, 3.0) - 4f64.ln() / (4f64.ln() + 2f64.ln())).abs() < 1e-15);
        assert!((Queue::Power(2.0).behind(1.0, 3.0) - 0.9).abs() < 1e-15);
        assert_eq!(Queue::Power(3.0).behind(0.0, 0.0), 1.0);
        assert_eq!(Queue::Log.behind(2.0, 0.0), 0.0);
    }

    #[test]
    fn trades_take_from_the_front_until_one_takes_more() {
        let mut bids = resting(Queue::Trades);
        bids.join(100, 5.0, 1);
        bids.change(0, 100, 8.0);
        bids.join(100, 8.0, 2);
        assert_eq!(trade(&mut bids, 1, 100, 4.0), NONE);
        assert_eq!(front(&bids, 100), [1.0, 4.0]);
        // The book now shows it: nothing was cancelled.
        bids.change(2, 100, 4.0);
        assert_eq!(front(&bids, 100), [1.0, 4.0]);
        // What was ahead is used up to the unit: the next trade fills.
        assert_eq!(trade(&mut bids, 3, 100, 1.0), NONE);
        assert_eq!(trade(&mut bids, 4, 100, 0.5), [1]);
        assert_eq!(bids.count(), 1);
        assert_eq!(trade(&mut bids, 5, 101, 9.0), NONE);
        assert_eq!(trade(&mut bids, 5, 99, 0.1), [2], "a trade below the price went past it");
        assert_eq!((bids.count(), bids.reached()), (0, 1));
    }

    #[test]
    fn cancels_are_shared_between_front_and_back() {
        for (model, ahead) in [
            (Queue::Trades, 6.0),
            (Queue::Power(1.0), 6.0 - 0.6 * 2.0),
            (Queue::Power(2.0), 6.0 - 36.0 / 52.0 * 2.0),
            (Queue::Log, 6.0 - 7f64.ln() / (7f64.ln() + 5f64.ln()) * 2.0),
        ] {
            let mut bids = resting(model);
            bids.join(100, 6.0, 1);
            bids.change(0, 100, 10.0);
            bids.change(LAG * 9, 100, 8.0);
            assert!((front(&bids, 100)[0] - ahead).abs() < 1e-12, "{model:?}");
            // More than is behind leaves: the rest was ahead, whatever the model.
            bids.change(LAG * 99, 100, 1.0);
            assert!(front(&bids, 100)[0] <= 1.0, "{model:?}");
        }
    }

    #[test]
    fn a_level_that_tells_of_a_trade_before_the_trade_does_counts_once() {
        for model in [Queue::Trades, Queue::Log, Queue::Power(3.0)] {
            let (mut first, mut last) = (resting(model), resting(model));
            for bids in [&mut first, &mut last] {
                bids.join(100, 6.0, 1);
                bids.change(0, 100, 10.0);
            }
            assert_eq!(trade(&mut first, LAG * 9, 100, 4.0), NONE);
            first.change(LAG * 9 + 5, 100, 6.0);
            last.change(LAG * 9, 100, 6.0);
            assert_eq!(trade(&mut last, LAG * 9 + 5, 100, 4.0), NONE);
            assert!((front(&first, 100)[0] - 2.0).abs() < 1e-12);
            assert!((front(&last, 100)[0] - 2.0).abs() < 1e-12, "{model:?}");
            // Much later it would be a trade of its own.
            let mut apart = resting(model);
            apart.join(100, 6.0, 1);
            apart.change(0, 100, 10.0);
            apart.change(LAG * 9, 100, 6.0);
            let before = front(&apart, 100)[0];
            assert_eq!(trade(&mut apart, LAG * 20, 100, 1.0), NONE);
            assert!((front(&apart, 100)[0] - (before - 1.0)).abs() < 1e-12);
        }
    }

    #[test]
    fn the_other_side_fills_what_it_reaches() {
        let mut asks = Resting::new(Side::Sell, Queue::Trades);
        for (price, order) in [(101, 1), (102, 2), (103, 3)] {
            asks.join(price, 9.0, order);
        }
        let mut filled = Vec::new();
        asks.pass(101, false, &mut filled);
        assert_eq!(filled, NONE);
        asks.pass(102, true, &mut filled);
        assert_eq!(filled, [1, 2]);
        assert!(asks.leave(103, 3) && !asks.leave(103, 3));
        assert_eq!((asks.count(), asks.prices().count()), (0, 0));
    }

    proptest! {
        /// Whatever happens, no more is ahead than rests there, and an order that fills is filled once.
        #[test]
        fn queues_hold_together(
            steps in proptest::collection::vec((0u8..4, 0.0f64..20.0, 0i64..50_000_000), 1..80),
            power in 0.5f64..4.0, model in 0u8..3,
        ) {
            let model = [Queue::Trades, Queue::Log, Queue::Power(power)][usize::from(model)];
            let mut bids = resting(model);
            let (mut time, mut next, mut size) = (0, 0, 5.0);
            let mut filled = Vec::new();
            for (what, units, later) in steps {
                time += later;
                match what {
                    0 => { bids.join(100, size, next); next += 1; }
                    1 => { size = units; bids.change(time, 100, size); }
                    2 => bids.trade(time, 100, units / 4.0, &mut filled),
                    _ => { bids.leave(100, next.saturating_sub(2)); }
                }
                if let Some(level) = bids.levels.get(&100) {
                    let fronts = front(&bids, 100);
                    prop_assert!(fronts.iter().all(|f| *f >= 0.0 && *f <= size + 1e-9));
                    prop_assert!(level.groups.iter().all(|g| g.early >= 0.0));
                    let sum: usize = level.groups.iter().map(|g| g.orders.len()).sum();
                    prop_assert_eq!(sum, bids.count());
                } else {
                    prop_assert_eq!(bids.count(), 0);
                }
            }
            let all = filled.len();
            filled.sort_unstable();
            filled.dedup();
            prop_assert_eq!(filled.len(), all);
        }
    }
}
