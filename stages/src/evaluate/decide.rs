//! Asks a model for its decision at each prompt, and keeps the answer to the character.
//!
//! By the engine of [`crate::infer`] on the run's device, packed weights as they are: what prompts
//! begin with is read once, some are answered in one pass, and on the CPU an answer depends on its own
//! prompt and seed and on nothing else, neither on how many there are nor on the threads. An adapter
//! that the engine cannot run beside its base (DoRA's) is run by Burn.
//!
//! `form: free` constrains nothing: whether the model has learned the grammar is part of what is
//! measured. The other forms are kept to the grammar of decisions and always read, and `head` writes
//! no text at all ([`super::head`]).

use std::sync::mpsc;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::input::Prompt;
use super::numbers::count;
use super::params::{Asking, Params};
use crate::decode::{Batch, Constraint, Grammar, Job, Model, Sampling, Told, Wanted};
use crate::infer::{Engine, Options};
use crate::model::{Config, Folder, Tokenizer};
use crate::pairs::action::{MAX_OFFSET_BPS, Side};
use crate::pairs::decision::{Allowed, Decision, Form};
use crate::{Context, Result, StageError};

/// Prompts that are answered at once.
const WIDE: usize = 8;

/// A model's answers, and what it is.
pub struct Decided {
    /// The answers, one a prompt.
    pub answers: Vec<String>,
    /// The model in a line.
    pub about: String,
}

/// How far all models together are.
#[derive(Clone, Copy)]
pub struct Count {
    /// Prompts answered before.
    pub done: usize,
    /// Prompts to answer in all.
    pub total: usize,
}

impl Count {
    /// Says that `more` prompts have been answered since.
    pub fn tell(self, ctx: &Context, more: usize, note: &str) -> Result<()> {
        ctx.progress((self.done + more) as u64, self.total as u64, "prompts", note)
    }
}

/// Answers every prompt with the model of a port. `since` is the date of the first prompt: a head
/// learns from what was known before it.
///
/// # Errors
/// The folder is no model, or a prompt does not fit into the model's context.
pub fn decide(
    ctx: &Context,
    port: &str,
    prompts: &[Prompt],
    params: &Params,
    since: &str,
    count: Count,
) -> Result<Decided> {
    count.tell(ctx, 0, &format!("loading {port}"))?;
    let folder = Folder::of_port(ctx, port);
    if !runs(&folder)? {
        return elsewhere(ctx, port, prompts, params, count);
    }
    let options = Options { device: ctx.device(), ..Options::default() };
    let model = Model::of(Engine::of_folder(&folder, options)?, None)?;
    let about = about(port, model.engine().config(), params.form);
    let answers = match params.form {
        Asking::Head => super::head::decide(ctx, port, &model, prompts, params, since, count)?,
        _ => answer(ctx, port, &model, prompts, params, count)?,
    };
    Ok(Decided { answers, about })
}

/// Whether the engine runs it: all but an adapter that is not a low-rank product.
fn runs(folder: &Folder) -> Result<bool> {
    match folder.get("adapter_config.json") {
        Some(path) => Ok(!crate::model::adapter::Settings::read(path)?.use_dora),
        None => Ok(true),
    }
}

/// What answers are kept to: the grammar, and the most tokens of one.
pub(super) fn grammar(params: &Params) -> Option<(Grammar, usize)> {
    let form = params.form.form()?;
    let allowed = params.allowed();
    // A space follows the prompt, as in the completions of `pairs`. Each token has a byte or more, and
    // the end may be one.
    let most = " ".len() + longest(&allowed, form) + 1;
    Some((Grammar::decision(&allowed, form, " "), most))
}

/// Bytes of the longest decision in a form.
fn longest(allowed: &Allowed, form: Form) -> usize {
    let (offset, size) = (allowed.offsets_bps.iter().max(), allowed.max_size);
    let offset = offset.copied().unwrap_or(MAX_OFFSET_BPS);
    let all = [
        Decision::Limit(Side::Sell, offset, size),
        Decision::Market(Side::Sell, size),
        Decision::Cancel,
    ];
    all.into_iter().map(|decision| decision.write(form).len()).max().unwrap_or(0)
}

fn sampling(params: &Params, most: usize, tokenizer: &Tokenizer) -> Sampling {
    let temperature = params.temperature as f32;
    Sampling { temperature, ..Sampling::greedy(most, tokenizer.eos()) }
}

/// Answers by the engine.
fn answer(
    ctx: &Context,
    port: &str,
    model: &Model,
    prompts: &[Prompt],
    params: &Params,
    count: Count,
) -> Result<Vec<String>> {
    let tokenizer = model.engine().tokenizer();
    let bound = match grammar(params) {
        Some((grammar, most)) => Some((model.constraint(&grammar)?, most)),
        None => None,
    };
    let (constraint, most) = match bound {
        Some((constraint, most)) => (Some(constraint), most),
        None => (None, params.max_new_tokens),
    };
    let mut left = tokens(tokenizer, model.context(), prompts, most)?.into_iter().enumerate();
    let sampling = sampling(params, most, tokenizer);
    let (send, told) = mpsc::channel();
    let mut answers = vec![String::new(); prompts.len()];
    let (mut batch, mut done) = (Batch::new(WIDE), 0);
    loop {
        for (at, prompt) in left.by_ref().take(WIDE - batch.len()) {
            let seed = seed(ctx.seed(), at);
            let job = job(prompt, sampling.clone(), seed, constraint.clone());
            let (send, mut written) = (send.clone(), Vec::new());
            let hear = move |told: Told| {
                written.extend(told.tokens.iter().map(|token| token.id));
                let ended = match told.error {
                    Some(error) => Err(error),
                    None if told.finish.is_some() => Ok(std::mem::take(&mut written)),
                    None => return true,
                };
                // Nobody hears it any more where another prompt failed.
                send.send((at, ended)).is_ok()
            };
            batch.add(model, job, Box::new(hear));
        }
        for (at, ended) in told.try_iter() {
            answers[at] = tokenizer.decode(&ended?)?;
            done += 1;
        }
        count.tell(ctx, done, port)?;
        if batch.is_empty() && done == prompts.len() {
            return Ok(answers);
        }
        batch.step(model);
    }
}

fn job(prompt: Vec<u32>, sampling: Sampling, seed: u64, constraint: Option<Constraint>) -> Job {
    let wanted = Wanted { sampling, stop: Vec::new(), seed, sample: 0, likeliest: None };
    Job { prompt, n: 1, wanted, constraint }
}

/// The seed of a prompt, where answers are sampled.
pub(super) fn seed(seed: u64, at: usize) -> u64 {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(at as u64);
    rng.next_u64()
}

/// Tokens of every prompt.
pub(super) fn tokens(
    tokenizer: &Tokenizer,
    limit: usize,
    prompts: &[Prompt],
    answer: usize,
) -> Result<Vec<Vec<u32>>> {
    let of = |prompt: &Prompt| {
        let tokens = tokenizer.prompt(&prompt.text)?;
        if tokens.is_empty() || tokens.len() + answer > limit {
            let message = format!(
                "a prompt has {} tokens; with {answer} for the answer it does not fit the model's context of {limit}",
                tokens.len(),
            );
            return Err(StageError::failed(message)
                .hint("shorten the prompts in `encode`, or take a model with a longer context"));
        }
        Ok(tokens)
    };
    prompts.iter().map(of).collect()
}

fn about(port: &str, config: &Config, form: Asking) -> String {
    let answers = match form {
        Asking::Free => "",
        Asking::Words => "; answers kept to the grammar, in words",
        Asking::Json => "; answers kept to the grammar, as JSON",
        Asking::Code => "; answers kept to the grammar, as codes",
        Asking::Head => "; answers of a linear classifier of its last state",
    };
    format!(
        "{port}: {}, {} parameters, {} layers of {}, vocabulary of {}, context of {}{answers}",
        config.model_type,
        count(config.parameters()),
        config.num_hidden_layers,
        count(config.hidden_size),
        count(config.vocab_size),
        count(config.max_position_embeddings)
    )
}

#[cfg(not(feature = "models"))]
fn elsewhere(_: &Context, port: &str, _: &[Prompt], _: &Params, _: Count) -> Result<Decided> {
    Err(StageError::failed(format!("`{port}` needs a build with the models"))
        .hint("run on the CPU, and merge a DoRA adapter by `quantize`; or build without `--no-default-features`"))
}

#[cfg(feature = "models")]
use burn::elsewhere;

/// By Burn, prompt by prompt.
#[cfg(feature = "models")]
mod burn {
    use super::*;
    use crate::decode::{Grammars, Vocabulary};
    use crate::device::{self, Back};
    use crate::model::{self, Loaded, constrained};

    pub fn elsewhere(
        ctx: &Context,
        port: &str,
        prompts: &[Prompt],
        params: &Params,
        count: Count,
    ) -> Result<Decided> {
        if params.form == Asking::Head {
            let message = format!("the adapter of `{port}` cannot be run beside its base");
            return Err(StageError::failed(message).hint("merge it by `quantize` first"));
        }
        let place = device::open(ctx.device())?;
        let Loaded { model, tokenizer }: Loaded<Back> = model::load(ctx, port, &place)?;
        let about = about(port, &model.config, params.form);
        let bound = match grammar(params) {
            Some((grammar, most)) => {
                let vocabulary = Vocabulary::new(&tokenizer)?;
                let grammars = Grammars::new(&vocabulary, model.config.vocab_size)?;
                Some((grammars.compile(&grammar)?, most))
            }
            None => None,
        };
        let most = bound.as_ref().map_or(params.max_new_tokens, |(_, most)| *most);
        let limit = model.config.max_position_embeddings;
        let tokens = tokens(&tokenizer, limit, prompts, most)?;
        let sampling = sampling(params, most, &tokenizer);
        let shared = shared(&tokens);
        let longest = tokens.iter().map(Vec::len).max().unwrap_or(0);
        let start = match tokens.first().and_then(|t| t.get(..shared)) {
            Some(start) if shared > 0 && bound.is_none() => {
                Some(model::Prompt::read(&model, start, longest - shared + most)?)
            }
            _ => None,
        };
        let mut answers = Vec::with_capacity(prompts.len());
        for (at, tokens) in tokens.iter().enumerate() {
            count.tell(ctx, at, port)?;
            let seed = seed(ctx.seed(), at);
            let drawn = if let Some((constraint, _)) = &bound {
                let drawn = constrained(&model, tokens, 1, &sampling, seed, constraint)?;
                drawn.into_iter().map(|one| one.sample).collect()
            } else {
                let rest = tokens.get(shared..).unwrap_or_default();
                let prompt = match &start {
                    Some(start) => start.then(&model, rest)?,
                    None => model::Prompt::read(&model, rest, most)?,
                };
                model::sample(&model, &prompt, 1, &sampling, seed)?
            };
            let written: Vec<u32> = drawn.into_iter().flat_map(|sample| sample.tokens).collect();
            answers.push(tokenizer.decode(&written)?);
        }
        Ok(Decided { answers, about })
    }

    /// How many tokens all prompts begin with, at least one left to each.
    fn shared(prompts: &[Vec<u32>]) -> usize {
        let Some(first) = prompts.first() else { return 0 };
        let with = |other: &Vec<u32>| {
            let same = first.iter().zip(other).take_while(|(a, b)| a == b).count();
            same.min(other.len().saturating_sub(1))
        };
        prompts.iter().map(with).min().unwrap_or(0)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn what_is_shared_leaves_each_prompt_a_token() {
            assert_eq!(shared(&[vec![1, 2, 3, 4], vec![1, 2, 5]]), 2);
            assert_eq!(shared(&[vec![1, 2], vec![1, 2]]), 1);
            assert_eq!(shared(&[vec![1], vec![2]]), 0);
            assert_eq!(shared(&[]), 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_decision_is_longer() {
        for form in [Form::Words, Form::Json, Form::Code] {
            for (offsets_bps, max_size) in [(vec![], 1), (vec![7, 250], 1000), (vec![5], 3)] {
                let allowed = Allowed { offsets_bps, max_size, resting: true };
                let most = longest(&allowed, form);
                let sized = |decision| match decision {
                    Decision::Market(side, _) => Decision::Market(side, max_size),
                    Decision::Limit(side, offset, _) => Decision::Limit(side, offset, max_size),
                    other => other,
                };
                let all = allowed.of_one_unit().into_iter().map(sized);
                let lengths = all.map(|decision| decision.write(form).len());
                assert_eq!(lengths.max(), Some(most), "{form:?} {allowed:?}");
            }
        }
    }

    #[test]
    fn each_prompt_has_a_seed_of_its_own() {
        assert_ne!(seed(0, 0), seed(0, 1));
        assert_ne!(seed(0, 0), seed(1, 0));
        assert_eq!(seed(3, 9), seed(3, 9));
    }
}
