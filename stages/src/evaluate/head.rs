//! Decisions by a classification head: no text is written, the state that the model has after the
//! prompt is classified.
//!
//! The head is a multinomial logistic regression with an L2 penalty on the last hidden state, after the
//! final norm; the model itself is left alone. It learns from the pairs of the training span: the
//! prompt's state is the input, the chosen decision the class. A pair whose label saw the judged span
//! is left out. So the same prompts show what a model knows of a market apart from how it can say it.
//!
//! States are taken on the CPU by [`crate::infer`]; the fit is [`crate::softmax`].

use std::collections::BTreeMap;
use std::path::Path;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;

use super::decide::{Count, seed, tokens};
use super::input::Prompt;
use super::params::Params;
use crate::decode::Model;
use crate::infer::Reader;
use crate::model::weights::uniform;
use crate::pairs::decision::Decision;
use crate::softmax::{Rows, Softmax};
use crate::train::jsonl;
use crate::{Context, Result, StageError};

/// What is needed of a line of `pairs`.
#[derive(Deserialize)]
struct Pair {
    t0: String,
    t1: String,
    prompt: String,
    chosen: String,
}

/// A training prompt, and what was best to say.
#[derive(Debug, PartialEq)]
struct Lesson {
    prompt: String,
    best: Decision,
}

/// Fits a head on port `pairs`, and decides by it at every prompt.
pub fn decide(
    ctx: &Context,
    port: &str,
    model: &Model,
    prompts: &[Prompt],
    params: &Params,
    since: &str,
    count: Count,
) -> Result<Vec<String>> {
    let lessons = lessons(ctx.file("pairs")?, since)?;
    let mut reader = Reader::new(model.engine());
    let mut states = Vec::new();
    let asked = |text: &String| Prompt { row: 0, text: text.clone() };
    let taught: Vec<Prompt> = lessons.iter().map(|lesson| asked(&lesson.prompt)).collect();
    let total = taught.len();
    let context = model.context();
    for (at, tokens) in tokens(model.engine().tokenizer(), context, &taught, 0)?.iter().enumerate()
    {
        count.tell(ctx, 0, &format!("{port}: state {at} of {total} to learn from"))?;
        states.extend(reader.state(tokens)?);
    }
    let mut classes: Vec<Decision> = lessons.iter().map(|lesson| lesson.best).collect();
    classes.sort_unstable();
    classes.dedup();
    let class = |lesson: &Lesson| classes.binary_search(&lesson.best).unwrap_or(0);
    let labels: Vec<usize> = lessons.iter().map(class).collect();
    let width = model.engine().config().hidden_size;
    let rows = Rows { values: &states, width };
    let head = Softmax::fit(rows, &labels, classes.len(), params.head_l2)?;
    ctx.metric(&format!("head_rows_{port}"), lessons.len() as f64);
    ctx.metric(&format!("head_classes_{port}"), classes.len() as f64);

    let mut answers = Vec::with_capacity(prompts.len());
    let asked = tokens(model.engine().tokenizer(), context, prompts, 0)?;
    for (at, tokens) in asked.iter().enumerate() {
        count.tell(ctx, at, port)?;
        let chances = head.probabilities(&reader.state(tokens)?);
        let chosen = choose(&chances, params.temperature, seed(ctx.seed(), at));
        answers.push(format!(" {}", classes[chosen]));
    }
    Ok(answers)
}

/// Each prompt of a file of pairs once, with the decision that was best, where all that the label saw
/// was before `since`.
fn lessons(path: &Path, since: &str) -> Result<Vec<Lesson>> {
    let mut known = BTreeMap::new();
    for (line, pair) in jsonl::<Pair>(path)? {
        let Some(best) = Decision::read(&pair.chosen) else {
            let message = format!("`{}` is no decision", pair.chosen);
            return Err(StageError::bad(path, message).at(line));
        };
        if pair.t1.as_str() < since && pair.t0.as_str() < since {
            known.entry(pair.t0).or_insert(Lesson { prompt: pair.prompt, best });
        }
    }
    if known.is_empty() {
        return Err(StageError::bad(path, format!("no pair whose label ends before {since}"))
            .hint("a head learns from the training span: feed the pairs of the same `featurize`"));
    }
    Ok(known.into_values().collect())
}

/// The likeliest class, or one drawn at a temperature.
fn choose(chances: &[f64], temperature: f64, seed: u64) -> usize {
    let best = |best: usize, at: usize| if chances[at] > chances[best] { at } else { best };
    if temperature <= 0.0 {
        return (0..chances.len()).fold(0, best);
    }
    let weights: Vec<f64> = chances.iter().map(|p| p.powf(1.0 / temperature)).collect();
    let mut left = uniform(&mut ChaCha8Rng::seed_from_u64(seed)) * weights.iter().sum::<f64>();
    let under = weights.iter().position(|weight| {
        left -= weight;
        left <= 0.0
    });
    under.unwrap_or(chances.len() - 1)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn line(t0: &str, t1: &str, prompt: &str, chosen: &str) -> String {
        json!({ "t0": t0, "t1": t1, "prompt": prompt, "chosen": chosen }).to_string() + "\n"
    }

    #[test]
    fn it_learns_from_what_was_known() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pairs.jsonl");
        let text = line("2020-01-01", "2020-01-02", "a", " buy limit 10")
            + &line("2020-01-01", "2020-01-02", "a", " sell market")
            + &line("2020-01-02", "2020-01-03", "b", " FL")
            + &line("2020-01-03", "2020-01-06", "c", " flat");
        fs_err::write(&path, text).unwrap();
        let best = |text: &str| Decision::read(text).unwrap();
        let lesson = |prompt: &str, b: &str| Lesson { prompt: prompt.into(), best: best(b) };
        // The third label saw the first day that is judged; a prompt counts once.
        let all = lessons(&path, "2020-01-06").unwrap();
        assert_eq!(all, [lesson("a", "buy limit 10"), lesson("b", "flat")]);
        assert!(lessons(&path, "2020-01-02").unwrap_err().to_string().contains("no pair"));
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let chances = [0.2, 0.7, 0.1];
        assert_eq!(choose(&chances, 0.0, 3), 1);
        let counts = (0..4000).fold([0; 3], |mut counts, seed| {
            counts[choose(&chances, 1.0, seed)] += 1;
            counts
        });
        for (count, p) in counts.iter().zip(chances) {
            assert!((f64::from(*count) / 4000.0 - p).abs() < 0.03, "{counts:?}");
        }
    }
}
