//! Blocks of dates in another order: what a control or an importance breaks, and what it leaves.
//!
//! A date moves with all its instruments, so that what they share on a day stays together, and dates
//! that follow one another stay together within a block. An instrument that lacks some of the dates
//! takes its own in the same order.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The order of `n` dates in which blocks of `block` neighbours (the last one perhaps shorter) are
/// shuffled: place `i` is given what date `order[i]` has.
pub fn order(n: usize, block: usize, seed: u64, stream: u64) -> Vec<usize> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    // Streams of this module lie apart from those that models draw from.
    rng.set_stream(stream | 1 << 63);
    let block = block.max(1);
    let mut starts: Vec<usize> = (0..n).step_by(block).collect();
    for at in (1..starts.len()).rev() {
        starts.swap(at, rng.random_range(0..=at));
    }
    starts.into_iter().flat_map(|start| start..(start + block).min(n)).collect()
}

/// For each date of an instrument, ascending, the date whose value it is given. `own` holds the row of
/// each date, where there is one: pairs of (row that is given, row that gives).
pub fn rows(own: &[Option<usize>], order: &[usize]) -> Vec<(usize, usize)> {
    let taken = own.iter().copied().flatten();
    let given = order.iter().filter_map(|&date| own[date]);
    taken.zip(given).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_date_gives_once_and_blocks_stay_whole() {
        for (n, block) in [(1, 1), (10, 1), (10, 3), (100, 20), (7, 50)] {
            let order = order(n, block, 5, 2);
            let mut all = order.clone();
            all.sort_unstable();
            assert_eq!(all, (0..n).collect::<Vec<_>>());
            let broken = order.windows(2).filter(|pair| pair[1] != pair[0] + 1).count();
            assert!(broken < n.div_ceil(block), "{order:?}");
        }
        assert_ne!(order(50, 1, 5, 2), order(50, 1, 5, 3));
        assert_ne!(order(50, 1, 5, 2), order(50, 1, 6, 2));
        assert_eq!(order(50, 1, 5, 2), order(50, 1, 5, 2));
    }

    #[test]
    fn one_that_lacks_dates_keeps_its_own() {
        let own = [Some(10), None, Some(12), Some(13)];
        assert_eq!(rows(&own, &[3, 1, 0, 2]), [(10, 13), (12, 10), (13, 12)]);
        assert_eq!(rows(&[None, None], &[1, 0]), []);
    }
}
