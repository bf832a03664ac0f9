//! Divides a text into chunks: as many as its length asks for, each within the bounds, cut where it
//! hurts least.
//!
//! Of all divisions the one with the least cost is taken (dynamic programming over the cuts, each of
//! which looks back no further than a chunk is long, so that it is linear in the text). A cut costs
//! by its [`Level`], and a chunk by how far it is from the even share. A chunk out of bounds costs
//! more than any cut, so words and, at last, letters are offered as cuts only where nothing better
//! keeps the bounds.
//!
//! Tokens are counted once for the whole text and summed; what a cut changes at its two edges is
//! counted for each cut, so that the sums are what a count of the chunk's own text gives.

use std::cell::Cell;
use std::ops::Range;

use super::structure::{Cut, Level};
use super::tokens::Counter;

/// What the chunks must be.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The least tokens of a chunk.
    pub min: u32,
    /// The most tokens of a chunk.
    pub max: u32,
    /// The tokens that a chunk should have.
    pub target: u32,
    /// The most tokens that a chunk repeats of the one before it.
    pub overlap: u32,
}

/// A chunk of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Its bytes in the text.
    pub range: Range<usize>,
    /// Its tokens, by a count of its text.
    pub tokens: u32,
    /// What it ends at.
    pub ends: Level,
}

/// The cost of a chunk that is out of bounds.
const OUT_OF_BOUNDS: f64 = 1000.0;
/// A piece of so many bytes is weighed whole: few words are longer.
const WHOLE_PIECE: usize = 64;

fn cost(level: Level) -> f64 {
    match level {
        Level::Section => 0.0,
        Level::Paragraph => 0.04,
        Level::Sentence | Level::Heading => 0.12,
        Level::Break => 1.0,
        Level::Word => 3.0,
        Level::Block => 8.0,
        Level::Letter => 12.0,
    }
}

/// Divides a text at some of its cuts (those of `structure::cuts`). Every chunk is within the bounds
/// where the text has `min` tokens and `max` is at least twice `min` and `overlap`; a shorter text is
/// one chunk. Only a text that is little but an unbroken run of signs, whose tokens change wherever it
/// is cut, may give others. `tick` hears now and then how many tokens are counted, and may stop it.
pub fn divide<E>(
    text: &str,
    cuts: Vec<Cut>,
    bounds: Bounds,
    counter: &mut Counter,
    mut tick: impl FnMut(u32) -> Result<(), E>,
) -> Result<Vec<Chunk>, E> {
    let (Some(first), Some(last)) = (cuts.first(), cuts.last()) else { return Ok(Vec::new()) };
    let whole = first.start..last.end;
    let slack = bounds.max.saturating_sub(bounds.overlap).saturating_sub(2 * bounds.min);
    let step = (slack / 4).clamp(1, 64);
    let weights = Weights::new(text, step, counter, &mut tick)?;
    let all = weights.sums.last().copied().unwrap_or(0);
    if all <= bounds.target || all < 2 * bounds.min {
        let tokens = counter.count(&text[whole.clone()]);
        if tokens <= bounds.max {
            return Ok(vec![Chunk { range: whole, tokens, ends: Level::Section }]);
        }
    }
    let long = bounds.max.saturating_sub(bounds.overlap);
    let coarse = refine(text, &cuts, &weights, long, step.max(16));
    let chunks = choose(text, &coarse, &weights, bounds, bounds, counter);
    if outside(&chunks, bounds) == 0 {
        return Ok(chunks);
    }
    let fine = refine(text, &cuts, &weights, step, step);
    let mut best = chunks;
    // The sums of long pieces are a little high. Where that matters, stay off the bounds.
    for margin in [0, slack / 8, slack / 4] {
        let inner = Bounds { min: bounds.min + margin, max: bounds.max - margin, ..bounds };
        let chunks = choose(text, &fine, &weights, inner, bounds, counter);
        let better = outside(&chunks, bounds) < outside(&best, bounds);
        if better {
            best = chunks;
        }
        if outside(&best, bounds) == 0 {
            break;
        }
    }
    if outside(&best, bounds) > 0 {
        let tokens = counter.count(&text[whole.clone()]);
        let one = vec![Chunk { range: whole, tokens, ends: Level::Section }];
        if outside(&one, bounds) == 0 {
            return Ok(one);
        }
    }
    Ok(best)
}

fn outside(chunks: &[Chunk], bounds: Bounds) -> usize {
    chunks.iter().filter(|chunk| !(bounds.min..=bounds.max).contains(&chunk.tokens)).count()
}

/// The pieces of a text and the tokens up to the end of each.
struct Weights {
    ends: Vec<usize>,
    sums: Vec<u32>,
    /// A longer piece is weighed in parts of so many bytes, so that it can be cut.
    part: usize,
    /// The ends are those of tokens: pieces begin nowhere else.
    aligned: bool,
    /// Where the last search ended: the next one is mostly a little further on.
    near: Cell<usize>,
}

impl Weights {
    fn new<E>(
        text: &str,
        step: u32,
        counter: &mut Counter,
        tick: &mut impl FnMut(u32) -> Result<(), E>,
    ) -> Result<Weights, E> {
        let part = (step as usize).max(16);
        let room = text.len() / 4;
        let (ends, sums) = (Vec::with_capacity(room), Vec::with_capacity(room));
        let near = Cell::default();
        let mut weights = Weights { ends, sums, part, aligned: counter.knows_tokens(), near };
        if weights.aligned {
            for range in parts(text) {
                counter.ends(text, range, &mut weights.ends);
                tick(weights.ends.len() as u32)?;
            }
            weights.sums.extend(1..=weights.ends.len() as u32);
            return Ok(weights);
        }
        let mut sum = 0;
        for (i, (range, tokens)) in Pieces::new(text, 0, part, counter).enumerate() {
            sum += tokens;
            weights.ends.push(range.end);
            weights.sums.push(sum);
            if i % (1 << 18) == 0 {
                tick(sum)?;
            }
        }
        Ok(weights)
    }

    /// The number of pieces that end at or before `at`.
    fn before(&self, at: usize) -> usize {
        let near = self.near.get();
        let behind = near.checked_sub(1).and_then(|last| self.ends.get(last));
        let ahead = self.ends.iter().skip(near).take(64).position(|end| *end > at);
        let found = match (behind, ahead) {
            (Some(behind), Some(ahead)) if *behind <= at => near + ahead,
            _ => self.ends.partition_point(|end| *end <= at),
        };
        self.near.set(found);
        found
    }

    fn sum(&self, pieces: usize) -> i64 {
        pieces.checked_sub(1).and_then(|last| self.sums.get(last)).copied().unwrap_or(0).into()
    }

    /// The tokens of the text up to `at`, were that its end.
    fn up_to(&self, text: &str, at: usize, counter: &mut Counter) -> i64 {
        let pieces = self.before(at);
        let from = pieces.checked_sub(1).map_or(0, |last| self.ends[last]);
        let rest: u32 =
            Pieces::new(&text[..at], from, self.part, counter).map(|(_, tokens)| tokens).sum();
        self.sum(pieces) + i64::from(rest)
    }

    /// What to take from `up_to(b)` for the tokens of `at..b`: the tokens before `at`, less what the
    /// text has more when it begins there.
    fn from(&self, text: &str, at: usize, counter: &mut Counter) -> i64 {
        let mut pieces = self.before(at);
        let mut extra = 0;
        let mut reached = at;
        let limit = self.ends.get(pieces).filter(|_| self.aligned).copied().unwrap_or(text.len());
        let mut own = Pieces::new(&text[..limit], at, self.part, counter);
        loop {
            while self.ends.get(pieces).is_some_and(|end| *end <= reached) {
                pieces += 1;
            }
            let meet = pieces.checked_sub(1).map_or(0, |last| self.ends[last]);
            if meet == reached {
                return self.sum(pieces) - extra;
            }
            let Some((range, tokens)) = own.next() else { return self.sum(pieces) - extra };
            extra += i64::from(tokens);
            reached = range.end;
        }
    }
}

/// A text in parts that a tokenizer can keep in memory, cut between paragraphs where there are some.
fn parts(text: &str) -> impl Iterator<Item = Range<usize>> {
    const LONGEST: usize = 1 << 18;
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = &text[at..];
        let most = rest.floor_char_boundary(LONGEST);
        let length = match rest.len() <= LONGEST {
            true => rest.len(),
            false => rest[..most].rfind("\n\n").filter(|length| *length > 0).unwrap_or(most),
        };
        let range = at..at + length;
        at += length;
        (length > 0).then_some(range)
    })
}

/// The pieces of a text from a place on with their tokens, long ones in parts.
struct Pieces<'a> {
    text: &'a str,
    at: usize,
    part: usize,
    /// Where the piece ends whose parts are under way.
    end: usize,
    counter: &'a mut Counter,
}

impl<'a> Pieces<'a> {
    fn new(text: &'a str, at: usize, part: usize, counter: &'a mut Counter) -> Pieces<'a> {
        Pieces { text, at, part, end: at, counter }
    }
}

impl Iterator for Pieces<'_> {
    type Item = (Range<usize>, u32);

    fn next(&mut self) -> Option<(Range<usize>, u32)> {
        if self.at >= self.text.len() {
            return None;
        }
        if self.end == self.at {
            self.end = self.counter.next(self.text, self.at);
        }
        let end = match self.end - self.at > WHOLE_PIECE + self.part {
            true => self.text.floor_char_boundary(self.at + self.part),
            false => self.end,
        };
        let range = self.at..end;
        self.at = end;
        Some((range.clone(), self.counter.piece(&self.text[range])))
    }
}

/// Adds cuts between words, `step` tokens apart, wherever two cuts are more than `limit` apart.
fn refine(text: &str, cuts: &[Cut], weights: &Weights, limit: u32, step: u32) -> Vec<Cut> {
    let mut refined = Vec::with_capacity(cuts.len());
    for pair in cuts.windows(2) {
        let (cut, next) = (pair[0], pair[1]);
        refined.push(cut);
        let (from, to) = (weights.before(cut.start), weights.before(next.end));
        if weights.sum(to) - weights.sum(from) <= limit.into() {
            continue;
        }
        let mut last = weights.sum(from);
        let mut kept: Option<Cut> = None;
        for piece in from..to {
            let at = weights.ends[piece];
            let (left, right) = text.split_at(at);
            let blank =
                left.ends_with(char::is_whitespace) && right.starts_with(char::is_whitespace);
            if at <= cut.start || at >= next.end || blank {
                continue;
            }
            let found = between_words(text, at, cut.solid, cut.start, next.end);
            // Of the cuts of one step the best, of those the last.
            if kept.is_none_or(|kept| rank(text, &found) <= rank(text, &kept)) {
                kept = Some(found);
            }
            if weights.sum(piece + 1) - last >= step.into()
                && let Some(cut) = kept.take()
            {
                if refined.last().is_none_or(|before| before.start < cut.end) {
                    refined.push(cut);
                }
                last = weights.sum(piece + 1);
            }
        }
    }
    refined.extend(cuts.last());
    refined
}

/// The cut nearest to the boundary of two pieces: at white space if there is some.
fn between_words(text: &str, at: usize, solid: bool, low: usize, high: usize) -> Cut {
    let end = low + text[low..at].trim_end().len();
    let start = high - text[at..high].trim_start().len();
    let level = match (start > end, solid) {
        (false, _) => Level::Letter,
        (true, true) => Level::Block,
        (true, false) => Level::Word,
    };
    Cut { end, start, level, solid }
}

/// Lines before words before letters.
fn rank(text: &str, cut: &Cut) -> (Level, bool) {
    (cut.level, !(cut.level == Level::Block && text[cut.end..cut.start].contains('\n')))
}

/// The division of least cost within `inner`, counted again.
fn choose(
    text: &str,
    cuts: &[Cut],
    weights: &Weights,
    inner: Bounds,
    bounds: Bounds,
    counter: &mut Counter,
) -> Vec<Chunk> {
    let ends: Vec<i64> = cuts.iter().map(|cut| weights.up_to(text, cut.end, counter)).collect();
    let starts = starts(text, cuts, weights, &ends, bounds.overlap, counter);
    let all = ends.last().copied().unwrap_or(0) as f64;
    let fresh = f64::from(bounds.target.saturating_sub(bounds.overlap).max(1));
    let count = ((all - f64::from(bounds.overlap)) / fresh).round().max(1.0);
    let share = (all + (count - 1.0) * f64::from(bounds.overlap)) / count;
    let share = share.clamp(f64::from(inner.min), f64::from(inner.max));

    let (min, max) = (i64::from(inner.min), i64::from(inner.max));
    // For each cut the least cost of a division up to it, and the cut before it in that division.
    let mut best: Vec<(f64, usize)> = vec![(0.0, 0)];
    for j in 1..cuts.len() {
        let own = if j + 1 == cuts.len() { 0.0 } else { cost(cuts[j].level) };
        let mut least = (f64::INFINITY, j - 1);
        for i in (0..j).rev() {
            let tokens = ends[j] - starts[i].1;
            let beyond = (min - tokens).max(tokens - max).max(0);
            let mut sum = best[i].0 + own + ((tokens as f64 - share) / share).powi(2);
            if beyond > 0 {
                sum += OUT_OF_BOUNDS * (1.0 + beyond as f64 / share);
            }
            if sum < least.0 {
                least = (sum, i);
            }
            if tokens > max {
                break;
            }
        }
        best.push(least);
    }
    let mut chunks = Vec::new();
    let mut j = cuts.len() - 1;
    while j > 0 {
        let i = best[j].1;
        let range = starts[i].0..cuts[j].end;
        let tokens = counter.count(&text[range.clone()]);
        chunks.push(Chunk { range, tokens, ends: cuts[j].level });
        j = i;
    }
    chunks.reverse();
    chunks
}

/// Where the chunk that is cut off at each cut begins, the overlap included, and its
/// [`Weights::from`].
fn starts(
    text: &str,
    cuts: &[Cut],
    weights: &Weights,
    ends: &[i64],
    overlap: u32,
    counter: &mut Counter,
) -> Vec<(usize, i64)> {
    let own: Vec<i64> = cuts.iter().map(|cut| weights.from(text, cut.start, counter)).collect();
    let mut starts = Vec::with_capacity(cuts.len());
    for (i, cut) in cuts.iter().enumerate() {
        let mut start = (cut.start, own[i]);
        // What is repeated begins at a cut too: the farthest back that the overlap allows.
        for before in (0..i).rev() {
            if overlap == 0 || ends[i] - own[before] > overlap.into() {
                break;
            }
            if cuts[before].level <= Level::Word {
                start = (cuts[before].start, own[before]);
            }
        }
        starts.push(start);
    }
    starts
}
