//! The stage: ports, and the way from inputs to a model folder.

use super::dpo::Pairs;
use super::log::Log;
use super::params::{Method, Params, check};
use super::prepare::{self, Market, Start};
use super::steps::Run;
use super::{dapo, dpo, sft};
use crate::device::{self, is_cpu};
use crate::{Context, Format, Invalid, Port, Result, Stage};

/// See the module.
pub struct Train;

impl Stage for Train {
    const NAME: &'static str = "train";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "trains a language model on a corpus, on preferences or on rewards";
    const SEEDED: bool = true;
    const DEVICE: bool = true;
    const TRIAL: bool = true;
    type Params = Params;

    fn inputs(params: &Params) -> Vec<Port> {
        match params.method {
            Method::Sft => {
                vec![Port::input("corpus", Format::Chunks), Port::optional("base", Format::Model)]
            }
            Method::Dpo => {
                vec![Port::input("base", Format::Model), Port::input("pairs", Format::Pairs)]
            }
            Method::Dapo => vec![
                Port::input("base", Format::Model),
                Port::input("pairs", Format::Pairs),
                Port::input("reward", Format::Any),
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
        run.tell(0, "reading")?;
        let (model, tokenizer) = match params.method {
            Method::Sft => {
                let corpus = prepare::corpus(ctx.file("corpus")?)?;
                let start = match ctx.has("base") {
                    true => Start::base(ctx, params, &place)?,
                    false => Start::fresh(ctx, params, &corpus, &place)?,
                };
                let (mut train, valid) = prepare::windows(&start, &corpus, params, ctx)?;
                let model = sft::run(start.model, &mut train, valid.as_ref(), &mut run)?;
                (model, start.tokenizer)
            }
            Method::Dpo => {
                let start = Start::base(ctx, params, &place)?;
                let settings = params.dpo.clone().unwrap_or_default();
                let pairs: Pairs = prepare::pairs(&start, ctx.file("pairs")?, params)?;
                let reference = start.reference();
                let model = dpo::run(start.model, &reference, &pairs, &settings, &mut run)?;
                (model, start.tokenizer)
            }
            Method::Dapo => {
                let start = Start::base(ctx, params, &place)?;
                let settings = params.dapo.clone().unwrap_or_default();
                let mut market = Market::read(&start, ctx, &settings)?;
                let model = dapo::run(start.model, &mut market, &settings, &mut run)?;
                (model, start.tokenizer)
            }
        };
        run.log.finish()?;
        prepare::save(&model, &tokenizer, params, ctx.output("model")?)
    }
}
