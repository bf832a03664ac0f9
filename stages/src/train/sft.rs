//! Next-token prediction on a corpus: windows, cross-entropy.
//!
//! The loss is the mean over all tokens that count of all windows of a step, however many go
//! through the model at once: micro-batches of few tokens weigh no more than their tokens.

use burn::module::AutodiffModule;
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::balance::Balance;
use super::data::Windows;
use super::logps::{backward_with, numbers};
use super::losses::cross_entropy;
use super::remat;
use super::samples::{Samples, Window};
use super::steps::{Gradients, Run, Steps, Watch, note, recent};
use crate::Result;
use crate::device::{Back, Train};
use crate::model::{Frame, Kernels, Llama, Packed};

/// Where windows come from.
pub enum Source {
    /// A stream of text.
    Stream(Windows),
    /// Records.
    Records(Samples),
}

impl Source {
    /// The next window.
    pub fn draw(&mut self) -> Window {
        match self {
            Source::Stream(windows) => {
                let start = windows.next_start();
                Window::text(windows.at(start), windows.lines(start))
            }
            Source::Records(samples) => samples.draw(),
        }
    }

    /// All windows, for validation.
    pub fn all(&self) -> Vec<Window> {
        match self {
            Source::Stream(windows) => {
                windows.all().map(|tokens| Window::text(tokens, Vec::new())).collect()
            }
            Source::Records(samples) => samples.all(),
        }
    }
}

/// What the loop knows beside weights.
#[derive(Debug, Default, Serialize, Deserialize)]
struct State {
    losses: Vec<f64>,
    /// Tokens read, and those that counted.
    seen: usize,
    learned: usize,
    ended: bool,
}

/// Trains on `train` for the steps of the parameters, and validates on `valid`.
pub fn run(
    model: Llama<Train>,
    train: &mut Source,
    valid: &[Window],
    run: &mut Run,
) -> Result<Llama<Train>> {
    let params = run.params;
    let mut steps = Steps::new(run, 1);
    let mut watch = Watch::new(params, !valid.is_empty());
    let (mut model, mut done, mut state): (_, _, State) =
        run.resume(model, &mut steps, &mut watch)?;
    (0..done * params.batch).for_each(|_| drop(train.draw()));
    let mut gradients = Gradients::new();
    while done < params.steps && !state.ended {
        let step = done + 1;
        let windows: Vec<Window> = (0..params.batch).map(|_| train.draw()).collect();
        let count: usize = windows.iter().map(|window| window.at.len()).sum();
        let (mut loss, mut unbalanced) = (0.0, 0.0);
        let weight = params.router_aux_loss_coef.unwrap_or(0.0);
        let parts = windows.chunks(params.micro_batch.unwrap_or(params.batch));
        for (pass, part) in parts.enumerate() {
            run.tell(done, state.seen, note(state.losses.last().copied()))?;
            model.begin(step, pass);
            let rows = Rows::of(part);
            // Each part has a balance of its own: of the step's it is the share of its windows.
            let share = part.len() as f64 / windows.len() as f64;
            let (cost, balance) = match params.gradient_checkpointing {
                true => {
                    let (at, weight) = ((step, pass), weight * share);
                    remat::backward(&model, &rows, count, at, weight, &mut gradients)?
                }
                false => whole(&model, &rows, count, weight * share, &mut gradients)?,
            };
            loss += cost;
            unbalanced += share * balance;
            state.seen += part.iter().map(|window| window.tokens.len()).sum::<usize>();
        }
        let moved;
        let lines = || windows.iter().flat_map(|window| window.lines.clone()).collect();
        (model, moved) = steps.update(model, &mut gradients, loss, lines)?;
        state.learned += count;
        state.losses.push(loss);
        let mut line = vec![
            ("loss", loss),
            ("lr", moved.rate),
            ("grad_norm", moved.norm),
            ("tokens", state.learned as f64),
        ];
        if model.config.num_experts.is_some() {
            line.push(("router_aux_loss", unbalanced));
        }
        if watch.due(step) {
            let loss = validate(&model.valid(), valid, step, state.seen, run)?;
            line.push(("valid_loss", loss));
            state.ended = watch.note(step, loss, &model);
        }
        run.log.line(step, &line)?;
        done = step;
        run.checkpoint(done, &model, &steps, &watch, &state)?;
    }
    run.ctx.metric("train_loss", recent(&state.losses));
    run.ctx.metric("tokens", state.learned as f64);
    let model = watch.choose(model, done, run);
    if !valid.is_empty() {
        let loss = validate(&model.valid(), valid, params.steps, state.seen, run)?;
        run.ctx.metric("valid_loss", loss);
        run.ctx.metric("perplexity", loss.exp());
    }
    run.tell(params.steps, state.seen, note(state.losses.last().copied()))?;
    Ok(model)
}

/// The loss of some windows and of the balance of experts, as [`remat::backward`] gives them, with all
/// activations kept.
pub fn whole(
    model: &Llama<Train>,
    rows: &Rows,
    count: usize,
    weight: f64,
    gradients: &mut Gradients,
) -> Result<(f64, f64)> {
    let frame = rows.frame(model)?;
    let targets = Llama::targets(&frame, rows.tokens(), &rows.at)?;
    let mut routed = Vec::new();
    let hidden = model.stream(rows.tokens(), &frame, &mut routed);
    let logp = model.chosen(hidden, &rows.at, &targets, 1.0);
    let loss = cross_entropy(&numbers(&logp), count);
    let balance = Balance::of(&routed, &rows.real());
    let terms = match weight > 0.0 {
        true => routed.iter().map(|routed| balance.term(routed, weight)).collect(),
        false => Vec::new(),
    };
    backward_with(logp, &loss.grad, terms, model, gradients);
    Ok((loss.value, balance.value))
}

/// Windows as the model takes them.
pub struct Rows {
    /// Tokens, padded on the right to the longest window.
    tokens: Packed,
    /// Several records may lie in a window.
    packed: bool,
    /// Tokens of each window that pad nothing.
    lengths: Vec<usize>,
    /// Places whose next token counts, window by window.
    pub at: Vec<usize>,
}

impl Rows {
    /// Some windows.
    pub fn of(windows: &[Window]) -> Rows {
        let len = windows.iter().map(|window| window.tokens.len()).max().unwrap_or(0);
        let places = windows.iter().enumerate();
        let at = places.flat_map(|(i, window)| window.at.iter().map(move |at| i * len + at));
        let (mut tokens, mut starts) = (Vec::new(), Vec::new());
        let mut packed = false;
        for window in windows {
            packed |= !window.starts.is_empty();
            let end = window.tokens.len();
            tokens.extend(&window.tokens);
            tokens.resize(tokens.len() + len - end, 0);
            starts.extend(&window.starts);
            // What pads a window is a record of its own, of which nothing is asked.
            starts.resize(tokens.len(), end as u32);
        }
        let at = at.collect();
        let lengths = windows.iter().map(|window| window.tokens.len()).collect();
        let tokens = Packed { tokens, batch: windows.len(), starts: starts.into() };
        Rows { tokens, packed, lengths, at }
    }

    /// Whether each token, `[b, t]`, is one and no padding.
    pub fn real(&self) -> Vec<bool> {
        let len = self.tokens.tokens.len() / self.lengths.len().max(1);
        self.lengths.iter().flat_map(|&own| (0..len).map(move |at| at < own)).collect()
    }

    /// The tokens, `[b, t]`.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens.tokens
    }

    /// Where they stand.
    pub fn frame<B: Kernels>(&self, model: &Llama<B>) -> Result<Frame<B>> {
        match self.packed {
            true => model.packed_frame(&self.tokens),
            false => model.frame(&self.tokens.tokens, self.tokens.batch),
        }
    }

    /// Log-probabilities of every token that counts, window by window.
    pub fn log_probs<B: Kernels>(&self, model: &Llama<B>) -> Result<Tensor<B, 1>> {
        match self.packed {
            true => model.packed_log_probs(&self.tokens, &self.at),
            false => model.log_probs(&self.tokens.tokens, self.tokens.batch, &self.at, 1.0),
        }
    }
}

/// Mean loss per token over all windows.
fn validate(
    model: &Llama<Back>,
    windows: &[Window],
    step: usize,
    seen: usize,
    run: &Run,
) -> Result<f64> {
    let (mut sum, mut count) = (0.0, 0);
    for window in windows {
        run.tell(step, seen, "validation")?;
        let logp = numbers(&Rows::of(std::slice::from_ref(window)).log_probs(model)?);
        sum -= logp.iter().sum::<f64>();
        count += logp.len();
    }
    Ok(sum / count.max(1) as f64)
}
