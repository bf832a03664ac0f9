//! `quantmill decide`: market states in, trading decisions out.
//!
//! The answer is kept to the action grammar, so it always reads; it is checked again all the same. The
//! prompt of a state is made by the code of `encode`, from the same bins and parameters, so that the
//! model is asked as it was taught. Of lines of states the model reads only what differs from the
//! prompt before. With a desk, the order that would be sent comes with the decision, or why none may
//! be. Nothing is sent anywhere.

use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::{Args, ValueEnum};
use quantmill_stages::decode::{Answer, Asked, Asker, Model, Prompt};
use quantmill_stages::encode::bins::Bins;
use quantmill_stages::encode::state::{Before, Holding, State, tell};
use quantmill_stages::encode::{self};
use quantmill_stages::model::chat::Message;
use quantmill_stages::pairs::decision::{Allowed, Decision, Form};
use quantmill_stages::pairs::order::{Desk, Instruction};
use quantmill_stages::{Kind, StageError};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::models::{Which, put};
use crate::exit::Failure;
use crate::report::text::{Paint, colour, count, paint};

/// `--form`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum FormName {
    /// `buy limit 10`
    #[default]
    Words,
    /// `{"action":"limit","side":"buy","offset_bps":10,"size":1}`
    Json,
    /// `B10`: few tokens, and so a fast answer
    Code,
}

impl From<FormName> for Form {
    fn from(name: FormName) -> Form {
        match name {
            FormName::Words => Form::Words,
            FormName::Json => Form::Json,
            FormName::Code => Form::Code,
        }
    }
}

/// Arguments of `decide`.
#[derive(Args, Clone, Debug)]
pub struct Decide {
    #[command(flatten)]
    which: Which,
    /// The state: a JSON object, or a line for each of many; `-` is stdin
    #[arg(long, value_name = "FILE", default_value = "-")]
    state: PathBuf,
    /// How the model writes its answer: as it was taught (`answers` of `pairs`)
    #[arg(long, value_enum, default_value_t = FormName::Words)]
    form: FormName,
    /// Offsets of limit orders that may be answered, basis points; `any` for 1 to 500
    #[arg(long, value_name = "LIST", default_value = "10,25,50,100", value_parser = offsets)]
    offsets: Offsets,
    /// The largest size that may be answered, units [default: the desk's, else 1]
    #[arg(long, value_name = "N")]
    max_size: Option<u32>,
    /// Orders rest already: `hold` and `cancel` may be answered too
    #[arg(long)]
    resting: bool,
    /// Of states with features: the bins.json of the stage `encode`
    #[arg(long, value_name = "FILE")]
    bins: Option<PathBuf>,
    /// Of states with features: the parameters of the stage `encode`, YAML or JSON [default: its own]
    #[arg(long, value_name = "FILE", requires = "bins")]
    encode: Option<PathBuf>,
    /// What is traded and the limits of an account, YAML or JSON, as `desk` of the stage `pairs`
    #[arg(long, value_name = "FILE")]
    desk: Option<PathBuf>,
    /// Print only the orders, as the bodies of Binance's `POST order`; needs --desk
    #[arg(long, requires = "desk")]
    exchange: bool,
    /// The probability of each decision of one unit, the likeliest first
    #[arg(long, conflicts_with = "exchange")]
    explain: bool,
    /// Ask by the model's chat template: the prompt is what the user says
    #[arg(long)]
    chat: bool,
    /// What the system says first; implies --chat
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// 0 takes the likeliest token at each step
    #[arg(long, value_name = "T", default_value_t = 0.0, allow_negative_numbers = true)]
    temperature: f32,
    /// Seed of what is drawn
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Say nothing on stderr but errors
    #[arg(short, long)]
    quiet: bool,
}

/// The examples of `decide --help`.
pub const EXAMPLES: &str = "\
Examples:
  echo '{\"prompt\": \"Spread is wide at 4 bps.\\nDecision:\"}' | quantmill decide out/model
  quantmill decide out/model --state state.json --bins out/prompts/bins.json --explain
  quantmill decide out/model --form code --offsets 5,10,25 < states.jsonl > decisions.jsonl
  quantmill decide out/model --state state.json --desk desk.yaml --exchange

A state is {\"prompt\": TEXT}, or features to make one of:
  {\"features\": {\"spread_bps\": 3.5, ...}, \"close\": 101.2, \"before\": [{\"close\": 100.9}],
   \"account\": {\"position\": 0, \"pnl_bps\": 0, \"decisions\": [], \"resting\": \"\"}, \"news\": []}
with `mid` and `holding` (the position now) for --desk, and `id`, which comes back.
What changes should come last in a prompt: what it begins with is read once.";

#[derive(Clone, Debug, PartialEq, Eq)]
struct Offsets(Vec<u32>);

fn offsets(text: &str) -> Result<Offsets, String> {
    if text == "any" {
        return Ok(Offsets(Vec::new()));
    }
    let number = |part: &str| part.trim().parse().map_err(|_| format!("`{part}` is no offset"));
    text.split(',').map(number).collect::<Result<_, _>>().map(Offsets)
}

/// A state as it is given.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Given {
    id: Option<Value>,
    prompt: Option<String>,
    features: Option<indexmap::IndexMap<String, f64>>,
    date: String,
    open: Option<f64>,
    high: Option<f64>,
    low: Option<f64>,
    close: Option<f64>,
    volume: Option<f64>,
    before: Vec<Before>,
    account: Option<Holding>,
    news: Vec<String>,
    mid: Option<f64>,
    holding: f64,
    // What `encode` writes beside a prompt.
    t0: Option<Value>,
    split: Option<Value>,
}

/// Decides.
pub fn decide(arguments: &Decide, kinds: &[Kind]) -> Result<(), Failure> {
    let desk: Option<Desk> = arguments.desk.as_deref().map(yaml).transpose()?;
    let max_size = arguments.max_size.or(desk.as_ref().map(|desk| desk.limits.max_size));
    let allowed = Allowed {
        offsets_bps: arguments.offsets.0.clone(),
        max_size: max_size.unwrap_or(1),
        resting: arguments.resting,
    };
    allowed.check().map_err(|message| Failure::usage(message, None))?;
    if !(arguments.temperature >= 0.0 && arguments.temperature.is_finite()) {
        return Err(Failure::usage("--temperature must be 0 or more", None));
    }
    let teller = Teller::new(arguments, kinds)?;
    let lines = Lines::open(&arguments.state)?;
    let model = arguments.which.open(arguments.quiet)?;
    let chat = arguments.chat || arguments.system.is_some();
    let asked = Asked {
        allowed,
        form: arguments.form.into(),
        lead: if chat { String::new() } else { " ".into() },
        temperature: arguments.temperature,
        seed: arguments.seed,
    };
    let mut asker = Asker::new(&model, asked)?;
    let mut times = Vec::new();
    for line in lines {
        let (number, text) = line?;
        let place = || format!("{}:{number}", arguments.state.display());
        let given: Given = serde_json::from_str(&text).map_err(|error| {
            let help = "a state is {\"prompt\": ...} or {\"features\": {...}}: see --help";
            Failure::usage(format!("{}: {error}", place()), Some(help.into()))
        })?;
        let begun = Instant::now();
        let prompt = teller.prompt(&given).map_err(|error| at(error, &place()))?;
        let tokens = tokens(&model, arguments, prompt).map_err(|error| at(error, &place()))?;
        let answer = asker.ask(&tokens).map_err(|error| at(error, &place()))?;
        let took = begun.elapsed().as_secs_f64() * 1e3;
        times.push(took);
        let order = desk.as_ref().map(|desk| sent(desk, &given, answer.decision)).transpose();
        let order = order.map_err(|error| at(error, &place()))?;
        let line = if arguments.exchange {
            if let Some(Order { order: None, why: Some(why) }) = &order {
                eprintln!("{}: {}: {why}", place(), answer.decision);
            }
            order.and_then(|order| order.order)
        } else {
            let mut out = described(&given, &answer, order);
            if arguments.explain {
                let each = asker.probabilities(&tokens).map_err(|error| at(error, &place()))?;
                let each = each.into_iter().map(
                    |(decision, p)| json!({ "decision": decision.to_string(), "probability": p }),
                );
                out.insert("probabilities".into(), each.collect());
            }
            Some(Value::Object(out).to_string())
        };
        if let Some(line) = line {
            put(&format!("{line}\n"))?;
        }
        if !arguments.quiet {
            told(&answer, took);
        }
    }
    if times.is_empty() {
        let help = "a state is {\"prompt\": ...} or {\"features\": {...}}: see --help";
        return Err(Failure::usage("no state", Some(help.into())));
    }
    if !arguments.quiet && times.len() > 1 {
        sum_up(times);
    }
    Ok(())
}

fn at(error: impl Into<Failure>, place: &str) -> Failure {
    match error.into() {
        Failure::Work(error) => {
            let hint = error.help().map(str::to_owned);
            let error = StageError::failed(format!("{place}: {error}"));
            hint.into_iter().fold(error, StageError::hint).into()
        }
        Failure::Usage { message, help } => Failure::usage(format!("{place}: {message}"), help),
        other => other,
    }
}

/// A file of YAML, which JSON is too.
fn yaml<T: DeserializeOwned>(path: &Path) -> Result<T, Failure> {
    let text = fs_err::read_to_string(path)?;
    serde_yaml::from_str(&text)
        .map_err(|error| Failure::usage(format!("{}: {error}", path.display()), None))
}

/// What makes prompts of features.
struct Teller {
    encode: Option<(encode::Params, Bins)>,
}

impl Teller {
    fn new(arguments: &Decide, kinds: &[Kind]) -> Result<Teller, Failure> {
        let Some(path) = &arguments.bins else { return Ok(Teller { encode: None }) };
        let bins: Bins = serde_json::from_value(super::models::json(path)?).map_err(|error| {
            let help = "it is the output `bins` of a stage `encode`";
            Failure::usage(format!("{}: {error}", path.display()), Some(help.into()))
        })?;
        let given: Value = match &arguments.encode {
            Some(path) => yaml(path)?,
            None => json!({}),
        };
        // The stage's own reading: defaults filled in, and checked.
        let kind = kinds.iter().find(|kind| kind.name == "encode");
        let settled = kind.map_or(Ok(given.clone()), |kind| (kind.resolve)(&given));
        let settled = settled.map_err(|invalid| {
            let path = arguments.encode.as_deref().unwrap_or(Path::new("encode")).display();
            Failure::usage(format!("{path}: `{}` {}", invalid.path, invalid.message), invalid.help)
        })?;
        let params = serde_json::from_value(settled)
            .map_err(|error| Failure::usage(format!("encode: {error}"), None))?;
        Ok(Teller { encode: Some((params, bins)) })
    }

    fn prompt(&self, given: &Given) -> Result<String, Failure> {
        match (&given.prompt, &given.features) {
            (Some(prompt), None) => Ok(prompt.clone()),
            (None, Some(features)) => {
                let Some((params, bins)) = &self.encode else {
                    let help = "give --bins, the bins.json of the stage `encode` that the model learnt from";
                    let message = "a state of features, but no bins to tell them by";
                    return Err(Failure::usage(message, Some(help.into())));
                };
                let state = State {
                    features: features.clone(),
                    date: given.date.clone(),
                    open: given.open,
                    high: given.high,
                    low: given.low,
                    close: given.close,
                    volume: given.volume,
                    before: given.before.clone(),
                    account: given.account.clone(),
                    news: given.news.clone(),
                };
                Ok(tell(params, bins, &state)?)
            }
            _ => Err(Failure::usage("a state has either `prompt` or `features`", None)),
        }
    }
}

fn tokens(model: &Model, arguments: &Decide, prompt: String) -> Result<Vec<u32>, StageError> {
    if !arguments.chat && arguments.system.is_none() {
        return model.tokens(&Prompt::Text(prompt));
    }
    let system = arguments.system.iter().map(|text| Message::new("system", text.clone()));
    model.tokens(&Prompt::Chat(system.chain([Message::new("user", prompt)]).collect()))
}

/// What would be sent.
struct Order {
    order: Option<String>,
    why: Option<String>,
}

fn sent(desk: &Desk, given: &Given, decision: Decision) -> Result<Order, Failure> {
    let Some(mid) = given.mid.or(given.close) else {
        return Err(Failure::usage("a desk needs the state's `mid` (or `close`)", None));
    };
    let instruction = desk.limits.check(&desk.instrument, decision, mid, given.holding);
    Ok(match instruction {
        Ok(Instruction::Send(order)) => Order { order: Some(order.to_json()), why: None },
        Ok(Instruction::Cancel) => {
            Order { order: None, why: Some("every resting order is to be taken back".into()) }
        }
        Ok(Instruction::Nothing) => Order { order: None, why: Some("nothing is sent".into()) },
        Err(refusal) => Order { order: None, why: Some(format!("refused: {refusal}")) },
    })
}

fn described(given: &Given, answer: &Answer, order: Option<Order>) -> Map<String, Value> {
    let mut out = Map::new();
    if let Some(id) = &given.id {
        out.insert("id".into(), id.clone());
    }
    let parts: Value = serde_json::from_str(&answer.decision.to_json()).unwrap_or_default();
    out.insert("decision".into(), json!(answer.decision.to_string()));
    if let Value::Object(parts) = parts {
        out.extend(parts);
    }
    out.insert("code".into(), json!(answer.decision.code()));
    out.insert("log_prob".into(), json!(answer.log_prob));
    if let Some(Order { order, why }) = order {
        let order = order.and_then(|order| serde_json::from_str::<Value>(&order).ok());
        out.insert("order".into(), order.unwrap_or_default());
        if let Some(why) = why {
            out.insert("why".into(), json!(why));
        }
    }
    out
}

fn told(answer: &Answer, took: f64) {
    let drawn = answer.tokens - answer.forced;
    let line = format!(
        "{took:.1} ms: {}, {} known; {} out, {} forced, {drawn} drawn",
        count(answer.prompt, "token"),
        answer.cached,
        answer.tokens,
        answer.forced,
    );
    eprintln!("{}", paint(colour(), Paint::Dim, &line));
}

fn sum_up(mut times: Vec<f64>) {
    let first = times.remove(0);
    times.sort_by(f64::total_cmp);
    let at = |p: f64| times[((times.len() - 1) as f64 * p).round() as usize];
    eprintln!(
        "{}: the first took {first:.1} ms, the others {:.1} ms (median), {:.1} ms (95 %), {:.1} ms at most",
        count(times.len() + 1, "decision"),
        at(0.5),
        at(0.95),
        at(1.0),
    );
}

/// The states of a file: one object over any lines, or one a line.
struct Lines {
    reader: Box<dyn BufRead>,
    number: usize,
}

impl Lines {
    fn open(path: &Path) -> Result<Lines, Failure> {
        let reader: Box<dyn BufRead> = match path == Path::new("-") {
            true => Box::new(std::io::stdin().lock()),
            false => Box::new(std::io::BufReader::new(fs_err::File::open(path)?)),
        };
        Ok(Lines { reader, number: 0 })
    }
}

impl Iterator for Lines {
    type Item = Result<(usize, String), Failure>;

    /// The next object and the line it begins at. Lines are joined until they are a JSON value.
    fn next(&mut self) -> Option<Self::Item> {
        let (mut text, mut begun) = (String::new(), 0);
        loop {
            let before = text.len();
            match self.reader.read_line(&mut text) {
                Err(error) => return Some(Err(error.into())),
                Ok(0) if text.trim().is_empty() => return None,
                // What is not whole is for the parser to complain of.
                Ok(0) => return Some(Ok((begun, text))),
                Ok(_) => self.number += 1,
            }
            if text.trim().is_empty() {
                text.clear();
                continue;
            }
            if text[..before].trim().is_empty() {
                begun = self.number;
            }
            let whole = serde_json::from_str::<serde::de::IgnoredAny>(&text);
            if !whole.is_err_and(|error| error.is_eof()) {
                return Some(Ok((begun, text)));
            }
        }
    }
}
