//! A model ready to run: its files opened, its matrices laid out, its threads started.

use std::path::Path;
use std::sync::Mutex;

use super::adapter;
use super::experts::{Expert, Experts};
use super::files::Files;
use super::kernels::inputs::Inputs;
use super::matrix::Matrix;
use super::pool::{Pass, Pool};
use super::session::Session;
use super::simd::Isa;
use crate::model::gguf::Packing;
use crate::model::weights::Raw;
use crate::model::{Config, Folder, Tokenizer};
use crate::{Device, Result, StageError};

/// How to run a model.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Threads; as many as the machine has cores unless given.
    pub threads: Option<usize>,
    /// Most tokens of a session; what the model was made for unless given.
    pub context: Option<usize>,
    /// Where it computes; on the CPU unless given.
    pub device: Device,
}

/// What a model is, in a few numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct About {
    /// Weights.
    pub parameters: usize,
    /// Bytes that they take in the files.
    pub bytes: usize,
    /// How most of them are packed.
    pub packing: Packing,
    /// Most tokens of a session.
    pub context: usize,
    /// Threads that compute.
    pub threads: usize,
    /// The instruction set that computes on the CPU.
    pub instructions: &'static str,
    /// The GPU that computes instead, where one does.
    pub gpu: Option<String>,
}

/// A model.
pub struct Engine {
    pub(super) config: Config,
    pub(super) embed: Embedding,
    pub(super) blocks: Vec<Block>,
    pub(super) norm: Vec<f32>,
    pub(super) head: Matrix,
    /// Of each pair of a head.
    pub(super) frequencies: Vec<f32>,
    /// Pairs of a head lie side by side, and not half a head apart.
    pub(super) interleaved: bool,
    /// Some matrix is quantised.
    pub(super) quantized: bool,
    /// Every weight is f32: then the cache is too.
    single: bool,
    pub(super) isa: Isa,
    pub(super) pool: Pool,
    /// The model on a device; then the matrices here are none.
    #[cfg(feature = "gpu")]
    pub(super) gpu: Option<std::sync::Arc<dyn super::gpu::Gpu>>,
    pub(super) buffers: Mutex<Buffers>,
    tokenizer: Tokenizer,
    template: Option<String>,
    about: About,
}

/// Rows of the embedding, unpacked one by one from the file.
pub(super) struct Embedding(Raw);

/// Attention and what follows it.
pub(super) struct Block {
    pub input_norm: Vec<f32>,
    pub q: Matrix,
    pub k: Matrix,
    pub v: Matrix,
    pub o: Matrix,
    pub q_norm: Option<Vec<f32>>,
    pub k_norm: Option<Vec<f32>>,
    pub post_norm: Vec<f32>,
    pub ffn: Ffn,
}

/// The feed-forward layer.
// One a layer: what a box saves in memory it costs on every token.
#[allow(clippy::large_enum_variant)]
pub(super) enum Ffn {
    Dense { gate: Matrix, up: Matrix, down: Matrix },
    Experts(Experts),
}

/// Memory of a pass.
#[derive(Default)]
pub(super) struct Buffers {
    pub x: Vec<f32>,
    pub q: Vec<f32>,
    pub k: Vec<f32>,
    pub v: Vec<f32>,
    pub cos: Vec<f32>,
    pub sin: Vec<f32>,
    pub delta: Vec<f32>,
    pub gate: Vec<f32>,
    pub up: Vec<f32>,
    pub router: Vec<f32>,
    pub expert: Vec<f32>,
    pub normed: Inputs,
    pub mixed: Inputs,
    pub inner: Inputs,
    pub chosen: Inputs,
    /// The inner product of an adapter.
    pub low: Inputs,
    /// Scores of attention, for each thread.
    pub scratch: Vec<Mutex<Vec<f32>>>,
}

impl Buffers {
    /// Room for `n` rows.
    pub fn fit(&mut self, config: &Config, n: usize) {
        let (d, size) = (config.hidden_size, config.head_size());
        let ffn = config.moe_intermediate_size.unwrap_or(config.intermediate_size);
        let q = config.num_attention_heads * size;
        let grow = |values: &mut Vec<f32>, width: usize| {
            if values.len() < n * width {
                values.resize(n * width, 0.0);
            }
        };
        grow(&mut self.x, d);
        grow(&mut self.q, q);
        grow(&mut self.k, config.kv_heads() * size);
        grow(&mut self.v, config.kv_heads() * size);
        grow(&mut self.cos, size / 2);
        grow(&mut self.sin, size / 2);
        grow(&mut self.delta, d);
        grow(&mut self.gate, ffn);
        grow(&mut self.up, ffn);
        if config.num_experts.is_some() {
            grow(&mut self.expert, d);
        }
        self.mixed.fit(n, q);
    }
}

impl Embedding {
    /// Unpacks a row. The token is below the vocabulary.
    pub fn row(&self, token: usize, out: &mut [f32]) {
        let Raw { packing, bytes, .. } = &self.0;
        let size = out.len() / packing.block() * packing.bytes();
        out.copy_from_slice(&packing.unpack(&bytes[token * size..][..size]));
    }
}

impl Engine {
    /// Opens a model: a folder (`config.json`, `tokenizer.json` and weights in safetensors or GGUF,
    /// with a PEFT adapter beside them or not), or a GGUF file. Errors name the file and what is
    /// wrong with it.
    pub fn open(path: &Path, options: Options) -> Result<Engine> {
        let folder = match path.is_dir() {
            true => Folder::of_dir(path)?,
            false => Folder::of_file(path),
        };
        Engine::of_folder(&folder, options)
    }

    /// [`Engine::open`] of the files of a folder.
    pub fn of_folder(folder: &Folder, options: Options) -> Result<Engine> {
        Engine::load(folder, options, None)
    }

    /// The files of a folder, with a tokenizer of its own or the one given.
    pub(super) fn load(
        folder: &Folder,
        options: Options,
        given: Option<Tokenizer>,
    ) -> Result<Engine> {
        let found = look(options.device)?;
        let files = Files::open(folder)?;
        let config = files.config(folder)?;
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let pool = Pool::new(options.threads.unwrap_or_else(cores).clamp(1, 256));
        // The tokenizer takes as long as the weights: side by side.
        let (tokenizer, parts) = std::thread::scope(|scope| {
            let tokenizer = scope.spawn(|| match given {
                Some(tokenizer) => Ok(tokenizer),
                None => files.tokenizer(folder, &config),
            });
            let parts = build(&files, &config, &pool.pass(), found.is_some());
            (tokenizer.join(), parts)
        });
        let tokenizer =
            tokenizer.map_err(|_| StageError::failed("reading the tokenizer failed"))?;
        let (tokenizer, mut parts) = (tokenizer?, parts?);
        let interleaved = files.interleaved(&config);
        adapter::apply(folder, &config, interleaved, &mut parts.blocks)?;
        let context = options.context.unwrap_or(config.context()).min(room(&config, parts.bytes));
        #[cfg_attr(not(feature = "gpu"), allow(unused_mut))]
        let mut about = About {
            parameters: config.parameters(),
            bytes: parts.bytes,
            packing: parts.blocks.first().map_or(Packing::F32, |block| block.q.packing()),
            context: context.clamp(1, config.max_position_embeddings),
            threads: pool.threads(),
            instructions: Isa::best().name(),
            gpu: found.as_ref().map(|found| format!("{} ({})", found.name, options.device.name())),
        };
        #[cfg(feature = "gpu")]
        let gpu = match &found {
            Some(found) => {
                Some(upload(options.device, found, &config, interleaved, &mut parts, &pool)?)
            }
            None => None,
        };
        #[cfg(feature = "gpu")]
        if let Some(gpu) = &gpu {
            about.context = about.context.min(gpu.positions() / 32 * 32).max(1);
        }
        let Parts { embed, blocks, norm, head, .. } = parts;
        let quantized = head.quantized() || blocks.iter().any(Block::quantized);
        let single = !quantized
            && head.packing() == Packing::F32
            && blocks.iter().all(|block| block.q.packing() == Packing::F32);
        let half = config.head_size() / 2;
        let factors = files.rope_factors(&config)?.unwrap_or_else(|| config.rope_factors());
        let frequency = |j: usize| {
            let plain = (1.0 / config.rope_theta.powf(j as f64 / half as f64)) as f32;
            plain / factors[j]
        };
        let scratch = (0..pool.threads()).map(|_| Mutex::default()).collect();
        Ok(Engine {
            embed,
            blocks,
            norm,
            head,
            frequencies: (0..half).map(frequency).collect(),
            interleaved,
            quantized,
            single,
            isa: Isa::best(),
            pool,
            #[cfg(feature = "gpu")]
            gpu,
            buffers: Mutex::new(Buffers { scratch, ..Buffers::default() }),
            tokenizer,
            template: files.chat_template(folder)?,
            about,
            config,
        })
    }

    /// The same, with the instructions that processors without AVX-512 have: it then gives their bits.
    pub fn without_avx512(mut self) -> Engine {
        self.isa = Isa::without_avx512();
        self.about.instructions = self.isa.name();
        self
    }

    /// The shape of the model.
    pub fn config(&self) -> &Config {
        &self.config
    }
    /// Its tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }
    /// The template that makes a text of a conversation (Jinja), where the model has one.
    pub fn chat_template(&self) -> Option<&str> {
        self.template.as_deref()
    }
    /// What it is, in numbers.
    pub fn about(&self) -> &About {
        &self.about
    }
    /// An empty session with room for `capacity` tokens, and for no more than the context.
    pub fn session(&self, capacity: usize) -> Session {
        let capacity = capacity.clamp(1, self.about.context);
        #[cfg(feature = "gpu")]
        if let Some(gpu) = &self.gpu {
            return Session::on(gpu, &self.config, capacity);
        }
        Session::new(&self.config, capacity, self.single)
    }
}

/// The device, where it is not the CPU.
#[cfg(feature = "gpu")]
fn look(device: Device) -> Result<Option<crate::probe::Found>> {
    crate::probe::look(device)
}

/// The device: the CPU, or an error.
#[cfg(not(feature = "gpu"))]
fn look(device: Device) -> Result<Option<NoGpu>> {
    match device {
        Device::Cpu => Ok(None),
        other => {
            let message =
                format!("this build runs language models on the CPU and not on `{}`", other.name());
            Err(StageError::failed(message).hint("build it with the feature `gpu`"))
        }
    }
}

/// What a build without GPUs finds of them.
#[cfg(not(feature = "gpu"))]
struct NoGpu {
    name: String,
}

/// Puts the matrices on a device, and leaves none here.
#[cfg(feature = "gpu")]
fn upload(
    device: Device,
    found: &crate::probe::Found,
    config: &Config,
    interleaved: bool,
    parts: &mut Parts,
    pool: &Pool,
) -> Result<std::sync::Arc<dyn super::gpu::Gpu>> {
    let blocks = std::mem::take(&mut parts.blocks);
    let head = std::mem::replace(&mut parts.head, Matrix::of_floats(&[], 0, 0));
    let norm = &parts.norm[..];
    let weights = super::gpu::Weights { config, interleaved, blocks: &blocks, norm, head: &head };
    super::gpu::open(device, found, &weights, &pool.pass())
}

/// Tokens whose keys and values take no more than a gigabyte and sixteen times the weights: a number in
/// a small file does not decide how much memory a session takes. Models of eight billion weights in
/// four bits have 32,768 tokens in four times their own.
fn room(config: &Config, bytes: usize) -> usize {
    let heads = config.num_hidden_layers * config.kv_heads();
    let token = heads * (config.head_size() + config.head_size().next_multiple_of(16)) * 4;
    ((1 << 30) + bytes.saturating_mul(16)) / token
}

impl Block {
    fn quantized(&self) -> bool {
        let ffn = match &self.ffn {
            Ffn::Dense { gate, up, down } => [gate, up, down].iter().any(|m| m.quantized()),
            Ffn::Experts(layer) => layer
                .experts
                .iter()
                .any(|e| e.gate.quantized() || e.up.quantized() || e.down.quantized()),
        };
        ffn || [&self.q, &self.k, &self.v, &self.o].iter().any(|m| m.quantized())
    }
}

/// What [`build`] makes.
struct Parts {
    embed: Embedding,
    blocks: Vec<Block>,
    norm: Vec<f32>,
    head: Matrix,
    bytes: usize,
}

/// Reads tensors by name, and counts their bytes.
struct Reader<'a> {
    files: &'a Files,
    pass: &'a Pass<'a>,
    /// Leave matrices as they lie in the files.
    filed: bool,
    bytes: usize,
}

impl Reader<'_> {
    fn vector(&mut self, name: &str, len: usize) -> Result<Vec<f32>> {
        let raw = self.files.raw(name)?;
        self.bytes += raw.bytes.len();
        if raw.shape != [len] {
            let message = format!("tensor `{name}` is {:?}, not [{len}]", raw.shape);
            return Err(StageError::failed(message)
                .hint("config.json and the weights must be of the same model"));
        }
        Ok(raw.packing.unpack(&raw.bytes))
    }
    fn matrix(&mut self, name: &str, shape: [usize; 2]) -> Result<Matrix> {
        let raw = self.files.raw(name)?;
        self.bytes += raw.bytes.len();
        match self.filed {
            true => Matrix::filed(name, &raw, shape),
            false => Matrix::new(name, &raw, shape, self.pass),
        }
    }
    fn linear(&mut self, name: &str, from: usize, to: usize, bias: bool) -> Result<Matrix> {
        let mut matrix = self.matrix(&format!("{name}.weight"), [to, from])?;
        if bias {
            matrix.bias = Some(self.vector(&format!("{name}.bias"), to)?);
        }
        Ok(matrix)
    }
}

/// Rows of the embedding lie within the file.
fn check_table(table: &Raw, shape: [usize; 2]) -> Result<()> {
    let Raw { packing, bytes, .. } = table;
    let row = shape[1] / packing.block() * packing.bytes();
    let fits = shape[1].is_multiple_of(packing.block()) && bytes.len() == shape[0] * row;
    if table.shape != shape || !fits {
        return Err(StageError::failed(format!(
            "the embedding is {:?}, not {shape:?}",
            table.shape
        ))
        .hint("config.json and the weights must be of the same model"));
    }
    Ok(())
}

fn build(files: &Files, config: &Config, pass: &Pass, filed: bool) -> Result<Parts> {
    let (d, f, size) = (config.hidden_size, config.intermediate_size, config.head_size());
    let (q, kv) = (config.num_attention_heads * size, config.kv_heads() * size);
    let (qkv_bias, o_bias, mlp_bias) = (config.qkv_bias(), config.output_bias(), config.mlp_bias);
    let mut read = Reader { files, pass, filed, bytes: 0 };
    let table = files.raw("model.embed_tokens.weight")?;
    check_table(&table, [config.vocab_size, d])?;
    let mut blocks = Vec::new();
    for i in 0..config.num_hidden_layers {
        let at = |name: &str| format!("model.layers.{i}.{name}");
        let head_norm = |read: &mut Reader, name: &str| match config.qk_norm() {
            true => read.vector(&at(name), size).map(Some),
            false => Ok(None),
        };
        let ffn = match (config.num_experts, config.moe_intermediate_size) {
            (Some(count), Some(f)) => {
                let router = read.linear(&at("mlp.gate"), d, count, false)?;
                let mut experts = Vec::new();
                for e in 0..count {
                    let at = |name: &str| at(&format!("mlp.experts.{e}.{name}"));
                    experts.push(Expert {
                        gate: read.linear(&at("gate_proj"), d, f, false)?,
                        up: read.linear(&at("up_proj"), d, f, false)?,
                        down: read.linear(&at("down_proj"), f, d, false)?,
                    });
                }
                let used = config.num_experts_per_tok.unwrap_or(count);
                Ffn::Experts(Experts { router, experts, used, normed: config.norm_topk_prob })
            }
            _ => Ffn::Dense {
                gate: read.linear(&at("mlp.gate_proj"), d, f, mlp_bias)?,
                up: read.linear(&at("mlp.up_proj"), d, f, mlp_bias)?,
                down: read.linear(&at("mlp.down_proj"), f, d, mlp_bias)?,
            },
        };
        blocks.push(Block {
            input_norm: read.vector(&at("input_layernorm.weight"), d)?,
            q: read.linear(&at("self_attn.q_proj"), d, q, qkv_bias)?,
            k: read.linear(&at("self_attn.k_proj"), d, kv, qkv_bias)?,
            v: read.linear(&at("self_attn.v_proj"), d, kv, qkv_bias)?,
            o: read.linear(&at("self_attn.o_proj"), q, d, o_bias)?,
            q_norm: head_norm(&mut read, "self_attn.q_norm.weight")?,
            k_norm: head_norm(&mut read, "self_attn.k_norm.weight")?,
            post_norm: read.vector(&at("post_attention_layernorm.weight"), d)?,
            ffn,
        });
    }
    let norm = read.vector("model.norm.weight", d)?;
    let head = match config.tie_word_embeddings {
        true => read.matrix("model.embed_tokens.weight", [config.vocab_size, d])?,
        false => read.linear("lm_head", d, config.vocab_size, false)?,
    };
    Ok(Parts { embed: Embedding(table), blocks, norm, head, bytes: read.bytes })
}
