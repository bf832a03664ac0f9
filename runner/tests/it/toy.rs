//! Kinds of stages that do nothing, beside the real `command`: ports, formats and parameters to check.

use std::collections::BTreeMap;

use quantmill_stages::command::Command;
use quantmill_stages::{Context, Format, Invalid, Items, Kind, Port, Result, Stage};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The kinds that the tests know.
pub const KINDS: &[Kind] = &[
    Kind::of::<Extract>(),
    Kind::of::<Chunk>(),
    Kind::of::<Pairs>(),
    Kind::of::<Train>(),
    Kind::of::<Command>(),
];

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct None {}

pub struct Extract;

impl Stage for Extract {
    const NAME: &'static str = "extract";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "text of documents";
    type Params = None;
    fn inputs(_: &None) -> Vec<Port> {
        vec![Port::input("documents", Format::Document)]
    }
    fn outputs(_: &None) -> Vec<Port> {
        vec![Port::tree("text", Format::Text, "text")]
    }
    fn items(_: &None) -> Option<Items> {
        Some(Items::of("documents"))
    }
    fn run(_: &None, _: &Context) -> Result<()> {
        Ok(())
    }
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ChunkParams {
    /// Fewest tokens of a chunk.
    min_tokens: u32,
    /// Most tokens of a chunk.
    max_tokens: u32,
    /// How text becomes tokens.
    encoding: Encoding,
    /// Drop what comes twice.
    dedup: bool,
    /// Titles of sections to leave out.
    skip: Vec<String>,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    O200kBase,
    Cl100kBase,
}

impl Default for ChunkParams {
    fn default() -> ChunkParams {
        let encoding = Encoding::O200kBase;
        ChunkParams { min_tokens: 800, max_tokens: 2000, encoding, dedup: true, skip: vec![] }
    }
}

pub struct Chunk;

impl Stage for Chunk {
    const NAME: &'static str = "chunk";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "chunks of text";
    type Params = ChunkParams;
    fn inputs(_: &ChunkParams) -> Vec<Port> {
        vec![Port::input("text", Format::Text)]
    }
    fn outputs(_: &ChunkParams) -> Vec<Port> {
        vec![
            Port::file("chunks", Format::Chunks, "chunks.jsonl"),
            Port::file("index", Format::Any, "chunks.index.jsonl"),
        ]
    }
    fn check(params: &ChunkParams) -> std::result::Result<(), Invalid> {
        match params.min_tokens > params.max_tokens {
            true => Err(Invalid::new("min_tokens", "more than `max_tokens`")
                .help("lower `min_tokens` or raise `max_tokens`")),
            false => Ok(()),
        }
    }
    fn run(_: &ChunkParams, _: &Context) -> Result<()> {
        Ok(())
    }
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PairsParams {
    /// The instrument, as the exchange writes it.
    ticker: String,
    /// Weights of the parts of the reward, by name.
    #[serde(default)]
    weights: BTreeMap<String, f64>,
}

pub struct Pairs;

impl Stage for Pairs {
    const NAME: &'static str = "pairs";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "preference pairs";
    type Params = PairsParams;
    fn inputs(_: &PairsParams) -> Vec<Port> {
        vec![Port::input("prompts", Format::Prompts), Port::input("features", Format::Features)]
    }
    fn outputs(_: &PairsParams) -> Vec<Port> {
        vec![Port::file("pairs", Format::Pairs, "pairs.jsonl")]
    }
    fn run(_: &PairsParams, _: &Context) -> Result<()> {
        Ok(())
    }
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainParams {
    /// What to train for.
    #[serde(default)]
    method: Method,
    /// Step size.
    #[serde(default = "rate")]
    learning_rate: f64,
    /// Low-rank adapter; without it all weights are trained.
    #[serde(default)]
    lora: Option<Lora>,
}

fn rate() -> f64 {
    1e-4
}

#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    #[default]
    Sft,
    Dpo,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Lora {
    /// Rank.
    r: u32,
    /// Scale.
    #[serde(default)]
    alpha: f64,
}

pub struct Train;

impl Stage for Train {
    const NAME: &'static str = "train";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "a language model";
    const SEEDED: bool = true;
    const TRIAL: bool = true;
    type Params = TrainParams;
    fn inputs(params: &TrainParams) -> Vec<Port> {
        let data = match params.method {
            Method::Sft => Port::input("corpus", Format::Chunks),
            Method::Dpo => Port::input("pairs", Format::Pairs),
        };
        vec![data, Port::optional("base", Format::Model)]
    }
    fn outputs(_: &TrainParams) -> Vec<Port> {
        vec![
            Port::tree("model", Format::Model, "model"),
            Port::file("log", Format::Log, "log.jsonl"),
        ]
    }
    fn check(params: &TrainParams) -> std::result::Result<(), Invalid> {
        match params.lora.as_ref().is_some_and(|lora| lora.r == 0) {
            true => Err(Invalid::new("lora.r", "a rank is at least 1")),
            false => Ok(()),
        }
    }
    fn run(_: &TrainParams, _: &Context) -> Result<()> {
        Ok(())
    }
}
