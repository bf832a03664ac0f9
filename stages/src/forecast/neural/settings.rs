//! What a net is made of and how it is trained, as the pipeline says it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A net.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Net {
    /// A state-space layer and attention, coupled layer by layer.
    Hybrid(Hybrid),
    /// A long short-term memory (Hochreiter and Schmidhuber 1997).
    Lstm(Lstm),
    /// A Transformer with ALiBi, RMSNorm and SwiGLU.
    Transformer(Transformer),
}

/// The hybrid of a Transformer and a state-space model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Hybrid {
    /// Layers, each of both.
    #[schemars(range(min = 1, max = 32))]
    pub layers: usize,
    /// Channels of the state-space layer.
    #[schemars(range(min = 1, max = 1024))]
    pub state: usize,
    /// Width of the stream that attention writes to; a multiple of `heads`.
    #[schemars(range(min = 1, max = 2048))]
    pub memory: usize,
    /// Heads of attention.
    #[schemars(range(min = 1, max = 64))]
    pub heads: usize,
    /// The state is filtered: its gain follows from the uncertainty it carries, which the scale of a
    /// forecast is told.
    pub kalman: bool,
    /// What is left out, to measure what it is worth.
    pub ablation: Ablation,
    /// How it is trained.
    pub training: Training,
}

/// Parts of the hybrid that are left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ablation {
    /// None: the whole model.
    #[default]
    None,
    /// Decay and gate of the state are the same at all rows.
    NoMemoryToState,
    /// Attention and feed-forward layers know nothing of the state; only the heads do.
    NoStateToMemory,
    /// The state-space layers alone.
    StateOnly,
    /// Attention alone.
    MemoryOnly,
}

/// A long short-term memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Lstm {
    /// Layers.
    #[schemars(range(min = 1, max = 32))]
    pub layers: usize,
    /// Units of a layer.
    #[schemars(range(min = 1, max = 1024))]
    pub hidden: usize,
    /// How it is trained.
    pub training: Training,
}

/// A Transformer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Transformer {
    /// Layers.
    #[schemars(range(min = 1, max = 32))]
    pub layers: usize,
    /// Width of the stream; a multiple of `heads`.
    #[schemars(range(min = 1, max = 2048))]
    pub hidden: usize,
    /// Heads of attention.
    #[schemars(range(min = 1, max = 64))]
    pub heads: usize,
    /// How it is trained.
    pub training: Training,
}

/// How a net is trained: AdamW on windows of rows, with a warm-up and half a cosine, for as long as the
/// loss of the validation rows falls.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Training {
    /// Rows of a window. A forecast rests on between half of it and all of it.
    #[schemars(range(min = 2, max = 4096))]
    pub window: usize,
    /// Passes over the training rows.
    #[schemars(range(min = 1, max = 100000))]
    pub epochs: usize,
    /// At most so many steps, where `epochs` would be more.
    pub steps: Option<usize>,
    /// Windows of a step.
    #[schemars(range(min = 1, max = 65536))]
    pub batch: usize,
    /// The peak learning rate.
    pub learning_rate: f64,
    /// Share of the steps over which the learning rate rises.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub warmup: f64,
    /// Decoupled decay of matrices.
    pub weight_decay: f64,
    /// Largest norm of the gradient; 0 is no bound.
    pub max_grad_norm: f64,
    /// Share of numbers that a training step leaves out before they are added to a stream.
    #[schemars(range(min = 0.0, max = 0.9))]
    pub dropout: f32,
    /// Epochs without a lower loss on the validation rows after which training ends; the best weights
    /// are kept. Without validation rows it goes to its end, and the last weights are.
    #[schemars(range(min = 1))]
    pub patience: usize,
}

impl Default for Hybrid {
    fn default() -> Hybrid {
        Hybrid {
            layers: 2,
            state: 32,
            memory: 64,
            heads: 4,
            kalman: false,
            ablation: Ablation::None,
            training: Training::default(),
        }
    }
}

impl Default for Lstm {
    fn default() -> Lstm {
        Lstm { layers: 2, hidden: 96, training: Training::default() }
    }
}

impl Default for Transformer {
    fn default() -> Transformer {
        Transformer { layers: 2, hidden: 64, heads: 4, training: Training::default() }
    }
}

impl Default for Training {
    fn default() -> Training {
        Training {
            window: 64,
            epochs: 30,
            steps: None,
            batch: 64,
            learning_rate: 1e-3,
            warmup: 0.05,
            weight_decay: 0.01,
            max_grad_norm: 1.0,
            dropout: 0.1,
            patience: 5,
        }
    }
}

impl Net {
    /// How it is trained.
    pub fn training(&self) -> &Training {
        match self {
            Net::Hybrid(net) => &net.training,
            Net::Lstm(net) => &net.training,
            Net::Transformer(net) => &net.training,
        }
    }

    /// Its name in the pipeline file.
    pub fn name(&self) -> &'static str {
        match self {
            Net::Hybrid(_) => "hybrid",
            Net::Lstm(_) => "lstm",
            Net::Transformer(_) => "transformer",
        }
    }

    /// Says what does not hold, in lower case.
    pub fn check(&self) -> std::result::Result<(), String> {
        let (layers, widths, heads) = match self {
            Net::Hybrid(net) => {
                let widths = vec![("state", net.state, 1024), ("memory", net.memory, 2048)];
                (net.layers, widths, Some((net.memory, net.heads)))
            }
            Net::Lstm(net) => (net.layers, vec![("hidden", net.hidden, 1024)], None),
            Net::Transformer(net) => {
                (net.layers, vec![("hidden", net.hidden, 2048)], Some((net.hidden, net.heads)))
            }
        };
        let t = self.training();
        let mut limits = widths;
        limits.extend([
            ("layers", layers, 32),
            ("window", t.window, 4096),
            ("epochs", t.epochs, 100_000),
            ("batch", t.batch, 65_536),
            ("patience", t.patience, usize::MAX),
            ("steps", t.steps.unwrap_or(1), usize::MAX),
        ]);
        for (name, value, most) in limits {
            if value == 0 || value > most {
                return Err(format!("`{name}` is {value}, not in 1..={most}"));
            }
        }
        if t.window < 2 {
            return Err("`window` is 1, not in 2..=4096".into());
        }
        if let Some((width, heads)) = heads
            && (heads == 0 || heads > 64 || width % heads != 0)
        {
            return Err(format!("a width of {width} does not divide into {heads} heads"));
        }
        let numbers = [
            ("learning_rate", t.learning_rate, 0.0..=10.0),
            ("warmup", t.warmup, 0.0..=1.0),
            ("weight_decay", t.weight_decay, 0.0..=10.0),
            ("max_grad_norm", t.max_grad_norm, 0.0..=f64::MAX),
            ("dropout", f64::from(t.dropout), 0.0..=0.9),
        ];
        for (name, value, range) in numbers {
            if !range.contains(&value) {
                return Err(format!("`{name}` is {value}, not in {range:?}"));
            }
        }
        Ok(())
    }
}
