//! The stage: ports, and the way from inputs to a model folder.

use super::check::check;
use super::log::Log;
use super::market::Market;
use super::params::{Method, Params};
use super::prepare::{self, Ended, Start};
use super::steps::Run;
use super::{dapo, dpo, records, sft};
use crate::device::{self, is_cpu};
use crate::{Context, Format, Invalid, Port, Result, Stage, StageError};

/// See the module.
pub struct Train;

impl Stage for Train {
    const NAME: &'static str = "train";
    const VERSION: u32 = 4;
    const ABOUT: &'static str = "trains a language model on a corpus, on preferences or on rewards";
    const SEEDED: bool = true;
    const DEVICE: bool = true;
    const TRIAL: bool = true;
    const RESUMES: bool = true;
    type Params = Params;

    fn inputs(params: &Params) -> Vec<Port> {
        let scorer = params.dapo.as_ref().is_some_and(|dapo| dapo.reward.is_some());
        match params.method {
            Method::Sft => {
                vec![Port::input("corpus", Format::Chunks), Port::optional("base", Format::Model)]
            }
            Method::Dpo => {
                vec![Port::input("base", Format::Model), Port::input("pairs", Format::Pairs)]
            }
            Method::Dapo => vec![
                Port::input("base", Format::Model),
                // A program scores what it likes: prompts are then enough.
                Port::input("pairs", if scorer { Format::Any } else { Format::Pairs }),
                match scorer {
                    true => Port::optional("reward", Format::Any),
                    false => Port::input("reward", Format::Any),
                },
            ],
        }
    }

    fn outputs(_: &Params) -> Vec<Port> {
        vec![
            Port::tree("model", Format::Model, "model"),
            Port::file("log", Format::Log, "log.jsonl"),
        ]
    }

    fn check(params: &Params) -> Result<(), Invalid> {
        check(params)
    }

    fn run(params: &Params, ctx: &Context) -> Result<()> {
        let place = device::open(ctx.device())?;
        let log = Log::create(ctx.output("log")?)?;
        let mut run = Run { ctx, params, log, on_cpu: is_cpu(&place) };
        run.tell(0, 0, "reading")?;
        let ended = match params.method {
            Method::Sft => {
                let path = ctx.file("corpus")?;
                let corpus = records::read(path)?;
                if !ctx.has("base") && params.lora.as_ref().is_some_and(|lora| lora.qlora) {
                    return Err(StageError::failed("`lora.qlora` without a `base` to hold")
                        .hint("feed a model to `base`"));
                }
                let start = match ctx.has("base") {
                    true => Start::base(ctx, params, &place)?,
                    false => Start::fresh(ctx, params, &corpus, &place)?,
                };
                let (mut train, valid) = prepare::windows(&start, path, &corpus, params, ctx)?;
                let Start { model, tokenizer, template, .. } = start;
                let model = sft::run(model, &mut train, &valid, &mut run)?;
                Ended { model, tokenizer, template }
            }
            Method::Dpo => {
                let start = Start::base(ctx, params, &place)?;
                let settings = params.dpo.clone().unwrap_or_default();
                let pairs = prepare::pairs(&start, ctx.file("pairs")?, params)?;
                let reference = start.reference();
                let Start { model, tokenizer, template, .. } = start;
                let model = dpo::run(model, &reference, &pairs, &settings, &mut run)?;
                Ended { model, tokenizer, template }
            }
            Method::Dapo => {
                let start = Start::base(ctx, params, &place)?;
                let settings = params.dapo.clone().unwrap_or_default();
                let mut market = Market::read(&start, ctx, &settings)?;
                let Start { model, tokenizer, template, .. } = start;
                let model = dapo::run(model, &mut market, &settings, &mut run)?;
                Ended { model, tokenizer, template }
            }
        };
        prepare::save(&ended, params, run.log.rows(), ctx)
    }
}
