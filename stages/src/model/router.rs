//! Which experts a token goes through: shared by training and by the engine, so that a token goes
//! the same way in both.

/// The `used` experts of the largest probabilities of a row, the largest first; of two that are as
/// large the one that comes first.
pub(crate) fn top(probs: &[f32], used: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..probs.len()).collect();
    order.sort_by(|&a, &b| probs[b].total_cmp(&probs[a]).then(a.cmp(&b)));
    order.truncate(used);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_come_first_and_of_equals_the_earlier() {
        assert_eq!(top(&[0.1, 0.3, 0.2, 0.3, 0.1], 3), [1, 3, 2]);
    }
}
