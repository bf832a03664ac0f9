//! From files to what the loops take, and from what they return to a model folder.

use std::path::Path;

use burn::module::AutodiffModule;
use burn::tensor::backend::Backend;

use super::dapo::{Sample, Scored, World};
use super::data::{self, Document, Pair, Question, Windows};
use super::dpo::Pairs;
use super::logps::Group;
use super::params::{Arch, Dapo, Lora, Params};
use crate::device::{Back, Place, Train};
use crate::model::lora::{self, Spec};
use crate::model::{self, Config, Llama, Normal, Sampling, Source, Tokenizer, generate, weights};
use crate::pairs::decision::Decision;
use crate::pairs::reward::{Outcome, RewardSpec, score};
use crate::{Context, Result, StageError};

/// A model about to be trained.
pub struct Start {
    /// With a fresh adapter where the parameters ask for one; only it is then trained.
    pub model: Llama<Train>,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    end: u32,
}

impl Start {
    /// The model of port `base`, its adapter merged.
    pub fn base(ctx: &Context, params: &Params, place: &Place) -> Result<Start> {
        if params.model.is_some() {
            return Err(StageError::failed("both `base` and `model` are given")
                .hint("`model` describes a new model: remove it, or remove `base` from `from`"));
        }
        let loaded = model::load::<Train>(ctx, "base", place)?;
        Start::new(loaded.model.merge(), loaded.tokenizer, ctx, params, place)
    }

    /// A new model, with a tokenizer trained on the corpus.
    pub fn fresh(
        ctx: &Context,
        params: &Params,
        corpus: &[String],
        place: &Place,
    ) -> Result<Start> {
        let Some(Arch { hidden, layers, heads, kv_heads, ffn, vocab, context }) = params.model
        else {
            return Err(StageError::failed("neither `base` nor `model` is given").hint(
                "feed a model to `base`, or add `model: {}` to make a new one of the default size",
            ));
        };
        let tokenizer = Tokenizer::train(corpus.iter().map(String::as_str), vocab)?;
        let mut config = Config::llama(vocab, hidden, layers, heads, kv_heads, ffn, context);
        tokenizer.describe(&mut config);
        ctx.metric("parameters", config.parameters() as f64);
        let llama = Llama::build(&config, &mut Fresh(Normal::new(ctx.seed())), place)?;
        Start::new(llama, tokenizer, ctx, params, place)
    }

    fn new(
        model: Llama<Train>,
        tokenizer: Tokenizer,
        ctx: &Context,
        params: &Params,
        place: &Place,
    ) -> Result<Start> {
        // Nothing here draws from Burn's generator, but a module that did would be repeatable.
        Train::seed(place, ctx.seed());
        let Some(&end) = tokenizer.eos().first() else {
            return Err(StageError::failed("the model names no end-of-text token")
                .hint("config.json needs `eos_token_id`: without one no answer ever ends"));
        };
        let model = match &params.lora {
            Some(lora) => model.with_adapter(&spec(lora), ctx.seed())?,
            None => model,
        };
        Ok(Start { model, tokenizer, end })
    }

    /// The model without its adapter.
    pub fn reference(&self) -> Llama<Back> {
        self.model.valid().without_adapter()
    }

    /// Tokens of a prompt; an error where it leaves no room for `answer` more.
    fn prompt(&self, text: &str, answer: usize, path: &Path, line: u64) -> Result<Vec<u32>> {
        let tokens = self.tokenizer.prompt(text)?;
        let limit = self.model.config.max_position_embeddings;
        if tokens.is_empty() {
            return Err(StageError::bad(path, "the prompt is empty").at(line));
        }
        if tokens.len() + answer > limit {
            let message = format!(
                "{} tokens of prompt and {answer} of answer are more than the model's {limit}",
                tokens.len()
            );
            return Err(StageError::bad(path, message)
                .at(line)
                .hint("shorten the prompts, or make the base with a larger `model.context`"));
        }
        Ok(tokens)
    }

    /// Tokens of a completion, with its end.
    fn completion(&self, text: &str) -> Result<Vec<u32>> {
        let mut tokens = self.tokenizer.encode(text)?;
        tokens.push(self.end);
        Ok(tokens)
    }
}

/// [`Normal`] weights, with rows of the embedding of norm 1.
///
/// A tied embedding bounds the logits by its norm times that of a normed state, which is the root
/// of the width d. At a deviation of 0.02 and d = 256 a token that the corpus hardly has could get
/// no probability above 10 %, whatever an adapter learns later, since adapters leave embeddings
/// alone. At `1 / sqrt d` the bound is `sqrt d` at every width.
struct Fresh(Normal);

impl Source for Fresh {
    fn read(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let mut values = self.0.read(name, shape)?;
        if let (true, Some(width)) = (name.contains("embed_tokens"), shape.last()) {
            let scale = 1.0 / (Normal::STD * (*width as f64).sqrt());
            values.iter_mut().for_each(|x| *x = (f64::from(*x) * scale) as f32);
        }
        Ok(values)
    }
}

fn spec(lora: &Lora) -> Spec {
    Spec { r: lora.r, alpha: lora.alpha, targets: lora.targets.clone(), rslora: false }
}

/// The texts of a corpus.
pub fn corpus(path: &Path) -> Result<Vec<String>> {
    Ok(data::jsonl::<Document>(path)?.into_iter().map(|(_, document)| document.text).collect())
}

/// Windows to train on, and those held out.
pub fn windows(
    start: &Start,
    corpus: &[String],
    params: &Params,
    ctx: &Context,
) -> Result<(Windows, Option<Windows>)> {
    let texts: Vec<&str> = corpus.iter().map(String::as_str).collect();
    let stream = data::join(&start.tokenizer.encode_all(&texts)?, start.end);
    let limit = start.model.config.max_position_embeddings;
    let asked = params.seq_len.unwrap_or(limit);
    if asked > limit {
        return Err(StageError::failed(format!(
            "`seq_len` {asked} is more than the model's context of {limit}"
        ))
        .hint("lower `seq_len`, or raise `model.context`"));
    }
    ctx.metric("corpus_tokens", stream.len() as f64);
    let (train, held) = data::hold_out(stream, params.valid_share.unwrap_or(0.0));
    if train.len() < 2 {
        return Err(StageError::failed("the corpus has fewer than two tokens"));
    }
    let valid = (held.len() > 1).then(|| Windows::new(held, asked - 1, ctx.seed()));
    Ok((Windows::new(train, asked - 1, ctx.seed()), valid))
}

/// Preference pairs as tokens; the last share of them is held out.
pub fn pairs(start: &Start, path: &Path, params: &Params) -> Result<Pairs> {
    let mut groups = Vec::new();
    for (line, pair) in data::jsonl::<Pair>(path)? {
        let completions = [&pair.chosen, &pair.rejected].map(|text| start.completion(text));
        let [chosen, rejected] = completions;
        let completions = vec![chosen?, rejected?];
        let longest = completions.iter().map(Vec::len).max().unwrap_or(0);
        let prompt = start.prompt(&pair.prompt, longest, path, line)?;
        groups.push(Group { prompt, completions });
    }
    let held = (groups.len() as f64 * params.valid_share.unwrap_or(0.0)) as usize;
    let valid = groups.split_off(groups.len() - held);
    Ok(Pairs { train: groups, valid })
}

/// Decisions and what followed them: questions with a reward for every answer.
pub struct Market {
    tokenizer: Tokenizer,
    prompts: Vec<Vec<u32>>,
    outcomes: Vec<Outcome>,
    reward: RewardSpec,
    sampling: Sampling,
    seed: u64,
    drawn: u64,
}

impl Market {
    /// The prompts of port `pairs`, each once, and the reward of port `reward`.
    pub fn read(start: &Start, ctx: &Context, settings: &Dapo) -> Result<Market> {
        let path = ctx.file("reward")?;
        let reward: RewardSpec = serde_json::from_slice(&fs_err::read(path)?).map_err(|e| {
            StageError::bad(path, format!("not the description of a reward: {e}"))
                .at(e.line() as u64)
                .hint("feed `reward` from output `reward` of `pairs`")
        })?;
        let path = ctx.file("pairs")?;
        let (mut prompts, mut outcomes) = (Vec::new(), Vec::new());
        let mut known = std::collections::BTreeSet::new();
        for (line, question) in data::jsonl::<Question>(path)? {
            question.outcome.check(&reward).map_err(|e| {
                StageError::bad(path, e)
                    .at(line)
                    .hint("feed `pairs` and `reward` from the same stage")
            })?;
            let prompt = start.prompt(&question.prompt, settings.max_tokens, path, line)?;
            if known.insert(question.prompt) {
                prompts.push(prompt);
                outcomes.push(question.outcome);
            }
        }
        let sampling = Sampling {
            temperature: settings.temperature as f32,
            top_k: 0,
            top_p: 1.0,
            max_tokens: settings.max_tokens,
            stop: start.tokenizer.eos().to_vec(),
        };
        let tokenizer = start.tokenizer.clone();
        Ok(Market { tokenizer, prompts, outcomes, reward, sampling, seed: ctx.seed(), drawn: 0 })
    }
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
        let samples = generate(&model.valid(), self.prompt(at), count, &self.sampling, seed)?;
        let samples = samples.into_iter().map(|sample| Sample {
            logp: sample.log_probs.iter().map(|x| f64::from(*x)).collect(),
            ended: sample.stopped,
            tokens: sample.tokens,
        });
        Ok(samples.collect())
    }

    /// The reward of the action; 0 for a text that is none, which is below the reward of any
    /// action.
    fn score(&self, at: usize, sample: &Sample) -> Scored {
        let text = self.tokenizer.decode(&sample.tokens).unwrap_or_default();
        let action = Decision::read(&text).filter(|_| sample.ended);
        match (action, self.outcomes.get(at)) {
            (Some(action), Some(outcome)) => {
                Scored { reward: score(&self.reward, outcome, action).reward, parsed: true }
            }
            _ => Scored { reward: 0.0, parsed: false },
        }
    }
}

/// Writes the model folder.
pub fn save(
    model: &Llama<Train>,
    tokenizer: &Tokenizer,
    params: &Params,
    folder: &Path,
) -> Result<()> {
    let model = model.valid();
    tokenizer.write(folder)?;
    weights::save(&model, folder)?;
    match &params.lora {
        Some(lora) => lora::write(&model, &spec(lora), folder),
        None => Ok(()),
    }
}
