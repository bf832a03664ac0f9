//! Training: windows in, the weights with the least loss on the validation rows out.
//!
//! On the CPU the same seed gives the same bytes, whatever the number of threads: every draw is from
//! one generator, and no sum depends on who computes it.

use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use burn::optim::GradientsParams;
use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::build::Build;
use super::fitted::{Config, Fitted};
use super::kernels::{Drop, Fused, constant};
use super::loss::{Sums, loss};
use super::model::Model;
use super::settings::Net;
use super::windows::{Batch, Window, epoch, validation};
use crate::device::{Flex, Place, Train, flex, is_cpu};
use crate::forecast::series::{Forecaster, Slice};
use crate::train::optim::{AdamW, Optimizer};
use crate::train::schedule::{self, Curve};
use crate::{Result, StageError};

/// What a net is fitted on.
#[derive(Clone, Copy, Debug)]
pub struct Data<'a> {
    /// Rows to learn from.
    pub train: &'a [Slice<'a>],
    /// Rows to stop by; perhaps none.
    pub valid: &'a [Slice<'a>],
    /// What a class of a horizon counts for, down, flat and up.
    pub class_weights: &'a [[f32; 3]],
}

/// A step of training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// From 1.
    pub step: usize,
    /// From 1.
    pub epoch: usize,
    /// Of its batch.
    pub loss: f64,
    /// Of this step.
    pub learning_rate: f64,
    /// Of the gradient, before it was clipped.
    pub grad_norm: f64,
    /// The loss on the validation rows, after the last step of an epoch.
    pub valid: Option<f64>,
}

/// Fits a net. `tell` hears of every step: how many are done of how many, and a note; its error ends
/// the training. `log` hears what came out.
///
/// # Errors
/// Settings that cannot be; no row to learn from; a loss that is no longer a number.
pub fn fit(
    net: &Net,
    data: &Data,
    seed: u64,
    place: &Place,
    tell: &mut dyn FnMut(usize, usize, &str) -> Result<()>,
    log: &mut dyn FnMut(&Step),
) -> Result<Box<dyn Forecaster>> {
    match is_cpu(place) {
        true => run::<Autodiff<Flex>>(net, data, seed, &flex(), true, tell, log),
        false => run::<Train>(net, data, seed, place, false, tell, log),
    }
}

fn run<B>(
    net: &Net,
    data: &Data,
    seed: u64,
    place: &B::Device,
    on_cpu: bool,
    tell: &mut dyn FnMut(usize, usize, &str) -> Result<()>,
    log: &mut dyn FnMut(&Step),
) -> Result<Box<dyn Forecaster>>
where
    B: AutodiffBackend + Fused,
    B::InnerBackend: Fused,
{
    let config = check(net, data)?;
    keep_memory();
    let training = net.training().clone();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut model: Model<B> = Model::build(&config, &mut Build::drawn(rng.next_u64(), place))?;
    let windows = epoch(data.train, training.window, &mut rng.clone()).len();
    if windows == 0 {
        return Err(StageError::failed("there is no row to learn from")
            .hint("widen the training span, or lower the horizons"));
    }
    let all = training.epochs.saturating_mul(windows.div_ceil(training.batch));
    let total = training.steps.map_or(all, |steps| steps.min(all));
    let warmup = (training.warmup * total as f64).round() as usize;
    let settings = AdamW {
        betas: [0.9, 0.999],
        epsilon: 1e-8,
        weight_decay: training.weight_decay,
        max_norm: training.max_grad_norm,
    };
    let mut optimizer: Optimizer<B> = Optimizer::new(settings, on_cpu);
    let tests = validation(data.valid, training.window);
    let mut best: Option<(f64, Model<B::InnerBackend>)> = None;
    let (mut step, mut round, mut worse) = (0, 0, 0);
    while step < total && worse < training.patience {
        round += 1;
        let windows = epoch(data.train, training.window, &mut rng);
        let batches = windows.chunks(training.batch);
        let last = batches.len().min(total - step);
        for (i, batch) in batches.enumerate().take(last) {
            step += 1;
            let rate =
                training.learning_rate * schedule::at(Curve::Cosine, step, warmup, total.max(step));
            let (value, grads) = gradient(&model, &config, data, batch, &mut rng, place);
            if !value.is_finite() {
                let message = format!("the loss of step {step} is not a number");
                return Err(StageError::failed(message).hint("lower `learning_rate`"));
            }
            let grad_norm;
            (model, grad_norm) = optimizer.step(rate, model, grads);
            let mut valid = None;
            if i + 1 == last {
                valid = assess(&model.valid(), &config, data, &tests, place);
            }
            if let Some(valid) = valid {
                worse += 1;
                if best.as_ref().is_none_or(|(least, _)| valid < *least) {
                    (best, worse) = (Some((valid, model.valid())), 0);
                }
            }
            let learning_rate = rate;
            log(&Step { step, epoch: round, loss: value, learning_rate, grad_norm, valid });
            tell(step, total, &format!("epoch {round}, loss {value:.4}"))?;
        }
    }
    let model = best.map_or_else(|| model.valid(), |(_, model)| model);
    Ok(Box::new(Fitted { model, config, place: place.clone() }))
}

/// Makes the allocator keep what a step frees for the next one.
///
/// A step takes and frees hundreds of blocks of about a megabyte. glibc hands those back to the system each
/// time, and a third of a step goes into page faults, until a larger block has been freed once: it raises
/// both of its thresholds to that size (`mallopt(3)`, dynamic mmap threshold). Nothing is touched, and other
/// allocators do not care.
fn keep_memory() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(31 << 20)));
}

/// The settings of the fitted net.
fn check(net: &Net, data: &Data) -> Result<Config> {
    net.check().map_err(StageError::failed)?;
    let Some(first) = data.train.first() else {
        return Err(StageError::failed("there is no row to learn from"));
    };
    let (features, horizons) = (first.series.features, first.series.horizons);
    let alike = |s: &&Slice| {
        let s = s.series;
        (s.features, s.horizons, s.targets.len(), s.x.len())
            == (features, horizons, s.rows() * horizons, s.rows() * features)
    };
    if !data.train.iter().chain(data.valid).all(|slice| alike(&slice)) {
        return Err(StageError::failed("the tables have different features or horizons"));
    }
    let config =
        Config { net: net.clone(), features, horizons, class_weights: data.class_weights.to_vec() };
    config.check().map_err(StageError::failed)?;
    Ok(config)
}

/// The loss of a batch, and the gradients of the parameters.
fn gradient<B>(
    model: &Model<B>,
    config: &Config,
    data: &Data,
    windows: &[(usize, Window)],
    rng: &mut ChaCha8Rng,
    place: &B::Device,
) -> (f64, GradientsParams)
where
    B: AutodiffBackend + Fused,
{
    let training = config.net.training();
    let mut batch = Batch::default();
    for (slice, window) in windows {
        batch.learn(&data.train[*slice], window, training.window);
    }
    let rate = training.dropout;
    let mut drop = || Drop { rate, seed: rng.next_u32() };
    let [x, dt] = batch.tensors::<B>(config.features, place);
    let heads = model.forward(x, dt, training.window, &mut drop);
    let values = floats(heads.clone().inner());
    let mut slopes = vec![0.0; values.len()];
    let sums = loss(&values, &batch.targets, &config.class_weights, Some(&mut slopes));
    // The gradient of this sum is that of the loss: the slopes are constant.
    let slopes = constant::<B>(slopes, heads.dims()[1], place);
    let grads = (heads * slopes).sum().backward();
    (sums.loss().unwrap_or(f64::NAN), GradientsParams::from_grads(grads, model))
}

/// The loss on the validation rows.
fn assess<B: Fused>(
    model: &Model<B>,
    config: &Config,
    data: &Data,
    windows: &[(usize, Window)],
    place: &B::Device,
) -> Option<f64> {
    let training = config.net.training();
    let mut sums = Sums::default();
    for windows in windows.chunks(training.batch) {
        let mut batch = Batch::default();
        for (slice, window) in windows {
            batch.learn(&data.valid[*slice], window, training.window);
        }
        let [x, dt] = batch.tensors::<B>(config.features, place);
        let heads = floats(model.forward(x, dt, training.window, &mut Drop::default));
        sums.add(loss(&heads, &batch.targets, &config.class_weights, None));
    }
    sums.loss().filter(|loss| loss.is_finite())
}

/// The values of a tensor.
pub fn floats<B: Backend>(tensor: Tensor<B, 2>) -> Vec<f32> {
    tensor.into_data().into_vec().expect("models compute in f32")
}
