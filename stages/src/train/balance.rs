//! The auxiliary loss that keeps the experts of a mixture busy alike (Fedus et al., arXiv 2101.03961,
//! equations 4 to 6), as transformers' `load_balancing_loss_func` has it.
//!
//! `E sum_e f_e P_e` of `E` experts: `f_e` is how often a token of any layer goes through expert `e`, `P_e`
//! the mean probability that the routers gave it; padding has no part. Where all are busy alike it is
//! the number of experts of a token. What is counted has no gradient, so that the loss
//! is linear in the probabilities: each layer adds a term of its own, which is what lets blocks be
//! computed again one by one.

use burn::tensor::{Tensor, TensorData};

use crate::device::Train;
use crate::model::Routed;

/// How the tokens of a forward pass were spread.
pub struct Balance {
    /// The loss; 0 where no router was asked.
    pub value: f64,
    /// `[n, experts]` row by row: the derivative of the loss by each probability of a layer.
    slopes: Vec<f32>,
}

impl Balance {
    /// Of the routers of all layers. `real`, one a token: whether it is one and no padding.
    pub fn of(routed: &[Routed<Train>], real: &[bool]) -> Balance {
        let Some(experts) = routed.first().map(|routed| routed.probs.dims()[1]) else {
            return Balance { value: 0.0, slopes: Vec::new() };
        };
        let (mut asked, mut given) = (vec![0.0; experts], vec![0.0; experts]);
        for Routed { probs, chosen } in routed {
            let probs: Vec<f32> = probs.to_data().iter::<f32>().collect();
            let used = chosen.len() / real.len().max(1);
            let rows = probs.chunks_exact(experts).zip(chosen.chunks_exact(used.max(1)));
            for ((probs, chosen), _) in rows.zip(real).filter(|(_, real)| **real) {
                given.iter_mut().zip(probs).for_each(|(sum, p)| *sum += f64::from(*p));
                chosen.iter().for_each(|&expert| asked[expert] += 1.0);
            }
        }
        let tokens = (real.iter().filter(|real| **real).count() * routed.len()).max(1) as f64;
        let slope = |asked: &f64| experts as f64 * asked / (tokens * tokens);
        let slopes: Vec<f64> = asked.iter().map(slope).collect();
        let value = slopes.iter().zip(&given).map(|(slope, given)| slope * given).sum();
        let mut all = Vec::with_capacity(real.len() * experts);
        for real in real {
            all.extend(slopes.iter().map(|slope| if *real { *slope as f32 } else { 0.0 }));
        }
        Balance { value, slopes: all }
    }

    /// The part of a layer in `weight` times the loss: `[1]`.
    pub fn term(&self, routed: &Routed<Train>, weight: f64) -> Tensor<Train, 1> {
        let slopes = TensorData::new(self.slopes.clone(), routed.probs.dims());
        let slopes = Tensor::from_data(slopes, &routed.probs.device());
        (routed.probs.clone() * slopes).sum() * weight
    }
}
