//! Linear layers, and the low-rank adapters on them (LoRA, Hu et al. 2021, arXiv 2106.09685).
//!
//! `y = x W + b + s (x A) B`, with `s = alpha / r` (or `alpha / sqrt r`, rsLoRA, arXiv 2312.03732).
//! The sum `W + s A B` is formed only by [`Linear::merge`]: forming it in training would cost a
//! gradient of the shape of `W`. Weights lie `[in, out]`, as Burn's do; HF and PEFT store the
//! transpose. DoRA and dropout are not implemented.

use std::path::Path;

use burn::module::{ModuleMapper, Param};
use burn::prelude::*;
use burn::tensor::TensorData;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::llama::{LINEARS, Llama};
use super::weights::{self, Folder, Named, Source, Tensors, transpose, uniform};
use crate::{Result, StageError};

/// `x W + b`, perhaps with an adapter.
#[derive(Module, Debug)]
pub struct Linear<B: Backend> {
    /// `[in, out]`.
    pub weight: Param<Tensor<B, 2>>,
    /// `[out]`.
    pub bias: Option<Param<Tensor<B, 1>>>,
    /// The adapter.
    pub adapter: Option<Adapter<B>>,
}

/// `s (x A) B`.
#[derive(Module, Debug)]
pub struct Adapter<B: Backend> {
    /// `[in, r]`.
    pub a: Param<Tensor<B, 2>>,
    /// `[r, out]`.
    pub b: Param<Tensor<B, 2>>,
    /// `s`.
    pub scale: f64,
}

impl<B: Backend> Linear<B> {
    /// `[n, in]` to `[n, out]`.
    pub fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let mut y = x.clone().matmul(self.weight.val());
        if let Some(bias) = &self.bias {
            y = y + bias.val().unsqueeze();
        }
        match &self.adapter {
            Some(adapter) => {
                let low = x.matmul(adapter.a.val()) * adapter.scale;
                y + low.matmul(adapter.b.val())
            }
            None => y,
        }
    }

    /// The same layer with its adapter added into the weight.
    pub fn merge(mut self) -> Linear<B> {
        if let Some(adapter) = self.adapter.take() {
            let sum = (adapter.a.val() * adapter.scale).matmul(adapter.b.val());
            self.weight = self.weight.map(|weight| (weight + sum).detach());
        }
        self
    }
}

/// Which layers get an adapter, and of what size.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// The rank.
    pub r: usize,
    /// Scales the product; `alpha / r` of it is added.
    pub alpha: f64,
    /// Names of linear layers, such as `q_proj`.
    pub targets: Vec<String>,
    /// Scale by `alpha / sqrt r` instead.
    pub rslora: bool,
}

impl Spec {
    /// `s`.
    pub fn scale(&self) -> f64 {
        let r = self.r as f64;
        self.alpha / if self.rslora { r.sqrt() } else { r }
    }

    /// Says what does not hold, in lower case.
    pub fn check(&self) -> std::result::Result<(), String> {
        if self.r == 0 || self.r > 4096 {
            return Err(format!("the rank is {}, not in 1..=4096", self.r));
        }
        if !(self.alpha > 0.0 && self.alpha.is_finite()) {
            return Err(format!("alpha is {}, not a positive number", self.alpha));
        }
        match self.targets.iter().find(|name| !LINEARS.contains(&name.as_str())) {
            Some(name) => Err(format!("`{name}` is none of {}", LINEARS.join(", "))),
            None if self.targets.is_empty() => Err("no layer is named".into()),
            None => Ok(()),
        }
    }

    fn covers(&self, layer: &str) -> bool {
        self.targets.iter().any(|name| layer.ends_with(name.as_str()))
    }
}

impl<B: Backend> Llama<B> {
    /// Freezes the model and adds adapters that change nothing yet: A uniform in ±1/sqrt(in)
    /// (kaiming with a = sqrt 5, as PEFT has it), B zero.
    pub fn with_adapter(self, spec: &Spec, seed: u64) -> Result<Llama<B>> {
        spec.check().map_err(StageError::failed)?;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        self.no_grad().map_linears(|name, mut layer| {
            let ([from, to], place) = (layer.weight.dims(), layer.weight.device());
            if spec.covers(name) {
                let bound = 1.0 / (from as f64).sqrt();
                let a =
                    (0..from * spec.r).map(|_| ((2.0 * uniform(&mut rng) - 1.0) * bound) as f32);
                let a = TensorData::new(a.collect::<Vec<_>>(), [from, spec.r]);
                let b = TensorData::new(vec![0.0f32; spec.r * to], [spec.r, to]);
                let (a, b) = (Param::from_data(a, &place), Param::from_data(b, &place));
                layer.adapter = Some(Adapter { a, b, scale: spec.scale() });
            }
            Ok(layer)
        })
    }

    /// The same model with the adapter off: the reference of DPO. Shares the weights.
    pub fn without_adapter(&self) -> Llama<B> {
        self.clone().map_layers(|layer| Linear { adapter: None, ..layer })
    }

    /// The same model with the adapter added into the weights, which can all be trained again.
    pub fn merge(self) -> Llama<B> {
        match self.has_adapter() {
            true => self.map_layers(Linear::merge).map(&mut Thaw),
            false => self,
        }
    }

    /// True where a layer has an adapter.
    pub fn has_adapter(&self) -> bool {
        self.linears().any(|(_, layer)| layer.adapter.is_some())
    }

    fn map_layers(self, f: impl Fn(Linear<B>) -> Linear<B>) -> Llama<B> {
        match self.map_linears(|_, layer| Ok::<_, std::convert::Infallible>(f(layer))) {
            Ok(model) => model,
            Err(never) => match never {},
        }
    }
}

/// Makes every parameter a leaf that wants a gradient.
struct Thaw;

impl<B: Backend> ModuleMapper<B> for Thaw {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        param.map(|tensor| tensor.detach().require_grad())
    }
}

/// What `adapter_config.json` says, by PEFT's names.
#[derive(Debug, Serialize, Deserialize)]
struct Peft {
    peft_type: String,
    #[serde(default)]
    task_type: Option<String>,
    r: usize,
    lora_alpha: f64,
    #[serde(default)]
    lora_dropout: f64,
    target_modules: serde_json::Value,
    #[serde(default)]
    bias: Option<String>,
    #[serde(default)]
    fan_in_fan_out: bool,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    use_dora: bool,
    #[serde(default)]
    base_model_name_or_path: Option<String>,
    #[serde(default)]
    alpha_pattern: serde_json::Map<String, serde_json::Value>,
    #[serde(default)]
    modules_to_save: Option<serde_json::Value>,
}

impl Peft {
    fn unsupported(&self) -> Option<&'static str> {
        let bias = self.bias.as_deref().is_some_and(|bias| bias != "none");
        let saved = self.modules_to_save.as_ref().is_some_and(|saved| !saved.is_null());
        [
            (self.peft_type != "LORA", "`peft_type` is not LORA"),
            (self.use_dora, "`use_dora` is not supported"),
            (self.fan_in_fan_out, "`fan_in_fan_out` is not supported"),
            (bias, "trained biases are not supported"),
            (saved, "`modules_to_save` is not supported"),
            (!self.alpha_pattern.is_empty(), "`alpha_pattern` is not supported"),
        ]
        .into_iter()
        .find_map(|(wrong, message)| wrong.then_some(message))
    }
}

fn key(layer: &str, part: &str) -> String {
    format!("base_model.model.{layer}.lora_{part}.weight")
}

/// Puts the adapter of a PEFT folder (`adapter_config.json`, `adapter_model.safetensors`) on a model.
pub fn read<B: Backend>(model: Llama<B>, folder: &Folder) -> Result<Llama<B>> {
    let path = folder.need("adapter_config.json")?;
    let peft: Peft = serde_json::from_str(&fs_err::read_to_string(path)?)
        .map_err(|e| StageError::bad(path, e.to_string()).at(e.line() as u64))?;
    if let Some(message) = peft.unsupported() {
        return Err(StageError::bad(path, message).hint("merge the adapter where it was trained"));
    }
    let weights = folder.need("adapter_model.safetensors")?;
    let mut tensors = Tensors::open(weights)?;
    let mut used = 0;
    let model = model.no_grad().map_linears(|name, mut layer| {
        let ([from, to], place) = (layer.weight.dims(), layer.weight.device());
        let rank = tensors.shape(&key(name, "A")).and_then(|shape| shape.first().copied());
        if let Some(r) = rank {
            let a = transpose(&tensors.read(&key(name, "A"), &[r, from])?, r, from);
            let b = transpose(&tensors.read(&key(name, "B"), &[to, r])?, to, r);
            let a = Param::from_data(TensorData::new(a, [from, r]), &place);
            let b = Param::from_data(TensorData::new(b, [r, to]), &place);
            let spec = Spec { r, alpha: peft.lora_alpha, targets: vec![], rslora: peft.use_rslora };
            layer.adapter = Some(Adapter { a, b, scale: spec.scale() });
            used += 2;
        }
        Ok::<_, StageError>(layer)
    })?;
    if used != tensors.names().len() {
        return Err(StageError::bad(weights, "it adapts layers that this model does not have")
            .hint("an adapter belongs to the model that it was trained on"));
    }
    Ok(model)
}

/// Writes the adapter of a model in PEFT's layout. An error where it has none.
pub fn write<B: Backend>(model: &Llama<B>, spec: &Spec, folder: &Path) -> Result<()> {
    let mut tensors = Vec::new();
    for (name, layer) in model.linears() {
        if let Some(adapter) = &layer.adapter {
            for (part, matrix) in [("A", &adapter.a), ("B", &adapter.b)] {
                tensors.push(Named::of(key(&name, part), matrix.val().transpose())?);
            }
        }
    }
    if tensors.is_empty() {
        return Err(StageError::failed("the model has no adapter to write"));
    }
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    let mut targets = spec.targets.clone();
    targets.sort();
    let peft = Peft {
        peft_type: "LORA".into(),
        task_type: Some("CAUSAL_LM".into()),
        r: spec.r,
        lora_alpha: spec.alpha,
        lora_dropout: 0.0,
        target_modules: targets.into(),
        bias: Some("none".into()),
        fan_in_fan_out: false,
        use_rslora: spec.rslora,
        use_dora: false,
        base_model_name_or_path: Some(String::new()),
        alpha_pattern: Default::default(),
        modules_to_save: None,
    };
    let mut text = serde_json::to_string_pretty(&peft)
        .map_err(|e| StageError::failed(format!("adapter_config.json: {e}")))?;
    text.push('\n');
    fs_err::write(folder.join("adapter_config.json"), text)?;
    weights::write(&folder.join("adapter_model.safetensors"), &tensors)
}
