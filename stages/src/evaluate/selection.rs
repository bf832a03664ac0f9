//! What a Sharpe ratio is worth once it was picked among many: the deflated Sharpe ratio.
//!
//! The best of N tries without any skill has a Sharpe ratio that grows with N and with how far the
//! tries differ. Deflating takes that much off before asking how likely it is that skill remains
//! (Bailey and Lopez de Prado 2014). Each configuration counts as one try, although tries that
//! resemble each other count for less: the result errs to the cautious side. Tries that were not
//! recorded are not counted.
//!
//! Not here: the probability of overfitting (PBO), which needs the returns of every trial.

use std::path::Path;

use serde::Serialize;
use statrs::distribution::{ContinuousCDF, Normal};

use super::assessment::{Selection, Strategy};
use super::inference::Moments;
use super::metrics::{deviation, sharpe_per_bar};
use super::numbers::{count, many, or_none, ordinal, percent, ratio};
use super::overfit::{BLOCKS, cscv};
use super::report::fill;
use crate::{Judged, Result, StageError, Tried};

/// Metric: Sharpe ratio of a bar.
pub const SHARPE: &str = "sharpe_per_bar";
/// Metric: returns behind it.
pub const RETURNS: &str = "returns";
/// Metric: their skewness.
pub const SKEWNESS: &str = "skewness";
/// Metric: their kurtosis; 3 of a normal distribution.
pub const KURTOSIS: &str = "kurtosis";

/// Metric: prompts of the sealed holdout that were answered. What has it opened the holdout.
pub const HOLDOUT: &str = "holdout_prompts";

/// Trials that the page lists; the one that it is about comes on top of them.
const LISTED: usize = 20;

const TEMPLATE: &str = include_str!("selection.html.jinja");

/// The Sharpe ratio that the best of `trials` without skill is expected to have, where Sharpe ratios
/// of trials have this standard deviation (Bailey and Lopez de Prado 2014, eq. 1). 0 of a single one.
pub fn best_by_chance(deviation: f64, trials: usize) -> f64 {
    const EULER: f64 = 0.577_215_664_901_532_9;
    if trials < 2 {
        return 0.0;
    }
    let (n, normal) = (trials as f64, Normal::standard());
    let beyond = |share: f64| normal.inverse_cdf(1.0 - share);
    deviation * ((1.0 - EULER) * beyond(1.0 / n) + EULER * beyond(1.0 / (n * std::f64::consts::E)))
}

/// Another configuration whose returns are known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trial {
    /// Dates of its returns.
    pub dates: Vec<String>,
    /// Net returns of what it judged.
    pub returns: Vec<f64>,
}

/// Reads `returns.csv` of another `evaluate`: its first strategy.
///
/// # Errors
/// It is not such a file.
pub fn trial(path: &Path) -> Result<Trial> {
    let bad = |e: csv::Error| StageError::bad(path, e.to_string());
    let mut reader = csv::Reader::from_reader(fs_err::File::open(path)?);
    if reader.headers().map_err(bad)?.get(0) != Some("date") {
        return Err(StageError::bad(path, "missing column `date`")
            .at(1)
            .hint("feed outputs `returns` of `evaluate` stages"));
    }
    let mut trial = Trial::default();
    for row in reader.records() {
        let row = row.map_err(bad)?;
        let line = row.position().map_or(0, csv::Position::line);
        let number = row.get(1).and_then(|x| x.parse::<f64>().ok()).filter(|x| x.is_finite());
        trial.returns.push(
            number.ok_or_else(|| {
                StageError::bad(path, "the second column is not a number").at(line)
            })?,
        );
        trial.dates.push(row.get(0).unwrap_or_default().into());
    }
    Ok(trial)
}

/// What the number of tries does to the first strategy, as far as the returns of other tries on the
/// same dates are known. A trial with the very returns of another is the same one.
pub fn known(
    strategies: &[Strategy],
    dates: &[String],
    trials: &[Trial],
    per_year: f64,
) -> Selection {
    let Some(mine) = strategies.first().map(|s| s.path.returns()) else {
        return Selection::default();
    };
    let mut all = vec![mine];
    for trial in trials.iter().filter(|t| dates.get(1..) == Some(t.dates.as_slice())) {
        if !all.contains(&trial.returns) {
            all.push(trial.returns.clone());
        }
    }
    if all.len() < 2 {
        return Selection::default();
    }
    let ratios: Vec<f64> = all.iter().filter_map(|r| sharpe_per_bar(r)).collect();
    let chance = deviation(&ratios).map(|d| best_by_chance(d, all.len()));
    let deflated = chance.and_then(|c| Moments::of(&all[0]).map(|m| m.psr(c)));
    Selection {
        trials: Some(all.len()),
        sharpe_by_chance: chance.map(|c| c * per_year.sqrt()),
        deflated_sharpe: deflated.filter(|p| p.is_finite()),
        overfit: cscv(&all, BLOCKS),
    }
}

/// A trial as the page lists it.
#[derive(Serialize)]
struct Row<'a> {
    rank: Option<usize>,
    own: bool,
    sharpe: Option<f64>,
    cagr: Option<f64>,
    max_drawdown: Option<f64>,
    trades: Option<usize>,
    stage: &'a str,
    config: &'a str,
    run: &'a str,
}

/// What the page shows.
#[derive(Serialize)]
struct Page<'a> {
    line: &'a str,
    tiles: Vec<(&'static str, String, String)>,
    rows: Vec<Row<'a>>,
    left: usize,
    unknown: usize,
    latest: &'a str,
}

/// What the trial at `own`, or else the best, is worth among all on the same data: one on the test span
/// among those on the test span, one that opened the sealed holdout among those that did.
///
/// # Errors
/// The page cannot be written.
pub fn judge(tried: &[Tried], own: Option<usize>) -> Result<Judged> {
    let opened = |trial: &Tried| trial.metrics.contains_key(HOLDOUT);
    let openings = tried.iter().filter(|trial| opened(trial)).count();
    let on_it = match own {
        Some(at) => opened(&tried[at]),
        None => openings == tried.len() && openings > 0,
    };
    let own = own.map(|own| tried[..own].iter().filter(|trial| opened(trial) == on_it).count());
    let tried: Vec<Tried> = tried.iter().filter(|t| opened(t) == on_it).cloned().collect();
    let mut judged = among(&tried, own, openings)?;
    if openings > 0 {
        judged.numbers.insert("holdout_openings".into(), openings as f64);
    }
    Ok(judged)
}

fn among(tried: &[Tried], own: Option<usize>, openings: usize) -> Result<Judged> {
    let of = |at: usize, name: &str| tried[at].metrics.get(name).copied();
    let sharpe = |at: usize| of(at, SHARPE);
    let mut order: Vec<usize> = (0..tried.len()).collect();
    let key = |at: &usize| sharpe(*at).unwrap_or(f64::NEG_INFINITY);
    order.sort_by(|a, b| key(b).total_cmp(&key(a)));
    let best = order.first().copied().filter(|at| sharpe(*at).is_some());
    let known: Vec<f64> = (0..tried.len()).filter_map(sharpe).collect();
    let rank_of = |at: usize| sharpe(at).map(|sr| 1 + known.iter().filter(|k| **k > sr).count());
    let own = own.or(best);
    let rank = own.and_then(rank_of);
    let chance = match tried.len() {
        0 | 1 => Some(0.0),
        n => deviation(&known).map(|deviation| best_by_chance(deviation, n)),
    };
    let deflated = own.zip(chance).and_then(|(at, chance)| {
        let (returns, skewness) = (of(at, RETURNS)? as usize, of(at, SKEWNESS)?);
        let kurtosis = of(at, KURTOSIS)?;
        let moments = Moments { sharpe: sharpe(at)?, bars: returns, skewness, kurtosis };
        Some(moments.psr(chance)).filter(|p| p.is_finite())
    });
    // Ratios of a bar become ratios of a year by the same factor.
    let a_year = own.and_then(|at| Some(of(at, "sharpe")? / sharpe(at)?)).filter(|f| f.is_finite());
    let chance = chance.zip(a_year).map(|(chance, factor)| chance * factor);
    let of_year = |at: Option<usize>| at.and_then(|at| of(at, "sharpe"));
    let mut line = match (tried.len(), rank) {
        (n, None) => format!("{}, without a Sharpe ratio to rank", configurations(n)),
        (1, Some(_)) => format!(
            "the only configuration so far, Sharpe ratio {}; P(Sharpe > 0) {}",
            or_none(of_year(own), ratio),
            or_none(deflated, percent)
        ),
        (n, Some(rank)) => format!(
            "{} of {} by Sharpe ratio ({}; the best {}, by chance {}); deflated Sharpe ratio {}",
            ordinal(rank),
            configurations(n),
            or_none(of_year(own), ratio),
            or_none(of_year(best), ratio),
            or_none(chance, ratio),
            or_none(deflated, percent)
        ),
    };
    if openings > 0 {
        line += &format!("; the sealed holdout was opened by {}", many(openings, "configuration"));
    }
    let numbers = [
        ("trials", Some(tried.len() as f64)),
        ("rank", rank.map(|rank| rank as f64)),
        ("sharpe", of_year(own)),
        ("sharpe_best", of_year(best)),
        ("sharpe_by_chance", chance),
        ("deflated_sharpe", deflated),
    ];
    let numbers = numbers.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    let row = |at: usize| Row {
        rank: rank_of(at),
        own: Some(at) == own,
        sharpe: of(at, "sharpe"),
        cagr: of(at, "cagr"),
        max_drawdown: of(at, "max_drawdown"),
        trades: of(at, "trades").map(|trades| trades as usize),
        stage: &tried[at].stage,
        config: &tried[at].config,
        run: &tried[at].run,
    };
    let shown = |(place, at): (usize, usize)| (place < LISTED || Some(at) == own).then(|| row(at));
    let rows: Vec<Row> = order.iter().copied().enumerate().filter_map(shown).collect();
    let place = rank.map_or_else(|| "no rank".into(), |rank| format!("this one {}", ordinal(rank)));
    let tiles = vec![
        ("Configurations tried", count(tried.len()), place),
        ("Sharpe ratio", or_none(of_year(own), ratio), best_note(of_year(best))),
        ("Best by chance", or_none(chance, ratio), format!("of {} without skill", tried.len())),
        ("Deflated Sharpe ratio", or_none(deflated, percent), "95% is usually asked".into()),
    ];
    let page = Page {
        line: &line,
        tiles,
        left: tried.len() - rows.len(),
        unknown: tried.len() - known.len(),
        rows,
        latest: tried.iter().map(|t| t.at.as_str()).max().unwrap_or_default(),
    };
    let page = fill(TEMPLATE, &page)?;
    Ok(Judged { line, numbers: numbers.collect(), page })
}

fn configurations(n: usize) -> String {
    format!("{} on the same data", many(n, "configuration"))
}

fn best_note(best: Option<f64>) -> String {
    best.map_or_else(|| "nobody has one".into(), |best| format!("the best has {}", ratio(best)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::testdata::{boot, close};

    /// Sharpe ratios of a day of the 25 rules of which `boot.csv` holds the best (NumPy 2.4.6).
    const RULES: [f64; 25] = [
        0.019794647089577014,
        0.02741113915587477,
        0.034438446643053844,
        0.03909682540233517,
        0.04482807632495922,
        0.03036273960625798,
        0.039672790019006136,
        0.036619802203113935,
        0.04146603594618105,
        0.045847029959665365,
        0.047216310749627656,
        0.041990124534489665,
        0.031774332941567604,
        0.043266804646130495,
        0.04519511840502802,
        0.029089116023002248,
        0.0352166300246927,
        0.03253919976577523,
        0.044925398216755334,
        0.04309211611252121,
        0.03405755416854145,
        0.04488417524804929,
        0.044619579959948794,
        0.04470401671171995,
        0.04144698872204894,
    ];

    fn trial(n: usize, sharpe: Option<f64>) -> Tried {
        let metrics = sharpe.map(|s| [(SHARPE, s), ("sharpe", s * 252f64.sqrt())]);
        let metrics = metrics.into_iter().flatten().map(|(k, v)| (k.to_owned(), v)).collect();
        let text = |what: &str| format!("{what}{n:02}");
        Tried { at: text("at"), run: text("run"), stage: text("s"), config: text("c"), metrics }
    }

    fn rules() -> Vec<Tried> {
        let (returns, _) = boot();
        let mut tried: Vec<Tried> =
            RULES.iter().enumerate().map(|(n, s)| trial(n, Some(*s))).collect();
        let m = Moments::of(&returns).unwrap();
        close(m.sharpe, RULES[10], 1e-12);
        let more = [(RETURNS, m.bars as f64), (SKEWNESS, m.skewness), (KURTOSIS, m.kurtosis)];
        tried[10].metrics.extend(more.map(|(k, v)| (k.to_owned(), v)));
        tried
    }

    #[test]
    fn chance_lifts_the_best_as_in_the_paper() {
        // 100 trials, a variance of 1/2 of the ratio of a year of 250 days.
        close(best_by_chance((0.5f64 / 250.0).sqrt(), 100), 0.11317200186513214, 1e-9);
        // purgedcv 0.1.11: of 25 trials with a deviation of 1; its threshold for the 25 rules.
        close(best_by_chance(1.0, 25), 1.9971498874673592, 1e-9);
        close(best_by_chance(deviation(&RULES).unwrap(), 25), 0.014162586398644454, 1e-9);
        assert_eq!(best_by_chance(1.0, 1), 0.0);
        assert!(best_by_chance(1.0, 2) > 0.0);
    }

    #[test]
    fn a_deflated_ratio_is_that_of_other_programs() {
        let tried = rules();
        let judged = judge(&tried, None).unwrap();
        // Closed form in NumPy 2.4.6; deflated-sharpe-metrics 0.1.0 gives 0.9303057401224168.
        close(judged.numbers["deflated_sharpe"], 0.9303057401223891, 1e-9);
        let of = |name: &str| judged.numbers[name];
        assert_eq!((of("trials"), of("rank")), (25.0, 1.0));
        close(of("sharpe_by_chance"), 0.014162586398644454 * 252f64.sqrt(), 1e-9);
        assert_eq!(
            judged.line,
            "1st of 25 configurations on the same data by Sharpe ratio (0.75; the best 0.75, by chance 0.22); deflated Sharpe ratio 93.0%"
        );
        assert_eq!(judge(&tried, Some(10)).unwrap(), judged);
        // Alone, it is the probabilistic ratio.
        let alone = judge(&tried[10..11], Some(0)).unwrap();
        close(alone.numbers["deflated_sharpe"], 0.9826303403956227, 1e-9);
        assert_eq!(
            alone.line,
            "the only configuration so far, Sharpe ratio 0.75; P(Sharpe > 0) 98.3%"
        );
    }

    #[test]
    fn more_trials_deflate_more_and_those_without_a_ratio_count() {
        let mut tried = rules();
        let deflated = |tried: &[Tried]| judge(tried, Some(10)).unwrap().numbers["deflated_sharpe"];
        let before = deflated(&tried);
        tried.push(trial(25, None));
        assert!(deflated(&tried) < before);
        let judged = judge(&tried, Some(25)).unwrap();
        assert_eq!(
            judged.line,
            "26 configurations on the same data, without a Sharpe ratio to rank"
        );
        assert!(!judged.numbers.contains_key("deflated_sharpe"));
        assert!(judged.page.contains("1 of them has no Sharpe ratio"));
        // Where nothing is known of the others, nothing can be taken off.
        let two = [tried[10].clone(), trial(1, None)];
        assert!(!judge(&two, None).unwrap().numbers.contains_key("deflated_sharpe"));
        assert_eq!(judge(&[], None).unwrap().numbers["trials"], 0.0);
    }

    #[test]
    fn openings_of_the_holdout_are_counted_and_judged_apart() {
        let mut tried = rules();
        let before = judge(&tried, Some(10)).unwrap();
        let mut open = tried[3].clone();
        open.metrics.insert(HOLDOUT.into(), 40.0);
        tried.insert(5, open);
        let after = judge(&tried, Some(11)).unwrap();
        assert_eq!(after.numbers["deflated_sharpe"], before.numbers["deflated_sharpe"]);
        assert_eq!(after.numbers["holdout_openings"], 1.0);
        assert!(!before.numbers.contains_key("holdout_openings"));
        let said = "; the sealed holdout was opened by 1 configuration";
        assert_eq!(after.line, before.line + said);
        let judged = judge(&tried, Some(5)).unwrap();
        assert_eq!(judged.numbers["trials"], 1.0);
        assert!(judged.line.starts_with("the only configuration") && judged.line.ends_with(said));
    }

    #[test]
    fn a_page_is_whole_and_names_this_one_however_far_down() {
        let mut tried = rules();
        tried[0].stage = "<script>".into();
        let page = judge(&tried, Some(0)).unwrap().page;
        assert_eq!(page.matches("<tr class=\"own\">").count(), 1);
        assert_eq!(page.matches("<tr").count(), 1 + LISTED + 1);
        assert!(
            page.contains("25th") && page.contains("&lt;script&gt;") && !page.contains("<script")
        );
        for outside in ["src=", "href=", "@import", "url(", "<link", "<img"] {
            assert!(!page.contains(outside), "{outside}");
        }
    }
}
