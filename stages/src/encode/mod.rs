//! `encode`: the market state of a bar as a text that a person can read.
//!
//! The text is a Jinja template, filled for each row of the training and the test span. Built in
//! are `narrative` (sentences; the default), `report` (headed lines, with the possible answers) and
//! `raw` (names and numbers); `template` in the pipeline takes their place. Every prompt ends with
//! a line `Decision:`, after which a completion goes on with a space.
//!
//! A template knows each feature by its name, as an object of `value`, `percentile` (1 to 99, among
//! the training rows) and `level` (a word); `features`, the list of all with their `name`;
//! `returns`, the last `context_bars` returns as texts, and `bars_back`, how many they are, in
//! words; `bar`, `date`, `open`, `high`, `low`, `close` and `volume`. Filters: `fixed(n)` and
//! `signed(n)` decimals, `digits(n)` significant digits, `ordinal`.
//!
//! The built-in styles name neither date nor price nor ticker: a pretrained model may remember what
//! followed a date, and a number that only one year has is a date too.
//!
//! It reads nothing past the row that it writes, except the bins, which are of the training span.

pub mod bins;
pub mod prompt;
pub mod words;

#[cfg(test)]
mod tests;

use std::io::Write;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::featurize::bars::Bar;
use crate::featurize::date;
use crate::featurize::split::{Split, bound, evenly};
use crate::featurize::table::{self, Row};
use crate::{Context, Format, Invalid, Port, Result, Stage, StageError};
use bins::Bins;
use prompt::Prompt;
use words::{Wording, Wrong};

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
    /// The first date that gets a prompt.
    pub from: Option<String>,
    /// The last date that gets a prompt.
    pub to: Option<String>,
    /// Every so-many-th training row gets a prompt.
    pub stride: usize,
    /// Training prompts at most, spread evenly. Without it, all.
    pub max_train_rows: Option<usize>,
    /// Test prompts at most: the first so many, without holes. Without it, all.
    pub max_test_rows: Option<usize>,
}

impl Default for Params {
    fn default() -> Params {
        Params {
            style: Style::default(),
            template: None,
            bar: "day".into(),
            context_bars: 3,
            from: None,
            to: None,
            stride: 1,
            max_train_rows: None,
            max_test_rows: None,
        }
    }
}

impl Params {
    fn template(&self) -> &str {
        self.template.as_deref().unwrap_or(self.style.template())
    }
    fn wording(&self) -> Wording<'_> {
        Wording { bar: &self.bar, back: self.context_bars }
    }
}

/// The stage.
pub struct Encode;

impl Stage for Encode {
    const NAME: &'static str = "encode";
    const VERSION: u32 = 2;
    const ABOUT: &'static str = "the market state as a prompt in words";
    type Params = Params;

    fn inputs(_: &Params) -> Vec<Port> {
        vec![Port::input("features", Format::Features)]
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
        let path = ctx.file("features")?;
        let rows = table::read(path)?;
        let bins = Bins::fit(&rows).ok_or_else(|| {
            StageError::bad(path, "no row of split `train`")
                .hint("check `splits` of the featurize stage")
        })?;
        let chosen = choose(&rows, params);
        let train = chosen.iter().filter(|&&at| is(&rows, at, Split::Train)).count();
        if chosen.is_empty() {
            return Err(StageError::bad(path, "no row is left to write a prompt for")
                .hint("check `from` and `to` against the dates of the training and test span"));
        }
        let environment = words::parse(params.template()).map_err(|e| failed(&e))?;
        let mut out = std::io::BufWriter::new(fs_err::File::create(ctx.output("prompts")?)?);
        let (mut words, mut longest) = (0usize, 0usize);
        for (done, &at) in chosen.iter().enumerate() {
            let Some(row) = rows.get(at) else { continue };
            let text = words::render(&environment, &rows, at, &bins, &params.wording())
                .map_err(|e| failed(&e))?;
            words += text.split_whitespace().count();
            longest = longest.max(text.chars().count());
            let date = row.bar.date.clone();
            let prompt = Prompt { id: date.clone(), t0: date, split: row.split, prompt: text };
            serde_json::to_writer(&mut out, &prompt).map_err(std::io::Error::from)?;
            out.write_all(b"\n")?;
            if done % 500 == 0 {
                ctx.progress(done as u64, chosen.len() as u64, "prompts", "")?;
            }
        }
        out.flush()?;
        let mut json = serde_json::to_string_pretty(&bins).map_err(std::io::Error::from)?;
        json.push('\n');
        fs_err::write(ctx.output("bins")?, json)?;
        ctx.progress(chosen.len() as u64, chosen.len() as u64, "prompts", "")?;
        ctx.metric("prompts_train", train as f64);
        ctx.metric("prompts_test", (chosen.len() - train) as f64);
        ctx.metric("words_mean", words as f64 / chosen.len() as f64);
        ctx.metric("characters_max", longest as f64);
        Ok(())
    }
}

fn check(params: &Params) -> Result<(), Invalid> {
    let dates = [("from", &params.from), ("to", &params.to)];
    for (name, text) in dates {
        if text.as_ref().is_some_and(|t| date::key(t).is_none()) {
            let text = text.as_deref().unwrap_or_default();
            return Err(Invalid::new(name, format!("`{text}` is not a date"))
                .help("write YYYY-MM-DD, perhaps with a time: YYYY-MM-DD HH:MM:SS"));
        }
    }
    if let (Some(from), Some(to)) = (bound(&params.from), bound(&params.to))
        && !date::up_to(&from, &to)
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
    if params.context_bars > 100 {
        return Err(Invalid::new("context_bars", "must be at most 100"));
    }
    if params.bar.trim().is_empty() {
        return Err(Invalid::new("bar", "must be a word, such as `day`"));
    }
    // A row of zeros finds names that are not known before any data are read.
    let sample = |date: &str| Row {
        bar: Bar {
            date: date.into(),
            key: date.into(),
            open: 1.0,
            high: 1.0,
            low: 1.0,
            close: 1.0,
            volume: 1.0,
        },
        split: Split::Train,
        features: [0.0; 15],
    };
    let rows = [sample("2000-01-01"), sample("2000-01-02")];
    let tried = Bins::fit(&rows).map(|bins| {
        let environment = words::parse(params.template())?;
        words::render(&environment, &rows, 1, &bins, &params.wording())
    });
    match tried {
        Some(Err(e)) => Err(Invalid::new("template", described(&e)).help(NAMES)),
        _ => Ok(()),
    }
}

const NAMES: &str = "a template knows the features by name (such as `spread_bps.value`, `.level`, `.percentile`), `features`, `returns`, `bars_back`, `bar`, `date`, `open`, `high`, `low`, `close`, `volume`, and the filters fixed, signed, digits and ordinal";

fn described(wrong: &Wrong) -> String {
    match wrong.line {
        Some(line) => format!("line {line}: {}", wrong.message),
        None => wrong.message.clone(),
    }
}

fn failed(wrong: &Wrong) -> StageError {
    StageError::failed(format!("template: {}", described(wrong))).hint(NAMES)
}

fn is(rows: &[Row], at: usize, split: Split) -> bool {
    rows.get(at).is_some_and(|row| row.split == split)
}

/// The rows that get a prompt, in order.
fn choose(rows: &[Row], params: &Params) -> Vec<usize> {
    let (from, to) = (bound(&params.from), bound(&params.to));
    let within = |row: &Row| {
        from.as_ref().is_none_or(|from| row.bar.key >= *from)
            && to.as_ref().is_none_or(|to| date::up_to(&row.bar.key, to))
    };
    let of = |split: Split| -> Vec<usize> {
        let places = rows.iter().enumerate();
        places.filter(|(_, row)| row.split == split && within(row)).map(|(at, _)| at).collect()
    };
    let train: Vec<usize> = of(Split::Train).into_iter().step_by(params.stride).collect();
    let most = params.max_train_rows.unwrap_or(usize::MAX);
    let mut chosen: Vec<usize> =
        evenly(train.len(), most).filter_map(|i| train.get(i).copied()).collect();
    chosen.extend(of(Split::Test).into_iter().take(params.max_test_rows.unwrap_or(usize::MAX)));
    chosen
}
