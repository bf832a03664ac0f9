//! The model once more, naively in f64 and without a cache: what the engine is tested against.

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::model::Config;

/// Weights by their HF names.
pub type Weights = BTreeMap<String, Vec<f32>>;

type Rows = Vec<Vec<f64>>;

thread_local! {
    /// Sums of squares of the inputs of each matrix, and over how many rows, on this thread.
    static SQUARES: RefCell<BTreeMap<String, (Vec<f64>, usize)>> = RefCell::default();
}

/// The mean squares of the inputs of each matrix over what this thread computed, by its name.
pub fn mean_squares() -> BTreeMap<String, Vec<f64>> {
    let mean = |(sums, n): (Vec<f64>, usize)| sums.iter().map(|sum| sum / n as f64).collect();
    SQUARES.take().into_iter().map(|(name, held)| (name, mean(held))).collect()
}

fn note(name: &str, x: &[Vec<f64>]) {
    SQUARES.with_borrow_mut(|all| {
        let (sums, count) = all.entry(format!("{name}.weight")).or_default();
        for x in x {
            sums.resize(x.len(), 0.0);
            sums.iter_mut().zip(x).for_each(|(sum, x)| *sum += x * x);
            *count += 1;
        }
    });
}

fn linear(w: &Weights, name: &str, x: &[Vec<f64>]) -> Rows {
    note(name, x);
    let (weight, bias) = (&w[&format!("{name}.weight")], w.get(&format!("{name}.bias")));
    let dot =
        |row: &[f32], x: &[f64]| row.iter().zip(x).map(|(w, x)| f64::from(*w) * x).sum::<f64>();
    x.iter()
        .map(|x| {
            let rows = weight.chunks_exact(x.len()).enumerate();
            rows.map(|(i, row)| dot(row, x) + bias.map_or(0.0, |b| f64::from(b[i]))).collect()
        })
        .collect()
}

fn norm(x: &[f64], weight: &[f32], eps: f64) -> Vec<f64> {
    let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
    x.iter().zip(weight).map(|(x, w)| x / (mean + eps).sqrt() * f64::from(*w)).collect()
}

/// The half-split rotation of one head at a position.
fn rotate(head: &mut [f64], position: usize, config: &Config) {
    let half = head.len() / 2;
    for (j, factor) in config.rope_factors().into_iter().enumerate() {
        let frequency = config.rope_theta.powf(-(j as f64) / half as f64) / f64::from(factor);
        let (sin, cos) = (position as f64 * frequency).sin_cos();
        let (a, b) = (head[j], head[j + half]);
        (head[j], head[j + half]) = (a * cos - b * sin, b * cos + a * sin);
    }
}

fn swiglu(w: &Weights, at: &str, x: &[Vec<f64>]) -> Rows {
    let (gate, up) =
        (linear(w, &format!("{at}.gate_proj"), x), linear(w, &format!("{at}.up_proj"), x));
    let inner: Rows = gate
        .iter()
        .zip(&up)
        .map(|(g, u)| g.iter().zip(u).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect())
        .collect();
    linear(w, &format!("{at}.down_proj"), &inner)
}

fn mixture(w: &Weights, at: &str, x: &[Vec<f64>], config: &Config) -> Rows {
    let router = linear(w, &format!("{at}.gate"), x);
    x.iter()
        .zip(router)
        .map(|(x, logits)| {
            let sum: f64 = logits.iter().map(|x| x.exp()).sum();
            let mut order: Vec<usize> = (0..logits.len()).collect();
            order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
            order.truncate(config.num_experts_per_tok.unwrap());
            let prob = |e: usize| logits[e].exp() / sum;
            let total: f64 = order.iter().map(|&e| prob(e)).sum();
            let mut out = vec![0.0; x.len()];
            for &e in &order {
                let weight = prob(e) / if config.norm_topk_prob { total } else { 1.0 };
                let y = swiglu(w, &format!("{at}.experts.{e}"), std::slice::from_ref(x));
                out.iter_mut().zip(&y[0]).for_each(|(out, y)| *out += weight * y);
            }
            out
        })
        .collect()
}

/// Logits after every token, `[tokens, vocab]`.
pub fn logits(config: &Config, w: &Weights, tokens: &[u32]) -> Vec<f64> {
    let (d, size, eps) = (config.hidden_size, config.head_size(), config.rms_norm_eps);
    let shared = config.num_attention_heads / config.kv_heads();
    let table = &w["model.embed_tokens.weight"];
    let embed =
        |&token: &u32| table[token as usize * d..][..d].iter().map(|x| f64::from(*x)).collect();
    let mut x: Rows = tokens.iter().map(embed).collect();
    let add = |x: &mut Rows, y: Rows| {
        let pairs = x.iter_mut().zip(y);
        pairs.for_each(|(x, y)| x.iter_mut().zip(y).for_each(|(x, y)| *x += y));
    };
    for i in 0..config.num_hidden_layers {
        let at = |name: &str| format!("model.layers.{i}.{name}");
        let normed = |x: &Rows, name: &str| -> Rows {
            x.iter().map(|x| norm(x, &w[&at(&format!("{name}.weight"))], eps)).collect()
        };
        let h = normed(&x, "input_layernorm");
        let heads = |name: &str, normed: &str| -> Rows {
            let mut rows = linear(w, &at(&format!("self_attn.{name}")), &h);
            for (t, row) in rows.iter_mut().enumerate() {
                for head in row.chunks_exact_mut(size) {
                    if let Some(weight) = w.get(&at(&format!("self_attn.{normed}.weight"))) {
                        head.copy_from_slice(&norm(head, weight, eps));
                    }
                    if !normed.is_empty() {
                        rotate(head, t, config);
                    }
                }
            }
            rows
        };
        let (q, k, v) = (heads("q_proj", "q_norm"), heads("k_proj", "k_norm"), heads("v_proj", ""));
        let mixed: Rows = (0..tokens.len())
            .map(|t| {
                let mut out = Vec::new();
                for head in 0..config.num_attention_heads {
                    let (own, kv) = (head * size..(head + 1) * size, head / shared * size);
                    let score = |p: usize| -> f64 {
                        let keys = &k[p][kv..kv + size];
                        let dot: f64 = q[t][own.clone()].iter().zip(keys).map(|(a, b)| a * b).sum();
                        (dot / (size as f64).sqrt()).exp()
                    };
                    let scores: Vec<f64> = (0..=t).map(score).collect();
                    let sum: f64 = scores.iter().sum();
                    out.extend((0..size).map(|d| {
                        scores.iter().enumerate().map(|(p, s)| s / sum * v[p][kv + d]).sum::<f64>()
                    }));
                }
                out
            })
            .collect();
        add(&mut x, linear(w, &at("self_attn.o_proj"), &mixed));
        let h = normed(&x, "post_attention_layernorm");
        let y = match config.num_experts {
            Some(_) => mixture(w, &at("mlp"), &h, config),
            None => swiglu(w, &at("mlp"), &h),
        };
        add(&mut x, y);
    }
    let x: Rows = x.iter().map(|x| norm(x, &w["model.norm.weight"], eps)).collect();
    let head = if config.tie_word_embeddings { "model.embed_tokens" } else { "lm_head" };
    linear(w, head, &x).concat()
}
