//! `quantmill generate`: a model goes on with a text, or with each of many.
//!
//! One sample is written as it comes. Several run in one batch and are written in the order of the
//! prompts, each once it and all before it are whole, so that the output does not depend on the
//! batch. stdout carries the texts (or JSON lines), stderr all else.

use std::collections::BTreeMap;
use std::io::{BufRead, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Args;
use quantmill_stages::StageError;
use quantmill_stages::decode::{Batch, Finish, Grammar, Hear, Job, Prompt, Told, Wanted};
use quantmill_stages::model::chat::Message;
use serde::Deserialize;
use serde_json::{Value, json};

use super::models::{Drawing, Which, json, put, rate};
use crate::exit::Failure;
use crate::report::text::{count, duration};

/// Arguments of `generate`.
#[derive(Args, Clone, Debug)]
pub struct Generate {
    #[command(flatten)]
    which: Which,
    /// The text to go on with [default: all of stdin]
    #[arg(long, value_name = "TEXT", conflicts_with = "file")]
    prompt: Option<String>,
    /// A prompt a line: plain text, or JSON as {"prompt": ...} or {"messages": [...]}; `-` is stdin
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Ask by the model's chat template: prompts are what the user says
    #[arg(long)]
    chat: bool,
    /// What the system says first; implies --chat
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Samples of each prompt
    #[arg(short, long = "samples", value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u16).range(1..=1024))]
    n: u16,
    #[command(flatten)]
    drawing: Drawing,
    /// Keep to this JSON schema: the output always parses, unless --max-tokens cuts it
    #[arg(long, value_name = "FILE")]
    json_schema: Option<PathBuf>,
    /// Samples that run at once
    #[arg(long, value_name = "N", default_value_t = 8,
        value_parser = clap::value_parser!(u16).range(1..=256))]
    batch: u16,
    /// Print JSON lines
    #[arg(long)]
    json: bool,
    /// Say nothing on stderr but errors
    #[arg(short, long)]
    quiet: bool,
}

/// The examples of `generate --help`.
pub const EXAMPLES: &str = "\
Examples:
  quantmill generate out/model --prompt 'The spread is wide.' --max-tokens 40
  quantmill generate smollm2.gguf --chat --prompt 'What is a limit order?' --temperature 0.7 --seed 1
  quantmill generate out/model --file prompts.jsonl --json > answers.jsonl
  quantmill generate smollm2.gguf --chat --json-schema order.json --prompt 'Buy two lots at 99.5'
  quantmill generate out/model --prompt 'The spread is wide.' --device wgpu
  echo 'Order flow is' | quantmill generate out/model -n 3 --temperature 1";

/// A line of `--file`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    #[serde(default)]
    id: Option<Value>,
    #[serde(default)]
    prompt: Option<String>,
    #[serde(default)]
    messages: Option<Vec<Message>>,
    // What `encode` writes beside a prompt.
    #[serde(default, rename = "t0")]
    _t0: Option<Value>,
    #[serde(default, rename = "split")]
    _split: Option<Value>,
}

/// A prompt and what it is called.
struct Asked {
    id: Option<Value>,
    prompt: Prompt,
}

/// Generates.
pub fn generate(arguments: &Generate) -> Result<(), Failure> {
    // All that can be wrong with the command line comes before a model is opened.
    arguments.drawing.sampling(&[])?;
    let grammar = arguments.json_schema.as_deref().map(json).transpose()?.map(Grammar::json);
    let asked = arguments.prompts()?;
    let model = arguments.which.open(arguments.quiet)?;
    let constraint = grammar.map(|grammar| model.constraint(&grammar)).transpose()?;
    let sampling = arguments.drawing.sampling(model.engine().tokenizer().eos())?;
    let wanted = Wanted {
        sampling,
        stop: arguments.drawing.stop.clone(),
        seed: arguments.drawing.seed,
        sample: 0,
        likeliest: None,
    };
    let begun = Instant::now();
    let mut waiting = asked.into_iter().enumerate().peekable();
    let n = usize::from(arguments.n);
    let live = n == 1 && !arguments.json && waiting.len() == 1;
    let writer = Arc::new(Mutex::new(Writer::new(arguments, live)));
    let mut batch = Batch::new(usize::from(arguments.batch));
    let mut failed = None;
    while failed.is_none() {
        while batch.is_empty() || batch.len() + n <= usize::from(arguments.batch) {
            let Some((at, Asked { id, prompt })) = waiting.next() else { break };
            let prompt = model.tokens(&prompt).map_err(|error| named(error, at, &id))?;
            lock(&writer).expect(at, id, prompt.len());
            let (wanted, constraint) = (wanted.clone(), constraint.clone());
            let job = Job { prompt, n, wanted, constraint };
            batch.add(&model, job, hear(&writer, at));
        }
        if batch.is_empty() && waiting.peek().is_none() {
            break;
        }
        batch.step(&model);
        failed = lock(&writer).error.take();
    }
    if let Some(error) = failed {
        return Err(error);
    }
    if !arguments.quiet {
        lock(&writer).sum_up(begun.elapsed());
    }
    Ok(())
}

fn named(error: StageError, at: usize, id: &Option<Value>) -> StageError {
    let hint = error.help().map(str::to_owned);
    let name = id.as_ref().map_or_else(|| format!("{}", at + 1), Value::to_string);
    let error = StageError::failed(format!("prompt {name}: {error}"));
    hint.into_iter().fold(error, StageError::hint)
}

fn lock(writer: &Mutex<Writer>) -> std::sync::MutexGuard<'_, Writer> {
    writer.lock().unwrap_or_else(PoisonError::into_inner)
}

fn hear(writer: &Arc<Mutex<Writer>>, at: usize) -> Hear {
    let writer = writer.clone();
    Box::new(move |told| {
        let mut writer = lock(&writer);
        if let Err(error) = writer.take(at, told) {
            writer.error.get_or_insert(error);
        }
        writer.error.is_none()
    })
}

impl Generate {
    fn prompts(&self) -> Result<Vec<Asked>, Failure> {
        let plain = |text: &str| Asked { id: None, prompt: self.ask(text) };
        if let Some(text) = &self.prompt {
            return Ok(vec![plain(text)]);
        }
        let stdin = Path::new("-");
        let Some(file) = self.file.as_deref() else {
            if std::io::stdin().is_terminal() {
                let help = "give --prompt TEXT or --file FILE, or pipe a text in";
                return Err(Failure::usage("no prompt", Some(help.into())));
            }
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text)?;
            return Ok(vec![plain(text.trim_end_matches(['\r', '\n']))]);
        };
        let reader: Box<dyn BufRead> = match file == stdin {
            true => Box::new(std::io::stdin().lock()),
            false => Box::new(std::io::BufReader::new(fs_err::File::open(file)?)),
        };
        let mut all = Vec::new();
        for (number, line) in reader.lines().enumerate() {
            let line = line?;
            let text = line.trim();
            if text.is_empty() {
                continue;
            }
            if !text.starts_with('{') {
                all.push(plain(text));
                continue;
            }
            let wrong = |what: String| {
                let help = "a line is plain text, {\"prompt\": ...} or {\"messages\": [...]}";
                let message = format!("{}:{}: {what}", file.display(), number + 1);
                Failure::usage(message, Some(help.into()))
            };
            let line: Line = serde_json::from_str(text).map_err(|e| wrong(e.to_string()))?;
            let prompt = match (line.prompt, line.messages) {
                (Some(text), None) => self.ask(&text),
                (None, Some(messages)) => Prompt::Chat(messages),
                _ => return Err(wrong("either `prompt` or `messages`".into())),
            };
            all.push(Asked { id: line.id, prompt });
        }
        if all.is_empty() {
            return Err(Failure::usage(format!("no prompt in {}", file.display()), None));
        }
        Ok(all)
    }

    fn ask(&self, text: &str) -> Prompt {
        if !self.chat && self.system.is_none() {
            return Prompt::Text(text.to_owned());
        }
        let system = self.system.iter().map(|text| Message::new("system", text.clone()));
        Prompt::Chat(system.chain([Message::new("user", text)]).collect())
    }
}

/// A sample as far as it has come.
#[derive(Default)]
struct Sample {
    text: String,
    tokens: usize,
    forced: usize,
    log_prob: f64,
    finish: Option<Finish>,
}

/// A prompt and its samples.
struct Output {
    id: Option<Value>,
    prompt: usize,
    samples: Vec<Sample>,
}

/// Writes samples in order.
struct Writer {
    arguments: Generate,
    live: bool,
    /// Prompts that are not written yet.
    open: BTreeMap<usize, Output>,
    error: Option<Failure>,
    begun: Instant,
    first: Option<Duration>,
    prompts: usize,
    read: usize,
    cached: usize,
    tokens: usize,
    forced: usize,
    cut: usize,
}

impl Writer {
    fn expect(&mut self, at: usize, id: Option<Value>, prompt: usize) {
        let samples = (0..self.arguments.n).map(|_| Sample::default()).collect();
        self.open.insert(at, Output { id, prompt, samples });
        self.prompts += 1;
        self.read += prompt;
    }

    fn take(&mut self, at: usize, told: Told) -> Result<(), Failure> {
        if let Some(error) = told.error {
            let id = self.open.get(&at).and_then(|output| output.id.clone());
            return Err(named(error, at, &id).into());
        }
        let Some(output) = self.open.get_mut(&at) else { return Ok(()) };
        let Some(sample) = output.samples.get_mut(told.sample) else { return Ok(()) };
        if !told.tokens.is_empty() && self.first.is_none() {
            self.first = Some(self.begun.elapsed());
        }
        if sample.tokens == 0 && told.sample == 0 && !told.tokens.is_empty() {
            self.cached += told.cached;
        }
        sample.text.push_str(&told.text);
        sample.tokens += told.tokens.len();
        sample.forced += told.tokens.iter().filter(|token| token.forced).count();
        sample.log_prob += told.tokens.iter().map(|t| f64::from(t.log_prob)).sum::<f64>();
        sample.finish = told.finish;
        if self.live {
            put(&told.text)?;
            if told.finish.is_some() {
                put("\n")?;
            }
        }
        if told.finish.is_some() {
            self.tokens += sample.tokens;
            self.forced += sample.forced;
            self.cut += usize::from(told.finish == Some(Finish::Length));
            self.flush()?;
        }
        Ok(())
    }

    /// Writes the prompts whose samples, and those of all before them, are whole.
    fn flush(&mut self) -> Result<(), Failure> {
        let whole = |output: &Output| output.samples.iter().all(|s| s.finish.is_some());
        while let Some(first) = self.open.first_entry().filter(|first| whole(first.get())) {
            let at = *first.key();
            let output = first.remove();
            if self.live {
                continue;
            }
            for (number, sample) in output.samples.iter().enumerate() {
                if !self.arguments.json {
                    put(&format!("{}\n", sample.text))?;
                    continue;
                }
                let id = output.id.clone().unwrap_or_else(|| json!(at));
                let finish = if sample.finish == Some(Finish::Length) { "length" } else { "stop" };
                let line = json!({
                    "id": id,
                    "sample": number,
                    "text": sample.text,
                    "finish": finish,
                    "prompt_tokens": output.prompt,
                    "tokens": sample.tokens,
                    "forced": sample.forced,
                    "log_prob": sample.log_prob,
                });
                put(&format!("{line}\n"))?;
            }
        }
        Ok(())
    }

    fn sum_up(&self, took: Duration) {
        let first = self.first.unwrap_or(took);
        let later = took.saturating_sub(first);
        let drawn = self.tokens.saturating_sub(1);
        let cached = match self.cached {
            0 => String::new(),
            n => format!(" ({n} known)"),
        };
        eprintln!(
            "{} of {}{cached}, {} in {}: first token after {}{}{}",
            count(self.prompts, "prompt"),
            count(self.read, "token"),
            count(self.tokens, "token"),
            duration(super::models::millis(took)),
            duration(super::models::millis(first)),
            if drawn > 0 { format!(", then {}", rate(drawn, later)) } else { String::new() },
            match self.forced {
                0 => String::new(),
                n => format!(", {n} forced by the grammar"),
            },
        );
        if self.cut > 0 {
            eprintln!("{} ended at --max-tokens or at the context", count(self.cut, "sample"));
        }
    }

    fn new(arguments: &Generate, live: bool) -> Writer {
        Writer {
            arguments: arguments.clone(),
            live,
            open: BTreeMap::new(),
            error: None,
            begun: Instant::now(),
            first: None,
            prompts: 0,
            read: 0,
            cached: 0,
            tokens: 0,
            forced: 0,
            cut: 0,
        }
    }
}
