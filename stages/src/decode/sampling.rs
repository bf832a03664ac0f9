//! From logits to a token: the one place where a token is drawn.
//!
//! A grammar's mask comes first, then, in the order of HF's transformers: repetition penalty,
//! temperature, top-k, top-p, min-p. llama.cpp's default order puts the temperature last and looks
//! back 64 tokens for the penalty; with temperature 1 or no filter the two are the same. The penalty
//! is CTRL's (Keskar et al., arXiv 1909.05858), as in both: a token that was there before, in the
//! prompt too, has its logit divided by it where that is above 0 and multiplied where it is below.
//!
//! A sample draws from a ChaCha8 stream of its own ([`stream`]), so that it depends neither on how
//! many others there are nor on the machine. Frequency penalties, typical sampling and beams are not
//! here.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::model::weights::uniform;
use crate::{Result, StageError};

/// How to draw.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the most likely token.
    pub temperature: f32,
    /// Draws among that many most likely tokens; 0 means all.
    pub top_k: usize,
    /// Draws among the most likely tokens that together have this probability; 1 means all.
    pub top_p: f32,
    /// Draws among the tokens that are at least this many times as likely as the likeliest; 0 means
    /// all.
    pub min_p: f32,
    /// Makes tokens that were there before less likely; 1 does not.
    pub repetition_penalty: f32,
    /// Most tokens of a sample.
    pub max_tokens: usize,
    /// Tokens that end a sample; the one drawn is its last.
    pub stop: Vec<u32>,
}

impl Sampling {
    /// The most likely token each time.
    pub fn greedy(max_tokens: usize, stop: &[u32]) -> Sampling {
        Sampling {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            max_tokens,
            stop: stop.to_vec(),
        }
    }

    /// What does not hold: the name of the value, and why.
    pub fn check(&self) -> std::result::Result<(), (&'static str, &'static str)> {
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return Err(("temperature", "must be 0 or more"));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return Err(("top_p", "must be above 0 and at most 1"));
        }
        if !(0.0..=1.0).contains(&self.min_p) {
            return Err(("min_p", "must lie between 0 and 1"));
        }
        if !(self.repetition_penalty > 0.0 && self.repetition_penalty.is_finite()) {
            return Err(("repetition_penalty", "must be above 0; 1 is none"));
        }
        Ok(())
    }

    /// The temperature of a log-probability: 1 where the likeliest token is taken.
    fn heat(&self) -> f64 {
        if self.temperature <= 0.0 { 1.0 } else { f64::from(self.temperature) }
    }
}

/// The random stream of a sample.
pub fn stream(seed: u64, sample: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(sample);
    rng
}

/// A set of tokens, a bit each, token 0 in the lowest bit of the first word.
pub type Mask<'a> = Option<&'a [u32]>;

/// Whether a mask has a token. No mask has all.
pub fn allows(mask: Mask, token: usize) -> bool {
    mask.is_none_or(|words| words.get(token / 32).is_some_and(|word| word >> (token % 32) & 1 == 1))
}

/// Draws a token and gives its log-probability at the temperature (at 1 where it is 0) among all
/// tokens of the mask: the penalty, top-k, top-p and min-p do not change it. `seen` are the different
/// tokens so far, for the penalty.
///
/// # Errors
/// No token is allowed, or the logits are not numbers.
pub fn draw(
    logits: &[f32],
    mask: Mask,
    seen: &[u32],
    sampling: &Sampling,
    rng: &mut ChaCha8Rng,
) -> Result<(u32, f32)> {
    let scores = scores(logits, mask)?;
    let heat = sampling.heat();
    let total = log_total(&scores, heat);
    let kept = kept(scores, seen, sampling)?;
    let held: f64 = kept.iter().map(|(_, weight)| weight).sum();
    let mut left = match kept.len() {
        1 => 0.0,
        _ => uniform(rng) * held,
    };
    let chosen = kept.iter().find(|(_, weight)| {
        left -= weight;
        left <= 0.0
    });
    let Some((token, _)) = chosen.or(kept.last()).copied() else { return Err(nothing()) };
    let logit = logits.get(token as usize).copied().unwrap_or(f32::NEG_INFINITY);
    Ok((token, (f64::from(logit) / heat - total) as f32))
}

/// The distribution that [`draw`] draws from: tokens and their probabilities.
///
/// # Errors
/// As [`draw`].
pub fn distribution(
    logits: &[f32],
    mask: Mask,
    seen: &[u32],
    sampling: &Sampling,
) -> Result<Vec<(u32, f64)>> {
    let mut kept = kept(scores(logits, mask)?, seen, sampling)?;
    let total: f64 = kept.iter().map(|(_, weight)| weight).sum();
    kept.iter_mut().for_each(|(_, weight)| *weight /= total);
    Ok(kept)
}

/// The log-probabilities of some tokens at temperature 1, without a mask.
///
/// # Errors
/// The logits are not numbers.
pub fn log_probs(logits: &[f32], tokens: impl Iterator<Item = u32>) -> Result<Vec<f64>> {
    let total = log_total(&scores(logits, None)?, 1.0);
    let of = |token: u32| logits.get(token as usize).copied().unwrap_or(f32::NEG_INFINITY);
    Ok(tokens.map(|token| f64::from(of(token)) - total).collect())
}

/// The `n` likeliest tokens and their log-probabilities at temperature 1, the likeliest first.
///
/// # Errors
/// The logits are not numbers.
pub fn likeliest(logits: &[f32], n: usize) -> Result<Vec<(u32, f64)>> {
    let mut scores = scores(logits, None)?;
    let total = log_total(&scores, 1.0);
    scores = first(scores, n, |score| f64::from(*score));
    Ok(scores.into_iter().map(|(token, score)| (token, f64::from(score) - total)).collect())
}

fn nothing() -> StageError {
    StageError::failed("no token can be drawn: the logits are not finite numbers")
        .hint("the model's weights may be damaged")
}

/// The tokens of the mask and their logits, by rising token.
fn scores(logits: &[f32], mask: Mask) -> Result<Vec<(u32, f32)>> {
    let all = logits.iter().enumerate();
    let scores: Vec<(u32, f32)> = match mask {
        None => all.map(|(token, &logit)| (token as u32, logit)).collect(),
        Some(words) => {
            let mut scores = Vec::new();
            for (at, &word) in words.iter().enumerate() {
                let mut word = word;
                while word != 0 {
                    let token = at * 32 + word.trailing_zeros() as usize;
                    if let Some(&logit) = logits.get(token) {
                        scores.push((token as u32, logit));
                    }
                    word &= word - 1;
                }
            }
            scores
        }
    };
    let sound = scores.iter().all(|(_, logit)| *logit < f32::INFINITY);
    if !sound || scores.iter().all(|(_, logit)| *logit == f32::NEG_INFINITY) {
        return Err(nothing());
    }
    Ok(scores)
}

fn top(scores: &[(u32, f32)]) -> f64 {
    f64::from(scores.iter().fold(f32::NEG_INFINITY, |top, (_, score)| top.max(*score)))
}

/// ln of the sum of exp(score / heat).
fn log_total(scores: &[(u32, f32)], heat: f64) -> f64 {
    let top = top(scores);
    let sum: f64 = scores.iter().map(|(_, score)| ((f64::from(*score) - top) / heat).exp()).sum();
    top / heat + sum.ln()
}

/// What is left to draw among: tokens and weights, of which the largest is 1. Sorted by falling weight
/// where top-k or top-p ask for it, else by rising token.
fn kept(mut scores: Vec<(u32, f32)>, seen: &[u32], sampling: &Sampling) -> Result<Vec<(u32, f64)>> {
    let penalty = sampling.repetition_penalty;
    if penalty != 1.0 {
        for token in seen {
            if let Ok(at) = scores.binary_search_by_key(token, |(token, _)| *token) {
                let score = &mut scores[at].1;
                *score = if *score < 0.0 { *score * penalty } else { *score / penalty };
            }
        }
    }
    let top = top(&scores);
    if sampling.temperature <= 0.0 {
        let best = scores.iter().find(|(_, score)| f64::from(*score) == top);
        return Ok(best.map(|(token, _)| (*token, 1.0)).into_iter().collect());
    }
    let heat = sampling.heat();
    let weight = |score: f32| ((f64::from(score) - top) / heat).exp();
    let mut weights: Vec<(u32, f64)> =
        scores.into_iter().map(|(token, score)| (token, weight(score))).collect();
    if sampling.top_k > 0 {
        weights = first(weights, sampling.top_k, |weight| *weight);
    }
    if sampling.top_p < 1.0 {
        weights = nucleus(weights, f64::from(sampling.top_p));
    }
    if sampling.min_p > 0.0 {
        weights.retain(|(_, weight)| *weight >= f64::from(sampling.min_p));
    }
    Ok(weights)
}

/// The `n` largest, largest first; of equals the smaller token.
fn first<T: Copy>(mut all: Vec<(u32, T)>, n: usize, size: impl Fn(&T) -> f64) -> Vec<(u32, T)> {
    let falling =
        |a: &(u32, T), b: &(u32, T)| size(&b.1).total_cmp(&size(&a.1)).then(a.0.cmp(&b.0));
    if n == 0 {
        return Vec::new();
    }
    if n < all.len() {
        all.select_nth_unstable_by(n - 1, falling);
        all.truncate(n);
    }
    all.sort_unstable_by(falling);
    all
}

/// The fewest that have a share `p` of the weight together, largest first.
fn nucleus(all: Vec<(u32, f64)>, p: f64) -> Vec<(u32, f64)> {
    let enough = p * all.iter().map(|(_, weight)| weight).sum::<f64>();
    // A few hundred nearly always suffice, and sorting a whole vocabulary costs milliseconds.
    let mut n = 256;
    loop {
        let mut some = first(all.clone(), n, |weight| *weight);
        let mut held = 0.0;
        let last = some.iter().position(|(_, weight)| {
            held += weight;
            held >= enough
        });
        if let Some(last) = last {
            some.truncate(last + 1);
            return some;
        }
        if n >= all.len() {
            return some;
        }
        n *= 8;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plain(temperature: f32) -> Sampling {
        Sampling { temperature, ..Sampling::greedy(1, &[]) }
    }

    fn bits(tokens: &[usize], size: usize) -> Vec<u32> {
        let mut words = vec![0; size.div_ceil(32)];
        tokens.iter().for_each(|token| words[token / 32] |= 1 << (token % 32));
        words
    }

    #[test]
    fn filters_by_hand() {
        // Probabilities 0.5, 0.25, 0.125, 0.125 at temperature 1.
        let logits: Vec<f32> = [0.5f32, 0.25, 0.125, 0.125].map(f32::ln).to_vec();
        let tokens = |sampling: Sampling| {
            let all = distribution(&logits, None, &[], &sampling).unwrap();
            all.into_iter().map(|(token, _)| token).collect::<Vec<_>>()
        };
        assert_eq!(tokens(plain(1.0)), [0, 1, 2, 3]);
        assert_eq!(tokens(Sampling { top_k: 2, ..plain(1.0) }), [0, 1]);
        assert_eq!(tokens(Sampling { top_p: 0.5, ..plain(1.0) }), [0]);
        assert_eq!(tokens(Sampling { top_p: 0.51, ..plain(1.0) }), [0, 1]);
        // Of the two that top-k leaves the first has two thirds.
        assert_eq!(tokens(Sampling { top_k: 2, top_p: 0.66, ..plain(1.0) }), [0]);
        assert_eq!(tokens(Sampling { min_p: 0.26, ..plain(1.0) }), [0, 1]);
        // At temperature 2 the ratios are square roots: 0.5 / 0.125 becomes 2.
        assert_eq!(tokens(Sampling { min_p: 0.49, ..plain(2.0) }), [0, 1, 2, 3]);
        assert_eq!(tokens(plain(0.0)), [0]);
        // HF: negative logits times the penalty, positive ones through it.
        let penalised = Sampling { repetition_penalty: 2.0, ..plain(1.0) };
        let p = |logits: &[f32], seen: &[u32]| {
            distribution(logits, None, seen, &penalised)
                .unwrap()
                .iter()
                .map(|x| x.1)
                .collect::<Vec<_>>()
        };
        let expected = |logits: &[f64]| {
            let total: f64 = logits.iter().map(|x| x.exp()).sum();
            logits.iter().map(|x| x.exp() / total).collect::<Vec<_>>()
        };
        for (ours, theirs) in p(&[3.0, -1.0, 0.5], &[0, 1]).iter().zip(expected(&[1.5, -2.0, 0.5]))
        {
            assert!((ours - theirs).abs() < 1e-12);
        }
    }

    #[test]
    fn what_cannot_be_drawn_from_is_an_error() {
        let mut rng = stream(1, 0);
        for logits in [vec![], vec![f32::NAN, 1.0], vec![f32::NEG_INFINITY; 3], vec![f32::INFINITY]]
        {
            assert!(draw(&logits, None, &[], &plain(1.0), &mut rng).is_err());
            assert!(draw(&logits, None, &[], &plain(0.0), &mut rng).is_err());
        }
        assert!(draw(&[1.0, 2.0], Some(&[0]), &[], &plain(1.0), &mut rng).is_err());
    }

    #[test]
    fn draws_follow_the_distribution() {
        let logits = [1.0, 0.0, -1.0, 2.0, 0.5];
        let sampling = Sampling { top_k: 4, ..plain(0.8) };
        let expected = distribution(&logits, None, &[], &sampling).unwrap();
        let (mut counts, mut rng, n) = ([0.0; 5], stream(7, 3), 40_000);
        for _ in 0..n {
            counts[draw(&logits, None, &[], &sampling, &mut rng).unwrap().0 as usize] += 1.0;
        }
        for (token, p) in expected {
            let error = (p * (1.0 - p) / f64::from(n)).sqrt();
            assert!((counts[token as usize] / f64::from(n) - p).abs() < 5.0 * error, "{token}");
        }
        assert_eq!(counts[2], 0.0);
    }

    fn any_sampling() -> impl Strategy<Value = Sampling> {
        let heat = prop_oneof![Just(0.0f32), 0.05f32..3.0];
        (heat, 0usize..12, 0.05f32..=1.0, 0.0f32..0.5, 0.5f32..2.0).prop_map(
            |(temperature, top_k, top_p, min_p, repetition_penalty)| Sampling {
                temperature,
                top_k,
                top_p,
                min_p,
                repetition_penalty,
                ..Sampling::greedy(1, &[])
            },
        )
    }

    proptest! {
        #[test]
        fn as_a_plain_reading_of_the_definition(
            logits in prop::collection::vec(-8.0f32..8.0, 1..700),
            sampling in any_sampling(),
            allowed in prop::collection::vec(any::<bool>(), 700),
            seen in prop::collection::btree_set(0u32..700, 0..20),
            seed in any::<u64>(),
        ) {
            let mut tokens: Vec<usize> = (0..logits.len()).filter(|i| allowed[*i]).collect();
            if tokens.is_empty() {
                tokens.push(0);
            }
            let mask = bits(&tokens, logits.len());
            let seen: Vec<u32> = seen.into_iter().collect();
            let kept = distribution(&logits, Some(&mask), &seen, &sampling).unwrap();
            // The plain reading: sort all, cut thrice.
            let score = |i: usize| {
                let x = f64::from(logits[i]);
                let penalty = f64::from(sampling.repetition_penalty);
                match seen.contains(&(i as u32)) {
                    true if x < 0.0 => x * penalty,
                    true => x / penalty,
                    false => x,
                }
            };
            let heat = if sampling.temperature == 0.0 { 1e-6 } else { f64::from(sampling.temperature) };
            let top = tokens.iter().map(|i| score(*i)).fold(f64::MIN, f64::max);
            let mut plain: Vec<(usize, f64)> =
                tokens.iter().map(|i| (*i, ((score(*i) - top) / heat).exp())).collect();
            plain.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            if sampling.top_k > 0 {
                plain.truncate(sampling.top_k);
            }
            let total: f64 = plain.iter().map(|x| x.1).sum();
            let mut held = 0.0;
            let inside = plain.iter().take_while(|x| {
                let before = held;
                held += x.1;
                before < total * f64::from(sampling.top_p) - 1e-9
            });
            let wanted: Vec<(usize, f64)> =
                inside.filter(|x| x.1 >= f64::from(sampling.min_p) - 1e-6).copied().collect();
            let total: f64 = wanted.iter().map(|x| x.1).sum();
            prop_assert!((kept.iter().map(|x| x.1).sum::<f64>() - 1.0).abs() < 1e-9);
            // f32 rounding of the penalty may move a token across a cut: compare shares, not sets.
            for (token, p) in &wanted {
                let ours = kept.iter().find(|x| x.0 as usize == *token).map_or(0.0, |x| x.1);
                prop_assert!((ours - p / total).abs() < 0.02, "{token}: {ours} {}", p / total);
            }
            // What is drawn is kept, is allowed, and has its log-probability among all that are.
            let (token, log_prob) =
                draw(&logits, Some(&mask), &seen, &sampling, &mut stream(seed, 1)).unwrap();
            prop_assert!(kept.iter().any(|x| x.0 == token) && tokens.contains(&(token as usize)));
            let heat = if sampling.temperature == 0.0 { 1.0 } else { f64::from(sampling.temperature) };
            let total: f64 = tokens.iter().map(|i| (f64::from(logits[*i]) / heat).exp()).sum();
            let expected = f64::from(logits[token as usize]) / heat - total.ln();
            prop_assert!((f64::from(log_prob) - expected).abs() < 1e-4);
            let again = draw(&logits, Some(&mask), &seen, &sampling, &mut stream(seed, 1)).unwrap();
            prop_assert_eq!(again, (token, log_prob));
        }

        #[test]
        fn the_likeliest_are_those_of_a_sort(logits in prop::collection::vec(-8.0f32..8.0, 1..300), n in 0usize..20) {
            let all = log_probs(&logits, 0..logits.len() as u32).unwrap();
            prop_assert!((all.iter().map(|x| x.exp()).sum::<f64>() - 1.0).abs() < 1e-9);
            let mut sorted: Vec<(u32, f64)> = (0..).zip(all).collect();
            sorted.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            sorted.truncate(n);
            prop_assert_eq!(likeliest(&logits, n).unwrap(), sorted);
        }
    }
}
