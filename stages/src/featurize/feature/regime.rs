//! Volatility regimes: a hidden Markov model of two or three states with Gaussian returns
//! (Hamilton 1989).
//!
//! Fitted by EM on the training span alone, then only ever run forwards: [`Filter`] gives
//! P(state | returns so far). Smoothed probabilities are not offered, since they use the future;
//! their argmax differs from the filtered one on some 9 % of days, which is look-ahead that a
//! backtest would be paid for.
//!
//! EM finds local maxima, some of them a state that holds a few outliers. Hence several seeded
//! starts, a sticky Dirichlet prior on the diagonal of the transition matrix, and the rejection of
//! any solution with a state that is left more often than not. Two states are found in any series;
//! the ratio of their variances and the stays say whether they mean anything.

use std::collections::VecDeque;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::parts::Previous;
use super::{Entry, Feature, Learner, Need, Settings, Shape, read};
use crate::featurize::fit::short;
use crate::market::Sample;
use crate::{Invalid, Result, StageError};

/// States at most.
pub const MOST: usize = 3;

/// Training returns that are kept: the last so many.
pub const KEPT: usize = 262_144;

/// Returns on which starts are tried: the last so many. The best of a longer series goes on from
/// there on all of it.
const TRIED: usize = 32_768;

/// A number for each state; those past the model's are zero.
type States = [f64; MOST];

/// How the regime model is fitted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Regime {
    /// States: 2 or 3.
    pub states: usize,
    /// Returns are over so many samples, one after the other; between, the last probability stands.
    /// Over a tick of a fast clock most prices do not move, and the model would find just that.
    pub every: usize,
    /// Starts of EM; the best accepted one is kept.
    pub restarts: usize,
    /// Pseudo-observations of staying in a state, added for each state.
    pub stickiness: f64,
    /// A solution is rejected where a state's probability of staying is below this.
    pub min_stay: f64,
    /// Steps of EM at most.
    pub max_steps: usize,
    /// Seed of the starts.
    pub seed: u64,
}

impl Default for Regime {
    fn default() -> Regime {
        Regime {
            states: 2,
            every: 1,
            restarts: 8,
            stickiness: 10.0,
            min_stay: 0.5,
            max_steps: 500,
            seed: 0,
        }
    }
}

impl Settings for Regime {
    fn check(&self) -> Result<(), Invalid> {
        if !(2..=MOST).contains(&self.states) {
            return Err(Invalid::new("states", "must be 2 or 3"));
        }
        if !(1..=1_000_000).contains(&self.every) {
            return Err(Invalid::new("every", "must lie between 1 and 1000000"));
        }
        if !(1..=1000).contains(&self.restarts) {
            return Err(Invalid::new("restarts", "must lie between 1 and 1000"));
        }
        if self.max_steps == 0 {
            return Err(Invalid::new("max_steps", "must be above 0"));
        }
        if !(self.stickiness >= 0.0 && self.stickiness.is_finite()) {
            return Err(Invalid::new("stickiness", "must be 0 or more"));
        }
        if !(0.0..1.0).contains(&self.min_stay) {
            return Err(Invalid::new("min_stay", "must be at least 0 and below 1"));
        }
        Ok(())
    }
}

/// The probability of the most volatile state.
pub const HIGH_VOL: Entry = Entry {
    name: "p_high_vol",
    aliases: &["regime"],
    suffix: None,
    formula: "P(state of the highest variance | returns so far), of a hidden Markov model of \
              Gaussian returns 100 r with `states` states, fitted on the training span",
    unit: "0 to 1",
    source: "Hamilton 1989",
    needs: &[Need::Bars],
    prefers: &[],
    params: Shape::of::<Regime>(),
    make: |params, making| {
        let (how, fit): (Regime, Fitted) = (read(params)?, making.fitted()?);
        let filter = Filter::new(&fit.hmm).ok_or_else(|| Invalid::new("", "its fit is damaged"))?;
        Ok(Box::new(HighVol { returns: Returns::every(how.every), filter, now: None }))
    },
    fit: Some(|params, _| {
        let how: Regime = read(params)?;
        let changes = Returns::every(how.every);
        Ok(Box::new(Gathering { how, changes, returns: VecDeque::new() }))
    }),
};

/// Returns in percent over `every` samples each, one after the other.
struct Returns {
    every: usize,
    seen: usize,
    previous: Previous,
}

impl Returns {
    fn every(every: usize) -> Returns {
        Returns { every, seen: 0, previous: Previous::default() }
    }
    fn push(&mut self, sample: &Sample) -> Option<f64> {
        self.seen += 1;
        if !(self.seen - 1).is_multiple_of(self.every) {
            return None;
        }
        self.previous.log_return(sample.close).map(|change| 100.0 * change)
    }
}

struct HighVol {
    returns: Returns,
    filter: Filter,
    now: Option<f64>,
}

impl Feature for HighVol {
    fn push(&mut self, sample: &Sample) -> Option<f64> {
        if let Some(change) = self.returns.push(sample) {
            self.now = self.filter.push(change).last().copied();
        }
        self.now
    }
}

struct Gathering {
    how: Regime,
    changes: Returns,
    returns: VecDeque<f64>,
}

impl Learner for Gathering {
    fn push(&mut self, sample: &Sample) {
        let Some(change) = self.changes.push(sample) else { return };
        if self.returns.len() == KEPT {
            self.returns.pop_front();
        }
        self.returns.push_back(change);
    }

    fn finish(self: Box<Self>, tick: &mut dyn FnMut(u64, u64) -> Result<()>) -> Result<Value> {
        let returns: Vec<f64> = self.returns.into();
        let restarts = self.how.restarts as u64;
        let fitted = fit(&returns, &self.how, |restart| tick(restart as u64, restarts))?;
        let fitted = fitted.ok_or_else(|| {
            let (n, k) = (returns.len(), self.how.states);
            StageError::failed(format!(
                "the regime model found no {k} lasting states in {n} training returns ({restarts} starts)"
            ))
            .hint("raise its `stickiness` or `restarts`, take fewer `states`, or train on a longer span")
        })?;
        Ok(serde_json::to_value(fitted).map_err(std::io::Error::from)?)
    }
}

/// The model; states in order of their variance, the calmest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hmm {
    /// Probability of each state before the first return; fitted models start at their
    /// stationary distribution.
    pub start: Vec<f64>,
    /// `transition[i][j]`: probability of going from state i to state j.
    pub transition: Vec<Vec<f64>>,
    /// Mean return of each state, percent a sample.
    pub mean: Vec<f64>,
    /// Variance of each state, percent squared a sample.
    pub variance: Vec<f64>,
}

/// A fitted model and how it came about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fitted {
    /// The model.
    #[serde(flatten)]
    pub hmm: Hmm,
    /// Log-likelihood of the training returns.
    pub log_likelihood: f64,
    /// Training returns.
    pub returns: usize,
    /// Starts that ended in an accepted solution.
    pub accepted: usize,
    /// Starts in all.
    pub restarts: usize,
}

/// Fits regimes to returns in percent. `None` where no start ended in persistent states. `tick`
/// hears the number of the start at each step of EM.
///
/// # Errors
/// What `tick` says to stop.
pub fn fit(
    returns: &[f64],
    how: &Regime,
    tick: impl FnMut(usize) -> Result<()>,
) -> Result<Option<Fitted>> {
    fit_from(returns, how, TRIED, tick)
}

/// [`fit`], with starts tried on the last `tried` returns.
pub(super) fn fit_from(
    returns: &[f64],
    how: &Regime,
    tried: usize,
    mut tick: impl FnMut(usize) -> Result<()>,
) -> Result<Option<Fitted>> {
    let n = returns.len() as f64;
    let mean = returns.iter().sum::<f64>() / n;
    let variance = returns.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
    if returns.len() < 20 || variance <= 0.0 {
        return Ok(None);
    }
    let mut rng = ChaCha8Rng::seed_from_u64(how.seed);
    let tail = &returns[returns.len().saturating_sub(tried)..];
    let mut best: Option<Found> = None;
    let mut accepted = 0;
    for restart in 0..how.restarts {
        let start = guess(how.states, restart == 0, mean, variance, &mut rng);
        let found = maximise(start, tail, variance, how, || tick(restart))?;
        let Some(found) = found else { continue };
        accepted += 1;
        if best.as_ref().is_none_or(|kept| found.objective > kept.objective) {
            best = Some(found);
        }
    }
    if let Some(found) = best.take_if(|_| tail.len() < returns.len()) {
        best = maximise(found.model, returns, variance, how, || tick(how.restarts))?;
    }
    Ok(best.map(|found| Fitted {
        hmm: found.model.shortened(),
        log_likelihood: short(found.log_likelihood),
        returns: returns.len(),
        accepted,
        restarts: how.restarts,
    }))
}

/// A start: the plain guess, or one drawn around it.
fn guess(k: usize, plain: bool, mean: f64, variance: f64, rng: &mut ChaCha8Rng) -> Model {
    let mut draw = |low: f64, high: f64, usual: f64| {
        if plain { usual } else { low + (high - low) * rng.random::<f64>() }
    };
    let deviation = variance.sqrt();
    let mut model = Model { k, ..Model::default() };
    let stays: &[f64] = if k == 2 { &[0.95, 0.9] } else { &[0.95, 0.93, 0.9] };
    for (i, usual) in stays.iter().enumerate() {
        let stay = draw(0.6, 0.99, *usual);
        for j in 0..k {
            let leave = (1.0 - stay) / (k - 1) as f64;
            model.transition[i][j] = if i == j { stay } else { leave };
        }
    }
    for i in 0..k {
        model.start[i] = 1.0 / k as f64;
        model.mean[i] = mean + deviation * draw(-0.5, 0.5, 0.0);
    }
    let spreads: &[(f64, f64, f64)] = match k {
        2 => &[(0.1, 0.9, 0.4), (1.2, 5.0, 2.5)],
        _ => &[(0.1, 0.6, 0.3), (0.6, 1.4, 0.9), (1.4, 5.0, 2.5)],
    };
    for (i, &(low, high, usual)) in spreads.iter().enumerate() {
        model.variance[i] = variance * draw(low, high, usual);
    }
    model
}

/// What one start of EM came to.
struct Found {
    model: Model,
    /// Logarithm of the posterior, which ranks starts.
    objective: f64,
    log_likelihood: f64,
}

/// EM from one start; `None` where it is rejected.
fn maximise(
    start: Model,
    x: &[f64],
    variance: f64,
    how: &Regime,
    mut tick: impl FnMut() -> Result<()>,
) -> Result<Option<Found>> {
    let mut model = start;
    let mut objective = f64::NEG_INFINITY;
    let mut log_likelihood = f64::NEG_INFINITY;
    let mut buffers = (Vec::with_capacity(x.len()), Vec::with_capacity(x.len()));
    for _ in 0..how.max_steps {
        tick()?;
        let (next, ll) = step(&model, x, variance * 1e-4, how.stickiness, &mut buffers);
        let stays = (0..model.k).map(|i| how.stickiness * model.transition[i][i].ln());
        let reached = ll + stays.sum::<f64>();
        if !reached.is_finite() {
            return Ok(None);
        }
        log_likelihood = ll;
        let gained = reached - objective;
        objective = reached;
        // The model that `ll` is of is kept, not the one a step further on.
        if gained < 1e-9 * (ll.abs() + 1.0) {
            break;
        }
        model = next;
    }
    let model = model.by_variance();
    let stays = (0..model.k).all(|i| model.transition[i][i] >= how.min_stay);
    Ok(stays.then_some(Found { model, objective, log_likelihood }))
}

/// One step of EM: the next model, and the log-likelihood of this one.
fn step(
    model: &Model,
    x: &[f64],
    floor: f64,
    stickiness: f64,
    (forward, scales): &mut (Vec<States>, Vec<f64>),
) -> (Model, f64) {
    let k = model.k;
    forward.clear();
    scales.clear();
    let mut filter = Filter { ahead: model.start, model: *model, now: model.start };
    let mut ll = 0.0;
    for &r in x {
        let (probability, log_density) = filter.advance(r);
        ll += log_density;
        forward.push(probability);
        scales.push(log_density);
    }
    // Backwards, with the posterior gathered on the way: it takes the place of `forward`.
    let mut beta = [1.0; MOST];
    let (mut weight, mut sum) = ([0.0; MOST], [0.0; MOST]);
    let mut moves = [[0.0; MOST]; MOST];
    for t in (0..x.len()).rev() {
        let mut gamma: States = std::array::from_fn(|i| forward[t][i] * beta[i]);
        let total: f64 = gamma[..k].iter().sum();
        gamma.iter_mut().for_each(|g| *g /= total);
        forward[t] = gamma;
        for i in 0..k {
            weight[i] += gamma[i];
            sum[i] += gamma[i] * x[t];
        }
        if t == 0 {
            break;
        }
        let mut before = [0.0; MOST];
        let density: States = std::array::from_fn(|i| match i < k {
            true => (model.log_density(i, x[t]) - scales[t]).exp(),
            false => 0.0,
        });
        for i in 0..k {
            for j in 0..k {
                let through = model.transition[i][j] * density[j] * beta[j];
                before[i] += through;
                moves[i][j] += forward[t - 1][i] * through / total;
            }
        }
        beta = before;
    }
    let mut next = *model;
    let mut spread = [0.0; MOST];
    for i in 0..k {
        next.mean[i] = sum[i] / weight[i].max(f64::MIN_POSITIVE);
    }
    for (gamma, &r) in forward.iter().zip(x) {
        for i in 0..k {
            spread[i] += gamma[i] * (r - next.mean[i]).powi(2);
        }
    }
    for i in 0..k {
        next.variance[i] = (spread[i] / weight[i].max(f64::MIN_POSITIVE)).max(floor);
        let out = moves[i][..k].iter().sum::<f64>() + stickiness;
        next.transition[i][i] = (moves[i][i] + stickiness) / out;
        // The last takes what is left, so that a row sums to one.
        let mut left = 1.0 - next.transition[i][i];
        let mut others = (0..k).filter(|&j| j != i).peekable();
        while let Some(j) = others.next() {
            let share = if others.peek().is_some() { moves[i][j] / out } else { left };
            next.transition[i][j] = share.max(0.0);
            left -= share;
        }
    }
    next.start = next.stationary();
    (next, ll)
}

/// [`Hmm`] with room for the most states: no allocation in a step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Model {
    k: usize,
    start: States,
    transition: [States; MOST],
    mean: States,
    variance: States,
}

impl Model {
    fn new(hmm: &Hmm) -> Option<Model> {
        let k = hmm.start.len();
        let rows = hmm.transition.iter().chain([&hmm.mean, &hmm.variance]);
        let whole = (2..=MOST).contains(&k)
            && hmm.transition.len() == k
            && rows.clone().all(|row| row.len() == k)
            && rows.chain([&hmm.start]).flatten().all(|x| x.is_finite())
            && hmm.variance.iter().all(|&v| v > 0.0);
        if !whole {
            return None;
        }
        let fill = |from: &[f64]| -> States {
            std::array::from_fn(|i| from.get(i).copied().unwrap_or_default())
        };
        let transition =
            std::array::from_fn(|i| hmm.transition.get(i).map(|row| fill(row)).unwrap_or_default());
        let (mean, variance) = (fill(&hmm.mean), fill(&hmm.variance));
        Some(Model { k, start: fill(&hmm.start), transition, mean, variance })
    }

    fn shortened(&self) -> Hmm {
        let list = |from: &States| from[..self.k].iter().copied().map(short).collect();
        Hmm {
            start: list(&self.start),
            transition: self.transition[..self.k].iter().map(list).collect(),
            mean: list(&self.mean),
            variance: list(&self.variance),
        }
    }

    /// The share of time in each state in the long run: by the trees that lead to it (the Markov
    /// chain tree theorem), which takes nothing away from anything.
    fn stationary(&self) -> States {
        let a = &self.transition;
        let tree = |i: usize| match self.k {
            2 => a[1 - i][i],
            _ => {
                let (j, l) = ((i + 1) % 3, (i + 2) % 3);
                a[j][i] * a[l][i] + a[j][i] * a[l][j] + a[j][l] * a[l][i]
            }
        };
        let trees: States = std::array::from_fn(|i| if i < self.k { tree(i) } else { 0.0 });
        let total: f64 = trees[..self.k].iter().sum();
        std::array::from_fn(|i| match total > 0.0 {
            true => trees[i] / total,
            false => f64::from(u8::from(i < self.k)) / self.k as f64,
        })
    }

    /// With the calmest state first.
    fn by_variance(&self) -> Model {
        let mut order: Vec<usize> = (0..self.k).collect();
        order.sort_by(|&i, &j| self.variance[i].total_cmp(&self.variance[j]));
        let mut sorted = *self;
        for (to, &from) in order.iter().enumerate() {
            sorted.start[to] = self.start[from];
            sorted.mean[to] = self.mean[from];
            sorted.variance[to] = self.variance[from];
            for (other, &j) in order.iter().enumerate() {
                sorted.transition[to][other] = self.transition[from][j];
            }
        }
        sorted
    }

    fn log_density(&self, state: usize, x: f64) -> f64 {
        let v = self.variance[state];
        -0.5 * ((std::f64::consts::TAU * v).ln() + (x - self.mean[state]).powi(2) / v)
    }
}

/// The probability of each state given the returns so far.
#[derive(Clone, Copy, Debug)]
pub struct Filter {
    model: Model,
    ahead: States,
    now: States,
}

impl Filter {
    /// Before the first return; `None` where the model is none of two or three states.
    pub fn new(hmm: &Hmm) -> Option<Filter> {
        let model = Model::new(hmm)?;
        Some(Filter { ahead: model.start, model, now: model.start })
    }

    /// Takes the next return, in percent; the probability of each state.
    pub fn push(&mut self, x: f64) -> &[f64] {
        self.now = self.advance(x).0;
        &self.now[..self.model.k]
    }

    /// The filtered probabilities, and the logarithm of the density of `x` given what came before.
    fn advance(&mut self, x: f64) -> (States, f64) {
        let k = self.model.k;
        let logs: States = std::array::from_fn(|i| match i < k {
            true => self.model.log_density(i, x),
            false => f64::NEG_INFINITY,
        });
        // The largest term is taken out, so that a far outlier does not underflow all.
        let top = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let joint: States = std::array::from_fn(|i| self.ahead[i] * (logs[i] - top).exp());
        let total: f64 = joint[..k].iter().sum();
        let now = if total > 0.0 {
            joint.map(|j| j / total)
        } else {
            // The state that could have made it had no probability at all: believe the return.
            let likeliest = (0..k).fold(0, |best, i| if logs[i] > logs[best] { i } else { best });
            std::array::from_fn(|i| f64::from(u8::from(i == likeliest)))
        };
        let a = &self.model.transition;
        self.ahead = std::array::from_fn(|j| (0..k).map(|i| now[i] * a[i][j]).sum());
        (now, top + total.max(f64::MIN_POSITIVE).ln())
    }
}
