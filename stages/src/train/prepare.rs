//! From files to what the loops take, and from what they return to a model folder.

use std::path::Path;

use burn::module::{AutodiffModule, Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use rayon::prelude::*;

use super::data::{self, Windows};
use super::dpo::{Pair, Pairs};
use super::log::Row;
use super::logps::Group;
use super::options::{Arch, Learn, Lora, Packing};
use super::params::{Params, Precision};
use super::records::{Body, Record};
use super::samples::{Sample as Tokens, Samples, Window};
use super::sft::Source as Windowed;
use super::template::{Part, Template};
use super::{curve, events, memory, template};
use crate::device::{Back, Place, Train, computes_bf16, is_cpu};
use crate::model::lora::{self, Spec};
use crate::model::{self, Config, Folder, Held, Llama, Normal, Source, Tokenizer, save};
use crate::{Context, Result, StageError};

/// A model about to be trained.
pub struct Start {
    /// With a fresh adapter where the parameters ask for one; only it is then trained.
    pub model: Llama<Train>,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Its chat template, where it has one.
    pub template: Option<Template>,
    end: u32,
}

/// Files of a base that belong to its tokenizer and to how it is used: a model that is made from it
/// keeps them.
const CARRIED: [&str; 4] = [
    "chat_template.jinja",
    "generation_config.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
];

impl Start {
    /// The model of port `base`, its adapter merged.
    pub fn base(ctx: &Context, params: &Params, place: &Place) -> Result<Start> {
        if params.model.is_some() {
            return Err(StageError::failed("both `base` and `model` are given")
                .hint("`model` describes a new model: remove it, or remove `base` from `from`"));
        }
        let loaded = match &params.lora {
            Some(lora) => {
                let held = Held { packed: lora.qlora, half: params.precision == Precision::Bf16 };
                model::load_held::<Train>(ctx, "base", place, held)?
            }
            None => model::load::<Train>(ctx, "base", place)?,
        };
        let template = Template::of(&Folder::of_port(ctx, "base"), &loaded.tokenizer)?;
        Start::new(loaded.model.merge(), loaded.tokenizer, template, ctx, params, place)
    }

    /// A new model, with a tokenizer trained on the corpus.
    pub fn fresh(
        ctx: &Context,
        params: &Params,
        corpus: &[Record],
        place: &Place,
    ) -> Result<Start> {
        let Some(Arch { hidden, layers, heads, kv_heads, ffn, vocab, context }) = params.model
        else {
            return Err(StageError::failed("neither `base` nor `model` is given").hint(
                "feed a model to `base`, or add `model: {}` to make a new one of the default size",
            ));
        };
        let texts: Vec<&str> = corpus.iter().flat_map(|record| record.body.texts()).collect();
        let tokenizer = Tokenizer::train(texts.into_iter(), vocab)?;
        let mut config = Config::llama(vocab, hidden, layers, heads, kv_heads, ffn, context);
        tokenizer.describe(&mut config);
        ctx.metric("parameters", config.parameters() as f64);
        let llama = Llama::build(&config, &mut Fresh(Normal::new(ctx.seed())), place)?;
        Start::new(llama, tokenizer, None, ctx, params, place)
    }

    fn new(
        model: Llama<Train>,
        tokenizer: Tokenizer,
        template: Option<Template>,
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
        if params.router_aux_loss_coef.is_some() && model.config.num_experts.is_none() {
            return Err(StageError::failed("`router_aux_loss_coef`: the model has no experts")
                .hint("remove it: it is for a mixture of experts such as Qwen3-MoE"));
        }
        let model = match &params.lora {
            Some(lora) => model.with_adapter(&spec(lora), ctx.seed())?,
            None => model,
        };
        let model = match params.precision {
            Precision::F32 => model,
            Precision::Bf16 => {
                bf16(ctx, place)?;
                model.in_bf16()
            }
        };
        let trained = trained(&model);
        ctx.metric("trained_parameters", trained as f64);
        memory::check(ctx, params, &model.config, trained)?;
        Ok(Start { model, tokenizer, template, end })
    }

    /// The model without its adapter.
    pub fn reference(&self) -> Llama<Back> {
        self.model.valid().without_adapter()
    }

    /// Tokens of a prompt; an error where it leaves no room for `answer` more.
    pub fn prompt(&self, text: &str, answer: usize, path: &Path, line: u64) -> Result<Vec<u32>> {
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

/// An error where the device does not compute in bf16, and a word where it gains nothing by it.
fn bf16(ctx: &Context, place: &Place) -> Result<()> {
    if !computes_bf16(place) {
        let message =
            format!("`precision: bf16`: `{}` does not compute in it", ctx.device().name());
        return Err(StageError::failed(message).hint("use `--device cuda`, or `precision: f32`"));
    }
    if is_cpu(place) {
        ctx.warn("`precision: bf16` on the CPU: half the memory, and slower than f32");
    }
    Ok(())
}

fn spec(lora: &Lora) -> Spec {
    let Lora { r, alpha, targets, rslora, dora, dropout, qlora: _ } = lora.clone();
    Spec { r, alpha, targets, rslora, dora, dropout }
}

/// Weights that are trained.
fn trained(model: &Llama<Train>) -> usize {
    struct Count(usize);
    impl ModuleVisitor<Train> for Count {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<Train, D>>) {
            self.0 += if param.is_require_grad() { param.shape().num_elements() } else { 0 };
        }
    }
    let mut count = Count(0);
    model.visit(&mut count);
    count.0
}

/// Windows to train on, and those held out.
pub fn windows(
    start: &Start,
    path: &Path,
    corpus: &[Record],
    params: &Params,
    ctx: &Context,
) -> Result<(Windowed, Vec<Window>)> {
    let limit = start.model.config.max_position_embeddings;
    let asked = params.seq_len.unwrap_or(limit);
    if asked > limit {
        return Err(StageError::failed(format!(
            "`seq_len` {asked} is more than the model's context of {limit}"
        ))
        .hint("lower `seq_len`, or raise `model.context`"));
    }
    let sft = params.sft.clone().unwrap_or_default();
    let text = matches!(corpus.first().map(|record| &record.body), Some(Body::Text(_)));
    let packing = sft.packing.unwrap_or(if text { Packing::Stream } else { Packing::Records });
    if packing == Packing::Stream && !text {
        return Err(StageError::failed("`sft.packing: stream` is for records of `text`")
            .hint("leave it out: completions are packed without seeing each other"));
    }
    if packing == Packing::Stream {
        return stream(start, corpus, asked, params, ctx);
    }
    let learn = sft.learn.unwrap_or(if text { Learn::All } else { Learn::Completion });
    if text && learn == Learn::Completion {
        return Err(StageError::failed("`sft.learn: completion`, but the corpus is of `text`")
            .hint("records of `prompt` and `completion`, or of `messages`, have completions"));
    }
    let all = samples(start, path, corpus, learn, asked, ctx)?;
    ctx.metric("corpus_tokens", all.iter().map(|s| s.tokens.len()).sum::<usize>() as f64);
    let mut all = all;
    let held = (all.len() as f64 * params.valid_share.unwrap_or(0.0)) as usize;
    let held = all.split_off(all.len() - held);
    let packed = packing == Packing::Records;
    let valid = match held.is_empty() {
        true => Vec::new(),
        false => Samples::new(held, asked, packed, ctx.seed()).all(),
    };
    let train = Samples::new(all, asked, packed, ctx.seed());
    ctx.metric("windows", train.windows() as f64);
    Ok((Windowed::Records(train), valid))
}

fn stream(
    start: &Start,
    corpus: &[Record],
    asked: usize,
    params: &Params,
    ctx: &Context,
) -> Result<(Windowed, Vec<Window>)> {
    let texts: Vec<&str> = corpus.iter().flat_map(|record| record.body.texts()).collect();
    let documents = start.tokenizer.encode_all(&texts)?;
    let ends = documents.iter().zip(corpus).scan(0, |end, (document, record)| {
        *end += document.len() + 1;
        Some((*end, record.line))
    });
    let ends = ends.collect();
    let stream = data::join(&documents, start.end);
    ctx.metric("corpus_tokens", stream.len() as f64);
    let (train, held) = data::hold_out(stream, params.valid_share.unwrap_or(0.0));
    if train.len() < 2 {
        return Err(StageError::failed("the corpus has fewer than two tokens"));
    }
    let valid = match held.len() {
        0 | 1 => Vec::new(),
        _ => Windowed::Stream(Windows::new(held, asked - 1, ctx.seed())).all(),
    };
    Ok((Windowed::Stream(Windows::new(train, asked - 1, ctx.seed()).on_lines(ends)), valid))
}

/// Records as tokens of at most `limit` each. What is cut off or left out is warned of.
fn samples(
    start: &Start,
    path: &Path,
    corpus: &[Record],
    learn: Learn,
    limit: usize,
    ctx: &Context,
) -> Result<Vec<Tokens>> {
    let reader =
        Reader { tokenizer: &start.tokenizer, template: start.template.as_ref(), end: start.end };
    let (mut all, mut cut, mut empty) = (Vec::new(), 0, 0);
    for (i, part) in corpus.chunks(BLOCK).enumerate() {
        ctx.progress((i * BLOCK) as u64, corpus.len() as u64, "records", "tokenizing")?;
        let read = part.par_iter().map(|record| reader.sample(record, learn, path));
        for sample in read.collect::<Vec<_>>() {
            let mut sample = sample?;
            if sample.tokens.len() > limit {
                cut += 1;
                sample.tokens.truncate(limit);
                sample.counts.truncate(limit);
            }
            match sample.counts.iter().skip(1).any(|counts| *counts) {
                true => all.push(sample),
                false => empty += 1,
            }
        }
    }
    let count = corpus.len();
    if cut > 0 {
        ctx.warn(format!("{cut} of {count} records have more than {limit} tokens and are cut off"));
    }
    if empty > 0 {
        ctx.warn(format!(
            "{empty} of {count} records have no token left to learn and are left out"
        ));
    }
    ctx.metric("records_cut", cut as f64);
    ctx.metric("records_left_out", empty as f64);
    if all.is_empty() {
        return Err(StageError::bad(
            path,
            format!("no record has a token to learn within {limit}"),
        )
        .hint("raise `seq_len`, or shorten the prompts"));
    }
    Ok(all)
}

/// Records that are tokenized between two looks at whether to stop.
const BLOCK: usize = 512;

/// What turns records into tokens.
struct Reader<'a> {
    tokenizer: &'a Tokenizer,
    template: Option<&'a Template>,
    end: u32,
}

impl Reader<'_> {
    /// A record as tokens, with its end, and which of them count.
    fn sample(&self, record: &Record, learn: Learn, path: &Path) -> Result<Tokens> {
        let part = |text: &str, said| Part { text: text.to_owned(), said };
        let all = learn == Learn::All;
        let (parts, begun) = match &record.body {
            Body::Text(text) => (vec![part(text, true)], false),
            Body::Completion { prompt, completion } => {
                (vec![part(prompt, all), part(completion, true)], false)
            }
            Body::Chat(messages) => {
                let Some(template) = self.template else {
                    return Err(StageError::failed("the model has no chat template").hint(
                        "put a chat_template.jinja into the base's folder, or write the \
                         conversations as `prompt` and `completion`",
                    ));
                };
                let parts = if all { template.whole(messages) } else { template.parts(messages) };
                let parts = parts.map_err(|e| {
                    let help = e.help().unwrap_or_default().to_owned();
                    StageError::bad(path, e.to_string()).at(record.line).hint(help)
                })?;
                (parts, true)
            }
        };
        let (mut tokens, mut counts) = (Vec::new(), Vec::new());
        if let Some(bos) = self.tokenizer.opening().filter(|_| !begun) {
            (tokens, counts) = (vec![bos], vec![false]);
        }
        for part in &parts {
            tokens.extend(self.tokenizer.encode(&part.text)?);
            counts.resize(tokens.len(), part.said);
        }
        // A template ends the assistant's last turn itself, perhaps with a line end after it.
        let ended = tokens.iter().rev().take(3).any(|token| self.tokenizer.eos().contains(token));
        if !begun || !ended {
            tokens.push(self.end);
            counts.push(true);
        }
        Ok(Tokens { tokens, counts, line: record.line })
    }
}

/// Preference pairs as tokens; the last share of them is held out.
pub fn pairs(start: &Start, path: &Path, params: &Params) -> Result<Pairs> {
    let weighted = params.dpo.as_ref().is_some_and(|dpo| dpo.reward_weighted);
    let mut pairs = Vec::new();
    for (line, pair) in data::jsonl::<data::Pair>(path)? {
        let completions = [&pair.chosen, &pair.rejected].map(|text| start.completion(text));
        let [chosen, rejected] = completions;
        let completions = vec![chosen?, rejected?];
        let longest = completions.iter().map(Vec::len).max().unwrap_or(0);
        let prompt = start.prompt(&pair.prompt, longest, path, line)?;
        let weight = match (weighted, pair.reward_chosen, pair.reward_rejected) {
            (false, ..) => 1.0,
            (true, Some(better), Some(worse)) if (better - worse).is_finite() => better - worse,
            _ => {
                let message = "`reward_chosen` and `reward_rejected` are not numbers";
                return Err(StageError::bad(path, message)
                    .at(line)
                    .hint("`dpo.reward_weighted` weighs each pair by their difference"));
            }
        };
        pairs.push(Pair { group: Group::free(prompt, completions), weight, line });
    }
    let held = (pairs.len() as f64 * params.valid_share.unwrap_or(0.0)) as usize;
    let valid = pairs.split_off(pairs.len() - held);
    Ok(Pairs { train: pairs, valid })
}

/// Writes the model folder: the model, what its base's tokenizer came with, and the course of the
/// training for TensorBoard and for people.
pub fn save(ended: &Ended, params: &Params, rows: &[Row], ctx: &Context) -> Result<()> {
    let folder = ctx.output("model")?;
    let model = ended.model.valid();
    if let Some(template) = &ended.template {
        fs_err::write(folder.join("chat_template.jinja"), template.text())?;
    }
    for name in CARRIED {
        if let Some(path) = ctx.member("base", name) {
            fs_err::write(folder.join(name), fs_err::read(path)?)?;
        }
    }
    if !folder.join("tokenizer_config.json").exists() {
        let settings = template::settings(&ended.tokenizer, model.config.max_position_embeddings)?;
        fs_err::write(folder.join("tokenizer_config.json"), settings)?;
    }
    ended.tokenizer.write(folder)?;
    save::save(&model, folder)?;
    fs_err::write(folder.join(events::NAME), events::file(rows))?;
    let svg = curve::svg(rows).map_err(|e| StageError::failed(format!("{}: {e}", curve::NAME)))?;
    fs_err::write(folder.join(curve::NAME), svg)?;
    match &params.lora {
        Some(lora) => lora::write(&model, &spec(lora), folder),
        None => Ok(()),
    }
}

/// What a training ended with.
pub struct Ended {
    /// The model.
    pub model: Llama<Train>,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Its chat template.
    pub template: Option<Template>,
}
