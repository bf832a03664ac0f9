//! `encode`: the market state of a bar as a text that a person can read.
//!
//! The text is a Jinja template, filled for each row of the training and the test span. Built in
//! are `narrative` (sentences; the default), `report` (headed lines, with the possible answers) and
//! `raw` (names and numbers); `template` in the pipeline takes their place. Every prompt ends with
//! a line `Decision:`, after which a completion goes on with a space.
//!
//! A template knows each feature by its name, as an object of `value`, `percentile` (1 to 99, among
//! the training rows) and `level` (a word); `features`, the list of all with their `name`; `past`,
//! the features of the `context_states` rows before; `returns`, the last `context_bars` returns as
//! texts, and `bars_back`, how many they are, in words; `account` (`position`, `pnl_bps`,
//! `decisions`, `resting`) and `news`, where those ports are fed; `bar`, `date`, `open`, `high`, `low`, `close`
//! and `volume`. Filters: `fixed(n)` and `signed(n)` decimals, `digits(n)` significant digits,
//! `plain(n)` decimals but two significant digits at least, `number` (as short as it is exact),
//! `ordinal`.
//!
//! The built-in styles name neither date nor price nor ticker: a pretrained model may remember what
//! followed a date, and a number that only one year has is a date too.
//!
//! A text of more than `max_tokens` is told shorter: without past states, then with less news, then
//! without returns. One that is still too long is kept, and counted in a warning.
//!
//! It reads nothing past the row that it writes, except the bins, which are of the training span. A
//! line of news or of the account counts from its date on: where a source says when something
//! happened rather than when it was known, the dates must be moved before they come here.

pub mod beside;
pub mod bins;
pub mod prompt;
pub mod state;
pub mod words;

#[cfg(test)]
mod tests;

use std::io::Write;

use minijinja::Environment;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::chunk::tokens::{Counter, Encoding, Tokens};
use crate::featurize::split::{Bound, Split, evenly};
use crate::featurize::table::{self, Extent, Row, Rows};
use crate::market::time;
use crate::{Context, Format, Invalid, Port, Result, Stage, StageError};
use beside::{Account, Beside};
use bins::Bins;
use prompt::Prompt;
use words::{Scene, Wording, Wrong};

/// A built-in template.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Style {
    /// Sentences.
    #[default]
    Narrative,
    /// Headed lines, with the possible answers.
    Report,
    /// Names and numbers.
    Raw,
}

impl Style {
    fn template(self) -> &'static str {
        match self {
            Style::Narrative => include_str!("templates/narrative.txt"),
            Style::Report => include_str!("templates/report.txt"),
            Style::Raw => include_str!("templates/raw.txt"),
        }
    }
}

/// Which rows get a prompt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Spans {
    /// Those of the training and the test span.
    #[default]
    TrainTest,
    /// Those of the sealed holdout and no others. This opens it: once, for the last word on a model that
    /// was chosen without it. `evaluate` with `split: holdout` takes the prompts, and each configuration
    /// that it tries there counts as an opening in the ledger of trials.
    Holdout,
}

/// Parameters of `encode`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Params {
    /// The built-in template.
    pub style: Style,
    /// A Jinja template of your own, in place of `style`.
    pub template: Option<String>,
    /// What a bar is called in the text, in the singular.
    pub bar: String,
    /// Bars whose returns are listed at the end; 0 for none.
    pub context_bars: usize,
    /// Rows before this one whose states are told in short; 0 for none.
    pub context_states: usize,
    /// Past decisions that are told, where the port `account` is fed.
    pub context_decisions: usize,
    /// Lines of news that are told, where the port `news` is fed.
    pub news_lines: usize,
    /// Decimals of returns in percent: 1 for days, 3 or so for ticks.
    pub decimals: usize,
    /// A longer text is told shorter, as far as it can. Without it, texts are as long as they are.
    pub max_tokens: Option<usize>,
    /// The encoding whose tokens count.
    pub encoding: Encoding,
    /// Which rows get a prompt: `train_test`, or `holdout`, which opens the sealed holdout.
    #[serde(skip_serializing_if = "Spans::usual")]
    pub split: Spans,
    /// The first date that gets a prompt.
    pub from: Option<String>,
    /// The last date that gets a prompt.
    pub to: Option<String>,
    /// Every so-many-th training row gets a prompt.
    pub stride: usize,
    /// Training prompts at most, spread evenly. Without it, all.
    pub max_train_rows: Option<usize>,
    /// Test or holdout prompts at most: the first so many, without holes. Without it, all.
    pub max_test_rows: Option<usize>,
}

impl Default for Params {
    fn default() -> Params {
        Params {
            style: Style::default(),
            template: None,
            bar: "day".into(),
            context_bars: 3,
            context_states: 0,
            context_decisions: 3,
            news_lines: 2,
            decimals: 1,
            max_tokens: Some(256),
            encoding: Encoding::default(),
            split: Spans::default(),
            from: None,
            to: None,
            stride: 1,
            max_train_rows: None,
            max_test_rows: None,
        }
    }
}

impl Spans {
    fn usual(&self) -> bool {
        *self == Spans::default()
    }
}

impl Params {
    fn template(&self) -> &str {
        self.template.as_deref().unwrap_or(self.style.template())
    }
    fn wording(&self) -> Wording<'_> {
        let (back, states) = (self.context_bars, self.context_states);
        Wording { bar: &self.bar, back, decimals: self.decimals, states }
    }
}

/// The stage.
pub struct Encode;

impl Stage for Encode {
    const NAME: &'static str = "encode";
    const VERSION: u32 = 3;
    const ABOUT: &'static str = "the market state as a prompt in words";
    type Params = Params;

    fn inputs(_: &Params) -> Vec<Port> {
        vec![
            Port::input("features", Format::Features),
            Port::optional("account", Format::Any),
            Port::optional("news", Format::Any),
        ]
    }

    fn outputs(_: &Params) -> Vec<Port> {
        vec![
            Port::file("prompts", Format::Prompts, "prompts.jsonl"),
            Port::file("bins", Format::Metrics, "bins.json"),
        ]
    }

    fn check(params: &Params) -> Result<(), Invalid> {
        check(params)
    }

    fn run(params: &Params, ctx: &Context) -> Result<()> {
        let files = table::files(ctx)?;
        let extent = table::extent(&files)?;
        let bins = Bins::fit(&files, extent)?;
        let told = write(params, extent, &bins, ctx)?;
        if told.train + told.test == 0 {
            return Err(StageError::bad(
                table::first(&files),
                "no row is left to write a prompt for",
            )
            .hint(match params.split {
                Spans::TrainTest => "check `from` and `to` against the dates of the training and test span",
                Spans::Holdout => "`splits.holdout_start` of the featurize stage seals a holdout; check `from` and `to` against it",
            }));
        }
        let mut json = serde_json::to_string_pretty(&bins).map_err(std::io::Error::from)?;
        json.push('\n');
        fs_err::write(ctx.output("bins")?, json)?;
        let all = (told.train + told.test) as f64;
        if params.split == Spans::Holdout {
            ctx.metric("prompts_holdout", told.test as f64);
            ctx.warn(format!(
                "the sealed holdout is open: {} prompts; whatever is chosen after looking at it needs a new one",
                told.test
            ));
        } else {
            ctx.metric("prompts_train", told.train as f64);
            ctx.metric("prompts_test", told.test as f64);
        }
        ctx.metric("words_mean", told.words as f64 / all);
        ctx.metric("tokens_mean", told.tokens as f64 / all);
        ctx.metric("tokens_max", told.most_tokens as f64);
        ctx.metric("told_shorter", told.shortened as f64);
        if told.long > 0 {
            let most = params.max_tokens.unwrap_or_default();
            ctx.warn(format!(
                "{} of {all} prompts are longer than {most} tokens; the longest has {}: shorten `template`, or raise `max_tokens`",
                told.long, told.most_tokens
            ));
        }
        Ok(())
    }
}

fn check(params: &Params) -> Result<(), Invalid> {
    let dates = [("from", &params.from), ("to", &params.to)];
    for (name, text) in dates {
        if text.as_ref().is_some_and(|t| time::parse(t).is_none()) {
            let text = text.as_deref().unwrap_or_default();
            return Err(Invalid::new(name, format!("`{text}` is not a date")).help(time::HINT));
        }
    }
    if let (Some(from), Some(to)) = (Bound::read(&params.from), Bound::read(&params.to))
        && !to.holds(from.first)
    {
        return Err(Invalid::new("to", "lies before `from`"));
    }
    let above_zero = [
        ("stride", Some(params.stride)),
        ("max_train_rows", params.max_train_rows),
        ("max_test_rows", params.max_test_rows),
    ];
    for (name, value) in above_zero {
        if value == Some(0) {
            return Err(Invalid::new(name, "must be above 0"));
        }
    }
    for (name, count) in [
        ("context_bars", params.context_bars),
        ("context_states", params.context_states),
        ("context_decisions", params.context_decisions),
        ("news_lines", params.news_lines),
    ] {
        if count > 100 {
            return Err(Invalid::new(name, "must be at most 100"));
        }
    }
    if params.decimals > 12 {
        return Err(Invalid::new("decimals", "must be at most 12"));
    }
    if params.max_tokens.is_some_and(|most| most < 16) {
        return Err(Invalid::new("max_tokens", "must be at least 16"));
    }
    if Tokens::built_in(params.encoding).is_none() {
        return Err(Invalid::new("encoding", "must be one that is built in"));
    }
    if params.bar.trim().is_empty() {
        return Err(Invalid::new("bar", "must be a word, such as `day`"));
    }
    words::check(params.template()).map_err(|e| Invalid::new("template", described(&e)))
}

fn described(wrong: &Wrong) -> String {
    match wrong.line {
        Some(line) => format!("line {line}: {}", wrong.message),
        None => wrong.message.clone(),
    }
}

fn failed(wrong: &Wrong, names: &[String]) -> StageError {
    let own = names.join("`, `");
    StageError::failed(format!("template: {}", described(wrong))).hint(format!(
        "a template knows the features `{own}` (each with `.value`, `.level`, `.percentile`), `features`, `past`, `returns`, `bars_back`, `account`, `news`, `bar`, `date`, `open`, `high`, `low`, `close`, `volume`, and the filters fixed, signed, digits, plain, number and ordinal"
    ))
}

/// Which rows get a prompt, asked in their order.
struct Choice<I: Iterator<Item = usize>> {
    from: Option<Bound>,
    to: Option<Bound>,
    /// The numbers of the training rows within the dates that are taken.
    train: std::iter::Peekable<I>,
    seen: usize,
    /// The split that is taken beside them: test, or holdout alone.
    judged: Split,
    /// Rows of it that may still be taken.
    test: usize,
}

/// The choice of the parameters; counts the training rows within the dates first.
fn choice(
    params: &Params,
    extent: Extent,
    ctx: &Context,
) -> Result<Choice<impl Iterator<Item = usize>>> {
    let (from, to) = (Bound::read(&params.from), Bound::read(&params.to));
    let mut train = extent.train;
    if from.is_some() || to.is_some() {
        train = 0;
        for row in Rows::open_all(&table::files(ctx)?)?.take(extent.train_end) {
            let row = row?;
            train += usize::from(row.split == Split::Train && within(&row, from, to));
        }
    }
    let stride = params.stride;
    let strided = train.div_ceil(stride);
    let taken = evenly(strided, params.max_train_rows.unwrap_or(usize::MAX));
    let train = taken.map(move |i| i * stride).peekable();
    let judged = match params.split {
        Spans::TrainTest => Split::Test,
        Spans::Holdout => Split::Holdout,
    };
    let test = params.max_test_rows.unwrap_or(usize::MAX);
    Ok(Choice { from, to, train, seen: 0, judged, test })
}

fn within(row: &Row, from: Option<Bound>, to: Option<Bound>) -> bool {
    from.is_none_or(|from| row.time >= from.first) && to.is_none_or(|to| to.holds(row.time))
}

impl<I: Iterator<Item = usize>> Choice<I> {
    fn takes(&mut self, row: &Row) -> bool {
        if !within(row, self.from, self.to) {
            return false;
        }
        match row.split {
            Split::Train if self.judged == Split::Test => {
                self.seen += 1;
                self.train.next_if_eq(&(self.seen - 1)).is_some()
            }
            split if split == self.judged && self.test > 0 => {
                self.test -= 1;
                true
            }
            _ => false,
        }
    }
}

/// What was written.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    train: usize,
    test: usize,
    words: usize,
    tokens: usize,
    most_tokens: usize,
    shortened: usize,
    long: usize,
}

/// A row that gets a prompt: its place in the batch, and what stands beside it.
struct Due {
    at: usize,
    account: Option<Account>,
    news: Vec<String>,
}

/// Rows that are held and rendered at once.
const BATCH: usize = 4096;

fn write(params: &Params, extent: Extent, bins: &Bins, ctx: &Context) -> Result<Told> {
    let rows = Rows::open_all(&table::files(ctx)?)?;
    let names = rows.names().to_vec();
    let environment = words::parse(params.template()).map_err(|e| failed(&e, &names))?;
    let mut choice = choice(params, extent, ctx)?;
    let port = |name: &str| ctx.has(name).then(|| ctx.file(name)).transpose();
    let back = (params.context_decisions, params.news_lines);
    let mut beside = Beside::open(port("account")?, port("news")?, back)?;
    let mut out = std::io::BufWriter::new(fs_err::File::create(ctx.output("prompts")?)?);
    let mut told = Told::default();
    let behind = params.context_bars.max(params.context_states);
    let (mut held, mut due, mut done): (Vec<Row>, Vec<Due>, usize) = Default::default();
    let mut rows = rows.peekable();
    while let Some(row) = rows.next() {
        let row = row?;
        if choice.takes(&row) {
            let (account, news) = beside.at(row.time)?;
            due.push(Due { at: held.len(), account, news });
        }
        held.push(row);
        if held.len() < behind + BATCH && rows.peek().is_some() {
            continue;
        }
        let teller = Teller { params, environment: &environment, names: &names, bins };
        for line in teller.batch(&held, &due)? {
            serde_json::to_writer(&mut out, &line.prompt).map_err(std::io::Error::from)?;
            out.write_all(b"\n")?;
            *if line.prompt.split == Split::Train { &mut told.train } else { &mut told.test } += 1;
            told.words += line.prompt.prompt.split_whitespace().count();
            told.tokens += line.tokens;
            told.most_tokens = told.most_tokens.max(line.tokens);
            told.shortened += usize::from(line.shortened);
            told.long += usize::from(params.max_tokens.is_some_and(|most| line.tokens > most));
        }
        due.clear();
        done += held.len().min(BATCH);
        held.drain(..held.len().saturating_sub(behind));
        ctx.progress(done.min(extent.rows) as u64, extent.rows as u64, "rows", "")?;
    }
    out.flush()?;
    Ok(told)
}

/// A prompt, and how it came out.
struct Line {
    prompt: Prompt,
    tokens: usize,
    shortened: bool,
}

struct Teller<'a> {
    params: &'a Params,
    environment: &'a Environment<'a>,
    names: &'a [String],
    bins: &'a Bins,
}

impl Teller<'_> {
    fn batch(&self, held: &[Row], due: &[Due]) -> Result<Vec<Line>> {
        let Some(tokens) = Tokens::built_in(self.params.encoding) else { return Ok(Vec::new()) };
        let counter = || Counter::new(tokens.clone());
        // Few and large parts: a counter learns the pieces of its texts.
        let part = due.len().div_ceil(rayon::current_num_threads()).max(1);
        let lines: Vec<Result<Vec<Line>>> = due
            .par_chunks(part)
            .map_init(counter, |counter, part| {
                part.iter().map(|due| self.line(held, due, counter)).collect()
            })
            .collect();
        lines.into_iter().try_fold(Vec::with_capacity(due.len()), |mut all, part| {
            all.extend(part?);
            Ok(all)
        })
    }

    fn line(&self, held: &[Row], due: &Due, counter: &mut Counter) -> Result<Line> {
        let full = self.params.wording();
        let news = &due.news[..];
        let shorter = [
            (full, news),
            (Wording { states: 0, ..full }, news),
            (Wording { states: 0, ..full }, &news[news.len().saturating_sub(1)..]),
            (Wording { states: 0, back: 0, ..full }, &[][..]),
        ];
        let most = self.params.max_tokens.unwrap_or(usize::MAX);
        let mut text = String::new();
        let (mut tokens, mut shortened) = (0, false);
        for (tries, (wording, news)) in shorter.into_iter().enumerate() {
            let account = due.account.as_ref();
            let rows = &held[..=due.at];
            let scene = Scene { names: self.names, rows, account, news };
            text = words::render(self.environment, &scene, self.bins, &wording)
                .map_err(|e| failed(&e, self.names))?;
            tokens = counter.count(&text) as usize;
            shortened = tries > 0;
            if tokens <= most {
                break;
            }
        }
        let row = &held[due.at];
        let date = row.date.clone();
        let prompt = Prompt { id: date.clone(), t0: date, split: row.split, prompt: text };
        Ok(Line { prompt, tokens, shortened })
    }
}
