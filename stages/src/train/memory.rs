//! What a training needs in memory, from the shape of the model, and whether there is that much.
//!
//! An estimate by counting, not held against measurements yet; what Burn keeps for its kernels and its
//! allocator's slack are not in it. It errs on the low side, so that nothing is refused that fits.
//! Where the size of a device cannot be found out nothing is refused.

use std::fmt;

use super::params::{Method, Params};
use crate::model::Config;
use crate::{Context, Device, Result, StageError};

/// Bytes of an f32.
const F32: usize = 4;

/// What a training needs, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// All weights.
    pub weights: usize,
    /// Gradients and moments of what is trained, and the best weights so far.
    pub optimizer: usize,
    /// What the forward pass keeps for the backward pass.
    pub activations: usize,
}

impl Need {
    /// Of `trained` weights of a model, with `rows` sequences of `len` tokens at once; `best` where
    /// the best weights are kept beside, `again` where blocks are computed again, `packed` where the
    /// base is held in 4 bits.
    pub fn of(
        config: &Config,
        trained: usize,
        [rows, len]: [usize; 2],
        [best, again, packed]: [bool; 3],
    ) -> Need {
        let (d, f) = (config.hidden_size, config.intermediate_size);
        let (heads, size) = (config.num_attention_heads, config.head_size());
        let (q, kv) = (heads * size, config.kv_heads() * size);
        // A block keeps two norms' inputs and outputs, q and k before and after they are turned, v,
        // the scores, what attention gives, gate, up and their product.
        let token = 4 * d + 3 * q + 3 * kv + heads * len + 3 * f;
        // Logits, and their gradient.
        let blocks = config.num_hidden_layers;
        let kept = if again { blocks * d + token } else { blocks * token };
        let all = rows * len * (kept + 2 * config.vocab_size);
        let linear = blocks * (2 * d * q + 2 * d * kv + 3 * d * f);
        let whole = config.parameters() * F32;
        // Four bits, and a scale for each 64; one layer at a time is unpacked.
        let held = whole - linear * F32 + linear * 9 / 16 + d * f * F32;
        Need {
            weights: if packed { held.min(whole) } else { whole },
            optimizer: trained * F32 * (3 + usize::from(best)),
            activations: all * F32,
        }
    }

    /// All of it.
    pub fn total(&self) -> usize {
        self.weights + self.optimizer + self.activations
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [all, weights, optimizer, activations] =
            [self.total(), self.weights, self.optimizer, self.activations].map(spelt);
        write!(
            f,
            "about {all} (weights {weights}, optimizer {optimizer}, activations {activations})"
        )
    }
}

fn spelt(bytes: usize) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    if mib < 1024.0 { format!("{mib:.0} MiB") } else { format!("{:.1} GiB", mib / 1024.0) }
}

/// An error where the training does not fit the device.
pub fn check(ctx: &Context, params: &Params, config: &Config, trained: usize) -> Result<()> {
    let (rows, len) = match params.method {
        Method::Sft => {
            let rows = params.micro_batch.unwrap_or(params.batch).min(params.batch);
            (rows, params.seq_len.unwrap_or(config.context()))
        }
        // A prompt runs once for all its completions; what the prompts' lengths are is not known yet.
        Method::Dpo => (1, 0),
        Method::Dapo => {
            let dapo = params.dapo.clone().unwrap_or_default();
            (dapo.group, dapo.max_tokens.min(config.context()))
        }
    };
    let need = Need::of(
        config,
        trained,
        [rows, len],
        [
            params.eval_every.is_some(),
            params.gradient_checkpointing,
            params.lora.as_ref().is_some_and(|lora| lora.qlora),
        ],
    );
    ctx.metric("memory_estimate_mib", (need.total() >> 20) as f64);
    fits(&need, room(ctx.device()), ctx.device())
}

fn fits(need: &Need, room: Option<usize>, device: Device) -> Result<()> {
    let Some(room) = room.filter(|room| need.total() > *room) else { return Ok(()) };
    let (name, room) = (device.name(), spelt(room));
    Err(StageError::failed(format!("training needs {need}, and `{name}` has {room}")).hint(
        "lower `micro_batch` or `seq_len`, train a `lora` rather than all weights, or take a smaller \
         base or a larger device",
    ))
}

/// Bytes that a device has for us, where that can be found out.
fn room(device: Device) -> Option<usize> {
    match device {
        Device::Cpu => {
            let text = std::fs::read_to_string("/proc/meminfo").ok()?;
            let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
            Some(line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()? << 10)
        }
        Device::Cuda => crate::device::cuda_memory(),
        Device::Wgpu => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_7b_model_in_full_does_not_fit_where_its_lora_does() {
        let mut config = Config::llama(152_064, 3584, 28, 28, 4, 18_944, 32_768);
        config.tie_word_embeddings = false;
        let all = config.parameters();
        assert!((7_500_000_000..7_700_000_000).contains(&all));
        let (full, lora) = (
            Need::of(&config, all, [1, 2048], [false; 3]),
            Need::of(&config, 40_000_000, [1, 2048], [false; 3]),
        );
        let again = Need::of(&config, all, [1, 2048], [true, true, false]);
        assert!(again.optimizer == 16 * all && 4 * again.activations < full.activations);
        assert_eq!(full.weights, 4 * all);
        assert!(full.optimizer == 12 * all && lora.optimizer == 480_000_000);
        let packed = Need::of(&config, 40_000_000, [1, 2048], [false, true, true]);
        assert!(packed.weights < 9 << 30, "{packed}");
        let room = Some(80 << 30);
        fits(&lora, room, Device::Cuda).unwrap();
        let e = fits(&full, room, Device::Cuda).unwrap_err();
        assert!(e.to_string().contains("`cuda` has 80.0 GiB"), "{e}");
        assert!(e.help().unwrap().contains("micro_batch"));
        fits(&full, None, Device::Wgpu).unwrap();
    }
}
