//! The world of `dapo`: prompts, samples of the model, free or under a grammar, and what scores them:
//! the reward of `pairs` on decoded decisions, or a program that the user names.

use std::path::Path;

use burn::module::AutodiffModule;
use serde::Deserialize;
use serde_json::Value;

use super::check::allowed;
use super::dapo::{Sample, Scored, World};
use super::data;
use super::options::Dapo;
use super::prepare::Start;
use super::scorer::Scorer;
use crate::decode::{Constraint, Grammar, Grammars, Vocabulary};
use crate::device::Train;
use crate::model::{Llama, Sampling, Tokenizer, constrained, generate};
use crate::pairs::decision::Decision;
use crate::pairs::reward::{Outcome, RewardSpec, score};
use crate::{Context, Result, StageError};

/// What scores answers.
enum Judge {
    /// The reward of `pairs`, and what followed each prompt.
    Reward(RewardSpec, Vec<Outcome>),
    /// A program, and the line of each prompt.
    Program(Box<Scorer>, Vec<(String, Value)>),
}

/// Questions with a score for every answer.
pub struct Market {
    tokenizer: Tokenizer,
    prompts: Vec<Vec<u32>>,
    lines: Vec<u64>,
    judge: Judge,
    grammar: Option<Bound>,
    sampling: Sampling,
    seed: u64,
    drawn: u64,
}

/// What answers are kept to.
struct Bound {
    /// Where nothing is held and nothing rests, and where `hold` and `cancel` may be said.
    constraints: [Constraint; 2],
    /// Which of them is that of each prompt.
    resting: Vec<bool>,
}

impl Bound {
    fn new(start: &Start, judge: &Judge, settings: &Dapo) -> Result<Option<Bound>> {
        let Some(form) = settings.form.form() else { return Ok(None) };
        let (size, resting) = match judge {
            Judge::Reward(reward, outcomes) => {
                let holds = |o: &Outcome| o.position != 0.0 || o.resting.is_some();
                (reward.max_size, outcomes.iter().map(holds).collect())
            }
            Judge::Program(_, records) => (1, vec![false; records.len()]),
        };
        let vocabulary = Vocabulary::new(&start.tokenizer)?;
        let grammars = Grammars::new(&vocabulary, start.model.config.vocab_size)?;
        let offsets = settings.offsets_bps.as_deref().unwrap_or_default();
        let compile = |resting| {
            // A space follows the prompt, as in the completions of `pairs`.
            grammars.compile(&Grammar::decision(&allowed(offsets, size, resting), form, " "))
        };
        Ok(Some(Bound { constraints: [compile(false)?, compile(true)?], resting }))
    }

    fn of(&self, at: usize) -> &Constraint {
        &self.constraints[usize::from(self.resting.get(at).copied().unwrap_or(false))]
    }
}

impl Market {
    /// The prompts of port `pairs`, each once, and the reward of port `reward` or of a program.
    pub fn read(start: &Start, ctx: &Context, settings: &Dapo) -> Result<Market> {
        let mut judge = match &settings.reward {
            Some(scorer) => {
                Judge::Program(Box::new(Scorer::start(&scorer.command, ctx)?), Vec::new())
            }
            None => Judge::Reward(reward(ctx.file("reward")?)?, Vec::new()),
        };
        let path = ctx.file("pairs")?;
        let (mut prompts, mut lines) = (Vec::new(), Vec::new());
        let mut known = std::collections::BTreeSet::new();
        for (line, record) in data::jsonl::<Value>(path)? {
            let bad = |e: String| StageError::bad(path, e).at(line);
            let Some(text) = record["prompt"].as_str().map(str::to_owned) else {
                return Err(bad("no text `prompt`".into()));
            };
            let prompt = start.prompt(&text, settings.max_tokens, path, line)?;
            let fresh = known.insert(text.clone());
            match &mut judge {
                Judge::Reward(reward, outcomes) => {
                    let outcome = Outcome::deserialize(&record["outcome"]);
                    let outcome = outcome.map_err(|e| bad(format!("`outcome`: {e}")))?;
                    outcome.check(reward).map_err(|e| {
                        bad(e).hint("feed `pairs` and `reward` from the same stage")
                    })?;
                    outcomes.extend(Some(outcome).filter(|_| fresh));
                }
                Judge::Program(_, records) => {
                    records.extend(Some((text, record)).filter(|_| fresh));
                }
            }
            if fresh {
                prompts.push(prompt);
                lines.push(line);
            }
        }
        let sampling = Sampling {
            temperature: settings.temperature as f32,
            ..Sampling::greedy(settings.max_tokens, start.tokenizer.eos())
        };
        let (tokenizer, seed) = (start.tokenizer.clone(), ctx.seed());
        let grammar = Bound::new(start, &judge, settings)?;
        Ok(Market { tokenizer, prompts, lines, judge, grammar, sampling, seed, drawn: 0 })
    }
}

fn reward(path: &Path) -> Result<RewardSpec> {
    serde_json::from_slice(&fs_err::read(path)?).map_err(|e| {
        StageError::bad(path, format!("not the description of a reward: {e}"))
            .at(e.line() as u64)
            .hint("feed `reward` from output `reward` of `pairs`")
    })
}

impl World for Market {
    fn prompt(&self, at: usize) -> &[u32] {
        self.prompts.get(at).map_or(&[], Vec::as_slice)
    }

    fn questions(&self) -> usize {
        self.prompts.len()
    }

    fn sample(&mut self, model: &Llama<Train>, at: usize, count: usize) -> Result<Vec<Sample>> {
        self.drawn += 1;
        // A seed of its own for each group: the streams of one seed are its samples.
        let seed =
            rand::Rng::next_u64(&mut data::rng(self.seed, data::stream::SAMPLES + self.drawn));
        let (model, prompt) = (model.valid(), self.prompt(at));
        let sample = |sample: crate::model::Sample, choices| Sample {
            logp: sample.log_probs.iter().map(|x| f64::from(*x)).collect(),
            ended: sample.stopped,
            tokens: sample.tokens,
            choices,
        };
        Ok(match &self.grammar {
            None => {
                let drawn = generate(&model, prompt, count, &self.sampling, seed)?;
                drawn.into_iter().map(|one| sample(one, Vec::new())).collect()
            }
            Some(bound) => {
                let kept = bound.of(at);
                let drawn = constrained(&model, prompt, count, &self.sampling, seed, kept)?;
                drawn.into_iter().map(|one| sample(one.sample, one.choices)).collect()
            }
        })
    }

    fn line(&self, at: usize) -> u64 {
        self.lines.get(at).copied().unwrap_or_default()
    }

    fn skip(&mut self, groups: usize) {
        self.drawn = groups as u64;
    }

    /// The reward of the action; 0 for a text that is none, which is below the reward of any
    /// action. A program scores any text.
    fn score(&mut self, at: usize, sample: &Sample) -> Result<Scored> {
        let text = self.tokenizer.decode(&sample.tokens).unwrap_or_default();
        match &mut self.judge {
            Judge::Reward(reward, outcomes) => {
                let action = Decision::read(&text).filter(|_| sample.ended);
                Ok(match (action, outcomes.get(at)) {
                    (Some(action), Some(outcome)) => {
                        Scored { reward: score(reward, outcome, action).reward, parsed: true }
                    }
                    _ => Scored { reward: 0.0, parsed: false },
                })
            }
            Judge::Program(scorer, records) => {
                let Some((prompt, record)) = records.get(at) else {
                    return Err(StageError::failed(format!("no question {at}")));
                };
                Ok(Scored { reward: scorer.score(prompt, &text, record)?, parsed: true })
            }
        }
    }
}
