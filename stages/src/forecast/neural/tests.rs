//! The nets as a whole: causal, the same bytes for the same seed, the same forecast however it is asked
//! for, readable again, and able to learn.

use std::path::Path;

use burn::prelude::*;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::build::Build;
use super::fitted::{Config, Fitted};
use super::model::Model;
use super::*;
use crate::device::{Flex, cpu, flex};
use crate::forecast::fit::class_weights;
use crate::forecast::params::ClassWeights;
use crate::forecast::series::{Forecast, Forecaster, Series, Slice, Target};
use crate::model::weights::uniform;

const ABLATIONS: [Ablation; 5] = [
    Ablation::None,
    Ablation::NoMemoryToState,
    Ablation::NoStateToMemory,
    Ablation::StateOnly,
    Ablation::MemoryOnly,
];

fn small() -> Training {
    Training { window: 16, epochs: 2, batch: 4, ..Training::default() }
}

fn hybrid(ablation: Ablation, kalman: bool) -> Net {
    let training = small();
    Net::Hybrid(Hybrid { state: 8, memory: 16, heads: 2, ablation, kalman, training, layers: 2 })
}

/// One of each kind, small.
fn nets() -> Vec<Net> {
    let mut nets: Vec<Net> = ABLATIONS.iter().map(|&a| hybrid(a, false)).collect();
    nets.push(hybrid(Ablation::None, true));
    nets.push(hybrid(Ablation::StateOnly, true));
    nets.push(Net::Lstm(Lstm { layers: 2, hidden: 12, training: small() }));
    let training = small();
    nets.push(Net::Transformer(Transformer { layers: 2, hidden: 16, heads: 2, training }));
    nets
}

fn normal(rng: &mut ChaCha8Rng) -> f64 {
    (-2.0 * uniform(rng).ln()).sqrt() * (uniform(rng) * std::f64::consts::TAU).cos()
}

/// Rows of noise, with targets that lean on the first feature.
fn noise(rows: usize, features: usize, horizons: usize, seed: u64) -> Series {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let x: Vec<f32> = (0..rows * features).map(|_| normal(&mut rng) as f32).collect();
    let target = |i: usize| {
        let value = x[i / horizons * features] + 0.1 * (i % horizons) as f32;
        let class = if value > 0.5 {
            2
        } else if value < -0.5 {
            0
        } else {
            1
        };
        (!i.is_multiple_of(7)).then_some(Target { class, value })
    };
    let targets = (0..rows * horizons).map(target).collect();
    let dt = (0..rows).map(|_| uniform(&mut rng) as f32 * 2.0 + 0.1).collect();
    Series { name: "noise".into(), features, x, dt, targets, horizons }
}

fn whole(series: &Series, rows: std::ops::Range<usize>) -> Slice<'_> {
    Slice { series, counts: vec![true; rows.len()], rows }
}

fn train(net: &Net, train: &[Slice], valid: &[Slice], seed: u64) -> Box<dyn Forecaster> {
    let horizons = train[0].series.horizons;
    let weights = class_weights(ClassWeights::Balanced, train, horizons);
    let data = Data { train, valid, class_weights: &weights };
    fit(net, &data, seed, &cpu(), &mut |_, _, _| Ok(()), &mut |_| {}).unwrap()
}

/// Untrained, but nowhere zero.
fn drawn(net: &Net, features: usize, horizons: usize) -> Fitted<Flex> {
    let class_weights = vec![[1.0; 3]; horizons];
    let config = Config { net: net.clone(), features, horizons, class_weights };
    let model = Model::build(&config, &mut Build::drawn(5, &flex())).unwrap();
    Fitted { model, config, place: flex() }
}

#[test]
fn what_comes_after_a_row_changes_no_bit_of_its_forecast() {
    let series = noise(70, 3, 2, 1);
    for net in nets() {
        let model = drawn(&net, 3, 2);
        let before = model.predict(&series, 0..70).unwrap();
        for t in [0, 7, 8, 15, 16, 17, 40, 68] {
            let mut changed = series.clone();
            changed.x[(t + 1) * 3..].iter_mut().for_each(|x| *x = 9.0 - *x);
            changed.dt[t + 1..].iter_mut().for_each(|dt| *dt *= 3.0);
            let after = model.predict(&changed, 0..70).unwrap();
            let upto = (t + 1) * 2;
            assert!(before[..upto] == after[..upto], "{net:?} sees past row {t}");
            assert!(before[upto..] != after[upto..], "{net:?} sees nothing after row {t}");
        }
    }
}

#[test]
fn a_forecast_is_the_same_whatever_else_is_asked_for() {
    let series = noise(203, 3, 2, 2);
    for net in nets() {
        let model = drawn(&net, 3, 2);
        let all = model.predict(&series, 0..203).unwrap();
        assert_eq!(all.len(), 203 * 2);
        for range in [0..1, 5..29, 100..203, 202..203, 60..60] {
            let some = model.predict(&series, range.clone()).unwrap();
            assert!(some == all[range.start * 2..range.end * 2], "{net:?} {range:?}");
        }
        // Nor does it matter how long the series goes on.
        let mut cut = series.clone();
        cut.x.truncate(90 * 3);
        cut.dt.truncate(90);
        assert!(model.predict(&cut, 0..90).unwrap() == all[..180], "{net:?}");
    }
}

#[test]
fn a_window_reaches_back_as_far_as_it_says() {
    // Half a window back changes something, a whole window back does not.
    let series = noise(70, 3, 1, 3);
    for net in nets() {
        let model = drawn(&net, 3, 1);
        let before = model.predict(&series, 50..51).unwrap();
        let moved = |row: usize| {
            let mut changed = series.clone();
            changed.x[row * 3] += 2.0;
            model.predict(&changed, 50..51).unwrap()
        };
        assert!(moved(43) != before, "{net:?}");
        assert!(moved(34) == before, "{net:?}");
    }
}

fn bytes(model: &dyn Forecaster) -> (Vec<u8>, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    model.save(folder.path()).unwrap();
    let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    (read("config.json"), read("model.safetensors"))
}

#[test]
fn the_same_seed_gives_the_same_bytes_with_any_number_of_threads() {
    let series = noise(150, 3, 2, 4);
    let train_rows = [whole(&series, 0..100)];
    let valid = [whole(&series, 100..150)];
    for net in nets() {
        let with = |threads: usize, seed: u64| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| bytes(&*train(&net, &train_rows, &valid, seed)))
        };
        let one = with(1, 7);
        assert!(one == with(2, 7) && one == with(3, 7), "{net:?}");
        assert!(one.1 != with(1, 8).1, "{net:?}");
    }
}

#[test]
fn a_model_is_read_back_to_the_bit() {
    let series = noise(90, 3, 2, 5);
    for net in nets() {
        let model = train(&net, &[whole(&series, 0..90)], &[], 1);
        let folder = tempfile::tempdir().unwrap();
        model.save(folder.path()).unwrap();
        let read = load(folder.path(), &cpu()).unwrap();
        assert!(read.predict(&series, 0..90).unwrap() == model.predict(&series, 0..90).unwrap());
        assert_eq!(bytes(&*read), bytes(&*model));
    }
}

/// What is done to a model's folder.
type Spoil = Box<dyn Fn(&Path)>;

#[test]
fn damaged_and_foreign_files_are_one_clear_error() {
    let model = drawn(&hybrid(Ablation::None, false), 3, 2);
    let attempt = |spoil: &dyn Fn(&Path)| {
        let folder = tempfile::tempdir().unwrap();
        model.save(folder.path()).unwrap();
        spoil(folder.path());
        load(folder.path(), &cpu()).err().unwrap().to_string()
    };
    let config = |from: &'static str, to: &'static str| {
        move |folder: &Path| {
            let path = folder.join("config.json");
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(text.contains(from), "{text}");
            std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
        }
    };
    let weights = |f: fn(Vec<u8>) -> Vec<u8>| {
        move |folder: &Path| {
            let path = folder.join("model.safetensors");
            std::fs::write(&path, f(std::fs::read(&path).unwrap())).unwrap();
        }
    };
    let nan = |mut all: Vec<u8>| {
        let at = all.len() - 4;
        all[at..].copy_from_slice(&f32::NAN.to_le_bytes());
        all
    };
    let cases: [(&str, Spoil); 9] = [
        ("unknown field", Box::new(config("\"layers\"", "\"lairs\""))),
        ("not in 1..=1024", Box::new(config("\"state\": 8", "\"state\": 4000000000"))),
        ("not [", Box::new(config("\"state\": 8", "\"state\": 16"))),
        ("class_weights", Box::new(config("\"horizons\": 2", "\"horizons\": 3"))),
        ("heads", Box::new(config("\"heads\": 2", "\"heads\": 3"))),
        ("not a safetensors file", Box::new(weights(|_| b"nonsense".to_vec()))),
        ("not a safetensors file", Box::new(weights(|all| all[..all.len() - 8].to_vec()))),
        ("numbers that are none", Box::new(weights(nan))),
        (
            "config.json",
            Box::new(|folder| {
                std::fs::remove_file(folder.join("config.json")).unwrap();
            }),
        ),
    ];
    for (expected, spoil) in cases {
        let message = attempt(&*spoil);
        assert!(message.contains(expected), "{expected}: {message}");
    }
}

#[test]
fn what_cannot_be_fitted_is_said() {
    let series = noise(30, 3, 2, 6);
    let slice = whole(&series, 0..30);
    let weights = [[1.0; 3]; 2];
    let fails = |net: Net, train: &[Slice], class_weights: &[[f32; 3]]| {
        let data = Data { train, valid: &[], class_weights };
        let done = fit(&net, &data, 1, &cpu(), &mut |_, _, _| Ok(()), &mut |_| {});
        done.err().unwrap().to_string()
    };
    let net = || hybrid(Ablation::None, false);
    let none = Slice { counts: vec![false; 30], ..slice.clone() };
    assert!(fails(net(), &[none], &weights).contains("no row to learn from"));
    assert!(fails(net(), &[], &weights).contains("no row to learn from"));
    assert!(fails(net(), std::slice::from_ref(&slice), &weights[..1]).contains("class_weights"));
    let other = noise(30, 4, 2, 6);
    let both = [slice.clone(), whole(&other, 0..30)];
    assert!(fails(net(), &both, &weights).contains("different features"));
    let odd = Net::Lstm(Lstm { hidden: 0, ..Lstm::default() });
    assert!(fails(odd, std::slice::from_ref(&slice), &weights).contains("`hidden` is 0"));
    let model = train(&net(), &[slice], &[], 1);
    let error = model.predict(&other, 0..30).unwrap_err().to_string();
    assert!(error.contains("3 features") && error.contains("4"), "{error}");
}

#[test]
fn an_error_of_the_listener_ends_the_training() {
    let series = noise(60, 3, 2, 7);
    let rows = [whole(&series, 0..60)];
    let data = Data { train: &rows, valid: &[], class_weights: &[[1.0; 3]; 2] };
    let mut steps = 0;
    let mut tell = |done: usize, _: usize, _: &str| match done {
        1 => Ok(()),
        _ => Err(crate::StageError::failed("enough")),
    };
    let net = hybrid(Ablation::None, false);
    let net = match net {
        Net::Hybrid(net) => {
            Net::Hybrid(Hybrid { training: Training { batch: 1, ..small() }, ..net })
        }
        other => other,
    };
    let error = fit(&net, &data, 1, &cpu(), &mut tell, &mut |_| steps += 1).err().unwrap();
    assert_eq!(error.to_string(), "enough");
    assert_eq!(steps, 2);
}

#[test]
fn the_best_weights_are_kept_and_patience_ends_a_training() {
    // Targets of the validation rows are the opposite of what is learnt: the first epoch is the best.
    let series = noise(400, 3, 1, 8);
    let mut opposite = noise(200, 3, 1, 9);
    for target in opposite.targets.iter_mut().flatten() {
        *target = Target { class: 2 - target.class, value: -target.value };
    }
    let training =
        Training { epochs: 40, patience: 3, learning_rate: 3e-3, warmup: 0.0, ..small() };
    let net = Net::Lstm(Lstm { layers: 1, hidden: 16, training });
    let (train, valid) = ([whole(&series, 0..400)], [whole(&opposite, 0..200)]);
    let data = Data { train: &train, valid: &valid, class_weights: &[[1.0; 3]] };
    let mut log = Vec::new();
    let model =
        fit(&net, &data, 1, &cpu(), &mut |_, _, _| Ok(()), &mut |step| log.push(*step)).unwrap();
    let losses: Vec<f64> = log.iter().filter_map(|step| step.valid).collect();
    let (at, least) =
        losses.iter().enumerate().min_by(|a, b| a.1.total_cmp(b.1)).map(|(i, x)| (i, *x)).unwrap();
    assert_eq!(losses.len(), at + 4, "{losses:?}");
    // The weights that are kept have the least loss: measured anew, from forecasts alone.
    let forecasts = model.predict(&opposite, 0..200).unwrap();
    let entropy = |forecasts: &[Forecast]| {
        let known = opposite.targets.iter().zip(forecasts).filter_map(|(t, f)| Some(((*t)?, f)));
        let terms: Vec<f32> = known.map(|(t, f)| -f.p[usize::from(t.class)].ln()).collect();
        terms.iter().sum::<f32>() / terms.len() as f32
    };
    let later = Training { patience: 40, epochs: at + 5, ..net.training().clone() };
    let later = Net::Lstm(Lstm { layers: 1, hidden: 16, training: later });
    let data = Data { valid: &[], ..data };
    let worn = fit(&later, &data, 1, &cpu(), &mut |_, _, _| Ok(()), &mut |_| {}).unwrap();
    let worn = entropy(&worn.predict(&opposite, 0..200).unwrap());
    assert!(entropy(&forecasts) < worn, "{} {worn} {least}", entropy(&forecasts));
}

#[test]
fn the_default_hybrid_has_about_130_thousand_parameters() {
    let model = drawn(&Net::Hybrid(Hybrid::default()), 20, 3);
    let count = model.model.num_params();
    assert!((120_000..140_000).contains(&count), "{count}");
}

/// A task that needs a state, a memory, and each to know of the other.
///
/// A latent process of Ornstein and Uhlenbeck (time constant 8, unit variance), at irregular times,
/// is observed with little noise or with much; which, is known (what the state lets in depends on the
/// row). While the latent value is clearly positive or clearly negative, a mark of +1 or -1 is shown beside
/// some observations with little noise. Each row asks for the last mark of a positive, or of a negative,
/// time: to find it, one must know where the latent process was when it was made (what memory keeps
/// depends on the state). The class is that of the sum of the latent value and that mark.
struct Recall {
    series: Series,
    /// Of the optimal filter that also knows in which regime each mark was made.
    oracle: f64,
    majority: f64,
}

fn recall(rows: usize, seed: u64) -> Recall {
    const FEATURES: usize = 4;
    const THRESHOLD: f64 = 0.77;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (mut latent, mut mean, mut variance) = (normal(&mut rng), 0.0, 1.0);
    let mut marks = [0.0; 2];
    let (mut x, mut dt, mut targets) = (Vec::new(), Vec::new(), Vec::new());
    let (mut right, mut counts) = (0, [0; 3]);
    let class_of = |z: f64| {
        if z < -THRESHOLD {
            0
        } else if z > THRESHOLD {
            2
        } else {
            1
        }
    };
    for _ in 0..rows {
        let elapsed = [0.25, 1.0, 4.0][(uniform(&mut rng) * 2.999) as usize];
        let a = (-elapsed / 8.0f64).exp();
        latent = a * latent + (1.0 - a * a).sqrt() * normal(&mut rng);
        let loud = uniform(&mut rng) < 0.5;
        let noise = if loud { 2.5 } else { 0.35 };
        let seen = latent + noise * normal(&mut rng);
        // Kalman's filter.
        variance = a * a * variance + 1.0 - a * a;
        let gain = variance / (variance + noise * noise);
        mean = a * mean + gain * (seen - a * mean);
        variance *= 1.0 - gain;
        let mut shown = 0.0;
        if !loud && latent.abs() > 0.8 && uniform(&mut rng) < 0.4 {
            shown = if uniform(&mut rng) < 0.5 { 1.0 } else { -1.0 };
            marks[usize::from(latent > 0.0)] = shown;
        }
        let asked = usize::from(uniform(&mut rng) < 0.5);
        let value = latent + marks[asked];
        let class = class_of(value);
        counts[class] += 1;
        // The class in which most of the filter's normal distribution lies.
        let below = |z: f64| {
            let z = (z - marks[asked] - mean) / variance.sqrt();
            0.5 * statrs::function::erf::erfc(-z / std::f64::consts::SQRT_2)
        };
        let (down, up) = (below(-THRESHOLD), 1.0 - below(THRESHOLD));
        let flat = 1.0 - down - up;
        let guess = if flat >= down && flat >= up {
            1
        } else if up > down {
            2
        } else {
            0
        };
        right += usize::from(guess == class);
        let asked = if asked == 1 { 1.0 } else { -1.0 };
        x.extend([seen, if loud { 1.0 } else { -1.0 }, shown, asked].map(|x| x as f32));
        dt.push(elapsed as f32);
        targets.push(Some(Target { class: class as u8, value: value as f32 }));
    }
    let series = Series { features: FEATURES, x, dt, targets, horizons: 1, ..Series::default() };
    let most = counts.into_iter().max().unwrap_or(0);
    let share = |n: usize| n as f64 / rows as f64;
    Recall { series, oracle: share(right), majority: share(most) }
}

fn accuracy(model: &dyn Forecaster, series: &Series) -> f64 {
    let forecasts = model.predict(series, 0..series.rows()).unwrap();
    let best = |f: &Forecast| (0..3).max_by(|&a, &b| f.p[a].total_cmp(&f.p[b])).unwrap();
    let pairs = series.targets.iter().zip(&forecasts);
    let right = pairs.filter(|(t, f)| t.is_some_and(|t| usize::from(t.class) == best(f))).count();
    right as f64 / series.rows() as f64
}

/// The accuracy of a net on rows that it has not seen, and the least loss on those it stopped by.
fn learn(net: &Net, rows: usize, seed: u64) -> (f64, f64) {
    let series = recall(rows, 100 + seed).series;
    let valid = recall(8_000, 200 + seed).series;
    let test = recall(20_000, 300).series;
    let weights = [[1.0; 3]];
    let (train, valid) = ([whole(&series, 0..rows)], [whole(&valid, 0..8_000)]);
    let data = Data { train: &train, valid: &valid, class_weights: &weights };
    let mut least = f64::INFINITY;
    let mut log = |step: &Step| least = step.valid.map_or(least, |loss| least.min(loss));
    let model = fit(net, &data, seed, &cpu(), &mut |_, _, _| Ok(()), &mut log).unwrap();
    (accuracy(&*model, &test), least)
}

#[test]
fn the_task_is_hard_without_its_parts_and_not_with_them() {
    let Recall { oracle, majority, .. } = recall(40_000, 1);
    assert!((0.79..0.84).contains(&oracle), "{oracle}");
    assert!((0.33..0.40).contains(&majority), "{majority}");
}

#[test]
fn a_small_hybrid_learns_more_than_the_majority() {
    let training = Training {
        window: 32,
        epochs: 40,
        batch: 16,
        learning_rate: 5e-3,
        dropout: 0.0,
        ..Training::default()
    };
    let net = Hybrid { layers: 1, state: 16, memory: 32, heads: 2, training, ..Hybrid::default() };
    let (accuracy, _) = learn(&Net::Hybrid(net), 8_000, 1);
    assert!(accuracy > 0.55, "{accuracy}");
}

/// Minutes of training: `QUANTMILL_TEST_LONG=1`, and perhaps `QUANTMILL_TEST_NET` with one name.
#[test]
fn each_coupling_is_worth_something() {
    if std::env::var_os("QUANTMILL_TEST_LONG").is_none() {
        return;
    }
    let only = std::env::var("QUANTMILL_TEST_NET").ok();
    let training = Training {
        window: 128,
        epochs: 25,
        batch: 16,
        learning_rate: 3e-3,
        dropout: 0.0,
        patience: 8,
        ..Training::default()
    };
    let of = |ablation: Ablation| {
        let training = training.clone();
        Net::Hybrid(Hybrid { ablation, training, ..Hybrid::default() })
    };
    let lstm = Net::Lstm(Lstm { training: training.clone(), ..Lstm::default() });
    let rows = 120_000;
    let mut results = Vec::new();
    let nets = ABLATIONS.iter().map(|&a| (format!("{a:?}"), of(a)));
    for (name, net) in nets.chain([("Lstm".into(), lstm)]) {
        if only.as_ref().is_none_or(|only| *only == name) {
            let learnt = learn(&net, rows, 1);
            println!("{name}: accuracy {:.4}, loss {:.4}", learnt.0, learnt.1);
            results.push(learnt);
        }
    }
    if only.is_none() {
        let (accuracy, loss) = results[0];
        assert!(accuracy >= 0.75, "{results:?}");
        // The loss tells nets apart that choose the same class with other probabilities.
        assert!(results[1..].iter().all(|other| other.1 > loss + 0.005), "{results:?}");
    }
}
