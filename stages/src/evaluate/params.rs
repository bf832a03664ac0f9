//! The parameters of `evaluate`, and what of them is refused.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::anonymise::Anonymise;
use super::backtest::{Fill, Rules};
use super::policy::Policy;
use super::queues::Book;
use crate::Invalid;
use crate::pairs::decision::{Allowed, Form, MAX_SIZE};

/// The span that is judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Judging {
    /// The test span.
    #[default]
    Test,
    /// The sealed holdout. Each configuration that is tried on it counts as an opening.
    Holdout,
}

impl Judging {
    /// As the column `split` has it.
    pub fn name(self) -> &'static str {
        match self {
            Judging::Test => "test",
            Judging::Holdout => "holdout",
        }
    }

    fn usual(&self) -> bool {
        *self == Judging::Test
    }
}

/// How a model answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Asking {
    /// By a text that nothing constrains; one that does not read counts as a parse failure.
    #[default]
    Free,
    /// Kept to the grammar of decisions: `buy limit 10`.
    Words,
    /// Kept to the grammar of decisions: `{"action":"limit","side":"buy","offset_bps":10,"size":1}`.
    Json,
    /// Kept to the grammar of decisions: `B10`.
    Code,
    /// By no text: a linear classifier of the model's state after the prompt, fitted on `pairs`.
    Head,
}

impl Asking {
    /// The form of the grammar, where there is one.
    pub fn form(self) -> Option<Form> {
        match self {
            Asking::Free | Asking::Head => None,
            Asking::Words => Some(Form::Words),
            Asking::Json => Some(Form::Json),
            Asking::Code => Some(Form::Code),
        }
    }
}

/// `with:` of `evaluate`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Params {
    /// The span that is judged: `test`, or `holdout`, which opens the sealed holdout. Its prompts come
    /// from an `encode` with `split: holdout`.
    #[serde(skip_serializing_if = "Judging::usual")]
    pub split: Judging,
    /// Judge a numerical model: from the port `forecasts` to target positions. Left out, a language
    /// model's answers to prompts are judged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forecasts: Option<Policy>,
    /// How the model answers: free text, under the grammar of decisions in one of its forms, or by a
    /// classification head. Take the form that it was taught (`answers` of `pairs`).
    pub form: Asking,
    /// Offsets of limit orders that the grammar allows, basis points; an empty list allows 1 to 500. As
    /// `offsets_bps` of `pairs`.
    pub offsets_bps: Vec<u32>,
    /// `form: head`: weight of half the squared weights beside the mean cross-entropy, on states scaled
    /// to deviation 1.
    pub head_l2: f64,
    /// The most tokens of a free answer; a grammar bounds its own.
    pub max_new_tokens: usize,
    /// Sampling temperature; 0 takes the likeliest token (greedy).
    pub temperature: f64,
    /// Decode at most this many prompts, the first of the test span; the backtest ends with them.
    pub max_prompts: Option<usize>,
    /// Bars from a decision's close to the bar in which its order can fill; 1 is the next bar.
    pub latency: usize,
    /// When a bar fills a resting limit order: it trades beyond the limit, or touches it.
    pub fill: Fill,
    /// The book's events, from the port `events`: limit orders are followed through its queues as well,
    /// and `fill: queue` fills them there. Features and prompts must be of a clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub book: Option<Book>,
    /// Bars after which a position that no decision confirms is closed; 0 holds it until the next order.
    pub horizon: usize,
    /// Bars for which a limit order rests unless it is replaced, cancelled or filled.
    pub rest_bars: usize,
    /// A unit of size as a share of the equity: `buy market x2` asks for a position of twice that.
    pub unit: f64,
    /// Larger sizes count as this many units; 1 leaves the size out of account.
    pub max_size: u32,
    /// Fee of a market order in basis points, each side.
    pub taker_fee_bps: f64,
    /// Fee of a resting limit order in basis points, each side; negative is a rebate.
    pub maker_fee_bps: f64,
    /// What a market order pays beyond the mid in basis points, each side.
    pub half_spread_bps: f64,
    /// What a market order pays beyond the half spread in basis points, each side: slippage.
    pub slippage_bps: f64,
    /// Bars a year; left out, it is read off the dates.
    pub periods_per_year: Option<f64>,
    /// Bootstrap draws behind each interval.
    pub draws: usize,
    /// Random portfolios that the model is ranked among.
    pub random_portfolios: usize,
    /// Prompts shown with their answers.
    pub samples: usize,
    /// The last day of the text that the model was trained on, where it is known (YYYY-MM-DD).
    pub knowledge_cutoff: Option<String>,
    /// Ask the model a second time, with names replaced and dates moved in its prompts, and compare: a
    /// Sharpe ratio that falls hints at memory. It takes as long again as the first time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anonymise: Option<Anonymise>,
    /// Claims to judge.
    pub targets: Targets,
}

/// Claims that the report judges as PASS, FAIL or NOT PROVEN.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Targets {
    /// Sharpe ratio a year above this.
    pub sharpe: f64,
    /// Deepest fall smaller than this share.
    pub max_drawdown: f64,
    /// Share of profitable trades above this.
    pub hit_rate: f64,
}

impl Default for Targets {
    fn default() -> Self {
        Targets { sharpe: 1.5, max_drawdown: 0.15, hit_rate: 0.7 }
    }
}

impl Default for Params {
    fn default() -> Self {
        Params {
            split: Judging::Test,
            form: Asking::Free,
            offsets_bps: vec![10, 25, 50, 100],
            head_l2: 1.0,
            forecasts: None,
            max_new_tokens: 16,
            temperature: 0.0,
            max_prompts: None,
            latency: 1,
            fill: Fill::Penetrate,
            book: None,
            horizon: 0,
            rest_bars: 1,
            unit: 1.0,
            max_size: 1,
            taker_fee_bps: 1.0,
            maker_fee_bps: 0.0,
            half_spread_bps: 1.0,
            slippage_bps: 0.0,
            periods_per_year: None,
            draws: 5000,
            random_portfolios: 1000,
            samples: 8,
            knowledge_cutoff: None,
            anonymise: None,
            targets: Targets::default(),
        }
    }
}

impl Params {
    /// What the grammar lets a model say: `hold` and `cancel` only where orders rest for longer than
    /// to the next decision.
    pub fn allowed(&self) -> Allowed {
        Allowed {
            offsets_bps: self.offsets_bps.clone(),
            max_size: self.max_size,
            resting: self.rest_bars > 1,
        }
    }

    /// How orders fill and what they cost.
    pub fn rules(&self) -> Rules {
        Rules {
            latency: self.latency,
            fill: self.fill,
            horizon: self.horizon,
            taker_bps: self.taker_fee_bps,
            maker_bps: self.maker_fee_bps,
            half_spread_bps: self.half_spread_bps,
            unit: self.unit,
            max_size: self.max_size,
            rest: self.rest_bars,
            slippage_bps: self.slippage_bps,
        }
    }

    /// What the types cannot say.
    pub fn check(&self) -> Result<(), Invalid> {
        let at_least = |path: &str, value: f64, least: f64| {
            let fine = value.is_finite() && value >= least;
            let why = format!("must be at least {least}, and is {value}");
            if fine { Ok(()) } else { Err(Invalid::new(path, why)) }
        };
        if let Some(policy) = &self.forecasts {
            policy.check()?;
        }
        match (&self.anonymise, &self.forecasts) {
            (Some(_), Some(_)) => {
                return Err(Invalid::new("anonymise", "a numerical model reads no prompts"));
            }
            (Some(anonymise), None) => anonymise.check()?,
            (None, _) => {}
        }
        match (&self.book, &self.forecasts) {
            (Some(_), Some(_)) => {
                return Err(Invalid::new("book", "positions from forecasts send no limit orders"));
            }
            (Some(book), None) => book.check()?,
            (None, _) if self.fill == Fill::Queue => {
                return Err(Invalid::new("fill", "`queue` needs the book’s events")
                    .help("set `book: { source: { binance: {} } }`, and feed its files to the port `events`"));
            }
            (None, _) => {}
        }
        at_least("max_new_tokens", self.max_new_tokens as f64, 1.0)?;
        at_least("temperature", self.temperature, 0.0)?;
        at_least("max_prompts", self.max_prompts.map_or(2.0, |n| n as f64), 2.0)?;
        at_least("latency", self.latency as f64, 1.0)
            .map_err(|e| e.help("a decision uses the close, so that it cannot trade at it"))?;
        at_least("rest_bars", self.rest_bars as f64, 1.0)?;
        if !(self.unit > 0.0 && self.unit.is_finite()) {
            return Err(Invalid::new("unit", "must be above 0"));
        }
        if !(1..=MAX_SIZE).contains(&self.max_size) {
            return Err(Invalid::new("max_size", format!("must lie between 1 and {MAX_SIZE}")));
        }
        at_least("taker_fee_bps", self.taker_fee_bps, 0.0)?;
        at_least("half_spread_bps", self.half_spread_bps, 0.0)?;
        self.allowed().check().map_err(|why| Invalid::new("offsets_bps", why))?;
        if !(self.head_l2 > 0.0 && self.head_l2.is_finite()) {
            return Err(Invalid::new("head_l2", "must be above 0"));
        }
        at_least("slippage_bps", self.slippage_bps, 0.0)?;
        at_least("draws", self.draws as f64, 100.0)?;
        at_least("random_portfolios", self.random_portfolios as f64, 20.0)?;
        if !self.maker_fee_bps.is_finite() {
            return Err(Invalid::new("maker_fee_bps", "must be a number"));
        }
        if self.periods_per_year.is_some_and(|p| !(p.is_finite() && p > 0.0)) {
            return Err(Invalid::new("periods_per_year", "must be above 0"));
        }
        if self
            .knowledge_cutoff
            .as_deref()
            .is_some_and(|d| d.len() != 10 || super::input::day(d).is_none())
        {
            return Err(
                Invalid::new("knowledge_cutoff", "is not a date").help("write it as YYYY-MM-DD")
            );
        }
        for (path, share) in [
            ("targets.max_drawdown", self.targets.max_drawdown),
            ("targets.hit_rate", self.targets.hit_rate),
        ] {
            if !(share > 0.0 && share < 1.0) {
                let why = format!("must lie between 0 and 1, and is {share}");
                return Err(Invalid::new(path, why).help("15 % is written 0.15"));
            }
        }
        at_least("targets.sharpe", self.targets.sharpe, 0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_hold_and_nonsense_does_not() {
        assert_eq!(Params::default().check(), Ok(()));
        type Spoil = fn(&mut Params);
        let wrong: [(&str, Spoil); 8] = [
            ("latency", |p| p.latency = 0),
            ("temperature", |p| p.temperature = -1.0),
            ("half_spread_bps", |p| p.half_spread_bps = f64::NAN),
            ("targets.max_drawdown", |p| p.targets.max_drawdown = 15.0),
            ("knowledge_cutoff", |p| p.knowledge_cutoff = Some("2020-13-01".into())),
            ("draws", |p| p.draws = 0),
            ("anonymise.shift_days", |p| {
                p.anonymise = Some(Anonymise { shift_days: 365, ..Anonymise::default() });
            }),
            ("anonymise", |p| {
                (p.anonymise, p.forecasts) = (Some(Anonymise::default()), Some(Policy::default()));
            }),
        ];
        for (path, spoil) in wrong {
            let mut params = Params::default();
            spoil(&mut params);
            assert_eq!(params.check().unwrap_err().path, path);
        }
    }
}
