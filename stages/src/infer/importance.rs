//! How much each input of each matrix counts: the mean square of what it is multiplied by over a
//! text, as llama.cpp's `imatrix` has it.
//!
//! An error `e` in the weights of a row changes its output by `e x`; over a text the mean square of
//! that is `sum_c e_c^2 mean(x_c^2)` where inputs are uncorrelated. [`Engine::watch`] makes every
//! matrix keep the sums, what is read from then on counts, and [`Engine::seen`] gives the means.
//! Matrices that share their inputs share the sums. The embedding and the output matrix are not
//! watched: a row of the former is used as it is, and llama.cpp leaves the latter out, too.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::Engine;
use super::engine::Ffn;
use super::matrix::Matrix;
use crate::{Result, StageError};

/// A column that never was anything but 0 counts this share of the mean, so that a text which does
/// not happen to use it does not erase its weights.
const LEAST: f64 = 1e-4;

/// Sums of squares of the inputs of a matrix, by column, and over how many rows.
pub(super) struct Squares(Mutex<(Vec<f64>, usize)>);

impl Squares {
    fn new(columns: usize) -> Squares {
        Squares(Mutex::new((vec![0.0; columns], 0)))
    }

    /// Adds rows, in their order: the sums do not depend on threads, nor on how a text is cut.
    pub fn add(&self, rows: &[f32]) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (sums, count) = &mut *held;
        for row in rows.chunks_exact(sums.len()) {
            sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x) * f64::from(x));
            *count += 1;
        }
    }

    /// Means by column; none where no row was seen, or none that says anything.
    fn means(&self) -> Option<Vec<f32>> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (sums, count) = &*held;
        let mean = sums.iter().sum::<f64>() / sums.len() as f64;
        let usable = *count > 0 && mean > 0.0 && mean.is_finite();
        let least = mean * LEAST;
        usable.then(|| sums.iter().map(|sum| (sum.max(least) / *count as f64) as f32).collect())
    }
}

/// Where a matrix lies that is watched, and the names of all that have the same inputs.
type Watched<'a> = (&'a mut Matrix, Vec<String>);

impl Engine {
    /// Makes the matrices of the blocks keep the squares of their inputs.
    pub fn watch(&mut self) {
        for (matrix, _) in self.watched() {
            matrix.squares = Some(Box::new(Squares::new(matrix.columns)));
        }
    }

    /// The mean squares of the inputs of each matrix that was watched, by the name of its tensor
    /// (`model.layers.0.self_attn.q_proj.weight`). An expert that no token went through has none.
    pub fn seen(&mut self) -> BTreeMap<String, Vec<f32>> {
        let mut out = BTreeMap::new();
        for (matrix, names) in self.watched() {
            let Some(means) = matrix.squares.as_ref().and_then(|squares| squares.means()) else {
                continue;
            };
            out.extend(names.into_iter().map(|name| (name, means.clone())));
        }
        out
    }

    fn watched(&mut self) -> Vec<Watched<'_>> {
        let mut all: Vec<Watched> = Vec::new();
        for (i, block) in self.blocks.iter_mut().enumerate() {
            let names = |names: &[&str]| -> Vec<String> {
                names.iter().map(|name| format!("model.layers.{i}.{name}.weight")).collect()
            };
            let qkv = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"];
            all.push((&mut block.q, names(&qkv)));
            all.push((&mut block.o, names(&["self_attn.o_proj"])));
            match &mut block.ffn {
                Ffn::Dense { gate, down, .. } => {
                    all.push((gate, names(&["mlp.gate_proj", "mlp.up_proj"])));
                    all.push((down, names(&["mlp.down_proj"])));
                }
                Ffn::Experts(layer) => {
                    all.push((&mut layer.router, names(&["mlp.gate"])));
                    for (e, expert) in layer.experts.iter_mut().enumerate() {
                        let [gate, up, down] = ["gate", "up", "down"]
                            .map(|name| format!("mlp.experts.{e}.{name}_proj"));
                        all.push((&mut expert.gate, names(&[&gate, &up])));
                        all.push((&mut expert.down, names(&[&down])));
                    }
                }
            }
        }
        all
    }

    /// Reads a text for what [`Engine::watch`] keeps, in windows of `window` tokens, each afresh.
    /// Calls `each` with the tokens read so far.
    pub fn read_watched(
        &self,
        tokens: &[u32],
        window: usize,
        mut each: impl FnMut(usize) -> Result<()>,
    ) -> Result<()> {
        if self.about().gpu.is_some() {
            let message = "what matrices are multiplied by is measured on the CPU alone";
            return Err(StageError::failed(message).hint("open the model on the device `cpu`"));
        }
        let window = window.clamp(1, self.about().context.max(1));
        let mut session = self.session(window);
        for (i, window) in tokens.chunks(window).enumerate() {
            each(i * session.capacity())?;
            session.truncate(0);
            session.read(self, window)?;
        }
        Ok(())
    }
}
