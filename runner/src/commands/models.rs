//! What the commands that use a language model share: which model, on how many threads, and how
//! tokens are drawn.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use quantmill_stages::decode::{Model, Sampling};
use quantmill_stages::infer::Options;
use serde_json::Value;

use super::DeviceName;
use crate::exit::Failure;
use crate::report::text::{bytes, count, duration, number};
use crate::source::SourceError;

/// Which model, and with what means.
#[derive(Args, Clone, Debug)]
pub struct Which {
    /// The model: a folder (config.json, tokenizer.json, weights) or a .gguf file, such as what a
    /// stage left in out/STAGE; or hf://owner/name of the hub
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    /// Threads that compute [default: as many as there are cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Longest sequence, tokens [default: the model's own]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(16..))]
    pub context: Option<u32>,
    /// Where the model computes
    #[arg(long, value_enum, default_value_t = DeviceName::Cpu)]
    pub device: DeviceName,
}

impl Which {
    /// Opens it; says on stderr what it is and how long that took.
    pub fn open(&self, quiet: bool) -> Result<Model, Failure> {
        let path = self.path()?;
        let begun = Instant::now();
        let threads = self.threads.map(usize::from);
        let context = self.context.map(|n| n as usize);
        let options = Options { threads, context, device: self.device.into() };
        let model = Model::open(&path, options, Some(now))?;
        if !quiet {
            let about = model.engine().about();
            let place = match &about.gpu {
                Some(gpu) => format!("on {gpu}"),
                None => format!("{} with {}", count(about.threads, "thread"), about.instructions),
            };
            eprintln!(
                "{} parameters in {} ({:?}), {} at most, {place}; opened in {}",
                parameters(about.parameters),
                bytes(about.bytes as u64),
                about.packing,
                count(about.context, "token"),
                duration(millis(begun.elapsed())),
            );
        }
        Ok(model)
    }

    /// Where it lies; one of the hub is fetched if it is not there.
    fn path(&self) -> Result<PathBuf, Failure> {
        let hub = self.model.to_str().and_then(crate::hub::named);
        if let Some(hub) = hub {
            let place = hub.and_then(|hub| hub.place()).map_err(|error| match error {
                SourceError::Nothing { message, help } => Failure::usage(message, help),
                other => Failure::usage(other.to_string(), None),
            })?;
            let place = PathBuf::from(place);
            // A glob means its folder, `#file.gguf` the file.
            let folder = place.parent().map(Path::to_owned);
            return Ok(if place.is_file() { place } else { folder.unwrap_or(place) });
        }
        if !self.model.exists() {
            let help = "name a folder with config.json, tokenizer.json and weights, or a .gguf file; a stage's model lies in the pipeline's out/STAGE";
            let message = format!("no model at {}", self.model.display());
            return Err(Failure::usage(message, Some(help.into())));
        }
        Ok(self.model.clone())
    }

    /// What the model is called: the name of its file or folder.
    pub fn name(&self) -> String {
        let name = |path: &Path| Some(path.file_name()?.to_string_lossy().into_owned());
        let absolute = std::path::absolute(&self.model).ok();
        name(&self.model).or_else(|| name(&absolute?)).unwrap_or_else(|| "model".into())
    }
}

/// The local time in strftime's format, for chat templates; empty where the format is wrong.
fn now(format: &str) -> String {
    let mut out = String::new();
    match write!(out, "{}", chrono::Local::now().format(format)) {
        Ok(()) => out,
        Err(_) => String::new(),
    }
}

/// `135 million`.
fn parameters(n: usize) -> String {
    match n as f64 {
        n if n < 1e6 => number(n as usize),
        n if n < 1e9 => format!("{:.0} million", n / 1e6),
        n => format!("{:.1} billion", n / 1e9),
    }
}

/// How tokens are drawn.
#[derive(Args, Clone, Debug)]
pub struct Drawing {
    /// Most tokens of a sample
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub max_tokens: usize,
    /// Divides the logits; 0 takes the likeliest token
    #[arg(long, value_name = "T", default_value_t = 0.0, allow_negative_numbers = true)]
    pub temperature: f32,
    /// Draw among that many likeliest tokens; 0 for all
    #[arg(long, value_name = "K", default_value_t = 0)]
    pub top_k: usize,
    /// Draw among the likeliest tokens that together have this probability
    #[arg(long, value_name = "P", default_value_t = 1.0, allow_negative_numbers = true)]
    pub top_p: f32,
    /// Draw among the tokens at least this many times as likely as the likeliest
    #[arg(long, value_name = "P", default_value_t = 0.0, allow_negative_numbers = true)]
    pub min_p: f32,
    /// Make tokens that were there before less likely; 1 does not
    #[arg(long, value_name = "R", default_value_t = 1.0, allow_negative_numbers = true)]
    pub repeat_penalty: f32,
    /// Seed of what is drawn
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// End a sample before this text; may be given again
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
}

impl Drawing {
    /// For the tokens that end a text.
    pub fn sampling(&self, ends: &[u32]) -> Result<Sampling, Failure> {
        let sampling = Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repeat_penalty,
            max_tokens: self.max_tokens,
            stop: ends.to_vec(),
        };
        sampling.check().map_err(|(name, why)| {
            let name = match name {
                "repetition_penalty" => "repeat-penalty".to_owned(),
                name => name.replace('_', "-"),
            };
            Failure::usage(format!("--{name} {why}"), None)
        })?;
        Ok(sampling)
    }
}

/// A JSON file.
pub fn json(path: &Path) -> Result<Value, Failure> {
    let text = fs_err::read_to_string(path)?;
    serde_json::from_str(&text).map_err(|error| {
        Failure::usage(format!("{}:{}: {error}", path.display(), error.line()), None)
    })
}

/// Writes to stdout at once. Where nobody reads any more (`| head`), the process ends quietly.
pub fn put(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            std::process::exit(crate::exit::code::OK.into())
        }
        other => Ok(other?),
    }
}

/// Whole milliseconds.
pub fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// `182 tokens/s`.
pub fn rate(tokens: usize, time: Duration) -> String {
    let rate = tokens as f64 / time.as_secs_f64().max(1e-9);
    if rate < 10.0 { format!("{rate:.1} tokens/s") } else { format!("{rate:.0} tokens/s") }
}
