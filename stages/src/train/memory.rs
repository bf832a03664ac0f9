//! What a training needs in memory, from the shape of the model, and whether there is that much.
//!
//! An estimate by counting: what Burn keeps for its kernels and an allocator's slack are not in it. It
//! errs on the low side, so that nothing is refused that fits.
//! Where the size of a device cannot be found out nothing is refused.

use std::fmt;

use super::params::{Method, Params, Precision};
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

/// How a model is to be trained.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plan {
    /// Weights that are trained: those of an adapter, or all.
    pub trained: usize,
    /// It is an adapter that is trained.
    pub adapter: bool,
    /// Sequences at once, and their tokens.
    pub rows: usize,
    pub len: usize,
    /// The best weights are kept beside.
    pub best: bool,
    /// Blocks are computed again.
    pub again: bool,
    /// The base is held in 4 bits.
    pub packed: bool,
    /// Frozen weights and activations are bf16.
    pub half: bool,
    /// What the model was is held beside it.
    pub reference: bool,
}

impl Need {
    /// Of a model of that shape.
    pub fn of(config: &Config, plan: &Plan) -> Need {
        let d = config.hidden_size;
        let (heads, size) = (config.num_attention_heads, config.head_size());
        let (q, kv) = (heads * size, config.kv_heads() * size);
        let float = if plan.half { F32 / 2 } else { F32 };
        // What the feed-forward layer keeps of a token: gate, up and their product, of experts their
        // outputs before and after they are put in order and the router's softmax; and its weights.
        let used = config.num_experts_per_tok.unwrap_or(1);
        let (inner, feed, largest) = match config.num_experts.zip(config.moe_intermediate_size) {
            Some((experts, f)) => {
                (used * (3 * f + 3 * d) + 2 * experts, experts * (3 * d * f + d), d * f.max(q))
            }
            None => {
                let f = config.intermediate_size;
                (3 * f, 3 * d * f, d * f.max(q))
            }
        };
        // A block keeps two norms' inputs and outputs, q, k and v, the softmax, what attention gives,
        // and what goes into the last layer.
        let token = 4 * d + 2 * q + 2 * kv + heads * plan.len + inner;
        let blocks = config.num_hidden_layers;
        let kept = if plan.again { blocks * d + token } else { blocks * token };
        // Logits, and their gradient, are f32 where the loss is.
        let tokens = plan.rows * plan.len;
        let activations = tokens * (kept * float + 2 * config.vocab_size * F32);
        let linear = blocks * (2 * d * q + 2 * d * kv + feed);
        let whole = config.parameters();
        let weights = match (plan.adapter, plan.packed) {
            // All are trained, in f32; what they are narrowed to stays for the backward pass.
            (false, _) => {
                let beside = usize::from(plan.reference) * whole * F32;
                beside + whole * if plan.half { F32 + float } else { F32 }
            }
            (true, false) => whole * float + plan.trained * F32,
            // Four bits, and a scale for each 64; one layer at a time is unpacked.
            (true, true) => {
                let packed = linear * 9 / 16 + largest * F32;
                (whole - linear) * float + packed + plan.trained * F32
            }
        };
        let optimizer = plan.trained * F32 * (3 + usize::from(plan.best));
        Need { weights, optimizer, activations }
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
    let plan = Plan {
        trained,
        adapter: params.lora.is_some(),
        rows,
        len,
        best: params.eval_every.is_some(),
        again: params.gradient_checkpointing,
        packed: params.lora.as_ref().is_some_and(|lora| lora.qlora),
        half: params.precision == Precision::Bf16,
        reference: params.method == Method::Dpo && params.full,
    };
    let need = Need::of(config, &plan);
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
        let all_of = Plan { trained: all, rows: 1, len: 2048, ..Plan::default() };
        let low = Plan { trained: 40_000_000, adapter: true, ..all_of };
        let (full, lora) = (Need::of(&config, &all_of), Need::of(&config, &low));
        let again = Need::of(&config, &Plan { best: true, again: true, ..all_of });
        assert!(again.optimizer == 16 * all && 4 * again.activations < full.activations);
        assert_eq!(full.weights, 4 * all);
        assert!(full.optimizer == 12 * all && lora.optimizer == 480_000_000);
        let packed = Need::of(&config, &Plan { packed: true, again: true, ..low });
        assert!(packed.weights < 9 << 30, "{packed}");
        let half = Need::of(&config, &Plan { half: true, ..low });
        assert_eq!(half.weights, 2 * all + 160_000_000);
        assert!(half.activations < 3 * lora.activations / 4 && half.optimizer == lora.optimizer);
        let room = Some(80 << 30);
        fits(&lora, room, Device::Cuda).unwrap();
        let e = fits(&full, room, Device::Cuda).unwrap_err();
        assert!(e.to_string().contains("`cuda` has 80.0 GiB"), "{e}");
        assert!(e.help().unwrap().contains("micro_batch"));
        fits(&full, None, Device::Wgpu).unwrap();
    }

    const HERE: &str = "train::memory::tests::estimates_are_near_the_peak_of_a_real_training";

    /// Opt-in: `QUANTMILL_TEST_SMOLLM2` is the folder of the model. Peaks of this process's own memory
    /// beside estimates; files that are mapped are not in it.
    #[cfg(target_os = "linux")]
    #[test]
    fn estimates_are_near_the_peak_of_a_real_training() {
        use serde_json::json;
        use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
        let Some(base) = std::env::var_os("QUANTMILL_TEST_SMOLLM2") else {
            return eprintln!("skipped: set QUANTMILL_TEST_SMOLLM2 to a folder of SmolLM2-135M");
        };
        let held = || {
            let text = fs_err::read_to_string("/proc/self/status").unwrap();
            let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
            line.trim().strip_suffix("kB").unwrap().trim().parse::<usize>().unwrap() >> 10
        };
        let dir = tempfile::tempdir().unwrap();
        let corpus = dir.path().join("corpus.jsonl");
        let line =
            |i: usize| json!({ "text": format!("spread {i} wide, ").repeat(200) }).to_string();
        fs_err::write(&corpus, (0..20).map(|i| line(i) + "\n").collect::<String>()).unwrap();
        let inputs = [("base", std::path::Path::new(&base)), ("corpus", corpus.as_path())];
        let cases = [
            ("qlora", json!({ "lora": { "qlora": true } })),
            ("lora f32", json!({ "lora": {} })),
            ("lora bf16", json!({ "lora": {}, "precision": "bf16" })),
        ];
        // Each in a process of its own: an allocator keeps what one has given back.
        let Ok(case) = std::env::var("QUANTMILL_TEST_CASE") else {
            for (name, _) in cases {
                let mut again = std::process::Command::new(std::env::current_exe().unwrap());
                again.args(["--exact", "--nocapture", HERE]).env("QUANTMILL_TEST_CASE", name);
                assert!(again.status().unwrap().success(), "{name}");
            }
            return;
        };
        for (name, more) in cases.into_iter().filter(|(name, _)| *name == case) {
            let mut params = json!({
                "method": "sft", "steps": 1, "batch": 2, "seq_len": 256, "valid_share": 0.0
            });
            params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let before = held();
            let (done, mut ran) = (AtomicBool::new(false), None);
            let peak = std::thread::scope(|scope| {
                let watch = scope.spawn(|| {
                    let mut peak = 0;
                    while !done.load(Relaxed) {
                        peak = peak.max(held());
                        std::thread::sleep(std::time::Duration::from_millis(5));
                    }
                    peak
                });
                ran = Some(crate::testing::run::<super::super::Train>(params, &inputs));
                done.store(true, Relaxed);
                watch.join().unwrap()
            });
            let estimate = ran.unwrap().unwrap().metrics["memory_estimate_mib"];
            let peak = peak.saturating_sub(before) as f64;
            eprintln!("{name}: estimate {estimate} MiB, peak {peak} MiB, before {before} MiB");
            let share = estimate / peak;
            assert!((0.75..1.25).contains(&share), "{name}: {estimate} of {peak} MiB");
        }
    }
}
