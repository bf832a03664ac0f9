//! Checkpoints: everything that a loop needs to go on as if it had never stopped.
//!
//! One file in the folder that the runner keeps for the action (`Context::resume`): the trained
//! weights, the optimizer's moments, the best weights so far, and the loop's own numbers. Random
//! streams are not in it: each is a function of seed and position, so that a loop draws again what
//! it had drawn. A checkpoint is written beside the old one, synced and renamed, so that a kill at any
//! moment leaves one of the two. A file that cannot be read is passed over with a warning.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{Tensor, TensorData};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::log::Row;
use super::optim::Optimizer;
use crate::device::Train;
use crate::model::Llama;
use crate::{Result, StageError};

const NAME: &str = "checkpoint.safetensors";
/// The tensor that holds [`Notes`] as JSON.
const NOTES: &str = "notes";

/// The numbers of a checkpoint.
#[derive(Debug, Serialize, Deserialize)]
pub struct Notes<S> {
    /// Steps done.
    pub step: usize,
    /// Updates done.
    pub updates: usize,
    /// The optimizer's time.
    pub time: i32,
    /// The log so far.
    pub rows: Vec<Row>,
    /// What the loop knows.
    pub state: S,
}

/// A checkpoint that was read.
pub struct Read<S> {
    /// Its numbers.
    pub notes: Notes<S>,
    /// The model with its weights.
    pub model: Llama<Train>,
    /// The best model so far, where there is one.
    pub best: Option<Llama<Train>>,
    /// The optimizer's moments.
    pub moments: Vec<(ParamId, [Vec<f32>; 2])>,
}

/// Writes a checkpoint into a folder, in place of the last one.
pub fn write<S: Serialize>(
    folder: &Path,
    notes: &Notes<S>,
    model: &Llama<Train>,
    best: Option<&Llama<Train>>,
    optimizer: &Optimizer<Train>,
) -> Result<()> {
    let failed = |e: &dyn std::fmt::Display| StageError::failed(format!("checkpoint: {e}"));
    let notes = serde_json::to_vec(notes).map_err(|e| failed(&e))?;
    let mut gather = Gather { optimizer, kept: Vec::new(), count: 0, out: Vec::new() };
    model.visit(&mut gather);
    let Gather { kept, mut out, .. } = gather;
    if let Some(best) = best {
        let mut copy = Copy { kept: &kept, count: 0, out: &mut out };
        best.visit(&mut copy);
    }
    let bytes = |values: &Vec<f32>| values.iter().flat_map(|x| x.to_le_bytes()).collect();
    let bytes: Vec<(&str, Vec<u8>)> =
        out.iter().map(|(name, values)| (name.as_str(), bytes(values))).collect();
    let mut views = Vec::with_capacity(bytes.len() + 1);
    for (name, bytes) in &bytes {
        let view = TensorView::new(Dtype::F32, vec![bytes.len() / 4], bytes);
        views.push((*name, view.map_err(|e| failed(&e))?));
    }
    let view = TensorView::new(Dtype::U8, vec![notes.len()], &notes);
    views.push((NOTES, view.map_err(|e| failed(&e))?));
    let file = safetensors::serialize(views, None).map_err(|e| failed(&e))?;
    let (new, path) = (folder.join("new"), folder.join(NAME));
    fs_err::write(&new, file)?;
    fs_err::File::open(&new)?.sync_all()?;
    Ok(fs_err::rename(new, path)?)
}

/// The checkpoint of a folder, put on a model that is built as it was when it was written. None
/// where there is none; an error, in words, where it cannot be used.
pub fn read<S: DeserializeOwned>(
    folder: &Path,
    model: &Llama<Train>,
) -> Result<Option<Read<S>>, String> {
    let path: PathBuf = folder.join(NAME);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e.to_string()),
    };
    let file = SafeTensors::deserialize(&bytes).map_err(|e| e.to_string())?;
    let mut values = BTreeMap::new();
    let mut notes = None;
    for (name, view) in file.tensors() {
        if name == NOTES {
            notes = serde_json::from_slice(view.data()).ok();
            continue;
        }
        let floats = view.data().chunks_exact(4);
        let floats = floats.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        values.insert(name, floats);
    }
    let notes = notes.ok_or("it has no notes")?;
    let put = |prefix, values: &mut BTreeMap<String, Vec<f32>>| {
        let mut put = Put { prefix, values, count: 0, moments: Vec::new(), wrong: false };
        let model = model.clone().map(&mut put);
        match put.wrong {
            true => Err("its weights are those of another model".to_owned()),
            false => Ok((model, put.moments)),
        }
    };
    let best = match values.keys().any(|name| name.starts_with("best.")) {
        true => Some(put("best", &mut values)?.0),
        false => None,
    };
    let (model, moments) = put("weight", &mut values)?;
    match values.is_empty() {
        true => Ok(Some(Read { notes, model, best, moments })),
        false => Err("it holds more weights than the model".into()),
    }
}

/// Collects what is trained: parameters that the optimizer has moved, by their place in the module.
struct Gather<'a> {
    optimizer: &'a Optimizer<Train>,
    kept: Vec<usize>,
    count: usize,
    out: Vec<(String, Vec<f32>)>,
}

impl ModuleVisitor<Train> for Gather<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<Train, D>>) {
        let i = self.count;
        self.count += 1;
        if let Some([m, v]) = self.optimizer.moments(param.id) {
            self.kept.push(i);
            self.out.push((format!("weight.{i}"), numbers(param)));
            self.out.push((format!("m.{i}"), m));
            self.out.push((format!("v.{i}"), v));
        }
    }
}

struct Copy<'a> {
    kept: &'a [usize],
    count: usize,
    out: &'a mut Vec<(String, Vec<f32>)>,
}

impl ModuleVisitor<Train> for Copy<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<Train, D>>) {
        if self.kept.contains(&self.count) {
            self.out.push((format!("best.{}", self.count), numbers(param)));
        }
        self.count += 1;
    }
}

fn numbers<const D: usize>(param: &Param<Tensor<Train, D>>) -> Vec<f32> {
    param.val().into_data().into_vec().unwrap_or_default()
}

struct Put<'a> {
    prefix: &'static str,
    values: &'a mut BTreeMap<String, Vec<f32>>,
    count: usize,
    moments: Vec<(ParamId, [Vec<f32>; 2])>,
    wrong: bool,
}

impl ModuleMapper<Train> for Put<'_> {
    fn map_float<const D: usize>(
        &mut self,
        param: Param<Tensor<Train, D>>,
    ) -> Param<Tensor<Train, D>> {
        let i = self.count;
        self.count += 1;
        let Some(values) = self.values.remove(&format!("{}.{i}", self.prefix)) else {
            return param;
        };
        let (id, tensor, mapper) = param.consume();
        let (shape, place) = (tensor.shape(), tensor.device());
        if values.len() != shape.num_elements() {
            self.wrong = true;
            return Param::from_mapped_value(id, tensor, mapper);
        }
        let moment = |values: &mut BTreeMap<_, _>, name| values.remove(&format!("{name}.{i}"));
        if self.prefix == "weight" {
            match (moment(self.values, "m"), moment(self.values, "v")) {
                (Some(m), Some(v)) if m.len() == values.len() && v.len() == values.len() => {
                    self.moments.push((id, [m, v]));
                }
                _ => self.wrong = true,
            }
        }
        let inner = Tensor::from_data(TensorData::new(values, shape), &place);
        Param::from_mapped_value(id, Tensor::from_inner(inner).require_grad(), mapper)
    }
}
