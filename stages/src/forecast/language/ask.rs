//! Asks a language model about each prompt, and puts what it says where features stand.
//!
//! By the engine of [`crate::infer`], on the CPU: the same prompt gives the same bits, whatever is asked
//! before it. What prompts begin with alike is read once.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use super::{Answers, Form, Language};
use crate::decode::sampling::log_probs;
use crate::encode::prompt::Prompts;
use crate::evaluate::params::Judging;
use crate::featurize::split::Split;
use crate::forecast::panel::{Asset, Panel};
use crate::infer::{Engine, Options, Reader};
use crate::model::Folder;
use crate::pairs::action::Side;
use crate::pairs::decision::{Allowed, Decision, Form as Written};
use crate::{Context, Result, StageError};

/// Training prompts that there must be.
const FEWEST: usize = 30;

/// Words that say a direction: 0 down, 1 flat, 2 up.
const WORDS: [&str; 3] = [
    "down downward downwards fall falls lower decline declines decrease drop drops bearish sell short",
    "flat unchanged neutral sideways hold stay stable",
    "up upward upwards rise rises higher increase increases gain gains bullish buy long",
];

/// A prompt of a row.
struct Asked {
    asset: usize,
    row: usize,
    text: String,
}

/// Puts what the model of port `language` says of each prompt in the place of features; a row without
/// a prompt is no longer forecast.
///
/// # Errors
/// Prompts and features are not of the same rows, there are too few, one does not fit the model's
/// context, or the model cannot be read.
pub fn read(params: &Language, panel: &mut Panel, split: Judging, ctx: &Context) -> Result<()> {
    let prompts = prompts(panel, split, ctx)?;
    ctx.progress(0, prompts.len() as u64, "prompts", "loading the model")?;
    let engine = Engine::of_folder(&Folder::of_port(ctx, "language"), Options::default())?;
    let answers = answers(params, &engine)?;
    let more = match params.form {
        Form::Head => 0,
        Form::Grammar => answers.iter().map(|(tokens, _)| tokens.len()).max().unwrap_or(0),
        Form::Free => params.max_new_tokens,
    };
    let width = match params.form {
        Form::Grammar => 3,
        Form::Head => engine.config().hidden_size,
        Form::Free => 1,
    };
    for asset in &mut panel.assets {
        asset.raw = vec![f64::NAN; asset.rows() * width];
    }
    panel.inputs = (0..width).map(|at| format!("{}_{at}", params.form.name())).collect();
    let limit = engine.about().context;
    let (mut reader, mut failures) = (Reader::new(&engine), 0usize);
    for (at, asked) in prompts.iter().enumerate() {
        ctx.progress(at as u64, prompts.len() as u64, "prompts", "asking")?;
        let tokens = engine.tokenizer().prompt(&format!("{}{}", asked.text, params.question))?;
        if tokens.is_empty() || tokens.len() + more > limit {
            let message = format!(
                "a prompt has {} tokens; with {more} for the answer it does not fit the model's context of {limit}",
                tokens.len(),
            );
            return Err(StageError::failed(message)
                .hint("shorten the prompts in `encode`, or take a model with a longer context"));
        }
        let values: Vec<f64> = match params.form {
            Form::Head => reader.state(&tokens)?.into_iter().map(f64::from).collect(),
            Form::Grammar => weigh(&mut reader, &tokens, &answers)?.to_vec(),
            Form::Free => {
                let said = greedy(&mut reader, &engine, &tokens, params.max_new_tokens)?;
                failures += usize::from(said.is_none());
                vec![said.map_or(3.0, |class| class as f64)]
            }
        };
        let cells = asked.row * width..(asked.row + 1) * width;
        panel.assets[asked.asset].raw[cells].copy_from_slice(&values);
    }
    for asset in &mut panel.assets {
        for row in 0..asset.rows() {
            if asset.raw[row * width..(row + 1) * width].iter().any(|x| x.is_nan()) {
                asset.sigma[row] = None;
            }
        }
    }
    ctx.metric("prompts", prompts.len() as f64);
    if params.form == Form::Free {
        ctx.metric("parse_failures", failures as f64);
        ctx.metric("parse_failure_rate", failures as f64 / prompts.len() as f64);
    }
    Ok(())
}

impl Form {
    fn name(self) -> &'static str {
        match self {
            Form::Grammar => "grammar",
            Form::Head => "head",
            Form::Free => "free",
        }
    }
}

/// The prompts of training rows and of the span that is judged.
fn prompts(panel: &Panel, split: Judging, ctx: &Context) -> Result<Vec<Asked>> {
    let places: Vec<FxHashMap<&str, usize>> = panel
        .assets
        .iter()
        .map(|asset| asset.dates.iter().map(String::as_str).zip(0..).collect())
        .collect();
    let judged = match split {
        Judging::Test => Split::Test,
        Judging::Holdout => Split::Holdout,
    };
    let mut found: BTreeMap<(usize, usize), String> = BTreeMap::new();
    let mut train = 0;
    for (name, path) in ctx.files("prompts") {
        let of = instrument(&panel.assets, name).ok_or_else(|| {
            StageError::bad(path, format!("no table of features is of `{name}`"))
                .hint("name prompts as the features: `encode` with the same `matrix`")
        })?;
        for (line, prompt) in (1..).zip(Prompts::open(path)?) {
            let prompt = prompt?;
            if prompt.split != Split::Train && prompt.split != judged {
                continue;
            }
            let wrong = |why: String, hint: &str| StageError::bad(path, why).at(line).hint(hint);
            let row = *places[of].get(prompt.t0.as_str()).ok_or_else(|| {
                wrong(
                    format!("no features at {}", prompt.t0),
                    "features and prompts must come from the same bars",
                )
            })?;
            if panel.assets[of].split[row] != prompt.split {
                return Err(wrong(
                    format!("{} is of another split than in the features", prompt.t0),
                    "features and prompts must come from the same `featurize`",
                ));
            }
            train += usize::from(prompt.split == Split::Train);
            if found.insert((of, row), prompt.prompt).is_some() {
                return Err(wrong(format!("{} has a second prompt", prompt.t0), "one a row"));
            }
        }
    }
    if train < FEWEST {
        return Err(StageError::failed(format!("{train} training rows have a prompt"))
            .hint(format!("{FEWEST} are needed: raise `max_train_rows` of `encode`")));
    }
    let asked = |((asset, row), text)| Asked { asset, row, text };
    Ok(found.into_iter().map(asked).collect())
}

/// The instrument of a file of prompts: the one there is, or that of its name.
fn instrument(assets: &[Asset], name: &str) -> Option<usize> {
    if assets.len() == 1 {
        return Some(0);
    }
    let own = name.strip_suffix("/prompts.jsonl").or(name.strip_suffix(".jsonl")).unwrap_or(name);
    assets.iter().position(|asset| asset.name == own)
}

/// The answers that are allowed: tokens, and the class that they say.
fn answers(params: &Language, engine: &Engine) -> Result<Vec<(Vec<u32>, usize)>> {
    let form = match params.answers {
        Answers::Directions => None,
        Answers::Words => Some(Written::Words),
        Answers::Json => Some(Written::Json),
        Answers::Code => Some(Written::Code),
    };
    let Some(form) = form else {
        let of = |(text, class)| Ok((engine.tokenizer().encode(text)?, class));
        return [(" down", 0), (" flat", 1), (" up", 2)].into_iter().map(of).collect();
    };
    let resting = true;
    let allowed = Allowed { offsets_bps: params.offsets_bps.clone(), max_size: 1, resting };
    let mut all = allowed.of_one_unit();
    if params.offsets_bps.is_empty() {
        all.retain(|decision| !matches!(decision, Decision::Limit(..)));
    }
    let Some(&end) = engine.tokenizer().eos().first() else {
        return Err(StageError::failed("the model has no token that ends a text")
            .hint("take `answers: directions`"));
    };
    let of = |decision: Decision| {
        let mut tokens = engine.tokenizer().encode(&format!(" {}", decision.write(form)))?;
        // `buy limit 1` begins `buy limit 10`: the end tells them apart, as in training.
        tokens.push(end);
        let class = match decision {
            Decision::Market(Side::Buy, _) | Decision::Limit(Side::Buy, ..) => 2,
            Decision::Market(Side::Sell, _) | Decision::Limit(Side::Sell, ..) => 0,
            Decision::Flat | Decision::Hold | Decision::Cancel => 1,
        };
        Ok((tokens, class))
    };
    all.into_iter().map(of).collect()
}

/// Log-probabilities of the classes after a prompt, among the answers.
fn weigh(reader: &mut Reader, prompt: &[u32], answers: &[(Vec<u32>, usize)]) -> Result<[f64; 3]> {
    let logits = reader.logits(prompt)?;
    let of: Vec<(&[u32], usize)> = answers.iter().map(|(t, class)| (&t[..], *class)).collect();
    let mut masses = [const { Vec::new() }; 3];
    descend(reader, &logits, &of, 0.0, &mut masses)?;
    let logs = masses.map(|of| sum(&of));
    let all = sum(&logs);
    Ok(logs.map(|log| log - all))
}

/// Goes down the tree of the answers' tokens; what begins alike is read once.
fn descend(
    reader: &mut Reader,
    logits: &[f32],
    answers: &[(&[u32], usize)],
    so_far: f64,
    masses: &mut [Vec<f64>; 3],
) -> Result<()> {
    let mut by_token: BTreeMap<u32, Vec<(&[u32], usize)>> = BTreeMap::new();
    for (tokens, class) in answers {
        match tokens.split_first() {
            Some((first, rest)) => by_token.entry(*first).or_default().push((rest, *class)),
            None => masses[*class].push(so_far),
        }
    }
    for (token, rest) in by_token {
        let own = so_far + log_probs(logits, [token].into_iter())?.into_iter().sum::<f64>();
        if rest.iter().all(|(tokens, _)| tokens.is_empty()) {
            rest.iter().for_each(|(_, class)| masses[*class].push(own));
            continue;
        }
        let logits = reader.on(&[token])?;
        descend(reader, &logits, &rest, own, masses)?;
        reader.back(1);
    }
    Ok(())
}

/// ln of the sum of exp.
fn sum(logs: &[f64]) -> f64 {
    let top = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    match top.is_finite() {
        true => top + logs.iter().map(|log| (log - top).exp()).sum::<f64>().ln(),
        false => top,
    }
}

/// The class of the first word of the greedy text that says one.
fn greedy(
    reader: &mut Reader,
    engine: &Engine,
    prompt: &[u32],
    most: usize,
) -> Result<Option<usize>> {
    let (mut logits, mut written) = (reader.logits(prompt)?, Vec::new());
    for _ in 0..most {
        // Of equally likely ones the first.
        let best = |best: usize, at: usize| if logits[at] > logits[best] { at } else { best };
        let token = (0..logits.len()).fold(0, best) as u32;
        if engine.tokenizer().eos().contains(&token) {
            break;
        }
        written.push(token);
        let text = engine.tokenizer().decode(&written)?;
        // The last word may go on: only those before it are whole.
        let whole = text.rfind(|c: char| !c.is_alphabetic()).map_or("", |end| &text[..end]);
        if let Some(class) = direction(whole) {
            return Ok(Some(class));
        }
        if written.len() < most {
            logits = reader.on(&[token])?;
        }
    }
    Ok(direction(&engine.tokenizer().decode(&written)?))
}

/// The class of the first word that says one.
pub fn direction(text: &str) -> Option<usize> {
    let mut words = text.split(|c: char| !c.is_alphabetic()).map(str::to_lowercase);
    words.find_map(|word| WORDS.iter().position(|all| all.split(' ').any(|own| own == word)))
}
