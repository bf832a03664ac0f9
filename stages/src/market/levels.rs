//! One side of a book: its levels in order of price.
//!
//! A sorted vector with the best level at its end: nearly all changes are near the touch, where a
//! search from the end takes few steps and little is moved. No tree comes near it at some thousand
//! levels.

use super::event::Level;

/// The levels of one side.
#[derive(Clone, Debug, Default)]
pub struct Levels {
    /// Price times `sign`, ascending: the best is last.
    keys: Vec<f64>,
    sizes: Vec<f64>,
    /// 1 for bids, -1 for asks.
    sign: f64,
}

impl Levels {
    /// No bids yet.
    pub fn bids() -> Levels {
        Levels { sign: 1.0, ..Levels::default() }
    }

    /// No asks yet.
    pub fn asks() -> Levels {
        Levels { sign: -1.0, ..Levels::default() }
    }

    /// Puts a level in place of that at its price; a size of 0 takes it away.
    #[inline]
    pub fn set(&mut self, level: Level) {
        let key = level.price * self.sign;
        let mut at = self.keys.len();
        let near = at.saturating_sub(16);
        while at > near && self.keys[at - 1] > key {
            at -= 1;
        }
        if at == near && at > 0 && self.keys[at - 1] > key {
            at = self.keys[..near].partition_point(|k| *k <= key);
        }
        if at > 0 && self.keys[at - 1] == key {
            if level.size > 0.0 {
                self.sizes[at - 1] = level.size;
            } else {
                self.keys.remove(at - 1);
                self.sizes.remove(at - 1);
            }
        } else if level.size > 0.0 {
            self.keys.insert(at, key);
            self.sizes.insert(at, level.size);
        }
    }

    /// Puts these levels in place of all.
    pub fn replace(&mut self, levels: &[Level]) {
        self.clear();
        for level in levels {
            self.set(*level);
        }
    }

    /// Takes all levels away.
    pub fn clear(&mut self) {
        self.keys.clear();
        self.sizes.clear();
    }

    /// The best level.
    #[inline]
    pub fn best(&self) -> Option<Level> {
        let (key, size) = (self.keys.last()?, self.sizes.last()?);
        Some(Level { price: key * self.sign, size: *size })
    }

    /// The levels, the best first.
    pub fn iter(&self) -> impl Iterator<Item = Level> + '_ {
        let both = self.keys.iter().zip(&self.sizes).rev();
        both.map(|(key, size)| Level { price: key * self.sign, size: *size })
    }

    /// The size at a price; 0 where there is no level.
    pub fn at(&self, price: f64) -> f64 {
        let key = price * self.sign;
        let at = self.keys.partition_point(|k| *k < key);
        if self.keys.get(at) == Some(&key) { self.sizes[at] } else { 0.0 }
    }

    /// How many levels there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// True where there is none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Sum of price times size of the levels behind `touch`, down to `limit` and with it. What is at or
    /// better than `touch` is left out.
    pub fn notional(&self, touch: f64, limit: f64) -> f64 {
        let (touch, limit) = (touch * self.sign, limit * self.sign);
        let mut sum = 0.0;
        for (key, size) in self.keys.iter().zip(&self.sizes).rev() {
            if *key < limit {
                break;
            }
            if *key < touch {
                sum += key.abs() * size;
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn levels_are_those_of_a_map(changes in proptest::collection::vec((1_u32..200, 0_u32..4), 0..600)) {
            let (mut bids, mut asks) = (Levels::bids(), Levels::asks());
            let mut map = BTreeMap::new();
            for (price, size) in changes {
                let level = Level { price: f64::from(price) / 10.0, size: f64::from(size) };
                bids.set(level);
                asks.set(level);
                match size {
                    0 => map.remove(&price),
                    _ => map.insert(price, level),
                };
                prop_assert_eq!(bids.best(), map.values().next_back().copied());
                prop_assert_eq!(asks.best(), map.values().next().copied());
                prop_assert_eq!(bids.at(level.price), level.size);
            }
            prop_assert_eq!(asks.iter().collect::<Vec<_>>(), map.values().copied().collect::<Vec<_>>());
            let inner: f64 = map.values().filter(|l| l.price > 5.0 && l.price <= 12.0).map(|l| l.price * l.size).sum();
            prop_assert!((asks.notional(5.0, 12.0) - inner).abs() < 1e-9);
            let inner: f64 = map.values().filter(|l| l.price >= 5.0 && l.price < 12.0).map(|l| l.price * l.size).sum();
            prop_assert!((bids.notional(12.0, 5.0) - inner).abs() < 1e-9);
        }
    }
}
