//! Rolling statistics over the last values of a series, in constant time a value and without an
//! error that builds up.
//!
//! The usual running sum adds the newest value and takes the oldest away, and what rounding left
//! behind stays for ever. Here nothing is taken away. The series is cut into blocks as long as the
//! window, so that a window is the tail of one block and the head of the next; when a block is
//! full, the aggregates of all its tails are computed once, from its end to its beginning, and the
//! head of the next is kept up value by value (the block method of van Herk 1992 and of Gil and
//! Werman 1993, which needs no inverse). A value is thus touched twice, an answer is one merge of
//! two aggregates, and it depends on the window and where it lies in its block, on nothing else.
//!
//! Moments are kept as a mean and sums of squared deviations (Welford 1962), merged as by Chan,
//! Golub and LeVeque (1983), of differences to a pivot out of the block before: prices with a small
//! variance far from zero lose nothing.
//!
//! A number that is not finite never enters: it is passed over, and gives `None`. There is no
//! answer over a window that is not full.

/// What can be gathered over a run of values: of one, and of two runs that adjoin.
pub trait Aggregate: Copy {
    /// A value of the series.
    type Item: Copy + Finite;
    /// Of no value.
    const EMPTY: Self;
    /// Of this run and one value after or before it; `weight` is 1 / (values with it).
    fn with(self, item: Self::Item, weight: f64) -> Self;
    /// Of this run and `other`; `share` and `cross` are n_other / n and n_this n_other / n.
    fn merge(self, other: Self, share: f64, cross: f64) -> Self;
    /// What values are taken relative to: the one of `items` nearest zero, from which no other
    /// loses a digit.
    fn pivot(_items: &[Self::Item]) -> Self::Item {
        Self::Item::ZERO
    }
    /// `item` from the pivot.
    fn from(item: Self::Item, _pivot: Self::Item) -> Self::Item {
        item
    }
    /// This run as it is, where its values were taken from the pivot.
    fn back(self, _pivot: Self::Item) -> Self {
        self
    }
}

/// Whether a value is a number that may enter a window.
pub trait Finite {
    /// Zero.
    const ZERO: Self;
    /// Neither NaN nor infinite.
    fn finite(&self) -> bool;
}

impl Finite for f64 {
    const ZERO: f64 = 0.0;
    fn finite(&self) -> bool {
        self.is_finite()
    }
}

impl Finite for [f64; 2] {
    const ZERO: [f64; 2] = [0.0; 2];
    fn finite(&self) -> bool {
        self[0].is_finite() && self[1].is_finite()
    }
}

/// The aggregate of the last `size` values.
#[derive(Clone, Debug)]
pub struct Rolling<A: Aggregate> {
    /// 1 / n for n up to the size.
    weights: Box<[f64]>,
    /// The block before, overwritten by this one.
    items: Vec<A::Item>,
    /// Of the block before: the aggregate of its values from here to its end.
    tails: Vec<A>,
    /// Of this block.
    head: A,
    /// What the values in `tails` and `head` are taken from.
    pivot: A::Item,
    /// Values in this block.
    at: usize,
}

impl<A: Aggregate> Rolling<A> {
    /// An empty window that will hold `size` values, at least 1.
    pub fn new(size: usize) -> Rolling<A> {
        let size = size.max(1);
        let weights = (0..=size).map(|n| 1.0 / n as f64).collect();
        let (items, tails) = (Vec::new(), Vec::new());
        Rolling { weights, items, tails, head: A::EMPTY, pivot: A::Item::ZERO, at: 0 }
    }

    /// Values in a full window.
    pub fn size(&self) -> usize {
        self.weights.len() - 1
    }

    /// Takes a value; what the last `size` values hold, where there were as many. A value that is
    /// not finite is passed over and gives `None`.
    #[inline]
    pub fn push(&mut self, item: A::Item) -> Option<A> {
        if !item.finite() {
            return None;
        }
        match self.items.get_mut(self.at) {
            Some(slot) => *slot = item,
            None => self.items.push(item),
        }
        self.at += 1;
        if self.at == self.size() {
            self.turn();
        } else {
            self.head = self.head.with(A::from(item, self.pivot), self.weights[self.at]);
        }
        self.get()
    }

    /// The aggregate of a full window, once more.
    #[inline]
    pub fn get(&self) -> Option<A> {
        let size = self.size();
        let tail = *self.tails.get(self.at)?;
        let head = self.at as f64;
        let share = head * self.weights[size];
        Some(tail.merge(self.head, share, (size as f64 - head) * share).back(self.pivot))
    }

    /// Ends a block.
    #[cold]
    fn turn(&mut self) {
        self.tails.resize(self.size(), A::EMPTY);
        self.pivot = A::pivot(&self.items);
        let mut tail = A::EMPTY;
        let weights = &self.weights[1..];
        for ((slot, item), weight) in self.tails.iter_mut().zip(&self.items).rev().zip(weights) {
            tail = tail.with(A::from(*item, self.pivot), *weight);
            *slot = tail;
        }
        self.head = A::EMPTY;
        self.at = 0;
    }
}

/// Of two numbers the one nearer zero.
fn nearer(a: f64, b: f64) -> f64 {
    if b.abs() < a.abs() { b } else { a }
}

/// The sum.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sum(pub f64);

impl Aggregate for Sum {
    type Item = f64;
    const EMPTY: Sum = Sum(0.0);
    #[inline]
    fn with(self, item: f64, _: f64) -> Sum {
        Sum(self.0 + item)
    }
    #[inline]
    fn merge(self, other: Sum, _: f64, _: f64) -> Sum {
        Sum(self.0 + other.0)
    }
}

/// The smallest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Min(pub f64);

impl Aggregate for Min {
    type Item = f64;
    const EMPTY: Min = Min(f64::INFINITY);
    #[inline]
    fn with(self, item: f64, _: f64) -> Min {
        if item < self.0 { Min(item) } else { self }
    }
    #[inline]
    fn merge(self, other: Min, _: f64, _: f64) -> Min {
        self.with(other.0, 0.0)
    }
}

/// The largest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Max(pub f64);

impl Aggregate for Max {
    type Item = f64;
    const EMPTY: Max = Max(f64::NEG_INFINITY);
    #[inline]
    fn with(self, item: f64, _: f64) -> Max {
        if item > self.0 { Max(item) } else { self }
    }
    #[inline]
    fn merge(self, other: Max, _: f64, _: f64) -> Max {
        self.with(other.0, 0.0)
    }
}

/// Mean and sum of squared deviations from it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moments {
    /// Mean.
    pub mean: f64,
    /// Sum of squared deviations.
    pub squares: f64,
}

impl Aggregate for Moments {
    type Item = f64;
    const EMPTY: Moments = Moments { mean: 0.0, squares: 0.0 };
    #[inline]
    fn with(self, item: f64, weight: f64) -> Moments {
        let away = item - self.mean;
        let mean = self.mean + away * weight;
        Moments { mean, squares: self.squares + away * (item - mean) }
    }
    #[inline]
    fn merge(self, other: Moments, share: f64, cross: f64) -> Moments {
        let away = other.mean - self.mean;
        Moments {
            mean: self.mean + away * share,
            squares: self.squares + other.squares + away * away * cross,
        }
    }
    fn pivot(items: &[f64]) -> f64 {
        items.iter().copied().fold(f64::INFINITY, nearer)
    }
    #[inline]
    fn from(item: f64, pivot: f64) -> f64 {
        item - pivot
    }
    #[inline]
    fn back(self, pivot: f64) -> Moments {
        Moments { mean: self.mean + pivot, ..self }
    }
}

impl Moments {
    /// The variance of `n` values, `ddof` degrees of freedom gone.
    pub fn variance(&self, n: usize, ddof: usize) -> f64 {
        self.squares / n.saturating_sub(ddof) as f64
    }
    /// Its square root.
    pub fn deviation(&self, n: usize, ddof: usize) -> f64 {
        self.variance(n, ddof).sqrt()
    }
}

/// Means, sums of squared deviations, and the sum of their products, of pairs (x, y).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comoments {
    /// Means of x and y.
    pub mean: [f64; 2],
    /// Sums of squared deviations of x and y.
    pub squares: [f64; 2],
    /// Sum of products of deviations.
    pub products: f64,
}

impl Aggregate for Comoments {
    type Item = [f64; 2];
    const EMPTY: Comoments = Comoments { mean: [0.0; 2], squares: [0.0; 2], products: 0.0 };
    #[inline]
    fn with(self, [x, y]: [f64; 2], weight: f64) -> Comoments {
        let away = [x - self.mean[0], y - self.mean[1]];
        let mean = [self.mean[0] + away[0] * weight, self.mean[1] + away[1] * weight];
        let rest = [x - mean[0], y - mean[1]];
        Comoments {
            mean,
            squares: [self.squares[0] + away[0] * rest[0], self.squares[1] + away[1] * rest[1]],
            products: self.products + away[0] * rest[1],
        }
    }
    #[inline]
    fn merge(self, other: Comoments, share: f64, cross: f64) -> Comoments {
        let away = [other.mean[0] - self.mean[0], other.mean[1] - self.mean[1]];
        let squares = |i: usize| self.squares[i] + other.squares[i] + away[i] * away[i] * cross;
        Comoments {
            mean: [self.mean[0] + away[0] * share, self.mean[1] + away[1] * share],
            squares: [squares(0), squares(1)],
            products: self.products + other.products + away[0] * away[1] * cross,
        }
    }
    fn pivot(items: &[[f64; 2]]) -> [f64; 2] {
        let start = [f64::INFINITY; 2];
        items.iter().fold(start, |[a, b], &[x, y]| [nearer(a, x), nearer(b, y)])
    }
    #[inline]
    fn from(item: [f64; 2], pivot: [f64; 2]) -> [f64; 2] {
        [item[0] - pivot[0], item[1] - pivot[1]]
    }
    #[inline]
    fn back(self, pivot: [f64; 2]) -> Comoments {
        Comoments { mean: [self.mean[0] + pivot[0], self.mean[1] + pivot[1]], ..self }
    }
}

impl Comoments {
    /// The covariance of `n` pairs, `ddof` degrees of freedom gone.
    pub fn covariance(&self, n: usize, ddof: usize) -> f64 {
        self.products / n.saturating_sub(ddof) as f64
    }
    /// The slope of an ordinary least-squares line of y on x with an intercept; 0 where x does not
    /// vary.
    pub fn slope(&self) -> f64 {
        if self.squares[0] > 0.0 { self.products / self.squares[0] } else { 0.0 }
    }
    /// Pearson's correlation; 0 where either does not vary.
    pub fn correlation(&self) -> f64 {
        // Root by root: the product of two small squares may be 0.
        let scale = self.squares[0].sqrt() * self.squares[1].sqrt();
        if scale > 0.0 { (self.products / scale).clamp(-1.0, 1.0) } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same over each whole window, with everything summed anew in extended steps.
    fn plainly(x: &[f64]) -> (f64, f64, f64, f64) {
        let n = x.len() as f64;
        let mean = x.iter().map(|v| v - x[0]).sum::<f64>() / n + x[0];
        let squares: f64 = x.iter().map(|v| (v - mean) * (v - mean)).sum();
        let low = x.iter().copied().fold(f64::INFINITY, f64::min);
        let high = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        (mean, squares, low, high)
    }

    fn near(a: f64, b: f64, scale: f64) -> bool {
        (a - b).abs() <= 1e-11 * scale.max(f64::MIN_POSITIVE)
    }

    proptest! {
        #[test]
        fn equals_the_plain_computation(
            values in proptest::collection::vec(-1e3..1e3f64, 1..200),
            size in 1usize..40,
            offset in prop_oneof![Just(0.0), Just(1e6)],
        ) {
            let values: Vec<f64> = values.iter().map(|v| v + offset).collect();
            let mut moments = Rolling::<Moments>::new(size);
            let mut sum = Rolling::<Sum>::new(size);
            let (mut min, mut max) = (Rolling::<Min>::new(size), Rolling::<Max>::new(size));
            for (at, &v) in values.iter().enumerate() {
                let got = moments.push(v);
                prop_assert_eq!(got, moments.get());
                let (total, low, high) = (sum.push(v), min.push(v), max.push(v));
                if at + 1 < size {
                    prop_assert!(got.is_none() && total.is_none() && low.is_none());
                    continue;
                }
                let window = &values[at + 1 - size..=at];
                let (mean, squares, lowest, highest) = plainly(window);
                let got = got.unwrap();
                prop_assert!(near(got.mean, mean, mean.abs().max(1.0)));
                prop_assert!(near(got.squares, squares, squares.max(offset * 1e-3).max(1e-3)));
                prop_assert!(near(total.unwrap().0, mean * size as f64, 1e3 * size as f64 + offset * size as f64));
                prop_assert_eq!((low.unwrap().0, high.unwrap().0), (lowest, highest));
            }
        }

        #[test]
        fn lines_equal_the_plain_computation(
            pairs in proptest::collection::vec((-1e3..1e3f64, -1e3..1e3f64), 3..120),
            size in 3usize..30,
        ) {
            let mut rolling = Rolling::<Comoments>::new(size);
            for (at, &(x, y)) in pairs.iter().enumerate() {
                let got = rolling.push([x, y]);
                prop_assert_eq!(got.is_some(), at + 1 >= size);
                let Some(got) = got else { continue };
                let window = &pairs[at + 1 - size..=at];
                let n = size as f64;
                let mx = window.iter().map(|p| p.0).sum::<f64>() / n;
                let my = window.iter().map(|p| p.1).sum::<f64>() / n;
                let xx: f64 = window.iter().map(|p| (p.0 - mx).powi(2)).sum();
                let yy: f64 = window.iter().map(|p| (p.1 - my).powi(2)).sum();
                let xy: f64 = window.iter().map(|p| (p.0 - mx) * (p.1 - my)).sum();
                let scale = (xx * yy).sqrt();
                prop_assert!(near(got.products, xy, scale));
                prop_assert!(near(got.correlation(), xy / scale, 1.0));
                prop_assert!(near(got.slope() * xx, xy, scale));
            }
        }
    }

    /// A running sum would carry the error of 1e16 into everything after it.
    #[test]
    fn an_outlier_leaves_nothing_behind() {
        let mut rolling = Rolling::<Moments>::new(4);
        let mut sum = Rolling::<Sum>::new(4);
        for x in [1e16, -3e15, 0.1, 0.2, 0.3, 0.4] {
            rolling.push(x);
            sum.push(x);
        }
        let got = rolling.get().unwrap();
        assert!((got.mean - 0.25).abs() < 1e-15 && (got.squares - 0.05).abs() < 1e-15, "{got:?}");
        assert!((sum.get().unwrap().0 - 1.0).abs() < 1e-15);
    }

    #[test]
    fn nothing_that_is_no_number_enters() {
        let (mut with, mut without) = (Rolling::<Moments>::new(3), Rolling::<Moments>::new(3));
        for x in [1.0, f64::NAN, 2.0, f64::INFINITY, 4.0, f64::NEG_INFINITY, 9.0, 3.5] {
            let got = with.push(x);
            if x.is_finite() {
                assert_eq!(got, without.push(x));
            } else {
                assert_eq!(got, None);
            }
        }
        let mut pairs = Rolling::<Comoments>::new(2);
        assert_eq!(pairs.push([1.0, f64::NAN]), None);
        pairs.push([1.0, 2.0]);
        assert_eq!(pairs.push([2.0, 4.0]).map(|c| c.slope()), Some(2.0));
    }

    #[test]
    fn a_constant_has_no_variance_at_all() {
        let mut rolling = Rolling::<Moments>::new(7);
        for _ in 0..40 {
            if let Some(got) = rolling.push(0.1) {
                assert_eq!((got.mean, got.squares), (0.1, 0.0));
            }
        }
    }

    /// Prices far from zero that hardly move: sums of squares would have no digit left.
    #[test]
    fn small_moves_far_from_zero_keep_their_digits() {
        let mut rolling = Rolling::<Moments>::new(100);
        let mut last = None;
        for i in 0..250_000u32 {
            last = rolling.push(1e8 + f64::from(i % 5) * 0.25);
        }
        let variance = last.unwrap().variance(100, 0);
        assert!((variance - 0.125).abs() < 1e-12, "{variance}");
    }

    #[test]
    fn a_window_of_one_is_its_value() {
        let mut rolling = Rolling::<Sum>::new(1);
        assert_eq!(rolling.push(3.0), Some(Sum(3.0)));
        assert_eq!(rolling.push(4.0), Some(Sum(4.0)));
        assert_eq!(rolling.get(), Some(Sum(4.0)));
    }
}
